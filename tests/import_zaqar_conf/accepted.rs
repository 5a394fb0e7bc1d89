//! What is written is what the server accepts: values out of its bounds, names beside ids, credentials that are left over.
//! What the server refuses all the same is left, with exit code 3.

use std::fs;
use std::path::Path;
use std::process::Command;

use figment::Figment;
use figment::providers::{Format, Toml};
use serde_json::Value;
use tempfile::TempDir;

use super::{IMPORTER, importer, text};

/// A Zaqar that asks Keystone, up to the options of `[keystone_authtoken]`: the last of a name counts.
const KEYSTONE: &str = "[DEFAULT]\nauth_strategy = keystone\n[drivers]\nmessage_store = redis\nmanagement_store = redis\n\
                        [keystone_authtoken]\nauth_type = password\nauth_url = https://keystone.example\nusername = zaqar\n\
                        user_domain_name = Default\npassword = service-pw\nproject_name = service\n\
                        project_domain_name = Default\n";

/// A Zaqar that asks nobody, up to the options of `[transport]`.
const PLAIN: &str = "[drivers]\nmessage_store = redis\nmanagement_store = redis\n[transport]\nsubscriber_types = http\n";

/// What an import came to.
struct Imported {
    folder: TempDir,
    code: Option<i32>,
    report: String,
    written: String,
}

impl Imported {
    fn of(conf: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("zaqar.conf"), conf).expect("a file");
        let mut command = importer(folder.path());
        let done = command.args(["--zaqar", "zaqar.conf"]).output();
        let done = done.expect("the importer can be run");
        let written = fs::read_to_string(folder.path().join("isimud.toml")).unwrap_or_default();
        Self {
            code: done.status.code(),
            report: text(&done.stderr),
            written,
            folder,
        }
    }

    /// The value of a key as a text, that of a list as its words; `None` where the key is not written.
    fn key(&self, path: &str) -> Option<String> {
        let read = Figment::from(Toml::string(&self.written));
        Some(match read.extract_inner(path).ok()? {
            Value::String(text) => text,
            Value::Array(items) => {
                let words: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                words.join(" ")
            }
            other => other.to_string(),
        })
    }

    /// What the server says of it: nothing where it accepts it.
    fn refusal(&self) -> Option<String> {
        check(self.folder.path())
    }
}

fn check(folder: &Path) -> Option<String> {
    let mut command = Command::new(IMPORTER);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ISIMUD") {
            command.env_remove(name);
        }
    }
    let command = command
        .current_dir(folder)
        .args(["--config", "isimud.toml", "--check"]);
    let done = command.output().expect("the server can be run");
    (!done.status.success()).then(|| text(&done.stderr))
}

/// Options that are added, keys as they have to be in the configuration (`None`: not there), words of the report.
type Case<'a> = (&'a str, &'a [(&'a str, Option<&'a str>)], &'a [&'a str]);

fn assert_accepted(base: &str, cases: &[Case<'_>]) {
    for (options, keys, words) in cases {
        let imported = Imported::of(&format!("{base}{options}\n"));
        let report = &imported.report;
        assert_eq!(imported.code, Some(0), "{options}: {report}");
        assert_eq!(imported.refusal(), None, "{options}: {}", imported.written);
        for (key, value) in *keys {
            let found = imported.key(key);
            assert_eq!(found.as_deref(), *value, "{options}: {key}");
        }
        for word in *words {
            assert!(report.contains(word), "{options}: {word}: {report}");
        }
    }
}

#[test]
fn values_out_of_the_servers_bounds_are_changed_to_the_bound_and_said() {
    assert_accepted(
        KEYSTONE,
        &[
            (
                "http_connect_timeout = 30",
                &[("keystone.timeout_secs", Some("10"))],
                &["it was 30, and 10 is the most here"],
            ),
            (
                "http_connect_timeout = 10",
                &[("keystone.timeout_secs", Some("10"))],
                &["keystone.timeout_secs = 10"],
            ),
            (
                "token_cache_time = 100000",
                &[("keystone.cache_secs", Some("86400"))],
                &["it was 100000, and 86400 is the most here"],
            ),
            (
                "token_cache_time = 86400",
                &[("keystone.cache_secs", Some("86400"))],
                &["carried    [keystone_authtoken] token_cache_time"],
            ),
            (
                "http_request_max_retries = 10",
                &[("keystone.retries", Some("3"))],
                &["it was 10, and 3 is the most here"],
            ),
            (
                "service_token_roles =",
                &[("keystone.service_token_roles", None)],
                &["changed    [keystone_authtoken] service_token_roles"],
            ),
            (
                "service_token_roles = admin,,service",
                &[("keystone.service_token_roles", Some("admin service"))],
                &[],
            ),
        ],
    );
    assert_accepted(
        PLAIN,
        &[
            (
                "default_message_ttl = 0\nmax_claim_ttl = 99999999999",
                &[
                    ("limits.default_message_ttl", Some("1")),
                    ("limits.max_claim_ttl", Some("3162240000")),
                ],
                &["it was 0, and 1 is the least here"],
            ),
            (
                "client_id_uuid_safe = off\nmin_length_client_id = -5\nmax_length_client_id = 20",
                &[
                    ("access.min_client_id_length", Some("0")),
                    ("access.max_client_id_length", Some("20")),
                ],
                &[],
            ),
        ],
    );
}

/// keystoneauth takes both, and the id wins.
#[test]
fn names_beside_ids_are_left_out_and_said() {
    let id_wins = &["it is not read beside "];
    assert_accepted(
        KEYSTONE,
        &[
            (
                "user_domain_id = default",
                &[
                    ("keystone.user_domain", None),
                    ("keystone.user_domain_id", Some("default")),
                ],
                id_wins,
            ),
            (
                "project_domain_id = default",
                &[
                    ("keystone.project_domain", None),
                    ("keystone.project_domain_id", Some("default")),
                ],
                id_wins,
            ),
            (
                "user_id = 632d",
                &[
                    ("keystone.user_id", Some("632d")),
                    ("keystone.username", None),
                    ("keystone.user_domain", None),
                ],
                id_wins,
            ),
            (
                "project_id = 858a",
                &[
                    ("keystone.project_id", Some("858a")),
                    ("keystone.project", None),
                    ("keystone.project_domain", None),
                ],
                id_wins,
            ),
            // The default's id counts before the domain's name.
            (
                "default_domain_id = default",
                &[
                    ("keystone.user_domain", None),
                    ("keystone.user_domain_id", Some("default")),
                    ("keystone.project_domain_id", Some("default")),
                ],
                id_wins,
            ),
            (
                "default_domain_name = Other",
                &[
                    ("keystone.user_domain", Some("Default")),
                    ("keystone.project_domain", Some("Default")),
                ],
                &["[keystone_authtoken] default_domain_name"],
            ),
            (
                "default_domain_name = Other\nuser_domain_name =\nproject_domain_id = 42",
                &[
                    ("keystone.user_domain", Some("Other")),
                    ("keystone.project_domain", None),
                    ("keystone.project_domain_id", Some("42")),
                ],
                &[],
            ),
            (
                "[trustee]\nauth_type = password\nauth_url = https://keystone.example\nusername = heat\nuser_id = 99\n\
                 user_domain_id = default\nuser_domain_name = Default\npassword = trustee-pw",
                &[
                    ("trustee.user_id", Some("99")),
                    ("trustee.username", None),
                    ("trustee.user_domain", None),
                ],
                id_wins,
            ),
        ],
    );
}

#[test]
fn application_credential_by_id_needs_neither_user_nor_project() {
    assert_accepted(
        KEYSTONE,
        &[(
            "auth_type = v3applicationcredential\napplication_credential_id = 21dc\n\
             application_credential_secret = credential-pw\napplication_credential_name = other",
            &[
                ("keystone.application_credential_id", Some("21dc")),
                ("keystone.username", None),
                ("keystone.user_domain", None),
                ("keystone.project", None),
                ("keystone.project_domain", None),
            ],
            &[
                "not needed [keystone_authtoken] username",
                "not needed [keystone_authtoken] application_credential_name",
            ],
        )],
    );
}

#[test]
fn client_certificate_without_a_key_is_its_own_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = rcgen::generate_simple_self_signed(["zaqar".to_owned()]).expect("a certificate");
    let file = folder.path().join("both.pem");
    let pair = format!("{}{}", own.cert.pem(), own.signing_key.serialize_pem());
    fs::write(&file, pair).expect("a file");
    let file = file.to_str().expect("text");
    assert_accepted(
        KEYSTONE,
        &[
            (
                &format!("certfile = {file}"),
                &[
                    ("keystone.cert_file", Some(file)),
                    ("keystone.key_file", Some(file)),
                ],
                &[],
            ),
            (
                &format!("keyfile = {file}"),
                &[("keystone.key_file", None)],
                &["not needed [keystone_authtoken] keyfile"],
            ),
        ],
    );
}

#[test]
fn configuration_that_the_server_refuses_is_left() {
    for (base, options, word) in [
        (KEYSTONE, "auth_url = keystone:5000", "keystone.auth_url"),
        (KEYSTONE, "interface = private", "keystone.interface"),
        (KEYSTONE, "user_domain_name =", "keystone.user_domain"),
        (KEYSTONE, "password =", "keystone.password"),
        (
            KEYSTONE,
            "[trustee]\nauth_type = password\nusername = heat\nuser_domain_id = default",
            "trustee.password",
        ),
        (
            PLAIN,
            "[notification]\nsmtp_command = \"  \"\n[storage]\nmessage_pipeline = zaqar.notification.notifier",
            "notifications.mail.command",
        ),
    ] {
        let imported = Imported::of(&format!("{base}{options}\n"));
        let report = &imported.report;
        assert_eq!(imported.code, Some(3), "{options}: {report}");
        let is_left = |line: &str| line.starts_with("left") && line.contains(word);
        assert!(report.lines().any(is_left), "{options}: {report}");
        let refusal = imported.refusal().expect("a refusal");
        assert!(refusal.contains(word), "{options}: {refusal}");
        for secret in ["service-pw", "trustee-pw"] {
            assert!(!report.contains(secret), "{report}");
        }
    }
}

#[test]
fn value_that_no_server_could_use_is_left() {
    for (options, line) in [
        (
            "min_length_client_id = -5\nmax_length_client_id = -1",
            "left       [transport] max_length_client_id",
        ),
        (
            "message_encryption_key = \"  \"",
            "left       [transport] message_encryption_key",
        ),
    ] {
        let imported = Imported::of(&format!("{PLAIN}{options}\n"));
        assert_eq!(imported.code, Some(3), "{options}: {}", imported.report);
        let report = &imported.report;
        assert!(report.contains(line), "{options}: {report}");
    }
}

#[test]
fn host_that_this_machine_does_not_know_is_no_reason_to_leave_something() {
    let imported = Imported::of(&format!(
        "{PLAIN}[drivers:transport:wsgi]\nbind = api.nowhere.invalid\n"
    ));
    assert_eq!(imported.code, Some(0), "{}", imported.report);
    let listen = imported.key("server.listen");
    assert_eq!(listen.as_deref(), Some("api.nowhere.invalid:8888"));
}

#[test]
fn names_of_groups_have_no_case() {
    let drivers = "[drivers]\nmessage_store = redis\nmanagement_store = redis\n";
    for (conf, line) in [
        (
            "[Keystone_AuthToken]\nauth_url = https://k\nusername = zaqar\npassword = service-pw\n",
            "left       [DEFAULT] auth_strategy",
        ),
        (
            "[keystone_authtoken]\nauth_section = shared\n[Shared]\nauth_type = v3applicationcredential\n\
             application_credential_id = 21dc\n",
            "left       [DEFAULT] auth_strategy",
        ),
        (
            "[CORS.Site]\nallowed_origin = https://site.example\n",
            "left       [CORS.Site] allowed_origin",
        ),
    ] {
        let imported = Imported::of(&format!("{drivers}{conf}"));
        assert_eq!(imported.code, Some(3), "{conf}: {}", imported.report);
        assert!(
            imported.report.contains(line),
            "{conf}: {}",
            imported.report
        );
    }
    // What a deployment tool has left open is no credential.
    let conf = "[keystone_authtoken]\npassword = <SERVICE DEFAULT>\n";
    let imported = Imported::of(&format!("{drivers}{conf}"));
    assert_eq!(imported.code, Some(0), "{}", imported.report);
}
