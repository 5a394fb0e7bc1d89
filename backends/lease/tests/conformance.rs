//! A broker that can only lease keeps every promise of the contract together with a ledger, with the journal and
//! without.

use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use isimud_conformance::{Harness, Start};
use isimud_contract::{Clock, ManualClock, Result};
use isimud_lease::Journal;
use isimud_lease::fake::{FakeServer, FaultProfile};
use isimud_sqlite::{Config, SqliteStore};
use isimud_testing::leased::{CONNECTION_BOUND, LeasedFixture, REORDERING, once};

fn main() -> ExitCode {
    isimud_conformance::run(vec![
        Arc::new(SetUp("journal", FaultProfile::PLAIN, Journal::On)),
        Arc::new(SetUp("journal-bound", CONNECTION_BOUND, Journal::On)),
        Arc::new(SetUp("journal-wild", REORDERING, Journal::On)),
        Arc::new(SetUp("bare", CONNECTION_BOUND, Journal::Off)),
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
        let time = Arc::clone(&clock) as Arc<dyn Clock>;
        let broker = FakeServer::new(Arc::clone(&time), self.1, 1);
        let ledger = once(move || {
            let store = SqliteStore::open(Config::memory(), Arc::clone(&time))?;
            Ok(store.ledger("pool"))
        });
        let connect = Box::new(move || Ok(broker.connect()));
        Ok(Start::Ready(Box::new(LeasedFixture::new(
            connect, ledger, clock, self.2,
        ))))
    }
}
