//! The tasks that Celery's workers hold: kombu takes a task out of its list and keeps it in the hash `unacked` until it is
//! acknowledged, as `[message, exchange, routing key]`. All queues share the hash; whose a task is, its routing key says,
//! by way of the exchange's bindings.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use isimud_contract::{Error, ErrorKind, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::element::{ElementPage, Elements, FoundElement, Unwrap, body, id};
use crate::found::Refusal;
use crate::reply;
use crate::source::{Ask, Source};

/// Where kombu keeps what its consumers hold.
const UNACKED: &str = "unacked";

/// What separates the parts of a binding.
const SEPARATOR: &str = "\u{6}\u{16}";

/// The tasks of a queue that Celery's workers hold.
#[derive(Debug)]
pub struct Held {
    source: Source,
    queue: String,
    cursor: String,
    /// Digests of the tags that were read: a walk may come to one twice.
    seen: HashSet<[u8; 16]>,
    /// The queues of an exchange, with the routing keys that lead to them.
    bindings: HashMap<String, Vec<(String, String)>>,
    /// Keys of bindings that are of another type, and were not told of yet.
    strange: Vec<Refusal>,
}

impl Held {
    pub(crate) fn new(source: Source, queue: &str) -> Self {
        Self {
            source,
            queue: queue.to_owned(),
            cursor: "0".to_owned(),
            seen: HashSet::new(),
            bindings: HashMap::new(),
            strange: Vec::new(),
        }
    }

    /// A task of this queue; `None` for one of another.
    async fn task(&mut self, tag: &[u8], stored: &[u8]) -> Result<Option<FoundElement>> {
        let read = serde_json::from_slice(stored).ok();
        let Some(Value::Array(parts)) = read else {
            return Ok(None);
        };
        let [message, exchange, routing_key] = parts.as_slice() else {
            return Ok(None);
        };
        let (exchange, routing_key) = (
            exchange.as_str().unwrap_or_default().to_owned(),
            routing_key.as_str().unwrap_or_default().to_owned(),
        );
        if !self.leads_here(&exchange, &routing_key).await? {
            return Ok(None);
        }
        let message = message.to_string();
        let place = self.source.shown();
        let parts: [&[u8]; 5] = [
            b"unacked",
            place.as_bytes(),
            self.queue.as_bytes(),
            tag,
            message.as_bytes(),
        ];
        Ok(Some(FoundElement {
            name: format!("task {} of {UNACKED}", tag.escape_ascii()),
            id: id(&parts),
            body: body(message.into_bytes(), Unwrap::Celery),
            age: Duration::ZERO,
            delay: Duration::ZERO,
        }))
    }

    async fn leads_here(&mut self, exchange: &str, routing_key: &str) -> Result<bool> {
        if routing_key == self.queue {
            return Ok(true);
        }
        if exchange.is_empty() {
            return Ok(false);
        }
        if !self.bindings.contains_key(exchange) {
            let found = self.bindings_of(exchange).await?;
            self.bindings.insert(exchange.to_owned(), found);
        }
        let bound = self.bindings.get(exchange).into_iter().flatten();
        let mut queues = bound.filter(|(key, _)| key == routing_key);
        Ok(queues.any(|(_, queue)| *queue == self.queue))
    }

    async fn bindings_of(&mut self, exchange: &str) -> Result<Vec<(String, String)>> {
        let key = format!("_kombu.binding.{exchange}");
        let question = Ask::Smembers.about(key.as_str());
        let answer = match self.source.ask(question).await {
            Ok(answer) => reply::array(answer)?,
            Err(error) => {
                let refusal = self.refused(error, &key).await?;
                self.strange.push(refusal);
                return Ok(Vec::new());
            }
        };
        let mut bindings = Vec::new();
        for member in answer {
            let member = reply::bytes(member)?;
            let text = String::from_utf8_lossy(&member);
            let mut parts = text.split(SEPARATOR);
            if let (Some(routing_key), Some(_), Some(queue)) =
                (parts.next(), parts.next(), parts.next())
            {
                bindings.push((routing_key.to_owned(), queue.to_owned()));
            }
        }
        Ok(bindings)
    }
}

impl Held {
    /// What is told of a key of another type than its name says; it holds up nothing beside it.
    async fn refused(&self, error: Error, key: &str) -> Result<Refusal> {
        if error.kind() != ErrorKind::Invalid {
            return Err(error);
        }
        let found = self.source.type_of(key.as_bytes()).await?;
        let what = format!("key {} ({found})", key.as_bytes().escape_ascii());
        Ok(Refusal::new(what, "it is not what kombu keeps there"))
    }
}

impl Elements for Held {
    fn shown(&self) -> String {
        format!("{} {UNACKED}", self.source.shown())
    }

    /// Those of all queues are in one hash, so there is no number for one.
    fn count(&self) -> u64 {
        0
    }

    async fn next(&mut self, limit: usize) -> Result<ElementPage> {
        let mut question = Ask::Hscan.about(UNACKED);
        question.arg(self.cursor.as_str()).arg("COUNT").arg(limit);
        let (next, found) = match self.source.ask(question).await {
            Ok(answer) => reply::scanned(answer)?,
            Err(error) => {
                let refused = vec![self.refused(error, UNACKED).await?];
                return Ok(ElementPage {
                    refused,
                    is_last: true,
                    ..ElementPage::default()
                });
            }
        };
        let mut page = ElementPage {
            is_last: next == "0",
            ..ElementPage::default()
        };
        self.cursor = next;
        let mut found = found.into_iter();
        while let (Some(tag), Some(stored)) = (found.next(), found.next()) {
            let (tag, stored) = (reply::bytes(tag)?, reply::bytes(stored)?);
            let mut digest = [0; 16];
            digest.copy_from_slice(&Sha256::digest(&tag)[..16]);
            if !self.seen.insert(digest) {
                continue;
            }
            match self.task(&tag, &stored).await? {
                Some(task) => page.elements.push(task),
                None if serde_json::from_slice::<Value>(&stored).is_err() => {
                    let what = format!("task {} of {UNACKED}", tag.escape_ascii());
                    let why = "it is not what kombu keeps there";
                    page.refused.push(Refusal::new(what, why));
                }
                None => {}
            }
        }
        page.refused.append(&mut self.strange);
        Ok(page)
    }

    /// Workers take and acknowledge as they please; what they put back is in a list again.
    async fn is_unchanged(&self) -> Result<bool> {
        Ok(true)
    }
}
