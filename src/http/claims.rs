//! Claims (spec: claims.md).

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use isimud_contract::{Claim, ClaimId, QueueKey};
use serde::Deserialize;
use utoipa::ToSchema;

use super::body::{self, Payload};
use super::caller::{RawQuery, Target};
use super::document::{self, ClaimDocument, MessageList};
use super::fields::Fields;
use super::problem::{OrProblem, Problem};
use super::under_way::{self, Taking};
use super::{AppState, json};
use crate::messaging::Terms;

/// The terms of a claim.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(
    dead_code,
    reason = "describes a document that is read field by field, for the sake of its error sentences"
)]
pub(crate) struct ClaimTerms {
    /// Seconds that the claim runs, 60 to 43200; 300 if absent.
    ttl: Option<i64>,
    /// Seconds that its messages outlive it at least, 60 to 43200; 60 if absent.
    grace: Option<i64>,
}

fn terms(body: &Bytes) -> Result<Terms, Problem> {
    terms_in(&Fields::read(body)?)
}

/// The terms among the fields of a document.
pub(crate) fn terms_in(fields: &Fields<'_>) -> Result<Terms, Problem> {
    Ok(Terms {
        ttl: fields.integer("ttl")?,
        grace: fields.integer("grace")?,
    })
}

/// Claims messages: takes free ones out of circulation, oldest first.
#[utoipa::path(post, path = "/v2/queues/{queue}/claims", tag = "claims", request_body = Option<ClaimTerms>, params(
    ("limit" = Option<i64>, Query, description = "1 to 20 messages; 10 if absent"),
    ("headers" = Option<bool>, Query, description = "tell headers and properties of messages"),
), responses((status = 201, body = MessageList), (status = 204, description = "nothing to claim"),
    (status = 400, body = super::problem::ErrorDocument)))]
pub(crate) async fn create(
    State(app): State<AppState>,
    target: Target,
    query: RawQuery,
    payload: Payload,
) -> Result<Response, Problem> {
    let query = query.read();
    let (limit, beside) = (query.integer("limit")?, query.beside()?);
    let most = app.messaging.limits().max_messages_post_size;
    let terms = match payload
        .read(most, body::too_large)
        .await?
        .filter(|body| !body.is_empty())
    {
        Some(body) => terms(&body)?,
        None => Terms::default(),
    };
    let queue = &target.queue;
    under_way::check(&app, &queue.project)?;
    let answer = |claim: &Claim| {
        let location = format!("{}/claims/{}", target.link(), claim.id);
        json::created(
            &location,
            document::messages(queue, &claim.messages, beside),
        )
    };
    let claimed = Taking { app: &app, queue }
        .claim(terms, limit, answer)
        .await
        .or_problem("Claim could not be created.")??;
    Ok(claimed.unwrap_or_else(|| StatusCode::NO_CONTENT.into_response()))
}

/// Shows a claim and what it still holds.
#[utoipa::path(get, path = "/v2/queues/{queue}/claims/{claim}", tag = "claims", params(
    ("headers" = Option<bool>, Query, description = "tell headers and properties of messages"),
), responses((status = 200, body = ClaimDocument), (status = 404, body = super::problem::ErrorDocument)))]
pub(crate) async fn show(
    State(app): State<AppState>,
    target: Target,
    query: RawQuery,
) -> Result<Response, Problem> {
    let beside = query.read().beside()?;
    let claim = find(&app, &target.queue, &target.id).await?;
    Ok(json::text(
        StatusCode::OK,
        document::claim(&target.queue, &claim, beside),
    ))
}

/// Reads a claim and what it still holds.
pub(crate) async fn find(app: &AppState, queue: &QueueKey, id: &str) -> Result<Claim, Problem> {
    let missing = || no_such_claim(queue, id);
    let claim = ClaimId::parse(id).ok_or_else(|| Problem::not_found(missing()))?;
    let found = app.messaging.find_claim(queue, claim).await;
    found.or_missing("Claim could not be queried.", missing)
}

/// Renews a claim: its time starts again.
#[utoipa::path(patch, path = "/v2/queues/{queue}/claims/{claim}", tag = "claims", request_body = ClaimTerms,
    responses((status = 204), (status = 400, body = super::problem::ErrorDocument),
    (status = 404, body = super::problem::ErrorDocument)))]
pub(crate) async fn update(
    State(app): State<AppState>,
    target: Target,
    payload: Payload,
) -> Result<StatusCode, Problem> {
    let most = app.messaging.limits().max_messages_post_size;
    let terms = terms(&payload.required(most, body::too_large).await?)?;
    renew(&app, &target.queue, &target.id, terms).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Starts the time of a claim again.
pub(crate) async fn renew(
    app: &AppState,
    queue: &QueueKey,
    id: &str,
    terms: Terms,
) -> Result<(), Problem> {
    // A claim that cannot exist is renewed like one that does not: what is wrong with the terms is said first.
    let claim = ClaimId::parse(id).unwrap_or_default();
    let renewed = app.messaging.renew_claim(queue, claim, terms).await;
    renewed.or_missing("Claim could not be updated.", || no_such_claim(queue, id))
}

/// Releases a claim: what it still holds is free at once.
#[utoipa::path(delete, path = "/v2/queues/{queue}/claims/{claim}", tag = "claims", responses((status = 204)))]
pub(crate) async fn delete(
    State(app): State<AppState>,
    target: Target,
) -> Result<StatusCode, Problem> {
    release(&app, &target.queue, &target.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends a claim; one that does not exist has ended.
pub(crate) async fn release(app: &AppState, queue: &QueueKey, id: &str) -> Result<(), Problem> {
    let Some(claim) = ClaimId::parse(id) else {
        return Ok(());
    };
    let released = app.messaging.release_claim(queue, claim).await;
    released.or_problem("Claim could not be deleted.")
}

fn no_such_claim(queue: &QueueKey, claim: &str) -> String {
    format!(
        "Claim {claim} does not exist in queue {} for project {}",
        queue.name, queue.project
    )
}
