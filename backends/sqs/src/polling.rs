//! One wait for everybody.
//!
//! With `wait_s` SQS keeps a receive waiting until there is a message, and an empty answer costs a request. So where
//! a queue was empty the last time, one caller waits for all: the others stand behind it, and when it comes back empty
//! so do they. Where there are messages nobody waits for anybody.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

/// How long somebody must have stood behind a wait to share its empty answer. Less, and a message might have come after
/// SQS had made up that answer.
const SHARE: Duration = Duration::from_secs(1);

/// The waits on one queue.
#[derive(Debug, Default)]
pub(crate) struct Polls {
    empty: AtomicBool,
    /// Waits that came back empty.
    waits: AtomicU64,
    turn: Mutex<()>,
}

/// What a caller is to do.
#[derive(Debug)]
pub(crate) enum Turn<'a> {
    /// Ask for messages; the guard, where there is one, keeps others from asking.
    Ask(Option<MutexGuard<'a, ()>>),
    /// Answer that there are none.
    Empty,
}

impl Polls {
    /// Waits for one's turn to ask.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        if !self.empty.load(Ordering::Acquire) {
            return Turn::Ask(None);
        }
        let (waits, since) = (self.waits.load(Ordering::Acquire), Instant::now());
        let guard = self.turn.lock().await;
        if !self.empty.load(Ordering::Acquire) {
            return Turn::Ask(None);
        }
        if self.waits.load(Ordering::Acquire) != waits && since.elapsed() >= SHARE {
            return Turn::Empty;
        }
        Turn::Ask(Some(guard))
    }

    /// Notes what an answer was like.
    pub(crate) fn told(&self, empty: bool) {
        self.empty.store(empty, Ordering::Release);
        if empty {
            self.waits.fetch_add(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_waits_for_all_who_are_there() {
        let polls = Polls::default();
        polls.told(true);
        let asked = AtomicU64::new(0);
        let claim = async || match polls.turn().await {
            Turn::Empty => {}
            Turn::Ask(guard) => {
                asked.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(20)).await;
                polls.told(true);
                drop(guard);
            }
        };
        let late = async {
            tokio::time::sleep(Duration::from_millis(19_500)).await;
            claim().await;
        };
        tokio::join!(claim(), claim(), claim(), claim(), late);
        // Who came half a second before the answer asks once more.
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn where_there_are_messages_nobody_waits() {
        let polls = Polls::default();
        polls.told(false);
        for _ in 0..3 {
            assert!(matches!(polls.turn().await, Turn::Ask(None)));
        }
        polls.told(true);
        let first = polls.turn().await;
        let second = async {
            let begun = Instant::now();
            assert!(matches!(polls.turn().await, Turn::Ask(None)));
            begun.elapsed()
        };
        let finish = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            polls.told(false);
            drop(first);
        };
        let (waited, ()) = tokio::join!(second, finish);
        assert_eq!(waited.as_secs(), 5);
    }
}
