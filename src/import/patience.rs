//! How long a store that does not answer is waited for.
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
const LONGEST: Duration = Duration::from_secs(60);

/// The pause after the first failure; it doubles, up to two seconds.
const PAUSE: Duration = Duration::from_millis(100);

const LONGEST_PAUSE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Patience {
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

impl Patience {
    pub(super) fn new(stop: Stop) -> Self {
        Self {
            stop,
            state: Mutex::default(),
        }
    }

    /// Makes a call again and again while the answer is `Unavailable`. It must be one that may be repeated.
    pub(super) async fn insist<T>(&self, mut call: impl AsyncFnMut() -> Result<T>) -> Result<T> {
        let mut pause = PAUSE;
        loop {
            match call().await {
                Err(error) if error.kind() == ErrorKind::Unavailable && self.may_wait() => {
                    tracing::debug!(%error, "the store is asked again");
                    tokio::time::sleep(pause).await;
                    pause = LONGEST_PAUSE.min(2 * pause);
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
        let longest = LONGEST / 2_u32.saturating_pow(state.given_up.min(31));
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
        let patience = Patience::new(Stop::default());
        let mut calls = 0;
        let answer = patience
            .insist(async || {
                calls += 1;
                if calls < 10 { Err(away()) } else { Ok(calls) }
            })
            .await;
        assert_eq!(answer.expect("it came back"), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_stays_away_costs_less_each_time_and_a_refusal_costs_nothing() {
        let patience = Patience::new(Stop::default());
        let began = Instant::now();
        for _ in 0..100 {
            let answer: Result<()> = patience.insist(async || Err(away())).await;
            assert!(answer.is_err());
            let fine = patience.insist(async || Ok(())).await;
            assert!(fine.is_ok(), "another pool answers");
        }
        assert!(began.elapsed() < 3 * LONGEST, "{:?}", began.elapsed());
        let refused: Result<()> = patience.insist(async || Err(Error::invalid("no"))).await;
        assert!(refused.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_told_to_stop_waits_no_longer() {
        let stop = Stop::default();
        let patience = Patience::new(stop.clone());
        let mut calls = 0;
        let answer: Result<()> = patience
            .insist(async || {
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
