//! Flavors: named sets of pools, each of a project (spec: pools-flavors.md 3).

use std::pin::pin;

use futures_util::stream::{self, StreamExt};
use isimud_contract::{
    Error, ErrorKind, Flavor, FlavorName, MembershipChange, PoolName, ProjectId, Resource, Result,
    StoreId,
};

use super::Messaging;
use super::pools::agree;
use crate::catalogue::PoolRegistry;

/// Pools that are asked what they can do at the same time.
const MAX_CONCURRENT: usize = 20;

/// A flavor as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlavorView {
    /// Its name.
    pub name: FlavorName,
    /// Its pools, by name.
    pub pools: Vec<PoolName>,
    /// What its pools can do.
    pub capabilities: Vec<&'static str>,
}

impl Messaging {
    /// Lists a project's flavors by name. Their capabilities are looked up only if `detailed`.
    pub async fn list_flavors(
        &self,
        project: &ProjectId,
        after: Option<&str>,
        limit: Option<i64>,
        detailed: bool,
    ) -> Result<Vec<FlavorView>> {
        let limit = self.limits().flavor_page(limit)?;
        let found = self.management.list_flavors(project, after, limit).await?;
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let registry = self.catalogue.read_registry().await?;
        let views = stream::iter(found)
            .map(|flavor| self.view(flavor.name, &registry, detailed))
            .buffered(MAX_CONCURRENT);
        Ok(views.collect().await)
    }

    /// A flavor of a project; `None` when it has none of that name.
    pub async fn find_flavor(&self, project: &ProjectId, name: &str) -> Result<Option<FlavorView>> {
        let Some(flavor) = self.own_flavor(project, name).await? else {
            return Ok(None);
        };
        let registry = self.catalogue.read_registry().await?;
        Ok(Some(self.view(flavor.name, &registry, true).await))
    }

    async fn own_flavor(&self, project: &ProjectId, name: &str) -> Result<Option<Flavor>> {
        let Ok(name) = FlavorName::parse(name) else {
            return Ok(None);
        };
        let found = self.management.find_flavor(&name).await?;
        Ok(found.filter(|flavor| flavor.project == *project))
    }

    async fn view(&self, name: FlavorName, registry: &PoolRegistry, detailed: bool) -> FlavorView {
        let pools: Vec<PoolName> = registry
            .members(Some(&name))
            .map(|pool| pool.name.clone())
            .collect();
        let asked = if detailed { pools.clone() } else { Vec::new() };
        // They agree, so the first that answers speaks for all.
        let mut answers = pin!(
            stream::iter(asked)
                .map(|pool| async move { self.reach(&StoreId::Pool(pool)).await.ok() })
                .buffer_unordered(MAX_CONCURRENT)
                .filter_map(std::future::ready)
        );
        let capabilities = answers.next().await.map(|first| first.names());
        FlavorView {
            capabilities: capabilities.unwrap_or_default(),
            name,
            pools,
        }
    }

    /// Makes a flavor, or adds pools to the one of that name, from whatever flavor they had.
    ///
    /// `NotFound(Pool)` for the first pool that does not exist, `Unsupported` when the pools cannot do the same,
    /// `AlreadyExists(Flavor)` when another project has that name.
    pub async fn put_flavor(
        &self,
        project: &ProjectId,
        name: &str,
        pools: &[String],
    ) -> Result<()> {
        let name = FlavorName::parse(name).map_err(|_| {
            Error::invalid(
                "A flavor's name has 1 to 64 characters, none of them a control character.",
            )
        })?;
        self.save_flavor(project, name, pools, MembershipChange::Add)
            .await
    }

    /// Makes these pools, and no others, the members of a flavor. `None` when the project has none of that name; refuses
    /// what [`Messaging::put_flavor`] refuses.
    pub async fn patch_flavor(
        &self,
        project: &ProjectId,
        name: &str,
        pools: &[String],
    ) -> Result<Option<FlavorView>> {
        let Some(flavor) = self.own_flavor(project, name).await? else {
            return Ok(None);
        };
        self.save_flavor(project, flavor.name, pools, MembershipChange::Replace)
            .await?;
        self.find_flavor(project, name).await
    }

    async fn save_flavor(
        &self,
        project: &ProjectId,
        name: FlavorName,
        pools: &[String],
        members: MembershipChange,
    ) -> Result<()> {
        let registry = self.catalogue.read_registry().await?;
        let mut named = Vec::new();
        for pool in pools {
            let name = PoolName::parse(pool).ok();
            let name = name.filter(|name| registry.find(name).is_some());
            named.push(name.ok_or_else(|| no_such_pool(pool))?);
        }
        let mut all = named.clone();
        if members == MembershipChange::Add {
            all.extend(registry.members(Some(&name)).map(|pool| pool.name.clone()));
        }
        self.check_flavor(&all).await?;
        let flavor = Flavor {
            name,
            project: project.clone(),
        };
        let saved = self.management.save_flavor(&flavor, &named, members).await;
        saved.map_err(|error| match error.kind() {
            ErrorKind::NotFound(Resource::Pool) => {
                no_such_pool(error.about("pool").unwrap_or("of that name"))
            }
            ErrorKind::AlreadyExists(Resource::Flavor) => {
                let sentence = format!("Flavor {} belongs to another project.", flavor.name);
                Error::new(error.kind(), sentence)
            }
            _ => error,
        })?;
        self.pools_changed().await;
        Ok(())
    }

    /// Refuses pools of which one can do what another cannot. Those that do not answer now have no say.
    async fn check_flavor(&self, pools: &[PoolName]) -> Result<()> {
        let answers: Vec<_> = stream::iter(pools.to_vec())
            .map(|pool| async move {
                let answer = self.reach(&StoreId::Pool(pool.clone())).await;
                (pool, answer)
            })
            .buffered(MAX_CONCURRENT)
            .collect()
            .await;
        let mut answers = answers
            .into_iter()
            .filter_map(|(pool, answer)| Some((pool, answer.ok()?)));
        let Some((first, theirs)) = answers.next() else {
            return Ok(());
        };
        match answers.find(|(_, own)| !agree(own, &theirs)) {
            Some((other, _)) => {
                let sentence = format!("Pools {first} and {other} differ in capabilities");
                Err(Error::new(ErrorKind::Unsupported, sentence))
            }
            None => Ok(()),
        }
    }

    /// Deletes a flavor; its pools have none then, and queues stay where they are. One that does not exist is deleted
    /// already.
    pub async fn delete_flavor(&self, project: &ProjectId, name: &str) -> Result<()> {
        if let Ok(name) = FlavorName::parse(name) {
            self.management.delete_flavor(project, &name).await?;
            self.pools_changed().await;
        }
        Ok(())
    }
}

fn no_such_pool(name: &str) -> Error {
    let sentence = format!("Pool {name} does not exist");
    Error::new(ErrorKind::NotFound(Resource::Pool), sentence)
}
