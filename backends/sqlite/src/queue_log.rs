//! The message side of a queue: its number, where its messages stand in the table, its counters.
//!
//! A message's row number is the queue log's number, then its arrival (see [`numbering`](crate::numbering)). The table
//! itself is therefore in the order of a listing, and no index is needed for it. A purge gives the queue a new queue
//! log number: it takes no longer for a million messages than for one, and what stood under the old one is swept in the
//! background. Numbers of arrival go on.

use std::ops::RangeInclusive;

use isimud_contract::{
    Arrival, ByteCount, Error, ErrorKind, MessageId, QueueKey, Stats, StatsMessage, Timestamp,
};
use rusqlite::{OptionalExtension, Row, params};
use uuid::Uuid;

use crate::numbering::{ARRIVAL_BITS, Numbering, first_number};
use crate::session::Session;
use crate::worker_thread::Outcome;

/// The largest queue log number: row numbers have 63 bits.
pub(crate) const LAST_NUMBER: i64 = (1 << (63 - ARRIVAL_BITS)) - 1;

/// A queue log's number and counters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueLog {
    pub(crate) no: i64,
    pub(crate) numbering: Numbering,
    /// Rows in the table, expired ones included until they are swept.
    pub(crate) total: i64,
    /// Those of them that a claim holds, ended claims included until they are swept.
    pub(crate) held: i64,
    /// No free and live message stands at this row or before it. Kept in memory only, so that what has expired in
    /// front is walked past once.
    pub(crate) low_watermark: i64,
}

impl QueueLog {
    pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let no = row.get(0)?;
        Ok(Self {
            no,
            numbering: Numbering {
                no,
                base: row.get(4)?,
                next: row.get(1)?,
            },
            total: row.get(2)?,
            held: row.get(3)?,
            low_watermark: 0,
        })
    }

    /// The row numbers that belong to the queue log.
    pub(crate) fn rows(&self) -> RangeInclusive<i64> {
        let first = self.no << ARRIVAL_BITS;
        first..=first | ((1 << ARRIVAL_BITS) - 1)
    }

    /// Where the first free message can stand.
    pub(crate) fn first_row(&self) -> i64 {
        (self.low_watermark + 1).max(*self.rows().start())
    }

    /// The row of the message that arrived last.
    pub(crate) fn last_row(&self) -> i64 {
        *self.rows().start() | (self.numbering.next - 1)
    }

    /// Counts rows that a claim held as free again, the first of them at `first`.
    pub(crate) fn freed(&mut self, rows: i64, first: i64) {
        self.held -= rows;
        self.low_watermark = self.low_watermark.min(first - 1);
    }

    /// The row of a message that is written now, and whether that is where it stood elsewhere: such a row may be taken.
    pub(crate) fn row_for(&mut self, arrival: Arrival, now: Timestamp) -> (i64, bool) {
        match arrival {
            Arrival::At(number) => match self.numbering.row(number) {
                Some(row) => (row, true),
                None => (self.numbering.take_row(now, 0), false),
            },
            Arrival::After(number) => (self.numbering.take_row(now, number), false),
        }
    }

    /// Counts a row that was written for a free message.
    pub(crate) fn count_free(&mut self, row: i64) {
        self.total += 1;
        self.numbering.note_row(row);
        self.low_watermark = self.low_watermark.min(row - 1);
    }

    /// Whether so many more messages can be numbered.
    pub(crate) fn has_room(&self, messages: usize) -> bool {
        self.numbering.has_room(messages)
    }
}

/// The queue log that a row belongs to.
pub(crate) fn number_of(row: i64) -> i64 {
    row >> ARRIVAL_BITS
}

/// The queue log of a queue, made now if need be, for a message that is to stand there.
pub(crate) fn open(
    session: &mut Session,
    queue: &QueueKey,
    arrival: Arrival,
) -> rusqlite::Result<QueueLog> {
    if let Some(log) = session.log(queue)? {
        return Ok(log);
    }
    let least: i64 = session
        .statement("SELECT least FROM arrival")?
        .query_row([], |row| row.get(0))?;
    let first = first_number(arrival, session.now(), least);
    make(session, queue, Numbering::starting(0, first))
}

/// Makes a queue log that is numbered in this way.
fn make(
    session: &mut Session,
    queue: &QueueKey,
    numbering: Numbering,
) -> rusqlite::Result<QueueLog> {
    session
        .statement(
            "INSERT INTO stream (project, name, next, total, held, base) VALUES (?, ?, ?, 0, 0, ?)",
        )?
        .execute(params![
            queue.project.as_str(),
            queue.name.as_str(),
            numbering.next,
            numbering.base
        ])?;
    let no = session.last_number();
    if no > LAST_NUMBER {
        recycle_number(session, no)?;
    }
    Ok(session.log(queue)?.unwrap_or(QueueLog {
        no,
        numbering: Numbering { no, ..numbering },
        total: 0,
        held: 0,
        low_watermark: 0,
    }))
}

/// After eight million purges: gives the queue log the lowest number that nothing stands under.
fn recycle_number(session: &Session, no: i64) -> rusqlite::Result<()> {
    let free: i64 = session
        .statement(
            "SELECT min(no) + 1 FROM (SELECT 0 AS no UNION ALL SELECT no FROM stream UNION ALL SELECT no FROM doomed) n
             WHERE NOT EXISTS (SELECT 1 FROM stream WHERE no = n.no + 1)
               AND NOT EXISTS (SELECT 1 FROM doomed WHERE no = n.no + 1)",
        )?
        .query_row([], |row| row.get(0))?;
    if free > LAST_NUMBER {
        return Err(rusqlite::Error::IntegralValueOutOfRange(0, free));
    }
    session
        .statement("DELETE FROM claim WHERE stream = ?")?
        .execute([free])?;
    session
        .statement("UPDATE stream SET no = ? WHERE no = ?")?
        .execute([free, no])?;
    Ok(())
}

/// Marks as purged the queue's queue log: its messages are gone. One that is purged gets another, in which its numbers
/// go on; of one that is deleted only its last number is known from now on, with all others.
pub(crate) fn mark_purged(
    session: &mut Session,
    queue: &QueueKey,
    is_deleted: bool,
) -> Outcome<()> {
    if let Some(log) = session.log(queue)? {
        if !is_deleted && log.total == 0 && log.numbering.is_fresh() {
            return Ok(Ok(()));
        }
        session
            .statement("DELETE FROM stream WHERE no = ?")?
            .execute([log.no])?;
        if is_deleted {
            session
                .statement("UPDATE arrival SET least = max(least, ?)")?
                .execute([log.numbering.base + log.numbering.next])?;
        }
        session
            .statement("INSERT INTO doomed (no) VALUES (?)")?
            .execute([log.no])?;
        session.forget(queue, log.no);
        session.next_expiry.purged = true;
        if !is_deleted {
            make(session, queue, log.numbering.behind(0))?;
        }
    }
    Ok(Ok(()))
}

/// The answer to a post that cannot be numbered any more.
pub(crate) fn full() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the queue has taken more messages than can be numbered; delete it to start again",
    )
}

pub(crate) fn stats(session: &mut Session, queue: &QueueKey) -> Outcome<Stats> {
    let now = session.now();
    let Some(log) = session.log(queue)? else {
        return Ok(Ok(Stats::default()));
    };
    let (first, last) = log.rows().into_inner();
    // The counters include what has ended and is not swept yet; these two ranges are empty but for a moment.
    let (expired, expired_held) = expired(session, &log, now)?;
    let released: i64 = session
        .statement(
            "SELECT count(*) FROM claim CROSS JOIN message ON message.hold = claim.no
             WHERE claim.expires <= ?1 AND claim.stream = ?2 AND message.expires > ?1",
        )?
        .query_row(params![now.0, log.no], |row| row.get(0))?;
    let total = log.total - expired;
    let claimed = log.held - expired_held - released;
    let edge = |order: &str| -> rusqlite::Result<Option<StatsMessage>> {
        let sql = format!(
            "SELECT id, posted FROM message WHERE at BETWEEN ? AND ? AND expires > ? ORDER BY at {order} LIMIT 1"
        );
        session
            .statement(&sql)?
            .query_row(params![first, last, now.0], |row| {
                read_stats_message(row, now)
            })
            .optional()
    };
    let (oldest, newest) = if total > 0 {
        (edge("ASC")?, edge("DESC")?)
    } else {
        (None, None)
    };
    Ok(Ok(Stats {
        free: count(total - claimed),
        claimed: count(claimed),
        oldest,
        newest,
        last_arrival: log.numbering.last_number(),
    }))
}

/// How many messages of a queue log have expired and are not swept yet, and how many of those a claim holds.
pub(crate) fn expired(
    session: &Session,
    log: &QueueLog,
    now: Timestamp,
) -> rusqlite::Result<(i64, i64)> {
    let (first, last) = log.rows().into_inner();
    session
        .statement(
            "SELECT count(*), count(*) FILTER (WHERE hold > 0) FROM message INDEXED BY message_by_expiry
             WHERE expires <= ? AND at BETWEEN ? AND ?",
        )?
        .query_row(params![now.0, first, last], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// Messages that one step of a count of bytes passes: a fraction of a millisecond.
pub(crate) const COUNT_STEP: i64 = 1_000;

/// Adds up a step of rows: the last of them, how many, and their bytes. `length` of a column reads a row's head alone, and
/// not the pages of its body. One that has ended is passed without being counted.
macro_rules! sum_of_step {
    ($table:literal, $live:literal) => {
        concat!(
            "SELECT max(at), count(*), coalesce(sum(size), 0) FROM (
                SELECT at, CASE WHEN expires > ?3
                    THEN length(body) + (coalesce(length(headers), 0) + 2) / 3 * 4 ELSE 0 END AS size
                FROM ", $table, " WHERE ", $live, " AND at > ?1 AND at <= ?2 ORDER BY at LIMIT ?4)"
        )
    };
}
pub(crate) use sum_of_step;

const COUNT_BYTES: &str = sum_of_step!("message NOT INDEXED", "hold <> -4");

pub(crate) fn count_bytes(
    session: &mut Session,
    queue: &QueueKey,
    after: Option<u64>,
) -> Outcome<ByteCount> {
    let now = session.now();
    let Some(log) = session.log(queue)? else {
        return Ok(Ok(ByteCount::default()));
    };
    let (first, last) = log.rows().into_inner();
    let numbering = log.numbering;
    let after = after.map_or(first, |number| numbering.row_behind(number));
    count_step(session, COUNT_BYTES, &numbering, [after, last, now.0])
}

/// Makes one step of a count of bytes: behind a row, up to another, at a moment.
pub(crate) fn count_step(
    session: &Session,
    sql: &'static str,
    numbering: &Numbering,
    [after, last, now]: [i64; 3],
) -> Outcome<ByteCount> {
    let mut statement = session.statement(sql)?;
    let step = [after, last, now, COUNT_STEP];
    let counted = statement.query_row(step, |row| {
        let end: Option<i64> = row.get(0)?;
        let is_last = row.get::<_, i64>(1)? < COUNT_STEP;
        Ok(ByteCount {
            bytes: count(row.get(2)?),
            next: end.filter(|_| !is_last).map(|at| numbering.number(at)),
        })
    });
    counted.map(Ok)
}

pub(crate) fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(crate) fn read_stats_message(row: &Row<'_>, now: Timestamp) -> rusqlite::Result<StatsMessage> {
    let id: [u8; 16] = row.get(0)?;
    let posted = Timestamp(row.get(1)?);
    Ok(StatsMessage {
        id: MessageId(Uuid::from_bytes(id)),
        age: now.since(posted),
        posted,
    })
}
