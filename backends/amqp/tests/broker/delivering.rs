//! Sending, receiving, settling.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use isimud_contract::{ErrorKind, MessageId};
use isimud_lease::LeaseBroker;
use lapin::options::QueueDeleteOptions;

use crate::setup::{
    MINUTE, Setup, bodies, envelope, ids, numbered, numbers, queue, receipts, until, until_there,
};

pub(crate) async fn what_was_sent_is_received_in_order(setup: Setup) {
    let broker = setup.open();
    let q = queue("q");
    let sent = numbered(150);
    broker.send(&q, sent.clone()).await.unwrap();
    for part in 0..3 {
        let got = broker.receive(&q, 50, MINUTE).await.unwrap();
        assert_eq!(bodies(&got), numbers(part * 50..part * 50 + 50));
        for (delivery, envelope) in got.iter().zip(&sent[part * 50..]) {
            assert_eq!(delivery.message, envelope.message);
            assert_eq!(delivery.posted, envelope.posted);
        }
    }
    assert!(broker.receive(&q, 10, MINUTE).await.unwrap().is_empty());
    broker.ping().await.unwrap();
}

pub(crate) async fn a_queue_that_is_not_there_is_empty(setup: Setup) {
    let broker = setup.open();
    let q = queue("q");
    assert!(broker.receive(&q, 10, MINUTE).await.unwrap().is_empty());
    assert_eq!(broker.depth(&q).await.unwrap().ready, 0);
    broker.purge(&q).await.unwrap();
    broker.drop_queue(&q).await.unwrap();
    assert_eq!(setup.native().await.ready(&setup.name("q")).await, None);
}

pub(crate) async fn what_is_held_is_delivered_to_nobody_else(setup: Setup) {
    let (broker, other) = (setup.open(), setup.open());
    let q = queue("q");
    broker.send(&q, numbered(3)).await.unwrap();
    assert_eq!(broker.receive(&q, 2, MINUTE).await.unwrap().len(), 2);
    let rest = other.receive(&q, 10, MINUTE).await.unwrap();
    assert_eq!(bodies(&rest), numbers(2..3));
    assert!(broker.receive(&q, 10, MINUTE).await.unwrap().is_empty());
}

pub(crate) async fn what_was_settled_is_gone(setup: Setup) {
    let broker = setup.open();
    let q = queue("q");
    broker.send(&q, numbered(20)).await.unwrap();
    let got = broker.receive(&q, 20, MINUTE).await.unwrap();
    broker.ack(&q, &receipts(&got[..15])).await.unwrap();
    broker.close().await.unwrap();
    let other = setup.open();
    let again = until_there(&other, &q, 5).await;
    let expected: HashSet<MessageId> = ids(&got[15..]).into_iter().collect();
    assert_eq!(ids(&again).into_iter().collect::<HashSet<_>>(), expected);
    assert_eq!(setup.native().await.ready(&setup.name("q")).await, Some(0));
}

pub(crate) async fn counts_are_told(setup: Setup) {
    let broker = setup.open();
    let q = queue("q");
    broker.send(&q, numbered(5)).await.unwrap();
    broker.receive(&q, 2, MINUTE).await.unwrap();
    let is_so = || async { broker.depth(&q).await.unwrap().ready == 3 };
    until("3 ready, 2 held", is_so).await;
}

pub(crate) async fn a_purge_forgets_what_is_there(setup: Setup) {
    let broker = setup.open();
    let q = queue("q");
    broker.send(&q, numbered(10)).await.unwrap();
    let held = broker.receive(&q, 4, MINUTE).await.unwrap();
    broker.purge(&q).await.unwrap();
    broker.send(&q, vec![envelope("\"new\"")]).await.unwrap();
    broker.release(&q, &receipts(&held)).await.unwrap();
    let got = broker.receive(&q, 10, MINUTE).await.unwrap();
    assert_eq!(bodies(&got), ["\"new\""]);
}

pub(crate) async fn a_queue_that_was_removed_can_be_used_again(setup: Setup) {
    let broker = setup.open();
    let native = setup.native().await;
    let q = queue("q");
    broker.send(&q, numbered(3)).await.unwrap();
    let held = broker.receive(&q, 1, MINUTE).await.unwrap();
    broker.drop_queue(&q).await.unwrap();
    assert_eq!(native.ready(&setup.name("q")).await, None);
    broker.ack(&q, &receipts(&held)).await.unwrap();
    assert!(broker.receive(&q, 1, MINUTE).await.unwrap().is_empty());
    broker.send(&q, numbered(1)).await.unwrap();
    assert_eq!(broker.receive(&q, 9, MINUTE).await.unwrap().len(), 1);
}

pub(crate) async fn a_queue_that_somebody_deleted_is_made_again(setup: Setup) {
    let broker = setup.open();
    let native = setup.native().await;
    let (q, other) = (queue("q"), queue("other"));
    broker.send(&q, numbered(1)).await.unwrap();
    broker.send(&other, numbered(1)).await.unwrap();
    let held = until_there(&broker, &other, 1).await;
    let deleted = async || {
        let name = setup.name("q").into();
        let deleted = native
            .channel
            .queue_delete(name, QueueDeleteOptions::default());
        deleted.await.unwrap();
    };
    deleted().await;
    broker.send(&q, numbered(2)).await.unwrap();
    assert_eq!(broker.receive(&q, 9, MINUTE).await.unwrap().len(), 2);
    deleted().await;
    // The channel that asks for it is lost, and what it held is delivered again.
    assert!(broker.receive(&q, 9, MINUTE).await.unwrap().is_empty());
    assert!(broker.receive(&q, 9, MINUTE).await.unwrap().is_empty());
    let again = until_there(&broker, &other, 1).await;
    assert_eq!(ids(&again), ids(&held));
    broker.ack(&other, &receipts(&held)).await.unwrap();
    broker.ack(&other, &receipts(&again)).await.unwrap();
    assert_eq!(broker.depth(&other).await.unwrap().ready, 0);
}

pub(crate) async fn many_queues_have_nothing_in_common(setup: Setup) {
    let broker = setup.open();
    let queues: Vec<_> = (0..40).map(|number| queue(&format!("q{number}"))).collect();
    for (number, q) in queues.iter().enumerate() {
        broker
            .send(q, vec![envelope(number.to_string())])
            .await
            .unwrap();
    }
    for (number, q) in queues.iter().enumerate() {
        let got = broker.receive(q, 10, MINUTE).await.unwrap();
        assert_eq!(bodies(&got), [number.to_string()]);
    }
}

pub(crate) async fn as_much_is_held_as_is_allowed(setup: Setup) {
    let broker = setup.open_with("&max_held=5");
    let q = queue("q");
    broker.send(&q, numbered(10)).await.unwrap();
    let held = broker.receive(&q, 5, MINUTE).await.unwrap();
    let refusal = broker.receive(&q, 1, MINUTE).await.unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::Unavailable);
    assert!(refusal.sentence().contains("max_held"), "{refusal}");
    broker.ack(&q, &receipts(&held)).await.unwrap();
    assert_eq!(broker.receive(&q, 5, MINUTE).await.unwrap().len(), 5);
}

pub(crate) async fn whoever_has_gone_takes_nothing_with_him(setup: Setup) {
    let broker = setup.open();
    let q = queue("q");
    broker.send(&q, numbered(20)).await.unwrap();
    for micros in (0..4000).step_by(100) {
        let receiving = broker.receive(&q, 20, MINUTE);
        let patience = Duration::from_micros(micros);
        match tokio::time::timeout(patience, receiving).await {
            Err(_) => {}
            Ok(Ok(got)) => broker.release(&q, &receipts(&got)).await.unwrap(),
            // What comes back again and again is taken over, and a queue that was made for it a moment ago may be slow.
            Ok(Err(error)) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
        }
    }
    assert_eq!(until_there(&broker, &q, 20).await.len(), 20);
}

pub(crate) async fn many_at_once_take_each_message_once(setup: Setup) {
    let brokers = [setup.open(), setup.open()];
    let q = queue("q");
    brokers[0].send(&q, numbered(600)).await.unwrap();
    let takers = (0..16).map(|number: usize| {
        let (broker, q) = (Arc::clone(&brokers[number % 2]), q.clone());
        tokio::spawn(async move {
            let mut taken = Vec::new();
            loop {
                let got = broker.receive(&q, 7, MINUTE).await.unwrap();
                if got.is_empty() {
                    return taken;
                }
                broker.ack(&q, &receipts(&got)).await.unwrap();
                taken.extend(ids(&got));
            }
        })
    });
    let mut all = Vec::new();
    for taker in takers.collect::<Vec<_>>() {
        all.extend(taker.await.unwrap());
    }
    assert_eq!(all.len(), 600);
    assert_eq!(all.into_iter().collect::<HashSet<_>>().len(), 600);
}
