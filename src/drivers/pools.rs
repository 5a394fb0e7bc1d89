//! How the stores of pools are opened.
//!
//! A store is a URI and, for a pool, options beside it. The options are added to the URI's query before the driver reads
//! it; where both name one, the pool's option holds. So a driver knows one form only, and checks it in one place. Options
//! that a driver does not know are left out, and the log tells: pools of other services that speak this API have some.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use isimud_contract::{Clock, Error, MessageStore, Metadata, Result};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;

use super::{Context, Ledgers, check_pool, driver, open, shared};
use crate::catalogue::{Opener, Shared};

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
pub(super) fn with_options(uri: &str, options: &Metadata) -> Result<String> {
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
}
