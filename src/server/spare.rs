//! Descriptors that are kept for the moment when there are no others.
//!
//! An accepted connection is a descriptor, and the process has only so many of them: files, connections to brokers and
//! clients share them. A listener for operators keeps some, so that it answers when everything else is taken. That of the
//! API keeps some for all others: it lets them go when it gets none itself, and takes no connection until it has them all
//! again.

use std::fs::File;
use std::io;

/// Descriptors that nobody uses until they are needed.
#[derive(Debug)]
pub(super) struct Spare {
    most: usize,
    kept: Vec<File>,
}

impl Spare {
    /// Keeps so many, as far as there are any.
    pub(super) fn new(most: usize) -> Self {
        let mut spare = Self {
            most,
            kept: Vec::new(),
        };
        spare.refill();
        spare
    }

    /// Lets one go, if there is one, for the next that is opened.
    pub(super) fn give(&mut self) -> bool {
        self.kept.pop().is_some()
    }

    /// Lets all of them go.
    pub(super) fn give_all(&mut self) {
        self.kept.clear();
    }

    /// Keeps as many again. Whether there are enough.
    pub(super) fn refill(&mut self) -> bool {
        while self.kept.len() < self.most {
            match File::open("/dev/null") {
                Ok(file) => self.kept.push(file),
                Err(_) => return false,
            }
        }
        true
    }
}

/// Whether an error says that there is no descriptor left, in the process or in the system.
pub(super) fn is_out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errors = [Errno::MFILE, Errno::NFILE];
    errors
        .map(|error| Some(error.raw_os_error()))
        .contains(&error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_descriptors_are_reserved_again() {
        let mut spare = Spare::new(2);
        assert!(spare.give() && spare.give() && !spare.give());
        assert!(spare.refill());
        assert!(spare.give());
        spare.give_all();
        assert!(!spare.give());
    }
}
