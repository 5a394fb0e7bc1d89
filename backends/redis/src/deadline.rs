//! Until when a call may be carried out.
//!
//! A call that waits in the buffers of a server which stands still, or is busy, is carried out when that goes on, although
//! whoever made it has long been told that nothing happened: a pop would delete what nobody gets, a claim would hold it, and
//! a post would be there twice when its client has repeated it. So what takes or posts messages says until when it may be
//! done, by the server's own clock, and a script that comes too late does nothing and answers with that clock's moment.
//!
//! For that the client must know how far the server's clock is ahead of its own. It asks when it connects and now and then,
//! and learns from each refusal. The moment in an answer is one that had passed when the answer came, so what it makes of it
//! is too small rather than too large, by as long as the answer was on its way: a call may be refused too early, which only
//! makes it repeat it at once, knowing better.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The part of its time that a call leaves for its answer to come back: what is done in the last moment is answered too
/// late.
const FOR_THE_ANSWER: u32 = 10;

/// Nothing is known of the server's clock.
const UNKNOWN: i64 = i64::MIN;

/// A server's clock, as far as it is known.
#[derive(Debug)]
pub(crate) struct ServerClock {
    origin: Instant,
    /// Milliseconds that it showed at the origin.
    shown: AtomicI64,
}

impl ServerClock {
    /// A clock of which nothing is known.
    pub(crate) fn unknown() -> Self {
        Self {
            origin: Instant::now(),
            shown: AtomicI64::new(UNKNOWN),
        }
    }

    fn since_origin(&self, instant: Instant) -> i64 {
        let millis = instant.saturating_duration_since(self.origin).as_millis();
        i64::try_from(millis).unwrap_or(i64::MAX)
    }

    /// Takes what the server has just said, in milliseconds, for its time.
    pub(crate) fn set(&self, moment: i64) {
        let shown = moment.saturating_sub(self.since_origin(Instant::now()));
        self.shown.store(shown, Ordering::Relaxed);
    }

    /// The same, unless more is known already.
    pub(crate) fn advance(&self, moment: i64) {
        let shown = moment.saturating_sub(self.since_origin(Instant::now()));
        self.shown.fetch_max(shown, Ordering::Relaxed);
    }

    /// What it shows at an instant, in milliseconds, as far as that is known.
    fn at(&self, instant: Instant) -> Option<i64> {
        match self.shown.load(Ordering::Relaxed) {
            UNKNOWN => None,
            shown => Some(shown.saturating_add(self.since_origin(instant))),
        }
    }
}

/// Until when a call may be carried out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// That of a call that begins now and may take so long.
    pub(crate) fn after(timeout: Duration) -> Self {
        Self(Instant::now() + timeout - timeout / FOR_THE_ANSWER)
    }

    /// As a script takes it: milliseconds of the server's clock, or nothing while that is not known.
    pub(crate) fn of(self, clock: &ServerClock) -> String {
        clock
            .at(self.0)
            .map(|moment| moment.to_string())
            .unwrap_or_default()
    }

    pub(crate) fn is_over(self) -> bool {
        Instant::now() >= self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_is_a_moment_of_the_servers_clock() {
        let clock = ServerClock::unknown();
        let deadline = Deadline::after(Duration::from_secs(2));
        assert_eq!(deadline.of(&clock), "");
        tokio::time::advance(Duration::from_millis(300)).await;
        clock.set(10_000);
        assert_eq!(deadline.of(&clock), "11500");
        assert!(!deadline.is_over());
        tokio::time::advance(Duration::from_millis(1500)).await;
        assert!(deadline.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_was_long_on_its_way_makes_nothing_worse() {
        let clock = ServerClock::unknown();
        clock.set(10_000);
        tokio::time::advance(Duration::from_secs(1)).await;
        clock.advance(10_100);
        let deadline = Deadline::after(Duration::from_secs(1));
        assert_eq!(deadline.of(&clock), "11900");
        clock.advance(20_000);
        assert_eq!(deadline.of(&clock), "20900");
        clock.set(5_000);
        assert_eq!(deadline.of(&clock), "5900");
    }
}
