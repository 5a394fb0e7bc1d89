//! Subscriptions as weapons: what a hostile tenant makes of them, and another tenant of the same server who goes on.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::notifications::receiver::{Received, Receiver, Reply};
use crate::notifications::{Service, TIMEOUT};
use crate::support::server::Client;

const QUEUE: &str = "/v2/queues/bomb";
/// How long anything that the other tenant does may take, on a busy machine.
const MAX_RESPONSE_TIME: Duration = Duration::from_secs(5);
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
        self.client.does_its_work(MAX_RESPONSE_TIME);
        self.rounds += 1;
        self.receiver
            .wait_for("/victim", self.rounds, MAX_RESPONSE_TIME);
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
    let end = Instant::now() + TIMEOUT;
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
    let end = Instant::now() + Duration::from_secs(5);
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
        0..3 => Reply::Hang,
        _ => Reply::ok(),
    });
    let mut service = Service::start("timeout_secs = 60");
    service.subscribe(QUEUE, &receiver.url("/in"), json!({}));
    service.post(QUEUE, [json!("patient")]);
    for attempt in 1..=3 {
        receiver.wait_for("/in", attempt, Duration::from_secs(30));
        service.stop_and_restart();
    }
    receiver.wait_for("/in", 4, Duration::from_secs(30));
}

/// Fails as fast as it can, for ever.
fn hammering() -> Value {
    json!({"_retry_policy": {"retries_with_no_delay": 1_000_000, "minimum_delay_retries": 1_000_000, "minimum_delay": 0,
        "maximum_delay": 10, "maximum_delay_retries": 1_000_000}})
}

#[test]
fn no_retry_policy_makes_a_flood() {
    let receiver = Receiver::with(|_, _| Reply::Close);
    let mut service = Service::start("max_per_second_per_host = 200");
    for number in 0..60 {
        service.subscribe(QUEUE, &receiver.url(&format!("/{number}")), hammering());
    }
    let mut victim = Victim::start(&service);
    let start = Instant::now();
    service.post(QUEUE, [json!("flood")]);
    while start.elapsed() < Duration::from_secs(3) {
        victim.goes_on();
        std::thread::sleep(Duration::from_millis(100));
    }
    let all: usize = (0..60)
        .map(|number| receiver.count(&format!("/{number}")))
        .sum();
    // A burst, and then 200 a second, of which a retry is ten; the victim's host is another key by its port alone.
    println!("{all} requests, {} rounds", victim.rounds);
    assert!((60..=330).contains(&all), "{all} requests");
}

#[test]
fn five_retries_come_without_delay_and_the_next_after_a_second() {
    let receiver = Receiver::with(|_, _| Reply::Close);
    let mut service = Service::start("");
    service.subscribe(QUEUE, &receiver.url("/in"), hammering());
    service.post(QUEUE, [json!(1)]);
    let got = receiver.wait_for("/in", 8, TIMEOUT);
    for pair in got[5..].windows(2) {
        let pause = pair[1].at.duration_since(pair[0].at);
        assert!(pause >= Duration::from_millis(990), "{pause:?}");
    }
}

#[test]
fn the_service_itself_is_never_a_target() {
    let mut service = Service::start("");
    let own = service.server.as_ref().expect("a server").address;
    let mut options =
        json!({"post_data": "{\"messages\": [{\"ttl\": 60, \"body\": \"$zaqar_message$\"}]}"});
    options["_dead_letter_queue"] = json!("dead");
    let url = format!("http://{own}{QUEUE}/messages");
    service.subscribe(QUEUE, &url, options);
    service.post(QUEUE, [json!("round and round")]);
    let end = Instant::now() + TIMEOUT;
    loop {
        let answer = service.send("GET", "/v2/queues/dead/stats", Value::Null);
        if answer.json()["messages"]["total"] == 1 {
            break;
        }
        assert!(Instant::now() < end, "{answer}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let stats = service.expect(200, "GET", &format!("{QUEUE}/stats"), Value::Null);
    assert_eq!(stats["messages"]["total"], 1, "{stats}");
}

#[test]
fn a_notification_that_comes_back_in_another_way_is_refused() {
    let service = Service::start("");
    let address = service.server.as_ref().expect("a server").address;
    let headers = [
        ("Isimud-Hop", "1".to_owned()),
        ("X-Project-Id", "p1".to_owned()),
    ];
    let answer = crate::notifications::signed_put(address, QUEUE, &headers, &json!({}));
    assert_eq!(answer.status, 508, "{answer}");
    assert_eq!(answer.json()["title"], "Loop detected");
}

#[test]
fn who_asks_cannot_be_said_by_a_subscriber() {
    let mut service = Service::start("");
    let path = format!("{QUEUE}/subscriptions");
    for name in [
        "X-Project-Id",
        "X-Roles",
        "X_Roles",
        "X-Auth-Token",
        "Client-ID",
        "X-Forwarded-For",
    ] {
        let document = json!({"subscriber": "http://127.0.0.1:9/", "options": {"post_headers": {name: "admin"}}});
        let refused = service.expect(400, "POST", &path, document);
        let sentence = refused["description"].as_str().expect("a sentence");
        assert!(sentence.contains("who asks"), "{sentence}");
    }
}

#[test]
fn a_redirect_to_another_place_takes_no_header_of_the_subscriber_along() {
    let other = Receiver::kind();
    let (here, there) = (String::from("/here"), other.url("/there"));
    let receiver = Receiver::with(move |received: &Received, _| match received.path.as_str() {
        "/away" => Reply::Status(307, vec![format!("location: {there}")]),
        "/stay" => Reply::Status(307, vec![format!("location: {here}")]),
        _ => Reply::ok(),
    });
    let mut service = Service::start("");
    let headers = json!({"post_headers": {"X-Secret": "s", "Authorization": "Basic x", "Content-Type": "text/x-own"}});
    for path in ["/away", "/stay"] {
        service.subscribe(QUEUE, &receiver.url(path), headers.clone());
    }
    service.post(QUEUE, [json!(1)]);
    let stayed = receiver.wait_for("/here", 1, TIMEOUT).remove(0);
    assert_eq!(
        (stayed.header("x-secret"), stayed.header("content-type")),
        ("s", "text/x-own")
    );
    let went = other.wait_for("/there", 1, TIMEOUT).remove(0);
    for (name, value) in [
        ("x-secret", ""),
        ("authorization", ""),
        ("content-type", "application/json"),
    ] {
        assert_eq!(went.header(name), value, "{name}");
    }
    assert!(!went.header("webhook-id").is_empty());
}

#[test]
fn a_subscription_that_fails_for_long_is_switched_off_until_its_owner_changes_it() {
    let receiver = Receiver::with(|received, _| match received.path.as_str() {
        "/dead" => Reply::Status(410, vec![]),
        _ => Reply::ok(),
    });
    let mut service = Service::start("switch_off_after_secs = 1");
    let path = service.subscribe(QUEUE, &receiver.url("/dead"), json!({"mine": 1}));
    service.subscribe(QUEUE, &receiver.url("/alive"), json!({}));
    let mut posts = 0;
    let end = Instant::now() + TIMEOUT;
    loop {
        service.post(QUEUE, [json!(posts)]);
        posts += 1;
        receiver.wait_for("/alive", posts, TIMEOUT);
        let shown = service.expect(200, "GET", &path, Value::Null);
        if shown["options"]["_switched_off"].is_string() {
            assert_eq!(shown["options"]["mine"], 1);
            break;
        }
        assert!(Instant::now() < end, "{shown}");
        std::thread::sleep(Duration::from_millis(200));
    }
    // What the line knows of the subscription is a second old at the most.
    std::thread::sleep(Duration::from_millis(1100));
    let before = receiver.count("/dead");
    service.post(QUEUE, [json!("unsent")]);
    receiver.wait_for("/alive", posts + 1, TIMEOUT);
    assert_eq!(receiver.count("/dead"), before);
    // As it was shown: what only the service writes is left out.
    let shown = service.expect(200, "GET", &path, Value::Null);
    service.expect(204, "PATCH", &path, json!({"options": shown["options"]}));
    service.post(QUEUE, [json!("tried again")]);
    receiver.wait_for("/dead", before + 1, TIMEOUT);
}

#[test]
fn a_queue_has_so_many_subscriptions_and_no_more() {
    let mut service = Service::with("[limits]\nmax_subscriptions_per_queue = 3");
    for number in 0..3 {
        service.subscribe(QUEUE, &format!("http://hooks.example/{number}"), json!({}));
    }
    let path = format!("{QUEUE}/subscriptions");
    let more = json!({"subscriber": "http://hooks.example/more"});
    service.expect(400, "POST", &path, more.clone());
    // One that is there may be asked for again, and another queue has its own.
    service.expect(
        201,
        "POST",
        &path,
        json!({"subscriber": "http://hooks.example/1"}),
    );
    service.expect(201, "POST", "/v2/queues/other/subscriptions", more);
}

#[test]
fn mail_goes_to_nobody_who_did_not_agree_and_comes_from_nobody_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let sent = folder.path().join("sent");
    let mut service = Service::with(&format!(
        "[notifications]\nallowed_networks = ['127.0.0.1']\n[notifications.mail]\ncommand = 'tee -a {}'",
        sent.display()
    ));
    let path = format!("{QUEUE}/subscriptions");
    for (subscriber, options) in [
        ("mailto:a@x.example,b@x.example", json!({})),
        ("mailto:nobody", json!({})),
        ("mailto:a@x.example", json!({"from": "boss@bank.example"})),
    ] {
        let document = json!({"subscriber": subscriber, "options": options});
        service.expect(400, "POST", &path, document);
    }
    let made = service.subscribe(
        QUEUE,
        "mailto://a@x.example",
        json!({"from": "Jack", "subject": "Hello"}),
    );
    let agree = json!({"confirmed": true});
    service.expect(403, "PUT", &format!("{made}/confirm"), agree.clone());
    let receiver = Receiver::kind();
    service.subscribe(QUEUE, &receiver.url("/in"), json!({}));
    service.post(QUEUE, [json!("unasked")]);
    receiver.wait_for("/in", 1, TIMEOUT);
    assert!(!sent.exists());
    let address = service.server.as_ref().expect("a server").address;
    let mut admin = Client::new(address, "p1").admin();
    let agreed = admin.send("PUT", &format!("{made}/confirm"), Some(&agree));
    assert_eq!(agreed.expect("an answer").status, 204);
    service.post(QUEUE, [json!("asked for")]);
    let end = Instant::now() + TIMEOUT;
    loop {
        let mail = std::fs::read_to_string(&sent).unwrap_or_default();
        if mail.contains("asked for") {
            assert!(
                mail.contains("From: Jack <no-reply@openstack.org>"),
                "{mail}"
            );
            assert!(mail.contains("To: a@x.example"), "{mail}");
            break;
        }
        assert!(Instant::now() < end, "{mail}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
