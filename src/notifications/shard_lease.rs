//! Who works on which shard of the outbox: one server at a time, by a lease on a message that stands for the shard.
//!
//! A server takes a shard when there is something in it and nobody has it, renews the lease well before it ends, and lets
//! go of a shard that it could not renew before anybody else can have it. It gives a shard back when nothing came for
//! a while, and when it stops. So an idle service writes nothing, and the server that posts is mostly the one that sends.

use std::sync::Arc;
use std::time::Duration;

use isimud_contract::{
    ClaimId, ClientId, ErrorKind, Lease, Message, MessageId, QueueKey, Resource, Result,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::delivery_queue::DeliveryQueues;
use super::outbox::{SHARDS, own_queue};
use super::{Deliveries, fan_out};

/// How often a shard that nobody is known to have is looked at: other servers write to it, too, and die.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long a lease runs.
const LEASE_TTL: Duration = Duration::from_secs(10);
/// How often it is renewed.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(3);
/// For how long a shard is worked on without a renewal: less than the lease, by more than clocks drift apart.
const MAX_UNRENEWED: Duration = Duration::from_secs(7);
/// For how long a shard without work is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long attempts may take to finish when a shard is given back: what is left of the lease then.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(4);
/// The life of the message that stands for a shard.
const MARKER_TTL: Duration = Duration::from_hours(24 * 366);

/// Works on every shard that has something in it and that nobody else has, until told to stop.
pub(crate) async fn run(deliveries: Arc<Deliveries>, stop: watch::Receiver<bool>) {
    let workers = (0..SHARDS).map(|number| {
        let worker = ShardWorker {
            deliveries: Arc::clone(&deliveries),
            number,
            pending: own_queue(&format!("pending.{number}")),
            lease_queue: own_queue(&format!("shard.{number}")),
            stop: stop.clone(),
        };
        tokio::spawn(worker.run())
    });
    for task in workers.collect::<Vec<_>>() {
        drop(task.await);
    }
}

/// Looks after one shard.
struct ShardWorker {
    deliveries: Arc<Deliveries>,
    number: usize,
    /// Its queues that have something in them.
    pending: QueueKey,
    /// Where the message is that stands for it.
    lease_queue: QueueKey,
    stop: watch::Receiver<bool>,
}

impl ShardWorker {
    async fn run(mut self) {
        let mut is_up = true;
        while !*self.stop.borrow() {
            let taken = self.acquire().await;
            let was_up = std::mem::replace(&mut is_up, taken.is_ok());
            match taken {
                Ok(Some(lease)) => self.work(lease).await,
                Ok(None) => {}
                // Once is enough, and one shard speaks for all.
                Err(error) if was_up && self.number == 0 => {
                    tracing::warn!(%error, "cannot read or write notifications, retrying");
                }
                Err(error) => {
                    tracing::debug!(%error, shard = self.number, "cannot acquire the shard of the outbox, retrying")
                }
            }
            let wake = &self.deliveries.outbox.shard(self.number).wake;
            tokio::select! {
                _ = timeout(POLL_INTERVAL, wake.notified()) => {}
                _ = self.stop.wait_for(|stop| *stop) => {}
            }
        }
    }

    /// Takes the shard, if there is something in it and nobody has it.
    async fn acquire(&self) -> Result<Option<Lease>> {
        if self.is_empty().await? {
            return Ok(None);
        }
        let store = self.deliveries.store();
        let marker = Message::new(
            MessageId(Uuid::from_u128(1)),
            ClientId::Uuid(Uuid::nil()),
            MARKER_TTL,
            "null",
        );
        store.post(&self.lease_queue, vec![marker]).await?;
        let lease = Lease {
            id: ClaimId(Uuid::now_v7()),
            ttl: LEASE_TTL,
            grace: MARKER_TTL,
            dead_letter: None,
        };
        Ok(store
            .claim(&self.lease_queue, &lease, 1)
            .await?
            .map(|_| lease))
    }

    /// Whether there is nothing to send, and nothing to send again.
    async fn is_empty(&self) -> Result<bool> {
        let outbox = &self.deliveries.outbox.shard(self.number).queue;
        for queue in [outbox, &self.pending] {
            let page = self.deliveries.list(queue, None, 1, false).await?;
            if !page.messages.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Works on the shard until it is idle, or may be another's, or the server stops; then gives it back.
    async fn work(&mut self, lease: Lease) {
        tracing::debug!(
            shard = self.number,
            "shard lease acquired: this server sends the notifications of the shard"
        );
        let (stop_shard, stopped) = watch::channel(false);
        let queues = DeliveryQueues::new(
            Arc::clone(&self.deliveries),
            self.pending.clone(),
            stopped.clone(),
        );
        let reading = read(
            Arc::clone(&self.deliveries),
            self.number,
            Arc::clone(&queues),
            stopped,
        );
        let reading = tokio::spawn(reading);
        let is_ours = self.renew_while_busy(&lease, &queues).await;
        stop_shard.send_replace(true);
        if is_ours {
            let finished = async {
                drop(reading.await);
                queues.finish().await;
            };
            drop(timeout(SHUTDOWN_TIMEOUT, finished).await);
        } else {
            tracing::warn!(
                shard = self.number,
                "shard lease lost: another server may send the notifications of the shard"
            );
            reading.abort();
        }
        queues.abort().await;
        if let Err(error) = self
            .deliveries
            .store()
            .release_claim(&self.lease_queue, lease.id)
            .await
        {
            tracing::debug!(%error, shard = self.number, "shard lease could not be released; it expires by itself");
        }
    }

    /// Renews the lease for as long as there is work. Returns whether the shard is still ours.
    async fn renew_while_busy(&mut self, lease: &Lease, queues: &DeliveryQueues) -> bool {
        let (mut renewed, mut busy) = (Instant::now(), Instant::now());
        loop {
            tokio::select! {
                () = sleep(RENEWAL_INTERVAL) => {}
                _ = self.stop.wait_for(|stop| *stop) => return true,
            }
            let start = Instant::now();
            let renewing = self
                .deliveries
                .store()
                .renew_claim(&self.lease_queue, lease);
            match timeout(RENEWAL_INTERVAL, renewing).await {
                Ok(Ok(())) => renewed = start,
                Ok(Err(error)) if error.kind() == ErrorKind::NotFound(Resource::Claim) => {
                    return false;
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, shard = self.number, "shard lease renewal failed")
                }
                Err(_) => tracing::warn!(shard = self.number, "shard lease renewal timed out"),
            }
            if renewed.elapsed() + RENEWAL_INTERVAL > MAX_UNRENEWED {
                return false;
            }
            if !queues.are_idle() {
                busy = Instant::now();
            }
            if busy.elapsed() > IDLE_TIMEOUT {
                return true;
            }
        }
    }
}

/// Goes on where the shard was left, then reads what comes.
async fn read(
    deliveries: Arc<Deliveries>,
    number: usize,
    queues: Arc<DeliveryQueues>,
    stop: watch::Receiver<bool>,
) {
    while let Err(error) = queues.reopen().await {
        tracing::warn!(%error, shard = number, "cannot read or write notifications, retrying");
        if *stop.borrow() {
            return;
        }
        sleep(POLL_INTERVAL).await;
    }
    fan_out::run(deliveries, number, queues, stop).await;
}
