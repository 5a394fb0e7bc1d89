//! How a connection is made: to a server, to whom the sentinels name, to a cluster.

use std::path::Path;
use std::time::Duration;

use isimud_contract::{Error, Result};
use redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionInfo, ErrorKind,
    IntoConnectionInfo, RedisConnectionInfo, RedisError, RedisResult, TlsCertificates, TlsMode,
    Value,
};

use crate::config::{Config, Host, Kind, TlsConfig};

/// An open connection. A clone is the same one.
#[derive(Clone)]
pub(crate) enum Wire {
    One(MultiplexedConnection),
    Many(ClusterConnection),
}

impl Wire {
    pub(crate) async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        let answer = match self {
            Self::One(wire) => wire.send_packed_command(command).await,
            Self::Many(wire) => wire.req_packed_command(command).await,
        };
        plain(answer?)
    }
}

fn plain(answer: Value) -> RedisResult<Value> {
    match answer {
        Value::ServerError(error) => Err(error.into()),
        answer => Ok(answer),
    }
}

/// Makes connections, and remembers who makes them.
pub(crate) struct Connector {
    config: Config,
    sentinel: Option<SentinelClient>,
    /// Which host comes next, where any will do.
    turn: usize,
}

impl Connector {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            sentinel: None,
            turn: 0,
        }
    }

    /// How long making a connection may take: there must be time left for the call that needs it.
    pub(crate) fn connect_timeout(&self) -> Duration {
        self.config.timeout / 2
    }

    /// A connection for commands.
    pub(crate) async fn wire(&mut self) -> RedisResult<Wire> {
        if self.config.kind == Kind::Cluster {
            return self.cluster().await.map(Wire::Many);
        }
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout()))
            .set_response_timeout(Some(self.config.timeout));
        self.client()
            .await?
            .get_multiplexed_async_connection_with_config(&settings)
            .await
            .map(Wire::One)
    }

    /// A connection that listens. In a cluster any node tells what is published.
    pub(crate) async fn pubsub(&mut self) -> RedisResult<PubSub> {
        self.client().await?.get_async_pubsub().await
    }

    /// The client follows slots that have moved, and repeats what failed on the way: the only retries there are.
    async fn cluster(&self) -> RedisResult<ClusterConnection> {
        let mut builder = ClusterClientBuilder::new(self.hosts()?);
        if let Some(certificates) = certificates(&self.config.tls_config)? {
            builder = builder.certs(certificates);
        }
        builder
            .connection_timeout(self.connect_timeout())
            .response_timeout(self.config.timeout)
            .retries(3)
            .min_retry_wait(20)
            .max_retry_wait(200)
            .build()?
            .get_async_connection()
            .await
    }

    /// The server, the master that the sentinels name now, or the next node.
    async fn client(&mut self) -> RedisResult<Client> {
        if matches!(self.config.kind, Kind::Sentinel { .. }) {
            let sentinel = match &mut self.sentinel {
                Some(sentinel) => sentinel,
                empty => empty.insert(sentinel(&self.config)?),
            };
            return sentinel.async_get_client().await;
        }
        let mut hosts = self.hosts()?;
        self.turn = (self.turn + 1) % hosts.len();
        let host = hosts.swap_remove(self.turn);
        match certificates(&self.config.tls_config)? {
            Some(certificates) => Client::build_with_tls(host, certificates),
            None => Client::open(host),
        }
    }

    fn hosts(&self) -> RedisResult<Vec<ConnectionInfo>> {
        let config = &self.config;
        let mut login = RedisConnectionInfo::default().set_db(config.database);
        if let Some(user) = &config.user {
            login = login.set_username(user);
        }
        if let Some(password) = &config.password {
            login = login.set_password(&password.0);
        }
        let info = |host: &Host| {
            let info = host.address(config.tls).into_connection_info()?;
            Ok(info.set_redis_settings(login.clone()))
        };
        config.hosts.iter().map(info).collect()
    }
}

/// Refuses TLS files that cannot be used, before anybody asks for them.
pub(crate) fn check(tls_config: &TlsConfig) -> Result<()> {
    let refused = |error| {
        Error::invalid("a certificate or key of the Redis store cannot be used").caused_by(error)
    };
    if let Some(certificates) = certificates(tls_config).map_err(refused)? {
        Client::build_with_tls("rediss://localhost", certificates).map_err(refused)?;
    }
    Ok(())
}

fn certificates(tls_config: &TlsConfig) -> RedisResult<Option<TlsCertificates>> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| {
            let what = format!("{}: {error}", path.display());
            RedisError::from((ErrorKind::InvalidClientConfig, "no such file", what))
        })
    };
    if *tls_config == TlsConfig::default() {
        return Ok(None);
    }
    let own = tls_config.client_cert.as_ref();
    let client_tls = own.map(|(certificate, key)| {
        RedisResult::Ok(ClientTlsConfig {
            client_cert: read(certificate)?,
            client_key: read(key)?,
        })
    });
    Ok(Some(TlsCertificates {
        client_tls: client_tls.transpose()?,
        root_cert: tls_config.ca.as_deref().map(read).transpose()?,
    }))
}

fn sentinel(config: &Config) -> RedisResult<SentinelClient> {
    let Kind::Sentinel {
        master,
        user,
        password,
    } = &config.kind
    else {
        return Err((ErrorKind::InvalidClientConfig, "no master is named").into());
    };
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
        builder = builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_sentinel_tls_mode(TlsMode::Secure);
    }
    if let Some(certificates) = certificates(&config.tls_config)? {
        builder = builder
            .set_client_to_redis_certificates(certificates.clone())
            .set_client_to_sentinel_certificates(certificates);
    }
    builder.build()
}
