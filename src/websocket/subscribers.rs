//! Subscriptions of sockets: made and ended with them, renewed while they are open, and served from this server's mailbox.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use isimud_contract::{QueueKey, SubscriptionId};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_tungstenite::tungstenite::Message;

use super::WebSockets;
use super::acks::{AckTerms, Acks};
use super::encoding::Encoding;
use super::socket::{Socket, Subscribed};
use crate::messaging::Asked;
use crate::notifications::{DeliveryContext, Entry, LocalSockets, What, document_of_message};

/// How long a subscription lives that nobody renews: so long those of a server that died are there.
const LIFE: Duration = Duration::from_secs(600);
/// How often a subscription is renewed.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(240);
/// How often the mailbox is looked at while there are subscriptions.
const POLL_INTERVAL: Duration = Duration::from_millis(150);
/// How long to wait before a store is asked again that did not answer.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Subscriptions that are ended at once when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// What became of a subscription that a socket asks for.
#[derive(Debug)]
pub(super) enum Made {
    Subscribed(SubscriptionId),
    /// It listens to this queue already.
    Already,
    /// It has as many as it may have.
    TooMany,
}

/// What a socket asks for.
#[derive(Debug)]
pub(super) struct NewSubscription {
    pub(super) asked: Asked,
    /// Has the messages claimed for it.
    pub(super) ack: Option<AckTerms>,
    /// How it asks.
    pub(super) encoding: Encoding,
}

impl WebSockets {
    /// Subscribes a socket to a queue.
    pub(super) async fn subscribe(
        &self,
        socket: &Arc<Socket>,
        source: &QueueKey,
        asked_for: NewSubscription,
    ) -> isimud_contract::Result<Made> {
        if let Some(ack) = &asked_for.ack {
            ack.check(&self.app.messaging.limits())?;
        }
        if socket.subscriptions().len() >= self.settings.limits.subscriptions {
            return Ok(Made::TooMany);
        }
        let subscriber = self.mailboxes.subscriber(socket.id);
        let messaging = &self.app.messaging;
        let made = messaging.subscribe_socket(source, subscriber, asked_for.asked, LIFE);
        let Some((id, wanted)) = made.await? else {
            return Ok(Made::Already);
        };
        let now = Instant::now();
        let acks = asked_for.ack.map(|terms| {
            let (acks, queue) = (Acks::new(terms), source.clone());
            let (running, of) = (Arc::clone(&acks), Arc::downgrade(socket));
            let task = tokio::spawn(async move {
                if let Some(socket) = of.upgrade() {
                    running.run(&socket, &queue).await;
                }
            });
            (acks, task.abort_handle())
        });
        let subscribed = Subscribed {
            acks,
            source: source.clone(),
            until: now + wanted.min(LONGEST),
            renew_at: now + RENEWAL_INTERVAL,
        };
        socket.subscriptions().insert(id, subscribed);
        socket.push_in(asked_for.encoding);
        self.subscribers().insert(id, Arc::clone(socket));
        self.metrics.subscriptions.inc();
        self.wake.notify_one();
        Ok(Made::Subscribed(id))
    }

    /// Forgets a subscription, if it is one of a socket of this server. Its record stays.
    pub(super) fn forget(&self, id: SubscriptionId) {
        let removed = self.subscribers().remove(&id);
        let Some(socket) = removed else { return };
        self.metrics.subscriptions.dec();
        let ended = socket.subscriptions().remove(&id);
        if let Some(Subscribed {
            source,
            acks: Some((acks, task)),
            ..
        }) = ended
        {
            task.abort();
            self.release(source, &acks);
        }
    }

    /// Releases what a subscription has claimed, in its own time; what cannot be released ends with its claim.
    fn release(&self, source: QueueKey, acks: &Acks) {
        let claims = acks.claims();
        if claims.is_empty() {
            return;
        }
        let app = Arc::clone(&self.app);
        tokio::spawn(async move {
            for claim in claims {
                let released = app.messaging.release_claim(&source, claim).await;
                if let Err(error) = released {
                    tracing::debug!(%error, queue = %source, "a claim of a socket that is closed stays until it ends");
                }
            }
        });
    }

    /// Forgets a subscription of this queue.
    pub(super) fn forget_of(&self, source: &QueueKey, id: SubscriptionId) {
        let socket = self.subscribers().get(&id).cloned();
        let is_of_it = socket.is_some_and(|socket| {
            let subscriptions = socket.subscriptions();
            subscriptions
                .get(&id)
                .is_some_and(|one| one.source == *source)
        });
        if is_of_it {
            self.forget(id);
        }
    }

    /// Ends the subscriptions of a socket that `ends` names.
    pub(super) async fn unsubscribe(&self, socket: &Socket, ends: impl Fn(&Subscribed) -> bool) {
        let ended: Vec<(SubscriptionId, QueueKey)> = socket
            .subscriptions()
            .iter()
            .filter(|(_, one)| ends(one))
            .map(|(id, one)| (*id, one.source.clone()))
            .collect();
        for (id, _) in &ended {
            self.forget(*id);
        }
        for (id, source) in ended {
            let deleted = self.app.messaging.delete_subscription(&source, id).await;
            if let Err(error) = deleted {
                tracing::debug!(%error, subscription = %id, "the subscription of a socket that is closed stays until it expires");
            }
        }
    }

    /// Renews what is due of the subscriptions of this server.
    async fn renew(&self) {
        let now = Instant::now();
        let all: Vec<(SubscriptionId, Arc<Socket>)> = self
            .subscribers()
            .iter()
            .map(|(id, socket)| (*id, Arc::clone(socket)))
            .collect();
        for (id, socket) in all {
            let due = match socket.subscriptions().get_mut(&id) {
                Some(one) if one.renew_at <= now => {
                    one.renew_at = now + RENEWAL_INTERVAL;
                    Some((one.source.clone(), one.until.saturating_duration_since(now)))
                }
                _ => None,
            };
            let Some((source, left)) = due else { continue };
            let is_there = match left.as_secs() {
                0 => Ok(false),
                _ => {
                    let messaging = &self.app.messaging;
                    messaging
                        .renew_socket_subscription(&source, id, left.min(LIFE))
                        .await
                }
            };
            match is_there {
                Ok(true) => {}
                // It was deleted over HTTP, or with its queue, or the client wanted it no longer.
                Ok(false) => self.forget(id),
                Err(error) => {
                    tracing::debug!(%error, subscription = %id, "the subscription of a socket could not be renewed, retrying");
                    if let Some(one) = socket.subscriptions().get_mut(&id) {
                        one.renew_at = now + RETRY_DELAY;
                    }
                }
            }
        }
    }

    /// Serves the subscriptions of this server, until told to stop; then removes its mailbox.
    pub(crate) async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let serving = async {
            tokio::join!(self.mailboxes.write(), self.empty_mailbox(), async {
                loop {
                    sleep(RETRY_DELAY).await;
                    self.renew().await;
                }
            })
        };
        tokio::select! {
            _ = serving => {}
            stopped = stop.wait_for(|stop| *stop) => drop(stopped),
        }
        let removed = tokio::time::timeout(STOP_TIMEOUT, self.mailboxes.remove());
        if !matches!(removed.await, Ok(Ok(()))) {
            tracing::debug!("the mailbox of this server stays until what is in it expires");
        }
    }

    /// Hands over what other servers put into the mailbox.
    async fn empty_mailbox(&self) {
        loop {
            if self.subscribers().is_empty() {
                self.wake.notified().await;
            }
            let wait = match self.hand_over().await {
                Ok(true) => continue,
                Ok(false) => POLL_INTERVAL,
                Err(error) => {
                    tracing::debug!(%error, "cannot read what other servers have for sockets of this one, retrying");
                    RETRY_DELAY
                }
            };
            sleep(wait).await;
        }
    }

    /// Hands over a batch. Returns whether there was one.
    async fn hand_over(&self) -> isimud_contract::Result<bool> {
        let entries = self.mailboxes.take().await?;
        let found_some = !entries.is_empty();
        let mut known: HashMap<QueueKey, Vec<_>> = HashMap::new();
        for entry in entries {
            if !known.contains_key(&entry.source) {
                let sockets = self.app.messaging.socket_subscribers(&entry.source).await?;
                known.insert(entry.source.clone(), sockets);
            }
            let sockets = known.get(&entry.source).map_or(&[][..], Vec::as_slice);
            self.deliver(&entry, &mut self.mailboxes.own(sockets));
        }
        Ok(found_some)
    }

    /// The document of a message as sockets are sent it: its body is opened, as their clients could read it, too.
    fn document(&self, entry: &Entry) -> Option<String> {
        let What::Message {
            ttl,
            delay,
            sealed,
            body,
        } = &entry.what
        else {
            return None;
        };
        let opened = match sealed {
            true => self.app.messaging.open(entry.id, body).ok()?,
            false => body.clone(),
        };
        let body = std::str::from_utf8(&opened).ok()?;
        let delay = delay.map(|delay| delay.as_secs());
        Some(document_of_message(
            &entry.source,
            ttl.as_secs(),
            delay,
            body,
        ))
    }
}

/// The longest time that a client may want a subscription, as far as this server reckons.
const LONGEST: Duration = Duration::from_hours(24 * 366);

impl LocalSockets for WebSockets {
    fn deliver(&self, entry: &Entry, subscriptions: &mut dyn Iterator<Item = SubscriptionId>) {
        let mut text: Option<Message> = None;
        let mut binary: Option<Message> = None;
        let mut document = None;
        let (mut pushed, mut dropped) = (0, 0);
        let subscribers = self.subscribers();
        for id in subscriptions {
            let Some(socket) = subscribers.get(&id) else {
                continue;
            };
            if document.is_none() {
                document = self.document(entry);
            }
            let Some(document) = &document else {
                dropped += 1;
                continue;
            };
            if let Some(acks) = socket.acks_of(&entry.source) {
                // It claims what it is to have.
                acks.wake();
                continue;
            }
            let encoding = socket.push_encoding();
            let cached = match encoding {
                Encoding::Text => &mut text,
                Encoding::Binary => &mut binary,
            };
            let message = cached.get_or_insert_with(|| encoding.encode(document.as_bytes()));
            match socket.push(message.clone()) {
                true => pushed += 1,
                false => dropped += 1,
            }
        }
        drop(subscribers);
        if pushed > 0 {
            self.metrics.pushed("sent", pushed);
        }
        if dropped > 0 {
            self.metrics.pushed("dropped", dropped);
        }
    }

    fn dropped(&self, count: usize) {
        self.metrics.pushed("dropped", count);
    }
}
