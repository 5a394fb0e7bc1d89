//! The broker: every promise of [`LeaseBroker`], by RabbitMQ.

mod adoption;

use std::collections::{BTreeMap, HashMap};
use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use isimud_contract::{Capabilities, Clock, Delivery, Error, ErrorKind, QueueKey, Receipt, Result};
use isimud_lease::{Depth, Envelope, LeaseBroker};
use tokio::sync::RwLock;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use crate::config::Config;
use crate::connect::Connector;
use crate::control::{Control, Order, Settlement};
use crate::deadline::within;
use crate::doubts::Doubts;
use crate::error::{closed, full, is_missing, stalled, unroutable};
use crate::held::{Ended, Held, Holding, Tag};
use crate::holder::{Got, Holder};
use crate::message::{self, Natives};
use crate::names::{Address, Names};
use crate::publisher::{Outgoing, PublishOutcome, Publisher, Target};
use crate::queues::{IN_THE_MAKING, Known, Queues};
use crate::receipt;
use crate::reconnecting::ReconnectingConnection;

use self::adoption::Batch;

/// The largest message that every version of RabbitMQ takes, in bytes.
const MAX_MESSAGE_BYTES: u64 = 16 * 1024 * 1024;

/// Counts are right a few milliseconds later, and what a server gives back is in its queue then.
const MISSING_AFTER: Duration = Duration::from_secs(2);

/// What RabbitMQ can do by itself.
pub(crate) const CAPABILITIES: Capabilities = Capabilities {
    browse: false,
    largest_body: Some(MAX_MESSAGE_BYTES),
    ..Capabilities::FULL
};

/// Delivers the messages of RabbitMQ's queues.
pub struct AmqpBroker {
    inner: Arc<Inner>,
    tasks: [JoinHandle<()>; 2],
}

impl fmt::Debug for AmqpBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AmqpBroker({})", self.inner.server)
    }
}

impl Drop for AmqpBroker {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Deliveries that were taken out of what is held.
type Taken = Vec<(Tag, Holding)>;

#[derive(Debug)]
struct Inner {
    /// Names this life of this server.
    server: Uuid,
    names: Names,
    adopt: bool,
    max_held: usize,
    natives: Natives,
    take_over_at: Option<u64>,
    doubts: Doubts,
    opened: Instant,
    /// How long a call may take in all.
    timeout: Duration,
    clock: Arc<dyn Clock>,
    publisher: Arc<Publisher>,
    holder: Arc<Holder>,
    queues: Queues,
    control: Control,
    /// For questions and for other servers.
    questions: Arc<ReconnectingConnection>,
    /// Read by whoever receives. A close waits for them: what they get afterwards would go back out of order.
    is_open: RwLock<bool>,
}

impl AmqpBroker {
    /// Starts the broker. Connects nowhere yet: a RabbitMQ that is down is `Unavailable` call by call, and used when it
    /// is back. Needs a Tokio runtime around it; the clock dates messages that say nothing of their age.
    pub fn open(config: Config, clock: Arc<dyn Clock>) -> Result<Self> {
        config.check_files()?;
        let link = |name| {
            ReconnectingConnection::new(Connector::new(config.clone(), name), config.timeout)
        };
        let server = Uuid::now_v7();
        let publisher = Arc::new(Publisher::new(link("publishing")));
        let questions = Arc::new(link("asking"));
        let held = Held::new(config.by_service.then(|| Arc::clone(&clock)));
        let inner = Arc::new(Inner {
            server,
            adopt: config.adopt,
            max_held: config.max_held,
            natives: Natives {
                ttl: config.native_ttl,
                longest: None,
                keep_ids: config.keeps_native_ids,
            },
            take_over_at: config.take_over_at(),
            doubts: Doubts::default(),
            opened: Instant::now(),
            timeout: config.timeout,
            clock,
            holder: Arc::new(Holder::new(
                [link("holding"), link("trying")],
                held,
                config.channels,
                config.hold_cap,
            )),
            queues: Queues::new(Arc::clone(&questions), Arc::clone(&publisher), &config),
            control: Control::new(
                server,
                config.names.clone(),
                Arc::clone(&publisher),
                config.timeout,
            ),
            questions,
            is_open: RwLock::new(true),
            publisher,
            names: config.names,
        });
        let tasks = [
            tokio::spawn(end_holds(Arc::clone(&inner))),
            tokio::spawn(listen(Arc::clone(&inner))),
        ];
        Ok(Self { inner, tasks })
    }
}

/// Gives back what has been held for long enough.
async fn end_holds(inner: Arc<Inner>) {
    let held = &inner.holder.held;
    loop {
        let sooner = held.sooner.notified();
        match inner.end_due() {
            Some(next) => {
                let left = next.saturating_duration_since(held.now());
                tokio::select! {
                    () = tokio::time::sleep(left) => {}
                    () = sooner => {}
                }
            }
            None => sooner.await,
        }
    }
}

/// Carries out what other servers want.
async fn listen(inner: Arc<Inner>) {
    let carry_out = |order: Order| {
        let inner = Arc::clone(&inner);
        tokio::spawn(async move { inner.carry_out(order).await });
    };
    inner.control.listen(&inner.questions, carry_out).await;
}

/// Deliveries on their way to a caller. One who has gone gives them back.
struct ReleaseOnDrop {
    inner: Arc<Inner>,
    batch: Batch,
}

impl ReleaseOnDrop {
    fn keep(mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.batch).into_deliveries()
    }
}

impl Drop for ReleaseOnDrop {
    fn drop(&mut self) {
        let held = &self.inner.holder.held;
        held.extend(self.batch.tags(), held.now());
    }
}

impl Inner {
    async fn send(&self, queue: &QueueKey, batch: Vec<Envelope>) -> Result<()> {
        let address = self.names.of(queue)?;
        let known = self.queues.make(&address).await?;
        let outgoing: Vec<Outgoing> = batch
            .into_iter()
            .map(|envelope| {
                let (properties, body) = message::written(&envelope);
                Outgoing { properties, body }
            })
            .collect();
        let target = Target {
            exchange: address.exchange.clone(),
            routing_key: address.routing_key.clone(),
        };
        if self
            .publisher
            .publish(target.clone(), outgoing.clone())
            .await?
            == PublishOutcome::Stored
        {
            if address.is_direct() {
                known.has_confirmed(self.holder.losses());
            }
            return Ok(());
        }
        // The queue is gone since it was seen. Messages that were stored before it went are gone with it.
        self.queues.forget(&address);
        self.queues.make(&address).await?;
        match self.publisher.publish(target, outgoing).await? {
            PublishOutcome::Stored => Ok(()),
            PublishOutcome::Unroutable => Err(unroutable()),
        }
    }

    async fn receive(
        self: &Arc<Self>,
        queue: &QueueKey,
        max: usize,
        visibility: Duration,
    ) -> Result<ReleaseOnDrop> {
        let is_open = self.is_open.read().await;
        if !*is_open {
            return Err(closed());
        }
        self.end_due();
        let mut release_on_drop = ReleaseOnDrop {
            inner: Arc::clone(self),
            batch: Batch::default(),
        };
        let address = self.names.of(queue)?;
        let Some(known) = self.queues.find(&address).await? else {
            return Ok(release_on_drop);
        };
        self.control.ready().await;
        self.is_back(&address).await?;
        let max = max.min(self.max_held.saturating_sub(self.holder.held.len()));
        if max == 0 {
            return Err(full());
        }
        // With an error, or without a caller, it is given back.
        let batch = &mut release_on_drop.batch;
        let mut from_companion = Ok(());
        if known.companion.answers() {
            let got = self.holder.get(&address.companion, max, visibility, false);
            let got = self.unless_silent(&known, got).await;
            if got.as_ref().is_err_and(is_missing) {
                self.queues.forget(&address);
            } else if let Err(error) = &got {
                self.holder.leave(&address.companion, error);
            }
            match none_where_gone(got) {
                Ok(got) => {
                    known.companion.has_answered();
                    for got in got {
                        self.add(batch, &address, &known, true, got);
                    }
                }
                // What is in the queue itself need not wait for it.
                Err(error) => from_companion = Err(error.with("queue", &address.companion)),
            }
        } else if known.companion.is_there() {
            from_companion = Err(stalled().with("queue", &address.companion));
        }
        let room = max.saturating_sub(batch.len());
        let mut done = match self.get(&address, &known, room, visibility).await {
            Ok(got) => {
                for got in got {
                    self.add(batch, &address, &known, false, got);
                }
                Ok(())
            }
            Err(error) => Err(error),
        };
        done = done.and(self.take_over(&address, &known, batch, visibility).await);
        if batch.len() == 0 && !known.companion.is_passed_by(address.companion.as_str()) {
            // There may be something in the companion.
            done = done.and(from_companion);
        }
        done.map(|()| release_on_drop)
    }

    /// Gets messages from the queue itself.
    async fn get(
        &self,
        address: &Address,
        known: &Known,
        max: usize,
        visibility: Duration,
    ) -> Result<Vec<Got>> {
        let losses = self.holder.losses();
        if known.is_tried(losses) {
            let got = self
                .holder
                .get_coalesced(&known.coalescer, &address.queue, max, visibility);
            return self.unless_gone(address, got.await);
        }
        let mut got = self.holder.get(&address.queue, max, visibility, true).await;
        if got.is_err() {
            // Another server may be making it: RabbitMQ shows a quorum queue before it can be used.
            tokio::time::sleep(IN_THE_MAKING).await;
            got = self.holder.get(&address.queue, max, visibility, true).await;
            got = got.inspect_err(|error| self.holder.leave(&address.queue, error));
        }
        if got.is_ok() {
            known.has_answered(losses);
        }
        self.unless_gone(address, got)
    }

    /// A queue that somebody has deleted is empty, and asked for anew at the next call; so is one that failed, but not one
    /// that is slow.
    fn unless_gone(&self, address: &Address, got: Result<Vec<Got>>) -> Result<Vec<Got>> {
        let Err(error) = got else {
            return got;
        };
        // What the server or the client says is behind an error, and nothing is behind one of being late.
        if error.source().is_some() {
            self.queues.forget(address);
            self.queues.refused(address, &error);
        }
        none_where_gone(Err(error))
    }

    /// Has given back what has ended, each queue's by itself, and says when the next will end. Whoever receives from one of
    /// the queues waits for that (`is_back`); a queue that does not take back what it gave holds up nobody else.
    fn end_due(self: &Arc<Self>) -> Option<Instant> {
        let (ended, next) = self.holder.held.take_ended();
        for Ended { taken, returning } in ended {
            let inner = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(error) = inner.give_back(taken).await {
                    tracing::debug!(%error, "RabbitMQ takes back what has ended by itself");
                }
                drop(returning);
            });
        }
        next
    }

    /// Waits until what has ended of a queue is back.
    async fn is_back(&self, address: &Address) -> Result<()> {
        let back = async {
            for name in [&address.queue, &address.companion] {
                self.holder.held.is_back(name).await;
            }
            Ok(())
        };
        self.questions.in_time(back).await
    }

    /// Gives back deliveries. A copy whose lease has ended is published where its original came from; one whose lease
    /// goes on is published in the companion once more, where no native consumer finds it and nothing counts its returns.
    async fn give_back(&self, taken: Vec<(Tag, Holding)>) -> Result<()> {
        if taken.is_empty() {
            return Ok(());
        }
        let mut copies: HashMap<Target, (Vec<Outgoing>, Taken)> = HashMap::new();
        let mut others = Vec::new();
        for (tag, mut holding) in taken {
            let goes_on = holding.wanted > holding.cap;
            match holding.instead.take() {
                Some(instead) => {
                    let (mut target, message) = *instead;
                    if goes_on {
                        target = Target::queue(&holding.queue);
                    }
                    let (messages, held) = copies.entry(target).or_default();
                    messages.push(message);
                    held.push((tag, holding));
                }
                None => others.push((tag, holding)),
            }
        }
        for (target, (messages, held)) in copies {
            match self.publisher.publish(target, messages).await {
                Ok(PublishOutcome::Stored) => self.holder.ack(held).await?,
                Ok(PublishOutcome::Unroutable) | Err(_) => others.extend(held),
            }
        }
        self.holder.give_back(others).await
    }

    /// Sorts receipts by who holds what they name. What is no receipt is void.
    fn by_server(&self, receipts: &[Receipt]) -> (Vec<Tag>, BTreeMap<Uuid, Vec<Tag>>) {
        let mut ours = Vec::new();
        let mut theirs: BTreeMap<Uuid, Vec<Tag>> = BTreeMap::new();
        for (server, tag) in receipts.iter().filter_map(receipt::read) {
            if server == self.server {
                ours.push(tag);
            } else {
                theirs.entry(server).or_default().push(tag);
            }
        }
        (ours, theirs)
    }

    async fn settle(&self, receipts: &[Receipt], settlement: Settlement) -> Result<()> {
        let (ours, theirs) = self.by_server(receipts);
        let done = self.settle_ours(&ours, settlement).await;
        for (server, tags) in theirs {
            self.control.tell(server, settlement, &tags).await?;
        }
        done
    }

    async fn settle_ours(&self, tags: &[Tag], settlement: Settlement) -> Result<()> {
        let held = &self.holder.held;
        match settlement {
            Settlement::Ack => self.holder.ack(held.take(tags)).await,
            Settlement::Extend(visibility) => {
                held.extend(tags, held.now() + visibility);
                Ok(())
            }
            Settlement::Release => {
                let mut taken = held.take(tags);
                for (_, holding) in &mut taken {
                    holding.wanted = holding.wanted.min(holding.cap);
                }
                self.give_back(taken).await
            }
            Settlement::Done => Ok(()),
        }
    }

    async fn carry_out(&self, order: Order) {
        if let Err(error) = self.settle_ours(&order.tags, order.settlement).await {
            tracing::debug!(%error, "RabbitMQ takes back what another server asked for by itself");
        }
        if order.settlement == Settlement::Release {
            self.control.done(&order).await;
        }
    }

    async fn empty(&self, address: &Address) -> Result<()> {
        let held = &self.holder.held;
        let mut taken = held.take_queue(&address.queue);
        taken.extend(held.take_queue(&address.companion));
        self.queues.purge(address).await?;
        self.holder.ack(taken).await
    }

    async fn remove(&self, address: &Address) -> Result<()> {
        self.queues.forget(address);
        if address.is_adopted {
            return self.empty(address).await;
        }
        let held = &self.holder.held;
        let mut taken = held.take_queue(&address.queue);
        taken.extend(held.take_queue(&address.companion));
        self.queues.delete(address).await?;
        // RabbitMQ accepts this of a queue that is gone.
        self.holder.ack(taken).await
    }
}

/// A queue that is not there has no messages.
fn none_where_gone(got: Result<Vec<Got>>) -> Result<Vec<Got>> {
    match got {
        Err(error) if is_missing(&error) => Ok(Vec::new()),
        got => got,
    }
}

#[async_trait]
impl LeaseBroker for AmqpBroker {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn expires_messages(&self) -> bool {
        true
    }

    fn adopts(&self) -> bool {
        self.inner.adopt
    }

    fn missing_after(&self) -> Option<Duration> {
        Some(MISSING_AFTER)
    }

    fn time_limit(&self) -> Duration {
        self.inner.timeout
    }

    async fn ping(&self) -> Result<()> {
        within(self.inner.timeout, self.inner.queues.ping()).await
    }

    async fn can_send(&self, queue: &QueueKey) -> Result<()> {
        let address = self.inner.names.of(queue)?;
        within(self.inner.timeout, self.inner.queues.check(&address)).await
    }

    async fn send(&self, queue: &QueueKey, batch: Vec<Envelope>) -> Result<()> {
        within(self.inner.timeout, self.inner.send(queue, batch)).await
    }

    async fn receive(
        &self,
        queue: &QueueKey,
        max: usize,
        visibility: Duration,
    ) -> Result<Vec<Delivery>> {
        // On a task of its own: what RabbitMQ has delivered must be held by somebody, also when the caller has gone.
        let (inner, queue) = (Arc::clone(&self.inner), queue.clone());
        let work = tokio::spawn(async move {
            within(inner.timeout, inner.receive(&queue, max, visibility)).await
        });
        let caught = work.await.map_err(|error| {
            Error::new(ErrorKind::Internal, "receiving broke off").caused_by(error)
        })?;
        Ok(caught?.keep())
    }

    async fn extend(&self, _: &QueueKey, receipts: &[Receipt], visibility: Duration) -> Result<()> {
        let told = self.inner.settle(receipts, Settlement::Extend(visibility));
        within(self.inner.timeout, told).await
    }

    async fn ack(&self, _: &QueueKey, receipts: &[Receipt]) -> Result<()> {
        let told = self.inner.settle(receipts, Settlement::Ack);
        within(self.inner.timeout, told).await
    }

    async fn release(&self, _: &QueueKey, receipts: &[Receipt]) -> Result<()> {
        let told = self.inner.settle(receipts, Settlement::Release);
        within(self.inner.timeout, told).await
    }

    async fn depth(&self, queue: &QueueKey) -> Result<Depth> {
        let address = self.inner.names.of(queue)?;
        let counted = async {
            self.inner.end_due();
            self.inner.is_back(&address).await?;
            let silent = self.inner.silent_part(&address).await?;
            let ready = self.inner.queues.ready(&address, silent.is_none()).await?;
            Ok((ready, silent))
        };
        let (ready, silent) = within(self.inner.timeout, counted).await?;
        // AMQP does not tell what other servers and native consumers hold.
        let held = &self.inner.holder.held;
        Ok(Depth {
            ready,
            held: None,
            held_here: held.count(&[&address.queue, &address.companion]),
            silent,
        })
    }

    async fn purge(&self, queue: &QueueKey) -> Result<()> {
        let address = self.inner.names.of(queue)?;
        within(self.inner.timeout, self.inner.empty(&address)).await
    }

    async fn drop_queue(&self, queue: &QueueKey) -> Result<()> {
        let address = self.inner.names.of(queue)?;
        within(self.inner.timeout, self.inner.remove(&address)).await
    }

    async fn close(&self) -> Result<()> {
        for task in &self.tasks {
            task.abort();
        }
        let receiving = self.inner.is_open.write();
        if let Ok(mut is_open) = tokio::time::timeout(self.inner.timeout, receiving).await {
            *is_open = false;
        }
        self.inner.holder.close().await;
        self.inner.publisher.close().await;
        self.inner.queues.close();
        self.inner.questions.close().await;
        Ok(())
    }
}
