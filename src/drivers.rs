//! From a URI's scheme to the driver that opens it: the only file that names a driver crate.
//!
//! A store is a URI and, for a pool, options beside it. The options are added to the URI's query before the driver reads
//! it; where both name one, the pool's option holds. So a driver knows one form only, and checks it in one place.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use isimud_contract::{Clock, Error, Ledger, ManagementStore, MessageStore, Metadata, Result};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;

use crate::catalogue::{self, Opener};

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
    /// What follows a host that names no port, if it is a host.
    port: &'static str,
    /// Options that say which store it is, and not how it is spoken to.
    naming: &'static [&'static str],
    check: fn(&str) -> Result<()>,
    /// The file that a store of this driver is, if it is one.
    file: fn(&str) -> Result<Option<PathBuf>>,
    open: fn(&str, &Context) -> Result<Backend>,
}

/// The drivers that this server was built with.
const DRIVERS: &[Driver] = &[
    #[cfg(feature = "sqlite")]
    Driver {
        scheme: "sqlite",
        is_file: true,
        port: "",
        naming: &[],
        check: |uri| isimud_sqlite::Config::parse(uri).map(drop),
        file: |uri| {
            let config = isimud_sqlite::Config::parse(uri)?;
            Ok(config.path().map(Path::to_owned))
        },
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
    amqp("amqp", ":5672"),
    #[cfg(feature = "amqp")]
    amqp("amqps", ":5671"),
    #[cfg(feature = "sqs")]
    Driver {
        scheme: "sqs",
        is_file: false,
        port: "",
        naming: &["endpoint", "fifo", "name", "prefix", "profile", "project"],
        check: |uri| isimud_sqs::Config::parse(uri).map(drop),
        file: |_| Ok(None),
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
const fn amqp(scheme: &'static str, port: &'static str) -> Driver {
    Driver {
        scheme,
        is_file: false,
        port,
        naming: &["name", "prefix"],
        check: |uri| isimud_amqp::Config::parse(uri).map(drop),
        file: |_| Ok(None),
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
        port: ":6379",
        naming: &["dbid", "master", "prefix"],
        check: |uri| isimud_redis::Config::parse(uri).map(drop),
        file: |_| Ok(None),
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

/// Checks a URI without opening anything.
pub fn check(uri: &str) -> Result<()> {
    (driver(uri)?.check)(uri)
}

/// The file that a URI names, if its store is one.
pub fn file(uri: &str) -> Option<PathBuf> {
    (driver(uri).ok()?.file)(uri).ok()?
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
        let backend = open(&with_options(uri, options)?, &context)?;
        Ok((backend.name, backend.messages))
    }

    fn identity(&self, uri: &str, options: &Metadata) -> Result<Option<String>> {
        identity(&with_options(uri, options)?)
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

/// A URI with a pool's options in its query, which take the place of its own of the same name.
fn with_options(uri: &str, options: &Metadata) -> Result<String> {
    let (address, query) = uri.split_once('?').unwrap_or((uri, ""));
    let name = |option: &str| {
        option
            .split_once('=')
            .map_or(option, |(name, _)| name)
            .to_owned()
    };
    let mut merged: Vec<String> = query
        .split('&')
        .filter(|option| !option.is_empty() && !options.contains_key(&name(option)))
        .map(str::to_owned)
        .collect();
    for (key, value) in options {
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

/// What two URIs of one store have in common, however they log in and tune: the place, and the options that name it.
/// `None` for memory, which is another one each time.
fn identity(uri: &str) -> Result<Option<String>> {
    let driver = driver(uri)?;
    let (address, query) = uri.split_once('?').unwrap_or((uri, ""));
    let (scheme, place) = address.split_once(':').unwrap_or((address, ""));
    let place = place.strip_prefix("//").unwrap_or(place);
    let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
    if place == ":memory:" {
        return Ok(None);
    }
    let mut naming: Vec<&str> = query
        .split('&')
        .filter(|option| {
            let name = option.split_once('=').map_or(*option, |(name, _)| name);
            driver.naming.contains(&name)
        })
        .collect();
    naming.sort_unstable();
    // A path tells cases apart, a host does not.
    let place = match driver.is_file {
        true => file_identity(place),
        false => without_port(&place.to_ascii_lowercase(), driver.port),
    };
    // Encrypted or not, it is the same server.
    let scheme = scheme.trim_end_matches('s');
    Ok(Some(format!("{scheme}:{place}?{}", naming.join("&"))))
}

/// What a file is, whatever it is called: its device and number where it is there, else its name without links and dots.
fn file_identity(place: &str) -> String {
    use std::os::unix::fs::MetadataExt;

    if let Ok(file) = std::fs::metadata(place) {
        return format!("{}:{}", file.dev(), file.ino());
    }
    let path = std::path::absolute(place).unwrap_or_else(|_| place.into());
    // The folders that are there may be links; those that will be made are not.
    let mut there = path.as_path();
    while let Some(above) = there.parent() {
        there = above;
        if let Ok(known) = there.canonicalize()
            && let Ok(rest) = path.strip_prefix(there)
        {
            return known.join(rest).display().to_string();
        }
    }
    path.display().to_string()
}

/// Hosts, and what follows them, without the port that they have anyway.
fn without_port(place: &str, port: &str) -> String {
    let (hosts, path) = match place.find('/') {
        Some(at) => place.split_at(at),
        None => (place, ""),
    };
    // The database, or the virtual host, that is meant where none is named.
    let path = match path {
        "/" | "/%2f" => "",
        path => path,
    };
    let hosts: Vec<&str> = hosts
        .split(',')
        .map(|host| host.strip_suffix(port).unwrap_or(host))
        .collect();
    format!("{}{path}", hosts.join(","))
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
        let refused = with_options("sqlite:a", &options(json!({"readers": [1]})));
        let sentence = refused.expect_err("no value").to_string();
        assert_eq!(
            sentence,
            "the option 'readers' must be a string, a number or a boolean"
        );
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn a_file_has_one_identity_whatever_it_is_called() {
        let folder = tempfile::tempdir().expect("a folder");
        let uri = |name: &str| format!("sqlite:{}", folder.path().join(name).display());
        let of = |name: &str| {
            identity(&uri(name))
                .expect("a file")
                .expect("not in memory")
        };
        std::fs::create_dir(folder.path().join("data")).expect("a folder in it");
        let linked = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path().join("data"), linked).expect("a link");
        let is_one = |file: &str| {
            for other in [
                "data/./isimud.db",
                "link/isimud.db",
                "link/../data/isimud.db",
            ] {
                assert_eq!(of(file), of(other), "{other}");
            }
            assert_ne!(of(file), of("isimud.db"));
        };
        is_one("data/isimud.db");
        std::fs::write(folder.path().join("data/isimud.db"), "").expect("a file");
        is_one("data/isimud.db");
        let hard = folder.path().join("hard.db");
        std::fs::hard_link(folder.path().join("data/isimud.db"), hard).expect("a hard link");
        assert_eq!(of("data/isimud.db"), of("hard.db"));
    }

    #[cfg(feature = "redis")]
    #[test]
    fn one_store_has_one_identity() {
        let same = |one, other| identity(one).expect(one) == identity(other).expect(other);
        for other in [
            "redis://h:1?timeout_ms=9&prefix=x",
            "rediss://me:pw@H:1?prefix=x",
        ] {
            assert!(same("redis://h:1?prefix=x", other), "{other}");
        }
        assert!(same("redis://h", "redis://h:6379"));
        assert!(same("redis://h/2", "rediss://h:6379/2"));
        #[cfg(feature = "amqp")]
        for other in ["amqp://h/", "amqps://me:pw@h:5671/%2F?journal=false"] {
            assert!(same("amqp://h", other), "{other}");
        }
        for other in [
            "redis://h:2?prefix=x",
            "redis://h:1",
            "redis://h:1?prefix=y",
        ] {
            assert!(!same("redis://h:1?prefix=x", other), "{other}");
        }
    }

    #[cfg(feature = "sqs")]
    #[test]
    fn one_estate_of_queues_has_one_identity() {
        let same = |one, other| identity(one).expect(one) == identity(other).expect(other);
        let one = "sqs://eu-central-1/123456789012?name={project}-{queue}";
        let tuned = "sqs://eu-central-1/123456789012?wait_s=5&name={project}-{queue}&journal=false";
        assert!(same(one, tuned));
        for other in [
            "sqs://eu-west-1/123456789012?name={project}-{queue}",
            "sqs://eu-central-1/123456789013?name={project}-{queue}",
            "sqs://eu-central-1/123456789012?name={queue}-{project}",
            "sqs://eu-central-1/123456789012?name={project}-{queue}&fifo=true",
            "sqs://eu-central-1/123456789012?name={project}-{queue}&profile=other",
            "sqs://eu-central-1/123456789012?name={project}-{queue}&endpoint=http://h",
        ] {
            assert!(!same(one, other), "{other}");
        }
    }

    #[test]
    fn a_scheme_that_nobody_serves_is_answered_with_those_that_are() {
        let error = check("kafka://h").expect_err("no driver").to_string();
        assert!(error.starts_with("no driver serves the store URI scheme 'kafka:'; known are"));
    }
}
