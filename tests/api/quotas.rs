//! What a project may use, and what it is told beyond it.

mod bytes;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::support::App;

const MESSAGES: &str = "/v2/queues/q/messages";

fn messages(count: usize) -> Value {
    let all: Vec<Value> = (0..count).map(|body| json!({"body": body})).collect();
    json!({"messages": all})
}

/// How many messages a queue has.
async fn count(app: &App, queue: &str) -> u64 {
    let stats = app.get(&format!("/v2/queues/{queue}/stats")).await.json();
    stats["messages"]["total"].as_u64().expect("a number")
}

#[tokio::test]
async fn a_project_that_asks_too_often_is_told_to_wait_and_others_are_not() {
    let file = "[quotas]\nmax_requests_per_second = 5\n[quotas.projects.busy]\nmax_requests_per_second = 1000";
    let app = App::with(file);
    let mut refused = None;
    for _ in 0..50 {
        let answer = app.get("/v2/ping").await;
        match answer.status {
            204 => {}
            429 => refused = Some(answer),
            other => panic!("{other}"),
        }
    }
    let refused = refused.expect("one of fifty at once came too soon");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.json()["title"], "Too many requests");
    let busy = app.project("busy");
    for _ in 0..50 {
        busy.get("/v2/ping").await.assert_status(204);
    }
    app.project("other")
        .get("/v2/ping")
        .await
        .assert_status(204);
    // It may go on when it has waited.
    let since = Instant::now();
    while app.get("/v2/ping").await.status == 429 {
        assert!(
            since.elapsed() < Duration::from_secs(10),
            "it is never let in"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_project_has_as_many_queues_as_it_may() {
    let file = "[notifications]\nallowed_networks = [\"192.0.2.0/24\"]\n[quotas]\nmax_queues = 2\n\
                [quotas.projects.large]\nmax_queues = 3";
    let app = App::with(file);
    let sentence = "This project may have 2 queues and topics, and has as many.";
    app.put("/v2/queues/a", json!({})).await.assert_status(201);
    app.put("/v2/topics/b", json!({})).await.assert_status(201);
    for (path, body) in [("/v2/queues/c", json!({})), ("/v2/topics/c", json!({}))] {
        let answer = app.put(path, body).await;
        answer.assert_refused(403, "Quota exceeded", sentence);
    }
    // Nor by what makes one in passing.
    let answer = app.post("/v2/queues/c/messages", messages(1)).await;
    answer.assert_refused(403, "Quota exceeded", sentence);
    let subscription = json!({"subscriber": "http://192.0.2.1/", "ttl": 3600});
    let answer = app.post("/v2/queues/c/subscriptions", subscription).await;
    answer.assert_refused(403, "Quota exceeded", sentence);
    // Those that are there go on.
    app.put("/v2/queues/a", json!({})).await.assert_status(204);
    app.post("/v2/queues/a/messages", messages(1))
        .await
        .assert_status(201);
    let listed = app.get("/v2/queues").await.json();
    assert_eq!(listed["queues"].as_array().map(Vec::len), Some(1));
    app.delete("/v2/queues/a").await.assert_status(204);
    app.post("/v2/queues/c/messages", messages(1))
        .await
        .assert_status(201);
    let large = app.project("large");
    for name in ["a", "b", "c"] {
        let path = format!("/v2/queues/{name}");
        large.put(&path, json!({})).await.assert_status(201);
    }
    large
        .put("/v2/queues/d", json!({}))
        .await
        .assert_status(403);
}

#[tokio::test]
async fn a_full_queue_refuses_posts_and_stores_nothing() {
    let app = App::new();
    app.put("/v2/queues/q", json!({"_max_messages": 3}))
        .await
        .assert_status(201);
    app.post(MESSAGES, messages(2)).await.assert_status(201);
    let sentence = "This queue may have 3 messages, and has no room for these.";
    let answer = app.post(MESSAGES, messages(2)).await;
    answer.assert_refused(403, "Quota exceeded", sentence);
    assert_eq!(count(&app, "q").await, 2);
    app.post(MESSAGES, messages(1)).await.assert_status(201);
    app.post(MESSAGES, messages(1)).await.assert_status(403);
    // Who claims and deletes makes room.
    let claimed = app
        .post("/v2/queues/q/claims?limit=1", json!({}))
        .await
        .json();
    app.post(MESSAGES, messages(1)).await.assert_status(403);
    let held = claimed["messages"][0]["href"].as_str().expect("a message");
    app.delete(held).await.assert_status(204);
    app.post(MESSAGES, messages(1)).await.assert_status(201);
    app.post(MESSAGES, messages(1)).await.assert_status(403);
    // Another bound holds from the next post on.
    let wider = json!([{"op": "replace", "path": "/metadata/_max_messages", "value": 4}]);
    app.patch("/v2/queues/q", wider).await.assert_status(200);
    app.post(MESSAGES, messages(1)).await.assert_status(201);
    let none = json!([{"op": "remove", "path": "/metadata/_max_messages"}]);
    app.patch("/v2/queues/q", none).await.assert_status(200);
    app.post(MESSAGES, messages(9)).await.assert_status(201);
    assert_eq!(count(&app, "q").await, 13);
}

#[tokio::test]
async fn a_full_queue_has_room_when_its_messages_have_expired() {
    let app = App::new();
    let metadata = json!({"_max_messages": 2, "_default_message_ttl": 60});
    app.put("/v2/queues/q", metadata).await.assert_status(201);
    app.post(MESSAGES, messages(2)).await.assert_status(201);
    app.post(MESSAGES, messages(1)).await.assert_status(403);
    app.advance(61);
    app.post(MESSAGES, messages(2)).await.assert_status(201);
}

#[tokio::test]
async fn a_bound_of_a_queue_is_within_that_of_its_project() {
    let file =
        "[quotas]\nmax_messages_per_queue = 3\n[quotas.projects.large]\nmax_messages_per_queue = 0";
    let app = App::with(file);
    app.post(MESSAGES, messages(3)).await.assert_status(201);
    app.post(MESSAGES, messages(1)).await.assert_status(403);
    let answer = app
        .put("/v2/queues/wide", json!({"_max_messages": 4}))
        .await;
    let sentence = "_max_messages can not exceed 3, which is the quota of this project.";
    answer.assert_refused(400, "Invalid API request", sentence);
    app.put("/v2/queues/narrow", json!({"_max_messages": 1}))
        .await
        .assert_status(201);
    let narrow = "/v2/queues/narrow/messages";
    app.post(narrow, messages(1)).await.assert_status(201);
    app.post(narrow, messages(1)).await.assert_status(403);
    let large = app.project("large");
    large.post(MESSAGES, messages(10)).await.assert_status(201);
    for (value, sentence) in [
        (json!(0), "_max_messages must be at least 1."),
        (json!(-1), "_max_messages must be at least 1."),
        (json!("7"), "_max_messages must be integer."),
        (json!(true), "_max_messages must be integer."),
    ] {
        let answer = app
            .put("/v2/queues/x", json!({"_max_messages": value}))
            .await;
        answer.assert_refused(400, "Invalid API request", sentence);
    }
}

/// It is counted in the background: about right at first, and right in the end.
#[tokio::test]
async fn a_project_that_has_as_many_messages_as_it_may_gets_no_more_until_some_are_gone() {
    let app = App::with("[quotas]\nmax_messages = 20");
    let mut stored = 0;
    let refused = loop {
        let path = format!("/v2/queues/q{}/messages", stored % 4);
        let answer = app.post(&path, messages(2)).await;
        if answer.status == 403 {
            break answer;
        }
        answer.assert_status(201);
        stored += 2;
        assert!(stored <= 100, "it is never refused");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(stored >= 20, "it is refused after {stored}");
    let sentence = "This project may have 20 messages in all its queues, and has as many.";
    refused.assert_refused(403, "Quota exceeded", sentence);
    let other = app.project("other").post(MESSAGES, messages(15)).await;
    other.assert_status(201);
    for queue in ["q0", "q2"] {
        let path = format!("/v2/queues/{queue}");
        app.delete(&path).await.assert_status(204);
    }
    let since = Instant::now();
    while app.post(MESSAGES, messages(20)).await.status != 201 {
        assert!(
            since.elapsed() < Duration::from_secs(20),
            "it is never let in again"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    app.post(MESSAGES, messages(1)).await.assert_status(403);
}
