//! What producers say beside bodies: taken in the members `headers` and `properties`, told where `headers=true` asks.

use serde_json::{Value, json};

use crate::api::messages::{CLAIMS, INVALID_BODY, MESSAGES, post};
use crate::api::support::App;

/// A message as Celery has it: its task is named in headers alone.
fn task() -> Value {
    json!({
        "ttl": 300,
        "body": [[1, 2], {}, {"callbacks": null}],
        "headers": {
            "task": "proj.tasks.add", "id": "3f1c", "lang": "py", "retries": 0, "eta": null,
            "timelimit": [null, null], "argsrepr": "(1, 2)", "ignore_result": false, "share": 0.5,
            "stamps": {"on": {"$timestamp": 1_700_000_000}, "key": {"$binary": "AP8="}},
        },
        "properties": {
            "correlation_id": "3f1c", "reply_to": "f2b8", "type": "task", "priority": 6, "app_id": "shop",
            "content_type": "application/json", "content_encoding": "utf-8", "timestamp": 1_700_000_000,
        },
    })
}

/// What a message of a document says beside its body.
fn beside(message: &Value) -> Value {
    json!({"headers": message["headers"], "properties": message["properties"]})
}

fn expected() -> Value {
    beside(&task())
}

#[tokio::test]
async fn headers_come_back_on_every_way_that_a_message_is_read() {
    let app = App::new();
    let id = post(&app, json!([task()])).await.remove(0);
    let single = format!("{MESSAGES}/{id}?headers=true");
    for path in [
        format!("{MESSAGES}?echo=true&headers=true"),
        format!("{MESSAGES}?ids={id}&headers=true"),
    ] {
        let listed = app.get(&path).await.json();
        assert_eq!(beside(&listed["messages"][0]), expected(), "{path}");
        assert_eq!(listed["messages"][0]["body"], task()["body"], "{path}");
    }
    assert_eq!(beside(&app.get(&single).await.json()), expected());

    let claimed = app.post(&format!("{CLAIMS}?headers=true"), "{}").await;
    claimed.assert_status(201);
    assert_eq!(beside(&claimed.json()["messages"][0]), expected());
    let claim = claimed.header("location").expect("a claim").to_owned();
    let shown = app.get(&format!("{claim}?headers=true")).await.json();
    assert_eq!(beside(&shown["messages"][0]), expected());
    // After a claim that was given up they are there for the next one.
    app.delete(&claim).await.assert_status(204);
    let popped = app
        .delete(&format!("{MESSAGES}?pop=1&headers=true"))
        .await
        .json();
    assert_eq!(beside(&popped["messages"][0]), expected());
}

#[tokio::test]
async fn documents_have_no_members_that_nobody_asked_for() {
    let app = App::new();
    let id = post(&app, json!([task()])).await.remove(0);
    let keys = |message: &Value| -> Vec<String> {
        message
            .as_object()
            .expect("a message")
            .keys()
            .cloned()
            .collect()
    };
    let usual = ["id", "href", "ttl", "age", "body"];
    for query in ["", "&headers=false"] {
        let listed = app
            .get(&format!("{MESSAGES}?echo=true{query}"))
            .await
            .json();
        assert_eq!(keys(&listed["messages"][0]), usual, "{query}");
    }
    assert_eq!(
        keys(&app.get(&format!("{MESSAGES}/{id}")).await.json()),
        usual
    );
    let claimed = app.post(CLAIMS, "{}").await;
    assert_eq!(keys(&claimed.json()["messages"][0]), usual);
    let claim = claimed.header("location").expect("a claim").to_owned();
    let shown = app.get(&claim).await.json();
    assert_eq!(keys(&shown["messages"][0]), usual);
    app.delete(&claim).await;
    let popped = app.delete(&format!("{MESSAGES}?pop=1")).await.json();
    let usual = ["id", "age", "ttl", "body", "claim_id", "claim_count"];
    assert_eq!(keys(&popped["messages"][0]), usual);
}

#[tokio::test]
async fn a_message_without_headers_says_that_it_has_none() {
    let app = App::new();
    post(
        &app,
        json!([
            {"body": 1},
            {"body": 2, "headers": null, "properties": null},
            {"body": 3, "headers": {}, "properties": {}},
        ]),
    )
    .await;
    let claimed = app
        .post(&format!("{CLAIMS}?headers=true"), "{}")
        .await
        .json();
    let messages = claimed["messages"].as_array().expect("messages");
    assert_eq!(messages.len(), 3);
    for message in messages {
        assert_eq!(beside(message), json!({"headers": {}, "properties": {}}));
    }
}

#[tokio::test]
async fn the_link_to_the_next_page_asks_for_headers_too() {
    let app = App::new();
    post(&app, json!([task(), task()])).await;
    let path = format!("{MESSAGES}?echo=true&limit=1&headers=true");
    let next = app.get(&path).await.next().expect("a link");
    assert!(next.contains("&headers=true"), "{next}");
    let listed = app.get(&next).await.json();
    assert_eq!(beside(&listed["messages"][0]), expected());
}

#[tokio::test]
async fn headers_that_cannot_be_kept_are_refused_and_nothing_is_posted() {
    let app = App::new();
    let headers = |headers: Value| json!({"body": 1, "headers": headers});
    let properties = |properties: Value| json!({"body": 1, "properties": properties});
    let many: Value = (0..65)
        .map(|at| (at.to_string(), json!(at)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let deep = (0..18).fold(json!(1), |inner, _| json!([inner]));
    let bounds =
        "The headers of a message may have at most 65536 bytes, and be nested at most 16 deep.";
    for (message, sentence) in [
        (
            headers(json!([])),
            "The value of the \"headers\" field must be an object.",
        ),
        (
            headers(json!("x")),
            "The value of the \"headers\" field must be an object.",
        ),
        (
            properties(json!(1)),
            "The value of the \"properties\" field must be an object.",
        ),
        (headers(many), "A message may have at most 64 headers."),
        (headers(json!({"large": "x".repeat(65536)})), bounds),
        (headers(json!({"deep": deep})), bounds),
        (
            headers(json!({"a": {"$binary": "?"}})),
            "A header has a \"$binary\" that cannot be understood.",
        ),
        (
            properties(json!({"priority": 256})),
            "A priority is a number from 0 to 255.",
        ),
        (
            properties(json!({"timestamp": "now"})),
            "A timestamp is in whole seconds since 1970.",
        ),
        (
            properties(json!({"type": 1})),
            "The property type is a text of at most 255 bytes.",
        ),
    ] {
        let body = json!({"messages": [{"body": 0}, message]});
        app.post(MESSAGES, &body)
            .await
            .assert_refused(400, INVALID_BODY, sentence);
    }
    for message in [
        headers(json!({"": 1})),
        headers(json!({"n".repeat(256): 1})),
        headers(json!({"isimud-id": "x"})),
        properties(json!({"colour": "red"})),
        properties(json!({"user_id": "root"})),
    ] {
        let body = json!({"messages": [message]});
        app.post(MESSAGES, &body).await.assert_status(400);
    }
    // A key twice is looked at by another reader; the last counts.
    let twice = r#"{"messages": [{"body": 0, "body": 1, "headers": {"": 1}}]}"#;
    app.post(MESSAGES, twice).await.assert_status(400);
    let twice = r#"{"messages": [{"body": 0, "body": 1, "headers": {"a": 1}}]}"#;
    app.post(MESSAGES, twice).await.assert_status(201);
    let listed = app
        .get(&format!("{MESSAGES}?echo=true&headers=true"))
        .await
        .json();
    assert_eq!(listed["messages"].as_array().expect("messages").len(), 1);
    assert_eq!(listed["messages"][0]["headers"], json!({"a": 1}));
}

#[tokio::test]
async fn headers_count_in_the_size_of_a_post() {
    let app = App::with("[limits]\nmax_messages_post_size = 1000");
    let body = json!({"messages": [{"body": 1, "headers": {"a": "x".repeat(1000)}}]});
    app.post(MESSAGES, &body).await.assert_refused(
        400,
        "Invalid API request",
        "Message collection size is too large. Max size 1000",
    );
}

#[tokio::test]
async fn whether_headers_are_told_is_yes_or_no() {
    let app = App::new();
    let answer = app.get(&format!("{MESSAGES}?headers=maybe")).await;
    answer.assert_status(400);
    assert!(answer.text().contains("headers"), "{}", answer.text());
}

#[tokio::test]
async fn a_dead_letter_keeps_its_headers() {
    let app = App::new();
    let settings = json!({"_max_claim_count": 1, "_dead_letter_queue": "dead"});
    app.put("/v2/queues/fizbat", settings)
        .await
        .assert_status(201);
    post(&app, json!([task()])).await;
    let claimed = app.post(CLAIMS, "{}").await;
    app.delete(claimed.header("location").expect("a claim"))
        .await;
    app.post(CLAIMS, "{}").await.assert_status(204);
    let claimed = app.post("/v2/queues/dead/claims?headers=true", "{}").await;
    claimed.assert_status(201);
    assert_eq!(beside(&claimed.json()["messages"][0]), expected());
}

#[tokio::test]
async fn headers_of_an_encrypted_queue_are_kept_beside_its_bodies() {
    let app = App::new();
    let settings = json!({"_enable_encrypt_messages": true});
    app.put("/v2/queues/fizbat", settings)
        .await
        .assert_status(201);
    post(&app, json!([task()])).await;
    let claimed = app
        .post(&format!("{CLAIMS}?headers=true"), "{}")
        .await
        .json();
    assert_eq!(beside(&claimed["messages"][0]), expected());
    assert_eq!(claimed["messages"][0]["body"], task()["body"]);
}
