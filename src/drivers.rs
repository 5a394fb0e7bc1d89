//! From a URI's scheme to the driver that opens it: the only file that names a driver crate.

use std::sync::Arc;

use isimud_contract::{Clock, Error, ManagementStore, MessageStore, Result};

/// An open backend: it stores messages, and some store queues too.
#[derive(Debug, Clone)]
pub struct Backend {
    /// The driver's name, for logs and metrics.
    pub name: &'static str,
    /// Where messages go.
    pub messages: Arc<dyn MessageStore>,
    /// Where queues go, if this backend can keep them.
    pub management: Option<Arc<dyn ManagementStore>>,
}

/// A driver: the schemes it answers to, and what it does with a URI.
struct Driver {
    scheme: &'static str,
    check: fn(&str) -> Result<()>,
    open: fn(&str, Arc<dyn Clock>) -> Result<Backend>,
}

/// The drivers that this server was built with.
const DRIVERS: &[Driver] = &[
    #[cfg(feature = "sqlite")]
    Driver {
        scheme: "sqlite",
        check: |uri| isimud_sqlite::Config::parse(uri).map(drop),
        open: |uri, clock| {
            let store =
                isimud_sqlite::SqliteStore::open(isimud_sqlite::Config::parse(uri)?, clock)?;
            let management: Arc<dyn ManagementStore> = Arc::clone(&store) as _;
            Ok(Backend {
                name: "sqlite",
                messages: store,
                management: Some(management),
            })
        },
    },
    #[cfg(feature = "redis")]
    redis("redis"),
    #[cfg(feature = "redis")]
    redis("rediss"),
];

/// The Redis driver, without and with TLS. It goes by the clock of its server, unless the URI says otherwise.
#[cfg(feature = "redis")]
const fn redis(scheme: &'static str) -> Driver {
    Driver {
        scheme,
        check: |uri| isimud_redis::Config::parse(uri).map(drop),
        open: |uri, clock| {
            let config = isimud_redis::Config::parse(uri)?.by(clock);
            let store = isimud_redis::RedisStore::open(config)?;
            let management: Arc<dyn ManagementStore> = Arc::clone(&store) as _;
            Ok(Backend {
                name: "redis",
                messages: store,
                management: Some(management),
            })
        },
    }
}

fn driver(uri: &str) -> Result<&'static Driver> {
    let scheme = uri.split_once(':').map_or(uri, |(scheme, _)| scheme);
    DRIVERS
        .iter()
        .find(|driver| driver.scheme == scheme)
        .ok_or_else(|| {
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

/// Opens what a URI names.
pub fn open(uri: &str, clock: Arc<dyn Clock>) -> Result<Backend> {
    (driver(uri)?.open)(uri, clock)
}

/// A URI as it may be shown: without the passwords in it.
pub fn shown(uri: &str) -> String {
    let (address, query) = uri.split_once('?').unwrap_or((uri, ""));
    let mut shown = match address.split_once("://") {
        Some((scheme, rest)) => {
            let (who, place) = rest.rsplit_once('@').unwrap_or(("", rest));
            match who.split_once(':') {
                Some((user, _)) => format!("{scheme}://{user}:***@{place}"),
                None => address.to_owned(),
            }
        }
        None => address.to_owned(),
    };
    for (at, option) in query
        .split('&')
        .filter(|option| !option.is_empty())
        .enumerate()
    {
        shown.push(if at == 0 { '?' } else { '&' });
        match option.split_once('=') {
            Some((key, _)) if key.contains("password") || key.contains("secret") => {
                shown.push_str(key);
                shown.push_str("=***");
            }
            _ => shown.push_str(option),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        for (uri, safe) in [
            (
                "sqlite:data/isimud.db?readers=2",
                "sqlite:data/isimud.db?readers=2",
            ),
            (
                "redis://:geheim@h:1/2?timeout_ms=5",
                "redis://:***@h:1/2?timeout_ms=5",
            ),
            ("rediss://me:a@b:c@h1,h2", "rediss://me:***@h1,h2"),
            (
                "redis://h?master=m&sentinel_password=x",
                "redis://h?master=m&sentinel_password=***",
            ),
        ] {
            assert_eq!(shown(uri), safe);
        }
    }
}
