//! What ends by itself: claims, delays, messages, purged queue logs. All of it is found by index range, in bounded
//! steps.
//!
//! Reading never depends on the sweep: every query compares with the clock. The sweep gives messages back to the free
//! ones, and their room back to the file.

use std::time::{Duration, Instant};

use isimud_contract::Timestamp;
use rusqlite::params;

use crate::claim::free_all;
use crate::queue_log::number_of;
use crate::session::Session;
use crate::worker_thread::STEP;

/// How long a sweep may keep calls waiting. It does so in steps, each of as many rows as the session says, at the most (a
/// step may finish the claim that it began).
const MAX_SWEEP_TIME: Duration = Duration::from_millis(10);

impl Session {
    /// Whether a sweep has work.
    pub(crate) fn something_ended(&self) -> bool {
        let now = self.now().0;
        let next = self.next_expiry.release.min(self.next_expiry.expiry);
        let next = next.min(self.next_expiry.subscription).min(self.ledger_end);
        next <= now || self.next_expiry.purged
    }

    /// Sweeps for a moment at the most: calls wait meanwhile.
    pub(crate) fn sweep(&mut self) -> rusqlite::Result<()> {
        let start = Instant::now();
        while self.something_ended() && start.elapsed() < MAX_SWEEP_TIME {
            let now = self.now();
            release(self, now)?;
            expire(self, now)?;
            unsubscribe(self, now)?;
            delete_purged(self)?;
            crate::ledger::sweep(self, now)?;
            if self.step < STEP {
                // On a full disk the log has room for one.
                break;
            }
        }
        Ok(())
    }
}

/// Frees everything that has ended, so that what comes back is taken in its old place. A burst beyond fifty thousand
/// messages is finished by later calls.
pub(crate) fn release_all(session: &mut Session, now: Timestamp) -> rusqlite::Result<()> {
    let mut steps = 0;
    while session.next_expiry.release_due(now) && steps < 100 {
        release(session, now)?;
        steps += 1;
    }
    Ok(())
}

/// Frees messages of claims that have ended and of delays that have passed.
fn release(session: &mut Session, now: Timestamp) -> rusqlite::Result<()> {
    if !session.next_expiry.release_due(now) {
        return Ok(());
    }
    let ended = end_claims(session, now)?;
    let due = end_delays(session, now)?;
    if ended && due {
        let next = session
            .statement(
                "SELECT min(coalesce((SELECT min(expires) FROM claim), ?1), coalesce((SELECT min(due) FROM delay), ?1))",
            )?
            .query_row([i64::MAX], |row| row.get(0))?;
        session.next_expiry.release = next;
    }
    Ok(())
}

/// Returns whether all of them are done.
fn end_claims(session: &mut Session, now: Timestamp) -> rusqlite::Result<bool> {
    let mut freed = 0;
    let ended: Vec<(i64, i64)> = session
        .statement("SELECT no, stream FROM claim WHERE expires <= ? ORDER BY expires LIMIT ?")?
        .query_map(params![now.0, session.step], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let all_seen = i64::try_from(ended.len()).is_ok_and(|ended| ended < session.step);
    for (no, log) in ended {
        if freed >= session.step {
            return Ok(false);
        }
        let (rows, first) = free_all(session, no)?;
        freed += rows;
        if let Some(mut log) = session.log_by_number(log)? {
            log.freed(rows, first);
            session.put_log(log);
        }
    }
    Ok(all_seen)
}

/// Returns whether all of them are done.
fn end_delays(session: &mut Session, now: Timestamp) -> rusqlite::Result<bool> {
    if !session.next_expiry.delayed {
        return Ok(true);
    }
    let due: Vec<(i64, i64)> = session
        .statement("SELECT due, at FROM delay WHERE due <= ? ORDER BY due LIMIT ?")?
        .query_map(params![now.0, session.step], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    for (due, at) in &due {
        session
            .statement("UPDATE message SET hold = 0 WHERE at = ? AND hold = -1 AND due <= ?")?
            .execute([*at, now.0])?;
        session
            .statement("DELETE FROM delay WHERE due = ? AND at = ?")?
            .execute([due, at])?;
        if let Some(log) = session.log_by_number(number_of(*at))? {
            session.set_low_watermark(log.no, log.low_watermark.min(at - 1));
        }
    }
    let left = session
        .statement("SELECT EXISTS (SELECT 1 FROM delay)")?
        .query_row([], |row| row.get(0))?;
    session.next_expiry.delayed = left;
    Ok(i64::try_from(due.len()).is_ok_and(|due| due < session.step))
}

/// Deletes messages whose life has ended.
fn expire(session: &mut Session, now: Timestamp) -> rusqlite::Result<()> {
    if session.next_expiry.expiry > now.0 {
        return Ok(());
    }
    let expired: Vec<(i64, i64)> = session
        .statement("SELECT at, hold FROM message WHERE expires <= ? ORDER BY expires LIMIT ?")?
        .query_map(params![now.0, session.step], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    for (at, hold) in &expired {
        session
            .statement("DELETE FROM message WHERE at = ?")?
            .execute([at])?;
        if let Some(mut log) = session.log_by_number(number_of(*at))? {
            log.total -= 1;
            log.held -= i64::from(*hold > 0);
            session.put_log(log);
        }
    }
    if i64::try_from(expired.len()).is_ok_and(|expired| expired < session.step) {
        let next: Option<i64> = session
            .statement("SELECT min(expires) FROM message")?
            .query_row([], |row| row.get(0))?;
        session.next_expiry.expiry = next.unwrap_or(i64::MAX);
    }
    Ok(())
}

/// Deletes subscriptions whose life has ended.
fn unsubscribe(session: &mut Session, now: Timestamp) -> rusqlite::Result<()> {
    if session.next_expiry.subscription > now.0 {
        return Ok(());
    }
    let removed = session
        .statement(
            "DELETE FROM subscription WHERE (project, name, id) IN
             (SELECT project, name, id FROM subscription WHERE expires <= ? ORDER BY expires LIMIT ?)",
        )?
        .execute([now.0, session.step])?;
    if i64::try_from(removed).is_ok_and(|removed| removed < session.step) {
        let next: Option<i64> = session
            .statement("SELECT min(expires) FROM subscription")?
            .query_row([], |row| row.get(0))?;
        session.next_expiry.subscription = next.unwrap_or(i64::MAX);
    }
    Ok(())
}

/// Deletes messages of purged queue logs.
fn delete_purged(session: &mut Session) -> rusqlite::Result<()> {
    if !session.next_expiry.purged {
        return Ok(());
    }
    let purged: Option<i64> = session
        .statement("SELECT min(no) FROM doomed")?
        .query_row([], |row| row.get(0))?;
    let Some(no) = purged else {
        session.next_expiry.purged = false;
        return Ok(());
    };
    let removed = session
        .statement(
            "DELETE FROM message WHERE at IN
             (SELECT at FROM message WHERE at BETWEEN ?1 << 40 AND (?1 << 40) + 1099511627775 ORDER BY at LIMIT ?2)",
        )?
        .execute([no, session.step])?;
    if i64::try_from(removed).is_ok_and(|removed| removed < session.step) {
        session
            .statement("DELETE FROM doomed WHERE no = ?")?
            .execute([no])?;
    }
    Ok(())
}
