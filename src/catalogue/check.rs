//! Whether a store does what it should: a round trip through everything that clients use (spec: http.md 14).

use std::time::{Duration, Instant};

use bytes::Bytes;
use isimud_contract::{
    ClaimId, ClientId, Error, ErrorKind, Lease, Message, MessageId, MessageStore, Precondition,
    ProjectId, QueueKey, QueueName, Result, Selection,
};
use uuid::Uuid;

/// Messages that the round trip posts.
const MESSAGES: usize = 100;
/// How many of them it claims.
const CLAIMED: usize = 10;
/// How long they live if it is cut short.
const TTL: Duration = Duration::from_secs(600);
/// How long one operation may take.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the first may take, which shows whether the store can be reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What a round trip found.
#[derive(Debug, Clone, Default)]
pub struct Check {
    /// The operations that were tried, in their order. The first shows whether the store can be reached; where it
    /// cannot, no other is tried.
    pub operations: Vec<Operation>,
}

/// One operation of a round trip.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Its name.
    pub name: &'static str,
    /// How long it took.
    pub took: Duration,
    /// What the log calls its failure; `None` when it succeeded.
    pub failure: Option<Uuid>,
}

impl Check {
    /// Whether the store answered.
    pub fn is_reachable(&self) -> bool {
        let first = self.operations.first();
        first.is_some_and(|operation| operation.failure.is_none())
    }

    /// What is found of a store that cannot even be opened.
    pub(crate) fn failed(pool: &str, error: &Error) -> Self {
        let mut check = Self::default();
        check.note(pool, "create_queue", Duration::ZERO, Some(error));
        check
    }

    fn note(&mut self, pool: &str, name: &'static str, took: Duration, error: Option<&Error>) {
        let failure = error.map(|error| {
            let reference = Uuid::new_v4();
            tracing::warn!(pool, operation = name, %reference, %error, "a health check failed");
            reference
        });
        self.operations.push(Operation {
            name,
            took,
            failure,
        });
    }

    /// Does an operation and notes how it went.
    async fn step<T: Default>(
        &mut self,
        pool: &str,
        name: &'static str,
        call: impl Future<Output = Result<T>>,
    ) -> T {
        let start = Instant::now();
        let timeout = if self.operations.is_empty() {
            CONNECT_TIMEOUT
        } else {
            OPERATION_TIMEOUT
        };
        let result = tokio::time::timeout(timeout, call).await;
        let late = || Error::new(ErrorKind::Unavailable, "there was no answer in time");
        let result = result.unwrap_or_else(|_| Err(late()));
        self.note(pool, name, start.elapsed(), result.as_ref().err());
        result.unwrap_or_default()
    }
}

/// Makes the round trip in a queue that nobody else knows, and leaves nothing behind. A store whose queues are those of
/// an existing deployment is asked for an answer, and no more.
pub(super) async fn round_trip(pool: &str, store: &dyn MessageStore) -> Result<Check> {
    let queue = queue()?;
    let mut check = Check::default();
    if store.capabilities().adopts {
        // Nobody but the deployment makes queues there.
        check.step(pool, "ping", store.ping()).await;
        return Ok(check);
    }
    // A queue needs no creation; what is asked is whether there is somebody to make one.
    let create = async {
        store.ping().await?;
        store.stats(&queue).await.map(drop)
    };
    check.step(pool, "create_queue", create).await;
    if !check.is_reachable() {
        return Ok(check);
    }
    let messages: Vec<Message> = (0..MESSAGES).map(message).collect();
    let ids: Vec<MessageId> = messages.iter().map(|message| message.id).collect();
    let post = store.post(&queue, messages);
    check.step(pool, "post_messages", post).await;

    let lease = Lease {
        id: ClaimId(Uuid::now_v7()),
        ttl: Duration::from_secs(60),
        grace: Duration::from_secs(300),
        dead_letter: None,
    };
    let claim = store.claim(&queue, &lease, CLAIMED);
    let claim = check.step(pool, "claim_messages", claim).await;
    let claimed: Vec<MessageId> = claim
        .iter()
        .flat_map(|claim| claim.messages.iter().map(|message| message.id))
        .collect();
    if store.capabilities().browse {
        let list = store.list(&queue, everything());
        check.step(pool, "list_messages", list).await;
    }
    let precondition = Precondition::ClaimedBy(vec![lease.id]);
    let delete = store.delete(&queue, &claimed, precondition);
    check.step(pool, "delete_messages", delete).await;
    let release = store.release_claim(&queue, lease.id);
    check.step(pool, "delete_claim", release).await;
    let rest: Vec<MessageId> = ids.into_iter().filter(|id| !claimed.contains(id)).collect();
    let delete = store.delete(&queue, &rest, Precondition::None);
    check.step(pool, "bulk_delete_messages", delete).await;
    check
        .step(pool, "delete_queue", store.drop_queue(&queue))
        .await;
    Ok(check)
}

/// A queue that no client can name, in a project of its own.
fn queue() -> Result<QueueKey> {
    let wrong =
        |error| Error::new(ErrorKind::Internal, "no name for a health check").caused_by(error);
    let project = ProjectId::parse(&format!("health-{}", Uuid::new_v4())).map_err(wrong)?;
    let name = QueueName::parse("health").map_err(wrong)?;
    Ok(QueueKey::new(project, QueueName::internal(&name)))
}

fn message(number: usize) -> Message {
    let body = Bytes::from(format!("{{\"event\": \"p_{number}\"}}"));
    let client = ClientId::Uuid(Uuid::nil());
    Message::new(MessageId(Uuid::now_v7()), client, TTL, body)
}

fn everything() -> Selection {
    Selection {
        after: None,
        limit: MESSAGES,
        not_from: None,
        include_claimed: true,
        include_delayed: true,
    }
}
