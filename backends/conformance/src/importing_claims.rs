//! A claim that was made elsewhere goes on here: under its own id, until its own end.

use isimud_contract::{
    ErrorKind, ImportedClaim, Lease, Message, MessageId, Precondition, Resource,
};

use crate::bench::{Bench, HOUR, MILLISECOND, MINUTE, minutes, needs};
use crate::outcome::{Abort, Outcome, Step, refused};
use crate::promise::promises;
use crate::steps::ids;

promises! {
    an_imported_claim_holds_its_messages_until_it_ends,
    an_imported_claim_is_found_with_its_time,
    an_imported_claim_ends_to_the_millisecond,
    an_imported_claim_deletes_its_messages,
    an_imported_claim_is_renewed_and_released_like_any_other,
    an_imported_claim_takes_free_messages_alone,
    an_imported_claim_changes_neither_ttls_nor_counts,
    an_import_that_is_repeated_changes_nothing,
    calls_of_one_claim_add_up_in_order_of_arrival,
    a_renewed_claim_keeps_its_time_when_imported_again,
    an_id_that_is_imported_twice_is_held_once,
    a_claim_that_is_over_holds_nothing,
    where_nothing_can_be_held_no_claim_is_made,
    a_name_is_free_again_when_its_claim_is_over,
    a_name_is_free_again_when_its_queue_is_purged,
    an_imported_claim_is_of_its_own_queue_alone,
    a_claim_of_a_thousand_messages_can_be_imported,
}

const NO_CLAIM: ErrorKind = ErrorKind::NotFound(Resource::Claim);

impl Bench {
    /// A claim of ten minutes that was made three minutes ago, in another service.
    fn foreign(&self) -> ImportedClaim {
        ImportedClaim {
            id: self.lease().id,
            ttl: minutes(10),
            age: minutes(3),
        }
    }

    async fn import_claim(&self, claim: ImportedClaim, ids: &[MessageId]) -> Step<usize> {
        needs(self.capabilities().claims, "claims")?;
        match self.store().import_claim(&self.queue, claim, ids).await {
            Err(error) if error.kind() == ErrorKind::Unsupported => Err(Abort::Unsupported(
                "to hold messages for a claim made elsewhere",
            )),
            answer => Ok(answer?),
        }
    }
}

async fn an_imported_claim_holds_its_messages_until_it_ends(bench: Bench) -> Outcome {
    bench.ordered()?;
    let posted = bench.post(5).await?;
    let claim = bench.foreign();
    assert_eq!(bench.import_claim(claim, &posted[1..3]).await?, 2);
    assert_eq!(bench.counts().await?, (3, 2));
    assert_eq!(bench.get_one(posted[1]).await?.claim, Some(claim.id));
    assert_eq!(bench.listed().await?, [&posted[..1], &posted[3..]].concat());
    refused(
        bench.delete(&posted[1..2], Precondition::Unclaimed).await,
        ErrorKind::Claimed,
    )?;
    let own = bench.take(1).await?;
    assert_eq!(ids(&own.messages), posted[..1]);
    bench.release(own.id).await?;
    bench.advance(minutes(7)).await;
    assert_eq!(bench.counts().await?, (5, 0));
    assert_eq!(ids(&bench.take(10).await?.messages), posted);
    Ok(())
}

async fn an_imported_claim_is_found_with_its_time(bench: Bench) -> Outcome {
    let posted = bench.post(2).await?;
    let claim = bench.foreign();
    bench.import_claim(claim, &posted).await?;
    bench.advance(minutes(2)).await;
    let found = bench.find(claim.id).await?;
    assert_eq!(found.ttl, minutes(10));
    bench.assert_span(found.age, minutes(5));
    assert_eq!(found.messages.len(), 2);
    assert!(found.messages.iter().all(|m| m.claim == Some(claim.id)));
    Ok(())
}

async fn an_imported_claim_ends_to_the_millisecond(bench: Bench) -> Outcome {
    bench.to_the_millisecond()?;
    let posted = bench.post(1).await?;
    let claim = bench.foreign();
    bench.import_claim(claim, &posted).await?;
    bench.advance(claim.ttl - claim.age - MILLISECOND).await;
    assert_eq!(bench.find(claim.id).await?.messages.len(), 1);
    bench.advance(MILLISECOND).await;
    refused(bench.find(claim.id).await, NO_CLAIM)?;
    assert_eq!(bench.counts().await?, (1, 0));
    Ok(())
}

async fn an_imported_claim_deletes_its_messages(bench: Bench) -> Outcome {
    let posted = bench.post(3).await?;
    let claim = bench.foreign();
    bench.import_claim(claim, &posted).await?;
    assert_eq!(bench.settle(&posted[..2], claim.id).await?, 2);
    let left = bench.find(claim.id).await?;
    assert_eq!(ids(&left.messages), posted[2..]);
    assert_eq!(bench.counts().await?, (0, 1));
    Ok(())
}

async fn an_imported_claim_is_renewed_and_released_like_any_other(bench: Bench) -> Outcome {
    let posted = bench.post(2).await?;
    let claim = bench.foreign();
    bench.import_claim(claim, &posted).await?;
    let lease = Lease {
        id: claim.id,
        ttl: minutes(20),
        ..bench.lease()
    };
    bench.renew(&lease).await?;
    bench.advance(minutes(15)).await;
    bench.assert_span(bench.find(claim.id).await?.age, minutes(15));
    assert_eq!(bench.counts().await?, (0, 2));
    bench.release(claim.id).await?;
    assert_eq!(bench.counts().await?, (2, 0));
    refused(bench.find(claim.id).await, NO_CLAIM)?;
    Ok(())
}

async fn an_imported_claim_takes_free_messages_alone(bench: Bench) -> Outcome {
    let [first] = bench.posted().await?;
    let other = bench.take(1).await?;
    let late = bench.post_one(bench.delayed(minutes(20))).await?;
    let short = bench.post_one(bench.living(MINUTE)).await?;
    bench.advance(MINUTE).await;
    let [free] = bench.posted().await?;
    let unknown = MessageId(bench.mint());
    let claim = bench.foreign();
    let named = [first, late, short, free, unknown];
    assert_eq!(bench.import_claim(claim, &named).await?, 1);
    assert_eq!(ids(&bench.find(claim.id).await?.messages), [free]);
    assert_eq!(ids(&bench.find(other.id).await?.messages), [first]);
    assert_eq!(bench.counts().await?, (1, 2));
    Ok(())
}

async fn an_imported_claim_changes_neither_ttls_nor_counts(bench: Bench) -> Outcome {
    let message = Message {
        claim_count: 3,
        ..bench.living(minutes(5))
    };
    let id = bench.post_one(message).await?;
    let claim = bench.foreign();
    bench.import_claim(claim, &[id]).await?;
    let held = bench.get_one(id).await?;
    assert_eq!((held.ttl, held.claim_count), (minutes(5), 3));
    bench.assert_span(held.remaining_ttl, minutes(5));
    bench.advance(minutes(5)).await;
    assert_eq!(bench.counts().await?, (0, 0));
    Ok(())
}

async fn an_import_that_is_repeated_changes_nothing(bench: Bench) -> Outcome {
    let posted = bench.post(4).await?;
    let claim = bench.foreign();
    for _ in 0..3 {
        assert_eq!(bench.import_claim(claim, &posted[..3]).await?, 3);
        let found = bench.find(claim.id).await?;
        assert_eq!(ids(&found.messages), posted[..3]);
        assert_eq!(bench.counts().await?, (1, 3));
    }
    bench.settle(&posted[..1], claim.id).await?;
    assert_eq!(bench.import_claim(claim, &posted[..3]).await?, 2);
    bench.advance(minutes(7)).await;
    assert_eq!(bench.counts().await?, (3, 0));
    Ok(())
}

async fn calls_of_one_claim_add_up_in_order_of_arrival(bench: Bench) -> Outcome {
    bench.ordered()?;
    let posted = bench.post(6).await?;
    let claim = bench.foreign();
    assert_eq!(bench.import_claim(claim, &[posted[5], posted[2]]).await?, 2);
    assert_eq!(bench.import_claim(claim, &[posted[3]]).await?, 1);
    assert_eq!(bench.import_claim(claim, &[posted[0]]).await?, 1);
    let found = bench.find(claim.id).await?;
    let expected = [posted[0], posted[2], posted[3], posted[5]];
    assert_eq!(ids(&found.messages), expected);
    assert_eq!(bench.counts().await?, (2, 4));
    Ok(())
}

/// Its worker may have renewed it here before the import was repeated.
async fn a_renewed_claim_keeps_its_time_when_imported_again(bench: Bench) -> Outcome {
    let posted = bench.post(2).await?;
    let claim = bench.foreign();
    bench.import_claim(claim, &posted[..1]).await?;
    let lease = Lease {
        id: claim.id,
        ttl: minutes(30),
        ..bench.lease()
    };
    bench.renew(&lease).await?;
    let over = ImportedClaim {
        age: claim.ttl,
        ..claim
    };
    bench.import_claim(claim, &posted).await?;
    bench.import_claim(over, &posted).await?;
    let found = bench.find(claim.id).await?;
    assert_eq!((found.ttl, found.messages.len()), (minutes(30), 2));
    bench.assert_span(found.age, minutes(0));
    bench.advance(minutes(29)).await;
    assert_eq!(bench.counts().await?, (0, 2));
    Ok(())
}

async fn an_id_that_is_imported_twice_is_held_once(bench: Bench) -> Outcome {
    let [id] = bench.posted().await?;
    let claim = bench.foreign();
    assert_eq!(bench.import_claim(claim, &[id, id]).await?, 1);
    assert_eq!(ids(&bench.find(claim.id).await?.messages), [id]);
    assert_eq!(bench.counts().await?, (0, 1));
    Ok(())
}

async fn a_claim_that_is_over_holds_nothing(bench: Bench) -> Outcome {
    let posted = bench.post(1).await?;
    for age in [minutes(10), HOUR] {
        let over = ImportedClaim {
            age,
            ..bench.foreign()
        };
        assert_eq!(bench.import_claim(over, &posted).await?, 0);
        refused(bench.find(over.id).await, NO_CLAIM)?;
    }
    assert_eq!(bench.counts().await?, (1, 0));
    Ok(())
}

async fn where_nothing_can_be_held_no_claim_is_made(bench: Bench) -> Outcome {
    let claim = bench.foreign();
    let unknown = MessageId(bench.mint());
    assert_eq!(bench.import_claim(claim, &[unknown]).await?, 0);
    bench.post(1).await?;
    assert_eq!(bench.import_claim(claim, &[unknown]).await?, 0);
    assert_eq!(bench.import_claim(claim, &[]).await?, 0);
    refused(bench.find(claim.id).await, NO_CLAIM)?;
    assert_eq!(bench.counts().await?, (1, 0));
    Ok(())
}

async fn a_name_is_free_again_when_its_claim_is_over(bench: Bench) -> Outcome {
    let posted = bench.post(2).await?;
    let claim = bench.foreign();
    bench.import_claim(claim, &posted[..1]).await?;
    bench.advance(minutes(7)).await;
    assert_eq!(bench.import_claim(claim, &posted[1..]).await?, 1);
    assert_eq!(ids(&bench.find(claim.id).await?.messages), posted[1..]);
    assert_eq!(bench.counts().await?, (1, 1));
    Ok(())
}

async fn a_name_is_free_again_when_its_queue_is_purged(bench: Bench) -> Outcome {
    let posted = bench.post(1).await?;
    let claim = bench.foreign();
    bench.import_claim(claim, &posted).await?;
    bench.purge().await?;
    let posted = bench.post(2).await?;
    assert_eq!(bench.import_claim(claim, &posted[..1]).await?, 1);
    assert_eq!(ids(&bench.find(claim.id).await?.messages), posted[..1]);
    assert_eq!(bench.counts().await?, (1, 1));
    Ok(())
}

async fn an_imported_claim_is_of_its_own_queue_alone(bench: Bench) -> Outcome {
    let other = bench.on("other");
    let (here, there) = (bench.post(1).await?, other.post(1).await?);
    let claim = bench.foreign();
    assert_eq!(bench.import_claim(claim, &there).await?, 0);
    assert_eq!(bench.import_claim(claim, &here).await?, 1);
    refused(other.find(claim.id).await, NO_CLAIM)?;
    assert_eq!(other.counts().await?, (1, 0));
    // A store may keep two claims of one name, or refuse the second.
    match other.import_claim(claim, &there).await {
        Ok(held) => assert_eq!(held, 1),
        refusal => refused(refusal, ErrorKind::AlreadyExists(Resource::Claim))?,
    }
    assert_eq!(ids(&bench.find(claim.id).await?.messages), here);
    Ok(())
}

async fn a_claim_of_a_thousand_messages_can_be_imported(bench: Bench) -> Outcome {
    let posted = bench.post(1_500).await?;
    let claim = bench.foreign();
    assert_eq!(bench.import_claim(claim, &posted[..1_200]).await?, 1_200);
    assert_eq!(bench.counts().await?, (300, 1_200));
    bench.advance(minutes(7)).await;
    assert_eq!(bench.counts().await?, (1_500, 0));
    Ok(())
}
