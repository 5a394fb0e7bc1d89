//! Hints: what a broker is told after the ledger has decided.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use isimud_contract::{Error, ErrorKind, QueueKey, Result};
use tokio::sync::Semaphore;

/// Hints that may be under way at once. One more is left out: the broker then delivers the message again, later.
const ROOM: u32 = 4096;

/// How long a call waits for its own hint, unless that frees messages. A healthy broker takes a fraction of it, and
/// then what was deleted counts no more when the caller has its answer.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long a call waits for a hint that frees messages. Somebody may be about to claim them, and where another server
/// holds them they take two ways.
const PATIENCE_TO_FREE: Duration = Duration::from_secs(1);

/// How long a close waits for all hints.
const PARTING: Duration = Duration::from_secs(5);

/// The hints under way.
#[derive(Debug)]
pub(crate) struct Hints(Arc<Semaphore>);

impl Default for Hints {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ROOM as usize)))
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
        self.wait(queue, PATIENCE, work).await;
    }

    /// The same for a hint that frees messages: the moment is a longer one.
    pub(crate) async fn free(
        &self,
        queue: &QueueKey,
        work: impl Future<Output = Result<()>> + Send + 'static,
    ) {
        self.wait(queue, PATIENCE_TO_FREE, work).await;
    }

    async fn wait(
        &self,
        queue: &QueueKey,
        patience: Duration,
        work: impl Future<Output = Result<()>> + Send + 'static,
    ) {
        let queue = queue.clone();
        let Ok(permit) = Arc::clone(&self.0).try_acquire_owned() else {
            let error = Error::new(ErrorKind::Unavailable, "too many hints are under way");
            return failed(&queue, &error);
        };
        let task = tokio::spawn(async move {
            if let Err(error) = work.await {
                failed(&queue, &error);
            }
            drop(permit);
        });
        // Whether it was in time makes no difference to anybody.
        drop(tokio::time::timeout(patience, task).await);
    }

    /// Waits for every hint, for as long as a close may take.
    pub(crate) async fn settle(&self) {
        drop(tokio::time::timeout(PARTING, self.0.acquire_many(ROOM)).await);
    }
}

/// What a failed hint comes to: the broker delivers those messages again, and the ledger judges them.
pub(crate) fn failed(queue: &QueueKey, error: &Error) {
    tracing::warn!(%queue, %error, "the broker did not take a hint; it may deliver messages again");
}
