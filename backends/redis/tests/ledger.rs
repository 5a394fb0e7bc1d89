//! A broker that can only lease keeps every promise of the contract with a ledger in Redis, on one server and in a
//! cluster, with the journal and without.

mod servers;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use isimud_conformance::{Fixture, Harness, Start, Stores};
use isimud_contract::{Clock, ManualClock, Result, Timestamp};
use isimud_lease::fake::{FakeServer, FaultProfile};
use isimud_lease::{Journal, Leased};
use isimud_redis::{Config, RedisStore};
use servers::Servers;

fn main() -> ExitCode {
    let bound = FaultProfile {
        expires_messages: true,
        connection_bound: true,
        ..FaultProfile::PLAIN
    };
    let wild = FaultProfile {
        reorders: true,
        duplicates: 100,
        ..FaultProfile::PLAIN
    };
    isimud_conformance::run(vec![
        Arc::new(SetUp("journal", FaultProfile::PLAIN, Journal::On, &SINGLE)),
        Arc::new(SetUp("journal-bound", bound, Journal::On, &SINGLE)),
        Arc::new(SetUp("journal-wild", wild, Journal::On, &SINGLE)),
        Arc::new(SetUp("bare", bound, Journal::Off, &SINGLE)),
        Arc::new(SetUp("cluster", wild, Journal::On, &CLUSTER)),
    ])
}

type Started = LazyLock<std::result::Result<Servers, String>>;

static SINGLE: Started = LazyLock::new(Servers::single);
static CLUSTER: Started = LazyLock::new(Servers::cluster);

/// A broker's nature, whether there is a journal, and where the ledger is.
#[derive(Debug)]
struct SetUp(&'static str, FaultProfile, Journal, &'static Started);

#[async_trait]
impl Harness for SetUp {
    fn name(&self) -> &str {
        self.0
    }

    async fn start(&self) -> Result<Start> {
        static TRIALS: AtomicU64 = AtomicU64::new(0);
        let servers = match &**self.3 {
            Ok(servers) => servers,
            Err(why) => return Ok(Start::BackendDown(why.clone())),
        };
        let trial = TRIALS.fetch_add(1, Ordering::Relaxed);
        let uri = servers.limited_uri(&format!("trial{trial}:"));
        let clock = Arc::<ManualClock>::default();
        let config = Config::parse(&format!("{uri}&clock=service"))?;
        Ok(Start::Ready(Box::new(StoreFixture {
            config: config.by(Arc::clone(&clock) as _),
            broker: FakeServer::new(Arc::clone(&clock) as _, self.1, 1),
            journal: self.2,
            clock,
        })))
    }
}

/// A broker, and keys of one trial's prefix.
#[derive(Debug)]
struct StoreFixture {
    config: Config,
    broker: Arc<FakeServer>,
    journal: Journal,
    clock: Arc<ManualClock>,
}

#[async_trait]
impl Fixture for StoreFixture {
    async fn open(&self) -> Result<Stores> {
        let ledger = RedisStore::open(self.config.clone())?.ledger("pool");
        ledger.ping().await?;
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let leased = Leased::new(self.broker.connect(), ledger, clock, self.journal);
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
    }
}
