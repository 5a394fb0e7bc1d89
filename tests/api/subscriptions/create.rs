//! Subscribing (spec: subscriptions.md 4).

use serde_json::{Value, json};

use super::{HOOK, SUBSCRIPTIONS, created, faults, hook, show, subscribe};
use crate::api::support::App;

#[tokio::test]
async fn a_subscription_is_made_and_so_is_its_queue() {
    let app = App::new();
    let document = json!({"subscriber": HOOK, "ttl": 600, "options": {"post_headers": {"X-Foo": "bar"}}, "x": 1});
    let answer = app.post(SUBSCRIPTIONS, document).await;
    let id = created(&answer);
    assert_eq!(answer.header("location"), Some(SUBSCRIPTIONS));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    app.advance(5);
    app.get(&format!("{SUBSCRIPTIONS}/{id}")).await.assert_is(
        200,
        &format!(
            "{{\"id\": \"{id}\", \"source\": \"sq\", \"subscriber\": \"{HOOK}\", \"ttl\": 600, \"age\": 5, \"options\": \
             {{\"post_headers\": {{\"X-Foo\": \"bar\"}}}}, \"confirmed\": false}}"
        ),
    );
    let queues = app.get("/v2/queues").await.json();
    assert_eq!(queues["queues"][0]["name"], "sq");
}

#[tokio::test]
async fn what_is_left_out_takes_defaults() {
    let app = App::new();
    let id = hook(&app).await;
    let shown = show(&app, &id).await;
    assert_eq!(
        (&shown["ttl"], &shown["options"]),
        (&json!(3600), &json!({}))
    );
    for options in [json!(null), json!([]), json!({}), json!(""), json!(0)] {
        let subscriber = format!("http://x.example/{options}");
        let id = subscribe(&app, json!({"subscriber": subscriber, "options": options})).await;
        assert_eq!(show(&app, &id).await["options"], json!({}), "{options}");
    }
    let app = App::with("[limits]\ndefault_subscription_ttl = 120");
    let id = hook(&app).await;
    assert_eq!(show(&app, &id).await["ttl"], 120);
}

#[tokio::test]
async fn the_bounds_of_a_life_are_the_last_moment_and_a_minute() {
    let app = App::new();
    for ttl in [60_i64, 251_635_075_199] {
        let subscriber = format!("http://x.example/{ttl}");
        let id = subscribe(&app, json!({"subscriber": subscriber, "ttl": ttl})).await;
        assert_eq!(show(&app, &id).await["ttl"], ttl);
    }
}

#[tokio::test]
async fn schemes_are_compared_in_lower_case_and_addresses_as_given() {
    let app = App::new();
    for subscriber in [
        "http://x.example/",
        "HTTP://x.example/",
        "HTTPS://x.example",
        "mailto:a@x.example",
        "MAILTO:a@x.example",
        "http:",
        "https://",
        "http://8.8.8.8/",
    ] {
        let id = subscribe(&app, json!({"subscriber": subscriber})).await;
        assert_eq!(show(&app, &id).await["subscriber"], subscriber);
    }
}

#[tokio::test]
async fn creating_an_existing_subscription_leaves_it_unchanged() {
    let app = App::new();
    let id = hook(&app).await;
    let again = json!({"subscriber": HOOK, "ttl": 60, "options": {"a": 1}});
    assert_eq!(subscribe(&app, again.clone()).await, id);
    let shown = show(&app, &id).await;
    assert_eq!(
        (&shown["ttl"], &shown["options"]),
        (&json!(3600), &json!({}))
    );
    let elsewhere = created(
        &app.post("/v2/queues/other/subscriptions", again.clone())
            .await,
    );
    assert_ne!(elsewhere, id);
    let theirs = created(&app.project("theirs").post(SUBSCRIPTIONS, again).await);
    assert_ne!(theirs, id);
}

#[tokio::test]
async fn creating_a_confirmed_subscription_again_is_a_conflict() {
    let app = App::new();
    let id = hook(&app).await;
    app.put(
        &format!("{SUBSCRIPTIONS}/{id}/confirm"),
        json!({"confirmed": true}),
    )
    .await
    .assert_status(204);
    let refused = app.post(SUBSCRIPTIONS, json!({"subscriber": HOOK})).await;
    refused.assert_refused(
        409,
        "Resource conflict",
        "Such subscription already exists.Subscriptions are unique by project + queue + subscriber URI.",
    );
    assert_eq!(refused.header("location"), Some(SUBSCRIPTIONS));
}

#[tokio::test]
async fn one_that_has_expired_is_not_in_the_way() {
    let app = App::new();
    let id = subscribe(&app, json!({"subscriber": HOOK, "ttl": 60})).await;
    app.put(
        &format!("{SUBSCRIPTIONS}/{id}/confirm"),
        json!({"confirmed": true}),
    )
    .await;
    app.advance(60);
    assert_ne!(hook(&app).await, id);
}

#[tokio::test]
async fn a_subscriber_is_required() {
    let app = App::new();
    let missing = "Missing parameter subscriber in body.";
    for document in [
        json!({}),
        json!([]),
        json!([1]),
        json!({"ttl": 60}),
        json!({"subscriber": null}),
        json!({"subscriber": ""}),
        json!({"subscriber": 5}),
    ] {
        app.post(SUBSCRIPTIONS, document)
            .await
            .assert_refused(400, "Invalid API request", missing);
    }
    app.post(SUBSCRIPTIONS, ())
        .await
        .assert_refused(400, "Invalid API request", missing);
    app.post(SUBSCRIPTIONS, "")
        .await
        .assert_refused(400, "Invalid API request", missing);
    let unparsable = "Request body could not be parsed.";
    app.post(SUBSCRIPTIONS, "{")
        .await
        .assert_refused(400, "Invalid request body", unparsable);
}

#[tokio::test]
async fn faulty_values_are_refused_and_make_no_queue() {
    let app = App::new();
    for (mut document, sentence) in faults() {
        let fields = document.as_object_mut().expect("an object");
        fields.entry("subscriber").or_insert(Value::from(HOOK));
        let answer = app.post(SUBSCRIPTIONS, &document).await;
        answer.assert_refused(400, "Invalid API request", sentence);
    }
    let null = json!({"subscriber": HOOK, "ttl": null});
    app.post(SUBSCRIPTIONS, null).await.assert_refused(
        400,
        "Invalid API request",
        "TTL must be an integer.",
    );
    assert_eq!(app.get("/v2/queues").await.json()["queues"], json!([]));
}

#[tokio::test]
async fn an_operator_says_which_subscribers_there_may_be() {
    let app = App::with(
        "[notifications]\nsubscriber_types = ['https']\nallowed_networks = ['127.0.0.0/8']",
    );
    let sentence = "The subscriber type of subscription must be supported in the list ['https'].";
    let plain = json!({"subscriber": "http://x.example/"});
    app.post(SUBSCRIPTIONS, plain)
        .await
        .assert_refused(400, "Invalid API request", sentence);
    subscribe(&app, json!({"subscriber": "https://127.0.0.1/"})).await;
}
