//! What a broker must be able to do.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use isimud_contract::{Capabilities, Delivery, Message, QueueKey, Receipt, Result, Timestamp};

/// A message on its way to the broker. The driver writes it in the broker's own terms: the body bare, everything else
/// in properties or attributes, so that native consumers can read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The message, its spans as of `posted`.
    pub message: Message,
    /// When it was posted, by this server's clock.
    pub posted: Timestamp,
}

/// How many messages the broker says it has. Approximate where the broker's own count is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Depth {
    /// Ready to be delivered, now or after a delay that the broker keeps by itself.
    pub ready: u64,
    /// Delivered, to whatever server, and not settled yet; `None` where the broker does not tell.
    pub held: Option<u64>,
    /// Of those, as many as are known to be held by this service: by this server, where others do not tell.
    pub held_here: u64,
    /// Why there may be more than is counted: a sentence that names the part of the queue that does not answer.
    pub silent: Option<String>,
}

/// A broker that delivers messages for a while and takes back what nobody settled.
///
/// What holds for every method: calls may overlap; `Unavailable` within a bounded time where the broker cannot answer;
/// a queue that is not there is made when it is first sent to, and is empty until then, unless the pool's options say
/// that queues are adopted as they are found.
///
/// `extend`, `ack` and `release` are *hints*: the ledger has decided already. One that fails, or that comes late or for
/// a receipt of another life of this server, must change nothing but when the broker delivers the message again.
#[async_trait]
pub trait LeaseBroker: Debug + Send + Sync + 'static {
    /// What the broker can do by itself; `browse` is the ledger's to promise.
    fn capabilities(&self) -> Capabilities;

    /// Whether the broker drops a message by itself once its ttl has passed. A claim that extends a life then needs a
    /// copy that lives longer.
    fn expires_messages(&self) -> bool;

    /// Whether queues are those of an existing deployment, with native clients that the ledger does not hear of.
    fn adopts(&self) -> bool;

    /// How long the broker must have had nothing to deliver before a message that it should have is taken to be gone:
    /// longer than a message needs from one server's hands back to the queue, and than counts may be wrong. `None` where
    /// there are no native clients that could have taken one.
    fn missing_after(&self) -> Option<Duration>;

    /// How long a call may take until it answers, be it `Unavailable`: what `receive` may wait for messages included. A
    /// call of the store, which has several steps, takes no longer.
    fn time_limit(&self) -> Duration;

    /// Proves that the broker answers now, by a round trip.
    async fn ping(&self) -> Result<()>;

    /// Whether the queue can be sent to. `NotFound(Queue)` where it is not there and not for this service to make: the
    /// sentence says what is missing, and where. Asks the broker, and not a memory of an earlier answer; a queue that would
    /// be made is not made for the question.
    async fn can_send(&self, queue: &QueueKey) -> Result<()>;

    /// Sends messages in order. They are as durable as the queue when it returns. An error leaves open which of them
    /// were accepted; sending them again is safe, as they carry their ids.
    ///
    /// A broker that can delay does so for `message.delay`; one that cannot leaves it to the ledger, at the price of
    /// deliveries in vain.
    async fn send(&self, queue: &QueueKey, batch: Vec<Envelope>) -> Result<()>;

    /// Takes up to `max` messages, the oldest first, without waiting for more than there are. The broker delivers them
    /// to nobody else for `visibility`, or for as long as it can if that is shorter, and then by itself again.
    ///
    /// A message that was not posted through Isimud gets an id that stays the same however often it is delivered, the
    /// nil client, and the ttl that the broker or the pool's options give it.
    async fn receive(
        &self,
        queue: &QueueKey,
        max: usize,
        visibility: Duration,
    ) -> Result<Vec<Delivery>>;

    /// Has the broker keep deliveries for `visibility` from now on.
    async fn extend(
        &self,
        queue: &QueueKey,
        receipts: &[Receipt],
        visibility: Duration,
    ) -> Result<()>;

    /// Settles deliveries: the broker forgets the messages.
    async fn ack(&self, queue: &QueueKey, receipts: &[Receipt]) -> Result<()>;

    /// Gives deliveries back, to be delivered again at once and in their old places where the broker can.
    async fn release(&self, queue: &QueueKey, receipts: &[Receipt]) -> Result<()>;

    /// Counts. Where a part of the queue does not answer the rest is counted, and `silent` says so: a decision that needs
    /// the whole count is not taken then.
    async fn depth(&self, queue: &QueueKey) -> Result<Depth>;

    /// Forgets what is ready now, and nothing that is sent after this has returned. What is held elsewhere may stay: the
    /// ledger knows it.
    async fn purge(&self, queue: &QueueKey) -> Result<()>;

    /// Purges the queue and deletes it where it is ours to delete.
    async fn drop_queue(&self, queue: &QueueKey) -> Result<()>;

    /// Gives back what is held and lets go of connections.
    async fn close(&self) -> Result<()>;
}
