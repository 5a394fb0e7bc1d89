//! The catalogue: from a queue to the stores that have its messages.
//!
//! ```text
//! pool_registry     the pools as they are registered, and which of them takes a new queue
//! open              their stores: opened when needed, shared, closed when unused
//! circuit           refuses calls of a store that does not answer
//! segmented_store   the open stores of a queue's segments
//! position          where a listing goes on
//! redact            masks passwords
//! check             health, by a real round trip
//! ```
//!
//! The store of a queue is chosen once, at its creation, and is written in its record: by flavor and weight among the
//! pools, or it is the store of the configuration, which needs no registration. Nothing but a change of its flavor, or
//! an operator, moves a queue.
//!
//! Resolve, then call: [`Catalogue::resolve`] gives a [`SegmentedStore`], which is remembered with the queue's
//! settings, so that a call costs no more than one to a single store. Whoever remembers routes must forget them after
//! [`Change::Pools`](isimud_contract::Change): a route holds the stores open that it leads to.

mod check;
mod circuit;
mod open;
mod pool_registry;
mod position;
mod redact;
mod segmented_store;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use isimud_contract::{
    Error, ErrorKind, Flavor, FlavorName, LeftSegment, ManagementStore, MessageStore, Metadata,
    Placement, Pool, PoolName, ProjectId, Resource, Result, Segment, StoreId,
};

pub use self::check::{Check, Operation};
pub use self::open::ObserverFactory;
pub(crate) use self::open::Opened;
pub(crate) use self::pool_registry::PoolRegistry;
pub use self::position::Position;
pub use self::redact::shown;
pub(crate) use self::redact::{is_same_location, restored, restored_options, shown_options};
pub use self::segmented_store::Listed;
pub(crate) use self::segmented_store::{SegmentStore, SegmentedStore, carried, staging};

use self::open::Stores;

/// The name of the store of the configuration, where stores are named. No pool can have it.
pub const DEFAULT: &str = "default";

/// Pools that one reading of the management store asks for.
const PAGE_SIZE: usize = 200;

/// How long pools that could not be read are not asked for again.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Segments that a queue may have: one that moves again and again leaves so many places behind it.
const MAX_SEGMENTS: usize = 8;

/// Segments that a queue may have left without their being removed yet.
const MAX_LEFT_SEGMENTS: usize = 32;

/// Returns a random number below the one given, each as likely as any other.
pub type Random = Arc<dyn Fn(u64) -> u64 + Send + Sync>;

/// Opens the stores of pools.
pub trait Opener: fmt::Debug + Send + Sync + 'static {
    /// Checks a URI and options without opening anything. The sentence of what it refuses is for the client.
    fn check(&self, uri: &str, options: &Metadata) -> Result<()>;

    /// Refuses a place that whoever may register pools over the API may not choose: a file elsewhere than the operator
    /// allows. The sentence is for the client.
    fn admit(&self, uri: &str, options: &Metadata) -> Result<()>;

    /// Opens the store of a pool, and says which driver did.
    fn open(
        &self,
        pool: &str,
        uri: &str,
        options: &Metadata,
    ) -> Result<(&'static str, Arc<dyn MessageStore>)>;

    /// What two pools, each a URI and options, would have in common.
    fn shared(&self, one: (&str, &Metadata), other: (&str, &Metadata)) -> Result<Shared>;

    /// Whether a store can be open once only.
    fn is_exclusive(&self, uri: &str) -> bool;
}

/// What two pools have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shared {
    /// Nothing: no queue of one can be a queue of the other.
    Nothing,
    /// They keep their messages in one place, under the same names.
    Place,
    /// They are in one place, and a queue of one could have the name there of another queue of the other.
    Names,
}

impl Shared {
    /// From whether queues of both can meet in one place, and whether both call their queues the same.
    pub fn of(can_meet: bool, have_same_names: bool) -> Self {
        match (can_meet, have_same_names) {
            (false, _) => Self::Nothing,
            (true, true) => Self::Place,
            (true, false) => Self::Names,
        }
    }
}

/// What a [`Catalogue`] is made of.
pub struct Parts {
    /// Where pools are registered.
    pub management: Arc<dyn ManagementStore>,
    /// The store of the configuration: its URI, its driver's name, and itself.
    pub default: (String, &'static str, Arc<dyn MessageStore>),
    /// Whether queues without a flavor go there when no pool without a flavor takes them.
    pub default_takes_queues: bool,
    /// What opens pools.
    pub opener: Arc<dyn Opener>,
    /// Who hears of the calls of a store, by its name.
    pub counted: ObserverFactory,
    /// Source of random numbers.
    pub random: Random,
}

/// From a queue to the stores that have its messages.
pub struct Catalogue {
    management: Arc<dyn ManagementStore>,
    stores: Stores,
    default: Opened,
    default_uri: String,
    default_takes_queues: bool,
    /// The way to what is in the default store under the queue's own name.
    default_route: Arc<SegmentedStore>,
    random: Random,
    /// Counts the changes of pools that were heard of.
    changes: AtomicU64,
    /// The pools as of so many changes.
    registry: RwLock<Option<(u64, Arc<PoolRegistry>)>>,
    /// Held by the one who reads them; when that could not be done.
    reading: tokio::sync::Mutex<Option<Instant>>,
    /// Held by the one who removes a pool: it comes back if a queue was made in it meanwhile.
    removal: tokio::sync::Mutex<()>,
}

impl Catalogue {
    /// Puts the catalogue together; no pool is opened yet.
    pub fn new(parts: Parts) -> Self {
        let (uri, driver, store) = parts.default;
        let default = Opened::default(driver, store, (parts.counted)(DEFAULT));
        let segment_store = SegmentStore::new(Segment::default(), Arc::clone(&default.store));
        Self {
            default_route: Arc::new(SegmentedStore::to(segment_store)),
            stores: Stores::new(parts.opener, parts.counted),
            management: parts.management,
            default,
            default_uri: uri,
            default_takes_queues: parts.default_takes_queues,
            random: parts.random,
            changes: AtomicU64::new(0),
            registry: RwLock::default(),
            reading: tokio::sync::Mutex::default(),
            removal: tokio::sync::Mutex::default(),
        }
    }

    /// Forgets the pools, because one has changed. Nothing is read before somebody asks, or
    /// [`Catalogue::refresh`] does.
    pub(crate) fn forget(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Lets go of the stores of pools that are gone or have changed.
    pub(crate) async fn refresh(&self) -> Result<()> {
        let registry = self.registry().await?;
        self.stores.keep(&registry).await;
        Ok(())
    }

    /// The pools: as remembered, or read now if one has changed since.
    pub(crate) async fn registry(&self) -> Result<Arc<PoolRegistry>> {
        if let Some(registry) = self.remembered() {
            return Ok(registry);
        }
        // One reads for all who wait; if that fails it has failed for all of them.
        let mut failed = self.reading.lock().await;
        if let Some(registry) = self.remembered() {
            return Ok(registry);
        }
        if failed.is_some_and(|failed| failed.elapsed() < RETRY_DELAY) {
            let sentence = "the pools could not be read a moment ago";
            return Err(Error::new(ErrorKind::Unavailable, sentence));
        }
        let changes = self.changes.load(Ordering::Acquire);
        let read = self.read_registry().await;
        *failed = read.is_err().then(Instant::now);
        let registry = Arc::new(read?);
        let mut remembered = self
            .registry
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *remembered = Some((changes, Arc::clone(&registry)));
        Ok(registry)
    }

    fn remembered(&self) -> Option<Arc<PoolRegistry>> {
        let remembered = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        let (changes, registry) = remembered.as_ref()?;
        (*changes == self.changes.load(Ordering::Acquire)).then(|| Arc::clone(registry))
    }

    /// The pools as they are registered now.
    pub(crate) async fn read_registry(&self) -> Result<PoolRegistry> {
        let mut pools = Vec::new();
        loop {
            let after = pools
                .last()
                .map(|record: &isimud_contract::PoolRecord| record.pool.name.clone());
            let after = after.as_ref().map(PoolName::as_str);
            let page = self.management.list_pools(after, PAGE_SIZE).await?;
            let is_last = page.len() < PAGE_SIZE;
            pools.extend(page);
            if is_last {
                return Ok(PoolRegistry::new(pools));
            }
        }
    }

    /// The way to the messages of a queue that does not exist: to where it would be without any pool.
    pub(crate) fn default_route(&self) -> Arc<SegmentedStore> {
        Arc::clone(&self.default_route)
    }

    /// The way to the messages of a queue with this place. `Unavailable` when a store of it cannot be opened now.
    pub(crate) async fn resolve(&self, placement: &Placement) -> Result<Arc<SegmentedStore>> {
        if *placement == Placement::default() {
            return Ok(self.default_route());
        }
        let mut segment_stores = Vec::new();
        for segment in placement.segments() {
            let opened = self.open(&segment.store_id).await?;
            segment_stores.push(SegmentStore::new(segment.clone(), opened.store));
        }
        Ok(SegmentedStore::along(segment_stores).map_or_else(|| self.default_route(), Arc::new))
    }

    /// The way to everything that is to be removed with a queue: also to the segments that it has left, but not to what
    /// is in a pool that is not registered: nobody can reach that. Nor to a native client's queue that it has left.
    pub(crate) async fn resolve_registered(
        &self,
        placement: &Placement,
    ) -> Result<Arc<SegmentedStore>> {
        let mut segments = Vec::new();
        for segment in all_left(placement) {
            if self.is_registered(&segment.store_id).await? {
                let opened = self.open(&segment.store_id).await?;
                if !opened.store.capabilities().adopts || !segment.is_for_natives() {
                    segments.push(segment.clone());
                }
            }
        }
        for segment in placement.segments() {
            if self.is_registered(&segment.store_id).await? {
                segments.push(segment.clone());
            }
        }
        match Placement::of(segments) {
            Some(placement) => self.resolve(&placement).await,
            None => Ok(self.default_route()),
        }
    }

    /// The open store of a home.
    pub(crate) async fn open(&self, store_id: &StoreId) -> Result<Opened> {
        let name = match store_id {
            StoreId::Default => return Ok(self.default.clone()),
            StoreId::Pool(name) => name,
        };
        let mut registry = self.registry().await?;
        if registry.find(name).is_none() {
            // It may be so new that nobody has told of it yet, or on its way back.
            drop(self.removal().await);
            self.forget();
            registry = self.registry().await?;
        }
        let pool = registry.find(name).ok_or_else(|| {
            let sentence = "the queue is in a pool that is not registered";
            Error::new(ErrorKind::Unavailable, sentence).with("pool", name)
        })?;
        self.stores
            .of(pool)
            .await
            .map_err(|error| error.with("pool", name))
    }

    /// While this is held, a pool that is not registered may be so again when it is let go.
    pub(crate) async fn removal(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.removal.lock().await
    }

    /// Opens a pool's store for whoever asks, whether the pool is registered or not.
    pub(crate) async fn open_unregistered(&self, pool: &Pool) -> Result<Opened> {
        self.stores.open(pool, None).await
    }

    /// What opens pools.
    pub(crate) fn opener(&self) -> &dyn Opener {
        self.stores.opener()
    }

    /// What the store of the configuration has in common with a pool.
    pub(crate) fn shared_with_default(&self, pool: &Pool) -> Result<Shared> {
        let none = Metadata::new();
        self.opener()
            .shared((&*pool.uri, &pool.options), (&*self.default_uri, &none))
    }

    /// The flavor that a project means by a name. `NotFound(Flavor)` when it has none of that name.
    pub(crate) async fn flavor(&self, project: &ProjectId, name: &str) -> Result<Flavor> {
        let missing = || {
            let sentence = format!("Flavor {name} does not exist");
            Error::new(ErrorKind::NotFound(Resource::Flavor), sentence)
        };
        let parsed = FlavorName::parse(name).map_err(|_| missing())?;
        let found = self.management.find_flavor(&parsed).await?;
        found
            .filter(|flavor| flavor.project == *project)
            .ok_or_else(missing)
    }

    /// Chooses the home of a new queue. `NotFound(Pool)` when no store takes it.
    pub(crate) async fn choose(&self, flavor: Option<&Flavor>) -> Result<StoreId> {
        let registry = self.registry().await?;
        let name = flavor.map(|flavor| &flavor.name);
        if let Some(pool) = registry.choose_weighted(name, &self.random) {
            return Ok(StoreId::Pool(pool.name.clone()));
        }
        let sentence = match name {
            None if self.default_takes_queues => return Ok(StoreId::Default),
            None => "No pool takes queues without a flavor: an operator has to register one with a weight above 0."
                .to_owned(),
            Some(name) => format!("Flavor {name} has no pool that takes queues: an operator has to give one a weight above 0."),
        };
        Err(Error::new(ErrorKind::NotFound(Resource::Pool), sentence))
    }

    /// The homes for queues of a flavor, or of none, other than this one: one of them is chosen for a queue that leaves.
    pub(crate) async fn others(
        &self,
        flavor: Option<&Flavor>,
        store_id: &StoreId,
    ) -> Result<Vec<StoreId>> {
        let registry = self.registry().await?;
        let name = flavor.map(|flavor| &flavor.name);
        let members = registry.members(name).filter(|pool| pool.weight > 0);
        let pools = members.map(|pool| StoreId::Pool(pool.name.clone()));
        let mut others: Vec<StoreId> = pools.filter(|other| other != store_id).collect();
        if others.is_empty()
            && name.is_none()
            && self.default_takes_queues
            && *store_id != StoreId::Default
        {
            others.push(StoreId::Default);
        }
        Ok(others)
    }

    /// Whether a home that was chosen is there still.
    pub(crate) async fn is_registered(&self, store_id: &StoreId) -> Result<bool> {
        match store_id {
            StoreId::Default => Ok(true),
            StoreId::Pool(name) => Ok(self.management.find_pool(name).await?.is_some()),
        }
    }

    /// Whether a place takes what is posted to a store of a flavor, or of none.
    pub(crate) async fn fits(
        &self,
        placement: &Placement,
        flavor: Option<&Flavor>,
    ) -> Result<bool> {
        Ok(self
            .registry()
            .await?
            .fits(&placement.last().store_id, flavor))
    }

    /// The place of a queue that goes to a store: with one segment more, whose numbers of arrival are above `after`.
    /// `Unavailable` while it has moved too often to be found in all its places.
    ///
    /// A queue comes back to the segment that it has left there, by whose name native clients know it; but not to one that
    /// may be removed at any moment.
    pub(crate) fn with_target(
        placement: &Placement,
        store_id: &StoreId,
        after: u64,
    ) -> Result<Placement> {
        let count = placement.segments().count();
        if count >= MAX_SEGMENTS || placement.left().len() >= MAX_LEFT_SEGMENTS {
            let sentence = "The queue is still on its way from earlier moves; try again later.";
            return Err(Error::new(ErrorKind::Unavailable, sentence));
        }
        let kept = placement.left().iter().filter(|left| left.is_going);
        let kept = placement.segments().chain(kept.map(|left| &left.segment));
        let generation = Placement::free_generation(kept, store_id);
        let segment = Segment {
            store_id: store_id.clone(),
            generation,
            after,
        };
        let comes_back = [&segment, &segment.side()];
        let stays_left =
            |left: &&LeftSegment| !comes_back.iter().any(|one| one.is_same_as(&left.segment));
        let left: Vec<LeftSegment> = placement
            .left()
            .iter()
            .filter(stays_left)
            .cloned()
            .collect();
        let segments = placement.segments().cloned().chain([segment]);
        Ok(Placement::of(segments)
            .unwrap_or_default()
            .having_left(left))
    }

    /// The place of a queue with another home for what is posted: instead of the one it has, in which nothing is.
    pub(crate) fn with_replaced_target(placement: &Placement, store_id: StoreId) -> Placement {
        let mut segments: Vec<Segment> = placement.segments().cloned().collect();
        segments.pop();
        let generation =
            Placement::free_generation(segments.iter().chain(all_left(placement)), &store_id);
        let after = placement.last().after;
        segments.push(Segment {
            store_id,
            generation,
            after,
        });
        let left = placement.left().iter().cloned();
        Placement::of(segments)
            .unwrap_or_default()
            .having_left(left)
    }

    /// The place of a queue that gets dead letters from a store: with a segment there, which nothing else is posted to.
    pub(crate) fn with_dead_letter_segment(placement: &Placement, store_id: &StoreId) -> Placement {
        with_segment(
            placement,
            store_id.clone(),
            placement.segments().count() - 1,
            0,
        )
    }

    /// Has a store do everything that clients ask of it.
    pub(crate) async fn check(&self, name: &str, store_id: &StoreId) -> Check {
        let checked = match self.open(store_id).await {
            Ok(opened) => check::round_trip(name, &*opened.store).await,
            Err(error) => Err(error),
        };
        checked.unwrap_or_else(|error| Check::failed(name, &error))
    }

    /// Proves that the store of the configuration answers.
    pub(crate) async fn ping(&self) -> Result<()> {
        self.default.store.ping().await
    }

    /// Closes every store.
    pub(crate) async fn close(&self) -> Result<()> {
        let pools = self.stores.close().await;
        pools.and(self.default.close().await)
    }
}

/// The segments that a queue has left.
fn all_left(placement: &Placement) -> impl Iterator<Item = &Segment> + Clone {
    placement.left().iter().map(|left| &left.segment)
}

/// A place with another segment before the one at `at`, whose numbers of arrival are above `after`.
fn with_segment(placement: &Placement, store_id: StoreId, at: usize, after: u64) -> Placement {
    let mut segments: Vec<Segment> = placement.segments().cloned().collect();
    let generation =
        Placement::free_generation(segments.iter().chain(all_left(placement)), &store_id);
    segments.insert(
        at,
        Segment {
            store_id,
            generation,
            after,
        },
    );
    let left = placement.left().iter().cloned();
    Placement::of(segments)
        .unwrap_or_default()
        .having_left(left)
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalogue")
            .field("default", &self.default)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(pool: Option<&str>, generation: u32) -> Segment {
        let pool = pool.map(|name| PoolName::parse(name).expect("a name"));
        Segment::new(pool.map_or(StoreId::Default, StoreId::Pool), generation)
    }

    #[test]
    fn a_queue_that_comes_back_gets_a_name_of_its_own_there() {
        let placement = Placement::of([segment(None, 0), segment(Some("a"), 0)]).expect("segments");
        let back = with_segment(&placement, StoreId::Default, 2, 0);
        let segments: Vec<_> = back.segments().cloned().collect();
        assert_eq!(
            segments,
            [segment(None, 0), segment(Some("a"), 0), segment(None, 1)]
        );
        let elsewhere = Catalogue::with_replaced_target(&back, segment(Some("b"), 0).store_id);
        let segments: Vec<_> = elsewhere.segments().cloned().collect();
        assert_eq!(
            segments,
            [
                segment(None, 0),
                segment(Some("a"), 0),
                segment(Some("b"), 0)
            ]
        );
        // It has its old name again, unless what has that is about to be removed.
        for (is_going, generation) in [(false, 0), (true, 1)] {
            let left = [segment(None, 0), segment(None, 0).side()];
            let left = left.map(|segment| LeftSegment { segment, is_going });
            let placement = Placement::at(segment(Some("b"), 0).store_id).having_left(left);
            let back = Catalogue::with_target(&placement, &StoreId::Default, 7).expect("a place");
            assert_eq!(back.last().generation, generation);
            assert_eq!(back.left().is_empty(), !is_going);
        }
        let dead = Catalogue::with_dead_letter_segment(
            &Placement::default(),
            &segment(Some("a"), 0).store_id,
        );
        let segments: Vec<_> = dead.segments().cloned().collect();
        assert_eq!(segments, [segment(Some("a"), 0), segment(None, 0)]);
    }
}
