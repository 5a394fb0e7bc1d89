//! A master is killed in the middle of the work, and one of its replicas takes over.
//!
//! Replication follows a little later, so a takeover may lose what was acknowledged in the last moment, a claim as well
//! as a message: how much is printed. What had reached the replica must be there, and whatever was lost, no message may
//! be in two claims that both live.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use isimud_contract::{ClaimId, ErrorKind, MessageId, MessageStore, QueueKey, Result};
use isimud_redis::RedisStore;
use isimud_testing::redis::{Server, Servers};

use crate::{SLACK, TIMEOUT, lease, message, open, queue};

/// So many queues that each master of a cluster has some.
const QUEUES: usize = 12;
const WORKERS: usize = 8;
/// How long the service may be away.
const RECOVERY: Duration = Duration::from_secs(20);

fn name(at: usize) -> QueueKey {
    queue(&format!("q{at}"))
}

/// The queue of each message, and when it was acknowledged.
type Posted = HashMap<MessageId, (usize, Instant)>;

/// What the workers were told.
#[derive(Debug, Default)]
struct Book {
    posted: Posted,
    claims: Vec<(usize, ClaimId, Vec<MessageId>)>,
    refused: usize,
    slowest: Duration,
    wrong: Vec<String>,
}

/// Workers on two stores, and what they share.
#[derive(Debug)]
struct Load {
    stores: [Arc<RedisStore>; 2],
    book: Mutex<Book>,
    over: AtomicBool,
}

impl Load {
    fn on(servers: &Servers) -> Arc<Self> {
        Arc::new(Self {
            stores: [open(servers, ""), open(servers, "")],
            book: Mutex::default(),
            over: AtomicBool::new(false),
        })
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    /// What was served; a refusal must be one that passes, in time.
    fn judge<T>(&self, what: &str, begun: Instant, answer: Result<T>) -> Option<T> {
        let took = begun.elapsed();
        let mut book = self.book();
        if took > TIMEOUT + SLACK {
            book.wrong.push(format!("{what} took {took:?}"));
        }
        match answer {
            Ok(answer) => Some(answer),
            Err(error) => {
                book.refused += 1;
                book.slowest = took.max(book.slowest);
                if error.kind() != ErrorKind::Unavailable {
                    book.wrong.push(format!("{what}: {error:?}"));
                }
                None
            }
        }
    }

    async fn post(&self, store: usize, at: usize) -> bool {
        let (begun, message) = (Instant::now(), message());
        let id = message.id;
        let answer = self.stores[store].post(&name(at), vec![message]).await;
        let done = self.judge("a post", begun, answer).is_some();
        if done {
            self.book().posted.insert(id, (at, Instant::now()));
        }
        done
    }

    async fn claim(&self, store: usize, at: usize) {
        let (begun, lease) = (Instant::now(), lease());
        let answer = self.stores[store].claim(&name(at), &lease, 3).await;
        if let Some(Some(claim)) = self.judge("a claim", begun, answer) {
            let ids = claim.messages.iter().map(|message| message.id).collect();
            self.book().claims.push((at, claim.id, ids));
        }
    }

    async fn work(self: Arc<Self>, store: usize) {
        while !self.over.load(Ordering::Relaxed) {
            let at = fastrand::usize(..QUEUES);
            if fastrand::u8(..3) == 0 {
                self.claim(store, at).await;
            } else {
                self.post(store, at).await;
            }
            // Some thousand calls a second are enough, and leave the machine to the servers' elections.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Posts to every queue through both stores until that works.
    async fn resumes(&self) -> Duration {
        let begun = Instant::now();
        for at in 0..QUEUES {
            for store in 0..2 {
                while !self.post(store, at).await {
                    assert!(begun.elapsed() < RECOVERY, "the service does not resume");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        begun.elapsed()
    }

    /// Those of some messages that are not there any more.
    async fn missing(&self, of: &Posted) -> Vec<Instant> {
        let mut missing = Vec::new();
        for at in 0..QUEUES {
            let here = of.iter().filter(|(_, (queue, _))| *queue == at);
            let ids: Vec<MessageId> = here.clone().map(|(id, _)| *id).collect();
            let found = self.stores[at % 2].get(&name(at), &ids).await.unwrap();
            let found: Vec<MessageId> = found.iter().map(|message| message.id).collect();
            let gone = here.filter(|(id, _)| !found.contains(id));
            missing.extend(gone.map(|(_, (_, told))| *told));
        }
        missing
    }

    /// Demands that no message is in two claims that live, and that these claims live.
    async fn each_has_one_holder(&self, settled: &[ClaimId]) {
        let claims = std::mem::take(&mut self.book().claims);
        let mut holders: HashMap<MessageId, ClaimId> = HashMap::new();
        let mut undone = 0;
        for (at, claim, delivered) in claims {
            let found = self.stores[0].find_claim(&name(at), claim).await;
            let Ok(found) = found else {
                assert!(!settled.contains(&claim), "a settled claim is lost");
                undone += 1;
                continue;
            };
            for message in found.messages {
                assert!(delivered.contains(&message.id));
                let other = holders.insert(message.id, claim);
                assert_eq!(other, None, "{:?} is in two live claims", message.id);
            }
        }
        println!(
            "{undone} claims were undone, {} messages held",
            holders.len()
        );
        assert!(holders.len() > 20, "too little was claimed");
    }
}

/// Waits until a master's replicas have all that it has.
fn settle(master: &Server) {
    let followed = |info: &str| {
        let field = |name: &str| info.split(name).nth(1)?.split(['\r', ',']).next();
        let mut offsets = info.matches(",offset=").count();
        for replica in info.split(",offset=").skip(1) {
            let offset = replica.split(',').next();
            offsets -= usize::from(offset == field("master_repl_offset:"));
        }
        info.contains(",offset=") && offsets == 0
    };
    master
        .wait_for(Duration::from_secs(20), "INFO replication", followed)
        .unwrap();
}

/// Messages and claims that the replicas have too.
async fn what_is_settled(load: &Load, masters: &[&Server]) -> (Posted, Vec<ClaimId>) {
    for at in 0..10 * QUEUES {
        assert!(load.post(at % 2, at % QUEUES).await);
    }
    for at in 0..QUEUES {
        load.claim(at % 2, at).await;
    }
    masters.iter().for_each(|master| settle(master));
    let book = load.book();
    let claims: Vec<ClaimId> = book.claims.iter().map(|claim| claim.1).collect();
    assert_eq!((book.posted.len(), claims.len()), (10 * QUEUES, QUEUES));
    (book.posted.clone(), claims)
}

async fn a_master_is_replaced(servers: Servers, masters: usize) {
    let load = Load::on(&servers);
    let masters: Vec<&Server> = (0..masters).map(|at| servers.get(at)).collect();
    let (settled, claims) = what_is_settled(&load, &masters).await;
    let work: Vec<_> = (0..WORKERS)
        .map(|worker| tokio::spawn(Arc::clone(&load).work(worker % 2)))
        .collect();
    tokio::time::sleep(Duration::from_millis(700)).await;
    servers.get(0).kill();
    let killed = Instant::now();
    let away = load.resumes().await;
    // The old master comes back, and has to follow the new one.
    servers.get(0).start_again().unwrap();
    servers
        .get(0)
        .wait_until("INFO replication", "role:slave")
        .unwrap();
    load.resumes().await;
    load.over.store(true, Ordering::Relaxed);
    for worker in work {
        worker.await.unwrap();
    }

    assert_eq!(
        load.missing(&settled).await.len(),
        0,
        "settled ones are lost"
    );
    let posted = load.book().posted.clone();
    let missing = load.missing(&posted).await;
    let oldest = missing
        .iter()
        .map(|told| killed.saturating_duration_since(*told));
    println!(
        "away for {away:?}; {} messages acknowledged, {} of them lost, the oldest of those {:?} before the kill",
        posted.len(),
        missing.len(),
        oldest.max().unwrap_or_default(),
    );
    load.each_has_one_holder(&claims).await;
    let book = load.book();
    println!(
        "{} calls refused, the slowest after {:?}",
        book.refused, book.slowest
    );
    assert!(book.refused > 0, "nobody noticed");
    assert!(
        book.wrong.is_empty(),
        "{:#?}",
        &book.wrong[..book.wrong.len().min(10)]
    );
}

pub(crate) async fn a_replica_takes_over_in_the_middle_of_the_work(servers: Servers) {
    a_master_is_replaced(servers, 1).await;
}

pub(crate) async fn a_replica_takes_over_in_a_cluster_in_the_middle_of_the_work(servers: Servers) {
    a_master_is_replaced(servers, 3).await;
}
