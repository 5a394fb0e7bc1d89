//! Carrying, cut off at every call, before and after the call's effect.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use isimud_contract::{
    Backlog, Capabilities, Claim, ClaimId, ClientId, Condition, Error, ErrorKind, ForeignClaim,
    Guard, Lease, ManualClock, Message, MessageId, MessageStore, Page, ProjectId, QueueKey,
    QueueName, Result, Selection, Stats,
};
use uuid::Uuid;

use super::carry::{Carry, End};
use crate::drivers::{self, Context};

/// Breaks one call, and all that come after it.
#[derive(Debug, Default)]
struct Break {
    calls: AtomicUsize,
    at: usize,
    after_the_effect: bool,
}

impl Break {
    async fn around<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let broken = || Err(Error::new(ErrorKind::Unavailable, "cut off"));
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        if number > self.at || (number == self.at && !self.after_the_effect) {
            return broken();
        }
        let answer = call.await;
        if number == self.at { broken() } else { answer }
    }
}

#[derive(Debug)]
struct Breaking {
    inner: Arc<dyn MessageStore>,
    when: Arc<Break>,
}

#[async_trait]
impl MessageStore for Breaking {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    fn condition(&self) -> Condition {
        self.inner.condition()
    }
    async fn ping(&self) -> Result<()> {
        self.when.around(self.inner.ping()).await
    }
    async fn post(&self, queue: &QueueKey, messages: Vec<Message>) -> Result<()> {
        self.when.around(self.inner.post(queue, messages)).await
    }
    async fn list(&self, queue: &QueueKey, selection: Selection) -> Result<Page> {
        self.when.around(self.inner.list(queue, selection)).await
    }
    async fn get(&self, queue: &QueueKey, ids: &[MessageId]) -> Result<Vec<Message>> {
        self.when.around(self.inner.get(queue, ids)).await
    }
    async fn delete(&self, queue: &QueueKey, ids: &[MessageId], guard: Guard) -> Result<usize> {
        self.when.around(self.inner.delete(queue, ids, guard)).await
    }
    async fn pop(&self, queue: &QueueKey, limit: usize) -> Result<Vec<Message>> {
        self.when.around(self.inner.pop(queue, limit)).await
    }
    async fn claim(&self, queue: &QueueKey, lease: &Lease, limit: usize) -> Result<Option<Claim>> {
        let call = self.inner.claim(queue, lease, limit);
        self.when.around(call).await
    }
    async fn find_claim(&self, queue: &QueueKey, claim: ClaimId) -> Result<Claim> {
        self.when.around(self.inner.find_claim(queue, claim)).await
    }
    async fn renew_claim(&self, queue: &QueueKey, lease: &Lease) -> Result<()> {
        self.when.around(self.inner.renew_claim(queue, lease)).await
    }
    async fn release_claim(&self, queue: &QueueKey, claim: ClaimId) -> Result<()> {
        let call = self.inner.release_claim(queue, claim);
        self.when.around(call).await
    }
    async fn hold(
        &self,
        queue: &QueueKey,
        claim: ForeignClaim,
        ids: &[MessageId],
    ) -> Result<usize> {
        self.when.around(self.inner.hold(queue, claim, ids)).await
    }
    async fn backlog(&self, queue: &QueueKey) -> Result<Backlog> {
        self.when.around(self.inner.backlog(queue)).await
    }
    async fn stats(&self, queue: &QueueKey) -> Result<Stats> {
        self.when.around(self.inner.stats(queue)).await
    }
    async fn purge(&self, queue: &QueueKey) -> Result<()> {
        self.when.around(self.inner.purge(queue)).await
    }
    async fn remove(&self, queue: &QueueKey) -> Result<()> {
        self.when.around(self.inner.remove(queue)).await
    }
    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

const MESSAGES: usize = 7;

struct Bench {
    clock: Arc<ManualClock>,
    old: Arc<dyn MessageStore>,
    new: Arc<dyn MessageStore>,
    queue: QueueKey,
}

impl Bench {
    /// Messages 0 to 6 in the old store, the fourth of them delayed.
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        let context = Context::new(Arc::clone(&clock) as _, None);
        let open = || {
            drivers::open("sqlite::memory:", &context)
                .expect("a store")
                .messages
        };
        let project = ProjectId::parse("p").expect("a project");
        let bench = Self {
            old: open(),
            new: open(),
            clock,
            queue: QueueKey::new(project, QueueName::parse("q").expect("a name")),
        };
        for number in 0..MESSAGES {
            let id = MessageId(Uuid::from_u128(1 + number as u128));
            let client = ClientId::Uuid(Uuid::nil());
            let life = Duration::from_secs(3_600);
            let mut message = Message::new(id, client, life, number.to_string().into_bytes());
            if number == 3 {
                message.delay = Duration::from_secs(300);
            }
            bench
                .old
                .post(&bench.queue, vec![message])
                .await
                .expect("a post");
        }
        bench
    }

    fn carry(&self, when: Break) -> Carry {
        let when = Arc::new(when);
        let end = |inner: &Arc<dyn MessageStore>, part| End {
            store: Arc::new(Breaking {
                inner: Arc::clone(inner),
                when: Arc::clone(&when),
            }),
            key: self.queue.part(part),
        };
        Carry {
            from: end(&self.old, 0),
            through: end(&self.new, 9),
            to: end(&self.new, 1),
        }
    }

    /// What a reader meets: the messages of a store that it can claim, the oldest first.
    async fn readable(&self, store: &Arc<dyn MessageStore>, part: u32) -> Vec<usize> {
        let popped = store.pop(&self.queue.part(part), 100).await.expect("a pop");
        let number = |message: &Message| {
            let text = std::str::from_utf8(&message.body).expect("a number");
            text.parse().expect("a number")
        };
        popped.iter().map(number).collect()
    }
}

async fn all(carry: &Carry) -> Result<usize> {
    let mut carried = 0;
    carry.recover().await?;
    loop {
        match carry.batch(3).await? {
            0 => break,
            count => carried += count,
        }
    }
    carried += carry.delayed().await?;
    carry.finish().await?;
    Ok(carried)
}

#[tokio::test]
async fn what_is_cut_off_anywhere_and_taken_up_again_is_neither_lost_nor_doubled() {
    let never = || Break {
        at: usize::MAX,
        ..Break::default()
    };
    let bench = Bench::new().await;
    let whole = bench.carry(never());
    assert_eq!(all(&whole).await.expect("no fault"), MESSAGES);
    let bench_calls = calls_of_a_whole_run().await;
    assert!(bench_calls > 15, "{bench_calls}");
    for at in 0..bench_calls {
        for after_the_effect in [false, true] {
            let bench = Bench::new().await;
            let cut = bench.carry(Break {
                at,
                after_the_effect,
                ..Break::default()
            });
            all(&cut).await.expect_err("it is cut off");
            // A reader at that moment meets each message in one store at the most, in order.
            let early = bench.readable(&bench.new, 1).await;
            let sorted = early.is_sorted();
            assert!(sorted, "cut off at {at}, {after_the_effect}: {early:?}");

            bench.clock.advance(Duration::from_secs(61));
            all(&bench.carry(never())).await.expect("taken up again");
            assert_eq!(bench.readable(&bench.old, 0).await, [0; 0]);
            assert_eq!(bench.readable(&bench.new, 9).await, [0; 0]);
            bench.clock.advance(Duration::from_secs(300));
            let late = bench.readable(&bench.new, 1).await;
            let mut met = [early.clone(), late.clone()].concat();
            met.sort_unstable();
            let every: Vec<usize> = (0..MESSAGES).collect();
            assert_eq!(
                met, every,
                "cut off at {at}, {after_the_effect}: {early:?}, {late:?}"
            );
        }
    }
}

async fn calls_of_a_whole_run() -> usize {
    let bench = Bench::new().await;
    let when = Arc::new(Break {
        at: usize::MAX,
        ..Break::default()
    });
    let end = |inner: &Arc<dyn MessageStore>, part| End {
        store: Arc::new(Breaking {
            inner: Arc::clone(inner),
            when: Arc::clone(&when),
        }),
        key: bench.queue.part(part),
    };
    let carry = Carry {
        from: end(&bench.old, 0),
        through: end(&bench.new, 9),
        to: end(&bench.new, 1),
    };
    all(&carry).await.expect("no fault");
    when.calls.load(Ordering::Relaxed)
}

#[tokio::test]
async fn what_a_purge_takes_meanwhile_does_not_come_back() {
    let bench = Bench::new().await;
    let lease = Lease {
        id: ClaimId(Uuid::now_v7()),
        ttl: Duration::from_secs(60),
        grace: Duration::ZERO,
        dead_letter: None,
    };
    let claimed = bench
        .old
        .claim(&bench.queue, &lease, 2)
        .await
        .expect("a claim");
    // As if carrying had come as far as the post.
    let through = bench.queue.part(9);
    let messages = claimed.expect("messages").messages;
    bench.new.post(&through, messages).await.expect("a post");
    bench.old.purge(&bench.queue).await.expect("a purge");
    bench.new.purge(&through).await.expect("a purge");
    let never = Break {
        at: usize::MAX,
        ..Break::default()
    };
    assert_eq!(all(&bench.carry(never)).await.expect("no fault"), 0);
    assert_eq!(bench.readable(&bench.new, 1).await, [0; 0]);
}
