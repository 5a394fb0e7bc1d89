//! One bridge on one server: takes the seat when it can, crosses while it has it, and waits while a store does not
//! answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isimud_contract::{Error, ManagementStore, Result};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::crossing::Crossing;
use super::pace::Pace;
use super::seat::{BEAT, Halt, Seat};
use super::{Lag, Rule, State, Status, Tally};
use crate::messaging::Messaging;

/// How often a server without the seat looks whether it can have it.
const LOOK: Duration = Duration::from_secs(1);

/// How long a bridge rests that found nothing: at first, and at most.
const REST: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// How long it waits after something failed: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How long it waits when the target has refused a message for good.
const REFUSED: Duration = Duration::from_secs(60);

/// How often it looks what waits in the source.
const MEASURE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Bridge {
    rule: Rule,
    messaging: Arc<Messaging>,
    tally: Arc<dyn Tally>,
    seat: Seat,
    status: Mutex<Status>,
}

/// What a bridge remembers while it has the seat.
struct Turn {
    pace: Pace,
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
        tally: Arc<dyn Tally>,
    ) -> Self {
        Self {
            seat: Seat::new(management, &rule),
            rule,
            messaging,
            tally,
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

    /// Works until told to stop, and then gives the seat back.
    pub(super) async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut failures = 0;
        while !*stop.borrow() {
            let wait = match self.seat.take().await {
                Ok(true) => {
                    failures = 0;
                    tracing::info!(from = %self.rule.from, to = %self.rule.to, "a bridge is worked on here");
                    self.work(&mut stop).await;
                    self.tally.left(&self.rule);
                    Duration::ZERO
                }
                Ok(false) => {
                    self.elsewhere();
                    LOOK
                }
                Err(error) => {
                    failures += 1;
                    self.held_up(&error, failures);
                    pause(failures)
                }
            };
            rest(wait, &mut stop).await;
        }
        self.seat.leave().await;
    }

    /// Crosses until told to stop, or until another server has the seat.
    async fn work(&self, stop: &mut watch::Receiver<bool>) {
        let mut turn = Turn {
            pace: Pace::new(self.rule.rate),
            failures: 0,
            empty: 0,
            oldest: Duration::ZERO,
            measured: None,
        };
        loop {
            let went = self.in_the_seat(self.go(&mut turn, stop)).await;
            let wait = match went {
                Ok(()) => return,
                Err(Halt::Overtaken) => {
                    tracing::warn!(from = %self.rule.from, to = %self.rule.to, "another server has taken a bridge over");
                    return self.elsewhere();
                }
                Err(Halt::Refused(error)) => {
                    self.stopped(&error);
                    REFUSED
                }
                Err(Halt::Failed(error)) => {
                    turn.failures += 1;
                    self.held_up(&error, turn.failures);
                    pause(turn.failures)
                }
            };
            let waited = async {
                rest(wait, stop).await;
                Ok(())
            };
            if self.in_the_seat(waited).await.is_err() {
                return self.elsewhere();
            }
            if *stop.borrow() {
                return;
            }
        }
    }

    /// Does something, and keeps the seat meanwhile.
    async fn in_the_seat(&self, what: impl Future<Output = Result<(), Halt>>) -> Result<(), Halt> {
        tokio::pin!(what);
        loop {
            tokio::select! {
                biased;
                done = &mut what => return done,
                () = sleep(BEAT) => match self.seat.beat().await {
                    Err(Halt::Overtaken) => return Err(Halt::Overtaken),
                    Err(Halt::Failed(error) | Halt::Refused(error)) => {
                        tracing::debug!(%error, "the seat of a bridge cannot be kept now");
                    }
                    Ok(()) => {}
                }
            }
        }
    }

    async fn go(&self, turn: &mut Turn, stop: &mut watch::Receiver<bool>) -> Result<(), Halt> {
        let mut crossing = Crossing::new(&self.messaging, &self.rule, &self.seat);
        crossing.recover().await?;
        while !*stop.borrow() {
            let batch = crossing.batch(turn.pace.most()).await?;
            (turn.failures, turn.empty) = (0, turn.empty + 1);
            let mut wait = turn.pace.after(batch.count());
            if batch.count() > 0 {
                (turn.empty, turn.oldest) = (0, batch.oldest);
                self.tally.crossed(&self.rule, batch.crossed);
                self.tally.dead_lettered(&self.rule, batch.dead_lettered);
            } else {
                wait = doubled(REST, turn.empty);
            }
            self.went(batch.crossed, batch.dead_lettered);
            let is_due = turn.measured.is_none_or(|when| when.elapsed() >= MEASURE);
            // It has just become empty, or seems so.
            if is_due || turn.empty == 1 {
                self.measure(turn).await?;
            }
            rest(wait, stop).await;
        }
        Ok(())
    }

    /// Looks what waits in the source.
    async fn measure(&self, turn: &mut Turn) -> Result<()> {
        turn.measured = Some(Instant::now());
        let from = &self.rule.from;
        let left = self.messaging.backlog(from).await?;
        let lag = Lag {
            free: left.free,
            claimed: left.claimed,
            oldest: match self.messaging.stats(from).await?.oldest {
                Some(oldest) => oldest.age,
                None if !left.is_empty() => turn.oldest,
                None => Duration::ZERO,
            },
        };
        self.tally.lag(&self.rule, lag);
        let mut status = self.now();
        status.lag = Some(lag);
        status.is_done = turn.empty > 0 && left.free == 0;
        Ok(())
    }

    fn went(&self, crossed: usize, dead_lettered: usize) {
        let mut status = self.now();
        status.crossed += crossed as u64;
        status.dead_lettered += dead_lettered as u64;
        status.error = None;
        status.state = if crossed + dead_lettered > 0 {
            status.is_done = false;
            State::Running
        } else {
            State::Idle
        };
        drop(status);
        self.tally.up(&self.rule, true);
    }

    fn elsewhere(&self) {
        let mut status = self.now();
        status.state = State::Elsewhere;
        status.error = None;
        (status.lag, status.is_done) = (None, false);
        drop(status);
        self.tally.left(&self.rule);
    }

    fn held_up(&self, error: &Error, failures: u32) {
        // Told once; how it goes on is a matter of metrics.
        if failures == 1 {
            tracing::warn!(%error, from = %self.rule.from, to = %self.rule.to, "a bridge is held up");
        }
        self.failed(State::HeldUp, error);
    }

    fn stopped(&self, error: &Error) {
        tracing::error!(%error, from = %self.rule.from, to = %self.rule.to,
            "a bridge stops at a message that its target refuses; give it a dead-letter queue, or take the message out");
        self.failed(State::Stopped, error);
    }

    fn failed(&self, state: State, error: &Error) {
        let mut status = self.now();
        (status.state, status.is_done) = (state, false);
        status.error = Some(error.to_string());
        drop(status);
        self.tally.up(&self.rule, false);
    }
}

fn pause(failures: u32) -> Duration {
    doubled(PAUSE, failures)
}

/// The first of two spans, doubled for each time after the first, and at most the second.
fn doubled((first, most): (Duration, Duration), times: u32) -> Duration {
    let factor = 2_u32.saturating_pow(times.saturating_sub(1).min(16));
    first.saturating_mul(factor).min(most)
}

/// Waits, but not when told to stop.
async fn rest(span: Duration, stop: &mut watch::Receiver<bool>) {
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
    fn pauses_grow_to_a_limit() {
        let spans: Vec<u128> = (1..=9).map(|times| pause(times).as_millis()).collect();
        assert_eq!(spans, [100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
        assert_eq!(pause(u32::MAX), PAUSE.1);
    }
}
