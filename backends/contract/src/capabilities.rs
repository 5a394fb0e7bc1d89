//! What a store can do, asked before it is used.

use std::time::Duration;

/// What a store promises. A field exists because code branches on it; what goes beyond it is `Unsupported`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one independent promise with a name of its own"
)]
pub struct Capabilities {
    /// Messages of one producer are delivered in the order of their posts.
    pub fifo: bool,
    /// Claims are supported.
    pub claims: bool,
    /// An acknowledged message survives a crash of the backend.
    pub durable: bool,
    /// A message is delivered until it is deleted or expires.
    pub at_least_once: bool,
    /// Queues are those of an existing deployment: none is made, and health is not tried out in one.
    pub adopts: bool,
    /// Made for a high rate of messages.
    pub high_throughput: bool,
    /// Messages can be listed, got and deleted by id before anybody has claimed them. Without it all that is
    /// `Unsupported`, and statistics are approximate and name no first and last message.
    pub browse: bool,
    /// The id of a deleted message stays known for as long as the message would have lived: who posts it again adds
    /// nothing, though it has been delivered meanwhile.
    pub deduplicates: bool,
    /// The largest body in bytes, where the store has a limit of its own.
    pub largest_body: Option<u64>,
    /// The longest delay, where the store has a limit of its own.
    pub longest_delay: Option<Duration>,
    /// The longest claim, renewals included, where the store has a limit of its own.
    pub longest_claim: Option<Duration>,
    /// The longest life of a message, where the store has a limit of its own.
    pub longest_ttl: Option<Duration>,
}

impl Capabilities {
    /// Everything the API promises, without limits.
    pub const FULL: Self = Self {
        fifo: true,
        claims: true,
        durable: true,
        at_least_once: true,
        adopts: false,
        high_throughput: true,
        browse: true,
        deduplicates: false,
        largest_body: None,
        longest_delay: None,
        longest_claim: None,
        longest_ttl: None,
    };

    /// The names by which the API shows them, in the order of the specification (spec: pools-flavors.md 1).
    pub fn names(&self) -> Vec<&'static str> {
        [
            (self.fifo, "FIFO"),
            (self.claims, "CLAIMS"),
            (self.durable, "DURABILITY"),
            (self.at_least_once, "AOD"),
            (self.high_throughput, "HIGH_THROUGHPUT"),
        ]
        .into_iter()
        .filter_map(|(has, name)| has.then_some(name))
        .collect()
    }
}

/// What a store has noticed of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Condition {
    /// It has no room: what would add to it is refused, while deletes and claims go on.
    pub is_full: bool,
    /// Messages that it found damaged since it was opened, and left out.
    pub damaged: u64,
    /// Deliveries of a broker that nobody was told of since the store was opened, although their messages' lives had not
    /// ended: those had been deleted, purged or moved on before.
    pub dropped: u64,
}
