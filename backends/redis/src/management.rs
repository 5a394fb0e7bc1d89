//! Queue records: a version of eight bytes, then the metadata as JSON.

use async_trait::async_trait;
use isimud_contract::{
    Forget, Metadata, ProjectId, QueueKey, QueueName, QueueRecord, QueueSelection, Queues, Result,
    read_metadata,
};
use redis::Value;
use uuid::Uuid;

use crate::error::strange;
use crate::store::RedisStore;
use crate::value::number;

/// Records that a filtered listing reads at a time.
const READ_AHEAD: usize = 200;

/// Records that any listing reads at a time.
const MOST_AT_ONCE: usize = 1_000;

#[async_trait]
impl Queues for RedisStore {
    async fn create_queue(&self, queue: &QueueKey, metadata: &Metadata) -> Result<bool> {
        let record = write(first_version(), metadata)?;
        self.scripts.queue_create(&self.names, queue, &record).await
    }

    async fn find_queue(&self, queue: &QueueKey) -> Result<Option<QueueRecord>> {
        let [records, _] = self.names.records(&queue.project);
        let mut command = redis::cmd("HGET");
        command.arg(records).arg(queue.name.as_str());
        let link = &self.scripts.link;
        match link.in_time(link.send(&command)).await? {
            Value::Nil => Ok(None),
            Value::BulkString(record) => read(queue.name.clone(), &record).map(Some),
            _ => Err(strange()),
        }
    }

    async fn update_queue(
        &self,
        queue: &QueueKey,
        metadata: &Metadata,
        version: u64,
    ) -> Result<Option<u64>> {
        let next = version.wrapping_add(1);
        let record = write(next, metadata)?;
        let update = self
            .scripts
            .queue_update(&self.names, queue, version, &record);
        Ok(update.await?.then_some(next))
    }

    async fn delete_queue(&self, queue: &QueueKey) -> Result<bool> {
        self.scripts.queue_delete(&self.names, queue).await
    }

    async fn list_queues(
        &self,
        project: &ProjectId,
        selection: &QueueSelection,
    ) -> Result<Vec<QueueRecord>> {
        let keys = self.names.records(project);
        let mut after = selection.after.clone().unwrap_or_default();
        let mut found = Vec::new();
        while found.len() < selection.limit {
            let wanted = selection.limit - found.len();
            let filtered = selection.name_contains.is_some() || !selection.filters.is_empty();
            let count = if filtered {
                wanted.clamp(READ_AHEAD, MOST_AT_ONCE)
            } else {
                wanted.min(MOST_AT_ONCE)
            };
            let mut answer = self.scripts.queue_list(&keys, &after, count).await?;
            let names = answer.left() / 2;
            for _ in 0..names {
                after = String::from_utf8(answer.blob()?).map_err(|_| strange())?;
                let name = QueueName::parse(&after).map_err(|_| strange())?;
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

    fn watch(&self, forget: Forget) -> Result<()> {
        Self::watch(self, move |queue| forget(queue))
    }

    async fn count_queues(&self, project: &ProjectId) -> Result<u64> {
        let [records, _] = self.names.records(project);
        let mut command = redis::cmd("HLEN");
        command.arg(records);
        let link = &self.scripts.link;
        let count = number(&link.in_time(link.send(&command)).await?)?;
        Ok(count.unsigned_abs())
    }
}

fn matches(selection: &QueueSelection, record: &QueueRecord) -> bool {
    let named = selection
        .name_contains
        .as_ref()
        .is_none_or(|part| record.name.as_str().contains(part.as_str()));
    let mut filters = selection.filters.iter();
    named && filters.all(|filter| filter.matches(&record.metadata))
}

/// Where a new queue begins to count: never where an earlier queue of that name was.
fn first_version() -> u64 {
    let (random, _) = Uuid::new_v4().as_u64_pair();
    random >> 2
}

fn write(version: u64, metadata: &Metadata) -> Result<Vec<u8>> {
    let mut record = version.to_be_bytes().to_vec();
    serde_json::to_writer(&mut record, metadata).map_err(|error| strange().caused_by(error))?;
    Ok(record)
}

fn read(name: QueueName, record: &[u8]) -> Result<QueueRecord> {
    let (version, metadata) = record.split_first_chunk().ok_or_else(strange)?;
    let metadata = std::str::from_utf8(metadata).map_err(|error| strange().caused_by(error))?;
    Ok(QueueRecord {
        name,
        version: u64::from_be_bytes(*version),
        metadata: read_metadata(metadata).map_err(|error| strange().caused_by(error))?,
    })
}
