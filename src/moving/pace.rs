//! How fast a queue is carried.

use std::time::Duration;

use super::BATCH;

/// Keeps to a number of messages a second.
pub(super) struct Pace {
    rate: Option<u32>,
}

impl Pace {
    pub(super) fn new(rate: Option<u32>) -> Self {
        Self {
            rate: rate.filter(|rate| *rate > 0),
        }
    }

    /// How many messages to carry at a time.
    pub(super) fn most(&self) -> usize {
        let rate = self.rate.map_or(BATCH, |rate| rate as usize);
        rate.clamp(1, BATCH)
    }

    pub(super) async fn keep(&mut self, carried: usize) {
        if let (Some(rate), Ok(carried)) = (self.rate, u32::try_from(carried)) {
            tokio::time::sleep(Duration::from_secs(1) * carried / rate).await;
        }
    }
}
