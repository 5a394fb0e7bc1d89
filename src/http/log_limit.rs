//! How many lines about failed requests are logged: a broker that is down would make thousands a second.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines of a minute, at the most.
const MAX_LINES: u32 = 20;
const MINUTE: Duration = Duration::from_secs(60);

/// Lets a few lines of each minute through, and counts the others.
#[derive(Debug, Default)]
pub struct LogLimit(Mutex<Option<Window>>);

#[derive(Debug)]
struct Window {
    began: Instant,
    lines: u32,
    left_out: u64,
}

impl LogLimit {
    /// Whether a line may be logged now, and then how many were left out before it.
    pub(super) fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = window.get_or_insert(Window {
            began: now,
            lines: 0,
            left_out: 0,
        });
        if now.saturating_duration_since(window.began) >= MINUTE {
            (window.began, window.lines) = (now, 0);
        }
        if window.lines == MAX_LINES {
            window.left_out += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_failures_is_some_lines_a_minute_and_a_count_of_the_others() {
        let (limit, start) = (LogLimit::default(), Instant::now());
        for _ in 0..MAX_LINES {
            assert_eq!(limit.admit_at(start), Some(0));
        }
        for _ in 0..1000 {
            assert_eq!(limit.admit_at(start), None);
        }
        assert_eq!(limit.admit_at(start + MINUTE), Some(1000));
        assert_eq!(limit.admit_at(start + MINUTE), Some(0));
    }
}
