//! A delete removes what its guard allows, all or nothing. Each row of the guard's table is a trial.

use isimud_contract::{ClaimId, ErrorKind, MessageId, Precondition, Resource};

use crate::bench::{Bench, MINUTE, needs};
use crate::outcome::{Outcome, refused};
use crate::promise::promises;
use crate::steps::ids;

promises! {
    a_deleted_message_is_gone_everywhere,
    unknown_ids_are_skipped,
    a_message_named_twice_counts_once,
    a_message_is_deleted_once,
    an_expired_message_does_not_count,
    a_thousand_messages_are_deleted_at_once,
    a_delete_without_precondition_takes_any_message,
    a_delete_of_unclaimed_takes_free_and_delayed_messages,
    a_delete_of_unclaimed_refuses_a_claimed_message,
    one_held_message_refuses_the_whole_call,
    a_holder_deletes_its_messages,
    several_holders_delete_at_once,
    a_free_message_is_refused_to_a_holder,
    one_free_message_refuses_the_whole_call,
    a_message_is_refused_to_another_holder,
    a_message_is_refused_to_a_dead_claim,
    one_live_claim_among_the_holders_makes_it_claimed,
    a_claim_of_another_queue_holds_nothing_here,
    a_claim_that_ended_holds_nothing,
    a_late_worker_cannot_delete_what_another_holds,
    unknown_ids_need_no_claim,
    an_expired_message_needs_no_claim,
}

const NO_CLAIM: ErrorKind = ErrorKind::NotFound(Resource::Claim);

fn held_by(claims: &[ClaimId]) -> Precondition {
    Precondition::ClaimedBy(claims.to_vec())
}

async fn a_deleted_message_is_gone_everywhere(bench: Bench) -> Outcome {
    let [a, b, c] = bench.posted().await?;
    assert_eq!(bench.delete(&[b], Precondition::Unclaimed).await?, 1);
    assert_eq!(bench.counts().await?, (2, 0));
    assert!(!ids(&bench.take(3).await?.messages).contains(&b));
    assert!(bench.get(&[b]).await?.is_empty());
    assert_eq!(bench.all().await?, [a, c]);
    Ok(())
}

async fn unknown_ids_are_skipped(bench: Bench) -> Outcome {
    let [a, b] = bench.posted().await?;
    let unknown = MessageId(bench.mint());
    assert_eq!(
        bench.delete(&[unknown, a], Precondition::Unclaimed).await?,
        1
    );
    assert_eq!(bench.delete(&[unknown], Precondition::None).await?, 0);
    assert_eq!(bench.delete(&[], Precondition::None).await?, 0);
    assert_eq!(bench.all().await?, [b]);
    Ok(())
}

async fn a_message_named_twice_counts_once(bench: Bench) -> Outcome {
    let [a] = bench.posted().await?;
    assert_eq!(bench.delete(&[a, a], Precondition::None).await?, 1);
    assert_eq!(bench.counts().await?, (0, 0));
    Ok(())
}

async fn a_message_is_deleted_once(bench: Bench) -> Outcome {
    let [a, _] = bench.posted().await?;
    assert_eq!(bench.delete(&[a], Precondition::None).await?, 1);
    assert_eq!(bench.delete(&[a], Precondition::None).await?, 0);
    assert_eq!(bench.counts().await?, (1, 0));
    Ok(())
}

async fn an_expired_message_does_not_count(bench: Bench) -> Outcome {
    let short = bench.post_one(bench.living(MINUTE)).await?;
    let [lasting] = bench.posted().await?;
    bench.advance(MINUTE).await;
    assert_eq!(
        bench
            .delete(&[short, lasting], Precondition::Unclaimed)
            .await?,
        1
    );
    Ok(())
}

async fn a_thousand_messages_are_deleted_at_once(bench: Bench) -> Outcome {
    let mut posted = bench.post(1001).await?;
    let last = posted.pop().into_iter().collect::<Vec<_>>();
    assert_eq!(bench.delete(&posted, Precondition::Unclaimed).await?, 1000);
    assert_eq!(bench.all().await?, last);
    Ok(())
}

async fn a_delete_without_precondition_takes_any_message(bench: Bench) -> Outcome {
    let [held] = bench.posted().await?;
    bench.take(1).await?;
    let delayed = bench.post_one(bench.delayed(MINUTE)).await?;
    let [free] = bench.posted().await?;
    let all = [held, delayed, free];
    assert_eq!(bench.delete(&all, Precondition::None).await?, 3);
    assert_eq!(bench.counts().await?, (0, 0));
    Ok(())
}

async fn a_delete_of_unclaimed_takes_free_and_delayed_messages(bench: Bench) -> Outcome {
    let [free] = bench.posted().await?;
    let delayed = bench.post_one(bench.delayed(MINUTE)).await?;
    assert_eq!(
        bench
            .delete(&[free, delayed], Precondition::Unclaimed)
            .await?,
        2
    );
    assert_eq!(bench.counts().await?, (0, 0));
    Ok(())
}

async fn a_delete_of_unclaimed_refuses_a_claimed_message(bench: Bench) -> Outcome {
    let [held] = bench.posted().await?;
    let claim = bench.take(1).await?;
    refused(
        bench.delete(&[held], Precondition::Unclaimed).await,
        ErrorKind::Claimed,
    )?;
    assert_eq!(ids(&bench.find(claim.id).await?.messages), [held]);
    bench.release(claim.id).await?;
    assert_eq!(bench.delete(&[held], Precondition::Unclaimed).await?, 1);
    Ok(())
}

async fn one_held_message_refuses_the_whole_call(bench: Bench) -> Outcome {
    let [held] = bench.posted().await?;
    bench.take(1).await?;
    let [a, b] = bench.posted().await?;
    let answer = bench.delete(&[a, held, b], Precondition::Unclaimed).await;
    refused(answer, ErrorKind::Claimed)?;
    assert_eq!(bench.counts().await?, (2, 1));
    assert_eq!(bench.all().await?, [held, a, b]);
    Ok(())
}

async fn a_holder_deletes_its_messages(bench: Bench) -> Outcome {
    bench.ordered()?;
    let [a, b, c] = bench.posted().await?;
    let claim = bench.take(2).await?;
    assert_eq!(bench.settle(&[a], claim.id).await?, 1);
    assert_eq!(ids(&bench.find(claim.id).await?.messages), [b]);
    assert_eq!(bench.settle(&[b], claim.id).await?, 1);
    assert_eq!(bench.counts().await?, (1, 0));
    assert_eq!(bench.all().await?, [c]);
    Ok(())
}

async fn several_holders_delete_at_once(bench: Bench) -> Outcome {
    let posted = bench.post(4).await?;
    let claims = [bench.take(2).await?.id, bench.take(2).await?.id];
    assert_eq!(bench.delete(&posted, held_by(&claims)).await?, 4);
    assert_eq!(bench.counts().await?, (0, 0));
    Ok(())
}

async fn a_free_message_is_refused_to_a_holder(bench: Bench) -> Outcome {
    bench.ordered()?;
    let [_, free] = bench.posted().await?;
    let claim = bench.take(1).await?;
    for claim in [claim.id, bench.lease().id] {
        refused(bench.settle(&[free], claim).await, ErrorKind::NotClaimed)?;
    }
    assert_eq!(bench.counts().await?, (1, 1));
    Ok(())
}

async fn one_free_message_refuses_the_whole_call(bench: Bench) -> Outcome {
    bench.ordered()?;
    let [a, b, free] = bench.posted().await?;
    let claim = bench.take(2).await?;
    let answer = bench.settle(&[a, b, free], claim.id).await;
    refused(answer, ErrorKind::NotClaimed)?;
    assert_eq!(ids(&bench.find(claim.id).await?.messages), [a, b]);
    assert_eq!(bench.counts().await?, (1, 2));
    Ok(())
}

async fn a_message_is_refused_to_another_holder(bench: Bench) -> Outcome {
    bench.ordered()?;
    let [a, b] = bench.posted().await?;
    let first = bench.take(1).await?;
    let second = bench.take(1).await?;
    refused(bench.settle(&[a], second.id).await, ErrorKind::Claimed)?;
    refused(bench.settle(&[b, a], second.id).await, ErrorKind::Claimed)?;
    assert_eq!(bench.counts().await?, (0, 2));
    assert_eq!(bench.settle(&[a], first.id).await?, 1);
    assert_eq!(bench.settle(&[b], second.id).await?, 1);
    Ok(())
}

async fn a_message_is_refused_to_a_dead_claim(bench: Bench) -> Outcome {
    let [held] = bench.posted().await?;
    let released = bench.take(1).await?;
    bench.release(released.id).await?;
    let expired = bench.take(1).await?;
    bench.advance(expired.ttl).await;
    let holder = bench.take(1).await?;
    for dead in [released.id, expired.id, bench.lease().id] {
        refused(bench.settle(&[held], dead).await, NO_CLAIM)?;
    }
    let dead = [released.id, expired.id];
    refused(bench.delete(&[held], held_by(&dead)).await, NO_CLAIM)?;
    assert_eq!(bench.settle(&[held], holder.id).await?, 1);
    Ok(())
}

async fn one_live_claim_among_the_holders_makes_it_claimed(bench: Bench) -> Outcome {
    bench.ordered()?;
    let [a, _] = bench.posted().await?;
    bench.take(1).await?;
    let other = bench.take(1).await?;
    let holders = [bench.lease().id, other.id];
    let answer = bench.delete(&[a], held_by(&holders)).await;
    refused(answer, ErrorKind::Claimed)?;
    assert_eq!(bench.counts().await?, (0, 2));
    Ok(())
}

async fn a_claim_of_another_queue_holds_nothing_here(bench: Bench) -> Outcome {
    let elsewhere = bench.on("elsewhere");
    elsewhere.post(1).await?;
    let foreign = elsewhere.take(1).await?;
    let [held] = bench.posted().await?;
    bench.take(1).await?;
    refused(bench.settle(&[held], foreign.id).await, NO_CLAIM)?;
    assert_eq!(bench.counts().await?, (0, 1));
    Ok(())
}

async fn a_claim_that_ended_holds_nothing(bench: Bench) -> Outcome {
    let [id] = bench.posted().await?;
    let claim = bench.take(1).await?;
    bench.advance(claim.ttl).await;
    refused(bench.settle(&[id], claim.id).await, ErrorKind::NotClaimed)?;
    assert_eq!(bench.delete(&[id], Precondition::Unclaimed).await?, 1);
    Ok(())
}

async fn a_late_worker_cannot_delete_what_another_holds(bench: Bench) -> Outcome {
    let [id] = bench.posted().await?;
    let late = bench.take(1).await?;
    bench.advance(late.ttl).await;
    let next = bench.take(1).await?;
    refused(bench.settle(&[id], late.id).await, NO_CLAIM)?;
    assert_eq!(ids(&bench.find(next.id).await?.messages), [id]);
    assert_eq!(bench.get_one(id).await?.claim, Some(next.id));
    Ok(())
}

/// Deleting again after a lost answer is no error, even when the claim has ended meanwhile (spec: messages.md 6).
async fn unknown_ids_need_no_claim(bench: Bench) -> Outcome {
    let [id] = bench.posted().await?;
    let claim = bench.take(1).await?;
    assert_eq!(bench.settle(&[id], claim.id).await?, 1);
    assert_eq!(bench.settle(&[id], claim.id).await?, 0);
    bench.advance(claim.ttl).await;
    assert_eq!(bench.settle(&[id], claim.id).await?, 0);
    assert_eq!(bench.settle(&[id], bench.lease().id).await?, 0);
    Ok(())
}

/// Where nobody knows what was not claimed yet, it may pass for that.
async fn an_expired_message_needs_no_claim(bench: Bench) -> Outcome {
    needs(
        bench.capabilities().browse,
        "to know every message by its id",
    )?;
    let short = bench.post_one(bench.living(MINUTE)).await?;
    let [held] = bench.posted().await?;
    bench.advance(MINUTE).await;
    let claim = bench.take(2).await?;
    assert_eq!(bench.settle(&[short, held], claim.id).await?, 1);
    Ok(())
}
