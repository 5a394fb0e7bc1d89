//! Connections as weapons: a tenant that does not read its answers, does not send its bodies, or opens more connections
//! than it needs; and another tenant of the same server, who goes on.

use std::fs;
use std::io::{self, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use socket2::{Domain, SockRef, Socket, Type};

use crate::support::server::{Answer, Client, Server, connect, free_address};

/// How long anything that the other tenant does may take, on a busy machine.
const MAX_RESPONSE_TIME: Duration = Duration::from_secs(5);
/// Memory that a server may have at its peak beside what the budgets of a test allow, in MiB.
const AT_REST_MIB: u64 = 100;
/// The largest body of a message that the service takes.
const LARGE: usize = 262_000;

/// A server with a configuration of the test's own, and an operators' face.
struct Stage {
    server: Server,
    admin: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Stage {
    fn set(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("isimud.toml"), config).expect("a configuration");
        let admin = free_address();
        let flags = ["--admin-listen", &admin.to_string()];
        Self {
            server: Server::start_with("sqlite::memory:", folder.path(), &flags),
            admin,
            _folder: folder,
        }
    }

    /// What the operators' face says, with its status.
    fn look(&self, path: &str) -> Answer {
        let mut stream = connect(self.admin, MAX_RESPONSE_TIME).expect("it listens");
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it is read");
        let answer = Answer::read(&mut BufReader::new(stream), false);
        answer.expect("HTTP").expect("an answer")
    }

    /// The value of a metric; 0 where it has none yet.
    fn metric(&self, name: &str) -> f64 {
        let page = String::from_utf8(self.look("/metrics").body).expect("text");
        let mut values = page
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        values
            .next()
            .map_or(0.0, |value| value.parse().expect("a number"))
    }

    #[track_caller]
    fn is_alive_and_ready(&self) {
        for path in ["/live", "/ready"] {
            assert_eq!(self.look(path).status, 200, "{path}");
        }
    }

    /// Lines of the log that are no mere information.
    fn complaints(&self) -> usize {
        let log = self.server.log();
        let is_loud = |line: &&str| line.contains("WARN") || line.contains("ERROR");
        log.lines().filter(is_loud).count()
    }

    #[track_caller]
    fn complains_less_often_than(&self, most: usize) {
        let complaints = self.complaints();
        assert!(
            complaints < most,
            "{complaints} complaints:\n{}",
            self.server.log()
        );
    }

    fn attacker(&self) -> Client {
        Client::new(self.server.address, "attacker")
    }
}

/// Another tenant of the server: it posts, claims and deletes.
struct Victim(Client);

impl Victim {
    fn of(stage: &Stage) -> Self {
        Self(Client::new(stage.server.address, "victim"))
    }

    /// Does what it always does, each within the bound.
    #[track_caller]
    fn goes_on(&mut self) {
        self.0.does_its_work(MAX_RESPONSE_TIME);
    }
}

/// The head of a request, without the blank line at its end.
fn head(method: &str, path: &str, project: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nClient-ID: a6fc4e0a-6d7c-4ed1-9d3b-5a6f0d2f8b11\r\n\
         X-Project-Id: {project}\r\n"
    )
}

/// A connection from one of this machine's addresses, of which there are many, that has room for little that it is sent.
fn connect_from(address: [u8; 4], to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_recv_buffer_size(4096)?;
    socket.bind(&SocketAddr::new(IpAddr::from(address), 0).into())?;
    socket.connect_timeout(&to.into(), MAX_RESPONSE_TIME)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(MAX_RESPONSE_TIME))?;
    stream.set_write_timeout(Some(MAX_RESPONSE_TIME))?;
    Ok(stream)
}

/// Fills a queue with messages, as large as they may be, so that a page of it is as large as it may be.
fn fill(client: &mut Client, queue: &str, count: usize) -> Vec<String> {
    let body = "x".repeat(LARGE);
    let post = json!({"messages": [{"ttl": 3600, "body": body}]});
    let path = format!("/v2/queues/{queue}/messages");
    let post = |_| {
        let posted = client.send("POST", &path, Some(&post)).expect("an answer");
        assert_eq!(posted.status, 201, "{posted}");
        let posted = posted.json();
        let href = posted["resources"][0].as_str().expect("a path").to_owned();
        href.rsplit('/').next().expect("an id").to_owned()
    };
    (0..count).map(post).collect()
}

/// Asks again and again until it is so.
#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(
            start.elapsed() < MAX_RESPONSE_TIME * 2,
            "it does not come to this: {what}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// A request whose answer is not read.
fn ask(stage: &Stage, method: &str, path: &str) -> TcpStream {
    let mut stream = connect_from([127, 0, 0, 1], stage.server.address).expect("a connection");
    let request = format!("{}\r\n", head(method, path, "attacker"));
    stream.write_all(request.as_bytes()).expect("it is read");
    stream
}

#[test]
fn readers_that_do_not_read_hold_a_share_of_the_memory_until_they_are_closed() {
    let stage = Stage::set(
        "[server]\nanswer_timeout_secs = 2\n[limits]\nmax_answer_bytes_under_way = 67108864\n",
    );
    fill(&mut stage.attacker(), "big", 20);
    let mut victim = Victim::of(&stage);
    let page = "/v2/queues/big/messages?echo=true&limit=20";
    let silent: Vec<TcpStream> = (0..200).map(|_| ask(&stage, "GET", page)).collect();
    victim.goes_on();
    // Whoever of them reads finds that the others have had their share.
    wait_until("the attacker is refused", || {
        let answer = stage.attacker().send("GET", page, None).expect("an answer");
        let is_refused = answer.status == 503;
        if is_refused {
            assert_eq!(answer.header("retry-after"), Some("2"), "{answer}");
            assert_eq!(answer.json()["title"], "Service temporarily unavailable");
        }
        is_refused
    });
    assert!(stage.metric("isimud_answer_bytes_under_way") > 1e6);
    victim.goes_on();
    stage.is_alive_and_ready();
    // They are closed, and what they held is there for others.
    wait_until("silent readers are closed", || {
        victim.goes_on();
        stage.metric("isimud_connections_closed_total{reason=\"slow\"}") >= 3.0
            && stage.metric("isimud_answer_bytes_under_way") == 0.0
    });
    let answer = stage.attacker().send("GET", page, None).expect("an answer");
    assert_eq!(answer.status, 200);
    drop(silent);
    // A quarter of the budget, twice while documents are made, and what one page takes beside it.
    let peak = stage.server.peak_mib();
    assert!(peak < AT_REST_MIB + 16 * 2 + 64, "it had {peak} MiB");
    stage.complains_less_often_than(10);
}

#[test]
fn a_reader_that_is_slow_and_reads_gets_its_whole_answer() {
    let stage = Stage::set("[server]\nanswer_timeout_secs = 1\nmin_answer_rate = 65536\n");
    fill(&mut stage.attacker(), "big", 20);
    let mut stream = ask(&stage, "GET", "/v2/queues/big/messages?echo=true&limit=20");
    let (mut bytes, mut read) = (vec![0; 200_000], Vec::new());
    // Five megabytes in some three seconds.
    while !read.ends_with(b"]}") {
        let count = stream.read(&mut bytes).expect("it goes on");
        assert!(count > 0, "it was cut off after {} bytes", read.len());
        read.extend_from_slice(&bytes[..count]);
        thread::sleep(Duration::from_secs_f64(count as f64 / 2e6));
    }
    let answer = Answer::read(&mut read.as_slice(), false)
        .expect("HTTP")
        .expect("an answer");
    assert_eq!(answer.json()["messages"].as_array().map(Vec::len), Some(20));
    assert_eq!(
        stage.metric("isimud_connections_closed_total{reason=\"slow\"}"),
        0.0
    );
}

#[test]
fn bodies_that_do_not_come_have_a_share_of_the_memory() {
    let stage = Stage::set("[limits]\nmax_request_bytes_under_way = 16777216\n");
    let mut victim = Victim::of(&stage);
    let path = "/v2/queues/half/messages";
    let half = format!(
        "{}Content-Length: {LARGE}\r\n\r\n{}",
        head("POST", path, "attacker"),
        " ".repeat(LARGE / 2)
    );
    let held: Vec<TcpStream> = (0..300)
        .map(|_| {
            let mut stream =
                connect(stage.server.address, MAX_RESPONSE_TIME).expect("a connection");
            // Who is refused may be told so before it has sent it all.
            stream.write_all(half.as_bytes()).ok();
            stream
        })
        .collect();
    wait_until("the attacker is refused", || {
        victim.goes_on();
        stage.metric("isimud_requests_refused_total{reason=\"bodies\"}") >= 280.0
    });
    // The share of a project is a quarter: sixteen of them.
    assert_eq!(
        stage.metric("isimud_request_bytes_under_way"),
        16.0 * LARGE as f64
    );
    let mut stream = connect(stage.server.address, MAX_RESPONSE_TIME).expect("a connection");
    stream.write_all(half.as_bytes()).expect("it is read");
    let answer = Answer::read(&mut BufReader::new(stream), false)
        .expect("HTTP")
        .expect("an answer");
    assert_eq!(answer.status, 503, "{answer}");
    assert_eq!(answer.header("retry-after"), Some("2"), "{answer}");
    assert_eq!(answer.json()["title"], "Service temporarily unavailable");
    stage.is_alive_and_ready();
    let peak = stage.server.peak_mib();
    assert!(peak < AT_REST_MIB + 64, "it had {peak} MiB");
    stage.complains_less_often_than(10);
    drop(held);
    wait_until("nothing is held for those who are gone", || {
        stage.metric("isimud_request_bytes_under_way") == 0.0
    });
}

/// A connection on which a body is announced and does not come: it is busy.
fn busy(stage: &Stage, address: [u8; 4]) -> io::Result<TcpStream> {
    let mut stream = connect_from(address, stage.server.address)?;
    let head = head("POST", "/v2/queues/half/messages", "attacker");
    stream.write_all(format!("{head}Content-Length: 20\r\n\r\n{{").as_bytes())?;
    Ok(stream)
}

#[test]
fn connections_that_ask_nothing_make_room_for_those_that_do() {
    let stage = Stage::set("[limits]\nmax_connections = 40\n");
    let mut victim = Victim::of(&stage);
    victim.goes_on();
    let address = stage.server.address;
    let silent: Vec<_> = (0..200)
        .map(|_| connect_from([127, 0, 0, 2], address))
        .collect();
    // The connection that it has, and a new one.
    victim.goes_on();
    Victim::of(&stage).goes_on();
    wait_until("the others are gone", || {
        stage.metric("isimud_connections") <= 40.0
    });
    assert!(stage.metric("isimud_connections_closed_total{reason=\"idle\"}") >= 150.0);
    drop(silent);
    stage.complains_less_often_than(5);
}

#[test]
fn when_all_connections_are_busy_new_ones_are_told_to_come_again_and_operators_are_answered() {
    let stage = Stage::set("[limits]\nmax_connections = 40\n");
    let mut victim = Victim::of(&stage);
    victim.goes_on();
    let held: Vec<_> = (0..39).map(|_| busy(&stage, [127, 0, 0, 2])).collect();
    wait_until("all are taken", || {
        stage.metric("isimud_connections") == 40.0
    });
    victim.goes_on();
    for _ in 0..100 {
        // One that was refused may be closed before it has asked.
        let Ok(answer) = Client::new(stage.server.address, "late").send("GET", "/", None) else {
            continue;
        };
        if answer.status == 300 {
            continue;
        }
        assert_eq!(answer.status, 503, "{answer}");
        assert_eq!(answer.header("retry-after"), Some("2"), "{answer}");
        assert_eq!(answer.json()["title"], "Service temporarily unavailable");
    }
    stage.is_alive_and_ready();
    drop(held);
    wait_until("there is room again", || {
        let answer = Client::new(stage.server.address, "late").send("GET", "/", None);
        answer.is_ok_and(|answer| answer.status == 300)
    });
    stage.complains_less_often_than(5);
}

#[test]
fn one_address_does_not_have_all_connections() {
    let stage = Stage::set("[limits]\nmax_connections = 100\nmax_connections_per_address = 20\n");
    let twenty = || -> Vec<_> {
        let held = (0..20).map(|_| busy(&stage, [127, 0, 0, 2]));
        held.collect()
    };
    let first = twenty();
    // A connection whose request has not come yet would make room for the next one.
    wait_until("they are busy", || {
        stage.metric("isimud_request_bytes_under_way") == 400.0
    });
    let held = (first, twenty());
    let mut victim = Victim::of(&stage);
    victim.goes_on();
    wait_until("the others are refused", || {
        stage.metric("isimud_connections_refused_total{reason=\"address\"}") == 20.0
    });
    wait_until("the others are gone", || {
        stage.metric("isimud_connections") <= 21.0
    });
    drop(held);
}

/// How many descriptors a process has.
fn descriptors(server: &Server) -> usize {
    let folder = format!("/proc/{}/fd", server.id());
    fs::read_dir(Path::new(&folder)).expect("a process").count()
}

#[test]
fn without_descriptors_operators_are_answered_and_tenants_go_on_with_the_connections_they_have() {
    let stage = Stage::set("");
    let mut victim = Victim::of(&stage);
    victim.goes_on();
    stage.is_alive_and_ready();
    // Something else takes all descriptors but thirty.
    let bound = (descriptors(&stage.server) + 30) as u64;
    let process = rustix::process::Pid::from_raw(stage.server.id() as i32);
    let limit = rustix::process::Rlimit {
        current: Some(bound),
        maximum: Some(bound),
    };
    rustix::process::prlimit(process, rustix::process::Resource::Nofile, limit).expect("it runs");
    // As many as fit are busy, the others wait to be accepted.
    let held: Vec<_> = (0..80)
        .filter_map(|_| busy(&stage, [127, 0, 0, 2]).ok())
        .collect();
    wait_until("there are no descriptors", || {
        stage.server.log().contains("out of file descriptors")
    });
    for _ in 0..10 {
        stage.is_alive_and_ready();
        victim.goes_on();
        thread::sleep(Duration::from_millis(50));
    }
    stage.complains_less_often_than(5);
    drop(held);
    wait_until("there is room again", || {
        let answer = Client::new(stage.server.address, "late").send("GET", "/", None);
        answer.is_ok_and(|answer| answer.status == 300)
    });
}

/// Asks, waits until the first bytes of the answer are there, and resets the connection.
fn leave_in_the_answer(stage: &Stage, method: &str, path: &str) {
    let stream = ask(stage, method, path);
    let mut first = [0; 16];
    let read = stream.peek(&mut first).expect("an answer begins");
    assert!(
        first[..read].starts_with(b"HTTP/1.1 20"),
        "{}",
        first.escape_ascii()
    );
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("a socket");
}

#[test]
fn what_was_taken_for_a_client_that_leaves_in_its_answer_is_given_back() {
    let stage = Stage::set("");
    let mut client = stage.attacker();
    let ids = fill(&mut client, "big", 20);
    let mut stats = || {
        let stats = client
            .send("GET", "/v2/queues/big/stats", None)
            .expect("an answer")
            .json();
        ["claimed", "free"].map(|key| stats["messages"][key].as_u64().expect("a number"))
    };
    leave_in_the_answer(&stage, "POST", "/v2/queues/big/claims?limit=20");
    wait_until("the claim is released", || stats() == [0, 20]);
    leave_in_the_answer(&stage, "DELETE", "/v2/queues/big/messages?pop=20");
    wait_until("the messages are put back", || stats() == [0, 20]);
    assert_eq!(
        stage.metric("isimud_unreceived_total{operation=\"pop\",outcome=\"returned\"}"),
        1.0
    );
    // As the same messages, in their old order.
    let popped = client.send("DELETE", "/v2/queues/big/messages?pop=20", None);
    let popped = popped.expect("an answer").json();
    let popped = popped["messages"].as_array().expect("messages");
    let found: Vec<_> = popped
        .iter()
        .filter_map(|message| message["id"].as_str())
        .collect();
    assert_eq!(found, ids);
}
