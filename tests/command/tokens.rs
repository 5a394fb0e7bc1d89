//! Files of tokens: what is listed in them, and what is said of them.

use std::os::unix::fs::PermissionsExt;

use crate::command::operators::new_token;
use crate::command::process::{isimud, run};

/// A token that nobody saw would be in the file for ever.
#[test]
fn a_token_that_cannot_be_printed_is_not_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    new_token(folder.path(), &["--name", "first", "--role", "viewer"]);
    let file = folder.path().join("tokens.toml");
    let before = std::fs::read_to_string(&file).expect("the file");
    let full = std::fs::File::create("/dev/full").expect("a full device");
    let mut command = isimud(folder.path(), &["token", "new", "--file", "tokens.toml"]);
    command.args(["--name", "second", "--role", "admin"]);
    let ended = command.stdout(full).output().expect("it ends");
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let why = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(why.contains("is not in the file"), "{why}");
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), before);
    new_token(folder.path(), &["--name", "second", "--role", "admin"]);
}

#[test]
fn a_file_of_expired_tokens_is_a_warning_and_stops_no_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = |expires: &str| {
        let digits = "ab".repeat(32);
        let entry = format!("[[tokens]]\nname = \"a\"\nrole = \"viewer\"\nsha256 = \"{digits}\"\n");
        let text = format!("{entry}expires = \"{expires}\"\n");
        std::fs::write(folder.path().join("tokens.toml"), text).expect("a file");
    };
    let check = || {
        let mut command = isimud(
            folder.path(),
            &["--check", "--admin-listen", "0.0.0.0:8889"],
        );
        command.env("ISIMUD__ADMIN__TOKENS_FILE", "tokens.toml");
        run(command)
    };
    for (expires, is_warned) in [
        ("2020-01-31T00:00:00Z", true),
        ("2999-01-31T00:00:00Z", false),
    ] {
        tokens(expires);
        let taken = check();
        assert!(taken.status.success(), "{taken:?}");
        let warned = taken
            .stderr
            .contains("every token of tokens.toml has expired");
        assert_eq!(warned, is_warned, "{taken:?}");
    }
}

#[test]
fn a_file_of_tokens_that_others_may_write_or_read_is_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    new_token(folder.path(), &["--name", "a", "--role", "viewer"]);
    for (mode, warned) in [
        (0o600, None),
        (0o640, None),
        (0o644, Some("may read")),
        (0o660, Some("may write")),
        (0o606, Some("may write")),
    ] {
        let file = folder.path().join("tokens.toml");
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(file, permissions).expect("a mode");
        let mut command = isimud(folder.path(), &["--check"]);
        command.env("ISIMUD__ADMIN__TOKENS_FILE", "tokens.toml");
        let ended = run(command);
        assert!(ended.status.success(), "{ended:?}");
        match warned {
            Some(warned) => assert!(ended.stderr.contains(warned), "{mode:o}: {ended:?}"),
            None => assert!(!ended.stderr.contains("tokens_file"), "{mode:o}: {ended:?}"),
        }
    }
}
