//! The time that one call may take: one budget for all its steps together.
//!
//! The broker and the ledger bound each of their calls. A call of the store makes several of them, and a caller who is
//! to be told to try again must hear so in time, whichever of them hangs.

use std::future::Future;
use std::time::Duration;

use isimud_contract::{Error, ErrorKind, Result};
use tokio::time::Instant;

/// What is left for a call that has begun.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget(Instant);

impl Budget {
    /// A call that begins now.
    pub(crate) fn new(whole: Duration) -> Self {
        Self(Instant::now() + whole)
    }

    /// Does a step, or gives it up as `Unavailable` when the time of the whole call is over. What was given up may have
    /// taken effect all the same.
    pub(crate) async fn step<T>(self, step: impl Future<Output = Result<T>>) -> Result<T> {
        let done = tokio::time::timeout_at(self.0, step).await;
        done.unwrap_or_else(|_| {
            let sentence = "the broker and its ledger together did not answer in time";
            Err(Error::new(ErrorKind::Unavailable, sentence))
        })
    }

    /// How long a call may still wait for something that it can do without.
    pub(crate) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}
