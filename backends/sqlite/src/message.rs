//! Posting, reading and deleting messages.

use std::collections::HashSet;

use isimud_contract::{
    Arrival, ClaimId, Error, ErrorKind, Marker, Message, MessageId, Page, PageRoom, Precondition,
    QueueKey, Resource, Selection, Timestamp,
};
use rusqlite::{OptionalExtension, Row, Rows, params};
use uuid::Uuid;

use crate::queue_log::{self, QueueLog};
use crate::row::{Column, NEXT_COLUMN, columns, read, read_free};
use crate::session::Session;
use crate::worker_thread::Outcome;

/// `hold` of a free message.
pub(crate) const FREE: i64 = 0;
/// `hold` of a message that is damaged: nobody gets it any more.
pub(crate) const DAMAGED: i64 = -4;
/// `hold` of a message that waits until it is due.
pub(crate) const DELAYED: i64 = -1;

/// Appends messages, if the queue has no more than `most` of them then.
pub(crate) fn post(
    session: &mut Session,
    queue: &QueueKey,
    messages: &[Message],
    most: Option<u64>,
) -> Outcome<()> {
    let now = session.now();
    let arrival = messages
        .first()
        .map_or_else(Arrival::default, |first| first.arrival);
    let mut log = queue_log::open(session, queue, arrival)?;
    if !log.has_room(messages.len()) {
        return Ok(Err(queue_log::full()));
    }
    if let Some(most) = most
        && !has_room(session, &log, messages, most, now)?
    {
        return Ok(Err(Error::full(most)));
    }
    let mut first_end = i64::MAX;
    for message in messages {
        if insert(session, &mut log, message, now)? {
            first_end = first_end.min(now.after(message.remaining_ttl).0);
        }
    }
    session.next_expiry.expiry = session.next_expiry.expiry.min(first_end);
    session.put_log(log);
    Ok(Ok(()))
}

/// Whether a queue log has room for messages below a bound. The counter says so at once where it does; otherwise what
/// has expired and is not swept yet, and what the queue log has already, is taken off.
fn has_room(
    session: &Session,
    log: &QueueLog,
    messages: &[Message],
    most: u64,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let total = queue_log::count(log.total);
    if total.saturating_add(messages.len() as u64) <= most {
        return Ok(true);
    }
    let live = total.saturating_sub(queue_log::count(queue_log::expired(session, log, now)?.0));
    let mut new = HashSet::new();
    for message in messages {
        let found = find_target(session, log, message.id, now)?;
        if found.is_none_or(|found| !found.live) {
            new.insert(message.id);
        }
    }
    Ok(new.is_empty() || live.saturating_add(new.len() as u64) <= most)
}

/// Writes one message. `false` when its queue log has it already.
fn insert(
    session: &mut Session,
    log: &mut QueueLog,
    message: &Message,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let (mut row, came_with_it) = log.row_for(message.arrival, now);
    let mut written = insert_row(session, row, message, now)?;
    if !written {
        // What is there may have expired and wait for the sweep: then the name is free again.
        match find_target(session, log, message.id, now)? {
            Some(old) if !old.live => {
                remove_row(session, log, old.row, old.hold)?;
                written = insert_row(session, row, message, now)?;
            }
            Some(_) => return Ok(false),
            None => {}
        }
    }
    // Another message has the number that this one came with.
    if !written && came_with_it {
        row = log.numbering.take_row(now, 0);
        written = insert_row(session, row, message, now)?;
    }
    if !written {
        // A row number that was taken just now cannot be taken.
        return Err(rusqlite::Error::StatementChangedRows(0));
    }
    log.count_free(row);
    Ok(true)
}

fn insert_row(
    session: &mut Session,
    row: i64,
    message: &Message,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let delayed = !message.delay.is_zero();
    let due = if delayed {
        now.after(message.delay).0
    } else {
        0
    };
    let inserted = session
        .statement(
            "INSERT OR IGNORE INTO message
             (at, id, hold, expires, posted, ttl, due, claims, client, sealed, checksum, body, transfers, headers, sum)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            row,
            message.id.0.as_bytes(),
            if delayed { DELAYED } else { FREE },
            now.after(message.remaining_ttl).0,
            now.before(message.age).0,
            i64::try_from(message.ttl.as_millis()).unwrap_or(i64::MAX),
            due,
            message.claim_count,
            Column(&message.client),
            message.sealed,
            message.checksum.map(|sum| sum.0),
            &*message.body,
            message.transfers,
            message.headers.as_ref().map(|headers| &headers.as_bytes()[..]),
            crate::damage::sum(message),
        ])?;
    if delayed && inserted == 1 {
        session
            .statement("INSERT OR IGNORE INTO delay (due, at) VALUES (?, ?)")?
            .execute([due, row])?;
        session.next_expiry.delayed = true;
        session.next_expiry.release = session.next_expiry.release.min(due);
    }
    Ok(inserted == 1)
}

/// Everything in a row, for as long as little of it is held.
const SCAN: &str = concat!(
    "SELECT ",
    columns!(),
    ", m.hold FROM message m NOT INDEXED WHERE m.at > ? AND m.at <= ? ORDER BY m.at"
);

/// Free messages only.
const LIST_FREE: &str = concat!(
    "SELECT ",
    columns!(),
    ", m.hold FROM message m INDEXED BY message_by_hold
     WHERE m.hold = 0 AND m.at > ? AND m.at <= ? ORDER BY m.at"
);

/// Free messages, and of two more kinds the first of each, then the first of all: delayed ones (all of them, or those
/// that have become due), and those whose claim has ended.
macro_rules! list_unclaimed {
    ($delayed:literal) => {
        concat!(
            "SELECT ", columns!("NULL"), " FROM message m WHERE m.at IN (
                SELECT at FROM (SELECT at FROM message INDEXED BY message_by_hold
                    WHERE hold = 0 AND at > ?1 AND at <= ?2 AND expires > ?3 AND client IS NOT ?4 ORDER BY at LIMIT ?5)
                UNION ALL SELECT at FROM (SELECT h.at FROM ", $delayed, "
                    AND h.at > ?1 AND h.at <= ?2 AND h.expires > ?3 AND h.client IS NOT ?4 ORDER BY h.at LIMIT ?5)
                UNION ALL SELECT at FROM (SELECT h.at FROM claim CROSS JOIN message h INDEXED BY message_by_hold
                    ON h.hold = claim.no WHERE claim.expires <= ?3 AND h.at > ?1 AND h.at <= ?2 AND h.expires > ?3
                    AND h.client IS NOT ?4 ORDER BY h.at LIMIT ?5))
             ORDER BY m.at LIMIT ?5"
        )
    };
}

const LIST_WITH_DELAYED: &str =
    list_unclaimed!("message h INDEXED BY message_by_hold WHERE h.hold = -1");

const LIST_WITH_DUE: &str = list_unclaimed!(
    "delay CROSS JOIN message h ON h.at = delay.at WHERE delay.due <= ?3 AND h.hold = -1"
);

/// Everything, with or without delayed messages.
const LIST_ALL: &str = concat!(
    "SELECT ",
    columns!("c.id"),
    " FROM message m LEFT JOIN claim c ON c.no = m.hold AND c.expires > ?3
     WHERE m.at > ?1 AND m.at <= ?2 AND m.expires > ?3 AND m.client IS NOT ?4
       AND (?6 OR m.hold <> -1 OR m.due <= ?3) ORDER BY m.at LIMIT ?5"
);

pub(crate) fn list(
    session: &mut Session,
    queue: &QueueKey,
    selection: &Selection,
) -> Outcome<Page> {
    let now = session.now();
    let Some(log) = session.log(queue)? else {
        return Ok(Ok(Page::default()));
    };
    let after = position(session, &log, selection.after)?;
    let quiet = !session.next_expiry.delayed && !session.next_expiry.release_due(now);
    if quiet && !selection.include_claimed {
        return Ok(Ok(list_free(session, queue, &log, after, selection, now)?));
    }
    let sql = match (selection.include_claimed, selection.include_delayed) {
        (true, _) => LIST_ALL,
        (false, true) => LIST_WITH_DELAYED,
        (false, false) => LIST_WITH_DUE,
    };
    let mut statement = session.statement(sql)?;
    statement.raw_bind_parameter(1, after)?;
    statement.raw_bind_parameter(2, log.rows().end())?;
    statement.raw_bind_parameter(3, now.0)?;
    statement.raw_bind_parameter(4, selection.not_from.as_ref().map(Column))?;
    statement.raw_bind_parameter(5, i64::try_from(selection.limit).unwrap_or(i64::MAX))?;
    if selection.include_claimed {
        statement.raw_bind_parameter(6, selection.include_delayed)?;
    }
    let mut rows = statement.raw_query();
    let (mut page, mut room) = (Page::default(), PageRoom::default());
    while let Some(row) = rows.next()? {
        let message = session.whole(queue, row, |row| read(row, &log.numbering, now))?;
        if message.as_ref().is_some_and(|message| !room.takes(message)) {
            page.is_cut = true;
            break;
        }
        // Also behind one that is damaged, or the next page would begin with it again.
        page.marker = Some(Marker::Arrival(log.numbering.number(row.get(0)?)));
        page.messages.extend(message);
    }
    Ok(Ok(page))
}

/// Lists free messages while nothing waits for its release. Goes along the table, which is the cheapest way, until it
/// has passed some that are held; then by the index, which passes none.
fn list_free(
    session: &Session,
    queue: &QueueKey,
    log: &QueueLog,
    mut after: i64,
    selection: &Selection,
    now: Timestamp,
) -> rusqlite::Result<Page> {
    const HELD: usize = 8;
    let last = *log.rows().end();
    let mut page = Page::default();
    page.messages.reserve(selection.limit.min(32));
    for (sql, patience) in [(SCAN, HELD), (LIST_FREE, usize::MAX)] {
        let mut statement = session.statement(sql)?;
        let mut rows = statement.query([after, last])?;
        let mut add =
            |row: &Row<'_>| session.whole(queue, row, |row| read_free(row, &log.numbering, now));
        match add_free(&mut page, &mut rows, selection, &mut add, patience)? {
            Some(row) => after = row,
            None => break,
        }
    }
    Ok(page)
}

/// Fills a page with free messages. Gives up after passing more than `patience` held ones, and returns the last row.
fn add_free(
    page: &mut Page,
    rows: &mut Rows<'_>,
    selection: &Selection,
    read: &mut dyn FnMut(&Row<'_>) -> rusqlite::Result<Option<Message>>,
    patience: usize,
) -> rusqlite::Result<Option<i64>> {
    let (mut held, mut room) = (0, PageRoom::beside(&page.messages));
    while page.messages.len() < selection.limit
        && let Some(row) = rows.next()?
    {
        let at: i64 = row.get(0)?;
        if row.get::<_, i64>(NEXT_COLUMN)? != FREE {
            held += 1;
            if held > patience {
                return Ok(Some(at));
            }
            continue;
        }
        let Some(message) = read(row)? else {
            continue;
        };
        if !message.remaining_ttl.is_zero() && selection.not_from.as_ref() != Some(&message.client)
        {
            if !room.takes(&message) {
                page.is_cut = true;
                break;
            }
            page.marker = message.arrival.number().map(Marker::Arrival);
            page.messages.push(message);
        }
    }
    Ok(None)
}

/// The row after which a listing starts.
fn position(session: &Session, log: &QueueLog, marker: Option<Marker>) -> rusqlite::Result<i64> {
    let rows = log.rows();
    let row = match marker {
        None => None,
        Some(Marker::Arrival(number)) => Some(log.numbering.row_behind(number)),
        Some(Marker::Message(id)) => session
            .statement(
                "SELECT at FROM message WHERE id <= ? AND at >> 40 = ? ORDER BY id DESC LIMIT 1",
            )?
            .query_row(params![id.0.as_bytes(), log.no], |row| row.get(0))
            .optional()?,
    };
    Ok(row
        .filter(|row| rows.contains(row))
        .unwrap_or(*rows.start()))
}

const GET: &str = concat!(
    "SELECT ",
    columns!("c.id"),
    " FROM message m LEFT JOIN claim c ON c.no = m.hold AND c.expires > ?3
     WHERE m.id = ?1 AND m.at >> 40 = ?2 AND m.expires > ?3"
);

pub(crate) fn get(
    session: &mut Session,
    queue: &QueueKey,
    ids: &[MessageId],
) -> Outcome<Vec<Message>> {
    let now = session.now();
    let Some(log) = session.log(queue)? else {
        return Ok(Ok(Vec::new()));
    };
    let mut statement = session.statement(GET)?;
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        let message = statement
            .query_row(params![id.0.as_bytes(), log.no, now.0], |row| {
                session.whole(queue, row, |row| read(row, &log.numbering, now))
            })
            .optional()?;
        found.extend(message.flatten());
    }
    Ok(Ok(found))
}

/// A message that is to be deleted: where it stands, and who holds it.
pub(crate) struct Target {
    pub(crate) row: i64,
    pub(crate) hold: i64,
    pub(crate) live: bool,
    /// The live claim that holds it.
    claim: Option<ClaimId>,
}

pub(crate) fn delete(
    session: &mut Session,
    queue: &QueueKey,
    ids: &[MessageId],
    precondition: &Precondition,
) -> Outcome<usize> {
    let now = session.now();
    let Some(mut log) = session.log(queue)? else {
        return Ok(Ok(0));
    };
    let mut targets = Vec::with_capacity(ids.len());
    for id in ids {
        targets.extend(find_target(session, &log, *id, now)?);
    }
    for target in targets.iter().filter(|target| target.live) {
        if let Err(refusal) = allowed(session, &log, target, precondition, now)? {
            return Ok(Err(refusal));
        }
    }
    let mut deleted = 0;
    for target in targets {
        if remove_row(session, &mut log, target.row, target.hold)? && target.live {
            deleted += 1;
        }
    }
    session.put_log(log);
    Ok(Ok(deleted))
}

pub(crate) fn find_target(
    session: &Session,
    log: &QueueLog,
    id: MessageId,
    now: Timestamp,
) -> rusqlite::Result<Option<Target>> {
    session
        .statement(
            "SELECT m.at, m.hold, m.expires > ?3, c.id FROM message m
             LEFT JOIN claim c ON c.no = m.hold AND c.expires > ?3 WHERE m.id = ?1 AND m.at >> 40 = ?2",
        )?
        .query_row(params![id.0.as_bytes(), log.no, now.0], |row| {
            let claim = row.get::<_, Option<[u8; 16]>>(3)?.map(|id| ClaimId(Uuid::from_bytes(id)));
            Ok(Target { row: row.get(0)?, hold: row.get(1)?, live: row.get(2)?, claim })
        })
        .optional()
}

/// The rules of [`Precondition`].
fn allowed(
    session: &Session,
    log: &QueueLog,
    target: &Target,
    precondition: &Precondition,
    now: Timestamp,
) -> Outcome<()> {
    let refused = |kind, sentence: &'static str| Ok(Err(Error::new(kind, sentence)));
    match (precondition, target.claim) {
        (Precondition::None, _) | (Precondition::Unclaimed, None) => Ok(Ok(())),
        (Precondition::Unclaimed, Some(_)) => refused(ErrorKind::Claimed, "the message is claimed"),
        (Precondition::ClaimedBy(_), None) => {
            refused(ErrorKind::NotClaimed, "the message is not claimed")
        }
        (Precondition::ClaimedBy(claims), Some(holder)) if claims.contains(&holder) => Ok(Ok(())),
        (Precondition::ClaimedBy(claims), Some(_)) => {
            for claim in claims {
                if crate::claim::find_live(session, log, *claim, now)?.is_some() {
                    return refused(ErrorKind::Claimed, "another claim holds the message");
                }
            }
            Ok(Err(Error::not_found(Resource::Claim)))
        }
    }
}

/// Deletes a row and takes it out of its queue log's counters. `false` when it is gone already.
pub(crate) fn remove_row(
    session: &Session,
    log: &mut QueueLog,
    row: i64,
    hold: i64,
) -> rusqlite::Result<bool> {
    let removed = session
        .statement("DELETE FROM message WHERE at = ?")?
        .execute([row])?
        == 1;
    if removed {
        log.total -= 1;
        log.held -= i64::from(hold > 0);
    }
    Ok(removed)
}

pub(crate) fn pop(session: &mut Session, queue: &QueueKey, limit: usize) -> Outcome<Vec<Message>> {
    let now = session.now();
    let Some((mut log, head)) = Head::take(session, queue, now, limit, |_| true)? else {
        return Ok(Ok(Vec::new()));
    };
    for (row, _) in &head.taken {
        remove_row(session, &mut log, *row, FREE)?;
    }
    session.put_log(log);
    Ok(Ok(head
        .taken
        .into_iter()
        .map(|(_, message)| message)
        .collect()))
}

/// The free messages at the head of a queue.
#[derive(Default)]
pub(crate) struct Head {
    /// Those to deliver, with their rows.
    pub(crate) taken: Vec<(i64, Message)>,
    /// Those that a dead-letter policy refuses to deliver.
    pub(crate) refused: Vec<(i64, MessageId)>,
    /// The rows of those that are damaged.
    damaged: Vec<i64>,
}

const HEAD: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM message m INDEXED BY message_by_hold
     WHERE m.hold = 0 AND m.at >= ? AND m.at <= ? AND m.expires > ? ORDER BY m.at"
);

impl Head {
    /// Messages that one call may refuse to deliver.
    const REFUSED: usize = 500;

    /// Finds up to `limit` messages that `fit`, oldest first. `None` when the queue has no queue log.
    pub(crate) fn take(
        session: &mut Session,
        queue: &QueueKey,
        now: Timestamp,
        limit: usize,
        fit: impl Fn(&Message) -> bool,
    ) -> rusqlite::Result<Option<(QueueLog, Self)>> {
        crate::sweep::release_all(session, now)?;
        let Some(mut log) = session.log(queue)? else {
            return Ok(None);
        };
        let head = Self::read(session, queue, &log, now, limit, fit)?;
        for row in &head.damaged {
            session
                .statement("UPDATE message SET hold = ? WHERE at = ?")?
                .execute([DAMAGED, *row])?;
        }
        // What was passed has expired and stays so: the next call begins behind it.
        let first = head.taken.iter().map(|(row, _)| *row);
        let first = first.chain(head.refused.iter().map(|(row, _)| *row)).min();
        log.low_watermark = first.map_or(log.last_row(), |row| row - 1);
        session.set_low_watermark(log.no, log.low_watermark);
        Ok(Some((log, head)))
    }

    fn read(
        session: &Session,
        queue: &QueueKey,
        log: &QueueLog,
        now: Timestamp,
        limit: usize,
        fit: impl Fn(&Message) -> bool,
    ) -> rusqlite::Result<Self> {
        let (mut head, mut room) = (Self::default(), PageRoom::default());
        let mut statement = session.statement(HEAD)?;
        let mut rows = statement.query([log.first_row(), *log.rows().end(), now.0])?;
        while head.taken.len() < limit
            && head.refused.len() < Self::REFUSED
            && let Some(row) = rows.next()?
        {
            let whole = session.whole(queue, row, |row| read_free(row, &log.numbering, now))?;
            let Some(message) = whole else {
                head.damaged.push(row.get(0)?);
                if head.damaged.len() >= Self::REFUSED {
                    break;
                }
                continue;
            };
            if fit(&message) {
                if !room.takes(&message) {
                    break;
                }
                head.taken.push((row.get(0)?, message));
            } else {
                head.refused.push((row.get(0)?, message.id));
            }
        }
        Ok(head)
    }
}
