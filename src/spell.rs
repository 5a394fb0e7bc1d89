//! What happens again and again, and is told once: when it begins, after a time without it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A spell is over when nothing has happened for so long.
const QUIET_PERIOD: Duration = Duration::from_secs(30);

/// Something that comes in spells.
#[derive(Debug, Default)]
pub(crate) struct Spell(Mutex<Option<Running>>);

#[derive(Debug)]
struct Running {
    last: Instant,
    count: u64,
}

impl Spell {
    /// Notes that it happens. Whether that begins a spell, and is to be told.
    pub(crate) fn note(&self) -> bool {
        self.note_at(Instant::now())
    }

    /// How often it happened in a spell that is over now; told once.
    pub(crate) fn ended(&self) -> Option<u64> {
        self.ended_at(Instant::now())
    }

    fn note_at(&self, now: Instant) -> bool {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = running.take_if(|running| running.is_over(now));
        let is_new = before.is_some() || running.is_none();
        let count = running.as_ref().map_or(0, |running| running.count) + 1;
        *running = Some(Running { last: now, count });
        is_new
    }

    fn ended_at(&self, now: Instant) -> Option<u64> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = running.take_if(|running| running.is_over(now))?;
        Some(over.count)
    }
}

impl Running {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= QUIET_PERIOD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spell_is_told_when_it_begins_and_when_it_has_been_over_for_a_while() {
        let (spell, start) = (Spell::default(), Instant::now());
        assert!(spell.note_at(start));
        for _ in 0..1000 {
            assert!(!spell.note_at(start + QUIET_PERIOD / 2));
        }
        assert_eq!(spell.ended_at(start + QUIET_PERIOD), None);
        assert_eq!(spell.ended_at(start + QUIET_PERIOD * 2), Some(1001));
        assert_eq!(spell.ended_at(start + QUIET_PERIOD * 2), None);
        assert!(spell.note_at(start + QUIET_PERIOD * 2));
        assert!(spell.note_at(start + QUIET_PERIOD * 3));
    }
}
