//! Concurrent calls that share requests.
//!
//! SQS takes up to ten entries a request, and is paid by the request. What callers hand in stands in one buffer for
//! each queue and kind; a bounded number of *request tasks* takes from its head, as many as fit into a request. So
//! while all request tasks are busy the buffer grows, and the next request is the fuller for it. With a linger a
//! request task waits that long for more before it sends what does not fill a request.
//!
//! Request tasks are tasks of their own: what a caller handed in is sent, though the caller may have gone away
//! meanwhile.

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
pub(crate) const MAX_ENTRIES: usize = 10;

/// Makes requests of entries.
#[async_trait]
pub(crate) trait BatchSender: Debug + Send + Sync + 'static {
    /// One entry.
    type Item: Send + 'static;

    /// What an entry counts against the size of a request.
    fn weight(&self, item: &Self::Item) -> usize;

    /// Makes one request, and tells what became of each entry, in their order. What is not done by `until` is given up.
    async fn send_batch(&self, items: Vec<Self::Item>, until: Instant) -> Vec<Result<()>>;
}

/// How requests are shared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchConfig {
    /// Requests at once.
    pub(crate) requests: usize,
    /// How long an entry waits for others.
    pub(crate) linger: Duration,
    /// How long an entry may wait, and a request may take.
    pub(crate) timeout: Duration,
    /// What a request may weigh.
    pub(crate) capacity: usize,
}

/// One buffer of entries.
#[derive(Debug)]
pub(crate) struct Batches<C: BatchSender>(Arc<Shared<C>>);

struct Shared<C: BatchSender> {
    sender: C,
    batch_config: BatchConfig,
    buffer: Mutex<Buffer<C::Item>>,
    more: Notify,
}

struct Buffer<T> {
    waiting: VecDeque<Waiting<T>>,
    /// Request tasks that there are.
    requests: usize,
    /// Request tasks among them that wait for more entries.
    idle: usize,
}

struct Waiting<T> {
    item: T,
    since: Instant,
    told: oneshot::Sender<Result<()>>,
}

/// What a request task does next.
enum Next<T> {
    Carry(Vec<Waiting<T>>),
    Wait(Instant),
    End,
}

impl<C: BatchSender> Debug for Shared<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("sender", &self.sender)
            .field("batch_config", &self.batch_config)
            .finish_non_exhaustive()
    }
}

impl<C: BatchSender> Batches<C> {
    pub(crate) fn new(sender: C, batch_config: BatchConfig) -> Self {
        Self(Arc::new(Shared {
            sender,
            batch_config,
            buffer: Mutex::new(Buffer {
                waiting: VecDeque::new(),
                requests: 0,
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
            // So many at a time that every task has a request: more would only wait, and time out there.
            let some: Vec<_> = items
                .by_ref()
                .take(self.0.batch_config.requests * MAX_ENTRIES)
                .collect();
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
        let mut buffer = self.0.buffer();
        let receivers = items
            .into_iter()
            .map(|item| {
                let (told, receiver) = oneshot::channel();
                buffer.waiting.push_back(Waiting { item, since, told });
                receiver
            })
            .collect();
        let wanted = buffer.waiting.len().div_ceil(MAX_ENTRIES);
        for _ in 0..buffer.idle.min(wanted) {
            self.0.more.notify_one();
        }
        let further = wanted.saturating_sub(buffer.idle);
        for _ in 0..further.min(self.0.batch_config.requests - buffer.requests) {
            buffer.requests += 1;
            tokio::spawn(send_loop(Arc::clone(&self.0)));
        }
        receivers
    }
}

async fn send_loop<C: BatchSender>(shared: Arc<Shared<C>>) {
    loop {
        match shared.next() {
            Next::End => return,
            Next::Wait(until) => {
                drop(tokio::time::timeout_at(until, shared.more.notified()).await);
                shared.buffer().idle -= 1;
            }
            Next::Carry(batch) => shared.send_batch(batch).await,
        }
    }
}

impl<C: BatchSender> Shared<C> {
    fn buffer(&self) -> MutexGuard<'_, Buffer<C::Item>> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Next<C::Item> {
        let mut buffer = self.buffer();
        let now = Instant::now();
        while let Some(late) = buffer.waiting.front()
            && now - late.since > self.batch_config.timeout + self.batch_config.linger
        {
            let late = buffer.waiting.pop_front();
            if let Some(late) = late {
                // Whoever handed it in may be gone.
                drop(late.told.send(Err(too_late())));
            }
        }
        let Some(first) = buffer.waiting.front() else {
            buffer.requests -= 1;
            return Next::End;
        };
        let (ripe, (count, full)) = (
            first.since + self.batch_config.linger,
            self.fit(&buffer.waiting),
        );
        if full || ripe <= now {
            return Next::Carry(buffer.waiting.drain(..count).collect());
        }
        buffer.idle += 1;
        Next::Wait(ripe)
    }

    /// How many entries from the head go into one request, and whether no further one can.
    fn fit(&self, waiting: &VecDeque<Waiting<C::Item>>) -> (usize, bool) {
        let mut weight = 0;
        for (count, waiting) in waiting.iter().take(MAX_ENTRIES).enumerate() {
            weight += self.sender.weight(&waiting.item);
            if weight > self.batch_config.capacity && count > 0 {
                return (count, true);
            }
        }
        (waiting.len().min(MAX_ENTRIES), waiting.len() >= MAX_ENTRIES)
    }

    async fn send_batch(&self, batch: Vec<Waiting<C::Item>>) {
        let until = Instant::now() + self.batch_config.timeout;
        let (items, tellers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|w| (w.item, w.told)).unzip();
        let mut outcomes = self.sender.send_batch(items, until).await.into_iter();
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
    impl BatchSender for Counter {
        type Item = usize;

        fn weight(&self, item: &usize) -> usize {
            *item
        }

        async fn send_batch(&self, items: Vec<usize>, _: Instant) -> Vec<Result<()>> {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let outcomes = items.iter().map(|_| Ok(())).collect();
            self.0.lock().unwrap().push(items);
            outcomes
        }
    }

    impl Counter {
        fn batches(&self, requests: usize, linger: u64) -> Batches<Self> {
            let batch_config = BatchConfig {
                requests,
                linger: Duration::from_millis(linger),
                timeout: Duration::from_secs(1),
                capacity: 100,
            };
            Batches::new(self.clone(), batch_config)
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
    async fn an_entry_that_comes_while_all_requests_are_busy_shares_the_next_one() {
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
    impl BatchSender for Stuck {
        type Item = ();

        fn weight(&self, (): &()) -> usize {
            1
        }

        async fn send_batch(&self, items: Vec<()>, until: Instant) -> Vec<Result<()>> {
            tokio::time::sleep_until(until).await;
            items.iter().map(|()| Err(too_late())).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_that_waits_too_long_is_given_up() {
        let batch_config = BatchConfig {
            requests: 1,
            linger: Duration::ZERO,
            timeout: Duration::from_secs(1),
            capacity: 100,
        };
        let batches = Batches::new(Stuck, batch_config);
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
