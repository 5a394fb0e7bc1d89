//! A bar on a terminal; silence elsewhere.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows how far an import is.
#[derive(Debug)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn new() -> Self {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let form = "{bar:40} {pos}/{len} messages, {per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// Whether somebody sees it.
    pub(super) fn is_seen(&self) -> bool {
        !self.0.is_hidden()
    }

    /// There are so many more entries than were known of.
    pub(super) fn expect(&self, entries: u64) {
        self.0.inc_length(entries);
    }

    /// So many entries have been dealt with.
    pub(super) fn advance(&self, entries: usize) {
        self.0.inc(entries as u64);
    }

    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}
