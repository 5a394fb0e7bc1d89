//! What is deleted is gone, for every copy of it, and as far as the precondition allows.

use std::slice::from_ref;
use std::time::Duration;

use isimud_contract::{
    Delivery, ErrorKind, Lease, Message, Precondition, Resource, UnknownIds, Verdict,
};

use super::{LedgerBench, granted};
use crate::bench::{MINUTE, minutes};
use crate::outcome::{Outcome, Step, refused, together};
use crate::promise::promises;
use crate::steps::ids;

promises! {
    on LedgerBench;
    a_deleted_message_is_gone_whenever_it_is_delivered,
    a_deleted_message_stays_gone_until_it_would_have_expired,
    a_copy_from_a_clock_ahead_stays_gone_too,
    a_longer_copy_from_a_clock_ahead_stays_gone_too,
    a_renewed_copy_from_a_clock_ahead_stays_gone_too,
    deleting_counts_live_messages_once,
    deleting_gives_back_receipts,
    one_message_that_does_not_fit_refuses_all,
    each_precondition_has_its_refusals,
    unknown_ids_are_skipped_and_get_no_row,
    unknown_ids_are_refused_on_demand,
    the_tombstone_of_a_deleted_message_is_kept,
    one_of_many_concurrent_deletes_counts,
    what_is_forgotten_is_judged_by_its_envelope_again,
    only_what_is_free_and_due_is_forgotten,
}

async fn a_deleted_message_is_gone_whenever_it_is_delivered(bench: LedgerBench) -> Outcome {
    let [recorded, seen] = [bench.message(), bench.message()];
    bench.record(from_ref(&recorded)).await?;
    let copies = bench.deliveries(&[recorded.clone(), seen.clone()]);
    bench.take(&copies[1..]).await?;
    bench
        .delete(&[recorded.id, seen.id], Precondition::None)
        .await?;
    for _ in 0..3 {
        let verdicts = bench.claim(&bench.lease(), &copies).await?;
        assert_eq!(verdicts, [Verdict::Gone, Verdict::Gone]);
        bench.advance(minutes(10)).await;
    }
    assert!(bench.rows().await?.is_empty());
    let found = bench
        .ledger
        .get(&bench.queue, &[recorded.id, seen.id])
        .await?;
    assert!(found.is_empty());
    Ok(())
}

async fn a_deleted_message_stays_gone_until_it_would_have_expired(bench: LedgerBench) -> Outcome {
    let message = bench.living(minutes(2));
    let copy = bench.delivery(&message);
    let lease = bench.take(from_ref(&copy)).await?;
    // The claim made its life longer.
    bench
        .delete(&[message.id], Precondition::ClaimedBy(vec![lease.id]))
        .await?;
    for _ in 0..8 {
        assert_eq!(bench.verdict(&copy).await?, Verdict::Gone);
        bench.advance(MINUTE).await;
    }
    Ok(())
}

/// Lets the message end here, of which the ledger hears nothing, and only then delivers the copy until that ends too.
async fn assert_gone_from(bench: &LedgerBench, end: Duration, copy: &Delivery) -> Step<()> {
    bench.advance(end).await;
    for _ in 0..30 {
        assert_eq!(bench.verdict(copy).await?, Verdict::Gone);
        bench.advance(MINUTE).await;
    }
    Ok(())
}

/// By its envelope the copy lives on when the message has ended here: that must not be enough.
async fn a_copy_from_a_clock_ahead_stays_gone_too(bench: LedgerBench) -> Outcome {
    let message = bench.living(minutes(5));
    let ahead = bench.now().after(minutes(20));
    let epoch = bench.epoch().await?;
    bench
        .record_in(Some(epoch), ahead, from_ref(&message))
        .await?;
    let copy = bench.delivery_of(&message, ahead);
    bench.delete(&[message.id], Precondition::Unclaimed).await?;
    assert_gone_from(&bench, minutes(10), &copy).await?;
    Ok(())
}

async fn a_longer_copy_from_a_clock_ahead_stays_gone_too(bench: LedgerBench) -> Outcome {
    let message = bench.living(minutes(2));
    let (lease, ahead) = (bench.lease(), bench.now().after(minutes(20)));
    let got = [bench.delivery(&message)];
    let purpose = isimud_contract::Purpose::Claim(&lease);
    let verdicts = bench
        .ledger
        .grant(&bench.queue, purpose, 1, ahead, &got)
        .await?;
    let longer = granted(verdicts[0].clone())?;
    let copy = bench.delivery_of(&longer, ahead);
    bench.delete(&[message.id], Precondition::None).await?;
    assert_gone_from(&bench, minutes(10), &copy).await?;
    Ok(())
}

async fn a_renewed_copy_from_a_clock_ahead_stays_gone_too(bench: LedgerBench) -> Outcome {
    let message = bench.living(minutes(10));
    let lease = bench.take(&[bench.delivery(&message)]).await?;
    let ahead = bench.now().after(minutes(20));
    let terms = Lease {
        ttl: minutes(12),
        ..lease
    };
    let mut renewed = bench.ledger.renew(&bench.queue, &terms, ahead).await?;
    let (longer, _) = renewed.longer.remove(0);
    let copy = bench.delivery_of(&longer, ahead);
    bench.delete(&[message.id], Precondition::None).await?;
    assert_gone_from(&bench, minutes(15), &copy).await?;
    Ok(())
}

async fn deleting_counts_live_messages_once(bench: LedgerBench) -> Outcome {
    let [recorded, ended] = [bench.message(), bench.living(MINUTE)];
    bench.record(&[recorded.clone(), ended.clone()]).await?;
    bench.advance(MINUTE).await;
    let both = [recorded.id, recorded.id, ended.id];
    assert_eq!(bench.delete(&both, Precondition::Unclaimed).await?.0, 1);
    assert_eq!(bench.delete(&both, Precondition::Unclaimed).await?.0, 0);
    assert_eq!(bench.counts().await?, (0, 0));
    Ok(())
}

async fn deleting_gives_back_receipts(bench: LedgerBench) -> Outcome {
    let messages = bench.messages(3);
    bench.record(&messages).await?;
    let got = bench.deliveries(&messages);
    bench.take(&got[1..]).await?;
    let (count, receipts) = bench.delete(&ids(&messages), Precondition::None).await?;
    assert_eq!(count, 3);
    assert_eq!(receipts, [got[1].receipt.clone(), got[2].receipt.clone()]);
    let (_, again) = bench.delete(&ids(&messages), Precondition::None).await?;
    assert!(again.is_empty());
    Ok(())
}

async fn one_message_that_does_not_fit_refuses_all(bench: LedgerBench) -> Outcome {
    let messages = bench.messages(3);
    bench.record(&messages).await?;
    let lease = bench.take(&[bench.delivery(&messages[1])]).await?;
    let all = ids(&messages);
    refused(
        bench.delete(&all, Precondition::Unclaimed).await,
        ErrorKind::Claimed,
    )?;
    let holder = Precondition::ClaimedBy(vec![lease.id]);
    refused(bench.delete(&all, holder).await, ErrorKind::NotClaimed)?;
    assert_eq!(bench.rows().await?, all);
    assert_eq!(bench.counts().await?, (2, 1));
    Ok(())
}

async fn each_precondition_has_its_refusals(bench: LedgerBench) -> Outcome {
    let messages = bench.messages(2);
    let mine = bench.take(&[bench.delivery(&messages[0])]).await?;
    let other = bench.take(&[bench.delivery(&messages[1])]).await?;
    let id = [messages[0].id];
    let held_by = |claim: &Lease| Precondition::ClaimedBy(vec![claim.id]);
    let nobody = held_by(&bench.lease());
    let missing = ErrorKind::NotFound(Resource::Claim);
    refused(bench.delete(&id, nobody.clone()).await, missing)?;
    refused(bench.delete(&id, held_by(&other)).await, ErrorKind::Claimed)?;
    refused(
        bench.delete(&id, Precondition::Unclaimed).await,
        ErrorKind::Claimed,
    )?;
    bench.advance(mine.ttl).await;
    refused(
        bench.delete(&id, held_by(&mine)).await,
        ErrorKind::NotClaimed,
    )?;
    assert_eq!(bench.delete(&id, Precondition::Unclaimed).await?.0, 1);
    // What is gone needs no claim.
    assert_eq!(bench.delete(&id, nobody).await?.0, 0);
    Ok(())
}

async fn unknown_ids_are_skipped_and_get_no_row(bench: LedgerBench) -> Outcome {
    let message = bench.message();
    for precondition in [
        Precondition::None,
        Precondition::Unclaimed,
        Precondition::ClaimedBy(vec![bench.lease().id]),
    ] {
        assert_eq!(
            bench.delete(&[message.id], precondition).await?,
            (0, Vec::new())
        );
    }
    granted(bench.verdict(&bench.delivery(&message)).await?)?;
    Ok(())
}

async fn unknown_ids_are_refused_on_demand(bench: LedgerBench) -> Outcome {
    let [known, unknown] = [bench.message(), bench.message()];
    let lease = bench.take(&[bench.delivery(&known)]).await?;
    let both = [known.id, unknown.id];
    for (precondition, kind) in [
        (Precondition::None, ErrorKind::Unsupported),
        (
            Precondition::ClaimedBy(vec![lease.id]),
            ErrorKind::NotClaimed,
        ),
    ] {
        let deletion = bench
            .ledger
            .delete(&bench.queue, &both, precondition, UnknownIds::Reject)
            .await;
        refused(deletion, kind)?;
    }
    assert_eq!(bench.counts().await?, (0, 1));
    granted(bench.verdict(&bench.delivery(&unknown)).await?)?;
    Ok(())
}

async fn the_tombstone_of_a_deleted_message_is_kept(bench: LedgerBench) -> Outcome {
    let message = bench.message();
    bench.take(&[bench.delivery(&message)]).await?;
    for count in [1, 0] {
        let ids = [message.id];
        let deletion =
            bench
                .ledger
                .delete(&bench.queue, &ids, Precondition::None, UnknownIds::Reject);
        assert_eq!(deletion.await?.0, count);
    }
    Ok(())
}

async fn one_of_many_concurrent_deletes_counts(bench: LedgerBench) -> Outcome {
    let messages = bench.messages(20);
    bench.record(&messages).await?;
    let counts = together((0..8).map(|_| {
        let (bench, ids) = (bench.clone(), ids(&messages));
        async move { Ok(bench.delete(&ids, Precondition::Unclaimed).await?.0) }
    }))
    .await?;
    assert_eq!(counts.iter().sum::<usize>(), 20);
    assert_eq!(counts.iter().filter(|count| **count > 0).count(), 1);
    Ok(())
}

async fn what_is_forgotten_is_judged_by_its_envelope_again(bench: LedgerBench) -> Outcome {
    let messages = bench.messages(2);
    let [recorded, seen] = [messages[0].id, messages[1].id];
    bench.record(&messages).await?;
    let copies = bench.deliveries(&messages);
    let lease = bench.take(&copies[1..]).await?;
    bench.release(lease.id).await?;
    let forget = [recorded, seen, recorded];
    assert_eq!(bench.ledger.forget(&bench.queue, &forget).await?, 2);
    assert!(bench.rows().await?.is_empty());
    assert_eq!(bench.counts().await?, (0, 0));
    assert_eq!(bench.ledger.forget(&bench.queue, &forget).await?, 0);
    // Somebody held them, and gave them back.
    bench.take(&copies).await?;
    assert_eq!(bench.rows().await?, [recorded, seen]);
    assert_eq!(bench.counts().await?, (0, 2));
    Ok(())
}

async fn only_what_is_free_and_due_is_forgotten(bench: LedgerBench) -> Outcome {
    let [held, dead] = [bench.message(), bench.message()];
    let later = Message {
        delay: MINUTE,
        ..bench.message()
    };
    let all = [held.clone(), dead.clone(), later.clone()];
    bench.record(&all).await?;
    bench.take(&[bench.delivery(&held)]).await?;
    bench.delete(&[dead.id], Precondition::None).await?;
    let ids = ids(&all);
    assert_eq!(bench.ledger.forget(&bench.queue, &ids).await?, 0);
    assert_eq!(bench.rows().await?, [held.id, later.id]);
    assert_eq!(bench.verdict(&bench.delivery(&dead)).await?, Verdict::Gone);
    bench.advance(MINUTE).await;
    assert_eq!(bench.ledger.forget(&bench.queue, &ids).await?, 1);
    assert_eq!(bench.counts().await?, (0, 1));
    Ok(())
}
