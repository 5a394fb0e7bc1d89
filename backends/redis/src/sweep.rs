//! The sweep: gives back the memory of what has ended in queues that nobody uses any more.
//!
//! Nothing depends on it, for every script settles its queue first. A server that posts to a queue enters it into the
//! sweep schedule, once in a while; one server at a time has the lease of the sweep and works through what is due
//! there. A queue in which nothing can end any more is struck off, unless it was entered again meanwhile.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError, Weak};
use std::time::Duration;

use isimud_contract::{QueueKey, Result};
use redis::Value;
use tokio::time::Instant;
use uuid::Uuid;

use crate::error::strange;
use crate::store::RedisStore;
use crate::value::{Answer, number};

/// How often a server looks whether there is something to do.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How often a server looks what became of the nodes of a cluster: each so many looks.
const NODE_CHECK_EVERY: u32 = 5;
/// How long the lease lasts after its holder has died.
const LEASE_TTL: Duration = Duration::from_secs(10);
/// A server enters a queue again after so long.
const REENTRY_INTERVAL: Duration = Duration::from_secs(60);
/// A queue stays on the sweep schedule so long after its last message: longer than [`REENTRY_INTERVAL`], so that it is
/// not struck off while a server believes that it stands there.
const LINGER_MS: i64 = 180_000;
/// A queue is looked at so often, whatever is about to end in it.
const MAX_INTERVAL_MS: i64 = 60_000;
/// Queues in one look at the sweep schedule, and steps in one queue.
const PAGE_SIZE: usize = 100;
/// Queues of which a server remembers that it has entered them.
const CACHE_CAPACITY: usize = 100_000;

/// Which queues this server has entered, and when.
#[derive(Debug, Default)]
pub(crate) struct SweepSchedule(Mutex<HashMap<QueueKey, Instant>>);

impl SweepSchedule {
    /// Whether it is time to enter the queue (again).
    pub(crate) fn is_news(&self, queue: &QueueKey) -> bool {
        let now = Instant::now();
        let mut entered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entered
            .get(queue)
            .is_some_and(|entry| now.duration_since(*entry) < REENTRY_INTERVAL)
        {
            return false;
        }
        if entered.len() >= CACHE_CAPACITY {
            entered.clear();
        }
        entered.insert(queue.clone(), now);
        true
    }

    fn forget(&self, queue: &QueueKey) {
        let mut entered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entered.remove(queue);
    }
}

/// Enters a queue. Failing to is no reason to refuse a post, whose own answer will tell.
pub(crate) async fn enter(
    store: &RedisStore,
    sweep_schedule: &SweepSchedule,
    queue: &QueueKey,
    tag: &str,
) {
    let mut command = redis::cmd("ZADD");
    command.arg(store.names.sweep_schedule()).arg(0).arg(tag);
    let link = &store.scripts.link;
    if let Err(error) = link.in_time(link.send(&command)).await {
        sweep_schedule.forget(queue);
        tracing::debug!(%error, "a queue could not be entered for the sweep");
    }
}

/// Sweeps until the store is gone.
pub(crate) async fn run(store: Weak<RedisStore>) {
    let mut sweeper = Sweeper {
        name: Uuid::new_v4().to_string(),
        empty: HashMap::new(),
    };
    for look in 1_u32.. {
        let Some(store) = store.upgrade() else {
            return;
        };
        if look.is_multiple_of(NODE_CHECK_EVERY) {
            for link in std::iter::once(&store.scripts.link).chain(&store.scripts.waiting) {
                if let Err(error) = link.look().await {
                    tracing::debug!(%error, "the servers do not say who they are");
                }
            }
        }
        if let Err(error) = sweeper.look(&store).await {
            tracing::debug!(%error, "the sweep is interrupted");
        }
        drop(store);
        tokio::time::sleep(SWEEP_INTERVAL).await;
    }
}

struct Sweeper {
    name: String,
    /// Queues that were empty when they were looked at last, with the score that they were given then.
    empty: HashMap<String, i64>,
}

impl Sweeper {
    async fn look(&mut self, store: &RedisStore) -> Result<()> {
        let lease = store.names.lease();
        if !store.scripts.lease(lease, &self.name, LEASE_TTL).await? {
            self.empty.clear();
            return Ok(());
        }
        let now = server_time(store).await?;
        store.sweep_placement_index().await?;
        for (tag, score) in due(store, now).await? {
            self.sweep(store, &tag, score, now).await?;
        }
        Ok(())
    }

    async fn sweep(&mut self, store: &RedisStore, tag: &str, score: i64, now: i64) -> Result<()> {
        let sweep_schedule = store.names.sweep_schedule();
        let Some(keys) = store.names.by_tag(tag) else {
            return store
                .scripts
                .put_off(sweep_schedule, tag, score, None)
                .await;
        };
        let mut next = None;
        for _ in 0..PAGE_SIZE {
            let (settled, end) = store.scripts.sweep(&keys).await?;
            next = end;
            if settled {
                break;
            }
        }
        let was_empty = self.empty.remove(tag) == Some(score);
        let again = match next {
            Some(next) => Some(next.0.clamp(now + 1_000, now + MAX_INTERVAL_MS)),
            None if was_empty => None,
            None => {
                self.empty.insert(tag.to_owned(), now + LINGER_MS);
                Some(now + LINGER_MS)
            }
        };
        store
            .scripts
            .put_off(sweep_schedule, tag, score, again)
            .await
    }
}

/// The server's clock, in milliseconds.
async fn server_time(store: &RedisStore) -> Result<i64> {
    let link = &store.scripts.link;
    let answer = link.in_time(link.send(&redis::cmd("TIME"))).await?;
    let mut answer = Answer::new(answer)?;
    Ok(answer.number()? * 1_000 + answer.number()? / 1_000)
}

/// Queues whose time has come, with their scores.
async fn due(store: &RedisStore, now: i64) -> Result<Vec<(String, i64)>> {
    let mut command = redis::cmd("ZRANGE");
    command
        .arg(store.names.sweep_schedule())
        .arg("-inf")
        .arg(now);
    command
        .arg("BYSCORE")
        .arg("LIMIT")
        .arg(0)
        .arg(PAGE_SIZE)
        .arg("WITHSCORES");
    let link = &store.scripts.link;
    let Value::Array(found) = link.in_time(link.send(&command)).await? else {
        return Err(strange());
    };
    let mut found = found.into_iter();
    let mut due = Vec::new();
    while let (Some(Value::BulkString(tag)), Some(score)) = (found.next(), found.next()) {
        due.push((String::from_utf8_lossy(&tag).into_owned(), number(&score)?));
    }
    Ok(due)
}
