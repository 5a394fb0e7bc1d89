//! Stopping: what runs is finished, what waits is let go of.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::command::process::{HEADERS, Running, TIMEOUT, within};
use crate::support::server::{Answer, connect};

const MESSAGE: &str = r#"{"messages": [{"ttl": 3600, "body": "under way"}]}"#;

/// Begins to post a message, and stops in the middle: when this returns, the server is waiting for the body.
fn begin_to_post(server: &Running) -> BufReader<TcpStream> {
    let mut stream = BufReader::new(connect(server.address, TIMEOUT).expect("a connection"));
    let head = format!(
        "POST /v2/queues/q/messages HTTP/1.1\r\n{HEADERS}Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        MESSAGE.len()
    );
    stream
        .get_mut()
        .write_all(head.as_bytes())
        .expect("it is read");
    let mut line = String::new();
    stream.read_line(&mut line).expect("a line");
    assert_eq!(line.trim_end(), "HTTP/1.1 100 Continue");
    stream.read_line(&mut line).expect("an empty line");
    stream
}

/// Waits until nobody can connect any more.
fn wait_until_it_listens_no_more(server: &Running) {
    let refused = within(TIMEOUT, || {
        TcpStream::connect(server.address).is_err().then_some(())
    });
    assert!(refused.is_some(), "it still takes connections");
}

#[test]
fn a_request_under_way_is_finished() {
    for signal in ["TERM", "INT"] {
        let folder = tempfile::tempdir().expect("a folder");
        let arguments = ["--store", "sqlite:isimud.db"];
        let mut server = Running::start(folder.path(), &arguments);
        let mut stream = begin_to_post(&server);
        server.signal(signal);
        wait_until_it_listens_no_more(&server);
        assert!(server.is_running(), "it did not wait:\n{}", server.said());
        stream
            .get_mut()
            .write_all(MESSAGE.as_bytes())
            .expect("it is read");
        let answer = Answer::read(&mut stream, false)
            .expect("HTTP")
            .expect("an answer");
        assert_eq!(answer.status, 201, "{answer}");
        assert_eq!(server.ended().code(), Some(0), "{}", server.said());
        drop(server);

        let server = Running::start(folder.path(), &arguments);
        let path = "/v2/queues/q/messages?echo=true";
        let listed = server.client().send("GET", path, None).expect("an answer");
        assert_eq!(listed.json()["messages"][0]["body"], "under way");
    }
}

/// Clients that ask one thing after another on connections of their own, until an answer says that it is the last. Returns
/// what went wrong.
fn ask_until_the_last_answer(address: std::net::SocketAddr, clients: u64) -> Vec<String> {
    let client = move |number: u64| {
        let mut stream =
            BufReader::new(connect(address, TIMEOUT).map_err(|error| error.to_string())?);
        let request = format!("PUT /v2/queues/q{number} HTTP/1.1\r\n{HEADERS}\r\n");
        loop {
            let sent = stream.get_mut().write_all(request.as_bytes());
            sent.map_err(|error| format!("a request was not taken: {error}"))?;
            let answer = Answer::read(&mut stream, false);
            let answer = answer.map_err(|error| format!("no answer: {error}"))?;
            let answer = answer.ok_or("the connection ended without an answer")?;
            if answer.status >= 400 {
                return Err(answer.to_string());
            }
            if !answer.keeps_alive() {
                return Ok(());
            }
            // Some ask at once, others after a moment.
            std::thread::sleep(Duration::from_millis(number % 4));
        }
    };
    let clients: Vec<_> = (0..clients)
        .map(|number| std::thread::spawn(move || client(number)))
        .collect();
    let ended = clients
        .into_iter()
        .map(|client| client.join().expect("a client"));
    ended
        .filter_map(|result: Result<(), String>| result.err())
        .collect()
}

#[test]
fn every_request_on_a_kept_alive_connection_is_answered_when_the_server_stops() {
    for _ in 0..3 {
        let folder = tempfile::tempdir().expect("a folder");
        let mut server = Running::start(folder.path(), &["--store", "sqlite::memory:"]);
        let address = server.address;
        let clients = std::thread::spawn(move || ask_until_the_last_answer(address, 24));
        let counted = within(TIMEOUT, || {
            let list = server.client().send("GET", "/v2/queues?limit=20", None);
            let found = list.ok()?.json()["queues"].as_array()?.len();
            (found == 20).then_some(())
        });
        assert!(counted.is_some(), "the clients do not begin");
        server.signal("TERM");
        assert_eq!(clients.join().expect("clients"), [""; 0]);
        assert_eq!(server.ended().code(), Some(0), "{}", server.said());
    }
}

#[test]
fn a_connection_that_asks_nothing_is_closed_and_not_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = Running::start(folder.path(), &["--store", "sqlite::memory:"]);
    let mut idle = connect(server.address, TIMEOUT).expect("a connection");
    let mut used = BufReader::new(connect(server.address, TIMEOUT).expect("another"));
    let request = format!("GET /v2/queues HTTP/1.1\r\n{HEADERS}\r\n");
    used.get_mut()
        .write_all(request.as_bytes())
        .expect("it is read");
    let answer = Answer::read(&mut used, false)
        .expect("HTTP")
        .expect("an answer");
    assert_eq!(answer.status, 200);
    server.signal("TERM");
    assert_eq!(server.ended().code(), Some(0));
    let mut rest = Vec::new();
    for end in [idle.read_to_end(&mut rest), used.read_to_end(&mut rest)] {
        assert_eq!(end.expect("a plain end"), 0);
    }
}

#[test]
fn a_hangup_reads_the_configuration_again_and_ends_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("a file");
    };
    let config = |ttl: u32, level: &str| {
        format!(
            "[access]\npolicy_file = \"policy.yaml\"\n[limits]\ndefault_message_ttl = {ttl}\n[log]\nlevel = \"{level}\"\n"
        )
    };
    write("policy.yaml", "");
    write("isimud.toml", &config(100, "info"));
    let arguments = ["--config", "isimud.toml", "--store", "sqlite::memory:"];
    let mut server = Running::start(folder.path(), &arguments);
    let mut client = server.client();
    let mut shown = |queue: &str| client.send("GET", queue, None).expect("an answer");
    assert_eq!(shown("/v2/queues/q").json()["_default_message_ttl"], 100);
    assert!(!server.said().contains("DEBUG"), "{}", server.said());

    write(
        "policy.yaml",
        "{'queues:get_all': 'role:nobody', helper: 'role:x'}",
    );
    write("isimud.toml", &config(200, "debug"));
    server.signal("HUP");
    let changed = within(TIMEOUT, || {
        let now = shown("/v2/queues/q").json();
        (now["_default_message_ttl"] == 200).then_some(())
    });
    assert!(changed.is_some(), "{}", server.said());
    assert_eq!(shown("/v2/queues").status, 403);
    assert_eq!(shown("/v2/queues/q").status, 200);
    assert!(server.said().contains("DEBUG"), "{}", server.said());

    for wrong in ["{'queues:creat': ''}", "{x: 'rule:none'}"] {
        write("policy.yaml", wrong);
        let before = server.said().len();
        server.signal("HUP");
        let told = within(TIMEOUT, || {
            server.said()[before..]
                .contains("the configuration is unchanged")
                .then_some(())
        });
        assert!(told.is_some(), "{}", server.said());
        assert_eq!(shown("/v2/queues").status, 403);
    }
    assert!(server.is_running());
    server.stop();
}

#[test]
fn a_request_that_never_ends_is_waited_for_as_long_as_configured() {
    let folder = tempfile::tempdir().expect("a folder");
    let environment = [("ISIMUD__SERVER__SHUTDOWN_GRACE_SECS", "1")];
    let arguments = ["--store", "sqlite:isimud.db"];
    let mut server = Running::start_with(folder.path(), &arguments, &environment);
    let _stream = begin_to_post(&server);
    let start = Instant::now();
    server.signal("TERM");
    assert_eq!(server.ended().code(), Some(0), "{}", server.said());
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(1), "it took {took:?}");
    assert!(server.said().contains("not finished"), "{}", server.said());
}

#[test]
fn what_was_acknowledged_is_there_after_a_stop_and_a_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let arguments = ["--store", "sqlite:isimud.db"];
    let server = Running::start(folder.path(), &arguments);
    let mut client = server.client();
    for number in 0..30 {
        let post = json!({"messages": [{"ttl": 3600, "body": number}]});
        let posted = client.send("POST", "/v2/queues/q/messages", Some(&post));
        assert_eq!(posted.expect("an answer").status, 201);
    }
    let claimed = client
        .send("POST", "/v2/queues/q/claims?limit=3", None)
        .expect("an answer");
    let claim = claimed.header("location").expect("a claim").to_owned();
    server.stop();

    let server = Running::start(folder.path(), &arguments);
    let mut client = server.client();
    let stats = client
        .send("GET", "/v2/queues/q/stats", None)
        .expect("an answer")
        .json();
    assert_eq!(stats["messages"]["total"], 30);
    assert_eq!(stats["messages"]["claimed"], 3);
    let held = client.send("GET", &claim, None).expect("an answer").json();
    assert_eq!(held["messages"].as_array().map(Vec::len), Some(3));
}
