//! The closed loop: every connection repeats a cycle until the time or the count is up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::Result;
use crate::wire::Connection;

/// The bound of a phase that is counted, not timed, and the patience with a server that stopped answering.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(600);

/// What a client does over and over.
pub(crate) trait Load: Send + Sync + 'static {
    /// One turn: one or more exchanges, each answer verified.
    fn cycle(&self, connection: &mut Connection) -> impl Future<Output = Result<()>> + Send;
}

/// What a phase did.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) cycles: u64,
    pub(crate) elapsed: Duration,
    /// Of every exchange, ascending.
    pub(crate) latencies: Vec<Duration>,
    /// Bytes of all answers.
    pub(crate) received: u64,
}

/// The connections to one server.
#[derive(Debug)]
pub(crate) struct Pool {
    connections: Vec<Connection>,
}

impl Pool {
    pub(crate) async fn open(address: SocketAddr, count: u16) -> Result<Self> {
        let mut connections = Vec::new();
        for _ in 0..count {
            connections.push(Connection::open(address).await?);
        }
        Ok(Self { connections })
    }

    /// A connection for what has to go step by step.
    pub(crate) fn first(&mut self) -> &mut Connection {
        &mut self.connections[0]
    }

    /// Lets every connection repeat the load until `cycles` are done or `time` is up, whichever is first.
    ///
    /// A cycle that has begun is finished. After an error the pool is of no more use.
    pub(crate) async fn drive<L: Load>(
        &mut self,
        load: &Arc<L>,
        cycles: u64,
        time: Duration,
    ) -> Result<Outcome> {
        let left = Arc::new(AtomicU64::new(cycles));
        let begun = Instant::now();
        let mut workers = JoinSet::new();
        for mut connection in self.connections.drain(..) {
            connection.take_seen();
            let (load, left) = (Arc::clone(load), Arc::clone(&left));
            workers.spawn(async move {
                let mut cycles = 0;
                while begun.elapsed() < time && take_one(&left) {
                    load.cycle(&mut connection).await?;
                    cycles += 1;
                }
                Ok((connection, cycles))
            });
        }
        tokio::time::timeout(time + TIMEOUT, self.gather(workers, begun))
            .await
            .map_err(|_| "the server stopped answering")?
    }

    /// Drives a load exactly `cycles` times.
    pub(crate) async fn drive_all<L: Load>(
        &mut self,
        load: &Arc<L>,
        cycles: u64,
    ) -> Result<Outcome> {
        let outcome = self.drive(load, cycles, TIMEOUT).await?;
        if outcome.cycles < cycles {
            return Err("preparing a queue took too long".into());
        }
        Ok(outcome)
    }

    async fn gather(
        &mut self,
        mut workers: JoinSet<Result<(Connection, u64)>>,
        begun: Instant,
    ) -> Result<Outcome> {
        let mut outcome = Outcome {
            cycles: 0,
            elapsed: Duration::ZERO,
            latencies: Vec::new(),
            received: 0,
        };
        while let Some(worker) = workers.join_next().await {
            let (mut connection, cycles) = worker??;
            let mut seen = connection.take_seen();
            outcome.cycles += cycles;
            outcome.latencies.append(&mut seen.latencies);
            outcome.received += seen.received;
            self.connections.push(connection);
        }
        outcome.elapsed = begun.elapsed();
        outcome.latencies.sort_unstable();
        Ok(outcome)
    }
}

fn take_one(left: &AtomicU64) -> bool {
    let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
        left.checked_sub(1)
    });
    taken.is_ok()
}
