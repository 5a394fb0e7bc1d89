//! Subscriptions (spec: subscriptions.md 1 to 6).

use serde_json::{Value, json};

use crate::api::support::{Answer, App};

mod change;
mod confirm;
mod create;
mod list;

pub(crate) const SUBSCRIPTIONS: &str = "/v2/queues/sq/subscriptions";
pub(crate) const HOOK: &str = "https://hooks.example/in";

/// Subscribes, and returns the id.
pub(crate) async fn subscribe(app: &App, document: Value) -> String {
    created(&app.post(SUBSCRIPTIONS, document).await)
}

/// The id in the answer to a new subscription.
#[track_caller]
pub(crate) fn created(answer: &Answer) -> String {
    answer.assert_status(201);
    let id = answer.json()["subscription_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    assert_eq!(answer.text(), format!("{{\"subscription_id\": \"{id}\"}}"));
    id
}

pub(crate) async fn hook(app: &App) -> String {
    subscribe(app, json!({"subscriber": HOOK})).await
}

pub(crate) async fn show(app: &App, id: &str) -> Value {
    let answer = app.get(&format!("{SUBSCRIPTIONS}/{id}")).await;
    answer.assert_status(200);
    answer.json()
}

/// The sentence of each faulty value, for creation and for change alike.
pub(crate) fn faults() -> Vec<(Value, &'static str)> {
    let types = "The subscriber type of subscription must be supported in the list ['http', 'https', 'mailto', \
                 'trust+http', 'trust+https'].";
    let far = "The TTL seconds for a subscription plus current time must be less than 9999-12-31 23:59:59.999999.";
    let short = "The TTL for a subscription must be at least 60 seconds long.";
    let address = "The address of the subscriber is not one that notifications may be sent to.";
    vec![
        (json!({"subscriber": "ftp://x/"}), types),
        (json!({"subscriber": "no scheme"}), types),
        (json!({"subscriber": "trust+ftp://x/"}), types),
        (
            json!({"subscriber": "trust+https://x/"}),
            "A subscriber of type trust+https needs a trust of Keystone, and authentication is off.",
        ),
        (
            json!({"subscriber": "TRUST+HTTP://x/", "options": {"trust_id": "foreign"}}),
            "A subscriber of type trust+http needs a trust of Keystone, and authentication is off.",
        ),
        (json!({"subscriber": "http://127.0.0.1/x"}), address),
        (json!({"subscriber": "http://user@[::1]:8080/x"}), address),
        (json!({"subscriber": "https://LOCALHOST:1"}), address),
        (
            json!({"subscriber": "http://169.254.169.254/latest"}),
            address,
        ),
        (json!({"options": [1]}), "Options must be a dict."),
        (json!({"options": "x"}), "Options must be a dict."),
        (
            json!({"options": {"_retry_policy": 5}}),
            "retry_policy must be a dict.",
        ),
        (
            json!({"options": {"_retry_policy": {"minimum_delay": 21}}}),
            "invalid minimum_delay and maximum_delay.",
        ),
        (
            json!({"options": {"_dead_letter_queue": "a b"}}),
            "_dead_letter_queue must be the name of a queue.",
        ),
        (
            json!({"options": {"_webhook_secret": "short"}}),
            "_webhook_secret must be 'whsec_' and 24 to 64 bytes in base64.",
        ),
        (json!({"ttl": "60"}), "TTL must be an integer."),
        (json!({"ttl": 60.0}), "TTL must be an integer."),
        (json!({"ttl": 59}), short),
        (json!({"ttl": 0}), short),
        (json!({"ttl": -1}), short),
        (json!({"ttl": true}), short),
        (json!({"ttl": 251_635_075_200_i64}), far),
        (json!({"ttl": i64::MAX}), far),
    ]
}
