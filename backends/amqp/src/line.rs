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

/// So many callers may be on their way by themselves; the next ones wait for the first of those to come back.
const CROWD: usize = 4;

/// The least and the most messages of a draw, and the most bytes: all of them have to come in the time of a call.
const FEWEST: usize = 3;
const MOST: usize = 1000;
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// Whoever wants so many goes by himself. He would fill a draw, and the others would wait for him.
const MANY: usize = 50;

/// What must be ready for a draw: so many times what it is about, beyond what others may have taken meanwhile.
const PLENTY: usize = 2;
const MEANWHILE: usize = 50;

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
    /// The bytes of a message of late.
    bytes: usize,
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
}

/// A caller who has gone by himself.
#[derive(Debug)]
pub(crate) struct Alone<'a>(&'a Line);

impl Alone<'_> {
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

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.inner();
        inner.alone -= 1;
        if inner.alone == 0 && !inner.served {
            // Nobody is left to begin.
            inner.waiting.clear();
        }
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
        let crowd = inner.served || inner.alone >= CROWD;
        if !crowd || max >= MANY || inner.plenty() < max.max(FEWEST) {
            return Turn::Alone(Self::alone(self, &mut inner));
        }
        let (answer, answered) = oneshot::channel();
        inner.waiting.push_back(Demand { max, hold, answer });
        Turn::Wait(answered)
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
    /// is too little, none is to be made.
    pub(crate) fn next(&self) -> Option<(Vec<Demand>, usize)> {
        let mut inner = self.inner();
        inner.waiting.retain(|demand| !demand.answer.is_closed());
        let most = inner.plenty();
        let (mut batch, mut sum) = (Vec::new(), 0);
        while let Some(demand) = inner.waiting.pop_front_if(|it| sum + it.max <= most) {
            sum += demand.max;
            batch.push(demand);
        }
        if sum < FEWEST {
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
        if self.counted.is_none_or(|at| at.elapsed() >= BELIEVED) {
            return 0;
        }
        let plenty = self.ready.saturating_sub(MEANWHILE) / PLENTY;
        plenty.min(MOST).min(MOST_BYTES / self.bytes.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// A line, and as many as make a crowd on their way.
    fn crowded(line: &Line) -> Vec<Alone<'_>> {
        (0..CROWD).map(|_| line.go()).collect()
    }

    fn wait(line: &Line, max: usize) -> oneshot::Receiver<Result<Vec<Got>>> {
        match line.join(max, MINUTE) {
            Turn::Wait(answered) => answered,
            Turn::Alone(_) => panic!("sent alone"),
        }
    }

    fn is_dismissed(answered: &mut oneshot::Receiver<Result<Vec<Got>>>) -> bool {
        matches!(
            answered.try_recv(),
            Err(oneshot::error::TryRecvError::Closed)
        )
    }

    #[test]
    fn few_callers_go_by_themselves_and_so_do_all_while_little_is_ready() {
        let line = Line::default();
        assert!(!line.go().counted(1000, 9));
        let mut alone = crowded(&line);
        assert!(!alone.pop().unwrap().counted(1000, 9));
        assert!(matches!(line.join(1, MINUTE), Turn::Alone(_)));
        alone.push(line.go());
        assert!(matches!(line.join(MANY, MINUTE), Turn::Alone(_)));
        drop(wait(&line, MANY - 1));
        // More than half of what is ready beyond the first fifty.
        assert!(line.go().counted(MEANWHILE + 19, 9));
        assert!(matches!(line.join(10, MINUTE), Turn::Alone(_)));
        drop(wait(&line, 9));
        // More than sixteen megabytes.
        assert!(!line.go().counted(1000, MOST_BYTES / 8));
        assert!(matches!(line.join(9, MINUTE), Turn::Alone(_)));
        drop(wait(&line, 8));
    }

    #[test]
    fn the_first_who_comes_back_has_those_served_who_wait() {
        let line = Arc::new(Line::default());
        assert!(!line.go().counted(1000, 9));
        let mut alone = crowded(&line);
        let (mut first, gone) = (wait(&line, 2), wait(&line, 9));
        let mut second = wait(&line, 1);
        drop(gone);
        assert!(alone.pop().unwrap().counted(1000, 9));
        assert!(!alone.pop().unwrap().counted(1000, 9), "somebody serves");
        let serving = Serving(Arc::clone(&line));
        let (batch, sum) = line.next().unwrap();
        let wanted: Vec<usize> = batch.iter().map(|demand| demand.max).collect();
        assert_eq!((wanted, sum), (vec![2, 1], 3));
        // Who comes now waits for the next draw, which would be too small.
        let mut third = wait(&line, 1);
        assert!(line.next().is_none());
        drop(serving);
        assert!(is_dismissed(&mut third));
        assert!(!is_dismissed(&mut first) && !is_dismissed(&mut second));
    }

    #[test]
    fn nobody_waits_for_those_who_never_come_back() {
        let line = Line::default();
        assert!(!line.go().counted(1000, 9));
        let alone = crowded(&line);
        let mut waiting = wait(&line, 1);
        drop(alone);
        assert!(is_dismissed(&mut waiting));
    }

    #[test]
    fn what_is_drawn_is_ready_no_more() {
        let line = Line::default();
        assert!(!line.go().counted(MEANWHILE + 20, 9));
        let mut alone = crowded(&line);
        let _waiting = [wait(&line, 6), wait(&line, 6)];
        assert!(alone.pop().unwrap().counted(MEANWHILE + 20, 9));
        // The second would be more than half of the twenty.
        assert_eq!(line.next().map(|(_, sum)| sum), Some(6));
        assert_eq!(line.next().map(|(_, sum)| sum), Some(6));
        line.lost_count();
        assert!(matches!(line.join(1, MINUTE), Turn::Alone(_)));
    }
}
