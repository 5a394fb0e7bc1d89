//! The reader, compared with the real one: oslo.config with the options of Zaqar, in the virtual environment of
//! `scripts/zaqar-venv` (or the interpreter that `ZAQAR_PYTHON` names).

mod generator;
mod written;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use figment::Figment;
use figment::providers::{Format, Toml};
use serde_json::{Value as Json, json};

use self::generator::Generator;
use super::document::{PLANNED, Secrets};
use super::mapping::{self, Server};
use super::reader::{Origin, Reader};
use super::redis_uri::Connection;
use super::schema::{self, Unassigned};
use super::sources::{self, Source};
use super::value::{Kind, Value};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn python() -> PathBuf {
    if let Some(python) = std::env::var_os("ZAQAR_PYTHON") {
        return python.into();
    }
    let script = root().join("scripts/zaqar-venv");
    let made = Command::new(&script)
        .output()
        .expect("the script can be run");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(
        made.status.success(),
        "no reference to compare with:\n{said}"
    );
    String::from_utf8_lossy(&made.stdout).trim().into()
}

/// Runs the reference.
fn reference(what: &str, input: &Json) -> Json {
    let mut process = Command::new(python())
        .arg(root().join("tests/zaqar_conf/reference.py"))
        .arg(what)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the reference can be run");
    let mut stdin = process.stdin.take().expect("a pipe");
    stdin
        .write_all(input.to_string().as_bytes())
        .expect("it reads");
    drop(stdin);
    let done = process.wait_with_output().expect("it ends");
    assert!(done.status.success(), "the reference fails");
    serde_json::from_slice(&done.stdout).expect("an answer")
}

/// A set of files, and an environment.
#[derive(Debug, Default)]
struct Case {
    name: String,
    sources: Vec<Source>,
    environment: BTreeMap<String, String>,
}

impl Case {
    fn request(&self) -> Json {
        let arguments: Vec<String> = self
            .sources
            .iter()
            .flat_map(|source| match source {
                Source::File(path) => ["--config-file".to_owned(), path.display().to_string()],
                Source::Folder(path) => ["--config-dir".to_owned(), path.display().to_string()],
            })
            .collect();
        json!({"arguments": arguments, "env": self.environment})
    }

    fn read(&self) -> Result<Reader, String> {
        let found = sources::find(&self.sources, None).map_err(|error| error.to_string())?;
        let files = sources::read(&found.paths).map_err(|errors| format!("{errors:?}"))?;
        let reader = Reader::new(files, self.environment.clone());
        match reader.refused().first() {
            Some(fault) => Err(fault.to_string()),
            None => Ok(reader),
        }
    }
}

fn json_of(value: &Value) -> Json {
    match value {
        Value::Unset => Json::Null,
        Value::Text(text) => json!(text),
        Value::Bool(flag) => json!(flag),
        Value::Int(number) => json!(number),
        Value::Float(number) if number.is_finite() => json!(number),
        Value::Float(_) => json!(value.interpolated()),
        Value::List(items) => json!(items),
        Value::Map(pairs) => pairs
            .iter()
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect(),
    }
}

fn is_equal(one: &Json, other: &Json) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

/// What was compared.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    refused_files: usize,
    values: usize,
    set: usize,
    faults: usize,
}

/// Compares all options of all cases; says what differs.
fn compare(cases: &[Case]) -> Count {
    let requests: Vec<Json> = cases.iter().map(Case::request).collect();
    let answers = reference("read", &Json::Array(requests));
    let answers = answers.as_array().expect("answers");
    assert_eq!(answers.len(), cases.len());
    let (mut count, mut differences) = (Count::default(), String::new());
    for (case, answer) in cases.iter().zip(answers) {
        let reader = match (case.read(), answer.get("values")) {
            (Err(_), None) => {
                count.refused_files += 1;
                continue;
            }
            (Ok(reader), Some(_)) => reader,
            (ours, _) => {
                let ours = ours.map(drop);
                writeln!(
                    differences,
                    "{}: {ours:?}, there {}",
                    case.name, answer["error"]
                )
                .expect("a text");
                continue;
            }
        };
        for (group, options) in answer["values"].as_object().expect("groups") {
            for (name, theirs) in options.as_object().expect("options") {
                count.values += 1;
                let ours = reader.get(group, name);
                let is_same = match (&ours, theirs.get("value")) {
                    (Ok(ours), Some(theirs)) => is_equal(&json_of(&ours.value), theirs),
                    (Err(_), None) => true,
                    _ => false,
                };
                count.faults += usize::from(ours.is_err());
                count.set += usize::from(
                    ours.as_ref()
                        .is_ok_and(|ours| ours.origin != Origin::Default),
                );
                if !is_same {
                    writeln!(
                        differences,
                        "{} [{group}] {name}: {ours:?}, there {theirs}",
                        case.name
                    )
                    .expect("a text");
                }
            }
        }
    }
    assert!(differences.is_empty(), "{differences}");
    count
}

#[test]
fn the_table_of_options_is_that_of_the_reference() {
    let theirs = reference("schema", &Json::Null);
    let theirs = theirs.as_array().expect("options");
    let reader = Reader::new(Vec::new(), BTreeMap::new());
    let of_command_line = [
        "config_source",
        "shell_completion",
        "config_file",
        "config_dir",
    ];
    let mut seen = 0;
    for option in theirs {
        let (group, name) = (
            option["group"].as_str().expect("a group"),
            option["name"].as_str().expect("a name"),
        );
        if of_command_line.contains(&name) {
            continue;
        }
        let ours = match group.strip_prefix("plugin:") {
            Some(plugin) => {
                schema::plugin(plugin).and_then(|all| all.iter().find(|each| each.name == name))
            }
            None => reader.find(group, name),
        };
        let ours = ours.unwrap_or_else(|| panic!("[{group}] {name} is missing"));
        let former: Vec<&str> = option["deprecated"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|each| each[1].as_str())
            .collect();
        assert_eq!(ours.former, former, "[{group}] {name}");
        assert_eq!(
            ours.kind == Kind::Multi,
            option["multi"] == true,
            "[{group}] {name}"
        );
        assert!(
            ours.is_secret || option["secret"] == false,
            "[{group}] {name} is secret there"
        );
        if group.starts_with("plugin:") {
            assert!(matches!(ours.default, Unassigned::Unset), "{name}");
        } else {
            let value = reader.get(group, name).expect("a default").value;
            let is_default = is_equal(&json_of(&value), &option["default"]);
            assert!(
                is_default,
                "[{group}] {name}: {value:?}, there {}",
                option["default"]
            );
        }
        seen += 1;
    }
    let ours: usize = schema::GROUPS
        .iter()
        .map(|(_, options)| options.len())
        .sum();
    let of_plugins: usize = ["password", "v3password", "v3applicationcredential"]
        .iter()
        .map(|name| schema::plugin(name).map_or(0, <[_]>::len))
        .sum();
    assert_eq!(
        seen,
        ours + of_plugins,
        "an option that the reference does not have"
    );
    println!("{seen} options");
}

/// The sets of files in `tests/zaqar_conf/fixtures`.
fn fixtures() -> Vec<Case> {
    let folder = root().join("tests/zaqar_conf/fixtures");
    let listed = std::fs::read_dir(folder).expect("the fixtures");
    let mut folders: Vec<PathBuf> = listed
        .map(|entry| entry.expect("an entry").path())
        .collect();
    folders.sort();
    folders.iter().map(|folder| fixture(folder)).collect()
}

fn fixture(folder: &Path) -> Case {
    let mut case = Case {
        name: folder.display().to_string(),
        ..Case::default()
    };
    let arguments = std::fs::read_to_string(folder.join("arguments")).expect("arguments");
    for line in arguments.lines() {
        let (flag, value) = line.split_once(' ').expect("a flag and its value");
        let path = folder.join(value);
        match flag {
            "--zaqar" => case.sources.push(Source::File(path)),
            "--dir" => case.sources.push(Source::Folder(path)),
            "--environment" => {
                let read = sources::environment_file(&path).expect("variables");
                case.environment.extend(read);
            }
            _ => {}
        }
    }
    case
}

#[test]
fn files_of_deployments_have_the_values_that_the_reference_gives_them() {
    // What a deployment tool leaves open is taken for not set, on purpose.
    let cases: Vec<Case> = fixtures()
        .into_iter()
        .filter(|case| !case.name.ends_with("puppet"))
        .collect();
    let count = compare(&cases);
    println!("{} sets: {count:?}", cases.len());
    assert!(
        cases.len() >= 9 && count.refused_files == 0 && count.set > 100,
        "{count:?}"
    );
}

/// Whether the reference could connect. It takes sentinels that have no name or no port to connect to.
fn is_usable(fields: &Json) -> bool {
    let sentinels = fields["target"]["sentinels"].as_array();
    sentinels.into_iter().flatten().all(|sentinel| {
        let name = sentinel[0].as_str().unwrap_or_default();
        let port = sentinel[1].as_i64().unwrap_or_default();
        !name.is_empty() && !name.contains('@') && (1..=65535).contains(&port)
    })
}

#[test]
fn redis_uris_are_taken_apart_as_the_reference_does() {
    let mut random = fastrand::Rng::with_seed(11);
    let mut pick = |from: &[&'static str]| from[random.usize(..from.len())];
    let mut uris: Vec<String> = Vec::new();
    for _ in 0..4000 {
        let scheme = pick(&[
            "redis://",
            "redis://",
            "redis://",
            "redis:",
            "REDIS://",
            "rediss://",
            "redis",
            "",
        ]);
        let login = pick(&[
            "",
            "",
            ":p@",
            "u:p@",
            "u@",
            ":p@q@",
            "u:p%40:x@",
            ":p#q@",
            ":p/q@",
            ":p?q@",
            ":@",
            "@",
            "u:@",
        ]);
        let host = pick(&[
            "h",
            "H.example",
            "h:1",
            "h:0",
            "h:",
            "h:x",
            "h:70000",
            "[::1]",
            "[::1]:7",
            "h1,h2",
            "h1:1,h2:2",
            "",
            "10.0.0.1",
        ]);
        let path = pick(&["", "", "", "/", "/5", "/run/r.sock"]);
        let options = [
            "",
            "",
            "?dbid=1",
            "?dbid=x",
            "?dbid=",
            "?socket_timeout=2",
            "?socket_timeout=a",
            "?master=m",
            "?master=m&dbid=3",
            "?master=",
            "?sentinel_username=s&sentinel_password=%26a+b&master=m",
            "?other=1&dbid=2#x",
            "?dbid=1&dbid=2",
            "#x",
        ];
        let options = pick(&options);
        uris.push(format!("{scheme}{login}{host}{path}{options}"));
    }
    uris.push("redis://:p@s1,\ns2:2?master=m&\n  dbid=4".replace("  ", ""));
    let theirs = reference("redis", &json!(uris));
    let (mut accepted, mut differences) = (0, String::new());
    for (uri, theirs) in uris.iter().zip(theirs.as_array().expect("answers")) {
        let ours = Connection::parse(uri);
        accepted += usize::from(ours.is_ok());
        let ours = ours.map_or(Json::Null, |connection| connection.fields());
        let theirs = if is_usable(theirs) {
            theirs
        } else {
            &Json::Null
        };
        if ours != *theirs {
            writeln!(differences, "{uri}: {ours}, there {theirs}").expect("a text");
        }
    }
    println!("{} URIs, {accepted} accepted", uris.len());
    assert!(differences.is_empty(), "{differences}");
    assert!((500..3500).contains(&accepted));
}

#[test]
fn random_files_have_the_values_that_the_reference_gives_them() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(7);
    let number = std::env::var("CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(300);
    let folder = tempfile::tempdir().expect("a folder");
    let mut generator = Generator {
        random: fastrand::Rng::with_seed(seed),
        folder: folder.path(),
    };
    let cases: Vec<Case> = (0..number).map(|number| generator.case(number)).collect();
    let count = compare(&cases);
    println!("seed {seed}, {number} cases: {count:?}");
    assert!(
        count.refused_files > 0 && count.faults > number && count.set > number * 5,
        "{count:?}"
    );
}
