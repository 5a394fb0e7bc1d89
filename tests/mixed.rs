//! A queue that native clients and the API use together, all at work, goes from RabbitMQ to the embedded store, to SQS and
//! back: by moves, and by bridges.
//!
//! Every message is processed exactly once, by a native consumer or by a worker of the API, with the header that its
//! producer gave it; whoever takes from RabbitMQ meets each producer's messages in order, but for a few that came back; each
//! command ends when its source is empty. `MIXED` says how many messages there are (`MIXED=20000`). Where there is no
//! RabbitMQ, or no server that speaks SQS, the tests are left out, unless `REQUIRE_BACKENDS=1` asks for them.

mod natives;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use isimud_testing::rabbitmq::Node;
use isimud_testing::sqs::{Corner, Emulator};
use isimud_testing::started;
use natives::{Found, Native};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::server::{self, Answer, Client, Server};

const PROJECT: &str = "estate";

/// Numbers of one producer: the first is a multiple of this.
const RANGE: u64 = 1_000_000;

/// How many messages may come late. What a call has got and could not keep, as while the queue beside an adopted one is in
/// the making, goes back, and others have met newer ones meanwhile; it is no more than one claim has.
const LATE: usize = 20;

/// How long nothing may happen while messages are missing.
const TIMEOUT: Duration = Duration::from_secs(60);

static NODE: LazyLock<Result<Node, String>> = LazyLock::new(Node::start);

/// How many messages there are in all.
fn total() -> u64 {
    let said = std::env::var("MIXED").ok();
    said.map_or(600, |said| said.parse().expect("MIXED is a number"))
}

/// What became of the numbers.
#[derive(Default)]
struct Oracle {
    produced: AtomicU64,
    processed: Mutex<HashMap<u64, String>>,
    faults: Mutex<Vec<String>>,
    /// What came after something newer.
    late: Mutex<Vec<String>>,
}

impl Oracle {
    fn fault(&self, what: String) {
        self.faults.lock().expect("the faults").push(what);
    }

    /// Notes that somebody has processed a message. `last` has what he met before of each producer, where order is promised.
    fn process(&self, who: &str, found: Found, last: Option<&mut HashMap<u64, u64>>) {
        let (number, beside) = found;
        if beside != Some(number) {
            self.fault(format!("{number} came to {who} with {beside:?} beside it"));
        }
        let before = self
            .processed
            .lock()
            .expect("what is processed")
            .insert(number, who.to_owned());
        if let Some(before) = before {
            self.fault(format!("{number} was processed by {before} and by {who}"));
        }
        if let Some(last) = last
            && let Some(last) = last.insert(number / RANGE, number)
            && last > number
        {
            let late = format!("{number} came to {who} after {last}");
            self.late.lock().expect("the late ones").push(late);
        }
    }

    fn count(&self) -> u64 {
        self.processed.lock().expect("what is processed").len() as u64
    }
}

/// A server with an embedded store, and the queues of a RabbitMQ and of an SQS as pools `rabbit` and `cloud`.
struct Deployment {
    node: &'static Node,
    corner: Corner,
    admin: SocketAddr,
    server: Server,
    folder: TempDir,
    oracle: Oracle,
    producers: AtomicU64,
}

impl Deployment {
    /// `None` where something is not there that it needs, and none is required.
    fn start() -> Option<Self> {
        let found = NODE.as_ref().map_err(Clone::clone);
        let found = found.and_then(|node| Ok((node, Emulator::shared()?)));
        let (node, corner) = started("RabbitMQ or a server that speaks SQS", found)?;
        let folder = tempfile::tempdir().expect("a folder");
        let admin = server::free_address();
        let flags = ["--admin-listen", &admin.to_string()];
        let server = Server::start_with("sqlite:house.db", folder.path(), &flags);
        let deployment = Self {
            node,
            corner,
            admin,
            server,
            folder,
            oracle: Oracle::default(),
            producers: AtomicU64::new(0),
        };
        let mut operator = deployment.client().admin();
        let rabbit = format!(
            "{}?adopt=true&name={{project}}.{{queue}}&timeout_ms=20000",
            deployment.node.uri()
        );
        let name = format!(
            "&name={}-{{queue}}&project={PROJECT}&counts_lag_s=1",
            deployment.corner.login
        );
        let cloud = deployment.corner.uri(deployment.corner.port, &name);
        for (pool, uri) in [("rabbit", rabbit), ("cloud", cloud)] {
            let body = json!({"uri": uri, "weight": 1});
            // On a busy machine a broker may take longer to answer first than the service waits for it.
            let begun = Instant::now();
            let path = format!("/v2/pools/{pool}");
            loop {
                let answer = operator.send("PUT", &path, Some(&body)).expect("an answer");
                if answer.status == 201 {
                    break;
                }
                assert!(begun.elapsed() < TIMEOUT, "PUT {path}: {answer}");
                thread::sleep(Duration::from_millis(200));
            }
            let body = json!({"pool_list": [pool]});
            expect(
                &mut operator,
                "PUT",
                &format!("/v2/flavors/{pool}"),
                Some(&body),
                201,
            );
        }
        Some(deployment)
    }

    fn client(&self) -> Client {
        Client::new(self.server.address, PROJECT)
    }

    fn in_rabbit(&self, queue: &str) -> Native {
        Native::Rabbit {
            uri: self.node.uri(),
            name: format!("{PROJECT}.{queue}"),
        }
    }

    fn in_cloud(&self, queue: &str) -> Native {
        Native::Sqs {
            corner: self.corner.clone(),
            name: format!("{}-{queue}", self.corner.login),
        }
    }

    /// Starts a command of the operator's and waits until it has ended.
    fn run(&self, arguments: &[&str]) -> String {
        let mut command = server::isimud();
        command.args(arguments);
        command.args(["--admin", &self.admin.to_string()]);
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the command can be run");
        let (mut last, mut since) = (self.oracle.count(), Instant::now());
        while child.try_wait().expect("a child").is_none() {
            let count = self.oracle.count();
            if count != last {
                (last, since) = (count, Instant::now());
            }
            if since.elapsed() > 3 * TIMEOUT {
                child.kill().expect("it can be killed");
                let log = server::log_in(self.folder.path());
                panic!(
                    "{arguments:?} does not end:\n{}",
                    server::last_lines(&log, 20)
                );
            }
            thread::sleep(Duration::from_millis(20));
        }
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
        said + &String::from_utf8_lossy(&output.stdout)
    }

    /// The next numbers, for a producer of its own.
    fn numbers(&self, count: u64) -> u64 {
        self.oracle.produced.fetch_add(count, Ordering::Relaxed);
        RANGE * self.producers.fetch_add(1, Ordering::Relaxed)
    }

    /// Posts numbers through the API, in order, ten at a time.
    fn post(&self, queue: &str, first: u64, count: u64, pause: Duration) {
        let mut client = self.client();
        let path = format!("/v2/queues/{queue}/messages");
        let message =
            |number: u64| json!({"ttl": 36_000, "body": number, "headers": {"number": number}});
        let numbers: Vec<u64> = (first..first + count).collect();
        for numbers in numbers.chunks(10) {
            let messages: Vec<Value> = numbers.iter().copied().map(message).collect();
            let body = json!({"messages": messages});
            expect(&mut client, "POST", &path, Some(&body), 201);
            thread::sleep(pause);
        }
    }

    /// Claims and deletes up to so many messages through the API, until it is `over`.
    fn work(&self, queue: &str, limit: u64, pause: Duration, over: &AtomicBool, in_order: bool) {
        let mut client = self.client();
        let (mut taken, mut last) = (0, HashMap::new());
        while taken < limit && !over.load(Ordering::Relaxed) {
            let path = format!(
                "/v2/queues/{queue}/claims?limit={}&headers=true",
                20.min(limit - taken)
            );
            let terms = json!({"ttl": 3600, "grace": 60});
            let answer = client.send("POST", &path, Some(&terms)).expect("an answer");
            match answer.status {
                201 => {}
                204 => {
                    thread::sleep(Duration::from_millis(20));
                    continue;
                }
                _ => {
                    self.oracle.fault(format!("a claim of {queue}: {answer}"));
                    thread::sleep(Duration::from_millis(200));
                    continue;
                }
            }
            let claim = answer.json();
            for message in claim["messages"].as_array().expect("messages") {
                let number = message["body"].as_u64().expect("a number");
                let found = (number, message["headers"]["number"].as_u64());
                let href = message["href"].as_str().expect("a path");
                expect(&mut client, "DELETE", href, None, 204);
                self.oracle
                    .process("a worker", found, in_order.then_some(&mut last));
                taken += 1;
            }
            thread::sleep(pause);
        }
    }

    /// Has a queue used from all sides while a command carries its messages away: `share` messages are produced, half of
    /// them before it begins, and half of them are processed.
    fn leg(&self, leg: &Leg<'_>, share: u64, carry: impl Fn() -> String) {
        let sources: Vec<Option<&Native>> = match &leg.from {
            Some(native) => vec![None, Some(native)],
            // Only the API knows the embedded store; its natives are at the other end.
            None => vec![None, None],
        };
        let part = share / 4;
        let produce = |source: Option<&Native>, first, pause| match source {
            Some(native) => native.produce(first, part, pause),
            None => self.post(leg.source, first, part, pause),
        };
        let firsts: Vec<u64> = sources.iter().map(|_| self.numbers(2 * part)).collect();
        thread::scope(|scope| {
            for (source, first) in sources.iter().zip(&firsts) {
                scope.spawn(move || produce(*source, *first, Duration::ZERO));
            }
        });
        let begun = Instant::now();
        let (over, producing) = (AtomicBool::new(false), AtomicU64::new(sources.len() as u64));
        let said = thread::scope(|scope| {
            // Whatever fails, the others must end.
            let ends = Ends(&over);
            let (pause, over, producing) = (Duration::from_millis(20), &over, &producing);
            for (source, first) in sources.iter().zip(&firsts) {
                scope.spawn(move || {
                    produce(*source, *first + part, pause);
                    producing.fetch_sub(1, Ordering::Relaxed);
                });
            }
            // SQS keeps no order, so there is none in what comes from there.
            let in_order = matches!(leg.from, Some(Native::Rabbit { .. }));
            let each = share / 6;
            for queue in &leg.queues {
                let each = each / leg.queues.len() as u64;
                scope.spawn(move || self.work(queue, each, pause, over, in_order));
            }
            for native in [&leg.from, &leg.to].into_iter().flatten() {
                scope.spawn(move || self.consume(native, each, pause, over, in_order));
            }
            let mut said = carry();
            while producing.load(Ordering::Relaxed) > 0 {
                thread::sleep(Duration::from_millis(20));
            }
            if leg.again {
                said += &carry();
            }
            drop(ends);
            said
        });
        if let Some(native) = &leg.from {
            let mut left = Vec::new();
            let over = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    thread::sleep(Duration::from_millis(500));
                    over.store(true, Ordering::Relaxed);
                });
                native.consume(u64::MAX >> 1, Duration::ZERO, &over, |found| {
                    left.push(found)
                });
            });
            assert!(
                left.is_empty(),
                "{} was not empty: {left:?}\n{said}",
                leg.source
            );
        }
        println!(
            "{}: {} of {} are processed, after {:.1} s: {}",
            leg.name,
            self.oracle.count(),
            self.oracle.produced.load(Ordering::Relaxed),
            begun.elapsed().as_secs_f64(),
            said.trim().rsplit(['\r', '\n']).next().unwrap_or_default(),
        );
        self.check();
    }

    fn consume(
        &self,
        native: &Native,
        limit: u64,
        pause: Duration,
        over: &AtomicBool,
        in_order: bool,
    ) {
        let mut last = HashMap::new();
        let who = match native {
            Native::Rabbit { .. } => "a native of RabbitMQ",
            Native::Sqs { .. } => "a native of SQS",
        };
        native.consume(limit, pause, over, |found| {
            self.oracle
                .process(who, found, in_order.then_some(&mut last));
        });
    }

    /// Everything that is left is processed, by natives and by a worker.
    fn finish(&self, queue: &str, native: &Native) {
        let over = AtomicBool::new(false);
        let produced = self.oracle.produced.load(Ordering::Relaxed);
        thread::scope(|scope| {
            let _ends = Ends(&over);
            let (most, pause, over) = (u64::MAX >> 1, Duration::ZERO, &over);
            scope.spawn(move || self.work(queue, most, pause, over, false));
            scope.spawn(move || self.consume(native, most, pause, over, false));
            let (mut last, mut since) = (self.oracle.count(), Instant::now());
            while last < produced && since.elapsed() < TIMEOUT {
                thread::sleep(Duration::from_millis(50));
                let count = self.oracle.count();
                if count != last {
                    (last, since) = (count, Instant::now());
                }
            }
            // Whatever comes twice comes now.
            thread::sleep(Duration::from_secs(1));
        });
        self.check();
        assert_eq!(self.oracle.count(), produced, "lost\n{}", self.log());
        let stats = format!("/v2/queues/{queue}/stats");
        let stats = expect(&mut self.client(), "GET", &stats, None, 200).json();
        assert_eq!(stats["messages"]["total"], 0, "{stats}");
        let by = self.oracle.processed.lock().expect("what is processed");
        let mut shares: HashMap<&str, u64> = HashMap::new();
        for who in by.values() {
            *shares.entry(who).or_default() += 1;
        }
        let late = self.oracle.late.lock().expect("the late ones").len();
        println!("{produced} messages, each processed once, {late} of them late: {shares:?}");
    }

    fn check(&self) {
        let faults = self.oracle.faults.lock().expect("the faults");
        let late = self.oracle.late.lock().expect("the late ones");
        assert!(late.len() <= LATE, "{late:#?}\n{}", self.log());
        let some: Vec<&String> = faults.iter().take(20).collect();
        assert!(
            faults.is_empty(),
            "{} faults: {some:#?}\n{}",
            faults.len(),
            self.log()
        );
    }

    fn log(&self) -> String {
        server::last_lines(&server::log_in(self.folder.path()), 30)
    }
}

/// A way of a queue from one store to another.
struct Leg<'a> {
    name: &'a str,
    /// The queue that the API's producer posts to.
    source: &'a str,
    /// The queues that workers of the API claim from.
    queues: Vec<&'a str>,
    /// The queue of natives that is left, where it has any.
    from: Option<Native>,
    /// The queue of natives that is gone to, where it has any.
    to: Option<Native>,
    /// Whether the command ends when the queue happens to be empty, and has to be run again when all is produced.
    again: bool,
}

/// Ends the others.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn expect(
    client: &mut Client,
    method: &str,
    path: &str,
    body: Option<&Value>,
    status: u16,
) -> Answer {
    let answer = client.send(method, path, body);
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, status, "{method} {path}: {answer}");
    answer
}

#[test]
fn a_mixed_queue_moves_from_rabbitmq_to_the_embedded_store_to_sqs_and_back() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let (rabbit, cloud) = (deployment.in_rabbit("mixed"), deployment.in_cloud("mixed"));
    rabbit.make("quorum");
    cloud.make("");
    let body = json!({"_flavor": "rabbit"});
    expect(
        &mut deployment.client(),
        "PUT",
        "/v2/queues/mixed",
        Some(&body),
        201,
    );
    let share = total() / 3;
    for (from, pool, to) in [
        (Some(rabbit.clone()), "default", None),
        (None, "cloud", Some(cloud.clone())),
        (Some(cloud), "rabbit", Some(rabbit.clone())),
    ] {
        let leg = Leg {
            name: &format!("to {pool}"),
            source: "mixed",
            queues: vec!["mixed"],
            from,
            to,
            again: false,
        };
        let arguments = [
            "queues",
            "move",
            "--project",
            PROJECT,
            "--queue",
            "mixed",
            "--to",
            pool,
        ];
        deployment.leg(&leg, share, || deployment.run(&arguments));
    }
    deployment.finish("mixed", &rabbit);
}

#[test]
fn a_mixed_queue_crosses_bridges_from_rabbitmq_to_the_embedded_store_to_sqs_and_back() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let (rabbit, cloud) = (
        deployment.in_rabbit("bridged"),
        deployment.in_cloud("in-sqs"),
    );
    let back = deployment.in_rabbit("back");
    rabbit.make("classic");
    back.make("quorum");
    cloud.make("");
    for (queue, flavor) in [
        ("bridged", "rabbit"),
        ("in-sqs", "cloud"),
        ("back", "rabbit"),
    ] {
        let body = json!({"_flavor": flavor});
        expect(
            &mut deployment.client(),
            "PUT",
            &format!("/v2/queues/{queue}"),
            Some(&body),
            201,
        );
    }
    expect(
        &mut deployment.client(),
        "PUT",
        "/v2/queues/embedded",
        None,
        201,
    );
    let share = total() / 3;
    for (source, from, target, to) in [
        ("bridged", Some(rabbit), "embedded", None),
        ("embedded", None, "in-sqs", Some(cloud.clone())),
        ("in-sqs", Some(cloud), "back", Some(back.clone())),
    ] {
        let leg = Leg {
            name: &format!("{source} to {target}"),
            source,
            queues: vec![source, target],
            from,
            to,
            again: true,
        };
        let [from, to] = [source, target].map(|queue| format!("{PROJECT}/{queue}"));
        let arguments = ["bridge", "--from", &from, "--to", &to];
        deployment.leg(&leg, share, || deployment.run(&arguments));
    }
    deployment.finish("back", &back);
}
