//! Queues of an existing deployment that was there before, and names that do not fit.

use isimud_contract::{ErrorKind, ProjectId, QueueKey, QueueName, Resource};
use isimud_lease::LeaseBroker;
use isimud_testing::sqs::Corner;

use crate::support::{MINUTE, bare, bodies, make, message, names, numbers, open, queue, take_all};

pub(crate) async fn existing_queues_are_reached_by_their_names(corner: Corner) {
    let name = format!("{}-orders_v2", corner.login);
    let url = make(&corner, &name, &[]).await;
    let options = format!("&name={}-{{queue}}_v2&project=p", corner.login);
    let (broker, q) = (open(&corner, &options), queue("orders"));
    bare(&corner)
        .send_message()
        .queue_url(&url)
        .message_body("native")
        .send()
        .await
        .unwrap();
    broker.send(&q, vec![message("1")]).await.unwrap();
    let mut got = bodies(&take_all(&broker, &q).await);
    got.sort();
    assert_eq!(got, ["\"native\"", "1"]);
    let other = QueueKey::new(
        ProjectId::parse("other").unwrap(),
        QueueName::parse("orders").unwrap(),
    );
    let error = broker.receive(&other, 1, MINUTE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

pub(crate) async fn an_adopted_queue_that_is_missing_is_not_made(corner: Corner) {
    let options = format!("&name={}-{{queue}}&project=p", corner.login);
    let (broker, q) = (open(&corner, &options), queue("q"));
    let error = broker.send(&q, numbers(0..1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound(Resource::Queue));
    assert_eq!(broker.receive(&q, 1, MINUTE).await.unwrap(), []);
    broker.drop_queue(&q).await.unwrap();
    assert!(names(&corner).await.is_empty());
    // Once somebody has made it, it is there.
    let url = make(&corner, &format!("{}-q", corner.login), &[]).await;
    broker.send(&q, numbers(0..1)).await.unwrap();
    assert_eq!(take_all(&broker, &q).await.len(), 1);
    // And once somebody has deleted it, it is not.
    bare(&corner)
        .delete_queue()
        .queue_url(&url)
        .send()
        .await
        .unwrap();
    let error = broker.send(&q, numbers(0..1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound(Resource::Queue));
    assert_eq!(broker.receive(&q, 1, MINUTE).await.unwrap(), []);
}

pub(crate) async fn the_limits_of_an_adopted_queue_are_kept(corner: Corner) {
    let limits = [
        ("MaximumMessageSize", "2048"),
        ("MessageRetentionPeriod", "600"),
        ("DelaySeconds", "60"),
    ];
    let url = make(&corner, &format!("{}-q", corner.login), &limits).await;
    let options = format!("&name={}-{{queue}}&project=p", corner.login);
    let (broker, q) = (open(&corner, &options), queue("q"));
    let mut small = message("1");
    small.message.ttl = 10 * MINUTE;
    small.message.remaining_ttl = 10 * MINUTE;
    let error = broker.send(&q, vec![message("1")]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "it lives too long");
    let mut large = small.clone();
    large.message.body = format!("\"{}\"", "x".repeat(2048)).into();
    let error = broker
        .send(&q, vec![small.clone(), large])
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "it is too large");
    // The queue's own delay is for those who do not say one.
    broker.send(&q, vec![small]).await.unwrap();
    bare(&corner)
        .send_message()
        .queue_url(&url)
        .message_body("2")
        .send()
        .await
        .unwrap();
    assert_eq!(bodies(&take_all(&broker, &q).await), ["1"]);
    corner.advance(MINUTE);
    corner.advance(MINUTE / 60);
    let native = take_all(&broker, &q).await;
    assert_eq!(
        (bodies(&native), native[0].message.ttl),
        (vec!["2".to_owned()], 10 * MINUTE)
    );
}

pub(crate) async fn a_long_name_is_tagged(corner: Corner) {
    let broker = open(&corner, "");
    let long = QueueKey::new(
        ProjectId::parse(&"ä".repeat(256)).unwrap(),
        QueueName::parse(&"x".repeat(64)).unwrap(),
    );
    broker.send(&long, numbers(0..1)).await.unwrap();
    broker.send(&queue("short"), numbers(0..1)).await.unwrap();
    assert_eq!(take_all(&broker, &long).await.len(), 1);
    for name in names(&corner).await {
        let full = format!("{}-{name}", corner.login);
        let url = bare(&corner)
            .get_queue_url()
            .queue_name(&full)
            .send()
            .await
            .unwrap();
        let tags = bare(&corner)
            .list_queue_tags()
            .queue_url(url.queue_url().unwrap())
            .send()
            .await
            .unwrap();
        let tag = tags.tags().and_then(|tags| tags.get("isimud:queue"));
        let hashed = name != "p_-short";
        assert_eq!(tag.map(String::len), hashed.then_some(64), "{name}");
        assert!(full.len() <= 80);
    }
}
