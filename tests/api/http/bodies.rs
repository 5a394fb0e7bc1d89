//! Request bodies: whether there is one, how long it may be, what JSON it may hold (spec: http.md 4).

use std::sync::atomic::Ordering;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::api::support::{Answer, App, Payload};

const INVALID_BODY: &str = "Invalid request body";
const NOT_PARSED: &str = "Request body could not be parsed.";
const EMPTY: &str = "Request body can not be empty";

/// A body whose head says that its length is 0.
const NOTHING: &str = "";

fn assert_not_parsed(answer: &Answer) {
    answer.assert_refused(400, INVALID_BODY, NOT_PARSED);
}

#[tokio::test]
async fn a_queue_needs_no_body() {
    let app = App::new();
    app.put("/v2/queues/a", ()).await.assert_status(201);
    app.put("/v2/queues/b", NOTHING).await.assert_status(201);
    app.put("/v2/queues/c", Payload::chunked([]))
        .await
        .assert_status(201);
}

#[tokio::test]
async fn a_change_of_a_queue_needs_a_body() {
    let app = App::new();
    for body in [().into(), NOTHING.into(), Payload::chunked([])] {
        app.patch("/v2/queues/q", body).await.assert_refused(
            400,
            INVALID_BODY,
            "PATCH body could not be empty for update.",
        );
    }
}

#[tokio::test]
async fn a_post_needs_a_body() {
    let app = App::new();
    let path = "/v2/queues/q/messages";
    app.post(path, ())
        .await
        .assert_refused(400, INVALID_BODY, EMPTY);
    assert_not_parsed(&app.post(path, NOTHING).await);
    assert_not_parsed(&app.post(path, Payload::chunked([])).await);
}

#[tokio::test]
async fn a_claim_needs_no_body_but_its_renewal_does() {
    let app = App::new();
    app.post_bodies("q", [json!(1), json!(2)]).await;
    for body in [().into(), NOTHING.into()] {
        let body: Payload = body;
        app.post("/v2/queues/q/claims?limit=1", body)
            .await
            .assert_status(201);
    }
    let claim = "/v2/queues/q/claims/c8cbd19a-842e-4794-8e25-3d5e2df00f2b";
    app.patch(claim, ())
        .await
        .assert_refused(400, INVALID_BODY, EMPTY);
    assert_not_parsed(&app.patch(claim, NOTHING).await);
}

#[tokio::test]
async fn a_purge_without_a_body_purges_everything() {
    let app = App::new();
    for body in [().into(), NOTHING.into()] {
        let body: Payload = body;
        app.post_bodies("q", [json!(1)]).await;
        app.post("/v2/queues/q/purge", body)
            .await
            .assert_status(204);
        let stats = app.get("/v2/queues/q/stats").await.json();
        assert_eq!(stats["messages"]["total"], 0);
    }
}

#[tokio::test]
async fn bytes_that_no_header_announces_are_no_body() {
    let app = App::new();
    let unannounced = Payload::from("{\"a\": 1}").unannounced();
    app.put("/v2/queues/q", unannounced)
        .await
        .assert_status(201);
    assert_eq!(app.get("/v2/queues/q").await.json().get("a"), None);
}

#[tokio::test]
async fn a_body_on_a_request_that_takes_none_is_ignored() {
    let app = App::new();
    for (method, path, status) in [
        ("GET", "/v2/queues", 200),
        ("GET", "/v2/ping", 204),
        ("GET", "/", 300),
        ("DELETE", "/v2/queues/q", 204),
        ("DELETE", "/v2/queues/q/messages/1", 204),
    ] {
        app.send(method, path, "{ not JSON")
            .await
            .assert_status(status);
    }
}

#[tokio::test]
async fn a_chunked_body_is_read() {
    let app = App::new();
    let pieces = ["{\"a\"", ": [1,", "2]}"].map(Bytes::from);
    app.put("/v2/queues/q", Payload::chunked(pieces))
        .await
        .assert_status(201);
    assert_eq!(app.get("/v2/queues/q").await.json()["a"], json!([1, 2]));

    let post = Payload::chunked([
        r#"{"messages": [{"ttl""#.into(),
        r#": 60, "body": 1}]}"#.into(),
    ]);
    app.post("/v2/queues/q/messages", post)
        .await
        .assert_status(201);
    let terms = Payload::chunked([r#"{"ttl": 60}"#.into()]);
    let claim = app.post("/v2/queues/q/claims", terms).await;
    let location = claim.header("location").expect("a claim").to_owned();
    assert_eq!(app.get(&location).await.json()["ttl"], 60);
}

#[tokio::test]
async fn a_body_whose_head_says_that_it_is_too_large_is_not_read() {
    let app = App::new();
    let (queue, messages) = ("/v2/queues/q", "/v2/queues/q/messages");
    for (method, path, size, title, description) in [
        (
            "PUT",
            queue,
            65_537,
            "Invalid API request",
            "Queue metadata is too large. Max size: 65536",
        ),
        (
            "PATCH",
            queue,
            65_537,
            INVALID_BODY,
            "Queue metadata is too large. Max size: 65536",
        ),
        (
            "POST",
            messages,
            262_145,
            "Invalid API request",
            "Message collection size is too large. Max size 262144",
        ),
    ] {
        let body = Payload::from("x".repeat(size));
        let taken = body.taken();
        let answer = app.send(method, path, body).await;
        answer.assert_refused(400, title, description);
        assert_eq!(taken.load(Ordering::SeqCst), 0, "{method} {path}");
    }
}

#[tokio::test]
async fn a_chunked_body_that_is_too_large_is_refused_while_it_arrives() {
    let app = App::new();
    let kibibyte = || Bytes::from(" ".repeat(1024));
    for (method, path, limit) in [
        ("PUT", "/v2/queues/q", 64),
        ("PATCH", "/v2/queues/q", 64),
        ("POST", "/v2/queues/q/messages", 256),
    ] {
        let endless = Payload::chunked((0..10_000).map(|_| kibibyte()));
        let taken = endless.taken();
        let answer = if method == "PATCH" {
            app.patch(path, endless).await
        } else {
            app.send(method, path, endless).await
        };
        answer.assert_status(400);
        let description = answer.json()["description"].to_string();
        assert!(
            description.contains("is too large. Max size"),
            "{description}"
        );
        assert_eq!(taken.load(Ordering::SeqCst), limit + 1, "{method} {path}");
    }
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_taken() {
    let app = App::new();
    let padded = |text: &str, size: usize| format!("{text}{}", " ".repeat(size - text.len()));
    let whole = padded("{}", 65_536);
    app.put("/v2/queues/q", whole.clone())
        .await
        .assert_status(201);
    let (first, second) = whole.split_at(65_000);
    let pieces = [first.to_owned().into(), second.to_owned().into()];
    app.put("/v2/queues/r", Payload::chunked(pieces))
        .await
        .assert_status(201);
    app.patch("/v2/queues/q", padded("[]", 65_536))
        .await
        .assert_status(200);
    let post = padded(r#"{"messages": [{"body": 1}]}"#, 262_144);
    app.post("/v2/queues/q/messages", post)
        .await
        .assert_status(201);
}

#[tokio::test]
async fn the_limits_of_bodies_can_be_set() {
    let app = App::with("[limits]\nmax_queue_metadata = 20\nmax_messages_post_size = 40");
    let document = |size: usize| format!("{{{}}}", " ".repeat(size - 2));
    app.put("/v2/queues/q", document(20))
        .await
        .assert_status(201);
    app.put("/v2/queues/r", document(21)).await.assert_refused(
        400,
        "Invalid API request",
        "Queue metadata is too large. Max size: 20",
    );
    app.post("/v2/queues/q/messages", document(41))
        .await
        .assert_refused(
            400,
            "Invalid API request",
            "Message collection size is too large. Max size 40",
        );
}

#[tokio::test]
async fn a_body_that_is_not_json_is_refused() {
    let app = App::new();
    let utf16: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for body in [
        b"{".to_vec(),
        b"}".to_vec(),
        b"   ".to_vec(),
        b"{} x".to_vec(),
        b"{}{}".to_vec(),
        b"{\"a\": 1,}".to_vec(),
        b"{'a': 1}".to_vec(),
        b"{a: 1}".to_vec(),
        b"{\"a\": 01}".to_vec(),
        b"{\"a\": .5}".to_vec(),
        b"{\"a\": +1}".to_vec(),
        b"{\"a\": \"\t\"}".to_vec(),
        b"{\"a\": \"\\x\"}".to_vec(),
        b"{\"a\": \"\xff\"}".to_vec(),
        b"{\"a\": \"\xed\xa0\x80\"}".to_vec(),
        b"// {}".to_vec(),
        b"\x00".to_vec(),
        b"\xef\xbb\xbf{}".to_vec(),
        utf16,
    ] {
        let shown = String::from_utf8_lossy(&body).into_owned();
        for (method, path) in [
            ("PUT", "/v2/queues/q"),
            ("PATCH", "/v2/queues/q"),
            ("POST", "/v2/queues/q/messages"),
            ("POST", "/v2/queues/q/claims"),
            ("POST", "/v2/queues/q/purge"),
        ] {
            let answer = match method {
                "PATCH" => app.patch(path, body.clone()).await,
                _ => app.send(method, path, body.clone()).await,
            };
            assert_eq!(answer.status, 400, "{method} {path} {shown}");
            assert_not_parsed(&answer);
        }
    }
}

#[tokio::test]
async fn a_top_level_that_is_neither_an_object_nor_an_array_is_refused() {
    let app = App::new();
    for body in ["\"text\"", "1", "true", "false", "null", "1.5"] {
        assert_not_parsed(&app.put("/v2/queues/q", body).await);
        assert_not_parsed(&app.patch("/v2/queues/q", body).await);
        assert_not_parsed(&app.post("/v2/queues/q/messages", body).await);
        assert_not_parsed(&app.post("/v2/queues/q/claims", body).await);
        assert_not_parsed(&app.post("/v2/queues/q/purge", body).await);
    }
}

#[tokio::test]
async fn an_array_where_an_object_belongs_is_a_wrong_type_of_document() {
    let app = App::new();
    for (method, path) in [("PUT", "/v2/queues/q"), ("POST", "/v2/queues/q/claims")] {
        app.send(method, path, "[]").await.assert_refused(
            400,
            INVALID_BODY,
            "Document type not supported.",
        );
    }
}

#[tokio::test]
async fn white_space_around_a_document_does_not_matter() {
    let app = App::new();
    app.put("/v2/queues/q", " \r\n\t{\"a\" :\n1}\r\n ")
        .await
        .assert_status(201);
    assert_eq!(app.get("/v2/queues/q").await.json()["a"], 1);
}

#[tokio::test]
async fn of_a_key_that_stands_twice_the_last_one_counts() {
    let app = App::new();
    app.put("/v2/queues/q", r#"{"a": 1, "b": 2, "a": 3}"#).await;
    assert_eq!(app.get("/v2/queues/q").await.json()["a"], 3);
    app.post(
        "/v2/queues/q/messages",
        r#"{"messages": 5, "messages": [{"body": 1, "ttl": "x", "ttl": 60, "body": 2}]}"#,
    )
    .await
    .assert_status(201);
    let listed = app.get("/v2/queues/q/messages?echo=true").await.json();
    let message = &listed["messages"][0];
    assert_eq!((&message["body"], &message["ttl"]), (&json!(2), &json!(60)));
}

#[tokio::test]
async fn integers_have_64_bits() {
    let app = App::new();
    let path = "/v2/queues/q";
    app.put(
        path,
        r#"{"least": -9223372036854775808, "most": 9223372036854775807}"#,
    )
    .await
    .assert_status(201);
    let shown = app.get(path).await.json();
    assert_eq!(
        (&shown["least"], &shown["most"]),
        (&json!(i64::MIN), &json!(i64::MAX))
    );
    for number in [
        "9223372036854775808",
        "-9223372036854775809",
        "18446744073709551615",
        "100000000000000000000000000000000000000000",
    ] {
        for body in [
            format!(r#"{{"a": {number}}}"#),
            format!(r#"{{"a": [{{"deep": [{number}]}}]}}"#),
            format!(r#"{{"messages": [{{"body": {number}}}]}}"#),
            format!(r#"{{"messages": [{{"ttl": {number}, "body": 1}}]}}"#),
            format!(r#"{{"ttl": {number}}}"#),
        ] {
            for (method, path) in [
                ("PUT", "/v2/queues/q"),
                ("POST", "/v2/queues/q/messages"),
                ("POST", "/v2/queues/q/claims"),
                ("POST", "/v2/queues/q/purge"),
            ] {
                app.send(method, path, body.as_str()).await.assert_refused(
                    400,
                    INVALID_BODY,
                    "JSON contains integer that is too large.",
                );
            }
        }
    }
}

#[tokio::test]
async fn numbers_that_are_none_are_refused() {
    let app = App::new();
    for number in ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1E+999"] {
        let metadata = format!(r#"{{"a": {number}}}"#);
        assert_not_parsed(&app.put("/v2/queues/q", metadata).await);
        let post = format!(r#"{{"messages": [{{"body": [{number}]}}]}}"#);
        assert_not_parsed(&app.post("/v2/queues/q/messages", post).await);
    }
    app.put(
        "/v2/queues/q",
        r#"{"a": 1e300, "b": 1e-400, "c": "1e400 NaN"}"#,
    )
    .await
    .assert_status(201);
}

#[tokio::test]
async fn half_a_character_is_refused() {
    let app = App::new();
    for text in [
        r"\ud800",
        r"\udc00",
        r"\ud800\ud800",
        r"\ud83dx",
        r"\uD800A",
    ] {
        let metadata = format!(r#"{{"a": "{text}"}}"#);
        assert_not_parsed(&app.put("/v2/queues/q", metadata).await);
        let post = format!(r#"{{"messages": [{{"body": {{"{text}": 1}}}}]}}"#);
        assert_not_parsed(&app.post("/v2/queues/q/messages", post).await);
    }
    app.put("/v2/queues/q", r#"{"a": "\ud83d\ude00 \\ud800"}"#)
        .await
        .assert_status(201);
    let shown = app.get("/v2/queues/q").await.json();
    assert_eq!(shown["a"], "\u{1f600} \\ud800");
}

#[tokio::test]
async fn deep_nesting_is_fine_and_bottomless_nesting_is_refused() {
    let app = App::new();
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let post = |body: String| format!(r#"{{"messages": [{{"body": {body}}}]}}"#);
    let path = "/v2/queues/q/messages";
    app.post(path, post(nested(900))).await.assert_status(201);
    let listed = app.get("/v2/queues/q/messages?echo=true").await;
    listed.assert_status(200);
    assert!(listed.text().contains(&nested(900)));
    assert_not_parsed(&app.post(path, post(nested(100_000))).await);
    assert_not_parsed(&app.post(path, post("[".repeat(100_000))).await);
    let objects = format!("{}1{}", "{\"a\":".repeat(20_000), "}".repeat(20_000));
    assert_not_parsed(&app.post(path, post(objects)).await);
}

#[tokio::test]
async fn deep_nesting_is_fine_in_metadata_too() {
    let app = App::new();
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let path = "/v2/queues/q";
    let fine = format!(r#"{{"a": {}}}"#, nested(900));
    app.put(path, fine).await.assert_status(201);
    assert!(app.get(path).await.text().contains(&nested(900)));
    app.get("/v2/queues?detailed=true").await.assert_status(200);
    let too_deep = format!(r#"{{"a": {}}}"#, nested(30_000));
    assert_not_parsed(&app.put("/v2/queues/r", too_deep).await);
    assert_not_parsed(&app.patch(path, nested(30_000)).await);
}

#[tokio::test]
async fn unknown_fields_are_dropped_where_they_mean_nothing() {
    let app = App::new();
    app.post(
        "/v2/queues/q/messages",
        json!({"messages": [{"body": 1, "x": 1, "id": "y"}], "extra": true}),
    )
    .await
    .assert_status(201);
    let message = app.get("/v2/queues/q/messages?echo=true").await.json()["messages"][0].clone();
    let keys: Vec<&String> = message.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["id", "href", "ttl", "age", "body"]);
    app.post("/v2/queues/q/claims", json!({"ttl": 60, "x": Value::Null}))
        .await
        .assert_status(201);
    app.post(
        "/v2/queues/q/purge",
        json!({"resource_types": [], "x": Value::Null}),
    )
    .await
    .assert_status(204);
}

#[tokio::test]
async fn a_body_that_has_to_be_unpacked_is_refused_and_nothing_happens() {
    let app = App::new();
    for coding in ["gzip", "GZIP", "deflate", "br", "identity, gzip", "x"] {
        for (method, path) in [
            ("PUT", "/v2/queues/q"),
            ("POST", "/v2/queues/q/messages"),
            ("POST", "/v2/queues/q/claims"),
        ] {
            let answer = app
                .header("Content-Encoding", coding)
                .send(method, path, "{}")
                .await;
            answer.assert_refused(
                415,
                "Unsupported content encoding",
                "Request bodies are taken without a Content-Encoding only.",
            );
            assert_eq!(answer.header("accept-encoding"), Some("identity"));
        }
    }
    app.get("/v2/queues")
        .await
        .assert_is(200, r#"{"queues": [], "links": []}"#);
    let gzip = app.header("Content-Encoding", "gzip");
    gzip.put("/v2/queues/a", ()).await.assert_status(201);
    gzip.get("/v2/queues").await.assert_status(200);
    let plain = app.header("Content-Encoding", "Identity");
    plain.put("/v2/queues/b", "{}").await.assert_status(201);
}
