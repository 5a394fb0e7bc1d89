//! A claim is found, renewed and released by its id while it lives, in its own queue alone.

use isimud_contract::{Claim, ErrorKind, Lease, Precondition, Resource};

use crate::bench::{Bench, HOUR, MILLISECOND, MINUTE, minutes, needs};
use crate::outcome::{Abort, Outcome, Step, refused};
use crate::promise::promises;
use crate::steps::ids;

promises! {
    a_live_claim_is_found,
    a_claim_grows_older,
    a_claim_ends_to_the_millisecond,
    an_ended_claim_does_not_exist,
    an_unknown_claim_does_not_exist,
    a_renewed_claim_starts_again,
    a_renewed_claim_gets_its_new_ttl,
    a_renewal_may_shorten_a_claim,
    a_claim_may_be_renewed_for_ever,
    a_renewal_delivers_nothing_more,
    a_renewal_leaves_other_claims_alone,
    a_released_claim_does_not_exist,
    a_release_frees_at_once,
    releasing_again_or_in_vain_is_fine,
    a_late_release_frees_nothing_of_the_next_claim,
    a_deleted_message_leaves_its_claim,
    an_emptied_claim_may_stay_or_go,
    a_claim_exists_in_its_own_queue_alone,
    a_claim_exists_in_its_own_project_alone,
    claims_end_one_by_one,
    many_claims_that_end_at_once_give_back_the_oldest_first,
}

const NO_CLAIM: ErrorKind = ErrorKind::NotFound(Resource::Claim);

/// A lease that renews a claim for a time.
fn renewal(bench: &Bench, claim: &Claim, ttl_minutes: u64) -> Lease {
    Lease {
        id: claim.id,
        ttl: minutes(ttl_minutes),
        ..bench.lease()
    }
}

/// Checks that a claim does not exist in a queue, and that trying to use it there changes nothing.
async fn assert_absent(bench: &Bench, claim: &Claim) -> Step<()> {
    let before = bench.counts().await?;
    refused(bench.find(claim.id).await, NO_CLAIM)?;
    refused(bench.renew(&renewal(bench, claim, 10)).await, NO_CLAIM)?;
    bench.release(claim.id).await?;
    assert_eq!(bench.counts().await?, before);
    Ok(())
}

async fn a_live_claim_is_found(bench: Bench) -> Outcome {
    bench.ordered()?;
    let posted = bench.post(3).await?;
    let claim = bench.take(2).await?;
    let found = bench.find(claim.id).await?;
    assert_eq!(found.id, claim.id);
    assert_eq!(found.ttl, claim.ttl);
    assert_eq!(ids(&found.messages), posted[..2]);
    assert!(found.messages.iter().all(|m| m.claim == Some(claim.id)));
    Ok(())
}

async fn a_claim_grows_older(bench: Bench) -> Outcome {
    bench.post(1).await?;
    let claim = bench.take(1).await?;
    bench.advance(minutes(3)).await;
    let found = bench.find(claim.id).await?;
    bench.assert_span(found.age, minutes(3));
    assert_eq!(found.ttl, minutes(5));
    bench.assert_span(found.messages[0].age, minutes(3));
    Ok(())
}

async fn a_claim_ends_to_the_millisecond(bench: Bench) -> Outcome {
    bench.to_the_millisecond()?;
    bench.post(1).await?;
    let claim = bench.take(1).await?;
    bench.advance(claim.ttl - MILLISECOND).await;
    assert_eq!(bench.find(claim.id).await?.messages.len(), 1);
    assert_eq!(bench.counts().await?, (0, 1));
    assert!(bench.claim(1).await?.is_none());
    bench.advance(MILLISECOND).await;
    refused(bench.find(claim.id).await, NO_CLAIM)?;
    assert_eq!(bench.counts().await?, (1, 0));
    assert_eq!(bench.take(1).await?.messages.len(), 1);
    Ok(())
}

/// The reference answers 503 for it, and for the statistics of its queue ever after (quirk Q-CLM-2).
async fn an_ended_claim_does_not_exist(bench: Bench) -> Outcome {
    bench.post(2).await?;
    let claim = bench.take(2).await?;
    bench.advance(claim.ttl).await;
    assert_absent(&bench, &claim).await?;
    assert_eq!(bench.counts().await?, (2, 0));
    Ok(())
}

async fn an_unknown_claim_does_not_exist(bench: Bench) -> Outcome {
    bench.post(1).await?;
    let never = bench.lease();
    refused(bench.find(never.id).await, NO_CLAIM)?;
    refused(bench.renew(&never).await, NO_CLAIM)?;
    refused(bench.find(never.id).await, NO_CLAIM)?;
    assert_eq!(bench.counts().await?, (1, 0));
    Ok(())
}

async fn a_renewed_claim_starts_again(bench: Bench) -> Outcome {
    bench.post(1).await?;
    let claim = bench.take(1).await?;
    bench.advance(minutes(4)).await;
    bench.renew(&renewal(&bench, &claim, 5)).await?;
    bench.assert_span(bench.find(claim.id).await?.age, minutes(0));
    bench.advance(minutes(4)).await;
    bench.assert_span(bench.find(claim.id).await?.age, minutes(4));
    assert_eq!(bench.counts().await?, (0, 1));
    bench.advance(MINUTE).await;
    assert_absent(&bench, &claim).await?;
    assert_eq!(bench.counts().await?, (1, 0));
    Ok(())
}

async fn a_renewed_claim_gets_its_new_ttl(bench: Bench) -> Outcome {
    bench.post(1).await?;
    let claim = bench.take(1).await?;
    bench.renew(&renewal(&bench, &claim, 20)).await?;
    assert_eq!(bench.find(claim.id).await?.ttl, minutes(20));
    bench.advance(minutes(19)).await;
    assert_eq!(bench.counts().await?, (0, 1));
    bench.advance(MINUTE).await;
    assert_eq!(bench.counts().await?, (1, 0));
    Ok(())
}

async fn a_renewal_may_shorten_a_claim(bench: Bench) -> Outcome {
    bench.post(1).await?;
    let claim = bench.take(1).await?;
    bench.renew(&renewal(&bench, &claim, 2)).await?;
    bench.advance(minutes(2)).await;
    assert_absent(&bench, &claim).await?;
    assert_eq!(bench.take(1).await?.messages.len(), 1);
    Ok(())
}

async fn a_claim_may_be_renewed_for_ever(bench: Bench) -> Outcome {
    let total = minutes(2 * 30);
    let limit = bench.capabilities().longest_claim;
    needs(limit.is_none_or(|limit| total <= limit), "such long claims")?;
    bench.post(1).await?;
    let claim = bench.take(1).await?;
    for _ in 0..30 {
        bench.advance(minutes(2)).await;
        bench.renew(&renewal(&bench, &claim, 5)).await?;
    }
    let found = bench.find(claim.id).await?;
    assert_eq!(found.messages.len(), 1);
    bench.assert_span(found.messages[0].age, total);
    Ok(())
}

async fn a_renewal_delivers_nothing_more(bench: Bench) -> Outcome {
    bench.post(3).await?;
    let claim = bench.take(1).await?;
    bench.renew(&renewal(&bench, &claim, 10)).await?;
    let found = bench.find(claim.id).await?;
    assert_eq!(ids(&found.messages), ids(&claim.messages));
    assert_eq!(bench.counts().await?, (2, 1));
    Ok(())
}

async fn a_renewal_leaves_other_claims_alone(bench: Bench) -> Outcome {
    bench.post(2).await?;
    let renewed = bench.take(1).await?;
    let other = bench.take(1).await?;
    bench.renew(&renewal(&bench, &renewed, 20)).await?;
    bench.advance(minutes(5)).await;
    assert_absent(&bench, &other).await?;
    assert_eq!(bench.counts().await?, (1, 1));
    Ok(())
}

async fn a_released_claim_does_not_exist(bench: Bench) -> Outcome {
    bench.post(2).await?;
    let claim = bench.take(2).await?;
    bench.release(claim.id).await?;
    assert_absent(&bench, &claim).await?;
    Ok(())
}

async fn a_release_frees_at_once(bench: Bench) -> Outcome {
    bench.post(3).await?;
    let claim = bench.take(2).await?;
    bench.release(claim.id).await?;
    assert_eq!(bench.counts().await?, (3, 0));
    assert_eq!(bench.take(3).await?.messages.len(), 3);
    Ok(())
}

async fn releasing_again_or_in_vain_is_fine(bench: Bench) -> Outcome {
    bench.release(bench.lease().id).await?;
    bench.post(1).await?;
    let claim = bench.take(1).await?;
    bench.release(claim.id).await?;
    bench.release(claim.id).await?;
    let claim = bench.take(1).await?;
    bench.advance(claim.ttl).await;
    bench.release(claim.id).await?;
    assert_eq!(bench.counts().await?, (1, 0));
    Ok(())
}

async fn a_late_release_frees_nothing_of_the_next_claim(bench: Bench) -> Outcome {
    bench.post(1).await?;
    let late = bench.take(1).await?;
    bench.advance(late.ttl).await;
    let next = bench.take(1).await?;
    assert_absent(&bench, &late).await?;
    assert_eq!(bench.find(next.id).await?.messages.len(), 1);
    assert!(bench.claim(1).await?.is_none());
    Ok(())
}

async fn a_deleted_message_leaves_its_claim(bench: Bench) -> Outcome {
    let [a, b, c] = bench.posted().await?;
    let claim = bench.take(3).await?;
    bench.settle(&[b], claim.id).await?;
    bench.delete(&[c], Precondition::None).await?;
    assert_eq!(ids(&bench.find(claim.id).await?.messages), [a]);
    bench.release(claim.id).await?;
    assert_eq!(bench.all().await?, [a]);
    Ok(())
}

/// Stores differ here (spec: claims.md 3): what is left may be found empty or not at all, until the claim's end.
async fn an_emptied_claim_may_stay_or_go(bench: Bench) -> Outcome {
    let posted = bench.post(1).await?;
    let claim = bench.take(1).await?;
    bench.settle(&posted, claim.id).await?;
    match bench.find(claim.id).await {
        Ok(found) => assert!(found.messages.is_empty()),
        Err(Abort::Refused(error)) => assert_eq!(error.kind(), NO_CLAIM),
        Err(other) => return Err(other.into()),
    }
    bench.release(claim.id).await?;
    assert_absent(&bench, &claim).await?;
    Ok(())
}

async fn a_claim_exists_in_its_own_queue_alone(bench: Bench) -> Outcome {
    bench.post(1).await?;
    let claim = bench.take(1).await?;
    let elsewhere = bench.on("elsewhere");
    elsewhere.post(1).await?;
    assert_absent(&elsewhere, &claim).await?;
    assert_eq!(bench.find(claim.id).await?.messages.len(), 1);
    Ok(())
}

async fn a_claim_exists_in_its_own_project_alone(bench: Bench) -> Outcome {
    bench.post(1).await?;
    let claim = bench.take(1).await?;
    let elsewhere = bench.at("stranger", bench.queue.name.as_str());
    elsewhere.post(1).await?;
    assert_absent(&elsewhere, &claim).await?;
    assert_eq!(bench.find(claim.id).await?.messages.len(), 1);
    Ok(())
}

async fn claims_end_one_by_one(bench: Bench) -> Outcome {
    bench.post(3).await?;
    for ttl_minutes in [6, 2, 4] {
        let lease = Lease {
            ttl: minutes(ttl_minutes),
            ..bench.lease()
        };
        bench.take_on(&lease, 1).await?;
    }
    for freed in 1..=3 {
        bench.advance(minutes(2)).await;
        assert_eq!(bench.counts().await?, (freed, 3 - freed));
    }
    Ok(())
}

/// The claims on the oldest messages end last, and by then all of them have ended.
async fn many_claims_that_end_at_once_give_back_the_oldest_first(bench: Bench) -> Outcome {
    const CLAIMS: usize = 60;
    const SIZE: usize = 20;
    bench.ordered()?;
    let lasting = (0..CLAIMS * SIZE).map(|_| bench.living(3 * HOUR)).collect();
    let posted = bench.post_all(lasting).await?;
    for number in 1..=CLAIMS {
        let lease = Lease {
            ttl: HOUR - MINUTE / 2 * number as u32,
            ..bench.lease()
        };
        bench.take_on(&lease, SIZE).await?;
    }
    assert_eq!(bench.counts().await?, (0, posted.len() as u64));
    bench.advance(HOUR).await;
    assert_eq!(ids(&bench.take(SIZE).await?.messages), posted[..SIZE]);
    assert_eq!(bench.pop(1).await?, posted[SIZE..=SIZE]);
    Ok(())
}
