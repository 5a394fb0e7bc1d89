//! Open stores: each pool's is opened when it is first needed, shared by all its queues, and closed when nobody uses it
//! any more.
//!
//! A pool that is changed gets a new store, once the old one is closed: a file has one owner at a time. Calls that are
//! under way with the old one end well; new ones wait for the new one.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use isimud_contract::{
    Capabilities, Error, ErrorKind, Instrumented, MessageStore, Metadata, Observer, Pool, PoolName,
    Result,
};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::circuit::Circuit;
use super::{Opener, PoolRegistry};

/// How long a new store waits for the old one of its pool to be closed, and how long it may take to open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a store that could not be opened is left alone.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Who hears of the calls of the store of that name: for metrics.
pub type ObserverFactory = Arc<dyn Fn(&str) -> Arc<dyn Observer> + Send + Sync>;

/// An open store. Cloning shares it.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn MessageStore>,
    guard: Weak<StoreGuard>,
}

impl Opened {
    /// The store of the configuration. It is there until the program ends.
    pub(super) fn default(
        driver: &'static str,
        store: Arc<dyn MessageStore>,
        counted: Arc<dyn Observer>,
    ) -> Self {
        let opened = Self::new(driver, store, counted, None);
        opened.leave_open();
        opened
    }

    /// A store that is closed when the last who holds it lets go.
    fn new(
        driver: &'static str,
        store: Arc<dyn MessageStore>,
        counted: Arc<dyn Observer>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let guard = Arc::new(StoreGuard {
            store: Arc::clone(&store),
            circuit: Circuit::default(),
            counted,
            is_closed: AtomicBool::new(false),
            permit: Mutex::new(permit),
        });
        let observer: Arc<dyn Observer> = Arc::clone(&guard) as _;
        Self {
            store: Arc::new(Instrumented::new(driver, store, observer)),
            guard: Arc::downgrade(&guard),
        }
    }

    /// Closes it, whoever uses it.
    pub(crate) async fn close(&self) -> Result<()> {
        self.leave_open();
        self.store.close().await
    }

    /// Has nothing done to the store when the last lets go.
    fn leave_open(&self) {
        if let Some(guard) = self.guard.upgrade() {
            guard.is_closed.store(true, Ordering::Release);
        }
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }
}

/// Guards a store: refuses calls while its circuit is open, and closes it when the last user has let go.
struct StoreGuard {
    store: Arc<dyn MessageStore>,
    circuit: Circuit,
    counted: Arc<dyn Observer>,
    /// It is closed, or nobody's to close.
    is_closed: AtomicBool,
    /// Given back when the store is closed.
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl fmt::Debug for StoreGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper")
            .field("circuit", &self.circuit)
            .finish_non_exhaustive()
    }
}

impl Observer for StoreGuard {
    fn admit(&self, operation: &'static str) -> Result<()> {
        match operation {
            // Whether the store answers again, and its close.
            "ping" | "close" => Ok(()),
            _ => self.circuit.admit(),
        }
    }

    fn observe(&self, operation: &'static str, took: Duration, error: Option<&Error>) {
        self.circuit.note(took, error);
        self.counted.observe(operation, took, error);
    }
}

impl Drop for StoreGuard {
    fn drop(&mut self) {
        let permit = self
            .permit
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let (store, permit) = (Arc::clone(&self.store), permit.take());
        if self.is_closed.load(Ordering::Acquire) {
            return;
        }
        // Without a runtime the program is at its end.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = store.close().await {
                    tracing::warn!(%error, "cannot close an unused store");
                }
                drop((store, permit));
            });
        }
    }
}

/// The stores of all pools.
pub(super) struct Stores {
    opener: Arc<dyn Opener>,
    counted: ObserverFactory,
    slots: Mutex<HashMap<PoolName, Arc<Slot>>>,
}

/// Where the store of one pool is.
struct Slot {
    /// One store of the pool at a time.
    permit: Arc<Semaphore>,
    open: tokio::sync::Mutex<Option<PooledStore>>,
    /// When it could not be opened.
    failed: Mutex<Option<Instant>>,
}

impl Slot {
    fn failed(&self) -> MutexGuard<'_, Option<Instant>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_failure(&self) {
        *self.failed() = Some(Instant::now());
    }

    fn has_just_failed(&self) -> bool {
        self.failed()
            .is_some_and(|failed| failed.elapsed() < RETRY_DELAY)
    }
}

/// A store, and what it was opened with.
struct PooledStore {
    uri: String,
    options: Metadata,
    opened: Opened,
}

impl PooledStore {
    fn is_of(&self, pool: &Pool) -> bool {
        self.uri == pool.uri && self.options == pool.options
    }
}

impl Stores {
    pub(super) fn new(opener: Arc<dyn Opener>, counted: ObserverFactory) -> Self {
        Self {
            opener,
            counted,
            slots: Mutex::default(),
        }
    }

    pub(super) fn opener(&self) -> &dyn Opener {
        &*self.opener
    }

    fn slot(&self, name: &PoolName) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.entry(name.clone()).or_insert_with(|| {
            Arc::new(Slot {
                permit: Arc::new(Semaphore::new(1)),
                open: tokio::sync::Mutex::default(),
                failed: Mutex::default(),
            })
        });
        Arc::clone(slot)
    }

    /// The store of a pool, which is opened now if it is not open as the pool says.
    pub(super) async fn of(&self, pool: &Pool) -> Result<Opened> {
        let slot = self.slot(&pool.name);
        let mut open = slot.open.lock().await;
        if let Some(pooled) = open.as_ref().filter(|pooled| pooled.is_of(pool)) {
            return Ok(pooled.opened.clone());
        }
        *open = None;
        if slot.has_just_failed() {
            return Err(unavailable(
                "the pool's store could not be opened a moment ago",
            ));
        }
        let permit =
            tokio::time::timeout(OPEN_TIMEOUT, Arc::clone(&slot.permit).acquire_owned()).await;
        let permit = permit.map_err(|_| unavailable("the pool's old store is still in use"))?;
        let opened = self.open(pool, permit.ok()).await;
        let opened = opened.map_err(|error| {
            slot.note_failure();
            unavailable("the pool's store cannot be opened").caused_by(error)
        })?;
        *open = Some(PooledStore {
            uri: pool.uri.clone(),
            options: pool.options.clone(),
            opened: opened.clone(),
        });
        Ok(opened)
    }

    /// Opens a pool's store for whoever asks, apart from the one that serves its queues.
    pub(super) async fn open(
        &self,
        pool: &Pool,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Opened> {
        let (opener, wanted) = (Arc::clone(&self.opener), pool.clone());
        // Opening a file waits for the disk.
        let opening = tokio::task::spawn_blocking(move || {
            opener.open(wanted.name.as_str(), &wanted.uri, &wanted.options)
        });
        let opened = tokio::time::timeout(OPEN_TIMEOUT, opening).await;
        let opened = opened.map_err(|_| unavailable("the store could not be opened in time"))?;
        let (driver, store) = opened.map_err(|error| {
            Error::new(ErrorKind::Internal, "opening the store failed").caused_by(error)
        })??;
        tracing::info!(pool = %pool.name, driver, "pool store opened");
        Ok(Opened::new(
            driver,
            store,
            (self.counted)(pool.name.as_str()),
            permit,
        ))
    }

    /// Lets go of the stores of pools that are gone or have changed.
    pub(super) async fn keep(&self, registry: &PoolRegistry) {
        let slots: Vec<(PoolName, Arc<Slot>)> = {
            let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            let pairs = slots.iter();
            pairs
                .map(|(name, slot)| (name.clone(), Arc::clone(slot)))
                .collect()
        };
        for (name, slot) in slots {
            let mut open = slot.open.lock().await;
            // Whatever was wrong with it may have been mended.
            *slot.failed() = None;
            let pool = registry.find(&name);
            let is_same = |pooled: &PooledStore| pool.is_some_and(|pool| pooled.is_of(pool));
            if open.as_ref().is_some_and(|pooled| !is_same(pooled)) {
                tracing::info!(pool = %name, "closing the pool's store: the pool was changed or removed");
                *open = None;
            }
        }
    }

    /// Closes all of them.
    pub(crate) async fn close(&self) -> Result<()> {
        let slots: Vec<Arc<Slot>> = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.drain().map(|(_, slot)| slot).collect()
        };
        let mut result = Ok(());
        for slot in slots {
            if let Some(pooled) = slot.open.lock().await.take() {
                result = result.and(pooled.opened.close().await);
            }
        }
        result
    }
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stores").finish_non_exhaustive()
    }
}

fn unavailable(sentence: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, sentence)
}
