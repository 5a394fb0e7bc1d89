//! Pools and flavors, under one hash tag, so that each change is one script: there are few of them.
//!
//! A pool's value is its version (8 bytes, float), its flavor (2 bytes of length, text), its weight (4 bytes), its URI
//! (4 bytes of length, text), and its options as JSON. Scripts change the first two.

use bytes::{Buf, BufMut};
use isimud_contract::{
    Error, ErrorKind, Flavor, FlavorName, MembershipChange, Pool, PoolName, PoolRecord, ProjectId,
    Resource, Result, read_metadata,
};
use redis::Value;
use uuid::Uuid;

use crate::call::{Call, Source};
use crate::error::strange;
use crate::keys::{owned, owned_range};
use crate::queue::{MAX_PAGE_SIZE, RECORDS};
use crate::scripts::scripts;
use crate::store::RedisStore;
use crate::value::Answer;

scripts! {
    SAVE: "pool_save.lua";
    DELETE: "pool_delete.lua";
    SAVE_FLAVOR: "flavor_save.lua";
    DELETE_FLAVOR: "flavor_delete.lua";
}

/// What is published of a change. No queue's tag is like this.
pub(crate) const POOLS: &str = "pools";

/// Has a script tell those who listen that pools or flavors have changed.
fn told(store: &RedisStore, call: Call) -> Call {
    call.bytes(store.names.changes().as_bytes())
        .bytes(POOLS.as_bytes())
}

pub(crate) async fn save(
    store: &RedisStore,
    pool: &Pool,
    version: Option<u64>,
) -> Result<Option<u64>> {
    let (old, next) = match version {
        None => (Vec::new(), first_version()),
        Some(version) => (write_version(version).to_vec(), version.wrapping_add(1)),
    };
    let [pools, names, ..] = store.names.pools();
    let call = Call::new(&SAVE, &[&[pools, names]])
        .bytes(pool.name.as_str().as_bytes())
        .bytes(&old)
        .bytes(&write(pool, next)?);
    let saved = store.scripts.plain(told(store, call)).await? == 1;
    Ok(saved.then_some(next))
}

pub(crate) async fn find(store: &RedisStore, name: &PoolName) -> Result<Option<PoolRecord>> {
    let [pools, ..] = store.names.pools();
    let mut command = redis::cmd("HGET");
    command.arg(pools).arg(name.as_str());
    let link = &store.scripts.link;
    match link.in_time(link.send(&command)).await? {
        Value::Nil => Ok(None),
        Value::BulkString(pool) => read(name.clone(), &pool).map(Some),
        _ => Err(strange()),
    }
}

pub(crate) async fn list(
    store: &RedisStore,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<PoolRecord>> {
    let [pools, names, ..] = store.names.pools();
    let keys = [pools, names];
    let mut after = after.unwrap_or_default().to_owned();
    let mut found = Vec::new();
    loop {
        let count = (limit - found.len()).min(MAX_PAGE_SIZE);
        let call = Call::new(&RECORDS, &[&keys])
            .bytes(format!("({after}").as_bytes())
            .bytes(b"+")
            .number(count);
        let mut answer = Answer::new(store.scripts.answer(call).await?)?;
        let last = answer.left() / 2 < count;
        while answer.left() > 0 {
            after = answer.text()?;
            let name = PoolName::parse(&after).map_err(|_| strange())?;
            found.push(read(name, &answer.blob()?)?);
        }
        if last || found.len() >= limit {
            return Ok(found);
        }
    }
}

pub(crate) async fn delete(store: &RedisStore, name: &PoolName) -> Result<bool> {
    let [pools, names, flavors, _] = store.names.pools();
    let call = Call::new(&DELETE, &[&[pools, names, flavors]]).bytes(name.as_str().as_bytes());
    match store.scripts.answer(told(store, call)).await? {
        Value::Int(deleted) => Ok(deleted == 1),
        Value::BulkString(flavor) => {
            let in_use = ErrorKind::InUse(Resource::Flavor);
            let error = Error::new(in_use, "the pool is the last one of a flavor");
            Err(error.with("flavor", String::from_utf8_lossy(&flavor)))
        }
        _ => Err(strange()),
    }
}

pub(crate) async fn save_flavor(
    store: &RedisStore,
    flavor: &Flavor,
    pools: &[PoolName],
    members: MembershipChange,
) -> Result<()> {
    let mut call = flavor_call(store, &SAVE_FLAVOR, &flavor.project, &flavor.name);
    call = call.number(usize::from(members == MembershipChange::Replace));
    call = told(store, call);
    for pool in pools {
        call = call.bytes(pool.as_str().as_bytes());
    }
    match store.scripts.answer(call).await? {
        Value::Int(1) => Ok(()),
        Value::Int(_) => {
            let taken = ErrorKind::AlreadyExists(Resource::Flavor);
            Err(Error::new(taken, "another project has that flavor"))
        }
        Value::BulkString(pool) => {
            let missing = Error::not_found(Resource::Pool);
            Err(missing.with("pool", String::from_utf8_lossy(&pool)))
        }
        _ => Err(strange()),
    }
}

fn flavor_call(
    store: &RedisStore,
    source: &'static Source,
    project: &ProjectId,
    name: &FlavorName,
) -> Call {
    let [pools, _, flavors, owners] = store.names.pools();
    Call::new(source, &[&[pools, flavors, owners]])
        .bytes(name.as_str().as_bytes())
        .bytes(project.as_str().as_bytes())
        .bytes(owned(project, name.as_str()).as_bytes())
}

pub(crate) async fn find_flavor(store: &RedisStore, name: &FlavorName) -> Result<Option<Flavor>> {
    let [_, _, flavors, _] = store.names.pools();
    let mut command = redis::cmd("HGET");
    command.arg(flavors).arg(name.as_str());
    let link = &store.scripts.link;
    let project = match link.in_time(link.send(&command)).await? {
        Value::Nil => return Ok(None),
        Value::BulkString(project) => String::from_utf8(project).map_err(|_| strange())?,
        _ => return Err(strange()),
    };
    Ok(Some(Flavor {
        name: name.clone(),
        project: ProjectId::parse(&project).map_err(|_| strange())?,
    }))
}

pub(crate) async fn list_flavors(
    store: &RedisStore,
    project: &ProjectId,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<Flavor>> {
    let [_, _, _, owners] = store.names.pools();
    let (start, end) = owned_range(project, after.unwrap_or_default());
    let mut command = redis::cmd("ZRANGE");
    command.arg(owners).arg(start).arg(end);
    command.arg("BYLEX").arg("LIMIT").arg(0).arg(limit);
    let link = &store.scripts.link;
    let mut answer = Answer::new(link.in_time(link.send(&command)).await?)?;
    let mut found = Vec::with_capacity(answer.left());
    while answer.left() > 0 {
        let entry = answer.text()?;
        let (_, name) = entry.split_once('/').ok_or_else(strange)?;
        found.push(Flavor {
            name: FlavorName::parse(name).map_err(|_| strange())?,
            project: project.clone(),
        });
    }
    Ok(found)
}

pub(crate) async fn delete_flavor(
    store: &RedisStore,
    project: &ProjectId,
    name: &FlavorName,
) -> Result<bool> {
    let call = flavor_call(store, &DELETE_FLAVOR, project, name);
    store
        .scripts
        .plain(told(store, call))
        .await
        .map(|deleted| deleted == 1)
}

/// Where a new pool begins to count: never where an earlier one of that name was, as good as certainly, and where a
/// float counts one by one for ever.
fn first_version() -> u64 {
    let (random, _) = Uuid::new_v4().as_u64_pair();
    random >> 14
}

fn write_version(version: u64) -> [u8; 8] {
    (version as f64).to_be_bytes()
}

fn write(pool: &Pool, version: u64) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(64 + pool.uri.len());
    out.put_slice(&write_version(version));
    let flavor = pool.flavor.as_ref().map_or("", FlavorName::as_str);
    out.put_u16(u16::try_from(flavor.len()).map_err(|_| strange())?);
    out.put_slice(flavor.as_bytes());
    out.put_u32(pool.weight);
    out.put_u32(u32::try_from(pool.uri.len()).map_err(|_| strange())?);
    out.put_slice(pool.uri.as_bytes());
    serde_json::to_writer(&mut out, &pool.options).map_err(|error| strange().caused_by(error))?;
    Ok(out)
}

fn read(name: PoolName, mut value: &[u8]) -> Result<PoolRecord> {
    let cut = |_| strange();
    let version = value.try_get_f64().map_err(cut)? as u64;
    let length = value.try_get_u16().map_err(cut)?;
    let flavor = take_text(&mut value, length.into())?;
    let weight = value.try_get_u32().map_err(cut)?;
    let length = value.try_get_u32().map_err(cut)?;
    let uri = take_text(&mut value, length as usize)?.to_owned();
    let options = std::str::from_utf8(value).map_err(|error| strange().caused_by(error))?;
    let flavor = match flavor {
        "" => None,
        name => Some(FlavorName::parse(name).map_err(|_| strange())?),
    };
    Ok(PoolRecord {
        pool: Pool {
            name,
            uri,
            weight,
            flavor,
            options: read_metadata(options).map_err(|error| strange().caused_by(error))?,
        },
        version,
    })
}

fn take_text<'a>(value: &mut &'a [u8], length: usize) -> Result<&'a str> {
    let (text, rest) = value.split_at_checked(length).ok_or_else(strange)?;
    *value = rest;
    std::str::from_utf8(text).map_err(|error| strange().caused_by(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_value_is_an_error_and_no_panic() {
        let pool = Pool {
            name: PoolName::parse("p").unwrap(),
            uri: "redis://h".into(),
            weight: 7,
            flavor: Some(FlavorName::parse("ü").unwrap()),
            options: read_metadata(r#"{"a":1}"#).unwrap(),
        };
        let value = write(&pool, 9).unwrap();
        let record = PoolRecord { pool, version: 9 };
        assert_eq!(read(record.pool.name.clone(), &value).unwrap(), record);
        for length in 0..value.len() {
            assert!(read(record.pool.name.clone(), &value[..length]).is_err());
        }
    }
}
