//! A RabbitMQ of the bench's own, and two who use it without a service between: the bare client, and RabbitMQ's own API
//! over HTTP.
//!
//! Each of the two is a process of its own that plays when it is told to, over HTTP as well: `POST /fill` lays in so many messages, and none else,
//! `POST /play` does what a scenario does for a while and answers with the time of each turn. The bare client's processor
//! time is charged with RabbitMQ's; a client of the API over HTTP is part of the generator, and is not charged. Their queue
//! is a quorum queue, as Isimud's are. They have no leases: a get with its acknowledgement stands beside a claim with its
//! delete, and beside a pop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use isimud_testing::rabbitmq::{Node, Set};
use lapin::options::QueuePurgeOptions;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::Result;
use crate::drive::{Outcome, Pool};
use crate::rivals::{self, Rival};
use crate::scenario::Scenario;
use crate::zaqar::{event, request};

const QUEUE: &str = "rival";

/// Connections to the API over HTTP; more make it no faster.
const MANAGERS: usize = 8;

/// A running RabbitMQ; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Rabbit(Node);

impl Rabbit {
    pub(crate) fn start() -> Result<Self> {
        let lines = ["ip = 127.0.0.1", "port = {management}"];
        Ok(Self(Node::start_with(Set {
            lines: lines.map(|line| format!("management.tcp.{line}")).into(),
            plugins: "rabbitmq_management",
            ..Set::default()
        })?))
    }

    pub(crate) fn process(&self) -> u32 {
        self.0.process_id()
    }

    pub(crate) fn uri(&self) -> String {
        self.0.uri()
    }

    pub(crate) fn management(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.0.management_port()))
    }
}

/// What a turn is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Turn {
    Post,
    Take,
}

impl Turn {
    /// What stands beside a scenario, if anything does.
    pub(crate) fn beside(scenario: Scenario) -> Option<Self> {
        match scenario {
            Scenario::Post => Some(Self::Post),
            Scenario::ClaimDelete | Scenario::Pop => Some(Self::Take),
            _ => None,
        }
    }
}

/// How long it took, and each turn, in microseconds.
#[derive(Debug, Serialize, Deserialize)]
struct Played {
    elapsed: u64,
    turns: Vec<u64>,
}

/// One who plays when he is told to.
struct Stand {
    filler: Vec<Arc<Rival>>,
    callers: Vec<Arc<Rival>>,
}

/// Serves until it is killed.
pub(crate) fn serve(
    address: SocketAddr,
    rabbit: &str,
    management: Option<SocketAddr>,
    callers: usize,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let queue = match management {
            Some(_) => format!("{QUEUE}-management"),
            None => format!("{QUEUE}-bare"),
        };
        let shared = |rivals: Vec<Rival>| rivals.into_iter().map(Arc::new).collect::<Vec<_>>();
        let filler = shared(rivals::bare(rabbit, "quorum", &queue, callers).await);
        let callers = match management {
            Some(address) => shared(rivals::management(address, &queue, MANAGERS).await),
            None => filler.clone(),
        };
        let router = Router::new()
            .route("/", get(async || StatusCode::MULTIPLE_CHOICES))
            .route("/fill/{count}", post(fill))
            .route("/play/{turn}/{millis}", post(play))
            .with_state(Arc::new(Stand { filler, callers }));
        axum::serve(TcpListener::bind(address).await?, router).await?;
        Ok(())
    })
}

async fn fill(State(stand): State<Arc<Stand>>, Path(count): Path<u64>) -> StatusCode {
    if let Some(Rival::Bare(channel, queue)) = stand.filler.first().map(Arc::as_ref) {
        let options = QueuePurgeOptions::default();
        let emptied = channel.queue_purge(queue.as_str().into(), options);
        emptied.await.expect("RabbitMQ empties the queue");
    }
    let left = Arc::new(AtomicU64::new(count));
    let mut work = JoinSet::new();
    for rival in stand.filler.iter().map(Arc::clone) {
        let left = Arc::clone(&left);
        work.spawn(async move {
            let one = |left: u64| left.checked_sub(1);
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one)
                .is_ok()
            {
                rival.post(&event()).await;
            }
        });
    }
    work.join_all().await;
    StatusCode::NO_CONTENT
}

async fn play(State(stand): State<Arc<Stand>>, Path((turn, millis)): Path<(Turn, u64)>) -> String {
    let (begun, time) = (Instant::now(), Duration::from_millis(millis));
    let mut work = JoinSet::new();
    for rival in stand.callers.iter().map(Arc::clone) {
        work.spawn(async move {
            let mut turns = Vec::new();
            let body = event();
            while begun.elapsed() < time {
                let at = Instant::now();
                match turn {
                    Turn::Post => rival.post(&body).await,
                    Turn::Take => {
                        if !rival.take().await {
                            break;
                        }
                    }
                }
                turns.push(at.elapsed().as_micros() as u64);
            }
            turns
        });
    }
    let turns = work.join_all().await.concat();
    let elapsed = begun.elapsed().as_micros() as u64;
    let played = Played { elapsed, turns };
    // A text that is no document tells the generator as well as a status would.
    serde_json::to_string(&played).unwrap_or_default()
}

/// Has one lay in messages.
pub(crate) async fn lay_in(pool: &mut Pool, count: u64) -> Result<()> {
    let fill = request("POST", &format!("/fill/{count}"), None);
    pool.first().exchange(&fill).await?.done()
}

/// Has one play for so long.
pub(crate) async fn play_on(pool: &mut Pool, turn: Turn, time: Duration) -> Result<Outcome> {
    let turn = match turn {
        Turn::Post => "post",
        Turn::Take => "take",
    };
    let target = format!("/play/{turn}/{}", time.as_millis());
    let play = request("POST", &target, None);
    let answer = pool.first().exchange(&play).await?;
    let Played { elapsed, turns } = serde_json::from_str(answer.body)?;
    let mut latencies: Vec<_> = turns.into_iter().map(Duration::from_micros).collect();
    latencies.sort_unstable();
    Ok(Outcome {
        cycles: latencies.len() as u64,
        elapsed: Duration::from_micros(elapsed),
        latencies,
        received: 0,
    })
}
