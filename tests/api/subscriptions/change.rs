//! Changing and deleting subscriptions (spec: subscriptions.md 5).

use serde_json::json;

use super::{HOOK, SUBSCRIPTIONS, faults, hook, show, subscribe};
use crate::api::support::App;

#[tokio::test]
async fn update_subscription_changes_only_the_given_fields() {
    let app = App::new();
    let id = subscribe(
        &app,
        json!({"subscriber": HOOK, "ttl": 600, "options": {"a": 1}}),
    )
    .await;
    let path = format!("{SUBSCRIPTIONS}/{id}");
    app.advance(100);
    for (change, expected) in [
        (
            json!({"options": {"b": 2}, "x": 1}),
            json!([HOOK, 600, 100, {"b": 2}]),
        ),
        (json!({"options": []}), json!([HOOK, 600, 100, {}])),
        (
            json!({"subscriber": "http://y.example/", "ttl": null}),
            json!(["http://y.example/", 600, 100, {}]),
        ),
        (json!({"ttl": 90}), json!(["http://y.example/", 90, 0, {}])),
    ] {
        let answer = app.patch(&path, &change).await;
        answer.assert_is(204, "");
        assert_eq!(answer.header("location"), Some(path.as_str()));
        let shown = show(&app, &id).await;
        let found = json!([
            shown["subscriber"],
            shown["ttl"],
            shown["age"],
            shown["options"]
        ]);
        assert_eq!(found, expected, "{change}");
    }
    app.advance(90);
    app.get(&path).await.assert_status(404);
}

#[tokio::test]
async fn faulty_values_are_refused() {
    let app = App::new();
    let id = hook(&app).await;
    let path = format!("{SUBSCRIPTIONS}/{id}");
    for (change, sentence) in faults() {
        app.patch(&path, &change)
            .await
            .assert_refused(400, "Invalid API request", sentence);
    }
    app.patch(&path, json!({"subscriber": ""}))
        .await
        .assert_status(400);
    app.patch(&path, json!({"subscriber": 5}))
        .await
        .assert_status(400);
    assert_eq!(show(&app, &id).await["subscriber"], HOOK);
}

#[tokio::test]
async fn a_change_has_to_change_something_that_can_be_changed() {
    let app = App::new();
    let id = hook(&app).await;
    let path = format!("{SUBSCRIPTIONS}/{id}");
    let nothing = "No subscription to create.";
    app.patch(&path, ())
        .await
        .assert_refused(400, "Invalid API request", nothing);
    for text in ["", "{}", "[]"] {
        app.patch(&path, text)
            .await
            .assert_refused(400, "Invalid API request", nothing);
    }
    let unable = format!("Subscription {id} could not be updated.");
    for change in [
        json!({"x": 1}),
        json!({"ttl": null, "options": null, "subscriber": null}),
        json!({"ttl": 60, "queue": "q"}),
        json!({"ttl": 60, "project": "p"}),
        json!({"ttl": 60, "subscription_id": "1"}),
    ] {
        app.patch(&path, change).await.assert_refused(
            400,
            "Unable to update subscription",
            &unable,
        );
    }
    app.patch(&path, "[1]").await.assert_refused(
        400,
        "Invalid API request",
        "Subscriptions must be a dict.",
    );
    app.patch(&path, "1").await.assert_refused(
        400,
        "Invalid request body",
        "Request body could not be parsed.",
    );
}

#[tokio::test]
async fn updating_a_missing_subscription_is_refused() {
    let app = App::new();
    let id = hook(&app).await;
    for (path, id) in [
        (format!("{SUBSCRIPTIONS}/nope"), "nope"),
        (format!("/v2/queues/other/subscriptions/{id}"), id.as_str()),
    ] {
        let missing = format!("Subscription {id} does not exist");
        app.patch(&path, json!({"ttl": 60}))
            .await
            .assert_refused(404, "Not found", &missing);
    }
}

#[tokio::test]
async fn two_subscriptions_cannot_have_one_subscriber() {
    let app = App::new();
    hook(&app).await;
    let other = subscribe(&app, json!({"subscriber": "http://y.example/"})).await;
    let path = format!("{SUBSCRIPTIONS}/{other}");
    app.patch(&path, json!({"subscriber": HOOK})).await.assert_refused(
        409,
        "Resource conflict",
        "Such subscription already exists. Subscriptions are unique by project + queue + subscriber URI.",
    );
    app.patch(&path, json!({"subscriber": "http://y.example/"}))
        .await
        .assert_status(204);
}

#[tokio::test]
async fn another_subscriber_has_not_agreed() {
    let app = App::new();
    let id = hook(&app).await;
    let path = format!("{SUBSCRIPTIONS}/{id}");
    app.put(&format!("{path}/confirm"), json!({"confirmed": true}))
        .await
        .assert_status(204);
    app.patch(&path, json!({"subscriber": HOOK, "ttl": 60}))
        .await
        .assert_status(204);
    assert_eq!(show(&app, &id).await["confirmed"], true);
    app.patch(&path, json!({"subscriber": "http://y.example/"}))
        .await
        .assert_status(204);
    assert_eq!(show(&app, &id).await["confirmed"], false);
}

#[tokio::test]
async fn deleting_is_done_also_where_there_is_nothing() {
    let app = App::new();
    let id = hook(&app).await;
    let path = format!("{SUBSCRIPTIONS}/{id}");
    app.delete(&format!("/v2/queues/other/subscriptions/{id}"))
        .await
        .assert_is(204, "");
    app.get(&path).await.assert_status(200);
    app.delete(&path).await.assert_is(204, "");
    app.get(&path).await.assert_status(404);
    app.delete(&path).await.assert_is(204, "");
    app.delete(&format!("{SUBSCRIPTIONS}/nope"))
        .await
        .assert_is(204, "");
    assert_ne!(hook(&app).await, id);
}
