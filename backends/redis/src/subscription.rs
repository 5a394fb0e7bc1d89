//! Subscriptions of a queue, under the hash tag of its messages.

use std::time::Duration;

use bytes::Buf;
use isimud_contract::{
    Error, ErrorKind, QueueKey, Resource, Result, Subscription, SubscriptionChange, SubscriptionId,
    Timestamp, read_metadata,
};
use redis::Value;

use crate::call::{Call, Source};
use crate::error::strange;
use crate::queue::{MAX_PAGE_SIZE, told};
use crate::scripts::scripts;
use crate::store::RedisStore;
use crate::value::{Answer, millis};

scripts! {
    CREATE: "subscriptions.lua" "subscription_create.lua";
    FIND: "subscriptions.lua" "subscription_find.lua";
    UPDATE: "subscriptions.lua" "subscription_update.lua";
    DELETE: "subscriptions.lua" "subscription_delete.lua";
    LIST: "subscriptions.lua" "subscription_list.lua";
    REMOVE: "subscriptions.lua" "subscription_remove.lua";
}

fn call(store: &RedisStore, source: &'static Source, queue: &QueueKey) -> Call {
    let keys = store.names.subscriptions(queue);
    Call::new(source, &[&keys]).clock(&store.scripts.time)
}

fn changed() -> Error {
    let changed = ErrorKind::InUse(Resource::Subscription);
    Error::new(changed, "the subscription has another address now")
}

fn taken() -> Error {
    let taken = ErrorKind::AlreadyExists(Resource::Subscription);
    Error::new(taken, "the queue has a subscription like that")
}

pub(crate) async fn create(store: &RedisStore, new: &Subscription) -> Result<Option<Subscription>> {
    let options = serde_json::to_vec(&new.options).map_err(|error| strange().caused_by(error))?;
    let make = || {
        let call = call(store, &CREATE, &new.source)
            .bytes(new.id.0.as_bytes())
            .float(millis(new.ttl))
            .number(new.confirmed.into())
            .bytes(new.subscriber.as_bytes())
            .bytes(&options);
        Ok(told(store, call, &new.source))
    };
    match store.scripts.settled(make).await? {
        Value::Int(1) => Ok(None),
        Value::Int(_) => Err(taken()),
        answer => one(answer, &new.source),
    }
}

pub(crate) async fn find(
    store: &RedisStore,
    source: &QueueKey,
    id: SubscriptionId,
) -> Result<Option<Subscription>> {
    let make = || Ok(call(store, &FIND, source).bytes(id.0.as_bytes()));
    one(store.scripts.settled(make).await?, source)
}

/// Changes a subscription and returns it, if there is one.
pub(crate) async fn update(
    store: &RedisStore,
    source: &QueueKey,
    id: SubscriptionId,
    change: &SubscriptionChange,
    confirmed: Option<bool>,
) -> Result<Subscription> {
    let options = change.options.as_ref().map(serde_json::to_vec).transpose();
    let options = options.map_err(|error| strange().caused_by(error))?;
    let make = || {
        let mut call = call(store, &UPDATE, source).bytes(id.0.as_bytes());
        call = match change.ttl {
            Some(ttl) => call.float(millis(ttl)),
            None => call.bytes(b""),
        };
        call = call.number(change.subscriber.is_some().into());
        call = call.bytes(change.subscriber.as_deref().unwrap_or_default().as_bytes());
        call = call.bytes(options.as_deref().unwrap_or_default());
        call = match confirmed {
            Some(confirmed) => call.number(confirmed.into()),
            None => call.bytes(b""),
        };
        let expected = change.expected_subscriber.as_deref().unwrap_or_default();
        Ok(told(store, call.bytes(expected.as_bytes()), source))
    };
    match store.scripts.settled(make).await? {
        Value::Int(1) => Err(changed()),
        Value::Int(_) => Err(taken()),
        answer => one(answer, source)?.ok_or_else(|| Error::not_found(Resource::Subscription)),
    }
}

pub(crate) async fn delete(
    store: &RedisStore,
    source: &QueueKey,
    id: SubscriptionId,
) -> Result<bool> {
    let make = || {
        let call = call(store, &DELETE, source).bytes(id.0.as_bytes());
        Ok(told(store, call, source))
    };
    Ok(store.scripts.settled(make).await? == Value::Int(1))
}

pub(crate) async fn list(
    store: &RedisStore,
    source: &QueueKey,
    after: Option<SubscriptionId>,
    limit: usize,
) -> Result<Vec<Subscription>> {
    let mut after = after;
    let mut found = Vec::new();
    loop {
        let start = match after {
            None => b"-".to_vec(),
            Some(id) => [b"(", &id.0.as_bytes()[..]].concat(),
        };
        let count = (limit - found.len()).min(MAX_PAGE_SIZE);
        let make = || Ok(call(store, &LIST, source).bytes(&start).number(count));
        let mut answer = Answer::new(store.scripts.settled(make).await?)?;
        let now = answer.moment()?;
        let last = answer.left() / 2 < count;
        while answer.left() > 0 {
            found.push(next(&mut answer, source, now)?);
        }
        if last || found.len() >= limit {
            return Ok(found);
        }
        after = found
            .last()
            .map(|subscription: &Subscription| subscription.id);
    }
}

pub(crate) async fn remove(store: &RedisStore, source: &QueueKey) -> Result<()> {
    let make = || Ok(told(store, call(store, &REMOVE, source), source));
    store.scripts.settled(make).await.map(drop)
}

/// The subscription of an answer, if it has one.
fn one(answer: Value, source: &QueueKey) -> Result<Option<Subscription>> {
    let mut answer = Answer::new(answer)?;
    let now = answer.moment()?;
    if answer.left() == 0 {
        return Ok(None);
    }
    next(&mut answer, source, now).map(Some)
}

fn next(answer: &mut Answer, source: &QueueKey, now: Timestamp) -> Result<Subscription> {
    let id = SubscriptionId(answer.id()?);
    let value = answer.blob()?;
    let mut value = &value[..];
    let cut = |_| strange();
    let made = value.try_get_f64().map_err(cut)?;
    let ttl = value.try_get_f64().map_err(cut)?;
    let confirmed = value.try_get_u8().map_err(cut)? == b'1';
    let length = value.try_get_u32().map_err(cut)? as usize;
    let (subscriber, options) = value.split_at_checked(length).ok_or_else(strange)?;
    let text = |bytes| std::str::from_utf8(bytes).map_err(|error| strange().caused_by(error));
    Ok(Subscription {
        id,
        source: source.clone(),
        subscriber: text(subscriber)?.to_owned(),
        ttl: Duration::from_millis(ttl as u64),
        age: now.since(Timestamp(made as i64)),
        options: read_metadata(text(options)?).map_err(|error| strange().caused_by(error))?,
        confirmed,
    })
}
