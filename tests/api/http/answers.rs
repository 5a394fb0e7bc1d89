//! What every answer has in common, and what the service says of itself (spec: http.md 6, 7, 9 and 11 to 13).

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::api::support::{Answer, App};

/// The id of a request, which is a random UUID behind `req-`.
fn request_id(answer: &Answer) -> &str {
    let id = answer
        .header("x-openstack-request-id")
        .expect("a request id");
    let uuid = id.strip_prefix("req-").expect("the prefix");
    let parts: Vec<&str> = uuid.split('-').collect();
    assert_eq!(
        parts.iter().map(|part| part.len()).collect::<Vec<_>>(),
        [8, 4, 4, 4, 12]
    );
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    assert!(parts.concat().bytes().all(is_hex), "{id}");
    assert!(parts[2].starts_with('4'), "{id}");
    assert!(parts[3].starts_with(['8', '9', 'a', 'b']), "{id}");
    id
}

/// One answer of every kind.
async fn some_of_each(app: &App) -> Vec<Answer> {
    vec![
        app.get("/").await,
        app.get("/v2/").await,
        app.get("/v2/ping").await,
        app.head("/v2/ping").await,
        app.put("/v2/queues/new", ()).await,
        app.put("/v2/queues/new", ()).await,
        app.get("/v2/queues").await,
        app.get("/v2/queues?limit=0").await,
        app.get("/v2/nope").await,
        app.post("/v2/queues", ()).await,
        app.send("OPTIONS", "/v2/queues", ()).await,
        app.send("FOO", "/v2/queues", ()).await,
        app.without("Client-ID").get("/v2/queues").await,
        app.header("Accept", "text/html").get("/v2/queues").await,
        app.header("Content-Type", "x")
            .patch("/v2/queues/q", "[]")
            .await,
        app.delete("/v2/queues/new").await,
    ]
}

#[tokio::test]
async fn every_answer_has_a_request_id_of_its_own() {
    let app = App::new();
    let answers = some_of_each(&app).await;
    let ids: HashSet<&str> = answers.iter().map(request_id).collect();
    assert_eq!(ids.len(), answers.len());
}

#[tokio::test]
async fn a_request_id_that_a_client_sends_is_not_used() {
    let theirs = "req-11111111-2222-4333-8444-555555555555";
    let app = App::new().header("X-OpenStack-Request-ID", theirs);
    let answer = app.get("/v2/ping").await;
    assert_ne!(request_id(&answer), theirs);
    let odd = app
        .header("X-OpenStack-Request-ID", "\u{e9}{}")
        .get("/v2/ping")
        .await;
    request_id(&odd);
}

#[tokio::test]
async fn answers_are_json_without_a_charset_and_204_has_no_type_at_all() {
    let app = App::new();
    for answer in some_of_each(&app).await {
        let media = match answer.status {
            204 => None,
            200 if answer.text().starts_with("{\n") => Some("application/json-home"),
            _ => Some("application/json"),
        };
        assert_eq!(answer.header("content-type"), media, "{}", answer.text());
        if answer.status == 204 {
            assert_eq!(answer.header("content-length"), None);
            assert_eq!(answer.text(), "");
        }
    }
}

#[tokio::test]
async fn every_error_varies_by_accept_and_nothing_else_does() {
    let app = App::new();
    for answer in some_of_each(&app).await {
        let is_error = answer.status >= 400;
        let varies = answer.header("vary") == Some("Accept");
        assert_eq!(varies, is_error, "{} {}", answer.status, answer.text());
    }
}

#[tokio::test]
async fn every_error_has_a_title_and_nothing_but_a_description_beside_it() {
    let app = App::new();
    for answer in some_of_each(&app).await {
        if answer.status < 400 {
            continue;
        }
        let document = answer.json();
        let keys: Vec<&String> = document.as_object().expect("an object").keys().collect();
        assert!(
            keys == ["title", "description"] || keys == ["title"],
            "{document}"
        );
        assert!(document["title"].is_string());
    }
}

#[tokio::test]
async fn documents_are_written_as_the_reference_writes_them() {
    let app = App::new();
    app.put(
        "/v2/queues/q",
        r#"{"z":"Sicherung läuft 😀 \u00e9","a":[1,{"b":null}]}"#,
    )
    .await;
    let answer = app.get("/v2/queues/q").await;
    let front = "{\"z\": \"Sicherung läuft 😀 é\", \"a\": [1, {\"b\": null}], \"_max_messages_post_size\": 262144, ";
    assert!(answer.text().starts_with(front), "{}", answer.text());
    assert!(!answer.text().ends_with('\n'));
}

#[tokio::test]
async fn only_the_home_document_may_be_kept_by_a_cache() {
    let app = App::new();
    for answer in some_of_each(&app).await {
        let is_home = answer.header("content-type") == Some("application/json-home");
        let cache = answer.header("cache-control");
        assert_eq!(cache, is_home.then_some("max-age=86400"));
    }
}

#[tokio::test]
async fn a_created_thing_without_a_document_says_where_it_is() {
    let app = App::new();
    let created = app.put("/v2/queues/q", ()).await;
    created.assert_is(201, "");
    assert_eq!(created.header("location"), Some("/v2/queues/q"));
    assert_eq!(created.header("content-type"), Some("application/json"));
    assert_eq!(created.length, Some(0));
}

#[tokio::test]
async fn the_versions_are_these_bytes() {
    let versions = concat!(
        r#"{"versions": [{"id": "2", "status": "CURRENT", "updated": "2014-9-24T04:06:47Z", "#,
        r#""media-types": [{"base": "application/json", "type": "application/vnd.openstack.messaging-v2+json"}], "#,
        r#""links": [{"href": "/v2/", "rel": "self"}]}]}"#,
    );
    let app = App::new();
    let bare = app.without("Client-ID").without("X-Project-Id");
    for answer in [
        app.get("/").await,
        bare.get("/").await,
        bare.get("/?limit=0&x").await,
        bare.project("").client("").get("/").await,
    ] {
        answer.assert_is(300, versions);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.length, Some(228));
    }
}

#[tokio::test]
async fn ping_says_that_the_store_answers() {
    let app = App::new();
    app.get("/v2/ping").await.assert_is(204, "");
    app.head("/v2/ping").await.assert_is(204, "");
}

/// A relation as the specification tells of it: its template, its variables, its methods, and whether it takes a POST.
type Relation = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
    bool,
);

const QUEUE: (&str, &str) = ("queue_name", "param/queue_name");
const MESSAGE: (&str, &str) = ("message_id", "param/message_id");
const CLAIM: (&str, &str) = ("claim_id", "param/claim_id");
const DETAILED: (&str, &str) = ("detailed", "param/detailed");
const POOL: (&str, &str) = ("pool_name", "param/pool_name");
const FLAVOR: (&str, &str) = ("flavor_name", "param/flavor_name");
const ALL: &[&str] = &["GET", "PUT", "PATCH", "DELETE"];
const MARKER: (&str, &str) = ("marker", "param/marker");

const SUBSCRIPTION: (&str, &str) = ("subscriptions_id", "param/subscriptions_id");
const SUBSCRIPTION_LIMIT: (&str, &str) = ("limit", "param/subscription_limit");

/// The relations of queues, messages, claims, subscriptions and ping, then those for operators.
const RELATIONS: &[Relation] = &[
    (
        "rel/queues",
        "/v2/queues{?marker,limit,detailed}",
        &[
            MARKER,
            ("limit", "param/queue_limit"),
            ("detailed", "param/detailed"),
        ],
        &["GET"],
        false,
    ),
    (
        "rel/queue",
        "/v2/queues/{queue_name}",
        &[QUEUE],
        &["GET", "PUT", "DELETE", "PATCH"],
        false,
    ),
    (
        "rel/queue_stats",
        "/v2/queues/{queue_name}/stats",
        &[QUEUE],
        &["GET"],
        false,
    ),
    (
        "rel/queue_share",
        "/v2/queues/{queue_name}/share",
        &[QUEUE],
        &["POST"],
        true,
    ),
    (
        "rel/queue_purge",
        "/v2/queues/{queue_name}/purge",
        &[QUEUE],
        &["POST"],
        true,
    ),
    (
        "rel/messages",
        "/v2/queues/{queue_name}/messages{?marker,limit,echo,include_claimed}",
        &[
            QUEUE,
            MARKER,
            ("limit", "param/messages_limit"),
            ("echo", "param/echo"),
            ("include_claimed", "param/include_claimed"),
        ],
        &["GET"],
        false,
    ),
    (
        "rel/post_messages",
        "/v2/queues/{queue_name}/messages",
        &[QUEUE],
        &["POST"],
        true,
    ),
    (
        "rel/messages_delete",
        "/v2/queues/{queue_name}/messages{?ids,pop}",
        &[QUEUE, ("ids", "param/ids"), ("pop", "param/pop")],
        &["DELETE"],
        false,
    ),
    (
        "rel/message_delete",
        "/v2/queues/{queue_name}/messages/{message_id}{?claim}",
        &[QUEUE, MESSAGE, ("claim", "param/claim_id")],
        &["DELETE"],
        false,
    ),
    (
        "rel/message_get",
        "/v2/queues/{queue_name}/messages/{message_id}",
        &[QUEUE, MESSAGE],
        &["GET"],
        false,
    ),
    (
        "rel/claim",
        "/v2/queues/{queue_name}/claims/{claim_id}",
        &[QUEUE, CLAIM],
        &["GET"],
        false,
    ),
    (
        "rel/post_claim",
        "/v2/queues/{queue_name}/claims{?limit}",
        &[QUEUE, ("limit", "param/claim_limit")],
        &["POST"],
        true,
    ),
    (
        "rel/patch_claim",
        "/v2/queues/{queue_name}/claims/{claim_id}",
        &[QUEUE, CLAIM],
        &["PATCH"],
        true,
    ),
    (
        "rel/delete_claim",
        "/v2/queues/{queue_name}/claims/{claim_id}",
        &[QUEUE, CLAIM],
        &["DELETE"],
        false,
    ),
    (
        "rel/subscriptions_get",
        "/v2/queues/{queue_name}/subscriptions{?marker,limit}",
        &[QUEUE, MARKER, SUBSCRIPTION_LIMIT],
        &["GET"],
        false,
    ),
    (
        "rel/subscriptions_post",
        "/v2/queues/{queue_name}/subscriptions",
        &[QUEUE, SUBSCRIPTION_LIMIT],
        &["POST"],
        true,
    ),
    (
        "rel/subscription",
        "/v2/queues/{queue_name}/subscriptions/{subscriptions_id}",
        &[QUEUE, SUBSCRIPTION],
        &["GET", "DELETE"],
        false,
    ),
    (
        "rel/subscription_patch",
        "/v2/queues/{queue_name}/subscriptions/{subscriptions_id}",
        &[QUEUE, SUBSCRIPTION],
        &["PATCH"],
        true,
    ),
    ("rel/ping", "/v2/ping", &[], &["GET"], false),
    (
        "rel/pools",
        "/v2/pools{?detailed,limit,marker}",
        &[DETAILED, ("limit", "param/pool_limit"), MARKER],
        &["GET"],
        false,
    ),
    ("rel/pool", "/v2/pools/{pool_name}", &[POOL], ALL, false),
    (
        "rel/flavors",
        "/v2/flavors{?detailed,limit,marker}",
        &[DETAILED, ("limit", "param/flavor_limit"), MARKER],
        &["GET"],
        false,
    ),
    (
        "rel/flavor",
        "/v2/flavors/{flavor_name}",
        &[FLAVOR],
        ALL,
        false,
    ),
    ("rel/health", "/v2/health", &[], &["GET"], false),
];

async fn home(app: &App) -> Value {
    let answer = app.get("/v2/").await;
    answer.assert_status(200);
    answer.json()["resources"].clone()
}

#[tokio::test]
async fn the_home_document_describes_every_resource() {
    let resources = home(&App::new()).await;
    for (name, template, variables, methods, posts) in RELATIONS {
        let mut hints = json!({"allow": methods, "formats": {"application/json": {}}});
        if *posts {
            hints["accept-post"] = json!(["application/json"]);
        }
        // Of all paths without variables, health's alone is no template.
        let key = match *name {
            "rel/health" => "href",
            _ => "href-template",
        };
        let mut relation = json!({key: template});
        if !variables.is_empty() {
            let pairs = variables.iter();
            relation["href-vars"] = pairs.map(|(name, value)| (*name, *value)).collect();
        }
        relation["hints"] = hints;
        assert_eq!(resources[name].to_string(), relation.to_string(), "{name}");
    }
}

#[tokio::test]
async fn the_relations_of_the_home_document_have_an_order() {
    let resources = home(&App::new()).await;
    let known: Vec<&str> = RELATIONS.iter().map(|relation| relation.0).collect();
    let names = resources.as_object().expect("an object").keys();
    let listed: Vec<&str> = names
        .map(String::as_str)
        .filter(|name| known.contains(name))
        .collect();
    assert_eq!(listed, known);
}

#[tokio::test]
async fn everything_in_the_home_document_is_served() {
    let app = App::new();
    for (name, relation) in home(&app).await.as_object().expect("an object") {
        let template = relation.get("href-template").or(relation.get("href"));
        let template = template.and_then(Value::as_str).expect("a reference");
        let path = template.split("{?").next().expect("a path");
        let path = path
            .replace("{queue_name}", "q")
            .replace("{message_id}", "1")
            .replace("{claim_id}", "1");
        let answer = app.send("OPTIONS", &path, ()).await;
        answer.assert_status(200);
        let served = answer.header("allow").expect("methods");
        for method in relation["hints"]["allow"].as_array().expect("methods") {
            let method = method.as_str().expect("a method");
            let is_served = served.split(", ").any(|other| other == method);
            assert!(is_served, "{name}: {method} {path}");
        }
    }
}

#[tokio::test]
async fn the_home_document_is_indented_by_four_spaces() {
    let answer = App::new().get("/v2/").await;
    let front = r#"{
    "resources": {
        "rel/queues": {
            "href-template": "/v2/queues{?marker,limit,detailed}",
            "href-vars": {
                "marker": "param/marker",
                "limit": "param/queue_limit",
                "detailed": "param/detailed"
            },
            "hints": {
                "allow": [
                    "GET"
                ],
                "formats": {
                    "application/json": {}
                }
            }
        },
"#;
    assert!(answer.text().starts_with(front), "{}", answer.text());
    assert!(answer.text().ends_with("\n    }\n}"), "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json-home"));
    assert_eq!(answer.header("cache-control"), Some("max-age=86400"));
}
