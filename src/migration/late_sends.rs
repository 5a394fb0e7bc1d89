//! Carrying into a broker that carries out a send long after it was given up, as a server does that is slower than the
//! time limit: what was sent then comes beside what was sent again.

use std::slice::from_ref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use isimud_contract::{
    Capabilities, ClaimId, ClientId, Clock, Delivery, Error, ErrorKind, Lease, ManualClock,
    Message, MessageId, MessageStore, ProjectId, QueueKey, QueueName, Receipt, Resource, Result,
};
use isimud_lease::fake::{FakeBroker, FakeServer, FaultProfile};
use isimud_lease::{Depth, Envelope, Journal, LeaseBroker, Leased};
use uuid::Uuid;

use super::IDLE_BACKOFF;
use super::step::{Fence, MigrationStep, QueueRef, What, recover, repost};
use crate::drivers::{self, Context};

const MESSAGES: usize = 5;

/// Attempts after which a migrator that cannot go on is taken to be stuck.
const MAX_ATTEMPTS: usize = 4;

/// Where a queue is read in each of the stores, and where messages are in between.
const GENERATIONS: [u32; 2] = [0, 1];
const STAGING: u32 = 9;

/// Which send is late, and for how long.
#[derive(Debug)]
struct Delay {
    /// The number of the send that is given up.
    send: usize,
    /// How many calls of the broker later it is carried out.
    calls: usize,
    sends: AtomicUsize,
    left: AtomicUsize,
    late: Mutex<Option<(QueueKey, Vec<Envelope>)>>,
}

impl Delay {
    fn of(send: usize, calls: usize) -> Arc<Self> {
        Arc::new(Self {
            send,
            calls,
            sends: AtomicUsize::new(0),
            left: AtomicUsize::new(usize::MAX),
            late: Mutex::default(),
        })
    }

    fn late(&self) -> std::sync::MutexGuard<'_, Option<(QueueKey, Vec<Envelope>)>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A broker one of whose sends is late.
#[derive(Debug)]
struct LateBroker {
    inner: Arc<FakeBroker>,
    delay: Arc<Delay>,
    adopts: bool,
}

impl LateBroker {
    /// Before each call: what is due by now is carried out.
    async fn turn(&self) {
        if self.delay.late().is_none() {
            return;
        }
        if self.delay.left.fetch_sub(1, Ordering::Relaxed) == 0 {
            carry_out(&self.inner, &self.delay).await;
        }
    }
}

/// Carries out what is late, be it due or not.
async fn carry_out(broker: &FakeBroker, delay: &Delay) {
    let late = delay.late().take();
    if let Some((queue, batch)) = late {
        broker.send(&queue, batch).await.expect("the fake works");
    }
}

#[async_trait]
impl LeaseBroker for LateBroker {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    fn expires_messages(&self) -> bool {
        self.inner.expires_messages()
    }
    fn adopts(&self) -> bool {
        self.adopts
    }
    fn missing_after(&self) -> Option<Duration> {
        self.adopts.then_some(Duration::from_secs(3600))
    }
    fn time_limit(&self) -> Duration {
        self.inner.time_limit()
    }
    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }
    async fn can_send(&self, queue: &QueueKey) -> Result<()> {
        self.inner.can_send(queue).await
    }
    async fn send(&self, queue: &QueueKey, batch: Vec<Envelope>) -> Result<()> {
        self.turn().await;
        if self.delay.sends.fetch_add(1, Ordering::Relaxed) == self.delay.send {
            self.delay.left.store(self.delay.calls, Ordering::Relaxed);
            *self.delay.late() = Some((queue.clone(), batch));
            return Err(Error::new(ErrorKind::Unavailable, "it takes too long"));
        }
        self.inner.send(queue, batch).await
    }
    async fn receive(
        &self,
        queue: &QueueKey,
        max: usize,
        visibility: Duration,
    ) -> Result<Vec<Delivery>> {
        self.turn().await;
        self.inner.receive(queue, max, visibility).await
    }
    async fn extend(
        &self,
        queue: &QueueKey,
        receipts: &[Receipt],
        visibility: Duration,
    ) -> Result<()> {
        self.inner.extend(queue, receipts, visibility).await
    }
    async fn ack(&self, queue: &QueueKey, receipts: &[Receipt]) -> Result<()> {
        self.turn().await;
        self.inner.ack(queue, receipts).await
    }
    async fn release(&self, queue: &QueueKey, receipts: &[Receipt]) -> Result<()> {
        self.inner.release(queue, receipts).await
    }
    async fn depth(&self, queue: &QueueKey) -> Result<Depth> {
        self.turn().await;
        self.inner.depth(queue).await
    }
    async fn purge(&self, queue: &QueueKey) -> Result<()> {
        self.turn().await;
        self.inner.purge(queue).await
    }
    async fn drop_queue(&self, queue: &QueueKey) -> Result<()> {
        self.turn().await;
        self.inner.drop_queue(queue).await
    }
    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

/// Where messages come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The embedded store.
    Whole,
    /// A broker that does not hear what it is told: what was given back stays hidden there until its time is over.
    Deaf,
}

/// A source, and a broker with a ledger that one send is late to.
struct Bench {
    clock: Arc<ManualClock>,
    stores: [Arc<dyn MessageStore>; 2],
    broker: Arc<FakeBroker>,
    delay: Arc<Delay>,
    queue: QueueKey,
}

impl Bench {
    async fn new(delay: Arc<Delay>, source: Source, adopts: bool, journal: Journal) -> Self {
        let clock = Arc::new(ManualClock::default());
        let time = || -> Arc<dyn Clock> { Arc::clone(&clock) as _ };
        let context = Context::new(time(), None);
        let open = || drivers::open("sqlite::memory:", &context).expect("a store");
        let ledgers = open().ledgers.expect("it keeps ledgers");
        let broker = Arc::new(FakeServer::new(time(), FaultProfile::PLAIN, 7).connect());
        let late = LateBroker {
            inner: Arc::clone(&broker),
            delay: Arc::clone(&delay),
            adopts,
        };
        let ledger = ledgers.of("late").expect("a ledger");
        let source: Arc<dyn MessageStore> = match source {
            Source::Whole => open().messages,
            Source::Deaf => {
                let faults = FaultProfile {
                    ignores_hints: true,
                    ..FaultProfile::PLAIN
                };
                let ignores_hints = FakeServer::new(time(), faults, 7).connect();
                let ledger = ledgers.of("deaf").expect("a ledger");
                Arc::new(Leased::new(ignores_hints, ledger, time(), Journal::On))
            }
        };
        let project = ProjectId::parse("p").expect("a project");
        let bench = Self {
            stores: [source, Arc::new(Leased::new(late, ledger, time(), journal))],
            broker,
            delay,
            queue: QueueKey::new(project, QueueName::parse("q").expect("a name")),
            clock,
        };
        for number in 0..MESSAGES {
            let id = MessageId(Uuid::from_u128(1 + number as u128));
            let life = Duration::from_secs(36_000);
            let client = ClientId::Uuid(Uuid::nil());
            let message = Message::new(id, client, life, number.to_string().into_bytes());
            let posted = bench.stores[0].post(&bench.queue, vec![message]);
            posted.await.expect("a post");
        }
        bench
    }

    fn migration_step(&self) -> MigrationStep {
        let end = |store: usize, generation| QueueRef {
            store: Arc::clone(&self.stores[store]),
            key: self.queue.generation(generation),
        };
        MigrationStep {
            from: end(0, GENERATIONS[0]),
            sources: vec![end(0, GENERATIONS[0])],
            staging: end(1, STAGING),
            to: end(1, GENERATIONS[1]),
            after: 0,
            fence: None,
        }
    }

    /// What a reader meets at the end of a move, and takes.
    async fn read(&self, store: usize, generation: u32) -> Vec<usize> {
        let popped = self.stores[store]
            .pop(&self.queue.generation(generation), 100)
            .await;
        let number = |message: &Message| {
            let text = std::str::from_utf8(&message.body).expect("a number");
            text.parse().expect("a number")
        };
        popped.expect("a pop").iter().map(number).collect()
    }

    /// Carries, again and again until it is done, and reads meanwhile. Returns what was read.
    async fn migrate_all(&self, case: &str) -> Vec<usize> {
        let (step, mut met) = (self.migration_step(), Vec::new());
        for attempt in 1.. {
            let carried = once(&step).await;
            met.extend(self.read(1, GENERATIONS[1]).await);
            match carried {
                Ok(()) => break,
                Err(error) => assert!(attempt < MAX_ATTEMPTS, "{case}: {error}"),
            }
            self.clock.advance(IDLE_BACKOFF.1);
        }
        met
    }
}

async fn once(step: &MigrationStep) -> Result<()> {
    recover(from_ref(&step.from), &step.staging, &step.to, None).await?;
    while step.batch(2).await? > 0 {}
    step.staging.store.drop_queue(&step.staging.key).await
}

async fn whatever_is_late(source: Source, adopts: bool, journal: Journal) {
    let counts = Delay::of(usize::MAX, 0);
    let whole = Bench::new(Arc::clone(&counts), source, adopts, journal).await;
    let met = whole.migrate_all("no fault").await;
    assert_eq!(met, (0..MESSAGES).collect::<Vec<_>>());
    let sends = counts.sends.load(Ordering::Relaxed);
    assert!(sends >= 6, "{sends} sends");
    for send in 0..sends {
        for calls in 0..30 {
            let case = format!("{source:?} {adopts} {journal:?}: send {send}, {calls} calls late");
            let bench = Bench::new(Delay::of(send, calls), source, adopts, journal).await;
            let mut met = bench.migrate_all(&case).await;
            bench.clock.advance(Duration::from_secs(61));
            // Readers go on with what came back to the old segment meanwhile.
            met.extend(bench.read(0, GENERATIONS[0]).await);
            carry_out(&bench.broker, &bench.delay).await;
            // Another move into the store finds what came too late.
            bench.clock.advance(Duration::from_secs(61));
            met.extend(bench.migrate_all(&case).await);
            met.sort_unstable();
            assert_eq!(met, (0..MESSAGES).collect::<Vec<_>>(), "{case}");
        }
    }
}

#[tokio::test]
async fn a_send_that_is_carried_out_after_it_was_given_up_doubles_nothing_and_stops_no_move() {
    for adopts in [false, true] {
        whatever_is_late(Source::Whole, adopts, Journal::On).await;
    }
}

#[tokio::test]
async fn a_send_that_is_late_doubles_nothing_that_is_hidden_where_it_came_from() {
    for adopts in [false, true] {
        whatever_is_late(Source::Deaf, adopts, Journal::On).await;
    }
}

#[tokio::test]
async fn a_send_that_is_late_doubles_nothing_without_a_journal() {
    whatever_is_late(Source::Whole, false, Journal::Off).await;
}

#[tokio::test]
async fn a_migrator_whose_lease_has_ended_takes_nothing_of_another_for_late() {
    let delay = Delay::of(usize::MAX, 0);
    let bench = Bench::new(delay, Source::Whole, false, Journal::On).await;
    let MigrationStep { staging, to, .. } = bench.migration_step();
    let id = MessageId(Uuid::from_u128(100));
    let life = Duration::from_secs(36_000);
    let anothers = Message::new(id, ClientId::Uuid(Uuid::nil()), life, b"1".to_vec());
    let posted = staging.store.post(&staging.key, vec![anothers]);
    posted.await.expect("a post");
    let ended = Fence {
        jobs: Arc::clone(&bench.stores[0]),
        queue: bench.queue.generation(STAGING),
        lease: Lease {
            id: ClaimId(Uuid::from_u128(200)),
            ttl: Duration::from_secs(30),
            grace: Duration::ZERO,
            dead_letter: None,
        },
    };
    let is_there = async || {
        let found = staging.store.get(&staging.key, &[id]).await;
        !found.expect("an answer").is_empty()
    };
    let passed = repost(&staging, &to, What::Posted(&[]), Some(&ended)).await;
    let error = passed.expect_err("its lease has ended");
    assert_eq!(error.kind(), ErrorKind::NotFound(Resource::Claim));
    assert!(is_there().await);
    // Without one that has ended it is late, and is dropped.
    let passed = repost(&staging, &to, What::Posted(&[]), None).await;
    passed.expect("it is dropped");
    assert!(!is_there().await);
}
