//! A record gives messages rows, in order and once, in the epoch that it was made for.

use std::slice::from_ref;

use isimud_contract::{Arrival, Delivery, Message, Precondition, Verdict};

use super::{LedgerBench, granted, held};
use crate::bench::{MINUTE, minutes};
use crate::outcome::{Outcome, together};
use crate::promise::promises;
use crate::steps::{everything, ids};

promises! {
    on LedgerBench;
    recorded_messages_are_listed_in_order,
    a_repeated_record_changes_nothing,
    a_record_leaves_claims_alone,
    a_record_of_a_deleted_message_does_not_bring_it_back,
    a_record_of_an_expired_message_starts_anew,
    a_record_of_a_message_that_comes_back_starts_anew,
    a_record_of_an_earlier_post_changes_nothing,
    an_epoch_lasts_until_a_purge,
    every_queue_has_epochs_of_its_own,
    a_record_for_another_epoch_writes_nothing,
    a_record_without_an_epoch_writes_nothing,
    concurrent_records_are_whole,
    a_record_decides_the_order_whoever_claims_meanwhile,
    a_message_that_awaits_its_record_is_in_no_listing,
    a_delayed_message_that_awaits_its_record_becomes_due,
    a_delivery_that_nobody_records_is_listed_after_a_while,
    a_message_that_awaits_its_record_may_be_deleted,
    a_purge_takes_what_awaits_its_note,
    a_record_puts_messages_at_the_numbers_they_come_with,
    a_delivery_knows_the_number_that_its_message_came_with,
}

async fn recorded_messages_are_listed_in_order(bench: LedgerBench) -> Outcome {
    let mut messages = bench.messages(6);
    messages.reverse();
    bench.record(&messages[..4]).await?;
    bench.record(&messages[4..]).await?;
    assert_eq!(bench.rows().await?, ids(&messages));
    assert_eq!(bench.counts().await?, (6, 0));
    Ok(())
}

async fn a_repeated_record_changes_nothing(bench: LedgerBench) -> Outcome {
    let messages = bench.messages(3);
    bench.record(&messages[..2]).await?;
    bench.record(&messages).await?;
    bench
        .record(&[messages[0].clone(), messages[0].clone()])
        .await?;
    assert_eq!(bench.rows().await?, ids(&messages));
    assert_eq!(bench.counts().await?, (3, 0));
    Ok(())
}

/// A message may be delivered before it is recorded.
async fn a_record_leaves_claims_alone(bench: LedgerBench) -> Outcome {
    let message = bench.message();
    let lease = bench.take(&[bench.delivery(&message)]).await?;
    bench.record(from_ref(&message)).await?;
    assert_eq!(ids(&bench.find(lease.id).await?.messages), [message.id]);
    assert_eq!(bench.counts().await?, (0, 1));
    Ok(())
}

async fn a_record_of_a_deleted_message_does_not_bring_it_back(bench: LedgerBench) -> Outcome {
    let message = bench.message();
    let lease = bench.take(&[bench.delivery(&message)]).await?;
    bench
        .delete(&[message.id], Precondition::ClaimedBy(vec![lease.id]))
        .await?;
    bench.record(from_ref(&message)).await?;
    assert!(bench.rows().await?.is_empty());
    assert_eq!(bench.counts().await?, (0, 0));
    assert_eq!(
        bench.verdict(&bench.delivery(&message)).await?,
        Verdict::Gone
    );
    Ok(())
}

async fn a_record_of_an_expired_message_starts_anew(bench: LedgerBench) -> Outcome {
    let [message, other] = [bench.living(MINUTE), bench.message()];
    bench.record(&[message.clone(), other.clone()]).await?;
    bench.advance(MINUTE).await;
    bench.record(from_ref(&message)).await?;
    assert_eq!(bench.rows().await?, [other.id, message.id]);
    assert_eq!(bench.counts().await?, (2, 0));
    let taken = granted(bench.verdict(&bench.delivery(&message)).await?)?;
    bench.assert_span(taken.age, minutes(0));
    Ok(())
}

async fn a_record_of_a_message_that_comes_back_starts_anew(bench: LedgerBench) -> Outcome {
    let [first, other] = [bench.message(), bench.message()];
    bench.record(&[first.clone(), other.clone()]).await?;
    bench.delete(&[first.id], Precondition::None).await?;
    for transfers in [2, 4] {
        let back = Message {
            transfers,
            ..first.clone()
        };
        bench.record(from_ref(&back)).await?;
        assert_eq!(bench.rows().await?, [other.id, back.id]);
        assert_eq!(bench.counts().await?, (2, 0));
        let taken = granted(bench.verdict(&bench.delivery(&back)).await?)?;
        assert_eq!(taken.transfers, transfers);
    }
    Ok(())
}

async fn a_record_of_an_earlier_post_changes_nothing(bench: LedgerBench) -> Outcome {
    let first = bench.message();
    let back = Message {
        transfers: 2,
        ..first.clone()
    };
    bench.record(from_ref(&back)).await?;
    let lease = bench.take(&[bench.delivery(&back)]).await?;
    bench.record(from_ref(&first)).await?;
    assert_eq!(bench.find(lease.id).await?.messages[0].transfers, 2);
    bench.delete(&[back.id], Precondition::None).await?;
    bench.record(from_ref(&first)).await?;
    bench.record(from_ref(&back)).await?;
    assert_eq!(bench.counts().await?, (0, 0));
    Ok(())
}

async fn an_epoch_lasts_until_a_purge(bench: LedgerBench) -> Outcome {
    let mut seen = Vec::new();
    for _ in 0..3 {
        let epoch = bench.epoch().await?;
        assert!(!seen.contains(&epoch), "{epoch:?} was over");
        bench.record(&bench.messages(2)).await?;
        bench.take(&[bench.delivery(&bench.message())]).await?;
        assert_eq!(bench.epoch().await?, epoch);
        seen.push(epoch);
        bench.ledger.purge(&bench.queue).await?;
    }
    Ok(())
}

async fn every_queue_has_epochs_of_its_own(bench: LedgerBench) -> Outcome {
    let other = bench.on("other");
    let (here, there) = (bench.epoch().await?, other.epoch().await?);
    assert_ne!(here, there);
    bench.ledger.purge(&bench.queue).await?;
    assert_eq!(other.epoch().await?, there);
    Ok(())
}

/// What was sent before a purge, and is recorded after it, may be gone: it must not be listed.
async fn a_record_for_another_epoch_writes_nothing(bench: LedgerBench) -> Outcome {
    let messages = bench.messages(2);
    bench.record(&bench.messages(1)).await?;
    let before = bench.epoch().await?;
    bench.ledger.purge(&bench.queue).await?;
    let present = bench
        .record_in(Some(before), bench.now(), &messages)
        .await?;
    assert_ne!(present, before);
    assert!(bench.rows().await?.is_empty());
    let again = bench
        .record_in(Some(present), bench.now(), &messages)
        .await?;
    assert_eq!(again, present);
    assert_eq!(bench.rows().await?, ids(&messages));
    Ok(())
}

async fn a_record_without_an_epoch_writes_nothing(bench: LedgerBench) -> Outcome {
    let messages = bench.messages(2);
    bench.record_in(None, bench.now(), &messages).await?;
    assert!(bench.rows().await?.is_empty());
    assert_eq!(bench.counts().await?, (0, 0));
    Ok(())
}

async fn concurrent_records_are_whole(bench: LedgerBench) -> Outcome {
    let messages = bench.messages(20);
    together((0..8).map(|_| {
        let (bench, messages) = (bench.clone(), messages.clone());
        async move { bench.record(&messages).await }
    }))
    .await?;
    assert_eq!(bench.rows().await?, ids(&messages));
    assert_eq!(bench.counts().await?, (20, 0));
    Ok(())
}

/// What the broker delivers of a message whose poster has sent it and not recorded it yet.
fn awaited(bench: &LedgerBench, message: &Message) -> Delivery {
    Delivery {
        awaits_record: true,
        ..bench.delivery(message)
    }
}

/// Order is decided once, at the post: a delivery may overtake the record of its message, and changes nothing.
async fn a_record_decides_the_order_whoever_claims_meanwhile(bench: LedgerBench) -> Outcome {
    let messages = bench.messages(5);
    let lease = bench
        .take(&[awaited(&bench, &messages[3]), awaited(&bench, &messages[1])])
        .await?;
    bench.record(&messages).await?;
    assert_eq!(bench.rows().await?, ids(&messages));
    assert_eq!(bench.counts().await?, (3, 2));
    let held: Vec<_> = bench.find(lease.id).await?.messages;
    assert_eq!(ids(&held), [messages[1].id, messages[3].id]);
    let numbers: Vec<_> = held.iter().map(|message| message.arrival).collect();
    let listed = bench
        .ledger
        .list(&bench.queue, everything())
        .await?
        .messages;
    assert_eq!(numbers, [listed[1].arrival, listed[3].arrival]);
    // A record that is repeated, its answer having been lost, moves nothing.
    let more = bench.messages(1);
    bench.record(&more).await?;
    bench.record(&messages).await?;
    assert_eq!(bench.rows().await?, [ids(&messages), ids(&more)].concat());
    Ok(())
}

async fn a_message_that_awaits_its_record_is_in_no_listing(bench: LedgerBench) -> Outcome {
    let [one, two] = [bench.message(), bench.message()];
    let lease = bench.take(&[awaited(&bench, &one)]).await?;
    assert!(bench.rows().await?.is_empty());
    bench.release(lease.id).await?;
    assert!(bench.rows().await?.is_empty());
    bench.record(from_ref(&two)).await?;
    assert_eq!(bench.rows().await?, [two.id]);
    bench.record(from_ref(&one)).await?;
    assert_eq!(bench.rows().await?, [two.id, one.id]);
    // One that was recorded first is where its record has put it.
    let three = bench.message();
    bench.record(from_ref(&three)).await?;
    bench.take(&[awaited(&bench, &three)]).await?;
    assert_eq!(bench.rows().await?, [two.id, one.id, three.id]);
    Ok(())
}

async fn a_delayed_message_that_awaits_its_record_becomes_due(bench: LedgerBench) -> Outcome {
    let message = Message {
        delay: MINUTE,
        ..bench.message()
    };
    held(bench.verdict(&awaited(&bench, &message)).await?)?;
    bench.record(from_ref(&message)).await?;
    assert_eq!(bench.rows().await?, [message.id]);
    bench.advance(minutes(2)).await;
    granted(bench.verdict(&awaited(&bench, &message)).await?)?;
    assert_eq!(bench.counts().await?, (0, 1));
    Ok(())
}

/// Its poster has died between the broker and the ledger.
async fn a_delivery_that_nobody_records_is_listed_after_a_while(bench: LedgerBench) -> Outcome {
    let [lost, recorded] = [bench.message(), bench.message()];
    bench.take(&[awaited(&bench, &lost)]).await?;
    bench.record(from_ref(&recorded)).await?;
    bench.advance(MINUTE).await;
    // Whoever writes next, or the sweep, finds it.
    let mut rows = Vec::new();
    for _ in 0..100 {
        bench.verdict(&bench.delivery(&recorded)).await?;
        rows = bench.rows().await?;
        if rows.len() == 2 {
            break;
        }
        bench.advance(crate::bench::MILLISECOND * 200).await;
    }
    assert_eq!(rows, [recorded.id, lost.id]);
    assert_eq!(bench.counts().await?, (0, 2));
    Ok(())
}

async fn a_message_that_awaits_its_record_may_be_deleted(bench: LedgerBench) -> Outcome {
    let [one, two] = [bench.message(), bench.message()];
    bench.take(&[awaited(&bench, &one)]).await?;
    assert_eq!(bench.delete(&[one.id], Precondition::None).await?.0, 1);
    bench.record(&[one.clone(), two.clone()]).await?;
    assert_eq!(bench.rows().await?, [two.id]);
    assert_eq!(bench.counts().await?, (1, 0));
    let verdict = bench.verdict(&awaited(&bench, &one)).await?;
    assert!(matches!(verdict, Verdict::Gone));
    Ok(())
}

async fn a_purge_takes_what_awaits_its_note(bench: LedgerBench) -> Outcome {
    let delivery = awaited(&bench, &bench.message());
    bench.take(from_ref(&delivery)).await?;
    bench.ledger.purge(&bench.queue).await?;
    let verdict = bench.verdict(&delivery).await?;
    assert!(matches!(verdict, Verdict::Gone));
    bench.advance(MINUTE).await;
    assert!(bench.rows().await?.is_empty());
    assert_eq!(bench.counts().await?, (0, 0));
    Ok(())
}

async fn a_record_puts_messages_at_the_numbers_they_come_with(bench: LedgerBench) -> Outcome {
    let early = bench.now().0.unsigned_abs() - 1_000_000;
    let [b, c] = [bench.message(), bench.message()];
    let a = Message {
        arrival: Arrival::At(early),
        ..bench.message()
    };
    bench.record(&[b.clone(), c.clone()]).await?;
    bench.record(from_ref(&a)).await?;
    assert_eq!(bench.rows().await?, [a.id, b.id, c.id]);
    Ok(())
}

/// A message that was carried here is where it belongs before its record as well.
async fn a_delivery_knows_the_number_that_its_message_came_with(bench: LedgerBench) -> Outcome {
    let early = bench.now().0.unsigned_abs() - 1_000_000;
    let b = bench.message();
    let a = Message {
        arrival: Arrival::At(early),
        ..bench.message()
    };
    bench.record(from_ref(&b)).await?;
    let taken = granted(bench.verdict(&awaited(&bench, &a)).await?)?;
    assert_eq!(taken.arrival, Arrival::At(early));
    assert_eq!(bench.rows().await?, [a.id, b.id]);
    bench.record(from_ref(&a)).await?;
    assert_eq!(bench.rows().await?, [a.id, b.id]);
    Ok(())
}
