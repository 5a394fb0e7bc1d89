//! A store that does what it is asked and whose answer is lost: nobody is told of the claim that it has made, and it must
//! not hold its messages until it ends.

use std::thread;
use std::time::{Duration, Instant};

use isimud_testing::proxy::{Proxy, Way};
use isimud_testing::redis::Servers;
use isimud_testing::started;
use serde_json::json;

use crate::support::server::{Client, Server};

/// How long the claim may be there after the store answers again.
const MAX_RESPONSE_TIME: Duration = Duration::from_secs(10);

/// How often the claim is tried until it is seen.
const ATTEMPTS: usize = 5;

fn claimed_and_free(client: &mut Client) -> (u64, u64) {
    let answer = client.send("GET", "/v2/queues/lost/stats", None);
    let stats = answer.expect("an answer").json()["messages"].clone();
    let count = |name: &str| stats[name].as_u64().expect("a number");
    (count("claimed"), count("free"))
}

/// Claims a message when the server can, so that it has seen the queue a moment ago and Redis was told the script, and
/// releases it.
fn claim_and_release(client: &mut Client) {
    let start = Instant::now();
    let path = loop {
        let claim = client.send("POST", "/v2/queues/lost/claims?limit=1", None);
        let claim = claim.expect("an answer");
        if claim.status == 201 {
            break claim.header("location").expect("a claim").to_owned();
        }
        assert!(start.elapsed() < MAX_RESPONSE_TIME, "{claim}");
        thread::sleep(Duration::from_millis(20));
    };
    let answer = client.send("DELETE", &path, None);
    assert_eq!(answer.expect("an answer").status, 204);
}

#[test]
fn a_claim_whose_answer_the_store_could_not_give_is_released() {
    let Some(redis) = started("Redis", Servers::single()) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let uri = redis
        .uri("lost:")
        .replace("timeout_ms=5000", "timeout_ms=1000");
    let host = redis.get(0).host();
    let (_, port) = host.rsplit_once(':').expect("a port");
    let proxy = Proxy::standalone(port.parse().expect("a number"));
    let behind = uri.replace(&host, &format!("127.0.0.1:{}", proxy.port));
    let [server, beside] = [&behind, &uri].map(|uri| Server::start_with(uri, folder.path(), &[]));
    let mut client = Client::new(server.address, "several");
    let mut other = Client::new(beside.address, "several");
    let messages: Vec<_> = (0..3).map(|body| json!({"body": body})).collect();
    let post = json!({"messages": messages});
    let answer = client.send("POST", "/v2/queues/lost/messages", Some(&post));
    assert_eq!(answer.expect("an answer").status, 201);
    // The claim is there until the server gives up and releases it, which a slow machine may not see. And the server may have
    // to look first whether the queue is still as it was, and gets no answer to that either.
    let mut is_seen = false;
    for _ in 0..ATTEMPTS {
        claim_and_release(&mut client);
        proxy.fall_silent(Way::Back, true);
        let address = server.address;
        let waiting = thread::spawn(move || {
            let mut client = Client::new(address, "several");
            let answer = client.send("POST", "/v2/queues/lost/claims?limit=3", None);
            answer.expect("an answer").status
        });
        while !is_seen && !waiting.is_finished() {
            is_seen = claimed_and_free(&mut other) == (3, 0);
        }
        assert_eq!(waiting.join().expect("an answer"), 503);
        proxy.fall_silent(Way::Back, false);
        if is_seen {
            break;
        }
    }
    assert!(is_seen, "the claim is not made");

    let start = Instant::now();
    while claimed_and_free(&mut other) != (0, 3) {
        assert!(
            start.elapsed() < MAX_RESPONSE_TIME,
            "nobody has released the claim"
        );
        thread::sleep(Duration::from_millis(20));
    }
}
