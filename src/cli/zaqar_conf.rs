//! `isimud config import`: from the configuration of a Zaqar to one of this server (spec: zaqar-conf.md 1 to 4).
//!
//! ```text
//! sources   which files, in which order            ini       a file, as assignments with their lines
//! schema    the options that the reference has     value     what a text means as one of its types
//! reader    the value of an option, and where it is set
//! mapping   what becomes of each option            redis_uri the one value that needs translating
//! document  the TOML that is written               report    what became of each option
//! output    files: no overwriting, secrets for their owner alone
//! ```
//!
//! The import reads files and writes files; it opens no connection, and gives the same bytes for the same input. What the
//! reference refuses it refuses, with the place: a configuration that was never in effect is no good source.
//!
//! The road not taken: running the reference's own reader. It would need its virtual environment on the machine of every
//! operator, and it says neither the line of a value nor that it ignored one. Tests run it, and compare.

#[cfg(test)]
mod differential;
mod document;
mod ini;
mod mapping;
mod output;
mod reader;
mod redis_uri;
mod report;
mod schema;
mod sources;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

pub(crate) use self::mapping::Server;
pub(crate) use self::report::Report;
pub(crate) use self::sources::Source;

use self::document::Secrets;
use self::mapping::{Decisions, Mapped};
use self::output::NewFile;
use self::reader::Reader;

/// Where the configuration goes that is printed.
const STANDARD_OUTPUT: &str = "-";

/// What `isimud config import` is told.
#[derive(Debug, Args)]
pub(crate) struct Import {
    #[command(flatten)]
    sources: Sources,
    /// The environment of the Zaqar service, in which OS_GROUP__OPTION sets options: lines NAME=VALUE, or
    /// /proc/PID/environ. Beside it, such variables of this command count.
    #[arg(long, value_name = "FILE")]
    environment: Vec<PathBuf>,
    /// The store of messages, instead of the one that the files name.
    #[arg(long, value_name = "URI")]
    store: Option<String>,
    /// The store of queues [default: that of the files, or with the messages].
    #[arg(long, value_name = "URI")]
    management: Option<String>,
    /// The configuration to write; - prints it.
    #[arg(long, short, value_name = "FILE", default_value = "isimud.toml")]
    out: PathBuf,
    /// The folder for secrets, a file each [default: NAME.secrets beside the configuration].
    #[arg(long, value_name = "FOLDER", conflicts_with = "secrets_in_file")]
    secrets: Option<PathBuf>,
    /// Write secrets into the configuration itself.
    #[arg(long)]
    secrets_in_file: bool,
    /// Replace files that exist.
    #[arg(long)]
    force: bool,
    /// Count what means something else than before (changed) as left.
    #[arg(long)]
    strict: bool,
}

/// `--zaqar` and `--dir`, in the order in which they are given: a later file wins over an earlier one.
#[derive(Debug, Clone, Default)]
struct Sources(Vec<Source>);

impl Args for Sources {
    fn augment_args(command: Command) -> Command {
        let path = |name: &'static str| {
            Arg::new(name)
                .long(name)
                .action(ArgAction::Append)
                .value_parser(clap::value_parser!(PathBuf))
        };
        command
            .arg(path("zaqar").value_name("FILE").help(
                "A configuration file of Zaqar; a later one wins [default: where Zaqar looks]",
            ))
            .arg(path("dir").value_name("FOLDER").help(
                "A folder of configuration files (*.conf), as --config-dir of Zaqar [default: FILE.d beside each file]",
            ))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Sources {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |name: &str, source: fn(PathBuf) -> Source| -> Vec<(usize, Source)> {
            let paths = matches
                .get_many::<PathBuf>(name)
                .into_iter()
                .flatten()
                .cloned();
            let indices = matches.indices_of(name).into_iter().flatten();
            indices.zip(paths.map(source)).collect()
        };
        let mut sources = given("zaqar", Source::File);
        sources.extend(given("dir", Source::Folder));
        sources.sort_by_key(|(index, _)| *index);
        Ok(Self(
            sources.into_iter().map(|(_, source)| source).collect(),
        ))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// What an import came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What became of each option.
    pub(crate) report: Report,
    /// The configuration, where it is to be printed.
    pub(crate) printed: Option<String>,
    /// What to do next, a command each.
    pub(crate) next: Vec<String>,
    /// The exit code: 0, or 3 where something is left.
    pub(crate) code: u8,
}

/// Why nothing was written.
#[derive(Debug)]
pub(crate) struct ImportError {
    /// A sentence for each thing that is wrong, with its place.
    pub(crate) sentences: Vec<String>,
    /// The exit code: 2 where something cannot be read, 1 where something cannot be written.
    pub(crate) code: u8,
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentences.join("\n"))
    }
}

impl std::error::Error for ImportError {}

impl ImportError {
    fn unreadable<T: fmt::Display>(errors: impl IntoIterator<Item = T>) -> Self {
        Self {
            sentences: errors.into_iter().map(|error| error.to_string()).collect(),
            code: 2,
        }
    }

    fn unwritable(sentence: String) -> Self {
        Self {
            sentences: vec![sentence],
            code: 1,
        }
    }
}

/// The exit code of an import that left something.
const LEFT: u8 = 3;

/// What the process has that runs the import.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surroundings {
    /// Variables of the environment.
    pub(crate) environment: BTreeMap<String, String>,
    /// The home of the user, which is searched first.
    pub(crate) home: Option<PathBuf>,
}

impl Surroundings {
    /// Those of this process. Variables that are no text are left out.
    pub(crate) fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self {
            environment: std::env::vars_os().filter_map(text).collect(),
            home: std::env::var_os("HOME").map(PathBuf::from),
        }
    }
}

/// Imports: reads, translates, writes.
///
/// # Errors
///
/// A file cannot be read, a value is wrong where it is used (exit code 2, with file and line), or a file exists or cannot be
/// written (exit code 1). Nothing is written then, or, if the disk fails half-way, no configuration that names what is
/// missing.
pub(crate) fn run(
    import: &Import,
    server: Server<'_>,
    surroundings: &Surroundings,
) -> Result<Outcome, ImportError> {
    let home = surroundings.home.as_deref();
    let found =
        sources::find(&import.sources.0, home).map_err(|error| ImportError::unreadable([error]))?;
    let files = sources::read(&found.paths).map_err(ImportError::unreadable)?;
    let environment = environment(import, surroundings)?;
    let is_silent = environment.is_empty();
    let reader = Reader::new(files, environment);
    let decisions = Decisions {
        store: import.store.clone(),
        management: import.management.clone(),
        folders: folders(&import.sources, home),
    };
    let mut mapped = mapping::map(&reader, server, &decisions).map_err(ImportError::unreadable)?;
    for note in found.notes {
        mapped.report.note(note);
    }
    if is_silent {
        mapped.report.note(
            "no environment variable OS_GROUP__OPTION was seen; if the service has some, they win \
             over its files: name them with --environment",
        );
    }
    finish(import, &found.paths, mapped)
}

fn environment(
    import: &Import,
    surroundings: &Surroundings,
) -> Result<BTreeMap<String, String>, ImportError> {
    let own = surroundings
        .environment
        .iter()
        .filter(|(name, _)| sources::is_option(name));
    let mut environment: BTreeMap<String, String> = own
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    for path in &import.environment {
        let read =
            sources::environment_file(path).map_err(|error| ImportError::unreadable([error]))?;
        environment.extend(read);
    }
    Ok(environment)
}

/// Where the reference looks for files that an option names: the folders that are named, those of the files (which the
/// reader knows), and those of the machine.
fn folders(sources: &Sources, home: Option<&Path>) -> Vec<PathBuf> {
    let named = sources.0.iter().filter_map(|source| match source {
        Source::Folder(path) => Some(path.clone()),
        Source::File(_) => None,
    });
    let mut folders: Vec<PathBuf> = named.collect();
    if sources.0.is_empty() {
        folders.extend(sources::search_folders(home));
    }
    folders
}

/// Where things are written.
struct Place {
    /// The configuration, as an absolute path; `None` to print it.
    out: Option<PathBuf>,
    /// The folder for secrets, where there is one.
    folder: Option<PathBuf>,
    has_inline_secrets: bool,
}

impl Place {
    fn of(import: &Import) -> Self {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let is_printed = import.out.as_os_str() == STANDARD_OUTPUT;
        let out = (!is_printed).then(|| absolute(&import.out));
        let beside = out.as_ref().map(|out| out.with_extension("secrets"));
        Self {
            out,
            folder: import.secrets.as_deref().map(absolute).or(beside),
            has_inline_secrets: import.secrets_in_file,
        }
    }

    fn secrets(&self) -> Secrets<'_> {
        match (&self.folder, self.has_inline_secrets) {
            (_, true) => Secrets::Inline,
            (Some(folder), false) => Secrets::Folder(folder),
            (None, false) => Secrets::Omitted,
        }
    }

    /// The file of policies: beside the configuration, or with the secrets where that is printed.
    fn policies(&self) -> Option<PathBuf> {
        let beside = self
            .out
            .as_ref()
            .map(|out| out.with_extension("policy.yaml"));
        beside.or_else(|| {
            self.folder
                .as_ref()
                .map(|folder| folder.join("policy.yaml"))
        })
    }
}

/// Writes what is to be written.
fn finish(import: &Import, paths: &[PathBuf], mut mapped: Mapped) -> Result<Outcome, ImportError> {
    let place = Place::of(import);
    let mut files: Vec<NewFile> = policy_file(&place, &mut mapped).into_iter().collect();
    files.extend(secret_files(&place, &mut mapped));
    let Mapped {
        document,
        report,
        mut next,
        ..
    } = mapped;
    let text = document.render(&head(paths), place.secrets());
    let printed = match &place.out {
        None => Some(text),
        Some(out) => {
            files.push(NewFile {
                path: out.clone(),
                text,
                is_private: place.has_inline_secrets && document.secrets().next().is_some(),
            });
            next.insert(0, format!("isimud --config '{}' --check", out.display()));
            for command in &mut next {
                *command =
                    command.replace("--config CONFIG", &format!("--config '{}'", out.display()));
            }
            None
        }
    };
    write(&files, place.folder.as_deref(), import.force).map_err(ImportError::unwritable)?;
    let is_left = !report.is_complete() || (import.strict && report.has_changes());
    Ok(Outcome {
        report,
        printed,
        next,
        code: if is_left { LEFT } else { 0 },
    })
}

fn policy_file(place: &Place, mapped: &mut Mapped) -> Option<NewFile> {
    let text = mapped.policies.take()?;
    let Some(path) = place.policies() else {
        let why = "printing writes no file of policies: name a folder with --secrets, or a file with --out";
        mapped
            .report
            .add(report::Kind::Left, "policies".to_owned(), None, why);
        return None;
    };
    let comments = vec!["The policies that Zaqar reads, merged into one file.".to_owned()];
    let written = path.to_string_lossy().into_owned();
    mapped
        .document
        .set(mapping::POLICY_KEY, written.into(), comments);
    Some(NewFile {
        path,
        text,
        is_private: false,
    })
}

fn secret_files(place: &Place, mapped: &mut Mapped) -> Vec<NewFile> {
    match place.secrets() {
        Secrets::Inline => Vec::new(),
        Secrets::Folder(folder) => {
            let file = |(name, text): (String, String)| NewFile {
                path: folder.join(name),
                text,
                is_private: true,
            };
            mapped.document.secrets().map(file).collect()
        }
        Secrets::Omitted => {
            for (name, _) in mapped.document.secrets() {
                let why = "a secret, which is not printed: name a folder with --secrets, or ask with --secrets-in-file";
                mapped.report.add(report::Kind::Left, name, None, why);
            }
            Vec::new()
        }
    }
}

fn write(files: &[NewFile], folder: Option<&Path>, force: bool) -> Result<(), String> {
    let is_used = |folder: &&Path| files.iter().any(|file| file.path.parent() == Some(folder));
    let folders = files.iter().filter_map(|file| file.path.parent());
    for parent in folders {
        if !parent.is_dir() && folder != Some(parent) {
            return Err(format!("the folder {} does not exist", parent.display()));
        }
    }
    if let Some(folder) = folder.filter(is_used) {
        output::create_folder(folder)?;
    }
    output::write(files, force)
}

/// The first lines of the configuration.
fn head(paths: &[PathBuf]) -> Vec<String> {
    let mut lines = vec!["Written by 'isimud config import' from:".to_owned()];
    lines.extend(paths.iter().map(|path| format!("  {}", path.display())));
    lines.push("Keys that are not here have their defaults.".to_owned());
    lines
}
