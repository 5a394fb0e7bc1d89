//! Users who may not do everything.

use std::time::{Duration, Instant};

use isimud_contract::{ErrorKind, MessageStore, Metadata, Placement, Queues};
use isimud_redis::{Config, RedisStore};
use isimud_testing::redis::{Servers, documented_rights};

use crate::{impatient, open, queue};

/// Changes what the user may do.
fn change(servers: &Servers, rights: &str) {
    let done = servers
        .get(0)
        .command(&format!("ACL SETUSER faults {rights}"));
    assert_eq!(done.as_deref(), Ok("+OK\r\n"), "{rights}");
}

pub(crate) async fn a_right_that_is_missing_is_named_at_once(servers: Servers) {
    let uri = impatient(&servers);
    let store = || RedisStore::open(Config::parse(&uri).unwrap()).unwrap();
    store().ping().await.unwrap();
    let rights = documented_rights().split_whitespace();
    let all: Vec<&str> = rights.filter_map(|it| it.strip_prefix('+')).collect();
    assert!(all.len() > 30, "{all:?}");
    // What only tells how the server is set up, or cannot be tried.
    let others = ["config|get", "info", "ping", "subscribe", "unsubscribe"];
    for command in all.into_iter().filter(|it| !others.contains(it)) {
        change(&servers, &format!("-{command}"));
        // So that EVAL is needed again.
        servers.get(0).command("SCRIPT FLUSH").unwrap();
        let refusal = store().ping().await.unwrap_err();
        change(&servers, &format!("+{command}"));
        assert_eq!(refusal.kind(), ErrorKind::Internal, "{command}: {refusal}");
        let said = refusal.sentence().to_lowercase();
        assert!(said.contains(command), "{command}: {refusal}");
    }
    change(&servers, "resetkeys ~other:*");
    let refusal = store().ping().await.unwrap_err();
    assert!(refusal.sentence().contains("key"), "{refusal}");
    change(&servers, "~faults:*");
    store().ping().await.unwrap();
}

pub(crate) async fn a_user_who_may_not_publish_changes_leaves_nothing_behind(servers: Servers) {
    let uri = impatient(&servers);
    change(&servers, "resetchannels");
    let store = RedisStore::open(Config::parse(&uri).unwrap()).unwrap();
    let (q, none) = (queue("q"), Metadata::new());
    for _ in 0..2 {
        let refusal = store
            .create_queue(&q, &none, &Placement::default())
            .await
            .unwrap_err();
        assert_eq!(refusal.kind(), ErrorKind::Internal, "{refusal}");
        assert!(refusal.sentence().contains("faults:changes"), "{refusal}");
    }
    // And when the right is given, it is used without a restart.
    change(&servers, "&faults:changes");
    let begun = Instant::now();
    while let Err(refusal) = store.ping().await {
        assert!(begun.elapsed() < Duration::from_secs(10), "{refusal}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(store.find_queue(&q).await.unwrap(), None);
    assert!(
        store
            .create_queue(&q, &none, &Placement::default())
            .await
            .unwrap()
    );
}

/// The check is made when the connection is. What is refused later is refused before anything is written.
pub(crate) async fn a_right_that_is_taken_away_leaves_nothing_half_done(servers: Servers) {
    let store = open(&servers, "");
    let (q, other, none) = (queue("q"), queue("other"), Metadata::new());
    assert!(
        store
            .create_queue(&q, &none, &Placement::default())
            .await
            .unwrap()
    );
    change(&servers, "-publish");
    let refusal = store
        .create_queue(&other, &none, &Placement::default())
        .await
        .unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::Internal, "{refusal}");
    store.delete_queue(&q).await.unwrap_err();
    assert_eq!(store.find_queue(&other).await.unwrap(), None);
    assert!(store.find_queue(&q).await.unwrap().is_some());
    // Whatever the server then said, a repeated call does all of it.
    change(&servers, "+publish");
    assert!(
        store
            .create_queue(&other, &none, &Placement::default())
            .await
            .unwrap()
    );
    store.delete_queue(&q).await.unwrap();
}
