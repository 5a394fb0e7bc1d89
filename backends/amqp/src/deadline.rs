//! How long a call may take in all, whatever it is made of.
//!
//! A call asks RabbitMQ several things, one after another, and each of them may take the whole time of a call. The
//! moment at which the call itself is over is noted here for all of them.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

tokio::task_local! {
    static DEADLINE: Instant;
}

/// Does the work of a call that may take so long. The work is not broken off at the end: whatever it waits for then is,
/// by [`left`].
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> T {
    DEADLINE.scope(Instant::now() + limit, work).await
}

/// What is left of the call that is being served, and `limit` at the most. Outside of a call it is `limit`.
pub(crate) fn left(limit: Duration) -> Duration {
    let left = DEADLINE.try_with(|end| end.saturating_duration_since(Instant::now()));
    left.map_or(limit, |left| left.min(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_call_has_spent_is_not_left_for_its_next_step() {
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        assert_eq!(left(second), second);
        within(minute, async {
            assert_eq!(left(second), second);
            assert!(left(2 * minute) <= minute);
        })
        .await;
        within(Duration::ZERO, async { assert!(left(second).is_zero()) }).await;
    }
}
