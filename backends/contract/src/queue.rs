//! What describes a queue: its metadata, its place in a listing, its statistics.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{MessageId, Placement, QueueName, Timestamp};

/// A queue's metadata: the JSON object that clients write, in the order in which they wrote it.
pub type Metadata = Map<String, Value>;

/// Reads metadata from where a store keeps them, however deeply nested: that was checked when they came in.
pub fn read_metadata(text: &str) -> serde_json::Result<Metadata> {
    let mut reader = serde_json::Deserializer::from_str(text);
    reader.disable_recursion_limit();
    Metadata::deserialize(&mut reader)
}

/// A queue as a management store knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueRecord {
    /// Its name inside the project.
    pub name: QueueName,
    /// Its metadata.
    pub metadata: Metadata,
    /// Where its messages are.
    pub placement: Placement,
    /// Changes with every update; what a conditional update compares.
    pub version: u64,
}

/// Queues and topics: two name spaces of one kind of record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// What clients call a queue.
    #[default]
    Queue,
    /// What clients call a topic.
    Topic,
}

/// Which queues of a project to list. They come sorted by name, in byte order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QueueSelection {
    /// Queues or topics. What the service keeps for itself is in no listing.
    pub kind: Kind,
    /// Start after this name, as clients write it, whether or not a queue has it.
    pub after: Option<String>,
    /// At most so many queues.
    pub limit: usize,
    /// Only names that contain this text, as clients write them.
    pub name_contains: Option<String>,
    /// Only queues whose metadata match every filter.
    pub filters: Vec<Filter>,
}

/// A condition on one top-level metadata key.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// The metadata key.
    pub key: String,
    /// What its value must be.
    pub value: FilterValue,
}

/// What a metadata value is compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum FilterValue {
    /// An integer.
    Integer(i64),
    /// A string.
    Text(String),
}

impl Filter {
    /// Whether the metadata has the key with exactly this value.
    pub fn matches(&self, metadata: &Metadata) -> bool {
        match (metadata.get(&self.key), &self.value) {
            (Some(found), FilterValue::Integer(wanted)) => found.as_i64() == Some(*wanted),
            (Some(found), FilterValue::Text(wanted)) => found.as_str() == Some(wanted),
            (None, _) => false,
        }
    }
}

/// The live messages of a queue, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Held by no claim. Delayed messages count as free.
    pub free: u64,
    /// Held by a live claim.
    pub claimed: u64,
    /// The oldest live message, when there is one.
    pub oldest: Option<StatsMessage>,
    /// The newest live message, when there is one.
    pub newest: Option<StatsMessage>,
    /// The highest number of arrival that was given, also to a message that is gone; 0 where none is known.
    pub last_arrival: u64,
}

impl Stats {
    /// Whether there is no message, neither free nor claimed.
    pub fn is_empty(&self) -> bool {
        self.free + self.claimed == 0 && self.oldest.is_none() && self.newest.is_none()
    }
}

/// What is left in a queue, counted for whoever decides whether it is empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// What a claim may still find, now or when a delay has passed. Never too few, but for what somebody else than this
    /// service holds; a broker may count messages that are over, until they have been delivered in vain.
    pub free: u64,
    /// Held by a live claim.
    pub claimed: u64,
}

impl Backlog {
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.free == 0 && self.claimed == 0
    }
}

impl From<&Stats> for Backlog {
    fn from(stats: &Stats) -> Self {
        Self {
            free: stats.free,
            claimed: stats.claimed,
        }
    }
}

impl std::ops::AddAssign for Backlog {
    fn add_assign(&mut self, more: Self) {
        self.free += more.free;
        self.claimed += more.claimed;
    }
}

/// The first or the last message of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatsMessage {
    /// The message.
    pub id: MessageId,
    /// How long ago it was posted.
    pub age: Duration,
    /// When that was, by the store's clock.
    pub posted: Timestamp,
}
