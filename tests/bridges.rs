//! Bridges between pools, as rules and as a command, over restarts and kills of everything that takes part.
//!
//! The journey: a producer posts numbers to a queue of the embedded store, bridges take them from station to station, and
//! a consumer claims and deletes them at the end of the line. Where a station's server is missing the journey is left out,
//! unless `REQUIRE_BACKENDS=1` asks for it.

mod chain;
mod command;
mod endpoints;

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::server::{self, Client, Server};

const PROJECT: &str = "estate";

/// Waits until something is so; fails with what the servers of a folder said when it is not so in time.
fn wait_until(folder: &Path, what: &str, patience: Duration, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        let log = || server::last_lines(&server::log_in(folder), 30);
        assert!(since.elapsed() < patience, "{what}: not in time\n{}", log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Starts the server over its embedded store, with an admin listener.
fn start(folder: &Path, admin: SocketAddr) -> Server {
    let admin = admin.to_string();
    Server::start_with("sqlite:house.db", folder, &["--admin-listen", &admin])
}

/// Asks the admin listener.
fn page(admin: SocketAddr, path: &str) -> Option<String> {
    use std::io::Write;
    let mut stream = server::connect(admin, Duration::from_secs(10)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A number of a bridge, as the metrics tell it; `None` while they do not.
fn metric(admin: SocketAddr, name: &str, from: &str, to: &str) -> Option<f64> {
    let page = page(admin, "/metrics")?;
    let labels = [format!("from=\"{from}\""), format!("to=\"{to}\"")];
    let line = page.lines().find(|line| {
        line.starts_with(&format!("isimud_{name}{{")) && labels.iter().all(|one| line.contains(one))
    })?;
    line.rsplit(' ').next()?.parse().ok()
}

/// What each number says beside its body, of all kinds: more than SQS has attributes for.
fn beside(number: u64) -> (Value, Value) {
    let mut headers = json!({
        "task": "proj.tasks.add", "number": number, "eta": null, "yes": true, "share": 0.5, "empty": "",
        "bytes": {"$binary": "AP8="}, "then": {"$timestamp": 1_700_000_000}, "nested": {"a": [1, {"b": "é"}]},
        "CC": ["elsewhere"],
    });
    for at in 0..8 {
        headers[format!("further-{at}")] = json!(at);
    }
    let properties = json!({"correlation_id": number.to_string(), "reply_to": "answers", "type": "t", "priority": 3,
        "content_type": "application/json", "timestamp": 1_700_000_000});
    (headers, properties)
}

/// Posts numbers.
fn post(client: &mut Client, queue: &str, numbers: impl Iterator<Item = u64>) {
    let message = |number| {
        let (headers, properties) = beside(number);
        json!({"ttl": 3600, "body": {"number": number}, "headers": headers, "properties": properties})
    };
    let messages: Vec<Value> = numbers.map(message).collect();
    let path = format!("/v2/queues/{queue}/messages");
    // As many as a request may be large.
    for some in messages.chunks(200) {
        let answer = client.send("POST", &path, Some(&json!({"messages": some})));
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 201, "a post: {answer}");
    }
}

/// Claims messages and deletes them. Returns their numbers.
fn consume(client: &mut Client, queue: &str) -> Vec<u64> {
    let path = format!("/v2/queues/{queue}");
    let terms = json!({"ttl": 300, "grace": 60});
    let claims = format!("{path}/claims?limit=20&headers=true");
    let answer = client.send("POST", &claims, Some(&terms));
    let answer = answer.expect("an answer");
    if matches!(answer.status, 204 | 503) {
        return Vec::new();
    }
    assert_eq!(answer.status, 201, "a claim: {answer}");
    let document = answer.json();
    let messages = document["messages"].as_array().expect("messages");
    let id = |message: &Value| {
        let href = message["href"].as_str().expect("a path").to_owned();
        let (path, _) = href.split_once('?').expect("a claim");
        path.rsplit('/').next().expect("an id").to_owned()
    };
    let ids: Vec<String> = messages.iter().map(id).collect();
    let path = format!("{path}/messages?ids={}", ids.join(","));
    // Everything that is there answers again; what was claimed and cannot be deleted would come twice.
    let since = Instant::now();
    loop {
        let answer = client.send("DELETE", &path, None).expect("an answer");
        if answer.status == 204 {
            break;
        }
        let waits = answer.status == 503 && since.elapsed() < Duration::from_secs(30);
        assert!(waits, "a delete: {answer}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let number = |message: &Value| {
        let number = message["body"]["number"].as_u64().expect("a number");
        let (headers, properties) = beside(number);
        assert_eq!(message["headers"], headers, "{message}");
        assert_eq!(message["properties"], properties, "{message}");
        number
    };
    messages.iter().map(number).collect()
}
