//! The index of stores has what is true, and forgets what is not: never too early, and in the end surely.

use std::time::{Duration, Instant};

use isimud_contract::{
    Metadata, Placement, PoolName, QueueKey, Queues, StoreId, Subscription, SubscriptionId,
    Subscriptions,
};
use isimud_testing::redis::Servers;
use uuid::Uuid;

use crate::{Bench, on, queue};

fn fast() -> StoreId {
    StoreId::Pool(PoolName::parse("fast").unwrap())
}

impl Bench {
    async fn create(&self, name: &str) {
        let (placement, nothing) = (Placement::at(fast()), Metadata::new());
        let store = &self.store;
        let created = store.create_queue(&queue(name), &nothing, &placement).await;
        assert!(created.unwrap());
    }

    async fn walk(&self) -> Vec<QueueKey> {
        self.store.queues_in(&fast(), None, 100).await.unwrap()
    }

    async fn members(&mut self, key: &str) -> Vec<String> {
        let mut command = redis::cmd("ZRANGE");
        command.arg(key).arg(0).arg(-1);
        command.query_async(&mut self.beside).await.unwrap()
    }

    async fn index(&mut self) -> Vec<String> {
        self.members("t:{:homes}index").await
    }

    /// Makes an entry as a server does that is about to write a record, at a moment.
    async fn enter(&mut self, entry: &str, age: Duration) {
        let (seconds, micros): (u64, u64) = redis::cmd("TIME")
            .query_async(&mut self.beside)
            .await
            .unwrap();
        let entered = u128::from(seconds) * 1_000 + u128::from(micros) / 1_000 - age.as_millis();
        for (key, score) in [("t:{:homes}index", 0), ("t:{:homes}entered", entered)] {
            let mut command = redis::cmd("ZADD");
            command.arg(key).arg(score.to_string()).arg(entry);
            let () = command.query_async(&mut self.beside).await.unwrap();
        }
    }
}

const LONG_AGO: Duration = Duration::from_secs(61);

#[test]
fn an_entry_whose_record_may_be_under_way_stays() {
    on(Servers::plain(), |mut bench| async move {
        bench.enter("fast/p/q", Duration::from_secs(50)).await;
        assert_eq!(bench.walk().await, []);
        assert_eq!(bench.index().await, ["fast/p/q"]);
        bench.create("q").await;
        assert_eq!(bench.walk().await, [queue("q")]);
    });
}

#[test]
fn an_old_entry_without_a_record_is_struck_off_by_its_reader() {
    on(Servers::plain(), |mut bench| async move {
        bench.create("stays").await;
        bench.create("goes").await;
        bench.store.delete_queue(&queue("goes")).await.unwrap();
        assert_eq!(bench.walk().await, [queue("stays")]);
        assert_eq!(bench.index().await, ["fast/p/goes", "fast/p/stays"]);
        bench.enter("fast/p/goes", LONG_AGO).await;
        bench.enter("fast/p/stays", LONG_AGO).await;
        assert_eq!(bench.walk().await, [queue("stays")]);
        assert_eq!(bench.index().await, ["fast/p/stays"]);
    });
}

/// A queue that lives for a minute must not leave an entry for ever.
#[test]
fn old_entries_are_looked_at_by_the_sweep() {
    on(Servers::plain(), |mut bench| async move {
        bench.create("stays").await;
        bench.enter("fast/p/stays", LONG_AGO).await;
        bench.enter("fast/p/gone", LONG_AGO).await;
        bench.enter("/p/stays", LONG_AGO).await;
        bench.enter("fast/p/young", Duration::ZERO).await;
        let begun = Instant::now();
        while bench.members("t:{:homes}entered").await != ["fast/p/young"] {
            assert!(begun.elapsed() < Duration::from_secs(20), "nobody sweeps");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(bench.index().await, ["fast/p/stays", "fast/p/young"]);
    });
}

/// What a server began and was held up in for too long is refused: its entry may be gone.
#[test]
fn a_record_is_not_written_too_late() {
    on(Servers::plain(), |mut bench| async move {
        let mut create = redis::cmd("EVAL");
        create.arg(include_str!("../../src/scripts/queue_create.lua"));
        create.arg(2).arg("t:{p}records").arg("t:{p}names");
        create.arg("q").arg("12345678{}");
        for (deadline, answer, found) in [("1000", -1, false), ("99999999999999", 1, true)] {
            let mut create = create.clone();
            create.arg(deadline).arg("t:changes").arg("p/q");
            let told: i64 = create.query_async(&mut bench.beside).await.unwrap();
            assert_eq!(told, answer);
            let record = bench.store.find_queue(&queue("q")).await.unwrap();
            assert_eq!(record.is_some(), found);
        }
    });
}

#[test]
fn subscriptions_that_nobody_asks_for_end_by_themselves() {
    on(Servers::plain(), |mut bench| async move {
        let ttl = Duration::from_secs(600);
        let subscription = Subscription {
            id: SubscriptionId(Uuid::from_u128(7)),
            source: queue("q"),
            subscriber: "http://a".into(),
            ttl,
            age: Duration::ZERO,
            options: Metadata::new(),
            confirmed: false,
        };
        let created = bench.store.create_subscription(&subscription).await;
        assert_eq!(created.unwrap(), None);
        for letter in ["s", "u", "i", "e"] {
            let mut command = redis::cmd("PTTL");
            command.arg(format!("t:{{p/q}}{letter}"));
            let left: i64 = command.query_async(&mut bench.beside).await.unwrap();
            let left = Duration::from_millis(left.try_into().expect("it ends"));
            assert!(left > ttl && left < ttl + Duration::from_secs(3_601));
        }
    });
}
