//! Many messages to many subscribers, of which some misbehave, through a kill: whoever answers gets everything, in order.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::notifications::Service;
use crate::notifications::receiver::{Received, Receiver, Reply};

const QUEUE: &str = "/v2/queues/orders";
const MESSAGES: usize = 10_000;
const SOUND: usize = 15;
/// Messages of one post.
const POST: usize = 20;

/// The numbers that came, each where it came first.
fn first_come(got: &[Received]) -> Vec<usize> {
    let mut seen = vec![false; MESSAGES];
    let number = |one: &Received| {
        usize::try_from(one.json()["body"].as_u64().expect("a number")).expect("small")
    };
    got.iter()
        .map(number)
        .filter(|number| !std::mem::replace(&mut seen[*number], true))
        .collect()
}

#[test]
fn whoever_answers_gets_everything_in_order() {
    let receiver = Receiver::with(|received, _| match received.path.as_str() {
        "/hang" => Reply::Hang,
        "/drip" => Reply::Drip,
        "/500" => Reply::Status(500, vec![]),
        "/429" => Reply::Status(429, vec!["retry-after: 1".into()]),
        _ => Reply::ok(),
    });
    let closed = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port");
    let mut service = Service::start(
        "timeout_secs = 5\nmax_per_second_per_host = 0\nmax_per_second_per_project = 0",
    );
    for path in ["/hang", "/drip", "/500", "/429"] {
        service.subscribe(QUEUE, &receiver.url(path), json!({}));
    }
    service.subscribe(QUEUE, &format!("http://{closed}/"), json!({}));
    for number in 0..SOUND {
        service.subscribe(QUEUE, &receiver.url(&format!("/sound/{number}")), json!({}));
    }
    let start = Instant::now();
    for (at, first) in (0..MESSAGES).step_by(POST).enumerate() {
        if at == MESSAGES / POST / 2 {
            // Not before the first has begun to arrive, and not after the last has.
            receiver.wait_for("/sound/0", MESSAGES / 10, Duration::from_secs(60));
            service.kill_and_restart();
        }
        let messages: Vec<Value> = (first..first + POST)
            .map(|number| json!({"ttl": 3600, "body": number}))
            .collect();
        service.expect(
            201,
            "POST",
            &format!("{QUEUE}/messages"),
            json!({"messages": messages}),
        );
    }
    println!("posted after {:?}", start.elapsed());
    for number in 0..SOUND {
        let path = format!("/sound/{number}");
        receiver.wait_for(&path, MESSAGES, Duration::from_secs(300));
        // Some came twice, as a kill leaves it open.
        let end = Instant::now() + Duration::from_secs(60);
        let mut got = receiver.wait_for(&path, MESSAGES, Duration::ZERO);
        while first_come(&got).len() < MESSAGES && Instant::now() < end {
            got = receiver.wait_for(&path, got.len() + 1, Duration::from_secs(60));
        }
        let numbers = first_come(&got);
        assert_eq!(numbers.len(), MESSAGES, "{path} did not get everything");
        assert!(numbers.is_sorted(), "{path} did not get them in order");
        println!("{path}: {} repeated", got.len() - MESSAGES);
    }
    println!("received after {:?}", start.elapsed());
    for path in ["/hang", "/drip", "/500", "/429"] {
        receiver.wait_for(path, 2, Duration::ZERO);
    }
}
