//! How far an import has come, in a file of JSON lines. What is in it has been stored; what was stored last may be
//! missing from it, and is then stored once more under the same ids.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use isimud_contract::{Error, ErrorKind, QueueKey, Result};
use serde::{Deserialize, Serialize};

/// The first line: what the journal is about.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Head {
    isimud_import: u32,
    into: String,
}

/// A further line: a source has been read as far as this, for a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    source: String,
    project: String,
    queue: String,
    #[serde(flatten)]
    place: Place,
}

/// A place in a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// The last entry that was read.
    pub(super) after: String,
    /// How many of that rank were read, where that is not one.
    #[serde(default)]
    pub(super) same: u64,
}

/// The journal of an import, or none.
#[derive(Debug)]
pub(super) struct Journal {
    known: HashMap<(String, QueueKey), Place>,
    file: Option<Mutex<File>>,
}

impl Journal {
    /// Remembers nothing.
    pub(super) fn none() -> Self {
        Self {
            known: HashMap::new(),
            file: None,
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
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        let head = Head {
            isimud_import: 1,
            into: into.to_owned(),
        };
        // A line without its end was being written when the import broke off.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let known = read(&text[..whole], &head)
            .map_err(|why| Error::invalid(why).with("file", path.display()))?;
        if may_write {
            file.set_len(whole as u64).map_err(failed)?;
            file.seek(SeekFrom::End(0)).map_err(failed)?;
            if whole == 0 {
                let line = serde_json::to_string(&head).unwrap_or_default();
                writeln!(file, "{line}").map_err(failed)?;
            }
        }
        Ok(Self {
            known,
            file: may_write.then(|| Mutex::new(file)),
        })
    }

    /// How far the last import came.
    pub(super) fn place(&self, source: &str, queue: &QueueKey) -> Option<&Place> {
        self.known.get(&(source.to_owned(), queue.clone()))
    }

    /// Writes how far this one has come.
    pub(super) fn note(&self, source: &str, queue: &QueueKey, place: Place) -> Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let line = Line {
            source: source.to_owned(),
            project: queue.project.to_string(),
            queue: queue.name.to_string(),
            place,
        };
        let text = serde_json::to_string(&line).unwrap_or_default();
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(file, "{text}").map_err(|error| {
            Error::new(ErrorKind::Unavailable, "the journal cannot be written").caused_by(error)
        })
    }
}

fn read(text: &str, head: &Head) -> Result<HashMap<(String, QueueKey), Place>, &'static str> {
    let mut known = HashMap::new();
    let mut lines = text.lines();
    let Some(first) = lines.next() else {
        return Ok(known);
    };
    let written: Head = serde_json::from_str(first).map_err(|_| "the file is no journal")?;
    if written != *head {
        return Err("the journal is about an import into another store");
    }
    for line in lines {
        let read: Line = serde_json::from_str(line).map_err(|_| "the journal is damaged")?;
        let project = isimud_contract::ProjectId::parse(&read.project);
        let name = isimud_contract::QueueName::parse(&read.queue);
        let (Ok(project), Ok(name)) = (project, name) else {
            return Err("the journal is damaged");
        };
        known.insert((read.source, QueueKey::new(project, name)), read.place);
    }
    Ok(known)
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

    fn place(after: &str) -> Place {
        Place {
            after: after.into(),
            same: 1,
        }
    }

    #[test]
    fn a_later_import_knows_the_last_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let journal = Journal::open(&path, "redis://h", true).expect("a new journal");
        journal.note("s", &queue("a"), place("1")).expect("written");
        journal.note("s", &queue("a"), place("2")).expect("written");
        journal.note("t", &queue("a"), place("9")).expect("written");
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
        assert_eq!(journal.place("s", &queue("a")), Some(&place("2")));
        assert_eq!(journal.place("s", &queue("b")), None);
        journal.note("s", &queue("b"), place("3")).expect("written");
        drop(journal);
        let journal = Journal::open(&path, "redis://h", false).expect("the same journal");
        assert_eq!(journal.place("s", &queue("b")), Some(&place("3")));
    }

    #[test]
    fn what_is_no_journal_of_this_import_is_refused_and_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        for text in ["precious\n", "{\"isimud_import\":1,\"into\":\"other\"}\n"] {
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
        journal.note("s", &queue("a"), place("1")).expect("nothing");
        assert!(!path.exists());
    }
}
