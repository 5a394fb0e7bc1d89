//! A ledger and a broker whose calls may fail before or after their effect, and which tell what they saw.
//!
//! Everything of a run happens on one thread, in an order that its seed decides: each call lets others go first a
//! random number of times, and the real ledger, which has a thread of its own, is waited for without letting go.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use async_trait::async_trait;
use isimud_contract::{
    ByteCount, Capabilities, Claim, ClaimId, Clock, Delivery, Epoch, Error, ErrorKind,
    ImportedClaim, Lease, Ledger, ManualClock, Message, MessageId, Page, Precondition, Purpose,
    QueueKey, Receipt, Renewed, Result, Selection, Stats, Timestamp, UnknownIds, Verdict,
};
use isimud_lease::fake::FakeBroker;
use isimud_lease::{Depth, Envelope, LeaseBroker};

/// A server's clock: so far from the ledger's.
#[derive(Debug)]
pub(crate) struct Skewed {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) millis: i64,
}

impl Clock for Skewed {
    fn now(&self) -> Timestamp {
        Timestamp(self.clock.now().0 + self.millis)
    }

    fn wall(&self) -> Timestamp {
        self.now()
    }
}

/// What is broken on purpose, to see that a run finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    None,
    /// The ledger says that messages are deleted, and does nothing.
    ForgetDeletes,
    /// The ledger says that a queue is purged, and does nothing.
    ForgetPurges,
    /// The ledger grants what somebody holds.
    GrantTwice,
    /// The ledger ends claims early.
    EndClaims,
    /// A message that is held back is settled instead.
    SettleHeld,
    /// Messages are deleted before they are in the dead-letter queue.
    BuryFirst,
}

/// Chance, shared by everything of a run.
#[derive(Debug)]
pub(crate) struct Fate {
    random: Mutex<fastrand::Rng>,
    /// How many of a thousand calls to the ledger fail.
    pub(crate) failures: AtomicU16,
    pub(crate) sabotage: Sabotage,
    /// Messages that a pop was granted, whoever heard of it.
    pub(crate) popped: Mutex<Vec<(QueueKey, MessageId)>>,
}

impl Fate {
    pub(crate) fn new(seed: u64, sabotage: Sabotage) -> Arc<Self> {
        Arc::new(Self {
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            failures: AtomicU16::new(0),
            sabotage,
            popped: Mutex::default(),
        })
    }

    pub(crate) fn roll<T>(&self, roll: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        roll(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn one_in(&self, times: u32) -> bool {
        self.roll(|random| random.u32(..times) == 0)
    }

    /// Lets others go first.
    pub(crate) async fn pause(&self) {
        for _ in 0..self.roll(|random| random.u8(..4)) {
            tokio::task::yield_now().await;
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a call without letting anybody else go on.
fn wait<T>(call: impl Future<Output = T>) -> T {
    let mut call = pin!(tokio::task::unconstrained(call));
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match call.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct ShakyLedger {
    pub(crate) inner: Arc<dyn Ledger>,
    pub(crate) fate: Arc<Fate>,
}

impl ShakyLedger {
    async fn step<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.fate.pause().await;
        let failures = self.fate.failures.load(Ordering::Relaxed);
        let fails = self.fate.roll(|random| random.u16(..1000)) < failures;
        let lost = || Error::new(ErrorKind::Unavailable, "the ledger does not answer");
        if fails && self.fate.one_in(2) {
            return Err(lost());
        }
        let answer = wait(call);
        self.fate.pause().await;
        if fails { Err(lost()) } else { answer }
    }

    fn is(&self, sabotage: Sabotage) -> bool {
        self.fate.sabotage == sabotage
    }
}

#[async_trait]
impl Ledger for ShakyLedger {
    async fn ping(&self) -> Result<()> {
        self.step(self.inner.ping()).await
    }

    async fn record(
        &self,
        queue: &QueueKey,
        epoch: Option<Epoch>,
        now: Timestamp,
        posted: &[Message],
    ) -> Result<Epoch> {
        self.step(self.inner.record(queue, epoch, now, posted))
            .await
    }

    async fn grant(
        &self,
        queue: &QueueKey,
        purpose: Purpose<'_>,
        limit: usize,
        now: Timestamp,
        got: &[Delivery],
    ) -> Result<Vec<Verdict>> {
        let judged = async {
            let mut verdicts = self.inner.grant(queue, purpose, limit, now, got).await?;
            let granted = verdicts
                .iter()
                .filter(|verdict| matches!(verdict, Verdict::Granted { .. }));
            let mut left = limit - granted.count();
            for (delivery, verdict) in got.iter().zip(&mut verdicts) {
                if let (Purpose::Pop, Verdict::Granted { message, .. }) = (purpose, &verdict) {
                    let mut popped = self.fate.popped.lock().expect("no panic while it is held");
                    popped.push((queue.clone(), message.id));
                }
                let held = matches!(verdict, Verdict::Held(_));
                if self.is(Sabotage::GrantTwice) && held && left > 0 {
                    left -= 1;
                    let message = delivery.message.clone();
                    *verdict = Verdict::Granted {
                        message,
                        longer: false,
                    };
                }
                if self.is(Sabotage::SettleHeld) && held {
                    *verdict = Verdict::Gone;
                }
            }
            Ok(verdicts)
        };
        self.step(judged).await
    }

    async fn renew(&self, queue: &QueueKey, lease: &Lease, now: Timestamp) -> Result<Renewed> {
        if self.is(Sabotage::EndClaims) {
            wait(self.inner.release(queue, lease.id))?;
            return Ok(Renewed::default());
        }
        self.step(self.inner.renew(queue, lease, now)).await
    }

    async fn release(&self, queue: &QueueKey, claim: ClaimId) -> Result<Vec<Receipt>> {
        self.step(self.inner.release(queue, claim)).await
    }

    async fn undo(&self, queue: &QueueKey, claim: ClaimId) -> Result<Vec<Receipt>> {
        self.step(self.inner.undo(queue, claim)).await
    }

    async fn delete(
        &self,
        queue: &QueueKey,
        ids: &[MessageId],
        precondition: Precondition,
        unknown_ids: UnknownIds,
    ) -> Result<(usize, Vec<Receipt>)> {
        if self.is(Sabotage::ForgetDeletes) {
            return Ok((ids.len(), Vec::new()));
        }
        self.step(self.inner.delete(queue, ids, precondition, unknown_ids))
            .await
    }

    async fn import_claim(
        &self,
        queue: &QueueKey,
        claim: ImportedClaim,
        ids: &[MessageId],
    ) -> Result<usize> {
        self.step(self.inner.import_claim(queue, claim, ids)).await
    }

    async fn find_claim(&self, queue: &QueueKey, claim: ClaimId) -> Result<Claim> {
        self.step(self.inner.find_claim(queue, claim)).await
    }

    async fn get(&self, queue: &QueueKey, ids: &[MessageId]) -> Result<Vec<Message>> {
        self.step(self.inner.get(queue, ids)).await
    }

    async fn list(&self, queue: &QueueKey, selection: Selection) -> Result<Page> {
        self.step(self.inner.list(queue, selection)).await
    }

    async fn stats(&self, queue: &QueueKey) -> Result<Stats> {
        self.step(self.inner.stats(queue)).await
    }

    async fn count_bytes(&self, queue: &QueueKey, after: Option<u64>) -> Result<ByteCount> {
        self.step(self.inner.count_bytes(queue, after)).await
    }

    async fn forget(&self, queue: &QueueKey, ids: &[MessageId]) -> Result<usize> {
        self.step(self.inner.forget(queue, ids)).await
    }

    async fn purge(&self, queue: &QueueKey) -> Result<()> {
        if self.is(Sabotage::ForgetPurges) {
            return Ok(());
        }
        self.step(self.inner.purge(queue)).await
    }
}

/// The fake broker fails by itself; this one lets others go first.
#[derive(Debug)]
pub(crate) struct ShakyBroker {
    pub(crate) inner: FakeBroker,
    pub(crate) fate: Arc<Fate>,
    /// Where what is dead goes, which a saboteur looks at.
    pub(crate) dead: QueueKey,
}

impl ShakyBroker {
    async fn step<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.fate.pause().await;
        let answer = call.await;
        self.fate.pause().await;
        answer
    }
}

#[async_trait]
impl LeaseBroker for ShakyBroker {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn expires_messages(&self) -> bool {
        self.inner.expires_messages()
    }

    fn adopts(&self) -> bool {
        self.inner.adopts()
    }

    fn missing_after(&self) -> Option<Duration> {
        self.inner.missing_after()
    }

    fn time_limit(&self) -> Duration {
        self.inner.time_limit()
    }

    async fn ping(&self) -> Result<()> {
        self.step(self.inner.ping()).await
    }

    async fn can_send(&self, queue: &QueueKey) -> Result<()> {
        self.step(self.inner.can_send(queue)).await
    }

    async fn send(&self, queue: &QueueKey, batch: Vec<Envelope>) -> Result<()> {
        if self.fate.sabotage == Sabotage::BuryFirst && *queue == self.dead {
            return Ok(());
        }
        self.step(self.inner.send(queue, batch)).await
    }

    async fn receive(
        &self,
        queue: &QueueKey,
        max: usize,
        visibility: Duration,
    ) -> Result<Vec<Delivery>> {
        self.step(self.inner.receive(queue, max, visibility)).await
    }

    async fn extend(
        &self,
        queue: &QueueKey,
        receipts: &[Receipt],
        visibility: Duration,
    ) -> Result<()> {
        self.step(self.inner.extend(queue, receipts, visibility))
            .await
    }

    async fn ack(&self, queue: &QueueKey, receipts: &[Receipt]) -> Result<()> {
        self.step(self.inner.ack(queue, receipts)).await
    }

    async fn release(&self, queue: &QueueKey, receipts: &[Receipt]) -> Result<()> {
        self.step(self.inner.release(queue, receipts)).await
    }

    async fn depth(&self, queue: &QueueKey) -> Result<Depth> {
        self.step(self.inner.depth(queue)).await
    }

    async fn purge(&self, queue: &QueueKey) -> Result<()> {
        self.step(self.inner.purge(queue)).await
    }

    async fn drop_queue(&self, queue: &QueueKey) -> Result<()> {
        self.step(self.inner.drop_queue(queue)).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}
