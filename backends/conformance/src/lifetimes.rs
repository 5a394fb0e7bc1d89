//! A message outlives the claim that holds it: one that would end before it, or with it, gets a longer life.

use std::time::Duration;

use isimud_contract::Lease;

use crate::bench::{Bench, HOUR, MILLISECOND, MINUTE, minutes};
use crate::outcome::{Outcome, Step};
use crate::promise::promises;
use crate::steps::ids;

promises! {
    a_message_that_ends_before_its_claim_lives_longer,
    a_message_that_ends_with_its_claim_lives_longer,
    a_message_that_outlives_its_claim_is_left_alone,
    a_message_that_outlives_its_claim_by_a_millisecond_is_left_alone,
    a_renewal_extends_ttls_too,
    a_renewal_extends_a_ttl_that_ends_with_it,
    a_renewal_never_shortens_a_ttl,
    a_message_does_not_expire_inside_its_claim,
    an_extended_ttl_outlasts_the_claim,
    an_extended_ttl_outlasts_a_release,
    an_extended_ttl_ends,
    messages_that_are_not_claimed_are_left_alone,
    an_extended_ttl_leaves_the_age_alone,
    the_example_of_the_specification_holds,
}

/// A claim for so long, with a grace of two minutes.
fn lease(bench: &Bench, ttl: Duration) -> Lease {
    Lease {
        ttl,
        grace: minutes(2),
        ..bench.lease()
    }
}

/// Posts one message that lives so long and claims it.
async fn claim_one(bench: &Bench, life: Duration, claim: Duration) -> Step<Lease> {
    let id = bench.post_one(bench.living(life)).await?;
    let lease = lease(bench, claim);
    let claim = bench.take_on(&lease, 1).await?;
    assert_eq!(ids(&claim.messages), [id]);
    Ok(lease)
}

/// Checks the ttl and the remaining life of the one message that the claim holds.
async fn assert_life(bench: &Bench, lease: &Lease, ttl: Duration, left: Duration) -> Step<()> {
    let message = bench.find(lease.id).await?.messages.remove(0);
    assert_eq!(message.ttl, ttl);
    bench.assert_span(message.remaining_ttl, left);
    Ok(())
}

async fn a_message_that_ends_before_its_claim_lives_longer(bench: Bench) -> Outcome {
    bench.post_one(bench.living(minutes(3))).await?;
    let lease = lease(&bench, minutes(5));
    let claim = bench.take_on(&lease, 1).await?;
    assert_eq!(claim.messages[0].ttl, minutes(7));
    bench.assert_span(claim.messages[0].remaining_ttl, minutes(7));
    assert_life(&bench, &lease, minutes(7), minutes(7)).await?;
    Ok(())
}

/// Message and claim would end in the same moment, and the worker would lose it then (quirk Q-CLM-11).
async fn a_message_that_ends_with_its_claim_lives_longer(bench: Bench) -> Outcome {
    bench.to_the_millisecond()?;
    let lease = claim_one(&bench, MINUTE, MINUTE).await?;
    assert_life(&bench, &lease, minutes(3), minutes(3)).await?;
    Ok(())
}

async fn a_message_that_outlives_its_claim_is_left_alone(bench: Bench) -> Outcome {
    let lease = claim_one(&bench, minutes(10), minutes(5)).await?;
    assert_life(&bench, &lease, minutes(10), minutes(10)).await?;
    Ok(())
}

async fn a_message_that_outlives_its_claim_by_a_millisecond_is_left_alone(bench: Bench) -> Outcome {
    bench.to_the_millisecond()?;
    let life = minutes(5) + MILLISECOND;
    let lease = claim_one(&bench, life, minutes(5)).await?;
    assert_life(&bench, &lease, life, life).await?;
    bench.advance(minutes(5)).await;
    assert_eq!(bench.counts().await?, (1, 0));
    bench.advance(MILLISECOND).await;
    assert_eq!(bench.counts().await?, (0, 0));
    Ok(())
}

async fn a_renewal_extends_ttls_too(bench: Bench) -> Outcome {
    let first = claim_one(&bench, minutes(10), minutes(5)).await?;
    bench.advance(minutes(4)).await;
    let renewal = Lease {
        id: first.id,
        ..lease(&bench, minutes(8))
    };
    bench.renew(&renewal).await?;
    assert_life(&bench, &renewal, minutes(10), minutes(10)).await?;
    let message = bench.find(first.id).await?.messages.remove(0);
    bench.assert_span(message.age, minutes(4));
    Ok(())
}

/// The rule is the same on creation and on renewal (quirk Q-CLM-10).
async fn a_renewal_extends_a_ttl_that_ends_with_it(bench: Bench) -> Outcome {
    bench.to_the_millisecond()?;
    let first = claim_one(&bench, minutes(10), minutes(5)).await?;
    bench.advance(minutes(4)).await;
    let renewal = Lease {
        id: first.id,
        ..lease(&bench, minutes(6))
    };
    bench.renew(&renewal).await?;
    assert_life(&bench, &renewal, minutes(8), minutes(8)).await?;
    Ok(())
}

async fn a_renewal_never_shortens_a_ttl(bench: Bench) -> Outcome {
    let first = claim_one(&bench, HOUR, minutes(20)).await?;
    let renewal = Lease {
        id: first.id,
        ..lease(&bench, MINUTE)
    };
    bench.renew(&renewal).await?;
    assert_life(&bench, &renewal, HOUR, HOUR).await?;
    Ok(())
}

/// The reference shows the longer life but loses the message all the same (quirk Q-CLM-3).
async fn a_message_does_not_expire_inside_its_claim(bench: Bench) -> Outcome {
    let lease = claim_one(&bench, minutes(2), minutes(10)).await?;
    bench.advance(minutes(9)).await;
    assert_eq!(bench.find(lease.id).await?.messages.len(), 1);
    assert_eq!(bench.counts().await?, (0, 1));
    Ok(())
}

async fn an_extended_ttl_outlasts_the_claim(bench: Bench) -> Outcome {
    claim_one(&bench, minutes(2), minutes(10)).await?;
    bench.advance(minutes(11)).await;
    assert_eq!(bench.counts().await?, (1, 0));
    let message = bench.take(1).await?.messages.remove(0);
    bench.assert_span(message.age, minutes(11));
    Ok(())
}

async fn an_extended_ttl_outlasts_a_release(bench: Bench) -> Outcome {
    let lease = claim_one(&bench, minutes(2), minutes(10)).await?;
    bench.release(lease.id).await?;
    bench.advance(minutes(11)).await;
    assert_eq!(bench.counts().await?, (1, 0));
    Ok(())
}

async fn an_extended_ttl_ends(bench: Bench) -> Outcome {
    claim_one(&bench, minutes(2), minutes(10)).await?;
    bench.advance(minutes(12)).await;
    assert_eq!(bench.counts().await?, (0, 0));
    assert!(bench.claim(1).await?.is_none());
    assert!(bench.all().await?.is_empty());
    Ok(())
}

async fn messages_that_are_not_claimed_are_left_alone(bench: Bench) -> Outcome {
    let posted = vec![bench.living(minutes(2)), bench.living(minutes(2))];
    bench.post_all(posted).await?;
    bench.take_on(&lease(&bench, minutes(10)), 1).await?;
    bench.advance(minutes(2)).await;
    assert_eq!(bench.counts().await?, (0, 1));
    Ok(())
}

async fn an_extended_ttl_leaves_the_age_alone(bench: Bench) -> Outcome {
    bench.post_one(bench.living(minutes(5))).await?;
    bench.advance(minutes(4)).await;
    let claim = bench.take_on(&lease(&bench, minutes(10)), 1).await?;
    bench.assert_span(claim.messages[0].age, minutes(4));
    assert_eq!(claim.messages[0].ttl, minutes(12));
    bench.assert_span(claim.messages[0].remaining_ttl, minutes(12));
    Ok(())
}

/// Spec: claims.md 7, with its numbers.
async fn the_example_of_the_specification_holds(bench: Bench) -> Outcome {
    bench.to_the_millisecond()?;
    let seconds = Duration::from_secs;
    let terms = |ttl| Lease {
        ttl: seconds(ttl),
        grace: seconds(60),
        ..bench.lease()
    };
    let id = bench.post_one(bench.living(seconds(60))).await?;
    bench.advance(seconds(10)).await;
    let lease = terms(300);
    bench.take_on(&lease, 1).await?;
    assert_life(&bench, &lease, seconds(360), seconds(360)).await?;

    bench.advance(seconds(40)).await;
    let renewal = Lease {
        id: lease.id,
        ..terms(100)
    };
    bench.renew(&renewal).await?;
    assert_eq!(bench.find(lease.id).await?.age, seconds(0));
    assert_life(&bench, &lease, seconds(360), seconds(320)).await?;

    bench.advance(seconds(100)).await;
    let message = bench.get_one(id).await?;
    assert_eq!(message.claim, None);
    assert_eq!(message.age, seconds(150));
    assert_eq!(message.ttl, seconds(360));
    assert_eq!(message.remaining_ttl, seconds(220));
    Ok(())
}
