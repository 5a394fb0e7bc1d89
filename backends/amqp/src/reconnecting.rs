//! A connection that can be had again and again.
//!
//! One that breaks is made again by the next caller, and the others wait for that one attempt. While attempts fail, the
//! pause between them grows to a second, and callers in between are told at once. Nothing here repeats a call.
//!
//! A call that is not answered in time costs its channel. Whether the connection is still alive is for the next caller
//! to find out, who opens a new channel: a connection that does not do that in time is cut off. So a server that is only
//! slow keeps what it holds for us, and one that is gone is left after two calls.
//!
//! # Channel numbers
//!
//! A connection has room for `channel_max` channels, 2,047 unless the node says otherwise. The client never gives the
//! number of a channel that the *server* closed free whole: it keeps the error, and answers it to whoever opens the next
//! channel of that number. So a connection wears out with the refusals that it has met. One on which many numbers are
//! used up, or on which no channel can be opened, is replaced: a new one is made for what comes, and the old one is left
//! to the channels that it has, and closed behind the last of them. As an error of an earlier channel can only come as the
//! answer to the opening of a later one, nobody is ever told it.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use isimud_contract::{Error, ErrorKind, Result};
use lapin::{Channel, Connection};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::connect::{Connector, SocketHandle};
use crate::deadline;
use crate::error::{closed, from_lapin, no_channel, too_late};

const FIRST_RETRY_DELAY: Duration = Duration::from_millis(50);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(1);

/// What `channel_max` is before RabbitMQ has said it. This is its default.
const DEFAULT_CHANNELS: u16 = 2047;

/// How many connections that were replaced may still have channels. The oldest is closed when there is one more: what is
/// held on it is delivered again, and the ledger holds it back.
const MAX_REPLACED: usize = 8;

/// How long a connection may take to say goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// One of the connections of a broker.
#[derive(Debug)]
pub(crate) struct ReconnectingConnection {
    live: RwLock<Option<Arc<Live>>>,
    /// Held by whoever connects.
    attempt: tokio::sync::Mutex<Attempt>,
    /// Connections that were replaced, as long as they have channels; the oldest first.
    replaced: Mutex<VecDeque<Weak<Live>>>,
    /// How many channels a connection may have, by what RabbitMQ said last.
    channel_max: AtomicU16,
    /// How many connections have ended without having been replaced.
    losses: AtomicUsize,
    closed: AtomicBool,
    connector: Connector,
    timeout: Duration,
}

/// An open connection.
pub(crate) struct Live {
    /// Tells it from earlier ones.
    pub(crate) number: usize,
    connection: Connection,
    handle: SocketHandle,
    /// A call was not answered in time, and nobody has found out yet what that means.
    suspect: AtomicBool,
    /// How many channels the server has closed: each has used up its number.
    used_up: AtomicUsize,
    /// No channel is to be opened on it any more.
    is_replaced: AtomicBool,
    /// How many questions were answered on it.
    answers: AtomicU64,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Live({})", self.number)
    }
}

impl Drop for Live {
    /// The client says goodbye to the server when nobody has the connection any more, nor a channel of it. One that has not
    /// done so after a while is cut off.
    fn drop(&mut self) {
        let handle = self.handle.clone();
        match Handle::try_current() {
            Ok(runtime) if self.is_open() && !self.is_suspect() => {
                runtime.spawn(async move {
                    tokio::time::sleep(CLOSE_TIMEOUT).await;
                    handle.abort();
                });
            }
            _ => handle.abort(),
        }
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

impl ReconnectingConnection {
    /// Connects nowhere yet; the first call does.
    pub(crate) fn new(connector: Connector, timeout: Duration) -> Self {
        Self {
            live: RwLock::new(None),
            attempt: tokio::sync::Mutex::default(),
            replaced: Mutex::default(),
            channel_max: AtomicU16::new(DEFAULT_CHANNELS),
            losses: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            connector,
            timeout,
        }
    }

    /// How long a call waits at least before it has waited in vain.
    pub(crate) fn attempt_timeout(&self) -> Duration {
        self.timeout / 2
    }

    /// How many channels a connection may have.
    pub(crate) fn channel_max(&self) -> usize {
        self.channel_max.load(Ordering::Relaxed).into()
    }

    /// How many connections have been lost: RabbitMQ was restarted, say, and what was known of its queues may be over.
    pub(crate) fn losses(&self) -> usize {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let is_lost = live.as_ref().is_some_and(|live| !live.is_open());
        self.losses.load(Ordering::Relaxed) + usize::from(is_lost)
    }

    /// Waits for an answer no longer than a call may take, or what is left of the call that is being served.
    pub(crate) async fn in_time<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout(deadline::left(self.timeout), work)
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
            Ok((connection, handle)) => self.welcome(&mut attempt, connection, handle),
            Err(error) => Err(attempt.failed(error)),
        }
    }

    fn welcome(
        &self,
        attempt: &mut Attempt,
        connection: Connection,
        handle: SocketHandle,
    ) -> Result<Arc<Live>> {
        *attempt = Attempt {
            connections: attempt.connections + 1,
            ..Attempt::default()
        };
        let channel_max = connection.configuration().channel_max();
        self.channel_max.store(channel_max, Ordering::Relaxed);
        let live = Arc::new(Live {
            number: attempt.connections,
            connection,
            handle,
            suspect: AtomicBool::new(false),
            used_up: AtomicUsize::new(0),
            is_replaced: AtomicBool::new(false),
            answers: AtomicU64::new(0),
        });
        let mut shared = self.live.write().unwrap_or_else(PoisonError::into_inner);
        if shared.is_some() {
            self.losses.fetch_add(1, Ordering::Relaxed);
        }
        if self.closed.load(Ordering::SeqCst) {
            return Err(closed());
        }
        *shared = Some(Arc::clone(&live));
        Ok(live)
    }

    /// The connection, if it is open and not to be replaced.
    fn current(&self) -> Result<Option<Arc<Live>>> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(closed());
        }
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        Ok(live
            .clone()
            .filter(|live| live.is_open() && !live.is_replaced()))
    }

    /// Opens a channel, and finds out on the way whether the connection is alive. One that lives and opens no channel, or
    /// that has used up many numbers, is replaced.
    pub(crate) async fn channel(&self) -> Result<(Arc<Live>, Channel)> {
        let mut live = self.live().await?;
        if live.used_up.load(Ordering::Relaxed) > self.channel_max() / 2 {
            self.replace(&live);
            live = self.live().await?;
        }
        if let Some(channel) = self.open_on(&live).await? {
            return Ok((live, channel));
        }
        self.replace(&live);
        let live = self.live().await?;
        let channel = self.open_on(&live).await?;
        channel.map(|it| (live, it)).ok_or_else(no_channel)
    }

    /// Opens a channel on a connection. `None` where the connection lives and has no number for one: then the answer is
    /// that no number is left, or what an earlier channel of the number was told.
    async fn open_on(&self, live: &Arc<Live>) -> Result<Option<Channel>> {
        let attempt_timeout = self.connector.attempt_timeout();
        match tokio::time::timeout(attempt_timeout, live.connection.create_channel()).await {
            Ok(Ok(channel)) => {
                live.suspect.store(false, Ordering::Relaxed);
                Ok(Some(channel))
            }
            Ok(Err(_)) if live.is_open() => Ok(None),
            Ok(Err(error)) => Err(from_lapin(error)),
            Err(_) => {
                self.cut(live);
                Err(too_late())
            }
        }
    }

    /// Has the next caller make another connection. This one stays for as long as it has channels.
    pub(crate) fn replace(&self, old: &Arc<Live>) {
        if old.is_replaced.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        if live.as_ref().is_some_and(|live| Arc::ptr_eq(live, old)) {
            *live = None;
        }
        drop(live);
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        replaced.retain(|it| it.upgrade().is_some_and(|live| live.is_open()));
        replaced.push_back(Arc::downgrade(old));
        if replaced.len() > MAX_REPLACED
            && let Some(oldest) = replaced.pop_front().and_then(|it| it.upgrade())
        {
            oldest.handle.abort();
        }
    }

    /// Ends a connection that does not answer.
    fn cut(&self, silent: &Arc<Live>) {
        silent.handle.abort();
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        if live.as_ref().is_some_and(|live| Arc::ptr_eq(live, silent)) {
            *live = None;
            self.losses.fetch_add(1, Ordering::Relaxed);
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
            tokio::time::timeout(self.connector.attempt_timeout(), goodbye)
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

    /// Whether it is left to the channels that it has.
    pub(crate) fn is_replaced(&self) -> bool {
        self.is_replaced.load(Ordering::Relaxed)
    }

    /// Notes what has become of a channel that was given up: one that the server closed has used up its number.
    pub(crate) fn given_up(&self, channel: &Channel) {
        if self.is_open() && !channel.status().connected() {
            self.used_up.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts an answer.
    pub(crate) fn answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Marks the connection after a call that was not answered in time.
    pub(crate) fn mark_suspect(&self) {
        self.suspect.store(true, Ordering::Relaxed);
    }

    /// Whether a new channel should be opened rather than an old one used, to find out what is the matter.
    pub(crate) fn is_suspect(&self) -> bool {
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
        let pause = FIRST_RETRY_DELAY * 2u32.saturating_pow(self.failures.min(8));
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(Instant::now() + pause.min(MAX_RETRY_DELAY));
        self.why = Some((error.kind(), error.sentence().to_owned()));
        error
    }
}
