//! RabbitMQ dies, hangs, has an alarm, or loses its patience.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use isimud_contract::{ErrorKind, MessageId};
use isimud_lease::LeaseBroker;

use crate::{
    MINUTE, Place, SLACK, TIMEOUT, all_come, assert_unavailable, open, queue, receipts, recovered,
    send_one,
};

pub(crate) async fn a_killed_node_is_unavailable_until_it_is_back(place: Place) {
    let broker = place.open();
    let before = send_one(&broker).await.unwrap();
    // RabbitMQ 3.10 writes down every half a second which quorum queues a node has, and loses a younger one in a crash.
    tokio::time::sleep(Duration::from_secs(2)).await;
    place.node.kill();
    assert_unavailable(&broker).await;
    place.node.start_again().unwrap();
    let after = recovered(&broker).await;
    all_come(&broker, [before, after].into(), MINUTE).await;
}

pub(crate) async fn a_broker_opens_while_the_node_is_down(place: Place) {
    place.node.stop().unwrap();
    let broker = place.open();
    assert_unavailable(&broker).await;
    place.node.start_again().unwrap();
    let sent = recovered(&broker).await;
    all_come(&broker, [sent].into(), MINUTE).await;
}

pub(crate) async fn a_node_that_hangs_is_unavailable_in_time(place: Place) {
    let broker = place.open();
    let sent = send_one(&broker).await.unwrap();
    place.node.signal("-STOP");
    assert_unavailable(&broker).await;
    place.node.signal("-CONT");
    let after = recovered(&broker).await;
    all_come(&broker, [sent, after].into(), MINUTE).await;
}

/// Posts and takes away from many sides while the node is killed and started again.
pub(crate) async fn nothing_confirmed_is_lost_when_a_node_dies_under_load(place: Place) {
    let brokers = [place.open(), place.open()];
    recovered(&brokers[0]).await;
    let over = Arc::new(AtomicBool::new(false));
    let posting = (0..8).map(|number: usize| {
        let (broker, over) = (Arc::clone(&brokers[number % 2]), Arc::clone(&over));
        tokio::spawn(async move {
            let mut confirmed = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                match send_one(&broker).await {
                    Ok(id) => confirmed.push(id),
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
                assert!(
                    begun.elapsed() < TIMEOUT + 2 * SLACK,
                    "{:?}",
                    begun.elapsed()
                );
            }
            confirmed
        })
    });
    let taking = (0..4).map(|number: usize| {
        let (broker, over) = (Arc::clone(&brokers[number % 2]), Arc::clone(&over));
        tokio::spawn(async move {
            let mut taken = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let Ok(got) = broker.receive(&queue("q"), 10, MINUTE).await else {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                taken.extend(got.iter().map(|it| it.message.id));
                broker.ack(&queue("q"), &receipts(&got)).await.ok();
            }
            taken
        })
    });
    let (posting, taking): (Vec<_>, Vec<_>) = (posting.collect(), taking.collect());
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        place.node.kill();
        place.node.start_again().unwrap();
    }
    recovered(&brokers[0]).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    over.store(true, Ordering::Relaxed);
    let mut confirmed: HashSet<MessageId> = HashSet::new();
    for post in posting {
        confirmed.extend(post.await.unwrap());
    }
    let (mut taken, mut seen) = (Vec::new(), confirmed.clone());
    for take in taking {
        taken.extend(take.await.unwrap());
    }
    for id in &taken {
        seen.remove(id);
    }
    let rest = all_come(&brokers[0], seen, MINUTE).await;
    taken.extend(rest);
    let once: HashSet<_> = taken.iter().collect();
    println!(
        "{} messages confirmed, none lost; {} deliveries were second ones",
        confirmed.len(),
        taken.len() - once.len()
    );
    assert!(
        confirmed.len() > 100,
        "too little happened: {}",
        confirmed.len()
    );
}

pub(crate) async fn a_node_without_memory_takes_no_messages_and_gives_them(place: Place) {
    let broker = place.open();
    for _ in 0..10 {
        send_one(&broker).await.unwrap();
    }
    place
        .node
        .control(&["set_vm_memory_high_watermark", "0.000001"])
        .unwrap();
    let begun = Instant::now();
    while send_one(&broker).await.is_ok() {
        assert!(begun.elapsed() < MINUTE / 2, "there is no alarm");
    }
    for _ in 0..5 {
        let begun = Instant::now();
        let refusal = send_one(&broker).await.unwrap_err();
        assert_eq!(refusal.kind(), ErrorKind::Unavailable, "{refusal}");
        assert!(begun.elapsed() < TIMEOUT + SLACK, "{:?}", begun.elapsed());
    }
    let got = broker.receive(&queue("q"), 10, MINUTE).await.unwrap();
    assert_eq!(got.len(), 10);
    broker.ack(&queue("q"), &receipts(&got)).await.unwrap();
    broker.ping().await.unwrap();
    place
        .node
        .control(&["set_vm_memory_high_watermark", "0.4"])
        .unwrap();
    recovered(&broker).await;
}

pub(crate) async fn whoever_is_not_let_in_is_told(place: Place) {
    for (login, vhost, sentence) in [
        ("guest:wrong@", "", "refuses the user or the password"),
        ("", "/missing", "into the virtual host"),
    ] {
        let port = place.node.port();
        let broker = open(&format!(
            "amqp://{login}127.0.0.1:{port}{vhost}?timeout_ms=1800"
        ));
        let begun = Instant::now();
        let refusal = send_one(&broker).await.unwrap_err();
        assert!(begun.elapsed() < TIMEOUT + SLACK, "{:?}", begun.elapsed());
        assert_eq!(refusal.kind(), ErrorKind::Unavailable);
        assert!(refusal.sentence().contains(sentence), "{refusal}");
        assert!(!format!("{refusal:?}").contains("wrong"), "{refusal:?}");
    }
}

pub(crate) async fn holds_end_before_the_node_loses_patience(place: Place) {
    let uri = place.uri(place.node.port(), "&hold_cap_s=2");
    let broker = open(&uri);
    let sent = send_one(&broker).await.unwrap();
    let got = broker.receive(&queue("q"), 1, 10 * MINUTE).await.unwrap();
    assert_eq!(got[0].message.id, sent);
    // Another one on the same channel, held anew again and again, would be lost with it.
    let (begun, mut rounds) = (Instant::now(), 0);
    while rounds < 4 || begun.elapsed() < Duration::from_secs(10) {
        assert!(begun.elapsed() < MINUTE, "it was held {rounds} times anew");
        if let Some(delivery) = broker
            .receive(&queue("q"), 1, 10 * MINUTE)
            .await
            .unwrap()
            .first()
        {
            assert_eq!(delivery.message.id, sent);
            rounds += 1;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let most = begun.elapsed().as_secs() / 2 + 1;
    assert!(rounds <= most, "it was held {rounds} times anew");
}

pub(crate) async fn a_node_that_loses_patience_costs_a_channel(place: Place) {
    let broker = place.open();
    let sent = send_one(&broker).await.unwrap();
    let held = broker.receive(&queue("q"), 1, 10 * MINUTE).await.unwrap();
    assert_eq!(held.len(), 1);
    let came = all_come(&place.open(), [sent].into(), MINUTE / 2).await;
    assert_eq!(came, [sent]);
    broker.ack(&queue("q"), &receipts(&held)).await.unwrap();
    let again = recovered(&broker).await;
    all_come(&broker, [again].into(), MINUTE).await;
}
