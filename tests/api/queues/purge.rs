//! Purging a queue (spec: queues.md 8).

use serde_json::{Value, json};

use crate::api::support::{App, Payload};

const PURGE: &str = "/v2/queues/q/purge";

async fn total(app: &App) -> Value {
    app.get("/v2/queues/q/stats").await.json()["messages"]["total"].clone()
}

#[tokio::test]
async fn purge_deletes_the_named_resource_types() {
    let app = App::new();
    for (types, left) in [
        (json!(["messages"]), 0),
        (json!(["subscriptions", "messages"]), 0),
        (json!(["messages", "messages"]), 0),
        (json!(["subscriptions"]), 2),
        (json!([]), 2),
    ] {
        app.delete("/v2/queues/q").await;
        app.post_bodies("q", [json!(1), json!(2)]).await;
        let answer = app
            .post(PURGE, json!({"resource_types": types, "x": 1}))
            .await;
        answer.assert_is(204, "");
        assert_eq!(answer.header("content-type"), None);
        assert_eq!(total(&app).await, left, "{types}");
    }
}

#[tokio::test]
async fn without_a_body_everything_is_purged() {
    let app = App::new();
    for body in [().into(), "".into()] {
        let body: Payload = body;
        app.post_bodies("q", [json!(1), json!(2)]).await;
        app.post(PURGE, body).await.assert_is(204, "");
        assert_eq!(total(&app).await, 0);
    }
}

#[tokio::test]
async fn a_purge_takes_claimed_and_delayed_messages_and_their_claims() {
    let app = App::new();
    app.put("/v2/queues/q", json!({"_default_message_delay": 100}))
        .await;
    app.post_bodies("q", [json!("delayed")]).await;
    app.post(
        "/v2/queues/q/messages",
        json!({"messages": [{"delay": 0, "body": 1}, {"delay": 0, "body": 2}]}),
    )
    .await;
    let claim = app.post("/v2/queues/q/claims?limit=1", ()).await;
    claim.assert_status(201);
    app.post(PURGE, ()).await.assert_status(204);
    assert_eq!(total(&app).await, 0);
    app.get(claim.header("location").expect("a claim"))
        .await
        .assert_status(404);
    let listed = app
        .get("/v2/queues/q/messages?echo=true&include_claimed=true&include_delayed=true")
        .await;
    listed.assert_is(200, r#"{"messages": [], "links": []}"#);
}

#[tokio::test]
async fn a_purge_takes_more_than_a_page() {
    let app = App::new();
    for _ in 0..5 {
        app.post_bodies("q", (0..100).map(Value::from)).await;
    }
    app.post(PURGE, ()).await.assert_status(204);
    assert_eq!(total(&app).await, 0);
}

#[tokio::test]
async fn a_purge_keeps_the_metadata() {
    let app = App::new();
    app.put(
        "/v2/queues/q",
        json!({"team": "billing", "_default_message_ttl": 60}),
    )
    .await;
    app.post(PURGE, ()).await.assert_status(204);
    let shown = app.get("/v2/queues/q").await.json();
    assert_eq!(shown["team"], "billing");
    assert_eq!(shown["_default_message_ttl"], 60);
}

#[tokio::test]
async fn a_purged_queue_takes_messages_as_before() {
    let app = App::new();
    app.post_bodies("q", [json!(1)]).await;
    app.post(PURGE, ()).await.assert_status(204);
    app.post_bodies("q", [json!(2)]).await;
    let listed = app.get("/v2/queues/q/messages?echo=true").await.json();
    assert_eq!(listed["messages"].as_array().map(Vec::len), Some(1));
    assert_eq!(listed["messages"][0]["body"], 2);
}

#[tokio::test]
async fn a_missing_queue_is_purged_already() {
    let app = App::new();
    app.post(PURGE, ()).await.assert_is(204, "");
    app.post(PURGE, json!({"resource_types": ["messages"]}))
        .await
        .assert_is(204, "");
}

#[tokio::test]
async fn a_purge_leaves_other_queues_alone() {
    let app = App::new();
    app.post_bodies("r", [json!(1)]).await;
    app.project("other").post_bodies("q", [json!(1)]).await;
    app.post(PURGE, ()).await.assert_status(204);
    assert_eq!(total(&app.project("other")).await, 1);
    let stats = app.get("/v2/queues/r/stats").await.json();
    assert_eq!(stats["messages"]["total"], 1);
}

#[tokio::test]
async fn a_body_without_resource_types_is_refused() {
    let app = App::new();
    app.post_bodies("q", [json!(1)]).await;
    for body in [
        "{}",
        "[]",
        r#"{"Resource_types": ["messages"]}"#,
        r#"["resource_types"]"#,
    ] {
        app.post(PURGE, body).await.assert_refused(
            400,
            "Invalid API request",
            "Post body must contain key \"resource_types\".",
        );
    }
    assert_eq!(total(&app).await, 1);
}

#[tokio::test]
async fn resource_types_are_a_list_of_two_words() {
    let app = App::new();
    app.post_bodies("q", [json!(1)]).await;
    for wrong in [
        json!(["claims"]),
        json!(["messages", "x"]),
        json!(["Messages"]),
        json!("messages"),
        json!(""),
        json!([1]),
        json!([["messages"]]),
        json!({"messages": 1}),
        json!(1),
        json!(true),
        Value::Null,
    ] {
        let answer = app.post(PURGE, json!({"resource_types": wrong})).await;
        answer.assert_status(400);
        let document = answer.json();
        assert_eq!(document["title"], "Invalid API request", "{wrong}");
        let description = document["description"].as_str().expect("a description");
        let in_either_order = [
            "Resource types must be a sub set of {'subscriptions', 'messages'}.",
            "Resource types must be a sub set of {'messages', 'subscriptions'}.",
        ];
        assert!(in_either_order.contains(&description), "{description}");
    }
    assert_eq!(total(&app).await, 1);
}
