//! The connection: one, shared by all callers, whose requests go out together without waiting for each other's answers.
//!
//! A connection that breaks is made again by the next caller, and the others wait for that one attempt. While attempts
//! fail, the pause between them grows to a second, and callers in between are told at once. The call that was under way
//! fails: nobody knows whether it took effect, and the client that repeats it is safe. Nothing here repeats a call, but
//! for a script that the server did not know; in a cluster the client itself does (see `connect`).

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use isimud_contract::{Error, ErrorKind, Result};
use redis::{Cmd, Pipeline, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::call::Call;
use crate::config::{Config, Kind};
use crate::connect::{Connector, Wire};
use crate::error::{breaks_the_connection, closed, from_redis, too_late};
use crate::health::{self, Health};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A connection that can be had again and again.
#[derive(Debug)]
pub(crate) struct Link {
    wire: RwLock<Option<Live>>,
    /// Held by whoever connects.
    attempt: Mutex<Attempt>,
    closed: AtomicBool,
    durable: AtomicBool,
    cluster: bool,
    timeout: Duration,
    wait_replicas: u32,
}

/// An open connection. Its number tells it from earlier ones.
#[derive(Clone)]
struct Live {
    number: u64,
    wire: Wire,
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
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attempt({} failures)", self.failures)
    }
}

impl Link {
    /// Connects nowhere yet; the first call does.
    pub(crate) fn new(config: Config) -> Self {
        Self {
            wire: RwLock::new(None),
            closed: AtomicBool::new(false),
            durable: AtomicBool::new(false),
            cluster: config.kind == Kind::Cluster,
            timeout: config.timeout,
            wait_replicas: config.wait_replicas,
            attempt: Mutex::new(Attempt {
                connector: Connector::new(config),
                connections: 0,
                failures: 0,
                not_before: None,
            }),
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

    /// Sends a command.
    pub(crate) async fn send(&self, command: &Cmd) -> Result<Value> {
        let mut live = self.live().await?;
        let answer = live.wire.send(command).await;
        self.judge(&live, answer)
    }

    /// Runs a script.
    pub(crate) async fn run(&self, call: Call) -> Result<Value> {
        let mut live = self.live().await?;
        let mut answer = live.wire.send(&call.command).await;
        if answer.as_ref().is_err_and(is_unknown_script) {
            answer = live.wire.send(&with_text(&call)).await;
        }
        self.judge(&live, answer)
    }

    /// Runs a script, and waits for the replicas that are to have its effects.
    pub(crate) async fn run_and_wait(&self, call: Call) -> Result<Value> {
        if self.wait_replicas == 0 {
            return self.run(call).await;
        }
        let patience = self.timeout.as_millis() / 2;
        let and_wait = |command: Cmd| {
            let mut both = Pipeline::new();
            both.add_command(command);
            both.cmd("WAIT")
                .arg(self.wait_replicas)
                .arg(patience as u64);
            both
        };
        let mut live = self.live().await?;
        let mut answers = live.wire.send_both(&and_wait(call.command.clone())).await;
        if answers.as_ref().is_err_and(is_unknown_script) {
            answers = live.wire.send_both(&and_wait(with_text(&call))).await;
        }
        match self.judge(&live, answers)? {
            [answer, Value::Int(have)] if have >= i64::from(self.wait_replicas) => Ok(answer),
            _ => Err(Error::new(
                ErrorKind::Unavailable,
                "too few replicas have the message yet",
            )),
        }
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
        if let Some(live) = self.current()? {
            return Ok(live);
        }
        let mut attempt = self.attempt.lock().await;
        if let Some(live) = self.current()? {
            return Ok(live);
        }
        let pausing = |until| Instant::now() < until;
        if attempt.not_before.is_some_and(pausing) {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "Redis cannot be reached",
            ));
        }
        let patience = attempt.connector.patience();
        match tokio::time::timeout(patience, attempt.connector.wire()).await {
            Ok(Ok(wire)) => self.welcome(&mut attempt, wire).await,
            Ok(Err(error)) => Err(attempt.failed(from_redis(error))),
            Err(_) => Err(attempt.failed(too_late())),
        }
    }

    /// Looks at the server of a new connection, and shares the connection.
    async fn welcome(&self, attempt: &mut Attempt, wire: Wire) -> Result<Live> {
        attempt.connections += 1;
        attempt.failures = 0;
        attempt.not_before = None;
        let mut live = Live {
            number: attempt.connections,
            wire,
        };
        let health = Health::of(&mut live.wire).await;
        if attempt.connections == 1 {
            health::warn(&health);
        }
        self.durable.store(health.keeps_a_log(), Ordering::Relaxed);
        let mut shared = self.wire.write().unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::SeqCst) {
            return Err(closed());
        }
        *shared = Some(live.clone());
        Ok(live)
    }
}

impl Attempt {
    /// Puts the next attempt off.
    fn failed(&mut self, error: Error) -> Error {
        let pause = FIRST_PAUSE * 2u32.saturating_pow(self.failures.min(8));
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(Instant::now() + pause.min(LONGEST_PAUSE));
        error
    }
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript)
}

/// The same call with the script's text in the place of its digest, which also makes the server remember it.
fn with_text(call: &Call) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(call.source.text);
    for argument in call.command.args_iter().skip(2) {
        if let redis::Arg::Simple(bytes) = argument {
            command.arg(bytes);
        }
    }
    command
}
