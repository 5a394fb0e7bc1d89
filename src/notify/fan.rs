//! From a shard of the outbox to the lines of subscriptions.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use isimud_contract::{Guard, Message, MessageId, PAGE_BYTES, QueueKey, Result, Subscription};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::Deliveries;
use super::entry::{Entry, What};
use super::line::Lines;
use super::outbox::Shard;

/// How often a shard is looked at when nobody says that there is something: other servers write to it, too.
const LOOK: Duration = Duration::from_secs(1);
/// How many entries are read at once, if there are bytes for them.
const BATCH: usize = 100;
/// How long another server's entry is left alone: the message that it tells of may not be stored yet.
const SETTLING: Duration = Duration::from_millis(250);
/// Lines that are written to at once.
const AT_ONCE: usize = 32;
/// Subscriptions that are read at once.
const PAGE: usize = 100;

/// Empties a shard until told to stop.
pub(crate) async fn run(
    deliveries: Arc<Deliveries>,
    number: usize,
    lines: Arc<Lines>,
    mut stop: watch::Receiver<bool>,
) {
    while !*stop.borrow() {
        let shard = deliveries.outbox.shard(number);
        match pass(&deliveries, shard, &lines).await {
            Ok(true) => {}
            Ok(false) => {
                tokio::select! {
                    _ = timeout(LOOK, shard.wake.notified()) => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
            }
            Err(error) => {
                tracing::warn!(%error, shard = number, "notifications wait for the store");
                sleep(LOOK).await;
            }
        }
    }
}

/// Takes a batch off a shard. Returns whether there may be more.
async fn pass(deliveries: &Arc<Deliveries>, shard: &Shard, lines: &Arc<Lines>) -> Result<bool> {
    let failures = shard.failures();
    let (project, budget) = (&shard.queue.project, &deliveries.fanning);
    let reading = deliveries.read(budget, project, &shard.queue, BATCH, false);
    let (read, _spent) = reading.await?;
    let most = BATCH.min(budget.share() / deliveries.largest_entry).max(1);
    // A page is full, too, that has as many bytes as a store gives at once.
    let bytes: u64 = read.iter().map(Message::size).sum();
    let is_full = read.len() >= most || bytes > PAGE_BYTES / 2;
    let (mut done, mut waiting) = (Vec::new(), HashSet::new());
    let mut sources: Vec<(QueueKey, Vec<(Entry, Message)>)> = Vec::new();
    for kept in read {
        let entry = match Entry::decode(&kept.body) {
            Ok(entry) => entry,
            Err(error) => {
                tracing::error!(%error, "a notification is lost");
                done.push(kept.id);
                continue;
            }
        };
        let is_settled = match entry.writer == deliveries.outbox.writer() {
            true => !shard.is_open(kept.id),
            false => kept.age >= SETTLING,
        };
        // What comes behind it, from the same queue, waits with it.
        if !is_settled || waiting.contains(&entry.source) {
            waiting.insert(entry.source);
            continue;
        }
        match sources
            .iter_mut()
            .find(|(source, _)| *source == entry.source)
        {
            Some((_, entries)) => entries.push((entry, kept)),
            None => sources.push((entry.source.clone(), vec![(entry, kept)])),
        }
    }
    // An entry that was read and then taken back looks like one whose message is stored.
    if shard.failures() != failures {
        return Ok(true);
    }
    for (source, entries) in sources {
        fan_out(deliveries, lines, &source, &entries).await?;
        done.extend(entries.iter().map(|(_, kept)| kept.id));
    }
    let progress = !done.is_empty();
    if progress {
        delete(deliveries, shard, &done).await?;
    }
    Ok(is_full && progress)
}

async fn delete(deliveries: &Deliveries, shard: &Shard, done: &[MessageId]) -> Result<()> {
    deliveries
        .store()
        .delete(&shard.queue, done, Guard::Any)
        .await?;
    Ok(())
}

/// Adds the entries of a queue to the lines of its subscriptions.
async fn fan_out(
    deliveries: &Arc<Deliveries>,
    lines: &Arc<Lines>,
    source: &QueueKey,
    entries: &[(Entry, Message)],
) -> Result<()> {
    let (mut after, mut is_heard) = (None, false);
    loop {
        let page = deliveries
            .management
            .list_subscriptions(source, after, PAGE)
            .await?;
        let Some(last) = page.last() else {
            break;
        };
        (after, is_heard) = (Some(last.id), true);
        let adding = page.into_iter().map(async |subscription| {
            let wanted = |entry: &Entry| is_for(deliveries, &subscription, entry);
            let chosen: Vec<_> = entries
                .iter()
                .filter(|(entry, _)| wanted(entry))
                .cloned()
                .collect();
            match chosen.is_empty() {
                true => Ok(()),
                false => lines.add(source, subscription.id, &chosen).await,
            }
        });
        stream::iter(adding)
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
    }
    if !is_heard {
        deliveries.house.forget(source);
    }
    Ok(())
}

/// Whether a subscription is to have a notification.
fn is_for(deliveries: &Deliveries, subscription: &Subscription, entry: &Entry) -> bool {
    match &entry.what {
        What::Consent {
            subscription: id, ..
        } => *id == subscription.id,
        What::Message { .. } => {
            subscription.confirmed || !deliveries.waits_for_consent(&subscription.subscriber)
        }
    }
}
