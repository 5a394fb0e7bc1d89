//! Counts of what projects and queues have, in steps that take no more than a fraction of a store's time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isimud_contract::{
    Error, ErrorKind, Kind, ManagementStore, ProjectId, QueueKey, QueueSelection, Result,
};
use tokio::sync::Semaphore;

use crate::catalogue::{Catalogue, SegmentedStore};

/// Queues that are read at once for a count of a project.
const PAGE: usize = 100;

/// Between two queues of a count of a project: it takes no more than a fraction of a store's time.
const DELAY: Duration = Duration::from_millis(2);

/// A step of a count that takes longer has failed: its store does not answer, or not soon enough for a post to wait for it.
const STEP_TIMEOUT: Duration = Duration::from_millis(500);

/// How often a step is tried: a store may have been slow for a moment.
const STEP_TRIES: usize = 2;

/// Between two steps of a count of bytes: so many times the length of the last one, so that a store works a fifth of the
/// time for it.
const STEP_REST: u32 = 4;

/// What is counted of a project.
#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    Messages,
    Bytes,
}

/// Counts what a project has. A queue whose store does not answer is passed over: the others are not to be refused for it.
pub(super) async fn count_project(
    management: &Arc<dyn ManagementStore>,
    catalogue: &Catalogue,
    steps: &Semaphore,
    project: &ProjectId,
    what: What,
) -> Result<u64> {
    let (mut count, mut silent) = (0, HashSet::new());
    for kind in [Kind::Queue, Kind::Topic] {
        let mut selection = QueueSelection {
            kind,
            limit: PAGE,
            ..QueueSelection::default()
        };
        loop {
            let list = || {
                let (management, project) = (Arc::clone(management), project.clone());
                let selection = selection.clone();
                async move { management.list_queues(&project, &selection).await }
            };
            let page = step(steps, list).await?;
            for record in &page {
                let queue = QueueKey::new(project.clone(), record.name.clone());
                // One of its queues that did not answer is enough.
                if record
                    .placement
                    .store_ids()
                    .into_iter()
                    .any(|it| silent.contains(it))
                {
                    continue;
                }
                let counted = async {
                    let route = catalogue.resolve(&record.placement).await?;
                    match what {
                        What::Bytes => count_bytes(&route, &queue, steps).await,
                        What::Messages => {
                            let count = || {
                                let (route, queue) = (Arc::clone(&route), queue.clone());
                                async move { route.stats(&queue).await }
                            };
                            let stats = step(steps, count).await?;
                            Ok(stats.free + stats.claimed)
                        }
                    }
                };
                match counted.await {
                    Ok(counted) => count += counted,
                    Err(error) => {
                        tracing::debug!(%error, %queue, "cannot count the messages of the queue");
                        // Of a queue in several stores nobody knows which it was.
                        if error.kind() == ErrorKind::Unavailable
                            && let Some(segment) = record.placement.only()
                        {
                            silent.insert(segment.store_id.clone());
                        }
                    }
                }
                tokio::time::sleep(DELAY).await;
            }
            let Some(last) = page.last().filter(|_| page.len() == PAGE) else {
                break;
            };
            selection.after = Some(last.name.shown().to_owned());
        }
    }
    Ok(count)
}

/// Adds up the bytes of a queue, wherever it has some. Segments in stores that cannot count are passed over.
pub(super) async fn count_bytes(
    route: &SegmentedStore,
    queue: &QueueKey,
    steps: &Semaphore,
) -> Result<u64> {
    let mut bytes = 0;
    for segment_store in route
        .everywhere()
        .filter(|segment_store| segment_store.browses())
    {
        let mut after = None;
        loop {
            let start = Instant::now();
            let counted = step(steps, || segment_store.count_bytes(queue, after)).await?;
            bytes += counted.bytes;
            if counted.next.is_none() {
                break;
            }
            after = counted.next;
            tokio::time::sleep(start.elapsed() * STEP_REST).await;
        }
    }
    Ok(bytes)
}

/// Makes a step of a count when it is its turn, and once more where the store was slow. `Unavailable` where that takes too
/// long. A call that nobody waits for any more goes on to its end: it may be the one by which is seen whether the store is
/// there again.
pub(super) async fn step<T, F>(steps: &Semaphore, work: impl Fn() -> F) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    for _ in 0..STEP_TRIES {
        let _turn = steps.acquire().await;
        let call = tokio::spawn(work());
        if let Ok(done) = tokio::time::timeout(STEP_TIMEOUT, call).await {
            return done.map_err(|error| {
                Error::new(ErrorKind::Internal, "a count broke off").caused_by(error)
            })?;
        }
    }
    let sentence = "the store does not answer in time for a count";
    Err(Error::new(ErrorKind::Unavailable, sentence))
}
