//! How a connection is made: to a server, to whom the sentinels name, to a cluster.

use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, RedisError, RedisResult, TlsMode, Value,
};

use crate::config::{Config, Host, Kind};

/// An open connection. A clone is the same one.
#[derive(Clone)]
pub(crate) enum Wire {
    One(MultiplexedConnection),
    Many(ClusterConnection),
}

impl Wire {
    pub(crate) async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        let answer = match self {
            Self::One(wire) => wire.req_packed_command(command).await,
            Self::Many(wire) => wire.req_packed_command(command).await,
        };
        plain(answer?)
    }

    /// Sends two commands, of which nobody else's comes between.
    pub(crate) async fn send_both(&mut self, both: &Pipeline) -> RedisResult<[Value; 2]> {
        let answers = match self {
            Self::One(wire) => wire.req_packed_commands(both, 0, 2).await?,
            Self::Many(wire) => wire.req_packed_commands(both, 0, 2).await?,
        };
        let [first, second] = <[Value; 2]>::try_from(answers)
            .map_err(|_| RedisError::from((ErrorKind::Parse, "two commands, not two answers")))?;
        Ok([plain(first)?, plain(second)?])
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
    pub(crate) fn patience(&self) -> Duration {
        self.config.timeout / 2
    }

    /// A connection for commands.
    pub(crate) async fn wire(&mut self) -> RedisResult<Wire> {
        if self.config.kind == Kind::Cluster {
            return self.cluster().await.map(Wire::Many);
        }
        let patience = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.patience()))
            .set_response_timeout(Some(self.config.timeout));
        self.client()
            .await?
            .get_multiplexed_async_connection_with_config(&patience)
            .await
            .map(Wire::One)
    }

    /// A connection that listens. In a cluster any node tells what is published.
    pub(crate) async fn pubsub(&mut self) -> RedisResult<PubSub> {
        self.client().await?.get_async_pubsub().await
    }

    /// The client follows slots that have moved, and repeats what failed on the way: the only retries there are.
    async fn cluster(&self) -> RedisResult<ClusterConnection> {
        ClusterClientBuilder::new(self.hosts()?)
            .connection_timeout(self.patience())
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
        Client::open(hosts.swap_remove(self.turn))
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
    builder.build()
}
