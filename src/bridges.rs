//! Bridges transfer messages from one queue to another, whatever stores the two are in, until they are stopped.
//!
//! ```text
//! rule           what a bridge is: from, to, how fast, where to with what the target refuses
//! bridge         one bridge: acquires the leader lease, transfers batches, retries while a store is down
//! transfer       one batch from end to end, and the recovery of one that was cut off
//! leader_lease   which server runs the bridge, and its checkpoint: a record in the management store
//! status         state and counters: for operators and their metrics
//! ```
//!
//! A rule of the configuration runs on every server that has it, and one that a command asks for runs on the server that
//! was asked, until nobody has asked for a while. One server at a time has the *leader lease* of a bridge, a record
//! that it changes before each batch and at least every other second. Another server acquires the lease when it was
//! released, or when the record has not changed for six seconds: no clocks are compared. A server that lost the lease
//! finds out at its next change, and stops.
//!
//! # A batch
//!
//! ```text
//!     1  the lease's record names the claim that is about to be made, and the store of the target
//!     2  the oldest messages of the source are claimed
//!     3  they are posted, under their ids and transferred once more, to a staging queue: beside the target, and read
//!        by nobody
//!     4  they are deleted from the source, as held by that claim
//!     5  they move on from the staging queue to the target, in one step of its store, as dead letters do
//! ```
//!
//! A target that remembers what was deleted, by id and number of transfers (a broker with a ledger), needs no staging
//! queue: it gets the messages in step 3, and step 5 is left out. A batch that comes again is the same post to it; a
//! message that was there before, went elsewhere and comes back has been transferred more often and is another one. The
//! ids alone would not do for the others: what was consumed and deleted there is unknown, and a batch that comes again
//! would be delivered again.
//!
//! What is cut off (the process dies, a store does not answer, an answer is lost) is taken up by the next who works on the
//! bridge, from the lease's record. A message that was transferred `n` times before:
//!
//! | cut off after | what is where | what is done |
//! |---|---|---|
//! | 1 | everything in the source | the claim, if it was made, is released |
//! | 2 | claimed in the source | the claim is released: the messages are free in their old places, so order holds |
//! | 3, with a staging queue | `n` in the source, `n + 1` in the staging queue, visible in neither | deleted from the source as held by the claim, then 5 |
//! | 3, without | `n` in the source, `n + 1` in the target, perhaps consumed | the claim is released; they are posted again as `n + 1`, and the target knows them, also as consumed |
//! | 4 | in the staging queue alone | 5 |
//! | 5 | in the target alone, as `n + 2` (as `n + 1` without a staging queue) | nothing |
//!
//! Each time the work is taken up it gets a **new staging queue**. So a post that comes late, sent by a server that has
//! lost the leader lease or by a connection that was given up, ends in a staging queue that nobody looks at any more,
//! and its messages are still in the source: the delete that would follow is refused, because the claim is no more. The
//! owner of an old claim that finds fewer messages deleted than it posted asks for the leader lease before it goes on
//! with step 5, and one whose claim took long asks before step 3.
//!
//! # What is promised
//!
//! * **Nothing is lost**, and the order of one producer is kept: one server transfers, a batch at a time, from the
//!   head. A source that has no order, or loses it when a server dies that it had delivered to (a broker may put back
//!   what was delivered in any order), gives its messages as it will.
//! * **Exactly once** into the embedded store, into Redis and into every store with a ledger, over crashes of everything.
//!   It ends where a store's own promises do: in a Redis Cluster the staging queue and the target are on different
//!   servers and step 5 is two steps; consumers that read a broker directly, past this service, see the copies that its
//!   ledger sorts out; a target whose home is changed while a batch is cut off gets that batch at least once.
//!   One gap is known: a server whose claim was on its way for longer than it takes another to get the leader lease,
//!   whose delete arrives later still, and which is killed before step 5, leaves its batch in a staging queue that
//!   nobody looks at.
//! * A message keeps its id, its client, its age and the life that it has left, and its checksum. One that would end
//!   within the half minute that a batch may take lives for that long. A **delay** is waited out in the source.
//!   Claims are counted anew.
//! * Encryption is the target's affair: what was encrypted is decrypted, and encrypted again if the target does that.
//! * Subscribers of the target are notified; those of the source were when the message was posted there.
//! * Messages that others hold in the source are not taken away from them. What they delete is never transferred.
//!
//! # What the target refuses for good
//!
//! A body that is too large for the target, or that it cannot carry, goes to the bridge's dead-letter queue, under the
//! same id. Without such a queue the bridge **stops**: everything before that message has been transferred, it and what
//! is behind it stay in the source, an error is logged, and the metric `isimud_bridge_up` is 0. A rule tries again
//! every minute, and goes on when the message is gone; a command ends with the error. Whatever else fails is waited
//! out, with pauses that grow to five seconds.
//!
//! # Roads not taken
//!
//! * *Ids derived from the source's.* The same id in both queues lets a client follow its message, and a store that
//!   has it keeps the copy out by itself. A message that is bridged back has its old id again, and is not looped by us:
//!   rules that form a circle are refused.
//! * *The claim as the leader lease.* Claims end by a store's clock, and a message that stands for a bridge cannot
//!   be changed; the record of a queue can, and only as its last reader knew it.
//! * *A second server as a hot spare that shares the batches.* It would be faster, and lose the order.

mod bridge;
#[cfg(test)]
mod crash_tests;
mod leader_lease;
mod rule;
mod status;
mod transfer;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isimud_contract::{Error, ManagementStore, Result};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use self::rule::{Rule, check_rules, parse_queue};
pub use self::status::{BridgeObserver, Lag, State, Status};

use self::bridge::Bridge;
use self::rule::Pair;
use crate::messaging::Messaging;

/// How long a bridge runs after the last request of the command that has started it.
const REQUEST_TTL: Duration = Duration::from_secs(15);

/// How often that is checked.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How long a bridge that ends may take for what it has begun.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Bridges that commands may ask one server for at the same time.
const MAX_REQUESTED_BRIDGES: usize = 64;

/// The bridges of one server.
pub struct Bridges {
    messaging: Arc<Messaging>,
    management: Arc<dyn ManagementStore>,
    observer: Arc<dyn BridgeObserver>,
    rules: Vec<Rule>,
    running: Mutex<HashMap<Pair, Running>>,
}

struct Running {
    bridge: Arc<Bridge>,
    is_rule: bool,
    requested_at: tokio::time::Instant,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl fmt::Debug for Bridges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridges")
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

impl Bridges {
    /// The rules of a configuration; nothing runs yet.
    pub fn new(
        messaging: Arc<Messaging>,
        management: Arc<dyn ManagementStore>,
        observer: Arc<dyn BridgeObserver>,
        rules: Vec<Rule>,
    ) -> Self {
        Self {
            messaging,
            management,
            observer,
            rules,
            running: Mutex::default(),
        }
    }

    /// Runs the rules, and what commands ask for, until told to stop; then finishes the batches under way.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        for rule in &self.rules {
            let running = self.start(rule.clone(), true);
            self.running().insert(rule.pair(), running);
        }
        let mut look = tokio::time::interval(POLL_INTERVAL);
        loop {
            let is_over = tokio::select! {
                _ = look.tick() => false,
                _ = stop.wait_for(|stop| *stop) => true,
            };
            if is_over {
                break;
            }
            self.stop_unrequested().await;
        }
        let all: Vec<Running> = self.running().drain().map(|(_, one)| one).collect();
        for one in &all {
            one.stop.send_replace(true);
        }
        for one in all {
            one.end().await;
        }
    }

    /// Has a bridge run from now on, for as long as this is repeated every few seconds. One that is a rule runs by the
    /// rule. Says how it goes.
    pub async fn request(&self, rule: Rule) -> Result<Status> {
        self.check(&rule)?;
        let changed = {
            let mut running = self.running();
            match running.get_mut(&rule.pair()) {
                Some(one) if one.is_rule || *one.bridge.rule() == rule => {
                    one.requested_at = tokio::time::Instant::now();
                    return Ok(one.bridge.status());
                }
                Some(_) => running.remove(&rule.pair()),
                None => None,
            }
        };
        if let Some(other) = changed {
            other.end().await;
        }
        // Only here: one that runs may go on though its source has gone.
        if self.messaging.queue_exists(&rule.from).await? {
            return self.start_requested(rule);
        }
        let sentence = format!("Queue {} does not exist", rule.from.name.shown());
        let queue = isimud_contract::ErrorKind::NotFound(isimud_contract::Resource::Queue);
        Err(Error::new(queue, sentence))
    }

    /// Whether it runs already just as it is asked for, or by a rule.
    pub fn is_running(&self, rule: &Rule) -> bool {
        let running = self.running();
        let one = running.get(&rule.pair());
        one.is_some_and(|one| one.is_rule || *one.bridge.rule() == *rule)
    }

    /// Refuses a bridge that would send round what others of this server bring.
    fn check(&self, rule: &Rule) -> Result<()> {
        let running = self.running();
        let others = running.values().map(|one| one.bridge.rule());
        let others = others.filter(|other| other.pair() != rule.pair());
        check_rules(others.chain([rule])).map_err(Error::invalid)
    }

    fn start_requested(&self, rule: Rule) -> Result<Status> {
        let mut running = self.running();
        if let Some(one) = running.get(&rule.pair()) {
            return Ok(one.bridge.status());
        }
        if running.values().filter(|one| !one.is_rule).count() >= MAX_REQUESTED_BRIDGES {
            return Err(Error::invalid("This server runs too many bridges."));
        }
        let pair = rule.pair();
        let one = self.start(rule, false);
        let status = one.bridge.status();
        running.insert(pair, one);
        Ok(status)
    }

    /// Ends a bridge that a command has asked for. Says how it went; `None` where it does not run. `Invalid` for a rule.
    pub async fn end(&self, rule: &Rule) -> Result<Option<Status>> {
        let ended = {
            let mut running = self.running();
            if running.get(&rule.pair()).is_some_and(|one| one.is_rule) {
                let sentence = "This bridge is a rule of the configuration; it ends when it is taken out there.";
                return Err(Error::invalid(sentence));
            }
            running.remove(&rule.pair())
        };
        Ok(match ended {
            Some(one) => {
                let bridge = Arc::clone(&one.bridge);
                one.end().await;
                Some(bridge.status())
            }
            None => None,
        })
    }

    /// How each bridge of this server goes.
    pub fn statuses(&self) -> Vec<(Rule, Status)> {
        let running = self.running();
        let mut all: Vec<(Rule, Status)> = running
            .values()
            .map(|one| (one.bridge.rule().clone(), one.bridge.status()))
            .collect();
        all.sort_by_key(|(one, _)| one.pair());
        all
    }

    fn start(&self, rule: Rule, is_rule: bool) -> Running {
        let bridge = Arc::new(Bridge::new(
            rule,
            Arc::clone(&self.messaging),
            Arc::clone(&self.management),
            Arc::clone(&self.observer),
        ));
        let (stop, told) = watch::channel(false);
        Running {
            task: tokio::spawn(Arc::clone(&bridge).run(told)),
            bridge,
            is_rule,
            requested_at: tokio::time::Instant::now(),
            stop,
        }
    }

    async fn stop_unrequested(&self) {
        let is_unrequested =
            |one: &mut Running| !one.is_rule && one.requested_at.elapsed() > REQUEST_TTL;
        let unrequested: Vec<Running> = self
            .running()
            .extract_if(|_, one| is_unrequested(one))
            .map(|(_, one)| one)
            .collect();
        for one in unrequested {
            one.end().await;
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Pair, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    /// Lets the batch under way finish.
    async fn end(self) {
        self.stop.send_replace(true);
        let mut task = self.task;
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, &mut task)
            .await
            .is_err()
        {
            task.abort();
        }
    }
}
