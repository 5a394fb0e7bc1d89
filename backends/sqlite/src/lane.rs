//! A thread with a connection that works through calls in groups: one transaction, one disk flush a group.
//!
//! While a group is being committed the next one gathers by itself, so that throughput grows with the number of
//! callers and a single caller waits for nobody. A call that fails inside SQLite must not take its neighbours along:
//! the group is rolled back and every call is run again in a transaction of its own. Calls are therefore closures
//! that can run twice. (Savepoints would do the same at the price of two statements a call, always.)
//!
//! A store in memory has no journal to roll back with: there a failure inside SQLite, which is a lack of memory, ends
//! the store.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use isimud_contract::{Error, ErrorKind, Result};
use rusqlite::ErrorCode;
use tokio::sync::oneshot;

use crate::error::{closed, from_sqlite};
use crate::session::Session;

/// What a call comes to: SQLite's own failure outside, which undoes the transaction; the call's answer inside. A call
/// that answers with an error has written nothing.
pub(crate) type Outcome<T> = rusqlite::Result<Result<T>>;

/// Calls that share a transaction, at the most.
const GROUP: usize = 256;

/// Calls that may wait, at the most: more than there are connections, unless the disk stands still.
const WAITING: usize = 8192;

/// Room for metadata that are as deeply nested as the API allows: they are read by recursion.
const STACK: usize = 8 << 20;

/// How often an idle lane looks for what has ended by itself.
const IDLE: Duration = Duration::from_millis(250);

/// How a group's transaction begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Write,
    Read,
}

/// The handle of a lane. The thread ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Lane {
    calls: Option<SyncSender<Box<dyn Call>>>,
    thread: Option<JoinHandle<()>>,
}

impl Lane {
    pub(crate) fn start(name: &str, access: Access, session: Session) -> std::io::Result<Self> {
        let (calls, inbox) = sync_channel(WAITING);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(STACK)
            .spawn(move || {
                Worker {
                    session,
                    access,
                    inbox,
                    group: Vec::with_capacity(GROUP),
                }
                .run()
            })?;
        Ok(Self {
            calls: Some(calls),
            thread: Some(thread),
        })
    }

    /// Has `work` run on the lane's thread, possibly twice. Its answer comes once it is committed.
    pub(crate) fn send<T, W>(&self, work: W) -> Result<oneshot::Receiver<Result<T>>>
    where
        T: Send + 'static,
        W: FnMut(&mut Session) -> Outcome<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let call = Box::new(Pending {
            work,
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

impl Drop for Lane {
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
    fn run(&mut self, session: &mut Session) -> rusqlite::Result<()>;
    fn fail(&mut self, error: Error);
    fn answer(self: Box<Self>);
}

struct Pending<T, W> {
    work: W,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, W> Call for Pending<T, W>
where
    T: Send,
    W: FnMut(&mut Session) -> Outcome<T> + Send,
{
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
    inbox: Receiver<Box<dyn Call>>,
    group: Vec<Box<dyn Call>>,
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
            let sweep = self.access == Access::Write && self.session.something_ended();
            match self
                .inbox
                .recv_timeout(if sweep { Duration::ZERO } else { IDLE })
            {
                Ok(call) => self.group.push(call),
                Err(RecvTimeoutError::Timeout) if sweep => {}
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.group.extend(self.inbox.try_iter().take(GROUP - 1));
            let goes_on = self.work() && (!sweep || self.sweep());
            if !goes_on {
                return;
            }
        }
    }

    /// Runs a group and answers it. Returns whether the lane can go on.
    fn work(&mut self) -> bool {
        let mut group = std::mem::take(&mut self.group);
        let mut goes_on = true;
        if !group.is_empty() {
            let together =
                self.transaction(|session| group.iter_mut().try_for_each(|call| call.run(session)));
            goes_on = together.is_ok() || self.session.can_roll_back();
            match together {
                Ok(()) => {}
                Err(Failure::Call(_)) if goes_on => {
                    for call in &mut group {
                        if let Err(failure) = self.transaction(|session| call.run(session)) {
                            call.fail(failure.to_error());
                        }
                    }
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

    /// Sweeps for a moment. Returns whether the lane can go on.
    fn sweep(&mut self) -> bool {
        let Err(failure) = self.transaction(Session::sweep) else {
            return true;
        };
        let error = failure.to_error();
        tracing::error!(%error, "cannot sweep the embedded store");
        std::thread::sleep(IDLE);
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
        done
    }
}
