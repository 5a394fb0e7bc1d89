//! Counting a queue's messages (spec: queues.md 7).

use serde_json::{Value, json};

use crate::api::support::App;

const NO_MESSAGES: &str = r#"{"messages": {"claimed": 0, "free": 0, "total": 0}}"#;

/// How many are claimed, free, and there at all.
async fn counts(app: &App) -> [Value; 3] {
    let stats = app.get("/v2/queues/q/stats").await.json();
    ["claimed", "free", "total"].map(|key| stats["messages"][key].clone())
}

#[tokio::test]
async fn an_empty_or_missing_queue_has_no_messages() {
    let app = App::new();
    app.get("/v2/queues/q/stats")
        .await
        .assert_is(200, NO_MESSAGES);
    app.put("/v2/queues/q", ()).await;
    app.get("/v2/queues/q/stats")
        .await
        .assert_is(200, NO_MESSAGES);
}

#[tokio::test]
async fn the_oldest_and_the_newest_message_are_told_of_and_nothing_else() {
    let app = App::new();
    let first = app.post_bodies("q", [json!("secret")]).await.remove(0);
    app.advance(28);
    app.post_bodies("q", [json!("secret")]).await;
    let last = app.post_bodies("q", [json!("secret")]).await.remove(0);
    app.post("/v2/queues/q/claims?limit=1", ()).await;
    app.advance(2);
    app.get("/v2/queues/q/stats").await.assert_is(
        200,
        &format!(
            "{{\"messages\": {{\"claimed\": 1, \"free\": 2, \"total\": 3, \
             \"oldest\": {{\"age\": 30, \"created\": \"2026-01-01T00:00:00Z\", \
             \"href\": \"/v2/queues/q/messages/{first}\"}}, \
             \"newest\": {{\"age\": 2, \"created\": \"2026-01-01T00:00:28Z\", \
             \"href\": \"/v2/queues/q/messages/{last}\"}}}}}}"
        ),
    );
}

#[tokio::test]
async fn a_single_message_is_the_oldest_and_the_newest() {
    let app = App::new();
    let id = app.post_bodies("q", [json!(1)]).await.remove(0);
    let stats = app.get("/v2/queues/q/stats").await.json();
    assert_eq!(stats["messages"]["oldest"], stats["messages"]["newest"]);
    assert_eq!(
        stats["messages"]["oldest"]["href"],
        format!("/v2/queues/q/messages/{id}")
    );
}

#[tokio::test]
async fn claimed_messages_are_counted_while_their_claim_runs() {
    let app = App::new();
    app.post_bodies("q", (0..5).map(Value::from)).await;
    assert_eq!(counts(&app).await, [0, 5, 5].map(Value::from));
    let terms = json!({"ttl": 60, "grace": 60});
    let claim = app.post("/v2/queues/q/claims?limit=2", &terms).await;
    assert_eq!(counts(&app).await, [2, 3, 5].map(Value::from));
    app.delete(claim.header("location").expect("a claim")).await;
    assert_eq!(counts(&app).await, [0, 5, 5].map(Value::from));
    app.post("/v2/queues/q/claims?limit=4", &terms).await;
    app.advance(59);
    assert_eq!(counts(&app).await, [4, 1, 5].map(Value::from));
    app.advance(1);
    assert_eq!(counts(&app).await, [0, 5, 5].map(Value::from));
}

#[tokio::test]
async fn delayed_messages_count_as_free() {
    let app = App::new();
    app.put("/v2/queues/q", json!({"_default_message_delay": 100}))
        .await;
    app.post_bodies("q", [json!(1), json!(2)]).await;
    assert_eq!(counts(&app).await, [0, 2, 2].map(Value::from));
    app.advance(101);
    assert_eq!(counts(&app).await, [0, 2, 2].map(Value::from));
}

#[tokio::test]
async fn expired_messages_do_not_count_and_break_nothing() {
    let app = App::new();
    let message = |ttl: u64| json!({"ttl": ttl, "body": ttl});
    app.post(
        "/v2/queues/q/messages",
        json!({"messages": [message(60), message(300), message(60)]}),
    )
    .await
    .assert_status(201);
    app.advance(60);
    let stats = app.get("/v2/queues/q/stats").await.json();
    assert_eq!(stats["messages"]["total"], 1);
    assert_eq!(stats["messages"]["oldest"], stats["messages"]["newest"]);
    assert_eq!(stats["messages"]["oldest"]["age"], 60);
    app.advance(240);
    app.get("/v2/queues/q/stats")
        .await
        .assert_is(200, NO_MESSAGES);
}

#[tokio::test]
async fn a_claim_whose_messages_expired_breaks_nothing() {
    let app = App::new();
    app.post_bodies("q", [json!(1), json!(2)]).await;
    app.post("/v2/queues/q/claims", json!({"ttl": 60, "grace": 60}))
        .await;
    app.advance(3601);
    app.get("/v2/queues/q/stats")
        .await
        .assert_is(200, NO_MESSAGES);
}

#[tokio::test]
async fn deleted_and_popped_messages_do_not_count() {
    let app = App::new();
    let ids = app.post_bodies("q", (0..4).map(Value::from)).await;
    app.delete(&format!("/v2/queues/q/messages/{}", ids[0]))
        .await;
    app.delete("/v2/queues/q/messages?pop=1")
        .await
        .assert_status(200);
    assert_eq!(counts(&app).await, [0, 2, 2].map(Value::from));
    let stats = app.get("/v2/queues/q/stats").await.json();
    assert_eq!(
        stats["messages"]["oldest"]["href"],
        format!("/v2/queues/q/messages/{}", ids[2])
    );
}

#[tokio::test]
async fn messages_of_other_projects_do_not_count() {
    let app = App::new();
    app.project("other").post_bodies("q", [json!(1)]).await;
    app.get("/v2/queues/q/stats")
        .await
        .assert_is(200, NO_MESSAGES);
}
