//! Opens connections and brings the file to the present version.

use std::time::Duration;

use isimud_contract::{Error, ErrorKind, Result};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::config::{Config, Location, Synchronous};
use crate::error::from_sqlite;
use crate::lock::Lock;
use crate::reserve::Reserve;
use crate::upkeep::{self, Upkeep};
use crate::wal::{self, LogLength, WriteBack};

/// One file a version, applied in order, each in a transaction with the version's number.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/0001_first.sql"),
    include_str!("../migrations/0002_management.sql"),
    include_str!("../migrations/0003_ledger.sql"),
    include_str!("../migrations/0004_transfers.sql"),
    include_str!("../migrations/0005_file.sql"),
    include_str!("../migrations/0006_arrival.sql"),
];

/// Marks the file as ours ("Isim" in ASCII), so that another program's database is refused.
const APPLICATION_ID: i64 = 0x4973_696d;

/// How long another program, a backup say, may hold the file before calls are answered that it is locked.
const BUSY: Duration = Duration::from_secs(2);

/// Statements that a connection keeps prepared.
const STATEMENTS: usize = 128;

/// Every connection of an open store: the first may write.
#[derive(Debug)]
pub(crate) struct Connections {
    pub(crate) writer: Connection,
    pub(crate) readers: Vec<Connection>,
    /// Held while the store is open. The store keeps counters in memory, so a file has one server at a time.
    pub(crate) lock: Option<Lock>,
    /// What the writer does for the file.
    pub(crate) upkeep: Option<Upkeep>,
}

pub(crate) fn open(config: &Config) -> Result<Connections> {
    let Location::File(path) = &config.location else {
        let mut writer = Connection::open_in_memory().map_err(failed)?;
        prepare(&mut writer, config).map_err(failed)?;
        migrate(&mut writer, 0)?;
        return Ok(Connections {
            writer,
            readers: Vec::new(),
            lock: None,
            upkeep: None,
        });
    };
    let at = |error: Error| error.with("file", path.display());
    let lock = Lock::take(path).map_err(at)?;
    let has_log = wal::is_there(&lock.path);
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags(&lock.path, flags)
    };
    let open_known = || {
        let writer = open().map_err(failed)?;
        let version = identify(&writer)?;
        Ok((writer, version))
    };
    // Before anything that writes: a file that is not ours, or not whole, stays as it is.
    let known = open_known().or_else(|error: Error| match error.kind() {
        ErrorKind::Unavailable => {
            // SQLite needs some space beside the file to look into it.
            Reserve::give_old(&lock.path);
            open_known()
        }
        _ => Err(error),
    });
    let (mut writer, version) = known.map_err(at)?;
    if !has_log && !config.accept_missing_log {
        wal::refuse_torn(&writer, &lock.file).map_err(at)?;
    }
    let reserve = Reserve::open(&lock.path, u64::from(config.reserve_mib) << 20);
    let reserve = reserve.map_err(|error| {
        let sentence = "cannot keep a reserve beside the embedded store";
        at(Error::new(ErrorKind::Unavailable, sentence).caused_by(error))
    })?;
    prepare(&mut writer, config).map_err(failed).map_err(at)?;
    migrate(&mut writer, version).map_err(at)?;
    let log = LogLength::watch(&mut writer).map_err(failed).map_err(at)?;
    begin(&writer).map_err(failed).map_err(at)?;
    let upkeep = Upkeep::new(&lock.path, log, reserve);
    let reader = |_| {
        let mut connection = open()?;
        prepare(&mut connection, config)?;
        Ok(connection)
    };
    let readers = (0..config.readers)
        .map(reader)
        .collect::<rusqlite::Result<_>>()
        .map_err(failed)
        .map_err(at)?;
    Ok(Connections {
        writer,
        readers,
        lock: Some(lock),
        upkeep: Some(upkeep),
    })
}

/// Has the file say that it is not whole without its log, from now on. On a full disk it is opened as it is.
fn begin(writer: &Connection) -> rusqlite::Result<()> {
    match wal::write_back(writer, WriteBack::All) {
        Err(error) if upkeep::is_full(&error) => Ok(()),
        written => written.map(drop),
    }
}

fn failed(error: rusqlite::Error) -> Error {
    from_sqlite(&error)
}

fn prepare(connection: &mut Connection, config: &Config) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.busy_timeout(BUSY)?;
    // A plan does not depend on the values bound, so that a statement is compiled once and not for every call.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    let synchronous = match config.synchronous {
        Synchronous::Full => "FULL",
        Synchronous::Normal => "NORMAL",
    };
    if config.location == Location::Memory {
        // With every page in the cache, a commit's cost grows with their number: fewer, larger ones cost less. A
        // journal would copy each of them to undo what only a lack of memory can make fail (see `worker_thread`).
        connection.pragma_update(None, "page_size", 16_384)?;
        connection.pragma_update(None, "journal_mode", "OFF")?;
    } else {
        // It holds for a new file only, and only before anything is written to it.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // The log is written back by `upkeep`.
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        connection.pragma_update(None, "secure_delete", config.secure_delete)?;
    }
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -1024 * i64::from(config.cache_mib))
}

/// The version of a store that is ours; 0 for an empty file.
pub(crate) fn identify(connection: &Connection) -> Result<usize> {
    let number = |name: &str| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            .map_err(failed)
    };
    let (application, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed)?;
    if application != APPLICATION_ID && tables > 0 {
        return Err(Error::new(
            ErrorKind::Invalid,
            "the file is a database of another program",
        ));
    }
    let known = MIGRATIONS.len();
    usize::try_from(version).ok().filter(|version| *version <= known).ok_or_else(|| {
        let sentence = format!("the embedded store has version {version}, and this server knows versions up to {known}");
        Error::new(ErrorKind::Invalid, sentence)
    })
}

fn migrate(connection: &mut Connection, version: usize) -> Result<()> {
    for (at, script) in MIGRATIONS.iter().enumerate().skip(version) {
        apply(connection, script, at + 1).map_err(failed)?;
    }
    Ok(())
}

fn apply(connection: &mut Connection, script: &str, version: usize) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(script)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", version as i64)?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn refusal(path: &Path) -> String {
        open(&Config::file(path))
            .expect_err("the file must be refused")
            .to_string()
    }

    #[test]
    fn a_newer_database_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("isimud.db");
        let connections = open(&Config::file(&path)).expect("a new store");
        connections
            .writer
            .pragma_update(None, "user_version", 99)
            .expect("a newer version");
        drop(connections);
        assert!(refusal(&path).contains("version 99"));
        let version: i64 = Connection::open(&path)
            .and_then(|connection| {
                connection.pragma_query_value(None, "user_version", |row| row.get(0))
            })
            .expect("still a database");
        assert_eq!(version, 99);
    }

    #[test]
    fn a_store_of_the_first_version_is_brought_to_the_present_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("isimud.db");
        let mut old = Connection::open(&path).expect("a file");
        apply(&mut old, MIGRATIONS[0], 1).expect("the first version");
        old.execute(
            "INSERT INTO queue VALUES ('p', 'q', '{\"a\":1}', 7), ('p', 'r', '{}', 8)",
            [],
        )
        .expect("queues");
        drop(old);
        let present = open(&Config::file(&path)).expect("it opens").writer;
        let text = |sql: &str| -> Vec<String> {
            let mut statement = present.prepare(sql).expect("a statement");
            let rows = statement.query_map([], |row| row.get(0)).expect("rows");
            rows.map(|row| row.expect("a row")).collect()
        };
        assert_eq!(
            text("SELECT name || version || metadata || place FROM queue ORDER BY name"),
            ["q7{\"a\":1}", "r8{}"]
        );
        assert_eq!(
            text("SELECT home || '/' || project || '/' || name FROM segment ORDER BY name"),
            ["/p/q", "/p/r"]
        );
        assert_eq!(text("SELECT name FROM pool"), [""; 0]);
        drop(present);
        open(&Config::file(&path)).expect("it opens again");
    }

    #[test]
    fn foreign_files_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = folder.path().join("notes.txt");
        std::fs::write(
            &text,
            "not a database, and longer than the header of one is".repeat(20),
        )
        .expect("a file");
        assert!(refusal(&text).contains("not an SQLite database"));
        let foreign = folder.path().join("foreign.db");
        Connection::open(&foreign)
            .and_then(|c| c.execute_batch("CREATE TABLE t (x)"))
            .expect("a database");
        let before = std::fs::read(&foreign).expect("its bytes");
        assert!(refusal(&foreign).contains("another program"));
        assert_eq!(std::fs::read(&foreign).expect("its bytes"), before);
    }

    #[test]
    fn a_file_has_one_server_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/er/isimud.db");
        let first = open(&Config::file(&path)).expect("the folder is made");
        assert!(refusal(&path).contains("another pool"));
        drop(first);
        open(&Config::file(&path)).expect("the lock ends with the store");
    }
}
