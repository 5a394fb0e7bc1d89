//! How fast a socket is read: no faster than it may send, a second's worth at once.

use std::time::Duration;

use tokio::time::Instant;

use super::settings::Limits;

/// What a socket may send: it is not read before [`Pace::next`].
#[derive(Debug)]
pub(super) struct Pace {
    messages_per_second: u32,
    bytes_per_second: u32,
    next: Instant,
}

/// What may be made up for after a time without messages.
const BURST: Duration = Duration::from_secs(1);

impl Pace {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            messages_per_second: limits.messages_per_second,
            bytes_per_second: limits.bytes_per_second,
            next: Instant::now(),
        }
    }

    /// When the socket may be read again.
    pub(super) fn next(&self) -> Instant {
        self.next.checked_sub(BURST).unwrap_or(self.next)
    }

    /// A message of so many bytes was read.
    pub(super) fn note(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let second = Duration::from_secs(1);
        let by_count = second / self.messages_per_second;
        let by_bytes = second.saturating_mul(bytes) / self.bytes_per_second;
        self.next = self.next.max(Instant::now()) + by_count.max(by_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_of_messages_comes_at_once_and_the_rest_at_the_rate() {
        let limits = Limits {
            sockets: 1,
            sockets_per_project: 1,
            subscriptions: 1,
            message_bytes: 1,
            messages_per_second: 10,
            bytes_per_second: 1000,
            unanswered: 1,
            unsent: 1,
            unsent_bytes: 1,
        };
        let began = Instant::now();
        let mut pace = Pace::new(&limits);
        for _ in 0..10 {
            assert!(pace.next() <= Instant::now());
            pace.note(1);
        }
        pace.note(1);
        assert_eq!(pace.next() - began, Duration::from_millis(100));
        tokio::time::sleep_until(pace.next()).await;
        pace.note(500);
        assert_eq!(pace.next() - began, Duration::from_millis(600));
    }
}
