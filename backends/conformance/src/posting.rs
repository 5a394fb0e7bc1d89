//! A post appends its messages in order, all or none, and once.

use std::time::Duration;

use isimud_contract::{Checksum, ClientId, Message, MessageId};
use uuid::Uuid;

use crate::bench::{Bench, HOUR, MINUTE, minutes, needs};
use crate::outcome::{Outcome, together};
use crate::promise::promises;
use crate::steps::{client, everything, ids, some_headers, sorted};

promises! {
    one_post_keeps_its_order,
    posts_follow_one_another,
    ids_do_not_decide_the_order,
    an_empty_post_changes_nothing,
    five_thousand_messages_fit_one_post,
    a_post_is_seen_whole_or_not_at_all,
    a_repeated_post_is_one_post,
    a_repeated_post_adds_only_what_is_missing,
    a_repeated_post_leaves_claims_alone,
    a_repeated_post_adds_nothing_that_was_deleted_where_ids_are_remembered,
    posts_repeated_at_the_same_time_are_one_post,
    an_id_twice_in_one_post_is_one_message,
    every_field_is_kept,
    every_kind_of_client_is_kept,
    an_id_of_any_version_is_kept,
    transfers_and_headers_are_kept,
    a_message_from_another_store_keeps_its_times,
    a_message_from_another_store_ends_in_time,
    a_claim_on_a_posted_message_is_ignored,
    a_message_without_remaining_ttl_is_never_seen,
}

async fn one_post_keeps_its_order(bench: Bench) -> Outcome {
    bench.ordered()?;
    let posted = bench.post(100).await?;
    assert_eq!(bench.all().await?, posted);
    Ok(())
}

async fn posts_follow_one_another(bench: Bench) -> Outcome {
    bench.ordered()?;
    let mut posted = bench.post(3).await?;
    posted.extend(bench.post(1).await?);
    bench.advance(MINUTE).await;
    posted.extend(bench.post(2).await?);
    assert_eq!(bench.all().await?, posted);
    Ok(())
}

/// The clocks of two servers differ: what one of them minted later may arrive first.
async fn ids_do_not_decide_the_order(bench: Bench) -> Outcome {
    bench.ordered()?;
    let mut messages = bench.messages(10);
    messages.reverse();
    let late = messages.split_off(5);
    let mut posted = bench.post_all(messages).await?;
    posted.extend(bench.post_all(late).await?);
    assert_eq!(bench.all().await?, posted);
    assert_eq!(ids(&bench.take(10).await?.messages), posted);
    Ok(())
}

async fn an_empty_post_changes_nothing(bench: Bench) -> Outcome {
    let posted = bench.post(1).await?;
    bench.post_all(Vec::new()).await?;
    assert_eq!(bench.all().await?, posted);
    Ok(())
}

/// The reference fails from about 4,000 on and leaves garbage behind (quirk Q-MSG-9).
async fn five_thousand_messages_fit_one_post(bench: Bench) -> Outcome {
    bench.ordered()?;
    let posted = bench.post(5_000).await?;
    assert_eq!(bench.counts().await?, (5_000, 0));
    assert_eq!(bench.all().await?, posted);
    Ok(())
}

async fn a_post_is_seen_whole_or_not_at_all(bench: Bench) -> Outcome {
    const POSTS: usize = 20;
    const SIZE: usize = 50;
    bench.counted()?;
    let poster = bench.clone();
    let posting = tokio::spawn(async move {
        for _ in 0..POSTS {
            poster.post(SIZE).await.expect("a post is served");
        }
    });
    while !posting.is_finished() {
        let seen = bench.stats().await?.free;
        assert_eq!(seen % SIZE as u64, 0, "a part of a post was seen: {seen}");
    }
    assert_eq!(bench.counts().await?, ((POSTS * SIZE) as u64, 0));
    Ok(())
}

/// A server that lost the answer to a post sends it again with the same ids.
async fn a_repeated_post_is_one_post(bench: Bench) -> Outcome {
    bench.ordered()?;
    let messages = bench.messages(3);
    let posted = bench.post_all(messages.clone()).await?;
    let later = bench.post(1).await?;
    bench.post_all(messages).await?;
    assert_eq!(bench.all().await?, [posted, later].concat());
    assert_eq!(bench.counts().await?, (4, 0));
    Ok(())
}

async fn a_repeated_post_adds_only_what_is_missing(bench: Bench) -> Outcome {
    bench.ordered()?;
    let [first, second, third] = [bench.message(), bench.message(), bench.message()];
    bench.post_all(vec![first.clone(), second.clone()]).await?;
    let changed = Message {
        body: "\"changed\"".into(),
        ..second.clone()
    };
    bench.post_all(vec![changed, third.clone()]).await?;
    let order = [first.id, second.id, third.id];
    assert_eq!(bench.all().await?, order);
    assert_eq!(bench.get_one(second.id).await?.body, second.body);
    Ok(())
}

async fn a_repeated_post_leaves_claims_alone(bench: Bench) -> Outcome {
    bench.exact()?;
    let messages = bench.messages(2);
    bench.post_all(messages.clone()).await?;
    let claim = bench.take(2).await?;
    bench.post_all(messages).await?;
    assert_eq!(bench.counts().await?, (0, 2));
    assert_eq!(bench.find(claim.id).await?.messages.len(), 2);
    Ok(())
}

/// What crosses a bridge may come again when it has been consumed already.
async fn a_repeated_post_adds_nothing_that_was_deleted_where_ids_are_remembered(
    bench: Bench,
) -> Outcome {
    let deduplicates = bench.capabilities().deduplicates;
    needs(deduplicates, "to remember the ids of what was deleted")?;
    let messages = bench.messages(5);
    let posted = bench.post_all(messages.clone()).await?;
    let mut met = Vec::new();
    while let Some(claim) = bench.claim(5).await? {
        let claimed = ids(&claim.messages);
        bench.settle(&claimed, claim.id).await?;
        met.extend(claimed);
    }
    assert_eq!(sorted(met), sorted(posted));
    bench.advance(MINUTE).await;
    bench.post_all(messages).await?;
    assert_eq!(bench.claim(5).await?, None);
    assert_eq!(bench.pop(5).await?, []);
    Ok(())
}

async fn posts_repeated_at_the_same_time_are_one_post(bench: Bench) -> Outcome {
    bench.exact()?;
    let messages = bench.messages(20);
    together((0..8).map(|_| {
        let (bench, messages) = (bench.clone(), messages.clone());
        async move { bench.post_all(messages).await }
    }))
    .await?;
    assert_eq!(bench.counts().await?, (20, 0));
    assert_eq!(sorted(bench.all().await?), sorted(ids(&messages)));
    Ok(())
}

async fn an_id_twice_in_one_post_is_one_message(bench: Bench) -> Outcome {
    let message = bench.message();
    bench.post_all(vec![message.clone(); 2]).await?;
    assert_eq!(bench.all().await?, [message.id]);
    assert_eq!(bench.counts().await?, (1, 0));
    Ok(())
}

async fn every_field_is_kept(bench: Bench) -> Outcome {
    let message = Message {
        sealed: true,
        checksum: Some(Checksum(*b"\x00\x01\x7f\x80\xfe\xffABCDEFGHIJ")),
        ..bench.message()
    };
    bench.post_one(message.clone()).await?;
    let listed = bench.page(everything()).await?.messages;
    let claimed = bench.take(1).await?.messages;
    for kept in listed.iter().chain(&claimed) {
        assert_eq!(kept.id, message.id);
        assert_eq!(kept.client, message.client);
        assert_eq!(kept.body, message.body);
        assert!(kept.sealed);
        assert_eq!(kept.checksum, message.checksum);
        assert_eq!(kept.ttl, message.ttl);
        assert_eq!(kept.claim_count, 0);
    }
    assert_eq!((listed.len(), claimed.len()), (1, 1));
    Ok(())
}

/// The reference's Redis driver refuses any client that is no UUID (quirk Q-MSG-11).
async fn every_kind_of_client_is_kept(bench: Bench) -> Outcome {
    for client in [
        client(7),
        ClientId::Uuid(Uuid::nil()),
        ClientId::Text("worker 1".into()),
        ClientId::Text("Käpt'n \"Ö\" 🦀\0".into()),
    ] {
        let message = Message {
            client: client.clone(),
            ..bench.message()
        };
        let id = bench.post_one(message).await?;
        assert_eq!(bench.get_one(id).await?.client, client);
    }
    Ok(())
}

/// Imported messages keep the ids of the service that they come from.
async fn an_id_of_any_version_is_kept(bench: Bench) -> Outcome {
    bench.ordered()?;
    let given = [
        "c8cbd19a-842e-4794-8e25-3d5e2df00f2b",
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "50b0c1de-0000-1000-8000-00805f9b34fb",
    ]
    .map(|text| MessageId::parse(text).expect("canonical"));
    let messages = given.map(|id| Message {
        id,
        ..bench.message()
    });
    bench.post_all(messages.into()).await?;
    assert_eq!(bench.all().await?, given);
    assert_eq!(ids(&bench.get(&given).await?), given);
    Ok(())
}

/// By everything that gives a message out.
async fn transfers_and_headers_are_kept(bench: Bench) -> Outcome {
    let message = Message {
        transfers: 70_000,
        headers: some_headers(),
        ..bench.message()
    };
    let id = bench.post_one(message.clone()).await?;
    let check = |shown: &[Message]| {
        assert_eq!(ids(shown), [id]);
        assert_eq!(shown[0].transfers, message.transfers);
        assert_eq!(shown[0].headers, message.headers);
        assert_eq!(shown[0].body, message.body);
    };
    if bench.capabilities().browse {
        check(&bench.get(&[id]).await?);
        check(&bench.page(everything()).await?.messages);
    }
    let claim = bench.take(1).await?;
    check(&claim.messages);
    check(&bench.find(claim.id).await?.messages);
    bench.release(claim.id).await?;
    check(&bench.store().pop(&bench.queue, 1).await?);
    Ok(())
}

async fn a_message_from_another_store_keeps_its_times(bench: Bench) -> Outcome {
    let message = Message {
        ttl: 3 * HOUR,
        age: 2 * HOUR,
        remaining_ttl: minutes(30),
        delay: minutes(10),
        claim_count: 4,
        ..bench.message()
    };
    let id = bench.post_one(message).await?;
    bench.advance(minutes(5)).await;
    let kept = bench.get_one(id).await?;
    assert_eq!(kept.ttl, 3 * HOUR);
    bench.assert_span(kept.age, 2 * HOUR + minutes(5));
    bench.assert_span(kept.remaining_ttl, minutes(25));
    bench.assert_span(kept.delay, minutes(5));
    assert_eq!(kept.claim_count, 4);
    Ok(())
}

async fn a_message_from_another_store_ends_in_time(bench: Bench) -> Outcome {
    let message = Message {
        ttl: HOUR,
        age: 2 * HOUR,
        remaining_ttl: minutes(30),
        ..bench.message()
    };
    let id = bench.post_one(message).await?;
    bench.advance(minutes(29)).await;
    assert_eq!(bench.listed().await?, [id]);
    bench.advance(MINUTE).await;
    assert!(bench.listed().await?.is_empty());
    Ok(())
}

async fn a_claim_on_a_posted_message_is_ignored(bench: Bench) -> Outcome {
    let message = Message {
        claim: Some(bench.lease().id),
        ..bench.message()
    };
    let id = bench.post_one(message).await?;
    assert_eq!(bench.get_one(id).await?.claim, None);
    assert_eq!(bench.counts().await?, (1, 0));
    assert_eq!(ids(&bench.take(1).await?.messages), [id]);
    Ok(())
}

async fn a_message_without_remaining_ttl_is_never_seen(bench: Bench) -> Outcome {
    let message = Message {
        remaining_ttl: Duration::ZERO,
        ..bench.message()
    };
    let id = bench.post_one(message).await?;
    assert!(bench.all().await?.is_empty());
    assert!(bench.get(&[id]).await?.is_empty());
    assert_eq!(bench.counts().await?, (0, 0));
    assert!(bench.claim(1).await?.is_none());
    Ok(())
}
