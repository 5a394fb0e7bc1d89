//! The files that are written: the configuration, secrets, policies (spec: zaqar-conf.md 4).

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// For the owner alone.
const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_FOLDER: u32 = 0o700;
/// For others to read, as far as the umask allows.
const OPEN_FILE: u32 = 0o644;

/// A file to write.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NewFile {
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) is_private: bool,
}

/// Writes files, in this order; what refers to another file comes last.
///
/// A file appears as a whole or not at all. Unless `overwrite` says so no file is replaced, and when one exists nothing is
/// written.
///
/// # Errors
///
/// A file exists, or cannot be written; the sentence names it.
pub(super) fn write(files: &[NewFile], overwrite: bool) -> Result<(), String> {
    let exists = |file: &&NewFile| file.path.symlink_metadata().is_ok();
    if let Some(file) = files.iter().find(exists)
        && !overwrite
    {
        return Err(format!(
            "{} exists; --force replaces it",
            file.path.display()
        ));
    }
    for file in files {
        let written = if overwrite {
            replace(file)
        } else {
            create(file)
        };
        written.map_err(|error| format!("cannot write {}: {error}", file.path.display()))?;
    }
    Ok(())
}

/// Creates a folder for secrets, where it does not exist.
///
/// # Errors
///
/// It cannot be created; the sentence names it.
pub(super) fn create_folder(path: &Path) -> Result<(), String> {
    if path.is_dir() {
        return Ok(());
    }
    let made = DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_FOLDER)
        .create(path);
    made.map_err(|error| format!("cannot create the folder {}: {error}", path.display()))
}

fn options(file: &NewFile) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    options.mode(if file.is_private {
        PRIVATE_FILE
    } else {
        OPEN_FILE
    });
    options
}

fn fill(mut open: File, file: &NewFile) -> std::io::Result<()> {
    open.write_all(file.text.as_bytes())?;
    open.sync_all()
}

/// Creates a file that does not exist, and follows no link at its path.
fn create(file: &NewFile) -> std::io::Result<()> {
    let open = options(file).open(&file.path)?;
    fill(open, file).inspect_err(|_| {
        // The error that is told is the one before.
        std::fs::remove_file(&file.path).ok();
    })
}

/// Creates an empty file beside the one to write, under a name that nobody has: what an import left that was killed is in
/// nobody's way.
fn create_beside(file: &NewFile) -> std::io::Result<(File, PathBuf)> {
    loop {
        let mut name = file.path.as_os_str().to_owned();
        name.push(format!(".{:016x}.new", fastrand::u64(..)));
        let beside = PathBuf::from(name);
        match options(file).open(&beside) {
            Ok(open) => return Ok((open, beside)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// Puts a file in the place of another, which stays as it is until the new one is complete.
fn replace(file: &NewFile) -> std::io::Result<()> {
    let (open, beside) = create_beside(file)?;
    fill(open, file)
        .and_then(|()| std::fs::rename(&beside, &file.path))
        .inspect_err(|_| {
            std::fs::remove_file(&beside).ok();
        })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(folder: &Path, name: &str, is_private: bool) -> NewFile {
        NewFile {
            path: folder.join(name),
            text: format!("{name}\n"),
            is_private,
        }
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().expect("a file").permissions().mode() & 0o777
    }

    #[test]
    fn private_files_are_for_their_owner_alone() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("a/b");
        create_folder(&folder).expect("a folder");
        assert_eq!(mode(&folder), 0o700);
        write(&[file(&folder, "s", true)], false).expect("written");
        assert_eq!(mode(&folder.join("s")), 0o600);
    }

    #[test]
    fn nothing_is_written_when_one_file_exists() {
        let root = tempfile::tempdir().expect("a folder");
        std::fs::write(root.path().join("b"), "old").expect("a file");
        let files = [file(root.path(), "a", true), file(root.path(), "b", true)];
        let refused = write(&files, false).expect_err("b exists");
        assert!(refused.contains("--force"), "{refused}");
        assert!(!root.path().join("a").exists());
        write(&files, true).expect("replaced");
        assert_eq!(
            std::fs::read_to_string(root.path().join("b")).expect("a file"),
            "b\n"
        );
        assert_eq!(mode(&root.path().join("b")), 0o600);
        assert_eq!(std::fs::read_dir(root.path()).expect("a folder").count(), 2);
    }

    /// In a container every import has the same process id, and what a killed one leaves has its name.
    #[test]
    fn file_that_a_killed_import_left_is_in_nobodys_way() {
        let root = tempfile::tempdir().expect("a folder");
        let left = format!("a.{}.new", std::process::id());
        std::fs::write(root.path().join(left), "half").expect("a file");
        write(&[file(root.path(), "a", true)], true).expect("written");
        let written = std::fs::read_to_string(root.path().join("a"));
        assert_eq!(written.expect("a file"), "a\n");
    }

    #[test]
    fn links_are_not_followed() {
        let root = tempfile::tempdir().expect("a folder");
        let (target, link) = (root.path().join("target"), root.path().join("a"));
        std::os::unix::fs::symlink(&target, &link).expect("a link");
        assert!(write(&[file(root.path(), "a", true)], false).is_err());
        assert!(!target.exists());
        write(&[file(root.path(), "a", true)], true).expect("replaced");
        assert!(!target.exists());
        assert_eq!(std::fs::read_to_string(&link).expect("a file"), "a\n");
    }
}
