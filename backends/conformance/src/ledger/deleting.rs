//! What is buried is gone, for every copy of it, and as far as the guard allows.

use std::slice::from_ref;
use std::time::Duration;

use isimud_contract::{Delivery, ErrorKind, Guard, Lease, Message, Resource, Rowless, Verdict};

use super::{Book, granted};
use crate::bench::{MINUTE, minutes};
use crate::outcome::{Outcome, Word, refused, together};
use crate::promise::promises;
use crate::words::ids;

promises! {
    on Book;
    a_buried_message_is_gone_whenever_it_is_delivered,
    a_buried_message_stays_gone_until_it_would_have_ended,
    a_copy_from_a_clock_ahead_stays_gone_too,
    a_longer_copy_from_a_clock_ahead_stays_gone_too,
    a_renewed_copy_from_a_clock_ahead_stays_gone_too,
    burying_counts_live_messages_once,
    burying_gives_back_receipts,
    one_message_that_does_not_fit_refuses_all,
    each_guard_has_its_refusals,
    unknown_ids_are_skipped_and_get_no_row,
    unknown_ids_are_refused_on_demand,
    what_was_buried_is_known,
    one_of_many_burials_counts,
    what_is_forgotten_is_judged_by_its_envelope_again,
    only_what_is_free_and_due_is_forgotten,
}

async fn a_buried_message_is_gone_whenever_it_is_delivered(book: Book) -> Outcome {
    let [noted, seen] = [book.message(), book.message()];
    book.note(from_ref(&noted)).await?;
    let copies = book.deliveries(&[noted.clone(), seen.clone()]);
    book.take(&copies[1..]).await?;
    book.bury(&[noted.id, seen.id], Guard::Any).await?;
    for _ in 0..3 {
        let verdicts = book.claim(&book.lease(), &copies).await?;
        assert_eq!(verdicts, [Verdict::Gone, Verdict::Gone]);
        book.advance(minutes(10)).await;
    }
    assert!(book.rows().await?.is_empty());
    let found = book.ledger.get(&book.queue, &[noted.id, seen.id]).await?;
    assert!(found.is_empty());
    Ok(())
}

async fn a_buried_message_stays_gone_until_it_would_have_ended(book: Book) -> Outcome {
    let message = book.living(minutes(2));
    let copy = book.delivery(&message);
    let lease = book.take(from_ref(&copy)).await?;
    // The claim made its life longer.
    book.bury(&[message.id], Guard::HeldBy(vec![lease.id]))
        .await?;
    for _ in 0..8 {
        assert_eq!(book.verdict(&copy).await?, Verdict::Gone);
        book.advance(MINUTE).await;
    }
    Ok(())
}

/// Lets the message end here, of which the ledger hears nothing, and only then delivers the copy until that ends too.
async fn assert_gone_from(book: &Book, end: Duration, copy: &Delivery) -> Word<()> {
    book.advance(end).await;
    for _ in 0..30 {
        assert_eq!(book.verdict(copy).await?, Verdict::Gone);
        book.advance(MINUTE).await;
    }
    Ok(())
}

/// By its envelope the copy lives on when the message has ended here: that must not be enough.
async fn a_copy_from_a_clock_ahead_stays_gone_too(book: Book) -> Outcome {
    let message = book.living(minutes(5));
    let ahead = book.now().after(minutes(20));
    let era = book.era().await?;
    book.note_in(Some(era), ahead, from_ref(&message)).await?;
    let copy = book.delivery_of(&message, ahead);
    book.bury(&[message.id], Guard::Free).await?;
    assert_gone_from(&book, minutes(10), &copy).await?;
    Ok(())
}

async fn a_longer_copy_from_a_clock_ahead_stays_gone_too(book: Book) -> Outcome {
    let message = book.living(minutes(2));
    let (lease, ahead) = (book.lease(), book.now().after(minutes(20)));
    let got = [book.delivery(&message)];
    let purpose = isimud_contract::Purpose::Claim(&lease);
    let verdicts = book
        .ledger
        .grant(&book.queue, purpose, 1, ahead, &got)
        .await?;
    let longer = granted(verdicts[0].clone())?;
    let copy = book.delivery_of(&longer, ahead);
    book.bury(&[message.id], Guard::Any).await?;
    assert_gone_from(&book, minutes(10), &copy).await?;
    Ok(())
}

async fn a_renewed_copy_from_a_clock_ahead_stays_gone_too(book: Book) -> Outcome {
    let message = book.living(minutes(10));
    let lease = book.take(&[book.delivery(&message)]).await?;
    let ahead = book.now().after(minutes(20));
    let terms = Lease {
        ttl: minutes(12),
        ..lease
    };
    let mut renewed = book.ledger.renew(&book.queue, &terms, ahead).await?;
    let (longer, _) = renewed.longer.remove(0);
    let copy = book.delivery_of(&longer, ahead);
    book.bury(&[message.id], Guard::Any).await?;
    assert_gone_from(&book, minutes(15), &copy).await?;
    Ok(())
}

async fn burying_counts_live_messages_once(book: Book) -> Outcome {
    let [noted, ended] = [book.message(), book.living(MINUTE)];
    book.note(&[noted.clone(), ended.clone()]).await?;
    book.advance(MINUTE).await;
    let both = [noted.id, noted.id, ended.id];
    assert_eq!(book.bury(&both, Guard::Free).await?.0, 1);
    assert_eq!(book.bury(&both, Guard::Free).await?.0, 0);
    assert_eq!(book.counts().await?, (0, 0));
    Ok(())
}

async fn burying_gives_back_receipts(book: Book) -> Outcome {
    let messages = book.messages(3);
    book.note(&messages).await?;
    let got = book.deliveries(&messages);
    book.take(&got[1..]).await?;
    let (count, receipts) = book.bury(&ids(&messages), Guard::Any).await?;
    assert_eq!(count, 3);
    assert_eq!(receipts, [got[1].receipt.clone(), got[2].receipt.clone()]);
    let (_, again) = book.bury(&ids(&messages), Guard::Any).await?;
    assert!(again.is_empty());
    Ok(())
}

async fn one_message_that_does_not_fit_refuses_all(book: Book) -> Outcome {
    let messages = book.messages(3);
    book.note(&messages).await?;
    let lease = book.take(&[book.delivery(&messages[1])]).await?;
    let all = ids(&messages);
    refused(book.bury(&all, Guard::Free).await, ErrorKind::Claimed)?;
    let holder = Guard::HeldBy(vec![lease.id]);
    refused(book.bury(&all, holder).await, ErrorKind::NotClaimed)?;
    assert_eq!(book.rows().await?, all);
    assert_eq!(book.counts().await?, (2, 1));
    Ok(())
}

async fn each_guard_has_its_refusals(book: Book) -> Outcome {
    let messages = book.messages(2);
    let mine = book.take(&[book.delivery(&messages[0])]).await?;
    let other = book.take(&[book.delivery(&messages[1])]).await?;
    let id = [messages[0].id];
    let held_by = |claim: &Lease| Guard::HeldBy(vec![claim.id]);
    let nobody = held_by(&book.lease());
    let missing = ErrorKind::NotFound(Resource::Claim);
    refused(book.bury(&id, nobody.clone()).await, missing)?;
    refused(book.bury(&id, held_by(&other)).await, ErrorKind::Claimed)?;
    refused(book.bury(&id, Guard::Free).await, ErrorKind::Claimed)?;
    book.advance(mine.ttl).await;
    refused(book.bury(&id, held_by(&mine)).await, ErrorKind::NotClaimed)?;
    assert_eq!(book.bury(&id, Guard::Free).await?.0, 1);
    // What is gone needs no claim.
    assert_eq!(book.bury(&id, nobody).await?.0, 0);
    Ok(())
}

async fn unknown_ids_are_skipped_and_get_no_row(book: Book) -> Outcome {
    let message = book.message();
    for guard in [
        Guard::Any,
        Guard::Free,
        Guard::HeldBy(vec![book.lease().id]),
    ] {
        assert_eq!(book.bury(&[message.id], guard).await?, (0, Vec::new()));
    }
    granted(book.verdict(&book.delivery(&message)).await?)?;
    Ok(())
}

async fn unknown_ids_are_refused_on_demand(book: Book) -> Outcome {
    let [known, unknown] = [book.message(), book.message()];
    let lease = book.take(&[book.delivery(&known)]).await?;
    let both = [known.id, unknown.id];
    for (guard, kind) in [
        (Guard::Any, ErrorKind::Unsupported),
        (Guard::HeldBy(vec![lease.id]), ErrorKind::NotClaimed),
    ] {
        let buried = book
            .ledger
            .bury(&book.queue, &both, guard, Rowless::Refuse)
            .await;
        refused(buried, kind)?;
    }
    assert_eq!(book.counts().await?, (0, 1));
    granted(book.verdict(&book.delivery(&unknown)).await?)?;
    Ok(())
}

async fn what_was_buried_is_known(book: Book) -> Outcome {
    let message = book.message();
    book.take(&[book.delivery(&message)]).await?;
    for count in [1, 0] {
        let ids = [message.id];
        let buried = book
            .ledger
            .bury(&book.queue, &ids, Guard::Any, Rowless::Refuse);
        assert_eq!(buried.await?.0, count);
    }
    Ok(())
}

async fn one_of_many_burials_counts(book: Book) -> Outcome {
    let messages = book.messages(20);
    book.note(&messages).await?;
    let counts = together((0..8).map(|_| {
        let (book, ids) = (book.clone(), ids(&messages));
        async move { Ok(book.bury(&ids, Guard::Free).await?.0) }
    }))
    .await?;
    assert_eq!(counts.iter().sum::<usize>(), 20);
    assert_eq!(counts.iter().filter(|count| **count > 0).count(), 1);
    Ok(())
}

async fn what_is_forgotten_is_judged_by_its_envelope_again(book: Book) -> Outcome {
    let messages = book.messages(2);
    let [noted, seen] = [messages[0].id, messages[1].id];
    book.note(&messages).await?;
    let copies = book.deliveries(&messages);
    let lease = book.take(&copies[1..]).await?;
    book.release(lease.id).await?;
    let forget = [noted, seen, noted];
    assert_eq!(book.ledger.forget(&book.queue, &forget).await?, 2);
    assert!(book.rows().await?.is_empty());
    assert_eq!(book.counts().await?, (0, 0));
    assert_eq!(book.ledger.forget(&book.queue, &forget).await?, 0);
    // Somebody held them, and gave them back.
    book.take(&copies).await?;
    assert_eq!(book.rows().await?, [noted, seen]);
    assert_eq!(book.counts().await?, (0, 2));
    Ok(())
}

async fn only_what_is_free_and_due_is_forgotten(book: Book) -> Outcome {
    let [held, dead] = [book.message(), book.message()];
    let later = Message {
        delay: MINUTE,
        ..book.message()
    };
    let all = [held.clone(), dead.clone(), later.clone()];
    book.note(&all).await?;
    book.take(&[book.delivery(&held)]).await?;
    book.bury(&[dead.id], Guard::Any).await?;
    let ids = ids(&all);
    assert_eq!(book.ledger.forget(&book.queue, &ids).await?, 0);
    assert_eq!(book.rows().await?, [held.id, later.id]);
    assert_eq!(book.verdict(&book.delivery(&dead)).await?, Verdict::Gone);
    book.advance(MINUTE).await;
    assert_eq!(book.ledger.forget(&book.queue, &ids).await?, 1);
    assert_eq!(book.counts().await?, (0, 1));
    Ok(())
}
