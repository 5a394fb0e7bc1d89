//! What actions do: each translates its body into a call of the functions that the REST API calls, too, and what they return
//! into the document of this transport (spec: websocket.md 3).

mod claims;
mod documents;
mod messages;
mod queues;
mod subscriptions;

use std::sync::Arc;
use std::time::Instant;

use axum::http::StatusCode;
use bytes::Bytes;
use serde::Serialize;

use super::action::{Kind, text};
use super::encoding::Encoding;
use super::gate::{self, Denied, Scope};
use super::outgoing::Frame;
use super::reply::{Refusal, Reply};
use super::request::{Read, Request};
use super::socket::Socket;
use crate::http::AppState;
use crate::http::fields::Fields;
use crate::keystone::{Proof, Tokens};

/// What came of a request.
pub(super) enum Outcome {
    Answer(Frame),
    /// The client's token is not good any more: nothing is answered, and the socket ends.
    Ended,
}

/// A request that was let through.
struct Asked<'a> {
    app: &'a AppState,
    socket: &'a Arc<Socket>,
    scope: Scope,
    body: &'a Fields<'a>,
    request: &'a Request<'a>,
    encoding: Encoding,
}

impl Asked<'_> {
    /// A member that is a text.
    fn text(&self, name: &str) -> Option<String> {
        self.body.get(name).and_then(text)
    }

    fn integer(&self, name: &str) -> Result<Option<i64>, Refusal> {
        Ok(self.body.integer(name)?)
    }

    fn boolean(&self, name: &str) -> Option<bool> {
        Some(self.body.get(name)?.get() == "true")
    }
}

/// Answers a message.
pub(super) async fn answer(socket: Arc<Socket>, encoding: Encoding, message: Bytes) -> Outcome {
    let began = Instant::now();
    let document = encoding.decode(message);
    let read = match &document {
        Ok(document) => Read::new(document),
        Err(sentence) => Read::undecodable(sentence.clone()),
    };
    let (mut name, mut cause) = ("unknown", None);
    let answered = match read.request {
        Err(refusal) => Err(refusal),
        Ok(request) => {
            name = request.action.name;
            match run(&socket, &request, encoding).await {
                Ok(reply) => Ok(reply),
                Err(Denied::Refused(refusal)) => Err(refusal),
                Err(Denied::Ended) => return Outcome::Ended,
            }
        }
    };
    let mut reply = answered.unwrap_or_else(|mut refusal| {
        cause = refusal.cause.take();
        refusal.into_reply()
    });
    let took = began.elapsed();
    socket
        .hub
        .metrics
        .answered(name, reply.status.as_u16(), took);
    socket
        .hub
        .app
        .tell_of_action(name, reply.status, took, cause);
    let message = encoding.encode(&reply.in_envelope(&read.echo));
    Outcome::Answer(Frame::new(message, reply.on_the_way.take()))
}

async fn run(
    socket: &Arc<Socket>,
    request: &Request<'_>,
    encoding: Encoding,
) -> Result<Reply, Denied> {
    if request.action.kind == Kind::Authenticate {
        return Ok(authenticate(socket, request).await?);
    }
    if request.action.kind == Kind::NotServed {
        let error = format!("{} is not served over WebSocket.", request.action.name);
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, error).into());
    }
    let scope = gate::admit(socket, request).await?;
    let app = Arc::clone(&socket.hub.app);
    let asked = Asked {
        app: &app,
        socket,
        scope,
        body: &request.body,
        request,
        encoding,
    };
    let reply = match request.action.kind {
        Kind::QueueList => queues::list(&asked).await,
        Kind::QueueCreate => queues::create(&asked).await,
        Kind::QueueGet => queues::get(&asked).await,
        Kind::QueueDelete => queues::delete(&asked).await,
        Kind::QueueStats => queues::stats(&asked).await,
        Kind::QueuePurge => queues::purge(&asked).await,
        Kind::MessagePost => messages::post(&asked).await,
        Kind::MessageList => messages::list(&asked).await,
        Kind::MessageGet => messages::get(&asked).await,
        Kind::MessageGetMany => messages::get_many(&asked).await,
        Kind::MessageDelete => messages::delete(&asked).await,
        Kind::MessageDeleteMany => messages::delete_many(&asked).await,
        Kind::ClaimCreate => claims::create(&asked).await,
        Kind::ClaimGet => claims::get(&asked).await,
        Kind::ClaimUpdate => claims::update(&asked).await,
        Kind::ClaimDelete => claims::delete(&asked).await,
        Kind::SubscriptionList => subscriptions::list(&asked).await,
        Kind::SubscriptionCreate => subscriptions::create(&asked).await,
        Kind::SubscriptionGet => subscriptions::get(&asked).await,
        Kind::SubscriptionDelete => subscriptions::delete(&asked).await,
        Kind::Authenticate | Kind::NotServed => Err(Refusal::not_authenticated()),
    };
    Ok(reply?)
}

#[derive(Serialize)]
struct Told {
    message: &'static str,
}

/// Takes the client for the user of the token that it shows (spec: websocket.md 4.1).
async fn authenticate(socket: &Arc<Socket>, request: &Request<'_>) -> Result<Reply, Refusal> {
    const FAILED: &str = "Authentication failed.";
    let Some(keystone) = &socket.hub.app.keystone else {
        let error = "This service asks nobody to authenticate.";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, error));
    };
    let token = request.header("X-Auth-Token").unwrap_or_default();
    let service = request.header("X-Service-Token");
    let tokens = Tokens::new(token.as_bytes(), service.map(str::as_bytes));
    let proof = match tokens {
        Ok(tokens) => socket.session.authenticate(keystone, tokens).await,
        Err(_) => Proof::Refused,
    };
    match proof {
        Proof::Caller(caller) => {
            let project = caller.project().map(|project| project.id.clone());
            let is_of_another = |source: &str| project.as_deref() != Some(source);
            let hub = &socket.hub;
            hub.unsubscribe(socket, |one| is_of_another(one.source.project.as_str()))
                .await;
            let told = Told {
                message: "Authentified.",
            };
            Ok(Reply::of(StatusCode::OK, &told))
        }
        Proof::Refused => Err(Refusal::new(StatusCode::UNAUTHORIZED, FAILED)),
        Proof::Undecided(secs) => {
            Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, FAILED).after(secs))
        }
    }
}
