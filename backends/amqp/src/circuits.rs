//! Queues that do not answer.
//!
//! A quorum queue without a leader answers nothing, and what waits for it gets in the way of others: a channel that asks
//! it serves nobody else, and after half a minute RabbitMQ ends the whole connection for it; more than some thirty
//! messages that it has not confirmed make RabbitMQ stop reading the connection. So such a queue is left to itself: when
//! it has let a call wait in vain, while others on the connection were answered, calls are refused at once, but for one
//! now and then that tries whether it is back, apart from everybody else. And no more than a few calls wait for a queue
//! that has been silent for a moment.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isimud_contract::{Error, Result};
use lapin::types::ShortString;
use tokio::time::Instant;

use crate::error::stalled;

/// How long it takes until a queue that let a call wait in vain is tried again: at first, and at the most.
const FIRST_DELAY: Duration = Duration::from_millis(500);
const MAX_DELAY: Duration = Duration::from_secs(5);

/// So many calls may wait for a queue that has answered none for a while.
const MAX_WAITING: usize = 8;

/// How many queues are remembered for having let a call wait in vain.
const CAPACITY: usize = 1000;

/// Whether a call that waited for so long has waited in vain, where a call may take `attempt_timeout`. It may be given
/// up before that: other steps of the same request have taken some of the time that it has.
pub(crate) fn is_in_vain(waited: Duration, attempt_timeout: Duration) -> bool {
    waited >= attempt_timeout / 2
}

/// What is known of queues that are being asked, or that do not answer.
#[derive(Debug)]
pub(crate) struct Circuits {
    all: Mutex<HashMap<ShortString, Circuit>>,
    /// How long a queue may answer nobody until no more than a few wait for it.
    silence: Duration,
}

#[derive(Debug)]
struct Circuit {
    /// Calls under way.
    waiting: usize,
    /// When the queue last answered, or the first of those that wait came.
    heard: Instant,
    broken: Option<Broken>,
}

/// The queue has let a call wait in vain.
#[derive(Debug)]
struct Broken {
    /// How many connections had been lost then. After the next one it may be as good as any other.
    losses: usize,
    until: Instant,
    pause: Duration,
    /// Whether somebody tries it.
    tried: bool,
}

/// A call on its way to a queue.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    circuits: &'a Circuits,
    queue: ShortString,
    losses: usize,
    is_trial: bool,
    answered: bool,
}

impl Circuits {
    pub(crate) fn new(silence: Duration) -> Self {
        Self {
            all: Mutex::default(),
            silence,
        }
    }

    /// Begins a call, or refuses it where it would wait in vain. So many connections have been lost until now.
    pub(crate) fn enter(&self, queue: &ShortString, losses: usize) -> Result<Call<'_>> {
        let now = Instant::now();
        let mut all = self.all();
        let circuit = all.entry(queue.clone()).or_insert_with(|| Circuit {
            waiting: 0,
            heard: now,
            broken: None,
        });
        circuit.broken.take_if(|broken| broken.losses != losses);
        let refusal = || -> Error { stalled().with("queue", queue) };
        let is_trial = match &mut circuit.broken {
            Some(broken) if broken.tried || now < broken.until => return Err(refusal()),
            Some(broken) => {
                broken.tried = true;
                true
            }
            None => false,
        };
        if circuit.waiting == 0 {
            circuit.heard = now;
        } else if !is_trial && circuit.waiting >= MAX_WAITING && now > circuit.heard + self.silence
        {
            return Err(refusal());
        }
        circuit.waiting += 1;
        drop(all);
        Ok(Call {
            circuits: self,
            queue: queue.clone(),
            losses,
            is_trial,
            answered: false,
        })
    }

    fn all(&self) -> MutexGuard<'_, HashMap<ShortString, Circuit>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Call<'_> {
    /// Whether it tries a queue that did not answer, and is to be kept apart from others.
    pub(crate) fn is_trial(&self) -> bool {
        self.is_trial
    }

    /// Notes that the queue has let the call wait in vain since then. It may have answered others meanwhile: then nothing is
    /// the matter with it. `alone` says that other queues have answered.
    pub(crate) fn waited_in_vain(&self, since: Instant, alone: bool) {
        let mut all = self.circuits.all();
        let Some(circuit) = all.get_mut(&self.queue) else {
            return;
        };
        if circuit.broken.is_some() || circuit.heard > since {
            return;
        }
        circuit.broken = Some(Broken {
            losses: self.losses,
            until: Instant::now() + FIRST_DELAY,
            pause: FIRST_DELAY,
            tried: false,
        });
        let queue = &self.queue;
        if alone {
            tracing::warn!(%queue, "a RabbitMQ queue does not answer, while others do; it is left to itself until it does");
        } else {
            tracing::debug!(%queue, "a RabbitMQ queue does not answer");
        }
    }

    /// Ends a call to which the queue has said anything.
    pub(crate) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut all = self.circuits.all();
        let Some(circuit) = all.get_mut(&self.queue) else {
            return;
        };
        circuit.waiting = circuit.waiting.saturating_sub(1);
        if self.answered {
            circuit.heard = Instant::now();
            if circuit.broken.take().is_some() {
                tracing::debug!(queue = %self.queue, "the RabbitMQ queue answers again");
            }
        } else if let Some(broken) = circuit.broken.as_mut().filter(|_| self.is_trial) {
            broken.tried = false;
            broken.pause = (2 * broken.pause).min(MAX_DELAY);
            broken.until = Instant::now() + broken.pause;
        }
        let (is_idle, is_whole) = (circuit.waiting == 0, circuit.broken.is_none());
        // Those that answer are remembered by nobody; of those that do not, so many.
        if is_idle && (is_whole || all.len() > CAPACITY) {
            all.remove(&self.queue);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_secs(1);

    #[test]
    fn a_queue_that_answers_is_remembered_by_nobody() {
        let (circuits, q) = (Circuits::new(SILENCE), ShortString::from("q"));
        let calls: Vec<_> = (0..100).map(|_| circuits.enter(&q, 0).unwrap()).collect();
        assert!(calls.iter().all(|call| !call.is_trial()));
        calls.into_iter().for_each(Call::answered);
        drop(circuits.enter(&q, 0).unwrap());
        assert!(circuits.all().is_empty());
    }

    #[test]
    fn a_queue_that_lets_a_call_wait_is_tried_now_and_then() {
        let (circuits, q) = (Circuits::new(SILENCE), ShortString::from("q"));
        let call = circuits.enter(&q, 0).unwrap();
        call.waited_in_vain(Instant::now(), true);
        drop(call);
        assert!(circuits.enter(&q, 0).is_err());
        let over = |circuits: &Circuits| {
            let mut all = circuits.all();
            all.get_mut(&q).unwrap().broken.as_mut().unwrap().until = Instant::now();
        };
        over(&circuits);
        let trial = circuits.enter(&q, 0).unwrap();
        assert!(trial.is_trial());
        assert!(circuits.enter(&q, 0).is_err(), "one at a time");
        drop(trial);
        assert!(circuits.enter(&q, 0).is_err(), "it was in vain");
        assert!(
            !circuits.enter(&q, 1).unwrap().is_trial(),
            "another connection"
        );
        let call = circuits.enter(&q, 1).unwrap();
        call.waited_in_vain(Instant::now(), false);
        drop(call);
        over(&circuits);
        circuits.enter(&q, 1).unwrap().answered();
        assert!(!circuits.enter(&q, 1).unwrap().is_trial());
    }

    #[test]
    fn a_queue_that_has_answered_others_meanwhile_is_not_left_alone() {
        let (circuits, q) = (Circuits::new(SILENCE), ShortString::from("q"));
        let begun = Instant::now();
        let late = circuits.enter(&q, 0).unwrap();
        circuits.enter(&q, 0).unwrap().answered();
        late.waited_in_vain(begun, true);
        drop(late);
        assert!(circuits.enter(&q, 0).is_ok());
    }

    #[test]
    fn few_wait_for_a_queue_that_is_silent() {
        let (circuits, q) = (Circuits::new(SILENCE), ShortString::from("q"));
        let calls: Vec<_> = (0..MAX_WAITING)
            .map(|_| circuits.enter(&q, 0).unwrap())
            .collect();
        circuits.all().get_mut(&q).unwrap().heard -= 2 * SILENCE;
        assert!(circuits.enter(&q, 0).is_err());
        assert!(circuits.enter(&"other".into(), 0).is_ok());
        calls.into_iter().next().unwrap().answered();
        assert!(circuits.enter(&q, 0).is_ok());
    }
}
