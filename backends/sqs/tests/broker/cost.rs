//! What SQS bills.

use futures_util::future::join_all;
use isimud_lease::LeaseBroker;

use crate::emulator::Corner;
use crate::support::{MINUTE, numbers, open, queue, receipts, take_all};

/// Messages that are counted for.
const MANY: usize = 1000;

pub(crate) async fn requests_for_a_thousand_messages(corner: Corner) {
    let q = queue("q");
    let count = |action: &str| corner.requests().get(action).copied().unwrap_or(0);
    let mut told = Vec::new();

    let broker = open(&corner, "");
    broker.send(&q, numbers(0..1)).await.unwrap();
    take_all(&broker, &q).await;
    let setting_up = count("GetQueueUrl") + count("CreateQueue") + count("GetQueueAttributes");
    told.push(("setting a queue up, once", setting_up));

    let mut before = count("SendMessageBatch");
    for number in 0..MANY {
        broker.send(&q, numbers(number..number + 1)).await.unwrap();
    }
    told.push((
        "posts of 1, one after another",
        count("SendMessageBatch") - before,
    ));

    let receives = count("ReceiveMessage");
    let deletes = count("DeleteMessageBatch");
    let mut taken = 0;
    while taken < MANY {
        let got = broker.receive(&q, 20, MINUTE).await.unwrap();
        taken += got.len();
        broker.ack(&q, &receipts(&got)).await.unwrap();
    }
    told.push(("claims of 20", count("ReceiveMessage") - receives));
    told.push(("deletes of 20", count("DeleteMessageBatch") - deletes));

    before = count("SendMessageBatch");
    for post in 0..MANY / 20 {
        broker
            .send(&q, numbers(20 * post..20 * (post + 1)))
            .await
            .unwrap();
    }
    told.push((
        "posts of 20, one after another",
        count("SendMessageBatch") - before,
    ));
    take_all(&broker, &q).await;

    for (linger, what) in [
        (0, "posts of 1, 64 at once"),
        (20, "posts of 1, 64 at once, linger_ms=20"),
    ] {
        let broker = open(&corner, &format!("&linger_ms={linger}"));
        broker.send(&q, numbers(0..10)).await.unwrap();
        before = count("SendMessageBatch");
        let clients = (0..64).map(|client| {
            let (broker, q) = (&broker, &q);
            async move {
                for number in (client..MANY).step_by(64) {
                    broker.send(q, numbers(number..number + 1)).await.unwrap();
                }
            }
        });
        join_all(clients).await;
        told.push((what, count("SendMessageBatch") - before));
        let got = broker.receive(&q, 640, MINUTE).await.unwrap();
        let deletes = count("DeleteMessageBatch");
        for some in got.chunks(64) {
            let acks = some.iter().map(|one| async {
                broker
                    .ack(&q, std::slice::from_ref(&one.receipt))
                    .await
                    .unwrap();
            });
            join_all(acks).await;
        }
        let per_thousand = (count("DeleteMessageBatch") - deletes) * 1000 / got.len() as u64;
        told.push((
            if linger == 0 {
                "deletes of 1, 64 at once"
            } else {
                "deletes of 1, 64 at once, linger_ms=20"
            },
            per_thousand,
        ));
        take_all(&broker, &q).await;
    }
    for (what, requests) in &told {
        println!("{requests:>5} requests for 1,000 messages: {what}");
    }
    let of = |what: &str| told.iter().find(|(found, _)| *found == what).unwrap().1;
    assert_eq!(of("setting a queue up, once"), 3);
    assert_eq!(of("posts of 20, one after another"), 100);
    assert_eq!(of("posts of 1, one after another"), 1000);
    assert!(of("posts of 1, 64 at once, linger_ms=20") <= 180);
    assert!(of("deletes of 1, 64 at once, linger_ms=20") <= 180);
    assert!(of("claims of 20") <= 102);
    assert_eq!(of("deletes of 20"), 100);
}
