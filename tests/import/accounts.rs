//! Hostile deployments into every store: what the report says, what the source had and what is in the target agree to
//! the message.

use isimud_testing::redis::Servers;
use isimud_testing::started;
use serde_json::{Value, json};

use crate::import::interruptions;
use crate::import::layout::{Deployment, Stored, id};
use crate::import::stores::{Make, Store};
use crate::import::wire::Commands;
use crate::import::{import, redis_server};

const MIB: usize = 1 << 20;

#[test]
fn accounts_of_the_embedded_store_agree() {
    agree(Store::embedded);
}

#[test]
fn accounts_of_redis_agree() {
    agree(Store::redis);
}

#[test]
fn accounts_of_rabbitmq_agree() {
    agree(Store::rabbitmq);
}

#[test]
fn accounts_of_sqs_agree() {
    agree(Store::sqs);
}

fn agree(make: Make) {
    let Some(deployment) = Deployment::new() else {
        return;
    };
    let Some(store) = started("a store", make()) else {
        return;
    };
    hostile_zaqar(&deployment, &store);
    let Some(lists) = redis_server() else { return };
    hostile_list(&lists, &store);
    hostile_stream(&lists, &store);
    interruptions::all(&lists, &store);
}

/// A body of a hostile message, and what becomes of it; `None` where it is left out.
type Hostile = (Vec<u8>, Option<Value>);

/// MessagePack of a string.
fn packed(text: &[u8]) -> Vec<u8> {
    let length = u32::try_from(text.len()).expect("a length");
    [&[0xdb], &length.to_be_bytes()[..], text].concat()
}

fn hostile_bodies() -> Vec<Hostile> {
    let deep = [&vec![0x91; 1_005][..], &[0xc0]].concat();
    let deep_text = format!("{}null{}", "[".repeat(1_005), "]".repeat(1_005));
    let deepest = [&vec![0x91; 10_000][..], &[0xc0]].concat();
    let deepest_text = format!("{}null{}", "[".repeat(10_000), "]".repeat(10_000));
    let (two, many) = ("x".repeat(2 * MIB), "y".repeat(17 * MIB));
    vec![
        (packed(b"a\0b"), Some(json!("a\0b"))),
        (
            packed("\u{fffe}\u{ffff}".as_bytes()),
            Some(json!("\u{fffe}\u{ffff}")),
        ),
        (packed(b"\xff\xfe"), Some(json!("\u{fffd}\u{fffd}"))),
        (
            [&[0xcf], &[0xff; 8][..]].concat(),
            Some(json!("18446744073709551615")),
        ),
        (vec![0xcb, 0x7f, 0xf0, 0, 0, 0, 0, 0, 0], Some(Value::Null)),
        (deep, Some(json!(deep_text))),
        (deepest, Some(json!(deepest_text))),
        (vec![0x91; 10_000], None),
        (b"\xc1".to_vec(), None),
        (packed(two.as_bytes()), Some(json!(two))),
        (packed(many.as_bytes()), Some(json!(many))),
    ]
}

/// Puts everything into a Zaqar that its API would not, and some good messages between it, in a queue beside others.
fn hostile_zaqar(deployment: &Deployment, store: &Store) {
    let bodies = hostile_bodies();
    // A tenant's queues whose keys are in each other's way.
    deployment.record("p", "w.messages", b"\x80");
    deployment.record("p", "w", b"\x80");
    deployment.record("p", "q", b"\x80");
    deployment.record("other", "q", b"\x80");
    let until = deployment.now + 3_000;
    let mut number = 1;
    for (body, _) in &bodies {
        deployment.put(&Stored {
            queue: "p.q",
            number,
            body,
            fields: &[],
        });
        deployment.plain("p.q", number + 1);
        number += 2;
    }
    deployment.plain("other.q", 500);
    deployment.put(&Stored {
        queue: "other.q",
        number: 501,
        body: b"\xc0",
        fields: &[("t", i64::MAX.to_string()), ("e", i64::MAX.to_string())],
    });
    Commands::default()
        .add([b"ZADD", b"p.queues_set", b"1", b"p.\xff"])
        .add([b"ZADD", b"p.\xff.messages", b"1", b"x"])
        .words("ZADD msgset_index 1 p.w.messages")
        .words(&format!("SET {} text", id(900)))
        .words(&format!("ZADD p.q.messages 900 {}", id(900)))
        .words(&format!("ZADD p.q.messages 901 {}", id(901)))
        .words(&format!("HSET {} e {} b x", id(902), deployment.now - 5))
        .words(&format!("ZADD p.q.messages 902 {}", id(902)))
        .words(&format!("HSET {} e {until} t x cr y b x", id(903)))
        .words(&format!("ZADD p.q.messages 903 {}", id(903)))
        .send(&deployment.redis);

    let mut expected: Vec<String> = vec![BODY.to_owned(); bodies.len()];
    let size = |body: &Value| body.to_string().len();
    let fits = bodies.iter().filter_map(|(_, body)| body.as_ref());
    let fits = fits.filter(|body| size(body) <= store.largest);
    expected.extend(fits.map(Value::to_string));
    expected.sort_unstable();
    let read = 2 * bodies.len() as u64 + 4 + 2;
    // Those of `other`, less one whose life is longer than SQS keeps anything.
    let lives = if store.name == "SQS" { 1 } else { 2 };
    let new = expected.len() as u64 + lives;

    let fixed = [
        "zaqar",
        "--from",
        &deployment.from,
        "--left-out",
        "left.json",
    ];
    let flags = [&fixed[..], &store.flags()].concat();
    for more in [&["--dry-run"][..], &["--journal", "zaqar.journal"]] {
        let ended = import(deployment.folder.path(), &[&flags[..], more].concat());
        assert_eq!(ended.code, Some(3), "{}: {ended:?}", store.name);
        assert_eq!(ended.number("read"), read, "{}: {ended:?}", store.name);
        assert_eq!(ended.number("messages"), new, "{}: {ended:?}", store.name);
        assert_eq!(
            ended.number("left out"),
            read - new - 2,
            "{}: {ended:?}",
            store.name
        );
        for line in [
            "expired 1",
            "dangling 1",
            "1 x its name is not UTF-8",
            "queue p.\\xff",
            "1 x a key is of another type than its name says",
            "1 x its key is of another type",
            "2 x its body is not MessagePack",
        ] {
            ended.says(line);
        }
        assert!(
            ended.report.contains("key p.w.messages, a hash"),
            "{ended:?}"
        );
        let named = std::fs::read_to_string(deployment.folder.path().join("left.json"));
        let named = named.expect("what is left out");
        assert!(named.lines().count() as u64 >= read - new - 2, "{named}");
        assert!(
            named.contains(&id(900)) && named.contains(&id(903)),
            "{named}"
        );
    }
    let folder = deployment.folder.path();
    assert_eq!(
        store.consume(folder, "p", &["q"]),
        expected,
        "{}",
        store.name
    );
    let other = store.consume(folder, "other", &["q"]);
    assert_eq!(other.len() as u64, lives, "{}", store.name);
    // With the journal nothing comes back, though something stands before it that was left out.
    let again = [&flags[..], &["--journal", "zaqar.journal"]].concat();
    let ended = import(folder, &again);
    assert_eq!(ended.code, Some(3), "{}: {ended:?}", store.name);
    assert_eq!(ended.number("messages"), 0, "{}: {ended:?}", store.name);
    assert_eq!(ended.number("left out"), read - new - 2, "{ended:?}");
    assert_eq!(
        store.consume(folder, "p", &["q"]),
        [""; 0],
        "{}",
        store.name
    );
}

/// The body of the messages that are as usual.
const BODY: &str = r#"{"k":["v",1,1.5,null,true,"é"]}"#;

/// The flags of an import of a list into the queue `q`.
pub(crate) fn list_flags<'a>(from: &'a str, key: &'a str, store: &'a Store) -> Vec<&'a str> {
    let fixed = ["redis-list", "--from", from, "--key", key, "--queue", key];
    [&fixed[..], &["--project", "p"], &store.flags()].concat()
}

fn hostile_list(redis: &Servers, store: &Store) {
    let from = format!("redis://{}", redis.get(0).host());
    let folder = tempfile::tempdir().expect("a folder");
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let large = "z".repeat(10 * MIB);
    let mut commands = Commands::default();
    for element in [
        &b"plain"[..],
        b"a\0b",
        b"\xff\xfe",
        b"",
        b"1e400",
        b"18446744073709551616",
        br#"{"x": "\ud800"}"#,
        b"\xef\xbf\xbe",
        deep.as_bytes(),
        large.as_bytes(),
        b"plain",
    ] {
        commands.add([b"LPUSH", b"odd", element]);
    }
    commands.send(redis);
    let mut expected = vec![
        json!("plain"),
        json!("a\0b"),
        json!({"base64": "//4="}),
        json!(""),
        json!("1e400"),
        json!("18446744073709551616"),
        json!(r#"{"x": "\ud800"}"#),
        json!("\u{fffe}"),
        json!(deep),
        json!("plain"),
    ];
    if store.largest > large.len() {
        expected.push(json!(large));
    }
    let mut expected: Vec<String> = expected.iter().map(Value::to_string).collect();
    expected.sort_unstable();
    let flags = list_flags(&from, "odd", store);
    let new = expected.len() as u64;
    for more in [&["--dry-run"][..], &["--journal", "odd.journal"]] {
        let ended = import(folder.path(), &[&flags[..], more].concat());
        let code = if new == 11 { 0 } else { 3 };
        assert_eq!(ended.code, Some(code), "{}: {ended:?}", store.name);
        assert_eq!(ended.number("messages"), new, "{}: {ended:?}", store.name);
        assert_eq!(ended.number("left out"), 11 - new, "{ended:?}");
        assert_eq!(
            ended.report.contains("element 10 of odd"),
            new < 11,
            "{ended:?}"
        );
    }
    let found = store.consume(folder.path(), "p", &["odd"]);
    assert_eq!(found, expected, "{}", store.name);
    // What was consumed here does not come back.
    let ended = import(
        folder.path(),
        &[&flags[..], &["--journal", "odd.journal"]].concat(),
    );
    assert_eq!(ended.number("messages"), 0, "{}: {ended:?}", store.name);
    assert_eq!(ended.count_of("taken over before"), new, "{ended:?}");
    assert_eq!(
        store.consume(folder.path(), "p", &["odd"]),
        [""; 0],
        "{}",
        store.name
    );
}

fn hostile_stream(redis: &Servers, store: &Store) {
    let from = format!("redis://{}", redis.get(0).host());
    let folder = tempfile::tempdir().expect("a folder");
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let large = "z".repeat(17 * MIB);
    let mut commands = Commands::default();
    for (name, value) in [
        (&b"f"[..], &b"a\0b"[..]),
        (b"f", b"\xff"),
        (b"\xff", b"x"),
        (b"f", b"[1e400]"),
        (b"f", large.as_bytes()),
        (b"", b""),
        (b"f", deep.as_bytes()),
        (b"f", b"last"),
    ] {
        commands.add([b"XADD", b"events", b"*", name, value]);
    }
    commands.send(redis);
    let mut expected = vec![
        json!("a\0b"),
        json!({"base64": "/w=="}),
        json!({"\u{fffd}": "x"}),
        json!("[1e400]"),
        json!({"": ""}),
        json!(deep),
        json!("last"),
    ];
    if store.largest > large.len() {
        expected.push(json!(large));
    }
    let mut expected: Vec<String> = expected.iter().map(Value::to_string).collect();
    expected.sort_unstable();
    let new = expected.len() as u64;
    let mut flags = list_flags(&from, "events", store);
    flags[0] = "redis-stream";
    flags.extend(["--field", "f"]);
    for more in [&["--dry-run"][..], &["--journal", "events.journal"]] {
        let ended = import(folder.path(), &[&flags[..], more].concat());
        let code = if new == 8 { 0 } else { 3 };
        assert_eq!(ended.code, Some(code), "{}: {ended:?}", store.name);
        assert_eq!(ended.number("read"), 8, "{}: {ended:?}", store.name);
        assert_eq!(ended.number("messages"), new, "{}: {ended:?}", store.name);
        assert_eq!(ended.number("left out"), 8 - new, "{ended:?}");
    }
    let found = store.consume(folder.path(), "p", &["events"]);
    assert_eq!(found, expected, "{}", store.name);
    let again = [&flags[..], &["--journal", "events.journal"]].concat();
    let ended = import(folder.path(), &again);
    assert_eq!(ended.number("messages"), 0, "{}: {ended:?}", store.name);
    assert_eq!(
        ended.number("read"),
        8 - new,
        "what was left out: {ended:?}"
    );
}
