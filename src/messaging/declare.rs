//! Registering what a file declares: as operators would, but nothing need answer yet.

use std::collections::BTreeMap;

use isimud_contract::{
    Error, ErrorKind, Flavor, FlavorName, MembershipChange, PoolName, ProjectId, Resource, Result,
};

use super::pools::{busy, drafted};
use super::{ATTEMPTS, Messaging, PoolDraft};

impl Messaging {
    /// Registers pools and flavors, or updates them. What cannot be registered is logged and left out. `Unavailable`
    /// when the management store cannot answer: then all of it may be tried again.
    pub async fn declare(
        &self,
        pools: &BTreeMap<String, PoolDraft>,
        flavors: &BTreeMap<String, (ProjectId, Vec<String>)>,
    ) -> Result<()> {
        for (name, draft) in pools {
            let declared = self.declare_pool(name, draft).await;
            left_out("pool", name, declared)?;
        }
        for (name, (project, members)) in flavors {
            let declared = self.declare_flavor(name, project, members).await;
            left_out("flavor", name, declared)?;
        }
        self.pools_changed().await;
        Ok(())
    }

    async fn declare_pool(&self, name: &str, draft: &PoolDraft) -> Result<()> {
        let name = PoolName::parse(name)
            .map_err(|_| Error::invalid("this cannot be the name of a pool"))?;
        for _ in 0..ATTEMPTS {
            let old = self.management.find_pool(&name).await?;
            let (old, version) = old.map(|old| (old.pool, old.version)).unzip();
            let pool = drafted(&name, draft, old.as_ref())?;
            if old.as_ref() == Some(&pool) {
                return Ok(());
            }
            let opener = self.catalogue.opener();
            opener.check(&pool.uri, &pool.options)?;
            self.check_place(&pool).await?;
            let stays = match &old {
                Some(old) => self.check_stays(&pool, old).await,
                None => Ok(()),
            };
            match stays {
                // Whoever writes the file can say what nobody can over the API: that the messages have moved with the address.
                Err(error) if error.kind() == ErrorKind::AlreadyExists(Resource::Pool) => {
                    tracing::warn!(pool = %name, %error, "a pool that has queues is declared to be in another place; \
                        unless their messages were brought there, they are not found");
                }
                stays => stays?,
            }
            if self.management.save_pool(&pool, version).await?.is_some() {
                tracing::info!(pool = %name, new = old.is_none(), "declared pool registered");
                return Ok(());
            }
        }
        Err(busy())
    }

    async fn declare_flavor(
        &self,
        name: &str,
        project: &ProjectId,
        members: &[String],
    ) -> Result<()> {
        let name = FlavorName::parse(name)
            .map_err(|_| Error::invalid("this cannot be the name of a flavor"))?;
        let pools = members.iter().map(|name| PoolName::parse(name));
        let pools = pools
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|_| Error::invalid("it names something that cannot be a pool"))?;
        let flavor = Flavor {
            name,
            project: project.clone(),
        };
        self.management
            .save_flavor(&flavor, &pools, MembershipChange::Replace)
            .await
    }
}

/// Logs what is wrong with one of them; others may be right.
fn left_out(what: &str, name: &str, declared: Result<()>) -> Result<()> {
    match declared {
        Err(error) if error.kind() != ErrorKind::Unavailable => {
            tracing::error!(what, name, %error, "cannot register a declared pool or flavor");
            Ok(())
        }
        result => result,
    }
}
