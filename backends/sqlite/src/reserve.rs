//! Space on the disk that is kept for the day when the disk is full: a file beside the database.
//!
//! Deleting takes space before it gives any: what changes goes to the log first. So a disk that posts have filled would
//! refuse deletes as well, for ever. The reserve is given away then, and while it is away nothing that adds to the store is
//! taken; deletes, claims and sweeps have it for themselves. It is twice as large as the log may become, so that all of
//! the log can be written back, which makes it short again. When there is space for it again, and as much for what posts write
//! before it is needed, it is taken back and all is as before.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use crate::lock::{beside, private};
use crate::wal::PAGE;

/// The least reserve: some small calls.
const LEAST: u64 = 256 << 10;

/// The reserve of one store.
#[derive(Debug)]
pub(crate) struct Reserve {
    file: File,
    size: u64,
}

impl Reserve {
    /// Gives away what an earlier server kept: opening may need it.
    pub(crate) fn give_old(path: &Path) {
        if let Ok(file) = File::options().write(true).open(beside(path, "-reserve")) {
            // Else opening goes on without it.
            drop(file.set_len(0));
        }
    }

    /// Makes ready to keep so many bytes; none are kept yet.
    pub(crate) fn open(path: &Path, wanted: u64) -> std::io::Result<Option<Self>> {
        let path = beside(path, "-reserve");
        if wanted == 0 {
            // What an earlier server kept is of no use any more.
            return match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(None),
            };
        }
        let file = private(&path)?;
        file.set_len(0)?;
        let size = match free_space(&path) {
            // A small disk is there for messages.
            Some(free) => wanted.min((free / 8).max(LEAST)),
            None => wanted,
        };
        Ok(Some(Self { file, size }))
    }

    /// Takes the space, and proves that there is as much again: room for a whole log and for some messages. Returns
    /// whether it could.
    pub(crate) fn take(&self) -> bool {
        let more = 2 * self.size;
        let taken = self.fill(more).and_then(|()| self.file.set_len(self.size));
        if taken.is_err() {
            self.give();
        }
        taken.is_ok()
    }

    /// Gives the space away.
    pub(crate) fn give(&self) {
        if let Err(error) = self.file.set_len(0) {
            tracing::warn!(%error, "cannot give away the reserve of the embedded store");
        }
    }

    /// Pages that the log may have before it is written back.
    pub(crate) fn log_pages(&self) -> i32 {
        i32::try_from(self.size / 2 / PAGE).unwrap_or(i32::MAX)
    }

    fn fill(&self, size: u64) -> std::io::Result<()> {
        match fallocate(&self.file, FallocateFlags::empty(), 0, size) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let zeros = [0; 64 << 10];
                let mut left = size;
                let mut file = &self.file;
                std::io::Seek::rewind(&mut file)?;
                while left > 0 {
                    let part = left.min(zeros.len() as u64);
                    file.write_all(&zeros[..part as usize])?;
                    left -= part;
                }
                Ok(())
            }
            filled => Ok(filled?),
        }
    }
}

/// Bytes that are free on the disk of a file.
fn free_space(path: &Path) -> Option<u64> {
    let disk = statvfs(path).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}
