//! Many callers at once on a deep queue, who are served by draws.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use isimud_amqp::AmqpBroker;
use isimud_contract::{Delivery, MessageId, QueueKey};
use isimud_lease::LeaseBroker;
use lapin::options::QueueDeleteOptions;

use crate::setup::{self, MINUTE, Setup, ids, numbered, queue, receipts, until, until_there};

/// Callers at once.
const CALLERS: usize = 24;

/// How long everything may take.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(60);

fn numbers(got: &[Delivery]) -> Vec<usize> {
    let number = |it: &Delivery| {
        std::str::from_utf8(&it.message.body)
            .unwrap()
            .parse()
            .unwrap()
    };
    got.iter().map(number).collect()
}

pub(crate) async fn concurrent_callers_get_each_message_once_and_in_order(setup: Setup) {
    let broker = setup.open();
    let q = queue("q");
    broker.send(&q, numbered(3000)).await.unwrap();
    let crowd = (0..CALLERS).map(|member| {
        let (broker, q) = (Arc::clone(&broker), q.clone());
        tokio::spawn(async move {
            let (mut seen, mut highest) = (Vec::new(), None);
            loop {
                let got = broker.receive(&q, 1 + member % 5, MINUTE).await.unwrap();
                if got.is_empty() {
                    return seen;
                }
                for number in numbers(&got) {
                    assert!(Some(number) > highest, "{number} after {highest:?}");
                    highest = Some(number);
                    seen.push(number);
                }
                // A third is held on, between what is settled.
                if member % 3 > 0 {
                    broker.ack(&q, &receipts(&got)).await.unwrap();
                }
            }
        })
    });
    let (mut all, mut kept) = (Vec::new(), 0);
    for (member, seen) in crowd.collect::<Vec<_>>().into_iter().enumerate() {
        let seen = seen.await.unwrap();
        kept += if member % 3 > 0 { 0 } else { seen.len() };
        all.extend(seen);
    }
    assert_eq!(all.len(), 3000);
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 3000);
    // What was settled is gone, and the rest is back: RabbitMQ holds nothing that was not handed over.
    broker.close().await.unwrap();
    let other = setup.open();
    assert_eq!(until_there(&other, &q, kept).await.len(), kept);
    assert!(other.receive(&q, 1, MINUTE).await.unwrap().is_empty());
}

pub(crate) async fn a_caller_that_is_cancelled_takes_no_messages_from_others(setup: Setup) {
    let broker = setup.open();
    let q = queue("q");
    broker.send(&q, numbered(1000)).await.unwrap();
    let crowd = (0..CALLERS).map(|member| {
        let (broker, q) = (Arc::clone(&broker), q.clone());
        tokio::spawn(async move {
            for micros in (0..8000).step_by(100 + member) {
                let receiving = broker.receive(&q, 3, MINUTE);
                let patience = Duration::from_micros(micros as u64);
                if let Ok(got) = tokio::time::timeout(patience, receiving).await {
                    broker.release(&q, &receipts(&got.unwrap())).await.unwrap();
                }
            }
        })
    });
    for member in crowd.collect::<Vec<_>>() {
        member.await.unwrap();
    }
    let there = until_there(&broker, &q, 1000).await;
    assert_eq!(
        there
            .iter()
            .map(|it| it.message.id)
            .collect::<HashSet<_>>()
            .len(),
        1000
    );
}

/// Counts are overtaken here all the time: two servers and somebody of the existing deployment take what a producer
/// sends.
pub(crate) async fn concurrent_callers_of_two_servers_and_a_native_leave_nothing(setup: Setup) {
    const ALL: usize = 4000;
    let servers = [setup.open(), setup.open()];
    let q = queue("q");
    servers[0].send(&q, numbered(1000)).await.unwrap();
    let (taken, over) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let crowd = (0..CALLERS).map(|member| {
        let (broker, q) = (Arc::clone(&servers[member % 2]), q.clone());
        let (taken, over) = (Arc::clone(&taken), Arc::clone(&over));
        tokio::spawn(async move { take_all(&broker, &q, &taken, &over).await })
    });
    let crowd: Vec<_> = crowd.collect();
    let producer = {
        let (broker, q) = (Arc::clone(&servers[0]), q.clone());
        tokio::spawn(async move {
            for _ in 0..(ALL - 1000) / 100 {
                broker.send(&q, numbered(100)).await.unwrap();
            }
        })
    };
    let (native, name) = (setup.native().await, setup.name("q"));
    let begun = Instant::now();
    while taken.load(Ordering::SeqCst) < ALL {
        let so_many = taken.load(Ordering::SeqCst);
        assert!(
            begun.elapsed() < TRIAL_TIMEOUT,
            "only {so_many} of {ALL} came"
        );
        if native.get(&name).await.is_some() {
            taken.fetch_add(1, Ordering::SeqCst);
        }
    }
    over.store(true, Ordering::SeqCst);
    producer.await.unwrap();
    let mut all: HashSet<MessageId> = HashSet::new();
    for member in crowd {
        for id in member.await.unwrap() {
            assert!(all.insert(id), "{id:?} came twice");
        }
    }
    for server in servers {
        server.close().await.unwrap();
    }
    assert_eq!(native.ready(&name).await, Some(0), "settled and back again");
}

async fn take_all(
    broker: &AmqpBroker,
    q: &QueueKey,
    taken: &AtomicUsize,
    over: &AtomicBool,
) -> Vec<MessageId> {
    let mut all = Vec::new();
    while !over.load(Ordering::SeqCst) {
        let got = broker.receive(q, 2, MINUTE).await.unwrap();
        broker.ack(q, &receipts(&got)).await.unwrap();
        taken.fetch_add(got.len(), Ordering::SeqCst);
        all.extend(ids(&got));
    }
    all
}

/// RabbitMQ takes the consumer of a draw away with the queue.
pub(crate) async fn a_queue_that_is_deleted_under_concurrent_callers_delays_nobody(setup: Setup) {
    let (broker, native) = (setup.open(), setup.native().await);
    for round in 0..10 {
        let name = format!("q{round}");
        let q = queue(&name);
        broker.send(&q, numbered(3000)).await.unwrap();
        let (over, taken) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let crowd = (0..CALLERS).map(|_| {
            let (broker, q) = (Arc::clone(&broker), q.clone());
            let (over, taken) = (Arc::clone(&over), Arc::clone(&taken));
            tokio::spawn(async move { slowest(&broker, &q, &taken, &over).await })
        });
        let crowd: Vec<_> = crowd.collect();
        let some = || async { taken.load(Ordering::SeqCst) > 300 };
        until("some were taken", some).await;
        let (name, options) = (setup.name(&name).into(), QueueDeleteOptions::default());
        native.channel.queue_delete(name, options).await.unwrap();
        let gone =
            || async { matches!(broker.receive(&q, 1, MINUTE).await, Ok(got) if got.is_empty()) };
        until("the queue is gone", gone).await;
        over.store(true, Ordering::SeqCst);
        for member in crowd {
            let slowest = member.await.unwrap();
            assert!(slowest < setup::TIMEOUT, "{slowest:?}: in vain");
        }
    }
}

/// Takes messages until it is over, and says how long that took at the longest. What it comes to while the queue goes is
/// open, but it has to come to something.
async fn slowest(
    broker: &AmqpBroker,
    q: &QueueKey,
    taken: &AtomicUsize,
    over: &AtomicBool,
) -> Duration {
    let mut slowest = Duration::ZERO;
    while !over.load(Ordering::SeqCst) {
        let begun = Instant::now();
        // Large draws take long enough to be met in the middle.
        let got = broker.receive(q, 40, MINUTE).await;
        slowest = slowest.max(begun.elapsed());
        if let Ok(got) = got {
            broker.ack(q, &receipts(&got)).await.ok();
            taken.fetch_add(got.len(), Ordering::SeqCst);
        }
    }
    slowest
}
