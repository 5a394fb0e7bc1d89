//! Keeps to a number of messages a second.

use std::time::Duration;

use tokio::time::Instant;

use crate::moving::BATCH;

/// Parts of a second in which a rate is spent: so even is the flow of a slow bridge.
const PARTS: u32 = 10;

/// A pace: each batch moves the moment of the next by what it was worth.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Option<u32>,
    next: Instant,
}

impl Pace {
    pub(super) fn new(rate: Option<u32>) -> Self {
        Self {
            rate,
            next: Instant::now(),
        }
    }

    /// How many messages to take at a time.
    pub(super) fn most(&self) -> usize {
        let most = self.rate.map(|rate| rate.div_ceil(PARTS) as usize);
        most.unwrap_or(BATCH).clamp(1, BATCH)
    }

    /// How long to wait after so many messages. What an idle time would have allowed is not made up for.
    pub(super) fn after(&mut self, crossed: usize) -> Duration {
        let Some(rate) = self.rate else {
            return Duration::ZERO;
        };
        let now = Instant::now();
        let crossed = u32::try_from(crossed).unwrap_or(u32::MAX);
        let worth = Duration::from_secs(1).saturating_mul(crossed) / rate;
        let batch = Duration::from_secs(1) / PARTS;
        self.next = self.next.max(now.checked_sub(batch).unwrap_or(now)) + worth;
        self.next.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_small_where_the_rate_is() {
        let most = |rate| Pace::new(rate).most();
        assert_eq!(most(None), BATCH);
        assert_eq!(most(Some(1)), 1);
        assert_eq!(most(Some(200)), 20);
        assert_eq!(most(Some(1_000_000)), BATCH);
    }

    #[tokio::test(start_paused = true)]
    async fn over_time_the_rate_is_kept_and_nothing_is_made_up_for() {
        let began = Instant::now();
        let mut pace = Pace::new(Some(500));
        let mut crossed = 0;
        while crossed < 5_000 {
            let count = pace.most();
            // The stores take their time, too, and it counts.
            tokio::time::sleep(Duration::from_millis(30)).await;
            crossed += count;
            tokio::time::sleep(pace.after(count)).await;
        }
        let took = began.elapsed().as_secs_f64();
        assert!((9.5..=10.5).contains(&took), "{took}");

        tokio::time::sleep(Duration::from_secs(60)).await;
        let waits: Duration = (0..10).map(|_| pace.after(50)).max().expect("waits");
        assert!(waits >= Duration::from_millis(800), "{waits:?}");
        assert_eq!(Pace::new(None).after(1_000), Duration::ZERO);
    }
}
