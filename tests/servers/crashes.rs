//! Redis is killed in the middle of the work of two servers, and comes back with its data; then it is held up.
//!
//! Everything the workers were told is written down. What they were not told (a 503) stays open: it may have happened or
//! not. Workers die as well: they leave a claim and its messages behind. Claims outlive the test, so no message is ever
//! delivered by two of them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use isimud_testing::redis::Servers;
use serde_json::{Value, json};

use crate::restart::oracle::{Deleted, Oracle, numbered};
use crate::servers::{Service, TIMEOUT};
use crate::support::server::{Answer, Client};

const KILLS: usize = 3;
const PRODUCERS: usize = 4;
const CONSUMERS: usize = 6;
pub(crate) const QUEUE: &str = "/v2/queues/orders";
/// Producers wait while so many messages are not deleted.
const BACKLOG: usize = 500;
/// How much longer than the time-out an answer may take on a busy machine.
const SLACK: Duration = Duration::from_secs(1);
/// How long the service may be away after Redis is back.
const RECOVERY: Duration = Duration::from_secs(5);

#[test]
fn with_appendfsync_always_nothing_acknowledged_is_lost() {
    let Some(service) = Service::start(Servers::always) else {
        return;
    };
    let test = Test::default();
    let redis = service.redis.get(0);
    thread::scope(|scope| {
        for worker in 0..PRODUCERS + CONSUMERS {
            let (test, service) = (&test, &service);
            scope.spawn(move || Worker::new(test, service, worker).work(worker < PRODUCERS));
        }
        // Whatever fails here, the workers have to hear that it is over.
        let _over = Over(&test);
        for _ in 0..KILLS {
            thread::sleep(Duration::from_millis(fastrand::u64(1000..2000)));
            redis.kill();
            for mut client in service.clients() {
                test.is_refused(&mut client);
            }
            redis.start_again().expect("Redis starts again");
            for mut client in service.clients() {
                test.recovers(&mut client);
            }
        }
        // What it was sent while it was held up, it does later: long after the workers were told that it is not there.
        redis.signal("-STOP").expect("Redis can be held up");
        thread::sleep(2 * TIMEOUT + SLACK);
        redis.signal("-CONT").expect("Redis can go on");
        for mut client in service.clients() {
            test.recovers(&mut client);
        }
        thread::sleep(Duration::from_millis(500));
    });
    test.settle(&service);
    let refused = test.refused.lock().expect("no worker panicked");
    println!(
        "{} answers of 503, the slowest after {:?}; back {:?} after Redis",
        refused.count, refused.slowest, refused.recovery
    );
    test.oracle().report();
}

/// What the workers share.
#[derive(Default)]
struct Test {
    oracle: Mutex<Oracle>,
    refused: Mutex<Refused>,
    over: AtomicBool,
}

/// What it was like while Redis was away.
#[derive(Default)]
struct Refused {
    count: usize,
    slowest: Duration,
    recovery: Duration,
}

/// Ends the work when it is dropped.
struct Over<'a>(&'a Test);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

impl Test {
    fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock().expect("no worker panicked")
    }

    fn wrong(&self, what: String) {
        self.oracle().wrong.push(what);
    }

    /// What the service answers in time; `None` when it cannot do it now and says so as it should.
    fn ask(
        &self,
        client: &mut Client,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Option<Answer> {
        let begun = Instant::now();
        let answer = client.send(method, path, body);
        let took = begun.elapsed();
        if took > TIMEOUT + SLACK {
            self.wrong(format!("{method} {path} took {took:?}"));
        }
        let answer = match answer {
            Ok(answer) if answer.status == 503 => answer,
            Ok(answer) => return Some(answer),
            Err(error) => {
                self.wrong(format!("{method} {path} is not answered: {error}"));
                return None;
            }
        };
        if answer.header("retry-after").is_none() {
            self.wrong(format!(
                "{method} {path} is not to be tried again: {answer}"
            ));
        }
        let mut refused = self.refused.lock().expect("no worker panicked");
        refused.count += 1;
        refused.slowest = took.max(refused.slowest);
        None
    }

    /// Everything is refused while Redis is away.
    fn is_refused(&self, client: &mut Client) {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let messages = json!({"messages": [{"body": {"number": 0}}]});
        let terms = json!({"ttl": 60, "grace": 60});
        let requests = [
            ("POST", "/messages".to_owned(), Some(&messages)),
            ("POST", "/claims".to_owned(), Some(&terms)),
            ("GET", "/messages?include_claimed=true".to_owned(), None),
            ("DELETE", format!("/messages/{id}"), None),
            ("DELETE", "/messages?pop=1".to_owned(), None),
            ("GET", format!("/claims/{id}"), None),
            ("GET", "/stats".to_owned(), None),
        ];
        for (method, path, body) in requests {
            let answer = self.ask(client, method, &format!("{QUEUE}{path}"), body);
            if let Some(answer) = answer {
                self.wrong(format!("without Redis, {method} {path}: {answer}"));
            }
        }
    }

    /// The service is there again soon after Redis is.
    fn recovers(&self, client: &mut Client) {
        let begun = Instant::now();
        let path = format!("{QUEUE}/stats");
        while self.ask(client, "GET", &path, None).is_none() {
            assert!(begun.elapsed() < RECOVERY, "the service does not come back");
            thread::sleep(Duration::from_millis(5));
        }
        let mut refused = self.refused.lock().expect("no worker panicked");
        refused.recovery = begun.elapsed().max(refused.recovery);
    }

    /// Compares everything that is there at the end, when nobody is at work, with what is known.
    fn settle(&self, service: &Service) {
        let [mut one, mut other] = service.clients();
        let listed = list(&mut one);
        assert_eq!(listed, list(&mut other), "two servers, two lists");
        self.oracle().compare(&listed);
        self.claim_the_rest(&mut other);
        let hrefs = self.oracle().hrefs_to_delete();
        for (number, href) in hrefs {
            let answer = one.send("DELETE", &href, None).expect("an answer");
            self.oracle().deletion_answered(number, &href, &answer);
        }
        // What is left is what the lost answers of claims would have delivered.
        let left = list(&mut other);
        self.oracle().compare(&left);
        println!(
            "{} messages were there, {} of them in claims whose answer was lost",
            listed.len(),
            left.len()
        );
        for client in [&mut one, &mut other] {
            let stats = client.send("GET", &format!("{QUEUE}/stats"), None);
            let stats = stats.expect("an answer").json()["messages"].take();
            if stats["total"] != left.len() || stats["claimed"] != left.len() {
                self.wrong(format!(
                    "{} messages are left, all claimed: {stats}",
                    left.len()
                ));
            }
        }
    }

    fn claim_the_rest(&self, client: &mut Client) {
        let path = format!("{QUEUE}/claims?limit=20");
        let terms = json!({"ttl": 43_200, "grace": 60});
        loop {
            let answer = client.send("POST", &path, Some(&terms));
            let answer = answer.expect("an answer");
            if answer.status == 204 {
                return;
            }
            let messages = self.oracle().claimed(&answer);
            assert!(!messages.is_empty(), "an empty claim: {answer}");
        }
    }
}

/// A client of one server that goes on whatever happens to Redis.
struct Worker<'a> {
    test: &'a Test,
    service: &'a Service,
    at: usize,
    client: Client,
    rng: Rng,
    /// Deletions that were asked for without an answer, and are asked for again.
    again: Vec<(u64, String)>,
}

impl<'a> Worker<'a> {
    fn new(test: &'a Test, service: &'a Service, at: usize) -> Self {
        Self {
            test,
            service,
            at,
            client: service.client(at),
            rng: Rng::new(),
            again: Vec::new(),
        }
    }

    fn work(mut self, produces: bool) {
        while !self.test.over.load(Ordering::Relaxed) {
            if produces {
                self.produce();
            } else {
                self.consume();
            }
        }
    }

    fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> Option<Answer> {
        let answer = self.test.ask(&mut self.client, method, path, body);
        if answer.is_none() {
            self.client = self.service.client(self.at);
            thread::sleep(Duration::from_millis(5));
        }
        answer
    }

    fn produce(&mut self) {
        if self.test.oracle().backlog(BACKLOG) >= BACKLOG {
            return thread::sleep(Duration::from_millis(5));
        }
        let numbers = self.test.oracle().open_post(self.rng.u64(1..=4));
        let message = |number| json!({"ttl": 1_209_600, "body": {"number": number}});
        let messages: Vec<Value> = numbers.iter().map(message).collect();
        let document = json!({"messages": messages});
        let answer = self.ask("POST", &format!("{QUEUE}/messages"), Some(&document));
        let mut oracle = self.test.oracle();
        match answer {
            Some(answer) => oracle.posted(&numbers, &answer),
            None => oracle.open[0] += 1,
        }
    }

    fn consume(&mut self) {
        for (number, href) in std::mem::take(&mut self.again) {
            self.delete(number, href);
        }
        let path = format!("{QUEUE}/claims?limit={}", self.rng.u8(1..=10));
        let terms = json!({"ttl": 43_200, "grace": 43_200});
        let messages = match self.ask("POST", &path, Some(&terms)) {
            Some(answer) if answer.status == 204 => {
                return thread::sleep(Duration::from_millis(5));
            }
            Some(answer) => self.test.oracle().claimed(&answer),
            None => {
                self.test.oracle().open[1] += 1;
                return;
            }
        };
        for (number, href) in messages {
            if self.rng.u8(..50) == 0 {
                // This worker dies, and another one takes its place: what it has claimed stays claimed.
                *self = Self::new(self.test, self.service, self.at);
                return;
            }
            self.delete(number, href);
        }
    }

    fn delete(&mut self, number: u64, href: String) {
        self.test.oracle().set_deleted(number, Deleted::Asked);
        let answer = self.ask("DELETE", &href, None);
        let mut oracle = self.test.oracle();
        match answer {
            Some(answer) => oracle.deletion_answered(number, &href, &answer),
            None => {
                oracle.open[2] += 1;
                if self.rng.bool() {
                    self.again.push((number, href));
                }
            }
        }
    }
}

/// Waits until a server answers again.
pub(crate) fn until_served(client: &mut Client) {
    let begun = Instant::now();
    let path = format!("{QUEUE}/stats");
    let served = |answer: std::io::Result<Answer>| answer.is_ok_and(|answer| answer.status == 200);
    while !served(client.send("GET", &path, None)) {
        assert!(
            begun.elapsed() < 2 * RECOVERY,
            "the service does not come back"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

/// The numbers of all messages, page by page.
pub(crate) fn list(client: &mut Client) -> BTreeSet<u64> {
    let mut listed = BTreeSet::new();
    let mut path = format!("{QUEUE}/messages?limit=20&echo=true&include_claimed=true");
    loop {
        let answer = client.send("GET", &path, None).expect("an answer");
        assert_eq!(answer.status, 200, "{path}: {answer}");
        let document = answer.json();
        for (number, href) in numbered(&document) {
            assert!(listed.insert(number), "{number} is listed twice: {href}");
        }
        match document["links"][0]["href"].as_str() {
            Some(next) => next.clone_into(&mut path),
            None => return listed,
        }
    }
}
