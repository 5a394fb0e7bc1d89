//! Changes of a pool, which hold at once.

use serde_json::{Value, json};

use crate::store;
use crate::support::App;

const NOTHING: &str = "One of `uri`, `weight`, `flavor`, or `options` needs to be specified";

#[tokio::test]
async fn each_key_is_changed_by_itself() {
    let app = App::new().admin();
    let uri = app.pool("p", 10).await;
    let shown = |weight: u32, flavor: &str| {
        format!(
            r#"{{"name": "p", "uri": "{}", "weight": {weight}, "flavor": {flavor}, "href": "/v2/pools/p"}}"#,
            store::shown(&uri)
        )
    };
    let path = "/v2/pools/p";
    let change = async |body: Value| app.patch(path, body).await;
    change(json!({"weight": 0}))
        .await
        .assert_is(200, &shown(0, "null"));
    change(json!({"flavor": "f"}))
        .await
        .assert_is(200, &shown(0, "\"f\""));
    change(json!({"uri": uri, "weight": 7}))
        .await
        .assert_is(200, &shown(7, "\"f\""));
    change(json!({"flavor": ""}))
        .await
        .assert_is(200, &shown(7, "null"));
    // Keys that are not known are passed over, beside one that is.
    change(json!({"weight": 8, "additionalProperties": 1}))
        .await
        .assert_is(200, &shown(8, "null"));
    app.get(path).await.assert_is(200, &shown(8, "null"));
}

#[tokio::test]
async fn options_are_replaced() {
    let app = App::new().admin();
    let body = json!({"uri": "sqlite::memory:", "weight": 1, "options": {"cache_mib": 8}});
    app.put("/v2/pools/p", body).await.assert_status(201);
    app.patch("/v2/pools/p", json!({"options": {"synchronous": "normal"}}))
        .await
        .assert_status(200);
    let shown = app.get("/v2/pools/p?detailed=1").await.json();
    assert_eq!(shown["options"], json!({"synchronous": "normal"}));
}

#[tokio::test]
async fn a_change_must_change_something() {
    let app = App::new().admin();
    app.pool("p", 10).await;
    for body in [json!({}), json!([]), json!({"x": 1}), json!(["uri"])] {
        app.patch("/v2/pools/p", &body)
            .await
            .assert_refused(400, "Invalid request body", NOTHING);
    }
}

#[tokio::test]
async fn what_is_wrong_changes_nothing() {
    let app = App::new().admin();
    app.pool("p", 10).await;
    let before = app.get("/v2/pools/p?detailed=true").await.json();
    for body in [
        json!({"weight": null}),
        json!({"weight": -1}),
        json!({"weight": true}),
        json!({"uri": null}),
        json!({"uri": 1}),
        json!({"flavor": null}),
        json!({"options": null}),
        json!({"weight": 3, "uri": "redis://127.0.0.1:1"}),
        json!({"weight": 3, "uri": "kafka://h"}),
        // Each driver knows one of the two.
        json!({"weight": 3, "options": {"readers": "many", "timeout_ms": "many"}}),
    ] {
        app.patch("/v2/pools/p", &body).await.assert_status(400);
        assert_eq!(
            app.get("/v2/pools/p?detailed=true").await.json(),
            before,
            "{body}"
        );
    }
    app.patch("/v2/pools/p", json!({"uri": "redis://127.0.0.1:1"}))
        .await
        .assert_refused(
            400,
            "Invalid request body",
            "cannot connect to redis://127.0.0.1:1",
        );
}

#[tokio::test]
async fn another_uri_takes_effect_at_once() {
    let (here, there) = (store::Kept::new(), store::Kept::new());
    let app = App::with("[pooling]\nsqlite_folder = '/'").admin();
    app.put("/v2/pools/p", json!({"uri": here.uri, "weight": 1}))
        .await
        .assert_status(201);
    let total = async || app.get("/v2/queues/q/stats").await.json()["messages"]["total"].clone();
    app.post_bodies("q", [json!(1), json!(2)]).await;
    for (uri, count, status) in [(&there.uri, 0, 204), (&here.uri, 2, 201)] {
        app.patch("/v2/pools/p", json!({"uri": uri}))
            .await
            .assert_status(200);
        // A ledger is the pool's, wherever its messages are.
        if !store::leases() {
            assert_eq!(total().await, count, "{uri}");
        }
        let claim = app.post("/v2/queues/q/claims", ()).await;
        claim.assert_status(status);
    }
    assert_eq!(total().await, 2);
    // Nor does a change of what a store is opened with lose anything.
    if here.uri.starts_with("sqlite") {
        app.patch("/v2/pools/p", json!({"options": {"readers": 3}}))
            .await
            .assert_status(200);
        assert_eq!(total().await, 2);
    }
}

#[tokio::test]
async fn a_pool_that_is_down_can_be_told_to_take_no_queues() {
    let Some(redis) = store::redis() else {
        return;
    };
    let app = App::new().admin();
    let uri = redis.uri("down:").replace("5000", "300");
    app.put("/v2/pools/p", json!({"uri": uri, "weight": 1}))
        .await
        .assert_status(201);
    redis.get(0).kill();
    app.patch("/v2/pools/p", json!({"weight": 0}))
        .await
        .assert_status(200);
    assert_eq!(app.home_of("q").await, "default");
}
