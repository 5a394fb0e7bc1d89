//! Getting messages and settling them, on channels that hold what they got.
//!
//! One call gets all its messages on one channel, so that they come in the queue's order and go back in it: a quorum
//! queue puts what is given back at its head, in the order of giving back. Calls are spread over channels, which is what
//! makes a quorum queue fast: it answers one `basic.get` of a channel after another.
//!
//! A few messages are got by `basic.get`, all at once. Many, as they stand in the way of a claim when a server has died
//! or when they are delayed, are sent by a consumer that is lent for their number: 15 times faster on a quorum queue. A
//! consumer that stood for good would hide from other servers what it was sent in advance.
//!
//! A channel that failed is dropped, with its receipts: RabbitMQ has given back what it held.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use isimud_contract::Result;
use lapin::message::{BasicGetMessage, Delivery};
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions,
    BasicQosOptions, ChannelFlowOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel};

use crate::error::from_lapin;
use crate::held::{Held, Holding, Tag};
use crate::link::{Link, Live};

/// From so many messages on a consumer is lent.
const WIDE: usize = 50;

/// How long a lent consumer waits for the next message. It is told how many there are, so it waits in vain only where
/// somebody else was faster.
const IDLE: Duration = Duration::from_millis(100);

/// A message that was got, and is held.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) tag: Tag,
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Vec<u8>,
}

/// Gets and settles, on a connection of its own.
#[derive(Debug)]
pub(crate) struct Holder {
    link: Link,
    /// For queues of which it is not known what a `basic.get` does to them. Some cost the whole connection.
    trying: Link,
    channels: Mutex<Vec<Arc<HoldingChannel>>>,
    limit: usize,
    number: AtomicU64,
    hold_cap: Duration,
    pub(crate) held: Held,
}

/// A channel, and what it is doing.
#[derive(Debug)]
pub(crate) struct HoldingChannel {
    number: u64,
    live: Arc<Live>,
    channel: Channel,
    busy: AtomicUsize,
    /// Held by whoever starts a consumer.
    drawing: tokio::sync::Mutex<()>,
}

impl HoldingChannel {
    fn is_open(&self) -> bool {
        self.live.is_open() && self.channel.status().connected()
    }

    async fn get(&self, queue: &ShortString) -> lapin::Result<Option<BasicGetMessage>> {
        let options = BasicGetOptions { no_ack: false };
        self.channel.basic_get(queue.clone(), options).await
    }

    /// Gets messages, all asked for at once. What came before a failure comes with it.
    async fn get_each(
        &self,
        queue: &ShortString,
        count: usize,
    ) -> (Vec<Delivery>, Option<lapin::Error>) {
        let (mut got, mut failed) = (Vec::with_capacity(count), None);
        for answer in join_all((0..count).map(|_| self.get(queue))).await {
            match answer {
                Ok(message) => got.extend(message.map(|message| message.delivery)),
                Err(error) => failed = Some(error),
            }
        }
        (got, failed)
    }

    /// Has messages sent by a consumer that is lent for as many as are wanted and taken away again.
    async fn draw(
        &self,
        queue: &ShortString,
        count: usize,
    ) -> (Vec<Delivery>, Option<lapin::Error>) {
        let mut got = Vec::with_capacity(count);
        let failed = self.draw_into(&mut got, queue, count).await.err();
        (got, failed)
    }

    async fn draw_into(
        &self,
        got: &mut Vec<Delivery>,
        queue: &ShortString,
        count: usize,
    ) -> lapin::Result<()> {
        let none = FieldTable::default();
        // The limit is the next consumer's, so there must not be two.
        let one = self.drawing.lock().await;
        let limit = u16::try_from(count).unwrap_or(u16::MAX);
        let options = BasicQosOptions { global: false };
        self.channel.basic_qos(limit, options).await?;
        let (tag, options) = (ShortString::default(), BasicConsumeOptions::default());
        let consume = self
            .channel
            .basic_consume(queue.clone(), tag, options, none);
        let mut consumer = consume.await?;
        drop(one);
        // It ends early where others take what was counted.
        while got.len() < usize::from(limit)
            && let Ok(Some(delivery)) = tokio::time::timeout(IDLE, consumer.next()).await
        {
            got.push(delivery?);
        }
        let options = BasicCancelOptions::default();
        self.channel.basic_cancel(consumer.tag(), options).await?;
        while let Some(delivery) = consumer.next().await {
            got.push(delivery?);
        }
        Ok(())
    }

    // What was taken out of `held` is settled by whoever took it, so no delivery is settled twice: RabbitMQ would close
    // the channel. The client's own acker would not keep the order.

    async fn ack(self: Arc<Self>, deliveries: Vec<u64>) -> lapin::Result<()> {
        let options = BasicAckOptions::default();
        let acks = deliveries
            .into_iter()
            .map(|it| self.channel.basic_ack(it, options));
        join_all(acks).await.into_iter().collect()
    }

    async fn give_back(self: Arc<Self>, deliveries: Vec<u64>) -> lapin::Result<()> {
        let options = BasicNackOptions {
            multiple: false,
            requeue: true,
        };
        let nacks = deliveries
            .into_iter()
            .map(|it| self.channel.basic_nack(it, options));
        join_all(nacks)
            .await
            .into_iter()
            .collect::<lapin::Result<()>>()?;
        // An answer to anything on this channel proves that what came before has been read.
        let options = ChannelFlowOptions { active: true };
        self.channel.channel_flow(options).await.map(drop)
    }
}

/// A channel in use. Unless the use ends well, the channel is dropped.
struct Use<'a> {
    holder: &'a Holder,
    channel: Arc<HoldingChannel>,
    well: bool,
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        self.channel.busy.fetch_sub(1, Ordering::Relaxed);
        if !self.well {
            self.channel.live.doubt();
            self.holder.forget(&self.channel);
        }
    }
}

impl Holder {
    pub(crate) fn new(
        [link, trying]: [Link; 2],
        held: Held,
        channels: usize,
        hold_cap: Duration,
    ) -> Self {
        Self {
            link,
            trying,
            channels: Mutex::default(),
            limit: channels,
            number: AtomicU64::new(1),
            hold_cap,
            held,
        }
    }

    /// Gets up to `max` messages and holds them. `alone` is for a queue that was never asked: it is asked where nothing
    /// else is held.
    pub(crate) async fn get(
        &self,
        queue: &ShortString,
        max: usize,
        hold: Duration,
        alone: bool,
    ) -> Result<Vec<Got>> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let work = async {
            let mut using = self.pick(alone).await?;
            let got = self.get_some(&using.channel, queue, max, hold).await;
            using.well = got.is_ok();
            got
        };
        self.link.in_time(work).await
    }

    async fn get_some(
        &self,
        channel: &Arc<HoldingChannel>,
        queue: &ShortString,
        max: usize,
        hold: Duration,
    ) -> Result<Vec<Got>> {
        let Some(first) = channel.get(queue).await.map_err(from_lapin)? else {
            return Ok(Vec::new());
        };
        // It says how many are left, so that nobody asks an empty queue in vain.
        let left = (first.message_count as usize).min(max - 1);
        let mut got = vec![self.hold(channel, queue, first.delivery, hold)];
        let (more, failed) = if left < WIDE {
            channel.get_each(queue, left).await
        } else {
            channel.draw(queue, left).await
        };
        let more = more.into_iter();
        got.extend(more.map(|delivery| self.hold(channel, queue, delivery, hold)));
        failed.map_or(Ok(got), |error| Err(from_lapin(error)))
    }

    fn hold(
        &self,
        channel: &Arc<HoldingChannel>,
        queue: &ShortString,
        delivery: Delivery,
        hold: Duration,
    ) -> Got {
        let tag = Tag {
            channel: channel.number,
            delivery: delivery.delivery_tag,
        };
        let now = self.held.now();
        let holding = Holding {
            channel: Arc::clone(channel),
            queue: queue.clone(),
            instead: None,
            wanted: now + hold,
            cap: now + self.hold_cap,
        };
        self.held.insert(tag, holding);
        Got {
            tag,
            exchange: delivery.exchange,
            routing_key: delivery.routing_key,
            properties: delivery.properties,
            body: delivery.data,
        }
    }

    /// The least busy channel, or a new one where all are busy and there may be one more.
    async fn pick(&self, alone: bool) -> Result<Use<'_>> {
        let channel = if alone {
            self.open(&self.trying).await?
        } else if let Some(channel) = self.least_busy() {
            channel
        } else {
            let channel = self.open(&self.link).await?;
            self.channels().push(Arc::clone(&channel));
            channel
        };
        Ok(Use {
            holder: self,
            channel,
            well: false,
        })
    }

    fn least_busy(&self) -> Option<Arc<HoldingChannel>> {
        let busy = |it: &Arc<HoldingChannel>| it.busy.load(Ordering::Relaxed);
        let mut channels = self.channels();
        channels.retain(|channel| channel.is_open() || self.lost(channel));
        let full = channels.len() >= self.limit;
        let least = channels.iter().min_by_key(|it| busy(it))?;
        let fits = !least.live.is_doubted() && (full || busy(least) == 0);
        fits.then(|| {
            least.busy.fetch_add(1, Ordering::Relaxed);
            Arc::clone(least)
        })
    }

    async fn open(&self, link: &Link) -> Result<Arc<HoldingChannel>> {
        let (live, channel) = link.channel().await?;
        Ok(Arc::new(HoldingChannel {
            number: self.number.fetch_add(1, Ordering::Relaxed),
            live,
            channel,
            busy: AtomicUsize::new(1),
            drawing: tokio::sync::Mutex::default(),
        }))
    }

    /// Drops a channel and its receipts.
    fn forget(&self, channel: &Arc<HoldingChannel>) {
        self.channels().retain(|it| !Arc::ptr_eq(it, channel));
        self.lost(channel);
    }

    /// Drops the receipts of a channel that is closed. Always false: it is to be dropped.
    fn lost(&self, channel: &HoldingChannel) -> bool {
        drop(self.held.take_channel(channel.number));
        false
    }

    fn channels(&self) -> MutexGuard<'_, Vec<Arc<HoldingChannel>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the broker forget deliveries.
    pub(crate) async fn ack(&self, taken: Vec<(Tag, Holding)>) -> Result<()> {
        self.settle(taken, HoldingChannel::ack).await
    }

    /// Gives deliveries back, in their order, and waits until the broker has read that.
    pub(crate) async fn give_back(&self, taken: Vec<(Tag, Holding)>) -> Result<()> {
        self.settle(taken, HoldingChannel::give_back).await
    }

    async fn settle<F>(
        &self,
        mut taken: Vec<(Tag, Holding)>,
        on_channel: impl Fn(Arc<HoldingChannel>, Vec<u64>) -> F,
    ) -> Result<()>
    where
        F: Future<Output = lapin::Result<()>>,
    {
        taken.sort_unstable_by_key(|(tag, _)| *tag);
        let parts = taken.chunk_by(|(one, _), (next, _)| one.channel == next.channel);
        let work = parts.filter_map(|part| {
            let channel = Arc::clone(&part.first()?.1.channel);
            let deliveries = part.iter().map(|(tag, _)| tag.delivery).collect();
            // A channel that is closed holds nothing, and the broker has the messages back.
            channel.is_open().then(|| on_channel(channel, deliveries))
        });
        let work = join_all(work);
        let all = async { work.await.into_iter().collect::<lapin::Result<()>>() };
        self.link
            .in_time(async { all.await.map_err(from_lapin) })
            .await
    }

    /// Gives everything back and closes. Closing alone would count as a failed delivery.
    pub(crate) async fn close(&self) {
        let all = self.held.take_all();
        if let Err(error) = self.give_back(all).await {
            tracing::debug!(%error, "RabbitMQ takes back what was held by itself");
        }
        self.channels().clear();
        self.link.close().await;
        self.trying.close().await;
    }
}
