//! What is known of the queue beside a queue, where messages are that were taken over.
//!
//! A companion that does not answer, as one that RabbitMQ 3.10 has left dead, must not cost the queue itself: it is left
//! alone for a moment, and asked again then.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// For how long it is believed that no other server has made a companion.
const BELIEVED: Duration = Duration::from_secs(3600);

/// For how long a companion that did not answer when it was looked for is believed to be there.
const SILENT_BELIEVED: Duration = Duration::from_secs(10);

/// For how long a companion that does not answer is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(5);

/// A node writes down which quorum queues it has when that has not changed for half a second or more. A younger one has lost
/// what it had confirmed when the node is killed; up to RabbitMQ 4.2 it is dead.
const YOUNG: Duration = Duration::from_secs(2);

/// What is known of a companion.
#[derive(Debug)]
pub(crate) struct Companion {
    state: Mutex<State>,
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

impl Companion {
    /// One that was looked for just now.
    pub(crate) fn found(is_there: bool) -> Self {
        let state = match is_there {
            true => State::There(None),
            false => State::Absent,
        };
        Self::new(state, BELIEVED)
    }

    /// One that did not answer when it was looked for just now. Only one that is there can be silent.
    pub(crate) fn silent() -> Self {
        let until = Instant::now() + LEFT_ALONE;
        Self::new(State::Silent(until), SILENT_BELIEVED)
    }

    fn new(state: State, believed: Duration) -> Self {
        Self {
            state: Mutex::new(state),
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
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        let companion = Companion::silent();
        assert!(companion.is_silent() && companion.is_believed());
        tokio::time::advance(SILENT_BELIEVED).await;
        assert!(!companion.is_believed());
    }
}
