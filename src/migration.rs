//! Queue migration: moves the messages of a queue to another store while the queue is in use.
//!
//! A migration appends a segment to its place ([`Placement`]) and posts a job here. From then on posts go to
//! the new store; the migrator moves the rest after them, oldest first. A job is a message of an internal queue, kept
//! beside the records of queues and never in a broker: it outlives every server, one server has it at a time, and a
//! server that dies gives it back.
//!
//! ```text
//! [A]            at rest in A
//! [A, B]         appended: posts go to B, readers take from A and then from B
//! [S, A, B]      carried: the free messages of A go to S, a segment beside B; readers take from S only, so that
//!                nobody meets a message of A before an older one that is in S already
//! [A, S, B]      nothing free is left in A; what its live claims hold stays valid there, and comes back there
//! [S, B]         A was empty, and for a while nobody can have posted to it
//! [B]            readers have emptied S
//! ```
//!
//! A segment that is taken out stays known to the place as one that was left, for a while ([`left_segments`]).
//!
//! A move that is asked for meanwhile appends one more segment, also in a store where the queue was before: segments are
//! carried in the order in which they stand ([`order`]), and a stage that has begun, such as `[S, A, B]` in
//! `[S, A, B, A']`, is ended before the next one begins.
//!
//! The transfer itself is in [`step`]: it loses nothing and doubles nothing, wherever it is cut off. What is
//! approximate: a message that returns from a claim in A after its neighbours were carried comes before them; counts of
//! claims for the dead-letter policy begin anew; a message that B cannot hold (too large, delayed for too long) stays
//! in A until readers take it or it expires; a message that a client deletes by its id while a broker that is slow has
//! been sent it, and has not answered, may come back from there.

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod late_sends;
mod left_segments;
mod order;
mod stalled;
mod step;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use isimud_contract::{
    Claim, ClaimId, ClientId, Error, ErrorKind, Lease, LeftSegment, ManagementStore, Message,
    MessageId, MessageStore, Placement, Precondition, ProjectId, QueueKey, QueueName, QueueRecord,
    Resource, Result, Segment,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};
use uuid::Uuid;

use crate::catalogue::{Catalogue, staging};
use crate::messaging::MessageObserver;
use crate::rate_limiter::RateLimiter;

use self::left_segments::LeftSegments;
use self::order::Order;
use self::stalled::Stalled;
pub(crate) use self::step::{BATCH, QueueRef, move_within_store};
use self::step::{Fence, MigrationStep, recover};

/// How long a server has a job before another may take it, unless it says that it goes on.
const JOB_CLAIM_TTL: Duration = Duration::from_secs(30);

/// How long a job lives that nobody looks at. Every look makes it live so long again.
const JOB_TTL: Duration = Duration::from_secs(14 * 24 * 3600);

/// How often an idle server looks for jobs that others have left.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// How long a place must have been seen as it is before an empty segment is taken out of it: longer than a server
/// needs to hear of a change, and a post to reach a store.
const FENCE_DELAY: Duration = Duration::from_secs(5);

/// How long a place must have been seen as it is before anything is carried: longer than most claims take.
const SETTLE_TIME: Duration = Duration::from_millis(500);

/// Jobs that one server does at a time.
const MAX_CONCURRENT: usize = 4;

/// How soon a move that was announced has begun.
const SCHEDULE_DELAY: Duration = Duration::from_secs(3);

/// How long a job rests that can do nothing now: at first, and at most.
const IDLE_BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(20));

/// What is to be carried on.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Job {
    project: String,
    queue: String,
    /// Messages a second, at most.
    rate: Option<u32>,
    /// Whether it is about the segments that the queue has left, and not about the messages to carry.
    #[serde(default)]
    clears: bool,
}

impl Job {
    fn new(queue: &QueueKey, rate: Option<u32>) -> Self {
        Self {
            project: queue.project.as_str().to_owned(),
            queue: queue.name.as_str().to_owned(),
            rate,
            clears: false,
        }
    }

    fn to_clear(queue: &QueueKey) -> Self {
        Self {
            clears: true,
            ..Self::new(queue, None)
        }
    }

    fn key(&self) -> Option<QueueKey> {
        let project = ProjectId::parse(&self.project).ok()?;
        let name = QueueName::parse_stored(&self.queue).ok()?;
        Some(QueueKey::new(project, name))
    }
}

/// What a job does next.
enum Next {
    /// It goes on at once: the place is another now.
    Continue,
    /// It can do nothing for so long.
    Wait(Duration),
    /// The queue is at rest.
    Done,
}

/// Has the server forget what it remembers of a queue.
pub(crate) type Forget = Arc<dyn Fn(&QueueKey) + Send + Sync>;

/// Migrates queues from store to store.
pub(crate) struct Migrator {
    catalogue: Arc<Catalogue>,
    management: Arc<dyn ManagementStore>,
    jobs: Arc<dyn MessageStore>,
    queue: QueueKey,
    forget: Forget,
    wake: Notify,
    slots: Arc<Semaphore>,
    /// Since when a queue has been as it is.
    seen: Mutex<HashMap<QueueKey, Seen>>,
    left: LeftSegments,
    stalled: Stalled,
}

/// A version of a queue, first seen then, and how often it was looked at.
#[derive(Debug, Clone, Copy)]
struct Seen {
    version: u64,
    since: Instant,
    looks: u32,
}

impl Seen {
    fn now(version: u64) -> Self {
        Self {
            version,
            since: Instant::now(),
            looks: 1,
        }
    }
}

impl Migrator {
    /// Keeps its jobs in `jobs`. `forget` is called when a queue's place has changed.
    pub(crate) fn new(
        catalogue: Arc<Catalogue>,
        management: Arc<dyn ManagementStore>,
        jobs: Arc<dyn MessageStore>,
        observer: Arc<dyn MessageObserver>,
        forget: Forget,
    ) -> Result<Self> {
        let invalid = |_| {
            Error::new(
                ErrorKind::Internal,
                "the queue of migration jobs has no valid name",
            )
        };
        Ok(Self {
            jobs,
            catalogue,
            management,
            queue: QueueKey::new(
                ProjectId::parse("isimud").map_err(invalid)?,
                QueueName::internal(&QueueName::parse("moves").map_err(invalid)?),
            ),
            forget,
            wake: Notify::new(),
            slots: Arc::new(Semaphore::new(MAX_CONCURRENT)),
            seen: Mutex::default(),
            left: LeftSegments::default(),
            stalled: Stalled::new(observer),
        })
    }

    /// Notes that a queue is about to move, so that a server that dies as soon as it has changed the queue's place
    /// leaves the rest to another. To be called before the change; [`Migrator::start`] after it.
    pub(crate) async fn schedule(&self, queue: &QueueKey, rate: Option<u32>) -> Result<()> {
        self.write(Job::new(queue, rate), SCHEDULE_DELAY).await
    }

    /// Has a queue carried, `rate` messages a second at most. One that is carried already goes on as it does.
    pub(crate) async fn start(&self, queue: &QueueKey, rate: Option<u32>) -> Result<()> {
        self.write(Job::new(queue, rate), Duration::ZERO).await?;
        self.wake.notify_one();
        Ok(())
    }

    /// Why a queue is not carried on now, as far as this server knows.
    pub(crate) fn stalled(&self, queue: &QueueKey) -> Option<String> {
        self.stalled.why(queue)
    }

    async fn write(&self, job: Job, delay: Duration) -> Result<()> {
        let body = serde_json::to_vec(&job).map_err(|error| unserializable().caused_by(error))?;
        // One job of each kind a queue: its id is made from the queue's name.
        let kind = if job.clears { "\0left" } else { "" };
        let name = format!("{}\0{}{kind}", job.project, job.queue);
        let id = MessageId(Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()));
        let message = Message::new(id, ClientId::Uuid(Uuid::nil()), JOB_TTL, body);
        let message = Message { delay, ..message };
        self.jobs.post(&self.queue, vec![message]).await
    }

    /// Runs migration jobs, for as long as it is polled.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else {
                return;
            };
            match self.claim_job().await {
                Ok(Some(claim)) => {
                    let migrator = Arc::clone(&self);
                    tokio::spawn(async move {
                        migrator.work(claim).await;
                        drop(slot);
                    });
                    continue;
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "queue migration: cannot fetch jobs"),
            }
            drop(slot);
            // Woken or not, looking is right; a post that nobody was told of is found so.
            drop(tokio::time::timeout(POLL_INTERVAL, self.wake.notified()).await);
        }
    }

    async fn claim_job(&self) -> Result<Option<Claim>> {
        let lease = job_lease(ClaimId(Uuid::now_v7()), JOB_CLAIM_TTL);
        self.jobs.claim(&self.queue, &lease, 1).await
    }

    /// Does a job until it is done, rests, or fails; what is not done comes back when the claim ends.
    async fn work(&self, claim: Claim) {
        let id = claim.id;
        for message in claim.messages {
            let job: Option<Job> = serde_json::from_slice(&message.body).ok();
            let Some((job, queue)) = job.and_then(|job| job.key().map(|key| (job, key))) else {
                tracing::error!(id = %message.id, "queue migration: discarding an unreadable job");
                self.finish_job(id, message.id).await;
                continue;
            };
            let outcome = tokio::select! {
                biased;
                () = self.keep_turn(id) => Err(taken_by_another()),
                outcome = self.run_steps(id, &job, &queue) => outcome,
            };
            let is_anothers = outcome.as_ref().is_err_and(is_taken_by_another);
            if (outcome.is_ok() || is_anothers) && !job.clears {
                self.stalled.resumed(&queue);
            }
            match outcome {
                Err(error) if is_anothers => {
                    tracing::debug!(%error, %queue, "another server carries the queue on");
                }
                Ok(None) => {
                    self.finish_job(id, message.id).await;
                    // A move that began meanwhile found the job still there.
                    if let Err(error) = self.recheck(&job, &queue).await {
                        tracing::warn!(%error, %queue, "queue migration: cannot check whether the queue needs another migration");
                    }
                }
                Ok(Some(rest)) => self.postpone(id, rest).await,
                Err(error) if job.clears => {
                    tracing::debug!(%error, %queue, "queue migration: cannot remove left segments yet, retrying later");
                    self.postpone(id, IDLE_BACKOFF.1).await;
                }
                Err(error) => {
                    self.stalled.failed(&queue, &error);
                    self.postpone(id, IDLE_BACKOFF.1).await;
                }
            }
        }
    }

    /// Renews the turn for as long as it is polled, however long a store takes to answer. Ends when another server may have
    /// the job.
    async fn keep_turn(&self, claim: ClaimId) {
        let mut since = Instant::now();
        loop {
            tokio::time::sleep(JOB_CLAIM_TTL / 3).await;
            // This process may have stood still.
            if since.elapsed() >= JOB_CLAIM_TTL {
                return;
            }
            let asked = Instant::now();
            match self
                .jobs
                .renew_claim(&self.queue, &job_lease(claim, JOB_CLAIM_TTL))
                .await
            {
                Ok(()) => since = asked,
                Err(error) if is_taken_by_another(&error) => return,
                Err(error) => tracing::debug!(%error, "the turn of a job is not renewed"),
            }
        }
    }

    /// Steps until the job is done, or must rest.
    async fn run_steps(
        &self,
        claim: ClaimId,
        job: &Job,
        queue: &QueueKey,
    ) -> Result<Option<Duration>> {
        loop {
            self.jobs
                .renew_claim(&self.queue, &job_lease(claim, JOB_CLAIM_TTL))
                .await?;
            match self.step(claim, job, queue).await? {
                Next::Continue => {}
                Next::Wait(span) => return Ok(Some(span)),
                Next::Done => {
                    if !job.clears {
                        self.seen().remove(queue);
                    }
                    return Ok(None);
                }
            }
        }
    }

    async fn finish_job(&self, claim: ClaimId, job: MessageId) {
        let precondition = Precondition::ClaimedBy(vec![claim]);
        if let Err(error) = self.jobs.delete(&self.queue, &[job], precondition).await {
            tracing::debug!(%error, %job, "queue migration: cannot delete a finished job; it is checked again");
        }
    }

    async fn postpone(&self, claim: ClaimId, span: Duration) {
        let renewed = self
            .jobs
            .renew_claim(&self.queue, &job_lease(claim, span))
            .await;
        if let Err(error) = renewed {
            tracing::debug!(%error, %claim, "queue migration: cannot postpone a job; it comes back when its claim expires");
        }
    }

    async fn recheck(&self, job: &Job, queue: &QueueKey) -> Result<()> {
        let Some(record) = self.management.find_queue(queue).await? else {
            return Ok(());
        };
        let placement = record.placement;
        if job.clears {
            return match placement.left() {
                [] => Ok(()),
                _ => self.write(Job::to_clear(queue), FENCE_DELAY).await,
            };
        }
        match placement.only() {
            Some(_) => Ok(()),
            None => self.start(queue, job.rate).await,
        }
    }

    async fn step(&self, claim: ClaimId, job: &Job, queue: &QueueKey) -> Result<Next> {
        let Some(record) = self.management.find_queue(queue).await? else {
            self.left.forget(queue);
            return Ok(Next::Done);
        };
        if job.clears {
            return self.remove_left_segments(queue, &record).await;
        }
        let Some(order) = Order::of(&record.placement) else {
            return Ok(Next::Done);
        };
        let seen = self.see(queue, record.version);
        if order.is_migrating() {
            // A claim that was under way in the old store when the place changed takes what it takes: what the migrator
            // took between its messages would come before some of them.
            tokio::time::sleep(SETTLE_TIME.saturating_sub(seen.since.elapsed())).await;
            let carried = self.migrate_all(claim, job, queue, &order).await?;
            let changed = self.change(queue, &record, order.rested()).await?;
            if !changed && self.management.find_queue(queue).await?.is_none() {
                self.clear(queue, &order).await?;
            }
            // What is free there and cannot be carried is not tried again and again.
            let is_stuck = carried == 0 && changed && self.can_migrate(queue, &order).await?;
            return Ok(if is_stuck {
                Next::Wait(IDLE_BACKOFF.1)
            } else {
                Next::Continue
            });
        }
        let empty = self.empty_one(queue, &order).await;
        if let Ok(Some(empty)) = empty {
            let left = FENCE_DELAY.saturating_sub(seen.since.elapsed());
            if !left.is_zero() {
                return Ok(Next::Wait(left));
            }
            let placement = order.without(&empty);
            let left = record.placement.left().iter().cloned();
            let left = left.chain([LeftSegment::new(empty)]);
            self.write(Job::to_clear(queue), FENCE_DELAY).await?;
            self.replace(queue, &record, &placement.having_left(left))
                .await?;
            return Ok(Next::Continue);
        }
        if self.can_migrate(queue, &order).await? {
            self.change(queue, &record, order.carried()).await?;
            return Ok(Next::Continue);
        }
        // One that does not say whether it is empty has held up no other.
        empty?;
        let rest = IDLE_BACKOFF
            .0
            .saturating_mul(seen.looks)
            .min(IDLE_BACKOFF.1);
        Ok(Next::Wait(rest))
    }

    /// Deletes what was carried for a queue that was deleted meanwhile.
    async fn clear(&self, queue: &QueueKey, order: &Order) -> Result<()> {
        let staging = order.is_migrating().then(|| staging(&order.side));
        for segment in order.all.iter().cloned().chain(staging) {
            let end = self.queue_ref(queue, &segment).await?;
            end.store.drop_queue(&end.key).await?;
        }
        Ok(())
    }

    /// Since when a queue has been as it is.
    fn see(&self, queue: &QueueKey, version: u64) -> Seen {
        let mut all = self.seen();
        let seen = all
            .entry(queue.clone())
            .and_modify(|seen| seen.looks += 1)
            .or_insert_with(|| Seen::now(version));
        if seen.version != version {
            *seen = Seen::now(version);
        }
        *seen
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<QueueKey, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a queue other segments. Returns whether it still was as `record` says.
    async fn change(
        &self,
        queue: &QueueKey,
        record: &QueueRecord,
        placement: Placement,
    ) -> Result<bool> {
        let placement = placement.having_left(record.placement.left().iter().cloned());
        self.replace(queue, record, &placement).await
    }

    /// Gives a queue another place. Returns whether it still was as `record` says.
    async fn replace(
        &self,
        queue: &QueueKey,
        record: &QueueRecord,
        placement: &Placement,
    ) -> Result<bool> {
        let update =
            self.management
                .update_queue(queue, &record.metadata, placement, record.version);
        let changed = update.await?.is_some();
        (self.forget)(queue);
        Ok(changed)
    }

    /// A segment that nothing is posted to and that has no message. An error only where none is known to be empty, and one
    /// does not say.
    async fn empty_one(&self, queue: &QueueKey, order: &Order) -> Result<Option<Segment>> {
        let mut silent = Ok(None);
        for segment in order.older() {
            let is_empty = async { self.queue_ref(queue, segment).await?.is_empty().await };
            match is_empty.await {
                Ok(true) => return Ok(Some(segment.clone())),
                Ok(false) => {}
                Err(error) => silent = silent.and(Err(error)),
            }
        }
        silent
    }

    /// Whether there is something to carry. An error only where nothing is known of, and one segment does not say.
    async fn can_migrate(&self, queue: &QueueKey, order: &Order) -> Result<bool> {
        let mut silent = Ok(false);
        for segment in &order.sources {
            let has_free = async { self.queue_ref(queue, segment).await?.has_free().await };
            match has_free.await {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => silent = silent.and(Err(error)),
            }
        }
        silent
    }

    /// Carries what is free in the older segments to the one beside the newer, the oldest first. Returns how many
    /// messages that were.
    async fn migrate_all(
        &self,
        claim: ClaimId,
        job: &Job,
        queue: &QueueKey,
        order: &Order,
    ) -> Result<usize> {
        let mut sources = Vec::with_capacity(order.sources.len());
        for segment in &order.sources {
            sources.push(self.queue_ref(queue, segment).await?);
        }
        let staging = self.queue_ref(queue, &staging(&order.side)).await?;
        let to = self.queue_ref(queue, &order.side).await?;
        let fence = Fence {
            jobs: Arc::clone(&self.jobs),
            queue: self.queue.clone(),
            lease: job_lease(claim, JOB_CLAIM_TTL),
        };
        recover(&sources, &staging, &to, Some(&fence)).await?;
        let mut carried = 0;
        for from in &sources {
            let step = MigrationStep {
                from: from.clone(),
                sources: sources.clone(),
                staging: staging.clone(),
                to: to.clone(),
                after: order.side.after,
                fence: Some(fence.clone()),
            };
            let mut limiter = RateLimiter::new(job.rate);
            loop {
                let count = step.batch(limiter.batch_size()).await?;
                carried += count;
                if count == 0 {
                    break;
                }
                tokio::time::sleep(limiter.delay_after(count)).await;
            }
            carried += step.delayed().await?;
        }
        // The queue in between is empty, unless another carrier has filled it meanwhile.
        fence.check().await?;
        staging.store.drop_queue(&staging.key).await?;
        Ok(carried)
    }

    async fn queue_ref(&self, queue: &QueueKey, segment: &Segment) -> Result<QueueRef> {
        Ok(QueueRef {
            store: self.catalogue.open(&segment.store_id).await?.store,
            key: segment.key(queue),
        })
    }
}

impl fmt::Debug for Migrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mover")
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

fn job_lease(id: ClaimId, ttl: Duration) -> Lease {
    Lease {
        id,
        ttl,
        grace: JOB_TTL,
        dead_letter: None,
    }
}

fn taken_by_another() -> Error {
    let kind = ErrorKind::NotFound(Resource::Claim);
    Error::new(kind, "the turn of this job has ended")
}

/// A job of whose claim nothing is known any more is in another server's hands, or comes back.
fn is_taken_by_another(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound(Resource::Claim)
}

fn unserializable() -> Error {
    Error::new(
        ErrorKind::Internal,
        "the migration job cannot be serialized",
    )
}
