//! The section of the WebSocket transport, `[websocket]`.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::listeners::address;
use crate::websocket::{Limits, Origins, Settings};

/// The port of the listener where only an address is given.
const DEFAULT_PORT: u16 = 9000;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWebSocket {
    listen: String,
    external_port: u16,
    upgrade: bool,
    allowed_origins: Vec<String>,
    max_sockets: usize,
    max_sockets_per_project: usize,
    max_subscriptions_per_socket: usize,
    max_message_bytes: usize,
    max_messages_per_second: u32,
    max_bytes_per_second: u32,
    max_unanswered: usize,
    max_unsent: usize,
    max_unsent_bytes: usize,
    ping_secs: u64,
    idle_secs: u64,
    send_timeout_secs: u64,
    reconnect_secs: u64,
}

impl RawWebSocket {
    /// Says where the listener is, if there is one, and what holds for sockets.
    pub(super) fn resolve(self) -> Result<(Option<SocketAddr>, Settings), ConfigError> {
        for (key, number, least, most) in [
            ("max_sockets", self.max_sockets, 1, 10_000_000),
            (
                "max_sockets_per_project",
                self.max_sockets_per_project,
                1,
                10_000_000,
            ),
            (
                "max_subscriptions_per_socket",
                self.max_subscriptions_per_socket,
                1,
                10_000,
            ),
            (
                "max_message_bytes",
                self.max_message_bytes,
                1 << 10,
                1 << 30,
            ),
            (
                "max_messages_per_second",
                self.max_messages_per_second as usize,
                1,
                1_000_000,
            ),
            (
                "max_bytes_per_second",
                self.max_bytes_per_second as usize,
                1 << 10,
                1 << 30,
            ),
            ("max_unanswered", self.max_unanswered, 1, 10_000),
            ("max_unsent", self.max_unsent, 1, 1_000_000),
            ("max_unsent_bytes", self.max_unsent_bytes, 1 << 10, 1 << 30),
            ("ping_secs", to_usize(self.ping_secs), 1, 3600),
            ("idle_secs", to_usize(self.idle_secs), 1, 86_400),
            (
                "send_timeout_secs",
                to_usize(self.send_timeout_secs),
                1,
                600,
            ),
            ("reconnect_secs", to_usize(self.reconnect_secs), 0, 3600),
        ] {
            if !(least..=most).contains(&number) {
                let sentence = format!("websocket.{key} must be {least} to {most}");
                return Err(ConfigError::new(sentence));
            }
        }
        let listen = match self.listen.as_str() {
            "" => None,
            text => Some(listener(text)?),
        };
        let origins = Origins::new(self.allowed_origins, self.external_port);
        let settings = Settings {
            origins: origins.map_err(|why| {
                ConfigError::new(format!("websocket.allowed_origins is invalid: {why}"))
            })?,
            upgrade: self.upgrade,
            limits: Limits {
                sockets: self.max_sockets,
                sockets_per_project: self.max_sockets_per_project,
                subscriptions: self.max_subscriptions_per_socket,
                message_bytes: self.max_message_bytes,
                messages_per_second: self.max_messages_per_second,
                bytes_per_second: self.max_bytes_per_second,
                unanswered: self.max_unanswered,
                unsent: self.max_unsent,
                unsent_bytes: self.max_unsent_bytes,
            },
            ping: Duration::from_secs(self.ping_secs),
            idle: Duration::from_secs(self.idle_secs),
            send_timeout: Duration::from_secs(self.send_timeout_secs),
            reconnect: Duration::from_secs(self.reconnect_secs),
        };
        Ok((listen, settings))
    }
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// An address with its port, or one without, which stands for the usual port.
fn listener(text: &str) -> Result<SocketAddr, ConfigError> {
    let key = "websocket.listen";
    address(key, text).or_else(|error| {
        let host = match text.contains(':') && !text.starts_with('[') {
            true => format!("[{text}]"),
            false => text.to_owned(),
        };
        address(key, &format!("{host}:{DEFAULT_PORT}")).map_err(|_| error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_port_has_the_usual_one() {
        for (text, expected) in [
            ("127.0.0.1", "127.0.0.1:9000"),
            ("127.0.0.1:8000", "127.0.0.1:8000"),
            ("::1", "[::1]:9000"),
            ("[::1]", "[::1]:9000"),
            ("[::1]:8000", "[::1]:8000"),
        ] {
            let listen = listener(text).expect(text);
            assert_eq!(listen.to_string(), expected);
        }
        let refused = listener("no address").expect_err("it is none");
        assert!(refused.to_string().contains("websocket.listen"));
    }
}
