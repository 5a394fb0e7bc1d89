//! Callers who want messages of one queue at the same moment.
//!
//! Each `basic.get` is a round trip of its own inside RabbitMQ, on a quorum queue one through its log. Where several
//! callers want messages at once, and many are ready, a temporary consumer is started for the sum of what they want and
//! its messages are distributed to them in the order in which they came. While one such fetch is under way the next
//! callers gather, so the fetches grow with the number of callers and nobody waits for others to come. A lone caller
//! fetches directly, and so does everybody while little is ready: a temporary consumer for more than there is has to
//! wait.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isimud_contract::Result;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::holder::Got;

/// So many callers may fetch directly at a time; the next ones wait for the first of those to come back.
const MAX_DIRECT: usize = 4;

/// The least and the most messages of a shared fetch, and the most bytes: all of them have to come in the time of a
/// call.
const MIN_BATCH: usize = 3;
const MAX_BATCH: usize = 1000;
const MAX_BATCH_BYTES: usize = 16 * 1024 * 1024;

/// Whoever wants so many fetches directly. He would fill a shared fetch, and the others would wait for him.
const DIRECT_THRESHOLD: usize = 50;

/// What must be ready for a shared fetch: so many times what it is about, beyond what others may have taken meanwhile.
const HEADROOM_FACTOR: usize = 2;
const HEADROOM: usize = 50;

/// For how long a count is believed. Others take messages too.
const COUNT_TTL: Duration = Duration::from_secs(1);

/// The callers of one queue.
#[derive(Debug, Default)]
pub(crate) struct Coalescer {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// How many messages were ready, but for what was fetched since, and when that was counted.
    ready: usize,
    counted: Option<Instant>,
    /// The bytes of a message of late.
    bytes: usize,
    /// Callers that fetch directly and are not back.
    direct: usize,
    waiting: VecDeque<FetchRequest>,
    /// Whether a shared fetch runs for those who wait.
    served: bool,
}

/// What a caller who waits wants.
#[derive(Debug)]
pub(crate) struct FetchRequest {
    pub(crate) max: usize,
    pub(crate) visibility: Duration,
    /// Dropped without an answer, it has the caller fetch directly.
    pub(crate) answer: oneshot::Sender<Result<Vec<Got>>>,
}

/// What a caller is to do.
#[derive(Debug)]
pub(crate) enum Join<'a> {
    /// Fetch directly, and keep this meanwhile.
    Direct(Direct<'a>),
    /// Wait for the answer.
    Wait(oneshot::Receiver<Result<Vec<Got>>>),
}

/// A caller that fetches directly.
#[derive(Debug)]
pub(crate) struct Direct<'a>(&'a Coalescer);

impl Direct<'_> {
    /// Comes back, and says how many messages are ready and how large one was. True if those who wait are to be served now.
    pub(crate) fn counted(self, ready: usize, bytes: usize) -> bool {
        let mut inner = self.0.inner();
        (inner.ready, inner.bytes) = (ready, bytes);
        inner.counted = Some(Instant::now());
        let begin = !inner.served && !inner.waiting.is_empty();
        inner.served |= begin;
        begin
    }
}

impl Drop for Direct<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.inner();
        inner.direct -= 1;
        if inner.direct == 0 && !inner.served {
            // Nobody is left to begin.
            inner.waiting.clear();
        }
    }
}

/// Runs the shared fetch for queued callers. On drop, queued callers fall back to fetching individually.
#[derive(Debug)]
pub(crate) struct SharedFetch(pub(crate) Arc<Coalescer>);

impl Drop for SharedFetch {
    fn drop(&mut self) {
        let mut inner = self.0.inner();
        inner.served = false;
        inner.waiting.clear();
    }
}

impl Coalescer {
    /// Says what a caller is to do who wants up to `max` messages.
    pub(crate) fn join(&self, max: usize, visibility: Duration) -> Join<'_> {
        let mut inner = self.inner();
        let is_contended = inner.served || inner.direct >= MAX_DIRECT;
        if !is_contended || max >= DIRECT_THRESHOLD || inner.available() < max.max(MIN_BATCH) {
            return Join::Direct(Self::direct(self, &mut inner));
        }
        let (answer, answered) = oneshot::channel();
        inner.waiting.push_back(FetchRequest {
            max,
            visibility,
            answer,
        });
        Join::Wait(answered)
    }

    /// Has a caller fetch directly.
    pub(crate) fn go(&self) -> Direct<'_> {
        Self::direct(self, &mut self.inner())
    }

    fn direct<'a>(coalescer: &'a Self, inner: &mut Inner) -> Direct<'a> {
        inner.direct += 1;
        Direct(coalescer)
    }

    /// Those for whom the next shared fetch is to be made, in the order in which they came, and what they want in all.
    /// When that is too little, none is to be made.
    pub(crate) fn next(&self) -> Option<(Vec<FetchRequest>, usize)> {
        let mut inner = self.inner();
        inner.waiting.retain(|request| !request.answer.is_closed());
        let most = inner.available();
        let (mut batch, mut sum) = (Vec::new(), 0);
        while let Some(request) = inner.waiting.pop_front_if(|it| sum + it.max <= most) {
            sum += request.max;
            batch.push(request);
        }
        if sum < MIN_BATCH {
            return None;
        }
        inner.ready = inner.ready.saturating_sub(sum);
        Some((batch, sum))
    }

    /// Forgets what was counted.
    pub(crate) fn lost_count(&self) {
        self.inner().counted = None;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// How many messages may be fetched at once.
    fn available(&self) -> usize {
        if self.counted.is_none_or(|at| at.elapsed() >= COUNT_TTL) {
            return 0;
        }
        let available = self.ready.saturating_sub(HEADROOM) / HEADROOM_FACTOR;
        available
            .min(MAX_BATCH)
            .min(MAX_BATCH_BYTES / self.bytes.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// A coalescer, and as many direct callers as there may be.
    fn contended(coalescer: &Coalescer) -> Vec<Direct<'_>> {
        (0..MAX_DIRECT).map(|_| coalescer.go()).collect()
    }

    fn wait(coalescer: &Coalescer, max: usize) -> oneshot::Receiver<Result<Vec<Got>>> {
        match coalescer.join(max, MINUTE) {
            Join::Wait(answered) => answered,
            Join::Direct(_) => panic!("sent alone"),
        }
    }

    fn is_dismissed(answered: &mut oneshot::Receiver<Result<Vec<Got>>>) -> bool {
        matches!(
            answered.try_recv(),
            Err(oneshot::error::TryRecvError::Closed)
        )
    }

    #[test]
    fn few_callers_fetch_directly_and_so_do_all_while_little_is_ready() {
        let coalescer = Coalescer::default();
        assert!(!coalescer.go().counted(1000, 9));
        let mut direct = contended(&coalescer);
        assert!(!direct.pop().unwrap().counted(1000, 9));
        assert!(matches!(coalescer.join(1, MINUTE), Join::Direct(_)));
        direct.push(coalescer.go());
        assert!(matches!(
            coalescer.join(DIRECT_THRESHOLD, MINUTE),
            Join::Direct(_)
        ));
        drop(wait(&coalescer, DIRECT_THRESHOLD - 1));
        // More than half of what is ready beyond the first fifty.
        assert!(coalescer.go().counted(HEADROOM + 19, 9));
        assert!(matches!(coalescer.join(10, MINUTE), Join::Direct(_)));
        drop(wait(&coalescer, 9));
        // More than sixteen megabytes.
        assert!(!coalescer.go().counted(1000, MAX_BATCH_BYTES / 8));
        assert!(matches!(coalescer.join(9, MINUTE), Join::Direct(_)));
        drop(wait(&coalescer, 8));
    }

    #[test]
    fn the_first_caller_that_returns_starts_the_shared_fetch() {
        let coalescer = Arc::new(Coalescer::default());
        assert!(!coalescer.go().counted(1000, 9));
        let mut direct = contended(&coalescer);
        let (mut first, gone) = (wait(&coalescer, 2), wait(&coalescer, 9));
        let mut second = wait(&coalescer, 1);
        drop(gone);
        assert!(direct.pop().unwrap().counted(1000, 9));
        assert!(!direct.pop().unwrap().counted(1000, 9), "somebody serves");
        let shared = SharedFetch(Arc::clone(&coalescer));
        let (batch, sum) = coalescer.next().unwrap();
        let wanted: Vec<usize> = batch.iter().map(|request| request.max).collect();
        assert_eq!((wanted, sum), (vec![2, 1], 3));
        // Who comes now waits for the next shared fetch, which would be too small.
        let mut third = wait(&coalescer, 1);
        assert!(coalescer.next().is_none());
        drop(shared);
        assert!(is_dismissed(&mut third));
        assert!(!is_dismissed(&mut first) && !is_dismissed(&mut second));
    }

    #[test]
    fn queued_callers_are_dismissed_when_direct_callers_never_return() {
        let coalescer = Coalescer::default();
        assert!(!coalescer.go().counted(1000, 9));
        let direct = contended(&coalescer);
        let mut waiting = wait(&coalescer, 1);
        drop(direct);
        assert!(is_dismissed(&mut waiting));
    }

    #[test]
    fn messages_of_a_shared_fetch_are_ready_no_more() {
        let coalescer = Coalescer::default();
        assert!(!coalescer.go().counted(HEADROOM + 20, 9));
        let mut direct = contended(&coalescer);
        let _waiting = [wait(&coalescer, 6), wait(&coalescer, 6)];
        assert!(direct.pop().unwrap().counted(HEADROOM + 20, 9));
        // The second would be more than half of the twenty.
        assert_eq!(coalescer.next().map(|(_, sum)| sum), Some(6));
        assert_eq!(coalescer.next().map(|(_, sum)| sum), Some(6));
        coalescer.lost_count();
        assert!(matches!(coalescer.join(1, MINUTE), Join::Direct(_)));
    }
}
