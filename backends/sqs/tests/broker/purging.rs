//! Purging and removing.

use std::time::Duration;

use isimud_contract::ErrorKind;
use isimud_lease::LeaseBroker;
use isimud_testing::sqs::Corner;

use crate::support::{MINUTE, bodies, names, numbers, open, queue, receipts, take_all};

pub(crate) async fn a_purge_takes_what_was_sent_before_and_nothing_else(corner: Corner) {
    let (broker, q) = (open(&corner, ""), queue("q"));
    broker.send(&q, numbers(0..35)).await.unwrap();
    let held = broker.receive(&q, 3, MINUTE).await.unwrap();
    // Posts go on while the purge does.
    let (purged, sent) = tokio::join!(broker.purge(&q), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        broker.send(&q, numbers(100..110)).await
    });
    purged.unwrap();
    sent.unwrap();
    broker.send(&q, numbers(110..120)).await.unwrap();
    let mut left = bodies(&take_all(&broker, &q).await);
    left.sort();
    let late = |number: &String| number.parse::<usize>().unwrap() >= 100;
    assert!(left.iter().all(late), "{left:?}");
    assert!(left.contains(&"110".to_owned()) && left.contains(&"119".to_owned()));
    assert!(!corner.requests().contains_key("PurgeQueue"));
    // What was held elsewhere is still there.
    broker.release(&q, &receipts(&held)).await.unwrap();
    assert_eq!(take_all(&broker, &q).await.len(), 3);
}

pub(crate) async fn a_removed_queue_stays_and_is_empty(corner: Corner) {
    let (broker, q) = (open(&corner, ""), queue("q"));
    broker.send(&q, numbers(0..5)).await.unwrap();
    broker.drop_queue(&q).await.unwrap();
    assert_eq!(names(&corner).await, ["p_-q"]);
    broker.send(&q, numbers(5..6)).await.unwrap();
    assert_eq!(bodies(&take_all(&broker, &q).await), ["5"]);
}

pub(crate) async fn a_removed_queue_is_deleted_where_that_is_wanted(corner: Corner) {
    let (broker, q) = (open(&corner, "&remove=delete"), queue("q"));
    broker.send(&q, numbers(0..5)).await.unwrap();
    broker.send(&queue("other"), numbers(0..5)).await.unwrap();
    broker.drop_queue(&q).await.unwrap();
    assert_eq!(names(&corner).await, ["p_-other"]);
    // SQS may lose what is sent now.
    let error = broker.send(&q, numbers(5..6)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(broker.receive(&q, 10, MINUTE).await.unwrap(), []);
    assert_eq!(broker.depth(&q).await.unwrap(), Default::default());
    broker.drop_queue(&q).await.unwrap();
    assert_eq!(take_all(&broker, &queue("other")).await.len(), 5);
}
