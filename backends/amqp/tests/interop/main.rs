//! Native clients and the API on one queue: what one side publishes the other can process, and each message is processed
//! once. The other side is pika, in Python.
#![expect(
    clippy::unwrap_used,
    reason = "a failed step fails its trial, and says so at that line"
)]

mod headers;
mod shared;

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use isimud_amqp::{AmqpBroker, Config};
use isimud_contract::{
    ClaimId, ClientId, Clock, Lease, Message, MessageId, MessageStore, Precondition, ProjectId,
    QueueKey, QueueName, SystemClock,
};
use isimud_lease::{Journal, Leased};
use isimud_sqlite::SqliteStore;
use isimud_testing::rabbitmq::Node;
use isimud_testing::{python, trial};
use libtest_mimic::{Arguments, Trial};
use uuid::Uuid;

static NODE: LazyLock<Result<Node, String>> = LazyLock::new(Node::start);

static TRIALS: AtomicU64 = AtomicU64::new(0);

/// Python with pika. Nothing else is missing where it is, so its absence is a failure.
static PYTHON: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    // Another root has its own, and scripts/other-versions names it.
    if let Some(own) = std::env::var_os("PIKA_PYTHON") {
        return Ok(own.into());
    }
    python("clients")
});

const HOUR: Duration = Duration::from_secs(3600);

/// How long a trial may take.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(240);

type Store = Arc<Leased<AmqpBroker>>;
type Check = fn(Setup) -> std::pin::Pin<Box<dyn Future<Output = ()>>>;

fn main() -> ExitCode {
    isimud_conformance::show_logs();
    let mut trials = Vec::new();
    macro_rules! trials {
        ($($name:ident,)+) => {
            for (kind, journal) in [("classic", Journal::Off), ("quorum", Journal::On)] {
                $(trials.push(trial_on(stringify!($name), kind, journal, |setup| Box::pin($name(setup))));)+
            }
        };
    }
    for kind in ["classic", "quorum"] {
        for journal in [Journal::Off, Journal::On] {
            let name = "what_natives_say_beside_bodies_comes_through_other_stores";
            let check: Check = |setup| {
                Box::pin(headers::what_natives_say_beside_bodies_comes_through_other_stores(setup))
            };
            trials.push(trial_on(name, kind, journal, check));
            let name = "headers_that_rabbitmq_acts_upon_do_nothing";
            let check: Check =
                |setup| Box::pin(headers::headers_that_rabbitmq_acts_upon_do_nothing(setup));
            trials.push(trial_on(name, kind, journal, check));
        }
    }
    trials! {
        what_natives_produce_is_claimed_once_and_in_order,
        what_the_api_posts_is_consumed_by_natives,
        both_sides_at_once_process_twenty_thousand_messages_once,
    }
    macro_rules! on_every_queue {
        ($($name:path,)+) => {
            for kind in ["classic", "quorum"] {
                for journal in [Journal::Off, Journal::On] {
                    $(trials.push(trial_on(stringify!($name), kind, journal, |setup| Box::pin($name(setup))));)+
                }
            }
        };
    }
    on_every_queue! {
        shared::an_id_that_was_deleted_before_does_not_swallow_a_message,
        shared::two_messages_of_one_id_are_both_delivered,
        shared::a_message_that_a_native_gave_back_is_not_taken_for_one_that_was_deleted,
        shared::one_claim_has_its_messages_in_the_order_of_the_queue,
        shared::bodies_that_clients_cannot_read_back_spoil_no_claim,
        shared::returns_lose_nothing_whatever_the_limit_of_the_queue,
        shared::returns_lose_nothing_under_a_policy,
        shared::a_limit_that_is_wanted_stays_in_force,
        shared::a_claim_of_many_holds_keeps_its_message,
        shared::statistics_count_what_natives_post_and_take,
        shared::a_message_that_a_native_holds_is_not_lost_when_it_is_listed_no_more,
    }
    let status = libtest_mimic::run(&Arguments::from_args(), trials);
    // A static is never dropped, and the node is to end.
    if let Some(Ok(node)) = LazyLock::get(&NODE) {
        node.end();
    }
    status.exit_code()
}

fn trial_on(name: &'static str, kind: &'static str, journal: Journal, check: Check) -> Trial {
    let run = move || {
        let node = NODE.as_ref().map_err(Clone::clone);
        trial::run(node, |node| async move {
            PYTHON.as_ref().unwrap();
            let clock = Arc::new(SystemClock);
            let setup = Setup {
                node,
                name: format!("estate.{}", TRIALS.fetch_add(1, Ordering::Relaxed)),
                kind,
                journal,
                ledgers: SqliteStore::open(isimud_sqlite::Config::memory(), clock).unwrap(),
            };
            let ended = tokio::time::timeout(TRIAL_TIMEOUT, check(setup)).await;
            ended.expect("nothing happens any more");
        })
    };
    Trial::ignorable_test(name, run).with_kind(kind)
}

/// A queue of the existing deployment, and a ledger for the servers that adopt it.
struct Setup {
    node: &'static Node,
    name: String,
    kind: &'static str,
    journal: Journal,
    ledgers: Arc<SqliteStore>,
}

impl Setup {
    /// A server.
    fn open(&self) -> Store {
        self.open_with("")
    }

    fn open_with(&self, options: &str) -> Store {
        let uri = format!(
            "{}?adopt=true&name={{queue}}&project=p&timeout_ms=20000{options}",
            self.node.uri()
        );
        let clock = || Arc::new(SystemClock) as Arc<dyn Clock>;
        let broker = AmqpBroker::open(Config::parse(&uri).unwrap(), clock()).unwrap();
        let ledger = self.ledgers.ledger("pool");
        Arc::new(Leased::new(broker, ledger, clock(), self.journal))
    }

    fn queue(&self) -> QueueKey {
        QueueKey::new(
            ProjectId::parse("p").unwrap(),
            QueueName::parse(&self.name).unwrap(),
        )
    }

    fn native(&self, what: &str, arguments: &[&str]) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/natives.py");
        let mut command = Command::new(PYTHON.as_ref().unwrap());
        let port = self.node.port().to_string();
        command
            .arg(script)
            .args([what, &port, &self.name])
            .args(arguments);
        command
    }

    fn declare(&self) {
        assert!(
            self.native("declare", &[self.kind])
                .status()
                .unwrap()
                .success()
        );
    }

    fn produce(&self, first: usize, last: usize, ids: &str) -> Child {
        let (first, last) = (first.to_string(), last.to_string());
        self.native("produce", &[&first, &last, ids])
            .spawn()
            .unwrap()
    }

    fn consume(&self) -> Consumer {
        let mut command = self.native("consume", &[]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (lines, processed) = tokio::sync::mpsc::unbounded_channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        let count = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&count);
        std::thread::spawn(move || {
            for line in output.lines() {
                counter.fetch_add(1, Ordering::Relaxed);
                lines.send(line.unwrap()).ok();
            }
        });
        Consumer {
            child,
            count,
            processed,
        }
    }
}

/// A native consumer, and what it has processed.
struct Consumer {
    child: Child,
    count: Arc<AtomicU64>,
    processed: tokio::sync::mpsc::UnboundedReceiver<String>,
}

impl Consumer {
    /// Has it finish what it began, and tell what it has processed.
    async fn finish(mut self) -> Vec<serde_json::Value> {
        drop(self.child.stdin.take());
        let mut all = Vec::new();
        while let Some(line) = self.processed.recv().await {
            all.push(serde_json::from_str(&line).unwrap());
        }
        assert!(self.child.wait().unwrap().success());
        all
    }
}

fn lease() -> Lease {
    Lease {
        id: ClaimId(Uuid::now_v7()),
        ttl: HOUR / 4,
        grace: Duration::ZERO,
        dead_letter: None,
    }
}

fn message(number: usize) -> Message {
    let client = ClientId::Uuid(Uuid::from_u128(5));
    Message::new(MessageId(Uuid::now_v7()), client, HOUR, number.to_string())
}

fn number(message: &Message) -> usize {
    std::str::from_utf8(&message.body).unwrap().parse().unwrap()
}

/// Claims some messages and deletes them; now and then a worker gives up, and releases them.
async fn work(store: &Store, q: &QueueKey) -> Vec<usize> {
    let lease = lease();
    let Some(claim) = store.claim(q, &lease, 20).await.unwrap() else {
        return Vec::new();
    };
    if fastrand::u8(..) < 8 {
        store.release_claim(q, lease.id).await.unwrap();
        return Vec::new();
    }
    let ids: Vec<MessageId> = claim.messages.iter().map(|it| it.id).collect();
    let deleted = store
        .delete(q, &ids, Precondition::ClaimedBy(vec![lease.id]))
        .await
        .unwrap();
    assert_eq!(deleted, ids.len());
    claim.messages.iter().map(number).collect()
}

async fn what_natives_produce_is_claimed_once_and_in_order(setup: Setup) {
    const COUNT: usize = 2000;
    setup.declare();
    let (store, q) = (setup.open(), setup.queue());
    for (ids, from) in [("uuid", 0), ("none", COUNT)] {
        assert!(
            setup
                .produce(from, from + COUNT, ids)
                .wait()
                .unwrap()
                .success()
        );
        let mut numbers = Vec::new();
        while numbers.len() < COUNT {
            let claim = store.claim(&q, &lease(), 20).await.unwrap().unwrap();
            let ids: Vec<MessageId> = claim.messages.iter().map(|it| it.id).collect();
            let deleted = store
                .delete(&q, &ids, Precondition::ClaimedBy(vec![claim.id]))
                .await
                .unwrap();
            assert_eq!(deleted, ids.len());
            numbers.extend(claim.messages.iter().map(number));
        }
        assert!(
            numbers.into_iter().eq(from..from + COUNT),
            "in order, with ids: {ids}"
        );
    }
    assert_eq!(store.claim(&q, &lease(), 20).await.unwrap(), None);
}

async fn what_the_api_posts_is_consumed_by_natives(setup: Setup) {
    const COUNT: usize = 2000;
    setup.declare();
    let (store, q) = (setup.open(), setup.queue());
    let messages: Vec<Message> = (0..COUNT).map(message).collect();
    for batch in messages.chunks(100) {
        store.post(&q, batch.to_vec()).await.unwrap();
    }
    let consumer = setup.consume();
    while consumer.count.load(Ordering::Relaxed) < COUNT as u64 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let seen = consumer.finish().await;
    assert_eq!(seen.len(), COUNT);
    let now = SystemClock.now().0 / 1000;
    for (seen, message) in seen.iter().zip(&messages) {
        assert_eq!(seen["body"].as_str().unwrap().as_bytes(), message.body);
        assert_eq!(seen["message_id"], message.id.to_string());
        assert_eq!(seen["content_type"], "application/json");
        assert_eq!(seen["expiration"], HOUR.as_millis().to_string());
        assert_eq!(seen["client"], message.client.to_string());
        assert!((now - 300..=now).contains(&seen["timestamp"].as_i64().unwrap()));
    }
    assert_eq!(store.claim(&q, &lease(), 20).await.unwrap(), None);
}

async fn both_sides_at_once_process_twenty_thousand_messages_once(setup: Setup) {
    const EACH: usize = 5_000;
    setup.declare();
    let (stores, q) = ([setup.open(), setup.open()], setup.queue());
    let begun = Instant::now();
    let over = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let consumer = setup.consume();
    let mut natives = [
        setup.produce(0, EACH, "none"),
        setup.produce(EACH, 2 * EACH, "uuid"),
    ];
    let posters = stores.clone().map(|store| {
        let q = q.clone();
        tokio::spawn(async move {
            for batch in 0..EACH / 20 {
                let messages = (0..20).map(|at| message(batch * 20 + at)).collect();
                store.post(&q, messages).await.unwrap();
            }
        })
    });
    let workers: Vec<_> = (0..6)
        .map(|at: usize| {
            let (store, q) = (Arc::clone(&stores[at % 2]), q.clone());
            let (over, done) = (Arc::clone(&over), Arc::clone(&done));
            tokio::spawn(async move {
                let mut all = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let some = work(&store, &q).await;
                    done.fetch_add(some.len() as u64, Ordering::Relaxed);
                    if some.is_empty() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    all.extend(some);
                }
                all
            })
        })
        .collect();
    for poster in posters {
        poster.await.unwrap();
    }
    for native in &mut natives {
        assert!(native.wait().unwrap().success());
    }
    let processed = || done.load(Ordering::Relaxed) + consumer.count.load(Ordering::Relaxed);
    while processed() < 4 * EACH as u64 {
        assert!(
            begun.elapsed() < TRIAL_TIMEOUT,
            "{} are processed",
            processed()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A second processing would come now.
    for _ in 0..20 {
        assert!(work(&stores[0], &q).await.is_empty());
    }
    over.store(true, Ordering::Relaxed);
    let mut times: HashMap<usize, usize> = HashMap::new();
    let mut by_api = 0;
    for worker in workers {
        for number in worker.await.unwrap() {
            by_api += 1;
            *times.entry(number).or_default() += 1;
        }
    }
    let native = consumer.finish().await;
    for seen in &native {
        let number = seen["body"].as_str().unwrap().parse().unwrap();
        *times.entry(number).or_default() += 1;
    }
    // Both posters and both producers count from zero, in two ranges.
    println!(
        "{}: {by_api} by the API and {} by pika, in {:?}",
        setup.kind,
        native.len(),
        begun.elapsed()
    );
    assert_eq!(by_api + native.len(), 4 * EACH);
    let ids: HashSet<&str> = native
        .iter()
        .filter_map(|it| it["message_id"].as_str())
        .collect();
    let with_id = native
        .iter()
        .filter(|it| !it["message_id"].is_null())
        .count();
    assert_eq!(ids.len(), with_id, "no id twice");
    let expected = |number: &usize| if *number < EACH { 3 } else { 1 };
    let wrong: Vec<_> = times
        .iter()
        .filter(|(number, times)| **times != expected(number))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(
        by_api > EACH / 10 && native.len() > EACH / 10,
        "one side did nearly all"
    );
}
