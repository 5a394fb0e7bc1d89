//! The line of one subscription: what it is to get, in order.
//!
//! A line is kept in two queues: what waits for its turn, and what failed and waits for its time. While there is
//! anything in them a token in the list of the shard says so; it is written before the first entry and deleted, under
//! the line's gate, when both are empty. So whoever takes the shard over finds every line that has something in it.

mod deliver;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use isimud_contract::{
    ClientId, Error, ErrorKind, Guard, Message, MessageId, ProjectId, QueueKey, QueueName, Result,
    Selection, Subscription, SubscriptionId,
};
use serde_json::json;
use tokio::sync::{Mutex as Gate, Notify as Signal, watch};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::Deliveries;
use super::begun::{Begun, Running, withdraw};
use super::budget::{Budget, Spent};
use super::entry::Entry;

/// How many notifications of a subscription may be in back-off at once.
pub(crate) const MOST_ASIDE: usize = 32;
/// How many are read at once, at the most.
const BATCH: usize = 100;
/// Bytes that a batch is to have, by the size of what came before.
const BATCH_BYTES: usize = 1 << 20;
/// How many entries of a line that was taken over may have been under way before: a batch, and those set aside.
const SUSPECTS: usize = BATCH + MOST_ASIDE;
/// How long a line without work is kept, so that the next notification finds it.
const LINGER: Duration = Duration::from_secs(10);
/// For how long a subscription is not read again.
const FRESH: Duration = Duration::from_secs(1);
/// How long what is delivered may still be in the line: it is delivered again if the server dies meanwhile.
const FLUSH: Duration = Duration::from_millis(500);
/// A pause after the store did not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// The life of a token: longer than any notification's.
const TOKEN_LIFE: Duration = Duration::from_hours(24 * 366);

/// The lines of one shard that have something in them.
#[derive(Debug)]
pub(crate) struct Lines {
    deliveries: Arc<Deliveries>,
    /// Where their tokens are.
    pub(crate) due: QueueKey,
    open: Mutex<HashMap<SubscriptionId, Arc<Line>>>,
    tasks: Mutex<tokio::task::JoinSet<()>>,
    /// Marks of attempts that run.
    running: Running,
    stop: watch::Receiver<bool>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Line {
    source: QueueKey,
    id: SubscriptionId,
    /// What waits for its turn.
    to: QueueKey,
    /// What waits for its time.
    again: QueueKey,
    /// What is being sent, where that may have ended the process before.
    begun: QueueKey,
    /// Whether its token is written and its task runs. Held while entries are added and while the line is closed.
    gate: Gate<bool>,
    wake: Signal,
}

impl Line {
    fn new(source: &QueueKey, id: SubscriptionId) -> Self {
        let queue = |kind: &str| {
            let name = QueueName::parse(&format!("{kind}.{id}")).expect("the name of a queue");
            QueueKey::new(source.project.clone(), QueueName::internal(&name))
        };
        Self {
            source: source.clone(),
            id,
            to: queue("to"),
            again: queue("again"),
            begun: queue("begun"),
            gate: Gate::new(false),
            wake: Signal::new(),
        }
    }

    /// The token that says that the line has something in it.
    fn token(&self) -> Message {
        let text = json!([
            self.source.project.as_str(),
            self.source.name.as_str(),
            self.id.0
        ]);
        let nobody = ClientId::Uuid(Uuid::nil());
        Message::new(MessageId(self.id.0), nobody, TOKEN_LIFE, text.to_string())
    }

    /// Reads a token.
    fn of_token(text: &Bytes) -> Option<Self> {
        let (project, queue, id): (String, String, Uuid) = serde_json::from_slice(text).ok()?;
        let project = isimud_contract::ProjectId::parse(&project).ok()?;
        let source = QueueKey::new(project, QueueName::parse_stored(&queue).ok()?);
        Some(Self::new(&source, SubscriptionId(id)))
    }

    /// The name of an entry in the line: another one for each time that it failed.
    fn name(&self, entry: &Entry) -> MessageId {
        let mut name = entry.id.0.into_bytes().to_vec();
        name.extend(entry.failed.to_be_bytes());
        MessageId(Uuid::new_v5(&self.id.0, &name))
    }
}

impl Lines {
    pub(crate) fn new(
        deliveries: Arc<Deliveries>,
        due: QueueKey,
        stop: watch::Receiver<bool>,
    ) -> Arc<Self> {
        Arc::new(Self {
            deliveries,
            due,
            open: Mutex::default(),
            tasks: Mutex::default(),
            running: Running::default(),
            stop,
        })
    }

    /// Opens the lines that have something in them, after whoever held the shard before.
    pub(crate) async fn reopen(self: &Arc<Self>) -> Result<()> {
        let mut after = None;
        loop {
            let page = self.deliveries.list(&self.due, after, BATCH, true).await?;
            for line in page
                .messages
                .iter()
                .filter_map(|token| Line::of_token(&token.body))
            {
                let line = self.line(&line.source, line.id);
                *line.gate.lock().await = true;
                self.start(line, SUSPECTS);
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
        let line = self.line(source, id);
        let mut is_open = line.gate.lock().await;
        let store = self.deliveries.store();
        if !*is_open {
            store.post(&self.due, vec![line.token()]).await?;
            *is_open = true;
            self.start(Arc::clone(&line), 0);
        }
        let messages = entries.iter().map(|(entry, kept)| {
            // The text is the one of the outbox: the entry has not changed.
            let nobody = ClientId::Uuid(Uuid::nil());
            Message::new(line.name(entry), nobody, kept.left, kept.body.clone())
        });
        store.post(&line.to, messages.collect()).await?;
        drop(is_open);
        line.wake.notify_one();
        Ok(())
    }

    fn line(&self, source: &QueueKey, id: SubscriptionId) -> Arc<Line> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let line = open
            .entry(id)
            .or_insert_with(|| Arc::new(Line::new(source, id)));
        Arc::clone(line)
    }

    /// Runs a line whose token is written, and whose first entries may have ended the process before.
    fn start(self: &Arc<Self>, line: Arc<Line>, suspects: usize) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(line.id, Arc::clone(&line));
        drop(open);
        let worker = Worker {
            lines: Arc::clone(self),
            line,
            known: None,
            is_ailing: false,
            batch: 1,
            has_aside: true,
            suspects,
            begun: None,
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

    /// Waits until every line has finished what it is at.
    pub(crate) async fn finish(&self) {
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
    }

    /// Ends every line where it is. That is nothing that a notification did.
    pub(crate) async fn abort(&self) {
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .abort_all();
        withdraw(&self.deliveries, &self.running).await;
    }
}

/// Works a line off.
struct Worker {
    lines: Arc<Lines>,
    line: Arc<Line>,
    /// The subscription as it was read a moment ago, and when.
    known: Option<(Instant, Arc<Subscription>)>,
    /// The last attempt failed.
    is_ailing: bool,
    /// How many entries the next batch may have.
    batch: usize,
    /// Something may be set aside.
    has_aside: bool,
    /// How many of the next entries are marked while they are sent.
    suspects: usize,
    /// Their marks, once they are read.
    begun: Option<Begun>,
}

/// What is to be done with an entry now.
enum Step {
    /// It is finished with.
    Done,
    /// It is to be tried again later, with so many attempts behind it.
    Aside(usize, Duration),
    /// The service stops, or the subscription has gone.
    Stopped,
}

/// How far a look at the line came.
enum Look {
    /// There may be more.
    More,
    /// There is nothing to do before this long; never, if there is nothing at all.
    Idle(Option<Duration>),
    /// The line has ended.
    Over,
}

impl Worker {
    async fn run(mut self) {
        loop {
            if self.stops() {
                return;
            }
            match self.look().await {
                Ok(Look::More) => {}
                Ok(Look::Over) => return,
                Ok(Look::Idle(due)) => {
                    // There may be many that wait, and what they know has a size.
                    self.known = None;
                    let woken =
                        timeout(due.unwrap_or(LINGER).min(LINGER), self.line.wake.notified());
                    let mut stop = self.lines.stop.clone();
                    let is_over = tokio::select! {
                        woken = woken => woken.is_err() && due.is_none(),
                        _ = stop.wait_for(|stop| *stop) => return,
                    };
                    if is_over && self.close().await {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, subscription = %self.line.id, "notifications wait for the store");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn stops(&self) -> bool {
        *self.lines.stop.borrow()
    }

    fn deliveries(&self) -> &Arc<Deliveries> {
        &self.lines.deliveries
    }

    /// Works off what is due: first what was set aside, then what waits for its turn.
    async fn look(&mut self) -> Result<Look> {
        if self.subscription().await?.is_none() {
            return self.abolish().await;
        }
        let (aside, mut spent) = self.read_aside().await?;
        let next = aside.iter().map(|kept| kept.delay).min();
        let (mut due, later): (Vec<_>, Vec<_>) =
            aside.into_iter().partition(|kept| kept.delay.is_zero());
        if !due.is_empty() {
            if self.is_ailing {
                due.truncate(1);
            }
            if let Some(spent) = &mut spent {
                spent.shrink_to(bytes_of(&due));
            }
            return self.work(due, spent, true, MOST_ASIDE).await;
        }
        drop(spent);
        let room = MOST_ASIDE.saturating_sub(later.len());
        if room == 0 {
            return Ok(Look::Idle(next));
        }
        // A receiver that may hang holds one in memory, and not a batch. Others have small batches while these hold all
        // that there is, so that many lines can read at once.
        let least = (BATCH_BYTES / self.deliveries().largest_entry).clamp(1, BATCH);
        let most = match self.is_ailing {
            true => 1,
            false => self.batch.clamp(least, BATCH),
        };
        let (batch, spent) = self.read(&self.line.to, most, false).await?;
        if batch.is_empty() {
            return Ok(Look::Idle(next));
        }
        self.batch = match batch.len() == most {
            true => (most * 2).min(BATCH_BYTES / (bytes_of(&batch) / batch.len()).max(1)),
            false => least,
        };
        self.work(batch, Some(spent), false, room).await
    }

    /// Reads what is set aside. Nobody else sets anything aside in this line, so once there is nothing that stays so.
    async fn read_aside(&mut self) -> Result<(Vec<Message>, Option<Spent>)> {
        if !self.has_aside {
            return Ok((Vec::new(), None));
        }
        let (aside, spent) = self.read(&self.line.again, MOST_ASIDE, true).await?;
        self.has_aside = !aside.is_empty();
        Ok((aside, Some(spent)))
    }

    /// Reads entries, when there are bytes for them in the budget of what is read.
    async fn read(
        &self,
        queue: &QueueKey,
        most: usize,
        include_delayed: bool,
    ) -> Result<(Vec<Message>, Spent)> {
        let (deliveries, project) = (self.deliveries(), &self.line.source.project);
        deliveries
            .read(&deliveries.reading, project, queue, most, include_delayed)
            .await
    }

    /// Sends a batch in order. At most `room` entries may be set aside.
    async fn work(
        &mut self,
        batch: Vec<Message>,
        mut spent: Option<Spent>,
        is_retry: bool,
        mut room: usize,
    ) -> Result<Look> {
        let (mut held, read) = (bytes_of(&batch), Instant::now());
        // What was known before is older than what is to be sent: meanwhile the receiver may have agreed, or moved.
        self.known = None;
        let (mut done, mut flushed) = (Vec::with_capacity(batch.len()), read);
        for kept in batch {
            if self.stops() || room == 0 {
                break;
            }
            let left = kept.left.saturating_sub(read.elapsed());
            let entry = match Entry::decode(&kept.body) {
                Ok(entry) => entry,
                Err(error) => {
                    tracing::error!(%error, subscription = %self.line.id, "a notification is lost");
                    done.push(kept.id);
                    continue;
                }
            };
            let was_ailing = self.is_ailing;
            match self.deliver_watched(kept.id, &entry, left).await? {
                Step::Done => done.push(kept.id),
                Step::Aside(failed, wait) => {
                    self.set_aside(entry, failed, wait, left).await?;
                    done.push(kept.id);
                    room = if is_retry { room } else { room - 1 };
                }
                Step::Stopped => break,
            }
            // What took its time is not to be done twice.
            let is_slow = was_ailing || self.is_ailing || flushed.elapsed() > FLUSH;
            if is_slow && !done.is_empty() {
                flushed = Instant::now();
                self.delete(is_retry, &std::mem::take(&mut done)).await?;
            }
            held = held.saturating_sub(kept.body.len());
            if let Some(spent) = &mut spent {
                spent.shrink_to(held);
            }
            if self.is_ailing {
                break;
            }
        }
        self.delete(is_retry, &done).await?;
        Ok(Look::More)
    }

    async fn delete(&self, is_retry: bool, ids: &[MessageId]) -> Result<()> {
        let queue = if is_retry {
            &self.line.again
        } else {
            &self.line.to
        };
        if !ids.is_empty() {
            self.deliveries()
                .store()
                .delete(queue, ids, Guard::Any)
                .await?;
        }
        Ok(())
    }

    async fn set_aside(
        &mut self,
        mut entry: Entry,
        failed: usize,
        wait: Duration,
        left: Duration,
    ) -> Result<()> {
        entry.failed = failed;
        self.has_aside = true;
        let kept = entry.kept(self.line.name(&entry), left, wait);
        self.deliveries()
            .store()
            .post(&self.line.again, vec![kept])
            .await
    }

    /// Deletes the line of a subscription that has gone.
    async fn abolish(&self) -> Result<Look> {
        let store = self.deliveries().store();
        let mut is_open = self.line.gate.lock().await;
        store.remove(&self.line.to).await?;
        store.remove(&self.line.again).await?;
        store.remove(&self.line.begun).await?;
        self.retire(&mut is_open).await?;
        Ok(Look::Over)
    }

    /// Closes the line, unless something came meanwhile. Returns whether it is closed.
    async fn close(&self) -> bool {
        let mut is_open = self.line.gate.lock().await;
        let is_empty = async |queue: &QueueKey| {
            let page = self.deliveries().list(queue, None, 1, true).await;
            page.is_ok_and(|page| page.messages.is_empty())
        };
        is_empty(&self.line.to).await
            && is_empty(&self.line.again).await
            && self.retire(&mut is_open).await.is_ok()
    }

    async fn retire(&self, is_open: &mut bool) -> Result<()> {
        let token = [MessageId(self.line.id.0)];
        self.deliveries()
            .store()
            .delete(&self.lines.due, &token, Guard::Any)
            .await?;
        *is_open = false;
        let mut open = self
            .lines
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        open.remove(&self.line.id);
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
