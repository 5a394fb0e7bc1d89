//! The end of a message's life (spec: messages.md 1).

use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    CLAIMS, MESSAGES, bodies, claim_id, counts, listed, message, no_content, post, post_bodies,
};
use crate::api::support::App;

/// How long a broker that can only lease may take to deliver thousands of messages that have ended, on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(240);

/// A service with a message that lives for a minute, and its path.
async fn short_lived() -> (App, String) {
    let app = App::new();
    let ids = post(&app, json!([{"body": 1, "ttl": 60}])).await;
    let path = format!("{MESSAGES}/{}", ids[0]);
    (app, path)
}

#[tokio::test]
async fn a_message_is_there_in_the_last_second_of_its_life() {
    let (app, path) = short_lived().await;
    app.advance(59);
    let (_, id) = path.rsplit_once('/').unwrap();
    let shown = message(id, 60, 59, "1");
    app.get(&path).await.assert_is(200, &shown);
    app.get(&format!("{MESSAGES}?ids={id}"))
        .await
        .assert_is(200, &format!("{{\"messages\": [{shown}]}}"));
    assert_eq!(listed(&app).await, json!([1]));
    assert_eq!(counts(&app, "fizbat").await, [0, 1, 1]);
    let popped = app.delete(&format!("{MESSAGES}?pop=1")).await;
    assert_eq!(bodies(&popped), json!([1]));
}

#[tokio::test]
async fn an_expired_message_is_gone_from_everywhere() {
    let (app, path) = short_lived().await;
    app.advance(60);
    let (_, id) = path.rsplit_once('/').unwrap();
    let description = format!("Message {id} does not exist in queue fizbat for project 480924");
    app.get(&path)
        .await
        .assert_refused(404, "Not found", &description);
    // Q-MSG-8
    let description =
        format!("No messages with IDs: ['{id}'] found in the queue fizbat for project 480924.");
    app.get(&format!("{MESSAGES}?ids={id}"))
        .await
        .assert_refused(404, "Not found", &description);
    assert_eq!(listed(&app).await, json!([]));
    let everything = "echo=true&include_claimed=true&include_delayed=true";
    app.get(&format!("{MESSAGES}?{everything}"))
        .await
        .assert_is(200, r#"{"messages": [], "links": []}"#);
    // Q-QUE-3
    app.get("/v2/queues/fizbat/stats").await.assert_is(
        200,
        r#"{"messages": {"claimed": 0, "free": 0, "total": 0}}"#,
    );
    no_content("claim", &app.post(CLAIMS, ()).await);
    app.delete(&format!("{MESSAGES}?pop=1"))
        .await
        .assert_is(200, r#"{"messages": []}"#);
    let claim = super::unknown_id();
    let with_claim = format!("{path}?claim_id={claim}");
    no_content("delete with a claim", &app.delete(&with_claim).await);
    no_content("delete", &app.delete(&path).await);
}

#[tokio::test]
async fn messages_end_each_in_its_own_time() {
    let app = App::new();
    let messages = json!([{"body": 1, "ttl": 90}, {"body": 2, "ttl": 60}, {"body": 3, "ttl": 120}]);
    post(&app, messages).await;
    for (secs, left) in [
        (59, json!([1, 2, 3])),
        (1, json!([1, 3])),
        (29, json!([1, 3])),
        (1, json!([3])),
        (29, json!([3])),
        (1, json!([])),
    ] {
        app.advance(secs);
        assert_eq!(listed(&app).await, left);
    }
}

#[tokio::test]
async fn expired_messages_in_front_do_not_hide_those_behind() {
    // Q-MSG-5 and Q-CLM-5
    let app = App::new();
    let messages: Vec<_> = (0..9000)
        .map(|_| json!({"body": "gone", "ttl": 60}))
        .collect();
    post(&app, json!(messages)).await;
    post_bodies(&app, ["there"]).await;
    app.advance(60);
    assert_eq!(listed(&app).await, json!(["there"]));
    assert_eq!(counts(&app, "fizbat").await, [0, 1, 1]);
    let mut claim = app.post(CLAIMS, ()).await;
    // A broker that can only lease delivers what is in front, for a second in each call.
    let begun = Instant::now();
    while claim.status == 204 && crate::api::store::leases() && begun.elapsed() < TIMEOUT {
        claim = app.post(CLAIMS, ()).await;
    }
    assert_eq!(bodies(&claim), json!(["there"]));
}

#[tokio::test]
async fn an_expired_message_is_not_claimed_again_after_a_claim_that_extended_nothing() {
    // Q-CLM-9
    let app = App::new();
    post(&app, json!([{"body": 1, "ttl": 200}])).await;
    let claim = claim_id(&app.post(CLAIMS, json!({"ttl": 60, "grace": 60})).await);
    app.advance(50);
    app.delete(&format!("{CLAIMS}/{claim}"))
        .await
        .assert_status(204);
    app.advance(149);
    assert_eq!(listed(&app).await, json!([1]));
    app.advance(1);
    no_content("expired", &app.post(CLAIMS, ()).await);
}
