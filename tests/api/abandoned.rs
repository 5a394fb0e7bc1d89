//! Claims and pops whose clients leave before they are answered.

use std::time::Duration;

use serde_json::{Value, json};

use crate::api::messages::{CLAIMS, MESSAGES, bodies, counts, create, each, post_bodies};
use crate::api::store;
use crate::api::support::{Answer, App};

/// Sends a request, and leaves after so many turns of the runtime; the answer, where it came before.
async fn leave_after(turns: usize, request: impl Future<Output = Answer>) -> Option<Answer> {
    let leave = async {
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        answer = request => Some(answer),
        () = leave => None,
    }
}

/// Waits until the queue has no messages that are held, and this many that are free.
async fn wait_for_free(app: &App, count: u64) {
    let mut seen = [0; 3];
    for _ in 0..2000 {
        seen = counts(app, "fizbat").await;
        if seen == [0, count, count] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("of {count} messages there are {seen:?} claimed, free and in all");
}

#[tokio::test]
async fn what_was_claimed_for_a_client_that_left_is_free_again() {
    let app = App::new();
    post_bodies(&app, [1, 2, 3]).await;
    for turns in 0..12 {
        let path = format!("{CLAIMS}?limit=2");
        if let Some(answer) = leave_after(turns, app.post(&path, ())).await {
            let claim = answer.header("location").expect("a claim").to_owned();
            app.delete(&claim).await.assert_status(204);
        }
        app.give_back().await;
        wait_for_free(&app, 3).await;
    }
}

/// Pops so many messages, which are all there is, in as many pops as the store needs. A broker may have one in front again a
/// moment after the ledger knows it.
async fn pop_all(app: &App, count: usize, field: &str) -> Vec<Value> {
    let mut found = Vec::new();
    for _ in 0..200 {
        let answer = app.delete(&format!("{MESSAGES}?pop={count}")).await;
        answer.assert_status(200);
        found.extend(each(&answer, field).as_array().cloned().unwrap_or_default());
        if found.len() >= count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    found
}

#[tokio::test]
async fn what_was_popped_for_a_client_that_left_is_there_again_where_it_stood() {
    for turns in 0..6 {
        let app = App::new();
        let mut ids = post_bodies(&app, [1, 2, 3]).await;
        let path = format!("{MESSAGES}?pop=2");
        if let Some(answer) = leave_after(turns, app.delete(&path)).await {
            let popped = each(&answer, "id");
            ids.retain(|id| !popped.as_array().expect("ids").contains(&json!(id)));
        }
        // All are free before the pop has begun in the store, too.
        app.give_back().await;
        wait_for_free(&app, ids.len() as u64).await;
        let mut popped = pop_all(&app, ids.len(), "id").await;
        if store::leases() {
            ids.sort();
            popped.sort_by_key(Value::to_string);
        }
        assert_eq!(json!(popped), json!(ids));
    }
}

#[tokio::test]
async fn what_was_popped_of_an_encrypted_queue_can_be_read_when_it_is_there_again() {
    let app = App::new();
    create(&app, json!({"_enable_encrypt_messages": true})).await;
    post_bodies(&app, ["secret"]).await;
    for turns in 0..8 {
        let path = format!("{MESSAGES}?pop=1");
        if let Some(answer) = leave_after(turns, app.delete(&path)).await {
            assert_eq!(bodies(&answer), json!(["secret"]));
            post_bodies(&app, ["secret"]).await;
        }
        app.give_back().await;
        wait_for_free(&app, 1).await;
    }
    assert_eq!(pop_all(&app, 1, "body").await, ["secret"]);
}

/// Nobody has heard of such a claim, so the message was not delivered: it is no dead letter at the next one.
#[tokio::test]
async fn a_claim_that_has_no_room_for_its_answer_does_not_count_for_the_dead_letter_policy() {
    // A project may have 100,000 bytes of answers under way, and nothing is begun for it when it has seven eighths.
    let app = App::with("[limits]\nmax_answer_bytes_under_way = 400000");
    let policy = json!({"_max_claim_count": 1, "_dead_letter_queue": "dead"});
    create(&app, policy).await;
    app.post_bodies("other", [json!("b".repeat(80_000))]).await;
    post_bodies(&app, ["b".repeat(50_000)]).await;
    let not_taken = app.respond("POST", "/v2/queues/other/claims", ()).await;
    assert_eq!(not_taken.status(), 201);
    for _ in 0..3 {
        app.post(CLAIMS, ()).await.assert_status(503);
        wait_for_free(&app, 1).await;
    }
    drop(not_taken);
    let claim = app.post(CLAIMS, ()).await;
    claim.assert_status(201);
    app.delete(claim.header("location").expect("a claim"))
        .await
        .assert_status(204);
    wait_for_free(&app, 1).await;
    app.post(CLAIMS, ()).await.assert_status(204);
}
