//! Where the service under test keeps what it is given: in memory, or with `API_STORE=redis` on a Redis server that all
//! tests share, each under a prefix of its own. With `API_STORE=amqp` the messages are on a RabbitMQ node that all tests
//! share, and queues and the ledger in memory. Its queues are classic ones: quorum queues put what comes back to the head.
//!
//! There too the clock stands until a test moves it: the store goes by the service's.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};

use tempfile::TempDir;

#[path = "../../backends/amqp/tests/nodes/mod.rs"]
mod nodes;
#[path = "../../backends/redis/tests/servers/mod.rs"]
mod servers;

use nodes::Node;
use servers::Servers;

/// The Redis server, started by the first test that needs it. It ends with the program.
static REDIS: LazyLock<Servers> =
    LazyLock::new(|| Servers::plain().unwrap_or_else(|why| panic!("API_STORE=redis: {why}")));

/// The RabbitMQ node, started by the first test that needs it. It ends with the program.
static RABBITMQ: LazyLock<Node> =
    LazyLock::new(|| Node::start().unwrap_or_else(|why| panic!("API_STORE=amqp: {why}")));

/// What is kept beside messages elsewhere, where that is not in memory.
static BESIDE: LazyLock<Mutex<HashMap<String, String>>> = LazyLock::new(Mutex::default);

fn is_redis() -> bool {
    match std::env::var("API_STORE").as_deref() {
        Err(_) | Ok("" | "sqlite" | "amqp") => false,
        Ok("redis") => true,
        Ok(other) => panic!("API_STORE is 'sqlite', 'redis' or 'amqp', not '{other}'"),
    }
}

fn is_amqp() -> bool {
    std::env::var("API_STORE").as_deref() == Ok("amqp")
}

/// Whether the store is a broker that can only lease, with a ledger beside it.
pub(crate) fn leases() -> bool {
    is_amqp()
}

/// Where queues and the ledger are kept for a store, if that is another place.
pub(crate) fn beside(uri: &str) -> Option<String> {
    uri.starts_with("amqp:").then(|| {
        let beside = BESIDE.lock().expect("nobody panicked here");
        let kept = beside.get(uri);
        kept.cloned()
            .unwrap_or_else(|| "sqlite::memory:".to_owned())
    })
}

/// The URI of an empty store that nobody else has.
pub(crate) fn fresh() -> String {
    static TESTS: AtomicUsize = AtomicUsize::new(0);
    if is_redis() {
        let test = TESTS.fetch_add(1, Ordering::Relaxed);
        format!("{}&clock=service", REDIS.uri(&format!("api{test}:")))
    } else if is_amqp() {
        let (test, node) = (TESTS.fetch_add(1, Ordering::Relaxed), RABBITMQ.uri());
        format!("{node}?queue_type=classic&prefix=api{test}.&clock=service&timeout_ms=20000")
    } else {
        "sqlite::memory:".to_owned()
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
        let uri = if is_redis() {
            fresh()
        } else if is_amqp() {
            let (uri, file) = (fresh(), folder.path().join("isimud.db"));
            let mut beside = BESIDE.lock().expect("nobody panicked here");
            beside.insert(uri.clone(), format!("sqlite:{}", file.display()));
            uri
        } else {
            format!("sqlite:{}/isimud.db", folder.path().display())
        };
        Self { uri, folder }
    }

    /// Whether a text stands anywhere on the disk.
    pub(crate) fn has_at_rest(&self, text: &str) -> bool {
        let mut all = files(self.folder.path());
        if is_redis() {
            all = files(REDIS.get(0).folder());
        } else if is_amqp() {
            all.extend(files(RABBITMQ.folder()));
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
    let required = std::env::var("REQUIRE_BACKENDS").is_ok_and(|value| value == "1");
    match Servers::plain() {
        Ok(redis) => Some(redis),
        Err(why) if required => panic!("Redis is required: {why}"),
        Err(why) => {
            eprintln!("left out: {why}");
            None
        }
    }
}
