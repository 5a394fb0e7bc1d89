//! What reserved metadata may be: on PUT and as the result of PATCH (spec: queues.md 1).

use serde_json::{Map, Value, json};

use crate::api::support::App;

const TTL_RANGE: &str =
    "_default_message_ttl can not exceed 1209600 seconds, and must be at least 60 seconds long.";
const SIZE_RANGE: &str =
    "_max_messages_post_size can not exceed 262144,  and must be at least greater than 0.";
const DEAD_TTL_RANGE: &str =
    "The TTL for a message may not exceed 1209600 seconds, and must be at least 60 seconds long.";
const DELAY_RANGE: &str =
    "The TTL can not exceed 900 seconds, and must be at least 0 seconds long.";

const INTEGERS: [&str; 5] = [
    "_default_message_ttl",
    "_max_messages_post_size",
    "_max_claim_count",
    "_dead_letter_queue_messages_ttl",
    "_default_message_delay",
];

/// Metadata of one key.
fn one(key: &str, value: Value) -> Value {
    Value::Object(Map::from_iter([(key.to_owned(), value)]))
}

/// Adds all keys of `metadata` to the queue `old`.
fn patch(metadata: &Value) -> Value {
    let keys = metadata.as_object().expect("an object").iter();
    keys.map(
        |(key, value)| json!({"op": "add", "path": format!("/metadata/{key}"), "value": value}),
    )
    .collect()
}

/// Both ways to set metadata refuse them with this sentence.
async fn assert_refused(app: &App, metadata: &Value, sentence: &str) {
    app.put("/v2/queues/new", metadata)
        .await
        .assert_refused(400, "Invalid API request", sentence);
    app.patch("/v2/queues/old", patch(metadata))
        .await
        .assert_refused(400, "Invalid request body", sentence);
}

/// Both ways to set metadata take them.
async fn assert_taken(app: &App, metadata: &Value) {
    app.delete("/v2/queues/new").await;
    let created = app.put("/v2/queues/new", metadata).await;
    assert_eq!(created.status, 201, "{metadata}: {}", created.text());
    let changed = app.patch("/v2/queues/old", patch(metadata)).await;
    assert_eq!(changed.status, 200, "{metadata}: {}", changed.text());
}

async fn app_with_an_old_queue() -> App {
    let app = App::new();
    app.put("/v2/queues/old", ()).await.assert_status(201);
    app
}

#[tokio::test]
async fn integers_are_integers() {
    let app = app_with_an_old_queue().await;
    for key in INTEGERS {
        for wrong in [
            json!("60"),
            json!("x"),
            json!(60.5),
            json!(100.0),
            json!(1e30),
            json!([60]),
            json!({"a": 60}),
            json!(""),
            json!([]),
            json!({}),
        ] {
            assert_refused(&app, &one(key, wrong), &format!("{key} must be integer.")).await;
        }
    }
}

#[tokio::test]
async fn a_boolean_is_no_integer() {
    let app = app_with_an_old_queue().await;
    for key in INTEGERS {
        let sentence = format!("{key} must be integer.");
        assert_refused(&app, &one(key, json!(true)), &sentence).await;
    }
}

#[tokio::test]
async fn reserved_integers_out_of_bounds_are_refused() {
    let app = app_with_an_old_queue().await;
    for (key, wrong, right, sentence) in [
        (
            "_default_message_ttl",
            vec![0, 59, -60, 1_209_601, i64::MAX],
            vec![60, 61, 1_209_600],
            TTL_RANGE,
        ),
        (
            "_max_messages_post_size",
            vec![0, -1, 262_145, i64::MIN],
            vec![1, 2, 262_144],
            SIZE_RANGE,
        ),
        (
            "_dead_letter_queue_messages_ttl",
            vec![0, 59, -1, 1_209_601],
            vec![60, 1_209_600],
            DEAD_TTL_RANGE,
        ),
        (
            "_default_message_delay",
            vec![-1, 901, i64::MAX],
            vec![0, 1, 900],
            DELAY_RANGE,
        ),
        (
            "_max_claim_count",
            vec![],
            vec![0, 1, -1, 1000, i64::MAX, i64::MIN],
            "",
        ),
    ] {
        for number in wrong {
            assert_refused(&app, &one(key, json!(number)), sentence).await;
        }
        for number in right {
            assert_taken(&app, &one(key, json!(number))).await;
        }
    }
}

#[tokio::test]
async fn the_bounds_follow_the_configured_limits() {
    let app = App::with(
        "[limits]\nmax_message_ttl = 100\nmax_messages_post_size = 200\nmax_message_delay = 3",
    );
    for (key, number, sentence) in [
        (
            "_default_message_ttl",
            101,
            "_default_message_ttl can not exceed 100 seconds, and must be at least 60 seconds long.",
        ),
        (
            "_max_messages_post_size",
            201,
            "_max_messages_post_size can not exceed 200,  and must be at least greater than 0.",
        ),
        (
            "_dead_letter_queue_messages_ttl",
            101,
            "The TTL for a message may not exceed 100 seconds, and must be at least 60 seconds long.",
        ),
        (
            "_default_message_delay",
            4,
            "The TTL can not exceed 3 seconds, and must be at least 0 seconds long.",
        ),
    ] {
        app.put("/v2/queues/q", one(key, json!(number)))
            .await
            .assert_refused(400, "Invalid API request", sentence);
        app.put("/v2/queues/q", one(key, json!(number - 1)))
            .await
            .assert_status(201);
        app.delete("/v2/queues/q").await;
    }
}

#[tokio::test]
async fn a_reserved_key_that_is_null_counts_as_unset() {
    let app = app_with_an_old_queue().await;
    for key in INTEGERS.into_iter().chain([
        "_dead_letter_queue",
        "_enable_encrypt_messages",
        "_flavor",
        "_retry_policy",
    ]) {
        assert_taken(&app, &one(key, Value::Null)).await;
    }
}

#[tokio::test]
async fn enable_encrypt_messages_must_be_a_boolean() {
    let app = app_with_an_old_queue().await;
    for wrong in [
        json!(1),
        json!("true"),
        json!([true]),
        json!({"a": 1}),
        json!(0.5),
    ] {
        let metadata = one("_enable_encrypt_messages", wrong);
        assert_refused(&app, &metadata, "_enable_encrypt_messages must be boolean.").await;
    }
    for right in [
        json!(true),
        json!(false),
        json!(0),
        json!(""),
        json!([]),
        json!({}),
    ] {
        assert_taken(&app, &one("_enable_encrypt_messages", right)).await;
    }
}

#[tokio::test]
async fn a_dead_letter_queue_is_the_name_of_a_queue() {
    let app = app_with_an_old_queue().await;
    for wrong in [
        json!(5),
        json!(true),
        json!(["dead"]),
        json!({"name": "dead"}),
        json!("a b"),
    ] {
        let metadata = one("_dead_letter_queue", wrong);
        for (answer, title) in [
            (
                app.put("/v2/queues/new", &metadata).await,
                "Invalid API request",
            ),
            (
                app.patch("/v2/queues/old", patch(&metadata)).await,
                "Invalid request body",
            ),
        ] {
            answer.assert_status(400);
            assert_eq!(answer.json()["title"], title);
            let description = answer.json()["description"].to_string();
            assert!(description.contains("_dead_letter_queue"), "{description}");
        }
    }
    for right in [json!("dead"), json!("not-there-yet"), json!("")] {
        assert_taken(&app, &one("_dead_letter_queue", right)).await;
    }
}

#[tokio::test]
async fn the_first_fault_in_a_fixed_order_is_reported() {
    let app = app_with_an_old_queue().await;
    let faults = [
        ("_default_message_ttl", json!(1), TTL_RANGE),
        ("_max_messages_post_size", json!(0), SIZE_RANGE),
        (
            "_max_claim_count",
            json!("x"),
            "_max_claim_count must be integer.",
        ),
        ("_dead_letter_queue_messages_ttl", json!(1), DEAD_TTL_RANGE),
        ("_default_message_delay", json!(901), DELAY_RANGE),
        (
            "_enable_encrypt_messages",
            json!("x"),
            "_enable_encrypt_messages must be boolean.",
        ),
        ("_retry_policy", json!("x"), "retry_policy must be a dict."),
    ];
    for at in 0..faults.len() {
        // Written the other way round, so that the order of the document is not the one that counts.
        let rest = faults[at..].iter().rev();
        let metadata: Map<String, Value> = rest
            .map(|(key, value, _)| ((*key).to_owned(), value.clone()))
            .collect();
        assert_refused(&app, &Value::Object(metadata), faults[at].2).await;
    }
}

#[tokio::test]
async fn a_wrong_type_is_reported_before_a_later_key_out_of_range() {
    let app = app_with_an_old_queue().await;
    let metadata = json!({"_max_messages_post_size": 0, "_default_message_ttl": "60"});
    assert_refused(&app, &metadata, "_default_message_ttl must be integer.").await;
}

#[tokio::test]
async fn other_keys_with_an_underscore_are_the_users() {
    let app = app_with_an_old_queue().await;
    let metadata = json!({"_mine": "x", "__": [], "_Default_message_ttl": "never", "_ttl": -1});
    assert_taken(&app, &metadata).await;
    let shown = app.get("/v2/queues/new").await.json();
    assert_eq!(shown["_Default_message_ttl"], "never");
}
