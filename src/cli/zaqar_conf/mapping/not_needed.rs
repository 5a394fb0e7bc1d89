//! What is set and means nothing here, or nothing anywhere.

use super::super::ini::normalized;
use super::{Kind, Mapper};

/// Options of Zaqar that mean nothing here, and why. An empty name is every other option of the group; the first
/// line that fits counts.
const REASONS: &[(&str, &str, &str)] = &[
    (
        "DEFAULT",
        "unreliable",
        "it relaxes MongoDB; what a store promises is said in its URI",
    ),
    (
        "DEFAULT",
        "enable_deprecated_api_versions",
        "there is one version of the API",
    ),
    ("DEFAULT", "daemon", "a service manager starts the server"),
    (
        "DEFAULT",
        "",
        "it is about the log of Zaqar; [log] says what is logged here",
    ),
    (
        "drivers:message_store:mongodb",
        "",
        "there is no driver for MongoDB",
    ),
    (
        "drivers:management_store:mongodb",
        "",
        "there is no driver for MongoDB",
    ),
    (
        "drivers:message_store:swift",
        "",
        "there is no driver for Swift",
    ),
    ("cache", "", "the server has caches of its own"),
    (
        "profiler",
        "",
        "there is no profiler; requests are traced by their id",
    ),
    ("profiler_jaeger", "", "there is no profiler"),
    ("profiler_otlp", "", "there is no profiler"),
    ("oslo_reports", "", "there are no reports of this kind"),
    ("oslo_concurrency", "", "the server needs no locks of files"),
    ("oslo_middleware", "", "Zaqar installs none of these stages"),
    (
        "oslo_policy",
        "",
        "rules that ask another service are not supported, and no rule of Zaqar does so",
    ),
    (
        "keystone_authtoken",
        "",
        "it is about the client of Keystone that Zaqar uses",
    ),
    (
        "trustee",
        "",
        "it is about the client of Keystone that Zaqar uses",
    ),
];

/// Groups that Zaqar has no options for and that deployment tools write, by how their names begin.
const FOREIGN_GROUPS: [&str; 9] = [
    "oslo_messaging",
    "oslo_middleware",
    "oslo_limit",
    "database",
    "healthcheck",
    "ssl",
    "composite:",
    "pipeline:",
    "filter:",
];

/// Options of `[DEFAULT]` that deployment tools write for every service.
const FOREIGN_OPTIONS: [&str; 7] = [
    "transport_url",
    "rpc_response_timeout",
    "rpc_backend",
    "notification_driver",
    "notification_topics",
    "control_exchange",
    "verbose",
];

impl Mapper<'_> {
    pub(super) fn not_needed(&mut self) {
        for each in self.reader.assigned().collect::<Vec<_>>() {
            let found = self
                .reader
                .option_of(&each)
                .map(|(group, option)| (group.to_owned(), option.name));
            let group = normalized(&each.group);
            let subject = format!("[{}] {}", each.group, each.key);
            if let Some((group, name)) = found {
                if self.taken.contains(&(group.clone(), name)) {
                    continue;
                }
                let why = REASONS
                    .iter()
                    .find(|(of, option, _)| *of == group && (option.is_empty() || *option == name));
                let why = why.map_or("it means nothing here", |(_, _, why)| why);
                self.report
                    .add(Kind::NotNeeded, subject, Some(each.origin), why);
            } else if group == "DEFAULT" && each.key == "config_source" {
                let why = "options of other sources are not read; put them into a file, and import \
                           that as well";
                self.report.add(Kind::Left, subject, Some(each.origin), why);
            } else if FOREIGN_GROUPS
                .iter()
                .any(|prefix| group.starts_with(prefix))
                || (group == "DEFAULT" && FOREIGN_OPTIONS.contains(&each.key.as_str()))
            {
                let why = "Zaqar does not use it either";
                self.report
                    .add(Kind::NotNeeded, subject, Some(each.origin), why);
            } else if !self.is_reported(&subject) && !group.starts_with("cors.") {
                let why = self.unknown(&group, &each.key);
                self.report
                    .add(Kind::Unknown, subject, Some(each.origin), why);
            }
        }
    }

    fn is_reported(&self, subject: &str) -> bool {
        self.report.has(subject)
    }

    fn unknown(&self, group: &str, key: &str) -> String {
        let other = key.replace('-', "_").to_lowercase();
        let is_misspelled = other != key && self.reader.find(group, &other).is_some();
        match (is_misspelled, group) {
            (true, _) => format!("Zaqar ignores it: it has to be written {other}"),
            (false, "default") => {
                "Zaqar ignores it: the group has to be written [DEFAULT]".to_owned()
            }
            _ => "Zaqar ignores it".to_owned(),
        }
    }
}
