//! What a trial has in front of it: a fresh store, one queue, and the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use isimud_contract::{
    Capabilities, ManagementStore, MessageStore, ProjectId, QueueKey, QueueName, Result, Timestamp,
};
use uuid::Uuid;

use crate::harness::{Approximations, Fixture, Stores};
use crate::outcome::{Abort, Step};

pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A span of whole minutes.
pub(crate) const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

/// A store, and the queue that the words are about. A copy is the same store.
#[derive(Debug, Clone)]
pub(crate) struct Bench {
    fixture: Arc<dyn Fixture>,
    stores: Stores,
    pub(crate) queue: QueueKey,
    minted: Arc<AtomicU64>,
}

/// The set-up.
impl Bench {
    pub(crate) async fn open(fixture: Arc<dyn Fixture>) -> Result<Self> {
        Ok(Self {
            stores: fixture.open().await?,
            fixture,
            queue: queue("project", "queue"),
            minted: Arc::default(),
        })
    }

    /// The same store, closed and opened again.
    pub(crate) async fn reopen(self) -> Step<Self> {
        let closed = self.close().await?;
        closed.open_again().await
    }

    /// Closes the store; the bench can be opened again, and tells the time meanwhile.
    pub(crate) async fn close(self) -> Step<Self> {
        needs(self.fixture.keeps(), "to keep data when it is closed")?;
        self.stores.messages.close().await?;
        Ok(self)
    }

    pub(crate) async fn open_again(self) -> Step<Self> {
        let stores = self.fixture.open().await?;
        Ok(Self { stores, ..self })
    }

    /// Another store on the same data, open at the same time.
    pub(crate) async fn beside(&self) -> Step<Self> {
        let stores = self.fixture.open_beside().await?;
        let stores = stores.ok_or(Abort::Unsupported("two stores at once on the same data"))?;
        Ok(Self {
            stores,
            ..self.clone()
        })
    }

    /// Another queue of the same project.
    pub(crate) fn on(&self, name: &str) -> Self {
        self.at(self.queue.project.as_str(), name)
    }

    /// A topic of the same project.
    pub(crate) fn topic(&self, name: &str) -> Self {
        let mut topic = self.on(name);
        topic.queue.name = QueueName::of_topic(&topic.queue.name);
        topic
    }

    /// A queue that the service keeps for itself.
    pub(crate) fn internal(&self, name: &str) -> Self {
        let mut internal = self.on(name);
        internal.queue.name = QueueName::internal(&internal.queue.name);
        internal
    }

    /// A queue of any project.
    pub(crate) fn at(&self, project: &str, name: &str) -> Self {
        Self {
            queue: queue(project, name),
            ..self.clone()
        }
    }

    /// The store itself, for what the words do not say.
    pub(crate) fn store(&self) -> &dyn MessageStore {
        self.stores.messages.as_ref()
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        self.store().capabilities()
    }

    pub(crate) fn approximates(&self) -> Approximations {
        self.fixture.approximates()
    }

    pub(crate) fn management(&self) -> Step<&dyn ManagementStore> {
        let store = self.stores.management.as_deref();
        store.ok_or(Abort::Unsupported("to keep queues"))
    }

    /// Goes on only where messages come in the order of their posts.
    pub(crate) fn ordered(&self) -> Step<()> {
        needs(self.capabilities().fifo, "an order")
    }

    /// Goes on only where messages come back to their old places whatever happens in between.
    pub(crate) fn keeps_order(&self) -> Step<()> {
        self.ordered()?;
        needs(
            !self.approximates().redelivery_order,
            "old places for several claims",
        )
    }
}

pub(crate) fn queue(project: &str, name: &str) -> QueueKey {
    QueueKey::new(
        ProjectId::parse(project).expect("trials use valid project ids"),
        QueueName::parse(name).expect("trials use valid queue names"),
    )
}

pub(crate) fn needs(promised: bool, what: &'static str) -> Step<()> {
    if promised {
        Ok(())
    } else {
        Err(Abort::Unsupported(what))
    }
}

/// Time, and the ids that carry it.
impl Bench {
    pub(crate) fn now(&self) -> Timestamp {
        self.fixture.now()
    }

    pub(crate) async fn advance(&self, span: Duration) {
        self.fixture.advance(span).await;
    }

    /// Goes on only where the clock stands still, so that one millisecond makes a difference.
    pub(crate) fn to_the_millisecond(&self) -> Step<()> {
        let still = self.fixture.drift() == Duration::ZERO;
        needs(still, "a clock that stands still")
    }

    /// Checks a span, up to what the clock may have moved by itself.
    #[track_caller]
    pub(crate) fn assert_span(&self, actual: Duration, expected: Duration) {
        assert!(
            actual.abs_diff(expected) <= self.fixture.drift(),
            "{actual:?} is not {expected:?}"
        );
    }

    /// A fresh id. Ids rank like the moments at which they were minted, as those of the server do.
    pub(crate) fn mint(&self) -> Uuid {
        const COUNTER_BITS: u8 = 42;
        let now = Duration::from_millis(self.now().0.unsigned_abs());
        let count = self.minted.fetch_add(1, Ordering::Relaxed);
        Uuid::new_v7(uuid::Timestamp::from_unix_time(
            now.as_secs(),
            now.subsec_nanos(),
            count.into(),
            COUNTER_BITS,
        ))
    }
}
