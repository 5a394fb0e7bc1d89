//! RabbitMQ and a ledger keep every promise of the contract together: on classic and on quorum queues, with the journal
//! and without. The node is the trials' own.

mod nodes;

use std::process::ExitCode;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use isimud_amqp::{AmqpBroker, Config};
use isimud_conformance::{Approximations, Fixture, Harness, Start, Stores};
use isimud_contract::{Clock, ManualClock, Result, Timestamp};
use isimud_lease::{Journal, Leased};
use isimud_sqlite::SqliteStore;
use nodes::Node;

static NODE: LazyLock<std::result::Result<Node, String>> = LazyLock::new(Node::start);

fn main() -> ExitCode {
    let status = isimud_conformance::run(vec![
        Arc::new(SetUp::new("quorum", Journal::On)),
        Arc::new(SetUp::new("quorum-bare", Journal::Off)),
        Arc::new(SetUp::new("classic", Journal::On)),
        Arc::new(SetUp::new("classic-bare", Journal::Off)),
    ]);
    // A static is never dropped, and the node is to end.
    if let Some(Ok(node)) = LazyLock::get(&NODE) {
        node.end();
    }
    status
}

/// A kind of queue, and whether there is a journal.
#[derive(Debug)]
struct SetUp {
    name: &'static str,
    journal: Journal,
    trials: AtomicU64,
}

impl SetUp {
    fn new(name: &'static str, journal: Journal) -> Self {
        Self {
            name,
            journal,
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
        let node = match &*NODE {
            Ok(node) => node,
            Err(why) => return Ok(Start::BackendDown(why.clone())),
        };
        let trial = self.trials.fetch_add(1, Ordering::Relaxed);
        let kind = self.name.split('-').next().unwrap_or_default();
        let uri = format!(
            "{}?queue_type={kind}&prefix={}.{trial}.&timeout_ms=20000",
            node.uri(),
            self.name
        );
        let ahead = Arc::new(AtomicI64::new(0));
        Ok(Start::Ready(Box::new(Place {
            config: Config::parse(&uri)?.ahead(Arc::clone(&ahead)),
            quorum: kind == "quorum",
            journal: self.journal,
            ledgers: OnceLock::new(),
            clock: Arc::default(),
            ahead,
        })))
    }
}

/// Queues of one trial's prefix, and a ledger for them.
#[derive(Debug)]
struct Place {
    config: Config,
    quorum: bool,
    journal: Journal,
    ledgers: OnceLock<Arc<SqliteStore>>,
    /// The clock of the ledger and of the servers.
    clock: Arc<ManualClock>,
    /// The same for how long RabbitMQ's messages are held.
    ahead: Arc<AtomicI64>,
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
        let broker = AmqpBroker::open(self.config.clone(), clock())?;
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

    /// RabbitMQ counts what has ended by its own clock, and what a quorum queue was given back a little later.
    fn approximates(&self) -> Approximations {
        Approximations {
            counts: true,
            places: self.quorum,
            walls: true,
        }
    }

    async fn advance(&self, span: Duration) {
        self.clock.advance(span);
        let millis = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        self.ahead.fetch_add(millis, Ordering::SeqCst);
    }
}
