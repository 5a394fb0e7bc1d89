//! Where a new queue goes, and that it stays there.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::api::support::{App, PROJECT};

#[tokio::test]
async fn a_thousand_queues_are_spread_by_weight() {
    let app = App::new();
    for (pool, weight) in [("a", 1), ("b", 2), ("c", 7), ("d", 0)] {
        app.pool(pool, weight).await;
    }
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for at in 0..1000 {
        let home = app.home_of(&format!("q{at}")).await;
        *counts.entry(home).or_default() += 1;
    }
    let mut counts: Vec<u32> = counts.into_values().collect();
    counts.sort_unstable();
    // Pearson's statistic; with two degrees of freedom it exceeds 23 once in a hundred thousand runs.
    let expected = [100.0, 200.0, 700.0];
    assert_eq!(counts.len(), 3, "the pool of weight 0 has none: {counts:?}");
    let statistic: f64 = counts
        .iter()
        .zip(expected)
        .map(|(count, expected)| (f64::from(*count) - expected).powi(2) / expected)
        .sum();
    assert!(statistic < 23.0, "{counts:?}: {statistic}");
}

#[tokio::test]
async fn without_pools_queues_are_in_the_default_store() {
    assert_eq!(App::new().home_of("q").await, "default");
}

#[tokio::test]
async fn pools_of_flavors_get_no_queues_without_one() {
    let app = App::new();
    app.pool("a", 100).await;
    app.flavor("f", &["a"]).await;
    for at in 0..20 {
        assert_eq!(app.home_of(&format!("q{at}")).await, "default");
    }
    app.pool("b", 1).await;
    let mut homes = BTreeSet::new();
    for at in 20..40 {
        homes.insert(app.home_of(&format!("q{at}")).await);
    }
    assert_eq!(homes.len(), 1, "{homes:?}");
    assert!(!homes.contains("default"), "{homes:?}");
}

#[tokio::test]
async fn pools_that_take_no_queues_leave_them_to_the_default_store() {
    let app = App::new();
    app.pool("a", 0).await;
    assert_eq!(app.home_of("q").await, "default");
}

#[tokio::test]
async fn a_flavor_keeps_its_queues_inside() {
    let app = App::new();
    for (pool, flavor) in [("a", "f"), ("b", "f"), ("c", "g"), ("d", "")] {
        app.pool(pool, 1).await;
        if !flavor.is_empty() {
            app.flavor(flavor, &[pool]).await;
        }
    }
    let mut homes: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for at in 0..60 {
        let flavor = ["f", "g", ""][at % 3];
        let queue = format!("q{at}");
        let body = json!({"_flavor": flavor});
        app.put(&format!("/v2/queues/{queue}"), body)
            .await
            .assert_status(201);
        let home = app.home_of(&queue).await;
        homes.entry(flavor).or_default().insert(home);
    }
    let counts: Vec<usize> = homes.values().map(BTreeSet::len).collect();
    assert_eq!(counts, [1, 2, 1], "{homes:?}");
    let all: BTreeSet<&String> = homes.values().flatten().collect();
    assert_eq!(all.len(), 4, "{homes:?}");
}

#[tokio::test]
async fn the_flavor_must_be_the_projects() {
    let app = App::new();
    app.pool("a", 1).await;
    app.project("other").flavor("theirs", &["a"]).await;
    for name in ["nope", "theirs"] {
        app.put("/v2/queues/q", json!({"_flavor": name}))
            .await
            .assert_refused(
                400,
                "Invalid API request",
                &format!("Flavor {name} does not exist"),
            );
    }
    app.put("/v2/queues/q", json!({"_flavor": 5}))
        .await
        .assert_refused(400, "Invalid API request", "Flavor 5 does not exist");
    app.get("/v2/queues")
        .await
        .assert_is(200, r#"{"queues": [], "links": []}"#);
    for none in [json!(null), json!("")] {
        let body = json!({"_flavor": none});
        app.put("/v2/queues/q", body).await.assert_status(201);
        app.delete("/v2/queues/q").await;
    }
}

#[tokio::test]
async fn a_flavor_without_a_pool_that_takes_queues_is_a_conflict_and_leaves_nothing_behind() {
    let app = App::new();
    app.pool("a", 0).await;
    app.flavor("f", &["a"]).await;
    let body = json!({"_flavor": "f"});
    let sentence =
        "Flavor f has no pool that takes queues: an operator has to give one a weight above 0.";
    let answer = app.put("/v2/queues/q", &body).await;
    answer.assert_refused(409, "Resource conflict", sentence);
    assert_eq!(answer.header("retry-after"), None);
    app.delete("/v2/queues/q").await.assert_status(204);
    app.get("/v2/queues/q/stats").await.assert_status(200);
    // So is a queue that is to move there.
    app.put("/v2/queues/elsewhere", ()).await.assert_status(201);
    let operation = json!({"op": "add", "path": "/metadata/_flavor", "value": "f"});
    app.patch("/v2/queues/elsewhere", json!([operation]))
        .await
        .assert_refused(409, "Resource conflict", sentence);
    assert_eq!(app.home_of("elsewhere").await, "default");
    app.admin()
        .patch("/v2/pools/a", json!({"weight": 1}))
        .await
        .assert_status(200);
    app.put("/v2/queues/q", &body).await.assert_status(201);
    // A queue that is there already does not need a pool that takes others.
    app.admin()
        .patch("/v2/pools/a", json!({"weight": 0}))
        .await
        .assert_status(200);
    app.put("/v2/queues/q", &body).await.assert_status(204);
    app.post_bodies("q", [json!(1)]).await;
}

#[tokio::test]
async fn without_a_pool_that_takes_queues_every_call_that_would_create_one_is_a_conflict() {
    let app = App::with("[pooling]\ndefault_store = false");
    let sentence = "No pool takes queues without a flavor: an operator has to register one with a weight above 0.";
    let subscription = json!({"subscriber": "http://receiver.example/", "ttl": 3600});
    for (what, answer) in [
        ("queue", app.put("/v2/queues/q", ()).await),
        (
            "messages",
            app.post("/v2/queues/q/messages", json!({"messages": [{"body": 1}]}))
                .await,
        ),
        ("topic", app.put("/v2/topics/q", ()).await),
        (
            "topic's messages",
            app.post("/v2/topics/q/messages", json!({"messages": [{"body": 1}]}))
                .await,
        ),
        (
            "subscription",
            app.post("/v2/queues/q/subscriptions", subscription).await,
        ),
    ] {
        assert_eq!(answer.header("retry-after"), None, "{what}");
        if answer.status != 201 {
            answer.assert_refused(409, "Resource conflict", sentence);
        } else {
            assert_eq!(what, "subscription", "it needs a store");
        }
    }
    app.pool("a", 1).await;
    assert_ne!(app.home_of("q").await, "default");
}

#[tokio::test]
async fn creating_a_queue_again_never_moves_it() {
    let app = App::new();
    for pool in ["a", "b", "c"] {
        app.pool(pool, 1).await;
    }
    let home = app.home_of("q").await;
    app.post_bodies("q", [json!(1)]).await;
    for pool in ["d", "e"] {
        app.pool(pool, 1000).await;
    }
    // A pool that joins a flavor takes its queues along.
    app.flavor("f", &["a", "b", "c"]).await;
    for round in 0..12 {
        app.put("/v2/queues/q", ()).await.assert_status(204);
        let operation = json!({"op": "add", "path": "/metadata/round", "value": round});
        app.patch("/v2/queues/q", json!([operation]))
            .await
            .assert_status(200);
        assert_eq!(
            app.get("/v2/queues/q/stats").await.json()["messages"]["total"],
            1
        );
        assert_eq!(app.home_of("q").await, home);
    }
    app.admin().delete("/v2/flavors/f").await.assert_status(204);
    app.put("/v2/queues/q", ()).await.assert_status(204);
    assert_eq!(app.home_of("q").await, home);
}

#[tokio::test]
async fn queues_of_the_default_store_stay_when_pools_come() {
    let app = App::new();
    app.post_bodies("q", [json!(1)]).await;
    app.pool("a", 1).await;
    app.put("/v2/queues/q", ()).await.assert_status(204);
    assert_eq!(
        app.get("/v2/queues/q/stats").await.json()["messages"]["total"],
        1
    );
    assert_eq!(app.home_of("q").await, "default");
    assert_ne!(app.home_of("new").await, "default");
}

#[tokio::test]
async fn a_queue_that_is_deleted_leaves_nothing_in_its_pool() {
    let app = App::new();
    app.pool("a", 1).await;
    app.post_bodies("q", [json!(1), json!(2)]).await;
    app.delete("/v2/queues/q").await.assert_status(204);
    app.put("/v2/queues/q", ()).await.assert_status(201);
    assert_eq!(
        app.get("/v2/queues/q/stats").await.json()["messages"]["total"],
        0
    );
}

#[tokio::test]
async fn queues_of_one_name_in_two_projects_share_nothing() {
    let app = App::new();
    app.pool("a", 1).await;
    app.post_bodies("q", [json!(1)]).await;
    let other = app.project(&format!("{PROJECT}2"));
    assert_eq!(
        other.get("/v2/queues/q/stats").await.json()["messages"]["total"],
        0
    );
    assert_eq!(other.home_of("q").await, app.home_of("q").await);
}
