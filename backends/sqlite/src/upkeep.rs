//! What the writer does for its file beside calls: it writes the log back, gives space back to the disk, and copes with a
//! disk that is full.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};

use crate::reserve::Reserve;
use crate::wal::{self, LogLength, WriteBack};

/// Free pages that a file may keep, at least: the next messages use them.
const KEPT: i64 = 256;

/// Free pages that are given back in one step: calls wait meanwhile.
const STEP: i64 = 200;

/// Steps that a store on a full disk takes at a time.
const STEPS_WHEN_FULL: usize = 16;

/// How often a store on a full disk looks whether there is room again.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Whether a store's disk is full: for those who ask, and those who would add to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Full(Arc<AtomicBool>);

impl Full {
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, full: bool) -> bool {
        self.0.swap(full, Ordering::Relaxed)
    }
}

/// The upkeep of one file.
#[derive(Debug)]
pub(crate) struct Upkeep {
    path: PathBuf,
    log: LogLength,
    reserve: Option<Reserve>,
    full: Full,
    /// Pages of the log at which it is written back.
    limit: i32,
    /// The same for now: more when a reader kept the last time from being whole.
    next: i32,
    /// When a full disk was last looked at.
    looked: Instant,
    /// Something was written since free pages were last counted.
    has_changed: bool,
    /// There is more to give back, as long as no call comes.
    is_shrinking: bool,
    /// It was said that upkeep fails.
    has_failed: bool,
}

/// Pages of the log at which it is written back where no reserve says otherwise.
const LOG_PAGES: i32 = 2000;

impl Upkeep {
    pub(crate) fn new(path: &Path, log: LogLength, reserve: Option<Reserve>) -> Self {
        let limit = reserve.as_ref().map_or(LOG_PAGES, Reserve::log_pages);
        let upkeep = Self {
            path: path.to_owned(),
            log,
            full: Full::default(),
            limit,
            next: limit,
            looked: Instant::now(),
            has_changed: true,
            is_shrinking: false,
            has_failed: false,
            reserve,
        };
        if upkeep
            .reserve
            .as_ref()
            .is_some_and(|reserve| !reserve.take())
        {
            upkeep.say_full();
        }
        upkeep
    }

    pub(crate) fn full(&self) -> Full {
        self.full.clone()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full.get()
    }

    /// Whether there is something to do as soon as no call waits.
    pub(crate) fn has_work(&self) -> bool {
        self.is_shrinking
    }

    /// After a commit: writes the log back when it is long.
    pub(crate) fn committed(&mut self, connection: &Connection) {
        self.has_changed = true;
        self.is_shrinking = false;
        let pages = self.log.pages();
        // The mark itself is a page of the log.
        if pages < self.next && !(self.is_full() && pages > 1) {
            return;
        }
        let how = match self.is_full() {
            true => WriteBack::All,
            false => WriteBack::Some,
        };
        match wal::write_back(connection, how) {
            Ok(true) => self.next = self.limit,
            // A reader is behind, a backup say.
            Ok(false) => self.next = pages.saturating_add(self.limit / 4),
            Err(error) => {
                self.next = pages.saturating_add(self.limit / 4);
                self.failed(connection, &error);
            }
        }
    }

    /// The disk is full. Makes what room there is, so that trying again makes sense for what adds nothing.
    pub(crate) fn fill(&mut self, connection: &Connection) {
        if !self.is_full() {
            self.say_full();
            self.looked = Instant::now();
        }
        // The log gives back what the post left there that did not fit; where it has no room for the mark, without it.
        let written = wal::write_back(connection, WriteBack::All)
            .or_else(|_| wal::write_back_unmarked(connection, WriteBack::All));
        if let Err(error) = written {
            tracing::debug!(%error, "the log of the embedded store cannot be written back yet");
        }
    }

    fn say_full(&self) {
        if let Some(reserve) = &self.reserve {
            reserve.give();
        }
        if !self.full.set(true) {
            let file = self.path.display();
            tracing::error!(%file, "the disk of the embedded store is full: messages and queues are refused until there is room again; deletes and claims go on");
        }
    }

    /// Between calls: looks whether a full disk has room again; and when no call has come for a while, gives free pages
    /// back to the disk.
    pub(crate) fn tend(&mut self, connection: &Connection, is_idle: bool) {
        let is_due = match self.is_full() {
            true => self.looked.elapsed() >= CHECK_INTERVAL,
            false => is_idle && (self.has_changed || self.is_shrinking),
        };
        if !is_due {
            return;
        }
        self.looked = Instant::now();
        self.has_changed = false;
        let was_shrinking = std::mem::take(&mut self.is_shrinking);
        let steps = if self.is_full() { STEPS_WHEN_FULL } else { 1 };
        let shrunk = (0..steps).try_for_each(|step| {
            if step > 0 && !self.is_shrinking {
                return Ok(());
            }
            let shrinks = self.shrink(connection)?;
            self.is_shrinking = shrinks;
            if self.is_full() || was_shrinking && !shrinks {
                wal::write_back(connection, WriteBack::All)?;
                self.next = self.limit;
            }
            Ok(())
        });
        match shrunk {
            Ok(()) => self.has_failed = false,
            Err(error) => self.failed(connection, &error),
        }
        let has_room = || self.reserve.as_ref().is_none_or(Reserve::take);
        if self.is_full() && has_room() {
            self.full.set(false);
            let file = self.path.display();
            tracing::info!(%file, "the disk of the embedded store has room again");
        }
    }

    /// Gives some free pages back. Returns whether there are more.
    fn shrink(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let count = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let (free, all) = (count("freelist_count")?, count("page_count")?);
        let kept = match self.is_full() {
            true => 0,
            false => KEPT.max((all - free) / 4),
        };
        let spare = free - kept;
        if spare <= 0 {
            return Ok(false);
        }
        // What moves goes to the log, and on a full disk there is room for the usual length of that and no more.
        let most = match self.is_full() {
            true => STEP.min(i64::from(self.limit) / 2).max(1),
            false => STEP,
        };
        let step = spare.min(most);
        connection.execute_batch(&format!("PRAGMA incremental_vacuum({step})"))?;
        let left = count("freelist_count")?;
        // A file that was made without the means for it stays as it is.
        Ok(left < free && left > kept)
    }

    fn failed(&mut self, connection: &Connection, error: &rusqlite::Error) {
        if is_full(error) {
            self.fill(connection);
        } else if !std::mem::replace(&mut self.has_failed, true) {
            let file = self.path.display();
            tracing::warn!(%file, %error, "the upkeep of the embedded store fails");
        }
    }
}

/// Whether SQLite failed for want of space.
pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::Config;
    use crate::schema;

    impl Upkeep {
        pub(crate) fn limit(&self) -> i32 {
            self.limit
        }
    }

    #[test]
    fn a_file_gives_space_back_when_no_call_has_come_for_a_while() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("isimud.db");
        let store = schema::open(&Config::file(&path)).expect("a new store");
        let mut upkeep = store.upkeep.expect("a file has upkeep");
        let size = || fs::metadata(&path).expect("the file").len();
        for number in 0..2_000 {
            let row = "INSERT INTO queue (project, name, metadata, version) VALUES ('p', ?, ?, 1)";
            let values = (number.to_string(), "x".repeat(8_000));
            store.writer.execute(row, values).expect("a row");
            upkeep.committed(&store.writer);
        }
        store.writer.execute("DELETE FROM queue", []).expect("none");
        upkeep.committed(&store.writer);
        wal::write_back(&store.writer, WriteBack::All).expect("it is written back");
        let full = size();
        assert!(full > 16 << 20, "{full}");
        upkeep.tend(&store.writer, false);
        assert!(!upkeep.has_work(), "calls come");
        let mut steps = 0;
        upkeep.tend(&store.writer, true);
        while upkeep.has_work() {
            steps += 1;
            upkeep.tend(&store.writer, true);
        }
        assert!(steps > 10, "{steps} steps");
        let shrunk = size();
        assert!(shrunk < full / 8, "{shrunk} of {full}");
        upkeep.tend(&store.writer, true);
        assert!(!upkeep.has_work(), "nothing has changed");
    }
}
