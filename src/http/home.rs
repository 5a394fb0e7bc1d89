//! What the service says of itself (spec: http.md 11 to 13).

use std::sync::LazyLock;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::base_path::BasePath;
use super::route::is_of_admin_api;
use super::{AppState, json};

/// The versions of the API.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Versions {
    #[schema(value_type = Vec<Object>)]
    versions: Value,
}

/// The version of the API that this is.
fn version(base: &BasePath) -> Value {
    json!({
        "id": "2",
        "status": "CURRENT",
        "updated": "2014-9-24T04:06:47Z",
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.messaging-v2+json"}],
        "links": [{"href": format!("{base}/v2/"), "rel": "self"}],
    })
}

/// The document of one version.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Version {
    #[schema(value_type = Object)]
    version: Value,
}

/// Shows the version of the API, for clients that look for it at the URL of the version.
#[utoipa::path(get, path = "/v2", tag = "service", responses((status = 200, body = Version)))]
pub(crate) async fn show_version(base: BasePath) -> Response {
    let version = version(&base);
    json::answer(StatusCode::OK, &Version { version })
}

/// Lists the versions of the API.
#[utoipa::path(get, path = "/", tag = "service", responses((status = 300, body = Versions)))]
pub(crate) async fn versions(base: BasePath) -> Response {
    let versions = json!([version(&base)]);
    json::answer(StatusCode::MULTIPLE_CHOICES, &Versions { versions })
}

/// Describes the resources of the API (a JSON home document).
#[utoipa::path(get, path = "/v2/", tag = "service",
    responses((status = 200, body = Object, content_type = "application/json-home")))]
pub(crate) async fn home(State(app): State<AppState>, base: BasePath) -> Response {
    static DOCUMENT: LazyLock<Vec<u8>> = LazyLock::new(|| document("", true));
    let headers = [
        (CONTENT_TYPE, "application/json-home"),
        (CACHE_CONTROL, "max-age=86400"),
    ];
    match base.is_empty() && app.admin_api {
        true => (headers, DOCUMENT.as_slice()).into_response(),
        false => (headers, document(&base, app.admin_api)).into_response(),
    }
}

/// Whether the store answers.
#[utoipa::path(get, path = "/v2/ping", tag = "service", responses((status = 204), (status = 503)))]
pub(crate) async fn ping(State(app): State<AppState>) -> StatusCode {
    match app.messaging.ping().await {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(error) => {
            tracing::warn!(%error, "the store does not answer a ping");
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

/// Whether the server answers; the store is not asked.
#[utoipa::path(head, path = "/v2/ping", tag = "service", responses((status = 204)))]
pub(crate) async fn ping_head() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// A relation: its name, its template, its variables, its methods.
type Relation = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
);

const QUEUE: (&str, &str) = ("queue_name", "param/queue_name");
const MARKER: (&str, &str) = ("marker", "param/marker");
const DETAILED: (&str, &str) = ("detailed", "param/detailed");
const POOL: (&str, &str) = ("pool_name", "param/pool_name");
const FLAVOR: (&str, &str) = ("flavor_name", "param/flavor_name");
const ALL: &[&str] = &["GET", "PUT", "PATCH", "DELETE"];
const MESSAGE: (&str, &str) = ("message_id", "param/message_id");
const CLAIM: (&str, &str) = ("claim_id", "param/claim_id");
const SUBSCRIPTION: (&str, &str) = ("subscriptions_id", "param/subscriptions_id");
const SUBSCRIPTION_LIMIT: (&str, &str) = ("limit", "param/subscription_limit");

/// Every relation, in the order of the specification.
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
    ),
    (
        "rel/queue",
        "/v2/queues/{queue_name}",
        &[QUEUE],
        &["GET", "PUT", "DELETE", "PATCH"],
    ),
    (
        "rel/queue_stats",
        "/v2/queues/{queue_name}/stats",
        &[QUEUE],
        &["GET"],
    ),
    (
        "rel/queue_share",
        "/v2/queues/{queue_name}/share",
        &[QUEUE],
        &["POST"],
    ),
    (
        "rel/queue_purge",
        "/v2/queues/{queue_name}/purge",
        &[QUEUE],
        &["POST"],
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
    ),
    (
        "rel/post_messages",
        "/v2/queues/{queue_name}/messages",
        &[QUEUE],
        &["POST"],
    ),
    (
        "rel/messages_delete",
        "/v2/queues/{queue_name}/messages{?ids,pop}",
        &[QUEUE, ("ids", "param/ids"), ("pop", "param/pop")],
        &["DELETE"],
    ),
    (
        "rel/message_delete",
        "/v2/queues/{queue_name}/messages/{message_id}{?claim}",
        &[QUEUE, MESSAGE, ("claim", "param/claim_id")],
        &["DELETE"],
    ),
    (
        "rel/message_get",
        "/v2/queues/{queue_name}/messages/{message_id}",
        &[QUEUE, MESSAGE],
        &["GET"],
    ),
    (
        "rel/claim",
        "/v2/queues/{queue_name}/claims/{claim_id}",
        &[QUEUE, CLAIM],
        &["GET"],
    ),
    (
        "rel/post_claim",
        "/v2/queues/{queue_name}/claims{?limit}",
        &[QUEUE, ("limit", "param/claim_limit")],
        &["POST"],
    ),
    (
        "rel/patch_claim",
        "/v2/queues/{queue_name}/claims/{claim_id}",
        &[QUEUE, CLAIM],
        &["PATCH"],
    ),
    (
        "rel/delete_claim",
        "/v2/queues/{queue_name}/claims/{claim_id}",
        &[QUEUE, CLAIM],
        &["DELETE"],
    ),
    (
        "rel/subscriptions_get",
        "/v2/queues/{queue_name}/subscriptions{?marker,limit}",
        &[QUEUE, MARKER, SUBSCRIPTION_LIMIT],
        &["GET"],
    ),
    (
        "rel/subscriptions_post",
        "/v2/queues/{queue_name}/subscriptions",
        &[QUEUE, SUBSCRIPTION_LIMIT],
        &["POST"],
    ),
    (
        "rel/subscription",
        "/v2/queues/{queue_name}/subscriptions/{subscriptions_id}",
        &[QUEUE, SUBSCRIPTION],
        &["GET", "DELETE"],
    ),
    (
        "rel/subscription_patch",
        "/v2/queues/{queue_name}/subscriptions/{subscriptions_id}",
        &[QUEUE, SUBSCRIPTION],
        &["PATCH"],
    ),
    ("rel/ping", "/v2/ping", &[], &["GET"]),
    (
        "rel/pools",
        "/v2/pools{?detailed,limit,marker}",
        &[DETAILED, ("limit", "param/pool_limit"), MARKER],
        &["GET"],
    ),
    ("rel/pool", "/v2/pools/{pool_name}", &[POOL], ALL),
    (
        "rel/flavors",
        "/v2/flavors{?detailed,limit,marker}",
        &[DETAILED, ("limit", "param/flavor_limit"), MARKER],
        &["GET"],
    ),
    ("rel/flavor", "/v2/flavors/{flavor_name}", &[FLAVOR], ALL),
    ("rel/health", "/v2/health", &[], &["GET"]),
];

fn document(base: &str, has_admin_api: bool) -> Vec<u8> {
    let resources: Map<String, Value> = RELATIONS
        .iter()
        .filter(|relation| has_admin_api || !is_of_admin_api(relation.1))
        .map(|relation| (relation.0.to_owned(), describe(base, relation)))
        .collect();
    let mut out = Vec::new();
    let formatter = PrettyFormatter::with_indent(b"    ");
    if let Err(error) = json!({"resources": resources})
        .serialize(&mut Serializer::with_formatter(&mut out, formatter))
    {
        tracing::error!(%error, "the home document could not be written");
    }
    out
}

fn describe(base: &str, (name, template, variables, methods): &Relation) -> Value {
    let mut resource = Map::new();
    // The only one that is no template, by the specification.
    let key = match *name {
        "rel/health" => "href",
        _ => "href-template",
    };
    resource.insert(key.into(), json!(format!("{base}{template}")));
    if !variables.is_empty() {
        let variables: Map<String, Value> = variables
            .iter()
            .map(|(name, meaning)| ((*name).to_owned(), json!(meaning)))
            .collect();
        resource.insert("href-vars".into(), Value::Object(variables));
    }
    let mut hints = json!({"allow": methods, "formats": {"application/json": {}}});
    // PATCH of a queue has a media type of its own and no such hint.
    let posts = methods.contains(&"POST") || **methods == ["PATCH"];
    if posts && let Some(hints) = hints.as_object_mut() {
        hints.insert("accept-post".into(), json!(["application/json"]));
    }
    resource.insert("hints".into(), hints);
    Value::Object(resource)
}
