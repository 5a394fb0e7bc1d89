//! Processes of the binary: one that ends by itself, and one that serves until it is told to stop.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::server::{self, Answer, Client, READY, connect};

/// How long a process may take to end.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// The binary in a folder of the test's own, without anything that the environment says to it.
pub(crate) fn isimud(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = server::isimud();
    command
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

/// What a process came to.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a process that ends by itself.
pub(crate) fn run(mut command: Command) -> Ended {
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().expect("the binary can be run");
    // Read while it runs: a pipe that is full stops who writes to it.
    let (stdout, stderr) = (
        text_of(process.stdout.take()),
        text_of(process.stderr.take()),
    );
    let status = wait(&mut process);
    let ended = Ended {
        status: status.unwrap_or_default(),
        stdout: stdout.join().expect("what it said is text"),
        stderr: stderr.join().expect("what it complained of is text"),
    };
    assert!(status.is_some(), "it does not end: {ended:?}");
    ended
}

/// Reads all that comes from a pipe, beside everything else.
fn text_of(from: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        let read = from.map(|mut from| from.read_to_string(&mut text));
        read.transpose().expect("text");
        text
    })
}

/// Waits for a process to end by itself; it is ended when it does not.
fn wait(process: &mut Child) -> Option<ExitStatus> {
    let ended = within(TIMEOUT, || process.try_wait().expect("it can be asked"));
    if ended.is_none() {
        // Fails only for a process that has ended just now.
        process.kill().ok();
        process.wait().ok();
    }
    ended
}

/// Asks again and again until there is an answer, or the time is over.
pub(crate) fn within<T>(patience: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let answer = ask();
        if answer.is_some() || start.elapsed() > patience {
            return answer;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// What is in a folder: the bytes of each file by its path, `None` for a folder.
pub(crate) fn contents(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let bytes = match path.is_dir() {
                true => None,
                false => Some(std::fs::read(&path).expect("a file")),
            };
            if bytes.is_none() {
                folders.push(path.clone());
            }
            found.insert(path, bytes);
        }
    }
    found
}

/// A server that runs until it is stopped, or the test lets go of it.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    process: Child,
    log: PathBuf,
}

impl Running {
    /// Starts the binary and waits until it answers. What it says goes to `server.log` in the folder.
    pub(crate) fn start(folder: &Path, arguments: &[&str]) -> Self {
        Self::start_with(folder, arguments, &[])
    }

    /// The same with something said by the environment.
    pub(crate) fn start_with(
        folder: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        for _ in 0..5 {
            let mut server = Self::spawn(folder, arguments, environment);
            if server.wait_until_ready() {
                return server;
            }
            // Somebody else may take the port between its choice and its use; everything else is a failure.
            assert!(server.said().contains("in use"), "{}", server.said());
        }
        panic!("no port stays free");
    }

    fn spawn(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let address = server::free_address();
        let log = folder.join("server.log");
        let output = File::create(&log).expect("the log can be written");
        let mut command = isimud(folder, arguments);
        let process = command
            .args(["--listen", &address.to_string()])
            .envs(environment.iter().copied())
            .stdout(output.try_clone().expect("the log has two writers"))
            .stderr(output)
            .spawn()
            .expect("the binary can be run");
        Self {
            address,
            process,
            log,
        }
    }

    fn wait_until_ready(&mut self) -> bool {
        let answered = within(READY, || {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return Some(false);
            }
            let answer = self.client().send("GET", "/", None).ok()?;
            (answer.status == 300).then_some(true)
        });
        answered.unwrap_or(false)
    }

    /// A client of the project `p`.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.address, "p")
    }

    /// Everything that it has said.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).expect("the log")
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        let status = kill
            .args(["-s", name, &self.process.id().to_string()])
            .status();
        assert!(status.expect("a signal can be sent").success());
    }

    /// Waits until it ends by itself.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let status = wait(&mut self.process);
        status.unwrap_or_else(|| panic!("it does not end:\n{}", self.said()))
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        let status = self.ended();
        assert!(status.success(), "{status}:\n{}", self.said());
    }

    /// Ends it at once, in the middle of whatever it does.
    pub(crate) fn kill(mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Sends bytes over a connection of their own and reads the first answer to them.
pub(crate) fn exchange(address: SocketAddr, request: &str) -> Answer {
    let mut stream = connect(address, TIMEOUT).expect("a connection");
    stream.write_all(request.as_bytes()).expect("it is read");
    let mut stream = std::io::BufReader::new(stream);
    let answer = Answer::read(&mut stream, request.starts_with("HEAD"));
    answer.expect("an answer in HTTP").expect("an answer")
}

/// The headers that every request needs.
pub(crate) const HEADERS: &str =
    "Host: localhost\r\nClient-ID: 3381af92-2b9e-11e3-b191-71861300734c\r\nX-Project-Id: p\r\n";
