//! Pools: what operators register, and what a pool must be before it takes queues (spec: pools-flavors.md 2).

use std::time::Duration;

use isimud_contract::{
    Capabilities, Error, ErrorKind, FlavorName, Metadata, Pool, PoolName, PoolRecord, Resource,
    Result, StoreId,
};

use super::{ATTEMPTS, Messaging};
use crate::catalogue::{self, Opened, Shared};

/// How long a pool may take to show that it can be reached.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// What a client says of a pool; what it leaves out stays as it is.
#[derive(Debug, Clone, Default)]
pub struct PoolDraft {
    /// Where it is.
    pub uri: Option<String>,
    /// Its share of new queues.
    pub weight: Option<u32>,
    /// The flavor that it joins; an empty one has it leave its flavor.
    pub flavor: Option<String>,
    /// Options of the driver, in place of the old.
    pub options: Option<Metadata>,
}

impl Messaging {
    /// Lists pools by name, as they may be shown: with masks for passwords.
    pub async fn list_pools(&self, after: Option<&str>, limit: Option<i64>) -> Result<Vec<Pool>> {
        let limit = self.limits().pool_page(limit)?;
        let found = self.management.list_pools(after, limit).await?;
        Ok(found.into_iter().map(|record| shown(record.pool)).collect())
    }

    /// A pool, as it may be shown.
    pub async fn find_pool(&self, name: &str) -> Result<Option<Pool>> {
        let Ok(name) = PoolName::parse(name) else {
            return Ok(None);
        };
        let found = self.management.find_pool(&name).await?;
        Ok(found.map(|record| shown(record.pool)))
    }

    /// Registers a pool, or updates the one of that name: then options that are not named are unset.
    ///
    /// What is wrong with it is `Invalid`; `AlreadyExists(Pool)` when another pool has its messages in the same place, or
    /// when this one has queues, which would not be in the place that it is to have; `Unsupported` when the pools of its
    /// flavor can do other things.
    pub async fn put_pool(&self, name: &str, mut draft: PoolDraft) -> Result<()> {
        let name = PoolName::parse(name).map_err(|_| {
            Error::invalid(
                "A pool's name has 1 to 64 characters, none of them a control character.",
            )
        })?;
        if name.as_str() == catalogue::DEFAULT {
            let sentence = "The name `default` is that of the store of the configuration.";
            return Err(Error::invalid(sentence));
        }
        draft.options.get_or_insert_default();
        for _ in 0..ATTEMPTS {
            let old = self.management.find_pool(&name).await?;
            if self.save_pool(&name, &draft, old).await?.is_some() {
                return Ok(());
            }
        }
        Err(busy())
    }

    /// Changes a pool. `None` when there is none of that name; refuses what [`Messaging::put_pool`] refuses.
    pub async fn patch_pool(&self, name: &str, draft: PoolDraft) -> Result<Option<Pool>> {
        let Ok(name) = PoolName::parse(name) else {
            return Ok(None);
        };
        for _ in 0..ATTEMPTS {
            let Some(old) = self.management.find_pool(&name).await? else {
                return Ok(None);
            };
            if let Some(pool) = self.save_pool(&name, &draft, Some(old)).await? {
                return Ok(Some(shown(pool)));
            }
        }
        Err(busy())
    }

    /// Stores what becomes of a pool by a draft. `None` when somebody else has changed it meanwhile.
    async fn save_pool(
        &self,
        name: &PoolName,
        draft: &PoolDraft,
        old: Option<PoolRecord>,
    ) -> Result<Option<Pool>> {
        let (old, version) = old.map(|old| (old.pool, old.version)).unzip();
        let pool = drafted(name, draft, old.as_ref())?;
        self.check_pool(&pool, old.as_ref()).await?;
        let saved = self.management.save_pool(&pool, version).await?;
        if let (Some(saved), Some(old)) = (saved, &old) {
            // A queue may have been made there meanwhile: it stays where it is, and the pool with it.
            if let Err(error) = self.check_stays(&pool, old).await {
                self.management.save_pool(old, Some(saved)).await?;
                self.pools_changed().await;
                return Err(error);
            }
        }
        self.pools_changed().await;
        Ok(saved.map(|_| pool))
    }

    /// Refuses another place for a pool that has queues: their messages would stay in the old one, where nobody finds
    /// them. Credentials, and options that leave the place and the names in it as they are, may change.
    pub(super) async fn check_stays(&self, pool: &Pool, old: &Pool) -> Result<()> {
        if is_unchanged(pool, old) {
            return Ok(());
        }
        let store_id = StoreId::Pool(pool.name.clone());
        let queues = self.management.queues_in(&store_id, None, 1).await?;
        let Some(queue) = queues.first() else {
            return Ok(());
        };
        if self.is_same_location(pool, old) {
            return Ok(());
        }
        let sentence = "This pool has queues, whose messages are where its URI and options say now, and would not be found \
                        where they are to say. Move the queues to another pool, or delete them, first.";
        let kind = ErrorKind::AlreadyExists(Resource::Pool);
        Err(Error::new(kind, sentence).with("queue", queue))
    }

    /// Whether a pool keeps its messages in the place, and under the names, where it kept them before. Of a URI that
    /// cannot be read any more, as one that an earlier version took, that is not known.
    fn is_same_location(&self, pool: &Pool, old: &Pool) -> bool {
        let places = ((&*pool.uri, &pool.options), (&*old.uri, &old.options));
        let shared = self.catalogue.opener().shared(places.0, places.1);
        shared.is_ok_and(|shared| shared == Shared::Place)
    }

    /// Whether a pool can be what it says: its driver knows it, nobody else has its place, it answers, and it can do what
    /// the others of its flavor can.
    async fn check_pool(&self, pool: &Pool, old: Option<&Pool>) -> Result<()> {
        let opener = self.catalogue.opener();
        opener.check(&pool.uri, &pool.options)?;
        let mut capabilities = None;
        if !old.is_some_and(|old| is_unchanged(pool, old)) {
            opener.admit(&pool.uri, &pool.options)?;
            self.check_place(pool).await?;
            let is_same_store = match old {
                Some(old) => {
                    self.check_stays(pool, old).await?;
                    self.is_same_location(pool, old)
                }
                None => false,
            };
            let reached = match is_same_store && opener.is_exclusive(&pool.uri) {
                // It cannot be opened twice.
                true => self.reach(&StoreId::Pool(pool.name.clone())).await,
                false => self.open_unregistered(pool).await,
            };
            capabilities = Some(reached.map_err(|error| {
                let sentence = format!("cannot connect to {}", catalogue::shown(&pool.uri));
                Error::invalid(sentence).caused_by(error)
            })?);
        }
        match &pool.flavor {
            Some(flavor)
                if capabilities.is_some() || old.is_none_or(|old| old.flavor != pool.flavor) =>
            {
                let own = match capabilities {
                    Some(capabilities) => Some(capabilities),
                    None => self.reach(&StoreId::Pool(pool.name.clone())).await.ok(),
                };
                self.check_agreement(pool, own, flavor).await
            }
            _ => Ok(()),
        }
    }

    /// Refuses a second name for one place, where a queue that moved from one to the other would move into itself; and
    /// names that could be those of another pool's queues, perhaps of another project.
    pub(super) async fn check_place(&self, pool: &Pool) -> Result<()> {
        let conflict = |sentence: String| {
            Err(Error::new(
                ErrorKind::AlreadyExists(Resource::Pool),
                sentence,
            ))
        };
        let names = |other: &str| {
            format!(
                "Queues of this pool could have the names of queues of {other}, which is in the same place; give each \
                 its own 'prefix' or 'name'."
            )
        };
        match self.catalogue.shared_with_default(pool)? {
            Shared::Nothing => {}
            Shared::Place => {
                return conflict("The database URI is that of the default store.".into());
            }
            Shared::Names => return conflict(names("the default store")),
        }
        let opener = self.catalogue.opener();
        let registry = self.catalogue.read_registry().await?;
        for other in registry.pools().filter(|other| other.name != pool.name) {
            // A pool of a driver that this server does not have is no obstacle.
            let places = ((&*pool.uri, &pool.options), (&*other.uri, &other.options));
            match opener.shared(places.0, places.1) {
                Ok(Shared::Nothing) | Err(_) => {}
                Ok(Shared::Place) => {
                    return conflict("The database URI is in use by another pool.".into());
                }
                Ok(Shared::Names) => {
                    return conflict(names(&format!("the pool {}", other.name.as_str())));
                }
            }
        }
        Ok(())
    }

    /// Refuses a pool whose capabilities are not those of the pools already in its flavor. Those that do not answer now
    /// have no say.
    async fn check_agreement(
        &self,
        pool: &Pool,
        own: Option<Capabilities>,
        flavor: &FlavorName,
    ) -> Result<()> {
        let Some(own) = own else {
            return Ok(());
        };
        let registry = self.catalogue.read_registry().await?;
        for member in registry
            .members(Some(flavor))
            .filter(|one| one.name != pool.name)
        {
            let theirs = self.reach(&StoreId::Pool(member.name.clone())).await;
            if theirs.is_ok_and(|theirs| !agree(&own, &theirs)) {
                let sentence =
                    "The pool being added does not support the minimum set of capabilities";
                return Err(
                    Error::new(ErrorKind::Unsupported, sentence).with("other", &member.name)
                );
            }
        }
        Ok(())
    }

    /// What the store of a registered pool can do, once it has answered: some find out when they connect.
    pub(super) async fn reach(&self, store_id: &StoreId) -> Result<Capabilities> {
        let opened = self.catalogue.open(store_id).await?;
        answering(&opened).await
    }

    /// Opens a pool's store for a moment.
    async fn open_unregistered(&self, pool: &Pool) -> Result<Capabilities> {
        let opened = self.catalogue.open_unregistered(pool).await?;
        let capabilities = answering(&opened).await;
        if let Err(error) = opened.close().await {
            tracing::debug!(%error, "cannot close the store of a health check");
        }
        capabilities
    }

    /// Removes a pool; one that does not exist is removed already. `InUse(Queue)` while queues are in it, or
    /// `InUse(Flavor)` when it is the last one of a flavor: nothing is lost by a removal (quirk Q-POOL-5).
    pub async fn delete_pool(&self, name: &str) -> Result<()> {
        let Ok(name) = PoolName::parse(name) else {
            return Ok(());
        };
        let Some(record) = self.management.find_pool(&name).await? else {
            return Ok(());
        };
        let store_id = StoreId::Pool(name.clone());
        self.check_empty(&store_id).await?;
        let removal = self.catalogue.removal().await;
        let deleted = self.management.delete_pool(&name).await;
        deleted.map_err(|error| match (error.kind(), &record.pool.flavor) {
            (ErrorKind::InUse(Resource::Flavor), Some(flavor)) => Error::new(
                error.kind(),
                format!("This pool is used by flavors {flavor}; It cannot be deleted."),
            ),
            _ => error,
        })?;
        // Whoever has made a queue there meanwhile looks for the pool afterwards, and this looks for the queue.
        let result = self.check_empty(&store_id).await;
        if result.is_err() {
            self.management.save_pool(&record.pool, None).await?;
        }
        drop(removal);
        self.pools_changed().await;
        result
    }

    async fn check_empty(&self, store_id: &StoreId) -> Result<()> {
        let queues = self.management.queues_in(store_id, None, 1).await?;
        let Some(queue) = queues.first() else {
            return Ok(());
        };
        let sentence = "This pool has queues; It cannot be deleted. Move them to another pool, or delete them, first.";
        Err(Error::new(ErrorKind::InUse(Resource::Queue), sentence).with("queue", queue))
    }

    /// Has this server go by the pools as they are now; others are told by the management store.
    pub(super) async fn pools_changed(&self) {
        self.catalogue.forget();
        self.cache.forget(isimud_contract::Change::Pools);
        if let Err(error) = self.catalogue.refresh().await {
            tracing::debug!(%error, "cannot read the pools");
        }
    }
}

/// What becomes of a pool, or of nothing, by a draft.
pub(super) fn drafted(name: &PoolName, draft: &PoolDraft, old: Option<&Pool>) -> Result<Pool> {
    let missing = |key: &str| Error::invalid(format!("`{key}` is required."));
    let uri = match (&draft.uri, old) {
        (Some(uri), old) => catalogue::restored(uri, old.map(|old| old.uri.as_str()))?,
        (None, Some(old)) => old.uri.clone(),
        (None, None) => return Err(missing("uri")),
    };
    let options = match &draft.options {
        Some(options) => {
            let moved = old.is_none_or(|old| !catalogue::is_same_location(&old.uri, &uri));
            catalogue::restored_options(options.clone(), old.map(|old| &old.options), moved)?
        }
        None => old.map(|old| old.options.clone()).unwrap_or_default(),
    };
    let flavor = match draft.flavor.as_deref() {
        None => old.and_then(|old| old.flavor.clone()),
        Some("") => None,
        Some(flavor) => Some(FlavorName::parse(flavor).map_err(|_| {
            Error::invalid(
                "A flavor's name has 1 to 64 characters, none of them a control character.",
            )
        })?),
    };
    let weight = draft.weight.or(old.map(|old| old.weight));
    Ok(Pool {
        name: name.clone(),
        uri,
        weight: weight.ok_or_else(|| missing("weight"))?,
        flavor,
        options,
    })
}

fn is_unchanged(pool: &Pool, old: &Pool) -> bool {
    old.uri == pool.uri && old.options == pool.options
}

/// A pool as it may be shown.
fn shown(pool: Pool) -> Pool {
    Pool {
        uri: catalogue::shown(&pool.uri),
        options: catalogue::shown_options(&pool.options),
        ..pool
    }
}

/// Whether queues find the same promises in both.
pub(super) fn agree(one: &Capabilities, other: &Capabilities) -> bool {
    one.names() == other.names() && one.browse == other.browse
}

/// What a store can do, once it has answered.
async fn answering(opened: &Opened) -> Result<Capabilities> {
    let answer = tokio::time::timeout(PROBE_TIMEOUT, opened.store.ping()).await;
    answer
        .map_err(|_| Error::new(ErrorKind::Unavailable, "the store does not answer in time"))??;
    Ok(opened.capabilities())
}

pub(super) fn busy() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the pool is being changed by others",
    )
}
