//! Messages.

use axum::http::StatusCode;
use bytes::Bytes;
use isimud_contract::{ClaimId, ClientId, Message, MessageId};
use uuid::Uuid;

use super::super::action::texts;
use super::super::reply::{Refusal, Reply};
use super::{Asked, documents};
use crate::http::auth::client_id;
use crate::http::document::{self, Beside};
use crate::http::json;
use crate::http::messages::{self, CLAIMED, NO_SUCH_CLAIM, NOT_CLAIMED};
use crate::http::problem::{OrProblem, Problem};
use crate::http::queues::no_such_queue;
use crate::http::under_way::{self, Taking};
use crate::messaging::Listing;

const NOT_POSTED: &str = "Messages could not be enqueued.";
const NOT_LISTED: &str = "Messages could not be listed.";

/// Who the client says it is.
fn client(asked: &Asked<'_>) -> Result<ClientId, Refusal> {
    let text = asked.request.header("Client-ID").unwrap_or_default();
    client_id(&asked.app.client_ids, text).ok_or_else(|| {
        let exception = "badly formed hexadecimal UUID string";
        Refusal::of_action(StatusCode::BAD_REQUEST, exception, None)
    })
}

pub(super) async fn post(asked: &Asked<'_>) -> Result<Reply, Refusal> {
    let (app, queue) = (asked.app, asked.scope.queue()?);
    let client = client(asked)?;
    let rules = app.messaging.post_rules(queue).await;
    let rules = rules.or_problem(NOT_POSTED)?;
    let list = asked.body.get("messages").map_or("[]", |list| list.get());
    if list.len() > rules.max_size {
        return Err(messages::too_large(app, &rules).into());
    }
    let document = Bytes::from(format!("{{\"messages\":{list}}}"));
    let drafts = messages::drafts(&document, &rules)?;
    let posted = app.messaging.post(queue, &client, rules, drafts).await;
    let ids = posted.map_err(|error| Refusal::of_error(error, NOT_POSTED.to_owned()))?;
    Ok(Reply::new(StatusCode::CREATED, documents::posted(&ids)))
}

/// An answer that may be large, counted for its project until it is sent.
async fn counted(asked: &Asked<'_>, document: Vec<u8>) -> Result<Reply, Refusal> {
    let response = json::text(StatusCode::OK, document);
    let response = under_way::count(asked.app, &asked.scope.project, response)?;
    Ok(Reply::of_response(response).await)
}

pub(super) async fn list(asked: &Asked<'_>) -> Result<Reply, Refusal> {
    let (app, queue) = (asked.app, asked.scope.queue()?);
    let client = client(asked)?;
    let mut listing = Listing {
        marker: asked.text("marker"),
        limit: asked.integer("limit")?,
        echo: asked.boolean("echo").unwrap_or(false),
        include_claimed: asked.boolean("include_claimed").unwrap_or(false),
        include_delayed: asked.boolean("include_delayed"),
    };
    let exists = app.messaging.queue_exists(queue).await;
    if !exists.or_problem(NOT_LISTED)? {
        return Err(Problem::not_found(no_such_queue(queue)).into());
    }
    messages::settle_delayed(app, queue, &mut listing).await?;
    let page = messages::page(app, queue, &client, listing).await?;
    counted(asked, documents::messages(&page.messages)).await
}

pub(super) async fn get(asked: &Asked<'_>) -> Result<Reply, Refusal> {
    let id = asked.text("message_id").unwrap_or_default();
    let found = messages::one(asked.app, asked.scope.queue()?, &id).await?;
    counted(asked, documents::message(&found)).await
}

pub(super) async fn get_many(asked: &Asked<'_>) -> Result<Reply, Refusal> {
    let ids = asked.body.get("message_ids").map(texts).unwrap_or_default();
    let found = messages::several(asked.app, asked.scope.queue()?, &ids).await?;
    counted(asked, documents::messages(&found)).await
}

pub(super) async fn delete(asked: &Asked<'_>) -> Result<Reply, Refusal> {
    let queue = asked.scope.queue()?;
    let id = asked.text("message_id").unwrap_or_default();
    let claim = asked.text("claim_id");
    let deleted = messages::delete_one(asked.app, queue, &id, claim.as_deref()).await;
    deleted.map_err(|problem| {
        let exception = match problem.description() {
            CLAIMED => format!("Message {id} is claimed"),
            NOT_CLAIMED => format!("Message {id} is no longer claimed"),
            NO_SUCH_CLAIM => format!(
                "Claim {} does not exist in queue {} for project {}",
                claim.unwrap_or_default(),
                queue.name,
                queue.project
            ),
            _ => return Refusal::from(problem),
        };
        let error = Some(problem.description().to_owned());
        Refusal::of_action(problem.status(), exception, error)
    })?;
    if let Some(acks) = asked.socket.acks_of(queue) {
        let deleted = MessageId::parse(&id);
        acks.settle(|message, _| Some(message) == deleted);
    }
    Ok(nothing())
}

fn nothing() -> Reply {
    Reply::new(StatusCode::NO_CONTENT, b"{}".to_vec())
}

pub(super) async fn delete_many(asked: &Asked<'_>) -> Result<Reply, Refusal> {
    let queue = asked.scope.queue()?;
    let ids = asked.body.get("message_ids").map(texts);
    let claims = asked.body.get("claim_ids").map(texts);
    match (ids, asked.integer("pop")?) {
        (Some(_), Some(_)) => Err(Problem::request(
            "pop and id params cannot be present together in the delete request.",
        )
        .into()),
        (None, None) => Err(Problem::request(
            "The request should have either \"ids\" or \"pop\" parameter in the request, to be able to delete.",
        )
        .into()),
        (Some(ids), None) => {
            messages::delete_ids(asked.app, queue, &ids, claims).await?;
            if let Some(acks) = asked.socket.acks_of(queue) {
                acks.settle(|message, _| ids.contains(&message.to_string()));
            }
            Ok(nothing())
        }
        (None, Some(count)) => {
            let answer = |popped: &[Message]| {
                let claim = ClaimId(Uuid::new_v4());
                json::text(StatusCode::OK, document::popped(claim, popped, Beside::Untold))
            };
            let taking = Taking {
                app: asked.app,
                queue,
            };
            let popped = taking.pop(count, answer).await;
            let popped = popped.or_problem("Messages could not be popped.")??;
            Ok(match popped {
                Some(response) => Reply::of_response(response).await,
                None => Reply::new(StatusCode::OK, documents::messages(&[])),
            })
        }
    }
}
