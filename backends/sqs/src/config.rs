//! How the broker is opened.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use isimud_contract::{Capabilities, Error, ProjectId, Result};
use percent_encoding::percent_decode_str;

use crate::client;
use crate::envelope::OVERHEAD;
use crate::names::{Naming, PREFIX, Pattern, is_plain};

/// The longest retention of a queue.
pub(crate) const LONGEST_TTL: Duration = Duration::from_secs(1_209_600);

/// The options of a URI.
pub const OPTIONS: &str = "endpoint, profile, ca_file, fifo, group, prefix, name, project, create, remove, message_bytes, \
                           native_ttl_s, timeout_ms, linger_ms, wait_s, journal, delays, counts_lag_s";

/// The largest message and the largest batch that SQS takes, in bytes.
pub(crate) const LARGEST: usize = 1 << 20;

/// What [`SqsBroker::open`](crate::SqsBroker::open) needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) region: String,
    /// Whose queues they are, if not those of who asks.
    pub(crate) owner: Option<String>,
    pub(crate) endpoint: Option<String>,
    pub(crate) profile: Option<String>,
    /// Whom to trust, instead of the authorities that the machine trusts.
    pub(crate) authorities: Option<PathBuf>,
    pub(crate) order: Order,
    pub(crate) naming: Naming,
    /// Whether queues are made when they are first posted to.
    pub(crate) create: bool,
    pub(crate) removal: Removal,
    /// The largest message, and the largest batch.
    pub(crate) largest: usize,
    /// How long messages live that were not posted through Isimud; as long as their queue keeps them by default.
    pub(crate) native_ttl: Option<Duration>,
    /// How long after the last change the queue's counts may be wrong.
    pub(crate) counts_lag: Duration,
    pub(crate) timeout: Duration,
    /// How long a post may wait for others to share a request with.
    pub(crate) linger: Duration,
    /// How long SQS may wait for messages before it answers that there are none.
    pub(crate) wait: Duration,
    /// Whether SQS keeps delays, or the ledger does.
    pub(crate) native_delays: bool,
    journal: bool,
    pub(crate) login: Option<Login>,
}

/// In which order queues deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Standard queues: mostly in order.
    Loose,
    /// FIFO queues with one group: one order, and one claim at a time.
    Queue,
    /// FIFO queues with a group for each client.
    Client,
}

impl Order {
    pub(crate) fn is_fifo(self) -> bool {
        self != Self::Loose
    }
}

/// What becomes of a queue that the service removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    /// It is emptied, and stays in SQS.
    Keep,
    /// It is deleted, and its name rests for a minute.
    Delete,
}

/// Credentials that do not come from where they usually do.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) key: String,
    pub(crate) secret: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:***", self.key)
    }
}

impl Config {
    /// Reads the files of certificates and keys that the URI names, so that what cannot be used is known before anybody asks
    /// for it. `Invalid` with the file.
    pub fn check_files(&self) -> Result<()> {
        client::check_files(self)
    }

    /// Reads a pool's URI, `sqs://REGION[/ACCOUNT][?OPTIONS]`; the crate's README lists the options.
    ///
    /// No error repeats the URI. It has no place for credentials: they come from the environment, a profile, a web
    /// identity or the machine's role.
    pub fn parse(uri: &str) -> Result<Self> {
        let rest = uri
            .strip_prefix("sqs://")
            .ok_or_else(|| wrong("the scheme is not 'sqs://'"))?;
        let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
        if location.contains('@') {
            return Err(wrong(
                "credentials have no place: they come from the environment, a profile or a role; something is in front of '@'",
            ));
        }
        let (region, owner) = location.split_once('/').unwrap_or((location, ""));
        let named = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if region.is_empty() || !region.bytes().all(named) {
            return Err(wrong("there is no region such as 'eu-central-1'"));
        }
        if !owner.is_empty() && (owner.len() != 12 || !owner.bytes().all(|b| b.is_ascii_digit())) {
            return Err(wrong("the account is not a number of twelve digits"));
        }
        let mut options = Options::default();
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            let value = percent_decode_str(value)
                .decode_utf8()
                .map_err(|_| wrong("a part is not UTF-8"))?;
            options.set(key, &value)?;
        }
        options.into_config(
            region.to_owned(),
            (!owner.is_empty()).then(|| owner.to_owned()),
        )
    }

    /// Whether the pool wants a journal: a row in the ledger for every message that is posted.
    pub fn journal(&self) -> bool {
        self.journal
    }

    /// Whether both name the same account of the same service.
    pub fn is_beside(&self, other: &Self) -> bool {
        let location = |config: &Self| {
            let endpoint = config
                .endpoint
                .as_deref()
                .map(|it| it.trim_end_matches('/').to_ascii_lowercase());
            (
                config.region.clone(),
                config.owner.clone(),
                endpoint,
                config.profile.clone(),
            )
        };
        location(self) == location(other)
    }

    /// Whether a queue of one pool could be in the SQS queue of any queue of the other.
    pub fn shares_names(&self, other: &Self) -> bool {
        self.order.is_fifo() == other.order.is_fifo() && self.naming.meet(&other.naming)
    }

    /// Whether both call queues the same.
    pub fn has_names_of(&self, other: &Self) -> bool {
        self.order.is_fifo() == other.order.is_fifo() && self.naming == other.naming
    }

    /// What SQS can do by itself, as far as it can be said without asking it.
    pub fn capabilities(&self) -> Capabilities {
        let fifo = self.order.is_fifo();
        Capabilities {
            fifo,
            high_throughput: !fifo,
            browse: false,
            largest_body: Some((self.largest - OVERHEAD.min(self.largest / 2)) as u64),
            // A FIFO queue delays all of its messages or none (action `SendMessage`).
            longest_delay: Some(Duration::from_secs(if fifo { 0 } else { 900 })),
            longest_claim: None,
            longest_ttl: Some(LONGEST_TTL),
            ..Capabilities::FULL
        }
    }

    /// Uses these credentials instead of those of the usual chain, for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn with_login(self, key: &str, secret: &str) -> Self {
        let login = Login {
            key: key.to_owned(),
            secret: secret.to_owned(),
        };
        Self {
            login: Some(login),
            ..self
        }
    }
}

/// The options of a URI, as written.
#[derive(Default)]
struct Options {
    endpoint: Option<String>,
    profile: Option<String>,
    authorities: Option<PathBuf>,
    fifo: Option<bool>,
    by_client: Option<bool>,
    prefix: Option<String>,
    name: Option<String>,
    project: Option<ProjectId>,
    create: Option<bool>,
    delete: Option<bool>,
    largest: Option<u64>,
    native_ttl: Option<u64>,
    counts_lag: Option<u64>,
    timeout: Option<u64>,
    linger: Option<u64>,
    wait: Option<u64>,
    journal: Option<bool>,
    native_delays: Option<bool>,
}

impl Options {
    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let refused = || wrong(format!("that is not a value for the option '{key}'"));
        let text = || {
            Some(value)
                .filter(|text| !text.is_empty())
                .ok_or_else(refused)
        };
        let number = |range: std::ops::RangeInclusive<u64>| {
            let number = value.parse().ok().filter(|n| range.contains(n));
            number.ok_or_else(refused).map(Some)
        };
        let word = |words: [&str; 2]| match words.iter().position(|word| *word == value) {
            Some(at) => Ok(Some(at == 1)),
            None => Err(refused()),
        };
        const SWITCH: [&str; 2] = ["false", "true"];
        match key {
            "endpoint" => self.endpoint = Some(endpoint(value).ok_or_else(refused)?),
            "profile" => self.profile = Some(text()?.to_owned()),
            "ca_file" => self.authorities = Some(text()?.into()),
            "fifo" => self.fifo = word(SWITCH)?,
            "group" => self.by_client = word(["queue", "client"])?,
            "prefix" => {
                let fits = value.len() <= 24 && is_plain(value);
                self.prefix = Some(fits.then(|| value.to_owned()).ok_or_else(refused)?);
            }
            "name" => self.name = Some(text()?.to_owned()),
            "project" => self.project = Some(ProjectId::parse(value).map_err(|_| refused())?),
            "create" => self.create = word(SWITCH)?,
            "remove" => self.delete = word(["keep", "delete"])?,
            "message_bytes" => self.largest = number(1024..=LARGEST as u64)?,
            "native_ttl_s" => self.native_ttl = number(60..=LONGEST_TTL.as_secs())?,
            "counts_lag_s" => self.counts_lag = number(1..=3600)?,
            "timeout_ms" => self.timeout = number(100..=600_000)?,
            "linger_ms" => self.linger = number(0..=1000)?,
            "wait_s" => self.wait = number(0..=20)?,
            "journal" => self.journal = word(SWITCH)?,
            "delays" => self.native_delays = word(["held", "native"])?,
            _ => {
                return Err(wrong(format!(
                    "there is no option '{key}' (known are {OPTIONS})"
                )));
            }
        }
        Ok(())
    }

    fn into_config(self, region: String, owner: Option<String>) -> Result<Config> {
        let adopted = self.name.is_some() || owner.is_some();
        let naming = match (self.name, self.prefix) {
            (Some(_), Some(_)) => return Err(wrong("'name' and 'prefix' exclude each other")),
            (Some(name), None) => {
                Naming::Pattern(Pattern::parse(&name, self.project).map_err(wrong)?)
            }
            (None, _) if self.project.is_some() => return Err(wrong("'project' needs 'name'")),
            (None, prefix) => Naming::Own(prefix.unwrap_or_else(|| PREFIX.into())),
        };
        let create = self.create.unwrap_or(!adopted);
        if create && owner.is_some() {
            return Err(wrong(
                "queues cannot be made in another account: 'create=true'",
            ));
        }
        let removal = match (self.delete, create) {
            (Some(true), false) => {
                return Err(wrong("'remove=delete' is for queues that are made here"));
            }
            (Some(true), true) => Removal::Delete,
            _ => Removal::Keep,
        };
        let order = match (self.fifo.unwrap_or(false), self.by_client) {
            (false, Some(_)) => return Err(wrong("'group' needs 'fifo=true'")),
            (false, None) => Order::Loose,
            (true, Some(true)) => Order::Client,
            (true, _) => Order::Queue,
        };
        if self.authorities.is_some()
            && self
                .endpoint
                .as_deref()
                .is_some_and(|e| e.starts_with("http:"))
        {
            return Err(wrong("'ca_file' is for an endpoint with 'https:'"));
        }
        Ok(Config {
            region,
            owner,
            endpoint: self.endpoint,
            profile: self.profile,
            authorities: self.authorities,
            order,
            naming,
            create,
            removal,
            largest: self
                .largest
                .map_or(LARGEST, |bytes| usize::try_from(bytes).unwrap_or(LARGEST)),
            native_ttl: self.native_ttl.map(Duration::from_secs),
            counts_lag: Duration::from_secs(self.counts_lag.unwrap_or(60)),
            timeout: Duration::from_millis(self.timeout.unwrap_or(2000)),
            linger: Duration::from_millis(self.linger.unwrap_or(0)),
            wait: Duration::from_secs(self.wait.unwrap_or(0)),
            // A message that SQS delays cannot be purged, and without a journal nobody else knows it.
            native_delays: self.native_delays.or(self.journal).unwrap_or(true),
            journal: self.journal.unwrap_or(true),
            login: None,
        })
    }
}

/// An address with a scheme and a host, and nothing secret in it.
fn endpoint(value: &str) -> Option<String> {
    let rest = value
        .strip_prefix("https://")
        .or_else(|| value.strip_prefix("http://"))?;
    let fits = !rest.is_empty()
        && !rest.starts_with([':', '/'])
        && !rest.contains(['@', '?', '#'])
        && rest.bytes().all(|b| b.is_ascii_graphic());
    fits.then(|| value.to_owned())
}

fn wrong(why: impl fmt::Display) -> Error {
    Error::invalid(format!("{why} in the SQS store URI"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_enough() {
        let config = Config::parse("sqs://eu-central-1").unwrap();
        assert_eq!(config.region, "eu-central-1");
        assert_eq!(config.order, Order::Loose);
        assert_eq!(config.naming, Naming::Own("isimud-".into()));
        assert_eq!((config.create, config.removal), (true, Removal::Keep));
        assert_eq!((config.largest, config.linger), (LARGEST, Duration::ZERO));
        assert_eq!(config.timeout, Duration::from_secs(2));
        assert!(config.journal());
    }

    #[test]
    fn everything_can_be_said() {
        let uri = "sqs://us-east-1?endpoint=http%3A%2F%2F127.0.0.1%3A4566&profile=p&fifo=true&group=client&prefix=x_\
                   &create=true&remove=delete&message_bytes=262144&native_ttl_s=60&timeout_ms=300&linger_ms=5&wait_s=20\
                   &journal=false";
        let config = Config::parse(uri).unwrap();
        assert_eq!(config.endpoint.as_deref(), Some("http://127.0.0.1:4566"));
        assert_eq!(
            (config.order, config.removal),
            (Order::Client, Removal::Delete)
        );
        assert_eq!(config.naming, Naming::Own("x_".into()));
        assert_eq!(config.native_ttl, Some(Duration::from_secs(60)));
        assert_eq!((config.largest, config.wait.as_secs()), (262_144, 20));
        assert!(!config.journal() && !config.native_delays);
    }

    #[test]
    fn who_keeps_delays_follows_the_journal_or_what_is_said() {
        for (options, native) in [
            ("", true),
            ("journal=true", true),
            ("journal=false", false),
            ("journal=false&delays=native", true),
            ("delays=held", false),
        ] {
            let config = Config::parse(&format!("sqs://us-east-1?{options}")).unwrap();
            assert_eq!(config.native_delays, native, "{options}");
        }
    }

    #[test]
    fn what_is_adopted_is_not_made() {
        for uri in [
            "sqs://us-east-1/123456789012",
            "sqs://us-east-1?name=prod-{queue}&project=p",
            "sqs://us-east-1?name=%7Bproject%7D-%7Bqueue%7D",
        ] {
            assert!(!Config::parse(uri).unwrap().create, "{uri}");
        }
        assert!(
            Config::parse("sqs://r?name={project}-{queue}&create=true")
                .unwrap()
                .create
        );
    }

    #[test]
    fn mistakes_are_named_and_secrets_are_not() {
        for uri in [
            "sqs:",
            "sqs://",
            "https://us-east-1",
            "sqs://AKIA:secret@us-east-1",
            "sqs://us east 1",
            "sqs://us-east-1/123",
            "sqs://us-east-1/123456789012?create=true",
            "sqs://us-east-1?secret=secret",
            "sqs://us-east-1?endpoint=http://k:secret@h",
            "sqs://us-east-1?endpoint=h:80",
            "sqs://us-east-1?endpoint=http://h&ca_file=/ca",
            "sqs://us-east-1?fifo=yes",
            "sqs://us-east-1?group=client",
            "sqs://us-east-1?prefix=a.b",
            "sqs://us-east-1?prefix=a&name={project}-{queue}",
            "sqs://us-east-1?project=p",
            "sqs://us-east-1?name={queue}",
            "sqs://us-east-1?name={queue}&project=p&remove=delete",
            "sqs://us-east-1?message_bytes=1048577",
            "sqs://us-east-1?timeout_ms=0",
            "sqs://us-east-1?wait_s=21",
            "sqs://us-east-1?native_ttl_s=1",
            "sqs://us-east-1?journal=on",
            "sqs://us-east-1?delays=none",
        ] {
            let error = Config::parse(uri).unwrap_err();
            assert!(!format!("{error:?}").contains("secret@"), "{uri}");
            assert!(!format!("{error:?}").contains("AKIA"), "{uri}");
        }
        let config = Config::parse("sqs://us-east-1")
            .unwrap()
            .with_login("k", "geheim");
        assert!(!format!("{config:?}").contains("geheim"));
    }
}
