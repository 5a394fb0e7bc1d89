//! Every delivery gets the first verdict that fits it.

use std::slice::from_ref;

use isimud_contract::{
    ErrorKind, Lease, Message, Precondition, Purpose, Resource, UnknownIds, Verdict,
};

use super::{LedgerBench, exceeded, granted, held, is_longer};
use crate::bench::{MILLISECOND, MINUTE, minutes};
use crate::outcome::{Outcome, Step, refused, together};
use crate::promise::promises;
use crate::steps::{client, ids, some_headers};

promises! {
    on LedgerBench;
    a_message_without_a_row_is_granted_and_gets_one,
    a_recorded_message_is_granted,
    transfers_and_headers_are_kept,
    verdicts_come_in_the_order_of_their_deliveries,
    a_held_message_is_held_until_its_claim_ends,
    a_message_twice_in_one_call_is_granted_once,
    a_message_is_free_when_its_claim_has_ended,
    a_message_that_is_not_due_is_held_and_gets_a_row,
    a_recorded_message_that_is_not_due_is_held,
    an_ended_message_is_gone_and_gets_no_row,
    an_expired_recorded_message_is_gone,
    what_is_beyond_the_limit_is_free,
    a_limit_of_nothing_grants_nothing,
    a_popped_message_is_gone,
    a_pop_neither_counts_nor_spends,
    claims_count_where_there_is_a_policy,
    a_message_over_the_limit_is_held_by_a_claim_that_nobody_can_name,
    a_message_over_the_limit_stays_over_it_until_it_is_deleted,
    a_queue_that_is_its_own_target_counts_anew,
    what_the_envelope_says_was_counted_counts,
    the_row_knows_better_than_the_copy,
    a_message_lives_longer_than_its_claim,
    a_longer_ttl_is_told_until_it_is_recorded,
    an_id_may_be_posted_again_when_its_message_has_ended,
    many_judges_at_once_grant_a_message_once,
    a_deleted_message_that_comes_back_is_granted,
    a_copy_of_an_earlier_post_is_gone,
    a_message_that_comes_back_takes_the_place_of_an_earlier_post,
    a_message_that_comes_back_and_is_not_granted_leaves_its_tombstone,
    the_older_of_two_posts_in_one_call_is_gone,
}

async fn a_message_without_a_row_is_granted_and_gets_one(bench: LedgerBench) -> Outcome {
    let message = bench.message();
    assert!(bench.rows().await?.is_empty());
    let verdict = bench.verdict(&bench.delivery(&message)).await?;
    assert!(!is_longer(&verdict));
    let taken = granted(verdict)?;
    assert_eq!(taken.body, message.body);
    assert_eq!(taken.client, message.client);
    assert_eq!(taken.ttl, message.ttl);
    bench.assert_span(taken.remaining_ttl, message.remaining_ttl);
    assert_eq!(bench.rows().await?, [message.id]);
    assert_eq!(bench.counts().await?, (0, 1));
    Ok(())
}

async fn transfers_and_headers_are_kept(bench: LedgerBench) -> Outcome {
    let messages = [0, 1].map(|transfers| Message {
        transfers,
        headers: some_headers(),
        ..bench.message()
    });
    let [recorded, met] = &messages;
    bench.record(from_ref(recorded)).await?;
    // What has a row is judged by the row, which the second time is that of the first delivery.
    for _ in 0..2 {
        let lease = bench.lease();
        let verdicts = bench.claim(&lease, &bench.deliveries(&messages)).await?;
        let taken: Vec<_> = verdicts.into_iter().map(granted).collect::<Step<_>>()?;
        let found = bench.find(lease.id).await?.messages;
        for shown in [taken, found] {
            assert_eq!(shown.len(), 2);
            for (shown, posted) in shown.iter().zip([recorded, met]) {
                assert_eq!(shown.id, posted.id);
                assert_eq!(shown.transfers, posted.transfers);
                assert_eq!(shown.headers, posted.headers);
            }
        }
        bench.release(lease.id).await?;
    }
    Ok(())
}

async fn a_recorded_message_is_granted(bench: LedgerBench) -> Outcome {
    let message = bench.message();
    bench.record(from_ref(&message)).await?;
    assert_eq!(bench.counts().await?, (1, 0));
    bench.advance(minutes(10)).await;
    let lease = bench.lease();
    let copy = bench.delivery_of(&message, bench.now().before(minutes(10)));
    let taken = granted(bench.claim(&lease, &[copy]).await?.remove(0))?;
    assert_eq!(taken.claim, Some(lease.id));
    bench.assert_span(taken.age, minutes(10));
    bench.assert_span(taken.remaining_ttl, minutes(50));
    assert_eq!(bench.counts().await?, (0, 1));
    Ok(())
}

async fn verdicts_come_in_the_order_of_their_deliveries(bench: LedgerBench) -> Outcome {
    let [held, gone, free] = [bench.message(), bench.message(), bench.message()];
    bench.take(&[bench.delivery(&held)]).await?;
    bench.record(from_ref(&gone)).await?;
    bench.delete(&[gone.id], Precondition::Unclaimed).await?;
    let late = Message {
        delay: MINUTE,
        ..bench.message()
    };
    let got = bench.deliveries(&[free.clone(), held, gone, late]);
    let verdicts = bench.claim(&bench.lease(), &got).await?;
    let [first, second, third, fourth] = &verdicts[..] else {
        panic!("four deliveries have four verdicts");
    };
    assert_eq!(granted(first.clone())?.id, free.id);
    assert!(matches!(second, Verdict::Held(_)), "{second:?}");
    assert_eq!(*third, Verdict::Gone);
    assert!(matches!(fourth, Verdict::Held(_)), "{fourth:?}");
    Ok(())
}

async fn a_held_message_is_held_until_its_claim_ends(bench: LedgerBench) -> Outcome {
    let message = bench.message();
    let lease = bench.take(&[bench.delivery(&message)]).await?;
    bench.advance(minutes(2)).await;
    let left = held(bench.verdict(&bench.delivery(&message)).await?)?;
    bench.assert_span(left, minutes(3));
    let popped = bench
        .judge(Purpose::Pop, 1, &[bench.delivery(&message)])
        .await?;
    bench.assert_span(held(popped[0].clone())?, minutes(3));
    assert_eq!(ids(&bench.find(lease.id).await?.messages), [message.id]);
    Ok(())
}

async fn a_message_twice_in_one_call_is_granted_once(bench: LedgerBench) -> Outcome {
    for recorded in [false, true] {
        let message = bench.message();
        if recorded {
            bench.record(from_ref(&message)).await?;
        }
        let lease = bench.lease();
        let got = [bench.delivery(&message), bench.delivery(&message)];
        let verdicts = bench.claim(&lease, &got).await?;
        granted(verdicts[0].clone())?;
        bench.assert_span(held(verdicts[1].clone())?, lease.ttl);
    }
    assert_eq!(bench.counts().await?, (0, 2));
    Ok(())
}

async fn a_message_is_free_when_its_claim_has_ended(bench: LedgerBench) -> Outcome {
    bench.to_the_millisecond()?;
    let message = bench.message();
    let lease = bench.take(&[bench.delivery(&message)]).await?;
    bench.advance(lease.ttl - MILLISECOND).await;
    assert_eq!(
        bench.verdict(&bench.delivery(&message)).await?,
        Verdict::Held(MILLISECOND)
    );
    bench.advance(MILLISECOND).await;
    assert_eq!(bench.counts().await?, (1, 0));
    granted(bench.verdict(&bench.delivery(&message)).await?)?;
    assert_eq!(bench.counts().await?, (0, 1));
    Ok(())
}

async fn a_message_that_is_not_due_is_held_and_gets_a_row(bench: LedgerBench) -> Outcome {
    let message = Message {
        delay: minutes(3),
        ..bench.message()
    };
    let copy = bench.delivery_of(&message, bench.now().before(MINUTE));
    bench.assert_span(held(bench.verdict(&copy).await?)?, minutes(2));
    assert_eq!(bench.counts().await?, (1, 0));
    assert_eq!(bench.rows().await?, [message.id]);
    bench.advance(minutes(2)).await;
    let taken = granted(bench.verdict(&copy).await?)?;
    assert!(taken.delay.is_zero());
    Ok(())
}

async fn a_recorded_message_that_is_not_due_is_held(bench: LedgerBench) -> Outcome {
    let message = Message {
        delay: minutes(3),
        ..bench.message()
    };
    bench.record(from_ref(&message)).await?;
    let copy = bench.delivery(&message);
    bench.assert_span(held(bench.verdict(&copy).await?)?, minutes(3));
    bench.advance(minutes(3)).await;
    granted(bench.verdict(&copy).await?)?;
    Ok(())
}

async fn an_ended_message_is_gone_and_gets_no_row(bench: LedgerBench) -> Outcome {
    let message = bench.living(MINUTE);
    let copy = bench.delivery(&message);
    bench.advance(MINUTE).await;
    assert_eq!(bench.verdict(&copy).await?, Verdict::Gone);
    let (ledger, ids) = (&bench.ledger, [message.id]);
    let known = ledger.delete(&bench.queue, &ids, Precondition::None, UnknownIds::Reject);
    refused(known.await, ErrorKind::Unsupported)?;
    Ok(())
}

async fn an_expired_recorded_message_is_gone(bench: LedgerBench) -> Outcome {
    let message = bench.living(MINUTE);
    bench.record(from_ref(&message)).await?;
    let copy = bench.delivery(&message);
    bench.advance(MINUTE).await;
    assert_eq!(bench.counts().await?, (0, 0));
    assert_eq!(bench.verdict(&copy).await?, Verdict::Gone);
    Ok(())
}

async fn what_is_beyond_the_limit_is_free(bench: LedgerBench) -> Outcome {
    let messages = bench.messages(5);
    bench.record(&messages[3..]).await?;
    let got = bench.deliveries(&messages);
    let lease = bench.lease();
    let verdicts = bench.judge(Purpose::Claim(&lease), 2, &got).await?;
    assert!(
        verdicts[..2]
            .iter()
            .all(|v| matches!(v, Verdict::Granted { .. }))
    );
    assert!(verdicts[2..].iter().all(|v| *v == Verdict::Free));
    assert_eq!(
        ids(&bench.find(lease.id).await?.messages),
        ids(&messages[..2])
    );
    assert_eq!(bench.counts().await?, (2, 2));
    bench.take(&got[2..]).await?;
    assert_eq!(bench.counts().await?, (0, 5));
    Ok(())
}

async fn a_limit_of_nothing_grants_nothing(bench: LedgerBench) -> Outcome {
    let copy = bench.delivery(&bench.message());
    let lease = bench.lease();
    let verdicts = bench.judge(Purpose::Claim(&lease), 0, &[copy]).await?;
    assert_eq!(verdicts, [Verdict::Free]);
    let missing = bench.find(lease.id).await;
    refused(missing, ErrorKind::NotFound(Resource::Claim))?;
    Ok(())
}

async fn a_popped_message_is_gone(bench: LedgerBench) -> Outcome {
    for recorded in [false, true] {
        let message = bench.message();
        if recorded {
            bench.record(from_ref(&message)).await?;
        }
        let copy = bench.delivery(&message);
        let verdicts = bench
            .judge(Purpose::Pop, 1, &[copy.clone(), copy.clone()])
            .await?;
        let popped = granted(verdicts[0].clone())?;
        assert_eq!((popped.body, popped.claim), (message.body, None));
        assert_eq!(verdicts[1], Verdict::Gone);
        assert_eq!(bench.verdict(&copy).await?, Verdict::Gone);
    }
    assert_eq!(bench.counts().await?, (0, 0));
    assert!(bench.rows().await?.is_empty());
    Ok(())
}

async fn a_pop_neither_counts_nor_spends(bench: LedgerBench) -> Outcome {
    let message = Message {
        claim_count: 7,
        ..bench.message()
    };
    let popped = bench
        .judge(Purpose::Pop, 1, &[bench.delivery(&message)])
        .await?;
    assert_eq!(granted(popped[0].clone())?.claim_count, 7);
    Ok(())
}

async fn claims_count_where_there_is_a_policy(bench: LedgerBench) -> Outcome {
    let message = bench.message();
    let copy = bench.delivery(&message);
    for (lease, count) in [
        (bench.strict_lease(9), 1),
        (bench.lease(), 1),
        (bench.strict_lease(9), 2),
    ] {
        let taken = granted(bench.claim(&lease, from_ref(&copy)).await?.remove(0))?;
        assert_eq!(taken.claim_count, count);
        bench.release(lease.id).await?;
    }
    Ok(())
}

async fn a_message_over_the_limit_is_held_by_a_claim_that_nobody_can_name(
    bench: LedgerBench,
) -> Outcome {
    let [exhausted, fresh] = [bench.message(), bench.message()];
    let lease = bench.strict_lease(1);
    bench.claim(&lease, &[bench.delivery(&exhausted)]).await?;
    bench.release(lease.id).await?;
    let lease = bench.strict_lease(1);
    let got = bench.deliveries(&[exhausted.clone(), fresh.clone()]);
    let verdicts = bench.judge(Purpose::Claim(&lease), 1, &got).await?;
    let dead = exceeded(verdicts[0].clone())?;
    assert_eq!((dead.id, dead.body), (exhausted.id, exhausted.body.clone()));
    // It does not use up the limit.
    granted(verdicts[1].clone())?;
    assert_eq!(ids(&bench.find(lease.id).await?.messages), [fresh.id]);
    assert_eq!(bench.counts().await?, (0, 2));
    bench.assert_span(held(bench.verdict(&got[0]).await?)?, lease.ttl);
    let refusal = bench.delete(&[exhausted.id], Precondition::Unclaimed).await;
    refused(refusal, ErrorKind::Claimed)?;
    bench.release(lease.id).await?;
    held(bench.verdict(&got[0]).await?)?;
    Ok(())
}

async fn a_message_over_the_limit_stays_over_it_until_it_is_deleted(bench: LedgerBench) -> Outcome {
    let copy = bench.delivery(&bench.message());
    for _ in 0..3 {
        let lease = bench.strict_lease(0);
        exceeded(bench.claim(&lease, from_ref(&copy)).await?.remove(0))?;
        let missing = bench.find(lease.id).await;
        refused(missing, ErrorKind::NotFound(Resource::Claim))?;
        bench.advance(lease.ttl).await;
    }
    assert_eq!(
        bench
            .delete(&[copy.message.id], Precondition::None)
            .await?
            .0,
        1
    );
    assert_eq!(bench.verdict(&copy).await?, Verdict::Gone);
    Ok(())
}

async fn a_queue_that_is_its_own_target_counts_anew(bench: LedgerBench) -> Outcome {
    let copy = bench.delivery(&bench.message());
    let dead = bench.on("dead");
    for count in [1, 2, 1, 2] {
        let lease = dead.strict_lease(2);
        let taken = granted(dead.claim(&lease, from_ref(&copy)).await?.remove(0))?;
        assert_eq!(taken.claim_count, count);
        dead.release(lease.id).await?;
    }
    Ok(())
}

async fn what_the_envelope_says_was_counted_counts(bench: LedgerBench) -> Outcome {
    let exhausted = Message {
        claim_count: 3,
        ..bench.message()
    };
    let verdicts = bench
        .claim(&bench.strict_lease(3), &[bench.delivery(&exhausted)])
        .await?;
    assert_eq!(exceeded(verdicts[0].clone())?.id, exhausted.id);
    Ok(())
}

async fn the_row_knows_better_than_the_copy(bench: LedgerBench) -> Outcome {
    let message = bench.message();
    bench.record(from_ref(&message)).await?;
    let copy = Message {
        body: "\"changed\"".into(),
        client: client(2),
        ttl: minutes(2),
        remaining_ttl: minutes(2),
        ..message.clone()
    };
    let taken = granted(bench.verdict(&bench.delivery(&copy)).await?)?;
    assert_eq!(taken.body, message.body);
    assert_eq!(taken.client, message.client);
    assert_eq!(taken.ttl, message.ttl);
    Ok(())
}

async fn a_message_lives_longer_than_its_claim(bench: LedgerBench) -> Outcome {
    let [short, lasting] = [bench.living(minutes(2)), bench.message()];
    let lease = bench.lease();
    let got = bench.deliveries(&[short.clone(), lasting]);
    let verdicts = bench.claim(&lease, &got).await?;
    assert!(is_longer(&verdicts[0]));
    assert!(!is_longer(&verdicts[1]));
    let taken = granted(verdicts[0].clone())?;
    assert_eq!(taken.ttl, minutes(6));
    bench.assert_span(taken.remaining_ttl, minutes(6));
    // The old copy is judged by the row, and not by what it says.
    bench.advance(lease.ttl).await;
    let taken = granted(bench.verdict(&got[0]).await?)?;
    assert_eq!(taken.id, short.id);
    Ok(())
}

async fn a_longer_ttl_is_told_until_it_is_recorded(bench: LedgerBench) -> Outcome {
    let copy = bench.delivery(&bench.living(minutes(2)));
    let first = bench.lease();
    let taken = granted(bench.claim(&first, from_ref(&copy)).await?.remove(0))?;
    bench.release(first.id).await?;
    let brief = Lease {
        ttl: MINUTE,
        ..bench.lease()
    };
    assert!(is_longer(&bench.claim(&brief, from_ref(&copy)).await?[0]));
    bench.release(brief.id).await?;
    bench.record_in(None, bench.now(), &[taken]).await?;
    let brief = Lease {
        ttl: MINUTE,
        ..bench.lease()
    };
    assert!(!is_longer(&bench.claim(&brief, &[copy]).await?[0]));
    Ok(())
}

async fn an_id_may_be_posted_again_when_its_message_has_ended(bench: LedgerBench) -> Outcome {
    for deleted in [false, true] {
        let message = bench.living(MINUTE);
        bench.record(from_ref(&message)).await?;
        let old = bench.delivery(&message);
        if deleted {
            bench.delete(&[message.id], Precondition::Unclaimed).await?;
        }
        bench.advance(MINUTE).await;
        assert_eq!(bench.verdict(&old).await?, Verdict::Gone);
        granted(bench.verdict(&bench.delivery(&message)).await?)?;
    }
    Ok(())
}

async fn many_judges_at_once_grant_a_message_once(bench: LedgerBench) -> Outcome {
    let messages = bench.messages(30);
    bench.record(&messages[..15]).await?;
    let granted = together((0..8).map(|_| {
        let bench = bench.clone();
        let got = bench.deliveries(&messages);
        async move {
            let lease = bench.lease();
            let verdicts = bench.claim(&lease, &got).await?;
            let granted = verdicts
                .iter()
                .filter(|v| matches!(v, Verdict::Granted { .. }));
            Ok(granted.count())
        }
    }))
    .await?;
    assert_eq!(granted.iter().sum::<usize>(), 30);
    assert_eq!(bench.counts().await?, (0, 30));
    Ok(())
}

/// The same message, as it comes back after so many more transfers.
fn again(message: &Message, more: u32) -> Message {
    Message {
        transfers: message.transfers + more,
        ..message.clone()
    }
}

async fn a_deleted_message_that_comes_back_is_granted(bench: LedgerBench) -> Outcome {
    let [deleted, popped] = [bench.message(), bench.message()];
    bench.take(&[bench.delivery(&deleted)]).await?;
    bench.delete(&[deleted.id], Precondition::None).await?;
    granted(
        bench
            .judge(Purpose::Pop, 1, &[bench.delivery(&popped)])
            .await?
            .remove(0),
    )?;
    for message in [&deleted, &popped] {
        for more in [2, 5] {
            let back = again(message, more);
            // It is the earlier post that was deleted, and stays so.
            let old = bench.delivery(message);
            assert_eq!(bench.verdict(&old).await?, Verdict::Gone);
            let lease = bench.take(&[bench.delivery(&back)]).await?;
            assert_eq!(bench.find(lease.id).await?.messages[0].transfers, more);
            assert_eq!(bench.counts().await?, (0, 1));
            assert_eq!(bench.verdict(&old).await?, Verdict::Gone);
            assert_eq!(bench.delete(&[back.id], Precondition::None).await?.0, 1);
            let copy = bench.delivery(&back);
            assert_eq!(bench.verdict(&copy).await?, Verdict::Gone);
        }
    }
    Ok(())
}

async fn a_copy_of_an_earlier_post_is_gone(bench: LedgerBench) -> Outcome {
    let first = bench.message();
    let later = again(&first, 3);
    bench.record(from_ref(&later)).await?;
    let old = bench.delivery(&first);
    assert_eq!(bench.verdict(&old).await?, Verdict::Gone);
    assert_eq!(bench.counts().await?, (1, 0));
    let lease = bench.take(&[bench.delivery(&later)]).await?;
    assert_eq!(bench.verdict(&old).await?, Verdict::Gone);
    bench.release(lease.id).await?;
    assert_eq!(bench.rows().await?, [later.id]);
    Ok(())
}

/// Whoever holds the earlier post holds nothing any more.
async fn a_message_that_comes_back_takes_the_place_of_an_earlier_post(
    bench: LedgerBench,
) -> Outcome {
    let [first, other] = [bench.message(), bench.message()];
    let old = bench
        .take(&bench.deliveries(&[first.clone(), other.clone()]))
        .await?;
    let back = Message {
        body: "\"back\"".into(),
        ..again(&first, 1)
    };
    let lease = bench.take(&[bench.delivery(&back)]).await?;
    assert_eq!(bench.find(lease.id).await?.messages[0].body, back.body);
    assert_eq!(ids(&bench.find(old.id).await?.messages), [other.id]);
    // It arrived after the other one.
    assert_eq!(bench.rows().await?, [other.id, back.id]);
    assert_eq!(bench.counts().await?, (0, 2));
    let refusal = bench
        .delete(&[back.id], Precondition::ClaimedBy(vec![old.id]))
        .await;
    refused(refusal, ErrorKind::Claimed)?;
    Ok(())
}

async fn a_message_that_comes_back_and_is_not_granted_leaves_its_tombstone(
    bench: LedgerBench,
) -> Outcome {
    let message = bench.message();
    bench.take(&[bench.delivery(&message)]).await?;
    bench.delete(&[message.id], Precondition::None).await?;
    let back = bench.delivery(&again(&message, 2));
    let lease = bench.lease();
    let verdicts = bench
        .judge(Purpose::Claim(&lease), 0, from_ref(&back))
        .await?;
    assert_eq!(verdicts, [Verdict::Free]);
    let old = bench.delivery(&message);
    assert_eq!(bench.verdict(&old).await?, Verdict::Gone);
    granted(bench.verdict(&back).await?)?;
    Ok(())
}

async fn the_older_of_two_posts_in_one_call_is_gone(bench: LedgerBench) -> Outcome {
    let [known, met] = [bench.message(), bench.message()];
    bench.take(&[bench.delivery(&known)]).await?;
    bench.delete(&[known.id], Precondition::None).await?;
    for message in [&known, &met] {
        let got = [again(message, 2), again(message, 4), again(message, 3)];
        let mut verdicts = bench.claim(&bench.lease(), &bench.deliveries(&got)).await?;
        assert_eq!(verdicts.pop(), Some(Verdict::Gone));
        assert_eq!(granted(verdicts.remove(1))?.transfers, 4);
        assert_eq!(verdicts, [Verdict::Gone]);
    }
    assert_eq!(bench.counts().await?, (0, 2));
    Ok(())
}
