//! `isimud import`, as a program, over sources of its own: a Redis that the reference implementation filled, one that
//! was filled by hand with what the reference leaves there in its bad moments, and plain lists and streams.
//!
//! Where there is no `redis-server` the tests are left out, unless `REQUIRE_BACKENDS=1` asks for them.

mod accounts;
mod interruptions;
mod jobs;
mod layout;
mod plain;
mod reference;
mod stores;
mod wire;

use std::path::Path;
use std::process::{Command, Stdio};

use isimud_testing::redis::Servers;
use isimud_testing::started;
use serde_json::Value;

use crate::support::server::{self, Client};

/// A Redis of the test's own; `None` where there is none and none is required.
fn redis_server() -> Option<Servers> {
    started("Redis", Servers::single())
}

/// The command, ready to be run in a folder.
fn import_command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = server::isimud();
    command
        .arg("import")
        .args(arguments)
        // What a store that speaks SQS asks for; the test server takes any.
        .env("AWS_ACCESS_KEY_ID", "TEST")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

/// How an import ended, and what it said.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    report: String,
    errors: String,
}

/// Runs an import to its end.
fn import(folder: &Path, arguments: &[&str]) -> Ended {
    let output = import_command(folder, arguments)
        .output()
        .expect("the binary can be run");
    Ended {
        code: output.status.code(),
        report: String::from_utf8_lossy(&output.stdout).into_owned(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Ended {
    /// The number of a line of the report; 0 where there is no such line.
    fn number(&self, line: &str) -> u64 {
        let mut lines = self.report.lines().map(str::trim_start);
        let rest = lines.find_map(|written| written.strip_prefix(line)?.strip_prefix(' '));
        let word = rest.and_then(|rest| rest.split_whitespace().next());
        word.map_or(0, |word| word.parse().expect("a number"))
    }

    /// The number in front of some words in the line of the messages.
    fn count_of(&self, words: &str) -> u64 {
        let mut lines = self.report.lines().map(str::trim_start);
        let line = lines.find(|line| line.starts_with("messages "));
        let line = line.unwrap_or_default();
        let before = line.find(words).map(|at| &line[..at]);
        let word = before.and_then(|before| before.split_whitespace().last());
        word.map_or(0, |word| word.parse().expect("a number"))
    }

    /// Fails unless the report has a line that begins like this, blanks aside.
    fn says(&self, line: &str) {
        let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let found = self
            .report
            .lines()
            .any(|written| plain(written).starts_with(&plain(line)));
        assert!(found, "'{line}' is not in the report: {self:#?}");
    }
}

/// What the API answers to a `GET`; fails when it is no 200.
fn get(client: &mut Client, path: &str) -> Value {
    let answer = client.send("GET", path, None).expect("an answer");
    assert_eq!(answer.status, 200, "{path}: {answer}");
    answer.json()
}

/// The bodies of a queue's messages in order, claimed and delayed ones too.
fn bodies(client: &mut Client, queue: &str) -> Vec<Value> {
    let mut bodies = Vec::new();
    let mut path = format!(
        "/v2/queues/{queue}/messages?limit=20&echo=true&include_claimed=true&include_delayed=true"
    );
    loop {
        let page = get(client, &path);
        let messages = page["messages"].as_array().expect("messages");
        if messages.is_empty() {
            return bodies;
        }
        bodies.extend(messages.iter().map(|message| message["body"].clone()));
        path = page["links"][0]["href"]
            .as_str()
            .expect("a link")
            .to_owned();
    }
}
