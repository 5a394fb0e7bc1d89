//! Redis URIs of Zaqar, and what they are for this service's driver (spec: zaqar-conf.md 3).
//!
//! Zaqar takes a URI apart with Python's `urlparse`: a password ends at the last `@` and is used as it is written,
//! a path beside a host means nothing, and white space within the URI (from a continuation line) is dropped. This module
//! does the same, so that an import refuses what Zaqar refuses.

use std::fmt::Write;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// Seconds that Zaqar gives every command unless the URI says otherwise.
const SOCKET_TIMEOUT: f64 = 0.1;

/// The driver's own time limit for a whole call, and its bounds, in milliseconds.
const TIMEOUT_MS: f64 = 2000.0;
const MAX_TIMEOUT_MS: f64 = 600_000.0;

/// What a login and a value of an option may have unescaped.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What a path may have unescaped; the driver takes it as it is written.
const OPTION_STARTS: [char; 2] = ['?', '#'];

/// A Redis as Zaqar reaches it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Connection {
    user: Option<String>,
    password: Option<String>,
    target: Target,
    database: i64,
    socket_timeout: f64,
    /// There is a path beside a host, which means nothing.
    has_path: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Server(Host),
    Socket(String),
    Sentinels {
        hosts: Vec<Host>,
        master: String,
        user: Option<String>,
        password: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Host {
    name: String,
    port: u16,
}

/// What a URI is here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Translated {
    pub(super) uri: String,
    /// Whether a password is in it.
    pub(super) has_secret: bool,
    /// What is different from the URI that was given, a sentence each.
    pub(super) changes: Vec<String>,
}

impl Connection {
    /// Takes a URI of Zaqar apart.
    ///
    /// # Errors
    ///
    /// Zaqar refuses the URI too. The reason repeats nothing of it, because it may have a password in it.
    pub(super) fn parse(uri: &str) -> Result<Self, String> {
        let uri: String = uri
            .trim_start_matches(|character: char| character <= ' ')
            .chars()
            .filter(|character| !['\n', '\r', '\t'].contains(character))
            .collect();
        let (scheme, rest) = uri.split_once(':').ok_or("it has no scheme")?;
        if !scheme.eq_ignore_ascii_case("redis") {
            return Err("the scheme is not 'redis:'; Zaqar has no TLS ('rediss:')".to_owned());
        }
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match place.strip_prefix("//") {
            Some(place) => place.split_at(place.find('/').unwrap_or(place.len())),
            None => ("", place),
        };
        let (user, password) = login(authority)?;
        let options = Options::parse(query)?;
        let target = options.target(authority, path)?;
        Ok(Self {
            user,
            password,
            target,
            database: options.database,
            socket_timeout: options.socket_timeout,
            has_path: !authority.is_empty() && !["", "/"].contains(&path),
        })
    }

    /// Whether both are the same database of the same server, with the same login.
    pub(super) fn is_same_store(&self, other: &Self) -> bool {
        let own = |connection: &Self| Self {
            socket_timeout: SOCKET_TIMEOUT,
            has_path: false,
            ..connection.clone()
        };
        own(self) == own(other)
    }

    /// The URI for this service's driver.
    pub(super) fn translated(&self) -> Translated {
        let escaped = |text: &str| utf8_percent_encode(text, ESCAPED).to_string();
        let mut changes = Vec::new();
        if self.has_path && !matches!(self.target, Target::Socket(_)) {
            changes.push("what is behind the host means nothing there, and is left out".to_owned());
        }
        let mut uri = String::from("redis://");
        let login = self.password.as_deref().map(|password| {
            let user = self.user.as_deref().unwrap_or_default();
            let login = format!("{}:{}", escaped(user), escaped(password));
            if login != format!("{user}:{password}") {
                changes.push("the login is percent-encoded, as the driver decodes it".to_owned());
            }
            format!("{login}@")
        });
        let mut options: Vec<(&str, String)> = Vec::new();
        match &self.target {
            Target::Socket(path) => {
                uri.push_str(login.as_deref().unwrap_or_default());
                uri.push_str(path);
            }
            Target::Server(host) => {
                uri.push_str(login.as_deref().unwrap_or_default());
                host.write(&mut uri, PORT);
            }
            Target::Sentinels {
                hosts,
                master,
                user,
                password,
            } => {
                uri.push_str(login.as_deref().unwrap_or_default());
                for (index, host) in hosts.iter().enumerate() {
                    if index > 0 {
                        uri.push(',');
                    }
                    host.write(&mut uri, SENTINEL_PORT);
                }
                options.push(("master", escaped(master)));
                options.extend(
                    user.as_deref()
                        .map(|user| ("sentinel_username", escaped(user))),
                );
                options.extend(
                    password
                        .as_deref()
                        .map(|password| ("sentinel_password", escaped(password))),
                );
            }
        }
        if self.database != 0 {
            options.push(("dbid", self.database.to_string()));
        }
        options.extend(
            self.timeout(&mut changes)
                .map(|timeout| ("timeout_ms", timeout)),
        );
        for (index, (name, value)) in options.iter().enumerate() {
            uri.push(if index == 0 { '?' } else { '&' });
            uri.push_str(name);
            uri.push('=');
            uri.push_str(value);
        }
        let of_sentinel = matches!(
            &self.target,
            Target::Sentinels {
                password: Some(_),
                ..
            }
        );
        Translated {
            uri,
            has_secret: login.is_some() || of_sentinel,
            changes,
        }
    }

    /// The time limit, where it is not the driver's own.
    fn timeout(&self, changes: &mut Vec<String>) -> Option<String> {
        if self.socket_timeout == SOCKET_TIMEOUT {
            return None;
        }
        let millis = (self.socket_timeout * 1000.0).round();
        let allowed = millis.clamp(TIMEOUT_MS, MAX_TIMEOUT_MS);
        changes.push(format!(
            "socket_timeout={} is a limit for each command there; here timeout_ms={allowed:.0} limits a whole call",
            self.socket_timeout
        ));
        (allowed > TIMEOUT_MS).then(|| format!("{allowed:.0}"))
    }
}

#[cfg(test)]
impl Connection {
    /// Everything that counts, for a comparison with Zaqar.
    pub(super) fn fields(&self) -> serde_json::Value {
        use serde_json::{Value, json};
        let host = |host: &Host| json!([host.name, host.port]);
        let target = match &self.target {
            Target::Server(server) => json!({"host": host(server)}),
            Target::Socket(path) => json!({"socket": path}),
            Target::Sentinels {
                hosts,
                master,
                user,
                password,
            } => json!({
                "sentinels": hosts.iter().map(host).collect::<Vec<Value>>(),
                "master": master,
                "sentinel_login": [user, password],
            }),
        };
        json!({
            "login": [self.user, self.password],
            "database": self.database,
            "socket_timeout": self.socket_timeout,
            "target": target,
        })
    }
}

impl Host {
    fn write(&self, uri: &mut String, usual: u16) {
        match self.name.contains(':') {
            true => uri.extend(["[", &self.name, "]"]),
            false => uri.push_str(&self.name),
        }
        if self.port != usual {
            // Writing to a text cannot fail.
            write!(uri, ":{}", self.port).ok();
        }
    }

    /// A server with its port. Names have no case, and neither an empty port nor port 0 is one.
    fn server(text: &str) -> Result<Self, String> {
        let (name, port) = split_host(text)?;
        let port = match port {
            None | Some("") => PORT,
            Some(port) => parse_port(port)?,
        };
        Ok(Self {
            name: name.to_lowercase(),
            port: if port == 0 { PORT } else { port },
        })
    }

    /// A sentinel with its port.
    fn sentinel(text: &str) -> Result<Self, String> {
        let (name, port) = split_host(text)?;
        let port = port.map_or(Ok(SENTINEL_PORT), parse_port)?;
        match port {
            0 => Err("a sentinel has the port 0".to_owned()),
            port => Ok(Self {
                name: name.to_owned(),
                port,
            }),
        }
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| "a port is not a number from 0 to 65535".to_owned())
}

/// Splits a host into its name and its port. An address with colons has brackets where it has a port.
fn split_host(text: &str) -> Result<(&str, Option<&str>), String> {
    let refused = || "a host is not NAME, NAME:PORT or [ADDRESS]:PORT".to_owned();
    let (name, port) = match text.strip_prefix('[') {
        Some(inside) => {
            let (name, behind) = inside.split_once(']').ok_or_else(refused)?;
            match behind {
                "" => (name, None),
                behind => (name, Some(behind.strip_prefix(':').ok_or_else(refused)?)),
            }
        }
        None => match text.split_once(':') {
            Some((_, port)) if port.contains(':') => (text, None),
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    match name.is_empty() {
        true => Err("a host has no name".to_owned()),
        false => Ok((name, port)),
    }
}

/// User and password of an authority; the password ends at its last `@`.
fn login(authority: &str) -> Result<(Option<String>, Option<String>), String> {
    let Some((login, _)) = authority.rsplit_once('@') else {
        return Ok((None, None));
    };
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let own = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    match (own(user), own(password)) {
        (Some(_), None) => Err(
            "it has a user without a password; a password alone is written ':PASSWORD@'".to_owned(),
        ),
        both => Ok(both),
    }
}

struct Options {
    master: Option<String>,
    sentinel_user: Option<String>,
    sentinel_password: Option<String>,
    database: i64,
    socket_timeout: f64,
}

impl Options {
    /// The options that mean something there; others are ignored there as well.
    fn parse(query: &str) -> Result<Self, String> {
        let mut options = Self {
            master: None,
            sentinel_user: None,
            sentinel_password: None,
            database: 0,
            socket_timeout: SOCKET_TIMEOUT,
        };
        for option in query.split('&') {
            let Some((name, value)) = option
                .split_once('=')
                .filter(|(_, value)| !value.is_empty())
            else {
                continue;
            };
            let decoded = |text: &str| {
                let text = text.replace('+', " ");
                percent_decode_str(&text).decode_utf8_lossy().into_owned()
            };
            let value = decoded(value);
            match decoded(name).as_str() {
                "master" => options.master = Some(value),
                "sentinel_username" => options.sentinel_user = Some(value),
                "sentinel_password" => options.sentinel_password = Some(value),
                "dbid" => {
                    options.database = value.trim().parse().map_err(|_| "dbid is not a number")?
                }
                "socket_timeout" => {
                    let secs: f64 = value
                        .trim()
                        .parse()
                        .map_err(|_| "socket_timeout is not a number")?;
                    if !(secs.is_finite() && secs >= 0.0) {
                        return Err("socket_timeout is not a time".to_owned());
                    }
                    options.socket_timeout = secs;
                }
                _ => {}
            }
        }
        Ok(options)
    }

    fn target(&self, authority: &str, path: &str) -> Result<Target, String> {
        let last_host = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        // Zaqar splits here at the first '@', and above at the last.
        let hosts = authority
            .split_once('@')
            .map_or(authority, |(_, hosts)| hosts);
        if let Some(master) = &self.master {
            if hosts.contains('@') {
                return Err(
                    "with sentinels a password must not have '@' in it; Zaqar takes it for a host"
                        .to_owned(),
                );
            }
            let hosts: Result<Vec<Host>, String> = hosts.split(',').map(Host::sentinel).collect();
            return Ok(Target::Sentinels {
                hosts: hosts?,
                master: master.clone(),
                user: self.sentinel_user.clone(),
                password: self.sentinel_password.clone(),
            });
        }
        if hosts.contains(',') {
            return Err("it has several hosts and no 'master=NAME'".to_owned());
        }
        match (hosts, path) {
            ("", "") => Err("it has neither a host nor a path".to_owned()),
            ("", path) if path.contains(OPTION_STARTS) => {
                Err("the path has a character that cannot be in it".to_owned())
            }
            ("", path) => Ok(Target::Socket(path.to_owned())),
            _ => Host::server(last_host).map(Target::Server),
        }
    }
}

/// A URI with its passwords masked, for people to read. What is no URI is masked as a whole. A password may have any
/// character in it, so that everything before the last `@` counts as the login.
pub(super) fn masked(uri: &str) -> String {
    let uri = uri.replace(['\n', '\r', '\t'], "");
    let Some((scheme, rest)) = uri.split_once("://") else {
        return match uri.split_once(':') {
            Some((scheme, path)) if path.starts_with('/') => format!("{scheme}:{path}"),
            _ => "***".to_owned(),
        };
    };
    let (login, place) = match rest.rsplit_once('@') {
        Some((login, place)) => {
            let user = login.split_once(':').map_or("", |(user, _)| user);
            (format!("{user}:***@"), place)
        }
        None => (String::new(), rest),
    };
    let (place, query) = place.split_once('?').unwrap_or((place, ""));
    let options: Vec<String> = query
        .split('&')
        .filter(|option| !option.is_empty())
        .map(|option| match option.split_once('=') {
            Some((name, _)) if name.to_ascii_lowercase().contains("password") => {
                format!("{name}=***")
            }
            _ => option.to_owned(),
        })
        .collect();
    match options.is_empty() {
        true => format!("{scheme}://{login}{place}"),
        false => format!("{scheme}://{login}{place}?{}", options.join("&")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(uri: &str) -> Result<String, String> {
        Connection::parse(uri).map(|connection| connection.translated().uri)
    }

    #[test]
    fn servers_sockets_and_sentinels_keep_their_meaning() {
        for (theirs, expected) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1"),
            ("redis://mq:6380?dbid=3", "redis://mq:6380?dbid=3"),
            ("REDIS://MQ", "redis://mq"),
            ("redis://:secret@mq/5", "redis://:secret@mq"),
            ("redis://u:p@[fd00::1]:6380", "redis://u:p@[fd00::1]:6380"),
            ("redis:/run/redis.sock", "redis:///run/redis.sock"),
            (
                "redis:///run/redis.sock?dbid=1",
                "redis:///run/redis.sock?dbid=1",
            ),
            ("redis://:pw@/run/redis.sock", "redis://:pw@/run/redis.sock"),
            (
                "redis://s1,s2:26380?master=m",
                "redis://s1,s2:26380?master=m",
            ),
            (
                "redis://:p@s1?master=m&sentinel_password=x%26y",
                "redis://:p@s1?master=m&sentinel_password=x%26y",
            ),
            ("redis://s1,\ns2?master=m", "redis://s1,s2?master=m"),
            ("redis://mq:0", "redis://mq"),
            ("redis://mq?other=1&dbid=2&dbid=3", "redis://mq?dbid=3"),
        ] {
            assert_eq!(ours(theirs), Ok(expected.to_owned()), "{theirs}");
        }
    }

    #[test]
    fn passwords_are_escaped_because_the_reference_does_not_decode_them() {
        assert_eq!(
            ours("redis://:a@b%20c:d@mq"),
            Ok("redis://:a%40b%2520c%3Ad@mq".into())
        );
        let translated = Connection::parse("redis://:a%20b@mq")
            .expect("a URI")
            .translated();
        assert!(translated.has_secret);
        assert_eq!(translated.changes.len(), 1);
    }

    #[test]
    fn time_limits_are_those_of_a_whole_call() {
        assert_eq!(
            ours("redis://mq?socket_timeout=0.1"),
            Ok("redis://mq".into())
        );
        assert_eq!(ours("redis://mq?socket_timeout=1"), Ok("redis://mq".into()));
        assert_eq!(
            ours("redis://mq?socket_timeout=2.5"),
            Ok("redis://mq?timeout_ms=2500".into())
        );
        assert_eq!(
            ours("redis://mq?socket_timeout=9999"),
            Ok("redis://mq?timeout_ms=600000".into())
        );
    }

    #[test]
    fn what_the_reference_refuses_is_refused() {
        for uri in [
            "",
            "mq",
            "rediss://mq",
            "redis://password@mq",
            "redis://a,b",
            "redis://",
            "redis://:p@",
            "redis://mq:port",
            "redis://mq:65536",
            "redis://:pa#ss@mq",
            "redis://mq?dbid=one",
            "redis://mq?socket_timeout=soon",
            "redis://:p@x@s1?master=m",
        ] {
            assert!(ours(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn masked_uris_show_no_password() {
        for (uri, shown) in [
            (
                "redis://u:p@x@mq/1?sentinel_password=s&dbid=1",
                "redis://u:***@mq/1?sentinel_password=***&dbid=1",
            ),
            (
                "mysql+pymysql://zaqar:pw@db/zaqar?charset=utf8",
                "mysql+pymysql://zaqar:***@db/zaqar?charset=utf8",
            ),
            ("sqlite:////var/lib/zaqar.db", "sqlite:////var/lib/zaqar.db"),
            ("redis:/run/redis.sock", "redis:/run/redis.sock"),
            ("mysql://u:p?w/d#@db/zaqar", "mysql://u:***@db/zaqar"),
            ("redis://h?master=m&sentinel_password=x@y", "redis://:***@y"),
            ("hunter2", "***"),
        ] {
            assert_eq!(masked(uri), shown);
        }
    }

    #[test]
    fn the_same_store_may_have_two_time_limits() {
        let parse = |uri| Connection::parse(uri).expect("a URI");
        let one = parse("redis://mq?dbid=1");
        assert!(one.is_same_store(&parse("redis://MQ:6379?dbid=1&socket_timeout=5")));
        assert!(!one.is_same_store(&parse("redis://mq?dbid=2")));
    }
}
