//! A purge takes every row from before it, and nothing from after it, whatever the clocks say.

use std::slice::from_ref;

use isimud_contract::{ErrorKind, Guard, Message, Resource, Verdict};

use super::{Book, granted};
use crate::bench::{MINUTE, minutes};
use crate::outcome::{Outcome, refused, together};
use crate::promise::promises;
use crate::words::{after, first, ids};

promises! {
    on Book;
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
async fn fill(book: &Book) -> Result<Vec<Message>, crate::outcome::Why> {
    let mut messages = book.messages(3);
    messages[2].delay = MINUTE;
    book.note(&messages).await?;
    book.take(&[book.delivery(&messages[1])]).await?;
    Ok(messages)
}

async fn a_purge_leaves_nothing(book: Book) -> Outcome {
    let messages = fill(&book).await?;
    let lease = book.take(&[book.delivery(&messages[0])]).await?;
    book.ledger.purge(&book.queue).await?;
    assert!(book.rows().await?.is_empty());
    assert!(book.ledger.stats(&book.queue).await?.is_empty());
    let missing = book.find(lease.id).await;
    refused(missing, ErrorKind::NotFound(Resource::Claim))?;
    assert!(book.release(lease.id).await?.is_empty());
    assert_eq!(book.bury(&ids(&messages), Guard::Any).await?.0, 0);
    assert!(
        book.ledger
            .get(&book.queue, &ids(&messages))
            .await?
            .is_empty()
    );
    Ok(())
}

async fn purged_messages_are_gone_when_they_are_delivered(book: Book) -> Outcome {
    let messages = fill(&book).await?;
    // Where the clock runs: envelopes no younger than the rows.
    let sent = book.now().before(MINUTE);
    let copies = messages
        .iter()
        .map(|message| book.delivery_of(message, sent));
    let copies: Vec<_> = copies.collect();
    book.ledger.purge(&book.queue).await?;
    for _ in 0..3 {
        let verdicts = book.claim(&book.lease(), &copies).await?;
        assert!(verdicts.iter().all(|v| *v == Verdict::Gone), "{verdicts:?}");
        book.advance(minutes(10)).await;
    }
    assert_eq!(book.counts().await?, (0, 0));
    Ok(())
}

async fn a_deleted_message_stays_deleted_through_a_purge(book: Book) -> Outcome {
    let message = book.message();
    book.take(&[book.delivery(&message)]).await?;
    book.bury(&[message.id], Guard::Any).await?;
    book.ledger.purge(&book.queue).await?;
    book.note(from_ref(&message)).await?;
    book.advance(MINUTE).await;
    // A copy that was sent a little later than the one that was deleted.
    assert_eq!(book.verdict(&book.delivery(&message)).await?, Verdict::Gone);
    Ok(())
}

async fn a_purge_keeps_posts_of_one_id_apart(book: Book) -> Outcome {
    let posts = |message: &Message| {
        [1, 3, 5].map(|transfers| Message {
            transfers,
            ..message.clone()
        })
    };
    let [purged, deleted] = [book.message(), book.message()];
    let sent = book.now().before(MINUTE);
    for message in [&purged, &deleted] {
        let [_, present, _] = posts(message);
        book.take(&[book.delivery_of(&present, sent)]).await?;
    }
    book.bury(&[deleted.id], Guard::Any).await?;
    book.ledger.purge(&book.queue).await?;
    for message in [&purged, &deleted] {
        let [earlier, present, later] = posts(message);
        for copy in [earlier, present] {
            let verdict = book.verdict(&book.delivery_of(&copy, sent)).await?;
            assert_eq!(verdict, Verdict::Gone);
        }
        granted(book.verdict(&book.delivery_of(&later, sent)).await?)?;
    }
    Ok(())
}

async fn what_is_met_after_a_purge_is_there(book: Book) -> Outcome {
    fill(&book).await?;
    book.ledger.purge(&book.queue).await?;
    let [noted, met] = [book.message(), book.message()];
    book.note(from_ref(&noted)).await?;
    // By another clock it was posted long before the purge.
    let copy = book.delivery_of(&met, book.now().before(minutes(10)));
    granted(book.verdict(&copy).await?)?;
    assert_eq!(book.rows().await?, [noted.id, met.id]);
    assert_eq!(book.counts().await?, (1, 1));
    Ok(())
}

async fn a_purged_id_starts_anew(book: Book) -> Outcome {
    let messages = fill(&book).await?;
    book.ledger.purge(&book.queue).await?;
    book.note(&messages[..1]).await?;
    assert_eq!(book.rows().await?, [messages[0].id]);
    granted(book.verdict(&book.delivery(&messages[0])).await?)?;
    // Without a journal the envelope says that it was posted later.
    book.advance(MINUTE).await;
    granted(book.verdict(&book.delivery(&messages[1])).await?)?;
    assert_eq!(book.counts().await?, (0, 2));
    Ok(())
}

async fn old_positions_stand_before_everything(book: Book) -> Outcome {
    book.note(&book.messages(5)).await?;
    let page = book.ledger.list(&book.queue, first(5)).await?;
    book.ledger.purge(&book.queue).await?;
    let messages = book.messages(2);
    book.note(&messages).await?;
    let page = book.ledger.list(&book.queue, after(page.marker)).await?;
    assert_eq!(ids(&page.messages), ids(&messages));
    Ok(())
}

async fn a_purged_claim_name_can_be_used_again(book: Book) -> Outcome {
    let [old, new] = [book.message(), book.message()];
    let lease = book.take(&[book.delivery(&old)]).await?;
    book.ledger.purge(&book.queue).await?;
    granted(book.claim(&lease, &[book.delivery(&new)]).await?.remove(0))?;
    assert_eq!(ids(&book.find(lease.id).await?.messages), [new.id]);
    assert_eq!(book.counts().await?, (0, 1));
    book.release(lease.id).await?;
    assert_eq!(book.counts().await?, (1, 0));
    Ok(())
}

async fn a_queue_that_is_not_there_is_purged_in_vain(book: Book) -> Outcome {
    book.ledger.purge(&book.queue).await?;
    assert!(book.rows().await?.is_empty());
    assert!(book.ledger.stats(&book.queue).await?.is_empty());
    Ok(())
}

async fn purges_among_grants_leave_whole_counts(book: Book) -> Outcome {
    together((0..9).map(|worker| {
        let book = book.clone();
        async move {
            for _ in 0..10 {
                let messages = book.messages(4);
                match worker % 3 {
                    0 => book.ledger.purge(&book.queue).await?,
                    1 => {
                        let era = book.era().await?;
                        book.note_in(Some(era), book.now(), &messages).await?;
                    }
                    _ => drop(book.take(&book.deliveries(&messages)).await?),
                }
            }
            Ok(())
        }
    }))
    .await?;
    let rows = book.rows().await?;
    let (free, held) = book.counts().await?;
    assert_eq!(rows.len() as u64, free + held);
    assert_eq!(book.bury(&rows, Guard::Any).await?.0, rows.len());
    assert_eq!(book.counts().await?, (0, 0));
    Ok(())
}
