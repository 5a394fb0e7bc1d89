//! Sixteen workers through two servers share the messages among them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use isimud_testing::redis::Servers;
use serde_json::{Value, json};

use crate::restart::oracle::numbered;
use crate::servers::Service;
use crate::support::server::Client;

const PRODUCERS: usize = 4;
const WORKERS: usize = 16;
const BATCH: usize = 100;
const QUEUE: &str = "/v2/queues/work";
/// How long all of it may take.
const TIMEOUT: Duration = Duration::from_secs(120);

#[test]
fn every_message_is_claimed_and_deleted_exactly_once() {
    if let Some(service) = Service::start(Servers::single) {
        share(&service, 50_000);
    }
}

#[test]
fn every_message_of_a_broker_is_claimed_and_deleted_exactly_once() {
    if let Some(service) = Service::on_rabbitmq() {
        share(&service, 10_000);
    }
}

/// Has so many messages posted, claimed and deleted through both servers.
fn share(service: &Service, total: usize) {
    let begun = Instant::now();
    let delivered: Vec<AtomicBool> = (0..total).map(|_| AtomicBool::new(false)).collect();
    let count = AtomicUsize::new(0);
    thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let client = service.client(producer);
            scope.spawn(move || produce(client, producer, total));
        }
        for worker in 0..WORKERS {
            let (client, delivered, count) = (service.client(worker), &delivered, &count);
            // Half of those at each server delete one by one.
            let singly = worker % 4 < 2;
            scope.spawn(move || {
                let over = || count.load(Ordering::Relaxed) >= total || begun.elapsed() > TIMEOUT;
                consume(client, singly, over, |number| {
                    let again = delivered[number].swap(true, Ordering::Relaxed);
                    assert!(!again, "{number} was delivered twice");
                    count.fetch_add(1, Ordering::Relaxed);
                });
            });
        }
    });
    let took = begun.elapsed();
    println!("{total} messages, {WORKERS} workers, two servers: {took:?}");
    assert_eq!(count.into_inner(), total, "delivered after {took:?}");
    for mut client in service.clients() {
        let stats = client.send("GET", &format!("{QUEUE}/stats"), None);
        let stats = stats.expect("an answer").json()["messages"].take();
        for part in ["free", "claimed", "total"] {
            assert_eq!(stats[part], 0, "{part}: {stats}");
        }
        assert_eq!(claim(&mut client), None);
    }
}

/// Posts one producer's share.
fn produce(mut client: Client, producer: usize, total: usize) {
    let numbers: Vec<usize> = (producer..total).step_by(PRODUCERS).collect();
    for numbers in numbers.chunks(BATCH) {
        let message = |number| json!({"ttl": 3600, "body": {"number": number}});
        let messages: Vec<Value> = numbers.iter().map(message).collect();
        let path = format!("{QUEUE}/messages");
        let answer = client.send("POST", &path, Some(&json!({"messages": messages})));
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 201, "a post: {answer}");
    }
}

/// Claims and deletes until it is over.
fn consume(mut client: Client, singly: bool, over: impl Fn() -> bool, deliver: impl Fn(usize)) {
    while !over() {
        let Some(messages) = claim(&mut client) else {
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        for (number, _) in &messages {
            deliver(usize::try_from(*number).expect("a small number"));
        }
        let paths = if singly {
            messages.into_iter().map(|(_, href)| href).collect()
        } else {
            vec![together(&messages)]
        };
        for path in paths {
            let answer = client.send("DELETE", &path, None).expect("an answer");
            assert_eq!(answer.status, 204, "{path}: {answer}");
        }
    }
}

/// The numbers and paths of up to ten messages; `None` when none is free.
fn claim(client: &mut Client) -> Option<Vec<(u64, String)>> {
    let path = format!("{QUEUE}/claims?limit=10");
    let terms = json!({"ttl": 3600, "grace": 60});
    let answer = client.send("POST", &path, Some(&terms));
    let answer = answer.expect("an answer");
    if answer.status == 204 {
        return None;
    }
    assert_eq!(answer.status, 201, "a claim: {answer}");
    Some(numbered(&answer.json()))
}

/// The path that stands for several messages of one claim.
fn together(messages: &[(u64, String)]) -> String {
    let ids = messages.iter().filter_map(|(_, href)| {
        let path = href.split('?').next()?;
        path.rsplit('/').next()
    });
    let ids: Vec<&str> = ids.collect();
    format!("{QUEUE}/messages?ids={}", ids.join(","))
}
