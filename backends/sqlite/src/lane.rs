//! A thread with a connection that works through calls in groups: one transaction, one disk flush a group.
//!
//! While a group is being committed the next one gathers by itself, so that throughput grows with the number of
//! callers and a single caller waits for nobody. A call that fails inside SQLite must not take its neighbours along:
//! the group is rolled back and every call is run again in a transaction of its own. Calls are therefore closures
//! that can run twice. (Savepoints would do the same at the price of two statements a call, always.)
//!
//! A store in memory has no journal to roll back with: there a failure inside SQLite, which is a lack of memory, ends
//! the store.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use isimud_contract::{Error, Result};
use tokio::sync::oneshot;

use crate::error::{closed, from_sqlite};
use crate::session::Session;

/// What a call comes to: SQLite's own failure outside, which undoes the transaction; the call's answer inside. A call
/// that answers with an error has written nothing.
pub(crate) type Outcome<T> = rusqlite::Result<Result<T>>;

/// Calls that share a transaction, at the most.
const GROUP: usize = 256;

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
    calls: Option<Sender<Box<dyn Call>>>,
    thread: Option<JoinHandle<()>>,
}

impl Lane {
    pub(crate) fn start(name: &str, access: Access, session: Session) -> std::io::Result<Self> {
        let (calls, inbox) = channel();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
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
        let sent = self.calls.as_ref().and_then(|calls| calls.send(call).ok());
        sent.map(|()| answer).ok_or_else(closed)
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
        self.outcome = Some((self.work)(session)?);
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
            if !self.work(sweep) {
                return;
            }
        }
    }

    /// Runs a group and answers it. Returns whether the lane can go on.
    fn work(&mut self, sweep: bool) -> bool {
        let mut group = std::mem::take(&mut self.group);
        let together = self.transaction(|session| {
            group.iter_mut().try_for_each(|call| call.run(session))?;
            if sweep { session.sweep() } else { Ok(()) }
        });
        let mut goes_on = true;
        match together {
            Ok(()) => {}
            Err(error) if self.session.can_roll_back() => self.run_each(&mut group, &error),
            Err(error) => {
                tracing::error!(%error, "the store in memory is broken and ends");
                group.iter_mut().for_each(|call| call.fail(closed()));
                goes_on = false;
            }
        }
        group.drain(..).for_each(|call| call.answer());
        self.group = group;
        goes_on
    }

    /// Runs every call of a group that failed in a transaction of its own.
    fn run_each(&mut self, group: &mut [Box<dyn Call>], error: &rusqlite::Error) {
        if group.is_empty() {
            tracing::error!(%error, "cannot sweep the embedded store");
            std::thread::sleep(IDLE);
        }
        for call in group {
            if let Err(error) = self.transaction(|session| call.run(session)) {
                call.fail(from_sqlite(error));
            }
        }
    }

    fn transaction(
        &mut self,
        work: impl FnOnce(&mut Session) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        self.session.begin()?;
        let done = work(&mut self.session).and_then(|()| self.session.finish());
        if done.is_err() && self.session.can_roll_back() {
            self.session.roll_back();
        }
        done
    }
}
