//! Delayed messages (spec: messages.md 10).

use serde_json::{Value, json};

use super::{CLAIMS, MESSAGES, QUEUE, bodies, counts, create, listed, no_content, post, reader};
use crate::api::store::placed;
use crate::api::support::App;

/// A service with a queue that delays its messages by a minute.
async fn delaying() -> App {
    let app = App::new();
    create(&app, json!({"_default_message_delay": 60})).await;
    app
}

/// What a claim of a minute gets; it is released at once.
async fn claimable(app: &App) -> Value {
    let answer = app.post(CLAIMS, json!({"ttl": 60})).await;
    if answer.status == 204 {
        return json!([]);
    }
    let claim = super::claim_id(&answer);
    app.delete(&format!("{CLAIMS}/{claim}"))
        .await
        .assert_status(204);
    bodies(&answer)
}

#[tokio::test]
async fn a_delayed_message_is_claimed_only_after_its_delay() {
    let app = delaying().await;
    post(&app, json!([{"body": 1}])).await;
    app.advance(59);
    no_content("early", &app.post(CLAIMS, ()).await);
    app.advance(1);
    assert_eq!(claimable(&app).await, json!([1]));
}

#[tokio::test]
async fn a_delayed_message_is_listed_only_when_asked_for() {
    let app = delaying().await;
    post(&app, json!([{"body": 1}])).await;
    let reader = reader(&app);
    let all = format!("{MESSAGES}?include_delayed=true");
    assert_eq!(listed(&app).await, json!([]));
    let answer = reader
        .get(&format!("{MESSAGES}?include_delayed=false"))
        .await;
    assert_eq!(bodies(&answer), json!([]));
    assert_eq!(bodies(&reader.get(&all).await), json!([1]));
    app.advance(60);
    assert_eq!(listed(&app).await, json!([1]));
    assert_eq!(bodies(&reader.get(&all).await), json!([1]));
}

#[tokio::test]
async fn delayed_and_claimed_messages_are_asked_for_one_by_one() {
    let app = delaying().await;
    post(
        &app,
        json!([{"body": "delayed"}, {"body": "claimed", "delay": 0}, {"body": "free", "delay": 0}]),
    )
    .await;
    super::claim(&app, 1).await;
    for (query, expected) in [
        ("", json!(["free"])),
        ("?include_claimed=true", json!(["claimed", "free"])),
        ("?include_delayed=true", json!(["delayed", "free"])),
        (
            "?include_claimed=true&include_delayed=true",
            json!(["delayed", "claimed", "free"]),
        ),
    ] {
        let answer = reader(&app).get(&format!("{MESSAGES}{query}")).await;
        assert_eq!(bodies(&answer), expected, "{query}");
    }
}

#[tokio::test]
async fn a_delayed_message_can_be_read_by_id() {
    let app = delaying().await;
    let id = &post(&app, json!([{"body": 1}])).await[0];
    let message = super::message(id, 3600, 0, "1");
    app.get(&format!("{MESSAGES}/{id}"))
        .await
        .assert_is(200, &message);
    app.get(&format!("{MESSAGES}?ids={id}"))
        .await
        .assert_is(200, &format!("{{\"messages\": [{message}]}}"));
}

#[tokio::test]
async fn a_delayed_message_can_be_deleted() {
    let app = delaying().await;
    let ids = post(&app, json!([{"body": 1}, {"body": 2}])).await;
    no_content("one", &app.delete(&format!("{MESSAGES}/{}", ids[0])).await);
    let several = format!("{MESSAGES}?ids={}", ids[1]);
    no_content("several", &app.delete(&several).await);
    assert_eq!(counts(&app, "fizbat").await, [0, 0, 0]);
}

#[tokio::test]
async fn a_delayed_message_counts_as_free() {
    let app = delaying().await;
    post(&app, json!([{"body": 1}, {"body": 2, "delay": 0}])).await;
    assert_eq!(counts(&app, "fizbat").await, [0, 2, 2]);
    app.advance(60);
    assert_eq!(counts(&app, "fizbat").await, [0, 2, 2]);
}

#[tokio::test]
async fn a_message_may_have_a_delay_of_its_own() {
    let app = delaying().await;
    post(
        &app,
        json!([
            {"body": "longest", "delay": 900},
            {"body": "queue's"},
            {"body": "shorter", "delay": 1},
            {"body": "none", "delay": 0},
        ]),
    )
    .await;
    for (secs, expected) in [
        (0, json!(["none"])),
        (1, json!(["shorter", "none"])),
        (58, json!(["shorter", "none"])),
        (1, json!(["queue's", "shorter", "none"])),
        (839, json!(["queue's", "shorter", "none"])),
        (1, json!(["longest", "queue's", "shorter", "none"])),
    ] {
        app.advance(secs);
        assert_eq!(placed(&claimable(&app).await), placed(&expected));
        assert_eq!(listed(&app).await, expected);
    }
}

#[tokio::test]
async fn a_message_lives_from_its_post_and_not_from_the_end_of_its_delay() {
    let app = delaying().await;
    let id = &post(&app, json!([{"body": 1, "ttl": 100}])).await[0];
    app.advance(99);
    app.get(&format!("{MESSAGES}/{id}"))
        .await
        .assert_is(200, &super::message(id, 100, 99, "1"));
    app.advance(1);
    no_content("expired", &app.post(CLAIMS, ()).await);
}

#[tokio::test]
async fn a_message_may_expire_in_its_delay() {
    let app = delaying().await;
    post(&app, json!([{"body": 1, "ttl": 60, "delay": 900}])).await;
    app.advance(60);
    assert_eq!(counts(&app, "fizbat").await, [0, 0, 0]);
    app.advance(840);
    no_content("expired", &app.post(CLAIMS, ()).await);
}

#[tokio::test]
async fn a_delayed_message_behind_a_claimable_one_is_not_claimed_early() {
    // Q-CLM-1
    let app = delaying().await;
    post(
        &app,
        json!([{"body": 1, "delay": 0}, {"body": 2, "delay": 600}, {"body": 3, "delay": 0}]),
    )
    .await;
    assert_eq!(claimable(&app).await, json!([1, 3]));
}

#[tokio::test]
async fn a_delay_of_the_queue_holds_for_what_is_posted_from_then_on() {
    let app = App::new();
    post(&app, json!([{"body": "before"}])).await;
    let delay =
        |value| json!([{"op": "add", "path": "/metadata/_default_message_delay", "value": value}]);
    app.patch(QUEUE, delay(60)).await.assert_status(200);
    post(&app, json!([{"body": "while"}])).await;
    assert_eq!(listed(&app).await, json!(["before"]));
    assert_eq!(claimable(&app).await, json!(["before"]));

    app.patch(QUEUE, delay(0)).await.assert_status(200);
    post(&app, json!([{"body": "after", "delay": 600}])).await;
    // Q-MSG-7: such a queue lists its delayed messages unasked.
    assert_eq!(listed(&app).await, json!(["before", "while", "after"]));
    assert_eq!(claimable(&app).await, json!(["before", "after"]));
    app.advance(60);
    let all = json!(["before", "while", "after"]);
    assert_eq!(placed(&claimable(&app).await), placed(&all));
}

#[tokio::test]
async fn the_delay_that_the_service_shows_delays_nothing() {
    let app = App::with("[limits]\ndefault_message_delay = 60\n");
    post(&app, json!([{"body": 1}])).await;
    assert_eq!(claimable(&app).await, json!([1]));
}
