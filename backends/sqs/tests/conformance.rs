//! The broker and a ledger keep every promise of the contract together, with the journal and without, against a server
//! that speaks SQS.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step fails its trial, and says so at that line"
)]

mod emulator;

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use emulator::{Corner, Emulator};
use isimud_conformance::{Approximations, Fixture, Harness, Start, Stores};
use isimud_contract::{Clock, ManualClock, Result, Timestamp};
use isimud_lease::{Journal, Leased};
use isimud_sqlite::SqliteStore;
use isimud_sqs::{Config, SqsBroker};

fn main() -> ExitCode {
    isimud_conformance::run(vec![
        Arc::new(SetUp("journal", Journal::On)),
        Arc::new(SetUp("bare", Journal::Off)),
    ])
}

/// Whether there is a journal.
#[derive(Debug)]
struct SetUp(&'static str, Journal);

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
        corner.hurry();
        Ok(Start::Ready(Box::new(Place {
            corner,
            ledgers: OnceLock::new(),
            journal: self.1,
            clock: Arc::default(),
        })))
    }
}

/// A corner of the server and a ledger, which outlive the stores made of them.
///
/// The ledger's clock stands still until it is told to move; the server's runs by itself and is set forward with it, so
/// what has ended for the ledger has ended for the server.
#[derive(Debug)]
struct Place {
    corner: Corner,
    ledgers: OnceLock<Arc<SqliteStore>>,
    journal: Journal,
    clock: Arc<ManualClock>,
}

#[async_trait]
impl Fixture for Place {
    async fn open(&self) -> Result<Stores> {
        let clock = || Arc::clone(&self.clock) as Arc<dyn Clock>;
        let ledgers = match self.ledgers.get() {
            Some(store) => store,
            None => {
                let store = SqliteStore::open(isimud_sqlite::Config::memory(), clock())?;
                self.ledgers.get_or_init(|| store)
            }
        };
        let options = match self.journal {
            Journal::On => "",
            Journal::Off => "&journal=false",
        };
        let uri = self.corner.uri(self.corner.port, options);
        let config = Config::parse(&uri)?.with_login(&self.corner.login, "secret");
        let broker = SqsBroker::open(config, clock())?;
        let leased = Leased::new(broker, ledgers.ledger("pool"), clock(), self.journal);
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
