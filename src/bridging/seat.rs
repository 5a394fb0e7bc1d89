//! The seat of a bridge: who has it, and what its owner has begun. It is the record of a queue of the service's own, in
//! the management store, which can only be changed by who knows its newest version.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isimud_contract::{
    ClaimId, Error, ErrorKind, Home, ManagementStore, Metadata, Place, ProjectId, QueueKey,
    QueueName, QueueRecord, Result,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use super::Rule;

/// How long a record has to stay as it is until its owner is taken to be dead.
pub(super) const TURN: Duration = Duration::from_secs(6);

/// How often an owner shows that it lives.
pub(super) const BEAT: Duration = Duration::from_millis(1_500);

/// Attempts to change a record that others change, too: one that moves queues may.
const ATTEMPTS: usize = 5;

/// Why a bridge does not go on.
#[derive(Debug)]
pub(super) enum Halt {
    /// Another server has the seat.
    Overtaken,
    /// The target will not take a message, now or later.
    Refused(Error),
    /// Something failed that may succeed another time.
    Failed(Error),
}

impl From<Error> for Halt {
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
    /// Names the stage, since the work was last taken up.
    stage: Uuid,
    /// The claim that is made in the source, or was made last.
    claim: Option<Uuid>,
    /// The store of the stage, as the text of a place.
    home: String,
    /// Makes each version of the record another one.
    beat: u64,
}

/// What has been begun: what the next who works on the bridge has to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Begun {
    /// Where the stage is.
    pub(super) home: Home,
    /// The stage.
    pub(super) stage: QueueKey,
    /// The claim that may hold messages of the source.
    pub(super) claim: Option<ClaimId>,
}

/// What this server last knew of the record.
#[derive(Debug, Clone)]
struct Known {
    record: Record,
    place: Place,
    version: u64,
    /// When the last change began that succeeded.
    written: Instant,
}

#[derive(Debug)]
pub(super) struct Seat {
    management: Arc<dyn ManagementStore>,
    key: QueueKey,
    rule: Rule,
    me: Uuid,
    known: tokio::sync::Mutex<Option<Known>>,
    /// The version that a server without the seat last saw, and since when.
    seen: Mutex<Option<(u64, Instant)>>,
}

impl Seat {
    pub(super) fn new(management: Arc<dyn ManagementStore>, rule: &Rule) -> Self {
        let name = format!("{}\0{}", rule.from, rule.to);
        let name = Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes());
        Self {
            management,
            key: own_queue(&format!("bridge.{}", name.simple())),
            rule: rule.clone(),
            me: Uuid::new_v4(),
            known: tokio::sync::Mutex::default(),
            seen: Mutex::default(),
        }
    }

    /// Takes the seat if nobody has it. Returns whether this server has it now.
    pub(super) async fn take(&self) -> Result<bool> {
        let found = match self.management.find_queue(&self.key).await? {
            Some(found) => found,
            None => {
                let record = self.first();
                let metadata = written(&record)?;
                let place = Place::default();
                self.management
                    .create_queue(&self.key, &metadata, &place)
                    .await?;
                // Whoever made it: what counts is what is there.
                match self.management.find_queue(&self.key).await? {
                    Some(found) => found,
                    None => return Ok(false),
                }
            }
        };
        let record = read(&found).unwrap_or_else(|| self.first());
        let is_mine = record.owner == Some(self.me);
        if !(is_mine || record.owner.is_none() || self.is_still(found.version)) {
            return Ok(false);
        }
        let mut known = self.known.lock().await;
        *known = Some(Known {
            record,
            place: found.place,
            version: found.version,
            written: Instant::now(),
        });
        let taken = write(self, &mut known, Some(found.version), |record| {
            record.owner = Some(self.me);
        });
        match taken.await {
            Ok(()) => Ok(true),
            Err(Halt::Overtaken) => Ok(false),
            Err(Halt::Refused(error) | Halt::Failed(error)) => Err(error),
        }
    }

    /// Whether the record has been as it is for so long that its owner must be dead.
    fn is_still(&self, version: u64) -> bool {
        let mut seen = self.seen();
        match *seen {
            Some((same, since)) if same == version => since.elapsed() >= TURN,
            _ => {
                *seen = Some((version, Instant::now()));
                false
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Option<(u64, Instant)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn first(&self) -> Record {
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
    pub(super) async fn begun(&self) -> Result<Begun, Halt> {
        let known = self.known.lock().await;
        let record = &known.as_ref().ok_or(Halt::Overtaken)?.record;
        let home = Place::parse(&record.home).unwrap_or_default();
        Ok(Begun {
            home: home.last().home.clone(),
            stage: stage(record.stage),
            claim: record.claim.map(ClaimId),
        })
    }

    /// Notes what is about to be begun: a claim in the source, and a stage in that store.
    pub(super) async fn begin(&self, claim: ClaimId, home: &Home) -> Result<(), Halt> {
        let home = Place::at(home.clone()).to_text();
        self.change(|record| {
            record.claim = Some(claim.0);
            record.home.clone_from(&home);
        })
        .await
    }

    /// Notes that nothing is begun any more, and that what comes next has a stage of its own.
    pub(super) async fn begin_anew(&self) -> Result<(), Halt> {
        let next = Uuid::new_v4();
        self.change(|record| {
            record.claim = None;
            record.stage = next;
        })
        .await
    }

    /// Makes sure that this server still has the seat, unless it cannot have lost it yet.
    pub(super) async fn confirm_if_late(&self) -> Result<(), Halt> {
        let is_fresh = |known: &Known| known.written.elapsed() < TURN / 2;
        if self.known.lock().await.as_ref().is_some_and(is_fresh) {
            return Ok(());
        }
        self.confirm().await
    }

    /// Makes sure that this server still has the seat.
    pub(super) async fn confirm(&self) -> Result<(), Halt> {
        self.change(|_| {}).await
    }

    /// Shows that the owner lives, unless something has shown it a moment ago, or is about to.
    pub(super) async fn beat(&self) -> Result<(), Halt> {
        let Ok(mut known) = self.known.try_lock() else {
            return Ok(());
        };
        let is_fresh = |known: &Known| known.written.elapsed() < BEAT / 2;
        if known.as_ref().is_some_and(is_fresh) {
            return Ok(());
        }
        write(self, &mut known, None, |_| {}).await
    }

    /// Gives the seat back, for others to take at once.
    pub(super) async fn leave(&self) {
        let left = self.change(|record| record.owner = None).await;
        if let Err(Halt::Failed(error)) = left {
            tracing::debug!(%error, "a bridge is taken over when its seat has been quiet for a while");
        }
        *self.known.lock().await = None;
    }

    async fn change(&self, change: impl Fn(&mut Record)) -> Result<(), Halt> {
        let mut known = self.known.lock().await;
        write(self, &mut known, None, change).await
    }
}

/// Changes the record. `Overtaken` when this server is not its owner; when the seat is being taken, also when the record
/// is not of the version that it was.
async fn write(
    seat: &Seat,
    held: &mut Option<Known>,
    taken: Option<u64>,
    change: impl Fn(&mut Record),
) -> Result<(), Halt> {
    let Some(known) = held else {
        return Err(Halt::Overtaken);
    };
    for _ in 0..ATTEMPTS {
        let mut record = known.record.clone();
        change(&mut record);
        record.beat += 1;
        let metadata = written(&record)?;
        let now = Instant::now();
        let update =
            seat.management
                .update_queue(&seat.key, &metadata, &known.place, known.version);
        if let Some(version) = update.await? {
            (known.record, known.version) = (record, version);
            known.written = now;
            return Ok(());
        }
        // Somebody has taken it; or the answer to an earlier change was lost; or the record has another place now.
        let found = seat.management.find_queue(&seat.key).await?;
        match found.and_then(|found| Some((read(&found)?, found))) {
            Some((record, found)) if record.owner == Some(seat.me) && taken.is_none() => {
                (known.record, known.place) = (record, found.place);
                known.version = found.version;
            }
            _ => {
                *held = None;
                return Err(Halt::Overtaken);
            }
        }
    }
    let sentence = "the record of a bridge is being changed by others";
    Err(Error::new(ErrorKind::Unavailable, sentence).into())
}

/// The stage of this name: a queue that no client can name.
fn stage(name: Uuid) -> QueueKey {
    own_queue(&format!("stage.{}", name.simple()))
}

fn own_queue(name: &str) -> QueueKey {
    let project = ProjectId::parse("isimud").expect("the name of a project");
    let name = QueueName::parse(name).expect("the name of a queue");
    QueueKey::new(project, QueueName::internal(&name))
}

fn written(record: &Record) -> Result<Metadata> {
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

    fn management() -> Arc<dyn ManagementStore> {
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
        let [one, two] = [(); 2].map(|()| Seat::new(Arc::clone(&management), &rule()));
        assert!(one.take().await.expect("an answer"));
        assert!(!two.take().await.expect("an answer"));
        // A server that lives is not overtaken.
        for _ in 0..10 {
            tokio::time::advance(BEAT).await;
            one.beat().await.expect("it has the seat");
            assert!(!two.take().await.expect("an answer"));
        }
        let claim = ClaimId(Uuid::now_v7());
        one.begin(claim, &Home::Default).await.expect("a note");
        assert!(!two.take().await.expect("an answer"));
        tokio::time::advance(TURN).await;
        assert!(two.take().await.expect("an answer"));
        let begun = two.begun().await.expect("it has the seat");
        assert_eq!(begun.claim, Some(claim));
        assert!(matches!(one.confirm().await, Err(Halt::Overtaken)));
        assert!(matches!(one.begun().await, Err(Halt::Overtaken)));

        two.begin_anew().await.expect("a note");
        let anew = two.begun().await.expect("it has the seat");
        assert!(anew.stage != begun.stage && anew.claim.is_none());
        two.leave().await;
        assert!(one.take().await.expect("an answer"));
        assert_eq!(one.begun().await.expect("the seat"), anew);
    }

    #[tokio::test]
    async fn a_record_that_gets_another_place_meanwhile_keeps_it() {
        let management = management();
        let seat = Seat::new(Arc::clone(&management), &rule());
        assert!(seat.take().await.expect("an answer"));
        let found = management.find_queue(&seat.key).await.expect("an answer");
        let found = found.expect("a record");
        let pool = isimud_contract::PoolName::parse("other").expect("a name");
        let place = Place::at(Home::Pool(pool));
        let update = management.update_queue(&seat.key, &found.metadata, &place, found.version);
        update.await.expect("an answer").expect("a version");
        seat.confirm().await.expect("it has the seat");
        let found = management.find_queue(&seat.key).await.expect("an answer");
        assert_eq!(found.expect("a record").place, place);
    }
}
