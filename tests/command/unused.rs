//! Keys that mean nothing because what they are for is off: a check and a start say so.

use std::fs;

use crate::command::process::{Running, TIMEOUT, isimud, run, within};

/// What is said of a configuration by `--check`.
fn warnings(config: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let config = format!("[messages]\nencryption_keys = [\"own\"]\n{config}");
    fs::write(folder.path().join("isimud.toml"), config).expect("a file");
    let arguments = ["--check", "--config", "isimud.toml"];
    let ended = run(isimud(folder.path(), &arguments));
    assert!(ended.status.success(), "{ended:?}");
    ended.stderr
}

#[test]
fn keystone_that_is_set_and_not_asked_is_a_warning() {
    for (config, keys) in [
        (
            "[keystone]\nauth_url = \"https://k\"\n",
            "keystone.auth_url",
        ),
        ("[keystone]\nusername = \"zaqar\"\n", "keystone.username"),
        (
            "[keystone]\npassword = \"hidden-pw\"\n",
            "keystone.password",
        ),
        ("[keystone]\ncache_secs = 300\n", "keystone.cache_secs"),
        ("[trustee]\nusername = \"heat\"\n", "trustee.username"),
        (
            "[keystone]\nauth_url = \"https://k\"\nuser_id = \"u\"\n[trustee]\npassword_file = \"/none\"\n",
            "keystone.auth_url, keystone.user_id, trustee.password_file",
        ),
    ] {
        let said = warnings(config);
        assert_eq!(said.lines().count(), 1, "{config}: {said}");
        assert!(said.contains(keys), "{config}: {said}");
        assert!(said.contains("access.authentication"), "{config}: {said}");
        assert!(!said.contains("hidden-pw"), "{said}");
    }
    assert_eq!(
        warnings("[keystone]\nauth_url = \"\"\ncache_secs = 60\n"),
        ""
    );
    let on = "[access]\nauthentication = \"keystone\"\n[keystone]\nauth_url = \"https://k\"\nuser_id = \"u\"\n\
              password = \"p\"\nproject_id = \"p\"\n";
    assert_eq!(warnings(on), "");
}

#[test]
fn trustee_without_a_user_is_a_warning() {
    let on = "[access]\nauthentication = \"keystone\"\n[keystone]\nauth_url = \"https://k\"\nuser_id = \"u\"\n\
              password = \"p\"\nproject_id = \"p\"\n[trustee]\n";
    let said = warnings(&format!(
        "{on}password = \"hidden-pw\"\nuser_domain = \"heat\"\n"
    ));
    assert!(said.contains("trustee.password"), "{said}");
    assert!(said.contains("trustee.user_domain"), "{said}");
    assert!(said.contains("trustee.username"), "{said}");
    assert!(!said.contains("hidden-pw"), "{said}");
    assert_eq!(warnings(&format!("{on}auth_url = \"https://k\"\n")), "");
}

#[test]
fn start_warns_of_keystone_that_is_not_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let environment = [("ISIMUD__KEYSTONE__AUTH_URL", "https://k")];
    let arguments = ["--store", "sqlite::memory:"];
    let server = Running::start_with(folder.path(), &arguments, &environment);
    let warned = within(TIMEOUT, || {
        let said = server.said();
        said.lines()
            .any(|line| line.contains("WARN") && line.contains("keystone.auth_url"))
            .then_some(())
    });
    assert!(warned.is_some(), "{}", server.said());
    server.stop();
}
