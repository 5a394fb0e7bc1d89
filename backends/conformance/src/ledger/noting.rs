//! A note gives messages rows, in order and once, in the era that it was made for.

use std::slice::from_ref;

use isimud_contract::{Arrival, Delivery, Guard, Message, Verdict};

use super::{Book, granted, held};
use crate::bench::{MINUTE, minutes};
use crate::outcome::{Outcome, together};
use crate::promise::promises;
use crate::words::{everything, ids};

promises! {
    on Book;
    noted_messages_are_listed_in_order,
    a_repeated_note_is_one_note,
    a_note_leaves_claims_alone,
    a_note_of_a_deleted_message_does_not_bring_it_back,
    a_note_of_an_ended_message_starts_anew,
    a_note_of_a_message_that_comes_back_starts_anew,
    a_note_of_an_earlier_post_changes_nothing,
    an_era_lasts_until_a_purge,
    every_queue_has_eras_of_its_own,
    a_note_for_another_era_writes_nothing,
    a_note_without_an_era_writes_nothing,
    notes_at_the_same_time_are_whole,
    a_note_decides_the_order_whoever_claims_meanwhile,
    a_message_that_awaits_its_note_is_in_no_listing,
    a_delayed_message_that_awaits_its_note_becomes_due,
    what_nobody_notes_is_listed_after_a_while,
    a_message_that_awaits_its_note_may_be_deleted,
    a_purge_takes_what_awaits_its_note,
    a_note_puts_messages_at_the_numbers_they_come_with,
    a_delivery_knows_the_number_that_its_message_came_with,
}

async fn noted_messages_are_listed_in_order(book: Book) -> Outcome {
    let mut messages = book.messages(6);
    messages.reverse();
    book.note(&messages[..4]).await?;
    book.note(&messages[4..]).await?;
    assert_eq!(book.rows().await?, ids(&messages));
    assert_eq!(book.counts().await?, (6, 0));
    Ok(())
}

async fn a_repeated_note_is_one_note(book: Book) -> Outcome {
    let messages = book.messages(3);
    book.note(&messages[..2]).await?;
    book.note(&messages).await?;
    book.note(&[messages[0].clone(), messages[0].clone()])
        .await?;
    assert_eq!(book.rows().await?, ids(&messages));
    assert_eq!(book.counts().await?, (3, 0));
    Ok(())
}

/// A message may be delivered before it is noted.
async fn a_note_leaves_claims_alone(book: Book) -> Outcome {
    let message = book.message();
    let lease = book.take(&[book.delivery(&message)]).await?;
    book.note(from_ref(&message)).await?;
    assert_eq!(ids(&book.find(lease.id).await?.messages), [message.id]);
    assert_eq!(book.counts().await?, (0, 1));
    Ok(())
}

async fn a_note_of_a_deleted_message_does_not_bring_it_back(book: Book) -> Outcome {
    let message = book.message();
    let lease = book.take(&[book.delivery(&message)]).await?;
    book.bury(&[message.id], Guard::HeldBy(vec![lease.id]))
        .await?;
    book.note(from_ref(&message)).await?;
    assert!(book.rows().await?.is_empty());
    assert_eq!(book.counts().await?, (0, 0));
    assert_eq!(book.verdict(&book.delivery(&message)).await?, Verdict::Gone);
    Ok(())
}

async fn a_note_of_an_ended_message_starts_anew(book: Book) -> Outcome {
    let [message, other] = [book.living(MINUTE), book.message()];
    book.note(&[message.clone(), other.clone()]).await?;
    book.advance(MINUTE).await;
    book.note(from_ref(&message)).await?;
    assert_eq!(book.rows().await?, [other.id, message.id]);
    assert_eq!(book.counts().await?, (2, 0));
    let taken = granted(book.verdict(&book.delivery(&message)).await?)?;
    book.assert_span(taken.age, minutes(0));
    Ok(())
}

async fn a_note_of_a_message_that_comes_back_starts_anew(book: Book) -> Outcome {
    let [first, other] = [book.message(), book.message()];
    book.note(&[first.clone(), other.clone()]).await?;
    book.bury(&[first.id], Guard::Any).await?;
    for transfers in [2, 4] {
        let back = Message {
            transfers,
            ..first.clone()
        };
        book.note(from_ref(&back)).await?;
        assert_eq!(book.rows().await?, [other.id, back.id]);
        assert_eq!(book.counts().await?, (2, 0));
        let taken = granted(book.verdict(&book.delivery(&back)).await?)?;
        assert_eq!(taken.transfers, transfers);
    }
    Ok(())
}

async fn a_note_of_an_earlier_post_changes_nothing(book: Book) -> Outcome {
    let first = book.message();
    let back = Message {
        transfers: 2,
        ..first.clone()
    };
    book.note(from_ref(&back)).await?;
    let lease = book.take(&[book.delivery(&back)]).await?;
    book.note(from_ref(&first)).await?;
    assert_eq!(book.find(lease.id).await?.messages[0].transfers, 2);
    book.bury(&[back.id], Guard::Any).await?;
    book.note(from_ref(&first)).await?;
    book.note(from_ref(&back)).await?;
    assert_eq!(book.counts().await?, (0, 0));
    Ok(())
}

async fn an_era_lasts_until_a_purge(book: Book) -> Outcome {
    let mut seen = Vec::new();
    for _ in 0..3 {
        let era = book.era().await?;
        assert!(!seen.contains(&era), "{era:?} was over");
        book.note(&book.messages(2)).await?;
        book.take(&[book.delivery(&book.message())]).await?;
        assert_eq!(book.era().await?, era);
        seen.push(era);
        book.ledger.purge(&book.queue).await?;
    }
    Ok(())
}

async fn every_queue_has_eras_of_its_own(book: Book) -> Outcome {
    let other = book.on("other");
    let (here, there) = (book.era().await?, other.era().await?);
    assert_ne!(here, there);
    book.ledger.purge(&book.queue).await?;
    assert_eq!(other.era().await?, there);
    Ok(())
}

/// What was sent before a purge, and is noted after it, may be gone: it must not be listed.
async fn a_note_for_another_era_writes_nothing(book: Book) -> Outcome {
    let messages = book.messages(2);
    book.note(&book.messages(1)).await?;
    let before = book.era().await?;
    book.ledger.purge(&book.queue).await?;
    let present = book.note_in(Some(before), book.now(), &messages).await?;
    assert_ne!(present, before);
    assert!(book.rows().await?.is_empty());
    let again = book.note_in(Some(present), book.now(), &messages).await?;
    assert_eq!(again, present);
    assert_eq!(book.rows().await?, ids(&messages));
    Ok(())
}

async fn a_note_without_an_era_writes_nothing(book: Book) -> Outcome {
    let messages = book.messages(2);
    book.note_in(None, book.now(), &messages).await?;
    assert!(book.rows().await?.is_empty());
    assert_eq!(book.counts().await?, (0, 0));
    Ok(())
}

async fn notes_at_the_same_time_are_whole(book: Book) -> Outcome {
    let messages = book.messages(20);
    together((0..8).map(|_| {
        let (book, messages) = (book.clone(), messages.clone());
        async move { book.note(&messages).await }
    }))
    .await?;
    assert_eq!(book.rows().await?, ids(&messages));
    assert_eq!(book.counts().await?, (20, 0));
    Ok(())
}

/// What the broker delivers of a message whose poster has sent it and not noted it yet.
fn awaited(book: &Book, message: &Message) -> Delivery {
    Delivery {
        awaits_note: true,
        ..book.delivery(message)
    }
}

/// Order is decided once, at the post: a delivery may overtake the note of its message, and changes nothing.
async fn a_note_decides_the_order_whoever_claims_meanwhile(book: Book) -> Outcome {
    let messages = book.messages(5);
    let lease = book
        .take(&[awaited(&book, &messages[3]), awaited(&book, &messages[1])])
        .await?;
    book.note(&messages).await?;
    assert_eq!(book.rows().await?, ids(&messages));
    assert_eq!(book.counts().await?, (3, 2));
    let held: Vec<_> = book.find(lease.id).await?.messages;
    assert_eq!(ids(&held), [messages[1].id, messages[3].id]);
    let numbers: Vec<_> = held.iter().map(|message| message.arrival).collect();
    let listed = book.ledger.list(&book.queue, everything()).await?.messages;
    assert_eq!(numbers, [listed[1].arrival, listed[3].arrival]);
    // A note that is repeated, its answer having been lost, moves nothing.
    let more = book.messages(1);
    book.note(&more).await?;
    book.note(&messages).await?;
    assert_eq!(book.rows().await?, [ids(&messages), ids(&more)].concat());
    Ok(())
}

async fn a_message_that_awaits_its_note_is_in_no_listing(book: Book) -> Outcome {
    let [one, two] = [book.message(), book.message()];
    let lease = book.take(&[awaited(&book, &one)]).await?;
    assert!(book.rows().await?.is_empty());
    book.release(lease.id).await?;
    assert!(book.rows().await?.is_empty());
    book.note(from_ref(&two)).await?;
    assert_eq!(book.rows().await?, [two.id]);
    book.note(from_ref(&one)).await?;
    assert_eq!(book.rows().await?, [two.id, one.id]);
    // One that was noted first is where its note has put it.
    let three = book.message();
    book.note(from_ref(&three)).await?;
    book.take(&[awaited(&book, &three)]).await?;
    assert_eq!(book.rows().await?, [two.id, one.id, three.id]);
    Ok(())
}

async fn a_delayed_message_that_awaits_its_note_becomes_due(book: Book) -> Outcome {
    let message = Message {
        delay: MINUTE,
        ..book.message()
    };
    held(book.verdict(&awaited(&book, &message)).await?)?;
    book.note(from_ref(&message)).await?;
    assert_eq!(book.rows().await?, [message.id]);
    book.advance(minutes(2)).await;
    granted(book.verdict(&awaited(&book, &message)).await?)?;
    assert_eq!(book.counts().await?, (0, 1));
    Ok(())
}

/// Its poster has died between the broker and the ledger.
async fn what_nobody_notes_is_listed_after_a_while(book: Book) -> Outcome {
    let [lost, noted] = [book.message(), book.message()];
    book.take(&[awaited(&book, &lost)]).await?;
    book.note(from_ref(&noted)).await?;
    book.advance(MINUTE).await;
    // Whoever writes next, or the sweep, finds it.
    let mut rows = Vec::new();
    for _ in 0..100 {
        book.verdict(&book.delivery(&noted)).await?;
        rows = book.rows().await?;
        if rows.len() == 2 {
            break;
        }
        book.advance(crate::bench::MILLISECOND * 200).await;
    }
    assert_eq!(rows, [noted.id, lost.id]);
    assert_eq!(book.counts().await?, (0, 2));
    Ok(())
}

async fn a_message_that_awaits_its_note_may_be_deleted(book: Book) -> Outcome {
    let [one, two] = [book.message(), book.message()];
    book.take(&[awaited(&book, &one)]).await?;
    assert_eq!(book.bury(&[one.id], Guard::Any).await?.0, 1);
    book.note(&[one.clone(), two.clone()]).await?;
    assert_eq!(book.rows().await?, [two.id]);
    assert_eq!(book.counts().await?, (1, 0));
    let verdict = book.verdict(&awaited(&book, &one)).await?;
    assert!(matches!(verdict, Verdict::Gone));
    Ok(())
}

async fn a_purge_takes_what_awaits_its_note(book: Book) -> Outcome {
    let delivery = awaited(&book, &book.message());
    book.take(from_ref(&delivery)).await?;
    book.ledger.purge(&book.queue).await?;
    let verdict = book.verdict(&delivery).await?;
    assert!(matches!(verdict, Verdict::Gone));
    book.advance(MINUTE).await;
    assert!(book.rows().await?.is_empty());
    assert_eq!(book.counts().await?, (0, 0));
    Ok(())
}

async fn a_note_puts_messages_at_the_numbers_they_come_with(book: Book) -> Outcome {
    let early = book.now().0.unsigned_abs() - 1_000_000;
    let [b, c] = [book.message(), book.message()];
    let a = Message {
        arrival: Arrival::At(early),
        ..book.message()
    };
    book.note(&[b.clone(), c.clone()]).await?;
    book.note(from_ref(&a)).await?;
    assert_eq!(book.rows().await?, [a.id, b.id, c.id]);
    Ok(())
}

/// A message that was carried here is where it belongs before its note as well.
async fn a_delivery_knows_the_number_that_its_message_came_with(book: Book) -> Outcome {
    let early = book.now().0.unsigned_abs() - 1_000_000;
    let b = book.message();
    let a = Message {
        arrival: Arrival::At(early),
        ..book.message()
    };
    book.note(from_ref(&b)).await?;
    let taken = granted(book.verdict(&awaited(&book, &a)).await?)?;
    assert_eq!(taken.arrival, Arrival::At(early));
    assert_eq!(book.rows().await?, [a.id, b.id]);
    book.note(from_ref(&a)).await?;
    assert_eq!(book.rows().await?, [a.id, b.id]);
    Ok(())
}
