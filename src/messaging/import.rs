//! Takes over queues, messages and claims that another service made, for imports.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use isimud_contract::{
    Capabilities, ErrorKind, ImportedClaim, Message, MessageId, Metadata, QueueKey, Resource,
    Result, StoreId, Subscription,
};

use super::limits::Limits;
use super::queues::check_size;
use super::{Messaging, checksum, placement, settings};
use crate::notifications::forget_trust;

/// What became of a queue that was to be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueImport {
    /// It was made.
    Created,
    /// It was there, with the same metadata.
    Existing,
    /// It was there with other metadata, which it keeps.
    Conflicting,
}

/// How many messages that were to be taken over were what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MessageImport {
    /// The queue has them now, and had not before.
    pub new: u64,
    /// It has them already.
    pub there: u64,
}

/// Why a client could not have given a queue these metadata, in a sentence. Such metadata are taken over as they are;
/// what is wrong in them has no effect.
pub fn metadata_fault(metadata: &Metadata, limits: &Limits) -> Option<String> {
    let fault = settings::validate(metadata, limits)
        .and_then(|()| check_size(metadata, limits))
        .err()?;
    Some(fault.sentence().to_owned())
}

impl Messaging {
    /// Makes a queue with the metadata that it had elsewhere, unless it exists: in a pool of its flavor where that takes
    /// queues, else in the default store.
    pub async fn import_queue(&self, queue: &QueueKey, metadata: &Metadata) -> Result<QueueImport> {
        let made = match self.create(queue, metadata, None).await {
            // The broker's queue that is missing in a pool is another matter: nobody asked for these messages elsewhere.
            Err(error) if error.kind() == ErrorKind::NotFound(Resource::Queue) => {
                return Err(placement::as_invalid_request(error));
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound(_)) => {
                self.create(queue, metadata, Some(&StoreId::Default))
                    .await?
            }
            made => made?,
        };
        if made {
            return Ok(QueueImport::Created);
        }
        let found = self.management.find_queue(queue).await?;
        let is_same = found.is_some_and(|record| record.metadata == *metadata);
        Ok(if is_same {
            QueueImport::Existing
        } else {
            QueueImport::Conflicting
        })
    }

    /// Stores messages under the ids that they had elsewhere, behind those that the queue has. Those whose ids it has
    /// already are left as they are. May be repeated after a failure, with the same `tried`: what an attempt has stored
    /// whose answer was lost counts as new.
    ///
    /// The bodies are plain; where the queue encrypts they are encrypted, and where the service stores checksums those
    /// without one get one.
    pub async fn import_messages(
        &self,
        queue: &QueueKey,
        mut messages: Vec<Message>,
        tried: &mut HashSet<MessageId>,
    ) -> Result<MessageImport> {
        let ids: Vec<MessageId> = messages.iter().map(|message| message.id).collect();
        let known = self.lookup(queue).await?;
        let default_route = || self.catalogue.default_route();
        let route = known
            .as_ref()
            .map_or_else(default_route, |queue| Arc::clone(&queue.route));
        let there: HashSet<MessageId> = match route.get(queue, &ids).await {
            Ok(found) => found.iter().map(|message| message.id).collect(),
            // A store that cannot look into its queues knows its ids when it is given them.
            Err(error) if error.kind() == ErrorKind::Unsupported => HashSet::new(),
            Err(error) => return Err(error),
        };
        let mut import = MessageImport::default();
        for id in &there {
            match tried.contains(id) {
                true => import.new += 1,
                false => import.there += 1,
            }
        }
        messages.retain(|message| !there.contains(&message.id));
        tried.extend(messages.iter().map(|message| message.id));
        let encrypt = known.is_some_and(|queue| queue.settings.encrypt);
        for message in &mut messages {
            if self.checksums && message.checksum.is_none() {
                let text = std::str::from_utf8(&message.body).ok();
                message.checksum = text.and_then(checksum::checksum);
            }
            if encrypt {
                message.body = self.sealer.seal(message.id, &message.body)?;
                message.sealed = true;
            }
        }
        let new = messages.len();
        if new > 0 {
            route.post(queue, messages, None).await?;
            self.observer.posted(new);
        }
        import.new += new as u64;
        Ok(import)
    }

    /// What the store of the configuration can do.
    pub fn capabilities(&self) -> Capabilities {
        let default_route = self.catalogue.default_route();
        default_route.newest().store().capabilities()
    }

    /// Puts messages under a claim that was made elsewhere. Returns how many it holds then.
    pub async fn import_claim(
        &self,
        queue: &QueueKey,
        claim: ImportedClaim,
        ids: &[MessageId],
    ) -> Result<usize> {
        self.route(queue)
            .await?
            .import_claim(queue, claim, ids)
            .await
    }

    /// Keeps a subscription that was made elsewhere, for as long as it had left there. Returns whether it is new: one
    /// that the queue has for that subscriber stays as it is.
    pub async fn import_subscription(&self, subscription: &Subscription) -> Result<bool> {
        let left = subscription.ttl.saturating_sub(subscription.age);
        if left.is_zero() {
            return Ok(false);
        }
        let mut subscription = Subscription {
            ttl: left,
            age: Duration::ZERO,
            ..subscription.clone()
        };
        // Nobody here knows whose its trust is.
        forget_trust(&mut subscription.options);
        let there = self.management.create_subscription(&subscription).await?;
        self.forget(&subscription.source);
        Ok(there.is_none())
    }
}
