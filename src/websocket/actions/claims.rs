//! Claims.

use axum::http::StatusCode;
use isimud_contract::{Claim, ClaimId};
use serde::Serialize;
use uuid::Uuid;

use super::super::reply::{Refusal, Reply};
use super::{Asked, documents};
use crate::http::claims;
use crate::http::json;
use crate::http::problem::{OrProblem, Problem};
use crate::http::under_way::Taking;

#[derive(Serialize)]
struct Unused {
    claim_id: String,
}

pub(super) async fn create(asked: &Asked<'_>) -> Result<Reply, Refusal> {
    let terms = claims::terms_in(asked.body)?;
    let limit = asked.integer("limit")?;
    let taking = Taking {
        app: asked.app,
        queue: asked.scope.queue()?,
    };
    let answer = |claim: &Claim| json::text(StatusCode::CREATED, documents::claimed(claim));
    let claimed = taking.claim(terms, limit, answer).await;
    let claimed = claimed.or_problem("Claim could not be created.")??;
    Ok(match claimed {
        Some(response) => Reply::of_response(response).await,
        None => {
            let claim_id = ClaimId(Uuid::new_v4()).to_string();
            Reply::of(StatusCode::NO_CONTENT, &Unused { claim_id })
        }
    })
}

/// A refusal that names the claim, where that is what is missing.
fn refused(problem: Problem, id: &str) -> Refusal {
    let is_missing = problem.status() == StatusCode::NOT_FOUND;
    let refusal = Refusal::from(problem);
    match is_missing {
        true => refusal.because(format!("Claim {id} does not exist.")),
        false => refusal,
    }
}

pub(super) async fn get(asked: &Asked<'_>) -> Result<Reply, Refusal> {
    let id = asked.text("claim_id").unwrap_or_default();
    let found = claims::find(asked.app, asked.scope.queue()?, &id).await;
    let found = found.map_err(|problem| refused(problem, &id))?;
    Ok(Reply::new(StatusCode::OK, documents::claim(&found)))
}

pub(super) async fn update(asked: &Asked<'_>) -> Result<Reply, Refusal> {
    let id = asked.text("claim_id").unwrap_or_default();
    let terms = claims::terms_in(asked.body)?;
    let renewed = claims::renew(asked.app, asked.scope.queue()?, &id, terms).await;
    renewed.map_err(|problem| refused(problem, &id))?;
    let told = format!("Claim {id} updated.");
    Ok(Reply::of(StatusCode::NO_CONTENT, &told))
}

pub(super) async fn delete(asked: &Asked<'_>) -> Result<Reply, Refusal> {
    let id = asked.text("claim_id").unwrap_or_default();
    let queue = asked.scope.queue()?;
    claims::release(asked.app, queue, &id).await?;
    if let Some(acks) = asked.socket.acks_of(queue) {
        let released = ClaimId::parse(&id);
        acks.settle(|_, claim| Some(claim) == released);
    }
    let told = format!("Claim {id} deleted.");
    Ok(Reply::of(StatusCode::NO_CONTENT, &told))
}
