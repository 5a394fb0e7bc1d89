//! Published client libraries against the real binary, over every store.
//!
//! A test starts the server by itself and lets one script of `tests/clients` drive it; the script
//! says what it checked. Nothing here is skipped: without Python, or without its packages, the
//! tests fail and say what is missing. Only a store that is a program of its own may be left out,
//! unless `REQUIRE_BACKENDS=1` asks for all of them.

use std::error::Error;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use isimud_testing::rabbitmq::Node;
use isimud_testing::redis::Servers;
use isimud_testing::sqs::Emulator;
use isimud_testing::started;
use tempfile::TempDir;

use crate::support::script::{self, Process, text_of, wait_until};
use crate::support::server;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How long a server may take until it answers.
const START: Duration = Duration::from_secs(30);

/// Every journey over every store. A store is a name and how to come by one in a test's own folder.
macro_rules! journeys {
    ($($store:ident: $make:expr;)+) => {$(
        mod $store {
            #[test]
            fn python_zaqarclient() {
                super::travel("zaqarclient_journey.py", $make);
            }

            #[test]
            fn openstacksdk() {
                super::travel("openstacksdk_journey.py", $make);
            }
        }
    )+};
}

journeys! {
    sqlite_file: |folder| Some(format!("sqlite:{}/isimud.db", folder.display()).into());
    sqlite_memory: |_| Some("sqlite::memory:".to_owned().into());
    redis_server: |_| super::Store::redis();
    rabbitmq_classic: |_| super::Store::rabbitmq("classic");
    rabbitmq_quorum: |_| super::Store::rabbitmq("quorum");
    sqs_server: |_| super::Store::sqs();
}

/// Where a server keeps what it is given.
pub(crate) struct Store {
    pub(crate) uri: String,
    /// Where queues and the ledger are kept, if that is another place.
    pub(crate) management: Option<&'static str>,
    /// Messages of one post: more of them may come in another order.
    post_size: &'static str,
    /// Whether a message whose life a claim lengthens goes to the end of its queue.
    copies: bool,
    /// What runs for as long as the store is used.
    _servers: Option<Box<dyn std::any::Any>>,
}

impl From<String> for Store {
    fn from(uri: String) -> Self {
        Self {
            uri,
            management: None,
            post_size: "1000",
            copies: false,
            _servers: None,
        }
    }
}

impl Store {
    /// A Redis server of the test's own; `None` where there is none and none is required.
    pub(crate) fn redis() -> Option<Self> {
        let servers = started("Redis", Servers::single())?;
        Some(Self {
            uri: servers.uri("journeys:"),
            management: None,
            post_size: "1000",
            copies: false,
            _servers: Some(Box::new(servers)),
        })
    }

    /// A RabbitMQ node of the test's own; `None` where there is none and none is required.
    pub(crate) fn rabbitmq(queue_type: &str) -> Option<Self> {
        let node = started("RabbitMQ", Node::start())?;
        Some(Self {
            uri: format!("{}?queue_type={queue_type}&timeout_ms=20000", node.uri()),
            management: Some("sqlite::memory:"),
            post_size: "1000",
            copies: true,
            _servers: Some(Box::new(node)),
        })
    }

    /// A corner of a server that speaks SQS; `None` where there is none and none is required.
    fn sqs() -> Option<Self> {
        let corner = started("an SQS server", Emulator::shared())?;
        Some(Self {
            uri: corner.uri(corner.port, ""),
            management: Some("sqlite::memory:"),
            // Of one request.
            post_size: "10",
            copies: false,
            _servers: None,
        })
    }
}

/// Takes one script through a server of its own, and fails with all that was said if it fails.
fn travel(script: &str, store: fn(&Path) -> Option<Store>) {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(store) = store(folder.path()) else {
        return;
    };
    let server = Server::start(store, folder)
        .unwrap_or_else(|error| panic!("the server does not start: {error}"));
    let url = format!("http://{}", server.address);
    let environment = [
        ("JOURNEY_POST_SIZE", server.store.post_size),
        (
            "JOURNEY_COPIES",
            if server.store.copies { "1" } else { "0" },
        ),
    ];
    let log = || format!("over {}: {}", server.store.uri, server.log());
    script::run(script, &url, &environment, server.folder.path(), log);
}

/// A server of the test's own, with all it writes in a folder of its own.
struct Server {
    store: Store,
    address: SocketAddr,
    folder: TempDir,
    process: Process,
}

impl Server {
    /// Starts the binary and waits until it answers.
    fn start(store: Store, folder: TempDir) -> Result<Self> {
        // A port that was free is only taken when the server has it: one start at a time.
        static STARTING: Mutex<()> = Mutex::new(());
        let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);

        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = File::create(folder.path().join("server.log"))?;
        let mut command = server::isimud();
        let child = command
            .args(["--listen", &address.to_string(), "--store", &store.uri])
            .args(
                store
                    .management
                    .iter()
                    .flat_map(|uri| ["--management", uri]),
            )
            // What an SQS server of a test asks for.
            .env("AWS_ACCESS_KEY_ID", "JOURNEY")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .env("ISIMUD__SIGNED_URL__SECRET_KEY", "journey")
            .env("ISIMUD__NOTIFICATIONS__ALLOWED_NETWORKS", "[\"127.0.0.1\"]")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stderr(log.try_clone()?)
            .stdout(log)
            .spawn()?;
        let mut server = Self {
            store,
            address,
            folder,
            process: Process(child),
        };
        server.wait()?;
        Ok(server)
    }

    fn wait(&mut self) -> Result<()> {
        let ended = wait_until(START, || match self.process.0.try_wait() {
            Ok(None) => answers(self.address).then_some(Ok(None)),
            ended => Some(ended),
        })?;
        match ended {
            Some(None) => Ok(()),
            Some(Some(status)) => Err(format!("it ended with {status}:\n{}", self.log()).into()),
            None => Err(format!("it does not answer:\n{}", self.log()).into()),
        }
    }

    fn log(&self) -> String {
        text_of(&self.folder.path().join("server.log"))
    }
}

/// Whether the versions document is there.
fn answers(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(&status == b"HTTP/1.1 300")
    };
    ask().unwrap_or(false)
}
