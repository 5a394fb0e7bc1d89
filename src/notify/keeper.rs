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

use super::line::Lines;
use super::outbox::{SHARDS, own_queue};
use super::{Deliveries, fan};

/// How often a shard that nobody is known to have is looked at: other servers write to it, too, and die.
const LOOK: Duration = Duration::from_secs(1);
/// How long a lease runs.
const LEASE: Duration = Duration::from_secs(10);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(3);
/// For how long a shard is worked on without a renewal: less than the lease, by more than clocks drift apart.
const TRUST: Duration = Duration::from_secs(7);
/// For how long a shard without work is kept.
const IDLE: Duration = Duration::from_secs(30);
/// How long attempts may take to finish when a shard is given back: what is left of the lease then.
const FAREWELL: Duration = Duration::from_secs(4);
/// The life of the message that stands for a shard.
const LIFE: Duration = Duration::from_hours(24 * 366);

/// Works on every shard that has something in it and that nobody else has, until told to stop.
pub(crate) async fn keep(deliveries: Arc<Deliveries>, stop: watch::Receiver<bool>) {
    let keeping = (0..SHARDS).map(|number| {
        let keeper = Keeper {
            deliveries: Arc::clone(&deliveries),
            number,
            due: own_queue(&format!("due.{number}")),
            seat: own_queue(&format!("shard.{number}")),
            stop: stop.clone(),
        };
        tokio::spawn(keeper.keep())
    });
    for task in keeping.collect::<Vec<_>>() {
        drop(task.await);
    }
}

/// Looks after one shard.
struct Keeper {
    deliveries: Arc<Deliveries>,
    number: usize,
    /// Its lines that have something in them.
    due: QueueKey,
    /// Where the message is that stands for it.
    seat: QueueKey,
    stop: watch::Receiver<bool>,
}

impl Keeper {
    async fn keep(mut self) {
        let mut is_up = true;
        while !*self.stop.borrow() {
            let taken = self.take().await;
            let was_up = std::mem::replace(&mut is_up, taken.is_ok());
            match taken {
                Ok(Some(lease)) => self.work(lease).await,
                Ok(None) => {}
                // Once is enough, and one shard speaks for all.
                Err(error) if was_up && self.number == 0 => {
                    tracing::warn!(%error, "notifications wait for the store");
                }
                Err(error) => tracing::debug!(%error, shard = self.number, "notifications wait"),
            }
            let wake = &self.deliveries.outbox.shard(self.number).wake;
            tokio::select! {
                _ = timeout(LOOK, wake.notified()) => {}
                _ = self.stop.wait_for(|stop| *stop) => {}
            }
        }
    }

    /// Takes the shard, if there is something in it and nobody has it.
    async fn take(&self) -> Result<Option<Lease>> {
        if self.is_empty().await? {
            return Ok(None);
        }
        let store = self.deliveries.store();
        let stands_for_it = Message::new(
            MessageId(Uuid::from_u128(1)),
            ClientId::Uuid(Uuid::nil()),
            LIFE,
            "null",
        );
        store.post(&self.seat, vec![stands_for_it]).await?;
        let lease = Lease {
            id: ClaimId(Uuid::now_v7()),
            ttl: LEASE,
            grace: LIFE,
            dead_letter: None,
        };
        Ok(store.claim(&self.seat, &lease, 1).await?.map(|_| lease))
    }

    /// Whether there is nothing to send, and nothing to send again.
    async fn is_empty(&self) -> Result<bool> {
        let outbox = &self.deliveries.outbox.shard(self.number).queue;
        for queue in [outbox, &self.due] {
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
            "this server sends the notifications of a shard"
        );
        let (say_stop, stopped) = watch::channel(false);
        let lines = Lines::new(
            Arc::clone(&self.deliveries),
            self.due.clone(),
            stopped.clone(),
        );
        let reading = read(
            Arc::clone(&self.deliveries),
            self.number,
            Arc::clone(&lines),
            stopped,
        );
        let reading = tokio::spawn(reading);
        let is_ours = self.hold(&lease, &lines).await;
        say_stop.send_replace(true);
        if is_ours {
            let finished = async {
                drop(reading.await);
                lines.finish().await;
            };
            drop(timeout(FAREWELL, finished).await);
        } else {
            tracing::warn!(
                shard = self.number,
                "another server may send the notifications of a shard now"
            );
            reading.abort();
        }
        lines.abort().await;
        if let Err(error) = self
            .deliveries
            .store()
            .release_claim(&self.seat, lease.id)
            .await
        {
            tracing::debug!(%error, shard = self.number, "a shard will be free when its lease ends");
        }
    }

    /// Renews the lease for as long as there is work. Returns whether the shard is still ours.
    async fn hold(&mut self, lease: &Lease, lines: &Lines) -> bool {
        let (mut renewed, mut busy) = (Instant::now(), Instant::now());
        loop {
            tokio::select! {
                () = sleep(RENEWAL) => {}
                _ = self.stop.wait_for(|stop| *stop) => return true,
            }
            let start = Instant::now();
            let renewing = self.deliveries.store().renew_claim(&self.seat, lease);
            match timeout(RENEWAL, renewing).await {
                Ok(Ok(())) => renewed = start,
                Ok(Err(error)) if error.kind() == ErrorKind::NotFound(Resource::Claim) => {
                    return false;
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, shard = self.number, "a lease is not renewed")
                }
                Err(_) => tracing::warn!(shard = self.number, "a lease is not renewed in time"),
            }
            if renewed.elapsed() + RENEWAL > TRUST {
                return false;
            }
            if !lines.are_idle() {
                busy = Instant::now();
            }
            if busy.elapsed() > IDLE {
                return true;
            }
        }
    }
}

/// Goes on where the shard was left, then reads what comes.
async fn read(
    deliveries: Arc<Deliveries>,
    number: usize,
    lines: Arc<Lines>,
    stop: watch::Receiver<bool>,
) {
    while let Err(error) = lines.reopen().await {
        tracing::warn!(%error, shard = number, "notifications wait for the store");
        if *stop.borrow() {
            return;
        }
        sleep(LOOK).await;
    }
    fan::run(deliveries, number, lines, stop).await;
}
