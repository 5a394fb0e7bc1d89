//! One queue of natives and of the API: what differs is said in each trial, the rest is the same for classic and quorum
//! queues, with the journal and without.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isimud_contract::{Lease, Message, MessageStore, Precondition, QueueKey, Selection};
use isimud_lease::Journal;
use uuid::Uuid;

use crate::{Setup, Store, TRIAL_TIMEOUT, lease, message};

impl Setup {
    fn run(&self, what: &str, arguments: &[&str]) -> String {
        let mut command = self.native(what, arguments);
        let command = command.stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = command.output().unwrap();
        assert!(output.status.success(), "natives.py {what}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn publish(&self, pairs: &[(&str, &str)]) {
        let pairs: Vec<&str> = pairs.iter().flat_map(|(id, body)| [*id, *body]).collect();
        self.run("publish", &pairs);
    }
}

fn bodies(messages: &[Message]) -> Vec<String> {
    let body = |it: &Message| String::from_utf8(it.body.to_vec()).unwrap();
    messages.iter().map(body).collect()
}

/// Claims until something comes.
async fn claim(store: &Store, q: &QueueKey, limit: usize, ttl: Duration) -> (Lease, Vec<Message>) {
    let begun = Instant::now();
    loop {
        let lease = Lease { ttl, ..lease() };
        if let Some(claim) = store.claim(q, &lease, limit).await.unwrap() {
            return (lease, claim.messages);
        }
        assert!(begun.elapsed() < TRIAL_TIMEOUT / 12, "nothing comes");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn delete(store: &Store, q: &QueueKey, lease: &Lease, messages: &[Message]) {
    let ids: Vec<_> = messages.iter().map(|it| it.id).collect();
    let precondition = Precondition::ClaimedBy(vec![lease.id]);
    assert_eq!(
        store.delete(q, &ids, precondition).await.unwrap(),
        ids.len()
    );
}

pub(crate) async fn an_id_that_was_deleted_before_does_not_swallow_a_message(setup: Setup) {
    setup.declare();
    let (store, q, id) = (setup.open(), setup.queue(), Uuid::new_v4().to_string());
    for body in ["1", "2", "3"] {
        setup.publish(&[(&id, body)]);
        let (lease, got) = claim(&store, &q, 5, TRIAL_TIMEOUT).await;
        assert_eq!(bodies(&got), [body]);
        delete(&store, &q, &lease, &got).await;
    }
    // One that was posted here, and is published once more by a native that chose its id.
    let posted = message(4);
    store.post(&q, vec![posted.clone()]).await.unwrap();
    let (lease, got) = claim(&store, &q, 5, TRIAL_TIMEOUT).await;
    delete(&store, &q, &lease, &got).await;
    setup.publish(&[(&posted.id.to_string(), "5")]);
    let (_, got) = claim(&store, &q, 5, TRIAL_TIMEOUT).await;
    assert_eq!(bodies(&got), ["5"]);
}

pub(crate) async fn two_messages_of_one_id_are_both_delivered(setup: Setup) {
    setup.declare();
    let (store, q, id) = (setup.open(), setup.queue(), Uuid::new_v4().to_string());
    setup.publish(&[(&id, "1"), (&id, "2"), (&id, "3")]);
    let (first, one) = claim(&store, &q, 1, TRIAL_TIMEOUT).await;
    let (second, two) = claim(&store, &q, 1, TRIAL_TIMEOUT).await;
    assert_eq!(
        (bodies(&one), bodies(&two)),
        (vec!["1".into()], vec!["2".into()])
    );
    delete(&store, &q, &first, &one).await;
    let (third, three) = claim(&store, &q, 1, TRIAL_TIMEOUT).await;
    assert_eq!(bodies(&three), ["3"]);
    let mut ids = HashSet::new();
    for (lease, message) in [(second, two), (third, three)] {
        ids.extend(message.iter().map(|it| it.id));
        delete(&store, &q, &lease, &message).await;
    }
    assert_eq!(ids.len(), 2);
    assert_eq!(store.claim(&q, &lease(), 5).await.unwrap(), None);
}

pub(crate) async fn a_message_that_a_native_gave_back_is_not_taken_for_one_that_was_deleted(
    setup: Setup,
) {
    setup.declare();
    let (store, q, id) = (setup.open(), setup.queue(), Uuid::new_v4().to_string());
    setup.publish(&[(&id, "1")]);
    let (lease, got) = claim(&store, &q, 5, TRIAL_TIMEOUT).await;
    delete(&store, &q, &lease, &got).await;
    setup.publish(&[(&id, "2")]);
    // Its input has ended already.
    setup.run("bounce", &["1"]);
    let (_, got) = claim(&store, &q, 5, TRIAL_TIMEOUT).await;
    assert_eq!(bodies(&got), ["2"]);
}

pub(crate) async fn one_claim_has_its_messages_in_the_order_of_the_queue(setup: Setup) {
    setup.declare();
    let (store, q) = (setup.open(), setup.queue());
    let id = || Uuid::new_v4().to_string();
    setup.publish(&[
        ("", "0"),
        (&id(), "1"),
        ("", "2"),
        (&id(), "3"),
        ("order 4", "4"),
    ]);
    store.post(&q, vec![message(5)]).await.unwrap();
    setup.publish(&[("", "6"), (&id(), "7")]);
    let (_, got) = claim(&store, &q, 20, TRIAL_TIMEOUT).await;
    let expected: Vec<String> = (0..8).map(|number| number.to_string()).collect();
    assert_eq!(bodies(&got), expected);
}

pub(crate) async fn bodies_that_clients_cannot_read_back_spoil_no_claim(setup: Setup) {
    setup.declare();
    let (store, q) = (setup.open(), setup.queue());
    let deep = "[".repeat(2000) + &"]".repeat(2000);
    let poison = [
        deep.as_str(),
        "[1e400]",
        "18446744073709551616",
        r#"{"a": "\ud800"}"#,
        "NaN",
    ];
    let pairs: Vec<(&str, &str)> = poison
        .iter()
        .flat_map(|it| [("", *it), ("", "{\"good\": 1}")])
        .collect();
    setup.publish(&pairs);
    let (_, got) = claim(&store, &q, 20, TRIAL_TIMEOUT).await;
    let expected: Vec<String> = poison
        .iter()
        .flat_map(|it| [serde_json::to_string(it).unwrap(), "{\"good\": 1}".into()])
        .collect();
    assert_eq!(bodies(&got), expected);
}

/// So many claims of the one message, each released or left to end.
async fn go_round(store: &Store, q: &QueueKey, rounds: usize) {
    for round in 0..rounds {
        let released = round % 2 == 0;
        let ttl = Duration::from_millis(if released { 60_000 } else { 50 });
        let (lease, got) = claim(store, q, 5, ttl).await;
        assert_eq!(bodies(&got), ["1"], "round {round}");
        if released {
            store.release_claim(q, lease.id).await.unwrap();
        } else {
            tokio::time::sleep(ttl).await;
        }
    }
    let (lease, got) = claim(store, q, 5, TRIAL_TIMEOUT).await;
    delete(store, q, &lease, &got).await;
    assert_eq!(store.claim(q, &crate::lease(), 5).await.unwrap(), None);
}

pub(crate) async fn returns_lose_nothing_whatever_the_limit_of_the_queue(setup: Setup) {
    // What came from a native, and what was posted here.
    for (limit, dead) in [("20", false), ("3", true), ("1", false), ("none", true)] {
        let name = format!("{}.{limit}", setup.name);
        let setup = Setup {
            name: name.clone(),
            ledgers: Arc::clone(&setup.ledgers),
            ..setup
        };
        let letters = format!("{name}.dead");
        let mut arguments = vec![setup.kind, limit];
        arguments.extend(dead.then_some(letters.as_str()));
        setup.run("declare", &arguments);
        let (store, q) = (setup.open(), setup.queue());
        setup.publish(&[(&Uuid::new_v4().to_string(), "1")]);
        go_round(&store, &q, 13).await;
        store.post(&q, vec![message(1)]).await.unwrap();
        go_round(&store, &q, 25).await;
    }
}

pub(crate) async fn returns_lose_nothing_under_a_policy(setup: Setup) {
    let pattern = format!("^{}", setup.name.replace('.', "\\."));
    let limit = r#"{"delivery-limit": 5}"#;
    let policy = [
        "set_policy",
        "--apply-to",
        "queues",
        &setup.name,
        &pattern,
        limit,
    ];
    setup.node.control(&policy).unwrap();
    setup.run("declare", &[setup.kind, "none"]);
    let (store, q) = (setup.open(), setup.queue());
    setup.publish(&[("", "1")]);
    go_round(&store, &q, 25).await;
}

pub(crate) async fn a_limit_that_is_wanted_stays_in_force(setup: Setup) {
    if setup.kind == "classic" {
        return;
    }
    let dead = format!("{}.dead", setup.name);
    setup.run("declare", &[setup.kind, "3", &dead]);
    let (store, q) = (setup.open_with("&delivery_limit=broker"), setup.queue());
    setup.publish(&[("", "1")]);
    // From 4.3 on RabbitMQ does not count what is given back.
    let counts_returns = setup.node.is_older_than((4, 3));
    let mut claims = 0;
    loop {
        let lease = lease();
        if store.claim(&q, &lease, 5).await.unwrap().is_none() {
            break;
        }
        claims += 1;
        store.release_claim(&q, lease.id).await.unwrap();
        if claims == 10 {
            assert!(!counts_returns, "the limit is not in force");
            return;
        }
    }
    assert!(counts_returns, "a message is gone after {claims} claims");
    let dead = Setup {
        name: dead,
        ledgers: Arc::clone(&setup.ledgers),
        ..setup
    };
    assert_eq!(dead.run("take", &["5"]), "1\n");
    until_free(&store, &q, 0).await;
    until_listed(&setup, &store, &q, 0).await;
}

/// Asks until statistics say so.
async fn until_free(store: &Store, q: &QueueKey, count: u64) {
    let begun = Instant::now();
    loop {
        let stats = store.stats(q).await.unwrap();
        if stats.free == count {
            return;
        }
        assert!(
            begun.elapsed() < TRIAL_TIMEOUT / 12,
            "{stats:?}, and not {count}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Lists until there are so many, where there is a journal.
async fn until_listed(setup: &Setup, store: &Store, q: &QueueKey, count: usize) {
    if setup.journal == Journal::Off {
        return;
    }
    let begun = Instant::now();
    loop {
        // Somebody waits for messages.
        let claim = store.claim(q, &lease(), 5).await.unwrap();
        assert_eq!(claim, None);
        let all = Selection {
            after: None,
            limit: 100,
            not_from: None,
            include_claimed: true,
            include_delayed: true,
        };
        let listed = store.list(q, all).await.unwrap().messages.len();
        if listed == count {
            return;
        }
        assert!(begun.elapsed() < TRIAL_TIMEOUT / 12, "{listed} are listed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(crate) async fn statistics_count_what_natives_post_and_take(setup: Setup) {
    setup.declare();
    let (store, q) = (setup.open(), setup.queue());
    let seven: Vec<String> = (0..7).map(|number| number.to_string()).collect();
    let seven: Vec<(&str, &str)> = seven.iter().map(|body| ("", body.as_str())).collect();
    setup.publish(&seven);
    until_free(&store, &q, 7).await;
    assert!(!store.backlog(&q).await.unwrap().is_empty());
    store.post(&q, vec![message(7), message(8)]).await.unwrap();
    until_free(&store, &q, 9).await;
    let (lease, got) = claim(&store, &q, 3, TRIAL_TIMEOUT).await;
    let stats = store.stats(&q).await.unwrap();
    assert_eq!((stats.free, stats.claimed), (6, 3));
    delete(&store, &q, &lease, &got).await;
    assert_eq!(setup.run("take", &["9"]).lines().count(), 6);
    until_free(&store, &q, 0).await;
    until_listed(&setup, &store, &q, 0).await;
    assert!(store.backlog(&q).await.unwrap().is_empty());
}

pub(crate) async fn a_message_that_a_native_holds_is_not_lost_when_it_is_listed_no_more(
    setup: Setup,
) {
    setup.declare();
    let (store, q) = (setup.open(), setup.queue());
    store.post(&q, vec![message(1)]).await.unwrap();
    let mut command = setup.native("bounce", &["1"]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut native = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(native.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "held\n");
    until_free(&store, &q, 0).await;
    until_listed(&setup, &store, &q, 0).await;
    drop(native.stdin.take());
    assert!(native.wait().unwrap().success());
    let (lease, got) = claim(&store, &q, 5, TRIAL_TIMEOUT).await;
    assert_eq!(bodies(&got), ["1"]);
    delete(&store, &q, &lease, &got).await;
    assert_eq!(store.claim(&q, &crate::lease(), 5).await.unwrap(), None);
}

/// The claim of one message, held for longer than a hold lasts, again and again.
pub(crate) async fn a_claim_of_many_holds_keeps_its_message(setup: Setup) {
    setup.run("declare", &[setup.kind, "2"]);
    let (store, q) = (
        setup.open_with("&timeout_ms=1900&hold_cap_s=2"),
        setup.queue(),
    );
    setup.publish(&[("", "1")]);
    let (lease, got) = claim(&store, &q, 5, TRIAL_TIMEOUT).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(9) {
        assert_eq!(store.claim(&q, &crate::lease(), 5).await.unwrap(), None);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    store.release_claim(&q, lease.id).await.unwrap();
    let (lease, again) = claim(&store, &q, 5, TRIAL_TIMEOUT).await;
    assert_eq!(again[0].id, got[0].id);
    delete(&store, &q, &lease, &again).await;
}
