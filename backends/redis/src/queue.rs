//! Queue records: a version of eight bytes, the place and a line feed unless it is the default place, then the metadata
//! as JSON.

use isimud_contract::{
    Error, ErrorKind, Kind, Metadata, Placement, ProjectId, QueueKey, QueueName, QueueRecord,
    QueueSelection, Result, read_metadata,
};
use redis::Value;
use uuid::Uuid;

use crate::call::Call;
use crate::error::strange;
use crate::keys::tag;
use crate::scripts::scripts;
use crate::store::RedisStore;
use crate::value::{Answer, number};

scripts! {
    CREATE: "queue_create.lua";
    UPDATE: "queue_update.lua";
    DELETE: "queue_delete.lua";
    pub(crate) RECORDS: "records.lua";
}

/// Records that a filtered listing reads at a time.
const READ_AHEAD: usize = 200;

/// Records that any listing reads at a time.
pub(crate) const MAX_PAGE_SIZE: usize = 1_000;

/// Attempts to write a record before the entry in the index of stores is too old to rely on.
const ATTEMPTS: usize = 3;

pub(crate) async fn create(
    store: &RedisStore,
    queue: &QueueKey,
    metadata: &Metadata,
    placement: &Placement,
) -> Result<bool> {
    let record = write(first_version(), metadata, placement)?;
    for _ in 0..ATTEMPTS {
        let deadline = store.enter_stores(queue, &placement.store_ids()).await?;
        let call = Call::new(&CREATE, &[&store.names.records(&queue.project)])
            .bytes(queue.name.as_str().as_bytes())
            .bytes(&record)
            .bytes(deadline.to_string().as_bytes());
        match store.scripts.plain(told(store, call, queue)).await? {
            -1 => {}
            created => return Ok(created == 1),
        }
    }
    Err(too_slow())
}

pub(crate) async fn update(
    store: &RedisStore,
    queue: &QueueKey,
    metadata: &Metadata,
    placement: &Placement,
    version: u64,
) -> Result<Option<u64>> {
    let next = version.wrapping_add(1);
    let record = write(next, metadata, placement)?;
    for _ in 0..ATTEMPTS {
        let deadline = store.enter_stores(queue, &placement.store_ids()).await?;
        let call = Call::new(&UPDATE, &[&store.names.records(&queue.project)[..1]])
            .bytes(queue.name.as_str().as_bytes())
            .bytes(&version.to_be_bytes())
            .bytes(&record)
            .bytes(deadline.to_string().as_bytes());
        match store.scripts.answer(told(store, call, queue)).await? {
            Value::Int(-1) => {}
            Value::Int(_) => return Ok(None),
            Value::BulkString(old) => {
                let old = read_placement(&old)?;
                if old != *placement {
                    store.leave_stores(queue, &old).await;
                }
                return Ok(Some(next));
            }
            _ => return Err(strange()),
        }
    }
    Err(too_slow())
}

pub(crate) async fn delete(store: &RedisStore, queue: &QueueKey) -> Result<Option<QueueRecord>> {
    let call = Call::new(&DELETE, &[&store.names.records(&queue.project)])
        .bytes(queue.name.as_str().as_bytes());
    match store.scripts.answer(told(store, call, queue)).await? {
        Value::Nil => Ok(None),
        Value::BulkString(old) => {
            let old = read(queue.name.clone(), &old)?;
            store.leave_stores(queue, &old.placement).await;
            Ok(Some(old))
        }
        _ => Err(strange()),
    }
}

pub(crate) async fn find(store: &RedisStore, queue: &QueueKey) -> Result<Option<QueueRecord>> {
    let [records, _] = store.names.records(&queue.project);
    let mut command = redis::cmd("HGET");
    command.arg(records).arg(queue.name.as_str());
    let link = &store.scripts.link;
    match link.in_time(link.send(&command)).await? {
        Value::Nil => Ok(None),
        Value::BulkString(record) => read(queue.name.clone(), &record).map(Some),
        _ => Err(strange()),
    }
}

/// The places of queues of one project, in the order asked; `None` for those that there are not.
pub(crate) async fn placements(
    store: &RedisStore,
    project: &ProjectId,
    names: &[QueueName],
) -> Result<Vec<Option<Placement>>> {
    let [records, _] = store.names.records(project);
    let mut command = redis::cmd("HMGET");
    command.arg(records);
    for name in names {
        command.arg(name.as_str());
    }
    let link = &store.scripts.link;
    let Value::Array(found) = link.in_time(link.send(&command)).await? else {
        return Err(strange());
    };
    let placement = |record| match record {
        Value::Nil => Ok(None),
        Value::BulkString(record) => {
            split(&record).and_then(|(_, placement, _)| Ok(Some(placement?)))
        }
        _ => Err(strange()),
    };
    found.into_iter().map(placement).collect()
}

pub(crate) async fn list(
    store: &RedisStore,
    project: &ProjectId,
    selection: &QueueSelection,
) -> Result<Vec<QueueRecord>> {
    let keys = store.names.records(project);
    let (first, end) = bounds(selection.kind);
    let after = selection.after.as_deref().unwrap_or_default();
    let mut after = format!("{first}{after}");
    let mut found = Vec::new();
    while found.len() < selection.limit {
        let wanted = selection.limit - found.len();
        let filtered = selection.name_contains.is_some() || !selection.filters.is_empty();
        let count = if filtered {
            wanted.clamp(READ_AHEAD, MAX_PAGE_SIZE)
        } else {
            wanted.min(MAX_PAGE_SIZE)
        };
        let call = Call::new(&RECORDS, &[&keys])
            .bytes(format!("({after}").as_bytes())
            .bytes(format!("({end}").as_bytes())
            .number(count);
        let mut answer = Answer::new(store.scripts.answer(call).await?)?;
        let names = answer.left() / 2;
        for _ in 0..names {
            after = answer.text()?;
            let name = QueueName::parse_stored(&after).map_err(|_| strange())?;
            let record = read(name, &answer.blob()?)?;
            if found.len() < selection.limit && matches(selection, &record) {
                found.push(record);
            }
        }
        if names < count {
            break;
        }
    }
    Ok(found)
}

pub(crate) async fn count(store: &RedisStore, project: &ProjectId, kind: Kind) -> Result<u64> {
    let [_, names] = store.names.records(project);
    let (first, end) = bounds(kind);
    let mut command = redis::cmd("ZLEXCOUNT");
    command
        .arg(names)
        .arg(format!("({first}"))
        .arg(format!("({end}"));
    let link = &store.scripts.link;
    let count = number(&link.in_time(link.send(&command)).await?)?;
    Ok(count.unsigned_abs())
}

/// Names between which the names of a kind are. `~` stands behind every character that a client can write.
fn bounds(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Queue => ("", "~"),
        Kind::Topic => ("~", "~~"),
    }
}

fn matches(selection: &QueueSelection, record: &QueueRecord) -> bool {
    let named = selection
        .name_contains
        .as_ref()
        .is_none_or(|part| record.name.shown().contains(part.as_str()));
    let mut filters = selection.filters.iter();
    named && filters.all(|filter| filter.matches(&record.metadata))
}

/// Has a script tell those who listen that something about the queue has changed.
pub(crate) fn told(store: &RedisStore, call: Call, queue: &QueueKey) -> Call {
    call.bytes(store.names.changes().as_bytes())
        .bytes(tag(queue).as_bytes())
}

/// Where a new record begins to count: never where an earlier one of that name was.
pub(crate) fn first_version() -> u64 {
    let (random, _) = Uuid::new_v4().as_u64_pair();
    random >> 2
}

fn too_slow() -> Error {
    Error::new(ErrorKind::Unavailable, "Redis is too slow for a change")
}

fn write(version: u64, metadata: &Metadata, placement: &Placement) -> Result<Vec<u8>> {
    let mut record = version.to_be_bytes().to_vec();
    let placement = placement.to_text();
    if !placement.is_empty() {
        record.extend_from_slice(placement.as_bytes());
        record.push(b'\n');
    }
    serde_json::to_writer(&mut record, metadata).map_err(|error| strange().caused_by(error))?;
    Ok(record)
}

/// The version, the place and the metadata of a record.
fn split(record: &[u8]) -> Result<(u64, Result<Placement>, &[u8])> {
    let (version, rest) = record.split_first_chunk().ok_or_else(strange)?;
    let (placement, metadata) = if rest.first() == Some(&b'{') {
        (&[][..], rest)
    } else {
        // JSON in one line has no line feed.
        let end = rest.iter().position(|byte| *byte == b'\n');
        let (placement, metadata) = rest.split_at(end.ok_or_else(strange)?);
        (placement, &metadata[1..])
    };
    Ok((
        u64::from_be_bytes(*version),
        read_placement(placement),
        metadata,
    ))
}

fn read_placement(text: &[u8]) -> Result<Placement> {
    let text = std::str::from_utf8(text).map_err(|error| strange().caused_by(error))?;
    Placement::parse(text).map_err(|error| strange().caused_by(error))
}

fn read(name: QueueName, record: &[u8]) -> Result<QueueRecord> {
    let (version, placement, metadata) = split(record)?;
    let metadata = std::str::from_utf8(metadata).map_err(|error| strange().caused_by(error))?;
    Ok(QueueRecord {
        name,
        version,
        placement: placement?,
        metadata: read_metadata(metadata).map_err(|error| strange().caused_by(error))?,
    })
}

#[cfg(test)]
mod tests {
    use isimud_contract::{PoolName, StoreId};

    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let name = QueueName::parse("q").unwrap();
        let metadata = read_metadata(r#"{"a": "line\nfeed"}"#).unwrap();
        let pool = StoreId::Pool(PoolName::parse("a \"b\"").unwrap());
        for placement in [Placement::default(), Placement::at(pool)] {
            let record = write(7, &metadata, &placement).unwrap();
            let read = read(name.clone(), &record).unwrap();
            assert_eq!((read.version, read.placement), (7, placement));
            assert_eq!(read.metadata, metadata);
        }
    }

    #[test]
    fn a_record_of_the_earlier_format_has_the_default_placement() {
        let mut record = 9u64.to_be_bytes().to_vec();
        record.extend_from_slice(b"{\"a\":1}");
        let read = read(QueueName::parse("q").unwrap(), &record).unwrap();
        assert_eq!((read.version, read.placement), (9, Placement::default()));
        assert_eq!(read.metadata["a"], 1);
    }
}
