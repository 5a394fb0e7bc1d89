//! The message contract, each method one script and one round trip.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use isimud_contract::{
    Backlog, ByteCount, Capabilities, Claim, ClaimId, Condition, DeadLetter, Error, ErrorKind,
    ImportedClaim, Lease, Marker, Message, MessageId, MessageStore, Page, PageRoom, Precondition,
    QueueKey, Resource, Result, Selection, Stats, StatsMessage, Timestamp, Watcher,
};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::config::Config;
use crate::connect::Connector;
use crate::keys::{Keys, Names, tag};
use crate::reconnecting::ReconnectingConnection;
use crate::scripts::{More, Scripts, Target, Walk};
use crate::sweep::SweepSchedule;
use crate::value::{Answer, client_bytes, posted};
use crate::waiting::DurabilityWait;

/// Messages that one claim or pop takes at the most: a script that takes so many holds the server up for some ten
/// milliseconds.
const MAX_BATCH: usize = 10_000;

/// Messages that one step of a listing walks over.
const PAGE: std::ops::RangeInclusive<usize> = 100..=1_000;

/// How long a message may take from one node of a cluster to another before another claim tries it again.
const HAND_OVER: Duration = Duration::from_secs(60);

/// Messages and queues in Redis. See the crate's docs.
#[derive(Debug)]
pub struct RedisStore {
    pub(crate) names: Names,
    pub(crate) scripts: Scripts,
    pub(crate) sweep_schedule: SweepSchedule,
    config: Config,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl RedisStore {
    /// Opens the store, without waiting for the server: while that cannot be reached, every call is `Unavailable`.
    ///
    /// Certificates and keys that cannot be read are refused here, as `Invalid`.
    ///
    /// Must be called on a Tokio runtime, on which the connection and the sweep then live.
    pub fn open(config: Config) -> Result<Arc<Self>> {
        let runtime = runtime()?;
        config.check_files()?;
        for option in &config.ignored {
            tracing::info!(
                option,
                "this option of Zaqar's means nothing here: 'timeout_ms' says how long a call may take"
            );
        }
        let store = Arc::new(Self {
            names: Names::new(&config.prefix),
            sweep_schedule: SweepSchedule::default(),
            scripts: Scripts {
                time: config.time.clone(),
                link: ReconnectingConnection::new(config.clone()),
                waiting: DurabilityWait::of(&config)
                    .any()
                    .then(|| ReconnectingConnection::silent(config.clone())),
            },
            config,
            tasks: Mutex::default(),
        });
        let sweep = crate::sweep::run(Arc::downgrade(&store));
        store.tasks().push(runtime.spawn(sweep));
        Ok(store)
    }

    /// Has `watcher` told of each change that any server makes, this one too, a moment after that is done; and of
    /// [`Change::All`](isimud_contract::Change::All) when changes may have been missed, because Redis could not be
    /// reached. It hears of a broken connection within a second.
    pub(crate) fn tell(&self, watcher: Watcher) -> Result<()> {
        let connector = Connector::new(self.config.clone());
        let listen = crate::watch::run(connector, self.names.changes(), watcher);
        self.tasks().push(runtime()?.spawn(listen));
        Ok(())
    }

    fn tasks(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops what runs in the background.
    fn stop(&self) {
        for task in self.tasks().drain(..) {
            task.abort();
        }
    }

    fn keys(&self, queue: &QueueKey) -> Keys {
        self.names.queue(queue)
    }

    /// Sees to it that the queue is swept now and then. Called when something is in it: an empty one is soon forgotten.
    async fn enter(&self, queue: &QueueKey) {
        if self.sweep_schedule.is_news(queue) {
            crate::sweep::enter(self, &self.sweep_schedule, queue, &tag(queue)).await;
        }
    }

    /// Lists what is in a queue, or in that of a ledger.
    pub(crate) async fn list_on(&self, keys: &Keys, selection: Selection) -> Result<Page> {
        let own = match &selection.not_from {
            Some(client) => client_bytes(client)?,
            None => Vec::new(),
        };
        let which = match (selection.include_claimed, selection.include_delayed) {
            (true, true) => "cd",
            (true, false) => "c",
            (false, true) => "d",
            (false, false) => "",
        };
        let mut after = start(selection.after);
        let (mut page, mut room) = (Page::default(), PageRoom::default());
        let number = |message: &Message| message.arrival.number();
        while page.messages.len() < selection.limit {
            let wanted = selection.limit - page.messages.len();
            let count = if own.is_empty() {
                wanted.min(*PAGE.end())
            } else {
                wanted.clamp(*PAGE.start(), *PAGE.end())
            };
            let walk = Walk {
                count,
                wanted,
                own: &own,
                which,
            };
            let part = self.scripts.list(keys, &after, walk).await?;
            let messages = part.answer.messages(part.now)?;
            if !messages.is_empty() {
                page.marker = Some(Marker::Arrival(part.marker));
            }
            for message in messages {
                // Another part may have had room for it; this page has not, and the next one begins with it.
                if !room.takes(&message) {
                    page.marker = page.messages.last().and_then(number).map(Marker::Arrival);
                    page.is_cut = true;
                    return Ok(page);
                }
                page.messages.push(message);
            }
            match part.more {
                More::No => break,
                More::HadNoRoom => {
                    page.is_cut = true;
                    break;
                }
                More::Perhaps => {}
            }
            after = start(Some(Marker::Arrival(part.last)));
        }
        Ok(page)
    }

    /// Counts what is in a queue, or in that of a ledger.
    pub(crate) async fn stats_on(&self, keys: &Keys) -> Result<Stats> {
        let mut answer = self.scripts.stats(keys).await?;
        let now = answer.moment()?;
        let (free, claimed) = (answer.count()? as u64, answer.count()? as u64);
        Ok(Stats {
            free,
            claimed,
            last_arrival: answer.count()? as u64,
            oldest: stats_message(&mut answer, now)?,
            newest: stats_message(&mut answer, now)?,
        })
    }

    async fn unlink(&self, keys: impl Iterator<Item = &str>) -> Result<()> {
        let mut command = redis::cmd("UNLINK");
        for key in keys {
            command.arg(key);
        }
        let link = &self.scripts.link;
        link.in_time(link.send(&command)).await.map(drop)
    }

    /// Where a claim's dead letters go: on one server a script reaches both queues, in a cluster only one.
    fn target(&self, queue: &QueueKey, lease: &Lease) -> Target {
        match &lease.dead_letter {
            None => Target::None,
            Some(policy) if policy.queue != *queue && self.scripts.link.is_cluster() => {
                Target::Far(ClaimId(Uuid::new_v4()), HAND_OVER)
            }
            Some(policy) => Target::Near(self.keys(&policy.queue)),
        }
    }

    /// Moves messages to a queue that no script can reach together with theirs. Until they are there a claim of their
    /// own holds them; when this fails half-way, they are free again after [`HAND_OVER`], and the next claim moves
    /// them. The target takes each only once.
    async fn hand_over(
        &self,
        keys: &Keys,
        exceeded: Vec<Message>,
        policy: &DeadLetter,
        holder: ClaimId,
    ) {
        let ids: Vec<MessageId> = exceeded.iter().map(|message| message.id).collect();
        let moved = exceeded.into_iter().map(|message| Message {
            ttl: policy.ttl.unwrap_or(message.ttl),
            remaining_ttl: policy.ttl.unwrap_or(message.remaining_ttl),
            claim: None,
            claim_count: 0,
            transfers: message.transfers.saturating_add(1),
            arrival: policy.stands.arrival(message.arrival),
            ..message
        });
        let work = async {
            self.post(&policy.queue, moved.collect()).await?;
            let precondition = Precondition::ClaimedBy(vec![holder]);
            self.scripts.delete(keys, &ids, &precondition).await?;
            self.scripts.release_claim(keys, holder, false).await
        };
        if let Err(error) = self.scripts.link.in_time(work).await {
            // The claim that found them is made, and its own messages must reach who asked for them.
            tracing::warn!(%error, "messages could not be moved to their dead-letter queue; a later claim tries again");
        }
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.stop();
    }
}

#[async_trait]
impl MessageStore for RedisStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durable: self.scripts.link.is_durable(),
            ..Capabilities::FULL
        }
    }

    fn condition(&self) -> Condition {
        Condition::default()
    }

    async fn ping(&self) -> Result<()> {
        let link = &self.scripts.link;
        link.in_time(link.send(&redis::cmd("PING"))).await.map(drop)
    }

    async fn can_post(&self, _: &QueueKey) -> Result<()> {
        Ok(())
    }

    async fn post(&self, queue: &QueueKey, messages: Vec<Message>) -> Result<()> {
        if messages.is_empty() {
            return Ok(());
        }
        self.scripts
            .post(&self.keys(queue), &messages, None)
            .await?;
        self.enter(queue).await;
        Ok(())
    }

    async fn post_within(&self, queue: &QueueKey, messages: Vec<Message>, most: u64) -> Result<()> {
        if messages.is_empty() {
            return Ok(());
        }
        let keys = self.keys(queue);
        if !self.scripts.post(&keys, &messages, Some(most)).await? {
            return Err(Error::full(most));
        }
        self.enter(queue).await;
        Ok(())
    }

    async fn list(&self, queue: &QueueKey, selection: Selection) -> Result<Page> {
        self.list_on(&self.keys(queue), selection).await
    }

    async fn get(&self, queue: &QueueKey, ids: &[MessageId]) -> Result<Vec<Message>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        self.scripts.get(&self.keys(queue), ids).await
    }

    async fn delete(
        &self,
        queue: &QueueKey,
        ids: &[MessageId],
        precondition: Precondition,
    ) -> Result<usize> {
        if ids.is_empty() {
            return Ok(0);
        }
        self.scripts
            .delete(&self.keys(queue), ids, &precondition)
            .await
    }

    async fn pop(&self, queue: &QueueKey, limit: usize) -> Result<Vec<Message>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let limit = limit.min(MAX_BATCH);
        self.scripts.pop(&self.keys(queue), limit).await
    }

    async fn claim(&self, queue: &QueueKey, lease: &Lease, limit: usize) -> Result<Option<Claim>> {
        let keys = self.keys(queue);
        let target = self.target(queue, lease);
        let limit = limit.min(MAX_BATCH);
        let taken = self.scripts.claim(&keys, lease, limit, &target).await?;
        if let Some(policy) = &lease.dead_letter {
            match target {
                Target::Far(holder, _) if !taken.exceeded.is_empty() => {
                    self.hand_over(&keys, taken.exceeded, policy, holder).await;
                }
                _ => self.enter(&policy.queue).await,
            }
        }
        Ok((!taken.messages.is_empty()).then(|| Claim {
            id: lease.id,
            ttl: lease.ttl,
            age: Duration::ZERO,
            messages: taken.messages,
        }))
    }

    async fn find_claim(&self, queue: &QueueKey, claim: ClaimId) -> Result<Claim> {
        let found = self.scripts.find_claim(&self.keys(queue), claim).await?;
        found.ok_or_else(|| Error::not_found(Resource::Claim))
    }

    async fn renew_claim(&self, queue: &QueueKey, lease: &Lease) -> Result<()> {
        if self.scripts.renew_claim(&self.keys(queue), lease).await? {
            Ok(())
        } else {
            Err(Error::not_found(Resource::Claim))
        }
    }

    async fn release_claim(&self, queue: &QueueKey, claim: ClaimId) -> Result<()> {
        let keys = self.keys(queue);
        self.scripts.release_claim(&keys, claim, false).await
    }

    async fn undo_claim(&self, queue: &QueueKey, claim: ClaimId, counted: bool) -> Result<()> {
        let keys = self.keys(queue);
        self.scripts.release_claim(&keys, claim, counted).await
    }

    async fn import_claim(
        &self,
        queue: &QueueKey,
        claim: ImportedClaim,
        ids: &[MessageId],
    ) -> Result<usize> {
        if ids.is_empty() {
            return Ok(0);
        }
        self.scripts
            .import_claim(&self.keys(queue), claim, ids)
            .await
    }

    async fn backlog(&self, queue: &QueueKey) -> Result<Backlog> {
        Ok(Backlog::from(&self.stats(queue).await?))
    }

    async fn stats(&self, queue: &QueueKey) -> Result<Stats> {
        self.stats_on(&self.keys(queue)).await
    }

    async fn count_bytes(&self, queue: &QueueKey, after: Option<u64>) -> Result<ByteCount> {
        self.scripts.count_bytes(&self.keys(queue), after).await
    }

    async fn purge(&self, queue: &QueueKey) -> Result<()> {
        self.unlink(self.keys(queue).purged()).await
    }

    async fn drop_queue(&self, queue: &QueueKey) -> Result<()> {
        self.scripts.drop_queue(&self.keys(queue)).await
    }

    async fn close(&self) -> Result<()> {
        self.stop();
        self.scripts.link.close();
        self.scripts
            .waiting
            .iter()
            .for_each(ReconnectingConnection::close);
        Ok(())
    }
}

fn runtime() -> Result<Handle> {
    Handle::try_current().map_err(|error| {
        Error::new(ErrorKind::Internal, "the Redis store needs a Tokio runtime").caused_by(error)
    })
}

/// Where a listing starts, as the script wants it.
fn start(after: Option<Marker>) -> Vec<u8> {
    match after {
        None => Vec::new(),
        Some(Marker::Arrival(rank)) => format!("r{rank}").into_bytes(),
        Some(Marker::Message(id)) => [b"i", &id.0.as_bytes()[..]].concat(),
    }
}

/// The next edge of the statistics; `None` when the queue is empty.
fn stats_message(answer: &mut Answer, now: Timestamp) -> Result<Option<StatsMessage>> {
    if answer.left() == 0 {
        return Ok(None);
    }
    let id = MessageId(answer.id()?);
    let posted = posted(&answer.blob()?)?;
    let age = now.since(posted);
    Ok(Some(StatsMessage { id, age, posted }))
}
