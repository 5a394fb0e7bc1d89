//! The catalogue: from a queue to the stores that have its messages.
//!
//! ```text
//! roster   the pools as they are registered, and which of them takes a new queue
//! open     their stores: opened when needed, shared, closed when nobody uses them    circuit   cut off while dead
//! route    a queue's way to its messages        position   where a listing goes on
//! secret   passwords are not shown              check      health, by a real round trip
//! ```
//!
//! A queue's home is chosen once, at its creation, and is written in its record: by flavor and weight among the pools,
//! or it is the store of the configuration, which needs no registration. Nothing but a change of its flavor, or an
//! operator, moves a queue.
//!
//! Resolve, then call: [`Catalogue::resolve`] gives a [`Route`], which is remembered with the queue's settings, so that
//! a call costs no more than one to a single store. Whoever remembers routes must forget them after
//! [`Change::Pools`](isimud_contract::Change): a route holds the stores open that it leads to.

mod check;
mod circuit;
mod open;
mod position;
mod roster;
mod route;
mod secret;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use isimud_contract::{
    Error, ErrorKind, Flavor, FlavorName, Home, LeftSegment, ManagementStore, MessageStore,
    Metadata, Place, Pool, PoolName, ProjectId, Resource, Result, Segment,
};

pub use self::check::{Check, Operation};
pub use self::open::Counted;
pub(crate) use self::open::Opened;
pub use self::position::Position;
pub(crate) use self::roster::Roster;
pub use self::route::Listed;
pub(crate) use self::route::{Route, Stop, carried, staging};
pub use self::secret::shown;
pub(crate) use self::secret::{is_same_place, restored, restored_options, shown_options};

use self::open::Stores;

/// The name of the store of the configuration, where stores are named. No pool can have it.
pub const DEFAULT: &str = "default";

/// Pools that one reading of the management store asks for.
const AT_ONCE: usize = 200;

/// How long pools that could not be read are not asked for again.
const PAUSE: Duration = Duration::from_millis(500);

/// Segments that a queue may have: one that moves again and again leaves so many places behind it.
const MOST_SEGMENTS: usize = 8;

/// Segments that a queue may have left without their being removed yet.
const MOST_LEFT: usize = 32;

/// Draws a number below the one given, each as likely as any other.
pub type Draw = Arc<dyn Fn(u64) -> u64 + Send + Sync>;

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
    pub counted: Counted,
    /// Chance.
    pub draw: Draw,
}

/// From a queue to the stores that have its messages.
pub struct Catalogue {
    management: Arc<dyn ManagementStore>,
    stores: Stores,
    default: Opened,
    default_uri: String,
    default_takes_queues: bool,
    /// The way to what is in the default store under the queue's own name.
    usual: Arc<Route>,
    draw: Draw,
    /// Counts the changes of pools that were heard of.
    changes: AtomicU64,
    /// The pools as of so many changes.
    roster: RwLock<Option<(u64, Arc<Roster>)>>,
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
        let stop = Stop::new(Segment::default(), Arc::clone(&default.store));
        Self {
            usual: Arc::new(Route::to(stop)),
            stores: Stores::new(parts.opener, parts.counted),
            management: parts.management,
            default,
            default_uri: uri,
            default_takes_queues: parts.default_takes_queues,
            draw: parts.draw,
            changes: AtomicU64::new(0),
            roster: RwLock::default(),
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
        let roster = self.roster().await?;
        self.stores.keep(&roster).await;
        Ok(())
    }

    /// The pools: as remembered, or read now if one has changed since.
    pub(crate) async fn roster(&self) -> Result<Arc<Roster>> {
        if let Some(roster) = self.remembered() {
            return Ok(roster);
        }
        // One reads for all who wait; if that fails it has failed for all of them.
        let mut failed = self.reading.lock().await;
        if let Some(roster) = self.remembered() {
            return Ok(roster);
        }
        if failed.is_some_and(|failed| failed.elapsed() < PAUSE) {
            let sentence = "the pools could not be read a moment ago";
            return Err(Error::new(ErrorKind::Unavailable, sentence));
        }
        let changes = self.changes.load(Ordering::Acquire);
        let read = self.read_roster().await;
        *failed = read.is_err().then(Instant::now);
        let roster = Arc::new(read?);
        let mut remembered = self.roster.write().unwrap_or_else(PoisonError::into_inner);
        *remembered = Some((changes, Arc::clone(&roster)));
        Ok(roster)
    }

    fn remembered(&self) -> Option<Arc<Roster>> {
        let remembered = self.roster.read().unwrap_or_else(PoisonError::into_inner);
        let (changes, roster) = remembered.as_ref()?;
        (*changes == self.changes.load(Ordering::Acquire)).then(|| Arc::clone(roster))
    }

    /// The pools as they are registered now.
    pub(crate) async fn read_roster(&self) -> Result<Roster> {
        let mut pools = Vec::new();
        loop {
            let after = pools
                .last()
                .map(|record: &isimud_contract::PoolRecord| record.pool.name.clone());
            let after = after.as_ref().map(PoolName::as_str);
            let page = self.management.list_pools(after, AT_ONCE).await?;
            let is_last = page.len() < AT_ONCE;
            pools.extend(page);
            if is_last {
                return Ok(Roster::new(pools));
            }
        }
    }

    /// The way to the messages of a queue that does not exist: to where it would be without any pool.
    pub(crate) fn usual(&self) -> Arc<Route> {
        Arc::clone(&self.usual)
    }

    /// The way to the messages of a queue with this place. `Unavailable` when a store of it cannot be opened now.
    pub(crate) async fn resolve(&self, place: &Place) -> Result<Arc<Route>> {
        if *place == Place::default() {
            return Ok(self.usual());
        }
        let mut stops = Vec::new();
        for segment in place.segments() {
            let opened = self.open(&segment.home).await?;
            stops.push(Stop::new(segment.clone(), opened.store));
        }
        Ok(Route::along(stops).map_or_else(|| self.usual(), Arc::new))
    }

    /// The way to everything that is to be removed with a queue: also to the segments that it has left, but not to what
    /// is in a pool that is not registered: nobody can reach that. Nor to a native client's queue that it has left.
    pub(crate) async fn resolve_registered(&self, place: &Place) -> Result<Arc<Route>> {
        let mut segments = Vec::new();
        for segment in all_left(place) {
            if self.is_there(&segment.home).await? {
                let opened = self.open(&segment.home).await?;
                if !opened.store.capabilities().adopts || !segment.is_for_natives() {
                    segments.push(segment.clone());
                }
            }
        }
        for segment in place.segments() {
            if self.is_there(&segment.home).await? {
                segments.push(segment.clone());
            }
        }
        match Place::of(segments) {
            Some(place) => self.resolve(&place).await,
            None => Ok(self.usual()),
        }
    }

    /// The open store of a home.
    pub(crate) async fn open(&self, home: &Home) -> Result<Opened> {
        let name = match home {
            Home::Default => return Ok(self.default.clone()),
            Home::Pool(name) => name,
        };
        let mut roster = self.roster().await?;
        if roster.find(name).is_none() {
            // It may be so new that nobody has told of it yet, or on its way back.
            drop(self.removal().await);
            self.forget();
            roster = self.roster().await?;
        }
        let pool = roster.find(name).ok_or_else(|| {
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
    pub(crate) async fn try_out(&self, pool: &Pool) -> Result<Opened> {
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
    pub(crate) async fn choose(&self, flavor: Option<&Flavor>) -> Result<Home> {
        let roster = self.roster().await?;
        let name = flavor.map(|flavor| &flavor.name);
        if let Some(pool) = roster.draw(name, &self.draw) {
            return Ok(Home::Pool(pool.name.clone()));
        }
        let sentence = match name {
            None if self.default_takes_queues => return Ok(Home::Default),
            None => "No pool takes queues without a flavor: an operator has to register one with a weight above 0."
                .to_owned(),
            Some(name) => format!("Flavor {name} has no pool that takes queues: an operator has to give one a weight above 0."),
        };
        Err(Error::new(ErrorKind::NotFound(Resource::Pool), sentence))
    }

    /// The homes for queues of a flavor, or of none, other than this one: one of them is chosen for a queue that leaves.
    pub(crate) async fn others(&self, flavor: Option<&Flavor>, home: &Home) -> Result<Vec<Home>> {
        let roster = self.roster().await?;
        let name = flavor.map(|flavor| &flavor.name);
        let members = roster.members(name).filter(|pool| pool.weight > 0);
        let pools = members.map(|pool| Home::Pool(pool.name.clone()));
        let mut others: Vec<Home> = pools.filter(|other| other != home).collect();
        if others.is_empty()
            && name.is_none()
            && self.default_takes_queues
            && *home != Home::Default
        {
            others.push(Home::Default);
        }
        Ok(others)
    }

    /// Whether a home that was chosen is there still.
    pub(crate) async fn is_there(&self, home: &Home) -> Result<bool> {
        match home {
            Home::Default => Ok(true),
            Home::Pool(name) => Ok(self.management.find_pool(name).await?.is_some()),
        }
    }

    /// Whether a place takes what is posted to a store of a flavor, or of none.
    pub(crate) async fn fits(&self, place: &Place, flavor: Option<&Flavor>) -> Result<bool> {
        Ok(self.roster().await?.fits(&place.last().home, flavor))
    }

    /// The place of a queue that goes to a store: with one segment more, whose numbers of arrival are above `after`.
    /// `Unavailable` while it has moved too often to be found in all its places.
    ///
    /// A queue comes back to the segment that it has left there, by whose name native clients know it; but not to one that
    /// may be removed at any moment.
    pub(crate) fn appended(place: &Place, home: &Home, after: u64) -> Result<Place> {
        let count = place.segments().count();
        if count >= MOST_SEGMENTS || place.left().len() >= MOST_LEFT {
            let sentence = "The queue is still on its way from earlier moves; try again later.";
            return Err(Error::new(ErrorKind::Unavailable, sentence));
        }
        let kept = place.left().iter().filter(|left| left.is_going);
        let kept = place.segments().chain(kept.map(|left| &left.segment));
        let part = Place::free_part(kept, home);
        let segment = Segment {
            home: home.clone(),
            part,
            after,
        };
        let comes_back = [&segment, &segment.side()];
        let stays_left =
            |left: &&LeftSegment| !comes_back.iter().any(|one| one.is_same_as(&left.segment));
        let left: Vec<LeftSegment> = place.left().iter().filter(stays_left).cloned().collect();
        let segments = place.segments().cloned().chain([segment]);
        Ok(Place::of(segments).unwrap_or_default().having_left(left))
    }

    /// The place of a queue with another home for what is posted: instead of the one it has, in which nothing is.
    pub(crate) fn replaced(place: &Place, home: Home) -> Place {
        let mut segments: Vec<Segment> = place.segments().cloned().collect();
        segments.pop();
        let part = Place::free_part(segments.iter().chain(all_left(place)), &home);
        let after = place.last().after;
        segments.push(Segment { home, part, after });
        let left = place.left().iter().cloned();
        Place::of(segments).unwrap_or_default().having_left(left)
    }

    /// The place of a queue that gets dead letters from a store: with a segment there, which nothing else is posted to.
    pub(crate) fn receiving(place: &Place, home: &Home) -> Place {
        with_segment(place, home.clone(), place.segments().count() - 1, 0)
    }

    /// Has a store do everything that clients ask of it.
    pub(crate) async fn check(&self, name: &str, home: &Home) -> Check {
        let checked = match self.open(home).await {
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
fn all_left(place: &Place) -> impl Iterator<Item = &Segment> + Clone {
    place.left().iter().map(|left| &left.segment)
}

/// A place with another segment before the one at `at`, whose numbers of arrival are above `after`.
fn with_segment(place: &Place, home: Home, at: usize, after: u64) -> Place {
    let mut segments: Vec<Segment> = place.segments().cloned().collect();
    let part = Place::free_part(segments.iter().chain(all_left(place)), &home);
    segments.insert(at, Segment { home, part, after });
    let left = place.left().iter().cloned();
    Place::of(segments).unwrap_or_default().having_left(left)
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

    fn segment(pool: Option<&str>, part: u32) -> Segment {
        let pool = pool.map(|name| PoolName::parse(name).expect("a name"));
        Segment::new(pool.map_or(Home::Default, Home::Pool), part)
    }

    #[test]
    fn a_queue_that_comes_back_gets_a_name_of_its_own_there() {
        let place = Place::of([segment(None, 0), segment(Some("a"), 0)]).expect("segments");
        let back = with_segment(&place, Home::Default, 2, 0);
        let segments: Vec<_> = back.segments().cloned().collect();
        assert_eq!(
            segments,
            [segment(None, 0), segment(Some("a"), 0), segment(None, 1)]
        );
        let elsewhere = Catalogue::replaced(&back, segment(Some("b"), 0).home);
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
        for (is_going, part) in [(false, 0), (true, 1)] {
            let left = [segment(None, 0), segment(None, 0).side()];
            let left = left.map(|segment| LeftSegment { segment, is_going });
            let place = Place::at(segment(Some("b"), 0).home).having_left(left);
            let back = Catalogue::appended(&place, &Home::Default, 7).expect("a place");
            assert_eq!(back.last().part, part);
            assert_eq!(back.left().is_empty(), !is_going);
        }
        let dead = Catalogue::receiving(&Place::default(), &segment(Some("a"), 0).home);
        let segments: Vec<_> = dead.segments().cloned().collect();
        assert_eq!(segments, [segment(Some("a"), 0), segment(None, 0)]);
    }
}
