//! How many a second: to one host, of one project, mails of one project and to one receiver.
//!
//! Each key has a moment at which its next turn is. Who takes a turn moves it on, and waits until its own; so turns are
//! given in the order in which they are asked for, and a key that was idle has a short burst to spend.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Turns a second, by key.
#[derive(Debug)]
pub(crate) struct Rates {
    /// From one turn to the next; none where there is no bound.
    step: Option<Duration>,
    /// How much of the time that was not used is kept.
    burst: Duration,
    next: Mutex<HashMap<String, Instant>>,
}

impl Rates {
    /// So many turns in a span of time; 0 for no bound. What is not used in `burst` is lost.
    pub(crate) fn new(turns: u32, span: Duration, burst: Duration) -> Self {
        Self {
            step: (turns > 0).then(|| span / turns),
            burst,
            next: Mutex::default(),
        }
    }

    /// Takes so many turns, and says how long to wait for them.
    pub(crate) fn take(&self, key: &str, turns: u32) -> Duration {
        let Some(step) = self.step else {
            return Duration::ZERO;
        };
        let now = Instant::now();
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if next.len() >= 1024 && next.len().is_power_of_two() {
            next.retain(|_, moment| *moment > now);
        }
        let since = now.checked_sub(self.burst).unwrap_or(now);
        let moment = next.entry(key.to_owned()).or_insert(since);
        let turn = (*moment).max(since);
        *moment = turn + step * turns;
        turn.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn turns_come_at_a_steady_rate_after_a_burst() {
        let rates = Rates::new(10, SECOND, SECOND / 2);
        let waits: Vec<u128> = (0..8).map(|_| rates.take("a", 1).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 0, 100, 200]);
        assert_eq!(rates.take("b", 1), Duration::ZERO, "keys are apart");
        tokio::time::advance(SECOND * 10).await;
        assert_eq!(rates.take("a", 10), Duration::ZERO);
        assert_eq!(rates.take("a", 1), SECOND / 2, "a turn may cost more");
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_are_idle_are_forgotten_and_no_bound_is_none() {
        let rates = Rates::new(1000, SECOND, Duration::ZERO);
        for number in 0..5000 {
            rates.take(&number.to_string(), 1);
            tokio::time::advance(Duration::from_millis(2)).await;
        }
        assert!(rates.next.lock().expect("unpoisoned").len() <= 2048);
        let unbound = Rates::new(0, SECOND, SECOND);
        assert!((0..1000).all(|_| unbound.take("a", 1).is_zero()));
    }
}
