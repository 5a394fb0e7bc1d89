//! What ends by itself in the ledger, in bounded steps. Reading and judging never depend on it.

use std::collections::BTreeMap;

use isimud_contract::{Arrival, Timestamp};
use rusqlite::params;

use crate::ledger::claims::free_all;
use crate::ledger::queue::Record;
use crate::ledger::row::{DELAYED, EXPIRED, give_number};
use crate::numbering::ARRIVAL_BITS;
use crate::session::Session;

/// Rows that one step touches, at the most (a step may finish the claim that it began).
const STEP: i64 = 500;

/// One step: claims that have ended, delays that have passed, messages whose life is over, purged bodies.
pub(crate) fn sweep(session: &mut Session, now: Timestamp) -> rusqlite::Result<()> {
    if session.ledger_end > now.0 {
        return Ok(());
    }
    let all_done = end_claims(session, now)?
        & end_delays(session, now)?
        & expire(session, now)?
        & number_unnoted(session, now)?
        & strip_purged(session)?;
    if all_done {
        session.ledger_end = next_end(session)?;
    }
    Ok(())
}

/// When something next ends.
fn next_end(session: &Session) -> rusqlite::Result<i64> {
    session
        .statement(
            "SELECT min(coalesce((SELECT min(expires) FROM ledger_claim), ?1),
                        coalesce((SELECT min(due) FROM ledger_delay), ?1),
                        coalesce((SELECT min(until) FROM ledger_unnoted), ?1),
                        coalesce((SELECT min(expires) FROM ledger_row), ?1))",
        )?
        .query_row([i64::MAX], |row| row.get(0))
}

fn whole(found: usize) -> bool {
    i64::try_from(found).is_ok_and(|found| found < STEP)
}

/// Returns whether all of them are done.
fn end_claims(session: &Session, now: Timestamp) -> rusqlite::Result<bool> {
    let ended: Vec<(i64, i64, i64)> = session
        .statement(
            "SELECT no, queue, era FROM ledger_claim WHERE expires <= ? ORDER BY expires LIMIT ?",
        )?
        .query_map([now.0, STEP], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut freed = 0;
    for (no, queue, epoch) in &ended {
        if freed >= STEP {
            return Ok(false);
        }
        let rows = free_all(session, *no)?;
        freed += rows;
        session
            .statement("UPDATE ledger_queue SET held = held - ? WHERE no = ? AND era = ?")?
            .execute([rows, *queue, *epoch])?;
    }
    Ok(whole(ended.len()))
}

/// Returns whether all of them are done.
fn end_delays(session: &Session, now: Timestamp) -> rusqlite::Result<bool> {
    let due: Vec<(i64, i64)> = session
        .statement("SELECT due, at FROM ledger_delay WHERE due <= ? ORDER BY due LIMIT ?")?
        .query_map([now.0, STEP], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (due, at) in &due {
        session
            .statement("UPDATE ledger_row SET hold = 0 WHERE at = ? AND hold = -1 AND due <= ?")?
            .execute([*at, now.0])?;
        session
            .statement("DELETE FROM ledger_delay WHERE due = ? AND at = ?")?
            .execute([due, at])?;
    }
    Ok(whole(due.len()))
}

/// Numbers what nobody has recorded in time, in the order in which it was delivered: whoever posted it is gone, and the
/// message is there. Returns whether all of them are done.
fn number_unnoted(session: &Session, now: Timestamp) -> rusqlite::Result<bool> {
    let mut waiting: Vec<i64> = session
        .statement("SELECT at FROM ledger_unnoted WHERE until <= ? ORDER BY until, at LIMIT ?")?
        .query_map([now.0, STEP], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    waiting.sort_unstable();
    for at in &waiting {
        if let Some(mut record) = Record::by_number(session, at >> ARRIVAL_BITS)?
            && record.has_room(1)
        {
            give_number(session, &mut record, *at, Arrival::default())?;
            record.keep(session)?;
        } else {
            session
                .statement("DELETE FROM ledger_unnoted WHERE at = ?")?
                .execute([at])?;
        }
    }
    Ok(whole(waiting.len()))
}

/// Deletes rows that are over, and makes those of ended messages bare whose copies may live on. Returns whether all of
/// them are done.
fn expire(session: &Session, now: Timestamp) -> rusqlite::Result<bool> {
    let expired: Vec<(i64, i64, i64)> = session
        .statement(
            "SELECT at, hold, ends FROM ledger_row WHERE expires <= ? ORDER BY expires LIMIT ?",
        )?
        .query_map([now.0, STEP], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut records = BTreeMap::new();
    for (at, hold, ends) in &expired {
        let no = at >> ARRIVAL_BITS;
        if let std::collections::btree_map::Entry::Vacant(entry) = records.entry(no) {
            entry.insert(Record::by_number(session, no)?);
        }
        let record = records.get_mut(&no).and_then(Option::as_mut);
        if let Some(record) = record.filter(|record| *hold >= DELAYED && *at > record.purged) {
            record.lose(*hold);
        }
        if *ends > now.0 {
            bare(session, *at)?;
        } else {
            session
                .statement("DELETE FROM ledger_row WHERE at = ?")?
                .execute([at])?;
        }
    }
    for record in records.into_values().flatten() {
        record.keep(session)?;
        forget(session, &record)?;
    }
    Ok(whole(expired.len()))
}

/// What a row keeps of a message that is over: that its copies are gone.
fn bare(session: &Session, at: i64) -> rusqlite::Result<()> {
    session
        .statement(
            "UPDATE ledger_row SET hold = ?, expires = ends, receipt = NULL, headers = NULL, body = x'' WHERE at = ?",
        )?
        .execute([EXPIRED, at])?;
    Ok(())
}

/// Forgets a purged queue when its last row is gone: nothing is known of it any more that somebody could ask for. A
/// server that remembers its epoch is told of another one, and posts once more.
fn forget(session: &Session, record: &Record) -> rusqlite::Result<()> {
    let first = record.no << ARRIVAL_BITS;
    if record.purged == first {
        return Ok(());
    }
    session
        .statement(
            "DELETE FROM ledger_queue WHERE no = ?1
             AND NOT EXISTS (SELECT 1 FROM ledger_row WHERE at > ?2 AND at <= ?3)
             AND NOT EXISTS (SELECT 1 FROM ledger_purged WHERE no = ?1)",
        )?
        .execute([record.no, first, record.last_row()])?;
    Ok(())
}

/// Takes the bodies from purged rows. Returns whether all of them are done.
fn strip_purged(session: &Session) -> rusqlite::Result<bool> {
    let purged: Option<(i64, i64)> = {
        use rusqlite::OptionalExtension as _;
        session
            .statement("SELECT no, upto FROM ledger_purged ORDER BY no LIMIT 1")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?
    };
    let Some((no, upto)) = purged else {
        return Ok(true);
    };
    if strip(session, no, upto)?
        && let Some(record) = Record::by_number(session, no)?
    {
        forget(session, &record)?;
    }
    Ok(false)
}

/// Takes the bodies from some of the rows of a queue that were purged. Returns whether all of them are done now; then no
/// position in the queue is one of purged rows any more.
pub(super) fn strip_queue(session: &Session, no: i64) -> rusqlite::Result<bool> {
    use rusqlite::OptionalExtension as _;
    let upto: Option<i64> = session
        .statement("SELECT upto FROM ledger_purged WHERE no = ?")?
        .query_row([no], |row| row.get(0))
        .optional()?;
    upto.map_or(Ok(true), |upto| strip(session, no, upto))
}

fn strip(session: &Session, no: i64, upto: i64) -> rusqlite::Result<bool> {
    let rows: Vec<i64> = session
        .statement(
            "SELECT at FROM ledger_row INDEXED BY ledger_live WHERE hold >= -1 AND at > ? AND at <= ? ORDER BY at LIMIT ?",
        )?
        .query_map(params![no << ARRIVAL_BITS, upto, STEP], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for at in &rows {
        bare(session, *at)?;
    }
    let is_whole = whole(rows.len());
    if is_whole {
        session
            .statement("DELETE FROM ledger_purged WHERE no = ?")?
            .execute([no])?;
    }
    Ok(is_whole)
}
