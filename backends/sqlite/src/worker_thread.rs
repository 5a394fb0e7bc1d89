//! A thread with a connection that works through calls in groups: one transaction, one disk flush a group.
//!
//! While a group is being committed the next one gathers by itself, so that throughput grows with the number of
//! callers and a single caller waits for nobody. A call that fails inside SQLite must not take its neighbours along:
//! the group is rolled back and every call is run again in a transaction of its own. Calls are therefore closures
//! that can run twice. (Savepoints would do the same at the price of two statements a call, always.)
//!
//! When the disk is full, calls that add to the store are refused, and the others of the group run again one by one.
//!
//! A store in memory has no journal to roll back with: there a failure inside SQLite, which is a lack of memory, ends
//! the store.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use isimud_contract::{Error, ErrorKind, Result};
use rusqlite::ErrorCode;
use tokio::sync::oneshot;

use crate::error::{closed, from_sqlite, full};
use crate::session::Session;
use crate::upkeep::Upkeep;

/// What a call comes to: SQLite's own failure outside, which undoes the transaction; the call's answer inside. A call
/// that answers with an error has written nothing.
pub(crate) type Outcome<T> = rusqlite::Result<Result<T>>;

/// Calls that share a transaction, at the most.
const MAX_GROUP: usize = 256;

/// Calls that may wait, at the most: more than there are connections, unless the disk stands still.
const MAX_WAITING: usize = 8192;

/// Room for metadata that are as deeply nested as the API allows: they are read by recursion.
const STACK_BYTES: usize = 8 << 20;

/// Rows that one step of a sweep touches, at the most; and on a full disk, where there is little room for the log.
pub(crate) const STEP: i64 = 500;
const SMALL_STEP: i64 = 20;

/// How often an idle thread looks for what has ended by itself.
const IDLE_INTERVAL: Duration = Duration::from_millis(250);

/// What a call does to the size of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// It may add to it: refused when the disk is full.
    Grows,
    /// It adds nothing that lasts.
    Stays,
}

/// How a group's transaction begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Write,
    Read,
}

/// The handle of a thread. The thread ends when it is dropped.
#[derive(Debug)]
pub(crate) struct WorkerThread {
    calls: Option<SyncSender<Box<dyn Call>>>,
    thread: Option<JoinHandle<()>>,
}

impl WorkerThread {
    /// Starts the thread. Only the one that writes has the upkeep of the file.
    pub(crate) fn start(
        name: &str,
        access: Access,
        session: Session,
        upkeep: Option<Upkeep>,
    ) -> std::io::Result<Self> {
        let (calls, inbox) = sync_channel(MAX_WAITING);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                Worker {
                    session,
                    access,
                    upkeep,
                    inbox,
                    group: Vec::with_capacity(MAX_GROUP),
                    sweep_failed: None,
                }
                .run()
            })?;
        Ok(Self {
            calls: Some(calls),
            thread: Some(thread),
        })
    }

    /// Has `work` run on the thread, possibly twice. Its answer comes once it is committed.
    pub(crate) fn send<T, W>(&self, size: Size, work: W) -> Result<oneshot::Receiver<Result<T>>>
    where
        T: Send + 'static,
        W: FnMut(&mut Session) -> Outcome<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let call = Box::new(Pending {
            work,
            size,
            outcome: None,
            reply,
        });
        let calls = self.calls.as_ref().ok_or_else(closed)?;
        match calls.try_send(call) {
            Ok(()) => Ok(answer),
            Err(TrySendError::Disconnected(_)) => Err(closed()),
            Err(TrySendError::Full(_)) => {
                let sentence = "too many calls wait for the embedded store";
                Err(Error::new(ErrorKind::Unavailable, sentence))
            }
        }
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        drop(self.calls.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a thread of the embedded store panicked");
        }
    }
}

trait Call: Send {
    fn size(&self) -> Size;
    fn run(&mut self, session: &mut Session) -> rusqlite::Result<()>;
    fn fail(&mut self, error: Error);
    fn answer(self: Box<Self>);
}

struct Pending<T, W> {
    work: W,
    size: Size,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, W> Call for Pending<T, W>
where
    T: Send,
    W: FnMut(&mut Session) -> Outcome<T> + Send,
{
    fn size(&self) -> Size {
        self.size
    }

    fn run(&mut self, session: &mut Session) -> rusqlite::Result<()> {
        // Nobody waits for the call of a client that has gone: what it pops would be lost.
        if !self.reply.is_closed() {
            self.outcome = Some((self.work)(session)?);
        }
        Ok(())
    }

    fn fail(&mut self, error: Error) {
        self.outcome = Some(Err(error));
    }

    fn answer(self: Box<Self>) {
        let outcome = self.outcome.unwrap_or_else(|| Err(closed()));
        // A caller that has gone away needs no answer.
        drop(self.reply.send(outcome));
    }
}

struct Worker {
    session: Session,
    access: Access,
    upkeep: Option<Upkeep>,
    inbox: Receiver<Box<dyn Call>>,
    group: Vec<Box<dyn Call>>,
    /// When a sweep last failed, until one succeeds.
    sweep_failed: Option<Instant>,
}

/// Why a transaction did not happen.
enum Failure {
    /// A call failed inside SQLite; its neighbours may be right.
    Call(rusqlite::Error),
    /// The transaction itself failed, or the disk did: so would any other now.
    Whole(rusqlite::Error),
    /// The code panicked.
    Panic,
}

impl Failure {
    fn of_call(error: rusqlite::Error) -> Self {
        let everybody = [
            ErrorCode::DatabaseBusy,
            ErrorCode::DatabaseLocked,
            ErrorCode::DiskFull,
            ErrorCode::SystemIoFailure,
            ErrorCode::CannotOpen,
            ErrorCode::OutOfMemory,
        ];
        match error.sqlite_error_code() {
            Some(code) if everybody.contains(&code) => Self::Whole(error),
            _ => Self::Call(error),
        }
    }

    fn is_full(&self) -> bool {
        match self {
            Self::Call(error) | Self::Whole(error) => crate::upkeep::is_full(error),
            Self::Panic => false,
        }
    }

    fn to_error(&self) -> Error {
        match self {
            Self::Call(error) | Self::Whole(error) => from_sqlite(error),
            Self::Panic => Error::new(ErrorKind::Internal, "the embedded store panicked"),
        }
    }
}

impl Worker {
    fn run(mut self) {
        loop {
            let sweep = self.may_sweep() && self.session.something_ended();
            let is_busy = sweep || self.upkeep.as_ref().is_some_and(Upkeep::has_work);
            let timeout = if is_busy {
                Duration::ZERO
            } else {
                IDLE_INTERVAL
            };
            match self.inbox.recv_timeout(timeout) {
                Ok(call) => self.group.push(call),
                Err(RecvTimeoutError::Timeout) if sweep => {}
                Err(RecvTimeoutError::Timeout) => {
                    self.tend(true);
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.group.extend(self.inbox.try_iter().take(MAX_GROUP - 1));
            let goes_on = self.work() && (!sweep || self.sweep());
            if !goes_on {
                return;
            }
            self.tend(false);
        }
    }

    fn tend(&mut self, is_idle: bool) {
        if let Some(upkeep) = &mut self.upkeep {
            upkeep.tend(self.session.connection(), is_idle);
            self.session.step = match upkeep.is_full() {
                true => SMALL_STEP,
                false => STEP,
            };
        }
    }

    /// Whether it is a time to sweep: not for a moment after a sweep that failed.
    fn may_sweep(&self) -> bool {
        let has_just_failed = self
            .sweep_failed
            .is_some_and(|at| at.elapsed() < IDLE_INTERVAL);
        self.access == Access::Write && !has_just_failed
    }

    /// Runs a group and answers it. Returns whether the thread can go on.
    fn work(&mut self) -> bool {
        let mut group = std::mem::take(&mut self.group);
        let mut goes_on = true;
        if self.upkeep.as_ref().is_some_and(Upkeep::is_full) {
            let grows = |call: &mut Box<dyn Call>| call.size() == Size::Grows;
            for mut call in group.extract_if(.., grows) {
                call.fail(full());
                call.answer();
            }
        }
        if !group.is_empty() {
            let together =
                self.transaction(|session| group.iter_mut().try_for_each(|call| call.run(session)));
            goes_on = together.is_ok() || self.session.can_roll_back();
            match together {
                Ok(()) => {}
                Err(Failure::Call(_)) if goes_on => self.run_one_by_one(&mut group),
                Err(failure) if failure.is_full() && self.upkeep.is_some() => {
                    self.fill();
                    self.run_one_by_one(&mut group);
                }
                Err(failure) => group
                    .iter_mut()
                    .for_each(|call| call.fail(failure.to_error())),
            }
        }
        group.drain(..).for_each(|call| call.answer());
        self.group = group;
        if !goes_on {
            tracing::error!("the store in memory is broken and ends");
        }
        goes_on
    }

    fn run_one_by_one(&mut self, group: &mut [Box<dyn Call>]) {
        for call in group {
            let is_full = self.upkeep.as_ref().is_some_and(Upkeep::is_full);
            if is_full && call.size() == Size::Grows {
                call.fail(full());
            } else if let Err(failure) = self.transaction(|session| call.run(session)) {
                call.fail(failure.to_error());
            }
        }
    }

    /// The disk is full.
    fn fill(&mut self) {
        if let Some(upkeep) = &mut self.upkeep {
            upkeep.fill(self.session.connection());
            self.session.step = SMALL_STEP;
        }
    }

    /// Sweeps for a moment. Returns whether the thread can go on.
    fn sweep(&mut self) -> bool {
        let Err(failure) = self.transaction(Session::sweep) else {
            if self.sweep_failed.take().is_some() {
                tracing::info!("the embedded store is swept again");
            }
            return true;
        };
        if failure.is_full() {
            self.fill();
        }
        if self.sweep_failed.replace(Instant::now()).is_none() {
            let error = failure.to_error();
            tracing::error!(%error, "cannot sweep the embedded store; this is tried again and not said again");
        }
        self.session.can_roll_back()
    }

    fn transaction(
        &mut self,
        work: impl FnOnce(&mut Session) -> rusqlite::Result<()>,
    ) -> Result<(), Failure> {
        let session = &mut self.session;
        session.begin().map_err(Failure::Whole)?;
        // A panic is one call's fault: the connection is rolled back, and what was remembered is forgotten.
        let done = catch_unwind(AssertUnwindSafe(|| {
            work(session).map_err(Failure::of_call)?;
            session.finish().map_err(Failure::Whole)
        }))
        .unwrap_or(Err(Failure::Panic));
        if done.is_err() && self.session.can_roll_back() {
            self.session.roll_back();
        }
        if let (Ok(()), Some(upkeep)) = (&done, &mut self.upkeep) {
            upkeep.committed(self.session.connection());
        }
        done
    }
}
