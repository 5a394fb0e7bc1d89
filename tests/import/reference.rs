//! A deployment of 100,000 messages in 500 queues, made by the reference implementation itself through its own API.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use isimud_testing::redis::Servers;

use crate::import::{import, import_command, redis_server};
use crate::support::server::{READY, Server};

/// Some are deleted again while the deployment is filled; 100,000 and some are left.
const MESSAGES: &str = "101500";
const LEFT: u64 = 100_000;

/// How long a script may take on a busy machine.
const TIMEOUT: Duration = Duration::from_mins(5);

/// What the reference and Isimud are told alike.
const LIMITS: [(&str, &str); 3] = [
    ("max_messages_per_page", "5000"),
    ("max_messages_per_claim_or_pop", "100"),
    ("max_messages_post_size", "1048576"),
];

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The interpreter that has the reference.
fn python() -> PathBuf {
    isimud_testing::python("zaqar").expect("a reference to fill an existing deployment with")
}

/// Where the reference keeps its queues.
#[derive(Clone, Copy, PartialEq)]
enum Management {
    Redis,
    Sql,
}

/// Starts the reference on a Redis, and returns where it answers.
fn reference(
    python: &Path,
    redis: &Servers,
    folder: &Path,
    management: Management,
) -> (Process, String) {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let port = port.expect("a free port").port();
    let configuration = folder.join(format!("zaqar-{port}.conf"));
    let uri = format!("uri = redis://{}\n", redis.get(0).host());
    let limits: String = LIMITS
        .iter()
        .map(|(key, value)| format!("{key} = {value}\n"))
        .collect();
    let (kind, queues) = match management {
        Management::Redis => ("redis", uri.clone()),
        Management::Sql => (
            "sqlalchemy",
            format!("uri = sqlite:///{}/queues.db\n", folder.display()),
        ),
    };
    let text = format!(
        "[DEFAULT]\nauth_strategy =\nunreliable = true\npooling = false\nenable_checksum = true\n\
         [drivers]\nmessage_store = redis\nmanagement_store = {kind}\n\
         [drivers:message_store:redis]\n{uri}[drivers:management_store:{kind}]\n{queues}\
         [drivers:transport:wsgi]\nbind = 127.0.0.1\nport = {port}\n\
         [transport]\nmessage_encryption_key = MyKey123\n{limits}"
    );
    std::fs::write(&configuration, text).expect("written");
    let log = File::create(folder.join(format!("zaqar-{port}.log"))).expect("a log");
    let child = Command::new(python.with_file_name("zaqar-server"))
        .args(["--config-file".as_ref(), configuration.as_os_str()])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the reference can be run");
    let process = Process(child);
    let started = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        let log = std::fs::read_to_string(folder.join(format!("zaqar-{port}.log")));
        assert!(
            started.elapsed() < READY,
            "the reference does not answer: {log:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    (process, format!("http://127.0.0.1:{port}"))
}

/// Runs the script that fills and compares, and returns what it said.
fn script(python: &Path, folder: &Path, arguments: &[&str]) -> String {
    let path = folder.join(format!("{}.log", arguments[0]));
    let log = File::create(&path).expect("a log");
    let child = Command::new(python)
        .arg(root().join("tests/import/zaqar_source.py"))
        .args(arguments)
        .args(["--ledger", "ledger.json"])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("two writers"))
        .stderr(log)
        .spawn()
        .expect("Python can be run");
    let mut process = Process(child);
    let started = Instant::now();
    let status = loop {
        match process.0.try_wait().expect("a status") {
            Some(status) => break status,
            None if started.elapsed() > TIMEOUT => panic!("{arguments:?} takes too long"),
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let said = std::fs::read_to_string(&path).expect("what it said");
    assert!(status.success(), "{arguments:?}: {status}\n{said}");
    said
}

/// The number in front of a word.
fn number_before(word: &str, text: &str) -> u64 {
    let words: Vec<&str> = text.split_whitespace().collect();
    let place = words.iter().position(|other| *other == word).expect(word);
    words[place - 1].parse().expect("a number")
}

/// Starts an import, and ends it in its midst, as a crash would.
fn break_off(folder: &Path, arguments: &[&str]) {
    let child = import_command(folder, arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary can be run");
    let mut process = Process(child);
    let started = Instant::now();
    loop {
        let journal = std::fs::read_to_string(folder.join("journal")).unwrap_or_default();
        if journal.lines().count() > 100 {
            break;
        }
        assert!(started.elapsed() < TIMEOUT, "the import does not come on");
        let ended = process.0.try_wait().expect("a status");
        assert!(ended.is_none(), "the import ended before it was broken off");
        std::thread::sleep(Duration::from_millis(2));
    }
    drop(process);
}

/// Writes the service's configuration, and the key of the reference.
fn configure(folder: &Path) {
    let limits: String = LIMITS
        .iter()
        .map(|(key, value)| format!("{key} = {value}\n"))
        .collect();
    let text = format!("[messages]\nchecksums = true\n[limits]\n{limits}");
    std::fs::write(folder.join("isimud.toml"), text).expect("written");
    std::fs::write(folder.join("keys"), "MyKey123\n").expect("written");
}

#[test]
fn everything_that_the_reference_has_is_here_as_it_is_there() {
    let (Some(theirs), Some(ours)) = (redis_server(), redis_server()) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let python = python();
    let started = Instant::now();
    let (_one, first) = reference(&python, &theirs, folder, Management::Redis);
    let (_two, second) = reference(&python, &theirs, folder, Management::Redis);
    let both = format!("{first},{second}");
    let filled = script(
        &python,
        folder,
        &[
            "fill",
            "--reference",
            &both,
            "--queues",
            "500",
            "--messages",
            MESSAGES,
        ],
    );
    let messages = number_before("messages", &filled);
    assert!(messages >= LEFT, "{filled}");
    println!("{} after {:?}", filled.trim(), started.elapsed());

    configure(folder);
    // The service runs meanwhile.
    let store = ours.uri("imported:");
    let service = Server::start(&store, folder);
    let from = format!("redis://{}", theirs.get(0).host());
    let shared = [
        "zaqar",
        "--from",
        &from,
        "--store",
        &store,
        "--config",
        "isimud.toml",
    ];
    let arguments = [&shared[..], &["--encryption-key-file", "keys"]].concat();
    let journalled = [&arguments[..], &["--journal", "journal"]].concat();
    let before = crate::import::wire::changes(&theirs);
    break_off(folder, &journalled);
    let ended = import(folder, &journalled);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    println!("{} after {:?}", ended.report.trim(), started.elapsed());
    let again = import(folder, &arguments);
    again.says(&format!("messages 0 new, {messages} there already"));
    assert_eq!(
        crate::import::wire::changes(&theirs),
        before,
        "the source was changed"
    );

    let url = format!("http://{}", service.address);
    let compared = script(
        &python,
        folder,
        &["compare", "--reference", &both, "--service", &url],
    );
    assert_eq!(number_before("messages", &compared), messages, "{compared}");
    println!("{} after {:?}", compared.trim(), started.elapsed());
}

/// The tables as the reference would make them; its migrations are for MySQL alone.
const TABLES: &str = "\
import sqlalchemy
from zaqar.storage.sqlalchemy import tables
tables.metadata.create_all(sqlalchemy.create_engine('sqlite:///queues.db'))
";

const DUMP: &str = "\
import sqlite3
with open('queues.sql', 'w') as file:
    file.write('\\n'.join(sqlite3.connect('queues.db').iterdump()))
";

fn run_python(python: &Path, folder: &Path, code: &str) {
    let ran = Command::new(python)
        .args(["-c", code])
        .current_dir(folder)
        .output();
    let ran = ran.expect("Python can be run");
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

#[test]
fn queues_in_sql_come_from_the_file_and_from_a_dump() {
    let Some(theirs) = redis_server() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let python = python();
    run_python(&python, folder, TABLES);
    let (_reference, url) = reference(&python, &theirs, folder, Management::Sql);
    script(
        &python,
        folder,
        &[
            "fill",
            "--reference",
            &url,
            "--queues",
            "40",
            "--messages",
            "2000",
        ],
    );
    run_python(&python, folder, DUMP);
    configure(folder);
    let from = format!("redis://{}", theirs.get(0).host());
    for management in ["queues.db", "queues.sql"] {
        let store = format!("sqlite:{management}.isimud");
        let shared = [
            "zaqar",
            "--from",
            &from,
            "--store",
            &store,
            "--config",
            "isimud.toml",
        ];
        let more = ["--encryption-key-file", "keys", "--management", management];
        let ended = import(folder, &[&shared[..], &more].concat());
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let service = Server::start(&store, folder);
        let service = format!("http://{}", service.address);
        script(
            &python,
            folder,
            &["compare", "--reference", &url, "--service", &service],
        );
    }
}
