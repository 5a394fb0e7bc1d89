//! Claiming messages (spec: claims.md 1 and 2).

use std::collections::HashSet;

use serde_json::{Value, json};
use uuid::Uuid;

use super::path;
use crate::api::messages::{
    CLAIMS, MESSAGES, bodies, claim, claim_id, counts, create, each, held_message, listed,
    no_content, post, post_bodies, queues, reader,
};
use crate::api::support::App;

#[tokio::test]
async fn a_claim_is_answered_with_its_messages_and_its_path() {
    let app = App::new();
    let ids = post(
        &app,
        json!([
            {"ttl": 300, "body": {"event": "BackupStarted"}},
            {"ttl": 1800, "body": {"event": "BackupProgress", "pct": 20}},
            {"ttl": 1800, "body": "third"},
        ]),
    )
    .await;
    let answer = app
        .post(
            &format!("{CLAIMS}?limit=2"),
            json!({"ttl": 200, "grace": 300}),
        )
        .await;
    let id = claim_id(&answer);
    let first = held_message(&ids[0], &id, 300, 0, r#"{"event":"BackupStarted"}"#);
    let second = held_message(
        &ids[1],
        &id,
        1800,
        0,
        r#"{"event":"BackupProgress","pct":20}"#,
    );
    answer.assert_is(201, &format!("{{\"messages\": [{first}, {second}]}}"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("location"), Some(&*path(&id)));
    let parsed = Uuid::parse_str(&id).expect("a UUID");
    assert_eq!(parsed.to_string(), id, "in its canonical form");
}

#[tokio::test]
async fn claimed_messages_show_their_age_and_are_taken_oldest_first() {
    let app = App::new();
    let first = post_bodies(&app, [1]).await.remove(0);
    app.advance(10);
    let second = post_bodies(&reader(&app), [2]).await.remove(0);
    app.advance(5);
    let answer = app.post(CLAIMS, ()).await;
    let id = claim_id(&answer);
    let first = held_message(&first, &id, 3600, 15, "1");
    let second = held_message(&second, &id, 3600, 5, "2");
    answer.assert_is(201, &format!("{{\"messages\": [{first}, {second}]}}"));
}

#[tokio::test]
async fn without_terms_a_claim_has_the_defaults() {
    let app = App::new();
    for (case, body) in [
        ("no body", None),
        ("an empty body", Some("")),
        ("no fields", Some("{}")),
        (
            "unknown fields",
            Some(r#"{"limit": 0, "ttI": "x", "id": 5}"#),
        ),
    ] {
        post(&app, json!([{"body": 1, "ttl": 60}])).await;
        let answer = match body {
            None => app.post(CLAIMS, ()).await,
            Some(body) => app.post(CLAIMS, body).await,
        };
        // The message's life is the claim's and the grace.
        assert_eq!(each(&answer, "ttl"), json!([360]), "{case}");
        let shown = app.get(&path(&claim_id(&answer))).await;
        assert_eq!(shown.json()["ttl"], 300, "{case}");
    }
}

#[tokio::test]
async fn create_claim_without_ttl_or_grace_uses_defaults() {
    for (terms, ttl, extended) in [
        (json!({"ttl": 100}), 100, 160),
        (json!({"grace": 100}), 300, 400),
    ] {
        let app = App::new();
        post(&app, json!([{"body": 1, "ttl": 60}])).await;
        let answer = app.post(CLAIMS, &terms).await;
        assert_eq!(each(&answer, "ttl"), json!([extended]), "{terms}");
        let shown = app.get(&path(&claim_id(&answer))).await;
        assert_eq!(shown.json()["ttl"], ttl, "{terms}");
    }
}

#[tokio::test]
async fn the_defaults_can_be_configured() {
    let app = App::with("[limits]\ndefault_claim_ttl = 90\ndefault_claim_grace = 70\n");
    post(&app, json!([{"body": 1, "ttl": 60}])).await;
    let answer = app.post(CLAIMS, ()).await;
    assert_eq!(each(&answer, "ttl"), json!([160]));
}

#[tokio::test]
async fn of_a_term_that_stands_twice_the_last_counts() {
    let app = App::new();
    post_bodies(&app, [1]).await;
    let terms = r#" {"ttl": "wrong", "ttl": 59, "ttl": 100} "#;
    let id = claim_id(&app.post(CLAIMS, terms).await);
    assert_eq!(app.get(&path(&id)).await.json()["ttl"], 100);
}

#[tokio::test]
async fn the_terms_may_be_anything_within_their_bounds() {
    let app = App::new();
    for terms in [
        json!({"ttl": 60, "grace": 60}),
        json!({"ttl": 43200, "grace": 43200}),
    ] {
        post_bodies(&app, [1]).await;
        app.post(CLAIMS, terms).await.assert_status(201);
    }
}

#[tokio::test]
async fn where_there_is_nothing_to_claim_the_answer_is_empty() {
    let app = App::new();
    no_content("no queue", &app.post(CLAIMS, ()).await);
    // A claim creates no queue.
    assert_eq!(queues(&app).await, [""; 0]);
    create(&app, json!({})).await;
    no_content("no messages", &app.post(CLAIMS, json!({"ttl": 60})).await);
    post_bodies(&app, [1]).await;
    claim(&app, 1).await;
    no_content(
        "none free",
        &app.post(&format!("{CLAIMS}?limit=20"), "").await,
    );
}

#[tokio::test]
async fn a_claim_takes_as_many_messages_as_its_limit() {
    for (query, count) in [
        ("", 10),
        ("?limit=", 10),
        ("?limit=1", 1),
        ("?limit=20", 20),
        ("?limit=%2B5", 5),
        ("?limit=9,3", 3),
        ("?limit=1&limit=1_2", 12),
        ("?colour=red", 10),
    ] {
        let app = App::new();
        post_bodies(&app, 0..25).await;
        let answer = app.post(&format!("{CLAIMS}{query}"), ()).await;
        if crate::api::store::is_ordered() {
            let expected: Vec<_> = (0..count).collect();
            assert_eq!(bodies(&answer), json!(expected), "{query}");
        }
        let left = 25 - count;
        assert_eq!(counts(&app, "fizbat").await, [count, left, 25], "{query}");
    }
}

#[tokio::test]
async fn the_largest_limit_can_be_configured() {
    let app = App::with("[limits]\nmax_messages_per_claim_or_pop = 30\n");
    post_bodies(&app, 0..35).await;
    let answer = app.post(&format!("{CLAIMS}?limit=30"), ()).await;
    let got = bodies(&answer);
    if crate::api::store::is_ordered() {
        assert_eq!(got, json!((0..30).collect::<Vec<_>>()));
    }
    let different: HashSet<u64> = (got.as_array().into_iter().flatten())
        .filter_map(Value::as_u64)
        .filter(|number| *number < 35)
        .collect();
    assert_eq!(different.len(), 30);
    assert_eq!(counts(&app, "fizbat").await, [30, 5, 35]);
    let description = "Limit must be at least 1 and may not be greater than 30.";
    let answer = app.post(&format!("{CLAIMS}?limit=31"), ()).await;
    answer.assert_refused(400, "Invalid API request", description);
}

#[tokio::test]
async fn a_message_is_in_one_claim_at_a_time() {
    let app = App::new();
    post_bodies(&app, 0..5).await;
    let path = format!("{CLAIMS}?limit=2");
    for expected in [json!([0, 1]), json!([2, 3]), json!([4])] {
        assert_eq!(bodies(&app.post(&path, ()).await), expected);
    }
    no_content("all taken", &app.post(&path, ()).await);
}

#[tokio::test]
async fn a_claim_takes_only_messages_that_are_free() {
    // Q-CLM-1: free messages in front of claimed ones.
    let app = App::new();
    let ids = post_bodies(&app, 0..6).await;
    let (first, second) = (claim(&app, 2).await, claim(&app, 2).await);
    app.delete(&path(&first)).await.assert_status(204);
    let answer = app.post(CLAIMS, ()).await;
    assert_eq!(bodies(&answer), json!([0, 1, 4, 5]));
    assert_eq!(counts(&app, "fizbat").await, [6, 0, 6]);
    assert_eq!(bodies(&app.get(&path(&second)).await), json!([2, 3]));
    let held = format!("{MESSAGES}/{}?claim_id={second}", ids[2]);
    no_content("still its own", &app.delete(&held).await);
}

#[tokio::test]
async fn own_messages_are_claimed_like_any_other() {
    let app = App::new();
    post_bodies(&app, ["own"]).await;
    assert_eq!(bodies(&app.post(CLAIMS, ()).await), json!(["own"]));
}

#[tokio::test]
async fn claimed_messages_are_neither_listed_nor_free() {
    let app = App::new();
    post_bodies(&app, 0..3).await;
    assert_eq!(counts(&app, "fizbat").await, [0, 3, 3]);
    claim(&app, 2).await;
    assert_eq!(counts(&app, "fizbat").await, [2, 1, 3]);
    assert_eq!(listed(&app).await, json!([2]));
}

#[tokio::test]
async fn a_chunked_body_has_terms_too() {
    // Q-HTTP-1
    let app = App::new();
    post_bodies(&app, [1]).await;
    let pieces = [r#"{"tt"#, r#"l": 100}"#].map(|piece| piece.into());
    let body = crate::api::support::Payload::chunked(pieces);
    let id = claim_id(&app.post(CLAIMS, body).await);
    assert_eq!(app.get(&path(&id)).await.json()["ttl"], 100);
}

#[tokio::test]
async fn claims_at_once_never_share_a_message() {
    let app = App::new();
    post_bodies(&app, 0..200).await;
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let app = app.clone();
            tokio::spawn(async move { each(&app.post(CLAIMS, ()).await, "id") })
        })
        .collect();
    let mut seen = std::collections::HashSet::new();
    for task in tasks {
        for id in task.await.unwrap().as_array().unwrap() {
            assert!(seen.insert(id.as_str().unwrap().to_owned()), "{id} twice");
        }
    }
    assert_eq!(seen.len(), 200);
    no_content("all taken", &app.post(CLAIMS, ()).await);
}
