//! What becomes of each option (spec: zaqar-conf.md 2).
//!
//! One file a subject. Each takes the options that it knows from a [`Mapper`], which remembers them: what is set and was not
//! taken means nothing here, or is unknown ([`not_needed`]).

mod api;
mod credentials;
mod keystone;
mod not_needed;
mod notifications;
mod policies;
pub(super) use self::policies::KEY as POLICY_KEY;
mod stores;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::document::{Document, Secrets, Setting as Written};
use super::reader::{Fault, Origin, PLACEHOLDER, Reader, Setting};
use super::report::{Kind, Report};
use super::value::Value;

/// What the import has to know of the server that it writes for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Server<'a> {
    /// All keys with their defaults, as TOML.
    pub(crate) defaults: &'a str,
    /// The operations that policies can be about.
    pub(crate) operations: &'a [&'a str],
    /// Refuses a text of policies that the server cannot use, with a sentence.
    pub(crate) check_policies: fn(&str) -> Result<(), String>,
    /// Refuses a URI of a store that the server cannot use, with a sentence that shows no secret.
    pub(crate) check_store: fn(&str) -> Result<(), String>,
    /// Refuses the text of a configuration that the server cannot use, with a sentence that shows no secret.
    pub(crate) check: fn(&str) -> Result<(), String>,
}

/// What the operator decides.
#[derive(Debug, Clone, Default)]
pub(super) struct Decisions {
    /// The URI of the store, instead of the one that the files name.
    pub(super) store: Option<String>,
    /// The URI of the management store.
    pub(super) management: Option<String>,
    /// Where files are looked for that an option names without a folder.
    pub(super) folders: Vec<PathBuf>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) document: Document,
    pub(super) report: Report,
    /// The text of a file of policies, where one is needed.
    pub(super) policies: Option<String>,
    /// What to do next, a command each.
    pub(super) next: Vec<String>,
}

/// An option that was looked up.
#[derive(Debug, Clone)]
struct Taken {
    group: String,
    name: &'static str,
    value: Value,
    origin: Origin,
}

impl Taken {
    fn is_set(&self) -> bool {
        self.origin != Origin::Default
    }

    fn subject(&self) -> String {
        format!("[{}] {}", self.group, self.name)
    }

    /// A text that is not empty.
    fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    fn is_true(&self) -> bool {
        self.value == Value::Bool(true)
    }

    fn int(&self) -> Option<i64> {
        match self.value {
            Value::Int(number) => Some(number),
            _ => None,
        }
    }

    fn list(&self) -> Option<Vec<String>> {
        match &self.value {
            Value::List(items) => Some(items.clone()),
            _ => None,
        }
    }

    fn pair(&self, key: &str) -> Option<&str> {
        match &self.value {
            Value::Map(pairs) => pairs
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value.as_str()),
            _ => None,
        }
    }
}

/// Translates options, and keeps what came of it.
struct Mapper<'a> {
    reader: &'a Reader,
    server: Server<'a>,
    decisions: &'a Decisions,
    document: Document,
    report: Report,
    faults: Vec<Fault>,
    taken: BTreeSet<(String, &'static str)>,
    policies: Option<String>,
    next: Vec<String>,
}

/// Translates everything that is set.
///
/// # Errors
///
/// Values that Zaqar cannot use either: every one, with its place.
pub(super) fn map(
    reader: &Reader,
    server: Server<'_>,
    decisions: &Decisions,
) -> Result<Mapped, Vec<Fault>> {
    let mut mapper = Mapper {
        reader,
        server,
        decisions,
        document: Document::new(server.defaults),
        report: Report::default(),
        faults: reader.refused(),
        taken: BTreeSet::new(),
        policies: None,
        next: Vec::new(),
    };
    mapper.placeholders();
    mapper.former_names();
    mapper.api();
    mapper.stores();
    mapper.keystone();
    mapper.notifications();
    mapper.policies();
    mapper.not_needed();
    mapper.check_result();
    let Mapper {
        document,
        report,
        mut faults,
        policies,
        next,
        ..
    } = mapper;
    if faults.is_empty() {
        return Ok(Mapped {
            document,
            report,
            policies,
            next,
        });
    }
    let mut seen = Vec::new();
    faults.retain(|fault| {
        let is_new = !seen.contains(fault);
        seen.push(fault.clone());
        is_new
    });
    Err(faults)
}

/// Says that a number is beyond the server's bounds, where it is.
fn beyond(number: i64, bounds: &RangeInclusive<i64>) -> Option<String> {
    let (least, most) = (bounds.start(), bounds.end());
    if number < *least {
        return Some(format!("it was {number}, and {least} is the least here"));
    }
    (number > *most).then(|| format!("it was {number}, and {most} is the most here"))
}

fn clamped(number: i64, bounds: &RangeInclusive<i64>) -> i64 {
    number.clamp(*bounds.start(), *bounds.end())
}

impl Mapper<'_> {
    /// Looks an option up. A value that is wrong counts as none, and ends the import later.
    fn take(&mut self, group: &str, name: &'static str) -> Taken {
        self.taken.insert((group.to_owned(), name));
        let (value, origin) = match self.reader.get(group, name) {
            Ok(Setting { value, origin, .. }) => (value, origin),
            // An option that only another plugin has.
            Err(_) if self.reader.find(group, name).is_none() => (Value::Unset, Origin::Default),
            Err(fault) => {
                let origin = fault.origin.clone();
                self.faults.push(fault);
                (Value::Unset, origin)
            }
        };
        Taken {
            group: group.to_owned(),
            name,
            value,
            origin,
        }
    }

    fn comments(taken: &Taken, why: Option<&str>) -> Vec<String> {
        let from = match &taken.origin {
            Origin::Default => format!("{} is not set; its default there.", taken.subject()),
            origin => format!("{}, {origin}", taken.subject()),
        };
        let why = why.map(|why| format!("Changed: {why}."));
        std::iter::once(from).chain(why).collect()
    }

    /// Reports whether the server has a key. Where it has none, an option that is set is left.
    fn supports(&mut self, taken: &Taken, path: &'static str) -> bool {
        let is_supported = self.document.supports(path);
        if !is_supported && taken.is_set() {
            self.left(taken, format!("this version has no {path}"));
        }
        is_supported
    }

    /// Writes a key that means what the option means.
    fn carry(&mut self, taken: &Taken, path: &'static str, value: impl Into<Written>) {
        if !self.supports(taken, path) {
            return;
        }
        let is_written = self
            .document
            .set(path, value.into(), Self::comments(taken, None));
        if is_written || taken.is_set() {
            let default = if is_written { "" } else { ", with its default" };
            self.row(Kind::Carried, taken, format!("{path}{default}"));
        }
    }

    /// Writes a key that means something else than the option, or has another value.
    fn change(&mut self, taken: &Taken, path: &'static str, value: impl Into<Written>, why: &str) {
        if !self.supports(taken, path) {
            return;
        }
        let value = value.into();
        let is_written = self
            .document
            .set(path, value.clone(), Self::comments(taken, Some(why)));
        let default = if is_written { "" } else { " (the default)" };
        self.row(
            Kind::Changed,
            taken,
            format!("{path} = {value}{default}: {why}"),
        );
    }

    /// Writes a key whose value is a secret.
    fn secret(
        &mut self,
        taken: &Taken,
        path: &'static str,
        value: impl Into<Written>,
        why: Option<&str>,
    ) {
        if !self.supports(taken, path) {
            return;
        }
        self.document
            .set_secret(path, value.into(), Self::comments(taken, why));
        match why {
            None => self.row(Kind::Carried, taken, format!("{path}, a secret")),
            Some(why) => self.row(Kind::Changed, taken, format!("{path}, a secret: {why}")),
        }
    }

    /// Carries a text, where there is one.
    fn carry_text(&mut self, group: &str, name: &'static str, path: &'static str) {
        let taken = self.take(group, name);
        if let Some(text) = taken.text().map(str::to_owned) {
            self.carry(&taken, path, text);
        }
    }

    /// Writes a number that is within the server's bounds; what is beyond them becomes the bound.
    fn carry_within(
        &mut self,
        taken: &Taken,
        path: &'static str,
        number: i64,
        bounds: &RangeInclusive<i64>,
    ) {
        match beyond(number, bounds) {
            None => self.carry(taken, path, number),
            Some(why) => self.change(taken, path, clamped(number, bounds), &why),
        }
    }

    /// Asks the server whether it accepts what is written, and leaves what it refuses.
    fn check_result(&mut self) {
        let text = self.document.render(&[], Secrets::Inline);
        if let Err(reason) = (self.server.check)(&text) {
            let why = format!("the server refuses it: {reason}");
            self.report
                .add(Kind::Left, "the configuration".to_owned(), None, why);
        }
    }

    fn left(&mut self, taken: &Taken, why: impl Into<String>) {
        self.row(Kind::Left, taken, why.into());
    }

    /// Says what is different, where nothing is written for it.
    fn differs(&mut self, taken: &Taken, why: impl Into<String>) {
        self.row(Kind::Changed, taken, why.into());
    }

    /// Says why an option means nothing here, where it is set.
    fn ignore(&mut self, taken: &Taken, why: impl Into<String>) {
        if taken.is_set() {
            self.row(Kind::NotNeeded, taken, why.into());
        }
    }

    fn row(&mut self, kind: Kind, taken: &Taken, sentence: String) {
        self.report
            .add(kind, taken.subject(), Some(taken.origin.clone()), sentence);
    }

    /// Names what deployment tools left open.
    fn placeholders(&mut self) {
        for each in self
            .reader
            .assigned()
            .filter(|each| each.value == PLACEHOLDER)
        {
            self.report.add(
                Kind::NotNeeded,
                format!("[{}] {}", each.group, each.key),
                Some(each.origin),
                format!("'{PLACEHOLDER}' of a deployment tool is taken for not set"),
            );
        }
    }

    /// Names options that are written under a former name.
    fn former_names(&mut self) {
        let groups: Vec<String> = self.reader.groups().map(str::to_owned).collect();
        for group in groups {
            let names: Vec<&'static str> = self
                .reader
                .options(&group)
                .map(|option| option.name)
                .collect();
            for name in names {
                let Ok(setting) = self.reader.get(&group, name) else {
                    continue;
                };
                if let Some(former) = setting.former {
                    self.report.note(format!(
                        "[{group}] {former} ({}) is read as {name}, its name today",
                        setting.origin
                    ));
                }
            }
        }
    }
}
