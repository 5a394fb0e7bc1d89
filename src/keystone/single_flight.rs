//! Runs one piece of work for everybody who wants its result at the same time.
//!
//! The work is a task of its own: it goes on when the caller that began it goes away, so that clients that give up early
//! do not keep a slow Keystone from ever filling the cache. Work that has not begun its I/O may ask whether anybody still
//! waits, and end otherwise.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

type Running<K, V> = Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>;

/// Work under way, by key.
#[derive(Debug)]
pub(super) struct SingleFlight<K, V> {
    running: Running<K, V>,
    max_running: usize,
}

/// How a caller gets a result.
#[derive(Debug)]
pub(super) enum Joined<V> {
    /// The result was there already.
    Ready(V),
    /// The work runs, and this caller began it.
    Began(Waiting<V>),
    /// The work runs; another caller began it.
    Shared(Waiting<V>),
    /// So much work is under way that no more is begun.
    Full,
}

/// Waits for the result of work that others may wait for, too.
#[derive(Debug)]
pub(super) struct Waiting<V>(watch::Receiver<Option<V>>);

/// The work's own side: takes it out of the set when it ends, however it ends.
#[derive(Debug)]
pub(super) struct Flight<K: Copy + Eq + Hash, V> {
    running: Running<K, V>,
    key: K,
    sender: watch::Sender<Option<V>>,
    is_abandoned: AtomicBool,
}

impl<K, V> SingleFlight<K, V>
where
    K: Copy + Debug + Eq + Hash + Send + Sync + 'static,
    V: Clone + Debug + Send + Sync + 'static,
{
    /// Creates an empty set, in which at most `max_running` pieces of work run at once.
    pub(super) fn new(max_running: usize) -> Self {
        Self {
            running: Arc::default(),
            max_running,
        }
    }

    /// Joins the work of a key, or begins it on the runtime at hand. Work that returns `None` was abandoned.
    ///
    /// `known` is asked only when no work runs: work that has just ended has left its result there, so nothing is done
    /// twice in the moment between a look-up and this call.
    pub(super) fn join<W>(
        &self,
        key: K,
        known: impl FnOnce() -> Option<V>,
        work: impl FnOnce(Arc<Flight<K, V>>) -> W,
    ) -> Joined<V>
    where
        W: Future<Output = Option<V>> + Send + 'static,
    {
        let mut running = lock(&self.running);
        if let Some(receiver) = running.get(&key) {
            return Joined::Shared(Waiting(receiver.clone()));
        }
        if let Some(value) = known() {
            return Joined::Ready(value);
        }
        if running.len() >= self.max_running {
            return Joined::Full;
        }
        let (sender, receiver) = watch::channel(None);
        running.insert(key, receiver.clone());
        let flight = Arc::new(Flight {
            running: Arc::clone(&self.running),
            key,
            sender,
            is_abandoned: AtomicBool::new(false),
        });
        let work = work(Arc::clone(&flight));
        tokio::spawn(async move {
            let value = work.await;
            // First out of the set: a caller that comes now finds what the work has left behind.
            flight.leave();
            if value.is_some() {
                flight.sender.send_replace(value);
            }
        });
        Joined::Began(Waiting(receiver))
    }

    /// Returns how many pieces of work run.
    pub(super) fn len(&self) -> usize {
        lock(&self.running).len()
    }
}

impl<V: Clone + Send + Sync> Waiting<V> {
    /// Waits for the result; `None` when the work was dropped, because the runtime stops or because it panicked.
    pub(super) async fn result(mut self) -> Option<V> {
        let value = self.0.wait_for(Option::is_some).await.ok()?;
        value.clone()
    }
}

impl<K: Copy + Eq + Hash, V> Flight<K, V> {
    /// Ends the work when nobody waits for it any more, and reports whether it did. A caller that comes afterwards begins
    /// the work anew.
    pub(super) fn abandon_if_unwanted(&self) -> bool {
        let mut running = lock(&self.running);
        // One receiver stays in the set, and nobody can join while it is locked.
        if self.sender.receiver_count() > 1 {
            return false;
        }
        running.remove(&self.key);
        self.is_abandoned.store(true, Ordering::Relaxed);
        true
    }

    fn leave(&self) {
        if !self.is_abandoned.swap(true, Ordering::Relaxed) {
            lock(&self.running).remove(&self.key);
        }
    }
}

impl<K: Copy + Eq + Hash, V> Drop for Flight<K, V> {
    fn drop(&mut self) {
        self.leave();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Semaphore;

    use super::*;

    fn waiting<V>(joined: Joined<V>) -> Waiting<V> {
        match joined {
            Joined::Began(waiting) | Joined::Shared(waiting) => waiting,
            _ => panic!("no work runs"),
        }
    }

    #[tokio::test]
    async fn everybody_gets_the_result_of_one_piece_of_work() {
        let flights = SingleFlight::new(10);
        let (runs, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let join = || {
            let (runs, gate) = (Arc::clone(&runs), Arc::clone(&gate));
            flights.join(
                7,
                || None,
                |_| async move {
                    runs.fetch_add(1, Ordering::Relaxed);
                    gate.acquire().await.ok()?.forget();
                    Some("result")
                },
            )
        };
        let all: Vec<_> = (0..100).map(|_| waiting(join())).collect();
        assert_eq!(flights.len(), 1);
        gate.add_permits(1);
        for one in all {
            assert_eq!(one.result().await, Some("result"));
        }
        assert_eq!((runs.load(Ordering::Relaxed), flights.len()), (1, 0));
    }

    #[tokio::test]
    async fn work_goes_on_when_the_caller_that_began_it_goes_away() {
        let flights = SingleFlight::new(10);
        let gate = Arc::new(Semaphore::new(0));
        let held = Arc::clone(&gate);
        let work = |_| async move {
            held.acquire().await.ok()?.forget();
            Some(1)
        };
        drop(flights.join((), || None, work));
        let second = flights.join((), || None, |_| async { Some(2) });
        assert!(matches!(second, Joined::Shared(_)));
        gate.add_permits(1);
        assert_eq!(waiting(second).result().await, Some(1));
    }

    #[tokio::test]
    async fn unwanted_work_is_abandoned_and_begun_anew_by_the_next_caller() {
        let flights = SingleFlight::new(10);
        let gate = Arc::new(Semaphore::new(0));
        let held = Arc::clone(&gate);
        let first = flights.join(
            (),
            || None,
            |flight| async move {
                held.acquire().await.ok()?.forget();
                match flight.abandon_if_unwanted() {
                    true => None,
                    false => Some(1),
                }
            },
        );
        drop(first);
        gate.add_permits(1);
        while flights.len() > 0 {
            tokio::task::yield_now().await;
        }
        let second = flights.join((), || None, |_| async { Some(2) });
        assert_eq!(waiting(second).result().await, Some(2));
    }

    #[tokio::test]
    async fn work_that_panics_leaves_the_set_and_gives_no_result() {
        let flights = SingleFlight::<(), ()>::new(1);
        let joined = flights.join((), || None, |_| async { panic!("on purpose") });
        assert_eq!(waiting(joined).result().await, None);
        assert_eq!(flights.len(), 0);
    }

    #[tokio::test]
    async fn a_full_set_begins_nothing_and_a_known_result_needs_no_work() {
        let flights = SingleFlight::new(1);
        let never = |_| std::future::pending();
        let _running = flights.join(1, || None, never);
        assert!(matches!(flights.join(2, || None, never), Joined::Full));
        assert!(matches!(
            flights.join(2, || Some(5), never),
            Joined::Ready(5)
        ));
    }
}
