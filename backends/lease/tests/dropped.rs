//! What nobody is told of is counted.

use std::sync::Arc;
use std::time::Duration;

use isimud_contract::{
    ClaimId, ClientId, Lease, ManualClock, Message, MessageId, MessageStore, Precondition,
    ProjectId, QueueKey, QueueName,
};
use isimud_lease::fake::{FakeServer, FaultProfile};
use isimud_lease::{Journal, Leased};
use isimud_sqlite::{Config, SqliteStore};
use uuid::Uuid;

const MINUTE: Duration = Duration::from_secs(60);

fn message(ttl: Duration) -> Message {
    let id = MessageId(Uuid::now_v7());
    Message::new(id, ClientId::Uuid(Uuid::nil()), ttl, "{}")
}

async fn claim(store: &dyn MessageStore, queue: &QueueKey) -> Vec<MessageId> {
    let lease = Lease {
        id: ClaimId(Uuid::now_v7()),
        ttl: MINUTE,
        grace: Duration::ZERO,
        dead_letter: None,
    };
    let claim = store.claim(queue, &lease, 20).await.expect("an answer");
    let messages = claim.map(|claim| claim.messages).unwrap_or_default();
    messages.iter().map(|message| message.id).collect()
}

#[tokio::test]
async fn a_delivery_that_is_dropped_before_its_message_expires_is_counted() {
    let clock = Arc::<ManualClock>::default();
    let ledgers = SqliteStore::open(Config::memory(), Arc::clone(&clock) as _).expect("a store");
    let server = FakeServer::new(Arc::clone(&clock) as _, FaultProfile::PLAIN, 1);
    let store = Leased::new(
        server.connect(),
        ledgers.ledger("pool"),
        Arc::clone(&clock) as _,
        Journal::On,
    );
    let queue = QueueKey::new(
        ProjectId::parse("p").expect("a project"),
        QueueName::parse("q").expect("a name"),
    );
    let (first, second, short) = (message(10 * MINUTE), message(10 * MINUTE), message(MINUTE));
    let posted = vec![first.clone(), short, second.clone()];
    store.post(&queue, posted).await.expect("a post");
    assert_eq!(store.condition().dropped, 0);

    // The broker delivers what was deleted by id, and what has ended.
    let deleted = store.delete(&queue, &[first.id], Precondition::None).await;
    assert_eq!(deleted.expect("an answer"), 1);
    clock.advance(2 * MINUTE);
    assert_eq!(claim(&store, &queue).await, [second.id]);
    assert_eq!(store.condition().dropped, 1);

    // The same post once more, when it is done with.
    let deleted = store.delete(&queue, &[second.id], Precondition::None).await;
    assert_eq!(deleted.expect("an answer"), 1);
    store.post(&queue, vec![second]).await.expect("a post");
    assert!(claim(&store, &queue).await.is_empty());
    assert_eq!(store.condition().dropped, 2);
}
