//! A queue of the ledger: its number, where its rows stand, its counters and its epoch.

use isimud_contract::{Arrival, Epoch, MessageId, Stats, Timestamp};
use rusqlite::{OptionalExtension, Row, params};

use crate::ledger::Key;
use crate::ledger::sweep::strip_queue;
use crate::numbering::{ARRIVAL_BITS, Numbering, first_number};
use crate::queue_log::{LAST_NUMBER, count, read_stats_message};
use crate::session::Session;
use crate::worker_thread::Outcome;

/// A queue's record, as it is in the transaction. Changed counters are written by [`Record::keep`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    pub(crate) no: i64,
    pub(crate) numbering: Numbering,
    /// Live rows, ended ones included until they are swept.
    pub(crate) total: i64,
    /// Those of them that a claim holds, ended claims included until they are swept.
    pub(crate) held: i64,
    /// Rows up to this one are from before the last purge.
    pub(crate) purged: i64,
    pub(crate) epoch: i64,
}

impl Record {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let no = row.get(0)?;
        Ok(Self {
            no,
            numbering: Numbering {
                no,
                base: row.get(6)?,
                next: row.get(1)?,
            },
            total: row.get(2)?,
            held: row.get(3)?,
            purged: row.get(4)?,
            epoch: row.get(5)?,
        })
    }

    pub(crate) fn find(session: &Session, key: &Key) -> rusqlite::Result<Option<Self>> {
        session
            .statement(
                "SELECT no, next, total, held, purged, era, base FROM ledger_queue
                 WHERE scope = ? AND project = ? AND name = ?",
            )?
            .query_row(
                params![
                    &*key.scope,
                    key.queue.project.as_str(),
                    key.queue.name.as_str()
                ],
                Self::read,
            )
            .optional()
    }

    pub(crate) fn by_number(session: &Session, no: i64) -> rusqlite::Result<Option<Self>> {
        session
            .statement(
                "SELECT no, next, total, held, purged, era, base FROM ledger_queue WHERE no = ?",
            )?
            .query_row([no], Self::read)
            .optional()
    }

    /// The record of a queue, made now if need be, for a message that is to stand there.
    pub(crate) fn open(
        session: &Session,
        key: &Key,
        arrival: Option<Arrival>,
    ) -> rusqlite::Result<Self> {
        if let Some(record) = Self::find(session, key)? {
            return Ok(record);
        }
        // A number is used again when its record is gone, which no row outlives; so the lowest free one will do.
        let no: i64 = session
            .statement(
                "SELECT CASE WHEN (SELECT coalesce(max(no), 0) FROM ledger_queue) < ?1
                 THEN (SELECT coalesce(max(no), 0) + 1 FROM ledger_queue)
                 ELSE (SELECT min(no) + 1 FROM (SELECT 0 AS no UNION ALL SELECT no FROM ledger_queue) n
                       WHERE NOT EXISTS (SELECT 1 FROM ledger_queue WHERE no = n.no + 1)) END",
            )?
            .query_row([LAST_NUMBER], |row| row.get(0))?;
        if no > LAST_NUMBER {
            return Err(rusqlite::Error::IntegralValueOutOfRange(0, no));
        }
        let first = first_number(arrival.unwrap_or_default(), session.now(), 0);
        let record = Self {
            no,
            numbering: Numbering::starting(no, first),
            total: 0,
            held: 0,
            purged: no << ARRIVAL_BITS,
            epoch: begin_era(session)?,
        };
        session
            .statement(
                "INSERT INTO ledger_queue (no, scope, project, name, next, total, held, purged, era, base)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                no,
                &*key.scope,
                key.queue.project.as_str(),
                key.queue.name.as_str(),
                record.numbering.next,
                record.total,
                record.held,
                record.purged,
                record.epoch,
                record.numbering.base
            ])?;
        Ok(record)
    }

    /// Writes the counters.
    pub(crate) fn keep(&self, session: &Session) -> rusqlite::Result<()> {
        session
            .statement("UPDATE ledger_queue SET next = ?, total = ?, held = ? WHERE no = ?")?
            .execute([self.numbering.next, self.total, self.held, self.no])?;
        Ok(())
    }

    /// The last row number that can be the queue's.
    pub(crate) fn last_row(&self) -> i64 {
        self.no << ARRIVAL_BITS | ((1 << ARRIVAL_BITS) - 1)
    }

    /// Takes the row number of a message that has no row.
    pub(crate) fn take_row(
        &mut self,
        session: &Session,
        id: MessageId,
        arrival: Arrival,
    ) -> rusqlite::Result<i64> {
        let now = session.now();
        let row = match arrival {
            Arrival::After(number) => return Ok(self.numbering.take_row(now, number)),
            Arrival::At(number) => self.numbering.row(number),
        };
        if let Some(row) = row
            && (row > self.purged || self.opens_up_to(session, row)?)
            && !is_taken(session, row, id)?
        {
            self.numbering.note_row(row);
            return Ok(row);
        }
        Ok(self.numbering.take_row(now, 0))
    }

    /// Has messages stand at a position again that a purge has emptied, as those do that come back to a store where they
    /// were before. `false` while there is so much that was purged that a row there would be taken for a part of it.
    fn opens_up_to(&mut self, session: &Session, row: i64) -> rusqlite::Result<bool> {
        if !strip_queue(session, self.no)? {
            return Ok(false);
        }
        self.purged = row - 1;
        session
            .statement("UPDATE ledger_queue SET purged = ? WHERE no = ?")?
            .execute([self.purged, self.no])?;
        Ok(true)
    }

    /// Takes a row number for a message that gets its number of arrival later.
    pub(crate) fn take_unnumbered(&self, session: &Session) -> rusqlite::Result<i64> {
        let first = self.numbering.unnumbered();
        session
            .statement(
                "SELECT coalesce(max(at), ?1 - 1) + 1 FROM ledger_row WHERE at >= ?1 AND at <= ?2",
            )?
            .query_row([first, self.last_row()], |row| row.get(0))
    }

    /// Whether so many more messages can be numbered.
    pub(crate) fn has_room(&self, messages: usize) -> bool {
        self.numbering.has_room(messages)
    }

    /// Takes a live row out of the counters.
    pub(crate) fn lose(&mut self, hold: i64) {
        self.total -= 1;
        self.held -= i64::from(hold > 0);
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.unsigned_abs())
    }
}

/// Whether a row number is one of another message.
fn is_taken(session: &Session, row: i64, id: MessageId) -> rusqlite::Result<bool> {
    session
        .statement("SELECT EXISTS (SELECT 1 FROM ledger_row WHERE at = ? AND id <> ?)")?
        .query_row(params![row, id.0.as_bytes()], |row| row.get(0))
}

fn begin_era(session: &Session) -> rusqlite::Result<i64> {
    session
        .statement("UPDATE ledger_era SET last = last + 1 RETURNING last")?
        .query_row([], |row| row.get(0))
}

/// Takes as long for a million messages as for one: what stands up to `purged` is gone, and swept in the background.
///
/// A queue without a record needs none: whoever posts to it with the journal learns its epoch first, which makes one.
pub(crate) fn purge(session: &mut Session, key: &Key) -> Outcome<()> {
    let Some(mut record) = Record::find(session, key)? else {
        return Ok(Ok(()));
    };
    let upto = record.numbering.take_row(session.now(), 0);
    let epoch = begin_era(session)?;
    // What waits for its number stands behind everything, and is purged like everything.
    let (first, last) = (record.numbering.unnumbered(), record.last_row());
    session
        .statement(
            "UPDATE ledger_row SET hold = -3, expires = ends, receipt = NULL, headers = NULL, body = x''
             WHERE at >= ? AND at <= ? AND hold >= -1",
        )?
        .execute([first, last])?;
    session
        .statement(
            "UPDATE ledger_queue SET next = ?, total = 0, held = 0, purged = ?, era = ? WHERE no = ?",
        )?
        .execute([record.numbering.next, upto, epoch, record.no])?;
    session
        .statement(
            "INSERT INTO ledger_purged (no, upto) VALUES (?1, ?2) ON CONFLICT (no) DO UPDATE SET upto = ?2",
        )?
        .execute([record.no, upto])?;
    session.ledger_end = i64::MIN;
    Ok(Ok(()))
}

pub(crate) fn stats(session: &mut Session, key: &Key) -> Outcome<Stats> {
    let now = session.now();
    let Some(record) = Record::find(session, key)? else {
        return Ok(Ok(Stats::default()));
    };
    let (first, last) = (record.purged, record.last_row());
    // The counters include what has ended and is not swept yet; these two ranges are empty but for a moment.
    let (expired, expired_held): (i64, i64) = session
        .statement(
            "SELECT count(*), count(*) FILTER (WHERE hold > 0) FROM ledger_row INDEXED BY ledger_by_expiry
             WHERE expires <= ? AND hold >= -1 AND at > ? AND at <= ?",
        )?
        .query_row([now.0, first, last], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let released: i64 = session
        .statement(
            "SELECT count(*) FROM ledger_claim c CROSS JOIN ledger_row m ON m.hold = c.no
             WHERE c.expires <= ?1 AND c.queue = ?2 AND c.era = ?3 AND m.expires > ?1",
        )?
        .query_row([now.0, record.no, record.epoch], |row| row.get(0))?;
    let total = record.total - expired;
    let claimed = record.held - expired_held - released;
    let (oldest, newest) = if total > 0 {
        (
            edge(session, &record, now, "ASC")?,
            edge(session, &record, now, "DESC")?,
        )
    } else {
        (None, None)
    };
    Ok(Ok(Stats {
        free: count(total - claimed),
        claimed: count(claimed),
        oldest,
        newest,
        last_arrival: record.numbering.last_number(),
    }))
}

fn edge(
    session: &Session,
    record: &Record,
    now: Timestamp,
    order: &str,
) -> rusqlite::Result<Option<isimud_contract::StatsMessage>> {
    let sql = format!(
        "SELECT id, posted FROM ledger_row INDEXED BY ledger_live
         WHERE hold >= -1 AND at > ? AND at <= ? AND expires > ? ORDER BY at {order} LIMIT 1"
    );
    session
        .statement(&sql)?
        .query_row([record.purged, record.last_row(), now.0], |row| {
            read_stats_message(row, now)
        })
        .optional()
}
