//! A purge takes every row from before it, and nothing from after it, whatever the clocks say.

use std::slice::from_ref;

use isimud_contract::{ErrorKind, Message, Precondition, Resource, Verdict};

use super::{LedgerBench, granted};
use crate::bench::{MINUTE, minutes};
use crate::outcome::{Outcome, refused, together};
use crate::promise::promises;
use crate::steps::{after, first, ids};

promises! {
    on LedgerBench;
    a_purge_leaves_nothing,
    purged_messages_are_gone_when_they_are_delivered,
    a_deleted_message_stays_deleted_through_a_purge,
    a_purge_keeps_posts_of_one_id_apart,
    what_is_met_after_a_purge_is_there,
    a_purged_id_starts_anew,
    old_positions_stand_before_everything,
    a_purged_claim_name_can_be_used_again,
    a_queue_that_is_not_there_is_purged_in_vain,
    purges_among_grants_leave_whole_counts,
}

/// A free message, a held one and a delayed one, each with its delivery.
async fn fill(bench: &LedgerBench) -> Result<Vec<Message>, crate::outcome::Abort> {
    let mut messages = bench.messages(3);
    messages[2].delay = MINUTE;
    bench.record(&messages).await?;
    bench.take(&[bench.delivery(&messages[1])]).await?;
    Ok(messages)
}

async fn a_purge_leaves_nothing(bench: LedgerBench) -> Outcome {
    let messages = fill(&bench).await?;
    let lease = bench.take(&[bench.delivery(&messages[0])]).await?;
    bench.ledger.purge(&bench.queue).await?;
    assert!(bench.rows().await?.is_empty());
    assert!(bench.ledger.stats(&bench.queue).await?.is_empty());
    let missing = bench.find(lease.id).await;
    refused(missing, ErrorKind::NotFound(Resource::Claim))?;
    assert!(bench.release(lease.id).await?.is_empty());
    assert_eq!(
        bench.delete(&ids(&messages), Precondition::None).await?.0,
        0
    );
    assert!(
        bench
            .ledger
            .get(&bench.queue, &ids(&messages))
            .await?
            .is_empty()
    );
    Ok(())
}

async fn purged_messages_are_gone_when_they_are_delivered(bench: LedgerBench) -> Outcome {
    let messages = fill(&bench).await?;
    // Where the clock runs: envelopes no younger than the rows.
    let sent = bench.now().before(MINUTE);
    let copies = messages
        .iter()
        .map(|message| bench.delivery_of(message, sent));
    let copies: Vec<_> = copies.collect();
    bench.ledger.purge(&bench.queue).await?;
    for _ in 0..3 {
        let verdicts = bench.claim(&bench.lease(), &copies).await?;
        assert!(verdicts.iter().all(|v| *v == Verdict::Gone), "{verdicts:?}");
        bench.advance(minutes(10)).await;
    }
    assert_eq!(bench.counts().await?, (0, 0));
    Ok(())
}

async fn a_deleted_message_stays_deleted_through_a_purge(bench: LedgerBench) -> Outcome {
    let message = bench.message();
    bench.take(&[bench.delivery(&message)]).await?;
    bench.delete(&[message.id], Precondition::None).await?;
    bench.ledger.purge(&bench.queue).await?;
    bench.record(from_ref(&message)).await?;
    bench.advance(MINUTE).await;
    // A copy that was sent a little later than the one that was deleted.
    assert_eq!(
        bench.verdict(&bench.delivery(&message)).await?,
        Verdict::Gone
    );
    Ok(())
}

async fn a_purge_keeps_posts_of_one_id_apart(bench: LedgerBench) -> Outcome {
    let posts = |message: &Message| {
        [1, 3, 5].map(|transfers| Message {
            transfers,
            ..message.clone()
        })
    };
    let [purged, deleted] = [bench.message(), bench.message()];
    let sent = bench.now().before(MINUTE);
    for message in [&purged, &deleted] {
        let [_, present, _] = posts(message);
        bench.take(&[bench.delivery_of(&present, sent)]).await?;
    }
    bench.delete(&[deleted.id], Precondition::None).await?;
    bench.ledger.purge(&bench.queue).await?;
    for message in [&purged, &deleted] {
        let [earlier, present, later] = posts(message);
        for copy in [earlier, present] {
            let verdict = bench.verdict(&bench.delivery_of(&copy, sent)).await?;
            assert_eq!(verdict, Verdict::Gone);
        }
        granted(bench.verdict(&bench.delivery_of(&later, sent)).await?)?;
    }
    Ok(())
}

async fn what_is_met_after_a_purge_is_there(bench: LedgerBench) -> Outcome {
    fill(&bench).await?;
    bench.ledger.purge(&bench.queue).await?;
    let [recorded, met] = [bench.message(), bench.message()];
    bench.record(from_ref(&recorded)).await?;
    // By another clock it was posted long before the purge.
    let copy = bench.delivery_of(&met, bench.now().before(minutes(10)));
    granted(bench.verdict(&copy).await?)?;
    assert_eq!(bench.rows().await?, [recorded.id, met.id]);
    assert_eq!(bench.counts().await?, (1, 1));
    Ok(())
}

async fn a_purged_id_starts_anew(bench: LedgerBench) -> Outcome {
    let messages = fill(&bench).await?;
    bench.ledger.purge(&bench.queue).await?;
    bench.record(&messages[..1]).await?;
    assert_eq!(bench.rows().await?, [messages[0].id]);
    granted(bench.verdict(&bench.delivery(&messages[0])).await?)?;
    // Without a journal the envelope says that it was posted later.
    bench.advance(MINUTE).await;
    granted(bench.verdict(&bench.delivery(&messages[1])).await?)?;
    assert_eq!(bench.counts().await?, (0, 2));
    Ok(())
}

async fn old_positions_stand_before_everything(bench: LedgerBench) -> Outcome {
    bench.record(&bench.messages(5)).await?;
    let page = bench.ledger.list(&bench.queue, first(5)).await?;
    bench.ledger.purge(&bench.queue).await?;
    let messages = bench.messages(2);
    bench.record(&messages).await?;
    let page = bench.ledger.list(&bench.queue, after(page.marker)).await?;
    assert_eq!(ids(&page.messages), ids(&messages));
    Ok(())
}

async fn a_purged_claim_name_can_be_used_again(bench: LedgerBench) -> Outcome {
    let [old, new] = [bench.message(), bench.message()];
    let lease = bench.take(&[bench.delivery(&old)]).await?;
    bench.ledger.purge(&bench.queue).await?;
    granted(
        bench
            .claim(&lease, &[bench.delivery(&new)])
            .await?
            .remove(0),
    )?;
    assert_eq!(ids(&bench.find(lease.id).await?.messages), [new.id]);
    assert_eq!(bench.counts().await?, (0, 1));
    bench.release(lease.id).await?;
    assert_eq!(bench.counts().await?, (1, 0));
    Ok(())
}

async fn a_queue_that_is_not_there_is_purged_in_vain(bench: LedgerBench) -> Outcome {
    bench.ledger.purge(&bench.queue).await?;
    assert!(bench.rows().await?.is_empty());
    assert!(bench.ledger.stats(&bench.queue).await?.is_empty());
    Ok(())
}

async fn purges_among_grants_leave_whole_counts(bench: LedgerBench) -> Outcome {
    together((0..9).map(|worker| {
        let bench = bench.clone();
        async move {
            for _ in 0..10 {
                let messages = bench.messages(4);
                match worker % 3 {
                    0 => bench.ledger.purge(&bench.queue).await?,
                    1 => {
                        let epoch = bench.epoch().await?;
                        bench.record_in(Some(epoch), bench.now(), &messages).await?;
                    }
                    _ => drop(bench.take(&bench.deliveries(&messages)).await?),
                }
            }
            Ok(())
        }
    }))
    .await?;
    let rows = bench.rows().await?;
    let (free, held) = bench.counts().await?;
    assert_eq!(rows.len() as u64, free + held);
    assert_eq!(bench.delete(&rows, Precondition::None).await?.0, rows.len());
    assert_eq!(bench.counts().await?, (0, 0));
    Ok(())
}
