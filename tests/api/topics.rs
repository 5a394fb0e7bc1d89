//! Topics (spec: topics.md): what a queue has, under another path, apart from claims and pre-signed access.

use serde_json::{Value, json};

use crate::api::support::{App, PROJECT};

async fn put(app: &App, topic: &str, metadata: Value) {
    app.put(&format!("/v2/topics/{topic}"), metadata)
        .await
        .assert_status(201);
}

#[tokio::test]
async fn a_topic_is_made_once() {
    let app = App::new();
    let made = app.put("/v2/topics/t", json!({"a": 1})).await;
    made.assert_is(201, "");
    assert_eq!(made.header("location"), Some("/v2/topics/t"));
    let again = app.put("/v2/topics/t", json!({"a": 2})).await;
    again.assert_is(204, "");
    assert_eq!(again.header("location"), Some("/v2/topics/t"));
    assert_eq!(app.get("/v2/topics/t").await.json()["a"], 1);
    app.put("/v2/topics/u", json!({"_default_message_ttl": 1})).await.assert_refused(
        400,
        "Invalid API request",
        "_default_message_ttl can not exceed 1209600 seconds, and must be at least 60 seconds long.",
    );
}

#[tokio::test]
async fn names_follow_the_rule_of_queues() {
    let app = App::new();
    let description = "The format of the submitted topic name or project id is not valid.";
    for path in [
        "/v2/topics/",
        "/v2/topics/a%20b",
        "/v2/topics/~t/messages",
        "/v2/topics/a%0A/stats",
    ] {
        app.get(path)
            .await
            .assert_refused(400, "Invalid topic identification", description);
    }
    let long = app.project(&"p".repeat(257));
    long.get("/v2/topics/t")
        .await
        .assert_refused(400, "Invalid topic identification", description);
    long.get("/v2/topics")
        .await
        .assert_is(200, "{\"topics\": [], \"links\": []}");
}

#[tokio::test]
async fn a_topic_shows_three_reserved_keys() {
    let app = App::new();
    let reserved = "\"_max_messages_post_size\": 262144, \"_default_message_ttl\": 3600, \"_default_message_delay\": 0}";
    app.get("/v2/topics/t")
        .await
        .assert_is(200, &format!("{{{reserved}"));
    put(&app, "t", json!({"a": 1})).await;
    app.get("/v2/topics/t")
        .await
        .assert_is(200, &format!("{{\"a\": 1, {reserved}"));
}

#[tokio::test]
async fn a_patch_speaks_the_dialect_of_queues() {
    let app = App::new();
    let change = json!([{"op": "add", "path": "/metadata/_default_message_ttl", "value": 60}]);
    let missing = format!("Topic t does not exist for project {PROJECT}");
    app.patch("/v2/topics/t", &change)
        .await
        .assert_refused(404, "Not found", &missing);
    put(&app, "t", json!({})).await;
    let patched = app.patch("/v2/topics/t", &change).await;
    patched.assert_is(
        200,
        "{\"_default_message_ttl\": 60, \"_max_messages_post_size\": 262144, \"_default_message_delay\": 0}",
    );
    app.header("Content-Type", "application/json")
        .patch("/v2/topics/t", &change)
        .await
        .assert_status(415);
    let conflict = json!([{"op": "remove", "path": "/metadata/_max_claim_count"}]);
    app.patch("/v2/topics/t", conflict).await.assert_status(409);
}

#[tokio::test]
async fn a_listing_has_topics_and_no_count() {
    let app = App::new();
    app.get("/v2/topics?with_count=true")
        .await
        .assert_is(200, "{\"topics\": [], \"links\": []}");
    for (name, team) in [("t1", "a"), ("t2", "b"), ("u1", "a")] {
        put(&app, name, json!({"team": team})).await;
    }
    app.put("/v2/queues/q", ()).await;
    app.get("/v2/topics?limit=1").await.assert_is(
        200,
        "{\"topics\": [{\"name\": \"t1\", \"href\": \"/v2/topics/t1\"}], \"links\": [{\"rel\": \"next\", \"href\": \
         \"/v2/topics?limit=1&marker=t1\"}]}",
    );
    let names = async |query: &str| {
        let document = app.get(&format!("/v2/topics?{query}")).await.json();
        let topics = document["topics"].as_array().expect("topics").clone();
        topics
            .iter()
            .map(|topic| topic["name"].as_str().expect("a name").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("marker=t1").await, ["t2", "u1"]);
    assert_eq!(names("name=t").await, ["t1", "t2"]);
    assert_eq!(names("team=a").await, ["t1", "u1"]);
    assert_eq!(names("with_count=x").await, [""; 0]);
    let detailed = app.get("/v2/topics?detailed=true&limit=1").await.json();
    assert_eq!(
        detailed["topics"][0]["metadata"],
        json!({"team": "a", "_max_messages_post_size": 262144, "_default_message_ttl": 3600, "_default_message_delay": 0})
    );
    let description = "Limit must be at least 1 and no greater than 20.";
    app.get("/v2/topics?limit=21")
        .await
        .assert_refused(400, "Invalid API request", description);
    assert_eq!(
        app.get("/v2/queues").await.json()["queues"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
}

#[tokio::test]
async fn messages_are_posted_read_and_deleted_under_the_topic() {
    let app = App::new();
    let posted = app
        .post(
            "/v2/topics/t/messages",
            json!({"messages": [{"body": "a", "ttl": 60}, {"body": "b", "ttl": 60}]}),
        )
        .await;
    posted.assert_status(201);
    let document = posted.json();
    let href = document["resources"][0]
        .as_str()
        .expect("a path")
        .to_owned();
    let id = href
        .strip_prefix("/v2/topics/t/messages/")
        .expect("below the topic")
        .to_owned();
    let location = posted.header("location").expect("a location");
    assert!(
        location.starts_with(&format!("/v2/topics/t/messages?ids={id}")),
        "{location}"
    );
    app.get(&href).await.assert_is(
        200,
        &format!(
            "{{\"id\": \"{id}\", \"href\": \"{href}\", \"ttl\": 60, \"age\": 0, \"body\": \"a\"}}"
        ),
    );
    let page = app.get("/v2/topics/t/messages?echo=true").await;
    let next = page.next().expect("a link");
    assert!(
        next.starts_with("/v2/topics/t/messages?echo=true&include_delayed=true&marker="),
        "{next}"
    );
    app.delete(&href).await.assert_status(204);
    let missing = format!("Message {id} does not exist in topic t for project {PROJECT}");
    app.get(&href)
        .await
        .assert_refused(404, "Not found", &missing);
    let missing =
        format!("No messages with IDs: ['{id}'] found in the topic t for project {PROJECT}.");
    app.get(&format!("/v2/topics/t/messages?ids={id}"))
        .await
        .assert_refused(404, "Not found", &missing);
    let popped = app.delete("/v2/topics/t/messages?pop=1").await;
    assert_eq!(popped.json()["messages"][0]["body"], "b");
    let gone = format!("/v2/topics/nope/messages/{id}");
    let missing = format!("Topic nope does not exist for project {PROJECT}");
    app.get(&gone)
        .await
        .assert_refused(404, "Not found", &missing);
}

#[tokio::test]
async fn a_topic_and_a_queue_of_one_name_have_nothing_in_common() {
    let app = App::new();
    put(&app, "x", json!({"is": "topic"})).await;
    app.put("/v2/queues/x", json!({"is": "queue"}))
        .await
        .assert_status(201);
    app.post_bodies("x", [json!("for the queue")]).await;
    assert_eq!(
        app.get("/v2/topics/x/stats").await.json()["messages"]["total"],
        0
    );
    app.post(
        "/v2/topics/x/messages",
        json!({"messages": [{"body": 1, "ttl": 60}]}),
    )
    .await
    .assert_status(201);
    app.delete("/v2/topics/x").await.assert_is(204, "");
    assert_eq!(app.get("/v2/queues/x").await.json()["is"], "queue");
    assert_eq!(
        app.get("/v2/queues/x/stats").await.json()["messages"]["total"],
        1
    );
    let subscriber = json!({"subscriber": "http://receiver.example/"});
    app.post("/v2/topics/x/subscriptions", &subscriber)
        .await
        .assert_status(201);
    assert_eq!(
        app.get("/v2/queues/x/subscriptions").await.json()["subscriptions"],
        json!([])
    );
}

#[tokio::test]
async fn stats_count_without_claims() {
    let app = App::new();
    let empty = "{\"messages\": {\"claimed\": 0, \"free\": 0, \"total\": 0}}";
    app.get("/v2/topics/t/stats").await.assert_is(200, empty);
    app.post(
        "/v2/topics/t/messages",
        json!({"messages": [{"body": 1, "ttl": 60}]}),
    )
    .await
    .assert_status(201);
    app.advance(3);
    let stats = app.get("/v2/topics/t/stats").await.json();
    let oldest = &stats["messages"]["oldest"];
    assert_eq!(
        (&oldest["age"], &oldest["created"]),
        (&json!(3), &json!("2026-01-01T00:00:00Z"))
    );
    assert!(
        oldest["href"]
            .as_str()
            .is_some_and(|href| href.starts_with("/v2/topics/t/messages/"))
    );
    let keys: Vec<&String> = stats["messages"]
        .as_object()
        .expect("an object")
        .keys()
        .collect();
    assert_eq!(keys, ["total", "oldest", "newest"]);
}

#[tokio::test]
async fn a_purge_takes_what_it_names() {
    let app = App::new();
    let fill = async || {
        app.post(
            "/v2/topics/t/messages",
            json!({"messages": [{"body": 1, "ttl": 60}]}),
        )
        .await
        .assert_status(201);
        let subscriber = json!({"subscriber": "http://receiver.example/"});
        app.post("/v2/topics/t/subscriptions", &subscriber)
            .await
            .assert_status(201);
    };
    let left = async || {
        let messages = app.get("/v2/topics/t/stats").await.json()["messages"]["total"].clone();
        let subscriptions = app.get("/v2/topics/t/subscriptions").await.json();
        let subscriptions = subscriptions["subscriptions"]
            .as_array()
            .map_or(0, Vec::len);
        (messages, subscriptions)
    };
    for (body, expected) in [
        (json!({"resource_types": ["messages"]}), (json!(0), 1)),
        (json!({"resource_types": ["subscriptions"]}), (json!(1), 0)),
        (
            json!({"resource_types": ["subscriptions", "messages"]}),
            (json!(0), 0),
        ),
    ] {
        fill().await;
        app.post("/v2/topics/t/purge", &body)
            .await
            .assert_is(204, "");
        assert_eq!(left().await, expected, "{body}");
        app.post("/v2/topics/t/purge", ()).await.assert_is(204, "");
        assert_eq!(left().await, (json!(0), 0));
    }
    let sentence = "Post body must contain key \"resource_types\".";
    app.post("/v2/topics/t/purge", "{}")
        .await
        .assert_refused(400, "Invalid API request", sentence);
}

#[tokio::test]
async fn there_are_no_claims_and_nothing_to_share() {
    let app = App::new();
    for path in [
        "/v2/topics/t/claims",
        "/v2/topics/t/claims/1",
        "/v2/topics/t/share",
    ] {
        app.post(path, "{}")
            .await
            .assert_is(404, "{\"title\": \"404 Not Found\"}");
    }
}

#[tokio::test]
async fn delays_and_encryption_hold_for_topics() {
    let app = App::new();
    put(
        &app,
        "t",
        json!({"_default_message_delay": 10, "_enable_encrypt_messages": true}),
    )
    .await;
    app.post(
        "/v2/topics/t/messages",
        json!({"messages": [{"body": "secret", "ttl": 60}]}),
    )
    .await
    .assert_status(201);
    let listed =
        async || app.get("/v2/topics/t/messages?echo=true").await.json()["messages"].clone();
    assert_eq!(listed().await, json!([]));
    app.advance(10);
    assert_eq!(listed().await[0]["body"], "secret");
}
