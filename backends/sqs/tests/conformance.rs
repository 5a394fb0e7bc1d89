//! The broker and a ledger keep every promise of the contract together, with the journal and without, against a server
//! that speaks SQS.

use std::process::ExitCode;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use isimud_conformance::{Harness, Start};
use isimud_contract::{Clock, Ledger, ManualClock, Result};
use isimud_lease::Journal;
use isimud_redis::RedisStore;
use isimud_sqlite::SqliteStore;
use isimud_sqs::{Config, SqsBroker};
use isimud_testing::leased::{LeasedFixture, once};
use isimud_testing::redis::Servers;
use isimud_testing::sqs::Emulator;

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
        let options = match self.1 {
            Journal::On => "",
            Journal::Off => "&journal=false",
        };
        let config = Config::parse(&corner.uri(corner.port, options))?;
        let config = config.with_login(&corner.login, "secret");
        // The ledger's clock stands still until it is told to move; the server's runs by itself and is set forward with it,
        // so what has ended for the ledger has ended for the server.
        let clock = Arc::<ManualClock>::default();
        let [of_broker, of_ledger] = [(); 2].map(|()| Arc::clone(&clock) as Arc<dyn Clock>);
        let (keeper, trial) = (self.2, corner.login.clone());
        let broker = move || SqsBroker::open(config.clone(), Arc::clone(&of_broker));
        let ledger = once(move || keeper.ledger(&trial, Arc::clone(&of_ledger)));
        let mut fixture = LeasedFixture::new(Box::new(broker), ledger, clock, self.1);
        fixture.on_advance = Box::new(move |span| corner.advance(span));
        // SQS says "approximate" of its counts itself, and keeps messages that have ended; it counts in seconds.
        fixture.approximates.counts = true;
        fixture.drift = Duration::from_secs(1);
        Ok(Start::Ready(Box::new(fixture)))
    }
}
