//! The reader, compared with the real one: oslo.config with the options of Zaqar, in the virtual environment of
//! `scripts/zaqar-venv` (or the interpreter that `ZAQAR_PYTHON` names).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use figment::Figment;
use figment::providers::{Format, Toml};
use serde_json::{Value as Json, json};

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

/// Writes files of random text and compares what both readers make of them.
struct Generator<'a> {
    random: fastrand::Rng,
    folder: &'a Path,
}

const TEXTS: &[&str] = &[
    "",
    "plain",
    "two words",
    "\"quoted\"",
    "'quoted'",
    "\"half",
    "a=b:c",
    "x # no comment",
    "pa$$ss",
    "pa\\$ss",
    "$",
    "$ x",
    "$9",
    "${",
    "${debug",
    "$debug",
    "${debug}",
    "$auth_strategy",
    "$uri",
    "${transport.max_claim_ttl}x",
    "$keystone_authtoken.service_token_roles",
    "$cors.allowed_origin",
    "$nothing_of_the_kind",
    "$drivers",
    "$drivers.transport",
    "$log_file.",
    "é ü",
    "\u{a0}x\u{a0}",
    "a\\b",
    "redis://:p%40ss@h:6379?dbid=2",
];
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "60",
    "3600",
    "1_000",
    "_1",
    "+5",
    "1.5",
    "1e3",
    "nan",
    "inf",
    "0x10",
    "010",
    " 7 ",
    "",
    "'8'",
    "65536",
    "many",
    "$max_claim_ttl",
];
const WORDS: &[&str] = &[
    "true",
    "True",
    "YES",
    "on",
    "1",
    "false",
    "No",
    "off",
    "0",
    "",
    "'true'",
    "\" true\"",
    "maybe",
    "t",
    "$debug",
    "2",
];
const LISTS: &[&str] = &[
    "a,b",
    "a, b ,c,",
    ",",
    ",,a",
    "a,,b",
    "\"a\",b",
    "[a]",
    "a, ,",
    "a,\n  b,\n  c",
    "$debug,x",
    "https://a:1,*",
];
const MAPS: &[&str] = &[
    "a:b",
    "a:b,c:d",
    "a:b,c",
    "a:b, with, commas:c",
    ":x",
    "a:b,a:c",
    "topic: x y ,body:{0} {1}",
    "a",
];
const HOSTS: &[&str] = &[
    "127.0.0.1",
    "::1",
    "0.0.0.0",
    "mq.example",
    "mq.example.",
    "1.2.3",
    "a_b",
    "-a",
    "",
    "$bind",
    "[::1]",
];

impl Generator<'_> {
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.random.usize(..from.len())]
    }

    fn value(&mut self, kind: Kind) -> &'static str {
        if self.random.u8(..12) == 0 {
            return self.pick(TEXTS);
        }
        match kind {
            Kind::Bool => self.pick(WORDS),
            Kind::Int(..) | Kind::Float | Kind::NotNegative => self.pick(NUMBERS),
            Kind::List | Kind::Choices(_) => self.pick(LISTS),
            Kind::Map => self.pick(MAPS),
            Kind::Host => self.pick(HOSTS),
            Kind::Choice(choices) | Kind::AnyCase(choices) if self.random.bool() => {
                self.pick(choices)
            }
            _ => self.pick(TEXTS),
        }
    }

    fn group(&mut self, name: &str) -> String {
        match self.random.u8(..10) {
            0 => name.to_uppercase(),
            1 => name.to_lowercase(),
            2 => {
                let mut characters = name.chars();
                let first = characters.next().into_iter().flat_map(char::to_uppercase);
                first.chain(characters).collect()
            }
            _ => name.to_owned(),
        }
    }

    fn text(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..self.random.usize(1..6) {
            let (group, options) = self.pick(schema::GROUPS);
            let written = self.group(group);
            writeln!(text, "[{written}]").expect("a text");
            for _ in 0..self.random.usize(..12) {
                let option = self.pick(options);
                let mut name = option.name.to_owned();
                if !option.former.is_empty() && self.random.bool() {
                    name = self.pick(option.former).to_owned();
                }
                match self.random.u8(..30) {
                    0 => name = name.to_uppercase(),
                    1 => name = name.replace('_', "-"),
                    _ => {}
                }
                let value = self.value(option.kind);
                let separator = self.pick(&["=", " = ", ":", ": ", "  =\t"]);
                let behind = self.pick(&[
                    "\n",
                    "\n",
                    "\n",
                    "\n\n",
                    "\n# comment = x\n",
                    " \n",
                    "\r\n",
                    "\n  and more\n",
                ]);
                write!(text, "{name}{separator}{value}{behind}").expect("a text");
            }
            if self.random.u8(..60) == 0 {
                text.push_str(self.pick(&[
                    "word\n",
                    "[open\n",
                    "= x\n",
                    "[]\n",
                    "[a] # b\n",
                    "\n  x\n",
                ]));
            }
        }
        text
    }

    /// Credentials, in their own group or in another one.
    fn credentials(&mut self) -> String {
        let group = self.pick(&["keystone_authtoken", "trustee"]);
        let auth_type = self.pick(&[
            "password",
            "v3password",
            "v3applicationcredential",
            "no plugin",
            "",
        ]);
        let section = self.pick(&["", "shared", "Shared", "keystone_authtoken", "trustee"]);
        let name = self.pick(&[
            "username",
            "user-name",
            "user_name",
            "auth_plugin",
            "tenant_name",
            "project_name",
            "auth-url",
        ]);
        let value = self.pick(TEXTS);
        let mut text = format!("[{group}]\n");
        if !section.is_empty() {
            writeln!(text, "auth_section = {section}\n[{section}]").expect("a text");
        }
        writeln!(
            text,
            "auth_type = {auth_type}\n{name} = {value}\npassword = {}",
            self.pick(TEXTS)
        )
        .expect("a text");
        text
    }

    fn case(&mut self, number: usize) -> Case {
        let mut case = Case {
            name: format!("case {number}"),
            ..Case::default()
        };
        for index in 0..self.random.usize(1..4) {
            let path = self.folder.join(format!("{number}-{index}.conf"));
            let mut text = self.text();
            if self.random.u8(..3) == 0 {
                text.push_str(&self.credentials());
            }
            std::fs::write(&path, &text).expect("a file");
            case.sources.push(Source::File(path));
        }
        if self.random.u8(..3) == 0 {
            let folder = self.folder.join(format!("{number}.d"));
            std::fs::create_dir(&folder).expect("a folder");
            for name in ["10-b.conf", "9-a.conf", "a.conf.off"]
                .iter()
                .take(self.random.usize(1..4))
            {
                std::fs::write(folder.join(name), self.text()).expect("a file");
            }
            case.sources.push(Source::Folder(folder));
        }
        for _ in 0..self.random.usize(..4) {
            let (group, options) = self.pick(schema::GROUPS);
            let option = self.pick(options);
            let value = self.value(option.kind).to_owned();
            let name = format!(
                "OS_{}__{}",
                group.to_uppercase(),
                option.name.to_uppercase()
            );
            case.environment.insert(name, value);
        }
        case
    }
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

/// How the value of an option becomes that of a key.
#[derive(Clone, Copy)]
enum Becomes {
    Same,
    /// Within these bounds.
    Within(i64, i64),
    /// Whether notifications are among the stages.
    Notifier,
    /// One key of several.
    OneOf,
}

const LONGEST_SECS: i64 = 100 * 366 * 86_400;

/// Options that are carried over, and their keys.
const CARRIED: &[(&str, &str, &str, Becomes)] = &[
    ("DEFAULT", "admin_mode", "access.admin_api", Becomes::Same),
    (
        "DEFAULT",
        "enable_checksum",
        "messages.checksums",
        Becomes::Same,
    ),
    (
        "transport",
        "message_delete_with_claim_id",
        "messages.delete_with_claim_ids",
        Becomes::Same,
    ),
    (
        "transport",
        "message_encryption_key",
        "messages.encryption_keys",
        Becomes::OneOf,
    ),
    (
        "transport",
        "client_id_uuid_safe",
        "access.client_id",
        Becomes::Same,
    ),
    (
        "transport",
        "subscriber_types",
        "notifications.subscriber_types",
        Becomes::Same,
    ),
    (
        "transport",
        "default_message_ttl",
        "limits.default_message_ttl",
        Becomes::Within(1, LONGEST_SECS),
    ),
    (
        "transport",
        "default_message_delay",
        "limits.default_message_delay",
        Becomes::Within(0, LONGEST_SECS),
    ),
    (
        "transport",
        "default_claim_ttl",
        "limits.default_claim_ttl",
        Becomes::Within(1, LONGEST_SECS),
    ),
    (
        "transport",
        "default_claim_grace",
        "limits.default_claim_grace",
        Becomes::Within(1, LONGEST_SECS),
    ),
    (
        "transport",
        "default_subscription_ttl",
        "limits.default_subscription_ttl",
        Becomes::Within(60, LONGEST_SECS),
    ),
    (
        "transport",
        "max_queues_per_page",
        "limits.max_queues_per_page",
        Becomes::Within(1, i64::MAX),
    ),
    (
        "transport",
        "max_messages_per_page",
        "limits.max_messages_per_page",
        Becomes::Within(1, i64::MAX),
    ),
    (
        "transport",
        "max_subscriptions_per_page",
        "limits.max_subscriptions_per_page",
        Becomes::Within(1, i64::MAX),
    ),
    (
        "transport",
        "max_messages_per_claim_or_pop",
        "limits.max_messages_per_claim_or_pop",
        Becomes::Within(1, i64::MAX),
    ),
    (
        "transport",
        "max_pools_per_page",
        "limits.max_pools_per_page",
        Becomes::Within(1, i64::MAX),
    ),
    (
        "transport",
        "max_flavors_per_page",
        "limits.max_flavors_per_page",
        Becomes::Within(1, i64::MAX),
    ),
    (
        "transport",
        "max_queue_metadata",
        "limits.max_queue_metadata",
        Becomes::Within(1, i64::MAX),
    ),
    (
        "transport",
        "max_messages_post_size",
        "limits.max_messages_post_size",
        Becomes::Within(1, i64::MAX),
    ),
    (
        "transport",
        "max_message_ttl",
        "limits.max_message_ttl",
        Becomes::Within(60, LONGEST_SECS),
    ),
    (
        "transport",
        "max_message_delay",
        "limits.max_message_delay",
        Becomes::Within(0, LONGEST_SECS),
    ),
    (
        "transport",
        "max_claim_ttl",
        "limits.max_claim_ttl",
        Becomes::Within(60, LONGEST_SECS),
    ),
    (
        "transport",
        "max_claim_grace",
        "limits.max_claim_grace",
        Becomes::Within(60, LONGEST_SECS),
    ),
    (
        "storage",
        "message_pipeline",
        "notifications.enabled",
        Becomes::Notifier,
    ),
    (
        "notification",
        "require_confirmation",
        "notifications.require_confirmation",
        Becomes::Same,
    ),
    (
        "notification",
        "external_confirmation_url",
        "notifications.external_confirmation_url",
        Becomes::Same,
    ),
    (
        "notification",
        "smtp_command",
        "notifications.mail.command",
        Becomes::Same,
    ),
    (
        "signed_url",
        "secret_key",
        "signed_url.secret_key",
        Becomes::Same,
    ),
    (
        "cors",
        "allowed_origin",
        "cors.allowed_origins",
        Becomes::Same,
    ),
    (
        "cors",
        "expose_headers",
        "cors.expose_headers",
        Becomes::Same,
    ),
    ("cors", "allow_methods", "cors.allow_methods", Becomes::Same),
    ("cors", "allow_headers", "cors.allow_headers", Becomes::Same),
    (
        "cors",
        "max_age",
        "cors.max_age_secs",
        Becomes::Within(0, i64::MAX),
    ),
];

const SOUND: &[&str] = &[
    "plain",
    "two words",
    "\"quoted\"",
    "a=b:c # d",
    "pa$$ss\\$x",
    "$",
    "$9",
    "${",
    "${debug}",
    "$auth_strategy.",
    "é ü",
    "${transport.max_claim_ttl}x",
    "$cors.allow_methods",
    "a\\b\"c'd",
    "",
];
const SOUND_NUMBERS: &[&str] = &[
    "0",
    "1",
    "59",
    "60",
    "61",
    "-7",
    "1_000",
    " 3600 ",
    "$max_queue_metadata",
    "99999999999",
    "",
];
const SOUND_WORDS: &[&str] = &["true", "YES", "on", "1", "False", "no", "'off'", "0"];
const SOUND_LISTS: &[&str] = &[
    "a,b",
    "zaqar.notification.notifier",
    "x, zaqar.notification.notifier",
    ",",
    "https://a:1,https://b",
    "\"http\",mailto",
];

/// A file of values that are all right, of options that are carried over.
fn sound_file(random: &mut fastrand::Rng) -> String {
    let mut pick = |from: &[&'static str]| from[random.usize(..from.len())];
    let mut text = String::from("[drivers]\nmessage_store = redis\nmanagement_store = redis\n");
    for (group, name, _, _) in CARRIED {
        if pick(&["set", "set", "not"]) == "not" {
            continue;
        }
        let option = schema::group(group)
            .and_then(|options| options.iter().find(|option| option.name == *name));
        let value = match option.expect("an option").kind {
            Kind::Bool => pick(SOUND_WORDS),
            Kind::Int(..) => pick(SOUND_NUMBERS),
            Kind::List => pick(SOUND_LISTS),
            Kind::Choice(choices) => pick(choices),
            _ => pick(SOUND),
        };
        writeln!(text, "[{group}]\n{name} = {value}").expect("a text");
    }
    text
}

#[test]
fn the_configuration_has_the_values_that_the_reference_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut random = fastrand::Rng::with_seed(5);
    let cases: Vec<Case> = (0..200)
        .map(|number| {
            let path = folder.path().join(format!("{number}.conf"));
            std::fs::write(&path, sound_file(&mut random)).expect("a file");
            Case {
                name: number.to_string(),
                sources: vec![Source::File(path)],
                environment: BTreeMap::new(),
            }
        })
        .collect();
    let requests: Vec<Json> = cases.iter().map(Case::request).collect();
    let answers = reference("read", &Json::Array(requests));
    let keys =
        std::fs::read_to_string(root().join("config/default.toml")).expect("the server's keys");
    let defaults = Figment::from(Toml::string(PLANNED)).merge(Toml::string(&keys));
    let server = Server {
        defaults: &keys,
        operations: &[],
        check_policies: |_| Ok(()),
        check_store: |_| Ok(()),
    };
    let mut compared = 0;
    for (case, answer) in cases.iter().zip(answers.as_array().expect("answers")) {
        let reader = case.read().expect("files");
        let Ok(mapped) = mapping::map(&reader, server, &mapping::Decisions::default()) else {
            // A value may refer to one that is of no use to it.
            continue;
        };
        let written = mapped.document.render(&[], Secrets::Inline);
        let effective = defaults.clone().merge(Toml::string(&written));
        for (group, name, path, becomes) in CARRIED {
            let theirs = &answer["values"][group][name]["value"];
            let default: Json = defaults.extract_inner(path).expect("a key");
            let expected = expected(theirs, *becomes, &default);
            let ours: Json = effective.extract_inner(path).expect("a key");
            assert_eq!(
                ours, expected,
                "{} [{group}] {name}: {theirs}\n{written}",
                case.name
            );
            compared += 1;
        }
    }
    println!("{compared} keys");
    assert!(compared > 3000, "{compared}");
}

/// What a key has to be where the reference reads this.
fn expected(theirs: &Json, becomes: Becomes, default: &Json) -> Json {
    match (becomes, theirs) {
        // Where there is no value, the default stays.
        (_, Json::Null) => default.clone(),
        (Becomes::Same | Becomes::OneOf, Json::String(text)) if text.is_empty() => default.clone(),
        (Becomes::OneOf, theirs) => json!([theirs]),
        (Becomes::Within(least, most), theirs) => {
            json!(theirs.as_i64().expect("a number").clamp(least, most))
        }
        (Becomes::Notifier, theirs) => {
            let stages = theirs.as_array().expect("stages");
            json!(
                stages
                    .iter()
                    .any(|stage| stage == "zaqar.notification.notifier")
            )
        }
        (Becomes::Same, theirs) => theirs.clone(),
    }
}
