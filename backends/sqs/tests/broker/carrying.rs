//! What a message is made of, how long it is held, and what the limits are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use isimud_contract::{Checksum, ClientId, Clock, ErrorKind, ManualClock, SystemClock};
use isimud_lease::LeaseBroker;
use isimud_sqs::SqsBroker;
use isimud_testing::sqs::Corner;

use crate::support::{
    MINUTE, bare, bodies, config, eventually, message, numbers, open, queue, receipts, take_all,
};

pub(crate) async fn every_part_of_a_message_comes_back(corner: Corner) {
    let (broker, q) = (open(&corner, ""), queue("q.1"));
    let mut sent = message(r#"{"a": ["ä", 1.50, null]}"#);
    sent.message.client = ClientId::Text("somebody else".into());
    sent.message.sealed = true;
    sent.message.checksum = Some(Checksum([7; 16]));
    sent.message.age = Duration::from_millis(1500);
    sent.message.remaining_ttl = Duration::from_millis(10_001);
    sent.message.claim_count = 4;
    broker.send(&q, vec![sent.clone()]).await.unwrap();
    let got = broker.receive(&q, 1, MINUTE).await.unwrap();
    assert_eq!(got[0].message, sent.message);
    assert_eq!(got[0].posted, sent.posted);
    // Another queue has nothing of it, whatever its name.
    for other in ["q_1", "q-1", "~q.1", "q.1~1"] {
        assert_eq!(
            broker.receive(&queue(other), 1, MINUTE).await.unwrap(),
            [],
            "{other}"
        );
    }
}

pub(crate) async fn visibility_is_what_was_asked_for(corner: Corner) {
    let (broker, q) = (open(&corner, ""), queue("q"));
    broker.send(&q, numbers(0..1)).await.unwrap();
    let first = broker
        .receive(&q, 1, Duration::from_secs(100))
        .await
        .unwrap();
    assert_eq!(first.len(), 1);
    corner.advance(Duration::from_secs(95));
    assert_eq!(broker.receive(&q, 1, MINUTE).await.unwrap(), []);
    corner.advance(Duration::from_secs(6));
    let second = broker.receive(&q, 1, MINUTE).await.unwrap();
    assert_eq!(second[0].message, first[0].message);
    // Longer, and then back at once.
    broker
        .extend(&q, &receipts(&second), Duration::from_secs(600))
        .await
        .unwrap();
    corner.advance(Duration::from_secs(590));
    assert_eq!(broker.receive(&q, 1, MINUTE).await.unwrap(), []);
    broker.release(&q, &receipts(&second)).await.unwrap();
    let third = broker.receive(&q, 1, MINUTE).await.unwrap();
    broker.ack(&q, &receipts(&third)).await.unwrap();
    corner.advance(Duration::from_secs(61));
    assert_eq!(broker.receive(&q, 1, MINUTE).await.unwrap(), []);
}

pub(crate) async fn extensions_end_where_sqs_ends_them(corner: Corner) {
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let broker =
        SqsBroker::open(config(&corner, corner.port, ""), Arc::clone(&clock) as _).unwrap();
    let q = queue("q");
    let advance = |seconds| {
        corner.advance(Duration::from_secs(seconds));
        clock.advance(Duration::from_secs(seconds));
    };
    let day = Duration::from_secs(43_200);
    broker.send(&q, numbers(0..1)).await.unwrap();
    let got = broker.receive(&q, 1, day).await.unwrap();
    advance(40_000);
    // As long as SQS can, which is 3,200 seconds.
    broker.extend(&q, &receipts(&got), day).await.unwrap();
    advance(3190);
    assert_eq!(broker.receive(&q, 1, MINUTE).await.unwrap(), []);
    // Beyond it, a hint that does nothing.
    advance(20);
    broker.extend(&q, &receipts(&got), day).await.unwrap();
    assert_eq!(broker.receive(&q, 1, MINUTE).await.unwrap().len(), 1);
}

pub(crate) async fn delays_are_native(corner: Corner) {
    let (broker, q) = (open(&corner, ""), queue("q"));
    let mut late = message("1");
    late.message.delay = Duration::from_secs(900);
    broker.send(&q, vec![late, message("2")]).await.unwrap();
    assert_eq!(bodies(&take_all(&broker, &q).await), ["2"]);
    corner.advance(Duration::from_secs(890));
    assert_eq!(broker.receive(&q, 1, MINUTE).await.unwrap(), []);
    corner.advance(Duration::from_secs(11));
    let got = broker.receive(&q, 1, MINUTE).await.unwrap();
    assert_eq!(got[0].message.delay, Duration::from_secs(900));
    assert_eq!(
        broker.capabilities().longest_delay,
        Some(Duration::from_secs(900))
    );
    // Without a journal it is the ledger that keeps them.
    let (broker, q) = (open(&corner, "&journal=false"), queue("r"));
    let mut late = message("3");
    late.message.delay = MINUTE;
    broker.send(&q, vec![late]).await.unwrap();
    let got = broker.receive(&q, 1, MINUTE).await.unwrap();
    assert_eq!(got[0].message.delay, MINUTE);
}

pub(crate) async fn bodies_of_every_kind_come_back(corner: Corner) {
    let (broker, q) = (open(&corner, ""), queue("q"));
    let texts = [
        "\"\"".into(),
        "\"\u{fffe}\u{ffff}\u{10ffff}\u{7f}\"".into(),
        "\"\\u0000\\ud800\"".into(),
        "[\t1,\r\n2 ]".into(),
        format!("\"{}\"", "<&>".repeat(10_000)),
    ];
    let batch = texts.iter().map(|text: &String| message(text)).collect();
    broker.send(&q, batch).await.unwrap();
    let mut got = bodies(&take_all(&broker, &q).await);
    got.sort();
    let mut sent = texts.to_vec();
    sent.sort();
    assert_eq!(got, sent);
}

pub(crate) async fn sizes_are_refused_before_anything_is_sent(corner: Corner) {
    let (broker, q) = (open(&corner, "&message_bytes=65536"), queue("q"));
    let largest = broker.capabilities().largest_body.unwrap();
    let of = |length: u64| message(&format!("\"{}\"", "x".repeat(length as usize - 2)));
    // Each fits, and no two of them fit into one request.
    broker
        .send(&q, vec![of(largest), of(largest), of(1000)])
        .await
        .unwrap();
    assert_eq!(take_all(&broker, &q).await.len(), 3);
    let before = corner.requests();
    let error = broker.send(&q, vec![of(10), of(65_536)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert_eq!(corner.requests(), before);
    // What has to be written in base64 is larger than it looks.
    let odd = message(&format!("\"{}\"", "\u{ffff}".repeat(20_000)));
    let error = broker.send(&q, vec![odd]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let whole = open(&corner, "").capabilities().largest_body.unwrap();
    assert!(whole > 1_000_000 && whole < 1 << 20);
}

pub(crate) async fn an_empty_queue_is_nothing_special(corner: Corner) {
    let (broker, q) = (open(&corner, ""), queue("q"));
    broker.ping().await.unwrap();
    assert_eq!(broker.receive(&q, 10, MINUTE).await.unwrap(), []);
    assert_eq!(broker.receive(&q, 0, MINUTE).await.unwrap(), []);
    assert_eq!(broker.depth(&q).await.unwrap(), Default::default());
    broker.purge(&q).await.unwrap();
    broker.drop_queue(&q).await.unwrap();
    broker.send(&q, Vec::new()).await.unwrap();
    assert!(!corner.requests().contains_key("CreateQueue"));
}

pub(crate) async fn a_wait_ends_when_a_message_comes(corner: Corner) {
    let (broker, q) = (open(&corner, "&wait_s=20"), queue("q"));
    broker.send(&q, numbers(0..1)).await.unwrap();
    assert_eq!(take_all_at_once(&broker, "q").await, 1);
    let begun = Instant::now();
    let send = async {
        // Once the receive is on its way.
        eventually("a receive", async || {
            corner.requests()["ReceiveMessage"] > 1
        })
        .await;
        broker.send(&q, numbers(1..2)).await.unwrap();
    };
    let (got, ()) = tokio::join!(broker.receive(&q, 10, MINUTE), send);
    assert_eq!(bodies(&got.unwrap()), ["1"]);
    assert!(begun.elapsed() < Duration::from_secs(15));
}

/// Somebody asks, and hangs up; the message comes afterwards.
pub(crate) async fn what_nobody_waits_for_any_more_is_given_back(corner: Corner) {
    let (broker, q) = (open(&corner, "&wait_s=20"), queue("q"));
    broker.send(&q, numbers(0..1)).await.unwrap();
    assert_eq!(take_all_at_once(&broker, "q").await, 1);
    let asked = eventually("a receive", async || {
        corner.requests()["ReceiveMessage"] > 1
    });
    tokio::select! {
        _ = broker.receive(&q, 10, 600 * MINUTE) => panic!("there is nothing"),
        () = asked => {}
    }
    broker.send(&q, numbers(1..2)).await.unwrap();
    eventually("a release", async || {
        corner
            .requests()
            .contains_key("ChangeMessageVisibilityBatch")
    })
    .await;
    assert_eq!(take_all_at_once(&broker, "q").await, 1);
}

async fn take_all_at_once(broker: &SqsBroker, name: &str) -> usize {
    let got = broker.receive(&queue(name), 10, MINUTE).await.unwrap();
    broker.ack(&queue(name), &receipts(&got)).await.unwrap();
    got.len()
}

pub(crate) async fn counts_are_those_of_sqs(corner: Corner) {
    let (broker, q) = (open(&corner, ""), queue("q"));
    let mut late = numbers(0..2);
    late[0].message.delay = MINUTE;
    broker.send(&q, late).await.unwrap();
    broker.send(&q, numbers(0..25)).await.unwrap();
    let held = broker.receive(&q, 20, MINUTE).await.unwrap();
    assert_eq!(held.len(), 20);
    let depth = broker.depth(&q).await.unwrap();
    assert_eq!((depth.ready, depth.held), (7, Some(20)));
}

pub(crate) async fn a_closed_broker_is_unavailable(corner: Corner) {
    let (broker, q) = (open(&corner, ""), queue("q"));
    broker.send(&q, numbers(0..1)).await.unwrap();
    broker.close().await.unwrap();
    for outcome in [
        broker.ping().await,
        broker.send(&q, numbers(1..2)).await,
        broker.receive(&q, 1, MINUTE).await.map(drop),
        broker.depth(&q).await.map(drop),
    ] {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    drop(bare(&corner));
}
