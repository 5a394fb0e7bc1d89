//! Imports that are broken off, repeated, slowed down, or made beside others: nothing is lost or doubled, and the report
//! agrees with the target.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use isimud_testing::redis::Servers;
use isimud_testing::sqs::Emulator;
use isimud_testing::{is_required, started};

use crate::import::accounts::list_flags;
use crate::import::stores::Store;
use crate::import::wire::Commands;
use crate::import::{Ended, import, import_command, redis_server};

/// How long an import may take on a busy machine.
const TIMEOUT: Duration = Duration::from_mins(2);

/// Everything that can come between, with one store.
pub(crate) fn all(lists: &Servers, store: &Store) {
    broken_off(lists, store);
    used_meanwhile(lists, store);
    repeated(lists, store);
    two_at_once(lists, store);
    journal_without_room(lists, store);
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
        assert!(began.elapsed() < TIMEOUT, "the import does not come on");
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
    let Some(emulator) = started("SQS", Emulator::start()) else {
        return;
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
        assert!(began.elapsed() < TIMEOUT, "the import does not come on");
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
    let from = format!("redis://{}", redis.get(0).host());
    let folder = tempfile::tempdir().expect("a folder");
    fill(redis, "full", 0..700);
    let flags = list_flags(&from, "full", store);
    let Some(disk) = SmallDisk::mount(folder.path()) else {
        return;
    };
    let flags = [&flags[..], &["--journal", "small/full.journal"]].concat();
    let output = import_command(folder.path(), &flags)
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
    disk.grow();
    let rest = import(folder.path(), &flags);
    assert_eq!(rest.code, Some(0), "{rest:?}");
    assert_eq!(rest.number("messages") + stored, 700, "{rest:?}");
    assert_eq!(
        store.consume(folder.path(), "p", &["full"]),
        numbers(0..700)
    );
}

/// A file system of its own that is soon full, for a journal. The store's files are on another one.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    /// `None` where nothing can be mounted, unless everything is required.
    fn mount(folder: &Path) -> Option<Self> {
        let place = folder.join("small");
        std::fs::create_dir(&place).expect("a folder");
        let mounted = mount(&["-t", "tmpfs", "-o", "size=8k", "tmpfs"], &place);
        if !mounted {
            assert!(!is_required(), "a small file system cannot be mounted");
            eprintln!("left out: a journal on a full disk, as nothing can be mounted");
            return None;
        }
        Some(Self(place))
    }

    fn grow(&self) {
        assert!(mount(&["-o", "remount,size=10m"], &self.0), "it grows");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let ended = Command::new("umount")
            .args(["--lazy"])
            .arg(&self.0)
            .status();
        drop(ended);
    }
}

fn mount(flags: &[&str], place: &Path) -> bool {
    let mounted = Command::new("mount")
        .args(flags)
        .arg(place)
        .stderr(Stdio::null())
        .status();
    mounted.is_ok_and(|status| status.success())
}
