//! Answers have a bound in bytes, and what is beyond it is neither read twice nor lost.

use std::time::Duration;

use isimud_contract::{
    ClaimId, ClientId, DeadLetter, Lease, Message, MessageId, MessageStore, PAGE_BYTES, Selection,
    Stands,
};
use isimud_testing::redis::Servers;
use redis::aio::MultiplexedConnection;
use uuid::Uuid;

use crate::{Bench, on, queue};

/// Three messages have more bytes than an answer may have, and two have not.
fn large_messages(count: usize) -> Vec<Message> {
    let body = "b".repeat(usize::try_from(PAGE_BYTES).unwrap() / 5 * 2);
    let message = || {
        let (id, client) = (MessageId(Uuid::now_v7()), ClientId::Uuid(Uuid::nil()));
        Message::new(id, client, Duration::from_secs(3600), body.clone())
    };
    (0..count).map(|_| message()).collect()
}

/// How many scripts a server has run.
async fn scripts_run(server: &mut MultiplexedConnection) -> u64 {
    let mut command = redis::cmd("INFO");
    let info: String = command
        .arg("commandstats")
        .query_async(server)
        .await
        .unwrap();
    let calls = info.lines().filter_map(|line| {
        let (name, stats) = line.split_once(":calls=")?;
        let is_script = ["cmdstat_eval", "cmdstat_evalsha"].contains(&name);
        let count = stats.split(',').next()?;
        is_script.then(|| count.parse::<u64>().unwrap())
    });
    calls.sum()
}

#[test]
fn a_page_that_has_no_room_for_more_is_read_once() {
    on(Servers::plain(), |bench| async move {
        let (store, mut server) = (bench.store, bench.beside);
        let (queue, messages) = (queue("q"), large_messages(5));
        let ids: Vec<MessageId> = messages.iter().map(|message| message.id).collect();
        store.post(&queue, messages).await.unwrap();
        let everything = Selection {
            after: None,
            limit: 10,
            not_from: None,
            include_claimed: false,
            include_delayed: false,
        };
        // The first call sends the script, too.
        store.list(&queue, everything.clone()).await.unwrap();
        let before = scripts_run(&mut server).await;
        let page = store.list(&queue, everything.clone()).await.unwrap();
        // The sweep may have run one meanwhile.
        let mut fewest = scripts_run(&mut server).await - before;
        assert!(page.is_cut);
        let listed: Vec<MessageId> = page.messages.iter().map(|message| message.id).collect();
        assert_eq!(listed, ids[..2]);
        for _ in 0..3 {
            let before = scripts_run(&mut server).await;
            store.list(&queue, everything.clone()).await.unwrap();
            fewest = fewest.min(scripts_run(&mut server).await - before);
        }
        assert_eq!(fewest, 1);
        // The rest follows.
        let rest = Selection {
            after: page.marker,
            ..everything
        };
        let page = store.list(&queue, rest).await.unwrap();
        let listed: Vec<MessageId> = page.messages.iter().map(|message| message.id).collect();
        assert_eq!(listed, ids[2..4]);
    });
}

#[test]
fn dead_letters_that_a_cluster_moves_through_an_answer_are_no_more_than_fit_into_it() {
    on(Servers::cluster(), |Bench { store, .. }| async move {
        let (here, dead) = (queue("here"), queue("dead"));
        store.post(&here, large_messages(5)).await.unwrap();
        for (moved, left) in [(2, 3), (4, 1), (5, 0)] {
            let lease = Lease {
                id: ClaimId(Uuid::now_v7()),
                ttl: Duration::from_secs(60),
                grace: Duration::from_secs(60),
                dead_letter: Some(DeadLetter {
                    queue: dead.clone(),
                    max_claims: 0,
                    ttl: None,
                    stands: Stands::Last(0),
                }),
            };
            assert_eq!(store.claim(&here, &lease, 10).await.unwrap(), None);
            let counts = [&dead, &here].map(|queue| store.stats(queue));
            let [there, here] = counts;
            assert_eq!(
                (there.await.unwrap().free, here.await.unwrap().free),
                (moved, left)
            );
        }
    });
}
