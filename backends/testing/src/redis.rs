//! Private Redis servers for tests: in a folder of their own, on free ports of the loopback interface, stopped with the
//! process that started them, however it ends.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::certificates::Certificates;
use crate::process::Guarded;

/// How long a server may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Servers that belong together, and the URI under which a store finds them.
#[derive(Debug)]
pub struct Servers {
    scheme: &'static str,
    hosts: String,
    options: String,
    servers: Vec<Server>,
}

impl Servers {
    /// One server that logs every change, and has it on the disk within a second or two.
    pub fn single() -> Result<Self, String> {
        Self::one(&["appendonly yes"])
    }

    /// One server whose log is on the disk before it answers.
    pub fn always() -> Result<Self, String> {
        Self::one(&["appendonly yes", "appendfsync always"])
    }

    /// One server that has nothing on its disk but snapshots, which it takes when it is told to.
    pub fn snapshots() -> Result<Self, String> {
        Self::one(&["save 86400 1000000"])
    }

    /// One server that hands its log to the kernel before it answers, and leaves the disk to it.
    pub fn plain() -> Result<Self, String> {
        Self::one(&["appendonly yes", "appendfsync no"])
    }

    /// One server with these lines in its configuration.
    pub fn one(options: &[&str]) -> Result<Self, String> {
        let server = Server::start(options)?;
        Ok(Self::of(vec![server], 1, ""))
    }

    /// Servers that are found by the first few of them.
    fn of(servers: Vec<Server>, first: usize, options: &str) -> Self {
        let hosts: Vec<String> = servers.iter().take(first).map(Server::host).collect();
        let tls = servers.iter().any(|server| server.tls_port.is_some());
        Self {
            scheme: if tls { "rediss" } else { "redis" },
            hosts: hosts.join(","),
            options: options.to_owned(),
            servers,
        }
    }

    /// Three masters that share the slots.
    pub fn cluster() -> Result<Self, String> {
        Self::cluster_with(Vec::new)
    }

    /// The same with further lines in the configuration of each.
    pub fn cluster_with(options: impl Fn() -> Vec<String>) -> Result<Self, String> {
        let masters = nodes(options)?;
        join(&masters, &masters[0])?;
        let slots = [0..=5460, 5461..=10922, 10923..=16383];
        for (master, slots) in masters.iter().zip(slots) {
            let slots: Vec<String> = slots.map(|slot| slot.to_string()).collect();
            master.command(&format!("CLUSTER ADDSLOTS {}", slots.join(" ")))?;
        }
        for master in &masters {
            master.wait_until("CLUSTER INFO", "cluster_state:ok")?;
            master.wait_until("CLUSTER INFO", "cluster_known_nodes:3")?;
        }
        Ok(Self::of(masters, 3, "&cluster=true"))
    }

    /// The same with a replica for each master: the masters come first, then their replicas in the same order.
    pub fn replicated_cluster() -> Result<Self, String> {
        let mut cluster = Self::cluster()?;
        let replicas = nodes(Vec::new)?;
        join(&replicas, &cluster.servers[0])?;
        for (master, replica) in cluster.servers.iter().zip(&replicas) {
            let name = master.command("CLUSTER MYID")?;
            let name = name.lines().nth(1).unwrap_or_default();
            replica.wait_until(&format!("CLUSTER REPLICATE {name}"), "OK")?;
            replica.wait_until("INFO replication", "master_link_status:up")?;
        }
        for server in cluster.servers.iter().chain(&replicas) {
            server.wait_until("CLUSTER INFO", "cluster_known_nodes:6")?;
            server.wait_until("CLUSTER INFO", "cluster_state:ok")?;
            server.wait_for(START_TIMEOUT, "CLUSTER NODES", |nodes| {
                nodes.matches(" slave ").count() + nodes.matches("myself,slave").count() == 3
            })?;
        }
        cluster.servers.extend(replicas);
        Ok(cluster)
    }

    /// A master with a replica, and a sentinel that watches them.
    pub fn sentinel() -> Result<Self, String> {
        Self::sentinel_with(Vec::new, Duration::from_millis(500))
    }

    /// The same for tests in which nothing fails: a master that is slow on a busy machine keeps its office.
    pub fn calm_sentinel() -> Result<Self, String> {
        Self::sentinel_with(Vec::new, START_TIMEOUT)
    }

    /// The same with further lines in the configuration of each, and a time after which a master that does not answer has
    /// failed.
    pub fn sentinel_with(
        options: impl Fn() -> Vec<String>,
        down_after: Duration,
    ) -> Result<Self, String> {
        let start = |flags: &[&str], lines: &[&str]| {
            let further = options();
            let further: Vec<&str> = further.iter().map(String::as_str).collect();
            let lines = [lines, &further].concat();
            if flags.is_empty() {
                Server::start(&lines)
            } else {
                Server::launch(flags, &lines)
            }
        };
        let master = start(&[], &["appendonly yes"])?;
        let of = format!("replicaof 127.0.0.1 {}", master.public_port());
        let replica = start(&[], &["appendonly yes", &of])?;
        replica.wait_until("INFO replication", "master_link_status:up")?;
        let port = master.public_port();
        let sentinel = start(
            &["--sentinel"],
            &[
                &format!("sentinel monitor isimud 127.0.0.1 {port} 1"),
                &format!(
                    "sentinel down-after-milliseconds isimud {}",
                    down_after.as_millis()
                ),
                "sentinel failover-timeout isimud 3000",
            ],
        )?;
        sentinel.wait_until("SENTINEL MASTER isimud", "num-slaves\r\n$1\r\n1")?;
        Ok(Self {
            hosts: sentinel.host(),
            ..Self::of(vec![master, replica, sentinel], 0, "&master=isimud")
        })
    }

    /// Where a store finds them, with all its keys under a prefix.
    pub fn uri(&self, prefix: &str) -> String {
        format!(
            "{}://{}?timeout_ms=5000&prefix={prefix}{}",
            self.scheme, self.hosts, self.options
        )
    }

    /// The same as a user who may do what the driver's page says that is needed, with that prefix and no more.
    pub fn limited_uri(&self, prefix: &str) -> String {
        let user = prefix.trim_end_matches(':');
        for server in self.servers.iter().filter(|server| !server.is_sentinel()) {
            server.limit(user, prefix);
        }
        self.uri(prefix)
            .replace("://", &format!("://{user}:{PASSWORD}@"))
    }

    /// One of them, in the order in which they were started.
    pub fn get(&self, at: usize) -> &Server {
        &self.servers[at]
    }
}

/// The password of users with few rights.
pub const PASSWORD: &str = "limited";

/// What the driver's page says that a user needs.
pub fn documented_rights() -> &'static str {
    let page = include_str!("../../redis/README.md");
    let mut lines = page.lines();
    let line = lines.find_map(|line| line.strip_prefix("ACL SETUSER isimud on >PASSWORD "));
    line.expect("the line of the rights in README.md")
}

/// Servers that are to be nodes of a cluster.
fn nodes(options: impl Fn() -> Vec<String>) -> Result<Vec<Server>, String> {
    let start = |_| {
        let further = options();
        let mut options = vec![
            "cluster-enabled yes",
            "cluster-node-timeout 1000",
            "appendonly yes",
        ];
        options.extend(further.iter().map(String::as_str));
        Server::start(&options)
    };
    (0..3).map(start).collect()
}

/// Makes nodes known to one that is in the cluster, and so to all of them.
fn join(nodes: &[Server], known: &Server) -> Result<(), String> {
    for node in nodes.iter().filter(|node| node.port != known.port) {
        let port = node.public_port();
        known.wait_until(&format!("CLUSTER MEET 127.0.0.1 {port}"), "OK")?;
    }
    Ok(())
}

/// A server and its folder.
#[derive(Debug)]
pub struct Server {
    /// Where it speaks without TLS.
    pub port: u16,
    /// Where it speaks TLS, if it does; the tests themselves speak to the other one.
    tls_port: Option<u16>,
    arguments: Vec<String>,
    process: Mutex<Guarded>,
    folder: TempDir,
}

impl Server {
    /// Starts a server with these lines in its configuration, besides those that keep it private.
    pub fn start(options: &[&str]) -> Result<Self, String> {
        // A replica need not wait for others to come along.
        let mut lines = vec!["repl-diskless-sync-delay 0"];
        if !options.iter().any(|line| line.starts_with("save ")) {
            lines.push("save \"\"");
        }
        lines.extend(options);
        Self::launch(&[], &lines)
    }

    fn launch(flags: &[&str], options: &[&str]) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| format!("no folder: {error}"))?;
        let port = free_port()?;
        let path = folder.path().join("redis.conf");
        let users = folder.path().join("users.acl");
        std::fs::write(&users, "").map_err(|error| format!("no file: {error}"))?;
        let text = format!(
            "port {port}\nbind 127.0.0.1\naclfile {}\n{}\n",
            users.display(),
            options.join("\n")
        );
        std::fs::write(&path, text).map_err(|error| format!("no file: {error}"))?;
        let mut arguments = vec![path.display().to_string()];
        arguments.extend(flags.iter().map(ToString::to_string));
        let process = Mutex::new(start(&arguments, folder.path())?);
        let tls_port = options
            .iter()
            .find_map(|line| line.strip_prefix("tls-port "));
        let server = Self {
            port,
            tls_port: tls_port.and_then(|port| port.parse().ok()),
            arguments,
            process,
            folder,
        };
        let begun = Instant::now();
        while server.command("PING").is_err() && begun.elapsed() < START_TIMEOUT {
            let ended = server.process().process.try_wait();
            if let Ok(Some(status)) = ended {
                return Err(format!("redis-server {status}: {:?}", server.log()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        server.wait_until("PING", "PONG")?;
        Ok(server)
    }

    /// The last that it wrote, backwards.
    fn log(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.path().join("log"));
        let log = log.unwrap_or_default();
        log.lines().rev().take(5).map(str::to_owned).collect()
    }

    /// Where the server keeps its data and its log.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its address and its port.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.public_port())
    }

    fn public_port(&self) -> u16 {
        self.tls_port.unwrap_or(self.port)
    }

    fn is_sentinel(&self) -> bool {
        self.arguments.iter().any(|flag| flag == "--sentinel")
    }

    /// Makes a user with the documented rights for a prefix, who is there after a restart too. A server that is down
    /// has the users that were made before.
    fn limit(&self, user: &str, prefix: &str) {
        if self.command("PING").is_err() {
            return;
        }
        let rights = documented_rights().replace("isimud:", prefix);
        let further = "+wait +select +cluster|slots +cluster|shards +readonly";
        // It may be slow on a busy machine, and both may be repeated.
        let make = format!("ACL SETUSER {user} on >{PASSWORD} {rights} {further}");
        assert_eq!(self.wait_until(&make, "+OK"), Ok(()));
        // Redis 7.0 and older have no such commands.
        for further in ["+waitaof", "+client|setinfo"] {
            drop(self.command(&format!("ACL SETUSER {user} {further}")));
        }
        assert_eq!(self.wait_until("ACL SAVE", "+OK"), Ok(()));
    }

    /// Kills the server at once, as a crash would.
    pub fn kill(&self) {
        self.process().kill();
    }

    /// Holds the server's process up, or lets it go on.
    pub fn signal(&self, name: &str) -> Result<(), String> {
        self.process().signal(name)
    }

    /// Starts a killed server again, on the same data.
    pub fn start_again(&self) -> Result<(), String> {
        let fresh = start(&self.arguments, self.folder.path())?;
        *self.process() = fresh;
        self.wait_until("PING", "PONG")
    }

    fn process(&self) -> std::sync::MutexGuard<'_, Guarded> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a command and returns the answer as it stands on the wire.
    pub fn command(&self, command: &str) -> Result<String, String> {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(Duration::from_millis(200)))?;
            stream.write_all(format!("{command}\r\n").as_bytes())?;
            let mut answer = vec![0; 64 * 1024];
            let length = stream.read(&mut answer)?;
            Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
        };
        ask().map_err(|error| format!("redis-server does not answer '{command}': {error}"))
    }

    /// Asks until the answer says something.
    pub fn wait_until(&self, command: &str, says: &str) -> Result<(), String> {
        self.wait_for(START_TIMEOUT, command, |answer| answer.contains(says))
            .map_err(|error| format!("{error}: nowhere '{says}'"))
    }

    /// Asks until the answer is right, and once more when the time is over.
    pub fn wait_for(
        &self,
        patience: Duration,
        command: &str,
        is_right: impl Fn(&str) -> bool,
    ) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let answer = self.command(command);
            if answer.as_deref().is_ok_and(&is_right) {
                return Ok(());
            }
            if begun.elapsed() > patience {
                let (Ok(last) | Err(last)) = answer;
                let log = self.log();
                return Err(format!(
                    "redis-server answers '{command}' with '{last}' (its log: {log:?})"
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn start(arguments: &[String], folder: &Path) -> Result<Guarded, String> {
    let log = File::create(folder.join("log")).map_err(|error| format!("no log: {error}"))?;
    let server = Command::new("redis-server")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stderr(log.try_clone().map_err(|error| error.to_string())?)
        .stdout(log)
        .spawn()
        .map_err(|error| format!("redis-server does not start: {error}"))?;
    Guarded::of(server)
}

/// A port that nobody listens on, nor 10,000 above it, where a cluster's bus does.
pub fn free_port() -> Result<u16, String> {
    crate::ports::reserve(11_000..16_000, &[10_000])
}

/// The lines of the configuration with which a server speaks TLS: whose certificate it shows, and whether it wants to see
/// one (`yes` or `no`).
pub fn tls_lines(certificates: &Certificates, server: &str, clients: &str) -> Vec<String> {
    let file = |name: &str| certificates.file(name).display().to_string();
    vec![
        format!("tls-port {}", free_port().expect("a port")),
        format!("tls-cert-file {}", file(server)),
        format!("tls-key-file {}", file(&format!("{server}-key"))),
        format!("tls-ca-cert-file {}", file("ca")),
        format!("tls-auth-clients {clients}"),
    ]
}
