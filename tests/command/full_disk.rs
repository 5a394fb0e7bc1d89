//! A disk that is full: what cannot be kept is refused, what was kept stays, and all is well when there is space again.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use crate::process::{Running, within};
use crate::server::Client;

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
) -> (Vec<String>, crate::server::Answer) {
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

#[test]
fn a_full_disk_refuses_what_is_new_and_keeps_what_was_acknowledged() {
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
    let ballast = place.join("ballast");
    fs::write(&ballast, vec![0; 700 * 1024]).expect("the disk has room for that");
    let arguments = ["--store", "sqlite:disk/isimud.db"];
    let server = Running::start(folder.path(), &arguments);
    let mut client = server.client();
    let mut texts = (0..).map(|number| format!("{number:04} {}", "x".repeat(4000)));

    let (mut acknowledged, refusal) = post_until_refused(&mut client, &mut texts);
    assert!(!acknowledged.is_empty(), "{refusal}\n{}", server.said());
    assert_eq!(refusal.status, 503, "{refusal}");
    let retry_after = refusal.header("retry-after").expect("a time to try again");
    assert!(retry_after.parse::<u32>().is_ok(), "{retry_after}");
    assert_eq!(
        refusal.json(),
        json!({
            "title": "Service temporarily unavailable",
            "description": "Messages could not be enqueued. Please try again in a few seconds.",
        })
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
    let retried = within(Duration::from_secs(5), || {
        let text = texts.next()?;
        let post = json!({"messages": [{"ttl": 3600, "body": text}]});
        let answer = client.send("POST", QUEUE, Some(&post)).expect("an answer");
        (answer.status == 201).then_some(text)
    });
    acknowledged.push(retried.unwrap_or_else(|| panic!("it takes no more:\n{}", server.said())));
    let (more, refusal) = post_until_refused(&mut client, &mut texts);
    assert_eq!(refusal.status, 503, "{refusal}");
    acknowledged.extend(more);
    assert_eq!(all_texts(&mut client), once_each(&acknowledged));

    server.stop();
    let server = Running::start(folder.path(), &arguments);
    let mut client = server.client();
    assert_eq!(all_texts(&mut client), once_each(&acknowledged));
    let stats = client
        .send("GET", "/v2/queues/q/stats", None)
        .expect("an answer")
        .json();
    assert_eq!(stats["messages"]["total"], Value::from(acknowledged.len()));
    drop(server);
    drop(disk);
}
