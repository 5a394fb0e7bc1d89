//! What an import did, and what it left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use isimud_contract::ClaimId;
use isimud_import_sources::Left;

use super::target::Placed;

/// Examples of one kind that are named.
const EXAMPLES: usize = 10;

/// What there is to tell of an import. Its display is for people.
#[derive(Debug, Default)]
pub struct Report {
    into: String,
    dry_run: bool,
    pub(super) sources: Vec<String>,
    pub(super) queues_made: u64,
    pub(super) queues_there: u64,
    /// Queues that the import did not come to.
    pub(super) queues_unvisited: u64,
    /// Elements of the source that were read. Each is in one of the numbers below.
    pub(super) read: u64,
    pub(super) messages_new: u64,
    pub(super) messages_there: u64,
    /// By the journal, they were taken over before.
    pub(super) messages_before: u64,
    pub(super) messages_left: u64,
    pub(super) decrypted: u64,
    claims: BTreeSet<ClaimId>,
    held: u64,
    pub(super) subscriptions_new: u64,
    pub(super) subscriptions_there: u64,
    pub(super) left: Left,
    pub(super) acknowledged: u64,
    /// What is worth knowing, though nothing is missing.
    notes: BTreeMap<String, Examples>,
    /// What was not taken over, by the reason.
    behind: BTreeMap<String, Examples>,
}

#[derive(Debug, Default)]
struct Examples {
    count: u64,
    first: Vec<String>,
}

impl Examples {
    fn add(&mut self, what: String) {
        self.count += 1;
        if self.first.len() < EXAMPLES {
            self.first.push(what);
        }
    }

    fn join(&mut self, more: Self) {
        self.count += more.count;
        let room = EXAMPLES - self.first.len();
        self.first.extend(more.first.into_iter().take(room));
    }
}

impl Report {
    pub(super) fn new(into: String, dry_run: bool) -> Self {
        Self {
            into,
            dry_run,
            ..Self::default()
        }
    }

    /// Remembers what is worth knowing.
    pub(super) fn note(&mut self, why: impl Into<String>, what: impl Into<String>) {
        self.notes.entry(why.into()).or_default().add(what.into());
    }

    /// Remembers something that was not taken over.
    pub(super) fn leave(&mut self, why: impl Into<String>, what: impl Into<String>) {
        self.behind.entry(why.into()).or_default().add(what.into());
    }

    /// Remembers messages that a claim holds now.
    pub(super) fn hold(&mut self, claim: ClaimId, messages: u64) {
        if messages > 0 {
            self.claims.insert(claim);
            self.held += messages;
        }
    }

    /// Adds what was done to one queue.
    pub(super) fn add(&mut self, part: Self) {
        self.queues_made += part.queues_made;
        self.queues_there += part.queues_there;
        self.queues_unvisited += part.queues_unvisited;
        self.read += part.read;
        self.messages_new += part.messages_new;
        self.messages_there += part.messages_there;
        self.messages_before += part.messages_before;
        self.messages_left += part.messages_left;
        self.decrypted += part.decrypted;
        self.claims.extend(part.claims);
        self.held += part.held;
        self.subscriptions_new += part.subscriptions_new;
        self.subscriptions_there += part.subscriptions_there;
        self.left += part.left;
        self.acknowledged += part.acknowledged;
        for (all, more) in [
            (&mut self.notes, part.notes),
            (&mut self.behind, part.behind),
        ] {
            for (why, examples) in more {
                all.entry(why).or_default().join(examples);
            }
        }
    }

    /// Adds what the store made of messages.
    pub(super) fn place(&mut self, placed: &Placed) {
        self.messages_new += placed.new;
        self.messages_there += placed.there;
    }

    /// How many elements were read and are in none of the numbers: those at which a queue ended.
    pub(super) fn unaccounted(&self) -> u64 {
        let accounted = self.messages_new
            + self.messages_there
            + self.messages_before
            + self.messages_left
            + self.left.expired
            + self.left.dangling
            + self.acknowledged;
        self.read.saturating_sub(accounted)
    }

    /// Whether everything that was alive was taken over.
    pub fn is_complete(&self) -> bool {
        self.behind.is_empty()
    }

    /// Whether anything was found at all.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.dry_run {
            "would import (nothing was written)"
        } else {
            "imported"
        };
        writeln!(
            f,
            "{what} from {} into {}",
            self.sources.join(", "),
            self.into
        )?;
        for (name, count, more) in [
            ("queues", self.queues_made, there(self.queues_there)),
            (
                "unvisited",
                self.queues_unvisited,
                " queues that the import did not come to".to_owned(),
            ),
            ("read", self.read, " elements".to_owned()),
            ("messages", self.messages_new, self.not_new()),
            (
                "left out",
                self.messages_left,
                " elements, for the reasons below".to_owned(),
            ),
            ("decrypted", self.decrypted, String::new()),
            (
                "claims",
                self.claims.len() as u64,
                format!(", holding {} messages", self.held),
            ),
            (
                "subscribed",
                self.subscriptions_new,
                there(self.subscriptions_there),
            ),
            ("expired", self.left.expired, ", left out".to_owned()),
            (
                "dangling",
                self.left.dangling,
                " ids without a message, left out".to_owned(),
            ),
            (
                "done",
                self.acknowledged,
                " entries that the group had acknowledged, left out".to_owned(),
            ),
        ] {
            let is_always_shown = matches!(name, "queues" | "read" | "messages");
            if count > 0 || is_always_shown {
                writeln!(f, "  {name:<10} {count:>9}{more}")?;
            }
        }
        section(f, "to know", &self.notes)?;
        section(f, "left out", &self.behind)
    }
}

impl Report {
    /// What is said of messages that are not new.
    fn not_new(&self) -> String {
        let counts = [
            (self.messages_there, "there already"),
            (self.messages_before, "taken over before, by the journal"),
        ];
        let said: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        match said.as_slice() {
            [] => String::new(),
            said => format!(" new, {}", said.join(", ")),
        }
    }
}

fn there(count: u64) -> String {
    match count {
        0 => String::new(),
        count => format!(" new, {count} there already"),
    }
}

fn section(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    of: &BTreeMap<String, Examples>,
) -> fmt::Result {
    if of.is_empty() {
        return Ok(());
    }
    writeln!(f, "{title}:")?;
    for (why, examples) in of {
        writeln!(f, "  {} x {why}:", examples.count)?;
        for what in &examples.first {
            writeln!(f, "    {what}")?;
        }
        let more = examples.count - examples.first.len() as u64;
        if more > 0 {
            writeln!(f, "    and {more} more")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_counts_reasons_and_names_examples() {
        let mut report = Report::new("sqlite:x".into(), false);
        report.sources.push("redis://h:1?dbid=0".into());
        (
            report.queues_made,
            report.messages_new,
            report.messages_there,
        ) = (2, 7, 1);
        assert!(report.is_complete());
        (report.read, report.messages_left, report.left.expired) = (22, 12, 1);
        assert_eq!(report.unaccounted(), 1);
        for number in 0..12 {
            report.leave("its body is not MessagePack", format!("message {number}"));
        }
        assert!(!report.is_complete());
        let text = report.to_string();
        for line in [
            "imported from redis://h:1?dbid=0 into sqlite:x",
            "  queues             2",
            "  read              22 elements",
            "  messages           7 new, 1 there already",
            "  left out          12 elements, for the reasons below",
            "  expired            1, left out",
            "left out:",
            "  12 x its body is not MessagePack:",
            "    message 9",
            "    and 2 more",
        ] {
            assert!(
                text.lines().any(|written| written == line),
                "{line} is not in\n{text}"
            );
        }
        assert!(!text.contains("message 10"));
    }
}
