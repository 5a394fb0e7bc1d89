//! Queues: creation, metadata, listing, statistics, purge.

use std::sync::Arc;

use isimud_contract::{
    Change, Error, ErrorKind, Kind, Metadata, Place, ProjectId, QueueKey, QueueRecord,
    QueueSelection, Resource, Result, Stats,
};
use serde_json::Value;

use super::limits::Limits;
use super::settings::{self, Settings};
use super::{Messaging, patch};

/// Attempts of an update that finds the queue changed by somebody else.
const ATTEMPTS: usize = 10;

impl Messaging {
    /// Creates a queue. Returns `false`, and changes nothing, when it exists (quirk Q-QUE-11).
    pub async fn create_queue(&self, queue: &QueueKey, metadata: Metadata) -> Result<bool> {
        self.check(queue, &metadata)?;
        let place = Place::default();
        let created = self
            .management
            .create_queue(queue, &metadata, &place)
            .await?;
        self.forget(queue);
        Ok(created)
    }

    /// A queue's metadata with the reserved keys filled in. A queue that does not exist has just those (quirk
    /// Q-QUE-12).
    pub async fn show_queue(&self, queue: &QueueKey) -> Result<Metadata> {
        let found = self.management.find_queue(queue).await?;
        Ok(settings::with_reserved(
            found.map(|record| record.metadata).unwrap_or_default(),
            &self.limits,
        ))
    }

    /// Changes a queue's metadata by a patch document, as a whole or not at all. Two patches at once both take effect,
    /// one after the other.
    pub async fn patch_queue(&self, queue: &QueueKey, document: Value) -> Result<Metadata> {
        let changes = patch::parse(document)?;
        let reserved = settings::reserved(&self.limits);
        let is_reserved = |key: &str| reserved.iter().any(|(name, _)| *name == key);
        for _ in 0..ATTEMPTS {
            let record = self.management.find_queue(queue).await?;
            let record = record.ok_or_else(|| Error::not_found(Resource::Queue))?;
            let metadata = patch::apply(record.metadata, changes.clone(), is_reserved)?;
            self.check(queue, &metadata)?;
            check_size(&metadata, &self.limits)?;
            if self
                .management
                .update_queue(queue, &metadata, &record.place, record.version)
                .await?
                .is_some()
            {
                self.forget(queue);
                return Ok(settings::with_reserved(metadata, &self.limits));
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "the queue's metadata are being changed by others",
        ))
    }

    /// Checks metadata before they are stored.
    fn check(&self, queue: &QueueKey, metadata: &Metadata) -> Result<()> {
        settings::validate(metadata, &self.limits)?;
        if self.key_is_public && Settings::read(metadata).encrypt {
            tracing::warn!(%queue, "messages are encrypted with the default key, which is public: set messages.encryption_keys");
        }
        Ok(())
    }

    /// Deletes a queue with its messages and claims. It need not exist.
    pub async fn delete_queue(&self, queue: &QueueKey) -> Result<()> {
        self.management.delete_queue(queue).await?;
        self.forget(queue);
        self.store.remove(queue).await
    }

    /// Lists a project's queues by name, metadata with the reserved keys filled in.
    pub async fn list_queues(
        &self,
        project: &ProjectId,
        limit: Option<i64>,
        mut selection: QueueSelection,
    ) -> Result<Vec<QueueRecord>> {
        selection.limit = self.limits.queue_page(limit)?;
        let mut found = self.management.list_queues(project, &selection).await?;
        for record in &mut found {
            record.metadata =
                settings::with_reserved(std::mem::take(&mut record.metadata), &self.limits);
        }
        Ok(found)
    }

    /// Counts a project's queues.
    pub async fn count_queues(&self, project: &ProjectId) -> Result<u64> {
        self.management.count_queues(project, Kind::Queue).await
    }

    /// Counts a queue's messages.
    pub async fn stats(&self, queue: &QueueKey) -> Result<Stats> {
        self.store.stats(queue).await
    }

    /// Deletes every message and claim of a queue; its metadata stay.
    pub async fn purge_messages(&self, queue: &QueueKey) -> Result<()> {
        self.store.purge(queue).await
    }

    /// What a queue's metadata mean for its messages; `None` when the queue does not exist.
    pub(super) async fn settings(&self, queue: &QueueKey) -> Result<Option<Arc<Settings>>> {
        let read = async || {
            let found = self.management.find_queue(queue).await?;
            Ok(found.map(|record| Arc::new(Settings::read(&record.metadata))))
        };
        self.known.get(queue, read).await
    }

    /// The settings of a queue that is created now if it does not exist.
    pub(super) async fn settings_or_create(&self, queue: &QueueKey) -> Result<Arc<Settings>> {
        if let Some(settings) = self.settings(queue).await? {
            return Ok(settings);
        }
        self.create_queue(queue, Metadata::new()).await?;
        Ok(self.settings(queue).await?.unwrap_or_default())
    }

    pub(super) fn forget(&self, queue: &QueueKey) {
        self.known.forget(Change::Queue(queue));
    }
}

/// Many patches, each of them small, must not make large metadata.
pub(super) fn check_size(metadata: &Metadata, limits: &Limits) -> Result<()> {
    let most = limits.max_queue_metadata;
    let size = serde_json::to_string(metadata).map_or(usize::MAX, |text| text.len());
    if size <= most {
        return Ok(());
    }
    let sentence = format!("Queue metadata is too large. Max size: {most}");
    Err(Error::invalid(sentence))
}
