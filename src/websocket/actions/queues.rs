//! Queues.

use axum::http::StatusCode;
use isimud_contract::{Kind, Metadata, QueueRecord, QueueSelection, Stats, StatsMessage};
use serde::Serialize;
use serde_json::Value;

use super::super::action::texts;
use super::super::reply::{Refusal, Reply};
use super::Asked;
use crate::dates;
use crate::http::json;
use crate::http::problem::Problem;
use crate::http::queues::{self, MESSAGES, SUBSCRIPTIONS};

#[derive(Serialize)]
struct Listed {
    queues: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata>,
}

pub(super) async fn list(asked: &Asked<'_>) -> Result<Reply, Refusal> {
    let is_detailed = asked.boolean("detailed") == Some(true);
    let selection = QueueSelection {
        kind: Kind::Queue,
        after: asked.text("marker"),
        limit: 0,
        name_contains: None,
        filters: Vec::new(),
    };
    let (project, limit) = (&asked.scope.project, asked.integer("limit")?);
    let messaging = &asked.app.messaging;
    let found = messaging
        .list_stored_queues(project, limit, selection)
        .await;
    let failure = "Queues could not be listed.".to_owned();
    let found = found.map_err(|error| Refusal::of_error(error, failure))?;
    let entry = |record: QueueRecord| Entry {
        name: record.name.shown().to_owned(),
        metadata: is_detailed.then_some(record.metadata),
    };
    let queues = found.into_iter().map(entry).collect();
    Ok(Reply::of(StatusCode::OK, &Listed { queues }))
}

pub(super) async fn create(asked: &Asked<'_>) -> Result<Reply, Refusal> {
    let queue = asked.scope.queue()?;
    let most = asked.app.messaging.limits().max_queue_metadata;
    let metadata = match asked.body.get("metadata").map(|value| value.get()) {
        None | Some("null") => Metadata::new(),
        Some(text) if text.len() > most => {
            return Err(Problem::request(queues::too_large(most)).into());
        }
        Some(text) => match json::parse_as(text.as_bytes()) {
            Some(Value::Object(metadata)) => metadata,
            _ => return Err(Problem::unsupported_document().into()),
        },
    };
    let created = asked.app.messaging.create_queue(queue, metadata).await;
    let failure = format!("Queue {} could not be created.", queue.name);
    let created = created.map_err(|error| Refusal::of_error(error, failure))?;
    let status = match created {
        true => StatusCode::CREATED,
        false => StatusCode::NO_CONTENT,
    };
    Ok(Reply::of(status, &format!("Queue {} created.", queue.name)))
}

pub(super) async fn get(asked: &Asked<'_>) -> Result<Reply, Refusal> {
    let queue = asked.scope.queue()?;
    let metadata = asked.app.messaging.stored_metadata(queue).await;
    let failure = format!("Cannot retrieve queue {}.", queue.name);
    let metadata = metadata.map_err(|error| Refusal::of_error(error, failure))?;
    Ok(Reply::of(StatusCode::OK, &metadata))
}

pub(super) async fn delete(asked: &Asked<'_>) -> Result<Reply, Refusal> {
    let queue = asked.scope.queue()?;
    let deleted = asked.app.messaging.delete_queue(queue).await;
    let failure = format!("Queue {} could not be deleted.", queue.name);
    deleted.map_err(|error| Refusal::of_error(error, failure))?;
    let told = format!("Queue {} removed.", queue.name);
    Ok(Reply::of(StatusCode::NO_CONTENT, &told))
}

#[derive(Serialize)]
struct StatsDocument {
    messages: Counts,
}

#[derive(Serialize)]
struct Counts {
    claimed: u64,
    free: u64,
    total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest: Option<Edge>,
    #[serde(skip_serializing_if = "Option::is_none")]
    newest: Option<Edge>,
}

#[derive(Serialize)]
struct Edge {
    age: u64,
    created: String,
    id: String,
}

impl Edge {
    fn new(edge: &StatsMessage) -> Self {
        Self {
            age: edge.age.as_secs(),
            created: dates::iso8601(edge.posted),
            id: edge.id.to_string(),
        }
    }
}

pub(super) async fn stats(asked: &Asked<'_>) -> Result<Reply, Refusal> {
    let (queue, messaging) = (asked.scope.queue()?, &asked.app.messaging);
    let failure = |error| {
        let failure = format!("Cannot retrieve queue {} stats.", queue.name);
        Refusal::of_error(error, failure)
    };
    let exists = messaging.queue_exists(queue).await.map_err(failure)?;
    let stats = match exists {
        true => messaging.stats(queue).await.map_err(failure)?,
        false => Stats::default(),
    };
    let status = match exists {
        true => StatusCode::OK,
        false => StatusCode::NOT_FOUND,
    };
    let messages = Counts {
        claimed: stats.claimed,
        free: stats.free,
        total: stats.free + stats.claimed,
        oldest: stats.oldest.as_ref().map(Edge::new),
        newest: stats.newest.as_ref().map(Edge::new),
    };
    Ok(Reply::of(status, &StatsDocument { messages }))
}

pub(super) async fn purge(asked: &Asked<'_>) -> Result<Reply, Refusal> {
    let types = match asked.body.get("resource_types") {
        Some(types) => texts(types),
        None => vec![MESSAGES.to_owned(), SUBSCRIPTIONS.to_owned()],
    };
    queues::purge_types(asked.app, asked.scope.queue()?, &types).await?;
    Ok(Reply::new(StatusCode::NO_CONTENT, b"{}".to_vec()))
}
