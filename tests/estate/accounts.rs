//! Hostile estates, and imports that are broken off, into every store: what the report says, what the source had and
//! what is in the target agree to the message.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::layout::{Estate, Stored, id};
use crate::redis::Servers;
use crate::sqs::Emulator;
use crate::stores::{Make, Store};
use crate::wire::Commands;
use crate::{Ended, import, import_command, redis_server};

const MIB: usize = 1 << 20;

/// How long an import may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

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
    let required = std::env::var("REQUIRE_BACKENDS").is_ok_and(|value| value == "1");
    let Some(estate) = Estate::new() else { return };
    let store = match make() {
        Ok(store) => store,
        Err(why) if required => panic!("a store is required: {why}"),
        Err(why) => return eprintln!("left out: {why}"),
    };
    hostile_zaqar(&estate, &store);
    let Some(lists) = redis_server() else { return };
    hostile_list(&lists, &store);
    hostile_stream(&lists, &store);
    broken_off(&lists, &store);
    used_meanwhile(&lists, &store);
    repeated(&lists, &store);
    two_at_once(&lists, &store);
    journal_without_room(&lists, &store);
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
fn hostile_zaqar(estate: &Estate, store: &Store) {
    let bodies = hostile_bodies();
    // A tenant's queues whose keys are in each other's way.
    estate.record("p", "w.messages", b"\x80");
    estate.record("p", "w", b"\x80");
    estate.record("p", "q", b"\x80");
    estate.record("other", "q", b"\x80");
    let until = estate.now + 3_000;
    let mut number = 1;
    for (body, _) in &bodies {
        estate.put(&Stored {
            queue: "p.q",
            number,
            body,
            fields: &[],
        });
        estate.plain("p.q", number + 1);
        number += 2;
    }
    estate.plain("other.q", 500);
    estate.put(&Stored {
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
        .words(&format!("HSET {} e {} b x", id(902), estate.now - 5))
        .words(&format!("ZADD p.q.messages 902 {}", id(902)))
        .words(&format!("HSET {} e {until} t x cr y b x", id(903)))
        .words(&format!("ZADD p.q.messages 903 {}", id(903)))
        .send(&estate.redis);

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

    let fixed = ["zaqar", "--from", &estate.from, "--left-out", "left.json"];
    let flags = [&fixed[..], &store.flags()].concat();
    for more in [&["--dry-run"][..], &["--journal", "zaqar.journal"]] {
        let ended = import(estate.folder.path(), &[&flags[..], more].concat());
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
        let named = std::fs::read_to_string(estate.folder.path().join("left.json"));
        let named = named.expect("what is left out");
        assert!(named.lines().count() as u64 >= read - new - 2, "{named}");
        assert!(
            named.contains(&id(900)) && named.contains(&id(903)),
            "{named}"
        );
    }
    let folder = estate.folder.path();
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
fn list_flags<'a>(from: &'a str, key: &'a str, store: &'a Store) -> Vec<&'a str> {
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

/// Fills a list with jobs, the newest on the left.
fn fill(redis: &Servers, key: &str, jobs: std::ops::Range<u32>) {
    let mut commands = Commands::default();
    for job in jobs {
        commands.words(&format!("LPUSH {key} {job}"));
    }
    commands.send(redis);
}

/// Sorted as texts, as bodies are.
fn numbers(jobs: std::ops::Range<u32>) -> Vec<String> {
    let mut numbers: Vec<String> = jobs.map(|job| job.to_string()).collect();
    numbers.sort_unstable();
    numbers
}

/// Starts an import, sends it a signal as soon as its journal has some lines, and returns how it ended.
fn interrupted(
    folder: &Path,
    arguments: &[&str],
    journal: &str,
    lines: usize,
    signal: &str,
) -> Ended {
    let mut child = import_command(folder, arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary can be run");
    let began = Instant::now();
    loop {
        let written = std::fs::read_to_string(folder.join(journal)).unwrap_or_default();
        let has_ended = child.try_wait().expect("a status").is_some();
        if written.lines().count() > lines || has_ended {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "the import does not come on");
        std::thread::sleep(Duration::from_millis(1));
    }
    let told = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .stderr(Stdio::null())
        .status();
    told.expect("it can be told");
    let output = child.wait_with_output().expect("it ends");
    Ended {
        code: output.status.code(),
        report: String::from_utf8_lossy(&output.stdout).into_owned(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// `INT`, `TERM` and `KILL` at several moments: started again, the import goes on, and nothing is lost or doubled.
fn broken_off(redis: &Servers, store: &Store) {
    const JOBS: u32 = 900;
    let from = format!("redis://{}", redis.get(0).host());
    let folder = tempfile::tempdir().expect("a folder");
    for (at, (signal, lines)) in [("-INT", 0), ("-TERM", 2), ("-KILL", 1), ("-KILL", 3)]
        .into_iter()
        .enumerate()
    {
        let key = format!("broken{at}");
        let journal = format!("{key}.journal");
        fill(redis, &key, 0..JOBS);
        let flags = list_flags(&from, &key, store);
        let flags = [&flags[..], &["--journal", &journal]].concat();
        let first = interrupted(folder.path(), &flags, &journal, lines, signal);
        let rest = import(folder.path(), &flags);
        assert_eq!(rest.code, Some(0), "{} {signal}: {rest:?}", store.name);
        let (new, there) = (rest.number("messages"), rest.count_of("there already"));
        let before = rest.count_of("taken over before");
        assert_eq!(
            new + there + before,
            u64::from(JOBS),
            "{} {signal}: {rest:?}",
            store.name
        );
        if signal != "-KILL" {
            // It had time to say what it did.
            assert!([Some(0), Some(1)].contains(&first.code), "{first:?}");
            let said = first.number("messages");
            assert_eq!(said + new, u64::from(JOBS), "{first:?} {rest:?}");
            assert_eq!(there, 0, "{first:?} {rest:?}");
        }
        let found = store.consume(folder.path(), "p", &[&key]);
        assert_eq!(found, numbers(0..JOBS), "{} {signal}", store.name);
    }
}

#[test]
fn a_store_that_times_out_is_asked_again() {
    const JOBS: u32 = 500;
    let Some(lists) = redis_server() else { return };
    let emulator = match Emulator::start() {
        Ok(emulator) => emulator,
        Err(why) if std::env::var("REQUIRE_BACKENDS").is_ok_and(|value| value == "1") => {
            panic!("SQS is required: {why}")
        }
        Err(why) => return eprintln!("left out: {why}"),
    };
    let pid = emulator.pid().to_string();
    let signal = |signal: &str| {
        let told = Command::new("kill").args([signal, &pid]).status();
        assert!(told.expect("it can be told").success());
    };
    let store = Store::on_sqs(emulator, 5_000);
    let from = format!("redis://{}", lists.get(0).host());
    let folder = tempfile::tempdir().expect("a folder");
    fill(&lists, "late", 0..JOBS);
    let flags = list_flags(&from, "late", &store);
    let flags = [&flags[..], &["--journal", "late.journal"]].concat();
    let mut child = import_command(folder.path(), &flags)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary can be run");
    let began = Instant::now();
    let journal = folder.path().join("late.journal");
    while std::fs::read_to_string(&journal).map_or(0, |text| text.lines().count()) < 2 {
        assert!(began.elapsed() < PATIENCE, "the import does not come on");
        std::thread::sleep(Duration::from_millis(1));
    }
    signal("-STOP");
    // Longer than a time-out: what was asked by now is not answered in time.
    std::thread::sleep(Duration::from_millis(6_500));
    let waits = child.try_wait().expect("a status").is_none();
    signal("-CONT");
    let output = child.wait_with_output().expect("it ends");
    let ended = Ended {
        code: output.status.code(),
        report: String::from_utf8_lossy(&output.stdout).into_owned(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    assert!(waits, "it did not wait: {ended:?}");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.number("messages"), u64::from(JOBS), "{ended:?}");
    let found = store.consume(folder.path(), "p", &["late"]);
    assert_eq!(found, numbers(0..JOBS));
}

/// A native producer and a native consumer work on the list while it is read.
fn used_meanwhile(redis: &Servers, store: &Store) {
    let from = format!("redis://{}", redis.get(0).host());
    let folder = tempfile::tempdir().expect("a folder");
    fill(redis, "used", 0..800);
    let flags = list_flags(&from, "used", store);
    let flags = [&flags[..], &["--journal", "used.journal"]].concat();
    let mut child = import_command(folder.path(), &flags)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary can be run");
    for round in 0..20 {
        fill(redis, "used", 800 + 10 * round..810 + 10 * round);
        let mut taken = Commands::default();
        (0..7).for_each(|_| {
            taken.words("RPOP used");
        });
        taken.send(redis);
    }
    let code = child.wait().expect("it ends").code();
    assert!(
        [Some(0), Some(3)].contains(&code),
        "{}: {code:?}",
        store.name
    );
    // Nobody is at work now: the next import takes what the first has missed.
    let rest = import(folder.path(), &flags);
    assert_eq!(rest.code, Some(0), "{}: {rest:?}", store.name);
    let found: Vec<u32> = {
        let found = store.consume(folder.path(), "p", &["used"]);
        let mut found: Vec<u32> = found
            .iter()
            .map(|body| body.parse().expect("a number"))
            .collect();
        found.sort_unstable();
        found
    };
    assert!(
        found.windows(2).all(|two| two[0] < two[1]),
        "none is doubled"
    );
    let missing: Vec<u32> = (140..1_000).filter(|job| !found.contains(job)).collect();
    assert!(
        missing.is_empty(),
        "{}: still in the list: {missing:?}",
        store.name
    );
}

/// What is there already is told. What was consumed here comes back without a journal of the import's own, but not in a
/// store that remembers it.
fn repeated(redis: &Servers, store: &Store) {
    let from = format!("redis://{}", redis.get(0).host());
    let folder = tempfile::tempdir().expect("a folder");
    fill(redis, "again", 0..50);
    let flags = list_flags(&from, "again", store);
    let first = import(folder.path(), &flags);
    assert_eq!(first.number("messages"), 50, "{}: {first:?}", store.name);
    let second = import(folder.path(), &flags);
    assert_eq!(second.number("messages"), 0, "{}: {second:?}", store.name);
    assert_eq!(second.count_of("there already"), 50, "{second:?}");
    let found = store.consume(folder.path(), "p", &["again"]);
    assert_eq!(found, numbers(0..50), "{}", store.name);
    let third = import(folder.path(), &flags);
    assert_eq!(third.code, Some(0), "{}: {third:?}", store.name);
    let told = third.report.contains("does not deliver it again");
    assert_eq!(told, store.remembers(), "{}: {third:?}", store.name);
    let back = if store.remembers() { 0 } else { 50 };
    let found = store.consume(folder.path(), "p", &["again"]);
    assert_eq!(found.len(), back, "{}", store.name);
}

/// Two imports of one list at once count, together, what there was.
fn two_at_once(redis: &Servers, store: &Store) {
    const JOBS: u32 = 1_500;
    if !store.is_shared() {
        return;
    }
    let from = format!("redis://{}", redis.get(0).host());
    let folder = tempfile::tempdir().expect("a folder");
    fill(redis, "both", 0..JOBS);
    let flags = list_flags(&from, "both", store);
    let start = || {
        import_command(folder.path(), &flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary can be run")
    };
    let both = [start(), start()].map(|child| {
        let output = child.wait_with_output().expect("it ends");
        Ended {
            code: output.status.code(),
            report: String::from_utf8_lossy(&output.stdout).into_owned(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    });
    for ended in &both {
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let there = ended.count_of("there already");
        assert_eq!(
            ended.number("messages") + there,
            u64::from(JOBS),
            "{both:?}"
        );
    }
    let new: u64 = both.iter().map(|ended| ended.number("messages")).sum();
    assert_eq!(new, u64::from(JOBS), "{both:?}");
    let found = store.consume(folder.path(), "p", &["both"]);
    assert_eq!(found, numbers(0..JOBS));
}

/// A disk without room for the journal ends the import, and what was stored by then is told.
fn journal_without_room(redis: &Servers, store: &Store) {
    if !store.is_shared() {
        // The limit would hold for the files of the embedded store, too.
        return;
    }
    let from = format!("redis://{}", redis.get(0).host());
    let folder = tempfile::tempdir().expect("a folder");
    fill(redis, "full", 0..700);
    let flags = list_flags(&from, "full", store);
    let flags = [&flags[..], &["--journal", "full.journal"]].concat();
    let limited = "trap '' XFSZ; ulimit -f 4; exec \"$@\"";
    let output = Command::new("sh")
        .args(["-c", limited, "sh", env!("CARGO_BIN_EXE_isimud"), "import"])
        .args(&flags)
        .current_dir(folder.path())
        .output()
        .expect("the binary can be run");
    let first = Ended {
        code: output.status.code(),
        report: String::from_utf8_lossy(&output.stdout).into_owned(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    assert_eq!(first.code, Some(1), "{first:?}");
    assert!(
        first.errors.contains("the journal cannot be written"),
        "{first:?}"
    );
    let stored = first.number("messages");
    assert!((1..700).contains(&stored), "{first:?}");
    assert_eq!(store.count(folder.path(), "p", "full"), stored, "{first:?}");
    let rest = import(folder.path(), &flags);
    assert_eq!(rest.code, Some(0), "{rest:?}");
    assert_eq!(rest.number("messages") + stored, 700, "{rest:?}");
    assert_eq!(
        store.consume(folder.path(), "p", &["full"]),
        numbers(0..700)
    );
}
