//! Deleting a queue (spec: queues.md 6).

use serde_json::{Value, json};

use crate::api::support::App;

#[tokio::test]
async fn a_delete_is_204_whether_the_queue_exists_or_not() {
    let app = App::new();
    app.put("/v2/queues/q", ()).await;
    for _ in 0..3 {
        let answer = app.delete("/v2/queues/q").await;
        answer.assert_is(204, "");
        assert_eq!(answer.header("content-type"), None);
        assert_eq!(answer.header("location"), None);
    }
}

#[tokio::test]
async fn a_deleted_queue_is_gone_with_its_metadata() {
    let app = App::new();
    app.put("/v2/queues/q", json!({"team": "billing"})).await;
    app.delete("/v2/queues/q").await.assert_status(204);
    app.get("/v2/queues")
        .await
        .assert_is(200, r#"{"queues": [], "links": []}"#);
    app.put("/v2/queues/q", ()).await.assert_status(201);
    assert_eq!(app.get("/v2/queues/q").await.json().get("team"), None);
}

#[tokio::test]
async fn a_deleted_queue_takes_its_messages_and_claims_along() {
    let app = App::new();
    let ids = app.post_bodies("q", [json!(1), json!(2)]).await;
    let claim = app.post("/v2/queues/q/claims?limit=1", ()).await;
    let claim = claim.header("location").expect("a claim").to_owned();
    app.delete("/v2/queues/q").await.assert_status(204);
    app.put("/v2/queues/q", ()).await.assert_status(201);
    let stats = app.get("/v2/queues/q/stats").await.json();
    assert_eq!(
        stats,
        json!({"messages": {"claimed": 0, "free": 0, "total": 0}})
    );
    for id in ids {
        app.get(&format!("/v2/queues/q/messages/{id}"))
            .await
            .assert_status(404);
    }
    app.get(&claim).await.assert_status(404);
    app.post("/v2/queues/q/claims", ()).await.assert_status(204);
}

#[tokio::test]
async fn settings_of_a_deleted_queue_do_not_come_back() {
    let app = App::new();
    app.put("/v2/queues/q", json!({"_default_message_ttl": 60}))
        .await;
    let post = json!({"messages": [{"body": Value::Null}]});
    app.post("/v2/queues/q/messages", &post)
        .await
        .assert_status(201);
    app.delete("/v2/queues/q").await;
    app.post("/v2/queues/q/messages", &post)
        .await
        .assert_status(201);
    let listed = app.get("/v2/queues/q/messages?echo=true").await.json();
    assert_eq!(listed["messages"][0]["ttl"], 3600);
}

#[tokio::test]
async fn a_delete_leaves_other_queues_alone() {
    let app = App::new();
    app.post_bodies("q", [json!(1)]).await;
    app.post_bodies("q.2", [json!(1)]).await;
    app.project("other").post_bodies("q", [json!(1)]).await;
    app.delete("/v2/queues/q").await;
    for (app, queue) in [(&app, "q.2"), (&app.project("other"), "q")] {
        let stats = app.get(&format!("/v2/queues/{queue}/stats")).await.json();
        assert_eq!(stats["messages"]["total"], 1);
    }
}
