//! Deleting one message (spec: messages.md 6).

use serde_json::json;

use super::{
    CLAIMS, MESSAGES, claim, claim_id, counts, listed, no_content, post_bodies, queues, refused,
    unknown_id,
};
use crate::api::support::App;

const UNABLE: &str = "Unable to delete";
const NOT_CLAIMED: &str = "A claim was specified, but the message is not currently claimed.";
const CLAIMED: &str = "This message is claimed; it cannot be deleted without a valid claim ID.";
const NO_SUCH_CLAIM: &str = "The specified claim does not exist or has expired.";

#[tokio::test]
async fn a_free_message_is_deleted_without_a_claim() {
    let app = App::new();
    let ids = post_bodies(&app, [0, 1, 2]).await;
    for (id, query) in [(&ids[0], ""), (&ids[2], "?claim_id=")] {
        let path = format!("{MESSAGES}/{id}");
        no_content(query, &app.delete(&format!("{path}{query}")).await);
        app.get(&path).await.assert_status(404);
    }
    assert_eq!(listed(&app).await, json!([1]));
}

#[tokio::test]
async fn a_message_of_another_client_is_deleted_as_well() {
    let app = App::new();
    let ids = post_bodies(&app, [0]).await;
    let other = super::reader(&app);
    no_content("", &other.delete(&format!("{MESSAGES}/{}", ids[0])).await);
    assert_eq!(counts(&app, "fizbat").await, [0, 0, 0]);
}

#[tokio::test]
async fn a_claimed_message_is_deleted_with_its_claim_and_leaves_it() {
    let app = App::new();
    let ids = post_bodies(&app, [0, 1]).await;
    let claim = claim(&app, 2).await;
    let path = format!("{MESSAGES}/{}", ids[0]);
    no_content("", &app.delete(&format!("{path}?claim_id={claim}")).await);
    app.get(&path).await.assert_status(404);
    let held = app.get(&format!("{CLAIMS}/{claim}")).await;
    assert_eq!(super::bodies(&held), json!([1]));
    assert_eq!(counts(&app, "fizbat").await, [1, 0, 1]);
}

#[tokio::test]
async fn the_href_of_a_claimed_message_is_what_deletes_it() {
    let app = App::new();
    post_bodies(&app, [0]).await;
    let claimed = app.post(CLAIMS, ()).await;
    let href = &super::each(&claimed, "href")[0];
    no_content("", &app.delete(href.as_str().unwrap()).await);
    assert_eq!(counts(&app, "fizbat").await, [0, 0, 0]);
}

#[tokio::test]
async fn what_does_not_exist_is_deleted_already() {
    let app = App::new();
    let known = post_bodies(&app, [0]).await.remove(0);
    let held = claim(&app, 1).await;
    let (message, other) = (unknown_id(), unknown_id());
    for path in [
        format!("{MESSAGES}/{message}"),
        format!("{MESSAGES}/{message}?claim_id={other}"),
        format!("{MESSAGES}/{message}?claim_id={held}"),
        format!("{MESSAGES}/{message}?claim_id=abc"),
        format!("{MESSAGES}/zz?claim_id=abc"),
        format!("/v2/queues/nope/messages/{message}?claim_id=abc"),
        format!("{MESSAGES}/zz"),
        format!("{MESSAGES}/zz?claim_id={other}"),
        format!("{MESSAGES}/{}", known.to_uppercase()),
        format!("/v2/queues/nope/messages/{message}"),
        format!("/v2/queues/nope/messages/{message}?claim_id={other}"),
        "/v2/queues/nope/messages/zz".to_owned(),
    ] {
        no_content(&path, &app.delete(&path).await);
    }
    assert_eq!(counts(&app, "fizbat").await, [1, 0, 1]);
    assert_eq!(queues(&app).await, ["fizbat"]);
}

#[tokio::test]
async fn a_message_is_deleted_twice_with_the_same_answer() {
    let app = App::new();
    let path = format!("{MESSAGES}/{}", post_bodies(&app, [0]).await[0]);
    for case in ["first", "second"] {
        no_content(case, &app.delete(&path).await);
    }
}

#[tokio::test]
async fn a_delete_that_does_not_fit_the_claim_is_refused() {
    let app = App::new();
    let ids = post_bodies(&app, 0..4).await;
    let expired = claim_id(&app.post(CLAIMS, json!({"ttl": 60})).await);
    app.advance(60);
    // After a claim that has ended: 0 is held by one claim, 1 by another, 2 is free again, 4 was never claimed.
    let (holder, other) = (claim(&app, 1).await, claim(&app, 1).await);
    let fresh = post_bodies(&app, [4]).await.remove(0);
    let elsewhere = {
        app.post_bodies("elsewhere", [json!(0)]).await;
        claim_id(&app.post("/v2/queues/elsewhere/claims", ()).await)
    };
    let foreign = {
        let project = app.project("foreign");
        post_bodies(&project, [0]).await;
        claim(&project, 1).await
    };
    let unknown = unknown_id();
    let upper = holder.to_uppercase();
    for (case, id, claim, status, description) in [
        ("free, a live claim", &fresh, &*holder, 400, NOT_CLAIMED),
        ("free, any UUID", &fresh, &*unknown, 400, NOT_CLAIMED),
        (
            "free again, its old claim",
            &ids[2],
            &*expired,
            400,
            NOT_CLAIMED,
        ),
        (
            "free again, a live claim",
            &ids[2],
            &*holder,
            400,
            NOT_CLAIMED,
        ),
        ("claimed, no claim", &ids[0], "", 403, CLAIMED),
        ("claimed, another claim", &ids[0], &*other, 403, CLAIMED),
        (
            "claimed, the other way round",
            &ids[1],
            &*holder,
            403,
            CLAIMED,
        ),
        (
            "claimed, an unknown claim",
            &ids[0],
            &*unknown,
            400,
            NO_SUCH_CLAIM,
        ),
        (
            "claimed, an ended claim",
            &ids[0],
            &*expired,
            400,
            NO_SUCH_CLAIM,
        ),
        (
            "claimed, its claim in capitals",
            &ids[0],
            &*upper,
            400,
            NO_SUCH_CLAIM,
        ),
        (
            "claimed, of another queue",
            &ids[0],
            &*elsewhere,
            400,
            NO_SUCH_CLAIM,
        ),
        (
            "claimed, of another project",
            &ids[0],
            &*foreign,
            400,
            NO_SUCH_CLAIM,
        ),
        ("claimed, no UUID", &ids[0], "abc", 400, NO_SUCH_CLAIM),
        ("free, no UUID", &fresh, "abc", 400, NO_SUCH_CLAIM),
    ] {
        let path = format!("{MESSAGES}/{id}?claim_id={claim}");
        refused(case, &app.delete(&path).await, status, UNABLE, description);
    }
    let answer = app.delete(&format!("{MESSAGES}/{}", ids[0])).await;
    answer.assert_refused(403, UNABLE, CLAIMED);
    assert_eq!(counts(&app, "fizbat").await, [2, 3, 5]);
}

#[tokio::test]
async fn a_message_is_free_to_delete_once_its_claim_has_ended() {
    let app = App::new();
    let ids = post_bodies(&app, [0, 1]).await;
    claim(&app, 1).await;
    app.advance(300);
    no_content("", &app.delete(&format!("{MESSAGES}/{}", ids[0])).await);
    let released = claim(&app, 1).await;
    app.delete(&format!("{CLAIMS}/{released}")).await;
    no_content("", &app.delete(&format!("{MESSAGES}/{}", ids[1])).await);
}
