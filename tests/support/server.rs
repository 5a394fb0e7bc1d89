//! The real binary, started for one test, and just enough HTTP/1.1 to speak to it over TCP.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long a server may take until it answers, a debug build on a busy machine included.
pub(crate) const READY: Duration = Duration::from_secs(20);

/// A server process of the test's own. It is killed when the test lets go of it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    log: PathBuf,
    process: Child,
}

impl Server {
    /// Starts the binary over a store and waits until it answers. Logs are added to `server.log` in the folder, and a file
    /// `isimud.toml` there is its configuration.
    pub(crate) fn start(store: &str, folder: &Path) -> Self {
        Self::start_with(store, folder, &[])
    }

    /// The same with further flags.
    pub(crate) fn start_with(store: &str, folder: &Path, flags: &[&str]) -> Self {
        for _ in 0..5 {
            let mut server = Self::spawn_with(store, folder, flags);
            if server.wait_until_ready() {
                return server;
            }
            // Somebody else may take the port between its choice and its use; everything else is a failure.
            if !last_lines(&server.log(), 2).contains("in use") {
                break;
            }
        }
        panic!("the server does not start:\n{}", log_in(folder));
    }

    /// Starts the binary and waits for nothing.
    pub(crate) fn spawn(store: &str, folder: &Path) -> Self {
        Self::spawn_with(store, folder, &[])
    }

    /// The same with further flags.
    pub(crate) fn spawn_with(store: &str, folder: &Path, flags: &[&str]) -> Self {
        let address = free_address();
        let log = folder.join("server.log");
        let mut output = File::options();
        let output = output.create(true).append(true).open(&log);
        let output = output.expect("the log can be written");
        let mut command = isimud();
        if let Ok(level) = std::env::var("RUST_LOG") {
            command.env("ISIMUD__LOG__LEVEL", level);
        }
        let config = folder.join("isimud.toml");
        if config.exists() {
            command.arg("--config").arg(config);
        }
        let process = command
            .args(["--listen", &address.to_string(), "--store", store])
            .args(flags)
            // What a server that speaks SQS asks for; it takes any.
            .env("AWS_ACCESS_KEY_ID", "TEST")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("the log has two writers"))
            .stderr(output)
            .spawn()
            .expect("the binary can be run");
        Self {
            address,
            log,
            process,
        }
    }

    /// Waits until `GET /` answers 300; false when the process ends before or the time is over.
    pub(crate) fn wait_until_ready(&mut self) -> bool {
        let start = Instant::now();
        while start.elapsed() < READY && self.is_running() {
            let mut client = Client::new(self.address, "readiness");
            if client
                .send("GET", "/", None)
                .is_ok_and(|answer| answer.status == 300)
            {
                return true;
            }
            thread::sleep(Duration::from_millis(10));
        }
        false
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// Ends the process at once, in the middle of whatever it does (`SIGKILL`).
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// Tells the process to stop (`SIGTERM`), and waits until it has.
    pub(crate) fn stop(mut self) {
        let process = self.process.id().to_string();
        let told = Command::new("kill").args(["-TERM", &process]).status();
        assert!(told.is_ok_and(|status| status.success()), "it is told");
        let ended = self.process.wait().expect("it ends");
        assert!(ended.success(), "it ends with {ended}: {}", self.log());
    }

    /// Has the process read its configuration again (`SIGHUP`).
    pub(crate) fn hang_up(&self) {
        let process = self.process.id().to_string();
        let told = Command::new("kill").args(["-HUP", &process]).status();
        assert!(told.is_ok_and(|status| status.success()), "it is told");
    }

    /// The number of the process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// The most bytes of memory that it ever had, in MiB.
    pub(crate) fn peak_mib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.expect("a number of bytes") / 1024
    }

    /// What it wrote so far.
    pub(crate) fn log(&self) -> String {
        read_log(&self.log)
    }

    fn end(&mut self) {
        // Both fail only for a process that has ended already.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// The binary, which no variable of the environment configures.
pub(crate) fn isimud() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isimud"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ISIMUD") {
            command.env_remove(name);
        }
    }
    command
}

/// What the servers of a folder wrote.
pub(crate) fn log_in(folder: &Path) -> String {
    read_log(&folder.join("server.log"))
}

/// The end of a log, which says what went wrong.
pub(crate) fn last_lines(log: &str, count: usize) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn read_log(path: &Path) -> String {
    std::fs::read(path).map_or_else(
        |error| format!("({} cannot be read: {error})", path.display()),
        |text| String::from_utf8_lossy(&text).into_owned(),
    )
}

pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("there is a free port")
}

/// One answer of the server.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The connection ended inside the body.
    pub(crate) cut_short: bool,
    /// The body has no length but ends with the connection.
    open_ended: bool,
}

impl Answer {
    /// Reads the next answer; `None` when the connection ends before it. The answer to a `HEAD` has no body.
    pub(crate) fn read(from: &mut impl BufRead, to_head: bool) -> io::Result<Option<Self>> {
        loop {
            let Some(status) = read_status(from)? else {
                return Ok(None);
            };
            let mut answer = Self {
                status,
                headers: read_headers(from)?,
                body: Vec::new(),
                cut_short: false,
                open_ended: false,
            };
            if status >= 200 {
                if !to_head && !matches!(status, 204 | 304) {
                    answer.read_body(from)?;
                }
                return Ok(Some(answer));
            }
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as JSON; `null` when it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Whether the server will answer another request on this connection.
    pub(crate) fn keeps_alive(&self) -> bool {
        let closing = self
            .header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"));
        !closing && !self.cut_short && !self.open_ended
    }

    fn read_body(&mut self, from: &mut impl BufRead) -> io::Result<()> {
        if self.header("transfer-encoding").is_some() {
            return self.read_chunks(from);
        }
        let Some(length) = self.header("content-length") else {
            from.read_to_end(&mut self.body)?;
            self.open_ended = true;
            return Ok(());
        };
        let length = length.parse().map_err(io::Error::other)?;
        from.take(length).read_to_end(&mut self.body)?;
        self.cut_short = (self.body.len() as u64) < length;
        Ok(())
    }

    fn read_chunks(&mut self, from: &mut impl BufRead) -> io::Result<()> {
        loop {
            let line = read_line(from)?;
            let size = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            from.take(size).read_to_end(&mut self.body)?;
            read_line(from)?;
            if size == 0 {
                return Ok(());
            }
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, String::from_utf8_lossy(&self.body))
    }
}

fn read_status(from: &mut impl BufRead) -> io::Result<Option<u16>> {
    let mut line = Vec::new();
    if from.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let line = String::from_utf8_lossy(&line);
    let status = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5)?.parse().ok())
        .filter(|status| (100..600).contains(status));
    status
        .map(Some)
        .ok_or_else(|| io::Error::other(format!("not a status line: {line:?}")))
}

fn read_headers(from: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let line = read_line(from)?;
        let Some((name, value)) = line.split_once(':') else {
            return Ok(headers);
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn read_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    match from.read_until(b'\n', &mut line)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(String::from_utf8_lossy(&line).into_owned()),
    }
}

/// A client of one project, which keeps its connection while it can.
pub(crate) struct Client {
    address: SocketAddr,
    project: String,
    is_admin: bool,
    is_operator: bool,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr, project: &str) -> Self {
        Self {
            address,
            project: project.to_owned(),
            is_admin: false,
            is_operator: false,
            connection: None,
        }
    }

    /// Somebody who asks an admin listener of this machine, with the token that its server has left for commands.
    pub(crate) fn operator(address: SocketAddr) -> Self {
        Self {
            is_operator: true,
            ..Self::new(address, "operators")
        }
    }

    /// The same with the role of an administrator.
    pub(crate) fn admin(self) -> Self {
        Self {
            is_admin: true,
            ..self
        }
    }

    /// Posts a message, claims it and deletes it, as a tenant does whose neighbours misbehave: each succeeds within the bound.
    #[track_caller]
    pub(crate) fn does_its_work(&mut self, bound: Duration) {
        let mut timed = |method: &str, path: &str, body: Value| {
            let start = Instant::now();
            let answer = self.send(method, path, Some(&body));
            let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
            let took = start.elapsed();
            assert!(answer.status < 300, "{method} {path}: {answer}");
            assert!(took < bound, "{method} {path} took {took:?}");
            answer.json()
        };
        let message = json!({"messages": [{"ttl": 300, "body": "mine"}]});
        timed("POST", "/v2/queues/mine/messages", message);
        let claimed = timed("POST", "/v2/queues/mine/claims?limit=1", json!({"ttl": 60}));
        let href = claimed["messages"][0]["href"].as_str().expect("a message");
        timed("DELETE", href, Value::Null);
    }

    /// Sends one request and reads the whole answer. An error says nothing about whether the request took effect.
    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> io::Result<Answer> {
        let body = body.map(Value::to_string);
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\n\
             Client-ID: 3381af92-2b9e-11e3-b191-71861300734c\r\nX-Project-Id: {}\r\n",
            self.project,
        );
        if method == "PATCH" && !path.contains("/claims/") {
            head.push_str("Content-Type: application/openstack-messaging-v2.0-json-patch\r\n");
        }
        if self.is_admin {
            head.push_str("X-Roles: admin\r\n");
        }
        // Each time anew: a server that was started again has another one.
        if self.is_operator
            && let Some(token) = isimud::admin::local::find(self.address)
        {
            head.push_str(&format!("Authorization: Bearer {token}\r\n"));
            head.push_str("Content-Type: application/json\r\n");
        }
        if let Some(body) = &body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        let request = format!("{head}\r\n{}", body.unwrap_or_default());
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => BufReader::new(connect(self.address, Duration::from_secs(10))?),
        };
        connection.get_mut().write_all(request.as_bytes())?;
        let answer = Answer::read(&mut connection, method == "HEAD")?;
        let answer = answer.ok_or(io::ErrorKind::UnexpectedEof)?;
        if answer.cut_short {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if answer.keeps_alive() {
            self.connection = Some(connection);
        }
        Ok(answer)
    }
}

/// Opens a connection on which neither side waits longer than `patience`.
pub(crate) fn connect(address: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Ok(stream)
}
