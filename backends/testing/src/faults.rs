//! A message store whose calls fail when they are told to.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use isimud_contract::{
    Backlog, ByteCount, Capabilities, Claim, ClaimId, Condition, ImportedClaim, Lease, Message,
    MessageId, MessageStore, Page, Precondition, QueueKey, Result, Selection, Stats,
};

/// What happens to the calls of a store.
pub trait Faults: Debug + Send + Sync + 'static {
    /// Stands around each call: it may fail before the call, after it, or hold it up.
    fn around<T: Send>(
        &self,
        call: impl Future<Output = Result<T>> + Send,
    ) -> impl Future<Output = Result<T>> + Send;

    /// What the store is taken to be able to do.
    fn capabilities(&self, real: Capabilities) -> Capabilities {
        real
    }

    /// What is posted in the place of what was given; a post with a bound is left alone.
    fn posted(&self, messages: Vec<Message>) -> Result<Vec<Message>> {
        Ok(messages)
    }
}

/// A store with faults before another one, which it does not close.
#[derive(Debug)]
pub struct FaultyStore<F> {
    /// The store that does the work.
    pub inner: Arc<dyn MessageStore>,
    /// What happens to its calls.
    pub faults: Arc<F>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<F: Faults> MessageStore for FaultyStore<F> {
    fn capabilities(&self) -> Capabilities {
        self.faults.capabilities(self.inner.capabilities())
    }

    fn condition(&self) -> Condition {
        self.inner.condition()
    }

    async fn ping(&self) -> Result<()> {
        self.faults.around(self.inner.ping()).await
    }

    async fn can_post(&self, queue: &QueueKey) -> Result<()> {
        self.faults.around(self.inner.can_post(queue)).await
    }

    async fn post(&self, queue: &QueueKey, messages: Vec<Message>) -> Result<()> {
        let messages = self.faults.posted(messages)?;
        self.faults.around(self.inner.post(queue, messages)).await
    }

    async fn post_within(&self, queue: &QueueKey, messages: Vec<Message>, most: u64) -> Result<()> {
        let call = self.inner.post_within(queue, messages, most);
        self.faults.around(call).await
    }

    async fn list(&self, queue: &QueueKey, selection: Selection) -> Result<Page> {
        self.faults.around(self.inner.list(queue, selection)).await
    }

    async fn get(&self, queue: &QueueKey, ids: &[MessageId]) -> Result<Vec<Message>> {
        self.faults.around(self.inner.get(queue, ids)).await
    }

    async fn delete(
        &self,
        queue: &QueueKey,
        ids: &[MessageId],
        precondition: Precondition,
    ) -> Result<usize> {
        let call = self.inner.delete(queue, ids, precondition);
        self.faults.around(call).await
    }

    async fn pop(&self, queue: &QueueKey, limit: usize) -> Result<Vec<Message>> {
        self.faults.around(self.inner.pop(queue, limit)).await
    }

    async fn claim(&self, queue: &QueueKey, lease: &Lease, limit: usize) -> Result<Option<Claim>> {
        let call = self.inner.claim(queue, lease, limit);
        self.faults.around(call).await
    }

    async fn find_claim(&self, queue: &QueueKey, claim: ClaimId) -> Result<Claim> {
        let call = self.inner.find_claim(queue, claim);
        self.faults.around(call).await
    }

    async fn renew_claim(&self, queue: &QueueKey, lease: &Lease) -> Result<()> {
        let call = self.inner.renew_claim(queue, lease);
        self.faults.around(call).await
    }

    async fn release_claim(&self, queue: &QueueKey, claim: ClaimId) -> Result<()> {
        let call = self.inner.release_claim(queue, claim);
        self.faults.around(call).await
    }

    async fn undo_claim(&self, queue: &QueueKey, claim: ClaimId, counted: bool) -> Result<()> {
        let call = self.inner.undo_claim(queue, claim, counted);
        self.faults.around(call).await
    }

    async fn import_claim(
        &self,
        queue: &QueueKey,
        claim: ImportedClaim,
        ids: &[MessageId],
    ) -> Result<usize> {
        let call = self.inner.import_claim(queue, claim, ids);
        self.faults.around(call).await
    }

    async fn backlog(&self, queue: &QueueKey) -> Result<Backlog> {
        self.faults.around(self.inner.backlog(queue)).await
    }

    async fn stats(&self, queue: &QueueKey) -> Result<Stats> {
        self.faults.around(self.inner.stats(queue)).await
    }

    async fn count_bytes(&self, queue: &QueueKey, after: Option<u64>) -> Result<ByteCount> {
        let call = self.inner.count_bytes(queue, after);
        self.faults.around(call).await
    }

    async fn purge(&self, queue: &QueueKey) -> Result<()> {
        self.faults.around(self.inner.purge(queue)).await
    }

    async fn drop_queue(&self, queue: &QueueKey) -> Result<()> {
        self.faults.around(self.inner.drop_queue(queue)).await
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
