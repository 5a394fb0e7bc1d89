//! Isolation: a message or claim is known only in its own queue of its own project (quirks Q-SEC-1, Q-SEC-7, Q-SEC-8).

use serde_json::json;

use super::{
    CLAIMS, MESSAGES, bodies, claim, claim_id, counts, listed, no_content, post_bodies, refused,
    unknown_id,
};
use crate::api::support::App;

/// A service, a free and a claimed message of its queue, and the claim.
async fn victim() -> (App, Vec<String>, String) {
    let app = App::new();
    let ids = post_bodies(&app, ["claimed", "free"]).await;
    let claim = claim(&app, 1).await;
    (app, ids, claim)
}

/// Another project with a queue of the same name, the same project with another queue: both have a message.
async fn strangers(app: &App) -> [(App, &'static str); 2] {
    let foreign = app.project("foreign");
    foreign.post_bodies("fizbat", [json!("theirs")]).await;
    app.post_bodies("other", [json!("theirs")]).await;
    [(foreign, "fizbat"), (app.clone(), "other")]
}

#[tokio::test]
async fn a_message_cannot_be_read_from_elsewhere() {
    let (app, ids, _) = victim().await;
    for (stranger, queue) in strangers(&app).await {
        for id in &ids {
            let path = format!("/v2/queues/{queue}/messages/{id}");
            stranger.get(&path).await.assert_status(404);
        }
        let several = format!("/v2/queues/{queue}/messages?ids={}", ids.join(","));
        stranger.get(&several).await.assert_status(404);
        let listing = format!("/v2/queues/{queue}/messages?echo=true&include_claimed=true");
        assert_eq!(bodies(&stranger.get(&listing).await), json!(["theirs"]));
    }
}

#[tokio::test]
async fn a_message_cannot_be_deleted_from_elsewhere() {
    let (app, ids, claim) = victim().await;
    for (stranger, queue) in strangers(&app).await {
        let messages = format!("/v2/queues/{queue}/messages");
        for id in &ids {
            let path = format!("{messages}/{id}");
            no_content("one", &stranger.delete(&path).await);
            let path = format!("{path}?claim_id={claim}");
            no_content("with its claim", &stranger.delete(&path).await);
        }
        let several = format!("{messages}?ids={}", ids.join(","));
        no_content("several", &stranger.delete(&several).await);
        let popped = stranger.delete(&format!("{messages}?pop=20")).await;
        assert_eq!(bodies(&popped), json!(["theirs"]));
    }
    assert_eq!(counts(&app, "fizbat").await, [1, 1, 2]);
}

#[tokio::test]
async fn a_message_cannot_be_claimed_from_elsewhere() {
    let (app, _, _) = victim().await;
    for (stranger, queue) in strangers(&app).await {
        let answer = stranger
            .post(&format!("/v2/queues/{queue}/claims"), ())
            .await;
        assert_eq!(bodies(&answer), json!(["theirs"]));
    }
    assert_eq!(counts(&app, "fizbat").await, [1, 1, 2]);
}

#[tokio::test]
async fn a_claim_is_unknown_elsewhere() {
    let (app, _, claim) = victim().await;
    for (stranger, queue) in strangers(&app).await {
        let project = if queue == "other" {
            "480924"
        } else {
            "foreign"
        };
        let path = format!("/v2/queues/{queue}/claims/{claim}");
        let description =
            format!("Claim {claim} does not exist in queue {queue} for project {project}");
        let (shown, renewed) = (stranger.get(&path).await, stranger.patch(&path, "{}").await);
        refused("show", &shown, 404, "Not found", &description);
        refused("renew", &renewed, 404, "Not found", &description);
        no_content("release", &stranger.delete(&path).await);
    }
    app.get(&format!("{CLAIMS}/{claim}"))
        .await
        .assert_status(200);
    assert_eq!(counts(&app, "fizbat").await, [1, 1, 2]);
}

#[tokio::test]
async fn a_claim_does_not_delete_messages_elsewhere() {
    let (app, _, claim) = victim().await;
    for (stranger, queue) in strangers(&app).await {
        let claims = format!("/v2/queues/{queue}/claims");
        let held = stranger.post(&claims, ()).await;
        let own = claim_id(&held);
        let href = super::each(&held, "href")[0].as_str().unwrap().to_owned();
        let answer = stranger.delete(&href.replace(&own, &claim)).await;
        let description = "The specified claim does not exist or has expired.";
        refused(queue, &answer, 400, "Unable to delete", description);
    }
}

#[tokio::test]
async fn names_of_other_things_delete_nothing() {
    // Q-SEC-7: neither a claim's id nor a store's own names are messages.
    let (app, _, claim) = victim().await;
    for id in [
        claim.as_str(),
        "480924.fizbat.messages",
        "pool1.pools",
        "message",
        "1",
        "*",
        "%25",
        "%00",
        "';--",
    ] {
        no_content(id, &app.delete(&format!("{MESSAGES}?ids={id}")).await);
        no_content(id, &app.delete(&format!("{MESSAGES}/{id}")).await);
    }
    app.get(&format!("{CLAIMS}/{claim}"))
        .await
        .assert_status(200);
    assert_eq!(counts(&app, "fizbat").await, [1, 1, 2]);
}

#[tokio::test]
async fn names_that_look_glued_are_different_queues() {
    // Q-SEC-8
    let app = App::new();
    let places = [
        (app.project("a"), "b.c"),
        (app.project("a.b"), "c"),
        (app.project("a"), "b"),
        (app.project("a"), "b.messages"),
        (app.project("a"), "queues_set"),
        (app.project("a/b"), "c"),
    ];
    for (at, (project, queue)) in places.iter().enumerate() {
        project.post_bodies(queue, [json!(at)]).await;
    }
    for (at, (project, queue)) in places.iter().enumerate() {
        let answer = project
            .get(&format!("/v2/queues/{queue}/messages?echo=true"))
            .await;
        assert_eq!(bodies(&answer), json!([at]), "{queue}");
    }
}

#[tokio::test]
async fn purging_a_queue_leaves_the_others() {
    let (app, _, claim) = victim().await;
    for (stranger, queue) in strangers(&app).await {
        let path = format!("/v2/queues/{queue}/purge");
        stranger.post(&path, ()).await.assert_status(204);
        assert_eq!(counts(&stranger, queue).await, [0, 0, 0]);
    }
    app.get(&format!("{CLAIMS}/{claim}"))
        .await
        .assert_status(200);
    assert_eq!(listed(&app).await, json!(["free"]));
}

#[tokio::test]
async fn a_message_of_a_deleted_queue_does_not_come_back_with_it() {
    let (app, ids, claim) = victim().await;
    app.delete("/v2/queues/fizbat").await.assert_status(204);
    app.put("/v2/queues/fizbat", ()).await.assert_status(201);
    // Q-CLM-6
    app.get(&format!("{CLAIMS}/{claim}"))
        .await
        .assert_status(404);
    for id in ids.iter().chain([&unknown_id()]) {
        app.get(&format!("{MESSAGES}/{id}"))
            .await
            .assert_status(404);
    }
    assert_eq!(counts(&app, "fizbat").await, [0, 0, 0]);
}
