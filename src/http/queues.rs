//! Queues (spec: queues.md).

use std::borrow::Cow;

use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use isimud_contract::{
    Edge, ErrorKind, Filter, FilterValue, Kind, Metadata, QueueKey, QueueRecord, QueueSelection,
    Resource, Stats,
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::body::Payload;
use super::caller::{RawQuery, Scope, Target};
use super::problem::{OrProblem, Problem};
use super::query::{Link, Query, python_integer};
use super::{AppState, json, time};

/// The media type of a metadata patch.
pub(crate) const PATCH_MEDIA_TYPE: &str = "application/openstack-messaging-v2.0-json-patch";

/// A link to another page.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LinkDocument {
    /// Always `next`.
    rel: &'static str,
    href: String,
}

impl LinkDocument {
    pub(crate) fn next(href: String) -> Vec<Self> {
        vec![Self { rel: "next", href }]
    }
}

/// A page of queues.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct QueueList {
    queues: Vec<QueueEntry>,
    links: Vec<LinkDocument>,
    /// The number of the project's queues, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
}

/// A queue in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QueueEntry {
    name: String,
    /// Only in a detailed list.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Metadata>,
    href: String,
}

/// Statistics of a queue.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatsDocument {
    messages: MessageStats,
}

/// The live messages of a queue, counted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageStats {
    claimed: u64,
    free: u64,
    total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest: Option<EdgeDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    newest: Option<EdgeDocument>,
}

/// The oldest or the newest message.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EdgeDocument {
    /// Seconds since it was posted.
    age: u64,
    /// When it was posted, in UTC.
    created: String,
    href: String,
}

impl EdgeDocument {
    fn new(queue: &QueueKey, edge: &Edge) -> Self {
        Self {
            age: edge.age.as_secs(),
            created: time::iso8601(edge.posted),
            href: format!("/v2/queues/{}/messages/{}", queue.name, edge.id),
        }
    }
}

/// Lists the project's queues by name. Any further parameter is a metadata filter, `key=value`.
#[utoipa::path(get, path = "/v2/queues", tag = "queues", params(
    ("marker" = Option<String>, Query, description = "the last queue of the page before"),
    ("limit" = Option<i64>, Query, description = "1 to 20 queues; 10 if absent"),
    ("detailed" = Option<bool>, Query, description = "include metadata"),
    ("name" = Option<String>, Query, description = "only queues whose name contains this text"),
    ("with_count" = Option<bool>, Query, description = "include the number of queues"),
), responses((status = 200, body = QueueList)))]
pub(crate) async fn list(
    State(app): State<AppState>,
    scope: Scope,
    query: RawQuery,
) -> Result<Response, Problem> {
    const DOING: &str = "Queues could not be listed.";
    let query = query.read();
    let (limit, detailed) = (query.integer("limit")?, query.boolean("detailed")?);
    let (name, with_count) = (
        query.text("name").map(Cow::into_owned),
        query.boolean("with_count")?,
    );
    let marker = query.text("marker").map(Cow::into_owned);
    let filters = filters(&query)?;
    let selection = QueueSelection {
        kind: Kind::Queue,
        after: marker.clone(),
        limit: 0,
        name_contains: name.clone(),
        filters,
    };
    let Some(project) = scope.project else {
        return Ok(json::answer(StatusCode::OK, &QueueList::default()));
    };
    let found = app.messaging.list_queues(&project, limit, selection);
    let found = found.await.or_problem(DOING)?;
    let count = match with_count {
        Some(true) => app
            .messaging
            .count_queues(&project)
            .await
            .or_problem(DOING)?,
        _ => 0,
    };
    let link = Link::new(marker.is_some())
        .with("limit", limit)
        .with("detailed", detailed)
        .with("name", name)
        .with("with_count", with_count);
    let links = found
        .last()
        .map(|last| LinkDocument::next(link.href("/v2/queues", &last.name)));
    let entry = |record: QueueRecord| QueueEntry {
        href: format!("/v2/queues/{}", record.name),
        name: record.name.to_string(),
        metadata: (detailed == Some(true)).then_some(record.metadata),
    };
    let queues = found.into_iter().map(entry).collect();
    let document = QueueList {
        queues,
        links: links.unwrap_or_default(),
        count: (count > 0).then_some(count),
    };
    Ok(json::answer(StatusCode::OK, &document))
}

/// Metadata filters in one listing.
const MOST_FILTERS: usize = 50;

/// The parameters of a listing that are no options of it.
fn filters(query: &Query<'_>) -> Result<Vec<Filter>, Problem> {
    let others = query.others(
        &["marker", "limit", "detailed", "name", "with_count"],
        MOST_FILTERS,
    );
    let value =
        |text: String| python_integer(&text).map_or(FilterValue::Text(text), FilterValue::Integer);
    if others.len() > MOST_FILTERS {
        let sentence = format!("A listing takes at most {MOST_FILTERS} metadata filters.");
        return Err(Problem::request(sentence));
    }
    let filter = |(key, text)| Filter {
        key,
        value: value(text),
    };
    Ok(others.into_iter().map(filter).collect())
}

/// Creates a queue; one that exists is left as it is.
#[utoipa::path(put, path = "/v2/queues/{queue}", tag = "queues", request_body = Option<Object>, responses(
    (status = 201, description = "created"),
    (status = 204, description = "it exists already"),
))]
pub(crate) async fn create(
    State(app): State<AppState>,
    target: Target,
    payload: Payload,
) -> Result<Response, Problem> {
    let most = app.messaging.limits().max_queue_metadata;
    let body = payload
        .read(most, || Problem::request(too_large(most)))
        .await?;
    let metadata = match body.filter(|body| !body.is_empty()) {
        None => Metadata::new(),
        Some(body) => match json::parse(&body)? {
            Value::Object(metadata) => metadata,
            _ => return Err(Problem::unsupported_document()),
        },
    };
    let created = app
        .messaging
        .create_queue(&target.queue, metadata)
        .await
        .or_problem("Queue could not be created.")?;
    let location = [(LOCATION, format!("/v2/queues/{}", target.queue.name))];
    Ok(if created {
        (
            StatusCode::CREATED,
            [(CONTENT_TYPE, json::MEDIA_TYPE)],
            location,
        )
            .into_response()
    } else {
        (StatusCode::NO_CONTENT, location).into_response()
    })
}

fn too_large(most: usize) -> String {
    format!("Queue metadata is too large. Max size: {most}")
}

/// Shows a queue's metadata. A queue that does not exist has the defaults.
#[utoipa::path(get, path = "/v2/queues/{queue}", tag = "queues", responses((status = 200, body = Object)))]
pub(crate) async fn show(State(app): State<AppState>, target: Target) -> Result<Response, Problem> {
    let metadata = app
        .messaging
        .show_queue(&target.queue)
        .await
        .or_problem("Queue metadata could not be retrieved.")?;
    Ok(json::answer(StatusCode::OK, &metadata))
}

/// Changes a queue's metadata by a list of operations.
#[utoipa::path(patch, path = "/v2/queues/{queue}", tag = "queues",
    request_body(content = Vec<Object>, content_type = PATCH_MEDIA_TYPE),
    responses((status = 200, body = Object), (status = 404, body = super::problem::ErrorDocument)))]
pub(crate) async fn update(
    State(app): State<AppState>,
    target: Target,
    headers: HeaderMap,
    payload: Payload,
) -> Result<Response, Problem> {
    const DOING: &str = "Queue could not be updated.";
    let most = app.messaging.limits().max_queue_metadata;
    let too_large = || Problem::body(too_large(most));
    payload.refuse_above(most, too_large)?;
    if headers
        .get(CONTENT_TYPE)
        .is_none_or(|media| media != PATCH_MEDIA_TYPE)
    {
        return Ok(unsupported_media());
    }
    let body = payload
        .read(most, too_large)
        .await?
        .filter(|body| !body.is_empty());
    let body = body.ok_or_else(|| Problem::body("PATCH body could not be empty for update."))?;
    let document = json::parse(&body)?;
    let metadata = match app.messaging.patch_queue(&target.queue, document).await {
        // Here every fault in the document is a fault of the body.
        Err(error) if error.kind() == ErrorKind::Invalid => {
            return Err(Problem::body(error.sentence().to_owned()));
        }
        Err(error) if error.kind() == ErrorKind::NotFound(Resource::MetadataKey) => {
            return Err(Problem::from_error(error, DOING));
        }
        result => result.or_missing(DOING, || no_such_queue(&target.queue))?,
    };
    Ok(json::answer(StatusCode::OK, &metadata))
}

pub(crate) fn no_such_queue(queue: &QueueKey) -> String {
    format!(
        "Queue {} does not exist for project {}",
        queue.name, queue.project
    )
}

fn unsupported_media() -> Response {
    let description =
        format!("Accepted media type for PATCH: {{'Accept-Patch': '{PATCH_MEDIA_TYPE}'}}.");
    let problem = Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "415 Unsupported Media Type",
        description,
    );
    let mut response = problem.into_response();
    let name = HeaderName::from_static("accept-patch");
    response
        .headers_mut()
        .insert(name, HeaderValue::from_static(PATCH_MEDIA_TYPE));
    response
}

/// Deletes a queue, its messages and claims. It need not exist.
#[utoipa::path(delete, path = "/v2/queues/{queue}", tag = "queues", responses((status = 204)))]
pub(crate) async fn delete(
    State(app): State<AppState>,
    target: Target,
) -> Result<StatusCode, Problem> {
    app.messaging
        .delete_queue(&target.queue)
        .await
        .or_problem("Queue could not be deleted.")?;
    Ok(StatusCode::NO_CONTENT)
}

/// Counts a queue's messages.
#[utoipa::path(get, path = "/v2/queues/{queue}/stats", tag = "queues", responses((status = 200, body = StatsDocument)))]
pub(crate) async fn stats(
    State(app): State<AppState>,
    target: Target,
) -> Result<Response, Problem> {
    let Stats {
        free,
        claimed,
        oldest,
        newest,
    } = app
        .messaging
        .stats(&target.queue)
        .await
        .or_problem("Queue stats could not be read.")?;
    let edge = |edge: Option<Edge>| edge.map(|edge| EdgeDocument::new(&target.queue, &edge));
    let messages = MessageStats {
        claimed,
        free,
        total: free + claimed,
        oldest: edge(oldest),
        newest: edge(newest),
    };
    Ok(json::answer(StatusCode::OK, &StatsDocument { messages }))
}

/// Removes a queue's messages, its subscriptions, or both. The body names which; without one it is both.
#[utoipa::path(post, path = "/v2/queues/{queue}/purge", tag = "queues", request_body = Option<Object>,
    responses((status = 204)))]
pub(crate) async fn purge(
    State(app): State<AppState>,
    target: Target,
    payload: Payload,
) -> Result<StatusCode, Problem> {
    let most = app.messaging.limits().max_queue_metadata;
    let body = payload
        .read(most, super::body::too_large)
        .await?
        .filter(|body| !body.is_empty());
    let messages = match body {
        None => true,
        Some(body) => resource_types(&json::parse(&body)?)?.contains(&"messages".to_owned()),
    };
    if messages {
        app.messaging
            .purge_messages(&target.queue)
            .await
            .or_problem("Queue could not be purged.")?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The `resource_types` of a purge.
fn resource_types(document: &Value) -> Result<Vec<String>, Problem> {
    let types = document
        .get("resource_types")
        .ok_or_else(|| Problem::request("Post body must contain key \"resource_types\"."))?;
    let known = |value: &Value| {
        value
            .as_str()
            .filter(|name| ["messages", "subscriptions"].contains(name))
            .map(str::to_owned)
    };
    types
        .as_array()
        .and_then(|types| types.iter().map(known).collect())
        .ok_or_else(|| {
            Problem::request("Resource types must be a sub set of {'messages', 'subscriptions'}.")
        })
}
