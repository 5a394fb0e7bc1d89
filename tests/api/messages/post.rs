//! Posting: what is accepted, and what becomes of it (spec: messages.md 2).

use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    MESSAGES, QUEUE, create, each, listed, message, post, post_bodies, queues, reader, refused,
};
use crate::api::messages::INVALID_REQUEST;
use crate::api::support::{App, Payload};

/// A post of exactly so many bytes.
fn sized(bytes: usize) -> String {
    let filling = bytes - r#"{"messages": [{"body": ""}]}"#.len();
    format!(r#"{{"messages": [{{"body": "{}"}}]}}"#, "x".repeat(filling))
}

const SERVICE_LIMIT: usize = 262_144;
const TOO_LARGE: &str = "Message collection size is too large. Max size 262144";

#[tokio::test]
async fn a_post_is_answered_with_the_path_of_each_message() {
    let app = App::new();
    let body = json!({"messages": [
        {"ttl": 300, "delay": 20, "body": {"event": "BackupStarted"}},
        {"ttl": 60, "body": {"event": "BackupProgress"}},
    ]});
    let answer = app.post(MESSAGES, body).await;
    let document = answer.json();
    let path = |at: usize| document["resources"][at].as_str().expect("a path");
    let (first, second) = (path(0), path(1));
    answer.assert_is(
        201,
        &format!("{{\"resources\": [\"{first}\", \"{second}\"]}}"),
    );
    let ids = [first, second].map(|path| {
        path.strip_prefix("/v2/queues/fizbat/messages/")
            .expect("a path of the queue")
    });
    assert_ne!(ids[0], ids[1]);
    for id in ids {
        let parsed = Uuid::parse_str(id).expect("a UUID");
        assert_eq!(parsed.to_string(), id, "in its canonical form");
    }
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let location = format!("/v2/queues/fizbat/messages?ids={},{}", ids[0], ids[1]);
    assert_eq!(answer.header("location"), Some(&*location));
}

#[tokio::test]
async fn the_location_of_a_post_can_be_followed() {
    let app = App::new();
    let answer = app
        .post(
            MESSAGES,
            json!({"messages": [{"body": "one"}, {"body": "two"}]}),
        )
        .await;
    let location = answer.header("location").expect("a location");
    assert_eq!(
        each(&app.get(location).await, "body"),
        json!(["one", "two"])
    );
    for resource in answer.json()["resources"].as_array().unwrap() {
        app.get(resource.as_str().unwrap()).await.assert_status(200);
    }
}

#[tokio::test]
async fn a_post_creates_the_queue() {
    let app = App::new();
    post_bodies(&app, [1]).await;
    assert_eq!(queues(&app).await, ["fizbat"]);
}

#[tokio::test]
async fn messages_keep_the_order_of_the_array_and_of_the_posts() {
    let app = App::new();
    post_bodies(&app, [1, 2, 3]).await;
    post_bodies(&app.client(crate::api::support::OTHER_CLIENT), [4]).await;
    post_bodies(&app, [5, 6]).await;
    let answer = app.get(&format!("{MESSAGES}?echo=true")).await;
    assert_eq!(each(&answer, "body"), json!([1, 2, 3, 4, 5, 6]));
}

#[tokio::test]
async fn a_ttl_may_be_anything_within_its_bounds() {
    let app = App::new();
    post(
        &app,
        json!([{"ttl": 60, "body": 1}, {"ttl": 1_209_600, "body": 2}]),
    )
    .await;
    assert_eq!(
        each(&reader(&app).get(MESSAGES).await, "ttl"),
        json!([60, 1_209_600])
    );
}

#[tokio::test]
async fn a_message_without_ttl_lives_as_long_as_the_service_says() {
    let app = App::new();
    post(&app, json!([{"body": 1}])).await;
    assert_eq!(
        each(&reader(&app).get(MESSAGES).await, "ttl"),
        json!([3600])
    );

    let configured = App::with("[limits]\ndefault_message_ttl = 777\n");
    post(&configured, json!([{"body": 1}])).await;
    assert_eq!(
        each(&reader(&configured).get(MESSAGES).await, "ttl"),
        json!([777])
    );
}

#[tokio::test]
async fn a_message_without_ttl_lives_as_long_as_its_queue_says() {
    let app = App::new();
    create(&app, json!({"_default_message_ttl": 1800})).await;
    post(&app, json!([{"body": 1}, {"body": 2, "ttl": 90}])).await;
    assert_eq!(
        each(&reader(&app).get(MESSAGES).await, "ttl"),
        json!([1800, 90])
    );
}

#[tokio::test]
async fn a_change_of_the_default_ttl_holds_for_the_next_post() {
    let app = App::new();
    create(&app, json!({"_default_message_ttl": 1800})).await;
    post(&app, json!([{"body": 1}])).await;
    for (op, value) in [("replace", json!(90)), ("replace", Value::Null)] {
        let change = json!([{"op": op, "path": "/metadata/_default_message_ttl", "value": value}]);
        app.patch(QUEUE, change).await.assert_status(200);
        post(&app, json!([{"body": 1}])).await;
    }
    assert_eq!(
        each(&reader(&app).get(MESSAGES).await, "ttl"),
        json!([1800, 90, 3600])
    );
}

#[tokio::test]
async fn a_body_is_given_back_as_the_bytes_it_was() {
    let app = App::new();
    for body in [
        r#"{"b":  1.50,   "a":[1,2 , 3]}"#,
        "{ }",
        "[ \n\t1 ]",
        r#""\u00e9 é \/ / \ud83d\ude00 😀 \n""#,
        "1.50",
        "1E5",
        "-0.0",
        "-0",
        "123456789012345678",
        "9223372036854775807",
        "-9223372036854775808",
        "0.1000000000000000055511151231257827",
        r#"{"twice": 1, "twice": 2, "": null}"#,
        r#""""#,
        "true",
        "[]",
    ] {
        let answer = app
            .post(MESSAGES, format!(r#"{{"messages":[{{"body":{body}}}]}}"#))
            .await;
        answer.assert_status(201);
        let document = answer.json();
        let path = document["resources"][0].as_str().unwrap();
        let id = path.rsplit('/').next().unwrap();
        app.get(path)
            .await
            .assert_is(200, &message(id, 3600, 0, body));
    }
}

#[tokio::test]
async fn a_null_body_is_a_body() {
    let app = App::new();
    let ids = post(&app, json!([{"body": null}])).await;
    app.get(&format!("{MESSAGES}/{}", ids[0]))
        .await
        .assert_is(200, &message(&ids[0], 3600, 0, "null"));
}

#[tokio::test]
async fn a_body_may_be_nested_deeply() {
    let app = App::new();
    let deep = format!("{}{}", "[".repeat(900), "]".repeat(900));
    let body = format!(r#"{{"messages": [{{"body": {deep}}}]}}"#);
    app.post(MESSAGES, body).await.assert_status(201);
    let text = reader(&app).get(MESSAGES).await;
    assert!(text.text().contains(&deep));
}

#[tokio::test]
async fn unknown_fields_are_dropped() {
    let app = App::new();
    let document = json!({"messages": [
        {"body": 1, "ttl": 60, "id": "mine", "age": 5, "claim_count": 9, "priority": {"x": []}},
    ], "links": [], "queue": "other"});
    app.post(MESSAGES, document).await.assert_status(201);
    let answer = reader(&app).get(MESSAGES).await;
    let document = answer.json();
    let message = document["messages"][0].as_object().unwrap();
    assert_eq!(
        message.keys().collect::<Vec<_>>(),
        ["id", "href", "ttl", "age", "body"]
    );
    assert_ne!(message["id"], "mine");
    assert_eq!(message["age"], 0);
}

#[tokio::test]
async fn of_a_key_that_stands_twice_the_last_counts() {
    let app = App::new();
    for text in [
        r#"{"messages": [{"body": "lost"}], "messages": [{"body": "kept"}]}"#,
        r#"{"messages": 5, "messages": [{"body": "kept"}]}"#,
        r#"{"messages": [{"body": "lost", "ttl": "wrong", "ttl": 60, "body": "kept"}]}"#,
    ] {
        app.post(MESSAGES, text).await.assert_status(201);
    }
    let answer = reader(&app).get(MESSAGES).await;
    assert_eq!(each(&answer, "body"), json!(["kept", "kept", "kept"]));
    assert_eq!(each(&answer, "ttl"), json!([3600, 3600, 60]));
}

#[tokio::test]
async fn a_key_with_an_escape_is_the_key_it_spells() {
    let app = App::new();
    let text = r#"{"\u006dessages": [{"\u0062ody": 1, "tt\u006c": 60}]}"#;
    app.post(MESSAGES, text).await.assert_status(201);
    let answer = reader(&app).get(MESSAGES).await;
    assert_eq!(
        (each(&answer, "body"), each(&answer, "ttl")),
        (json!([1]), json!([60]))
    );
}

#[tokio::test]
async fn white_space_around_the_document_is_fine() {
    let app = App::new();
    let text = " \r\n\t{\"messages\": [{\"body\": 1}]}\n ";
    app.post(MESSAGES, text).await.assert_status(201);
    assert_eq!(listed(&app).await, json!([1]));
}

#[tokio::test]
async fn a_delay_is_dropped_unseen_in_a_queue_that_does_not_delay() {
    let app = App::new();
    for delay in [
        json!(600),
        json!(901),
        json!(-1),
        json!("x"),
        Value::Null,
        json!([]),
    ] {
        let document = json!({"messages": [{"body": 1, "delay": delay}]});
        app.post(MESSAGES, document).await.assert_status(201);
    }
    // Q-MSG-6: none of them is delayed.
    let answer = app.post("/v2/queues/fizbat/claims", ()).await;
    assert_eq!(each(&answer, "body"), json!([1, 1, 1, 1, 1, 1]));
}

#[tokio::test]
async fn a_post_of_exactly_the_largest_size_is_accepted() {
    let app = App::new();
    app.post(MESSAGES, sized(SERVICE_LIMIT))
        .await
        .assert_status(201);
    refused(
        "one byte more",
        &app.post(MESSAGES, sized(SERVICE_LIMIT + 1)).await,
        400,
        INVALID_REQUEST,
        TOO_LARGE,
    );
    assert_eq!(super::counts(&app, "fizbat").await, [0, 1, 1]);
}

#[tokio::test]
async fn white_space_counts_towards_the_size() {
    let app = App::new();
    let small = r#"{"messages": [{"body": 1}]}"#;
    let padded = |size: usize| format!("{small}{}", " ".repeat(size - small.len()));
    app.post(MESSAGES, padded(SERVICE_LIMIT))
        .await
        .assert_status(201);
    refused(
        "one space more",
        &app.post(MESSAGES, padded(SERVICE_LIMIT + 1)).await,
        400,
        INVALID_REQUEST,
        TOO_LARGE,
    );
}

#[tokio::test]
async fn a_post_that_says_it_is_too_large_is_refused_unread() {
    let app = App::new();
    let payload = Payload::from(sized(SERVICE_LIMIT + 1));
    let taken = payload.taken();
    refused(
        "too large",
        &app.post(MESSAGES, payload).await,
        400,
        INVALID_REQUEST,
        TOO_LARGE,
    );
    assert_eq!(taken.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_chunked_post_is_read_like_any_other() {
    let app = App::new();
    let text = sized(SERVICE_LIMIT);
    let chunks = text.as_bytes().chunks(1000).map(Bytes::copy_from_slice);
    // Q-HTTP-1
    app.post(MESSAGES, Payload::chunked(chunks))
        .await
        .assert_status(201);
    let id = &each(&reader(&app).get(MESSAGES).await, "id")[0];
    let answer = app
        .get(&format!("{MESSAGES}/{}", id.as_str().unwrap()))
        .await;
    assert_eq!(
        answer.json()["body"].as_str().unwrap().len(),
        SERVICE_LIMIT - 28
    );
}

#[tokio::test]
async fn a_chunked_post_is_refused_as_soon_as_it_is_too_large() {
    let app = App::new();
    let payload = Payload::chunked((0..10).map(|_| Bytes::from(vec![b' '; 100_000])));
    let taken = payload.taken();
    refused(
        "too large",
        &app.post(MESSAGES, payload).await,
        400,
        INVALID_REQUEST,
        TOO_LARGE,
    );
    assert_eq!(taken.load(std::sync::atomic::Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_queue_may_have_a_smaller_limit_of_its_own() {
    let app = App::new();
    create(&app, json!({"_max_messages_post_size": 40})).await;
    app.post(MESSAGES, sized(40)).await.assert_status(201);
    refused(
        "one byte more",
        &app.post(MESSAGES, sized(41)).await,
        400,
        INVALID_REQUEST,
        "Message collection size is too large. The max size for current queue is 40. It is calculated by max size = \
         min(max_messages_post_size_config: 262144, max_messages_post_size_queue: 40).",
    );
    let answer = app.post("/v2/queues/other/messages", sized(41)).await;
    answer.assert_status(201);
}

#[tokio::test]
async fn a_queue_with_the_limit_of_the_service_has_none_of_its_own() {
    let app = App::new();
    create(&app, json!({"_max_messages_post_size": SERVICE_LIMIT})).await;
    refused(
        "one byte more",
        &app.post(MESSAGES, sized(SERVICE_LIMIT + 1)).await,
        400,
        INVALID_REQUEST,
        TOO_LARGE,
    );
}

#[tokio::test]
async fn the_limit_of_the_service_can_be_configured() {
    let app = App::with("[limits]\nmax_messages_post_size = 100\n");
    app.post(MESSAGES, sized(100)).await.assert_status(201);
    refused(
        "one byte more",
        &app.post(MESSAGES, sized(101)).await,
        400,
        INVALID_REQUEST,
        "Message collection size is too large. Max size 100",
    );
}

#[tokio::test]
async fn many_messages_are_all_in_resources_while_the_location_stays_short() {
    let app = App::new();
    let messages: Vec<Value> = (0..5000).map(|body| json!({"body": body})).collect();
    let answer = app.post(MESSAGES, json!({"messages": messages})).await;
    answer.assert_status(201);
    let document = answer.json();
    let resources = document["resources"].as_array().unwrap();
    assert_eq!(resources.len(), 5000);

    // Q-MSG-9: most clients stop reading a header at 8 or 64 KiB.
    let location = answer.header("location").unwrap();
    assert!(location.len() < 8000, "{} bytes", location.len());
    let (path, ids) = location.split_once("?ids=").unwrap();
    let named: Vec<String> = ids.split(',').map(|id| format!("{path}/{id}")).collect();
    assert_eq!(json!(named), json!(resources[..named.len()]));

    let last = resources[4999].as_str().unwrap();
    assert_eq!(app.get(last).await.json()["body"], 4999);
    assert_eq!(super::counts(&app, "fizbat").await, [0, 5000, 5000]);
}
