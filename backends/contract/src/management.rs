//! The management contract: what describes queues, apart from their messages.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    Flavor, FlavorName, Kind, MembershipChange, Metadata, Placement, Pool, PoolName, PoolRecord,
    ProjectId, QueueKey, QueueRecord, QueueSelection, Result, StoreId, Subscription,
    SubscriptionChange, SubscriptionId,
};

/// Everything that the server keeps about queues under one name. Each part is a trait of its own.
pub trait ManagementStore: Queues + Pools + Subscriptions {}

impl<T: Queues + Pools + Subscriptions> ManagementStore for T {}

/// What has changed, so that nobody goes on with what it remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// A queue's record or its subscriptions.
    Queue(&'a QueueKey),
    /// A pool or a flavor.
    Pools,
    /// Anything: changes may have been missed.
    All,
}

/// Is told of every change.
pub type Watcher = Arc<dyn Fn(Change<'_>) + Send + Sync>;

/// Keeps the queues of every project: their metadata and the places of their messages.
#[async_trait]
pub trait Queues: Debug + Send + Sync + 'static {
    /// Creates a queue, unless it exists; an existing one keeps its metadata and its place. Returns whether it was
    /// created.
    async fn create_queue(
        &self,
        queue: &QueueKey,
        metadata: &Metadata,
        placement: &Placement,
    ) -> Result<bool>;

    /// Reads a queue; `None` when it does not exist.
    async fn find_queue(&self, queue: &QueueKey) -> Result<Option<QueueRecord>>;

    /// Replaces a queue's metadata and place if its version is still `version`. Returns the new version, or `None`
    /// when the queue has changed or gone meanwhile.
    async fn update_queue(
        &self,
        queue: &QueueKey,
        metadata: &Metadata,
        placement: &Placement,
        version: u64,
    ) -> Result<Option<u64>>;

    /// Deletes a queue's record. Returns what it was, if there was one.
    async fn delete_queue(&self, queue: &QueueKey) -> Result<Option<QueueRecord>>;

    /// Lists queues by name.
    async fn list_queues(
        &self,
        project: &ProjectId,
        selection: &QueueSelection,
    ) -> Result<Vec<QueueRecord>>;

    /// Counts the queues, or the topics, of a project.
    async fn count_queues(&self, project: &ProjectId, kind: Kind) -> Result<u64>;

    /// Queues of any project and kind that have a segment in a store, at most `limit`, in an order of the store's own,
    /// after `after`. A queue that keeps its place during a walk is met exactly once.
    async fn queues_in(
        &self,
        store_id: &StoreId,
        after: Option<&QueueKey>,
        limit: usize,
    ) -> Result<Vec<QueueKey>>;

    /// Has `watcher` called within a moment after any server changes anything here, so that the caller may remember
    /// what it read. A store that one server has to itself has nobody to tell of.
    fn watch(&self, watcher: Watcher) -> Result<()>;
}

/// Keeps the pools and flavors of the service. There are few of them: hundreds, not millions.
#[async_trait]
pub trait Pools: Debug + Send + Sync + 'static {
    /// Stores a pool. With a version it replaces the pool of that version, without one it makes a new one. Returns the
    /// new version, or `None` when the pool is not as expected: changed, gone, or there already. A pool that leaves its
    /// flavor may leave it empty.
    async fn save_pool(&self, pool: &Pool, version: Option<u64>) -> Result<Option<u64>>;

    /// Reads a pool; `None` when it does not exist.
    async fn find_pool(&self, name: &PoolName) -> Result<Option<PoolRecord>>;

    /// Lists pools by name, after `after`.
    async fn list_pools(&self, after: Option<&str>, limit: usize) -> Result<Vec<PoolRecord>>;

    /// Deletes a pool. Returns whether there was one. `InUse(Flavor)`, with the flavor's name as context `flavor`,
    /// when it is the last one of a flavor that exists.
    async fn delete_pool(&self, name: &PoolName) -> Result<bool>;

    /// Stores a flavor and makes pools its members, wherever they were before, in one step. `NotFound(Pool)`, with the
    /// name as context `pool`, for the first that does not exist; `AlreadyExists(Flavor)` when another project has
    /// that name. Nothing is changed then.
    async fn save_flavor(
        &self,
        flavor: &Flavor,
        pools: &[PoolName],
        members: MembershipChange,
    ) -> Result<()>;

    /// Reads a flavor of any project; `None` when it does not exist.
    async fn find_flavor(&self, name: &FlavorName) -> Result<Option<Flavor>>;

    /// Lists a project's flavors by name, after `after`.
    async fn list_flavors(
        &self,
        project: &ProjectId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Flavor>>;

    /// Deletes a flavor of a project, and has its pools leave it. Returns whether there was one.
    async fn delete_flavor(&self, project: &ProjectId, name: &FlavorName) -> Result<bool>;
}

/// Keeps the subscriptions of every queue. What has expired is not there, for anybody.
#[async_trait]
pub trait Subscriptions: Debug + Send + Sync + 'static {
    /// Stores a new subscription. Where the queue has one for that subscriber already, that stays as it is and is
    /// returned.
    async fn create_subscription(
        &self,
        subscription: &Subscription,
    ) -> Result<Option<Subscription>>;

    /// Reads a subscription; `None` when the queue has none of that id.
    async fn find_subscription(
        &self,
        source: &QueueKey,
        id: SubscriptionId,
    ) -> Result<Option<Subscription>>;

    /// Changes a subscription. `NotFound(Subscription)`, `AlreadyExists(Subscription)` when another one of the queue has
    /// the new subscriber, or `InUse(Subscription)` when it has another address than is expected.
    async fn update_subscription(
        &self,
        source: &QueueKey,
        id: SubscriptionId,
        change: &SubscriptionChange,
    ) -> Result<()>;

    /// Notes whether the receiver has agreed. Returns the subscription as it is then; `NotFound(Subscription)` when
    /// there is none.
    async fn confirm_subscription(
        &self,
        source: &QueueKey,
        id: SubscriptionId,
        confirmed: bool,
    ) -> Result<Subscription>;

    /// Deletes a subscription. Returns whether there was one.
    async fn delete_subscription(&self, source: &QueueKey, id: SubscriptionId) -> Result<bool>;

    /// Lists a queue's subscriptions by id, after `after`.
    async fn list_subscriptions(
        &self,
        source: &QueueKey,
        after: Option<SubscriptionId>,
        limit: usize,
    ) -> Result<Vec<Subscription>>;

    /// Deletes every subscription of a queue.
    async fn remove_subscriptions(&self, source: &QueueKey) -> Result<()>;
}
