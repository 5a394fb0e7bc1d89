//! A lease on messages.

use std::time::Duration;

use crate::{Arrival, ClaimId, Message, QueueKey};

/// The terms of a claim. It travels whole, and a store applies it in one atomic step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The claim's name, minted by the server for one call. A claim whose answer was lost is not repeated: what it took
    /// comes back when it ends.
    pub id: ClaimId,
    /// How long the claim runs from now on.
    pub ttl: Duration,
    /// How long a message must outlive the claim: one that would end before or with the claim gets the life
    /// `ttl + grace`, and that as its new ttl (spec: claims.md 1; the rule is `<=`, quirk Q-CLM-10).
    pub grace: Duration,
    /// Where messages go that have been claimed too often. Does not apply to a renewal.
    pub dead_letter: Option<DeadLetter>,
}

/// The dead-letter policy of a queue (spec: claims.md 6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The queue that receives the message: its end, free at once, its claims counted anew, in the same store.
    pub queue: QueueKey,
    /// How many claims deliver a message. The next one moves it instead.
    pub max_claims: u32,
    /// The life that a moved message gets from now on; without it the message keeps its own.
    pub ttl: Option<Duration>,
    /// Where it stands in the queue that receives it.
    pub stands: Stands,
}

/// Where a message stands in a queue that it is moved to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    /// At the end, as if it were posted now: under a number of arrival above this one.
    Last(u64),
    /// Where it stood: the queue is another part of the same one, and the message keeps its number of arrival.
    InPlace,
}

impl Stands {
    /// How a message is posted that stood at `arrival` until now.
    pub fn arrival(self, arrival: Arrival) -> Arrival {
        match self {
            Self::Last(number) => Arrival::After(number),
            Self::InPlace => arrival,
        }
    }
}

/// A claim that was made elsewhere, in a service that this one takes over from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportedClaim {
    /// Its name, which its worker goes on using.
    pub id: ClaimId,
    /// How long it was granted for, from creation or the last renewal.
    pub ttl: Duration,
    /// How long ago it was created or last renewed.
    pub age: Duration,
}

/// A live claim and what it still holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its name.
    pub id: ClaimId,
    /// How long it was granted for, from creation or the last renewal.
    pub ttl: Duration,
    /// How long ago it was created or last renewed.
    pub age: Duration,
    /// Its live messages, oldest first; those deleted since are gone.
    pub messages: Vec<Message>,
}
