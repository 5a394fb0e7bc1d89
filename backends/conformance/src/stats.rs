//! The statistics count live messages, and name the first and the last of them, whoever read what before.

use isimud_contract::{MessageId, Precondition, Stats, StatsMessage};

use crate::bench::{Bench, MINUTE, minutes};
use crate::outcome::{Outcome, Step};
use crate::promise::promises;

promises! {
    an_empty_queue_counts_nothing,
    an_emptied_queue_counts_nothing,
    free_and_held_messages_are_counted_apart,
    released_messages_count_as_free,
    messages_of_an_ended_claim_count_as_free,
    expired_messages_do_not_count,
    expired_messages_of_an_ended_claim_do_not_count,
    deletes_and_pops_are_counted,
    statistics_name_the_oldest_and_the_newest_message,
    held_messages_are_edges_too,
    a_single_message_is_the_oldest_and_the_newest,
    expired_messages_are_no_edges,
    an_edge_says_when_it_was_posted,
}

/// The first and the last message.
async fn edges(bench: &Bench) -> Step<[Option<MessageId>; 2]> {
    bench.exact()?;
    let Stats { oldest, newest, .. } = bench.stats().await?;
    Ok([oldest, newest].map(|edge| edge.map(|edge| edge.id)))
}

async fn an_empty_queue_counts_nothing(bench: Bench) -> Outcome {
    assert!(bench.stats().await?.is_empty());
    Ok(())
}

async fn an_emptied_queue_counts_nothing(bench: Bench) -> Outcome {
    let posted = bench.post(3).await?;
    bench.delete(&posted, Precondition::None).await?;
    assert!(bench.stats().await?.is_empty());
    Ok(())
}

async fn free_and_held_messages_are_counted_apart(bench: Bench) -> Outcome {
    bench.post(5).await?;
    assert_eq!(bench.counts().await?, (5, 0));
    bench.take(2).await?;
    assert_eq!(bench.counts().await?, (3, 2));
    bench.take(10).await?;
    assert_eq!(bench.counts().await?, (0, 5));
    Ok(())
}

async fn released_messages_count_as_free(bench: Bench) -> Outcome {
    bench.post(3).await?;
    let claim = bench.take(2).await?;
    bench.release(claim.id).await?;
    assert_eq!(bench.counts().await?, (3, 0));
    Ok(())
}

/// The statistics are the first to be asked, so nothing else can have put the queue in order.
async fn messages_of_an_ended_claim_count_as_free(bench: Bench) -> Outcome {
    bench.post(3).await?;
    let claim = bench.take(2).await?;
    bench.advance(claim.ttl).await;
    assert_eq!(bench.counts().await?, (3, 0));
    Ok(())
}

async fn expired_messages_do_not_count(bench: Bench) -> Outcome {
    let short = (0..4).map(|_| bench.living(MINUTE)).collect();
    bench.post_all(short).await?;
    bench.post(2).await?;
    bench.advance(MINUTE).await;
    assert_eq!(bench.counts().await?, (2, 0));
    Ok(())
}

async fn expired_messages_of_an_ended_claim_do_not_count(bench: Bench) -> Outcome {
    let short = (0..2).map(|_| bench.living(MINUTE)).collect();
    bench.post_all(short).await?;
    let claim = bench.take(2).await?;
    bench.post(1).await?;
    bench.advance(claim.ttl + MINUTE).await;
    assert_eq!(bench.counts().await?, (1, 0));
    Ok(())
}

async fn deletes_and_pops_are_counted(bench: Bench) -> Outcome {
    bench.ordered()?;
    let posted = bench.post(6).await?;
    bench.pop(1).await?;
    bench.take(2).await?;
    bench.delete(&posted[1..2], Precondition::None).await?;
    bench.delete(&posted[5..], Precondition::None).await?;
    assert_eq!(bench.counts().await?, (2, 1));
    Ok(())
}

async fn statistics_name_the_oldest_and_the_newest_message(bench: Bench) -> Outcome {
    bench.ordered()?;
    let [first, second, third, fourth] = bench.posted().await?;
    assert_eq!(edges(&bench).await?, [Some(first), Some(fourth)]);
    bench.delete(&[first, fourth], Precondition::None).await?;
    assert_eq!(edges(&bench).await?, [Some(second), Some(third)]);
    Ok(())
}

async fn held_messages_are_edges_too(bench: Bench) -> Outcome {
    bench.ordered()?;
    let [first, _, third] = bench.posted().await?;
    bench.take(3).await?;
    assert_eq!(edges(&bench).await?, [Some(first), Some(third)]);
    Ok(())
}

async fn a_single_message_is_the_oldest_and_the_newest(bench: Bench) -> Outcome {
    let [only] = bench.posted().await?;
    assert_eq!(edges(&bench).await?, [Some(only), Some(only)]);
    let stats = bench.stats().await?;
    assert_eq!(stats.oldest, stats.newest);
    Ok(())
}

/// The reference fails as long as the expired ones have not been removed (quirk Q-QUE-3).
async fn expired_messages_are_no_edges(bench: Bench) -> Outcome {
    bench.ordered()?;
    bench.post_one(bench.living(MINUTE)).await?;
    let [first, last] = bench.posted().await?;
    bench.post_one(bench.living(MINUTE)).await?;
    bench.advance(MINUTE).await;
    assert_eq!(edges(&bench).await?, [Some(first), Some(last)]);
    Ok(())
}

async fn an_edge_says_when_it_was_posted(bench: Bench) -> Outcome {
    bench.to_the_millisecond()?;
    bench.exact()?;
    let start = bench.now();
    let [first] = bench.posted().await?;
    bench.advance(minutes(3)).await;
    let [last] = bench.posted().await?;
    bench.advance(minutes(4)).await;
    let stats = bench.stats().await?;
    let oldest = StatsMessage {
        id: first,
        age: minutes(7),
        posted: start,
    };
    let newest = StatsMessage {
        id: last,
        age: minutes(4),
        posted: start.after(minutes(3)),
    };
    assert_eq!(stats.oldest, Some(oldest));
    assert_eq!(stats.newest, Some(newest));
    Ok(())
}
