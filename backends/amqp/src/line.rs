//! Callers who want messages of one queue at the same moment.
//!
//! Each `basic.get` is a round trip of its own inside RabbitMQ, on a quorum queue one through its log. Where several
//! callers want messages at once, and many are ready, a consumer is lent for the sum of what they want and its messages
//! are dealt out to them in the order in which they came. While one such draw is under way the next callers gather, so the
//! draws grow with the crowd and nobody waits for a crowd to come. A lone caller goes by himself, and so does everybody
//! while little is ready: a consumer that is lent for more than there is has to wait.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isimud_contract::Result;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::holder::Got;

/// So many callers that go by themselves are a crowd, in which the next one gathers.
const CROWD: usize = 2;

/// The least and the most messages of a draw.
const FEWEST: usize = 3;
const MOST: usize = 1000;

/// So many times what a draw is about must be ready.
const PLENTY: usize = 2;

/// For how long a count is believed. Others take messages too.
const BELIEVED: Duration = Duration::from_secs(1);

/// The callers of one queue.
#[derive(Debug, Default)]
pub(crate) struct Line {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// How many messages were ready, but for what was drawn since, and when that was counted.
    ready: usize,
    counted: Option<Instant>,
    /// Callers who have gone by themselves and are not back.
    alone: usize,
    waiting: VecDeque<Demand>,
    /// Whether somebody draws for those who wait.
    served: bool,
}

/// What a caller who waits wants.
#[derive(Debug)]
pub(crate) struct Demand {
    pub(crate) max: usize,
    pub(crate) hold: Duration,
    /// Dropped without an answer, it sends the caller to get the messages by himself.
    pub(crate) answer: oneshot::Sender<Result<Vec<Got>>>,
}

/// What a caller is to do.
#[derive(Debug)]
pub(crate) enum Turn<'a> {
    /// Go by himself, and keep this meanwhile.
    Alone(Alone<'a>),
    /// Wait for the answer.
    Wait(oneshot::Receiver<Result<Vec<Got>>>),
    /// The same, and have somebody serve the line.
    Begin(oneshot::Receiver<Result<Vec<Got>>>),
}

/// A caller who has gone by himself.
#[derive(Debug)]
pub(crate) struct Alone<'a>(&'a Line);

impl Alone<'_> {
    /// Comes back, and says how many messages are ready.
    pub(crate) fn counted(self, ready: usize) {
        let mut inner = self.0.inner();
        inner.ready = ready;
        inner.counted = Some(Instant::now());
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.inner().alone -= 1;
    }
}

/// Somebody who draws for those who wait. When he ends, however that is, they go by themselves.
#[derive(Debug)]
pub(crate) struct Serving(pub(crate) Arc<Line>);

impl Drop for Serving {
    fn drop(&mut self) {
        let mut inner = self.0.inner();
        inner.served = false;
        inner.waiting.clear();
    }
}

impl Line {
    /// Says what a caller is to do who wants up to `max` messages.
    pub(crate) fn join(&self, max: usize, hold: Duration) -> Turn<'_> {
        let mut inner = self.inner();
        if !(inner.served || inner.alone >= CROWD) || inner.plenty() < max.max(FEWEST) {
            return Turn::Alone(Self::alone(self, &mut inner));
        }
        let (answer, answered) = oneshot::channel();
        inner.waiting.push_back(Demand { max, hold, answer });
        if std::mem::replace(&mut inner.served, true) {
            Turn::Wait(answered)
        } else {
            Turn::Begin(answered)
        }
    }

    /// Sends a caller by himself.
    pub(crate) fn go(&self) -> Alone<'_> {
        Self::alone(self, &mut self.inner())
    }

    fn alone<'a>(line: &'a Self, inner: &mut Inner) -> Alone<'a> {
        inner.alone += 1;
        Alone(line)
    }

    /// Those for whom the next draw is to be made, in the order in which they came, and what they want in all. When that
    /// is too little they are sent by themselves, and nobody serves the line any more.
    pub(crate) fn next(&self) -> Option<(Vec<Demand>, usize)> {
        let mut inner = self.inner();
        inner.waiting.retain(|demand| !demand.answer.is_closed());
        let most = inner.plenty().min(MOST);
        let (mut batch, mut sum) = (Vec::new(), 0);
        while let Some(demand) = inner.waiting.pop_front_if(|it| sum + it.max <= most) {
            sum += demand.max;
            batch.push(demand);
        }
        if sum < FEWEST {
            // Those too who did not fit in: it takes but one of them to begin a draw again.
            inner.waiting.clear();
            inner.served = false;
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
    /// How many messages may be drawn at once.
    fn plenty(&self) -> usize {
        let fresh = self.counted.is_some_and(|at| at.elapsed() < BELIEVED);
        if fresh { self.ready / PLENTY } else { 0 }
    }
}
