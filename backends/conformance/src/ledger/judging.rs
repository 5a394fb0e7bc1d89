//! Every delivery gets the first verdict that fits it.

use std::slice::from_ref;

use isimud_contract::{ErrorKind, Guard, Lease, Message, Purpose, Resource, Rowless, Verdict};

use super::{Book, granted, held, is_longer, spent};
use crate::bench::{MILLISECOND, MINUTE, minutes};
use crate::outcome::{Outcome, Word, refused, together};
use crate::promise::promises;
use crate::words::{client, ids, some_headers};

promises! {
    on Book;
    a_message_without_a_row_is_granted_and_gets_one,
    a_noted_message_is_granted,
    transfers_and_headers_are_kept,
    verdicts_come_in_the_order_of_their_deliveries,
    a_held_message_is_held_until_its_claim_ends,
    a_message_twice_in_one_call_is_granted_once,
    a_message_is_free_when_its_claim_has_ended,
    a_message_that_is_not_due_is_held_and_gets_a_row,
    a_noted_message_that_is_not_due_is_held,
    an_ended_message_is_gone_and_gets_no_row,
    an_ended_noted_message_is_gone,
    what_is_beyond_the_limit_is_free,
    a_limit_of_nothing_grants_nothing,
    a_popped_message_is_gone,
    a_pop_neither_counts_nor_spends,
    claims_count_where_there_is_a_policy,
    a_spent_message_is_held_by_a_claim_that_nobody_can_name,
    a_spent_message_is_spent_again_until_it_is_buried,
    a_queue_that_is_its_own_target_counts_anew,
    what_the_envelope_says_was_counted_counts,
    the_row_knows_better_than_the_copy,
    a_message_lives_longer_than_its_claim,
    a_longer_life_is_told_until_it_is_noted,
    an_id_may_be_posted_again_when_its_message_has_ended,
    many_judges_at_once_grant_a_message_once,
    a_deleted_message_that_comes_back_is_granted,
    a_copy_of_an_earlier_post_is_gone,
    a_message_that_comes_back_takes_the_place_of_an_earlier_post,
    a_message_that_comes_back_and_is_not_granted_leaves_its_tombstone,
    the_older_of_two_posts_in_one_call_is_gone,
}

async fn a_message_without_a_row_is_granted_and_gets_one(book: Book) -> Outcome {
    let message = book.message();
    assert!(book.rows().await?.is_empty());
    let verdict = book.verdict(&book.delivery(&message)).await?;
    assert!(!is_longer(&verdict));
    let taken = granted(verdict)?;
    assert_eq!(taken.body, message.body);
    assert_eq!(taken.client, message.client);
    assert_eq!(taken.ttl, message.ttl);
    book.assert_span(taken.left, message.left);
    assert_eq!(book.rows().await?, [message.id]);
    assert_eq!(book.counts().await?, (0, 1));
    Ok(())
}

async fn transfers_and_headers_are_kept(book: Book) -> Outcome {
    let messages = [0, 1].map(|transfers| Message {
        transfers,
        headers: some_headers(),
        ..book.message()
    });
    let [noted, met] = &messages;
    book.note(from_ref(noted)).await?;
    // What has a row is judged by the row, which the second time is that of the first delivery.
    for _ in 0..2 {
        let lease = book.lease();
        let verdicts = book.claim(&lease, &book.deliveries(&messages)).await?;
        let taken: Vec<_> = verdicts.into_iter().map(granted).collect::<Word<_>>()?;
        let found = book.find(lease.id).await?.messages;
        for shown in [taken, found] {
            assert_eq!(shown.len(), 2);
            for (shown, posted) in shown.iter().zip([noted, met]) {
                assert_eq!(shown.id, posted.id);
                assert_eq!(shown.transfers, posted.transfers);
                assert_eq!(shown.headers, posted.headers);
            }
        }
        book.release(lease.id).await?;
    }
    Ok(())
}

async fn a_noted_message_is_granted(book: Book) -> Outcome {
    let message = book.message();
    book.note(from_ref(&message)).await?;
    assert_eq!(book.counts().await?, (1, 0));
    book.advance(minutes(10)).await;
    let lease = book.lease();
    let copy = book.delivery_of(&message, book.now().before(minutes(10)));
    let taken = granted(book.claim(&lease, &[copy]).await?.remove(0))?;
    assert_eq!(taken.claim, Some(lease.id));
    book.assert_span(taken.age, minutes(10));
    book.assert_span(taken.left, minutes(50));
    assert_eq!(book.counts().await?, (0, 1));
    Ok(())
}

async fn verdicts_come_in_the_order_of_their_deliveries(book: Book) -> Outcome {
    let [held, gone, free] = [book.message(), book.message(), book.message()];
    book.take(&[book.delivery(&held)]).await?;
    book.note(from_ref(&gone)).await?;
    book.bury(&[gone.id], Guard::Free).await?;
    let late = Message {
        delay: MINUTE,
        ..book.message()
    };
    let got = book.deliveries(&[free.clone(), held, gone, late]);
    let verdicts = book.claim(&book.lease(), &got).await?;
    let [first, second, third, fourth] = &verdicts[..] else {
        panic!("four deliveries have four verdicts");
    };
    assert_eq!(granted(first.clone())?.id, free.id);
    assert!(matches!(second, Verdict::Held(_)), "{second:?}");
    assert_eq!(*third, Verdict::Gone);
    assert!(matches!(fourth, Verdict::Held(_)), "{fourth:?}");
    Ok(())
}

async fn a_held_message_is_held_until_its_claim_ends(book: Book) -> Outcome {
    let message = book.message();
    let lease = book.take(&[book.delivery(&message)]).await?;
    book.advance(minutes(2)).await;
    let left = held(book.verdict(&book.delivery(&message)).await?)?;
    book.assert_span(left, minutes(3));
    let popped = book
        .judge(Purpose::Pop, 1, &[book.delivery(&message)])
        .await?;
    book.assert_span(held(popped[0].clone())?, minutes(3));
    assert_eq!(ids(&book.find(lease.id).await?.messages), [message.id]);
    Ok(())
}

async fn a_message_twice_in_one_call_is_granted_once(book: Book) -> Outcome {
    for noted in [false, true] {
        let message = book.message();
        if noted {
            book.note(from_ref(&message)).await?;
        }
        let lease = book.lease();
        let got = [book.delivery(&message), book.delivery(&message)];
        let verdicts = book.claim(&lease, &got).await?;
        granted(verdicts[0].clone())?;
        book.assert_span(held(verdicts[1].clone())?, lease.ttl);
    }
    assert_eq!(book.counts().await?, (0, 2));
    Ok(())
}

async fn a_message_is_free_when_its_claim_has_ended(book: Book) -> Outcome {
    book.to_the_millisecond()?;
    let message = book.message();
    let lease = book.take(&[book.delivery(&message)]).await?;
    book.advance(lease.ttl - MILLISECOND).await;
    assert_eq!(
        book.verdict(&book.delivery(&message)).await?,
        Verdict::Held(MILLISECOND)
    );
    book.advance(MILLISECOND).await;
    assert_eq!(book.counts().await?, (1, 0));
    granted(book.verdict(&book.delivery(&message)).await?)?;
    assert_eq!(book.counts().await?, (0, 1));
    Ok(())
}

async fn a_message_that_is_not_due_is_held_and_gets_a_row(book: Book) -> Outcome {
    let message = Message {
        delay: minutes(3),
        ..book.message()
    };
    let copy = book.delivery_of(&message, book.now().before(MINUTE));
    book.assert_span(held(book.verdict(&copy).await?)?, minutes(2));
    assert_eq!(book.counts().await?, (1, 0));
    assert_eq!(book.rows().await?, [message.id]);
    book.advance(minutes(2)).await;
    let taken = granted(book.verdict(&copy).await?)?;
    assert!(taken.delay.is_zero());
    Ok(())
}

async fn a_noted_message_that_is_not_due_is_held(book: Book) -> Outcome {
    let message = Message {
        delay: minutes(3),
        ..book.message()
    };
    book.note(from_ref(&message)).await?;
    let copy = book.delivery(&message);
    book.assert_span(held(book.verdict(&copy).await?)?, minutes(3));
    book.advance(minutes(3)).await;
    granted(book.verdict(&copy).await?)?;
    Ok(())
}

async fn an_ended_message_is_gone_and_gets_no_row(book: Book) -> Outcome {
    let message = book.living(MINUTE);
    let copy = book.delivery(&message);
    book.advance(MINUTE).await;
    assert_eq!(book.verdict(&copy).await?, Verdict::Gone);
    let (ledger, ids) = (&book.ledger, [message.id]);
    let known = ledger.bury(&book.queue, &ids, Guard::Any, Rowless::Refuse);
    refused(known.await, ErrorKind::Unsupported)?;
    Ok(())
}

async fn an_ended_noted_message_is_gone(book: Book) -> Outcome {
    let message = book.living(MINUTE);
    book.note(from_ref(&message)).await?;
    let copy = book.delivery(&message);
    book.advance(MINUTE).await;
    assert_eq!(book.counts().await?, (0, 0));
    assert_eq!(book.verdict(&copy).await?, Verdict::Gone);
    Ok(())
}

async fn what_is_beyond_the_limit_is_free(book: Book) -> Outcome {
    let messages = book.messages(5);
    book.note(&messages[3..]).await?;
    let got = book.deliveries(&messages);
    let lease = book.lease();
    let verdicts = book.judge(Purpose::Claim(&lease), 2, &got).await?;
    assert!(
        verdicts[..2]
            .iter()
            .all(|v| matches!(v, Verdict::Granted { .. }))
    );
    assert!(verdicts[2..].iter().all(|v| *v == Verdict::Free));
    assert_eq!(
        ids(&book.find(lease.id).await?.messages),
        ids(&messages[..2])
    );
    assert_eq!(book.counts().await?, (2, 2));
    book.take(&got[2..]).await?;
    assert_eq!(book.counts().await?, (0, 5));
    Ok(())
}

async fn a_limit_of_nothing_grants_nothing(book: Book) -> Outcome {
    let copy = book.delivery(&book.message());
    let lease = book.lease();
    let verdicts = book.judge(Purpose::Claim(&lease), 0, &[copy]).await?;
    assert_eq!(verdicts, [Verdict::Free]);
    let missing = book.find(lease.id).await;
    refused(missing, ErrorKind::NotFound(Resource::Claim))?;
    Ok(())
}

async fn a_popped_message_is_gone(book: Book) -> Outcome {
    for noted in [false, true] {
        let message = book.message();
        if noted {
            book.note(from_ref(&message)).await?;
        }
        let copy = book.delivery(&message);
        let verdicts = book
            .judge(Purpose::Pop, 1, &[copy.clone(), copy.clone()])
            .await?;
        let popped = granted(verdicts[0].clone())?;
        assert_eq!((popped.body, popped.claim), (message.body, None));
        assert_eq!(verdicts[1], Verdict::Gone);
        assert_eq!(book.verdict(&copy).await?, Verdict::Gone);
    }
    assert_eq!(book.counts().await?, (0, 0));
    assert!(book.rows().await?.is_empty());
    Ok(())
}

async fn a_pop_neither_counts_nor_spends(book: Book) -> Outcome {
    let message = Message {
        claim_count: 7,
        ..book.message()
    };
    let popped = book
        .judge(Purpose::Pop, 1, &[book.delivery(&message)])
        .await?;
    assert_eq!(granted(popped[0].clone())?.claim_count, 7);
    Ok(())
}

async fn claims_count_where_there_is_a_policy(book: Book) -> Outcome {
    let message = book.message();
    let copy = book.delivery(&message);
    for (lease, count) in [
        (book.strict_lease(9), 1),
        (book.lease(), 1),
        (book.strict_lease(9), 2),
    ] {
        let taken = granted(book.claim(&lease, from_ref(&copy)).await?.remove(0))?;
        assert_eq!(taken.claim_count, count);
        book.release(lease.id).await?;
    }
    Ok(())
}

async fn a_spent_message_is_held_by_a_claim_that_nobody_can_name(book: Book) -> Outcome {
    let [worn, fresh] = [book.message(), book.message()];
    let lease = book.strict_lease(1);
    book.claim(&lease, &[book.delivery(&worn)]).await?;
    book.release(lease.id).await?;
    let lease = book.strict_lease(1);
    let got = book.deliveries(&[worn.clone(), fresh.clone()]);
    let verdicts = book.judge(Purpose::Claim(&lease), 1, &got).await?;
    let dead = spent(verdicts[0].clone())?;
    assert_eq!((dead.id, dead.body), (worn.id, worn.body.clone()));
    // It does not use up the limit.
    granted(verdicts[1].clone())?;
    assert_eq!(ids(&book.find(lease.id).await?.messages), [fresh.id]);
    assert_eq!(book.counts().await?, (0, 2));
    book.assert_span(held(book.verdict(&got[0]).await?)?, lease.ttl);
    let refusal = book.bury(&[worn.id], Guard::Free).await;
    refused(refusal, ErrorKind::Claimed)?;
    book.release(lease.id).await?;
    held(book.verdict(&got[0]).await?)?;
    Ok(())
}

async fn a_spent_message_is_spent_again_until_it_is_buried(book: Book) -> Outcome {
    let copy = book.delivery(&book.message());
    for _ in 0..3 {
        let lease = book.strict_lease(0);
        spent(book.claim(&lease, from_ref(&copy)).await?.remove(0))?;
        let missing = book.find(lease.id).await;
        refused(missing, ErrorKind::NotFound(Resource::Claim))?;
        book.advance(lease.ttl).await;
    }
    assert_eq!(book.bury(&[copy.message.id], Guard::Any).await?.0, 1);
    assert_eq!(book.verdict(&copy).await?, Verdict::Gone);
    Ok(())
}

async fn a_queue_that_is_its_own_target_counts_anew(book: Book) -> Outcome {
    let copy = book.delivery(&book.message());
    let dead = book.on("dead");
    for count in [1, 2, 1, 2] {
        let lease = dead.strict_lease(2);
        let taken = granted(dead.claim(&lease, from_ref(&copy)).await?.remove(0))?;
        assert_eq!(taken.claim_count, count);
        dead.release(lease.id).await?;
    }
    Ok(())
}

async fn what_the_envelope_says_was_counted_counts(book: Book) -> Outcome {
    let worn = Message {
        claim_count: 3,
        ..book.message()
    };
    let verdicts = book
        .claim(&book.strict_lease(3), &[book.delivery(&worn)])
        .await?;
    assert_eq!(spent(verdicts[0].clone())?.id, worn.id);
    Ok(())
}

async fn the_row_knows_better_than_the_copy(book: Book) -> Outcome {
    let message = book.message();
    book.note(from_ref(&message)).await?;
    let copy = Message {
        body: "\"changed\"".into(),
        client: client(2),
        ttl: minutes(2),
        left: minutes(2),
        ..message.clone()
    };
    let taken = granted(book.verdict(&book.delivery(&copy)).await?)?;
    assert_eq!(taken.body, message.body);
    assert_eq!(taken.client, message.client);
    assert_eq!(taken.ttl, message.ttl);
    Ok(())
}

async fn a_message_lives_longer_than_its_claim(book: Book) -> Outcome {
    let [short, lasting] = [book.living(minutes(2)), book.message()];
    let lease = book.lease();
    let got = book.deliveries(&[short.clone(), lasting]);
    let verdicts = book.claim(&lease, &got).await?;
    assert!(is_longer(&verdicts[0]));
    assert!(!is_longer(&verdicts[1]));
    let taken = granted(verdicts[0].clone())?;
    assert_eq!(taken.ttl, minutes(6));
    book.assert_span(taken.left, minutes(6));
    // The old copy is judged by the row, and not by what it says.
    book.advance(lease.ttl).await;
    let taken = granted(book.verdict(&got[0]).await?)?;
    assert_eq!(taken.id, short.id);
    Ok(())
}

async fn a_longer_life_is_told_until_it_is_noted(book: Book) -> Outcome {
    let copy = book.delivery(&book.living(minutes(2)));
    let first = book.lease();
    let taken = granted(book.claim(&first, from_ref(&copy)).await?.remove(0))?;
    book.release(first.id).await?;
    let brief = Lease {
        ttl: MINUTE,
        ..book.lease()
    };
    assert!(is_longer(&book.claim(&brief, from_ref(&copy)).await?[0]));
    book.release(brief.id).await?;
    book.note_in(None, book.now(), &[taken]).await?;
    let brief = Lease {
        ttl: MINUTE,
        ..book.lease()
    };
    assert!(!is_longer(&book.claim(&brief, &[copy]).await?[0]));
    Ok(())
}

async fn an_id_may_be_posted_again_when_its_message_has_ended(book: Book) -> Outcome {
    for deleted in [false, true] {
        let message = book.living(MINUTE);
        book.note(from_ref(&message)).await?;
        let old = book.delivery(&message);
        if deleted {
            book.bury(&[message.id], Guard::Free).await?;
        }
        book.advance(MINUTE).await;
        assert_eq!(book.verdict(&old).await?, Verdict::Gone);
        granted(book.verdict(&book.delivery(&message)).await?)?;
    }
    Ok(())
}

async fn many_judges_at_once_grant_a_message_once(book: Book) -> Outcome {
    let messages = book.messages(30);
    book.note(&messages[..15]).await?;
    let granted = together((0..8).map(|_| {
        let book = book.clone();
        let got = book.deliveries(&messages);
        async move {
            let lease = book.lease();
            let verdicts = book.claim(&lease, &got).await?;
            let granted = verdicts
                .iter()
                .filter(|v| matches!(v, Verdict::Granted { .. }));
            Ok(granted.count())
        }
    }))
    .await?;
    assert_eq!(granted.iter().sum::<usize>(), 30);
    assert_eq!(book.counts().await?, (0, 30));
    Ok(())
}

/// The same message, as it comes back after so many more transfers.
fn again(message: &Message, more: u32) -> Message {
    Message {
        transfers: message.transfers + more,
        ..message.clone()
    }
}

async fn a_deleted_message_that_comes_back_is_granted(book: Book) -> Outcome {
    let [deleted, popped] = [book.message(), book.message()];
    book.take(&[book.delivery(&deleted)]).await?;
    book.bury(&[deleted.id], Guard::Any).await?;
    granted(
        book.judge(Purpose::Pop, 1, &[book.delivery(&popped)])
            .await?
            .remove(0),
    )?;
    for message in [&deleted, &popped] {
        for more in [2, 5] {
            let back = again(message, more);
            // It is the earlier post that was deleted, and stays so.
            let old = book.delivery(message);
            assert_eq!(book.verdict(&old).await?, Verdict::Gone);
            let lease = book.take(&[book.delivery(&back)]).await?;
            assert_eq!(book.find(lease.id).await?.messages[0].transfers, more);
            assert_eq!(book.counts().await?, (0, 1));
            assert_eq!(book.verdict(&old).await?, Verdict::Gone);
            assert_eq!(book.bury(&[back.id], Guard::Any).await?.0, 1);
            let copy = book.delivery(&back);
            assert_eq!(book.verdict(&copy).await?, Verdict::Gone);
        }
    }
    Ok(())
}

async fn a_copy_of_an_earlier_post_is_gone(book: Book) -> Outcome {
    let first = book.message();
    let later = again(&first, 3);
    book.note(from_ref(&later)).await?;
    let old = book.delivery(&first);
    assert_eq!(book.verdict(&old).await?, Verdict::Gone);
    assert_eq!(book.counts().await?, (1, 0));
    let lease = book.take(&[book.delivery(&later)]).await?;
    assert_eq!(book.verdict(&old).await?, Verdict::Gone);
    book.release(lease.id).await?;
    assert_eq!(book.rows().await?, [later.id]);
    Ok(())
}

/// Whoever holds the earlier post holds nothing any more.
async fn a_message_that_comes_back_takes_the_place_of_an_earlier_post(book: Book) -> Outcome {
    let [first, other] = [book.message(), book.message()];
    let old = book
        .take(&book.deliveries(&[first.clone(), other.clone()]))
        .await?;
    let back = Message {
        body: "\"back\"".into(),
        ..again(&first, 1)
    };
    let lease = book.take(&[book.delivery(&back)]).await?;
    assert_eq!(book.find(lease.id).await?.messages[0].body, back.body);
    assert_eq!(ids(&book.find(old.id).await?.messages), [other.id]);
    // It arrived after the other one.
    assert_eq!(book.rows().await?, [other.id, back.id]);
    assert_eq!(book.counts().await?, (0, 2));
    let refusal = book.bury(&[back.id], Guard::HeldBy(vec![old.id])).await;
    refused(refusal, ErrorKind::Claimed)?;
    Ok(())
}

async fn a_message_that_comes_back_and_is_not_granted_leaves_its_tombstone(book: Book) -> Outcome {
    let message = book.message();
    book.take(&[book.delivery(&message)]).await?;
    book.bury(&[message.id], Guard::Any).await?;
    let back = book.delivery(&again(&message, 2));
    let lease = book.lease();
    let verdicts = book
        .judge(Purpose::Claim(&lease), 0, from_ref(&back))
        .await?;
    assert_eq!(verdicts, [Verdict::Free]);
    let old = book.delivery(&message);
    assert_eq!(book.verdict(&old).await?, Verdict::Gone);
    granted(book.verdict(&back).await?)?;
    Ok(())
}

async fn the_older_of_two_posts_in_one_call_is_gone(book: Book) -> Outcome {
    let [known, met] = [book.message(), book.message()];
    book.take(&[book.delivery(&known)]).await?;
    book.bury(&[known.id], Guard::Any).await?;
    for message in [&known, &met] {
        let got = [again(message, 2), again(message, 4), again(message, 3)];
        let mut verdicts = book.claim(&book.lease(), &book.deliveries(&got)).await?;
        assert_eq!(verdicts.pop(), Some(Verdict::Gone));
        assert_eq!(granted(verdicts.remove(1))?.transfers, 4);
        assert_eq!(verdicts, [Verdict::Gone]);
    }
    assert_eq!(book.counts().await?, (0, 2));
    Ok(())
}
