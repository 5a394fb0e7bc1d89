//! A real Keystone: a virtual environment that a script makes once, a folder that is prepared once and copied for each
//! server, and a process on a free port of loopback.
//!
//! A missing Keystone makes the tests fail with the command that installs it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::keystone::http::{Message, send};

/// How long Keystone may take to answer first, on a machine that does other things as well.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

pub(crate) const ADMIN_PASSWORD: &str = "admin-pw-d41d8cd9";

/// The tests' folder: caches, and what tests leave behind.
fn target() -> PathBuf {
    match std::env::var_os("TEST_CACHE") {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("target"),
    }
}

/// The folder of the programs of the virtual environment.
static PROGRAMS: LazyLock<PathBuf> = LazyLock::new(|| {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/keystone-venv");
    let made = Command::new(&script).stderr(Stdio::inherit()).output();
    let made = made.expect("the script can be run");
    let hint =
        "there is no Keystone for the tests; this command installs it: scripts/keystone-venv";
    assert!(made.status.success(), "{hint}");
    let python = String::from_utf8(made.stdout).expect("a path");
    PathBuf::from(python.lines().last().unwrap_or_default())
        .parent()
        .expect("a folder")
        .to_owned()
});

/// A folder with an empty Keystone in it, prepared once.
static TEMPLATE: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = target().join("keystone-template");
    let lock = File::create(target().join("keystone-template.lock")).expect("a lock file");
    lock.lock().expect("the lock");
    let stamp = folder.join("ready");
    let wanted = include_str!("requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return folder;
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("the old template can be removed");
    }
    fs::create_dir_all(&folder).expect("a folder");
    write_config(&folder, "keystone", "");
    for keys in ["fernet", "credential"] {
        private_folder(&folder.join(keys));
    }
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    let (user, group) = (user.as_raw().to_string(), group.as_raw().to_string());
    let owner = ["--keystone-user", &user, "--keystone-group", &group];
    manage(&folder, &["db_sync"]);
    manage(&folder, &[&["fernet_setup"][..], &owner].concat());
    manage(&folder, &[&["credential_setup"][..], &owner].concat());
    let url = "http://127.0.0.1:1/v3";
    manage(
        &folder,
        &[
            "bootstrap",
            "--bootstrap-password",
            ADMIN_PASSWORD,
            "--bootstrap-region-id",
            "RegionOne",
            "--bootstrap-public-url",
            url,
            "--bootstrap-internal-url",
            url,
            "--bootstrap-admin-url",
            url,
        ],
    );
    fs::write(&stamp, wanted).expect("the stamp");
    folder
});

fn private_folder(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(folder).expect("a folder");
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).expect("its mode");
}

fn manage(folder: &Path, command: &[&str]) {
    let done = Command::new(PROGRAMS.join("keystone-manage"))
        .arg("--config-file")
        .arg(folder.join("keystone.conf"))
        .args(command)
        .output()
        .expect("keystone-manage can be run");
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}: {errors}");
}

/// Writes `NAME.conf` for the Keystone of a folder; `token` are further keys of `[token]`.
///
/// Revocations are not cached: of two requests at once, one can put the list back that the other has just outdated, and
/// Keystone then misses the revocation for an hour.
fn write_config(folder: &Path, name: &str, token: &str) {
    let here = folder.display();
    let config = format!(
        "[DEFAULT]\nlog_file = {here}/{name}.log\n[database]\nconnection = sqlite:///{here}/keystone.db\n\
         [token]\nprovider = fernet\n{token}\n[fernet_tokens]\nkey_repository = {here}/fernet\n\
         [credential]\nkey_repository = {here}/credential\n[identity]\npassword_hash_rounds = 4\n\
         [revoke]\ncaching = false\n[cache]\nenabled = true\nbackend = dogpile.cache.memory\n"
    );
    fs::write(folder.join(format!("{name}.conf")), config).expect("the configuration");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("its type").is_dir() {
            private_folder(&target);
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// A process of Keystone. It ends with the value, and with the test program, however that ends.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) port: u16,
    pid: i32,
    watch: Child,
    /// The shell that started the process kills it when this closes.
    alive: Option<ChildStdin>,
}

impl Process {
    /// Starts the Keystone of a folder with `NAME.conf`, on a port or on any free one, and waits until it answers.
    fn start(folder: &Path, name: &str, port: Option<u16>, threads: &str) -> Self {
        for _ in 0..5 {
            let port = port.unwrap_or_else(free_port);
            let mut process = Self::spawn(folder, name, port, threads);
            if process.is_ready() {
                return process;
            }
            // Another program may take a port between its choice and its use.
            sleep(Duration::from_millis(500));
        }
        let log = fs::read_to_string(folder.join(format!("{name}.uwsgi.log")));
        panic!("Keystone does not start: {}", log.unwrap_or_default());
    }

    fn spawn(folder: &Path, name: &str, port: u16, threads: &str) -> Self {
        let script = r#""$@" </dev/null >"$LOG" 2>&1 & pid=$!; echo $pid; read -r word; kill -9 $pid
            [ "$word" = keep ] || rm -rf "$FOLDER""#;
        let mut watch = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(PROGRAMS.join("uwsgi"))
            .arg("--http-socket")
            .arg(format!("127.0.0.1:{port}"))
            .args(["--module", "keystone.wsgi.api:application"])
            .arg("--virtualenv")
            .arg(PROGRAMS.parent().expect("the environment"))
            .args([
                "--processes",
                "1",
                "--threads",
                threads,
                "--need-app",
                "--die-on-term",
            ])
            .args(["--buffer-size", "65535", "--listen", "100"])
            .args(["--socket-timeout", "60", "--http-timeout", "60"])
            // It closes each connection, and does not say so by itself.
            .args(["--add-header", "Connection: close"])
            .env(
                "OS_KEYSTONE_CONFIG_FILES",
                folder.join(format!("{name}.conf")),
            )
            .env("FOLDER", folder)
            .env("LOG", folder.join(format!("{name}.uwsgi.log")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut pid = String::new();
        let stdout = watch.stdout.take().expect("its output");
        BufReader::new(stdout)
            .read_line(&mut pid)
            .expect("the process id");
        Self {
            port,
            pid: pid.trim().parse().expect("a process id"),
            alive: watch.stdin.take(),
            watch,
        }
    }

    fn is_ready(&mut self) -> bool {
        let start = Instant::now();
        let request = Message {
            start: "GET /v3 HTTP/1.1".to_owned(),
            headers: vec![("Host".to_owned(), "keystone".to_owned())],
            body: Vec::new(),
        };
        while start.elapsed() < READY_TIMEOUT {
            // The shell has not waited for it yet: it stays as a zombie.
            let state = fs::read_to_string(format!("/proc/{}/stat", self.pid));
            if state.is_ok_and(|state| state.contains(") Z ")) {
                return false;
            }
            if send(self.port, &request).is_ok_and(|answer| answer.status() == 200) {
                return true;
            }
            sleep(Duration::from_millis(100));
        }
        false
    }

    fn id(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_raw(self.pid).expect("a process id")
    }

    /// Stops the process where it is: connections are made by the kernel, and nothing answers.
    pub(crate) fn pause(&self) {
        rustix::process::kill_process(self.id(), rustix::process::Signal::STOP).expect("a signal");
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        rustix::process::kill_process(self.id(), rustix::process::Signal::CONT).expect("a signal");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The folder is that of a value that still needs it; where the program ends without this, the shell removes it.
        if let Some(mut alive) = self.alive.take() {
            drop(alive.write_all(b"keep\n"));
        }
        drop(self.watch.wait());
    }
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

/// A Keystone of the test's own, with an administrator.
#[derive(Debug)]
pub(crate) struct Keystone {
    folder: tempfile::TempDir,
    /// `None` while it is stopped.
    process: Option<Process>,
    threads: &'static str,
    pub(crate) port: u16,
    /// A token of the administrator.
    pub(crate) admin: String,
}

impl Keystone {
    /// Starts one that answers so many requests at once, with its endpoints at its own port.
    pub(crate) fn start(threads: &'static str) -> Self {
        let folder = tempfile::tempdir_in(target()).expect("a folder");
        copy(&TEMPLATE, folder.path());
        write_config(folder.path(), "keystone", "");
        write_config(folder.path(), "short", "expiration = 6");
        let process = Process::start(folder.path(), "keystone", None, threads);
        let mut keystone = Self {
            threads,
            port: process.port,
            process: Some(process),
            folder,
            admin: String::new(),
        };
        let scope = json!({"project": {"name": "admin", "domain": {"id": "default"}}});
        keystone.admin = keystone.login("admin", ADMIN_PASSWORD, Some(&scope));
        let url = format!("http://127.0.0.1:{}/v3", keystone.port);
        for endpoint in list(&keystone.get("/v3/endpoints"), "endpoints") {
            let path = format!("/v3/endpoints/{}", text(&endpoint["id"]));
            keystone.change("PATCH", &path, &json!({"endpoint": {"url": url}}));
        }
        keystone
    }

    /// Starts a second process on the same data, whose tokens expire after six seconds.
    pub(crate) fn start_short(&self) -> Process {
        Process::start(self.folder.path(), "short", None, self.threads)
    }

    /// Kills the process.
    pub(crate) fn stop(&mut self) {
        self.process = None;
    }

    /// Starts it again at the same port.
    pub(crate) fn start_again(&mut self) {
        self.process = Some(Process::start(
            self.folder.path(),
            "keystone",
            Some(self.port),
            self.threads,
        ));
    }

    pub(crate) fn process(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }

    /// Sends a request with a token; `""` for none.
    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: Option<&Value>,
    ) -> Message {
        request(self.port, method, path, token, body)
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let answer = self.request("GET", path, &self.admin, None);
        assert_eq!(answer.status(), 200, "{path}: {:?}", answer.json());
        answer.json()
    }

    /// Does something as the administrator that must succeed.
    pub(crate) fn change(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = (!body.is_null()).then_some(body);
        let answer = self.request(method, path, &self.admin, body);
        let is_done = (200..300).contains(&answer.status());
        assert!(
            is_done,
            "{method} {path}: {} {}",
            answer.status(),
            answer.json()
        );
        answer.json()
    }

    /// Creates something and returns its id.
    pub(crate) fn create(&self, path: &str, kind: &str, members: &Value) -> String {
        let created = self.change("POST", path, &json!({ kind: members }));
        text(&created[kind]["id"])
    }

    pub(crate) fn role(&self, name: &str) -> String {
        let roles = list(&self.get(&format!("/v3/roles?name={name}")), "roles");
        text(&roles.first().expect("the role")["id"])
    }

    /// Gets a token with a password of a user of the domain `default`.
    pub(crate) fn login(&self, user: &str, password: &str, scope: Option<&Value>) -> String {
        login(self.port, user, password, scope)
    }

    /// Gets a token with any body of an authentication request.
    pub(crate) fn token(&self, auth: &Value) -> String {
        token(self.port, auth)
    }

    /// Revokes a token.
    pub(crate) fn revoke(&self, token: &str) {
        let request = Message {
            start: "DELETE /v3/auth/tokens HTTP/1.1".to_owned(),
            headers: [
                ("Host", "keystone"),
                ("X-Auth-Token", &self.admin),
                ("X-Subject-Token", token),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
            body: Vec::new(),
        };
        let answer = send(self.port, &request).expect("an answer");
        assert_eq!(answer.status(), 204);
    }
}

/// Gets a token with a password, from any process.
pub(crate) fn login(port: u16, user: &str, password: &str, scope: Option<&Value>) -> String {
    let user = json!({"name": user, "domain": {"id": "default"}, "password": password});
    let mut auth = json!({"identity": {"methods": ["password"], "password": {"user": user}}});
    if let Some(scope) = scope {
        auth["scope"] = scope.clone();
    }
    token(port, &auth)
}

fn token(port: u16, auth: &Value) -> String {
    let answer = request(
        port,
        "POST",
        "/v3/auth/tokens",
        "",
        Some(&json!({ "auth": auth })),
    );
    assert_eq!(answer.status(), 201, "{}", answer.json());
    answer
        .header("x-subject-token")
        .expect("a token")
        .to_owned()
}

fn request(port: u16, method: &str, path: &str, token: &str, body: Option<&Value>) -> Message {
    let mut headers = vec![("Host".to_owned(), "keystone".to_owned())];
    if !token.is_empty() {
        headers.push(("X-Auth-Token".to_owned(), token.to_owned()));
    }
    if body.is_some() {
        headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
    }
    let request = Message {
        start: format!("{method} {path} HTTP/1.1"),
        headers,
        body: body
            .map(|body| body.to_string().into_bytes())
            .unwrap_or_default(),
    };
    // uwsgi closes a connection without an answer where Keystone raises while it still loads its parts.
    for _ in 0..3 {
        match send(port, &request) {
            Ok(answer) => return answer,
            Err(_) => sleep(Duration::from_millis(500)),
        }
    }
    send(port, &request).expect("Keystone answers")
}

pub(crate) fn list(document: &Value, key: &str) -> Vec<Value> {
    document[key].as_array().cloned().unwrap_or_default()
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}
