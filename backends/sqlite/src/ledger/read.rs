//! Reading and listing what has a row.

use isimud_contract::{ByteCount, Marker, Message, MessageId, Page, PageRoom, Selection};
use rusqlite::{OptionalExtension, params};

use crate::ledger::Key;
use crate::ledger::queue::Record;
use crate::queue_log::{count_step, sum_of_step};
use crate::row::{Column, columns, read};
use crate::session::Session;
use crate::worker_thread::Outcome;

const GET: &str = concat!(
    "SELECT ",
    columns!("c.id"),
    " FROM ledger_row m LEFT JOIN ledger_claim c ON c.no = m.hold AND c.expires > ?3
     WHERE m.id = ?1 AND m.at >> 40 = ?2 AND m.expires > ?3 AND m.hold >= -1 AND m.at > ?4"
);

pub(crate) fn get(session: &mut Session, key: &Key, ids: &[MessageId]) -> Outcome<Vec<Message>> {
    let now = session.now();
    let Some(record) = Record::find(session, key)? else {
        return Ok(Ok(Vec::new()));
    };
    let mut statement = session.statement(GET)?;
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        let key = params![id.0.as_bytes(), record.no, now.0, record.purged];
        let message = statement.query_row(key, |row| read(row, &record.numbering, now));
        found.extend(message.optional()?);
    }
    Ok(Ok(found))
}

/// Free messages, and of two more kinds the first of each, then the first of all: delayed ones (all of them, or those
/// that have become due), and those whose claim has ended. What is gone is passed by.
macro_rules! list_unclaimed {
    ($delayed:literal) => {
        concat!(
            "SELECT ", columns!("NULL"), " FROM ledger_row m WHERE m.at IN (
                SELECT at FROM (SELECT at FROM ledger_row INDEXED BY ledger_by_hold
                    WHERE hold = 0 AND at > ?1 AND at <= ?2 AND expires > ?3 AND client IS NOT ?4 ORDER BY at LIMIT ?5)
                UNION ALL SELECT at FROM (SELECT h.at FROM ", $delayed, "
                    AND h.at > ?1 AND h.at <= ?2 AND h.expires > ?3 AND h.client IS NOT ?4 ORDER BY h.at LIMIT ?5)
                UNION ALL SELECT at FROM (SELECT h.at FROM ledger_claim c CROSS JOIN ledger_row h
                    INDEXED BY ledger_by_hold ON h.hold = c.no WHERE c.expires <= ?3 AND h.at > ?1 AND h.at <= ?2
                    AND h.expires > ?3 AND h.client IS NOT ?4 ORDER BY h.at LIMIT ?5))
             ORDER BY m.at LIMIT ?5"
        )
    };
}

const LIST_WITH_DELAYED: &str =
    list_unclaimed!("ledger_row h INDEXED BY ledger_by_hold WHERE h.hold = -1");

const LIST_WITH_DUE: &str = list_unclaimed!(
    "ledger_delay d CROSS JOIN ledger_row h ON h.at = d.at WHERE d.due <= ?3 AND h.hold = -1"
);

/// Everything, with or without delayed messages.
const LIST_ALL: &str = concat!(
    "SELECT ",
    columns!("c.id"),
    " FROM ledger_row m INDEXED BY ledger_live LEFT JOIN ledger_claim c ON c.no = m.hold AND c.expires > ?3
     WHERE m.hold >= -1 AND m.at > ?1 AND m.at <= ?2 AND m.expires > ?3 AND m.client IS NOT ?4
       AND (?6 OR m.hold <> -1 OR m.due <= ?3) ORDER BY m.at LIMIT ?5"
);

pub(crate) fn list(session: &mut Session, key: &Key, selection: &Selection) -> Outcome<Page> {
    let now = session.now();
    let Some(record) = Record::find(session, key)? else {
        return Ok(Ok(Page::default()));
    };
    let after = position(session, &record, selection.after)?;
    let sql = match (selection.include_claimed, selection.include_delayed) {
        (true, _) => LIST_ALL,
        (false, true) => LIST_WITH_DELAYED,
        (false, false) => LIST_WITH_DUE,
    };
    let mut statement = session.statement(sql)?;
    statement.raw_bind_parameter(1, after)?;
    statement.raw_bind_parameter(2, record.numbering.unnumbered() - 1)?;
    statement.raw_bind_parameter(3, now.0)?;
    statement.raw_bind_parameter(4, selection.not_from.as_ref().map(Column))?;
    statement.raw_bind_parameter(5, i64::try_from(selection.limit).unwrap_or(i64::MAX))?;
    if selection.include_claimed {
        statement.raw_bind_parameter(6, selection.include_delayed)?;
    }
    let mut rows = statement.raw_query();
    let (mut page, mut room) = (Page::default(), PageRoom::default());
    while let Some(row) = rows.next()? {
        let message = read(row, &record.numbering, now)?;
        if !room.takes(&message) {
            page.is_cut = true;
            break;
        }
        page.marker = message.arrival.number().map(Marker::Arrival);
        page.messages.push(message);
    }
    Ok(Ok(page))
}

const COUNT_BYTES: &str = sum_of_step!("ledger_row INDEXED BY ledger_live", "hold >= -1");

pub(crate) fn count_bytes(
    session: &mut Session,
    key: &Key,
    after: Option<u64>,
) -> Outcome<ByteCount> {
    let now = session.now();
    let Some(record) = Record::find(session, key)? else {
        return Ok(Ok(ByteCount::default()));
    };
    let after = position(session, &record, after.map(Marker::Arrival))?;
    let last = record.numbering.unnumbered() - 1;
    count_step(
        session,
        COUNT_BYTES,
        &record.numbering,
        [after, last, now.0],
    )
}

/// The row after which a listing starts: never one from before the last purge.
fn position(session: &Session, record: &Record, marker: Option<Marker>) -> rusqlite::Result<i64> {
    let row = match marker {
        None => None,
        Some(Marker::Arrival(number)) => Some(record.numbering.row_behind(number)),
        Some(Marker::Message(id)) => session
            .statement(
                "SELECT at FROM ledger_row WHERE id <= ? AND at >> 40 = ? ORDER BY id DESC LIMIT 1",
            )?
            .query_row(params![id.0.as_bytes(), record.no], |row| row.get(0))
            .optional()?,
    };
    Ok(row
        .filter(|row| (record.purged..=record.last_row()).contains(row))
        .unwrap_or(record.purged))
}
