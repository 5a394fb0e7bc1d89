//! A Keystone that is stopped, killed and started while it is in use (spec: keystone.md 9.4).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use isimud::keystone::Authenticator;
use isimud_contract::SystemClock;
use serde_json::json;

use crate::keystone::log;
use crate::keystone::request::with;
use crate::keystone::world::World;

/// An authenticator that goes by the machine's clock.
fn authenticator(world: &World) -> Arc<Authenticator> {
    let config = world.config(
        world.keystone.port,
        &json!({"cache_secs": 600, "timeout_secs": 5}),
    );
    let settings = config.resolve().expect("it is right");
    Arc::new(Authenticator::new(&settings, Arc::new(SystemClock)).expect("it can be made"))
}

async fn timed(service: &Authenticator, token: &str) -> (String, Duration) {
    let start = Instant::now();
    (with(token).outcome(service).await, start.elapsed())
}

/// Asks until Keystone decides again: the breaker lets one request a second through.
async fn patiently(service: &Authenticator, token: &str) {
    let start = Instant::now();
    while timed(service, token).await.0 != "200" {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "Keystone is not asked again"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keystone_stops_hangs_and_comes_back_under_load() {
    let mut world = tokio::task::spawn_blocking(World::start)
        .await
        .expect("it starts");
    let service = authenticator(&world);
    let (cached, new) = (world.token("alice"), world.token("alice"));
    assert_eq!(with(&cached).outcome(&service).await, "200");

    // A client that asks all the time with a cached token notices nothing at all.
    let (stop, served) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let load = {
        let (service, stop, served) =
            (Arc::clone(&service), Arc::clone(&stop), Arc::clone(&served));
        let cached = with(&cached);
        tokio::spawn(async move {
            let mut slowest = Duration::ZERO;
            while !stop.load(Ordering::Relaxed) {
                let start = Instant::now();
                assert_eq!(cached.outcome(&service).await, "200");
                slowest = slowest.max(start.elapsed());
                served.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            slowest
        })
    };

    // Hung: 503 when the time limit is over; after five of them at once.
    world.keystone.process().pause();
    let (outcome, took) = timed(&service, &new).await;
    assert_eq!(outcome, "503 5");
    assert!(
        took < Duration::from_secs(11) && took > Duration::from_secs(4),
        "{took:?}"
    );
    let mut together = Vec::new();
    for number in 0..4 {
        let service = Arc::clone(&service);
        together.push(tokio::spawn(async move {
            timed(&service, &format!("unknown-{number}")).await
        }));
    }
    for one in together {
        let (outcome, took) = one.await.expect("it ends");
        assert_eq!(outcome, "503 5");
        assert!(took < Duration::from_secs(11), "{took:?}");
    }
    let (outcome, took) = timed(&service, &new).await;
    assert_eq!(outcome, "503 5");
    assert!(
        took < Duration::from_millis(200),
        "the breaker is open: {took:?}"
    );
    world.keystone.process().resume();
    patiently(&service, &new).await;
    let asked = log::count("cannot ask Keystone about tokens");
    assert!(asked >= 1);

    // Killed: 503 at once, as nobody takes the connection.
    world.keystone.stop();
    let (outcome, took) = timed(&service, "unknown-5").await;
    assert_eq!(outcome, "503 5");
    assert!(took < Duration::from_secs(1), "{took:?}");
    world = tokio::task::spawn_blocking(move || {
        world.keystone.start_again();
        world
    })
    .await
    .expect("it starts again");
    let later = world.token("alice");
    patiently(&service, &later).await;
    assert!(log::count("Keystone validates tokens again") >= 1);

    stop.store(true, Ordering::Relaxed);
    let slowest = load.await.expect("it never failed");
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    assert!(
        served.load(Ordering::Relaxed) > 500,
        "{served:?} requests prove little"
    );
    log::assert_no_secret();
}

#[tokio::test]
async fn a_service_starts_before_its_keystone() {
    let mut world = tokio::task::spawn_blocking(World::start)
        .await
        .expect("it starts");
    let token = world.token("alice");
    let service = authenticator(&world);
    world.keystone.stop();
    assert!(service.check().await.is_err());
    assert_eq!(with(&token).outcome(&service).await, "503 5");
    let world = tokio::task::spawn_blocking(move || {
        world.keystone.start_again();
        world
    });
    let _world = world.await.expect("it starts again");
    patiently(&service, &token).await;
}
