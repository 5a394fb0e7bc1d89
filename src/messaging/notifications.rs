//! What connects messages with notifications: a post tells the outbox, and deliveries ask for what only this side knows.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use isimud_contract::{Message, MessageId, QueueKey, Result, Subscription, Timestamp};
use serde_json::Value;

use super::Messaging;
use super::queue_cache::Queue;
use crate::notifications::{DeliveryContext, Outbox};

/// Subscriptions that are looked at to know until when somebody listens. Where there are more, these are looked at
/// again when they have ended.
const PAGE_SIZE: usize = 20;
/// How much longer than a subscription lives it is taken to listen: clocks differ.
const CLOCK_MARGIN: Duration = Duration::from_secs(5);

impl Messaging {
    /// Until when somebody may listen to a queue; `None` when nobody does.
    pub(super) async fn subscribed_until(&self, queue: &QueueKey) -> Result<Option<Timestamp>> {
        if self.outbox.is_none() {
            return Ok(None);
        }
        let found = self
            .management
            .list_subscriptions(queue, None, PAGE_SIZE)
            .await?;
        let left = |one: &Subscription| one.ttl.saturating_sub(one.age);
        let longest = found.iter().map(left).max();
        Ok(longest.map(|longest| {
            self.signer
                .now()
                .after(longest.saturating_add(CLOCK_MARGIN))
        }))
    }

    /// Stores messages, and what is to be notified of them, at the same time: those of clients only where the queue has no
    /// more than `most` then.
    pub(super) async fn store_and_notify(
        &self,
        queue: &QueueKey,
        known: &Queue,
        messages: Vec<Message>,
        most: Option<u64>,
    ) -> Result<()> {
        match self.outbox_for(queue, known) {
            None => known.route.post(queue, messages, most).await,
            Some(outbox) => {
                let told = messages.clone();
                outbox
                    .post_with(queue, &told, known.route.post(queue, messages, most))
                    .await
            }
        }
    }

    /// The same for messages that are stored in another way.
    pub(super) async fn and_notify(
        &self,
        queue: &QueueKey,
        known: &Queue,
        messages: &[Message],
        store: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        match self.outbox_for(queue, known) {
            None => store.await,
            Some(outbox) => outbox.post_with(queue, messages, store).await,
        }
    }

    /// What takes notifications of a queue; none while nobody listens to it.
    fn outbox_for(&self, queue: &QueueKey, known: &Queue) -> Option<&Outbox> {
        let has_subscribers = match known.settings.subscribed_until {
            Some(end) if end > self.signer.now() => true,
            Some(_) => {
                // The last subscription has expired. The next post finds out whether there are others.
                self.forget(queue);
                true
            }
            None => false,
        };
        self.outbox.as_deref().filter(|_| has_subscribers)
    }
}

#[async_trait]
impl DeliveryContext for Messaging {
    async fn retry_policy(&self, source: &QueueKey) -> Result<Option<Value>> {
        let settings = self.settings(source).await?;
        Ok(settings.and_then(|settings| settings.retry_policy.clone()))
    }

    fn open(&self, message: MessageId, sealed: &Bytes) -> Result<Bytes> {
        self.sealer.open(message, sealed)
    }

    async fn dead_letter(&self, queue: &QueueKey, mut message: Message) -> Result<()> {
        let known = self.lookup_or_create(queue, None).await?;
        if known.settings.encrypt && !message.sealed {
            message.body = self.sealer.seal(message.id, &message.body)?;
            message.sealed = true;
        }
        known.route.post(queue, vec![message], None).await
    }

    fn forget(&self, source: &QueueKey) {
        Self::forget(self, source);
    }
}
