//! How the broker is opened.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use isimud_contract::{Capabilities, Error, ProjectId, Result};
use percent_encoding::percent_decode_str;

use crate::broker::CAPABILITIES;
use crate::connect;
use crate::names::Names;

/// The options of a URI. Behind `name`, `exchange` and `routing_key` there may be a point and a queue.
pub const OPTIONS: &str = "queue_type, adopt, project, prefix, name, exchange, routing_key, journal, timeout_ms, heartbeat_s, \
                           hold_cap_s, max_held, channels, native_ttl_s, native_ids, delivery_limit, clock, ca_file, \
                           cert_file, key_file";

/// What [`AmqpBroker::open`](crate::AmqpBroker::open) needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) hosts: Vec<Host>,
    pub(crate) tls: bool,
    pub(crate) user: String,
    pub(crate) password: Secret,
    pub(crate) vhost: String,
    pub(crate) queue_type: QueueType,
    /// Whether queues are taken as they are found, and never made or deleted.
    pub(crate) adopt: bool,
    pub(crate) names: Names,
    journal: bool,
    pub(crate) timeout: Duration,
    pub(crate) heartbeat: Duration,
    /// How long a delivery is held at most, whatever its lease.
    pub(crate) hold_cap: Duration,
    /// How many deliveries this server holds at most.
    pub(crate) max_held: usize,
    /// How many channels a connection has at most, for each use.
    pub(crate) channels: usize,
    /// The life of a message that says nothing of one.
    pub(crate) native_ttl: Duration,
    /// Whether a `message_id` of a native producer that is a UUID is the message's id.
    pub(crate) keeps_native_ids: bool,
    /// What is known of how often a quorum queue takes a message back.
    pub(crate) delivery_limit: DeliveryLimit,
    pub(crate) tls_config: TlsConfig,
    /// Whether holds end by the service's clock.
    pub(crate) by_service: bool,
}

/// Where a node listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) port: u16,
}

/// How often a quorum queue takes a message back before RabbitMQ drops or dead-letters it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeliveryLimit {
    /// The queue's arguments, an operator's policy and RabbitMQ's version decide, and AMQP does not tell.
    Unknown,
    /// The operator says so.
    Known(u32),
    /// It is the operator's wish that RabbitMQ enforces it.
    Enforced,
}

/// What kind of queue is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueueType {
    Quorum,
    Classic,
}

/// Files in PEM format, read anew for each connection: whom to trust, and what to show when asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TlsConfig {
    /// Instead of the authorities that the machine trusts.
    pub(crate) ca: Option<PathBuf>,
    /// A certificate and its key.
    pub(crate) client_cert: Option<(PathBuf, PathBuf)>,
}

/// A password. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Config {
    /// Reads the files of certificates and keys that the URI names, so that what cannot be used is known before anybody asks
    /// for it. `Invalid` with the file.
    pub fn check_files(&self) -> Result<()> {
        connect::check(self)
    }

    /// Reads a pool's URI; the crate's README lists the forms and the options.
    ///
    /// No error repeats the URI, which may have a password in it.
    pub fn parse(uri: &str) -> Result<Self> {
        let (scheme, rest) = uri.split_once(':').unwrap_or((uri, ""));
        let tls = match scheme {
            "amqp" => false,
            "amqps" => true,
            _ => return Err(wrong("the scheme is not 'amqp:' or 'amqps:'")),
        };
        let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
        let location = location
            .strip_prefix("//")
            .ok_or_else(|| wrong("there is no '//'"))?;
        let (credentials, location) = match location.rsplit_once('@') {
            Some((credentials, location)) => (credentials, location),
            None => ("guest:guest", location),
        };
        let (user, password) = credentials
            .split_once(':')
            .ok_or_else(|| wrong("a user needs a password: 'user:password@'"))?;
        let (hosts, vhost) = location.split_once('/').unwrap_or((location, ""));
        let port = if tls { 5671 } else { 5672 };
        let hosts: Result<_> = hosts
            .split(',')
            .map(|host| parse_host(host, port))
            .collect();
        let mut config = Self {
            hosts: hosts?,
            tls,
            user: decoded(user)?,
            password: Secret(decoded(password)?),
            // No virtual host has an empty name in practice, and `amqp://host/?…` is easily written.
            vhost: if vhost.is_empty() {
                "/".into()
            } else {
                decoded(vhost)?
            },
            queue_type: QueueType::Quorum,
            adopt: false,
            names: Names::new(),
            journal: true,
            timeout: Duration::from_secs(2),
            heartbeat: Duration::from_secs(10),
            hold_cap: Duration::from_secs(1200),
            max_held: 100_000,
            channels: 32,
            native_ttl: Duration::from_secs(1_209_600),
            keeps_native_ids: false,
            delivery_limit: DeliveryLimit::Unknown,
            tls_config: TlsConfig::default(),
            by_service: false,
        };
        config.apply(query)?;
        config.names.adopt(config.adopt);
        config.check()?;
        Ok(config)
    }

    /// The number of returns from which a message is taken over when it is next delivered, so that RabbitMQ never gets to
    /// drop it. `None` where that is what the operator wants.
    ///
    /// Where the limit is unknown, that of an adopted queue may be any. One of our own was made with a high one, and only
    /// an operator's policy makes it lower.
    pub(crate) fn take_over_at(&self) -> Option<u64> {
        match self.delivery_limit {
            DeliveryLimit::Enforced => None,
            DeliveryLimit::Known(limit) => Some(u64::from(limit / 2).max(1)),
            DeliveryLimit::Unknown if self.adopt => Some(1),
            DeliveryLimit::Unknown => Some(3),
        }
    }

    /// Whether messages are written into the ledger when they are posted, so that they can be listed and got by id.
    pub fn journal(&self) -> bool {
        self.journal
    }

    /// Whether both name the same node and virtual host, whoever logs in.
    pub fn is_beside(&self, other: &Self) -> bool {
        let location = |config: &Self, host: &Host| {
            let plain = if config.tls { 5671 } else { 5672 };
            let port = (host.port != plain).then_some(host.port);
            (host.name.to_ascii_lowercase(), port)
        };
        let ours = self.hosts.iter().map(|host| location(self, host));
        let theirs: Vec<_> = other
            .hosts
            .iter()
            .map(|host| location(other, host))
            .collect();
        self.vhost == other.vhost && ours.into_iter().any(|host| theirs.contains(&host))
    }

    /// Whether a queue of one pool could be in the RabbitMQ queue of any queue of the other.
    pub fn shares_names(&self, other: &Self) -> bool {
        self.names.meet(&other.names)
    }

    /// Whether both call queues the same.
    pub fn has_names_of(&self, other: &Self) -> bool {
        self.names == other.names
    }

    /// What the broker can do by itself, as far as it can be said without asking it.
    pub fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn apply(&mut self, query: &str) -> Result<()> {
        let mut own = (None, None);
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            let value = decoded(value)?;
            match key {
                "prefix" => self.names.begin_with(value),
                "project" => {
                    let project = ProjectId::parse(&value);
                    let refused = |_| wrong("'project' is not a project's id: 1 to 256 characters");
                    self.names.are_of(project.map_err(refused)?);
                }
                "ca_file" => self.tls_config.ca = Some(value.into()),
                "cert_file" => own.0 = Some(value.into()),
                "key_file" => own.1 = Some(value.into()),
                _ => {
                    let known = self.apply_one(key, &value);
                    known.unwrap_or_else(|| self.apply_pattern(key, &value))?;
                }
            }
        }
        self.tls_config.client_cert = match own {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(wrong("'cert_file' and 'key_file' need each other")),
        };
        Ok(())
    }

    /// Takes an option with a value of a kind. `None` when it is not one.
    fn apply_one(&mut self, key: &str, value: &str) -> Option<Result<()>> {
        let seconds = |from: u64, to: u64| number(value, from, to).map(Duration::from_secs);
        let done = match key {
            "queue_type" => queue_type(value).map(|it| self.queue_type = it),
            "adopt" => value.parse().ok().map(|it| self.adopt = it),
            "journal" => value.parse().ok().map(|it| self.journal = it),
            "clock" => {
                let own = match value {
                    "machine" => Some(false),
                    "service" => Some(true),
                    _ => None,
                };
                own.map(|it| self.by_service = it)
            }
            "timeout_ms" => {
                let span = number(value, 10, 600_000).map(Duration::from_millis);
                span.map(|it| self.timeout = it)
            }
            "heartbeat_s" => seconds(1, 3600).map(|it| self.heartbeat = it),
            "hold_cap_s" => seconds(1, 43_200).map(|it| self.hold_cap = it),
            "native_ttl_s" => seconds(1, 1_000_000_000).map(|it| self.native_ttl = it),
            "native_ids" => {
                let keeps = match value {
                    "fresh" => Some(false),
                    "keep" => Some(true),
                    _ => None,
                };
                keeps.map(|it| self.keeps_native_ids = it)
            }
            "delivery_limit" => delivery_limit(value).map(|it| self.delivery_limit = it),
            "max_held" => number(value, 1, 10_000_000).map(|it| self.max_held = it as usize),
            "channels" => number(value, 1, 1000).map(|it| self.channels = it as usize),
            _ => return None,
        };
        Some(done.ok_or_else(|| wrong(format!("that is not a value for the option '{key}'"))))
    }

    fn apply_pattern(&mut self, key: &str, value: &str) -> Result<()> {
        match self.names.set(key, value) {
            Some(Ok(())) => Ok(()),
            Some(Err(why)) => Err(wrong(format!("{why} (option '{key}')"))),
            None => Err(wrong(format!(
                "'{key}' is not one of the options {OPTIONS} (name, exchange and routing_key also with .QUEUE)"
            ))),
        }
    }

    fn check(&self) -> Result<()> {
        if !self.tls && self.tls_config != TlsConfig::default() {
            return Err(wrong("certificates need the scheme 'amqps:'"));
        }
        self.names.check().map_err(wrong)?;
        if self.hold_cap <= self.timeout {
            return Err(wrong("'hold_cap_s' is not longer than 'timeout_ms'"));
        }
        Ok(())
    }
}

fn queue_type(value: &str) -> Option<QueueType> {
    match value {
        "quorum" => Some(QueueType::Quorum),
        "classic" => Some(QueueType::Classic),
        _ => None,
    }
}

fn delivery_limit(value: &str) -> Option<DeliveryLimit> {
    match value {
        "unknown" => Some(DeliveryLimit::Unknown),
        "broker" => Some(DeliveryLimit::Enforced),
        _ => {
            let limit = u32::try_from(number(value, 1, 1_000_000_000)?).ok()?;
            Some(DeliveryLimit::Known(limit))
        }
    }
}

fn number(value: &str, from: u64, to: u64) -> Option<u64> {
    value.parse().ok().filter(|it| (from..=to).contains(it))
}

fn parse_host(text: &str, port: u16) -> Result<Host> {
    let refused = || wrong("a host is not 'NAME', 'NAME:PORT' or '[ADDRESS]:PORT'");
    let (name, rest) = match text.strip_prefix('[') {
        Some(inside) => inside.split_once(']').ok_or_else(refused)?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match rest.strip_prefix(':') {
        Some(port) => port.parse().map_err(|_| refused())?,
        None if rest.is_empty() => port,
        None => return Err(refused()),
    };
    if name.is_empty() {
        return Err(refused());
    }
    Ok(Host {
        name: name.to_owned(),
        port,
    })
}

fn decoded(text: &str) -> Result<String> {
    percent_decode_str(text)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| wrong("a part is not UTF-8"))
}

fn wrong(why: impl fmt::Display) -> Error {
    Error::invalid(format!("{why} in the AMQP store URI"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, port: u16) -> Host {
        Host {
            name: name.into(),
            port,
        }
    }

    #[test]
    fn a_host_is_enough() {
        for uri in [
            "amqp://localhost",
            "amqp://localhost/",
            "amqp://localhost/%2F",
        ] {
            let config = Config::parse(uri).unwrap();
            assert_eq!(config.hosts, [host("localhost", 5672)]);
            assert_eq!(
                (config.user.as_str(), config.vhost.as_str()),
                ("guest", "/")
            );
            assert_eq!(config.queue_type, QueueType::Quorum);
            assert_eq!(config.timeout, Duration::from_secs(2));
            assert!(config.journal() && !config.adopt && !config.tls);
        }
    }

    #[test]
    fn everything_can_be_said() {
        let uri = "amqps://me:p%40ss@a,[::1]:7000/my%2Fhost?queue_type=classic&journal=false&timeout_ms=300\
                   &heartbeat_s=5&hold_cap_s=60&max_held=7&channels=3&native_ttl_s=90&prefix=x.&adopt=true\
                   &name=%7Bqueue%7D&name.orders=Old%20Orders&exchange=e&routing_key={queue}&project=p%20q\
                   &clock=service&ca_file=/c%20a&cert_file=c&key_file=k";
        let config = Config::parse(uri).unwrap();
        assert_eq!(config.hosts, [host("a", 5671), host("::1", 7000)]);
        assert_eq!(config.user, "me");
        assert_eq!(config.password, Secret("p@ss".into()));
        assert_eq!(config.vhost, "my/host");
        assert_eq!(config.queue_type, QueueType::Classic);
        assert!(config.tls && config.adopt && config.by_service && !config.journal());
        assert_eq!(config.timeout, Duration::from_millis(300));
        assert_eq!(config.heartbeat, Duration::from_secs(5));
        assert_eq!(config.hold_cap, Duration::from_secs(60));
        assert_eq!(config.native_ttl, Duration::from_secs(90));
        assert_eq!((config.max_held, config.channels), (7, 3));
        assert_eq!(config.names.prefix(), "x.");
        assert_eq!(config.tls_config.ca, Some("/c a".into()));
        assert_eq!(
            config.tls_config.client_cert,
            Some(("c".into(), "k".into()))
        );
    }

    #[test]
    fn mistakes_are_named_and_passwords_are_not() {
        for uri in [
            "amqp:",
            "amqp:h",
            "amqp://",
            "amqpx://h",
            "amqp://secret@h",
            "amqp://u:secret@h:port",
            "amqp://u:secret@h,",
            "amqp://u:secret@h/%ff",
            "amqp://u:secret@h?colour=red",
            "amqp://u:secret@h?queue_type=stream",
            "amqp://u:secret@h?journal=maybe",
            "amqp://u:secret@h?clock=mine",
            "amqp://u:secret@h?timeout_ms=0",
            "amqp://u:secret@h?hold_cap_s=1",
            "amqp://u:secret@h?prefix=amq.",
            "amqp://u:secret@h?adopt=true",
            "amqp://u:secret@h?name=fixed&project=p",
            "amqp://u:secret@h?name={queue}",
            "amqp://u:secret@h?adopt=true&name={queue}",
            "amqp://u:secret@h?adopt=true&name={queue}&project=",
            "amqp://u:secret@h?project=p",
            "amqp://u:secret@h?ca_file=x",
            "amqps://u:secret@h?cert_file=x",
            "amqps://u:secret@h?key_file=x",
        ] {
            let error = Config::parse(uri).unwrap_err();
            assert!(!format!("{error:?}").contains("secret"), "{uri}");
        }
        let config = Config::parse("amqp://u:secret@h").unwrap();
        assert!(!format!("{config:?}").contains("secret"));
    }
}
