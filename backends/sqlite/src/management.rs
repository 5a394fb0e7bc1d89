//! The management contract, each method one call on the right thread.

use async_trait::async_trait;
use isimud_contract::{
    Home, Kind, Metadata, Place, ProjectId, QueueKey, QueueRecord, QueueSelection, Queues, Result,
    Watcher,
};

use crate::queue;
use crate::store::SqliteStore;

#[async_trait]
impl Queues for SqliteStore {
    async fn create_queue(
        &self,
        queue: &QueueKey,
        metadata: &Metadata,
        place: &Place,
    ) -> Result<bool> {
        let (key, metadata, place) = (queue.clone(), metadata.clone(), place.clone());
        self.write(move |session| queue::create(session, &key, &metadata, &place))
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
        place: &Place,
        version: u64,
    ) -> Result<Option<u64>> {
        let (key, metadata, place) = (queue.clone(), metadata.clone(), place.clone());
        self.write(move |session| queue::update(session, &key, &metadata, &place, version))
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
        home: &Home,
        after: Option<&QueueKey>,
        limit: usize,
    ) -> Result<Vec<QueueKey>> {
        let (home, after) = (home.clone(), after.cloned());
        self.read(move |session| queue::list_in(session, &home, after.as_ref(), limit))
            .await
    }

    /// There is nobody to tell: one server has the file to itself.
    fn watch(&self, _: Watcher) -> Result<()> {
        Ok(())
    }
}
