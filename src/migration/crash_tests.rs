//! Migration, cut off at every call, before and after the call's effect.

use std::slice::from_ref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use isimud_contract::{
    ClaimId, ClientId, Clock, Error, ErrorKind, Lease, ManualClock, Message, MessageId,
    MessageStore, ProjectId, QueueKey, QueueName, Result,
};
use isimud_lease::fake::{FakeServer, FaultProfile};
use isimud_lease::{Journal, Leased};
use isimud_testing::faults::{Faults, FaultyStore};
use uuid::Uuid;

use super::step::{MigrationStep, QueueRef, recover};
use crate::drivers::{self, Context};

/// Breaks one call, and all that come after it.
#[derive(Debug, Default)]
struct FaultInjector {
    calls: AtomicUsize,
    at: usize,
    after_the_effect: bool,
    /// Nothing is broken: that one call takes longer, by this clock, than a migrator holds messages.
    slow: Option<Arc<ManualClock>>,
}

impl Faults for FaultInjector {
    async fn around<T: Send>(&self, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let broken = || Err(Error::new(ErrorKind::Unavailable, "cut off"));
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        if let Some(clock) = &self.slow {
            let answer = call.await;
            if number == self.at {
                clock.advance(Duration::from_secs(61));
            }
            return answer;
        }
        if number > self.at || (number == self.at && !self.after_the_effect) {
            return broken();
        }
        let answer = call.await;
        if number == self.at { broken() } else { answer }
    }
}

const MESSAGES: usize = 7;

/// What a store is.
#[derive(Debug, Clone, Copy)]
enum StoreKind {
    /// It keeps everything itself.
    Whole,
    /// A broker that can only lease, with a ledger and its journal.
    Journaled,
    /// The same without the journal.
    Leased,
}

/// Every pair of stores that behaves in its own way.
const PAIRS: [[StoreKind; 2]; 5] = [
    [StoreKind::Whole, StoreKind::Whole],
    [StoreKind::Whole, StoreKind::Journaled],
    [StoreKind::Journaled, StoreKind::Whole],
    [StoreKind::Journaled, StoreKind::Journaled],
    [StoreKind::Whole, StoreKind::Leased],
];

/// Where a queue is read in each of the stores.
const GENERATIONS: [u32; 2] = [0, 1];
/// Where messages are in between, in each of the stores.
const STAGING: u32 = 9;

struct Bench {
    clock: Arc<ManualClock>,
    stores: [Arc<dyn MessageStore>; 2],
    queue: QueueKey,
}

impl Bench {
    /// Messages 0 to 6 in the first store, the fourth of them delayed.
    async fn new(pair: [StoreKind; 2]) -> Self {
        let bench = Self::empty(pair);
        for number in 0..MESSAGES {
            let id = MessageId(Uuid::from_u128(1 + number as u128));
            let client = ClientId::Uuid(Uuid::nil());
            let life = Duration::from_secs(3_600);
            let mut message = Message::new(id, client, life, number.to_string().into_bytes());
            // A carrier finds delayed messages by listing them.
            let lists = bench.stores.iter().all(|it| it.capabilities().browse);
            if number == 3 && lists {
                message.delay = Duration::from_secs(300);
            }
            let posted = bench.stores[0].post(&bench.queue, vec![message]);
            posted.await.expect("a post");
        }
        bench
    }

    fn empty(pair: [StoreKind; 2]) -> Self {
        let clock = Arc::new(ManualClock::default());
        let context = Context::new(Arc::clone(&clock) as _, None);
        let open = || drivers::open("sqlite::memory:", &context).expect("a store");
        let ledgers = open().ledgers.expect("it keeps ledgers");
        let mut scopes = ["first", "second"].into_iter();
        let stores = pair.map(|kept| -> Arc<dyn MessageStore> {
            let scope = scopes.next().expect("two stores");
            let journal = match kept {
                StoreKind::Whole => return open().messages,
                StoreKind::Journaled => Journal::On,
                StoreKind::Leased => Journal::Off,
            };
            let time: Arc<dyn Clock> = Arc::clone(&clock) as _;
            let broker = FakeServer::new(Arc::clone(&time), FaultProfile::PLAIN, 7).connect();
            let ledger = ledgers.of(scope).expect("a ledger");
            Arc::new(Leased::new(broker, ledger, time, journal))
        });
        let project = ProjectId::parse("p").expect("a project");
        Self {
            stores,
            clock,
            queue: QueueKey::new(project, QueueName::parse("q").expect("a name")),
        }
    }

    /// A way from one of the stores to the other.
    fn step(&self, from: usize, when: &Arc<FaultInjector>) -> MigrationStep {
        let end = |store: usize, generation| QueueRef {
            store: Arc::new(FaultyStore {
                inner: Arc::clone(&self.stores[store]),
                faults: Arc::clone(when),
            }),
            key: self.queue.generation(generation),
        };
        let to = 1 - from;
        MigrationStep {
            from: end(from, GENERATIONS[from]),
            sources: vec![end(from, GENERATIONS[from])],
            staging: end(to, STAGING),
            to: end(to, GENERATIONS[to]),
            after: 0,
            fence: None,
        }
    }

    /// There and back, so that both stores have had the messages before.
    async fn there_and_back(&self) {
        for from in [0, 1] {
            let whole = all(&self.step(from, &never())).await;
            assert_eq!(whole.expect("no fault"), MESSAGES);
        }
    }

    /// What a reader meets in a store: the messages that it can take, the oldest first.
    async fn readable(&self, store: usize, generation: u32) -> Vec<usize> {
        let popped = self.stores[store]
            .pop(&self.queue.generation(generation), 100)
            .await;
        let popped = popped.expect("a pop");
        let number = |message: &Message| {
            let text = std::str::from_utf8(&message.body).expect("a number");
            text.parse().expect("a number")
        };
        popped.iter().map(number).collect()
    }
}

fn never() -> Arc<FaultInjector> {
    Arc::new(FaultInjector {
        at: usize::MAX,
        ..FaultInjector::default()
    })
}

async fn all(step: &MigrationStep) -> Result<usize> {
    let mut carried = 0;
    recover(from_ref(&step.from), &step.staging, &step.to, None).await?;
    loop {
        match step.batch(3).await? {
            0 => break,
            count => carried += count,
        }
    }
    carried += step.delayed().await?;
    step.staging.store.drop_queue(&step.staging.key).await?;
    Ok(carried)
}

/// Cuts a migrator off at every call, before and after its effect, and has another one go on.
async fn cut_off_everywhere(pair: [StoreKind; 2], comes_back: bool) {
    let bench = async || {
        let bench = Bench::new(pair).await;
        if comes_back {
            bench.there_and_back().await;
        }
        bench
    };
    let whole = bench().await;
    let counts = never();
    let carried = all(&whole.step(0, &counts)).await;
    assert_eq!(carried.expect("no fault"), MESSAGES, "{pair:?}");
    let calls = counts.calls.load(Ordering::Relaxed);
    assert!(calls > 12, "{calls} calls of {pair:?}");
    for at in 0..calls {
        for after_the_effect in [false, true] {
            let case = format!("{pair:?}, comes back: {comes_back}, {at}, {after_the_effect}");
            let bench = bench().await;
            let cut = Arc::new(FaultInjector {
                at,
                after_the_effect,
                ..FaultInjector::default()
            });
            let cut = all(&bench.step(0, &cut)).await;
            cut.expect_err("it is cut off");
            // A reader at that moment meets each message in one store at the most, in order.
            let early = bench.readable(1, GENERATIONS[1]).await;
            assert!(early.is_sorted(), "{case}: {early:?}");

            bench.clock.advance(Duration::from_secs(61));
            let goes_on = all(&bench.step(0, &never())).await;
            goes_on.expect("taken up again");
            assert_eq!(bench.readable(0, GENERATIONS[0]).await, [0; 0], "{case}");
            assert_eq!(bench.readable(1, STAGING).await, [0; 0], "{case}");
            bench.clock.advance(Duration::from_secs(300));
            let late = bench.readable(1, GENERATIONS[1]).await;
            let mut met = [early.clone(), late.clone()].concat();
            met.sort_unstable();
            let every: Vec<usize> = (0..MESSAGES).collect();
            assert_eq!(met, every, "{case}: {early:?}, {late:?}");
        }
    }
}

#[tokio::test]
async fn what_is_cut_off_anywhere_and_taken_up_again_is_neither_lost_nor_doubled() {
    for pair in PAIRS {
        cut_off_everywhere(pair, false).await;
    }
}

#[tokio::test]
async fn what_comes_back_to_a_store_and_is_cut_off_anywhere_is_neither_lost_nor_doubled() {
    for pair in PAIRS {
        cut_off_everywhere(pair, true).await;
    }
}

/// One call takes so long that what the migrator held is free again, where it came from or in between.
#[tokio::test]
async fn a_call_that_outlasts_the_hold_of_a_carrier_loses_doubles_and_stops_nothing() {
    for pair in PAIRS {
        let whole = Bench::new(pair).await;
        let counts = never();
        let carried = all(&whole.step(0, &counts)).await;
        assert_eq!(carried.expect("no fault"), MESSAGES, "{pair:?}");
        for at in 0..counts.calls.load(Ordering::Relaxed) {
            let bench = Bench::new(pair).await;
            let slow = Arc::new(FaultInjector {
                at,
                slow: Some(Arc::clone(&bench.clock)),
                ..FaultInjector::default()
            });
            let first = all(&bench.step(0, &slow)).await;
            let mut met = bench.readable(1, GENERATIONS[1]).await;
            bench.clock.advance(Duration::from_secs(61));
            let again = all(&bench.step(0, &never())).await;
            let case = format!("{pair:?}, {at}: {first:?}");
            again.unwrap_or_else(|error| panic!("{case}: {error}"));
            bench.clock.advance(Duration::from_secs(300));
            met.extend(bench.readable(1, GENERATIONS[1]).await);
            met.extend(bench.readable(0, GENERATIONS[0]).await);
            met.sort_unstable();
            assert_eq!(met, (0..MESSAGES).collect::<Vec<_>>(), "{pair:?}, {at}");
        }
    }
}

/// Each old segment may be the one that a migrator which died had taken from.
#[tokio::test]
async fn what_was_begun_from_any_of_the_old_segments_is_ended_before_anything_is_moved_on() {
    let bench = Bench::new([StoreKind::Whole, StoreKind::Whole]).await;
    let step = bench.step(0, &never());
    let other = QueueRef {
        key: bench.queue.generation(5),
        ..step.from.clone()
    };
    let lease = Lease {
        id: ClaimId(Uuid::now_v7()),
        ttl: Duration::from_secs(60),
        grace: Duration::ZERO,
        dead_letter: None,
    };
    let claimed = step.from.store.claim(&step.from.key, &lease, 2).await;
    let begun = claimed.expect("a claim").expect("messages").messages;
    let posted = step.staging.store.post(&step.staging.key, begun);
    posted.await.expect("a post");
    bench.clock.advance(Duration::from_secs(61));
    let sources = [other, step.from.clone()];
    let recovered = recover(&sources, &step.staging, &step.to, None).await;
    recovered.expect("no fault");
    assert_eq!(bench.readable(1, GENERATIONS[1]).await, [0, 1]);
    assert_eq!(bench.readable(0, GENERATIONS[0]).await, [2, 4, 5, 6]);
}

/// Says that it took messages, and has thrown the last away.
#[derive(Debug)]
struct Forgetful;

impl Faults for Forgetful {
    async fn around<T: Send>(&self, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        call.await
    }

    fn posted(&self, mut messages: Vec<Message>) -> Result<Vec<Message>> {
        messages.pop();
        Ok(messages)
    }
}

#[tokio::test]
async fn a_carrier_that_cannot_account_for_every_message_keeps_the_old_segment_and_says_so() {
    let bench = Bench::new([StoreKind::Whole, StoreKind::Whole]).await;
    let mut step = bench.step(0, &never());
    step.staging.store = Arc::new(FaultyStore {
        inner: Arc::clone(&bench.stores[1]),
        faults: Arc::new(Forgetful),
    });
    step.to.store = Arc::clone(&step.staging.store);
    for _ in 0..2 {
        let error = step.batch(3).await.expect_err("one is missing");
        assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
        let held = bench.stores[0].stats(&step.from.key).await;
        let held = held.expect("statistics");
        assert_eq!(held.free + held.claimed, MESSAGES as u64);
        bench.clock.advance(Duration::from_secs(61));
    }
    let error = step.delayed().await.expect_err("one is missing");
    assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
    bench.clock.advance(Duration::from_secs(300));
    let left = bench.readable(0, GENERATIONS[0]).await;
    assert_eq!(left, (0..MESSAGES).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_a_purge_takes_meanwhile_does_not_come_back() {
    let bench = Bench::new([StoreKind::Whole, StoreKind::Whole]).await;
    let lease = Lease {
        id: ClaimId(Uuid::now_v7()),
        ttl: Duration::from_secs(60),
        grace: Duration::ZERO,
        dead_letter: None,
    };
    let [old, new] = &bench.stores;
    let claimed = old.claim(&bench.queue, &lease, 2).await.expect("a claim");
    // As if carrying had come as far as the post.
    let staging = bench.queue.generation(STAGING);
    let messages = claimed.expect("messages").messages;
    new.post(&staging, messages).await.expect("a post");
    old.purge(&bench.queue).await.expect("a purge");
    new.purge(&staging).await.expect("a purge");
    let carried = all(&bench.step(0, &never())).await;
    assert_eq!(carried.expect("no fault"), 0);
    assert_eq!(bench.readable(1, GENERATIONS[1]).await, [0; 0]);
}

/// A carrier that died holds the oldest messages for a while.
#[tokio::test]
async fn nothing_is_carried_before_what_a_carrier_that_died_still_holds() {
    let bench = Bench::new([StoreKind::Whole, StoreKind::Whole]).await;
    let cut = Arc::new(FaultInjector {
        at: 1,
        ..FaultInjector::default()
    });
    let dies = bench.step(0, &cut).batch(2).await;
    dies.expect_err("it is cut off before its post");
    let error = all(&bench.step(0, &never())).await.expect_err("held");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(bench.readable(1, GENERATIONS[1]).await, [0; 0]);
    bench.clock.advance(Duration::from_secs(61));
    let carried = all(&bench.step(0, &never())).await;
    assert_eq!(carried.expect("no fault"), MESSAGES);
    assert_eq!(bench.readable(1, GENERATIONS[1]).await, [0, 1, 2, 4, 5, 6]);
}
