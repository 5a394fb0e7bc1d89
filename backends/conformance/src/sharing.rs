//! Two stores that are open at once on the same data are one: what one does holds for the other, and is told to it.
//!
//! Where a place has room for one store alone, all of this is ignored.

use std::sync::Arc;
use std::time::Duration;

use isimud_contract::{
    Change, ErrorKind, FlavorName, MembershipChange, QueueKey, SubscriptionChange, Watcher,
};
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::bench::Bench;
use crate::management::metadata;
use crate::outcome::{Abort, Outcome, Step, refused, together};
use crate::pools::{pool, pool_name};
use crate::promise::promises;
use crate::steps::{ids, sorted};

promises! {
    a_new_queue_is_told_to_the_other_store,
    a_changed_queue_is_told_to_the_other_store,
    a_deleted_queue_is_told_to_the_other_store,
    a_store_is_told_of_its_own_changes,
    changes_of_pools_and_flavors_are_told_to_the_other_store,
    changes_of_subscriptions_are_told_to_the_other_store,
    what_is_told_can_be_read_at_once,
    of_two_updates_one_is_made,
    messages_are_delivered_by_one_of_two_stores,
    a_claim_holds_in_both_stores,
}

/// How long a change may take to be told, a busy machine included; the contract says a moment.
const MOMENT: Duration = Duration::from_secs(20);

/// A change, for keeps.
#[derive(Debug, Clone, PartialEq)]
enum News {
    Queue(QueueKey),
    Pools,
    All,
}

impl From<Change<'_>> for News {
    fn from(change: Change<'_>) -> Self {
        match change {
            Change::Queue(queue) => Self::Queue(queue.clone()),
            Change::Pools => Self::Pools,
            Change::All => Self::All,
        }
    }
}

/// What a store is told, as it is told it.
struct Told(UnboundedReceiver<News>);

impl Told {
    /// Listens to what changes, and goes on when it surely hears of it: from then on nothing is missed.
    async fn by(bench: &Bench) -> Step<Self> {
        let (tell, told) = unbounded_channel();
        // Nobody listens any more once the trial is over.
        let watcher: Watcher = Arc::new(move |change| drop(tell.send(change.into())));
        bench.management()?.watch(watcher)?;
        let mut told = Self(told);
        let probe = bench.on("probe");
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < MOMENT {
            probe.management()?.delete_queue(&probe.queue).await?;
            probe.create(json!({})).await?;
            let heard = tokio::time::timeout(
                MOMENT / 100,
                told.hears_of(&News::Queue(probe.queue.clone())),
            )
            .await;
            if heard.is_ok_and(|heard| heard) {
                return Ok(told);
            }
        }
        Err(Abort::Unexpected("no change is told".into()))
    }

    async fn hears_of(&mut self, news: &News) -> bool {
        while let Some(told) = self.0.recv().await {
            if told == *news {
                return true;
            }
        }
        false
    }

    /// Waits until it is told that the queue has changed.
    async fn changed(&mut self, queue: &QueueKey) -> Step<()> {
        self.hears(News::Queue(queue.clone())).await
    }

    async fn hears(&mut self, news: News) -> Step<()> {
        match tokio::time::timeout(MOMENT, self.hears_of(&news)).await {
            Ok(true) => Ok(()),
            _ => Err(Abort::Unexpected(format!(
                "{news:?} changed and nobody said"
            ))),
        }
    }
}

async fn a_new_queue_is_told_to_the_other_store(bench: Bench) -> Outcome {
    let other = bench.beside().await?;
    let mut told = Told::by(&other).await?;
    bench.create(json!({})).await?;
    told.changed(&bench.queue).await?;
    Ok(())
}

async fn a_changed_queue_is_told_to_the_other_store(bench: Bench) -> Outcome {
    let other = bench.beside().await?;
    let record = bench.create(json!({"n": 1})).await?;
    let mut told = Told::by(&other).await?;
    bench.update(json!({"n": 2}), record.version).await?;
    told.changed(&bench.queue).await?;
    Ok(())
}

async fn a_deleted_queue_is_told_to_the_other_store(bench: Bench) -> Outcome {
    let other = bench.beside().await?;
    bench.create(json!({})).await?;
    let mut told = Told::by(&other).await?;
    let deleted = bench.management()?.delete_queue(&bench.queue).await?;
    assert!(deleted.is_some());
    told.changed(&bench.queue).await?;
    Ok(())
}

async fn a_store_is_told_of_its_own_changes(bench: Bench) -> Outcome {
    let other = bench.beside().await?;
    let mut told = Told::by(&other).await?;
    other.create(json!({})).await?;
    told.changed(&bench.queue).await?;
    Ok(())
}

async fn changes_of_pools_and_flavors_are_told_to_the_other_store(bench: Bench) -> Outcome {
    let other = bench.beside().await?;
    let mut told = Told::by(&other).await?;
    let store = bench.management()?;
    let [version] = bench.register(["p"]).await?;
    told.hears(News::Pools).await?;
    store.save_pool(&pool("p"), Some(version)).await?;
    told.hears(News::Pools).await?;
    bench
        .save_flavor("f", &["p"], MembershipChange::Add)
        .await?;
    told.hears(News::Pools).await?;
    let flavor = FlavorName::parse("f").expect("a name");
    assert!(store.delete_flavor(&bench.queue.project, &flavor).await?);
    told.hears(News::Pools).await?;
    assert!(store.delete_pool(&pool_name("p")).await?);
    told.hears(News::Pools).await?;
    Ok(())
}

async fn changes_of_subscriptions_are_told_to_the_other_store(bench: Bench) -> Outcome {
    let other = bench.beside().await?;
    let mut told = Told::by(&other).await?;
    let store = bench.management()?;
    let new = bench.subscribe(1, "http://a").await?;
    told.changed(&bench.queue).await?;
    let nothing = SubscriptionChange::default();
    store
        .update_subscription(&bench.queue, new.id, &nothing)
        .await?;
    told.changed(&bench.queue).await?;
    store
        .confirm_subscription(&bench.queue, new.id, true)
        .await?;
    told.changed(&bench.queue).await?;
    assert!(bench.unsubscribe(1).await?);
    told.changed(&bench.queue).await?;
    store.remove_subscriptions(&bench.queue).await?;
    told.changed(&bench.queue).await?;
    Ok(())
}

/// So that whoever forgets what it is told, and reads it again, is not left with what was before.
async fn what_is_told_can_be_read_at_once(bench: Bench) -> Outcome {
    let other = bench.beside().await?;
    let mut version = bench.create(json!({"n": 0})).await?.version;
    let mut told = Told::by(&other).await?;
    for number in 1..20 {
        let update = bench.update(json!({"n": number}), version).await?;
        version = update.ok_or_else(|| Abort::Unexpected("an update is refused".into()))?;
        told.changed(&bench.queue).await?;
        assert_eq!(
            other.found().await?.metadata,
            metadata(json!({"n": number}))
        );
    }
    Ok(())
}

async fn of_two_updates_one_is_made(bench: Bench) -> Outcome {
    let other = bench.beside().await?;
    let mut version = bench.create(json!({})).await?.version;
    for _ in 0..20 {
        let both = [bench.clone(), other.clone()].into_iter().enumerate();
        let answers = together(both.map(|(at, bench)| async move {
            let update = bench.update(json!({ "by": at }), version);
            update.await
        }));
        let made: Vec<u64> = answers.await?.into_iter().flatten().collect();
        assert_eq!(made.len(), 1, "both updates or none were made");
        assert_eq!(other.found().await?, bench.found().await?);
        version = made[0];
    }
    Ok(())
}

async fn messages_are_delivered_by_one_of_two_stores(bench: Bench) -> Outcome {
    let other = bench.beside().await?;
    let mut posted = bench.post(50).await?;
    posted.extend(other.post(50).await?);
    let takers = (0..8).map(|at| {
        let bench = if at % 2 == 0 { &bench } else { &other }.clone();
        async move {
            let mut taken = Vec::new();
            while let Some(claim) = bench.claim(3).await? {
                taken.extend(ids(&claim.messages));
            }
            Ok(taken)
        }
    });
    let taken = together(takers).await?.concat();
    assert_eq!(sorted(taken), sorted(posted));
    Ok(())
}

async fn a_claim_holds_in_both_stores(bench: Bench) -> Outcome {
    let other = bench.beside().await?;
    let [id] = bench.posted().await?;
    let claim = bench.take(1).await?;
    assert_eq!(other.claim(1).await?, None);
    assert_eq!(other.pop(1).await?, []);
    let kept = other
        .delete(&[id], isimud_contract::Precondition::Unclaimed)
        .await;
    refused(kept, ErrorKind::Claimed)?;
    other.release(claim.id).await?;
    assert_eq!(ids(&bench.take(1).await?.messages), [id]);
    Ok(())
}
