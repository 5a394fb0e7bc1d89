//! How much somebody has, as far as this server knows: an estimate beside the requests, for quotas that no store counts.
//!
//! An estimate is what a count in the background has found, and what this server has stored, and knows to be gone, since. A
//! post that fits by it asks nobody anything. Where one does not fit, a fresh count is made before it is refused, at most
//! [once a second](INTERVAL_WHERE_FULL): so what was deleted, has expired or was claimed by other servers makes room at
//! once, and who is refused was full when it was last counted. Counts walk in steps, with pauses between them, so that one of
//! somebody who has very much holds up neither its store nor the count of another.
//!
//! What follows from that:
//!
//! * It counts too few by what other servers have stored since the last count: at the most as much as comes in the [time that
//!   a count is believed](INTERVAL). The next count has it.
//! * It counts too many by what this server stored, or deleted, while the last count was made, which that may have seen as
//!   well; and by what has expired or was deleted by other servers since. Deletes by id say how many messages are gone and not
//!   their bytes: they are taken for messages of the length that this server has let in lately. The fresh count puts all of
//!   this right. Somebody who fills his bound and empties it several times a second is refused for the rest of that second,
//!   and who has so much that a count takes longer, for up to [ten seconds](INTERVAL) after that.
//! * Nothing is known of whom nobody has asked for yet, or whose first count failed: it is let in, for the store's own answer
//!   is the right one then. Where a later count fails, the estimate goes on from the one before.
//!
//! The road not taken: each store adds up bytes in the step that stores them, as it does with messages. It would be exact, and
//! cost each write of each queue a second counter on disk and each deletion the reading of what it deletes, also where no
//! bound is set.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use isimud_contract::Result;
use quick_cache::DefaultHashBuilder;
use tokio::sync::{Semaphore, watch};

/// Projects or queues of which something is remembered, at the most. Beyond it all are forgotten, which lets them through
/// until they are counted again: some ten megabytes.
const CAPACITY: usize = 100_000;

/// How old a count may be before another one is made, while its owner posts: seconds of unknown deletions and of other
/// servers' posts, for some ten milliseconds of the store's time.
const INTERVAL: Duration = Duration::from_secs(10);

/// The same before a post is refused: one that is refused may cost a store no more than this allows.
const INTERVAL_WHERE_FULL: Duration = Duration::from_secs(1);

/// A count of this length is made as often as the intervals say: a tenth of the time at the most.
const SHORT: Duration = Duration::from_millis(100);

/// A longer one comes no sooner than so many times its own length after the last one: somebody who has very much is counted a
/// tenth of the time.
const REST_FACTOR: u32 = 9;

/// How long a post that does not fit waits for the fresh count: longer than a queue of usual length takes. Where the count
/// takes longer the estimate decides.
const COUNT_TIMEOUT: Duration = Duration::from_secs(1);

/// Counts that a post waits for: one that is under way already may be older than what has made room, and then the fresh one.
const COUNTS_AWAITED: usize = 2;

/// Steps of all counts that are made at once: a few, so that they are never more than a fraction of what a store does.
const MAX_STEPS_AT_ONCE: usize = 4;

/// Accounts, each under its owner: a project, or a queue. A post looks its account up once.
#[derive(Debug)]
pub(super) struct Census<K> {
    accounts: Mutex<HashMap<K, Arc<Account>, DefaultHashBuilder>>,
    /// One for each step that may be made now. Counts that are long queue up for each of their steps anew.
    pub(super) steps: Semaphore,
}

impl<K> Default for Census<K> {
    fn default() -> Self {
        Self {
            accounts: Mutex::default(),
            steps: Semaphore::new(MAX_STEPS_AT_ONCE),
        }
    }
}

/// What is known of an owner.
#[derive(Debug, Default)]
struct Account {
    estimate: Mutex<Estimate>,
    /// Let in, and on its way to a store.
    on_the_way: AtomicU64,
    /// How many bytes a message of the owner has, about; 0 while that is not known, or messages are counted.
    message_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Estimate {
    /// What the last count found; none while there was none, or when it failed.
    found: Option<u64>,
    /// When the last count came to its end, and how long it took.
    counted: Option<(Instant, Duration)>,
    /// When a count was last begun because something would have been refused.
    refreshed: Option<Instant>,
    /// What that may lack: let in by this server since the count began, or on its way to a store then; less what it knows to
    /// be gone.
    since: i64,
    /// What `since` will be when the count that is under way has come to its end.
    next: i64,
    /// A count is under way, until the other end of this is dropped.
    under_way: Option<watch::Receiver<()>>,
}

impl Estimate {
    fn lookup(&self) -> u64 {
        let found = signed(self.found.unwrap_or(0));
        found.saturating_add(self.since).max(0).unsigned_abs()
    }

    /// Whether a count may begin, for somebody who fits or does not.
    fn is_due(&self, fits: bool, now: Instant) -> bool {
        let Some((at, took)) = self.counted else {
            return true;
        };
        let age = now.saturating_duration_since(at);
        let is_old = match (fits, self.found, self.refreshed) {
            (true, Some(_), _) => age >= INTERVAL,
            (true, None, _) => age >= INTERVAL_WHERE_FULL,
            (false, _, None) => true,
            (false, _, Some(last)) => now.saturating_duration_since(last) >= INTERVAL_WHERE_FULL,
        };
        let rest = match (fits, self.found) {
            _ if took <= SHORT => Duration::ZERO,
            (_, None) => Duration::ZERO,
            (true, Some(_)) => took * REST_FACTOR,
            // Nobody is to be refused for long what has room.
            (false, Some(_)) => (took * REST_FACTOR).min(INTERVAL),
        };
        is_old && age >= rest
    }
}

/// What an estimate says to a post.
#[derive(Debug)]
struct Answer {
    /// It is let in, and counted; none where it does not fit.
    fits: Option<Admitted>,
    /// It is time for a count, which the caller makes: it is under way until this is dropped.
    begins: Option<watch::Sender<()>>,
    /// A count is under way, this one or another, where it does not fit.
    under_way: Option<watch::Receiver<()>>,
}

/// What was let in. It is on its way to a store until this is dropped, and counts from then on as well.
#[derive(Debug)]
pub(super) struct Admitted {
    account: Arc<Account>,
    amount: u64,
}

impl Admitted {
    /// No store has taken it: it counts no more.
    pub(super) fn forgive(self) {
        let less = signed(self.amount).saturating_neg();
        self.account.estimate().change(less);
    }

    /// Notes that the bytes which were let in are those of so many messages.
    pub(super) fn note_length(&self, messages: u64) {
        let Some(length) = self.amount.checked_div(messages) else {
            return;
        };
        // An average: what is noted at the same time may be missed.
        let of_account = &self.account.message_bytes;
        let average = match of_account.load(Ordering::Relaxed) {
            0 => length,
            before => (before.saturating_mul(7).saturating_add(length)) / 8,
        };
        of_account.store(average, Ordering::Relaxed);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let on_the_way = &self.account.on_the_way;
        on_the_way.fetch_sub(self.amount, Ordering::AcqRel);
    }
}

impl<K: Eq + Hash + Clone + Debug + Send + Sync + 'static> Census<K> {
    /// Lets so much more in if it is within a bound; it counts then. Where the estimate says no, a fresh count decides that is
    /// made now or was made less than a second ago.
    ///
    /// `count` is run in the background where it is time for a count, and gives what there is, or fails.
    pub(super) async fn admit<F>(
        self: &Arc<Self>,
        owner: &K,
        more: u64,
        most: u64,
        now: Instant,
        count: impl Fn(Arc<Self>) -> F + Send + Sync,
    ) -> Option<Admitted>
    where
        F: Future<Output = Result<u64>> + Send + 'static,
    {
        // No count can make room for it.
        if more > most {
            return None;
        }
        let answer = self.ask(owner, more, most, now);
        if let Some(begun) = answer.begins {
            self.begin(owner.clone(), begun, count(Arc::clone(self)));
        }
        match answer.fits {
            Some(admitted) => Some(admitted),
            // In a place of its own: few posts have to wait, and all of them would carry what this needs.
            None => Box::pin(self.wait(owner, more, most, answer.under_way?, count)).await,
        }
    }

    /// Waits for counts, and lets in what fits then.
    async fn wait<F>(
        self: &Arc<Self>,
        owner: &K,
        more: u64,
        most: u64,
        mut under_way: watch::Receiver<()>,
        count: impl Fn(Arc<Self>) -> F + Send + Sync,
    ) -> Option<Admitted>
    where
        F: Future<Output = Result<u64>> + Send + 'static,
    {
        let deadline = tokio::time::Instant::now() + COUNT_TIMEOUT;
        for _ in 1..COUNTS_AWAITED {
            // An error says that the other end is gone: the count is over.
            drop(tokio::time::timeout_at(deadline, under_way.changed()).await);
            let answer = self.ask(owner, more, most, Instant::now());
            if let Some(begun) = answer.begins {
                self.begin(owner.clone(), begun, count(Arc::clone(self)));
            }
            if answer.fits.is_some() {
                return answer.fits;
            }
            under_way = answer.under_way?;
        }
        drop(tokio::time::timeout_at(deadline, under_way.changed()).await);
        let account = self.lookup(owner)?;
        let fits = account.let_in(&mut account.estimate(), more, most);
        fits.then(|| Admitted {
            account,
            amount: more,
        })
    }

    fn begin(
        self: &Arc<Self>,
        owner: K,
        begun: watch::Sender<()>,
        count: impl Future<Output = Result<u64>> + Send + 'static,
    ) {
        let census = Arc::clone(self);
        tokio::spawn(async move {
            let start = Instant::now();
            let found = count.await;
            if let Err(error) = &found {
                tracing::debug!(%error, ?owner, "what it has could not be counted: the last count is believed");
            }
            census.end(&owner, found.ok(), start, Instant::now());
            drop(begun);
        });
    }

    fn ask(&self, owner: &K, more: u64, most: u64, now: Instant) -> Answer {
        let account = self.account(owner);
        let mut estimate = account.estimate();
        let fits = account.let_in(&mut estimate, more, most);
        // A count that was given up (its task is gone) is under way no more.
        estimate.under_way.take_if(|it| it.has_changed().is_err());
        let mut begins = None;
        if estimate.under_way.is_none() && estimate.is_due(fits, now) {
            let (begun, under_way) = watch::channel(());
            (begins, estimate.under_way) = (Some(begun), Some(under_way));
            estimate.next = signed(account.on_the_way.load(Ordering::Acquire));
            if !fits {
                estimate.refreshed = Some(now);
            }
        }
        let under_way = match fits {
            true => None,
            false => estimate.under_way.clone(),
        };
        drop(estimate);
        let fits = fits.then(|| Admitted {
            account,
            amount: more,
        });
        Answer {
            fits,
            begins,
            under_way,
        }
    }

    /// The account of an owner, who gets one if there is none.
    fn account(&self, owner: &K) -> Arc<Account> {
        let mut accounts = self.accounts();
        if let Some(account) = accounts.get(owner) {
            return Arc::clone(account);
        }
        if accounts.len() >= CAPACITY {
            accounts.clear();
        }
        Arc::clone(accounts.entry(owner.clone()).or_default())
    }

    /// Takes over what a count has found; `None` where it failed.
    fn end(&self, owner: &K, found: Option<u64>, start: Instant, now: Instant) {
        // One that was forgotten meanwhile begins anew.
        if let Some(account) = self.lookup(owner) {
            let mut estimate = account.estimate();
            if found.is_some() {
                estimate.found = found;
                estimate.since = estimate.next;
            }
            estimate.counted = Some((now, now.saturating_duration_since(start)));
            estimate.under_way = None;
        }
    }
}

impl<K: Eq + Hash> Census<K> {
    /// Takes off what is gone for certain. A count that is under way may have seen it or not: it is taken to know.
    pub(super) fn take_off(&self, owner: &K, less: u64) {
        if let Some(account) = self.lookup(owner) {
            account.take_off(less);
        }
    }

    /// Takes off the bytes of so many messages, of the length that was let in lately.
    pub(super) fn take_off_messages(&self, owner: &K, messages: u64) {
        if let Some(account) = self.lookup(owner) {
            let length = account.message_bytes.load(Ordering::Relaxed);
            account.take_off(messages.saturating_mul(length));
        }
    }

    /// Counts what is there again, after it was taken off.
    pub(super) fn add(&self, owner: &K, more: u64) {
        if let Some(account) = self.lookup(owner) {
            account.estimate().change(signed(more));
        }
    }

    /// The account of an owner of whom something is remembered.
    fn lookup(&self, owner: &K) -> Option<Arc<Account>> {
        self.accounts().get(owner).map(Arc::clone)
    }

    fn accounts(&self) -> MutexGuard<'_, HashMap<K, Arc<Account>, DefaultHashBuilder>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    fn estimate(&self) -> MutexGuard<'_, Estimate> {
        self.estimate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts so much more if it fits by the estimate.
    fn let_in(&self, estimate: &mut Estimate, more: u64, most: u64) -> bool {
        let fits = estimate.fits(more, most);
        if fits {
            estimate.change(signed(more));
            self.on_the_way.fetch_add(more, Ordering::AcqRel);
        }
        fits
    }

    fn take_off(&self, less: u64) {
        let mut estimate = self.estimate();
        estimate.since = estimate.since.saturating_sub(signed(less));
    }
}

impl Estimate {
    fn fits(&self, more: u64, most: u64) -> bool {
        let has_failed = self.found.is_none() && self.counted.is_some();
        has_failed || self.lookup().saturating_add(more) <= most
    }

    fn change(&mut self, by: i64) {
        self.since = self.since.saturating_add(by);
        self.next = self.next.saturating_add(by);
    }
}

fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use isimud_contract::{Error, ErrorKind};

    use super::*;

    type Named = Census<&'static str>;

    /// What the estimate says of a post that a store has at once, and whether it is time for a count.
    fn ask(census: &Named, more: u64, most: u64, now: Instant) -> (bool, bool) {
        let (admitted, begins) = ask_slowly(census, more, most, now);
        (admitted.is_some(), begins)
    }

    /// The same of one that is on its way until what this returns is dropped.
    fn ask_slowly(census: &Named, more: u64, most: u64, now: Instant) -> (Option<Admitted>, bool) {
        let answer = census.ask(&"p", more, most, now);
        // It is under way until `end`.
        let begins = answer.begins.map(std::mem::forget).is_some();
        (answer.fits, begins)
    }

    /// A census that has found so much a moment ago.
    fn that_found(found: u64, now: Instant) -> Named {
        let census = Named::default();
        assert_eq!(ask(&census, 0, 10, now), (true, true), "nothing is known");
        census.end(&"p", Some(found), now, now);
        census
    }

    #[test]
    fn an_estimate_adds_what_was_stored_since_the_count() {
        let start = Instant::now();
        let census = that_found(6, start);
        assert_eq!(ask(&census, 4, 10, start), (true, false));
        assert_eq!(ask(&census, 1, 10, start), (false, true), "a fresh count");
        assert_eq!(ask(&census, 1, 10, start), (false, false), "one at a time");
        census.end(&"p", Some(10), start, start);
        assert_eq!(ask(&census, 1, 10, start), (false, false), "one a second");
        let later = start + INTERVAL_WHERE_FULL;
        assert_eq!(ask(&census, 1, 10, later), (false, true));
        census.end(&"p", Some(7), later, later);
        assert_eq!(ask(&census, 3, 10, later), (true, false));
        assert_eq!(ask(&census, 1, 10, later), (false, false));
        census.take_off(&"p", 3);
        assert_eq!(ask(&census, 3, 10, later), (true, false), "some are gone");
    }

    /// Otherwise the first post of all would be lost: the count that it begins comes before it is stored.
    #[test]
    fn what_a_count_may_have_missed_is_added_to_it() {
        let (census, start) = (Named::default(), Instant::now());
        let (slow, begins) = ask_slowly(&census, 4, 10, start);
        assert!(begins);
        let slow = slow.expect("it fits");
        assert_eq!(ask(&census, 3, 10, start), (true, false));
        census.end(&"p", Some(0), start, start);
        assert_eq!(ask(&census, 4, 10, start), (false, true));
        drop(slow);
        // The fresh count began before that, too.
        census.end(&"p", Some(3), start, start);
        assert_eq!(ask(&census, 4, 10, start), (false, false));
        assert_eq!(ask(&census, 3, 10, start), (true, false));
        let later = start + INTERVAL_WHERE_FULL;
        assert_eq!(ask(&census, 1, 10, later), (false, true));
        census.end(&"p", Some(7), later, later);
        assert_eq!(ask(&census, 3, 10, later), (true, false), "nothing twice");
    }

    #[test]
    fn a_first_count_that_fails_refuses_nothing_until_one_succeeds() {
        let (census, start) = (Named::default(), Instant::now());
        assert_eq!(ask(&census, 1, 10, start), (true, true));
        // However long it took.
        let end = start + Duration::from_secs(60);
        census.end(&"p", None, start, end);
        for _ in 0..3 {
            assert_eq!(ask(&census, 9, 10, end), (true, false));
        }
        let again = end + INTERVAL_WHERE_FULL;
        assert_eq!(ask(&census, 0, 10, again), (true, true));
        census.end(&"p", Some(10), again, again);
        assert!(!ask(&census, 1, 10, again).0);
    }

    #[test]
    fn a_long_count_is_not_made_again_at_once() {
        let (census, start) = (Named::default(), Instant::now());
        assert_eq!(ask(&census, 0, 10, start), (true, true));
        let end = start + Duration::from_secs(2);
        census.end(&"p", Some(10), start, end);
        let soon = end + INTERVAL_WHERE_FULL;
        assert_eq!(ask(&census, 0, 10, soon), (true, false));
        assert_eq!(ask(&census, 1, 10, soon), (false, false));
        let rested = end + INTERVAL;
        assert_eq!(ask(&census, 0, 10, rested), (true, false));
        assert_eq!(ask(&census, 1, 10, rested), (false, true), "never longer");
    }

    #[test]
    fn a_fresh_count_follows_a_short_one_at_once() {
        let (census, start) = (Named::default(), Instant::now());
        assert_eq!(ask(&census, 0, 10, start), (true, true));
        let end = start + SHORT;
        census.end(&"p", Some(10), start, end);
        assert_eq!(ask(&census, 1, 10, end), (false, true));
    }

    #[test]
    fn estimates_are_not_without_number() {
        let (census, now) = (Census::default(), Instant::now());
        for number in 0..=CAPACITY {
            census.ask(&number, 1, 10, now);
        }
        assert!(census.accounts().len() <= CAPACITY);
    }

    #[tokio::test]
    async fn what_is_forgiven_makes_room_and_what_is_dropped_does_not() {
        let census = Arc::new(that_found(0, Instant::now()));
        let count = |_| async { Ok(10) };
        let first = census
            .admit(&"p", 6, 10, Instant::now(), count)
            .await
            .expect("it fits");
        first.forgive();
        drop(
            census
                .admit(&"p", 6, 10, Instant::now(), count)
                .await
                .expect("it fits"),
        );
        assert!(
            census
                .admit(&"p", 6, 10, Instant::now(), count)
                .await
                .is_none()
        );
    }

    #[test]
    fn what_is_refused_is_not_on_its_way() {
        let start = Instant::now();
        let census = that_found(0, start);
        let (held, _) = ask_slowly(&census, 6, 10, start);
        assert!(!ask(&census, 5, 10, start).0);
        let on_the_way = |census: &Named| census.account(&"p").on_the_way.load(Ordering::Relaxed);
        assert_eq!(on_the_way(&census), 6);
        drop(held);
        assert_eq!(on_the_way(&census), 0);
    }

    #[tokio::test]
    async fn a_post_that_does_not_fit_by_the_estimate_is_let_in_by_a_fresh_count() {
        let census = Arc::new(that_found(10, Instant::now()));
        let count = |_| async { Ok(3) };
        assert!(
            census
                .admit(&"p", 7, 10, Instant::now(), count)
                .await
                .is_some()
        );
        assert!(
            census
                .admit(&"p", 1, 10, Instant::now(), count)
                .await
                .is_none()
        );
    }

    #[tokio::test]
    async fn a_count_that_was_under_way_before_is_followed_by_a_fresh_one() {
        let census = Arc::new(Named::default());
        let (say, hear) = tokio::sync::oneshot::channel::<()>();
        let old = Mutex::new(Some(hear));
        // The first count is of what was there before it was deleted.
        let count = |_| {
            let hear = old.lock().expect("it is whole").take();
            async move {
                match hear {
                    Some(hear) => hear.await.map_or(Ok(0), |()| Ok(10)),
                    None => Ok(0),
                }
            }
        };
        drop(
            census
                .admit(&"p", 0, 10, Instant::now(), count)
                .await
                .expect("it fits"),
        );
        census.add(&"p", 10);
        let (fits, _) = tokio::join!(census.admit(&"p", 10, 10, Instant::now(), count), async {
            say.send(())
        });
        assert!(fits.is_some());
    }

    #[tokio::test]
    async fn what_is_larger_than_the_bound_is_refused_without_a_count() {
        let census = Arc::new(Named::default());
        let count = |_| async { unreachable!("it is not counted") };
        assert!(
            census
                .admit(&"p", 11, 10, Instant::now(), count)
                .await
                .is_none()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_count_that_does_not_end_in_time_leaves_the_decision_to_the_estimate() {
        let census = Arc::new(Named::default());
        let count = |_| std::future::pending();
        assert!(
            census
                .admit(&"p", 10, 10, Instant::now(), count)
                .await
                .is_some()
        );
        let start = tokio::time::Instant::now();
        assert!(
            census
                .admit(&"p", 1, 10, Instant::now(), count)
                .await
                .is_none()
        );
        assert_eq!(start.elapsed(), COUNT_TIMEOUT);
    }

    #[tokio::test]
    async fn the_last_count_is_believed_where_the_fresh_one_fails() {
        let census = Arc::new(that_found(8, Instant::now()));
        let down = |_| async { Err(Error::new(ErrorKind::Unavailable, "the pool is down")) };
        assert!(
            census
                .admit(&"p", 3, 10, Instant::now(), down)
                .await
                .is_none()
        );
        assert!(
            census
                .admit(&"p", 2, 10, Instant::now(), down)
                .await
                .is_some()
        );
    }

    #[test]
    fn what_goes_while_it_is_counted_is_not_taken_off_what_the_count_finds() {
        let start = Instant::now();
        let census = that_found(10, start);
        assert_eq!(ask(&census, 1, 10, start), (false, true));
        census.take_off(&"p", 10);
        census.end(&"p", Some(0), start, start);
        assert!(!ask(&census, 11, 10, start).0);
        assert!(ask(&census, 10, 10, start).0);
    }

    #[test]
    fn deleted_messages_make_room_by_the_length_of_those_that_came() {
        let start = Instant::now();
        let census = that_found(0, start);
        let (admitted, _) = ask_slowly(&census, 8, 10, start);
        admitted.expect("it fits").note_length(4);
        census.take_off_messages(&"p", 3);
        assert!(ask(&census, 8, 10, start).0);
        assert!(!ask(&census, 1, 10, start).0);
    }
}
