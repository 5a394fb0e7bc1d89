//! Where credentials come from: trials with an environment of their own, which is a process of its own.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;

use isimud_contract::SystemClock;
use isimud_lease::LeaseBroker;
use isimud_sqs::{Config, SqsBroker};
use isimud_testing::sqs::Corner;
use isimud_testing::sqs::proxy::{Fault, Proxy};

use crate::support::{numbers, queue};

/// Names the store that this program is to post to, instead of running trials.
pub(crate) const PROBE: &str = "ISIMUD_SQS_PROBE";

/// Posts once for each line that it reads, and says what became of it.
pub(crate) fn probe(uri: &str) -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config::parse(uri).unwrap();
    let broker = SqsBroker::open(config, Arc::new(SystemClock)).unwrap();
    for line in std::io::stdin().lines() {
        line.unwrap();
        match runtime.block_on(broker.send(&queue("q"), numbers(0..1))) {
            Ok(()) => println!("sent"),
            Err(error) => println!("{:?}: {error}", error.kind()),
        }
    }
    ExitCode::SUCCESS
}

/// A program that posts.
struct Poster {
    _process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Poster {
    /// With nothing of this program's environment but what is set here.
    fn start(port: u16, options: &str, environment: &[(&str, &str)]) -> Self {
        let uri =
            format!("sqs://us-east-1?endpoint=http://127.0.0.1:{port}&timeout_ms=20000{options}");
        let mut process = Command::new(std::env::current_exe().unwrap())
            .env_clear()
            .env(PROBE, uri)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_CONFIG_FILE", "/nowhere")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            input: process.stdin.take().unwrap(),
            output: BufReader::new(process.stdout.take().unwrap()),
            _process: process,
        }
    }

    fn post(&mut self) -> String {
        self.input.write_all(b"\n").unwrap();
        let mut said = String::new();
        self.output.read_line(&mut said).unwrap();
        said.trim().to_owned()
    }
}

/// Posts that the server has seen from this corner's access key.
fn seen(corner: &Corner) -> u64 {
    let requests = corner.requests();
    requests.get("SendMessageBatch").copied().unwrap_or(0)
}

pub(crate) async fn they_come_from_the_environment(corner: Corner) {
    let environment = [
        ("AWS_ACCESS_KEY_ID", corner.login.as_str()),
        ("AWS_SECRET_ACCESS_KEY", "geheim"),
    ];
    let mut poster = Poster::start(corner.port, "", &environment);
    assert_eq!(poster.post(), "sent");
    assert_eq!(seen(&corner), 1);
}

fn profile(path: &Path, key: &str) {
    let text = format!("[mine]\naws_access_key_id = {key}\naws_secret_access_key = geheim\n");
    std::fs::write(path, text).unwrap();
}

pub(crate) async fn they_come_from_a_profile_and_are_read_again_when_refused(corner: Corner) {
    let proxy = Proxy::start(corner.port).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("credentials");
    profile(&path, "OUTDATED");
    let environment = [("AWS_SHARED_CREDENTIALS_FILE", path.to_str().unwrap())];
    let mut poster = Poster::start(proxy.port, "&profile=mine", &environment);
    assert_eq!(poster.post(), "sent");
    assert_eq!(seen(&corner), 0);
    // They expire, and somebody renews them.
    proxy.always("*", Fault::Refused(403, "ExpiredTokenException"));
    let said = poster.post();
    assert!(
        said.starts_with("Unavailable: the AWS credentials have expired"),
        "{said}"
    );
    assert!(!said.contains("geheim"));
    profile(&path, &corner.login);
    proxy.calm();
    assert_eq!(poster.post(), "sent");
    assert_eq!(seen(&corner), 1);
}

/// The server takes any token, and hands out a key of its own.
pub(crate) async fn they_come_from_a_web_identity(corner: Corner) {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "a.web.token").unwrap();
    let address = format!("http://127.0.0.1:{}", corner.port);
    let environment = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/isimud"),
        ("AWS_ENDPOINT_URL_STS", address.as_str()),
    ];
    let options = format!("&prefix={}-", corner.login);
    let mut poster = Poster::start(corner.port, &options, &environment);
    assert_eq!(poster.post(), "sent");
}

pub(crate) async fn without_any_the_store_is_unavailable(corner: Corner) {
    let mut poster = Poster::start(corner.port, "", &[]);
    let said = poster.post();
    assert!(
        said.starts_with("Unavailable: no AWS credentials are to be had"),
        "{said}"
    );
}
