//! A queue moves from store to store while it is in use, and nobody notices.
//!
//! A producer and four workers go on while an operator moves the queue between the embedded store and a Redis pool five
//! times; in the middle the server is killed (`SIGKILL`) and started again. What was acknowledged is delivered; what was
//! deleted never comes back; a message is in one live claim at a time; each worker meets the producer's messages in
//! order. A pool is emptied into another. Where there is no `redis-server` the test is left out, unless `REQUIRE_BACKENDS=1` asks for it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use isimud_testing::redis::Servers;
use isimud_testing::started;
use serde_json::{Value, json};

use crate::support::server::{self, Client, Server};

const QUEUE: &str = "/v2/queues/moving";
const PROJECT: &str = "estate";
const WORKERS: usize = 4;
/// What claims ask for: the shortest that the API allows.
const CLAIM: Duration = Duration::from_secs(60);
/// How many messages a claim has at the most.
const LIMIT: usize = 5;
/// How long workers may go on once nothing is posted any more: a claim whose answer was lost has to end.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Where the server is now.
struct Service {
    address: Mutex<SocketAddr>,
}

impl Service {
    fn client(&self) -> Client {
        Client::new(*self.address.lock().expect("the address"), PROJECT)
    }
}

/// What became of each number.
#[derive(Default)]
struct Oracle {
    acknowledged: Mutex<Vec<u64>>,
    fates: Mutex<HashMap<u64, Fate>>,
    faults: Mutex<Vec<String>>,
    /// What came after something newer.
    late: Mutex<Vec<String>>,
    /// Claims without an answer: what they hold comes late.
    lost_claims: AtomicUsize,
}

#[derive(Clone, Copy)]
enum Fate {
    /// Delivered then, in a claim that runs for [`CLAIM`] at least.
    Held(Instant),
    /// Its delete was sent, and the answer did not come.
    Asked,
    /// Its delete was acknowledged.
    Deleted,
}

impl Oracle {
    fn fault(&self, what: String) {
        self.faults.lock().expect("the faults").push(what);
    }

    /// Returns whether it is met for the first time.
    fn deliver(&self, number: u64, asked: Instant) -> bool {
        let mut fates = self.fates.lock().expect("the fates");
        let before = fates.insert(number, Fate::Held(asked));
        match before {
            None => return true,
            Some(Fate::Deleted) => self.fault(format!("{number} came back after its delete")),
            Some(Fate::Held(since)) if since.elapsed() < CLAIM => {
                self.fault(format!("{number} is in two live claims"));
            }
            Some(Fate::Held(_) | Fate::Asked) => {}
        }
        false
    }

    fn note(&self, number: u64, fate: Fate) {
        self.fates.lock().expect("the fates").insert(number, fate);
    }

    fn missing(&self) -> Vec<u64> {
        let fates = self.fates.lock().expect("the fates");
        let acknowledged = self.acknowledged.lock().expect("the acknowledged");
        let is_missing =
            |number: &&u64| !matches!(fates.get(number), Some(Fate::Deleted | Fate::Asked));
        acknowledged.iter().filter(is_missing).copied().collect()
    }
}

/// Posts numbers in order, a few at a time. A post without an answer is not repeated: its numbers may be there.
fn produce(service: &Service, oracle: &Oracle, stop: &AtomicBool, next: &AtomicU64) {
    let mut client = service.client();
    while !stop.load(Ordering::Relaxed) {
        let first = next.fetch_add(3, Ordering::Relaxed);
        let numbers: Vec<u64> = (first..first + 3).collect();
        let message = |number: &u64| json!({"ttl": 3600, "body": {"number": number}});
        let messages: Vec<Value> = numbers.iter().map(message).collect();
        let path = format!("{QUEUE}/messages");
        match client.send("POST", &path, Some(&json!({"messages": messages}))) {
            Ok(answer) if answer.status == 201 => {
                oracle
                    .acknowledged
                    .lock()
                    .expect("the acknowledged")
                    .extend(numbers);
            }
            Ok(answer) if answer.status == 503 => thread::sleep(Duration::from_millis(20)),
            Ok(answer) => oracle.fault(format!("a post: {answer}")),
            Err(_) => {
                thread::sleep(Duration::from_millis(20));
                client = service.client();
            }
        }
        thread::sleep(Duration::from_millis(3));
    }
}

fn work(service: &Service, oracle: &Oracle, over: &AtomicBool) {
    let mut client = service.client();
    let mut last = None;
    while !over.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let terms = json!({"ttl": CLAIM.as_secs(), "grace": 60});
        let answer = match client.send(
            "POST",
            &format!("{QUEUE}/claims?limit={LIMIT}"),
            Some(&terms),
        ) {
            Ok(answer) if answer.status == 201 => answer,
            Ok(answer) if matches!(answer.status, 204 | 503) => {
                thread::sleep(Duration::from_millis(5));
                continue;
            }
            Ok(answer) => {
                oracle.fault(format!("a claim: {answer}"));
                continue;
            }
            Err(_) => {
                oracle.lost_claims.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(20));
                client = service.client();
                continue;
            }
        };
        let document = answer.json();
        for message in document["messages"].as_array().into_iter().flatten() {
            let number = message["body"]["number"].as_u64().expect("a number");
            if oracle.deliver(number, asked) {
                if last.is_some_and(|last| number < last) {
                    let late = format!("{number} came after {last:?}");
                    oracle.late.lock().expect("the late ones").push(late);
                }
                last = Some(number);
            }
            let href = message["href"].as_str().expect("a path");
            oracle.note(number, Fate::Asked);
            match client.send("DELETE", href, None) {
                Ok(answer) if answer.status == 204 => oracle.note(number, Fate::Deleted),
                Ok(answer) if answer.status == 503 => {}
                Ok(answer) => oracle.fault(format!("a delete of {number}: {answer}")),
                Err(_) => client = service.client(),
            }
        }
    }
}

/// The operator's command; `None` while it is not to be waited for.
fn move_to(pool: &str, admin: SocketAddr, waits: bool) {
    let mut command = server::isimud();
    let admin = admin.to_string();
    command.args(["queues", "move", "--project", PROJECT, "--queue", "moving"]);
    command.args(["--to", pool, "--admin", &admin]);
    if !waits {
        command.arg("--no-wait");
    }
    let output = command.output().expect("the command can be run");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "the queue does not move to {pool}: {said}"
    );
}

fn start(folder: &Path, admin: SocketAddr) -> Server {
    let admin = admin.to_string();
    Server::start_with("sqlite:house.db", folder, &["--admin-listen", &admin])
}

#[test]
fn a_queue_moves_five_times_under_load_and_a_kill() {
    let Some(redis) = started("Redis", Servers::single()) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let admin = server::free_address();
    let first = start(folder.path(), admin);
    let service = Service {
        address: Mutex::new(first.address),
    };
    let mut running = Some(first);
    let pool = json!({"uri": redis.uri("estate:"), "weight": 0});
    let made = service
        .client()
        .admin()
        .send("PUT", "/v2/pools/fast", Some(&pool));
    let made = made.expect("an answer");
    assert_eq!(made.status, 201, "the pool: {made}");
    let made = service
        .client()
        .send("PUT", QUEUE, None)
        .expect("an answer");
    assert_eq!(made.status, 201, "the queue: {made}");

    let (oracle, next) = (Oracle::default(), AtomicU64::new(0));
    let (stop, over) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        // Whatever fails below, the others must end.
        let _ends = Ends(&stop, &over);
        scope.spawn(|| produce(&service, &oracle, &stop, &next));
        for _ in 0..WORKERS {
            scope.spawn(|| work(&service, &oracle, &over));
        }
        for (at, pool) in ["fast", "default", "fast", "default", "fast"]
            .into_iter()
            .enumerate()
        {
            if at == 2 {
                move_to(pool, admin, false);
                running.take().expect("it runs").kill();
                let again = start(folder.path(), admin);
                *service.address.lock().expect("the address") = again.address;
                running = Some(again);
            }
            move_to(pool, admin, true);
        }
        stop.store(true, Ordering::Relaxed);
        let since = Instant::now();
        while !oracle.missing().is_empty() && since.elapsed() < TIMEOUT {
            thread::sleep(Duration::from_millis(100));
        }
        over.store(true, Ordering::Relaxed);
    });
    let log = server::log_in(folder.path());
    let log = server::last_lines(&log, 30);
    let faults = oracle.faults.lock().expect("the faults");
    assert!(faults.is_empty(), "{faults:#?}\n{log}");
    let (late, lost) = (
        oracle.late.lock().expect("the late ones"),
        &oracle.lost_claims,
    );
    let allowed = LIMIT * lost.load(Ordering::Relaxed);
    assert!(
        late.len() <= allowed,
        "{late:#?}, and {allowed} were in lost claims\n{log}"
    );
    assert_eq!(oracle.missing(), [0; 0], "lost\n{log}");
    let count = oracle.acknowledged.lock().expect("the acknowledged").len();
    println!("{count} messages over five moves and a kill");
    assert!(count > 1_000, "{count} messages prove little");
    drop(running);
}

/// Ends the others.
struct Ends<'a>(&'a AtomicBool, &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_drain_that_cannot_be_done_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let admin = server::free_address();
    let running = start(folder.path(), admin);
    let mut client = Client::new(running.address, PROJECT).admin();
    let mut expect = |method: &str, path: &str, body: Option<Value>, status: u16| {
        let answer = client.send(method, path, body.as_ref()).expect("an answer");
        assert_eq!(answer.status, status, "{method} {path}: {answer}");
        answer.json()
    };
    let pool = json!({"uri": "sqlite:old.db", "weight": 7});
    expect("PUT", "/v2/pools/old", Some(pool), 201);
    let flavor = json!({"pool_list": ["old"]});
    expect("PUT", "/v2/flavors/alone", Some(flavor), 201);
    expect(
        "PUT",
        "/v2/queues/q",
        Some(json!({"_flavor": "alone"})),
        201,
    );
    for (more, sentence) in [
        (&["old"][..], "No other store takes the queue estate/q"),
        (&["old", "--to", "nowhere"], "Pool nowhere does not exist"),
        (&["old", "--to", "old"], "cannot be emptied into itself"),
        (&["nobodys"], "Pool nobodys does not exist"),
    ] {
        let mut command = server::isimud();
        command.args(["pools", "drain", "--admin", &admin.to_string()]);
        let output = command.args(more).output().expect("the command can be run");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{more:?}: {said}");
        assert!(said.contains(sentence), "{more:?}: {said}");
        let old = expect("GET", "/v2/pools/old", None, 200);
        assert_eq!(old["weight"], 7, "{more:?}");
    }
    let other = json!({"uri": "sqlite:new.db", "weight": 1});
    expect("PUT", "/v2/pools/new", Some(other), 201);
    let flavor = json!({"pool_list": ["old", "new"]});
    expect("PATCH", "/v2/flavors/alone", Some(flavor), 200);
    let mut command = server::isimud();
    command.args(["pools", "drain", "--admin", &admin.to_string(), "old"]);
    let output = command.output().expect("the command can be run");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(expect("GET", "/v2/pools/old", None, 200)["weight"], 0);
}

#[test]
fn a_pool_is_emptied_and_can_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let admin = server::free_address();
    let running = start(folder.path(), admin);
    let mut client = Client::new(running.address, PROJECT).admin();
    let mut expect = |method: &str, path: &str, body: Option<Value>, status: u16| {
        let answer = client.send(method, path, body.as_ref()).expect("an answer");
        assert_eq!(answer.status, status, "{method} {path}: {answer}");
        answer.json()
    };
    for (pool, weight) in [("old", 1), ("new", 1)] {
        let uri = format!("sqlite:{pool}.db");
        let body = json!({"uri": uri, "weight": weight});
        // The second one is made when the queues are in the first.
        if pool == "old" {
            expect("PUT", "/v2/pools/old", Some(body), 201);
            for queue in 0..20 {
                let path = format!("/v2/queues/q{queue}/messages");
                let messages: Vec<Value> =
                    (0..10).map(|n| json!({"ttl": 600, "body": n})).collect();
                expect("POST", &path, Some(json!({"messages": messages})), 201);
            }
        } else {
            expect("PUT", "/v2/pools/new", Some(body), 201);
        }
    }
    // A worker holds messages meanwhile.
    let terms = json!({"ttl": 600, "grace": 60});
    let claim = expect("POST", "/v2/queues/q7/claims?limit=3", Some(terms), 201);
    let held: Vec<String> = claim["messages"]
        .as_array()
        .expect("messages")
        .iter()
        .map(|message| message["href"].as_str().expect("a path").to_owned())
        .collect();
    expect("DELETE", "/v2/pools/old", None, 403);

    let drain = |waits: bool| {
        let mut command = server::isimud();
        command.args(["pools", "drain", "old", "--admin", &admin.to_string()]);
        if !waits {
            command.arg("--no-wait");
        }
        let output = command.output().expect("the command can be run");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(drain(false).starts_with("20 queues leave"));
    // What is held stays valid where it is, and is done with there.
    for href in &held {
        expect("DELETE", href, None, 204);
    }
    let said = drain(true);
    assert!(
        said.trim_end().ends_with("0 queues and 0 messages left"),
        "{said}"
    );
    expect("DELETE", "/v2/pools/old", None, 204);
    for queue in 0..20 {
        let popped = expect(
            "DELETE",
            &format!("/v2/queues/q{queue}/messages?pop=10"),
            None,
            200,
        );
        let bodies: Vec<u64> = popped["messages"]
            .as_array()
            .expect("messages")
            .iter()
            .map(|message| message["body"].as_u64().expect("a number"))
            .collect();
        let first = if queue == 7 { 3 } else { 0 };
        assert_eq!(bodies, (first..10).collect::<Vec<u64>>(), "q{queue}");
    }
}
