//! The ledgers of SQLite and of Redis answer the same, whatever is asked of them in whatever order.
//!
//! A run asks both the same things, made from a seed, by one clock that stands still in between, and compares every
//! answer and all that can be seen. What may differ is left out: the order of receipts, the names of eras, the numbers
//! of markers, and when a queue that is purged and empty is forgotten. `LEDGERS_SEED=n` repeats one run.

#![cfg(all(feature = "redis", feature = "sqlite"))]

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use isimud_contract::{
    Arrival, Checksum, Claim, ClaimId, ClientId, Clock, DeadLetter, Delivery, Epoch, ErrorKind,
    ImportedClaim, Lease, Ledger, ManualClock, Message, MessageId, MessageStore, Precondition,
    ProjectId, Purpose, QueueKey, QueueName, Receipt, Renewed, Result, Selection, Stands, Stats,
    Timestamp, UnknownIds, Verdict,
};
use isimud_redis::RedisStore;
use isimud_sqlite::SqliteStore;
use isimud_testing::redis::Servers;
use isimud_testing::started;
use uuid::Uuid;

const RUNS: u64 = 8;
const STEPS: usize = 120;

/// Ids that a run uses: few, so that they meet again.
const IDS: u64 = 12;

fn id(number: u64) -> MessageId {
    MessageId(Uuid::from_u128(
        0x0190_0000_0000_7000_8000_0000_0000_0000 + u128::from(number),
    ))
}

fn queue(number: u8) -> QueueKey {
    let name = QueueName::parse(&format!("q{number}")).expect("a name");
    QueueKey::new(ProjectId::parse("p").expect("a project"), name)
}

/// An answer as far as it must be the same: sentences may differ.
fn answer<T>(answer: Result<T>) -> Result<T, ErrorKind> {
    answer.map_err(|error| {
        let kind = error.kind();
        let broken = matches!(kind, ErrorKind::Unavailable | ErrorKind::Internal);
        assert!(!broken, "{error:?}");
        kind
    })
}

fn sorted(mut receipts: Vec<Receipt>) -> Vec<Receipt> {
    receipts.sort_by(|a, b| a.0.cmp(&b.0));
    receipts
}

/// Messages without their numbers of arrival: the order in which they are listed tells what matters of those.
fn unnumbered(mut messages: Vec<Message>) -> Vec<Message> {
    for message in &mut messages {
        message.arrival = Arrival::default();
    }
    messages
}

fn unnumbered_in(mut verdict: Verdict) -> Verdict {
    if let Verdict::Granted { message, .. } | Verdict::DeliveryLimitExceeded(message) = &mut verdict
    {
        message.arrival = Arrival::default();
    }
    verdict
}

struct Twins {
    sqlite: Arc<dyn Ledger>,
    redis: Arc<dyn Ledger>,
    store: Arc<SqliteStore>,
    clock: Arc<ManualClock>,
    random: fastrand::Rng,
    epochs: Vec<(Epoch, Epoch)>,
    claims: Vec<ClaimId>,
    receipts: u64,
    /// What was asked last.
    asked: String,
}

/// Asks both, and compares.
macro_rules! both {
    ($twins:ident, $call:ident($($argument:expr),*), $as_seen:expr) => {{
        let sqlite = answer($twins.sqlite.$call($($argument),*).await).map($as_seen);
        let redis = answer($twins.redis.$call($($argument),*).await).map($as_seen);
        $twins.same(&sqlite, &redis, stringify!($call));
        redis
    }};
}

/// What the parts of a step are made of.
impl Twins {
    fn same<T: PartialEq + Debug>(&self, sqlite: &T, redis: &T, what: &str) {
        let asked = &self.asked;
        assert_eq!(sqlite, redis, "{what} differs (SQLite left), after {asked}");
    }

    fn one_in(&mut self, count: u8) -> bool {
        self.random.u8(0..count) == 0
    }

    fn seconds(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.random.u64(1..most * 1_000))
    }

    fn message(&mut self, number: u64) -> Message {
        let client = ClientId::Uuid(Uuid::from_u128(self.random.u128(0..3)));
        let body = format!("\"{}\"", self.random.u32(..));
        let mut message = Message::new(id(number), client, self.seconds(100), body);
        if self.one_in(4) {
            message.delay = self.seconds(20);
        }
        if self.one_in(5) {
            message.age = self.seconds(20);
            message.remaining_ttl = self.seconds(100);
        }
        if self.one_in(5) {
            message.claim_count = self.random.u32(0..3);
            message.checksum = Some(Checksum([7; 16]));
            message.sealed = true;
        }
        if self.one_in(3) {
            message.transfers = self.random.u32(0..4);
        }
        message
    }

    /// A server's clock, which may be ahead or behind.
    fn now(&mut self) -> Timestamp {
        let now = self.clock.now();
        match self.random.u8(0..4) {
            0 => now.after(self.seconds(5)),
            1 => now.before(self.seconds(5)),
            _ => now,
        }
    }

    fn claim(&mut self) -> ClaimId {
        if self.claims.is_empty() || self.one_in(3) {
            self.claims
                .push(ClaimId(Uuid::from_u128(self.random.u128(..))));
            if self.claims.len() > 5 {
                self.claims.remove(0);
            }
        }
        self.claims[self.random.usize(0..self.claims.len())]
    }

    fn lease(&mut self) -> Lease {
        let dead_letter = self.one_in(2).then(|| DeadLetter {
            queue: queue(self.random.u8(0..2)),
            max_claims: self.random.u32(1..4),
            ttl: None,
            stands: Stands::Last(0),
        });
        Lease {
            id: self.claim(),
            ttl: self.seconds(40),
            grace: self.seconds(10),
            dead_letter,
        }
    }

    fn numbers(&mut self) -> Vec<u64> {
        let count = self.random.usize(1..6);
        (0..count).map(|_| self.random.u64(0..IDS)).collect()
    }

    fn ids(&mut self) -> Vec<MessageId> {
        self.numbers().into_iter().map(id).collect()
    }
}

/// Steps.
impl Twins {
    async fn step(&mut self) {
        let on = queue(self.random.u8(0..2));
        self.asked = format!("at {:?} on {on}", self.clock.now());
        match self.random.u8(0..20) {
            0..=3 => self.note(&on).await,
            4..=8 => self.grant(&on).await,
            9 => {
                let (lease, now) = (self.lease(), self.now());
                self.asked += &format!(": renew {lease:?} {now:?}");
                both!(self, renew(&on, &lease, now), |renewed: Renewed| {
                    let mut longer = renewed.longer;
                    for (message, _) in &mut longer {
                        message.arrival = Arrival::default();
                    }
                    longer.sort_by_key(|(message, _)| message.id);
                    (sorted(renewed.receipts), longer)
                })
                .ok();
            }
            10 => {
                let claim = self.claim();
                self.asked += &format!(": release {claim}");
                both!(self, release(&on, claim), sorted).ok();
            }
            11 | 12 => self.bury(&on).await,
            13 => {
                let (id, ttl, age) = (self.claim(), self.seconds(30), self.seconds(20));
                let (claim, ids) = (ImportedClaim { id, ttl, age }, self.ids());
                self.asked += &format!(": hold {claim:?} {ids:?}");
                both!(self, import_claim(&on, claim, &ids), |count| count).ok();
            }
            14 if self.one_in(2) => {
                self.asked += ": purge";
                both!(self, purge(&on), |done| done).ok();
            }
            _ => {
                let span = self.seconds(15);
                self.clock.advance(span);
                // SQLite sweeps between two calls.
                for _ in 0..3 {
                    self.store.ping().await.expect("it answers");
                }
            }
        }
    }

    async fn note(&mut self, on: &QueueKey) {
        let now = self.now();
        let mut numbers = self.numbers();
        // A post has each id once.
        let mut seen = HashSet::new();
        numbers.retain(|number| seen.insert(*number));
        let messages: Vec<_> = numbers.into_iter().map(|at| self.message(at)).collect();
        let present = (
            self.sqlite.record(on, None, now, &[]).await,
            self.redis.record(on, None, now, &[]).await,
        );
        let present = (present.0.expect("an era"), present.1.expect("an era"));
        let mut known = present;
        if self.one_in(4) && !self.epochs.is_empty() {
            known = self.epochs[self.random.usize(0..self.epochs.len())];
            if (known.0 == present.0) != (known.1 == present.1) {
                return;
            }
        }
        self.epochs.push(present);
        let with_era = !self.one_in(5);
        self.asked += &format!(": note {with_era} {known:?} {now:?} {messages:?}");
        let epoch = |epoch: Epoch| with_era.then_some(epoch);
        let noted = self.sqlite.record(on, epoch(known.0), now, &messages).await;
        assert_eq!(answer(noted), Ok(present.0));
        let noted = self.redis.record(on, epoch(known.1), now, &messages).await;
        assert_eq!(answer(noted), Ok(present.1));
    }

    async fn grant(&mut self, on: &QueueKey) {
        let mut got = Vec::new();
        for number in self.numbers() {
            self.receipts += 1;
            got.push(Delivery {
                message: self.message(number),
                posted: self.clock.now().before(self.seconds(100)),
                receipt: Receipt(format!("r{}", self.receipts).into()),
                awaits_record: self.one_in(2),
            });
        }
        let (lease, now) = (self.lease(), self.now());
        let purpose = match self.random.u8(0..6) {
            0 => Purpose::Pop,
            1 => Purpose::More(&lease),
            _ => Purpose::Claim(&lease),
        };
        self.asked += &format!(": grant {purpose:?} {now:?} {got:?}");
        both!(self, grant(on, purpose, 100, now, &got), |verdicts| {
            verdicts.into_iter().map(unnumbered_in).collect::<Vec<_>>()
        })
        .ok();
    }

    async fn bury(&mut self, on: &QueueKey) {
        let ids = self.ids();
        let precondition = match self.random.u8(0..4) {
            0 => Precondition::None,
            1 => Precondition::Unclaimed,
            _ => Precondition::ClaimedBy((0..3).map(|_| self.claim()).collect()),
        };
        let unknown_ids = if self.one_in(2) {
            UnknownIds::Reject
        } else {
            UnknownIds::Ignore
        };
        self.asked += &format!(": bury {ids:?} {precondition:?} {unknown_ids:?}");
        both!(
            self,
            delete(on, &ids, precondition.clone(), unknown_ids),
            |(count, receipts)| { (count, sorted(receipts)) }
        )
        .ok();
    }

    /// Compares all that can be seen.
    async fn look(&mut self) {
        let all: Vec<_> = (0..IDS).map(id).collect();
        for on in [queue(0), queue(1)] {
            both!(self, get(&on, &all), unnumbered).ok();
            both!(self, stats(&on), |stats| Stats {
                last_arrival: 0,
                ..stats
            })
            .ok();
            for which in 0..4 {
                let client = ClientId::Uuid(Uuid::from_u128(1));
                let selection = Selection {
                    after: None,
                    limit: self.random.usize(1..12),
                    not_from: self.one_in(3).then_some(client),
                    include_claimed: which & 1 != 0,
                    include_delayed: which & 2 != 0,
                };
                both!(self, list(&on, selection.clone()), |page| unnumbered(
                    page.messages
                ))
                .ok();
            }
            for claim in self.claims.clone() {
                both!(self, find_claim(&on, claim), |claim| Claim {
                    messages: unnumbered(claim.messages),
                    ..claim
                })
                .ok();
            }
        }
    }
}

async fn run(servers: &Servers, seed: u64) {
    let clock = Arc::new(ManualClock::default());
    let store = SqliteStore::open(isimud_sqlite::Config::memory(), Arc::clone(&clock) as _);
    let store = store.expect("a store");
    let uri = format!(
        "{}&clock=service&timeout_ms=20000",
        servers.uri(&format!("run{seed}:"))
    );
    let config = isimud_redis::Config::parse(&uri).expect("a configuration");
    let redis = RedisStore::open(config.by(Arc::clone(&clock) as _)).expect("a store");
    let mut twins = Twins {
        sqlite: store.ledger("pool"),
        redis: redis.ledger("pool"),
        store,
        clock,
        random: fastrand::Rng::with_seed(seed),
        epochs: Vec::new(),
        claims: Vec::new(),
        receipts: 0,
        asked: String::new(),
    };
    for _ in 0..STEPS {
        twins.step().await;
        twins.look().await;
    }
}

#[test]
fn both_ledgers_answer_the_same() {
    let Some(servers) = started("Redis", Servers::plain()) else {
        return;
    };
    let seed = std::env::var("LEDGERS_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for seed in seed.map_or(0..RUNS, |seed| seed..seed + 1) {
        eprintln!("LEDGERS_SEED={seed}");
        runtime.block_on(run(&servers, seed));
    }
}
