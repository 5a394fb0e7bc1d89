//! One at a time, by name: whoever makes, asks for, purges or deletes a queue does so while nobody else here does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lapin::types::ShortString;
use tokio::sync::OwnedMutexGuard;

type Lock = Arc<tokio::sync::Mutex<()>>;

/// A lock for each name that is in use. One queue that does not answer holds up nobody but those who want it.
#[derive(Debug, Default)]
pub(crate) struct NameLocks(Mutex<HashMap<ShortString, Lock>>);

/// Somebody's turn, or his place among those who wait for it.
#[derive(Debug)]
pub(crate) struct NameLock<'a> {
    name_locks: &'a NameLocks,
    name: ShortString,
    held: Option<OwnedMutexGuard<()>>,
}

impl NameLocks {
    /// Waits until nobody else has the turn of that name.
    pub(crate) async fn take(&self, name: &ShortString) -> NameLock<'_> {
        let lock = Arc::clone(self.all().entry(name.clone()).or_default());
        // From here on there is somebody to clear the lock away.
        let mut guard = NameLock {
            name_locks: self,
            name: name.clone(),
            held: None,
        };
        guard.held = Some(lock.lock_owned().await);
        guard
    }

    fn all(&self) -> MutexGuard<'_, HashMap<ShortString, Lock>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for NameLock<'_> {
    fn drop(&mut self) {
        self.held = None;
        let mut all = self.name_locks.all();
        // Whoever waits has the lock too.
        if all
            .get(&self.name)
            .is_some_and(|it| Arc::strong_count(it) == 1)
        {
            all.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn turns_of_one_name_exclude_each_other_and_leave_nothing() {
        let name_locks = NameLocks::default();
        let [q, other] = ["q", "other"].map(ShortString::from);
        let first = name_locks.take(&q).await;
        drop(name_locks.take(&other).now_or_never().unwrap());
        let mut second = Box::pin(name_locks.take(&q));
        let mut third = Box::pin(name_locks.take(&q));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        drop(second);
        drop(first);
        drop(third.now_or_never().unwrap());
        assert!(name_locks.all().is_empty());
    }
}
