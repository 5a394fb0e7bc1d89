//! RabbitMQ dies, hangs, has an alarm, or loses its patience.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use isimud_contract::ErrorKind;
use isimud_lease::LeaseBroker;

use crate::{
    MINUTE, SLACK, Setup, TIMEOUT, all_come, assert_unavailable, envelope, open, queue, receipts,
    recovered, send_one,
};

pub(crate) async fn a_killed_node_is_unavailable_until_it_is_back(setup: Setup) {
    let broker = setup.open();
    let before = send_one(&broker).await.unwrap();
    // RabbitMQ 3.10 writes down every half a second which quorum queues a node has, and loses a younger one in a crash.
    tokio::time::sleep(Duration::from_secs(2)).await;
    setup.node.kill();
    assert_unavailable(&broker).await;
    setup.node.start_again().unwrap();
    let after = recovered(&broker).await;
    all_come(&broker, [before, after].into(), MINUTE).await;
}

pub(crate) async fn a_broker_opens_while_the_node_is_down(setup: Setup) {
    setup.node.stop().unwrap();
    let broker = setup.open();
    assert_unavailable(&broker).await;
    setup.node.start_again().unwrap();
    let sent = recovered(&broker).await;
    all_come(&broker, [sent].into(), MINUTE).await;
}

pub(crate) async fn a_node_that_hangs_is_unavailable_in_time(setup: Setup) {
    let broker = setup.open();
    let sent = send_one(&broker).await.unwrap();
    setup.node.signal("-STOP");
    assert_unavailable(&broker).await;
    setup.node.signal("-CONT");
    let after = recovered(&broker).await;
    all_come(&broker, [sent, after].into(), MINUTE).await;
}

/// What it hangs in the middle of, above all, is sending many messages for a crowd. It may go on with that when nobody
/// waits any more.
pub(crate) async fn concurrent_callers_get_everything_from_a_node_that_hangs(setup: Setup) {
    const ALL: usize = 6000;
    let broker = setup.open();
    for _ in 0..ALL / 500 {
        let envelopes = (0..500).map(|_| envelope()).collect();
        broker.send(&queue("q"), envelopes).await.unwrap();
    }
    let taken = Arc::new(Mutex::new(HashSet::new()));
    let crowd = (0..24).map(|_| {
        let (broker, taken) = (Arc::clone(&broker), Arc::clone(&taken));
        tokio::spawn(async move {
            let begun = Instant::now();
            while taken.lock().unwrap().len() < ALL {
                let so_many = taken.lock().unwrap().len();
                assert!(begun.elapsed() < MINUTE, "only {so_many} came");
                // It holds what it has got for longer than it waits for the rest.
                let Ok(got) = broker.receive(&queue("q"), 1, 10 * MINUTE).await else {
                    continue;
                };
                broker.ack(&queue("q"), &receipts(&got)).await.ok();
                taken
                    .lock()
                    .unwrap()
                    .extend(got.iter().map(|it| it.message.id));
            }
        })
    });
    let crowd: Vec<_> = crowd.collect();
    for _ in 0..4 {
        let so_many = taken.lock().unwrap().len();
        while taken.lock().unwrap().len() < (so_many + 200).min(ALL) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        setup.node.signal("-STOP");
        tokio::time::sleep(TIMEOUT + Duration::from_millis(300)).await;
        setup.node.signal("-CONT");
    }
    for member in crowd {
        member.await.unwrap();
    }
}

pub(crate) async fn a_node_without_memory_takes_no_messages_and_gives_them(setup: Setup) {
    let broker = setup.open();
    for _ in 0..10 {
        send_one(&broker).await.unwrap();
    }
    setup
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
    setup
        .node
        .control(&["set_vm_memory_high_watermark", "0.4"])
        .unwrap();
    recovered(&broker).await;
}

pub(crate) async fn whoever_is_not_let_in_is_told(setup: Setup) {
    for (login, vhost, sentence) in [
        ("guest:wrong@", "", "refuses the user or the password"),
        ("", "/missing", "into the virtual host"),
    ] {
        let port = setup.node.port();
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

pub(crate) async fn visibility_ends_before_the_consumer_timeout_of_the_node(setup: Setup) {
    let uri = setup.uri(setup.node.port(), "&hold_cap_s=2");
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

pub(crate) async fn a_node_that_loses_patience_costs_a_channel(setup: Setup) {
    let broker = setup.open();
    let sent = send_one(&broker).await.unwrap();
    let held = broker.receive(&queue("q"), 1, 10 * MINUTE).await.unwrap();
    assert_eq!(held.len(), 1);
    let came = all_come(&setup.open(), [sent].into(), MINUTE / 2).await;
    assert_eq!(came, [sent]);
    broker.ack(&queue("q"), &receipts(&held)).await.unwrap();
    let again = recovered(&broker).await;
    all_come(&broker, [again].into(), MINUTE).await;
}
