//! The management contract.

use async_trait::async_trait;
use isimud_contract::{
    Home, Kind, Metadata, Place, ProjectId, QueueKey, QueueRecord, QueueSelection, Queues, Result,
    Watcher,
};

use crate::queue;
use crate::store::RedisStore;

#[async_trait]
impl Queues for RedisStore {
    async fn create_queue(
        &self,
        queue: &QueueKey,
        metadata: &Metadata,
        place: &Place,
    ) -> Result<bool> {
        queue::create(self, queue, metadata, place).await
    }

    async fn find_queue(&self, queue: &QueueKey) -> Result<Option<QueueRecord>> {
        queue::find(self, queue).await
    }

    async fn update_queue(
        &self,
        queue: &QueueKey,
        metadata: &Metadata,
        place: &Place,
        version: u64,
    ) -> Result<Option<u64>> {
        queue::update(self, queue, metadata, place, version).await
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
        home: &Home,
        after: Option<&QueueKey>,
        limit: usize,
    ) -> Result<Vec<QueueKey>> {
        self.in_home(home, after, limit).await
    }

    fn watch(&self, watcher: Watcher) -> Result<()> {
        self.tell(watcher)
    }
}
