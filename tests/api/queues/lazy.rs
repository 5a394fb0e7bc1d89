//! Queues that come to be by being used (spec: queues.md 10).

use serde_json::{Value, json};

use super::RESERVED;
use crate::api::support::App;

/// The names of the project's queues.
async fn queues(app: &App) -> Vec<String> {
    let document = app.get("/v2/queues").await.json();
    let queues = document["queues"].as_array().expect("queues");
    let name = |queue: &Value| queue["name"].as_str().map(str::to_owned);
    queues.iter().filter_map(name).collect()
}

#[tokio::test]
async fn a_post_creates_the_queue_without_metadata() {
    let app = App::new();
    app.post_bodies("q", [json!(1)]).await;
    assert_eq!(queues(&app).await, ["q"]);
    app.get("/v2/queues/q")
        .await
        .assert_is(200, &format!("{{{RESERVED}"));
    app.put("/v2/queues/q", ()).await.assert_status(204);
}

#[tokio::test]
async fn a_post_that_is_refused_creates_nothing() {
    let app = App::new();
    let path = "/v2/queues/q/messages";
    app.post(path, ()).await.assert_status(400);
    for body in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"messages": []}"#,
        r#"{"messages": [{}]}"#,
        r#"{"messages": [1]}"#,
        r#"{"messages": [{"body": 1, "ttl": 59}]}"#,
        r#"{"messages": [{"body": 1}, {"body": 1, "ttl": "x"}]}"#,
        r#"{"messages": [{"body": NaN}]}"#,
    ] {
        let answer = app.post(path, body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(queues(&app).await.is_empty(), "{body}");
    }
    app.post(path, "x".repeat(262_145)).await.assert_status(400);
    assert!(queues(&app).await.is_empty());
}

#[tokio::test]
async fn nothing_else_creates_a_queue() {
    let app = App::new();
    let id = "c8cbd19a-842e-4794-8e25-3d5e2df00f2b";
    for (method, path) in [
        ("GET", "/v2/queues/q".to_owned()),
        ("DELETE", "/v2/queues/q".to_owned()),
        ("GET", "/v2/queues/q/stats".to_owned()),
        ("POST", "/v2/queues/q/purge".to_owned()),
        ("GET", "/v2/queues/q/messages".to_owned()),
        ("GET", format!("/v2/queues/q/messages?ids={id}")),
        ("GET", format!("/v2/queues/q/messages/{id}")),
        ("DELETE", format!("/v2/queues/q/messages/{id}")),
        ("DELETE", format!("/v2/queues/q/messages?ids={id}")),
        ("DELETE", "/v2/queues/q/messages?pop=1".to_owned()),
        ("POST", "/v2/queues/q/claims".to_owned()),
        ("GET", format!("/v2/queues/q/claims/{id}")),
        ("DELETE", format!("/v2/queues/q/claims/{id}")),
    ] {
        app.send(method, &path, ()).await;
        assert!(queues(&app).await.is_empty(), "{method} {path}");
    }
    app.patch(
        "/v2/queues/q",
        json!([{"op": "add", "path": "/metadata/a", "value": 1}]),
    )
    .await
    .assert_status(404);
    app.patch(&format!("/v2/queues/q/claims/{id}"), json!({"ttl": 60}))
        .await
        .assert_status(404);
    assert!(queues(&app).await.is_empty());
}

#[tokio::test]
async fn dead_letters_create_the_queue_that_they_go_to() {
    let app = App::new();
    app.put(
        "/v2/queues/q",
        json!({"_dead_letter_queue": "dead", "_max_claim_count": 1}),
    )
    .await
    .assert_status(201);
    assert_eq!(queues(&app).await, ["q"]);
    app.post_bodies("q", [json!(1)]).await;
    for _ in 0..2 {
        app.post("/v2/queues/q/claims", json!({"ttl": 60, "grace": 60}))
            .await;
        app.advance(60);
    }
    assert_eq!(queues(&app).await, ["dead", "q"]);
    let dead = app.get("/v2/queues/dead/stats").await.json();
    assert_eq!(dead["messages"]["total"], 1);
}

#[tokio::test]
async fn a_queue_belongs_to_the_project_that_posted() {
    let app = App::new();
    app.project("p1").post_bodies("q", [json!(1)]).await;
    assert!(queues(&app.project("p2")).await.is_empty());
}
