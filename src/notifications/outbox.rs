//! The outbox: what is to be notified, written beside the message itself, before the client has its answer.
//!
//! It is a handful of internal queues in the service's own store. A queue always writes to the same one of them, which
//! keeps its order, and one server at a time reads each (see `shard_lease`). Writing costs a post the time of one round
//! trip that runs beside its own; queues without subscriptions write nothing.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isimud_contract::{
    Message, MessageId, MessageStore, Precondition, ProjectId, QueueKey, QueueName, Result,
    SubscriptionId, Timestamp,
};
use tokio::sync::Notify;
use uuid::Uuid;

use super::entry::{Entry, What};

/// Into how many parts the outbox is cut. All servers have to agree, so it is not configured.
pub(crate) const SHARDS: usize = 8;

/// How long a receiver may take to be reached with a confirmation request.
const CONFIRMATION_TTL: Duration = Duration::from_hours(24);

/// Takes what is to be notified.
#[derive(Debug)]
pub struct Outbox {
    store: Arc<dyn MessageStore>,
    shards: Vec<Shard>,
    /// This server, for as long as it runs.
    writer: Uuid,
}

/// A part of the outbox.
pub(crate) struct Shard {
    /// Where its entries are.
    pub(crate) queue: QueueKey,
    /// Wakes who reads it.
    pub(crate) wake: Notify,
    /// Entries of this server whose messages are not known to be stored yet.
    open: Mutex<HashSet<MessageId>>,
    /// Counts posts that failed after their entries may have been read.
    failures: AtomicU64,
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shard").field(&self.queue).finish()
    }
}

impl Shard {
    /// Whether an entry of this server may still come to nothing.
    pub(crate) fn is_open(&self, entry: MessageId) -> bool {
        self.open().contains(&entry)
    }

    /// How many posts have failed: while it stays the same, no entry was taken back.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::SeqCst)
    }

    fn open(&self) -> MutexGuard<'_, HashSet<MessageId>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A queue that the service keeps for itself, in a project of its own.
pub(crate) fn own_queue(name: &str) -> QueueKey {
    let project = ProjectId::parse("isimud").expect("the name of a project");
    let name = QueueName::parse(name).expect("the name of a queue");
    QueueKey::new(project, QueueName::internal(&name))
}

impl Outbox {
    /// An outbox in a store, which must be able to list.
    pub fn new(store: Arc<dyn MessageStore>) -> Self {
        let shard = |number: usize| Shard {
            queue: own_queue(&format!("outbox.{number}")),
            wake: Notify::new(),
            open: Mutex::default(),
            failures: AtomicU64::new(0),
        };
        Self {
            store,
            shards: (0..SHARDS).map(shard).collect(),
            writer: Uuid::new_v4(),
        }
    }

    pub(crate) fn store(&self) -> &Arc<dyn MessageStore> {
        &self.store
    }

    pub(crate) fn writer(&self) -> Uuid {
        self.writer
    }

    pub(crate) fn shard(&self, number: usize) -> &Shard {
        &self.shards[number % SHARDS]
    }

    /// The part that a queue writes to: FNV-1a over its key, because every server and every version must find the same.
    fn shard_of(&self, source: &QueueKey) -> &Shard {
        let key = [source.project.as_str(), "\0", source.name.as_str()];
        let bytes = key.iter().flat_map(|part| part.bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        self.shard(usize::try_from(hash % SHARDS as u64).unwrap_or(0))
    }

    /// Stores messages by `post`, and beside them what is to be notified of them. When it returns `Ok` both are stored.
    /// When the post fails, what was written beside it is taken back; a client that goes away in the middle leaves
    /// open whether there will be notifications, as it leaves open whether there are messages.
    pub(crate) async fn post_with(
        &self,
        source: &QueueKey,
        messages: &[Message],
        post: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let shard = self.shard_of(source);
        let ids: Vec<MessageId> = messages.iter().map(|message| message.id).collect();
        let entries = messages.iter().map(|message| {
            let entry = Entry::of_message(source, message, self.writer);
            entry.kept(message.id, message.ttl, message.delay)
        });
        let entries = entries.collect();
        shard.open().extend(&ids);
        let guard = PostGuard { shard, ids: &ids };
        let (posted, written) = tokio::join!(post, self.store.post(&shard.queue, entries));
        if posted.is_err() {
            shard.failures.fetch_add(1, Ordering::SeqCst);
        }
        if posted.is_err()
            && let Err(error) = self
                .store
                .delete(&shard.queue, &ids, Precondition::None)
                .await
        {
            tracing::warn!(%error, queue = %source, "cannot delete outbox entries of a failed post; its messages may be notified");
        }
        drop(guard);
        posted.and(written)
    }

    /// Queues a confirmation request to a receiver, or tells it that it gets nothing any more.
    pub(crate) async fn request_confirmation(
        &self,
        source: &QueueKey,
        subscription: SubscriptionId,
        leaving: bool,
        expires: Timestamp,
    ) -> Result<()> {
        let shard = self.shard_of(source);
        let entry = Entry {
            source: source.clone(),
            id: MessageId(Uuid::now_v7()),
            failed: 0,
            writer: self.writer,
            what: What::Confirmation {
                subscription,
                leaving,
                expires,
            },
        };
        let kept = entry.kept(entry.id, CONFIRMATION_TTL, Duration::ZERO);
        self.store.post(&shard.queue, vec![kept]).await?;
        shard.wake.notify_one();
        Ok(())
    }
}

/// Lets the readers of a shard have what was written, however the writing ends.
struct PostGuard<'a> {
    shard: &'a Shard,
    ids: &'a [MessageId],
}

impl Drop for PostGuard<'_> {
    fn drop(&mut self) {
        let mut open = self.shard.open();
        for id in self.ids {
            open.remove(id);
        }
        drop(open);
        self.shard.wake.notify_one();
    }
}
