//! Where the messages of a queue are: chosen when it is made, and changed with its flavor.

use std::sync::Arc;
use std::time::Duration;

use isimud_contract::{
    Change, Error, ErrorKind, Flavor, GAP, Home, Metadata, Place, QueueKey, Resource, Result,
    Segment, Stands,
};

use super::known::Queue;
use super::settings::{self, Settings};
use super::{ATTEMPTS, Messaging};
use crate::catalogue::{Catalogue, Route};

/// How long a store that a queue leaves may take to say how far its numbers of arrival are.
const PATIENCE: Duration = Duration::from_secs(1);

/// How far ahead of the clock a store is assumed to be at the most that cannot be asked: five and a half months, or as
/// many messages more than a thousand a second.
const FAR: u64 = 1 << 34;

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
    pub(super) async fn known(&self, queue: &QueueKey) -> Result<Option<Arc<Queue>>> {
        let read = async || {
            let finding = self.management.find_queue(queue);
            let (record, heard_until) = tokio::try_join!(finding, self.heard_until(queue))?;
            let Some(record) = record else {
                return Ok(None);
            };
            let settings = Settings {
                heard_until,
                ..Settings::read(&record.metadata)
            };
            Ok(Some(Arc::new(Queue {
                settings: Arc::new(settings),
                route: self.catalogue.resolve(&record.place).await?,
            })))
        };
        self.known.get(queue, read).await
    }

    /// What is known of a queue that is created now if it does not exist: in `home`, or where the catalogue chooses.
    pub(super) async fn known_or_create(
        &self,
        queue: &QueueKey,
        home: Option<&Home>,
    ) -> Result<Arc<Queue>> {
        for _ in 0..ATTEMPTS {
            if let Some(known) = self.known(queue).await? {
                return Ok(known);
            }
            self.create(queue, &Metadata::new(), home).await?;
        }
        Err(busy("the queue is being deleted again and again"))
    }

    /// What a queue's metadata mean for its messages; `None` when the queue does not exist.
    pub(super) async fn settings(&self, queue: &QueueKey) -> Result<Option<Arc<Settings>>> {
        let known = self.known(queue).await?;
        Ok(known.map(|queue| Arc::clone(&queue.settings)))
    }

    /// The way to a queue's messages. One that does not exist has none, wherever they are looked for.
    pub(super) async fn route(&self, queue: &QueueKey) -> Result<Arc<Route>> {
        Ok(match self.known(queue).await? {
            Some(queue) => Arc::clone(&queue.route),
            None => self.catalogue.usual(),
        })
    }

    pub(super) fn forget(&self, queue: &QueueKey) {
        self.known.forget(Change::Queue(queue));
    }

    /// Creates a queue in `home`, or where the catalogue chooses, and sees to it that the pool is not removed at the
    /// same time: whoever removes one looks for queues afterwards, and this looks for the pool.
    pub(super) async fn create(
        &self,
        queue: &QueueKey,
        metadata: &Metadata,
        home: Option<&Home>,
    ) -> Result<bool> {
        let chosen = match home {
            Some(home) => Ok(home.clone()),
            None => self.choose(queue, metadata).await,
        };
        let checked = match chosen {
            Ok(chosen) => {
                let fits = async {
                    self.check_countable(metadata, &chosen).await?;
                    match home {
                        Some(_) => Ok(()),
                        None => self.check_arrival(queue, &chosen, WhileAway::Pass).await,
                    }
                };
                fits.await.map(|()| chosen)
            }
            Err(error) => Err(error),
        };
        let home = match checked {
            Ok(home) => home,
            // One that exists is left as it is, whatever could be chosen for it now.
            Err(error) => match self.management.find_queue(queue).await? {
                Some(_) => return Ok(false),
                None => return Err(error),
            },
        };
        let place = Place::at(home.clone());
        let created = self
            .management
            .create_queue(queue, metadata, &place)
            .await?;
        self.forget(queue);
        if created && !self.catalogue.is_there(&home).await? {
            self.catalogue.forget();
            self.place_again(queue, &home).await?;
        }
        Ok(created)
    }

    /// Whether posts to a queue that comes to a store find one there. `NotFound(Queue)` where a pool takes queues as they are
    /// and this one is missing: the sentence names it, and the pool. `Invalid` where the pool has no place for it. Of a store that does not answer nothing is known: that
    /// is `Unavailable`, or passed.
    pub(super) async fn check_arrival(
        &self,
        queue: &QueueKey,
        home: &Home,
        while_away: WhileAway,
    ) -> Result<()> {
        let asked = async {
            let opened = self.catalogue.open(home).await?;
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
                    match home {
                        Home::Default => "the default store".to_owned(),
                        Home::Pool(name) => format!("the pool {name}"),
                    },
                    error.sentence()
                );
                Err(Error::new(kind, sentence).caused_by(error))
            }
            ErrorKind::Unavailable if while_away == WhileAway::Pass => Ok(()),
            _ if while_away == WhileAway::Pass => {
                tracing::debug!(%error, %queue, "whether the queue is in its pool is not known");
                Ok(())
            }
            _ => Err(error),
        })
    }

    pub(super) async fn choose(&self, queue: &QueueKey, metadata: &Metadata) -> Result<Home> {
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
    pub(super) async fn place_again(&self, queue: &QueueKey, gone: &Home) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let record = match self.management.find_queue(queue).await? {
                Some(record) if record.place.last().home == *gone => record,
                _ => return Ok(()),
            };
            let home = self.choose(queue, &record.metadata).await?;
            let place = Catalogue::replaced(&record.place, home.clone());
            let metadata = &record.metadata;
            let update = self
                .management
                .update_queue(queue, metadata, &place, record.version);
            let updated = update.await?.is_some();
            self.forget(queue);
            if updated && self.catalogue.is_there(&home).await? {
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
        place: &Place,
        (before, after): (&Metadata, &Metadata),
    ) -> Result<Place> {
        if settings::flavor(before) == settings::flavor(after) {
            return Ok(place.clone());
        }
        let flavor = self.flavor(queue, after).await?;
        if self.catalogue.fits(place, flavor.as_ref()).await? {
            return Ok(place.clone());
        }
        let home = self.catalogue.choose(flavor.as_ref()).await?;
        let arrives = self.check_arrival(queue, &home, WhileAway::Refuse).await;
        arrives.map_err(of_the_request)?;
        self.appended(queue, place, &home).await
    }

    /// The place of a queue that goes to a store: as it is where it is there already, else with one segment more.
    /// `Invalid` while it has moved too often to be found in all its places.
    pub(super) async fn appended(
        &self,
        queue: &QueueKey,
        place: &Place,
        home: &Home,
    ) -> Result<Place> {
        if place.last().home == *home {
            return Ok(place.clone());
        }
        let after = self.numbers_begin(queue, place).await;
        Catalogue::appended(place, home, after)
    }

    /// What the numbers of arrival of a new segment are above: everything that the segments of a place have given, and
    /// will give to posts of servers that have not heard of the new one yet.
    ///
    /// A store that cannot be asked now is assumed to be far ahead of the clock. That costs nothing: numbers go on from
    /// there one by one, until the clock is as far.
    async fn numbers_begin(&self, queue: &QueueKey, place: &Place) -> u64 {
        let now = self.signer.now().0.unsigned_abs();
        let given = async {
            let route = self.catalogue.resolve(place).await?;
            Ok::<_, Error>(route.stats(queue).await?.last_arrival)
        };
        let left = place.left().iter().map(|left| &left.segment);
        let every = place.segments().chain(left);
        let known = every.map(|segment| segment.after).max();
        let known = known.unwrap_or_default().max(now);
        match tokio::time::timeout(PATIENCE, given).await {
            Ok(Ok(last)) => known.max(last).saturating_add(2 * GAP),
            Ok(Err(error)) => {
                tracing::warn!(%error, %queue, "a store that the queue leaves does not say how far its numbers of arrival are");
                known.saturating_add(FAR)
            }
            Err(_) => {
                tracing::warn!(%queue, "a store that the queue leaves does not say in time how far its numbers of arrival are");
                known.saturating_add(FAR)
            }
        }
    }

    /// The queue that gets dead letters in a store, by its name there, and where they stand in it. It is created there if it does not exist; one
    /// that is elsewhere gets a segment there, from which its messages are read before its others.
    pub(super) async fn receiver(
        &self,
        target: &QueueKey,
        home: &Home,
    ) -> Result<(QueueKey, Stands)> {
        for _ in 0..ATTEMPTS {
            let known = self.known_or_create(target, Some(home)).await?;
            if let Some(receiver) = known.route.key_in(home, target) {
                return Ok(receiver);
            }
            let Some(record) = self.management.find_queue(target).await? else {
                self.forget(target);
                continue;
            };
            let is_there = |segment: &Segment| segment.home == *home;
            if !record.place.segments().any(is_there) {
                let place = Catalogue::receiving(&record.place, home);
                let metadata = &record.metadata;
                let update = self
                    .management
                    .update_queue(target, metadata, &place, record.version);
                update.await?;
            }
            self.forget(target);
        }
        Err(busy("the dead-letter queue is being changed by others"))
    }
}

/// What does not exist for a client that named it in a new queue is the client's fault.
pub(super) fn of_the_request(error: Error) -> Error {
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
