//! A configuration that is wrong ends the process at once: with one line that says what is wrong, and nothing damaged.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use crate::command::process::{Running, contents, isimud, run};

const CREATED: &[(&str, &str)] = &[
    ("unknown.toml", "[server]\nlistn = \"127.0.0.1:1\""),
    ("section.toml", "[severs]\nlisten = \"127.0.0.1:1\""),
    ("type.toml", "[limits]\nmax_claim_ttl = \"long\""),
    ("negative.toml", "[limits]\nmax_queues_per_page = -1"),
    ("choice.toml", "[access]\nclient_id = \"lax\""),
    ("syntax.toml", "[server"),
    ("latin1.toml", "[server]\nlisten = \"\u{fffd}\""),
    ("no-policy.toml", "[access]\npolicy_file = \"none.yaml\""),
    ("bad-policy.toml", "[access]\npolicy_file = \"bad.yaml\""),
    ("bad.yaml", "\"queues:create\": \"rule:nobody\""),
    ("typo-policy.toml", "[access]\npolicy_file = \"typo.yaml\""),
    ("typo.yaml", "\"queues:creat\": \"role:admin\""),
    ("not-yaml.toml", "[access]\npolicy_file = \"not.yaml\""),
    ("not.yaml", "\"queues:create\": [\n"),
    ("no-keys.toml", "[messages]\nencryption_keys = []"),
    (
        "blank-key.toml",
        "[messages]\nencryption_keys = [\"a\", \" \"]",
    ),
    (
        "same-keys.toml",
        "[messages]\nencryption_keys = [\"a\", \"a\"]",
    ),
    ("level.toml", "[log]\nlevel = \"a=b=c\""),
    ("format.toml", "[log]\nformat = \"xml\""),
    ("listen.toml", "[server]\nlisten = \"nowhere\""),
    (
        "star.toml",
        "[cors]\nallowed_origins = [\"https://a.example\", \"*\"]",
    ),
    (
        "proxy.toml",
        "[access]\ntrusted_proxies = [\"proxy.example\"]",
    ),
    ("secret.toml", "[access]\nproxy_secret = \"tooshort\""),
    (
        "notes.txt",
        "not a database, and longer than the header of one would be. Not a database at all, this.",
    ),
];

/// A folder with many mistakes to choose from.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in CREATED {
        fs::write(folder.path().join(name), text).expect("a file");
    }
    fs::create_dir(folder.path().join("folder")).expect("a folder in it");
    folder
}

/// Runs the binary, which must refuse, and returns the line that it says.
fn refusal(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let mut command = isimud(folder, arguments);
    command.envs(environment.iter().copied());
    let ended = run(command);
    let what = format!("{arguments:?} {environment:?}: {ended:?}");
    assert_eq!(ended.status.code(), Some(1), "{what}");
    assert_eq!(ended.stdout, "", "{what}");
    let line = ended.stderr.strip_suffix('\n').expect("a line");
    assert!(!line.contains('\n'), "more than a line: {what}");
    let sentence = line
        .strip_prefix("isimud: ")
        .unwrap_or_else(|| panic!("{what}"));
    sentence.to_owned()
}

/// Runs the binary with a mistake: it must name it, and leave everything as it was.
fn assert_refused(arguments: &[&str], environment: &[(&str, &str)], named: &[&str]) {
    let folder = folder();
    let before = contents(folder.path());
    let sentence = refusal(folder.path(), arguments, environment);
    for name in named {
        assert!(sentence.contains(name), "{arguments:?}: {sentence}");
    }
    assert!(
        before == contents(folder.path()),
        "{arguments:?} left something"
    );
}

/// What is wrong in a file, and the words that the line must have.
const FILES: &[(&str, &[&str])] = &[
    ("unknown.toml", &["listn", "unknown.toml"]),
    ("section.toml", &["severs", "section.toml"]),
    ("type.toml", &["max_claim_ttl", "type.toml"]),
    ("negative.toml", &["max_queues_per_page"]),
    ("choice.toml", &["client_id", "strict"]),
    ("syntax.toml", &["syntax.toml", "line 1"]),
    ("latin1.toml", &["server.listen"]),
    ("no-policy.toml", &["none.yaml"]),
    ("bad-policy.toml", &["bad.yaml", "queues:create", "nobody"]),
    (
        "typo-policy.toml",
        &["typo.yaml", "queues:creat", "queues:create"],
    ),
    ("not-yaml.toml", &["not.yaml"]),
    ("no-keys.toml", &["encryption_keys"]),
    ("blank-key.toml", &["encryption key"]),
    ("same-keys.toml", &["encryption keys"]),
    ("level.toml", &["log.level"]),
    ("format.toml", &["xml", "json"]),
    ("listen.toml", &["server.listen", "nowhere"]),
    (
        "star.toml",
        &["cors.allowed_origins", "cors.allow_credentials"],
    ),
    ("proxy.toml", &["access.trusted_proxies", "'proxy.example'"]),
    ("secret.toml", &["access.proxy_secret", "16"]),
    ("none.toml", &["none.toml"]),
    ("folder", &["folder"]),
];

#[test]
fn a_mistake_in_a_file_is_named() {
    for (file, named) in FILES {
        assert_refused(
            &["--config", file, "--store", "sqlite::memory:"],
            &[],
            named,
        );
    }
}

#[test]
fn a_check_finds_what_a_start_would_refuse() {
    for (file, named) in FILES {
        assert_refused(&["--check", "--config", file], &[], named);
    }
    assert_refused(&["--check", "--store", "kafka:x"], &[], &["redis:"]);
    assert_refused(
        &["serve", "--check", "--listen", "x"],
        &[],
        &["server.listen"],
    );
}

#[test]
fn a_mistake_in_the_environment_is_named() {
    for (name, value, named) in [
        ("ISIMUD__SERVER__LISTN", "x", "LISTN"),
        ("ISIMUD__NOPE__LISTEN", "x", "NOPE"),
        ("ISIMUD__LIMITS__MAX_CLAIM_TTL", "long", "MAX_CLAIM_TTL"),
        ("ISIMUD__MESSAGES__CHECKSUMS", "maybe", "CHECKSUMS"),
        ("ISIMUD__LOG__FORMAT", "xml", "xml"),
        ("ISIMUD__SERVER__LISTEN", "nowhere", "nowhere"),
        ("ISIMUD__STORE__URI", "nope:x", "nope:"),
        ("ISIMUD__ACCESS__POLICY_FILE", "none.yaml", "none.yaml"),
    ] {
        assert_refused(&[], &[(name, value)], &[named]);
    }
}

#[test]
fn a_secret_that_is_wrong_is_named_and_not_shown() {
    let secret = "pw4711";
    for (key, value) in [
        ("signed_url.secret_key", "[\"pw4711\"]"),
        ("messages.encryption_keys", "\"pw4711\""),
        ("notifications.mail.smtp_password", "{ a = \"pw4711\" }"),
        ("store.uri", "[\"redis://u:pw4711@h\"]"),
        ("store.uri", "\"redis:u:pw4711@h\""),
        ("store.uri", "\"amqp:u:pw4711@h\""),
        ("store.uri", "\"kafka:u:pw4711@h\""),
        ("store.uri", "\"redis://u:pw4711@h:port\""),
        ("management.uri", "\"rediss:u:pw4711@h\""),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let (section, name) = key.rsplit_once('.').expect("a section");
        let text = format!("[{section}]\n{name} = {value}\n");
        fs::write(folder.path().join("isimud.toml"), text).expect("a file");
        let sentence = refusal(folder.path(), &["--check", "--config", "isimud.toml"], &[]);
        assert!(!sentence.contains(secret), "{key} = {value}: {sentence}");
        assert!(
            sentence.contains(name) || sentence.contains("URI"),
            "{key} = {value}: {sentence}"
        );
        let variable = format!("ISIMUD__{}", key.to_uppercase().replace('.', "__"));
        let environment = [(variable.as_str(), value)];
        let sentence = refusal(folder.path(), &["--check"], &environment);
        assert!(!sentence.contains(secret), "{variable}={value}: {sentence}");
    }
}

#[test]
fn a_secret_stands_in_one_place_and_its_file_is_there() {
    for (text, named) in [
        (
            "[store]\nuri = \"redis://h\"\nuri_file = \"uri\"",
            ["store.uri_file", "both"],
        ),
        ("[store]\nuri_file = \"none\"", ["store.uri_file", "none"]),
        (
            "[messages]\nencryption_keys = [\"a\"]\nencryption_keys_file = \"uri\"",
            ["messages.encryption_keys_file", "both"],
        ),
        (
            "[signed_url]\nsecret_key_file = \"empty\"",
            ["signed_url.secret_key_file", "empty"],
        ),
        (
            "[access]\nproxy_secret = \"0123456789abcdef\"\nproxy_secret_file = \"uri\"",
            ["access.proxy_secret_file", "both"],
        ),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("isimud.toml"), text).expect("a file");
        fs::write(folder.path().join("uri"), "sqlite::memory:").expect("a file");
        fs::write(folder.path().join("empty"), "\n").expect("a file");
        let sentence = refusal(folder.path(), &["--check", "--config", "isimud.toml"], &[]);
        for name in named {
            assert!(sentence.contains(name), "{text}: {sentence}");
        }
    }
}

#[test]
fn an_unknown_scheme_is_named_with_the_known_ones() {
    for uri in [
        "nope:x",
        "nope://host/x",
        "nope",
        "",
        "Sqlite:x",
        "data/isimud.db",
    ] {
        let scheme = uri.split(':').next().expect("a text");
        assert_refused(&["--store", uri], &[], &[scheme, "sqlite:"]);
        assert_refused(
            &[
                "--store",
                "sqlite::memory:",
                "--management",
                &format!("{uri}x"),
            ],
            &[],
            &["sqlite:"],
        );
    }
}

#[test]
fn a_wrong_option_of_a_store_is_named_with_the_right_ones() {
    for (uri, named) in [
        (
            "sqlite:x.db?sync=full",
            vec!["'sync'", "synchronous", "readers"],
        ),
        ("sqlite:x.db?synchronous=off", vec!["'off'", "synchronous"]),
        ("sqlite:x.db?readers=0", vec!["'0'", "readers"]),
        ("sqlite:x.db?readers=many", vec!["'many'", "readers"]),
        ("sqlite:x.db?cache_mib", vec!["cache_mib"]),
        ("sqlite:", vec!["path"]),
    ] {
        assert_refused(&["--store", uri], &[], &named);
    }
}

#[test]
fn an_address_that_is_none_is_named() {
    for flag in ["--listen", "--admin-listen"] {
        let key = flag.trim_start_matches('-').replace('-', "_");
        for address in ["nowhere", "127.0.0.1", "127.0.0.1:99999"] {
            assert_refused(&[flag, address], &[], &[&key, address]);
        }
    }
}

#[test]
fn a_port_in_use_is_named_and_the_store_is_not_touched() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = other.local_addr().expect("its address").to_string();
    assert_refused(&["--listen", &address], &[], &[&address, "in use"]);
    assert_refused(
        &["--listen", "127.0.0.1:0", "--admin-listen", &address],
        &[],
        &[&address, "in use"],
    );
}

/// Makes a mistake with the store: the line names it, and what was there is as it was. A lock file may be left.
fn assert_store_refused(folder: &Path, store: &str, named: &[&str]) {
    let before = contents(folder);
    let sentence = refusal(folder, &["--listen", "127.0.0.1:0", "--store", store], &[]);
    for name in named {
        assert!(sentence.contains(name), "{store}: {sentence}");
    }
    let after = contents(folder);
    for (path, bytes) in &before {
        assert!(
            after.get(path) == Some(bytes),
            "{} was changed",
            path.display()
        );
    }
}

#[test]
fn a_store_that_can_only_be_read_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("disk");
    fs::create_dir(&place).expect("a place for the disk");
    let mount = |options: &str| {
        let mut mount = std::process::Command::new("mount");
        let mounted = mount
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&place);
        mounted.output().is_ok_and(|output| output.status.success())
    };
    let store = "sqlite:disk/isimud.db";
    if !mount("size=8m") {
        // Nobody but root may, and to root every file is open. The others are refused by the file.
        Running::start(folder.path(), &["--store", store]).stop();
        let mut file = fs::metadata(place.join("isimud.db"))
            .expect("it is there")
            .permissions();
        file.set_readonly(true);
        fs::set_permissions(place.join("isimud.db"), file).expect("it is mine");
    } else {
        Running::start(folder.path(), &["--store", store]).stop();
        let mut again = std::process::Command::new("mount");
        let again = again.args(["-o", "remount,ro"]).arg(&place).status();
        assert!(
            again.is_ok_and(|status| status.success()),
            "it can be written still"
        );
    }
    let arguments = ["--listen", "127.0.0.1:0", "--store", store];
    for arguments in [&arguments[..], &["--check", "--store", store]] {
        let sentence = refusal(folder.path(), arguments, &[]);
        assert!(sentence.contains("cannot be written"), "{sentence}");
        assert!(sentence.contains("isimud.db"), "{sentence}");
    }
    drop(
        std::process::Command::new("umount")
            .arg("-l")
            .arg(&place)
            .output(),
    );
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let folder = folder();
    assert_store_refused(
        folder.path(),
        "sqlite:notes.txt",
        &["notes.txt", "not an SQLite database"],
    );
}

#[test]
fn a_folder_is_no_store() {
    let folder = folder();
    assert_store_refused(folder.path(), "sqlite:folder", &["folder"]);
}

#[test]
fn a_place_where_nothing_can_be_written_is_refused() {
    let folder = folder();
    assert_store_refused(
        folder.path(),
        "sqlite:notes.txt/isimud.db",
        &["notes.txt/isimud.db"],
    );
    // Not even root may make a folder there.
    assert_store_refused(
        folder.path(),
        "sqlite:/proc/isimud/isimud.db",
        &["/proc/isimud/isimud.db"],
    );
}

/// Where the number of a database's version stands in its file (SQLite documentation, "Database File Format").
const USER_VERSION: std::ops::Range<usize> = 60..64;

#[test]
fn a_store_of_a_newer_version_is_refused_and_still_good() {
    let folder = tempfile::tempdir().expect("a folder");
    let arguments = ["--store", "sqlite:isimud.db"];
    let server = Running::start(folder.path(), &arguments);
    let created = server
        .client()
        .send("PUT", "/v2/queues/q", Some(&json!({"a": 1})));
    assert_eq!(created.expect("an answer").status, 201);
    server.stop();

    let path = folder.path().join("isimud.db");
    let mut bytes = fs::read(&path).expect("the database");
    let version: [u8; 4] = bytes[USER_VERSION].try_into().expect("four bytes");
    bytes[USER_VERSION].copy_from_slice(&99_u32.to_be_bytes());
    fs::write(&path, &bytes).expect("a newer version");
    assert_store_refused(
        folder.path(),
        "sqlite:isimud.db",
        &["isimud.db", "version 99"],
    );

    bytes[USER_VERSION].copy_from_slice(&version);
    fs::write(&path, &bytes).expect("the version as it was");
    let server = Running::start(folder.path(), &arguments);
    let shown = server.client().send("GET", "/v2/queues/q", None);
    assert_eq!(shown.expect("an answer").json()["a"], 1);
}

#[test]
fn a_store_that_another_server_has_open_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = Running::start(folder.path(), &["--store", "sqlite:isimud.db"]);
    let arguments = ["--listen", "127.0.0.1:0", "--store", "sqlite:isimud.db"];
    let sentence = refusal(folder.path(), &arguments, &[]);
    assert!(sentence.contains("in use by another server"), "{sentence}");
    assert!(sentence.contains("isimud.db"), "{sentence}");
    for link in ["symbolic.db", "hard.db"] {
        let (file, link) = (folder.path().join("isimud.db"), folder.path().join(link));
        match link.ends_with("hard.db") {
            true => fs::hard_link(&file, &link).expect("a hard link"),
            false => std::os::unix::fs::symlink(&file, &link).expect("a symbolic link"),
        }
        let store = format!("sqlite:{}", link.display());
        let arguments = ["--listen", "127.0.0.1:0", "--store", &store];
        let sentence = refusal(folder.path(), &arguments, &[]);
        assert!(sentence.contains("in use by another server"), "{sentence}");
    }
    let created = first.client().send("PUT", "/v2/queues/q", None);
    assert_eq!(created.expect("an answer").status, 201);
}

#[test]
fn a_flag_that_does_not_exist_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for arguments in [
        &["--nope"][..],
        &["nope"],
        &["--store"],
        &["--check", "serve"],
    ] {
        let ended = run(isimud(folder.path(), arguments));
        assert_eq!(ended.status.code(), Some(2), "{arguments:?} {ended:?}");
        assert_eq!(ended.stdout, "", "{arguments:?}");
        assert!(ended.stderr.contains("--help"), "{ended:?}");
    }
    assert!(contents(folder.path()).is_empty());
}
