//! What a project may use: requests a second, queues, messages.
//!
//! | quota | counted | exact |
//! |---|---|---|
//! | requests a second | a token bucket a project, in this server | of each server |
//! | queues | when one is made, by the management store | but for several that are made at once |
//! | messages of a queue | by its store, in the step that stores them (`MessageStore::post_within`) | see there |
//! | messages of a project | a census of its queues, and what this server has stored since | no, see [`Census`] |
//!
//! None of them costs a request that is let through a call of a store more than it makes anyway. A quota holds for what clients
//! post. What the service itself moves (dead letters, bridges, queues that change their pool, imports) is not refused: it would
//! have nowhere to go.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use isimud_contract::{
    Error, ErrorKind, Home, Kind, ManagementStore, Metadata, ProjectId, QueueKey, QueueSelection,
    Result,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::Messaging;
use super::settings::Settings;
use crate::catalogue::Catalogue;

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
}

/// Projects of which something is remembered, at the most. Beyond it all are forgotten, which lets them through once more.
const REMEMBERED: usize = 100_000;

/// A request that comes too soon may be tried again after so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooSoon(pub Duration);

/// Requests of projects: each has a bucket that holds those of one second, and fills at its rate.
#[derive(Debug, Default)]
pub(super) struct Rates(Mutex<HashMap<ProjectId, Bucket>>);

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
                if buckets.len() >= REMEMBERED {
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

/// Queues that are read at once for a census.
const AT_ONCE: usize = 100;

/// How old a census may be before another one is taken, while its project posts.
const OLD: Duration = Duration::from_secs(10);

/// The same for a project that has reached its quota: it may have deleted some.
const OLD_WHERE_FULL: Duration = Duration::from_secs(1);

/// Between two queues of a census: it takes no more than a fraction of a store's time.
const PAUSE: Duration = Duration::from_millis(2);

/// How many messages projects with a quota have: what a walk over a project's queues has counted, and what this server has
/// stored since. Walks are made in the background, some projects at a time, while they post: about 400 queues a second. So it
/// counts too many by what was deleted since the last walk, and too few by what was stored while that walked, and by other
/// servers since: nobody is refused for what is counted twice. A walk is ten seconds old at the most where the queues are
/// few, and as old as it takes to walk over them where they are many; one second for a project that is refused something.
#[derive(Debug)]
pub(super) struct Census {
    counts: Mutex<HashMap<ProjectId, Count>>,
    walks: Semaphore,
}

impl Default for Census {
    fn default() -> Self {
        Self {
            counts: Mutex::default(),
            walks: Semaphore::new(WALKS),
        }
    }
}

/// Projects whose messages are counted at a time: one of very many queues does not hold up the others.
const WALKS: usize = 8;

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    /// What the last walk found; none while there was none.
    found: Option<(u64, Instant)>,
    /// Stored by this server since that walk came to its end.
    since: u64,
    /// A walk is under way.
    is_walking: bool,
}

impl Census {
    /// Whether so many more messages are within a quota, and whether it is time for a walk, which the caller makes then.
    /// Counts them if they are.
    fn admit(&self, project: &ProjectId, more: u64, most: u64, now: Instant) -> (bool, bool) {
        let mut counts = self.counts();
        if counts.len() >= REMEMBERED && !counts.contains_key(project) {
            counts.clear();
        }
        let count = counts.entry(project.clone()).or_default();
        let known = count.found.map_or(0, |(found, _)| found) + count.since;
        let fits = known.saturating_add(more) <= most;
        if fits {
            count.since += more;
        }
        let old = if fits { OLD } else { OLD_WHERE_FULL };
        let is_old = count
            .found
            .is_none_or(|(_, at)| now.saturating_duration_since(at) >= old);
        let walks = is_old && !count.is_walking;
        if walks {
            count.is_walking = true;
        }
        (fits, walks)
    }

    /// Takes back what was counted, and was not stored after all.
    fn take_back(&self, project: &ProjectId, more: u64) {
        if let Some(count) = self.counts().get_mut(project) {
            count.since = count.since.saturating_sub(more);
        }
    }

    /// Says what a walk has found, if it came to its end.
    fn over(&self, project: &ProjectId, found: Option<u64>, now: Instant) {
        let mut counts = self.counts();
        // One that was forgotten meanwhile begins anew.
        let Some(count) = counts.get_mut(project) else {
            return;
        };
        count.is_walking = false;
        match found {
            Some(found) => {
                (count.found, count.since) = (Some((found, now)), 0);
            }
            // It is tried again after a while, and not with every post.
            None => count.found = Some((count.found.map_or(0, |(found, _)| found), now)),
        }
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<ProjectId, Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
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
        match self.quotas().requests_per_second(project) {
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

    /// How many messages a queue may have: as its metadata say, and no more than the project's queues may. `None` for any
    /// number.
    pub(super) fn most_messages(&self, queue: &QueueKey, settings: &Settings) -> Option<u64> {
        let bound = self.quotas().messages_per_queue(&queue.project);
        let own = settings.max_messages;
        own.into_iter().chain(bound).min()
    }

    /// Refuses a bound of a queue's own that is beyond what the project's queues may have.
    pub(super) fn check_own_bound(&self, queue: &QueueKey, metadata: &Metadata) -> Result<()> {
        let own = Settings::read(metadata).max_messages;
        match (own, self.quotas().messages_per_queue(&queue.project)) {
            (Some(own), Some(most)) if own > most => {
                let sentence = format!(
                    "_max_messages can not exceed {most}, which is the quota of this project."
                );
                Err(Error::invalid(sentence))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a bound of a queue's own where its store cannot count.
    pub(super) async fn check_countable(&self, metadata: &Metadata, home: &Home) -> Result<()> {
        if Settings::read(metadata).max_messages.is_none() {
            return Ok(());
        }
        let store = self.catalogue.open(home).await?.store;
        match store.capabilities().browse {
            true => Ok(()),
            false => Err(Error::invalid(
                "_max_messages cannot be kept in the pool of this queue: its option 'journal' is off, and so it does not \
                 know the messages that nobody has claimed.",
            )),
        }
    }

    /// Counts messages no more that were let in, and that no store has taken.
    pub(super) fn forgive_message_quota(&self, queue: &QueueKey, more: u64) {
        self.census.take_back(&queue.project, more);
    }

    /// Refuses messages beyond what a project may have, by the last census.
    pub(super) fn check_message_quota(&self, queue: &QueueKey, more: u64) -> Result<()> {
        let project = &queue.project;
        let Some(most) = self.quotas().messages(project) else {
            return Ok(());
        };
        let (fits, walks) = self.census.admit(project, more, most, Instant::now());
        if walks {
            let (census, project) = (Arc::clone(&self.census), project.clone());
            let (management, catalogue) =
                (Arc::clone(&self.management), Arc::clone(&self.catalogue));
            tokio::spawn(async move {
                let _turn = census.walks.acquire().await;
                let found = walk(&*management, &catalogue, &project).await;
                if let Err(error) = &found {
                    tracing::debug!(%error, %project, "the messages of a project could not be counted");
                }
                census.over(&project, found.ok(), Instant::now());
            });
        }
        match fits {
            true => Ok(()),
            false => Err(full(format!(
                "This project may have {most} messages in all its queues, and has as many."
            ))),
        }
    }
}

/// Counts the messages of a project. A queue whose store does not answer is passed over: the others are not to be refused
/// for it.
async fn walk(
    management: &dyn ManagementStore,
    catalogue: &Catalogue,
    project: &ProjectId,
) -> Result<u64> {
    let mut count = 0;
    for kind in [Kind::Queue, Kind::Topic] {
        let mut selection = QueueSelection {
            kind,
            limit: AT_ONCE,
            ..QueueSelection::default()
        };
        loop {
            let page = management.list_queues(project, &selection).await?;
            for record in &page {
                let queue = QueueKey::new(project.clone(), record.name.clone());
                let stats = async {
                    let route = catalogue.resolve(&record.place).await?;
                    route.stats(&queue).await
                };
                match stats.await {
                    Ok(stats) => count += stats.free + stats.claimed,
                    Err(error) => {
                        tracing::debug!(%error, %queue, "the messages of a queue are not counted");
                    }
                }
                tokio::time::sleep(PAUSE).await;
            }
            let Some(last) = page.last().filter(|_| page.len() == AT_ONCE) else {
                break;
            };
            selection.after = Some(last.name.shown().to_owned());
        }
    }
    Ok(count)
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
        for number in 0..=REMEMBERED {
            rates
                .take(&project(&format!("p{number}")), 1, now)
                .expect("the first of its project");
        }
        assert!(rates.0.lock().expect("it is whole").len() <= REMEMBERED);
    }

    #[test]
    fn a_census_adds_what_was_stored_since_its_walk() {
        let (census, start, p) = (Census::default(), Instant::now(), project("p"));
        // Nothing is known yet: it is let in, and a walk begins.
        assert_eq!(census.admit(&p, 4, 10, start), (true, true));
        assert_eq!(census.admit(&p, 2, 10, start), (true, false));
        census.over(&p, Some(6), start);
        assert_eq!(census.admit(&p, 4, 10, start), (true, false));
        assert_eq!(census.admit(&p, 1, 10, start), (false, false));
        let later = start + OLD_WHERE_FULL;
        assert_eq!(census.admit(&p, 1, 10, later), (false, true));
        assert_eq!(
            census.admit(&p, 1, 10, later),
            (false, false),
            "one walk at a time"
        );
        // Some have been deleted.
        census.over(&p, Some(7), later);
        assert_eq!(census.admit(&p, 3, 10, later), (true, false));
        // A walk that fails leaves what is known.
        let later = later + OLD;
        assert_eq!(census.admit(&p, 1, 10, later), (false, true));
        census.over(&p, None, later);
        assert_eq!(census.admit(&p, 1, 10, later), (false, false));
        // What no store has taken counts no more.
        census.take_back(&p, 3);
        assert_eq!(census.admit(&p, 3, 10, later), (true, false));
        assert_eq!(census.admit(&p, 1, 10, later), (false, false));
    }
}
