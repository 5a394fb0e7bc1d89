//! Changes of a pool, which hold at once.

use serde_json::{Value, json};

use crate::api::store;
use crate::api::support::App;

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
async fn an_invalid_pool_update_changes_nothing() {
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
    for uri in [&here.uri, &there.uri] {
        app.put("/v2/pools/p", json!({"uri": uri, "weight": 1}))
            .await
            .assert_status(201);
    }
    app.post_bodies("q", [json!(1), json!(2)]).await;
    app.delete("/v2/queues/q").await.assert_status(204);
    app.patch("/v2/pools/p", json!({"uri": here.uri}))
        .await
        .assert_status(200);
    app.post_bodies("q", [json!(3)]).await;
    let claim = app.post("/v2/queues/q/claims", ()).await;
    assert_eq!(claim.json()["messages"][0]["body"], 3);
}

#[tokio::test]
async fn a_pool_that_has_queues_is_not_put_into_another_place() {
    let (here, there) = (store::Kept::new(), store::Kept::new());
    let app = App::with("[pooling]\nsqlite_folder = '/'").admin();
    let pool = |uri: &str| json!({"uri": uri, "weight": 1});
    app.put("/v2/pools/p", pool(&here.uri))
        .await
        .assert_status(201);
    app.post_bodies("q", [json!(1), json!(2)]).await;
    let before = app.get("/v2/pools/p?detailed=true").await.json();
    for answer in [
        app.put("/v2/pools/p", pool(&there.uri)).await,
        app.patch("/v2/pools/p", json!({"uri": there.uri})).await,
    ] {
        answer.assert_status(409);
        let said = answer.json()["description"].to_string();
        assert!(said.contains("has queues"), "{said}");
    }
    assert_eq!(app.get("/v2/pools/p?detailed=true").await.json(), before);
    let total = async || app.get("/v2/queues/q/stats").await.json()["messages"]["total"].clone();
    assert_eq!(total().await, 2);
    // What leaves the messages where they are may change.
    app.put("/v2/pools/p", json!({"uri": here.uri, "weight": 3}))
        .await
        .assert_status(201);
    if here.uri.starts_with("sqlite") {
        app.patch("/v2/pools/p", json!({"options": {"readers": 3}}))
            .await
            .assert_status(200);
    }
    assert_eq!(total().await, 2);
    // Once its queues have left, it may go, too.
    app.delete("/v2/queues/q").await.assert_status(204);
    app.put("/v2/pools/p", pool(&there.uri))
        .await
        .assert_status(201);
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
