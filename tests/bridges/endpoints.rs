//! The pools that a line of bridges goes through.

use std::thread;
use std::time::Duration;

use isimud_testing::proxy::Proxy;
use isimud_testing::rabbitmq::Node;
use isimud_testing::redis::Servers;
use isimud_testing::sqs::Emulator;

/// How long a server is away: long enough for those who use it to notice.
const AWAY: Duration = Duration::from_millis(500);

/// A pool on the way, and the server behind it, if there is one.
pub(crate) struct Endpoint {
    pub(crate) name: &'static str,
    pub(crate) uri: String,
    behind: Option<Box<dyn Restart>>,
}

/// A server that can be away for a while, in the middle of whatever it does, and loses nothing by that.
trait Restart: Sync {
    fn restart(&self);
}

impl Restart for Servers {
    fn restart(&self) {
        let server = self.get(0);
        server.kill();
        std::thread::sleep(AWAY);
        server.start_again().expect("it starts again");
    }
}

impl Restart for Node {
    fn restart(&self) {
        self.kill();
        self.start_again().expect("it starts again");
    }
}

/// A server that would forget everything, and the proxy before it, which is shut for a while instead.
struct Behind(
    Proxy,
    #[expect(dead_code, reason = "it runs while this is there")] Emulator,
);

impl Restart for Behind {
    fn restart(&self) {
        self.0.shut(true);
        thread::sleep(Duration::from_secs(2));
        self.0.shut(false);
    }
}

impl Endpoint {
    /// A file of the embedded store.
    pub(crate) fn embedded(name: &'static str) -> Self {
        Self {
            name,
            uri: format!("sqlite:{name}.db"),
            behind: None,
        }
    }

    /// A Redis of its own, which has everything on its disk before it answers.
    pub(crate) fn redis(name: &'static str) -> Result<Self, String> {
        let servers = Servers::always()?;
        Ok(Self {
            name,
            uri: servers.uri("line:"),
            behind: Some(Box::new(servers)),
        })
    }

    /// A RabbitMQ of its own.
    pub(crate) fn rabbitmq(name: &'static str) -> Result<Self, String> {
        let node = Node::start()?;
        Ok(Self {
            name,
            uri: node.uri(),
            behind: Some(Box::new(node)),
        })
    }

    /// A server of its own that speaks SQS. Its queues are in memory, so it is only out of reach for a while.
    pub(crate) fn sqs(name: &'static str) -> Result<Self, String> {
        let server = Emulator::start()?;
        let proxy = Proxy::standalone(server.port);
        Ok(Self {
            name,
            uri: format!(
                "sqs://us-east-1?endpoint=http://127.0.0.1:{}&timeout_ms=10000",
                proxy.port
            ),
            behind: Some(Box::new(Behind(proxy, server))),
        })
    }

    /// Has what is behind it be away for a while. Returns whether there is anything.
    pub(crate) fn restart(&self) -> bool {
        let Some(server) = &self.behind else {
            return false;
        };
        server.restart();
        true
    }
}

/// A way through pools.
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    /// Whether every store on the way keeps a producer's order.
    pub(crate) is_ordered: bool,
    pub(crate) endpoints: fn() -> Result<Vec<Endpoint>, String>,
}

/// The lines. Each begins in the embedded store of the server.
pub(crate) const LINES: &[Chain] = &[
    Chain {
        name: "embedded, Redis, embedded",
        is_ordered: true,
        endpoints: || Ok(vec![Endpoint::redis("far")?, Endpoint::embedded("back")]),
    },
    Chain {
        name: "embedded, RabbitMQ, embedded",
        is_ordered: false,
        endpoints: || {
            Ok(vec![
                Endpoint::rabbitmq("rabbit")?,
                Endpoint::embedded("back"),
            ])
        },
    },
    Chain {
        name: "embedded, SQS, RabbitMQ",
        is_ordered: false,
        endpoints: || Ok(vec![Endpoint::sqs("cloud")?, Endpoint::rabbitmq("rabbit")?]),
    },
];
