//! What SQS bills, and what the machine spends.

use std::time::{Duration, Instant};

use aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry, SendMessageBatchRequestEntry};
use futures_util::future::join_all;
use isimud_lease::LeaseBroker;

use crate::emulator::Corner;
use crate::support::{MINUTE, bare, make, numbers, open, queue, receipts, take_all};

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

/// The processor time of this process.
fn spent() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// Shows what the driver adds to the client library. Only shown: other trials may run meanwhile.
pub(crate) async fn time_beside_the_bare_client(corner: Corner) {
    let broker = open(&corner, "");
    let (q, body) = (queue("q"), "x".repeat(254));
    let batches: Vec<_> = (0..MANY / 10)
        .map(|_| {
            let mut batch = numbers(0..10);
            batch
                .iter_mut()
                .for_each(|one| one.message.body = format!("\"{body}\"").into());
            batch
        })
        .collect();
    broker.send(&q, numbers(0..1)).await.unwrap();
    take_all(&broker, &q).await;
    let (begun, before) = (Instant::now(), spent());
    for batch in batches.clone() {
        broker.send(&q, batch).await.unwrap();
        let got = broker.receive(&q, 10, MINUTE).await.unwrap();
        broker.ack(&q, &receipts(&got)).await.unwrap();
    }
    let ours = (spent() - before, begun.elapsed());

    let client = bare(&corner);
    let url = make(&corner, &format!("{}-bare", corner.login), &[]).await;
    let (begun, before) = (Instant::now(), spent());
    for batch in &batches {
        let entry = |(at, one): (usize, &isimud_lease::Envelope)| {
            let body = String::from_utf8(one.message.body.to_vec()).unwrap();
            SendMessageBatchRequestEntry::builder()
                .id(at.to_string())
                .message_body(body)
                .build()
                .unwrap()
        };
        let entries = batch.iter().enumerate().map(entry).collect();
        client
            .send_message_batch()
            .queue_url(&url)
            .set_entries(Some(entries))
            .send()
            .await
            .unwrap();
        let call = client
            .receive_message()
            .queue_url(&url)
            .max_number_of_messages(10);
        let got = call.visibility_timeout(60).send().await.unwrap();
        let entry = |(at, one): (usize, &aws_sdk_sqs::types::Message)| {
            let handle = one.receipt_handle().unwrap();
            DeleteMessageBatchRequestEntry::builder()
                .id(at.to_string())
                .receipt_handle(handle)
                .build()
                .unwrap()
        };
        let entries = got.messages().iter().enumerate().map(entry).collect();
        client
            .delete_message_batch()
            .queue_url(&url)
            .set_entries(Some(entries))
            .send()
            .await
            .unwrap();
    }
    let theirs = (spent() - before, begun.elapsed());
    for (what, (processor, wall)) in [("the driver", ours), ("the bare client", theirs)] {
        let each = processor.as_micros() / MANY as u128;
        println!(
            "{each} us of processor time a message (sent, received and deleted in tens) by {what}, {wall:?} in all"
        );
    }
}
