//! Rules of the configuration, over kills and restarts.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use isimud_testing::redis::Servers;
use isimud_testing::started;
use serde_json::json;

use super::endpoints::{Chain, Endpoint, LINES};
use super::{PROJECT, consume, metric, page, post, start, wait_until};
use crate::support::server::{self, Client, Server};

const MESSAGES: u64 = 20_000;
/// Messages of one post.
const BATCH_SIZE: u64 = 100;
/// How long the journey may take at the most.
const TIMEOUT: Duration = Duration::from_secs(240);

/// Twenty thousand messages go down a line, each once, and in order where the line keeps one.
macro_rules! lines {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            go_down($name);
        })*

        #[test]
        fn every_line_has_its_test() {
            let tested = [$($name),*];
            assert!(LINES.iter().all(|line| tested.contains(&line.name)));
        }
    };
}

lines! {
    twenty_thousand_messages_go_through_redis: "embedded, Redis, embedded",
    twenty_thousand_messages_go_through_rabbitmq: "embedded, RabbitMQ, embedded",
    twenty_thousand_messages_go_through_sqs_to_rabbitmq: "embedded, SQS, RabbitMQ",
}

fn go_down(name: &str) {
    let line = LINES.iter().find(|line| line.name == name).expect(name);
    if let Some(endpoints) = started(name, (line.endpoints)()) {
        travel(line, &endpoints);
    }
}

/// The queue at a station; 0 is where the line begins.
fn queue(at: usize) -> String {
    format!("stop{at}")
}

fn key(at: usize) -> String {
    format!("{PROJECT}/{}", queue(at))
}

fn write_rules(folder: &Path, count: usize) {
    let mut rules = String::new();
    for at in 0..count {
        let (from, to) = (key(at), key(at + 1));
        writeln!(
            rules,
            "[[bridging.rules]]\nfrom = \"{from}\"\nto = \"{to}\""
        )
        .expect("text");
    }
    std::fs::write(folder.join("isimud.toml"), rules).expect("a file");
}

/// Registers the pools, and puts the queue of each station into its own.
fn lay(client: &mut Client, endpoints: &[Endpoint]) {
    let mut put = |path: &str, body| {
        let answer = client.send("PUT", path, Some(&body)).expect("an answer");
        assert_eq!(answer.status, 201, "{path}: {answer}");
    };
    for (at, endpoint) in endpoints.iter().enumerate() {
        let Endpoint { name, uri, .. } = endpoint;
        put(
            &format!("/v2/pools/{name}"),
            json!({"uri": uri, "weight": 1}),
        );
        put(&format!("/v2/flavors/{name}"), json!({"pool_list": [name]}));
        put(
            &format!("/v2/queues/{}", queue(at + 1)),
            json!({"_flavor": name}),
        );
    }
}

/// What happens meanwhile, when so many messages have arrived.
enum Event {
    KillTheServer,
    RestartTheServer,
    RestartTheStations,
}

/// Posts the numbers, in order.
fn produce(address: &RwLock<SocketAddr>, stop: &AtomicBool) {
    for first in (0..MESSAGES).step_by(usize::try_from(BATCH_SIZE).expect("a step")) {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let address = address.read().expect("the address");
        let mut client = Client::new(*address, PROJECT);
        post(&mut client, &queue(0), first..first + BATCH_SIZE);
    }
}

/// Claims and deletes what arrives.
fn collect(address: &RwLock<SocketAddr>, last: &str, arrived: &Mutex<Vec<u64>>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let met = {
            let address = address.read().expect("the address");
            consume(&mut Client::new(*address, PROJECT), last)
        };
        if met.is_empty() {
            thread::sleep(Duration::from_millis(20));
        }
        arrived.lock().expect("the numbers").extend(met);
    }
}

fn travel(line: &Chain, endpoints: &[Endpoint]) {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    write_rules(folder, endpoints.len());
    let admin = server::free_address();
    let mut running = Some(start(folder, admin));
    let first = running.as_ref().expect("it runs").address;
    lay(&mut Client::new(first, PROJECT).admin(), endpoints);
    // Whoever has it to read is in the middle of a request, and whoever has it to write kills the server: so clients know
    // what became of each request, and the bridges do not.
    let address = RwLock::new(first);
    let (arrived, stop) = (Mutex::default(), AtomicBool::new(false));
    let count = || {
        Mutex::lock(&arrived).map_or(0, |arrived: std::sync::MutexGuard<'_, Vec<u64>>| {
            arrived.len()
        })
    };
    let all = usize::try_from(MESSAGES).expect("a count");
    let last = queue(endpoints.len());
    let began = Instant::now();
    thread::scope(|scope| {
        let _ends = Ends(&stop);
        scope.spawn(|| produce(&address, &stop));
        scope.spawn(|| collect(&address, &last, &arrived, &stop));
        let mut most = 0.0_f64;
        for (tenths, event) in [
            (1, Event::KillTheServer),
            (3, Event::RestartTheStations),
            (5, Event::KillTheServer),
            (7, Event::RestartTheServer),
        ] {
            wait_until(folder, "messages arrive", TIMEOUT, || {
                let lag = metric(admin, "bridge_waiting_messages", &key(0), &key(1));
                most = most.max(lag.unwrap_or_default());
                count() >= all * tenths / 10
            });
            println!(
                "{}: {} of {all} after {:.1?}",
                line.name,
                count(),
                began.elapsed()
            );
            let mut address = address.write().expect("the address");
            match event {
                Event::RestartTheStations => {
                    let restarted = endpoints.iter().filter(|endpoint| endpoint.restart());
                    assert!(restarted.count() > 0, "no station has a server");
                    continue;
                }
                Event::KillTheServer => running.take().expect("it runs").kill(),
                Event::RestartTheServer => running.take().expect("it runs").stop(),
            }
            *address = running.insert(start(folder, admin)).address;
        }
        assert!(most > 0.0, "no lag was seen");
        wait_until(folder, "all arrive", TIMEOUT, || count() >= all);
        // What comes twice would come now.
        for at in 0..endpoints.len() {
            let waiting = || metric(admin, "bridge_waiting_messages", &key(at), &key(at + 1));
            wait_until(folder, "no lag is left", TIMEOUT, || waiting() == Some(0.0));
        }
    });
    let mut arrived = arrived.into_inner().expect("the numbers");
    let address = running.as_ref().expect("it runs").address;
    arrived.extend(consume(&mut Client::new(address, PROJECT), &last));
    if !line.is_ordered {
        arrived.sort_unstable();
    }
    let log = || server::last_lines(&server::log_in(folder), 30);
    let expected: Vec<u64> = (0..MESSAGES).collect();
    let wrong = arrived
        .iter()
        .zip(&expected)
        .position(|(met, right)| met != right);
    let around = wrong.map(|at| &arrived[at.saturating_sub(3)..(at + 3).min(arrived.len())]);
    assert_eq!(around, None, "not in order, or not once\n{}", log());
    assert_eq!(arrived.len(), expected.len(), "lost or doubled\n{}", log());
    println!(
        "{}: {MESSAGES} messages in {:.1?}",
        line.name,
        began.elapsed()
    );
}

/// Ends the others, whatever fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Two servers on one Redis have the rule; the one that works on it is killed.
#[test]
fn another_server_goes_on_with_a_rule() {
    const FEW: u64 = 4_000;
    let Some(redis) = started("Redis", Servers::single()) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let mut rules = String::from("[[bridging.rules]]\nrate = 1000\n");
    writeln!(rules, "from = \"{}\"\nto = \"{}\"", key(0), key(1)).expect("text");
    std::fs::write(folder.join("isimud.toml"), rules).expect("a file");
    let mut servers: Vec<(Server, SocketAddr)> = (0..2)
        .map(|_| {
            let admin = server::free_address();
            let flags = ["--admin-listen", &admin.to_string()];
            let server = Server::start_with(&redis.uri("pair:"), folder, &flags);
            (server, admin)
        })
        .collect();
    let mut client = Client::new(servers[0].0.address, PROJECT);
    for first in (0..FEW).step_by(100) {
        post(&mut client, &queue(0), first..first + 100);
    }
    let owns = |admin: SocketAddr| metric(admin, "bridge_up", &key(0), &key(1)).is_some();
    let mut owner = None;
    wait_until(folder, "one of them works", TIMEOUT, || {
        owner = servers.iter().position(|(_, admin)| owns(*admin));
        owner.is_some()
    });
    let (dead, admin) = servers.remove(owner.expect("one of them"));
    let crossed = || {
        let page = page(admin, "/metrics").unwrap_or_default();
        let mut lines = page.lines();
        let line = lines.find(|line| {
            line.starts_with("isimud_bridge_messages_total") && line.contains("\"crossed\"")
        });
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    wait_until(folder, "messages cross", TIMEOUT, || {
        crossed().is_some_and(|count| count >= 1_000.0)
    });
    let (other, other_admin) = &servers[0];
    assert!(!owns(*other_admin), "two of them work");
    dead.kill();
    let (mut arrived, mut client) = (Vec::new(), Client::new(other.address, PROJECT));
    wait_until(folder, "all arrive", TIMEOUT, || {
        arrived.extend(consume(&mut client, &queue(1)));
        arrived.len() as u64 >= FEW
    });
    assert!(owns(*other_admin), "the other one works");
    assert!(
        arrived.iter().copied().eq(0..FEW),
        "not in order, or not once"
    );
}
