//! Authentication by tokens, against a Keystone that the tests make up: it says of each token what the test wants.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use isimud_contract::{Clock, SystemClock};
use serde_json::{Value, json};

use crate::support::server::Server;
use crate::websocket::client::{BOTH, Encoding, Socket};
use crate::websocket::{configure, messages};

/// Seconds for which a validated token counts.
const CACHE_SECS: u64 = 1;

/// A Keystone that knows tokens by what it is told of them.
#[derive(Clone)]
struct Keystone {
    address: SocketAddr,
    /// What a validation of each token answers: its document, or none where Keystone is down.
    tokens: Arc<Mutex<HashMap<String, Option<Value>>>>,
}

impl Keystone {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let keystone = Self {
            address: listener.local_addr().expect("its address"),
            tokens: Arc::default(),
        };
        let serving = keystone.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(stream));
            }
        });
        keystone
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        while let Some((method, headers)) = read_request(&mut reader) {
            let (status, document) = match method.as_str() {
                "POST" => (201, Some(document("service", &["service"], FAR))),
                _ => {
                    let subject = headers.get("x-subject-token").cloned().unwrap_or_default();
                    match self.tokens.lock().expect("unpoisoned").get(&subject) {
                        Some(Some(document)) => (200, Some(document.clone())),
                        Some(None) => (503, None),
                        None => (404, Some(json!({"error": {"code": 404}}))),
                    }
                }
            };
            let body = document.unwrap_or_else(|| json!({"error": {}})).to_string();
            let answer = format!(
                "HTTP/1.1 {status} X\r\nX-Subject-Token: own\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    /// From now on this is what it says of a token; `None` for that it cannot say.
    fn say(&self, token: &str, document: Option<Value>) {
        let mut tokens = self.tokens.lock().expect("unpoisoned");
        tokens.insert(token.to_owned(), document);
    }

    fn revoke(&self, token: &str) {
        self.tokens.lock().expect("unpoisoned").remove(token);
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<(String, HashMap<String, String>)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let method = line.split(' ').next()?.to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers
        .get("content-length")
        .and_then(|text| text.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some((method, headers))
}

const FAR: &str = "2099-01-01T00:00:00.000000Z";

/// The document of a token.
fn document(project: &str, roles: &[&str], expires_at: &str) -> Value {
    let roles: Vec<Value> = roles
        .iter()
        .map(|name| json!({"id": name, "name": name}))
        .collect();
    json!({"token": {
        "user": {"id": "u1", "name": "alice", "domain": {"id": "default", "name": "Default"}},
        "project": {"id": project, "name": project, "domain": {"id": "default", "name": "Default"}},
        "roles": roles, "expires_at": expires_at, "issued_at": "2026-01-01T00:00:00.000000Z",
        "methods": ["password"], "audit_ids": ["a"], "catalog": []
    }})
}

/// The moment so long from now, as Keystone writes it.
fn in_the_future(span: Duration) -> String {
    let millis = SystemClock.wall().after(span).0.unsigned_abs();
    let (days, secs) = (millis / 86_400_000, millis / 1000 % 86_400);
    // Days since March of the year 0, by Howard Hinnant's algorithm.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (secs / 3600, secs / 60 % 60, secs % 60);
    let micros = millis % 1000 * 1000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

struct Service {
    keystone: Keystone,
    server: Server,
    _folder: tempfile::TempDir,
}

impl Service {
    fn start() -> Self {
        let keystone = Keystone::start();
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(
            folder.path().join("policy.yaml"),
            "'queues:delete': role:admin",
        )
        .expect("a file");
        let config = format!(
            "[access]\nauthentication = 'keystone'\npolicy_file = 'policy.yaml'\n[keystone]\n\
             auth_url = 'http://{}/v3'\nusername = 'zaqar'\nuser_domain_id = 'default'\npassword = 'pw'\n\
             project = 'service'\nproject_domain_id = 'default'\ncache_secs = {CACHE_SECS}\nnegative_cache_secs = 0\n",
            keystone.address
        );
        configure(folder.path(), &config);
        let server = Server::start("sqlite::memory:", folder.path());
        Self {
            keystone,
            server,
            _folder: folder,
        }
    }

    fn socket(&self, encoding: Encoding) -> Socket {
        Socket::open(self.server.address, encoding)
    }
}

#[track_caller]
fn authenticate(socket: &mut Socket, token: &str) -> u64 {
    let headers = json!({"X-Project-ID": "anything", "X-Auth-Token": token});
    let answer = socket.exchange(&json!({"action": "authenticate", "headers": headers}));
    let shown = json!({"action": "authenticate", "body": {}, "headers": {}, "api": "v2"});
    assert_eq!(answer.whole["request"], shown);
    match answer.status {
        200 => assert_eq!(answer.body, json!({"message": "Authentified."})),
        _ => assert_eq!(answer.body, json!({"error": "Authentication failed."})),
    }
    answer.status
}

#[test]
fn a_socket_is_that_of_the_token_that_it_showed_last() {
    let service = Service::start();
    service
        .keystone
        .say("one", Some(document("p1", &["member"], FAR)));
    service
        .keystone
        .say("two", Some(document("p2", &["member"], FAR)));
    service.keystone.say("down", None);
    for encoding in BOTH {
        let mut socket = service.socket(encoding);
        let refused = socket.expect(403, "queue_list", json!({}));
        assert_eq!(refused, json!({"error": "Not authentified."}));
        assert_eq!(authenticate(&mut socket, "bad"), 401);
        assert_eq!(authenticate(&mut socket, "down"), 503);
        assert_eq!(authenticate(&mut socket, "one"), 200);
        socket.expect(200, "queue_list", json!({}));
        assert_eq!(authenticate(&mut socket, "bad"), 401);
        socket.expect(200, "queue_list", json!({}));
        socket.project = "p2".into();
        let refused = socket.expect(403, "queue_list", json!({}));
        assert_eq!(refused, json!({"error": "Not authenticated."}));
        assert_eq!(authenticate(&mut socket, "two"), 200);
        socket.expect(200, "queue_list", json!({}));
        // Policies hold, by the roles of the token.
        socket.expect(403, "queue_delete", json!({"queue_name": "q"}));
    }
}

#[test]
fn a_token_in_another_action_or_in_the_handshake_does_not_count() {
    let service = Service::start();
    service
        .keystone
        .say("one", Some(document("p1", &["member"], FAR)));
    let shaken = crate::websocket::client::shake_hands(
        service.server.address,
        "/",
        &[("x-auth-token", "one")],
    );
    let mut socket = Socket::over(shaken.expect("a socket").0, Encoding::Text);
    socket.expect(403, "queue_list", json!({}));
    let mut request = socket.request("queue_list", &json!({}));
    request["headers"]["X-Auth-Token"] = "one".into();
    let answer = socket.exchange(&request);
    assert_eq!(answer.status, 403);
    assert_eq!(answer.whole["request"]["headers"].get("X-Auth-Token"), None);
}

#[test]
fn a_socket_ends_when_its_token_does_and_when_it_is_revoked() {
    let service = Service::start();
    let expired = (4003, "Authentication expired.".to_owned());
    let soon = in_the_future(Duration::from_secs(3));
    service
        .keystone
        .say("short", Some(document("p1", &["member"], &soon)));
    service
        .keystone
        .say("long", Some(document("p1", &["member"], FAR)));
    let mut short = service.socket(Encoding::Text);
    assert_eq!(authenticate(&mut short, "short"), 200);
    assert_eq!(short.closed(), expired);
    // One that listens is found out without asking for anything, one that asks with its next request.
    let mut listening = service.socket(Encoding::Text);
    let mut asking = service.socket(Encoding::Text);
    for socket in [&mut listening, &mut asking] {
        assert_eq!(authenticate(socket, "long"), 200);
    }
    listening.expect(201, "subscription_create", json!({"queue_name": "q"}));
    service.keystone.revoke("long");
    assert_eq!(listening.closed(), expired);
    let request = asking.request("queue_list", &json!({}));
    asking.send(&request);
    assert_eq!(asking.closed(), expired);
}

#[test]
fn while_keystone_cannot_say_requests_wait_and_nothing_is_pushed() {
    let service = Service::start();
    service
        .keystone
        .say("one", Some(document("p1", &["member"], FAR)));
    service
        .keystone
        .say("two", Some(document("p1", &["member"], FAR)));
    let mut socket = service.socket(Encoding::Text);
    assert_eq!(authenticate(&mut socket, "one"), 200);
    socket.expect(201, "subscription_create", json!({"queue_name": "q"}));
    service.keystone.say("one", None);
    let begun = std::time::Instant::now();
    while socket.ask("queue_list", json!({})).status != 503 {
        assert!(begun.elapsed() < crate::websocket::client::TIMEOUT);
    }
    service
        .keystone
        .say("one", Some(document("p1", &["member"], FAR)));
    while socket.ask("queue_list", json!({})).status != 200 {
        assert!(begun.elapsed() < 2 * crate::websocket::client::TIMEOUT);
    }
    let mut poster = service.socket(Encoding::Text);
    assert_eq!(authenticate(&mut poster, "two"), 200);
    let posted = json!({"queue_name": "q", "messages": messages([json!("back")])});
    poster.expect(201, "message_post", posted);
    assert_eq!(socket.receive()["body"], "back");
}

#[test]
fn another_project_ends_the_subscriptions_of_the_one_before() {
    let service = Service::start();
    service
        .keystone
        .say("one", Some(document("p1", &["member"], FAR)));
    service
        .keystone
        .say("two", Some(document("p2", &["member"], FAR)));
    let mut socket = service.socket(Encoding::Text);
    assert_eq!(authenticate(&mut socket, "one"), 200);
    socket.expect(201, "subscription_create", json!({"queue_name": "q"}));
    assert_eq!(authenticate(&mut socket, "two"), 200);
    let mut poster = service.socket(Encoding::Text);
    assert_eq!(authenticate(&mut poster, "one"), 200);
    let posted = json!({"queue_name": "q", "messages": messages([json!("secret")])});
    poster.expect(201, "message_post", posted);
    socket.project = "p2".into();
    socket.expect(200, "queue_list", json!({}));
    assert!(!socket.has_pushed());
}
