//! A pool whose backend does not answer: its queues are refused in time, those elsewhere do not notice, and when it is
//! back all goes on by itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use isimud_testing::redis::Servers;
use serde_json::{Value, json};

use crate::servers::Service;
use crate::support::server::Client;

/// How long the servers wait for the pool.
const POOL_TIMEOUT: Duration = Duration::from_millis(500);
/// For a machine that is busy with other tests.
const SLACK: Duration = Duration::from_millis(1500);
/// How long a look at the queues elsewhere takes.
const OBSERVATION_TIME: Duration = Duration::from_secs(3);
/// Until when all must go on once the backend is back.
const BACK: Duration = Duration::from_secs(10);
/// Clients that ask for the dead pool all the time.
const STUBBORN: usize = 8;

/// A service with a queue in the default store, and one in a pool on a Redis server of its own.
fn service() -> Option<(Service, Servers)> {
    let service = Service::start(Servers::single)?;
    let far = Servers::plain().expect("another Redis server");
    let mut operator = service.client(0).admin();
    let timeout = format!("timeout_ms={}", POOL_TIMEOUT.as_millis());
    let uri = far.uri("far:").replace("timeout_ms=5000", &timeout);
    for (path, body) in [
        ("/v2/pools/far", json!({"uri": uri, "weight": 1})),
        ("/v2/flavors/far", json!({"pool_list": ["far"]})),
        ("/v2/queues/far", json!({"_flavor": "far"})),
        ("/v2/queues/near", json!({})),
    ] {
        let answer = operator.send("PUT", path, Some(&body)).expect("an answer");
        assert_eq!(answer.status, 201, "{path}: {answer}");
    }
    for mut client in service.clients() {
        for queue in ["near", "far"] {
            assert_eq!(post(&mut client, queue).0, 201, "{queue}");
        }
    }
    Some((service, far))
}

/// Posts a message: the status, whether the answer says when to try again, and how long it took.
fn post(client: &mut Client, queue: &str) -> (u16, bool, Duration) {
    let message: Value = json!({"messages": [{"body": 1}]});
    let begun = Instant::now();
    let path = format!("/v2/queues/{queue}/messages");
    let answer = client
        .send("POST", &path, Some(&message))
        .expect("an answer");
    let again = answer.header("retry-after").is_some();
    (answer.status, again, begun.elapsed())
}

/// How long posts to the queue elsewhere take, sorted.
fn look(service: &Service) -> Vec<Duration> {
    let mut client = service.client(0);
    let begun = Instant::now();
    let mut took = Vec::new();
    while begun.elapsed() < OBSERVATION_TIME {
        let (status, _, time) = post(&mut client, "near");
        assert_eq!(status, 201);
        took.push(time);
        thread::sleep(Duration::from_millis(2));
    }
    took.sort_unstable();
    took
}

fn percentile(took: &[Duration], percent: usize) -> Duration {
    took[(took.len() - 1) * percent / 100]
}

/// Asks for the dead pool until told to stop, and says how long each answer took.
fn ask_in_vain(mut client: Client, over: &AtomicBool) -> Vec<Duration> {
    let mut took = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let (status, again, time) = post(&mut client, "far");
        assert_eq!(status, 503, "after {time:?}");
        assert!(again, "it does not say when to try again");
        assert!(time < POOL_TIMEOUT + SLACK, "{time:?}");
        took.push(time);
        thread::sleep(Duration::from_millis(10));
    }
    took
}

fn until_served(service: &Service) {
    let begun = Instant::now();
    for mut client in service.clients() {
        while post(&mut client, "far").0 != 201 {
            assert!(begun.elapsed() < BACK, "the pool is back and is not used");
            thread::sleep(Duration::from_millis(20));
        }
    }
    println!("served again after {:?}", begun.elapsed());
}

fn suffers_alone(service: &Service, stop: impl FnOnce(), start: impl FnOnce()) {
    let before = look(service);
    stop();
    let over = AtomicBool::new(false);
    let (during, mut refused) = thread::scope(|scope| {
        let stubborn: Vec<_> = (0..STUBBORN)
            .map(|at| {
                let (client, over) = (service.client(at), &over);
                scope.spawn(move || ask_in_vain(client, over))
            })
            .collect();
        let during = look(service);
        over.store(true, Ordering::Relaxed);
        let refused = stubborn
            .into_iter()
            .flat_map(|one| one.join().expect("refusals"));
        (during, refused.collect::<Vec<_>>())
    });
    refused.sort_unstable();
    let (one, other) = (percentile(&before, 99), percentile(&during, 99));
    println!(
        "elsewhere: p50 {:?} before, {:?} meanwhile; p99 {one:?} before, {other:?} meanwhile",
        percentile(&before, 50),
        percentile(&during, 50),
    );
    println!(
        "refusals: {}, half of them within {:?}, 99 % within {:?}",
        refused.len(),
        percentile(&refused, 50),
        percentile(&refused, 99)
    );
    // Nobody elsewhere waits for the dead one; finer differences are for a quiet machine.
    assert!(other < one + POOL_TIMEOUT / 2, "{other:?} and not {one:?}");
    let quick = percentile(&refused, 75);
    assert!(
        quick < POOL_TIMEOUT / 2,
        "most are refused at once, and not after {quick:?}"
    );
    start();
    until_served(service);
}

#[test]
fn a_pool_whose_server_is_killed_suffers_alone() {
    let Some((service, far)) = service() else {
        return;
    };
    let redis = far.get(0);
    suffers_alone(
        &service,
        || redis.kill(),
        || redis.start_again().expect("Redis starts again"),
    );
}

#[test]
fn a_pool_whose_server_hangs_suffers_alone() {
    let Some((service, far)) = service() else {
        return;
    };
    let redis = far.get(0);
    suffers_alone(
        &service,
        || redis.signal("-STOP").expect("it stops"),
        || redis.signal("-CONT").expect("it goes on"),
    );
}
