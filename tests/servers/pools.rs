//! What is done to pools through one server holds for the other within a second, and no request fails meanwhile.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use isimud_testing::redis::Servers;
use serde_json::{Value, json};

use crate::servers::Service;
use crate::support::server::{Answer, Client};

/// How long the other server may go on as before.
const LAG: Duration = Duration::from_secs(1);
/// Clients of each server that post, claim and delete all the time.
const WORKERS: usize = 3;

#[test]
fn pools_come_change_and_go_while_both_servers_work() {
    let Some(service) = Service::start(Servers::single) else {
        return;
    };
    let far = Servers::plain().expect("another Redis server");
    let mut operators = service.clients().map(Client::admin);
    let traffic = Traffic::default();
    thread::scope(|scope| {
        for worker in 0..2 * WORKERS {
            let (traffic, client) = (&traffic, service.client(worker));
            scope.spawn(move || traffic.run(client, worker));
        }
        let _over = Over(&traffic.over);
        for round in 0..3 {
            operators.swap(0, 1);
            let [one, other] = &mut operators;
            let took = [
                added(&service, one, other, &far, round),
                changed(one, other, &far),
                drained(&service, one, other, round),
                removed(&service, one, other, &far, round),
            ];
            println!("added, changed, drained, removed: {took:?}");
        }
    });
    let failures = traffic.failures.into_inner().expect("failures");
    assert!(failures.is_empty(), "{failures:#?}");
    let calls = traffic.calls.load(Ordering::Relaxed);
    println!("{calls} requests meanwhile, none failed");
    assert!(calls > 200, "{calls}");
}

fn uri(far: &Servers, prefix: &str) -> String {
    far.uri(prefix)
}

/// A pool that is registered by one server takes the new queues of the other.
fn added(
    service: &Service,
    one: &mut Client,
    other: &mut Client,
    far: &Servers,
    round: usize,
) -> Duration {
    let body = json!({"uri": uri(far, "one:"), "weight": 1});
    expect(201, one, "PUT", "/v2/pools/far", Some(&body));
    let mut at = 0;
    until("queues of the new pool", || {
        at += 1;
        !is_in_default(service, other, &format!("added-{round}-{at}"))
    })
}

/// Another place is refused while the pool has a queue. With other options the store is opened anew by both servers.
fn changed(one: &mut Client, other: &mut Client, far: &Servers) -> Duration {
    let message = json!({"messages": [{"body": 1}]});
    expect(
        201,
        one,
        "POST",
        "/v2/queues/quiet/messages",
        Some(&message),
    );
    let elsewhere = json!({"uri": uri(far, "two:")});
    expect(409, one, "PATCH", "/v2/pools/far", Some(&elsewhere));
    let before = connections(far);
    let body = json!({"uri": uri(far, "one:"), "options": {"timeout_ms": 4000}});
    expect(200, one, "PATCH", "/v2/pools/far", Some(&body));
    until("connections of the new options", || {
        let stats = expect(200, other, "GET", "/v2/queues/quiet/stats", None).json();
        assert_eq!(stats["messages"]["total"], 1);
        connections(far).is_disjoint(&before)
    })
}

/// The numbers of the connections that a Redis has.
fn connections(redis: &Servers) -> HashSet<String> {
    let clients = redis.get(0).command("CLIENT LIST").expect("a list");
    let number = |line: &str| Some(line.strip_prefix("id=")?.split(' ').next()?.to_owned());
    clients.lines().filter_map(number).collect()
}

/// A weight of 0: new queues are in the default store again.
fn drained(service: &Service, one: &mut Client, other: &mut Client, round: usize) -> Duration {
    let body = json!({"weight": 0});
    expect(200, one, "PATCH", "/v2/pools/far", Some(&body));
    let mut at = 0;
    until("queues of the default store", || {
        at += 1;
        is_in_default(service, other, &format!("drained-{round}-{at}"))
    })
}

/// A removal, once the pool has no queues: both servers hang up.
fn removed(
    service: &Service,
    one: &mut Client,
    other: &mut Client,
    far: &Servers,
    round: usize,
) -> Duration {
    let begun = Instant::now();
    while expect_any(&[204, 403], one, "DELETE", "/v2/pools/far").status == 403 {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "it has queues still"
        );
        for name in queues(one) {
            // Those of the workers go by themselves; to look where one is would make it again.
            let is_theirs = name.starts_with("busy-");
            if !is_theirs && (!is_in_default(service, one, &name) || name == "quiet") {
                expect(204, one, "DELETE", &format!("/v2/queues/{name}"), None);
            }
        }
    }
    expect(404, other, "GET", "/v2/pools/far", None);
    let took = until("hanging up", || {
        let clients = far.get(0).command("CLIENT LIST").expect("a list");
        // The one who asks is one of them.
        clients.matches("addr=").count() / 2 <= 1
    });
    // Each round begins with an empty server.
    far.get(0).command("FLUSHALL").expect("an empty server");
    assert!(round < 3);
    took
}

/// The names of all queues.
fn queues(client: &mut Client) -> Vec<String> {
    let (mut names, mut path) = (Vec::new(), "/v2/queues?limit=20".to_owned());
    loop {
        let page = expect(200, client, "GET", &path, None).json();
        let queues = page["queues"].as_array().expect("queues");
        if queues.is_empty() {
            return names;
        }
        let name = |queue: &Value| queue["name"].as_str().expect("a name").to_owned();
        names.extend(queues.iter().map(name));
        let next = page["links"][0]["href"].as_str();
        next.expect("a further page").clone_into(&mut path);
    }
}

/// Whether a queue is in the default store. It is made by this client if it does not exist.
fn is_in_default(service: &Service, client: &mut Client, queue: &str) -> bool {
    let path = format!("/v2/queues/{queue}/messages");
    let message = json!({"messages": [{"body": 1}]});
    expect(201, client, "POST", &path, Some(&message));
    service.store_ids_of(0, queue) == ["default"]
}

/// Requests that go on all the time, on queues that are in the default store and on new ones.
#[derive(Default)]
struct Traffic {
    over: AtomicBool,
    calls: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Traffic {
    fn run(&self, mut client: Client, worker: usize) {
        let mut round = 0;
        while !self.over.load(Ordering::Relaxed) {
            round += 1;
            // A queue of its own each time: made, used and deleted, wherever it is.
            let queue = format!("/v2/queues/busy-{worker}-{round}");
            let message = json!({"messages": [{"body": round}, {"body": 0}]});
            self.call(
                &mut client,
                "POST",
                &format!("{queue}/messages"),
                Some(&message),
            );
            for _ in 0..5 {
                let claims = format!("{queue}/claims");
                self.call(
                    &mut client,
                    "POST",
                    &claims,
                    Some(&json!({"ttl": 60, "grace": 60})),
                );
                self.call(
                    &mut client,
                    "POST",
                    &format!("{queue}/messages"),
                    Some(&message),
                );
            }
            self.call(&mut client, "DELETE", &queue, None);
        }
    }

    fn call(&self, client: &mut Client, method: &str, path: &str, body: Option<&Value>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let failure = match client.send(method, path, body) {
            Ok(answer) if answer.status < 300 => return,
            Ok(answer) => format!("{method} {path}: {answer}"),
            Err(error) => format!("{method} {path}: {error}"),
        };
        self.failures.lock().expect("failures").push(failure);
    }
}

/// Ends the work when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks again and again, for as long as a change may need, and says how long it needed.
fn until(what: &str, mut ask: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    loop {
        // What was asked in time may be answered later, on a busy machine.
        let asked = begun.elapsed();
        if ask() {
            return asked;
        }
        assert!(
            asked < LAG,
            "{what} is not there for whoever asks after {asked:?}"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

fn expect(
    status: u16,
    client: &mut Client,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Answer {
    let answer = client.send(method, path, body).expect("an answer");
    assert_eq!(answer.status, status, "{method} {path}: {answer}");
    answer
}

fn expect_any(statuses: &[u16], client: &mut Client, method: &str, path: &str) -> Answer {
    let answer = client.send(method, path, None).expect("an answer");
    assert!(
        statuses.contains(&answer.status),
        "{method} {path}: {answer}"
    );
    answer
}
