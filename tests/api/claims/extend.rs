//! A claimed message outlives its claim (spec: claims.md 1 and 7).

use serde_json::json;

use super::path;
use crate::api::messages::{
    CLAIMS, MESSAGES, claim_id, counts, each, held_message, listed, message, no_content, post,
};
use crate::api::support::App;

#[tokio::test]
async fn a_message_that_would_not_outlive_its_claim_is_extended() {
    for (ttl, age, claim_ttl, grace, shown) in [
        // It would end before the claim.
        (60, 0, 300, 60, 360),
        (300, 1, 300, 100, 400),
        (3600, 3540, 61, 60, 121),
        // It would end with the claim (Q-CLM-10, Q-CLM-11).
        (60, 0, 60, 60, 120),
        (300, 0, 300, 43200, 43500),
        (3600, 3300, 300, 60, 360),
        // It ends after the claim, be it inside the grace.
        (61, 0, 60, 60, 61),
        (300, 0, 60, 43200, 300),
        (3600, 3299, 300, 60, 3600),
    ] {
        let app = App::new();
        post(&app, json!([{"body": 1, "ttl": ttl}])).await;
        app.advance(age);
        let terms = json!({"ttl": claim_ttl, "grace": grace});
        let answer = app.post(CLAIMS, terms).await;
        let case = format!("{ttl} {age} {claim_ttl} {grace}");
        assert_eq!(each(&answer, "ttl"), json!([shown]), "{case}");
        assert_eq!(each(&answer, "age"), json!([age]), "{case}");
    }
}

#[tokio::test]
async fn only_those_messages_of_a_claim_are_extended_that_need_it() {
    let app = App::new();
    let messages =
        json!([{"body": 1, "ttl": 100}, {"body": 2, "ttl": 301}, {"body": 3, "ttl": 300}]);
    post(&app, messages).await;
    let answer = app.post(CLAIMS, ()).await;
    assert_eq!(each(&answer, "ttl"), json!([360, 301, 360]));
}

#[tokio::test]
async fn a_message_may_be_extended_beyond_the_longest_life() {
    let app = App::with("[limits]\nmax_message_ttl = 3600\n");
    post(&app, json!([{"body": 1, "ttl": 3600}])).await;
    let terms = json!({"ttl": 43200, "grace": 43200});
    let answer = app.post(CLAIMS, terms).await;
    assert_eq!(each(&answer, "ttl"), json!([86400]));
}

#[tokio::test]
async fn an_extended_message_really_lives_longer() {
    // Q-CLM-3
    let app = App::new();
    let id = &post(&app, json!([{"body": 1, "ttl": 60}])).await[0];
    let claim = claim_id(&app.post(CLAIMS, ()).await);
    app.advance(299);
    let held = held_message(id, &claim, 360, 299, "1");
    app.get(&format!("{MESSAGES}/{id}"))
        .await
        .assert_is(200, &held);
    app.advance(60);
    app.get(&format!("{MESSAGES}/{id}"))
        .await
        .assert_is(200, &message(id, 360, 359, "1"));
    app.advance(1);
    app.get(&format!("{MESSAGES}/{id}"))
        .await
        .assert_status(404);
    assert_eq!(counts(&app, "fizbat").await, [0, 0, 0]);
}

#[tokio::test]
async fn an_extended_life_stays_when_the_claim_is_released() {
    let app = App::new();
    let id = &post(&app, json!([{"body": 1, "ttl": 60}])).await[0];
    let claim = claim_id(&app.post(CLAIMS, ()).await);
    app.delete(&path(&claim)).await.assert_status(204);
    app.advance(359);
    app.get(&format!("{MESSAGES}/{id}"))
        .await
        .assert_is(200, &message(id, 360, 359, "1"));
    app.advance(1);
    assert_eq!(listed(&app).await, json!([]));
}

#[tokio::test]
async fn age_ttl_and_life_go_their_ways_as_in_the_worked_example() {
    let app = App::new();
    let id = &post(&app, json!([{"body": 0, "ttl": 60}])).await[0];
    let one = format!("{MESSAGES}/{id}");

    // t = 10: the claim will end at 310, the message at 370.
    app.advance(10);
    let answer = app.post(CLAIMS, json!({"ttl": 300, "grace": 60})).await;
    let claim = claim_id(&answer);
    let held = |age| held_message(id, &claim, 360, age, "0");
    answer.assert_is(201, &format!("{{\"messages\": [{}]}}", held(10)));
    let shown = |age, ttl, message: String| {
        format!(
            "{{\"age\": {age}, \"ttl\": {ttl}, \"messages\": [{message}], \"href\": \"{CLAIMS}/{claim}\"}}"
        )
    };

    // t = 50: the claim is renewed and will end at 150, before the message.
    app.advance(40);
    let answer = app.get(&path(&claim)).await;
    answer.assert_is(200, &shown(40, 300, held(50)));
    let renewal = app
        .patch(&path(&claim), json!({"ttl": 100, "grace": 60}))
        .await;
    no_content("renewal", &renewal);
    let answer = app.get(&path(&claim)).await;
    answer.assert_is(200, &shown(0, 100, held(50)));

    // t = 149 and t = 150: the claim is over, the message is free.
    app.advance(99);
    let answer = app.get(&path(&claim)).await;
    answer.assert_is(200, &shown(99, 100, held(149)));
    app.advance(1);
    app.get(&path(&claim)).await.assert_status(404);
    let free = |age| message(id, 360, age, "0");
    app.get(&one).await.assert_is(200, &free(150));
    assert_eq!(listed(&app).await, json!([0]));

    // t = 369 and t = 370: the message ends.
    app.advance(219);
    app.get(&one).await.assert_is(200, &free(369));
    app.advance(1);
    app.get(&one).await.assert_status(404);
    assert_eq!(listed(&app).await, json!([]));
}
