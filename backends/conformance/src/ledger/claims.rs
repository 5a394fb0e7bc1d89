//! A claim holds what it was granted until it ends, and knows the newest receipts of it.

use std::slice::from_ref;

use isimud_contract::{ErrorKind, ForeignClaim, Lease, Purpose, Resource, Verdict};

use super::{Book, granted, held};
use crate::bench::{MINUTE, minutes};
use crate::outcome::{Outcome, refused};
use crate::promise::promises;
use crate::words::ids;

promises! {
    on Book;
    a_claim_is_read_with_what_it_holds,
    a_claim_that_is_granted_nothing_is_not_made,
    a_claim_is_filled_by_several_calls,
    nothing_joins_a_claim_that_has_ended,
    a_release_frees_and_gives_back_receipts,
    the_newest_receipt_is_kept_whatever_the_verdict,
    a_free_verdict_keeps_no_receipt,
    a_renewal_starts_the_time_again,
    a_renewal_gives_back_receipts_and_longer_lives,
    a_longer_life_is_told_by_every_renewal_until_it_is_noted,
    a_claim_that_has_ended_is_not_there,
    a_claim_from_elsewhere_holds_what_is_free,
}

const NO_CLAIM: ErrorKind = ErrorKind::NotFound(Resource::Claim);

async fn a_claim_is_read_with_what_it_holds(book: Book) -> Outcome {
    let messages = book.messages(3);
    let lease = book.take(&book.deliveries(&messages)).await?;
    book.advance(minutes(2)).await;
    let found = book.find(lease.id).await?;
    assert_eq!(found.ttl, lease.ttl);
    book.assert_span(found.age, minutes(2));
    assert_eq!(ids(&found.messages), ids(&messages));
    for (found, posted) in found.messages.iter().zip(&messages) {
        assert_eq!(found.body, posted.body);
        assert_eq!(found.claim, Some(lease.id));
    }
    Ok(())
}

async fn a_claim_that_is_granted_nothing_is_not_made(book: Book) -> Outcome {
    let copy = book.delivery(&book.message());
    book.take(from_ref(&copy)).await?;
    let lease = book.lease();
    held(book.claim(&lease, &[copy]).await?.remove(0))?;
    refused(book.find(lease.id).await, NO_CLAIM)?;
    assert!(book.claim(&lease, &[]).await?.is_empty());
    refused(book.find(lease.id).await, NO_CLAIM)?;
    Ok(())
}

async fn a_claim_is_filled_by_several_calls(book: Book) -> Outcome {
    let messages = book.messages(3);
    let got = book.deliveries(&messages);
    let lease = book.take(&got[..1]).await?;
    book.advance(MINUTE).await;
    for verdict in book.judge(Purpose::More(&lease), 9, &got[1..]).await? {
        granted(verdict)?;
    }
    let found = book.find(lease.id).await?;
    assert_eq!(ids(&found.messages), ids(&messages));
    book.assert_span(found.age, MINUTE);
    book.advance(minutes(4)).await;
    assert_eq!(book.counts().await?, (3, 0));
    Ok(())
}

/// It would begin anew, without what it held before.
async fn nothing_joins_a_claim_that_has_ended(book: Book) -> Outcome {
    let got = book.deliveries(&book.messages(2));
    let lease = book.take(&got[..1]).await?;
    book.advance(lease.ttl).await;
    let verdicts = book.judge(Purpose::More(&lease), 9, &got).await?;
    assert_eq!(verdicts, [Verdict::Free, Verdict::Free]);
    refused(book.find(lease.id).await, NO_CLAIM)?;
    Ok(())
}

async fn a_release_frees_and_gives_back_receipts(book: Book) -> Outcome {
    let got = book.deliveries(&book.messages(3));
    let lease = book.take(&got).await?;
    let receipts: Vec<_> = got
        .iter()
        .map(|delivery| delivery.receipt.clone())
        .collect();
    assert_eq!(book.release(lease.id).await?, receipts);
    assert_eq!(book.counts().await?, (3, 0));
    refused(book.find(lease.id).await, NO_CLAIM)?;
    assert!(book.release(lease.id).await?.is_empty());
    assert!(book.release(book.lease().id).await?.is_empty());
    book.take(&got).await?;
    Ok(())
}

/// The old one names a delivery that is over.
async fn the_newest_receipt_is_kept_whatever_the_verdict(book: Book) -> Outcome {
    let message = book.message();
    let lease = book.take(&[book.delivery(&message)]).await?;
    let newer = book.delivery(&message);
    held(book.verdict(&newer).await?)?;
    assert_eq!(book.release(lease.id).await?, [newer.receipt]);
    let newest = book.delivery(&message);
    book.take(from_ref(&newest)).await?;
    let (_, receipts) = book
        .bury(&[message.id], isimud_contract::Guard::Any)
        .await?;
    assert_eq!(receipts, [newest.receipt]);
    Ok(())
}

async fn a_free_verdict_keeps_no_receipt(book: Book) -> Outcome {
    let message = book.message();
    book.note(from_ref(&message)).await?;
    let spare = book.delivery(&message);
    book.judge(Purpose::Pop, 0, &[spare]).await?;
    let (count, receipts) = book
        .bury(&[message.id], isimud_contract::Guard::Any)
        .await?;
    assert_eq!((count, receipts), (1, Vec::new()));
    Ok(())
}

async fn a_renewal_starts_the_time_again(book: Book) -> Outcome {
    let copy = book.delivery(&book.message());
    let lease = book.take(from_ref(&copy)).await?;
    book.advance(minutes(4)).await;
    let terms = Lease {
        ttl: minutes(20),
        ..lease.clone()
    };
    let renewed = book.ledger.renew(&book.queue, &terms, book.now()).await?;
    assert_eq!(renewed.receipts, from_ref(&copy.receipt));
    assert!(renewed.longer.is_empty());
    let found = book.find(lease.id).await?;
    assert_eq!(found.ttl, minutes(20));
    book.assert_span(found.age, minutes(0));
    book.advance(minutes(19)).await;
    held(book.verdict(&copy).await?)?;
    Ok(())
}

async fn a_renewal_gives_back_receipts_and_longer_lives(book: Book) -> Outcome {
    let [short, lasting] = [book.living(minutes(10)), book.message()];
    let got = book.deliveries(&[short.clone(), lasting]);
    let lease = book.take(&got).await?;
    let terms = Lease {
        ttl: minutes(20),
        ..lease
    };
    let renewed = book.ledger.renew(&book.queue, &terms, book.now()).await?;
    assert_eq!(renewed.receipts.len(), 2);
    let [(longer, receipt)] = &renewed.longer[..] else {
        panic!("one message lives longer, and not {:?}", renewed.longer);
    };
    assert_eq!((longer.id, &longer.body), (short.id, &short.body));
    assert_eq!(longer.ttl, minutes(21));
    book.assert_span(longer.left, minutes(21));
    assert_eq!(*receipt, Some(got[0].receipt.clone()));
    Ok(())
}

/// The answer may be lost, or the copy.
async fn a_longer_life_is_told_by_every_renewal_until_it_is_noted(book: Book) -> Outcome {
    let lease = book
        .take(&[book.delivery(&book.living(minutes(10)))])
        .await?;
    let terms = Lease {
        ttl: minutes(20),
        ..lease
    };
    for _ in 0..2 {
        let renewed = book.ledger.renew(&book.queue, &terms, book.now()).await?;
        assert_eq!(renewed.longer.len(), 1);
    }
    let mut renewed = book.ledger.renew(&book.queue, &terms, book.now()).await?;
    let (copy, _) = renewed.longer.remove(0);
    book.note_in(None, book.now(), &[copy]).await?;
    let renewed = book.ledger.renew(&book.queue, &terms, book.now()).await?;
    assert!(renewed.longer.is_empty());
    Ok(())
}

async fn a_claim_that_has_ended_is_not_there(book: Book) -> Outcome {
    let lease = book.take(&[book.delivery(&book.message())]).await?;
    book.advance(lease.ttl).await;
    refused(book.find(lease.id).await, NO_CLAIM)?;
    let renewed = book.ledger.renew(&book.queue, &lease, book.now()).await;
    refused(renewed, NO_CLAIM)?;
    assert!(book.release(lease.id).await?.is_empty());
    Ok(())
}

async fn a_claim_from_elsewhere_holds_what_is_free(book: Book) -> Outcome {
    let messages = book.messages(3);
    book.note(&messages[..2]).await?;
    let held_here = book.take(&[book.delivery(&messages[0])]).await?;
    let foreign = ForeignClaim {
        id: book.lease().id,
        ttl: minutes(10),
        age: minutes(4),
    };
    let count = book
        .ledger
        .hold(&book.queue, foreign, &ids(&messages))
        .await?;
    assert_eq!(count, 1);
    assert_eq!(
        ids(&book.find(foreign.id).await?.messages),
        [messages[1].id]
    );
    assert_eq!(
        ids(&book.find(held_here.id).await?.messages),
        [messages[0].id]
    );
    let left = held(book.verdict(&book.delivery(&messages[1])).await?)?;
    book.assert_span(left, minutes(6));
    granted(book.verdict(&book.delivery(&messages[2])).await?)?;
    Ok(())
}
