//! Migrations that cannot go on: logged once, and shown until they do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use isimud_contract::{Error, QueueKey};

use crate::messaging::MessageObserver;

/// The moves that this server works on and that failed when they were last tried. There are no more of them than jobs that
/// it has tried.
#[derive(Debug)]
pub(super) struct Stalled {
    why: Mutex<HashMap<QueueKey, String>>,
    observer: Arc<dyn MessageObserver>,
}

impl Stalled {
    pub(super) fn new(observer: Arc<dyn MessageObserver>) -> Self {
        Self {
            why: Mutex::default(),
            observer,
        }
    }

    /// A move has failed. Logged when it did not fail before, or failed otherwise.
    pub(super) fn failed(&self, queue: &QueueKey, error: &Error) {
        let why = error.sentence().to_owned();
        let before = self.all().insert(queue.clone(), why.clone());
        if before.is_none_or(|before| before != why) {
            tracing::warn!(%error, %queue, "queue migration stalled, retrying");
        }
        self.publish_count();
    }

    /// A move goes on, or is over.
    pub(super) fn resumed(&self, queue: &QueueKey) {
        if self.all().remove(queue).is_some() {
            tracing::info!(%queue, "queue migration resumed");
            self.publish_count();
        }
    }

    /// Why a queue is not carried now, as far as this server knows.
    pub(super) fn why(&self, queue: &QueueKey) -> Option<String> {
        self.all().get(queue).cloned()
    }

    fn publish_count(&self) {
        let count = self.all().len();
        self.observer.moves_stalled(count);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<QueueKey, String>> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
