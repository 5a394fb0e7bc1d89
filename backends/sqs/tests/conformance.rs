//! The broker and a ledger keep every promise of the contract together, with the journal and without, against a server
//! that speaks SQS.

mod emulator;
#[path = "../../redis/tests/servers/mod.rs"]
mod servers;

use std::process::ExitCode;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use emulator::{Corner, Emulator};
use isimud_conformance::{Approximations, Fixture, Harness, Start, Stores};
use isimud_contract::{Clock, Ledger, ManualClock, Result, Timestamp};
use isimud_lease::{Journal, Leased};
use isimud_redis::RedisStore;
use isimud_sqlite::SqliteStore;
use isimud_sqs::{Config, SqsBroker};
use servers::Servers;

fn main() -> ExitCode {
    let set_up = |name, journal, keeper| Arc::new(SetUp(name, journal, keeper));
    let mut set_ups: Vec<Arc<dyn Harness>> = vec![
        set_up("journal", Journal::On, Keeper::Sqlite),
        set_up("bare", Journal::Off, Keeper::Sqlite),
    ];
    // The ledgers of both answer the same, which tests of their own show; so this one is for who wants to see it.
    if std::env::var("SQS_LEDGER").as_deref() == Ok("redis") {
        set_ups = vec![set_up("redis", Journal::On, Keeper::Redis)];
    }
    isimud_conformance::run(set_ups)
}

/// Its name, whether there is a journal, and who keeps the ledger.
#[derive(Debug)]
struct SetUp(&'static str, Journal, Keeper);

#[derive(Debug, Clone, Copy)]
enum Keeper {
    Sqlite,
    Redis,
}

/// The Redis server of all trials, started by the first that needs it.
static REDIS: LazyLock<std::result::Result<Servers, String>> = LazyLock::new(Servers::plain);

impl Keeper {
    /// The ledger of a trial.
    fn ledger(self, trial: &str, clock: Arc<dyn Clock>) -> Result<Arc<dyn Ledger>> {
        Ok(match self {
            Self::Sqlite => {
                SqliteStore::open(isimud_sqlite::Config::memory(), clock)?.ledger("pool")
            }
            Self::Redis => {
                let server = REDIS.as_ref().expect("asked for before");
                let uri = format!("{}&clock=service", server.uri(&format!("{trial}:")));
                RedisStore::open(isimud_redis::Config::parse(&uri)?.by(clock))?.ledger("pool")
            }
        })
    }
}

#[async_trait]
impl Harness for SetUp {
    fn name(&self) -> &str {
        self.0
    }

    async fn start(&self) -> Result<Start> {
        let corner = match Emulator::shared() {
            Ok(corner) => corner,
            Err(why) => return Ok(Start::BackendDown(why)),
        };
        if let (Keeper::Redis, Err(why)) = (self.2, REDIS.as_ref()) {
            return Ok(Start::BackendDown(why.clone()));
        }
        corner.hurry();
        Ok(Start::Ready(Box::new(StoreFixture {
            corner,
            ledger: OnceLock::new(),
            journal: self.1,
            keeper: self.2,
            clock: Arc::default(),
        })))
    }
}

/// A corner of the server and a ledger, which outlive the stores made of them.
///
/// The ledger's clock stands still until it is told to move; the server's runs by itself and is set forward with it, so
/// what has ended for the ledger has ended for the server.
#[derive(Debug)]
struct StoreFixture {
    corner: Corner,
    ledger: OnceLock<Arc<dyn Ledger>>,
    journal: Journal,
    keeper: Keeper,
    clock: Arc<ManualClock>,
}

#[async_trait]
impl Fixture for StoreFixture {
    async fn open(&self) -> Result<Stores> {
        let clock = || Arc::clone(&self.clock) as Arc<dyn Clock>;
        let ledger = match self.ledger.get() {
            Some(ledger) => ledger,
            None => {
                let ledger = self.keeper.ledger(&self.corner.login, clock())?;
                self.ledger.get_or_init(|| ledger)
            }
        };
        let options = match self.journal {
            Journal::On => "",
            Journal::Off => "&journal=false",
        };
        let uri = self.corner.uri(self.corner.port, options);
        let config = Config::parse(&uri)?.with_login(&self.corner.login, "secret");
        let broker = SqsBroker::open(config, clock())?;
        let leased = Leased::new(broker, Arc::clone(ledger), clock(), self.journal);
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

    async fn advance(&self, span: Duration) {
        self.clock.advance(span);
        self.corner.advance(span);
    }

    /// SQS says "approximate" of its counts itself, and keeps messages that have ended.
    fn approximates(&self) -> Approximations {
        Approximations {
            counts: true,
            ..Approximations::default()
        }
    }

    /// SQS counts in seconds.
    fn drift(&self) -> Duration {
        Duration::from_secs(1)
    }
}
