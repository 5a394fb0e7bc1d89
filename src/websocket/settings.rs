//! What holds for sockets, as the configuration means it.

use std::time::Duration;

use super::handshake::Origins;

/// The section `[websocket]`, apart from its listener.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whose pages may open sockets.
    pub origins: Origins,
    /// Whether the API's listener takes sockets too.
    pub upgrade: bool,
    /// What sockets may have.
    pub limits: Limits,
    /// The time between pings.
    pub ping: Duration,
    /// After how long a socket is closed that asks for nothing and has no subscription.
    pub idle: Duration,
    /// How long a socket may take nothing of what it is sent.
    pub send_timeout: Duration,
    /// The longest time that a client is told to wait before it connects again, when the server stops.
    pub reconnect: Duration,
}

/// How much sockets may have.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Sockets of the server.
    pub sockets: usize,
    /// Sockets of one project.
    pub sockets_per_project: usize,
    /// Subscriptions of one socket.
    pub subscriptions: usize,
    /// Bytes of one request.
    pub message_bytes: usize,
    /// Messages that are read of one socket in a second.
    pub messages_per_second: u32,
    /// Bytes that are read of one socket in a second.
    pub bytes_per_second: u32,
    /// Requests of one socket that are read and not answered yet.
    pub unanswered: usize,
    /// Messages that one socket has not taken yet.
    pub unsent: usize,
    /// Their bytes.
    pub unsent_bytes: usize,
}
