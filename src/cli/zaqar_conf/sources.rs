//! Which files are read, and in which order (spec: zaqar-conf.md 1).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::ini::{File, ParseError};

/// The names that the programs of the reference look for, without `.conf`.
const PROGRAMS: [&str; 2] = ["zaqar", "zaqar-server"];

/// A file, or a folder of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    File(PathBuf),
    /// All its files `*.conf`, in the order of their names.
    Folder(PathBuf),
}

/// Files to read, in this order, and what is to be said about how they were found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) paths: Vec<PathBuf>,
    pub(super) notes: Vec<String>,
}

/// Finds the files to read.
///
/// Sources count in the order in which they are given. Where no file is given, the service's own search finds it, before all
/// folders. Where no folder is given, the folder `NAME.conf.d` beside each file `NAME.conf` counts, after all files, and if
/// nothing is given at all the one that the search finds.
///
/// # Errors
///
/// A folder cannot be listed, or there is nothing to read at all.
pub(super) fn find(sources: &[Source], home: Option<&Path>) -> Result<Found, ParseError> {
    let mut found = Found::default();
    let has = |is_file: bool| {
        sources
            .iter()
            .any(|source| matches!(source, Source::File(_)) == is_file)
    };
    let (has_files, has_folders) = (has(true), has(false));
    if !has_files {
        found.paths = search(home, "conf");
        for path in &found.paths {
            found.notes.push(format!(
                "{} was read, where Zaqar looks by itself",
                path.display()
            ));
        }
    }
    for source in sources {
        match source {
            Source::File(path) => found.paths.push(path.clone()),
            Source::Folder(path) => found.paths.extend(list(path)?),
        }
    }
    if !has_folders {
        let folders = match has_files {
            true => found.paths.iter().filter_map(|path| beside(path)).collect(),
            false => search(home, "conf.d"),
        };
        for folder in folders {
            found.notes.push(format!(
                "{} was read, too, as Zaqar does when no folder is named",
                folder.display()
            ));
            found.paths.extend(list(&folder)?);
        }
    }
    match found.paths.is_empty() {
        false => Ok(found),
        true => Err(ParseError {
            path: sources.first().map_or_else(
                || "/etc/zaqar/zaqar.conf".into(),
                |source| source.path().to_owned(),
            ),
            line: 0,
            reason: "there is no file to read; name one with --zaqar".to_owned(),
        }),
    }
}

/// The folder of further files beside a file, if there is one.
fn beside(path: &Path) -> Option<PathBuf> {
    let mut folder = path.as_os_str().to_owned();
    folder.push(".d");
    let is_configuration = path.extension() == Some(OsStr::new("conf"));
    Some(PathBuf::from(folder)).filter(|folder| is_configuration && folder.is_dir())
}

impl Source {
    fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Folder(path) => path,
        }
    }
}

/// The folders in which the service searches for files that no argument names.
pub(super) fn search_folders(home: Option<&Path>) -> Vec<PathBuf> {
    let of_user = home.map(|home| [home.join(".zaqar"), home.to_owned()]);
    let mut folders: Vec<PathBuf> = of_user.into_iter().flatten().collect();
    folders.extend(["/etc/zaqar", "/etc"].map(PathBuf::from));
    folders
}

/// What the service finds by itself: for each of its names the first that exists.
fn search(home: Option<&Path>, extension: &str) -> Vec<PathBuf> {
    let folders = search_folders(home);
    let first = |name: &&str| {
        let path = |folder: &PathBuf| folder.join(format!("{name}.{extension}"));
        folders.iter().map(path).find(|path| path.exists())
    };
    PROGRAMS.iter().filter_map(first).collect()
}

/// The files of a folder.
fn list(folder: &Path) -> Result<Vec<PathBuf>, ParseError> {
    let error = |error: std::io::Error| ParseError {
        path: folder.to_owned(),
        line: 0,
        reason: format!("cannot list the folder: {error}"),
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(error)? {
        let path = entry.map_err(error)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".conf") && !name.starts_with('.') {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads files.
///
/// # Errors
///
/// As of [`File::read`]; every file that cannot be read is named.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<File>, Vec<ParseError>> {
    let (mut files, mut errors) = (Vec::new(), Vec::new());
    for path in paths {
        match File::read(path) {
            Ok(file) => files.push(file),
            Err(error) => errors.push(error),
        }
    }
    match errors.is_empty() {
        true => Ok(files),
        false => Err(errors),
    }
}

/// Whether an environment variable sets an option (`OS_GROUP__OPTION`).
pub(super) fn is_option(name: &str) -> bool {
    name.strip_prefix("OS_")
        .is_some_and(|rest| rest.contains("__"))
}

/// Reads a file of environment variables: `/proc/PID/environ`, or lines `NAME=VALUE` as service managers have them, with
/// comments, `export` and quotes. Variables that set no option are left out.
///
/// # Errors
///
/// The file cannot be read, or a line is no assignment.
pub(super) fn environment_file(path: &Path) -> Result<BTreeMap<String, String>, ParseError> {
    let error = |line: usize, reason: String| ParseError {
        path: path.to_owned(),
        line,
        reason,
    };
    let bytes = std::fs::read(path).map_err(|why| error(0, format!("cannot read it: {why}")))?;
    let text = String::from_utf8_lossy(&bytes);
    let is_process = text.contains('\0');
    let mut found = BTreeMap::new();
    for (index, line) in text.split(if is_process { '\0' } else { '\n' }).enumerate() {
        let line = match is_process {
            true => line,
            false => line.trim().strip_prefix("export ").unwrap_or(line.trim()),
        };
        if line.is_empty() || (!is_process && line.starts_with(['#', ';'])) {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            return Err(error(index + 1, "it is not 'NAME=VALUE'".to_owned()));
        };
        let quoted = ['"', '\'']
            .into_iter()
            .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
        let value = if is_process {
            value
        } else {
            quoted.unwrap_or(value)
        };
        if is_option(name) {
            found.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        folder
    }

    fn names(root: &Path, found: &Found) -> Vec<String> {
        let relative = |path: &PathBuf| {
            path.strip_prefix(root)
                .unwrap_or(path)
                .display()
                .to_string()
        };
        found.paths.iter().map(relative).collect()
    }

    #[test]
    fn folders_are_read_in_the_order_of_names_where_they_are_given() {
        let root = folder(&[
            ("a.conf", ""),
            ("d/2.conf", ""),
            ("d/10.conf", ""),
            ("d/.3.conf", ""),
            ("d/4.conf.bak", ""),
        ]);
        let sources = [
            Source::Folder(root.path().join("d")),
            Source::File(root.path().join("a.conf")),
        ];
        let found = find(&sources, None).expect("files");
        assert_eq!(
            names(root.path(), &found),
            ["d/10.conf", "d/2.conf", "a.conf"]
        );
    }

    #[test]
    fn the_folder_beside_a_file_counts_when_no_folder_is_named() {
        let root = folder(&[
            ("zaqar.conf", ""),
            ("zaqar.conf.d/1.conf", ""),
            ("other/2.conf", ""),
        ]);
        let file = Source::File(root.path().join("zaqar.conf"));
        let found = find(std::slice::from_ref(&file), None).expect("files");
        assert_eq!(
            names(root.path(), &found),
            ["zaqar.conf", "zaqar.conf.d/1.conf"]
        );
        assert_eq!(found.notes.len(), 1);
        let found = find(&[file, Source::Folder(root.path().join("other"))], None).expect("files");
        assert_eq!(names(root.path(), &found), ["zaqar.conf", "other/2.conf"]);
    }

    #[test]
    fn without_sources_the_files_of_the_user_come_before_those_of_the_machine() {
        let root = folder(&[
            (".zaqar/zaqar.conf", ""),
            ("zaqar.conf", ""),
            ("zaqar-server.conf", ""),
            ("zaqar.conf.d/1.conf", ""),
            ("other/2.conf", ""),
        ]);
        let found = find(&[], Some(root.path())).expect("files");
        assert_eq!(
            names(root.path(), &found),
            [
                ".zaqar/zaqar.conf",
                "zaqar-server.conf",
                "zaqar.conf.d/1.conf"
            ]
        );
        let other = Source::Folder(root.path().join("other"));
        let found = find(&[other], Some(root.path())).expect("files");
        assert_eq!(
            names(root.path(), &found),
            [".zaqar/zaqar.conf", "zaqar-server.conf", "other/2.conf"]
        );
    }

    #[test]
    fn a_folder_that_does_not_exist_is_an_error() {
        assert!(find(&[Source::Folder("/nowhere/at/all".into())], None).is_err());
    }

    #[test]
    fn environment_files_are_lines_or_what_the_kernel_shows() {
        let root = folder(&[
            (
                "unit",
                "# comment\nOS_SIGNED_URL__SECRET_KEY=\"a b\"\nexport OS_DEFAULT__DEBUG=true\nPATH=/bin\n",
            ),
            ("environ", "OS_SIGNED_URL__SECRET_KEY=\"a\0PATH=/bin\0"),
            ("wrong", "PATH=/bin\nword\n"),
        ]);
        let read = |name: &str| environment_file(&root.path().join(name));
        let unit = read("unit").expect("variables");
        assert_eq!(unit.len(), 2);
        assert_eq!(unit["OS_SIGNED_URL__SECRET_KEY"], "a b");
        assert_eq!(
            read("environ").expect("variables")["OS_SIGNED_URL__SECRET_KEY"],
            "\"a"
        );
        assert_eq!(read("wrong").expect_err("no assignment").line, 2);
    }
}
