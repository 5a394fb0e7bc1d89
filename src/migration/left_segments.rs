//! The segments that a queue has left.
//!
//! For a minute a queue that comes back takes such a segment again ([`Placement::left`]), with the name that native
//! clients know; then it goes: it is removed from its store, and for another minute a queue that comes back gets
//! another name there. So what is removed is never what was just posted.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use isimud_contract::{LeftSegment, Placement, QueueKey, QueueRecord, Result, Segment};

use super::{FENCE_DELAY, IDLE_BACKOFF, Migrator, Next};

/// How long no new segment has the name of one that was removed: SQS refuses for a minute to create a queue under the
/// name of one that was deleted.
const NAME_REUSE_DELAY: Duration = Duration::from_secs(65);

/// How long a segment that a queue has left can be taken again.
const RETENTION: Duration = Duration::from_secs(60);

/// Since when this server has known of the segments that queues have left.
#[derive(Debug, Default)]
pub(super) struct LeftSegments {
    since: Mutex<HashMap<QueueKey, Vec<(LeftSegment, Instant)>>>,
}

impl LeftSegments {
    /// Keeps the time at which a segment was first known to have been left, for as long as it is among them.
    fn update(&self, queue: &QueueKey, left: &[LeftSegment]) {
        let mut all = self.since();
        if left.is_empty() {
            all.remove(queue);
            return;
        }
        let known = all.entry(queue.clone()).or_default();
        known.retain(|(one, _)| left.contains(one));
        for one in left {
            if !known.iter().any(|(known, _)| known == one) {
                known.push((one.clone(), Instant::now()));
            }
        }
    }

    /// For how long this server has known that a queue has left a segment.
    fn age_of(&self, queue: &QueueKey, which: &LeftSegment) -> Duration {
        let all = self.since();
        let mut known = all.get(queue).into_iter().flatten();
        let known = known.find(|(one, _)| one == which);
        known.map_or(Duration::ZERO, |(_, since)| since.elapsed())
    }

    /// Knows nothing of a queue that is gone.
    pub(super) fn forget(&self, queue: &QueueKey) {
        self.since().remove(queue);
    }

    fn since(&self) -> MutexGuard<'_, HashMap<QueueKey, Vec<(LeftSegment, Instant)>>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Migrator {
    /// Looks once more at the segments that the queue has left: a server that was held up in the middle of a post may have
    /// written to one after all, and then it is part of the place again. One that is empty can be taken again by a queue
    /// that comes back, for a while; then it goes: it is removed from its store, and for another while no new segment has
    /// its name.
    pub(super) async fn remove_left_segments(
        &self,
        queue: &QueueKey,
        record: &QueueRecord,
    ) -> Result<Next> {
        self.left.update(queue, record.placement.left());
        let mut rest = IDLE_BACKOFF.1;
        for left in record.placement.left() {
            let (segment, age) = (&left.segment, self.left.age_of(queue, left));
            let others = record.placement.left().iter().filter(|one| *one != left);
            let others: Vec<LeftSegment> = others.cloned().collect();
            let with = |left: Option<LeftSegment>| {
                let placement = record.placement.clone();
                placement.having_left(others.iter().cloned().chain(left))
            };
            if !self.catalogue.is_registered(&segment.store_id).await? {
                self.replace(queue, record, &with(None)).await?;
                return Ok(Next::Continue);
            }
            let end = self.queue_ref(queue, segment).await?;
            if left.is_going {
                end.store.drop_queue(&end.key).await?;
                if age >= NAME_REUSE_DELAY {
                    self.replace(queue, record, &with(None)).await?;
                    return Ok(Next::Continue);
                }
                continue;
            }
            if age < FENCE_DELAY {
                rest = rest.min(FENCE_DELAY.saturating_sub(age));
                continue;
            }
            if !end.is_empty().await? {
                self.take_back(queue, record, segment, &with(None)).await?;
                return Ok(Next::Continue);
            }
            if age >= RETENTION {
                // What native clients post from now on to a queue of their own is not ours to delete.
                let is_theirs = end.store.capabilities().adopts && segment.is_for_natives();
                let goes = (!is_theirs).then(|| LeftSegment {
                    segment: segment.clone(),
                    is_going: true,
                });
                self.replace(queue, record, &with(goes)).await?;
                return Ok(Next::Continue);
            }
        }
        Ok(match record.placement.left() {
            [] => Next::Done,
            _ => Next::Wait(rest),
        })
    }

    /// Makes a segment that was left a part of the place again, the oldest.
    async fn take_back(
        &self,
        queue: &QueueKey,
        record: &QueueRecord,
        segment: &Segment,
        without: &Placement,
    ) -> Result<()> {
        let segments = [segment].into_iter().chain(record.placement.segments());
        let placement = Placement::of(segments.cloned()).unwrap_or_default();
        let placement = placement.having_left(without.left().iter().cloned());
        self.schedule(queue, None).await?;
        self.replace(queue, record, &placement).await?;
        self.start(queue, None).await
    }
}
