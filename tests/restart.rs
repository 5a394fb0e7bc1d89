//! The server is killed again and again in the middle of its work, and always on the same data.
//!
//! Workers post, claim and delete while it dies and comes back. Everything they were told is written down, and what
//! they were not told (the connection broke) stays open: it may or may not have happened. At the end:
//!
//! * a message whose post was acknowledged is still there, unless its deletion was asked for;
//! * a message whose deletion was acknowledged never comes back;
//! * a message that one claim delivered is never delivered by another: claims outlive the test, so only a claim whose
//!   answer was lost may have delivered it before, and then it is not delivered again either;
//! * a post whose answer was lost happened as a whole or not at all;
//! * a claim made before a kill is there after it, with its messages.
//!
//! `RESTART_SEED=n` repeats the choices of a run; when the server dies relative to what it does is never the same.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::{Value, json};

use crate::support::server::{Answer, Client, Server};
use oracle::{Deleted, Oracle, numbered};

pub(crate) mod oracle;

const KILLS: usize = 20;
const PRODUCERS: usize = 2;
const CONSUMERS: usize = 3;
const QUEUE: &str = "/v2/queues/orders";
/// How long a restart may take until the first answer.
const RESTART: Duration = Duration::from_secs(10);
/// Producers wait while so many messages are not deleted.
const BACKLOG: usize = 2000;
/// Claims that are looked at after each restart.
const SAMPLE: usize = 10;

#[test]
fn acknowledged_operations_survive_kills() {
    let seed = std::env::var("RESTART_SEED").map_or_else(
        |_| fastrand::u64(..),
        |text| text.parse().expect("RESTART_SEED is a number"),
    );
    println!("RESTART_SEED={seed}");
    let folder = tempfile::tempdir().expect("a folder");
    let store = format!("sqlite:{}/isimud.db", folder.path().display());
    let test = Test::default();
    let mut rng = Rng::with_seed(seed);
    thread::scope(|scope| {
        for worker in 0..PRODUCERS + CONSUMERS {
            let (test, rng) = (&test, rng.fork());
            scope.spawn(move || Worker::new(test, rng).work(worker < PRODUCERS));
        }
        // Whatever fails here, the workers have to hear that it is over.
        let _over = Over(&test);
        for kill in 0..KILLS {
            let server = start(&store, folder.path());
            test.phase().address = Some(server.address);
            test.check_some_claims(server.address, &mut rng);
            thread::sleep(Duration::from_millis(rng.u64(20..400)));
            server.kill();
            test.phase().address = None;
            if kill % 4 == 0 {
                let starting = Server::spawn(&store, folder.path());
                thread::sleep(Duration::from_millis(rng.u64(0..60)));
                starting.kill();
            }
        }
    });
    let server = start(&store, folder.path());
    test.settle(&mut Client::new(server.address, "restart"));
    test.oracle().report();
}

/// Starts the server on the data as they were left, within the time that a restart may take.
fn start(store: &str, folder: &std::path::Path) -> Server {
    let start = Instant::now();
    let server = Server::start(store, folder);
    let took = start.elapsed();
    assert!(took < RESTART, "a restart took {took:?}");
    server
}

/// What the workers share.
#[derive(Default)]
struct Test {
    phase: Mutex<Phase>,
    oracle: Mutex<Oracle>,
}

#[derive(Default)]
struct Phase {
    /// Where the server is; nowhere while it is down.
    address: Option<SocketAddr>,
    over: bool,
}

/// Ends the work when it is dropped.
struct Over<'a>(&'a Test);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.phase().over = true;
    }
}

impl Test {
    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().expect("no worker panicked")
    }

    fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock().expect("no worker panicked")
    }
}

/// A client that goes on whatever happens to the server.
struct Worker<'a> {
    test: &'a Test,
    rng: Rng,
    client: Option<(SocketAddr, Client)>,
    /// Deletions that were asked for without an answer, and are asked for again.
    again: Vec<(u64, String)>,
}

impl<'a> Worker<'a> {
    fn new(test: &'a Test, rng: Rng) -> Self {
        Self {
            test,
            rng,
            client: None,
            again: Vec::new(),
        }
    }

    fn work(mut self, produces: bool) {
        while !self.test.phase().over {
            if self.test.phase().address.is_none() {
                thread::sleep(Duration::from_millis(2));
            } else if produces {
                self.produce();
            } else {
                self.consume();
            }
        }
    }

    /// Sends to the server as it is now. Any error leaves open what happened.
    fn send(&mut self, method: &str, path: &str, body: Option<&Value>) -> io::Result<Answer> {
        let address = self
            .test
            .phase()
            .address
            .ok_or(io::ErrorKind::NotConnected)?;
        let client = match self.client.take() {
            Some((known, client)) if known == address => client,
            _ => Client::new(address, "restart"),
        };
        let (_, client) = self.client.insert((address, client));
        let answer = client.send(method, path, body);
        if answer.is_err() {
            self.client = None;
            thread::sleep(Duration::from_millis(2));
        }
        answer
    }

    fn produce(&mut self) {
        if self.test.oracle().backlog(BACKLOG) >= BACKLOG {
            return thread::sleep(Duration::from_millis(5));
        }
        let numbers = self.test.oracle().open_post(self.rng.u64(1..=4));
        let message =
            |number| json!({"ttl": 1_209_600, "body": {"number": number, "text": "x".repeat(200)}});
        let messages: Vec<Value> = numbers.iter().map(message).collect();
        let answer = self.send(
            "POST",
            &format!("{QUEUE}/messages"),
            Some(&json!({"messages": messages})),
        );
        let mut oracle = self.test.oracle();
        match answer {
            Ok(answer) => oracle.posted(&numbers, &answer),
            Err(_) => oracle.open[0] += 1,
        }
    }

    fn consume(&mut self) {
        for (number, href) in std::mem::take(&mut self.again) {
            self.delete(number, href);
        }
        let path = format!("{QUEUE}/claims?limit={}", self.rng.u8(1..=10));
        let terms = json!({"ttl": 43_200, "grace": 43_200});
        let messages = match self.send("POST", &path, Some(&terms)) {
            Ok(answer) if answer.status == 204 => return thread::sleep(Duration::from_millis(5)),
            Ok(answer) => self.test.oracle().claimed(&answer),
            Err(_) => {
                self.test.oracle().open[1] += 1;
                return;
            }
        };
        for (number, href) in messages {
            if self.rng.u8(..10) < 8 {
                self.delete(number, href);
            }
        }
    }

    fn delete(&mut self, number: u64, href: String) {
        self.test.oracle().set_deleted(number, Deleted::Asked);
        let answer = self.send("DELETE", &href, None);
        let mut oracle = self.test.oracle();
        match answer {
            Ok(answer) => oracle.deletion_answered(number, &href, &answer),
            Err(_) => {
                oracle.open[2] += 1;
                if self.rng.bool() {
                    self.again.push((number, href));
                }
            }
        }
    }
}

impl Test {
    /// Looks at some claims of the time before the restart, while the work goes on.
    fn check_some_claims(&self, address: SocketAddr, rng: &mut Rng) {
        let mut client = Client::new(address, "restart");
        let mut claims: Vec<String> = self.oracle().claims.keys().cloned().collect();
        rng.shuffle(&mut claims);
        for claim in claims.iter().take(SAMPLE) {
            self.check_claim(&mut client, claim);
        }
    }

    /// A claim holds what it delivered, without what was deleted.
    fn check_claim(&self, client: &mut Client, claim: &str) {
        let before = self.oracle().states(claim);
        let answer = client.send("GET", claim, None).expect("the server is up");
        let held: BTreeSet<u64> = numbered(&answer.json())
            .into_iter()
            .map(|(number, _)| number)
            .collect();
        let mut oracle = self.oracle();
        let after = oracle.states(claim);
        for ((number, before), (_, after)) in before.into_iter().zip(after) {
            // What was not even asked for when the answer was here, is in it; what was done before, is not.
            if after == Deleted::No && !held.contains(&number) {
                oracle
                    .wrong
                    .push(format!("{claim} has lost {number}: {answer}"));
            }
            if before == Deleted::Done && held.contains(&number) {
                oracle
                    .wrong
                    .push(format!("{claim} has {number} again: {answer}"));
            }
        }
    }

    /// Compares everything that is there at the end, when nobody else is at work, with what is known.
    fn settle(&self, client: &mut Client) {
        let listed = self.list(client);
        self.oracle().compare(&listed);
        let claims: Vec<String> = self.oracle().claims.keys().cloned().collect();
        claims
            .iter()
            .for_each(|claim| self.check_claim(client, claim));
        self.claim_the_rest(client);
        let hrefs = self.oracle().hrefs_to_delete();
        for (number, href) in hrefs {
            let answer = client
                .send("DELETE", &href, None)
                .expect("the server is up");
            self.oracle().deletion_answered(number, &href, &answer);
        }
        // What is left is what the lost answers of claims would have delivered.
        let left = self.list(client);
        self.oracle().compare(&left);
        let stats = client
            .send("GET", &format!("{QUEUE}/stats"), None)
            .expect("the server is up");
        let stats = &stats.json()["messages"];
        if stats["total"] != left.len() || stats["claimed"] != left.len() {
            let wrong = format!("{} messages are left, all in claims: {stats}", left.len());
            self.oracle().wrong.push(wrong);
        }
        println!(
            "{} messages were in claims whose answer was lost",
            left.len()
        );
    }

    fn claim_the_rest(&self, client: &mut Client) {
        let path = format!("{QUEUE}/claims?limit=20");
        let terms = json!({"ttl": 43_200, "grace": 60});
        loop {
            let answer = client
                .send("POST", &path, Some(&terms))
                .expect("the server is up");
            if answer.status == 204 {
                return;
            }
            assert!(
                !self.oracle().claimed(&answer).is_empty(),
                "an empty claim: {answer}"
            );
        }
    }

    /// The numbers of all messages, page by page.
    fn list(&self, client: &mut Client) -> BTreeSet<u64> {
        let mut listed = BTreeSet::new();
        let mut path = format!("{QUEUE}/messages?limit=20&echo=true&include_claimed=true");
        loop {
            let answer = client.send("GET", &path, None).expect("the server is up");
            assert_eq!(answer.status, 200, "{path}: {answer}");
            let document = answer.json();
            for (number, href) in numbered(&document) {
                if !listed.insert(number) {
                    let wrong = format!("{number} is listed twice, last as {href}");
                    self.oracle().wrong.push(wrong);
                    return listed;
                }
            }
            match document["links"][0]["href"].as_str() {
                Some(next) => next.clone_into(&mut path),
                None => return listed,
            }
        }
    }
}
