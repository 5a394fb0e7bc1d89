//! A message's row in the ledger.

use isimud_contract::{Arrival, Message, MessageId, Receipt, Timestamp};
use rusqlite::{OptionalExtension, params};

use crate::claim::millis;
use crate::ledger::queue::Record;
use crate::row::{Column, NEXT_COLUMN, columns, read};
use crate::session::Session;

/// `hold` of a free message.
pub(crate) const FREE: i64 = 0;
/// `hold` of a message that waits until it is due.
pub(crate) const DELAYED: i64 = -1;
/// `hold` of a deleted message.
pub(crate) const TOMBSTONE: i64 = -2;
/// `hold` of a message that ended, or was purged.
pub(crate) const EXPIRED: i64 = -3;

/// What has become of a row's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Live,
    /// It was deleted, and its row is kept so that a late copy is recognised.
    Tombstone,
    /// It ended or was purged: its id may be posted again.
    Expired,
}

/// A row, with its message as it is now.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) at: i64,
    pub(crate) hold: i64,
    pub(crate) state: State,
    pub(crate) message: Message,
    pub(crate) expires: i64,
    pub(crate) ends: i64,
    pub(crate) kept: i64,
    /// When the live claim that holds it ends.
    pub(crate) held_until: Option<i64>,
}

const FIND: &str = concat!(
    "SELECT ",
    columns!("c.id"),
    ", m.hold, m.ends, m.kept, c.expires FROM ledger_row m
     LEFT JOIN ledger_claim c ON c.no = m.hold AND c.expires > ?3 WHERE m.id = ?1 AND m.at >> 40 = ?2"
);

impl Found {
    pub(crate) fn find(
        session: &Session,
        record: &Record,
        id: MessageId,
        now: Timestamp,
    ) -> rusqlite::Result<Option<Self>> {
        session
            .statement(FIND)?
            .query_row(params![id.0.as_bytes(), record.no, now.0], |row| {
                let (at, expires) = (row.get(0)?, row.get(2)?);
                let hold = row.get(NEXT_COLUMN + 2)?;
                Ok(Self {
                    at,
                    hold,
                    state: state(record, at, hold, expires, now),
                    message: read(row, &record.numbering, now)?,
                    expires,
                    ends: row.get(NEXT_COLUMN + 3)?,
                    kept: row.get(NEXT_COLUMN + 4)?,
                    held_until: row.get(NEXT_COLUMN + 5)?,
                })
            })
            .optional()
    }
}

pub(crate) fn state(record: &Record, at: i64, hold: i64, expires: i64, now: Timestamp) -> State {
    if hold == TOMBSTONE && expires > now.0 {
        State::Tombstone
    } else if at <= record.purged || hold == EXPIRED || expires <= now.0 {
        State::Expired
    } else {
        State::Live
    }
}

/// A row that is to be written.
pub(crate) struct New<'a> {
    pub(crate) message: &'a Message,
    pub(crate) hold: i64,
    pub(crate) posted: i64,
    pub(crate) due: i64,
    pub(crate) expires: i64,
    pub(crate) ends: i64,
    pub(crate) kept: i64,
    pub(crate) receipt: Option<&'a Receipt>,
    /// Until when it waits for the record that numbers it; 0 when it is numbered now.
    pub(crate) unnoted_until: i64,
}

impl New<'_> {
    /// Writes it where it belongs, as a rule as the queue's last row, and counts it. `false` when the queue has a row of
    /// that id.
    pub(crate) fn insert(
        &self,
        session: &mut Session,
        record: &mut Record,
    ) -> rusqlite::Result<bool> {
        let message = self.message;
        let live = self.hold >= DELAYED;
        let waits = live && self.unnoted_until > 0 && message.arrival.number().is_none();
        let at = match waits {
            true => record.take_unnumbered(session)?,
            false => record.take_row(session, message.id, message.arrival)?,
        };
        let inserted = session
            .statement(
                "INSERT OR IGNORE INTO ledger_row
                 (at, id, hold, expires, ends, kept, posted, ttl, due, claims, client, sealed, checksum, receipt, body,
                  transfers, headers)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                at,
                message.id.0.as_bytes(),
                self.hold,
                self.expires,
                self.ends,
                self.kept,
                self.posted,
                millis(message.ttl),
                self.due,
                message.claim_count,
                Column(&message.client),
                message.sealed,
                message.checksum.map(|sum| sum.0),
                self.receipt.map(|receipt| &*receipt.0),
                if live { &*message.body } else { &[] },
                message.transfers,
                message.headers.as_ref().filter(|_| live).map(|headers| &headers.as_bytes()[..]),
            ])?
            == 1;
        if !inserted {
            return Ok(false);
        }
        session.ledger_end = session.ledger_end.min(self.expires);
        if waits {
            session
                .statement("INSERT OR REPLACE INTO ledger_unnoted (until, at) VALUES (?, ?)")?
                .execute([self.unnoted_until, at])?;
            session.ledger_end = session.ledger_end.min(self.unnoted_until);
        }
        if live {
            record.total += 1;
            record.held += i64::from(self.hold > 0);
        }
        if self.hold == DELAYED {
            session
                .statement("INSERT OR IGNORE INTO ledger_delay (due, at) VALUES (?, ?)")?
                .execute([self.due, at])?;
            session.ledger_end = session.ledger_end.min(self.due);
        }
        Ok(true)
    }
}

/// Gives a row that waits for its number the next one, above `arrival`'s. `false` when it has one.
pub(crate) fn give_number(
    session: &Session,
    record: &mut Record,
    at: i64,
    arrival: Arrival,
) -> rusqlite::Result<bool> {
    if at < record.numbering.unnumbered() {
        return Ok(false);
    }
    let above = match arrival {
        Arrival::After(number) => number,
        Arrival::At(_) => 0,
    };
    let new = record.numbering.take_row(session.now(), above);
    session
        .statement("UPDATE ledger_row SET at = ? WHERE at = ?")?
        .execute([new, at])?;
    session
        .statement("UPDATE ledger_delay SET at = ? WHERE at = ?")?
        .execute([new, at])?;
    session
        .statement("DELETE FROM ledger_unnoted WHERE at = ?")?
        .execute([at])?;
    Ok(true)
}

/// Removes a row that its id may replace.
pub(crate) fn remove(
    session: &Session,
    record: &mut Record,
    found: &Found,
) -> rusqlite::Result<()> {
    session
        .statement("DELETE FROM ledger_row WHERE at = ?")?
        .execute([found.at])?;
    if found.hold >= DELAYED && found.at > record.purged {
        record.lose(found.hold);
    }
    Ok(())
}

/// Makes a live row that of a deleted message. `false` when it is one already.
pub(crate) fn leave_tombstone(
    session: &Session,
    record: &mut Record,
    at: i64,
    hold: i64,
) -> rusqlite::Result<bool> {
    let was_live = session
        .statement(
            "UPDATE ledger_row SET hold = -2, expires = ends, receipt = NULL, headers = NULL, body = x'' WHERE at = ? AND hold >= -1",
        )?
        .execute([at])?
        == 1;
    if was_live {
        record.lose(hold);
    }
    Ok(was_live)
}
