//! What an acknowledged message survives: a killed server with each way to keep data, and posts that wait for the disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use isimud_contract::{ErrorKind, MessageId, MessageStore};
use isimud_redis::RedisStore;
use isimud_testing::redis::{Server, Servers};

use crate::{SLACK, TIMEOUT, message, open, post_one, queue, recovered};

/// Redis writes its log before it answers, unless the disk is busy with what it was given before: then up to two
/// seconds later (Redis documentation, "Append-only file"). The rest is for a busy machine.
const WINDOW: Duration = Duration::from_millis(3000);

/// Messages, with the moment at which each was acknowledged.
type Acknowledged = Vec<(MessageId, Instant)>;

/// Posts from many sides until the server is killed, and says when that was.
async fn post_until_killed(store: &Arc<RedisStore>, server: &Server) -> (Acknowledged, Instant) {
    let posting: Vec<_> = (0..16)
        .map(|_| {
            let store = Arc::clone(store);
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                while let Ok(id) = post_one(&store).await {
                    acknowledged.push((id, Instant::now()));
                }
                acknowledged
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(fastrand::u64(1000..2000))).await;
    server.kill();
    let killed = Instant::now();
    let mut acknowledged = Vec::new();
    for worker in posting {
        acknowledged.extend(worker.await.unwrap());
    }
    (acknowledged, killed)
}

/// Those that are not there any more.
async fn lost(store: &RedisStore, of: &Acknowledged) -> Acknowledged {
    let mut lost = Vec::new();
    for some in of.chunks(1000) {
        let ids: Vec<MessageId> = some.iter().map(|(id, _)| *id).collect();
        let found = store.get(&queue("q"), &ids).await.unwrap();
        let found: std::collections::HashSet<_> = found.iter().map(|m| m.id).collect();
        lost.extend(some.iter().filter(|(id, _)| !found.contains(id)).copied());
    }
    lost
}

/// How long before the kill the oldest lost message was acknowledged.
fn window(lost: &Acknowledged, killed: Instant) -> Duration {
    let ages = lost.iter().map(|(_, at)| killed.duration_since(*at));
    ages.max().unwrap_or_default()
}

pub(crate) async fn with_everysec_a_kill_loses_no_more_than_the_last_seconds(servers: Servers) {
    let store = open(&servers, "");
    let server = servers.get(0);
    for round in 1..=3 {
        let (acknowledged, killed) = post_until_killed(&store, server).await;
        server.start_again().unwrap();
        recovered(&store).await;
        let lost = lost(&store, &acknowledged).await;
        let window = window(&lost, killed);
        println!(
            "everysec, kill {round}: {} messages acknowledged, {} of them lost; the oldest of those {window:?} before",
            acknowledged.len(),
            lost.len(),
        );
        assert!(acknowledged.len() > 100, "too little happened");
        assert!(window < WINDOW, "{window:?}");
    }
}

pub(crate) async fn with_snapshots_a_kill_loses_what_came_after_the_last(servers: Servers) {
    let store = open(&servers, "");
    let server = servers.get(0);
    let mut before = Acknowledged::new();
    for _ in 0..100 {
        before.push((post_one(&store).await.unwrap(), Instant::now()));
    }
    server.wait_until("SAVE", "OK").unwrap();
    let saved = Instant::now();
    assert!(!store.capabilities().durable);
    let (acknowledged, killed) = post_until_killed(&store, server).await;
    server.start_again().unwrap();
    recovered(&store).await;
    assert_eq!(lost(&store, &before).await.len(), 0);
    let lost = lost(&store, &acknowledged).await;
    let window = window(&lost, killed);
    println!(
        "snapshots: {} messages acknowledged since the last, {} of them lost; the oldest of those {window:?} before",
        acknowledged.len(),
        lost.len(),
    );
    assert_eq!(lost.len(), acknowledged.len());
    assert!(window <= killed.duration_since(saved));
}

/// The version that a server says it has, or is compatible with.
fn version(server: &Server) -> (u32, u32) {
    let info = server.command("INFO server").unwrap();
    let line = info.lines().find_map(|l| l.strip_prefix("redis_version:"));
    let mut parts = line.unwrap().split('.').map(|part| part.parse().unwrap());
    (parts.next().unwrap(), parts.next().unwrap())
}

/// Where the server is too old for it, nothing is acknowledged on terms that it cannot keep.
pub(crate) async fn posts_wait_for_the_disk_or_are_refused(servers: Servers) {
    let server = servers.get(0);
    let store = open(&servers, "&wait_aof=1&timeout_ms=5000");
    if version(server) < (7, 2) {
        for _ in 0..3 {
            let begun = Instant::now();
            let refusal = post_one(&store).await.unwrap_err();
            assert!(begun.elapsed() < TIMEOUT + SLACK);
            assert_eq!(refusal.kind(), ErrorKind::Internal);
            let sentence = refusal.sentence();
            assert!(sentence.contains("'wait_aof' needs Redis 7.2"), "{refusal}");
            assert!(store.ping().await.is_err(), "not ready either");
        }
        return;
    }
    let begun = Instant::now();
    let posting: Vec<_> = (0..64)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.post(&queue("q"), vec![message()]).await })
        })
        .collect();
    // The log reaches the disk once a second, and that is once for all of them; meanwhile others are served.
    let asked = Instant::now();
    store.stats(&queue("q")).await.unwrap();
    assert!(
        asked.elapsed() < Duration::from_millis(400),
        "{:?}",
        asked.elapsed()
    );
    for post in posting {
        post.await.unwrap().unwrap();
    }
    assert!(begun.elapsed() < 2 * Duration::from_secs(2));
    for (setting, value) in [("appendfsync", "no"), ("appendonly", "no")] {
        server
            .wait_until(&format!("CONFIG SET {setting} {value}"), "OK")
            .unwrap();
        let refusal = post_one(&open(&servers, "&wait_aof=1")).await.unwrap_err();
        assert_eq!(refusal.kind(), ErrorKind::Internal);
        assert!(refusal.sentence().contains(setting), "{refusal}");
    }
}
