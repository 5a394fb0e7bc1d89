//! A connection with what its thread remembers between transactions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use isimud_contract::{Clock, Message, MessageId, QueueKey, Timestamp};
use rusqlite::{CachedStatement, Connection, Error as Failure, OptionalExtension, Row, params};
use uuid::Uuid;

use crate::damage::Damage;
use crate::queue_log::QueueLog;
use crate::row;

/// Queue logs whose counters are kept in memory, at the most. Beyond it they are forgotten and read again.
const CACHE_CAPACITY: usize = 100_000;

/// When something next ends by itself: bounds that may be too early, never too late.
///
/// They spare the hot path every look at claims and delays while nothing is due. The writing session keeps them; the
/// others take over what it has published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NextExpiry {
    /// The next end of a claim, or of a delay.
    pub(crate) release: i64,
    /// The next end of a message's life.
    pub(crate) expiry: i64,
    /// The next end of a subscription's life.
    pub(crate) subscription: i64,
    /// There may be delayed messages.
    pub(crate) delayed: bool,
    /// There may be purged messages to sweep.
    pub(crate) purged: bool,
}

impl NextExpiry {
    /// Knows nothing: everything may be due.
    const UNKNOWN: Self = Self {
        release: i64::MIN,
        expiry: i64::MIN,
        subscription: i64::MIN,
        delayed: true,
        purged: true,
    };

    /// What is certain when one of two is right.
    fn lower_of(self, other: Self) -> Self {
        Self {
            release: self.release.min(other.release),
            expiry: self.expiry.min(other.expiry),
            subscription: self.subscription.min(other.subscription),
            delayed: self.delayed || other.delayed,
            purged: self.purged || other.purged,
        }
    }

    /// Whether a claim or a delay may have ended that is not released yet.
    pub(crate) fn release_due(&self, now: Timestamp) -> bool {
        self.release <= now.0
    }
}

/// The bounds that all sessions of a store share.
///
/// A bound moves down before the commit that makes it necessary and up only after the one that makes it right, and a
/// reader takes the lower one of before and after its snapshot begins: so no reader believes that nothing is due while
/// its snapshot says otherwise.
#[derive(Debug)]
pub(crate) struct ExpiryWatermark(Mutex<NextExpiry>);

impl Default for ExpiryWatermark {
    fn default() -> Self {
        Self(Mutex::new(NextExpiry::UNKNOWN))
    }
}

impl ExpiryWatermark {
    fn get(&self) -> NextExpiry {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, next_expiry: NextExpiry) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = next_expiry;
    }

    fn lower(&self, next_expiry: NextExpiry) {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *shared = shared.lower_of(next_expiry);
    }
}

/// A connection and its memory. Only a session that writes remembers queue logs: only it hears of every change.
#[derive(Debug)]
pub(crate) struct Session {
    connection: Connection,
    clock: Arc<dyn Clock>,
    expiry_watermark: Arc<ExpiryWatermark>,
    damage: Arc<Damage>,
    /// This session's copy of the horizon.
    pub(crate) next_expiry: NextExpiry,
    /// When something next ends in the ledger; too early perhaps, never too late. Only the writing session uses it.
    pub(crate) ledger_end: i64,
    /// Rows that one step of a sweep touches, at the most.
    pub(crate) step: i64,
    /// It writes: it keeps counters, and the horizon.
    writes: bool,
    numbers: HashMap<QueueKey, i64>,
    logs: HashMap<i64, QueueLog>,
    changed: Vec<i64>,
}

impl Session {
    pub(crate) fn new(
        connection: Connection,
        clock: Arc<dyn Clock>,
        expiry_watermark: Arc<ExpiryWatermark>,
        damage: Arc<Damage>,
        writes: bool,
    ) -> Self {
        Self {
            connection,
            clock,
            expiry_watermark,
            damage,
            next_expiry: NextExpiry::UNKNOWN,
            ledger_end: i64::MIN,
            step: crate::worker_thread::STEP,
            writes,
            numbers: HashMap::new(),
            logs: HashMap::new(),
            changed: Vec::new(),
        }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A statement, prepared once for the life of the connection.
    pub(crate) fn statement(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        self.connection.prepare_cached(sql)
    }

    /// Reads a row of `message` as one of [`row::read`] and [`row::read_free`] does. `None` when it is damaged, which is
    /// told.
    pub(crate) fn whole(
        &self,
        queue: &QueueKey,
        row: &Row<'_>,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<Message>,
    ) -> rusqlite::Result<Option<Message>> {
        match read(row) {
            Ok(message) if row::is_whole(row, &message)? => Ok(Some(message)),
            Ok(_)
            | Err(
                Failure::FromSqlConversionFailure(..)
                | Failure::IntegralValueOutOfRange(..)
                | Failure::InvalidColumnType(..),
            ) => {
                let id = row.get(1).map(|id| MessageId(Uuid::from_bytes(id))).ok();
                self.damage.note(queue, row.get(0)?, id);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn last_number(&self) -> i64 {
        self.connection.last_insert_rowid()
    }

    /// Begins a transaction.
    pub(crate) fn begin(&mut self) -> rusqlite::Result<()> {
        if self.writes {
            self.statement("BEGIN IMMEDIATE")?.execute([])?;
            return Ok(());
        }
        let before = self.expiry_watermark.get();
        self.statement("BEGIN")?.execute([])?;
        // A snapshot begins with the first reading.
        self.statement("SELECT EXISTS (SELECT 1 FROM stream)")?
            .query_row([], |_| Ok(()))?;
        self.next_expiry = before.lower_of(self.expiry_watermark.get());
        Ok(())
    }

    /// The queue log of a queue, if anything was ever posted there.
    pub(crate) fn log(&mut self, queue: &QueueKey) -> rusqlite::Result<Option<QueueLog>> {
        if let Some(no) = self.numbers.get(queue) {
            return self.log_by_number(*no);
        }
        let found = self
            .statement(
                "SELECT no, next, total, held, base FROM stream WHERE project = ? AND name = ?",
            )?
            .query_row(
                params![queue.project.as_str(), queue.name.as_str()],
                QueueLog::read,
            )
            .optional()?;
        if let Some(log) = found
            && self.writes
        {
            self.numbers.insert(queue.clone(), log.no);
            return Ok(Some(*self.logs.entry(log.no).or_insert(log)));
        }
        Ok(found)
    }

    /// The queue log of a number; `None` once it is purged.
    pub(crate) fn log_by_number(&mut self, no: i64) -> rusqlite::Result<Option<QueueLog>> {
        if let Some(log) = self.logs.get(&no) {
            return Ok(Some(*log));
        }
        let found = self
            .statement("SELECT no, next, total, held, base FROM stream WHERE no = ?")?
            .query_row([no], QueueLog::read)
            .optional()?;
        if let Some(log) = found
            && self.writes
        {
            self.logs.insert(no, log);
        }
        Ok(found)
    }

    /// Keeps a queue log's new counters; they are written once, with the transaction.
    pub(crate) fn put_log(&mut self, log: QueueLog) {
        if self.changed.last() != Some(&log.no) {
            self.changed.push(log.no);
        }
        self.logs.insert(log.no, log);
    }

    /// Keeps where a queue log's first free message can stand. It is not written.
    pub(crate) fn set_low_watermark(&mut self, no: i64, low_watermark: i64) {
        if let Some(log) = self.logs.get_mut(&no) {
            log.low_watermark = low_watermark;
        }
    }

    /// Forgets the number of a queue whose queue log was purged.
    pub(crate) fn forget(&mut self, queue: &QueueKey, no: i64) {
        self.numbers.remove(queue);
        self.logs.remove(&no);
        self.changed.retain(|changed| *changed != no);
    }

    /// Writes what was remembered and ends the transaction.
    pub(crate) fn finish(&mut self) -> rusqlite::Result<()> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        for no in changed.drain(..) {
            if let Some(log) = self.logs.get(&no) {
                self.statement("UPDATE stream SET next = ?, total = ?, held = ? WHERE no = ?")?
                    .execute(params![log.numbering.next, log.total, log.held, no])?;
            }
        }
        self.changed = changed;
        if self.writes {
            self.expiry_watermark.lower(self.next_expiry);
        }
        self.statement("COMMIT")?.execute([])?;
        if self.writes {
            self.expiry_watermark.set(self.next_expiry);
        }
        if self.logs.len() > CACHE_CAPACITY {
            self.forget_all();
        }
        Ok(())
    }

    /// Whether a transaction can be undone: not in memory, where there is no journal.
    pub(crate) fn can_roll_back(&self) -> bool {
        self.connection.path().is_some_and(|path| !path.is_empty())
    }

    /// Undoes the transaction, and what was remembered of it.
    pub(crate) fn roll_back(&mut self) {
        self.forget_all();
        self.next_expiry = NextExpiry::UNKNOWN;
        self.ledger_end = i64::MIN;
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "cannot roll back a transaction of the embedded store");
        }
    }

    fn forget_all(&mut self) {
        self.numbers.clear();
        self.logs.clear();
        self.changed.clear();
    }
}
