//! A queue whose flavor changes: what is posted goes to the new pool, what was there before comes first.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::support::{App, OTHER_CLIENT};

const MESSAGES: &str = "/v2/queues/q/messages";

/// Two flavors, each of a pool, and a queue in the first.
async fn two_flavors() -> App {
    let app = App::new();
    for name in ["a", "b"] {
        app.pool(name, 1).await;
        app.flavor(name, &[name]).await;
    }
    app.put("/v2/queues/q", json!({"_flavor": "a"}))
        .await
        .assert_status(201);
    app
}

async fn to_flavor(app: &App, flavor: &str) {
    let operation = json!({"op": "replace", "path": "/metadata/_flavor", "value": flavor});
    let answer = app.patch("/v2/queues/q", json!([operation])).await;
    answer.assert_status(200);
    assert_eq!(answer.json()["_flavor"], flavor);
}

/// A queue with 1 to 5 in the old pool and 6 to 10 in the new one; the ids are in their order.
async fn in_the_middle() -> (App, Vec<String>) {
    let app = two_flavors().await;
    let mut ids = app.post_bodies("q", (1..=5).map(Value::from)).await;
    to_flavor(&app, "b").await;
    ids.extend(app.post_bodies("q", (6..=10).map(Value::from)).await);
    (app, ids)
}

fn bodies(document: &Value) -> Vec<i64> {
    let messages = document
        .as_array()
        .unwrap_or_else(|| panic!("messages: {document}"));
    messages
        .iter()
        .map(|message| message["body"].as_i64().expect("a number"))
        .collect()
}

async fn claim(app: &App, limit: usize) -> (String, Vec<i64>) {
    let answer = app
        .post(
            &format!("/v2/queues/q/claims?limit={limit}"),
            json!({"ttl": 300, "grace": 300}),
        )
        .await;
    answer.assert_status(201);
    let location = answer.header("location").expect("a claim").to_owned();
    (location, bodies(&answer.json()["messages"]))
}

#[tokio::test]
async fn workers_get_what_was_there_before_first() {
    let (app, _) = in_the_middle().await;
    let mut delivered = Vec::new();
    for _ in 0..10 {
        let (claim, messages) = claim(&app, 2).await;
        let held = app.get(&claim).await;
        held.assert_status(200);
        for message in held.json()["messages"].as_array().expect("messages") {
            let href = message["href"].as_str().expect("a path");
            app.delete(href).await.assert_status(204);
        }
        delivered.extend(messages);
        if delivered.len() == 10 {
            break;
        }
    }
    assert_eq!(delivered, (1..=10).collect::<Vec<i64>>());
    app.post("/v2/queues/q/claims", ()).await.assert_status(204);
}

#[tokio::test]
async fn pop_reads_both_pools_of_a_migrating_queue() {
    let (app, _) = in_the_middle().await;
    let popped = app.delete(&format!("{MESSAGES}?pop=7")).await;
    popped.assert_status(200);
    assert_eq!(bodies(&popped.json()["messages"]), [1, 2, 3, 4, 5, 6, 7]);
    let popped = app.delete(&format!("{MESSAGES}?pop=7")).await;
    assert_eq!(bodies(&popped.json()["messages"]), [8, 9, 10]);
}

#[tokio::test]
async fn a_listing_goes_on_from_one_pool_into_the_other() {
    let (app, ids) = in_the_middle().await;
    let reader = app.client(OTHER_CLIENT);
    for limit in [1, 3, 4, 5, 10] {
        let mut found = Vec::new();
        let mut path = format!("{MESSAGES}?limit={limit}");
        loop {
            let page = reader.get(&path).await;
            let messages = bodies(&page.json()["messages"]);
            found.extend(messages);
            match page.next() {
                Some(next) => path = next,
                None => break,
            }
        }
        assert_eq!(found, (1..=10).collect::<Vec<i64>>(), "{limit} a page");
    }
    for (at, id) in ids.iter().enumerate() {
        let page = reader
            .get(&format!("{MESSAGES}?marker={id}&limit=20"))
            .await;
        let rest: Vec<i64> = (at as i64 + 2..=10).collect();
        assert_eq!(bodies(&page.json()["messages"]), rest, "after {id}");
    }
    app.delete(&format!("{MESSAGES}/{}", ids[6]))
        .await
        .assert_status(204);
    let page = reader
        .get(&format!("{MESSAGES}?marker={}&limit=20", ids[6]))
        .await;
    assert_eq!(bodies(&page.json()["messages"]), [8, 9, 10]);
}

#[tokio::test]
async fn a_position_from_before_the_move_goes_on() {
    let app = two_flavors().await;
    app.post_bodies("q", (1..=5).map(Value::from)).await;
    let reader = app.client(OTHER_CLIENT);
    let next = reader
        .get(&format!("{MESSAGES}?limit=3"))
        .await
        .next()
        .expect("more");
    to_flavor(&app, "b").await;
    app.post_bodies("q", (6..=7).map(Value::from)).await;
    let page = reader.get(&next.replace("limit=3", "limit=20")).await;
    assert_eq!(bodies(&page.json()["messages"]), [4, 5, 6, 7]);
}

#[tokio::test]
async fn a_position_in_a_place_that_is_gone_begins_at_the_beginning() {
    let app = App::new();
    app.pool("a", 1).await;
    app.post_bodies("q", (1..=3).map(Value::from)).await;
    let reader = app.client(OTHER_CLIENT);
    for marker in ["2", "2.00000000", "99"] {
        let page = reader.get(&format!("{MESSAGES}?marker={marker}")).await;
        assert_eq!(bodies(&page.json()["messages"]), [1, 2, 3], "{marker}");
    }
    let page = reader.get(&format!("{MESSAGES}?marker=2.x")).await;
    page.assert_is(200, r#"{"messages": [], "links": []}"#);
}

#[tokio::test]
async fn get_by_id_finds_messages_in_both_pools_of_a_migrating_queue() {
    let (app, ids) = in_the_middle().await;
    for id in &ids {
        app.get(&format!("{MESSAGES}/{id}"))
            .await
            .assert_status(200);
    }
    let asked = [&ids[9], &ids[0], &ids[5], &ids[9]]
        .map(String::as_str)
        .join(",");
    let found = app.get(&format!("{MESSAGES}?ids={asked}")).await.json();
    assert_eq!(bodies(&found["messages"]), [10, 1, 6, 10]);
    let deleted = [&ids[1], &ids[7]].map(String::as_str).join(",");
    app.delete(&format!("{MESSAGES}?ids={deleted}"))
        .await
        .assert_status(204);
    for id in [&ids[1], &ids[7]] {
        app.get(&format!("{MESSAGES}/{id}"))
            .await
            .assert_status(404);
    }
}

#[tokio::test]
async fn claims_stay_valid_where_they_are() {
    let app = two_flavors().await;
    let ids = app.post_bodies("q", (1..=3).map(Value::from)).await;
    let (old, held) = claim(&app, 2).await;
    assert_eq!(held, [1, 2]);
    to_flavor(&app, "b").await;
    app.post_bodies("q", [json!(4)]).await;
    let (third, held) = claim(&app, 10).await;
    assert_eq!(held, [3], "a claim has messages of one pool");
    let (new, held) = claim(&app, 10).await;
    assert_eq!(held, [4]);
    for claim in [&old, &third, &new] {
        app.get(claim).await.assert_status(200);
        app.patch(claim, json!({"ttl": 600}))
            .await
            .assert_status(204);
    }
    app.delete(&format!("{MESSAGES}/{}", ids[0]))
        .await
        .assert_status(403);
    let id = old.rsplit('/').next().expect("an id");
    app.delete(&format!("{MESSAGES}/{}?claim_id={id}", ids[0]))
        .await
        .assert_status(204);
    for claim in [&old, &new] {
        app.delete(claim).await.assert_status(204);
        app.get(claim).await.assert_status(404);
    }
    let (_, held) = claim(&app, 10).await;
    assert_eq!(held, [2]);
}

#[tokio::test]
async fn stats_of_a_migrating_queue_cover_both_pools() {
    let (app, ids) = in_the_middle().await;
    claim(&app, 2).await;
    let stats = app.get("/v2/queues/q/stats").await.json()["messages"].clone();
    for (key, count) in [("claimed", 2), ("free", 8), ("total", 10)] {
        assert_eq!(stats[key], count, "{stats}");
    }
    for (key, id) in [("oldest", &ids[0]), ("newest", &ids[9])] {
        let href = stats[key]["href"].as_str().expect("a path");
        // Within a millisecond either end of a pool may be the one.
        assert!(
            href.ends_with(id.as_str()) || stats[key]["age"] == 0,
            "{stats}"
        );
    }
}

#[tokio::test]
async fn purge_and_delete_reach_both_pools_of_a_migrating_queue() {
    let (app, _) = in_the_middle().await;
    app.post("/v2/queues/q/purge", ()).await.assert_status(204);
    let total = async || app.get("/v2/queues/q/stats").await.json()["messages"]["total"].clone();
    assert_eq!(total().await, 0);
    app.post_bodies("q", [json!(1)]).await;
    app.delete("/v2/queues/q").await.assert_status(204);
    for flavor in ["a", "b"] {
        app.put("/v2/queues/q", json!({"_flavor": flavor}))
            .await
            .assert_status(201);
        assert_eq!(total().await, 0, "{flavor}");
        app.delete("/v2/queues/q").await.assert_status(204);
    }
}

#[tokio::test]
async fn a_queue_may_move_back_before_it_is_gone() {
    let (app, _) = in_the_middle().await;
    to_flavor(&app, "a").await;
    app.post_bodies("q", (11..=12).map(Value::from)).await;
    app.work();
    let (begun, mut popped) = (Instant::now(), Vec::new());
    while popped.len() < 12 && begun.elapsed() < Duration::from_secs(20) {
        let some = app.delete(&format!("{MESSAGES}?pop=20")).await.json();
        popped.extend(bodies(&some["messages"]));
        app.advance(1);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(popped, (1..=12).collect::<Vec<i64>>());
}

#[tokio::test]
async fn a_flavor_that_is_not_there_changes_nothing() {
    let app = two_flavors().await;
    let home = app.home_of("q").await;
    app.post_bodies("q", [json!(1)]).await;
    let operation = json!({"op": "replace", "path": "/metadata/_flavor", "value": "nope"});
    app.patch("/v2/queues/q", json!([operation]))
        .await
        .assert_refused(404, "Not found", "Flavor nope does not exist");
    assert_eq!(app.get("/v2/queues/q").await.json()["_flavor"], "a");
    assert_eq!(
        app.get("/v2/queues/q/stats").await.json()["messages"]["total"],
        1
    );
    assert_eq!(app.home_of("q").await, home);
}

#[tokio::test]
async fn an_empty_queue_moves_and_leaves_its_old_pool() {
    let app = two_flavors().await;
    let old = app.home_of("q").await;
    to_flavor(&app, "b").await;
    assert_ne!(
        app.home_of("q").await,
        old,
        "what is posted goes to the new pool at once"
    );
    let admin = app.admin();
    admin.delete("/v2/flavors/a").await.assert_status(204);
    app.work();
    let begun = Instant::now();
    while admin.delete("/v2/pools/a").await.status != 204 {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "it is still there"
        );
        app.advance(1);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_ne!(app.home_of("q").await, old);
}

#[tokio::test]
async fn without_its_flavor_a_queue_goes_to_the_pools_of_none() {
    let (app, _) = in_the_middle().await;
    let operation = json!({"op": "remove", "path": "/metadata/_flavor"});
    app.patch("/v2/queues/q", json!([operation]))
        .await
        .assert_status(200);
    assert_eq!(app.home_of("q").await, "default");
    let popped = app.delete(&format!("{MESSAGES}?pop=20")).await.json();
    assert_eq!(bodies(&popped["messages"]), (1..=10).collect::<Vec<i64>>());
}

#[tokio::test]
async fn a_queue_does_not_move_without_end() {
    let app = two_flavors().await;
    app.post_bodies("q", [json!(1)]).await;
    for round in 0..7 {
        to_flavor(&app, ["b", "a"][round % 2]).await;
    }
    let operation = json!({"op": "replace", "path": "/metadata/_flavor", "value": "a"});
    let answer = app.patch("/v2/queues/q", json!([operation])).await;
    // It will be possible once the earlier moves are over.
    answer.assert_refused(
        503,
        "Service temporarily unavailable",
        "Queue could not be updated. Please try again in a few seconds.",
    );
    app.post_bodies("q", [json!(2)]).await;
    let popped = app.delete(&format!("{MESSAGES}?pop=20")).await.json();
    assert_eq!(bodies(&popped["messages"]), [1, 2]);
}

/// Claims what the queue has, and lets it go, as often as its policy allows.
async fn use_up(app: &App) {
    for _ in 0..2 {
        let (claim, _) = claim(app, 10).await;
        app.delete(&claim).await.assert_status(204);
    }
    app.post("/v2/queues/q/claims", json!({"ttl": 300, "grace": 300}))
        .await
        .assert_status(204);
}

#[tokio::test]
async fn dead_letters_are_found_wherever_their_queue_is() {
    let app = App::new();
    for name in ["a", "b"] {
        app.pool(name, 1).await;
        app.flavor(name, &[name]).await;
    }
    let policy = json!({"_flavor": "a", "_max_claim_count": 2, "_dead_letter_queue": "dead"});
    app.put("/v2/queues/q", policy).await.assert_status(201);
    // The dead-letter queue is elsewhere, and has something already.
    app.put("/v2/queues/dead", json!({"_flavor": "b"}))
        .await
        .assert_status(201);
    let home = app.home_of("dead").await;
    app.post_bodies("dead", [json!(0)]).await;
    app.post_bodies("q", [json!(1), json!(2)]).await;
    use_up(&app).await;
    assert_eq!(
        app.get("/v2/queues/q/stats").await.json()["messages"]["total"],
        0
    );
    assert_eq!(
        app.get("/v2/queues/dead/stats").await.json()["messages"]["total"],
        3
    );
    assert_eq!(
        app.home_of("dead").await,
        home,
        "what is posted to it still goes to its own pool"
    );

    // The source moves, and so does where its dead letters are kept.
    to_flavor(&app, "b").await;
    app.post_bodies("q", [json!(3)]).await;
    use_up(&app).await;
    let popped = app.delete("/v2/queues/dead/messages?pop=20").await.json();
    assert_eq!(bodies(&popped["messages"]), [1, 2, 0, 3]);
}

#[tokio::test]
async fn a_dead_letter_queue_that_is_not_there_is_made_beside_its_source() {
    let app = App::new();
    app.pool("a", 1).await;
    app.flavor("a", &["a"]).await;
    let policy = json!({"_flavor": "a", "_max_claim_count": 2, "_dead_letter_queue": "dead"});
    app.put("/v2/queues/q", policy).await.assert_status(201);
    app.post_bodies("q", [json!(1)]).await;
    use_up(&app).await;
    assert_eq!(app.home_of("dead").await, app.home_of("q").await);
    let popped = app.delete("/v2/queues/dead/messages?pop=20").await.json();
    assert_eq!(bodies(&popped["messages"]), [1]);
}

/// Reads the next page of an observer who is there; `None` while there is nothing new.
async fn look(app: &App, path: &mut String) -> Vec<i64> {
    let page = app.client(OTHER_CLIENT).get(path).await;
    page.assert_status(200);
    if let Some(next) = page.next() {
        *path = next;
    }
    bodies(&page.json()["messages"])
}

#[tokio::test]
async fn an_observer_goes_on_where_it_is_across_moves_there_and_back() {
    let app = two_flavors().await;
    app.work();
    let start = |limit: usize| format!("{MESSAGES}?limit={limit}");
    let (mut behind, mut in_step) = (start(2), start(10));
    let (mut seen_behind, mut seen_in_step) = (Vec::new(), Vec::new());
    let mut ids = app.post_bodies("q", (1..=6).map(Value::from)).await;
    seen_behind.extend(look(&app, &mut behind).await);
    let mut last = 6;
    let begun = Instant::now();
    for flavor in ["b", "a"] {
        to_flavor(&app, flavor).await;
        ids.extend(
            app.post_bodies("q", (last + 1..=last + 2).map(Value::from))
                .await,
        );
        last += 2;
        let pool = app.home_of("q").await;
        while app.store_ids_of("q").await.iter().any(|home| *home != pool)
            || seen_in_step.last() != Some(&last)
        {
            seen_in_step.extend(look(&app, &mut in_step).await);
            app.advance(1);
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{seen_in_step:?}"
            );
        }
    }
    while seen_behind.last() != Some(&last) {
        seen_behind.extend(look(&app, &mut behind).await);
        assert!(begun.elapsed() < Duration::from_secs(60), "{seen_behind:?}");
    }
    let all: Vec<i64> = (1..=last).collect();
    assert_eq!(seen_in_step, all, "in step");
    assert_eq!(seen_behind, all, "behind");
    for (at, id) in ids.iter().enumerate() {
        // A page may be short while a segment is taken out of the queue; the next one goes on.
        let mut path = format!("{MESSAGES}?marker={id}&limit=20");
        let (mut seen, begun) = (Vec::new(), Instant::now());
        while seen.len() < all.len() - at - 1 && begun.elapsed() < Duration::from_secs(10) {
            seen.extend(look(&app, &mut path).await);
        }
        assert_eq!(seen, all[at + 1..], "after {id}");
    }
}
