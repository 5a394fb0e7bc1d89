//! A circuit for each store: one that does not answer is not asked again and again.
//!
//! After some calls in a row that ended in `Unavailable` and took their time about it, the circuit opens: calls are
//! refused at once. A moment later one call is let through; if it ends well the circuit closes, else it stays open for
//! another moment. Failures that come at once cost nobody anything, and open nothing: a full disk refuses posts, but
//! readings go on.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use isimud_contract::{Error, ErrorKind, Result};

/// Slow failures in a row that open the circuit.
const FAILURE_THRESHOLD: u32 = 5;
/// What is slow.
const SLOW_CALL: Duration = Duration::from_millis(100);
/// How long the circuit is open before a call is let through.
const OPEN_TIME: Duration = Duration::from_millis(500);
/// How long that one call may take before another one is let through.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// The circuit of one store. Closed, it costs a call one look at a number.
#[derive(Debug)]
pub(super) struct Circuit {
    start: Instant,
    failures: AtomicU32,
    /// Milliseconds after `start` from when on a call is let through; 0 while the circuit is closed.
    opens: AtomicU64,
}

impl Default for Circuit {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            failures: AtomicU32::new(0),
            opens: AtomicU64::new(0),
        }
    }
}

impl Circuit {
    /// Lets a call through, or refuses it as `Unavailable`.
    pub(super) fn admit(&self) -> Result<()> {
        match self.opens.load(Ordering::Acquire) {
            0 => Ok(()),
            opens => self.admit_one(opens, self.now(Duration::ZERO)),
        }
    }

    fn admit_one(&self, opens: u64, now: u64) -> Result<()> {
        let next = now.saturating_add(millis(PROBE_TIMEOUT));
        let taken = opens <= now
            && self
                .opens
                .compare_exchange(opens, next, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok();
        if taken {
            return Ok(());
        }
        let sentence = "the store has not answered for a while and is not asked for a moment";
        Err(Error::new(ErrorKind::Unavailable, sentence))
    }

    /// Notes how a call ended.
    pub(super) fn note(&self, took: Duration, error: Option<&Error>) {
        let failed = error.is_some_and(|error| error.kind() == ErrorKind::Unavailable);
        if !failed {
            // Written only when there is something to change: every call of every thread comes by here.
            if self.failures.load(Ordering::Relaxed) != 0 {
                self.failures.store(0, Ordering::Relaxed);
            }
            if self.opens.load(Ordering::Relaxed) != 0 {
                self.opens.store(0, Ordering::Release);
            }
            return;
        }
        let is_open = self.opens.load(Ordering::Relaxed) != 0;
        let count = match took >= SLOW_CALL {
            true => self.failures.fetch_add(1, Ordering::Relaxed) + 1,
            false => 0,
        };
        if is_open || count >= FAILURE_THRESHOLD {
            self.opens.store(self.now(OPEN_TIME), Ordering::Release);
        }
    }

    /// Whether calls are refused.
    #[cfg(test)]
    fn is_open(&self) -> bool {
        self.opens.load(Ordering::Relaxed) != 0
    }

    /// Milliseconds since the beginning, so much later; never 0.
    fn now(&self, later: Duration) -> u64 {
        millis(self.start.elapsed() + later).max(1)
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Error {
        Error::new(ErrorKind::Unavailable, "no answer")
    }

    #[test]
    fn it_opens_after_slow_failures_in_a_row_and_lets_one_through_later() {
        let circuit = Circuit::default();
        for _ in 1..FAILURE_THRESHOLD {
            circuit.note(SLOW_CALL, Some(&failure()));
        }
        circuit.note(SLOW_CALL, None);
        for _ in 1..FAILURE_THRESHOLD {
            circuit.note(SLOW_CALL, Some(&failure()));
            assert!(circuit.admit().is_ok());
        }
        circuit.note(SLOW_CALL, Some(&failure()));
        let refused = circuit.admit().expect_err("it is open");
        assert_eq!(refused.kind(), ErrorKind::Unavailable);

        let opens = circuit.opens.load(Ordering::Relaxed);
        assert!(circuit.admit_one(opens, opens - 1).is_err());
        assert!(circuit.admit_one(opens, opens).is_ok());
        assert!(circuit.admit_one(opens, opens).is_err(), "only one");
        circuit.note(Duration::ZERO, Some(&failure()));
        assert!(circuit.is_open());
        circuit.note(Duration::ZERO, None);
        assert!(!circuit.is_open() && circuit.admit().is_ok());
    }

    #[test]
    fn failures_that_come_at_once_open_nothing() {
        let circuit = Circuit::default();
        for _ in 0..10 * FAILURE_THRESHOLD {
            circuit.note(Duration::from_millis(1), Some(&failure()));
        }
        assert!(circuit.admit().is_ok());
    }

    #[test]
    fn what_a_caller_did_wrong_opens_nothing() {
        let circuit = Circuit::default();
        for _ in 0..10 * FAILURE_THRESHOLD {
            circuit.note(SLOW_CALL, Some(&Error::invalid("no")));
        }
        assert!(circuit.admit().is_ok());
    }
}
