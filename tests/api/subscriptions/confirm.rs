//! Whether a receiver agrees (spec: subscriptions.md 6.2). What it is asked is looked at in `tests/notifications`.

use serde_json::{Value, json};

use super::{HOOK, SUBSCRIPTIONS, hook, show};
use crate::api::support::App;

#[tokio::test]
async fn a_receiver_agrees_and_leaves() {
    let app = App::new();
    let id = hook(&app).await;
    let path = format!("{SUBSCRIPTIONS}/{id}/confirm");
    for confirmed in [true, true, false, true] {
        let answer = app
            .put(&path, json!({"confirmed": confirmed, "x": 1}))
            .await;
        answer.assert_is(204, "");
        assert_eq!(answer.header("location"), Some(path.as_str()));
        assert_eq!(show(&app, &id).await["confirmed"], confirmed);
    }
}

#[tokio::test]
async fn confirmed_must_be_a_boolean() {
    let app = App::new();
    let id = hook(&app).await;
    let path = format!("{SUBSCRIPTIONS}/{id}/confirm");
    let sentence = "The 'confirmed' should be boolean.";
    for document in [
        json!({}),
        json!({"confirmed": "true"}),
        json!({"confirmed": 1}),
        json!({"confirmed": null}),
    ] {
        app.put(&path, document)
            .await
            .assert_refused(400, "Invalid API request", sentence);
    }
    app.put(&path, ())
        .await
        .assert_refused(400, "Invalid API request", sentence);
    app.put(&path, "")
        .await
        .assert_refused(400, "Invalid API request", sentence);
    let unable = format!("Subscription {id} could not be confirmed.");
    app.put(&path, "[]")
        .await
        .assert_refused(400, "Unable to confirm subscription", &unable);
    app.post(&path, json!({"confirmed": true}))
        .await
        .assert_status(405);
}

#[tokio::test]
async fn confirming_a_missing_subscription_is_refused() {
    let app = App::new();
    let id = hook(&app).await;
    for (path, id) in [
        (format!("{SUBSCRIPTIONS}/nope/confirm"), "nope"),
        (
            format!("/v2/queues/other/subscriptions/{id}/confirm"),
            id.as_str(),
        ),
    ] {
        let missing = format!("Subscription {id} does not exist");
        app.put(&path, json!({"confirmed": true}))
            .await
            .assert_refused(404, "Not found", &missing);
    }
}

/// What a service has that asks receivers.
const ASKING: &str = "[notifications]\nrequire_confirmation = true\n[signed_url]\nsecret_key = 'k'";

/// The service as one calls it who has signed access to a part of the queue.
async fn bearer(app: &App, paths: Value) -> App {
    let document = json!({"paths": paths, "methods": ["PUT"]});
    let shared = app.post("/v2/queues/sq/share", document).await.json();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    app.header("URL-Signature", text(&shared["signature"]))
        .header("URL-Expires", text(&shared["expires"]))
        .header("URL-Methods", "PUT")
        .header("URL-Paths", text(&shared["paths"][0]))
}

#[tokio::test]
async fn a_tenant_cannot_agree_for_its_receiver() {
    let app = App::with(ASKING);
    let id = hook(&app).await;
    let path = format!("{SUBSCRIPTIONS}/{id}/confirm");
    let agree = json!({"confirmed": true});
    let refusal = "You are not authorized to complete this action.";
    app.put(&path, &agree)
        .await
        .assert_refused(403, "Not authorized", refusal);
    // Not with a signature of its own making either, whatever roles come with it.
    let bearer = bearer(&app, json!(["subscriptions"]))
        .await
        .header("X-Roles", "admin");
    bearer
        .put(&path, &agree)
        .await
        .assert_refused(403, "Not authorized", refusal);
    assert_eq!(show(&app, &id).await["confirmed"], false);
    // It may end what it began, and an operator may do both.
    app.put(&path, json!({"confirmed": false}))
        .await
        .assert_status(204);
    app.header("X-Roles", "admin")
        .put(&path, &agree)
        .await
        .assert_status(204);
    assert_eq!(show(&app, &id).await["confirmed"], true);
}

#[tokio::test]
async fn without_a_key_receivers_are_not_asked_and_anybody_agrees() {
    let app = App::with("[notifications]\nrequire_confirmation = true");
    let id = hook(&app).await;
    let path = format!("{SUBSCRIPTIONS}/{id}/confirm");
    app.put(&path, json!({"confirmed": true}))
        .await
        .assert_status(204);
    let again = app.post(SUBSCRIPTIONS, json!({"subscriber": HOOK})).await;
    again.assert_status(409);
}
