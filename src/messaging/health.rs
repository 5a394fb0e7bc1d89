//! Health: do the stores answer, and do they what they should?

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use isimud_contract::{Condition, Home, Pool, Result};

use super::Messaging;
use crate::catalogue::{Check, DEFAULT, Opened, Roster};

/// Stores that are looked at at the same time.
const AT_ONCE: usize = 16;

/// How long a store may take to show that it is there.
const PATIENCE: Duration = Duration::from_secs(2);

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
        let asked = tokio::time::timeout(PATIENCE, self.catalogue.read_roster());
        let default = self.catalogue.check(DEFAULT, &Home::Default);
        let (asked, default) = tokio::join!(asked, default);
        let names = asked.ok().and_then(Result::ok).map(|roster| homes(&roster));
        let catalogue = names.is_some();
        let pools = stream::iter(names.unwrap_or_default())
            .map(|(name, home)| async move {
                let check = self.catalogue.check(&name, &home).await;
                (name, check)
            })
            .buffered(AT_ONCE)
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
        let roster = tokio::time::timeout(PATIENCE, self.catalogue.roster());
        let default = self.health_of(DEFAULT.to_owned(), Home::Default);
        let (roster, default) = tokio::join!(roster, default);
        let pools = roster.ok().and_then(Result::ok);
        let pools = pools.map(|roster| homes(&roster)).unwrap_or_default();
        let pools: Vec<StoreHealth> = stream::iter(pools)
            .map(|(name, home)| self.health_of(name, home))
            .buffered(AT_ONCE)
            .collect()
            .await;
        std::iter::once(default).chain(pools).collect()
    }

    async fn health_of(&self, name: String, home: Home) -> StoreHealth {
        let asked = tokio::time::timeout(PATIENCE, self.condition(&home)).await;
        let condition = asked.ok().and_then(Result::ok);
        StoreHealth { name, condition }
    }

    async fn condition(&self, home: &Home) -> Result<Condition> {
        let opened: Opened = self.catalogue.open(home).await?;
        opened.store.ping().await?;
        Ok(opened.store.condition())
    }
}

fn homes(roster: &Roster) -> Vec<(String, Home)> {
    let home = |pool: &Pool| (pool.name.to_string(), Home::Pool(pool.name.clone()));
    roster.pools().map(home).collect()
}
