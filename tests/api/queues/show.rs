//! Showing a queue (spec: queues.md 4).

use serde_json::{Value, json};

use super::RESERVED;
use crate::api::support::App;

#[tokio::test]
async fn a_queue_that_does_not_exist_has_the_reserved_keys() {
    let app = App::new();
    app.get("/v2/queues/nope")
        .await
        .assert_is(200, &format!("{{{RESERVED}"));
    app.get("/v2/queues")
        .await
        .assert_is(200, r#"{"queues": [], "links": []}"#);
}

#[tokio::test]
async fn reserved_keys_that_are_unset_follow_those_that_are_stored() {
    let app = App::new();
    app.put(
        "/v2/queues/fizbat",
        json!({"_default_message_ttl": 1800, "team": "billing"}),
    )
    .await;
    app.get("/v2/queues/fizbat").await.assert_is(
        200,
        "{\"_default_message_ttl\": 1800, \"team\": \"billing\", \"_max_messages_post_size\": 262144, \
         \"_default_message_delay\": 0, \"_dead_letter_queue\": null, \"_dead_letter_queue_messages_ttl\": null, \
         \"_max_claim_count\": null, \"_enable_encrypt_messages\": false}",
    );
}

#[tokio::test]
async fn stored_keys_keep_the_order_in_which_they_were_given() {
    let app = App::new();
    app.put("/v2/queues/q", r#"{"z": 1, "a": 2, "m": 3}"#).await;
    app.get("/v2/queues/q")
        .await
        .assert_is(200, &format!("{{\"z\": 1, \"a\": 2, \"m\": 3, {RESERVED}"));
}

#[tokio::test]
async fn reserved_keys_that_are_null_or_nothing_show_their_defaults() {
    let app = App::new();
    app.put(
        "/v2/queues/q",
        json!({
            "_max_messages_post_size": Value::Null,
            "_default_message_ttl": Value::Null,
            "_default_message_delay": 0,
            "_dead_letter_queue": "",
            "_dead_letter_queue_messages_ttl": Value::Null,
            "_max_claim_count": 0,
            "_enable_encrypt_messages": false,
        }),
    )
    .await
    .assert_status(201);
    let expected: Value = serde_json::from_str(&format!("{{{RESERVED}")).expect("JSON");
    assert_eq!(app.get("/v2/queues/q").await.json(), expected);
}

#[tokio::test]
async fn reserved_keys_that_are_set_are_shown() {
    let app = App::new();
    let metadata = json!({
        "_max_messages_post_size": 1000,
        "_default_message_ttl": 60,
        "_default_message_delay": 900,
        "_dead_letter_queue": "dead",
        "_dead_letter_queue_messages_ttl": 1_209_600,
        "_max_claim_count": 3,
        "_enable_encrypt_messages": true,
    });
    app.put("/v2/queues/q", &metadata).await.assert_status(201);
    assert_eq!(app.get("/v2/queues/q").await.json(), metadata);
}

#[tokio::test]
async fn the_defaults_that_are_shown_can_be_set() {
    let app = App::with(
        "[limits]\nmax_messages_post_size = 1000\ndefault_message_ttl = 120\ndefault_message_delay = 7",
    );
    let shown = app.get("/v2/queues/q").await.json();
    assert_eq!(shown["_max_messages_post_size"], 1000);
    assert_eq!(shown["_default_message_ttl"], 120);
    assert_eq!(shown["_default_message_delay"], 7);
}

#[tokio::test]
async fn defaults_that_are_shown_are_not_stored() {
    let app = App::new();
    app.put("/v2/queues/q", ()).await;
    app.get("/v2/queues/q").await.assert_status(200);
    app.get("/v2/queues?_default_message_ttl=3600")
        .await
        .assert_is(200, r#"{"queues": [], "links": []}"#);
}
