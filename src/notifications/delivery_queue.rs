//! The delivery queue of one subscription: what it is to get, in order.
//!
//! A delivery queue is kept in two queues: what waits for its turn, and what failed and waits for its time. While there
//! is anything in them a token in the list of the shard says so; it is written before the first entry and deleted,
//! under the queue's lock, when both are empty. So whoever takes the shard over finds every queue that has something in
//! it.

mod deliver;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use isimud_contract::{
    ClientId, Error, ErrorKind, Message, MessageId, Precondition, ProjectId, QueueKey, QueueName,
    Result, Selection, Subscription, SubscriptionId,
};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::Deliveries;
use super::attempt_markers::{AttemptMarkers, Running, withdraw};
use super::budget::{Budget, Spent};
use super::entry::Entry;

/// How many notifications of a subscription may be in back-off at once.
pub(crate) const MAX_IN_BACKOFF: usize = 32;
/// How many are read at once, at the most.
const MAX_BATCH: usize = 100;
/// Bytes that a batch is to have, by the size of what came before.
const BATCH_BYTES: usize = 1 << 20;
/// How many entries of a queue that was taken over may have been under way before: a batch, and those in back-off.
const SUSPECTS: usize = MAX_BATCH + MAX_IN_BACKOFF;
/// How long a queue without work is kept, so that the next notification finds it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// For how long a subscription is not read again.
const SUBSCRIPTION_CACHE_TTL: Duration = Duration::from_secs(1);
/// How long what is delivered may still be in the queue: it is delivered again if the server dies meanwhile.
const FLUSH_INTERVAL: Duration = Duration::from_millis(500);
/// A pause after the store did not answer.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// The life of a token: longer than any notification's.
const TOKEN_TTL: Duration = Duration::from_hours(24 * 366);

/// The queues of one shard that have something in them.
#[derive(Debug)]
pub(crate) struct DeliveryQueues {
    deliveries: Arc<Deliveries>,
    /// Where their tokens are.
    pub(crate) pending: QueueKey,
    open: Mutex<HashMap<SubscriptionId, Arc<DeliveryQueue>>>,
    tasks: Mutex<tokio::task::JoinSet<()>>,
    /// Marks of attempts that run.
    running: Running,
    stop: watch::Receiver<bool>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct DeliveryQueue {
    source: QueueKey,
    id: SubscriptionId,
    /// What waits for its turn.
    deliveries: QueueKey,
    /// What waits for its time.
    retries: QueueKey,
    /// What is being sent, where that may have ended the process before.
    markers: QueueKey,
    /// Whether its token is written and its task runs. Held while entries are added and while the queue is closed.
    is_open: tokio::sync::Mutex<bool>,
    wake: Notify,
}

impl DeliveryQueue {
    fn new(source: &QueueKey, id: SubscriptionId) -> Self {
        let queue = |kind: &str| {
            let name = QueueName::parse(&format!("{kind}.{id}")).expect("the name of a queue");
            QueueKey::new(source.project.clone(), QueueName::internal(&name))
        };
        Self {
            source: source.clone(),
            id,
            deliveries: queue("deliveries"),
            retries: queue("retries"),
            markers: queue("begun"),
            is_open: tokio::sync::Mutex::new(false),
            wake: Notify::new(),
        }
    }

    /// The token that says that the queue has something in it.
    fn token(&self) -> Message {
        let text = json!([
            self.source.project.as_str(),
            self.source.name.as_str(),
            self.id.0
        ]);
        let nobody = ClientId::Uuid(Uuid::nil());
        Message::new(MessageId(self.id.0), nobody, TOKEN_TTL, text.to_string())
    }

    /// Reads a token.
    fn of_token(text: &Bytes) -> Option<Self> {
        let (project, queue, id): (String, String, Uuid) = serde_json::from_slice(text).ok()?;
        let project = isimud_contract::ProjectId::parse(&project).ok()?;
        let source = QueueKey::new(project, QueueName::parse_stored(&queue).ok()?);
        Some(Self::new(&source, SubscriptionId(id)))
    }

    /// The name of an entry in the queue: another one for each time that it failed.
    fn name(&self, entry: &Entry) -> MessageId {
        let mut name = entry.id.0.into_bytes().to_vec();
        name.extend(entry.failed.to_be_bytes());
        MessageId(Uuid::new_v5(&self.id.0, &name))
    }
}

impl DeliveryQueues {
    pub(crate) fn new(
        deliveries: Arc<Deliveries>,
        pending: QueueKey,
        stop: watch::Receiver<bool>,
    ) -> Arc<Self> {
        Arc::new(Self {
            deliveries,
            pending,
            open: Mutex::default(),
            tasks: Mutex::default(),
            running: Running::default(),
            stop,
        })
    }

    /// Opens the queues that have something in them, after whoever held the shard before.
    pub(crate) async fn reopen(self: &Arc<Self>) -> Result<()> {
        let mut after = None;
        loop {
            let page = self
                .deliveries
                .list(&self.pending, after, MAX_BATCH, true)
                .await?;
            for queue in page
                .messages
                .iter()
                .filter_map(|token| DeliveryQueue::of_token(&token.body))
            {
                let queue = self.queue(&queue.source, queue.id);
                *queue.is_open.lock().await = true;
                self.start(queue, SUSPECTS);
            }
            after = page.marker;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Adds entries to a subscription's line. When it returns they are kept.
    pub(crate) async fn add(
        self: &Arc<Self>,
        source: &QueueKey,
        id: SubscriptionId,
        entries: &[(Entry, Message)],
    ) -> Result<()> {
        let queue = self.queue(source, id);
        let mut is_open = queue.is_open.lock().await;
        let store = self.deliveries.store();
        if !*is_open {
            store.post(&self.pending, vec![queue.token()]).await?;
            *is_open = true;
            self.start(Arc::clone(&queue), 0);
        }
        let messages = entries.iter().map(|(entry, kept)| {
            // The text is the one of the outbox: the entry has not changed.
            let nobody = ClientId::Uuid(Uuid::nil());
            Message::new(
                queue.name(entry),
                nobody,
                kept.remaining_ttl,
                kept.body.clone(),
            )
        });
        store.post(&queue.deliveries, messages.collect()).await?;
        drop(is_open);
        queue.wake.notify_one();
        Ok(())
    }

    fn queue(&self, source: &QueueKey, id: SubscriptionId) -> Arc<DeliveryQueue> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = open
            .entry(id)
            .or_insert_with(|| Arc::new(DeliveryQueue::new(source, id)));
        Arc::clone(queue)
    }

    /// Runs a queue whose token is written, and whose first entries may have ended the process before.
    fn start(self: &Arc<Self>, queue: Arc<DeliveryQueue>, suspects: usize) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(queue.id, Arc::clone(&queue));
        drop(open);
        let worker = DeliveryWorker {
            queues: Arc::clone(self),
            queue,
            cached: None,
            is_failing: false,
            batch: 1,
            has_retries: true,
            suspects,
            markers: None,
        };
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(worker.run());
    }

    /// Whether no line has anything in it.
    pub(crate) fn are_idle(&self) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.is_empty()
    }

    /// Waits until every queue has finished what it is at.
    pub(crate) async fn finish(&self) {
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
    }

    /// Ends every queue where it is. That is nothing that a notification did.
    pub(crate) async fn abort(&self) {
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .abort_all();
        withdraw(&self.deliveries, &self.running).await;
    }
}

/// Delivers what is in the queue.
struct DeliveryWorker {
    queues: Arc<DeliveryQueues>,
    queue: Arc<DeliveryQueue>,
    /// The subscription as it was read a moment ago, and when.
    cached: Option<(Instant, Arc<Subscription>)>,
    /// The last attempt failed.
    is_failing: bool,
    /// How many entries the next batch may have.
    batch: usize,
    /// Something may be in back-off.
    has_retries: bool,
    /// How many of the next entries are marked while they are sent.
    suspects: usize,
    /// Their marks, once they are read.
    markers: Option<AttemptMarkers>,
}

/// What is to be done with an entry now.
enum Step {
    /// It is finished with.
    Done,
    /// It is to be tried again later, with so many attempts behind it.
    Retry(usize, Duration),
    /// The service stops, or the subscription has gone.
    Stopped,
}

/// How far a look at the queue came.
enum Polled {
    /// There may be more.
    More,
    /// There is nothing to do before this long; never, if there is nothing at all.
    Idle(Option<Duration>),
    /// The delivery queue has ended.
    Closed,
}

impl DeliveryWorker {
    async fn run(mut self) {
        loop {
            if self.stops() {
                return;
            }
            match self.poll().await {
                Ok(Polled::More) => {}
                Ok(Polled::Closed) => return,
                Ok(Polled::Idle(due)) => {
                    // There may be many that wait, and what they know has a size.
                    self.cached = None;
                    let woken = timeout(
                        due.unwrap_or(IDLE_TIMEOUT).min(IDLE_TIMEOUT),
                        self.queue.wake.notified(),
                    );
                    let mut stop = self.queues.stop.clone();
                    let is_over = tokio::select! {
                        woken = woken => woken.is_err() && due.is_none(),
                        _ = stop.wait_for(|stop| *stop) => return,
                    };
                    if is_over && self.close().await {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, subscription = %self.queue.id, "cannot read or write notifications, retrying");
                    sleep(RETRY_DELAY).await;
                }
            }
        }
    }

    fn stops(&self) -> bool {
        *self.queues.stop.borrow()
    }

    fn deliveries(&self) -> &Arc<Deliveries> {
        &self.queues.deliveries
    }

    /// Works off what is due: first what was in back-off, then what waits for its turn.
    async fn poll(&mut self) -> Result<Polled> {
        if self.subscription().await?.is_none() {
            return self.remove().await;
        }
        let (retries, mut spent) = self.read_retries().await?;
        let next = retries.iter().map(|kept| kept.delay).min();
        let (mut due, later): (Vec<_>, Vec<_>) =
            retries.into_iter().partition(|kept| kept.delay.is_zero());
        if !due.is_empty() {
            if self.is_failing {
                due.truncate(1);
            }
            if let Some(spent) = &mut spent {
                spent.shrink_to(bytes_of(&due));
            }
            return self.work(due, spent, true, MAX_IN_BACKOFF).await;
        }
        drop(spent);
        let room = MAX_IN_BACKOFF.saturating_sub(later.len());
        if room == 0 {
            return Ok(Polled::Idle(next));
        }
        // A receiver that may hang holds one in memory, and not a batch. Others have small batches while these hold all
        // that there is, so that many queues can read at once.
        let least = (BATCH_BYTES / self.deliveries().largest_entry).clamp(1, MAX_BATCH);
        let most = match self.is_failing {
            true => 1,
            false => self.batch.clamp(least, MAX_BATCH),
        };
        let (batch, spent) = self.read(&self.queue.deliveries, most, false).await?;
        if batch.is_empty() {
            return Ok(Polled::Idle(next));
        }
        self.batch = match batch.len() == most {
            true => (most * 2).min(BATCH_BYTES / (bytes_of(&batch) / batch.len()).max(1)),
            false => least,
        };
        self.work(batch, Some(spent), false, room).await
    }

    /// Reads what is in back-off. Nobody else schedules retries in this line, so once there is nothing that stays so.
    async fn read_retries(&mut self) -> Result<(Vec<Message>, Option<Spent>)> {
        if !self.has_retries {
            return Ok((Vec::new(), None));
        }
        let (retries, spent) = self.read(&self.queue.retries, MAX_IN_BACKOFF, true).await?;
        self.has_retries = !retries.is_empty();
        Ok((retries, Some(spent)))
    }

    /// Reads entries, when there are bytes for them in the budget of what is read.
    async fn read(
        &self,
        queue: &QueueKey,
        most: usize,
        include_delayed: bool,
    ) -> Result<(Vec<Message>, Spent)> {
        let (deliveries, project) = (self.deliveries(), &self.queue.source.project);
        deliveries
            .read(&deliveries.reading, project, queue, most, include_delayed)
            .await
    }

    /// Sends a batch in order. At most `room` entries may be in back-off.
    async fn work(
        &mut self,
        batch: Vec<Message>,
        mut spent: Option<Spent>,
        is_retry: bool,
        mut room: usize,
    ) -> Result<Polled> {
        let (mut held, read) = (bytes_of(&batch), Instant::now());
        // What was known before is older than what is to be sent: meanwhile the receiver may have agreed, or moved.
        self.cached = None;
        let (mut done, mut flushed) = (Vec::with_capacity(batch.len()), read);
        for kept in batch {
            if self.stops() || room == 0 {
                break;
            }
            let left = kept.remaining_ttl.saturating_sub(read.elapsed());
            let entry = match Entry::decode(&kept.body) {
                Ok(entry) => entry,
                Err(error) => {
                    tracing::error!(%error, subscription = %self.queue.id, "dropping a notification that cannot be decoded");
                    done.push(kept.id);
                    continue;
                }
            };
            let was_failing = self.is_failing;
            match self.deliver_watched(kept.id, &entry, left).await? {
                Step::Done => done.push(kept.id),
                Step::Retry(failed, wait) => {
                    self.schedule_retry(entry, failed, wait, left).await?;
                    done.push(kept.id);
                    room = if is_retry { room } else { room - 1 };
                }
                Step::Stopped => break,
            }
            // What took its time is not to be done twice.
            let is_slow = was_failing || self.is_failing || flushed.elapsed() > FLUSH_INTERVAL;
            if is_slow && !done.is_empty() {
                flushed = Instant::now();
                self.delete(is_retry, &std::mem::take(&mut done)).await?;
            }
            held = held.saturating_sub(kept.body.len());
            if let Some(spent) = &mut spent {
                spent.shrink_to(held);
            }
            if self.is_failing {
                break;
            }
        }
        self.delete(is_retry, &done).await?;
        Ok(Polled::More)
    }

    async fn delete(&self, is_retry: bool, ids: &[MessageId]) -> Result<()> {
        let queue = if is_retry {
            &self.queue.retries
        } else {
            &self.queue.deliveries
        };
        if !ids.is_empty() {
            self.deliveries()
                .store()
                .delete(queue, ids, Precondition::None)
                .await?;
        }
        Ok(())
    }

    async fn schedule_retry(
        &mut self,
        mut entry: Entry,
        failed: usize,
        wait: Duration,
        left: Duration,
    ) -> Result<()> {
        entry.failed = failed;
        self.has_retries = true;
        let kept = entry.kept(self.queue.name(&entry), left, wait);
        self.deliveries()
            .store()
            .post(&self.queue.retries, vec![kept])
            .await
    }

    /// Deletes the queue of a subscription that has gone.
    async fn remove(&self) -> Result<Polled> {
        let store = self.deliveries().store();
        let mut is_open = self.queue.is_open.lock().await;
        store.drop_queue(&self.queue.deliveries).await?;
        store.drop_queue(&self.queue.retries).await?;
        store.drop_queue(&self.queue.markers).await?;
        self.deregister(&mut is_open).await?;
        Ok(Polled::Closed)
    }

    /// Closes the queue, unless something came meanwhile. Returns whether it is closed.
    async fn close(&self) -> bool {
        let mut is_open = self.queue.is_open.lock().await;
        let is_empty = async |queue: &QueueKey| {
            let page = self.deliveries().list(queue, None, 1, true).await;
            page.is_ok_and(|page| page.messages.is_empty())
        };
        is_empty(&self.queue.deliveries).await
            && is_empty(&self.queue.retries).await
            && self.deregister(&mut is_open).await.is_ok()
    }

    async fn deregister(&self, is_open: &mut bool) -> Result<()> {
        let token = [MessageId(self.queue.id.0)];
        self.deliveries()
            .store()
            .delete(&self.queues.pending, &token, Precondition::None)
            .await?;
        *is_open = false;
        let mut open = self
            .queues
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        open.remove(&self.queue.id);
        Ok(())
    }
}

fn bytes_of(entries: &[Message]) -> usize {
    entries.iter().map(|kept| kept.body.len()).sum()
}

impl Deliveries {
    /// Reads the first entries of a queue of the service's own, no more than there are bytes for.
    pub(crate) async fn read(
        &self,
        budget: &Budget,
        project: &ProjectId,
        queue: &QueueKey,
        most: usize,
        include_delayed: bool,
    ) -> Result<(Vec<Message>, Spent)> {
        let most = most.min(budget.share() / self.largest_entry).max(1);
        let taking = budget.take(project, most * self.largest_entry);
        let mut spent = taking
            .await
            .ok_or_else(|| Error::new(ErrorKind::Unavailable, "the service ends"))?;
        let page = self.list(queue, None, most, include_delayed).await?;
        spent.shrink_to(bytes_of(&page.messages));
        Ok((page.messages, spent))
    }

    /// Lists a queue of the service's own.
    pub(crate) async fn list(
        &self,
        queue: &QueueKey,
        after: Option<isimud_contract::Marker>,
        limit: usize,
        include_delayed: bool,
    ) -> Result<isimud_contract::Page> {
        let selection = Selection {
            after,
            limit,
            not_from: None,
            include_claimed: true,
            include_delayed,
        };
        self.store().list(queue, selection).await
    }
}
