//! A private server that speaks SQS: moto, on a free port of the loopback interface, stopped with the process that
//! started it, however that ends.

pub mod proxy;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long the server may take until it answers, on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The one that all trials of a program share.
static SHARED: LazyLock<Result<Emulator, String>> = LazyLock::new(Emulator::start);

/// A server.
#[derive(Debug)]
pub struct Emulator {
    /// Where it listens.
    pub port: u16,
    python: PathBuf,
    /// It ends when its standard input does.
    process: Child,
}

/// A trial's own corner of the server: an access key with a clock, and a prefix for queues.
#[derive(Debug, Clone)]
pub struct Corner {
    /// The server's port.
    pub port: u16,
    /// The access key.
    pub login: String,
    /// The interpreter that has boto3.
    pub python: PathBuf,
}

impl Emulator {
    /// Starts a server of its own.
    pub fn start() -> Result<Self, String> {
        Self::start_with(&[])
    }

    /// The same with further arguments: the files of a certificate and its key.
    pub fn start_with(arguments: &[&str]) -> Result<Self, String> {
        let python = crate::python("moto")?;
        let port = free_port()?;
        let script = crate::file("backends/testing/src/sqs/server.py");
        let mut process = Command::new(&python)
            .arg(script)
            .arg(port.to_string())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", python.display()))?;
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Ok(Some(status)) = process.try_wait() {
                return Err(format!("the SQS server ended with {status}"));
            }
            if begun.elapsed() > START_TIMEOUT {
                return Err("the SQS server does not answer".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self {
            port,
            python,
            process,
        })
    }

    /// The number of its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A corner of the shared server, for one trial.
    pub fn shared() -> Result<Corner, String> {
        static CORNERS: AtomicU64 = AtomicU64::new(0);
        let server = SHARED.as_ref().map_err(Clone::clone)?;
        let number = CORNERS.fetch_add(1, Ordering::Relaxed);
        Ok(server.corner(format!("TRIAL{number}")))
    }

    /// A corner with an access key of that name.
    pub fn corner(&self, login: String) -> Corner {
        Corner {
            port: self.port,
            login,
            python: self.python.clone(),
        }
    }
}

fn free_port() -> Result<u16, String> {
    crate::ports::reserve(26_000..32_000, &[])
}

impl Corner {
    /// Where a store finds this corner, by a port: the server's own, or that of a proxy.
    pub fn uri(&self, port: u16, options: &str) -> String {
        let prefix = if options.contains("name=") {
            String::new()
        } else {
            format!("&prefix={}-", self.login)
        };
        format!(
            "sqs://us-east-1?timeout_ms=60000&endpoint=http://127.0.0.1:{port}{prefix}{options}"
        )
    }

    /// Sets this corner's clock forward.
    pub fn advance(&self, span: Duration) {
        let (corner, millis) = (&self.login, span.as_millis());
        self.tell(
            "clock",
            &format!(r#"{{"corner": "{corner}", "millis": {millis}}}"#),
        );
    }

    /// Has this corner's receives wait a twentieth of what they ask for, where nothing is to come meanwhile.
    pub fn hurry(&self) {
        let corner = &self.login;
        self.tell(
            "waits",
            &format!(r#"{{"corner": "{corner}", "factor": 0.05}}"#),
        );
    }

    fn tell(&self, what: &str, told: &str) {
        let length = told.len();
        self.ask(&format!(
            "POST /-/{what} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{told}"
        ));
    }

    /// How many requests this corner has made, by action.
    pub fn requests(&self) -> HashMap<String, u64> {
        let request = format!("GET /-/requests?login={} HTTP/1.0\r\n\r\n", self.login);
        let answer = self.ask(&request);
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        serde_json::from_str(body).expect("counts")
    }

    fn ask(&self, request: &str) -> String {
        let mut stream =
            TcpStream::connect(("127.0.0.1", self.port)).expect("the test server answers");
        stream.write_all(request.as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.contains(" 200 OK"), "{answer}");
        answer
    }

    /// Runs a script of the repository with boto3, with this corner's access key.
    pub fn python(&self, script: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.python);
        command
            .arg(crate::file(script))
            .arg(format!("http://127.0.0.1:{}", self.port))
            .args(arguments)
            .env("AWS_ACCESS_KEY_ID", &self.login)
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .env("AWS_DEFAULT_REGION", "us-east-1");
        command
    }
}
