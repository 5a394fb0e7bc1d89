//! Remembers what Keystone said of tokens: good answers in one bounded table, 404s in another.
//!
//! Keys are SHA-256 digests: the cache never holds a token. Two clocks are read, both through [`Clock`]: how old an answer
//! is counts on the steady clock (`now`), whether a token has expired on the machine's clock (`wall`), which is what
//! Keystone compares with its own.
//!
//! Three promises hold for any order of events, and the property test at the end of this file checks them:
//!
//! 1. A token is never served at or after its `expires_at` (except where a service token allows expired ones).
//! 2. After a 404 a token is not served before Keystone has said 200 to a question that was asked after the 404.
//! 3. Neither table exceeds its bounds, and bad tokens never push good ones out.
//!
//! Nothing is shared between processes: whoever can write to a shared cache can become anybody (quirk Q-KS-6).
//!
//! Source: `docs/compatibility/keystone.md` sections 8 and 9.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isimud_contract::{Clock, Timestamp};
use sha2::{Digest, Sha256};

use super::identity::Identity;
use super::lru::Lru;

/// The number of refused tokens that are remembered.
const NEGATIVE_ENTRIES: usize = 10_000;

/// The bytes of an entry for which the bound of bytes leaves room on average. A usual identity takes about 700; one with
/// many roles or access rules takes the room of several.
const BYTES_PER_ENTRY: usize = 2048;

/// What the cache may keep, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct CacheLimits {
    /// How long a good answer is fresh; zero asks Keystone for every request.
    pub(super) fresh: Duration,
    /// How much longer a good answer may be served while Keystone cannot be asked.
    pub(super) stale_grace: Duration,
    /// How long a 404 is remembered; zero not at all.
    pub(super) negative: Duration,
    /// The number of good answers.
    pub(super) entries: usize,
}

/// How a token is validated: both results are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Mode {
    /// The token must not have expired.
    Current,
    /// A valid service token allows an expired one (section 8).
    AllowExpired,
}

/// Names a token without being one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TokenKey {
    digest: [u8; 32],
    mode: Mode,
}

impl TokenKey {
    /// Derives the key of a token's text.
    pub(super) fn new(token: &[u8], mode: Mode) -> Self {
        Self {
            digest: Sha256::digest(token).into(),
            mode,
        }
    }

    fn with_mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }
}

/// What the cache knows of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lookup {
    /// The token is good, and Keystone need not be asked.
    Fresh(Arc<Identity>),
    /// The token was good; it may be served only if Keystone cannot be asked.
    Stale(Arc<Identity>),
    /// Keystone refused the token a moment ago.
    Rejected,
    /// The token was good and has expired since: it can never be good again.
    Expired,
    /// Keystone has to be asked.
    Unknown,
}

/// Marks when a validation began, in the order of the cache's events.
#[derive(Debug, Clone, Copy)]
pub(super) struct Started(u64);

/// The cache. All methods may be called from any thread; none waits for I/O.
#[derive(Debug)]
pub(super) struct Cache {
    limits: CacheLimits,
    clock: Arc<dyn Clock>,
    tables: Mutex<Tables>,
}

#[derive(Debug)]
struct Tables {
    valid: Lru<TokenKey, Valid>,
    rejected: Lru<TokenKey, Rejected>,
    /// The number of events so far; it orders validations and refusals that happen within the same millisecond.
    events: u64,
    evicted: u64,
}

#[derive(Debug)]
struct Valid {
    identity: Arc<Identity>,
    validated_at: Timestamp,
}

#[derive(Debug)]
struct Rejected {
    at: Timestamp,
    event: u64,
}

/// How full the cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CacheSize {
    pub(super) entries: usize,
    pub(super) bytes: usize,
    pub(super) negative_entries: usize,
    /// Good answers that were dropped for want of room, since the start.
    pub(super) evicted: u64,
}

impl Cache {
    /// Creates an empty cache.
    pub(super) fn new(limits: CacheLimits, clock: Arc<dyn Clock>) -> Self {
        let bytes = limits.entries.saturating_mul(BYTES_PER_ENTRY);
        let tables = Mutex::new(Tables {
            valid: Lru::new(limits.entries, bytes),
            rejected: Lru::new(NEGATIVE_ENTRIES, usize::MAX),
            events: 0,
            evicted: 0,
        });
        Self {
            limits,
            clock,
            tables,
        }
    }

    /// Looks a token up. Counts as a use of the entry.
    pub(super) fn lookup(&self, key: TokenKey) -> Lookup {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let mut tables = self.lock();
        if let Some(entry) = tables.valid.get(&key) {
            let is_expired = entry.identity.is_expired(wall);
            if is_expired && key.mode == Mode::Current {
                return Lookup::Expired;
            }
            // A clock that was set back makes an entry old, not young.
            let age = (now >= entry.validated_at).then(|| now.since(entry.validated_at));
            let is_within = |limit: Duration| age.is_some_and(|age| age < limit);
            if is_within(self.limits.fresh) {
                return Lookup::Fresh(Arc::clone(&entry.identity));
            }
            let grace = self.limits.stale_grace;
            if !is_expired && !grace.is_zero() && is_within(self.limits.fresh + grace) {
                return Lookup::Stale(Arc::clone(&entry.identity));
            }
        }
        let negative = self.limits.negative;
        let rejected = tables.rejected.get(&key);
        match rejected.is_some_and(|one| now >= one.at && now.since(one.at) < negative) {
            true => Lookup::Rejected,
            false => Lookup::Unknown,
        }
    }

    /// Whether Keystone has said that the token is good, however long ago, as far as that is still known.
    pub(super) fn was_good(&self, key: TokenKey) -> bool {
        self.lock().valid.peek(&key).is_some()
    }

    /// Marks the beginning of a validation, before Keystone is asked.
    pub(super) fn start(&self) -> Started {
        let mut tables = self.lock();
        tables.events += 1;
        Started(tables.events)
    }

    /// Remembers that Keystone said 200, to a question asked at `started`. An answer is not kept when Keystone has refused
    /// the token since then.
    pub(super) fn accept(&self, key: TokenKey, started: Started, identity: &Arc<Identity>) {
        let validated_at = self.clock.now();
        let mut tables = self.lock();
        let both = [Mode::Current, Mode::AllowExpired].map(|mode| key.with_mode(mode));
        let is_refuted = |key: &TokenKey| {
            let rejected = tables.rejected.peek(key);
            rejected.is_some_and(|rejected| rejected.event > started.0)
        };
        if both.iter().any(is_refuted) {
            return;
        }
        tables.rejected.remove(&key);
        let keep = self.limits.fresh + self.limits.stale_grace;
        if keep.is_zero() {
            return;
        }
        let valid = Valid {
            identity: Arc::clone(identity),
            validated_at,
        };
        let evicted = tables.valid.insert(key, valid, identity.size());
        tables.evicted += evicted as u64;
    }

    /// Remembers that Keystone said 404, and forgets every good answer about the token at once.
    ///
    /// A token that is refused even with expired ones allowed is also refused without. The other way round nothing is
    /// known, as it may only have expired: Keystone is asked again.
    pub(super) fn reject(&self, key: TokenKey) {
        let at = self.clock.now();
        let mut tables = self.lock();
        tables.events += 1;
        let event = tables.events;
        for mode in [Mode::Current, Mode::AllowExpired] {
            tables.valid.remove(&key.with_mode(mode));
        }
        let current = key.with_mode(Mode::Current);
        tables.rejected.insert(current, Rejected { at, event }, 0);
        if key.mode == Mode::AllowExpired {
            tables.rejected.insert(key, Rejected { at, event }, 0);
        }
    }

    /// Returns how full the cache is.
    pub(super) fn size(&self) -> CacheSize {
        let tables = self.lock();
        CacheSize {
            entries: tables.valid.len(),
            bytes: tables.valid.bytes(),
            negative_entries: tables.rejected.len(),
            evicted: tables.evicted,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "cache/tests.rs"]
mod tests;
