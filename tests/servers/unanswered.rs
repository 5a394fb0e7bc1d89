//! A store that does what it is asked and whose answer is lost: nobody is told of the claim that it has made, and it must
//! not hold its messages until it ends.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::redis::Servers;
use crate::server::{Client, Server};
use crate::started;

/// How long the claim may be there after the store answers again.
const MAX_RESPONSE_TIME: Duration = Duration::from_secs(10);

/// A network before a store, which can swallow answers.
struct Relay {
    address: SocketAddr,
    swallows: Arc<AtomicBool>,
}

impl Relay {
    fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let swallows = Arc::new(AtomicBool::new(false));
        let is_swallowing = Arc::clone(&swallows);
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("a connection");
                let server = TcpStream::connect(("127.0.0.1", port)).expect("the store listens");
                let copy = |stream: &TcpStream| stream.try_clone().expect("a handle");
                let (from, to) = (copy(&client), copy(&server));
                thread::spawn(move || carry(from, to, &AtomicBool::new(false)));
                let swallows = Arc::clone(&is_swallowing);
                thread::spawn(move || carry(server, client, &swallows));
            }
        });
        Self { address, swallows }
    }
}

/// Carries bytes until one side closes. A connection of which bytes were swallowed never says anything any more.
fn carry(mut from: TcpStream, mut to: TcpStream, swallows: &AtomicBool) {
    let (mut buffer, mut is_mute) = ([0; 16 << 10], false);
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        is_mute |= swallows.load(Ordering::SeqCst);
        if !is_mute && to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Both).ok();
}

fn claimed_and_free(client: &mut Client) -> (u64, u64) {
    let answer = client.send("GET", "/v2/queues/lost/stats", None);
    let stats = answer.expect("an answer").json()["messages"].clone();
    let count = |name: &str| stats[name].as_u64().expect("a number");
    (count("claimed"), count("free"))
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
    let relay = Relay::before(port.parse().expect("a number"));
    let behind = uri.replace(&host, &relay.address.to_string());
    let [server, beside] = [&behind, &uri].map(|uri| Server::start_with(uri, folder.path(), &[]));
    let mut client = Client::new(server.address, "several");
    let mut other = Client::new(beside.address, "several");
    let messages: Vec<_> = (0..3).map(|body| json!({"body": body})).collect();
    let post = json!({"messages": messages});
    let answer = client.send("POST", "/v2/queues/lost/messages", Some(&post));
    assert_eq!(answer.expect("an answer").status, 201);
    // Redis is told the script at the first claim that asks it.
    let claim = client.send("POST", "/v2/queues/lost/claims?limit=1", None);
    let claim = claim.expect("an answer");
    let path = claim.header("location").expect("a claim").to_owned();
    let answer = client.send("DELETE", &path, None);
    assert_eq!(answer.expect("an answer").status, 204);

    relay.swallows.store(true, Ordering::SeqCst);
    let waiting = thread::spawn(move || {
        let answer = client.send("POST", "/v2/queues/lost/claims?limit=3", None);
        answer.expect("an answer").status
    });
    let start = Instant::now();
    while claimed_and_free(&mut other) != (3, 0) {
        assert!(start.elapsed() < MAX_RESPONSE_TIME, "the claim is not made");
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(waiting.join().expect("an answer"), 503);
    relay.swallows.store(false, Ordering::SeqCst);

    let start = Instant::now();
    while claimed_and_free(&mut other) != (0, 3) {
        assert!(
            start.elapsed() < MAX_RESPONSE_TIME,
            "nobody has released the claim"
        );
        thread::sleep(Duration::from_millis(20));
    }
}
