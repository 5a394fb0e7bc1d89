//! Checks beyond what is written: files of certificates, and configurations that are meant for another machine.

use std::net::IpAddr;

use figment::Figment;
use figment::providers::{Format, Serialized, Toml};

use super::secrets::one_line;
use super::{Config, ConfigError, DEFAULTS, RawConfig};

/// Addresses to listen at, which may name a host that only another machine knows.
const LISTENERS: [&str; 3] = ["server.listen", "server.admin_listen", "websocket.listen"];

impl Config {
    /// Reads the certificates and keys that connections to other services need. Fails with a sentence that names the key and
    /// the file that cannot be used. Those of the own listeners have been read before.
    pub fn check_files(&self) -> Result<(), ConfigError> {
        if let Some(keystone) = &self.keystone {
            keystone.check_files().map_err(ConfigError)?;
        }
        self.notifications.check_files().map_err(ConfigError)
    }
}

/// Refuses the text of a configuration that no server accepts, wherever it is to run: the environment does not count, names
/// of hosts to listen at are not looked up, and no file of certificates is read.
pub fn check_text(text: &str) -> Result<(), ConfigError> {
    let mut layers = Figment::from(Toml::string(DEFAULTS)).merge(Toml::string(text));
    for key in LISTENERS {
        let written = layers.extract_inner::<String>(key).unwrap_or_default();
        if let Some((host, port)) = written.rsplit_once(':')
            && host.trim_matches(['[', ']']).parse::<IpAddr>().is_err()
        {
            layers = layers.merge(Serialized::default(key, format!("127.0.0.1:{port}")));
        }
    }
    let raw: RawConfig = layers
        .extract()
        .map_err(|error| ConfigError(format!("invalid configuration: {}", one_line(&error))))?;
    raw.resolve().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_refused_for_what_it_says_alone() {
        for accepted in [
            "",
            "[server]\nlisten = \"api.nowhere.invalid:80\"",
            "[server]\nlisten = \"[::1]:80\"",
            "[notifications]\nca_file = \"/nowhere/at/all\"",
        ] {
            assert!(check_text(accepted).is_ok(), "{accepted}");
        }
        for (refused, word) in [
            ("[server]\nlisten = \"host:port\"", "server.listen"),
            ("[server]\nlisten = \"host\"", "server.listen"),
            ("[limits]\nmax_message_ttl = 1", "limits.max_message_ttl"),
            ("[nowhere]\na = 1", "nowhere"),
        ] {
            let sentence = check_text(refused).expect_err(refused).to_string();
            assert!(sentence.contains(word), "{refused}: {sentence}");
        }
    }
}
