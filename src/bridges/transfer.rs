//! A batch from end to end, and what to do about one that was cut off. See the module's table.

use std::sync::Arc;
use std::time::Duration;

use isimud_contract::{
    ClaimId, Error, ErrorKind, Lease, Message, MessageId, Precondition, Selection,
};
use uuid::Uuid;

use super::Rule;
use super::leader_lease::{BridgeError, Checkpoint, LeaderLease};
use crate::messaging::{Messaging, Target};
use crate::migration::{BATCH, QueueRef, move_within_store};

/// How long the source hides messages while messages are transferred.
const CLAIM_TTL: Duration = Duration::from_secs(30);

/// What a batch came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// Messages that are in the target now.
    pub(super) transferred: usize,
    /// Messages that are in the dead-letter queue now.
    pub(super) dead_lettered: usize,
    /// How old the oldest of them was.
    pub(super) oldest: Duration,
}

impl Batch {
    /// All that have left the source.
    pub(super) fn count(&self) -> usize {
        self.transferred + self.dead_lettered
    }
}

/// Takes batches across, for as long as it has the leader lease.
#[derive(Debug)]
pub(super) struct Transfer<'a> {
    pub(super) messaging: &'a Messaging,
    pub(super) rule: &'a Rule,
    pub(super) leader: &'a LeaderLease,
    /// A claim that is noted in the lease's record and was not made, there being nothing to claim.
    unused: Option<ClaimId>,
}

/// What became of messages that were posted.
#[derive(Default)]
struct Posted {
    taken: Vec<MessageId>,
    refused: Vec<(Message, Error)>,
}

impl<'a> Transfer<'a> {
    pub(super) fn new(messaging: &'a Messaging, rule: &'a Rule, leader: &'a LeaderLease) -> Self {
        Self {
            messaging,
            rule,
            leader,
            unused: None,
        }
    }

    /// Ends what was cut off, whoever had begun it, and begins anew.
    pub(super) async fn recover(&mut self) -> Result<(), BridgeError> {
        self.unused = None;
        let checkpoint = self.leader.checkpoint().await?;
        let staging = self.staging(&checkpoint).await?;
        if let Some(staging) = &staging {
            self.finish(staging, &checkpoint).await?;
        }
        if let Some(claim) = checkpoint.claim {
            let released = self.messaging.release_claim(&self.rule.from, claim);
            released.await?;
        }
        if let Some(staging) = &staging {
            // What arrived before the claim ended may have been deleted as held by it.
            self.finish(staging, &checkpoint).await?;
        }
        self.leader.reset().await?;
        if let Some(staging) = staging
            && let Err(error) = staging.store.drop_queue(&staging.key).await
        {
            tracing::debug!(%error, from = %self.rule.from, to = %self.rule.to, "empty staging queue was not removed");
        }
        Ok(())
    }

    /// The staging queue that has been in use; `None` where there cannot be one.
    async fn staging(&self, checkpoint: &Checkpoint) -> Result<Option<QueueRef>, Error> {
        let Some(store) = self.messaging.store_of(&checkpoint.home).await? else {
            return Ok(None);
        };
        let able = store.capabilities();
        Ok((!able.deduplicates).then(|| QueueRef {
            store,
            key: checkpoint.staging.clone(),
        }))
    }

    /// Brings what is in the staging queue to the target, once it has left the source.
    async fn finish(&self, staging: &QueueRef, checkpoint: &Checkpoint) -> Result<(), BridgeError> {
        loop {
            let everything = Selection {
                after: None,
                limit: BATCH,
                not_from: None,
                include_claimed: true,
                include_delayed: true,
            };
            let mut found = staging.store.list(&staging.key, everything).await?.messages;
            if found.is_empty() {
                return Ok(());
            }
            let kept = self
                .delete_staged_from_source(&ids(&found), checkpoint.claim)
                .await?;
            let (left, back): (Vec<Message>, Vec<Message>) = found
                .drain(..)
                .partition(|message| kept.contains(&message.id));
            if !back.is_empty() {
                let back = ids(&back);
                staging
                    .store
                    .delete(&staging.key, &back, Precondition::None)
                    .await?;
            }
            let target = self.messaging.target_for(&self.rule.to).await?;
            if *target.store_id() == checkpoint.home {
                self.publish_staged(staging, &target, &left).await?;
            } else if !left.is_empty() {
                let ids = ids(&left);
                self.messaging.post_to_target(&target, left).await?;
                staging
                    .store
                    .delete(&staging.key, &ids, Precondition::None)
                    .await?;
            }
        }
    }

    /// Deletes from the source what is in the staging queue. Returns which messages are not in the source any more:
    /// those that somebody else has claimed there meanwhile stay.
    async fn delete_staged_from_source(
        &self,
        ids: &[MessageId],
        claim: Option<ClaimId>,
    ) -> Result<Vec<MessageId>, Error> {
        let from = &self.rule.from;
        if let Some(claim) = claim {
            let precondition = Precondition::ClaimedBy(vec![claim]);
            match self
                .messaging
                .delete_from_source(from, ids, precondition)
                .await
            {
                Ok(_) => return Ok(ids.to_vec()),
                Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
                // The claim has ended for some of them.
                Err(_) => {}
            }
        }
        let mut left = Vec::new();
        for id in ids {
            match self
                .messaging
                .delete_from_source(from, &[*id], Precondition::Unclaimed)
                .await
            {
                Ok(_) => left.push(*id),
                Err(error) if error.kind() == ErrorKind::Claimed => {}
                // A broker that cannot look for it, and a ledger that has no row of it: it has ended.
                Err(error) if error.kind() == ErrorKind::Unsupported => left.push(*id),
                Err(error) => return Err(error),
            }
        }
        Ok(left)
    }

    /// Takes a batch of up to `most` messages across.
    pub(super) async fn transfer_batch(&mut self, most: usize) -> Result<Batch, BridgeError> {
        if !self.has_work().await? {
            return Ok(Batch::default());
        }
        let target = self.messaging.target_for(&self.rule.to).await?;
        let checkpoint = self.leader.checkpoint().await?;
        let claim = match self.unused {
            Some(claim) if checkpoint.home == *target.store_id() => claim,
            _ => {
                let claim = ClaimId(Uuid::now_v7());
                self.leader.start_batch(claim, target.store_id()).await?;
                self.unused = Some(claim);
                claim
            }
        };
        let (from, lease) = (&self.rule.from, lease(claim));
        let taken = self
            .messaging
            .claim_for_transfer(from, &lease, most)
            .await?;
        if taken.is_empty() {
            return Ok(Batch::default());
        }
        self.unused = None;
        // A claim that came late holds what nobody else knows of.
        self.leader.confirm_if_late().await?;
        let staging = (!target.deduplicates()).then(|| QueueRef {
            store: Arc::clone(target.store()),
            key: checkpoint.staging,
        });
        self.transfer_claimed(&target, staging, claim, taken).await
    }

    /// Whether there is something to do. A target that does not exist is not made before there is: its owner may want
    /// it in another pool.
    async fn has_work(&self) -> Result<bool, Error> {
        if self.messaging.queue_exists(&self.rule.to).await? {
            return Ok(true);
        }
        Ok(self.messaging.backlog(&self.rule.from).await?.free > 0)
    }

    async fn transfer_claimed(
        &self,
        target: &Target,
        staging: Option<QueueRef>,
        claim: ClaimId,
        mut messages: Vec<Message>,
    ) -> Result<Batch, BridgeError> {
        let oldest = messages.iter().map(|message| message.age).max();
        self.messaging.prepare_for(target, &mut messages)?;
        let staged = staging.as_ref().map(|_| messages.clone());
        let post = self.post(target, staging.as_ref(), messages);
        let Posted { taken, refused } = self.while_claimed(claim, post).await?;
        let mut transferred_ids = taken.clone();
        let mut stopped = None;
        let dead_lettered = match &self.rule.dead_letter {
            Some(_) => {
                transferred_ids.extend(refused.iter().map(|(message, _)| message.id));
                self.dead_letter(refused).await?
            }
            None => {
                stopped = refused.into_iter().next();
                0
            }
        };
        let precondition = Precondition::ClaimedBy(vec![claim]);
        let deleted =
            self.messaging
                .delete_from_source(&self.rule.from, &transferred_ids, precondition);
        if deleted.await? != transferred_ids.len() {
            // Others have deleted some, some have ended; or another server has the leader lease, and has done all this.
            self.leader.confirm().await?;
        }
        if let (Some(staging), Some(mut staged)) = (&staging, staged) {
            staged.retain(|message| taken.contains(&message.id));
            self.publish_staged(staging, target, &staged).await?;
        }
        if let Some((message, error)) = stopped {
            self.messaging.release_claim(&self.rule.from, claim).await?;
            return Err(BridgeError::Rejected(error.with("message", message.id)));
        }
        Ok(Batch {
            transferred: taken.len(),
            dead_lettered,
            oldest: oldest.unwrap_or_default(),
        })
    }

    /// Does something, and keeps the claim meanwhile: a target may be slow.
    async fn while_claimed<T>(&self, claim: ClaimId, what: impl Future<Output = T>) -> T {
        tokio::pin!(what);
        loop {
            tokio::select! {
                biased;
                done = &mut what => return done,
                () = tokio::time::sleep(CLAIM_TTL / 3) => {
                    // Without the claim the messages cannot be deleted, and come again.
                    if let Err(error) = self.messaging.renew_transfer_claim(&self.rule.from, &lease(claim)).await {
                        tracing::debug!(%error, from = %self.rule.from, to = %self.rule.to, "bridge claim could not be renewed: its messages may be transferred again");
                    }
                }
            }
        }
    }

    /// Posts messages to the staging queue, or to the target. Without a dead-letter queue nothing behind the first that
    /// is refused is posted.
    async fn post(
        &self,
        target: &Target,
        staging: Option<&QueueRef>,
        messages: Vec<Message>,
    ) -> Result<Posted, Error> {
        let post = async |messages: Vec<Message>| match staging {
            // Nothing leaves the source before it is there for certain.
            Some(staging) => staging.post_and_verify(messages).await,
            None => self.messaging.post_to_target(target, messages).await,
        };
        let mut posted = Posted::default();
        if messages.iter().all(|message| target.takes(message)) {
            match post(messages.clone()).await {
                Ok(()) => {
                    posted.taken = ids(&messages);
                    return Ok(posted);
                }
                Err(error) if !is_permanent(&error) => return Err(error),
                // One of them, and only the target knows which.
                Err(_) => {}
            }
        }
        for message in messages {
            let outcome = match target.takes(&message) {
                true => post(vec![message.clone()]).await,
                false => Err(too_large(&message)),
            };
            match outcome {
                Ok(()) => posted.taken.push(message.id),
                Err(error) if !is_permanent(&error) => return Err(error),
                Err(error) => {
                    posted.refused.push((message, error));
                    if self.rule.dead_letter.is_none() {
                        break;
                    }
                }
            }
        }
        Ok(posted)
    }

    /// Puts what the target refuses into the dead-letter queue. Returns how many messages that were.
    async fn dead_letter(&self, refused: Vec<(Message, Error)>) -> Result<usize, BridgeError> {
        let Some(queue) = self
            .rule
            .dead_letter
            .as_ref()
            .filter(|_| !refused.is_empty())
        else {
            return Ok(0);
        };
        let target = self.messaging.target_for(queue).await?;
        let mut messages = Vec::new();
        for (message, error) in refused {
            tracing::warn!(%error, id = %message.id, from = %self.rule.from, to = %self.rule.to, %queue,
                "bridge target rejects a message; moving it to the dead-letter queue");
            messages.push(message);
        }
        self.messaging.prepare_for(&target, &mut messages)?;
        let count = messages.len();
        match self.messaging.post_to_target(&target, messages).await {
            Err(error) if is_permanent(&error) => Err(BridgeError::Rejected(error)),
            posted => Ok(posted.map(|()| count)?),
        }
    }

    async fn publish_staged(
        &self,
        staging: &QueueRef,
        target: &Target,
        messages: &[Message],
    ) -> Result<(), Error> {
        if messages.is_empty() {
            return Ok(());
        }
        let appear = move_within_store(staging, target.key(), target.stands());
        self.messaging
            .publish_to_target(target, messages, appear)
            .await
    }
}

fn lease(claim: ClaimId) -> Lease {
    Lease {
        id: claim,
        ttl: CLAIM_TTL,
        grace: Duration::ZERO,
        dead_letter: None,
    }
}

/// Whether trying again would not help.
fn is_permanent(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unsupported)
}

fn too_large(message: &Message) -> Error {
    let sentence = "the body is too large for the target of the bridge";
    Error::new(ErrorKind::Unsupported, sentence).with("bytes", message.body.len())
}

fn ids(messages: &[Message]) -> Vec<MessageId> {
    messages.iter().map(|message| message.id).collect()
}
