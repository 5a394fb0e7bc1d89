//! Health (spec: http.md 14).

use serde_json::{Value, json};

use crate::api::store;
use crate::api::support::App;

const OPERATIONS: [&str; 8] = [
    "create_queue",
    "post_messages",
    "claim_messages",
    "list_messages",
    "delete_messages",
    "delete_claim",
    "bulk_delete_messages",
    "delete_queue",
];

/// That a store was found to do all it should.
#[track_caller]
fn is_well(check: &Value) {
    assert_eq!(check["storage_reachable"], true, "{check}");
    let status = check["operation_status"].as_object().expect("operations");
    let names: Vec<&str> = status.keys().map(String::as_str).collect();
    assert_eq!(names, OPERATIONS);
    for (name, operation) in status {
        assert_eq!(operation["succeeded"], true, "{name}: {operation}");
        assert!(
            operation["seconds"]
                .as_f64()
                .is_some_and(|secs| (0.0..5.0).contains(&secs)),
            "{name}: {operation}"
        );
        assert_eq!(operation["ref"], Value::Null, "{name}");
        assert_eq!(operation.as_object().expect("an object").len(), 3);
    }
}

#[tokio::test]
async fn without_pools_there_is_one_store() {
    let app = App::new().admin();
    let answer = app.get("/v2/health").await;
    answer.assert_status(200);
    let document = answer.json();
    assert_eq!(document.as_object().expect("an object").len(), 2);
    is_well(&document);
}

#[tokio::test]
async fn health_reports_each_pool() {
    let app = App::new().admin();
    app.pool("a", 1).await;
    app.pool("b%20c", 1).await;
    let document = app.get("/v2/health").await.json();
    let keys: Vec<&String> = document.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["catalog_reachable", "default", "a", "b c"]);
    assert_eq!(document["catalog_reachable"], true);
    for name in ["default", "a", "b c"] {
        is_well(&document[name]);
    }
}

#[tokio::test]
async fn health_check_leaves_nothing_behind() {
    let store = store::Kept::new();
    let app = App::open(&store.uri, "").admin();
    for _ in 0..3 {
        is_well(&app.get("/v2/health").await.json());
    }
    app.get("/v2/queues")
        .await
        .assert_is(200, r#"{"queues": [], "links": []}"#);
}

#[tokio::test]
async fn a_pool_that_is_down_is_shown_and_the_others_are_served() {
    let Some(redis) = store::redis() else {
        return;
    };
    let app = App::new().admin();
    let uri = redis.uri("health:").replace("5000", "200");
    app.put("/v2/pools/far", json!({"uri": uri, "weight": 1}))
        .await
        .assert_status(201);
    is_well(&app.get("/v2/health").await.json()["far"]);
    app.post_bodies("q", [json!(1)]).await;
    redis.get(0).kill();
    let answer = app.get("/v2/health").await;
    answer.assert_status(200);
    let document = answer.json();
    is_well(&document["default"]);
    let far = &document["far"];
    assert_eq!(far["storage_reachable"], false);
    let status = far["operation_status"].as_object().expect("operations");
    assert_eq!(status.len(), 1, "{far}");
    assert_eq!(status["create_queue"]["succeeded"], false);
    let reference = status["create_queue"]["ref"].as_str().expect("a reference");
    assert!(uuid::Uuid::try_parse(reference).is_ok(), "{reference}");
    // The default store answers, so the service does.
    app.get("/v2/ping").await.assert_status(204);
    let answer = app.post("/v2/queues/q/claims", ()).await;
    answer.assert_status(503);
    assert_eq!(answer.header("retry-after"), Some("2"));
}
