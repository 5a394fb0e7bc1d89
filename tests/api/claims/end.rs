//! The end of a claim: by release, in its own time, with its queue (spec: claims.md 1 and 5).

use serde_json::json;

use super::{no_such_claim, path};
use crate::api::messages::{
    CLAIMS, MESSAGES, QUEUE, bodies, claim, claim_id, counts, each, listed, message, no_content,
    post_bodies, queues, refused, unknown_id,
};
use crate::api::store::placed;
use crate::api::support::App;

#[tokio::test]
async fn a_released_claim_frees_its_messages_at_once() {
    let app = App::new();
    let ids = post_bodies(&app, 0..2).await;
    let claim = claim(&app, 2).await;
    no_content("", &app.delete(&path(&claim)).await);
    assert_eq!(counts(&app, "fizbat").await, [0, 2, 2]);
    app.get(&format!("{MESSAGES}/{}", ids[0]))
        .await
        .assert_is(200, &message(&ids[0], 3600, 0, "0"));
    let answer = app.get(&path(&claim)).await;
    answer.assert_refused(404, "Not found", &no_such_claim(&claim));
    assert_eq!(bodies(&app.post(CLAIMS, ()).await), json!([0, 1]));
}

#[tokio::test]
async fn freed_messages_are_back_in_their_old_places() {
    let app = App::new();
    post_bodies(&app, 0..3).await;
    let first = claim(&app, 1).await;
    let second = claim(&app, 1).await;
    post_bodies(&app, [3]).await;
    no_content("", &app.delete(&path(&second)).await);
    assert_eq!(listed(&app).await, json!([1, 2, 3]));
    no_content("", &app.delete(&path(&first)).await);
    assert_eq!(listed(&app).await, json!([0, 1, 2, 3]));
    let again = bodies(&app.post(CLAIMS, ()).await);
    assert_eq!(placed(&again), placed(&json!([0, 1, 2, 3])));
}

#[tokio::test]
async fn messages_that_were_deleted_do_not_come_back_with_a_release() {
    let app = App::new();
    let ids = post_bodies(&app, 0..3).await;
    let claim = claim(&app, 3).await;
    let held = format!("{MESSAGES}/{}?claim_id={claim}", ids[1]);
    app.delete(&held).await.assert_status(204);
    no_content("", &app.delete(&path(&claim)).await);
    assert_eq!(listed(&app).await, json!([0, 2]));
    assert_eq!(counts(&app, "fizbat").await, [0, 2, 2]);
}

#[tokio::test]
async fn a_release_leaves_other_claims_alone() {
    let app = App::new();
    post_bodies(&app, 0..4).await;
    let (first, second) = (claim(&app, 2).await, claim(&app, 2).await);
    no_content("", &app.delete(&path(&first)).await);
    assert_eq!(bodies(&app.get(&path(&second)).await), json!([2, 3]));
    assert_eq!(counts(&app, "fizbat").await, [2, 2, 4]);
}

#[tokio::test]
async fn a_claim_that_does_not_exist_is_released_already() {
    let app = App::new();
    post_bodies(&app, [1]).await;
    let live = claim(&app, 1).await;
    for claim in [&*unknown_id(), "zz", "", &live.to_uppercase()] {
        no_content(claim, &app.delete(&path(claim)).await);
    }
    let elsewhere = format!("/v2/queues/nope/claims/{live}");
    no_content("no queue", &app.delete(&elsewhere).await);
    assert_eq!(queues(&app).await, ["fizbat"]);
    assert_eq!(counts(&app, "fizbat").await, [1, 0, 1]);
}

#[tokio::test]
async fn a_claim_is_released_twice_with_the_same_answer() {
    let app = App::new();
    post_bodies(&app, [1]).await;
    let path = path(&claim(&app, 1).await);
    for case in ["first", "second"] {
        no_content(case, &app.delete(&path).await);
    }
}

#[tokio::test]
async fn a_claim_holds_until_the_last_second_of_its_time() {
    let app = App::new();
    post_bodies(&app, [1]).await;
    let claim = claim_id(&app.post(CLAIMS, json!({"ttl": 60})).await);
    app.advance(59);
    assert_eq!(app.get(&path(&claim)).await.json()["age"], 59);
    no_content("still held", &app.post(CLAIMS, ()).await);
    app.advance(1);
    assert_eq!(bodies(&app.post(CLAIMS, ()).await), json!([1]));
}

#[tokio::test]
async fn a_claim_whose_time_is_over_is_gone() {
    // Q-CLM-2
    let app = App::new();
    let ids = post_bodies(&app, [1]).await;
    let claim = claim(&app, 1).await;
    app.advance(300);
    let (shown, renewed) = (
        app.get(&path(&claim)).await,
        app.patch(&path(&claim), "{}").await,
    );
    refused("show", &shown, 404, "Not found", &no_such_claim(&claim));
    refused("renew", &renewed, 404, "Not found", &no_such_claim(&claim));
    no_content("release", &app.delete(&path(&claim)).await);
    app.get(&format!("{MESSAGES}/{}", ids[0]))
        .await
        .assert_is(200, &message(&ids[0], 3600, 300, "1"));
    assert_eq!(counts(&app, "fizbat").await, [0, 1, 1]);
}

#[tokio::test]
async fn messages_of_a_claim_whose_time_is_over_are_back_in_their_old_places() {
    let app = App::new();
    post_bodies(&app, 0..3).await;
    claim(&app, 2).await;
    post_bodies(&app, [3]).await;
    app.advance(300);
    assert_eq!(listed(&app).await, json!([0, 1, 2, 3]));
    let popped = app.delete(&format!("{MESSAGES}?pop=2")).await;
    assert_eq!(bodies(&popped), json!([0, 1]));
}

#[tokio::test]
async fn an_old_release_does_not_free_what_was_claimed_anew() {
    let app = App::new();
    post_bodies(&app, [1]).await;
    let first = claim(&app, 1).await;
    app.advance(300);
    let second = claim(&app, 1).await;
    no_content("", &app.delete(&path(&first)).await);
    assert_eq!(bodies(&app.get(&path(&second)).await), json!([1]));
    let claimed = app
        .get(&format!("{MESSAGES}?echo=true&include_claimed=true"))
        .await;
    let href = each(&claimed, "href")[0].as_str().unwrap().to_owned();
    assert!(href.ends_with(&format!("?claim_id={second}")), "{href}");
}

#[tokio::test]
async fn claims_end_with_the_messages_of_their_queue() {
    // Q-CLM-6, Q-QUE-7
    for purge in [true, false] {
        let app = App::new();
        post_bodies(&app, 0..3).await;
        let claim = claim(&app, 2).await;
        if purge {
            app.post(&format!("{QUEUE}/purge"), ())
                .await
                .assert_status(204);
        } else {
            app.delete(QUEUE).await.assert_status(204);
            app.put(QUEUE, ()).await.assert_status(201);
        }
        app.get(&path(&claim)).await.assert_status(404);
        assert_eq!(counts(&app, "fizbat").await, [0, 0, 0]);
        post_bodies(&app, ["new"]).await;
        assert_eq!(bodies(&app.post(CLAIMS, ()).await), json!(["new"]));
    }
}
