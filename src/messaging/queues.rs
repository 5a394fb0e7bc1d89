//! Queues: creation, metadata, listing, statistics, purge.

use isimud_contract::{
    Backlog, Error, ErrorKind, Kind, Metadata, Placement, ProjectId, QueueKey, QueueRecord,
    QueueSelection, Resource, Result, Stats,
};
use serde_json::Value;

use super::limits::Limits;
use super::settings::{self, Settings};
use super::{ATTEMPTS, Messaging, patch, placement};

impl Messaging {
    /// Creates a queue. Returns `false`, and changes nothing, when it exists (quirk Q-QUE-11).
    pub async fn create_queue(&self, queue: &QueueKey, metadata: Metadata) -> Result<bool> {
        self.check(queue, &metadata)?;
        self.check_queue_quota(queue).await?;
        let created = self.create(queue, &metadata, None).await;
        created.map_err(placement::as_invalid_request)
    }

    /// A queue's metadata with the reserved keys filled in. A queue that does not exist has just those (quirk
    /// Q-QUE-12).
    pub async fn show_queue(&self, queue: &QueueKey) -> Result<Metadata> {
        Ok(settings::with_reserved(
            self.stored_metadata(queue).await?,
            &self.limits(),
            kind_of(queue),
        ))
    }

    /// A queue's metadata as they are stored; a queue that does not exist has none.
    pub async fn stored_metadata(&self, queue: &QueueKey) -> Result<Metadata> {
        let found = self.management.find_queue(queue).await?;
        Ok(found.map(|record| record.metadata).unwrap_or_default())
    }

    /// Changes a queue's metadata by a patch document, as a whole or not at all. Two patches at once both take effect,
    /// one after the other. Another flavor moves the queue: what is posted from now on goes to a pool of that flavor, and
    /// what was there before is delivered first.
    pub async fn patch_queue(&self, queue: &QueueKey, document: Value) -> Result<Metadata> {
        let changes = patch::parse(document)?;
        let reserved = settings::reserved(&self.limits(), kind_of(queue));
        let is_reserved = |key: &str| reserved.iter().any(|(name, _)| *name == key);
        for _ in 0..ATTEMPTS {
            let record = self.management.find_queue(queue).await?;
            let record = record.ok_or_else(|| Error::not_found(Resource::Queue))?;
            let metadata = patch::apply(record.metadata.clone(), changes.clone(), is_reserved)?;
            self.check(queue, &metadata)?;
            check_size(&metadata, &self.limits())?;
            let both = (&record.metadata, &metadata);
            let placement = self.place_with(queue, &record.placement, both).await?;
            self.check_countable(&metadata, &placement.last().store_id)
                .await?;
            let moves = placement != record.placement;
            if moves {
                self.migrator.schedule(queue, None).await?;
            }
            if self
                .management
                .update_queue(queue, &metadata, &placement, record.version)
                .await?
                .is_some()
            {
                self.forget(queue);
                if moves {
                    let store_id = &placement.last().store_id;
                    if !self.catalogue.is_registered(store_id).await? {
                        self.place_again(queue, store_id).await?;
                    }
                    self.migrator.start(queue, None).await?;
                }
                return Ok(settings::with_reserved(
                    metadata,
                    &self.limits(),
                    kind_of(queue),
                ));
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "the queue's metadata are being changed by others",
        ))
    }

    /// Checks metadata before they are stored.
    fn check(&self, queue: &QueueKey, metadata: &Metadata) -> Result<()> {
        settings::validate(metadata, &self.limits())?;
        self.check_own_bound(queue, metadata)?;
        if self.key_is_public && Settings::read(metadata).encrypt {
            tracing::warn!(%queue, "messages are encrypted with the default key, which is public: set messages.encryption_keys");
        }
        Ok(())
    }

    /// Deletes a queue with its messages and claims. It need not exist. While a pool cannot answer the queue stays, so
    /// that trying again finds what is left of it.
    pub async fn delete_queue(&self, queue: &QueueKey) -> Result<()> {
        if let Some(record) = self.management.find_queue(queue).await?
            && record.placement != Placement::default()
        {
            let route = self.catalogue.resolve_registered(&record.placement).await?;
            route.remove(queue).await?;
        }
        let trusts = self.trusts_of(queue).await?;
        let record = self.management.delete_queue(queue).await?;
        self.forget(queue);
        self.delete_trusts(trusts);
        // Even where it was done already: something may have been posted meanwhile.
        let placement = record.map(|record| record.placement).unwrap_or_default();
        let route = self.catalogue.resolve_registered(&placement).await?;
        route.remove(queue).await
    }

    /// Lists a project's queues by name, metadata with the reserved keys filled in.
    pub async fn list_queues(
        &self,
        project: &ProjectId,
        limit: Option<i64>,
        selection: QueueSelection,
    ) -> Result<Vec<QueueRecord>> {
        let kind = selection.kind;
        let mut found = self.list_stored_queues(project, limit, selection).await?;
        for record in &mut found {
            record.metadata =
                settings::with_reserved(std::mem::take(&mut record.metadata), &self.limits(), kind);
        }
        Ok(found)
    }

    /// Lists a project's queues by name, metadata as they are stored.
    pub async fn list_stored_queues(
        &self,
        project: &ProjectId,
        limit: Option<i64>,
        mut selection: QueueSelection,
    ) -> Result<Vec<QueueRecord>> {
        selection.limit = self.limits().queue_page(limit)?;
        self.management.list_queues(project, &selection).await
    }

    /// Counts a project's queues.
    pub async fn count_queues(&self, project: &ProjectId) -> Result<u64> {
        self.management.count_queues(project, Kind::Queue).await
    }

    /// Counts a queue's messages.
    pub async fn stats(&self, queue: &QueueKey) -> Result<Stats> {
        self.route(queue).await?.stats(queue).await
    }

    /// Counts what is left in a queue, for a decision: what native clients of a broker have put there, too.
    pub async fn backlog(&self, queue: &QueueKey) -> Result<Backlog> {
        self.route(queue).await?.backlog(queue).await
    }

    /// Deletes every message and claim of a queue; its metadata stay.
    pub async fn purge_messages(&self, queue: &QueueKey) -> Result<()> {
        self.route(queue).await?.purge(queue).await
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

/// Whether it is a queue or a topic.
fn kind_of(queue: &QueueKey) -> Kind {
    if queue.name.is_topic() {
        Kind::Topic
    } else {
        Kind::Queue
    }
}
