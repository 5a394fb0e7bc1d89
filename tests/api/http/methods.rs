//! Methods, and the order in which a request is looked at (spec: http.md 2).

use serde_json::json;

use crate::api::support::{App, PATCH_MEDIA};

const NO_SUCH_METHOD: &str = r#"{"title": "405 Method Not Allowed"}"#;
const CLIENT_ID_MISSING: (&str, &str) = (
    "Missing header value",
    "The \"Client-Id\" header is required.",
);
const QUEUE_INVALID: (&str, &str) = (
    "Invalid queue identification",
    "The format of the submitted queue name or project id is not valid.",
);

/// Every path that is served, and its `Allow` header.
const PATHS: &[(&str, &str)] = &[
    ("/", "GET, OPTIONS"),
    ("/v2/", "GET, OPTIONS"),
    ("/v2/ping", "GET, HEAD, OPTIONS"),
    ("/v2/queues", "GET, OPTIONS"),
    ("/v2/queues/q", "DELETE, GET, PATCH, PUT, OPTIONS"),
    ("/v2/queues/q/stats", "GET, OPTIONS"),
    ("/v2/queues/q/purge", "POST, OPTIONS"),
    ("/v2/queues/q/messages", "DELETE, GET, POST, OPTIONS"),
    ("/v2/queues/q/messages/1", "DELETE, GET, OPTIONS"),
    ("/v2/queues/q/claims", "POST, OPTIONS"),
    ("/v2/queues/q/claims/1", "DELETE, GET, PATCH, OPTIONS"),
    ("/v2/pools", "GET, OPTIONS"),
    ("/v2/pools/p", "DELETE, GET, PATCH, PUT, OPTIONS"),
    ("/v2/flavors", "GET, OPTIONS"),
    ("/v2/flavors/f", "DELETE, GET, PATCH, PUT, OPTIONS"),
    ("/v2/health", "GET, OPTIONS"),
    ("/v2/queues/q/share", "POST, OPTIONS"),
    ("/v2/queues/q/subscriptions", "GET, POST, OPTIONS"),
    (
        "/v2/queues/q/subscriptions/1",
        "DELETE, GET, PATCH, OPTIONS",
    ),
    ("/v2/queues/q/subscriptions/1/confirm", "PUT, OPTIONS"),
    ("/v2/topics", "GET, OPTIONS"),
    ("/v2/topics/t", "DELETE, GET, PATCH, PUT, OPTIONS"),
    ("/v2/topics/t/stats", "GET, OPTIONS"),
    ("/v2/topics/t/purge", "POST, OPTIONS"),
    ("/v2/topics/t/messages", "DELETE, GET, POST, OPTIONS"),
    ("/v2/topics/t/messages/1", "DELETE, GET, OPTIONS"),
    ("/v2/topics/t/subscriptions", "GET, POST, OPTIONS"),
    (
        "/v2/topics/t/subscriptions/1",
        "DELETE, GET, PATCH, OPTIONS",
    ),
    ("/v2/topics/t/subscriptions/1/confirm", "PUT, OPTIONS"),
];

#[tokio::test]
async fn a_method_that_a_path_does_not_have_is_405_with_those_it_has() {
    let app = App::new();
    for (path, allow) in PATHS {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE"] {
            if allow.split(", ").any(|allowed| allowed == method) {
                continue;
            }
            let answer = app.send(method, path, ()).await;
            answer.assert_is(405, NO_SUCH_METHOD);
            assert_eq!(answer.header("allow"), Some(*allow), "{method} {path}");
            assert_eq!(answer.header("content-type"), Some("application/json"));
        }
    }
}

#[tokio::test]
async fn options_lists_the_methods_of_a_path() {
    let app = App::new();
    for (path, allow) in PATHS {
        let answer = app.send("OPTIONS", path, ()).await;
        answer.assert_is(200, "");
        assert_eq!(answer.header("allow"), Some(*allow), "{path}");
        assert_eq!(answer.length, Some(0));
    }
}

#[tokio::test]
async fn options_without_the_mandatory_headers_is_answered_and_says_nothing() {
    let app = App::new();
    for bare in [app.without("Client-ID"), app.without("X-Project-Id")] {
        let answer = bare.send("OPTIONS", "/v2/queues", ()).await;
        answer.assert_is(200, "");
        assert_eq!(answer.length, Some(0));
        assert_eq!(answer.header("allow"), None);
    }
}

#[tokio::test]
async fn head_exists_for_ping_only() {
    let app = App::new();
    app.head("/v2/ping").await.assert_is(204, "");
    for (path, allow) in PATHS {
        if *path == "/v2/ping" {
            continue;
        }
        let answer = app.head(path).await;
        answer.assert_is(405, "");
        assert_eq!(answer.header("allow"), Some(*allow), "{path}");
    }
    app.head("/v2/nope").await.assert_is(404, "");
}

#[tokio::test]
async fn a_method_that_http_does_not_know_is_400() {
    let app = App::new();
    for method in ["FOO", "get", "PROPFIND"] {
        for path in ["/", "/v2/queues"] {
            app.send(method, path, ()).await.assert_refused(
                400,
                "Bad request",
                "Invalid HTTP method",
            );
        }
    }
}

#[tokio::test]
async fn an_unknown_path_is_404_before_any_header_is_looked_at() {
    let app = App::new().without("Client-ID").without("X-Project-Id");
    for app in [
        app.clone(),
        app.header("Accept", "text/html"),
        app.header("Client-ID", "x"),
    ] {
        app.get("/v2/nope")
            .await
            .assert_is(404, r#"{"title": "404 Not Found"}"#);
    }
}

#[tokio::test]
async fn headers_are_looked_at_before_the_method() {
    let app = App::new();
    let (title, description) = CLIENT_ID_MISSING;
    app.without("Client-ID")
        .post("/v2/queues", ())
        .await
        .assert_refused(400, title, description);
    app.post("/v2/queues", ()).await.assert_status(405);
    let (title, description) = QUEUE_INVALID;
    app.send("POST", "/v2/queues/a:b", ())
        .await
        .assert_refused(400, title, description);
}

#[tokio::test]
async fn of_several_faults_the_earlier_check_wins() {
    let app = App::new()
        .without("Client-ID")
        .without("X-Project-Id")
        .header("Accept", "text/html")
        .header("Content-Type", "application/x-www-form-urlencoded");
    let path = "/v2/queues/a:b";
    app.put(path, "x=y").await.assert_status(400);
    let form = app.put(path, "x=y").await.json();
    assert_eq!(form["title"], "Invalid Content-Type");

    let app = app.without("Content-Type");
    app.put(path, "x=y").await.assert_status(406);

    let app = app.without("Accept");
    let (title, description) = CLIENT_ID_MISSING;
    app.put(path, "x=y")
        .await
        .assert_refused(400, title, description);

    let app = app.header("Client-ID", "x");
    app.put(path, "x=y").await.assert_refused(
        400,
        "Wrong UUID value",
        "Malformed hexadecimal UUID.",
    );

    let app = app.header("Client-ID", crate::api::support::CLIENT);
    app.put(path, "x=y").await.assert_refused(
        400,
        "Project-Id Missing",
        "The header X-PROJECT-ID was missing",
    );

    let app = app.header("X-Project-Id", "p");
    let (title, description) = QUEUE_INVALID;
    app.put(path, "x=y")
        .await
        .assert_refused(400, title, description);

    app.put("/v2/queues/ab", "x=y").await.assert_refused(
        400,
        "Invalid request body",
        "Request body could not be parsed.",
    );
}

#[tokio::test]
async fn the_versions_need_no_client_and_no_project_but_may_not_be_asked_for_as_html() {
    let app = App::new().without("Client-ID").without("X-Project-Id");
    app.get("/").await.assert_status(300);
    app.post("/", ()).await.assert_is(405, NO_SUCH_METHOD);
    app.header("Accept", "text/html")
        .get("/")
        .await
        .assert_status(406);
    let form = app.header("Content-Type", "application/x-www-form-urlencoded");
    form.send("GET", "/", "x=y").await.assert_status(400);
}

#[tokio::test]
async fn the_body_is_looked_at_before_the_queue_is_looked_for() {
    let app = App::new().header("Content-Type", PATCH_MEDIA);
    app.patch("/v2/queues/q", json!([{"op": "move"}]))
        .await
        .assert_status(400);
    app.patch(
        "/v2/queues/q",
        json!([{"op": "add", "path": "/metadata/a", "value": 1}]),
    )
    .await
    .assert_status(404);
}
