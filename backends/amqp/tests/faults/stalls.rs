//! A queue that does not answer, as a quorum queue without a leader, is left to itself: others notice nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use isimud_amqp::AmqpBroker;
use isimud_contract::{ErrorKind, Result};
use isimud_lease::LeaseBroker;

use crate::{MINUTE, SLACK, Setup, TIMEOUT, envelope, queue, receipts};

/// How many claim from it, and post to it.
const CLAIMERS: usize = 16;
const POSTERS: usize = 6;

/// How long it does not answer. RabbitMQ ends a connection on which a question was not answered for half a minute: for
/// that, `AMQP_ENDURANCE`.
fn span() -> Duration {
    let whole = std::env::var_os("AMQP_ENDURANCE").is_some();
    Duration::from_secs(if whole { 50 } else { 6 })
}

/// Stops the process in which RabbitMQ has a quorum queue, or lets it go on.
fn tell(setup: &Setup, what: &str, queue: &str) {
    let name = format!("%2F_{}p.{queue}", setup.prefix);
    let order = format!("sys:{what}(whereis(list_to_atom(\"{name}\"))).");
    setup.node.control(&["eval", &order]).unwrap();
}

async fn serves(broker: &AmqpBroker, name: &str) -> Result<()> {
    let q = queue(name);
    let envelope = envelope();
    let id = envelope.message.id;
    broker.send(&q, vec![envelope]).await?;
    let got = broker.receive(&q, 1, MINUTE).await?;
    assert_eq!(got.first().map(|it| it.message.id), Some(id), "of {name}");
    broker.ack(&q, &receipts(&got)).await
}

pub(crate) async fn a_queue_that_does_not_answer_disturbs_no_other(setup: Setup) {
    let broker = setup.open();
    for name in ["stalled", "healthy", "held"] {
        serves(&broker, name).await.unwrap();
    }
    tell(&setup, "suspend", "stalled");
    let (over, calls) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let crowd = (0..CLAIMERS + POSTERS).map(|number| {
        let broker = Arc::clone(&broker);
        let (over, calls) = (Arc::clone(&over), Arc::clone(&calls));
        tokio::spawn(async move {
            let stalled = queue("stalled");
            while !over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let refusal = if number < CLAIMERS {
                    broker.receive(&stalled, 1, MINUTE).await.map(drop)
                } else {
                    broker.send(&stalled, vec![envelope()]).await
                };
                let refusal = refusal.unwrap_err();
                assert_eq!(refusal.kind(), ErrorKind::Unavailable, "{refusal}");
                assert!(begun.elapsed() < TIMEOUT + SLACK, "{:?}", begun.elapsed());
                calls.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    });
    let crowd: Vec<_> = crowd.collect();
    // Until it is known that the queue does not answer, it may hold others up for a moment.
    tokio::time::sleep(2 * TIMEOUT).await;
    broker.send(&queue("held"), vec![envelope()]).await.unwrap();
    let held = broker
        .receive(&queue("held"), 1, 10 * MINUTE)
        .await
        .unwrap();
    assert_eq!(held.len(), 1);
    let (begun, mut served, mut slowest) = (Instant::now(), 0, Duration::ZERO);
    while begun.elapsed() < span() {
        let one = Instant::now();
        serves(&broker, "healthy").await.unwrap();
        slowest = slowest.max(one.elapsed());
        served += 1;
        let again = broker.receive(&queue("held"), 1, MINUTE).await.unwrap();
        assert!(
            again.is_empty(),
            "what is held came back: {:?}",
            begun.elapsed()
        );
    }
    eprintln!("served {served} times, at most in {slowest:?}");
    over.store(true, Ordering::Relaxed);
    for one in crowd {
        one.await.unwrap();
    }
    let calls = calls.load(Ordering::Relaxed);
    assert!(
        calls > 4 * (CLAIMERS + POSTERS),
        "only {calls} calls were refused"
    );
    tell(&setup, "resume", "stalled");
    let begun = Instant::now();
    let back = queue("stalled");
    while broker.send(&back, vec![envelope()]).await.is_err()
        || broker.receive(&back, 1, MINUTE).await.is_err()
    {
        assert!(begun.elapsed() < MINUTE, "it never serves again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eprintln!("served again after {:?}", begun.elapsed());
}

/// How long a companion that does not answer may hold up an empty queue.
const PASSED_BY: Duration = Duration::from_secs(20);

pub(crate) async fn a_companion_that_never_answers_is_passed_by_and_not_taken_for_empty(
    setup: Setup,
) {
    let (broker, q) = (setup.open(), queue("worn"));
    broker.send(&q, vec![envelope()]).await.unwrap();
    let begun = Instant::now();
    let companion = format!("{}p.worn~adopted", setup.prefix);
    // A message that comes back again and again is taken over, once its companion is old enough.
    let one = format!("{companion}\t1");
    let taken_over = || {
        let listed = setup.node.control(&["list_queues", "name", "messages"]);
        listed.unwrap().contains(&one)
    };
    while !taken_over() {
        assert!(begun.elapsed() < MINUTE, "it is not taken over");
        if broker.receive(&q, 1, MINUTE).await.is_ok() {
            // From 4.3 on a release does not count, and a lost connection does.
            let closed = setup.node.control(&["close_all_connections", "away"]);
            closed.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let worn = loop {
        let got = broker.receive(&q, 1, MINUTE).await.unwrap_or_default();
        if let Some(first) = got.first() {
            broker.release(&q, &receipts(&got)).await.unwrap();
            break Some(first.message.id);
        }
        assert!(begun.elapsed() < 2 * MINUTE, "it does not come back");
        tokio::time::sleep(Duration::from_millis(300)).await;
    };

    tell(&setup, "suspend", "worn~adopted");
    let begun = Instant::now();
    let (mut refused, mut told) = (0, false);
    loop {
        match broker.receive(&q, 1, MINUTE).await {
            Ok(got) => {
                assert!(got.is_empty(), "{got:?}");
                break;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
        }
        refused += 1;
        assert!(begun.elapsed() < PASSED_BY + 3 * (TIMEOUT + SLACK));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(refused > 0 && begun.elapsed() >= PASSED_BY, "{refused}");
    // The queue itself goes on, and a decision is told what it cannot know.
    serves(&broker, "worn").await.unwrap();
    for _ in 0..5 {
        let silent = broker.depth(&q).await.unwrap().silent;
        told |= silent.is_some_and(|sentence| sentence.contains(&companion));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(told, "nobody says which queue it is");

    tell(&setup, "resume", "worn~adopted");
    let begun = Instant::now();
    loop {
        let got = broker.receive(&q, 1, MINUTE).await;
        if let Some(first) = got.iter().flatten().next() {
            assert_eq!(Some(first.message.id), worn);
            break;
        }
        assert!(begun.elapsed() < MINUTE, "{got:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let depth = broker.depth(&q).await.unwrap();
    assert_eq!((depth.ready, depth.silent), (0, None));
}
