//! The estate's own clients, beside the API on the same queue.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isimud_amqp::AmqpBroker;
use isimud_contract::{ClientId, ErrorKind, MessageId};
use isimud_lease::LeaseBroker;
use lapin::BasicProperties;
use lapin::options::{BasicGetOptions, BasicRejectOptions};
use lapin::types::{AMQPValue, FieldTable};
use uuid::Uuid;

use crate::setup::{
    MINUTE, Setup, bodies, envelope, ids, queue, receipts, table, text, until, until_there,
};

/// A broker, and a native client on its queue `q`.
async fn both(setup: &Setup) -> (Arc<AmqpBroker>, crate::setup::Native, String) {
    let broker = setup.open();
    let q = queue("q");
    broker.send(&q, vec![envelope("0")]).await.unwrap();
    broker.purge(&q).await.unwrap();
    (broker, setup.native().await, setup.name("q"))
}

fn header(properties: &BasicProperties, name: &str) -> Option<AMQPValue> {
    properties.headers().as_ref()?.inner().get(name).cloned()
}

pub(crate) async fn a_post_is_a_plain_message_for_natives(setup: Setup) {
    let (broker, native, name) = both(&setup).await;
    let sent = envelope(r#"{"order": 7}"#);
    broker.send(&queue("q"), vec![sent.clone()]).await.unwrap();
    let got = native.get(&name).await.unwrap();
    assert_eq!(got.data, br#"{"order": 7}"#);
    let properties = &got.properties;
    assert_eq!(
        properties.message_id(),
        &Some(sent.message.id.to_string().into())
    );
    assert_eq!(properties.content_type(), &Some("application/json".into()));
    assert_eq!(properties.expiration(), &Some("600000".into()));
    assert_eq!(properties.delivery_mode(), &Some(2));
    assert_eq!(properties.timestamp(), &Some(sent.posted.0 as u64 / 1000));
    assert_eq!(
        header(properties, "isimud-client"),
        Some(text(&sent.message.client.to_string()))
    );
}

pub(crate) async fn any_body_can_be_received(setup: Setup) {
    let (broker, native, name) = both(&setup).await;
    let typed =
        |content_type: &str| BasicProperties::default().with_content_type(content_type.into());
    native
        .publish(&name, typed("application/json"), b"{\"a\":1}")
        .await;
    native.publish(&name, typed("text/plain"), b"hello").await;
    native.publish(&name, typed("image/png"), b"\x89PNG").await;
    native.publish(&name, BasicProperties::default(), b"").await;
    let large = "x".repeat(1_000_000);
    native
        .publish(&name, typed("text/plain"), large.as_bytes())
        .await;
    let got = until_there(&broker, &queue("q"), 5).await;
    let expected = [
        r#"{"a":1}"#,
        r#""hello""#,
        r#"{"content_type":"image/png","base64":"iVBORw=="}"#,
        r#""""#,
        &format!("\"{large}\""),
    ];
    assert_eq!(bodies(&got), expected);
    assert!(
        got.iter()
            .all(|it| it.message.client == ClientId::Uuid(Uuid::nil()))
    );
}

pub(crate) async fn an_id_of_the_producer_stays_where_it_is_relied_upon(setup: Setup) {
    let (_, native, name) = both(&setup).await;
    let broker = setup.open_with("&native_ids=keep");
    let q = queue("q");
    let id = Uuid::now_v7();
    let properties = BasicProperties::default()
        .with_message_id(id.to_string().to_uppercase().into())
        .with_expiration("90000".into());
    native.publish(&name, properties, b"1").await;
    let got = until_there(&broker, &q, 1).await;
    assert_eq!(ids(&got), [MessageId(id)]);
    assert_eq!(got[0].message.ttl, Duration::from_secs(90));
    broker.release(&q, &receipts(&got)).await.unwrap();
    // It was left as it was.
    let back = native.get(&name).await.unwrap();
    assert_eq!(
        back.properties
            .headers()
            .clone()
            .unwrap_or_default()
            .inner()
            .get("isimud-id"),
        None
    );
    assert!(back.redelivered);
}

pub(crate) async fn a_message_lives_no_longer_than_its_queue_keeps_it(setup: Setup) {
    let native = setup.native().await;
    let name = format!("{}kept", setup.prefix);
    let arguments = table(&[
        ("x-queue-type", text(setup.kind)),
        ("x-message-ttl", AMQPValue::LongInt(90_000)),
    ]);
    native.declare(&name, arguments).await;
    let longer = BasicProperties::default().with_expiration("3600000".into());
    let shorter = BasicProperties::default().with_expiration("60000".into());
    for properties in [BasicProperties::default(), longer, shorter] {
        native.publish(&name, properties, b"1").await;
    }
    let broker = setup.adopting_with_all_rights();
    let got = until_there(&broker, &queue("kept"), 3).await;
    let lives: Vec<u64> = got.iter().map(|it| it.message.ttl.as_secs()).collect();
    match setup.kind {
        "classic" => assert_eq!(lives, [90, 90, 60]),
        // RabbitMQ does not tell this argument of a quorum queue.
        _ => assert_eq!(lives, [1_209_600, 3600, 60]),
    }
}

pub(crate) async fn a_message_without_an_id_is_given_one_that_stays(setup: Setup) {
    let (broker, native, name) = both(&setup).await;
    let q = queue("q");
    for number in 0..30 {
        native
            .publish(
                &name,
                BasicProperties::default(),
                number.to_string().as_bytes(),
            )
            .await;
    }
    let got = broker.receive(&q, 20, MINUTE).await.unwrap();
    let numbers: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    assert_eq!(bodies(&got), numbers, "in order");
    let first: HashSet<MessageId> = ids(&got).into_iter().collect();
    assert_eq!(first.len(), 20);
    // The server dies with what it held; another one delivers it, by the same names.
    drop(broker);
    let other = setup.open();
    let again = until_there(&other, &q, 30).await;
    let second: HashSet<MessageId> = ids(&again).into_iter().collect();
    assert!(first.is_subset(&second));
    other.release(&q, &receipts(&again)).await.unwrap();
    let third = until_there(&other, &q, 30).await;
    assert_eq!(ids(&third).into_iter().collect::<HashSet<_>>(), second);
    other.ack(&q, &receipts(&third)).await.unwrap();
    until("nothing is left", || async {
        other.depth(&q).await.unwrap().ready == 0
    })
    .await;
}

pub(crate) async fn an_adopted_message_goes_back_to_its_existing_queue(setup: Setup) {
    let (broker, native, name) = both(&setup).await;
    let q = queue("q");
    let properties = BasicProperties::default()
        .with_message_id("order 7".into())
        .with_priority(3)
        .with_type("order".into())
        .with_content_type("text/plain".into())
        .with_headers(table(&[("x-mine", AMQPValue::LongInt(5))]));
    native.publish(&name, properties, b"hello").await;
    let got = broker.receive(&q, 1, MINUTE).await.unwrap();
    assert!(native.get(&name).await.is_none());
    broker.release(&q, &receipts(&got)).await.unwrap();
    let back = native.get(&name).await.unwrap();
    assert_eq!(back.data, b"hello");
    assert_eq!(back.properties.message_id(), &Some("order 7".into()));
    assert_eq!(back.properties.priority(), &Some(3));
    assert_eq!(back.properties.kind(), &Some("order".into()));
    assert_eq!(back.properties.content_type(), &Some("text/plain".into()));
    assert_eq!(
        header(&back.properties, "x-mine"),
        Some(AMQPValue::LongInt(5))
    );
    let id = header(&back.properties, "isimud-id");
    assert_eq!(id, Some(text(&got[0].message.id.to_string())));
    // The same when the hold ends by itself.
    native
        .publish(&name, BasicProperties::default(), b"2")
        .await;
    let visibility = Duration::from_millis(100);
    assert_eq!(broker.receive(&q, 1, visibility).await.unwrap().len(), 1);
    until("it is back", || async {
        native.ready(&name).await == Some(1)
    })
    .await;
    assert_eq!(broker.depth(&q).await.unwrap().ready, 1);
}

pub(crate) async fn an_adopted_message_is_never_there_twice(setup: Setup) {
    let (broker, native, name) = both(&setup).await;
    let q = queue("q");
    let other = setup.open();
    for number in 0..200 {
        native
            .publish(
                &name,
                BasicProperties::default(),
                number.to_string().as_bytes(),
            )
            .await;
    }
    let begun = Instant::now();
    let taking = |broker: Arc<AmqpBroker>| {
        let q = q.clone();
        tokio::spawn(async move {
            let mut taken = Vec::new();
            loop {
                let got = match broker.receive(&q, 6, MINUTE).await {
                    Ok(got) => got,
                    // A quorum queue refuses what it is too busy for, and the message stays what it was.
                    Err(error) if error.kind() == ErrorKind::Unavailable => {
                        assert!(begun.elapsed() < MINUTE, "{error}");
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                };
                if got.is_empty() {
                    return taken;
                }
                taken.extend(bodies(&got));
                broker.ack(&q, &receipts(&got)).await.unwrap();
            }
        })
    };
    let takers = [taking(Arc::clone(&broker)), taking(other)];
    let mut all = Vec::new();
    while let Some(got) = native.get(&name).await {
        all.push(String::from_utf8(got.delivery.data).unwrap());
    }
    for taker in takers {
        all.extend(taker.await.unwrap());
    }
    let left = 200_usize.saturating_sub(all.len());
    all.extend(bodies(&until_there(&broker, &q, left).await));
    assert_eq!(broker.depth(&q).await.unwrap().ready, 0);
    assert_eq!(all.len(), 200);
    assert_eq!(all.into_iter().collect::<HashSet<_>>().len(), 200);
}

pub(crate) async fn an_adopted_message_is_once_where_its_copy_was_refused(setup: Setup) {
    let (broker, native, name) = both(&setup).await;
    let arguments = table(&[
        ("x-queue-type", text(setup.kind)),
        ("x-max-length", AMQPValue::LongInt(3)),
        ("x-overflow", text("reject-publish")),
    ]);
    native.declare(&format!("{name}~adopted"), arguments).await;
    for number in 0..30 {
        let body = number.to_string();
        let properties = BasicProperties::default();
        native.publish(&name, properties, body.as_bytes()).await;
    }
    let q = queue("q");
    let (begun, mut all, mut refused) = (Instant::now(), Vec::new(), 0);
    while all.len() < 30 {
        assert!(begun.elapsed() < MINUTE, "only {} came", all.len());
        let Ok(got) = broker.receive(&q, 10, MINUTE).await else {
            refused += 1;
            continue;
        };
        refused += usize::from(got.len() < 10);
        broker.ack(&q, &receipts(&got)).await.unwrap();
        all.extend(bodies(&got));
    }
    // A quorum queue may take more than it is to have, and tells producers a little later.
    let must_refuse = setup.kind == "classic";
    assert!(refused > 0 || !must_refuse, "nothing was refused");
    assert_eq!(broker.depth(&q).await.unwrap().ready, 0);
    assert_eq!(all.len(), 30);
    assert_eq!(all.into_iter().collect::<HashSet<_>>().len(), 30);
}

pub(crate) async fn what_rabbitmq_dead_lettered_can_be_received(setup: Setup) {
    let native = setup.native().await;
    let (from, to) = (
        format!("{}from", setup.prefix),
        format!("{}to", setup.prefix),
    );
    let arguments = table(&[
        ("x-queue-type", text(setup.kind)),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text(&to)),
    ]);
    native.declare(&from, arguments).await;
    native
        .declare(&to, table(&[("x-queue-type", text(setup.kind))]))
        .await;
    let broker = setup.adopting("&native_ttl_s=500");
    let mut short = envelope("1");
    short.message.ttl = Duration::from_millis(50);
    short.message.remaining_ttl = short.message.ttl;
    broker
        .send(&queue("from"), vec![short.clone(), envelope("2")])
        .await
        .unwrap();
    until("one has ended", || async {
        native.ready(&to).await == Some(1)
    })
    .await;
    let rejected = native
        .channel
        .basic_get(from.as_str().into(), BasicGetOptions::default());
    let options = BasicRejectOptions { requeue: false };
    rejected
        .await
        .unwrap()
        .unwrap()
        .reject(options)
        .await
        .unwrap();
    let got = until_there(&broker, &queue("to"), 2).await;
    assert_eq!(bodies(&got), ["1", "2"]);
    assert_eq!(got[0].message.id, short.message.id);
    assert_eq!(got[0].message.remaining_ttl, Duration::from_secs(500));
}

pub(crate) async fn a_user_and_copies_do_not_lead_astray(setup: Setup) {
    let (broker, native, name) = both(&setup).await;
    let elsewhere = format!("{}elsewhere", setup.prefix);
    native.declare(&elsewhere, FieldTable::default()).await;
    let copies = AMQPValue::FieldArray(vec![text(&elsewhere)].into());
    let properties = BasicProperties::default()
        .with_user_id("guest".into())
        .with_headers(table(&[("CC", copies)]));
    native.publish(&name, properties, b"1").await;
    assert!(native.get(&elsewhere).await.is_some());
    let q = queue("q");
    let got = broker.receive(&q, 1, MINUTE).await.unwrap();
    assert_eq!(bodies(&got), ["1"]);
    broker.release(&q, &receipts(&got)).await.unwrap();
    assert!(
        native.get(&elsewhere).await.is_none(),
        "copied once, by its producer"
    );
}
