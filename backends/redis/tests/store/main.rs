//! What a store keeps and how it answers, looked at on the server itself.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step fails its trial, and says so at that line"
)]

mod answers;
mod placement_index;

use std::sync::Arc;

use isimud_contract::{ProjectId, QueueKey, QueueName};
use isimud_redis::{Config, RedisStore};
use isimud_testing::redis::Servers;
use isimud_testing::started;
use redis::aio::MultiplexedConnection;

/// A store whose user has the documented rights, and a connection beside it, to the first of its servers, that may do
/// anything.
struct Bench {
    store: Arc<RedisStore>,
    beside: MultiplexedConnection,
}

/// Runs a trial on servers, unless they are not there and need not be.
fn on<F: Future<Output = ()>>(servers: Result<Servers, String>, trial: impl FnOnce(Bench) -> F) {
    let Some(servers) = started("Redis", servers) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config = Config::parse(&servers.limited_uri("t:")).unwrap();
        let address = format!("redis://{}", servers.get(0).host());
        let client = redis::Client::open(address).unwrap();
        trial(Bench {
            store: RedisStore::open(config).unwrap(),
            beside: client.get_multiplexed_async_connection().await.unwrap(),
        })
        .await;
    });
}

fn queue(name: &str) -> QueueKey {
    let name = QueueName::parse(name).unwrap();
    QueueKey::new(ProjectId::parse("p").unwrap(), name)
}
