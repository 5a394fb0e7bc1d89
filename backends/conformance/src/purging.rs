//! A purge leaves nothing: no message, no claim, no old marker. A removed queue is one that never was.

use isimud_contract::{ErrorKind, Precondition, Resource};

use crate::bench::{Bench, minutes};
use crate::outcome::{Outcome, Step, refused};
use crate::promise::promises;
use crate::steps::{ids, sorted};

promises! {
    a_purge_takes_free_held_and_delayed_messages,
    a_removal_takes_free_held_and_delayed_messages,
    purged_claims_do_not_exist,
    removed_claims_do_not_exist,
    a_purged_message_never_comes_back,
    a_purged_message_is_in_no_later_claim,
    other_queues_are_left_alone,
    an_empty_queue_is_purged_and_removed_in_vain,
    a_purged_queue_works_on,
    a_removed_queue_works_again,
    a_purged_id_may_be_posted_again,
    a_large_queue_is_purged_whole,
}

const NO_CLAIM: ErrorKind = ErrorKind::NotFound(Resource::Claim);

/// Posts a held, a delayed and a free message.
async fn fill(bench: &Bench) -> Step<()> {
    bench.post(2).await?;
    bench.take(2).await?;
    bench.post_one(bench.delayed(minutes(2))).await?;
    bench.post(1).await?;
    Ok(())
}

async fn assert_empty(bench: &Bench) -> Step<()> {
    if bench.exact().is_ok() {
        assert!(bench.stats().await?.is_empty());
    }
    assert!(bench.claim(10).await?.is_none());
    assert!(bench.pop(10).await?.is_empty());
    if bench.capabilities().browse {
        assert!(bench.all().await?.is_empty());
    }
    Ok(())
}

async fn a_purge_takes_free_held_and_delayed_messages(bench: Bench) -> Outcome {
    fill(&bench).await?;
    bench.purge().await?;
    assert_empty(&bench).await?;
    Ok(())
}

async fn a_removal_takes_free_held_and_delayed_messages(bench: Bench) -> Outcome {
    fill(&bench).await?;
    bench.drop_queue().await?;
    assert_empty(&bench).await?;
    Ok(())
}

async fn purged_claims_do_not_exist(bench: Bench) -> Outcome {
    let posted = bench.post(2).await?;
    let lease = bench.lease();
    bench.take_on(&lease, 2).await?;
    bench.purge().await?;
    refused(bench.find(lease.id).await, NO_CLAIM)?;
    refused(bench.renew(&lease).await, NO_CLAIM)?;
    bench.release(lease.id).await?;
    assert_eq!(bench.settle(&posted, lease.id).await?, 0);
    Ok(())
}

/// In the reference a queue that is created again has claimed messages (quirk Q-CLM-6).
async fn removed_claims_do_not_exist(bench: Bench) -> Outcome {
    bench.post(2).await?;
    let lease = bench.lease();
    bench.take_on(&lease, 2).await?;
    bench.drop_queue().await?;
    bench.post(1).await?;
    refused(bench.find(lease.id).await, NO_CLAIM)?;
    refused(bench.renew(&lease).await, NO_CLAIM)?;
    bench.exact()?;
    assert_eq!(bench.counts().await?, (1, 0));
    Ok(())
}

async fn a_purged_message_never_comes_back(bench: Bench) -> Outcome {
    fill(&bench).await?;
    bench.purge().await?;
    bench.advance(minutes(10)).await;
    assert_empty(&bench).await?;
    Ok(())
}

/// A store that numbers its claims must not give the number of a purged claim to the next one.
async fn a_purged_message_is_in_no_later_claim(bench: Bench) -> Outcome {
    for _ in 0..5 {
        bench.post(3).await?;
        bench.take(2).await?;
        bench.purge().await?;
        let posted = bench.post(2).await?;
        let claim = bench.take(5).await?;
        let found = bench.find(claim.id).await?;
        assert_eq!(sorted(ids(&found.messages)), posted);
        if bench.exact().is_ok() {
            assert_eq!(bench.counts().await?, (0, 2));
        }
    }
    Ok(())
}

async fn other_queues_are_left_alone(bench: Bench) -> Outcome {
    let others = [
        bench.on("other"),
        bench.on("queue.too"),
        bench.at("other", bench.queue.name.as_str()),
    ];
    for queue in others.iter().chain([&bench]) {
        fill(queue).await?;
    }
    bench.purge().await?;
    bench.drop_queue().await?;
    for other in &others {
        assert_eq!(other.counts().await?, (2, 2));
    }
    Ok(())
}

async fn an_empty_queue_is_purged_and_removed_in_vain(bench: Bench) -> Outcome {
    bench.purge().await?;
    bench.drop_queue().await?;
    bench.drop_queue().await?;
    assert_empty(&bench).await?;
    Ok(())
}

async fn a_purged_queue_works_on(bench: Bench) -> Outcome {
    bench.ordered()?;
    fill(&bench).await?;
    bench.purge().await?;
    let posted = bench.post(4).await?;
    assert_eq!(bench.listed().await?, posted);
    let claim = bench.take(2).await?;
    assert_eq!(ids(&claim.messages), posted[..2]);
    assert_eq!(bench.settle(&posted[..2], claim.id).await?, 2);
    assert_eq!(bench.pop(2).await?, posted[2..]);
    Ok(())
}

async fn a_removed_queue_works_again(bench: Bench) -> Outcome {
    bench.ordered()?;
    fill(&bench).await?;
    bench.drop_queue().await?;
    let posted = bench.post(3).await?;
    assert_eq!(bench.listed().await?, posted);
    assert_eq!(ids(&bench.take(2).await?.messages), posted[..2]);
    assert_eq!(
        bench.delete(&posted[2..], Precondition::Unclaimed).await?,
        1
    );
    assert_eq!(bench.counts().await?, (0, 2));
    Ok(())
}

async fn a_purged_id_may_be_posted_again(bench: Bench) -> Outcome {
    let message = bench.message();
    bench.post_one(message.clone()).await?;
    bench.take(1).await?;
    bench.purge().await?;
    bench.post_one(message.clone()).await?;
    bench.exact()?;
    assert_eq!(bench.counts().await?, (1, 0));
    assert_eq!(bench.listed().await?, [message.id]);
    Ok(())
}

async fn a_large_queue_is_purged_whole(bench: Bench) -> Outcome {
    bench.post(5000).await?;
    bench.take(1000).await?;
    bench.purge().await?;
    assert_empty(&bench).await?;
    Ok(())
}
