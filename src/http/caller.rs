//! Extractors: who asks, and what for. The gate has checked both before a handler runs.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use isimud_contract::{ClientId, ProjectId, QueueKey};

use super::problem::Problem;

/// What the gate read from a request's head and path.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    pub(crate) client: ClientId,
    /// None for an id that is too long to be one: it has nothing (spec: http.md 1).
    pub(crate) project: Option<ProjectId>,
    pub(crate) queue: Option<QueueKey>,
    /// The last variable of the path, where it is not the queue.
    pub(crate) id: String,
}

impl<S: Sync> FromRequestParts<S> for Scope {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.remove().ok_or_else(Problem::no_such_path)
    }
}

/// A request about a queue.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) client: ClientId,
    pub(crate) queue: QueueKey,
    /// The message or claim that the path names; empty where it names none.
    pub(crate) id: String,
}

impl<S: Sync> FromRequestParts<S> for Target {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Scope {
            client, queue, id, ..
        } = Scope::from_request_parts(parts, state).await?;
        Ok(Self {
            client,
            queue: queue.ok_or_else(Problem::no_such_path)?,
            id,
        })
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
