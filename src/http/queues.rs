//! Queues (spec: queues.md).

use std::borrow::Cow;

use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use isimud_contract::{
    ErrorKind, Filter, FilterValue, Kind, Metadata, ProjectId, QueueKey, QueueRecord,
    QueueSelection, Resource, Stats, StatsMessage,
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::body::Payload;
use super::caller::{RawQuery, Scope, Target, by_kind, path_of};
use super::problem::{OrProblem, Problem};
use super::query::{Link, Query, python_integer};
use super::{AppState, json};
use crate::dates;

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
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    free: Option<u64>,
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
    fn new(queue: &QueueKey, edge: &StatsMessage) -> Self {
        Self {
            age: edge.age.as_secs(),
            created: dates::iso8601(edge.posted),
            href: format!("{}/messages/{}", path_of(&queue.name), edge.id),
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
    let query = query.read();
    let Some(page) = page(&app, scope.project.as_ref(), &query, Kind::Queue).await? else {
        return Ok(json::answer(StatusCode::OK, &QueueList::default()));
    };
    let document = QueueList {
        queues: page.entries,
        links: page.links,
        count: page.count,
    };
    Ok(json::answer(StatusCode::OK, &document))
}

/// A page of queues, or of topics.
pub(crate) struct Page {
    pub(crate) entries: Vec<QueueEntry>,
    pub(crate) links: Vec<LinkDocument>,
    /// How many there are, where that was asked for and it is not none.
    count: Option<u64>,
}

/// Reads the page that a query asks for; `None` for a project that can have nothing.
pub(crate) async fn page(
    app: &AppState,
    project: Option<&ProjectId>,
    query: &Query<'_>,
    kind: Kind,
) -> Result<Option<Page>, Problem> {
    let (failure, path) = match kind {
        Kind::Queue => ("Queues could not be listed.", "/v2/queues"),
        Kind::Topic => ("Topics could not be listed.", "/v2/topics"),
    };
    let (limit, detailed) = (query.integer("limit")?, query.boolean("detailed")?);
    let name = query.text("name").map(Cow::into_owned);
    let with_count = match kind {
        Kind::Queue => query.boolean("with_count")?,
        Kind::Topic => None,
    };
    let marker = query.text("marker").map(Cow::into_owned);
    let selection = QueueSelection {
        kind,
        after: marker.clone(),
        limit: 0,
        name_contains: name.clone(),
        filters: filters(query, kind)?,
    };
    let Some(project) = project else {
        return Ok(None);
    };
    let found = app.messaging.list_queues(project, limit, selection);
    let found = found.await.or_problem(failure)?;
    let count = match with_count {
        Some(true) => app
            .messaging
            .count_queues(project)
            .await
            .or_problem(failure)?,
        _ => 0,
    };
    let link = Link::new(marker.is_some())
        .with("limit", limit)
        .with("detailed", detailed)
        .with("name", name)
        .with("with_count", with_count);
    let links = found
        .last()
        .map(|last| LinkDocument::next(link.href(path, last.name.shown())));
    let entry = |record: QueueRecord| QueueEntry {
        href: path_of(&record.name),
        name: record.name.shown().to_owned(),
        metadata: (detailed == Some(true)).then_some(record.metadata),
    };
    Ok(Some(Page {
        entries: found.into_iter().map(entry).collect(),
        links: links.unwrap_or_default(),
        count: (count > 0).then_some(count),
    }))
}

/// Metadata filters in one listing.
const MAX_FILTERS: usize = 50;

/// The parameters of a listing that are no options of it.
fn filters(query: &Query<'_>, kind: Kind) -> Result<Vec<Filter>, Problem> {
    let options = ["marker", "limit", "detailed", "name", "with_count"];
    let options = match kind {
        Kind::Queue => &options[..],
        Kind::Topic => &options[..4],
    };
    let others = query.others(options, MAX_FILTERS);
    let value =
        |text: String| python_integer(&text).map_or(FilterValue::Text(text), FilterValue::Integer);
    if others.len() > MAX_FILTERS {
        let sentence = format!("A listing takes at most {MAX_FILTERS} metadata filters.");
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
        .or_problem(by_kind(
            &target.queue,
            "Queue could not be created.",
            "Topic could not be created.",
        ))?;
    let location = [(LOCATION, target.link())];
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

pub(crate) fn too_large(most: usize) -> String {
    format!("Queue metadata is too large. Max size: {most}")
}

/// Shows a queue's metadata. A queue that does not exist has the defaults.
#[utoipa::path(get, path = "/v2/queues/{queue}", tag = "queues", responses((status = 200, body = Object)))]
pub(crate) async fn show(State(app): State<AppState>, target: Target) -> Result<Response, Problem> {
    let metadata = app
        .messaging
        .show_queue(&target.queue)
        .await
        .or_problem(by_kind(
            &target.queue,
            "Queue metadata could not be retrieved.",
            "Topic metadata could not be retrieved.",
        ))?;
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
    let failure = by_kind(
        &target.queue,
        "Queue could not be updated.",
        "Topic could not be updated.",
    );
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
            return Err(Problem::from_error(error, failure));
        }
        result => result.or_missing(failure, || no_such_queue(&target.queue))?,
    };
    Ok(json::answer(StatusCode::OK, &metadata))
}

pub(crate) fn no_such_queue(queue: &QueueKey) -> String {
    format!(
        "{} {} does not exist for project {}",
        by_kind(queue, "Queue", "Topic"),
        queue.name.shown(),
        queue.project
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
        .or_problem(by_kind(
            &target.queue,
            "Queue could not be deleted.",
            "Topic could not be deleted.",
        ))?;
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
        ..
    } = app
        .messaging
        .stats(&target.queue)
        .await
        .or_problem(by_kind(
            &target.queue,
            "Queue stats could not be read.",
            "Topic stats could not be read.",
        ))?;
    let edge =
        |edge: Option<StatsMessage>| edge.map(|edge| EdgeDocument::new(&target.queue, &edge));
    // A topic has no claims to count, but an empty one says so all the same (spec: topics.md).
    let total = free + claimed;
    let counts = !target.queue.name.is_topic() || total == 0;
    let messages = MessageStats {
        claimed: counts.then_some(claimed),
        free: counts.then_some(free),
        total,
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
    let types = match body {
        None => vec![MESSAGES.to_owned(), SUBSCRIPTIONS.to_owned()],
        Some(body) => resource_types(&json::parse(&body)?)?,
    };
    purge_types(&app, &target.queue, &types).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes what is named of a queue: its messages, its subscriptions.
pub(crate) async fn purge_types(
    app: &AppState,
    queue: &QueueKey,
    types: &[String],
) -> Result<(), Problem> {
    let is_asked = |name: &str| types.iter().any(|asked| asked == name);
    let failure = by_kind(
        queue,
        "Queue could not be purged.",
        "Topic could not be purged.",
    );
    if is_asked(MESSAGES) {
        let purged = app.messaging.purge_messages(queue);
        purged.await.or_problem(failure)?;
    }
    if is_asked(SUBSCRIPTIONS) {
        let purged = app.messaging.purge_subscriptions(queue);
        purged.await.or_problem(failure)?;
    }
    Ok(())
}

pub(crate) const MESSAGES: &str = "messages";
pub(crate) const SUBSCRIPTIONS: &str = "subscriptions";

/// The `resource_types` of a purge.
fn resource_types(document: &Value) -> Result<Vec<String>, Problem> {
    let types = document
        .get("resource_types")
        .ok_or_else(|| Problem::request("Post body must contain key \"resource_types\"."))?;
    let known = |value: &Value| {
        value
            .as_str()
            .filter(|name| [MESSAGES, SUBSCRIPTIONS].contains(name))
            .map(str::to_owned)
    };
    types
        .as_array()
        .and_then(|types| types.iter().map(known).collect())
        .ok_or_else(|| {
            Problem::request("Resource types must be a sub set of {'messages', 'subscriptions'}.")
        })
}
