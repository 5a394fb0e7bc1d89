//! A ledger knows its own scope and queue alone, and all ledgers of one scope are one.

use std::slice::from_ref;

use isimud_contract::{ErrorKind, Guard, Resource};

use super::{Book, granted, held};
use crate::outcome::{Outcome, Word, refused};
use crate::promise::promises;
use crate::words::ids;

promises! {
    on Book;
    a_ledger_answers_a_ping,
    scopes_do_not_touch,
    queues_do_not_touch,
    a_ledger_that_is_opened_twice_is_one,
}

async fn a_ledger_answers_a_ping(book: Book) -> Outcome {
    book.ledger.ping().await?;
    Ok(())
}

/// What is done to one must not show in the other.
async fn assert_apart(one: &Book, other: &Book) -> Word<()> {
    let message = one.message();
    let copy = one.delivery(&message);
    let lease = one.take(from_ref(&copy)).await?;
    assert!(other.rows().await?.is_empty());
    assert_eq!(other.counts().await?, (0, 0));
    let missing = other.find(lease.id).await;
    refused(missing, ErrorKind::NotFound(Resource::Claim))?;
    assert!(other.release(lease.id).await?.is_empty());
    assert_eq!(other.bury(&[message.id], Guard::Any).await?.0, 0);
    other.note(from_ref(&message)).await?;
    granted(other.claim(&lease, from_ref(&copy)).await?.remove(0))?;
    other.ledger.purge(&other.queue).await?;
    held(one.verdict(&copy).await?)?;
    assert_eq!(ids(&one.find(lease.id).await?.messages), [message.id]);
    assert_eq!(one.counts().await?, (0, 1));
    Ok(())
}

async fn scopes_do_not_touch(book: Book) -> Outcome {
    for scope in [
        "pool too",
        "poo",
        "l",
        "pool/project",
        "Pool",
        "pool\0",
        "ü:{}*",
    ] {
        assert_apart(&book, &book.scope(scope).await?).await?;
        book.ledger.purge(&book.queue).await?;
    }
    Ok(())
}

async fn queues_do_not_touch(book: Book) -> Outcome {
    assert_apart(&book, &book.on("other")).await?;
    Ok(())
}

async fn a_ledger_that_is_opened_twice_is_one(book: Book) -> Outcome {
    let again = book.scope("pool").await?;
    let message = book.message();
    let copy = book.delivery(&message);
    let lease = book.take(from_ref(&copy)).await?;
    held(again.verdict(&copy).await?)?;
    assert_eq!(ids(&again.find(lease.id).await?.messages), [message.id]);
    again
        .bury(&[message.id], Guard::HeldBy(vec![lease.id]))
        .await?;
    assert_eq!(book.counts().await?, (0, 0));
    Ok(())
}
