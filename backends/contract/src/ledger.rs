//! The ledger contract: what a broker that can only lease does not know.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Claim, ClaimId, Guard, Lease, Message, MessageId, Page, QueueKey, Result, Selection, Stats,
    Timestamp,
};

/// What a broker wants to see again before it extends, settles or releases a delivery. Only the broker reads it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Receipt(pub Bytes);

/// A message as a broker delivered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The message as it was posted: its spans are those of that moment.
    pub message: Message,
    /// When it was posted, by the clock of the server that took it. The ledger's clock judges; how far the two differ
    /// is how wrong an expiry can be that only the envelope knows of.
    pub posted: Timestamp,
    /// What names this delivery.
    pub receipt: Receipt,
}

/// What becomes of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It joins the claim, or is popped; the message as it is now.
    Granted(Message),
    /// It has been claimed as often as the dead-letter policy allows: it is to be sent to the dead-letter queue,
    /// buried here, and settled. Until then it is held as if by a claim of the lease's ttl, which nobody can name.
    Spent(Message),
    /// Somebody has it, or it is not due: nobody is told of it, and the broker should not deliver it for that long.
    Held(Duration),
    /// It was deleted, purged or has expired: the broker should forget it, and nobody is told of it.
    Gone,
}

/// What the granted deliveries are for.
#[derive(Debug, Clone, Copy)]
pub enum Purpose<'a> {
    /// A claim. Its lease's dead-letter policy decides on [`Verdict::Spent`], and counts where there is one.
    Claim(&'a Lease),
    /// A pop: what is granted is buried in the same step.
    Pop,
}

/// Decides who holds a message of a broker that can only lease. The broker delivers; the ledger decides.
///
/// One row a message id, and only for what the broker cannot know; no row means free. What holds for every method:
///
/// * It is one atomic step, and calls may overlap freely. The time is the ledger's.
/// * A ledger is opened for a *scope* (a pool): queues of one name in two scopes have nothing in common.
/// * A row ends by itself when its message does. A deleted message keeps its row, without the body, until then, so that
///   a copy that the broker delivers once more is known to be gone.
/// * Ids that have no row are never given one by anything but [`Ledger::note`] and [`Ledger::grant`].
///
/// A row is first written by `note` (the journal, where the pool has one) or by the first `grant` that meets the
/// message; it gets the next number of arrival then. A purge is one number: rows from before it are gone.
#[async_trait]
pub trait Ledger: Debug + Send + Sync + 'static {
    /// Proves that the ledger answers now, by a round trip.
    async fn ping(&self) -> Result<()>;

    /// Writes rows for messages that the broker has accepted, in order; ids that have a row are left as they are.
    async fn note(&self, queue: &QueueKey, posted: &[Message]) -> Result<()>;

    /// Judges deliveries, one verdict each, in their order. For each, the first that fits:
    ///
    /// 1. its row is of a deleted message or from before a purge, or the message has expired (by the row where there is
    ///    one, else by `posted` and its ttl): `Gone`;
    /// 2. a live claim holds it, also one granted a moment ago in this call: `Held` until that claim ends;
    /// 3. it is not due: `Held` until it is, and it gets a row;
    /// 4. it has been claimed as often as the policy allows: `Spent`;
    /// 5. else `Granted`: it has a row and is held (or, popped, is deleted).
    ///
    /// The newest receipt of a live message is kept in its row, whatever the verdict. A claim that is granted nothing
    /// is not made. `lease.id` may name a claim that runs already: what is granted joins it, and its time stays as it
    /// is, so that one claim can be filled by several calls.
    async fn grant(
        &self,
        queue: &QueueKey,
        purpose: Purpose<'_>,
        got: &[Delivery],
    ) -> Result<Vec<Verdict>>;

    /// Starts a live claim's time again, on new terms, and gives back the receipts of what it holds.
    /// `NotFound(Claim)` for any other.
    async fn renew(&self, queue: &QueueKey, lease: &Lease) -> Result<Vec<Receipt>>;

    /// Ends a claim and gives back the receipts of what it held; none when there is no such claim.
    async fn release(&self, queue: &QueueKey, claim: ClaimId) -> Result<Vec<Receipt>>;

    /// Deletes messages that have a row, as far as the guard allows: one that does not fit refuses all. Returns how
    /// many live ones are gone, and the receipts that there are for them.
    async fn bury(
        &self,
        queue: &QueueKey,
        ids: &[MessageId],
        guard: Guard,
    ) -> Result<(usize, Vec<Receipt>)>;

    /// Reads a live claim and what it holds. `NotFound(Claim)` for any other.
    async fn find_claim(&self, queue: &QueueKey, claim: ClaimId) -> Result<Claim>;

    /// Reads live messages that have a row, as [`MessageStore::get`](crate::MessageStore::get) does.
    async fn get(&self, queue: &QueueKey, ids: &[MessageId]) -> Result<Vec<Message>>;

    /// Lists live messages that have a row, as [`MessageStore::list`](crate::MessageStore::list) does.
    async fn list(&self, queue: &QueueKey, selection: Selection) -> Result<Page>;

    /// Counts the live messages that have a row.
    async fn stats(&self, queue: &QueueKey) -> Result<Stats>;

    /// Deletes every message that has a row, and every claim. Positions from before stand before everything.
    async fn purge(&self, queue: &QueueKey) -> Result<()>;
}
