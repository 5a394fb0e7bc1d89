//! Where the service under test keeps what it is given: in memory, or with `API_STORE` on another store.
//!
//! `redis`: a Redis server that all tests share, each under a prefix of its own. `amqp`: messages on a RabbitMQ node that
//! all tests share, queues and the ledger in memory; half of the tests have classic queues, the others quorum queues, and
//! all of them one kind with `amqp-classic` or `amqp-quorum`. `sqs`: messages in a server that speaks SQS, with a ledger
//! in memory, and credentials from the environment.
//!
//! There too the clock stands until a test moves it: the store goes by the service's.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use isimud_testing::rabbitmq::Node;
use isimud_testing::redis::{PASSWORD, Servers};
use isimud_testing::sqs::{Corner, Emulator};
use isimud_testing::started;
use serde_json::Value;
use tempfile::TempDir;

/// The Redis server, started by the first test that needs it. It ends with the program.
static REDIS: LazyLock<Servers> =
    LazyLock::new(|| Servers::plain().unwrap_or_else(|why| panic!("API_STORE=redis: {why}")));

/// The RabbitMQ node, started by the first test that needs it. It ends with the program.
static RABBITMQ: LazyLock<Node> =
    LazyLock::new(|| Node::start().unwrap_or_else(|why| panic!("API_STORE=amqp: {why}")));

/// The server that speaks SQS, started by the first test that needs it.
static SQS: LazyLock<Corner> =
    LazyLock::new(|| Emulator::shared().unwrap_or_else(|why| panic!("API_STORE=sqs: {why}")));

/// What is kept beside messages elsewhere, where that is not in memory.
static BESIDE: LazyLock<Mutex<HashMap<String, String>>> = LazyLock::new(Mutex::default);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sqlite,
    Redis,
    Amqp { quorum: bool },
    Sqs,
}

fn kind() -> Kind {
    match std::env::var("API_STORE").as_deref() {
        Err(_) | Ok("" | "sqlite") => Kind::Sqlite,
        Ok("redis") => Kind::Redis,
        Ok("amqp") => Kind::Amqp {
            quorum: is_of_second_half(),
        },
        Ok("amqp-classic") => Kind::Amqp { quorum: false },
        Ok("amqp-quorum") => Kind::Amqp { quorum: true },
        Ok("sqs") => Kind::Sqs,
        Ok(other) => panic!(
            "API_STORE is 'sqlite', 'redis', 'amqp', 'amqp-classic', 'amqp-quorum' or 'sqs', not '{other}'"
        ),
    }
}

/// Halves the tests by their names, by which their threads are called, so that each always falls into the same half. With
/// `--test-threads 1` there are no such threads, and all are of the second half.
fn is_of_second_half() -> bool {
    let thread = std::thread::current();
    let name = thread.name().filter(|name| *name != "main");
    name.is_none_or(|name| name.bytes().map(u32::from).sum::<u32>() % 2 == 1)
}

/// Whether the store is a broker that can only lease, with a ledger beside it.
pub(crate) fn leases() -> bool {
    matches!(kind(), Kind::Amqp { .. } | Kind::Sqs)
}

/// Whether what is posted at once is claimed in its order, and all that is there by one claim. A standard queue of SQS
/// does its best.
pub(crate) fn is_ordered() -> bool {
    kind() != Kind::Sqs
}

/// Bodies of a claim, some of which were held before: as they are, or in an order that says nothing where what comes back
/// does not go to its old place. On a quorum queue what came back last stands in front.
pub(crate) fn placed(bodies: &Value) -> Vec<Value> {
    let mut bodies = bodies.as_array().cloned().unwrap_or_default();
    if kind() == (Kind::Amqp { quorum: true }) {
        bodies.sort_by_key(Value::to_string);
    }
    bodies
}

thread_local! {
    /// The corners of the server that speaks SQS which the test of this thread uses, each with a clock of its own.
    static CORNERS: RefCell<Vec<Corner>> = const { RefCell::new(Vec::new()) };
}

/// Lets time pass in the stores of this thread's test, where the service's clock does not.
pub(crate) fn advance(span: Duration) {
    CORNERS.with_borrow(|corners| corners.iter().for_each(|corner| corner.advance(span)));
}

/// Where queues and the ledger are kept for a store, if that is another place.
pub(crate) fn beside(uri: &str) -> Option<String> {
    let needs_ledger = uri.starts_with("amqp:") || uri.starts_with("sqs:");
    needs_ledger.then(|| {
        let beside = BESIDE.lock().expect("nobody panicked here");
        let kept = beside.get(uri);
        kept.cloned()
            .unwrap_or_else(|| "sqlite::memory:".to_owned())
    })
}

/// A store's URI as it is shown: without the password of the user who may do what is documented and no more.
pub(crate) fn shown(uri: &str) -> String {
    uri.replace(&format!(":{PASSWORD}@"), ":***@")
}

/// The URI of an empty store that nobody else has.
pub(crate) fn fresh() -> String {
    static TESTS: AtomicUsize = AtomicUsize::new(0);
    let test = TESTS.fetch_add(1, Ordering::Relaxed);
    match kind() {
        Kind::Sqlite => "sqlite::memory:".to_owned(),
        Kind::Redis => format!(
            "{}&clock=service",
            REDIS.limited_uri(&format!("api{test}:"))
        ),
        Kind::Amqp { quorum } => format!(
            "{}?queue_type={}&prefix=api{test}.&clock=service&timeout_ms=20000",
            RABBITMQ.uri(),
            if quorum { "quorum" } else { "classic" }
        ),
        Kind::Sqs => {
            let corner = Corner {
                login: format!("api{test}"),
                ..SQS.clone()
            };
            corner.hurry();
            let uri = corner.uri(corner.port, "");
            CORNERS.with_borrow_mut(|corners| corners.push(corner));
            uri
        }
    }
}

/// A store that can be opened one time after the other.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) uri: String,
    folder: TempDir,
}

impl Kept {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = format!("sqlite:{}/isimud.db", folder.path().display());
        let uri = match kind() {
            Kind::Sqlite => file,
            Kind::Redis => fresh(),
            Kind::Amqp { .. } | Kind::Sqs => {
                let uri = fresh();
                let mut beside = BESIDE.lock().expect("nobody panicked here");
                beside.insert(uri.clone(), file);
                uri
            }
        };
        Self { uri, folder }
    }

    /// Whether a text stands anywhere on the disk.
    pub(crate) fn has_at_rest(&self, text: &str) -> bool {
        let mut all = files(self.folder.path());
        match kind() {
            Kind::Sqlite | Kind::Sqs => {}
            Kind::Redis => all = files(REDIS.get(0).folder()),
            Kind::Amqp { .. } => all.extend(files(RABBITMQ.folder())),
        }
        all.into_iter().any(|file| {
            // A server may remove one meanwhile.
            let bytes = std::fs::read(file).unwrap_or_default();
            bytes
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        })
    }
}

/// The files in a folder and in those below it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

/// A Redis server of the test's own; `None` where there is none and none is required.
pub(crate) fn redis() -> Option<Servers> {
    started("Redis", Servers::plain())
}
