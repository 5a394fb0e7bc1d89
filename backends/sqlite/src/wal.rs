//! The log beside the file (`-wal`): when it is written back into the file, and how a copy without it is recognised.
//!
//! What is committed goes to the log first. A file that was copied without its log while a server had it open looks like
//! a whole store that is old, or empty. So the file says of itself whether it is whole (the table `file`), in a way that
//! tells the two kinds of copies apart:
//!
//! ```text
//! 1  commit "not whole"     to the log
//! 2  write the log back     the file says "not whole" from now on, until it is closed
//! 3  commit "whole"         to the log, where it stays until the next time
//! ```
//!
//! Whoever copies through SQLite (`VACUUM INTO`, its backup command) reads the log as well and gets "whole"; whoever
//! copies the file alone gets "not whole". A store that is closed writes all of the log back and is whole. A killed server
//! leaves its log, and a store that has its log is not asked. While a backup that lasts keeps the log from being written back
//! to its end, the file may say "whole" until it can be.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use isimud_contract::{Error, ErrorKind, Result};
use rusqlite::{Connection, OptionalExtension};

use crate::lock::beside;

/// Bytes of a page of the log, with what stands before each page.
pub(crate) const PAGE: u64 = 4096 + 24;

/// How much of the log is written back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteBack {
    /// What no reader needs, without waiting for any.
    Some,
    /// All of it; then the log gives its space back.
    All,
}

impl WriteBack {
    fn pragma(self) -> &'static str {
        match self {
            Self::Some => "PRAGMA wal_checkpoint(PASSIVE)",
            Self::All => "PRAGMA wal_checkpoint(TRUNCATE)",
        }
    }
}

/// Pages of the log, as SQLite told after the last commit.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogLength(Arc<AtomicI32>);

impl LogLength {
    /// Listens to the commits of a connection, which writes nothing back by itself any more.
    pub(crate) fn watch(connection: &mut Connection) -> rusqlite::Result<Self> {
        let length = Self::default();
        let told = length.clone();
        connection.wal_hook(Some(move |_: &mut _, pages| {
            told.0.store(pages, Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(length)
    }

    pub(crate) fn pages(&self) -> i32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Writes the log back, so that the file says that it is not whole without the rest. Returns whether all of it was.
pub(crate) fn write_back(connection: &Connection, how: WriteBack) -> rusqlite::Result<bool> {
    mark(connection, false)?;
    let done = write_back_unmarked(connection, how);
    mark(connection, true)?;
    done
}

/// The same where there is no room for the mark.
pub(crate) fn write_back_unmarked(
    connection: &Connection,
    how: WriteBack,
) -> rusqlite::Result<bool> {
    connection.query_row(how.pragma(), [], |row| {
        let (busy, pages, done): (bool, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(!busy && pages == done)
    })
}

fn mark(connection: &Connection, is_whole: bool) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE file SET is_whole = ?")?
        .execute([is_whole])
        .map(drop)
}

/// Whether there is a log beside the file. SQLite makes one when it opens a file, so this comes before.
pub(crate) fn is_there(path: &Path) -> bool {
    beside(path, "-wal").exists()
}

/// Refuses a file that was copied without its log: `Invalid`.
pub(crate) fn refuse_torn(connection: &Connection, file: &File) -> Result<()> {
    if !uses_log(file) || is_whole(connection).unwrap_or(true) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Invalid,
        "the file of the embedded store was in use when it was last written, and its log (the file with -wal at the end \
         of its name) is missing: copy both, or make copies with SQLite's backup command or VACUUM INTO; with the option \
         accept_missing_log=true it is opened without what the log had",
    ))
}

/// Whether a connection that used a log was the last to write the file (SQLite documentation, "Database File Format",
/// 1.3.3).
fn uses_log(file: &File) -> bool {
    let mut version = [0];
    let read = file.read_exact_at(&mut version, 18);
    read.is_ok() && version == [2]
}

/// What the file says of itself; `None` where it says nothing.
fn is_whole(connection: &Connection) -> Option<bool> {
    let found = connection.query_row("SELECT is_whole FROM file", [], |row| row.get(0));
    found.optional().ok().flatten()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::Config;
    use crate::schema::{self, Connections};

    /// An open store with a row that stands in the log alone, and copies of it.
    struct Setup {
        folder: tempfile::TempDir,
        store: Connections,
    }

    impl Setup {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let store = schema::open(&Config::file(folder.path().join("isimud.db")));
            let store = store.expect("a new store");
            let row =
                "INSERT INTO queue (project, name, metadata, version) VALUES ('p', 'q', '{}', 1)";
            store.writer.execute(row, []).expect("a row");
            Self { folder, store }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn copy(&self, endings: &[&str]) -> Config {
            for ending in endings {
                let name = |of: &str| self.path(&format!("{of}{ending}"));
                std::fs::copy(name("isimud.db"), name("copy.db")).expect("a copy");
            }
            Config::file(self.path("copy.db"))
        }
    }

    fn rows(config: &Config) -> i64 {
        let store = schema::open(config).expect("it is whole");
        let count = store
            .writer
            .query_row("SELECT count(*) FROM queue", [], |row| row.get(0));
        count.expect("a number")
    }

    fn refusal(config: &Config) -> String {
        let refused = schema::open(config).expect_err("it is torn");
        assert_eq!(refused.kind(), ErrorKind::Invalid);
        refused.to_string()
    }

    #[test]
    fn a_copy_of_an_open_store_without_its_log_is_refused_unless_it_is_accepted() {
        let setup = Setup::new();
        let copy = setup.copy(&[""]);
        let before = std::fs::read(setup.path("copy.db")).expect("its bytes");
        for _ in 0..2 {
            let sentence = refusal(&copy);
            assert!(sentence.contains("its log"), "{sentence}");
            assert!(sentence.contains("copy.db"), "{sentence}");
        }
        let seen = crate::inspect(&copy)
            .expect_err("a check says so")
            .to_string();
        assert_eq!(seen, refusal(&copy));
        assert_eq!(
            std::fs::read(setup.path("copy.db")).expect("its bytes"),
            before
        );
        let accepted = Config {
            accept_missing_log: true,
            ..copy.clone()
        };
        assert_eq!(rows(&accepted), 0);
        assert_eq!(rows(&copy), 0, "it was closed, and is whole");
    }

    #[test]
    fn a_copy_with_its_log_and_one_of_a_closed_store_are_whole() {
        let setup = Setup::new();
        assert_eq!(rows(&setup.copy(&["", "-wal"])), 1);
        let Setup { folder, store } = setup;
        drop(store);
        let (from, to) = (
            folder.path().join("isimud.db"),
            folder.path().join("late.db"),
        );
        std::fs::copy(from, &to).expect("a copy");
        assert_eq!(rows(&Config::file(to)), 1);
    }

    #[test]
    fn copies_that_sqlite_makes_of_an_open_store_are_whole() {
        let setup = Setup::new();
        let (vacuumed, saved) = (setup.path("vacuumed.db"), setup.path("saved.db"));
        let reader = Connection::open(setup.path("isimud.db")).expect("a second connection");
        let into = [vacuumed.display().to_string()];
        reader.execute("VACUUM INTO ?", into).expect("a copy");
        reader
            .backup("main", &saved, None::<fn(_)>)
            .expect("a backup");
        assert_eq!(rows(&Config::file(vacuumed)), 1);
        assert_eq!(rows(&Config::file(saved)), 1);
    }

    #[test]
    fn the_log_is_written_back_when_it_is_long_and_the_file_stays_marked() {
        let mut setup = Setup::new();
        let upkeep = setup.store.upkeep.as_mut().expect("a file has upkeep");
        let size = |path: PathBuf| std::fs::metadata(path).expect("a file").len();
        let file = setup.folder.path().join("isimud.db");
        let (before, limit) = (
            size(file.clone()),
            u64::try_from(upkeep.limit()).expect("pages"),
        );
        let body = "x".repeat(100_000);
        for number in 0..limit * PAGE / 100_000 + 10 {
            let row = "INSERT INTO queue (project, name, metadata, version) VALUES ('p', ?, ?, 1)";
            let values = (number.to_string(), &body);
            setup.store.writer.execute(row, values).expect("a row");
            upkeep.committed(&setup.store.writer);
        }
        assert!(size(file) > before + limit * 3000, "the file has grown");
        let log = size(setup.path("isimud.db-wal"));
        assert!(log < (limit + 100) * PAGE, "the log has {log} bytes");
        assert!(refusal(&setup.copy(&[""])).contains("its log"));
    }
}
