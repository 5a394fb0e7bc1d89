//! What became of each option, a line each (spec: zaqar-conf.md 4).

use std::fmt;

use super::reader::Origin;

/// What became of an option. The order is that of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// It cannot be taken over: the operator has to decide.
    Left,
    /// It was taken over, and means something else here, or has another value.
    Changed,
    /// It means the same here.
    Carried,
    /// It means nothing here.
    NotNeeded,
    /// The reference does not know it either.
    Unknown,
    /// Something that is about no single option.
    Note,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Changed => "changed",
            Self::Carried => "carried",
            Self::NotNeeded => "not needed",
            Self::Unknown => "unknown",
            Self::Note => "note",
        }
    }
}

/// A line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) kind: Kind,
    /// What the line is about: `[group] option`, or empty.
    pub(super) subject: String,
    pub(super) origin: Option<Origin>,
    pub(super) sentence: String,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<11}", self.kind.word())?;
        if !self.subject.is_empty() {
            f.write_str(&self.subject)?;
            match &self.origin {
                Some(Origin::Default) => f.write_str(" (not set)")?,
                Some(origin) => write!(f, " ({origin})")?,
                None => {}
            }
            f.write_str(": ")?;
        }
        let clean = self.sentence.replace(char::is_control, " ");
        f.write_str(&clean)
    }
}

/// Everything that an import has to say.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Report(Vec<Row>);

impl Report {
    pub(super) fn add(
        &mut self,
        kind: Kind,
        subject: String,
        origin: Option<Origin>,
        sentence: impl Into<String>,
    ) {
        let row = Row {
            kind,
            subject,
            origin,
            sentence: sentence.into(),
        };
        if !self.0.contains(&row) {
            self.0.push(row);
        }
    }

    pub(super) fn note(&mut self, sentence: impl Into<String>) {
        self.add(Kind::Note, String::new(), None, sentence);
    }

    /// Whether a line is about this.
    pub(super) fn has(&self, subject: &str) -> bool {
        self.0.iter().any(|row| row.subject == subject)
    }

    pub(super) fn count(&self, kind: Kind) -> usize {
        self.0.iter().filter(|row| row.kind == kind).count()
    }

    /// Whether everything was taken over.
    pub(crate) fn is_complete(&self) -> bool {
        self.count(Kind::Left) == 0
    }

    /// Whether something means something else than before.
    pub(crate) fn has_changes(&self) -> bool {
        self.count(Kind::Changed) > 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows: Vec<&Row> = self.0.iter().collect();
        rows.sort_by_key(|row| row.kind);
        for row in rows {
            writeln!(f, "{row}")?;
        }
        let kinds = [
            Kind::Carried,
            Kind::Changed,
            Kind::NotNeeded,
            Kind::Unknown,
            Kind::Left,
        ];
        let counts: Vec<String> = kinds
            .iter()
            .map(|kind| format!("{} {}", self.count(*kind), kind.word()))
            .collect();
        writeln!(f, "{}", counts.join(", "))
    }
}
