//! Work that is finished once it was begun, whether or not anybody waits for it any more.
//!
//! A client may go away at any moment, and its request is then broken off wherever it is. What has been sent to the broker
//! by then must still be recorded in the ledger, what was purged there must be purged here, and the other way round: so
//! such work is a task of its own.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use isimud_contract::{Error, ErrorKind, Result};
use tokio::sync::Semaphore;

/// How much may be under way at once. Whoever goes away without waiting cannot make it more.
const MAX_CONCURRENT: u32 = 4096;

/// How long a close waits for it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The work under way.
#[derive(Debug, Clone)]
pub(crate) struct Begun(Arc<Semaphore>);

impl Default for Begun {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_CONCURRENT as usize)))
    }
}

impl Begun {
    /// Does the work and hands on what it came to. It goes on when the caller does not wait for that. Where too much is
    /// under way, it is not begun.
    pub(crate) async fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let permit = Arc::clone(&self.0).try_acquire_owned().map_err(|_| {
            let sentence = "too many calls to the broker are under way";
            Error::new(ErrorKind::Unavailable, sentence)
        })?;
        let task = tokio::spawn(async move {
            let done = work.await;
            drop(permit);
            done
        });
        task.await.unwrap_or_else(|error| {
            let sentence = "a call to the broker broke off";
            Err(Error::new(ErrorKind::Internal, sentence).caused_by(error))
        })
    }

    /// Waits for all of it, for as long as a close may take.
    pub(crate) async fn settle(&self) {
        drop(tokio::time::timeout(CLOSE_TIMEOUT, self.0.acquire_many(MAX_CONCURRENT)).await);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_was_begun_ends_also_when_nobody_waits() {
        let begun = Begun::default();
        let (begin, begins) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let work = begun.finish(async move {
            begins.await.expect("it begins");
            end.send(()).expect("somebody looks");
            Ok(())
        });
        assert!(tokio::time::timeout(Duration::ZERO, work).await.is_err());
        begin.send(()).expect("it goes on");
        ended.await.expect("it ended");
        begun.settle().await;
        assert_eq!(begun.finish(async { Ok(7) }).await.expect("an answer"), 7);
    }
}
