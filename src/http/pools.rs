//! Pools (spec: pools-flavors.md 2).

use std::borrow::Cow;

use axum::extract::State;
use axum::http::header::{CONTENT_LOCATION, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use isimud_contract::{Error, ErrorKind, Metadata, Pool};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::base_path::BasePath;
use super::body::{Payload, too_large};
use super::caller::{RawQuery, Scope};
use super::problem::{OrProblem, Problem};
use super::query::Link;
use super::queues::LinkDocument;
use super::{AppState, json};
use crate::messaging::PoolDraft;

/// Characters of a URI, or of a flavor's name, at the most.
const MAX_NAME_CHARS: usize = 255;

/// A page of pools.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct PoolList {
    links: Vec<LinkDocument>,
    pools: Vec<PoolDocument>,
}

/// A pool.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PoolDocument {
    name: String,
    /// Where it is, with `***` in the place of passwords.
    uri: String,
    /// Its share of new queues; 0 takes none.
    weight: u32,
    flavor: Option<String>,
    /// Options of the driver; only in a detailed answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    options: Option<Metadata>,
    href: String,
}

/// What a pool is to be.
#[derive(Debug, ToSchema)]
#[expect(
    dead_code,
    reason = "it describes the body; the body is read key by key, for the sake of its sentences"
)]
pub(crate) struct PoolBody {
    /// The scheme picks the driver. The store must be reachable.
    uri: String,
    /// 0 to 4294967295.
    weight: u32,
    /// The flavor that it joins.
    flavor: Option<String>,
    /// Options of the driver, over those in the URI.
    #[schema(value_type = Option<Object>)]
    options: Option<Metadata>,
}

impl PoolDocument {
    fn new(pool: Pool, detailed: bool) -> Self {
        Self {
            href: format!("/v2/pools/{}", pool.name),
            name: pool.name.to_string(),
            uri: pool.uri,
            weight: pool.weight,
            flavor: pool.flavor.map(|flavor| flavor.to_string()),
            options: detailed.then_some(pool.options),
        }
    }
}

/// Lists pools by name.
#[utoipa::path(get, path = "/v2/pools", tag = "pools", params(
    ("marker" = Option<String>, Query, description = "the last pool of the page before"),
    ("limit" = Option<i64>, Query, description = "1 to 20 pools; 10 if absent"),
    ("detailed" = Option<bool>, Query, description = "include options"),
), responses((status = 200, body = PoolList)))]
pub(crate) async fn list(
    State(app): State<AppState>,
    base: BasePath,
    query: RawQuery,
) -> Result<Response, Problem> {
    let here = match &query.0 {
        Some(text) => format!("{base}/v2/pools?{text}"),
        None => format!("{base}/v2/pools"),
    };
    let query = query.read();
    let marker = query.text("marker").map(Cow::into_owned);
    let (limit, detailed) = (query.integer("limit")?, query.boolean("detailed")?);
    let found = app
        .messaging
        .list_pools(marker.as_deref(), limit)
        .await
        .or_problem("Pools could not be listed.")?;
    let link = Link::new(marker.is_some())
        .with("limit", limit)
        .with("detailed", detailed);
    let links = found
        .last()
        .map(|last| LinkDocument::next(link.href("/v2/pools", &last.name)));
    let document = |pool| PoolDocument::new(pool, detailed == Some(true));
    let page = PoolList {
        links: links.unwrap_or_default(),
        pools: found.into_iter().map(document).collect(),
    };
    let mut response = json::answer(StatusCode::OK, &page);
    if let Ok(here) = HeaderValue::try_from(here) {
        response.headers_mut().insert(CONTENT_LOCATION, here);
    }
    Ok(response)
}

/// Registers a pool, or updates the one of that name.
#[utoipa::path(put, path = "/v2/pools/{pool}", tag = "pools", request_body = PoolBody, responses(
    (status = 201, description = "registered or updated"),
    (status = 400, body = super::problem::ErrorDocument),
    (status = 409, description = "another pool is there, or this one has queues elsewhere", body = super::problem::ErrorDocument)))]
pub(crate) async fn create(
    State(app): State<AppState>,
    scope: Scope,
    payload: Payload,
) -> Result<Response, Problem> {
    let most = app.messaging.limits().max_queue_metadata;
    let fields = object(payload, most).await?;
    let known = ["uri", "weight", "flavor", "options"];
    if let Some(key) = fields.keys().find(|key| !known.contains(&key.as_str())) {
        let sentence = format!(
            "`{key}` is not a key of a pool; there are {}.",
            known.join(", ")
        );
        return Err(Problem::body(sentence));
    }
    let draft = draft(&fields)?;
    let saved = app.messaging.put_pool(&scope.id, draft).await;
    saved.map_err(|error| refused(error, "Pool could not be created."))?;
    Ok(created(&format!(
        "{}/v2/pools/{}",
        scope.base,
        encoded(&scope.id)
    )))
}

/// Shows a pool.
#[utoipa::path(get, path = "/v2/pools/{pool}", tag = "pools", params(
    ("detailed" = Option<bool>, Query, description = "include options"),
), responses((status = 200, body = PoolDocument), (status = 404, body = super::problem::ErrorDocument)))]
pub(crate) async fn show(
    State(app): State<AppState>,
    scope: Scope,
    query: RawQuery,
) -> Result<Response, Problem> {
    let detailed = query.read().boolean("detailed")? == Some(true);
    let found = app.messaging.find_pool(&scope.id).await;
    let found = found.or_problem("Pool could not be retrieved.")?;
    let pool = found.ok_or_else(|| no_such_pool(&scope.id))?;
    Ok(json::answer(
        StatusCode::OK,
        &PoolDocument::new(pool, detailed),
    ))
}

/// Changes a pool: its weight, its flavor, how it is reached. While it has queues it stays where it is.
#[utoipa::path(patch, path = "/v2/pools/{pool}", tag = "pools", request_body = PoolBody, responses(
    (status = 200, body = PoolDocument),
    (status = 400, body = super::problem::ErrorDocument),
    (status = 404, body = super::problem::ErrorDocument),
    (status = 409, description = "another pool is there, or this one has queues elsewhere", body = super::problem::ErrorDocument)))]
pub(crate) async fn update(
    State(app): State<AppState>,
    scope: Scope,
    payload: Payload,
) -> Result<Response, Problem> {
    const NOTHING: &str = "One of `uri`, `weight`, `flavor`, or `options` needs to be specified";
    let most = app.messaging.limits().max_queue_metadata;
    let Value::Object(fields) = document(payload, most).await? else {
        return Err(Problem::body(NOTHING));
    };
    let known = ["uri", "weight", "flavor", "options"];
    if !known.iter().any(|key| fields.contains_key(*key)) {
        return Err(Problem::body(NOTHING));
    }
    let draft = draft(&fields)?;
    let saved = app.messaging.patch_pool(&scope.id, draft).await;
    let saved = saved.map_err(|error| refused(error, "Pool could not be updated."))?;
    let pool = saved.ok_or_else(|| no_such_pool(&scope.id))?;
    Ok(json::answer(
        StatusCode::OK,
        &PoolDocument::new(pool, false),
    ))
}

/// Removes a pool that has no queues and is not the last one of a flavor. It need not exist.
#[utoipa::path(delete, path = "/v2/pools/{pool}", tag = "pools", responses((status = 204),
    (status = 403, description = "a queue or a flavor needs it", body = super::problem::ErrorDocument)))]
pub(crate) async fn delete(
    State(app): State<AppState>,
    scope: Scope,
) -> Result<StatusCode, Problem> {
    let deleted = app.messaging.delete_pool(&scope.id).await;
    deleted.or_problem("Pool could not be deleted.")?;
    Ok(StatusCode::NO_CONTENT)
}

/// The body of an operator's request, read as JSON.
pub(crate) async fn document(payload: Payload, most: usize) -> Result<Value, Problem> {
    let unparsable = || Problem::body("JSON could not be parsed.");
    let body = payload
        .read(most, too_large)
        .await?
        .ok_or_else(unparsable)?;
    json::parse(&body).map_err(|_| unparsable())
}

async fn object(payload: Payload, most: usize) -> Result<Map<String, Value>, Problem> {
    match document(payload, most).await? {
        Value::Object(fields) => Ok(fields),
        _ => Err(Problem::body("A pool is described by a JSON object.")),
    }
}

/// What a body says of a pool; each key by its own rule.
fn draft(fields: &Map<String, Value>) -> Result<PoolDraft, Problem> {
    let text = |key: &str| match fields.get(key) {
        None => Ok(None),
        Some(Value::String(text)) if text.chars().count() <= MAX_NAME_CHARS => {
            Ok(Some(text.clone()))
        }
        Some(_) => Err(Problem::body(format!(
            "`{key}` must be a string of at most {MAX_NAME_CHARS} characters."
        ))),
    };
    let weight = match fields.get("weight") {
        None => None,
        Some(weight) => {
            let weight = weight
                .as_u64()
                .and_then(|weight| u32::try_from(weight).ok());
            let sentence = "`weight` must be an integer from 0 to 4294967295.";
            Some(weight.ok_or_else(|| Problem::body(sentence))?)
        }
    };
    let options = match fields.get("options") {
        None => None,
        Some(Value::Object(options)) => Some(options.clone()),
        Some(_) => return Err(Problem::body("`options` must be an object.")),
    };
    Ok(PoolDraft {
        uri: text("uri")?,
        weight,
        flavor: text("flavor")?,
        options,
    })
}

/// The answer to a pool that cannot be as it was said.
fn refused(error: Error, failure: &'static str) -> Problem {
    let sentence = error.sentence().to_owned();
    match error.kind() {
        ErrorKind::Invalid => Problem::body(sentence).because(error),
        ErrorKind::Unsupported => {
            Problem::new(StatusCode::BAD_REQUEST, "Unable to create pool", sentence).because(error)
        }
        _ => Problem::from_error(error, failure),
    }
}

fn no_such_pool(name: &str) -> Problem {
    Problem::not_found(format!("Pool {name} does not exist"))
}

/// 201 without a document.
pub(crate) fn created(location: &str) -> Response {
    let headers = [(CONTENT_TYPE, json::MEDIA_TYPE), (LOCATION, location)];
    (StatusCode::CREATED, headers).into_response()
}

/// A name in a path.
pub(crate) fn encoded(name: &str) -> String {
    const SEGMENT: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    utf8_percent_encode(name, SEGMENT).to_string()
}
