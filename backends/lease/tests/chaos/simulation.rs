//! One run: two servers, clients, accidents, and at the end a count of what is left.

use std::any::Any;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use isimud_contract::{
    ClaimId, ClientId, Clock, DeadLetter, ErrorKind, Lease, ManualClock, Message, MessageId,
    MessageStore, Precondition, ProjectId, QueueKey, QueueName, Selection, Stands, Timestamp,
};
use isimud_lease::fake::{FakeServer, FaultProfile};
use isimud_lease::{Journal, Leased};
use isimud_sqlite::{Config, SqliteStore};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::model::Model;
use crate::shaky::{Fate, Sabotage, ShakyBroker, ShakyLedger, Skewed};

const STEPS: usize = 220;
/// What everybody says once a check has failed.
const ENDED: &str = "a check has failed";
const DAYS: Duration = Duration::from_secs(14 * 24 * 3600);
/// How far a server's clock is from the ledger's, at the most.
const SKEW_SECS: i64 = 600;

/// What a run is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) faults: FaultProfile,
    pub(crate) journal: Journal,
    pub(crate) sabotage: Sabotage,
}

#[derive(Debug, Clone)]
pub(crate) struct Simulation {
    clock: Arc<ManualClock>,
    broker: Arc<FakeServer>,
    ledgers: Arc<SqliteStore>,
    pub(crate) fate: Arc<Fate>,
    pub(crate) model: Arc<Mutex<Model>>,
    journal: Journal,
}

/// A server, and what its clients are doing.
struct Server {
    store: Arc<dyn MessageStore>,
    calls: Vec<JoinHandle<()>>,
}

fn queue(name: &str) -> QueueKey {
    QueueKey::new(
        ProjectId::parse("project").expect("a project"),
        QueueName::parse(name).expect("a name"),
    )
}

fn dead() -> QueueKey {
    queue("dead")
}

/// Runs a plan. What is wrong panics.
pub(crate) async fn run(plan: Plan, seed: u64) -> Simulation {
    let clock = Arc::<ManualClock>::default();
    let fate = Fate::new(seed, plan.sabotage);
    let ledgers = SqliteStore::open(Config::memory(), Arc::clone(&clock) as _);
    let simulation = Simulation {
        broker: FakeServer::new(Arc::clone(&clock) as _, plan.faults, seed),
        ledgers: ledgers.expect("a store in memory"),
        clock,
        fate,
        model: Arc::default(),
        journal: plan.journal,
    };
    let failures = plan.faults.failures;
    simulation.fate.failures.store(failures, Ordering::Relaxed);
    let mut servers = [simulation.start(), simulation.start()];
    for _ in 0..STEPS {
        let choice = simulation.fate.roll(|random| random.usize(..servers.len()));
        let server = &mut servers[choice];
        match simulation.fate.roll(|random| random.u8(..40)) {
            0 => {
                // It dies in the middle of everything.
                let unfinished = server.calls.extract_if(.., |call| !call.is_finished());
                unfinished.for_each(|call| call.abort());
                simulation.settle(std::slice::from_mut(server)).await;
                simulation.fate.pause().await;
                *server = simulation.start();
            }
            1..=8 => simulation.pass_time(),
            9..=14 => simulation.settle(&mut servers).await,
            _ => {
                let call = simulation.clone().call(Arc::clone(&server.store));
                server.calls.push(tokio::spawn(call));
            }
        }
        simulation.fate.pause().await;
    }
    simulation.settle(&mut servers).await;
    simulation.count(plan.faults, &servers).await;
    simulation
}

impl Simulation {
    fn start(&self) -> Server {
        let skew = match self.fate.roll(|random| random.u8(..3)) {
            0 => 0,
            1 => self.fate.roll(|random| random.i64(-SKEW_SECS..0)),
            _ => self.fate.roll(|random| random.i64(1..SKEW_SECS)),
        };
        let broker = ShakyBroker {
            inner: self.broker.connect(),
            fate: Arc::clone(&self.fate),
            dead: dead(),
        };
        let ledger = ShakyLedger {
            inner: self.ledgers.ledger("pool"),
            fate: Arc::clone(&self.fate),
        };
        let clock = Skewed {
            clock: Arc::clone(&self.clock),
            millis: skew * 1000,
        };
        let store = Leased::new(broker, Arc::new(ledger), Arc::new(clock), self.journal);
        Server {
            store: Arc::new(store),
            calls: Vec::new(),
        }
    }

    fn pass_time(&self) {
        let seconds = self.fate.roll(|random| {
            let most = [1, 30, 120, 700][random.usize(..4)];
            random.u64(..=most)
        });
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Waits for every call. Of the panics it passes on the first that is not about another one.
    async fn settle(&self, servers: &mut [Server]) {
        let mut panics = Vec::new();
        for call in servers.iter_mut().flat_map(|server| server.calls.drain(..)) {
            let panic = call.await.err().and_then(|stop| stop.try_into_panic().ok());
            panics.extend(panic);
        }
        let about_another = |panic: &Box<dyn Any + Send>| {
            let text = panic.downcast_ref::<String>();
            text.is_some_and(|text| text.starts_with(ENDED))
        };
        panics.sort_by_key(about_another);
        if let Some(panic) = panics.into_iter().next() {
            std::panic::resume_unwind(panic);
        }
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().expect(ENDED)
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn mint(&self) -> Uuid {
        Uuid::from_u128(self.fate.roll(|random| random.u128(..)))
    }

    fn some_queue(&self) -> QueueKey {
        match self.fate.roll(|random| random.u8(..5)) {
            0 | 1 => queue("one"),
            2 | 3 => queue("two"),
            _ => dead(),
        }
    }

    fn some_ttl(&self) -> Duration {
        Duration::from_secs(self.fate.roll(|random| random.u64(60..=600)))
    }

    async fn call(self, store: Arc<dyn MessageStore>) {
        match self.fate.roll(|random| random.u8(..100)) {
            0..25 => self.post(&*store).await,
            25..55 => self.claim(&*store).await,
            55..72 => self.delete_held(&*store).await,
            72..76 => self.delete_free(&*store).await,
            76..80 => self.pop(&*store).await,
            80..86 => self.renew(&*store).await,
            86..91 => self.release(&*store).await,
            91..95 => self.find(&*store).await,
            95..98 => self.list(&*store).await,
            _ => self.purge(&*store).await,
        }
    }

    async fn post(&self, store: &dyn MessageStore) {
        let queue = self.some_queue();
        let count = self.fate.roll(|random| random.usize(1..=6));
        let mut messages = Vec::new();
        for _ in 0..count {
            let lasting = !self.fate.one_in(4);
            let ttl = if lasting { DAYS } else { self.some_ttl() };
            let id = MessageId(self.mint());
            let mut message = Message::new(id, ClientId::Uuid(Uuid::nil()), ttl, "1");
            if self.fate.one_in(4) {
                message.delay = self.some_ttl();
            }
            let posted = crate::model::Posted {
                queue: queue.clone(),
                confirmed: None,
                lasting,
                doubts: 0,
                found: false,
            };
            self.model().messages.insert(id, posted);
            messages.push(message);
        }
        for _ in 0..3 {
            let posted = store.post(&queue, messages.clone()).await;
            let mut model = self.model();
            if posted.is_ok() {
                let tick = model.tick();
                for message in &messages {
                    let posted = model.messages.get_mut(&message.id);
                    posted.expect("it was entered").confirmed = Some(tick);
                }
                return model.serve("post");
            }
            model.failed += 1;
            drop(model);
            if self.fate.one_in(2) {
                return;
            }
        }
    }

    fn lease(&self, queue: &QueueKey) -> Lease {
        let policy = DeadLetter {
            queue: dead(),
            max_claims: self.fate.roll(|random| random.u32(1..4)),
            ttl: self.fate.one_in(2).then_some(DAYS),
            stands: Stands::Last(0),
        };
        let strict = *queue != dead() && self.fate.one_in(2);
        Lease {
            id: ClaimId(self.mint()),
            ttl: self.some_ttl(),
            grace: Duration::from_secs(60),
            dead_letter: strict.then_some(policy),
        }
    }

    async fn claim(&self, store: &dyn MessageStore) {
        let queue = self.some_queue();
        let lease = self.lease(&queue);
        let limit = self.fate.roll(|random| random.usize(1..=8));
        let (begun, began) = (self.model().tick(), self.now());
        let answer = store.claim(&queue, &lease, limit).await;
        let mut model = self.model();
        match answer {
            Ok(None) => {}
            Ok(Some(claim)) => {
                assert!(claim.messages.len() <= limit, "more than was asked for");
                let ids: Vec<_> = claim.messages.iter().map(|message| message.id).collect();
                model.check_shown("a claim", &queue, &ids, begun);
                model.claimed(&queue, &claim, (begun, began), self.now());
                model.serve("claim");
            }
            Err(_) => model.failed += 1,
        }
    }

    async fn delete_held(&self, store: &dyn MessageStore) {
        let choice = self.fate.roll(|random| random.usize(..));
        let Some((claim, queue, mut ids)) = self.model().some_claim(choice) else {
            return;
        };
        ids.truncate(self.fate.roll(|random| random.usize(1..=8)));
        // They are surely held if the claim runs and nobody else may have removed them.
        let sure = self.model().surely_holds(claim);
        let sure = ids.iter().all(|id| sure.contains(id));
        self.model().doubt(&ids);
        let deleted = store
            .delete(&queue, &ids, Precondition::ClaimedBy(vec![claim]))
            .await;
        let runs = self.model().runs(claim, self.now());
        let mut model = self.model();
        match deleted {
            Ok(count) => {
                model.deleted(&queue, &ids, count);
                model.serve("delete");
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => model.failed += 1,
            Err(error) => {
                assert!(!(sure && runs), "a holder cannot delete: {error}");
                model.trust(&ids);
            }
        }
    }

    /// Deletes by id alone, which takes a journal.
    async fn delete_free(&self, store: &dyn MessageStore) {
        let queue = self.some_queue();
        let ids = self.model().confirmed(&queue);
        if ids.is_empty() {
            return;
        }
        let id = [ids[self.fate.roll(|random| random.usize(..ids.len()))]];
        let free = self.fate.one_in(2);
        let precondition = if free {
            Precondition::Unclaimed
        } else {
            Precondition::None
        };
        self.model().doubt(&id);
        if !free {
            let mut model = self.model();
            model.may_end_all(&queue);
        }
        let deleted = store.delete(&queue, &id, precondition).await;
        let mut model = self.model();
        match deleted {
            Ok(count) => {
                model.deleted(&queue, &id, count);
                model.serve("delete by id");
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => model.failed += 1,
            Err(_) => model.trust(&id),
        }
    }

    async fn pop(&self, store: &dyn MessageStore) {
        let queue = self.some_queue();
        let begun = self.model().tick();
        let popped = store.pop(&queue, 3).await;
        let mut model = self.model();
        match popped {
            Ok(popped) => {
                let ids: Vec<_> = popped.iter().map(|message| message.id).collect();
                model.check_shown("a pop", &queue, &ids, begun);
                model.doubt(&ids);
                model.is_gone(&queue, &ids);
                model.serve("pop");
            }
            Err(_) => model.failed += 1,
        }
    }

    async fn renew(&self, store: &dyn MessageStore) {
        let choice = self.fate.roll(|random| random.usize(..));
        let Some((claim, queue, _)) = self.model().some_claim(choice) else {
            return;
        };
        let lease = Lease {
            id: claim,
            ..self.lease(&queue)
        };
        let began = self.now();
        self.model().may_renew(claim, began, lease.ttl);
        let renewed = store.renew_claim(&queue, &lease).await;
        let now = self.now();
        let mut model = self.model();
        let terms = renewed.is_ok().then_some((began, lease.ttl));
        model.renewed(claim, terms);
        match renewed {
            Ok(()) => {
                model.serve("renewal");
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => model.failed += 1,
            Err(error) => {
                let lost = model.runs(claim, now) && !model.surely_holds(claim).is_empty();
                assert!(!lost, "a live claim cannot be renewed: {error}");
            }
        }
    }

    async fn release(&self, store: &dyn MessageStore) {
        let choice = self.fate.roll(|random| random.usize(..));
        let Some((claim, queue, _)) = self.model().some_claim(choice) else {
            return;
        };
        self.model().may_end(claim);
        let released = store.release_claim(&queue, claim).await;
        let mut model = self.model();
        match released {
            Ok(()) => model.serve("release"),
            Err(_) => model.failed += 1,
        }
    }

    async fn find(&self, store: &dyn MessageStore) {
        let choice = self.fate.roll(|random| random.usize(..));
        let Some((claim, queue, _)) = self.model().some_claim(choice) else {
            return;
        };
        let begun = self.model().tick();
        let found = store.find_claim(&queue, claim).await;
        let now = self.now();
        let mut model = self.model();
        match found {
            Ok(found) => {
                let ids: Vec<_> = found.messages.iter().map(|message| message.id).collect();
                model.check_shown("a claim that is read", &queue, &ids, begun);
                model.serve("find");
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => model.failed += 1,
            Err(error) => {
                let lost = model.runs(claim, now) && !model.surely_holds(claim).is_empty();
                assert!(!lost, "a live claim is not found: {error}");
            }
        }
    }

    async fn list(&self, store: &dyn MessageStore) {
        let queue = self.some_queue();
        let begun = self.model().tick();
        let Ok(page) = store.list(&queue, everything()).await else {
            return;
        };
        let ids: Vec<_> = page.messages.iter().map(|message| message.id).collect();
        let mut model = self.model();
        model.check_shown("a listing", &queue, &ids, begun);
        model.serve("listing");
    }

    async fn purge(&self, store: &dyn MessageStore) {
        let queue = self.some_queue();
        let before = {
            let mut model = self.model();
            let everywhere = queue == dead();
            // What is posted meanwhile may be purged or not; what was moved may be there.
            let ids: Vec<_> = model.messages.keys().copied().collect();
            let there = |id: &&MessageId| everywhere || model.messages[id].queue == queue;
            let there: Vec<_> = ids.iter().filter(there).copied().collect();
            model.doubt(&there);
            model.may_end_all(&queue);
            model.confirmed(&queue)
        };
        let mut during = Purging(self, queue.clone(), false);
        // A purge that failed half way is repeated, as its caller is told to.
        for _ in 0..6 {
            if store.purge(&queue).await.is_ok() {
                let mut model = self.model();
                model.may_end_all(&queue);
                model.serve("purge");
                if self.journal == Journal::On {
                    model.is_gone(&queue, &before);
                }
                during.2 = true;
                break;
            }
            self.model().failed += 1;
        }
    }

    /// Ends all faults, and takes out what is left until nothing comes any more.
    async fn count(&self, faults: FaultProfile, servers: &[Server]) {
        self.fate.failures.store(0, Ordering::Relaxed);
        self.broker.turn_into(FaultProfile {
            failures: 0,
            duplicates: 0,
            ..faults
        });
        {
            let popped = std::mem::take(&mut *self.fate.popped.lock().expect("no panic"));
            let ids: Vec<_> = popped.into_iter().map(|(_, id)| id).collect();
            self.model().doubt(&ids);
        }
        // Longer than any hold, claim or delay, renewed lives and clocks included.
        let mut quiet = 0;
        while quiet < 30 {
            quiet += 1;
            self.clock.advance(Duration::from_secs(120));
            for (server, name) in servers.iter().zip([["one", "two", "dead"]; 2]) {
                for queue in name.map(queue) {
                    if self.take_all(&*server.store, &queue).await {
                        quiet = 0;
                    }
                }
            }
        }
        self.model().check_found();
        // **What is listed can be delivered**: nothing is left in the ledger that was not found. (But a broker that is
        // left half purged has forgotten messages, and one that expires messages forgets what was not copied in time.)
        let whole = !self.model().half_purged && !faults.expires_messages;
        if whole && self.journal == Journal::On {
            for queue in ["one", "two", "dead"].map(queue) {
                let page = servers[0].store.list(&queue, everything()).await;
                let left = page.expect("no faults").messages;
                assert!(left.is_empty(), "listed, and never delivered: {left:?}");
            }
        }
    }

    async fn take_all(&self, store: &dyn MessageStore, queue: &QueueKey) -> bool {
        let lease = Lease {
            dead_letter: None,
            ..self.lease(queue)
        };
        let (begun, began) = (self.model().tick(), self.now());
        let claim = store.claim(queue, &lease, 50).await.expect("no faults");
        let Some(claim) = claim else {
            return false;
        };
        let ids: Vec<_> = claim.messages.iter().map(|message| message.id).collect();
        {
            let mut model = self.model();
            model.check_shown("the last count", queue, &ids, begun);
            model.claimed(queue, &claim, (begun, began), self.now());
            for id in &ids {
                let posted = model.messages.get_mut(id);
                posted.expect("nobody else posts").found = true;
            }
        }
        let precondition = Precondition::ClaimedBy(vec![claim.id]);
        let gone = store
            .delete(queue, &ids, precondition)
            .await
            .expect("no faults");
        assert_eq!(gone, ids.len());
        self.model().is_gone(queue, &ids);
        true
    }
}

/// A purge under way, and whether it was done. However it ends, what was posted meanwhile may be gone.
struct Purging<'a>(&'a Simulation, QueueKey, bool);

impl Drop for Purging<'_> {
    fn drop(&mut self) {
        if let Ok(mut model) = self.0.model.lock() {
            for message in model.messages.values_mut() {
                message.doubts += usize::from(message.queue == self.1);
            }
            model.half_purged |= !self.2;
        }
    }
}

fn everything() -> Selection {
    Selection {
        after: None,
        limit: 10_000,
        not_from: None,
        include_claimed: true,
        include_delayed: true,
    }
}
