//! How far an import has come, in a file of JSON lines. What is in it has been stored; what was stored last may be
//! missing from it, and is then stored once more under the same ids.
//!
//! | a line says | of |
//! |---|---|
//! | `after`, `same`: read as far as this; `left`: but these were left out, and are tried again by the next import | queues of a Zaqar, streams |
//! | `done`: these are left out no more | the same |
//! | `ids`: these were taken | lists, whose elements have no places that stay |
//!
//! Something that was left out does not hold the journal up: what is behind it was consumed here, perhaps, and would
//! come back. It is read line by line, and what is kept of it is a place for each source, 16 bytes for each element of a
//! list, and the names of what was left out, up to a bound for each queue.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{File, TryLockError};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use isimud_contract::{Error, ErrorKind, MessageId, QueueKey, Result};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The longest line that an import writes is some kilobytes long; a longer one is none of its lines.
const MAX_LINE_BYTES: u64 = 4 << 20;

/// Names of one source and queue that are remembered as left out. With more of them the journal stays where it is.
const MAX_LEFT_OUT: usize = 10_000;

/// The first line: what the journal is about.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Head {
    isimud_import: u32,
    into: String,
}

/// A further line: what became of a source, for a queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    source: String,
    project: String,
    queue: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    same: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    left: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    done: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    ids: Vec<Uuid>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What an import has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// It has read as far as this.
    Reached {
        /// The last entry that was read.
        after: String,
        /// How many of that rank were read, where that is not one.
        same: u64,
        /// What of it was left out, by the names under which it can be asked for again.
        left: Vec<String>,
    },
    /// What was left out before need not be looked at again.
    Done(Vec<String>),
    /// It has taken these elements of a list.
    Taken(Vec<MessageId>),
}

/// What is known of a source, for a queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// The last entry that was read.
    pub(super) after: Option<String>,
    /// How many of that rank were read.
    pub(super) same: u64,
    /// What was left out.
    pub(super) left: BTreeSet<String>,
    taken: HashSet<Uuid>,
}

/// The journal of an import, or none.
#[derive(Debug)]
pub(super) struct Journal {
    known: HashMap<(String, QueueKey), Known>,
    file: Option<Mutex<File>>,
    path: PathBuf,
}

impl Journal {
    /// Remembers nothing.
    pub(super) fn none() -> Self {
        Self {
            known: HashMap::new(),
            file: None,
            path: PathBuf::new(),
        }
    }

    /// Opens a journal, or makes one. `Invalid` when the file is something else, or is about another store;
    /// `Unavailable` when another import writes it.
    pub(super) fn open(path: &Path, into: &str, may_write: bool) -> Result<Self> {
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Unavailable, "the journal cannot be used")
                .with("file", path.display())
                .caused_by(error)
        };
        let opened = File::options()
            .read(true)
            .write(may_write)
            .create(may_write)
            .truncate(false)
            .open(path);
        let mut file = match opened {
            Err(error) if !may_write && error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::none());
            }
            opened => opened.map_err(failed)?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(
                    Error::new(ErrorKind::Unavailable, "another import uses the journal")
                        .with("file", path.display()),
                );
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let head = Head {
            isimud_import: 1,
            into: into.to_owned(),
        };
        let (known, whole) = read(BufReader::new(&file), &head)
            .map_err(failed)?
            .map_err(|why| Error::invalid(why).with("file", path.display()))?;
        if may_write {
            // A line without its end was being written when the import broke off.
            file.set_len(whole).map_err(failed)?;
            file.seek(SeekFrom::End(0)).map_err(failed)?;
            if whole == 0 {
                let line = serde_json::to_string(&head).unwrap_or_default();
                writeln!(file, "{line}").map_err(failed)?;
            }
        }
        Ok(Self {
            known,
            file: may_write.then(|| Mutex::new(file)),
            path: path.to_owned(),
        })
    }

    /// What earlier imports did.
    pub(super) fn known(&self, source: &str, queue: &QueueKey) -> Option<&Known> {
        self.known.get(&(source.to_owned(), queue.clone()))
    }

    /// Whether an earlier import has taken an element of a list.
    pub(super) fn has_taken(&self, source: &str, queue: &QueueKey, id: MessageId) -> bool {
        !self.known.is_empty()
            && self
                .known(source, queue)
                .is_some_and(|known| known.taken.contains(&id.0))
    }

    /// Whether so many names can be remembered as left out.
    pub(super) fn has_room_for(count: usize) -> bool {
        count <= MAX_LEFT_OUT
    }

    /// Writes what this one has done.
    pub(super) fn note(&self, source: &str, queue: &QueueKey, step: &Step) -> Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let mut line = Line {
            source: source.to_owned(),
            project: queue.project.to_string(),
            queue: queue.name.to_string(),
            ..Line::default()
        };
        match step.clone() {
            Step::Reached { after, same, left } => {
                (line.after, line.same, line.left) = (Some(after), same, left);
            }
            Step::Done(names) => line.done = names,
            Step::Taken(ids) => line.ids = ids.into_iter().map(|id| id.0).collect(),
        }
        let text = format!("{}\n", serde_json::to_string(&line).unwrap_or_default());
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(text.as_bytes()).map_err(|error| {
            Error::new(ErrorKind::Unavailable, "the journal cannot be written")
                .with("file", self.path.display())
                .caused_by(error)
        })
    }
}

/// What was read, or a sentence that says why it is no journal.
type Sense<T> = std::result::Result<T, &'static str>;

/// What is known of each queue, and how long the whole lines are that say so.
type Lines = (HashMap<(String, QueueKey), Known>, u64);

/// Reads the whole lines, and returns how long they are.
fn read(mut file: impl BufRead, head: &Head) -> std::io::Result<Sense<Lines>> {
    let mut known = HashMap::new();
    let (mut whole, mut number, mut text) = (0, 0_u64, Vec::new());
    loop {
        text.clear();
        file.by_ref()
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut text)?;
        if !text.ends_with(b"\n") {
            let head = serde_json::to_vec(head).unwrap_or_default();
            return Ok(match number {
                // Of a head, nothing else may be taken for what broke off: the file would be overwritten.
                0 if !head.starts_with(&text) => Err("the file is no journal"),
                _ if text.len() as u64 >= MAX_LINE_BYTES => Err("the journal is damaged"),
                _ => Ok((known, whole)),
            });
        }
        let done = match number {
            0 => check(&text, head),
            _ => learn(&text, &mut known),
        };
        if let Err(why) = done {
            return Ok(Err(why));
        }
        whole += text.len() as u64;
        number += 1;
    }
}

fn check(text: &[u8], head: &Head) -> Sense<()> {
    let written: Head = serde_json::from_slice(text).map_err(|_| "the file is no journal")?;
    match written == *head {
        true => Ok(()),
        false => Err("the journal is about an import into another store"),
    }
}

fn learn(text: &[u8], known: &mut HashMap<(String, QueueKey), Known>) -> Sense<()> {
    let damaged = "the journal is damaged";
    let line: Line = serde_json::from_slice(text).map_err(|_| damaged)?;
    let project = isimud_contract::ProjectId::parse(&line.project).map_err(|_| damaged)?;
    let name = isimud_contract::QueueName::parse(&line.queue).map_err(|_| damaged)?;
    let known = known
        .entry((line.source, QueueKey::new(project, name)))
        .or_default();
    if line.after.is_some() {
        (known.after, known.same) = (line.after, line.same);
    }
    known.left.extend(line.left);
    for name in &line.done {
        known.left.remove(name);
    }
    known.taken.extend(line.ids);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use isimud_contract::{ProjectId, QueueName};

    fn queue(name: &str) -> QueueKey {
        QueueKey::new(
            ProjectId::parse("p").expect("a project"),
            QueueName::parse(name).expect("a name"),
        )
    }

    fn reached(after: &str) -> Step {
        Step::Reached {
            after: after.into(),
            same: 1,
            left: Vec::new(),
        }
    }

    /// How far a source was read.
    fn after<'a>(journal: &'a Journal, source: &str, name: &str) -> Option<&'a str> {
        journal.known(source, &queue(name))?.after.as_deref()
    }

    #[test]
    fn a_later_import_knows_the_last_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let journal = Journal::open(&path, "redis://h", true).expect("a new journal");
        journal
            .note("s", &queue("a"), &reached("1"))
            .expect("written");
        journal
            .note("s", &queue("a"), &reached("2"))
            .expect("written");
        journal
            .note("t", &queue("a"), &reached("9"))
            .expect("written");
        assert!(
            Journal::open(&path, "redis://h", true).is_err(),
            "it is in use"
        );
        drop(journal);
        let mut file = File::options().append(true).open(&path).expect("the file");
        file.write_all(b"{\"source\": \"s\", \"proj")
            .expect("half a line");
        drop(file);
        let journal = Journal::open(&path, "redis://h", true).expect("the same journal");
        assert_eq!(after(&journal, "s", "a"), Some("2"));
        assert_eq!(after(&journal, "s", "b"), None);
        journal
            .note("s", &queue("b"), &reached("3"))
            .expect("written");
        drop(journal);
        let journal = Journal::open(&path, "redis://h", false).expect("the same journal");
        assert_eq!(after(&journal, "s", "b"), Some("3"));
    }

    #[test]
    fn what_was_left_out_is_tried_again_until_it_is_done() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let journal = Journal::open(&path, "x", true).expect("a new journal");
        let left = Step::Reached {
            after: "9".into(),
            same: 2,
            left: vec!["a".into(), "b".into()],
        };
        journal.note("s", &queue("q"), &left).expect("written");
        let done = Step::Done(vec!["a".into()]);
        journal.note("s", &queue("q"), &done).expect("written");
        let [one, other] = [1, 2].map(|number| MessageId(Uuid::from_u128(number)));
        let taken = Step::Taken(vec![one]);
        journal.note("l", &queue("q"), &taken).expect("written");
        drop(journal);
        let journal = Journal::open(&path, "x", true).expect("the same journal");
        let known = journal.known("s", &queue("q")).expect("known");
        assert_eq!((known.after.as_deref(), known.same), (Some("9"), 2));
        assert_eq!(known.left, BTreeSet::from(["b".to_owned()]));
        assert!(journal.has_taken("l", &queue("q"), one));
        assert!(!journal.has_taken("l", &queue("q"), other));
        assert!(!journal.has_taken("s", &queue("q"), one));
    }

    #[test]
    fn a_line_without_an_end_is_not_read_into_memory() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let file = File::create(&path).expect("a file");
        file.set_len(1 << 30).expect("a hole of a gibibyte");
        let error = Journal::open(&path, "x", true).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }

    #[test]
    fn what_is_no_journal_of_this_import_is_refused_and_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        for text in [
            "precious\n",
            "precious, and without an end",
            "{\"isimud_import\":1,\"into\":\"other\"}\n",
        ] {
            std::fs::write(&path, text).expect("written");
            let error = Journal::open(&path, "redis://h", true).expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert_eq!(std::fs::read_to_string(&path).expect("read"), text);
        }
    }

    #[test]
    fn a_dry_run_makes_no_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let journal = Journal::open(&path, "x", false).expect("none");
        journal
            .note("s", &queue("a"), &reached("1"))
            .expect("nothing");
        assert!(!path.exists());
    }
}
