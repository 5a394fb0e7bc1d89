//! RabbitMQ and a ledger keep every promise of the contract together: on classic and on quorum queues, with the journal
//! and without, with the ledger in SQLite and in Redis. Both servers are the trials' own.

use std::fmt::Debug;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use isimud_amqp::{AmqpBroker, Config};
use isimud_conformance::{Approximations, Harness, Start};
use isimud_contract::{Clock, Ledger, ManualClock, Result};
use isimud_lease::Journal;
use isimud_redis::RedisStore;
use isimud_sqlite::SqliteStore;
use isimud_testing::leased::{LeasedFixture, Open, once};
use isimud_testing::rabbitmq::Node;
use isimud_testing::redis::Servers;

static NODE: LazyLock<std::result::Result<Node, String>> = LazyLock::new(Node::start);
static REDIS: LazyLock<std::result::Result<Servers, String>> = LazyLock::new(Servers::plain);

/// In the environment: all set-ups are tried, and not only enough of them for every pair of what they differ in.
const ALL: &str = "CONFORMANCE_ALL";

fn main() -> ExitCode {
    let all = [Kept::InSqlite, Kept::InRedis]
        .into_iter()
        .flat_map(|ledger| {
            let kinds = ["quorum", "classic"].into_iter();
            kinds.flat_map(move |kind| {
                [Journal::On, Journal::Off].map(|journal| SetUp::new(kind, journal, ledger))
            })
        });
    let wanted = all.filter(|it| it.is_usual() || std::env::var(ALL).is_ok());
    let harnesses = wanted.map(|it| Arc::new(it) as Arc<dyn Harness>).collect();
    let status = isimud_conformance::run(harnesses);
    // A static is never dropped, and the node is to end.
    if let Some(Ok(node)) = LazyLock::get(&NODE) {
        node.end();
    }
    status
}

/// Where the ledger is.
#[derive(Debug, Clone, Copy)]
enum Kept {
    InSqlite,
    InRedis,
}

/// A kind of queue, whether there is a journal, and where the ledger is.
#[derive(Debug)]
struct SetUp {
    name: String,
    kind: &'static str,
    journal: Journal,
    ledger: Kept,
    trials: AtomicU64,
}

impl SetUp {
    /// Each kind of queue, each ledger and both ways with the journal come together with each other in one of these.
    fn is_usual(&self) -> bool {
        let quorum = self.kind == "quorum";
        let journal = self.journal == Journal::On;
        let sqlite = matches!(self.ledger, Kept::InSqlite);
        quorum ^ journal ^ sqlite
    }

    fn new(kind: &'static str, journal: Journal, ledger: Kept) -> Self {
        let bare = match journal {
            Journal::On => "",
            Journal::Off => "-bare",
        };
        let beside = match ledger {
            Kept::InSqlite => "sqlite",
            Kept::InRedis => "redis",
        };
        Self {
            name: format!("{kind}{bare}-{beside}"),
            kind,
            journal,
            ledger,
            trials: AtomicU64::new(0),
        }
    }
}

#[async_trait]
impl Harness for SetUp {
    fn name(&self) -> &str {
        &self.name
    }

    async fn start(&self) -> Result<Start> {
        let node = match &*NODE {
            Ok(node) => node,
            Err(why) => return Ok(Start::BackendDown(why.clone())),
        };
        let trial = self.trials.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{}.{trial}.", self.name);
        let clock = Arc::<ManualClock>::default();
        let time = || Arc::clone(&clock) as Arc<dyn Clock>;
        let ledger: Open<Arc<dyn Ledger>> = match self.ledger {
            // One for all servers of a trial, in memory.
            Kept::InSqlite => {
                let time = time();
                once(move || {
                    let store =
                        SqliteStore::open(isimud_sqlite::Config::memory(), Arc::clone(&time))?;
                    Ok(store.ledger("pool"))
                })
            }
            // Each server of a trial has connections of its own to it.
            Kept::InRedis => {
                let redis = match &*REDIS {
                    Ok(redis) => redis.uri(&prefix),
                    Err(why) => return Ok(Start::BackendDown(why.clone())),
                };
                let uri = format!("{redis}&timeout_ms=60000&clock=service");
                let config = isimud_redis::Config::parse(&uri)?.by(time());
                Box::new(move || Ok(RedisStore::open(config.clone())?.ledger("pool")))
            }
        };
        let uri = format!(
            "{}?queue_type={}&prefix={prefix}&timeout_ms=60000&clock=service",
            node.uri(),
            self.kind
        );
        let (config, time) = (Config::parse(&uri)?, time());
        let broker = move || AmqpBroker::open(config.clone(), Arc::clone(&time));
        let mut fixture = LeasedFixture::new(Box::new(broker), ledger, clock, self.journal);
        // RabbitMQ counts what has ended by its own clock, and what a quorum queue was given back a little later.
        fixture.approximates = Approximations {
            counts: true,
            redelivery_order: self.kind == "quorum",
            walls: true,
        };
        Ok(Start::Ready(Box::new(fixture)))
    }
}
