//! Subscriptions. What has expired is compared away by every query, and swept.

use std::time::Duration;

use isimud_contract::{
    Error, ErrorKind, QueueKey, Resource, Subscription, SubscriptionChange, SubscriptionId,
    Timestamp, read_metadata,
};
use rusqlite::{OptionalExtension, Row, params};
use uuid::Uuid;

use crate::pool::most;
use crate::queue::{damaged, json};
use crate::session::Session;
use crate::worker_thread::Outcome;

const LIVE: &str = "SELECT id, subscriber, ttl, made, options, confirmed FROM subscription
    WHERE project = ?1 AND name = ?2 AND expires > ?3";

/// A subscription, and when its life began.
struct Found {
    subscription: Subscription,
    made: Timestamp,
}

fn read(row: &Row<'_>, source: &QueueKey, now: Timestamp) -> rusqlite::Result<Found> {
    let made = Timestamp(row.get(3)?);
    let options = row.get_ref(4)?.as_str()?;
    let subscription = Subscription {
        id: SubscriptionId(Uuid::from_bytes(row.get(0)?)),
        source: source.clone(),
        subscriber: row.get(1)?,
        ttl: Duration::from_millis(row.get::<_, i64>(2)?.unsigned_abs()),
        age: now.since(made),
        options: read_metadata(options).map_err(|error| damaged(4, error))?,
        confirmed: row.get(5)?,
    };
    Ok(Found { subscription, made })
}

/// The live subscription for a subscriber.
fn for_subscriber(
    session: &Session,
    source: &QueueKey,
    subscriber: &str,
    now: Timestamp,
) -> rusqlite::Result<Option<Found>> {
    session
        .statement(&format!("{LIVE} AND subscriber = ?4"))?
        .query_row(
            params![
                source.project.as_str(),
                source.name.as_str(),
                now.0,
                subscriber
            ],
            |row| read(row, source, now),
        )
        .optional()
}

fn by_id(
    session: &Session,
    source: &QueueKey,
    id: SubscriptionId,
    now: Timestamp,
) -> rusqlite::Result<Option<Found>> {
    session
        .statement(&format!("{LIVE} AND id = ?4"))?
        .query_row(
            params![
                source.project.as_str(),
                source.name.as_str(),
                now.0,
                id.0.as_bytes()
            ],
            |row| read(row, source, now),
        )
        .optional()
}

fn changed() -> Error {
    let changed = ErrorKind::InUse(Resource::Subscription);
    Error::new(changed, "the subscription has another address now")
}

fn taken() -> Error {
    let taken = ErrorKind::AlreadyExists(Resource::Subscription);
    Error::new(taken, "the queue has a subscription like that")
}

pub(crate) fn create(session: &mut Session, new: &Subscription) -> Outcome<Option<Subscription>> {
    let (source, now) = (&new.source, session.now());
    if let Some(present) = for_subscriber(session, source, &new.subscriber, now)? {
        return Ok(Ok(Some(present.subscription)));
    }
    if by_id(session, source, new.id, now)?.is_some() {
        return Ok(Err(taken()));
    }
    // What is there by that id or that subscriber has expired.
    write(session, new, now)?;
    Ok(Ok(None))
}

/// Writes a subscription whose life began at a moment, in the place of what is there by its id or for its subscriber.
fn write(session: &mut Session, new: &Subscription, made: Timestamp) -> rusqlite::Result<()> {
    let expires = made.after(new.ttl);
    session
        .statement(
            "INSERT OR REPLACE INTO subscription
             (project, name, id, subscriber, ttl, made, expires, options, confirmed)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            new.source.project.as_str(),
            new.source.name.as_str(),
            new.id.0.as_bytes(),
            new.subscriber,
            i64::try_from(new.ttl.as_millis()).unwrap_or(i64::MAX),
            made.0,
            expires.0,
            json(&new.options)?,
            new.confirmed,
        ])?;
    session.next_expiry.subscription = session.next_expiry.subscription.min(expires.0);
    Ok(())
}

pub(crate) fn find(
    session: &mut Session,
    source: &QueueKey,
    id: SubscriptionId,
) -> Outcome<Option<Subscription>> {
    let found = by_id(session, source, id, session.now())?;
    Ok(Ok(found.map(|found| found.subscription)))
}

pub(crate) fn update(
    session: &mut Session,
    source: &QueueKey,
    id: SubscriptionId,
    change: &SubscriptionChange,
) -> Outcome<()> {
    let now = session.now();
    let Some(found) = by_id(session, source, id, now)? else {
        return Ok(Err(Error::not_found(Resource::Subscription)));
    };
    let (mut new, mut made) = (found.subscription, found.made);
    let expected = change.expected_subscriber.as_ref();
    if expected.is_some_and(|expected| *expected != new.subscriber) {
        return Ok(Err(changed()));
    }
    if let Some(subscriber) = &change.subscriber
        && *subscriber != new.subscriber
    {
        if for_subscriber(session, source, subscriber, now)?.is_some() {
            return Ok(Err(taken()));
        }
        new.subscriber.clone_from(subscriber);
        new.confirmed = false;
    }
    if let Some(ttl) = change.ttl {
        new.ttl = ttl;
        made = now;
    }
    if let Some(options) = &change.options {
        new.options.clone_from(options);
    }
    write(session, &new, made)?;
    Ok(Ok(()))
}

pub(crate) fn confirm(
    session: &mut Session,
    source: &QueueKey,
    id: SubscriptionId,
    confirmed: bool,
) -> Outcome<Subscription> {
    let now = session.now();
    let Some(found) = by_id(session, source, id, now)? else {
        return Ok(Err(Error::not_found(Resource::Subscription)));
    };
    let new = Subscription {
        confirmed,
        ..found.subscription
    };
    write(session, &new, found.made)?;
    Ok(Ok(new))
}

pub(crate) fn delete(
    session: &mut Session,
    source: &QueueKey,
    id: SubscriptionId,
) -> Outcome<bool> {
    let live = by_id(session, source, id, session.now())?.is_some();
    session
        .statement("DELETE FROM subscription WHERE project = ? AND name = ? AND id = ?")?
        .execute(params![
            source.project.as_str(),
            source.name.as_str(),
            id.0.as_bytes()
        ])?;
    Ok(Ok(live))
}

pub(crate) fn list(
    session: &mut Session,
    source: &QueueKey,
    after: Option<SubscriptionId>,
    limit: usize,
) -> Outcome<Vec<Subscription>> {
    let now = session.now();
    let after = after.map_or_else(Vec::new, |id| id.0.as_bytes().to_vec());
    let found = session
        .statement(&format!("{LIVE} AND id > ?4 ORDER BY id LIMIT ?5"))?
        .query_map(
            params![
                source.project.as_str(),
                source.name.as_str(),
                now.0,
                after,
                most(limit)
            ],
            |row| Ok(read(row, source, now)?.subscription),
        )?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Ok(found))
}

pub(crate) fn remove(session: &mut Session, source: &QueueKey) -> Outcome<()> {
    session
        .statement("DELETE FROM subscription WHERE project = ? AND name = ?")?
        .execute([source.project.as_str(), source.name.as_str()])?;
    Ok(Ok(()))
}
