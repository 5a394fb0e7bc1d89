//! A broker and a ledger as one store.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use isimud_contract::{
    Backlog, ByteCount, Capabilities, Claim, ClaimId, Clock, Condition, Epoch, Error, ErrorKind,
    ImportedClaim, Lease, Ledger, Message, MessageId, MessageStore, Page, Precondition, Purpose,
    QueueKey, Receipt, Result, Selection, Stats, Timestamp, UnknownIds,
};

use crate::begun::Begun;
use crate::broker::{Envelope, LeaseBroker};
use crate::budget::Budget;
use crate::dropped::Dropped;
use crate::hints::Hints;
use crate::missing::{self, Missing};
use crate::room::{Rooms, UnderWay};

/// Whether the ledger gets a row for every message when it is posted, and not only when it is first delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Journal {
    /// It does: messages can be listed, read and deleted by id, and counted exactly.
    On,
    /// It does not, and a post costs the broker alone.
    Off,
}

/// Queues whose epoch is remembered, at the most. Beyond it all are forgotten, and asked for again.
const CACHE_CAPACITY: usize = 100_000;

/// How often a post is sent again because its queue was purged meanwhile.
const MAX_REPOSTS: usize = 100;

/// How long a pop has the broker hold a message: time to delete and to settle it.
const POP_VISIBILITY: Duration = Duration::from_secs(30);

/// Queues of which something is the matter, so that the log tells of it once.
#[derive(Debug, Default)]
pub(crate) struct Stuck(Mutex<HashSet<QueueKey>>);

impl Stuck {
    /// Whether it was not the matter before.
    pub(crate) fn begins(&self, queue: &QueueKey) -> bool {
        let mut stuck = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if stuck.len() >= CACHE_CAPACITY {
            stuck.clear();
        }
        stuck.insert(queue.clone())
    }

    pub(crate) fn over(&self, queue: &QueueKey) {
        let mut stuck = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stuck.remove(queue);
    }
}

/// A whole store, made of a broker that can only lease and a ledger that decides. See the crate's docs.
#[derive(Debug)]
pub struct Leased<B> {
    pub(crate) broker: Arc<B>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) hints: Arc<Hints>,
    pub(crate) missing: Arc<Missing<B>>,
    /// Queues whose dead letters cannot be sent.
    pub(crate) stuck: Arc<Stuck>,
    pub(crate) dropped: Arc<Dropped>,
    begun: Begun,
    pub(crate) journal: Journal,
    rooms: Arc<Rooms>,
    epochs: Arc<Mutex<HashMap<QueueKey, Epoch>>>,
    closed: Arc<AtomicBool>,
}

impl<B: LeaseBroker> Leased<B> {
    /// Completes a broker. The ledger is that of the pool, and stays open when this store is closed; the clock is this
    /// server's, and dates what it posts.
    pub fn new(
        broker: B,
        ledger: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
        journal: Journal,
    ) -> Self {
        let broker = Arc::new(broker);
        Self {
            missing: Arc::new(Missing::new(Arc::clone(&broker), Arc::clone(&ledger))),
            stuck: Arc::default(),
            dropped: Arc::default(),
            broker,
            ledger,
            clock,
            hints: Arc::default(),
            begun: Begun::default(),
            journal,
            rooms: Arc::default(),
            epochs: Arc::default(),
            closed: Arc::default(),
        }
    }

    /// Finishes work on this store once it was begun, whether or not the caller waits for it.
    pub(crate) async fn finish<T, W>(&self, work: impl FnOnce(Self) -> W) -> Result<T>
    where
        T: Send + 'static,
        W: Future<Output = Result<T>> + Send + 'static,
    {
        let same = Self {
            broker: Arc::clone(&self.broker),
            ledger: Arc::clone(&self.ledger),
            clock: Arc::clone(&self.clock),
            hints: Arc::clone(&self.hints),
            missing: Arc::clone(&self.missing),
            stuck: Arc::clone(&self.stuck),
            dropped: Arc::clone(&self.dropped),
            begun: self.begun.clone(),
            journal: self.journal,
            rooms: Arc::clone(&self.rooms),
            epochs: Arc::clone(&self.epochs),
            closed: Arc::clone(&self.closed),
        };
        self.begun.finish(work(same)).await
    }

    pub(crate) fn has_journal(&self) -> bool {
        self.journal == Journal::On
    }

    /// The time of a call that begins now.
    pub(crate) fn budget(&self) -> Budget {
        Budget::new(self.broker.time_limit())
    }

    fn open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            let sentence = "the store is closed";
            return Err(Error::new(ErrorKind::Unavailable, sentence));
        }
        Ok(())
    }

    /// Refuses what needs a row for every message.
    fn journaled(&self, what: &str) -> Result<()> {
        self.open()?;
        match self.journal {
            Journal::On => Ok(()),
            Journal::Off => {
                let sentence = format!(
                    "this pool cannot {what}: its option 'journal' is off, and so it does not know the messages that nobody has claimed"
                );
                Err(Error::new(ErrorKind::Unsupported, sentence))
            }
        }
    }

    fn check_claim_ttl(&self, lease: &Lease) -> Result<()> {
        self.open()?;
        let longest = self.broker.capabilities().longest_claim;
        within(lease.ttl, longest, "hold a claim for so long")
    }

    /// Sends messages and, with the journal, has them recorded. The order is this one because a message that is
    /// recorded and was never sent would be listed until it ends. A failure of either leaves open what was posted, and
    /// the whole may be repeated: by their ids the copies are one message. Their ages and lives are those of the moment
    /// `as_of`.
    pub(crate) async fn dispatch(
        &self,
        queue: &QueueKey,
        mut as_of: Timestamp,
        mut messages: Vec<Message>,
    ) -> Result<()> {
        if self.journal == Journal::Off {
            return self.broker.send(queue, envelopes(as_of, messages)).await;
        }
        // What has been on its way before is older by every way that it goes.
        let is_old = messages.iter().any(|message| message.transfers > 0);
        let on_its_way = if is_old {
            Duration::ZERO
        } else {
            SEND_ALLOWANCE
        };
        let mut grow_older = |messages: Vec<Message>| {
            let now = self.clock.now();
            let span = now.since(as_of);
            if span <= on_its_way {
                return (as_of, messages);
            }
            as_of = now;
            (now, messages.into_iter().map(|it| it.later(span)).collect())
        };
        for _ in 0..MAX_REPOSTS {
            let epoch = self.epoch(queue).await?;
            let sent;
            (sent, messages) = grow_older(messages);
            self.broker
                .send(queue, envelopes(sent, messages.clone()))
                .await?;
            let as_of;
            (as_of, messages) = grow_older(messages);
            let recorded = self.ledger.record(queue, Some(epoch), as_of, &messages);
            let present = recorded.await?;
            if present == epoch {
                return Ok(());
            }
            self.remember(queue, present);
        }
        let sentence = "the queue was purged again and again while messages were posted";
        Err(Error::new(ErrorKind::Unavailable, sentence))
    }

    /// The epoch of a queue, as this server last heard of it.
    async fn epoch(&self, queue: &QueueKey) -> Result<Epoch> {
        if let Some(epoch) = self.epochs().get(queue) {
            return Ok(*epoch);
        }
        let epoch = self
            .ledger
            .record(queue, None, self.clock.now(), &[])
            .await?;
        self.remember(queue, epoch);
        Ok(epoch)
    }

    fn remember(&self, queue: &QueueKey, epoch: Epoch) {
        let mut epochs = self.epochs();
        if epochs.len() >= CACHE_CAPACITY {
            epochs.clear();
        }
        epochs.insert(queue.clone(), epoch);
    }

    fn epochs(&self) -> std::sync::MutexGuard<'_, HashMap<QueueKey, Epoch>> {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends copies of messages that live longer now than a broker was told that expires messages by itself. The old
    /// ones, which the caller settles, would take the messages with them.
    pub(crate) async fn copy(
        &self,
        queue: &QueueKey,
        now: Timestamp,
        longer: Vec<Message>,
    ) -> Result<()> {
        if longer.is_empty() {
            return Ok(());
        }
        let queue = queue.clone();
        let copy = |store: Self| async move {
            let copies = envelopes(now, longer.clone());
            store.broker.send(&queue, copies).await?;
            store.ledger.record(&queue, None, now, &longer).await?;
            Ok(())
        };
        self.finish(copy).await
    }

    /// Has the broker forget deliveries.
    async fn ack(&self, queue: &QueueKey, receipts: Vec<Receipt>) {
        if receipts.is_empty() {
            return;
        }
        let (broker, on) = (Arc::clone(&self.broker), queue.clone());
        let work = async move { broker.ack(&on, &receipts).await };
        self.hints.hint(queue, work).await;
    }

    /// Ends a claim, and has the broker deliver again what it held.
    pub(crate) async fn end_claim(&self, queue: &QueueKey, claim: ClaimId) -> Result<()> {
        let receipts = self.ledger.release(queue, claim).await?;
        self.redeliver(queue, receipts).await
    }

    /// Has the broker deliver again what an ended claim held.
    async fn redeliver(&self, queue: &QueueKey, receipts: Vec<Receipt>) -> Result<()> {
        let budget = self.budget();
        if !receipts.is_empty() {
            let (broker, on) = (Arc::clone(&self.broker), queue.clone());
            let work = async move { broker.release(&on, &receipts).await };
            self.hints.free(queue, budget, work).await;
        }
        Ok(())
    }

    /// Finds out from the ledger whether a queue has room below a bound for messages that this server does not know to fit.
    /// `Full` where it has not.
    async fn find_room<'a>(
        &'a self,
        queue: &'a QueueKey,
        messages: &[Message],
        most: u64,
    ) -> Result<UnderWay<'a>> {
        let asked = self.rooms.ask(queue);
        let stats = self.ledger.stats(queue).await?;
        let count = stats.free + stats.claimed;
        let more = messages.len() as u64;
        if let Some(let_in) = asked.let_in(count, more, most) {
            return Ok(let_in);
        }
        // What it has already is not counted anew.
        let ids: HashSet<MessageId> = messages.iter().map(|message| message.id).collect();
        let ids: Vec<MessageId> = ids.into_iter().collect();
        let known = self.ledger.get(queue, &ids).await?.len();
        let new = ids.len().saturating_sub(known) as u64;
        match asked.let_in(count, new, most) {
            Some(let_in) => Ok(let_in),
            None if new == 0 => Ok(self.rooms.nothing(queue)),
            None => Err(Error::full(most)),
        }
    }

    /// Counts what is in a queue that native clients use, too. A count that lacks messages of the ledger is given a moment
    /// to come right; should they be missing then, natives have taken them.
    async fn shared_stats(&self, queue: &QueueKey) -> Result<Stats> {
        let mut recounted = false;
        loop {
            let (depth, mut known) =
                tokio::try_join!(self.broker.depth(queue), self.ledger.stats(queue))?;
            let free = missing::free(known.free, known.claimed, &depth);
            if free < known.free {
                if depth.held.is_some() {
                    // Its counts are late by more than a moment.
                    self.missing.compare(queue, &depth).await?;
                    return Ok(known);
                }
                if !recounted {
                    recounted = true;
                    tokio::time::sleep(missing::RECOUNT_DELAY).await;
                    continue;
                }
                self.missing.compare(queue, &depth).await?;
            }
            known.free = free;
            if free + known.claimed == 0 {
                (known.oldest, known.newest) = (None, None);
            }
            return Ok(known);
        }
    }

    /// Purges the ledger, then the broker, then what was posted in between: a message that lost its place in the
    /// broker must not stay listed, and where the second step fails the first has taken all that had a row.
    async fn clear(&self, queue: &QueueKey, whole: bool) -> Result<()> {
        self.ledger.purge(queue).await?;
        if whole {
            self.broker.drop_queue(queue).await?;
        } else {
            self.broker.purge(queue).await?;
        }
        if self.journal == Journal::On {
            self.ledger.purge(queue).await?;
            self.epochs().remove(queue);
        }
        self.missing.clear(queue);
        Ok(())
    }
}

/// What any message needs on its way to the broker, and is not taken off its life.
const SEND_ALLOWANCE: Duration = Duration::from_millis(100);

/// Refuses what is beyond the broker.
fn within<T: PartialOrd>(wanted: T, limit: Option<T>, what: &str) -> Result<()> {
    if limit.is_some_and(|limit| wanted > limit) {
        let sentence = format!("the broker of this pool cannot {what}");
        return Err(Error::new(ErrorKind::Unsupported, sentence));
    }
    Ok(())
}

fn envelopes(posted: Timestamp, messages: Vec<Message>) -> Vec<Envelope> {
    let envelope = |message| Envelope { message, posted };
    messages.into_iter().map(envelope).collect()
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: LeaseBroker> MessageStore for Leased<B> {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            claims: true,
            at_least_once: true,
            browse: self.journal == Journal::On,
            deduplicates: true,
            adopts: self.broker.adopts(),
            ..self.broker.capabilities()
        }
    }

    fn condition(&self) -> Condition {
        Condition {
            dropped: self.dropped.count(),
            ..Condition::default()
        }
    }

    async fn ping(&self) -> Result<()> {
        self.open()?;
        tokio::try_join!(self.broker.ping(), self.ledger.ping())?;
        Ok(())
    }

    async fn can_post(&self, queue: &QueueKey) -> Result<()> {
        self.open()?;
        match self.broker.adopts() {
            true => self.broker.can_send(queue).await,
            false => Ok(()),
        }
    }

    async fn post(&self, queue: &QueueKey, mut messages: Vec<Message>) -> Result<()> {
        self.open()?;
        let limits = self.broker.capabilities();
        for message in &mut messages {
            within(message.size(), limits.largest_body, "keep so large a body")?;
            let delay = message.delay;
            within(delay, limits.longest_delay, "delay a message for so long")?;
            message.claim = None;
        }
        if messages.is_empty() {
            return Ok(());
        }
        let queue = queue.clone();
        let now = self.clock.now();
        let post = |store: Self| async move { store.dispatch(&queue, now, messages).await };
        self.budget().step(self.finish(post)).await
    }

    async fn post_within(&self, queue: &QueueKey, messages: Vec<Message>, most: u64) -> Result<()> {
        self.journaled("keep to a number of messages")?;
        let more = messages.len() as u64;
        let _under_way = match self.rooms.let_in(queue, more, most) {
            Some(let_in) => let_in,
            None => self.find_room(queue, &messages, most).await?,
        };
        self.post(queue, messages).await
    }

    async fn list(&self, queue: &QueueKey, selection: Selection) -> Result<Page> {
        self.journaled("list messages")?;
        self.ledger.list(queue, selection).await
    }

    async fn get(&self, queue: &QueueKey, ids: &[MessageId]) -> Result<Vec<Message>> {
        self.journaled("read messages by id")?;
        self.ledger.get(queue, ids).await
    }

    async fn delete(
        &self,
        queue: &QueueKey,
        ids: &[MessageId],
        precondition: Precondition,
    ) -> Result<usize> {
        self.open()?;
        // What a claim holds, or held, has a row.
        let unknown_ids = match self.journal {
            Journal::On => UnknownIds::Ignore,
            Journal::Off => UnknownIds::Reject,
        };
        let deleted = self
            .ledger
            .delete(queue, ids, precondition, unknown_ids)
            .await;
        let (count, receipts) = match deleted {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                self.journaled("delete messages that were never claimed")?;
                return Err(error);
            }
            deleted => deleted?,
        };
        self.ack(queue, receipts).await;
        Ok(count)
    }

    async fn pop(&self, queue: &QueueKey, limit: usize) -> Result<Vec<Message>> {
        self.open()?;
        self.take(queue, Purpose::Pop, limit, POP_VISIBILITY).await
    }

    async fn claim(&self, queue: &QueueKey, lease: &Lease, limit: usize) -> Result<Option<Claim>> {
        self.check_claim_ttl(lease)?;
        let purpose = Purpose::Claim(lease);
        let messages = self.take(queue, purpose, limit, lease.ttl).await?;
        let claim = Claim {
            id: lease.id,
            ttl: lease.ttl,
            age: Duration::ZERO,
            messages,
        };
        Ok((!claim.messages.is_empty()).then_some(claim))
    }

    async fn find_claim(&self, queue: &QueueKey, claim: ClaimId) -> Result<Claim> {
        self.open()?;
        self.ledger.find_claim(queue, claim).await
    }

    async fn renew_claim(&self, queue: &QueueKey, lease: &Lease) -> Result<()> {
        self.check_claim_ttl(lease)?;
        let (now, budget) = (self.clock.now(), self.budget());
        let mut renewed = self.ledger.renew(queue, lease, now).await?;
        let mut settled = Vec::new();
        if self.broker.expires_messages() {
            let (longer, old): (Vec<_>, Vec<_>) = renewed.longer.into_iter().unzip();
            settled.extend(old.into_iter().flatten());
            renewed.receipts.retain(|kept| !settled.contains(kept));
            budget.step(self.copy(queue, now, longer)).await?;
        }
        let (broker, on, ttl) = (Arc::clone(&self.broker), queue.clone(), lease.ttl);
        let work = async move {
            let mut told = Ok(());
            if !settled.is_empty() {
                told = broker.ack(&on, &settled).await;
            }
            if !renewed.receipts.is_empty() {
                told = told.and(broker.extend(&on, &renewed.receipts, ttl).await);
            }
            told
        };
        self.hints.hint(queue, work).await;
        Ok(())
    }

    async fn release_claim(&self, queue: &QueueKey, claim: ClaimId) -> Result<()> {
        self.open()?;
        self.end_claim(queue, claim).await
    }

    async fn undo_claim(&self, queue: &QueueKey, claim: ClaimId, counted: bool) -> Result<()> {
        self.open()?;
        if !counted {
            return self.end_claim(queue, claim).await;
        }
        let receipts = self.ledger.undo(queue, claim).await?;
        self.redeliver(queue, receipts).await
    }

    async fn import_claim(
        &self,
        queue: &QueueKey,
        claim: ImportedClaim,
        ids: &[MessageId],
    ) -> Result<usize> {
        // The broker is not told: it delivers them, and the ledger holds them back.
        self.journaled("take over claims")?;
        self.ledger.import_claim(queue, claim, ids).await
    }

    async fn backlog(&self, queue: &QueueKey) -> Result<Backlog> {
        self.open()?;
        let (depth, mut known) =
            tokio::try_join!(self.broker.depth(queue), self.ledger.stats(queue))?;
        if let Some(silent) = depth.silent {
            return Err(Error::new(ErrorKind::Unavailable, silent));
        }
        // What others hold unsettled may come back.
        let held = depth.held.unwrap_or(0).saturating_sub(known.claimed);
        let at_broker = depth.ready + held;
        if at_broker < known.free && self.missing.compare(queue, &depth).await? > 0 {
            known = self.ledger.stats(queue).await?;
        }
        Ok(Backlog {
            free: at_broker.max(match self.journal {
                Journal::On => known.free,
                Journal::Off => 0,
            }),
            claimed: known.claimed,
        })
    }

    async fn stats(&self, queue: &QueueKey) -> Result<Stats> {
        self.open()?;
        if self.journal == Journal::On {
            // Of the parts of a queue that moves natives know nothing, and the ledger everything.
            let is_shared = self.broker.adopts() && !queue.name.has_generation();
            return match is_shared {
                true => self.shared_stats(queue).await,
                false => self.ledger.stats(queue).await,
            };
        }
        let (depth, known) = tokio::try_join!(self.broker.depth(queue), self.ledger.stats(queue))?;
        Ok(Stats {
            free: match depth.held {
                Some(held) => (depth.ready + held).saturating_sub(known.claimed),
                None => depth.ready,
            },
            claimed: known.claimed,
            oldest: None,
            newest: None,
            last_arrival: 0,
        })
    }

    async fn count_bytes(&self, queue: &QueueKey, after: Option<u64>) -> Result<ByteCount> {
        self.journaled("count bytes")?;
        self.ledger.count_bytes(queue, after).await
    }

    async fn purge(&self, queue: &QueueKey) -> Result<()> {
        self.open()?;
        let queue = queue.clone();
        let clear = |store: Self| async move { store.clear(&queue, false).await };
        self.finish(clear).await
    }

    async fn drop_queue(&self, queue: &QueueKey) -> Result<()> {
        self.open()?;
        let queue = queue.clone();
        let clear = |store: Self| async move { store.clear(&queue, true).await };
        self.finish(clear).await
    }

    async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        self.begun.settle().await;
        self.hints.settle().await;
        self.broker.close().await
    }
}
