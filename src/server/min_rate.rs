//! How slowly a client may take its answers.
//!
//! A client that takes nothing holds its answer in the memory of the server for as long as it likes. So the connection is
//! closed on which less was taken within a time than a slow line takes. The time runs only while the system has no room
//! for what is to be sent: a client that is fast enough is never measured.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// The least that a client has to take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MinRate {
    /// For how long it is measured.
    pub(crate) within: Duration,
    /// Bytes that it has to take in that time.
    pub(crate) least: u64,
}

/// How fast the client of a connection takes what it is sent now.
#[derive(Debug)]
pub(super) struct Measured {
    min_rate: MinRate,
    /// While it is slow.
    slow: Option<Window>,
}

#[derive(Debug)]
struct Window {
    ends: Pin<Box<Sleep>>,
    taken: u64,
}

impl Measured {
    pub(super) fn new(min_rate: MinRate) -> Self {
        Self {
            min_rate,
            slow: None,
        }
    }

    /// The system took so many bytes of those that it was offered.
    pub(super) fn took(&mut self, bytes: usize, offered: usize) {
        if bytes >= offered {
            self.slow = None;
        } else if let Some(slow) = &mut self.slow {
            slow.taken += bytes as u64;
        }
    }

    /// The system takes nothing now. `TimedOut` when the client has taken too little for too long; the task is woken when
    /// that is to be asked again.
    pub(super) fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let min_rate = self.min_rate;
        let slow = self.slow.get_or_insert_with(|| Window {
            ends: Box::pin(sleep(min_rate.within)),
            taken: 0,
        });
        while let Poll::Ready(()) = slow.ends.as_mut().poll(context) {
            if slow.taken < min_rate.least.max(1) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            slow.taken = 0;
            slow.ends.as_mut().reset(Instant::now() + min_rate.within);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const PACE: MinRate = MinRate {
        within: Duration::from_secs(30),
        least: 1000,
    };

    async fn check(measured: &mut Measured) -> bool {
        poll_fn(|context| Poll::Ready(measured.check(context).is_ok())).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_too_little_is_not_waited_for() {
        let mut measured = Measured::new(PACE);
        assert!(check(&mut measured).await);
        measured.took(999, 5000);
        tokio::time::advance(PACE.within / 2).await;
        assert!(check(&mut measured).await);
        tokio::time::advance(PACE.within).await;
        assert!(!check(&mut measured).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_enough_may_go_on_for_ever() {
        let mut measured = Measured::new(PACE);
        for _ in 0..100 {
            assert!(check(&mut measured).await);
            measured.took(1000, 5000);
            tokio::time::advance(PACE.within).await;
        }
        // And one that took all is measured anew when it is slow again.
        measured.took(5000, 5000);
        tokio::time::advance(PACE.within * 2).await;
        assert!(check(&mut measured).await);
    }
}
