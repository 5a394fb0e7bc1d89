//! The file of what was left out: the report names ten of a kind, and this all of them, as JSON lines.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use isimud_contract::{Error, ErrorKind, Result};
use serde_json::json;

/// The file, or none.
#[derive(Debug)]
pub(super) struct LeftOut(Option<(PathBuf, Mutex<File>)>);

impl LeftOut {
    /// Makes the file anew.
    pub(super) fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else {
            return Ok(Self(None));
        };
        let file = File::create(path).map_err(|error| failed(path, error))?;
        Ok(Self(Some((path.to_owned(), Mutex::new(file)))))
    }

    pub(super) fn note(&self, why: &str, what: &str) -> Result<()> {
        let Some((path, file)) = &self.0 else {
            return Ok(());
        };
        let line = format!("{}\n", json!({"what": what, "why": why}));
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes())
            .map_err(|error| failed(path, error))
    }
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    let sentence = "the file of what is left out cannot be written";
    Error::new(ErrorKind::Unavailable, sentence)
        .with("file", path.display())
        .caused_by(error)
}
