//! Changing a queue's metadata (spec: queues.md 5).

use serde_json::{Value, json};

use super::RESERVED;
use crate::api::support::{App, PATCH_MEDIA};

const QUEUE: &str = "/v2/queues/q";
const OPS: &str = "It must be one of the following: add, remove, replace.";

/// A service with the queue `q` that has these metadata.
async fn app_with(metadata: Value) -> App {
    let app = App::new();
    app.put(QUEUE, metadata).await.assert_status(201);
    app
}

/// What the user stored, without the reserved keys.
async fn stored(app: &App) -> Value {
    let mut shown = app.get(QUEUE).await.json();
    let keys = shown.as_object_mut().expect("an object");
    keys.retain(|key, _| !key.starts_with('_'));
    shown
}

#[tokio::test]
async fn the_answer_is_all_of_the_metadata_as_they_are_now() {
    let app = app_with(json!({"_default_message_ttl": 1800, "team": "billing"})).await;
    let changes = json!([
        {"op": "replace", "path": "/metadata/team", "value": "infra"},
        {"op": "add", "path": "/metadata/_max_claim_count", "value": 5},
    ]);
    let answer = app.patch(QUEUE, changes).await;
    answer.assert_is(
        200,
        "{\"_default_message_ttl\": 1800, \"team\": \"infra\", \"_max_claim_count\": 5, \
         \"_max_messages_post_size\": 262144, \"_default_message_delay\": 0, \"_dead_letter_queue\": null, \
         \"_dead_letter_queue_messages_ttl\": null, \"_enable_encrypt_messages\": false}",
    );
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(app.get(QUEUE).await.text(), answer.text());
}

#[tokio::test]
async fn operations_do_by_what_the_key_is() {
    for (op, key, result) in [
        ("add", "mine", Ok(json!({"mine": "new"}))),
        ("replace", "mine", Ok(json!({"mine": "new"}))),
        ("remove", "mine", Ok(json!({}))),
        ("add", "other", Ok(json!({"mine": "old", "other": "new"}))),
        (
            "replace",
            "other",
            Err("Can't replace non-existent object other."),
        ),
        (
            "remove",
            "other",
            Err("Can't remove non-existent object other."),
        ),
    ] {
        let app = app_with(json!({"mine": "old"})).await;
        let change = json!({"op": op, "path": format!("/metadata/{key}"), "value": "new"});
        let answer = app.patch(QUEUE, json!([change])).await;
        match result {
            Ok(expected) => {
                answer.assert_status(200);
                assert_eq!(stored(&app).await, expected, "{op} {key}");
            }
            Err(sentence) => {
                answer.assert_refused(409, "Resource conflict", sentence);
                assert_eq!(stored(&app).await, json!({"mine": "old"}), "{op} {key}");
            }
        }
    }
}

#[tokio::test]
async fn reserved_keys_can_be_changed_before_they_are_set() {
    for key in ["_max_claim_count", "_default_message_ttl"] {
        for (op, shown) in [("add", json!(77)), ("replace", json!(77))] {
            let app = app_with(json!({})).await;
            let change = json!({"op": op, "path": format!("/metadata/{key}"), "value": 77});
            let answer = app.patch(QUEUE, json!([change])).await;
            answer.assert_status(200);
            assert_eq!(answer.json()[key], shown, "{op} {key}");
        }
    }
    let app = app_with(json!({})).await;
    let change = json!({"op": "remove", "path": "/metadata/_max_claim_count"});
    app.patch(QUEUE, json!([change]))
        .await
        .assert_is(200, &format!("{{{RESERVED}"));
}

#[tokio::test]
async fn a_reserved_key_that_is_removed_shows_its_default_again() {
    let app = app_with(json!({"_default_message_ttl": 60, "a": 1})).await;
    let change = json!({"op": "remove", "path": "/metadata/_default_message_ttl"});
    app.patch(QUEUE, json!([change]))
        .await
        .assert_is(200, &format!("{{\"a\": 1, {RESERVED}"));
}

#[tokio::test]
async fn keys_of_the_notifier_are_no_reserved_keys_here() {
    let app = app_with(json!({})).await;
    for key in ["_flavor", "_retry_policy", "_mine"] {
        let change = json!({"op": "replace", "path": format!("/metadata/{key}"), "value": {}});
        app.patch(QUEUE, json!([change])).await.assert_refused(
            409,
            "Resource conflict",
            &format!("Can't replace non-existent object {key}."),
        );
    }
}

#[tokio::test]
async fn no_operations_change_nothing() {
    let app = app_with(json!({"a": 1})).await;
    app.patch(QUEUE, "[]")
        .await
        .assert_is(200, &format!("{{\"a\": 1, {RESERVED}"));
}

#[tokio::test]
async fn operations_apply_in_their_order() {
    let app = app_with(json!({"a": 1})).await;
    app.patch(
        QUEUE,
        json!([
            {"op": "add", "path": "/metadata/b", "value": 1},
            {"op": "replace", "path": "/metadata/b", "value": 2},
            {"op": "remove", "path": "/metadata/a"},
            {"op": "add", "path": "/metadata/a", "value": 3},
            {"op": "add", "path": "/metadata/c", "value": Value::Null},
        ]),
    )
    .await
    .assert_status(200);
    assert_eq!(
        stored(&app).await,
        json!({"b": 2, "a": 3, "c": Value::Null})
    );
}

#[tokio::test]
async fn a_patch_takes_effect_as_a_whole_or_not_at_all() {
    let app = app_with(json!({"a": 1})).await;
    let good = json!({"op": "add", "path": "/metadata/b", "value": 1});
    for (bad, status) in [
        (json!({"op": "remove", "path": "/metadata/no"}), 409),
        (
            json!({"op": "add", "path": "/metadata/_default_message_ttl", "value": 1}),
            400,
        ),
        (json!({"op": "move", "path": "/metadata/a"}), 400),
        (json!("text"), 400),
    ] {
        app.patch(QUEUE, json!([good, bad]))
            .await
            .assert_status(status);
        assert_eq!(stored(&app).await, json!({"a": 1}), "{bad}");
    }
}

#[tokio::test]
async fn a_value_replaces_the_whole_value_of_a_key() {
    let app = app_with(json!({"a": {"x": 1, "y": 2}})).await;
    let change = json!({"op": "replace", "path": "/metadata/a", "value": {"z": [1, null]}});
    app.patch(QUEUE, json!([change])).await.assert_status(200);
    assert_eq!(stored(&app).await, json!({"a": {"z": [1, null]}}));
}

#[tokio::test]
async fn pointers_are_decoded() {
    for (pointer, key) in [
        ("/metadata/x", "x"),
        ("/Metadata/x", "x"),
        ("/METADATA/x", "x"),
        ("//metadata/x", "x"),
        ("/metadata/ x\t", "x"),
        ("/ metadata /x", "x"),
        ("/metadata/a~1b", "a/b"),
        ("/metadata/a~0b", "a~b"),
        ("/metadata/~01", "~1"),
        ("/metadata/~1~0", "/~"),
        ("/metadata/0", "0"),
        ("/metadata/-", "-"),
        ("/metadata/é.%20", "é.%20"),
    ] {
        let app = app_with(json!({})).await;
        let change = json!({"op": "add", "path": pointer, "value": 1});
        let answer = app.patch(QUEUE, json!([change])).await;
        assert_eq!(answer.status, 200, "{pointer}: {}", answer.text());
        assert_eq!(stored(&app).await, json!({key: 1}), "{pointer}");
    }
}

#[tokio::test]
async fn members_that_mean_nothing_are_ignored() {
    let app = app_with(json!({"a": 1})).await;
    app.patch(
        QUEUE,
        json!([
            {"op": "add", "path": "/metadata/b", "value": 1, "from": "/x", "note": []},
            {"op": "remove", "path": "/metadata/a", "value": "ignored"},
        ]),
    )
    .await
    .assert_status(200);
    assert_eq!(stored(&app).await, json!({"b": 1}));
}

#[tokio::test]
async fn faulty_operations_are_described() {
    let app = app_with(json!({"a": 1})).await;
    let no_op = format!("Unable to find `op` in JSON Schema change. {OPS}");
    let unknown = |op: &str| format!("Invalid operation: `{op}`. {OPS}");
    for (operation, sentence) in [
        (json!("text"), "Operations must be JSON objects.".to_owned()),
        (json!([]), "Operations must be JSON objects.".to_owned()),
        (Value::Null, "Operations must be JSON objects.".to_owned()),
        (json!({}), no_op.clone()),
        (json!({"path": "/metadata/a"}), no_op.clone()),
        (json!({"op": Value::Null, "path": "/metadata/a"}), no_op),
        (
            json!({"op": "move", "path": "/metadata/a"}),
            unknown("move"),
        ),
        (json!({"op": "test", "path": "x"}), unknown("test")),
        (json!({"op": "ADD", "path": "/metadata/a"}), unknown("ADD")),
        (json!({"op": ""}), unknown("")),
        (json!({"op": 5}), unknown("5")),
        (
            json!({"op": "add", "value": 1}),
            "Unable to find 'path' in JSON Schema change".to_owned(),
        ),
        (
            json!({"op": "add", "path": "/metadata/b"}),
            "Operation \"add\" requires a member named \"value\".".to_owned(),
        ),
        (
            json!({"op": "replace", "path": "/metadata/a"}),
            "Operation \"replace\" requires a member named \"value\".".to_owned(),
        ),
        (
            json!({"op": "add", "path": "/foo/a", "value": 1}),
            "The root of path must be metadata, e.g /metadata/key.".to_owned(),
        ),
        (
            json!({"op": "replace", "path": "/meta~0data/a", "value": 1}),
            "The root of path must be metadata, e.g /metadata/key.".to_owned(),
        ),
    ] {
        app.patch(QUEUE, json!([operation])).await.assert_refused(
            400,
            "Invalid request body",
            &sentence,
        );
    }
    assert_eq!(stored(&app).await, json!({"a": 1}));
}

#[tokio::test]
async fn faulty_pointers_are_described() {
    let app = app_with(json!({"a": 1})).await;
    let not_this = "Invalid JSON pointer for this resource: ";
    for (pointer, sentence) in [
        ("", "Pointer `` does not start with \"/\".".to_owned()),
        (
            "metadata/b",
            "Pointer `metadata/b` does not start with \"/\".".to_owned(),
        ),
        (
            "/metadata//b",
            "Pointer `/metadata//b` contains adjacent \"/\".".to_owned(),
        ),
        (
            "/metadata//",
            "Pointer `/metadata//` contains adjacent \"/\".".to_owned(),
        ),
        (
            "/metadata/",
            "Pointer `/metadata/` end with \"/\".".to_owned(),
        ),
        (
            "/metadata/a~2b",
            "Pointer `/metadata/a~2b` contains \"~\" not part of a recognized escape sequence."
                .to_owned(),
        ),
        (
            "/metadata/a~",
            "Pointer `/metadata/a~` contains \"~\" not part of a recognized escape sequence."
                .to_owned(),
        ),
        ("/b", format!("{not_this}'/b, e.g /metadata/key'")),
        (
            "/metadata/a/b",
            format!("{not_this}'/metadata/a/b, e.g /metadata/key'"),
        ),
    ] {
        for op in ["add", "replace", "remove"] {
            let operation = json!({"op": op, "path": pointer, "value": 1});
            app.patch(QUEUE, json!([operation])).await.assert_refused(
                400,
                "Invalid request body",
                &sentence,
            );
        }
    }
}

#[tokio::test]
async fn a_pointer_is_a_text() {
    let app = app_with(json!({"a": 1})).await;
    for path in [
        json!(5),
        Value::Null,
        json!(["metadata", "a"]),
        json!({"metadata": "a"}),
    ] {
        let operation = json!({"op": "add", "path": path, "value": 1});
        let answer = app.patch(QUEUE, json!([operation])).await;
        answer.assert_status(400);
        assert_eq!(answer.json()["title"], "Invalid request body", "{path}");
    }
}

#[tokio::test]
async fn a_remove_with_another_root_removes_nothing() {
    let app = app_with(json!({"a": 1})).await;
    let operation = json!({"op": "remove", "path": "/foo/a"});
    app.patch(QUEUE, json!([operation]))
        .await
        .assert_status(400);
    assert_eq!(stored(&app).await, json!({"a": 1}));
}

#[tokio::test]
async fn a_missing_value_is_reported_before_a_wrong_root() {
    let app = app_with(json!({})).await;
    app.patch(QUEUE, json!([{"op": "add", "path": "/foo/a"}]))
        .await
        .assert_refused(
            400,
            "Invalid request body",
            "Operation \"add\" requires a member named \"value\".",
        );
}

#[tokio::test]
async fn a_document_that_is_no_array_is_refused() {
    let app = app_with(json!({})).await;
    for body in ["{}", r#"{"op": "add", "path": "/metadata/a", "value": 1}"#] {
        app.patch(QUEUE, body).await.assert_refused(
            400,
            "Invalid request body",
            "Request body must be a JSON array of operation objects.",
        );
    }
}

#[tokio::test]
async fn only_one_media_type_is_taken() {
    let app = app_with(json!({})).await;
    let description = "Accepted media type for PATCH: {'Accept-Patch': \
                       'application/openstack-messaging-v2.0-json-patch'}.";
    let upper = PATCH_MEDIA.to_uppercase();
    let with_charset = format!("{PATCH_MEDIA}; charset=utf-8");
    for media in [
        "application/json",
        "application/json-patch+json",
        "application/openstack-messaging-v2.1-json-patch",
        "",
        &upper,
        &with_charset,
    ] {
        let app = app.header("Content-Type", media);
        app.patch(QUEUE, "[]")
            .await
            .assert_refused(415, "415 Unsupported Media Type", description);
    }
    app.send("PATCH", QUEUE, "[]").await.assert_refused(
        415,
        "415 Unsupported Media Type",
        description,
    );
}

#[tokio::test]
async fn the_size_is_checked_first_then_the_media_type_then_the_body() {
    let app = App::new();
    let other = app.header("Content-Type", "application/json");
    other.patch(QUEUE, "x".repeat(65_537)).await.assert_refused(
        400,
        "Invalid request body",
        "Queue metadata is too large. Max size: 65536",
    );
    other.patch(QUEUE, "{").await.assert_status(415);
    other.patch(QUEUE, ()).await.assert_status(415);
}

#[tokio::test]
async fn a_queue_that_does_not_exist_cannot_be_changed() {
    let app = App::new();
    for body in [
        "[]",
        r#"[{"op": "add", "path": "/metadata/a", "value": 1}]"#,
    ] {
        app.project("p").patch(QUEUE, body).await.assert_refused(
            404,
            "Not found",
            "Queue q does not exist for project p",
        );
    }
    app.get("/v2/queues")
        .await
        .assert_is(200, r#"{"queues": [], "links": []}"#);
}

#[tokio::test]
async fn a_change_takes_effect_at_once() {
    let app = app_with(json!({})).await;
    app.post_bodies("q", [json!(1)]).await;
    let change = json!({"op": "add", "path": "/metadata/_default_message_ttl", "value": 77});
    app.patch(QUEUE, json!([change])).await.assert_status(200);
    app.post("/v2/queues/q/messages", json!({"messages": [{"body": 2}]}))
        .await
        .assert_status(201);
    let listed = app.get("/v2/queues/q/messages?echo=true").await.json();
    assert_eq!(listed["messages"][1]["ttl"], 77);
}

#[tokio::test]
async fn changes_at_once_all_take_effect() {
    let app = app_with(json!({})).await;
    let mut running = tokio::task::JoinSet::new();
    for at in 0..8 {
        let app = app.clone();
        running.spawn(async move {
            let path = format!("/metadata/k{at}");
            let change = json!([{"op": "add", "path": path, "value": at}]);
            app.patch(QUEUE, change).await.status
        });
    }
    let statuses = running.join_all().await;
    assert_eq!(statuses, [200; 8]);
    let stored = stored(&app).await;
    assert_eq!(
        stored.as_object().map(serde_json::Map::len),
        Some(8),
        "{stored}"
    );
}
