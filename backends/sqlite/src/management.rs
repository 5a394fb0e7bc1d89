//! Queue records.

use isimud_contract::{
    Metadata, ProjectId, QueueKey, QueueName, QueueRecord, QueueSelection, read_metadata,
};
use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, params};
use uuid::Uuid;

use crate::lane::Outcome;
use crate::session::Session;

/// Records that room is made for before they are read.
const ROOM: usize = 200;

fn json(metadata: &Metadata) -> rusqlite::Result<String> {
    serde_json::to_string(metadata)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn read(row: &Row<'_>) -> rusqlite::Result<QueueRecord> {
    let name: String = row.get(0)?;
    let metadata: String = row.get(1)?;
    let damaged =
        |column, error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error);
    Ok(QueueRecord {
        name: QueueName::parse(&name).map_err(|error| damaged(0, error.into()))?,
        metadata: read_metadata(&metadata).map_err(|error| damaged(1, error.into()))?,
        version: row.get::<_, i64>(2)?.unsigned_abs(),
    })
}

pub(crate) fn create(
    session: &mut Session,
    queue: &QueueKey,
    metadata: &Metadata,
) -> Outcome<bool> {
    let created = session
        .statement(
            "INSERT OR IGNORE INTO queue (project, name, metadata, version) VALUES (?, ?, ?, ?)",
        )?
        .execute(params![
            queue.project.as_str(),
            queue.name.as_str(),
            json(metadata)?,
            first_version(),
        ])?;
    Ok(Ok(created == 1))
}

/// Where a new queue begins to count: never where an earlier queue of that name was.
fn first_version() -> i64 {
    let (random, _) = Uuid::new_v4().as_u64_pair();
    (random >> 2).cast_signed()
}

pub(crate) fn find(session: &mut Session, queue: &QueueKey) -> Outcome<Option<QueueRecord>> {
    let found = session
        .statement("SELECT name, metadata, version FROM queue WHERE project = ? AND name = ?")?
        .query_row(params![queue.project.as_str(), queue.name.as_str()], read)
        .optional()?;
    Ok(Ok(found))
}

pub(crate) fn update(
    session: &mut Session,
    queue: &QueueKey,
    metadata: &Metadata,
    version: u64,
) -> Outcome<Option<u64>> {
    let Ok(old) = i64::try_from(version) else {
        return Ok(Ok(None));
    };
    let changed = session
        .statement("UPDATE queue SET metadata = ?, version = version + 1 WHERE project = ? AND name = ? AND version = ?")?
        .execute(params![json(metadata)?, queue.project.as_str(), queue.name.as_str(), old])?;
    Ok(Ok((changed == 1).then_some(version + 1)))
}

pub(crate) fn delete(session: &mut Session, queue: &QueueKey) -> Outcome<bool> {
    let deleted = session
        .statement("DELETE FROM queue WHERE project = ? AND name = ?")?
        .execute(params![queue.project.as_str(), queue.name.as_str()])?;
    Ok(Ok(deleted == 1))
}

pub(crate) fn list(
    session: &mut Session,
    project: &ProjectId,
    selection: &QueueSelection,
) -> Outcome<Vec<QueueRecord>> {
    let mut statement = session.statement(
        "SELECT name, metadata, version FROM queue
         WHERE project = ?1 AND name > ?2 AND (?3 IS NULL OR instr(name, ?3) > 0) ORDER BY name",
    )?;
    let after = selection.after.as_deref().unwrap_or("");
    let mut rows = statement.query(params![project.as_str(), after, selection.name_contains])?;
    let mut found = Vec::with_capacity(selection.limit.min(ROOM));
    while found.len() < selection.limit
        && let Some(row) = rows.next()?
    {
        let record = read(row)?;
        if selection
            .filters
            .iter()
            .all(|filter| filter.matches(&record.metadata))
        {
            found.push(record);
        }
    }
    Ok(Ok(found))
}

pub(crate) fn count(session: &mut Session, project: &ProjectId) -> Outcome<u64> {
    let count: i64 = session
        .statement("SELECT count(*) FROM queue WHERE project = ?")?
        .query_row([project.as_str()], |row| row.get(0))?;
    Ok(Ok(count.unsigned_abs()))
}
