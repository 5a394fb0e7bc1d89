//! How much room queues have below a bound, as far as this server knows without asking.
//!
//! What a ledger counted a moment ago, and what this server has let in since, is all that a queue can have unless other
//! servers post to it as well: deletions and expiries only make it less. So a post that fits below its bound by that
//! reckoning needs no question. The ledger is asked again when one does not fit, or when the count is older than a second.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use isimud_contract::QueueKey;

/// Queues whose count is remembered, at the most. Beyond it all are forgotten, and asked for again.
const CACHE_CAPACITY: usize = 100_000;

/// How old a count may be: other servers post, too.
const CACHE_TTL: Duration = Duration::from_secs(1);

/// What is known of each queue that has a bound.
#[derive(Debug, Default)]
pub(crate) struct Rooms(Mutex<HashMap<QueueKey, Room>>);

#[derive(Debug, Clone, Copy, Default)]
struct Room {
    /// What was counted, and when that was asked for.
    counted: Option<(u64, Instant)>,
    /// What the count may lack: what was on its way then, and what was let in since.
    since: u64,
    /// Let in, and on its way to the ledger.
    under_way: u64,
    /// All that was ever let in.
    all: u64,
}

impl Room {
    fn let_in(&mut self, count: u64, more: u64, most: u64) -> bool {
        let fits = count.saturating_add(self.since).saturating_add(more) <= most;
        if fits {
            self.since += more;
            self.under_way += more;
            self.all += more;
        }
        fits
    }
}

/// A count that is asked for.
pub(crate) struct Asked<'a> {
    rooms: &'a Rooms,
    queue: &'a QueueKey,
    at: Instant,
    /// What was on its way when it was asked for, and all that had been let in.
    before: Room,
}

/// Messages on their way to the ledger, until this is dropped.
pub(crate) struct UnderWay<'a> {
    rooms: &'a Rooms,
    queue: &'a QueueKey,
    count: u64,
}

impl Rooms {
    /// Lets so many messages in, if they are known to fit.
    pub(crate) fn let_in<'a>(
        &'a self,
        queue: &'a QueueKey,
        more: u64,
        most: u64,
    ) -> Option<UnderWay<'a>> {
        let fits = self.with(queue, |room| match room.counted {
            Some((counted, at)) if at.elapsed() < CACHE_TTL => room.let_in(counted, more, most),
            _ => false,
        });
        fits.then(|| self.under_way(queue, more))
    }

    /// Begins a count.
    pub(crate) fn ask<'a>(&'a self, queue: &'a QueueKey) -> Asked<'a> {
        Asked {
            rooms: self,
            queue,
            at: Instant::now(),
            before: self.with(queue, |room| *room),
        }
    }

    /// What adds nothing.
    pub(crate) fn nothing<'a>(&'a self, queue: &'a QueueKey) -> UnderWay<'a> {
        self.under_way(queue, 0)
    }

    fn under_way<'a>(&'a self, queue: &'a QueueKey, count: u64) -> UnderWay<'a> {
        UnderWay {
            rooms: self,
            queue,
            count,
        }
    }

    fn with<T>(&self, queue: &QueueKey, work: impl FnOnce(&mut Room) -> T) -> T {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if rooms.len() >= CACHE_CAPACITY && !rooms.contains_key(queue) {
            rooms.clear();
        }
        work(rooms.entry(queue.clone()).or_default())
    }
}

impl<'a> Asked<'a> {
    /// Takes over what was counted, and lets so many messages in if they fit.
    pub(crate) fn let_in(&self, count: u64, more: u64, most: u64) -> Option<UnderWay<'a>> {
        let fits = self.rooms.with(self.queue, |room| {
            room.counted = Some((count, self.at));
            room.since = self.before.under_way + room.all.saturating_sub(self.before.all);
            room.let_in(count, more, most)
        });
        fits.then(|| self.rooms.under_way(self.queue, more))
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let count = self.count;
        self.rooms.with(self.queue, |room| {
            room.under_way = room.under_way.saturating_sub(count);
        });
    }
}

#[cfg(test)]
mod tests {
    use isimud_contract::{ProjectId, QueueName};

    use super::*;

    fn queue() -> QueueKey {
        let project = ProjectId::parse("p").expect("a project");
        QueueKey::new(project, QueueName::parse("q").expect("a name"))
    }

    #[test]
    fn what_was_let_in_counts_until_the_ledger_is_asked_again() {
        let (rooms, queue) = (Rooms::default(), queue());
        assert!(rooms.let_in(&queue, 1, 10).is_none(), "nothing is known");
        assert!(rooms.ask(&queue).let_in(4, 2, 10).is_some());
        assert!(rooms.let_in(&queue, 4, 10).is_some());
        assert!(rooms.let_in(&queue, 1, 10).is_none());
        // Some have been deleted.
        assert!(rooms.ask(&queue).let_in(7, 1, 10).is_some());
        assert!(rooms.let_in(&queue, 2, 10).is_some());
        assert!(rooms.let_in(&queue, 1, 10).is_none());
    }

    #[test]
    fn what_a_count_may_have_missed_is_added_to_it() {
        let (rooms, queue) = (Rooms::default(), queue());
        let before = rooms.ask(&queue).let_in(0, 3, 10).expect("it fits");
        let asked = rooms.ask(&queue);
        drop(rooms.let_in(&queue, 4, 10).expect("it fits"));
        // The ledger has seen none of the seven yet, though four of them are there by now.
        assert!(asked.let_in(0, 4, 10).is_none());
        assert!(asked.let_in(0, 3, 10).is_some());
        drop(before);
    }

    #[test]
    fn queues_are_not_remembered_without_number() {
        let rooms = Rooms::default();
        for number in 0..=CACHE_CAPACITY {
            let name = QueueName::parse(&format!("q{number}")).expect("a name");
            let queue = QueueKey::new(ProjectId::parse("p").expect("a project"), name);
            rooms.ask(&queue).let_in(0, 1, 1).expect("it fits");
        }
        assert!(rooms.0.lock().expect("it is whole").len() <= CACHE_CAPACITY);
    }
}
