//! The message contract, each method one call on the right thread.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use isimud_contract::{
    Backlog, ByteCount, Capabilities, Claim, ClaimId, Clock, Condition, Error, ErrorKind,
    ImportedClaim, Lease, Message, MessageId, MessageStore, Page, Precondition, QueueKey, Result,
    Selection, Stats,
};

use crate::config::{Config, Location};
use crate::damage::Damage;
use crate::error::{closed, full};
use crate::lock::Lock;
use crate::schema::{self, Connections};
use crate::session::Session;
use crate::upkeep::{Full, Upkeep};
use crate::worker_thread::{Access, Outcome, Size, WorkerThread};
use crate::{claim, message, queue_log};

/// Messages and queues in one SQLite database. See the crate's docs.
#[derive(Debug)]
pub struct SqliteStore {
    durable: bool,
    full: Full,
    damage: Arc<Damage>,
    threads: RwLock<Option<WorkerThreads>>,
}

#[derive(Debug)]
struct WorkerThreads {
    writer: WorkerThread,
    /// Empty in memory, where there is one connection and no disk to wait for.
    readers: Vec<WorkerThread>,
    turn: AtomicUsize,
    /// Freed after the threads have ended: fields drop in order.
    _lock: Option<Lock>,
}

impl WorkerThreads {
    fn reader(&self) -> &WorkerThread {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.readers
            .get(turn % self.readers.len().max(1))
            .unwrap_or(&self.writer)
    }
}

impl SqliteStore {
    /// Opens the database, creating or migrating it as needed, and starts its threads.
    ///
    /// `Invalid` when the file belongs to a newer version or another program, `Unavailable` when it cannot be opened
    /// or another server has it open.
    pub fn open(config: Config, clock: Arc<dyn Clock>) -> Result<Arc<Self>> {
        let Connections {
            writer,
            readers,
            lock,
            upkeep,
        } = schema::open(&config)?;
        let damage = Arc::<Damage>::default();
        let full = upkeep.as_ref().map(Upkeep::full).unwrap_or_default();
        let expiry_watermark = Arc::default();
        let start = |name: &str, access, connection, upkeep| {
            let session = Session::new(
                connection,
                Arc::clone(&clock),
                Arc::clone(&expiry_watermark),
                Arc::clone(&damage),
                access == Access::Write,
            );
            WorkerThread::start(name, access, session, upkeep).map_err(|error| {
                Error::new(
                    ErrorKind::Unavailable,
                    "cannot start a thread for the embedded store",
                )
                .caused_by(error)
            })
        };
        let threads = WorkerThreads {
            writer: start("sqlite-writer", Access::Write, writer, upkeep)?,
            readers: readers
                .into_iter()
                .map(|c| start("sqlite-reader", Access::Read, c, None))
                .collect::<Result<_>>()?,
            turn: AtomicUsize::new(0),
            _lock: lock,
        };
        Ok(Arc::new(Self {
            durable: config.location != Location::Memory,
            full,
            damage: Arc::clone(&damage),
            threads: RwLock::new(Some(threads)),
        }))
    }

    /// Has the writer do what adds nothing that lasts: it goes on when the disk is full.
    pub(crate) async fn write<T, W>(&self, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnMut(&mut Session) -> Outcome<T> + Send + 'static,
    {
        let answer = self.with_threads(|threads| threads.writer.send(Size::Stays, work))?;
        answer.await.map_err(|_| closed())?
    }

    /// Has the writer do what adds to the store: refused while the disk is full.
    pub(crate) async fn grow<T, W>(&self, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnMut(&mut Session) -> Outcome<T> + Send + 'static,
    {
        if self.full.get() {
            return Err(full());
        }
        let answer = self.with_threads(|threads| threads.writer.send(Size::Grows, work))?;
        answer.await.map_err(|_| closed())?
    }

    pub(crate) async fn read<T, W>(&self, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnMut(&mut Session) -> Outcome<T> + Send + 'static,
    {
        let answer = self.with_threads(|threads| threads.reader().send(Size::Stays, work))?;
        answer.await.map_err(|_| closed())?
    }
}

impl SqliteStore {
    fn with_threads<T>(&self, use_them: impl FnOnce(&WorkerThreads) -> Result<T>) -> Result<T> {
        let threads = self.threads.read().unwrap_or_else(PoisonError::into_inner);
        use_them(threads.as_ref().ok_or_else(closed)?)
    }
}

#[async_trait]
impl MessageStore for SqliteStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durable: self.durable,
            ..Capabilities::FULL
        }
    }

    fn condition(&self) -> Condition {
        Condition {
            is_full: self.full.get(),
            damaged: self.damage.count(),
            dropped: 0,
        }
    }

    async fn ping(&self) -> Result<()> {
        // By the writer: a store that can only be read is not up.
        self.write(|session| session.statement("SELECT 1")?.query_row([], |_| Ok(Ok(()))))
            .await
    }

    async fn can_post(&self, _: &QueueKey) -> Result<()> {
        Ok(())
    }

    async fn post(&self, queue: &QueueKey, messages: Vec<Message>) -> Result<()> {
        let queue = queue.clone();
        self.grow(move |session| message::post(session, &queue, &messages, None))
            .await
    }

    async fn post_within(&self, queue: &QueueKey, messages: Vec<Message>, most: u64) -> Result<()> {
        let queue = queue.clone();
        self.grow(move |session| message::post(session, &queue, &messages, Some(most)))
            .await
    }

    async fn list(&self, queue: &QueueKey, selection: Selection) -> Result<Page> {
        let queue = queue.clone();
        self.read(move |session| message::list(session, &queue, &selection))
            .await
    }

    async fn get(&self, queue: &QueueKey, ids: &[MessageId]) -> Result<Vec<Message>> {
        let (queue, ids) = (queue.clone(), ids.to_vec());
        self.read(move |session| message::get(session, &queue, &ids))
            .await
    }

    async fn delete(
        &self,
        queue: &QueueKey,
        ids: &[MessageId],
        precondition: Precondition,
    ) -> Result<usize> {
        let (queue, ids) = (queue.clone(), ids.to_vec());
        self.write(move |session| message::delete(session, &queue, &ids, &precondition))
            .await
    }

    async fn pop(&self, queue: &QueueKey, limit: usize) -> Result<Vec<Message>> {
        let queue = queue.clone();
        self.write(move |session| message::pop(session, &queue, limit))
            .await
    }

    async fn claim(&self, queue: &QueueKey, lease: &Lease, limit: usize) -> Result<Option<Claim>> {
        let (queue, lease) = (queue.clone(), lease.clone());
        self.write(move |session| claim::claim(session, &queue, &lease, limit))
            .await
    }

    async fn find_claim(&self, queue: &QueueKey, claim: ClaimId) -> Result<Claim> {
        let queue = queue.clone();
        self.read(move |session| claim::find(session, &queue, claim))
            .await
    }

    async fn renew_claim(&self, queue: &QueueKey, lease: &Lease) -> Result<()> {
        let (queue, lease) = (queue.clone(), lease.clone());
        self.write(move |session| claim::renew(session, &queue, &lease))
            .await
    }

    async fn release_claim(&self, queue: &QueueKey, claim: ClaimId) -> Result<()> {
        let queue = queue.clone();
        self.write(move |session| claim::release(session, &queue, claim, false))
            .await
    }

    async fn undo_claim(&self, queue: &QueueKey, claim: ClaimId, counted: bool) -> Result<()> {
        let queue = queue.clone();
        self.write(move |session| claim::release(session, &queue, claim, counted))
            .await
    }

    async fn import_claim(
        &self,
        queue: &QueueKey,
        claim: ImportedClaim,
        ids: &[MessageId],
    ) -> Result<usize> {
        let (queue, ids) = (queue.clone(), ids.to_vec());
        self.write(move |session| claim::import_claim(session, &queue, claim, &ids))
            .await
    }

    async fn backlog(&self, queue: &QueueKey) -> Result<Backlog> {
        Ok(Backlog::from(&self.stats(queue).await?))
    }

    async fn stats(&self, queue: &QueueKey) -> Result<Stats> {
        let queue = queue.clone();
        self.read(move |session| queue_log::stats(session, &queue))
            .await
    }

    async fn count_bytes(&self, queue: &QueueKey, after: Option<u64>) -> Result<ByteCount> {
        let queue = queue.clone();
        self.read(move |session| queue_log::count_bytes(session, &queue, after))
            .await
    }

    async fn purge(&self, queue: &QueueKey) -> Result<()> {
        let queue = queue.clone();
        self.write(move |session| queue_log::mark_purged(session, &queue, false))
            .await
    }

    async fn drop_queue(&self, queue: &QueueKey) -> Result<()> {
        let queue = queue.clone();
        self.write(move |session| queue_log::mark_purged(session, &queue, true))
            .await
    }

    async fn close(&self) -> Result<()> {
        let threads = self
            .threads
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // Waits for the threads to finish what was begun.
        tokio::task::spawn_blocking(move || drop(threads))
            .await
            .map_err(|error| closed().caused_by(error))
    }
}
