//! The embedded store keeps every promise of the contract, in a file and in memory.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use isimud_conformance::{Fixture, Harness, Start, Stores};
use isimud_contract::{Clock, Error, ErrorKind, Ledger, ManualClock, Result, Timestamp};
use isimud_sqlite::{Config, SqliteStore};
use tempfile::TempDir;
use tokio::sync::OnceCell;

fn main() -> ExitCode {
    isimud_conformance::run(vec![Arc::new(SetUp::Memory), Arc::new(SetUp::File)])
}

#[derive(Debug)]
enum SetUp {
    Memory,
    File,
}

#[async_trait]
impl Harness for SetUp {
    fn name(&self) -> &str {
        match self {
            Self::Memory => "memory",
            Self::File => "file",
        }
    }

    async fn start(&self) -> Result<Start> {
        let folder = match self {
            Self::Memory => None,
            Self::File => Some(TempDir::new().map_err(no_folder)?),
        };
        Ok(Start::Ready(Box::new(StoreFixture {
            folder,
            clock: Arc::default(),
            ledgers: OnceCell::new(),
        })))
    }
}

fn no_folder(cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Internal, "cannot create a folder").caused_by(cause)
}

/// A database of one trial: a file in a folder of its own, or none.
#[derive(Debug)]
struct StoreFixture {
    folder: Option<TempDir>,
    clock: Arc<ManualClock>,
    /// The store that keeps the ledgers, where a trial asks for them.
    ledgers: OnceCell<Arc<SqliteStore>>,
}

impl StoreFixture {
    fn store(&self) -> Result<Arc<SqliteStore>> {
        let config = match &self.folder {
            Some(folder) => Config::file(folder.path().join("isimud.db")),
            None => Config::memory(),
        };
        SqliteStore::open(config, Arc::clone(&self.clock) as _)
    }
}

#[async_trait]
impl Fixture for StoreFixture {
    async fn open(&self) -> Result<Stores> {
        let store = self.store()?;
        Ok(Stores {
            messages: Arc::clone(&store) as _,
            management: Some(store),
        })
    }

    async fn ledger(&self, scope: &str) -> Result<Option<Arc<dyn Ledger>>> {
        let store = self.ledgers.get_or_try_init(async || self.store()).await?;
        Ok(Some(store.ledger(scope)))
    }

    fn keeps(&self) -> bool {
        self.folder.is_some()
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn advance(&self, span: Duration) {
        self.clock.advance(span);
    }
}
