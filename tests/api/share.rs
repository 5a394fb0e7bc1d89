//! Pre-signed access (spec: signed-urls.md).

use serde_json::{Value, json};

use crate::api::support::App;

const SHARE: &str = "/v2/queues/shq/share";
const KEY: &str = "[signed_url]\nsecret_key = 'SPECSECRET'";
/// What the specification's key makes of `GET` on `/v2/queues/shq/messages` of project `p1` until 2035.
const VECTOR: &str = "0b7cebebfdf21d9f70d271c7bbff439683e6b8e23a551dd1690f692940b11110";

fn app() -> App {
    App::with(KEY).project("p1")
}

/// The service as a bearer of a signature calls it.
fn bearer(app: &App, shared: &Value) -> App {
    let list = |key: &str| {
        let items = shared[key].as_array().expect(key).iter();
        let items: Vec<&str> = items.map(|item| item.as_str().expect("a text")).collect();
        items.join(",")
    };
    let text = |key: &str| shared[key].as_str().expect(key).to_owned();
    app.header("URL-Signature", text("signature"))
        .header("URL-Expires", text("expires"))
        .header("URL-Methods", list("methods"))
        .header("URL-Paths", list("paths"))
        .header("X-Project-Id", text("project"))
}

fn vector(app: &App) -> App {
    let shared = json!({"signature": VECTOR, "expires": "2035-01-01T00:00:00", "methods": ["GET"],
        "paths": ["/v2/queues/shq/messages"], "project": "p1"});
    bearer(app, &shared)
}

async fn share(app: &App, document: Value) -> Value {
    let answer = app.post(SHARE, document).await;
    answer.assert_status(200);
    assert_eq!(answer.header("location"), None);
    answer.json()
}

#[tokio::test]
async fn the_signature_of_the_specification_is_made() {
    let document = json!({"expires": "2035-01-01T00:00:00"});
    app().post(SHARE, document).await.assert_is(
        200,
        &format!(
            "{{\"paths\": [\"/v2/queues/shq/messages\"], \"methods\": [\"GET\"], \"project\": \"p1\", \
             \"expires\": \"2035-01-01T00:00:00\", \"signature\": \"{VECTOR}\"}}"
        ),
    );
}

#[tokio::test]
async fn paths_and_methods_are_sorted_and_kept_twice() {
    let shared = share(
        &app(),
        json!({"paths": ["messages", "claims", "claims"], "methods": ["GET", "POST", "DELETE"],
            "expires": "2035-01-01T01:30:00.75+01:30"}),
    )
    .await;
    let claims = "/v2/queues/shq/claims";
    let paths = json!([claims, claims, "/v2/queues/shq/messages"]);
    assert_eq!(shared["paths"], paths);
    assert_eq!(shared["methods"], json!(["DELETE", "GET", "POST"]));
    assert_eq!(shared["expires"], "2035-01-01T00:00:00");
}

#[tokio::test]
async fn what_is_left_out_takes_defaults() {
    let app = app();
    for document in [
        json!({}),
        json!({"paths": [], "methods": null, "expires": null}),
        json!({"paths": null, "methods": []}),
    ] {
        let shared = share(&app, document).await;
        assert_eq!(shared["paths"], json!(["/v2/queues/shq/messages"]));
        assert_eq!(shared["methods"], json!(["GET"]));
        assert_eq!(shared["expires"], "2026-01-02T00:00:00");
    }
}

#[tokio::test]
async fn faulty_documents_are_refused() {
    let app = app();
    let (body, request) = ("Invalid request body", "Invalid API request");
    app.post(SHARE, ())
        .await
        .assert_refused(400, body, "Request body can not be empty");
    for text in ["", "{", "nope"] {
        app.post(SHARE, text)
            .await
            .assert_refused(400, body, "Request body could not be parsed.");
    }
    let unsupported = "Document type not supported.";
    for document in [
        json!([]),
        json!({"paths": 5}),
        json!({"paths": [1]}),
        json!({"methods": [1]}),
        json!({"methods": ["GET,PUT"]}),
    ] {
        app.post(SHARE, document)
            .await
            .assert_refused(400, body, unsupported);
    }
    let no_date = |shown: &str| {
        format!(
            "`expires` should be date format, for example 2016-01-01T00:00:00, not integer value: {shown}"
        )
    };
    for (document, sentence) in [
        (json!({"foo": 1}), "Unknown keys: {'foo'}".to_owned()),
        (
            json!({"project": "p"}),
            "Unknown keys: {'project'}".to_owned(),
        ),
        (
            json!({"paths": ["stats", "messages"]}),
            "Invalid paths: {'stats'}".to_owned(),
        ),
        (
            json!({"methods": "GET"}),
            "`methods` should be a list".to_owned(),
        ),
        (json!({"expires": 5}), no_date("5")),
        (json!({"expires": "5"}), no_date("5")),
        (json!({"expires": true}), no_date("True")),
        (json!({"expires": 1.5}), no_date("1.5")),
        (
            json!({"expires": 0}),
            "expected string or bytes-like object, got 'int'".to_owned(),
        ),
        (
            json!({"expires": "garbage"}),
            "Unable to parse date string 'garbage'".to_owned(),
        ),
        (
            json!({"expires": "2025-12-31"}),
            "`expires` is lower than the current time".to_owned(),
        ),
        (
            json!({"expires": "2026-01-01T00:00:00"}),
            "`expires` is lower than the current time".to_owned(),
        ),
    ] {
        app.post(SHARE, &document)
            .await
            .assert_refused(400, request, &sentence);
    }
}

#[tokio::test]
async fn methods_that_http_does_not_have_are_not_signed() {
    let app = app();
    for (methods, shown) in [
        (json!(["GET", "get"]), "{'get'}"),
        (json!(["TRACE", "MOVE", ""]), "{'', 'MOVE', 'TRACE'}"),
        (json!(["DELETE", "GET\\nvictim"]), "{'GET\\nvictim'}"),
    ] {
        app.post(SHARE, json!({"methods": methods}))
            .await
            .assert_refused(
                400,
                "Invalid API request",
                &format!("Invalid methods: {shown}"),
            );
    }
    let all = json!(["PUT", "POST", "PATCH", "OPTIONS", "HEAD", "GET", "DELETE"]);
    share(&app, json!({"methods": all})).await;
}

#[tokio::test]
async fn a_project_with_a_backslash_gets_no_signature_that_fits_another_project() {
    let app = app();
    let tricky = app.project("a\\np1");
    let document = json!({"methods": ["GET"], "expires": "2035-01-01T00:00:00"});
    tricky.post(SHARE, document).await.assert_refused(
        400,
        "Invalid API request",
        "Nothing can be signed for a project whose id contains a backslash.",
    );
    let consent = App::with(&format!(
        "[notifications]\nrequire_confirmation = true\n{KEY}"
    ));
    let document = json!({"subscriber": "https://example.org/"});
    let path = "/v2/queues/shq/subscriptions";
    let answer = consent.project("a\\np1").post(path, &document).await;
    answer.assert_status(400);
    assert!(answer.text().contains("backslash"), "{}", answer.text());
    consent
        .project("p1")
        .post(path, &document)
        .await
        .assert_status(201);
}

#[tokio::test]
async fn without_a_key_nothing_is_signed_and_nothing_let_in() {
    let app = App::new().project("p1");
    app.post(SHARE, "{}").await.assert_refused(
        400,
        "Invalid API request",
        "The `key` can't be None",
    );
    vector(&app)
        .get("/v2/queues/shq/messages")
        .await
        .assert_is(404, NOT_FOUND);
}

const NOT_FOUND: &str = r#"{"title": "404 Not Found"}"#;

#[tokio::test]
async fn a_signature_opens_its_path_and_what_is_below() {
    let app = app();
    let id = app.post_bodies("shq", [json!("x")]).await.remove(0);
    let bearer = vector(&app);
    bearer
        .get("/v2/queues/shq/messages?echo=true")
        .await
        .assert_status(200);
    let one = bearer.get(&format!("/v2/queues/shq/messages/{id}")).await;
    one.assert_status(200);
    assert_eq!(one.json()["body"], "x");
    // Percent-encoding does not make another path of it.
    bearer
        .get("/v2/queues/%73hq/messages?echo=true")
        .await
        .assert_status(200);
}

#[tokio::test]
async fn a_signature_opens_nothing_else() {
    let app = app();
    app.post_bodies("shq", [json!("x")]).await;
    app.put("/v2/queues/shq2", ()).await;
    let bearer = vector(&app);
    for (method, path) in [
        ("POST", "/v2/queues/shq/messages"),
        ("DELETE", "/v2/queues/shq/messages?pop=1"),
        ("OPTIONS", "/v2/queues/shq/messages"),
        ("GET", "/v2/queues/shq"),
        ("GET", "/v2/queues/shq/stats"),
        ("GET", "/v2/queues/shq/subscriptions"),
        ("GET", "/v2/queues/shq2/messages"),
        ("GET", "/v2/queues/sh%71/messagesx"),
        ("GET", "/v2/topics/shq/messages"),
        ("GET", "/v2/queues"),
        ("GET", "/v2/ping"),
        ("GET", "/v2/"),
        ("GET", "/"),
        ("GET", "/v2/queues/shq/messages/../stats"),
    ] {
        let answer = bearer.send(method, path, ()).await;
        assert_eq!(
            (answer.status, answer.text()),
            (404, NOT_FOUND),
            "{method} {path}"
        );
    }
    assert_eq!(
        app.get("/v2/queues/shq/stats").await.json()["messages"]["total"],
        1
    );
}

#[tokio::test]
async fn a_signed_dot_matches_only_a_dot() {
    let app = app();
    let shared = app.post("/v2/queues/a.b/share", "{}").await.json();
    bearer(&app, &shared)
        .get("/v2/queues/a.b/messages")
        .await
        .assert_status(200);
    bearer(&app, &shared)
        .get("/v2/queues/aXb/messages")
        .await
        .assert_is(404, NOT_FOUND);
}

#[tokio::test]
async fn what_does_not_fit_the_signature_is_not_found() {
    let app = app();
    let bearer = vector(&app);
    let path = "/v2/queues/shq/messages";
    for (name, value) in [
        ("URL-Signature", ""),
        ("URL-Signature", &VECTOR.to_uppercase()),
        ("URL-Signature", "0"),
        ("URL-Methods", "GET,PUT"),
        ("URL-Methods", "get"),
        ("URL-Paths", "/v2/queues"),
        ("URL-Paths", ".*"),
        ("URL-Expires", "2036-01-01T00:00:00"),
        ("URL-Expires", "soon"),
        ("X-Project-Id", "p2"),
    ] {
        bearer
            .header(name, value)
            .get(path)
            .await
            .assert_is(404, NOT_FOUND);
    }
    for name in ["URL-Methods", "URL-Paths", "URL-Expires", "X-Project-Id"] {
        bearer
            .without(name)
            .get(path)
            .await
            .assert_is(404, NOT_FOUND);
    }
    for expires in ["2035-01-01T00:00:00Z", "2035-01-01T01:00:00+01:00"] {
        bearer
            .header("URL-Expires", expires)
            .get(path)
            .await
            .assert_status(200);
    }
    bearer
        .without("Client-ID")
        .get(path)
        .await
        .assert_status(400);
}

#[tokio::test]
async fn a_signature_expires() {
    let app = app();
    let shared = share(&app, json!({"expires": "2026-01-01T00:01:00"})).await;
    let bearer = bearer(&app, &shared);
    app.advance(59);
    bearer
        .get("/v2/queues/shq/messages")
        .await
        .assert_status(200);
    app.advance(1);
    bearer
        .get("/v2/queues/shq/messages")
        .await
        .assert_is(404, NOT_FOUND);
}

#[tokio::test]
async fn a_bearer_posts_claims_and_deletes() {
    let app = app();
    let shared = share(
        &app,
        json!({"paths": ["messages", "claims"], "methods": ["POST", "DELETE"]}),
    )
    .await;
    let bearer = bearer(&app, &shared);
    bearer.post_bodies("shq", [json!(1)]).await;
    let claimed = bearer.post("/v2/queues/shq/claims", "{}").await;
    claimed.assert_status(201);
    let href = claimed.json()["messages"][0]["href"]
        .as_str()
        .expect("a path")
        .to_owned();
    bearer.delete(&href).await.assert_status(204);
}

#[tokio::test]
async fn a_bearer_has_no_roles_but_those_of_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("policy.yaml");
    std::fs::write(&path, "\"messages:get_all\": \"role:reader\"").expect("a file");
    let app = App::with(&format!(
        "[access]\npolicy_file = '{}'\n{KEY}",
        path.display()
    ));
    let reader = app.project("p1").header("X-Roles", "reader");
    reader
        .get("/v2/queues/shq/messages")
        .await
        .assert_status(200);
    vector(&reader)
        .get("/v2/queues/shq/messages")
        .await
        .assert_status(403);
}
