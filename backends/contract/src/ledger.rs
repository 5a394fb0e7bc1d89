//! The ledger contract: what a broker that can only lease does not know.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    ByteCount, Claim, ClaimId, ImportedClaim, Lease, Message, MessageId, Page, Precondition,
    QueueKey, Result, Selection, Stats, Timestamp,
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
    /// Its poster is going to [`record`](Ledger::record) it, or has done so. Where it has no row yet, the record
    /// decides where it stands in the order of arrival, and not this delivery.
    pub awaits_record: bool,
}

/// What becomes of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It joins the claim, or is popped.
    Granted {
        /// The message as it is now.
        message: Message,
        /// It lives longer than the broker was told, so far as the ledger knows. A broker that expires messages by
        /// itself needs a copy.
        longer: bool,
    },
    /// It has been claimed as often as the dead-letter policy allows: it is to be sent to the dead-letter queue,
    /// deleted here, and settled. Until then it is held as if by a claim of the lease's ttl, which nobody can name.
    DeliveryLimitExceeded(Message),
    /// It is free, and more than was asked for: the broker should have it back.
    Free,
    /// Somebody has it, or it is not due: nobody is told of it, and the broker should not deliver it for that long.
    Held(Duration),
    /// It was deleted, purged or has expired: the broker should forget it, and nobody is told of it.
    Gone,
}

/// What the granted deliveries are for.
#[derive(Debug, Clone, Copy)]
pub enum Purpose<'a> {
    /// A claim. Its lease's dead-letter policy decides on [`Verdict::DeliveryLimitExceeded`], and counts where there is
    /// one.
    Claim(&'a Lease),
    /// More for a claim that was granted something before. When it has ended meanwhile nothing is granted, and what
    /// would be is `Free`: otherwise it would begin anew, without what it held.
    More(&'a Lease),
    /// A pop: what is granted is deleted in the same step.
    Pop,
}

/// Names the time between two purges of a queue. No two epochs of a ledger have the same name. A ledger may begin
/// another one by itself when a purged queue has no row left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch(pub u64);

/// What a delete does about an id that has no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownIds {
    /// It names nothing, and is skipped: right where every message has a row.
    Ignore,
    /// It may name a message that was never delivered, and no claim holds that: `NotClaimed` where the precondition
    /// demands a claim, else `Unsupported`, and nothing is deleted.
    Reject,
}

/// What a renewed claim holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Renewed {
    /// The receipts that there are for its messages.
    pub receipts: Vec<Receipt>,
    /// Those of its messages that live longer than the broker was told, each with its receipt.
    pub longer: Vec<(Message, Option<Receipt>)>,
}

/// Decides who holds a message of a broker that can only lease. The broker delivers; the ledger decides.
///
/// One row a message id, and only for what the broker cannot know; no row means free. What holds for every method:
///
/// * It is one atomic step, and calls may overlap freely. The time is the ledger's.
/// * A ledger is opened for a *scope* (a pool): queues of one name in two scopes have nothing in common.
/// * A row ends by itself when its message does, and not before every copy has ended by its own envelope. A deleted
///   message keeps its row, without the body, until then, so that a copy that the broker delivers once more is known
///   to be gone. That is what the server's `now` is for in [`record`](Ledger::record), [`grant`](Ledger::grant) and
///   [`renew`](Ledger::renew): an envelope made at that moment, by that clock, is outlived by the row. So it does not
///   matter for what was deleted how far the clocks differ.
/// * What the row says of a deleted message is said of one post: a message that comes back, having been somewhere else
///   meanwhile, has been transferred more often and is not deleted.
/// * Ids that have no row are never given one by anything but [`record`](Ledger::record) and [`grant`](Ledger::grant).
///
/// A row is first written by `record` (the journal, where the pool has one) or by the first `grant` that meets the
/// message; it gets the next number of arrival then, unless it comes with one. But a row that a grant writes for a
/// delivery that [`awaits a record`](Delivery::awaits_record) has no number and is in no listing: the record gives it
/// one, together with those of its batch; where none comes in ten seconds (whoever posted it is gone), the ledger does.
/// So the order of a listing is that of the posts, whoever claims meanwhile. A purge is one number: rows from before it
/// are gone.
#[async_trait]
pub trait Ledger: Debug + Send + Sync + 'static {
    /// Proves that the ledger answers now, by a round trip.
    async fn ping(&self) -> Result<()>;

    /// Writes rows for messages that the broker has accepted in envelopes of `now`, in order, and returns the present
    /// epoch.
    ///
    /// * With an `epoch` that is over it writes nothing: the queue was purged since, and the messages may be gone with
    ///   what was purged, or not. Whoever sends them again and records them in the present epoch is right in both
    ///   cases.
    /// * With the present `epoch` every message gets a row. One that was transferred more often than the row of its id
    ///   says starts anew, whatever became of the earlier post; so does an id whose message ended, or was purged, unless
    ///   that one was transferred more often. Any other that has a row keeps it, one that was deleted too, and if it is
    ///   that post's the row learns that the broker was told of the message's `remaining_ttl`.
    /// * Without an epoch only the last half holds: no row is written. With no messages this tells the epoch, and from
    ///   then on the queue has one.
    async fn record(
        &self,
        queue: &QueueKey,
        epoch: Option<Epoch>,
        now: Timestamp,
        posted: &[Message],
    ) -> Result<Epoch>;

    /// Judges deliveries, one verdict each, in their order. A row speaks of one post of its id, told by how often the
    /// message had been [transferred](Message::transfers). For each delivery, the first that fits:
    ///
    /// 1. it was transferred less often than its row says, or than another delivery of its id in this call: it is a copy
    ///    of an earlier post, and `Gone`. (One that was transferred more often is a new post, and judged as if there were
    ///    no row; when that gives it a row, it takes the place of the old one, whoever held that.)
    /// 2. its row is of a deleted message, or of one that has ended or was purged, or there is no row and the message
    ///    has ended by its envelope: `Gone`. (But an envelope that outlives the row of an ended or purged message is
    ///    a new post of its id, and is judged as if there were no row.)
    /// 3. a live claim holds it, also one granted a moment ago in this call: `Held` until that claim ends;
    /// 4. it is not due: `Held` until it is, and it gets a row;
    /// 5. `limit` deliveries of this call are granted already: `Free`;
    /// 6. it has been claimed as often as the policy allows: `DeliveryLimitExceeded`. A queue that is its own
    ///    dead-letter queue counts anew instead, and the message is granted;
    /// 7. else `Granted`: it has a row and is held (or, popped, is deleted).
    ///
    /// Where there is a row the message is the row's, whatever the copy says. The newest receipt of a live message is
    /// kept in its row, whatever the verdict but `Free`. A claim that is granted nothing is not made. A claim can be
    /// filled by several calls, and its time runs from the first one that granted something.
    async fn grant(
        &self,
        queue: &QueueKey,
        purpose: Purpose<'_>,
        limit: usize,
        now: Timestamp,
        got: &[Delivery],
    ) -> Result<Vec<Verdict>>;

    /// Starts a live claim's time again, on new terms. `NotFound(Claim)` for any other.
    async fn renew(&self, queue: &QueueKey, lease: &Lease, now: Timestamp) -> Result<Renewed>;

    /// Ends a claim and gives back the receipts of what it held; none when there is no such claim.
    async fn release(&self, queue: &QueueKey, claim: ClaimId) -> Result<Vec<Receipt>>;

    /// Ends a claim that counted, and of which nobody has heard, in the same way: its messages were delivered once less.
    async fn undo(&self, queue: &QueueKey, claim: ClaimId) -> Result<Vec<Receipt>>;

    /// Deletes messages that have a row, as far as the precondition allows: one that does not fit refuses all. Returns
    /// how many live ones are gone, and the receipts that there are for them.
    async fn delete(
        &self,
        queue: &QueueKey,
        ids: &[MessageId],
        precondition: Precondition,
        unknown_ids: UnknownIds,
    ) -> Result<(usize, Vec<Receipt>)>;

    /// Puts free messages that have a row under a claim that was made elsewhere, as
    /// [`MessageStore::import_claim`](crate::MessageStore::import_claim) does, and returns how many of those named it
    /// holds then.
    async fn import_claim(
        &self,
        queue: &QueueKey,
        claim: ImportedClaim,
        ids: &[MessageId],
    ) -> Result<usize>;

    /// Reads a live claim and what it holds. `NotFound(Claim)` for any other.
    async fn find_claim(&self, queue: &QueueKey, claim: ClaimId) -> Result<Claim>;

    /// Reads live messages that have a row, as [`MessageStore::get`](crate::MessageStore::get) does.
    async fn get(&self, queue: &QueueKey, ids: &[MessageId]) -> Result<Vec<Message>>;

    /// Lists live messages that have a row, as [`MessageStore::list`](crate::MessageStore::list) does.
    async fn list(&self, queue: &QueueKey, selection: Selection) -> Result<Page>;

    /// Counts the live messages that have a row.
    async fn stats(&self, queue: &QueueKey) -> Result<Stats>;

    /// Adds up the bytes of live messages that have a row, one step of a walk, as
    /// [`MessageStore::count_bytes`](crate::MessageStore::count_bytes) does. Rows that have no number of arrival yet are
    /// left out, as in a listing.
    async fn count_bytes(&self, queue: &QueueKey, after: Option<u64>) -> Result<ByteCount>;

    /// Forgets messages that the broker has no more, as far as no claim holds them and no delay holds them back, and
    /// returns how many that were. Nothing is known of them then: one that the broker delivers all the same is judged by
    /// its envelope, like one that never had a row.
    async fn forget(&self, queue: &QueueKey, ids: &[MessageId]) -> Result<usize>;

    /// Deletes every message that has a row, and every claim, and begins a new epoch. Positions from before stand
    /// before everything.
    async fn purge(&self, queue: &QueueKey) -> Result<()>;
}
