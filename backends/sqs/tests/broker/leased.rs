//! The whole store, the driver with a ledger: its promises while SQS fails at random, with two servers at work.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use isimud_contract::{
    ClaimId, ClientId, Clock, ErrorKind, Lease, ManualClock, Message, MessageId, MessageStore,
    Precondition, Result, SystemClock,
};
use isimud_lease::{Journal, Leased};
use isimud_sqlite::SqliteStore;
use isimud_sqs::SqsBroker;
use isimud_testing::sqs::proxy::{Fault, Proxy};
use isimud_testing::sqs::{Corner, Emulator};
use uuid::Uuid;

use crate::support::{MINUTE, config, open, queue};

/// Messages of one run.
const MANY: usize = 480;
/// Of so many requests one meets a fault.
const ONE_IN: usize = 4;
const PRODUCERS: usize = 3;
const WORKERS: usize = 4;
/// How long a run may take on a busy machine.
const RUN_TIMEOUT: Duration = Duration::from_secs(150);

/// Two servers over one ledger and one SQS. The ledger's clock stands still, so that no claim ends by itself.
struct House {
    corner: Corner,
    clock: Arc<ManualClock>,
    servers: [Leased<SqsBroker>; 2],
    book: Mutex<Book>,
    refused: AtomicUsize,
}

/// What became of messages.
#[derive(Default)]
struct Book {
    /// In a claim that has not ended.
    held: HashSet<MessageId>,
    deleted: HashMap<MessageId, usize>,
}

impl House {
    fn open(corner: &Corner, port: u16, options: &str) -> Self {
        let clock = Arc::new(ManualClock::default());
        let by = || Arc::clone(&clock) as Arc<dyn Clock>;
        let ledgers = SqliteStore::open(isimud_sqlite::Config::memory(), by()).unwrap();
        let server = || {
            let broker = SqsBroker::open(config(corner, port, options), by()).unwrap();
            Leased::new(broker, ledgers.ledger("pool"), by(), Journal::On)
        };
        Self {
            corner: corner.clone(),
            servers: [server(), server()],
            clock,
            book: Mutex::default(),
            refused: AtomicUsize::new(0),
        }
    }

    /// Does it until it is done; every error on the way says that trying again is right.
    async fn insist<T>(&self, mut call: impl AsyncFnMut() -> Result<T>) -> T {
        loop {
            match call().await {
                Ok(done) => return done,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    async fn produce(&self, producer: usize) {
        let q = queue("q");
        for at in (producer..MANY / 6).step_by(PRODUCERS) {
            let posted: Vec<Message> = (6 * at..6 * at + 6).map(numbered).collect();
            let server = &self.servers[at % 2];
            self.insist(async || server.post(&q, posted.clone()).await)
                .await;
        }
    }

    /// Claims and deletes. Returns whether there was anything.
    async fn work(&self, worker: usize) -> bool {
        let q = queue("q");
        let server = &self.servers[worker % 2];
        let claim = self
            .insist(async || server.claim(&q, &lease(), 1 + worker % 20).await)
            .await;
        let Some(claim) = claim else { return false };
        for message in &claim.messages {
            let mut book = self.book.lock().unwrap();
            assert!(
                !book.deleted.contains_key(&message.id),
                "back after its delete"
            );
            assert!(book.held.insert(message.id), "in two live claims");
        }
        let ids: Vec<_> = claim.messages.iter().map(|message| message.id).collect();
        let precondition = || Precondition::ClaimedBy(vec![claim.id]);
        let deleted = self
            .insist(async || server.delete(&q, &ids, precondition()).await)
            .await;
        assert_eq!(deleted, ids.len());
        let mut book = self.book.lock().unwrap();
        for id in ids {
            book.held.remove(&id);
            *book.deleted.entry(id).or_default() += 1;
        }
        true
    }

    fn deleted(&self) -> usize {
        self.book.lock().unwrap().deleted.len()
    }
}

/// The whole store by the system's clock, with a ledger of its own and the journal on.
pub(crate) fn store(corner: &Corner, options: &str) -> Leased<SqsBroker> {
    let by = || Arc::new(SystemClock) as Arc<dyn Clock>;
    let ledgers = SqliteStore::open(isimud_sqlite::Config::memory(), by()).unwrap();
    Leased::new(
        open(corner, options),
        ledgers.ledger("pool"),
        by(),
        Journal::On,
    )
}

/// The terms of a claim that outlasts a trial.
pub(crate) fn lease() -> Lease {
    Lease {
        id: ClaimId(Uuid::new_v4()),
        ttl: 10 * MINUTE,
        grace: MINUTE,
        dead_letter: None,
    }
}

/// A message with a number for a body.
pub(crate) fn numbered(number: usize) -> Message {
    let client = ClientId::Uuid(Uuid::from_u128(7));
    let id = MessageId(Uuid::now_v7());
    Message::new(id, client, 20_000 * MINUTE, number.to_string())
}

/// Answers are lost, batches are done in part, everything is refused for a while: of what was posted nothing is lost,
/// and nothing is in two live claims or comes back after its delete.
pub(crate) async fn faults_of_sqs_lose_no_message_and_grant_none_twice(_: Corner) {
    let server = Emulator::start().unwrap();
    let corner = server.corner("STORM".into());
    let seed =
        std::env::var("SQS_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("SQS_SEED={seed}");
    let proxy = Proxy::start(corner.port).await;
    // Two seconds for a call: with its faults some fail, and the next attempt is the caller's.
    let house = House::open(&corner, proxy.port, "&timeout_ms=2000");
    let (begun, over) = (Instant::now(), AtomicBool::new(false));
    proxy.storm(seed, ONE_IN);
    let outage = async {
        while house.deleted() < MANY / 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let before = house.refused.load(Ordering::Relaxed);
        proxy.always("*", Fault::Refused(400, "RequestThrottled"));
        while house.refused.load(Ordering::Relaxed) < before + WORKERS {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        proxy.storm(seed + 1, ONE_IN);
    };
    let produce = async {
        join_all((0..PRODUCERS).map(|producer| house.produce(producer))).await;
    };
    let work = |worker: usize| {
        let (house, over) = (&house, &over);
        async move {
            while !over.load(Ordering::Relaxed) {
                if !house.work(worker).await {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    };
    let until_done = async {
        join(produce, outage).await;
        // A receive whose answer was lost hides its messages until it ends.
        proxy.calm();
        while house.deleted() < MANY && begun.elapsed() < RUN_TIMEOUT {
            house.corner.advance(11 * MINUTE);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        over.store(true, Ordering::Relaxed);
    };
    join(until_done, join_all((0..WORKERS).map(work))).await;
    let deleted = house.deleted();
    let (refused, faults) = (house.refused.load(Ordering::Relaxed), proxy.faults());
    println!("{deleted} messages, {faults} faults, {refused} calls refused, seed {seed}");
    assert_eq!(deleted, MANY, "lost, with seed {seed}");
    assert!(
        house
            .book
            .lock()
            .unwrap()
            .deleted
            .values()
            .all(|count| *count == 1)
    );
    assert!(faults > 50 && refused >= WORKERS, "{faults}, {refused}");
    // What SQS delivers from now on are copies of what is gone.
    house.clock.advance(11 * MINUTE);
    house.corner.advance(11 * MINUTE);
    assert!(!house.work(0).await && !house.work(1).await);
    let stats = house.servers[0].stats(&queue("q")).await.unwrap();
    assert_eq!((stats.free, stats.claimed), (0, 0));
}

/// Two servers post in turn, answers to posts are lost, claims of every size are released and taken again: each message
/// comes in its turn.
pub(crate) async fn a_fifo_queue_keeps_its_order_through_releases_and_lost_answers(corner: Corner) {
    let (proxy, q) = (Proxy::start(corner.port).await, queue("q"));
    let house = House::open(&corner, proxy.port, "&fifo=true");
    let size = |post: usize| 1 + post % 12;
    let total: usize = (0..40).map(size).sum();
    let produce = async {
        let mut next = 0;
        for post in 0..40 {
            if post % 5 == 0 {
                proxy.next(
                    "SendMessageBatch",
                    [Fault::DroppedAfter, Fault::FailedAfter],
                );
            }
            let posted: Vec<Message> = (next..next + size(post)).map(numbered).collect();
            next += posted.len();
            house.servers[post % 2].post(&q, posted).await.unwrap();
        }
    };
    let consume = async {
        let (mut next, mut claims) = (0, 0);
        while next < total {
            let server = &house.servers[claims / 3 % 2];
            let limit = 1 + claims % 10;
            let Some(claim) = server.claim(&q, &lease(), limit).await.unwrap() else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            claims += 1;
            let number = |message: &Message| std::str::from_utf8(&message.body).unwrap().parse();
            let numbers: Vec<usize> = claim.messages.iter().flat_map(number).collect();
            let in_turn: Vec<usize> = (next..next + claim.messages.len()).collect();
            assert_eq!(numbers, in_turn, "in claim {claims}");
            if claims % 3 == 0 {
                server.release_claim(&q, claim.id).await.unwrap();
                continue;
            }
            let ids: Vec<_> = claim.messages.iter().map(|message| message.id).collect();
            let precondition = Precondition::ClaimedBy(vec![claim.id]);
            assert_eq!(
                server.delete(&q, &ids, precondition).await.unwrap(),
                ids.len()
            );
            next += ids.len();
        }
        claims
    };
    let ((), claims) = join(produce, consume).await;
    println!(
        "{total} messages in {claims} claims, {} answers lost",
        proxy.faults()
    );
    assert!(proxy.faults() > 0 && claims > 20);
}
