//! Deliveries that nobody was told of although the life of their messages had not ended: the message had been deleted,
//! purged or moved on before, or it is a second copy of one that was.
//!
//! They are right to drop: an id was given by this service, or is one that the pool's options vouch for, and the row of that
//! id says what became of it. But whoever looks for a message that never came has to be able to see them. So they are
//! counted, the first of a spell is logged by queue and id, and so is how many there were when the next spell begins.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use isimud_contract::{Delivery, QueueKey, Timestamp};

/// A spell is over when none has been dropped for so long.
const QUIET_PERIOD: Duration = Duration::from_secs(60);

/// Counts them.
#[derive(Debug, Default)]
pub(crate) struct Dropped {
    count: AtomicU64,
    spell: Mutex<Option<Spell>>,
}

#[derive(Debug)]
struct Spell {
    last: Instant,
    count: u64,
}

impl Dropped {
    /// Notes a delivery that was judged to be gone. One that has outlived its message is none of them.
    pub(crate) fn note(&self, queue: &QueueKey, delivery: &Delivery, now: Timestamp) {
        let Delivery {
            message, posted, ..
        } = delivery;
        if posted.after(message.remaining_ttl) <= now {
            return;
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let (id, transfers) = (message.id, message.transfers);
        tracing::debug!(%queue, %id, transfers, "a delivery is dropped: its message was deleted, or has moved on");
        let (is_first, over) = self.add(QUIET_PERIOD);
        if let Some(count) = over {
            tracing::info!(
                count,
                "so many deliveries were dropped, and then none for a while"
            );
        }
        if is_first {
            tracing::info!(%queue, %id, "deliveries are dropped: their messages were deleted before, or have moved on; this is the first");
        }
    }

    /// Adds one. Whether it is the first of a spell, and how many the spell before had, if that is over now.
    fn add(&self, calm: Duration) -> (bool, Option<u64>) {
        let mut spell = self.spell.lock().unwrap_or_else(PoisonError::into_inner);
        let over = spell.take_if(|spell| spell.last.elapsed() >= calm);
        let count = spell.as_ref().map_or(0, |spell| spell.count) + 1;
        let last = Instant::now();
        *spell = Some(Spell { last, count });
        (count == 1, over.map(|spell| spell.count))
    }

    /// How many there were since the store was opened.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spell_is_told_of_when_it_begins_and_when_the_next_one_does() {
        let dropped = Dropped::default();
        assert_eq!(dropped.add(QUIET_PERIOD), (true, None));
        assert_eq!(dropped.add(QUIET_PERIOD), (false, None));
        assert_eq!(dropped.add(Duration::ZERO), (true, Some(2)));
        assert_eq!(dropped.add(QUIET_PERIOD), (false, None));
    }
}
