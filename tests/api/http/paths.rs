//! Addressing (spec: http.md 1).

use serde_json::json;

use crate::api::support::App;

/// The whole answer to a path that does not exist.
const NO_SUCH_PATH: &str = r#"{"title": "404 Not Found"}"#;

#[tokio::test]
async fn unknown_paths_are_404() {
    let app = App::new();
    for path in [
        "/v1",
        "/v1/",
        "/v1.1/",
        "/v1.1/queues",
        "/v1.1/queues/q/messages",
        "/v3/",
        "/v2/nope",
        "/v2/queues/q/nope",
        "/v2/queues/q/messages/1/2",
        "/queues",
        "/health",
    ] {
        app.get(path).await.assert_is(404, NO_SUCH_PATH);
    }
}

#[tokio::test]
async fn a_trailing_slash_is_another_path() {
    let app = App::new();
    for path in ["/v2/ping/", "/v2/queues/q/", "/v2/queues/q/stats/"] {
        app.get(path).await.assert_is(404, NO_SUCH_PATH);
    }
    app.get("/v2/").await.assert_status(200);
    // Clients look for the version at its URL: keystoneauth without a client id, and without the slash.
    let version = app
        .without("Client-ID")
        .without("X-Project-Id")
        .get("/v2")
        .await;
    assert_eq!(version.status, 200);
    let all = app.get("/").await.json();
    assert_eq!(version.json()["version"], all["versions"][0]);
    app.get("/v2/queues").await.assert_status(200);
}

#[tokio::test]
async fn a_path_that_ends_where_a_variable_begins_has_the_empty_text_there() {
    let app = App::new();
    app.get("/v2/queues/").await.assert_refused(
        400,
        "Invalid queue identification",
        "The format of the submitted queue name or project id is not valid.",
    );
    app.put("/v2/queues/q", ()).await.assert_status(201);
    app.get("/v2/queues/q/messages/").await.assert_refused(
        404,
        "Not found",
        "Message  does not exist in queue q for project 480924",
    );
}

#[tokio::test]
async fn paths_are_case_sensitive() {
    let app = App::new();
    for path in ["/V2/", "/v2/Queues", "/v2/PING", "/v2/queues/q/Messages"] {
        app.get(path).await.assert_is(404, NO_SUCH_PATH);
    }
    app.put("/v2/queues/Jobs", json!({"a": 1}))
        .await
        .assert_status(201);
    assert_eq!(app.get("/v2/queues/jobs").await.json().get("a"), None);
}

#[tokio::test]
async fn a_percent_encoded_path_is_the_same_path() {
    let app = App::new();
    let created = app.put("/v2/queues/%71%2e1", json!({"a": 1})).await;
    created.assert_status(201);
    assert_eq!(created.header("location"), Some("/v2/queues/q.1"));
    assert_eq!(app.get("/v2/queues/q.1").await.json()["a"], 1);
    assert_eq!(app.get("/%76%32/queue%73/q.1").await.json()["a"], 1);
}

#[tokio::test]
async fn links_are_written_with_the_decoded_name() {
    let app = App::new();
    app.post_bodies("q", [json!(1)]).await;
    let answer = app.get("/v2/queues/%71/messages?echo=true").await;
    let href = answer.json()["messages"][0]["href"].to_string();
    assert!(href.starts_with("\"/v2/queues/q/messages/"), "{href}");
    let next = answer.next().expect("a link");
    assert!(
        next.starts_with("/v2/queues/q/messages?echo=true&"),
        "{next}"
    );
}

#[tokio::test]
async fn an_encoded_slash_splits_a_segment() {
    let app = App::new();
    app.put("/v2/queues/a%2Fb", ())
        .await
        .assert_is(404, NO_SUCH_PATH);
    app.get("/v2/queues/q%2Fstats").await.assert_status(200);
}

#[tokio::test]
async fn what_is_encoded_is_decoded_once_and_never_becomes_a_query() {
    let app = App::new();
    for path in ["/v2/queues/q%3Fa=1", "/v2/queues/%2571", "/v2/queues/q%23"] {
        app.put(path, ()).await.assert_refused(
            400,
            "Invalid queue identification",
            "The format of the submitted queue name or project id is not valid.",
        );
    }
}

#[tokio::test]
async fn several_slashes_count_as_one_in_front_and_nowhere_else() {
    let app = App::new();
    app.get("//v2/queues").await.assert_status(200);
    app.get("///v2/ping").await.assert_status(204);
    app.get("/v2//queues").await.assert_is(404, NO_SUCH_PATH);
}

#[tokio::test]
async fn a_prefix_of_a_front_end_is_no_part_of_the_api() {
    let app = App::new();
    app.get("/messaging/v2/queues")
        .await
        .assert_is(404, NO_SUCH_PATH);
}

#[tokio::test]
async fn queue_names_have_up_to_64_characters_of_an_alphabet() {
    let app = App::new();
    let longest = "n".repeat(64);
    for name in [
        "q",
        "0",
        "_",
        "-",
        "abc.def",
        "ABCxyz019_-.",
        "...",
        longest.as_str(),
    ] {
        app.put(&format!("/v2/queues/{name}"), ())
            .await
            .assert_status(201);
    }
    let too_long = "n".repeat(65);
    for name in [
        too_long.as_str(),
        "a%20b",
        "a%0Ab",
        "q%0A",
        "a:b",
        "a+b",
        "a~b",
        "a*",
        "%C3%A9",
        "%FF",
        "%00",
        // In a path these are steps, which clients and proxies take before they send it.
        ".",
        "..",
        "%2e",
        "%2E%2e",
    ] {
        for (method, path) in [
            ("GET", format!("/v2/queues/{name}")),
            ("PUT", format!("/v2/queues/{name}")),
            ("GET", format!("/v2/queues/{name}/stats")),
            ("POST", format!("/v2/queues/{name}/messages")),
            ("POST", format!("/v2/queues/{name}/claims")),
        ] {
            app.send(method, &path, ()).await.assert_refused(
                400,
                "Invalid queue identification",
                "The format of the submitted queue name or project id is not valid.",
            );
        }
    }
}
