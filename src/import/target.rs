//! Where an import goes: the service's stores, or nowhere, in a dry run.

use std::collections::HashSet;
use std::sync::Arc;

use isimud_contract::{
    Capabilities, ErrorKind, ImportedClaim, ManagementStore, Message, MessageId, Metadata,
    QueueKey, Resource, Result, Subscription,
};

use super::Stop;
use super::lock::Lock;
use super::store_retry::StoreRetry;
use crate::messaging::{MessageImport, Messaging, QueueImport};

/// Bytes of bodies that are stored in one step, at the most; a larger body goes alone.
const STEP_BYTES: usize = 1 << 20;

/// The stores, or nothing.
#[derive(Debug)]
pub(super) enum Target {
    Stores(Box<Stores>),
    /// Takes everything that a store of these capabilities would, and keeps nothing.
    Nowhere(Capabilities),
}

/// The stores that are filled.
#[derive(Debug)]
pub(super) struct Stores {
    messaging: Messaging,
    retry: StoreRetry,
    /// Where other processes can be locked out of a queue; `None` where no other can have it open.
    locks: Option<Arc<dyn ManagementStore>>,
}

/// What became of messages.
#[derive(Debug, Default)]
pub(super) struct Placed {
    pub(super) new: u64,
    /// They were there already.
    pub(super) there: u64,
    /// The store will not take them, now or later.
    pub(super) refused: Vec<Refused>,
}

/// A message that the store will not take.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) id: MessageId,
    /// The size of its body in bytes.
    pub(super) size: usize,
    pub(super) why: String,
}

impl Placed {
    fn refuse(&mut self, message: &Message, why: &str) {
        self.refused.push(Refused {
            id: message.id,
            size: message.body.len(),
            why: why.to_owned(),
        });
    }
}

impl Target {
    pub(super) fn new(
        messaging: Messaging,
        locks: Option<Arc<dyn ManagementStore>>,
        stop: Stop,
    ) -> Self {
        Self::Stores(Box::new(Stores {
            messaging,
            retry: StoreRetry::new(stop),
            locks,
        }))
    }

    pub(super) fn nowhere(able: Capabilities) -> Self {
        Self::Nowhere(able)
    }

    /// Does something while no other import fills the queue; those that do are waited for. `None` when the import was
    /// told to stop before that.
    pub(super) async fn alone<T>(
        &self,
        queue: &QueueKey,
        work: impl Future<Output = T>,
    ) -> Result<Option<T>> {
        let (retry, management) = match self {
            Self::Stores(stores) => (&stores.retry, stores.locks.as_ref()),
            Self::Nowhere(_) => return Ok(Some(work.await)),
        };
        let Some(management) = management else {
            return Ok(Some(work.await));
        };
        let lock = Lock::new(management, queue);
        if !lock.acquire(retry).await? {
            return Ok(None);
        }
        let done = tokio::select! {
            done = work => done,
            never = lock.show_life() => match never {},
        };
        lock.release().await;
        Ok(Some(done))
    }

    /// Makes a queue. In a dry run it is always made.
    pub(super) async fn queue(&self, queue: &QueueKey, metadata: &Metadata) -> Result<QueueImport> {
        match self {
            Self::Stores(stores) => {
                let call = async || stores.messaging.import_queue(queue, metadata).await;
                stores.retry.retry_unavailable(call).await
            }
            Self::Nowhere(_) => Ok(QueueImport::Created),
        }
    }

    /// Stores messages in order. One that the store refuses for good is told, and holds up no other. An error is that
    /// of the queue: what `placed` has by then is stored.
    pub(super) async fn messages(
        &self,
        queue: &QueueKey,
        messages: Vec<Message>,
        placed: &mut Placed,
    ) -> Result<()> {
        let (messaging, retry) = match self {
            Self::Stores(stores) => (&stores.messaging, &stores.retry),
            Self::Nowhere(able) => {
                for message in messages {
                    match beyond(able, &message) {
                        Some(why) => placed.refuse(&message, why),
                        None => placed.new += 1,
                    }
                }
                return Ok(());
            }
        };
        for step in steps(messages) {
            place(messaging, retry, queue, step, placed).await?;
        }
        Ok(())
    }

    /// Puts messages under their claim, and returns how many it holds then; `None` where the store cannot.
    pub(super) async fn claim(
        &self,
        queue: &QueueKey,
        claim: ImportedClaim,
        ids: &[MessageId],
    ) -> Result<Option<usize>> {
        let (messaging, retry) = match self {
            Self::Stores(stores) => (&stores.messaging, &stores.retry),
            Self::Nowhere(able) => return Ok(able.browse.then_some(ids.len())),
        };
        let call = async || messaging.import_claim(queue, claim, ids).await;
        match retry.retry_unavailable(call).await {
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
        match self {
            Self::Stores(stores) => {
                let call = async || stores.messaging.import_subscription(subscription).await;
                stores.retry.retry_unavailable(call).await
            }
            Self::Nowhere(_) => Ok(true),
        }
    }

    /// What the store of the configuration can do.
    pub(super) fn able(&self) -> Capabilities {
        match self {
            Self::Stores(stores) => stores.messaging.capabilities(),
            Self::Nowhere(able) => *able,
        }
    }

    pub(super) async fn close(&self) -> Result<()> {
        match self {
            Self::Stores(stores) => stores.messaging.close().await,
            Self::Nowhere(_) => Ok(()),
        }
    }
}

/// Why a store of such capabilities would refuse a message, as it would say it.
fn beyond(able: &Capabilities, message: &Message) -> Option<&'static str> {
    let size = message.body.len() as u64;
    if able.largest_body.is_some_and(|largest| size > largest) {
        return Some("the broker of this pool cannot keep so large a body");
    }
    if able
        .longest_delay
        .is_some_and(|longest| message.delay > longest)
    {
        return Some("the broker of this pool cannot delay a message for so long");
    }
    if able
        .longest_ttl
        .is_some_and(|longest| message.remaining_ttl > longest)
    {
        return Some("the broker of this pool keeps no message for so long");
    }
    None
}

fn steps(messages: Vec<Message>) -> Vec<Vec<Message>> {
    let mut steps = Vec::new();
    let (mut step, mut bytes) = (Vec::new(), 0);
    for message in messages {
        if bytes + message.body.len() > STEP_BYTES && !step.is_empty() {
            steps.push(std::mem::take(&mut step));
            bytes = 0;
        }
        bytes += message.body.len();
        step.push(message);
    }
    if !step.is_empty() {
        steps.push(step);
    }
    steps
}

/// Stores a step. A post is refused as a whole, so one that is refused is halved until the message is found.
async fn place(
    messaging: &Messaging,
    retry: &StoreRetry,
    queue: &QueueKey,
    step: Vec<Message>,
    placed: &mut Placed,
) -> Result<()> {
    let mut parts = vec![step];
    while let Some(mut part) = parts.pop() {
        // An attempt whose answer was lost may have stored them: by the next they are there, and yet new.
        let mut tried = HashSet::new();
        let adopted = retry
            .retry_unavailable(async || {
                messaging
                    .import_messages(queue, part.clone(), &mut tried)
                    .await
            })
            .await;
        match adopted {
            Ok(MessageImport { new, there }) => {
                placed.new += new;
                placed.there += there;
            }
            Err(error) if !is_about_a_message(error.kind()) => return Err(error),
            Err(error) => match part.as_slice() {
                [message] => placed.refuse(message, error.sentence()),
                _ => {
                    let rest = part.split_off(part.len() / 2);
                    parts.extend([rest, part]);
                }
            },
        }
    }
    Ok(())
}

fn is_about_a_message(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Invalid | ErrorKind::Unsupported)
}

#[cfg(test)]
mod tests {
    use isimud_contract::ClientId;
    use std::time::Duration;
    use uuid::Uuid;

    use super::*;

    fn of_size(size: usize) -> Message {
        let client = ClientId::Uuid(Uuid::nil());
        Message::new(
            MessageId(Uuid::now_v7()),
            client,
            Duration::from_secs(60),
            "x".repeat(size),
        )
    }

    #[test]
    fn a_step_has_a_mebibyte_of_bodies_or_one_message() {
        let sizes = [10, STEP_BYTES - 10, 1, 3 * STEP_BYTES, 5];
        let messages = sizes.map(of_size).to_vec();
        let found: Vec<Vec<usize>> = steps(messages)
            .iter()
            .map(|step| step.iter().map(|message| message.body.len()).collect())
            .collect();
        assert_eq!(
            found,
            [
                vec![10, STEP_BYTES - 10],
                vec![1],
                vec![3 * STEP_BYTES],
                vec![5]
            ]
        );
    }

    #[tokio::test]
    async fn a_dry_run_refuses_what_the_store_would() {
        let target = Target::nowhere(Capabilities {
            largest_body: Some(100),
            longest_delay: Some(Duration::from_secs(900)),
            longest_ttl: Some(Duration::from_secs(86_400)),
            ..Capabilities::FULL
        });
        let mut delayed = of_size(5);
        delayed.delay = Duration::from_secs(901);
        let mut lasting = of_size(5);
        lasting.remaining_ttl = Duration::from_secs(86_401);
        let queue = QueueKey::new(
            isimud_contract::ProjectId::parse("p").expect("a project"),
            isimud_contract::QueueName::parse("q").expect("a name"),
        );
        let mut placed = Placed::default();
        let messages = vec![of_size(100), of_size(101), delayed, lasting];
        let done = target.messages(&queue, messages, &mut placed).await;
        assert!(done.is_ok());
        assert_eq!((placed.new, placed.refused.len()), (1, 3));
        assert_eq!(placed.refused[0].size, 101);
    }
}
