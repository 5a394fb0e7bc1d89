//! Queues of SQS that are there already, and that native clients use, too: behind a server that is slower than the time limit,
//! and does later what nobody waits for any more; and not there at all.
//!
//! The servers are real processes, and SQS is the driver's test server behind a proxy that holds requests up. Where there
//! is none the tests are left out, unless `REQUIRE_BACKENDS=1` asks for it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use isimud_testing::sqs::proxy::{Fault, Proxy};
use isimud_testing::sqs::{Corner, Emulator};
use isimud_testing::started;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::support::server::{self, Client, Server};

const PROJECT: &str = "estate";
const MESSAGES: &str = "/v2/queues/q/messages";

/// How long a request is held up, which is longer than the pool's time limit, and shorter than a carrier rests.
const HELD_UP: Duration = Duration::from_secs(6);
const TIMEOUT_MS: u64 = 2000;

/// How long anything may take.
const TIMEOUT: Duration = Duration::from_secs(180);

/// A server with an embedded store and a pool of SQS queues that are there already, by way of a proxy.
struct Deployment {
    corner: Corner,
    proxy: Proxy,
    admin: SocketAddr,
    server: Server,
    _runtime: Runtime,
    _folder: TempDir,
}

impl Deployment {
    /// `None` where there is no server that speaks SQS, and none is required.
    fn start() -> Option<Self> {
        let corner = started("an SQS server", Emulator::shared())?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let proxy = runtime.block_on(Proxy::start(corner.port));
        let folder = tempfile::tempdir().expect("a folder");
        let admin = server::free_address();
        let flags = ["--admin-listen", &admin.to_string()];
        let server = Server::start_with("sqlite:house.db", folder.path(), &flags);
        let deployment = Self {
            corner,
            proxy,
            admin,
            server,
            _runtime: runtime,
            _folder: folder,
        };
        let uri = format!(
            "sqs://us-east-1?timeout_ms={TIMEOUT_MS}&counts_lag_s=5&endpoint=http://127.0.0.1:{}&name={}-{{queue}}&project={PROJECT}",
            deployment.proxy.port, deployment.corner.login,
        );
        let pool = json!({"uri": uri, "weight": 0});
        deployment.expect("PUT", "/v2/pools/cloud", Some(pool), 201);
        Some(deployment)
    }

    fn client(&self) -> Client {
        Client::new(self.server.address, PROJECT).admin()
    }

    /// An answer with that status; what cannot be done now is tried again.
    fn expect(&self, method: &str, path: &str, body: Option<Value>, status: u16) -> Value {
        let since = Instant::now();
        loop {
            let answer = self.client().send(method, path, body.as_ref());
            let answer = answer.expect("an answer");
            // A pool whose server is still busy with its start is refused for that.
            let is_early = answer.status == 503 || answer.to_string().contains("cannot connect to");
            if is_early && since.elapsed() < TIMEOUT {
                thread::sleep(Duration::from_millis(200));
                continue;
            }
            assert_eq!(answer.status, status, "{method} {path}: {answer}");
            return match status {
                200 => answer.json(),
                _ => Value::Null,
            };
        }
    }

    /// What a native client does with the queue.
    fn natively(&self, arguments: &[&str]) {
        let name = format!("{}-q", self.corner.login);
        let arguments = [&[&*name], arguments].concat();
        let mut command = self
            .corner
            .python("backends/sqs/tests/broker/native.py", &arguments);
        let output = command.output().expect("Python can be run");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
    }

    fn post(&self, numbers: std::ops::Range<u64>) {
        let messages: Vec<Value> = numbers
            .map(|number| json!({"ttl": 3600, "body": number}))
            .collect();
        let body = json!({ "messages": messages });
        self.expect("POST", MESSAGES, Some(body), 201);
    }

    fn total(&self) -> u64 {
        let stats = self.expect("GET", "/v2/queues/q/stats", None, 200);
        stats["messages"]["total"].as_u64().expect("a number")
    }

    fn moves(&self) -> Value {
        let path = format!("/moves/queue?project={PROJECT}&queue=q");
        let answer = Client::operator(self.admin).send("GET", &path, None);
        answer.expect("an answer").json()
    }

    fn wait(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        let since = Instant::now();
        while !is_so(&self.moves()) {
            assert!(
                since.elapsed() < TIMEOUT,
                "{what}: {}\n{}",
                self.moves(),
                server::last_lines(&self.server.log(), 20)
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Moves the queue while SQS is slow at something, until that has stopped the move, or for a while; and then to its end.
    fn move_to(&self, pool: &str, slow: Option<&str>) {
        if let Some(action) = slow {
            self.proxy.always(action, Fault::Late(HELD_UP));
        }
        let asked = json!({"project": PROJECT, "queue": "q", "to": pool});
        let answer = Client::operator(self.admin).send("POST", "/moves/queue", Some(&asked));
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 200, "{answer}");
        if let Some(action) = slow {
            let seen = self.proxy.seen(action);
            let since = Instant::now();
            let is_met =
                || self.proxy.seen(action) > seen + 2 || !self.moves()["stalled"].is_null();
            while !is_met() && since.elapsed() < Duration::from_secs(20) {
                thread::sleep(Duration::from_millis(50));
            }
            self.proxy.calm();
        }
        self.wait(&format!("{slow:?}: it does not come to {pool}"), |moves| {
            is_in(moves, pool)
        });
    }

    /// Takes out everything, and says how often each body came.
    fn drained(&self, expected: usize) -> BTreeMap<String, usize> {
        let mut met: BTreeMap<String, usize> = BTreeMap::new();
        let (mut since, begun) = (Instant::now(), Instant::now());
        // What the proxy holds up comes within that time.
        while met.len() < expected || since.elapsed() < HELD_UP + Duration::from_secs(2) {
            assert!(begun.elapsed() < TIMEOUT, "{} of {expected}", met.len());
            let path = format!("{MESSAGES}?pop=20");
            let popped = self.expect("DELETE", &path, None, 200);
            let popped = popped["messages"].as_array().cloned().unwrap_or_default();
            if popped.is_empty() {
                thread::sleep(Duration::from_millis(100));
                continue;
            }
            since = Instant::now();
            for message in popped {
                *met.entry(message["body"].to_string()).or_default() += 1;
            }
        }
        met
    }
}

/// Whether all segments of the queue are in one store: readers empty them in order.
fn is_in(moves: &Value, pool: &str) -> bool {
    let place = moves["place"].as_array();
    place.is_some_and(|place| place.iter().all(|home| home == pool))
}

#[test]
fn a_queue_that_moves_to_a_slow_sqs_and_off_and_back_has_every_message_once() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    deployment.natively(&["make"]);
    deployment.expect("PUT", "/v2/queues/q", None, 201);
    deployment.post(0..15);
    deployment.move_to("cloud", Some("SendMessageBatch"));
    assert_eq!(deployment.total(), 15);
    deployment.natively(&["send", "\"a\"", "\"b\"", "\"c\""]);
    deployment.post(15..20);
    deployment.move_to("default", Some("DeleteMessageBatch"));
    deployment.natively(&["send", "\"d\"", "\"e\""]);
    deployment.move_to("cloud", Some("ReceiveMessage"));
    deployment.move_to("default", Some("ReceiveMessage"));
    deployment.move_to("cloud", Some("SendMessageBatch"));
    let met = deployment.drained(25);
    let twice: Vec<_> = met.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert_eq!(met.len(), 25, "{met:?}");
}

#[test]
fn messages_under_way_to_a_slow_sqs_are_counted_once() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    deployment.natively(&["make"]);
    deployment.expect("PUT", "/v2/queues/q", None, 201);
    deployment.post(0..15);
    deployment
        .proxy
        .always("SendMessageBatch", Fault::Late(HELD_UP));
    let asked = json!({"project": PROJECT, "queue": "q", "to": "cloud"});
    let asked = Client::operator(deployment.admin).send("POST", "/moves/queue", Some(&asked));
    assert_eq!(asked.expect("an answer").status, 200);
    deployment.wait("it is not held up", |moves| !moves["stalled"].is_null());
    // What was given up arrives; the carrier rests.
    thread::sleep(HELD_UP);
    assert_eq!(deployment.total(), 15);
    deployment.proxy.calm();
    deployment.wait("it does not come", |moves| is_in(moves, "cloud"));
    assert_eq!(deployment.total(), 15);
    assert_eq!(deployment.drained(15).len(), 15);
}

#[test]
fn a_queue_that_sqs_lacks_is_neither_made_in_its_pool_nor_moved_there() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let flavor = json!({"pool_list": ["cloud"]});
    deployment.expect("PUT", "/v2/flavors/cloud", Some(flavor), 201);
    deployment.expect("PATCH", "/v2/pools/cloud", Some(json!({"weight": 1})), 200);
    deployment.expect("PUT", "/v2/queues/q", None, 201);
    deployment.post(0..3);
    let asked = json!({"project": PROJECT, "queue": "q", "to": "cloud"});
    let patch = json!([{"op": "add", "path": "/metadata/_flavor", "value": "cloud"}]);
    let new = json!({"_flavor": "cloud"});
    let answers = [
        Client::operator(deployment.admin).send("POST", "/moves/queue", Some(&asked)),
        deployment
            .client()
            .send("PATCH", "/v2/queues/q", Some(&patch)),
        deployment
            .client()
            .send("PUT", "/v2/queues/new", Some(&new)),
    ];
    for answer in answers {
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 400, "{answer}");
        let name = format!("SQS has no queue of the name {}-", deployment.corner.login);
        assert!(answer.to_string().contains(&name), "{answer}");
    }
    assert_eq!(deployment.moves()["place"], json!(["default"]));
    deployment.post(3..5);
    deployment.natively(&["make"]);
    deployment.move_to("cloud", None);
    assert_eq!(deployment.drained(5).len(), 5);
}
