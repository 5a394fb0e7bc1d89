//! Whether Keystone decides about tokens: a gauge, and one log line for each change.
//!
//! Readiness does not depend on it: a load balancer would take all servers out at once, also for requests whose tokens are
//! cached. Source: `docs/compatibility/keystone.md` section 9.4.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isimud_contract::{Clock, Timestamp};

use super::metrics::Metrics;

/// How long a fault is the last that the log tells, so that a Keystone that fails every other request does not fill it. What
/// is new to the log, a fault after none, is told at once.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The difference of clocks that is worth a warning, and the one below which it is over. An answer's date has whole seconds.
const MAX_SKEW_MS: i64 = 5_000;
const SMALL_SKEW_MS: i64 = 3_000;

/// The least time between two warnings about clocks: of several servers behind one address each may have its own.
const SKEW_LOG_INTERVAL: Duration = Duration::from_mins(10);

/// Why Keystone makes no decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It cannot be reached, does not answer in time, or its answers are not what they should be.
    Unreachable,
    /// It refuses the service's own credentials.
    Credentials,
    /// It does not let the service's user validate tokens.
    Permission,
}

/// What is known of Keystone, for a readiness detail and for an operator's check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeystoneState {
    /// The fault; `None` while Keystone decides about tokens.
    pub fault: Option<Fault>,
    /// The last failure in words, without any secret; empty without a fault.
    pub reason: Arc<str>,
    /// Since when it is so; `None` before Keystone was asked.
    pub since: Option<Timestamp>,
}

/// Follows the state.
#[derive(Debug)]
pub(super) struct Health {
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// The service user's name, for log lines.
    user: String,
    tracked: Mutex<Tracked>,
}

#[derive(Debug)]
struct Tracked {
    state: KeystoneState,
    /// What the log says last, and since when.
    logged: Option<(Option<Fault>, Timestamp)>,
    is_skewed: bool,
    /// When the log last told of the clocks.
    skew_logged: Option<Timestamp>,
}

impl Health {
    pub(super) fn new(clock: Arc<dyn Clock>, metrics: Arc<Metrics>, user: &str) -> Self {
        let state = KeystoneState {
            fault: None,
            reason: "".into(),
            since: None,
        };
        Self {
            clock,
            metrics,
            user: user.to_owned(),
            tracked: Mutex::new(Tracked {
                state,
                logged: None,
                is_skewed: false,
                skew_logged: None,
            }),
        }
    }

    /// Returns what is known of Keystone.
    pub(super) fn state(&self) -> KeystoneState {
        self.lock().state.clone()
    }

    /// Notes that Keystone decided about a token.
    pub(super) fn succeeded(&self) {
        self.note(None, &"".into());
    }

    /// Notes that it did not; `why` must hold no secret.
    pub(super) fn failed(&self, fault: Fault, why: &Arc<str>) {
        self.note(Some(fault), why);
    }

    fn note(&self, fault: Option<Fault>, why: &Arc<str>) {
        let now = self.clock.now();
        let mut tracked = self.lock();
        if tracked.state.since.is_none() || tracked.state.fault != fault {
            tracked.state.since = Some(now);
            self.metrics.up.set(fault.is_none().into());
        }
        tracked.state.fault = fault;
        tracked.state.reason = Arc::clone(why);
        let is_due = match tracked.logged {
            None => true,
            Some((logged, at)) => {
                let is_over = now < at || now.since(at) >= LOG_INTERVAL;
                logged != fault && (logged.is_none() || is_over)
            }
        };
        if is_due {
            let is_first = tracked.logged.replace((fault, now)).is_none();
            drop(tracked);
            self.log(fault, why, is_first);
        }
    }

    fn log(&self, fault: Option<Fault>, why: &str, is_first: bool) {
        let user = &self.user;
        match fault {
            None if is_first => tracing::info!("Keystone can be asked about tokens"),
            None => tracing::info!("Keystone validates tokens again"),
            Some(Fault::Unreachable) => tracing::warn!(
                "cannot ask Keystone about tokens: {why}; requests whose token is not cached are answered 503"
            ),
            Some(Fault::Credentials) => tracing::error!(
                "Keystone refuses the credentials of the service user {user}: {why}; requests whose token is not cached \
                 are answered 503 until keystone.username and keystone.password are right"
            ),
            Some(Fault::Permission) => tracing::error!(
                "Keystone does not let the service user {user} validate tokens: {why}; requests whose token is not \
                 cached are answered 503 until it has the role service or admin in its project"
            ),
        }
    }

    /// Compares Keystone's clock with the machine's: expiry is decided by the latter. Warns when they part, at most once in
    /// ten minutes.
    pub(super) fn note_date(&self, keystone: Timestamp) {
        let skew = keystone.0 - self.clock.wall().0;
        let now = self.clock.now();
        let mut tracked = self.lock();
        let was_skewed = tracked.is_skewed;
        let limit = if was_skewed {
            SMALL_SKEW_MS
        } else {
            MAX_SKEW_MS
        };
        tracked.is_skewed = skew.abs() > limit;
        let logged = tracked.skew_logged;
        let is_due = logged.is_none_or(|at| now < at || now.since(at) >= SKEW_LOG_INTERVAL);
        let is_told = tracked.is_skewed && !was_skewed && is_due;
        if is_told {
            tracked.skew_logged = Some(now);
        }
        drop(tracked);
        if is_told {
            let secs = skew / 1000;
            tracing::warn!(
                "Keystone's clock differs from this machine's by {secs} s: tokens are refused too early or accepted too \
                 long by as much"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tracked> {
        self.tracked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
