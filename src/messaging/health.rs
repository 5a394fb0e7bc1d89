//! Health: do the stores answer, and do they what they should?

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use isimud_contract::{Condition, Pool, Result, StoreId};

use super::Messaging;
use crate::catalogue::{Check, DEFAULT, Opened, PoolRegistry};

/// Stores that are looked at at the same time.
const MAX_CONCURRENT: usize = 16;

/// How long a store may take to show that it is there.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a look at every store found.
#[derive(Debug)]
pub struct Health {
    /// Whether the management store told of its pools.
    pub catalogue: bool,
    /// The store of the configuration.
    pub default: Check,
    /// The pools by name.
    pub pools: Vec<(String, Check)>,
}

/// How a store is.
#[derive(Debug, Clone)]
pub struct StoreHealth {
    /// The name of its pool.
    pub name: String,
    /// What it has noticed of itself; `None` when it does not answer.
    pub condition: Option<Condition>,
}

impl Messaging {
    /// Has every store do what clients ask of it, several at a time.
    pub async fn health(&self) -> Health {
        // The pools are asked for anew: whether the management store answers is a part of it. The default store may be the
        // same, and hang: both are asked at once, so that it is waited for once.
        let asked = tokio::time::timeout(PROBE_TIMEOUT, self.catalogue.read_registry());
        let default = self.catalogue.check(DEFAULT, &StoreId::Default);
        let (asked, default) = tokio::join!(asked, default);
        let names = asked
            .ok()
            .and_then(Result::ok)
            .map(|registry| store_ids(&registry));
        let catalogue = names.is_some();
        let pools = stream::iter(names.unwrap_or_default())
            .map(|(name, store_id)| async move {
                let check = self.catalogue.check(&name, &store_id).await;
                (name, check)
            })
            .buffered(MAX_CONCURRENT)
            .collect()
            .await;
        Health {
            catalogue,
            default,
            pools,
        }
    }

    /// How the stores are now: the default one first.
    pub async fn stores(&self) -> Vec<StoreHealth> {
        let registry = tokio::time::timeout(PROBE_TIMEOUT, self.catalogue.registry());
        let default = self.health_of(DEFAULT.to_owned(), StoreId::Default);
        let (registry, default) = tokio::join!(registry, default);
        let pools = registry.ok().and_then(Result::ok);
        let pools = pools
            .map(|registry| store_ids(&registry))
            .unwrap_or_default();
        let pools: Vec<StoreHealth> = stream::iter(pools)
            .map(|(name, store_id)| self.health_of(name, store_id))
            .buffered(MAX_CONCURRENT)
            .collect()
            .await;
        std::iter::once(default).chain(pools).collect()
    }

    async fn health_of(&self, name: String, store_id: StoreId) -> StoreHealth {
        let asked = tokio::time::timeout(PROBE_TIMEOUT, self.condition(&store_id)).await;
        let condition = asked.ok().and_then(Result::ok);
        StoreHealth { name, condition }
    }

    async fn condition(&self, store_id: &StoreId) -> Result<Condition> {
        let opened: Opened = self.catalogue.open(store_id).await?;
        opened.store.ping().await?;
        Ok(opened.store.condition())
    }
}

fn store_ids(registry: &PoolRegistry) -> Vec<(String, StoreId)> {
    let store_id = |pool: &Pool| (pool.name.to_string(), StoreId::Pool(pool.name.clone()));
    registry.pools().map(store_id).collect()
}
