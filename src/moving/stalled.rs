//! Moves that cannot go on: said once, and shown until they do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use isimud_contract::{Error, QueueKey};

use crate::messaging::Flow;

/// The moves that this server works on and that failed when they were last tried. There are no more of them than jobs that
/// it has tried.
#[derive(Debug)]
pub(super) struct Stalled {
    why: Mutex<HashMap<QueueKey, String>>,
    flow: Arc<dyn Flow>,
}

impl Stalled {
    pub(super) fn new(flow: Arc<dyn Flow>) -> Self {
        Self {
            why: Mutex::default(),
            flow,
        }
    }

    /// A move has failed. Logged when it did not fail before, or failed otherwise.
    pub(super) fn failed(&self, queue: &QueueKey, error: &Error) {
        let why = error.sentence().to_owned();
        let before = self.all().insert(queue.clone(), why.clone());
        if before.is_none_or(|before| before != why) {
            tracing::warn!(%error, %queue, "a queue cannot be carried now; it is tried again");
        }
        self.tell();
    }

    /// A move goes on, or is over.
    pub(super) fn goes_on(&self, queue: &QueueKey) {
        if self.all().remove(queue).is_some() {
            tracing::info!(%queue, "a queue is carried again");
            self.tell();
        }
    }

    /// Why a queue is not carried now, as far as this server knows.
    pub(super) fn why(&self, queue: &QueueKey) -> Option<String> {
        self.all().get(queue).cloned()
    }

    fn tell(&self) {
        let count = self.all().len();
        self.flow.moves_stalled(count);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<QueueKey, String>> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
