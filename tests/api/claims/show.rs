//! Asking for a claim (spec: claims.md 3).

use serde_json::json;

use super::{no_such_claim, path};
use crate::api::messages::{
    CLAIMS, MESSAGES, bodies, claim, claim_id, held_message, post, post_bodies, queues, refused,
    unknown_id,
};
use crate::api::support::App;

#[tokio::test]
async fn a_claim_shows_its_age_its_ttl_and_its_messages() {
    let app = App::new();
    let ids = post(
        &app,
        json!([{"body": 0, "ttl": 60}, {"body": 1, "ttl": 999}]),
    )
    .await;
    app.advance(3);
    let claim = claim_id(&app.post(CLAIMS, json!({"ttl": 300, "grace": 60})).await);
    app.advance(2);
    let answer = app.get(&path(&claim)).await;
    let (first, second) = (
        held_message(&ids[0], &claim, 360, 5, "0"),
        held_message(&ids[1], &claim, 999, 5, "1"),
    );
    answer.assert_is(
        200,
        &format!(
            "{{\"age\": 2, \"ttl\": 300, \"messages\": [{first}, {second}], \"href\": \
             \"/v2/queues/fizbat/claims/{claim}\"}}"
        ),
    );
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn a_claim_can_be_asked_for_by_any_client_of_the_project() {
    let app = App::new();
    post_bodies(&app, [1]).await;
    let path = path(&claim(&app, 1).await);
    let own = app.get(&path).await;
    let other = crate::api::messages::reader(&app).get(&path).await;
    other.assert_is(200, own.text());
}

#[tokio::test]
async fn a_claim_does_not_show_messages_that_were_deleted() {
    let app = App::new();
    let ids = post_bodies(&app, 0..3).await;
    let claim = claim(&app, 3).await;
    let held = format!("{MESSAGES}/{}?claim_id={claim}", ids[1]);
    app.delete(&held).await.assert_status(204);
    let shown = app.get(&path(&claim)).await;
    assert_eq!(bodies(&shown), json!([0, 2]));
}

#[tokio::test]
async fn a_claim_whose_messages_were_all_deleted_is_still_there() {
    let app = App::new();
    let ids = post_bodies(&app, [0]).await;
    let claim = claim(&app, 1).await;
    let held = format!("{MESSAGES}/{}?claim_id={claim}", ids[0]);
    app.delete(&held).await.assert_status(204);
    app.advance(299);
    let document =
        format!("{{\"age\": 299, \"ttl\": 300, \"messages\": [], \"href\": \"{CLAIMS}/{claim}\"}}");
    app.get(&path(&claim)).await.assert_is(200, &document);
    app.advance(1);
    app.get(&path(&claim)).await.assert_status(404);
}

#[tokio::test]
async fn a_claim_shows_only_its_own_messages() {
    let app = App::new();
    post_bodies(&app, 0..4).await;
    let (first, second) = (claim(&app, 2).await, claim(&app, 1).await);
    assert_eq!(bodies(&app.get(&path(&first)).await), json!([0, 1]));
    assert_eq!(bodies(&app.get(&path(&second)).await), json!([2]));
}

#[tokio::test]
async fn a_claim_that_does_not_exist_is_not_found() {
    let app = App::new();
    post_bodies(&app, [1]).await;
    let live = claim(&app, 1).await;
    let unknown = unknown_id();
    for (segment, id) in [
        (&*unknown, &*unknown),
        ("zz", "zz"),
        ("", ""),
        ("%C3%A9%20x", "é x"),
        (&live.to_uppercase(), &live.to_uppercase()),
        (&live.replace('-', ""), &live.replace('-', "")),
    ] {
        let answer = app.get(&path(segment)).await;
        refused(segment, &answer, 404, "Not found", &no_such_claim(id));
    }
}

#[tokio::test]
async fn a_claim_of_a_queue_that_does_not_exist_is_not_found() {
    let app = App::new();
    let claim = unknown_id();
    let answer = app.get(&format!("/v2/queues/nope/claims/{claim}")).await;
    let description = format!("Claim {claim} does not exist in queue nope for project 480924");
    answer.assert_refused(404, "Not found", &description);
    assert_eq!(queues(&app).await, [""; 0]);
}
