//! RabbitMQ and a ledger keep every promise of the contract together: on classic and on quorum queues, with the journal
//! and without, with the ledger in SQLite and in Redis. Both servers are the trials' own.

mod nodes;
#[path = "../../redis/tests/servers/mod.rs"]
mod servers;

use std::fmt::Debug;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use isimud_amqp::{AmqpBroker, Config};
use isimud_conformance::{Approximations, Fixture, Harness, Start, Stores};
use isimud_contract::{Clock, Ledger, ManualClock, Result, Timestamp};
use isimud_lease::{Journal, Leased};
use isimud_redis::RedisStore;
use isimud_sqlite::SqliteStore;
use nodes::Node;
use servers::Servers;

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
        let ledgers = match self.ledger {
            Kept::InSqlite => Ledgers::Sqlite(OnceLock::new()),
            Kept::InRedis => match &*REDIS {
                Ok(redis) => Ledgers::Redis(format!(
                    "{}&timeout_ms=60000&clock=service",
                    redis.uri(&prefix)
                )),
                Err(why) => return Ok(Start::BackendDown(why.clone())),
            },
        };
        let uri = format!(
            "{}?queue_type={}&prefix={prefix}&timeout_ms=60000&clock=service",
            node.uri(),
            self.kind
        );
        Ok(Start::Ready(Box::new(StoreFixture {
            config: Config::parse(&uri)?,
            quorum: self.kind == "quorum",
            journal: self.journal,
            ledgers,
            clock: Arc::default(),
        })))
    }
}

/// The store that keeps the ledger.
#[derive(Debug)]
enum Ledgers {
    /// In memory; one for all servers of a trial.
    Sqlite(OnceLock<Arc<SqliteStore>>),
    /// Each server of a trial has connections of its own to it.
    Redis(String),
}

/// Queues of one trial's prefix, and a ledger for them.
#[derive(Debug)]
struct StoreFixture {
    config: Config,
    quorum: bool,
    journal: Journal,
    ledgers: Ledgers,
    /// The clock of the ledger and of the servers, by which RabbitMQ's messages are held, too.
    clock: Arc<ManualClock>,
}

impl StoreFixture {
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as _
    }

    fn ledger(&self) -> Result<Arc<dyn Ledger>> {
        match &self.ledgers {
            Ledgers::Sqlite(store) => {
                if let Some(store) = store.get() {
                    return Ok(store.ledger("pool"));
                }
                let opened = SqliteStore::open(isimud_sqlite::Config::memory(), self.clock())?;
                Ok(store.get_or_init(|| opened).ledger("pool"))
            }
            Ledgers::Redis(uri) => {
                let config = isimud_redis::Config::parse(uri)?.by(self.clock());
                Ok(RedisStore::open(config)?.ledger("pool"))
            }
        }
    }
}

#[async_trait]
impl Fixture for StoreFixture {
    async fn open(&self) -> Result<Stores> {
        let broker = AmqpBroker::open(self.config.clone(), self.clock())?;
        let leased = Leased::new(broker, self.ledger()?, self.clock(), self.journal);
        Ok(Stores {
            messages: Arc::new(leased),
            management: None,
        })
    }

    async fn open_beside(&self) -> Result<Option<Stores>> {
        self.open().await.map(Some)
    }

    fn keeps(&self) -> bool {
        true
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// RabbitMQ counts what has ended by its own clock, and what a quorum queue was given back a little later.
    fn approximates(&self) -> Approximations {
        Approximations {
            counts: true,
            redelivery_order: self.quorum,
            walls: true,
        }
    }

    async fn advance(&self, span: Duration) {
        self.clock.advance(span);
    }
}
