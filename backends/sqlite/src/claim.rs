//! Claims: taking messages out of circulation, and putting them back.

use std::collections::BTreeSet;
use std::time::Duration;

use isimud_contract::{
    Arrival, Claim, ClaimId, DeadLetter, Error, ErrorKind, ImportedClaim, Lease, Message,
    MessageId, QueueKey, Resource, Timestamp,
};
use rusqlite::{OptionalExtension, params};

use crate::message::{FREE, Head, find_target, remove_row};
use crate::queue_log::{self, QueueLog};
use crate::row::{columns, read};
use crate::session::Session;
use crate::worker_thread::Outcome;

/// A claim's row, while it is live.
pub(crate) struct LiveClaim {
    no: i64,
    ttl: Duration,
    renewed: Timestamp,
}

pub(crate) fn find_live(
    session: &Session,
    log: &QueueLog,
    claim: ClaimId,
    now: Timestamp,
) -> rusqlite::Result<Option<LiveClaim>> {
    session
        .statement(
            "SELECT no, ttl, renewed FROM claim WHERE id = ? AND stream = ? AND expires > ?",
        )?
        .query_row(params![claim.0.as_bytes(), log.no, now.0], |row| {
            let ttl = Duration::from_millis(row.get::<_, i64>(1)?.unsigned_abs());
            Ok(LiveClaim {
                no: row.get(0)?,
                ttl,
                renewed: Timestamp(row.get(2)?),
            })
        })
        .optional()
}

pub(crate) fn claim(
    session: &mut Session,
    queue: &QueueKey,
    lease: &Lease,
    limit: usize,
) -> Outcome<Option<Claim>> {
    let now = session.now();
    let policy = lease.dead_letter.as_ref();
    let fit =
        |message: &Message| policy.is_none_or(|policy| message.claim_count < policy.max_claims);
    let Some((mut log, mut head)) = Head::take(session, queue, now, limit, fit)? else {
        return Ok(Ok(None));
    };
    if !head.taken.is_empty() {
        let no = insert_claim(session, &log, lease.id, lease.ttl, now)?;
        for (row, message) in &mut head.taken {
            take(session, no, *row, message, lease, now)?;
        }
        log.held += i64::try_from(head.taken.len()).unwrap_or(0);
        session.put_log(log);
    }
    if let Some(policy) = policy {
        dead_letter_refused(session, log, &head.refused, policy, now)?;
    }
    if head.taken.is_empty() {
        return Ok(Ok(None));
    }
    let messages = head.taken.into_iter().map(|(_, message)| message).collect();
    Ok(Ok(Some(Claim {
        id: lease.id,
        ttl: lease.ttl,
        age: Duration::ZERO,
        messages,
    })))
}

fn insert_claim(
    session: &mut Session,
    log: &QueueLog,
    id: ClaimId,
    ttl: Duration,
    renewed: Timestamp,
) -> rusqlite::Result<i64> {
    let ends = renewed.after(ttl).0;
    session
        .statement("INSERT INTO claim (id, stream, ttl, renewed, expires) VALUES (?, ?, ?, ?, ?)")?
        .execute(params![
            id.0.as_bytes(),
            log.no,
            millis(ttl),
            renewed.0,
            ends
        ])?;
    session.next_expiry.release = session.next_expiry.release.min(ends);
    Ok(session.last_number())
}

/// Puts a message under a claim: in the table, and in the answer.
fn take(
    session: &Session,
    claim: i64,
    row: i64,
    message: &mut Message,
    lease: &Lease,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let extended = message.remaining_ttl <= lease.ttl;
    message.claim = Some(lease.id);
    message.claim_count += u32::from(lease.dead_letter.is_some());
    if extended {
        message.ttl = lease.ttl + lease.grace;
        message.remaining_ttl = message.ttl;
    }
    if extended || lease.dead_letter.is_some() {
        session
            .statement(
                "UPDATE message SET hold = ?, ttl = ?, expires = ?, claims = ? WHERE at = ?",
            )?
            .execute(params![
                claim,
                millis(message.ttl),
                now.after(message.remaining_ttl).0,
                message.claim_count,
                row
            ])?;
    } else {
        session
            .statement("UPDATE message SET hold = ? WHERE at = ?")?
            .execute([claim, row])?;
    }
    Ok(())
}

/// Moves messages to the end of the dead-letter queue, where they are free at once and counted anew.
fn dead_letter_refused(
    session: &mut Session,
    mut from: QueueLog,
    refused: &[(i64, MessageId)],
    policy: &DeadLetter,
    now: Timestamp,
) -> rusqlite::Result<()> {
    if refused.is_empty() {
        return Ok(());
    }
    // Those that keep their numbers are together, the first one in front.
    let first = refused
        .first()
        .map_or(0, |(row, _)| from.numbering.number(*row));
    let arrival = policy.stands.arrival(Arrival::At(first));
    let mut to = queue_log::open(session, &policy.queue, arrival)?;
    if !to.has_room(refused.len()) {
        // They stay where they are until the dead-letter queue is purged.
        return Ok(());
    }
    let ends = policy.ttl.map(|ttl| now.after(ttl).0);
    session.next_expiry.expiry = session.next_expiry.expiry.min(ends.unwrap_or(i64::MAX));
    for (row, id) in refused {
        if to.no != from.no {
            from.total -= 1;
            // The target has it when it was posted again after a move, its answer having been lost.
            if let Some(old) = find_target(session, &to, *id, now)? {
                remove_row(session, &mut to, old.row, old.hold)?;
            }
        }
        let number = Arrival::At(from.numbering.number(*row));
        let (mut new, came_with_it) = to.row_for(policy.stands.arrival(number), now);
        if came_with_it && is_taken(session, new)? {
            new = to.numbering.take_row(now, 0);
        }
        if to.no != from.no {
            to.count_free(new);
        }
        session
            .statement(
                "UPDATE message SET at = ?, hold = 0, claims = 0, ttl = coalesce(?, ttl),
                 expires = coalesce(?, expires), transfers = transfers + ? WHERE at = ?",
            )?
            .execute(params![
                new,
                policy.ttl.map(millis),
                ends,
                to.no != from.no,
                row
            ])?;
    }
    if to.no != from.no {
        session.put_log(from);
    }
    session.put_log(to);
    Ok(())
}

/// Whether a row number is one of a message.
fn is_taken(session: &Session, row: i64) -> rusqlite::Result<bool> {
    session
        .statement("SELECT EXISTS (SELECT 1 FROM message WHERE at = ?)")?
        .query_row([row], |row| row.get(0))
}

const HELD: &str = concat!(
    "SELECT ",
    columns!("?3"),
    " FROM message m INDEXED BY message_by_hold
     WHERE m.hold = ?1 AND m.expires > ?2 ORDER BY m.at"
);

pub(crate) fn find(session: &mut Session, queue: &QueueKey, id: ClaimId) -> Outcome<Claim> {
    let now = session.now();
    let Some(log) = session.log(queue)? else {
        return Ok(Err(Error::not_found(Resource::Claim)));
    };
    let Some(claim) = find_live(session, &log, id, now)? else {
        return Ok(Err(Error::not_found(Resource::Claim)));
    };
    let messages = session
        .statement(HELD)?
        .query_map(params![claim.no, now.0, id.0.as_bytes()], |row| {
            session.whole(queue, row, |row| read(row, &log.numbering, now))
        })?
        .filter_map(Result::transpose)
        .collect::<rusqlite::Result<_>>()?;
    Ok(Ok(Claim {
        id,
        ttl: claim.ttl,
        age: now.since(claim.renewed),
        messages,
    }))
}

pub(crate) fn renew(session: &mut Session, queue: &QueueKey, lease: &Lease) -> Outcome<()> {
    let now = session.now();
    let Some(log) = session.log(queue)? else {
        return Ok(Err(Error::not_found(Resource::Claim)));
    };
    let Some(claim) = find_live(session, &log, lease.id, now)? else {
        return Ok(Err(Error::not_found(Resource::Claim)));
    };
    let ends = now.after(lease.ttl).0;
    session
        .statement("UPDATE claim SET ttl = ?, renewed = ?, expires = ? WHERE no = ?")?
        .execute(params![millis(lease.ttl), now.0, ends, claim.no])?;
    let life = lease.ttl + lease.grace;
    session
        .statement(
            "UPDATE message SET ttl = ?, expires = ? WHERE hold = ? AND expires > ? AND expires <= ?",
        )?
        .execute(params![millis(life), now.after(life).0, claim.no, now.0, ends])?;
    session.next_expiry.release = session.next_expiry.release.min(ends);
    Ok(Ok(()))
}

/// Ends a claim. One that is undone was no delivery.
pub(crate) fn release(
    session: &mut Session,
    queue: &QueueKey,
    id: ClaimId,
    is_undone: bool,
) -> Outcome<()> {
    let now = session.now();
    let Some(mut log) = session.log(queue)? else {
        return Ok(Ok(()));
    };
    if let Some(claim) = find_live(session, &log, id, now)? {
        if is_undone {
            session
                .statement("UPDATE message SET claims = max(claims - 1, 0) WHERE hold = ?")?
                .execute([claim.no])?;
        }
        let (rows, first) = free_all(session, claim.no)?;
        log.freed(rows, first);
        session.put_log(log);
    }
    Ok(Ok(()))
}

/// Puts free messages under a claim that was made elsewhere.
pub(crate) fn import_claim(
    session: &mut Session,
    queue: &QueueKey,
    claim: ImportedClaim,
    ids: &[MessageId],
) -> Outcome<usize> {
    let now = session.now();
    let renewed = now.before(claim.age);
    crate::sweep::release_all(session, now)?;
    let Some(mut log) = session.log(queue)? else {
        return Ok(Ok(0));
    };
    let mut no = find_live(session, &log, claim.id, now)?.map(|live| live.no);
    if no.is_none() && claim.age >= claim.ttl {
        return Ok(Ok(0));
    }
    if no.is_none()
        && let Err(refusal) = clear_name(session, &mut log, claim.id, now)?
    {
        return Ok(Err(refusal));
    }
    let mut held = BTreeSet::new();
    for id in ids {
        let Some(target) = find_target(session, &log, *id, now)?.filter(|target| target.live)
        else {
            continue;
        };
        if target.hold == FREE {
            let no = match no {
                Some(no) => no,
                None => *no.insert(insert_claim(session, &log, claim.id, claim.ttl, renewed)?),
            };
            session
                .statement("UPDATE message SET hold = ? WHERE at = ?")?
                .execute([no, target.row])?;
            log.held += 1;
        } else if Some(target.hold) != no {
            continue;
        }
        held.insert(target.row);
    }
    session.put_log(log);
    Ok(Ok(held.len()))
}

/// Ends a claim of this name that is over, or whose queue was purged, and waits for its sweep. Another queue's live
/// claim is a refusal.
fn clear_name(
    session: &mut Session,
    here: &mut QueueLog,
    claim: ClaimId,
    now: Timestamp,
) -> Outcome<()> {
    let found: Option<(i64, i64, i64)> = session
        .statement("SELECT no, stream, expires FROM claim WHERE id = ?")?
        .query_row([claim.0.as_bytes()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((no, of, ends)) = found else {
        return Ok(Ok(()));
    };
    if of == here.no {
        let (rows, first) = free_all(session, no)?;
        here.freed(rows, first);
    } else if let Some(mut log) = session.log_by_number(of)? {
        if ends > now.0 {
            let kind = ErrorKind::AlreadyExists(Resource::Claim);
            let refusal = Error::new(kind, "a claim of another queue has this id");
            return Ok(Err(refusal));
        }
        let (rows, first) = free_all(session, no)?;
        log.freed(rows, first);
        session.put_log(log);
    } else {
        free_all(session, no)?;
    }
    Ok(Ok(()))
}

/// Frees what a claim still holds and ends it. Returns how many rows that were, and the first of them.
pub(crate) fn free_all(session: &Session, no: i64) -> rusqlite::Result<(i64, i64)> {
    let first: Option<i64> = session
        .statement("SELECT min(at) FROM message WHERE hold = ?")?
        .query_row([no], |row| row.get(0))?;
    let freed = session
        .statement("UPDATE message SET hold = 0 WHERE hold = ?")?
        .execute([no])?;
    session
        .statement("DELETE FROM claim WHERE no = ?")?
        .execute([no])?;
    Ok((i64::try_from(freed).unwrap_or(0), first.unwrap_or(i64::MAX)))
}

pub(crate) fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
