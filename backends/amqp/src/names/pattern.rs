//! Patterns of names: texts with `{project}`, `{queue}` and `{name}` in them, and what can be read back from a name.
//!
//! A pattern for all queues is only good if no two queues come out as one, above all not those of two projects. So there
//! is something between project and queue that no project has in it: a project is percent-escaped.

use isimud_contract::{ProjectId, QueueKey, QueueName, globs_meet};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What a project keeps as it is, where something else than `-` and `_` sets it off.
const WIDE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// What the copies of messages without an id are kept in: the name of a queue, and this.
pub(crate) const COMPANION: &str = "~adopted";

/// A text with places in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    parts: Vec<Part>,
    /// Whether a project keeps its `-` and `_`.
    is_wide: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Project,
    Queue,
    Name,
}

impl Pattern {
    /// Reads a pattern; the error is the begin of a sentence.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        const OTHER: &str = "a pattern knows {project}, {queue} and {name}, and no other brace";
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            parts.push(Part::Text(before.into()));
            let (word, after) = after.split_once('}').ok_or(OTHER)?;
            parts.push(match word {
                "project" => Part::Project,
                "queue" => Part::Queue,
                "name" => Part::Name,
                _ => return Err(OTHER),
            });
            rest = after;
        }
        parts.push(Part::Text(rest.into()));
        if parts
            .iter()
            .any(|part| matches!(part, Part::Text(text) if text.contains('}')))
        {
            return Err(OTHER);
        }
        parts.retain(|part| *part != Part::Text(String::new()));
        let mut pattern = Self {
            parts,
            is_wide: true,
        };
        pattern.is_wide = pattern
            .between()
            .is_none_or(|text| text.chars().any(no_project_has));
        Ok(pattern)
    }

    /// The names that are made here: `PREFIX{project}.{queue}`.
    pub(crate) fn own(prefix: &str) -> Self {
        let text = |text: &str| Part::Text(text.to_owned());
        Self {
            parts: vec![text(prefix), Part::Project, text("."), Part::Queue],
            is_wide: true,
        }
    }

    /// The same for one queue alone.
    pub(crate) fn of_queue(&self, queue: &str) -> Self {
        let filled = |part: &Part| match part {
            Part::Queue => Part::Text(queue.to_owned()),
            other => other.clone(),
        };
        Self {
            parts: merged(self.parts.iter().map(filled)),
            is_wide: self.is_wide,
        }
    }

    /// Fills in a queue, and what it is called where that has a place.
    pub(crate) fn fill(&self, queue: &QueueKey, name: &str) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Queue => text.push_str(queue.name.as_str()),
                Part::Name => text.push_str(name),
                Part::Project => {
                    text.extend(utf8_percent_encode(queue.project.as_str(), self.kept()));
                }
            }
        }
        text
    }

    fn kept(&self) -> &'static AsciiSet {
        if self.is_wide { WIDE } else { NON_ALPHANUMERIC }
    }

    /// Whose name it is: project and queue, each if it has a place in the pattern. `None` if the pattern makes no such
    /// name.
    pub(crate) fn read(&self, name: &str) -> Option<(Option<ProjectId>, Option<QueueName>)> {
        let (first, second) = match self.places()?[..] {
            [] => return (self.text(&self.parts) == name).then_some((None, None)),
            [one] => (one, None),
            [one, two] => (one, Some(two)),
            _ => return None,
        };
        let last = second.unwrap_or(first);
        let inner = name
            .strip_prefix(&*self.text(&self.parts[..first]))?
            .strip_suffix(&*self.text(&self.parts[last + 1..]))?;
        let Some(second) = second else {
            return match self.parts[first] {
                Part::Project => Some((Some(self.read_project(inner)?), None)),
                _ => Some((None, Some(QueueName::parse_stored(inner).ok()?))),
            };
        };
        let between = self.text(&self.parts[first + 1..second]);
        let is_mark = |c| {
            if self.is_wide {
                no_project_has(c)
            } else {
                "-_".contains(c)
            }
        };
        let (project, queue) = match self.parts[first] {
            // Its first mark is the separator's first, for the project has none.
            Part::Project => {
                let start = inner.find(is_mark)?.checked_sub(between.find(is_mark)?)?;
                (
                    inner.get(..start)?,
                    inner.get(start..)?.strip_prefix(&*between)?,
                )
            }
            _ => {
                let start = inner.rfind(is_mark)?.checked_sub(between.rfind(is_mark)?)?;
                let rest = inner.get(start..)?.strip_prefix(&*between)?;
                (rest, inner.get(..start)?)
            }
        };
        let queue = QueueName::parse_stored(queue).ok()?;
        Some((Some(self.read_project(project)?), Some(queue)))
    }

    fn read_project(&self, text: &str) -> Option<ProjectId> {
        let project = percent_decode_str(text).decode_utf8().ok()?;
        let again = utf8_percent_encode(&project, self.kept()).to_string();
        (again == text).then(|| ProjectId::parse(&project).ok())?
    }

    /// Where project and queue are; `None` if there is a place for the name.
    fn places(&self) -> Option<Vec<usize>> {
        let mut places = Vec::new();
        for (at, part) in self.parts.iter().enumerate() {
            match part {
                Part::Text(_) => {}
                Part::Name => return None,
                Part::Project | Part::Queue => places.push(at),
            }
        }
        Some(places)
    }

    fn text(&self, parts: &[Part]) -> String {
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            _ => String::new(),
        };
        parts.iter().map(text).collect()
    }

    /// What stands between project and queue, where there are both.
    fn between(&self) -> Option<String> {
        let at = |wanted| self.parts.iter().position(|part| *part == wanted);
        let (project, queue) = (at(Part::Project)?, at(Part::Queue)?);
        Some(self.text(&self.parts[project.min(queue)..project.max(queue)]))
    }

    fn count(&self, wanted: &Part) -> usize {
        self.parts.iter().filter(|part| *part == wanted).count()
    }

    pub(crate) fn has_project(&self) -> bool {
        self.count(&Part::Project) > 0
    }

    pub(crate) fn has_queue(&self) -> bool {
        self.count(&Part::Queue) > 0
    }

    pub(crate) fn has_name(&self) -> bool {
        self.count(&Part::Name) > 0
    }

    /// What every text of it begins with.
    pub(crate) fn start(&self) -> &str {
        match self.parts.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        }
    }

    /// What a name for all queues may be; `is_for_one` if they are those of one project.
    pub(crate) fn check_name(&self, is_for_one: bool) -> Result<(), &'static str> {
        if self.parts.is_empty() || self.has_name() {
            return Err("a pattern of names is not empty, and has no {name} in it");
        }
        if self.start().starts_with("amq.") {
            return Err("names that begin with 'amq.' are RabbitMQ's own");
        }
        if matches!(self.parts.last(), Some(Part::Text(end)) if end.ends_with(COMPANION)) {
            return Err("names that end in '~adopted' are those of queues beside others");
        }
        if self.count(&Part::Queue) > 1 || self.count(&Part::Project) > 1 {
            return Err("a pattern of names has {project} and {queue} once");
        }
        if !is_for_one && !self.has_project() {
            return Err(
                "names without {project} would be those of all projects; accepted are a pattern with {project}, as \
                 '{project}.{queue}', or the option 'project', which says whose queues they are",
            );
        }
        self.check_between()
    }

    /// Whether project and queue can be told from each other.
    pub(crate) fn check_between(&self) -> Result<(), &'static str> {
        match self.between() {
            Some(text) if !text.contains(|c| no_project_has(c) || "-_".contains(c)) => Err(
                "between {project} and {queue} there must be a character that is neither a letter nor a digit, as in \
                 '{project}.{queue}', or queues of two projects could have one name",
            ),
            _ => Ok(()),
        }
    }

    /// The texts that it makes, letter by letter; `None` is anything.
    fn letters(&self) -> Vec<Option<u8>> {
        let letters = |part: &Part| match part {
            Part::Text(text) => text.bytes().map(Some).collect(),
            _ => vec![None],
        };
        self.parts.iter().flat_map(letters).collect()
    }
}

/// Whether a name that one makes could be one that the other makes.
pub(crate) fn meet(one: &Pattern, other: &Pattern) -> bool {
    globs_meet(&one.letters(), &other.letters())
}

/// Parts without two texts beside each other.
fn merged(parts: impl Iterator<Item = Part>) -> Vec<Part> {
    let mut all: Vec<Part> = Vec::new();
    for part in parts {
        match (all.last_mut(), part) {
            (Some(Part::Text(before)), Part::Text(text)) => before.push_str(&text),
            (_, part) => all.push(part),
        }
    }
    all
}

/// Whether no project has it, escaped.
fn no_project_has(c: char) -> bool {
    !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '%'))
}
