//! A connection that can be had again and again.
//!
//! One that breaks is made again by the next caller, and the others wait for that one attempt. While attempts fail, the
//! pause between them grows to a second, and callers in between are told at once. Nothing here repeats a call.
//!
//! A call that is not answered in time costs its channel. Whether the connection is still alive is for the next caller
//! to find out, who opens a new channel: a connection that does not do that in time is cut off. So a server that is only
//! slow keeps what it holds for us, and one that is gone is left after two calls.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use isimud_contract::{Error, ErrorKind, Result};
use lapin::{Channel, Connection};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::connect::{Connector, Plug};
use crate::error::{closed, from_lapin, too_late};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// One of the connections of a broker.
#[derive(Debug)]
pub(crate) struct Link {
    live: RwLock<Option<Arc<Live>>>,
    /// Held by whoever connects.
    attempt: Mutex<Attempt>,
    closed: AtomicBool,
    connector: Connector,
    timeout: Duration,
}

/// An open connection.
pub(crate) struct Live {
    /// Tells it from earlier ones.
    pub(crate) number: usize,
    connection: Connection,
    plug: Plug,
    /// A call was not answered in time, and nobody has found out yet what that means.
    suspect: AtomicBool,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Live({})", self.number)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.plug.pull();
    }
}

#[derive(Debug, Default)]
struct Attempt {
    connections: usize,
    failures: u32,
    not_before: Option<Instant>,
    /// Why the last attempt failed, if it did.
    why: Option<(ErrorKind, String)>,
}

impl Link {
    /// Connects nowhere yet; the first call does.
    pub(crate) fn new(connector: Connector, timeout: Duration) -> Self {
        Self {
            live: RwLock::new(None),
            attempt: Mutex::default(),
            closed: AtomicBool::new(false),
            connector,
            timeout,
        }
    }

    /// Waits for an answer no longer than a call may take.
    pub(crate) async fn in_time<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout(self.timeout, work)
            .await
            .unwrap_or_else(|_| Err(too_late()))
    }

    /// The connection, made now if there is none.
    pub(crate) async fn live(&self) -> Result<Arc<Live>> {
        if let Some(live) = self.current()? {
            return Ok(live);
        }
        let mut attempt = self.attempt.lock().await;
        if let Some(live) = self.current()? {
            return Ok(live);
        }
        if let Some(error) = attempt.pausing() {
            return Err(error);
        }
        match self.connector.connect(attempt.connections).await {
            Ok((connection, plug)) => self.welcome(&mut attempt, connection, plug),
            Err(error) => Err(attempt.failed(error)),
        }
    }

    fn welcome(
        &self,
        attempt: &mut Attempt,
        connection: Connection,
        plug: Plug,
    ) -> Result<Arc<Live>> {
        *attempt = Attempt {
            connections: attempt.connections + 1,
            ..Attempt::default()
        };
        let live = Arc::new(Live {
            number: attempt.connections,
            connection,
            plug,
            suspect: AtomicBool::new(false),
        });
        let mut shared = self.live.write().unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::SeqCst) {
            return Err(closed());
        }
        *shared = Some(Arc::clone(&live));
        Ok(live)
    }

    /// The connection, if it is open and nobody doubts it.
    fn current(&self) -> Result<Option<Arc<Live>>> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(closed());
        }
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        Ok(live
            .clone()
            .filter(|live| live.connection.status().connected()))
    }

    /// Opens a channel, and finds out on the way whether the connection is alive.
    pub(crate) async fn channel(&self) -> Result<(Arc<Live>, Channel)> {
        let live = self.live().await?;
        let patience = self.connector.patience();
        match tokio::time::timeout(patience, live.connection.create_channel()).await {
            Ok(Ok(channel)) => {
                live.suspect.store(false, Ordering::Relaxed);
                Ok((live, channel))
            }
            Ok(Err(error)) => Err(from_lapin(error)),
            Err(_) => {
                self.cut(&live);
                Err(too_late())
            }
        }
    }

    /// Ends a connection that does not answer.
    fn cut(&self, silent: &Arc<Live>) {
        silent.plug.pull();
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        if live.as_ref().is_some_and(|live| Arc::ptr_eq(live, silent)) {
            *live = None;
        }
    }

    /// Says goodbye and refuses all later calls.
    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let live = self
            .live
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(live) = live {
            let goodbye = live.connection.close(200, "closed".into());
            // A server that does not answer loses the connection all the same.
            tokio::time::timeout(self.connector.patience(), goodbye)
                .await
                .ok();
        }
    }
}

impl Live {
    /// Whether the server takes no messages on this connection now.
    pub(crate) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.connection.status().connected()
    }

    /// Marks the connection after a call that was not answered in time.
    pub(crate) fn doubt(&self) {
        self.suspect.store(true, Ordering::Relaxed);
    }

    /// Whether a new channel should be opened rather than an old one used, to find out what is the matter.
    pub(crate) fn is_doubted(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }
}

impl Attempt {
    fn pausing(&self) -> Option<Error> {
        let pausing = self.not_before.is_some_and(|until| Instant::now() < until);
        let (kind, sentence) = self.why.clone().filter(|_| pausing)?;
        Some(Error::new(kind, sentence))
    }

    /// Puts the next attempt off. Who asks meanwhile is told why.
    fn failed(&mut self, error: Error) -> Error {
        let pause = FIRST_PAUSE * 2u32.saturating_pow(self.failures.min(8));
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(Instant::now() + pause.min(LONGEST_PAUSE));
        self.why = Some((error.kind(), error.sentence().to_owned()));
        error
    }
}
