//! A Zaqar whose message store is Redis (spec: redis-layout.md).

mod message;
mod names;
mod subscription;

use isimud_contract::{Metadata, QueueKey, Result, Timestamp};

use crate::address::{Address, Kind};
use crate::cipher::Opener;
use crate::found::{Cursor, FoundPage, FoundSubscription, Refusal};
use crate::json::metadata;
use crate::msgpack::from_msgpack;
use crate::reply;
use crate::source::{Ask, Source};

pub use names::{Names, survey};

/// A Zaqar's Redis: its message store, its management store, or both in one.
#[derive(Debug, Clone)]
pub struct Zaqar {
    source: Source,
    openers: std::sync::Arc<[Opener]>,
}

/// What a queue's record says.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// There is none.
    Missing,
    /// Its metadata.
    Metadata(Metadata),
    /// It cannot be read, or the API refuses what is in it.
    Unreadable,
}

impl Zaqar {
    /// Connects to what a URI of Zaqar's configuration names. The pass phrases are tried on encrypted bodies in turn.
    /// `Invalid` for what Zaqar does not know, `Unavailable` when the server does not answer.
    pub async fn open(address: Address, pass_phrases: &[String]) -> Result<Self> {
        let address = address.as_zaqar_reads_it()?;
        if address.kind == Kind::Cluster {
            let why = "Zaqar cannot keep its messages in a Redis Cluster";
            return Err(isimud_contract::Error::invalid(why));
        }
        Ok(Self {
            source: Source::open(address).await?,
            openers: pass_phrases.iter().map(|text| Opener::new(text)).collect(),
        })
    }

    /// Where it is, without passwords.
    pub fn shown(&self) -> String {
        self.source.shown()
    }

    /// Reads the names of everything in it. Queues that are made or deleted meanwhile may be missed.
    pub async fn names(&self) -> Result<Names> {
        Names::read(&self.source).await
    }

    /// Reads a queue's metadata, where this Redis is the management store.
    pub async fn record(&self, queue: &QueueKey) -> Result<Record> {
        let question = Ask::Hget.about(key(queue, "")).arg("m").to_owned();
        let answer = self.source.ask_all(&[question]).await?.pop();
        let Some(Ok(stored)) = answer.map(reply::optional) else {
            return Ok(Record::Unreadable);
        };
        let Some(stored) = stored else {
            return Ok(Record::Missing);
        };
        let read = from_msgpack(&stored).and_then(|text| metadata(&text.json));
        Ok(read.map_or(Record::Unreadable, Record::Metadata))
    }

    /// How many ids are in a queue's order, of live messages and of others.
    pub async fn count(&self, queue: &QueueKey) -> Result<u64> {
        let question = Ask::Zcard.about(key(queue, ".messages"));
        let answer = self.source.ask_all(&[question]).await?.pop();
        // What is no sorted set has no messages.
        let count = answer.and_then(|answer| reply::number(&answer).ok());
        Ok(count.and_then(|count| count.try_into().ok()).unwrap_or(0))
    }

    /// Reads up to `limit` entries of a queue in order, from a place on.
    pub async fn page(&self, queue: &QueueKey, from: &Cursor, limit: usize) -> Result<FoundPage> {
        message::page(self, queue, from, limit).await
    }

    /// Reads messages of a queue that were refused before, by the names that their refusals have.
    pub async fn again(&self, queue: &QueueKey, ids: &[String]) -> Result<FoundPage> {
        message::by_id(self, queue, ids).await
    }

    /// Reads a queue's subscriptions.
    pub async fn subscriptions(
        &self,
        queue: &QueueKey,
    ) -> Result<(Vec<FoundSubscription>, Vec<Refusal>)> {
        subscription::all(&self.source, queue).await
    }
}

/// The key of a queue, or of something that belongs to it.
fn key(queue: &QueueKey, suffix: &str) -> String {
    format!("{}.{}{suffix}", queue.project, queue.name)
}

/// A moment in Unix seconds; far future and far past are cut to what is representable.
fn moment(secs: i64) -> Timestamp {
    Timestamp(secs.saturating_mul(1000))
}
