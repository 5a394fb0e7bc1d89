//! Messages that the disk gives back otherwise than they were written.
//!
//! SQLite notices damage to its own structure, not to what it keeps. A body that is damaged would make the whole answer that
//! it is in unreadable. So each row has a checksum, which is compared when a message is read: one that is damaged is left out
//! of every answer, named in the log and counted, and the others are given. It is not claimed or popped again, can be
//! deleted by its id, counts in statistics, and goes when it expires.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use isimud_contract::{ClientId, Message, MessageId, QueueKey};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Damaged messages that are remembered, so that each is told once.
const CACHE_CAPACITY: usize = 10_000;

/// The checksum of what does not change of a message.
#[expect(
    clippy::cast_possible_wrap,
    reason = "SQLite has signed numbers only; it is compared, not counted"
)]
pub(crate) fn sum(message: &Message) -> i64 {
    let mut sum = xxh3_64_with_seed(message.id.0.as_bytes(), u64::from(message.sealed));
    let client = match &message.client {
        ClientId::Uuid(id) => id.as_bytes().as_slice(),
        ClientId::Text(text) => text.as_bytes(),
    };
    sum = xxh3_64_with_seed(client, sum);
    if let Some(checksum) = &message.checksum {
        sum = xxh3_64_with_seed(&checksum.0, sum);
    }
    xxh3_64_with_seed(&message.body, sum) as i64
}

/// What the sessions of a store have found damaged.
#[derive(Debug, Default)]
pub(crate) struct Damage {
    count: AtomicU64,
    known: Mutex<HashSet<i64>>,
}

impl Damage {
    /// How many messages there were.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Tells of a damaged message, once.
    pub(crate) fn note(&self, queue: &QueueKey, at: i64, id: Option<MessageId>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= CACHE_CAPACITY || !known.insert(at) {
            return;
        }
        drop(known);
        self.count.fetch_add(1, Ordering::Relaxed);
        let id = id.map_or_else(|| "unreadable".to_owned(), |id| id.0.to_string());
        tracing::error!(%queue, message = %id, row = at, "a message of the embedded store is damaged and is left out");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use isimud_contract::{
        ClaimId, Lease, MessageStore, Precondition, ProjectId, QueueName, Selection, SystemClock,
    };
    use uuid::Uuid;

    use super::*;
    use crate::{Config, SqliteStore};

    #[tokio::test]
    async fn a_damaged_message_is_left_out_and_its_neighbours_are_given() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("isimud.db");
        let open = || SqliteStore::open(Config::file(&path), Arc::new(SystemClock));
        let queue = QueueKey::new(
            ProjectId::parse("p").expect("a project"),
            QueueName::parse("q").expect("a name"),
        );
        let message = |number: u32| {
            let client = ClientId::Uuid(Uuid::nil());
            let body = Bytes::from(format!("\"body {number}\""));
            let ttl = Duration::from_secs(600);
            Message::new(MessageId(Uuid::now_v7()), client, ttl, body)
        };
        let messages: Vec<Message> = (0..4).map(message).collect();
        let ids: Vec<MessageId> = messages.iter().map(|message| message.id).collect();
        let store = open().expect("a new store");
        store.post(&queue, messages).await.expect("they are kept");
        store.close().await.expect("it is closed");
        drop(store);
        rusqlite::Connection::open(&path)
            .and_then(|file| {
                let bodies = "UPDATE message SET body = x'22626f64' WHERE id = ?";
                file.execute(bodies, [ids[0].0.as_bytes()])?;
                let clients = "UPDATE message SET client = x'00' WHERE id = ?";
                file.execute(clients, [ids[2].0.as_bytes()])
            })
            .expect("the file is a database");

        let store = open().expect("SQLite sees nothing wrong");
        let found = |messages: &[Message]| messages.iter().map(|one| one.id).collect::<Vec<_>>();
        for include_claimed in [true, false] {
            let selection = Selection {
                after: None,
                limit: 10,
                not_from: None,
                include_claimed,
                include_delayed: true,
            };
            let page = store.list(&queue, selection).await.expect("a page");
            assert_eq!(found(&page.messages), [ids[1], ids[3]]);
        }
        assert_eq!(store.condition().damaged, 2);
        let got = store.get(&queue, &ids).await.expect("messages");
        assert_eq!(found(&got), [ids[1], ids[3]]);
        let lease = Lease {
            id: ClaimId(Uuid::now_v7()),
            ttl: Duration::from_secs(60),
            grace: Duration::from_secs(60),
            dead_letter: None,
        };
        let claim = store.claim(&queue, &lease, 1).await.expect("a claim");
        let claim = claim.expect("a whole message");
        assert_eq!(found(&claim.messages), [ids[1]]);
        let popped = store.pop(&queue, 4).await.expect("messages");
        assert_eq!(found(&popped), [ids[3]]);
        let held = store
            .find_claim(&queue, lease.id)
            .await
            .expect("it is live");
        assert_eq!(found(&held.messages), [ids[1]]);
        assert_eq!(store.condition().damaged, 2, "each is told once");
        let deleted = store.delete(&queue, &ids, Precondition::None).await;
        assert_eq!(deleted.expect("they go"), 3);
        let stats = store.stats(&queue).await.expect("statistics");
        assert_eq!((stats.free, stats.claimed), (0, 0));
    }
}
