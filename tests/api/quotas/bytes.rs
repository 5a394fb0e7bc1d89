//! How many bytes a queue and a project may have.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{MESSAGES, count};
use crate::api::support::{Answer, App};

/// How long a full queue may refuse after it was emptied: a count a second, and time for a slow machine.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A post of one message whose body has so many bytes.
fn body(bytes: usize) -> Value {
    json!({"messages": [{"body": "b".repeat(bytes - 2)}]})
}

/// Posts until it is let in.
async fn post_until_let_in(app: &App, path: &str, document: Value) {
    let since = Instant::now();
    loop {
        let answer = app.post(path, document.clone()).await;
        if answer.status == 201 {
            return;
        }
        answer.assert_status(403);
        assert!(since.elapsed() < TIMEOUT, "it is never let in again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Posts so many bytes again and again until that is refused. Returns how many posts were let in.
async fn fill(app: &App, path: &str, bytes: usize, most: usize) -> (usize, Answer) {
    for stored in 0..=most {
        let answer = app.post(path, body(bytes)).await;
        if answer.status == 403 {
            return (stored, answer);
        }
        answer.assert_status(201);
    }
    panic!("more than {most} posts are let in");
}

#[tokio::test]
async fn a_queue_with_too_many_bytes_refuses_posts_and_stores_nothing() {
    let app = App::new();
    app.put("/v2/queues/q", json!({"_max_bytes": 1000}))
        .await
        .assert_status(201);
    let sentence = "This queue may have 1000 bytes of messages, and has no room for these.";
    let answer = app.post(MESSAGES, body(1001)).await;
    answer.assert_refused(403, "Quota exceeded", sentence);
    assert_eq!(count(&app, "q").await, 0);
    app.post(MESSAGES, body(400)).await.assert_status(201);
    app.post(MESSAGES, body(400)).await.assert_status(201);
    let answer = app.post(MESSAGES, body(400)).await;
    answer.assert_refused(403, "Quota exceeded", sentence);
    assert_eq!(count(&app, "q").await, 2);
    app.post(MESSAGES, body(50)).await.assert_status(201);
    assert_eq!(count(&app, "q").await, 3);
    app.post("/v2/queues/other/messages", body(5000))
        .await
        .assert_status(201);
}

#[tokio::test]
async fn a_queue_has_room_when_its_messages_are_gone() {
    let app = App::new();
    let metadata = json!({"_max_bytes": 1000, "_default_message_ttl": 60});
    app.put("/v2/queues/q", metadata).await.assert_status(201);
    app.post(MESSAGES, body(900)).await.assert_status(201);
    app.post(MESSAGES, body(900)).await.assert_status(403);
    // Claimed messages have bytes, and those that are deleted have none.
    let path = "/v2/queues/q/claims?limit=1";
    let claimed = app.post(path, json!({})).await.json();
    app.post(MESSAGES, body(900)).await.assert_status(403);
    let held = claimed["messages"][0]["href"].as_str().expect("a message");
    app.delete(held).await.assert_status(204);
    post_until_let_in(&app, MESSAGES, body(900)).await;
    app.advance(61);
    post_until_let_in(&app, MESSAGES, body(900)).await;
    app.delete("/v2/queues/q").await.assert_status(204);
    app.put("/v2/queues/q", json!({"_max_bytes": 1000}))
        .await
        .assert_status(201);
    post_until_let_in(&app, MESSAGES, body(900)).await;
    app.post(MESSAGES, body(900)).await.assert_status(403);
}

/// What a client pops the server knows, without a count.
#[tokio::test]
async fn a_queue_that_is_popped_from_has_room_at_once() {
    let app = App::new();
    app.put("/v2/queues/q", json!({"_max_bytes": 1000}))
        .await
        .assert_status(201);
    for _ in 0..20 {
        app.post(MESSAGES, body(900)).await.assert_status(201);
        app.post(MESSAGES, body(900)).await.assert_status(403);
        let since = Instant::now();
        // A broker may need a moment to deliver it.
        while app.delete("/v2/queues/q/messages?pop=1").await.json()["messages"]
            .as_array()
            .is_none_or(Vec::is_empty)
        {
            assert!(since.elapsed() < TIMEOUT, "it is never popped");
        }
    }
}

#[tokio::test]
async fn encrypted_bodies_count_as_they_are_stored() {
    let app = App::new();
    let metadata = json!({"_max_bytes": 1000, "_enable_encrypt_messages": true});
    app.put("/v2/queues/q", metadata).await.assert_status(201);
    // Sealed and written as text, 900 bytes are more than 1,000.
    app.post(MESSAGES, body(900)).await.assert_status(403);
    app.post(MESSAGES, body(500)).await.assert_status(201);
    assert_eq!(count(&app, "q").await, 1);
}

#[tokio::test]
async fn another_bound_of_bytes_holds_from_the_next_post_on() {
    let app = App::new();
    app.put("/v2/queues/q", json!({"_max_bytes": 1000}))
        .await
        .assert_status(201);
    app.post(MESSAGES, body(900)).await.assert_status(201);
    app.post(MESSAGES, body(900)).await.assert_status(403);
    let wider = json!([{"op": "replace", "path": "/metadata/_max_bytes", "value": 2000}]);
    app.patch("/v2/queues/q", wider).await.assert_status(200);
    app.post(MESSAGES, body(900)).await.assert_status(201);
    app.post(MESSAGES, body(900)).await.assert_status(403);
    let none = json!([{"op": "remove", "path": "/metadata/_max_bytes"}]);
    app.patch("/v2/queues/q", none).await.assert_status(200);
    for _ in 0..5 {
        app.post(MESSAGES, body(900)).await.assert_status(201);
    }
}

#[tokio::test]
async fn a_bound_of_bytes_is_within_that_of_the_project() {
    let file =
        "[quotas]\nmax_bytes_per_queue = 3300\n[quotas.projects.large]\nmax_bytes_per_queue = 0";
    let app = App::with(file);
    let (stored, _) = fill(&app, MESSAGES, 1000, 3).await;
    assert_eq!(stored, 3);
    let answer = app
        .put("/v2/queues/wide", json!({"_max_bytes": 4000}))
        .await;
    let sentence = "_max_bytes can not exceed 3300, which is the quota of this project.";
    answer.assert_refused(400, "Invalid API request", sentence);
    app.put("/v2/queues/narrow", json!({"_max_bytes": 1000}))
        .await
        .assert_status(201);
    let wider = json!([{"op": "replace", "path": "/metadata/_max_bytes", "value": 4000}]);
    let answer = app.patch("/v2/queues/narrow", wider).await;
    answer.assert_refused(400, "Invalid request body", sentence);
    let (stored, _) = fill(&app, "/v2/queues/narrow/messages", 900, 1).await;
    assert_eq!(stored, 1);
    let large = app.project("large");
    for _ in 0..5 {
        large.post(MESSAGES, body(1000)).await.assert_status(201);
    }
    for (value, sentence) in [
        (json!(0), "_max_bytes must be at least 1."),
        (json!(-1), "_max_bytes must be at least 1."),
        (json!("7"), "_max_bytes must be integer."),
        (json!(true), "_max_bytes must be integer."),
        (json!(1.5), "_max_bytes must be integer."),
    ] {
        let answer = app.put("/v2/queues/x", json!({"_max_bytes": value})).await;
        answer.assert_refused(400, "Invalid API request", sentence);
    }
}

#[tokio::test]
async fn a_project_with_too_many_bytes_gets_no_more_until_some_are_gone() {
    let app = App::with("[quotas]\nmax_bytes = 10000\n[quotas.projects.large]\nmax_bytes = 50000");
    let mut stored = 0;
    let refused = loop {
        let path = format!("/v2/queues/q{}/messages", stored % 3);
        let answer = app.post(&path, body(1000)).await;
        if answer.status == 403 {
            break answer;
        }
        answer.assert_status(201);
        stored += 1;
        assert!(stored <= 30, "it is never refused");
    };
    assert!(stored >= 9, "it is refused after {stored}");
    let sentence = "This project may have 10000 bytes of messages in all its queues, and has no room for these.";
    refused.assert_refused(403, "Quota exceeded", sentence);
    let large = app.project("large");
    large.post(MESSAGES, body(11_000)).await.assert_status(201);
    app.delete("/v2/queues/q0").await.assert_status(204);
    post_until_let_in(&app, "/v2/queues/q1/messages", body(1000)).await;
}

/// Near the bound an old count would still have what was deleted.
#[tokio::test]
async fn a_project_that_deletes_what_it_posts_is_not_refused_for_what_is_gone() {
    let app = App::with("[quotas]\nmax_messages = 10");
    for round in 0..20 {
        let posted = app.post(MESSAGES, super::messages(8)).await;
        assert_eq!(posted.status, 201, "in round {round}: {}", posted.text());
        let resources = posted.json()["resources"].clone();
        for path in resources.as_array().expect("what was posted") {
            let path = path.as_str().expect("a path");
            app.delete(path).await.assert_status(204);
        }
    }
}
