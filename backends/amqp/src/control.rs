//! Settling what another server holds.
//!
//! Only the channel that got a message can settle it. So each server listens on a queue of its own, which lives as long
//! as the connection that made it, and the others tell it there what to do. A server whose queue is gone holds nothing
//! any more: RabbitMQ has given everything back, and its receipts are void.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use futures_util::StreamExt;
use isimud_contract::Result;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Consumer};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use crate::error::from_lapin;
use crate::held::Tag;
use crate::names::Names;
use crate::publisher::{Outgoing, PublishOutcome, Publisher, Target};
use crate::receipt;
use crate::reconnecting::{Live, ReconnectingConnection};

/// Between two attempts to listen; the pause grows while they fail.
const RETRY_DELAY: Duration = Duration::from_millis(200);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(2);

/// For how long the first attempt to listen is waited for.
const FIRST_LISTEN_TIMEOUT: Duration = Duration::from_millis(500);

/// As many as one message names.
const MAX_BATCH: usize = 1000;

/// The bytes in front of the tags: what is wanted, who wants it, the number of the call, a span.
const HEADER_BYTES: usize = 1 + 16 + 8 + 8;

/// What one server wants of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settlement {
    Ack,
    Extend(Duration),
    /// Answered when it is done.
    Release,
    /// The answer.
    Done,
}

/// What came from another server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) settlement: Settlement,
    from: Uuid,
    call: u64,
    pub(crate) tags: Vec<Tag>,
}

/// This server's end of the line.
#[derive(Debug)]
pub(crate) struct Control {
    server: Uuid,
    names: Names,
    publisher: Arc<Publisher>,
    attempt_timeout: Duration,
    calls: AtomicU64,
    /// Whether this server listens, once it has tried to.
    listens: watch::Sender<Option<bool>>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<()>>>,
}

impl Control {
    pub(crate) fn new(
        server: Uuid,
        names: Names,
        publisher: Arc<Publisher>,
        timeout: Duration,
    ) -> Self {
        Self {
            server,
            names,
            publisher,
            attempt_timeout: timeout / 2,
            calls: AtomicU64::new(0),
            listens: watch::Sender::new(None),
            waiting: Mutex::default(),
        }
    }

    /// Tells a server what to do, and waits for what is to be waited for.
    pub(crate) async fn tell(
        &self,
        server: Uuid,
        settlement: Settlement,
        tags: &[Tag],
    ) -> Result<()> {
        for some in tags.chunks(MAX_BATCH) {
            let call = self.calls.fetch_add(1, Ordering::Relaxed);
            let answer = (settlement == Settlement::Release).then(|| Waiting::new(self, call));
            let order = Order {
                settlement,
                from: self.server,
                call,
                tags: some.to_vec(),
            };
            if self.send(server, &order).await? == PublishOutcome::Unroutable {
                return Ok(());
            }
            if let Some(answer) = answer {
                answer.wait(self.attempt_timeout).await;
            }
        }
        Ok(())
    }

    async fn send(&self, server: Uuid, order: &Order) -> Result<PublishOutcome> {
        let target = Target::queue(&self.names.control(server));
        let order = Outgoing {
            properties: BasicProperties::default().with_app_id("isimud".into()),
            body: order.write().freeze(),
        };
        self.publisher.publish(target, vec![order]).await
    }

    /// Says that what an order wanted is done.
    pub(crate) async fn done(&self, order: &Order) {
        let answer = Order {
            settlement: Settlement::Done,
            from: self.server,
            call: order.call,
            tags: Vec::new(),
        };
        if let Err(error) = self.send(order.from, &answer).await {
            tracing::debug!(%error, "another server is not told that it is done");
        }
    }

    /// Listens for ever, and has every order carried out.
    pub(crate) async fn listen(
        &self,
        link: &ReconnectingConnection,
        carry_out: impl Fn(Order) + Send + Sync,
    ) {
        let mut pause = RETRY_DELAY;
        loop {
            let heard = async {
                // The channel must live as long as the consumer is listened to.
                let (_live, consumer) = self.consumer(link).await?;
                self.listens.send_replace(Some(true));
                self.hear(consumer, &carry_out).await
            };
            if let Err(error) = heard.await {
                tracing::debug!(%error, "other servers are not heard");
            }
            let listened = self.listens.send_replace(Some(false)) == Some(true);
            pause = if listened {
                RETRY_DELAY
            } else {
                (2 * pause).min(MAX_RETRY_DELAY)
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Waits a moment until this server has begun to listen: nobody else could settle what it receives before. If it
    /// cannot, receiving goes on without it, and the hints of other servers come to nothing.
    pub(crate) async fn ready(&self) {
        if self.listens.borrow().is_none() {
            let mut listens = self.listens.subscribe();
            let tried = listens.wait_for(Option::is_some);
            tokio::time::timeout(FIRST_LISTEN_TIMEOUT, tried).await.ok();
        }
    }

    async fn consumer(&self, link: &ReconnectingConnection) -> Result<(Arc<Live>, Consumer)> {
        let name = self.names.control(self.server);
        let work = async {
            let (live, channel) = link.channel().await?;
            let options = QueueDeclareOptions::exclusive().auto_delete();
            let declared = channel.queue_declare(name.clone(), options, FieldTable::default());
            declared
                .await
                .inspect_err(|_| live.given_up(&channel))
                .map_err(from_lapin)?;
            let options = BasicConsumeOptions {
                no_ack: true,
                exclusive: true,
                ..BasicConsumeOptions::default()
            };
            let consumer = channel.basic_consume(
                name.clone(),
                ShortString::default(),
                options,
                FieldTable::default(),
            );
            Ok((live, consumer.await.map_err(from_lapin)?))
        };
        link.in_time(work).await
    }

    async fn hear(
        &self,
        mut consumer: Consumer,
        carry_out: &(impl Fn(Order) + Send + Sync),
    ) -> Result<()> {
        while let Some(delivery) = consumer.next().await {
            match Order::read(&delivery.map_err(from_lapin)?.data) {
                Some(Order {
                    settlement: Settlement::Done,
                    call,
                    ..
                }) => {
                    if let Some(waiting) = self.waiting().remove(&call) {
                        // Whoever waited may have gone.
                        waiting.send(()).ok();
                    }
                }
                Some(order) => carry_out(order),
                None => tracing::debug!("an order of another version is not understood"),
            }
        }
        Ok(())
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<()>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call whose answer is awaited.
struct Waiting<'a> {
    control: &'a Control,
    call: u64,
    answer: Option<oneshot::Receiver<()>>,
}

impl<'a> Waiting<'a> {
    fn new(control: &'a Control, call: u64) -> Self {
        let (done, answer) = oneshot::channel();
        control.waiting().insert(call, done);
        Self {
            control,
            call,
            answer: Some(answer),
        }
    }

    async fn wait(mut self, attempt_timeout: Duration) {
        if let Some(answer) = self.answer.take() {
            // A server that does not answer gives the messages back when their holds end.
            tokio::time::timeout(attempt_timeout, answer).await.ok();
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.control.waiting().remove(&self.call);
    }
}

impl Order {
    fn write(&self) -> BytesMut {
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + self.tags.len() * receipt::TAG);
        let (settlement, span) = match self.settlement {
            Settlement::Ack => (1, Duration::ZERO),
            Settlement::Extend(span) => (2, span),
            Settlement::Release => (3, Duration::ZERO),
            Settlement::Done => (4, Duration::ZERO),
        };
        bytes.put_u8(settlement);
        bytes.put_slice(self.from.as_bytes());
        bytes.put_u64(self.call);
        bytes.put_u64(u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
        for tag in &self.tags {
            receipt::put(&mut bytes, *tag);
        }
        bytes
    }

    /// Reads an order; `None` for what is none of this version.
    fn read(mut bytes: &[u8]) -> Option<Self> {
        if bytes.len() < HEADER_BYTES || !(bytes.len() - HEADER_BYTES).is_multiple_of(receipt::TAG)
        {
            return None;
        }
        let settlement = bytes.get_u8();
        let (from, rest) = bytes.split_at(16);
        let from = Uuid::from_slice(from).ok()?;
        bytes = rest;
        let call = bytes.get_u64();
        let span = Duration::from_millis(bytes.get_u64());
        let settlement = match settlement {
            1 => Settlement::Ack,
            2 => Settlement::Extend(span),
            3 => Settlement::Release,
            4 => Settlement::Done,
            _ => return None,
        };
        let mut tags = Vec::with_capacity(bytes.len() / receipt::TAG);
        while !bytes.is_empty() {
            tags.push(receipt::get(&mut bytes));
        }
        Some(Self {
            settlement,
            from,
            call,
            tags,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_as_it_was_written() {
        let tag = |delivery| Tag {
            channel: 1,
            delivery,
        };
        for settlement in [
            Settlement::Ack,
            Settlement::Extend(Duration::from_millis(1234)),
            Settlement::Release,
            Settlement::Done,
        ] {
            let order = Order {
                settlement,
                from: Uuid::now_v7(),
                call: 77,
                tags: vec![tag(1), tag(2)],
            };
            assert_eq!(Order::read(&order.write()), Some(order));
        }
        for bytes in [
            &b""[..],
            &[1; HEADER_BYTES - 1],
            &[1; HEADER_BYTES + 1],
            &[9; HEADER_BYTES],
        ] {
            assert_eq!(Order::read(bytes), None);
        }
    }
}
