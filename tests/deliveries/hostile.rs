//! Subscriptions as weapons: what a hostile tenant makes of them, and another tenant of the same server who goes on.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::receiver::{Receiver, Reply};
use crate::server::Client;
use crate::{SOON, Service};

const QUEUE: &str = "/v2/queues/bomb";
/// How long anything that the other tenant does may take, on a busy machine.
const BOUND: Duration = Duration::from_secs(5);
/// Memory that a server may have at its peak, in MiB: some 40 at rest, and what the budgets of the tests allow.
const MOST_MIB: u64 = 400;

/// Another tenant of the server: it posts, is notified, claims and deletes.
struct Victim {
    client: Client,
    receiver: Receiver,
    rounds: usize,
}

impl Victim {
    fn start(service: &Service) -> Self {
        let address = service.server.as_ref().expect("a server").address;
        let receiver = Receiver::kind();
        let mut client = Client::new(address, "victim");
        let document = json!({"subscriber": receiver.url("/victim")});
        let made = client.send("POST", "/v2/queues/mine/subscriptions", Some(&document));
        assert_eq!(made.expect("an answer").status, 201);
        Self {
            client,
            receiver,
            rounds: 0,
        }
    }

    /// Does what it always does, each within the bound.
    #[track_caller]
    fn goes_on(&mut self) {
        let mut timed = |method: &str, path: &str, body: Value| {
            let start = Instant::now();
            let answer = self.client.send(method, path, Some(&body));
            let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
            let took = start.elapsed();
            assert!(answer.status < 300, "{method} {path}: {answer}");
            assert!(took < BOUND, "{method} {path} took {took:?}");
            answer.json()
        };
        let message = json!({"messages": [{"ttl": 300, "body": "mine"}]});
        timed("POST", "/v2/queues/mine/messages", message);
        let claimed = timed("POST", "/v2/queues/mine/claims?limit=1", json!({"ttl": 60}));
        let href = claimed["messages"][0]["href"].as_str().expect("a message");
        timed("DELETE", href, Value::Null);
        self.rounds += 1;
        self.receiver.wait_for("/victim", self.rounds, BOUND);
    }
}

/// A template that holds the message so many times.
fn template(times: usize) -> Value {
    let places = vec!["\"$zaqar_message$\""; times].join(",");
    json!({"post_data": format!("[{places}]")})
}

fn largest_body() -> Value {
    Value::from("x".repeat(262_000))
}

#[test]
fn a_template_that_multiplies_a_message_is_refused() {
    let mut service = Service::start("");
    let path = format!("{QUEUE}/subscriptions");
    let bomb = json!({"subscriber": "http://127.0.0.1:9/", "options": template(1000)});
    let refused = service.expect(400, "POST", &path, bomb);
    let sentence = refused["description"].as_str().expect("a sentence");
    assert!(sentence.contains("at most"), "{sentence}");
    let made = service.subscribe(QUEUE, "http://127.0.0.1:9/", template(16));
    let options = json!({"options": template(17)});
    service.expect(400, "PATCH", &made, options);
}

/// As a store may have them from before there were bounds.
#[test]
fn a_template_that_is_stored_already_takes_no_memory() {
    let receiver = Receiver::kind();
    let mut service = Service::start("max_placeholders = 100000");
    for number in 0..8 {
        let mut options = template(3000);
        options["_dead_letter_queue"] = json!("dead");
        service.subscribe(QUEUE, &receiver.url(&format!("/{number}")), options);
    }
    let mut victim = Victim::start(&service);
    service.post(QUEUE, [largest_body()]);
    let end = Instant::now() + SOON;
    let stats = "/v2/queues/dead/stats";
    loop {
        victim.goes_on();
        let answer = service.send("GET", stats, Value::Null);
        if answer.json()["messages"]["total"] == 8 {
            break;
        }
        assert!(Instant::now() < end, "{answer}");
    }
    let peak = service.server.as_ref().expect("a server").peak_mib();
    println!("peak {peak} MiB");
    assert!(peak < MOST_MIB, "{peak} MiB");
    assert_eq!(receiver.count("/0"), 0);
}

/// Everything is within the bounds of one subscription, and there are many, whose receivers hang.
#[test]
fn many_large_notifications_wait_for_their_share_of_the_memory() {
    let receiver = Receiver::with(|_, _| Reply::Hang);
    let mut service = Service::start("timeout_secs = 3");
    for number in 0..100 {
        let url = receiver.url(&format!("/{number}"));
        service.subscribe(QUEUE, &url, template(15));
    }
    let mut victim = Victim::start(&service);
    for _ in 0..4 {
        service.post(QUEUE, [largest_body()]);
    }
    let end = Instant::now() + Duration::from_secs(8);
    while Instant::now() < end {
        victim.goes_on();
        std::thread::sleep(Duration::from_millis(100));
    }
    let peak = service.server.as_ref().expect("a server").peak_mib();
    println!("peak {peak} MiB, {} rounds", victim.rounds);
    assert!(peak < MOST_MIB, "{peak} MiB");
}

#[test]
fn a_notification_that_ends_the_service_is_given_up() {
    let receiver = Receiver::with(|_, _| Reply::Hang);
    let mut service = Service::start("timeout_secs = 60");
    let dead = json!({"_dead_letter_queue": "dead"});
    service.subscribe(QUEUE, &receiver.url("/in"), dead);
    service.post(QUEUE, [json!("deadly")]);
    // Once without a mark, as nobody died over it yet; then twice with one.
    for attempt in 1..=3 {
        receiver.wait_for("/in", attempt, Duration::from_secs(30));
        service.kill_and_restart();
    }
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let answer = service.send("GET", "/v2/queues/dead/messages?echo=true", Value::Null);
        if answer.json()["messages"][0]["body"] == "deadly" {
            break;
        }
        assert!(Instant::now() < end, "{answer}");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(receiver.count("/in"), 3);
}

#[test]
fn a_service_that_stops_in_good_order_counts_for_nothing() {
    let receiver = Receiver::with(|_, before| match before {
        0..4 => Reply::Hang,
        _ => Reply::ok(),
    });
    let mut service = Service::start("timeout_secs = 60");
    service.subscribe(QUEUE, &receiver.url("/in"), json!({}));
    service.post(QUEUE, [json!("patient")]);
    for attempt in 1..=4 {
        receiver.wait_for("/in", attempt, Duration::from_secs(30));
        service.stop_and_restart();
    }
    receiver.wait_for("/in", 5, Duration::from_secs(30));
}
