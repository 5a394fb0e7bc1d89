//! The index of stores: which queues have messages in which store.
//!
//! In a cluster a queue's record and the index are on different nodes, so no script changes both. The index therefore
//! has more than is true, and never less: a queue is entered before its record is written, and every entry is compared
//! with the record when it is read. Who finds an entry without its record may strike it off only when no record can be
//! under way: a record is written within [`RECORD_WRITE_TIMEOUT`] of its entry or not at all (the script refuses), and
//! an entry is struck off only when it was made [`SETTLE_TIME`] before the record was looked for. The difference is
//! what the clocks of two nodes may differ by.
//!
//! New entries, and those of queues that have left, wait in a second order until the sweep has looked at them once.

use std::collections::HashMap;
use std::time::Duration;

use isimud_contract::{Placement, ProjectId, QueueKey, QueueName, Result, StoreId};
use redis::Value;

use crate::call::Call;
use crate::keys::{parse_entry, store_prefix, tag};
use crate::queue::{MAX_PAGE_SIZE, placements};
use crate::scripts::scripts;
use crate::store::RedisStore;
use crate::value::Answer;

scripts! {
    ENTER: "placement_enter.lua";
    LIST: "placement_list.lua";
    DUE: "placement_due.lua";
    JUDGE: "placement_judge.lua";
}

/// How long after its entry a record may be written.
const RECORD_WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long after its entry a missing record is missing for good.
const SETTLE_TIME: Duration = Duration::from_secs(60);

/// Entries that are compared at a time.
const PAGE_SIZE: usize = 100;

/// How often at the most one look of the sweep does that.
const MAX_ROUNDS: usize = 20;

/// An entry, what it says, and whether its record says the same.
struct Entry {
    text: String,
    queue: QueueKey,
    true_now: bool,
}

impl RedisStore {
    /// Enters a queue under stores. Returns until when its record may be written, in milliseconds since 1970.
    pub(crate) async fn enter_stores(
        &self,
        queue: &QueueKey,
        store_ids: &[&StoreId],
    ) -> Result<i64> {
        let mut call = Call::new(&ENTER, &[&self.names.placement_index()]);
        for store_id in store_ids {
            call = call.bytes((store_prefix(store_id) + &tag(queue)).as_bytes());
        }
        let now = self.scripts.plain(call).await?;
        Ok(now + i64::try_from(RECORD_WRITE_TIMEOUT.as_millis()).unwrap_or(i64::MAX))
    }

    /// Has the entries of a queue that has left looked at again. If that fails, whoever reads them will do it.
    pub(crate) async fn leave_stores(&self, queue: &QueueKey, placement: &Placement) {
        if let Err(error) = self.enter_stores(queue, &placement.store_ids()).await {
            tracing::debug!(%error, "old entries of the index of stores are left for later");
        }
    }

    /// Queues that have messages in a store, in the order of their tags.
    pub(crate) async fn queues_in_store(
        &self,
        store_id: &StoreId,
        after: Option<&QueueKey>,
        limit: usize,
    ) -> Result<Vec<QueueKey>> {
        let prefix = store_prefix(store_id);
        let mut start = match after {
            Some(queue) => format!("({prefix}{}", tag(queue)),
            None => format!("({prefix}"),
        };
        let mut found = Vec::new();
        while found.len() < limit {
            let count = (limit - found.len()).clamp(PAGE_SIZE, MAX_PAGE_SIZE);
            let [index, _] = self.names.placement_index();
            // `0` stands behind `/`, with which the prefix ends.
            let end = format!("({}0", &prefix[..prefix.len() - 1]);
            let call = Call::new(&LIST, &[&[index]])
                .bytes(start.as_bytes())
                .bytes(end.as_bytes())
                .number(count);
            let (now, texts) = read(self.scripts.answer(call).await?)?;
            let (met, last) = (texts.len(), texts.last().cloned());
            let entries = self.compare(texts).await?;
            let (good, stale): (Vec<_>, Vec<_>) =
                entries.into_iter().partition(|entry| entry.true_now);
            self.judge(now, &stale).await?;
            found.extend(good.into_iter().map(|entry| entry.queue));
            match last {
                Some(last) if met == count => start = format!("({last}"),
                _ => break,
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Looks at entries whose time has come.
    pub(crate) async fn sweep_placement_index(&self) -> Result<()> {
        for _ in 0..MAX_ROUNDS {
            let [_, entered] = self.names.placement_index();
            let call = Call::new(&DUE, &[&[entered]])
                .number(SETTLE_TIME.as_millis() as usize)
                .number(PAGE_SIZE);
            let (now, texts) = read(self.scripts.answer(call).await?)?;
            let last = texts.len() < PAGE_SIZE;
            let entries = self.compare(texts).await?;
            self.judge(now, &entries).await?;
            if last {
                break;
            }
        }
        Ok(())
    }

    /// Compares entries with the records that they are about. What is no entry is left out.
    async fn compare(&self, texts: Vec<String>) -> Result<Vec<Entry>> {
        let mut projects: HashMap<ProjectId, Vec<QueueName>> = HashMap::new();
        for (_, queue) in texts.iter().filter_map(|text| parse_entry(text)) {
            projects.entry(queue.project).or_default().push(queue.name);
        }
        let mut found: HashMap<QueueKey, Placement> = HashMap::new();
        for (project, names) in projects {
            let placements = placements(self, &project, &names).await?;
            let known = names.into_iter().zip(placements);
            found.extend(known.filter_map(|(name, placement)| {
                Some((QueueKey::new(project.clone(), name), placement?))
            }));
        }
        let entry = |text: String| {
            let (store_id, queue) = parse_entry(&text)?;
            let store_ids = found
                .get(&queue)
                .map(Placement::store_ids)
                .unwrap_or_default();
            let true_now = store_ids
                .into_iter()
                .any(|named| store_prefix(named) == store_id);
            Some(Entry {
                true_now,
                queue,
                text,
            })
        };
        Ok(texts.into_iter().filter_map(entry).collect())
    }

    /// Closes the case of entries that were read at a moment, as far as that may be said of them.
    async fn judge(&self, now: i64, entries: &[Entry]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let settled = now - i64::try_from(SETTLE_TIME.as_millis()).unwrap_or(i64::MAX);
        let mut call = Call::new(&JUDGE, &[&self.names.placement_index()]);
        call = call.bytes(settled.to_string().as_bytes());
        for entry in entries {
            call = call.bytes(entry.text.as_bytes());
            call = call.number(usize::from(entry.true_now));
        }
        self.scripts.plain(call).await.map(drop)
    }
}

/// The moment of a reading, and the entries.
fn read(answer: Value) -> Result<(i64, Vec<String>)> {
    let mut answer = Answer::new(answer)?;
    let now = answer.number()?;
    let mut entries = Vec::with_capacity(answer.left());
    while answer.left() > 0 {
        entries.push(answer.text()?);
    }
    Ok((now, entries))
}
