//! Queues that keep an order.

use isimud_contract::ClientId;
use isimud_lease::LeaseBroker;
use isimud_testing::sqs::Corner;
use std::time::Duration;
use uuid::Uuid;

use crate::support::{MINUTE, bodies, numbers, open, queue, receipts, take_all};

fn text(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

pub(crate) async fn messages_come_in_the_order_in_which_they_were_sent(corner: Corner) {
    let (broker, q) = (open(&corner, "&fifo=true"), queue("q"));
    let capabilities = broker.capabilities();
    assert!(capabilities.fifo && !capabilities.high_throughput);
    assert_eq!(capabilities.longest_delay, Some(Duration::ZERO));
    // One producer of posts of every size, one after another; and some at once, each of which is a whole.
    let mut next = 0;
    for size in [1, 25, 9, 10, 11, 1, 1, 60] {
        broker.send(&q, numbers(next..next + size)).await.unwrap();
        next += size;
    }
    assert_eq!(bodies(&take_all(&broker, &q).await), text(0..next));
    let sends = (0..8).map(|post| broker.send(&q, numbers(100 * post..100 * post + 12)));
    for outcome in futures_util::future::join_all(sends).await {
        outcome.unwrap();
    }
    let got = bodies(&take_all(&broker, &q).await);
    assert_eq!(got.len(), 96);
    for post in 0..8 {
        let of_post = |body: &&String| body.parse::<usize>().unwrap() / 100 == post;
        let of_post: Vec<_> = got.iter().filter(of_post).cloned().collect();
        assert_eq!(of_post, text(100 * post..100 * post + 12));
    }
}

pub(crate) async fn what_is_given_back_comes_first_again(corner: Corner) {
    let (broker, q) = (open(&corner, "&fifo=true"), queue("q"));
    broker.send(&q, numbers(0..30)).await.unwrap();
    let first = broker.receive(&q, 20, MINUTE).await.unwrap();
    assert_eq!(bodies(&first), text(0..10));
    // The whole group waits for who has its head.
    assert_eq!(broker.receive(&q, 20, MINUTE).await.unwrap(), []);
    broker.ack(&q, &receipts(&first[..4])).await.unwrap();
    broker.release(&q, &receipts(&first[4..])).await.unwrap();
    assert_eq!(bodies(&take_all(&broker, &q).await), text(4..30));
}

pub(crate) async fn each_client_has_its_own_order(corner: Corner) {
    let (broker, q) = (open(&corner, "&fifo=true&group=client"), queue("q"));
    for client in 0..3_usize {
        let mut batch = numbers(100 * client..100 * client + 15);
        for envelope in &mut batch {
            envelope.message.client = match client {
                0 => ClientId::Text("ein Kunde".into()),
                other => ClientId::Uuid(Uuid::from_u128(other as u128)),
            };
        }
        broker.send(&q, batch).await.unwrap();
    }
    // Who has the head of one group does not keep others from the next.
    let first = broker.receive(&q, 10, MINUTE).await.unwrap();
    let second = broker.receive(&q, 10, MINUTE).await.unwrap();
    assert_eq!(bodies(&first), text(0..10));
    assert_eq!(bodies(&second), text(100..110));
    broker.release(&q, &receipts(&first)).await.unwrap();
    broker.release(&q, &receipts(&second)).await.unwrap();
    let got = bodies(&take_all(&broker, &q).await);
    for client in 0..3 {
        let own = |body: &&String| body.parse::<usize>().unwrap() / 100 == client;
        let own: Vec<_> = got.iter().filter(own).cloned().collect();
        assert_eq!(own, text(100 * client..100 * client + 15));
    }
}

pub(crate) async fn a_message_that_comes_back_is_sent_again(corner: Corner) {
    let (broker, q) = (open(&corner, "&fifo=true"), queue("q"));
    let mut batch = numbers(0..12);
    for transfers in [0, 2, 4] {
        for envelope in &mut batch {
            envelope.message.transfers = transfers;
        }
        broker.send(&q, batch.clone()).await.unwrap();
        assert_eq!(bodies(&take_all(&broker, &q).await), text(0..12));
    }
}

pub(crate) async fn a_repeated_send_is_one_message(corner: Corner) {
    let (broker, q) = (open(&corner, "&fifo=true"), queue("q"));
    let batch = numbers(0..12);
    for _ in 0..3 {
        broker.send(&q, batch.clone()).await.unwrap();
    }
    assert_eq!(bodies(&take_all(&broker, &q).await), text(0..12));
}
