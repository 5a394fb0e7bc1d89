//! Whoever goes away in the middle of a call leaves nothing half done.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use isimud_contract::{
    ClaimId, ClientId, DeadLetter, Lease, ManualClock, Message, MessageId, MessageStore,
    Precondition, ProjectId, QueueKey, QueueName, Selection, Stands,
};
use isimud_lease::fake::{FakeServer, FaultProfile};
use isimud_lease::{Journal, Leased};
use isimud_sqlite::{Config, SqliteStore};
use uuid::Uuid;

const MINUTE: Duration = Duration::from_secs(60);

fn queue(name: &str) -> QueueKey {
    QueueKey::new(
        ProjectId::parse("p").expect("a project"),
        QueueName::parse(name).expect("a name"),
    )
}

fn message() -> Message {
    let id = MessageId(Uuid::now_v7());
    Message::new(id, ClientId::Uuid(Uuid::nil()), 10 * MINUTE, "{}")
}

fn lease(dead_letter: Option<DeadLetter>) -> Lease {
    Lease {
        id: ClaimId(Uuid::now_v7()),
        ttl: MINUTE,
        grace: Duration::ZERO,
        dead_letter,
    }
}

struct World {
    server: Arc<FakeServer>,
    ledgers: Arc<SqliteStore>,
    clock: Arc<ManualClock>,
}

impl World {
    fn new() -> Self {
        let clock = Arc::<ManualClock>::default();
        let ledgers = SqliteStore::open(Config::memory(), Arc::clone(&clock) as _);
        Self {
            server: FakeServer::new(Arc::clone(&clock) as _, FaultProfile::PLAIN, 1),
            ledgers: ledgers.expect("a store in memory"),
            clock,
        }
    }

    fn open(&self) -> Arc<dyn MessageStore> {
        let ledger = self.ledgers.ledger("pool");
        let clock = Arc::clone(&self.clock) as _;
        let broker = self.server.connect();
        Arc::new(Leased::new(broker, ledger, clock, Journal::On))
    }
}

/// Begins a call and leaves it after so many steps.
async fn abandon(call: impl Future, steps: usize) {
    let mut call = pin!(call);
    for _ in 0..steps {
        let over = poll_fn(|context| Poll::Ready(call.as_mut().poll(context).is_ready())).await;
        if over {
            return;
        }
        // What it waits for may come meanwhile.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn listed(store: &Arc<dyn MessageStore>, queue: &QueueKey) -> Vec<MessageId> {
    let all = Selection {
        after: None,
        limit: 1000,
        not_from: None,
        include_claimed: true,
        include_delayed: true,
    };
    let page = store.list(queue, all).await.expect("a page");
    page.messages.iter().map(|message| message.id).collect()
}

async fn delivered(store: &Arc<dyn MessageStore>, queue: &QueueKey) -> Vec<MessageId> {
    let claimed = store
        .claim(queue, &lease(None), 1000)
        .await
        .expect("an answer");
    claimed.map_or_else(Vec::new, |claim| {
        claim.messages.iter().map(|message| message.id).collect()
    })
}

#[tokio::test]
async fn a_post_that_is_abandoned_is_delivered_and_listed_or_neither() {
    let (world, q) = (World::new(), queue("q"));
    let store = world.open();
    for steps in 0..60 {
        abandon(store.post(&q, vec![message()]), steps % 6).await;
    }
    store.close().await.expect("it closes");
    let store = world.open();
    let (mut listed, mut delivered) = (listed(&store, &q).await, delivered(&store, &q).await);
    listed.sort_unstable();
    delivered.sort_unstable();
    assert!(listed.len() >= 50, "{}", listed.len());
    assert_eq!(listed, delivered);
}

#[tokio::test]
async fn a_purge_that_is_abandoned_leaves_no_message_in_one_place_alone() {
    for steps in 0..8 {
        let (world, q) = (World::new(), queue("q"));
        let store = world.open();
        store
            .post(&q, vec![message(), message()])
            .await
            .expect("posted");
        abandon(store.purge(&q), steps).await;
        store.close().await.expect("it closes");
        let store = world.open();
        let left = listed(&store, &q).await.len();
        assert_eq!(left, delivered(&store, &q).await.len(), "{steps} steps");
        assert_eq!(left, if steps == 0 { 2 } else { 0 }, "{steps} steps");
    }
}

#[tokio::test]
async fn a_claim_that_is_abandoned_hands_its_dead_letters_over() {
    for steps in 0..10 {
        let (world, q, dead) = (World::new(), queue("q"), queue("dead"));
        let store = world.open();
        store.post(&q, vec![message()]).await.expect("posted");
        let policy = DeadLetter {
            queue: dead.clone(),
            max_claims: 1,
            ttl: None,
            stands: Stands::Last(0),
        };
        let first = lease(Some(policy.clone()));
        assert!(
            store
                .claim(&q, &first, 1)
                .await
                .expect("an answer")
                .is_some()
        );
        store.release_claim(&q, first.id).await.expect("released");
        abandon(store.claim(&q, &lease(Some(policy)), 1), steps).await;
        store.close().await.expect("it closes");
        let store = world.open();
        // It is in one of them, and there it is both listed and delivered once the last claim has ended.
        world.clock.advance(2 * MINUTE);
        let (here, there) = (listed(&store, &q).await, listed(&store, &dead).await);
        assert_eq!(here.len() + there.len(), 1, "{steps} steps");
        assert_eq!(delivered(&store, &dead).await, there, "{steps} steps");
        let gone = store.delete(&dead, &there, Precondition::None).await;
        assert_eq!(gone.expect("deleted"), there.len());
    }
}
