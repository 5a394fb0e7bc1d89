//! The one wrapper around a store: whether it may be called, a span, the time it took, and what an error happened to.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tracing::Instrument;

use crate::{
    Backlog, ByteCount, Capabilities, Claim, ClaimId, Condition, Error, ImportedClaim, Lease,
    Message, MessageId, MessageStore, Page, Precondition, QueueKey, Result, Selection, Stats,
};

/// Lets calls through to a store, and hears of each that has finished.
pub trait Observer: Debug + Send + Sync + 'static {
    /// Whether a call may be made now; what it refuses with is the call's answer, and is not observed.
    fn admit(&self, operation: &'static str) -> Result<()>;

    /// `operation` is the method's name; `error` is what it answered, if it failed.
    fn observe(&self, operation: &'static str, took: Duration, error: Option<&Error>);
}

/// A store that asks an [`Observer`] first, tells it what was done, and adds backend, operation and queue to its errors.
#[derive(Debug)]
pub struct Instrumented {
    backend: &'static str,
    inner: Arc<dyn MessageStore>,
    observer: Arc<dyn Observer>,
}

impl Instrumented {
    /// Wraps a store; `backend` is the driver's name for logs and metrics.
    pub fn new(
        backend: &'static str,
        inner: Arc<dyn MessageStore>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self {
            backend,
            inner,
            observer,
        }
    }

    async fn watch<T>(
        &self,
        operation: &'static str,
        queue: Option<&QueueKey>,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let span = tracing::debug_span!(
            "store",
            backend = self.backend,
            operation,
            queue = queue.map(tracing::field::display)
        );
        let result = match self.observer.admit(operation) {
            Err(refused) => Err(refused),
            Ok(()) => {
                let start = Instant::now();
                let result = if span.is_disabled() {
                    call.await
                } else {
                    call.instrument(span).await
                };
                self.observer
                    .observe(operation, start.elapsed(), result.as_ref().err());
                result
            }
        };
        result.map_err(|error| {
            let error = error
                .with("backend", self.backend)
                .with("operation", operation);
            match queue {
                Some(queue) => error.with("queue", queue),
                None => error,
            }
        })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl MessageStore for Instrumented {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn condition(&self) -> Condition {
        self.inner.condition()
    }

    async fn ping(&self) -> Result<()> {
        self.watch("ping", None, self.inner.ping()).await
    }

    async fn can_post(&self, queue: &QueueKey) -> Result<()> {
        self.watch("can_post", Some(queue), self.inner.can_post(queue))
            .await
    }

    async fn post(&self, queue: &QueueKey, messages: Vec<Message>) -> Result<()> {
        self.watch("post", Some(queue), self.inner.post(queue, messages))
            .await
    }

    async fn post_within(&self, queue: &QueueKey, messages: Vec<Message>, most: u64) -> Result<()> {
        let post = self.inner.post_within(queue, messages, most);
        self.watch("post", Some(queue), post).await
    }

    async fn list(&self, queue: &QueueKey, selection: Selection) -> Result<Page> {
        self.watch("list", Some(queue), self.inner.list(queue, selection))
            .await
    }

    async fn get(&self, queue: &QueueKey, ids: &[MessageId]) -> Result<Vec<Message>> {
        self.watch("get", Some(queue), self.inner.get(queue, ids))
            .await
    }

    async fn delete(
        &self,
        queue: &QueueKey,
        ids: &[MessageId],
        precondition: Precondition,
    ) -> Result<usize> {
        self.watch(
            "delete",
            Some(queue),
            self.inner.delete(queue, ids, precondition),
        )
        .await
    }

    async fn pop(&self, queue: &QueueKey, limit: usize) -> Result<Vec<Message>> {
        self.watch("pop", Some(queue), self.inner.pop(queue, limit))
            .await
    }

    async fn claim(&self, queue: &QueueKey, lease: &Lease, limit: usize) -> Result<Option<Claim>> {
        self.watch("claim", Some(queue), self.inner.claim(queue, lease, limit))
            .await
    }

    async fn find_claim(&self, queue: &QueueKey, claim: ClaimId) -> Result<Claim> {
        self.watch(
            "find_claim",
            Some(queue),
            self.inner.find_claim(queue, claim),
        )
        .await
    }

    async fn renew_claim(&self, queue: &QueueKey, lease: &Lease) -> Result<()> {
        self.watch(
            "renew_claim",
            Some(queue),
            self.inner.renew_claim(queue, lease),
        )
        .await
    }

    async fn release_claim(&self, queue: &QueueKey, claim: ClaimId) -> Result<()> {
        self.watch(
            "release_claim",
            Some(queue),
            self.inner.release_claim(queue, claim),
        )
        .await
    }

    async fn undo_claim(&self, queue: &QueueKey, claim: ClaimId, counted: bool) -> Result<()> {
        let undo = self.inner.undo_claim(queue, claim, counted);
        self.watch("release_claim", Some(queue), undo).await
    }

    async fn import_claim(
        &self,
        queue: &QueueKey,
        claim: ImportedClaim,
        ids: &[MessageId],
    ) -> Result<usize> {
        self.watch(
            "hold",
            Some(queue),
            self.inner.import_claim(queue, claim, ids),
        )
        .await
    }

    async fn backlog(&self, queue: &QueueKey) -> Result<Backlog> {
        self.watch("backlog", Some(queue), self.inner.backlog(queue))
            .await
    }

    async fn stats(&self, queue: &QueueKey) -> Result<Stats> {
        self.watch("stats", Some(queue), self.inner.stats(queue))
            .await
    }

    async fn count_bytes(&self, queue: &QueueKey, after: Option<u64>) -> Result<ByteCount> {
        let count = self.inner.count_bytes(queue, after);
        self.watch("count_bytes", Some(queue), count).await
    }

    async fn purge(&self, queue: &QueueKey) -> Result<()> {
        self.watch("purge", Some(queue), self.inner.purge(queue))
            .await
    }

    async fn drop_queue(&self, queue: &QueueKey) -> Result<()> {
        self.watch("remove", Some(queue), self.inner.drop_queue(queue))
            .await
    }

    async fn close(&self) -> Result<()> {
        self.watch("close", None, self.inner.close()).await
    }
}
