//! Private Redis servers for tests: in a folder of their own, on free ports of the loopback interface, stopped with the
//! process that started them, however it ends.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);

/// Servers that belong together, and the URI under which a store finds them.
#[derive(Debug)]
pub(crate) struct Servers {
    scheme: &'static str,
    hosts: String,
    options: String,
    servers: Vec<Server>,
}

impl Servers {
    /// One server that logs every change, and has it on the disk within a second or two.
    pub(crate) fn single() -> Result<Self, String> {
        Self::one(&["appendonly yes"])
    }

    /// One server whose log is on the disk before it answers.
    pub(crate) fn always() -> Result<Self, String> {
        Self::one(&["appendonly yes", "appendfsync always"])
    }

    /// One server that has nothing on its disk but snapshots, which it takes when it is told to.
    pub(crate) fn snapshots() -> Result<Self, String> {
        Self::one(&["save 86400 1000000"])
    }

    /// One server that hands its log to the kernel before it answers, and leaves the disk to it.
    pub(crate) fn plain() -> Result<Self, String> {
        Self::one(&["appendonly yes", "appendfsync no"])
    }

    fn one(options: &[&str]) -> Result<Self, String> {
        let server = Server::start(options)?;
        Ok(Self {
            scheme: "redis",
            hosts: server.host(),
            options: String::new(),
            servers: vec![server],
        })
    }

    /// Three masters that share the slots.
    pub(crate) fn cluster() -> Result<Self, String> {
        let masters = nodes()?;
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
        let hosts: Vec<String> = masters.iter().map(Server::host).collect();
        Ok(Self {
            scheme: "redis",
            hosts: hosts.join(","),
            options: "&cluster=true".into(),
            servers: masters,
        })
    }

    /// The same with a replica for each master: the masters come first, then their replicas in the same order.
    pub(crate) fn replicated_cluster() -> Result<Self, String> {
        let mut cluster = Self::cluster()?;
        let replicas = nodes()?;
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
            server.wait_for(PATIENCE, "CLUSTER NODES", |nodes| {
                nodes.matches(" slave ").count() + nodes.matches("myself,slave").count() == 3
            })?;
        }
        cluster.servers.extend(replicas);
        Ok(cluster)
    }

    /// A master with a replica, and a sentinel that watches them.
    pub(crate) fn sentinel() -> Result<Self, String> {
        let master = Server::start(&["appendonly yes"])?;
        let of = format!("replicaof 127.0.0.1 {}", master.port);
        let replica = Server::start(&["appendonly yes", &of])?;
        replica.wait_until("INFO replication", "master_link_status:up")?;
        let monitor = format!("sentinel monitor isimud 127.0.0.1 {} 1", master.port);
        let sentinel = Server::launch(
            &["--sentinel"],
            &[
                &monitor,
                "sentinel down-after-milliseconds isimud 500",
                "sentinel failover-timeout isimud 3000",
            ],
        )?;
        sentinel.wait_until("SENTINEL MASTER isimud", "num-slaves\r\n$1\r\n1")?;
        Ok(Self {
            scheme: "redis",
            hosts: sentinel.host(),
            options: "&master=isimud".into(),
            servers: vec![master, replica, sentinel],
        })
    }

    /// Where a store finds them, with all its keys under a prefix.
    pub(crate) fn uri(&self, prefix: &str) -> String {
        format!(
            "{}://{}?timeout_ms=5000&prefix={prefix}{}",
            self.scheme, self.hosts, self.options
        )
    }

    pub(crate) fn get(&self, at: usize) -> &Server {
        &self.servers[at]
    }
}

/// Servers that are to be nodes of a cluster.
fn nodes() -> Result<Vec<Server>, String> {
    const OPTIONS: [&str; 3] = [
        "cluster-enabled yes",
        "cluster-node-timeout 1000",
        "appendonly yes",
    ];
    (0..3).map(|_| Server::start(&OPTIONS)).collect()
}

/// Makes nodes known to one that is in the cluster, and so to all of them.
fn join(nodes: &[Server], known: &Server) -> Result<(), String> {
    for node in nodes.iter().filter(|node| node.port != known.port) {
        known.wait_until(&format!("CLUSTER MEET 127.0.0.1 {}", node.port), "OK")?;
    }
    Ok(())
}

/// A server and its folder.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) port: u16,
    arguments: Vec<String>,
    process: Mutex<Process>,
    folder: TempDir,
}

impl Server {
    /// Starts a server with these lines in its configuration, besides those that keep it private.
    pub(crate) fn start(options: &[&str]) -> Result<Self, String> {
        let save = if options.iter().any(|line| line.starts_with("save ")) {
            options.to_vec()
        } else {
            [&["save \"\""], options].concat()
        };
        Self::launch(&[], &save)
    }

    fn launch(flags: &[&str], options: &[&str]) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| format!("no folder: {error}"))?;
        let port = free_port()?;
        let path = folder.path().join("redis.conf");
        let text = format!("port {port}\nbind 127.0.0.1\n{}\n", options.join("\n"));
        std::fs::write(&path, text).map_err(|error| format!("no file: {error}"))?;
        let mut arguments = vec![path.display().to_string()];
        arguments.extend(flags.iter().map(ToString::to_string));
        let process = Mutex::new(Process::start(&arguments, folder.path())?);
        let server = Self {
            port,
            arguments,
            process,
            folder,
        };
        server.wait_until("PING", "PONG")?;
        Ok(server)
    }

    /// Where the server keeps its data and its log.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kills the server at once, as a crash would.
    pub(crate) fn kill(&self) {
        self.process().kill();
    }

    /// Holds the server's process up, or lets it go on.
    pub(crate) fn signal(&self, name: &str) -> Result<(), String> {
        let process = self.process().server.id().to_string();
        let sent = Command::new("kill").args([name, &process]).status();
        sent.map(drop).map_err(|error| error.to_string())
    }

    /// Starts a killed server again, on the same data.
    pub(crate) fn start_again(&self) -> Result<(), String> {
        let fresh = Process::start(&self.arguments, self.folder.path())?;
        *self.process() = fresh;
        self.wait_until("PING", "PONG")
    }

    fn process(&self) -> std::sync::MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a command and returns the answer as it stands on the wire.
    pub(crate) fn command(&self, command: &str) -> Result<String, String> {
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
    pub(crate) fn wait_until(&self, command: &str, says: &str) -> Result<(), String> {
        self.wait_for(PATIENCE, command, |answer| answer.contains(says))
            .map_err(|error| format!("{error}: nowhere '{says}'"))
    }

    /// Asks until the answer is right, and once more when the time is over.
    pub(crate) fn wait_for(
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
                let log = std::fs::read_to_string(self.folder.path().join("log"));
                let log = log.unwrap_or_default();
                let end: Vec<&str> = log.lines().rev().take(5).collect();
                return Err(format!(
                    "redis-server answers '{command}' with '{last}' (its log: {end:?})"
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A running server. It ends when it is dropped, and when the process that started it ends.
#[derive(Debug)]
struct Process {
    server: Child,
    /// Waits for the end of its input, which comes when nobody is left to write it, and kills the server.
    guard: Child,
}

impl Process {
    fn start(arguments: &[String], folder: &Path) -> Result<Self, String> {
        let log = File::create(folder.join("log")).map_err(|error| format!("no log: {error}"))?;
        let mut server = Command::new("redis-server")
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("redis-server does not start: {error}"))?;
        let guard = Command::new("sh")
            .args(["-c", "read -r never; kill -9 \"$0\""])
            .arg(server.id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match guard {
            Ok(guard) => Ok(Self { server, guard }),
            Err(error) => {
                end(&mut server);
                Err(format!("the server cannot be guarded: {error}"))
            }
        }
    }

    fn kill(&mut self) {
        // The guard first: afterwards the number may be another process's.
        end(&mut self.guard);
        end(&mut self.server);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn end(process: &mut Child) {
    // It may have ended by itself; then there is nothing to do.
    process.kill().and_then(|()| process.wait()).ok();
}

fn free_port() -> Result<u16, String> {
    // A cluster's bus listens 10,000 above the port, so a high one is of no use.
    for _ in 0..100 {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let port = listener
            .local_addr()
            .map_err(|error| error.to_string())?
            .port();
        if port < 55_000 {
            return Ok(port);
        }
    }
    Err("there is no free port".into())
}
