//! Interpreters with the packages that tests need.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The interpreter of a virtual environment, by the name of the script that makes it: `clients`, `moto` or `zaqar`.
pub fn python(name: &str) -> Result<PathBuf, String> {
    let script = crate::file(&format!("scripts/{name}-venv"));
    let output = Command::new(&script).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("{}: {error}", script.display()))?;
    if !output.status.success() {
        return Err(format!("{} has failed", script.display()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().into())
}
