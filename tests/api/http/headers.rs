//! What the head of a request must and may bring (spec: http.md 3 and 4.4).

use serde_json::{Value, json};

use crate::api::support::{App, CLIENT, OTHER_CLIENT, Payload};

const UUID: &str = "c8cbd19a-842e-4794-8e25-3d5e2df00f2b";

/// How many messages a client finds that it did not post itself.
async fn foreign_messages(app: &App) -> usize {
    let document = app.get("/v2/queues/q/messages").await.json();
    document["messages"].as_array().expect("messages").len()
}

#[tokio::test]
async fn every_path_but_the_versions_needs_a_client_id() {
    let app = App::new().without("Client-ID");
    for path in ["/v2/", "/v2/ping", "/v2/queues", "/v2/queues/q"] {
        app.get(path).await.assert_refused(
            400,
            "Missing header value",
            "The \"Client-Id\" header is required.",
        );
    }
    app.head("/v2/ping").await.assert_is(400, "");
}

#[tokio::test]
async fn a_client_id_may_be_a_uuid_in_any_spelling() {
    let app = App::new();
    let plain = UUID.replace('-', "");
    for spelling in [
        UUID.to_owned(),
        UUID.to_uppercase(),
        plain.clone(),
        plain.to_uppercase(),
        format!("{{{UUID}}}"),
        format!("{{{plain}}}"),
        format!("urn:uuid:{UUID}"),
        format!("urn:uuid:{plain}"),
        "00000000-0000-0000-0000-000000000000".to_owned(),
    ] {
        app.client(&spelling)
            .get("/v2/queues")
            .await
            .assert_status(200);
    }
}

#[tokio::test]
async fn any_other_client_id_is_refused() {
    let app = App::new();
    for wrong in [
        "",
        " ",
        "me",
        "c8cbd19a-842e-4794-8e25-3d5e2df00f2",
        "c8cbd19a-842e-4794-8e25-3d5e2df00f2b0",
        "c8cbd19a-842e-4794-8e25-3d5e2df00f2g",
        "c8cbd19a-842e-4794-8e25-3d5e2df00f2b, c8cbd19a-842e-4794-8e25-3d5e2df00f2b",
        "\u{e9}8cbd19a-842e-4794-8e25-3d5e2df00f2b",
    ] {
        app.client(wrong).get("/v2/queues").await.assert_refused(
            400,
            "Wrong UUID value",
            "Malformed hexadecimal UUID.",
        );
    }
}

#[tokio::test]
async fn the_spellings_of_a_uuid_are_one_client() {
    let app = App::new();
    app.client(UUID).post_bodies("q", [json!(1)]).await;
    for same in [
        UUID.to_uppercase(),
        UUID.replace('-', ""),
        format!("{{{UUID}}}"),
        format!("urn:uuid:{UUID}"),
    ] {
        assert_eq!(foreign_messages(&app.client(&same)).await, 0, "{same}");
    }
    assert_eq!(foreign_messages(&app.client(OTHER_CLIENT)).await, 1);
}

#[tokio::test]
async fn switched_off_a_client_id_may_be_any_text_of_10_to_36_characters() {
    let app = App::with("[access]\nclient_id = \"off\"");
    let longest = "x".repeat(36);
    for right in ["worker-001", "worker 1 of 2", &longest, UUID] {
        app.client(right).get("/v2/queues").await.assert_status(200);
    }
    for wrong in ["", "worker-01", &format!("{longest}x")] {
        app.client(wrong).get("/v2/queues").await.assert_refused(
            400,
            "Wrong UUID value",
            "Malformed hexadecimal UUID.",
        );
    }
    app.without("Client-ID")
        .get("/v2/queues")
        .await
        .assert_status(400);
}

#[tokio::test]
async fn client_id_lengths_are_configurable_when_uuids_are_not_required() {
    let app = App::with(
        "[access]\nclient_id = \"off\"\nmin_client_id_length = 2\nmax_client_id_length = 3",
    );
    for (id, status) in [("a", 400), ("ab", 200), ("abc", 200), ("abcd", 400)] {
        app.client(id).get("/v2/queues").await.assert_status(status);
    }
}

#[tokio::test]
async fn switched_off_clients_are_told_apart_and_uuids_are_still_normalised() {
    let app = App::with("[access]\nclient_id = \"off\"");
    app.client("worker-001").post_bodies("q", [json!(1)]).await;
    assert_eq!(foreign_messages(&app.client("worker-001")).await, 0);
    assert_eq!(foreign_messages(&app.client("worker-002")).await, 1);
    assert_eq!(foreign_messages(&app.client("WORKER-001")).await, 1);
    app.client("worker-001").delete("/v2/queues/q").await;
    app.client(UUID).post_bodies("q", [json!(1)]).await;
    assert_eq!(foreign_messages(&app.client(&UUID.to_uppercase())).await, 0);
}

#[tokio::test]
async fn a_missing_or_empty_project_is_refused() {
    let app = App::new();
    for path in ["/v2/", "/v2/ping", "/v2/queues", "/v2/queues/q"] {
        app.without("X-Project-Id").get(path).await.assert_refused(
            400,
            "Project-Id Missing",
            "The header X-PROJECT-ID was missing",
        );
        app.project("").get(path).await.assert_refused(
            400,
            "Empty project header not allowed",
            "X-PROJECT-ID cannot be an empty string. Specify the right header X-PROJECT-ID and retry.",
        );
    }
}

#[tokio::test]
async fn a_project_is_any_text_and_another_text_is_another_project() {
    let app = App::new();
    let ids = [
        "p", "P", "p p", "a/b", "../x", "%70", "p'\"\\", "\u{e9}", "e",
    ];
    for id in ids {
        app.project(id)
            .put("/v2/queues/q", json!({"mine": id}))
            .await
            .assert_status(201);
    }
    for id in ids {
        let shown = app.project(id).get("/v2/queues/q").await.json();
        assert_eq!(shown["mine"], id);
    }
}

#[tokio::test]
async fn a_project_may_have_256_characters_where_a_queue_is_named() {
    let app = App::new();
    let longest = "p".repeat(256);
    app.project(&longest)
        .put("/v2/queues/q", ())
        .await
        .assert_status(201);
    let too_long = app.project(&format!("{longest}p"));
    for path in [
        "/v2/queues/q",
        "/v2/queues/q/stats",
        "/v2/queues/q/messages",
    ] {
        too_long.get(path).await.assert_refused(
            400,
            "Invalid queue identification",
            "The format of the submitted queue name or project id is not valid.",
        );
    }
}

#[tokio::test]
async fn the_length_of_a_project_does_not_matter_where_no_queue_is_named() {
    let app = App::new().project(&"p".repeat(257));
    app.get("/v2/ping").await.assert_status(204);
    app.get("/v2/").await.assert_status(200);
    app.get("/v2/queues")
        .await
        .assert_is(200, r#"{"queues": [], "links": []}"#);
}

#[tokio::test]
async fn header_names_are_case_insensitive() {
    let app = App::new().without("Client-ID").without("X-Project-Id");
    app.header("CLIENT-ID", CLIENT)
        .header("x-PROJECT-id", "p")
        .get("/v2/queues")
        .await
        .assert_status(200);
}

#[tokio::test]
async fn a_client_that_takes_json_is_served() {
    let app = App::new();
    app.without("Accept")
        .get("/v2/queues")
        .await
        .assert_status(200);
    for accept in [
        "",
        "*/*",
        "application/*",
        "application/json",
        "APPLICATION/JSON",
        "application/json; charset=utf-8",
        "text/html, application/json;q=0.1",
        "text/html;q=0.9, */*;q=0.8",
    ] {
        let app = app.header("Accept", accept);
        app.get("/v2/queues").await.assert_status(200);
        app.get("/v2/").await.assert_status(200);
    }
}

#[tokio::test]
async fn a_client_that_does_not_take_json_is_refused() {
    let app = App::new();
    for accept in [
        "text/html",
        "application/xml",
        "application/json;q=0",
        "application/json;q=0.0, text/html",
        "application/json-home",
        "nonsense",
        "\u{e9}",
    ] {
        let app = app.header("Accept", accept);
        for path in ["/", "/v2/", "/v2/queues", "/v2/queues/q"] {
            let answer = app.get(path).await;
            answer.assert_status(406);
            assert_eq!(answer.header("vary"), Some("Accept"));
            assert_eq!(answer.header("content-type"), Some("application/json"));
        }
    }
}

#[tokio::test]
async fn errors_are_json_even_where_xml_is_preferred() {
    let app = App::new().header("Accept", "text/xml, application/json;q=0.5");
    app.get("/v2/queues?limit=0").await.assert_refused(
        400,
        "Invalid API request",
        "Limit must be at least 1 and no greater than 20.",
    );
}

#[tokio::test]
async fn form_content_type_is_refused() {
    let app = App::new();
    for media in [
        "application/x-www-form-urlencoded",
        "Application/X-WWW-Form-URLencoded",
    ] {
        let app = app.header("Content-Type", media);
        for (method, path) in [
            ("PUT", "/v2/queues/q"),
            ("POST", "/v2/queues/q/messages"),
            ("PATCH", "/v2/queues/q"),
            ("GET", "/v2/queues"),
        ] {
            app.send(method, path, "{}").await.assert_refused(
                400,
                "Invalid Content-Type",
                "Endpoint does not accept `application/x-www-form-urlencoded` content; currently supported media type \
                 is `application/json`; specify proper client-side media type with the \"Content-Type\" header.",
            );
        }
    }
}

#[tokio::test]
async fn forms_with_a_parameter_or_without_a_length_pass() {
    let app = App::new();
    app.header(
        "Content-Type",
        "application/x-www-form-urlencoded; charset=utf-8",
    )
    .put("/v2/queues/a", "{}")
    .await
    .assert_status(201);
    let form = app.header("Content-Type", "application/x-www-form-urlencoded");
    form.put("/v2/queues/b", ()).await.assert_status(201);
    form.put("/v2/queues/c", Payload::chunked(["{}".into()]))
        .await
        .assert_status(201);
}

#[tokio::test]
async fn the_media_type_of_any_other_body_does_not_matter() {
    let app = App::new();
    for (at, media) in ["text/plain", "application/xml", "nonsense", ""]
        .into_iter()
        .enumerate()
    {
        let app = app.header("Content-Type", media);
        let path = format!("/v2/queues/q{at}");
        app.put(&path, json!({"a": 1})).await.assert_status(201);
        assert_eq!(app.get(&path).await.json()["a"], 1);
        app.post(
            &format!("{path}/messages"),
            json!({"messages": [{"body": Value::Null}]}),
        )
        .await
        .assert_status(201);
    }
}

#[tokio::test]
async fn headers_that_mean_nothing_here_change_nothing() {
    let app = App::new();
    for (name, value) in [
        ("EXTRA-SPEC", ":x"),
        ("X-Auth-Token", "anything"),
        ("X-Identity-Status", "Invalid"),
        ("If-None-Match", "*"),
        ("Range", "bytes=0-1"),
        ("X-HTTP-Method-Override", "DELETE"),
    ] {
        app.header(name, value)
            .get("/v2/queues")
            .await
            .assert_is(200, r#"{"queues": [], "links": []}"#);
    }
}
