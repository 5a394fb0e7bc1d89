//! A broker that can only lease keeps every promise of the contract together with a ledger, with the journal and
//! without.

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use isimud_conformance::{Fixture, Harness, Start, Stores};
use isimud_contract::{Clock, ManualClock, Result, Timestamp};
use isimud_lease::fake::{FakeServer, FaultProfile};
use isimud_lease::{Journal, Leased};
use isimud_sqlite::{Config, SqliteStore};

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
        Arc::new(SetUp("journal", FaultProfile::PLAIN, Journal::On)),
        Arc::new(SetUp("journal-bound", bound, Journal::On)),
        Arc::new(SetUp("journal-wild", wild, Journal::On)),
        Arc::new(SetUp("bare", bound, Journal::Off)),
    ])
}

/// A broker's nature, and whether there is a journal.
#[derive(Debug)]
struct SetUp(&'static str, FaultProfile, Journal);

#[async_trait]
impl Harness for SetUp {
    fn name(&self) -> &str {
        self.0
    }

    async fn start(&self) -> Result<Start> {
        let clock = Arc::<ManualClock>::default();
        Ok(Start::Ready(Box::new(StoreFixture {
            broker: FakeServer::new(Arc::clone(&clock) as _, self.1, 1),
            ledgers: OnceLock::new(),
            journal: self.2,
            clock,
        })))
    }
}

/// A broker and a ledger that outlive the stores made of them.
#[derive(Debug)]
struct StoreFixture {
    broker: Arc<FakeServer>,
    ledgers: OnceLock<Arc<SqliteStore>>,
    journal: Journal,
    clock: Arc<ManualClock>,
}

#[async_trait]
impl Fixture for StoreFixture {
    async fn open(&self) -> Result<Stores> {
        let clock = || Arc::clone(&self.clock) as Arc<dyn Clock>;
        let ledgers = match self.ledgers.get() {
            Some(store) => store,
            None => {
                let store = SqliteStore::open(Config::memory(), clock())?;
                self.ledgers.get_or_init(|| store)
            }
        };
        let ledger = ledgers.ledger("pool");
        let leased = Leased::new(self.broker.connect(), ledger, clock(), self.journal);
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
