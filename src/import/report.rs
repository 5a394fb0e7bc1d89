//! What an import did, and what it left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use isimud_contract::ClaimId;
use isimud_estates::{Left, Refusal};

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
    pub(super) messages_new: u64,
    pub(super) messages_there: u64,
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

    pub(super) fn refuse(&mut self, refused: Vec<Refusal>) {
        for Refusal { what, why } in refused {
            self.leave(why, what);
        }
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
        self.messages_new += part.messages_new;
        self.messages_there += part.messages_there;
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

    /// Whether everything that was alive was taken over.
    pub fn is_complete(&self) -> bool {
        self.behind.is_empty()
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
            ("messages", self.messages_new, there(self.messages_there)),
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
            let is_always_shown = matches!(name, "queues" | "messages");
            if count > 0 || is_always_shown {
                writeln!(f, "  {name:<10} {count:>9}{more}")?;
            }
        }
        section(f, "to know", &self.notes)?;
        section(f, "left behind", &self.behind)
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
    fn it_counts_and_names_a_few() {
        let mut report = Report::new("sqlite:x".into(), false);
        report.sources.push("redis://h:1?dbid=0".into());
        (
            report.queues_made,
            report.messages_new,
            report.messages_there,
        ) = (2, 7, 1);
        assert!(report.is_complete());
        for number in 0..12 {
            report.leave("its body is not MessagePack", format!("message {number}"));
        }
        assert!(!report.is_complete());
        let text = report.to_string();
        for line in [
            "imported from redis://h:1?dbid=0 into sqlite:x",
            "  queues             2",
            "  messages           7 new, 1 there already",
            "left behind:",
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
