//! Who may ask the admin listener for what: a web page that an operator visits, somebody on the network, operators with
//! tokens of their own, and commands of the machine.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command::process::{Ended, Running, TIMEOUT, exchange, isimud, run, within};
use crate::support::server::{self, Answer};

/// A server with an admin listener, a queue `victim/gold`, and a folder of its own for the token of the machine.
struct Guarded {
    server: Running,
    admin: SocketAddr,
    folder: TempDir,
}

impl Guarded {
    fn start(environment: &[(&str, &str)]) -> Self {
        Self::start_in(tempfile::tempdir().expect("a folder"), environment)
    }

    fn start_in(folder: TempDir, environment: &[(&str, &str)]) -> Self {
        let admin = server::free_address();
        let address = admin.to_string();
        let runtime = folder.path().to_str().expect("a path").to_owned();
        let mut environment = environment.to_vec();
        environment.push(("XDG_RUNTIME_DIR", &runtime));
        let arguments = ["--store", "sqlite::memory:", "--admin-listen", &address];
        let server = Running::start_with(folder.path(), &arguments, &environment);
        let guarded = Self {
            server,
            admin,
            folder,
        };
        let message = json!({"messages": [{"body": "gold"}]});
        let mut victim = crate::support::server::Client::new(guarded.server.address, "victim");
        let posted = victim.send("POST", "/v2/queues/gold/messages", Some(&message));
        assert_eq!(posted.expect("an answer").status, 201);
        guarded
    }

    /// The file with the token of the machine.
    fn token_file(&self) -> PathBuf {
        let name = format!("admin-{}-{}.token", self.admin.ip(), self.admin.port());
        self.folder.path().join("isimud").join(name)
    }

    fn local_token(&self) -> String {
        std::fs::read_to_string(self.token_file()).expect("the token of the machine")
    }

    /// Asks with headers, each with its end of the line.
    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        let host = match headers.contains("Host: ") {
            true => "",
            false => "Host: 127.0.0.1\r\n",
        };
        let head = format!("{method} {path} HTTP/1.1\r\n{host}{headers}");
        exchange(
            self.admin,
            &format!("{head}Content-Length: {length}\r\n\r\n{body}"),
        )
    }

    /// Asks with a token, for a change where there is a document.
    fn with(&self, token: &str, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let headers =
            format!("Authorization: Bearer {token}\r\nContent-Type: application/json\r\n");
        let body = body.map(Value::to_string).unwrap_or_default();
        self.ask(method, path, &headers, &body)
    }

    fn bridges(&self) -> Value {
        let answer = self.with(&self.local_token(), "GET", "/bridges", None);
        assert_eq!(answer.status, 200, "{answer}");
        answer.json()["bridges"].clone()
    }

    /// A command that asks this server, as a user of the same machine runs it.
    fn command(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
        let mut command = isimud(self.folder.path(), arguments);
        command
            .args(["--admin", &self.admin.to_string()])
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .envs(environment.iter().copied());
        run(command)
    }
}

/// Makes a token in a file; returns it.
pub(crate) fn new_token(folder: &Path, arguments: &[&str]) -> String {
    let mut command = isimud(folder, &["token", "new", "--file", "tokens.toml"]);
    command.args(arguments);
    let ended = run(command);
    assert!(ended.status.success(), "{ended:?}");
    ended.stdout.trim().to_owned()
}

const THEFT: &str = r#"{"from": "victim/gold", "to": "attacker/loot"}"#;
const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn a_page_that_an_operator_visits_moves_nothing() {
    let guarded = Guarded::start(&[]);
    let bearer = format!("Authorization: Bearer {}\r\n", guarded.local_token());
    for foreign in [
        "Origin: http://evil.example\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
    ] {
        // Whatever a browser could be brought to send, also what it cannot.
        for more in ["", JSON, &format!("{JSON}{bearer}")] {
            let headers = format!("{foreign}{more}");
            for (method, path) in [
                ("POST", "/bridges"),
                ("POST", "/bridges?from=victim/gold&to=attacker/loot"),
                ("DELETE", "/bridges"),
                ("POST", "/moves/queue"),
                ("POST", "/moves/pool?pool=default"),
                ("GET", "/bridges"),
                ("GET", "/metrics"),
                ("OPTIONS", "/bridges"),
            ] {
                let answer = guarded.ask(method, path, &headers, THEFT);
                assert_eq!(answer.status, 403, "{method} {path} {headers}: {answer}");
                let allowed = answer.header("access-control-allow-origin");
                assert_eq!(allowed, None, "{method} {path}");
            }
        }
    }
    assert_eq!(guarded.bridges(), json!([]));
}

#[test]
fn a_name_that_leads_here_by_somebody_elses_dns_reads_nothing() {
    let guarded = Guarded::start(&[("ISIMUD__ADMIN__HOSTS", "[\"admin.example\"]")]);
    let bearer = format!("Authorization: Bearer {}\r\n", guarded.local_token());
    for host in [
        "evil.example",
        "evil.example:8889",
        "127.0.0.1.evil.example",
    ] {
        for path in ["/bridges", "/moves/queue", "/metrics", "/openapi.json"] {
            let headers = format!("Host: {host}\r\n{bearer}");
            let answer = guarded.ask("GET", path, &headers, "");
            assert_eq!(answer.status, 421, "{host} {path}: {answer}");
        }
    }
    for host in ["localhost", "127.0.0.1:1", "[::1]:8889", "admin.example:80"] {
        let answer = guarded.ask("GET", "/bridges", &format!("Host: {host}\r\n{bearer}"), "");
        assert_eq!(answer.status, 200, "{host}: {answer}");
    }
    // Who looks whether it lives may call it anything.
    assert_eq!(
        guarded.ask("GET", "/live", "Host: pod-7\r\n", "").status,
        200
    );
}

#[test]
fn nobody_changes_or_reads_anything_without_a_token() {
    let guarded = Guarded::start(&[]);
    for (method, path) in [
        ("POST", "/bridges"),
        ("DELETE", "/bridges"),
        ("GET", "/bridges"),
        ("POST", "/moves/queue"),
        ("GET", "/moves/queue?project=victim&queue=gold"),
        ("POST", "/moves/pool"),
        ("GET", "/moves/pool?pool=default"),
    ] {
        let answer = guarded.ask(method, path, JSON, THEFT);
        assert_eq!(answer.status, 401, "{method} {path}: {answer}");
        let asked = answer.header("www-authenticate").unwrap_or_default();
        assert!(asked.starts_with("Bearer"), "{asked}");
    }
    for path in ["/live", "/ready", "/metrics", "/openapi.json"] {
        let answer = guarded.ask("GET", path, "", "");
        assert_eq!(answer.status, 200, "{path}");
        let sniffed = answer.header("x-content-type-options");
        assert_eq!(sniffed, Some("nosniff"), "{path}");
    }
    assert_eq!(guarded.bridges(), json!([]));
}

#[test]
fn who_guesses_tokens_is_told_to_wait_and_a_good_one_still_works() {
    let guarded = Guarded::start(&[]);
    for _ in 0..10 {
        let guess = guarded.with("isimud_guess", "GET", "/bridges", None);
        assert_eq!(guess.status, 401, "{guess}");
    }
    let guess = guarded.with("isimud_guess", "GET", "/bridges", None);
    assert_eq!(guess.status, 429, "{guess}");
    assert_eq!(guess.header("retry-after"), Some("60"));
    assert_eq!(guarded.bridges(), json!([]));
    let told = guarded.server.said();
    assert_eq!(told.matches("nobody's").count(), 10, "{told}");
    assert!(!told.contains("isimud_guess"), "{told}");
}

#[test]
fn a_change_is_asked_for_by_a_document_alone() {
    let guarded = Guarded::start(&[]);
    let token = guarded.local_token();
    let bearer = format!("Authorization: Bearer {token}\r\n");
    for (media, path, body, status) in [
        ("text/plain", "/bridges", THEFT, 415),
        (
            "application/x-www-form-urlencoded",
            "/bridges",
            "from=a",
            415,
        ),
        (
            "application/json",
            "/bridges?from=victim/gold&to=a/b",
            THEFT,
            400,
        ),
        ("application/json", "/bridges", "", 400),
        ("application/json", "/bridges", "[]", 400),
        ("application/json", "/bridges", r#"{"from": "a/b"}"#, 400),
        (
            "application/json",
            "/bridges",
            r#"{"from": "a/b", "to": "c/d", "too": 1}"#,
            400,
        ),
        (
            "application/json",
            "/moves/queue",
            r#"{"project": "p", "queue": "q", "to": "x", "rate": -1}"#,
            400,
        ),
    ] {
        let headers = format!("{bearer}Content-Type: {media}\r\n");
        let answer = guarded.ask("POST", path, &headers, body);
        assert_eq!(answer.status, status, "{media} {path} {body}: {answer}");
        assert!(answer.json()["error"].is_string(), "{answer}");
    }
    let large = json!({"from": "x".repeat(70_000), "to": "a/b"});
    let answer = guarded.with(&token, "POST", "/bridges", Some(&large));
    assert_eq!(answer.status, 413, "{answer}");
    assert_eq!(guarded.bridges(), json!([]));
}

#[test]
fn roles_and_projects_bound_what_a_token_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let token = |name: &str, role: &str, more: &[&str]| {
        let arguments = [&["--name", name, "--role", role], more].concat();
        new_token(folder.path(), &arguments)
    };
    let (viewer, admin) = (token("eye", "viewer", &[]), token("root", "admin", &[]));
    let own = token(
        "shop",
        "operator",
        &["--project", "shop", "--project", "attacker"],
    );
    let operator = token("op", "operator", &["--days", "3"]);
    let guarded = Guarded::start_in(folder, &[("ISIMUD__ADMIN__TOKENS_FILE", "tokens.toml")]);
    let theft: Value = serde_json::from_str(THEFT).expect("JSON");
    let place = "/moves/queue?project=victim&queue=gold";
    let moved = json!({"project": "victim", "queue": "gold", "to": "default"});
    let drained = json!({"pool": "default"});
    for (token, method, path, body, status) in [
        (&viewer, "GET", place, None, 200),
        (&viewer, "GET", "/bridges", None, 200),
        (&viewer, "POST", "/bridges", Some(&theft), 403),
        (&viewer, "DELETE", "/bridges", Some(&theft), 403),
        (&viewer, "POST", "/moves/queue", Some(&moved), 403),
        (&viewer, "POST", "/moves/pool", Some(&drained), 403),
        (&own, "GET", place, None, 403),
        (&own, "POST", "/bridges", Some(&theft), 403),
        (&own, "DELETE", "/bridges", Some(&theft), 403),
        (&own, "POST", "/moves/queue", Some(&moved), 403),
        (&own, "GET", "/moves/pool?pool=default", None, 403),
        (&operator, "POST", "/moves/queue", Some(&moved), 200),
        (&operator, "POST", "/moves/pool", Some(&drained), 403),
        (&operator, "POST", "/bridges", Some(&theft), 200),
        // It may: that there is no other store is what stops it.
        (&admin, "POST", "/moves/pool", Some(&drained), 400),
    ] {
        let answer = guarded.with(token, method, path, body);
        let refused_by_pools = status == 400 && answer.status != 403 && answer.status != 401;
        assert!(
            answer.status == status || refused_by_pools,
            "{method} {path}: {answer}, not {status}"
        );
    }
    // A bridge of other projects is not even named.
    let seen = guarded.with(&own, "GET", "/bridges", None).json();
    assert_eq!(seen, json!({"bridges": []}));
    assert_eq!(
        guarded
            .with(&operator, "DELETE", "/bridges", Some(&theft))
            .status,
        200
    );
    let told = guarded.server.said();
    for line in [
        "who=\"op\"",
        "who=\"shop\"",
        "role=\"viewer\"",
        "outcome=\"refused\"",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
}

#[test]
fn every_change_leaves_a_line_whatever_the_level_of_the_log() {
    let guarded = Guarded::start(&[("ISIMUD__LOG__LEVEL", "error")]);
    let token = guarded.local_token();
    let theft: Value = serde_json::from_str(THEFT).expect("JSON");
    let moved = json!({"project": "victim", "queue": "gold", "to": "default"});
    let nowhere = json!({"project": "victim", "queue": "gold", "to": "nowhere"});
    let send = |method, path, body| guarded.with(&token, method, path, Some(body)).status;
    assert_eq!(send("POST", "/moves/queue", &moved), 200);
    assert_eq!(send("POST", "/moves/queue", &nowhere), 404);
    let drained = json!({"pool": "default"});
    send("POST", "/moves/pool", &drained);
    for _ in 0..3 {
        assert_eq!(send("POST", "/bridges", &theft), 200);
    }
    assert_eq!(send("DELETE", "/bridges", &theft), 200);
    let told = guarded.server.said();
    let lines: Vec<&str> = told.lines().filter(|line| line.contains("who=")).collect();
    let is_told = |words: &[&str]| {
        let count = lines
            .iter()
            .filter(|line| words.iter().all(|word| line.contains(word)));
        count.count()
    };
    for words in [
        &[
            "move a queue",
            "victim/gold to default",
            "done",
            "local",
            "127.0.0.1",
        ][..],
        &[
            "move a queue",
            "victim/gold to nowhere",
            "refused",
            "does not exist",
        ],
        &["drain a pool", "pool default"],
        // Once, not each time that a command says it again.
        &["begin a bridge", "victim/gold to attacker/loot", "done"],
        &["end a bridge", "victim/gold to attacker/loot", "done"],
    ] {
        assert_eq!(is_told(words), 1, "{words:?}: {told}");
    }
    assert!(!told.contains(token.trim()), "{told}");
}

#[test]
fn beyond_this_machine_the_listener_needs_tokens_or_is_for_probes_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    new_token(folder.path(), &["--name", "a", "--role", "admin"]);
    let check = |environment: &[(&str, &str)]| {
        let arguments = ["--check", "--admin-listen", "0.0.0.0:8889"];
        let mut command = isimud(folder.path(), &arguments);
        command.envs(environment.iter().copied());
        run(command)
    };
    let open = check(&[]);
    assert_eq!(open.status.code(), Some(1), "{open:?}");
    for named in ["admin.tokens_file", "admin.probes_only", "0.0.0.0:8889"] {
        assert!(open.stderr.contains(named), "{named}: {open:?}");
    }
    for environment in [
        ("ISIMUD__ADMIN__TOKENS_FILE", "tokens.toml"),
        ("ISIMUD__ADMIN__PROBES_ONLY", "true"),
    ] {
        let fine = check(&[environment]);
        assert!(fine.status.success(), "{environment:?}: {fine:?}");
    }
    let guarded = Guarded::start(&[("ISIMUD__ADMIN__PROBES_ONLY", "true")]);
    for path in ["/live", "/ready", "/metrics", "/openapi.json"] {
        assert_eq!(guarded.ask("GET", path, "", "").status, 200, "{path}");
    }
    for (method, path) in [("GET", "/bridges"), ("POST", "/moves/queue")] {
        assert_eq!(guarded.ask(method, path, JSON, THEFT).status, 404, "{path}");
    }
    assert!(!guarded.token_file().exists());
}

#[test]
fn metrics_may_need_a_token_too() {
    let guarded = Guarded::start(&[("ISIMUD__ADMIN__METRICS_OPEN", "false")]);
    assert_eq!(guarded.ask("GET", "/metrics", "", "").status, 401);
    assert_eq!(guarded.ask("GET", "/live", "", "").status, 200);
    let token = guarded.local_token();
    assert_eq!(guarded.with(&token, "GET", "/metrics", None).status, 200);
}

#[test]
fn commands_of_the_machine_find_their_token_and_others_bring_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let token = new_token(folder.path(), &["--name", "op", "--role", "operator"]);
    let guarded = Guarded::start_in(folder, &[("ISIMUD__ADMIN__TOKENS_FILE", "tokens.toml")]);
    let file = guarded.token_file();
    let mode = std::fs::metadata(&file).expect("it is there").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    let moving = [
        "queues",
        "move",
        "--project",
        "victim",
        "--queue",
        "gold",
        "--to",
        "default",
    ];
    let by_itself = guarded.command(&moving, &[]);
    assert!(by_itself.status.success(), "{by_itself:?}");
    std::fs::remove_file(&file).expect("it is there");
    let without = guarded.command(&moving, &[]);
    assert_eq!(without.status.code(), Some(1), "{without:?}");
    assert!(without.stderr.contains("needs a token"), "{without:?}");
    std::fs::write(guarded.folder.path().join("mine"), format!("{token}\n")).expect("a file");
    let own = ("ISIMUD_ADMIN_TOKEN", token.as_str());
    let in_file = ("ISIMUD_ADMIN_TOKEN_FILE", "mine");
    for environment in [own, in_file] {
        let brought = guarded.command(&moving, &[environment]);
        assert!(brought.status.success(), "{environment:?}: {brought:?}");
    }
    let by_flag = [&moving[..], &["--token-file", "mine"]].concat();
    let brought = guarded.command(&by_flag, &[]);
    assert!(brought.status.success(), "{brought:?}");
    let wrong = guarded.command(&moving, &[("ISIMUD_ADMIN_TOKEN", "isimud_other")]);
    assert!(wrong.stderr.contains("nobody's"), "{wrong:?}");
}

#[test]
fn a_token_that_is_taken_out_of_the_file_ends_with_a_signal() {
    let folder = tempfile::tempdir().expect("a folder");
    let token = new_token(folder.path(), &["--name", "eye", "--role", "viewer"]);
    let guarded = Guarded::start_in(folder, &[("ISIMUD__ADMIN__TOKENS_FILE", "tokens.toml")]);
    assert_eq!(guarded.with(&token, "GET", "/bridges", None).status, 200);
    let file = guarded.folder.path().join("tokens.toml");
    std::fs::remove_file(&file).expect("it is there");
    let other = new_token(
        guarded.folder.path(),
        &["--name", "new", "--role", "viewer"],
    );
    guarded.server.signal("HUP");
    let is_over = || (guarded.with(&other, "GET", "/bridges", None).status == 200).then_some(());
    within(TIMEOUT, is_over).expect("the file is read again");
    assert_eq!(guarded.with(&token, "GET", "/bridges", None).status, 401);
}

#[test]
fn signals_that_mean_nothing_to_the_server_do_not_end_it() {
    let guarded = Guarded::start(&[]);
    for name in ["USR1", "USR2", "ALRM"] {
        guarded.server.signal(name);
        assert_eq!(guarded.ask("GET", "/live", "", "").status, 200, "{name}");
    }
    let mut guarded = guarded;
    guarded.server.signal("TERM");
    assert_eq!(guarded.server.ended().code(), Some(0));
}

#[test]
fn the_token_of_the_machine_goes_with_its_server() {
    let mut guarded = Guarded::start(&[]);
    let file = guarded.token_file();
    assert!(file.exists());
    guarded.server.signal("TERM");
    assert_eq!(guarded.server.ended().code(), Some(0));
    assert!(!file.exists());
}

/// A queue that is deleted and created again while it moves is where new queues are.
#[test]
fn a_move_that_ended_in_another_pool_is_no_success() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let admin = listener.local_addr().expect("its address").to_string();
    let answering = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().expect("the command");
            let mut request = Vec::new();
            // The document is the last of it, and the only one that ends so.
            while !request.ends_with(b"}") && !request.starts_with(b"GET") {
                let mut some = [0; 1024];
                let count = stream.read(&mut some).expect("a request");
                request.extend_from_slice(&some[..count]);
            }
            let said = r#"{"place":["default"],"messages":7}"#;
            let length = said.len();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}"
            );
            write!(stream, "{head}\r\nConnection: close\r\n\r\n{said}").expect("it listens");
        }
    });
    let folder = tempfile::tempdir().expect("a folder");
    let arguments = [
        "queues",
        "move",
        "--project",
        "p",
        "--queue",
        "q",
        "--to",
        "r1",
        "--admin",
        &admin,
    ];
    let mut command = isimud(folder.path(), &arguments);
    command.env("ISIMUD_ADMIN_TOKEN", "any");
    let ended = run(command);
    answering.join().expect("it was asked twice");
    assert!(!ended.status.success(), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("queue p/q is in pool default, not in r1"),
        "{ended:?}"
    );
}
