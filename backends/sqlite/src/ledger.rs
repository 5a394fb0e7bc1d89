//! The ledger: who holds a message of a broker that can only lease. Tables of its own, on the same threads.
//!
//! ```text
//! queue   a queue's number, counters and epoch; purge; statistics
//! row     a message's row: found, inserted, deleted       judge   records and grants
//! hold    claims and deletes                             read    reading and listing
//! sweep   what ends by itself
//! ```

mod claims;
mod judge;
mod queue;
mod read;
mod row;
mod sweep;

use std::sync::Arc;

use async_trait::async_trait;
use isimud_contract::{
    ByteCount, Claim, ClaimId, Delivery, Epoch, ImportedClaim, Lease, Ledger, Message, MessageId,
    MessageStore, Page, Precondition, Purpose, QueueKey, Receipt, Renewed, Result, Selection,
    Stats, Timestamp, UnknownIds, Verdict,
};

use crate::SqliteStore;
pub(crate) use sweep::sweep;

/// A queue of a scope.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    scope: Arc<str>,
    queue: QueueKey,
}

/// What a grant is for, on its way to the writer's thread.
#[derive(Debug, Clone)]
enum Wanted {
    Claim(Lease),
    More(Lease),
    Pop,
}

impl Wanted {
    /// The claim's terms, if it is for one.
    fn lease(&self) -> Option<&Lease> {
        match self {
            Self::Claim(lease) | Self::More(lease) => Some(lease),
            Self::Pop => None,
        }
    }
}

/// The ledger of one scope. It lives as long as the store, and closes with it.
#[derive(Debug)]
struct SqliteLedger {
    store: Arc<SqliteStore>,
    scope: Arc<str>,
}

impl SqliteStore {
    /// The ledger of a pool whose broker can only lease, kept in this store. All ledgers of one scope are one.
    pub fn ledger(self: &Arc<Self>, scope: &str) -> Arc<dyn Ledger> {
        Arc::new(SqliteLedger {
            store: Arc::clone(self),
            scope: scope.into(),
        })
    }
}

impl SqliteLedger {
    fn key(&self, queue: &QueueKey) -> Key {
        Key {
            scope: Arc::clone(&self.scope),
            queue: queue.clone(),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Ledger for SqliteLedger {
    async fn ping(&self) -> Result<()> {
        self.store.ping().await
    }

    async fn record(
        &self,
        queue: &QueueKey,
        epoch: Option<Epoch>,
        now: Timestamp,
        posted: &[Message],
    ) -> Result<Epoch> {
        let (key, posted) = (self.key(queue), posted.to_vec());
        self.store
            .write(move |session| judge::record_posted(session, &key, epoch, now, &posted))
            .await
    }

    async fn grant(
        &self,
        queue: &QueueKey,
        purpose: Purpose<'_>,
        limit: usize,
        now: Timestamp,
        got: &[Delivery],
    ) -> Result<Vec<Verdict>> {
        let (key, got) = (self.key(queue), got.to_vec());
        let wanted = match purpose {
            Purpose::Claim(lease) => Wanted::Claim(lease.clone()),
            Purpose::More(lease) => Wanted::More(lease.clone()),
            Purpose::Pop => Wanted::Pop,
        };
        self.store
            .write(move |session| judge::grant(session, &key, &wanted, limit, now, &got))
            .await
    }

    async fn renew(&self, queue: &QueueKey, lease: &Lease, now: Timestamp) -> Result<Renewed> {
        let (key, lease) = (self.key(queue), lease.clone());
        self.store
            .write(move |session| claims::renew(session, &key, &lease, now))
            .await
    }

    async fn release(&self, queue: &QueueKey, claim: ClaimId) -> Result<Vec<Receipt>> {
        let key = self.key(queue);
        self.store
            .write(move |session| claims::release(session, &key, claim, false))
            .await
    }

    async fn undo(&self, queue: &QueueKey, claim: ClaimId) -> Result<Vec<Receipt>> {
        let key = self.key(queue);
        self.store
            .write(move |session| claims::release(session, &key, claim, true))
            .await
    }

    async fn delete(
        &self,
        queue: &QueueKey,
        ids: &[MessageId],
        precondition: Precondition,
        unknown_ids: UnknownIds,
    ) -> Result<(usize, Vec<Receipt>)> {
        let (key, ids) = (self.key(queue), ids.to_vec());
        self.store
            .write(move |session| claims::delete(session, &key, &ids, &precondition, unknown_ids))
            .await
    }

    async fn import_claim(
        &self,
        queue: &QueueKey,
        claim: ImportedClaim,
        ids: &[MessageId],
    ) -> Result<usize> {
        let (key, ids) = (self.key(queue), ids.to_vec());
        self.store
            .write(move |session| claims::import_claim(session, &key, claim, &ids))
            .await
    }

    async fn find_claim(&self, queue: &QueueKey, claim: ClaimId) -> Result<Claim> {
        let key = self.key(queue);
        self.store
            .read(move |session| claims::find(session, &key, claim))
            .await
    }

    async fn get(&self, queue: &QueueKey, ids: &[MessageId]) -> Result<Vec<Message>> {
        let (key, ids) = (self.key(queue), ids.to_vec());
        self.store
            .read(move |session| read::get(session, &key, &ids))
            .await
    }

    async fn list(&self, queue: &QueueKey, selection: Selection) -> Result<Page> {
        let key = self.key(queue);
        self.store
            .read(move |session| read::list(session, &key, &selection))
            .await
    }

    async fn stats(&self, queue: &QueueKey) -> Result<Stats> {
        let key = self.key(queue);
        self.store
            .read(move |session| queue::stats(session, &key))
            .await
    }

    async fn count_bytes(&self, queue: &QueueKey, after: Option<u64>) -> Result<ByteCount> {
        let key = self.key(queue);
        self.store
            .read(move |session| read::count_bytes(session, &key, after))
            .await
    }

    async fn forget(&self, queue: &QueueKey, ids: &[MessageId]) -> Result<usize> {
        let (key, ids) = (self.key(queue), ids.to_vec());
        self.store
            .write(move |session| claims::forget(session, &key, &ids))
            .await
    }

    async fn purge(&self, queue: &QueueKey) -> Result<()> {
        let key = self.key(queue);
        self.store
            .write(move |session| queue::purge(session, &key))
            .await
    }
}
