//! Processes that end with the program that started them.

use std::process::{Child, Command, Stdio};

/// A running process. It ends when it is dropped, and when the process that started it ends.
#[derive(Debug)]
pub(crate) struct Guarded {
    pub(crate) process: Child,
    /// Waits for the end of its input, which comes when nobody is left to write it, and kills the process.
    guard: Child,
}

impl Guarded {
    pub(crate) fn of(mut process: Child) -> Result<Self, String> {
        let guard = Command::new("sh")
            .args(["-c", "read -r never; kill -9 \"$0\""])
            .arg(process.id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match guard {
            Ok(guard) => Ok(Self { process, guard }),
            Err(error) => {
                end(&mut process);
                Err(format!("the server cannot be guarded: {error}"))
            }
        }
    }

    /// Sends the process a signal, named as `kill` takes it.
    pub(crate) fn signal(&self, name: &str) -> Result<(), String> {
        let number = self.process.id().to_string();
        match Command::new("kill").args([name, &number]).status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("kill {name} ended with {status}")),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(crate) fn kill(&mut self) {
        // The guard first: afterwards the number may be another process's.
        end(&mut self.guard);
        end(&mut self.process);
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.kill();
    }
}

fn end(process: &mut Child) {
    // It may have ended by itself; then there is nothing to do.
    process.kill().and_then(|()| process.wait()).ok();
}
