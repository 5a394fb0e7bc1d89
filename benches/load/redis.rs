//! A Redis of the bench's own: on a free port, in a folder of its own, gone with the run.
//!
//! It keeps nothing on disk: what is measured is the work of a request, and a log would cost all contenders the same.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Result;

/// How long it may take to come up, to answer, and to free what was deleted.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A running Redis; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Redis {
    pub(crate) address: SocketAddr,
    child: Child,
    _home: TempDir,
}

impl Redis {
    /// Starts one in a fresh folder below `data` and waits until it answers.
    pub(crate) fn start(data: &Path) -> Result<Self> {
        std::fs::create_dir_all(data)?;
        let home = tempfile::Builder::new().prefix("redis-").tempdir_in(data)?;
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
            .args(["--save", "", "--appendonly", "no"])
            .current_dir(home.path())
            .stdin(Stdio::null())
            .stdout(File::create(home.path().join("log"))?)
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start redis-server: {error}"))?;
        let redis = Self {
            address,
            child,
            _home: home,
        };
        redis.until("redis-server does not answer", |redis| redis.info().is_ok())?;
        Ok(redis)
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// A database of it, as a URI of Isimud's.
    pub(crate) fn uri(&self, database: u8) -> String {
        format!("redis://{}/{database}", self.address)
    }

    /// Waits until it has freed what was deleted, which it does in a thread of its own and would do in the next window.
    pub(crate) fn rest(&self) -> Result<()> {
        self.until("redis-server never finishes freeing memory", |redis| {
            redis
                .figure("lazyfree_pending_objects")
                .is_ok_and(|count| count == 0)
        })
    }

    /// Bytes that its data take, without what the allocator holds beyond.
    pub(crate) fn memory(&self) -> Result<u64> {
        self.rest()?;
        self.figure("used_memory")
    }

    fn until(&self, complaint: &str, done: impl Fn(&Self) -> bool) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < TIMEOUT {
            if done(self) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(complaint.into())
    }

    fn figure(&self, name: &str) -> Result<u64> {
        let info = self.info()?;
        let mut figures = info.lines().filter_map(|line| line.split_once(':'));
        let found = figures.find(|(key, _)| *key == name);
        let (_, figure) = found.ok_or_else(|| format!("INFO says nothing of {name}"))?;
        Ok(figure.trim().parse()?)
    }

    fn info(&self) -> Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(b"INFO\r\nQUIT\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
