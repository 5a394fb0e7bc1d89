//! What this server holds, and until when.
//!
//! RabbitMQ holds a delivery for as long as its channel is open, or until its own time-out closes the channel and gives
//! everything on it back. So the end of a hold is ours: each delivery has a moment at which it is given back, the end of
//! its lease or, before RabbitMQ's patience is over, the end of `hold_cap`. A lease that is longer goes on in the ledger,
//! and whoever receives the message next is told so there.

use std::collections::{BTreeSet, HashMap};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isimud_contract::{Clock, Timestamp};
use lapin::types::ShortString;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use crate::channel::HoldingChannel;
use crate::publisher::{Outgoing, Target};

/// Names a delivery in this life of this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tag {
    /// The number of the channel, never given twice.
    pub(crate) channel: u64,
    pub(crate) delivery: u64,
}

/// A delivery that is held.
#[derive(Debug)]
pub(crate) struct Holding {
    pub(crate) channel: Arc<HoldingChannel>,
    /// The RabbitMQ queue that delivered it.
    pub(crate) queue: ShortString,
    /// The id of the message, where it has one that can be compared.
    pub(crate) id: Option<Uuid>,
    /// What is published when it is given back, in the place of giving it back.
    pub(crate) instead: Option<Box<(Target, Outgoing)>>,
    /// When its lease ends.
    pub(crate) wanted: Instant,
    /// When it is given back at the latest.
    pub(crate) cap: Instant,
}

impl Holding {
    fn due(&self) -> Instant {
        self.wanted.min(self.cap)
    }
}

/// Everything that is held.
#[derive(Debug)]
pub(crate) struct Held {
    inner: Mutex<Inner>,
    /// Told when something ends earlier than all before.
    pub(crate) sooner: Notify,
    /// Told when what had ended is back in its queues.
    back: Notify,
    /// What the time of holds goes by, and what it was at the beginning; the machine's time if nothing.
    clock: Option<(Arc<dyn Clock>, Timestamp)>,
    opened: Instant,
}

#[derive(Debug, Default)]
struct Inner {
    all: HashMap<Tag, Holding>,
    ends: BTreeSet<(Instant, Tag)>,
    /// Queues to which something that has ended is on its way back, and the numbers of those who are giving it back.
    returning: HashMap<ShortString, BTreeSet<u64>>,
    /// The number of the next.
    next: u64,
}

/// Deliveries of a queue that have ended, and are to be given back.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) taken: Vec<(Tag, Holding)>,
    /// To be dropped when they are back.
    pub(crate) returning: Returning,
}

/// What has ended, on its way back. Whoever is about to receive from its queue waits until this is dropped.
#[derive(Debug)]
pub(crate) struct Returning {
    held: Arc<Held>,
    number: u64,
    queue: ShortString,
}

impl Drop for Returning {
    fn drop(&mut self) {
        let mut inner = self.held.inner();
        if let Some(numbers) = inner.returning.get_mut(&self.queue) {
            numbers.remove(&self.number);
            if numbers.is_empty() {
                inner.returning.remove(&self.queue);
            }
        }
        drop(inner);
        self.held.back.notify_waiters();
    }
}

impl Held {
    pub(crate) fn new(clock: Option<Arc<dyn Clock>>) -> Self {
        Self {
            inner: Mutex::default(),
            sooner: Notify::new(),
            back: Notify::new(),
            clock: clock.map(|clock| {
                let now = clock.now();
                (clock, now)
            }),
            opened: Instant::now(),
        }
    }

    /// The time of holds.
    pub(crate) fn now(&self) -> Instant {
        match &self.clock {
            None => Instant::now(),
            Some((clock, first)) => {
                let millis = u64::try_from(clock.now().0 - first.0).unwrap_or(0);
                self.opened + Duration::from_millis(millis)
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.inner().all.len()
    }

    /// How many deliveries of some queues are held.
    pub(crate) fn count(&self, queues: &[&ShortString]) -> u64 {
        let inner = self.inner();
        let of_them = |it: &&Holding| queues.contains(&&it.queue);
        inner.all.values().filter(of_them).count() as u64
    }

    pub(crate) fn insert(&self, tag: Tag, holding: Holding) {
        let due = holding.due();
        let mut inner = self.inner();
        let first = inner.ends.first().map(|(end, _)| *end);
        inner.ends.insert((due, tag));
        inner.all.insert(tag, holding);
        drop(inner);
        if first.is_none_or(|first| due < first) {
            self.sooner.notify_one();
        }
    }

    /// Has deliveries held until a moment, or as long before it as they can be.
    pub(crate) fn extend(&self, tags: &[Tag], until: Instant) {
        let mut inner = self.inner();
        let Inner { all, ends, .. } = &mut *inner;
        let first = ends.first().map(|(end, _)| *end);
        for tag in tags {
            if let Some(holding) = all.get_mut(tag) {
                ends.remove(&(holding.due(), *tag));
                holding.wanted = until;
                ends.insert((holding.due(), *tag));
            }
        }
        let now_first = ends.first().map(|(end, _)| *end);
        drop(inner);
        if now_first < first {
            self.sooner.notify_one();
        }
    }

    /// Keeps what is to be published when a delivery is given back.
    pub(crate) fn instead(&self, tag: Tag, target: Target, outgoing: Outgoing) {
        if let Some(holding) = self.inner().all.get_mut(&tag) {
            holding.instead = Some(Box::new((target, outgoing)));
        }
    }

    /// Takes deliveries out, those that are held; whoever takes one settles it.
    pub(crate) fn take(&self, tags: &[Tag]) -> Vec<(Tag, Holding)> {
        let mut inner = self.inner();
        let taken = tags.iter().filter_map(|tag| inner.remove(*tag));
        taken.collect()
    }

    /// Takes what has ended, by its queues, and says when the next will. Whoever takes it gives it back.
    pub(crate) fn take_ended(self: &Arc<Self>) -> (Vec<Ended>, Option<Instant>) {
        let now = self.now();
        let mut inner = self.inner();
        let (mut queues, mut next) = (HashMap::<_, Vec<_>>::new(), None);
        while let Some((end, tag)) = inner.ends.first().copied() {
            if end > now {
                next = Some(end);
                break;
            }
            if let Some((tag, holding)) = inner.remove(tag) {
                let queue = holding.queue.clone();
                queues.entry(queue).or_default().push((tag, holding));
            }
        }
        let ended = queues.into_iter().map(|(queue, taken)| Ended {
            taken,
            returning: self.returning(&mut inner, queue),
        });
        (ended.collect(), next)
    }

    /// Notes that something is on its way back to a queue.
    fn returning(self: &Arc<Self>, inner: &mut Inner, queue: ShortString) -> Returning {
        let number = inner.next;
        inner.next += 1;
        let numbers = inner.returning.entry(queue.clone()).or_default();
        numbers.insert(number);
        Returning {
            held: Arc::clone(self),
            number,
            queue,
        }
    }

    /// Waits until what has ended by now is back in a queue: somebody else may be giving it back. What ends later is not
    /// waited for.
    pub(crate) async fn is_back(&self, queue: &ShortString) {
        let now = self.inner().next;
        loop {
            let mut told = pin!(self.back.notified());
            told.as_mut().enable();
            let first = self
                .inner()
                .returning
                .get(queue)
                .and_then(BTreeSet::first)
                .copied();
            if first.is_none_or(|first| first >= now) {
                return;
            }
            told.await;
        }
    }

    /// Takes all of a queue.
    pub(crate) fn take_queue(&self, queue: &ShortString) -> Vec<(Tag, Holding)> {
        self.take_where(|_, holding| holding.queue == *queue)
    }

    /// Takes all of a channel: once it is closed they are the broker's again.
    pub(crate) fn take_channel(&self, channel: u64) -> Vec<(Tag, Holding)> {
        self.take_where(|tag, _| tag.channel == channel)
    }

    pub(crate) fn take_all(&self) -> Vec<(Tag, Holding)> {
        self.take_where(|_, _| true)
    }

    fn take_where(&self, fits: impl Fn(&Tag, &Holding) -> bool) -> Vec<(Tag, Holding)> {
        let mut inner = self.inner();
        let tags = inner.all.iter().filter(|(tag, it)| fits(tag, it));
        let tags: Vec<Tag> = tags.map(|(tag, _)| *tag).collect();
        tags.into_iter()
            .filter_map(|tag| inner.remove(tag))
            .collect()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn remove(&mut self, tag: Tag) -> Option<(Tag, Holding)> {
        let holding = self.all.remove(&tag)?;
        self.ends.remove(&(holding.due(), tag));
        Some((tag, holding))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// Something of this queue has ended.
    fn ended(held: &Arc<Held>, queue: &str) -> Returning {
        held.returning(&mut held.inner(), queue.into())
    }

    #[test]
    fn what_is_on_its_way_back_is_waited_for_and_not_what_ends_later() {
        let held = Arc::new(Held::new(None));
        let (q, other) = (ShortString::from("q"), ShortString::from("other"));
        let [first, second] = [ended(&held, "q"), ended(&held, "q")];
        let mut waiting = Box::pin(held.is_back(&q));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(held.is_back(&other).now_or_never().is_some());
        let later = ended(&held, "q");
        drop(first);
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(second);
        assert!(waiting.as_mut().now_or_never().is_some());
        assert!(held.is_back(&q).now_or_never().is_none());
        drop(later);
        assert!(held.inner().returning.is_empty());
    }
}
