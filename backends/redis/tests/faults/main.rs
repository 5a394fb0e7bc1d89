//! What happens when Redis is killed, held up, full, demoted or replaced, and that it mends without a restart of ours.
#![expect(
    clippy::unwrap_used,
    reason = "a failed step fails its trial, and says so at that line"
)]

mod keeping;
mod rights;
mod takeover;
mod tls;

use std::collections::HashSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isimud_contract::{
    Change, Claim, ClaimId, ClientId, Error, ErrorKind, Lease, Message, MessageId, MessageStore,
    Metadata, Placement, Precondition, ProjectId, QueueKey, QueueName, Queues, Result, Watcher,
};
use isimud_redis::{Config, RedisStore};
use isimud_testing::redis::{Server, Servers};
use isimud_testing::trial;
use libtest_mimic::{Arguments, Trial};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use uuid::Uuid;

type Check = fn(Servers) -> std::pin::Pin<Box<dyn Future<Output = ()>>>;

fn main() -> ExitCode {
    isimud_conformance::show_logs();
    macro_rules! trials {
        ($($start:path: $($name:path),+;)*) => {
            vec![$($(trial_on(stringify!($name), $start, |servers| Box::pin($name(servers))),)+)*]
        };
    }
    let mut trials = trials! {
        Servers::single:
            a_server_that_hangs_is_unavailable_in_time,
            what_nobody_waits_for_is_not_carried_out_later,
            a_full_server_is_unavailable_and_keeps_no_half_post,
            a_full_server_can_be_emptied,
            a_replica_is_unavailable_until_it_is_a_master_again,
            a_server_held_up_by_a_script_is_unavailable,
            a_key_of_somebody_else_is_an_internal_error,
            rights::a_right_that_is_missing_is_named_at_once,
            rights::a_user_who_may_not_publish_changes_leaves_nothing_behind,
            rights::a_right_that_is_taken_away_leaves_nothing_half_done,
            a_server_that_forgets_scripts_is_told_them_again,
            a_store_opens_while_the_server_is_down,
            posts_without_their_replicas_are_unavailable,
            what_ends_in_a_forgotten_queue_is_swept,
            a_claim_that_is_sent_twice_takes_once,
            a_change_of_a_queue_is_heard_by_the_other_server,
            keeping::with_everysec_a_kill_loses_no_more_than_the_last_seconds,
            keeping::posts_wait_for_the_disk_or_are_refused,
            tls::a_socket_is_a_server;
        Servers::always:
            a_killed_server_is_unavailable_until_it_is_back,
            nothing_acknowledged_is_lost_in_a_crash,
            two_stores_share_one_server;
        Servers::snapshots:
            keeping::with_snapshots_a_kill_loses_what_came_after_the_last;
        Servers::sentinel:
            a_failover_is_survived,
            takeover::a_replica_takes_over_in_the_middle_of_the_work;
        Servers::replicated_cluster:
            takeover::a_replica_takes_over_in_a_cluster_in_the_middle_of_the_work;
    };
    trials.extend(trials! {
        tls::is_there:
            tls::a_certificate_of_a_known_authority_is_trusted,
            tls::a_certificate_of_nobody_known_is_not_trusted,
            tls::a_certificate_for_another_host_is_not_trusted,
            tls::a_client_shows_its_certificate,
            tls::a_plain_server_is_no_server_for_tls,
            tls::tls_files_that_cannot_be_read_are_refused_at_once,
            tls::a_cluster_is_reached_by_tls,
            tls::sentinels_and_whom_they_name_are_reached_by_tls;
    });
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial_on(
    name: &'static str,
    start: fn() -> std::result::Result<Servers, String>,
    check: Check,
) -> Trial {
    Trial::ignorable_test(name, move || trial::run(start(), check))
}

const TIMEOUT: Duration = Duration::from_millis(600);
/// How much longer than its time-out a call may take on a busy machine. Both are less than the time-out that a store has
/// where none is asked for.
const SLACK: Duration = Duration::from_millis(1300);

/// Where a store finds the servers, if it is to wait no longer than [`TIMEOUT`].
fn impatient(servers: &Servers) -> String {
    let uri = servers.limited_uri("faults:");
    uri.replace("timeout_ms=5000", "timeout_ms=600")
}

fn open(servers: &Servers, options: &str) -> Arc<RedisStore> {
    let uri = impatient(servers);
    RedisStore::open(Config::parse(&format!("{uri}{options}")).unwrap()).unwrap()
}

fn queue(name: &str) -> QueueKey {
    QueueKey::new(
        ProjectId::parse("p").unwrap(),
        QueueName::parse(name).unwrap(),
    )
}

fn message() -> Message {
    let id = MessageId(Uuid::now_v7());
    Message::new(
        id,
        ClientId::Uuid(Uuid::nil()),
        Duration::from_secs(600),
        "{}",
    )
}

fn lease() -> Lease {
    Lease {
        id: ClaimId(Uuid::now_v7()),
        ttl: Duration::from_secs(300),
        grace: Duration::ZERO,
        dead_letter: None,
    }
}

async fn post_one(store: &RedisStore) -> Result<MessageId> {
    let message = message();
    let id = message.id;
    store.post(&queue("q"), vec![message]).await.map(|()| id)
}

async fn free(store: &RedisStore) -> u64 {
    store.stats(&queue("q")).await.unwrap().free
}

/// Every call is refused, each within the time-out.
async fn assert_unavailable(store: &RedisStore) {
    let q = queue("q");
    for _ in 0..3 {
        let begun = Instant::now();
        let refusals: [Error; 2] = [
            post_one(store).await.unwrap_err(),
            store.claim(&q, &lease(), 1).await.unwrap_err(),
        ];
        assert!(
            begun.elapsed() < 2 * (TIMEOUT + SLACK),
            "{:?}",
            begun.elapsed()
        );
        for refusal in refusals {
            assert_eq!(refusal.kind(), ErrorKind::Unavailable, "{refusal}");
        }
    }
}

/// Posts until that works again.
async fn recovered(store: &RedisStore) -> MessageId {
    let begun = Instant::now();
    loop {
        match post_one(store).await {
            Ok(id) => return id,
            Err(error) if begun.elapsed() > Duration::from_secs(20) => {
                panic!("it never works again: {error}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn a_killed_server_is_unavailable_until_it_is_back(servers: Servers) {
    let store = open(&servers, "");
    let before = post_one(&store).await.unwrap();
    servers.get(0).kill();
    assert_unavailable(&store).await;
    assert!(store.find_queue(&queue("q")).await.is_err());
    servers.get(0).start_again().unwrap();
    let afterwards = recovered(&store).await;
    // A post that was refused on the way may be there as well.
    let found = store.get(&queue("q"), &[before, afterwards]).await.unwrap();
    assert_eq!(found.len(), 2, "{} are there", free(&store).await);
}

async fn a_server_that_hangs_is_unavailable_in_time(servers: Servers) {
    let store = open(&servers, "");
    post_one(&store).await.unwrap();
    servers.get(0).signal("-STOP").unwrap();
    assert_unavailable(&store).await;
    servers.get(0).signal("-CONT").unwrap();
    recovered(&store).await;
}

async fn what_nobody_waits_for_is_not_carried_out_later(servers: Servers) {
    const EACH: usize = 3;
    let store = open(&servers, "");
    let q = queue("q");
    for _ in 0..2 * EACH {
        post_one(&store).await.unwrap();
    }
    servers.get(0).signal("-STOP").unwrap();
    for _ in 0..EACH {
        // At once, so that all of them are on their way when the connection is given up.
        let lease = lease();
        let (popped, claimed, posted) = tokio::join!(
            store.pop(&q, 1),
            store.claim(&q, &lease, 1),
            post_one(&store)
        );
        assert_eq!(popped.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(claimed.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(posted.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    servers.get(0).signal("-CONT").unwrap();
    recovered(&store).await;
    let stats = store.stats(&q).await.unwrap();
    assert_eq!((stats.free, stats.claimed), (2 * EACH as u64 + 1, 0));
}

async fn a_full_server_is_unavailable_and_keeps_no_half_post(servers: Servers) {
    let store = open(&servers, "");
    post_one(&store).await.unwrap();
    let server = servers.get(0);
    server
        .wait_until("CONFIG SET maxmemory 1000", "OK")
        .unwrap();
    let refusal = store.post(&queue("q"), vec![message(), message()]).await;
    assert_eq!(refusal.unwrap_err().kind(), ErrorKind::Unavailable);
    server.wait_until("CONFIG SET maxmemory 0", "OK").unwrap();
    assert_eq!(free(&store).await, 1);
    recovered(&store).await;
}

async fn a_full_server_can_be_emptied(servers: Servers) {
    let store = open(&servers, "");
    for _ in 0..6 {
        post_one(&store).await.unwrap();
    }
    let server = servers.get(0);
    server
        .wait_until("CONFIG SET maxmemory 1000", "OK")
        .unwrap();
    let queue = queue("q");
    let refusal = store.post(&queue, vec![message()]).await.unwrap_err();
    assert!(
        refusal.about(isimud_contract::REASON).is_some(),
        "{refusal}"
    );
    let lease = |ttl| Lease {
        id: ClaimId(Uuid::now_v7()),
        ttl,
        grace: Duration::from_secs(60),
        dead_letter: None,
    };
    let (long, short) = (Duration::from_secs(4000), Duration::from_millis(1));
    let kept = lease(long);
    let claim = store.claim(&queue, &kept, 2).await.unwrap().unwrap();
    store.renew_claim(&queue, &kept).await.unwrap();
    let ids: Vec<_> = claim.messages.iter().map(|message| message.id).collect();
    let precondition = Precondition::ClaimedBy(vec![kept.id]);
    assert_eq!(
        store.delete(&queue, &ids[..1], precondition).await.unwrap(),
        1
    );
    store.release_claim(&queue, kept.id).await.unwrap();
    // A claim that ends by itself: whoever comes first puts its messages back.
    store
        .claim(&queue, &lease(short), 2)
        .await
        .unwrap()
        .unwrap();
    tokio::time::sleep(2 * short).await;
    assert_eq!(free(&store).await, 5);
    assert_eq!(store.pop(&queue, 1).await.unwrap().len(), 1);
    store
        .claim(&queue, &lease(short), 2)
        .await
        .unwrap()
        .unwrap();
    tokio::time::sleep(2 * short).await;
    assert_eq!(store.pop(&queue, 4).await.unwrap().len(), 4);
    server.wait_until("CONFIG SET maxmemory 0", "OK").unwrap();
    assert_eq!(free(&store).await, 0);
    recovered(&store).await;
}

async fn a_replica_is_unavailable_until_it_is_a_master_again(servers: Servers) {
    let store = open(&servers, "");
    post_one(&store).await.unwrap();
    let server = servers.get(0);
    server.wait_until("REPLICAOF 127.0.0.1 1", "OK").unwrap();
    assert_unavailable(&store).await;
    server.wait_until("REPLICAOF NO ONE", "OK").unwrap();
    recovered(&store).await;
}

async fn a_server_held_up_by_a_script_is_unavailable(servers: Servers) {
    let store = open(&servers, "");
    post_one(&store).await.unwrap();
    let server = servers.get(0);
    server
        .wait_until("CONFIG SET lua-time-limit 50", "OK")
        .unwrap();
    // The answer never comes; the script runs on.
    server.command("EVAL \"while true do end\" 0").unwrap_err();
    assert_unavailable(&store).await;
    server.wait_until("SCRIPT KILL", "OK").unwrap();
    recovered(&store).await;
}

async fn a_key_of_somebody_else_is_an_internal_error(servers: Servers) {
    let store = open(&servers, "");
    let server = servers.get(0);
    server.command("SET faults:{p/q}d mine").unwrap();
    let refusal = post_one(&store).await.unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::Internal, "{refusal}");
}

async fn a_server_that_forgets_scripts_is_told_them_again(servers: Servers) {
    for options in ["", "&wait_replicas=0"] {
        let store = open(&servers, options);
        post_one(&store).await.unwrap();
        servers.get(0).command("SCRIPT FLUSH").unwrap();
        post_one(&store).await.unwrap();
    }
}

async fn a_store_opens_while_the_server_is_down(servers: Servers) {
    // Makes the user, who outlives the server.
    impatient(&servers);
    servers.get(0).kill();
    let store = open(&servers, "");
    assert_unavailable(&store).await;
    servers.get(0).start_again().unwrap();
    recovered(&store).await;
    assert!(store.capabilities().durable);
}

async fn posts_without_their_replicas_are_unavailable(servers: Servers) {
    let store = open(&servers, "&wait_replicas=1");
    let refusal = post_one(&store).await.unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::Unavailable);
    let of = format!("replicaof 127.0.0.1 {}", servers.get(0).port);
    let replica = Server::start(&[&of]).unwrap();
    replica
        .wait_until("INFO replication", "master_link_status:up")
        .unwrap();
    recovered(&store).await;
    servers.get(0).command("SCRIPT FLUSH").unwrap();
    post_one(&store).await.unwrap();
}

async fn what_ends_in_a_forgotten_queue_is_swept(servers: Servers) {
    let store = open(&servers, "");
    let brief = (0..1_200).map(|_| Message {
        remaining_ttl: Duration::from_millis(300),
        ..message()
    });
    store.post(&queue("q"), brief.collect()).await.unwrap();
    let server = servers.get(0);
    assert!(
        server
            .command("HLEN faults:{p/q}d")
            .unwrap()
            .contains("1200")
    );
    server.wait_until("HLEN faults:{p/q}d", ":0").unwrap();
    server
        .wait_until("EXISTS faults:{p/q}t faults:{p/q}f", ":0")
        .unwrap();
}

/// A cluster's client sends a call again when its answer was lost.
async fn a_claim_that_is_sent_twice_takes_once(servers: Servers) {
    let store = open(&servers, "");
    for _ in 0..4 {
        post_one(&store).await.unwrap();
    }
    let lease = lease();
    let first = store.claim(&queue("q"), &lease, 2).await.unwrap().unwrap();
    let again = store.claim(&queue("q"), &lease, 2).await.unwrap().unwrap();
    let ids = |claim: &Claim| claim.messages.iter().map(|m| m.id).collect::<Vec<_>>();
    assert_eq!(ids(&first), ids(&again));
    assert_eq!(free(&store).await, 2);
    store.release_claim(&queue("q"), lease.id).await.unwrap();
    assert_eq!(free(&store).await, 4);
}

/// The queues that a store is told of, and `None` for everything.
fn changes(store: &RedisStore) -> UnboundedReceiver<Option<QueueKey>> {
    let (tell, told) = unbounded_channel();
    let watcher: Watcher = Arc::new(move |change| {
        let queue = match change {
            Change::Queue(queue) => Some(queue.clone()),
            Change::Pools | Change::All => None,
        };
        drop(tell.send(queue));
    });
    store.watch(watcher).unwrap();
    told
}

async fn create(store: &RedisStore, queue: &QueueKey) -> Result<bool> {
    let (metadata, placement) = (Metadata::new(), Placement::default());
    store.create_queue(queue, &metadata, &placement).await
}

async fn a_change_of_a_queue_is_heard_by_the_other_server(servers: Servers) {
    let [here, there] = [open(&servers, ""), open(&servers, "")];
    let mut told = changes(&there);
    let mut next = async || {
        let wait = tokio::time::timeout(Duration::from_secs(20), told.recv());
        wait.await.unwrap().unwrap()
    };
    assert_eq!(next().await, None, "what was before is unknown");
    let (q, metadata) = (queue("q"), Metadata::new());
    assert!(create(&here, &q).await.unwrap());
    assert_eq!(next().await.as_ref(), Some(&q));
    let version = here.find_queue(&q).await.unwrap().unwrap().version;
    let placement = Placement::default();
    let update = here.update_queue(&q, &metadata, &placement, version);
    assert!(update.await.unwrap().is_some());
    assert_eq!(next().await.as_ref(), Some(&q));
    here.delete_queue(&q).await.unwrap();
    assert_eq!(next().await.as_ref(), Some(&q));
    for lose in [false, true] {
        if lose {
            servers.get(0).kill();
        } else {
            servers.get(0).signal("-STOP").unwrap();
        }
        assert_eq!(next().await, None, "the connection is lost");
        if lose {
            servers.get(0).start_again().unwrap();
        } else {
            servers.get(0).signal("-CONT").unwrap();
        }
        recovered(&here).await;
        let begun = Instant::now();
        loop {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "nothing is heard"
            );
            here.delete_queue(&q).await.unwrap();
            if next().await.is_some() {
                break;
            }
        }
        // Let all that is under way arrive.
        tokio::time::sleep(Duration::from_millis(300)).await;
        while let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(10), next()).await {}
    }
}

/// Keeps posting and deleting, and is killed in the middle.
async fn nothing_acknowledged_is_lost_in_a_crash(servers: Servers) {
    let store = open(&servers, "");
    let server = servers.get(0);
    let mut expected = HashSet::new();
    for _ in 0..3 {
        let posting = (0..16).map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                while let Ok(id) = post_one(&store).await {
                    acknowledged.push(id);
                }
                acknowledged
            })
        });
        let posting: Vec<_> = posting.collect();
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.kill();
        for worker in posting {
            expected.extend(worker.await.unwrap());
        }
        server.start_again().unwrap();
        expected.insert(recovered(&store).await);
    }
    let ids: Vec<MessageId> = expected.iter().copied().collect();
    let found = store.get(&queue("q"), &ids).await.unwrap();
    assert_eq!(found.len(), ids.len(), "acknowledged messages are lost");
    assert_eq!(
        store
            .delete(&queue("q"), &ids, Precondition::Unclaimed)
            .await
            .unwrap(),
        ids.len()
    );
}

/// Sixteen workers through two stores: every message is claimed and deleted once.
async fn two_stores_share_one_server(servers: Servers) {
    const MESSAGES: usize = 50_000;
    // Each call waits for the disk, behind those of all others.
    let patient = "&timeout_ms=10000";
    let stores = [open(&servers, patient), open(&servers, patient)];
    let workers: Vec<_> = (0..16)
        .map(|at| {
            let store = Arc::clone(&stores[at % 2]);
            tokio::spawn(async move {
                let (q, mut seen) = (queue("q"), Vec::new());
                let mut idle = 0;
                while idle < 20 {
                    let lease = lease();
                    let Some(claim) = store.claim(&q, &lease, 20).await.unwrap() else {
                        idle += 1;
                        tokio::time::sleep(Duration::from_millis(25)).await;
                        continue;
                    };
                    idle = 0;
                    let ids: Vec<_> = claim.messages.iter().map(|m| m.id).collect();
                    let precondition = Precondition::ClaimedBy(vec![lease.id]);
                    assert_eq!(
                        store.delete(&q, &ids, precondition).await.unwrap(),
                        ids.len()
                    );
                    seen.extend(ids);
                }
                seen
            })
        })
        .collect();
    for batch in 0..MESSAGES / 10 {
        let messages = (0..10).map(|_| message()).collect();
        stores[batch % 2].post(&queue("q"), messages).await.unwrap();
    }
    let mut seen = Vec::new();
    for worker in workers {
        seen.extend(worker.await.unwrap());
    }
    assert_eq!(seen.len(), MESSAGES);
    assert_eq!(seen.into_iter().collect::<HashSet<_>>().len(), MESSAGES);
}

async fn a_failover_is_survived(servers: Servers) {
    let store = open(&servers, "");
    // Replicas may be slow on a busy machine, and are waited for.
    let safe = open(&servers, "&wait_replicas=1&timeout_ms=10000");
    assert!(create(&store, &queue("q")).await.unwrap());
    let mut acknowledged = Vec::new();
    for _ in 0..50 {
        acknowledged.push(post_one(&safe).await.unwrap());
    }
    servers.get(0).kill();
    assert_unavailable(&store).await;
    // The replica takes over, and has none of its own yet: who waits for one waits in vain.
    recovered(&store).await;
    let found = store.get(&queue("q"), &acknowledged).await.unwrap();
    assert_eq!(found.len(), acknowledged.len());
    let refusal = post_one(&open(&servers, "&wait_replicas=1")).await;
    assert_eq!(refusal.unwrap_err().kind(), ErrorKind::Unavailable);
    let claim = store
        .claim(&queue("q"), &lease(), 5)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(claim.messages.len(), 5);
}
