//! Queues that move from store to store and come back: over every ordered pair of kinds of stores and a choice of triples,
//! or all of them with `MOVES=all`, or some by name (`MOVES=fq,sr`), with the ledger in the embedded store and in Redis.
//!
//! Each queue goes its route there, back and there again, while a producer posts to it and nobody consumes; what is in it
//! in the end is exactly what was posted, in order where the kinds of the route promise one. A worker holds the oldest
//! message while the first move begins; one observer is in step and another one behind all the way. In one run the server
//! is killed in the middle of each move. In one more run each move is asked for before the one before is over, and the
//! server is killed in the middle of them. The servers are real processes; where one of the brokers is missing the test is
//! left out, unless `REQUIRE_BACKENDS=1` asks for it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use isimud_testing::rabbitmq::Node;
use isimud_testing::redis::Servers;
use isimud_testing::sqs::{Corner, Emulator};
use serde_json::{Value, json};

use crate::support::server::{self, Client, Server};

const PROJECT: &str = "estate";

/// The kinds of stores, by one letter each: embedded (the store of the configuration), Redis, RabbitMQ with quorum and
/// with classic queues, SQS with standard and with FIFO queues.
const KINDS: [char; 6] = ['e', 'r', 'q', 'c', 's', 'f'];

/// Triples that are gone through without being asked for: each kind is left for two others.
const TRIPLES: [&str; 6] = ["erq", "rqe", "qcr", "csf", "sfq", "feq"];

/// Pairs whose moves a server dies in: each kind is left and come to.
const WITH_KILLS: [&str; 8] = ["er", "rq", "qe", "cs", "sf", "fc", "qr", "es"];

/// Messages that are posted before the first move, and after each one.
const FIRST: u64 = 4;
const MORE: u64 = 2;

/// How long a queue may take until it is at rest in its new store, and until its messages are taken out.
const TIMEOUT: Duration = Duration::from_secs(180);

/// Started by the first test that needs them. They end with the program.
static BROKERS: LazyLock<Option<Brokers>> = LazyLock::new(Brokers::start);

struct Brokers {
    redis: Servers,
    rabbitmq: Node,
    sqs: Corner,
}

impl Brokers {
    /// `None` where one of them is missing, and none is required.
    fn start() -> Option<Self> {
        let started = Servers::plain().and_then(|redis| {
            Ok(Self {
                redis,
                rabbitmq: Node::start()?,
                sqs: Emulator::shared()?,
            })
        });
        isimud_testing::started("a broker", started)
    }

    /// The pool of a kind, in the run of this name; `None` for the embedded store.
    fn pool(&self, kind: char, run: &str) -> Option<String> {
        let rabbitmq = |queues: &str| {
            let uri = self.rabbitmq.uri();
            format!("{uri}?queue_type={queues}&prefix={run}{kind}.&timeout_ms=20000")
        };
        let sqs = |options: &str| {
            let corner = Corner {
                login: format!("{run}{kind}"),
                ..self.sqs.clone()
            };
            corner.uri(corner.port, options)
        };
        Some(match kind {
            'r' => format!("{}&timeout_ms=20000", self.redis.uri(&format!("{run}r:"))),
            'q' => rabbitmq("quorum"),
            'c' => rabbitmq("classic"),
            's' => sqs(""),
            'f' => sqs("&fifo=true"),
            _ => return None,
        })
    }
}

/// What a pool or the embedded store is called where queues are moved to.
fn name_of(kind: char) -> String {
    match kind {
        'e' => "default".to_owned(),
        kind => format!("pool-{kind}"),
    }
}

/// A server with all kinds of stores.
struct Deployment {
    server: Server,
    admin: SocketAddr,
    flags: Vec<String>,
}

impl Deployment {
    fn start(brokers: &Brokers, folder: &Path, run: &str, ledger: &str) -> Self {
        let admin = server::free_address();
        let mut flags = vec!["--admin-listen".to_owned(), admin.to_string()];
        if ledger == "redis" {
            let management = brokers.redis.uri(&format!("{run}m:"));
            flags.extend(["--management".to_owned(), management]);
        }
        let server = Self::server(folder, &flags);
        let deployment = Self {
            server,
            admin,
            flags,
        };
        let mut operator = deployment.client().admin();
        for kind in KINDS {
            let Some(uri) = brokers.pool(kind, run) else {
                continue;
            };
            let pool = json!({"uri": uri, "weight": 0});
            let path = format!("/v2/pools/{}", name_of(kind));
            expect(&mut operator, "PUT", &path, Some(pool), 201);
        }
        deployment
    }

    fn server(folder: &Path, flags: &[String]) -> Server {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        Server::start_with("sqlite:house.db", folder, &flags)
    }

    /// The same with a new server, after the death of this one.
    fn killed_and_started(self, folder: &Path) -> Self {
        self.server.kill();
        Self {
            server: Self::server(folder, &self.flags),
            ..self
        }
    }

    fn client(&self) -> Client {
        Client::new(self.server.address, PROJECT)
    }

    /// Where a queue is; asks the administration, for another place where one is named.
    fn moves(&self, queue: &str, to: Option<String>) -> Result<Vec<String>, String> {
        let mut operator = Client::operator(self.admin);
        let answer = match to {
            Some(to) => {
                let asked = json!({"project": PROJECT, "queue": queue, "to": to});
                operator.send("POST", "/moves/queue", Some(&asked))
            }
            None => {
                let path = format!("/moves/queue?project={PROJECT}&queue={queue}");
                operator.send("GET", &path, None)
            }
        };
        let answer = answer.map_err(said)?;
        let document = answer.json();
        let place = document["place"]
            .as_array()
            .ok_or_else(|| answer.to_string())?;
        let homes = place.iter().filter_map(Value::as_str);
        Ok(homes.map(str::to_owned).collect())
    }

    /// Has a queue move. What cannot be done now is tried again.
    fn move_to(&self, queue: &str, kind: char) {
        let since = Instant::now();
        while let Err(error) = self.moves(queue, Some(name_of(kind))) {
            assert!(since.elapsed() < TIMEOUT, "{queue} to {kind}: {error}");
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until a queue is in one store only.
    fn settled(&self, queue: &str, kind: char) {
        let (since, name) = (Instant::now(), name_of(kind));
        loop {
            let place = self.moves(queue, None);
            let is_there = |place: &Vec<String>| place.iter().all(|home| *home == name);
            if place.as_ref().is_ok_and(is_there) {
                return;
            }
            assert!(
                since.elapsed() < TIMEOUT,
                "{queue} does not come to {kind}: {place:?}\n{}",
                server::last_lines(&self.server.log(), 20)
            );
            thread::sleep(Duration::from_millis(100));
        }
    }
}

fn said(error: impl ToString) -> String {
    error.to_string()
}

fn expect(
    client: &mut Client,
    method: &str,
    path: &str,
    body: Option<Value>,
    status: u16,
) -> Value {
    let since = Instant::now();
    loop {
        let answer = client.send(method, path, body.as_ref());
        let answer = answer.expect("an answer");
        if answer.status == 503 && since.elapsed() < TIMEOUT {
            thread::sleep(Duration::from_millis(200));
            continue;
        }
        assert_eq!(answer.status, status, "{method} {path}: {answer}");
        return match status {
            204 => Value::Null,
            _ => answer.json(),
        };
    }
}

/// A queue on its route.
struct Journey {
    queue: String,
    route: Vec<char>,
    posted: u64,
    /// When each message had been posted for certain.
    since: Vec<Instant>,
    deleted: Vec<u64>,
    /// One who reads everything as soon as it is there, and one who is behind all the time.
    in_step: Observer,
    behind: Observer,
}

/// Somebody who reads a queue page by page, and takes nothing.
#[derive(Default)]
struct Observer {
    next: Option<String>,
    met: Vec<u64>,
}

impl Observer {
    /// Reads a page of so many messages. Returns how many there were.
    fn read(&mut self, client: &mut Client, messages: &str, limit: usize) -> usize {
        let first = format!("{messages}?echo=true&include_claimed=true&limit={limit}");
        let path = self.next.clone().unwrap_or(first);
        let page = expect(client, "GET", &path, None, 200);
        let found = page["messages"].as_array().cloned().unwrap_or_default();
        self.met
            .extend(found.iter().filter_map(|message| message["body"].as_u64()));
        if !found.is_empty() {
            let links = page["links"].as_array().expect("links");
            let next = links.iter().find(|link| link["rel"] == "next");
            self.next = next.and_then(|link| link["href"].as_str().map(str::to_owned));
        }
        found.len()
    }

    fn read_all(&mut self, client: &mut Client, messages: &str) {
        while self.read(client, messages, 5) > 0 {}
    }

    /// What is wrong with what was met: everything that was posted, once, and in order.
    fn fault(&self, posted: u64) -> Option<String> {
        let all: Vec<u64> = (0..posted).collect();
        (self.met != all).then(|| format!("observed {:?} of {posted}", self.met))
    }
}

impl Journey {
    /// There, back and there again; of a triple, twice around.
    fn of(kinds: &str) -> Self {
        let route: Vec<char> = kinds.chars().chain(kinds.chars()).collect();
        Self {
            queue: format!("q-{kinds}"),
            route,
            posted: 0,
            since: Vec::new(),
            deleted: Vec::new(),
            in_step: Observer::default(),
            behind: Observer::default(),
        }
    }

    fn messages(&self) -> String {
        format!("/v2/queues/{}/messages", self.queue)
    }

    fn post(&mut self, client: &mut Client, count: u64) {
        let numbers = self.posted..self.posted + count;
        let messages: Vec<Value> = numbers
            .map(|number| json!({"ttl": 3600, "body": number}))
            .collect();
        let body = json!({ "messages": messages });
        expect(client, "POST", &self.messages(), Some(body), 201);
        self.posted += count;
        self.since
            .resize(self.posted.try_into().expect("few"), Instant::now());
    }

    fn observe(&mut self, client: &mut Client) {
        let messages = self.messages();
        self.in_step.read_all(client, &messages);
        self.behind.read(client, &messages, 1);
    }

    /// Creates the queue where its route begins, and posts the first messages.
    fn begin(&mut self, deployment: &Deployment, client: &mut Client) {
        let path = format!("/v2/queues/{}", self.queue);
        expect(client, "PUT", &path, None, 201);
        deployment.move_to(&self.queue, self.route[0]);
    }

    /// Takes the oldest message there is, and returns where it is deleted, with its number.
    fn claim(&self, client: &mut Client) -> Option<(String, u64)> {
        let terms = json!({"ttl": 300, "grace": 60});
        let path = format!("/v2/queues/{}/claims?limit=1", self.queue);
        let claim = expect(client, "POST", &path, Some(terms), 201);
        let message = &claim["messages"][0];
        let href = message["href"].as_str()?.to_owned();
        Some((href, message["body"].as_u64()?))
    }

    /// Takes out all that is there, and compares it with what was posted, and with what observers met.
    fn end(&mut self, client: &mut Client) -> Result<(), String> {
        let messages = self.messages();
        for observer in [&mut self.in_step, &mut self.behind] {
            observer.read_all(client, &messages);
            if let Some(fault) = observer.fault(self.posted) {
                return Err(format!("{}: {fault}", self.queue));
            }
        }
        let expected: Vec<u64> = (0..self.posted)
            .filter(|number| !self.deleted.contains(number))
            .collect();
        let (since, mut met) = (Instant::now(), Vec::new());
        let mut too_young = Vec::new();
        let path = format!("{}?pop=20", self.messages());
        let mut empty = 0;
        // SQS may answer that there is nothing while there is something.
        while empty < 3 && since.elapsed() < TIMEOUT {
            let asked = Instant::now();
            let popped = expect(client, "DELETE", &path, None, 200);
            let popped = popped["messages"].as_array().cloned().unwrap_or_default();
            too_young.extend(
                popped
                    .iter()
                    .filter_map(|message| self.too_young(message, asked)),
            );
            empty = if popped.is_empty() { empty + 1 } else { 0 };
            met.extend(popped.iter().filter_map(|message| message["body"].as_u64()));
            if met.len() < expected.len() && popped.is_empty() {
                empty = 0;
                if since.elapsed() > TIMEOUT / 6 {
                    break;
                }
                thread::sleep(Duration::from_millis(300));
            }
        }
        if self.route.contains(&'s') {
            met.sort_unstable();
        }
        if met != expected {
            return Err(format!("{}: {met:?} instead of {expected:?}", self.queue));
        }
        match too_young.is_empty() {
            true => Ok(()),
            false => Err(format!("{}: {}", self.queue, too_young.join(", "))),
        }
    }

    /// What is wrong with the age of a message that was asked for then. It is in whole seconds. Each move may take some
    /// milliseconds off it, for the way of the message from store to store, more on a busy machine: a second in all.
    fn too_young(&self, message: &Value, asked: Instant) -> Option<String> {
        let number = usize::try_from(message["body"].as_u64()?).ok()?;
        let passed = asked.duration_since(*self.since.get(number)?);
        let least = passed.saturating_sub(Duration::from_secs(1)).as_secs();
        let age = message["age"].as_u64()?;
        (age < least).then(|| format!("{number} is {age} s old instead of {least}"))
    }
}

fn journeys() -> Vec<Journey> {
    let mut all = Vec::new();
    let asked = std::env::var("MOVES").unwrap_or_default();
    let is_all = asked == "all";
    if !asked.is_empty() && !is_all {
        return asked.split(',').map(Journey::of).collect();
    }
    for one in KINDS {
        for other in KINDS.into_iter().filter(|kind| *kind != one) {
            all.push(Journey::of(&format!("{one}{other}")));
            for third in KINDS
                .into_iter()
                .filter(|kind| ![one, other].contains(kind))
            {
                let triple = format!("{one}{other}{third}");
                if is_all || TRIPLES.contains(&&*triple) {
                    all.push(Journey::of(&triple));
                }
            }
        }
    }
    all
}

#[test]
fn queues_that_come_back_keep_every_message_with_the_ledger_in_the_embedded_store() {
    there_and_back_and_there_again("a", "sqlite", false);
}

#[test]
fn queues_that_come_back_keep_every_message_with_the_ledger_in_redis() {
    there_and_back_and_there_again("b", "redis", false);
}

#[test]
fn queues_that_come_back_keep_every_message_when_the_server_dies_in_the_middle_of_each_move() {
    there_and_back_and_there_again("k", "sqlite", true);
}

fn there_and_back_and_there_again(run: &str, ledger: &str, with_kills: bool) {
    let Some(brokers) = &*BROKERS else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let mut deployment = Deployment::start(brokers, folder.path(), run, ledger);
    let mut client = deployment.client();
    let mut all = journeys();
    if with_kills && std::env::var("MOVES").is_err() {
        all.retain(|journey| WITH_KILLS.contains(&&journey.queue[2..]));
    }
    for journey in &mut all {
        journey.begin(&deployment, &mut client);
    }
    for journey in &all {
        deployment.settled(&journey.queue, journey.route[0]);
    }
    // A connection that was idle for longer than a request's head may take is closed.
    client = deployment.client();
    for journey in &mut all {
        journey.post(&mut client, FIRST);
        journey.observe(&mut client);
    }
    let longest = all.iter().map(|journey| journey.route.len()).max();
    for step in 1..longest.unwrap_or_default() {
        for journey in &mut all {
            let Some(kind) = journey.route.get(step).copied() else {
                continue;
            };
            // What is held while the move begins stays valid, and does not come back.
            let held = match step {
                1 => journey.claim(&mut client),
                _ => None,
            };
            deployment.move_to(&journey.queue, kind);
            journey.post(&mut client, MORE);
            journey.observe(&mut client);
            if let Some((href, number)) = held {
                expect(&mut client, "DELETE", &href, None, 204);
                journey.deleted.push(number);
            }
        }
        if with_kills {
            // At another moment of the carriers each time.
            thread::sleep(Duration::from_millis(700 * step as u64));
            deployment = deployment.killed_and_started(folder.path());
        }
        for journey in &all {
            if let Some(kind) = journey.route.get(step) {
                deployment.settled(&journey.queue, *kind);
            }
        }
        client = deployment.client();
    }
    let faults: Vec<String> = all
        .iter_mut()
        .filter_map(|journey| journey.end(&mut client).err())
        .collect();
    assert!(
        faults.is_empty(),
        "with the ledger in {ledger}: {faults:#?}\n{}",
        server::last_lines(&deployment.server.log(), 20)
    );
}

/// In a hurry: nobody waits for a move to end before the next one, and the server dies in the middle of them.
#[test]
fn queues_that_move_before_earlier_moves_are_over_keep_every_message_once_and_in_order() {
    let Some(brokers) = &*BROKERS else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let mut deployment = Deployment::start(brokers, folder.path(), "o", "sqlite");
    let routes = ["rqrq", "ereq", "qrcr", "rfrf", "ecqr", "qeqe"];
    let mut all: Vec<Journey> = routes
        .into_iter()
        .map(|route| Journey {
            route: route.chars().collect(),
            ..Journey::of(route)
        })
        .collect();
    let mut client = deployment.client();
    for journey in &mut all {
        journey.begin(&deployment, &mut client);
    }
    for journey in &mut all {
        deployment.settled(&journey.queue, journey.route[0]);
        journey.post(&mut client, 20);
    }
    for step in 1..4 {
        for journey in &mut all {
            deployment.move_to(&journey.queue, journey.route[step]);
            journey.post(&mut client, 5);
        }
        if step == 2 {
            deployment = deployment.killed_and_started(folder.path());
            client = deployment.client();
        }
    }
    for journey in &all {
        deployment.settled(&journey.queue, journey.route[3]);
    }
    let faults: Vec<String> = all
        .iter_mut()
        .filter_map(|journey| journey.end(&mut client).err())
        .collect();
    assert!(
        faults.is_empty(),
        "{faults:#?}\n{}",
        server::last_lines(&deployment.server.log(), 20)
    );
}
