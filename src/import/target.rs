//! Where an import goes: the service's stores, or nowhere, in a dry run.

use isimud_contract::{
    ErrorKind, ForeignClaim, Message, MessageId, Metadata, QueueKey, Resource, Result, Subscription,
};

use crate::messaging::{Adopted, Messaging};

/// Bytes of bodies that are stored in one step, at the most; a larger body goes alone.
const STEP_BYTES: usize = 1 << 20;

/// The stores, or nothing.
#[derive(Debug)]
pub(super) struct Target(Option<Messaging>);

impl Target {
    pub(super) fn new(messaging: Messaging) -> Self {
        Self(Some(messaging))
    }

    /// Takes everything and keeps nothing.
    pub(super) fn nowhere() -> Self {
        Self(None)
    }

    /// Makes a queue. In a dry run it is always made.
    pub(super) async fn queue(&self, queue: &QueueKey, metadata: &Metadata) -> Result<Adopted> {
        match &self.0 {
            Some(messaging) => messaging.adopt_queue(queue, metadata).await,
            None => Ok(Adopted::Made),
        }
    }

    /// Stores messages in order, and returns how many were new.
    pub(super) async fn messages(&self, queue: &QueueKey, messages: Vec<Message>) -> Result<usize> {
        let Some(messaging) = &self.0 else {
            return Ok(messages.len());
        };
        let mut new = 0;
        let (mut step, mut bytes) = (Vec::new(), 0);
        for message in messages {
            if bytes + message.body.len() > STEP_BYTES && !step.is_empty() {
                new += messaging.adopt(queue, std::mem::take(&mut step)).await?;
                bytes = 0;
            }
            bytes += message.body.len();
            step.push(message);
        }
        if !step.is_empty() {
            new += messaging.adopt(queue, step).await?;
        }
        Ok(new)
    }

    /// Puts messages under their claim, and returns how many it holds then; `None` where the store cannot.
    pub(super) async fn claim(
        &self,
        queue: &QueueKey,
        claim: ForeignClaim,
        ids: &[MessageId],
    ) -> Result<Option<usize>> {
        let Some(messaging) = &self.0 else {
            return Ok(Some(ids.len()));
        };
        match messaging.adopt_claim(queue, claim, ids).await {
            Ok(held) => Ok(Some(held)),
            Err(error)
                if [
                    ErrorKind::Unsupported,
                    ErrorKind::AlreadyExists(Resource::Claim),
                ]
                .contains(&error.kind()) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps a subscription, and returns whether it is new.
    pub(super) async fn subscription(&self, subscription: &Subscription) -> Result<bool> {
        match &self.0 {
            Some(messaging) => messaging.adopt_subscription(subscription).await,
            None => Ok(true),
        }
    }

    pub(super) async fn close(&self) -> Result<()> {
        match &self.0 {
            Some(messaging) => messaging.close().await,
            None => Ok(()),
        }
    }
}
