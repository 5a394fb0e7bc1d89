//! Validates tokens: from the cache where it knows, else by Keystone, once for all who ask at the same time.
//!
//! Source: `docs/compatibility/keystone.md` section 9.

use std::sync::Arc;

use hyper::header::HeaderValue;
use isimud_contract::Clock;
use tokio::time::{Instant, timeout_at};

use super::REQUEST_TIMEOUT;
use super::cache::{Cache, CacheSize, Lookup, Mode, TokenKey};
use super::client::{Client, Undecided, Verdict};
use super::health::{Fault, KeystoneState};
use super::identity::Identity;
use super::metrics::{self, Metrics};
use super::settings::Settings;
use super::single_flight::{Flight, Joined, SingleFlight};
use super::transport::Transport;

/// The number of validations that are under way or wait for a connection. More is more than Keystone can answer in time.
const MAX_PENDING: usize = 10_000;

/// What became of a token.
#[derive(Debug)]
pub(super) enum Validated {
    /// The token is good; the second member is true when Keystone could not be asked and the answer is a stale one.
    Good(Arc<Identity>, bool),
    /// The token is bad.
    Bad,
    /// Keystone made no decision; a client may try again after so many seconds.
    Undecided(u64),
}

/// Validates tokens.
#[derive(Debug)]
pub(super) struct Validator {
    cache: Arc<Cache>,
    client: Arc<Client>,
    pending: SingleFlight<TokenKey, Verdict>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

impl Validator {
    /// Creates a validator; see [`Client::new`].
    pub(super) fn new(
        settings: &Settings,
        clock: Arc<dyn Clock>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, String> {
        Ok(Self {
            cache: Arc::new(Cache::new(settings.cache, Arc::clone(&clock))),
            client: Arc::new(Client::new(settings, &clock, metrics)?),
            pending: SingleFlight::new(MAX_PENDING),
            clock,
            metrics: Arc::clone(metrics),
        })
    }

    /// Returns the connections to Keystone.
    pub(super) fn transport(&self) -> &Arc<Transport> {
        &self.client.transport
    }

    /// Says whether a token is good, until the deadline at the latest. Costs a digest and a look-up when the cache knows.
    pub(super) async fn validate(
        &self,
        token: &HeaderValue,
        mode: Mode,
        deadline: Instant,
    ) -> Validated {
        let key = TokenKey::new(token.as_bytes(), mode);
        match self.cache.lookup(key) {
            Lookup::Fresh(identity) => {
                metrics::add(&self.metrics.fresh_hits);
                Validated::Good(identity, false)
            }
            Lookup::Rejected | Lookup::Expired => {
                metrics::add(&self.metrics.negative_hits);
                Validated::Bad
            }
            Lookup::Stale(_) | Lookup::Unknown => self.ask(token, key, mode, deadline).await,
        }
    }

    /// Asks Keystone, or waits for an answer that is under way.
    async fn ask(
        &self,
        token: &HeaderValue,
        key: TokenKey,
        mode: Mode,
        deadline: Instant,
    ) -> Validated {
        let known = || match self.cache.lookup(key) {
            Lookup::Fresh(identity) => Some(Verdict::Valid(identity)),
            Lookup::Rejected | Lookup::Expired => Some(Verdict::Invalid),
            Lookup::Stale(_) | Lookup::Unknown => None,
        };
        let joined = self.pending.join(key, known, |flight| {
            let (cache, client) = (Arc::clone(&self.cache), Arc::clone(&self.client));
            let mut token = token.clone();
            token.set_sensitive(true);
            async move { fly(&cache, &client, &token, key, mode, &flight).await }
        });
        let undecided = |why: &str| Verdict::Undecided(Undecided::new(Fault::Unreachable, why));
        let waiting = match joined {
            Joined::Ready(verdict) => return self.conclude(verdict, key, mode),
            Joined::Began(waiting) => waiting,
            Joined::Shared(waiting) => {
                metrics::add(&self.metrics.shared);
                waiting
            }
            Joined::Full => return self.conclude(undecided("too many wait for it"), key, mode),
        };
        let verdict = match timeout_at(deadline, waiting.result()).await {
            Ok(Some(verdict)) => verdict,
            Ok(None) => undecided("the service stops"),
            Err(_) => undecided("it does not answer in time"),
        };
        self.conclude(verdict, key, mode)
    }

    /// Applies what Keystone's answer leaves open: expiry, and stale answers where there is none.
    fn conclude(&self, verdict: Verdict, key: TokenKey, mode: Mode) -> Validated {
        match verdict {
            Verdict::Valid(identity)
                if mode == Mode::Current && identity.is_expired(self.clock.wall()) =>
            {
                Validated::Bad
            }
            Verdict::Valid(identity) => Validated::Good(identity, false),
            Verdict::Invalid => Validated::Bad,
            // Looked up anew: time has passed, and Keystone may have said 404 meanwhile.
            Verdict::Undecided(undecided) => match self.cache.lookup(key) {
                Lookup::Fresh(identity) => Validated::Good(identity, false),
                Lookup::Stale(identity) => {
                    metrics::add(&self.metrics.stale_hits);
                    Validated::Good(identity, true)
                }
                Lookup::Rejected | Lookup::Expired => Validated::Bad,
                Lookup::Unknown => Validated::Undecided(undecided.retry_after),
            },
        }
    }

    /// Asks Keystone for the service's own token; fails with a sentence for an operator.
    pub(super) async fn check(&self) -> Result<(), String> {
        let checked = self.client.check(Instant::now() + REQUEST_TIMEOUT).await;
        checked.map_err(|undecided| undecided.why.to_string())
    }

    /// Returns what is known of Keystone.
    pub(super) fn state(&self) -> KeystoneState {
        self.client.health.state()
    }

    /// Returns how full the cache is.
    pub(super) fn cache_size(&self) -> CacheSize {
        self.cache.size()
    }

    /// Returns how many validations are under way.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }
}

/// One validation: it goes on when its caller goes away, and leaves its result in the cache before it ends.
async fn fly(
    cache: &Cache,
    client: &Client,
    token: &HeaderValue,
    key: TokenKey,
    mode: Mode,
    flight: &Flight<TokenKey, Verdict>,
) -> Option<Verdict> {
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    let started = cache.start();
    let is_unwanted = || flight.abandon_if_unwanted();
    let was_good = cache.was_good(key);
    let asking = client.validate(token, mode, was_good, deadline, is_unwanted);
    let verdict = asking.await?;
    match &verdict {
        Verdict::Valid(identity) => cache.accept(key, started, identity),
        Verdict::Invalid => cache.reject(key),
        Verdict::Undecided(_) => {}
    }
    Some(verdict)
}
