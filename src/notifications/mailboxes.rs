//! Messages for sockets of other servers.
//!
//! A socket is connected to one server, and a message may be posted through any. So each server with subscriptions of sockets
//! has a mailbox: an internal queue in the service's own store (`~~mailbox.SERVER`), which it empties a few times a second.
//! Who posts a message puts it there once for all sockets of that server; what is for sockets of its own server it hands over
//! at once.
//!
//! Nothing waits for this, and nothing is repeated: what cannot be written, or has no room, is dropped and counted. That is what
//! a subscription of a socket promises, at most once; in exchange a post costs no more than without one, and a socket that
//! is slow or a server that is dead holds up nobody. A mailbox has a bound in messages and in bytes, and what is in it lives
//! for a minute: that of a dead server is empty soon, by itself.
//!
//! The road not taken: the outbox and a delivery queue for each subscription. They would store a message a thousand times for
//! a thousand sockets, of which most are gone when it is their turn.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use isimud_contract::{
    Error, ErrorKind, Message, MessageId, MessageStore, QueueKey, Result, Subscription,
    SubscriptionId,
};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::entry::Entry;
use super::outbox::own_queue;
use crate::spell::Spell;

/// How long a message may wait in a mailbox.
const MESSAGE_TTL: Duration = Duration::from_secs(60);
/// Messages in one mailbox.
const MAX_MESSAGES: u64 = 10_000;
/// Bytes in one mailbox, about: several servers at once may each exceed it by a part.
const MAX_BYTES: u64 = 32 << 20;
/// After how many bytes a mailbox is measured again.
const MEASURED_EVERY: u64 = MAX_BYTES / 8;
/// Messages that wait to be written to mailboxes.
const MAX_WAITING: usize = 4096;
/// Bytes of them.
const MAX_WAITING_BYTES: usize = 32 << 20;
/// Messages that are written, or read, at once.
const BATCH: usize = 100;
/// What the subscriber of a socket begins with. Clients cannot name it.
const SCHEME: &str = "websocket://";

/// A subscription that a socket has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketSubscriber {
    /// The server that the socket is connected to.
    pub(crate) server: Uuid,
    /// The subscription.
    pub(crate) subscription: SubscriptionId,
}

impl SocketSubscriber {
    /// Reads the subscriber of a subscription; `None` for one that is no socket.
    pub(crate) fn of(subscription: &Subscription) -> Option<Self> {
        let place = subscription.subscriber.strip_prefix(SCHEME)?;
        let (server, _) = place.split_once('/')?;
        Some(Self {
            server: Uuid::try_parse(server).ok()?,
            subscription: subscription.id,
        })
    }
}

/// The sockets of this server.
pub(crate) trait LocalSockets: fmt::Debug + Send + Sync + 'static {
    /// Hands a message over to the sockets with these subscriptions. Waits for nothing.
    fn deliver(&self, entry: &Entry, subscriptions: &mut dyn Iterator<Item = SubscriptionId>);
    /// So many messages for other servers were dropped.
    fn dropped(&self, count: usize);
}

/// A message for another server.
#[derive(Debug)]
struct Posting {
    server: Uuid,
    entry: Message,
}

/// The mailboxes of all servers, as one of them uses them.
#[derive(Debug)]
pub struct Mailboxes {
    store: Arc<dyn MessageStore>,
    server: Uuid,
    local: OnceLock<Weak<dyn LocalSockets>>,
    postings: mpsc::Sender<Posting>,
    waiting: Mutex<Option<mpsc::Receiver<Posting>>>,
    waiting_bytes: AtomicUsize,
    failing: Spell,
}

fn mailbox(server: Uuid) -> QueueKey {
    own_queue(&format!("mailbox.{server}"))
}

impl Mailboxes {
    /// Mailboxes in a store, of a server that has just started.
    pub fn new(store: Arc<dyn MessageStore>) -> Self {
        let (postings, waiting) = mpsc::channel(MAX_WAITING);
        Self {
            store,
            server: Uuid::new_v4(),
            local: OnceLock::new(),
            postings,
            waiting: Mutex::new(Some(waiting)),
            waiting_bytes: AtomicUsize::new(0),
            failing: Spell::default(),
        }
    }

    /// Says where the sockets of this server are.
    pub(crate) fn connect(&self, local: Weak<dyn LocalSockets>) {
        // There is one.
        drop(self.local.set(local));
    }

    /// The subscriber that stands for a socket of this server.
    pub(crate) fn subscriber(&self, socket: Uuid) -> String {
        format!("{SCHEME}{}/{socket}", self.server)
    }

    fn local(&self) -> Option<Arc<dyn LocalSockets>> {
        self.local.get()?.upgrade()
    }

    /// Has messages that are stored pushed to sockets. Waits for nothing.
    pub(crate) fn notify(
        &self,
        source: &QueueKey,
        messages: &[Message],
        sockets: &[SocketSubscriber],
    ) {
        let mut others: Vec<Uuid> = sockets.iter().map(|socket| socket.server).collect();
        others.sort_unstable();
        others.dedup();
        let is_local = others.contains(&self.server);
        others.retain(|server| *server != self.server);
        for message in messages {
            let entry = Entry::of_message(source, message, self.server);
            if is_local && let Some(local) = self.local() {
                local.deliver(&entry, &mut self.own(sockets));
            }
            if others.is_empty() {
                continue;
            }
            let ttl = message.ttl.min(MESSAGE_TTL);
            let kept = entry.kept(MessageId(Uuid::now_v7()), ttl, Duration::ZERO);
            for server in &others {
                self.send(Posting {
                    server: *server,
                    entry: kept.clone(),
                });
            }
        }
    }

    /// The subscriptions of this server.
    pub(crate) fn own<'a>(
        &self,
        sockets: &'a [SocketSubscriber],
    ) -> impl Iterator<Item = SubscriptionId> + use<'a> {
        let server = self.server;
        let own = sockets.iter().filter(move |socket| socket.server == server);
        own.map(|socket| socket.subscription)
    }

    fn send(&self, posting: Posting) {
        let bytes = posting.entry.body.len();
        let before = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > MAX_WAITING_BYTES || self.postings.try_send(posting).is_err() {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.tell_dropped(1);
        }
    }

    fn tell_dropped(&self, count: usize) {
        if let Some(local) = self.local() {
            local.dropped(count);
        }
    }

    /// Writes what waits to the mailboxes, for as long as it is polled. May be called once.
    pub(crate) async fn write(&self) {
        let taken = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.take()
        };
        let Some(mut waiting) = taken else { return };
        let (mut batch, mut written) = (Vec::new(), HashMap::new());
        while waiting.recv_many(&mut batch, BATCH).await > 0 {
            let mut servers: Vec<(Uuid, Vec<Message>)> = Vec::new();
            for Posting { server, entry } in batch.drain(..) {
                let bytes = entry.body.len();
                self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
                match servers.iter_mut().find(|(known, _)| *known == server) {
                    Some((_, entries)) => entries.push(entry),
                    None => servers.push((server, vec![entry])),
                }
            }
            if written.len() > MAX_WAITING {
                written.clear();
            }
            for (server, entries) in servers {
                let count = entries.len();
                let since = written.entry(server).or_default();
                if let Err(error) = self.post(server, entries, since).await {
                    if self.failing.note() {
                        tracing::warn!(%error, %server, "messages for sockets of another server are dropped");
                    }
                    self.tell_dropped(count);
                }
            }
        }
    }

    /// Posts to one mailbox. `since` counts the bytes since it was measured.
    async fn post(&self, server: Uuid, entries: Vec<Message>, since: &mut u64) -> Result<()> {
        let queue = mailbox(server);
        *since += entries.iter().map(Message::size).sum::<u64>();
        if *since > MEASURED_EVERY {
            let stored = self.measure(&queue).await?;
            if stored > MAX_BYTES {
                let sentence = "its mailbox has as many bytes as it may have";
                return Err(Error::new(ErrorKind::Full, sentence));
            }
            *since = 0;
        }
        self.store.post_within(&queue, entries, MAX_MESSAGES).await
    }

    /// The bytes of a mailbox, or a number above the bound.
    async fn measure(&self, queue: &QueueKey) -> Result<u64> {
        let (mut after, mut bytes) = (None, 0);
        loop {
            let step = self.store.count_bytes(queue, after).await?;
            bytes += step.bytes;
            after = step.next;
            if after.is_none() || bytes > MAX_BYTES {
                return Ok(bytes);
            }
        }
    }

    /// Takes what others have put into the mailbox of this server: a batch of messages, oldest first, none where it is empty.
    pub(crate) async fn take(&self) -> Result<Vec<Entry>> {
        let taken = self.store.pop(&mailbox(self.server), BATCH).await?;
        let entries = taken.iter().map(|kept| Entry::decode(&kept.body));
        Ok(entries.filter_map(Result::ok).collect())
    }

    /// Removes the mailbox of this server.
    pub(crate) async fn remove(&self) -> Result<()> {
        self.store.drop_queue(&mailbox(self.server)).await
    }
}
