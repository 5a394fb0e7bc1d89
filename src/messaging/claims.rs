//! Claims: bounds, defaults and the dead-letter policy.

use std::sync::Arc;

use isimud_contract::{Claim, ClaimId, DeadLetter, Lease, QueueKey, Result};

use super::Messaging;
use super::settings::DeadLetterSettings;
use crate::catalogue::SegmentStore;

/// The terms that a client asks for, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terms {
    /// How long the claim runs.
    pub ttl: Option<i64>,
    /// How long its messages outlive it at least.
    pub grace: Option<i64>,
}

impl Messaging {
    /// Claims messages under a new id. `None` when there is nothing to claim.
    ///
    /// After an `Unavailable` the claim may be there although nobody was told of it: a store may have made it, and answered
    /// too late.
    pub async fn claim(
        &self,
        queue: &QueueKey,
        id: ClaimId,
        terms: Terms,
        limit: Option<i64>,
    ) -> Result<Option<Claim>> {
        // The order of checks is the reference's: ttl, limit, grace.
        let limits = self.limits();
        let ttl = limits.claim_ttl(terms.ttl.unwrap_or(limits.default_claim_ttl))?;
        let limit = limits.claim_page(limit)?;
        let grace = limits.claim_grace(terms.grace.unwrap_or(limits.default_claim_grace))?;
        drop(limits);
        let known = self.lookup(queue).await?;
        let default_route = || self.catalogue.default_route();
        let route = known
            .as_ref()
            .map_or_else(default_route, |queue| Arc::clone(&queue.route));
        let policy = known
            .as_ref()
            .and_then(|queue| queue.settings.dead_letter.as_ref());
        for segment_store in route.readable() {
            let dead_letter = match policy {
                Some(policy) => Some(self.dead_letter(queue, policy, segment_store).await?),
                None => None,
            };
            let lease = Lease {
                id,
                ttl,
                grace,
                dead_letter,
            };
            let claimed = self.claim_readable(queue, &route, segment_store, lease, limit);
            if let Some(claim) = claimed.await? {
                self.observer.claimed(claim.messages.len());
                return Ok(Some(claim));
            }
        }
        Ok(None)
    }

    /// The dead-letter policy of a queue, for one of its stores: what is moved stays in that store. Its target is
    /// created here, lazily, so that what is moved can be found.
    async fn dead_letter(
        &self,
        queue: &QueueKey,
        policy: &DeadLetterSettings,
        segment_store: &SegmentStore,
    ) -> Result<DeadLetter> {
        let target = QueueKey::new(queue.project.clone(), policy.queue.clone());
        if self.settings(&target).await?.is_none() {
            self.check_queue_quota(&target).await?;
        }
        let (queue, stands) = self
            .receiver(&target, &segment_store.segment.store_id)
            .await?;
        Ok(DeadLetter {
            queue,
            max_claims: policy.max_claims,
            ttl: policy.ttl,
            stands,
        })
    }

    /// Reads a claim and what it still holds.
    pub async fn find_claim(&self, queue: &QueueKey, claim: ClaimId) -> Result<Claim> {
        let mut claim = self.route(queue).await?.find_claim(queue, claim).await?;
        let unreadable = self.open_each(queue, &mut claim.messages);
        match unreadable.into_iter().next() {
            Some((_, error)) if claim.messages.is_empty() => Err(error),
            _ => Ok(claim),
        }
    }

    /// Starts a claim's time again. What the terms leave out takes the defaults, not what was before; grace is checked
    /// as on creation (quirk Q-CLM-8).
    pub async fn renew_claim(&self, queue: &QueueKey, claim: ClaimId, terms: Terms) -> Result<()> {
        let ttl = self
            .limits()
            .claim_ttl(terms.ttl.unwrap_or(self.limits().default_claim_ttl))?;
        let grace = self
            .limits()
            .claim_grace(terms.grace.unwrap_or(self.limits().default_claim_grace))?;
        let lease = Lease {
            id: claim,
            ttl,
            grace,
            dead_letter: None,
        };
        self.route(queue).await?.renew_claim(queue, &lease).await
    }

    /// Ends a claim that was just made, and of which nobody has heard: its messages were not delivered, and the dead-letter
    /// policy does not count it.
    pub async fn undo_claim(&self, queue: &QueueKey, claim: ClaimId) -> Result<()> {
        let Some(known) = self.lookup(queue).await? else {
            return self.release_claim(queue, claim).await;
        };
        let counted = known.settings.dead_letter.is_some();
        known.route.undo_claim(queue, claim, counted).await
    }

    /// Ends a claim; one that does not exist has ended.
    pub async fn release_claim(&self, queue: &QueueKey, claim: ClaimId) -> Result<()> {
        self.route(queue).await?.release_claim(queue, claim).await
    }
}
