//! The value of an option: which assignment counts, and what it refers to (spec: zaqar-conf.md 1).
//!
//! The environment wins over all files, a later file over an earlier one, and the last assignment of a file over those
//! before it. A former name of an option counts like its name: in a later file it wins, in the same file it loses.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::ini::{File, normalized};
use super::schema::{self, AUTH, Opt, Unassigned};
use super::value::{Kind, Value};

/// What deployment tools leave in a file for an option that they do not set.
pub(super) const PLACEHOLDER: &str = "<SERVICE DEFAULT>";

/// Options of `[DEFAULT]` that the command line of the reference has, too.
const COMMAND_LINE: [&str; 11] = [
    "admin_mode",
    "daemon",
    "debug",
    "log_config_append",
    "log_date_format",
    "log_dir",
    "log_file",
    "syslog_log_facility",
    "use_journal",
    "use_json",
    "use_syslog",
];

/// Where a value is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nowhere.
    Default,
    /// In a file, in this line; 0 for the file as a whole.
    File(PathBuf, usize),
    /// The environment variable of this name.
    Environment(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, 0) => write!(f, "{}", path.display()),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// The value of an option.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Setting {
    pub(super) value: Value,
    pub(super) origin: Origin,
    /// The name under which it was found, where that is a former one.
    pub(super) former: Option<&'static str>,
}

/// A value that the reference cannot use either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) group: String,
    pub(super) option: String,
    pub(super) origin: Origin,
    pub(super) reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: [{}] {}: {}",
            self.origin, self.group, self.option, self.reason
        )
    }
}

/// A text that sets something, before it is anything else than a text.
#[derive(Debug, Clone)]
pub(super) struct Assigned {
    pub(super) group: String,
    pub(super) key: String,
    pub(super) value: String,
    pub(super) origin: Origin,
}

/// Files and an environment, as the reference sees them.
#[derive(Debug)]
pub(super) struct Reader {
    /// In the order in which they are read.
    files: Vec<File>,
    environment: BTreeMap<String, String>,
    /// Options that groups have because an authentication plugin is named, by group.
    of_plugins: BTreeMap<String, Vec<Opt>>,
}

/// The texts that were found for an option.
struct Found {
    texts: Vec<String>,
    origin: Origin,
    former: Option<&'static str>,
}

impl Reader {
    /// Takes files in the order in which the service reads them, and the service's environment.
    pub(super) fn new(files: Vec<File>, environment: BTreeMap<String, String>) -> Self {
        let mut reader = Self {
            files,
            environment,
            of_plugins: BTreeMap::new(),
        };
        for group in ["keystone_authtoken", "trustee"] {
            reader.load_plugin(group);
        }
        reader
    }

    /// The group that has the credentials of a group: itself, or the one that its `auth_section` names.
    pub(super) fn auth_group(&self, group: &str) -> String {
        match self.get(group, "auth_section").map(|setting| setting.value) {
            Ok(Value::Text(section)) if !section.is_empty() => section,
            _ => group.to_owned(),
        }
    }

    fn load_plugin(&mut self, group: &str) {
        let section = self.auth_group(group);
        self.register(&section, AUTH);
        if let Ok(Value::Text(auth_type)) =
            self.get(&section, "auth_type").map(|setting| setting.value)
            && let Some(options) = schema::plugin(&auth_type)
        {
            self.register(&section, options);
        }
    }

    fn register(&mut self, group: &str, options: &[Opt]) {
        let new: Vec<Opt> = options
            .iter()
            .filter(|option| self.find(group, option.name).is_none())
            .copied()
            .collect();
        self.of_plugins
            .entry(group.to_owned())
            .or_default()
            .extend(new);
    }

    fn is_group(&self, group: &str) -> bool {
        group != "DEFAULT"
            && (schema::group(group).is_some() || self.of_plugins.contains_key(group))
    }

    /// The options of a group.
    pub(super) fn options(&self, group: &str) -> impl Iterator<Item = &Opt> {
        let fixed = schema::group(group).unwrap_or_default().iter();
        fixed.chain(self.of_plugins.get(group).into_iter().flatten())
    }

    /// An option by its name.
    pub(super) fn find(&self, group: &str, name: &str) -> Option<&Opt> {
        self.options(group).find(|option| option.name == name)
    }

    /// Groups that have options.
    pub(super) fn groups(&self) -> impl Iterator<Item = &str> {
        let fixed = schema::GROUPS.iter().map(|(name, _)| *name);
        let of_plugins = self.of_plugins.keys().map(String::as_str);
        fixed.chain(of_plugins.filter(|name| schema::group(name).is_none()))
    }

    /// The option that an assignment is for, by its name or a former one.
    pub(super) fn option_of(&self, assigned: &Assigned) -> Option<(&str, &Opt)> {
        self.groups()
            .filter(|group| normalized(group) == normalized(&assigned.group))
            .flat_map(|group| self.options(group).map(move |option| (group, option)))
            .find(|(_, option)| {
                option.name == assigned.key || option.former.contains(&assigned.key.as_str())
            })
    }

    /// Everything that files and the environment set, in the order in which it is read.
    pub(super) fn assigned(&self) -> impl Iterator<Item = Assigned> {
        let in_files = self.files.iter().flat_map(|file| {
            file.assignments.iter().map(|each| Assigned {
                group: each.written_group.clone(),
                key: each.key.clone(),
                value: each.value.clone(),
                origin: Origin::File(file.path.clone(), each.line),
            })
        });
        let in_environment = self.environment.iter().filter_map(|(name, value)| {
            let (group, key) = name.strip_prefix("OS_")?.split_once("__")?;
            let group = match group {
                "DEFAULT" => group.to_owned(),
                group => group.to_lowercase(),
            };
            Some(Assigned {
                group,
                key: key.to_lowercase(),
                value: value.clone(),
                origin: Origin::Environment(name.clone()),
            })
        });
        in_files.chain(in_environment)
    }

    /// What a group sets that has no table of options, by key: the last assignment.
    pub(super) fn text(&self, group: &str, key: &str) -> Option<Assigned> {
        self.assigned()
            .filter(|each| normalized(&each.group) == normalized(group) && each.key == key)
            .filter(|each| each.value != PLACEHOLDER)
            .last()
    }

    /// Folders in which files are looked for that an option names without a folder: that of each file, the last one first.
    pub(super) fn folders(&self) -> impl Iterator<Item = &Path> {
        self.files
            .iter()
            .rev()
            .filter_map(|file| file.path.parent())
    }

    /// Looks an option up.
    ///
    /// # Errors
    ///
    /// The text is no value of the option's type, or refers to an option that does not exist, or to itself.
    pub(super) fn get(&self, group: &str, name: &str) -> Result<Setting, Fault> {
        self.look_up(group, name, &mut Vec::new())
    }

    /// What the reference refuses when it reads the files, before any option is used: wrong values of options that its
    /// command line has, also where the environment has another value.
    pub(super) fn refused(&self) -> Vec<Fault> {
        let options = COMMAND_LINE
            .iter()
            .filter_map(|name| self.find("DEFAULT", name));
        options
            .filter_map(|option| {
                let found = self.in_files("DEFAULT", option)?;
                let converted = self.convert("DEFAULT", option, &found.texts, &mut Vec::new());
                converted.err().map(|reason| Fault {
                    group: "DEFAULT".to_owned(),
                    option: option.name.to_owned(),
                    origin: found.origin,
                    reason,
                })
            })
            .collect()
    }

    fn look_up(
        &self,
        group: &str,
        name: &str,
        path: &mut Vec<(String, String)>,
    ) -> Result<Setting, Fault> {
        let fault = |origin: Origin, reason: String| Fault {
            group: group.to_owned(),
            option: name.to_owned(),
            origin,
            reason,
        };
        let Some(option) = self.find(group, name) else {
            return Err(fault(Origin::Default, "there is no such option".to_owned()));
        };
        let found = self.found(group, option);
        let origin = found
            .as_ref()
            .map_or(Origin::Default, |found| found.origin.clone());
        let here = (group.to_owned(), name.to_owned());
        if path.contains(&here) {
            return Err(fault(origin, "it refers to itself".to_owned()));
        }
        path.push(here);
        let former = found.as_ref().and_then(|found| found.former);
        let value = match found {
            Some(found) => self
                .convert(group, option, &found.texts, path)
                .map(|value| taken_apart(option, &found, value)),
            None => self.default_of(group, option, path),
        };
        path.pop();
        let value = value.map_err(|reason| fault(origin.clone(), reason))?;
        Ok(Setting {
            value,
            origin,
            former,
        })
    }

    fn convert(
        &self,
        group: &str,
        option: &Opt,
        texts: &[String],
        path: &mut Vec<(String, String)>,
    ) -> Result<Value, String> {
        let mut filled = |text: &String| self.substitute(group, option, text, path);
        match (option.kind, texts) {
            (Kind::Multi, _) => texts
                .iter()
                .map(filled)
                .collect::<Result<_, _>>()
                .map(Value::List),
            (kind, [.., last]) => kind.convert(&filled(last)?),
            (_, []) => Ok(Value::Unset),
        }
    }

    fn default_of(
        &self,
        group: &str,
        option: &Opt,
        path: &mut Vec<(String, String)>,
    ) -> Result<Value, String> {
        match option.default {
            Unassigned::Unset => Ok(Value::Unset),
            Unassigned::Raw(text) => self.convert(group, option, &[text.to_owned()], path),
            Unassigned::Items(items) => Ok(Value::List(
                items.iter().map(|item| (*item).to_owned()).collect(),
            )),
            Unassigned::Pairs(pairs) => {
                let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
                Ok(Value::Map(pairs.iter().map(own).collect()))
            }
        }
    }

    /// The texts that count for an option.
    fn found(&self, group: &str, option: &Opt) -> Option<Found> {
        self.in_environment(group, option)
            .or_else(|| self.in_files(group, option))
    }

    fn in_environment(&self, group: &str, option: &Opt) -> Option<Found> {
        let variable = format!(
            "OS_{}__{}",
            group.to_uppercase(),
            option.name.to_uppercase()
        );
        let text = self.environment.get(&variable)?;
        (text != PLACEHOLDER).then(|| Found {
            texts: vec![text.clone()],
            origin: Origin::Environment(variable),
            former: None,
        })
    }

    fn in_files(&self, group: &str, option: &Opt) -> Option<Found> {
        let group = normalized(group);
        let names = std::iter::once(option.name).chain(option.former.iter().copied());
        let in_files = self
            .files
            .iter()
            .rev()
            .flat_map(|file| names.clone().map(move |name| (file, name)));
        let mut all: Option<Found> = None;
        for (file, name) in in_files {
            let matching = file.assignments.iter().filter(|each| {
                each.group == group && each.key == name && each.value != PLACEHOLDER
            });
            let matching: Vec<_> = matching.collect();
            let Some(last) = matching.last() else {
                continue;
            };
            let texts: Vec<String> = matching.iter().map(|each| each.value.clone()).collect();
            match &mut all {
                None => {
                    all = Some(Found {
                        texts,
                        origin: Origin::File(file.path.clone(), last.line),
                        former: (name != option.name).then_some(name),
                    });
                }
                Some(all) => all.texts.splice(0..0, texts).for_each(drop),
            }
            if option.kind != Kind::Multi {
                break;
            }
        }
        all
    }

    /// Puts values in the place of `$name`, `${name}`, `$group.name` and `${group.name}`; `$$` and `\$` are a dollar.
    fn substitute(
        &self,
        group: &str,
        option: &Opt,
        text: &str,
        path: &mut Vec<(String, String)>,
    ) -> Result<String, String> {
        let text = text.replace("\\$", "$$");
        let mut out = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            let behind = &rest[at + 1..];
            if let Some(after) = behind.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some((name, after)) = reference(behind) {
                out.push_str(&self.referred(group, option, name, path)?);
                rest = after;
            } else {
                out.push('$');
                rest = behind;
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    fn referred(
        &self,
        group: &str,
        option: &Opt,
        name: &str,
        path: &mut Vec<(String, String)>,
    ) -> Result<String, String> {
        let unknown = || match option.is_secret {
            true => {
                "it refers to an option that does not exist; a dollar is written '$$'".to_owned()
            }
            false => {
                format!("it refers to '${name}', which is no option; a dollar is written '$$'")
            }
        };
        let (group, name) = match name.split_once('.') {
            Some((group, name)) => (group, name),
            None => (group, name),
        };
        if group != "DEFAULT" && !self.is_group(group) {
            return Err(unknown());
        }
        // What the group does not have is looked for in DEFAULT.
        let (group, name) = [group, "DEFAULT"]
            .into_iter()
            .find_map(|group| Some((group, self.find(group, name)?.name)))
            .ok_or_else(unknown)?;
        let setting = self
            .look_up(group, name, path)
            .map_err(|fault| match option.is_secret {
                true => "it refers to an option whose value is wrong".to_owned(),
                false => format!(
                    "it refers to [{}] {}: {}",
                    fault.group, fault.option, fault.reason
                ),
            })?;
        Ok(setting.value.interpolated())
    }
}

/// A list of texts that the environment sets: the reference takes its one text apart into characters.
fn taken_apart(option: &Opt, found: &Found, value: Value) -> Value {
    match (option.kind, &found.origin, value) {
        (Kind::Multi, Origin::Environment(_), Value::List(texts)) => {
            Value::List(texts.concat().chars().map(String::from).collect())
        }
        (_, _, value) => value,
    }
}

/// Splits a reference, behind its dollar, into the name and the rest.
fn reference(behind: &str) -> Option<(&str, &str)> {
    let braced = behind.strip_prefix('{');
    let text = braced.unwrap_or(behind);
    let is_start = |character: char| character == '_' || character.is_ascii_alphabetic();
    if !text.starts_with(is_start) {
        return None;
    }
    let is_part =
        |character: char| character == '.' || character == '_' || character.is_ascii_alphanumeric();
    let end = text
        .find(|character| !is_part(character))
        .unwrap_or(text.len());
    let (name, after) = text.split_at(end);
    match braced {
        Some(_) => Some((name, after.strip_prefix('}')?)),
        None => Some((name, after)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(texts: &[&str], environment: &[(&str, &str)]) -> Reader {
        let parse = |(index, text): (usize, &&str)| {
            File::parse(Path::new(&format!("{index}.conf")), text).expect("a file")
        };
        let files = texts.iter().enumerate().map(parse).collect();
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Reader::new(files, environment.iter().map(own).collect())
    }

    fn text(reader: &Reader, group: &str, name: &str) -> Result<String, String> {
        let setting = reader.get(group, name).map_err(|fault| fault.to_string())?;
        Ok(setting.value.interpolated())
    }

    #[test]
    fn the_last_assignment_of_the_last_file_counts_and_the_environment_before_all() {
        let one = "[signed_url]\nsecret_key = a\nsecret_key = b\n[Signed_URL]\nsecret_key = c";
        let two = "[signed_url]\nsecret_key = d";
        assert_eq!(
            text(&reader(&[one], &[]), "signed_url", "secret_key"),
            Ok("c".into())
        );
        assert_eq!(
            text(&reader(&[one, two], &[]), "signed_url", "secret_key"),
            Ok("d".into())
        );
        let read = reader(&[one, two], &[("OS_SIGNED_URL__SECRET_KEY", "e")]);
        assert_eq!(text(&read, "signed_url", "secret_key"), Ok("e".into()));
    }

    #[test]
    fn a_former_name_wins_in_a_later_file_and_loses_in_the_same() {
        let both = "[drivers]\nmessage_store = redis\nstorage = mongodb";
        assert_eq!(
            text(&reader(&[both], &[]), "drivers", "message_store"),
            Ok("redis".into())
        );
        let (new, old) = (
            "[drivers]\nmessage_store = redis",
            "[drivers]\nstorage = mongodb",
        );
        assert_eq!(
            text(&reader(&[new, old], &[]), "drivers", "message_store"),
            Ok("mongodb".into())
        );
        assert_eq!(
            text(&reader(&[old, new], &[]), "drivers", "message_store"),
            Ok("redis".into())
        );
    }

    #[test]
    fn lists_of_assignments_keep_the_order_of_files() {
        let read = reader(
            &[
                "[oslo_policy]\npolicy_dirs = a\npolicy_dirs = b",
                "[oslo_policy]\npolicy_dirs = c",
            ],
            &[],
        );
        assert_eq!(
            text(&read, "oslo_policy", "policy_dirs"),
            Ok("['a', 'b', 'c']".into())
        );
    }

    #[test]
    fn references_are_replaced_and_two_dollars_are_one() {
        let read = reader(
            &[
                "[DEFAULT]\nauth_strategy = x\n[signed_url]\nsecret_key = $auth_strategy-${auth_strategy}y-$$z-\\$z-$ -$1-${a",
            ],
            &[],
        );
        assert_eq!(
            text(&read, "signed_url", "secret_key"),
            Ok("x-xy-$z-$z-$ -$1-${a".into())
        );
        let read = reader(
            &[
                "[notification]\nsmtp_host = mq\nsmtp_command = to $smtp_host ${transport.max_claim_ttl} $debug",
            ],
            &[],
        );
        assert_eq!(
            text(&read, "notification", "smtp_command"),
            Ok("to mq 43200 False".into())
        );
    }

    #[test]
    fn references_to_nothing_and_to_themselves_are_faults_and_secrets_stay_hidden() {
        let read = reader(
            &[
                "[notification]\nsmtp_command = $mail_tool\n[signed_url]\nsecret_key = pa$$word$hunter2",
            ],
            &[],
        );
        let fault = text(&read, "notification", "smtp_command").expect_err("no such option");
        assert!(
            fault.starts_with("0.conf:2: [notification] smtp_command"),
            "{fault}"
        );
        assert!(fault.contains("$mail_tool"), "{fault}");
        let fault = text(&read, "signed_url", "secret_key").expect_err("no such option");
        assert!(!fault.contains("hunter2"), "{fault}");
        let read = reader(&["[notification]\nsmtp_command = a $smtp_command"], &[]);
        assert!(text(&read, "notification", "smtp_command").is_err());
        let read = reader(
            &["[notification]\nsmtp_command = $drivers:message_store:redis.uri"],
            &[],
        );
        assert!(text(&read, "notification", "smtp_command").is_err());
    }

    #[test]
    fn placeholders_of_deployment_tools_set_nothing() {
        let read = reader(
            &[
                "[transport]\nmax_claim_ttl = 100",
                "[transport]\nmax_claim_ttl = <SERVICE DEFAULT>",
            ],
            &[],
        );
        assert_eq!(text(&read, "transport", "max_claim_ttl"), Ok("100".into()));
    }

    #[test]
    fn credentials_are_in_the_group_that_auth_section_names() {
        let read = reader(
            &[
                "[keystone_authtoken]\nauth_section = shared\n[shared]\nauth_type = v3password\nuser-name = zaqar\ntenant_name = x",
            ],
            &[],
        );
        assert_eq!(read.auth_group("keystone_authtoken"), "shared");
        assert_eq!(text(&read, "shared", "username"), Ok("zaqar".into()));
        assert!(read.find("shared", "project_name").is_some());
        assert!(read.find("keystone_authtoken", "username").is_none());
    }
}
