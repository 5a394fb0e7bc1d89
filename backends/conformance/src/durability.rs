//! What was acknowledged is there when the store is closed and opened again, and time has gone on meanwhile.

use isimud_contract::{ErrorKind, Kind, Message, Precondition, Resource};
use serde_json::json;

use crate::bench::{Bench, HOUR, minutes};
use crate::management::metadata;
use crate::outcome::{Outcome, refused, together};
use crate::promise::promises;
use crate::steps::{after, everything, first, ids, some_headers, sorted};

promises! {
    a_store_answers_a_ping,
    a_closed_store_is_unavailable,
    messages_are_kept_with_all_that_they_are,
    the_order_goes_on,
    markers_stay_positions,
    markers_stay_positions_in_an_emptied_queue,
    claims_live_on,
    claims_end_in_time,
    a_claim_ends_while_the_store_is_closed,
    a_message_ends_while_the_store_is_closed,
    a_message_becomes_due_while_the_store_is_closed,
    extended_ttls_are_kept_across_a_restart,
    counters_are_kept,
    what_was_deleted_stays_deleted,
    what_was_purged_stays_purged,
    what_was_acknowledged_before_the_close_is_kept,
    queues_and_their_versions_are_kept,
}

async fn a_store_answers_a_ping(bench: Bench) -> Outcome {
    bench.store().ping().await?;
    bench.post(1).await?;
    bench.store().ping().await?;
    Ok(())
}

async fn a_closed_store_is_unavailable(bench: Bench) -> Outcome {
    const CLOSED: ErrorKind = ErrorKind::Unavailable;
    let posted = bench.post(1).await?;
    bench.store().close().await?;
    refused(bench.post(1).await, CLOSED)?;
    refused(bench.delete(&posted, Precondition::None).await, CLOSED)?;
    refused(bench.pop(1).await, CLOSED)?;
    refused(bench.stats().await, CLOSED)?;
    refused(bench.purge().await, CLOSED)?;
    refused(bench.page(first(1)).await, CLOSED)?;
    refused(bench.get(&posted).await, CLOSED)?;
    refused(bench.claim(1).await, CLOSED)?;
    refused(bench.store().ping().await, CLOSED)?;
    Ok(())
}

async fn messages_are_kept_with_all_that_they_are(bench: Bench) -> Outcome {
    let special = Message {
        sealed: true,
        age: HOUR,
        remaining_ttl: minutes(20),
        delay: minutes(3),
        claim_count: 2,
        transfers: 5,
        headers: some_headers(),
        body: "\" ü 🦀 \\u0000\"".into(),
        ..bench.message()
    };
    let [plain] = bench.posted().await?;
    bench.post_one(special.clone()).await?;
    let bench = bench.reopen().await?;
    assert_eq!(bench.all().await?, [plain, special.id]);
    let kept = bench.get_one(special.id).await?;
    assert_eq!(kept.client, special.client);
    assert_eq!(kept.body, special.body);
    assert_eq!(kept.ttl, special.ttl);
    assert_eq!(kept.claim_count, 2);
    assert_eq!(kept.transfers, 5);
    assert_eq!(kept.headers, special.headers);
    assert!(kept.sealed);
    bench.assert_span(kept.age, special.age);
    bench.assert_span(kept.remaining_ttl, special.remaining_ttl);
    bench.assert_span(kept.delay, special.delay);
    Ok(())
}

async fn the_order_goes_on(bench: Bench) -> Outcome {
    bench.ordered()?;
    let before = bench.post(3).await?;
    let bench = bench.reopen().await?;
    let between = bench.post(3).await?;
    let bench = bench.reopen().await?;
    let order = [before, between, bench.post(3).await?].concat();
    assert_eq!(bench.all().await?, order);
    assert_eq!(ids(&bench.take(9).await?.messages), order);
    Ok(())
}

async fn markers_stay_positions(bench: Bench) -> Outcome {
    bench.ordered()?;
    let posted = bench.post(4).await?;
    let marker = bench.page(first(2)).await?.marker;
    let bench = bench.reopen().await?;
    let news = bench.post(1).await?;
    let rest = bench.page(after(marker)).await?;
    assert_eq!(ids(&rest.messages), [&posted[2..], &news[..]].concat());
    Ok(())
}

/// No message is left that remembers the last number, and it is not used again all the same.
async fn markers_stay_positions_in_an_emptied_queue(bench: Bench) -> Outcome {
    bench.ordered()?;
    let posted = bench.post(4).await?;
    let marker = bench.page(first(4)).await?.marker;
    bench.delete(&posted, Precondition::None).await?;
    let bench = bench.reopen().await?;
    let news = bench.post(2).await?;
    assert_eq!(ids(&bench.page(after(marker)).await?.messages), news);
    Ok(())
}

async fn claims_live_on(bench: Bench) -> Outcome {
    let posted = bench.post(3).await?;
    let claim = bench.take(3).await?;
    bench.advance(minutes(2)).await;
    let bench = bench.reopen().await?;
    assert_eq!(bench.counts().await?, (0, 3));
    assert!(bench.claim(1).await?.is_none());
    let found = bench.find(claim.id).await?;
    assert_eq!(sorted(ids(&found.messages)), posted);
    assert_eq!(found.ttl, claim.ttl);
    bench.assert_span(found.age, minutes(2));
    assert_eq!(bench.settle(&posted, claim.id).await?, 3);
    Ok(())
}

async fn claims_end_in_time(bench: Bench) -> Outcome {
    let posted = bench.post(2).await?;
    let claim = bench.take(2).await?;
    let bench = bench.reopen().await?;
    bench.advance(minutes(4)).await;
    assert_eq!(bench.counts().await?, (0, 2));
    bench.advance(minutes(1)).await;
    assert_eq!(bench.counts().await?, (2, 0));
    let answer = bench.find(claim.id).await;
    refused(answer, ErrorKind::NotFound(Resource::Claim))?;
    assert_eq!(sorted(ids(&bench.take(2).await?.messages)), posted);
    Ok(())
}

async fn a_claim_ends_while_the_store_is_closed(bench: Bench) -> Outcome {
    let posted = bench.post(2).await?;
    let claim = bench.take(2).await?;
    let bench = bench.close().await?;
    bench.advance(claim.ttl).await;
    let bench = bench.open_again().await?;
    assert_eq!(bench.counts().await?, (2, 0));
    assert_eq!(sorted(ids(&bench.take(2).await?.messages)), posted);
    Ok(())
}

async fn a_message_ends_while_the_store_is_closed(bench: Bench) -> Outcome {
    bench.post_one(bench.living(minutes(2))).await?;
    let [lasting] = bench.posted().await?;
    let bench = bench.close().await?;
    bench.advance(minutes(2)).await;
    let bench = bench.open_again().await?;
    assert_eq!(bench.all().await?, [lasting]);
    assert_eq!(bench.counts().await?, (1, 0));
    Ok(())
}

async fn a_message_becomes_due_while_the_store_is_closed(bench: Bench) -> Outcome {
    let early = bench.post_one(bench.delayed(minutes(2))).await?;
    let late = bench.post_one(bench.delayed(minutes(4))).await?;
    let bench = bench.close().await?;
    bench.advance(minutes(2)).await;
    let bench = bench.open_again().await?;
    assert_eq!(bench.pop(2).await?, [early]);
    bench.advance(minutes(2)).await;
    assert_eq!(bench.pop(2).await?, [late]);
    Ok(())
}

async fn extended_ttls_are_kept_across_a_restart(bench: Bench) -> Outcome {
    let id = bench.post_one(bench.living(minutes(2))).await?;
    bench.take(1).await?;
    let bench = bench.reopen().await?;
    assert_eq!(bench.get_one(id).await?.ttl, minutes(6));
    bench.advance(minutes(5)).await;
    assert_eq!(bench.counts().await?, (1, 0));
    bench.advance(minutes(1)).await;
    assert_eq!(bench.counts().await?, (0, 0));
    Ok(())
}

async fn counters_are_kept(bench: Bench) -> Outcome {
    let [id] = bench.posted().await?;
    let lease = bench.strict_lease(1, &bench.on("dead"));
    bench.take_on(&lease, 1).await?;
    bench.release(lease.id).await?;
    let bench = bench.reopen().await?;
    assert_eq!(bench.get_one(id).await?.claim_count, 1);
    let dead = bench.on("dead");
    let lease = bench.strict_lease(1, &dead);
    assert_eq!(bench.claim_on(&lease, 1).await?, None);
    let bench = dead.reopen().await?;
    assert_eq!(bench.all().await?, [id]);
    Ok(())
}

async fn what_was_deleted_stays_deleted(bench: Bench) -> Outcome {
    let [deleted, popped, settled, kept] = bench.posted().await?;
    bench.delete(&[deleted], Precondition::Unclaimed).await?;
    bench.ordered()?;
    assert_eq!(bench.pop(1).await?, [popped]);
    let claim = bench.take(2).await?;
    bench.settle(&[settled], claim.id).await?;
    let bench = bench.reopen().await?;
    assert_eq!(bench.all().await?, [kept]);
    bench.advance(claim.ttl).await;
    assert_eq!(ids(&bench.take(5).await?.messages), [kept]);
    Ok(())
}

async fn what_was_purged_stays_purged(bench: Bench) -> Outcome {
    bench.ordered()?;
    bench.post(5).await?;
    let marker = bench.page(first(5)).await?.marker;
    bench.take(2).await?;
    bench.purge().await?;
    let bench = bench.reopen().await?;
    assert!(bench.stats().await?.is_empty());
    let posted = bench.post(1).await?;
    assert_eq!(ids(&bench.page(after(marker)).await?.messages), posted);
    Ok(())
}

/// A close finishes what was begun: each overlapping post is either refused or kept whole.
async fn what_was_acknowledged_before_the_close_is_kept(bench: Bench) -> Outcome {
    let posting = together((0..50).map(|_| {
        let bench = bench.clone();
        async move { Ok(bench.post(3).await.unwrap_or_default()) }
    }));
    let closing = async {
        tokio::task::yield_now().await;
        bench.clone().close().await
    };
    let (posted, closed) = tokio::join!(posting, closing);
    let acknowledged = posted?.concat();
    let bench = closed?.open_again().await?;
    let kept = bench.pages(everything()).await?;
    assert_eq!(kept.len() % 3, 0, "a part of a post was kept");
    for id in acknowledged {
        assert!(kept.contains(&id), "an acknowledged message is lost");
    }
    Ok(())
}

async fn queues_and_their_versions_are_kept(bench: Bench) -> Outcome {
    let store = bench.management()?;
    let created = bench.create(json!({"old": true})).await?;
    let changed = metadata(json!({"z": 1, "a": {"ü": [null, 1.5]}}));
    let update = store.update_queue(&bench.queue, &changed, &created.placement, created.version);
    assert!(update.await?.is_some());
    let before = bench.found().await?;
    let bench = bench.reopen().await?;
    assert_eq!(bench.found().await?, before);
    assert_eq!(bench.count(Kind::Queue).await?, 1);
    Ok(())
}
