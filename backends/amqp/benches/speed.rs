//! What a store on RabbitMQ costs beside RabbitMQ itself: posts, and claims with their deletes, by a store with the journal
//! and without, by the bare client (confirmed publish; get and ack), and by RabbitMQ's own API over HTTP.
//!
//! `cargo bench -p isimud-amqp --bench speed` starts a RabbitMQ of its own; the ledger is in memory. The rounds go from one
//! to the next, so that a machine that slows down slows all of them; the table shows medians. Processor time is that of
//! this process and of RabbitMQ's together. `SECONDS=1` makes the windows shorter, `QUEUES=classic` tries other queues.
#![expect(
    clippy::unwrap_used,
    reason = "a failed step ends the measurement, and says so at that line"
)]

mod rivals;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use isimud_amqp::{AmqpBroker, Config};
use isimud_contract::{
    ClaimId, ClientId, Clock, Lease, Message, MessageId, MessageStore, Precondition, ProjectId,
    QueueKey, QueueName, SystemClock,
};
use isimud_lease::{Journal, Leased};
use isimud_sqlite::SqliteStore;
use isimud_testing::rabbitmq::{Node, Set};
use rivals::Rival;
use uuid::Uuid;

/// Callers at once.
const CALLERS: usize = 64;

/// Connections at once to the API over HTTP; more make it no faster.
const HTTP: usize = 8;

const ROUNDS: usize = 3;

/// Whom the others are compared with.
const BARE: &str = "bare client";

const HOUR: Duration = Duration::from_secs(3600);

/// Ticks of `/proc/<pid>/stat` in a second.
const TICKS: f64 = 100.0;

fn main() {
    let node = Node::start_with(Set {
        lines: vec![
            "management.tcp.ip = 127.0.0.1".into(),
            "management.tcp.port = {management}".into(),
        ],
        plugins: "rabbitmq_management",
        ..Set::default()
    });
    let node = node.unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure(&node));
}

/// One who is measured, by name.
struct Contender {
    name: &'static str,
    callers: Vec<Arc<Caller>>,
}

/// One of those who call at once.
enum Caller {
    Store(Arc<Leased<AmqpBroker>>, QueueKey),
    Rival(Rival),
}

/// What a caller does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Post,
    ClaimAndDelete,
    Pop,
}

fn body() -> String {
    format!(r#"{{"event": "{}"}}"#, "x".repeat(240))
}

impl Caller {
    /// Whether there was something to do.
    async fn act(&self, act: Act) -> bool {
        match (self, act) {
            (Self::Store(store, q), Act::Post) => {
                let client = ClientId::Uuid(Uuid::nil());
                let message = Message::new(MessageId(Uuid::now_v7()), client, HOUR, body());
                store.post(q, vec![message]).await.unwrap();
                true
            }
            (Self::Store(store, q), Act::ClaimAndDelete) => {
                let lease = Lease {
                    id: ClaimId(Uuid::now_v7()),
                    ttl: HOUR / 12,
                    grace: Duration::ZERO,
                    dead_letter: None,
                };
                let Some(claim) = store.claim(q, &lease, 1).await.unwrap() else {
                    return false;
                };
                let precondition = Precondition::ClaimedBy(vec![lease.id]);
                let ids = [claim.messages[0].id];
                assert_eq!(store.delete(q, &ids, precondition).await.unwrap(), 1);
                true
            }
            (Self::Store(store, q), Act::Pop) => !store.pop(q, 1).await.unwrap().is_empty(),
            (Self::Rival(rival), Act::Post) => {
                rival.post(&body()).await;
                true
            }
            (Self::Rival(rival), Act::ClaimAndDelete | Act::Pop) => rival.take().await,
        }
    }
}

async fn contenders(node: &Node, kind: &str) -> Vec<Contender> {
    let mut all = Vec::new();
    for (name, journal) in [("journal on", Journal::On), ("journal off", Journal::Off)] {
        let prefix = name.replace(' ', "-");
        let uri = format!(
            "{}?queue_type={kind}&prefix={prefix}.&timeout_ms=60000&channels={CALLERS}",
            node.uri()
        );
        let clock = || Arc::new(SystemClock) as Arc<dyn Clock>;
        let broker = AmqpBroker::open(Config::parse(&uri).unwrap(), clock()).unwrap();
        let ledgers = SqliteStore::open(isimud_sqlite::Config::memory(), clock()).unwrap();
        let store = Arc::new(Leased::new(
            broker,
            ledgers.ledger("pool"),
            clock(),
            journal,
        ));
        let q = QueueKey::new(
            ProjectId::parse("p").unwrap(),
            QueueName::parse("q").unwrap(),
        );
        let caller = || Arc::new(Caller::Store(Arc::clone(&store), q.clone()));
        let callers = (0..CALLERS).map(|_| caller()).collect();
        all.push(Contender { name, callers });
    }
    let rival = |rival| Arc::new(Caller::Rival(rival));
    for (name, rivals) in [
        (BARE, rivals::bare(&node.uri(), kind, "bare", CALLERS).await),
        ("management", {
            drop(rivals::bare(&node.uri(), kind, "http", 0).await);
            let address = SocketAddr::from(([127, 0, 0, 1], node.management_port()));
            rivals::management(address, "http", HTTP).await
        }),
    ] {
        let callers = rivals.into_iter().map(rival).collect();
        all.push(Contender { name, callers });
    }
    all
}

/// Acts a second, acts a second of processor time, and the share of that time which RabbitMQ used.
type Rate = (f64, f64, f64);

async fn measure(node: &Node) {
    let kind = std::env::var("QUEUES").unwrap_or_else(|_| "quorum".into());
    let window = std::env::var("SECONDS").map_or(2.0, |text| text.parse().unwrap());
    let window = Duration::from_secs_f64(window);
    let all = contenders(node, &kind).await;
    let mut rates: BTreeMap<(Act, &str), Vec<Rate>> = BTreeMap::new();
    for round in 0..=ROUNDS {
        for contender in &all {
            for act in [Act::Post, Act::ClaimAndDelete, Act::Post, Act::Pop] {
                let rate = play(node, contender, act, window).await;
                // The first round makes queues and connections.
                if round > 0 {
                    rates.entry((act, contender.name)).or_default().push(rate);
                }
            }
        }
    }
    println!(
        "{kind} queues, {CALLERS} callers ({HTTP} for management), bodies of {} bytes",
        body().len()
    );
    println!(
        "{:<16}{:<14}{:>9}{:>16}{:>10}{:>10}",
        "", "", "a second", "a CPU-second", "of bare", "RabbitMQ"
    );
    for ((act, name), of_it) in &rates {
        let (rate, share, brokers) = median(of_it);
        let (_, floor, _) = median(&rates[&(*act, BARE)]);
        let (percent, brokers) = (100.0 * share / floor, 100.0 * brokers);
        let act = format!("{act:?}");
        println!("{act:<16}{name:<14}{rate:>9.0}{share:>16.0}{percent:>9.0}%{brokers:>9.0}%");
    }
}

/// Has all callers act again and again, until the time is up or nothing is left.
async fn play(node: &Node, contender: &Contender, act: Act, window: Duration) -> Rate {
    let (over, count) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let (begun, before) = (Instant::now(), processor_time(node));
    let callers = contender.callers.iter().map(|caller| {
        let (caller, over, count) = (Arc::clone(caller), Arc::clone(&over), Arc::clone(&count));
        tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) && caller.act(act).await {
                count.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    let stop = Arc::clone(&over);
    let timer = tokio::spawn(async move {
        tokio::time::sleep(window).await;
        stop.store(true, Ordering::Relaxed);
    });
    for caller in callers {
        caller.await.unwrap();
    }
    timer.abort();
    let count = count.load(Ordering::Relaxed) as f64;
    let after = processor_time(node);
    let (ours, brokers) = (after.0 - before.0, after.1 - before.1);
    let used = (ours + brokers).max(0.01);
    let elapsed = begun.elapsed().as_secs_f64();
    (count / elapsed, count / used, brokers / used)
}

/// Seconds that this process and RabbitMQ's have used so far.
fn processor_time(node: &Node) -> (f64, f64) {
    let of = |process: u32| -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        // The second field is in parentheses and may contain anything; times are the 14th and the 15th.
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let times = fields.split(' ').skip(11).take(2);
        times
            .map(|ticks| ticks.parse::<f64>().unwrap() / TICKS)
            .sum()
    };
    (of(std::process::id()), of(node.process_id()))
}

fn median(rates: &[Rate]) -> Rate {
    let middle = |pick: fn(&Rate) -> f64| {
        let mut all: Vec<f64> = rates.iter().map(pick).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    (
        middle(|rate| rate.0),
        middle(|rate| rate.1),
        middle(|rate| rate.2),
    )
}
