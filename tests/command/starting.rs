//! Starting: what there is to say, and what there is afterwards.

use std::fs;
use std::path::Path;

use isimud::config::{Config, Flags};
use serde_json::{Value, json};

use crate::command::process::{Running, TIMEOUT, contents, isimud, run, within};

#[test]
fn a_start_without_any_configuration_makes_a_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Running::start(folder.path(), &[]);
    assert!(folder.path().join("data/isimud.db").is_file());
    let created = server
        .client()
        .send("PUT", "/v2/queues/q", Some(&json!({"a": 1})));
    assert_eq!(created.expect("an answer").status, 201);
    server.stop();

    let server = Running::start(folder.path(), &["serve"]);
    let shown = server.client().send("GET", "/v2/queues/q", None);
    assert_eq!(shown.expect("an answer").json()["a"], 1);
}

#[test]
fn without_any_configuration_the_api_is_where_clients_expect_it() {
    let config = Config::load(&Flags::default()).expect("the defaults");
    assert_eq!(config.listen.to_string(), "127.0.0.1:8888");
    assert_eq!(config.admin_listen, None);
    assert_eq!(config.store, "sqlite:data/isimud.db");
    assert_eq!(config.management, None);
}

#[test]
fn a_check_says_that_all_is_right_and_makes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    for arguments in [
        &["--check"][..],
        &["serve", "--check"],
        &[
            "--check",
            "--store",
            "sqlite:some/where/isimud.db?readers=3",
        ],
        &[
            "--check",
            "--store",
            "sqlite::memory:",
            "--admin-listen",
            "127.0.0.1:1",
        ],
    ] {
        let ended = run(isimud(folder.path(), arguments));
        assert!(ended.status.success(), "{arguments:?} {ended:?}");
        let warnings: Vec<&str> = ended.stderr.lines().collect();
        assert_eq!(warnings.len(), 1, "{arguments:?} {ended:?}");
        assert!(warnings[0].contains("encryption_keys"), "{ended:?}");
        let last = ended.stdout.lines().last();
        assert_eq!(last, Some("configuration OK"), "{arguments:?}");
        let is_file = !arguments.contains(&"sqlite::memory:");
        assert_eq!(ended.stdout.contains("would be made"), is_file, "{ended:?}");
        assert!(contents(folder.path()).is_empty(), "{arguments:?}");
    }
}

#[test]
fn who_believes_everybody_beyond_this_machine_is_warned() {
    let warnings = |listen: &str, environment: &[(&str, &str)]| {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = isimud(folder.path(), &["--check", "--listen", listen]);
        command.envs(environment.iter().copied());
        let ended = run(command);
        assert!(ended.status.success(), "{ended:?}");
        ended.stderr
    };
    let proxies = ("ISIMUD__ACCESS__TRUSTED_PROXIES", "[\"10.0.0.5\"]");
    let secret = ("ISIMUD__ACCESS__PROXY_SECRET", "0123456789abcdef");
    for open in ["0.0.0.0:8888", "[::]:8888", "192.0.2.1:8888"] {
        let said = warnings(open, &[]);
        assert!(said.contains("access.trusted_proxies"), "{open}: {said}");
        assert!(said.contains(open), "{open}: {said}");
        for guard in [proxies, secret] {
            let said = warnings(open, &[guard]);
            assert!(!said.contains("access.trusted_proxies"), "{open}: {said}");
        }
    }
    for shut in ["127.0.0.1:8888", "[::1]:8888"] {
        let said = warnings(shut, &[]);
        assert!(!said.contains("access.trusted_proxies"), "{shut}: {said}");
    }
}

#[test]
fn the_address_of_a_connection_says_whether_it_is_a_proxys() {
    let folder = tempfile::tempdir().expect("a folder");
    for (proxies, status) in [("[\"10.0.0.0/8\"]", 403), ("[\"127.0.0.0/8\"]", 204)] {
        let environment = [("ISIMUD__ACCESS__TRUSTED_PROXIES", proxies)];
        let arguments = ["--store", "sqlite::memory:"];
        let server = Running::start_with(folder.path(), &arguments, &environment);
        let answer = server.client().send("GET", "/v2/ping", None);
        assert_eq!(answer.expect("an answer").status, status, "{proxies}");
    }
}

#[test]
fn a_check_does_not_mind_a_server_that_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Running::start(folder.path(), &["--store", "sqlite:isimud.db"]);
    let address = server.address.to_string();
    let ended = run(isimud(
        folder.path(),
        &[
            "--check",
            "--listen",
            &address,
            "--store",
            "sqlite:isimud.db",
        ],
    ));
    assert!(ended.status.success(), "{ended:?}");
    assert!(ended.stdout.contains("in use by a server"), "{ended:?}");
}

#[test]
fn keys_of_ones_own_are_no_reason_to_warn() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("keys"), "new key\nold key\n").expect("a file");
    fs::write(folder.path().join("signing"), "a long random text\n").expect("a file");
    let text = "[messages]\nencryption_keys_file = \"keys\"\n[signed_url]\nsecret_key_file = \"signing\"\n\
                [store]\nuri_file = \"uri\"\n";
    fs::write(folder.path().join("isimud.toml"), text).expect("a file");
    fs::write(folder.path().join("uri"), "sqlite::memory:\n").expect("a file");
    let ended = run(isimud(
        folder.path(),
        &["--check", "--config", "isimud.toml"],
    ));
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.stderr, "");
    assert_eq!(ended.stdout, "configuration OK\n");
}

#[test]
fn files_of_the_store_are_for_their_owner_only_whatever_the_mask_is() {
    use std::os::unix::fs::PermissionsExt;

    for mask in ["000", "077"] {
        let folder = tempfile::tempdir().expect("a folder");
        let program = isimud(folder.path(), &[]);
        let program = program.get_program().to_string_lossy().into_owned();
        let mut shell = std::process::Command::new("sh");
        let script = format!("umask {mask}; exec \"$0\" --listen 127.0.0.1:0");
        let output = fs::File::create(folder.path().join("server.log")).expect("a log");
        let mut server = shell
            .args(["-c", &script, &program])
            .current_dir(folder.path())
            .stderr(output)
            .spawn()
            .expect("a shell");
        let data = folder.path().join("data");
        let started = within(TIMEOUT, || {
            let said = fs::read_to_string(folder.path().join("server.log")).ok()?;
            said.contains("serving").then_some(())
        });
        let mode = |path: &Path| {
            fs::metadata(path)
                .expect("it is there")
                .permissions()
                .mode()
                & 0o777
        };
        let files: Vec<_> = fs::read_dir(&data).map_or_else(|_| Vec::new(), Iterator::collect);
        let modes: Vec<_> = files
            .into_iter()
            .map(|file| file.expect("a file").path())
            .map(|path| (mode(&path), path))
            .collect();
        server.kill().expect("it runs");
        server.wait().expect("it ends");
        assert!(started.is_some(), "it does not start");
        assert_eq!(mode(&data), 0o700);
        assert!(modes.len() > 3, "{modes:?}");
        for (mode, path) in modes {
            assert_eq!(mode, 0o600, "{}", path.display());
        }
    }
}

#[test]
fn the_file_that_lists_all_keys_can_be_given_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let defaults = concat!(env!("CARGO_MANIFEST_DIR"), "/config/default.toml");
    let ended = run(isimud(folder.path(), &["--check", "--config", defaults]));
    assert!(ended.status.success(), "{ended:?}");
}

/// The lifetime that queues show as their default, which tells where a configuration came from.
fn default_ttl(server: &Running) -> Value {
    let shown = server.client().send("GET", "/v2/queues/q", None);
    shown.expect("an answer").json()["_default_message_ttl"].clone()
}

#[test]
fn the_environment_comes_after_the_file_and_flags_come_last() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("isimud.toml");
    let text = "[limits]\ndefault_message_ttl = 100\n[store]\nuri = \"nope:x\"\n[server]\nlisten = \"127.0.0.1:1\"";
    fs::write(&file, text).expect("a file");
    let arguments = ["--config", "isimud.toml", "--store", "sqlite::memory:"];
    let server = Running::start(folder.path(), &arguments);
    assert_eq!(default_ttl(&server), 100);
    drop(server);
    let environment = [
        ("ISIMUD__LIMITS__DEFAULT_MESSAGE_TTL", "200"),
        ("ISIMUD__STORE__URI", "other:x"),
    ];
    let server = Running::start_with(folder.path(), &arguments, &environment);
    assert_eq!(default_ttl(&server), 200);
}

#[test]
fn lists_can_be_set_by_the_environment() {
    let folder = tempfile::tempdir().expect("a folder");
    let environment = [(
        "ISIMUD__CORS__ALLOWED_ORIGINS",
        r#"["https://a.example", "https://b.example"]"#,
    )];
    let server = Running::start_with(folder.path(), &["--store", "sqlite::memory:"], &environment);
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: https://b.example\r\n\r\n";
    let answer = crate::command::process::exchange(server.address, request);
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://b.example")
    );
}

#[test]
fn queues_can_be_kept_apart_from_messages() {
    let folder = tempfile::tempdir().expect("a folder");
    let apart = [
        "--store",
        "sqlite:messages.db",
        "--management",
        "sqlite:queues.db",
    ];
    let server = Running::start(folder.path(), &apart);
    let mut client = server.client();
    let created = client.send("PUT", "/v2/queues/q", Some(&json!({"a": 1})));
    assert_eq!(created.expect("an answer").status, 201);
    let post = json!({"messages": [{"body": 1}]});
    let posted = client.send("POST", "/v2/queues/q/messages", Some(&post));
    assert_eq!(posted.expect("an answer").status, 201);
    server.stop();

    let server = Running::start(folder.path(), &["--store", "sqlite:queues.db"]);
    let mut client = server.client();
    let shown = client.send("GET", "/v2/queues/q", None).expect("an answer");
    assert_eq!(shown.json()["a"], 1);
    let stats = client
        .send("GET", "/v2/queues/q/stats", None)
        .expect("an answer");
    assert_eq!(stats.json()["messages"]["total"], 0);
    drop(server);

    let server = Running::start(folder.path(), &["--store", "sqlite:messages.db"]);
    let mut client = server.client();
    let shown = client.send("GET", "/v2/queues/q", None).expect("an answer");
    assert_eq!(shown.json().get("a"), None);
    let stats = client
        .send("GET", "/v2/queues/q/stats", None)
        .expect("an answer");
    assert_eq!(stats.json()["messages"]["total"], 1);
}

#[test]
fn the_same_place_for_queues_and_messages_is_one_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let same = [
        "--store",
        "sqlite:isimud.db",
        "--management",
        "sqlite:isimud.db",
    ];
    let server = Running::start(folder.path(), &same);
    let created = server.client().send("PUT", "/v2/queues/q", None);
    assert_eq!(created.expect("an answer").status, 201);
}

#[test]
fn the_log_is_text_or_json_a_line_each() {
    let folder = tempfile::tempdir().expect("a folder");
    for format in ["text", "json"] {
        let environment = [
            ("ISIMUD__LOG__FORMAT", format),
            ("ISIMUD__LOG__LEVEL", "debug"),
        ];
        let server =
            Running::start_with(folder.path(), &["--store", "sqlite::memory:"], &environment);
        let answer = server.client().send("GET", "/v2/queues", None);
        let answer = answer.expect("an answer");
        let id = answer
            .header("x-openstack-request-id")
            .expect("an id")
            .to_owned();
        let said = server.said();
        let line = said.lines().find(|line| line.contains(&id));
        let line = line.unwrap_or_else(|| panic!("no line for {id}:\n{said}"));
        assert!(
            line.contains("/v2/queues") && line.contains("200"),
            "{line}"
        );
        let is_json =
            |line: &str| serde_json::from_str::<Value>(line).is_ok_and(|it| it.is_object());
        for line in said.lines() {
            assert_eq!(is_json(line), format == "json", "{line}");
        }
    }
}

#[test]
fn the_api_describes_itself_on_the_command_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let ended = run(isimud(folder.path(), &["openapi"]));
    assert!(ended.status.success(), "{ended:?}");
    let document: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let version = document["openapi"].as_str().expect("a version");
    assert!(version.starts_with("3.1"), "{version}");
    assert!(document["paths"]["/v2/queues/{queue}/messages"]["post"].is_object());
    assert!(contents(folder.path()).is_empty());
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = isimud(folder.path(), &["openapi"]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let errors = folder.path().join("errors");
    command
        .stdout(writer)
        .stderr(fs::File::create(&errors).expect("a file"));
    let status = command.status().expect("the binary can be run");
    let said = fs::read_to_string(errors).expect("its errors");
    assert!(status.success(), "{status}: {said}");
    assert_eq!(said, "");
}

#[test]
fn help_and_version_are_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let help = run(isimud(folder.path(), &["--help"]));
    assert!(help.status.success());
    for flag in [
        "--listen",
        "--admin-listen",
        "--store",
        "--management",
        "--config",
        "--check",
        "serve",
        "openapi",
    ] {
        assert!(help.stdout.contains(flag), "{flag}:\n{}", help.stdout);
    }
    let version = run(isimud(folder.path(), &["--version"]));
    assert_eq!(
        version.stdout,
        concat!("isimud ", env!("CARGO_PKG_VERSION"), "\n")
    );
}
