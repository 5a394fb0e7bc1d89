//! Retries calls of a store that does not answer.
//!
//! A store may be away for a moment, and an import of hours is not to end with that. One that stays away costs a minute,
//! after which the queue is left out; the next such minute is half as long, so that a pool that is gone for good holds up
//! the queues of the others for two minutes in all.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use isimud_contract::{ErrorKind, Result};
use tokio::time::Instant;

use super::Stop;

/// How long a store is waited for, the first time.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The pause after the first failure; it doubles, up to two seconds.
const RETRY_DELAY: Duration = Duration::from_millis(100);

const MAX_RETRY_DELAY: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct StoreRetry {
    stop: Stop,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Since when every call has failed.
    since: Option<Instant>,
    /// How often the time was over.
    given_up: u32,
}

impl StoreRetry {
    pub(super) fn new(stop: Stop) -> Self {
        Self {
            stop,
            state: Mutex::default(),
        }
    }

    /// Makes a call again and again while the answer is `Unavailable`. It must be one that may be repeated.
    pub(super) async fn retry_unavailable<T>(
        &self,
        mut call: impl AsyncFnMut() -> Result<T>,
    ) -> Result<T> {
        let mut pause = RETRY_DELAY;
        loop {
            match call().await {
                Err(error) if error.kind() == ErrorKind::Unavailable && self.may_wait() => {
                    tracing::debug!(%error, "store unavailable, retrying");
                    tokio::time::sleep(pause).await;
                    pause = MAX_RETRY_DELAY.min(2 * pause);
                }
                Err(error) => return Err(error),
                Ok(answer) => {
                    self.state().since = None;
                    return Ok(answer);
                }
            }
        }
    }

    /// Whether the import was told to stop.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.is_told()
    }

    fn may_wait(&self) -> bool {
        if self.is_stopped() {
            return false;
        }
        let mut state = self.state();
        let since = *state.since.get_or_insert_with(Instant::now);
        let longest = MAX_WAIT / 2_u32.saturating_pow(state.given_up.min(31));
        if since.elapsed() < longest {
            return true;
        }
        state.given_up += 1;
        false
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use isimud_contract::Error;

    use super::*;

    fn away() -> Error {
        Error::new(ErrorKind::Unavailable, "away")
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_comes_back_is_waited_for() {
        let retry = StoreRetry::new(Stop::default());
        let mut calls = 0;
        let answer = retry
            .retry_unavailable(async || {
                calls += 1;
                if calls < 10 { Err(away()) } else { Ok(calls) }
            })
            .await;
        assert_eq!(answer.expect("it came back"), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn repeated_outages_wait_less_and_refusals_do_not_wait() {
        let retry = StoreRetry::new(Stop::default());
        let began = Instant::now();
        for _ in 0..100 {
            let answer: Result<()> = retry.retry_unavailable(async || Err(away())).await;
            assert!(answer.is_err());
            let fine = retry.retry_unavailable(async || Ok(())).await;
            assert!(fine.is_ok(), "another pool answers");
        }
        assert!(began.elapsed() < 3 * MAX_WAIT, "{:?}", began.elapsed());
        let refused: Result<()> = retry
            .retry_unavailable(async || Err(Error::invalid("no")))
            .await;
        assert!(refused.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn retry_ends_when_the_import_is_stopped() {
        let stop = Stop::default();
        let retry = StoreRetry::new(stop.clone());
        let mut calls = 0;
        let answer: Result<()> = retry
            .retry_unavailable(async || {
                calls += 1;
                if calls == 3 {
                    stop.tell();
                }
                Err(away())
            })
            .await;
        assert!(answer.is_err());
        assert_eq!(calls, 3);
    }
}
