//! Dead-letter queues (spec: claims.md 6, quirk Q-CLM-7).

use serde_json::{Value, json};

use crate::api::messages::{
    CLAIMS, MESSAGES, QUEUE, bodies, claim_id, counts, create, each, listed, no_content, post,
    post_bodies, queues, reader,
};
use crate::api::support::{Answer, App};

/// A service whose queue moves messages to `dead` after so many claims.
async fn burying_after(claims: i64) -> App {
    let app = App::new();
    create(
        &app,
        json!({"_max_claim_count": claims, "_dead_letter_queue": "dead"}),
    )
    .await;
    app
}

/// Claims what there is, shows it, and gives it back.
async fn deliver(app: &App) -> Value {
    let answer = app.post(CLAIMS, ()).await;
    if answer.status == 204 {
        return json!([]);
    }
    let path = format!("{CLAIMS}/{}", claim_id(&answer));
    app.delete(&path).await.assert_status(204);
    bodies(&answer)
}

/// What another client finds in a queue.
async fn found(app: &App, queue: &str) -> Answer {
    let answer = reader(app)
        .get(&format!("/v2/queues/{queue}/messages?limit=20"))
        .await;
    answer.assert_status(200);
    answer
}

#[tokio::test]
async fn a_message_is_moved_by_the_claim_after_the_last_allowed_one() {
    let app = burying_after(2).await;
    post_bodies(&app, ["poison"]).await;
    assert_eq!(deliver(&app).await, json!(["poison"]));
    assert_eq!(deliver(&app).await, json!(["poison"]));
    assert_eq!(counts(&app, "dead").await, [0, 0, 0]);
    no_content("everything was moved", &app.post(CLAIMS, ()).await);
    assert_eq!(counts(&app, "fizbat").await, [0, 0, 0]);
    assert_eq!(bodies(&found(&app, "dead").await), json!(["poison"]));
}

#[tokio::test]
async fn claims_that_ran_out_count_as_well() {
    let app = burying_after(1).await;
    post_bodies(&app, ["poison"]).await;
    app.post(CLAIMS, json!({"ttl": 60})).await;
    app.advance(60);
    no_content("moved", &app.post(CLAIMS, ()).await);
    assert_eq!(bodies(&found(&app, "dead").await), json!(["poison"]));
}

#[tokio::test]
async fn with_a_limit_of_none_the_first_claim_moves_everything() {
    for limit in [0, -5] {
        let app = burying_after(limit).await;
        post_bodies(&app, 0..3).await;
        no_content("all moved", &app.post(CLAIMS, ()).await);
        assert_eq!(bodies(&found(&app, "dead").await), json!([0, 1, 2]));
    }
}

#[tokio::test]
async fn a_claim_delivers_what_may_be_delivered_and_moves_the_rest() {
    let app = burying_after(1).await;
    post_bodies(&app, ["old 1", "old 2"]).await;
    deliver(&app).await;
    post_bodies(&app, ["new 1", "new 2"]).await;
    // What is moved does not count towards the limit.
    let answer = app.post(&format!("{CLAIMS}?limit=2"), ()).await;
    assert_eq!(bodies(&answer), json!(["new 1", "new 2"]));
    assert_eq!(counts(&app, "fizbat").await, [2, 0, 2]);
    assert_eq!(
        bodies(&found(&app, "dead").await),
        json!(["old 1", "old 2"])
    );
}

#[tokio::test]
async fn a_moved_message_keeps_its_id_its_body_and_its_age() {
    let app = burying_after(0).await;
    let text = r#"{"messages": [{"ttl": 1000, "body": {"b":  1.50}}]}"#;
    let posted = app.post(MESSAGES, text).await.json();
    let path = posted["resources"][0].as_str().unwrap();
    let id = path.rsplit('/').next().unwrap();
    app.advance(100);
    no_content("moved", &app.post(CLAIMS, ()).await);
    app.get(&format!("/v2/queues/dead/messages/{id}"))
        .await
        .assert_is(
            200,
            &format!(
                "{{\"id\": \"{id}\", \"href\": \"/v2/queues/dead/messages/{id}\", \"ttl\": 1000, \"age\": 100, \
                 \"body\": {{\"b\":  1.50}}}}"
            ),
        );
    app.get(path).await.assert_status(404);
    // Its life goes on as before.
    app.advance(899);
    assert_eq!(counts(&app, "dead").await, [0, 1, 1]);
    app.advance(1);
    assert_eq!(counts(&app, "dead").await, [0, 0, 0]);
}

#[tokio::test]
async fn a_moved_message_is_still_its_clients_own() {
    let app = burying_after(0).await;
    post_bodies(&app, [1]).await;
    deliver(&app).await;
    let own = app.get("/v2/queues/dead/messages").await;
    assert_eq!(bodies(&own), json!([]));
    assert_eq!(bodies(&found(&app, "dead").await), json!([1]));
}

#[tokio::test]
async fn a_moved_message_is_free_at_once_and_counted_anew() {
    let app = burying_after(1).await;
    post_bodies(&app, [1]).await;
    deliver(&app).await;
    deliver(&app).await;
    assert_eq!(counts(&app, "dead").await, [0, 1, 1]);
    let answer = app.post("/v2/queues/dead/claims", ()).await;
    assert_eq!(bodies(&answer), json!([1]));
    let path = format!("/v2/queues/dead/claims/{}", claim_id(&answer));
    app.delete(&path).await.assert_status(204);
    let popped = app.delete("/v2/queues/dead/messages?pop=1").await;
    assert_eq!(each(&popped, "claim_count"), json!([0]));
}

#[tokio::test]
async fn moved_messages_go_to_the_end_of_the_dead_letter_queue_in_order() {
    let app = burying_after(1).await;
    post_bodies(&app, 1..=3).await;
    deliver(&app).await;
    // These are younger, and in the queue already.
    app.post_bodies("dead", [json!("first"), json!("second")])
        .await;
    deliver(&app).await;
    assert_eq!(
        bodies(&found(&app, "dead").await),
        json!(["first", "second", 1, 2, 3])
    );
}

#[tokio::test]
async fn the_dead_letter_queue_is_created_when_it_is_needed() {
    let app = burying_after(0).await;
    post_bodies(&app, [1]).await;
    assert_eq!(queues(&app).await, ["fizbat"]);
    deliver(&app).await;
    assert_eq!(queues(&app).await, ["dead", "fizbat"]);
}

#[tokio::test]
async fn the_name_of_a_dead_letter_queue_may_have_dots() {
    let app = App::new();
    let settings = json!({"_max_claim_count": 0, "_dead_letter_queue": "dead.dot.x"});
    let project = app.project("pro.ject");
    create(&project, settings).await;
    post_bodies(&project, [1]).await;
    deliver(&project).await;
    assert_eq!(queues(&project).await, ["dead.dot.x", "fizbat"]);
    assert_eq!(bodies(&found(&project, "dead.dot.x").await), json!([1]));
    assert_eq!(queues(&app).await, [""; 0]);
}

#[tokio::test]
async fn a_dead_letter_queue_with_settings_of_its_own_keeps_them() {
    let app = burying_after(0).await;
    let settings = json!({"_default_message_delay": 900, "team": "billing"});
    app.put("/v2/queues/dead", settings)
        .await
        .assert_status(201);
    post_bodies(&app, [1]).await;
    deliver(&app).await;
    // Free at once: what is moved is not posted, and not delayed.
    assert_eq!(bodies(&found(&app, "dead").await), json!([1]));
    let shown = app.get("/v2/queues/dead").await.json();
    assert_eq!(shown["team"], "billing");
}

#[tokio::test]
async fn dead_letters_may_have_a_life_of_their_own() {
    let app = App::new();
    let settings = json!({
        "_max_claim_count": 0,
        "_dead_letter_queue": "dead",
        "_dead_letter_queue_messages_ttl": 120,
    });
    create(&app, settings).await;
    // Longer and shorter than their new life, both older than it when they are moved.
    let messages = json!([{"body": 1, "ttl": 3600}, {"body": 2, "ttl": 201}]);
    post(&app, messages).await;
    app.advance(200);
    deliver(&app).await;
    let answer = found(&app, "dead").await;
    assert_eq!(each(&answer, "ttl"), json!([120, 120]));
    assert_eq!(each(&answer, "age"), json!([200, 200]));
    // It counts from the move.
    app.advance(119);
    assert_eq!(counts(&app, "dead").await, [0, 2, 2]);
    app.advance(1);
    assert_eq!(counts(&app, "dead").await, [0, 0, 0]);
}

#[tokio::test]
async fn messages_are_not_moved_unless_both_settings_are_there() {
    for settings in [
        json!({"_max_claim_count": 0}),
        json!({"_dead_letter_queue": "dead"}),
        json!({"_max_claim_count": null, "_dead_letter_queue": "dead"}),
        json!({"_max_claim_count": 0, "_dead_letter_queue": null}),
        json!({"_max_claim_count": 0, "_dead_letter_queue": ""}),
        json!({"_max_claim_count": null, "_dead_letter_queue": null}),
    ] {
        let app = App::new();
        create(&app, settings.clone()).await;
        post_bodies(&app, [1]).await;
        for _ in 0..3 {
            assert_eq!(deliver(&app).await, json!([1]), "{settings}");
        }
        assert_eq!(queues(&app).await, ["fizbat"], "{settings}");
    }
}

#[tokio::test]
async fn claims_count_only_while_both_settings_are_there() {
    let app = App::new();
    create(&app, json!({"_dead_letter_queue": "dead"})).await;
    post_bodies(&app, [1]).await;
    let change = |op| json!([{"op": op, "path": "/metadata/_max_claim_count", "value": 2}]);
    assert_eq!(deliver(&app).await, json!([1]));
    app.patch(QUEUE, change("add")).await.assert_status(200);
    assert_eq!(deliver(&app).await, json!([1]));
    app.patch(QUEUE, change("remove")).await.assert_status(200);
    assert_eq!(deliver(&app).await, json!([1]));
    app.patch(QUEUE, change("add")).await.assert_status(200);
    assert_eq!(deliver(&app).await, json!([1]));
    no_content("moved", &app.post(CLAIMS, ()).await);
    assert_eq!(bodies(&found(&app, "dead").await), json!([1]));
}

#[tokio::test]
async fn a_raised_limit_delivers_again() {
    let app = burying_after(1).await;
    post_bodies(&app, [1]).await;
    deliver(&app).await;
    let change = json!([{"op": "replace", "path": "/metadata/_max_claim_count", "value": 2}]);
    app.patch(QUEUE, change).await.assert_status(200);
    assert_eq!(deliver(&app).await, json!([1]));
    assert_eq!(deliver(&app).await, json!([]));
}

#[tokio::test]
async fn a_pop_delivers_what_a_claim_would_move() {
    // Q-CLM-7 (e)
    let app = burying_after(0).await;
    post_bodies(&app, [1]).await;
    let popped = app.delete(&format!("{MESSAGES}?pop=5")).await;
    popped.assert_status(200);
    assert_eq!(bodies(&popped), json!([1]));
    assert_eq!(counts(&app, "dead").await, [0, 0, 0]);
}

#[tokio::test]
async fn messages_that_are_claimed_or_delayed_are_not_moved() {
    let app = App::new();
    let settings = json!({
        "_max_claim_count": 1,
        "_dead_letter_queue": "dead",
        "_default_message_delay": 60,
    });
    create(&app, settings).await;
    post(&app, json!([{"body": "held", "delay": 0}])).await;
    let held = app.post(CLAIMS, ()).await;
    post(&app, json!([{"body": "delayed"}])).await;
    no_content("nothing free", &app.post(CLAIMS, ()).await);
    assert_eq!(counts(&app, "fizbat").await, [1, 1, 2]);
    app.get(&format!("{CLAIMS}/{}", claim_id(&held)))
        .await
        .assert_status(200);
    app.advance(60);
    assert_eq!(deliver(&app).await, json!(["delayed"]));
}

#[tokio::test]
async fn dead_letters_stay_in_their_project() {
    let app = burying_after(0).await;
    post_bodies(&app, [1]).await;
    deliver(&app).await;
    let other = app.project("other");
    assert_eq!(bodies(&found(&other, "dead").await), json!([]));
    assert_eq!(queues(&other).await, [""; 0]);
}

#[tokio::test]
async fn dead_letters_outlive_the_queue_they_come_from() {
    let app = burying_after(0).await;
    post_bodies(&app, [1]).await;
    deliver(&app).await;
    app.delete(QUEUE).await.assert_status(204);
    assert_eq!(bodies(&found(&app, "dead").await), json!([1]));
}

#[tokio::test]
async fn a_queue_that_is_its_own_dead_letter_queue_comes_to_an_end() {
    let app = App::new();
    let settings = json!({"_max_claim_count": 1, "_dead_letter_queue": "fizbat"});
    create(&app, settings).await;
    post_bodies(&app, [1]).await;
    assert_eq!(deliver(&app).await, json!([1]));
    post_bodies(&app, [2]).await;
    if !crate::api::store::is_ordered() {
        // There is no end to go to: the same claim may meet it again.
        return;
    }
    // The first is counted anew: at the end, or where it is if another service keeps the order.
    if crate::api::store::leases() {
        assert_eq!(deliver(&app).await, json!([1, 2]));
        assert_eq!(listed(&app).await, json!([1, 2]));
    } else {
        assert_eq!(deliver(&app).await, json!([2]));
        assert_eq!(listed(&app).await, json!([2, 1]));
    }
    assert_eq!(counts(&app, "fizbat").await, [0, 2, 2]);
}

#[tokio::test]
async fn a_moved_message_keeps_its_checksum() {
    let app = App::with("[messages]\nchecksums = true\n");
    create(
        &app,
        json!({"_max_claim_count": 0, "_dead_letter_queue": "dead"}),
    )
    .await;
    post_bodies(&app, ["plain"]).await;
    deliver(&app).await;
    let checksum = "MD5:a73442f033abd3c787518065af0eb10e";
    assert_eq!(
        each(&found(&app, "dead").await, "checksum"),
        json!([checksum])
    );
}

#[tokio::test]
async fn any_number_of_dead_letters_is_moved_in_the_end() {
    let app = burying_after(1).await;
    post_bodies(&app, ["fresh"]).await;
    let hold = claim_id(&app.post(CLAIMS, ()).await);
    let messages: Vec<Value> = (0..1200).map(|body| json!({"body": body})).collect();
    post(&app, json!(messages)).await;
    for _ in 0..60 {
        app.post(&format!("{CLAIMS}?limit=20"), json!({"ttl": 60}))
            .await
            .assert_status(201);
    }
    app.advance(60);
    post_bodies(&app, ["fresh"]).await;
    // One call may stop after a bounded number of them; none is lost or delivered.
    let mut delivered = json!([]);
    for _ in 0..10 {
        let answer = app.post(CLAIMS, ()).await;
        if answer.status == 201 {
            delivered = bodies(&answer);
            break;
        }
    }
    assert_eq!(delivered, json!(["fresh"]));
    assert_eq!(counts(&app, "dead").await, [0, 1200, 1200]);
    let shown = bodies(&found(&app, "dead").await);
    if crate::api::store::is_ordered() {
        assert_eq!(shown, json!((0..20).collect::<Vec<_>>()));
    }
    app.get(&format!("{CLAIMS}/{hold}"))
        .await
        .assert_status(200);
}
