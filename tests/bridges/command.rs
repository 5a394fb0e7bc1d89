//! `isimud bridge`, as a program.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{PROJECT, consume, metric, post, start, wait_until};
use crate::support::server::{self, Client};

const TIMEOUT: Duration = Duration::from_secs(30);

/// The command, ready to be run.
fn bridge(admin: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = server::isimud();
    command
        .args(["bridge", "--admin", &admin.to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// How it ended, and what it said.
fn end(child: Child) -> (bool, String, String) {
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.success(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn run(admin: SocketAddr, arguments: &[&str]) -> (bool, String, String) {
    end(bridge(admin, arguments).spawn().expect("it can be run"))
}

/// The bridges that a server runs.
fn bridges(admin: SocketAddr) -> Vec<Value> {
    let answer = Client::operator(admin).send("GET", "/bridges", None);
    let document = answer.expect("an answer").json();
    document["bridges"].as_array().expect("a list").clone()
}

const FROM_TO: [&str; 4] = ["--from", "estate/a", "--to", "other/b"];

#[test]
fn a_queue_is_emptied_at_the_rate_that_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let admin = server::free_address();
    let running = start(folder.path(), admin);
    let mut client = Client::new(running.address, PROJECT);
    post(&mut client, "a", 0..400);
    let began = Instant::now();
    let mut arguments = FROM_TO.to_vec();
    arguments.extend(["--rate", "100"]);
    let child = bridge(admin, &arguments).spawn().expect("it can be run");
    let (mut most, mut oldest) = (0.0_f64, 0.0_f64);
    wait_until(folder.path(), "the lag goes", TIMEOUT, || {
        let metric = |name| metric(admin, name, "estate/a", "other/b");
        most = most.max(metric("bridge_waiting_messages").unwrap_or_default());
        oldest = oldest.max(metric("bridge_oldest_age_seconds").unwrap_or_default());
        most > 0.0 && metric("bridge_waiting_messages") == Some(0.0)
    });
    let (success, said, errors) = end(child);
    let took = began.elapsed();
    assert!(success, "{said}\n{errors}");
    let last = said.lines().last().unwrap_or_default();
    assert_eq!(last, "400 messages transferred, 0 wait");
    assert!((150.0..=400.0).contains(&most), "{most} waited");
    assert!((0.5..10.0).contains(&oldest), "{oldest} s old");
    assert!(took >= Duration::from_millis(3_800), "{took:?} is too fast");
    assert!(took < Duration::from_secs(20), "{took:?} is too slow");
    let mut other = Client::new(running.address, "other");
    let mut arrived = Vec::new();
    while arrived.len() < 400 {
        let met = consume(&mut other, "b");
        assert!(!met.is_empty(), "lost: {arrived:?}");
        arrived.extend(met);
    }
    assert!(arrived.into_iter().eq(0..400));
    // Nothing is left behind: no bridge, and no lag of one.
    assert_eq!(bridges(admin), [Value::Null; 0]);
    let left = metric(admin, "bridge_waiting_messages", "estate/a", "other/b");
    assert_eq!(left, None);
}

#[test]
fn a_bridge_that_follows_goes_on_over_a_restart_until_it_is_stopped() {
    let folder = tempfile::tempdir().expect("a folder");
    let admin = server::free_address();
    let running = start(folder.path(), admin);
    let mut client = Client::new(running.address, PROJECT);
    post(&mut client, "a", 0..5);
    let mut arguments = FROM_TO.to_vec();
    arguments.push("--follow");
    let child = bridge(admin, &arguments).spawn().expect("it can be run");
    let arrives = |address: SocketAddr, expected: std::ops::Range<u64>| {
        let (mut client, mut arrived) = (Client::new(address, "other"), Vec::new());
        wait_until(folder.path(), "messages arrive", TIMEOUT, || {
            arrived.extend(consume(&mut client, "b"));
            arrived.len() as u64 >= expected.end - expected.start
        });
        assert!(arrived.iter().copied().eq(expected), "{arrived:?}");
    };
    arrives(running.address, 0..5);
    post(&mut client, "a", 5..8);
    arrives(running.address, 5..8);
    running.stop();
    let running = start(folder.path(), admin);
    let mut client = Client::new(running.address, PROJECT);
    post(&mut client, "a", 8..10);
    arrives(running.address, 8..10);
    let told = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(told.expect("it is told").success());
    let (success, said, errors) = end(child);
    assert!(success, "{said}\n{errors}");
    assert_eq!(bridges(admin), [Value::Null; 0]);
}

#[test]
fn a_bridge_that_nobody_asks_for_any_more_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let admin = server::free_address();
    let running = start(folder.path(), admin);
    post(&mut Client::new(running.address, PROJECT), "a", 0..1);
    let mut arguments = FROM_TO.to_vec();
    arguments.push("--follow");
    let mut child = bridge(admin, &arguments).spawn().expect("it can be run");
    wait_until(folder.path(), "it runs", TIMEOUT, || {
        bridges(admin).iter().any(|one| one["state"] == "idle")
    });
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    wait_until(folder.path(), "it ends", TIMEOUT, || {
        bridges(admin).is_empty()
    });
}

#[test]
fn what_cannot_be_is_refused_with_a_sentence() {
    let folder = tempfile::tempdir().expect("a folder");
    let admin = server::free_address();
    let running = start(folder.path(), admin);
    for (from, to, named) in [
        ("a", "estate/b", "PROJECT/QUEUE"),
        ("estate/", "estate/b", "queue"),
        ("estate/a", "estate/a", "come back"),
        ("estate/none", "estate/b", "does not exist"),
    ] {
        let (success, said, errors) = run(admin, &["--from", from, "--to", to]);
        assert!(!success && errors.contains(named), "{said}\n{errors}");
    }
    let mut client = Client::new(running.address, PROJECT);
    let listed = client.send("GET", "/v2/queues", None).expect("an answer");
    assert_eq!(listed.json()["queues"], json!([]), "a queue was made");
    drop(running);
    let (success, _, errors) = run(admin, &FROM_TO);
    assert!(!success && errors.contains("no admin listener"), "{errors}");
    circle(folder.path());
}

/// Receives notifications: says yes to each, and keeps their bodies.
fn receive(listener: TcpListener) -> Receiver<Value> {
    let (told, heard) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let told = told.clone();
            thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                loop {
                    let (mut line, mut length) = (String::new(), 0);
                    while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                        let header = line.to_ascii_lowercase();
                        if let Some(value) = header.strip_prefix("content-length:") {
                            length = value.trim().parse().expect("a length");
                        }
                        line.clear();
                    }
                    let mut body = vec![0; length];
                    if length == 0 || reader.read_exact(&mut body).is_err() {
                        return;
                    }
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                    reader.get_mut().write_all(answer).ok();
                    told.send(serde_json::from_slice(&body).expect("JSON")).ok();
                }
            });
        }
    });
    heard
}

#[test]
fn subscribers_of_the_target_are_notified_of_what_crosses() {
    let folder = tempfile::tempdir().expect("a folder");
    let networks = "[notifications]\nallowed_networks = [\"127.0.0.1\"]\n";
    std::fs::write(folder.path().join("isimud.toml"), networks).expect("a file");
    let admin = server::free_address();
    let running = start(folder.path(), admin);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let heard = receive(listener);
    let subscription = json!({"subscriber": format!("http://{address}/"), "ttl": 3600});
    let mut other = Client::new(running.address, "other");
    let path = "/v2/queues/b/subscriptions";
    let made = other
        .send("POST", path, Some(&subscription))
        .expect("an answer");
    assert_eq!(made.status, 201, "{made}");
    post(&mut Client::new(running.address, PROJECT), "a", 0..3);
    let (success, said, errors) = run(admin, &FROM_TO);
    assert!(success, "{said}\n{errors}");
    let numbers: Vec<Option<u64>> = (0..3)
        .map(|_| heard.recv_timeout(TIMEOUT).expect("a notification")["body"]["number"].as_u64())
        .collect();
    assert_eq!(numbers, [Some(0), Some(1), Some(2)]);
}

/// A circle of rules is refused before anything is opened.
fn circle(folder: &Path) {
    let rule = |from, to| format!("[[bridging.rules]]\nfrom = \"p/{from}\"\nto = \"p/{to}\"\n");
    let file = folder.join("circle.toml");
    std::fs::write(&file, rule("a", "b") + &rule("b", "a")).expect("a file");
    let mut command = server::isimud();
    command.args(["--check", "--config"]).arg(&file);
    let output = command.output().expect("it can be run");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{errors}");
    assert!(
        errors.contains("bridging.rules") && errors.contains("come back"),
        "{errors}"
    );
}
