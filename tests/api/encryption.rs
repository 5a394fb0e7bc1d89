//! Message bodies that are encrypted at rest (spec: messages.md 11; quirks Q-SEC-3 and Q-SEC-4: the better thing).

use serde_json::{Value, json};

use crate::api::store::Kept;
use crate::api::support::{Answer, App};

const ENCRYPTED: &str = r#"{"_enable_encrypt_messages": true}"#;

/// A service whose queue `q` is encrypted.
async fn app_with_an_encrypted_queue() -> App {
    let app = App::new();
    app.put("/v2/queues/q", ENCRYPTED).await.assert_status(201);
    app
}

/// The bodies in an answer.
fn bodies(answer: &Answer) -> Vec<Value> {
    assert!([200, 201].contains(&answer.status), "{}", answer.text());
    let document = answer.json();
    let messages = document["messages"].as_array().expect("messages");
    messages
        .iter()
        .map(|message| message["body"].clone())
        .collect()
}

async fn listed(app: &App) -> Vec<Value> {
    bodies(&app.get("/v2/queues/q/messages?echo=true").await)
}

#[tokio::test]
async fn bodies_are_decrypted_wherever_they_are_returned() {
    let app = app_with_an_encrypted_queue().await;
    let sent = vec![
        json!({"event": "BackupStarted", "é": [1, 2.5, null]}),
        json!("text"),
    ];
    let ids = app.post_bodies("q", sent.clone()).await;
    assert_eq!(listed(&app).await, sent);
    for (id, body) in ids.iter().zip(&sent) {
        let message = app.get(&format!("/v2/queues/q/messages/{id}")).await.json();
        assert_eq!(&message["body"], body);
    }
    let path = format!("/v2/queues/q/messages?ids={}", ids.join(","));
    assert_eq!(bodies(&app.get(&path).await), sent);
    let claim = app.post("/v2/queues/q/claims", ()).await;
    assert_eq!(bodies(&claim), sent);
    let location = claim.header("location").expect("a claim").to_owned();
    let shown = app.get(&location).await;
    assert_eq!(bodies(&shown), sent);
    app.delete(&location).await.assert_status(204);
    assert_eq!(
        bodies(&app.delete("/v2/queues/q/messages?pop=2").await),
        sent
    );
}

#[tokio::test]
async fn a_body_comes_back_byte_for_byte() {
    let app = app_with_an_encrypted_queue().await;
    let body = "{\"b\":  [1.50, 1e3],\t\"a\": \"\\u00e9é\"}";
    app.post(
        "/v2/queues/q/messages",
        format!("{{\"messages\": [{{\"body\": {body}}}]}}"),
    )
    .await
    .assert_status(201);
    let answer = app.get("/v2/queues/q/messages?echo=true").await;
    assert!(answer.text().contains(body), "{}", answer.text());
}

#[tokio::test]
async fn every_kind_of_body_comes_back() {
    let app = app_with_an_encrypted_queue().await;
    let sent = vec![
        Value::Null,
        json!(true),
        json!(0),
        json!(-1.5),
        json!(""),
        json!([]),
        json!({}),
        json!("x".repeat(100_000)),
    ];
    app.post_bodies("q", sent.clone()).await;
    assert_eq!(listed(&app).await, sent);
}

#[tokio::test]
async fn texts_that_would_run_when_unpickled_stay_texts() {
    let app = app_with_an_encrypted_queue().await;
    let sent: Vec<Value> = [
        "cbuiltins\nlen\n(S'abcdef'\ntR.",
        "cos\nsystem\n(S'true'\ntR.",
        "N.",
        "I7\n.",
        "(",
        "",
        "\u{80}\u{4}.",
        "AkGC1N9VLlbN4ObBqO3dD+GKtMvTY5+z6siAD1e+mHE=",
        "s1:MeOM3QECAwQFBgcICQoLDHRztl4D3y0T6Kll8+pihEgBep9rTCkl7PGFF3iQKEtkWVvgTA2W/0vMsw",
    ]
    .map(Value::from)
    .into();
    app.post_bodies("q", sent.clone()).await;
    assert_eq!(listed(&app).await, sent);
    assert_eq!(
        bodies(&app.delete("/v2/queues/q/messages?pop=20").await),
        sent
    );
}

#[tokio::test]
async fn texts_that_look_sealed_are_plain_in_a_plain_queue() {
    let app = App::new();
    let sent = vec![json!(
        "s1:MeOM3QECAwQFBgcICQoLDHRztl4D3y0T6Kll8+pihEgBep9rTCkl7PGFF3iQKEtkWVvgTA2W/0vMsw"
    )];
    app.post_bodies("q", sent.clone()).await;
    let change =
        json!([{"op": "add", "path": "/metadata/_enable_encrypt_messages", "value": true}]);
    app.patch("/v2/queues/q", change).await.assert_status(200);
    assert_eq!(listed(&app).await, sent);
}

#[tokio::test]
async fn the_flag_can_be_switched_with_messages_in_the_queue() {
    let app = App::new();
    app.put("/v2/queues/q", ()).await;
    let mut sent = Vec::new();
    for (at, encrypt) in [false, true, false, true].into_iter().enumerate() {
        let change = json!([{
            "op": "add", "path": "/metadata/_enable_encrypt_messages", "value": encrypt,
        }]);
        app.patch("/v2/queues/q", change).await.assert_status(200);
        sent.push(json!({"at": at}));
        app.post_bodies("q", [json!({"at": at})]).await;
        assert_eq!(listed(&app).await, sent);
    }
    let claim = app.post("/v2/queues/q/claims", ()).await;
    assert_eq!(bodies(&claim), sent);
}

#[tokio::test]
async fn what_is_at_rest_is_not_the_plain_text() {
    let place = Kept::new();
    let app = App::open(&place.uri, "");
    app.put("/v2/queues/q", ENCRYPTED).await.assert_status(201);
    app.post_bodies("plain", [json!({"secret": "open words"})])
        .await;
    app.post_bodies("q", [json!({"secret": "hidden words"})])
        .await;
    assert!(place.has_at_rest("open words"));
    assert!(!place.has_at_rest("hidden words"));
    assert!(!place.has_at_rest("aGlkZGVu"), "encoded is not encrypted");
    drop(app);
    assert!(place.has_at_rest("open words"));
    assert!(!place.has_at_rest("hidden words"));
}

/// Opens the store of a place with these keys.
fn open(place: &Kept, keys: &str) -> App {
    App::open(&place.uri, &format!("[messages]\nencryption_keys = {keys}"))
}

#[tokio::test]
async fn keys_can_be_changed_while_messages_wait() {
    let place = Kept::new();
    let app = open(&place, r#"["old"]"#);
    app.put("/v2/queues/q", ENCRYPTED).await.assert_status(201);
    app.post_bodies("q", [json!("first")]).await;
    drop(app);

    let app = open(&place, r#"["new", "old"]"#);
    app.post_bodies("q", [json!("second")]).await;
    assert_eq!(listed(&app).await, ["first", "second"]);
    app.delete("/v2/queues/q/messages?pop=1")
        .await
        .assert_status(200);
    drop(app);

    let app = open(&place, r#"["new"]"#);
    assert_eq!(listed(&app).await, ["second"]);
}

#[tokio::test]
async fn without_its_key_a_body_is_not_shown() {
    let place = Kept::new();
    let app = open(&place, r#"["mine"]"#);
    app.put("/v2/queues/q", ENCRYPTED).await.assert_status(201);
    let id = app
        .post_bodies("q", [json!("hidden words")])
        .await
        .remove(0);
    drop(app);

    let app = open(&place, r#"["another"]"#);
    for (path, doing) in [
        (
            "/v2/queues/q/messages?echo=true".to_owned(),
            "Messages could not be listed.",
        ),
        (
            format!("/v2/queues/q/messages/{id}"),
            "Message could not be retrieved.",
        ),
    ] {
        app.get(&path).await.assert_refused(
            503,
            "Service temporarily unavailable",
            &format!("{doing} Please try again in a few seconds."),
        );
    }
    app.get("/v2/queues/q/stats").await.assert_status(200);
}

#[tokio::test]
async fn what_cannot_be_read_is_neither_popped_nor_claimed() {
    let place = Kept::new();
    let app = open(&place, r#"["mine"]"#);
    app.put("/v2/queues/q", ENCRYPTED).await.assert_status(201);
    app.post_bodies("q", [json!("first"), json!("second")])
        .await;
    drop(app);

    let stranger = open(&place, r#"["another"]"#);
    let pop = stranger.delete("/v2/queues/q/messages?pop=5").await;
    pop.assert_status(503);
    // A broker that leases may hide for half a minute what a pop could not read.
    stranger.advance(60);
    let claim = stranger.post("/v2/queues/q/claims", ()).await;
    claim.assert_status(503);
    let stats = stranger.get("/v2/queues/q/stats").await.json();
    assert_eq!(stats["messages"]["free"], 2);
    drop(stranger);

    let app = open(&place, r#"["mine"]"#);
    app.advance(60);
    let popped = app.delete("/v2/queues/q/messages?pop=5").await.json();
    assert_eq!(popped["messages"][0]["body"], "first");
    assert_eq!(popped["messages"][1]["body"], "second");
}

#[tokio::test]
async fn a_message_that_cannot_be_read_holds_up_no_other() {
    let place = Kept::new();
    let app = open(&place, r#"["lost"]"#);
    app.put("/v2/queues/q", ENCRYPTED).await.assert_status(201);
    app.post_bodies("q", [json!("hidden")]).await;
    drop(app);

    let app = open(&place, r#"["new"]"#);
    app.post_bodies("q", [json!("first"), json!("second"), json!("third")])
        .await;
    assert_eq!(listed(&app).await, ["first", "second", "third"]);
    let one = app.get("/v2/queues/q/messages?echo=true&limit=1").await;
    assert_eq!(bodies(&one), ["first"]);
    // A claim of one message passes it by, and so does a pop.
    let claim = app.post("/v2/queues/q/claims?limit=1", ()).await;
    claim.assert_status(201);
    assert_eq!(bodies(&claim), ["first"]);
    let popped = app.delete("/v2/queues/q/messages?pop=1").await;
    assert_eq!(bodies(&popped), ["second"]);
    let claim = app.post("/v2/queues/q/claims?limit=20", ()).await;
    assert_eq!(bodies(&claim), ["third"]);
    drop(app);

    // When the claims have ended it is there, for whoever has the key.
    let app = open(&place, r#"["new", "lost"]"#);
    app.advance(400);
    assert_eq!(listed(&app).await, ["hidden", "first", "third"]);
}

#[tokio::test]
async fn a_pop_tells_the_claims_that_were_counted() {
    for encrypted in [false, true] {
        let app = App::new();
        let policy = json!({
            "_enable_encrypt_messages": encrypted,
            "_max_claim_count": 5, "_dead_letter_queue": "dead",
        });
        app.put("/v2/queues/q", policy).await.assert_status(201);
        app.post_bodies("q", [json!(1)]).await;
        let claim = app.post("/v2/queues/q/claims", ()).await;
        let location = claim.header("location").expect("a claim").to_owned();
        app.delete(&location).await.assert_status(204);
        let popped = app.delete("/v2/queues/q/messages?pop=1").await.json();
        assert_eq!(popped["messages"][0]["claim_count"], 1, "{encrypted}");
    }
}

#[tokio::test]
async fn the_checksum_of_an_encrypted_message_is_that_of_its_plain_body() {
    let app = App::with("[messages]\nchecksums = true");
    app.put("/v2/queues/q", ENCRYPTED).await.assert_status(201);
    app.post_bodies("q", [json!("plain"), json!({"b": 1, "a": "é"})])
        .await;
    let listed = app.get("/v2/queues/q/messages?echo=true").await.json();
    let checksum = |at: usize| listed["messages"][at]["checksum"].clone();
    assert_eq!(checksum(0), "MD5:a73442f033abd3c787518065af0eb10e");
    assert_eq!(checksum(1), "MD5:b9622a81c98224c56eb3afdd8f51b202");
}

#[tokio::test]
async fn an_encrypted_dead_letter_can_be_read() {
    let app = App::new();
    app.put(
        "/v2/queues/q",
        json!({"_enable_encrypt_messages": true, "_dead_letter_queue": "dead", "_max_claim_count": 1}),
    )
    .await
    .assert_status(201);
    app.put("/v2/queues/dead", ()).await.assert_status(201);
    app.post_bodies("q", [json!("hidden words")]).await;
    for _ in 0..2 {
        app.post("/v2/queues/q/claims", json!({"ttl": 60, "grace": 60}))
            .await;
        app.advance(60);
    }
    let dead = app.get("/v2/queues/dead/messages?echo=true").await;
    assert_eq!(bodies(&dead), ["hidden words"]);
}

#[tokio::test]
async fn the_size_of_a_post_is_that_of_the_plain_request() {
    let app = App::new();
    app.put(
        "/v2/queues/q",
        json!({"_enable_encrypt_messages": true, "_max_messages_post_size": 100}),
    )
    .await
    .assert_status(201);
    let post = format!(r#"{{"messages": [{{"body": "{}"}}]}}"#, "x".repeat(72));
    assert_eq!(post.len(), 100);
    app.post("/v2/queues/q/messages", post)
        .await
        .assert_status(201);
}
