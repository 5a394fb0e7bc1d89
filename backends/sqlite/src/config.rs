//! How the store is opened.

use std::path::{Path, PathBuf};

use isimud_contract::{Error, Result};

/// The options of a URI.
pub const OPTIONS: &str =
    "synchronous, readers, cache_mib, reserve_mib, secure_delete, accept_missing_log";

/// What [`SqliteStore::open`](crate::SqliteStore::open) needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub(crate) location: Location,
    pub(crate) synchronous: Synchronous,
    pub(crate) readers: usize,
    pub(crate) cache_mib: u32,
    /// Space beside the file that is kept for deletes and claims when the disk is full.
    pub(crate) reserve_mib: u32,
    /// What is deleted is overwritten with zeros.
    pub(crate) secure_delete: bool,
    /// A file that was copied without its log is opened as it is.
    pub(crate) accept_missing_log: bool,
}

/// The reserve where nothing else is said.
const RESERVE_MIB: u32 = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    Memory,
    File(PathBuf),
}

/// What a commit waits for (SQLite documentation, "PRAGMA synchronous").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Synchronous {
    /// The log is on the disk: an acknowledged message survives a power cut.
    Full,
    /// The log is with the operating system: it survives a killed process, not a power cut.
    Normal,
}

impl Config {
    /// A store that is gone when it is closed.
    pub fn memory() -> Self {
        Self {
            location: Location::Memory,
            synchronous: Synchronous::Normal,
            readers: 0,
            cache_mib: 64,
            reserve_mib: 0,
            secure_delete: false,
            accept_missing_log: false,
        }
    }

    /// A store in one file, durable. The file and its folder are created when they are missing.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self {
            location: Location::File(path.into()),
            synchronous: Synchronous::Full,
            readers: 2,
            cache_mib: 64,
            reserve_mib: RESERVE_MIB,
            secure_delete: false,
            accept_missing_log: false,
        }
    }

    /// The file that the store is; `None` for one in memory.
    pub fn path(&self) -> Option<&Path> {
        match &self.location {
            Location::Memory => None,
            Location::File(path) => Some(path),
        }
    }

    /// Reads a pool's URI: `sqlite:PATH`, `sqlite:///PATH` or `sqlite::memory:`, with the options
    /// `synchronous=full|normal`, `readers=1..64`, `cache_mib=1..65536`, `reserve_mib=0..4096`,
    /// `secure_delete=true|false` and `accept_missing_log=true|false` as a query.
    pub fn parse(uri: &str) -> Result<Self> {
        let wrong = |why: String| Error::invalid(format!("{why} in the store URI '{uri}'"));
        let rest = uri
            .strip_prefix("sqlite:")
            .ok_or_else(|| wrong("the scheme is not 'sqlite:'".into()))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = path.strip_prefix("//").unwrap_or(path);
        let mut config = match path {
            "" => return Err(wrong("there is no path".into())),
            ":memory:" => Self::memory(),
            path => Self::file(path),
        };
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            let refused = || wrong(format!("'{value}' is not a value for the option '{key}'"));
            match key {
                "synchronous" => {
                    config.synchronous = match value {
                        "full" => Synchronous::Full,
                        "normal" => Synchronous::Normal,
                        _ => return Err(refused()),
                    }
                }
                "readers" => config.readers = number(value, 1..=64).ok_or_else(refused)? as usize,
                "cache_mib" => config.cache_mib = number(value, 1..=65_536).ok_or_else(refused)?,
                "reserve_mib" => {
                    config.reserve_mib = number(value, 0..=4096).ok_or_else(refused)?
                }
                "secure_delete" => config.secure_delete = value.parse().map_err(|_| refused())?,
                "accept_missing_log" => {
                    config.accept_missing_log = value.parse().map_err(|_| refused())?;
                }
                _ => {
                    return Err(wrong(format!(
                        "'{key}' is not one of the options {OPTIONS}"
                    )));
                }
            }
        }
        if config.location == Location::Memory {
            config.readers = 0;
            config.reserve_mib = 0;
        }
        Ok(config)
    }

    /// Whether both are one file, whatever it is called: links and mounts are followed. Memory is another one each time.
    pub fn is_location_of(&self, other: &Self) -> bool {
        match (&self.location, &other.location) {
            (Location::File(one), Location::File(other)) => {
                file_identity(one) == file_identity(other)
            }
            _ => false,
        }
    }
}

/// What a file is, whatever it is called: its device and number where it is there, else its name without links and dots.
fn file_identity(location: &Path) -> String {
    use std::os::unix::fs::MetadataExt;

    if let Ok(file) = std::fs::metadata(location) {
        return format!("{}:{}", file.dev(), file.ino());
    }
    let path = std::path::absolute(location).unwrap_or_else(|_| location.into());
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

fn number(text: &str, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
    text.parse().ok().filter(|number| range.contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_name_a_location_and_options() {
        let parsed = |uri| Config::parse(uri).expect(uri);
        assert_eq!(parsed("sqlite::memory:"), Config::memory());
        assert_eq!(
            parsed("sqlite:data/isimud.db"),
            Config::file("data/isimud.db")
        );
        assert_eq!(
            parsed("sqlite:///var/lib/isimud.db"),
            Config::file("/var/lib/isimud.db")
        );
        let tuned = parsed("sqlite:a.db?synchronous=normal&readers=4&cache_mib=8");
        assert_eq!(
            (tuned.synchronous, tuned.readers, tuned.cache_mib),
            (Synchronous::Normal, 4, 8)
        );
        let kept = parsed("sqlite:a.db?reserve_mib=0&secure_delete=true&accept_missing_log=true");
        assert_eq!(
            (
                kept.reserve_mib,
                kept.secure_delete,
                kept.accept_missing_log
            ),
            (0, true, true)
        );
    }

    #[test]
    fn what_is_wrong_with_a_uri_is_named() {
        for (uri, named) in [
            ("redis://x", "scheme"),
            ("sqlite:", "path"),
            ("sqlite:a?sync=full", "'sync'"),
            ("sqlite:a?readers=0", "'0'"),
            ("sqlite:a?synchronous=off", "'off'"),
            ("sqlite:a?reserve_mib=5000", "'5000'"),
            ("sqlite:a?secure_delete=1", "'1'"),
        ] {
            let error = Config::parse(uri).expect_err(uri).to_string();
            assert!(error.contains(named), "{uri}: {error}");
        }
    }
}
