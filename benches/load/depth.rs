//! Does an operation cost more in a deep queue, or behind many claimed messages?
//!
//! The same operation is sent to a near queue (a thousand free messages) and to a far one, in short bursts that take
//! turns. What a burst changed is undone before the next, outside the measured time, so that both queues keep their
//! depth. All connections send the operation at once, so p50 is a measure of the server's work for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::drive::{Load, Pool};
use crate::redis::Redis;
use crate::report::{millis, percentile};
use crate::scenario::{fill, neighbour};
use crate::wire::Connection;
use crate::zaqar::Queue;
use crate::{Result, Target};

const NEAR: u64 = 1_000;
const CLAIMED: u64 = 100_000;
const DEEP: u64 = 1_000_000;

/// What can be asked of a server in reasonable time.
#[derive(Debug, Clone, Copy)]
struct Effort {
    /// Requests of a burst; a near queue has enough free messages for one burst of claims.
    burst: u64,
    /// Bursts to each queue.
    bursts: usize,
    /// Messages of one claim of those in front.
    claim_limit: usize,
    /// Whether a queue of a million messages is made.
    deep: bool,
}

const FULL: Effort = Effort {
    burst: 500,
    bursts: 20,
    claim_limit: 20,
    deep: true,
};

/// For a server whose operations take seconds in the far queue.
const LITTLE: Effort = Effort {
    burst: 4,
    bursts: 2,
    claim_limit: 1_000,
    deep: false,
};

/// Outlives the comparison, and ends before the messages do, so that their life is not extended.
const CLAIM_TTL_SECS: u32 = 1_800;

/// What p50 in the far queue may be, as a multiple of p50 in the near one.
const CLAIMED_TARGET: f64 = 1.3;
const DEEP_TARGET: f64 = 1.5;

#[derive(Debug, Clone, Copy)]
enum Operation {
    Claim,
    Post,
    List,
    Stats,
}

/// A queue and the number of live messages in it between bursts.
#[derive(Debug, Clone)]
struct Site {
    queue: Queue,
    messages: u64,
}

/// Prepares the queues on one server and prints how far each operation's p50 grows, and what a message takes of the
/// memory of its Redis.
pub(crate) async fn compare(target: &mut Target, redis: Option<&Redis>) -> Result<()> {
    let Target { server, pool } = target;
    let effort = if server.slow { LITTLE } else { FULL };
    let redis = redis.filter(|_| server.works_on_redis());
    let memory = || redis.map(Redis::memory).transpose();
    let near = site(pool, NEAR).await?;
    let before = memory()?;
    let behind = site(pool, CLAIMED + NEAR).await?;
    let free = memory()?;
    claim_ahead(pool, &behind, effort.claim_limit).await?;
    let claimed = memory()?;
    let deep = match effort.deep {
        true => Some(site(pool, DEEP).await?),
        false => None,
    };
    let youngest = neighbour(pool).await?;

    println!("{}: near is {NEAR} messages", server.name);
    if let (Some(before), Some(free), Some(claimed)) = (before, free, claimed) {
        let of_one = |bytes: u64, count: u64| bytes.saturating_sub(before) / count;
        println!(
            "  memory of Redis for a message: {} bytes free, {} bytes when {CLAIMED} of {} are claimed",
            of_one(free, behind.messages),
            of_one(claimed, behind.messages),
            behind.messages
        );
    }
    println!(
        "  {:<10}{:<36}{:>10}{:>12}{:>10}{:>9}",
        "operation", "far is", "near ms", "far ms", "ratio", "target"
    );
    let claimed = format!("{NEAR} behind {CLAIMED} claimed");
    for operation in [Operation::Claim, Operation::List, Operation::Stats] {
        let sites = [&near, &behind];
        row(pool, effort, operation, &claimed, sites, CLAIMED_TARGET).await?;
    }
    if let Some(deep) = &deep {
        let million = format!("{DEEP} messages");
        for operation in [Operation::Claim, Operation::Post] {
            let sites = [&near, deep];
            row(pool, effort, operation, &million, sites, DEEP_TARGET).await?;
        }
    }
    println!();
    let sites = [Some(near), Some(behind), deep];
    let queues = sites.into_iter().flatten().map(|site| site.queue);
    for queue in queues.chain([youngest]) {
        pool.first().exchange(&queue.remove()).await?.done()?;
    }
    Ok(())
}

async fn site(pool: &mut Pool, messages: u64) -> Result<Site> {
    let queue = Queue::fresh();
    let messages = fill(pool, &queue, messages).await?;
    Ok(Site { queue, messages })
}

/// Claims all messages of a site but the last [`NEAR`].
async fn claim_ahead(pool: &mut Pool, site: &Site, limit: usize) -> Result<()> {
    let request = site.queue.claim(limit, CLAIM_TTL_SECS);
    let claims = ClaimAhead { request, limit };
    pool.drive_all(&Arc::new(claims), CLAIMED / limit as u64)
        .await?;
    Ok(())
}

/// Measures one operation at both sites and prints the line.
async fn row(
    pool: &mut Pool,
    effort: Effort,
    operation: Operation,
    far: &str,
    sites: [&Site; 2],
    target: f64,
) -> Result<()> {
    let probes = sites.map(|site| Arc::new(Probe::new(operation, site.clone())));
    let mut latencies = [Vec::new(), Vec::new()];
    for _ in 0..effort.bursts {
        for (probe, latencies) in probes.iter().zip(&mut latencies) {
            latencies.extend(probe.burst(pool, effort.burst).await?);
        }
    }
    let [near, far_p50] = latencies.map(p50);
    let ratio = far_p50 / near;
    let name = format!("{operation:?}").to_lowercase();
    println!("  {name:<10}{far:<36}{near:>10.2}{far_p50:>12.2}{ratio:>10.2}{target:>9.1}");
    Ok(())
}

fn p50(mut latencies: Vec<Duration>) -> f64 {
    latencies.sort_unstable();
    millis(percentile(&latencies, 50))
}

/// One claim of those in front.
#[derive(Debug)]
struct ClaimAhead {
    request: Vec<u8>,
    limit: usize,
}

impl Load for ClaimAhead {
    async fn cycle(&self, connection: &mut Connection) -> Result<()> {
        let answer = connection.exchange(&self.request).await?;
        answer.claimed(self.limit)?;
        Ok(())
    }
}

/// One operation at one site.
#[derive(Debug)]
struct Probe {
    operation: Operation,
    site: Site,
    request: Vec<u8>,
    /// The requests that undo the burst so far.
    undo: Arc<Undo>,
}

impl Probe {
    fn new(operation: Operation, site: Site) -> Self {
        let request = match operation {
            Operation::Claim => site.queue.claim(1, CLAIM_TTL_SECS),
            Operation::Post => site.queue.post(1),
            Operation::List => site.queue.list(),
            Operation::Stats => site.queue.stats(),
        };
        Self {
            operation,
            site,
            request,
            undo: Arc::default(),
        }
    }

    /// Sends a burst, then undoes it. Returns how long each request of the burst took.
    async fn burst(self: &Arc<Self>, pool: &mut Pool, requests: u64) -> Result<Vec<Duration>> {
        let outcome = pool.drive_all(self, requests).await?;
        let undone = self.undo.len();
        pool.drive_all(&self.undo, undone).await?;
        Ok(outcome.latencies)
    }
}

impl Load for Probe {
    async fn cycle(&self, connection: &mut Connection) -> Result<()> {
        let queue = &self.site.queue;
        let answer = connection.exchange(&self.request).await?;
        match self.operation {
            Operation::Claim => self.undo.push(queue.release(&answer.claimed(1)?.claim)),
            Operation::Post => self.undo.push(queue.delete(answer.posted(1)?[0])),
            Operation::List => answer.shown(10)?,
            Operation::Stats => answer.counted(self.site.messages)?,
        }
        Ok(())
    }
}

/// Requests still to be sent, each once.
#[derive(Debug, Default)]
struct Undo(Mutex<Vec<Vec<u8>>>);

impl Undo {
    fn push(&self, request: Vec<u8>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(request);
    }

    fn pop(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn len(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }
}

impl Load for Undo {
    async fn cycle(&self, connection: &mut Connection) -> Result<()> {
        match self.pop() {
            Some(request) => connection.exchange(&request).await?.done(),
            None => Ok(()),
        }
    }
}
