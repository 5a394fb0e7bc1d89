//! Queue records, and which stores their messages are in.

use isimud_contract::{
    Kind, Metadata, Placement, ProjectId, QueueKey, QueueName, QueueRecord, QueueSelection,
    StoreId, read_metadata,
};
use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, params};
use uuid::Uuid;

use crate::session::Session;
use crate::worker_thread::Outcome;

/// Records that room is made for before they are read.
const ROOM: usize = 200;

pub(crate) fn json(metadata: &Metadata) -> rusqlite::Result<String> {
    serde_json::to_string(metadata)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// What is wrong with a column that no server of ours wrote so.
pub(crate) fn damaged(
    column: usize,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into())
}

fn read(row: &Row<'_>) -> rusqlite::Result<QueueRecord> {
    let name: String = row.get(0)?;
    let metadata: String = row.get(1)?;
    let placement = row.get_ref(3)?.as_str()?;
    Ok(QueueRecord {
        name: QueueName::parse_stored(&name).map_err(|error| damaged(0, error))?,
        metadata: read_metadata(&metadata).map_err(|error| damaged(1, error))?,
        version: row.get::<_, i64>(2)?.unsigned_abs(),
        placement: Placement::parse(placement).map_err(|error| damaged(3, error))?,
    })
}

/// A store as a column.
fn store_text(store_id: &StoreId) -> &str {
    match store_id {
        StoreId::Default => "",
        StoreId::Pool(name) => name.as_str(),
    }
}

/// Names between which the names of a kind are. `~` stands behind every character that a client can write.
fn bounds(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Queue => ("", "~"),
        Kind::Topic => ("~", "~~"),
    }
}

pub(crate) fn create(
    session: &mut Session,
    queue: &QueueKey,
    metadata: &Metadata,
    placement: &Placement,
) -> Outcome<bool> {
    let created = session
        .statement(
            "INSERT OR IGNORE INTO queue (project, name, metadata, version, place) VALUES (?, ?, ?, ?, ?)",
        )?
        .execute(params![
            queue.project.as_str(),
            queue.name.as_str(),
            json(metadata)?,
            first_version(),
            placement.to_text(),
        ])?;
    if created == 1 {
        enter(session, queue, placement)?;
    }
    Ok(Ok(created == 1))
}

/// Enters a queue under every store that it has messages in.
fn enter(session: &Session, queue: &QueueKey, placement: &Placement) -> rusqlite::Result<()> {
    for store_id in placement.store_ids() {
        session
            .statement("INSERT OR IGNORE INTO segment (home, project, name) VALUES (?, ?, ?)")?
            .execute([
                store_text(store_id),
                queue.project.as_str(),
                queue.name.as_str(),
            ])?;
    }
    Ok(())
}

/// Takes a queue out again.
fn leave(session: &Session, queue: &QueueKey, placement: &Placement) -> rusqlite::Result<()> {
    for store_id in placement.store_ids() {
        session
            .statement("DELETE FROM segment WHERE home = ? AND project = ? AND name = ?")?
            .execute([
                store_text(store_id),
                queue.project.as_str(),
                queue.name.as_str(),
            ])?;
    }
    Ok(())
}

/// Where a new record begins to count: never where an earlier one of that name was.
pub(crate) fn first_version() -> i64 {
    let (random, _) = Uuid::new_v4().as_u64_pair();
    (random >> 2).cast_signed()
}

pub(crate) fn find(session: &mut Session, queue: &QueueKey) -> Outcome<Option<QueueRecord>> {
    record(session, queue).map(Ok)
}

fn record(session: &Session, queue: &QueueKey) -> rusqlite::Result<Option<QueueRecord>> {
    session
        .statement(
            "SELECT name, metadata, version, place FROM queue WHERE project = ? AND name = ?",
        )?
        .query_row(params![queue.project.as_str(), queue.name.as_str()], read)
        .optional()
}

pub(crate) fn update(
    session: &mut Session,
    queue: &QueueKey,
    metadata: &Metadata,
    placement: &Placement,
    version: u64,
) -> Outcome<Option<u64>> {
    let old = record(session, queue)?.filter(|record| record.version == version);
    let Some(old) = old else {
        return Ok(Ok(None));
    };
    session
        .statement("UPDATE queue SET metadata = ?, version = version + 1, place = ? WHERE project = ? AND name = ?")?
        .execute(params![
            json(metadata)?,
            placement.to_text(),
            queue.project.as_str(),
            queue.name.as_str(),
        ])?;
    if old.placement != *placement {
        leave(session, queue, &old.placement)?;
        enter(session, queue, placement)?;
    }
    Ok(Ok(Some(version + 1)))
}

pub(crate) fn delete(session: &mut Session, queue: &QueueKey) -> Outcome<Option<QueueRecord>> {
    let Some(old) = record(session, queue)? else {
        return Ok(Ok(None));
    };
    session
        .statement("DELETE FROM queue WHERE project = ? AND name = ?")?
        .execute(params![queue.project.as_str(), queue.name.as_str()])?;
    leave(session, queue, &old.placement)?;
    Ok(Ok(Some(old)))
}

pub(crate) fn list(
    session: &mut Session,
    project: &ProjectId,
    selection: &QueueSelection,
) -> Outcome<Vec<QueueRecord>> {
    let mut statement = session.statement(
        "SELECT name, metadata, version, place FROM queue
         WHERE project = ?1 AND name > ?2 AND name < ?3
           AND (?4 IS NULL OR instr(ltrim(name, '~'), ?4) > 0) ORDER BY name",
    )?;
    let (first, end) = bounds(selection.kind);
    let after = first.to_owned() + selection.after.as_deref().unwrap_or("");
    let mut rows = statement.query(params![
        project.as_str(),
        after,
        end,
        selection.name_contains
    ])?;
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

pub(crate) fn count(session: &mut Session, project: &ProjectId, kind: Kind) -> Outcome<u64> {
    let (first, end) = bounds(kind);
    let count: i64 = session
        .statement("SELECT count(*) FROM queue WHERE project = ? AND name > ? AND name < ?")?
        .query_row([project.as_str(), first, end], |row| row.get(0))?;
    Ok(Ok(count.unsigned_abs()))
}

pub(crate) fn list_in(
    session: &mut Session,
    store_id: &StoreId,
    after: Option<&QueueKey>,
    limit: usize,
) -> Outcome<Vec<QueueKey>> {
    let (project, name) = match after {
        Some(after) => (after.project.as_str(), after.name.as_str()),
        None => ("", ""),
    };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let found = session
        .statement(
            "SELECT project, name FROM segment
             WHERE home = ? AND (project, name) > (?, ?) ORDER BY project, name LIMIT ?",
        )?
        .query_map(
            params![store_text(store_id), project, name, limit],
            read_key,
        )?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Ok(found))
}

fn read_key(row: &Row<'_>) -> rusqlite::Result<QueueKey> {
    let project = row.get_ref(0)?.as_str()?;
    let name = row.get_ref(1)?.as_str()?;
    Ok(QueueKey::new(
        ProjectId::parse(project).map_err(|error| damaged(0, error))?,
        QueueName::parse_stored(name).map_err(|error| damaged(1, error))?,
    ))
}
