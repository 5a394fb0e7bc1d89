//! From a URI's scheme to the driver that opens it: the only file that names a driver crate.
//!
//! A store is a URI and, for a pool, options beside it. The options are added to the URI's query before the driver reads
//! it; where both name one, the pool's option holds. So a driver knows one form only, and checks it in one place. Options
//! that a driver does not know are left out, and the log tells: pools of other services that speak this API have some.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use isimud_contract::{
    Capabilities, Clock, Error, Ledger, ManagementStore, MessageStore, Metadata, Result,
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;

use crate::catalogue::{self, Opener, Shared};

pub use crate::catalogue::shown;

/// An open backend: it stores messages, and some store queues too.
#[derive(Debug, Clone)]
pub struct Backend {
    /// The driver's name, for logs and metrics.
    pub name: &'static str,
    /// Where messages go.
    pub messages: Arc<dyn MessageStore>,
    /// Where queues go, if this backend can keep them.
    pub management: Option<Arc<dyn ManagementStore>>,
    /// Ledgers for brokers that can only lease, if this backend can keep them.
    pub ledgers: Option<Ledgers>,
}

/// Opens the ledger of a scope: what one pool's broker does not know.
#[derive(Clone)]
pub struct Ledgers(Arc<OpenLedger>);

type OpenLedger = dyn Fn(&str) -> Result<Arc<dyn Ledger>> + Send + Sync;

impl Ledgers {
    /// From what opens a scope's ledger.
    pub fn new(open: impl Fn(&str) -> Result<Arc<dyn Ledger>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(open))
    }

    /// The ledger of a scope.
    pub fn of(&self, scope: &str) -> Result<Arc<dyn Ledger>> {
        (self.0)(scope)
    }
}

impl fmt::Debug for Ledgers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ledgers")
    }
}

/// What an opener gets beside the URI.
#[derive(Debug, Clone)]
pub struct Context {
    /// What time it is, for stores that have no clock of their own.
    pub clock: Arc<dyn Clock>,
    /// Ledgers, from the management store; a broker that can only lease cannot be opened without.
    pub ledgers: Option<Ledgers>,
    /// The name that the backend has in what several backends share: its ledger's scope.
    pub scope: String,
}

impl Context {
    /// For the store of the configuration, which is there without registration.
    pub fn new(clock: Arc<dyn Clock>, ledgers: Option<Ledgers>) -> Self {
        Self {
            clock,
            ledgers,
            scope: catalogue::DEFAULT.into(),
        }
    }

    /// The ledger of this backend; `Invalid` where there is none.
    pub fn ledger(&self) -> Result<Arc<dyn Ledger>> {
        let none = "this broker needs a management store that keeps ledgers beside it";
        let ledgers = self.ledgers.as_ref();
        ledgers.ok_or_else(|| Error::invalid(none))?.of(&self.scope)
    }
}

/// A driver: the schemes it answers to, and what it does with a URI.
struct Driver {
    scheme: &'static str,
    /// The store is a file, which one server has open at a time.
    is_file: bool,
    /// The options that it knows.
    options: &'static str,
    /// What two URIs have in common that this driver answers to.
    shared: fn(&str, &str) -> Result<Shared>,
    check: fn(&str) -> Result<()>,
    /// The file that a store of this driver is, if it is one.
    file: fn(&str) -> Result<Option<PathBuf>>,
    /// What a store of that URI can do, as far as it can be said without opening it.
    capabilities: fn(&str) -> Result<Capabilities>,
    open: fn(&str, &Context) -> Result<Backend>,
}

/// The drivers that this server was built with.
const DRIVERS: &[Driver] = &[
    #[cfg(feature = "sqlite")]
    Driver {
        scheme: "sqlite",
        is_file: true,
        options: isimud_sqlite::OPTIONS,
        shared: |one, other| {
            let [one, other] = [one, other].map(isimud_sqlite::Config::parse);
            Ok(Shared::of(one?.is_place_of(&other?), true))
        },
        check: |uri| isimud_sqlite::Config::parse(uri).map(drop),
        file: |uri| {
            let config = isimud_sqlite::Config::parse(uri)?;
            Ok(config.path().map(Path::to_owned))
        },
        capabilities: |_| Ok(Capabilities::FULL),
        open: |uri, context| {
            let config = isimud_sqlite::Config::parse(uri)?;
            let store = isimud_sqlite::SqliteStore::open(config, Arc::clone(&context.clock))?;
            let management: Arc<dyn ManagementStore> = Arc::clone(&store) as _;
            let keeper = Arc::clone(&store);
            Ok(Backend {
                name: "sqlite",
                messages: store,
                management: Some(management),
                ledgers: Some(Ledgers::new(move |scope| Ok(keeper.ledger(scope)))),
            })
        },
    },
    #[cfg(feature = "redis")]
    redis("redis"),
    #[cfg(feature = "redis")]
    redis("rediss"),
    #[cfg(feature = "amqp")]
    amqp("amqp"),
    #[cfg(feature = "amqp")]
    amqp("amqps"),
    #[cfg(feature = "sqs")]
    Driver {
        scheme: "sqs",
        is_file: false,
        options: isimud_sqs::OPTIONS,
        shared: |one, other| {
            let [one, other] = [one, other].map(isimud_sqs::Config::parse);
            let (one, other) = (one?, other?);
            let meet = one.is_beside(&other) && one.shares_names(&other);
            Ok(Shared::of(meet, one.has_names_of(&other)))
        },
        check: |uri| isimud_sqs::Config::parse(uri).map(drop),
        file: |_| Ok(None),
        capabilities: |uri| {
            let config = isimud_sqs::Config::parse(uri)?;
            Ok(Capabilities {
                browse: config.journal(),
                ..config.capabilities()
            })
        },
        open: |uri, context| {
            let config = isimud_sqs::Config::parse(uri)?;
            let journal = match config.journal() {
                true => isimud_lease::Journal::On,
                false => isimud_lease::Journal::Off,
            };
            let (ledger, clock) = (context.ledger()?, || Arc::clone(&context.clock));
            let broker = isimud_sqs::SqsBroker::open(config, clock())?;
            Ok(Backend {
                name: "sqs",
                messages: Arc::new(isimud_lease::Leased::new(broker, ledger, clock(), journal)),
                management: None,
                ledgers: None,
            })
        },
    },
];

/// The RabbitMQ driver, without and with TLS. It needs a ledger, from the management store.
#[cfg(feature = "amqp")]
const fn amqp(scheme: &'static str) -> Driver {
    Driver {
        scheme,
        is_file: false,
        options: isimud_amqp::OPTIONS,
        shared: |one, other| {
            let [one, other] = [one, other].map(isimud_amqp::Config::parse);
            let (one, other) = (one?, other?);
            let meet = one.is_beside(&other) && one.shares_names(&other);
            Ok(Shared::of(meet, one.has_names_of(&other)))
        },
        check: |uri| isimud_amqp::Config::parse(uri).map(drop),
        file: |_| Ok(None),
        capabilities: |uri| {
            let config = isimud_amqp::Config::parse(uri)?;
            Ok(Capabilities {
                browse: config.journal(),
                ..config.capabilities()
            })
        },
        open: |uri, context| {
            let config = isimud_amqp::Config::parse(uri)?;
            let journal = match config.journal() {
                true => isimud_lease::Journal::On,
                false => isimud_lease::Journal::Off,
            };
            let (ledger, clock) = (context.ledger()?, || Arc::clone(&context.clock));
            let broker = isimud_amqp::AmqpBroker::open(config, clock())?;
            Ok(Backend {
                name: "amqp",
                messages: Arc::new(isimud_lease::Leased::new(broker, ledger, clock(), journal)),
                management: None,
                ledgers: None,
            })
        },
    }
}

/// The Redis driver, without and with TLS. It goes by the clock of its server, unless the URI says otherwise.
#[cfg(feature = "redis")]
const fn redis(scheme: &'static str) -> Driver {
    Driver {
        scheme,
        is_file: false,
        options: isimud_redis::OPTIONS,
        shared: |one, other| {
            let [one, other] = [one, other].map(isimud_redis::Config::parse);
            Ok(Shared::of(one?.is_beside(&other?), true))
        },
        check: |uri| isimud_redis::Config::parse(uri).map(drop),
        file: |_| Ok(None),
        capabilities: |_| Ok(Capabilities::FULL),
        open: |uri, context| {
            let config = isimud_redis::Config::parse(uri)?.by(Arc::clone(&context.clock));
            let store = isimud_redis::RedisStore::open(config)?;
            let management: Arc<dyn ManagementStore> = Arc::clone(&store) as _;
            let keeper = Arc::clone(&store);
            Ok(Backend {
                name: "redis",
                messages: store,
                management: Some(management),
                ledgers: Some(Ledgers::new(move |scope| Ok(keeper.ledger(scope)))),
            })
        },
    }
}

fn driver(uri: &str) -> Result<&'static Driver> {
    let (scheme, rest) = uri.split_once(':').unwrap_or((uri, ""));
    let driver = DRIVERS.iter().find(|driver| driver.scheme == scheme);
    if driver.is_some_and(|driver| !driver.is_file && !rest.starts_with("//")) {
        // What follows may be a password: it is not quoted.
        return Err(Error::invalid(format!(
            "a store URI with the scheme '{scheme}:' begins with '{scheme}://'"
        )));
    }
    driver.ok_or_else(|| {
        let known: Vec<String> = DRIVERS
            .iter()
            .map(|driver| format!("{}:", driver.scheme))
            .collect();
        Error::invalid(format!(
            "no driver serves the store URI scheme '{scheme}:'; known are {}",
            known.join(", ")
        ))
    })
}

impl Driver {
    /// Whether there is an option of that name; some are followed by a point and a queue.
    fn knows(&self, option: &str) -> bool {
        let name = option.split_once('.').map_or(option, |(name, _)| name);
        self.options.split(", ").any(|known| known == name)
    }
}

/// Checks a URI without opening anything.
pub fn check(uri: &str) -> Result<()> {
    (driver(uri)?.check)(uri)
}

/// The file that a URI names, if its store is one.
pub fn file(uri: &str) -> Option<PathBuf> {
    (driver(uri).ok()?.file)(uri).ok()?
}

/// What a store can do, as far as it can be said without opening it.
pub fn capabilities(uri: &str) -> Result<Capabilities> {
    (driver(uri)?.capabilities)(uri)
}

/// Checks a pool without opening anything.
pub fn check_pool(uri: &str, options: &Metadata) -> Result<()> {
    check(&with_options(uri, options)?)
}

/// Says what opening the store of a URI would be refused for, or what is worth knowing of it, without opening it. Only a
/// file can be looked at in such a way; of any other nothing is said.
pub fn inspect(uri: &str) -> Result<Option<&'static str>> {
    if !driver(uri)?.is_file {
        return Ok(None);
    }
    #[cfg(feature = "sqlite")]
    return isimud_sqlite::inspect(&isimud_sqlite::Config::parse(uri)?);
    #[cfg(not(feature = "sqlite"))]
    Ok(None)
}

/// The same for a pool.
pub fn inspect_pool(uri: &str, options: &Metadata) -> Result<Option<&'static str>> {
    inspect(&with_options(uri, options)?)
}

/// Opens what a URI names.
pub fn open(uri: &str, context: &Context) -> Result<Backend> {
    (driver(uri)?.open)(uri, context)
}

/// What pools are opened with.
#[derive(Debug)]
pub struct ForPools {
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Ledgers, from the management store.
    pub ledgers: Option<Ledgers>,
    /// Where files of pools may be that are registered over the API; nowhere when it is empty.
    pub folder: PathBuf,
}

impl Opener for ForPools {
    fn check(&self, uri: &str, options: &Metadata) -> Result<()> {
        check_pool(uri, options)
    }

    fn admit(&self, uri: &str, options: &Metadata) -> Result<()> {
        let uri = with_options(uri, options)?;
        let Some(file) = (driver(&uri)?.file)(&uri)? else {
            return Ok(());
        };
        let is_set = !self.folder.as_os_str().is_empty();
        let folder = is_set.then(|| resolved(&self.folder)).flatten();
        if let (Some(folder), Some(file)) = (folder, resolved(&file))
            && file.starts_with(folder)
        {
            return Ok(());
        }
        Err(Error::invalid(
            "The file of a pool must be in the folder that the operator has set aside for pools (pooling.sqlite_folder).",
        ))
    }

    fn open(
        &self,
        pool: &str,
        uri: &str,
        options: &Metadata,
    ) -> Result<(&'static str, Arc<dyn MessageStore>)> {
        let context = Context {
            clock: Arc::clone(&self.clock),
            ledgers: self.ledgers.clone(),
            scope: format!("pool:{pool}"),
        };
        let driver = driver(uri)?;
        for option in options.keys().filter(|option| !driver.knows(option)) {
            tracing::warn!(
                pool,
                option,
                "the driver of this pool has no such option, and goes on without it; known are {}",
                driver.options
            );
        }
        let backend = open(&with_options(uri, options)?, &context)?;
        Ok((backend.name, backend.messages))
    }

    fn shared(&self, one: (&str, &Metadata), other: (&str, &Metadata)) -> Result<Shared> {
        shared(
            &with_options(one.0, one.1)?,
            &with_options(other.0, other.1)?,
        )
    }

    fn is_exclusive(&self, uri: &str) -> bool {
        driver(uri).is_ok_and(|driver| driver.is_file)
    }
}

/// Where a path leads: without links, and without steps upwards. It need not exist. `None` where it cannot be told, as
/// with a link to what does not exist.
fn resolved(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let mut found = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            found.pop();
        } else {
            found.push(part);
        }
        match found.canonicalize() {
            Ok(real) => found = real,
            Err(_) if found.is_symlink() => return None,
            Err(_) => {}
        }
    }
    Some(found)
}

/// What must stand encoded in the value of an option.
const OPTION: &AsciiSet = &CONTROLS.add(b' ').add(b'#').add(b'%').add(b'&').add(b'+');

/// A URI with a pool's options in its query, which take the place of its own of the same name. Without those that its
/// driver does not know.
fn with_options(uri: &str, options: &Metadata) -> Result<String> {
    let driver = driver(uri)?;
    let (address, query) = uri.split_once('?').unwrap_or((uri, ""));
    let name = |option: &str| {
        option
            .split_once('=')
            .map_or(option, |(name, _)| name)
            .to_owned()
    };
    let is_beside = |name: &str| driver.knows(name) && options.contains_key(name);
    let mut merged: Vec<String> = query
        .split('&')
        .filter(|option| !option.is_empty() && !is_beside(&name(option)))
        .map(str::to_owned)
        .collect();
    for (key, value) in options.iter().filter(|(key, _)| driver.knows(key)) {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(truth) => truth.to_string(),
            _ => {
                return Err(Error::invalid(format!(
                    "the option '{key}' must be a string, a number or a boolean"
                )));
            }
        };
        merged.push(format!("{key}={}", utf8_percent_encode(&text, OPTION)));
    }
    Ok(match merged.is_empty() {
        true => address.to_owned(),
        false => format!("{address}?{}", merged.join("&")),
    })
}

/// What two URIs have in common, however they log in and tune.
fn shared(one: &str, other: &str) -> Result<Shared> {
    let (driver, theirs) = (driver(one)?, driver(other)?);
    // Encrypted or not, it is the same server.
    let is_same = driver.scheme.trim_end_matches('s') == theirs.scheme.trim_end_matches('s');
    match is_same {
        true => (driver.shared)(one, other),
        false => Ok(Shared::Nothing),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn options(document: Value) -> Metadata {
        document.as_object().cloned().expect("an object")
    }

    #[test]
    fn options_of_a_pool_take_the_place_of_those_in_its_uri() {
        for (uri, beside, merged) in [
            ("sqlite:a.db", json!({}), "sqlite:a.db"),
            ("sqlite:a.db?readers=2", json!({}), "sqlite:a.db?readers=2"),
            (
                "sqlite:a.db?readers=2&cache_mib=8",
                json!({"readers": 4, "synchronous": "full"}),
                "sqlite:a.db?cache_mib=8&readers=4&synchronous=full",
            ),
            (
                "redis://h",
                json!({"prefix": "a&b", "cluster": true}),
                "redis://h?prefix=a%26b&cluster=true",
            ),
        ] {
            assert_eq!(with_options(uri, &options(beside)).expect(uri), merged);
        }
        let beside = json!({"max_reconnect_attempts": 3, "deep": {"a": [1]}, "readers": 2});
        let merged = with_options("sqlite:a", &options(beside)).expect("a URI");
        assert_eq!(merged, "sqlite:a?readers=2");
        let refused = with_options("sqlite:a", &options(json!({"readers": [1]})));
        let sentence = refused.expect_err("no value").to_string();
        assert_eq!(
            sentence,
            "the option 'readers' must be a string, a number or a boolean"
        );
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn a_file_is_one_place_whatever_it_is_called() {
        let folder = tempfile::tempdir().expect("a folder");
        let uri = |name: &str| format!("sqlite:{}", folder.path().join(name).display());
        std::fs::create_dir(folder.path().join("data")).expect("a folder in it");
        let linked = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path().join("data"), linked).expect("a link");
        let is_one = |file: &str| {
            for other in [
                "data/./isimud.db",
                "link/isimud.db",
                "link/../data/isimud.db",
            ] {
                assert_shared(&uri(file), &[&uri(other)], Shared::Place);
            }
            assert_shared(&uri(file), &[&uri("isimud.db")], Shared::Nothing);
        };
        is_one("data/isimud.db");
        std::fs::write(folder.path().join("data/isimud.db"), "").expect("a file");
        is_one("data/isimud.db");
        let hard = folder.path().join("hard.db");
        std::fs::hard_link(folder.path().join("data/isimud.db"), hard).expect("a hard link");
        assert_shared(&uri("data/isimud.db"), &[&uri("hard.db")], Shared::Place);
    }

    #[track_caller]
    fn assert_shared(one: &str, others: &[&str], expected: Shared) {
        for other in others {
            let both = [(one, *other), (*other, one)];
            for (one, other) in both {
                assert_eq!(
                    shared(one, other).expect(other),
                    expected,
                    "{one} and {other}"
                );
            }
        }
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn one_file_is_one_place() {
        let same = [
            "sqlite:a/b.db",
            "sqlite:a/b.db?readers=3",
            "sqlite:./a//b.db",
        ];
        assert_shared("sqlite:a/b.db", &same, Shared::Place);
        assert_shared(
            "sqlite:a/b.db",
            &["sqlite:b.db", "sqlite::memory:"],
            Shared::Nothing,
        );
        assert_shared("sqlite::memory:", &["sqlite::memory:"], Shared::Nothing);
    }

    #[cfg(feature = "redis")]
    #[test]
    fn one_redis_database_with_one_prefix_is_one_place() {
        let same = [
            "redis://h:1?timeout_ms=90&prefix=x",
            "rediss://me:pw@H:1?prefix=x",
            "redis://h:1/0?prefix=%78",
        ];
        assert_shared("redis://h:1?prefix=x", &same, Shared::Place);
        let same = [
            "redis://h:6379",
            "rediss://h/0",
            "redis://h?prefix=isimud:",
            "redis://h?dbid=0",
        ];
        assert_shared("redis://h", &same, Shared::Place);
        assert_shared("redis://h?dbid=2", &["rediss://h:6379/2"], Shared::Place);
        let nodes = ["redis://b,c?cluster=true", "redis://b:6379"];
        assert_shared("redis://a,b?cluster=true", &nodes, Shared::Place);
        let others = [
            "redis://h:2?prefix=x",
            "redis://h:1",
            "redis://h:1?prefix=y",
            "redis://h:1?prefix=xy",
        ];
        assert_shared("redis://h:1?prefix=x", &others, Shared::Nothing);
    }

    #[cfg(feature = "amqp")]
    #[test]
    fn one_virtual_host_is_shared_as_far_as_names_can_meet() {
        let same = [
            "amqp://h/",
            "amqps://me:pw@h:5671/%2F?journal=false",
            "amqp://g,h?prefix=isimud.",
        ];
        assert_shared("amqp://h", &same, Shared::Place);
        let adopted = "amqp://h?adopt=true&name={queue}&project=p";
        let apart = ["amqp://h/v", "amqp://h:5673", "amqp://h?prefix=x.", adopted];
        assert_shared("amqp://h", &apart, Shared::Nothing);
        let names = [
            "amqp://h?adopt=true&name={queue}&project=q",
            "amqp://h?prefix=x.",
        ];
        assert_shared(adopted, &names, Shared::Names);
    }

    #[cfg(feature = "sqs")]
    #[test]
    fn one_account_of_sqs_is_shared_as_far_as_names_can_meet() {
        let one = "sqs://eu-central-1/123456789012?name={project}-{queue}";
        let tuned =
            "sqs://eu-central-1/123456789012?wait_s=5&name={project}-%7Bqueue}&journal=false";
        assert_shared(one, &[tuned], Shared::Place);
        let apart = [
            "sqs://eu-west-1/123456789012?name={project}-{queue}",
            "sqs://eu-central-1/123456789013?name={project}-{queue}",
            "sqs://eu-central-1/123456789012?name={project}-{queue}&fifo=true",
            "sqs://eu-central-1/123456789012?name={project}-{queue}&profile=other",
            "sqs://eu-central-1/123456789012?name={project}-{queue}&endpoint=http://h",
        ];
        assert_shared(one, &apart, Shared::Nothing);
        let names = ["sqs://eu-central-1/123456789012?name={queue}-{project}"];
        assert_shared(one, &names, Shared::Names);
        assert_shared("sqs://r?prefix=a-", &["sqs://r?prefix=a-b-"], Shared::Names);
        assert_shared(
            "sqs://r",
            &["sqs://r?prefix=a-", "sqs://r?name={queue}&project=p"],
            Shared::Nothing,
        );
    }

    #[test]
    fn a_scheme_that_nobody_serves_is_answered_with_those_that_are() {
        let error = check("kafka://h").expect_err("no driver").to_string();
        assert!(error.starts_with("no driver serves the store URI scheme 'kafka:'; known are"));
    }
}
