//! The connection: one, shared by all callers, whose requests go out together without waiting for each other's answers.
//!
//! A connection that breaks is made again by the next caller, and the others wait for that one attempt. While attempts
//! fail, the pause between them grows to a second, and callers in between are told at once. The call that was under way
//! fails: nobody knows whether it took effect, and the client that repeats it is safe. Nothing here repeats a call, but
//! for a script that the server did not know; in a cluster the client itself does (see `connect`).

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use isimud_contract::{Error, ErrorKind, Result};
use redis::{Cmd, RedisResult, Value};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::call::Call;
use crate::config::{Config, Kind};
use crate::connect::{Connector, Wire};
use crate::deadline::{Deadline, ServerClock};
use crate::error::{breaks_the_connection, closed, from_redis, too_late};
use crate::health::Health;
use crate::keys::Names;
use crate::node::{self, Nodes};
use crate::rights;
use crate::waiting::{DurabilityWait, Round};

const FIRST_RETRY_DELAY: Duration = Duration::from_millis(50);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(1);

/// A connection that can be had again and again.
#[derive(Debug)]
pub(crate) struct ReconnectingConnection {
    wire: RwLock<Option<Live>>,
    /// Held by whoever connects.
    attempt: Mutex<Attempt>,
    closed: AtomicBool,
    durable: AtomicBool,
    cluster: bool,
    timeout: Duration,
    durability_wait: DurabilityWait,
    /// The server's clock; in a cluster that of the node which is furthest ahead.
    pub(crate) clock: ServerClock,
    names: Names,
    /// Whether it tells the operator of the server: one link of a store does.
    tells: bool,
}

/// An open connection. Its number tells it from earlier ones.
#[derive(Clone)]
struct Live {
    number: u64,
    wire: Wire,
    round: Arc<Round>,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Live({})", self.number)
    }
}

/// What a caller who connects must know.
struct Attempt {
    connector: Connector,
    connections: u64,
    failures: u32,
    not_before: Option<Instant>,
    /// Why the last attempt failed, if it did.
    why: Option<(ErrorKind, String)>,
    /// Who the servers were when they were asked last.
    nodes: Nodes,
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attempt({} failures)", self.failures)
    }
}

impl ReconnectingConnection {
    /// Connects nowhere yet; the first call does.
    pub(crate) fn new(config: Config) -> Self {
        Self {
            tells: true,
            wire: RwLock::new(None),
            closed: AtomicBool::new(false),
            durable: AtomicBool::new(false),
            cluster: config.kind == Kind::Cluster,
            timeout: config.timeout,
            durability_wait: DurabilityWait::of(&config),
            clock: ServerClock::unknown(),
            names: Names::new(&config.prefix),
            attempt: Mutex::new(Attempt {
                connector: Connector::new(config),
                connections: 0,
                failures: 0,
                not_before: None,
                why: None,
                nodes: Nodes::new(),
            }),
        }
    }

    /// One more connection to the same place.
    pub(crate) fn silent(config: Config) -> Self {
        Self {
            tells: false,
            ..Self::new(config)
        }
    }

    /// Whether the servers are a cluster, so that a script cannot reach two queues.
    pub(crate) fn is_cluster(&self) -> bool {
        self.cluster
    }

    /// Whether the server was seen to keep a log on its disk.
    pub(crate) fn is_durable(&self) -> bool {
        self.durable.load(Ordering::Relaxed)
    }

    /// Refuses all later calls. Those that are under way keep the connection until they are answered.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        *self.wire.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Waits for something no longer than the store may take.
    pub(crate) async fn in_time<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout(self.timeout, work)
            .await
            .unwrap_or_else(|_| Err(too_late()))
    }

    /// Until when a call that begins now may be carried out.
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::after(self.timeout)
    }

    /// Sends a command.
    pub(crate) async fn send(&self, command: &Cmd) -> Result<Value> {
        let mut live = self.live().await?;
        let answer = live.wire.send(command).await;
        self.judge(&live, answer)
    }

    /// Runs a script.
    pub(crate) async fn run(&self, call: Call) -> Result<Value> {
        let mut live = self.live().await?;
        self.run_on(&mut live, call).await
    }

    async fn run_on(&self, live: &mut Live, call: Call) -> Result<Value> {
        let mut answer = live.wire.send(&call.command).await;
        if answer.as_ref().is_err_and(Call::is_unknown) {
            answer = Box::pin(live.wire.send(&call.with_text())).await;
        }
        self.judge(live, answer)
    }

    /// Runs a script, and waits for what is to have its effects.
    pub(crate) async fn run_and_wait(&self, call: Call) -> Result<Value> {
        let mut live = self.live().await?;
        let answer = self.run_on(&mut live, call).await?;
        let mut wire = live.wire.clone();
        let wait = async {
            let answer = wire.send(&self.durability_wait.command()).await;
            self.durability_wait.judge(&self.judge(&live, answer)?)
        };
        live.round.join(wait).await?;
        Ok(answer)
    }

    fn judge<T>(&self, live: &Live, answer: RedisResult<T>) -> Result<T> {
        answer.map_err(|error| {
            if breaks_the_connection(&error) {
                self.forget(live);
            }
            from_redis(error)
        })
    }

    fn current(&self) -> Result<Option<Live>> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(closed());
        }
        let wire = self.wire.read().unwrap_or_else(PoisonError::into_inner);
        Ok(wire.clone())
    }

    fn forget(&self, broken: &Live) {
        let mut wire = self.wire.write().unwrap_or_else(PoisonError::into_inner);
        if wire
            .as_ref()
            .is_some_and(|live| live.number == broken.number)
        {
            *wire = None;
        }
    }

    async fn live(&self) -> Result<Live> {
        match self.current()? {
            Some(live) => Ok(live),
            // In a box, so that the calls of every day do not carry the room that connecting takes.
            None => Box::pin(self.connect()).await,
        }
    }

    async fn connect(&self) -> Result<Live> {
        let mut attempt = self.attempt.lock().await;
        if let Some(live) = self.current()? {
            return Ok(live);
        }
        let pausing = |until| Instant::now() < until;
        if attempt.not_before.is_some_and(pausing)
            && let Some((kind, sentence)) = attempt.why.clone()
        {
            return Err(Error::new(kind, sentence));
        }
        let connect_timeout = attempt.connector.connect_timeout();
        match tokio::time::timeout(connect_timeout, attempt.connector.wire()).await {
            Ok(Ok(wire)) => self.welcome(&mut attempt, wire).await,
            Ok(Err(error)) => Err(attempt.failed(from_redis(error))),
            Err(_) => Err(attempt.failed(too_late())),
        }
    }

    /// Looks what the server's clock shows, and who the servers of a cluster are now: their client connects to them again
    /// without a word; of a single server a new connection tells.
    pub(crate) async fn look(&self) -> Result<()> {
        let mut live = self.live().await?;
        if let Some(moment) = server_time(&mut live.wire).await {
            self.clock.set(moment);
        }
        if !self.cluster {
            return Ok(());
        }
        let health = Health::of(&mut live.wire).await;
        self.compare(&mut *self.attempt.lock().await, &health);
        Ok(())
    }

    fn compare(&self, attempt: &mut Attempt, health: &Health) {
        if self.tells {
            for (node, change) in node::changes(&attempt.nodes, &health.nodes) {
                health.tell_of(&node, change, &self.durability_wait);
            }
        }
        // A node that is away for now keeps its place, to be known again.
        attempt.nodes.extend(health.nodes.clone());
    }

    /// Looks at the server of a new connection, and shares the connection.
    async fn welcome(&self, attempt: &mut Attempt, wire: Wire) -> Result<Live> {
        let mut live = Live {
            number: attempt.connections + 1,
            wire,
            round: Arc::default(),
        };
        let health = Health::of(&mut live.wire).await;
        let mut fits = health.fits(&self.durability_wait);
        if fits.is_ok() {
            fits = rights::check(&mut live.wire, &self.names).await;
        }
        if let Err(error) = fits {
            return Err(attempt.refused(error));
        }
        if let Some(moment) = server_time(&mut live.wire).await {
            self.clock.set(moment);
        }
        attempt.connections += 1;
        attempt.failures = 0;
        attempt.not_before = None;
        attempt.why = None;
        if self.tells && attempt.connections == 1 {
            health.tell(&self.durability_wait);
        }
        self.compare(attempt, &health);
        self.durable.store(health.keeps_a_log(), Ordering::Relaxed);
        let mut shared = self.wire.write().unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::SeqCst) {
            return Err(closed());
        }
        *shared = Some(live.clone());
        Ok(live)
    }
}

/// What the server's clock shows, in milliseconds, if it says so.
async fn server_time(wire: &mut Wire) -> Option<i64> {
    let answer = wire.send(&redis::cmd("TIME")).await.ok()?;
    let (seconds, micros): (i64, i64) = redis::from_redis_value(answer).ok()?;
    Some(seconds * 1_000 + micros / 1_000)
}

impl Attempt {
    /// Puts the next attempt off, because the server will not do.
    fn refused(&mut self, error: Error) -> Error {
        if self.failures == 0 {
            tracing::error!(%error, "the Redis store cannot be used");
        }
        self.failed(error)
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
