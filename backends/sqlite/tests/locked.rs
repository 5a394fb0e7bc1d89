//! What callers see while another program holds the file.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use isimud_contract::{
    ClientId, ErrorKind, ManualClock, Message, MessageId, MessageStore, ProjectId, QueueKey,
    QueueName,
};
use isimud_sqlite::{Config, SqliteStore};
use rusqlite::Connection;
use uuid::Uuid;

fn open(path: &Path) -> Arc<SqliteStore> {
    SqliteStore::open(Config::file(path), Arc::new(ManualClock::default())).expect("a store")
}

fn queue() -> QueueKey {
    let project = ProjectId::parse("p").expect("a project");
    QueueKey::new(project, QueueName::parse("q").expect("a name"))
}

fn message() -> Message {
    let client = ClientId::Uuid(Uuid::nil());
    let id = MessageId(Uuid::now_v7());
    Message::new(id, client, Duration::from_secs(3600), "1")
}

/// Holds the file's write lock until it is dropped.
fn hold(path: &Path) -> Connection {
    let connection = Connection::open(path).expect("a connection");
    connection
        .execute_batch("BEGIN IMMEDIATE")
        .expect("the lock");
    connection
}

#[tokio::test]
async fn a_pop_whose_caller_has_gone_takes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("isimud.db");
    let store = open(&path);
    let messages = vec![message(), message(), message()];
    store.post(&queue(), messages).await.expect("posted");

    let held = hold(&path);
    let queue = queue();
    let pop = store.pop(&queue, 3);
    let gone = tokio::time::timeout(Duration::from_millis(50), pop).await;
    assert!(gone.is_err(), "the pop waits for the lock");
    drop(held);

    // The next write comes after the pop.
    store.post(&queue, vec![message()]).await.expect("posted");
    let stats = store.stats(&queue).await.expect("stats");
    assert_eq!(stats.free, 4);
}

#[tokio::test]
async fn a_locked_file_is_unavailable_and_leaves_nothing_half_done() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("isimud.db");
    let store = open(&path);
    store.ping().await.expect("it answers");

    let held = hold(&path);
    let (queue, posts) = (queue(), 6);
    let calls = (0..posts).map(|_| store.post(&queue, vec![message()]));
    for answer in join_all(calls).await {
        let error = answer.expect_err("the file is locked");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    let ping = store.ping().await.expect_err("the file is locked");
    assert_eq!(ping.kind(), ErrorKind::Unavailable);
    drop(held);

    let stats = store.stats(&queue).await.expect("stats");
    assert_eq!(stats.free, 0);
    store.post(&queue, vec![message()]).await.expect("posted");
    assert_eq!(store.stats(&queue).await.expect("stats").free, 1);
}
