//! Popping (spec: messages.md 8).

use std::collections::HashSet;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    CLAIMS, INVALID_PARAMETER, INVALID_REQUEST, MESSAGES, bodies, claim, counts, create, each,
    listed, post, post_bodies, queues, refused,
};
use crate::api::support::{Answer, App};

async fn pop(app: &App, count: &str) -> Answer {
    app.delete(&format!("{MESSAGES}?pop={count}")).await
}

/// The claim that a popped message names.
fn popped_claim(answer: &Answer, at: usize) -> String {
    let claims = each(answer, "claim_id");
    claims[at].as_str().expect("a claim").to_owned()
}

#[tokio::test]
async fn popped_messages_have_a_form_of_their_own() {
    let app = App::new();
    let ids = post(
        &app,
        json!([{"ttl": 1800, "body": {"pct": 20}}, {"ttl": 60, "body": "x"}]),
    )
    .await;
    app.advance(12);
    let answer = pop(&app, "2").await;
    let claim = popped_claim(&answer, 0);
    let (first, second) = (&ids[0], &ids[1]);
    answer.assert_is(
        200,
        &format!(
            "{{\"messages\": [{{\"id\": \"{first}\", \"age\": 12, \"ttl\": 1800, \"body\": {{\"pct\":20}}, \
             \"claim_id\": \"{claim}\", \"claim_count\": 0}}, {{\"id\": \"{second}\", \"age\": 12, \"ttl\": 60, \
             \"body\": \"x\", \"claim_id\": \"{claim}\", \"claim_count\": 0}}]}}"
        ),
    );
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn the_claim_of_a_popped_message_names_nothing() {
    // Q-MSG-13
    let app = App::new();
    post_bodies(&app, [1, 2]).await;
    let claim = popped_claim(&pop(&app, "1").await, 0);
    let id = Uuid::parse_str(&claim).expect("a UUID");
    assert_eq!(id.to_string(), claim, "in its canonical form");
    app.get(&format!("{CLAIMS}/{claim}"))
        .await
        .assert_status(404);
    assert_ne!(popped_claim(&pop(&app, "1").await, 0), claim);
}

#[tokio::test]
async fn a_pop_takes_the_oldest_messages_and_deletes_them() {
    let app = App::new();
    let ids = post_bodies(&app, 0..5).await;
    assert_eq!(bodies(&pop(&app, "2").await), json!([0, 1]));
    app.get(&format!("{MESSAGES}/{}", ids[0]))
        .await
        .assert_status(404);
    assert_eq!(listed(&app).await, json!([2, 3, 4]));
    assert_eq!(bodies(&pop(&app, "20").await), json!([2, 3, 4]));
    assert_eq!(counts(&app, "fizbat").await, [0, 0, 0]);
}

#[tokio::test]
async fn an_empty_queue_pops_nothing() {
    let app = App::new();
    pop(&app, "5").await.assert_is(200, r#"{"messages": []}"#);
    assert_eq!(queues(&app).await, [""; 0]);
    create(&app, json!({})).await;
    let answer = pop(&app, "5").await;
    answer.assert_is(200, r#"{"messages": []}"#);
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn claimed_messages_are_not_popped() {
    let app = App::new();
    post_bodies(&app, 0..3).await;
    let claim = claim(&app, 2).await;
    assert_eq!(bodies(&pop(&app, "20").await), json!([2]));
    app.delete(&format!("{CLAIMS}/{claim}")).await;
    assert_eq!(bodies(&pop(&app, "20").await), json!([0, 1]));
}

#[tokio::test]
async fn delayed_messages_are_not_popped() {
    let app = App::new();
    create(&app, json!({"_default_message_delay": 60})).await;
    post(
        &app,
        json!([{"body": "later"}, {"body": "now", "delay": 0}]),
    )
    .await;
    assert_eq!(bodies(&pop(&app, "20").await), json!(["now"]));
    app.advance(60);
    assert_eq!(bodies(&pop(&app, "20").await), json!(["later"]));
}

#[tokio::test]
async fn a_message_shows_how_often_it_was_claimed() {
    let app = App::new();
    create(
        &app,
        json!({"_max_claim_count": 5, "_dead_letter_queue": "dead"}),
    )
    .await;
    post_bodies(&app, [0, 1]).await;
    for limit in [1, 1, 2] {
        let claim = claim(&app, limit).await;
        app.delete(&format!("{CLAIMS}/{claim}")).await;
    }
    assert_eq!(each(&pop(&app, "2").await, "claim_count"), json!([3, 1]));
}

#[tokio::test]
async fn claims_are_not_counted_where_no_dead_letters_are_kept() {
    let app = App::new();
    post_bodies(&app, [0]).await;
    let claim = claim(&app, 1).await;
    app.delete(&format!("{CLAIMS}/{claim}")).await;
    assert_eq!(each(&pop(&app, "1").await, "claim_count"), json!([0]));
}

#[tokio::test]
async fn a_number_has_all_the_spellings_of_an_integer() {
    let app = App::new();
    post_bodies(&app, 0..7).await;
    for (count, expected) in [
        ("%2B2", json!([0, 1])),
        ("+1+", json!([2])),
        ("9,1", json!([3])),
        ("0_2", json!([4, 5])),
        ("9&pop=1", json!([6])),
    ] {
        assert_eq!(bodies(&pop(&app, count).await), expected, "{count}");
    }
}

#[tokio::test]
async fn a_number_out_of_bounds_is_refused() {
    let app = App::new();
    post_bodies(&app, [0]).await;
    for count in ["0", "21", "-1", "99999999999999999999"] {
        let answer = pop(&app, count).await;
        let description = "Pop value must be at least 1 and may not be greater than 20.";
        refused(count, &answer, 400, INVALID_REQUEST, description);
    }
    assert_eq!(counts(&app, "fizbat").await, [0, 1, 1]);
}

#[tokio::test]
async fn what_is_no_number_is_refused() {
    let app = App::new();
    for count in ["x", "1.0", "true"] {
        let answer = pop(&app, count).await;
        let description = r#"The "pop" parameter is invalid. The value must be an integer."#;
        refused(count, &answer, 400, INVALID_PARAMETER, description);
    }
}

#[tokio::test]
async fn the_largest_number_can_be_configured() {
    let app = App::with("[limits]\nmax_messages_per_claim_or_pop = 30\n");
    post_bodies(&app, 0..35).await;
    let popped = pop(&app, "30").await;
    let got = bodies(&popped);
    if crate::api::store::is_ordered() {
        assert_eq!(got, json!((0..30).collect::<Vec<_>>()));
    }
    let different: HashSet<u64> = (got.as_array().into_iter().flatten())
        .filter_map(Value::as_u64)
        .filter(|number| *number < 35)
        .collect();
    assert_eq!(different.len(), 30);
    assert_eq!(counts(&app, "fizbat").await, [0, 5, 5]);
    let description = "Pop value must be at least 1 and may not be greater than 30.";
    let answer = pop(&app, "31").await;
    answer.assert_refused(400, INVALID_REQUEST, description);
}
