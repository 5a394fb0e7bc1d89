//! Private RabbitMQ nodes for tests: in a folder of their own, on free ports of the loopback interface, stopped with the
//! process that started them, however it ends.

use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::certificates::Certificates;
use crate::process::Guarded;

/// How long a node may take until it listens. It is some ten seconds on an idle machine.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// Where Debian's package and RabbitMQ's own archive put the scripts. Those on the path switch the user.
const INSTALLED: [&str; 2] = ["/usr/lib/rabbitmq/lib", "/opt/rabbitmq/lib"];

/// A node.
#[derive(Debug)]
pub struct Node {
    scripts: PathBuf,
    folder: TempDir,
    ports: Ports,
    /// Those of the ports that it listens on when it has started.
    listens: Vec<u16>,
    /// Further arguments of the virtual machine.
    arguments: String,
    /// Keeps the names of nodes, as the virtual machine wants it.
    epmd: Mutex<Option<Guarded>>,
    process: Mutex<Option<Guarded>>,
}

#[derive(Debug)]
struct Ports {
    amqp: u16,
    tls: u16,
    management: u16,
    distribution: u16,
    epmd: u16,
}

/// What a user of the node may do besides `guest`, who may do everything: three patterns, as RabbitMQ has them.
#[derive(Debug, Clone, Copy)]
pub struct Rights {
    /// The names that it may declare and delete.
    pub configure: &'static str,
    /// Those that it may publish to and bind.
    pub write: &'static str,
    /// Those that it may consume and purge.
    pub read: &'static str,
}

/// What is special about a node.
#[derive(Debug, Default)]
pub struct Set {
    /// What the user of [`Node::limited_uri`] may do.
    pub rights: Option<Rights>,
    /// Lines of `rabbitmq.conf`; `{tls}` and `{management}` are ports.
    pub lines: Vec<String>,
    /// Names of plugins, separated by commas.
    pub plugins: &'static str,
    /// Further arguments of the virtual machine.
    pub arguments: &'static str,
}

impl Set {
    /// The node speaks TLS too, with the certificate `server`; with `clients` it wants to see one of the authority's.
    pub fn tls(certificates: &Certificates, clients: bool) -> Self {
        let file = |name: &str| certificates.file(name).display().to_string();
        let verify = if clients {
            "verify_peer"
        } else {
            "verify_none"
        };
        Self {
            lines: vec![
                "listeners.ssl.1 = 127.0.0.1:{tls}".into(),
                format!("ssl_options.cacertfile = {}", file("ca")),
                format!("ssl_options.certfile = {}", file("server")),
                format!("ssl_options.keyfile = {}", file("server-key")),
                format!("ssl_options.verify = {verify}"),
                format!("ssl_options.fail_if_no_peer_cert = {clients}"),
            ],
            ..Self::default()
        }
    }
}

impl Node {
    /// Starts a node like any other.
    pub fn start() -> Result<Self, String> {
        Self::start_with(Set::default())
    }

    /// Starts a node with something special about it.
    pub fn start_with(set: Set) -> Result<Self, String> {
        let scripts = scripts()?;
        let folder = tempfile::tempdir().map_err(|error| format!("no folder: {error}"))?;
        let port = || free_port();
        let ports = Ports {
            amqp: port()?,
            tls: port()?,
            management: port()?,
            distribution: port()?,
            epmd: port()?,
        };
        let is_set = |word| set.lines.iter().any(|line| line.contains(word));
        let listens = [
            (ports.amqp, true),
            (ports.tls, is_set("{tls}")),
            (ports.management, is_set("{management}")),
        ];
        let listens = listens.into_iter().filter(|(_, is_set)| *is_set);
        let listens = listens.map(|(port, _)| port).collect();
        let lines = set.lines.iter().map(|line| {
            line.replace("{tls}", &ports.tls.to_string())
                .replace("{management}", &ports.management.to_string())
        });
        let mut text = format!(
            "listeners.tcp.1 = 127.0.0.1:{}\nloopback_users = none\nlog.file.level = warning\n\
             disk_free_limit.absolute = 50MB\n",
            ports.amqp
        );
        lines.for_each(|line| text += &format!("{line}\n"));
        if let Some(rights) = set.rights {
            let path = folder.path().join("definitions.json");
            std::fs::write(&path, definitions(rights)).map_err(|error| error.to_string())?;
            text += &format!("load_definitions = {}\n", path.display());
        }
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).map_err(|error| error.to_string())
        };
        write("rabbitmq.conf", &text)?;
        write("enabled_plugins", &format!("[{}].\n", set.plugins))?;
        let mut epmd = Command::new("epmd");
        epmd.args(["-address", "127.0.0.1", "-port", &ports.epmd.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let epmd = epmd
            .spawn()
            .map_err(|error| format!("epmd does not start: {error}"))?;
        let node = Self {
            scripts,
            epmd: Mutex::new(Some(Guarded::of(epmd)?)),
            ports,
            listens,
            folder,
            arguments: set.arguments.to_owned(),
            process: Mutex::default(),
        };
        node.start_again()?;
        Ok(node)
    }

    /// The address, without options.
    pub fn uri(&self) -> String {
        format!("amqp://127.0.0.1:{}", self.ports.amqp)
    }

    /// The same as the user with the rights that were set.
    pub fn limited_uri(&self) -> String {
        self.uri().replace("://", "://limited:limited@")
    }

    /// Where it keeps everything.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where it speaks AMQP.
    pub fn port(&self) -> u16 {
        self.ports.amqp
    }

    /// Where it speaks AMQP over TLS, if that is set.
    pub fn tls_port(&self) -> u16 {
        self.ports.tls
    }

    /// Where it speaks HTTP, if the plugin is enabled.
    pub fn management_port(&self) -> u16 {
        self.ports.management
    }

    /// The process that it runs in.
    pub fn process_id(&self) -> u32 {
        let process = self.process();
        process.as_ref().map_or(0, |running| running.process.id())
    }

    /// Starts a node that was killed or stopped, on the same data.
    pub fn start_again(&self) -> Result<(), String> {
        let log = File::create(self.folder.path().join("output")).map_err(|e| e.to_string())?;
        let mut command = self.script("rabbitmq-server");
        command
            .stdin(Stdio::null())
            .stderr(log.try_clone().map_err(|error| error.to_string())?)
            .stdout(log);
        let started = command
            .spawn()
            .map_err(|error| format!("rabbitmq-server does not start: {error}"))?;
        let begun = Instant::now();
        let guarded = Guarded::of(started)?;
        let is_silent = |port: &u16| TcpStream::connect(("127.0.0.1", *port)).is_err();
        while self.listens.iter().any(is_silent) {
            if begun.elapsed() > START_TIMEOUT {
                return Err(format!(
                    "rabbitmq-server does not listen; it says {:?}",
                    self.says()
                ));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        *self.process() = Some(guarded);
        Ok(())
    }

    /// Kills the node at once, as a crash would.
    pub fn kill(&self) {
        drop(self.process().take());
    }

    /// Ends a node that is never dropped, and leaves nothing of it.
    pub fn end(&self) {
        self.kill();
        drop(
            self.epmd
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        // What is left then is the system's to clear away.
        std::fs::remove_dir_all(self.folder.path()).ok();
    }

    /// Holds the node's process up, or lets it go on.
    pub fn signal(&self, name: &str) {
        if let Some(running) = self.process().as_ref() {
            assert_eq!(running.signal(name), Ok(()), "no signal {name}");
        }
    }

    /// Stops the node in good order, as whoever runs services does, and waits for its end.
    pub fn terminate(&self) -> Result<(), String> {
        self.signal("-TERM");
        let begun = Instant::now();
        let mut process = self.process();
        while let Some(running) = process.as_mut() {
            let ended = running.process.try_wait();
            if ended.map_err(|error| error.to_string())?.is_some() {
                *process = None;
            } else if begun.elapsed() > START_TIMEOUT {
                return Err("rabbitmq-server does not end".into());
            } else {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Stops the node in good order.
    pub fn stop(&self) -> Result<(), String> {
        self.control(&["stop"])?;
        self.kill();
        Ok(())
    }

    /// Whether it is older than a version, told by its first two numbers.
    pub fn is_older_than(&self, version: (u32, u32)) -> bool {
        let said = self.control(&["version"]).expect("its version");
        let mut numbers = said.trim().split('.').map_while(|it| it.parse().ok());
        let of = (numbers.next(), numbers.next());
        let (Some(major), Some(minor)) = of else {
            panic!("no version: {said}");
        };
        (major, minor) < version
    }

    /// Runs `rabbitmqctl`, which takes some seconds.
    pub fn control(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.script("rabbitmqctl").args(arguments).output();
        let output = output.map_err(|error| format!("rabbitmqctl does not start: {error}"))?;
        let says = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(says)
        } else {
            let errors = String::from_utf8_lossy(&output.stderr);
            Err(format!("rabbitmqctl {arguments:?}: {says}{errors}"))
        }
    }

    fn script(&self, name: &str) -> Command {
        let mut command = Command::new(self.scripts.join(name));
        let file = |name: &str| self.folder.path().join(name);
        command
            .env("HOME", self.folder.path())
            .env(
                "RABBITMQ_NODENAME",
                format!("isimud{}@localhost", self.ports.amqp),
            )
            .env("RABBITMQ_MNESIA_BASE", file("mnesia"))
            .env("RABBITMQ_LOG_BASE", file("log"))
            .env("RABBITMQ_CONFIG_FILE", file("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", file("enabled_plugins"))
            .env("RABBITMQ_PID_FILE", file("pid"))
            // The script becomes the node, and leaves no other process to stop.
            .env("RUNNING_UNDER_SYSTEMD", "1")
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_DIST_PORT", self.ports.distribution.to_string())
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", &self.arguments)
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", self.ports.epmd.to_string())
            .current_dir(self.folder.path());
        command
    }

    /// The last that it wrote.
    fn says(&self) -> String {
        let output = std::fs::read_to_string(self.folder.path().join("output"));
        let output = output.unwrap_or_default();
        let start = output.len().saturating_sub(600);
        output.get(start..).unwrap_or_default().to_owned()
    }

    fn process(&self) -> std::sync::MutexGuard<'_, Option<Guarded>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Two users, as RabbitMQ imports them: salted hashes of `guest` and of `limited`.
fn definitions(rights: Rights) -> String {
    let user = |name: &str, hash: &str, tag: &str| {
        format!(
            r#"{{"name": "{name}", "password_hash": "{hash}", "tags": [{tag}],
                "hashing_algorithm": "rabbit_password_hashing_sha256"}}"#
        )
    };
    let may = |name: &str,
               Rights {
                   configure,
                   write,
                   read,
               }: Rights| {
        let patterns = [configure, write, read].map(|it| it.replace('\\', r"\\"));
        let [configure, write, read] = patterns;
        format!(
            r#"{{"user": "{name}", "vhost": "/", "configure": "{configure}", "write": "{write}", "read": "{read}"}}"#
        )
    };
    let all = Rights {
        configure: ".*",
        write: ".*",
        read: ".*",
    };
    format!(
        r#"{{"users": [{}, {}], "vhosts": [{{"name": "/"}}], "permissions": [{}, {}]}}"#,
        user(
            "guest",
            "AQIDBEMMOXwY6PKx/JKP9PAqfsb4ozuD0Ta3pxxa9gEYBMmD",
            r#""administrator""#
        ),
        user(
            "limited",
            "AQIDBDZWJ9mIuAkTimJMYqVsug5WoBgnF3GSL+Y38X8+mlaf",
            ""
        ),
        may("guest", all),
        may("limited", rights),
    )
}

/// The folder with the scripts that do not switch the user.
fn scripts() -> Result<PathBuf, String> {
    let versions = INSTALLED
        .iter()
        .filter_map(|lib| std::fs::read_dir(lib).ok());
    let folders = versions
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("sbin"));
    let mut found: Vec<PathBuf> = folders
        .filter(|folder| Path::new(folder).join("rabbitmq-server").exists())
        .collect();
    found.sort();
    found
        .pop()
        .ok_or_else(|| format!("there is no rabbitmq-server in {INSTALLED:?}"))
}

fn free_port() -> Result<u16, String> {
    crate::ports::reserve(16_000..21_000, &[])
}
