//! Who may import whom:
//!
//! ```text
//! contract <- lease <- drivers that need it      http -> messaging -> catalogue, notifications -> contract
//! contract <- the other drivers                  drivers.rs -> driver crates
//! contract <- conformance (for tests only)     contract <- import-sources <- import -> messaging <- bridges
//! redis, sqlite <- lease, and drivers that need it (for tests only)
//! ```
//!
//! The arrows between crates are read from the manifests, those inside the server from its sources. Whatever appears
//! under `backends/` beside the four crates with a part of their own is a driver, and is held to the rules of one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use manifest::{Kind, Manifest};
use source::Source;

#[path = "direction/manifest.rs"]
mod manifest;
#[path = "direction/source.rs"]
mod source;

/// What the contract is made of; none of it speaks to a backend, or to a client.
const CONTRACT_MAY_USE: &[&str] = &[
    "async-trait",
    "bytes",
    "serde",
    "serde_json",
    "tracing",
    "uuid",
];

/// Frameworks of the server's front end, which no backend has heard of.
const FRONT_END: &[&str] = &["axum", "utoipa", "clap", "figment"];

const SERVER: &str = "isimud";
const CONTRACT: &str = "isimud-contract";
const CONFORMANCE: &str = "isimud-conformance";
const LEASE: &str = "isimud-lease";
const IMPORT_SOURCES: &str = "isimud-import-sources";
/// Drivers that keep ledgers. What is made complete by one is tried with these.
const LEDGERS: [&str; 2] = ["isimud-redis", "isimud-sqlite"];

/// Every crate of the workspace: the server first, then those under `backends/`.
struct Workspace {
    server: Manifest,
    backends: Vec<Manifest>,
}

impl Workspace {
    fn read(root: &Path) -> Self {
        let backends = root.join("backends");
        let mut folders: Vec<PathBuf> = std::fs::read_dir(&backends)
            .expect("the backends")
            .map(|entry| entry.expect("a backend").path())
            .filter(|folder| folder.join("Cargo.toml").is_file())
            .collect();
        folders.sort();
        let text = |folder: &Path| {
            let path = folder.join("Cargo.toml");
            std::fs::read_to_string(&path).expect("a manifest")
        };
        let shared = text(root);
        Self {
            server: Manifest::parse(&shared, &shared),
            backends: folders
                .iter()
                .map(|folder| Manifest::parse(&text(folder), &shared))
                .collect(),
        }
    }

    fn drivers(&self) -> impl Iterator<Item = &Manifest> {
        let named = [CONTRACT, CONFORMANCE, LEASE, IMPORT_SOURCES];
        self.backends
            .iter()
            .filter(move |backend| !named.contains(&backend.name.as_str()))
    }

    /// What is wrong with the arrows between crates, a sentence each.
    fn faults(&self) -> Vec<String> {
        let ours: BTreeSet<&str> = self
            .backends
            .iter()
            .chain([&self.server])
            .map(|one| one.name.as_str())
            .collect();
        let mut faults = Vec::new();
        for backend in &self.backends {
            let is_driver = self.drivers().any(|driver| driver.name == backend.name);
            for (kind, used) in &backend.dependencies {
                let used = used.as_str();
                let is_test = *kind == Kind::Dev;
                let for_tests = [CONFORMANCE, LEDGERS[0], LEDGERS[1]];
                let allowed = match backend.name.as_str() {
                    CONTRACT => CONTRACT_MAY_USE.contains(&used),
                    _ if FRONT_END.contains(&used) => false,
                    _ if !ours.contains(used) || used == CONTRACT => true,
                    CONFORMANCE => false,
                    LEASE => is_test && (for_tests.contains(&used) || used == LEASE),
                    _ if is_driver && is_test && backend.uses(LEASE) => for_tests.contains(&used),
                    _ => is_driver && (used == LEASE || is_test && used == CONFORMANCE),
                };
                if !allowed {
                    faults.push(format!("{} must not use {used} ({kind:?})", backend.name));
                }
            }
        }
        for (kind, used) in &self.server.dependencies {
            if used == CONFORMANCE && *kind != Kind::Dev {
                faults.push(format!("{SERVER} must not use {used} ({kind:?})"));
            }
        }
        if self.server.uses(IMPORT_SOURCES) && !self.server.has_optional(IMPORT_SOURCES, "import") {
            faults.push(format!("{IMPORT_SOURCES} is not behind the feature import"));
        }
        for driver in self.drivers() {
            let feature = driver.name.trim_start_matches("isimud-");
            if self.server.uses(&driver.name) && !self.server.has_optional(&driver.name, feature) {
                faults.push(format!(
                    "{} is not behind the feature {feature}",
                    driver.name
                ));
            }
        }
        faults
    }

    /// The names by which sources would call the drivers.
    fn driver_modules(&self) -> BTreeSet<String> {
        self.drivers()
            .map(|driver| driver.name.replace('-', "_"))
            .collect()
    }
}

/// What is wrong with the arrows inside the server, a sentence each. `place` is the path of a file below `src/`.
fn source_faults(place: &str, source: &Source, drivers: &BTreeSet<String>) -> Vec<String> {
    let is_in =
        |module: &str| place == format!("{module}.rs") || place.starts_with(&format!("{module}/"));
    let mut faults = Vec::new();
    let mut refuse = |what: String| faults.push(format!("src/{place} names {what}"));
    for word in source.words() {
        if drivers.contains(word) && place != "drivers.rs" {
            refuse(word.to_owned());
        }
        if word == "isimud_import_sources" && !is_in("import") {
            refuse(word.to_owned());
        }
        let of_stores = ["drivers", "MessageStore", "ManagementStore"];
        if is_in("http") && of_stores.contains(&word) {
            refuse(word.to_owned());
        }
        let decides = is_in("messaging") || is_in("catalogue");
        if decides && ["axum", "hyper", "drivers"].contains(&word) {
            refuse(word.to_owned());
        }
        if is_in("notifications") && ["axum", "drivers", "messaging", "catalogue"].contains(&word) {
            refuse(word.to_owned());
        }
        if (decides || is_in("notifications") || is_in("http")) && word == "bridges" {
            refuse(word.to_owned());
        }
        if is_in("bridges") && word == "axum" {
            refuse(word.to_owned());
        }
        if is_in("catalogue") && word == "messaging" {
            refuse(word.to_owned());
        }
    }
    if is_in("messaging") || is_in("catalogue") || is_in("notifications") {
        for path in source.paths().iter().filter(|path| leads_to_http(path)) {
            refuse(path.join("::"));
        }
    }
    faults
}

/// Whether a path leads up to the root, or starts there, and then into `http`.
fn leads_to_http(path: &[String]) -> bool {
    let is_up = |part: &&String| ["crate", "super", "self"].contains(&part.as_str());
    let up = path.iter().take_while(is_up).count();
    up > 0 && path.get(up).is_some_and(|part| part == "http")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every source of the server with its path below `src/`.
fn sources() -> Vec<(String, Source)> {
    let src = root().join("src");
    let mut folders = vec![src.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("a source").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source");
                let place = path.strip_prefix(&src).expect("below src");
                sources.push((place.display().to_string(), Source::read(&text)));
            }
        }
    }
    sources
}

#[test]
fn crates_depend_in_one_direction() {
    let workspace = Workspace::read(root());
    assert!(workspace.drivers().count() > 0, "no driver was found");
    let faults = workspace.faults();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_parts_of_the_server_know_each_other_in_one_direction() {
    let drivers = Workspace::read(root()).driver_modules();
    let sources = sources();
    for expected in ["drivers.rs", "http.rs", "messaging.rs", "http/queues.rs"] {
        let found = sources.iter().any(|(place, _)| place == expected);
        assert!(found, "src/{expected} was not found");
    }
    let faults: Vec<String> = sources
        .iter()
        .flat_map(|(place, source)| source_faults(place, source, &drivers))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

mod checker {
    use super::*;

    const SHARED: &str = r#"
        [workspace.dependencies]
        isimud-contract = { path = "backends/contract" }
        isimud-conformance = { path = "backends/conformance" }
        isimud-lease = { path = "backends/lease" }
        isimud-one = { path = "backends/one" }
        isimud-two = { path = "backends/two" }
        second = { package = "isimud-two", path = "backends/two" }
        [package]
        name = "isimud"
        [features]
        one = ["dep:isimud-one"]
        two = ["dep:isimud-two"]
        [dependencies]
        isimud-contract.workspace = true
        isimud-one = { workspace = true, optional = true }
        isimud-two = { workspace = true, optional = true }
        [dev-dependencies]
        isimud-conformance.workspace = true
    "#;

    /// A workspace of two drivers beside the crates with a part of their own; `changed` is a crate's manifest after
    /// its name.
    fn faults_with(changed: &str, manifest: &str) -> Vec<String> {
        let names = ["contract", "conformance", "lease", "one", "two"];
        let backend = |name: &str| {
            let rest = if name == changed { manifest } else { "" };
            let text = format!("[package]\nname = \"isimud-{name}\"\n{rest}");
            Manifest::parse(&text, SHARED)
        };
        let server = match changed {
            "server" => format!("{SHARED}\n{manifest}"),
            _ => SHARED.to_owned(),
        };
        let workspace = Workspace {
            server: Manifest::parse(&server, SHARED),
            backends: names.map(backend).into(),
        };
        workspace.faults()
    }

    #[test]
    fn what_the_rules_allow_passes() {
        for (name, manifest) in [
            ("", ""),
            (
                "contract",
                "[dependencies]\nuuid = \"1\"\nserde_json.workspace = true",
            ),
            (
                "conformance",
                "[dependencies]\nisimud-contract.workspace = true\nlibtest-mimic = \"1\"",
            ),
            (
                "lease",
                "[dependencies]\nisimud-contract.workspace = true\n[dev-dependencies]\nisimud-conformance.workspace = true",
            ),
            (
                "one",
                "[dependencies]\nisimud-contract.workspace = true\nisimud-lease.workspace = true\nredis = \"1\"",
            ),
            (
                "two",
                "[dev-dependencies]\nisimud-conformance.workspace = true\ntempfile = \"3\"",
            ),
        ] {
            assert_eq!(
                faults_with(name, manifest),
                Vec::<String>::new(),
                "{name}: {manifest}"
            );
        }
    }

    #[test]
    fn what_the_rules_forbid_is_found() {
        for (name, manifest, fault) in [
            (
                "contract",
                "[dependencies]\nrusqlite = \"1\"",
                "isimud-contract must not use rusqlite (Normal)",
            ),
            (
                "contract",
                "[dev-dependencies]\nisimud-one.workspace = true",
                "isimud-contract must not use isimud-one (Dev)",
            ),
            (
                "contract",
                "[build-dependencies]\ncc = \"1\"",
                "isimud-contract must not use cc (Build)",
            ),
            (
                "conformance",
                "[dependencies]\nisimud-lease.workspace = true",
                "isimud-conformance must not use isimud-lease (Normal)",
            ),
            (
                "lease",
                "[dependencies]\nisimud-conformance.workspace = true",
                "isimud-lease must not use isimud-conformance (Normal)",
            ),
            (
                "lease",
                "[dependencies]\nisimud-one.workspace = true",
                "isimud-lease must not use isimud-one (Normal)",
            ),
            (
                "one",
                "[dependencies]\nisimud-two.workspace = true",
                "isimud-one must not use isimud-two (Normal)",
            ),
            (
                "one",
                "[dev-dependencies]\nisimud-two.workspace = true",
                "isimud-one must not use isimud-two (Dev)",
            ),
            (
                "one",
                "[dependencies.isimud-two]\nworkspace = true",
                "isimud-one must not use isimud-two (Normal)",
            ),
            (
                "one",
                "[dependencies]\nsecond.workspace = true",
                "isimud-one must not use isimud-two (Normal)",
            ),
            (
                "one",
                "[dependencies]\nother = { package = \"isimud-two\", path = \"../two\" }",
                "isimud-one must not use isimud-two (Normal)",
            ),
            (
                "one",
                "[target.'cfg(unix)'.dependencies]\nisimud-two.workspace = true",
                "isimud-one must not use isimud-two (Normal)",
            ),
            (
                "one",
                "[dependencies]\nisimud-conformance.workspace = true",
                "isimud-one must not use isimud-conformance (Normal)",
            ),
            (
                "one",
                "[dependencies]\nisimud = { path = \"../..\" }",
                "isimud-one must not use isimud (Normal)",
            ),
            (
                "one",
                "[dev-dependencies]\naxum = \"0.8\"",
                "isimud-one must not use axum (Dev)",
            ),
            (
                "server",
                "[build-dependencies]\nisimud-conformance.workspace = true",
                "isimud must not use isimud-conformance (Build)",
            ),
        ] {
            assert_eq!(faults_with(name, manifest), [fault], "{name}: {manifest}");
        }
    }

    #[test]
    fn a_new_driver_is_held_to_the_rules_without_further_ado() {
        let text =
            "[package]\nname = \"isimud-kafka\"\n[dependencies]\nisimud-one.workspace = true";
        let workspace = Workspace {
            server: Manifest::parse(SHARED, SHARED),
            backends: vec![
                Manifest::parse("[package]\nname = \"isimud-one\"", SHARED),
                Manifest::parse(text, SHARED),
            ],
        };
        assert_eq!(
            workspace.faults(),
            ["isimud-kafka must not use isimud-one (Normal)"]
        );
        assert!(workspace.driver_modules().contains("isimud_kafka"));
    }

    #[test]
    fn the_server_has_each_driver_behind_a_feature_of_its_own() {
        let with = |feature: &str, dependency: &str| {
            let text = format!(
                "[package]\nname = \"isimud\"\n[features]\n{feature}\n[dependencies]\nisimud-one = {dependency}"
            );
            let workspace = Workspace {
                server: Manifest::parse(&text, ""),
                backends: vec![Manifest::parse("[package]\nname = \"isimud-one\"", "")],
            };
            workspace.faults()
        };
        let (asked, optional) = (
            "one = [\"dep:isimud-one\"]",
            "{ path = \"x\", optional = true }",
        );
        assert_eq!(with(asked, optional), Vec::<String>::new());
        for (feature, dependency) in [
            (asked, "{ path = \"x\" }"),
            ("", optional),
            ("one = []", optional),
            ("other = [\"dep:isimud-one\"]", optional),
        ] {
            let faults = with(feature, dependency);
            assert_eq!(faults, ["isimud-one is not behind the feature one"]);
        }
    }

    fn faults(place: &str, text: &str) -> Vec<String> {
        let drivers = BTreeSet::from(["isimud_sqlite".to_owned(), "isimud_kafka".to_owned()]);
        source_faults(place, &Source::read(text), &drivers)
    }

    #[test]
    fn sources_that_keep_to_the_rules_pass() {
        for (place, text) in [
            (
                "drivers.rs",
                "use isimud_sqlite::Config; fn f() { isimud_kafka::open() }",
            ),
            (
                "lib.rs",
                "use crate::http::Api; use crate::drivers; use axum::Router;",
            ),
            (
                "http.rs",
                "use crate::messaging::Messaging; use axum::http::Method;",
            ),
            (
                "http/queues.rs",
                "/// Not a MessageStore, nor crate::drivers.\nfn f() { say(\"drivers::MessageStore\") }",
            ),
            (
                "messaging.rs",
                "use isimud_contract::MessageStore; mod http_free; // axum\nfn f<'a>(x: &'a str) {}",
            ),
            (
                "messaging/queues.rs",
                "use super::{Messaging, patch}; /* use axum; /* crate::http */ */ const C: char = '\"';",
            ),
            (
                "messaging/seal.rs",
                "const A: &str = r#\"use \"axum\"; crate::http\"#; const B: &[u8] = b\"axum\";",
            ),
            ("https.rs", "use isimud_contract::MessageStore;"),
            ("import/zaqar.rs", "use isimud_import_sources::Zaqar;"),
        ] {
            assert_eq!(faults(place, text), Vec::<String>::new(), "{place}: {text}");
        }
    }

    #[test]
    fn sources_that_break_the_rules_are_found() {
        for (place, text, named) in [
            (
                "main.rs",
                "use isimud_sqlite::SqliteStore;",
                "isimud_sqlite",
            ),
            ("lib.rs", "pub use ::isimud_kafka as kafka;", "isimud_kafka"),
            (
                "main.rs",
                "use isimud_import_sources::Zaqar;",
                "isimud_import_sources",
            ),
            (
                "http/queues.rs",
                "fn f() { isimud_sqlite::open() }",
                "isimud_sqlite",
            ),
            (
                "drivers/more.rs",
                "extern crate isimud_sqlite;",
                "isimud_sqlite",
            ),
            ("http.rs", "use crate::drivers::open;", "drivers"),
            (
                "http/queues.rs",
                "use crate::{drivers as d, config};",
                "drivers",
            ),
            (
                "http/policy/expression.rs",
                "fn f(s: &dyn isimud_contract::MessageStore) {}",
                "MessageStore",
            ),
            (
                "http/claims.rs",
                "use isimud_contract::{Error, ManagementStore};",
                "ManagementStore",
            ),
            ("messaging.rs", "use axum::Router;", "axum"),
            (
                "messaging/queues.rs",
                "fn f() -> ::axum::http::StatusCode { todo!() }",
                "axum",
            ),
            (
                "messaging/queues.rs",
                "use crate::http::App;",
                "crate::http::App",
            ),
            (
                "messaging/queues.rs",
                "use crate::{config, http::{self, App}};",
                "crate::http::self",
            ),
            (
                "messaging/queues.rs",
                "use super::super::http::App;",
                "super::super::http::App",
            ),
            (
                "messaging/claims.rs",
                "type P = crate :: http /* x */ :: Problem;",
                "crate::http::Problem",
            ),
            (
                "messaging/claims.rs",
                "use crate::drivers::Backend;",
                "drivers",
            ),
        ] {
            let faults = faults(place, text);
            let expected = format!("src/{place} names {named}");
            assert!(faults.contains(&expected), "{text}: {faults:?}");
        }
    }
}
