//! What one server changes, the other obeys, although it remembers what queues are like.

use std::time::{Duration, Instant};

use isimud_testing::redis::Servers;
use serde_json::{Value, json};

use crate::servers::Service;
use crate::support::server::{Answer, Client};

const QUEUE: &str = "/v2/queues/orders";
const MESSAGES: &str = "/v2/queues/orders/messages";
/// How long the other server may go on as before, from the answer to the change.
const LAG: Duration = Duration::from_secs(1);
const ROUNDS: usize = 10;
/// The life of messages in a queue that says nothing of it.
const UNSET_TTL: i64 = 3600;

#[test]
fn a_change_through_one_server_holds_for_the_other_within_a_second() {
    let Some(service) = Service::start(Servers::single) else {
        return;
    };
    let mut slowest = [Duration::ZERO; 3];
    for round in 0..ROUNDS {
        let [mut one, mut other] = service.clients();
        if round % 2 == 1 {
            std::mem::swap(&mut one, &mut other);
        }
        let took = [
            a_new_ttl(&mut one, &mut other),
            a_new_size(&mut one, &mut other),
            a_deletion(&mut one, &mut other),
        ];
        for (slowest, took) in slowest.iter_mut().zip(took) {
            *slowest = took.max(*slowest);
        }
    }
    let [ttl, size, deletion] = slowest;
    println!("slowest of {ROUNDS}: a ttl {ttl:?}, a size {size:?}, a deletion {deletion:?}");
}

/// A queue that is made and changed by one server while the other knows it.
fn a_new_ttl(one: &mut Client, other: &mut Client) -> Duration {
    let settings = json!({"_default_message_ttl": 7200});
    expect(201, one, "PUT", QUEUE, Some(&settings));
    assert_eq!(posted_ttl(other).1, 7200);
    patch(one, "_default_message_ttl", &json!(1800));
    until("the new ttl", || posted_ttl(other).1 == 1800)
}

fn a_new_size(one: &mut Client, other: &mut Client) -> Duration {
    let text = "x".repeat(300);
    let document = json!({"messages": [{"body": text}]});
    expect(201, other, "POST", MESSAGES, Some(&document));
    patch(one, "_max_messages_post_size", &json!(200));
    until("the new size", || {
        let answer = other.send("POST", MESSAGES, Some(&document));
        answer.expect("an answer").status == 400
    })
}

/// The other server makes the queue again, as if it had never been, and loses nothing on the way.
fn a_deletion(one: &mut Client, other: &mut Client) -> Duration {
    let mut hrefs = Vec::new();
    expect(204, one, "DELETE", QUEUE, None);
    let took = until("the queue again", || {
        let (href, ttl) = posted_ttl(other);
        hrefs.push(href);
        let queues = expect(200, one, "GET", "/v2/queues", None).json();
        let mut queues = queues["queues"].as_array().into_iter().flatten();
        ttl == UNSET_TTL && queues.any(|queue| queue["name"] == "orders")
    });
    for href in hrefs {
        expect(200, one, "GET", &href, None);
    }
    expect(204, one, "DELETE", QUEUE, None);
    took
}

fn patch(client: &mut Client, key: &str, value: &Value) {
    let operation = json!({"op": "add", "path": format!("/metadata/{key}"), "value": value});
    expect(200, client, "PATCH", QUEUE, Some(&json!([operation])));
}

/// Posts a message that says nothing of its life, and looks how long it lives.
fn posted_ttl(client: &mut Client) -> (String, i64) {
    let document = json!({"messages": [{"body": "short"}]});
    let answer = expect(201, client, "POST", MESSAGES, Some(&document)).json();
    let href = answer["resources"][0].as_str().expect("a path").to_owned();
    let message = expect(200, client, "GET", &href, None).json();
    let ttl = message["ttl"].as_i64().expect("a ttl");
    (href, ttl)
}

/// Asks again and again, for as long as a change may need, and says how long it needed.
fn until(what: &str, mut ask: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    loop {
        // What was asked in time may be answered later, on a busy machine.
        let asked = begun.elapsed();
        if ask() {
            return asked;
        }
        assert!(
            asked < LAG,
            "{what} is not there for whoever asks after {asked:?}"
        );
    }
}

fn expect(
    status: u16,
    client: &mut Client,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Answer {
    let answer = client.send(method, path, body).expect("an answer");
    assert_eq!(answer.status, status, "{method} {path}: {answer}");
    answer
}
