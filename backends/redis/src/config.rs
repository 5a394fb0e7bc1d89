//! How the store is opened.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use isimud_contract::{Clock, Error, Result};
use percent_encoding::percent_decode_str;
use redis::ConnectionAddr;

use crate::connect;

/// The options of a URI.
pub const OPTIONS: &str = "timeout_ms, socket_timeout, prefix, dbid, master, sentinel_username, sentinel_password, cluster, \
                           wait_replicas, wait_aof, ca_file, cert_file, key_file, clock";

/// Options of Zaqar's, which have no meaning here: what they are about goes by `timeout_ms`.
const OF_ZAQAR: [&str; 5] = [
    "max_reconnect_attempts",
    "reconnect_sleep",
    "max_attempts",
    "max_retry_sleep",
    "max_retry_jitter",
];

/// How long a call may take unless the URI says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);

/// What [`RedisStore::open`](crate::RedisStore::open) needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) hosts: Vec<Host>,
    pub(crate) tls: bool,
    pub(crate) kind: Kind,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) database: i64,
    pub(crate) timeout: Duration,
    pub(crate) prefix: String,
    pub(crate) wait_replicas: u32,
    /// Whether a post waits for the log on the disk.
    pub(crate) wait_log: bool,
    pub(crate) tls_config: TlsConfig,
    /// Whether the service's clock takes the place of the server's.
    own_clock: bool,
    pub(crate) time: Time,
    /// Options that were taken, and mean nothing.
    pub(crate) ignored: Vec<String>,
}

/// Files in PEM format, read anew for each connection: whom to trust, and what to show when asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TlsConfig {
    /// Instead of the authorities that the machine trusts.
    pub(crate) ca: Option<PathBuf>,
    /// A certificate and its key.
    pub(crate) client_cert: Option<(PathBuf, PathBuf)>,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    Tcp(String, u16),
    Unix(PathBuf),
}

/// What the hosts are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Single,
    /// They are sentinels, and know where the master of that name is.
    Sentinel {
        master: String,
        user: Option<String>,
        password: Option<Secret>,
    },
    /// They are nodes of a cluster.
    Cluster,
}

/// Whose clock it is that messages and claims end by.
#[derive(Debug, Clone)]
pub(crate) enum Time {
    /// The server's.
    Server,
    /// The server's, but so many milliseconds later.
    Ahead(Arc<std::sync::atomic::AtomicI64>),
    /// Another one.
    Other(Arc<dyn Clock>),
}

/// A password. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Host {
    pub(crate) fn address(&self, tls: bool) -> ConnectionAddr {
        match self.clone() {
            Self::Unix(path) => ConnectionAddr::Unix(path),
            Self::Tcp(host, port) if tls => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: false,
                tls_params: None,
            },
            Self::Tcp(host, port) => ConnectionAddr::Tcp(host, port),
        }
    }
}

impl Config {
    /// Reads the files of certificates and keys that the URI names, so that what cannot be used is known before anybody asks
    /// for it. `Invalid` with the file.
    pub fn check_files(&self) -> Result<()> {
        connect::check(&self.tls_config)
    }

    /// Reads a pool's URI; the crate's README lists the forms and the options.
    ///
    /// No error repeats the URI, which may have a password in it.
    pub fn parse(uri: &str) -> Result<Self> {
        let (scheme, rest) = uri.split_once(':').unwrap_or((uri, ""));
        let tls = match scheme {
            "redis" => false,
            "rediss" => true,
            _ => return Err(wrong("the scheme is not 'redis:' or 'rediss:'")),
        };
        let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
        let location = location.strip_prefix("//").unwrap_or(location);
        let (credentials, location) = match location.rsplit_once('@') {
            Some((credentials, location)) => (Some(credentials), location),
            None => (None, location),
        };
        let mut config = Self {
            hosts: Vec::new(),
            tls,
            kind: Kind::Single,
            user: None,
            password: None,
            database: 0,
            timeout: DEFAULT_TIMEOUT,
            prefix: "isimud:".into(),
            wait_replicas: 0,
            wait_log: false,
            tls_config: TlsConfig::default(),
            own_clock: false,
            time: Time::Server,
            ignored: Vec::new(),
        };
        if let Some(credentials) = credentials {
            config.log_in(credentials)?;
        }
        let options = Options::parse(query)?;
        options.apply(&mut config)?;
        config.location(location)?;
        config.check()?;
        Ok(config)
    }

    /// Whether both keep their keys in one place: a server in common, the database, and the prefix. Different prefixes
    /// have no key in common, whatever they are.
    pub fn is_beside(&self, other: &Self) -> bool {
        let location = |host: &Host| match host {
            Host::Tcp(name, port) => Host::Tcp(name.to_ascii_lowercase(), *port),
            Host::Unix(path) => Host::Unix(path.clone()),
        };
        let theirs: Vec<Host> = other.hosts.iter().map(location).collect();
        let master = |config: &Self| match &config.kind {
            Kind::Sentinel { master, .. } => Some(master.clone()),
            Kind::Single | Kind::Cluster => None,
        };
        self.hosts
            .iter()
            .any(|host| theirs.contains(&location(host)))
            && master(self) == master(other)
            && (self.database, &self.prefix) == (other.database, &other.prefix)
    }

    /// Lets the store's clock run so many milliseconds ahead of the server's, for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn ahead(self, offset: Arc<std::sync::atomic::AtomicI64>) -> Self {
        Self {
            time: Time::Ahead(offset),
            ..self
        }
    }

    /// Puts the service's clock in the place of the server's, if the URI asks for that (`clock=service`).
    #[must_use]
    pub fn by(self, clock: Arc<dyn Clock>) -> Self {
        if self.own_clock {
            Self {
                time: Time::Other(clock),
                ..self
            }
        } else {
            self
        }
    }

    fn log_in(&mut self, credentials: &str) -> Result<()> {
        let (user, password) = credentials
            .split_once(':')
            .ok_or_else(|| wrong("a user needs a password: 'user:password@' or ':password@'"))?;
        self.user = (!user.is_empty()).then(|| decoded(user)).transpose()?;
        self.password = Some(Secret(decoded(password)?));
        Ok(())
    }

    fn location(&mut self, location: &str) -> Result<()> {
        if location.starts_with('/') {
            self.hosts.push(Host::Unix(location.into()));
            return Ok(());
        }
        let (hosts, database) = location.split_once('/').unwrap_or((location, ""));
        if !database.is_empty() {
            self.database = database
                .parse()
                .map_err(|_| wrong("the database is not a number"))?;
        }
        let port = if matches!(self.kind, Kind::Sentinel { .. }) {
            26379
        } else {
            6379
        };
        for host in hosts.split(',') {
            self.hosts.push(parse_host(host, port)?);
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        if self.hosts.len() > 1 && self.kind == Kind::Single {
            return Err(wrong(
                "several hosts need 'master=NAME' (sentinels) or 'cluster=true'",
            ));
        }
        if self.kind == Kind::Cluster && self.database != 0 {
            return Err(wrong("a cluster has only the database 0"));
        }
        if self.kind == Kind::Cluster && (self.wait_replicas != 0 || self.wait_log) {
            return Err(wrong(
                "'wait_replicas' and 'wait_aof' are not for a cluster",
            ));
        }
        if !self.tls && self.tls_config != TlsConfig::default() {
            return Err(wrong("certificates need the scheme 'rediss:'"));
        }
        if self.prefix.contains(['{', '}']) {
            return Err(wrong("the prefix has a brace"));
        }
        Ok(())
    }
}

fn parse_host(text: &str, port: u16) -> Result<Host> {
    let refused = || wrong("a host is not 'NAME', 'NAME:PORT' or '[ADDRESS]:PORT'");
    let (host, rest) = match text.strip_prefix('[') {
        Some(inside) => inside.split_once(']').ok_or_else(refused)?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match rest.strip_prefix(':') {
        Some(port) => port.parse().map_err(|_| refused())?,
        None if rest.is_empty() => port,
        None => return Err(refused()),
    };
    if host.is_empty() {
        return Err(refused());
    }
    Ok(Host::Tcp(host.to_owned(), port))
}

/// The options of a URI, as written.
#[derive(Default)]
struct Options {
    master: Option<String>,
    sentinel_user: Option<String>,
    sentinel_password: Option<Secret>,
    cluster: bool,
    database: Option<i64>,
    timeout: Option<Duration>,
    socket_timeout: Option<Duration>,
    ignored: Vec<String>,
    prefix: Option<String>,
    wait_replicas: u32,
    wait_log: bool,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    own_clock: bool,
}

impl Options {
    fn parse(query: &str) -> Result<Self> {
        let mut options = Self::default();
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            let value = decoded(value)?;
            let refused = || wrong(format!("that is not a value for the option '{key}'"));
            match key {
                "timeout_ms" => {
                    let millis = value.parse().ok().filter(|ms| (10..=600_000).contains(ms));
                    options.timeout = Some(Duration::from_millis(millis.ok_or_else(refused)?));
                }
                // Zaqar's, for each command; what is too short for a whole call is left at the default.
                "socket_timeout" => {
                    let secs = value
                        .parse()
                        .ok()
                        .filter(|secs| (0.0..=600.0).contains(secs));
                    let secs = Duration::from_secs_f64(secs.ok_or_else(refused)?);
                    options.socket_timeout = Some(secs.max(DEFAULT_TIMEOUT));
                }
                "prefix" => options.prefix = Some(value),
                "dbid" => options.database = Some(value.parse().map_err(|_| refused())?),
                "master" => options.master = Some(value),
                "sentinel_username" => options.sentinel_user = Some(value),
                "sentinel_password" => options.sentinel_password = Some(Secret(value)),
                "cluster" => options.cluster = value.parse().map_err(|_| refused())?,
                "wait_replicas" => options.wait_replicas = value.parse().map_err(|_| refused())?,
                "wait_aof" => options.wait_log = one_of(&value, ["0", "1"]).ok_or_else(refused)?,
                "ca_file" => options.ca = Some(value.into()),
                "cert_file" => options.certificate = Some(value.into()),
                "key_file" => options.key = Some(value.into()),
                "clock" => {
                    let own = one_of(&value, ["server", "service"]);
                    options.own_clock = own.ok_or_else(refused)?;
                }
                key if OF_ZAQAR.contains(&key) => options.ignored.push(key.to_owned()),
                _ => {
                    return Err(wrong(format!(
                        "'{key}' is not one of the options {OPTIONS}"
                    )));
                }
            }
        }
        Ok(options)
    }

    fn apply(self, config: &mut Config) -> Result<()> {
        config.kind = match (self.master, self.cluster) {
            (Some(_), true) => return Err(wrong("'master' and 'cluster' exclude each other")),
            (Some(master), false) => Kind::Sentinel {
                master,
                user: self.sentinel_user,
                password: self.sentinel_password,
            },
            (None, true) => Kind::Cluster,
            (None, false) => Kind::Single,
        };
        config.database = self.database.unwrap_or(config.database);
        let timeout = self.timeout.or(self.socket_timeout);
        config.timeout = timeout.unwrap_or(config.timeout);
        config.ignored = self.ignored;
        config.prefix = self.prefix.unwrap_or_else(|| config.prefix.clone());
        config.wait_replicas = self.wait_replicas;
        config.wait_log = self.wait_log;
        config.own_clock = self.own_clock;
        config.tls_config = TlsConfig {
            ca: self.ca,
            client_cert: match (self.certificate, self.key) {
                (Some(certificate), Some(key)) => Some((certificate, key)),
                (None, None) => None,
                _ => return Err(wrong("'cert_file' and 'key_file' need each other")),
            },
        };
        Ok(())
    }
}

/// Whether it is the second of two words; `None` when it is neither.
fn one_of(value: &str, [no, yes]: [&str; 2]) -> Option<bool> {
    (value == yes)
        .then_some(true)
        .or((value == no).then_some(false))
}

fn decoded(text: &str) -> Result<String> {
    percent_decode_str(text)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| wrong("a part is not UTF-8"))
}

fn wrong(why: impl fmt::Display) -> Error {
    Error::invalid(format!("{why} in the Redis store URI"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Host {
        Host::Tcp(host.into(), port)
    }

    #[test]
    fn a_single_server_needs_no_more_than_a_host() {
        let config = Config::parse("redis://localhost").unwrap();
        assert_eq!(config.hosts, [tcp("localhost", 6379)]);
        assert_eq!(config.kind, Kind::Single);
        assert_eq!(config.timeout, Duration::from_secs(2));
        assert!(!config.tls);
    }

    #[test]
    fn everything_can_be_said() {
        let uri = "rediss://me:p%40ss@[::1]:7000/5?timeout_ms=300&prefix=a%3A&wait_replicas=1";
        let config = Config::parse(uri).unwrap();
        assert_eq!(config.hosts, [tcp("::1", 7000)]);
        assert_eq!(config.user.as_deref(), Some("me"));
        assert_eq!(config.password, Some(Secret("p@ss".into())));
        assert_eq!((config.database, config.wait_replicas), (5, 1));
        assert_eq!(config.timeout, Duration::from_millis(300));
        assert_eq!(config.prefix, "a:");
        assert!(config.tls);
    }

    #[test]
    fn sentinels_and_clusters_have_several_hosts() {
        let config = Config::parse("redis://:pw@h1,h2:5000?master=m&dbid=2").unwrap();
        assert_eq!(config.hosts, [tcp("h1", 26379), tcp("h2", 5000)]);
        assert!(matches!(config.kind, Kind::Sentinel { master, .. } if master == "m"));
        assert_eq!(config.database, 2);
        let config = Config::parse("redis://h1,h2?cluster=true").unwrap();
        assert_eq!(config.hosts, [tcp("h1", 6379), tcp("h2", 6379)]);
        assert_eq!(config.kind, Kind::Cluster);
    }

    #[test]
    fn files_and_waiting_are_options() {
        let config = Config::parse("rediss://h?ca_file=/c%20a&cert_file=c&key_file=k").unwrap();
        assert_eq!(config.tls_config.ca, Some("/c a".into()));
        assert_eq!(
            config.tls_config.client_cert,
            Some(("c".into(), "k".into()))
        );
        assert!(!config.wait_log);
        assert!(Config::parse("redis://h?wait_aof=1").unwrap().wait_log);
        assert!(!Config::parse("redis://h?wait_aof=0").unwrap().wait_log);
    }

    #[test]
    fn options_of_zaqar_are_taken() {
        let timeout = |uri: &str| Config::parse(uri).unwrap().timeout.as_millis();
        assert_eq!(timeout("redis://h?socket_timeout=0.1"), 2000);
        assert_eq!(timeout("redis://h?socket_timeout=5"), 5000);
        assert_eq!(timeout("redis://h?socket_timeout=5&timeout_ms=300"), 300);
        for wrong in ["", "a", "-1", "NaN", "inf", "601"] {
            let uri = format!("redis://h?socket_timeout={wrong}");
            assert!(Config::parse(&uri).is_err(), "{uri}");
        }
        let uri = "redis://h?max_reconnect_attempts=3&reconnect_sleep=0.5&max_retry_sleep=1";
        let ignored = Config::parse(uri).unwrap().ignored;
        let all = [
            "max_reconnect_attempts",
            "reconnect_sleep",
            "max_retry_sleep",
        ];
        assert_eq!(ignored, all);
    }

    #[test]
    fn only_who_asks_for_another_clock_gets_it() {
        let clock = || Arc::new(isimud_contract::SystemClock) as _;
        for (uri, own) in [
            ("redis://h", false),
            ("redis://h?clock=server", false),
            ("redis://h?clock=service", true),
        ] {
            let config = Config::parse(uri).unwrap().by(clock());
            assert_eq!(matches!(config.time, Time::Other(_)), own, "{uri}");
        }
    }

    #[test]
    fn a_socket_is_a_path() {
        for uri in ["redis:/run/redis.sock", "redis://:pw@/run/redis.sock"] {
            let config = Config::parse(uri).unwrap();
            assert_eq!(config.hosts, [Host::Unix("/run/redis.sock".into())]);
        }
    }

    #[test]
    fn mistakes_are_named_and_passwords_are_not() {
        for uri in [
            "redis:",
            "redis://",
            "rediss+x://h",
            "redis://secret@h",
            "redis://u:secret@h1,h2",
            "redis://u:secret@h:port",
            "redis://u:secret@h/db",
            "redis://u:secret@h?colour=red",
            "redis://u:secret@h?timeout_ms=0",
            "redis://u:secret@h?prefix={",
            "redis://u:secret@h/1?cluster=true",
            "redis://u:secret@h?cluster=true&master=m",
            "redis://u:secret@h?cluster=true&wait_replicas=1",
            "redis://u:secret@h?cluster=true&wait_aof=1",
            "redis://u:secret@h?wait_aof=2",
            "redis://u:secret@h?ca_file=x",
            "rediss://u:secret@h?cert_file=x",
            "rediss://u:secret@h?key_file=x",
            "redis://u:secret@h?clock=mine",
        ] {
            let error = Config::parse(uri).unwrap_err();
            assert!(!format!("{error:?}").contains("secret"), "{uri}");
        }
        let config = Config::parse("redis://u:secret@h?master=m&sentinel_password=secret");
        assert!(!format!("{config:?}").contains("secret"));
    }
}
