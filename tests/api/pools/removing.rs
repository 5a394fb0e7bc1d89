//! Removing a pool never loses anything (quirk Q-POOL-5).

use serde_json::{Value, json};

use crate::api::support::App;

const HAS_QUEUES: &str =
    "This pool has queues; It cannot be deleted. Move them to another pool, or delete them, first.";

#[tokio::test]
async fn a_pool_is_removed_and_one_that_is_not_there_too() {
    let app = App::new().admin();
    app.pool("p", 1).await;
    for _ in 0..2 {
        app.delete("/v2/pools/p").await.assert_is(204, "");
        app.get("/v2/pools/p").await.assert_status(404);
    }
}

#[tokio::test]
async fn the_last_pool_of_a_flavor_stays() {
    let app = App::new().admin();
    app.pool("a", 1).await;
    app.pool("b", 1).await;
    app.flavor("f", &["a", "b"]).await;
    app.delete("/v2/pools/a").await.assert_status(204);
    app.delete("/v2/pools/b").await.assert_refused(
        403,
        "Unable to delete",
        "This pool is used by flavors f; It cannot be deleted.",
    );
    app.delete("/v2/flavors/f").await.assert_status(204);
    app.delete("/v2/pools/b").await.assert_status(204);
}

#[tokio::test]
async fn a_pool_with_queues_stays_until_they_are_gone() {
    let app = App::new().admin();
    app.pool("p", 1).await;
    app.post_bodies("q", [json!(1)]).await;
    app.delete("/v2/pools/p")
        .await
        .assert_refused(403, "Unable to delete", HAS_QUEUES);
    assert_eq!(
        app.get("/v2/queues/q/stats").await.json()["messages"]["total"],
        1
    );
    app.delete("/v2/queues/q").await.assert_status(204);
    app.delete("/v2/pools/p").await.assert_status(204);
    assert_eq!(app.home_of("q").await, "default");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_queue_that_is_made_while_its_pool_is_removed_is_somewhere() {
    let app = App::new().admin();
    for round in 0..40 {
        let uri = app.pool("p", 1).await;
        let removal = tokio::spawn({
            let app = app.clone();
            async move { app.delete("/v2/pools/p").await.status }
        });
        let names: Vec<String> = (0..5).map(|at| format!("q{round}-{at}")).collect();
        let posts = names
            .iter()
            .map(|name| app.post_bodies(name, [json!(round)]));
        futures_util::future::join_all(posts).await;
        let removed = removal.await.expect("an answer");
        assert!([204, 403].contains(&removed), "{removed}");
        for name in &names {
            let path = format!("/v2/queues/{name}/stats");
            let total: Value = app.get(&path).await.json()["messages"]["total"].clone();
            assert_eq!(
                total, 1,
                "round {round}, the pool's removal answered {removed}"
            );
            app.delete(&format!("/v2/queues/{name}")).await;
        }
        if removed == 403 {
            app.put("/v2/pools/p", json!({"uri": uri, "weight": 1}))
                .await;
        }
        app.delete("/v2/pools/p").await.assert_status(204);
    }
}
