//! The pools that a line of bridges goes through.

use std::time::Duration;

use super::redis::Servers;

/// How long a server is away: long enough for those who use it to notice.
const AWAY: Duration = Duration::from_millis(500);

/// A pool on the way, and the server behind it, if there is one.
pub(crate) struct Station {
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

impl Station {
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
pub(crate) struct Line {
    pub(crate) name: &'static str,
    /// Whether every store on the way keeps a producer's order.
    pub(crate) is_ordered: bool,
    pub(crate) stations: fn() -> Result<Vec<Station>, String>,
}

/// The lines. Each begins in the embedded store of the server.
pub(crate) const LINES: &[Line] = &[Line {
    name: "embedded, Redis, embedded",
    is_ordered: true,
    stations: || Ok(vec![Station::redis("far")?, Station::embedded("back")]),
}];
