//! Claims: bounds, defaults and the dead-letter policy.

use isimud_contract::{Claim, ClaimId, DeadLetter, Lease, QueueKey, QueueName, Result};
use uuid::Uuid;

use super::Messaging;

/// The terms that a client asks for, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terms {
    /// How long the claim runs.
    pub ttl: Option<i64>,
    /// How long its messages outlive it at least.
    pub grace: Option<i64>,
}

impl Messaging {
    /// Claims messages. `None` when there is nothing to claim.
    pub async fn claim(
        &self,
        queue: &QueueKey,
        terms: Terms,
        limit: Option<i64>,
    ) -> Result<Option<Claim>> {
        // The order of checks is the reference's: ttl, limit, grace.
        let ttl = self
            .limits
            .claim_ttl(terms.ttl.unwrap_or(self.limits.default_claim_ttl))?;
        let limit = self.limits.claim_page(limit)?;
        let grace = self
            .limits
            .claim_grace(terms.grace.unwrap_or(self.limits.default_claim_grace))?;
        let dead_letter = self.dead_letter(queue).await?;
        let lease = Lease {
            id: ClaimId(Uuid::now_v7()),
            ttl,
            grace,
            dead_letter,
        };
        let mut claim = self.store.claim(queue, &lease, limit).await?;
        if let Some(claim) = &mut claim {
            if let Err(unreadable) = self.open_all(&mut claim.messages) {
                // Nobody will hear of this claim.
                self.store.release_claim(queue, claim.id).await?;
                return Err(unreadable);
            }
            self.flow.claimed(claim.messages.len());
        }
        Ok(claim)
    }

    /// The dead-letter policy of a queue. Its target is created here, lazily, so that what is moved can be found.
    async fn dead_letter(&self, queue: &QueueKey) -> Result<Option<DeadLetter>> {
        let Some(settings) = self.settings(queue).await? else {
            return Ok(None);
        };
        let Some(policy) = &settings.dead_letter else {
            return Ok(None);
        };
        let target = QueueKey::new(queue.project.clone(), QueueName::clone(&policy.queue));
        self.settings_or_create(&target).await?;
        Ok(Some(DeadLetter {
            queue: target,
            max_claims: policy.max_claims,
            ttl: policy.ttl,
        }))
    }

    /// Reads a claim and what it still holds.
    pub async fn find_claim(&self, queue: &QueueKey, claim: ClaimId) -> Result<Claim> {
        let mut claim = self.store.find_claim(queue, claim).await?;
        self.open_all(&mut claim.messages)?;
        Ok(claim)
    }

    /// Starts a claim's time again. What the terms leave out takes the defaults, not what was before; grace is checked
    /// as on creation (quirk Q-CLM-8).
    pub async fn renew_claim(&self, queue: &QueueKey, claim: ClaimId, terms: Terms) -> Result<()> {
        let ttl = self
            .limits
            .claim_ttl(terms.ttl.unwrap_or(self.limits.default_claim_ttl))?;
        let grace = self
            .limits
            .claim_grace(terms.grace.unwrap_or(self.limits.default_claim_grace))?;
        self.store
            .renew_claim(
                queue,
                &Lease {
                    id: claim,
                    ttl,
                    grace,
                    dead_letter: None,
                },
            )
            .await
    }

    /// Ends a claim; one that does not exist has ended.
    pub async fn release_claim(&self, queue: &QueueKey, claim: ClaimId) -> Result<()> {
        self.store.release_claim(queue, claim).await
    }
}
