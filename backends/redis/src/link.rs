//! The connection: one, shared by all callers, whose requests go out together without waiting for each other's answers.
//!
//! A connection that breaks is made again by the next caller, and the others wait for that one attempt. While attempts
//! fail, the pause between them grows to a second, and callers in between are told at once. The call that was under way
//! fails: nobody knows whether it took effect, and the client that repeats it is safe. Nothing here repeats a call, but
//! for a script that the server did not know.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use isimud_contract::{Error, ErrorKind, Result};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, RedisError, RedisResult, ServerErrorKind, TlsMode, Value,
};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::config::{Config, Kind};
use crate::error::{breaks_the_connection, closed, from_redis, too_late};
use crate::health::{self, Health};
use crate::scripts::Call;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A connection that can be had again and again.
#[derive(Debug)]
pub(crate) struct Link {
    config: Config,
    wire: RwLock<Option<Live>>,
    closed: AtomicBool,
    durable: AtomicBool,
    /// Held by whoever connects.
    attempt: Mutex<Attempt>,
}

/// An open connection. Its number tells it from earlier ones.
#[derive(Clone)]
struct Live {
    number: u64,
    wire: Wire,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Live({})", self.number)
    }
}

#[derive(Clone)]
enum Wire {
    One(MultiplexedConnection),
    Many(ClusterConnection),
}

impl Wire {
    async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        let answer = match self {
            Self::One(wire) => wire.req_packed_command(command).await,
            Self::Many(wire) => wire.req_packed_command(command).await,
        };
        match answer? {
            Value::ServerError(error) => Err(error.into()),
            answer => Ok(answer),
        }
    }
}

#[derive(Default)]
struct Attempt {
    sentinel: Option<SentinelClient>,
    connections: u64,
    failures: u32,
    not_before: Option<Instant>,
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Attempt({} failures)", self.failures)
    }
}

impl Link {
    /// Connects nowhere yet; the first call does.
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            wire: RwLock::new(None),
            closed: AtomicBool::new(false),
            durable: AtomicBool::new(false),
            attempt: Mutex::default(),
        }
    }

    /// Whether the servers are a cluster, so that a script cannot reach two queues.
    pub(crate) fn is_cluster(&self) -> bool {
        self.config.kind == Kind::Cluster
    }

    /// Whether the server was seen to keep a log on its disk.
    pub(crate) fn is_durable(&self) -> bool {
        self.durable.load(Ordering::Relaxed)
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        *self.wire.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Waits for something no longer than the store may take.
    pub(crate) async fn in_time<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout(self.config.timeout, work)
            .await
            .unwrap_or_else(|_| Err(too_late()))
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
        let wanted = self.config.wait_replicas;
        if wanted == 0 || self.is_cluster() {
            return self.run(call).await;
        }
        let mut live = self.live().await?;
        let Wire::One(wire) = &mut live.wire else {
            return self.run(call).await;
        };
        let mut both = Pipeline::new();
        both.add_command(call.command.clone());
        let patience = self.config.timeout.as_millis() as u64 / 2;
        both.cmd("WAIT").arg(wanted).arg(patience);
        let mut answers = wire.req_packed_commands(&both, 0, 2).await;
        if answers.as_ref().is_ok_and(|answers| {
            matches!(answers.first(), Some(Value::ServerError(error)) if error.kind() == Some(ServerErrorKind::NoScript))
        }) || answers.as_ref().is_err_and(is_unknown_script)
        {
            let mut again = Pipeline::new();
            again.add_command(with_text(&call));
            again.cmd("WAIT").arg(wanted).arg(patience);
            answers = wire.req_packed_commands(&again, 0, 2).await;
        }
        let answers = self.judge(&live, answers)?;
        match <[Value; 2]>::try_from(answers) {
            Ok([Value::ServerError(error), _]) => Err(from_redis(error.into())),
            Ok([answer, Value::Int(replicas)]) if replicas >= i64::from(wanted) => Ok(answer),
            _ => Err(Error::new(
                ErrorKind::Unavailable,
                "too few replicas have the message yet",
            )),
        }
    }

    /// Sends a command.
    pub(crate) async fn send(&self, command: &Cmd) -> Result<Value> {
        let mut live = self.live().await?;
        let answer = live.wire.send(command).await;
        self.judge(&live, answer)
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
        if attempt
            .not_before
            .is_some_and(|moment| Instant::now() < moment)
        {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "Redis cannot be reached",
            ));
        }
        let connecting = self.connect(&mut attempt);
        let connected = tokio::time::timeout(self.config.timeout / 2, connecting).await;
        match connected.unwrap_or_else(|_| Err(too_late())) {
            Ok(wire) => self.welcome(&mut attempt, wire).await,
            Err(error) => {
                let pause = FIRST_PAUSE * 2u32.saturating_pow(attempt.failures.min(8));
                attempt.failures += 1;
                attempt.not_before = Some(Instant::now() + pause.min(LONGEST_PAUSE));
                Err(error)
            }
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
        let health = match &mut live.wire {
            Wire::One(wire) => Health::of(wire).await,
            Wire::Many(wire) => Health::of(wire).await,
        };
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

    async fn connect(&self, attempt: &mut Attempt) -> Result<Wire> {
        let wire = match &self.config.kind {
            Kind::Single => self.connect_single().await.map(Wire::One),
            Kind::Cluster => self.connect_cluster().await.map(Wire::Many),
            Kind::Sentinel { .. } => self.connect_master(attempt).await.map(Wire::One),
        };
        wire.map_err(from_redis)
    }

    async fn connect_single(&self) -> RedisResult<MultiplexedConnection> {
        let info = self.infos()?.remove(0);
        Client::open(info)?
            .get_multiplexed_async_connection_with_config(&self.patience())
            .await
    }

    async fn connect_cluster(&self) -> RedisResult<ClusterConnection> {
        ClusterClientBuilder::new(self.infos()?)
            .connection_timeout(self.config.timeout / 2)
            .response_timeout(self.config.timeout)
            .retries(3)
            .min_retry_wait(20)
            .max_retry_wait(200)
            .build()?
            .get_async_connection()
            .await
    }

    /// Asks the sentinels who is the master now.
    async fn connect_master(&self, attempt: &mut Attempt) -> RedisResult<MultiplexedConnection> {
        let sentinel = match &mut attempt.sentinel {
            Some(sentinel) => sentinel,
            empty => empty.insert(self.sentinel()?),
        };
        sentinel
            .get_async_connection_with_config(&self.patience())
            .await
    }

    fn sentinel(&self) -> RedisResult<SentinelClient> {
        let Kind::Sentinel {
            master,
            user,
            password,
        } = &self.config.kind
        else {
            return Err(RedisError::from((
                redis::ErrorKind::InvalidClientConfig,
                "no master is named",
            )));
        };
        let config = &self.config;
        let addresses = config.hosts.iter().map(|host| host.address(config.tls));
        let kind = SentinelServerType::Master;
        let mut builder = SentinelClientBuilder::new(addresses, master, kind)?
            .set_client_to_redis_db(config.database);
        if let Some(user) = &config.user {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = &config.password {
            builder = builder.set_client_to_redis_password(&password.0);
        }
        if let Some(user) = user {
            builder = builder.set_client_to_sentinel_username(user);
        }
        if let Some(password) = password {
            builder = builder.set_client_to_sentinel_password(&password.0);
        }
        if config.tls {
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        }
        builder.build()
    }

    fn infos(&self) -> RedisResult<Vec<ConnectionInfo>> {
        let config = &self.config;
        let mut login = RedisConnectionInfo::default().set_db(config.database);
        if let Some(user) = &config.user {
            login = login.set_username(user);
        }
        if let Some(password) = &config.password {
            login = login.set_password(&password.0);
        }
        let info = |host: &crate::config::Host| {
            let info = host.address(config.tls).into_connection_info()?;
            Ok(info.set_redis_settings(login.clone()))
        };
        config.hosts.iter().map(info).collect()
    }

    fn patience(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.config.timeout / 2))
            .set_response_timeout(Some(self.config.timeout))
    }
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript)
}

/// The same call with the script's text in the place of its digest, which also makes the server remember it.
fn with_text(call: &Call) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(call.source.text);
    let arguments = call.command.args_iter().skip(2);
    for argument in arguments {
        if let redis::Arg::Simple(bytes) = argument {
            command.arg(bytes);
        }
    }
    command
}
