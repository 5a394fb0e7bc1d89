//! Where the messages of a queue are: chosen when it is made, and changed with its flavor.

use std::sync::Arc;
use std::time::Duration;

use isimud_contract::{
    Change, Error, ErrorKind, Flavor, GAP, Metadata, Placement, QueueKey, Resource, Result,
    Segment, Stands, StoreId,
};

use super::queue_cache::Queue;
use super::settings::{self, Settings};
use super::{ATTEMPTS, Messaging};
use crate::catalogue::{Catalogue, SegmentedStore};

/// How long a store that a queue leaves may take to say how far its numbers of arrival are.
const STATS_TIMEOUT: Duration = Duration::from_secs(1);

/// How far ahead of the clock a store is assumed to be at the most that cannot be asked: five and a half months, or as
/// many messages more than a thousand a second.
const MAX_CLOCK_SKEW: u64 = 1 << 34;

/// What is said of a store that does not answer whether it has a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhileAway {
    /// Nothing: what is posted will tell.
    Pass,
    /// That it cannot be said now. A queue that is in use elsewhere does not go to a store that may not have it.
    Refuse,
}

impl Messaging {
    /// What is known of a queue; `None` when it does not exist.
    pub(super) async fn lookup(&self, queue: &QueueKey) -> Result<Option<Arc<Queue>>> {
        let read = async || {
            let finding = self.management.find_queue(queue);
            let (record, listeners) = tokio::try_join!(finding, self.listeners(queue))?;
            let Some(record) = record else {
                return Ok(None);
            };
            let settings = Settings {
                listeners,
                ..Settings::read(&record.metadata)
            };
            Ok(Some(Arc::new(Queue {
                settings: Arc::new(settings),
                route: self.catalogue.resolve(&record.placement).await?,
            })))
        };
        self.cache.get(queue, read).await
    }

    /// What is known of a queue that is created now if it does not exist: in `store_id`, or where the catalogue
    /// chooses.
    pub(super) async fn lookup_or_create(
        &self,
        queue: &QueueKey,
        store_id: Option<&StoreId>,
    ) -> Result<Arc<Queue>> {
        for _ in 0..ATTEMPTS {
            if let Some(known) = self.lookup(queue).await? {
                return Ok(known);
            }
            self.create(queue, &Metadata::new(), store_id).await?;
        }
        Err(busy("the queue is being deleted again and again"))
    }

    /// What a queue's metadata mean for its messages; `None` when the queue does not exist.
    pub(super) async fn settings(&self, queue: &QueueKey) -> Result<Option<Arc<Settings>>> {
        let known = self.lookup(queue).await?;
        Ok(known.map(|queue| Arc::clone(&queue.settings)))
    }

    /// The way to a queue's messages. One that does not exist has none, wherever they are looked for.
    pub(super) async fn route(&self, queue: &QueueKey) -> Result<Arc<SegmentedStore>> {
        Ok(match self.lookup(queue).await? {
            Some(queue) => Arc::clone(&queue.route),
            None => self.catalogue.default_route(),
        })
    }

    pub(super) fn forget(&self, queue: &QueueKey) {
        self.cache.forget(Change::Queue(queue));
    }

    /// Creates a queue in `store_id`, or where the catalogue chooses, and sees to it that the pool is not removed at
    /// the same time: whoever removes one looks for queues afterwards, and this looks for the pool.
    pub(super) async fn create(
        &self,
        queue: &QueueKey,
        metadata: &Metadata,
        store_id: Option<&StoreId>,
    ) -> Result<bool> {
        let chosen = match store_id {
            Some(store_id) => Ok(store_id.clone()),
            None => self.choose(queue, metadata).await,
        };
        let checked = match chosen {
            Ok(chosen) => {
                let fits = async {
                    self.check_countable(metadata, &chosen).await?;
                    match store_id {
                        Some(_) => Ok(()),
                        None => self.check_arrival(queue, &chosen, WhileAway::Pass).await,
                    }
                };
                fits.await.map(|()| chosen)
            }
            Err(error) => Err(error),
        };
        let store_id = match checked {
            Ok(store_id) => store_id,
            // One that exists is left as it is, whatever could be chosen for it now.
            Err(error) => match self.management.find_queue(queue).await? {
                Some(_) => return Ok(false),
                None => return Err(error),
            },
        };
        let placement = Placement::at(store_id.clone());
        let created = self
            .management
            .create_queue(queue, metadata, &placement)
            .await?;
        self.forget(queue);
        if created && !self.catalogue.is_registered(&store_id).await? {
            self.catalogue.forget();
            self.place_again(queue, &store_id).await?;
        }
        Ok(created)
    }

    /// Whether posts to a queue that comes to a store find one there. `NotFound(Queue)` where a pool takes queues as they are
    /// and this one is missing: the sentence names it, and the pool. `Invalid` where the pool has no place for it. Of a store that does not answer nothing is known: that
    /// is `Unavailable`, or passed.
    pub(super) async fn check_arrival(
        &self,
        queue: &QueueKey,
        store_id: &StoreId,
        while_away: WhileAway,
    ) -> Result<()> {
        let asked = async {
            let opened = self.catalogue.open(store_id).await?;
            match opened.store.capabilities().adopts {
                true => opened.store.can_post(queue).await,
                false => Ok(()),
            }
        };
        asked.await.or_else(|error| match error.kind() {
            ErrorKind::NotFound(Resource::Queue) | ErrorKind::Unsupported => {
                let kind = match error.kind() {
                    // No later try can succeed.
                    ErrorKind::Unsupported => ErrorKind::Invalid,
                    kind => kind,
                };
                let sentence = format!(
                    "The queue {} cannot be in {}: {}.",
                    queue.name.shown(),
                    match store_id {
                        StoreId::Default => "the default store".to_owned(),
                        StoreId::Pool(name) => format!("the pool {name}"),
                    },
                    error.sentence()
                );
                Err(Error::new(kind, sentence).caused_by(error))
            }
            ErrorKind::Unavailable if while_away == WhileAway::Pass => Ok(()),
            _ if while_away == WhileAway::Pass => {
                tracing::debug!(%error, %queue, "cannot check whether the queue exists in its pool");
                Ok(())
            }
            _ => Err(error),
        })
    }

    pub(super) async fn choose(&self, queue: &QueueKey, metadata: &Metadata) -> Result<StoreId> {
        let flavor = self.flavor(queue, metadata).await?;
        self.catalogue.choose(flavor.as_ref()).await
    }

    /// The flavor that metadata name. `NotFound(Flavor)` when there is none, as the reference with pooling on: also
    /// while there are no pools, for a queue with a name that means nothing would be where nobody wanted it.
    pub(super) async fn flavor(
        &self,
        queue: &QueueKey,
        metadata: &Metadata,
    ) -> Result<Option<Flavor>> {
        match settings::flavor(metadata) {
            Some(name) => {
                let flavor = self.catalogue.flavor(&queue.project, &name).await?;
                Ok(Some(flavor))
            }
            None => Ok(None),
        }
    }

    /// Chooses another home for a queue whose newest segment is in one that is gone.
    pub(super) async fn place_again(&self, queue: &QueueKey, gone: &StoreId) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let record = match self.management.find_queue(queue).await? {
                Some(record) if record.placement.last().store_id == *gone => record,
                _ => return Ok(()),
            };
            let store_id = self.choose(queue, &record.metadata).await?;
            let placement = Catalogue::with_replaced_target(&record.placement, store_id.clone());
            let metadata = &record.metadata;
            let update = self
                .management
                .update_queue(queue, metadata, &placement, record.version);
            let updated = update.await?.is_some();
            self.forget(queue);
            if updated && self.catalogue.is_registered(&store_id).await? {
                return Ok(());
            }
            self.catalogue.forget();
        }
        Err(busy("pools are being removed again and again"))
    }

    /// The place that a queue has with other metadata: another one only if they name another flavor.
    pub(super) async fn place_with(
        &self,
        queue: &QueueKey,
        placement: &Placement,
        (before, after): (&Metadata, &Metadata),
    ) -> Result<Placement> {
        if settings::flavor(before) == settings::flavor(after) {
            return Ok(placement.clone());
        }
        let flavor = self.flavor(queue, after).await?;
        if self.catalogue.fits(placement, flavor.as_ref()).await? {
            return Ok(placement.clone());
        }
        let store_id = self.catalogue.choose(flavor.as_ref()).await?;
        let arrives = self
            .check_arrival(queue, &store_id, WhileAway::Refuse)
            .await;
        arrives.map_err(as_invalid_request)?;
        self.with_target(queue, placement, &store_id).await
    }

    /// The place of a queue that goes to a store: as it is where it is there already, else with one segment more.
    /// `Invalid` while it has moved too often to be found in all its places.
    pub(super) async fn with_target(
        &self,
        queue: &QueueKey,
        placement: &Placement,
        store_id: &StoreId,
    ) -> Result<Placement> {
        if placement.last().store_id == *store_id {
            return Ok(placement.clone());
        }
        let after = self.numbers_begin(queue, placement).await;
        Catalogue::with_target(placement, store_id, after)
    }

    /// What the numbers of arrival of a new segment are above: everything that the segments of a place have given, and
    /// will give to posts of servers that have not heard of the new one yet.
    ///
    /// A store that cannot be asked now is assumed to be far ahead of the clock. That costs nothing: numbers go on from
    /// there one by one, until the clock is as far.
    async fn numbers_begin(&self, queue: &QueueKey, placement: &Placement) -> u64 {
        let now = self.signer.now().0.unsigned_abs();
        let given = async {
            let route = self.catalogue.resolve(placement).await?;
            Ok::<_, Error>(route.stats(queue).await?.last_arrival)
        };
        let left = placement.left().iter().map(|left| &left.segment);
        let every = placement.segments().chain(left);
        let known = every.map(|segment| segment.after).max();
        let known = known.unwrap_or_default().max(now);
        match tokio::time::timeout(STATS_TIMEOUT, given).await {
            Ok(Ok(last)) => known.max(last).saturating_add(2 * GAP),
            Ok(Err(error)) => {
                tracing::warn!(%error, %queue, "cannot read the last arrival number of the store that the queue leaves");
                known.saturating_add(MAX_CLOCK_SKEW)
            }
            Err(_) => {
                tracing::warn!(%queue, "timed out reading the last arrival number of the store that the queue leaves");
                known.saturating_add(MAX_CLOCK_SKEW)
            }
        }
    }

    /// The queue that gets dead letters in a store, by its name there, and where they stand in it. It is created there if it does not exist; one
    /// that is elsewhere gets a segment there, from which its messages are read before its others.
    pub(super) async fn receiver(
        &self,
        target: &QueueKey,
        store_id: &StoreId,
    ) -> Result<(QueueKey, Stands)> {
        for _ in 0..ATTEMPTS {
            let known = self.lookup_or_create(target, Some(store_id)).await?;
            if let Some(receiver) = known.route.key_in(store_id, target) {
                return Ok(receiver);
            }
            let Some(record) = self.management.find_queue(target).await? else {
                self.forget(target);
                continue;
            };
            let is_there = |segment: &Segment| segment.store_id == *store_id;
            if !record.placement.segments().any(is_there) {
                let placement = Catalogue::with_dead_letter_segment(&record.placement, store_id);
                let metadata = &record.metadata;
                let update =
                    self.management
                        .update_queue(target, metadata, &placement, record.version);
                update.await?;
            }
            self.forget(target);
        }
        Err(busy("the dead-letter queue is being changed by others"))
    }
}

/// What does not exist for a client that named it in a new queue is the client's fault.
pub(super) fn as_invalid_request(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound(Resource::Flavor | Resource::Queue) => {
            Error::invalid(error.sentence().to_owned()).caused_by(error)
        }
        _ => error,
    }
}

fn busy(sentence: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, sentence)
}
