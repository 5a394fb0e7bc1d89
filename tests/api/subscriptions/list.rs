//! Listing and showing subscriptions (spec: subscriptions.md 3 and 5).

use serde_json::json;

use super::{HOOK, SUBSCRIPTIONS, hook, subscribe};
use crate::api::support::App;

#[tokio::test]
async fn a_page_has_subscriptions_and_a_link() {
    let app = App::new();
    app.get(SUBSCRIPTIONS)
        .await
        .assert_is(200, "{\"subscriptions\": [], \"links\": []}");
    let id = subscribe(&app, json!({"subscriber": HOOK, "options": {"a": 1}})).await;
    app.get(SUBSCRIPTIONS).await.assert_is(
        200,
        &format!(
            "{{\"subscriptions\": [{{\"id\": \"{id}\", \"source\": \"sq\", \"subscriber\": \"{HOOK}\", \"ttl\": 3600, \
             \"age\": 0, \"options\": {{\"a\": 1}}, \"confirmed\": false}}], \"links\": [{{\"rel\": \"next\", \"href\": \
             \"{SUBSCRIPTIONS}?marker={id}\"}}]}}"
        ),
    );
    assert_eq!(
        app.project("other").get(SUBSCRIPTIONS).await.json()["subscriptions"],
        json!([])
    );
}

#[tokio::test]
async fn pages_follow_one_another_by_id() {
    let app = App::new();
    let mut ids = Vec::new();
    for at in 0..25 {
        ids.push(
            subscribe(
                &app,
                json!({"subscriber": format!("http://x.example/{at}")}),
            )
            .await,
        );
    }
    ids.sort();
    let (mut next, mut seen, mut pages) = (Some(SUBSCRIPTIONS.to_owned()), Vec::new(), Vec::new());
    while let Some(path) = next {
        let page = app.get(&path).await;
        let document = page.json();
        let found = document["subscriptions"].as_array().expect("subscriptions");
        pages.push(found.len());
        seen.extend(
            found
                .iter()
                .map(|one| one["id"].as_str().expect("an id").to_owned()),
        );
        next = page.next();
    }
    assert_eq!((seen, pages), (ids.clone(), vec![10, 10, 5, 0]));
    let page = app
        .get(&format!("{SUBSCRIPTIONS}?limit=20&marker={}", ids[0]))
        .await;
    assert_eq!(
        page.json()["subscriptions"].as_array().map(Vec::len),
        Some(20)
    );
    assert_eq!(
        page.next(),
        Some(format!("{SUBSCRIPTIONS}?marker={}&limit=20", ids[20]))
    );
}

#[tokio::test]
async fn a_page_has_one_to_twenty() {
    let app = App::new();
    let sentence = "Limit must be at least 1 and may not be greater than 20.";
    for limit in ["0", "-1", "21"] {
        let answer = app.get(&format!("{SUBSCRIPTIONS}?limit={limit}")).await;
        answer.assert_refused(400, "Invalid API request", sentence);
    }
    app.get(&format!("{SUBSCRIPTIONS}?limit=x"))
        .await
        .assert_status(400);
}

#[tokio::test]
async fn what_has_expired_is_not_there() {
    let app = App::new();
    let id = subscribe(&app, json!({"subscriber": HOOK, "ttl": 60})).await;
    app.advance(59);
    app.get(&format!("{SUBSCRIPTIONS}/{id}"))
        .await
        .assert_status(200);
    app.advance(1);
    let missing = format!("Subscription {id} does not exist");
    app.get(&format!("{SUBSCRIPTIONS}/{id}"))
        .await
        .assert_refused(404, "Not found", &missing);
    assert_eq!(
        app.get(SUBSCRIPTIONS).await.json()["subscriptions"],
        json!([])
    );
}

#[tokio::test]
async fn what_is_not_the_queues_own_is_not_found() {
    let app = App::new();
    let id = hook(&app).await;
    for (app, path, id) in [
        (
            app.clone(),
            format!("/v2/queues/other/subscriptions/{id}"),
            id.clone(),
        ),
        (
            app.clone(),
            format!("/v2/topics/sq/subscriptions/{id}"),
            id.clone(),
        ),
        (
            app.project("other"),
            format!("{SUBSCRIPTIONS}/{id}"),
            id.clone(),
        ),
        (
            app.clone(),
            format!("{SUBSCRIPTIONS}/nope"),
            "nope".to_owned(),
        ),
        (
            app.clone(),
            format!("{SUBSCRIPTIONS}/{}", id.to_uppercase()),
            id.to_uppercase(),
        ),
    ] {
        let missing = format!("Subscription {id} does not exist");
        app.get(&path)
            .await
            .assert_refused(404, "Not found", &missing);
    }
}

#[tokio::test]
async fn subscriptions_survive_their_queue() {
    let app = App::new();
    let id = hook(&app).await;
    app.delete("/v2/queues/sq").await.assert_status(204);
    app.get(&format!("{SUBSCRIPTIONS}/{id}"))
        .await
        .assert_status(200);
    app.put("/v2/queues/sq", ()).await.assert_status(201);
    app.get(&format!("{SUBSCRIPTIONS}/{id}"))
        .await
        .assert_status(200);
}

#[tokio::test]
async fn purging_a_queue_deletes_all_subscriptions() {
    let app = App::new();
    for at in 0..15 {
        subscribe(
            &app,
            json!({"subscriber": format!("http://x.example/{at}")}),
        )
        .await;
    }
    app.post(
        "/v2/queues/sq/purge",
        json!({"resource_types": ["messages"]}),
    )
    .await
    .assert_status(204);
    assert_eq!(
        app.get(SUBSCRIPTIONS).await.json()["subscriptions"]
            .as_array()
            .map(Vec::len),
        Some(10)
    );
    app.post(
        "/v2/queues/sq/purge",
        json!({"resource_types": ["subscriptions"]}),
    )
    .await
    .assert_status(204);
    assert_eq!(
        app.get(SUBSCRIPTIONS).await.json()["subscriptions"],
        json!([])
    );
}
