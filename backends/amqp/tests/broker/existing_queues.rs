//! Queues that others have made.

use isimud_contract::{ErrorKind, ProjectId, QueueKey, Resource};
use isimud_lease::LeaseBroker;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, ExchangeKind};

use crate::setup::{
    MINUTE, Setup, bodies, envelope, numbered, numbers, queue, receipts, table, text, until,
    until_there,
};

pub(crate) async fn queues_keep_their_names_exchanges_and_keys(setup: Setup) {
    let native = setup.native().await;
    let prefix = &setup.prefix;
    let (legacy, exchange) = (format!("{prefix}Legacy Orders"), format!("{prefix}events"));
    native
        .declare(&legacy, table(&[("x-queue-type", text(setup.kind))]))
        .await;
    let options = ExchangeDeclareOptions::default();
    let made = native.channel.exchange_declare(
        exchange.as_str().into(),
        ExchangeKind::Topic,
        options,
        FieldTable::default(),
    );
    made.await.unwrap();
    let bound = native.channel.queue_bind(
        legacy.as_str().into(),
        exchange.as_str().into(),
        "orders.#".into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    bound.await.unwrap();
    let broker = setup.adopting(&format!(
        "&name.orders={prefix}Legacy%20Orders&exchange.orders={exchange}&routing_key.orders=orders.{{project}}.new"
    ));
    let q = queue("orders");
    broker.send(&q, numbered(2)).await.unwrap();
    let got = native.get(&legacy).await.unwrap();
    assert_eq!(got.exchange.as_str(), exchange);
    assert_eq!(got.routing_key.as_str(), "orders.p.new");
    let got = broker.receive(&q, 9, MINUTE).await.unwrap();
    assert_eq!(bodies(&got), numbers(1..2));
    // What cannot be right is said, and holds up nobody else.
    let wrong = setup.adopting(&format!(
        "&exchange={prefix}nowhere&name.orders={prefix}Legacy%20Orders&exchange.orders="
    ));
    let refusal = wrong.send(&queue("other"), numbered(1)).await.unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::Internal);
    assert!(refusal.sentence().contains("exchange"), "{refusal}");
    wrong.send(&q, numbered(1)).await.unwrap();
    let unbound = setup.adopting(&format!(
        "&name.orders={prefix}Legacy%20Orders&exchange={exchange}&routing_key.orders=bills"
    ));
    let refusal = unbound.send(&q, numbered(1)).await.unwrap_err();
    assert!(refusal.sentence().contains("routing key"), "{refusal}");
}

pub(crate) async fn a_queue_that_is_missing_is_not_made(setup: Setup) {
    let broker = setup.adopting("");
    let q = queue("missing");
    assert!(broker.receive(&q, 9, MINUTE).await.unwrap().is_empty());
    let refusal = broker.send(&q, numbered(1)).await.unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::NotFound(Resource::Queue));
    let native = setup.native().await;
    let name = format!("{}missing", setup.prefix);
    assert_eq!(native.ready(&name).await, None);
    // And when somebody makes it, it is used: soon, as what is missing is not asked for at each call.
    native.declare(&name, FieldTable::default()).await;
    let message = numbered(1);
    until("it is used", || async {
        broker.send(&q, message.clone()).await.is_ok()
    })
    .await;
    assert_eq!(broker.receive(&q, 9, MINUTE).await.unwrap().len(), 1);
}

pub(crate) async fn queues_of_any_arguments_are_adopted(setup: Setup) {
    let native = setup.native().await;
    let broker = setup.adopting("");
    let common = [
        ("x-message-ttl", AMQPValue::LongInt(600_000)),
        ("x-expires", AMQPValue::LongInt(600_000)),
        ("x-max-length", AMQPValue::LongInt(100)),
        ("x-dead-letter-exchange", text("amq.fanout")),
        ("x-dead-letter-routing-key", text("it's")),
        ("x-overflow", text("reject-publish")),
        ("x-unknown", AMQPValue::Boolean(true)),
    ];
    for (at, kind) in [Some("quorum"), Some("classic"), None]
        .into_iter()
        .enumerate()
    {
        let mut arguments = common.to_vec();
        match kind {
            Some(kind) => arguments.push(("x-queue-type", text(kind))),
            None => arguments.push(("x-max-priority", AMQPValue::LongInt(9))),
        }
        let q = queue(&format!("q{at}"));
        native
            .declare(&format!("{}q{at}", setup.prefix), table(&arguments))
            .await;
        broker.send(&q, numbered(2)).await.unwrap();
        assert_eq!(
            broker.receive(&q, 9, MINUTE).await.unwrap().len(),
            2,
            "{kind:?}"
        );
    }
}

pub(crate) async fn a_queue_with_other_arguments_is_used_as_it_is(setup: Setup) {
    let native = setup.native().await;
    let arguments = table(&[("x-max-length", AMQPValue::LongInt(50))]);
    native.declare(&setup.name("q"), arguments).await;
    let broker = setup.open();
    broker.send(&queue("q"), numbered(3)).await.unwrap();
    let got = broker.receive(&queue("q"), 9, MINUTE).await.unwrap();
    assert_eq!(bodies(&got), numbers(0..3));
}

pub(crate) async fn a_stream_is_refused_and_costs_nothing(setup: Setup) {
    let native = setup.native().await;
    let broker = setup.adopting_with_all_rights();
    native
        .declare(&format!("{}q", setup.prefix), FieldTable::default())
        .await;
    native
        .declare(
            &format!("{}s", setup.prefix),
            table(&[("x-queue-type", text("stream"))]),
        )
        .await;
    let (q, stream) = (queue("q"), queue("s"));
    broker.send(&q, numbered(3)).await.unwrap();
    assert_eq!(broker.receive(&q, 3, MINUTE).await.unwrap().len(), 3);
    for refusal in [
        broker.receive(&stream, 1, MINUTE).await.unwrap_err(),
        broker.send(&stream, numbered(1)).await.unwrap_err(),
    ] {
        assert_eq!(refusal.kind(), ErrorKind::Unsupported);
        assert!(refusal.sentence().contains("stream"), "{refusal}");
    }
    assert_eq!(broker.depth(&q).await.unwrap().ready, 0);
}

pub(crate) async fn a_queue_of_somebody_alone_is_refused(setup: Setup) {
    let native = setup.native().await;
    let broker = setup.adopting_with_all_rights();
    let prefix = &setup.prefix;
    let options = QueueDeclareOptions::exclusive();
    let made = native.channel.queue_declare(
        format!("{prefix}exclusive").into(),
        options,
        FieldTable::default(),
    );
    made.await.unwrap();
    let single = table(&[("x-single-active-consumer", AMQPValue::Boolean(true))]);
    native.declare(&format!("{prefix}single"), single).await;
    for name in ["exclusive", "single"] {
        let refusal = broker.receive(&queue(name), 1, MINUTE).await.unwrap_err();
        assert_eq!(refusal.kind(), ErrorKind::Unsupported, "{name}: {refusal}");
    }
}

pub(crate) async fn a_full_queue_is_unavailable(setup: Setup) {
    let native = setup.native().await;
    let broker = setup.adopting("");
    let arguments = table(&[
        ("x-queue-type", text(setup.kind)),
        ("x-max-length", AMQPValue::LongInt(5)),
        ("x-overflow", text("reject-publish")),
    ]);
    native
        .declare(&format!("{}q", setup.prefix), arguments)
        .await;
    let q = queue("q");
    let refusal = loop {
        if let Err(refusal) = broker.send(&q, numbered(1)).await {
            break refusal;
        }
    };
    assert_eq!(refusal.kind(), ErrorKind::Unavailable, "{refusal}");
    let got = until_there(&broker, &q, 5).await;
    broker.ack(&q, &receipts(&got)).await.unwrap();
    until("there is room again", || async {
        broker.send(&q, numbered(1)).await.is_ok()
    })
    .await;
}

/// RabbitMQ tells the kind of a queue to those alone who may declare it. Others find out with the first message.
pub(crate) async fn existing_queues_are_adopted_with_the_rights_to_read_and_to_write(setup: Setup) {
    let native = setup.native().await;
    let broker = setup.adopting("");
    let prefix = &setup.prefix;
    for (name, kind) in [("q", setup.kind), ("s", "stream")] {
        let arguments = table(&[("x-queue-type", text(kind))]);
        native.declare(&format!("{prefix}{name}"), arguments).await;
    }
    let (q, stream) = (queue("q"), queue("s"));
    broker.send(&q, numbered(3)).await.unwrap();
    native
        .publish(&format!("{prefix}q"), BasicProperties::default(), b"3")
        .await;
    until("all four are counted", || async {
        broker.depth(&q).await.unwrap().ready == 4
    })
    .await;
    let got = until_there(&broker, &q, 4).await;
    assert_eq!(bodies(&got), numbers(0..4));
    let refusal = broker.receive(&stream, 1, MINUTE).await.unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::Unsupported, "{refusal}");
    // What was held is held still, in spite of the connection that the stream has cost.
    broker.release(&q, &receipts(&got)[..1]).await.unwrap();
    assert_eq!(until_there(&broker, &q, 1).await.len(), 1);
    broker.ack(&q, &receipts(&got)[1..]).await.unwrap();
    let nowhere = broker.receive(&queue("nowhere"), 1, MINUTE).await.unwrap();
    assert!(nowhere.is_empty());
    broker.purge(&q).await.unwrap();
    broker.drop_queue(&q).await.unwrap();
    assert_eq!(native.ready(&format!("{prefix}q")).await, Some(0));
}

/// The queues of an existing deployment are those of the project that the pool names, whether they are adopted or made
/// here.
pub(crate) async fn queues_of_one_project_are_not_those_of_another(setup: Setup) {
    let native = setup.native().await;
    let name = format!("{}q", setup.prefix);
    native
        .declare(&name, table(&[("x-queue-type", text(setup.kind))]))
        .await;
    let other = QueueKey::new(ProjectId::parse("other").unwrap(), queue("q").name);
    let adopting = setup.adopting("");
    adopting.send(&queue("q"), numbered(2)).await.unwrap();
    for refusal in [
        adopting.send(&other, numbered(1)).await.unwrap_err(),
        adopting.receive(&other, 9, MINUTE).await.unwrap_err(),
        adopting.purge(&other).await.unwrap_err(),
        adopting.drop_queue(&other).await.unwrap_err(),
    ] {
        assert_eq!(refusal.kind(), ErrorKind::Unsupported, "{refusal}");
    }
    until("both are there still", || async {
        native.ready(&name).await == Some(2)
    })
    .await;
    // Made here, the other project has a queue of its own.
    let making = setup.open_with(&format!("&name={name}-{{queue}}&project=p"));
    making.send(&queue("r"), numbered(3)).await.unwrap();
    let other = QueueKey::new(other.project, queue("r").name);
    assert!(making.receive(&other, 9, MINUTE).await.unwrap().is_empty());
    making.send(&other, numbered(1)).await.unwrap();
    making.drop_queue(&other).await.unwrap();
    let kept = format!("{name}-r");
    until("all three are there still", || async {
        native.ready(&kept).await == Some(3)
    })
    .await;
    assert_eq!(
        native.ready(&format!("{}other.r", setup.prefix)).await,
        None
    );
}

pub(crate) async fn an_existing_queue_that_is_dropped_is_emptied_only(setup: Setup) {
    let native = setup.native().await;
    let broker = setup.adopting("");
    let name = format!("{}q", setup.prefix);
    native.declare(&name, FieldTable::default()).await;
    native
        .publish(&name, BasicProperties::default(), b"1")
        .await;
    broker.send(&queue("q"), vec![envelope("2")]).await.unwrap();
    broker.drop_queue(&queue("q")).await.unwrap();
    assert_eq!(native.ready(&name).await, Some(0));
}
