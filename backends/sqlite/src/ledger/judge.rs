//! Records and grants: where rows come from, and what becomes of deliveries.

use std::collections::HashMap;
use std::time::Duration;

use isimud_contract::{Delivery, Epoch, Lease, Message, MessageId, Receipt, Timestamp, Verdict};
use rusqlite::params;

use crate::claim::millis;
use crate::ledger::claims::{begin_claim, is_live, joined_claim};
use crate::ledger::queue::Record;
use crate::ledger::row::{self, DELAYED, FREE, Found, New, State, TOMBSTONE};
use crate::ledger::{Key, Wanted};
use crate::queue_log;
use crate::session::Session;
use crate::worker_thread::Outcome;

pub(crate) fn record_posted(
    session: &mut Session,
    key: &Key,
    epoch: Option<Epoch>,
    sent: Timestamp,
    posted: &[Message],
) -> Outcome<Epoch> {
    let now = session.now();
    let arrival = posted.first().map(|first| first.arrival);
    let mut record = Record::open(session, key, arrival)?;
    let over = epoch.is_some_and(|epoch| epoch != record.epoch());
    if over || posted.is_empty() {
        return Ok(Ok(record.epoch()));
    }
    if !record.has_room(posted.len()) {
        return Ok(Err(queue_log::full()));
    }
    for message in posted {
        let (lives, copy) = (
            now.after(message.remaining_ttl).0,
            sent.after(message.remaining_ttl).0,
        );
        let delayed = !message.delay.is_zero();
        let new = New {
            message,
            hold: if delayed { DELAYED } else { FREE },
            posted: now.before(message.age).0,
            due: if delayed {
                now.after(message.delay).0
            } else {
                0
            },
            expires: lives,
            ends: lives.max(copy),
            kept: lives,
            receipt: None,
            unnoted_until: 0,
        };
        if epoch.is_some() && new.insert(session, &mut record)? {
            continue;
        }
        match Found::find(session, &record, message.id, now)? {
            Some(old) if epoch.is_some() && starts_anew(&old, message) => {
                row::remove(session, &mut record, &old)?;
                let ends = new.ends.max(old.ends);
                New { ends, ..new }.insert(session, &mut record)?;
            }
            // An older post says nothing about how long the broker keeps this one.
            Some(old) if message.transfers < old.message.transfers => {
                learn(session, &old, old.kept, copy)?;
            }
            Some(old) => {
                learn(session, &old, lives, copy)?;
                // A delivery was faster than this record.
                if epoch.is_some() && old.state == State::Live {
                    row::give_number(session, &mut record, old.at, message.arrival)?;
                }
            }
            None => {}
        }
    }
    record.keep(session)?;
    Ok(Ok(record.epoch()))
}

/// Whether a message that is recorded is another post than the one that its id has a row of.
fn starts_anew(old: &Found, message: &Message) -> bool {
    let (before, now) = (old.message.transfers, message.transfers);
    now > before || (now == before && old.state == State::Expired)
}

/// The broker was told of a life: the row remembers that, and outlives it.
fn learn(session: &Session, row: &Found, lives: i64, copy: i64) -> rusqlite::Result<()> {
    let ends = row.ends.max(copy);
    let expires = if row.hold >= DELAYED {
        row.expires
    } else {
        ends
    };
    session
        .statement("UPDATE ledger_row SET kept = ?, ends = ?, expires = ? WHERE at = ?")?
        .execute([row.kept.max(lives), ends, expires, row.at])?;
    Ok(())
}

/// How long a row that a delivery has made waits for the record of its message: longer than a post may take between the
/// broker and the ledger.
const RECORD_TIMEOUT: Duration = Duration::from_secs(10);

/// One call's judgement.
struct Court<'a> {
    session: &'a mut Session,
    record: Record,
    now: Timestamp,
    /// The server's clock.
    sent: Timestamp,
    wanted: &'a Wanted,
    /// Grants that are left.
    left: usize,
    /// The queue is its own dead-letter queue.
    itself: bool,
    /// The number and the end of the claim that grants join, once there is one.
    claim: Option<(i64, i64)>,
    /// The same of the claim that holds what is over the limit.
    nameless: Option<(i64, i64)>,
    /// The most transfers with which each id was delivered in this call.
    newest: HashMap<MessageId, u32>,
}

pub(crate) fn grant(
    session: &mut Session,
    key: &Key,
    wanted: &Wanted,
    limit: usize,
    sent: Timestamp,
    got: &[Delivery],
) -> Outcome<Vec<Verdict>> {
    if got.is_empty() {
        return Ok(Ok(Vec::new()));
    }
    let now = session.now();
    let arrival = got.first().map(|first| first.message.arrival);
    let record = Record::open(session, key, arrival)?;
    if !record.has_room(got.len()) {
        return Ok(Err(queue_log::full()));
    }
    let policy = wanted.lease().and_then(|lease| lease.dead_letter.as_ref());
    let itself = policy.is_some_and(|policy| policy.queue == key.queue);
    let ended = match wanted {
        Wanted::More(lease) => !is_live(session, &record, lease.id, now)?,
        _ => false,
    };
    let mut newest = HashMap::with_capacity(got.len());
    for Delivery { message, .. } in got {
        let most: &mut u32 = newest.entry(message.id).or_default();
        *most = message.transfers.max(*most);
    }
    let mut court = Court {
        session,
        record,
        now,
        sent,
        wanted,
        left: if ended { 0 } else { limit },
        itself,
        claim: None,
        nameless: None,
        newest,
    };
    let verdicts = got
        .iter()
        .map(|delivery| court.judge(delivery))
        .collect::<rusqlite::Result<_>>()?;
    court.record.keep(court.session)?;
    Ok(Ok(verdicts))
}

impl Court<'_> {
    fn judge(&mut self, delivery: &Delivery) -> rusqlite::Result<Verdict> {
        let posted = &delivery.message;
        let copy = delivery.posted.after(posted.remaining_ttl).0;
        let row = Found::find(self.session, &self.record, posted.id, self.now)?;
        let is_old = self
            .newest
            .get(&posted.id)
            .is_some_and(|most| posted.transfers < *most);
        let Some(row) = row else {
            return match is_old {
                true => Ok(Verdict::Gone),
                false => self.meet(delivery, copy, None),
            };
        };
        let known = row.message.transfers;
        if is_old || posted.transfers < known {
            self.outlive(&row, copy)?;
            return Ok(Verdict::Gone);
        }
        if posted.transfers > known {
            return self.meet(delivery, copy, Some(&row));
        }
        match row.state {
            State::Expired if copy > row.ends => return self.meet(delivery, copy, Some(&row)),
            State::Expired | State::Tombstone => {
                self.outlive(&row, copy)?;
                return Ok(Verdict::Gone);
            }
            State::Live => self.outlive(&row, copy)?,
        }
        if let Some(end) = row.held_until {
            self.keep_receipt(&row, &delivery.receipt)?;
            return Ok(Verdict::Held(Timestamp(end).since(self.now)));
        }
        if !row.message.delay.is_zero() {
            self.keep_receipt(&row, &delivery.receipt)?;
            return Ok(Verdict::Held(row.message.delay));
        }
        if self.left == 0 {
            return Ok(Verdict::Free);
        }
        if self.is_over_limit(row.message.claim_count) {
            let hold = self.nameless()?;
            self.hold(&row, hold, &row.message, &delivery.receipt)?;
            return Ok(Verdict::DeliveryLimitExceeded(row.message));
        }
        self.left -= 1;
        let Some(lease) = self.wanted.lease() else {
            row::leave_tombstone(self.session, &mut self.record, row.at, row.hold)?;
            return Ok(Verdict::Granted {
                message: row.message,
                longer: false,
            });
        };
        let hold = self.claim(lease)?;
        let mut message = row.message.clone();
        self.lease(&mut message, lease);
        let longer = self.now.after(message.remaining_ttl).0 > row.kept;
        self.hold(&row, hold, &message, &delivery.receipt)?;
        Ok(Verdict::Granted { message, longer })
    }

    /// Judges a message that has no row, or that of an earlier post of its id: by its envelope, and it gets one.
    fn meet(
        &mut self,
        delivery: &Delivery,
        copy: i64,
        earlier: Option<&Found>,
    ) -> rusqlite::Result<Verdict> {
        let Delivery {
            message,
            posted,
            receipt,
            ..
        } = delivery;
        let due = posted.after(message.delay);
        let mut message = Message {
            age: self.now.since(posted.before(message.age)),
            remaining_ttl: Timestamp(copy).since(self.now),
            delay: due.since(self.now),
            claim: None,
            ..message.clone()
        };
        if message.remaining_ttl.is_zero() {
            return Ok(Verdict::Gone);
        }
        let mut new = New {
            message: &delivery.message,
            hold: DELAYED,
            posted: posted.before(delivery.message.age).0,
            due: if delivery.message.delay.is_zero() {
                0
            } else {
                due.0
            },
            expires: copy,
            ends: earlier.map_or(copy, |row| row.ends.max(copy)),
            kept: copy,
            receipt: Some(receipt),
            unnoted_until: match delivery.awaits_record {
                true => self.now.after(RECORD_TIMEOUT).0,
                false => 0,
            },
        };
        if !message.delay.is_zero() {
            self.enter(&new, earlier)?;
            return Ok(Verdict::Held(message.delay));
        }
        if self.left == 0 {
            return Ok(Verdict::Free);
        }
        if self.is_over_limit(message.claim_count) {
            new.hold = self.nameless()?;
            self.enter(&new, earlier)?;
            return Ok(Verdict::DeliveryLimitExceeded(message));
        }
        self.left -= 1;
        let mut longer = false;
        if let Some(lease) = self.wanted.lease() {
            new.hold = self.claim(lease)?;
            self.lease(&mut message, lease);
            new.expires = self.now.after(message.remaining_ttl).0;
            longer = new.expires > new.kept;
        } else {
            new.hold = TOMBSTONE;
        }
        new.ends = new
            .ends
            .max(new.expires)
            .max(self.sent.after(message.remaining_ttl).0);
        if new.hold == TOMBSTONE {
            new.expires = new.ends;
        }
        let new = New {
            message: &message,
            ..new
        };
        self.enter(&new, earlier)?;
        Ok(Verdict::Granted { message, longer })
    }

    /// Writes a row, in place of that of an earlier post.
    fn enter(&mut self, new: &New<'_>, earlier: Option<&Found>) -> rusqlite::Result<()> {
        if let Some(earlier) = earlier {
            row::remove(self.session, &mut self.record, earlier)?;
        }
        new.insert(self.session, &mut self.record).map(drop)
    }

    fn is_over_limit(&self, claims: u32) -> bool {
        let policy = self
            .wanted
            .lease()
            .and_then(|lease| lease.dead_letter.as_ref());
        !self.itself && policy.is_some_and(|policy| claims >= policy.max_claims)
    }

    /// Applies a claim's terms to a message.
    fn lease(&self, message: &mut Message, lease: &Lease) {
        message.claim = Some(lease.id);
        if let Some(policy) = &lease.dead_letter {
            if self.itself && message.claim_count >= policy.max_claims {
                message.claim_count = 0;
            }
            message.claim_count = message.claim_count.saturating_add(1);
        }
        if message.remaining_ttl <= lease.ttl {
            message.ttl = lease.ttl + lease.grace;
            message.remaining_ttl = message.ttl;
        }
    }

    fn claim(&mut self, lease: &Lease) -> rusqlite::Result<i64> {
        let claim = match self.claim {
            Some(claim) => claim,
            None => {
                let (session, record) = (&mut *self.session, &mut self.record);
                *self
                    .claim
                    .insert(joined_claim(session, record, lease, self.now)?)
            }
        };
        Ok(claim.0)
    }

    fn nameless(&mut self) -> rusqlite::Result<i64> {
        let ttl = self
            .wanted
            .lease()
            .map_or(Duration::ZERO, |lease| lease.ttl);
        let claim = match self.nameless {
            Some(claim) => claim,
            None => {
                let claim = begin_claim(self.session, &self.record, None, ttl, self.now)?;
                *self.nameless.insert(claim)
            }
        };
        Ok(claim.0)
    }

    /// Puts a free row under a claim.
    fn hold(
        &mut self,
        row: &Found,
        claim: i64,
        message: &Message,
        receipt: &Receipt,
    ) -> rusqlite::Result<()> {
        let expires = if message.remaining_ttl == row.message.remaining_ttl {
            row.expires
        } else {
            self.now.after(message.remaining_ttl).0
        };
        let ends = expires.max(self.sent.after(message.remaining_ttl).0);
        self.session
            .statement(
                "UPDATE ledger_row SET hold = ?, ttl = ?, expires = ?, ends = max(ends, ?), claims = ?, receipt = ? WHERE at = ?",
            )?
            .execute(params![
                claim,
                millis(message.ttl),
                expires,
                ends,
                message.claim_count,
                &*receipt.0,
                row.at
            ])?;
        self.record.held += i64::from(row.hold <= FREE);
        Ok(())
    }

    /// Keeps a row, and be it bare, for as long as a copy lives.
    fn outlive(&self, row: &Found, copy: i64) -> rusqlite::Result<()> {
        if copy > row.ends {
            learn(self.session, row, row.kept, copy)?;
        }
        Ok(())
    }

    fn keep_receipt(&self, row: &Found, receipt: &Receipt) -> rusqlite::Result<()> {
        self.session
            .statement("UPDATE ledger_row SET receipt = ? WHERE at = ?")?
            .execute(params![&*receipt.0, row.at])?;
        Ok(())
    }
}
