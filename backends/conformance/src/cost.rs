//! A queue works as before with very many messages in front that cannot be delivered.
//!
//! Nothing is measured here: a store that walks over them again and again shows it by how long these trials take, and
//! one that runs into a limit of its own by failing them.

use isimud_contract::{Lease, Selection};

use crate::bench::{Bench, HOUR, minutes};
use crate::outcome::{Outcome, Step};
use crate::promise::promises;
use crate::steps::{first, ids};

promises! {
    fifty_thousand_held_messages_in_front_are_no_obstacle,
    fifty_thousand_delayed_messages_in_front_are_no_obstacle,
    one_claim_may_hold_a_thousand_messages,
    a_claim_asks_for_more_than_there_is,
}

const BATCH: usize = 5_000;
const BATCHES: usize = 10;
const IN_FRONT: u64 = 50_000;

/// Uses the free messages at the end of a queue, one in each way.
async fn use_the_rest(bench: &Bench) -> Step<()> {
    let posted = bench.post(40).await?;
    assert_eq!(bench.listed().await?, posted);
    assert_eq!(bench.pages(first(10)).await?, posted);
    for at in (0..40).step_by(2) {
        assert_eq!(ids(&bench.take_behind(1).await?.messages), posted[at..=at]);
        assert_eq!(bench.pop_behind(1).await?, posted[at + 1..=at + 1]);
    }
    assert!(bench.claim(1).await?.is_none());
    Ok(())
}

async fn fifty_thousand_held_messages_in_front_are_no_obstacle(bench: Bench) -> Outcome {
    bench.ordered()?;
    for _ in 0..BATCHES {
        bench.post(BATCH).await?;
    }
    let lease = || Lease {
        ttl: HOUR / 2,
        ..bench.lease()
    };
    let mut claims = Vec::new();
    while let Some(claim) = bench.claim_on(&lease(), 1000).await? {
        claims.push(claim.id);
    }
    assert_eq!(bench.counts().await?, (0, IN_FRONT));
    use_the_rest(&bench).await?;
    assert_eq!(bench.counts().await?, (0, IN_FRONT + 20));

    let held = Selection {
        include_claimed: true,
        ..first(10)
    };
    let oldest = ids(&bench.page(held).await?.messages);
    bench.release(claims[0]).await?;
    assert_eq!(ids(&bench.take(10).await?.messages), oldest);
    bench.advance(HOUR / 2).await;
    assert_eq!(bench.counts().await?, (IN_FRONT + 20, 0));
    let again = ids(&bench.take(10).await?.messages);
    // They were claimed last, and come back with all the others.
    assert!(again == oldest || bench.approximates().redelivery_order);
    Ok(())
}

async fn fifty_thousand_delayed_messages_in_front_are_no_obstacle(bench: Bench) -> Outcome {
    bench.ordered()?;
    for _ in 0..BATCHES {
        let delayed = (0..BATCH).map(|_| bench.delayed(minutes(10))).collect();
        bench.post_all(delayed).await?;
    }
    use_the_rest(&bench).await?;
    assert_eq!(bench.counts().await?, (IN_FRONT, 20));
    bench.advance(minutes(10)).await;
    let listed = bench.listed().await?;
    assert_eq!(listed.len(), 100);
    assert_eq!(ids(&bench.take(100).await?.messages), listed);
    Ok(())
}

async fn one_claim_may_hold_a_thousand_messages(bench: Bench) -> Outcome {
    bench.post(1000).await?;
    let lease = bench.lease();
    assert_eq!(bench.take_on(&lease, 1000).await?.messages.len(), 1000);
    bench.renew(&lease).await?;
    assert_eq!(bench.find(lease.id).await?.messages.len(), 1000);
    bench.release(lease.id).await?;
    assert_eq!(bench.counts().await?, (1000, 0));
    Ok(())
}

async fn a_claim_asks_for_more_than_there_is(bench: Bench) -> Outcome {
    bench.post(3).await?;
    let claim = bench.take(1_000_000).await?;
    assert_eq!(claim.messages.len(), 3);
    assert!(bench.pop(1_000_000).await?.is_empty());
    Ok(())
}
