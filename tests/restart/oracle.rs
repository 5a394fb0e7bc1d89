//! What the workers were told, and what has to hold because of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::server::Answer;

/// Everything that is known, by the number that each message carries in its body.
#[derive(Default)]
pub(crate) struct Oracle {
    pub(crate) notes: BTreeMap<u64, Note>,
    /// The messages that each claim delivered, by the claim's path.
    pub(crate) claims: BTreeMap<String, Vec<u64>>,
    /// Requests whose answer was lost: posts, claims, deletes.
    pub(crate) open: [usize; 3],
    pub(crate) wrong: Vec<String>,
}

/// What is known of one message.
#[derive(Debug, Default)]
pub(crate) struct Note {
    /// The post that it is part of, by its first message.
    batch: u64,
    /// The post was acknowledged.
    posted: bool,
    /// Its path, from the post or from a claim.
    href: Option<String>,
    /// The claim that delivered it.
    claim: Option<String>,
    deleted: Deleted,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deleted {
    #[default]
    No,
    /// Asked for, and perhaps done.
    Asked,
    Done,
}

impl Note {
    /// Whether this is the path that was said before, if one was.
    fn is_at(&mut self, href: &str) -> bool {
        let path = href.split('?').next().unwrap_or_default();
        path == self.href.get_or_insert_with(|| path.to_owned())
    }
}

impl Oracle {
    /// Writes down what is about to be posted.
    pub(crate) fn open_post(&mut self, size: u64) -> Vec<u64> {
        let batch = self.notes.len() as u64;
        let numbers: Vec<u64> = (batch..batch + size).collect();
        for number in &numbers {
            let note = Note {
                batch,
                ..Note::default()
            };
            self.notes.insert(*number, note);
        }
        numbers
    }

    pub(crate) fn posted(&mut self, numbers: &[u64], answer: &Answer) {
        let hrefs = answer.json()["resources"].take();
        let hrefs = hrefs.as_array().map(Vec::as_slice).unwrap_or_default();
        if answer.status != 201 || hrefs.len() != numbers.len() {
            return self.wrong.push(format!("a post: {answer}"));
        }
        for (number, href) in numbers.iter().zip(hrefs) {
            let note = self.notes.entry(*number).or_default();
            note.posted = true;
            let href = href.as_str().unwrap_or_default();
            if !note.is_at(href) {
                self.wrong.push(format!("{number} is {href}: {note:?}"));
            }
        }
    }

    /// Writes down what a claim delivered, and returns where each message can be deleted.
    pub(crate) fn claimed(&mut self, answer: &Answer) -> Vec<(u64, String)> {
        let Some(claim) = answer.header("location").filter(|_| answer.status == 201) else {
            self.wrong.push(format!("a claim: {answer}"));
            return Vec::new();
        };
        let messages = numbered(&answer.json());
        for (number, href) in &messages {
            let Some(note) = self.notes.get_mut(number) else {
                self.wrong.push(format!("nobody posted {number}: {href}"));
                continue;
            };
            if let Some(other) = note.claim.replace(claim.to_owned()) {
                self.wrong
                    .push(format!("{number} is in {claim} and was in {other}"));
            }
            if note.deleted == Deleted::Done {
                self.wrong
                    .push(format!("{number} was deleted and is in {claim}"));
            }
            if !note.is_at(href) {
                self.wrong.push(format!("{number} is {href}: {note:?}"));
            }
        }
        let numbers = messages.iter().map(|(number, _)| *number).collect();
        self.claims.insert(claim.to_owned(), numbers);
        messages
    }

    pub(crate) fn set_deleted(&mut self, number: u64, deleted: Deleted) {
        self.notes.entry(number).or_default().deleted = deleted;
    }

    pub(crate) fn deletion_answered(&mut self, number: u64, href: &str, answer: &Answer) {
        if answer.status == 204 {
            self.set_deleted(number, Deleted::Done);
        } else {
            self.wrong.push(format!("deleting {href}: {answer}"));
        }
    }

    /// How many of the newest messages nobody has asked to delete, counted up to a limit.
    pub(crate) fn backlog(&self, limit: usize) -> usize {
        let left = self.notes.values().rev().take(4 * limit);
        left.filter(|note| note.deleted == Deleted::No)
            .take(limit)
            .count()
    }

    pub(crate) fn report(&self) {
        let count =
            |which: fn(&Note) -> bool| self.notes.values().filter(|note| which(note)).count();
        let acknowledged = count(|note| note.posted);
        println!(
            "{} messages, {acknowledged} acknowledged; {} claims; {} deleted; answers lost: {:?}",
            self.notes.len(),
            self.claims.len(),
            count(|note| note.deleted == Deleted::Done),
            self.open,
        );
        assert!(
            self.wrong.is_empty(),
            "{} times wrong:\n{}",
            self.wrong.len(),
            self.wrong[..self.wrong.len().min(50)].join("\n")
        );
        assert!(
            acknowledged > 100 && self.claims.len() > 10,
            "too little happened"
        );
    }

    pub(crate) fn states(&self, claim: &str) -> Vec<(u64, Deleted)> {
        let numbers = self.claims.get(claim).into_iter().flatten();
        let state = |number: &u64| Some((*number, self.notes.get(number)?.deleted));
        numbers.filter_map(state).collect()
    }

    /// What claims delivered and was not deleted for certain.
    pub(crate) fn hrefs_to_delete(&self) -> Vec<(u64, String)> {
        let held = self.notes.iter().filter_map(|(number, note)| {
            let claim = note
                .claim
                .as_ref()
                .filter(|_| note.deleted != Deleted::Done)?;
            let href = note.href.as_ref()?;
            Some((
                *number,
                format!("{href}?claim_id={}", claim.rsplit('/').next()?),
            ))
        });
        held.collect()
    }

    pub(crate) fn compare(&mut self, listed: &BTreeSet<u64>) {
        let mut whole: BTreeMap<u64, bool> = BTreeMap::new();
        for (number, note) in &self.notes {
            let there = listed.contains(number);
            match note.deleted {
                Deleted::Done if there => self.wrong.push(format!("{number} came back: {note:?}")),
                Deleted::No if !there && note.posted => {
                    self.wrong.push(format!("{number} is lost: {note:?}"));
                }
                _ => {}
            }
            let happened = there || note.claim.is_some();
            if !note.posted && *whole.entry(note.batch).or_insert(happened) != happened {
                self.wrong
                    .push(format!("a post happened in part: {note:?}"));
            }
        }
        for number in listed {
            if !self.notes.contains_key(number) {
                self.wrong.push(format!("nobody posted {number}"));
            }
        }
    }
}

/// The number and the path of each message of a document.
pub(crate) fn numbered(document: &Value) -> Vec<(u64, String)> {
    let messages = document["messages"].as_array().into_iter().flatten();
    let messages = messages.filter_map(|message| {
        let number = message["body"]["number"].as_u64()?;
        Some((number, message["href"].as_str()?.to_owned()))
    });
    messages.collect()
}
