//! A store that does not answer: every operation says what it could not do, and that trying again is right (spec:
//! http.md 7, quirk Q-MSG-12).
//!
//! The service here is one that was told to stop and has closed its stores; what still asks it finds none. It stops as
//! servers do, so it is given a port, which nobody ever speaks to.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use isimud::Listeners;
use isimud::config::{Config, Flags};
use isimud::http::Api;
use isimud_contract::ManualClock;
use tokio::net::TcpListener;
use tokio::sync::watch;
use uuid::Uuid;

use crate::api::support::{CLIENT, PROJECT};

/// A service whose stores are closed.
async fn closed() -> Api {
    let store = crate::api::store::fresh();
    let flags = Flags {
        management: crate::api::store::beside(&store),
        store: Some(store),
        ..Flags::default()
    };
    let config = Config::load(&flags).expect("a right configuration");
    let clock = Arc::new(ManualClock::default());
    let service = isimud::open(&config, clock).expect("the service opens");
    let api = service.api.clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let listeners = Listeners {
        api: listener,
        admin: None,
        websocket: None,
    };
    let (_, stop) = watch::channel(true);
    isimud::serve(&config, service, listeners, stop)
        .await
        .expect("the service stops");
    api
}

/// The status and the body of an answer.
async fn ask(api: &Api, method: &str, path: &str, body: &'static str) -> (u16, String) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("Client-ID", CLIENT)
        .header("X-Project-Id", PROJECT)
        .header("Content-Length", body.len())
        .body(Body::from(body))
        .expect("a request");
    let answer = api.clone().answer(request).await;
    let status = answer.status().as_u16();
    let text = answer.into_body().collect().await.expect("a body");
    let text = String::from_utf8(text.to_bytes().to_vec()).expect("text");
    (status, text)
}

#[tokio::test]
async fn an_operation_on_messages_or_claims_says_what_could_not_be_done() {
    let api = closed().await;
    let id = Uuid::new_v4();
    let (messages, claims) = ("/v2/queues/q/messages", "/v2/queues/q/claims");
    let (message, claim) = (format!("{messages}/{id}"), format!("{claims}/{id}"));
    let held = format!("{message}?claim_id={id}");
    let (several, pop) = (format!("{messages}?ids={id}"), format!("{messages}?pop=1"));
    let post = r#"{"messages": [{"body": 1}]}"#;
    for (method, path, body, doing) in [
        ("POST", messages, post, "Messages could not be enqueued."),
        // The store is asked before the body is read.
        ("POST", messages, "{", "Messages could not be enqueued."),
        ("GET", messages, "", "Messages could not be listed."),
        ("GET", &several, "", "Message could not be retrieved."),
        ("GET", &message, "", "Message could not be retrieved."),
        ("DELETE", &message, "", "Message could not be deleted."),
        ("DELETE", &held, "", "Message could not be deleted."),
        ("DELETE", &several, "", "Messages could not be deleted."),
        ("DELETE", &pop, "", "Messages could not be popped."),
        ("POST", claims, "", "Claim could not be created."),
        ("GET", &claim, "", "Claim could not be queried."),
        ("PATCH", &claim, "{}", "Claim could not be updated."),
        ("DELETE", &claim, "", "Claim could not be deleted."),
    ] {
        let document = format!(
            "{{\"title\": \"Service temporarily unavailable\", \"description\": \"{doing} Please try again in a few \
             seconds.\"}}"
        );
        let answer = ask(&api, method, path, body).await;
        if body == "{" && crate::api::store::leases() {
            // Queues are kept elsewhere, and that store answers.
            assert_eq!(answer.0, 400, "{method} {path}");
            continue;
        }
        assert_eq!(answer, (503, document), "{method} {path}");
    }
}

#[tokio::test]
async fn a_request_that_is_wrong_in_itself_is_refused_all_the_same() {
    let api = closed().await;
    for (method, path, body) in [
        ("GET", "/v2/queues/q/messages?limit=x", ""),
        ("GET", "/v2/queues/q/messages?ids=,", ""),
        ("DELETE", "/v2/queues/q/messages", ""),
        ("DELETE", "/v2/queues/q/messages?pop=0", ""),
        ("POST", "/v2/queues/q/claims?limit=0", ""),
        ("POST", "/v2/queues/q/claims", r#"{"ttl": 1}"#),
    ] {
        let (status, text) = ask(&api, method, path, body).await;
        assert_eq!(status, 400, "{method} {path}: {text}");
    }
}
