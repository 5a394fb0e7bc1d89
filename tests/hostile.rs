//! Broken requests, thousands of them, against the real binary over TCP; and clients that do not read, send or leave
//! (`clients`).
//!
//! Whatever arrives, the server must not answer 5xx, must not keep anybody waiting, must explain each refusal as a
//! JSON document with a title, and must afterwards serve the next client as if nothing had happened.
//!
//! A run is made from one seed, which it prints. `HOSTILE_SEED=n` repeats a run, `HOSTILE_ONLY=k` one request of it,
//! `HOSTILE_COUNT=n` makes it longer or shorter. Only ids that the server gave out differ between two runs.

use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::support::server::{Answer, Client, Server, connect, last_lines};
use draft::World;
use spoil::Case;

mod clients;
mod draft;
mod spoil;
mod words;

const REQUESTS: usize = 30_000;
const THREADS: usize = 6;
/// How long a request may take, from its first byte to the end of its answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// A thread makes new messages and claims after so many requests, because the old ones get deleted.
const WORLD_LASTS: usize = 200;
/// How many failures are enough to see what is wrong.
const ENOUGH: usize = 5;

#[test]
fn no_request_harms_the_server() {
    let seed = number("HOSTILE_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("HOSTILE_SEED={seed}");
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = Server::start("sqlite::memory:", folder.path());
    let run = Run {
        address: server.address,
        seed,
        next: AtomicUsize::new(0),
        tally: Mutex::default(),
    };
    let start = Instant::now();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let run = &run;
            scope.spawn(move || run.work(thread));
        }
    });
    let tally = run.tally.into_inner().expect("no thread panicked");
    println!(
        "{:?}, answers by status: {:?}",
        start.elapsed(),
        tally.statuses
    );
    assert!(
        tally.failures.is_empty(),
        "with HOSTILE_SEED={seed}:\n{}\nThe server said at the end:\n{}",
        tally.failures.join("\n\n"),
        last_lines(&server.log(), 20),
    );
    assert!(
        server.is_running(),
        "it ended:\n{}",
        last_lines(&server.log(), 20)
    );
    assert!(
        !server.log().contains("panicked at"),
        "it panicked:\n{}",
        server.log()
    );
    serves_as_ever(server.address);
}

/// One run: requests are numbered, and each is made from the seed and its own number alone.
struct Run {
    address: SocketAddr,
    seed: u64,
    next: AtomicUsize,
    tally: Mutex<Tally>,
}

#[derive(Default)]
struct Tally {
    /// How often each status was answered; 0 stands for no answer.
    statuses: std::collections::BTreeMap<u16, usize>,
    failures: Vec<String>,
}

impl Run {
    fn work(&self, thread: usize) {
        let only = number("HOSTILE_ONLY");
        let count = number("HOSTILE_COUNT").map_or(REQUESTS, |count| count as usize);
        let mut world = World::default();
        let mut connection = Connection::to(self.address);
        for turn in 0.. {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            if at >= count || self.is_hopeless() {
                break;
            }
            if turn % WORLD_LASTS == 0 {
                world = prepare(self.address, thread);
            }
            if only.is_none_or(|only| only == at as u64) {
                self.try_one(at, &world, &mut connection);
            }
        }
    }

    fn try_one(&self, at: usize, world: &World, connection: &mut Connection) {
        let spread = (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut rng = Rng::with_seed(self.seed ^ spread);
        let case = Case::make(&mut rng, world);
        let answers = connection.exchange(&case);
        let verdict = match &answers {
            Ok(answers) => judge(&case, answers),
            Err(error) => Err(format!("there is no answer in time: {error}")),
        };
        let mut tally = self.tally.lock().expect("no thread panicked");
        let answers = answers.unwrap_or_default();
        let statuses = answers.iter().map(|answer| answer.status);
        let first = statuses.clone().next().unwrap_or_default();
        for status in statuses.skip(1).chain([first]) {
            *tally.statuses.entry(status).or_default() += 1;
        }
        if let Err(reason) = verdict {
            let bytes = case.bytes[..case.bytes.len().min(2000)].escape_ascii();
            let text = format!("HOSTILE_ONLY={at}: {reason}\n{bytes}");
            tally.failures.push(text);
        }
    }

    fn is_hopeless(&self) -> bool {
        self.tally
            .lock()
            .expect("no thread panicked")
            .failures
            .len()
            >= ENOUGH
    }
}

/// A connection that is used again as long as both sides know where a request ends.
struct Connection {
    address: SocketAddr,
    open: Option<BufReader<TcpStream>>,
}

impl Connection {
    fn to(address: SocketAddr) -> Self {
        Self {
            address,
            open: None,
        }
    }

    /// Sends a request and reads what comes back. An error is a hang, or something that is no HTTP.
    fn exchange(&mut self, case: &Case) -> io::Result<Vec<Answer>> {
        if !case.answer_due {
            return self.send_and_close(case);
        }
        if let Some(connection) = self.open.take() {
            // The server may close a connection that rests: then the request goes over a new one.
            match self.send(connection, case) {
                Ok(Some(answer)) => return Ok(vec![answer]),
                Err(error) if is_timeout(&error) => return Err(error),
                _ => {}
            }
        }
        let connection = BufReader::new(connect(self.address, DEADLINE)?);
        Ok(self.send(connection, case)?.into_iter().collect())
    }

    fn send(
        &mut self,
        mut connection: BufReader<TcpStream>,
        case: &Case,
    ) -> io::Result<Option<Answer>> {
        connection.get_mut().write_all(&case.bytes)?;
        let answer = Answer::read(&mut connection, case.to_head)?;
        if answer.as_ref().is_some_and(Answer::keeps_alive) {
            self.open = Some(connection);
        }
        Ok(answer)
    }

    /// Sends what may have no end, closes the sending side, and reads until the server closes too.
    fn send_and_close(&self, case: &Case) -> io::Result<Vec<Answer>> {
        let start = Instant::now();
        let mut stream = connect(self.address, DEADLINE)?;
        // A server that has seen enough closes before it has read all.
        match stream.write_all(&case.bytes) {
            Err(error) if is_timeout(&error) => return Err(error),
            _ => {}
        }
        stream.shutdown(Shutdown::Write).ok();
        let mut received = Vec::new();
        match stream.read_to_end(&mut received) {
            Err(error) if is_timeout(&error) => return Err(error),
            _ if start.elapsed() > DEADLINE => return Err(io::ErrorKind::TimedOut.into()),
            _ => {}
        }
        let mut received = received.as_slice();
        let may_be_head = case.bytes.windows(4).any(|bytes| bytes == b"HEAD");
        let mut answers = Vec::new();
        while let Some(answer) = Answer::read(&mut received, may_be_head)? {
            answers.push(answer);
            if may_be_head {
                break;
            }
        }
        Ok(answers)
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
    )
}

/// What must hold for every answer.
fn judge(case: &Case, answers: &[Answer]) -> Result<(), String> {
    if case.answer_due && answers.is_empty() {
        return Err("the connection was closed without an answer".to_owned());
    }
    for answer in answers {
        // The one thing of a client's that a server is to answer so: a transfer coding that it does not know. An answer to
        // HEAD has no body that says so.
        let is_unknown_coding = answer.status == 501
            && (answer.body.is_empty()
                || answer.json()["description"] == "The only transfer coding is chunked.");
        if answer.status >= 500 && !is_unknown_coding {
            return Err(format!("a server error: {answer}"));
        }
        if answer.cut_short {
            return Err(format!("the answer was cut short: {answer}"));
        }
        if answer.body.is_empty() {
            continue;
        }
        is_json(&answer.body)
            .map_err(|error| format!("the answer is no JSON ({error}): {answer}"))?;
        if answer.status >= 400 && !answer.json()["title"].is_string() {
            return Err(format!("the refusal has no title: {answer}"));
        }
    }
    Ok(())
}

/// Whether text is JSON in every respect: numbers that a float can hold, and no halves of surrogate pairs.
fn is_json(text: &[u8]) -> Result<(), serde_json::Error> {
    match serde_json::from_slice::<Value>(text) {
        // Bodies of messages come back as they were posted, deeper than a `Value` may be.
        Err(error) if error.to_string().starts_with("recursion limit") => {
            serde_json::from_slice::<IgnoredAny>(text).map(drop)
        }
        result => result.map(drop),
    }
}

/// A queue of the thread's own, with messages and claims that requests can name.
fn prepare(address: SocketAddr, thread: usize) -> World {
    let mut client = Client::new(address, "hostile");
    let queue = format!("q{thread}");
    let path = format!("/v2/queues/{queue}");
    let mut send = |method: &str, path: &str, body: &Value| {
        let answer = client
            .send(method, path, Some(body))
            .expect("the server answers");
        assert!(answer.status < 300, "{method} {path}: {answer}");
        answer
    };
    // Whatever was done to the queue's metadata: from here on it is an ordinary one.
    send("DELETE", &path, &Value::Null);
    send("PUT", &path, &json!({}));
    let message = json!({"ttl": 3600, "body": {"event": "BackupStarted"}});
    let posted = send(
        "POST",
        &format!("{path}/messages"),
        &json!({"messages": vec![message; 20]}),
    )
    .json();
    let ids = posted["resources"].as_array().into_iter().flatten();
    let ids = ids.filter_map(|href| href.as_str()?.rsplit('/').next());
    let claims = (0..2).filter_map(|_| {
        let claim = send(
            "POST",
            &format!("{path}/claims?limit=4"),
            &json!({"ttl": 3600, "grace": 60}),
        );
        Some(claim.header("location")?.rsplit('/').next()?.to_owned())
    });
    World {
        messages: ids.map(str::to_owned).collect(),
        claims: claims.collect(),
        queue,
    }
}

/// An ordinary journey of a client that has nothing to do with all this.
fn serves_as_ever(address: SocketAddr) {
    let mut client = Client::new(address, "an ordinary one");
    let mut send = |method: &str, path: &str, body: Option<Value>, status: u16| {
        let answer = client
            .send(method, path, body.as_ref())
            .expect("the server answers");
        assert_eq!(answer.status, status, "{method} {path}: {answer}");
        answer.json()
    };
    send(
        "PUT",
        "/v2/queues/orders",
        Some(json!({"team": "billing"})),
        201,
    );
    let messages = json!({"messages": [{"ttl": 300, "body": 1}, {"ttl": 300, "body": 2}]});
    send("POST", "/v2/queues/orders/messages", Some(messages), 201);
    let claim = send(
        "POST",
        "/v2/queues/orders/claims",
        Some(json!({"ttl": 300, "grace": 60})),
        201,
    );
    let claimed = claim["messages"].as_array().expect("messages");
    assert_eq!(claimed.len(), 2);
    for message in claimed {
        let href = message["href"].as_str().expect("where it is");
        send("DELETE", href, None, 204);
    }
    let stats = send("GET", "/v2/queues/orders/stats", None, 200);
    assert_eq!(
        stats,
        json!({"messages": {"claimed": 0, "free": 0, "total": 0}})
    );
    send("DELETE", "/v2/queues/orders", None, 204);
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number")),
    )
}
