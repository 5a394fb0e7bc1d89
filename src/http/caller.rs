//! Extractors: who asks, and what for. The gate has checked both before a handler runs.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use isimud_contract::{ClientId, ProjectId, QueueKey, QueueName};

use super::base_path::BasePath;
use super::problem::Problem;
use crate::signature::Fit;

/// What the gate read from a request's head and path.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    pub(crate) client: ClientId,
    /// None for an id that is too long to be one: it has nothing (spec: http.md 1).
    pub(crate) project: Option<ProjectId>,
    /// The queue or the topic that the path names.
    pub(crate) queue: Option<QueueKey>,
    /// The last variable of the path, where it is not the queue.
    pub(crate) id: String,
    /// How the request stands to what was signed, where a signature stands for a token.
    pub(crate) signed: Option<Fit>,
    /// What links in the answer begin with.
    pub(crate) base: BasePath,
}

impl<S: Sync> FromRequestParts<S> for Scope {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.remove().ok_or_else(Problem::no_such_path)
    }
}

/// A request about a queue, or about a topic: a queue that no client can name as one.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) client: ClientId,
    pub(crate) queue: QueueKey,
    /// The message, claim or subscription that the path names; empty where it names none.
    pub(crate) id: String,
    /// As in [`Scope`].
    pub(crate) signed: Option<Fit>,
    /// As in [`Scope`].
    pub(crate) base: BasePath,
}

impl Target {
    /// The path of the queue or the topic, as links have it.
    pub(crate) fn link(&self) -> String {
        format!("{}{}", self.base, path_of(&self.queue.name))
    }
}

impl<S: Sync> FromRequestParts<S> for Target {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Scope {
            client,
            queue,
            id,
            signed,
            base,
            ..
        } = Scope::from_request_parts(parts, state).await?;
        Ok(Self {
            client,
            queue: queue.ok_or_else(Problem::no_such_path)?,
            id,
            signed,
            base,
        })
    }
}

/// The path of a queue or a topic, without a base path.
pub(crate) fn path_of(name: &QueueName) -> String {
    format!("{}{}", collection_of(name), name.shown())
}

/// What the paths of queues, or those of topics, begin with.
pub(crate) fn collection_of(name: &QueueName) -> &'static str {
    if name.is_topic() {
        "/v2/topics/"
    } else {
        "/v2/queues/"
    }
}

/// The words for a queue, or those for a topic.
pub(crate) fn by_kind(
    queue: &QueueKey,
    of_queue: &'static str,
    of_topic: &'static str,
) -> &'static str {
    if queue.name.is_topic() {
        of_topic
    } else {
        of_queue
    }
}

/// The query string, unread.
#[derive(Debug)]
pub(crate) struct RawQuery(pub(crate) Option<String>);

impl<S: Sync> FromRequestParts<S> for RawQuery {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.uri.query().map(str::to_owned)))
    }
}

impl RawQuery {
    pub(crate) fn read(&self) -> super::query::Query<'_> {
        super::query::Query::new(self.0.as_deref())
    }
}
