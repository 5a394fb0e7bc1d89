//! The records that come out of a source.

use std::time::Duration;

use isimud_contract::{ImportedClaim, Message, Metadata, ProjectId, QueueKey, QueueName};
use uuid::Uuid;

/// The names in a source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Its queues, by project and name.
    pub queues: Vec<FoundQueue>,
    /// What has a name that no queue can have, or shares its keys with another.
    pub refused: Vec<Refusal>,
    /// The names of its pools.
    pub pools: Vec<String>,
    /// The names of its flavors.
    pub flavors: Vec<String>,
}

/// A queue of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundQueue {
    /// Its address.
    pub queue: QueueKey,
    /// Its messages are its own, and not those of another queue whose keys are the same.
    pub has_messages: bool,
    /// It has a record, or somebody subscribed to it.
    pub subscribed: bool,
    /// Its metadata, where they came with its name.
    pub metadata: Option<Metadata>,
}

/// A place in the order of a source's messages. It stays right while messages come and go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    /// The rank of the last message that was read; empty at the start.
    pub after: String,
    /// How many of that rank were read.
    pub same: u64,
}

/// A part of a queue, in order.
#[derive(Debug, Clone, Default)]
pub struct FoundPage {
    /// The live messages.
    pub messages: Vec<FoundMessage>,
    /// What has ended already.
    pub left: Left,
    /// Live messages that cannot be taken.
    pub refused: Vec<Refusal>,
    /// Where the next part begins, and where a later import goes on.
    pub reached: Cursor,
    /// There was no more when this was read.
    pub is_last: bool,
}

/// Entries that are not taken because there is nothing live behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Left {
    /// Ids whose message is gone.
    pub dangling: u64,
    /// Messages whose life has ended.
    pub expired: u64,
}

impl std::ops::AddAssign for Left {
    fn add_assign(&mut self, other: Self) {
        self.dangling += other.dangling;
        self.expired += other.expired;
    }
}

/// A live message of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundMessage {
    /// The message, with the times as spans from now and its body as JSON text. A checksum that is not of this body is
    /// left out.
    pub message: Message,
    /// The claim that holds it.
    pub claim: Option<ImportedClaim>,
    /// Its body was encrypted, and was decrypted.
    pub encrypted: bool,
    /// Its body had something in it that JSON cannot say, which was replaced.
    pub altered: bool,
    /// Its body is a string of the JSON text that it was, because the API takes no such JSON.
    pub as_text: bool,
}

/// A subscription of a source.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundSubscription {
    /// Its id.
    pub id: Uuid,
    /// The queue that it is about.
    pub queue: QueueKey,
    /// Where notifications go.
    pub subscriber: String,
    /// What it was made for.
    pub ttl: Duration,
    /// How long ago it was made or renewed.
    pub age: Duration,
    /// As its maker gave them.
    pub options: Metadata,
    /// Its receiver has agreed.
    pub confirmed: bool,
}

/// Something that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What it is, as an operator would look for it.
    pub what: String,
    /// Why it stays behind.
    pub why: &'static str,
    /// By what name the source can be asked for it again; `None` where that would change nothing.
    pub again: Option<String>,
}

impl Refusal {
    pub(crate) fn new(what: impl Into<String>, why: &'static str) -> Self {
        Self {
            what: what.into(),
            why,
            again: None,
        }
    }

    /// The same, when it may be asked for again.
    pub(crate) fn again(mut self, name: impl Into<String>) -> Self {
        self.again = Some(name.into());
        self
    }
}

/// A project and a queue as a source wrote them. A sentence where no queue of ours can have the names.
pub(crate) fn address(project: &str, queue: &str) -> Result<QueueKey, &'static str> {
    let project = ProjectId::parse(project).map_err(|_| {
        if project.is_empty() {
            "it belongs to no project"
        } else {
            "its project's name is longer than 256 characters"
        }
    })?;
    let name = QueueName::parse(queue)
        .map_err(|_| "its name is not 1 to 64 of the characters a-z A-Z 0-9 _ - .")?;
    Ok(QueueKey::new(project, name))
}
