//! Renewing a claim (spec: claims.md 4).

use serde_json::{Value, json};

use super::{GRACE, TTL, no_such_claim, path};
use crate::api::messages::{
    CLAIMS, INVALID_BODY, INVALID_REQUEST, UNPARSABLE, UNSUPPORTED, bodies, claim, claim_id,
    counts, each, no_content, post, post_bodies, queues, refused, unknown_id,
};
use crate::api::support::App;

/// A service with a claimed message, and the claim.
async fn with_claim() -> (App, String) {
    let app = App::new();
    post_bodies(&app, [1]).await;
    let claim = claim(&app, 1).await;
    (app, claim)
}

#[tokio::test]
async fn a_renewal_sets_a_new_ttl_and_starts_the_age_again() {
    let (app, claim) = with_claim().await;
    app.advance(50);
    let answer = app
        .patch(&path(&claim), json!({"ttl": 100, "grace": 60}))
        .await;
    no_content("", &answer);
    for age in [0, 99] {
        app.advance(age);
        let document = app.get(&path(&claim)).await.json();
        assert_eq!(
            (&document["age"], &document["ttl"]),
            (&json!(age), &json!(100))
        );
    }
    app.advance(1);
    app.get(&path(&claim)).await.assert_status(404);
    assert_eq!(counts(&app, "fizbat").await, [0, 1, 1]);
}

#[tokio::test]
async fn a_renewal_holds_the_messages_beyond_the_first_end() {
    let (app, claim) = with_claim().await;
    app.advance(299);
    no_content("", &app.patch(&path(&claim), json!({"ttl": 300})).await);
    app.advance(299);
    assert_eq!(counts(&app, "fizbat").await, [1, 0, 1]);
    assert_eq!(bodies(&app.get(&path(&claim)).await), json!([1]));
    no_content("nothing free", &app.post(CLAIMS, ()).await);
}

#[tokio::test]
async fn a_renewal_may_make_a_claim_shorter() {
    let (app, claim) = with_claim().await;
    no_content("", &app.patch(&path(&claim), json!({"ttl": 60})).await);
    app.advance(60);
    app.get(&path(&claim)).await.assert_status(404);
    assert_eq!(bodies(&app.post(CLAIMS, ()).await), json!([1]));
}

#[tokio::test]
async fn terms_that_are_left_out_take_the_defaults_and_not_what_was_before() {
    for (terms, ttl, life) in [
        (json!({}), 300, 360),
        (json!({"other": null}), 300, 360),
        (json!({"ttl": 2000}), 2000, 2060),
        (json!({"ttl": 2000, "grace": 70}), 2000, 2070),
        (json!({"grace": 100}), 300, 400),
    ] {
        let app = App::new();
        post(&app, json!([{"body": 1, "ttl": 60}])).await;
        let first = json!({"ttl": 200, "grace": 90});
        let claim = claim_id(&app.post(CLAIMS, first).await);
        app.advance(100);
        no_content("", &app.patch(&path(&claim), &terms).await);
        let shown = app.get(&path(&claim)).await;
        assert_eq!(shown.json()["ttl"], ttl, "{terms}");
        assert_eq!(each(&shown, "ttl"), json!([life]), "{terms}");
    }
}

#[tokio::test]
async fn a_renewal_extends_the_messages_that_need_it() {
    for (ttl, renewed, shown) in [
        // It would end before the claim, with it, or after it.
        (200, 101, 161),
        (200, 100, 160),
        (200, 99, 200),
    ] {
        let app = App::new();
        post(&app, json!([{"body": 1, "ttl": ttl}])).await;
        let claim = claim_id(&app.post(CLAIMS, json!({"ttl": 150})).await);
        app.advance(100);
        no_content("", &app.patch(&path(&claim), json!({"ttl": renewed})).await);
        let answer = app.get(&path(&claim)).await;
        assert_eq!(each(&answer, "ttl"), json!([shown]), "{renewed}");
        assert_eq!(each(&answer, "age"), json!([100]), "{renewed}");
        // And it lives that long.
        app.advance(if shown == ttl { 99 } else { shown - 1 });
        assert_eq!(counts(&app, "fizbat").await[2], 1, "{renewed}");
        app.advance(1);
        assert_eq!(counts(&app, "fizbat").await[2], 0, "{renewed}");
    }
}

#[tokio::test]
async fn a_renewal_does_not_touch_messages_that_left_the_claim() {
    let app = App::new();
    let ids = post(
        &app,
        json!([{"body": 0, "ttl": 60}, {"body": 1, "ttl": 60}]),
    )
    .await;
    let claim = claim(&app, 1).await;
    no_content("", &app.patch(&path(&claim), json!({"ttl": 600})).await);
    app.advance(60);
    // The second was not claimed, and nothing extended it.
    let one = format!("{}/{}", crate::api::messages::MESSAGES, ids[1]);
    app.get(&one).await.assert_status(404);
    assert_eq!(counts(&app, "fizbat").await, [1, 0, 1]);
}

#[tokio::test]
async fn a_renewal_does_not_count_as_a_claim() {
    let app = App::new();
    let settings = json!({"_max_claim_count": 2, "_dead_letter_queue": "dead"});
    crate::api::messages::create(&app, settings).await;
    post_bodies(&app, [1]).await;
    let claim = claim(&app, 1).await;
    for _ in 0..5 {
        no_content("", &app.patch(&path(&claim), "{}").await);
    }
    app.delete(&path(&claim)).await.assert_status(204);
    assert_eq!(bodies(&app.post(CLAIMS, ()).await), json!([1]));
}

#[tokio::test]
async fn a_renewal_needs_a_body() {
    let (app, claim) = with_claim().await;
    let answer = app.patch(&path(&claim), ()).await;
    answer.assert_refused(400, INVALID_BODY, "Request body can not be empty");
    for (terms, description) in [
        ("", UNPARSABLE),
        ("{", UNPARSABLE),
        ("60", UNPARSABLE),
        ("null", UNPARSABLE),
        ("[]", UNSUPPORTED),
        (r#"[{"ttl": 60}]"#, UNSUPPORTED),
    ] {
        let answer = app.patch(&path(&claim), terms).await;
        refused(terms, &answer, 400, INVALID_BODY, description);
    }
}

#[tokio::test]
async fn terms_that_are_no_integers_are_refused() {
    let (app, claim) = with_claim().await;
    for field in ["ttl", "grace"] {
        for value in [
            json!("60"),
            json!(60.0),
            json!(true),
            Value::Null,
            json!([]),
        ] {
            let terms = json!({field: value}).to_string();
            let answer = app.patch(&path(&claim), &*terms).await;
            let description = format!("The value of the \"{field}\" field must be a int.");
            refused(&terms, &answer, 400, INVALID_BODY, &description);
        }
    }
}

#[tokio::test]
async fn terms_out_of_bounds_are_refused_and_change_nothing() {
    // Q-CLM-8: the grace, too.
    let (app, claim) = with_claim().await;
    app.advance(10);
    for (field, description) in [("ttl", TTL), ("grace", GRACE)] {
        for secs in [59, 0, -1, 43201, 99_999_999, i64::MAX, i64::MIN] {
            let terms = json!({field: secs}).to_string();
            let answer = app.patch(&path(&claim), &*terms).await;
            refused(&terms, &answer, 400, INVALID_REQUEST, description);
        }
    }
    let document = app.get(&path(&claim)).await.json();
    assert_eq!(
        (&document["age"], &document["ttl"]),
        (&json!(10), &json!(300))
    );
    assert_eq!(document["messages"][0]["ttl"], 3600);
}

#[tokio::test]
async fn the_terms_may_be_anything_within_their_bounds() {
    let (app, claim) = with_claim().await;
    for secs in [60, 43200] {
        let terms = json!({"ttl": secs, "grace": secs});
        no_content("", &app.patch(&path(&claim), terms).await);
    }
}

#[tokio::test]
async fn a_claim_that_does_not_exist_is_not_found_once_the_terms_are_right() {
    let (app, live) = with_claim().await;
    let unknown = unknown_id();
    for id in [&*unknown, "zz", "", &live.to_uppercase()] {
        let wrong = app.patch(&path(id), json!({"ttl": 59})).await;
        refused(id, &wrong, 400, INVALID_REQUEST, TTL);
        let answer = app.patch(&path(id), "{}").await;
        refused(id, &answer, 404, "Not found", &no_such_claim(id));
    }
}

#[tokio::test]
async fn a_claim_of_a_queue_that_does_not_exist_is_not_found() {
    let app = App::new();
    let claim = unknown_id();
    let answer = app
        .patch(&format!("/v2/queues/nope/claims/{claim}"), "{}")
        .await;
    let description = format!("Claim {claim} does not exist in queue nope for project 480924");
    answer.assert_refused(404, "Not found", &description);
    assert_eq!(queues(&app).await, [""; 0]);
}
