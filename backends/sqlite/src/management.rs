//! The management contract, each method one call on the right thread.

use async_trait::async_trait;
use isimud_contract::{
    Flavor, FlavorName, Kind, MembershipChange, Metadata, Placement, Pool, PoolName, PoolRecord,
    Pools, ProjectId, QueueKey, QueueRecord, QueueSelection, Queues, Result, StoreId, Subscription,
    SubscriptionChange, SubscriptionId, Subscriptions, Watcher,
};

use crate::store::SqliteStore;
use crate::{pool, queue, subscription};

#[async_trait]
impl Queues for SqliteStore {
    async fn create_queue(
        &self,
        queue: &QueueKey,
        metadata: &Metadata,
        placement: &Placement,
    ) -> Result<bool> {
        let (key, metadata, placement) = (queue.clone(), metadata.clone(), placement.clone());
        self.grow(move |session| queue::create(session, &key, &metadata, &placement))
            .await
    }

    async fn find_queue(&self, queue: &QueueKey) -> Result<Option<QueueRecord>> {
        let key = queue.clone();
        self.read(move |session| queue::find(session, &key)).await
    }

    async fn update_queue(
        &self,
        queue: &QueueKey,
        metadata: &Metadata,
        placement: &Placement,
        version: u64,
    ) -> Result<Option<u64>> {
        let (key, metadata, placement) = (queue.clone(), metadata.clone(), placement.clone());
        self.grow(move |session| queue::update(session, &key, &metadata, &placement, version))
            .await
    }

    async fn delete_queue(&self, queue: &QueueKey) -> Result<Option<QueueRecord>> {
        let key = queue.clone();
        self.write(move |session| queue::delete(session, &key))
            .await
    }

    async fn list_queues(
        &self,
        project: &ProjectId,
        selection: &QueueSelection,
    ) -> Result<Vec<QueueRecord>> {
        let (project, selection) = (project.clone(), selection.clone());
        self.read(move |session| queue::list(session, &project, &selection))
            .await
    }

    async fn count_queues(&self, project: &ProjectId, kind: Kind) -> Result<u64> {
        let project = project.clone();
        self.read(move |session| queue::count(session, &project, kind))
            .await
    }

    async fn queues_in(
        &self,
        store_id: &StoreId,
        after: Option<&QueueKey>,
        limit: usize,
    ) -> Result<Vec<QueueKey>> {
        let (store_id, after) = (store_id.clone(), after.cloned());
        self.read(move |session| queue::list_in(session, &store_id, after.as_ref(), limit))
            .await
    }

    /// There is nobody to tell: one server has the file to itself.
    fn watch(&self, _: Watcher) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Pools for SqliteStore {
    async fn save_pool(&self, pool: &Pool, version: Option<u64>) -> Result<Option<u64>> {
        let new = pool.clone();
        self.grow(move |session| pool::save(session, &new, version))
            .await
    }

    async fn find_pool(&self, name: &PoolName) -> Result<Option<PoolRecord>> {
        let name = name.clone();
        self.read(move |session| pool::find(session, &name)).await
    }

    async fn list_pools(&self, after: Option<&str>, limit: usize) -> Result<Vec<PoolRecord>> {
        let after = after.map(str::to_owned);
        self.read(move |session| pool::list(session, after.as_deref(), limit))
            .await
    }

    async fn delete_pool(&self, name: &PoolName) -> Result<bool> {
        let name = name.clone();
        self.write(move |session| pool::delete(session, &name))
            .await
    }

    async fn save_flavor(
        &self,
        flavor: &Flavor,
        pools: &[PoolName],
        members: MembershipChange,
    ) -> Result<()> {
        let (flavor, pools) = (flavor.clone(), pools.to_vec());
        self.grow(move |session| pool::save_flavor(session, &flavor, &pools, members))
            .await
    }

    async fn find_flavor(&self, name: &FlavorName) -> Result<Option<Flavor>> {
        let name = name.clone();
        self.read(move |session| pool::find_flavor(session, &name))
            .await
    }

    async fn list_flavors(
        &self,
        project: &ProjectId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Flavor>> {
        let (project, after) = (project.clone(), after.map(str::to_owned));
        self.read(move |session| pool::list_flavors(session, &project, after.as_deref(), limit))
            .await
    }

    async fn delete_flavor(&self, project: &ProjectId, name: &FlavorName) -> Result<bool> {
        let (project, name) = (project.clone(), name.clone());
        self.write(move |session| pool::delete_flavor(session, &project, &name))
            .await
    }
}

#[async_trait]
impl Subscriptions for SqliteStore {
    async fn create_subscription(
        &self,
        subscription: &Subscription,
    ) -> Result<Option<Subscription>> {
        let new = subscription.clone();
        self.grow(move |session| subscription::create(session, &new))
            .await
    }

    async fn find_subscription(
        &self,
        source: &QueueKey,
        id: SubscriptionId,
    ) -> Result<Option<Subscription>> {
        let source = source.clone();
        self.read(move |session| subscription::find(session, &source, id))
            .await
    }

    async fn update_subscription(
        &self,
        source: &QueueKey,
        id: SubscriptionId,
        change: &SubscriptionChange,
    ) -> Result<()> {
        let (source, change) = (source.clone(), change.clone());
        self.grow(move |session| subscription::update(session, &source, id, &change))
            .await
    }

    async fn confirm_subscription(
        &self,
        source: &QueueKey,
        id: SubscriptionId,
        confirmed: bool,
    ) -> Result<Subscription> {
        let source = source.clone();
        self.write(move |session| subscription::confirm(session, &source, id, confirmed))
            .await
    }

    async fn delete_subscription(&self, source: &QueueKey, id: SubscriptionId) -> Result<bool> {
        let source = source.clone();
        self.write(move |session| subscription::delete(session, &source, id))
            .await
    }

    async fn list_subscriptions(
        &self,
        source: &QueueKey,
        after: Option<SubscriptionId>,
        limit: usize,
    ) -> Result<Vec<Subscription>> {
        let source = source.clone();
        self.read(move |session| subscription::list(session, &source, after, limit))
            .await
    }

    async fn remove_subscriptions(&self, source: &QueueKey) -> Result<()> {
        let source = source.clone();
        self.write(move |session| subscription::remove(session, &source))
            .await
    }
}
