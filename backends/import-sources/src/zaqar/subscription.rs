//! A queue's subscriptions.

use isimud_contract::{Metadata, QueueKey, Result, Timestamp};
use redis::Value;
use uuid::Uuid;

use super::message::secs;
use super::{key, moment};
use crate::found::{FoundSubscription, Refusal};
use crate::json::metadata;
use crate::msgpack::from_msgpack;
use crate::reply::{self, Fields};
use crate::source::{Ask, Source};

/// Subscriptions that are read at once.
const STEP: usize = 500;

pub(super) async fn all(
    source: &Source,
    queue: &QueueKey,
) -> Result<(Vec<FoundSubscription>, Vec<Refusal>)> {
    let mut ids = Vec::new();
    let mut cursor = "0".to_owned();
    loop {
        let set = key(queue, ".subscriptions");
        let mut question = Ask::Zscan.about(set.as_str());
        question.arg(cursor.as_str()).arg("COUNT").arg(STEP);
        let (next, found) = match source.ask(question).await {
            Ok(answer) => reply::scanned(answer)?,
            Err(error) => return Err(source.explained(error, set.as_bytes()).await),
        };
        for id in found.into_iter().step_by(2) {
            ids.push(reply::bytes(id)?);
        }
        if next == "0" {
            break;
        }
        cursor = next;
    }
    ids.sort_unstable();
    ids.dedup();
    let (mut subscriptions, mut refused) = (Vec::new(), Vec::new());
    for ids in ids.chunks(STEP) {
        let questions: Vec<_> = ids
            .iter()
            .map(|id| Ask::Hgetall.about(id.as_slice()))
            .collect();
        let hashes = source.ask_all(&questions).await?;
        let now = source.now().await?;
        for (id, hash) in ids.iter().zip(hashes) {
            let id = String::from_utf8_lossy(id);
            match read(&id, queue, hash, now) {
                Ok(Some(subscription)) => subscriptions.push(subscription),
                Ok(None) => {}
                Err(why) => {
                    let what = format!("subscription {id} of {queue}");
                    refused.push(Refusal::new(what, why));
                }
            }
        }
    }
    Ok((subscriptions, refused))
}

/// Reads one; `None` when it has ended.
fn read(
    id: &str,
    queue: &QueueKey,
    hash: Value,
    now: Timestamp,
) -> std::result::Result<Option<FoundSubscription>, &'static str> {
    let fields = Fields::read(hash).map_err(|_| "its key is of another type")?;
    if fields.is_empty() {
        return Ok(None);
    }
    let (Some(subscriber), Some(ttl), Some(expires)) =
        (fields.text("u"), fields.integer("t"), fields.integer("e"))
    else {
        return Err("what has its id is no subscription");
    };
    let left = moment(expires).since(now);
    if left.is_zero() {
        return Ok(None);
    }
    let ttl = secs(ttl).max(left);
    Ok(Some(FoundSubscription {
        id: Uuid::try_parse(id).map_err(|_| "its id is not a UUID")?,
        queue: queue.clone(),
        subscriber: subscriber.to_owned(),
        ttl,
        age: ttl.saturating_sub(left),
        options: fields.get("o").and_then(options).unwrap_or_default(),
        // Older than confirmation: it was in use, so it goes on.
        confirmed: fields.text("c") != Some("0"),
    }))
}

/// Options that are no map, which Zaqar took and could not use, are none (quirk Q-SUB-5).
fn options(stored: &[u8]) -> Option<Metadata> {
    metadata(&from_msgpack(stored)?.json)
}
