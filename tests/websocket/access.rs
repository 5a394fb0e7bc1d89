//! Who may open sockets, and what for: the handshake, the listeners, proxies, policies and signatures.

use std::io::{BufReader, Write};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::server::{Answer, Server, connect, free_address};
use crate::websocket::client::{BOTH, Encoding, Socket, TIMEOUT, shake_hands};
use crate::websocket::{Service, configure, messages};

#[test]
fn pages_of_other_origins_may_not_unless_they_are_listed() {
    let service = Service::start("[websocket]\nallowed_origins = ['https://shop.example']");
    let address = service.server.address;
    let own = format!("http://{address}");
    for (origin, allowed) in [
        (own.as_str(), true),
        ("https://shop.example", true),
        ("https://evil.example", false),
        ("null", false),
    ] {
        let shaken = shake_hands(address, "/", &[("origin", origin)]);
        assert_eq!(
            shaken.map(drop),
            if allowed { Ok(()) } else { Err(403) },
            "{origin}"
        );
    }
}

#[test]
fn sockets_have_a_listener_of_their_own_and_the_root_of_the_api() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = free_address();
    let config = format!("[websocket]\nlisten = '{own}'\n[server]\nbase_path = '/messaging'");
    configure(folder.path(), &config);
    let server = Server::start("sqlite::memory:", folder.path());
    for (address, path, expected) in [
        (own, "/", Ok(())),
        (own, "/any/path", Ok(())),
        (server.address, "/", Ok(())),
        (server.address, "/messaging", Ok(())),
        (server.address, "/messaging/", Ok(())),
        (server.address, "/v2/queues", Err(400)),
    ] {
        let shaken = shake_hands(address, path, &[]);
        assert_eq!(shaken.map(drop), expected, "{address}{path}");
    }
    let mut stream = connect(own, TIMEOUT).expect("a connection");
    let request = "GET /v2/queues HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("a request");
    let answer = Answer::read(&mut BufReader::new(stream), false);
    let answer = answer.expect("an answer").expect("an answer");
    assert_eq!(answer.status, 426, "{answer}");
    assert_eq!(answer.header("sec-websocket-version"), Some("13"));
}

#[test]
fn the_api_takes_no_sockets_where_it_is_not_to() {
    let service = Service::start("[websocket]\nupgrade = false");
    assert_eq!(
        shake_hands(service.server.address, "/", &[]).map(drop),
        Err(300)
    );
}

#[test]
fn a_proxy_vouches_for_the_project_in_the_handshake() {
    let secret = "0123456789abcdef";
    let service = Service::start(&format!("[access]\nproxy_secret = '{secret}'"));
    let address = service.server.address;
    let open = |headers: &[(&'static str, &str)]| {
        let (stream, _) = shake_hands(address, "/", headers).expect("a socket");
        Socket::over(stream, Encoding::Text)
    };
    let shown = ("x-isimud-proxy-secret", secret);
    let mut unknown = open(&[("x-project-id", "p1")]);
    let refused = unknown.expect(403, "queue_list", json!({}));
    assert_eq!(refused, json!({"error": "Not authentified."}));
    open(&[shown, ("x-project-id", "p1")]).expect(200, "queue_list", json!({}));
    let mut other = open(&[shown, ("x-project-id", "p2")]);
    let refused = other.expect(403, "queue_list", json!({}));
    assert_eq!(refused, json!({"error": "Not authenticated."}));
}

#[test]
fn policies_hold_for_actions_by_the_roles_of_the_handshake() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(
        folder.path().join("policy.yaml"),
        "'queues:create': role:writer",
    )
    .expect("a file");
    configure(folder.path(), "[access]\npolicy_file = 'policy.yaml'");
    let server = Server::start("sqlite::memory:", folder.path());
    let create = |headers: &[(&'static str, &str)]| {
        let (stream, _) = shake_hands(server.address, "/", headers).expect("a socket");
        let mut socket = Socket::over(stream, Encoding::Text);
        socket
            .ask("queue_create", json!({"queue_name": "q"}))
            .status
    };
    assert_eq!(create(&[]), 403);
    assert_eq!(create(&[("x-roles", "reader,writer")]), 201);
}

#[test]
fn requests_beyond_the_quota_of_the_project_come_too_soon() {
    let service = Service::start("[quotas]\nmax_requests_per_second = 3");
    let mut socket = service.socket(Encoding::Text);
    let answers: Vec<_> = (0..10)
        .map(|_| socket.ask("queue_list", json!({})))
        .collect();
    let refused = answers.iter().find(|answer| answer.status == 429);
    let refused = refused.expect("some come too soon");
    assert!(refused.whole["headers"]["Retry-After"].is_u64());
}

/// A signature of the REST API for what is named.
fn share(service: &Service, paths: Value, methods: Value) -> Value {
    let document = json!({"paths": paths, "methods": methods});
    let shared = service
        .http()
        .send("POST", "/v2/queues/shq/share", Some(&document));
    let shared = shared.expect("an answer");
    assert_eq!(shared.status, 200, "{shared}");
    shared.json()
}

#[test]
fn a_signature_stands_for_a_token_for_its_methods_and_its_queue_alone() {
    // Whoever connects is unknown: the proxy's secret is not shown. The share is made by the one who shows it.
    let service = Service::start("[signed_url]\nsecret_key = 'a long random text'");
    let shared = share(&service, json!(["messages"]), json!(["GET", "POST"]));
    let folder = tempfile::tempdir().expect("a folder");
    let config = "[signed_url]\nsecret_key = 'a long random text'\n[access]\nproxy_secret = '0123456789abcdef'";
    configure(folder.path(), config);
    let guarded = Server::start("sqlite::memory:", folder.path());
    for encoding in BOTH {
        let mut socket = Socket::open(guarded.address, encoding);
        let mut ask = |action: &str, body: Value, spoil: &dyn Fn(&mut Value)| {
            let mut request = socket.request(action, &body);
            let headers = &mut request["headers"];
            headers["URL-Signature"] = shared["signature"].clone();
            headers["URL-Expires"] = shared["expires"].clone();
            headers["URL-Methods"] = shared["methods"].clone();
            headers["URL-Paths"] = shared["paths"].clone();
            spoil(headers);
            let answer = socket.exchange(&request);
            if answer.status == 403 {
                assert_eq!(answer.body, json!({"error": "Not authentified."}));
            }
            answer.status
        };
        let post = json!({"queue_name": "shq", "messages": messages([json!(1)])});
        let whole = |_: &mut Value| {};
        assert_eq!(ask("message_post", post.clone(), &whole), 201);
        assert_eq!(
            ask("message_list", json!({"queue_name": "shq"}), &whole),
            200
        );
        let other = json!({"queue_name": "other", "messages": messages([json!(1)])});
        assert_eq!(ask("message_post", other, &whole), 403, "quirk Q-WS-2");
        let popped = json!({"queue_name": "shq", "pop": 1});
        assert_eq!(ask("message_delete_many", popped, &whole), 403);
        assert_eq!(ask("queue_get", json!({"queue_name": "shq"}), &whole), 403);
        for name in ["URL-Methods", "URL-Expires", "URL-Paths"] {
            let without = |headers: &mut Value| {
                headers.as_object_mut().expect("headers").remove(name);
            };
            assert_eq!(ask("message_post", post.clone(), &without), 403, "{name}");
        }
        let of_another = |headers: &mut Value| headers["X-Project-ID"] = "p2".into();
        assert_eq!(ask("message_post", post.clone(), &of_another), 403);
    }
}

#[test]
fn sockets_are_told_when_to_come_back_when_the_server_stops() {
    let service = Service::start("[websocket]\nreconnect_secs = 3");
    let mut socket = service.socket(Encoding::Text);
    socket.expect(200, "queue_list", json!({}));
    let stopping = std::thread::spawn(move || service.server.stop());
    let (code, reason) = socket.closed();
    assert_eq!(code, 1001);
    let wait = reason.strip_prefix("The server stops. Reconnect in ");
    let wait = wait.and_then(|rest| rest.strip_suffix(" ms.")?.parse::<u64>().ok());
    assert!(wait.is_some_and(|wait| wait <= 3000), "{reason}");
    stopping.join().expect("it stops in good order");
    assert!(Duration::from_millis(3000) < TIMEOUT);
}
