//! Claims that are refused, and with which words (spec: claims.md 2).

use serde_json::{Value, json};

use super::{GRACE, TTL};
use crate::api::messages::{
    CLAIMS, INVALID_BODY, INVALID_PARAMETER, INVALID_REQUEST, PAGE_LIMIT, UNPARSABLE, UNSUPPORTED,
    counts, post_bodies, refused,
};
use crate::api::support::App;

const NO_INTEGER: &str = r#"The "limit" parameter is invalid. The value must be an integer."#;

/// A service with a message that could be claimed.
async fn with_message() -> App {
    let app = App::new();
    post_bodies(&app, [1]).await;
    app
}

#[tokio::test]
async fn a_limit_out_of_bounds_is_refused() {
    let app = with_message().await;
    for limit in ["0", "21", "-1", "99999999999999999999"] {
        let answer = app.post(&format!("{CLAIMS}?limit={limit}"), ()).await;
        refused(limit, &answer, 400, INVALID_REQUEST, PAGE_LIMIT);
    }
    assert_eq!(counts(&app, "fizbat").await, [0, 1, 1]);
}

#[tokio::test]
async fn a_limit_that_is_no_integer_is_refused() {
    let app = with_message().await;
    for limit in ["x", "1.0", "true"] {
        let answer = app.post(&format!("{CLAIMS}?limit={limit}"), ()).await;
        refused(limit, &answer, 400, INVALID_PARAMETER, NO_INTEGER);
    }
}

#[tokio::test]
async fn terms_out_of_bounds_are_refused() {
    let app = with_message().await;
    for (field, description) in [("ttl", TTL), ("grace", GRACE)] {
        for secs in [59, 0, -1, 43201, i64::MAX, i64::MIN] {
            let terms = json!({field: secs}).to_string();
            let answer = app.post(CLAIMS, &*terms).await;
            refused(&terms, &answer, 400, INVALID_REQUEST, description);
        }
    }
    assert_eq!(counts(&app, "fizbat").await, [0, 1, 1]);
}

#[tokio::test]
async fn terms_that_are_no_integers_are_refused() {
    let app = with_message().await;
    for field in ["ttl", "grace"] {
        for value in [
            json!("60"),
            json!(60.0),
            json!(true),
            Value::Null,
            json!([]),
            json!({}),
        ] {
            let terms = json!({field: value}).to_string();
            let answer = app.post(CLAIMS, &*terms).await;
            let description = format!("The value of the \"{field}\" field must be a int.");
            refused(&terms, &answer, 400, INVALID_BODY, &description);
        }
    }
    assert_eq!(counts(&app, "fizbat").await, [0, 1, 1]);
}

#[tokio::test]
async fn claim_terms_that_are_not_an_object_are_refused() {
    let app = with_message().await;
    for (terms, description) in [
        ("[]", UNSUPPORTED),
        (r#"[{"ttl": 60}]"#, UNSUPPORTED),
        ("{", UNPARSABLE),
        (" ", UNPARSABLE),
        ("ttl=60", UNPARSABLE),
        (r#"{"ttl": 60} x"#, UNPARSABLE),
        (r#""text""#, UNPARSABLE),
        ("60", UNPARSABLE),
        ("null", UNPARSABLE),
        (r#"{"ttl": NaN}"#, UNPARSABLE),
        (r#"{"other": "\ud800"}"#, UNPARSABLE),
        (
            r#"{"ttl": 9223372036854775808}"#,
            "JSON contains integer that is too large.",
        ),
    ] {
        let answer = app.post(CLAIMS, terms).await;
        refused(terms, &answer, 400, INVALID_BODY, description);
    }
}

#[tokio::test]
async fn the_first_fault_is_reported_in_a_fixed_order() {
    let app = with_message().await;
    let wrong_ttl = r#"The value of the "ttl" field must be a int."#;
    let wrong_grace = r#"The value of the "grace" field must be a int."#;
    for (limit, terms, title, description) in [
        ("x", "{", INVALID_PARAMETER, NO_INTEGER),
        ("0", "{", INVALID_BODY, UNPARSABLE),
        ("0", r#"{"ttl": "x", "grace": 0}"#, INVALID_BODY, wrong_ttl),
        (
            "0",
            r#"{"ttl": 0, "grace": "x"}"#,
            INVALID_BODY,
            wrong_grace,
        ),
        ("0", r#"{"grace": 0, "ttl": 0}"#, INVALID_REQUEST, TTL),
        ("0", r#"{"grace": 0}"#, INVALID_REQUEST, PAGE_LIMIT),
        ("1", r#"{"grace": 0}"#, INVALID_REQUEST, GRACE),
    ] {
        let answer = app.post(&format!("{CLAIMS}?limit={limit}"), terms).await;
        refused(
            &format!("{limit} {terms}"),
            &answer,
            400,
            title,
            description,
        );
    }
    assert_eq!(counts(&app, "fizbat").await, [0, 1, 1]);
}

#[tokio::test]
async fn a_wrong_claim_is_refused_even_where_there_is_nothing_to_claim() {
    let app = App::new();
    let answer = app
        .post("/v2/queues/nope/claims?limit=0", json!({"ttl": 60}))
        .await;
    answer.assert_refused(400, INVALID_REQUEST, PAGE_LIMIT);
    let answer = app.post("/v2/queues/nope/claims", json!({"ttl": 59})).await;
    answer.assert_refused(400, INVALID_REQUEST, TTL);
}

#[tokio::test]
async fn defaults_are_checked_like_any_terms() {
    for (key, description) in [("default_claim_ttl", TTL), ("default_claim_grace", GRACE)] {
        let app = App::with(&format!("[limits]\n{key} = 30\n"));
        post_bodies(&app, [1]).await;
        let answer = app.post(CLAIMS, ()).await;
        refused(key, &answer, 400, INVALID_REQUEST, description);
        let answer = app.post(CLAIMS, json!({"ttl": 60, "grace": 60})).await;
        answer.assert_status(201);
    }
}

#[tokio::test]
async fn the_longest_terms_can_be_configured() {
    let app = App::with("[limits]\nmax_claim_ttl = 600\nmax_claim_grace = 700\n");
    post_bodies(&app, [1]).await;
    for (terms, description) in [
        (
            json!({"ttl": 601}),
            "The TTL for a claim may not exceed 600 seconds, and must be at least 60 seconds long.",
        ),
        (
            json!({"grace": 701}),
            "The grace for a claim may not exceed 700 seconds, and must be at least 60 seconds long.",
        ),
    ] {
        let answer = app.post(CLAIMS, &terms).await;
        refused("", &answer, 400, INVALID_REQUEST, description);
    }
    let answer = app.post(CLAIMS, json!({"ttl": 600, "grace": 700})).await;
    answer.assert_status(201);
}

#[tokio::test]
async fn claims_are_neither_listed_nor_replaced() {
    let app = App::new();
    let one = format!("{CLAIMS}/{}", crate::api::messages::unknown_id());
    for (method, path, allow) in [
        ("GET", CLAIMS, "POST, OPTIONS"),
        ("DELETE", CLAIMS, "POST, OPTIONS"),
        ("PATCH", CLAIMS, "POST, OPTIONS"),
        ("PUT", &*one, "DELETE, GET, PATCH, OPTIONS"),
        ("POST", &*one, "DELETE, GET, PATCH, OPTIONS"),
    ] {
        let answer = app.send(method, path, ()).await;
        answer.assert_is(405, r#"{"title": "405 Method Not Allowed"}"#);
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
}
