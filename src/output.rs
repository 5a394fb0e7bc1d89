//! What commands print.

use std::fmt::Display;
use std::io::{ErrorKind, Result, Write};

/// Prints a line to standard output. Whoever reads it may have seen enough (`isimud openapi | head`): that is no failure.
pub(crate) fn line(text: impl Display) -> Result<()> {
    print(format!("{text}\n"))
}

/// Prints a text to standard output, as it is.
pub(crate) fn print(text: impl Display) -> Result<()> {
    let mut out = std::io::stdout();
    let text = text.to_string();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

/// Prints a line to standard error, which may be closed: there is nobody else to tell.
pub(crate) fn complain(text: impl Display) {
    drop(writeln!(std::io::stderr(), "isimud: {text}"));
}
