//! Topics (spec: topics.md): queues without claims, in a name space of their own. Only their listing differs; all else
//! is what queues have, under another path.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use isimud_contract::Kind;
use serde::Serialize;
use utoipa::ToSchema;

use super::caller::{RawQuery, Scope};
use super::problem::Problem;
use super::queues::{LinkDocument, QueueEntry, page};
use super::{AppState, json};

/// A page of topics.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct TopicList {
    topics: Vec<QueueEntry>,
    links: Vec<LinkDocument>,
}

/// Lists the project's topics by name. Any further parameter is a metadata filter, `key=value`.
#[utoipa::path(get, path = "/v2/topics", tag = "topics", params(
    ("marker" = Option<String>, Query, description = "the last topic of the page before"),
    ("limit" = Option<i64>, Query, description = "1 to 20 topics; 10 if absent"),
    ("detailed" = Option<bool>, Query, description = "include metadata"),
    ("name" = Option<String>, Query, description = "only topics whose name contains this text"),
), responses((status = 200, body = TopicList)))]
pub(crate) async fn list(
    State(app): State<AppState>,
    scope: Scope,
    query: RawQuery,
) -> Result<Response, Problem> {
    let query = query.read();
    let page = page(&app, scope.project.as_ref(), &query, Kind::Topic).await?;
    let document = page.map_or_else(TopicList::default, |page| TopicList {
        topics: page.entries,
        links: page.links,
    });
    Ok(json::answer(StatusCode::OK, &document))
}
