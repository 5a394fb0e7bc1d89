//! Where a Redis is: the URIs that Zaqar's configuration has (spec: config.md 3), with TLS and clusters besides.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use isimud_contract::{Error, Result};
use percent_encoding::percent_decode_str;

const OPTIONS: &str = "dbid, socket_timeout, timeout_ms, master, sentinel_username, sentinel_password, \
                       cluster, ca_file, cert_file, key_file";

/// Where a Redis is, and how to log in.
#[derive(Clone)]
pub struct Address {
    pub(crate) hosts: Vec<Host>,
    pub(crate) tls: bool,
    pub(crate) kind: Kind,
    pub(crate) credentials: Credentials,
    pub(crate) database: i64,
    /// A database was named in the path, where Zaqar does not look.
    in_path: bool,
    pub(crate) timeout: Duration,
    pub(crate) tls_config: TlsConfig,
}

/// Certificates for TLS, as PEM files.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct TlsConfig {
    /// Whom to trust, in the place of the system's authorities.
    pub(crate) ca: Option<PathBuf>,
    /// Our own certificate, for servers that ask for one.
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    Tcp(String, u16),
    Unix(PathBuf),
}

/// What the hosts are.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Single,
    /// They are sentinels, and know where the master of that name is.
    Sentinel(String, Credentials),
    /// They are nodes of a cluster.
    Cluster,
}

/// A user and a password, as far as they are needed.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Credentials {
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Address {
    /// Writes hosts, master and database: what tells one Redis from another, and no password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "rediss://" } else { "redis://" })?;
        for (at, host) in self.hosts.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { "," })?;
            match host {
                Host::Tcp(name, port) if name.contains(':') => write!(f, "[{name}]:{port}")?,
                Host::Tcp(name, port) => write!(f, "{name}:{port}")?,
                Host::Unix(path) => write!(f, "{}", path.display())?,
            }
        }
        write!(f, "?dbid={}", self.database)?;
        match &self.kind {
            Kind::Single => Ok(()),
            Kind::Sentinel(master, _) => write!(f, "&master={master}"),
            Kind::Cluster => f.write_str("&cluster=true"),
        }
    }
}

impl Address {
    /// Reads a URI. No error repeats it, because there may be a password in it.
    pub fn parse(uri: &str) -> Result<Self> {
        let (scheme, rest) = uri.split_once(':').unwrap_or((uri, ""));
        let tls = match scheme {
            "redis" => false,
            "rediss" => true,
            _ => return Err(wrong("the scheme is not 'redis:' or 'rediss:'")),
        };
        let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
        let location = location.strip_prefix("//").unwrap_or(location);
        let (credentials, location) = location.rsplit_once('@').unwrap_or(("", location));
        let mut address = Self {
            hosts: Vec::new(),
            tls,
            kind: Kind::Single,
            credentials: read_credentials(credentials)?,
            database: 0,
            in_path: false,
            timeout: Duration::from_secs(10),
            tls_config: TlsConfig::default(),
        };
        address.read_options(query)?;
        address.read_place(location)?;
        let tls_config = &address.tls_config;
        if tls_config.certificate.is_some() != tls_config.key.is_some() {
            return Err(wrong("'cert_file' and 'key_file' need each other"));
        }
        if !tls && *tls_config != TlsConfig::default() {
            return Err(wrong("certificates need the scheme 'rediss:'"));
        }
        if address.hosts.len() > 1 && address.kind == Kind::Single {
            return Err(wrong(
                "several hosts need 'master=NAME' (sentinels) or 'cluster=true'",
            ));
        }
        Ok(address)
    }

    /// Refuses a database in the path: Zaqar does not look there, and keeps its data in the database 0.
    pub fn as_zaqar_reads_it(self) -> Result<Self> {
        if self.in_path {
            return Err(wrong(
                "Zaqar ignores a database in the path, so its data are in another one: say '?dbid=N', or nothing for 0;",
            ));
        }
        Ok(self)
    }

    fn read_options(&mut self, query: &str) -> Result<()> {
        let (mut master, mut sentinel) = (None, Credentials::default());
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            let value = decoded(value)?;
            let refused = || wrong(format!("that is not a value for the option '{key}'"));
            match key {
                "dbid" => self.database = value.parse().map_err(|_| refused())?,
                // Made for single keys; an import asks for pages.
                "socket_timeout" => {}
                "timeout_ms" => {
                    let millis = value.parse().ok().filter(|ms| (10..=600_000).contains(ms));
                    self.timeout = Duration::from_millis(millis.ok_or_else(refused)?);
                }
                "master" => master = Some(value),
                "sentinel_username" => sentinel.user = Some(value),
                "sentinel_password" => sentinel.password = Some(value),
                "ca_file" => self.tls_config.ca = Some(value.into()),
                "cert_file" => self.tls_config.certificate = Some(value.into()),
                "key_file" => self.tls_config.key = Some(value.into()),
                "cluster" if value == "true" => self.kind = Kind::Cluster,
                "cluster" if value == "false" => {}
                "cluster" => return Err(refused()),
                _ => {
                    let why = format!("'{key}' is not one of the options {OPTIONS}");
                    return Err(wrong(why));
                }
            }
        }
        if let Some(master) = master {
            if self.kind == Kind::Cluster {
                return Err(wrong("'master' and 'cluster' exclude each other"));
            }
            self.kind = Kind::Sentinel(master, sentinel);
        }
        Ok(())
    }

    fn read_place(&mut self, location: &str) -> Result<()> {
        if location.starts_with('/') {
            self.hosts.push(Host::Unix(location.into()));
            return Ok(());
        }
        let (hosts, database) = location.split_once('/').unwrap_or((location, ""));
        if !database.is_empty() {
            let number = database.parse();
            self.database = number.map_err(|_| wrong("the database is not a number"))?;
            self.in_path = true;
        }
        let port = match self.kind {
            Kind::Sentinel(..) => 26379,
            Kind::Single | Kind::Cluster => 6379,
        };
        for host in hosts.split(',') {
            self.hosts.push(read_host(host, port)?);
        }
        Ok(())
    }
}

fn read_credentials(text: &str) -> Result<Credentials> {
    if text.is_empty() {
        return Ok(Credentials::default());
    }
    let (user, password) = text
        .split_once(':')
        .ok_or_else(|| wrong("a user needs a password: 'user:password@' or ':password@'"))?;
    Ok(Credentials {
        user: (!user.is_empty()).then(|| decoded(user)).transpose()?,
        password: Some(decoded(password)?),
    })
}

fn read_host(text: &str, port: u16) -> Result<Host> {
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

fn decoded(text: &str) -> Result<String> {
    percent_decode_str(text)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| wrong("a part is not UTF-8"))
}

fn wrong(why: impl fmt::Display) -> Error {
    Error::invalid(format!("{why} in the URI of what is to be imported"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_zaqars_configuration_are_read() {
        for (uri, shown) in [
            ("redis://h", "redis://h:6379?dbid=0"),
            (
                "redis://:pw@10.0.0.5:6379?dbid=1&socket_timeout=1",
                "redis://10.0.0.5:6379?dbid=1",
            ),
            ("redis://u:pw@[::1]:7", "redis://[::1]:7?dbid=0"),
            ("rediss://h/3", "rediss://h:6379?dbid=3"),
            (
                "redis:/run/redis.sock?dbid=2",
                "redis:///run/redis.sock?dbid=2",
            ),
            (
                "redis://a,b:5?master=m&sentinel_password=x",
                "redis://a:26379,b:5?dbid=0&master=m",
            ),
            (
                "redis://a,b?cluster=true",
                "redis://a:6379,b:6379?dbid=0&cluster=true",
            ),
        ] {
            assert_eq!(Address::parse(uri).expect(uri).to_string(), shown);
        }
    }

    #[test]
    fn mistakes_are_named_and_passwords_are_not() {
        for uri in [
            "redis:",
            "mongodb://h",
            "redis://secret@h",
            "redis://u:secret@h1,h2",
            "redis://u:secret@h:port",
            "redis://u:secret@h/db",
            "redis://u:secret@h?colour=red",
            "redis://u:secret@h?timeout_ms=0",
            "redis://u:secret@h?cluster=true&master=m",
            "redis://u:secret@h?ca_file=x",
            "rediss://u:secret@h?cert_file=x",
        ] {
            let error = Address::parse(uri).expect_err(uri);
            assert!(!format!("{error:?}").contains("secret"), "{uri}");
        }
        let address = Address::parse("redis://u:secret@h").expect("an address");
        assert!(!format!("{address:?}").contains("secret"));
    }

    #[test]
    fn a_database_that_zaqar_would_not_have_used_is_refused() {
        let read = |uri| Address::parse(uri).expect(uri).as_zaqar_reads_it();
        assert!(
            read("redis://h/5")
                .expect_err("refused")
                .sentence()
                .contains("?dbid=N")
        );
        assert_eq!(read("redis://h?dbid=5").expect("read").database, 5);
    }
}
