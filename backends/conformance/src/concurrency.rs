//! Calls may overlap freely. Whatever happens at the same time, every message is delivered and settled once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use isimud_contract::{MessageId, Precondition};

use crate::bench::Bench;
use crate::outcome::{Abort, Outcome, Step, together};
use crate::promise::promises;
use crate::steps::{Counts, ids, sorted};

promises! {
    producers_and_consumers_meet,
    messages_that_are_given_back_are_settled_once,
    claimers_and_poppers_share_nothing,
    one_of_many_deletes_counts,
    one_of_many_holders_settles,
    the_order_of_each_producer_is_kept,
    many_queues_at_once,
    a_purge_among_posts_and_claims_leaves_no_half_message,
}

/// Claims and settles until all workers together have settled `total` messages. One claim in `give_back` is released.
async fn work(
    bench: Bench,
    settled: Arc<AtomicUsize>,
    total: usize,
    give_back: usize,
) -> Step<Vec<MessageId>> {
    const FAR_TOO_OFTEN: usize = 20_000;
    let mut own = Vec::new();
    for turn in 1..=FAR_TOO_OFTEN {
        let Some(claim) = bench.claim(3).await? else {
            if settled.load(Ordering::SeqCst) == total {
                return Ok(own);
            }
            tokio::task::yield_now().await;
            continue;
        };
        if turn % give_back == 0 {
            bench.release(claim.id).await?;
            continue;
        }
        let ids = ids(&claim.messages);
        let gone = bench.settle(&ids, claim.id).await?;
        assert_eq!(gone, ids.len());
        settled.fetch_add(gone, Ordering::SeqCst);
        own.extend(ids);
    }
    Err(Abort::Unexpected("a message that nobody can claim".into()))
}

async fn producers_and_consumers_meet(bench: Bench) -> Outcome {
    const PRODUCERS: usize = 4;
    const POSTS: usize = 25;
    const SIZE: usize = 5;
    let settled = Arc::<AtomicUsize>::default();
    let producers = (0..PRODUCERS).map(|_| {
        let bench = bench.clone();
        tokio::spawn(async move {
            let mut posted = Vec::new();
            for _ in 0..POSTS {
                posted.extend(bench.post(SIZE).await?);
            }
            Ok::<_, Abort>(posted)
        })
    });
    let producers: Vec<_> = producers.collect();
    let total = PRODUCERS * POSTS * SIZE;
    let consumers = (0..4).map(|_| work(bench.clone(), Arc::clone(&settled), total, usize::MAX));
    let consumed = together(consumers).await?.concat();
    let mut posted = Vec::new();
    for producer in producers {
        posted.extend(producer.await.expect("a producer ends")?);
    }
    assert_eq!(sorted(consumed), sorted(posted));
    assert!(bench.stats().await?.is_empty());
    Ok(())
}

async fn messages_that_are_given_back_are_settled_once(bench: Bench) -> Outcome {
    let posted = bench.post(200).await?;
    let settled = Arc::<AtomicUsize>::default();
    let workers = (0..8).map(|_| work(bench.clone(), Arc::clone(&settled), 200, 2));
    let consumed = together(workers).await?.concat();
    assert_eq!(sorted(consumed), sorted(posted));
    assert!(bench.stats().await?.is_empty());
    Ok(())
}

async fn claimers_and_poppers_share_nothing(bench: Bench) -> Outcome {
    let posted = bench.post(300).await?;
    let delivered = together((0..8).map(|worker| {
        let bench = bench.clone();
        async move {
            let mut delivered = Vec::new();
            loop {
                let more = if worker % 2 == 0 {
                    bench.pop(3).await?
                } else {
                    let claim = bench.claim(3).await?;
                    claim.map_or_else(Vec::new, |claim| ids(&claim.messages))
                };
                if more.is_empty() {
                    return Ok(delivered);
                }
                delivered.extend(more);
            }
        }
    }))
    .await?;
    assert_eq!(sorted(delivered.concat()), sorted(posted));
    Ok(())
}

async fn one_of_many_deletes_counts(bench: Bench) -> Outcome {
    let posted = bench.post(20).await?;
    let deleted = together((0..8).map(|_| {
        let (bench, ids) = (bench.clone(), posted.clone());
        async move { bench.delete(&ids, Precondition::None).await }
    }))
    .await?;
    assert_eq!(deleted.iter().sum::<usize>(), 20);
    assert_eq!(deleted.iter().filter(|count| **count > 0).count(), 1);
    Ok(())
}

async fn one_of_many_holders_settles(bench: Bench) -> Outcome {
    let posted = bench.post(20).await?;
    let claim = bench.take(20).await?.id;
    let settled = together((0..8).map(|_| {
        let (bench, ids) = (bench.clone(), posted.clone());
        async move { bench.settle(&ids, claim).await }
    }))
    .await?;
    assert_eq!(settled.iter().sum::<usize>(), 20);
    assert!(bench.stats().await?.is_empty());
    Ok(())
}

async fn the_order_of_each_producer_is_kept(bench: Bench) -> Outcome {
    bench.ordered()?;
    let posted = together((0..4).map(|_| {
        let bench = bench.clone();
        async move {
            let mut posted = Vec::new();
            for _ in 0..25 {
                posted.extend(bench.post(2).await?);
            }
            Ok(posted)
        }
    }))
    .await?;
    let all = bench.all().await?;
    assert_eq!(all.len(), 200);
    for own in posted {
        let order: Vec<_> = all.iter().filter(|id| own.contains(id)).copied().collect();
        assert_eq!(order, own);
    }
    Ok(())
}

async fn many_queues_at_once(bench: Bench) -> Outcome {
    together((0..32).map(|number| {
        let bench = bench.on(&format!("queue-{number}"));
        async move {
            for round in 0..5 {
                let posted = bench.post(4).await?;
                let claim = bench.take(4).await?;
                assert_eq!(sorted(ids(&claim.messages)), posted, "round {round}");
                assert_eq!(bench.settle(&posted, claim.id).await?, 4);
            }
            if bench.counted().is_ok() {
                assert!(bench.stats().await?.is_empty());
            }
            Ok(())
        }
    }))
    .await?;
    Ok(())
}

async fn a_purge_among_posts_and_claims_leaves_no_half_message(bench: Bench) -> Outcome {
    together((0..12).map(|worker| {
        let bench = bench.clone();
        async move {
            for _ in 0..10 {
                match worker % 4 {
                    0 => bench.purge().await?,
                    1 => drop(bench.claim(5).await?),
                    _ => drop(bench.post(5).await?),
                }
            }
            Ok(())
        }
    }))
    .await?;
    let all = bench.all().await?;
    let Counts { free, claimed, .. } = bench.counts().await?;
    assert_eq!(free + claimed, all.len() as u64);
    assert_eq!(all.len() % 5, 0, "a part of a post is left");
    let mut delivered = Vec::new();
    while let Some(claim) = bench.claim(20).await? {
        delivered.extend(ids(&claim.messages));
    }
    assert_eq!(delivered.len() as u64, free);
    assert_eq!(bench.get(&all).await?.len(), all.len());
    Ok(())
}
