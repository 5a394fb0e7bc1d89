//! Receivers that fail, and what becomes of what they should have had (spec: subscriptions.md 7.1 and 7.2).

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::notifications::receiver::{Receiver, Reply};
use crate::notifications::{Service, TIMEOUT};

const QUEUE: &str = "/v2/queues/n2";

/// A policy that gives up after three attempts, all of them at once.
fn hasty() -> Value {
    json!({"retries_with_no_delay": 2, "minimum_delay_retries": 0, "minimum_delay": 0, "maximum_delay": 10,
        "maximum_delay_retries": 0, "retry_backoff_function": "arithmetic"})
}

/// The bodies that came, without what came again.
fn bodies(got: &[crate::notifications::receiver::Received]) -> Vec<Value> {
    got.iter().map(|one| one.json()["body"].clone()).collect()
}

#[test]
fn each_way_to_fail_is_tried_again_at_once() {
    let receiver = Receiver::with(
        |received, before| match (before % 2, received.path.as_str()) {
            (1, _) => Reply::ok(),
            (_, "/500") => Reply::Status(500, vec![]),
            (_, "/503") => Reply::Status(503, vec![]),
            (_, "/408") => Reply::Status(408, vec![]),
            (_, "/300") => Reply::Status(300, vec![]),
            (_, "/303") => Reply::Status(303, vec!["location: /elsewhere".into()]),
            (_, "/cut") => Reply::Cut,
            (_, "/close") => Reply::Close,
            (_, "/hang") => Reply::Hang,
            (_, "/drip") => Reply::Drip,
            (_, path) => panic!("{path}"),
        },
    );
    let mut service = Service::start("timeout_secs = 2");
    let paths = [
        "/500", "/503", "/408", "/300", "/303", "/cut", "/close", "/hang", "/drip",
    ];
    for path in paths {
        service.subscribe(QUEUE, &receiver.url(path), json!({}));
    }
    service.post(QUEUE, [json!(1), json!(2)]);
    for path in paths {
        let got = receiver.wait_for(path, 4, TIMEOUT);
        assert_eq!(
            bodies(&got),
            [json!(1), json!(1), json!(2), json!(2)],
            "{path}"
        );
        let attempts: Vec<&str> = got.iter().map(|one| one.header("isimud-attempt")).collect();
        assert_eq!(attempts, ["1", "2", "1", "2"], "{path}");
        assert_eq!(got[0].header("webhook-id"), got[1].header("webhook-id"));
    }
    assert_eq!(receiver.count("/elsewhere"), 0);
}

#[test]
fn a_pause_that_the_receiver_asks_for_is_made() {
    let receiver = Receiver::with(|_, before| match before {
        0 => Reply::Status(429, vec!["retry-after: 2".into()]),
        _ => Reply::ok(),
    });
    let mut service = Service::start("");
    service.subscribe(QUEUE, &receiver.url("/in"), json!({}));
    service.post(QUEUE, [json!("first"), json!("second")]);
    let got = receiver.wait_for("/in", 3, TIMEOUT);
    // It is set aside, and what is behind it goes on.
    assert_eq!(
        bodies(&got),
        [json!("first"), json!("second"), json!("first")]
    );
    let pause = got[2].at.duration_since(got[0].at);
    assert!(pause >= Duration::from_secs(2), "{pause:?}");
}

/// Fails four times, and has it then.
fn slow_of_understanding() -> Receiver {
    Receiver::with(|_, before| match before {
        0..4 => Reply::Status(500, vec![]),
        _ => Reply::ok(),
    })
}

/// Once at once, once after a second, then after 1 and 6 seconds by the sequence.
fn patient() -> Value {
    json!({"_retry_policy": {"retries_with_no_delay": 1, "minimum_delay_retries": 1, "minimum_delay": 1,
        "maximum_delay": 11}})
}

#[test]
fn a_back_off_keeps_its_times() {
    let receiver = slow_of_understanding();
    let mut service = Service::start("");
    service.subscribe(QUEUE, &receiver.url("/in"), patient());
    service.post(QUEUE, [json!(1)]);
    let got = receiver.wait_for("/in", 5, TIMEOUT);
    let attempts: Vec<&str> = got.iter().map(|one| one.header("isimud-attempt")).collect();
    assert_eq!(attempts, ["1", "2", "3", "4", "5"]);
    for (pair, least) in got.windows(2).zip([0.0, 1.0, 1.0, 6.0]) {
        let pause = pair[1].at.duration_since(pair[0].at).as_secs_f64();
        // Late on a busy machine, and not so late that it might be the next pause of the sequence.
        assert!(
            pause >= least && pause < least + 4.5,
            "{pause} after {least}"
        );
    }
}

#[test]
fn a_back_off_survives_a_kill() {
    let receiver = slow_of_understanding();
    let mut service = Service::start("");
    service.subscribe(QUEUE, &receiver.url("/in"), patient());
    service.post(QUEUE, [json!(1)]);
    receiver.wait_for("/in", 3, TIMEOUT);
    service.kill_and_restart();
    let got = receiver.wait_for("/in", 5, Duration::from_secs(60));
    // The last attempt before the kill may not have been noted any more; it is made again then.
    let mut attempts: Vec<&str> = got.iter().map(|one| one.header("isimud-attempt")).collect();
    attempts.dedup();
    let expected = ["1", "2", "3", "4", "5"];
    assert!(
        expected.starts_with(&attempts) && attempts.len() >= 4,
        "{attempts:?}"
    );
    assert!(
        got.iter()
            .all(|one| one.header("webhook-id") == got[0].header("webhook-id"))
    );
}

#[test]
fn what_a_receiver_refuses_is_not_tried_again() {
    let receiver = Receiver::with(|received, _| match received.path.as_str() {
        "/400" => Reply::Status(400, vec![]),
        "/410" => Reply::Status(410, vec![]),
        _ => Reply::ok(),
    });
    let mut service = Service::start("");
    for path in ["/400", "/410", "/200"] {
        service.subscribe(QUEUE, &receiver.url(path), json!({}));
    }
    for body in 0..3 {
        service.post(QUEUE, [json!(body)]);
    }
    for path in ["/400", "/410", "/200"] {
        let got = receiver.wait_for(path, 3, TIMEOUT);
        assert_eq!(bodies(&got), [json!(0), json!(1), json!(2)]);
    }
}

#[test]
fn what_is_given_up_goes_to_the_dead_letters() {
    let receiver = Receiver::with(|received, _| match received.path.as_str() {
        "/400" => Reply::Status(400, vec![]),
        _ => Reply::Status(500, vec![]),
    });
    let mut service = Service::start("");
    for (path, dead) in [("/400", "refused"), ("/500", "failed"), ("/501", "")] {
        let mut options = json!({"_retry_policy": hasty()});
        if !dead.is_empty() {
            options["_dead_letter_queue"] = json!(dead);
        }
        service.subscribe(QUEUE, &receiver.url(path), options);
    }
    service.post(QUEUE, [json!({"n": 1}), json!({"n": 2})]);
    // Three at once, two by the sequence 0, 10: the second message begins when the first is set aside.
    receiver.wait_for("/400", 2, TIMEOUT);
    for dead in ["refused", "failed"] {
        let path = format!("/v2/queues/{dead}/messages?echo=true");
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let listed = service.expect(200, "GET", &path, Value::Null);
            let found = listed["messages"].as_array().expect("messages");
            let mut numbers: Vec<&Value> =
                found.iter().map(|message| &message["body"]["n"]).collect();
            numbers.sort_by_key(|number| number.as_i64());
            if numbers == [1, 2] {
                break;
            }
            assert!(Instant::now() < end, "{dead}: {listed}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    assert_eq!(receiver.count("/400"), 2);
    assert_eq!(receiver.count("/500"), 10);
}

#[test]
fn a_redirect_keeps_the_post_and_the_address_policy() {
    let hidden = Receiver::at("127.0.0.2:0", |_, _| Reply::ok(), |stream| Box::new(stream));
    let target = hidden.url("/hidden");
    let receiver = Receiver::with(move |received, _| {
        let to =
            |status, location: &str| Reply::Status(status, vec![format!("location: {location}")]);
        match received.path.as_str() {
            "/301" => to(301, "/there"),
            "/307" => to(307, "/there"),
            "/private" => to(307, &target),
            "/round" => to(308, "/round"),
            _ => Reply::ok(),
        }
    });
    let mut service = Service::start("");
    for path in ["/301", "/307", "/private", "/round"] {
        service.subscribe(
            QUEUE,
            &receiver.url(path),
            json!({"_retry_policy": hasty()}),
        );
    }
    service.post(QUEUE, [json!("x")]);
    let got = receiver.wait_for("/there", 2, TIMEOUT);
    for request in got {
        assert_eq!(
            (request.method.as_str(), request.json()["body"].as_str()),
            ("POST", Some("x"))
        );
    }
    // Four hops an attempt, and three attempts at once.
    receiver.wait_for("/round", 12, TIMEOUT);
    receiver.wait_for("/private", 1, TIMEOUT);
    assert_eq!(receiver.count("/private"), 1);
    assert_eq!(hidden.count("/hidden"), 0);
}

#[test]
fn an_address_that_is_not_allowed_is_never_reached() {
    let hidden = Receiver::at("127.0.0.2:0", |_, _| Reply::ok(), |stream| Box::new(stream));
    let receiver = Receiver::kind();
    let mut service = Service::start("");
    let path = format!("{QUEUE}/subscriptions");
    let refused = json!({"subscriber": hidden.url("/x")});
    service.expect(400, "POST", &path, refused);
    // Spellings that only a resolver understands: what they resolve to is what counts.
    let port = hidden.address.port();
    for host in ["2130706434", "0x7f000002", "127.2"] {
        service.subscribe(QUEUE, &format!("http://{host}:{port}/x"), json!({}));
    }
    service.subscribe(QUEUE, &receiver.url("/in"), json!({}));
    service.post(QUEUE, [json!(1), json!(2)]);
    receiver.wait_for("/in", 2, TIMEOUT);
    assert_eq!(hidden.count("/x"), 0);
}

#[test]
fn a_dead_receiver_delays_no_other() {
    let receiver = Receiver::with(|received, _| match received.path.starts_with("/dead") {
        true => Reply::Hang,
        false => Reply::ok(),
    });
    let mut service =
        Service::start("timeout_secs = 5\nmax_deliveries = 4\nmax_deliveries_per_host = 100");
    for number in 0..12 {
        service.subscribe(QUEUE, &receiver.url(&format!("/dead/{number}")), json!({}));
    }
    service.subscribe(QUEUE, &receiver.url("/alive"), json!({}));
    service.post(QUEUE, [json!(0)]);
    // The dead take all slots once, until they are known to be dead; then they have theirs.
    for number in 0..12 {
        receiver.wait_for(&format!("/dead/{number}"), 2, Duration::from_secs(60));
    }
    receiver.wait_for("/alive", 1, TIMEOUT);
    for number in 1..20 {
        service.post(QUEUE, [json!(number)]);
    }
    let start = Instant::now();
    receiver.wait_for("/alive", 20, TIMEOUT);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}
