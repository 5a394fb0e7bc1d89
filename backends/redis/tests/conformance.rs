//! The Redis store keeps every promise of the contract, on servers that the trials start for themselves.

use std::process::ExitCode;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use isimud_conformance::{Fixture, Harness, Start, Stores};
use isimud_contract::{Clock, Ledger, ManualClock, MessageStore, Result, SystemClock, Timestamp};
use isimud_redis::{Config, RedisStore};
use isimud_testing::redis::Servers;

fn main() -> ExitCode {
    isimud_conformance::run(vec![
        Arc::new(SetUp::new("single", Servers::single, Ticks::WhenTold)),
        Arc::new(SetUp::new(
            "sentinel",
            Servers::calm_sentinel,
            Ticks::ByItself,
        )),
        Arc::new(SetUp::new("cluster", Servers::cluster, Ticks::ByItself)),
    ])
}

/// Whose clock a trial goes by.
#[derive(Debug, Clone, Copy)]
enum Ticks {
    /// The trial's own.
    WhenTold,
    /// The server's, with what the trial has added to it.
    ByItself,
}

/// Servers that all trials of a kind share, started by the first of them.
#[derive(Debug)]
struct SetUp {
    name: &'static str,
    servers: std::sync::LazyLock<std::result::Result<Servers, String>>,
    ticks: Ticks,
    trials: AtomicU64,
}

impl SetUp {
    fn new(
        name: &'static str,
        start: fn() -> std::result::Result<Servers, String>,
        ticks: Ticks,
    ) -> Self {
        Self {
            name,
            servers: std::sync::LazyLock::new(start),
            ticks,
            trials: AtomicU64::new(0),
        }
    }
}

#[async_trait]
impl Harness for SetUp {
    fn name(&self) -> &str {
        self.name
    }

    async fn start(&self) -> Result<Start> {
        let servers = match &*self.servers {
            Ok(servers) => servers,
            Err(why) => return Ok(Start::BackendDown(why.clone())),
        };
        let trial = self.trials.fetch_add(1, Ordering::Relaxed);
        let uri = servers.limited_uri(&format!("trial{trial}:"));
        Ok(Start::Ready(Box::new(match self.ticks {
            Ticks::WhenTold => {
                let config = Config::parse(&format!("{uri}&clock=service"))?;
                let clock = Arc::new(ManualClock::default());
                StoreFixture {
                    config: config.by(Arc::clone(&clock) as _),
                    ledgers: OnceLock::new(),
                    time: Time::Still(clock),
                }
            }
            Ticks::ByItself => {
                let ahead = Arc::new(AtomicI64::new(0));
                StoreFixture {
                    config: Config::parse(&uri)?.ahead(Arc::clone(&ahead)),
                    ledgers: OnceLock::new(),
                    time: Time::Running(ahead),
                }
            }
        })))
    }
}

/// Keys of one trial's prefix.
#[derive(Debug)]
struct StoreFixture {
    config: Config,
    /// The store that keeps the ledgers, where a trial asks for them.
    ledgers: OnceLock<Arc<RedisStore>>,
    time: Time,
}

#[derive(Debug)]
enum Time {
    Still(Arc<ManualClock>),
    Running(Arc<AtomicI64>),
}

#[async_trait]
impl Fixture for StoreFixture {
    async fn open(&self) -> Result<Stores> {
        let store = RedisStore::open(self.config.clone())?;
        store.ping().await?;
        Ok(Stores {
            messages: Arc::clone(&store) as _,
            management: Some(store),
        })
    }

    async fn open_beside(&self) -> Result<Option<Stores>> {
        self.open().await.map(Some)
    }

    async fn ledger(&self, scope: &str) -> Result<Option<Arc<dyn Ledger>>> {
        if self.ledgers.get().is_none() {
            let store = RedisStore::open(self.config.clone())?;
            store.ping().await?;
            drop(self.ledgers.set(store));
        }
        Ok(self.ledgers.get().map(|store| store.ledger(scope)))
    }

    fn keeps(&self) -> bool {
        true
    }

    fn now(&self) -> Timestamp {
        match &self.time {
            Time::Still(clock) => clock.now(),
            Time::Running(ahead) => Timestamp(SystemClock.now().0 + ahead.load(Ordering::SeqCst)),
        }
    }

    async fn advance(&self, span: Duration) {
        match &self.time {
            Time::Still(clock) => clock.advance(span),
            Time::Running(ahead) => {
                let millis = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
                ahead.fetch_add(millis, Ordering::SeqCst);
            }
        }
    }

    fn drift(&self) -> Duration {
        match &self.time {
            Time::Still(_) => Duration::ZERO,
            Time::Running(_) => Duration::from_secs(25),
        }
    }
}
