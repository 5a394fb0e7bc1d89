//! How a hold ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use isimud_amqp::{AmqpBroker, Config};
use isimud_contract::{ManualClock, Receipt};
use isimud_lease::{Envelope, LeaseBroker};

use crate::setup::{
    MINUTE, Setup, bodies, envelope, ids, numbered, numbers, queue, receipts, until, until_there,
};

pub(crate) async fn visibility_ends_by_itself_and_in_place(setup: Setup) {
    let broker = setup.open();
    let q = queue("q");
    broker.send(&q, numbered(20)).await.unwrap();
    let visibility = Duration::from_millis(700);
    let begun = Instant::now();
    let got = broker.receive(&q, 10, visibility).await.unwrap();
    assert_eq!(got.len(), 10);
    let native = setup.native().await;
    let name = setup.name("q");
    until("all are back", || async {
        native.ready(&name).await == Some(20)
    })
    .await;
    assert!(begun.elapsed() >= visibility, "{:?}", begun.elapsed());
    let again = broker.receive(&q, 20, MINUTE).await.unwrap();
    assert_eq!(bodies(&again), numbers(0..20));
}

pub(crate) async fn visibility_is_extended_and_cut_short(setup: Setup) {
    let broker = setup.open();
    let q = queue("q");
    broker.send(&q, numbered(2)).await.unwrap();
    let got = broker.receive(&q, 2, Duration::from_secs(3)).await.unwrap();
    let (first, second) = (receipts(&got[..1]), receipts(&got[1..]));
    broker.extend(&q, &first, 2 * MINUTE).await.unwrap();
    broker.extend(&q, &second, MINUTE).await.unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(3500) {
        assert!(broker.receive(&q, 2, MINUTE).await.unwrap().is_empty());
    }
    broker.extend(&q, &second, Duration::ZERO).await.unwrap();
    let again = until_there(&broker, &q, 1).await;
    assert_eq!(ids(&again), ids(&got[1..]));
}

pub(crate) async fn what_was_given_back_is_there_at_once_and_in_place(setup: Setup) {
    let broker = setup.open();
    let q = queue("q");
    broker.send(&q, numbered(40)).await.unwrap();
    // More often than RabbitMQ 4 delivers a message unless it is told how often it may.
    for round in 0..25 {
        let got = broker.receive(&q, 20, MINUTE).await.unwrap();
        assert_eq!(bodies(&got), numbers(0..20), "round {round}");
        broker.release(&q, &receipts(&got)).await.unwrap();
    }
}

pub(crate) async fn visibility_ends_before_the_consumer_timeout_of_rabbitmq(setup: Setup) {
    let clock = Arc::new(ManualClock::default());
    let uri = format!(
        "{}?queue_type={}&prefix={}&timeout_ms=5000&hold_cap_s=1200&clock=service",
        setup.node(),
        setup.kind,
        setup.prefix
    );
    let config = Config::parse(&uri).unwrap();
    let broker = AmqpBroker::open(config, Arc::clone(&clock) as _).unwrap();
    let q = queue("q");
    broker.send(&q, numbered(1)).await.unwrap();
    let visibility = Duration::from_secs(43_200);
    let got = broker.receive(&q, 1, visibility).await.unwrap();
    broker
        .extend(&q, &receipts(&got), visibility)
        .await
        .unwrap();
    clock.advance(Duration::from_secs(1199));
    assert!(broker.receive(&q, 1, visibility).await.unwrap().is_empty());
    clock.advance(Duration::from_secs(2));
    let again = broker.receive(&q, 1, visibility).await.unwrap();
    assert_eq!(ids(&again), ids(&got));
}

pub(crate) async fn late_hints_change_nothing(setup: Setup) {
    let broker = setup.open();
    let q = queue("q");
    broker.send(&q, numbered(30)).await.unwrap();
    let kept = broker.receive(&q, 10, MINUTE).await.unwrap();
    let acked = broker.receive(&q, 10, MINUTE).await.unwrap();
    let released = broker.receive(&q, 10, MINUTE).await.unwrap();
    let nonsense = vec![Receipt("".into()), Receipt("x".repeat(32).into())];
    for _ in 0..3 {
        broker.ack(&q, &receipts(&acked)).await.unwrap();
        broker.release(&q, &receipts(&acked)).await.unwrap();
        broker.release(&q, &receipts(&released)).await.unwrap();
        broker.ack(&q, &receipts(&released)).await.unwrap();
        broker
            .extend(&q, &receipts(&released), MINUTE)
            .await
            .unwrap();
        broker.ack(&q, &nonsense).await.unwrap();
    }
    let again = broker.receive(&q, 30, MINUTE).await.unwrap();
    assert_eq!(ids(&again), ids(&released));
    // Had a hint closed a channel, these were back.
    assert!(broker.receive(&q, 30, MINUTE).await.unwrap().is_empty());
    broker.release(&q, &receipts(&kept)).await.unwrap();
    let back = broker.receive(&q, 30, MINUTE).await.unwrap();
    assert_eq!(ids(&back), ids(&kept));
}

pub(crate) async fn rabbitmq_drops_expired_messages(setup: Setup) {
    let broker = setup.open();
    let q = queue("q");
    let mut short = envelope("1");
    short.message.remaining_ttl = Duration::from_millis(300);
    let sent: Vec<Envelope> = vec![short, envelope("2")];
    broker.send(&q, sent).await.unwrap();
    let native = setup.native().await;
    let name = setup.name("q");
    until("one has ended", || async {
        native.ready(&name).await == Some(1)
    })
    .await;
    let got = broker.receive(&q, 10, MINUTE).await.unwrap();
    assert_eq!(bodies(&got), ["2"]);
}

pub(crate) async fn a_closed_broker_gives_everything_back(setup: Setup) {
    let broker = setup.open();
    let q = queue("q");
    broker.send(&q, numbered(30)).await.unwrap();
    let mut got = broker.receive(&q, 15, MINUTE).await.unwrap();
    got.extend(broker.receive(&q, 15, MINUTE).await.unwrap());
    broker.close().await.unwrap();
    assert!(broker.receive(&q, 1, MINUTE).await.is_err());
    assert!(broker.send(&q, numbered(1)).await.is_err());
    assert!(broker.ping().await.is_err());
    let again = until_there(&setup.open(), &q, 30).await;
    assert_eq!(bodies(&again), numbers(0..30));
}

/// On a quorum queue whatever comes back first is first, and what was received at the same moment came over several
/// channels.
pub(crate) async fn what_several_received_at_once_goes_back_in_order_when_the_broker_closes(
    setup: Setup,
) {
    for round in 0..3 {
        let (broker, q) = (setup.open(), queue(&format!("q{round}")));
        broker.send(&q, numbered(60)).await.unwrap();
        let crowd = (0..10).map(|_| {
            let (broker, q) = (Arc::clone(&broker), q.clone());
            tokio::spawn(async move { broker.receive(&q, 3, MINUTE).await.unwrap().len() })
        });
        let mut received = 0;
        for one in crowd.collect::<Vec<_>>() {
            received += one.await.unwrap();
        }
        assert!(received >= 20, "{received}");
        broker.close().await.unwrap();
        let again = until_there(&setup.open(), &q, 60).await;
        assert_eq!(bodies(&again), numbers(0..60), "in round {round}");
    }
}

/// Somebody else may be giving it back just then.
pub(crate) async fn what_has_ended_is_there_for_the_next_call(setup: Setup) {
    let clock = Arc::new(ManualClock::default());
    let broker = setup.open_by(Arc::clone(&clock));
    let q = queue("q");
    broker.send(&q, numbered(1)).await.unwrap();
    for round in 0..500 {
        let got = broker.receive(&q, 1, MINUTE).await.unwrap();
        assert_eq!(got.len(), 1, "in round {round}");
        clock.advance(MINUTE);
    }
}
