//! Several servers on one RabbitMQ.

use std::time::{Duration, Instant};

use isimud_lease::LeaseBroker;

use crate::setup::{
    MINUTE, Setup, bodies, ids, numbered, numbers, queue, receipts, until, until_there,
};

pub(crate) async fn one_settles_what_another_holds(setup: Setup) {
    let (holder, other) = (setup.open(), setup.open());
    let q = queue("q");
    holder.send(&q, numbered(6)).await.unwrap();
    let got = holder.receive(&q, 6, MINUTE).await.unwrap();
    let receipts = receipts(&got);
    // A server listens soon after it was started, and until then its receipts are void.
    until("they are given back", || async {
        other.release(&q, &receipts[..2]).await.unwrap();
        setup.native().await.ready(&setup.name("q")).await == Some(2)
    })
    .await;
    let begun = Instant::now();
    other.release(&q, &receipts[2..4]).await.unwrap();
    let back = other.receive(&q, 6, MINUTE).await.unwrap();
    assert_eq!(back.len(), 4, "a release is waited for");
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    other.ack(&q, &receipts[4..5]).await.unwrap();
    other
        .extend(&q, &receipts[5..], Duration::ZERO)
        .await
        .unwrap();
    let last = until_there(&other, &q, 1).await;
    assert_eq!(ids(&last), ids(&got[5..]));
    holder.close().await.unwrap();
    assert_eq!(other.depth(&q).await.unwrap().ready, 0);
}

pub(crate) async fn receipts_of_the_dead_are_void(setup: Setup) {
    let (dead, alive) = (setup.open(), setup.open());
    let q = queue("q");
    dead.send(&q, numbered(1000)).await.unwrap();
    let mut got = Vec::new();
    while got.len() < 1000 {
        got.extend(dead.receive(&q, 100, MINUTE).await.unwrap());
    }
    drop(dead);
    let begun = Instant::now();
    let again = until_there(&alive, &q, 1000).await;
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    let mut bodies = bodies(&again);
    if setup.kind == "quorum" {
        // It has them in no order then.
        bodies.sort_by_key(|body| body.parse::<u32>().unwrap());
    }
    assert!(bodies == numbers(0..1000), "{bodies:?}");
    for hint in 0..3 {
        let some = &receipts(&got)[..500];
        match hint {
            0 => alive.ack(&q, some).await.unwrap(),
            1 => alive.release(&q, some).await.unwrap(),
            _ => alive.extend(&q, some, MINUTE).await.unwrap(),
        }
    }
    assert_eq!(alive.depth(&q).await.unwrap().ready, 0);
}

pub(crate) async fn a_queue_removed_by_one_is_usable_by_the_other(setup: Setup) {
    let (one, other) = (setup.open(), setup.open());
    let q = queue("q");
    one.send(&q, numbered(1)).await.unwrap();
    other.send(&q, numbered(1)).await.unwrap();
    one.drop_queue(&q).await.unwrap();
    other.send(&q, numbered(3)).await.unwrap();
    let got = one.receive(&q, 9, MINUTE).await.unwrap();
    assert_eq!(bodies(&got), numbers(0..3));
}
