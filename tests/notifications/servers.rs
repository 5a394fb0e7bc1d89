//! Two servers on one Redis send what either of them took, and one goes on where the other died.

use std::time::Duration;

use isimud_testing::redis::Servers;
use isimud_testing::started;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::notifications::TIMEOUT;
use crate::notifications::receiver::Receiver;
use crate::support::server::{Client, Server};

const MESSAGES: usize = 2000;

/// A Redis server of the test's own; `None` where there is none and none is required.
fn redis() -> Option<Servers> {
    started("Redis", Servers::single())
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let config = "[notifications]\nallowed_networks = ['127.0.0.1']";
    std::fs::write(folder.path().join("isimud.toml"), config).expect("a configuration");
    folder
}

#[track_caller]
fn expect(client: &mut Client, status: u16, method: &str, path: &str, body: &Value) {
    let answer = client
        .send(method, path, Some(body))
        .unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    assert_eq!(answer.status, status, "{method} {path}: {answer}");
}

#[test]
fn second_server_resumes_delivery_after_crash() {
    let Some(redis) = redis() else {
        return;
    };
    let receiver = Receiver::kind();
    let (folder, store) = (folder(), redis.uri("notify:"));
    let first = Server::start(&store, folder.path());
    let second = Server::start(&store, folder.path());
    let mut clients = [&first, &second].map(|server| Client::new(server.address, "p1"));
    for path in ["/a", "/b"] {
        let document = json!({"subscriber": receiver.url(path)});
        expect(
            &mut clients[0],
            201,
            "POST",
            "/v2/queues/q/subscriptions",
            &document,
        );
    }
    // Until the second has heard of it nobody is told what it takes.
    for (path, count) in [("/a", 1), ("/b", 1)] {
        while receiver.count(path) < count {
            let document = json!({"messages": [{"ttl": 60, "body": "is anybody there"}]});
            expect(
                &mut clients[1],
                201,
                "POST",
                "/v2/queues/q/messages",
                &document,
            );
        }
    }
    let post = |client: &mut Client, number: usize| {
        let document = json!({"messages": [{"ttl": 3600, "body": number}]});
        expect(client, 201, "POST", "/v2/queues/q/messages", &document);
    };
    for number in 0..MESSAGES / 2 {
        post(&mut clients[number % 2], number);
    }
    first.kill();
    for number in MESSAGES / 2..MESSAGES {
        post(&mut clients[1], number);
    }
    for path in ["/a", "/b"] {
        let mut numbers: Vec<u64> = Vec::new();
        let mut wanted = MESSAGES;
        while numbers.len() < MESSAGES {
            let got = receiver.wait_for(path, wanted, TIMEOUT + Duration::from_secs(40));
            wanted = got.len() + 1;
            numbers.clear();
            for number in got.iter().filter_map(|one| one.json()["body"].as_u64()) {
                if !numbers.contains(&number) {
                    numbers.push(number);
                }
            }
        }
        assert!(numbers.is_sorted(), "{path} did not get them in order");
    }
}
