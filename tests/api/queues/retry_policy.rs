//! What a queue's retry policy may be (spec: queues.md 1.1).

use serde_json::{Value, json};

use crate::api::support::App;

async fn assert_refused(app: &App, policy: &Value, sentence: &str) {
    app.put("/v2/queues/new", json!({"_retry_policy": policy}))
        .await
        .assert_refused(400, "Invalid API request", sentence);
    let change = json!([{"op": "add", "path": "/metadata/_retry_policy", "value": policy}]);
    app.patch("/v2/queues/old", change)
        .await
        .assert_refused(400, "Invalid request body", sentence);
}

async fn assert_taken(app: &App, policy: &Value) {
    app.delete("/v2/queues/new").await;
    let created = app
        .put("/v2/queues/new", json!({"_retry_policy": policy}))
        .await;
    assert_eq!(created.status, 201, "{policy}: {}", created.text());
    assert_eq!(
        &app.get("/v2/queues/new").await.json()["_retry_policy"],
        policy
    );
}

async fn app_with_an_old_queue() -> App {
    let app = App::new();
    app.put("/v2/queues/old", ()).await.assert_status(201);
    app
}

#[tokio::test]
async fn a_retry_policy_is_an_object() {
    let app = app_with_an_old_queue().await;
    for wrong in [json!("x"), json!(1), json!(true), json!([1])] {
        assert_refused(&app, &wrong, "retry_policy must be a dict.").await;
    }
    for right in [
        Value::Null,
        json!({}),
        json!([]),
        json!(""),
        json!(0),
        json!(false),
    ] {
        assert_taken(&app, &right).await;
    }
}

#[tokio::test]
async fn retry_policy_numbers_must_be_integers() {
    let app = app_with_an_old_queue().await;
    for key in [
        "retries_with_no_delay",
        "minimum_delay_retries",
        "minimum_delay",
        "maximum_delay",
        "maximum_delay_retries",
    ] {
        for wrong in [json!("3"), json!(1.5), json!([1]), json!({"a": 1})] {
            let sentence = format!("Retry policy: {key} must be a integer.");
            assert_refused(&app, &json!({key: wrong}), &sentence).await;
        }
    }
    let sentence = "Retry policy: minimum_delay must be a integer.";
    assert_refused(&app, &json!({"minimum_delay": Value::Null}), sentence).await;
}

#[tokio::test]
async fn negative_numbers_and_zero_pass() {
    let app = app_with_an_old_queue().await;
    for right in [
        json!({"retries_with_no_delay": 0}),
        json!({"retries_with_no_delay": -3}),
        json!({"minimum_delay_retries": -1, "maximum_delay_retries": 0}),
        json!({"minimum_delay": -5}),
        json!({"minimum_delay": 0, "maximum_delay": 10}),
    ] {
        assert_taken(&app, &right).await;
    }
}

#[tokio::test]
async fn retry_policy_function_must_be_one_of_four() {
    let app = app_with_an_old_queue().await;
    for right in ["linear", "arithmetic", "geometric", "exponential", ""] {
        assert_taken(&app, &json!({"retry_backoff_function": right})).await;
    }
    for wrong in ["Linear", "cubic"] {
        let sentence = "invalid retry_backoff_function.";
        assert_refused(&app, &json!({"retry_backoff_function": wrong}), sentence).await;
    }
    for wrong in [json!(1), json!(["linear"]), json!(true)] {
        let sentence = "retry_backoff_function must be a string.";
        assert_refused(&app, &json!({"retry_backoff_function": wrong}), sentence).await;
    }
}

#[tokio::test]
async fn subscriptions_may_override_it_or_not() {
    let app = app_with_an_old_queue().await;
    for right in [json!(true), json!(false), json!(0)] {
        assert_taken(&app, &json!({"ignore_subscription_override": right})).await;
    }
    for wrong in [json!("true"), json!(1)] {
        let sentence = "ignore_subscription_override must be a boolean.";
        assert_refused(
            &app,
            &json!({"ignore_subscription_override": wrong}),
            sentence,
        )
        .await;
    }
}

#[tokio::test]
async fn its_delays_are_ten_seconds_apart_at_least() {
    let app = app_with_an_old_queue().await;
    for (policy, sentence) in [
        (
            json!({"minimum_delay": 31}),
            "minimum_delay must less than maximum_delay.",
        ),
        (
            json!({"maximum_delay": 4}),
            "minimum_delay must less than maximum_delay.",
        ),
        (
            json!({"minimum_delay": 40, "maximum_delay": 39}),
            "minimum_delay must less than maximum_delay.",
        ),
        (
            json!({"minimum_delay": 21}),
            "invalid minimum_delay and maximum_delay.",
        ),
        (
            json!({"minimum_delay": 30}),
            "invalid minimum_delay and maximum_delay.",
        ),
        (
            json!({"maximum_delay": 14}),
            "invalid minimum_delay and maximum_delay.",
        ),
    ] {
        assert_refused(&app, &policy, sentence).await;
    }
    for right in [
        json!({"minimum_delay": 20}),
        json!({"maximum_delay": 15}),
        json!({"minimum_delay": 100, "maximum_delay": 110}),
    ] {
        assert_taken(&app, &right).await;
    }
}

#[tokio::test]
async fn its_faults_are_reported_in_a_fixed_order() {
    let app = app_with_an_old_queue().await;
    let mut policy = json!({
        "minimum_delay": 21,
        "ignore_subscription_override": "x",
        "retry_backoff_function": "x",
        "retries_with_no_delay": "x",
    });
    for (key, sentence) in [
        (
            "retries_with_no_delay",
            "Retry policy: retries_with_no_delay must be a integer.",
        ),
        ("retry_backoff_function", "invalid retry_backoff_function."),
        (
            "ignore_subscription_override",
            "ignore_subscription_override must be a boolean.",
        ),
        ("minimum_delay", "invalid minimum_delay and maximum_delay."),
    ] {
        assert_refused(&app, &policy, sentence).await;
        policy.as_object_mut().expect("an object").remove(key);
    }
}

#[tokio::test]
async fn unknown_retry_policy_keys_are_kept() {
    let app = app_with_an_old_queue().await;
    assert_taken(&app, &json!({"note": "mine", "minimum_delay": 6})).await;
}
