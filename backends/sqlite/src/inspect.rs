//! Finds out what opening a store would, without opening it.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use isimud_contract::{Error, ErrorKind, Result};
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{Access, access};

use crate::config::{Config, Location};
use crate::error::from_sqlite;
use crate::{schema, wal};

/// Says what opening the store would be refused for, as [`SqliteStore::open`](crate::SqliteStore::open) does, or what is
/// worth knowing of it: nothing is made or changed. A store that a server has open cannot be looked at, and is right.
pub fn inspect(config: &Config) -> Result<Option<&'static str>> {
    let Location::File(path) = &config.location else {
        return Ok(None);
    };
    look(path, config).map_err(|error| error.with("file", path.display()))
}

fn look(path: &Path, config: &Config) -> Result<Option<&'static str>> {
    let in_folder = "cannot write to the folder of the embedded store";
    let folder = Access::WRITE_OK | Access::EXEC_OK;
    let Ok(found) = fs::metadata(path) else {
        let path = std::path::absolute(path).map_err(|error| unusable(in_folder, error))?;
        let mut above = path.ancestors().skip(1);
        let there = above.find(|folder| folder.exists());
        let there = there.unwrap_or(Path::new("/"));
        may(there, folder, in_folder)?;
        if !there.is_dir() {
            return Err(refused(in_folder));
        }
        return Ok(Some(
            "the embedded store is not there yet, and would be made",
        ));
    };
    if !found.is_file() {
        return Err(refused("the embedded store is no file"));
    }
    let read_write = Access::READ_OK | Access::WRITE_OK;
    may(
        path,
        read_write,
        "the file of the embedded store cannot be written",
    )?;
    let path = fs::canonicalize(path).map_err(|error| unusable(in_folder, error))?;
    may(path.parent().unwrap_or(&path), folder, in_folder)?;
    let file = File::open(&path)
        .map_err(|error| unusable("cannot open the file of the embedded store", error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Ok(Some("the embedded store is in use by a server that runs"));
        }
        Err(TryLockError::Error(error)) => {
            return Err(unusable("cannot lock the embedded store", error));
        }
    }
    // As if nobody could change it: SQLite makes nothing beside it then.
    let uri = format!("file:{}?immutable=1", encoded(&path));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(uri, flags).map_err(|error| from_sqlite(&error))?;
    schema::identify(&connection)?;
    if !wal::is_there(&path) && !config.accept_missing_log {
        wal::refuse_torn(&connection, &file)?;
    }
    Ok(None)
}

fn may(path: &Path, what: Access, sentence: &'static str) -> Result<()> {
    access(path, what).map_err(|error| unusable(sentence, error.into()))
}

fn refused(sentence: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, sentence)
}

fn unusable(sentence: &'static str, error: std::io::Error) -> Error {
    refused(sentence).caused_by(error)
}

/// A path as SQLite reads it in a URI.
fn encoded(path: &Path) -> String {
    let mut text = String::new();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => text.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => text.push(char::from(*byte)),
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_opening_would_find_is_said_and_nothing_is_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let location = |name: &str| Config::file(folder.path().join(name));
        let said = inspect(&location("a/b/isimud.db")).expect("it can be made");
        assert!(said.is_some_and(|said| said.contains("not there yet")));
        fs::write(folder.path().join("text"), "not a database".repeat(100)).expect("a file");
        let refusal = |name: &str| inspect(&location(name)).expect_err(name).to_string();
        assert!(refusal("text").contains("not an SQLite database"));
        assert!(refusal("text/isimud.db").contains("cannot write to the folder"));
        assert!(refusal(".").contains("no file"));
        let names = || fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(names(), 1);

        let store = schema::open(&location("odd ?#%.db")).expect("a store");
        let said = inspect(&location("odd ?#%.db")).expect("it is open");
        assert!(said.is_some_and(|said| said.contains("in use by a server")));
        drop(store);
        let before = names();
        assert_eq!(inspect(&location("odd ?#%.db")).expect("it is right"), None);
        assert_eq!(names(), before);
        assert_eq!(inspect(&Config::memory()).expect("it is right"), None);
    }
}
