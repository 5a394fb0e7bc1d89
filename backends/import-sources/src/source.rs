//! A Redis that is only asked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use isimud_contract::{Error, ErrorKind, Result, Timestamp};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo,
    IntoConnectionInfo, Pipeline, RedisConnectionInfo, RedisError, RedisResult, ServerError,
    TlsCertificates, TlsMode, ToRedisArgs, Value,
};
use tokio::sync::Mutex;

use crate::address::{Address, Host, Kind, TlsConfig};
use crate::reply::{self, strange};

/// Attempts at the first question, when a wrong address shows. To ask again changes nothing.
const FIRST_ATTEMPTS: u32 = 5;

/// Attempts at every other one, half a minute in all: a server that was restarted reads its data first.
const ATTEMPTS: u32 = 9;

/// The pause after the first of them; it doubles, up to the longest.
const RETRY_DELAY: Duration = Duration::from_millis(200);

const MAX_RETRY_DELAY: Duration = Duration::from_secs(8);

/// Questions that a cluster is asked at once.
const CLUSTER_QUESTIONS: usize = 32;

/// What a server says that will answer another time.
const PASSING: [&str; 5] = ["LOADING", "BUSY", "TRYAGAIN", "MASTERDOWN", "CLUSTERDOWN"];

/// Everything that is ever sent to the server, beside the login: none of it writes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ask {
    Hget,
    Hgetall,
    Hmget,
    Hscan,
    Llen,
    Lrange,
    Scan,
    Smembers,
    Time,
    Type,
    XinfoGroups,
    Xlen,
    Xpending,
    Xrange,
    Zcard,
    Zrange,
    Zrangebyscore,
    Zscan,
}

impl Ask {
    /// The question about a key, to which further arguments are added.
    pub(crate) fn about(self, key: impl ToRedisArgs) -> Cmd {
        let mut command = self.alone();
        command.arg(key);
        command
    }

    fn alone(self) -> Cmd {
        match self {
            Self::Hget => redis::cmd("HGET"),
            Self::Hgetall => redis::cmd("HGETALL"),
            Self::Hmget => redis::cmd("HMGET"),
            Self::Hscan => redis::cmd("HSCAN"),
            Self::Llen => redis::cmd("LLEN"),
            Self::Lrange => redis::cmd("LRANGE"),
            Self::Scan => redis::cmd("SCAN"),
            Self::Smembers => redis::cmd("SMEMBERS"),
            Self::Time => redis::cmd("TIME"),
            Self::Type => redis::cmd("TYPE"),
            Self::XinfoGroups => {
                let mut command = redis::cmd("XINFO");
                command.arg("GROUPS");
                command
            }
            Self::Xlen => redis::cmd("XLEN"),
            Self::Xpending => redis::cmd("XPENDING"),
            Self::Xrange => redis::cmd("XRANGE"),
            Self::Zcard => redis::cmd("ZCARD"),
            Self::Zrange => redis::cmd("ZRANGE"),
            Self::Zrangebyscore => redis::cmd("ZRANGEBYSCORE"),
            Self::Zscan => redis::cmd("ZSCAN"),
        }
    }
}

/// A connection to a server, made again when it breaks. A clone shares it.
#[derive(Clone)]
pub(crate) struct Source {
    address: Arc<Address>,
    wire: Arc<Mutex<Option<Wire>>>,
}

#[derive(Clone)]
enum Wire {
    One(MultiplexedConnection),
    Many(ClusterConnection),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Source").field(&self.address).finish()
    }
}

impl Source {
    /// Connects. `Unavailable` when the server cannot be reached or refuses the login.
    pub(crate) async fn open(address: Address) -> Result<Self> {
        let source = Self {
            address: Arc::new(address),
            wire: Arc::default(),
        };
        source
            .ask_at_most(FIRST_ATTEMPTS, &[Ask::Time.alone()])
            .await?;
        Ok(source)
    }

    /// Where it is, without passwords.
    pub(crate) fn shown(&self) -> String {
        self.address.to_string()
    }

    /// The server's time, by which a source's moments are read.
    pub(crate) async fn now(&self) -> Result<Timestamp> {
        let answer = self.ask(Ask::Time.alone()).await?;
        let [seconds, micros] = reply::array(answer)?.try_into().map_err(|_| strange())?;
        let (seconds, micros) = (reply::number(&seconds)?, reply::number(&micros)?);
        Ok(Timestamp(seconds * 1000 + micros / 1000))
    }

    /// Asks one question.
    pub(crate) async fn ask(&self, question: Cmd) -> Result<Value> {
        let answer = self.ask_all(&[question]).await?.pop();
        match answer.ok_or_else(strange)? {
            Value::ServerError(error) => Err(failed(error.into())),
            answer => Ok(answer),
        }
    }

    /// The type of a key, as Redis names it; `none` for one that is not there.
    pub(crate) async fn type_of(&self, key: &[u8]) -> Result<String> {
        reply::text(self.ask(Ask::Type.about(key)).await?)
    }

    /// Adds to a refusal which key it was about, and of what type that is.
    pub(crate) async fn explained(&self, error: Error, key: &[u8]) -> Error {
        if error.kind() != ErrorKind::Invalid {
            return error;
        }
        let error = error.with("key", key.escape_ascii());
        match self.type_of(key).await {
            Ok(found) => error.with("type", found),
            Err(_) => error,
        }
    }

    /// Asks several questions in one round trip. What is refused stands as an error at its place: a key may be of
    /// another type than its name says.
    pub(crate) async fn ask_all(&self, questions: &[Cmd]) -> Result<Vec<Value>> {
        self.ask_at_most(ATTEMPTS, questions).await
    }

    async fn ask_at_most(&self, attempts: u32, questions: &[Cmd]) -> Result<Vec<Value>> {
        if questions.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::with_capacity(questions.len());
        for question in questions {
            pipeline.add_command(question.clone());
        }
        let mut pause = RETRY_DELAY;
        for attempt in 1.. {
            let error = match self.try_all(&pipeline).await {
                Ok(answers) if answers.len() != questions.len() => return Err(strange()),
                Ok(answers) => match answers.iter().find_map(passing) {
                    Some(error) => error,
                    None => return Ok(answers),
                },
                Err(error) if may_pass(&error) => error,
                Err(error) => return Err(failed(error)),
            };
            if attempt >= attempts {
                return Err(failed(error));
            }
            *self.wire.lock().await = None;
            tokio::time::sleep(pause).await;
            pause = MAX_RETRY_DELAY.min(2 * pause);
        }
        Err(strange())
    }

    async fn try_all(&self, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        let mut wire = {
            let mut shared = self.wire.lock().await;
            match &*shared {
                Some(wire) => wire.clone(),
                None => shared.insert(connect(&self.address).await?).clone(),
            }
        };
        let count = pipeline.len();
        match &mut wire {
            Wire::One(wire) => wire.req_packed_commands(pipeline, 0, count).await,
            Wire::Many(wire) => ask_cluster(wire, pipeline).await,
        }
    }
}

/// Asks several questions of a cluster: singly, because a pipeline goes to one node, and several at once.
async fn ask_cluster(wire: &ClusterConnection, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
    let questions: Vec<Cmd> = pipeline.cmd_iter().cloned().collect();
    stream::iter(questions)
        .map(|question| {
            let mut wire = wire.clone();
            async move {
                match wire.req_packed_command(&question).await {
                    // As in the answer to a pipeline: what is refused stands at its place.
                    Err(error) => ServerError::try_from(error).map(Value::ServerError),
                    answer => answer,
                }
            }
        })
        .buffered(CLUSTER_QUESTIONS)
        .try_collect()
        .await
}

fn may_pass(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || error.code().is_some_and(|code| PASSING.contains(&code))
}

/// The refusal of one question that another time will not meet.
fn passing(answer: &Value) -> Option<RedisError> {
    match answer {
        Value::ServerError(error) if PASSING.contains(&error.code()) => Some(error.clone().into()),
        _ => None,
    }
}

/// `Unavailable` for what may pass; `Invalid` for what the server refuses, and goes on refusing.
fn failed(error: RedisError) -> Error {
    let (kind, sentence) = if may_pass(&error) {
        let sentence = "the Redis that is to be imported cannot be reached";
        (ErrorKind::Unavailable, sentence)
    } else if error.code() == Some("WRONGTYPE") {
        let sentence = "a key is of another type than its name says";
        (ErrorKind::Invalid, sentence)
    } else {
        let sentence = "the Redis that is to be imported refuses to answer";
        (ErrorKind::Invalid, sentence)
    };
    Error::new(kind, sentence).caused_by(error)
}

async fn connect(address: &Address) -> RedisResult<Wire> {
    if address.kind == Kind::Cluster {
        let mut builder = ClusterClientBuilder::new(infos(address)?);
        if let Some(certificates) = certificates(&address.tls_config)? {
            builder = builder.certs(certificates);
        }
        let client = builder
            .connection_timeout(address.timeout)
            .response_timeout(address.timeout)
            .build()?;
        return client.get_async_connection().await.map(Wire::Many);
    }
    let settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(address.timeout))
        .set_response_timeout(Some(address.timeout));
    let client = match &address.kind {
        Kind::Sentinel(..) => by_sentinel(address).await?,
        Kind::Single | Kind::Cluster => {
            let info = infos(address)?.swap_remove(0);
            match certificates(&address.tls_config)? {
                Some(certificates) => Client::build_with_tls(info, certificates)?,
                None => Client::open(info)?,
            }
        }
    };
    let connection = client.get_multiplexed_async_connection_with_config(&settings);
    connection.await.map(Wire::One)
}

async fn by_sentinel(address: &Address) -> RedisResult<Client> {
    let Kind::Sentinel(master, credentials) = &address.kind else {
        return Err((redis::ErrorKind::InvalidClientConfig, "no master is named").into());
    };
    let hosts = address.hosts.iter().map(|host| place(host, address.tls));
    let mut builder =
        SentinelClientBuilder::new(hosts, master.as_str(), SentinelServerType::Master)?
            .set_client_to_redis_db(address.database);
    if let Some(user) = &address.credentials.user {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = &address.credentials.password {
        builder = builder.set_client_to_redis_password(password);
    }
    if let Some(user) = &credentials.user {
        builder = builder.set_client_to_sentinel_username(user);
    }
    if let Some(password) = &credentials.password {
        builder = builder.set_client_to_sentinel_password(password);
    }
    if address.tls {
        builder = builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_sentinel_tls_mode(TlsMode::Secure);
    }
    if let Some(certificates) = certificates(&address.tls_config)? {
        builder = builder
            .set_client_to_redis_certificates(certificates.clone())
            .set_client_to_sentinel_certificates(certificates);
    }
    builder.build()?.async_get_client().await
}

/// The files that were named; `None` where none was, and the system's authorities are trusted.
fn certificates(tls_config: &TlsConfig) -> RedisResult<Option<TlsCertificates>> {
    if *tls_config == TlsConfig::default() {
        return Ok(None);
    }
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|error| {
            let path = path.display().to_string();
            let why = "a certificate or key cannot be read";
            RedisError::from((
                redis::ErrorKind::InvalidClientConfig,
                why,
                format!("{path}: {error}"),
            ))
        })
    };
    let client_tls = match (&tls_config.certificate, &tls_config.key) {
        (Some(certificate), Some(key)) => Some(ClientTlsConfig {
            client_cert: read(certificate)?,
            client_key: read(key)?,
        }),
        _ => None,
    };
    Ok(Some(TlsCertificates {
        client_tls,
        root_cert: tls_config.ca.as_ref().map(read).transpose()?,
    }))
}

fn infos(address: &Address) -> RedisResult<Vec<ConnectionInfo>> {
    let mut settings = RedisConnectionInfo::default().set_db(address.database);
    if let Some(user) = &address.credentials.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = &address.credentials.password {
        settings = settings.set_password(password);
    }
    let info = |host: &Host| {
        let info = place(host, address.tls).into_connection_info()?;
        Ok(info.set_redis_settings(settings.clone()))
    };
    address.hosts.iter().map(info).collect()
}

fn place(host: &Host, tls: bool) -> ConnectionAddr {
    match host.clone() {
        Host::Unix(path) => ConnectionAddr::Unix(path),
        Host::Tcp(host, port) if tls => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: false,
            tls_params: None,
        },
        Host::Tcp(host, port) => ConnectionAddr::Tcp(host, port),
    }
}
