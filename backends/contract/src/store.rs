//! The message contract.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::{
    Backlog, ByteCount, Capabilities, Claim, ClaimId, Condition, ImportedClaim, Lease, Message,
    MessageId, Page, Precondition, QueueKey, Result, Selection, Stats,
};

/// Keeps the messages and claims of many queues.
///
/// What holds for every method:
///
/// * A queue needs no creation; one that nobody posted to is empty. An id of another queue or project does not exist.
/// * Each method is one atomic step: seen whole by every other call, or not at all. Calls may overlap freely.
/// * A message is live until its life ends, a claim until its ttl ends, by the store's own clock. What has ended is
///   gone for every caller at that moment, whenever it is removed.
/// * A message is in at most one live claim. When the claim ends, what is left of it is free again in its old place.
/// * The cost depends on the messages a call returns or changes, not on those in the queue: claimed, delayed or
///   expired messages in front are not walked over again and again.
/// * A listing, claim or pop gives no more bytes at once than [`PAGE_BYTES`](crate::PAGE_BYTES), and what it does not give
///   it leaves as it is.
/// * `Unavailable` means that trying again is right. It leaves open whether the call took effect, and repeating it is
///   safe: messages carry their ids.
///
/// There are no default bodies: a default is a method that a driver forgets.
#[async_trait]
pub trait MessageStore: Debug + Send + Sync + 'static {
    /// What the store can do. What is missing is refused with `Unsupported`, before any I/O.
    fn capabilities(&self) -> Capabilities;

    /// What the store has noticed of itself by now, without any I/O.
    fn condition(&self) -> Condition;

    /// Proves that the store answers now, by a round trip.
    async fn ping(&self) -> Result<()>;

    /// Whether posts to a queue find one. `NotFound(Queue)` where the store takes the queues of an existing deployment as
    /// they are and has none of that name: the sentence says what is missing, and where. Nothing is made for the question,
    /// and only such a store is asked at all: any other makes the queue with the first post.
    async fn can_post(&self, queue: &QueueKey) -> Result<()>;

    /// Appends the messages in order, all or none. When it returns they are as durable as the store is configured to
    /// make them. A message whose id the queue already has is left as it is, so that a repeated post is one post.
    async fn post(&self, queue: &QueueKey, messages: Vec<Message>) -> Result<()>;

    /// The same, if the queue has no more than `most` live messages then, claimed and delayed ones too; otherwise `Full`,
    /// and nothing is stored. What the queue has already is not counted anew. `Unsupported` where the store cannot browse.
    ///
    /// A store that keeps its messages itself counts in the step that stores them, and is exact. One that has them in a
    /// broker asks its ledger at most once a second for as long as there is room: of several servers each may go beyond by
    /// what the others post meanwhile, and posts at the same time may be refused a few messages early.
    async fn post_within(&self, queue: &QueueKey, messages: Vec<Message>, most: u64) -> Result<()>;

    /// Lists live messages in order of arrival.
    async fn list(&self, queue: &QueueKey, selection: Selection) -> Result<Page>;

    /// Reads live messages by id, claimed and delayed ones too, in the order asked. Unknown ids are left out; an id
    /// asked for twice is answered twice.
    async fn get(&self, queue: &QueueKey, ids: &[MessageId]) -> Result<Vec<Message>>;

    /// Deletes messages, as far as the precondition allows. Returns how many live ones are gone.
    async fn delete(
        &self,
        queue: &QueueKey,
        ids: &[MessageId],
        precondition: Precondition,
    ) -> Result<usize>;

    /// Deletes up to `limit` free messages from the head and returns them.
    async fn pop(&self, queue: &QueueKey, limit: usize) -> Result<Vec<Message>>;

    /// Takes up to `limit` free messages out of circulation, oldest first. Returns `None`, and makes no claim, when
    /// there is nothing to deliver. Messages over the lease's dead-letter limit are moved in the same step and do not
    /// count towards `limit`; a call may stop at a bounded number of them.
    async fn claim(&self, queue: &QueueKey, lease: &Lease, limit: usize) -> Result<Option<Claim>>;

    /// Reads a live claim. `NotFound(Claim)` for any other.
    async fn find_claim(&self, queue: &QueueKey, claim: ClaimId) -> Result<Claim>;

    /// Starts a live claim's time again, on new terms; the lease's id names it. `NotFound(Claim)` for any other.
    async fn renew_claim(&self, queue: &QueueKey, lease: &Lease) -> Result<()>;

    /// Ends a claim: what is left of it is free at once. An unknown claim is released already.
    async fn release_claim(&self, queue: &QueueKey, claim: ClaimId) -> Result<()>;

    /// Ends a claim of which nobody has heard, as [`release_claim`](Self::release_claim) does. Where its lease had a dead-letter
    /// policy (`counted`) it did not happen: each of its messages was delivered once less. It may be repeated.
    async fn undo_claim(&self, queue: &QueueKey, claim: ClaimId, counted: bool) -> Result<()>;

    /// Puts free messages under a claim that was made elsewhere, for imports, and returns how many of those named it
    /// holds then. Their lives and claim counts stay as they are. What is not free, or not there, is left out; where
    /// nothing can be held no claim is made. Calls of one claim add up, and one that is live already keeps its own
    /// time, so that a call may be repeated. `AlreadyExists(Claim)` where another queue has a claim of that id and the
    /// store cannot keep both; `Unsupported` where claims cannot be handed over at all.
    async fn import_claim(
        &self,
        queue: &QueueKey,
        claim: ImportedClaim,
        ids: &[MessageId],
    ) -> Result<usize>;

    /// Counts what is left, for a decision that would lose what it overlooks: asks the broker as well, where a broker
    /// keeps the messages and native clients of it may have put more there, or taken some.
    async fn backlog(&self, queue: &QueueKey) -> Result<Backlog>;

    /// Counts the live messages.
    async fn stats(&self, queue: &QueueKey) -> Result<Stats>;

    /// Adds up the bytes of live messages, claimed and delayed ones too: one step of a walk in order of arrival, which starts
    /// behind a number of arrival, or at the oldest message. `Unsupported` where the store cannot browse.
    ///
    /// A step passes a bounded number of messages, about a thousand, without reading their bodies: it holds up nobody. The
    /// walk as a whole takes as long as the queue is long, and is for the background; what is posted or deleted meanwhile
    /// may be in its sum or not. Each message counts with its body and its headers, at most as [`Message::size`] does, and
    /// with no more than 64 bytes and its client's id beside.
    async fn count_bytes(&self, queue: &QueueKey, after: Option<u64>) -> Result<ByteCount>;

    /// Deletes every message of the queue, claimed and delayed ones too, and its claims.
    async fn purge(&self, queue: &QueueKey) -> Result<()>;

    /// Purges the queue and forgets that it was there.
    async fn drop_queue(&self, queue: &QueueKey) -> Result<()>;

    /// Finishes what was begun and lets go of files and connections. Later calls answer `Unavailable`.
    async fn close(&self) -> Result<()>;
}
