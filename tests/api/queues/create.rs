//! Creating a queue (spec: queues.md 3).

use serde_json::json;

use crate::api::support::{Answer, App};

fn location(answer: &Answer) -> Option<&str> {
    answer.header("location")
}

#[tokio::test]
async fn a_new_queue_is_created() {
    let app = App::new();
    let answer = app
        .put("/v2/queues/fizbat", json!({"team": "billing"}))
        .await;
    answer.assert_is(201, "");
    assert_eq!(location(&answer), Some("/v2/queues/fizbat"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.length, Some(0));
}

#[tokio::test]
async fn a_queue_that_exists_is_left_as_it_is() {
    let app = App::new();
    app.put("/v2/queues/fizbat", json!({"team": "billing"}))
        .await;
    let answer = app
        .put("/v2/queues/fizbat", json!({"team": "infra", "x": 1}))
        .await;
    answer.assert_is(204, "");
    assert_eq!(location(&answer), Some("/v2/queues/fizbat"));
    assert_eq!(answer.header("content-type"), None);
    let shown = app.get("/v2/queues/fizbat").await.json();
    assert_eq!(shown["team"], "billing");
    assert_eq!(shown.get("x"), None);
}

#[tokio::test]
async fn the_metadata_of_a_queue_that_exists_are_checked_all_the_same() {
    let app = App::new();
    app.put("/v2/queues/q", ()).await.assert_status(201);
    app.put("/v2/queues/q", json!({"_default_message_ttl": 59}))
        .await
        .assert_status(400);
    app.put("/v2/queues/q", "[]").await.assert_status(400);
    app.put("/v2/queues/q", "{").await.assert_status(400);
}

#[tokio::test]
async fn a_queue_belongs_to_its_project() {
    let app = App::new();
    app.project("p1").put("/v2/queues/q", json!({"a": 1})).await;
    let other = app.project("p2");
    assert_eq!(other.get("/v2/queues/q").await.json().get("a"), None);
    other
        .put("/v2/queues/q", json!({"a": 2}))
        .await
        .assert_status(201);
    other.delete("/v2/queues/q").await.assert_status(204);
    let shown = app.project("p1").get("/v2/queues/q").await.json();
    assert_eq!(shown["a"], 1);
}

#[tokio::test]
async fn names_that_look_alike_are_different_queues() {
    let app = App::new();
    for (project, queue) in [("a", "b.c"), ("a.b", "c"), ("a", "b"), ("a", "b.messages")] {
        app.project(project)
            .put(
                &format!("/v2/queues/{queue}"),
                json!({"is": [project, queue]}),
            )
            .await
            .assert_status(201);
    }
    let shown = app.project("a").get("/v2/queues/b.c").await.json();
    assert_eq!(shown["is"], json!(["a", "b.c"]));
    app.project("a").post_bodies("b", [json!(1)]).await;
    let stats = app
        .project("a")
        .get("/v2/queues/b.messages/stats")
        .await
        .json();
    assert_eq!(stats["messages"]["total"], 0);
}

#[tokio::test]
async fn metadata_may_be_any_object() {
    let app = App::new();
    let metadata = json!({"": 1, "a/b": {"c": [null, true, 1.5, "x"]}, "_own": {"x": 1}, "é": "ü"});
    app.put("/v2/queues/q", &metadata).await.assert_status(201);
    let shown = app.get("/v2/queues/q").await.json();
    for (key, value) in metadata.as_object().expect("an object") {
        assert_eq!(&shown[key], value, "{key}");
    }
}

#[tokio::test]
async fn a_flavor_that_does_not_exist_is_refused_also_where_there_are_no_pools() {
    let app = App::new();
    let unknown = "Flavor nope does not exist";
    app.put("/v2/queues/q", json!({"_flavor": "nope"}))
        .await
        .assert_refused(400, "Invalid API request", unknown);
    assert_eq!(app.get("/v2/queues").await.json()["queues"], json!([]));
    app.put("/v2/queues/q", json!({"_flavor": ""}))
        .await
        .assert_status(201);
    let operation = json!([{"op": "add", "path": "/metadata/_flavor", "value": "nope"}]);
    app.patch("/v2/queues/q", operation)
        .await
        .assert_refused(404, "Not found", unknown);
}

#[tokio::test]
async fn a_refused_queue_does_not_exist() {
    let app = App::new();
    app.put("/v2/queues/q", json!({"_max_claim_count": "x"}))
        .await
        .assert_status(400);
    app.get("/v2/queues")
        .await
        .assert_is(200, r#"{"queues": [], "links": []}"#);
}
