//! A ledger knows its own scope and queue alone, and all ledgers of one scope are one.

use std::slice::from_ref;

use isimud_contract::{ErrorKind, Precondition, Resource};

use super::{LedgerBench, granted, held};
use crate::outcome::{Outcome, Step, refused};
use crate::promise::promises;
use crate::steps::ids;

promises! {
    on LedgerBench;
    a_ledger_answers_a_ping,
    scopes_do_not_touch,
    queues_do_not_touch,
    a_ledger_that_is_opened_twice_is_one,
}

async fn a_ledger_answers_a_ping(bench: LedgerBench) -> Outcome {
    bench.ledger.ping().await?;
    Ok(())
}

/// What is done to one must not show in the other.
async fn assert_apart(one: &LedgerBench, other: &LedgerBench) -> Step<()> {
    let message = one.message();
    let copy = one.delivery(&message);
    let lease = one.take(from_ref(&copy)).await?;
    assert!(other.rows().await?.is_empty());
    assert_eq!(other.counts().await?, (0, 0));
    let missing = other.find(lease.id).await;
    refused(missing, ErrorKind::NotFound(Resource::Claim))?;
    assert!(other.release(lease.id).await?.is_empty());
    assert_eq!(other.delete(&[message.id], Precondition::None).await?.0, 0);
    other.record(from_ref(&message)).await?;
    granted(other.claim(&lease, from_ref(&copy)).await?.remove(0))?;
    other.ledger.purge(&other.queue).await?;
    held(one.verdict(&copy).await?)?;
    assert_eq!(ids(&one.find(lease.id).await?.messages), [message.id]);
    assert_eq!(one.counts().await?, (0, 1));
    Ok(())
}

async fn scopes_do_not_touch(bench: LedgerBench) -> Outcome {
    for scope in [
        "pool too",
        "poo",
        "l",
        "pool/project",
        "Pool",
        "pool\0",
        "ü:{}*",
    ] {
        assert_apart(&bench, &bench.scope(scope).await?).await?;
        bench.ledger.purge(&bench.queue).await?;
    }
    Ok(())
}

async fn queues_do_not_touch(bench: LedgerBench) -> Outcome {
    assert_apart(&bench, &bench.on("other")).await?;
    Ok(())
}

async fn a_ledger_that_is_opened_twice_is_one(bench: LedgerBench) -> Outcome {
    let again = bench.scope("pool").await?;
    let message = bench.message();
    let copy = bench.delivery(&message);
    let lease = bench.take(from_ref(&copy)).await?;
    held(again.verdict(&copy).await?)?;
    assert_eq!(ids(&again.find(lease.id).await?.messages), [message.id]);
    again
        .delete(&[message.id], Precondition::ClaimedBy(vec![lease.id]))
        .await?;
    assert_eq!(bench.counts().await?, (0, 0));
    Ok(())
}
