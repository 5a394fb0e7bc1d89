//! Concurrent calls that share requests.
//!
//! SQS takes up to ten entries a request, and is paid by the request. What callers hand in stands in one line for each
//! queue and kind; a bounded number of *lanes* takes from its head, as many as fit into a request. So while all lanes
//! are busy the line grows, and the next request is the fuller for it. With a linger a lane waits that long for more
//! before it sends what does not fill a request.
//!
//! Lanes are tasks of their own: what a caller handed in is sent, though the caller may have gone away meanwhile.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use isimud_contract::Result;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::error::{strange, too_late};

/// Entries of one request, at the most (Amazon SQS Developer Guide, "Batch actions").
pub(crate) const FULL: usize = 10;

/// Makes requests of entries.
#[async_trait]
pub(crate) trait Carrier: Debug + Send + Sync + 'static {
    /// One entry.
    type Item: Send + 'static;

    /// What an entry counts against the size of a request.
    fn weight(&self, item: &Self::Item) -> usize;

    /// Makes one request, and tells what became of each entry, in their order. What is not done by `until` is given up.
    async fn carry(&self, items: Vec<Self::Item>, until: Instant) -> Vec<Result<()>>;
}

/// How requests are shared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// Requests at once.
    pub(crate) lanes: usize,
    /// How long an entry waits for others.
    pub(crate) linger: Duration,
    /// How long an entry may stand in line, and a request may take.
    pub(crate) patience: Duration,
    /// What a request may weigh.
    pub(crate) capacity: usize,
}

/// One line of entries.
#[derive(Debug)]
pub(crate) struct Batches<C: Carrier>(Arc<Shared<C>>);

struct Shared<C: Carrier> {
    carrier: C,
    terms: Terms,
    line: Mutex<Line<C::Item>>,
    more: Notify,
}

struct Line<T> {
    waiting: VecDeque<Waiting<T>>,
    /// Lanes that there are.
    lanes: usize,
    /// Lanes among them that wait for more entries.
    idle: usize,
}

struct Waiting<T> {
    item: T,
    since: Instant,
    told: oneshot::Sender<Result<()>>,
}

/// What a lane does next.
enum Next<T> {
    Carry(Vec<Waiting<T>>),
    Wait(Instant),
    End,
}

impl<C: Carrier> Debug for Shared<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("carrier", &self.carrier)
            .field("terms", &self.terms)
            .finish_non_exhaustive()
    }
}

impl<C: Carrier> Batches<C> {
    pub(crate) fn new(carrier: C, terms: Terms) -> Self {
        Self(Arc::new(Shared {
            carrier,
            terms,
            line: Mutex::new(Line {
                waiting: VecDeque::new(),
                lanes: 0,
                idle: 0,
            }),
            more: Notify::new(),
        }))
    }

    /// Hands entries in, in order, and returns the first error among what became of them. After an error, what has not
    /// been handed in is left out.
    pub(crate) async fn put(&self, items: impl IntoIterator<Item = C::Item>) -> Result<()> {
        let mut items = items.into_iter().fuse();
        loop {
            // So many at a time that every lane has a request: more would only stand in line, and time out there.
            let some: Vec<_> = items.by_ref().take(self.0.terms.lanes * FULL).collect();
            if some.is_empty() {
                return Ok(());
            }
            let mut outcome = Ok(());
            for told in self.hand_in(some) {
                let told = told.await.unwrap_or_else(|_| Err(too_late()));
                outcome = outcome.and(told);
            }
            outcome?;
        }
    }

    fn hand_in(&self, items: Vec<C::Item>) -> Vec<oneshot::Receiver<Result<()>>> {
        let since = Instant::now();
        let mut line = self.0.line();
        let receivers = items
            .into_iter()
            .map(|item| {
                let (told, receiver) = oneshot::channel();
                line.waiting.push_back(Waiting { item, since, told });
                receiver
            })
            .collect();
        let wanted = line.waiting.len().div_ceil(FULL);
        for _ in 0..line.idle.min(wanted) {
            self.0.more.notify_one();
        }
        let further = wanted.saturating_sub(line.idle);
        for _ in 0..further.min(self.0.terms.lanes - line.lanes) {
            line.lanes += 1;
            tokio::spawn(lane(Arc::clone(&self.0)));
        }
        receivers
    }
}

async fn lane<C: Carrier>(shared: Arc<Shared<C>>) {
    loop {
        match shared.next() {
            Next::End => return,
            Next::Wait(until) => {
                drop(tokio::time::timeout_at(until, shared.more.notified()).await);
                shared.line().idle -= 1;
            }
            Next::Carry(batch) => shared.carry(batch).await,
        }
    }
}

impl<C: Carrier> Shared<C> {
    fn line(&self) -> MutexGuard<'_, Line<C::Item>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Next<C::Item> {
        let mut line = self.line();
        let now = Instant::now();
        while let Some(late) = line.waiting.front()
            && now - late.since > self.terms.patience + self.terms.linger
        {
            let late = line.waiting.pop_front();
            if let Some(late) = late {
                // Whoever handed it in may be gone.
                drop(late.told.send(Err(too_late())));
            }
        }
        let Some(first) = line.waiting.front() else {
            line.lanes -= 1;
            return Next::End;
        };
        let (ripe, (count, full)) = (first.since + self.terms.linger, self.fit(&line.waiting));
        if full || ripe <= now {
            return Next::Carry(line.waiting.drain(..count).collect());
        }
        line.idle += 1;
        Next::Wait(ripe)
    }

    /// How many entries from the head go into one request, and whether no further one can.
    fn fit(&self, waiting: &VecDeque<Waiting<C::Item>>) -> (usize, bool) {
        let mut weight = 0;
        for (count, waiting) in waiting.iter().take(FULL).enumerate() {
            weight += self.carrier.weight(&waiting.item);
            if weight > self.terms.capacity && count > 0 {
                return (count, true);
            }
        }
        (waiting.len().min(FULL), waiting.len() >= FULL)
    }

    async fn carry(&self, batch: Vec<Waiting<C::Item>>) {
        let until = Instant::now() + self.terms.patience;
        let (items, tellers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|w| (w.item, w.told)).unzip();
        let mut outcomes = self.carrier.carry(items, until).await.into_iter();
        for teller in tellers {
            let outcome = outcomes
                .next()
                .unwrap_or_else(|| Err(strange("an entry's outcome")));
            // Whoever handed it in may be gone.
            drop(teller.send(outcome));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts requests; each takes a millisecond.
    #[derive(Debug, Default, Clone)]
    struct Counter(Arc<Mutex<Vec<Vec<usize>>>>);

    #[async_trait]
    impl Carrier for Counter {
        type Item = usize;

        fn weight(&self, item: &usize) -> usize {
            *item
        }

        async fn carry(&self, items: Vec<usize>, _: Instant) -> Vec<Result<()>> {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let outcomes = items.iter().map(|_| Ok(())).collect();
            self.0.lock().unwrap().push(items);
            outcomes
        }
    }

    impl Counter {
        fn batches(&self, lanes: usize, linger: u64) -> Batches<Self> {
            let terms = Terms {
                lanes,
                linger: Duration::from_millis(linger),
                patience: Duration::from_secs(1),
                capacity: 100,
            };
            Batches::new(self.clone(), terms)
        }

        fn requests(&self) -> Vec<Vec<usize>> {
            self.0.lock().unwrap().clone()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_filled_by_count_and_by_weight() {
        let counter = Counter::default();
        counter.batches(1, 0).put(vec![1; 25]).await.unwrap();
        assert_eq!(counter.requests(), [vec![1; 10], vec![1; 10], vec![1; 5]]);
        let counter = Counter::default();
        let items = [60, 40, 1, 99, 100, 30, 30, 41];
        counter.batches(1, 0).put(items).await.unwrap();
        let filled = [vec![60, 40], vec![1, 99], vec![100], vec![30, 30], vec![41]];
        assert_eq!(counter.requests(), filled);
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_while_all_lanes_are_busy_shares_the_next_request() {
        let counter = Counter::default();
        let batches = counter.batches(2, 0);
        let posts = (0..22).map(|_| batches.put([1]));
        for outcome in futures_util::future::join_all(posts).await {
            outcome.unwrap();
        }
        let sizes: Vec<usize> = counter.requests().iter().map(Vec::len).collect();
        assert!(sizes.len() <= 4, "{sizes:?}");
        assert_eq!(sizes.iter().sum::<usize>(), 22);
    }

    #[tokio::test(start_paused = true)]
    async fn a_linger_waits_for_others_and_not_for_longer() {
        let counter = Counter::default();
        let batches = counter.batches(8, 20);
        let begun = Instant::now();
        let late = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            batches.put([2]).await
        };
        let (early, late) = tokio::join!(batches.put([1]), late);
        early.unwrap();
        late.unwrap();
        assert_eq!(counter.requests(), [vec![1, 2]]);
        assert_eq!(begun.elapsed().as_millis(), 21);
        batches.put(vec![3; 10]).await.unwrap();
        assert_eq!(begun.elapsed().as_millis(), 22);
    }

    /// Never comes back.
    #[derive(Debug)]
    struct Stuck;

    #[async_trait]
    impl Carrier for Stuck {
        type Item = ();

        fn weight(&self, (): &()) -> usize {
            1
        }

        async fn carry(&self, items: Vec<()>, until: Instant) -> Vec<Result<()>> {
            tokio::time::sleep_until(until).await;
            items.iter().map(|()| Err(too_late())).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_stands_in_line_for_ever() {
        let terms = Terms {
            lanes: 1,
            linger: Duration::ZERO,
            patience: Duration::from_secs(1),
            capacity: 100,
        };
        let batches = Batches::new(Stuck, terms);
        let begun = Instant::now();
        let posts = (0..100).map(|_| batches.put([()]));
        for outcome in futures_util::future::join_all(posts).await {
            outcome.unwrap_err();
        }
        assert!(
            begun.elapsed() <= Duration::from_secs(3),
            "{:?}",
            begun.elapsed()
        );
    }
}
