//! What a store does not promise it refuses as `Unsupported`. Where it promises the thing, the trial is ignored.

use isimud_contract::{ErrorKind, Lease, Message, Precondition};

use crate::bench::{Bench, MILLISECOND, needs};
use crate::outcome::{Abort, Outcome, refused};
use crate::promise::promises;
use crate::steps::{first, ids, sorted};

promises! {
    claims_are_refused_by_a_store_without_them,
    listings_are_refused_by_a_store_without_them,
    reading_by_id_is_refused_by_a_store_without_it,
    deleting_by_id_is_refused_by_a_store_without_listings,
    a_body_up_to_the_stores_limit_is_kept,
    a_body_over_the_stores_limit_is_refused,
    a_delay_over_the_stores_limit_is_refused,
    a_claim_over_the_stores_limit_is_refused,
}

const UNSUPPORTED: ErrorKind = ErrorKind::Unsupported;

async fn claims_are_refused_by_a_store_without_them(bench: Bench) -> Outcome {
    needs(!bench.capabilities().claims, "to lack claims")?;
    bench.post(1).await?;
    let (store, queue, lease) = (bench.store(), &bench.queue, bench.lease());
    let claimed = store.claim(queue, &lease, 1).await;
    let found = store.find_claim(queue, lease.id).await;
    let renewed = store.renew_claim(queue, &lease).await;
    let released = store.release_claim(queue, lease.id).await;
    refused(claimed, UNSUPPORTED)?;
    refused(found, UNSUPPORTED)?;
    refused(renewed, UNSUPPORTED)?;
    refused(released, UNSUPPORTED)?;
    assert_eq!(bench.counts().await?, (1, 0));
    Ok(())
}

async fn listings_are_refused_by_a_store_without_them(bench: Bench) -> Outcome {
    needs(!bench.capabilities().browse, "to lack listings")?;
    bench.post(1).await?;
    let listed = bench.store().list(&bench.queue, first(1)).await;
    refused(listed, UNSUPPORTED)?;
    Ok(())
}

async fn reading_by_id_is_refused_by_a_store_without_it(bench: Bench) -> Outcome {
    needs(!bench.capabilities().browse, "to lack reading by id")?;
    let posted = bench.post(1).await?;
    let found = bench.store().get(&bench.queue, &posted).await;
    refused(found, UNSUPPORTED)?;
    Ok(())
}

/// But for what a claim holds, and what is named with its claim.
async fn deleting_by_id_is_refused_by_a_store_without_listings(bench: Bench) -> Outcome {
    needs(!bench.capabilities().browse, "to lack listings")?;
    let posted = bench.post(3).await?;
    let claim = bench.take(1).await?;
    let (store, queue) = (bench.store(), &bench.queue);
    for precondition in [Precondition::Unclaimed, Precondition::None] {
        let deleted = store.delete(queue, &posted, precondition).await;
        refused(deleted, UNSUPPORTED)?;
    }
    let held = ids(&claim.messages);
    let free = sorted(posted).into_iter().find(|id| !held.contains(id));
    let free = free.ok_or(Abort::Unsupported("to claim one message alone"))?;
    let settled = bench.settle(&[held[0], free], claim.id).await;
    refused(settled, ErrorKind::NotClaimed)?;
    assert_eq!(bench.counts().await?, (2, 1));
    assert_eq!(bench.delete(&held, Precondition::None).await?, 1);
    assert_eq!(bench.delete(&held, Precondition::None).await?, 0);
    assert_eq!(bench.counts().await?, (2, 0));
    Ok(())
}

/// The message is refused with all that were posted beside it.
async fn assert_not_posted(bench: &Bench, message: Message) -> Outcome {
    let messages = vec![bench.message(), message, bench.message()];
    let posted = bench.store().post(&bench.queue, messages).await;
    refused(posted, UNSUPPORTED)?;
    assert_eq!(bench.counts().await?, (0, 0));
    Ok(())
}

fn body_of(size: u64, bench: &Bench) -> Message {
    Message {
        body: vec![b'1'; size as usize].into(),
        ..bench.message()
    }
}

async fn a_body_up_to_the_stores_limit_is_kept(bench: Bench) -> Outcome {
    let largest = bench.capabilities().largest_body;
    let largest = largest.ok_or(Abort::Unsupported("to have a largest body"))?;
    let message = body_of(largest, &bench);
    bench.post_one(message.clone()).await?;
    let popped = bench.store().pop(&bench.queue, 1).await?;
    assert_eq!(popped.len(), 1);
    assert!(popped[0].body == message.body, "the body has changed");
    Ok(())
}

async fn a_body_over_the_stores_limit_is_refused(bench: Bench) -> Outcome {
    let largest = bench.capabilities().largest_body;
    let largest = largest.ok_or(Abort::Unsupported("to have a largest body"))?;
    assert_not_posted(&bench, body_of(largest + 1, &bench)).await
}

async fn a_delay_over_the_stores_limit_is_refused(bench: Bench) -> Outcome {
    let longest = bench.capabilities().longest_delay;
    let longest = longest.ok_or(Abort::Unsupported("to have a longest delay"))?;
    assert_not_posted(&bench, bench.delayed(longest + MILLISECOND)).await
}

async fn a_claim_over_the_stores_limit_is_refused(bench: Bench) -> Outcome {
    let longest = bench.capabilities().longest_claim;
    let longest = longest.ok_or(Abort::Unsupported("to have a longest claim"))?;
    bench.post(1).await?;
    let lease = Lease {
        ttl: longest + MILLISECOND,
        ..bench.lease()
    };
    let claimed = bench.store().claim(&bench.queue, &lease, 1).await;
    refused(claimed, UNSUPPORTED)?;
    assert_eq!(bench.counts().await?, (1, 0));
    Ok(())
}
