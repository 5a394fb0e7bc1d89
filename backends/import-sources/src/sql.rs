//! A Zaqar's queues where SQL keeps them (spec: redis-layout.md 8): an SQLite file, or a dump as `sqlite3 .dump` and
//! `mysqldump` write it.

mod dump;

use std::path::Path;

use isimud_contract::{Error, ErrorKind, Metadata, Result};
use rusqlite::{Connection, OpenFlags, types::ValueRef};

use crate::found::Refusal;

/// What an SQLite file begins with.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// What SQL management knows.
#[derive(Debug, Default, PartialEq)]
pub struct SqlManagement {
    /// Projects, queues and their metadata.
    pub queues: Vec<(String, String, Metadata)>,
    /// Records that cannot be read.
    pub refused: Vec<Refusal>,
    /// The names of pools.
    pub pools: Vec<String>,
    /// The names of flavors.
    pub flavors: Vec<String>,
}

/// A value of a row: bytes, or nothing.
type Cell = Option<Vec<u8>>;

impl SqlManagement {
    /// Reads a file, which is not changed. `Invalid` when it is neither an SQLite file nor a dump of one.
    pub fn read(path: &Path) -> Result<Self> {
        let unreadable = |error: std::io::Error| {
            Error::invalid("the management store's file cannot be read")
                .with("file", path.display())
                .caused_by(error)
        };
        let mut head = [0; MAGIC.len()];
        let mut file = std::fs::File::open(path).map_err(unreadable)?;
        let is_sqlite = std::io::Read::read_exact(&mut file, &mut head).is_ok() && head == *MAGIC;
        let mut found = Self::default();
        if is_sqlite {
            found.read_tables(path).map_err(|error| {
                Error::new(
                    ErrorKind::Invalid,
                    "the management store's file cannot be read",
                )
                .with("file", path.display())
                .caused_by(error)
            })?;
        } else {
            let text = std::fs::read(path).map_err(unreadable)?;
            dump::read(&text, |table, row| found.take(table, row)).map_err(|why| {
                Error::invalid(format!("the dump cannot be read: {why}"))
                    .with("file", path.display())
            })?;
        }
        Ok(found)
    }

    fn read_tables(&mut self, path: &Path) -> rusqlite::Result<()> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        for (table, columns) in dump::TABLES {
            let known: i64 = connection.query_row(
                "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?1",
                [table],
                |row| row.get(0),
            )?;
            if known == 0 {
                continue;
            }
            let sql = format!("SELECT {} FROM {table}", columns.join(", "));
            let mut statement = connection.prepare(&sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let mut cells = Vec::with_capacity(columns.len());
                for column in 0..columns.len() {
                    cells.push(match row.get_ref(column)? {
                        ValueRef::Null => None,
                        ValueRef::Integer(number) => Some(number.to_string().into_bytes()),
                        ValueRef::Real(number) => Some(number.to_string().into_bytes()),
                        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes.to_vec()),
                    });
                }
                self.take(table, cells);
            }
        }
        Ok(())
    }

    /// Takes a row, whose cells are in the order of [`dump::TABLES`].
    fn take(&mut self, table: &str, mut row: Vec<Cell>) {
        row.resize(4, None);
        if let Some(name) = unreadable(table, &row) {
            self.refused
                .push(Refusal::new(name, "its name is not UTF-8"));
            return;
        }
        let mut text = |at: usize| {
            let bytes = row[at].take().unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        match table {
            "Queues" => {
                let (_, project, name, metadata) = (text(0), text(1), text(2), text(3));
                let read = match metadata.trim() {
                    "" | "null" => Some(Metadata::new()),
                    written => crate::json::metadata(written),
                };
                let metadata = read.unwrap_or_else(|| {
                    let what = format!("metadata of {project}/{name}");
                    self.refused.push(Refusal::new(
                        what,
                        "they are no JSON object that the API takes",
                    ));
                    Metadata::new()
                });
                self.queues.push((project, name, metadata));
            }
            "Pools" => self.pools.push(text(0)),
            _ => self.flavors.push(text(0)),
        }
    }
}

/// What a row is of whose names are not UTF-8, with escapes.
fn unreadable(table: &str, row: &[Cell]) -> Option<String> {
    let names = match table {
        "Queues" => row.get(1..3)?,
        _ => row.get(..1)?,
    };
    let names: Vec<&[u8]> = names
        .iter()
        .map(|cell| cell.as_deref().unwrap_or_default())
        .collect();
    if names.iter().all(|name| std::str::from_utf8(name).is_ok()) {
        return None;
    }
    let names: Vec<String> = names
        .iter()
        .map(|name| name.escape_ascii().to_string())
        .collect();
    let kind = match table {
        "Queues" => "queue",
        "Pools" => "pool",
        _ => "flavor",
    };
    Some(format!("{kind} {}", names.join("/")))
}
