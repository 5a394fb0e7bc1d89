//! `isimud config import`, as a process: ten configurations in the shapes that deployments have, what is refused, and what
//! is written for whom.
//!
//! `UPDATE=1` writes what the import gives as what is expected; read the difference before it is committed.

mod accepted;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use figment::Figment;
use figment::providers::{Format, Toml};

const IMPORTER: &str = env!("CARGO_BIN_EXE_isimud");

/// How long a server may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Each set of files, and the exit code of its import.
const SETS: [(&str, i32); 10] = [
    ("credential", 0),
    ("devstack", 0),
    ("helm", 3),
    ("kolla", 3),
    ("layers", 0),
    ("mongodb", 3),
    ("odd", 3),
    ("puppet", 0),
    ("sentinel", 0),
    ("tripleo", 3),
];

/// What is secret in the sets. No output and no file that others can read may contain one of them.
const SECRETS: [&str; 24] = [
    "secretservice",
    "notsosecret",
    "secretrabbit",
    "pa$word#1",
    "pa$$word#1",
    "p@ssw%rd",
    "p%40ssw%25rd",
    "trustee-password",
    "zaqar-signing-key",
    "not-the-public-one",
    "dGhpcyBpcyBub3QgYSByZWFsIGtleQ",
    "a_big_secret",
    "4Vb7wP",
    "8t2hQm",
    "kollapassword",
    "kollamemcachekey",
    "s3cret",
    "c0mplex",
    "m41l",
    "sentinel-signing-key",
    "spaces matter",
    "from-the-",
    "glance-of-a-secret",
    "trustee-secret",
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/zaqar_conf/fixtures")
}

/// The importer in a folder, without what the environment of the tests sets.
fn importer(folder: &Path) -> Command {
    let mut command = Command::new(IMPORTER);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("OS_") || name.starts_with("ISIMUD") {
            command.env_remove(name);
        }
    }
    command.current_dir(folder).args(["config", "import"]);
    command
}

fn arguments(set: &str) -> Vec<String> {
    let text = fs::read_to_string(fixtures().join(set).join("arguments")).expect("arguments");
    text.split_whitespace().map(str::to_owned).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Imports a set into a folder.
fn import(set: &str, folder: &Path) -> Output {
    let mut command = importer(&fixtures().join(set));
    command
        .args(arguments(set))
        .arg("--out")
        .arg(folder.join("isimud.toml"));
    command.output().expect("the importer can be run")
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("a file").permissions().mode() & 0o777
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

fn assert_expected(path: &Path, found: &str) {
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, found).expect("a file");
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(found, expected, "{}", path.display());
}

#[test]
fn every_set_gives_the_expected_configuration_and_report() {
    for (set, code) in SETS {
        let folder = tempfile::tempdir().expect("a folder");
        let done = import(set, folder.path());
        let said = text(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{set}: {said}");
        let place = folder.path().to_string_lossy().into_owned();
        let written =
            fs::read_to_string(folder.path().join("isimud.toml")).expect("a configuration");
        let expected = fixtures().join(set);
        assert_expected(
            &expected.join("expected.toml"),
            &written.replace(&place, "OUT"),
        );
        assert_expected(&expected.join("expected.txt"), &said.replace(&place, "OUT"));
        let policies =
            fs::read_to_string(folder.path().join("isimud.policy.yaml")).unwrap_or_default();
        if !policies.is_empty() {
            assert_expected(&expected.join("expected.policy.yaml"), &policies);
        }
    }
}

#[test]
fn secrets_are_in_files_for_their_owner_and_nowhere_else() {
    for (set, _) in SETS {
        let folder = tempfile::tempdir().expect("a folder");
        let done = import(set, folder.path());
        let secrets = folder.path().join("isimud.secrets");
        let mut public = vec![text(&done.stderr), text(&done.stdout)];
        for path in files(folder.path()) {
            if path.starts_with(&secrets) {
                assert_eq!(mode(&path), 0o600, "{}", path.display());
                assert_eq!(mode(&secrets), 0o700);
            } else {
                public.push(fs::read_to_string(&path).expect("text"));
            }
        }
        for text in public {
            let shown = SECRETS.iter().find(|secret| text.contains(**secret));
            assert_eq!(shown, None, "{set}: {text}");
        }
    }
}

#[test]
fn secrets_have_their_value_in_full() {
    let folder = tempfile::tempdir().expect("a folder");
    import("helm", folder.path());
    let read = |name: &str| {
        fs::read_to_string(folder.path().join("isimud.secrets").join(name)).expect("a secret")
    };
    assert_eq!(read("keystone.password"), "pa$word#1\n");
    assert_eq!(
        read("store.uri"),
        "redis://:p%40ssw%25rd@redis.openstack.svc.cluster.local?dbid=2&timeout_ms=5000\n"
    );
    assert_eq!(read("messages.encryption_keys"), "not-the-public-one\n");
    let folder = tempfile::tempdir().expect("a folder");
    import("layers", folder.path());
    let password = fs::read_to_string(folder.path().join("isimud.secrets/keystone.password"));
    assert_eq!(password.expect("a secret"), "from-the-environment\n");
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let once = import("odd", folder.path());
    let first: Vec<Vec<u8>> = files(folder.path())
        .iter()
        .map(|path| fs::read(path).expect("a file"))
        .collect();
    let mut command = importer(&fixtures().join("odd"));
    command
        .args(arguments("odd"))
        .arg("--out")
        .arg(folder.path().join("isimud.toml"))
        .arg("--force");
    let again = command.output().expect("the importer can be run");
    let second: Vec<Vec<u8>> = files(folder.path())
        .iter()
        .map(|path| fs::read(path).expect("a file"))
        .collect();
    assert_eq!(first, second);
    assert_eq!(once.stderr, again.stderr);
}

#[test]
fn files_that_exist_are_not_replaced_unless_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("isimud.toml");
    fs::write(&path, "mine").expect("a file");
    let done = import("devstack", folder.path());
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    assert!(text(&done.stderr).contains("--force"), "{done:?}");
    assert_eq!(files(folder.path()).len(), 1);
    assert_eq!(fs::read_to_string(&path).expect("a file"), "mine");
}

#[test]
fn printing_writes_no_file_and_shows_no_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["zaqar.conf", "arguments"] {
        fs::copy(
            fixtures().join("devstack").join(name),
            folder.path().join(name),
        )
        .expect("a copy");
    }
    let before = files(folder.path());
    let run = |more: &[&str]| {
        let mut command = importer(folder.path());
        command
            .args(["--zaqar", "zaqar.conf", "--out", "-"])
            .args(more);
        command.output().expect("the importer can be run")
    };
    let done = run(&[]);
    assert_eq!(done.status.code(), Some(3), "{done:?}");
    let printed = text(&done.stdout);
    assert!(
        printed.contains("ISIMUD__SIGNED_URL__SECRET_KEY"),
        "{printed}"
    );
    assert!(!printed.contains("notsosecret"), "{printed}");
    assert_eq!(files(folder.path()), before);

    let done = run(&["--secrets-in-file"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let read = Figment::from(Toml::string(&text(&done.stdout)));
    let key: String = read.extract_inner("signed_url.secret_key").expect("a key");
    assert_eq!(key, "notsosecret");

    let done = run(&["--secrets", "hidden"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert_eq!(mode(&folder.path().join("hidden/keystone.password")), 0o600);
}

#[test]
fn a_configuration_with_secrets_in_it_is_for_its_owner() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = importer(&fixtures().join("devstack"));
    command
        .args(arguments("devstack"))
        .arg("--secrets-in-file")
        .arg("--out")
        .arg(folder.path().join("isimud.toml"));
    let done = command.output().expect("the importer can be run");
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert_eq!(files(folder.path()), [folder.path().join("isimud.toml")]);
    assert_eq!(mode(&folder.path().join("isimud.toml")), 0o600);
}

#[test]
fn strictly_a_change_is_something_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = importer(&fixtures().join("devstack"));
    command
        .args(arguments("devstack"))
        .arg("--strict")
        .arg("--out")
        .arg(folder.path().join("isimud.toml"));
    let done = command.output().expect("the importer can be run");
    assert_eq!(done.status.code(), Some(3), "{done:?}");
}

#[test]
fn what_cannot_be_read_is_named_with_file_and_line_and_nothing_is_written() {
    let redis = "[drivers]\nmessage_store = redis\nmanagement_store = redis\n";
    for (conf, place) in [
        ("[DEFAULT]\nword\n", "zaqar.conf:2"),
        ("pooling = true\n", "zaqar.conf:1"),
        ("[DEFAULT]\n\npooling = maybe\n", "zaqar.conf:3"),
        ("[transport]\nmax_message_ttl = one\n", "zaqar.conf:2"),
        ("[drivers]\ntransport = smtp\n", "zaqar.conf:2"),
        ("[drivers:transport:wsgi]\nport = 65536\n", "zaqar.conf:2"),
        ("[DEFAULT]\nuse_syslog = perhaps\n", "zaqar.conf:2"),
        ("[signed_url]\nsecret_key = hun$ter2\n", "zaqar.conf:2"),
        ("[oslo_policy]\npolicy_file = wrong.yaml\n", "wrong.yaml"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("zaqar.conf"), format!("{conf}{redis}")).expect("a file");
        fs::write(folder.path().join("wrong.yaml"), "a: [\n").expect("a file");
        let before = files(folder.path());
        let done = importer(folder.path())
            .args(["--zaqar", "zaqar.conf"])
            .output()
            .expect("the importer can be run");
        let said = text(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{conf}: {said}");
        assert!(said.contains(place), "{conf}: {said}");
        assert!(!said.contains("ter2"), "{said}");
        assert_eq!(files(folder.path()), before, "{conf}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let done = importer(folder.path())
        .args(["--zaqar", "absent.conf"])
        .output()
        .expect("the importer can be run");
    assert_eq!(done.status.code(), Some(2), "{done:?}");
    assert!(text(&done.stderr).contains("absent.conf"), "{done:?}");
}

#[test]
fn every_fault_is_told_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let conf = "[DEFAULT]\npooling = maybe\nadmin_mode = perhaps\n[transport]\nmax_claim_ttl = x\n";
    fs::write(folder.path().join("zaqar.conf"), conf).expect("a file");
    let done = importer(folder.path())
        .args(["--zaqar", "zaqar.conf"])
        .output()
        .expect("the importer can be run");
    let said = text(&done.stderr);
    for line in [2, 3, 5] {
        assert_eq!(
            said.matches(&format!("zaqar.conf:{line}:")).count(),
            1,
            "{said}"
        );
    }
}

#[test]
fn the_environment_of_the_import_counts_as_that_of_the_service() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(
        folder.path().join("zaqar.conf"),
        "[transport]\nmax_message_ttl = 100\n",
    )
    .expect("a file");
    let mut command = importer(folder.path());
    command.args([
        "--zaqar",
        "zaqar.conf",
        "--out",
        "-",
        "--store",
        "sqlite:x.db",
    ]);
    command
        .env("OS_TRANSPORT__MAX_MESSAGE_TTL", "200")
        .env("OS_AUTH_URL", "http://elsewhere");
    let done = command.output().expect("the importer can be run");
    let printed = text(&done.stdout);
    assert!(printed.contains("max_message_ttl = 200"), "{printed}");
    assert!(
        printed.contains("OS_TRANSPORT__MAX_MESSAGE_TTL"),
        "{printed}"
    );
    assert!(!text(&done.stderr).contains("elsewhere"));
}

#[test]
fn a_foreign_store_without_a_choice_starts_no_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let done = import("mongodb", folder.path());
    assert_eq!(done.status.code(), Some(3), "{done:?}");
    let written = fs::read_to_string(folder.path().join("isimud.toml")).expect("a configuration");
    let read = Figment::from(Toml::string(&written));
    assert_eq!(
        read.extract_inner::<String>("store.uri").expect("a key"),
        ""
    );
}

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only for a process that has ended.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Asks for the health of a server; `None` while it does not listen.
fn health(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let request = "GET /v2/health HTTP/1.1\r\nHost: localhost\r\nX-Project-Id: p\r\nX-Roles: admin,cloud_admin\r\n\
                   Client-ID: 3381af92-2b9e-11e3-b191-71861300734c\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.lines().next().map(str::to_owned)
}

#[test]
fn a_server_starts_with_every_configuration() {
    for (set, _) in SETS {
        let folder = tempfile::tempdir().expect("a folder");
        import(set, folder.path());
        let written =
            fs::read_to_string(folder.path().join("isimud.toml")).expect("a configuration");
        let path = folder.path().join("isimud.toml");
        let command = |arguments: &[&str]| {
            let mut command = Command::new(IMPORTER);
            // The authorities of these deployments are not on this machine.
            for name in ["CA_FILE", "CERT_FILE", "KEY_FILE"] {
                command.env(format!("ISIMUD__KEYSTONE__{name}"), "");
            }
            // Nor are their addresses.
            command.env("ISIMUD__WEBSOCKET__LISTEN", "");
            command
                .current_dir(folder.path())
                .arg("--config")
                .arg(&path)
                .args(arguments);
            command
        };
        let checked = command(&["--check"])
            .output()
            .expect("the server can be run");
        let is_right = checked.status.success();
        assert_eq!(
            is_right,
            set != "mongodb",
            "{set}: {}",
            text(&checked.stderr)
        );
        if !is_right {
            continue;
        }

        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.expect("a free port").port();
        let listen = format!("127.0.0.1:{port}");
        let store = format!("sqlite:{}", folder.path().join("isimud.db").display());
        let mut start = command(&[
            "--listen",
            &listen,
            "--store",
            &store,
            "--management",
            &store,
        ]);
        let log = fs::File::create(folder.path().join("log")).expect("a file");
        let process = start
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the server can be run");
        let _server = Server(process);
        let begin = Instant::now();
        let answer = loop {
            match health(port) {
                Some(answer) => break answer,
                None if begin.elapsed() > START_TIMEOUT => break "no answer".to_owned(),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        // With Keystone nobody is asked anything without a token.
        let expected = match written.contains("authentication = \"keystone\"") {
            true => " 401 ",
            false => " 200 ",
        };
        assert!(answer.contains(expected), "{set}: {answer}\n{log}");
    }
}
