//! A RabbitMQ queue of an existing deployment behind a real server: its native clients (pika) and the API on one queue,
//! carried away by moves and bridges.
//!
//! Where there is no RabbitMQ the tests are left out, unless `REQUIRE_BACKENDS=1` asks for them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use isimud_testing::rabbitmq::Node;
use isimud_testing::{python, started};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::server::{self, Answer, Client, Server};

const PROJECT: &str = "estate";

/// How long a command may take.
const TIMEOUT: Duration = Duration::from_secs(60);

static NODE: LazyLock<Result<Node, String>> = LazyLock::new(Node::start);

/// Python with pika.
static PYTHON: LazyLock<PathBuf> = LazyLock::new(|| python("clients").expect("Python with pika"));

/// A server with an embedded store, and the queues of a RabbitMQ as the pool `rabbit`.
struct Deployment {
    node: &'static Node,
    admin: SocketAddr,
    server: Server,
    _folder: TempDir,
}

impl Deployment {
    /// `None` where there is no RabbitMQ, and none is required.
    fn start(options: &Value) -> Option<Self> {
        let node = started("RabbitMQ", NODE.as_ref())?;
        let folder = tempfile::tempdir().expect("a folder");
        let admin = server::free_address();
        let flags = ["--admin-listen", &admin.to_string()];
        let server = Server::start_with("sqlite:house.db", folder.path(), &flags);
        let deployment = Self {
            node,
            admin,
            server,
            _folder: folder,
        };
        let mut operator = deployment.client().admin();
        let uri = format!(
            "{}?adopt=true&name={{project}}.{{queue}}&timeout_ms=20000",
            deployment.node.uri()
        );
        let pool = json!({"uri": uri, "weight": 1, "options": options});
        expect(&mut operator, "PUT", "/v2/pools/rabbit", Some(pool), 201);
        let flavor = json!({"pool_list": ["rabbit"]});
        expect(
            &mut operator,
            "PUT",
            "/v2/flavors/rabbit",
            Some(flavor),
            201,
        );
        Some(deployment)
    }

    fn client(&self) -> Client {
        Client::new(self.server.address, PROJECT)
    }

    /// Makes a queue, in RabbitMQ and here.
    fn make(&self, queue: &str, kind: &str) {
        self.native("declare", queue, &[kind]);
        let body = json!({"_flavor": "rabbit"});
        let path = format!("/v2/queues/{queue}");
        expect(&mut self.client(), "PUT", &path, Some(body), 201);
    }

    fn native(&self, what: &str, queue: &str, arguments: &[&str]) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let output = Command::new(&*PYTHON)
            .arg(root.join("backends/amqp/tests/interop/natives.py"))
            .args([what, &self.node.port().to_string()])
            .arg(format!("{PROJECT}.{queue}"))
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .expect("Python can be run");
        assert!(output.status.success(), "natives.py {what}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs a command of the operator's to its end.
    fn run(&self, arguments: &[&str]) -> String {
        let mut command = server::isimud();
        command.args(arguments);
        command.args(["--admin", &self.admin.to_string()]);
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the command can be run");
        let begun = Instant::now();
        while child.try_wait().expect("a child").is_none() {
            if begun.elapsed() > TIMEOUT {
                child.kill().expect("it can be killed");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
        said + &String::from_utf8_lossy(&output.stdout)
    }

    /// Takes everything out of a queue through the API.
    fn take_all(&self, queue: &str) -> Vec<Value> {
        let mut client = self.client();
        let mut bodies = Vec::new();
        loop {
            let path = format!("/v2/queues/{queue}/messages?pop=20");
            let popped = client.send("DELETE", &path, None).expect("an answer");
            let popped = popped.json();
            let messages = popped["messages"].as_array().expect("messages").clone();
            if messages.is_empty() {
                return bodies;
            }
            bodies.extend(messages.iter().map(|message| message["body"].clone()));
        }
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

fn post(client: &mut Client, queue: &str, bodies: &[u64]) {
    let message = |body: &u64| json!({"ttl": 3600, "body": body});
    let body = json!({"messages": bodies.iter().map(message).collect::<Vec<_>>()});
    let path = format!("/v2/queues/{queue}/messages");
    expect(client, "POST", &path, Some(body), 201);
}

/// Two posted by the API that natives take, three of natives that wait, with one of the API's behind them.
fn use_by_both(deployment: &Deployment, queue: &str) {
    let mut client = deployment.client();
    post(&mut client, queue, &[100, 101]);
    assert_eq!(deployment.native("take", queue, &["2"]), "100\n101\n");
    deployment.native("publish", queue, &["", "1", "", "2", "", "3"]);
    post(&mut client, queue, &[4]);
}

/// Has a check made with classic and quorum queues, with the journal and without: each with a queue's name of its own.
fn on_every_queue(name: &str, check: impl Fn(&Deployment, &str)) {
    for journal in [true, false] {
        let Some(deployment) = Deployment::start(&json!({"journal": journal})) else {
            return;
        };
        for kind in ["classic", "quorum"] {
            let queue = format!("{name}-{kind}-{journal}");
            deployment.make(&queue, kind);
            check(&deployment, &queue);
        }
    }
}

#[test]
fn a_move_carries_what_natives_posted_and_ends_although_natives_took_some() {
    on_every_queue("moved", |deployment, queue| {
        use_by_both(deployment, queue);
        let moved = deployment.run(&[
            "queues",
            "move",
            "--project",
            PROJECT,
            "--queue",
            queue,
            "--to",
            "default",
        ]);
        assert_eq!(
            deployment.native("take", queue, &["9"]),
            "",
            "{queue}: {moved}"
        );
        // Each producer's in order. Natives' messages stand where they were first seen, and that is when they move.
        let (own, natives): (Vec<Value>, Vec<Value>) = deployment
            .take_all(queue)
            .into_iter()
            .partition(|it| *it == 4);
        assert_eq!(own, [4], "{queue}: {moved}");
        assert_eq!(natives, [1, 2, 3], "{queue}: {moved}");
    });
}

#[test]
fn a_bridge_carries_what_natives_posted_and_ends_although_natives_took_some() {
    on_every_queue("bridged", |deployment, queue| {
        use_by_both(deployment, queue);
        let target = format!("{queue}-on");
        let (from, to) = (format!("{PROJECT}/{queue}"), format!("{PROJECT}/{target}"));
        let said = deployment.run(&["bridge", "--from", &from, "--to", &to]);
        assert!(said.contains("4 messages transferred"), "{queue}: {said}");
        assert_eq!(deployment.take_all(&target), [1, 2, 3, 4], "{queue}");
    });
}

#[test]
fn health_of_adopted_queues_makes_none() {
    let Some(deployment) = Deployment::start(&json!({})) else {
        return;
    };
    let health = expect(
        &mut deployment.client().admin(),
        "GET",
        "/v2/health",
        None,
        200,
    )
    .json();
    let pool = &health["rabbit"];
    assert_eq!(pool["storage_reachable"], true, "{health}");
    let operations = pool["operation_status"].as_object().expect("operations");
    assert!(
        operations.values().all(|it| it["succeeded"] == true),
        "{health}"
    );
    let queues = deployment.node.control(&["list_queues", "name"]);
    let queues = queues.expect("queues");
    assert!(!queues.contains("health"), "{queues}");
}

#[test]
fn a_dead_letter_queue_that_the_deployment_lacks_holds_up_no_claim() {
    let Some(deployment) = Deployment::start(&json!({})) else {
        return;
    };
    deployment.native("declare", "dying", &["quorum"]);
    let mut client = deployment.client();
    let metadata =
        json!({"_flavor": "rabbit", "_dead_letter_queue": "dead", "_max_claim_count": 1});
    expect(&mut client, "PUT", "/v2/queues/dying", Some(metadata), 201);
    post(&mut client, "dying", &[1]);
    let claims = "/v2/queues/dying/claims";
    let claim = expect(&mut client, "POST", claims, None, 201);
    let location = claim.header("location").expect("a claim").to_owned();
    expect(&mut client, "DELETE", &location, None, 204);
    expect(&mut client, "POST", claims, None, 204);
    post(&mut client, "dying", &[2]);
    let claim = expect(&mut client, "POST", claims, None, 201).json();
    assert_eq!(claim["messages"][0]["body"], 2, "{claim}");
}

#[test]
fn a_queue_that_rabbitmq_lacks_is_neither_made_in_its_pool_nor_moved_there() {
    let Some(deployment) = Deployment::start(&json!({})) else {
        return;
    };
    let mut client = deployment.client();
    let flavor = || json!({"_flavor": "rabbit"});
    expect(&mut client, "PUT", "/v2/queues/lacking", None, 201);
    post(&mut client, "lacking", &[1]);
    let refused = |answer: &Answer| {
        let said = answer.to_string();
        assert!(said.contains("estate.lacking"), "{said}");
        assert!(said.contains("rabbit"), "{said}");
    };
    let patch = json!([{"op": "add", "path": "/metadata/_flavor", "value": "rabbit"}]);
    for (method, path, body) in [
        (
            "POST",
            "/moves/queue",
            json!({"project": PROJECT, "queue": "lacking", "to": "rabbit"}),
        ),
        (
            "POST",
            "/moves/pool",
            json!({"pool": "default", "to": "rabbit"}),
        ),
    ] {
        let mut operator = Client::operator(deployment.admin);
        refused(&expect(&mut operator, method, path, Some(body), 400));
    }
    let path = "/v2/queues/lacking";
    refused(&expect(
        &mut client,
        "PATCH",
        path,
        Some(patch.clone()),
        400,
    ));
    let new = "/v2/queues/lacking-too";
    let answer = expect(&mut client, "PUT", new, Some(flavor()), 400);
    assert!(
        answer.to_string().contains("estate.lacking-too"),
        "{answer}"
    );
    // Nothing has changed.
    post(&mut client, "lacking", &[2]);
    let place = "/moves/queue?project=estate&queue=lacking";
    let place = expect(
        &mut Client::operator(deployment.admin),
        "GET",
        place,
        None,
        200,
    );
    assert_eq!(place.json()["place"], json!(["default"]));
    // Once it is declared there, it goes.
    deployment.native("declare", "lacking", &["quorum"]);
    let begun = Instant::now();
    loop {
        let answer = client.send("PATCH", path, Some(&patch)).expect("an answer");
        if answer.status == 200 {
            break;
        }
        // That it is missing is believed for some seconds.
        assert!(begun.elapsed() < TIMEOUT, "{answer}");
        std::thread::sleep(Duration::from_millis(200));
    }
    let mut met = Vec::new();
    while met.len() < 2 {
        assert!(begun.elapsed() < TIMEOUT, "{met:?}");
        met.extend(deployment.take_all("lacking"));
    }
    assert_eq!(met, [1, 2]);
}
