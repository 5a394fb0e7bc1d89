//! The network fails in the middle of a publish, of a get, of an ack, and falls silent.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use isimud_contract::MessageId;
use isimud_lease::LeaseBroker;
use isimud_testing::proxy::{Proxy, Way};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, ConnectionProperties};

use crate::{
    MINUTE, SLACK, Setup, TIMEOUT, all_come, assert_unavailable, envelope, open, queue, receipts,
    recovered, send_one,
};

const ROUNDS: usize = 60;

/// How long a call may take in which the network failed.
const CALL_TIMEOUT: Duration = Duration::from_millis(5000);

pub(crate) async fn what_is_confirmed_is_there_wherever_a_publish_is_cut(setup: Setup) {
    let proxy = Proxy::before(setup.node.port()).await;
    let broker = open(&setup.uri(proxy.port, ""));
    let mut confirmed: HashSet<MessageId> = HashSet::new();
    let mut refused = 0;
    for round in 0..ROUNDS {
        confirmed.insert(recovered(&broker).await);
        // A batch of five is some two thousand bytes there, and fifty back.
        let (way, bytes) = match round % 2 {
            0 => (Way::There, fastrand::i64(0..2500)),
            _ => (Way::Back, fastrand::i64(0..80)),
        };
        proxy.cut_after(way, bytes);
        let batch: Vec<_> = (0..5).map(|_| envelope()).collect();
        let ids: Vec<MessageId> = batch.iter().map(|it| it.message.id).collect();
        let begun = Instant::now();
        match broker.send(&queue("q"), batch).await {
            Ok(()) => confirmed.extend(ids),
            Err(_) => refused += 1,
        }
        assert!(begun.elapsed() < CALL_TIMEOUT, "{:?}", begun.elapsed());
        proxy.call_off();
    }
    println!("{refused} of {ROUNDS} posts were cut off");
    assert!(refused > ROUNDS / 4, "too little was cut off: {refused}");
    all_come(&broker, confirmed, MINUTE).await;
}

pub(crate) async fn nothing_is_lost_wherever_a_get_is_cut(setup: Setup) {
    let steady = setup.open();
    let proxy = Proxy::before(setup.node.port()).await;
    let broker = open(&setup.uri(proxy.port, ""));
    let mut all = HashSet::new();
    for _ in 0..100 {
        all.insert(send_one(&steady).await.unwrap());
    }
    let mut refused = 0;
    for round in 0..ROUNDS {
        recovered(&broker).await;
        let (way, bytes) = match round % 3 {
            0 => (Way::There, fastrand::i64(0..400)),
            _ => (Way::Back, fastrand::i64(0..6000)),
        };
        proxy.cut_after(way, bytes);
        let begun = Instant::now();
        let got = broker.receive(&queue("q"), 20, MINUTE).await;
        assert!(begun.elapsed() < CALL_TIMEOUT, "{:?}", begun.elapsed());
        match got {
            Ok(got) => broker
                .release(&queue("q"), &receipts(&got))
                .await
                .unwrap_or(()),
            Err(_) => refused += 1,
        }
        proxy.call_off();
    }
    println!("{refused} of {ROUNDS} claims were cut off");
    assert!(refused > ROUNDS / 4, "too little was cut off: {refused}");
    // Those that the last broken connection held are back as soon as RabbitMQ has seen that it is broken.
    proxy.cut();
    all_come(&steady, all, MINUTE / 2).await;
}

pub(crate) async fn nothing_is_lost_wherever_an_ack_is_cut(setup: Setup) {
    let steady = setup.open();
    let proxy = Proxy::before(setup.node.port()).await;
    let broker = open(&setup.uri(proxy.port, ""));
    let (mut kept, mut settled) = (HashSet::new(), HashSet::new());
    for _ in 0..ROUNDS / 2 {
        for _ in 0..10 {
            kept.insert(recovered(&broker).await);
        }
        let begun = Instant::now();
        let got = loop {
            match broker.receive(&queue("q"), 10, MINUTE).await {
                Ok(got) => break got,
                Err(error) => assert!(begun.elapsed() < MINUTE, "{error}"),
            }
        };
        let some = &got[..got.len() / 2];
        proxy.cut_after(Way::There, fastrand::i64(0..150));
        let begun = Instant::now();
        // A hint has no answer that could be trusted.
        broker.ack(&queue("q"), &receipts(some)).await.ok();
        assert!(begun.elapsed() < CALL_TIMEOUT, "{:?}", begun.elapsed());
        settled.extend(some.iter().map(|it| it.message.id));
        proxy.call_off();
        proxy.cut();
    }
    kept.retain(|id| !settled.contains(id));
    assert!(kept.len() > 100, "{}", kept.len());
    all_come(&steady, kept, MINUTE).await;
}

pub(crate) async fn a_native_message_has_one_id_wherever_its_adoption_is_cut(setup: Setup) {
    let name = format!("native.{}q", setup.prefix);
    let uri = setup.node.uri();
    let natives = lapin::Connection::connect(&uri, ConnectionProperties::default());
    let natives = natives.await.unwrap();
    let channel = natives.create_channel().await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    let declared = channel.queue_declare(
        name.as_str().into(),
        QueueDeclareOptions::durable(),
        arguments,
    );
    declared.await.unwrap();
    let confirms = ConfirmSelectOptions::default();
    channel.confirm_select(confirms).await.unwrap();
    let proxy = Proxy::before(setup.node.port()).await;
    let adopting = format!(
        "&adopt=true&project=p&name=native.{}{{queue}}",
        setup.prefix
    );
    let broker = open(&setup.uri(proxy.port, &adopting));
    let q = queue("q");
    let (mut cut, mut ids) = (0, HashMap::<Bytes, HashSet<MessageId>>::new());
    for round in 0..ROUNDS / 5 {
        for number in 0..10 {
            let body = (10 * round + number).to_string();
            let options = BasicPublishOptions::default();
            let properties = BasicProperties::default();
            let published = channel.basic_publish(
                "".into(),
                name.as_str().into(),
                options,
                body.as_bytes(),
                properties,
            );
            published.await.unwrap().await.unwrap();
        }
        // Ten copies are some three thousand bytes there, and as many come back twice.
        let (way, bytes) = match round % 2 {
            0 => (Way::There, fastrand::i64(0..6000)),
            _ => (Way::Back, fastrand::i64(0..5000)),
        };
        proxy.cut_after(way, bytes);
        // What this call delivers comes again: its connection is cut, and nobody settles it.
        let got = broker.receive(&q, 10, MINUTE).await;
        cut += usize::from(got.is_err());
        proxy.call_off();
        proxy.cut();
        for delivery in got.unwrap_or_default() {
            let message = delivery.message;
            ids.entry(message.body).or_default().insert(message.id);
        }
        let (begun, mut last) = (Instant::now(), Instant::now());
        let all = 10 * (round + 1);
        while ids.len() < all || last.elapsed() < Duration::from_millis(150) {
            assert!(begun.elapsed() < MINUTE, "{} of {all} came", ids.len());
            match broker.receive(&q, 20, MINUTE).await {
                Ok(got) if !got.is_empty() => {
                    for delivery in &got {
                        let message = &delivery.message;
                        ids.entry(message.body.clone())
                            .or_default()
                            .insert(message.id);
                    }
                    broker.ack(&q, &receipts(&got)).await.ok();
                    last = Instant::now();
                }
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        let several: Vec<_> = ids.iter().filter(|(_, ids)| ids.len() > 1).collect();
        assert!(several.is_empty(), "in round {round}: {several:?}");
    }
    println!("{cut} of {} claims were cut off", ROUNDS / 5);
    assert!(cut > 0, "nothing was cut off");
}

pub(crate) async fn a_silent_network_is_unavailable_in_time(setup: Setup) {
    let steady = setup.open();
    let proxy = Proxy::before(setup.node.port()).await;
    let broker = open(&setup.uri(proxy.port, ""));
    let ids: HashSet<_> = [
        send_one(&broker).await.unwrap(),
        send_one(&broker).await.unwrap(),
    ]
    .into();
    let held = broker.receive(&queue("q"), 2, 10 * MINUTE).await.unwrap();
    assert_eq!(held.len(), 2);
    for way in [Way::There, Way::Back] {
        proxy.fall_silent(way, true);
    }
    assert_unavailable(&broker).await;
    // RabbitMQ misses the heartbeats, or sees the connection cut, and delivers again what was held.
    all_come(&steady, ids, MINUTE / 2).await;
    for way in [Way::There, Way::Back] {
        proxy.fall_silent(way, false);
    }
    let begun = Instant::now();
    recovered(&broker).await;
    assert!(
        begun.elapsed() < 2 * (TIMEOUT + SLACK),
        "{:?}",
        begun.elapsed()
    );
    // Late hints about what was lost do no harm.
    broker.ack(&queue("q"), &receipts(&held)).await.unwrap();
    assert_eq!(
        broker.receive(&queue("q"), 10, MINUTE).await.unwrap().len(),
        1
    );
}
