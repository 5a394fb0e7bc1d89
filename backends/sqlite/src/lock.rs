//! Which file a store is, and that it is open once.
//!
//! A file may have many names: relative paths, symbolic and hard links, folders that are mounted twice. The store keeps
//! counters in memory, and the log beside the file goes by a name, so a second server behind another name would corrupt
//! both. What is locked is therefore the file itself (its device and number), by a lock of the operating system on it; and
//! beside it a lock file, so that no other file takes the name that the log belongs to while it is in use.
//!
//! SQLite's own locks on a file end when this process closes any handle of it (SQLite documentation, "How To Corrupt An
//! SQLite Database File", 2.2). So a file that another store of this process has open is not even opened: the files of a
//! process are remembered, and asked for by what the file system says of the name.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind as Io};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use isimud_contract::{Error, ErrorKind, Result};

/// Only the owner may read and write what a store makes.
const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_FOLDER: u32 = 0o700;

/// The files that stores of this process have open.
static OPEN: Mutex<BTreeSet<Identity>> = Mutex::new(BTreeSet::new());

/// Told when one is closed.
static CLOSED: Condvar = Condvar::new();

/// How long a store that has closed a file, which was deleted, may take to say so.
const CLOSING: Duration = Duration::from_secs(1);

/// What a file is, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    device: u64,
    number: u64,
}

impl Identity {
    fn of(file: &fs::Metadata) -> Self {
        Self {
            device: file.dev(),
            number: file.ino(),
        }
    }
}

/// A store's file, which no other store opens until this is dropped. SQLite's connections must be closed before.
#[derive(Debug)]
pub(crate) struct Lock {
    /// The file's name without links and dots: the name that SQLite gives to its log.
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    _beside: File,
    // The last: the file is closed before another store of this process may open it.
    _entry: Entry,
}

/// A file's place among those that this process has open.
#[derive(Debug)]
struct Entry(Identity);

impl Entry {
    fn insert(file: Identity) -> Option<Self> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        // Not made where it is not inserted: what is dropped ends another's entry.
        open.insert(file).then(|| Self(file))
    }

    /// The same for a file that was made just now: nobody else has it open, but the file system may have given it the
    /// number of one that another store has deleted and is about to close.
    fn insert_new(file: Identity) -> Option<Self> {
        let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = CLOSED.wait_timeout_while(open, CLOSING, |open| open.contains(&file));
        let (mut open, _) = waited.unwrap_or_else(PoisonError::into_inner);
        open.insert(file).then(|| Self(file))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&self.0);
        CLOSED.notify_all();
    }
}

impl Lock {
    /// Takes the file of that name; it and its folder are made when they are missing. `Unavailable` when it cannot be
    /// written, or is in use.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        make_folder(path)?;
        let (file, entry) = open(path)?;
        lock(&file)?;
        let path = fs::canonicalize(path).map_err(unusable(
            "cannot find out where the file of the embedded store is",
        ))?;
        let beside = beside(&path, ".lock");
        let in_folder = "cannot write to the folder of the embedded store";
        let beside = private(&beside).map_err(unusable(in_folder))?;
        lock(&beside)?;
        Ok(Self {
            path,
            file,
            _beside: beside,
            _entry: entry,
        })
    }
}

/// What stands beside a store's file, under its name and an ending.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// What a file is, if it is there.
pub(crate) fn identity(path: &Path) -> Option<Identity> {
    fs::metadata(path).ok().map(|file| Identity::of(&file))
}

fn make_folder(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    let Some(folder) = folder else { return Ok(()) };
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(PRIVATE_FOLDER).create(folder);
    made.map_err(unusable("cannot create the folder of the embedded store"))
}

/// Opens the file for writing, unless this process has it open.
fn open(path: &Path) -> Result<(File, Entry)> {
    let known = match identity(path) {
        Some(known) => Some((known, Entry::insert(known).ok_or_else(open_here)?)),
        None => None,
    };
    let file = private(path).map_err(|error| {
        let what = match error.kind() {
            Io::PermissionDenied | Io::ReadOnlyFilesystem => {
                "the file of the embedded store cannot be written"
            }
            _ => "cannot open the file of the embedded store",
        };
        unusable(what)(error)
    })?;
    let read = file
        .metadata()
        .map_err(unusable("cannot open the file of the embedded store"))?;
    let found = Identity::of(&read);
    match known {
        Some((known, entry)) if known == found => Ok((file, entry)),
        // It was made just now, or put in the place of another meanwhile.
        known => {
            let entry = match known {
                None => Entry::insert_new(found),
                Some(_) => Entry::insert(found),
            };
            let Some(entry) = entry else {
                // Closing it would end the locks of the store that has it open.
                std::mem::forget(file);
                return Err(open_here());
            };
            Ok((file, entry))
        }
    }
}

/// Opens a file for writing, which only its owner may read where it is made now.
pub(crate) fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(PRIVATE_FILE);
    match options.clone().create_new(true).open(path) {
        Ok(file) => {
            // Whatever the mask of the process takes away or not.
            file.set_permissions(Permissions::from_mode(PRIVATE_FILE))?;
            Ok(file)
        }
        // A link to where nothing is counts as there, so that it is made here.
        Err(error) if error.kind() == Io::AlreadyExists => options.create(true).open(path),
        Err(error) => Err(error),
    }
}

fn lock(file: &File) -> Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            Err(in_use("the embedded store is in use by another server"))
        }
        Err(TryLockError::Error(error)) => Err(unusable("cannot lock the embedded store")(error)),
    }
}

fn open_here() -> Error {
    in_use("the embedded store is in use by another pool of this server")
}

fn in_use(sentence: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, sentence)
}

fn unusable(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| Error::new(ErrorKind::Unavailable, what).caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path) -> String {
        let refused = Lock::take(path).expect_err("it is in use");
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        refused.to_string()
    }

    /// The file of a store by each of its names: dots, symbolic links to it and to its folder, hard links beside it and
    /// elsewhere.
    fn names(folder: &Path) -> Vec<PathBuf> {
        let file = folder.join("data/isimud.db");
        let link = |name: &str| folder.join(name);
        std::os::unix::fs::symlink(&file, link("symbolic.db")).expect("a symbolic link");
        std::os::unix::fs::symlink(folder.join("data"), link("folder"))
            .expect("a link to a folder");
        fs::create_dir(folder.join("elsewhere")).expect("a folder");
        fs::hard_link(&file, link("data/hard.db")).expect("a hard link");
        fs::hard_link(&file, link("elsewhere/isimud.db")).expect("a hard link elsewhere");
        vec![
            file,
            link("elsewhere/../data/isimud.db"),
            link("symbolic.db"),
            link("folder/isimud.db"),
            link("data/hard.db"),
            link("elsewhere/isimud.db"),
        ]
    }

    #[test]
    fn a_file_is_open_once_whatever_it_is_called() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Lock::take(&folder.path().join("data/isimud.db")).expect("a new file");
        let names = names(folder.path());
        for name in &names {
            assert!(refusal(name).contains("another pool"), "{}", name.display());
        }
        drop(first);
        for name in &names {
            Lock::take(name).expect("the lock ends with the store");
        }
    }

    /// Another process knows nothing of the files of this one: the lock of the operating system tells it.
    #[test]
    fn a_file_that_another_process_has_open_is_refused_whatever_it_is_called() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("data/isimud.db");
        drop(Lock::take(&file).expect("a new file"));
        let theirs = File::open(&file).expect("the file");
        theirs.lock().expect("nobody has it");
        let names = names(folder.path());
        for name in &names {
            assert!(
                refusal(name).contains("another server"),
                "{}",
                name.display()
            );
        }
        drop(theirs);
        Lock::take(&names[4]).expect("the lock ends with the process");
    }

    #[test]
    fn a_file_that_takes_the_name_of_one_in_use_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, moved) = (folder.path().join("a.db"), folder.path().join("b.db"));
        let first = Lock::take(&path).expect("a new file");
        fs::rename(&path, &moved).expect("another name");
        assert!(refusal(&path).contains("another server"));
        assert!(refusal(&moved).contains("another pool"));
        drop(first);
        Lock::take(&path).expect("a file of its own");
    }

    #[test]
    fn a_symbolic_link_to_nothing_makes_the_file_that_it_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let (link, file) = (folder.path().join("link.db"), folder.path().join("file.db"));
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        let lock = Lock::take(&link).expect("a new file");
        assert_eq!(lock.path, fs::canonicalize(&file).expect("it is there"));
        assert!(refusal(&file).contains("another pool"));
    }

    #[test]
    fn only_its_owner_may_read_what_a_store_makes() {
        let folder = tempfile::tempdir().expect("a folder");
        let lock = Lock::take(&folder.path().join("a/b/isimud.db")).expect("a new file");
        let mode = |path: &Path| fs::metadata(path).expect("it is there").mode() & 0o777;
        assert_eq!(mode(&lock.path), PRIVATE_FILE);
        assert_eq!(mode(&beside(&lock.path, ".lock")), PRIVATE_FILE);
        for made in ["a", "a/b"] {
            assert_eq!(mode(&folder.path().join(made)), PRIVATE_FOLDER, "{made}");
        }
    }
}
