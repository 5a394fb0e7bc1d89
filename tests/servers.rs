//! Several servers on one Redis, or on one RabbitMQ with the ledger in Redis, are one service: what one of them changes
//! holds for the others, and whatever they do at once, each message is delivered once and nothing that was acknowledged is
//! lost.
//!
//! A test starts two servers and a `redis-server` of its own. Where there is no `redis-server` the tests are left out,
//! unless `REQUIRE_BACKENDS=1` asks for them; and so for RabbitMQ.

mod changes;
mod crashes;
mod dead_pool;
mod durability_log;
mod leases;
mod observers;
mod once;
mod pools;
mod unanswered;
mod window;

use std::net::SocketAddr;
use std::time::Duration;

use isimud_testing::rabbitmq::Node;
use isimud_testing::redis::Servers;
use isimud_testing::started;
use tempfile::TempDir;

use crate::support::server::{self, Client, Server};

/// How long the servers wait for Redis.
const TIMEOUT: Duration = Duration::from_millis(1000);

/// Two servers on one Redis.
struct Service {
    servers: [Server; 2],
    /// Where they speak to operators.
    admins: [SocketAddr; 2],
    redis: Servers,
    /// Where the messages are, if they are not in Redis.
    _broker: Option<Node>,
    folder: TempDir,
}

impl Service {
    /// Starts them; `None` where there is no Redis and none is required.
    fn start(redis: fn() -> Result<Servers, String>) -> Option<Self> {
        let redis = started("Redis", redis())?;
        let timeout = format!("timeout_ms={}", TIMEOUT.as_millis());
        let store = redis.uri("several:").replace("timeout_ms=5000", &timeout);
        assert!(store.contains(&timeout), "{store} has another time-out");
        let folder = tempfile::tempdir().expect("a folder");
        let admins = [(); 2].map(|()| server::free_address());
        let servers = admins.map(|admin| {
            let flags = ["--admin-listen", &admin.to_string()];
            Server::start_with(&store, folder.path(), &flags)
        });
        Some(Self {
            servers,
            admins,
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
        let management = redis.uri("several:");
        let folder = tempfile::tempdir().expect("a folder");
        let admins = [(); 2].map(|()| server::free_address());
        let servers = admins.map(|admin| {
            let admin = admin.to_string();
            let flags = ["--management", &management, "--admin-listen", &admin];
            Server::start_with(&store, folder.path(), &flags)
        });
        Some(Self {
            servers,
            admins,
            redis,
            _broker: Some(broker),
            folder,
        })
    }

    /// What both servers have written so far.
    fn log(&self) -> String {
        server::log_in(self.folder.path())
    }

    /// The stores that have messages of a queue, oldest first, as one of the servers sees it.
    fn store_ids_of(&self, at: usize, queue: &str) -> Vec<String> {
        let mut admin = Client::operator(self.admins[at % 2]);
        let path = format!("/moves/queue?project=several&queue={queue}");
        let answer = admin.send("GET", &path, None).expect("an answer");
        assert_eq!(answer.status, 200, "{path}: {answer}");
        let place = answer.json()["place"].clone();
        serde_json::from_value(place).expect("names of stores")
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
