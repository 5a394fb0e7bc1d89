//! What is remembered of queues: what their metadata mean, the way to their messages, and which do not exist.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use isimud_contract::{Change, Error, ErrorKind, QueueKey, Result};
use quick_cache::sync::Cache;

use super::settings::Settings;
use crate::catalogue::SegmentedStore;

/// Queues that are cached, at the most.
const CACHE_CAPACITY: usize = 100_000;

/// A reading that took so long and then failed has failed for everybody who waited for it: each of them would wait as
/// long for a reading of his own, one after the other.
const SHARED_FAILURE_TIME: Duration = Duration::from_millis(500);

/// A queue as it is remembered.
#[derive(Debug)]
pub(super) struct Queue {
    /// What its metadata mean.
    pub(super) settings: Arc<Settings>,
    /// The way to its messages. It holds stores open, and is not for keeping longer than a call takes.
    pub(super) route: Arc<SegmentedStore>,
}

/// The queue cache: queues are read once and kept until they change.
pub(super) struct QueueCache {
    queues: Cache<QueueKey, Option<Arc<Queue>>>,
    /// Counts how often everything had to be forgotten.
    epoch: AtomicU64,
}

impl Default for QueueCache {
    fn default() -> Self {
        Self {
            queues: Cache::new(CACHE_CAPACITY),
            epoch: AtomicU64::new(0),
        }
    }
}

impl QueueCache {
    /// What is known of a queue, or else what `read` finds. Callers at once share one reading; where that takes its time
    /// and fails, they are all refused, as `Unavailable`.
    pub(super) async fn get(
        &self,
        queue: &QueueKey,
        read: impl AsyncFnOnce() -> Result<Option<Arc<Queue>>>,
    ) -> Result<Option<Arc<Queue>>> {
        if let Some(known) = self.queues.get(queue) {
            return Ok(known);
        }
        let begun = Instant::now();
        let vacancy = match self.queues.get_value_or_guard_async(queue).await {
            Ok(known) => return Ok(known),
            Err(vacancy) => vacancy,
        };
        if begun.elapsed() >= SHARED_FAILURE_TIME {
            let sentence = "the queue could not be read a moment ago";
            return Err(Error::new(ErrorKind::Unavailable, sentence));
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        let found = read().await?;
        if self.epoch.load(Ordering::Acquire) == epoch {
            // Refused when the queue was forgotten meanwhile: then what was read may be old, and is not kept.
            drop(vacancy.insert(found.clone()));
        }
        Ok(found)
    }

    /// Forgets what has changed. A pool that changed may be on the way to any queue.
    pub(super) fn forget(&self, change: Change<'_>) {
        match change {
            Change::Queue(queue) => drop(self.queues.remove(queue)),
            Change::Pools | Change::All => {
                self.epoch.fetch_add(1, Ordering::AcqRel);
                self.queues.clear();
            }
        }
    }
}
