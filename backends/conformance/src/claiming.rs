//! A claim takes free messages out of circulation, oldest first, and no message is in two of them.

use isimud_contract::{ErrorKind, Precondition, Resource};

use crate::bench::{Bench, MINUTE, minutes};
use crate::outcome::{Outcome, refused, together};
use crate::promise::promises;
use crate::steps::{ids, sorted};

promises! {
    the_oldest_come_first,
    a_claim_holds_at_most_its_limit,
    twenty_of_twenty_one_and_then_the_last,
    a_claim_says_what_it_is,
    a_claimed_message_says_who_holds_it,
    nothing_to_deliver_is_no_claim,
    a_message_is_in_at_most_one_live_claim,
    many_claimers_at_once_share_nothing,
    a_claim_between_two_others_steals_nothing,
    a_delayed_message_behind_a_due_one_is_not_stolen,
    a_deleted_message_is_not_delivered,
    a_message_deleted_before_its_first_delivery_is_gone,
    released_messages_are_delivered_in_their_old_places,
    released_messages_come_before_younger_ones,
    expired_claims_give_messages_back_in_their_old_places,
    twenty_one_releases_wear_nothing_out,
    twenty_one_expired_claims_wear_nothing_out,
}

async fn the_oldest_come_first(bench: Bench) -> Outcome {
    bench.ordered()?;
    let posted = bench.post(6).await?;
    assert_eq!(ids(&bench.take(2).await?.messages), posted[..2]);
    assert_eq!(ids(&bench.take(3).await?.messages), posted[2..5]);
    assert_eq!(ids(&bench.take(3).await?.messages), posted[5..]);
    Ok(())
}

async fn a_claim_holds_at_most_its_limit(bench: Bench) -> Outcome {
    bench.post(10).await?;
    assert_eq!(bench.take(1).await?.messages.len(), 1);
    assert_eq!(bench.take(4).await?.messages.len(), 4);
    assert_eq!(bench.counts().await?, (5, 5));
    Ok(())
}

/// More than a broker hands out in one of its own calls, which must not show.
async fn twenty_of_twenty_one_and_then_the_last(bench: Bench) -> Outcome {
    let posted = bench.post(21).await?;
    let twenty = bench.take(20).await?;
    assert_eq!(twenty.messages.len(), 20);
    let last = bench.take(20).await?;
    assert_eq!(last.messages.len(), 1);
    let both = [ids(&twenty.messages), ids(&last.messages)].concat();
    assert_eq!(sorted(both), sorted(posted));
    Ok(())
}

async fn a_claim_says_what_it_is(bench: Bench) -> Outcome {
    bench.post(1).await?;
    let lease = bench.lease();
    let claim = bench.take_on(&lease, 1).await?;
    assert_eq!(claim.id, lease.id);
    assert_eq!(claim.ttl, lease.ttl);
    bench.assert_span(claim.age, minutes(0));
    Ok(())
}

async fn a_claimed_message_says_who_holds_it(bench: Bench) -> Outcome {
    bench.post_one(bench.living(minutes(30))).await?;
    bench.advance(minutes(10)).await;
    let claim = bench.take(1).await?;
    let message = &claim.messages[0];
    assert_eq!(message.claim, Some(claim.id));
    assert_eq!(message.ttl, minutes(30));
    bench.assert_span(message.age, minutes(10));
    bench.assert_span(message.remaining_ttl, minutes(20));
    assert!(message.delay.is_zero());
    Ok(())
}

async fn nothing_to_deliver_is_no_claim(bench: Bench) -> Outcome {
    let lease = bench.lease();
    assert!(bench.claim_on(&lease, 5).await?.is_none());
    let answer = bench.find(lease.id).await;
    refused(answer, ErrorKind::NotFound(Resource::Claim))?;
    bench.post(1).await?;
    bench.take(1).await?;
    assert!(bench.claim(5).await?.is_none());
    Ok(())
}

async fn a_message_is_in_at_most_one_live_claim(bench: Bench) -> Outcome {
    let posted = bench.post(6).await?;
    let first = bench.take(3).await?;
    let second = bench.take(6).await?;
    let both = [ids(&first.messages), ids(&second.messages)].concat();
    assert_eq!(sorted(both), sorted(posted));
    assert!(bench.claim(6).await?.is_none());
    let found = bench.find(first.id).await?;
    assert_eq!(ids(&found.messages), ids(&first.messages));
    Ok(())
}

async fn many_claimers_at_once_share_nothing(bench: Bench) -> Outcome {
    let posted = bench.post(500).await?;
    let delivered = together((0..16).map(|_| {
        let bench = bench.clone();
        async move {
            let mut delivered = Vec::new();
            while let Some(claim) = bench.claim(7).await? {
                delivered.extend(ids(&claim.messages));
            }
            Ok(delivered)
        }
    }))
    .await?;
    assert_eq!(sorted(delivered.concat()), sorted(posted));
    assert_eq!(bench.counts().await?, (0, 500));
    Ok(())
}

/// The reference takes everything behind the first free message (quirk Q-CLM-1).
async fn a_claim_between_two_others_steals_nothing(bench: Bench) -> Outcome {
    bench.ordered()?;
    let posted = bench.post(8).await?;
    let first = bench.take(2).await?;
    let second = bench.take(2).await?;
    bench.release(first.id).await?;
    let third = bench.take(10).await?;
    let expected = [&posted[..2], &posted[4..]].concat();
    assert_eq!(ids(&third.messages), expected);
    assert_eq!(bench.settle(&posted[2..4], second.id).await?, 2);
    assert_eq!(bench.counts().await?, (0, 6));
    Ok(())
}

/// The other half of Q-CLM-1.
async fn a_delayed_message_behind_a_due_one_is_not_stolen(bench: Bench) -> Outcome {
    let [first] = bench.posted().await?;
    bench.post_one(bench.delayed(minutes(10))).await?;
    let [last] = bench.posted().await?;
    let claimed = ids(&bench.take(10).await?.messages);
    assert_eq!(sorted(claimed), [first, last]);
    assert!(bench.claim(10).await?.is_none());
    Ok(())
}

async fn a_deleted_message_is_not_delivered(bench: Bench) -> Outcome {
    let [a, b, c] = bench.posted().await?;
    bench.delete(&[b], Precondition::Unclaimed).await?;
    let claimed = ids(&bench.take(3).await?.messages);
    assert_eq!(sorted(claimed), [a, c]);
    Ok(())
}

/// The lease brokers still have the message; they must not deliver it any more.
async fn a_message_deleted_before_its_first_delivery_is_gone(bench: Bench) -> Outcome {
    let [only] = bench.posted().await?;
    assert_eq!(bench.delete(&[only], Precondition::Unclaimed).await?, 1);
    assert!(bench.claim(1).await?.is_none());
    assert!(bench.pop(1).await?.is_empty());
    bench.advance(minutes(10)).await;
    assert!(bench.claim(1).await?.is_none());
    Ok(())
}

async fn released_messages_are_delivered_in_their_old_places(bench: Bench) -> Outcome {
    bench.keeps_order()?;
    let posted = bench.post(6).await?;
    let claims = [bench.take(2).await?, bench.take(2).await?];
    for claim in claims.iter().rev() {
        bench.release(claim.id).await?;
    }
    assert_eq!(ids(&bench.take(6).await?.messages), posted);
    Ok(())
}

async fn released_messages_come_before_younger_ones(bench: Bench) -> Outcome {
    bench.ordered()?;
    let old = bench.post(2).await?;
    let claim = bench.take(2).await?;
    let young = bench.post(2).await?;
    bench.release(claim.id).await?;
    let next = bench.take(3).await?;
    assert_eq!(ids(&next.messages), [&old[..], &young[..1]].concat());
    Ok(())
}

async fn expired_claims_give_messages_back_in_their_old_places(bench: Bench) -> Outcome {
    bench.ordered()?;
    let posted = bench.post(6).await?;
    let late = bench.take(2).await?;
    bench.advance(MINUTE).await;
    let later = bench.take(2).await?;
    assert_eq!(ids(&later.messages), posted[2..4]);
    bench.advance(late.ttl).await;
    assert_eq!(bench.counts().await?, (6, 0));
    let all = bench.take(6).await?;
    assert_eq!(ids(&all.messages), posted);
    Ok(())
}

/// Some brokers drop or move a message that came back twenty times.
async fn twenty_one_releases_wear_nothing_out(bench: Bench) -> Outcome {
    let posted = bench.post(1).await?;
    for _ in 0..21 {
        let claim = bench.take(1).await?;
        bench.release(claim.id).await?;
    }
    assert_eq!(bench.counts().await?, (1, 0));
    assert_eq!(ids(&bench.take(1).await?.messages), posted);
    Ok(())
}

async fn twenty_one_expired_claims_wear_nothing_out(bench: Bench) -> Outcome {
    let id = bench.post_one(bench.living(minutes(600))).await?;
    for _ in 0..21 {
        let claim = bench.take(1).await?;
        bench.advance(claim.ttl).await;
    }
    assert_eq!(bench.counts().await?, (1, 0));
    assert_eq!(ids(&bench.take(1).await?.messages), [id]);
    Ok(())
}
