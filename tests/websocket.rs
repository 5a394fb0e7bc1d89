//! The WebSocket transport, end to end: the real server, and clients that speak either encoding.

mod access;
mod actions;
mod client;
mod errors;
mod examples;
mod keystone;
mod limits;
mod subscriptions;

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::server::{Client, Server};
use crate::websocket::client::{Encoding, Socket};

/// A server with a configuration of its own.
pub(crate) struct Service {
    pub(crate) server: Server,
    _folder: TempDir,
}

impl Service {
    /// A service on the embedded store, with what its operator's file says.
    pub(crate) fn start(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        configure(folder.path(), config);
        let server = Server::start("sqlite::memory:", folder.path());
        Self {
            server,
            _folder: folder,
        }
    }

    pub(crate) fn socket(&self, encoding: Encoding) -> Socket {
        Socket::open(self.server.address, encoding)
    }

    pub(crate) fn http(&self) -> Client {
        Client::new(self.server.address, "p1")
    }
}

/// Writes a configuration in which the API's listener takes sockets, unless it says otherwise.
pub(crate) fn configure(folder: &Path, config: &str) {
    const SECTION: &str = "[websocket]\n";
    let (before, after) = match config.split_once(SECTION) {
        Some(parts) => parts,
        None => ("", config),
    };
    let text = match config.contains("upgrade =") {
        true => config.to_owned(),
        false => format!("{before}\n{SECTION}upgrade = true\n{after}"),
    };
    std::fs::write(folder.join("isimud.toml"), text).expect("a configuration");
}

/// Messages of a post, of which each has its own body.
pub(crate) fn messages(bodies: impl IntoIterator<Item = Value>) -> Value {
    let messages = bodies
        .into_iter()
        .map(|body| json!({"ttl": 300, "body": body}));
    messages.collect()
}
