//! A disk that is full: what cannot be kept is refused, what was kept stays and can be claimed and deleted, and all is well
//! when there is space again, whoever makes it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use crate::command::process::{Running, exchange, within};
use crate::support::server::{self, Client};

const QUEUE: &str = "/v2/queues/q/messages";

/// A disk of two mebibytes, in memory. It is taken away when the test lets go of it.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path) -> Result<Self, String> {
        let mut mount = Command::new("mount");
        let mounted = mount
            .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
            .arg(at)
            .output();
        match mounted {
            Ok(Output { status, .. }) if status.success() => Ok(Self(at)),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let mut unmount = Command::new("umount");
        let unmounted = unmount.arg("-l").arg(self.0).status();
        let is_gone = unmounted.is_ok_and(|status| status.success());
        assert!(
            is_gone || std::thread::panicking(),
            "the disk stays mounted"
        );
    }
}

/// Only root may mount, and not even root everywhere. Where tests must not be left out, root has to be able to.
fn must_run() -> bool {
    let owner = fs::metadata("/proc/self")
        .expect("a process of our own")
        .uid();
    std::env::var_os("CI").is_some() && owner == 0
}

/// Posts messages until one is refused. Returns the texts that were acknowledged, and the refusal.
fn post_until_refused(
    client: &mut Client,
    texts: &mut impl Iterator<Item = String>,
) -> (Vec<String>, crate::support::server::Answer) {
    let mut acknowledged = Vec::new();
    for text in texts {
        let post = json!({"messages": [{"ttl": 3600, "body": text}]});
        let answer = client.send("POST", QUEUE, Some(&post)).expect("an answer");
        if answer.status != 201 {
            return (acknowledged, answer);
        }
        acknowledged.push(text);
    }
    panic!("the disk has room for everything");
}

/// Every text in the queue, with how often it is there.
fn all_texts(client: &mut Client) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let mut next = Some(format!("{QUEUE}?echo=true&include_claimed=true&limit=20"));
    while let Some(path) = next {
        let page = client.send("GET", &path, None).expect("an answer");
        assert_eq!(page.status, 200, "{page}");
        let page = page.json();
        for message in page["messages"].as_array().expect("messages") {
            let text = message["body"].as_str().expect("a text").to_owned();
            *found.entry(text).or_insert(0) += 1;
        }
        next = page["links"][0]["href"].as_str().map(str::to_owned);
    }
    found
}

fn once_each(texts: &[String]) -> BTreeMap<String, usize> {
    texts.iter().map(|text| (text.clone(), 1)).collect()
}

const REFUSED: &str = "Messages could not be enqueued. The store is full: nothing is taken until messages are deleted or \
                       expire. Please try again in a few seconds.";

/// Mounts a small disk and runs a test on it, with the arguments of a server whose store is there. Where none can be mounted
/// nothing is tried.
fn on_small_disk(test: impl FnOnce(&Path, &[&str])) {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("disk");
    fs::create_dir(&place).expect("a place for the disk");
    let disk = match SmallDisk::mount(&place) {
        Ok(disk) => disk,
        Err(reason) => {
            assert!(!must_run(), "a small disk cannot be mounted: {reason}");
            let mut stderr = std::io::stderr();
            writeln!(
                stderr,
                "not tried: a full disk, for none can be mounted: {reason}"
            )
            .ok();
            return;
        }
    };
    test(folder.path(), &["--store", "sqlite:disk/isimud.db"]);
    drop(disk);
}

fn post(client: &mut Client, text: &str) -> u16 {
    let post = json!({"messages": [{"ttl": 3600, "body": text}]});
    let answer = client.send("POST", QUEUE, Some(&post));
    answer.expect("an answer").status
}

/// Posts until one is taken again.
/// The files on the disk and how long they are.
fn sizes(folder: &Path) -> Vec<(String, u64)> {
    let files = fs::read_dir(folder.join("disk")).expect("the disk");
    let size = |file: fs::DirEntry| {
        (
            file.file_name().display().to_string(),
            file.metadata().map_or(0, |it| it.len()),
        )
    };
    files.flatten().map(size).collect()
}

fn post_until_taken(
    client: &mut Client,
    texts: &mut impl Iterator<Item = String>,
) -> Option<String> {
    within(Duration::from_secs(10), || {
        let text = texts.next()?;
        (post(client, &text) == 201).then_some(text)
    })
}

#[test]
fn a_full_disk_refuses_what_is_new_and_keeps_what_was_acknowledged() {
    on_small_disk(|folder, arguments| {
        let ballast = folder.join("disk/ballast");
        fs::write(&ballast, vec![0; 700 * 1024]).expect("the disk has room for that");
        let server = Running::start(folder, arguments);
        let mut client = server.client();
        let mut texts = (0..).map(|number| format!("{number:04} {}", "x".repeat(4000)));

        let (mut acknowledged, refusal) = post_until_refused(&mut client, &mut texts);
        assert!(!acknowledged.is_empty(), "{refusal}\n{}", server.said());
        assert_eq!(refusal.status, 503, "{refusal}");
        let retry_after = refusal.header("retry-after").expect("a time to try again");
        assert!(retry_after.parse::<u32>().is_ok(), "{retry_after}");
        assert_eq!(
            refusal.json(),
            json!({"title": "Service temporarily unavailable", "description": REFUSED})
        );

        assert_eq!(all_texts(&mut client), once_each(&acknowledged));
        for (path, status) in [
            ("/v2/ping", 204),
            ("/v2/queues", 200),
            ("/v2/queues/q", 200),
            ("/v2/queues/q/stats", 200),
        ] {
            let answer = client.send("GET", path, None).expect("an answer");
            assert_eq!(answer.status, status, "{path}: {answer}");
        }

        fs::remove_file(&ballast).expect("the ballast goes");
        let retried = post_until_taken(&mut client, &mut texts);
        acknowledged
            .push(retried.unwrap_or_else(|| panic!("it takes no more:\n{}", server.said())));
        let (more, refusal) = post_until_refused(&mut client, &mut texts);
        assert_eq!(refusal.status, 503, "{refusal}");
        acknowledged.extend(more);
        assert_eq!(all_texts(&mut client), once_each(&acknowledged));

        server.stop();
        let server = Running::start(folder, arguments);
        let mut client = server.client();
        assert_eq!(all_texts(&mut client), once_each(&acknowledged));
        let stats = client
            .send("GET", "/v2/queues/q/stats", None)
            .expect("an answer")
            .json();
        assert_eq!(stats["messages"]["total"], Value::from(acknowledged.len()));
    });
}

/// Claims messages and deletes them. Returns how many.
fn consume(client: &mut Client) -> usize {
    let path = "/v2/queues/q/claims?limit=10";
    let claimed = client.send("POST", path, None).expect("an answer");
    if claimed.status == 204 {
        return 0;
    }
    assert_eq!(claimed.status, 201, "{claimed}");
    let claimed = claimed.json();
    let messages = claimed["messages"].as_array().expect("messages");
    for message in messages {
        let href = message["href"].as_str().expect("a path");
        let deleted = client.send("DELETE", href, None).expect("an answer");
        assert_eq!(deleted.status, 204, "{deleted}");
    }
    messages.len()
}

#[test]
fn a_full_disk_is_emptied_by_claims_and_deletes_also_after_a_kill() {
    on_small_disk(|folder, arguments| {
        let admin = server::free_address();
        let address = admin.to_string();
        let arguments = [arguments, &["--admin-listen", &address]].concat();
        let look = |path: &str| {
            let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            exchange(admin, &request)
        };
        let server = Running::start(folder, &arguments);
        let mut client = server.client();
        let mut texts = (0..).map(|number| format!("{number:04} {}", "x".repeat(4000)));
        let (acknowledged, _) = post_until_refused(&mut client, &mut texts);
        for _ in 0..50 {
            assert_eq!(post(&mut client, "one more"), 503);
        }
        let created = client.send("PUT", "/v2/queues/other", None);
        assert_eq!(created.expect("an answer").status, 503);
        let ready = look("/ready");
        assert_eq!(ready.status, 200, "its clients must reach it: {ready}");
        assert_eq!(ready.json()["stores"]["default"], "full");
        let metrics = String::from_utf8(look("/metrics").body).expect("text");
        assert!(
            metrics.contains("isimud_store_full{pool=\"default\"} 1"),
            "{metrics}"
        );

        // What takes no more is not taken apart by a kill, and can be consumed to the end.
        let consumed = consume(&mut client);
        assert_eq!(consumed, 10, "{}", server.said());
        let said = server.said();
        let errors = said.lines().filter(|line| line.contains("ERROR"));
        assert!(errors.count() <= 2, "{said}");
        server.kill();
        let server = Running::start(folder, &arguments);
        let mut client = server.client();
        let mut consumed = consumed;
        let mut taken = 0;
        while consumed < acknowledged.len() {
            let more = consume(&mut client);
            assert!(
                more > 0,
                "{consumed} of {}:\n{}",
                acknowledged.len(),
                server.said()
            );
            consumed += more;
            // Others may post as soon as there is room, long before all is gone.
            taken += usize::from(post(&mut client, "small") == 201);
        }
        let again = post_until_taken(&mut client, &mut texts);
        assert!(
            again.is_some(),
            "it takes no more, with {:?}:\n{}",
            sizes(folder),
            server.said()
        );
        let (more, _) = post_until_refused(&mut client, &mut texts);
        let least = acknowledged.len() / 2;
        assert!(
            more.len() + taken > least,
            "{} of {}",
            more.len(),
            acknowledged.len()
        );
        assert_eq!(look("/ready").json()["stores"]["default"], "full");
    });
}
