//! Hints: what a broker is told after the ledger has decided.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use isimud_contract::{Error, ErrorKind, QueueKey, Result};
use tokio::sync::Semaphore;

use crate::budget::Budget;

/// Hints that may be under way at once. One more is left out: the broker then delivers the message again, later.
const MAX_HINTS: u32 = 4096;

/// How long a call waits for its own hint, unless that frees messages. A healthy broker takes a fraction of it, and
/// then what was deleted counts no more when the caller has its answer.
const HINT_TIMEOUT: Duration = Duration::from_millis(100);

/// How long a call waits for a hint that frees messages. Somebody may be about to claim them, and where another server
/// holds them they take two ways.
const RELEASE_HINT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a close waits for all hints.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A broker takes hints again when none has failed for so long.
const QUIET_PERIOD: Duration = Duration::from_secs(10);

/// The hints under way.
#[derive(Debug)]
pub(crate) struct Hints {
    room: Arc<Semaphore>,
    failures: Arc<Failures>,
}

impl Default for Hints {
    fn default() -> Self {
        Self {
            room: Arc::new(Semaphore::new(MAX_HINTS as usize)),
            failures: Arc::default(),
        }
    }
}

impl Hints {
    /// Gives a hint, and waits a moment for it to be taken. It goes on by itself after that moment, and also when the
    /// caller goes away. A failure is logged here, and told to nobody.
    pub(crate) async fn hint(
        &self,
        queue: &QueueKey,
        work: impl Future<Output = Result<()>> + Send + 'static,
    ) {
        self.wait(queue, HINT_TIMEOUT, work).await;
    }

    /// The same for a hint that frees messages: the moment is a longer one, but no longer than the call may take.
    pub(crate) async fn free(
        &self,
        queue: &QueueKey,
        budget: Budget,
        work: impl Future<Output = Result<()>> + Send + 'static,
    ) {
        let timeout = RELEASE_HINT_TIMEOUT.min(budget.left());
        self.wait(queue, timeout, work).await;
    }

    async fn wait(
        &self,
        queue: &QueueKey,
        timeout: Duration,
        work: impl Future<Output = Result<()>> + Send + 'static,
    ) {
        let queue = queue.clone();
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
            let error = Error::new(ErrorKind::Unavailable, "too many hints are under way");
            return self.failures.failed(&queue, &error);
        };
        let failures = Arc::clone(&self.failures);
        let task = tokio::spawn(async move {
            match work.await {
                Ok(()) => failures.over(QUIET_PERIOD),
                Err(error) => failures.failed(&queue, &error),
            }
            drop(permit);
        });
        // Whether it was in time makes no difference to anybody.
        drop(tokio::time::timeout(timeout, task).await);
    }

    /// Logs a hint that failed, or what comes to the same: the broker delivers those messages again, and the ledger judges
    /// them.
    pub(crate) fn failed(&self, queue: &QueueKey, error: &Error) {
        self.failures.failed(queue, error);
    }

    /// Waits for every hint, for as long as a close may take.
    pub(crate) async fn settle(&self) {
        drop(tokio::time::timeout(CLOSE_TIMEOUT, self.room.acquire_many(MAX_HINTS)).await);
    }
}

/// Whether hints fail. That is logged when it begins and when it is over, and not for each of them: a broker that is down
/// takes none of thousands a second.
#[derive(Debug, Default)]
struct Failures {
    /// Whether there is a spell, for those who only want to know that.
    any: AtomicBool,
    spell: Mutex<Option<Spell>>,
}

#[derive(Debug)]
struct Spell {
    last: Instant,
    count: u64,
}

impl Failures {
    fn failed(&self, queue: &QueueKey, error: &Error) {
        let mut spell = self.spell.lock().unwrap_or_else(PoisonError::into_inner);
        let count = spell.as_ref().map_or(1, |spell| spell.count + 1);
        *spell = Some(Spell {
            last: Instant::now(),
            count,
        });
        self.any.store(true, Ordering::Relaxed);
        if count == 1 {
            tracing::warn!(%queue, %error, "the broker did not take a hint; it may deliver messages again");
        } else {
            tracing::debug!(%queue, %error, count, "the broker did not take a hint");
        }
    }

    /// Ends the spell after a hint that was taken, unless one has failed within `calm`.
    fn over(&self, calm: Duration) {
        if !self.any.load(Ordering::Relaxed) {
            return;
        }
        let mut spell = self.spell.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(over) = spell.take_if(|spell| spell.last.elapsed() >= calm) {
            self.any.store(false, Ordering::Relaxed);
            tracing::info!(failed = over.count, "the broker takes hints again");
        }
    }
}

#[cfg(test)]
mod tests {
    use isimud_contract::{ProjectId, QueueName};

    use super::*;

    #[test]
    fn failures_are_one_spell_until_the_broker_has_been_calm() {
        let failures = Failures::default();
        let count = || failures.spell.lock().unwrap().as_ref().map(|it| it.count);
        let project = ProjectId::parse("p").unwrap();
        let queue = QueueKey::new(project, QueueName::parse("q").unwrap());
        let error = Error::new(ErrorKind::Unavailable, "down");
        failures.over(Duration::ZERO);
        assert_eq!(count(), None);
        for number in 1..=3 {
            failures.failed(&queue, &error);
            failures.over(QUIET_PERIOD);
            assert_eq!(count(), Some(number));
        }
        failures.over(Duration::ZERO);
        assert_eq!(count(), None);
        failures.failed(&queue, &error);
        assert_eq!(count(), Some(1));
    }
}
