//! One bridge on one server: acquires the leader lease when it can, transfers while it has it, and waits while a store
//! does not answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isimud_contract::{Error, ManagementStore, Result};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::leader_lease::{BridgeError, HEARTBEAT_INTERVAL, LeaderLease};
use super::transfer::Transfer;
use super::{BridgeObserver, Lag, Rule, State, Status};
use crate::messaging::Messaging;
use crate::rate_limiter::RateLimiter;

/// How often a server without the leader lease looks whether it can have it.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How long a bridge rests that found nothing: at first, and at most.
const IDLE_BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// How long it waits after something failed: at first, and at most.
const ERROR_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How long it waits after the target has rejected a message permanently.
const REJECTED_RETRY_DELAY: Duration = Duration::from_secs(60);

/// How often it measures the backlog of the source.
const LAG_INTERVAL: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Bridge {
    rule: Rule,
    messaging: Arc<Messaging>,
    observer: Arc<dyn BridgeObserver>,
    leader: LeaderLease,
    status: Mutex<Status>,
}

/// What a bridge remembers while it has the leader lease.
struct Progress {
    limiter: RateLimiter,
    /// Failures since a batch succeeded.
    failures: u32,
    /// Batches since one that was not empty.
    empty: u32,
    /// How old the oldest message of the last batch was.
    oldest: Duration,
    measured: Option<Instant>,
}

impl Bridge {
    pub(super) fn new(
        rule: Rule,
        messaging: Arc<Messaging>,
        management: Arc<dyn ManagementStore>,
        observer: Arc<dyn BridgeObserver>,
    ) -> Self {
        Self {
            leader: LeaderLease::new(management, &rule),
            rule,
            messaging,
            observer,
            status: Mutex::default(),
        }
    }

    pub(super) fn rule(&self) -> &Rule {
        &self.rule
    }

    pub(super) fn status(&self) -> Status {
        self.now().clone()
    }

    fn now(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works until told to stop, and then gives the leader lease back.
    pub(super) async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut failures = 0;
        while !*stop.borrow() {
            let wait = match self.leader.acquire().await {
                Ok(true) => {
                    failures = 0;
                    tracing::info!(from = %self.rule.from, to = %self.rule.to, "bridge is running on this server");
                    self.work(&mut stop).await;
                    self.observer.left(&self.rule);
                    Duration::ZERO
                }
                Ok(false) => {
                    self.record_elsewhere();
                    POLL_INTERVAL
                }
                Err(error) => {
                    failures += 1;
                    self.record_stall(&error, failures);
                    backoff(failures)
                }
            };
            sleep_unless_stopped(wait, &mut stop).await;
        }
        self.leader.release().await;
    }

    /// Transfers until told to stop, or until another server has the leader lease.
    async fn work(&self, stop: &mut watch::Receiver<bool>) {
        let mut progress = Progress {
            limiter: RateLimiter::new(self.rule.rate),
            failures: 0,
            empty: 0,
            oldest: Duration::ZERO,
            measured: None,
        };
        loop {
            let went = self
                .while_leader(self.transfer_until_stopped(&mut progress, stop))
                .await;
            let wait = match went {
                Ok(()) => return,
                Err(BridgeError::LeaseLost) => {
                    tracing::warn!(from = %self.rule.from, to = %self.rule.to, "bridge lease lost: another server runs this bridge now");
                    return self.record_elsewhere();
                }
                Err(BridgeError::Rejected(error)) => {
                    self.record_rejection(&error);
                    REJECTED_RETRY_DELAY
                }
                Err(BridgeError::Failed(error)) => {
                    progress.failures += 1;
                    self.record_stall(&error, progress.failures);
                    backoff(progress.failures)
                }
            };
            let waited = async {
                sleep_unless_stopped(wait, stop).await;
                Ok(())
            };
            if self.while_leader(waited).await.is_err() {
                return self.record_elsewhere();
            }
            if *stop.borrow() {
                return;
            }
        }
    }

    /// Does something, and keeps the leader lease meanwhile.
    async fn while_leader(
        &self,
        what: impl Future<Output = Result<(), BridgeError>>,
    ) -> Result<(), BridgeError> {
        tokio::pin!(what);
        loop {
            tokio::select! {
                biased;
                done = &mut what => return done,
                () = sleep(HEARTBEAT_INTERVAL) => match self.leader.heartbeat().await {
                    Err(BridgeError::LeaseLost) => return Err(BridgeError::LeaseLost),
                    Err(BridgeError::Failed(error) | BridgeError::Rejected(error)) => {
                        tracing::debug!(%error, from = %self.rule.from, to = %self.rule.to, "bridge lease could not be renewed");
                    }
                    Ok(()) => {}
                }
            }
        }
    }

    async fn transfer_until_stopped(
        &self,
        progress: &mut Progress,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), BridgeError> {
        let mut transfer = Transfer::new(&self.messaging, &self.rule, &self.leader);
        transfer.recover().await?;
        while !*stop.borrow() {
            let batch = transfer
                .transfer_batch(progress.limiter.batch_size())
                .await?;
            (progress.failures, progress.empty) = (0, progress.empty + 1);
            let mut wait = progress.limiter.delay_after(batch.count());
            if batch.count() > 0 {
                (progress.empty, progress.oldest) = (0, batch.oldest);
                self.observer.transferred(&self.rule, batch.transferred);
                self.observer.dead_lettered(&self.rule, batch.dead_lettered);
            } else {
                wait = exponential(IDLE_BACKOFF, progress.empty);
            }
            self.record_success(batch.transferred, batch.dead_lettered);
            let is_due = progress
                .measured
                .is_none_or(|when| when.elapsed() >= LAG_INTERVAL);
            // It has just become empty, or seems so.
            if is_due || progress.empty == 1 {
                self.measure(progress).await?;
            }
            sleep_unless_stopped(wait, stop).await;
        }
        Ok(())
    }

    /// Looks what waits in the source.
    async fn measure(&self, progress: &mut Progress) -> Result<()> {
        progress.measured = Some(Instant::now());
        let from = &self.rule.from;
        let left = self.messaging.backlog(from).await?;
        let lag = Lag {
            free: left.free,
            claimed: left.claimed,
            oldest: match self.messaging.stats(from).await?.oldest {
                Some(oldest) => oldest.age,
                None if !left.is_empty() => progress.oldest,
                None => Duration::ZERO,
            },
        };
        self.observer.lag(&self.rule, lag);
        let mut status = self.now();
        status.lag = Some(lag);
        status.is_done = progress.empty > 0 && left.free == 0;
        Ok(())
    }

    fn record_success(&self, transferred: usize, dead_lettered: usize) {
        let mut status = self.now();
        status.transferred += transferred as u64;
        status.dead_lettered += dead_lettered as u64;
        status.error = None;
        status.state = if transferred + dead_lettered > 0 {
            status.is_done = false;
            State::Running
        } else {
            State::Idle
        };
        drop(status);
        self.observer.up(&self.rule, true);
    }

    fn record_elsewhere(&self) {
        let mut status = self.now();
        status.state = State::Elsewhere;
        status.error = None;
        (status.lag, status.is_done) = (None, false);
        drop(status);
        self.observer.left(&self.rule);
    }

    fn record_stall(&self, error: &Error, failures: u32) {
        // Told once; how it goes on is a matter of metrics.
        if failures == 1 {
            tracing::warn!(%error, from = %self.rule.from, to = %self.rule.to, "bridge stalled, retrying");
        }
        self.record_failure(State::Stalled, error);
    }

    fn record_rejection(&self, error: &Error) {
        tracing::error!(%error, from = %self.rule.from, to = %self.rule.to,
            "bridge stopped: the target rejects a message permanently; configure a dead-letter queue, or remove the message");
        self.record_failure(State::Stopped, error);
    }

    fn record_failure(&self, state: State, error: &Error) {
        let mut status = self.now();
        (status.state, status.is_done) = (state, false);
        status.error = Some(error.to_string());
        drop(status);
        self.observer.up(&self.rule, false);
    }
}

fn backoff(failures: u32) -> Duration {
    exponential(ERROR_BACKOFF, failures)
}

/// The first of two spans, doubled for each time after the first, and at most the second.
fn exponential((first, most): (Duration, Duration), times: u32) -> Duration {
    let factor = 2_u32.saturating_pow(times.saturating_sub(1).min(16));
    first.saturating_mul(factor).min(most)
}

/// Waits, but not when told to stop.
async fn sleep_unless_stopped(span: Duration, stop: &mut watch::Receiver<bool>) {
    if span.is_zero() {
        return;
    }
    tokio::select! {
        () = sleep(span) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_a_limit() {
        let spans: Vec<u128> = (1..=9).map(|times| backoff(times).as_millis()).collect();
        assert_eq!(spans, [100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
        assert_eq!(backoff(u32::MAX), ERROR_BACKOFF.1);
    }
}
