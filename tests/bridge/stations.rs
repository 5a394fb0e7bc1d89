//! The pools that a line of bridges goes through.

use super::redis::Servers;

/// A pool on the way, and the server behind it, if there is one.
pub(crate) struct Station {
    pub(crate) name: &'static str,
    pub(crate) uri: String,
    behind: Option<Servers>,
}

impl Station {
    /// A file of the embedded store.
    pub(crate) fn embedded(name: &'static str) -> Result<Self, String> {
        Ok(Self {
            name,
            uri: format!("sqlite:{name}.db"),
            behind: None,
        })
    }

    /// A Redis of its own, which loses nothing when it is killed.
    pub(crate) fn redis(name: &'static str) -> Result<Self, String> {
        let servers = Servers::always()?;
        Ok(Self {
            name,
            uri: servers.uri("line:"),
            behind: Some(servers),
        })
    }

    /// Kills what is behind it and starts it again. Returns whether there is anything.
    pub(crate) fn restart(&self) -> bool {
        let Some(servers) = &self.behind else {
            return false;
        };
        let server = servers.get(0);
        server.kill();
        // Long enough for those who use it to notice.
        std::thread::sleep(std::time::Duration::from_millis(500));
        server.start_again().expect("it starts again");
        true
    }
}

/// A way through pools.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) stations: fn() -> Result<Vec<Station>, String>,
}

/// The lines. Each begins in the embedded store of the server.
pub(crate) const LINES: &[Line] = &[Line {
    name: "embedded, Redis, embedded",
    stations: || Ok(vec![Station::redis("far")?, Station::embedded("back")?]),
}];
