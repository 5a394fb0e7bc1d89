//! Getting messages and settling them, on channels that hold what they got.
//!
//! One call gets all its messages on one channel, so that they come in the queue's order and go back in it: a quorum
//! queue puts what is given back at its head, in the order of giving back. Calls are spread over channels, which is what
//! makes a quorum queue fast: it answers one `basic.get` of a channel after another.
//!
//! A few messages are got by `basic.get`, all at once. Many, as they stand in the way of a claim when a server has died
//! or when they are delayed, or as several callers want them ([`crate::coalescer`]), are sent by a temporary consumer
//! for their number: 15 times faster on a quorum queue. A consumer that stood for good would hide from other servers
//! what it was sent in advance.
//!
//! A channel that failed is dropped, with its receipts: RabbitMQ has given back what it held.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use isimud_contract::{Error, ErrorKind, Result};
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::ShortString;
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use crate::channel::{HoldingChannel, Settle};
use crate::circuits::{Call, Circuits, is_in_vain};
use crate::coalescer::{Coalescer, FetchRequest, Join, SharedFetch};
use crate::error::{from_lapin, told};
use crate::held::{Held, Holding, Tag};
use crate::order::{Back, sequences};
use crate::reconnecting::ReconnectingConnection;

/// From so many messages on a temporary consumer is started.
const BULK_THRESHOLD: usize = 50;

/// How many channels may be retiring, and which part of those that RabbitMQ allows: up to a half of them are in use.
const MAX_RETIRING: usize = 500;
const RETIRING_SHARE: usize = 4;

/// What RabbitMQ says when it has failed, and ends the connection (AMQP 0-9-1, "internal-error").
const INTERNAL_ERROR: u16 = 541;

/// A message that was got, and is held.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) tag: Tag,
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
    /// Whether RabbitMQ says that it may have been delivered before.
    pub(crate) is_again: bool,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Vec<u8>,
}

/// Gets and settles, on a connection of its own.
#[derive(Debug)]
pub(crate) struct Holder {
    link: ReconnectingConnection,
    /// For queues of which it is not known what a `basic.get` does to them. Some cost the whole connection.
    trying: ReconnectingConnection,
    channels: Mutex<Vec<Arc<HoldingChannel>>>,
    limit: usize,
    number: AtomicU64,
    hold_cap: Duration,
    circuits: Circuits,
    pub(crate) held: Arc<Held>,
}

/// Somebody who waits in a line. When he leaves it, what he is given all the same ends at once.
struct Waiting<'a> {
    held: &'a Held,
    answered: oneshot::Receiver<Result<Vec<Got>>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.answered.close();
        if let Ok(Ok(unwanted)) = self.answered.try_recv() {
            give_up(self.held, &unwanted);
        }
    }
}

/// Has holds end for which there is nobody.
fn give_up(held: &Held, unwanted: &[Got]) {
    let tags: Vec<Tag> = unwanted.iter().map(|got| got.tag).collect();
    held.extend(&tags, held.now());
}

/// A channel in use for a queue. Unless the use ends well, the channel is dropped.
struct Use<'a> {
    holder: &'a Holder,
    link: &'a ReconnectingConnection,
    /// Who uses it; nobody where messages are drawn for many.
    call: Option<&'a Call<'a>>,
    channel: Arc<HoldingChannel>,
    begun: Instant,
    /// How many answers had come on the connection.
    answers: u64,
    end: End,
}

/// How a use ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nobody has waited for the answer, or no longer.
    Late,
    Failed,
    Well,
}

impl Use<'_> {
    fn ends<T, E>(&mut self, outcome: &std::result::Result<T, E>) {
        self.end = match outcome {
            Ok(_) => End::Well,
            Err(_) => End::Failed,
        };
        self.channel.live.answered();
    }
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        let channel = &self.channel;
        channel.busy.fetch_sub(1, Ordering::Relaxed);
        if self.end == End::Well {
            return;
        }
        let in_vain =
            self.end == End::Late && is_in_vain(self.begun.elapsed(), self.link.attempt_timeout());
        if in_vain && channel.live.answers() > self.answers {
            // The connection answers others, so it is the queue that does not. RabbitMQ ends the connection after half a
            // minute of that, and until then what is held there can be settled.
            if let Some(call) = self.call {
                call.waited_in_vain(self.begun, true);
            }
            self.link.replace(&channel.live);
        } else {
            channel.live.mark_suspect();
        }
        self.holder.forget(channel);
        channel.close_soon();
    }
}

impl Holder {
    pub(crate) fn new(
        [link, trying]: [ReconnectingConnection; 2],
        held: Held,
        channels: usize,
        hold_cap: Duration,
    ) -> Self {
        Self {
            circuits: Circuits::new(link.attempt_timeout()),
            link,
            trying,
            channels: Mutex::default(),
            limit: channels,
            number: AtomicU64::new(1),
            hold_cap,
            held: Arc::new(held),
        }
    }

    /// How many connections have been lost.
    pub(crate) fn losses(&self) -> usize {
        self.link.losses()
    }

    /// Gets up to `max` messages and holds them. `isolated` is for a queue that was never asked: it is asked where
    /// nothing else is held.
    pub(crate) async fn get(
        &self,
        queue: &ShortString,
        max: usize,
        visibility: Duration,
        isolated: bool,
    ) -> Result<Vec<Got>> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let call = self.circuits.enter(queue, self.losses())?;
        self.get_by(call, queue, max, visibility, isolated).await
    }

    async fn get_by(
        &self,
        call: Call<'_>,
        queue: &ShortString,
        max: usize,
        visibility: Duration,
        isolated: bool,
    ) -> Result<Vec<Got>> {
        let work = async {
            let mut using = self.pick(Some(&call), isolated || call.is_trial()).await?;
            let got = self.get_some(&using.channel, queue, max, visibility).await;
            using.ends(&got);
            got.map(|(got, _)| got)
        };
        let got = self.link.in_time(work).await;
        if is_an_answer(&got) {
            call.answered();
        }
        got
    }

    /// Has a queue left to itself that makes RabbitMQ end the connection.
    pub(crate) fn leave(&self, queue: &ShortString, error: &Error) {
        if told(error).is_some_and(|(code, _)| code == INTERNAL_ERROR)
            && let Ok(call) = self.circuits.enter(queue, self.losses())
        {
            call.waited_in_vain(Instant::now(), true);
        }
    }

    /// Gets up to `max` messages of a queue that was asked before, together with others who want some.
    pub(crate) async fn get_coalesced(
        self: &Arc<Self>,
        coalescer: &Arc<Coalescer>,
        queue: &ShortString,
        max: usize,
        visibility: Duration,
    ) -> Result<Vec<Got>> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let call = self.circuits.enter(queue, self.losses())?;
        if call.is_trial() {
            return self.get_by(call, queue, max, visibility, true).await;
        }
        let work = async {
            let direct = match coalescer.join(max, visibility) {
                Join::Direct(direct) => direct,
                Join::Wait(answered) => {
                    let mut waiting = Waiting {
                        held: &self.held,
                        answered,
                    };
                    match (&mut waiting.answered).await {
                        Ok(got) => return got,
                        Err(_) => coalescer.go(),
                    }
                }
            };
            let mut using = self.pick(Some(&call), false).await?;
            let got = self.get_some(&using.channel, queue, max, visibility).await;
            using.ends(&got);
            let (got, left) = got?;
            let bytes = got.first().map_or(0, |got| got.body.len());
            if direct.counted(left, bytes) {
                let (holder, queue) = (Arc::clone(self), queue.clone());
                tokio::spawn(holder.serve(SharedFetch(Arc::clone(coalescer)), queue));
            }
            Ok(got)
        };
        let got = self.link.in_time(work).await;
        if is_an_answer(&got) {
            call.answered();
        }
        got
    }

    /// Draws for those who wait in a line, until nobody does.
    async fn serve(self: Arc<Self>, shared: SharedFetch, queue: ShortString) {
        while !self.has_too_many_retiring()
            && let Some((requests, sum)) = shared.0.next()
        {
            match self
                .link
                .in_time(self.bulk_fetch(&shared.0, &queue, sum))
                .await
            {
                Ok((channel, fetched)) => self.distribute(&channel, &queue, requests, fetched),
                Err(error) => {
                    shared.0.lost_count();
                    for FetchRequest { answer, .. } in requests {
                        let same = Error::new(error.kind(), error.sentence().to_owned());
                        // Whoever asked may have gone.
                        answer.send(Err(same)).ok();
                    }
                }
            }
        }
    }

    async fn bulk_fetch(
        &self,
        coalescer: &Coalescer,
        queue: &ShortString,
        count: usize,
    ) -> Result<(Arc<HoldingChannel>, Vec<Delivery>)> {
        let mut using = self.pick(None, false).await?;
        let (fetched, failed) = using.channel.bulk_fetch(queue, count).await;
        let outcome = failed.map_or(Ok(()), Err);
        using.ends(&outcome);
        outcome.map_err(from_lapin)?;
        if fetched.len() < count {
            coalescer.lost_count();
        }
        Ok((Arc::clone(&using.channel), fetched))
    }

    fn distribute(
        &self,
        channel: &Arc<HoldingChannel>,
        queue: &ShortString,
        requests: Vec<FetchRequest>,
        fetched: Vec<Delivery>,
    ) {
        let consumer = fetched.first().map_or(0, |first| first.delivery_tag);
        let mut fetched = fetched.into_iter();
        for FetchRequest {
            max,
            visibility,
            answer,
        } in requests
        {
            let some = fetched.by_ref().take(max);
            let got =
                some.map(|delivery| self.track(channel, queue, delivery, visibility, consumer));
            let got: Vec<Got> = got.collect();
            if got.is_empty() {
                // Others were faster, and there may be more: he goes by himself, and hears the truth.
                continue;
            }
            if let Err(Ok(unwanted)) = answer.send(Ok(got)) {
                give_up(&self.held, &unwanted);
            }
        }
    }

    /// Whether so many channels are retiring that there are to be no more of them.
    fn has_too_many_retiring(&self) -> bool {
        let most = MAX_RETIRING.min(self.link.channel_max() / RETIRING_SHARE);
        let channels = self.channels();
        let retiring = channels.iter().filter(|it| it.is_retiring());
        retiring.filter(|it| !it.live.is_replaced()).count() >= most
    }

    /// Gets up to `max` messages, and says how many are left.
    async fn get_some(
        &self,
        channel: &Arc<HoldingChannel>,
        queue: &ShortString,
        max: usize,
        visibility: Duration,
    ) -> Result<(Vec<Got>, usize)> {
        let Some(first) = channel.get(queue).await.map_err(from_lapin)? else {
            return Ok((Vec::new(), 0));
        };
        // It says how many are left, so that nobody asks an empty queue in vain.
        let ready = first.message_count as usize;
        let left = ready.min(max - 1);
        let tag = first.delivery.delivery_tag;
        let mut got = vec![self.track(channel, queue, first.delivery, visibility, 0)];
        let ((more, failed), consumer) = if left < BULK_THRESHOLD {
            (channel.get_each(queue, left).await, 0)
        } else {
            (channel.bulk_fetch(queue, left).await, tag)
        };
        let more = more.into_iter();
        got.extend(more.map(|delivery| self.track(channel, queue, delivery, visibility, consumer)));
        failed.map_or(Ok((got, ready - left)), |error| Err(from_lapin(error)))
    }

    fn track(
        &self,
        channel: &Arc<HoldingChannel>,
        queue: &ShortString,
        delivery: Delivery,
        visibility: Duration,
        consumer: u64,
    ) -> Got {
        let tag = Tag {
            channel: channel.number,
            delivery: delivery.delivery_tag,
        };
        channel.received(delivery.delivery_tag, consumer);
        let now = self.held.now();
        let holding = Holding {
            channel: Arc::clone(channel),
            queue: queue.clone(),
            id: delivery
                .properties
                .message_id()
                .as_ref()
                .and_then(|id| Uuid::try_parse(id.as_str()).ok()),
            instead: None,
            wanted: now + visibility,
            cap: now + self.hold_cap,
        };
        self.held.insert(tag, holding);
        Got {
            tag,
            exchange: delivery.exchange,
            routing_key: delivery.routing_key,
            is_again: delivery.redelivered,
            properties: delivery.properties,
            body: delivery.data,
        }
    }

    /// The least busy channel, or a new one where all are busy and there may be one more.
    async fn pick<'a>(&'a self, call: Option<&'a Call<'a>>, isolated: bool) -> Result<Use<'a>> {
        let link = if isolated { &self.trying } else { &self.link };
        let channel = if isolated {
            self.open(link).await?
        } else if let Some(channel) = self.least_busy() {
            channel
        } else {
            let channel = self.open(link).await?;
            self.channels().push(Arc::clone(&channel));
            channel
        };
        Ok(Use {
            holder: self,
            link,
            call,
            begun: Instant::now(),
            answers: channel.live.answers(),
            channel,
            end: End::Late,
        })
    }

    fn least_busy(&self) -> Option<Arc<HoldingChannel>> {
        let busy = |it: &Arc<HoldingChannel>| it.busy.load(Ordering::Relaxed);
        let mut channels = self.channels();
        // One that is retiring stays as long as somebody has it, so that what it holds is known to be lost when it is.
        let wanted = |it: &Arc<HoldingChannel>| !it.is_retiring() || Arc::strong_count(it) > 1;
        channels.retain(|it| wanted(it) && (it.is_open() || self.lost(it)));
        let usable = || channels.iter().filter(|it| !it.is_retiring());
        let full = usable().count() >= self.limit.min(self.link.channel_max() / 2).max(1);
        let least = usable().min_by_key(|it| busy(it))?;
        let fits = !least.live.is_suspect() && (full || busy(least) == 0);
        fits.then(|| {
            least.busy.fetch_add(1, Ordering::Relaxed);
            Arc::clone(least)
        })
    }

    async fn open(&self, link: &ReconnectingConnection) -> Result<Arc<HoldingChannel>> {
        let (live, channel) = link.channel().await?;
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(HoldingChannel::new(number, live, channel)))
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
        self.settle(taken, Settle::Ack).await
    }

    /// Gives deliveries back, in their order, and waits until the broker has read that.
    pub(crate) async fn give_back(&self, taken: Vec<(Tag, Holding)>) -> Result<()> {
        self.settle(taken, Settle::GiveBack).await
    }

    async fn settle(&self, mut taken: Vec<(Tag, Holding)>, how: Settle) -> Result<()> {
        taken.sort_unstable_by_key(|(tag, _)| *tag);
        let sequences = match how {
            Settle::Ack => {
                let tags: Vec<Tag> = taken.iter().map(|(tag, _)| *tag).collect();
                let parts = tags.chunk_by(|one, next| one.channel == next.channel);
                parts.map(|part| vec![part.to_vec()]).collect()
            }
            Settle::GiveBack => {
                let backs = taken.iter().map(|(tag, holding)| Back {
                    tag: *tag,
                    queue: &holding.queue,
                    id: holding.id,
                });
                sequences(&backs.collect::<Vec<_>>())
            }
        };
        let channels = taken.iter().map(|(_, holding)| &holding.channel);
        let channels: HashMap<u64, Arc<HoldingChannel>> =
            channels.map(|it| (it.number, Arc::clone(it))).collect();
        // On tasks of their own: words that are broken off would leave others', which go out with them, unsaid.
        let work = sequences.into_iter().map(|runs| {
            let runs: Vec<_> = runs
                .into_iter()
                .filter_map(|run| {
                    let channel = channels.get(&run.first()?.channel)?;
                    let deliveries = run.iter().map(|tag| tag.delivery).collect();
                    Some((Arc::clone(channel), deliveries))
                })
                .collect();
            tokio::spawn(settle_runs(runs, how))
        });
        let work = join_all(work);
        let all = async {
            for settled in work.await {
                settled
                    .map_err(|error| {
                        Error::new(ErrorKind::Internal, "settling broke off").caused_by(error)
                    })?
                    .map_err(from_lapin)?;
            }
            Ok(())
        };
        self.link.in_time(all).await
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

/// Whether the queue has said anything: messages, or that it is refused.
fn is_an_answer<T>(outcome: &Result<T>) -> bool {
    let refused = |error: &Error| told(error).is_some_and(|(code, _)| code != INTERNAL_ERROR);
    outcome.as_ref().err().is_none_or(refused)
}

/// Settles deliveries of several channels, one run after another. One that fails holds up nobody but itself.
async fn settle_runs(runs: Vec<(Arc<HoldingChannel>, Vec<u64>)>, how: Settle) -> lapin::Result<()> {
    let mut settled = Ok(());
    for (channel, deliveries) in runs {
        // A channel that is closed holds nothing, and the broker has the messages back.
        if channel.is_open() {
            settled = settled.and(channel.settle(deliveries, how).await);
        }
    }
    settled
}
