//! The leader lease of a bridge: who has it, and what its owner has begun. It is the record of a queue of the service's
//! own, in the management store, which can only be changed by who knows its newest version.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isimud_contract::{
    ClaimId, Error, ErrorKind, Metadata, Placement, ProjectId, QueueKey, QueueName, QueueRecord,
    Queues, Result, StoreId,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use super::Rule;

/// How long a record has to stay as it is until its owner is taken to be dead.
pub(super) const LEASE_TTL: Duration = Duration::from_secs(6);

/// How often an owner shows that it lives.
pub(super) const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(1_500);

/// Attempts to change a record that others change, too: one that moves queues may.
const MAX_ATTEMPTS: usize = 5;

/// Why a bridge does not go on.
#[derive(Debug)]
pub(super) enum BridgeError {
    /// Another server has the leader lease.
    LeaseLost,
    /// The target will not take a message, now or later.
    Rejected(Error),
    /// Something failed that may succeed another time.
    Failed(Error),
}

impl From<Error> for BridgeError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// What the record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    from: String,
    to: String,
    owner: Option<Uuid>,
    /// Names the staging queue, since the work was last taken up.
    stage: Uuid,
    /// The claim that is made in the source, or was made last.
    claim: Option<Uuid>,
    /// The store of the staging queue, as the text of a place.
    home: String,
    /// Makes each version of the record another one.
    beat: u64,
}

/// What has been begun: what the next who works on the bridge has to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// Where the staging queue is.
    pub(super) home: StoreId,
    /// The staging queue.
    pub(super) staging: QueueKey,
    /// The claim that may hold messages of the source.
    pub(super) claim: Option<ClaimId>,
}

/// What this server last knew of the record.
#[derive(Debug, Clone)]
struct CachedRecord {
    record: Record,
    placement: Placement,
    version: u64,
    /// When the last change began that succeeded.
    written: Instant,
}

#[derive(Debug)]
pub(super) struct LeaderLease {
    queues: Arc<dyn Queues>,
    key: QueueKey,
    rule: Rule,
    me: Uuid,
    cached: tokio::sync::Mutex<Option<CachedRecord>>,
    /// The version that a server without the leader lease last saw, and since when.
    seen: Mutex<Option<(u64, Instant)>>,
}

impl LeaderLease {
    pub(super) fn new(queues: Arc<dyn Queues>, rule: &Rule) -> Self {
        let name = format!("{}\0{}", rule.from, rule.to);
        let name = Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes());
        Self {
            queues,
            key: own_queue(&format!("bridge.{}", name.simple())),
            rule: rule.clone(),
            me: Uuid::new_v4(),
            cached: tokio::sync::Mutex::default(),
            seen: Mutex::default(),
        }
    }

    /// Takes the leader lease if nobody has it. Returns whether this server has it now.
    pub(super) async fn acquire(&self) -> Result<bool> {
        let found = match self.queues.find_queue(&self.key).await? {
            Some(found) => found,
            None => {
                let record = self.initial_record();
                let metadata = to_metadata(&record)?;
                let placement = Placement::default();
                self.queues
                    .create_queue(&self.key, &metadata, &placement)
                    .await?;
                // Whoever made it: what counts is what is there.
                match self.queues.find_queue(&self.key).await? {
                    Some(found) => found,
                    None => return Ok(false),
                }
            }
        };
        let record = read(&found).unwrap_or_else(|| self.initial_record());
        let is_mine = record.owner == Some(self.me);
        if !(is_mine || record.owner.is_none() || self.is_stale(found.version)) {
            return Ok(false);
        }
        let mut cached = self.cached.lock().await;
        *cached = Some(CachedRecord {
            record,
            placement: found.placement,
            version: found.version,
            written: Instant::now(),
        });
        let taken = write(self, &mut cached, Some(found.version), |record| {
            record.owner = Some(self.me);
        });
        match taken.await {
            Ok(()) => Ok(true),
            Err(BridgeError::LeaseLost) => Ok(false),
            Err(BridgeError::Rejected(error) | BridgeError::Failed(error)) => Err(error),
        }
    }

    /// Whether the record has been as it is for so long that its owner must be dead.
    fn is_stale(&self, version: u64) -> bool {
        let mut seen = self.seen();
        match *seen {
            Some((same, since)) if same == version => since.elapsed() >= LEASE_TTL,
            _ => {
                *seen = Some((version, Instant::now()));
                false
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Option<(u64, Instant)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn initial_record(&self) -> Record {
        Record {
            from: self.rule.from.to_string(),
            to: self.rule.to.to_string(),
            owner: None,
            stage: Uuid::new_v4(),
            claim: None,
            home: String::new(),
            beat: 0,
        }
    }

    /// What has been begun, as far as the owner knows.
    pub(super) async fn checkpoint(&self) -> Result<Checkpoint, BridgeError> {
        let cached = self.cached.lock().await;
        let record = &cached.as_ref().ok_or(BridgeError::LeaseLost)?.record;
        let home = Placement::parse(&record.home).unwrap_or_default();
        Ok(Checkpoint {
            home: home.last().store_id.clone(),
            staging: staging(record.stage),
            claim: record.claim.map(ClaimId),
        })
    }

    /// Notes what is about to be begun: a claim in the source, and a staging queue in that store.
    pub(super) async fn start_batch(
        &self,
        claim: ClaimId,
        home: &StoreId,
    ) -> Result<(), BridgeError> {
        let home = Placement::at(home.clone()).to_text();
        self.change(|record| {
            record.claim = Some(claim.0);
            record.home.clone_from(&home);
        })
        .await
    }

    /// Notes that nothing is begun any more, and that what comes next has a staging queue of its own.
    pub(super) async fn reset(&self) -> Result<(), BridgeError> {
        let next = Uuid::new_v4();
        self.change(|record| {
            record.claim = None;
            record.stage = next;
        })
        .await
    }

    /// Makes sure that this server still has the leader lease, unless it cannot have lost it yet.
    pub(super) async fn confirm_if_late(&self) -> Result<(), BridgeError> {
        let is_fresh = |cached: &CachedRecord| cached.written.elapsed() < LEASE_TTL / 2;
        if self.cached.lock().await.as_ref().is_some_and(is_fresh) {
            return Ok(());
        }
        self.confirm().await
    }

    /// Makes sure that this server still has the leader lease.
    pub(super) async fn confirm(&self) -> Result<(), BridgeError> {
        self.change(|_| {}).await
    }

    /// Shows that the owner lives, unless something has shown it a moment ago, or is about to.
    pub(super) async fn heartbeat(&self) -> Result<(), BridgeError> {
        let Ok(mut cached) = self.cached.try_lock() else {
            return Ok(());
        };
        let is_fresh = |cached: &CachedRecord| cached.written.elapsed() < HEARTBEAT_INTERVAL / 2;
        if cached.as_ref().is_some_and(is_fresh) {
            return Ok(());
        }
        write(self, &mut cached, None, |_| {}).await
    }

    /// Gives the leader lease back, for others to take at once.
    pub(super) async fn release(&self) {
        let left = self.change(|record| record.owner = None).await;
        if let Err(BridgeError::Failed(error)) = left {
            tracing::debug!(%error, from = %self.rule.from, to = %self.rule.to, "bridge lease could not be released; it expires by itself");
        }
        *self.cached.lock().await = None;
    }

    async fn change(&self, change: impl Fn(&mut Record)) -> Result<(), BridgeError> {
        let mut cached = self.cached.lock().await;
        write(self, &mut cached, None, change).await
    }
}

/// Changes the record. `LeaseLost` when this server is not its owner; when the leader lease is being taken, also when
/// the record is not of the version that it was.
async fn write(
    leader: &LeaderLease,
    held: &mut Option<CachedRecord>,
    taken: Option<u64>,
    change: impl Fn(&mut Record),
) -> Result<(), BridgeError> {
    let Some(cached) = held else {
        return Err(BridgeError::LeaseLost);
    };
    for _ in 0..MAX_ATTEMPTS {
        let mut record = cached.record.clone();
        change(&mut record);
        record.beat += 1;
        let metadata = to_metadata(&record)?;
        let now = Instant::now();
        let update =
            leader
                .queues
                .update_queue(&leader.key, &metadata, &cached.placement, cached.version);
        if let Some(version) = update.await? {
            (cached.record, cached.version) = (record, version);
            cached.written = now;
            return Ok(());
        }
        // Somebody has taken it; or the answer to an earlier change was lost; or the record has another place now.
        let found = leader.queues.find_queue(&leader.key).await?;
        match found.and_then(|found| Some((read(&found)?, found))) {
            Some((record, found)) if record.owner == Some(leader.me) && taken.is_none() => {
                (cached.record, cached.placement) = (record, found.placement);
                cached.version = found.version;
            }
            _ => {
                *held = None;
                return Err(BridgeError::LeaseLost);
            }
        }
    }
    let sentence = "the record of the bridge is being changed by other servers";
    Err(Error::new(ErrorKind::Unavailable, sentence).into())
}

/// The staging queue of this name: a queue that no client can name.
fn staging(name: Uuid) -> QueueKey {
    own_queue(&format!("stage.{}", name.simple()))
}

fn own_queue(name: &str) -> QueueKey {
    let project = ProjectId::parse("isimud").expect("the name of a project");
    let name = QueueName::parse(name).expect("the name of a queue");
    QueueKey::new(project, QueueName::internal(&name))
}

fn to_metadata(record: &Record) -> Result<Metadata> {
    match serde_json::to_value(record) {
        Ok(Value::Object(metadata)) => Ok(metadata),
        _ => Err(Error::new(
            ErrorKind::Internal,
            "the record of a bridge cannot be written",
        )),
    }
}

fn read(found: &QueueRecord) -> Option<Record> {
    serde_json::from_value(Value::Object(found.metadata.clone())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::{self, Context};
    use isimud_contract::ManualClock;

    fn management() -> Arc<dyn Queues> {
        let context = Context::new(Arc::new(ManualClock::default()), None);
        let store = drivers::open("sqlite::memory:", &context).expect("a store");
        store.management.expect("it keeps queues")
    }

    fn rule() -> Rule {
        Rule::parse("p/a", "p/b", None, None).expect("a rule")
    }

    #[tokio::test(start_paused = true)]
    async fn one_server_has_the_seat_until_it_leaves_or_falls_silent() {
        let management = management();
        let [one, two] = [(); 2].map(|()| LeaderLease::new(Arc::clone(&management), &rule()));
        assert!(one.acquire().await.expect("an answer"));
        assert!(!two.acquire().await.expect("an answer"));
        // A server that lives is not overtaken.
        for _ in 0..10 {
            tokio::time::advance(HEARTBEAT_INTERVAL).await;
            one.heartbeat().await.expect("it has the lease");
            assert!(!two.acquire().await.expect("an answer"));
        }
        let claim = ClaimId(Uuid::now_v7());
        one.start_batch(claim, &StoreId::Default)
            .await
            .expect("a note");
        assert!(!two.acquire().await.expect("an answer"));
        tokio::time::advance(LEASE_TTL).await;
        assert!(two.acquire().await.expect("an answer"));
        let checkpoint = two.checkpoint().await.expect("it has the lease");
        assert_eq!(checkpoint.claim, Some(claim));
        assert!(matches!(one.confirm().await, Err(BridgeError::LeaseLost)));
        assert!(matches!(
            one.checkpoint().await,
            Err(BridgeError::LeaseLost)
        ));

        two.reset().await.expect("a note");
        let anew = two.checkpoint().await.expect("it has the lease");
        assert!(anew.staging != checkpoint.staging && anew.claim.is_none());
        two.release().await;
        assert!(one.acquire().await.expect("an answer"));
        assert_eq!(one.checkpoint().await.expect("the lease"), anew);
    }

    #[tokio::test]
    async fn a_record_that_gets_another_place_meanwhile_keeps_it() {
        let management = management();
        let leader = LeaderLease::new(Arc::clone(&management), &rule());
        assert!(leader.acquire().await.expect("an answer"));
        let found = management.find_queue(&leader.key).await.expect("an answer");
        let found = found.expect("a record");
        let pool = isimud_contract::PoolName::parse("other").expect("a name");
        let placement = Placement::at(StoreId::Pool(pool));
        let update =
            management.update_queue(&leader.key, &found.metadata, &placement, found.version);
        update.await.expect("an answer").expect("a version");
        leader.confirm().await.expect("it has the lease");
        let found = management.find_queue(&leader.key).await.expect("an answer");
        assert_eq!(found.expect("a record").placement, placement);
    }
}
