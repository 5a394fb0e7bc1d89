//! Publishing: confirmed and routed, or an error.
//!
//! A call has a channel to itself until its messages are confirmed. The client matches a message that the server returns
//! with some confirm of the same channel, not always its own (its `acknowledgement.rs`), so callers who shared a channel
//! could not tell whose message reached no queue. Measured, channels of their own cost nothing: see the crate's docs.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::join_all;
use isimud_contract::Result;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::Semaphore;

use crate::error::{blocked, from_lapin, refused, strange};
use crate::link::{Link, Live};

/// A message to publish.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
}

/// What became of messages that were published together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The queue has all of them.
    Stored,
    /// At least one of them reached no queue.
    Unroutable,
}

/// Publishes, on a connection of its own: a server that is short of memory or disk space stops a whole connection.
#[derive(Debug)]
pub(crate) struct Publisher {
    link: Link,
    idle: Mutex<Vec<Confirming>>,
    room: Semaphore,
}

/// A channel that confirms what it is given.
#[derive(Debug)]
struct Confirming {
    live: Arc<Live>,
    channel: Channel,
}

impl Publisher {
    pub(crate) fn new(link: Link, channels: usize) -> Self {
        Self {
            link,
            idle: Mutex::default(),
            room: Semaphore::new(channels),
        }
    }

    /// Publishes in order and waits for all confirms. An error leaves open which of them arrived.
    pub(crate) async fn publish(&self, messages: Vec<Outgoing>) -> Result<Fate> {
        if messages.is_empty() {
            return Ok(Fate::Stored);
        }
        self.link.in_time(self.publish_some(messages)).await
    }

    async fn publish_some(&self, messages: Vec<Outgoing>) -> Result<Fate> {
        // Never closed, so never an error.
        let _room = self.room.acquire().await.ok();
        let confirming = self.take().await?;
        let in_doubt = Doubt(&confirming.live, true);
        let fate = confirming.publish(&messages).await;
        in_doubt.over();
        if fate.is_ok() {
            self.idle().push(confirming);
        }
        fate
    }

    /// A channel that nobody uses.
    async fn take(&self) -> Result<Confirming> {
        loop {
            let Some(idle) = self.idle().pop() else {
                return self.open().await;
            };
            if idle.live.is_blocked() {
                self.idle().push(idle);
                return Err(blocked());
            }
            if idle.live.is_doubted() {
                return self.open().await;
            }
            if idle.live.is_open() && idle.channel.status().connected() {
                return Ok(idle);
            }
        }
    }

    async fn open(&self) -> Result<Confirming> {
        // On a connection that is blocked no channel would be opened, as on one that is dead.
        if self.link.live().await?.is_blocked() {
            return Err(blocked());
        }
        let (live, channel) = self.link.channel().await?;
        let confirm = channel.confirm_select(ConfirmSelectOptions::default());
        confirm.await.map_err(from_lapin)?;
        Ok(Confirming { live, channel })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Confirming>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn close(&self) {
        self.idle().clear();
        self.link.close().await;
    }
}

impl Confirming {
    async fn publish(&self, messages: &[Outgoing]) -> Result<Fate> {
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        // Each is handed to the connection when it is first polled, which is in order.
        let sent = join_all(messages.iter().map(|message| {
            self.channel.basic_publish(
                message.exchange.clone(),
                message.routing_key.clone(),
                options,
                &message.body,
                message.properties.clone(),
            )
        }));
        let mut fate = Fate::Stored;
        for confirm in sent.await {
            match confirm.map_err(from_lapin)?.await.map_err(from_lapin)? {
                Confirmation::Ack(None) => {}
                Confirmation::Ack(Some(_)) => fate = Fate::Unroutable,
                Confirmation::Nack(_) => return Err(refused()),
                Confirmation::NotRequested => return Err(strange()),
            }
        }
        Ok(fate)
    }
}

/// Casts doubt on a connection unless the call on it is answered.
struct Doubt<'a>(&'a Live, bool);

impl Doubt<'_> {
    fn over(mut self) {
        self.1 = false;
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if self.1 {
            self.0.doubt();
        }
    }
}
