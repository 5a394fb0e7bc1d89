//! What an operator may ask for: a queue into another store, everything out of a store.

use isimud_contract::{
    Error, ErrorKind, Metadata, Placement, PoolName, QueueKey, QueueRecord, Resource, Result,
    StoreId,
};

use super::placement::{self, WhileAway};
use super::{ATTEMPTS, Messaging};
use crate::catalogue::Catalogue;

/// Queues that one reading of the management store asks for.
const PAGE_SIZE: usize = 100;

/// What is still in a store that is being emptied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Remaining {
    /// Queues that have a segment there.
    pub queues: u64,
    /// Their messages there.
    pub messages: u64,
}

impl Messaging {
    /// Has a queue move to another store, `rate` messages a second at most; returns where its messages are now. It is
    /// at rest again when it has one segment. `NotFound` for a queue or a pool that does not exist; `Invalid`, and nothing
    /// is changed, where the pool takes the queues of its broker as they are and has none for this one.
    pub async fn move_queue(
        &self,
        queue: &QueueKey,
        to: &StoreId,
        rate: Option<u32>,
    ) -> Result<Placement> {
        if !self.catalogue.is_registered(to).await? {
            let sentence = format!("Pool {to} does not exist");
            return Err(Error::new(ErrorKind::NotFound(Resource::Pool), sentence));
        }
        for _ in 0..ATTEMPTS {
            let record = self.find(queue).await?;
            if record.placement.last().store_id != *to {
                let arrives = self.check_arrival(queue, to, WhileAway::Refuse).await;
                arrives.map_err(placement::as_invalid_request)?;
            }
            let placement = self.with_target(queue, &record.placement, to).await?;
            if placement != record.placement {
                self.migrator.schedule(queue, rate).await?;
                let (metadata, version) = (&record.metadata, record.version);
                let update = self
                    .management
                    .update_queue(queue, metadata, &placement, version);
                let updated = update.await?.is_some();
                self.forget(queue);
                if !updated {
                    continue;
                }
            }
            if placement.only().is_none() {
                self.migrator.start(queue, rate).await?;
            }
            return Ok(placement);
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "the queue is being changed by others",
        ))
    }

    /// Where a queue's messages are. `NotFound` when it does not exist.
    pub async fn placement(&self, queue: &QueueKey) -> Result<Placement> {
        Ok(self.find(queue).await?.placement)
    }

    /// Why a queue that moves is not carried on now; `None` where it is, or this server does not know.
    pub fn stalled(&self, queue: &QueueKey) -> Option<String> {
        self.migrator.stalled(queue)
    }

    async fn find(&self, queue: &QueueKey) -> Result<QueueRecord> {
        let found = self.management.find_queue(queue).await?;
        found.ok_or_else(|| {
            let sentence = format!("Queue {} does not exist", queue.name.shown());
            Error::new(ErrorKind::NotFound(Resource::Queue), sentence)
        })
    }

    /// Has everything leave a store: a pool takes no new queues from now on, and its queues move to `to`, or each to a
    /// store of its flavor. Returns how many queues that were. Repeating it goes on with what is left. Where it cannot be
    /// done nothing is changed.
    pub async fn drain(
        &self,
        store_id: &StoreId,
        to: Option<&StoreId>,
        rate: Option<u32>,
    ) -> Result<u64> {
        self.check_drain(store_id, to).await?;
        let weight = match store_id {
            StoreId::Pool(name) => Some((name, self.set_weight(name, None, 0).await?)),
            StoreId::Default => None,
        };
        let mut count = 0;
        let done = self.migrate_all_out(store_id, to, rate, &mut count).await;
        if let (Err(error), Some((name, weight))) = (&done, weight)
            && error.kind() != ErrorKind::Unavailable
            && count == 0
        {
            // What was checked has changed meanwhile. Somebody else may have set the weight, too: theirs stays.
            self.set_weight(name, Some(0), weight).await?;
        }
        done.map(|()| count)
    }

    /// Finds what a drain would stumble over, before anything is changed.
    async fn check_drain(&self, store_id: &StoreId, to: Option<&StoreId>) -> Result<()> {
        if to == Some(store_id) {
            return Err(Error::invalid("A store cannot be emptied into itself."));
        }
        for named in std::iter::once(store_id).chain(to) {
            if !self.catalogue.is_registered(named).await? {
                let sentence = format!("Pool {named} does not exist");
                return Err(Error::new(ErrorKind::NotFound(Resource::Pool), sentence));
            }
        }
        let mut after = None;
        loop {
            let found = self
                .management
                .queues_in(store_id, after.as_ref(), PAGE_SIZE)
                .await?;
            let Some(last) = found.last().cloned() else {
                return Ok(());
            };
            for queue in &found {
                self.check_leaving(queue, store_id, to).await?;
            }
            after = Some(last);
        }
    }

    async fn check_leaving(
        &self,
        queue: &QueueKey,
        store_id: &StoreId,
        to: Option<&StoreId>,
    ) -> Result<()> {
        let Some(record) = self.management.find_queue(queue).await? else {
            return Ok(());
        };
        if record.placement.last().store_id != *store_id {
            return Ok(());
        }
        if let Some(to) = to {
            let arrives = self.check_arrival(queue, to, WhileAway::Refuse).await;
            arrives.map_err(placement::as_invalid_request)?;
            // Whether it may be moved once more; the place itself is found when it is.
            return Catalogue::with_target(&record.placement, to, 0).map(drop);
        }
        let flavor = self.flavor(queue, &record.metadata).await?;
        let others = self.catalogue.others(flavor.as_ref(), store_id).await?;
        if others.is_empty() {
            return Err(no_target(queue));
        }
        for other in &others {
            let arrives = self.check_arrival(queue, other, WhileAway::Refuse).await;
            arrives.map_err(placement::as_invalid_request)?;
        }
        Ok(())
    }

    async fn migrate_all_out(
        &self,
        store_id: &StoreId,
        to: Option<&StoreId>,
        rate: Option<u32>,
        count: &mut u64,
    ) -> Result<()> {
        let mut after = None;
        loop {
            let found = self
                .management
                .queues_in(store_id, after.as_ref(), PAGE_SIZE)
                .await?;
            let Some(last) = found.last().cloned() else {
                return Ok(());
            };
            for queue in &found {
                *count += u64::from(self.migrate_out(queue, store_id, to, rate).await?);
            }
            after = Some(last);
        }
    }

    /// Returns whether the queue was there.
    async fn migrate_out(
        &self,
        queue: &QueueKey,
        store_id: &StoreId,
        to: Option<&StoreId>,
        rate: Option<u32>,
    ) -> Result<bool> {
        let Some(record) = self.management.find_queue(queue).await? else {
            return Ok(false);
        };
        if record.placement.last().store_id != *store_id {
            // On its way already, or with dead letters only.
            self.migrator.start(queue, rate).await?;
            return Ok(true);
        }
        let target = match to {
            Some(store_id) => store_id.clone(),
            None => self.other_store(queue, &record.metadata, store_id).await?,
        };
        match self.move_queue(queue, &target, rate).await {
            // It was deleted meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound(Resource::Queue) => Ok(false),
            moved => moved.map(|_| true),
        }
    }

    async fn other_store(
        &self,
        queue: &QueueKey,
        metadata: &Metadata,
        store_id: &StoreId,
    ) -> Result<StoreId> {
        match self.choose(queue, metadata).await {
            Ok(chosen) if chosen != *store_id => Ok(chosen),
            Err(error) if error.kind() != ErrorKind::NotFound(Resource::Pool) => Err(error),
            _ => Err(no_target(queue)),
        }
    }

    /// Sets a pool's weight, if it is what it should be, and returns what it was.
    async fn set_weight(&self, name: &PoolName, from: Option<u32>, weight: u32) -> Result<u32> {
        for _ in 0..ATTEMPTS {
            let Some(mut record) = self.management.find_pool(name).await? else {
                let sentence = format!("Pool {name} does not exist");
                return Err(Error::new(ErrorKind::NotFound(Resource::Pool), sentence));
            };
            let was = record.pool.weight;
            if was == weight || from.is_some_and(|from| from != was) {
                return Ok(was);
            }
            record.pool.weight = weight;
            let version = Some(record.version);
            let saved = self.management.save_pool(&record.pool, version).await?;
            self.catalogue.forget();
            if saved.is_some() {
                return Ok(was);
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "the pool is being changed by others",
        ))
    }

    /// Counts what is in a store.
    pub async fn remaining_in(&self, store_id: &StoreId) -> Result<Remaining> {
        let (mut left, mut after) = (Remaining::default(), None);
        loop {
            let found = self
                .management
                .queues_in(store_id, after.as_ref(), PAGE_SIZE)
                .await?;
            let Some(last) = found.last().cloned() else {
                return Ok(left);
            };
            for queue in &found {
                left.queues += 1;
                left.messages += self.messages_in(queue, store_id).await?;
            }
            after = Some(last);
        }
    }

    async fn messages_in(&self, queue: &QueueKey, store_id: &StoreId) -> Result<u64> {
        let Some(record) = self.management.find_queue(queue).await? else {
            return Ok(0);
        };
        let mut messages = 0;
        for segment in record
            .placement
            .segments()
            .filter(|one| one.store_id == *store_id)
        {
            let opened = self.catalogue.open(&segment.store_id).await?;
            let backlog = opened.store.backlog(&segment.key(queue)).await?;
            messages += backlog.free + backlog.claimed;
        }
        Ok(messages)
    }
}

/// The refusal to empty a store whose queues would have nowhere to go.
fn no_target(queue: &QueueKey) -> Error {
    let sentence = format!(
        "No other store takes the queue {queue} of this one; say where its queues are to go."
    );
    Error::invalid(sentence)
}
