//! Files of certificates and keys that a configuration names: what cannot be used ends a check, and a start before the port
//! is taken.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use crate::command::process::{Ended, isimud, run};

/// The least that asks Keystone.
const KEYSTONE: &str = "[access]\nauthentication = \"keystone\"\n[keystone]\nauth_url = \"https://127.0.0.1:1\"\n\
                        user_id = \"u\"\npassword = \"p\"\nproject_id = \"p\"\n";

/// Mails through a server.
const SMTP: &str = "[notifications.mail]\ntransport = \"smtp\"\nsmtp_host = \"127.0.0.1\"\n";

/// What a key with a pass phrase looks like.
const LOCKED_KEYS: [&str; 2] = [
    "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIBvTBXBgkqhkiG9w0BBQ0wSjApBgkqhkiG\n-----END ENCRYPTED PRIVATE KEY-----\n",
    "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,0A1B\n\n\
     MIIBvTBXBgkqhkiG9w0BBQ0wSjApBgkqhkiG\n-----END RSA PRIVATE KEY-----\n",
];

const NO_KEY: &str = "it has no private key in PEM (one with a pass phrase cannot be used)";
const NO_CERTIFICATE: &str = "it has no certificate in PEM";

/// A certificate, its key, another key, a file without either, and keys with a pass phrase.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let own = rcgen::generate_simple_self_signed(["isimud".to_owned()]).expect("a certificate");
    let other = rcgen::KeyPair::generate().expect("a key");
    for (name, text) in [
        ("cert.pem", own.cert.pem()),
        ("key.pem", own.signing_key.serialize_pem()),
        ("other-key.pem", other.serialize_pem()),
        ("text.pem", "no PEM at all\n".to_owned()),
        ("locked.pem", LOCKED_KEYS[0].to_owned()),
        ("locked-too.pem", LOCKED_KEYS[1].to_owned()),
    ] {
        fs::write(folder.path().join(name), text).expect("a file");
    }
    folder
}

fn with(folder: &Path, config: &str, arguments: &[&str]) -> Ended {
    fs::write(folder.join("isimud.toml"), config).expect("a file");
    let mut command = isimud(folder, &["--config", "isimud.toml"]);
    command.args(arguments);
    run(command)
}

/// A configuration with a file that cannot be used, and the words of its refusal.
fn cases() -> Vec<(String, [&'static str; 2])> {
    let mut cases = Vec::new();
    let mut add = |config: String, key, why| cases.push((config, [key, why]));
    for (file, why) in [("none.pem", "none.pem"), ("text.pem", NO_CERTIFICATE)] {
        add(
            format!("{KEYSTONE}ca_file = {file:?}\n"),
            "keystone.ca_file",
            why,
        );
        add(
            format!("[notifications]\nca_file = {file:?}\n"),
            "notifications.ca_file",
            why,
        );
        add(
            format!("{SMTP}smtp_ca_file = {file:?}\n"),
            "notifications.mail.smtp_ca_file",
            why,
        );
        add(
            format!("{KEYSTONE}cert_file = {file:?}\nkey_file = \"key.pem\"\n"),
            "keystone.cert_file",
            why,
        );
    }
    for (file, why) in [
        ("none.pem", "none.pem"),
        ("cert.pem", NO_KEY),
        ("locked.pem", NO_KEY),
        ("locked-too.pem", "one with a pass phrase cannot be used"),
        ("other-key.pem", "KeyMismatch"),
    ] {
        add(
            format!("{KEYSTONE}cert_file = \"cert.pem\"\nkey_file = {file:?}\n"),
            "keystone.",
            why,
        );
        add(
            format!("[server]\ntls_cert_file = \"cert.pem\"\ntls_key_file = {file:?}\n"),
            file,
            why,
        );
    }
    cases
}

#[test]
fn check_names_the_file_that_a_start_could_not_use() {
    let folder = folder();
    for (config, words) in cases() {
        let ended = with(
            folder.path(),
            &config,
            &["--check", "--store", "sqlite::memory:"],
        );
        assert_eq!(ended.status.code(), Some(1), "{config}: {ended:?}");
        for word in words {
            assert!(ended.stderr.contains(word), "{config}: {word}: {ended:?}");
        }
    }
}

#[test]
fn start_names_the_file_before_it_takes_the_port() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    for (config, words) in cases() {
        let arguments = ["--listen", &address, "--store", "sqlite::memory:"];
        let ended = with(folder.path(), &config, &arguments);
        assert_eq!(ended.status.code(), Some(1), "{config}: {ended:?}");
        for word in words {
            assert!(ended.stderr.contains(word), "{config}: {word}: {ended:?}");
        }
    }
}

#[test]
fn check_names_files_of_stores_and_pools() {
    let folder = folder();
    let amqp = "amqps://h?cert_file=cert.pem&key_file=";
    for (uri, words) in [
        ("rediss://h?ca_file=none.pem", ["none.pem", "Redis"]),
        ("amqps://h?ca_file=none.pem", ["none.pem", "AMQP"]),
        (&format!("{amqp}cert.pem"), [NO_KEY, "cert.pem"]),
        (&format!("{amqp}locked.pem"), [NO_KEY, "locked.pem"]),
        (
            "sqs://us-east-1?endpoint=https://h&ca_file=none.pem",
            ["none.pem", "SQS"],
        ),
    ] {
        let pool = format!("[pools.p]\nuri = {uri:?}\nweight = 1\n");
        fs::write(folder.path().join("pools.toml"), pool).expect("a file");
        let pooled = "[pooling]\nfile = \"pools.toml\"\n";
        let store = ["--check", "--store", uri, "--management", "sqlite::memory:"];
        let pool = ["--check", "--store", "sqlite::memory:"];
        for (config, arguments) in [("", &store[..]), (pooled, &pool[..])] {
            let ended = with(folder.path(), config, arguments);
            assert_eq!(ended.status.code(), Some(1), "{uri} {config}: {ended:?}");
            for word in words {
                assert!(ended.stderr.contains(word), "{uri}: {word}: {ended:?}");
            }
        }
    }
}

#[test]
fn check_names_a_store_that_cannot_keep_queues() {
    let folder = folder();
    let ended = with(folder.path(), "", &["--check", "--store", "amqp://h"]);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("name a management store"),
        "{ended:?}"
    );
    let both = [
        "--check",
        "--store",
        "sqlite::memory:",
        "--management",
        "amqp://h",
    ];
    let ended = with(folder.path(), "", &both);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("name a management store"),
        "{ended:?}"
    );
}

#[test]
fn files_that_can_be_used_are_no_reason_to_refuse() {
    let folder = folder();
    for config in [
        format!(
            "{KEYSTONE}ca_file = \"cert.pem\"\ncert_file = \"cert.pem\"\nkey_file = \"key.pem\"\n"
        ),
        "[notifications]\nca_file = \"cert.pem\"\n".to_owned(),
        format!("{SMTP}smtp_ca_file = \"cert.pem\"\n"),
        // What is off reads no file.
        "[notifications]\nenabled = false\nca_file = \"none.pem\"\n".to_owned(),
        "[keystone]\nca_file = \"none.pem\"\n".to_owned(),
        "[notifications.mail]\nsmtp_ca_file = \"none.pem\"\n".to_owned(),
    ] {
        let ended = with(
            folder.path(),
            &config,
            &["--check", "--store", "sqlite::memory:"],
        );
        assert!(ended.status.success(), "{config}: {ended:?}");
    }
}
