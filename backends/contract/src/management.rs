//! The management contract: what describes queues, apart from their messages.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{Metadata, ProjectId, QueueKey, QueueRecord, QueueSelection, Result};

/// Everything that the server keeps about queues under one name. Each part is a trait of its own.
pub trait ManagementStore: Queues {}

impl<T: Queues> ManagementStore for T {}

/// Is told a queue whose record has changed or gone, or `None` when changes may have been missed.
pub type Forget = Arc<dyn Fn(Option<&QueueKey>) + Send + Sync>;

/// Keeps the queues of every project and their metadata.
#[async_trait]
pub trait Queues: Debug + Send + Sync + 'static {
    /// Creates a queue, unless it exists; an existing one keeps its metadata. Returns whether it was created.
    async fn create_queue(&self, queue: &QueueKey, metadata: &Metadata) -> Result<bool>;

    /// Reads a queue; `None` when it does not exist.
    async fn find_queue(&self, queue: &QueueKey) -> Result<Option<QueueRecord>>;

    /// Replaces a queue's metadata if its version is still `version`. Returns the new version, or `None` when the
    /// queue has changed or gone meanwhile.
    async fn update_queue(
        &self,
        queue: &QueueKey,
        metadata: &Metadata,
        version: u64,
    ) -> Result<Option<u64>>;

    /// Deletes a queue's record. Returns whether there was one.
    async fn delete_queue(&self, queue: &QueueKey) -> Result<bool>;

    /// Lists queues by name.
    async fn list_queues(
        &self,
        project: &ProjectId,
        selection: &QueueSelection,
    ) -> Result<Vec<QueueRecord>>;

    /// Counts the queues of a project.
    async fn count_queues(&self, project: &ProjectId) -> Result<u64>;

    /// Has `forget` called within a moment after any server changes a queue, so that the caller may remember what it
    /// read. A store that one server has to itself has nobody to tell of.
    fn watch(&self, forget: Forget) -> Result<()>;
}
