//! Pools on SQS, in a house whose own store is embedded: registered, used, moved to and from, and away for a while.
//!
//! The servers are real processes, and SQS is the driver's test server. Where there is none the tests are left out, unless
//! `REQUIRE_BACKENDS=1` asks for it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use isimud_testing::redis::Servers;
use isimud_testing::sqs::proxy::{Fault, Proxy};
use isimud_testing::sqs::{Corner, Emulator};
use isimud_testing::started;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::server::{self, Answer, Client, Server};

const PROJECT: &str = "estate";
const MESSAGES: &str = "/v2/queues/q/messages";
const CLAIMS: &str = "/v2/queues/q/claims?limit=20";

/// A house with an embedded store, and SQS beside it.
struct Deployment {
    corner: Corner,
    admin: SocketAddr,
    server: Server,
    _folder: TempDir,
}

impl Deployment {
    /// `None` where there is no server that speaks SQS, and none is required.
    fn start() -> Option<Self> {
        let corner = started("an SQS server", Emulator::shared())?;
        let folder = tempfile::tempdir().expect("a folder");
        let admin = server::free_address();
        let flags = ["--admin-listen", &admin.to_string()];
        let server = Server::start_with("sqlite:house.db", folder.path(), &flags);
        Some(Self {
            corner,
            admin,
            server,
            _folder: folder,
        })
    }

    fn client(&self) -> Client {
        Client::new(self.server.address, PROJECT)
    }

    /// Registers the pool `cloud`, for a flavor of that name, by way of a port.
    fn register(&self, port: u16, options: Value) {
        let mut operator = self.client().admin();
        let uri = self.corner.uri(port, "");
        let uri = uri.replace("timeout_ms=60000&", "");
        let pool = json!({"uri": uri, "weight": 1, "options": options});
        expect(&mut operator, "PUT", "/v2/pools/cloud", Some(pool), 201);
        let flavor = json!({"pool_list": ["cloud"]});
        expect(&mut operator, "PUT", "/v2/flavors/cloud", Some(flavor), 201);
    }

    /// Moves the queue, and waits until it is there.
    fn move_to(&self, pool: &str) {
        let mut command = server::isimud();
        command.args(["queues", "move", "--project", PROJECT, "--queue", "q"]);
        command.args(["--to", pool, "--admin", &self.admin.to_string()]);
        let output = command.output().expect("the command can be run");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success(),
            "the queue does not move to {pool}: {said}"
        );
    }

    /// What a native client finds in the queue, and takes.
    fn natively(&self) -> Vec<Value> {
        let name = format!("{}-{PROJECT}_-q", self.corner.login);
        let mut command = self
            .corner
            .python("backends/sqs/tests/broker/native.py", &[&name, "read"]);
        let output = command.output().expect("Python can be run");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("a document"))
            .collect()
    }
}

fn expect(
    client: &mut Client,
    method: &str,
    path: &str,
    body: Option<Value>,
    status: u16,
) -> Answer {
    let answer = client.send(method, path, body.as_ref());
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, status, "{method} {path}: {answer}");
    answer
}

fn messages(bodies: impl IntoIterator<Item = Value>) -> Value {
    let message = |body| json!({"ttl": 3600, "body": body});
    json!({"messages": bodies.into_iter().map(message).collect::<Vec<_>>()})
}

fn terms() -> Option<Value> {
    Some(json!({"ttl": 300, "grace": 60}))
}

#[test]
fn a_pool_on_sqs_works_from_registration_to_removal() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    deployment.register(deployment.corner.port, json!({"wait_s": 1}));
    let mut client = deployment.client();
    let body = json!({"_flavor": "cloud"});
    expect(&mut client, "PUT", "/v2/queues/q", Some(body), 201);
    let bodies = (0..25).map(|number| json!({"number": number}));
    expect(&mut client, "POST", MESSAGES, Some(messages(bodies)), 201);
    let page = expect(
        &mut client,
        "GET",
        "/v2/queues/q/messages?limit=20&echo=true",
        None,
        200,
    );
    assert_eq!(page.json()["messages"].as_array().map(Vec::len), Some(20));

    let claim = expect(&mut client, "POST", CLAIMS, terms(), 201).json();
    let claimed = claim["messages"].as_array().expect("messages");
    assert_eq!(claimed.len(), 20);
    let stats = expect(&mut client, "GET", "/v2/queues/q/stats", None, 200).json();
    assert_eq!(
        (&stats["messages"]["free"], &stats["messages"]["claimed"]),
        (&json!(5), &json!(20))
    );
    for message in claimed {
        let href = message["href"].as_str().expect("a path");
        expect(&mut client, "DELETE", href, None, 204);
    }
    // What is left is in SQS, with its body as it was posted.
    let found = deployment.natively();
    assert_eq!(found.len(), 5);
    for message in found {
        let body = message["body"].as_str().expect("a body");
        let body: Value = serde_json::from_str(body).expect("JSON");
        assert!((0..25).contains(&body["number"].as_i64().expect("a number")));
    }
    let mut operator = deployment.client().admin();
    expect(&mut operator, "DELETE", "/v2/pools/cloud", None, 403);
    expect(&mut client, "DELETE", "/v2/queues/q", None, 204);
    expect(&mut operator, "DELETE", "/v2/flavors/cloud", None, 204);
    expect(&mut operator, "DELETE", "/v2/pools/cloud", None, 204);
}

#[test]
fn a_pool_is_checked_before_it_is_stored_and_shows_no_secrets() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let mut operator = deployment.client().admin();
    let here = deployment.corner.uri(deployment.corner.port, "");
    for (uri, options) in [
        (here.as_str(), json!({"fifo": "yes"})),
        (here.as_str(), json!({"wait_s": 21})),
        (here.as_str(), json!({"name": "{queue}"})),
        ("sqs://", json!({})),
        ("sqs://AKIA:geheim@us-east-1", json!({})),
        ("sqs://us-east-1?secret_key=geheim", json!({})),
        (
            "sqs://us-east-1?endpoint=http://AKIA:geheim@localhost:1",
            json!({}),
        ),
    ] {
        let pool = json!({"uri": uri, "weight": 1, "options": options});
        let refused = expect(&mut operator, "PUT", "/v2/pools/wrong", Some(pool), 400);
        assert!(!refused.to_string().contains("geheim"), "{uri}: {refused}");
        expect(&mut operator, "GET", "/v2/pools/wrong", None, 404);
    }
    deployment.register(deployment.corner.port, json!({"linger_ms": 5}));
    let path = "/v2/pools/cloud?detailed=true";
    let shown = expect(&mut operator, "GET", path, None, 200);
    assert_eq!(shown.json()["options"], json!({"linger_ms": 5}));
    // What the server logs in with is in its environment: AWS_SECRET_ACCESS_KEY=secret.
    assert!(!shown.to_string().contains("secret"), "{shown}");
    assert!(!deployment.server.log().contains("geheim"));
    // Another name for the same queues.
    let same = json!({"uri": format!("{here}&wait_s=3"), "weight": 1});
    expect(&mut operator, "PUT", "/v2/pools/same", Some(same), 409);
}

/// What became of each number, by those who claim and delete.
#[derive(Default)]
struct Oracle {
    acknowledged: Mutex<Vec<u64>>,
    deleted: Mutex<HashMap<u64, usize>>,
    over: AtomicBool,
}

impl Oracle {
    fn produce(&self, mut client: Client, stop: &AtomicBool) {
        let mut next = 0;
        while !stop.load(Ordering::Relaxed) {
            let numbers: Vec<u64> = (next..next + 3).collect();
            next += 3;
            let body = messages(numbers.iter().map(|number| json!(number)));
            expect(&mut client, "POST", MESSAGES, Some(body), 201);
            self.acknowledged.lock().expect("the book").extend(numbers);
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn work(&self, mut client: Client) {
        while !self.over.load(Ordering::Relaxed) {
            let answer = client.send("POST", CLAIMS, terms().as_ref());
            let answer = answer.expect("an answer");
            if answer.status == 204 {
                thread::sleep(Duration::from_millis(20));
                continue;
            }
            assert_eq!(answer.status, 201, "{answer}");
            let claim = answer.json();
            for message in claim["messages"].as_array().expect("messages") {
                let href = message["href"].as_str().expect("a path");
                expect(&mut client, "DELETE", href, None, 204);
                let number = message["body"].as_u64().expect("a number");
                let mut deleted = self.deleted.lock().expect("the book");
                *deleted.entry(number).or_default() += 1;
            }
        }
    }

    fn is_done(&self) -> bool {
        let acknowledged = self.acknowledged.lock().expect("the book").len();
        self.deleted.lock().expect("the book").len() >= acknowledged
    }
}

/// Ends the others, whatever happens to one.
struct Ends<'a>(&'a AtomicBool, &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_queue_moves_to_sqs_and_back_while_it_is_in_use() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    deployment.register(deployment.corner.port, json!({}));
    let mut client = deployment.client();
    expect(&mut client, "PUT", "/v2/queues/q", None, 201);
    let (oracle, stop) = (Oracle::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        let _ends = Ends(&stop, &oracle.over);
        scope.spawn(|| oracle.produce(deployment.client(), &stop));
        for _ in 0..3 {
            scope.spawn(|| oracle.work(deployment.client()));
        }
        for pool in ["cloud", "default", "cloud"] {
            let before = oracle.deleted.lock().expect("the book").len();
            deployment.move_to(pool);
            // It is used there, too.
            let begun = Instant::now();
            while oracle.deleted.lock().expect("the book").len() < before + 60 {
                assert!(
                    begun.elapsed() < Duration::from_secs(60),
                    "no traffic in {pool}"
                );
                thread::sleep(Duration::from_millis(20));
            }
        }
        stop.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        while !oracle.is_done() && begun.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(50));
        }
    });
    let acknowledged = oracle.acknowledged.lock().expect("the book");
    let deleted = oracle.deleted.lock().expect("the book");
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|number| !deleted.contains_key(number))
        .collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    assert!(deleted.values().all(|count| *count == 1), "{deleted:?}");
    println!("{} messages over three moves", deleted.len());
    // The last place is SQS.
    let message = messages([json!("last")]);
    expect(
        &mut deployment.client(),
        "POST",
        MESSAGES,
        Some(message),
        201,
    );
    assert_eq!(deployment.natively()[0]["body"], "\"last\"");
}

#[test]
fn while_sqs_is_away_requests_are_refused_with_a_time_to_come_back() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let proxy = runtime.block_on(Proxy::start(deployment.corner.port));
    deployment.register(proxy.port, json!({"timeout_ms": 1000}));
    let mut client = deployment.client();
    let body = json!({"_flavor": "cloud"});
    expect(&mut client, "PUT", "/v2/queues/q", Some(body), 201);
    expect(&mut client, "PUT", "/v2/queues/near", None, 201);
    let near = "/v2/queues/near/messages";
    let first = messages([json!("first")]);
    expect(&mut client, "POST", MESSAGES, Some(first), 201);
    for fault in [
        Fault::Dropped,
        Fault::Refused(400, "RequestThrottled"),
        Fault::Refused(503, "ServiceUnavailable"),
        Fault::Refused(403, "ExpiredToken"),
        Fault::Late(Duration::from_secs(300)),
    ] {
        proxy.always("*", fault.clone());
        for (path, body) in [(MESSAGES, Some(messages([json!("no")]))), (CLAIMS, terms())] {
            let begun = Instant::now();
            let answer = expect(&mut client, "POST", path, body, 503);
            let after = answer.header("retry-after").unwrap_or_default();
            assert!(
                after.parse::<u32>().is_ok(),
                "{fault:?}: {:?}",
                answer.headers
            );
            assert!(begun.elapsed() < Duration::from_secs(8), "{fault:?}");
        }
        // Others do not feel it.
        let message = messages([json!("near")]);
        expect(&mut client, "POST", near, Some(message), 201);
        // It is found again without anybody's help.
        proxy.calm();
        let begun = Instant::now();
        let back = messages([json!("back")]);
        while client
            .send("POST", MESSAGES, Some(&back))
            .expect("an answer")
            .status
            != 201
        {
            assert!(begun.elapsed() < Duration::from_secs(20), "{fault:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }
    let claim = expect(&mut client, "POST", CLAIMS, terms(), 201).json();
    let bodies: Vec<_> = claim["messages"]
        .as_array()
        .expect("messages")
        .iter()
        .map(|message| message["body"].as_str().expect("a text").to_owned())
        .collect();
    // Nothing that was acknowledged is lost, and nothing that was refused is there.
    assert_eq!(bodies, ["first", "back", "back", "back", "back", "back"]);
}

/// How long an answer may take when a server behind this one hangs: two seconds, and the time that a busy machine adds.
const MAX_RESPONSE_TIME: Duration = Duration::from_millis(2_900);

#[test]
fn while_the_ledger_hangs_every_call_is_refused_within_two_seconds() {
    let both = Emulator::shared().and_then(|corner| Ok((corner, Servers::single()?)));
    let Some((corner, keeper)) = started("a server", both) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let store = keeper
        .uri("house:")
        .replace("timeout_ms=5000", "timeout_ms=2000");
    let server = Server::start(&store, folder.path());
    let mut client = Client::new(server.address, PROJECT);
    let uri = corner.uri(corner.port, "").replace("timeout_ms=60000&", "");
    let pool = json!({"uri": uri, "weight": 1});
    let mut operator = Client::new(server.address, PROJECT).admin();
    expect(&mut operator, "PUT", "/v2/pools/cloud", Some(pool), 201);
    let first = messages((0..5).map(Value::from));
    let posted = expect(&mut client, "POST", MESSAGES, Some(first), 201).json();
    let message = posted["resources"][0].as_str().expect("a path").to_owned();
    let claim = "/v2/queues/q/claims?limit=1";
    let claimed = expect(&mut client, "POST", claim, terms(), 201);
    let held = claimed.header("location").expect("a claim").to_owned();

    keeper.get(0).signal("-STOP").expect("it is held up");
    let refused = |method: &str, path: &str, body: Option<Value>| {
        let mut client = Client::new(server.address, PROJECT);
        let begun = Instant::now();
        let answer = expect(&mut client, method, path, body, 503);
        let took = begun.elapsed();
        let after = answer.header("retry-after").unwrap_or_default();
        assert!(after.parse::<u32>().is_ok(), "{method} {path}: {answer}");
        assert!(took < MAX_RESPONSE_TIME, "{method} {path}: {took:?}");
        // The circuit of the store would answer at once after a few failures, and hide what is looked at.
        thread::sleep(Duration::from_millis(600));
    };
    let (one, new) = (|| Some(messages([json!("no")])), "/v2/queues/new/messages");
    for (method, path, body) in [
        ("POST", claim, terms()),
        ("POST", MESSAGES, one()),
        ("GET", MESSAGES, None),
        ("GET", &message, None),
        ("DELETE", &message, None),
        ("DELETE", "/v2/queues/q/messages?pop=1", None),
        ("GET", &held, None),
        ("PATCH", &held, Some(json!({"ttl": 600}))),
        ("DELETE", &held, None),
        ("GET", "/v2/queues/q/stats", None),
        ("POST", "/v2/queues/q/purge", None),
        // A queue that is not known yet: the management store hangs as well.
        ("POST", new, one()),
        ("PUT", "/v2/queues/new", None),
        ("DELETE", "/v2/queues/q", None),
    ] {
        refused(method, path, body);
    }
    // Those who wait for the same answer do not wait one after the other.
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| refused("POST", "/v2/queues/newer/messages", one()));
        }
    });
    let mut operator = Client::new(server.address, PROJECT).admin();
    let begun = Instant::now();
    let health = expect(&mut operator, "GET", "/v2/health", None, 503);
    assert!(
        begun.elapsed() < MAX_RESPONSE_TIME,
        "health: {:?}: {health}",
        begun.elapsed()
    );
    keeper.get(0).signal("-CONT").expect("it goes on");
    let begun = Instant::now();
    let back = Some(messages([json!("back")]));
    while client
        .send("POST", MESSAGES, back.as_ref())
        .expect("an answer")
        .status
        != 201
    {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "it does not come back"
        );
        thread::sleep(Duration::from_millis(50));
    }
}
