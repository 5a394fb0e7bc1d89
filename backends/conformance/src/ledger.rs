//! What a ledger promises, tried on the ledger alone: the broker is a trial that makes deliveries up.

pub(crate) mod claims;
pub(crate) mod deleting;
pub(crate) mod judging;
pub(crate) mod purging;
pub(crate) mod recording;
pub(crate) mod scopes;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use isimud_contract::{
    Claim, ClaimId, DeadLetter, Delivery, Epoch, Lease, Ledger, Message, MessageId, Precondition,
    Purpose, QueueKey, Receipt, Stands, Timestamp, UnknownIds, Verdict,
};
use uuid::Uuid;

use crate::bench::{HOUR, MINUTE, minutes, needs, queue};
use crate::harness::Fixture;
use crate::outcome::{Abort, Step};
use crate::steps::{client, everything, ids};

/// A ledger, and the queue that the words are about. A copy is the same ledger.
#[derive(Debug, Clone)]
pub(crate) struct LedgerBench {
    fixture: Arc<dyn Fixture>,
    ledger: Arc<dyn Ledger>,
    queue: QueueKey,
    minted: Arc<AtomicU64>,
}

/// The set-up.
impl LedgerBench {
    pub(crate) async fn open(fixture: Arc<dyn Fixture>) -> Step<Self> {
        let ledger = fixture.ledger("pool").await?;
        Ok(Self {
            ledger: ledger.ok_or(Abort::Unsupported("to keep a ledger"))?,
            fixture,
            queue: queue("project", "queue"),
            minted: Arc::default(),
        })
    }

    /// Another scope of the same place, or the same one once more.
    async fn scope(&self, scope: &str) -> Step<Self> {
        let ledger = self.fixture.ledger(scope).await?;
        Ok(Self {
            ledger: ledger.ok_or(Abort::Unsupported("to keep a ledger"))?,
            ..self.clone()
        })
    }

    fn on(&self, name: &str) -> Self {
        Self {
            queue: queue(self.queue.project.as_str(), name),
            ..self.clone()
        }
    }

    fn now(&self) -> Timestamp {
        self.fixture.now()
    }

    async fn advance(&self, span: Duration) {
        self.fixture.advance(span).await;
    }

    /// Goes on only where the clock stands still.
    fn to_the_millisecond(&self) -> Step<()> {
        let still = self.fixture.drift() == Duration::ZERO;
        needs(still, "a clock that stands still")
    }

    #[track_caller]
    fn assert_span(&self, actual: Duration, expected: Duration) {
        assert!(
            actual.abs_diff(expected) <= self.fixture.drift(),
            "{actual:?} is not {expected:?}"
        );
    }
}

/// Messages and deliveries.
impl LedgerBench {
    fn count(&self) -> u64 {
        self.minted.fetch_add(1, Ordering::Relaxed)
    }

    fn message(&self) -> Message {
        let id = Uuid::from_u64_pair(0x1000_0000_0000_7000, (1 << 63) | self.count());
        Message::new(MessageId(id), client(1), HOUR, format!("\"{id}\""))
    }

    fn messages(&self, count: usize) -> Vec<Message> {
        (0..count).map(|_| self.message()).collect()
    }

    fn living(&self, ttl: Duration) -> Message {
        Message {
            ttl,
            remaining_ttl: ttl,
            ..self.message()
        }
    }

    /// What the broker delivers of a message that is posted now.
    fn delivery(&self, message: &Message) -> Delivery {
        self.delivery_of(message, self.now())
    }

    fn delivery_of(&self, message: &Message, posted: Timestamp) -> Delivery {
        Delivery {
            message: message.clone(),
            posted,
            receipt: Receipt(format!("receipt {}", self.count()).into()),
            awaits_record: false,
        }
    }

    fn deliveries(&self, messages: &[Message]) -> Vec<Delivery> {
        messages
            .iter()
            .map(|message| self.delivery(message))
            .collect()
    }

    fn lease(&self) -> Lease {
        Lease {
            id: ClaimId(Uuid::from_u64_pair(
                0x2000_0000_0000_4000,
                (1 << 63) | self.count(),
            )),
            ttl: minutes(5),
            grace: MINUTE,
            dead_letter: None,
        }
    }

    fn strict_lease(&self, max_claims: u32) -> Lease {
        Lease {
            dead_letter: Some(DeadLetter {
                queue: self.on("dead").queue,
                max_claims,
                ttl: None,
                stands: Stands::Last(0),
            }),
            ..self.lease()
        }
    }
}

/// Calls.
impl LedgerBench {
    async fn epoch(&self) -> Step<Epoch> {
        self.record_in(None, self.now(), &[]).await
    }

    async fn record_in(
        &self,
        epoch: Option<Epoch>,
        now: Timestamp,
        posted: &[Message],
    ) -> Step<Epoch> {
        Ok(self.ledger.record(&self.queue, epoch, now, posted).await?)
    }

    /// Records messages in the present epoch.
    async fn record(&self, posted: &[Message]) -> Step<()> {
        let epoch = self.epoch().await?;
        assert_eq!(
            self.record_in(Some(epoch), self.now(), posted).await?,
            epoch
        );
        Ok(())
    }

    async fn judge(
        &self,
        purpose: Purpose<'_>,
        limit: usize,
        got: &[Delivery],
    ) -> Step<Vec<Verdict>> {
        let now = self.now();
        let verdicts = self
            .ledger
            .grant(&self.queue, purpose, limit, now, got)
            .await?;
        assert_eq!(verdicts.len(), got.len());
        Ok(verdicts)
    }

    async fn claim(&self, lease: &Lease, got: &[Delivery]) -> Step<Vec<Verdict>> {
        self.judge(Purpose::Claim(lease), usize::MAX, got).await
    }

    /// What a fresh claim is told about one delivery.
    async fn verdict(&self, delivery: &Delivery) -> Step<Verdict> {
        let mut verdicts = self
            .claim(&self.lease(), std::slice::from_ref(delivery))
            .await?;
        Ok(verdicts.remove(0))
    }

    /// A claim that is granted all of them.
    async fn take(&self, got: &[Delivery]) -> Step<Lease> {
        let lease = self.lease();
        for verdict in self.claim(&lease, got).await? {
            granted(verdict)?;
        }
        Ok(lease)
    }

    async fn release(&self, claim: ClaimId) -> Step<Vec<Receipt>> {
        Ok(self.ledger.release(&self.queue, claim).await?)
    }

    async fn find(&self, claim: ClaimId) -> Step<Claim> {
        Ok(self.ledger.find_claim(&self.queue, claim).await?)
    }

    async fn delete(
        &self,
        ids: &[MessageId],
        precondition: Precondition,
    ) -> Step<(usize, Vec<Receipt>)> {
        Ok(self
            .ledger
            .delete(&self.queue, ids, precondition, UnknownIds::Ignore)
            .await?)
    }

    /// The ids of every live message that has a row, in their order.
    async fn rows(&self) -> Step<Vec<MessageId>> {
        let page = self.ledger.list(&self.queue, everything()).await?;
        Ok(ids(&page.messages))
    }

    /// How many are free, and how many held.
    async fn counts(&self) -> Step<(u64, u64)> {
        let stats = self.ledger.stats(&self.queue).await?;
        Ok((stats.free, stats.claimed))
    }
}

/// The message that was granted.
fn granted(verdict: Verdict) -> Step<Message> {
    match verdict {
        Verdict::Granted { message, .. } => Ok(message),
        other => Err(Abort::Unexpected(format!("{other:?} instead of a grant"))),
    }
}

/// Whether a message was granted that needs a longer life at the broker.
fn is_longer(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Granted { longer: true, .. })
}

fn held(verdict: Verdict) -> Step<Duration> {
    match verdict {
        Verdict::Held(span) => Ok(span),
        other => Err(Abort::Unexpected(format!("{other:?} instead of a hold"))),
    }
}

fn exceeded(verdict: Verdict) -> Step<Message> {
    match verdict {
        Verdict::DeliveryLimitExceeded(message) => Ok(message),
        other => Err(Abort::Unexpected(format!(
            "{other:?} instead of a spent message"
        ))),
    }
}
