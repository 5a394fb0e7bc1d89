//! Where the service under test keeps what it is given: in memory, or with `API_STORE=redis` on a Redis server that all
//! tests share, each under a prefix of its own. With `API_STORE=sqs` the messages are in a server that speaks SQS, with a
//! ledger in memory; that one has a clock for all tests, so they run one after another, and credentials from the
//! environment.
//!
//! There too the clock stands until a test moves it: the store goes by the service's.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use tempfile::TempDir;

#[path = "../../backends/redis/tests/servers/mod.rs"]
mod servers;
#[path = "../../backends/sqs/tests/emulator/mod.rs"]
mod sqs;

use servers::Servers;
use sqs::{Corner, Emulator};

/// The Redis server, started by the first test that needs it. It ends with the program.
static REDIS: LazyLock<Servers> =
    LazyLock::new(|| Servers::plain().unwrap_or_else(|why| panic!("API_STORE=redis: {why}")));

/// The server that speaks SQS, started by the first test that needs it.
static SQS: LazyLock<Corner> =
    LazyLock::new(|| Emulator::shared().unwrap_or_else(|why| panic!("API_STORE=sqs: {why}")));

/// What is kept beside messages in SQS, where that is not in memory.
static BESIDE: LazyLock<Mutex<HashMap<String, String>>> = LazyLock::new(Mutex::default);

fn is_redis() -> bool {
    match std::env::var("API_STORE").as_deref() {
        Err(_) | Ok("" | "sqlite" | "sqs") => false,
        Ok("redis") => true,
        Ok(other) => panic!("API_STORE is 'sqlite', 'redis' or 'sqs', not '{other}'"),
    }
}

fn is_sqs() -> bool {
    std::env::var("API_STORE").as_deref() == Ok("sqs")
}

/// Where queues and the ledger are kept for a store, if that is another place.
pub(crate) fn beside(uri: &str) -> Option<String> {
    uri.starts_with("sqs:").then(|| {
        let beside = BESIDE.lock().expect("nobody panicked here");
        let kept = beside.get(uri);
        kept.cloned()
            .unwrap_or_else(|| "sqlite::memory:".to_owned())
    })
}

/// Whether what is posted at once is claimed in its order, and all that is there by one claim. A standard queue of SQS
/// does its best.
pub(crate) fn is_ordered() -> bool {
    !is_sqs()
}

/// Lets time pass where the service's clock does not.
pub(crate) fn advance(span: Duration) {
    if is_sqs() {
        SQS.advance_all(span);
    }
}

/// The URI of an empty store that nobody else has.
pub(crate) fn fresh() -> String {
    static TESTS: AtomicUsize = AtomicUsize::new(0);
    if is_redis() {
        let test = TESTS.fetch_add(1, Ordering::Relaxed);
        format!("{}&clock=service", REDIS.uri(&format!("api{test}:")))
    } else if is_sqs() {
        let test = TESTS.fetch_add(1, Ordering::Relaxed);
        let corner = Corner {
            login: format!("api{test}"),
            ..SQS.clone()
        };
        corner.hurry();
        corner.uri(corner.port, "")
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
        } else if is_sqs() {
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
        let folder = if is_redis() {
            REDIS.get(0).folder()
        } else {
            self.folder.path()
        };
        files(folder).into_iter().any(|file| {
            let bytes = std::fs::read(file).expect("a file");
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
