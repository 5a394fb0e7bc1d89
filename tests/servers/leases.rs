//! A claim on a broker belongs to no server: what was claimed through one is renewed, read, deleted and released through
//! the other, while both are up.

use serde_json::{Value, json};

use crate::servers::Service;
use crate::support::server::{Answer, Client};

const MESSAGES: &str = "/v2/queues/orders/messages";
const CLAIMS: &str = "/v2/queues/orders/claims";
const ROUNDS: usize = 10;

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

fn bodies(messages: &Value) -> Vec<&Value> {
    let messages = messages.as_array().expect("messages");
    messages.iter().map(|message| &message["body"]).collect()
}

#[test]
fn a_claim_is_renewed_read_and_ended_through_the_other_server() {
    let Some(service) = Service::on_rabbitmq() else {
        return;
    };
    for round in 0..ROUNDS {
        let [mut one, mut other] = service.clients();
        if round % 2 == 1 {
            std::mem::swap(&mut one, &mut other);
        }
        let posted = json!({"messages": [{"ttl": 3600, "body": 1}, {"ttl": 3600, "body": 2}]});
        expect(201, &mut one, "POST", MESSAGES, Some(&posted));
        let terms = json!({"ttl": 300, "grace": 60});
        let claimed = expect(201, &mut one, "POST", CLAIMS, Some(&terms));
        let claim = claimed.header("location").expect("a claim").to_owned();
        let held = claimed.json();
        assert_eq!(bodies(&held["messages"]), [&json!(1), &json!(2)]);

        let renewed = json!({"ttl": 600, "grace": 60});
        expect(204, &mut other, "PATCH", &claim, Some(&renewed));
        let read = expect(200, &mut other, "GET", &claim, None).json();
        assert_eq!(read["ttl"], 600);
        assert_eq!(bodies(&read["messages"]), [&json!(1), &json!(2)]);
        expect(204, &mut other, "POST", CLAIMS, Some(&terms));

        let first = held["messages"][0]["href"].as_str().expect("a path");
        expect(204, &mut other, "DELETE", first, None);
        let left = expect(200, &mut one, "GET", &claim, None).json();
        assert_eq!(bodies(&left["messages"]), [&json!(2)]);

        expect(204, &mut other, "DELETE", &claim, None);
        let again = expect(201, &mut other, "POST", CLAIMS, Some(&terms)).json();
        assert_eq!(bodies(&again["messages"]), [&json!(2)]);
        let last = again["messages"][0]["href"].as_str().expect("a path");
        expect(204, &mut one, "DELETE", last, None);
        let stats = expect(200, &mut one, "GET", "/v2/queues/orders/stats", None).json();
        assert_eq!(stats["messages"]["total"], 0, "{stats}");
    }
}
