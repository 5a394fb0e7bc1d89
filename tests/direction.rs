//! Which crate and which module may use which:
//!
//! ```text
//! contract <- lease <- drivers that need it      http -> messaging -> catalogue, notifications -> contract
//! contract <- the other drivers                  drivers.rs -> driver crates
//! contract <- conformance (in tests only)        contract <- import-sources <- import -> messaging <- bridges
//! redis, sqlite <- lease, and drivers that need it (in tests only)
//! contract, lease, conformance <- testing <- lease, drivers and the server (in tests only)
//! ```
//!
//! Dependencies of crates are as `cargo metadata` reports them; those between modules are words of the sources. A crate
//! below `backends/` that has no rule of its own is a driver.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const CONTRACT_MAY_USE: &[&str] = &[
    "async-trait",
    "bytes",
    "serde",
    "serde_json",
    "tracing",
    "uuid",
];
const FRONT_END: &[&str] = &["axum", "utoipa", "clap", "figment"];
/// What tests of whatever keeps a ledger elsewhere may use.
const FOR_TESTS: &[&str] = &["conformance", "redis", "sqlite"];
const NO_DRIVERS: &[&str] = &[
    "contract",
    "conformance",
    "lease",
    "import-sources",
    "testing",
];

/// Modules of the server (files below `src/`, without `.rs`), and the words that their code must not have.
const FORBIDDEN_WORDS: &[(&str, &[&str])] = &[
    (
        "http",
        &["drivers", "MessageStore", "ManagementStore", "bridges"],
    ),
    (
        "messaging",
        &[
            "axum",
            "hyper",
            "drivers",
            "bridges",
            "crate::http",
            "super::http",
        ],
    ),
    (
        "catalogue",
        &[
            "axum",
            "hyper",
            "drivers",
            "bridges",
            "messaging",
            "crate::http",
            "super::http",
        ],
    ),
    (
        "notifications",
        &[
            "axum",
            "drivers",
            "messaging",
            "catalogue",
            "bridges",
            "crate::http",
            "super::http",
        ],
    ),
    ("bridges", &["axum"]),
];

/// Whether a crate of the workspace (named without `isimud-`) may use another crate.
fn may_use(user: &str, dependency: &str, is_test: bool, has_ledger: bool) -> bool {
    let Some(ours) = dependency.strip_prefix("isimud-") else {
        return match user {
            "contract" => CONTRACT_MAY_USE.contains(&dependency),
            _ => dependency != "isimud" && !FRONT_END.contains(&dependency),
        };
    };
    match user {
        "contract" => false,
        _ if ours == "contract" => true,
        "conformance" | "import-sources" => false,
        "testing" => ["conformance", "lease"].contains(&ours),
        _ if ours == "testing" => is_test,
        "lease" => is_test && (ours == "lease" || FOR_TESTS.contains(&ours)),
        _ => {
            ours == "lease"
                || is_test && (ours == "conformance" || has_ledger && FOR_TESTS.contains(&ours))
        }
    }
}

/// Whether a line of code has a word, which may be a path. Comments do not count.
fn names(line: &str, word: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let is_part = |it: char| it.is_alphanumeric() || it == '_';
    code.match_indices(word).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + word.len()..]);
        !before.ends_with(is_part) && !after.starts_with(is_part)
    })
}

/// What a file must not name, with the line that does.
fn violations(path: &str, text: &str, drivers: &[String]) -> Vec<String> {
    let is_in =
        |module: &str| path == format!("{module}.rs") || path.starts_with(&format!("{module}/"));
    let of_modules = FORBIDDEN_WORDS
        .iter()
        .filter(|(module, _)| is_in(module))
        .flat_map(|(_, words)| *words);
    let mut forbidden: Vec<&str> = of_modules.copied().collect();
    if path != "drivers.rs" {
        forbidden.extend(drivers.iter().map(String::as_str));
    }
    if !is_in("import") {
        forbidden.push("isimud_import_sources");
    }
    let found = text.lines().flat_map(|line| {
        forbidden
            .iter()
            .filter(|word| names(line, word))
            .map(move |word| (word, line))
    });
    found
        .map(|(word, line)| format!("src/{path} must not name {word}: {}", line.trim()))
        .collect()
}

/// The packages of the workspace.
fn packages() -> Vec<Value> {
    let mut cargo = Command::new(env!("CARGO"));
    let output = cargo
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(ROOT)
        .output()
        .expect("cargo metadata");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata in JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

fn is(value: &Value, key: &str, text: &str) -> bool {
    value[key].as_str() == Some(text)
}

fn name(value: &Value) -> &str {
    value["name"].as_str().expect("a name")
}

#[test]
fn crates_depend_in_one_direction() {
    let mut violations = Vec::new();
    for package in &packages() {
        let dependencies = package["dependencies"].as_array().expect("dependencies");
        let has_ledger = dependencies.iter().any(|it| is(it, "name", "isimud-lease"));
        for dependency in dependencies {
            let (user, used, is_test) = (
                name(package),
                name(dependency),
                is(dependency, "kind", "dev"),
            );
            let is_allowed = match (user.strip_prefix("isimud-"), used.strip_prefix("isimud-")) {
                (Some(user), _) => may_use(user, used, is_test, has_ledger),
                (None, Some("conformance" | "testing")) => is_test,
                (None, Some("contract" | "lease") | None) => true,
                // Of the server's others, each has a feature of its own.
                (None, Some(driver)) => {
                    let feature = if driver == "import-sources" {
                        "import"
                    } else {
                        driver
                    };
                    let activates = package["features"][feature].as_array();
                    let asks = Value::from(format!("dep:{used}"));
                    is_test
                        || dependency["optional"] == true
                            && activates.is_some_and(|all| all.contains(&asks))
                }
            };
            if !is_allowed {
                violations.push(format!("{user} must not use {used}, or not so"));
            }
        }
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn modules_of_the_server_use_each_other_in_one_direction() {
    let packages = packages();
    let ours = packages
        .iter()
        .filter_map(|it| name(it).strip_prefix("isimud-"));
    let drivers: Vec<String> = ours
        .filter(|it| !NO_DRIVERS.contains(it))
        .map(|it| format!("isimud_{it}"))
        .collect();
    assert!(drivers.len() >= 4, "{drivers:?}");
    let (mut folders, mut seen, mut found) = (vec![Path::new(ROOT).join("src")], 0, Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source");
                let below = path
                    .strip_prefix(Path::new(ROOT).join("src"))
                    .expect("below src");
                seen += FORBIDDEN_WORDS
                    .iter()
                    .filter(|(module, _)| *below == *format!("{module}.rs"))
                    .count();
                found.extend(violations(&below.to_string_lossy(), &text, &drivers));
            }
        }
    }
    assert_eq!(
        seen,
        FORBIDDEN_WORDS.len(),
        "a module of the rules is not there"
    );
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn what_breaks_the_rules_is_found() {
    for (user, used, is_test, has_ledger) in [
        ("contract", "rusqlite", false, false),
        ("contract", "isimud-redis", true, false),
        ("conformance", "isimud-lease", false, false),
        ("lease", "isimud-conformance", false, false),
        ("redis", "isimud-sqlite", true, false),
        ("redis", "isimud-testing", false, false),
        ("lease", "isimud-testing", false, false),
        ("testing", "isimud-redis", false, true),
        ("kafka", "isimud-redis", false, true),
        ("kafka", "isimud", false, false),
        ("kafka", "axum", true, false),
    ] {
        assert!(
            !may_use(user, used, is_test, has_ledger),
            "{user} uses {used}"
        );
    }
    let drivers = ["isimud_kafka".to_owned()];
    for (path, line) in [
        ("main.rs", "pub use ::isimud_kafka as kafka;"),
        ("main.rs", "use isimud_import_sources::Zaqar;"),
        (
            "http/queues.rs",
            "use crate::{drivers as d, config}; // none",
        ),
        ("messaging/queues.rs", "use super::super::http::App;"),
        ("catalogue.rs", "type P = crate::http::Problem;"),
    ] {
        assert_eq!(violations(path, line, &drivers).len(), 1, "{path}: {line}");
    }
    for (path, line) in [
        ("drivers.rs", "use isimud_kafka::Config;"),
        ("http.rs", "use crate::messaging::Messaging; // not drivers"),
        ("messaging.rs", "mod http_free;"),
    ] {
        assert!(
            violations(path, line, &drivers).is_empty(),
            "{path}: {line}"
        );
    }
}
