//! A server under load: an address, and the processes whose time it costs.
//!
//! Servers are processes of their own so that `/proc` can tell their time from the generator's. What to measure next
//! (another store, another implementation) is a new [`Kind`], or is started by hand and attached; several processes
//! can be charged together, such as a front and its Redis.

use std::fs::{self, File};
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tempfile::TempDir;

use crate::Result;
use crate::rabbit::Rabbit;
use crate::redis::Redis;
use crate::reference;
use crate::wire::Connection;
use crate::zaqar::request;

/// The unit of processor time in `/proc/<pid>/stat`: `getconf CLK_TCK`, 100 on every Linux of our day.
const TICKS_PER_SEC: u64 = 100;

/// How long a server may take to come up, or to go.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A server that can be started here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// The HTTP handler that does nothing.
    Baseline,
    /// Isimud on the embedded store, in memory.
    Memory,
    /// The same, but every queue is in a pool: beside `memory` it shows what pools cost.
    Pooled,
    /// Isimud on the embedded store, on disk and durable.
    Durable,
    /// A handler that runs the scripts of the Redis store and does nothing else.
    RedisBaseline,
    /// Isimud on Redis.
    Redis,
    /// The reference implementation on the same Redis.
    Reference,
    /// Isimud on RabbitMQ.
    Amqp,
    /// The same without the journal.
    AmqpUnlisted,
    /// The bare client on the same RabbitMQ, without a service.
    Lapin,
    /// RabbitMQ's own API over HTTP.
    Management,
}

/// What servers are started on.
#[derive(Debug)]
pub(crate) struct Ground<'a> {
    /// The folder below which each has one of its own.
    pub(crate) data: &'a Path,
    pub(crate) redis: Option<&'a Redis>,
    pub(crate) rabbit: Option<&'a Rabbit>,
    /// The connections that are going to be open at once.
    pub(crate) connections: u16,
    /// Where the reference implementation is installed.
    pub(crate) reference: &'a Path,
}

impl Ground<'_> {
    fn redis(&self) -> Result<&Redis> {
        Ok(self.redis.ok_or("no Redis was started")?)
    }

    fn rabbit(&self) -> Result<&Rabbit> {
        Ok(self.rabbit.ok_or("no RabbitMQ was started")?)
    }

    /// The process of what a server works on.
    fn behind(&self, kind: Kind) -> Option<u32> {
        if kind.on_redis() {
            self.redis.map(Redis::process)
        } else if kind.on_rabbit() {
            self.rabbit.map(Rabbit::process)
        } else {
            None
        }
    }
}

/// Processor time, user and system.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Of the processes that answer.
    pub(crate) front: Duration,
    /// Of the Redis or RabbitMQ behind them.
    pub(crate) behind: Duration,
}

impl Cost {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            front: self.front.saturating_sub(before.front),
            behind: self.behind.saturating_sub(before.behind),
        }
    }
}

/// What `pooled` declares. The store of its configuration keeps records of queues, and no message.
const POOLS: &str = "[pools.bench]\nuri = \"sqlite::memory:\"\nweight = 1\n";

impl Kind {
    /// Whether it works on Redis.
    pub(crate) fn on_redis(self) -> bool {
        matches!(self, Self::RedisBaseline | Self::Redis | Self::Reference)
    }

    /// Whether it works on RabbitMQ.
    pub(crate) fn on_rabbit(self) -> bool {
        matches!(
            self,
            Self::Amqp | Self::AmqpUnlisted | Self::Lapin | Self::Management
        )
    }

    /// Whether it does not speak the API, and plays by itself.
    fn is_rival(self) -> bool {
        matches!(self, Self::Lapin | Self::Management)
    }

    /// What is posted is there afterwards, and counted at once; not so on the baselines.
    fn keeps(self) -> bool {
        use Kind::{AmqpUnlisted, Baseline, RedisBaseline};
        !matches!(self, Baseline | RedisBaseline | AmqpUnlisted) && !self.is_rival()
    }

    /// The program and its arguments, to be run in the folder `home`.
    fn command(self, address: SocketAddr, ground: &Ground<'_>, home: &Path) -> Result<Command> {
        let listen = address.to_string();
        let isimud = |store: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_isimud"));
            command.args(["--listen", &listen, "--store", store]);
            command
        };
        let baseline = || -> Result<_> {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["--serve-baseline", &listen]);
            Ok(command)
        };
        Ok(match self {
            Self::Baseline => baseline()?,
            Self::Memory => isimud("sqlite::memory:"),
            Self::Pooled => {
                let mut command = isimud("sqlite::memory:");
                command.env("ISIMUD__POOLING__FILE", "pools.toml");
                command.env("ISIMUD__POOLING__DEFAULT_STORE", "false");
                command
            }
            Self::Durable => isimud("sqlite:isimud.db"),
            // As patient as its baseline: on a busy machine a queue's stock may take longer to lay in than a request
            // may.
            Self::Redis => isimud(&format!("{}?timeout_ms=60000", ground.redis()?.uri(0))),
            Self::RedisBaseline => {
                let mut command = baseline()?;
                command.args(["--on-redis", &ground.redis()?.uri(1)]);
                command
            }
            Self::Amqp | Self::AmqpUnlisted => {
                let journal = self == Self::Amqp;
                let mut command = isimud(&format!(
                    "{}?timeout_ms=60000&journal={journal}&prefix=journal-{journal}.",
                    ground.rabbit()?.uri()
                ));
                // The ledger is in memory, as in the driver's own bench.
                command.args(["--management", "sqlite::memory:"]);
                command
            }
            Self::Lapin | Self::Management => {
                let rabbit = ground.rabbit()?;
                let mut command = baseline()?;
                command.args(["--on-rabbit", &rabbit.uri()]);
                command.args(["--connections", &ground.connections.to_string()]);
                if self == Self::Management {
                    command.args(["--on-management", &rabbit.management().to_string()]);
                }
                command
            }
            Self::Reference => {
                let redis = ground.redis()?.address;
                let Ground {
                    connections,
                    reference: venv,
                    ..
                } = ground;
                reference::command(address, redis, *connections, venv, home)?
            }
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Memory => "memory",
            Self::Pooled => "pooled",
            Self::Durable => "durable",
            Self::RedisBaseline => "redis-baseline",
            Self::Redis => "redis",
            Self::Reference => "reference",
            Self::Amqp => "amqp",
            Self::AmqpUnlisted => "amqp-unlisted",
            Self::Lapin => "lapin",
            Self::Management => "management",
        }
    }
}

/// A server that somebody else started.
#[derive(Debug, Clone)]
pub(crate) struct Attached {
    name: String,
    address: SocketAddr,
    processes: Vec<u32>,
}

impl FromStr for Attached {
    type Err = Box<dyn std::error::Error + Send + Sync>;

    /// Reads `NAME=ADDRESS@PID[+PID...]`.
    fn from_str(text: &str) -> Result<Self> {
        let (name, place) = text.split_once('=').ok_or("no `=` after the name")?;
        let (address, pids) = place
            .split_once('@')
            .ok_or("no `@` before the process ids")?;
        let pids: std::result::Result<_, _> = pids.split('+').map(str::parse).collect();
        Ok(Self {
            name: name.to_owned(),
            address: address.parse()?,
            processes: pids?,
        })
    }
}

/// A running server. One that was started here does not outlive the value.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// What is posted is there afterwards; not so on the baseline.
    pub(crate) keeps: bool,
    /// So slow that it gets a twentieth of the work, and is measured on that.
    pub(crate) slow: bool,
    /// It does not speak the API, and plays by itself.
    pub(crate) is_rival: bool,
    /// It gets a tenth of the work.
    pub(crate) on_rabbit: bool,
    processes: Vec<u32>,
    /// The process of the Redis or RabbitMQ that it works on.
    behind: Option<u32>,
    on_redis: bool,
    child: Option<Child>,
    /// Its working folder, with its database and its log.
    home: Option<TempDir>,
}

impl From<Attached> for Server {
    fn from(attached: Attached) -> Self {
        Self {
            name: attached.name,
            address: attached.address,
            keeps: true,
            slow: false,
            is_rival: false,
            on_rabbit: false,
            processes: attached.processes,
            behind: None,
            on_redis: false,
            child: None,
            home: None,
        }
    }
}

impl Server {
    /// Starts a server in a fresh folder and waits until it answers.
    pub(crate) async fn start(kind: Kind, ground: &Ground<'_>) -> Result<Self> {
        fs::create_dir_all(ground.data)?;
        let mut home = tempfile::Builder::new();
        let home = home.prefix("load-").tempdir_in(ground.data)?;
        fs::write(home.path().join("pools.toml"), POOLS)?;
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let log = File::create(home.path().join("log"))?;
        let child = kind
            .command(address, ground, home.path())?
            .current_dir(home.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", kind.name()))?;
        let mut server = Self {
            name: kind.name().to_owned(),
            address,
            keeps: kind.keeps(),
            slow: kind == Kind::Reference,
            is_rival: kind.is_rival(),
            on_rabbit: kind.on_rabbit(),
            processes: vec![child.id()],
            behind: ground.behind(kind),
            on_redis: kind.on_redis(),
            child: Some(child),
            home: Some(home),
        };
        server.ready().await?;
        // One that divides its work has done so before it answered.
        for parent in server.processes.clone() {
            server.processes.extend(children(parent)?);
        }
        if kind == Kind::Management {
            // What it does is the generator's work.
            server.processes.clear();
        }
        Ok(server)
    }

    /// Asks for the version document until it comes.
    async fn ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        let versions = request("GET", "/", None);
        while begun.elapsed() < TIMEOUT {
            if let Ok(mut connection) = Connection::open(self.address).await
                && connection.exchange(&versions).await?.status == 300
            {
                return Ok(());
            }
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok()?) {
                return Err(self.failure(&format!("ended with {status}")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(self.failure("did not come up"))
    }

    pub(crate) fn works_on_redis(&self) -> bool {
        self.on_redis
    }

    /// The processor time used so far by all threads of its processes, and of what it works on.
    pub(crate) fn cost(&self) -> Result<Cost> {
        Ok(Cost {
            front: used(&self.processes)?,
            behind: used(self.behind.as_slice())?,
        })
    }

    /// Ends a server that was started here, as an operator would, and expects it to end well.
    pub(crate) fn stop(mut self) -> Result<()> {
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        Command::new("kill").arg(child.id().to_string()).status()?;
        let begun = Instant::now();
        while begun.elapsed() < TIMEOUT {
            if let Some(status) = child.try_wait()? {
                // The baselines know no signals and are ended by the default action.
                if self.keeps && !status.success() {
                    return Err(self.failure(&format!("ended with {status}")));
                }
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(self.failure("did not stop on SIGTERM"))
    }

    /// What happened, and the server's own words.
    pub(crate) fn failure(&self, what: &str) -> Box<dyn std::error::Error + Send + Sync> {
        let log = self.home.as_ref().map(|home| home.path().join("log"));
        let log = log
            .and_then(|log| fs::read_to_string(log).ok())
            .unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(10).collect();
        let tail: String = lines
            .iter()
            .rev()
            .map(|line| format!("\n  {line}"))
            .collect();
        format!("server {} {what}{tail}", self.name).into()
    }
}

impl Drop for Server {
    /// The way out after an error: nothing stays behind.
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Both fail only for a process that is gone already.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// The processes that a process has started.
fn children(pid: u32) -> Result<Vec<u32>> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let children: std::result::Result<_, _> = text.split_whitespace().map(str::parse).collect();
    Ok(children?)
}

fn used(processes: &[u32]) -> Result<Duration> {
    let ticks: Result<Vec<_>> = processes.iter().map(|&pid| ticks(pid)).collect();
    let ticks: u64 = ticks?.iter().sum();
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SEC))
}

/// The user and system time of a process, in clock ticks.
fn ticks(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .map_err(|error| format!("process {pid}: {error}"))?;
    // The second field is the program's name in parentheses and may contain anything; utime and stime are the 14th
    // and 15th (proc_pid_stat(5)).
    let (_, fields) = stat
        .rsplit_once(") ")
        .ok_or("/proc/<pid>/stat has another form")?;
    let times = fields.split(' ').skip(11).take(2).map(str::parse::<u64>);
    Ok(times.sum::<std::result::Result<_, _>>()?)
}

/// The median time to append 4 KiB to a file in `folder` and sync it: what a durable answer waits for at least.
pub(crate) fn sync_time(folder: &Path) -> Result<Duration> {
    let mut file = tempfile::tempfile_in(folder)?;
    let mut times = Vec::new();
    for _ in 0..101 {
        file.write_all(&[0; 4096])?;
        let begun = Instant::now();
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}
