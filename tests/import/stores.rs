//! The stores that are imported into, and all that is in them afterwards.

use std::path::Path;

use isimud_testing::rabbitmq::Node;
use isimud_testing::redis::Servers;
use isimud_testing::sqs::Emulator;
use serde_json::Value;

use crate::support::server::{Client, Server};

/// A store with the server behind it.
pub(crate) struct Store {
    pub(crate) name: &'static str,
    uri: String,
    /// Where queues are, if not with the messages.
    management: Option<String>,
    /// Bodies that it does not take are larger than this.
    pub(crate) largest: usize,
    _behind: Option<Box<dyn Send>>,
}

/// Makes a store ready; a sentence where its server is missing.
pub(crate) type Make = fn() -> Result<Store, String>;

impl Store {
    pub(crate) fn embedded() -> Result<Self, String> {
        Ok(Self {
            name: "embedded",
            uri: "sqlite:i.db".to_owned(),
            management: None,
            largest: usize::MAX,
            _behind: None,
        })
    }

    pub(crate) fn redis() -> Result<Self, String> {
        let servers = Servers::single()?;
        Ok(Self {
            name: "Redis",
            uri: servers.uri("imported:"),
            management: None,
            largest: usize::MAX,
            _behind: Some(Box::new(servers)),
        })
    }

    /// RabbitMQ, with its ledger in Redis, so that several can import at once.
    pub(crate) fn rabbitmq() -> Result<Self, String> {
        let (node, ledger) = (Node::start()?, Servers::single()?);
        Ok(Self {
            name: "RabbitMQ",
            uri: format!("{}?journal=true", node.uri()),
            management: Some(ledger.uri("ledger:")),
            largest: 16 << 20,
            _behind: Some(Box::new((node, ledger))),
        })
    }

    /// SQS, with its ledger in Redis.
    pub(crate) fn sqs() -> Result<Self, String> {
        let ledger = Servers::single()?;
        let store = Self::on_sqs(Emulator::start()?, 60_000);
        Ok(Self {
            management: Some(ledger.uri("ledger:")),
            _behind: Some(Box::new((store._behind, ledger))),
            ..store
        })
    }

    /// A store in a server that speaks SQS, which may take so long to answer.
    pub(crate) fn on_sqs(server: Emulator, timeout_ms: u32) -> Self {
        let port = server.port;
        Self {
            name: "SQS",
            uri: format!(
                "sqs://us-east-1?endpoint=http://127.0.0.1:{port}&timeout_ms={timeout_ms}&journal=true"
            ),
            management: Some("sqlite:m.db".to_owned()),
            largest: (1 << 20) - 2048,
            _behind: Some(Box::new(server)),
        }
    }

    /// Whether it remembers the ids of what was deleted.
    pub(crate) fn remembers(&self) -> bool {
        self.management.is_some()
    }

    /// Whether two processes may have it open at once.
    pub(crate) fn is_shared(&self) -> bool {
        let is_a_file = |uri: &str| uri.starts_with("sqlite:");
        !is_a_file(&self.uri) && !self.management.as_deref().is_some_and(is_a_file)
    }

    /// The flags of an import.
    pub(crate) fn flags(&self) -> Vec<&str> {
        let mut flags = vec!["--store", self.uri.as_str()];
        if let Some(management) = &self.management {
            flags.extend(["--store-management", management]);
        }
        flags
    }

    /// Takes everything out of queues of a project, by pops, and returns the bodies, sorted.
    pub(crate) fn consume(&self, folder: &Path, project: &str, queues: &[&str]) -> Vec<String> {
        let management = self.management.as_deref();
        let management = management.map(|management| ["--management", management]);
        let flags = management.iter().flatten().copied();
        let server = Server::start_with(&self.uri, folder, &flags.collect::<Vec<_>>());
        let mut client = Client::new(server.address, project);
        let mut bodies = Vec::new();
        for queue in queues {
            let path = format!("/v2/queues/{queue}/messages?pop=20");
            // A broker may have nothing to give for a moment; the ledger knows what there is.
            let mut empty = 0;
            while empty < 3 {
                let answer = client.send("DELETE", &path, None).expect("an answer");
                assert!(answer.status < 300, "{}: {path}: {answer}", self.name);
                let document = answer.json();
                let popped = document["messages"]
                    .as_array()
                    .map_or(&[][..], Vec::as_slice);
                bodies.extend(popped.iter().map(|message| message["body"].to_string()));
                empty = if popped.is_empty() { empty + 1 } else { 0 };
            }
        }
        bodies.sort_unstable();
        server.stop();
        bodies
    }

    /// How many messages the API counts in a queue.
    pub(crate) fn count(&self, folder: &Path, project: &str, queue: &str) -> u64 {
        let management = self.management.as_deref();
        let management = management.map(|management| ["--management", management]);
        let flags = management.iter().flatten().copied();
        let server = Server::start_with(&self.uri, folder, &flags.collect::<Vec<_>>());
        let mut client = Client::new(server.address, project);
        let stats: Value = crate::import::get(&mut client, &format!("/v2/queues/{queue}/stats"));
        let total = stats["messages"]["total"].as_u64().expect("a count");
        server.stop();
        total
    }
}
