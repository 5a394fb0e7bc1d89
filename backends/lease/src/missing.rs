//! Rows whose messages the broker has no more, because native clients have taken them.
//!
//! Nobody tells the ledger of that. But a broker that has nothing left to deliver, while the ledger has messages that
//! are free, has lost them to somebody: it is looked at twice, some time apart, and what was free both times is
//! forgotten. A native client that holds such a message unsettled, and gives it back, loses nothing: what has no row is
//! judged by its envelope when it comes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use isimud_contract::{Ledger, MessageId, QueueKey, Result, Selection};

use crate::broker::{Depth, LeaseBroker};

/// Rows that are looked at in one step.
const PAGE_SIZE: usize = 1000;

/// Queues that are remembered, at the most.
const CACHE_CAPACITY: usize = 10_000;

/// What was seen of a queue.
#[derive(Debug)]
struct Seen {
    at: Instant,
    /// What was free then although the broker had nothing; empty when all was well.
    missing: Vec<MessageId>,
}

/// Finds such rows, and has them forgotten.
#[derive(Debug)]
pub(crate) struct Missing<B> {
    broker: Arc<B>,
    ledger: Arc<dyn Ledger>,
    seen: Mutex<HashMap<QueueKey, Seen>>,
}

impl<B: LeaseBroker> Missing<B> {
    pub(crate) fn new(broker: Arc<B>, ledger: Arc<dyn Ledger>) -> Self {
        Self {
            broker,
            ledger,
            seen: Mutex::default(),
        }
    }

    /// Looks at a queue of which a claim has got nothing, unless that was done a moment ago.
    pub(crate) async fn look(&self, queue: &QueueKey) -> Result<()> {
        let Some(pause) = self.broker.missing_after() else {
            return Ok(());
        };
        {
            let mut seen = self.seen();
            if seen
                .get(queue)
                .is_some_and(|seen| seen.at.elapsed() < pause)
            {
                return Ok(());
            }
            // Others need not look at the same time.
            if !seen.contains_key(queue) {
                remember(&mut seen, queue, Vec::new());
            }
        }
        let known = self.ledger.stats(queue).await?;
        if known.free == 0 {
            remember(&mut self.seen(), queue, Vec::new());
            return Ok(());
        }
        let depth = self.broker.depth(queue).await?;
        self.compare(queue, &depth).await.map(drop)
    }

    /// Compares the ledger with what the broker has just said. Returns how many rows are forgotten.
    pub(crate) async fn compare(&self, queue: &QueueKey, depth: &Depth) -> Result<usize> {
        let Some(pause) = self.broker.missing_after() else {
            return Ok(0);
        };
        if depth.silent.is_some() {
            // They may be in the part that does not answer.
            return Ok(0);
        }
        if depth.ready + depth.held.unwrap_or(0) > 0 {
            remember(&mut self.seen(), queue, Vec::new());
            return Ok(0);
        }
        let due = {
            let mut seen = self.seen();
            match seen.get_mut(queue) {
                Some(seen) if !seen.missing.is_empty() => {
                    if seen.at.elapsed() < pause {
                        return Ok(0);
                    }
                    std::mem::take(&mut seen.missing)
                }
                _ => Vec::new(),
            }
        };
        let mut forgotten = 0;
        if !due.is_empty() {
            forgotten = self.ledger.forget(queue, &due).await?;
            tracing::info!(%queue, forgotten, "native clients have taken messages; they are listed no more");
        }
        let selection = Selection {
            after: None,
            limit: PAGE_SIZE,
            not_from: None,
            include_claimed: false,
            include_delayed: false,
        };
        let free = self.ledger.list(queue, selection).await?.messages;
        let free = free.into_iter().map(|message| message.id).collect();
        remember(&mut self.seen(), queue, free);
        Ok(forgotten)
    }

    /// Forgets what was seen of a queue.
    pub(crate) fn clear(&self, queue: &QueueKey) {
        self.seen().remove(queue);
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<QueueKey, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remember(seen: &mut HashMap<QueueKey, Seen>, queue: &QueueKey, missing: Vec<MessageId>) {
    if seen.len() >= CACHE_CAPACITY && !seen.contains_key(queue) {
        seen.clear();
    }
    let at = Instant::now();
    seen.insert(queue.clone(), Seen { at, missing });
}

/// How many messages a claim could get, of what the ledger knows and what the broker has: the broker's count, and those
/// that this server holds although no claim does, because they are not due or are on their way.
pub(crate) fn free(known_free: u64, claimed: u64, depth: &Depth) -> u64 {
    let lacking = known_free.saturating_sub(depth.ready);
    depth.ready + lacking.min(depth.held_here.saturating_sub(claimed))
}

/// How long a count that lacks messages is given to come right.
pub(crate) const RECOUNT_DELAY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(ready: u64, held_here: u64) -> Depth {
        Depth {
            ready,
            held: None,
            held_here,
            silent: None,
        }
    }

    #[test]
    fn the_count_of_the_broker_is_what_is_free_but_for_what_is_held_for_nobody() {
        // Seven of natives, of which the ledger has never heard.
        assert_eq!(free(0, 0, &depth(7, 0)), 7);
        // Two that natives have taken.
        assert_eq!(free(2, 0, &depth(0, 0)), 0);
        // Three claimed, and two that are not due and held here.
        assert_eq!(free(5, 3, &depth(3, 5)), 5);
        // Claims that other servers hold.
        assert_eq!(free(5, 9, &depth(4, 1)), 4);
    }
}
