//! Deleting several messages by id (spec: messages.md 7).

use serde_json::json;

use super::{
    CLAIMS, INVALID_REQUEST, MESSAGES, bodies, claim, claim_id, counts, listed, no_content,
    post_bodies, queues, refused, unknown_id,
};
use crate::api::support::{Answer, App};

const EITHER: &str = "The request should have either \"ids\" or \"pop\" parameter in the request, to be able to \
                      delete.";
const NOT_BOTH: &str = "pop and id params cannot be present together in the delete request.";
const COUNT: &str = "ids parameter should have at least 1 and not greater than 20 values.";
const BOTH: &str = "The request should have both \"ids\" and \"claim_ids\" parameter in the request when \
                    message_delete_with_claim_id is True.";
const CLAIMED: &str = "This message is claimed; it cannot be deleted without a valid claim ID.";

async fn delete(app: &App, query: &str) -> Answer {
    app.delete(&format!("{MESSAGES}?{query}")).await
}

#[tokio::test]
async fn the_messages_named_are_deleted() {
    let app = App::new();
    let ids = post_bodies(&app, 0..6).await;
    let query = format!("ids={},{}&ids={}", ids[4], ids[0], ids[2]);
    no_content("", &delete(&app, &query).await);
    assert_eq!(listed(&app).await, json!([1, 3, 5]));
}

#[tokio::test]
async fn twenty_messages_can_be_deleted_at_once() {
    let app = App::new();
    let ids = post_bodies(&app, 0..21).await;
    no_content(
        "",
        &delete(&app, &format!("ids={}", ids[..20].join(","))).await,
    );
    assert_eq!(listed(&app).await, json!([20]));
}

#[tokio::test]
async fn ids_that_name_nothing_are_skipped() {
    let app = App::new();
    let ids = post_bodies(&app, [0, 1]).await;
    let unknown = unknown_id();
    for query in [
        format!("ids={unknown},abc"),
        format!("ids={}", ids[1].to_uppercase()),
        format!("ids={0},{unknown},{0}", ids[0]),
    ] {
        no_content(&query, &delete(&app, &query).await);
    }
    assert_eq!(listed(&app).await, json!([1]));
}

#[tokio::test]
async fn a_queue_that_does_not_exist_has_nothing_to_delete() {
    let app = App::new();
    let path = format!("/v2/queues/nope/messages?ids={}", unknown_id());
    no_content("", &app.delete(&path).await);
    assert_eq!(queues(&app).await, [""; 0]);
}

#[tokio::test]
async fn claimed_messages_are_deleted_without_their_claim() {
    // Q-MSG-10
    let app = App::new();
    let ids = post_bodies(&app, 0..3).await;
    let claim = claim(&app, 2).await;
    let query = format!("ids={},{}", ids[0], ids[2]);
    no_content("", &delete(&app, &query).await);
    let held = app.get(&format!("{CLAIMS}/{claim}")).await;
    assert_eq!(bodies(&held), json!([1]));
    assert_eq!(counts(&app, "fizbat").await, [1, 0, 1]);
}

#[tokio::test]
async fn claim_ids_are_ignored_unless_the_service_asks_for_them() {
    let app = App::new();
    let ids = post_bodies(&app, 0..2).await;
    claim(&app, 1).await;
    let query = format!("ids={},{}&claim_ids={}", ids[0], ids[1], unknown_id());
    no_content("", &delete(&app, &query).await);
    assert_eq!(counts(&app, "fizbat").await, [0, 0, 0]);
}

#[tokio::test]
async fn a_delete_of_several_names_either_ids_or_a_number() {
    let app = App::new();
    post_bodies(&app, [0]).await;
    let many = vec!["x"; 21].join(",");
    for (query, description) in [
        ("", EITHER),
        ("ids=", EITHER),
        ("pop=", EITHER),
        ("ids=&pop=", EITHER),
        ("limit=5", EITHER),
        ("ids=abc&pop=1", NOT_BOTH),
        ("pop=0&ids=,", NOT_BOTH),
        ("ids=,", COUNT),
        (&*format!("ids={many}"), COUNT),
    ] {
        let answer = delete(&app, query).await;
        refused(query, &answer, 400, INVALID_REQUEST, description);
    }
    let answer = app.delete(MESSAGES).await;
    answer.assert_refused(400, INVALID_REQUEST, EITHER);
    assert_eq!(counts(&app, "fizbat").await, [0, 1, 1]);
}

#[tokio::test]
async fn the_largest_number_of_ids_can_be_configured() {
    let app = App::with("[limits]\nmax_messages_per_page = 2\n");
    no_content("", &delete(&app, "ids=a,b").await);
    let description = "ids parameter should have at least 1 and not greater than 2 values.";
    let answer = delete(&app, "ids=a,b,c").await;
    answer.assert_refused(400, INVALID_REQUEST, description);
}

/// A service that wants to be told the claims.
fn strict() -> App {
    App::with("[messages]\ndelete_with_claim_ids = true\n")
}

#[tokio::test]
async fn with_claim_ids_messages_are_deleted_that_these_claims_hold() {
    let app = strict();
    let ids = post_bodies(&app, 0..4).await;
    let (first, second) = (claim(&app, 2).await, claim(&app, 1).await);
    let query = format!("ids={},{}&claim_ids={second},{first}", ids[0], ids[2]);
    no_content("", &delete(&app, &query).await);
    let held = app.get(&format!("{CLAIMS}/{first}")).await;
    assert_eq!(bodies(&held), json!([1]));
    assert_eq!(counts(&app, "fizbat").await, [1, 1, 2]);
}

#[tokio::test]
async fn with_claim_ids_one_mismatch_refuses_the_whole_delete() {
    // Q-MSG-10
    let app = strict();
    let ids = post_bodies(&app, 0..4).await;
    let expired = claim_id(&app.post(CLAIMS, json!({"ttl": 60})).await);
    app.advance(60);
    let (first, second) = (claim(&app, 2).await, claim(&app, 1).await);
    let unknown = unknown_id();
    let (held, others, free) = (&ids[0], &ids[2], &ids[3]);
    for (case, ids, claims) in [
        ("a free message", format!("{held},{free}"), &*first),
        (
            "a message of another claim",
            format!("{held},{others}"),
            &*first,
        ),
        ("the claim of another message", held.clone(), &*second),
        ("an unknown claim", held.clone(), &*unknown),
        ("an ended claim", held.clone(), &*expired),
        ("no UUID", held.clone(), "abc"),
    ] {
        let answer = delete(&app, &format!("ids={ids}&claim_ids={claims}")).await;
        refused(case, &answer, 403, "Unable to delete", CLAIMED);
    }
    assert_eq!(counts(&app, "fizbat").await, [3, 1, 4]);
}

#[tokio::test]
async fn with_claim_ids_ids_that_name_nothing_are_skipped() {
    let app = strict();
    let ids = post_bodies(&app, [0]).await;
    let claim = claim(&app, 1).await;
    let query = format!("ids={},{},abc&claim_ids={claim}", unknown_id(), ids[0]);
    no_content("", &delete(&app, &query).await);
    let query = format!("ids={}&claim_ids={}", unknown_id(), unknown_id());
    no_content("", &delete(&app, &query).await);
    assert_eq!(counts(&app, "fizbat").await, [0, 0, 0]);
}

#[tokio::test]
async fn delete_with_claim_ids_needs_ids_and_claim_ids() {
    let app = strict();
    let ids = post_bodies(&app, [0]).await;
    for query in [
        format!("ids={}", ids[0]),
        format!("ids={}&claim_ids=", ids[0]),
        "ids=abc".to_owned(),
    ] {
        let answer = delete(&app, &query).await;
        refused(&query, &answer, 400, INVALID_REQUEST, BOTH);
    }
    assert_eq!(counts(&app, "fizbat").await, [0, 1, 1]);
}

#[tokio::test]
async fn with_claim_ids_the_other_refusals_stay() {
    let app = strict();
    let many = vec!["x"; 21].join(",");
    for (query, description) in [
        ("", EITHER),
        ("ids=abc&pop=1", NOT_BOTH),
        ("ids=,&claim_ids=abc", COUNT),
        (&*format!("ids={many}&claim_ids=abc"), COUNT),
    ] {
        let answer = delete(&app, query).await;
        refused(query, &answer, 400, INVALID_REQUEST, description);
    }
}

#[tokio::test]
async fn with_claim_ids_single_deletes_and_pops_stay_as_they_are() {
    let app = strict();
    let ids = post_bodies(&app, [0, 1, 2]).await;
    no_content("", &app.delete(&format!("{MESSAGES}/{}", ids[0])).await);
    assert_eq!(bodies(&delete(&app, "pop=1").await), json!([1]));
    let claim = claim(&app, 1).await;
    let path = format!("{MESSAGES}/{}?claim_id={claim}", ids[2]);
    no_content("", &app.delete(&path).await);
    assert_eq!(counts(&app, "fizbat").await, [0, 0, 0]);
}
