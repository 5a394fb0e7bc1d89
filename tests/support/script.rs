//! Scripts of `tests/clients`, which drive a server through published client libraries.

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use isimud_testing::python;

/// How long a script may run; it gives up by itself some time before.
const TIMEOUT: Duration = Duration::from_mins(5);

/// The interpreter that has the clients; made once, for all tests.
static PYTHON: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| python("clients"));

/// What became of a script.
struct Ended {
    /// `None` when it was stopped.
    status: Option<ExitStatus>,
    said: String,
}

/// Runs a script in a folder against the server at an address, with more in its environment. Fails with what the script
/// said, and what the server did, when the script fails.
pub(crate) fn run(
    script: &str,
    url: &str,
    environment: &[(&str, &str)],
    folder: &Path,
    server_log: impl Fn() -> String,
) {
    let python = PYTHON
        .as_ref()
        .unwrap_or_else(|error| panic!("no clients to travel with: {error}"));
    let ended = start(python, script, url, environment, folder)
        .unwrap_or_else(|error| panic!("{script} cannot be run: {error}"));
    let ending = match ended.status {
        Some(status) if status.success() => return println!("{}", ended.said),
        Some(status) => format!("ended with {status}"),
        None => "took too long".to_owned(),
    };
    let is_of_interest = |line: &&str| !line.starts_with("ok ");
    let failures: Vec<_> = ended.said.lines().filter(is_of_interest).collect();
    panic!(
        "{script} {ending}:\n{}\nThe server said:\n{}",
        failures.join("\n"),
        server_log()
    );
}

fn start(
    python: &Path,
    script: &str,
    url: &str,
    environment: &[(&str, &str)],
    folder: &Path,
) -> Result<Ended, Box<dyn Error>> {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let said = folder.join("journey.log");
    let output = File::create(&said)?;
    let child = Command::new(python)
        .arg(scripts.join(script))
        .args(["--url", url])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONUNBUFFERED", "1")
        .env("NO_PROXY", "*")
        .envs(environment.iter().copied())
        .current_dir(folder)
        .stdin(Stdio::null())
        .stderr(output.try_clone()?)
        .stdout(output)
        .spawn()?;
    let mut process = Process(child);
    let status = wait_until(TIMEOUT, || process.0.try_wait().transpose())?;
    drop(process);
    Ok(Ended {
        status,
        said: text_of(&said),
    })
}

/// A process that ends when the test does, however the test ends.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that has ended and been waited for.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Asks again and again; `None` when the time is over.
pub(crate) fn wait_until<T>(
    timeout: Duration,
    mut ask: impl FnMut() -> Option<std::io::Result<T>>,
) -> std::io::Result<Option<T>> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer.map(Some);
        }
        if start.elapsed() > timeout {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn text_of(path: &Path) -> String {
    std::fs::read(path).map_or_else(
        |error| format!("({} cannot be read: {error})", path.display()),
        |text| String::from_utf8_lossy(&text).into_owned(),
    )
}
