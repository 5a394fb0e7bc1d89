//! What the sections accept, and what they say of the rest.

use std::time::Duration;

use figment::Figment;
use figment::providers::{Format, Toml};
use serde_json::{Value, json};

use super::*;

/// A section as an operator writes it: `more` over the least that works.
fn written(more: Value) -> KeystoneConfig {
    let mut section = json!({
        "auth_url": "http://127.0.0.1:5000", "username": "zaqar", "user_domain_id": "default", "password": "secret-pw",
        "project": "service", "project_domain": "Default",
    });
    let members = section.as_object_mut().unwrap();
    members.extend(more.as_object().unwrap().clone());
    serde_json::from_value(section).expect("it can be read")
}

fn refusal(more: Value) -> String {
    written(more.clone())
        .resolve()
        .expect_err(&more.to_string())
}

#[test]
fn the_defaults_are_those_of_the_reference_of_all_keys() {
    #[derive(Deserialize)]
    struct Sections {
        keystone: Value,
        trustee: Value,
    }
    let text = crate::config::DEFAULTS;
    let sections: Sections = Figment::from(Toml::string(text)).extract().unwrap();
    let keystone = serde_json::to_value(KeystoneConfig::default()).unwrap();
    assert_eq!(sections.keystone, keystone);
    let trustee = serde_json::to_value(TrusteeConfig::default()).unwrap();
    assert_eq!(sections.trustee, trustee);
}

#[test]
fn an_unknown_key_is_refused() {
    let read = serde_json::from_value::<KeystoneConfig>(json!({"auth_uri": "http://h"}));
    assert!(read.unwrap_err().to_string().contains("auth_uri"));
}

#[test]
fn the_least_that_works_is_accepted_with_the_defaults() {
    let settings = written(json!({})).resolve().expect("it works");
    assert_eq!(settings.challenge, "Keystone uri=\"http://127.0.0.1:5000\"");
    assert_eq!(settings.cache.fresh, Duration::from_secs(60));
    assert_eq!(settings.timeout, Duration::from_secs(5));
    assert_eq!((settings.interface, settings.region), ("internal", None));
    for more in [
        json!({"public_url": "https://public.example:5000/v3", "interface": "publicURL"}),
        json!({"username": "", "user_domain_id": "", "user_id": "632d"}),
        json!({"project": "", "project_domain": "", "project_id": "858a"}),
        json!({"cache_secs": 0, "negative_cache_secs": 0, "retries": 0, "stale_grace_secs": 900}),
    ] {
        written(more).resolve().expect("it works");
    }
}

#[test]
fn what_cannot_work_is_refused_with_what_is_accepted() {
    for (more, sentence) in [
        (
            json!({"auth_url": ""}),
            "keystone.auth_url must be an http or https URL",
        ),
        (
            json!({"auth_url": "keystone:5000"}),
            "keystone.auth_url must be an http or https URL",
        ),
        (
            json!({"auth_url": "ftp://h"}),
            "keystone.auth_url must be an http or https URL",
        ),
        (json!({"auth_url": "http://u:p@h"}), "without a user"),
        (
            json!({"public_url": "http://h/\"x"}),
            "keystone.public_url must be",
        ),
        (
            json!({"interface": "private"}),
            "must be public, internal or admin, not 'private'",
        ),
        (
            json!({"service_type": ""}),
            "the usual one is \"messaging\"",
        ),
        (
            json!({"service_token_roles": []}),
            "must name at least one role",
        ),
        (
            json!({"service_token_roles": [""]}),
            "must name at least one role",
        ),
        (
            json!({"username": ""}),
            "set username (or user_id), password and project",
        ),
        (
            json!({"user_id": "u"}),
            "keystone.username and keystone.user_id cannot both be set",
        ),
        (
            json!({"user_domain_id": ""}),
            "keystone.username needs keystone.user_domain or keystone.user_domain_id",
        ),
        (
            json!({"user_domain": "D"}),
            "keystone.user_domain and keystone.user_domain_id cannot both be set",
        ),
        (
            json!({"password": ""}),
            "needs keystone.password or keystone.password_file",
        ),
        (
            json!({"project": ""}),
            "keystone.username needs keystone.project",
        ),
        (
            json!({"project_domain": ""}),
            "keystone.project needs keystone.project_domain or",
        ),
        (
            json!({"project_id": "p"}),
            "keystone.project and keystone.project_id cannot both be set",
        ),
        (
            json!({"application_credential_id": "c"}),
            "cannot both be set",
        ),
        (
            json!({"application_credential_id": "c", "username": ""}),
            "needs keystone.application_credential_secret",
        ),
        (
            json!({"cert_file": "c.pem"}),
            "must both be set, or neither",
        ),
        (
            json!({"connect_timeout_secs": 0}),
            "keystone.connect_timeout_secs must be from 1 to 10, not 0",
        ),
        (
            json!({"timeout_secs": 11}),
            "keystone.timeout_secs must be from 1 to 10, not 11",
        ),
        (
            json!({"retries": 4}),
            "keystone.retries must be from 0 to 3, not 4",
        ),
        (
            json!({"cache_secs": 86401}),
            "keystone.cache_secs must be from 0 to 86400",
        ),
        (
            json!({"cache_entries": 0}),
            "keystone.cache_entries must be from 1 to",
        ),
        (
            json!({"negative_cache_secs": 61}),
            "keystone.negative_cache_secs must be from 0 to 60",
        ),
        (
            json!({"stale_grace_secs": 901}),
            "keystone.stale_grace_secs must be from 0 to 900",
        ),
    ] {
        let refusal = refusal(more.clone());
        assert!(refusal.contains(sentence), "{more}: {refusal}");
        assert!(!refusal.contains("secret-pw"), "{refusal}");
    }
}

#[test]
fn secrets_stand_in_files_and_are_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "from-a-file\n").unwrap();
    let mut config = written(json!({"password": "", "password_file": file}));
    config.read_secrets().expect("the file can be read");
    assert_eq!(config.password.0, "from-a-file");
    let shown = format!("{config:?} {:?}", config.resolve().unwrap());
    assert!(!shown.contains("from-a-file"), "{shown}");

    let twice = written(json!({"password_file": file})).read_secrets();
    assert_eq!(
        twice.unwrap_err(),
        "keystone.password and keystone.password_file cannot both be set"
    );
    std::fs::write(&file, "\n").unwrap();
    let mut empty = written(json!({"password": "", "password_file": file}));
    assert!(
        empty
            .read_secrets()
            .unwrap_err()
            .starts_with("keystone.password_file is empty")
    );
    let mut missing = written(json!({"password": "", "password_file": "/nowhere/at/all"}));
    assert!(
        missing
            .read_secrets()
            .unwrap_err()
            .starts_with("keystone.password_file cannot be read")
    );
}

#[test]
fn the_trustee_is_the_service_user_unless_another_one_is_set() {
    let settings = written(json!({})).resolve().unwrap();
    let trustee = TrusteeConfig::default()
        .resolve(&settings)
        .expect("it works");
    let body = trustee.credentials.request().to_string();
    assert!(body.contains("zaqar") && !body.contains("scope"), "{body}");
    let other = TrusteeConfig {
        username: "trustee".to_owned(),
        user_domain: "Default".to_owned(),
        password: Password("other-pw".to_owned()),
        ..TrusteeConfig::default()
    };
    let body = other
        .resolve(&settings)
        .unwrap()
        .credentials
        .request()
        .to_string();
    assert!(body.contains("other-pw"), "{body}");
    let without = TrusteeConfig {
        password: Password(String::new()),
        ..other
    };
    assert!(
        without
            .resolve(&settings)
            .unwrap_err()
            .starts_with("trustee.username needs trustee.password")
    );
    let credential = json!({"username": "", "application_credential_id": "c", "application_credential_secret": "s"});
    let settings = written(credential).resolve().unwrap();
    let refusal = TrusteeConfig::default().resolve(&settings).unwrap_err();
    assert!(refusal.contains("cannot use trusts"), "{refusal}");
}

#[test]
fn what_is_risky_is_warned_of() {
    assert_eq!(written(json!({})).warnings(), Vec::<String>::new());
    assert_eq!(
        written(json!({"auth_url": "http://[::1]:5000"}))
            .warnings()
            .len(),
        0
    );
    assert_eq!(
        written(json!({"auth_url": "https://keystone"}))
            .warnings()
            .len(),
        0
    );
    let risky = written(json!({"auth_url": "http://keystone:5000", "insecure": true}));
    assert_eq!(risky.warnings().len(), 2);
}
