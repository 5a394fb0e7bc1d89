//! Claims of the ledger, and deletes.

use std::collections::BTreeSet;
use std::time::Duration;

use isimud_contract::{
    Claim, ClaimId, Error, ErrorKind, ImportedClaim, Lease, MessageId, Precondition, Receipt,
    Renewed, Resource, Timestamp, UnknownIds,
};
use rusqlite::{OptionalExtension, Row, params};
use uuid::Uuid;

use crate::claim::millis;
use crate::ledger::Key;
use crate::ledger::queue::Record;
use crate::ledger::row::{self, DELAYED, FREE, Found, State};
use crate::row::{NEXT_COLUMN, columns, read};
use crate::session::Session;
use crate::worker_thread::Outcome;

/// A claim's row, while it is live.
struct LiveClaim {
    no: i64,
    ttl: Duration,
    renewed: Timestamp,
    expires: i64,
}

fn find_live(
    session: &Session,
    record: &Record,
    claim: ClaimId,
    now: Timestamp,
) -> rusqlite::Result<Option<LiveClaim>> {
    session
        .statement(
            "SELECT no, ttl, renewed, expires FROM ledger_claim
             WHERE queue = ? AND id = ? AND era = ? AND expires > ?",
        )?
        .query_row(
            params![record.no, claim.0.as_bytes(), record.epoch, now.0],
            |row| {
                Ok(LiveClaim {
                    no: row.get(0)?,
                    ttl: Duration::from_millis(row.get::<_, i64>(1)?.unsigned_abs()),
                    renewed: Timestamp(row.get(2)?),
                    expires: row.get(3)?,
                })
            },
        )
        .optional()
}

pub(crate) fn is_live(
    session: &Session,
    record: &Record,
    claim: ClaimId,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    Ok(find_live(session, record, claim, now)?.is_some())
}

/// The number and the end of the claim that a lease names: one that runs already, or a new one.
pub(crate) fn joined_claim(
    session: &mut Session,
    record: &mut Record,
    lease: &Lease,
    now: Timestamp,
) -> rusqlite::Result<(i64, i64)> {
    if let Some(live) = find_live(session, record, lease.id, now)? {
        return Ok((live.no, live.expires));
    }
    clear_name(session, record, lease.id)?;
    begin_claim(session, record, Some(lease.id), lease.ttl, now)
}

/// Ends a claim of this name that is over, or from before a purge, and waits for its sweep.
fn clear_name(session: &Session, record: &mut Record, id: ClaimId) -> rusqlite::Result<()> {
    let ended: Option<(i64, i64)> = session
        .statement("SELECT no, era FROM ledger_claim WHERE queue = ? AND id = ?")?
        .query_row(params![record.no, id.0.as_bytes()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    if let Some((no, epoch)) = ended {
        let freed = free_all(session, no)?;
        record.held -= if epoch == record.epoch { freed } else { 0 };
    }
    Ok(())
}

pub(crate) fn begin_claim(
    session: &mut Session,
    record: &Record,
    id: Option<ClaimId>,
    ttl: Duration,
    now: Timestamp,
) -> rusqlite::Result<(i64, i64)> {
    let ends = now.after(ttl).0;
    session
        .statement(
            "INSERT INTO ledger_claim (id, queue, era, ttl, renewed, expires) VALUES (?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            id.map(|id| id.0.into_bytes()),
            record.no,
            record.epoch,
            millis(ttl),
            now.0,
            ends
        ])?;
    session.ledger_end = session.ledger_end.min(ends);
    Ok((session.last_number(), ends))
}

/// Frees what a claim still holds and ends it. Returns how many rows that were.
pub(crate) fn free_all(session: &Session, no: i64) -> rusqlite::Result<i64> {
    let freed = session
        .statement("UPDATE ledger_row SET hold = 0 WHERE hold = ?")?
        .execute([no])?;
    session
        .statement("DELETE FROM ledger_claim WHERE no = ?")?
        .execute([no])?;
    Ok(i64::try_from(freed).unwrap_or(0))
}

fn no_claim<T>() -> Outcome<T> {
    Ok(Err(Error::not_found(Resource::Claim)))
}

const HELD: &str = concat!(
    "SELECT ",
    columns!("?3"),
    ", m.receipt, m.expires > m.kept FROM ledger_row m INDEXED BY ledger_by_hold
     WHERE m.hold = ?1 AND m.expires > ?2 ORDER BY m.at"
);

pub(crate) fn find(session: &mut Session, key: &Key, id: ClaimId) -> Outcome<Claim> {
    let now = session.now();
    let Some(record) = Record::find(session, key)? else {
        return no_claim();
    };
    let Some(claim) = find_live(session, &record, id, now)? else {
        return no_claim();
    };
    let messages = session
        .statement(HELD)?
        .query_map(params![claim.no, now.0, id.0.as_bytes()], |row| {
            read(row, &record.numbering, now)
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Ok(Claim {
        id,
        ttl: claim.ttl,
        age: now.since(claim.renewed),
        messages,
    }))
}

pub(crate) fn renew(
    session: &mut Session,
    key: &Key,
    lease: &Lease,
    sent: Timestamp,
) -> Outcome<Renewed> {
    let now = session.now();
    let Some(record) = Record::find(session, key)? else {
        return no_claim();
    };
    let Some(claim) = find_live(session, &record, lease.id, now)? else {
        return no_claim();
    };
    let ends = now.after(lease.ttl).0;
    session
        .statement("UPDATE ledger_claim SET ttl = ?, renewed = ?, expires = ? WHERE no = ?")?
        .execute(params![millis(lease.ttl), now.0, ends, claim.no])?;
    session.ledger_end = session.ledger_end.min(ends);
    let life = lease.ttl + lease.grace;
    session
        .statement(
            "UPDATE ledger_row SET ttl = ?1, expires = ?2 WHERE hold = ?3 AND expires > ?4 AND expires <= ?5",
        )?
        .execute(params![millis(life), now.after(life).0, claim.no, now.0, ends])?;
    // Whatever the broker is to be told again is told at `sent`, by another clock.
    let ahead = sent.0.saturating_sub(now.0).max(0);
    session
        .statement(
            "UPDATE ledger_row SET ends = max(ends, expires + ?1) WHERE hold = ?2 AND expires > ?3 AND expires > kept",
        )?
        .execute([ahead, claim.no, now.0])?;
    let mut renewed = Renewed::default();
    let mut statement = session.statement(HELD)?;
    let mut rows = statement.query(params![claim.no, now.0, lease.id.0.as_bytes()])?;
    while let Some(row) = rows.next()? {
        let receipt = receipt(row, NEXT_COLUMN + 2)?;
        renewed.receipts.extend(receipt.clone());
        if row.get(NEXT_COLUMN + 3)? {
            let message = read(row, &record.numbering, now)?;
            renewed.longer.push((message, receipt));
        }
    }
    Ok(Ok(renewed))
}

fn receipt(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Receipt>> {
    let bytes: Option<Vec<u8>> = row.get(column)?;
    Ok(bytes.map(|bytes| Receipt(bytes.into())))
}

/// Ends a claim. One that is undone was no delivery.
pub(crate) fn release(
    session: &mut Session,
    key: &Key,
    id: ClaimId,
    is_undone: bool,
) -> Outcome<Vec<Receipt>> {
    let now = session.now();
    let Some(mut record) = Record::find(session, key)? else {
        return Ok(Ok(Vec::new()));
    };
    let Some(claim) = find_live(session, &record, id, now)? else {
        return Ok(Ok(Vec::new()));
    };
    let receipts = session
        .statement(
            "SELECT receipt FROM ledger_row WHERE hold = ? AND receipt IS NOT NULL ORDER BY at",
        )?
        .query_map([claim.no], |row| receipt(row, 0))?
        .filter_map(Result::transpose)
        .collect::<rusqlite::Result<_>>()?;
    if is_undone {
        session
            .statement("UPDATE ledger_row SET claims = max(claims - 1, 0) WHERE hold = ?")?
            .execute([claim.no])?;
    }
    record.held -= free_all(session, claim.no)?;
    record.keep(session)?;
    Ok(Ok(receipts))
}

/// Puts free messages under a claim that was made elsewhere.
pub(crate) fn import_claim(
    session: &mut Session,
    key: &Key,
    claim: ImportedClaim,
    ids: &[MessageId],
) -> Outcome<usize> {
    let now = session.now();
    let Some(mut record) = Record::find(session, key)? else {
        return Ok(Ok(0));
    };
    let mut no = find_live(session, &record, claim.id, now)?.map(|live| live.no);
    if no.is_none() && claim.age >= claim.ttl {
        return Ok(Ok(0));
    }
    let mut held = BTreeSet::new();
    for id in ids {
        let target = find_target(session, &record, *id, now)?;
        let Some(target) = target.filter(|target| target.state == State::Live) else {
            continue;
        };
        if target.is_free(now) {
            let no = match no {
                Some(no) => no,
                None => {
                    clear_name(session, &mut record, claim.id)?;
                    let renewed = now.before(claim.age);
                    let begun = begin_claim(session, &record, Some(claim.id), claim.ttl, renewed)?;
                    *no.insert(begun.0)
                }
            };
            session
                .statement("UPDATE ledger_row SET hold = ? WHERE at = ?")?
                .execute([no, target.at])?;
            record.held += i64::from(target.hold <= FREE);
        } else if Some(target.hold) != no {
            continue;
        }
        held.insert(target.at);
    }
    record.keep(session)?;
    Ok(Ok(held.len()))
}

/// A row that is to be deleted, or held.
struct Target {
    at: i64,
    hold: i64,
    state: State,
    due: i64,
    receipt: Option<Receipt>,
    /// A live claim holds it, perhaps one without an id.
    held: bool,
    claim: Option<ClaimId>,
}

impl Target {
    fn is_free(&self, now: Timestamp) -> bool {
        !self.held && (self.hold != DELAYED || self.due <= now.0)
    }
}

fn find_target(
    session: &Session,
    record: &Record,
    id: MessageId,
    now: Timestamp,
) -> rusqlite::Result<Option<Target>> {
    session
        .statement(
            "SELECT m.at, m.hold, m.expires, m.receipt, c.no, c.id, m.due FROM ledger_row m
             LEFT JOIN ledger_claim c ON c.no = m.hold AND c.expires > ?3 WHERE m.id = ?1 AND m.at >> 40 = ?2",
        )?
        .query_row(params![id.0.as_bytes(), record.no, now.0], |row| {
            let (at, hold) = (row.get(0)?, row.get(1)?);
            let claim: Option<[u8; 16]> = row.get(5)?;
            Ok(Target {
                at,
                hold,
                state: row::state(record, at, hold, row.get(2)?, now),
                receipt: receipt(row, 3)?,
                due: row.get(6)?,
                held: row.get::<_, Option<i64>>(4)?.is_some(),
                claim: claim.map(|id| ClaimId(Uuid::from_bytes(id))),
            })
        })
        .optional()
}

pub(crate) fn delete(
    session: &mut Session,
    key: &Key,
    ids: &[MessageId],
    precondition: &Precondition,
    unknown_ids: UnknownIds,
) -> Outcome<(usize, Vec<Receipt>)> {
    let now = session.now();
    let record = Record::find(session, key)?;
    let mut targets = Vec::with_capacity(ids.len());
    for id in ids {
        let target = match &record {
            Some(record) => find_target(session, record, *id, now)?,
            None => None,
        };
        match (target, unknown_ids) {
            (Some(target), _) => targets.push(target),
            (None, UnknownIds::Ignore) => {}
            (None, UnknownIds::Reject) => {
                let (kind, sentence) = match precondition {
                    Precondition::ClaimedBy(_) => {
                        (ErrorKind::NotClaimed, "the message is not claimed")
                    }
                    _ => (ErrorKind::Unsupported, "the message may exist unclaimed"),
                };
                return Ok(Err(Error::new(kind, sentence)));
            }
        }
    }
    let Some(mut record) = record else {
        return Ok(Ok((0, Vec::new())));
    };
    targets.retain(|target| target.state == State::Live);
    for target in &targets {
        if let Err(refusal) = allowed(session, &record, target, precondition, now)? {
            return Ok(Err(refusal));
        }
    }
    let (mut count, mut receipts) = (0, Vec::new());
    for target in targets {
        if row::leave_tombstone(session, &mut record, target.at, target.hold)? {
            count += 1;
            receipts.extend(target.receipt);
        }
    }
    record.keep(session)?;
    Ok(Ok((count, receipts)))
}

/// Takes out rows that nobody holds and no delay holds back. They leave nothing behind.
pub(crate) fn forget(session: &mut Session, key: &Key, ids: &[MessageId]) -> Outcome<usize> {
    let now = session.now();
    let Some(mut record) = Record::find(session, key)? else {
        return Ok(Ok(0));
    };
    let mut count = 0;
    for id in ids {
        let found = Found::find(session, &record, *id, now)?;
        let free = |row: &Found| {
            row.state == State::Live && row.held_until.is_none() && row.message.delay.is_zero()
        };
        if let Some(row) = found.filter(free) {
            row::remove(session, &mut record, &row)?;
            count += 1;
        }
    }
    record.keep(session)?;
    Ok(Ok(count))
}

/// The rules of [`Precondition`].
fn allowed(
    session: &Session,
    record: &Record,
    target: &Target,
    precondition: &Precondition,
    now: Timestamp,
) -> Outcome<()> {
    let refused = |kind, sentence: &'static str| Ok(Err(Error::new(kind, sentence)));
    match precondition {
        Precondition::None => Ok(Ok(())),
        Precondition::Unclaimed if target.held => {
            refused(ErrorKind::Claimed, "the message is claimed")
        }
        Precondition::Unclaimed => Ok(Ok(())),
        Precondition::ClaimedBy(_) if !target.held => {
            refused(ErrorKind::NotClaimed, "the message is not claimed")
        }
        Precondition::ClaimedBy(claims)
            if target.claim.is_some_and(|holder| claims.contains(&holder)) =>
        {
            Ok(Ok(()))
        }
        Precondition::ClaimedBy(claims) => {
            for claim in claims {
                if find_live(session, record, *claim, now)?.is_some() {
                    return refused(ErrorKind::Claimed, "another claim holds the message");
                }
            }
            no_claim()
        }
    }
}
