//! What connects messages with notifications: a post tells the outbox, and deliveries ask for what only this side knows.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use isimud_contract::{Message, MessageId, QueueKey, Result};
use serde_json::Value;

use super::Messaging;
use super::queue_cache::Queue;
use super::settings::Listeners;
use crate::notifications::{DeliveryContext, Outbox, SocketSubscriber};

/// Subscriptions that are read at once to know until when somebody listens.
const PAGE_SIZE: usize = 100;
/// How much longer than a subscription lives it is taken to listen: clocks differ.
const CLOCK_MARGIN: Duration = Duration::from_secs(5);

impl Messaging {
    /// Who may listen to a queue.
    pub(super) async fn listeners(&self, queue: &QueueKey) -> Result<Listeners> {
        let mut listeners = Listeners::default();
        if self.outbox.is_none() && self.mailboxes.is_none() {
            return Ok(listeners);
        }
        let most = self.limits().max_subscriptions_per_queue;
        let (mut after, mut read) = (None, 0);
        loop {
            let page = self
                .management
                .list_subscriptions(queue, after, PAGE_SIZE)
                .await?;
            for one in &page {
                let left = one.ttl.saturating_sub(one.age);
                let until = self.signer.now().after(left.saturating_add(CLOCK_MARGIN));
                match SocketSubscriber::of(one) {
                    Some(socket) => listeners.sockets.push((socket, until)),
                    None => listeners.until = listeners.until.max(Some(until)),
                }
            }
            read += page.len();
            after = page.last().map(|last| last.id);
            // Without sockets it is enough to know of some: they are looked at again when these have ended.
            if page.len() < PAGE_SIZE || read >= most || self.mailboxes.is_none() {
                return Ok(listeners);
            }
        }
    }

    /// The subscriptions of a queue that sockets have made and that have not ended.
    pub async fn socket_subscribers(&self, queue: &QueueKey) -> Result<Vec<SocketSubscriber>> {
        let settings = self.settings(queue).await?;
        let now = self.signer.now();
        let sockets = settings.iter().flat_map(|it| &it.listeners.sockets);
        let live = sockets.filter(|(_, until)| *until > now);
        Ok(live.map(|(socket, _)| *socket).collect())
    }

    /// Pushes messages that are stored to the sockets that listen.
    fn push(&self, queue: &QueueKey, known: &Queue, messages: &[Message]) {
        let Some(mailboxes) = &self.mailboxes else {
            return;
        };
        let (sockets, now) = (&known.settings.listeners.sockets, self.signer.now());
        if sockets.iter().any(|(_, until)| *until <= now) {
            // Some have expired. The next post finds out which are left.
            self.forget(queue);
        }
        let live: Vec<SocketSubscriber> = sockets
            .iter()
            .filter(|(_, until)| *until > now)
            .map(|(socket, _)| *socket)
            .collect();
        if !live.is_empty() {
            mailboxes.notify(queue, messages, &live);
        }
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
        let outbox = self.outbox_for(queue, known);
        if outbox.is_none() && known.settings.listeners.sockets.is_empty() {
            return known.route.post(queue, messages, most).await;
        }
        let told = messages.clone();
        let post = known.route.post(queue, messages, most);
        match outbox {
            None => post.await?,
            Some(outbox) => outbox.post_with(queue, &told, post).await?,
        }
        self.push(queue, known, &told);
        Ok(())
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
            None => store.await?,
            Some(outbox) => outbox.post_with(queue, messages, store).await?,
        }
        self.push(queue, known, messages);
        Ok(())
    }

    /// What takes notifications of a queue; none while nobody listens to it.
    fn outbox_for(&self, queue: &QueueKey, known: &Queue) -> Option<&Outbox> {
        let has_subscribers = match known.settings.listeners.until {
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
