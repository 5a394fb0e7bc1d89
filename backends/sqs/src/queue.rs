//! One queue of SQS: what is known of it, and what is under way for it.

use std::sync::Arc;
use std::time::Duration;

use isimud_contract::{Error, Result};

use crate::actions::{Hiding, Posting, Settling};
use crate::batching::{BatchConfig, Batches};
use crate::client::Account;
use crate::envelope::BatchEntry;
use crate::polling::Polls;

/// Requests of one kind at once for a queue. FIFO queues are sent to by one, so that posts do not overtake each other.
const MAX_CONCURRENT: usize = 16;

/// The longest that a message is hidden, counted from its receive (action `ChangeMessageVisibility`).
pub(crate) const LONGEST_HOLD: Duration = Duration::from_secs(43_200);

/// Whole seconds, rounded up: what SQS counts in.
pub(crate) fn seconds(span: Duration) -> i32 {
    let seconds = span.min(LONGEST_HOLD).as_millis().div_ceil(1000);
    i32::try_from(seconds).unwrap_or(i32::MAX)
}

/// What is known of a queue.
#[derive(Debug)]
pub(crate) struct QueueInfo {
    pub(crate) account: Arc<Account>,
    pub(crate) name: String,
    /// Opaque: servers that are no SQS name hosts in it that nobody can reach.
    pub(crate) url: String,
    /// The largest message that it takes.
    pub(crate) largest: usize,
    /// How long it keeps messages.
    pub(crate) retention: Duration,
    /// Whether it is ours to make, should it not be there.
    pub(crate) is_made_here: bool,
    /// Tags, if it has to be made once more.
    pub(crate) tags: Vec<(&'static str, String)>,
}

/// A queue, and its lines of entries.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) queue_info: Arc<QueueInfo>,
    pub(crate) polls: Polls,
    pub(crate) posting: Batches<Posting>,
    pub(crate) settling: Batches<Settling>,
    pub(crate) hiding: Batches<Hiding>,
}

impl Queue {
    pub(crate) fn new(queue_info: QueueInfo) -> Arc<Self> {
        let queue_info = Arc::new(queue_info);
        let config = &queue_info.account.config;
        let batch_config = BatchConfig {
            requests: MAX_CONCURRENT,
            linger: config.linger,
            timeout: config.timeout,
            capacity: queue_info.largest,
        };
        let posting = BatchConfig {
            requests: if config.order.is_fifo() {
                1
            } else {
                MAX_CONCURRENT
            },
            ..batch_config
        };
        Arc::new(Self {
            posting: Batches::new(Posting(Arc::clone(&queue_info)), posting),
            settling: Batches::new(Settling(Arc::clone(&queue_info)), batch_config),
            hiding: Batches::new(Hiding(Arc::clone(&queue_info)), batch_config),
            polls: Polls::default(),
            queue_info,
        })
    }

    /// How long messages live that do not say it themselves.
    pub(crate) fn native_ttl(&self) -> Duration {
        let chosen = self.queue_info.account.config.native_ttl;
        chosen.unwrap_or(self.queue_info.retention)
    }

    /// Refuses what the queue cannot take, before anything is sent.
    pub(crate) fn check(&self, batch_entry: &BatchEntry) -> Result<()> {
        let (weight, largest) = (batch_entry.weight(), self.queue_info.largest);
        if weight > largest {
            let sentence = format!(
                "a message is larger than its queue in SQS takes: {weight} of {largest} bytes, its metadata included"
            );
            return Err(Error::invalid(sentence));
        }
        if batch_entry.remaining_ttl > self.queue_info.retention {
            let sentence = format!(
                "a message is to live longer than its queue in SQS keeps any, which is {} seconds",
                self.queue_info.retention.as_secs()
            );
            return Err(Error::invalid(sentence));
        }
        Ok(())
    }
}
