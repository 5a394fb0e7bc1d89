//! What is known of the queue beside a queue, where messages are that were taken over.
//!
//! A companion that does not answer, as one that RabbitMQ 3.10 has left dead, must not cost the queue itself: it is left
//! alone for a moment, and asked again then. What does not answer for long is passed by: whoever receives gets what is in the
//! queue itself, and nothing when that is empty, so that what is behind it is not held up. Nobody is told meanwhile that the
//! queue is empty: what the companion holds is received when it answers again, and whoever knows that it never will may
//! delete it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// For how long it is believed that no other server has made a companion.
const CACHE_TTL: Duration = Duration::from_secs(3600);

/// For how long a companion that did not answer when it was looked for is believed to be there.
const SILENT_CACHE_TTL: Duration = Duration::from_secs(10);

/// For how long a companion that does not answer is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(5);

/// For how long a companion must have been silent before it is passed by: longer than a node takes to start again, or a
/// cluster to elect a leader.
const SKIP_AFTER: Duration = Duration::from_secs(20);

/// A node writes down which quorum queues it has when that has not changed for half a second or more. A younger one has lost
/// what it had confirmed when the node is killed; up to RabbitMQ 4.2 it is dead.
const YOUNG: Duration = Duration::from_secs(2);

/// What is known of a companion.
#[derive(Debug)]
pub(crate) struct Companion {
    state: Mutex<State>,
    silence: Mutex<Option<Silence>>,
    /// Until when it is not looked for again.
    believed_until: Instant,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Absent,
    /// It is there; this server may have made it, at a time that is known then.
    There(Option<Instant>),
    /// It is there, did not answer, and is left alone until then.
    Silent(Instant),
}

/// That it has not answered, since when, and whether that was said.
#[derive(Debug, Clone, Copy)]
struct Silence {
    since: Instant,
    is_said: bool,
}

impl Silence {
    fn begins() -> Self {
        Self {
            since: Instant::now(),
            is_said: false,
        }
    }
}

impl Companion {
    /// One that was looked for just now.
    pub(crate) fn found(is_there: bool) -> Self {
        let state = match is_there {
            true => State::There(None),
            false => State::Absent,
        };
        Self::new(state, CACHE_TTL)
    }

    /// One that did not answer when it was looked for just now. Only one that is there can be silent. It has been silent for
    /// as long as it was `before`.
    pub(crate) fn silent(before: Option<&Self>) -> Self {
        let until = Instant::now() + LEFT_ALONE;
        let before = before.and_then(|before| *before.silence());
        Self {
            silence: Mutex::new(Some(before.unwrap_or_else(Silence::begins))),
            ..Self::new(State::Silent(until), SILENT_CACHE_TTL)
        }
    }

    fn new(state: State, believed: Duration) -> Self {
        Self {
            state: Mutex::new(state),
            silence: Mutex::default(),
            believed_until: Instant::now() + believed,
        }
    }

    pub(crate) fn is_believed(&self) -> bool {
        Instant::now() < self.believed_until
    }

    pub(crate) fn is_there(&self) -> bool {
        !matches!(*self.state(), State::Absent)
    }

    /// Whether it did not answer a moment ago.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(*self.state(), State::Silent(until) if Instant::now() < until)
    }

    /// Whether it is there and answers, as far as is known.
    pub(crate) fn answers(&self) -> bool {
        self.is_there() && !self.is_silent()
    }

    /// Whether this server made it so lately that a crash of RabbitMQ could leave it dead. One that was found may be as
    /// young, but what a queue with a low limit has taken back must not wait for that.
    pub(crate) fn is_young(&self) -> bool {
        matches!(*self.state(), State::There(Some(made)) if made.elapsed() < YOUNG)
    }

    /// Notes that it has just been made.
    pub(crate) fn was_made(&self) {
        let mut state = self.state();
        if matches!(*state, State::Absent) {
            *state = State::There(Some(Instant::now()));
        }
    }

    /// Notes that it does not answer. The queue itself goes on without it for a while.
    pub(crate) fn leave(&self) {
        *self.state() = State::Silent(Instant::now() + LEFT_ALONE);
        self.silence().get_or_insert_with(Silence::begins);
    }

    /// Notes that it has answered.
    pub(crate) fn has_answered(&self) {
        *self.silence() = None;
    }

    /// Whether it has not answered when it was last asked.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.silence().is_some()
    }

    /// Whether it has not answered for so long that nobody waits for it any more. The log tells of it once.
    pub(crate) fn is_passed_by(&self, name: &str) -> bool {
        let mut silence = self.silence();
        let long = silence
            .as_mut()
            .filter(|it| it.since.elapsed() >= SKIP_AFTER);
        let Some(silence) = long else {
            return false;
        };
        if !std::mem::replace(&mut silence.is_said, true) {
            tracing::warn!(queue = name, "{}", unanswered(name));
        }
        true
    }

    fn silence(&self) -> MutexGuard<'_, Option<Silence>> {
        self.silence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is said of a companion that does not answer.
pub(crate) fn unanswered(name: &str) -> String {
    format!(
        "the RabbitMQ queue {name} does not answer; what is in it is received when it does. One that answers nobody since \
         its node was killed right after the queue was made needs an election, or has to be deleted there (see the driver's page)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_that_is_made_is_young_for_a_moment() {
        let companion = Companion::found(false);
        assert!(!companion.is_there() && !companion.answers());
        companion.was_made();
        assert!(companion.answers() && companion.is_young());
        tokio::time::advance(YOUNG).await;
        assert!(companion.answers() && !companion.is_young());
        assert!(companion.is_believed());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_silent_is_left_alone_for_a_moment() {
        let companion = Companion::found(true);
        assert!(companion.answers() && !companion.is_young());
        companion.leave();
        assert!(companion.is_there() && companion.is_silent() && !companion.answers());
        tokio::time::advance(LEFT_ALONE).await;
        assert!(companion.answers());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_silent_when_it_was_looked_for_is_looked_for_again_soon() {
        let companion = Companion::silent(None);
        assert!(companion.is_silent() && companion.is_believed());
        tokio::time::advance(SILENT_CACHE_TTL).await;
        assert!(!companion.is_believed());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_silent_for_long_is_passed_by_until_it_answers() {
        let first = Companion::found(true);
        first.leave();
        assert!(first.is_in_doubt() && !first.is_passed_by("q"));
        tokio::time::advance(SKIP_AFTER - Duration::from_millis(1)).await;
        // It is looked for again, and has not answered meanwhile.
        let companion = Companion::silent(Some(&first));
        assert!(!companion.is_passed_by("q"));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(companion.is_passed_by("q"));
        companion.has_answered();
        assert!(!companion.is_passed_by("q") && !companion.is_in_doubt());
    }
}
