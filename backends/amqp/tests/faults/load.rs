//! Servers under load, and what their clients were told.
//!
//! On a classic and on a quorum queue, two servers with one ledger each: clients post, claim, renew, release and delete
//! without a pause, through both, while a trial harms the node. Whatever a call leaves open (it failed, so it may have
//! had its effect or not) is left open in favour of the store. The rest is demanded: every call ends in time; one that
//! fails is `Unavailable`; what was acknowledged is processed; nothing comes back after a delete; no message is in two
//! live claims.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use isimud_amqp::{AmqpBroker, Config};
use isimud_contract::{
    Claim, ClaimId, Clock, ErrorKind, Lease, Message, MessageId, MessageStore, Precondition,
    QueueKey, Result, SystemClock,
};
use isimud_lease::{Journal, Leased};
use isimud_sqlite::SqliteStore;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::{MINUTE, SLACK, Setup, TIMEOUT, message, queue};

const KINDS: [&str; 2] = ["classic", "quorum"];

/// Of each, for each kind of queue.
const POSTERS: usize = 3;
const WORKERS: usize = 3;

/// How long claims live. Some are abandoned.
const TTL: Duration = Duration::from_secs(8);

/// Messages of one claim, at the most.
const LIMIT: usize = 10;

/// How long a call may take, whatever becomes of the node.
const CALL_TIMEOUT: Duration = TIMEOUT.saturating_add(SLACK);

/// Between two tries.
const RETRY_DELAY: Duration = Duration::from_millis(10);

type Store = Leased<AmqpBroker>;

/// Two servers, and the queue that they share.
type Pair = ([Arc<Store>; 2], QueueKey);

/// Everybody at work.
pub(crate) struct Load {
    pairs: Vec<Pair>,
    told: Arc<Told>,
    clients: Vec<Arc<Client>>,
    posting: Vec<JoinHandle<()>>,
    working: Vec<JoinHandle<()>>,
}

/// Somebody who makes one call after another.
#[derive(Debug)]
struct Client {
    name: String,
    stores: [Arc<Store>; 2],
    queue: QueueKey,
    told: Arc<Told>,
    /// Calls to the node that came to something.
    served: AtomicUsize,
    refused: AtomicUsize,
    /// Why it was refused last.
    why: Mutex<String>,
}

/// What all clients were told.
#[derive(Debug, Default)]
struct Told {
    facts: Mutex<Facts>,
    posted_enough: AtomicBool,
    all_done: AtomicBool,
}

#[derive(Debug, Default)]
struct Facts {
    acknowledged: HashSet<MessageId>,
    /// When a delete was answered.
    deleted: HashMap<MessageId, Instant>,
    /// The claim that surely holds a message, and until when.
    held: HashMap<MessageId, (ClaimId, Instant)>,
    slowest: Duration,
}

impl Load {
    pub(crate) async fn start(setup: &Setup) -> Self {
        let told = Arc::<Told>::default();
        let (mut pairs, mut clients) = (Vec::new(), Vec::new());
        let (mut posting, mut working) = (Vec::new(), Vec::new());
        for kind in KINDS {
            let (stores, queue) = pair(setup, kind);
            for number in 0..POSTERS + WORKERS {
                let posts = number < POSTERS;
                let role = if posts { "poster" } else { "worker" };
                let mut stores = stores.clone();
                stores.rotate_left(number % 2);
                let client = Arc::new(Client {
                    name: format!("{kind} {role} {number}"),
                    stores,
                    queue: queue.clone(),
                    told: Arc::clone(&told),
                    served: AtomicUsize::new(0),
                    refused: AtomicUsize::new(0),
                    why: Mutex::default(),
                });
                clients.push(Arc::clone(&client));
                if posts {
                    posting.push(tokio::spawn(async move { client.post().await }));
                } else {
                    working.push(tokio::spawn(async move { client.work().await }));
                }
            }
            pairs.push((stores, queue));
        }
        let load = Self {
            pairs,
            told,
            clients,
            posting,
            working,
        };
        load.goes_on().await;
        // RabbitMQ 3.10 writes down every half a second which quorum queues a node has, and loses a younger one in a
        // crash.
        tokio::time::sleep(Duration::from_secs(2)).await;
        load
    }

    /// Waits until every client has got on.
    pub(crate) async fn goes_on(&self) {
        self.each_counts(|client| &client.served, 3, "gets on")
            .await;
    }

    /// Waits until every client was refused something.
    pub(crate) async fn is_refused(&self) {
        self.each_counts(|client| &client.refused, 1, "is refused")
            .await;
    }

    async fn each_counts(&self, count: fn(&Client) -> &AtomicUsize, more: usize, what: &str) {
        let counted = |client: &Arc<Client>| count(client).load(Ordering::Relaxed);
        let before: Vec<usize> = self.clients.iter().map(counted).collect();
        let begun = Instant::now();
        loop {
            let each = self.clients.iter().zip(&before);
            let mut waiting = each.filter(|(client, before)| counted(client) < **before + more);
            let Some((client, _)) = waiting.next() else {
                return;
            };
            if begun.elapsed() > MINUTE {
                let why = |client: &Arc<Client>| client.why.lock().unwrap().clone();
                let all = self.clients.iter();
                let all: Vec<_> = all
                    .map(|client| (&client.name, counted(client), why(client)))
                    .collect();
                panic!("{} never {what}: {all:#?}", client.name);
            }
            self.assert_well();
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    /// Whoever has found a fault has ended.
    fn assert_well(&self) {
        let mut tasks = self.posting.iter().chain(&self.working);
        assert!(!tasks.any(JoinHandle::is_finished), "a client gave up");
    }

    /// Has the rest processed. Nothing is left then, and nothing was lost.
    pub(crate) async fn end(mut self) {
        self.told.posted_enough.store(true, Ordering::Relaxed);
        for task in std::mem::take(&mut self.posting) {
            task.await.unwrap();
        }
        let (begun, mut why) = (Instant::now(), String::new());
        loop {
            let mut left = self.told.facts().left();
            for (stores, queue) in &self.pairs {
                // Its clients are still at work, so it may be refused as they are.
                left += match stores[0].stats(queue).await {
                    Ok(stats) => usize::try_from(stats.free + stats.claimed).unwrap(),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
                        why = format!("{queue:?}: {error:?}");
                        1
                    }
                };
            }
            if left == 0 {
                break;
            }
            assert!(begun.elapsed() < 2 * MINUTE, "{left} never came. {why}");
            self.assert_well();
            tokio::time::sleep(RETRY_DELAY).await;
        }
        self.told.all_done.store(true, Ordering::Relaxed);
        for task in std::mem::take(&mut self.working) {
            task.await.unwrap();
        }
        for (stores, queue) in &self.pairs {
            for store in stores {
                match store.claim(queue, &lease(), LIMIT).await {
                    Ok(claim) => assert_eq!(claim, None),
                    // RabbitMQ 3.10 may leave a queue dead that it was making when it was killed, and whoever finds
                    // nothing in the others is told so.
                    Err(error) => assert!(format!("{error:?}").contains("~adopted"), "{error:?}"),
                }
                store.close().await.unwrap();
            }
        }
        let facts = self.told.facts();
        let refused = self.clients.iter().map(|client| &client.refused);
        let refused: usize = refused.map(|count| count.load(Ordering::Relaxed)).sum();
        println!(
            "{} messages acknowledged, all processed once; {refused} calls refused, the slowest call took {:?}",
            facts.acknowledged.len(),
            facts.slowest
        );
        assert!(facts.acknowledged.len() > 100, "too little happened");
    }
}

fn pair(setup: &Setup, kind: &str) -> Pair {
    let clock = || Arc::new(SystemClock) as Arc<dyn Clock>;
    let beside = SqliteStore::open(isimud_sqlite::Config::memory(), clock()).unwrap();
    let options = format!("&queue_type={kind}");
    let store = || {
        let config = Config::parse(&setup.uri(setup.node.port(), &options)).unwrap();
        let broker = AmqpBroker::open(config, clock()).unwrap();
        let ledger = beside.ledger("pool");
        Arc::new(Leased::new(broker, ledger, clock(), Journal::On))
    };
    ([store(), store()], queue(kind))
}

fn lease() -> Lease {
    Lease {
        id: ClaimId(Uuid::now_v7()),
        ttl: TTL,
        grace: Duration::ZERO,
        dead_letter: None,
    }
}

impl Client {
    /// Posts, and posts again what was refused: by their ids the copies are one message.
    async fn post(&self) {
        while !self.told.posted_enough.load(Ordering::Relaxed) {
            let batch: Vec<Message> = (0..fastrand::usize(1..=3)).map(|_| message("{}")).collect();
            loop {
                let post = self.stores[0].post(&self.queue, batch.clone());
                if self.call("a post", post).await.is_some() {
                    break;
                }
                tokio::time::sleep(RETRY_DELAY).await;
            }
            self.served.fetch_add(1, Ordering::Relaxed);
            let ids = batch.iter().map(|message| message.id);
            self.told.facts().acknowledged.extend(ids);
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    async fn work(&self) {
        while !self.told.all_done.load(Ordering::Relaxed) {
            let (lease, began) = (lease(), Instant::now());
            let claim = self.stores[0].claim(&self.queue, &lease, LIMIT);
            let Some(Some(claim)) = self.call("a claim", claim).await else {
                tokio::time::sleep(RETRY_DELAY).await;
                continue;
            };
            self.told.facts().claimed(&claim, began);
            self.served.fetch_add(1, Ordering::Relaxed);
            self.process(claim, &lease).await;
        }
    }

    /// Does with a claim what clients do, through either server.
    async fn process(&self, claim: Claim, lease: &Lease) {
        let store = &self.stores[fastrand::usize(0..2)];
        let mut ids: Vec<MessageId> = claim.messages.iter().map(|message| message.id).collect();
        let choice = fastrand::u8(0..20);
        match choice {
            0 => return,
            1..=4 => {
                let began = Instant::now();
                let renew = store.renew_claim(&self.queue, lease);
                if self.call("a renewal", renew).await.is_some() {
                    self.told.facts().renewed(&ids, claim.id, began);
                }
            }
            5..=8 => ids.truncate(ids.len() / 2),
            _ => {}
        }
        let precondition = Precondition::ClaimedBy(vec![claim.id]);
        let delete = store.delete(&self.queue, &ids, precondition);
        if let Some(count) = self.call("a delete", delete).await {
            assert_eq!(count, ids.len(), "a claim has lost messages");
            self.told.facts().deleted(&ids);
        }
        if choice >= 5 {
            self.told.facts().released(claim.id);
            let release = store.release_claim(&self.queue, claim.id);
            self.call("a release", release).await;
        }
    }

    /// Makes a call, which ends in time, and well or with `Unavailable`.
    async fn call<T>(&self, what: &str, call: impl Future<Output = Result<T>>) -> Option<T> {
        let begun = Instant::now();
        let answer = call.await;
        let took = begun.elapsed();
        let name = &self.name;
        assert!(took < CALL_TIMEOUT, "{name}: {what} took {took:?}");
        let mut facts = self.told.facts();
        facts.slowest = facts.slowest.max(took);
        drop(facts);
        match answer {
            Ok(answer) => Some(answer),
            Err(error) => {
                let kind = error.kind();
                assert_eq!(kind, ErrorKind::Unavailable, "{name}: {what}: {error:?}");
                self.refused.fetch_add(1, Ordering::Relaxed);
                *self.why.lock().unwrap() = format!("{what}: {error:?}");
                None
            }
        }
    }
}

impl Told {
    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Facts {
    /// Acknowledged messages that nobody has processed.
    fn left(&self) -> usize {
        let left = self.acknowledged.iter();
        left.filter(|id| !self.deleted.contains_key(*id)).count()
    }

    /// A claim was answered that was asked for at `began`.
    fn claimed(&mut self, claim: &Claim, began: Instant) {
        let (now, until) = (Instant::now(), began + TTL);
        for message in &claim.messages {
            let id = message.id;
            let gone = self.deleted.get(&id).is_some_and(|gone| *gone < began);
            assert!(!gone, "{id} came back after it was deleted");
            if let Some((other, end)) = self.held.insert(id, (claim.id, until)) {
                let both = now < end && now < until;
                assert!(!both, "{id} is in the claims {other} and {}", claim.id);
            }
        }
    }

    fn renewed(&mut self, ids: &[MessageId], claim: ClaimId, began: Instant) {
        for id in ids {
            if let Some((holder, until)) = self.held.get_mut(id)
                && *holder == claim
            {
                *until = began + TTL;
            }
        }
    }

    /// Something begins that ends a claim.
    fn released(&mut self, claim: ClaimId) {
        self.held.retain(|_, (holder, _)| *holder != claim);
    }

    fn deleted(&mut self, ids: &[MessageId]) {
        let now = Instant::now();
        self.deleted.extend(ids.iter().map(|id| (*id, now)));
    }
}
