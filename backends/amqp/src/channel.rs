//! A channel that gets messages, holds them and settles them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{join, join_all};
use lapin::Channel;
use lapin::message::{BasicGetMessage, Delivery};
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions,
    BasicQosOptions, ChannelFlowOptions,
};
use lapin::types::{FieldTable, ShortString};
use tokio::runtime::Handle;

use crate::reconnecting::Live;

/// How long a temporary consumer waits for the next message. It is told how many there are, so it waits in vain only
/// where somebody else was faster.
const DELIVERY_TIMEOUT: Duration = Duration::from_millis(100);

/// As many as a quorum queue takes back in their order by one word: it keeps them in a map of Erlang, which is sorted up
/// to this size. It puts off words beyond this number, and those lose their order in any case.
const MAX_ORDERED: usize = 32;

/// How a delivery is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settle {
    Ack,
    GiveBack,
}

/// A channel, and what it is doing.
#[derive(Debug)]
pub(crate) struct HoldingChannel {
    /// Tells it from every other channel of this life of the server.
    pub(crate) number: u64,
    pub(crate) live: Arc<Live>,
    channel: Channel,
    /// How many calls use it.
    pub(crate) busy: AtomicUsize,
    /// Held by whoever starts a consumer.
    fetching: tokio::sync::Mutex<()>,
    /// Whether the server may hold a delivery on it that nobody here has seen.
    retiring: AtomicBool,
    /// Held by whoever settles.
    settling: tokio::sync::Mutex<()>,
    /// Deliveries to acknowledge with the next that are.
    acks: Mutex<Vec<u64>>,
    tags: Mutex<Tags>,
}

/// The delivery tags of a channel: 1, 2, 3 and so on.
#[derive(Debug, Default)]
struct Tags {
    /// The highest that has come.
    highest: u64,
    /// All up to that one that were not settled, whether or not they have come: answers overtake each other here. With
    /// each is the temporary consumer that it came to, by the delivery tag before its first; 0 is for those that were
    /// got.
    open: BTreeMap<u64, u64>,
}

impl Tags {
    fn received(&mut self, tag: u64, consumer: u64) {
        self.open
            .extend((self.highest + 1..=tag).map(|tag| (tag, 0)));
        self.highest = self.highest.max(tag);
        self.open.insert(tag, consumer);
    }

    /// How many of these, which are in order, stand in front of all others: those can be settled by one word.
    fn in_front(&self, tags: &[u64]) -> usize {
        let same = self.open.keys().zip(tags);
        same.take_while(|(open, tag)| open == tag).count()
    }

    /// The words that give back deliveries in front, by the last tag of each. RabbitMQ sorts what one word gives back by
    /// consumer, so no word is about two of them; and none is longer than what keeps its order. But that is so for the
    /// first words only, and for a thousand messages: a quorum queue would put off the others, and a classic queue goes
    /// through itself for each.
    fn commands(&self, tags: &[u64]) -> Vec<u64> {
        let consumer = |tag: &u64| self.open.get(tag).copied().unwrap_or(0);
        let parts = tags.chunk_by(|one, next| consumer(one) == consumer(next));
        let commands = parts.flat_map(|part| part.chunks(MAX_ORDERED).filter_map(<[u64]>::last));
        let mut commands: Vec<u64> = commands.copied().take(MAX_ORDERED).collect();
        commands.extend(tags.last().filter(|last| commands.last() != Some(*last)));
        commands
    }

    fn settled(&mut self, tags: &[u64]) {
        for tag in tags {
            self.open.remove(tag);
        }
    }
}

impl HoldingChannel {
    /// A channel that is in use.
    pub(crate) fn new(number: u64, live: Arc<Live>, channel: Channel) -> Self {
        Self {
            number,
            live,
            channel,
            busy: AtomicUsize::new(1),
            fetching: tokio::sync::Mutex::default(),
            retiring: AtomicBool::new(false),
            settling: tokio::sync::Mutex::default(),
            acks: Mutex::default(),
            tags: Mutex::default(),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.live.is_open() && self.channel.status().connected()
    }

    /// Whether it is to get nothing more. It closes when all that is held on it is settled, and then the server takes back
    /// what it may have sent to nobody.
    pub(crate) fn is_retiring(&self) -> bool {
        self.retiring.load(Ordering::Relaxed) || self.live.is_replaced()
    }

    /// Has it get nothing more.
    pub(crate) fn retire(&self) {
        self.retiring.store(true, Ordering::Relaxed);
    }

    /// Gives it up: notes what has become of it, and closes it, whoever still has it: the client would keep a channel open on which the answer to a consumer is late, and
    /// with it what the server then sends.
    pub(crate) fn close_soon(&self) {
        self.live.given_up(&self.channel);
        let channel = self.channel.clone();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { channel.close(200, "given up".into()).await.ok() });
        }
    }

    /// Takes note of a delivery, and of the temporary consumer that it came to.
    pub(crate) fn received(&self, tag: u64, consumer: u64) {
        self.tags().received(tag, consumer);
    }

    fn acks(&self) -> MutexGuard<'_, Vec<u64>> {
        self.acks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tags(&self) -> MutexGuard<'_, Tags> {
        self.tags.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn get(&self, queue: &ShortString) -> lapin::Result<Option<BasicGetMessage>> {
        let options = BasicGetOptions { no_ack: false };
        self.channel.basic_get(queue.clone(), options).await
    }

    /// Gets messages, all asked for at once. What came before a failure comes with it.
    pub(crate) async fn get_each(
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

    /// Has messages sent by a temporary consumer for as many as are wanted and taken away again.
    pub(crate) async fn bulk_fetch(
        &self,
        queue: &ShortString,
        count: usize,
    ) -> (Vec<Delivery>, Option<lapin::Error>) {
        let mut got = Vec::with_capacity(count);
        let failed = self.bulk_fetch_into(&mut got, queue, count).await.err();
        (got, failed)
    }

    async fn bulk_fetch_into(
        &self,
        got: &mut Vec<Delivery>,
        queue: &ShortString,
        count: usize,
    ) -> lapin::Result<()> {
        let none = FieldTable::default();
        // The limit is the next consumer's, so there must not be two.
        let one = self.fetching.lock().await;
        let limit = u16::try_from(count).unwrap_or(u16::MAX);
        let options = BasicQosOptions { global: false };
        let limiting = self.channel.basic_qos(limit, options);
        let (tag, options) = (ShortString::default(), BasicConsumeOptions::default());
        let consume = self
            .channel
            .basic_consume(queue.clone(), tag, options, none);
        // Both are said at once, in this order.
        let (limited, consumer) = join(limiting, consume).await;
        limited?;
        let mut consumer = consumer?;
        drop(one);
        let limit = usize::from(limit);
        while got.len() < limit {
            match tokio::time::timeout(DELIVERY_TIMEOUT, consumer.next()).await {
                Ok(Some(delivery)) => got.push(delivery?),
                // The server has taken the consumer away.
                Ok(None) => return Ok(()),
                // Others have taken what was counted.
                Err(_) => break,
            }
        }
        // With all that it may have unsettled, it is sent no more: what settles them is said after this.
        let nowait = got.len() == limit;
        let options = BasicCancelOptions { nowait };
        self.channel.basic_cancel(consumer.tag(), options).await?;
        while let Some(delivery) = consumer.next().await {
            got.push(delivery?);
        }
        if got.len() < limit {
            // A message that came just then may have been sent behind the answer, to nobody.
            self.retire();
        }
        Ok(())
    }

    /// Settles deliveries, which are in order, each of them once: RabbitMQ would close the channel at a second time.
    ///
    /// Those in front of all others are settled by few words, with `multiple`. A classic queue that gets back a thousand
    /// messages one by one goes through itself a thousand times, and a quorum queue puts off what is more than some
    /// thirty words. Nothing else may be settled at the same time, or the words would overtake each other; and a tag is
    /// forgotten only after the word about it is out, so that a call that is broken off is at worst too careful.
    ///
    /// Acknowledgements that come while others are under way go out together. Whoever finds that his have gone out with
    /// another's is done: should that fail, so does the channel.
    pub(crate) async fn settle(
        self: Arc<Self>,
        mut tags: Vec<u64>,
        how: Settle,
    ) -> lapin::Result<()> {
        if how == Settle::Ack {
            self.acks().append(&mut tags);
        }
        let turn = self.settling.lock().await;
        if how == Settle::Ack {
            // From here to the first words there is nothing to wait for, at which a caller could be broken off.
            tags = std::mem::take(&mut *self.acks());
            tags.sort_unstable();
        }
        if tags.is_empty() {
            return Ok(());
        }
        let (front, others) = {
            let known = self.tags();
            let (front, others) = tags.split_at(known.in_front(&tags));
            let front = match how {
                Settle::Ack => front.last().copied().into_iter().collect(),
                Settle::GiveBack => known.commands(front),
            };
            (front, others)
        };
        let commands = front.into_iter().map(|tag| (tag, true));
        let commands = commands.chain(others.iter().map(|tag| (*tag, false)));
        let sent =
            join_all(commands.map(|(tag, multiple)| self.send_command(tag, multiple, how))).await;
        self.tags().settled(&tags);
        drop(turn);
        sent.into_iter().collect::<lapin::Result<()>>()?;
        if how == Settle::GiveBack {
            // An answer to anything on this channel proves that what came before has been read.
            let options = ChannelFlowOptions { active: true };
            self.channel.channel_flow(options).await?;
        }
        Ok(())
    }

    /// Whether RabbitMQ has read everything that was said before: an answer to anything on this channel proves it.
    pub(crate) async fn has_been_read(&self) -> bool {
        let options = ChannelFlowOptions { active: true };
        self.is_open() && self.channel.channel_flow(options).await.is_ok()
    }

    /// The client's own acker would not keep the order.
    async fn send_command(&self, tag: u64, multiple: bool, how: Settle) -> lapin::Result<()> {
        match how {
            Settle::Ack => {
                let options = BasicAckOptions { multiple };
                self.channel.basic_ack(tag, options).await
            }
            Settle::GiveBack => {
                let requeue = true;
                let options = BasicNackOptions { multiple, requeue };
                self.channel.basic_nack(tag, options).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_settles_only_what_stands_in_front() {
        let mut tags = Tags::default();
        tags.received(4, 0);
        assert_eq!(tags.in_front(&[1, 2]), 2);
        assert_eq!(tags.in_front(&[2, 3]), 0);
        assert_eq!(tags.in_front(&[1, 3]), 1);
        tags.settled(&[1, 2]);
        assert_eq!(tags.in_front(&[3, 4]), 2);
        // The seventh has overtaken the two before it, and they may be anybody's.
        tags.received(7, 0);
        assert_eq!(tags.in_front(&[3, 4, 7]), 2);
        tags.settled(&[3, 4, 7]);
        tags.received(6, 0);
        assert_eq!(tags.in_front(&[6]), 0);
        tags.settled(&[5, 6]);
        tags.received(8, 0);
        assert_eq!(tags.in_front(&[8]), 1);
    }

    #[test]
    fn messages_go_back_in_words_about_one_consumer_each() {
        let mut tags = Tags::default();
        let all: Vec<u64> = (1..=150).collect();
        for tag in &all {
            let consumer = match tag {
                11..=110 => 10,
                121..=150 => 120,
                _ => 0,
            };
            tags.received(*tag, consumer);
        }
        assert_eq!(tags.commands(&all), [10, 42, 74, 106, 110, 120, 150]);
        assert_eq!(tags.commands(&all[..9]), [9]);
        assert_eq!(tags.commands(&[]), [0; 0]);
        let many: Vec<u64> = (1..=3000).collect();
        let commands = tags.commands(&many);
        assert_eq!(
            (commands.len(), commands.last()),
            (MAX_ORDERED + 1, Some(&3000))
        );
    }
}
