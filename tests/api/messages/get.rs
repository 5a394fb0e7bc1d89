//! Reading messages by id (spec: messages.md 4 and 5).

use serde_json::json;

use super::{
    INVALID_REQUEST, MESSAGES, PAGE_LIMIT, bodies, claim, create, each, held_message, message,
    post, post_bodies, queues, reader, refused, unknown_id,
};
use crate::api::support::App;

#[tokio::test]
async fn a_message_is_read_by_its_id() {
    let app = App::new();
    let id = &post(&app, json!([{"ttl": 100, "body": {"a": [1, "é"]}}])).await[0];
    app.advance(42);
    let answer = app.get(&format!("{MESSAGES}/{id}")).await;
    answer.assert_is(200, &message(id, 100, 42, r#"{"a":[1,"é"]}"#));
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn a_claimed_message_is_read_with_its_claim() {
    let app = App::new();
    let id = &post_bodies(&app, [0]).await[0];
    let claim = claim(&app, 1).await;
    app.get(&format!("{MESSAGES}/{id}"))
        .await
        .assert_is(200, &held_message(id, &claim, 3600, 0, "0"));
}

#[tokio::test]
async fn the_claim_is_gone_from_a_message_once_it_has_ended() {
    let app = App::new();
    let id = &post_bodies(&app, [0]).await[0];
    claim(&app, 1).await;
    app.advance(300);
    app.get(&format!("{MESSAGES}/{id}"))
        .await
        .assert_is(200, &message(id, 3600, 300, "0"));
}

#[tokio::test]
async fn reading_one_message_takes_no_parameters() {
    let app = App::new();
    let id = &post_bodies(&app, [0]).await[0];
    let query = "limit=99&echo=maybe&ids=x&claim_id=y&pop=z";
    app.get(&format!("{MESSAGES}/{id}?{query}"))
        .await
        .assert_is(200, &message(id, 3600, 0, "0"));
}

#[tokio::test]
async fn a_message_that_does_not_exist_is_not_found() {
    let app = App::new();
    let known = &post_bodies(&app, [0]).await[0];
    let unknown = unknown_id();
    for (segment, id) in [
        (&*unknown, &*unknown),
        ("zz", "zz"),
        ("", ""),
        ("%C3%A9%20x", "é x"),
        // Ids are compared byte for byte.
        (&known.to_uppercase(), &known.to_uppercase()),
        (&known.replace('-', ""), &known.replace('-', "")),
    ] {
        let answer = app.get(&format!("{MESSAGES}/{segment}")).await;
        let description = format!("Message {id} does not exist in queue fizbat for project 480924");
        refused(segment, &answer, 404, "Not found", &description);
    }
}

#[tokio::test]
async fn a_message_that_was_deleted_is_not_found() {
    let app = App::new();
    let path = format!("{MESSAGES}/{}", post_bodies(&app, [0]).await[0]);
    app.delete(&path).await.assert_status(204);
    app.get(&path).await.assert_status(404);
}

#[tokio::test]
async fn a_message_of_a_queue_that_does_not_exist_names_the_queue() {
    let app = App::new();
    for id in [&*unknown_id(), "zz"] {
        let answer = app.get(&format!("/v2/queues/nope/messages/{id}")).await;
        let description = "Queue nope does not exist for project 480924";
        refused(id, &answer, 404, "Not found", description);
    }
    assert_eq!(queues(&app).await, [""; 0]);
}

#[tokio::test]
async fn several_messages_are_read_in_the_order_asked() {
    let app = App::new();
    let ids = post_bodies(&app, 0..3).await;
    let asked = format!("{},{},{}", ids[2], ids[0], ids[1]);
    let answer = app.get(&format!("{MESSAGES}?ids={asked}")).await;
    let [third, first, second] = [2, 0, 1].map(|at| message(&ids[at], 3600, 0, &at.to_string()));
    // There is no list of links.
    answer.assert_is(
        200,
        &format!("{{\"messages\": [{third}, {first}, {second}]}}"),
    );
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn a_message_asked_for_twice_is_given_twice() {
    let app = App::new();
    let ids = post_bodies(&app, [0, 1]).await;
    let path = format!(
        "{MESSAGES}?ids={},{}&ids={}&ids={}",
        ids[1], ids[0], ids[1], ids[1]
    );
    assert_eq!(bodies(&app.get(&path).await), json!([1, 0, 1, 1]));
}

#[tokio::test]
async fn unknown_ids_are_skipped_beside_known_ones() {
    let app = App::new();
    let ids = post_bodies(&app, [0]).await;
    let path = format!("{MESSAGES}?ids={},abc,{},{}", unknown_id(), ids[0], "");
    assert_eq!(bodies(&app.get(&path).await), json!([0]));
}

#[tokio::test]
async fn own_claimed_and_delayed_messages_are_read_by_id() {
    let app = App::new();
    create(&app, json!({"_default_message_delay": 60})).await;
    let messages = json!([{"body": "delayed"}, {"body": "claimed", "delay": 0}]);
    let ids = post(&app, messages).await;
    let claim = claim(&app, 1).await;
    let answer = app
        .get(&format!("{MESSAGES}?ids={},{}", ids[0], ids[1]))
        .await;
    answer.assert_is(
        200,
        &format!(
            "{{\"messages\": [{}, {}]}}",
            message(&ids[0], 3600, 0, "\"delayed\""),
            held_message(&ids[1], &claim, 3600, 0, "\"claimed\"")
        ),
    );
}

#[tokio::test]
async fn other_parameters_do_not_matter_beside_ids() {
    let app = App::new();
    let ids = post_bodies(&app, [0, 1]).await;
    let path = format!(
        "{MESSAGES}?limit=99&echo=maybe&marker=x&ids={},{}",
        ids[0], ids[1]
    );
    assert_eq!(bodies(&app.get(&path).await), json!([0, 1]));
}

#[tokio::test]
async fn ids_of_which_none_is_found_are_listed_as_python_lists_them() {
    let app = App::new();
    post_bodies(&app, [0]).await;
    for (queue, query, list) in [
        ("fizbat", "abc", "['abc']"),
        ("nope", "abc", "['abc']"),
        ("fizbat", "abc,def&ids=abc", "['abc', 'def', 'abc']"),
        ("fizbat", "a%2Cb", "['a,b']"),
        ("fizbat", "%C3%A9", "['é']"),
    ] {
        let answer = app
            .get(&format!("/v2/queues/{queue}/messages?ids={query}"))
            .await;
        let description =
            format!("No messages with IDs: {list} found in the queue {queue} for project 480924.");
        refused(query, &answer, 404, "Not found", &description);
    }
    assert_eq!(queues(&app).await, ["fizbat"]);
}

#[tokio::test]
async fn ids_with_quotes_are_quoted_as_python_quotes_them() {
    let app = App::new();
    for (id, list) in [
        ("it's", r#"["it's"]"#),
        ("%22", r#"['"']"#),
        ("'%22", r#"['\'"']"#),
        ("%5C", r"['\\']"),
        ("%0A", r"['\n']"),
    ] {
        let answer = app.get(&format!("{MESSAGES}?ids={id}")).await;
        let description =
            format!("No messages with IDs: {list} found in the queue fizbat for project 480924.");
        refused(id, &answer, 404, "Not found", &description);
    }
}

#[tokio::test]
async fn up_to_twenty_ids_can_be_asked_for() {
    let app = App::new();
    let ids = post_bodies(&app, 0..21).await;
    let answer = app
        .get(&format!("{MESSAGES}?ids={}", ids[..20].join(",")))
        .await;
    assert_eq!(each(&answer, "id"), json!(ids[..20]));
    for asked in [ids.join(","), vec!["x"; 21].join(",")] {
        let answer = app.get(&format!("{MESSAGES}?ids={asked}")).await;
        answer.assert_refused(400, INVALID_REQUEST, PAGE_LIMIT);
    }
}

#[tokio::test]
async fn a_list_of_ids_without_any_is_refused() {
    let app = App::new();
    post_bodies(&app, [0]).await;
    for query in ["ids=,", "ids=,,", "ids=,&ids=,"] {
        let answer = app.get(&format!("{MESSAGES}?{query}")).await;
        refused(query, &answer, 400, INVALID_REQUEST, PAGE_LIMIT);
    }
}

#[tokio::test]
async fn get_with_blank_ids_lists_messages() {
    let app = App::new();
    post_bodies(&app, [0]).await;
    let plain = reader(&app).get(MESSAGES).await;
    for query in ["ids=", "ids"] {
        let answer = reader(&app).get(&format!("{MESSAGES}?{query}")).await;
        answer.assert_is(200, plain.text());
    }
}
