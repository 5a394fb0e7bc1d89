//! What a 201 means is for Redis to keep, and for the log to say: when the store is opened, and when Redis was restarted
//! or replaced.

use std::time::{Duration, Instant};

use isimud_testing::redis::Servers;

use crate::servers::Service;
use crate::servers::crashes;

/// How long a server may take to notice, idle as it is.
const NOTICE: Duration = Duration::from_secs(20);

/// Starts the service on a Redis, kills that, and waits for what is said.
fn tell(redis: fn() -> Result<Servers, String>, at_first: &str, afterwards: &str) {
    let Some(service) = Service::start(redis) else {
        return;
    };
    for mut client in service.clients() {
        crashes::until_served(&mut client);
    }
    until_said(&service, at_first);
    assert!(!service.log().contains("Redis was restarted"));
    let redis = service.redis.get(0);
    redis.kill();
    redis.start_again().expect("Redis starts again");
    until_said(&service, afterwards);
}

/// Waits until both servers have said it.
fn until_said(service: &Service, what: &str) {
    let begun = Instant::now();
    loop {
        let log = service.log();
        if log.matches(what).count() >= 2 {
            return;
        }
        assert!(begun.elapsed() < NOTICE, "nobody says '{what}':\n{log}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn redis_appendfsync_always_is_logged() {
    tell(
        Servers::always,
        "survive a killed Redis and a power cut (appendfsync always)",
        "Redis was restarted, and has all that it had acknowledged (appendfsync always)",
    );
}

#[test]
fn redis_appendfsync_everysec_is_logged() {
    tell(
        Servers::single,
        "a power cut but for those of the last two seconds (appendfsync everysec)",
        "acknowledged in its last two seconds may be lost (appendfsync everysec)",
    );
}

#[test]
fn redis_appendfsync_no_is_logged() {
    tell(
        Servers::plain,
        "a power cut loses what the kernel has not written yet (appendfsync no)",
        "Redis was restarted: if the machine was too",
    );
}

#[test]
fn redis_snapshots_are_logged_as_losing_the_newest_messages() {
    tell(
        Servers::snapshots,
        "a crash loses the messages since the last; set appendonly to yes",
        "what it acknowledged since its last snapshot is lost (appendonly no)",
    );
}

#[test]
fn redis_without_persistence_is_logged_as_losing_everything() {
    tell(
        || Servers::one(&["appendonly no"]),
        "Redis keeps nothing on disk: messages are gone when it stops",
        "keeps nothing on disk: all that was in it is lost",
    );
}

#[test]
fn redis_replica_takeover_is_logged() {
    let Some(service) = Service::start(Servers::sentinel) else {
        return;
    };
    for mut client in service.clients() {
        crashes::until_served(&mut client);
    }
    service.redis.get(0).kill();
    until_said(&service, "a replica has taken over from its Redis server");
    assert!(!service.log().contains("Redis was restarted"));
}

#[test]
fn durability_of_a_redis_cluster_node_is_logged() {
    let Some(service) = Service::start(Servers::cluster) else {
        return;
    };
    for mut client in service.clients() {
        crashes::until_served(&mut client);
    }
    until_said(&service, "(appendfsync everysec)");
    // Every node is looked at now and then: it must have been seen before.
    let node = service.redis.get(1);
    node.kill();
    node.start_again().expect("the node starts again");
    until_said(
        &service,
        "Redis was restarted: messages, claims and deletions",
    );
    assert!(service.log().contains(&node.host()));
}
