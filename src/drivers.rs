//! From a URI's scheme to the driver that opens it: the only file that names a driver crate. Pools have options beside
//! their URI ([`pools`]).

mod pools;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use isimud_contract::{
    Capabilities, Clock, Error, Ledger, ManagementStore, MessageStore, Metadata, Result,
};

use self::pools::with_options;
use crate::catalogue::{self, Shared};

pub use self::pools::ForPools;
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
    /// What it speaks, encrypted or not.
    protocol: &'static str,
    /// The store is a file, which one server has open at a time.
    is_file: bool,
    /// The options that it knows.
    options: &'static str,
    /// What two URIs have in common that this driver answers to.
    shared: fn(&str, &str) -> Result<Shared>,
    check: fn(&str) -> Result<()>,
    /// Reads the files of certificates and keys that a URI names.
    check_files: fn(&str) -> Result<()>,
    /// A store of this driver keeps queues, too.
    keeps_queues: bool,
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
        protocol: "sqlite",
        is_file: true,
        options: isimud_sqlite::OPTIONS,
        shared: |one, other| {
            let [one, other] = [one, other].map(isimud_sqlite::Config::parse);
            Ok(Shared::of(one?.is_location_of(&other?), true))
        },
        check: |uri| isimud_sqlite::Config::parse(uri).map(drop),
        check_files: |_| Ok(()),
        keeps_queues: true,
        file: |uri| {
            let config = isimud_sqlite::Config::parse(uri)?;
            Ok(config.path().map(std::path::Path::to_owned))
        },
        capabilities: |_| Ok(Capabilities::FULL),
        open: |uri, context| {
            let config = isimud_sqlite::Config::parse(uri)?;
            let store = isimud_sqlite::SqliteStore::open(config, Arc::clone(&context.clock))?;
            let management: Arc<dyn ManagementStore> = Arc::clone(&store) as _;
            let ledger_store = Arc::clone(&store);
            Ok(Backend {
                name: "sqlite",
                messages: store,
                management: Some(management),
                ledgers: Some(Ledgers::new(move |scope| Ok(ledger_store.ledger(scope)))),
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
        protocol: "sqs",
        is_file: false,
        options: isimud_sqs::OPTIONS,
        shared: |one, other| {
            let [one, other] = [one, other].map(isimud_sqs::Config::parse);
            let (one, other) = (one?, other?);
            let meet = one.is_beside(&other) && one.shares_names(&other);
            Ok(Shared::of(meet, one.has_names_of(&other)))
        },
        check: |uri| isimud_sqs::Config::parse(uri).map(drop),
        check_files: |uri| isimud_sqs::Config::parse(uri)?.check_files(),
        keeps_queues: false,
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
        protocol: "amqp",
        is_file: false,
        options: isimud_amqp::OPTIONS,
        shared: |one, other| {
            let [one, other] = [one, other].map(isimud_amqp::Config::parse);
            let (one, other) = (one?, other?);
            let meet = one.is_beside(&other) && one.shares_names(&other);
            Ok(Shared::of(meet, one.has_names_of(&other)))
        },
        check: |uri| isimud_amqp::Config::parse(uri).map(drop),
        check_files: |uri| isimud_amqp::Config::parse(uri)?.check_files(),
        keeps_queues: false,
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
        protocol: "redis",
        is_file: false,
        options: isimud_redis::OPTIONS,
        shared: |one, other| {
            let [one, other] = [one, other].map(isimud_redis::Config::parse);
            Ok(Shared::of(one?.is_beside(&other?), true))
        },
        check: |uri| isimud_redis::Config::parse(uri).map(drop),
        check_files: |uri| isimud_redis::Config::parse(uri)?.check_files(),
        keeps_queues: true,
        file: |_| Ok(None),
        capabilities: |_| Ok(Capabilities::FULL),
        open: |uri, context| {
            let config = isimud_redis::Config::parse(uri)?.by(Arc::clone(&context.clock));
            let store = isimud_redis::RedisStore::open(config)?;
            let management: Arc<dyn ManagementStore> = Arc::clone(&store) as _;
            let ledger_store = Arc::clone(&store);
            Ok(Backend {
                name: "redis",
                messages: store,
                management: Some(management),
                ledgers: Some(Ledgers::new(move |scope| Ok(ledger_store.ledger(scope)))),
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

/// Refuses a store whose files of certificates and keys cannot be used, without opening it.
pub fn check_files(uri: &str) -> Result<()> {
    (driver(uri)?.check_files)(uri)
}

/// Refuses a management store that cannot keep queues, without opening it.
pub fn check_management(uri: &str) -> Result<()> {
    match driver(uri)?.keeps_queues {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "queues cannot be kept in '{}'; name a management store",
            shown(uri)
        ))),
    }
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

/// The same for a pool, with its files of certificates and keys.
pub fn inspect_pool(uri: &str, options: &Metadata) -> Result<Option<&'static str>> {
    let uri = with_options(uri, options)?;
    check_files(&uri)?;
    inspect(&uri)
}

/// Opens what a URI names.
pub fn open(uri: &str, context: &Context) -> Result<Backend> {
    (driver(uri)?.open)(uri, context)
}

/// What two URIs have in common, however they log in and tune.
fn shared(one: &str, other: &str) -> Result<Shared> {
    let (driver, theirs) = (driver(one)?, driver(other)?);
    match driver.protocol == theirs.protocol {
        true => (driver.shared)(one, other),
        false => Ok(Shared::Nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn sqlite_uris_of_one_file_share_a_store() {
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
