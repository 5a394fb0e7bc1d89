//! Policies: the files that Zaqar reads, merged into one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::super::reader::{Fault, Origin};
use super::{Kind, Mapper, Taken};

const GROUP: &str = "oslo_policy";

/// The name that older releases have for their file.
const FORMER_FILE: &str = "policy.json";

/// The key that names the file of policies; its value is known when the file is written.
pub(in super::super) const KEY: &str = "access.policy_file";

/// Rules of all files, each with the file that it is from.
type Rules = BTreeMap<String, (Json, PathBuf)>;

impl Mapper<'_> {
    pub(super) fn policies(&mut self) {
        let mut rules = Rules::new();
        let file = self.take(GROUP, "policy_file");
        if let Some(path) = self.policy_file(&file) {
            self.read_rules(&file, &path, &mut rules);
        }
        let folders = self.take(GROUP, "policy_dirs");
        for name in folders.list().unwrap_or_default() {
            let found = self.locate(&name);
            match found.filter(|path| path.is_dir()) {
                Some(folder) => self.read_folder(&folders, &folder, &mut rules),
                None if folders.is_set() => self.ignore(&folders, format!("{name} does not exist")),
                None => {}
            }
        }
        self.write_policies(&file, &rules);
        let taken = self.take(GROUP, "policy_default_rule");
        if taken.text().is_some_and(|rule| rule != "default") {
            self.differs(
                &taken,
                "every operation has a rule of its own, so that no default rule is asked",
            );
        } else {
            self.ignore(&taken, "every operation has a rule of its own");
        }
        let taken = self.take(GROUP, "enforce_new_defaults");
        self.ignore(&taken, "no default has changed");
    }

    fn policy_file(&mut self, file: &Taken) -> Option<PathBuf> {
        let name = file.text()?.to_owned();
        if let Some(path) = self.locate(&name) {
            return Some(path);
        }
        if file.is_set() {
            let why = format!(
                "{name} was not found, and its rules are missing; put it beside the files that are read"
            );
            self.left(file, why);
            return None;
        }
        let path = self.locate(FORMER_FILE)?;
        self.differs(
            file,
            format!(
                "{} is read, which only older releases do by themselves",
                path.display()
            ),
        );
        Some(path)
    }

    /// Finds a file as Zaqar does: an absolute path, or beside the files that were read.
    fn locate(&self, name: &str) -> Option<PathBuf> {
        let given = self.decisions.folders.iter();
        let paths = given.map(|folder| folder.join(name));
        let beside = self.reader.folders().map(|folder| folder.join(name));
        paths.chain(beside).find(|path| path.exists())
    }

    fn read_folder(&mut self, taken: &Taken, folder: &Path, rules: &mut Rules) {
        let listed = std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let entries = match listed {
            Ok(entries) => entries,
            Err(error) => return self.unreadable(taken, folder, &error.to_string()),
        };
        let is_hidden = |path: &Path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with('.'))
        };
        let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
        paths.retain(|path| path.is_file() && !is_hidden(path));
        paths.sort();
        for path in paths {
            self.read_rules(taken, &path, rules);
        }
    }

    fn read_rules(&mut self, taken: &Taken, path: &Path, rules: &mut Rules) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.unreadable(taken, path, &error.to_string()),
        };
        let options = serde_saphyr::options! { with_snippet: false };
        let read: Result<Option<BTreeMap<String, Json>>, _> =
            serde_saphyr::from_str_with_options(&text, options);
        match read {
            Ok(read) => {
                let own = |(name, rule)| (name, (rule, path.to_owned()));
                rules.extend(read.unwrap_or_default().into_iter().map(own));
            }
            Err(error) => self.unreadable(taken, path, &error.to_string().replace('\n', " ")),
        }
    }

    fn unreadable(&mut self, taken: &Taken, path: &Path, reason: &str) {
        self.faults.push(Fault {
            group: taken.group.clone(),
            option: taken.name.to_owned(),
            origin: taken.origin.clone(),
            reason: format!("{} cannot be read: {reason}", path.display()),
        });
    }

    /// Rules of operations that the server does not have stay as comments.
    fn write_policies(&mut self, file: &Taken, rules: &Rules) {
        if rules.is_empty() {
            return;
        }
        let mut text = String::new();
        let mut last: Option<&PathBuf> = None;
        for (name, (rule, path)) in rules {
            if last != Some(path) {
                text.push_str(&format!("# {}\n", path.display()));
                last = Some(path);
            }
            let is_known = !name.contains(':') || self.server.operations.contains(&name.as_str());
            let written = format!("{}: {rule}\n", Json::from(name.as_str()));
            if !is_known {
                text.push_str("# No such operation: ");
                let origin = Some(Origin::File(path.clone(), 0));
                self.report.add(
                    Kind::Unknown,
                    format!("policy {name}"),
                    origin,
                    "there is no such operation",
                );
            }
            text.push_str(&written);
        }
        self.report.add(
            Kind::Carried,
            file.subject(),
            Some(file.origin.clone()),
            format!("{} rules, in the file that {KEY} names", rules.len()),
        );
        if let Err(reason) = (self.server.check_policies)(&text) {
            self.left(file, format!("the server refuses these rules: {reason}"));
        }
        self.policies = Some(text);
    }
}
