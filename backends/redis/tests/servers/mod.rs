//! Private Redis servers for tests: in a folder of their own, on free ports of the loopback interface, stopped with the
//! process that started them.
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
    hosts: String,
    options: String,
    servers: Vec<Server>,
}

impl Servers {
    /// One server that logs every change.
    pub(crate) fn single() -> Result<Self, String> {
        Self::one(&["--appendonly", "yes"])
    }

    /// One server whose log is on the disk before it answers.
    pub(crate) fn always() -> Result<Self, String> {
        Self::one(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    fn one(options: &[&str]) -> Result<Self, String> {
        let server = Server::start(options)?;
        Ok(Self {
            hosts: server.host(),
            options: String::new(),
            servers: vec![server],
        })
    }

    /// Three masters that share the slots.
    pub(crate) fn cluster() -> Result<Self, String> {
        let options = ["--cluster-enabled", "yes", "--appendonly", "yes"];
        let servers: Vec<Server> = (0..3)
            .map(|_| Server::start(&options))
            .collect::<Result<_, _>>()?;
        let hosts: Vec<String> = servers.iter().map(Server::host).collect();
        let slots = [(0, 5460), (5461, 10922), (10923, 16383)];
        for (server, (first, last)) in servers.iter().zip(slots) {
            server.command(&format!("CLUSTER ADDSLOTSRANGE {first} {last}"))?;
            for other in &servers {
                server.command(&format!("CLUSTER MEET 127.0.0.1 {}", other.port))?;
            }
        }
        for server in &servers {
            server.wait_until("CLUSTER INFO", "cluster_state:ok")?;
            server.wait_until("CLUSTER INFO", "cluster_known_nodes:3")?;
        }
        Ok(Self {
            hosts: hosts.join(","),
            options: "&cluster=true".into(),
            servers,
        })
    }

    /// A master with a replica, and a sentinel that watches them.
    pub(crate) fn sentinel() -> Result<Self, String> {
        let master = Server::start(&["--appendonly", "yes"])?;
        let of = format!("127.0.0.1 {}", master.port);
        let replica = Server::start(&["--appendonly", "yes", "--replicaof", &of])?;
        replica.wait_until("INFO replication", "master_link_status:up")?;
        let config = format!(
            "sentinel monitor isimud 127.0.0.1 {} 1\nsentinel down-after-milliseconds isimud 500\n\
             sentinel failover-timeout isimud 3000\n",
            master.port
        );
        let sentinel = Server::start_with(Some(&config), &["--sentinel"])?;
        sentinel.wait_until("SENTINEL MASTER isimud", "num-slaves\r\n$1\r\n1")?;
        Ok(Self {
            hosts: sentinel.host(),
            options: "&master=isimud".into(),
            servers: vec![master, replica, sentinel],
        })
    }

    /// Where a store finds them, with all its keys under a prefix.
    pub(crate) fn uri(&self, prefix: &str) -> String {
        format!(
            "redis://{}?timeout_ms=5000&prefix={prefix}{}",
            self.hosts, self.options
        )
    }

    pub(crate) fn get(&self, at: usize) -> &Server {
        &self.servers[at]
    }
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
    /// Starts a server with these options besides those that keep it private.
    pub(crate) fn start(options: &[&str]) -> Result<Self, String> {
        Self::start_with(None, options)
    }

    fn start_with(config: Option<&str>, options: &[&str]) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| format!("no folder: {error}"))?;
        let port = free_port()?;
        let mut arguments = Vec::new();
        if let Some(text) = config {
            let path = folder.path().join("redis.conf");
            std::fs::write(&path, text).map_err(|error| format!("no file: {error}"))?;
            arguments.push(path.display().to_string());
        }
        let port_text = port.to_string();
        let private = ["--port", &port_text, "--bind", "127.0.0.1", "--save", ""];
        // A sentinel takes no persistence options.
        let private = if config.is_some() {
            &private[..4]
        } else {
            &private[..]
        };
        arguments.extend(private.iter().chain(options).map(ToString::to_string));
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

    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kills the server at once, as a crash would.
    pub(crate) fn kill(&self) {
        self.process().kill();
    }

    /// Holds the server's process up, or lets it go on.
    pub(crate) fn signal(&self, name: &str) -> Result<(), String> {
        let process = self.process().0.id().to_string();
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
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if self
                .command(command)
                .is_ok_and(|answer| answer.contains(says))
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(format!("redis-server never said '{says}' to '{command}'"))
    }
}

/// A running server; dropping it kills it.
#[derive(Debug)]
struct Process(Child);

impl Process {
    fn start(arguments: &[String], folder: &Path) -> Result<Self, String> {
        let log = File::create(folder.join("log")).map_err(|error| format!("no log: {error}"))?;
        Command::new("redis-server")
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .map(Self)
            .map_err(|error| format!("redis-server does not start: {error}"))
    }

    fn kill(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        self.0.kill().and_then(|()| self.0.wait()).ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
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
