//! Has one import at a time fill a queue. Two at once would store nothing twice, but each would count as new what the
//! other had just stored.
//!
//! A lock is the record of a queue of the service's own in the management store, which only those can change who know
//! its newest version. There is a fixed number of them, and a queue's name says which is its own. Where the management
//! store belongs to one process there is nobody to lock out.

use std::sync::Arc;
use std::time::Duration;

use isimud_contract::{
    ManagementStore, Metadata, Placement, ProjectId, QueueKey, QueueName, QueueRecord, Result,
};
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use super::store_retry::StoreRetry;

/// How many locks there are: more than queues that are filled at once.
const LOCKS: u128 = 64;

/// How long a lock has to stay as it is until its owner is taken to be dead.
const LEASE: Duration = Duration::from_secs(5);

/// How often an owner shows that it lives.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(1_250);

/// How often one who waits looks.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The lock of a queue, for one who fills it.
#[derive(Debug)]
pub(super) struct Lock {
    management: Arc<dyn ManagementStore>,
    key: QueueKey,
    me: Uuid,
}

impl Lock {
    pub(super) fn new(management: &Arc<dyn ManagementStore>, queue: &QueueKey) -> Self {
        let digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, queue.to_string().as_bytes());
        let project = ProjectId::parse("isimud").expect("the name of a project");
        let name = format!("import.{}", digest.as_u128() % LOCKS);
        let name = QueueName::parse(&name).expect("the name of a queue");
        Self {
            management: Arc::clone(management),
            key: QueueKey::new(project, QueueName::internal(&name)),
            me: Uuid::new_v4(),
        }
    }

    /// Waits for the lock. `false` when the import was told to stop meanwhile.
    pub(super) async fn acquire(&self, retry: &StoreRetry) -> Result<bool> {
        // The version that another owner's record has, and since when.
        let mut seen: Option<(u64, Instant)> = None;
        while !retry.is_stopped() {
            let Some(found) = retry.retry_unavailable(async || self.find().await).await? else {
                continue;
            };
            let is_free = match owner(&found) {
                None => true,
                Some(owner) if owner == self.me => return Ok(true),
                Some(_) => match seen {
                    Some((version, since)) if version == found.version => since.elapsed() >= LEASE,
                    before => {
                        if before.is_none() {
                            tracing::info!("waiting for another import that holds the lock");
                        }
                        seen = Some((found.version, Instant::now()));
                        false
                    }
                },
            };
            if is_free {
                let write = async || self.write(&found, Some(self.me)).await;
                // An answer that was lost shows at the next look.
                retry.retry_unavailable(write).await?;
            } else {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }
        Ok(false)
    }

    /// Shows that its owner lives, until this is dropped. Where it fails another import may count wrong, and no more.
    pub(super) async fn show_life(&self) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(HEARTBEAT_INTERVAL).await;
            self.change(Some(self.me)).await;
        }
    }

    /// Gives the lock back. Where it fails the lock is free when its lease has run out.
    pub(super) async fn release(&self) {
        self.change(None).await;
    }

    async fn change(&self, to: Option<Uuid>) {
        let done = match self.management.find_queue(&self.key).await {
            Ok(Some(found)) if owner(&found) == Some(self.me) => self.write(&found, to).await,
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            tracing::debug!(%error, "import lock could not be renewed");
        }
    }

    /// The record, which is made where there is none.
    async fn find(&self) -> Result<Option<QueueRecord>> {
        if let Some(found) = self.management.find_queue(&self.key).await? {
            return Ok(Some(found));
        }
        let placement = Placement::default();
        self.management
            .create_queue(&self.key, &Metadata::new(), &placement)
            .await?;
        self.management.find_queue(&self.key).await
    }

    async fn write(&self, found: &QueueRecord, owner: Option<Uuid>) -> Result<()> {
        // The number makes each version of the record another one.
        let beat = found.version.wrapping_add(1);
        let metadata = match owner {
            Some(owner) => Metadata::from_iter([
                ("owner".to_owned(), json!(owner)),
                ("beat".to_owned(), json!(beat)),
            ]),
            None => Metadata::new(),
        };
        self.management
            .update_queue(&self.key, &metadata, &found.placement, found.version)
            .await
            .map(drop)
    }
}

fn owner(record: &QueueRecord) -> Option<Uuid> {
    record
        .metadata
        .get("owner")?
        .as_str()
        .and_then(|text| Uuid::try_parse(text).ok())
}

#[cfg(test)]
mod tests {
    use isimud_contract::ManualClock;

    use super::super::Stop;
    use super::*;
    use crate::drivers::{self, Context};

    fn locks(count: usize) -> Vec<Lock> {
        let context = Context::new(Arc::new(ManualClock::default()), None);
        let store = drivers::open("sqlite::memory:", &context).expect("a store");
        let management = store.management.expect("it keeps queues");
        let queue = QueueKey::new(
            ProjectId::parse("p").expect("a project"),
            QueueName::parse("q").expect("a name"),
        );
        (0..count).map(|_| Lock::new(&management, &queue)).collect()
    }

    #[tokio::test]
    async fn a_queue_is_locked_for_one_until_it_is_released() {
        let (locks, stop) = (locks(2), Stop::default());
        let retry = StoreRetry::new(stop.clone());
        assert!(locks[0].acquire(&retry).await.expect("an answer"));
        let waiting = tokio::time::timeout(Duration::from_millis(500), locks[1].acquire(&retry));
        assert!(waiting.await.is_err(), "two have it");
        locks[0].release().await;
        assert!(locks[1].acquire(&retry).await.expect("an answer"));
        stop.tell();
        assert!(!locks[0].acquire(&retry).await.expect("an answer"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_that_falls_silent_is_taken_for_dead() {
        let (locks, retry) = (locks(2), StoreRetry::new(Stop::default()));
        assert!(locks[0].acquire(&retry).await.expect("an answer"));
        let began = Instant::now();
        assert!(locks[1].acquire(&retry).await.expect("an answer"));
        assert!(began.elapsed() >= LEASE);
        // What it does when it comes back changes nothing.
        locks[0].release().await;
        let found = locks[1].find().await.expect("an answer");
        assert_eq!(found.as_ref().and_then(owner), Some(locks[1].me));
    }
}
