//! Calls from pages of other origins (spec: http.md 10).

use crate::api::support::{Answer, App};

const PAGE: &str = "https://horizon.example:8443";
const ALLOWED: &str =
    "[cors]\nallowed_origins = [\"https://other.example\", \"https://horizon.example:8443\"]";

/// The names of the headers that say something of other origins.
fn cors_headers(answer: &Answer) -> Vec<&str> {
    let names = answer.headers.keys().map(|name| name.as_str());
    names
        .filter(|name| name.starts_with("access-control-"))
        .collect()
}

fn varies_by_origin(answer: &Answer) -> bool {
    let values = answer.headers.get_all("vary").iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts
        .flat_map(|text| text.split(','))
        .any(|name| name.trim().eq_ignore_ascii_case("origin"))
}

/// A browser's question whether a page may use a method with some headers; it brings no header of the API.
fn preflight(app: &App, origin: &str, method: &str) -> App {
    app.without("Client-ID")
        .without("X-Project-Id")
        .header("Origin", origin)
        .header("Access-Control-Request-Method", method)
}

#[tokio::test]
async fn without_configuration_there_are_no_headers_for_other_origins() {
    let app = App::new().header("Origin", PAGE);
    let answer = app.get("/v2/queues").await;
    answer.assert_status(200);
    assert!(cors_headers(&answer).is_empty());
    assert!(!varies_by_origin(&answer));
    let answer = preflight(&app, PAGE, "GET")
        .send("OPTIONS", "/v2/queues", ())
        .await;
    assert!(cors_headers(&answer).is_empty());
}

#[tokio::test]
async fn a_call_from_an_allowed_origin_may_be_read_by_the_page() {
    let app = App::with(ALLOWED).header("Origin", PAGE);
    let answer = app.get("/v2/queues").await;
    answer.assert_status(200);
    assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE));
    assert_eq!(
        answer.header("access-control-allow-credentials"),
        Some("true")
    );
    assert_eq!(
        answer.header("access-control-expose-headers"),
        Some("X-Auth-Token,X-Subject-Token,X-Service-Token,X-OpenStack-Request-ID")
    );
    assert!(varies_by_origin(&answer));
}

#[tokio::test]
async fn errors_may_be_read_by_the_page_too() {
    let app = App::with(ALLOWED).header("Origin", PAGE);
    for (answer, status) in [
        (app.get("/v2/nope").await, 404),
        (app.get("/v2/queues?limit=0").await, 400),
        (app.without("Client-ID").get("/v2/queues").await, 400),
        (app.post("/v2/queues", ()).await, 405),
        (app.send("FOO", "/v2/queues", ()).await, 400),
    ] {
        answer.assert_status(status);
        assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE));
        assert!(varies_by_origin(&answer));
        let varies: Vec<_> = answer.headers.get_all("vary").iter().collect();
        assert!(
            varies
                .iter()
                .any(|value| value.as_bytes().starts_with(b"Accept"))
        );
    }
}

#[tokio::test]
async fn another_origin_gets_an_answer_without_such_headers() {
    let app = App::with(ALLOWED);
    for origin in [
        "https://evil.example",
        "http://horizon.example:8443",
        "https://horizon.example",
        "https://horizon.example:8443.evil.example",
        "https://HORIZON.example:8443",
        "null",
    ] {
        let answer = app.header("Origin", origin).get("/v2/queues").await;
        answer.assert_status(200);
        assert!(cors_headers(&answer).is_empty(), "{origin}");
        let answer = preflight(&app, origin, "GET")
            .send("OPTIONS", "/v2/queues", ())
            .await;
        answer.assert_is(200, "");
        assert!(cors_headers(&answer).is_empty(), "{origin}");
    }
}

#[tokio::test]
async fn a_call_without_an_origin_gets_no_such_headers() {
    let answer = App::with(ALLOWED).get("/v2/queues").await;
    answer.assert_status(200);
    assert!(cors_headers(&answer).is_empty());
}

#[tokio::test]
async fn an_allowed_preflight_needs_no_header_of_the_api() {
    let app = App::with(ALLOWED);
    for method in ["GET", "PUT", "POST", "DELETE", "PATCH", "HEAD"] {
        let answer = preflight(&app, PAGE, method)
            .header("Access-Control-Request-Headers", "X-Auth-Token, client-ID")
            .send("OPTIONS", "/v2/queues/q", ())
            .await;
        answer.assert_is(200, "");
        assert_eq!(answer.length, Some(0));
        for (name, value) in [
            ("access-control-allow-origin", PAGE),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-methods", method),
            ("access-control-allow-headers", "X-Auth-Token, client-ID"),
            ("access-control-max-age", "3600"),
            ("vary", "Origin"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{method}: {name}");
        }
    }
}

#[tokio::test]
async fn a_preflight_asks_for_no_headers_where_the_page_sends_none() {
    let app = App::with(ALLOWED);
    let answer = preflight(&app, PAGE, "GET")
        .send("OPTIONS", "/v2/queues", ())
        .await;
    answer.assert_is(200, "");
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET"));
    assert_eq!(answer.header("access-control-allow-headers"), None);
}

#[tokio::test]
async fn a_preflight_for_a_method_or_a_header_that_is_not_allowed_says_nothing() {
    let app = App::with(ALLOWED);
    for (method, headers) in [
        ("TRACE", ""),
        ("get", ""),
        ("FOO", ""),
        ("GET", "X-Evil"),
        ("GET", "Client-id, X-Evil"),
        ("GET", "X-Project-Id"),
    ] {
        let answer = preflight(&app, PAGE, method)
            .header("Access-Control-Request-Headers", headers)
            .send("OPTIONS", "/v2/queues", ())
            .await;
        answer.assert_is(200, "");
        assert!(cors_headers(&answer).is_empty(), "{method} {headers}");
    }
}

#[tokio::test]
async fn a_star_allows_every_origin() {
    let app = App::with("[cors]\nallowed_origins = [\"*\"]\nallow_credentials = false");
    let answer = app
        .header("Origin", "https://any.example")
        .get("/v2/ping")
        .await;
    answer.assert_status(204);
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://any.example")
    );
    assert_eq!(answer.header("access-control-allow-credentials"), None);
}

#[tokio::test]
async fn everything_about_other_origins_can_be_configured() {
    let app = App::with(
        "[cors]\nallowed_origins = [\"https://horizon.example:8443\"]\nallow_credentials = false\n\
         expose_headers = [\"Location\"]\nmax_age_secs = 5\nallow_methods = [\"GET\"]\n\
         allow_headers = [\"X-Project-Id\"]",
    );
    let answer = app.header("Origin", PAGE).get("/v2/ping").await;
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    assert_eq!(
        answer.header("access-control-expose-headers"),
        Some("Location")
    );
    let ask = preflight(&app, PAGE, "GET");
    let answer = ask
        .header("Access-Control-Request-Headers", "x-project-id")
        .send("OPTIONS", "/v2/ping", ())
        .await;
    assert_eq!(answer.header("access-control-max-age"), Some("5"));
    let answer = preflight(&app, PAGE, "PUT")
        .send("OPTIONS", "/v2/ping", ())
        .await;
    assert!(cors_headers(&answer).is_empty());
}

#[tokio::test]
async fn options_that_ask_nothing_of_the_kind_are_answered_as_ever() {
    let app = App::with(ALLOWED).header("Origin", PAGE);
    let answer = app.send("OPTIONS", "/v2/queues", ()).await;
    answer.assert_is(200, "");
    assert_eq!(answer.header("allow"), Some("GET, OPTIONS"));
    assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE));
}
