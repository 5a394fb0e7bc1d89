//! What a project may use: requests a second, queues, messages, bytes.
//!
//! | quota | counted | exact |
//! |---|---|---|
//! | requests a second | a token bucket a project, in this server | of each server |
//! | queues | when one is made, by the management store | but for several that are made at once |
//! | messages of a queue | by its store, in the step that stores them (`MessageStore::post_within`) | see there |
//! | messages of a project, bytes of a queue and of a project | a count in the background, and what this server has stored since | no, see [`census`](super::census) |
//!
//! None of them costs a request that fits a call of a store more than it makes anyway, and a queue without a bound pays
//! nothing. Bytes are those of [`Message::size`], as the store gets the message: sealed, where the queue is encrypted. What a
//! store keeps beside them (ids, times, indexes) is bounded by the number of messages. A quota holds for what clients
//! post. What the service itself moves (dead letters, bridges, queues that change their pool, imports) is not refused: it would
//! have nowhere to go.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use isimud_contract::{
    Error, ErrorKind, Kind, Message, Metadata, ProjectId, QueueKey, Result, StoreId,
};
use quick_cache::DefaultHashBuilder;
use serde::{Deserialize, Serialize};

use super::Messaging;
use super::census::{Admitted, Census};
use super::counting::{What, count_bytes, count_project, step};
use super::queue_cache::Queue;
use super::seal::sealed_len;
use super::settings::Settings;

/// What every project may use, and what some may. 0 stands for no bound.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quotas {
    /// Requests a second; as many may come at once.
    pub max_requests_per_second: u32,
    /// Queues and topics.
    pub max_queues: u64,
    /// Messages in one queue.
    pub max_messages_per_queue: u64,
    /// Messages in all queues of a project.
    pub max_messages: u64,
    /// Bytes of bodies and headers in one queue.
    pub max_bytes_per_queue: u64,
    /// Bytes of bodies and headers in all queues of a project.
    pub max_bytes: u64,
    /// What is different for a project, by its name.
    pub projects: BTreeMap<String, Own>,
}

/// What is different for one project. What it does not say is as for every project.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Own {
    /// As in [`Quotas`].
    pub max_requests_per_second: Option<u32>,
    /// As in [`Quotas`].
    pub max_queues: Option<u64>,
    /// As in [`Quotas`].
    pub max_messages_per_queue: Option<u64>,
    /// As in [`Quotas`].
    pub max_messages: Option<u64>,
    /// As in [`Quotas`].
    pub max_bytes_per_queue: Option<u64>,
    /// As in [`Quotas`].
    pub max_bytes: Option<u64>,
}

impl Quotas {
    /// Refuses names that no project can have.
    pub(crate) fn check(&self) -> Result<()> {
        match self
            .projects
            .keys()
            .find(|name| ProjectId::parse(name).is_err())
        {
            Some(name) => Err(Error::invalid(format!(
                "quotas.projects names '{name}', which no project can be called"
            ))),
            None => Ok(()),
        }
    }

    fn own<T: Copy>(&self, project: &ProjectId, own: impl Fn(&Own) -> Option<T>, every: T) -> T {
        let found = match self.projects.is_empty() {
            true => None,
            false => self.projects.get(project.as_str()),
        };
        found.and_then(own).unwrap_or(every)
    }

    fn requests_per_second(&self, project: &ProjectId) -> u32 {
        let every = self.max_requests_per_second;
        self.own(project, |own| own.max_requests_per_second, every)
    }

    fn queues(&self, project: &ProjectId) -> Option<u64> {
        let most = self.own(project, |own| own.max_queues, self.max_queues);
        (most > 0).then_some(most)
    }

    /// Messages that a queue of a project may have; `None` for any number.
    pub(super) fn messages_per_queue(&self, project: &ProjectId) -> Option<u64> {
        let every = self.max_messages_per_queue;
        let most = self.own(project, |own| own.max_messages_per_queue, every);
        (most > 0).then_some(most)
    }

    fn messages(&self, project: &ProjectId) -> Option<u64> {
        let most = self.own(project, |own| own.max_messages, self.max_messages);
        (most > 0).then_some(most)
    }

    /// Bytes that a queue of a project may have; `None` for any number.
    fn bytes_per_queue(&self, project: &ProjectId) -> Option<u64> {
        let every = self.max_bytes_per_queue;
        let most = self.own(project, |own| own.max_bytes_per_queue, every);
        (most > 0).then_some(most)
    }

    /// What holds for the messages of a project.
    fn bounds(&self, project: &ProjectId) -> Bounds {
        Bounds {
            messages: self.messages(project),
            bytes: self.bytes(project),
            messages_per_queue: self.messages_per_queue(project),
            bytes_per_queue: self.bytes_per_queue(project),
        }
    }

    fn bytes(&self, project: &ProjectId) -> Option<u64> {
        let most = self.own(project, |own| own.max_bytes, self.max_bytes);
        (most > 0).then_some(most)
    }
}

/// What the messages of a project may be, read once a request; `None` for any number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    messages: Option<u64>,
    bytes: Option<u64>,
    messages_per_queue: Option<u64>,
    bytes_per_queue: Option<u64>,
}

impl Bounds {
    /// How many messages a queue may have: as its metadata say, and no more than the project's queues may.
    pub(super) fn of_queue(&self, settings: &Settings) -> Option<u64> {
        let own = settings.max_messages;
        own.into_iter().chain(self.messages_per_queue).min()
    }

    /// The same for bytes.
    fn bytes_of_queue(&self, settings: &Settings) -> Option<u64> {
        let own = settings.max_bytes;
        own.into_iter().chain(self.bytes_per_queue).min()
    }

    /// Whether bytes of a queue are counted.
    fn bound_bytes(&self, settings: &Settings) -> bool {
        self.bytes.or(self.bytes_of_queue(settings)).is_some()
    }
}

/// Projects of which something is remembered, at the most. Beyond it all are forgotten, which lets them through once more.
const CACHE_CAPACITY: usize = 100_000;

/// A request that comes too soon may be tried again after so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooSoon(pub Duration);

/// Requests of projects: each has a bucket that holds those of one second, and fills at its rate.
#[derive(Debug, Default)]
pub(super) struct Rates(Mutex<HashMap<ProjectId, Bucket, DefaultHashBuilder>>);

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Rates {
    fn take(&self, project: &ProjectId, rate: u32, now: Instant) -> Result<(), TooSoon> {
        let (rate, full) = (f64::from(rate), f64::from(rate));
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = match buckets.get_mut(project) {
            Some(bucket) => bucket,
            None => {
                if buckets.len() >= CACHE_CAPACITY {
                    buckets.clear();
                }
                let new = Bucket {
                    left: full,
                    at: now,
                };
                buckets.entry(project.clone()).or_insert(new)
            }
        };
        let gone = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.left = (bucket.left + gone * rate).min(full);
        bucket.at = now;
        if bucket.left >= 1.0 {
            bucket.left -= 1.0;
            return Ok(());
        }
        Err(TooSoon(Duration::from_secs_f64((1.0 - bucket.left) / rate)))
    }
}

/// What is counted of projects and queues, each by a census of its own.
#[derive(Debug, Default)]
pub(super) struct Estimates {
    messages: Arc<Census<ProjectId>>,
    bytes: Arc<Census<ProjectId>>,
    queue_bytes: Arc<Census<QueueKey>>,
}

/// Bytes that were let in, where there is a bound.
#[derive(Debug, Default)]
pub(super) struct AdmittedBytes {
    of_project: Option<Admitted>,
    of_queue: Option<Admitted>,
}

impl AdmittedBytes {
    /// No store has taken them: they count no more.
    pub(super) fn forgive(self) {
        if let Some(bytes) = self.of_project {
            bytes.forgive();
        }
        if let Some(bytes) = self.of_queue {
            bytes.forgive();
        }
    }
}

/// What is refused because something is full.
fn full(sentence: String) -> Error {
    Error::new(ErrorKind::Full, sentence)
}

impl Messaging {
    /// What projects may use.
    pub fn quotas(&self) -> Arc<Quotas> {
        self.quotas.get()
    }

    /// Changes what projects may use, from the next request on.
    pub fn set_quotas(&self, quotas: Quotas) {
        self.quotas.set(quotas);
    }

    /// Lets a request of a project in, or says when it may come again.
    pub fn admit(&self, project: &ProjectId) -> Result<(), TooSoon> {
        match self.quotas.read(|it| it.requests_per_second(project)) {
            0 => Ok(()),
            rate => self.rates.take(project, rate, Instant::now()),
        }
    }

    /// Refuses one more queue of a project that has as many as it may. Several at the same time may all be let in.
    pub(super) async fn check_queue_quota(&self, queue: &QueueKey) -> Result<()> {
        let Some(most) = self.quotas().queues(&queue.project) else {
            return Ok(());
        };
        if self.management.find_queue(queue).await?.is_some() {
            return Ok(());
        }
        let mut count = 0;
        for kind in [Kind::Queue, Kind::Topic] {
            count += self.management.count_queues(&queue.project, kind).await?;
        }
        if count < most {
            return Ok(());
        }
        Err(full(format!(
            "This project may have {most} queues and topics, and has as many."
        )))
    }

    /// What the messages of a queue's project may be now.
    pub(super) fn bounds(&self, queue: &QueueKey) -> Bounds {
        self.quotas.read(|quotas| quotas.bounds(&queue.project))
    }

    /// Refuses a bound of a queue's own that is beyond what the project's queues may have.
    pub(super) fn check_own_bound(&self, queue: &QueueKey, metadata: &Metadata) -> Result<()> {
        let (settings, quotas) = (Settings::read(metadata), self.quotas());
        let project = &queue.project;
        let bounds = [
            (
                "_max_messages",
                settings.max_messages,
                quotas.messages_per_queue(project),
            ),
            (
                "_max_bytes",
                settings.max_bytes,
                quotas.bytes_per_queue(project),
            ),
        ];
        for (key, own, quota) in bounds {
            if let (Some(own), Some(most)) = (own, quota)
                && own > most
            {
                let sentence =
                    format!("{key} can not exceed {most}, which is the quota of this project.");
                return Err(Error::invalid(sentence));
            }
        }
        Ok(())
    }

    /// Refuses a bound of a queue's own where its store cannot count.
    pub(super) async fn check_countable(
        &self,
        metadata: &Metadata,
        store_id: &StoreId,
    ) -> Result<()> {
        let settings = Settings::read(metadata);
        let key = match (settings.max_messages, settings.max_bytes) {
            (Some(_), _) => "_max_messages",
            (None, Some(_)) => "_max_bytes",
            (None, None) => return Ok(()),
        };
        let store = self.catalogue.open(store_id).await?.store;
        match store.capabilities().browse {
            true => Ok(()),
            false => Err(Error::invalid(format!(
                "{key} cannot be kept in the pool of this queue: its option 'journal' is off, and so it does not know the \
                 messages that nobody has claimed."
            ))),
        }
    }

    /// Refuses messages beyond what a project may have. Those that are let in are counted; `None` where there is no bound.
    pub(super) async fn check_message_quota(
        &self,
        queue: &QueueKey,
        bounds: &Bounds,
        more: u64,
    ) -> Result<Option<Admitted>> {
        let project = &queue.project;
        let Some(most) = bounds.messages else {
            return Ok(None);
        };
        let messages = &self.estimates.messages;
        let count = |census| self.counting(census, project, What::Messages);
        let admitting = messages.admit(project, more, most, Instant::now(), count);
        match admitting.await {
            Some(admitted) => Ok(Some(admitted)),
            None => Err(full(format!(
                "This project may have {most} messages in all its queues, and has as many."
            ))),
        }
    }

    /// Refuses messages with more bytes than a project or a queue may have. Those that are let in are counted.
    pub(super) async fn check_byte_quotas(
        &self,
        queue: &QueueKey,
        bounds: &Bounds,
        known: &Queue,
        messages: &[Message],
    ) -> Result<AdmittedBytes> {
        let mut admitted = AdmittedBytes::default();
        let (of_project, of_queue) = (bounds.bytes, bounds.bytes_of_queue(&known.settings));
        // A store that cannot count has no bound, as with messages, and what it has counts for nobody.
        if of_project.or(of_queue).is_none() || !known.route.newest().browses() {
            return Ok(admitted);
        }
        let (project, now) = (&queue.project, Instant::now());
        let count = messages.len() as u64;
        let bytes = messages.iter().map(Message::size).sum();
        if let Some(most) = of_project {
            let counting = |census| self.counting(census, project, What::Bytes);
            let census = &self.estimates.bytes;
            let of_project = census.admit(project, bytes, most, now, counting).await;
            let of_project = of_project.ok_or_else(|| {
                full(format!(
                    "This project may have {most} bytes of messages in all its queues, and has no room for these."
                ))
            })?;
            of_project.note_length(count);
            admitted.of_project = Some(of_project);
        }
        if let Some(most) = of_queue {
            let counting = |census| self.counting_queue(census, queue);
            let census = &self.estimates.queue_bytes;
            let of_queue = census.admit(queue, bytes, most, now, counting).await;
            let Some(of_queue) = of_queue else {
                admitted.forgive();
                return Err(full(format!(
                    "This queue may have {most} bytes of messages, and has no room for these."
                )));
            };
            of_queue.note_length(count);
            admitted.of_queue = Some(of_queue);
        }
        Ok(admitted)
    }

    /// Counts messages no more that are gone, whose bytes are not known.
    pub(super) fn note_deleted(&self, queue: &QueueKey, known: &Settings, deleted: usize) {
        if deleted == 0 {
            return;
        }
        let (deleted, bounds) = (deleted as u64, self.bounds(queue));
        let estimates = &self.estimates;
        if bounds.messages.is_some() {
            estimates.messages.take_off(&queue.project, deleted);
        }
        if bounds.bound_bytes(known) {
            estimates.bytes.take_off_messages(&queue.project, deleted);
            estimates.queue_bytes.take_off_messages(queue, deleted);
        }
    }

    /// Counts messages no more that a client has taken.
    pub(super) fn note_popped(&self, queue: &QueueKey, known: &Settings, popped: &[Message]) {
        if popped.is_empty() {
            return;
        }
        let (bounds, estimates) = (self.bounds(queue), &self.estimates);
        if bounds.messages.is_some() {
            let messages = popped.len() as u64;
            estimates.messages.take_off(&queue.project, messages);
        }
        if bounds.bound_bytes(known) {
            // As they were stored.
            let size = |message: &Message| match message.sealed {
                true => {
                    message.size() + (sealed_len(message.body.len()) - message.body.len()) as u64
                }
                false => message.size(),
            };
            let bytes = popped.iter().map(size).sum();
            estimates.bytes.take_off(&queue.project, bytes);
            estimates.queue_bytes.take_off(queue, bytes);
        }
    }

    /// Counts messages again that nobody has taken after all.
    pub(super) fn note_put_back(&self, queue: &QueueKey, messages: usize, bytes: u64) {
        let estimates = &self.estimates;
        estimates.messages.add(&queue.project, messages as u64);
        estimates.bytes.add(&queue.project, bytes);
        estimates.queue_bytes.add(queue, bytes);
    }

    /// Counts what a project has, of this server's queues and stores.
    fn counting<K: Send + Sync + 'static>(
        &self,
        census: Arc<Census<K>>,
        project: &ProjectId,
        what: What,
    ) -> impl Future<Output = Result<u64>> + Send + use<K> {
        let (management, catalogue) = (Arc::clone(&self.management), Arc::clone(&self.catalogue));
        let project = project.clone();
        async move { count_project(&management, &catalogue, &census.steps, &project, what).await }
    }

    /// Counts the bytes of a queue.
    fn counting_queue<K: Send + Sync + 'static>(
        &self,
        census: Arc<Census<K>>,
        queue: &QueueKey,
    ) -> impl Future<Output = Result<u64>> + Send + use<K> {
        let (management, catalogue) = (Arc::clone(&self.management), Arc::clone(&self.catalogue));
        let queue = queue.clone();
        async move {
            let find = || {
                let (management, queue) = (Arc::clone(&management), queue.clone());
                async move { management.find_queue(&queue).await }
            };
            let found = step(&census.steps, find).await?;
            let Some(record) = found else {
                return Ok(0);
            };
            let route = catalogue.resolve(&record.placement).await?;
            count_bytes(&route, &queue, &census.steps).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(name: &str) -> ProjectId {
        ProjectId::parse(name).expect("a project")
    }

    #[test]
    fn a_project_has_its_own_quotas_where_it_has_some_and_those_of_all_otherwise() {
        let own = Own {
            max_queues: Some(0),
            max_messages: Some(7),
            ..Own::default()
        };
        let quotas = Quotas {
            max_requests_per_second: 5,
            max_queues: 3,
            projects: [("large".to_owned(), own)].into(),
            ..Quotas::default()
        };
        let (large, other) = (project("large"), project("other"));
        assert_eq!(
            (quotas.queues(&large), quotas.queues(&other)),
            (None, Some(3))
        );
        assert_eq!(quotas.requests_per_second(&large), 5);
        assert_eq!(quotas.messages(&large), Some(7));
        assert_eq!(
            (quotas.messages(&other), quotas.messages_per_queue(&large)),
            (None, None)
        );
    }

    #[test]
    fn a_bucket_holds_a_second_of_requests_and_fills_at_the_rate() {
        let (rates, start) = (Rates::default(), Instant::now());
        let (one, other) = (project("one"), project("other"));
        for _ in 0..4 {
            assert_eq!(rates.take(&one, 4, start), Ok(()));
        }
        assert_eq!(
            rates.take(&one, 4, start),
            Err(TooSoon(Duration::from_millis(250)))
        );
        assert_eq!(rates.take(&other, 4, start), Ok(()), "another project");
        let later = start + Duration::from_millis(250);
        assert_eq!(rates.take(&one, 4, later), Ok(()));
        rates.take(&one, 4, later).expect_err("it is empty again");
        let much_later = start + Duration::from_secs(100);
        let taken = (0..10).filter(|_| rates.take(&one, 4, much_later).is_ok());
        assert_eq!(taken.count(), 4, "it holds no more than a second's");
    }

    #[test]
    fn buckets_are_not_without_number() {
        let (rates, now) = (Rates::default(), Instant::now());
        for number in 0..=CACHE_CAPACITY {
            rates
                .take(&project(&format!("p{number}")), 1, now)
                .expect("the first of its project");
        }
        assert!(rates.0.lock().expect("it is whole").len() <= CACHE_CAPACITY);
    }
}
