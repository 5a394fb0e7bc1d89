//! A broker that can only lease keeps every promise of the contract with a ledger in Redis, on one server and in a
//! cluster, with the journal and without.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use isimud_conformance::{Harness, Start};
use isimud_contract::{Clock, ManualClock, Result};
use isimud_lease::Journal;
use isimud_lease::fake::{FakeServer, FaultProfile};
use isimud_redis::{Config, RedisStore};
use isimud_testing::leased::{CONNECTION_BOUND, LeasedFixture, REORDERING};
use isimud_testing::redis::Servers;

fn main() -> ExitCode {
    isimud_conformance::run(vec![
        Arc::new(SetUp("journal", FaultProfile::PLAIN, Journal::On, &SINGLE)),
        Arc::new(SetUp(
            "journal-bound",
            CONNECTION_BOUND,
            Journal::On,
            &SINGLE,
        )),
        Arc::new(SetUp("journal-wild", REORDERING, Journal::On, &SINGLE)),
        Arc::new(SetUp("bare", CONNECTION_BOUND, Journal::Off, &SINGLE)),
        Arc::new(SetUp("cluster", REORDERING, Journal::On, &CLUSTER)),
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
        let time = || Arc::clone(&clock) as Arc<dyn Clock>;
        let config = Config::parse(&format!("{uri}&clock=service"))?.by(time());
        let broker = FakeServer::new(time(), self.1, 1);
        Ok(Start::Ready(Box::new(LeasedFixture::new(
            Box::new(move || Ok(broker.connect())),
            Box::new(move || Ok(RedisStore::open(config.clone())?.ledger("pool"))),
            clock,
            self.2,
        ))))
    }
}
