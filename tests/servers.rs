//! Several servers on one Redis, or on one RabbitMQ with the ledger in Redis, are one service: what one of them changes
//! holds for the others, and whatever they do at once, each message is delivered once and nothing that was acknowledged is
//! lost.
//!
//! A test starts two servers and a `redis-server` of its own. Where there is no `redis-server` the tests are left out,
//! unless `REQUIRE_BACKENDS=1` asks for them; and so for RabbitMQ.

#[path = "restart/book.rs"]
#[expect(dead_code, reason = "the claims are not read again here")]
mod book;
#[path = "servers/changes.rs"]
mod changes;
#[path = "servers/crashes.rs"]
mod crashes;
#[path = "servers/dead_pool.rs"]
mod dead_pool;
#[path = "servers/leases.rs"]
mod leases;
#[path = "../backends/amqp/tests/nodes/mod.rs"]
mod nodes;
#[path = "servers/once.rs"]
mod once;
#[path = "servers/pools.rs"]
mod pools;
#[path = "../backends/redis/tests/servers/mod.rs"]
mod redis;
#[path = "support/server.rs"]
mod server;
#[path = "servers/told.rs"]
mod told;
#[path = "servers/window.rs"]
mod window;

use std::time::Duration;

use nodes::Node;
use redis::Servers;
use server::{Client, Server};
use tempfile::TempDir;

/// How long the servers wait for Redis.
const TIMEOUT: Duration = Duration::from_millis(1000);

/// Two servers on one Redis.
struct Service {
    servers: [Server; 2],
    redis: Servers,
    /// Where the messages are, if they are not in Redis.
    _broker: Option<Node>,
    folder: TempDir,
}

/// What was started; `None` where it is not installed and not required.
fn started<T>(what: &str, result: Result<T, String>) -> Option<T> {
    let required = std::env::var("REQUIRE_BACKENDS").is_ok_and(|value| value == "1");
    match result {
        Ok(started) => Some(started),
        Err(why) if required => panic!("{what} is required: {why}"),
        Err(why) => {
            eprintln!("left out: {why}");
            None
        }
    }
}

impl Service {
    /// Starts them; `None` where there is no Redis and none is required.
    fn start(redis: fn() -> Result<Servers, String>) -> Option<Self> {
        let redis = started("Redis", redis())?;
        let timeout = format!("timeout_ms={}", TIMEOUT.as_millis());
        let store = redis.uri("several:").replace("timeout_ms=5000", &timeout);
        assert!(store.contains(&timeout), "{store} has another time-out");
        let folder = tempfile::tempdir().expect("a folder");
        let servers = [(); 2].map(|()| Server::start(&store, folder.path()));
        Some(Self {
            servers,
            redis,
            _broker: None,
            folder,
        })
    }

    /// Starts two servers on one RabbitMQ, with queues and the ledger in one Redis.
    fn on_rabbitmq() -> Option<Self> {
        let redis = started("Redis", Servers::single())?;
        let broker = started("RabbitMQ", Node::start())?;
        let store = format!("{}?timeout_ms=20000", broker.uri());
        let flags = ["--management", &redis.uri("several:")];
        let folder = tempfile::tempdir().expect("a folder");
        let servers = [(); 2].map(|()| Server::start_with(&store, folder.path(), &flags));
        Some(Self {
            servers,
            redis,
            _broker: Some(broker),
            folder,
        })
    }

    /// What both servers have written so far.
    fn log(&self) -> String {
        server::log_in(self.folder.path())
    }

    /// A client of each server.
    fn clients(&self) -> [Client; 2] {
        [self.client(0), self.client(1)]
    }

    /// A client of one server; the servers take turns.
    fn client(&self, at: usize) -> Client {
        Client::new(self.servers[at % 2].address, "several")
    }
}

impl Drop for Service {
    /// Says what the servers said when something went wrong.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = server::log_in(self.folder.path());
            eprintln!("The servers said:\n{}", server::last_lines(&log, 40));
        }
    }
}
