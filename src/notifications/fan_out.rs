//! From a shard of the outbox to the queues of subscriptions.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use isimud_contract::{
    Message, MessageId, PAGE_BYTES, Precondition, QueueKey, Result, Subscription,
};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::Deliveries;
use super::delivery_queue::DeliveryQueues;
use super::entry::{Entry, What};
use super::mailboxes::SocketSubscriber;
use super::outbox::Shard;

/// How often a shard is looked at when nobody says that there is something: other servers write to it, too.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How many entries are read at once, if there are bytes for them.
const MAX_BATCH: usize = 100;
/// How long another server's entry is left alone: the message that it tells of may not be stored yet.
const SETTLE_TIME: Duration = Duration::from_millis(250);
/// Queues that are written to at once.
const MAX_CONCURRENT: usize = 32;
/// Subscriptions that are read at once.
const PAGE_SIZE: usize = 100;

/// Empties a shard until told to stop.
pub(crate) async fn run(
    deliveries: Arc<Deliveries>,
    number: usize,
    queues: Arc<DeliveryQueues>,
    mut stop: watch::Receiver<bool>,
) {
    while !*stop.borrow() {
        let shard = deliveries.outbox.shard(number);
        match drain_batch(&deliveries, shard, &queues).await {
            Ok(true) => {}
            Ok(false) => {
                tokio::select! {
                    _ = timeout(POLL_INTERVAL, shard.wake.notified()) => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
            }
            Err(error) => {
                tracing::warn!(%error, shard = number, "cannot read or write notifications, retrying");
                sleep(POLL_INTERVAL).await;
            }
        }
    }
}

/// Takes a batch off a shard. Returns whether there may be more.
async fn drain_batch(
    deliveries: &Arc<Deliveries>,
    shard: &Shard,
    queues: &Arc<DeliveryQueues>,
) -> Result<bool> {
    let failures = shard.failures();
    let (project, budget) = (&shard.queue.project, &deliveries.fanning);
    let reading = deliveries.read(budget, project, &shard.queue, MAX_BATCH, false);
    let (read, _spent) = reading.await?;
    let most = MAX_BATCH
        .min(budget.share() / deliveries.largest_entry)
        .max(1);
    // A page is full, too, that has as many bytes as a store gives at once.
    let bytes: u64 = read.iter().map(Message::size).sum();
    let is_full = read.len() >= most || bytes > PAGE_BYTES / 2;
    let (mut done, mut waiting) = (Vec::new(), HashSet::new());
    let mut sources: Vec<(QueueKey, Vec<(Entry, Message)>)> = Vec::new();
    for kept in read {
        let entry = match Entry::decode(&kept.body) {
            Ok(entry) => entry,
            Err(error) => {
                tracing::error!(%error, queue = %shard.queue, id = %kept.id, "dropping a notification that cannot be decoded");
                done.push(kept.id);
                continue;
            }
        };
        let is_settled = match entry.writer == deliveries.outbox.writer() {
            true => !shard.is_open(kept.id),
            false => kept.age >= SETTLE_TIME,
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
        fan_out(deliveries, queues, &source, &entries).await?;
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
        .delete(&shard.queue, done, Precondition::None)
        .await?;
    Ok(())
}

/// Adds the entries of a queue to the queues of its subscriptions.
async fn fan_out(
    deliveries: &Arc<Deliveries>,
    queues: &Arc<DeliveryQueues>,
    source: &QueueKey,
    entries: &[(Entry, Message)],
) -> Result<()> {
    let (mut after, mut has_subscribers) = (None, false);
    loop {
        let page = deliveries
            .management
            .list_subscriptions(source, after, PAGE_SIZE)
            .await?;
        let Some(last) = page.last() else {
            break;
        };
        (after, has_subscribers) = (Some(last.id), true);
        // Sockets are told in another way.
        let receivers = page
            .into_iter()
            .filter(|one| SocketSubscriber::of(one).is_none());
        let adding = receivers.map(async |subscription| {
            let wanted = |entry: &Entry| is_for(deliveries, &subscription, entry);
            let chosen: Vec<_> = entries
                .iter()
                .filter(|(entry, _)| wanted(entry))
                .cloned()
                .collect();
            match chosen.is_empty() {
                true => Ok(()),
                false => queues.add(source, subscription.id, &chosen).await,
            }
        });
        stream::iter(adding)
            .buffer_unordered(MAX_CONCURRENT)
            .try_collect::<()>()
            .await?;
    }
    if !has_subscribers {
        deliveries.context.forget(source);
    }
    Ok(())
}

/// Whether a subscription is to have a notification.
fn is_for(deliveries: &Deliveries, subscription: &Subscription, entry: &Entry) -> bool {
    match &entry.what {
        What::Confirmation {
            subscription: id, ..
        } => *id == subscription.id,
        What::Message { .. } => {
            subscription.confirmed || !deliveries.awaits_confirmation(&subscription.subscriber)
        }
    }
}
