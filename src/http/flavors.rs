//! Flavors (spec: pools-flavors.md 3).

use std::borrow::Cow;

use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use isimud_contract::{Error, ErrorKind, ProjectId, Resource};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::body::Payload;
use super::caller::{RawQuery, Scope};
use super::pools::{created, document, encoded};
use super::problem::{OrProblem, Problem};
use super::query::Link;
use super::queues::LinkDocument;
use super::{AppState, json};
use crate::messaging::FlavorView;

/// A page of flavors.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct FlavorList {
    links: Vec<LinkDocument>,
    flavors: Vec<FlavorEntry>,
}

/// A flavor in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FlavorEntry {
    name: String,
    href: String,
    /// Its pools; absent when none is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pool_list: Option<Vec<String>>,
    /// Only in a detailed list.
    #[serde(skip_serializing_if = "Option::is_none")]
    capabilities: Option<Vec<&'static str>>,
}

/// A flavor.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FlavorDocument {
    name: String,
    /// What its pools promise: FIFO, CLAIMS, DURABILITY, AOD, HIGH_THROUGHPUT.
    capabilities: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool_list: Option<Vec<String>>,
    href: String,
}

/// Which pools a flavor is to have.
#[derive(Debug, ToSchema)]
#[expect(
    dead_code,
    reason = "it describes the body; the body is read key by key, for the sake of its sentences"
)]
pub(crate) struct FlavorBody {
    /// Names of pools.
    pool_list: Vec<String>,
    /// Looked at and put aside: the pools say what they can do.
    #[schema(value_type = Option<Object>)]
    capabilities: Option<Value>,
}

fn pool_list(view: &FlavorView) -> Option<Vec<String>> {
    let names: Vec<String> = view.pools.iter().map(ToString::to_string).collect();
    Some(names).filter(|names| !names.is_empty())
}

impl FlavorDocument {
    fn new(view: &FlavorView) -> Self {
        Self {
            href: format!("/v2/flavors/{}", view.name),
            pool_list: pool_list(view),
            name: view.name.to_string(),
            capabilities: view.capabilities.clone(),
        }
    }
}

/// Lists the project's flavors by name.
#[utoipa::path(get, path = "/v2/flavors", tag = "flavors", params(
    ("marker" = Option<String>, Query, description = "the last flavor of the page before"),
    ("limit" = Option<i64>, Query, description = "1 to 20 flavors; 10 if absent"),
    ("detailed" = Option<bool>, Query, description = "include capabilities"),
), responses((status = 200, body = FlavorList)))]
pub(crate) async fn list(
    State(app): State<AppState>,
    scope: Scope,
    query: RawQuery,
) -> Result<Response, Problem> {
    let query = query.read();
    let marker = query.text("marker").map(Cow::into_owned);
    let (limit, detailed) = (query.integer("limit")?, query.boolean("detailed")?);
    let is_detailed = detailed == Some(true);
    let Some(project) = scope.project else {
        return Ok(json::answer(StatusCode::OK, &FlavorList::default()));
    };
    let found = app
        .messaging
        .list_flavors(&project, marker.as_deref(), limit, is_detailed)
        .await
        .or_problem("Flavors could not be listed.")?;
    let link = Link::new(marker.is_some()).with("limit", limit);
    let links = found.last().map(|last| {
        let mut href = link.href("/v2/flavors", &last.name);
        // Behind the marker, unlike everywhere else (spec: http.md 5).
        if let Some(detailed) = detailed {
            href.push_str(&format!("&detailed={detailed}"));
        }
        LinkDocument::next(href)
    });
    let entry = |view: FlavorView| FlavorEntry {
        href: format!("/v2/flavors/{}", view.name),
        pool_list: pool_list(&view),
        name: view.name.to_string(),
        capabilities: is_detailed.then_some(view.capabilities),
    };
    let page = FlavorList {
        links: links.unwrap_or_default(),
        flavors: found.into_iter().map(entry).collect(),
    };
    Ok(json::answer(StatusCode::OK, &page))
}

/// Makes a flavor of pools, or adds pools to it.
#[utoipa::path(put, path = "/v2/flavors/{flavor}", tag = "flavors", request_body = FlavorBody, responses(
    (status = 201, description = "made, or added to"),
    (status = 400, body = super::problem::ErrorDocument),
    (status = 409, description = "another project has that name", body = super::problem::ErrorDocument)))]
pub(crate) async fn create(
    State(app): State<AppState>,
    scope: Scope,
    payload: Payload,
) -> Result<Response, Problem> {
    let name = &scope.id;
    let most = app.messaging.limits().max_queue_metadata;
    let fields = object(payload, most).await?;
    let known = ["pool_list", "capabilities"];
    if let Some(key) = fields.keys().find(|key| !known.contains(&key.as_str())) {
        let sentence = format!(
            "`{key}` is not a key of a flavor; there are {}.",
            known.join(", ")
        );
        return Err(Problem::body(sentence));
    }
    if fields
        .get("capabilities")
        .is_some_and(|value| !value.is_object())
    {
        return Err(Problem::body("`capabilities` must be an object."));
    }
    let pools = pools(&fields)?.ok_or_else(|| Problem::body("`pool_list` is required."))?;
    let location = format!("{}/v2/flavors/{}", scope.base, encoded(name));
    if pools.is_empty() {
        let mut response = empty().into_response();
        if let Ok(location) = HeaderValue::try_from(location) {
            response.headers_mut().insert(LOCATION, location);
        }
        return Ok(response);
    }
    let project = project(&scope.project)?;
    let saved = app.messaging.put_flavor(project, name, &pools).await;
    saved.map_err(|error| {
        let begin = format!("Flavor {name} could not be created, error:");
        refused(
            error,
            "Unable to create",
            &begin,
            "Flavor could not be created.",
        )
    })?;
    Ok(created(&location))
}

/// Shows a flavor of the project.
#[utoipa::path(get, path = "/v2/flavors/{flavor}", tag = "flavors", responses((status = 200, body = FlavorDocument),
    (status = 404, body = super::problem::ErrorDocument)))]
pub(crate) async fn show(State(app): State<AppState>, scope: Scope) -> Result<Response, Problem> {
    let missing = || no_such_flavor(&scope.id);
    let project = scope.project.as_ref().ok_or_else(missing)?;
    let found = app.messaging.find_flavor(project, &scope.id).await;
    let found = found.or_problem("Flavor could not be retrieved.")?;
    let view = found.ok_or_else(missing)?;
    Ok(json::answer(StatusCode::OK, &FlavorDocument::new(&view)))
}

/// Gives a flavor other pools; those left out have no flavor then.
#[utoipa::path(patch, path = "/v2/flavors/{flavor}", tag = "flavors", request_body = FlavorBody, responses(
    (status = 200, body = FlavorDocument),
    (status = 400, body = super::problem::ErrorDocument),
    (status = 404, body = super::problem::ErrorDocument)))]
pub(crate) async fn update(
    State(app): State<AppState>,
    scope: Scope,
    payload: Payload,
) -> Result<Response, Problem> {
    let name = &scope.id;
    let most = app.messaging.limits().max_queue_metadata;
    let fields = match document(payload, most).await? {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    let pools = pools(&fields)?;
    let pools = pools.ok_or_else(|| Problem::body("`pool_list` needs to be specified"))?;
    if pools.is_empty() {
        return Err(empty());
    }
    let missing = || no_such_flavor(name);
    let project = scope.project.as_ref().ok_or_else(missing)?;
    let saved = app.messaging.patch_flavor(project, name, &pools).await;
    let saved = saved.map_err(|error| {
        let begin = format!("Flavor {name} cant be updated, error:");
        refused(error, "updatefail", &begin, "Flavor could not be updated.")
    })?;
    let mut shown = FlavorDocument::new(&saved.ok_or_else(missing)?);
    shown.pool_list = Some(pools);
    Ok(json::answer(StatusCode::OK, &shown))
}

/// Deletes a flavor of the project. Its pools have none then, and queues stay where they are. It need not exist.
#[utoipa::path(delete, path = "/v2/flavors/{flavor}", tag = "flavors", responses((status = 204)))]
pub(crate) async fn delete(
    State(app): State<AppState>,
    scope: Scope,
) -> Result<StatusCode, Problem> {
    if let Some(project) = &scope.project {
        let deleted = app.messaging.delete_flavor(project, &scope.id).await;
        deleted.or_problem("Flavor could not be deleted.")?;
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn object(payload: Payload, most: usize) -> Result<Map<String, Value>, Problem> {
    match document(payload, most).await? {
        Value::Object(fields) => Ok(fields),
        _ => Err(Problem::body("A flavor is described by a JSON object.")),
    }
}

/// The pools that a body names. What is no text is a name all the same, which no pool has.
fn pools(fields: &Map<String, Value>) -> Result<Option<Vec<String>>, Problem> {
    let Some(list) = fields.get("pool_list") else {
        return Ok(None);
    };
    let list = list
        .as_array()
        .ok_or_else(|| Problem::body("`pool_list` must be an array of names of pools."))?;
    let name = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    Ok(Some(list.iter().map(name).collect()))
}

fn project(project: &Option<ProjectId>) -> Result<&ProjectId, Problem> {
    let sentence = "The project id is not valid.";
    project.as_ref().ok_or_else(|| Problem::request(sentence))
}

fn empty() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "Unable to create", "Bad Request")
}

/// The answer to pools that do not make a flavor.
fn refused(error: Error, title: &'static str, begin: &str, failure: &'static str) -> Problem {
    match error.kind() {
        ErrorKind::NotFound(Resource::Pool) | ErrorKind::Unsupported => {
            let description = format!("{begin}{}", error.sentence());
            Problem::new(StatusCode::BAD_REQUEST, title, description).because(error)
        }
        ErrorKind::Invalid => Problem::body(error.sentence().to_owned()),
        _ => Problem::from_error(error, failure),
    }
}

fn no_such_flavor(name: &str) -> Problem {
    Problem::not_found(format!("Flavor {name} does not exist"))
}
