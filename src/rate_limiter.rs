//! Limits the messages a second.

use std::time::Duration;

use tokio::time::Instant;

use crate::migration::BATCH;

/// Parts of a second in which a rate is spent: so even is the flow of what is slow.
const BATCHES_PER_SEC: u32 = 10;

/// A rate limiter: each batch moves the moment of the next by what it was worth.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    rate: Option<u32>,
    next: Instant,
}

impl RateLimiter {
    pub(crate) fn new(rate: Option<u32>) -> Self {
        Self {
            rate,
            next: Instant::now(),
        }
    }

    /// How many messages to take at a time.
    pub(crate) fn batch_size(&self) -> usize {
        let most = self
            .rate
            .map(|rate| rate.div_ceil(BATCHES_PER_SEC) as usize);
        most.unwrap_or(BATCH).clamp(1, BATCH)
    }

    /// How long to wait after so many messages. What an idle time would have allowed is not made up for.
    pub(crate) fn delay_after(&mut self, transferred: usize) -> Duration {
        let Some(rate) = self.rate else {
            return Duration::ZERO;
        };
        let now = Instant::now();
        let transferred = u32::try_from(transferred).unwrap_or(u32::MAX);
        let worth = Duration::from_secs(1).saturating_mul(transferred) / rate;
        let batch = Duration::from_secs(1) / BATCHES_PER_SEC;
        self.next = self.next.max(now.checked_sub(batch).unwrap_or(now)) + worth;
        self.next.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_small_where_the_rate_is() {
        let most = |rate| RateLimiter::new(rate).batch_size();
        assert_eq!(most(None), BATCH);
        assert_eq!(most(Some(1)), 1);
        assert_eq!(most(Some(200)), 20);
        assert_eq!(most(Some(1_000_000)), BATCH);
    }

    #[tokio::test(start_paused = true)]
    async fn over_time_the_rate_is_kept_and_nothing_is_made_up_for() {
        let began = Instant::now();
        let mut limiter = RateLimiter::new(Some(500));
        let mut transferred = 0;
        while transferred < 5_000 {
            let count = limiter.batch_size();
            // The stores take their time, too, and it counts.
            tokio::time::sleep(Duration::from_millis(30)).await;
            transferred += count;
            tokio::time::sleep(limiter.delay_after(count)).await;
        }
        let took = began.elapsed().as_secs_f64();
        assert!((9.5..=10.5).contains(&took), "{took}");

        tokio::time::sleep(Duration::from_secs(60)).await;
        let waits: Duration = (0..10)
            .map(|_| limiter.delay_after(50))
            .max()
            .expect("waits");
        assert!(waits >= Duration::from_millis(800), "{waits:?}");
        assert_eq!(RateLimiter::new(None).delay_after(1_000), Duration::ZERO);
    }
}
