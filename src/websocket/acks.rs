//! Subscriptions whose messages are claimed for the socket, and are its client's to delete: at least once, where those that
//! are pushed come at most once.
//!
//! A subscription with the option `_ack` has messages claimed when they are posted, as many as it may have at once, and sent
//! with the ids of message and claim. What the client deletes makes room for the next. What it does not delete is free for
//! others when the claim ends, and at once when the socket does: so nothing is lost with a socket or with its server, and
//! several sockets with such subscriptions share the work of a queue.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isimud_contract::{Claim, ClaimId, Message, MessageId, QueueKey};
use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::outgoing::Frame;
use super::socket::Socket;
use crate::http::json;
use crate::http::under_way::Taking;
use crate::messaging::Terms;
use crate::notifications::document_of_message;

/// The option of a subscription that asks for this.
const OPTION: &str = "_ack";
/// How often a queue is asked for messages of which nobody says that they are there: released by others, or delayed.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// How long to wait before a store is asked again that did not answer, or a socket that takes what it was sent.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// What a client asks for: how many messages at once, and the terms of their claims.
#[derive(Debug, Clone, Copy)]
pub(super) struct AckTerms {
    limit: i64,
    terms: Terms,
}

impl AckTerms {
    /// Reads the option: an object with `limit`, `ttl` and `grace`, all of which may be missing; `None` where it is not there.
    /// Fails with a sentence.
    pub(super) fn of(options: &Map<String, Value>) -> Result<Option<Self>, String> {
        let members = match options.get(OPTION) {
            None | Some(Value::Null | Value::Bool(false)) => return Ok(None),
            Some(Value::Bool(true)) => &Map::new(),
            Some(Value::Object(members)) => members,
            Some(_) => return Err(format!("{OPTION} must be true or an object.")),
        };
        let integer = |name: &str| match members.get(name) {
            None => Ok(None),
            Some(value) => match value.as_i64() {
                Some(number) => Ok(Some(number)),
                None => Err(format!("{name} of {OPTION} must be an integer.")),
            },
        };
        Ok(Some(Self {
            limit: integer("limit")?.unwrap_or(1),
            terms: Terms {
                ttl: integer("ttl")?,
                grace: integer("grace")?,
            },
        }))
    }

    /// Checks the numbers against the bounds of claims.
    pub(super) fn check(
        &self,
        limits: &crate::messaging::limits::Limits,
    ) -> isimud_contract::Result<()> {
        let Terms { ttl, grace } = self.terms;
        limits.claim_ttl(ttl.unwrap_or(limits.default_claim_ttl))?;
        limits.claim_page(Some(self.limit))?;
        limits.claim_grace(grace.unwrap_or(limits.default_claim_grace))?;
        Ok(())
    }
}

/// What a socket has of one queue and has not deleted yet.
#[derive(Debug)]
pub(super) struct Acks {
    terms: AckTerms,
    held: Mutex<HashMap<MessageId, (ClaimId, Instant)>>,
    wake: Notify,
}

impl Acks {
    pub(super) fn new(terms: AckTerms) -> Arc<Self> {
        Arc::new(Self {
            terms,
            held: Mutex::default(),
            wake: Notify::new(),
        })
    }

    fn held(&self) -> MutexGuard<'_, HashMap<MessageId, (ClaimId, Instant)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There may be messages.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// These messages are the client's no longer.
    pub(super) fn settle(&self, is_over: impl Fn(MessageId, ClaimId) -> bool) {
        self.held()
            .retain(|message, (claim, _)| !is_over(*message, *claim));
        self.wake.notify_one();
    }

    /// The claims that hold what is left.
    pub(super) fn claims(&self) -> Vec<ClaimId> {
        let mut claims: Vec<ClaimId> = self.held().values().map(|(claim, _)| *claim).collect();
        claims.sort_unstable_by_key(|claim| claim.0);
        claims.dedup();
        claims
    }

    /// How many messages the client may have now: what has expired is not its any more.
    fn room(&self) -> i64 {
        let now = Instant::now();
        let mut held = self.held();
        held.retain(|_, (_, ends)| *ends > now);
        self.terms.limit - i64::try_from(held.len()).unwrap_or(i64::MAX)
    }

    /// Sends messages for as long as it is polled.
    pub(super) async fn run(&self, socket: &Arc<Socket>, source: &QueueKey) {
        loop {
            let can_send = socket.outgoing.is_empty() && !socket.session.is_doubtful();
            let room = if can_send { self.room() } else { 0 };
            let wait = match room {
                1.. => match self.send(socket, source, room).await {
                    true => continue,
                    false => POLL_INTERVAL,
                },
                _ if can_send => POLL_INTERVAL,
                _ => {
                    sleep(RETRY_DELAY).await;
                    continue;
                }
            };
            // Whether somebody woke it or not, it looks.
            drop(timeout(wait, self.wake.notified()).await);
        }
    }

    /// Claims messages and sends them. Returns whether there were any.
    async fn send(&self, socket: &Arc<Socket>, source: &QueueKey, room: i64) -> bool {
        let app = &socket.hub.app;
        let taking = Taking { app, queue: source };
        let mut taken = None;
        let answer = |claim: &Claim| {
            taken = Some(claim.clone());
            let bytes = claim.messages.iter().map(|one| one.body.to_vec());
            json::text(
                axum::http::StatusCode::OK,
                bytes.collect::<Vec<_>>().concat(),
            )
        };
        let claimed = taking.claim(self.terms.terms, Some(room), answer).await;
        let response = match claimed {
            Ok(Ok(Some(response))) => response,
            Ok(Ok(None)) => return false,
            Ok(Err(_)) | Err(_) => {
                sleep(RETRY_DELAY).await;
                return false;
            }
        };
        let on_the_way = response
            .extensions()
            .get::<crate::http::OnTheWay>()
            .cloned();
        let Some(claim) = taken else { return false };
        let ends = Instant::now() + claim.ttl;
        let encoding = socket.push_encoding();
        let held = claim.messages.iter().map(|one| (one.id, (claim.id, ends)));
        self.held().extend(held);
        for message in &claim.messages {
            let document = document(source, &claim, message);
            let frame = encoding.encode(document.as_bytes());
            socket
                .outgoing
                .answer(Frame::new(frame, on_the_way.clone()));
        }
        socket.hub.metrics.pushed("claimed", claim.messages.len());
        true
    }
}

/// A message as it is pushed, with what its client needs to delete it.
fn document(source: &QueueKey, claim: &Claim, message: &Message) -> String {
    let body = String::from_utf8_lossy(&message.body);
    let mut text = document_of_message(source, message.ttl.as_secs(), None, &body);
    text.pop();
    text.push_str(&format!(
        ", \"message_id\": \"{}\", \"claim_id\": \"{}\"}}",
        message.id, claim.id
    ));
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_option_is_read_or_refused_with_a_sentence() {
        let of = |option: Value| {
            let options = Map::from_iter([(OPTION.to_owned(), option)]);
            AckTerms::of(&options).map(|terms| terms.map(|it| (it.limit, it.terms.ttl)))
        };
        for (option, expected) in [
            (json!(null), Ok(None)),
            (json!(false), Ok(None)),
            (json!(true), Ok(Some((1, None)))),
            (json!({"limit": 5, "ttl": 60}), Ok(Some((5, Some(60))))),
            (json!(1), Err("_ack must be true or an object.".to_owned())),
            (
                json!({"ttl": "x"}),
                Err("ttl of _ack must be an integer.".to_owned()),
            ),
        ] {
            assert_eq!(of(option.clone()), expected, "{option}");
        }
    }
}
