//! Where the service under test keeps what it is given: in memory, or with `API_STORE=redis` on a Redis server that all
//! tests share, each under a prefix of its own.
//!
//! There too the clock stands until a test moves it: the store goes by the service's.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

#[path = "../../backends/redis/tests/servers/mod.rs"]
mod servers;

use servers::Servers;

/// The Redis server, started by the first test that needs it. It ends with the program.
static REDIS: LazyLock<Servers> =
    LazyLock::new(|| Servers::plain().unwrap_or_else(|why| panic!("API_STORE=redis: {why}")));

fn is_redis() -> bool {
    match std::env::var("API_STORE").as_deref() {
        Err(_) | Ok("" | "sqlite") => false,
        Ok("redis") => true,
        Ok(other) => panic!("API_STORE is 'sqlite' or 'redis', not '{other}'"),
    }
}

/// The URI of an empty store that nobody else has.
pub(crate) fn fresh() -> String {
    static TESTS: AtomicUsize = AtomicUsize::new(0);
    if is_redis() {
        let test = TESTS.fetch_add(1, Ordering::Relaxed);
        format!("{}&clock=service", REDIS.uri(&format!("api{test}:")))
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
