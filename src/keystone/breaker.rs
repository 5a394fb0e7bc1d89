//! A circuit breaker: after some failures in a row Keystone is left alone for a moment.
//!
//! Without it a dead Keystone would cost every client the whole time limit. Closed, the breaker lets everything through.
//! After [`FAILURES`] failures in a row it opens: calls fail at once. [`OPEN_FOR`] later it lets one call through
//! (half-open); if that ends well the breaker closes, else it stays open as long again.
//!
//! Source: `docs/compatibility/keystone.md` section 9.4.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isimud_contract::{Clock, Timestamp};

/// Failures in a row that open the breaker.
const FAILURES: u32 = 5;

/// How long the breaker is open before it lets a call through.
const OPEN_FOR: Duration = Duration::from_secs(1);

/// The breaker in front of Keystone.
#[derive(Debug)]
pub(super) struct Breaker {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed { failures: u32 },
    Open { since: Timestamp, retry_after: u64 },
    HalfOpen { retry_after: u64 },
}

/// The right to ask Keystone once. A call that ends without a report counts as neither success nor failure.
#[derive(Debug)]
#[must_use = "the breaker waits for the report of a call"]
pub(super) struct Admission<'a> {
    breaker: &'a Breaker,
    is_reported: bool,
}

impl Breaker {
    /// Creates a closed breaker.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let state = Mutex::new(State::Closed { failures: 0 });
        Self { clock, state }
    }

    /// Lets a call through, or refuses it with the seconds after which a client may try again.
    pub(super) fn admit(&self) -> Result<Admission<'_>, u64> {
        let mut state = self.lock();
        match *state {
            State::Closed { .. } => {}
            State::Open { since, retry_after } => {
                let now = self.clock.now();
                if now >= since && now.since(since) < OPEN_FOR {
                    return Err(retry_after);
                }
                *state = State::HalfOpen { retry_after };
            }
            State::HalfOpen { retry_after } => return Err(retry_after),
        }
        Ok(Admission {
            breaker: self,
            is_reported: false,
        })
    }

    /// Reports whether calls are refused.
    #[cfg(test)]
    pub(super) fn is_open(&self) -> bool {
        !matches!(*self.lock(), State::Closed { .. })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admission<'_> {
    /// Reports that Keystone answered as it should.
    pub(super) fn succeeded(mut self) {
        self.is_reported = true;
        *self.breaker.lock() = State::Closed { failures: 0 };
    }

    /// Reports that Keystone made no decision; a client may try again after so many seconds. Returns true when that opened
    /// the breaker.
    pub(super) fn failed(mut self, retry_after: u64) -> bool {
        self.is_reported = true;
        let since = self.breaker.clock.now();
        let mut state = self.breaker.lock();
        match &mut *state {
            State::Closed { failures } if *failures + 1 < FAILURES => {
                *failures += 1;
                false
            }
            State::Closed { .. } => {
                *state = State::Open { since, retry_after };
                true
            }
            // The probe failed, or a call that was let through before the breaker opened.
            State::HalfOpen { .. } | State::Open { .. } => {
                *state = State::Open { since, retry_after };
                false
            }
        }
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        if self.is_reported {
            return;
        }
        let mut state = self.breaker.lock();
        if let State::HalfOpen { retry_after } = *state {
            // The probe ended without a result: another call may be one, at once.
            let since = self.breaker.clock.now().before(OPEN_FOR);
            *state = State::Open { since, retry_after };
        }
    }
}

#[cfg(test)]
mod tests {
    use isimud_contract::ManualClock;

    use super::*;

    fn breaker() -> (Breaker, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::default());
        (Breaker::new(Arc::clone(&clock) as _), clock)
    }

    fn fail(breaker: &Breaker) -> bool {
        breaker.admit().expect("it is let through").failed(5)
    }

    fn open(breaker: &Breaker) {
        while !breaker.is_open() {
            fail(breaker);
        }
    }

    #[test]
    fn five_failures_in_a_row_open_the_breaker_and_a_success_starts_over() {
        let (breaker, _) = breaker();
        for _ in 1..FAILURES {
            assert!(!fail(&breaker));
        }
        breaker.admit().expect("it is closed").succeeded();
        for _ in 1..FAILURES {
            assert!(!fail(&breaker));
        }
        assert!(fail(&breaker) && breaker.is_open());
        assert_eq!(breaker.admit().err(), Some(5));
    }

    #[test]
    fn one_call_is_let_through_after_a_second() {
        let (breaker, clock) = breaker();
        open(&breaker);
        clock.advance(OPEN_FOR - Duration::from_millis(1));
        assert!(breaker.admit().is_err());
        clock.advance(Duration::from_millis(1));
        let probe = breaker.admit().expect("one is let through");
        assert!(breaker.admit().is_err(), "and only one");
        assert!(!probe.failed(30));
        assert_eq!(breaker.admit().err(), Some(30));
        clock.advance(OPEN_FOR);
        breaker.admit().expect("one is let through").succeeded();
        assert!(!breaker.is_open() && breaker.admit().is_ok());
    }

    #[test]
    fn a_probe_without_a_result_makes_room_for_another() {
        let (breaker, clock) = breaker();
        open(&breaker);
        clock.advance(OPEN_FOR);
        drop(breaker.admit().expect("one is let through"));
        let probe = breaker.admit().expect("another one");
        assert!(breaker.admit().is_err());
        probe.succeeded();
        assert!(breaker.admit().is_ok());
    }

    #[test]
    fn a_late_failure_does_not_end_the_probe_early() {
        let (breaker, clock) = breaker();
        let late = breaker.admit().expect("it is closed");
        open(&breaker);
        clock.advance(OPEN_FOR);
        late.failed(5);
        assert!(breaker.admit().is_err(), "open for another second");
    }
}
