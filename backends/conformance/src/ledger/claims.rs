//! A claim holds what it was granted until it ends, and knows the newest receipts of it.

use std::slice::from_ref;

use isimud_contract::{ErrorKind, ImportedClaim, Lease, Purpose, Resource, Verdict};

use super::{LedgerBench, granted, held};
use crate::bench::{MINUTE, minutes};
use crate::outcome::{Outcome, refused};
use crate::promise::promises;
use crate::steps::ids;

promises! {
    on LedgerBench;
    a_claim_is_read_with_what_it_holds,
    a_claim_that_is_granted_nothing_is_not_made,
    a_claim_is_filled_by_several_calls,
    nothing_joins_a_claim_that_has_ended,
    a_release_frees_and_gives_back_receipts,
    the_newest_receipt_is_kept_whatever_the_verdict,
    a_free_verdict_keeps_no_receipt,
    a_renewal_starts_the_time_again,
    a_renewal_gives_back_receipts_and_longer_ttls,
    a_longer_ttl_is_told_by_every_renewal_until_it_is_recorded,
    a_claim_that_has_ended_is_not_there,
    an_imported_claim_holds_free_messages,
}

const NO_CLAIM: ErrorKind = ErrorKind::NotFound(Resource::Claim);

async fn a_claim_is_read_with_what_it_holds(bench: LedgerBench) -> Outcome {
    let messages = bench.messages(3);
    let lease = bench.take(&bench.deliveries(&messages)).await?;
    bench.advance(minutes(2)).await;
    let found = bench.find(lease.id).await?;
    assert_eq!(found.ttl, lease.ttl);
    bench.assert_span(found.age, minutes(2));
    assert_eq!(ids(&found.messages), ids(&messages));
    for (found, posted) in found.messages.iter().zip(&messages) {
        assert_eq!(found.body, posted.body);
        assert_eq!(found.claim, Some(lease.id));
    }
    Ok(())
}

async fn a_claim_that_is_granted_nothing_is_not_made(bench: LedgerBench) -> Outcome {
    let copy = bench.delivery(&bench.message());
    bench.take(from_ref(&copy)).await?;
    let lease = bench.lease();
    held(bench.claim(&lease, &[copy]).await?.remove(0))?;
    refused(bench.find(lease.id).await, NO_CLAIM)?;
    assert!(bench.claim(&lease, &[]).await?.is_empty());
    refused(bench.find(lease.id).await, NO_CLAIM)?;
    Ok(())
}

async fn a_claim_is_filled_by_several_calls(bench: LedgerBench) -> Outcome {
    let messages = bench.messages(3);
    let got = bench.deliveries(&messages);
    let lease = bench.take(&got[..1]).await?;
    bench.advance(MINUTE).await;
    for verdict in bench.judge(Purpose::More(&lease), 9, &got[1..]).await? {
        granted(verdict)?;
    }
    let found = bench.find(lease.id).await?;
    assert_eq!(ids(&found.messages), ids(&messages));
    bench.assert_span(found.age, MINUTE);
    bench.advance(minutes(4)).await;
    assert_eq!(bench.counts().await?, (3, 0));
    Ok(())
}

/// It would begin anew, without what it held before.
async fn nothing_joins_a_claim_that_has_ended(bench: LedgerBench) -> Outcome {
    let got = bench.deliveries(&bench.messages(2));
    let lease = bench.take(&got[..1]).await?;
    bench.advance(lease.ttl).await;
    let verdicts = bench.judge(Purpose::More(&lease), 9, &got).await?;
    assert_eq!(verdicts, [Verdict::Free, Verdict::Free]);
    refused(bench.find(lease.id).await, NO_CLAIM)?;
    Ok(())
}

async fn a_release_frees_and_gives_back_receipts(bench: LedgerBench) -> Outcome {
    let got = bench.deliveries(&bench.messages(3));
    let lease = bench.take(&got).await?;
    let receipts: Vec<_> = got
        .iter()
        .map(|delivery| delivery.receipt.clone())
        .collect();
    assert_eq!(bench.release(lease.id).await?, receipts);
    assert_eq!(bench.counts().await?, (3, 0));
    refused(bench.find(lease.id).await, NO_CLAIM)?;
    assert!(bench.release(lease.id).await?.is_empty());
    assert!(bench.release(bench.lease().id).await?.is_empty());
    bench.take(&got).await?;
    Ok(())
}

/// The old one names a delivery that is over.
async fn the_newest_receipt_is_kept_whatever_the_verdict(bench: LedgerBench) -> Outcome {
    let message = bench.message();
    let lease = bench.take(&[bench.delivery(&message)]).await?;
    let newer = bench.delivery(&message);
    held(bench.verdict(&newer).await?)?;
    assert_eq!(bench.release(lease.id).await?, [newer.receipt]);
    let newest = bench.delivery(&message);
    bench.take(from_ref(&newest)).await?;
    let (_, receipts) = bench
        .delete(&[message.id], isimud_contract::Precondition::None)
        .await?;
    assert_eq!(receipts, [newest.receipt]);
    Ok(())
}

async fn a_free_verdict_keeps_no_receipt(bench: LedgerBench) -> Outcome {
    let message = bench.message();
    bench.record(from_ref(&message)).await?;
    let spare = bench.delivery(&message);
    bench.judge(Purpose::Pop, 0, &[spare]).await?;
    let (count, receipts) = bench
        .delete(&[message.id], isimud_contract::Precondition::None)
        .await?;
    assert_eq!((count, receipts), (1, Vec::new()));
    Ok(())
}

async fn a_renewal_starts_the_time_again(bench: LedgerBench) -> Outcome {
    let copy = bench.delivery(&bench.message());
    let lease = bench.take(from_ref(&copy)).await?;
    bench.advance(minutes(4)).await;
    let terms = Lease {
        ttl: minutes(20),
        ..lease.clone()
    };
    let renewed = bench
        .ledger
        .renew(&bench.queue, &terms, bench.now())
        .await?;
    assert_eq!(renewed.receipts, from_ref(&copy.receipt));
    assert!(renewed.longer.is_empty());
    let found = bench.find(lease.id).await?;
    assert_eq!(found.ttl, minutes(20));
    bench.assert_span(found.age, minutes(0));
    bench.advance(minutes(19)).await;
    held(bench.verdict(&copy).await?)?;
    Ok(())
}

async fn a_renewal_gives_back_receipts_and_longer_ttls(bench: LedgerBench) -> Outcome {
    let [short, lasting] = [bench.living(minutes(10)), bench.message()];
    let got = bench.deliveries(&[short.clone(), lasting]);
    let lease = bench.take(&got).await?;
    let terms = Lease {
        ttl: minutes(20),
        ..lease
    };
    let renewed = bench
        .ledger
        .renew(&bench.queue, &terms, bench.now())
        .await?;
    assert_eq!(renewed.receipts.len(), 2);
    let [(longer, receipt)] = &renewed.longer[..] else {
        panic!("one message lives longer, and not {:?}", renewed.longer);
    };
    assert_eq!((longer.id, &longer.body), (short.id, &short.body));
    assert_eq!(longer.ttl, minutes(21));
    bench.assert_span(longer.remaining_ttl, minutes(21));
    assert_eq!(*receipt, Some(got[0].receipt.clone()));
    Ok(())
}

/// The answer may be lost, or the copy.
async fn a_longer_ttl_is_told_by_every_renewal_until_it_is_recorded(bench: LedgerBench) -> Outcome {
    let lease = bench
        .take(&[bench.delivery(&bench.living(minutes(10)))])
        .await?;
    let terms = Lease {
        ttl: minutes(20),
        ..lease
    };
    for _ in 0..2 {
        let renewed = bench
            .ledger
            .renew(&bench.queue, &terms, bench.now())
            .await?;
        assert_eq!(renewed.longer.len(), 1);
    }
    let mut renewed = bench
        .ledger
        .renew(&bench.queue, &terms, bench.now())
        .await?;
    let (copy, _) = renewed.longer.remove(0);
    bench.record_in(None, bench.now(), &[copy]).await?;
    let renewed = bench
        .ledger
        .renew(&bench.queue, &terms, bench.now())
        .await?;
    assert!(renewed.longer.is_empty());
    Ok(())
}

async fn a_claim_that_has_ended_is_not_there(bench: LedgerBench) -> Outcome {
    let lease = bench.take(&[bench.delivery(&bench.message())]).await?;
    bench.advance(lease.ttl).await;
    refused(bench.find(lease.id).await, NO_CLAIM)?;
    let renewed = bench.ledger.renew(&bench.queue, &lease, bench.now()).await;
    refused(renewed, NO_CLAIM)?;
    assert!(bench.release(lease.id).await?.is_empty());
    Ok(())
}

async fn an_imported_claim_holds_free_messages(bench: LedgerBench) -> Outcome {
    let messages = bench.messages(3);
    bench.record(&messages[..2]).await?;
    let held_here = bench.take(&[bench.delivery(&messages[0])]).await?;
    let foreign = ImportedClaim {
        id: bench.lease().id,
        ttl: minutes(10),
        age: minutes(4),
    };
    let count = bench
        .ledger
        .import_claim(&bench.queue, foreign, &ids(&messages))
        .await?;
    assert_eq!(count, 1);
    assert_eq!(
        ids(&bench.find(foreign.id).await?.messages),
        [messages[1].id]
    );
    assert_eq!(
        ids(&bench.find(held_here.id).await?.messages),
        [messages[0].id]
    );
    let left = held(bench.verdict(&bench.delivery(&messages[1])).await?)?;
    bench.assert_span(left, minutes(6));
    granted(bench.verdict(&bench.delivery(&messages[2])).await?)?;
    Ok(())
}
