//! A clock that goes on steadily while the machine's clock is set.
//!
//! Claims and lives end at moments of the machine's clock, which outlive the process and mean the same to other servers.
//! But that clock jumps: a time server corrects it, an operator sets it, a virtual machine wakes up. A jump would end claims
//! that run, or make them longer. So while the process runs it counts the time that really passes, from what the machine's
//! clock said at the start, and says so when the two part. A start goes by the machine's clock again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use isimud_contract::{Clock, SystemClock, Timestamp};

/// What the two may differ by and nobody notices, in milliseconds. Time that a machine's clock gains by being made faster
/// or slower for a while is counted in both.
const JUMP_MS: i64 = 1_000;

/// Counts what passes, from the machine's clock at its making. See the module's docs.
pub struct SteadyClock {
    wall: Arc<dyn Clock>,
    /// Milliseconds that have passed, since whenever.
    passed: fn() -> i64,
    /// The machine's clock at the making, less what had passed then.
    start: i64,
    /// What the machine's clock is ahead by, as far as it was noticed.
    ahead: AtomicI64,
}

impl Default for SteadyClock {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock), passed)
    }
}

impl SteadyClock {
    fn new(wall: Arc<dyn Clock>, passed: fn() -> i64) -> Self {
        let start = wall.now().0 - passed();
        Self {
            wall,
            passed,
            start,
            ahead: AtomicI64::new(0),
        }
    }

    /// Notices when the machine's clock has jumped since it was last looked at. Returns by how much.
    fn notice(&self, ahead: i64) -> Option<i64> {
        let known = self.ahead.load(Ordering::Relaxed);
        let jump = ahead - known;
        let is_new = jump.abs() >= JUMP_MS
            && self
                .ahead
                .compare_exchange(known, ahead, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        is_new.then_some(jump)
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        let steady = self.start + (self.passed)();
        if let Some(jump) = self.notice(self.wall.now().0 - steady) {
            let way = if jump > 0 { "forward" } else { "back" };
            let by = Duration::from_millis(jump.unsigned_abs());
            tracing::warn!(
                "the machine's clock was set {way} by {by:?}: claims and lives of messages go on by the time that really \
                 passes, until the next start"
            );
        }
        Timestamp(steady)
    }

    fn wall(&self) -> Timestamp {
        self.wall.now()
    }
}

impl fmt::Debug for SteadyClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SteadyClock")
            .field("ahead", &self.ahead)
            .finish_non_exhaustive()
    }
}

/// Milliseconds since the machine was started, also while it slept.
#[cfg(target_os = "linux")]
fn passed() -> i64 {
    let passed = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    passed.tv_sec * 1_000 + passed.tv_nsec / 1_000_000
}

/// Milliseconds since the first call.
#[cfg(not(target_os = "linux"))]
fn passed() -> i64 {
    static START: std::sync::LazyLock<std::time::Instant> =
        std::sync::LazyLock::new(std::time::Instant::now);
    i64::try_from(START.elapsed().as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine's clock that is set by hand; it starts at 1,000,000.
    #[derive(Debug)]
    struct Set(AtomicI64);

    impl Clock for Set {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.load(Ordering::Relaxed))
        }

        fn wall(&self) -> Timestamp {
            self.now()
        }
    }

    static PASSED: AtomicI64 = AtomicI64::new(0);

    #[test]
    fn the_time_that_passes_counts_and_a_jump_is_noticed_once() {
        let wall = Arc::new(Set(AtomicI64::new(1_000_000)));
        let clock = SteadyClock::new(Arc::clone(&wall) as _, || PASSED.load(Ordering::Relaxed));
        let pass = |millis: i64| {
            PASSED.fetch_add(millis, Ordering::Relaxed);
            wall.0.fetch_add(millis, Ordering::Relaxed);
        };
        pass(5_000);
        assert_eq!(clock.now(), Timestamp(1_005_000));
        for (jump, noticed) in [
            (3_600_000, Some(3_600_000)),
            (0, None),
            (-999, None),
            // What was not noticed adds up.
            (-1, Some(-1_000)),
            (-7_200_000, Some(-7_200_000)),
        ] {
            wall.0.fetch_add(jump, Ordering::Relaxed);
            let before = clock.ahead.load(Ordering::Relaxed);
            let steady = clock.now();
            let after = clock.ahead.load(Ordering::Relaxed);
            assert_eq!(after - before, noticed.unwrap_or(0), "{jump}");
            assert_eq!(clock.now(), steady, "no time has passed");
            assert_eq!(clock.wall(), Timestamp(wall.0.load(Ordering::Relaxed)));
        }
        pass(1_000);
        assert_eq!(clock.now(), Timestamp(1_006_000));
    }

    #[test]
    fn steady_clock_starts_at_the_system_time() {
        let (clock, machine) = (SteadyClock::default(), SystemClock);
        let apart = (clock.now().0 - machine.now().0).abs();
        assert!(apart < JUMP_MS, "{apart}");
    }
}
