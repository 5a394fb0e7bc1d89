//! The management contract.

use async_trait::async_trait;
use isimud_contract::{
    Flavor, FlavorName, Kind, MembershipChange, Metadata, Placement, Pool, PoolName, PoolRecord,
    Pools, ProjectId, QueueKey, QueueRecord, QueueSelection, Queues, Result, StoreId, Subscription,
    SubscriptionChange, SubscriptionId, Subscriptions, Watcher,
};

use crate::store::RedisStore;
use crate::{pool, queue, subscription};

#[async_trait]
impl Queues for RedisStore {
    async fn create_queue(
        &self,
        queue: &QueueKey,
        metadata: &Metadata,
        placement: &Placement,
    ) -> Result<bool> {
        queue::create(self, queue, metadata, placement).await
    }

    async fn find_queue(&self, queue: &QueueKey) -> Result<Option<QueueRecord>> {
        queue::find(self, queue).await
    }

    async fn update_queue(
        &self,
        queue: &QueueKey,
        metadata: &Metadata,
        placement: &Placement,
        version: u64,
    ) -> Result<Option<u64>> {
        queue::update(self, queue, metadata, placement, version).await
    }

    async fn delete_queue(&self, queue: &QueueKey) -> Result<Option<QueueRecord>> {
        queue::delete(self, queue).await
    }

    async fn list_queues(
        &self,
        project: &ProjectId,
        selection: &QueueSelection,
    ) -> Result<Vec<QueueRecord>> {
        queue::list(self, project, selection).await
    }

    async fn count_queues(&self, project: &ProjectId, kind: Kind) -> Result<u64> {
        queue::count(self, project, kind).await
    }

    async fn queues_in(
        &self,
        store_id: &StoreId,
        after: Option<&QueueKey>,
        limit: usize,
    ) -> Result<Vec<QueueKey>> {
        self.queues_in_store(store_id, after, limit).await
    }

    fn watch(&self, watcher: Watcher) -> Result<()> {
        self.tell(watcher)
    }
}

#[async_trait]
impl Pools for RedisStore {
    async fn save_pool(&self, pool: &Pool, version: Option<u64>) -> Result<Option<u64>> {
        pool::save(self, pool, version).await
    }

    async fn find_pool(&self, name: &PoolName) -> Result<Option<PoolRecord>> {
        pool::find(self, name).await
    }

    async fn list_pools(&self, after: Option<&str>, limit: usize) -> Result<Vec<PoolRecord>> {
        pool::list(self, after, limit).await
    }

    async fn delete_pool(&self, name: &PoolName) -> Result<bool> {
        pool::delete(self, name).await
    }

    async fn save_flavor(
        &self,
        flavor: &Flavor,
        pools: &[PoolName],
        members: MembershipChange,
    ) -> Result<()> {
        pool::save_flavor(self, flavor, pools, members).await
    }

    async fn find_flavor(&self, name: &FlavorName) -> Result<Option<Flavor>> {
        pool::find_flavor(self, name).await
    }

    async fn list_flavors(
        &self,
        project: &ProjectId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Flavor>> {
        pool::list_flavors(self, project, after, limit).await
    }

    async fn delete_flavor(&self, project: &ProjectId, name: &FlavorName) -> Result<bool> {
        pool::delete_flavor(self, project, name).await
    }
}

#[async_trait]
impl Subscriptions for RedisStore {
    async fn create_subscription(
        &self,
        subscription: &Subscription,
    ) -> Result<Option<Subscription>> {
        subscription::create(self, subscription).await
    }

    async fn find_subscription(
        &self,
        source: &QueueKey,
        id: SubscriptionId,
    ) -> Result<Option<Subscription>> {
        subscription::find(self, source, id).await
    }

    async fn update_subscription(
        &self,
        source: &QueueKey,
        id: SubscriptionId,
        change: &SubscriptionChange,
    ) -> Result<()> {
        subscription::update(self, source, id, change, None)
            .await
            .map(drop)
    }

    async fn confirm_subscription(
        &self,
        source: &QueueKey,
        id: SubscriptionId,
        confirmed: bool,
    ) -> Result<Subscription> {
        let nothing = SubscriptionChange::default();
        subscription::update(self, source, id, &nothing, Some(confirmed)).await
    }

    async fn delete_subscription(&self, source: &QueueKey, id: SubscriptionId) -> Result<bool> {
        subscription::delete(self, source, id).await
    }

    async fn list_subscriptions(
        &self,
        source: &QueueKey,
        after: Option<SubscriptionId>,
        limit: usize,
    ) -> Result<Vec<Subscription>> {
        subscription::list(self, source, after, limit).await
    }

    async fn remove_subscriptions(&self, source: &QueueKey) -> Result<()> {
        subscription::remove(self, source).await
    }
}
