//! A server that dies with what it holds: a process of its own, which is killed.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use isimud_amqp::{AmqpBroker, Config};
use isimud_contract::{ClaimId, Clock, Lease, MessageId, MessageStore, Precondition, SystemClock};
use isimud_lease::{Journal, LeaseBroker, Leased};
use isimud_redis::RedisStore;
use isimud_testing::redis::Servers;
use isimud_testing::started;
use uuid::Uuid;

use crate::{MINUTE, Setup, all_come, message, open, queue, send_one};

/// In the environment of the process that holds: `receive URI` or `claim URI LEDGER SECONDS`.
pub(crate) const ORDER: &str = "ISIMUD_TEST_HOLD";

const COUNT: usize = 1000;

fn store(uri: &str, ledger: &str) -> Leased<AmqpBroker> {
    let clock = || Arc::new(SystemClock) as Arc<dyn Clock>;
    let broker = AmqpBroker::open(Config::parse(uri).unwrap(), clock()).unwrap();
    let config = isimud_redis::Config::parse(ledger).unwrap();
    let ledger = RedisStore::open(config).unwrap().ledger("pool");
    Leased::new(broker, ledger, clock(), Journal::On)
}

fn lease(ttl: Duration) -> Lease {
    Lease {
        id: ClaimId(Uuid::now_v7()),
        ttl,
        grace: Duration::ZERO,
        dead_letter: None,
    }
}

/// What the process does: holds a thousand messages, says so, and waits for its end.
pub(crate) fn hold(order: &str) -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let words: Vec<&str> = order.split(' ').collect();
        match words[..] {
            ["receive", uri] => {
                let broker = open(uri);
                let mut held = 0;
                while held < COUNT {
                    held += broker
                        .receive(&queue("q"), 100, 600 * MINUTE)
                        .await
                        .unwrap()
                        .len();
                }
                println!("held");
                std::future::pending::<()>().await;
            }
            ["claim", uri, ledger, seconds] => {
                let store = store(uri, ledger);
                let ttl = Duration::from_secs(seconds.parse().unwrap());
                let mut claims = Vec::new();
                for _ in 0..COUNT / 100 {
                    let lease = lease(ttl);
                    let claim = store
                        .claim(&queue("q"), &lease, 100)
                        .await
                        .unwrap()
                        .unwrap();
                    assert_eq!(claim.messages.len(), 100);
                    claims.push(lease.id.to_string());
                }
                println!("{}", claims.join(" "));
                std::future::pending::<()>().await;
            }
            _ => panic!("an order that makes no sense"),
        }
    });
    ExitCode::SUCCESS
}

/// Starts the process and waits until it holds everything; what it said then.
async fn start(order: String) -> (Child, String) {
    let this = std::env::current_exe().unwrap();
    let mut child = Command::new(this)
        .env(ORDER, order)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stdout.take().unwrap());
    let line = tokio::task::spawn_blocking(move || said.lines().next().unwrap().unwrap());
    (child, line.await.unwrap())
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

pub(crate) async fn a_killed_server_leaves_nothing_behind(setup: Setup) {
    let broker = setup.open();
    let mut sent: HashSet<MessageId> = HashSet::new();
    while sent.len() < COUNT {
        sent.insert(send_one(&broker).await.unwrap());
    }
    let (child, _) = start(format!("receive {}", setup.uri(setup.node.port(), ""))).await;
    assert!(
        broker
            .receive(&queue("q"), 10, MINUTE)
            .await
            .unwrap()
            .is_empty()
    );
    kill(child);
    let begun = Instant::now();
    all_come(&broker, sent, Duration::from_secs(20)).await;
    println!(
        "a thousand deliveries were back and settled after {:?}",
        begun.elapsed()
    );
}

pub(crate) async fn claims_of_a_killed_server_live_on_and_end_in_time(setup: Setup) {
    // Long enough for all that is done while the claims live, on a busy machine.
    const TTL: Duration = Duration::from_secs(30);
    // Two programs share the ledger, so it is in Redis.
    let Some(redis) = started("Redis", Servers::plain()) else {
        return;
    };
    let ledger = redis.uri("holder:");
    let uri = setup.uri(setup.node.port(), "");
    let (store, q) = (store(&uri, &ledger), queue("q"));
    for _ in 0..COUNT / 100 {
        let messages = (0..100).map(|_| message("{}")).collect();
        store.post(&q, messages).await.unwrap();
    }
    let asked = Instant::now();
    let (child, claims) = start(format!("claim {uri} {ledger} {}", TTL.as_secs())).await;
    let claimed = Instant::now();
    let claims: Vec<ClaimId> = claims
        .split(' ')
        .map(|id| ClaimId::parse(id).unwrap())
        .collect();
    kill(child);
    // The claims live on: they are read, renewed, released, and their messages deleted, through another server.
    assert_eq!(store.claim(&q, &lease(TTL), 20).await.unwrap(), None);
    let first = store.find_claim(&q, claims[0]).await.unwrap();
    assert_eq!(first.messages.len(), 100);
    let ids: Vec<MessageId> = first.messages.iter().map(|it| it.id).collect();
    let deleted = store
        .delete(&q, &ids, Precondition::ClaimedBy(vec![claims[0]]))
        .await
        .unwrap();
    assert_eq!(deleted, 100);
    let longer = Lease {
        id: claims[1],
        ..lease(10 * MINUTE)
    };
    store.renew_claim(&q, &longer).await.unwrap();
    store.release_claim(&q, claims[2]).await.unwrap();
    let mut released = 0;
    while released < 100 {
        assert!(claimed.elapsed() < TTL, "only {released} came");
        let claim = store.claim(&q, &lease(10 * MINUTE), 1000).await.unwrap();
        released += claim.map_or(0, |claim| claim.messages.len());
    }
    assert_eq!(released, 100);
    // The others end when they should have ended, and not when RabbitMQ loses its patience.
    let mut came: HashSet<MessageId> = HashSet::new();
    while came.len() < 700 {
        assert!(
            claimed.elapsed() < TTL + MINUTE / 2,
            "only {} came",
            came.len()
        );
        if let Some(claim) = store.claim(&q, &lease(10 * MINUTE), 1000).await.unwrap() {
            assert!(asked.elapsed() >= TTL, "a claim ended early");
            came.extend(claim.messages.iter().map(|it| it.id));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!(
        "claims of {TTL:?} were free {:?} after they were made",
        claimed.elapsed()
    );
    assert_eq!(came.len(), 700);
    assert_eq!(
        store
            .find_claim(&q, claims[1])
            .await
            .unwrap()
            .messages
            .len(),
        100
    );
    assert_eq!(store.stats(&q).await.unwrap().claimed, 900);
}
