//! What bridges ask for: messages out of one queue, and into another as if they had been posted there, under the ids,
//! ages and lives that they have.

use std::sync::Arc;

use isimud_contract::{
    Lease, Message, MessageId, MessageStore, Precondition, QueueKey, Result, Stands, StoreId,
};

use super::queue_cache::Queue;
use super::{Messaging, checksum};

/// Where messages of a bridge go: a queue, and the store that takes its posts now. It holds the store open, and is not
/// for keeping longer than a batch takes.
#[derive(Debug)]
pub(crate) struct Target {
    queue: QueueKey,
    known: Arc<Queue>,
    store_id: StoreId,
    store: Arc<dyn MessageStore>,
    key: QueueKey,
    after: u64,
}

impl Target {
    /// The store's name.
    pub(crate) fn store_id(&self) -> &StoreId {
        &self.store_id
    }

    /// The store.
    pub(crate) fn store(&self) -> &Arc<dyn MessageStore> {
        &self.store
    }

    /// What the queue is called there.
    pub(crate) fn key(&self) -> &QueueKey {
        &self.key
    }

    /// Where what is moved there from beside it stands: at the end, under numbers of arrival of that queue.
    pub(crate) fn stands(&self) -> Stands {
        Stands::Last(self.after)
    }

    /// Whether a message that was posted before is known there, though it is gone.
    pub(crate) fn deduplicates(&self) -> bool {
        self.store.capabilities().deduplicates
    }

    /// Whether a body of this size can be kept there.
    pub(crate) fn takes(&self, message: &Message) -> bool {
        let size = message.size();
        let most = self.store.capabilities().largest_body;
        most.is_none_or(|most| size <= most)
    }
}

impl Messaging {
    /// Claims the oldest messages of a queue, for its bridge: that counts for no dead-letter policy.
    pub(crate) async fn claim_for_transfer(
        &self,
        queue: &QueueKey,
        lease: &Lease,
        limit: usize,
    ) -> Result<Vec<Message>> {
        let Some(known) = self.lookup(queue).await? else {
            return Ok(Vec::new());
        };
        for segment_store in known.route.readable() {
            if let Some(claim) = segment_store.claim(queue, lease, limit).await? {
                return Ok(claim.messages);
            }
        }
        Ok(Vec::new())
    }

    /// Starts the time of such a claim again.
    pub(crate) async fn renew_transfer_claim(&self, queue: &QueueKey, lease: &Lease) -> Result<()> {
        self.route(queue).await?.renew_claim(queue, lease).await
    }

    /// Deletes what has left a queue, as far as the precondition allows. Returns how many live messages are gone.
    pub(crate) async fn delete_from_source(
        &self,
        queue: &QueueKey,
        ids: &[MessageId],
        precondition: Precondition,
    ) -> Result<usize> {
        self.route(queue)
            .await?
            .delete(queue, ids, precondition)
            .await
    }

    /// Where messages for a queue go now. It is created when it does not exist.
    pub(crate) async fn target_for(&self, queue: &QueueKey) -> Result<Target> {
        let known = self.lookup_or_create(queue, None).await?;
        let segment_store = known.route.newest();
        Ok(Target {
            queue: queue.clone(),
            store_id: segment_store.segment.store_id.clone(),
            store: Arc::clone(segment_store.store()),
            key: segment_store.segment.key(queue),
            after: segment_store.segment.after,
            known,
        })
    }

    /// The store of a home; `None` where it is registered no more.
    pub(crate) async fn store_of(&self, home: &StoreId) -> Result<Option<Arc<dyn MessageStore>>> {
        if !self.catalogue.is_registered(home).await? {
            return Ok(None);
        }
        Ok(Some(self.catalogue.open(home).await?.store))
    }

    /// Makes messages of another queue fit for this one: encrypted if it encrypts, else plain; with a checksum where the
    /// service stores them; no longer claimed, and never yet; transferred once more, and at the end of the queue.
    /// `Unavailable` while one cannot be decrypted.
    pub(crate) fn prepare_for(&self, target: &Target, messages: &mut [Message]) -> Result<()> {
        let seals = target.known.settings.encrypt;
        for message in messages {
            (message.claim, message.claim_count) = (None, 0);
            message.transfers = message.transfers.saturating_add(1);
            message.arrival = target.stands().arrival(message.arrival);
            if message.sealed && !seals {
                self.open_all(std::slice::from_mut(message))?;
                message.sealed = false;
            }
            if self.checksums && !message.sealed && message.checksum.is_none() {
                let text = std::str::from_utf8(&message.body).ok();
                message.checksum = text.and_then(checksum::checksum);
            }
            if seals && !message.sealed {
                message.body = self.sealer.seal(message.id, &message.body)?;
                message.sealed = true;
            }
        }
        Ok(())
    }

    /// Posts messages, and has the subscribers told.
    pub(crate) async fn post_to_target(
        &self,
        target: &Target,
        messages: Vec<Message>,
    ) -> Result<()> {
        self.store_and_notify(&target.queue, &target.known, messages, None)
            .await
    }

    /// Does what makes messages appear in the queue, and has its subscribers told of them.
    pub(crate) async fn publish_to_target(
        &self,
        target: &Target,
        messages: &[Message],
        appear: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        self.and_notify(&target.queue, &target.known, messages, appear)
            .await
    }
}
