//! Messages that are larger than a node takes (its `max_message_size`).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isimud_contract::{Clock, ErrorKind, Result, SystemClock};
use isimud_lease::{Envelope, LeaseBroker};

use crate::{MINUTE, Setup, message, open, queue, receipts};

/// What the node takes, in bytes.
const LIMIT: usize = 65_536;

/// So many post beside the one whose messages are too large.
const NEIGHBOURS: usize = 4;

fn sized(bytes: usize) -> Envelope {
    Envelope {
        message: message(&"x".repeat(bytes)),
        posted: SystemClock.now(),
    }
}

fn assert_final(refusal: Result<()>) {
    let refusal = refusal.unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::Invalid, "{refusal}");
    assert!(refusal.sentence().contains("65536"), "{refusal}");
}

pub(crate) async fn a_message_that_the_node_does_not_take_is_refused_for_good_and_costs_nobody_else(
    setup: Setup,
) {
    for kind in ["classic", "quorum"] {
        let broker = open(&setup.uri(
            setup.node.port(),
            &format!("&queue_type={kind}&prefix={kind}."),
        ));
        for number in 0..NEIGHBOURS {
            let name = format!("n{number}");
            broker.send(&queue(&name), vec![sized(10)]).await.unwrap();
        }
        let neighbours = (0..NEIGHBOURS).map(|number| {
            let broker = Arc::clone(&broker);
            tokio::spawn(async move {
                let (name, begun, mut posted) = (format!("n{number}"), Instant::now(), 1);
                while begun.elapsed() < Duration::from_millis(1500) {
                    broker.send(&queue(&name), vec![sized(10)]).await.unwrap();
                    posted += 1;
                }
                (name, posted)
            })
        });
        let neighbours: Vec<_> = neighbours.collect();
        for _ in 0..5 {
            // What was learned of the node ends with the connection; here it is learned anew each time.
            let other = open(&setup.uri(setup.node.port(), "&queue_type=classic&prefix=large."));
            assert_final(other.send(&queue("q"), vec![sized(LIMIT + 1)]).await);
            assert_final(broker.send(&queue("q"), vec![sized(LIMIT + 1)]).await);
            broker.send(&queue("q"), vec![sized(LIMIT)]).await.unwrap();
        }
        for neighbour in neighbours {
            let (name, posted) = neighbour.await.unwrap();
            let mut ids = HashSet::new();
            loop {
                let got = broker.receive(&queue(&name), 100, MINUTE).await.unwrap();
                if got.is_empty() {
                    break;
                }
                ids.extend(got.iter().map(|it| it.message.id));
                broker.ack(&queue(&name), &receipts(&got)).await.unwrap();
            }
            assert_eq!(ids.len(), posted, "{name}");
        }
        let mut large = 0;
        loop {
            let got = broker.receive(&queue("q"), 100, MINUTE).await.unwrap();
            if got.is_empty() {
                break;
            }
            large += got.len();
        }
        assert_eq!(large, 5);
    }
}

pub(crate) async fn of_several_messages_none_is_stored_where_one_is_too_large(setup: Setup) {
    let broker = open(&setup.uri(setup.node.port(), "&queue_type=classic&prefix=several."));
    let several = || vec![sized(1), sized(LIMIT + 1), sized(2)];
    assert_final(broker.send(&queue("q"), several()).await);
    assert_final(broker.send(&queue("q"), several()).await);
    assert_eq!(broker.depth(&queue("q")).await.unwrap().ready, 0);
    let several = vec![sized(1), sized(LIMIT), sized(2)];
    broker.send(&queue("q"), several).await.unwrap();
    let got = broker.receive(&queue("q"), 9, MINUTE).await.unwrap();
    assert_eq!(got.len(), 3);
}
