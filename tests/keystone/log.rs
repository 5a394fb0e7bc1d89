//! Everything that is logged, at every level, by every crate; and the secrets that must not be in it.

use std::io::{self, Write};
use std::sync::{LazyLock, Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static SECRETS: Mutex<Vec<String>> = Mutex::new(Vec::new());

static RECORDING: LazyLock<()> = LazyLock::new(|| {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(Recorder)
        .init();
    // What Keystone did says most about a test that failed.
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        let log = text();
        let is_told = |line: &&str| line.contains(" WARN isimud") || line.contains("ERROR isimud");
        for line in log.lines().filter(is_told) {
            drop(writeln!(io::stderr(), "{line}"));
        }
    }));
});

struct Recorder;

impl io::Write for Recorder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
        log.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Recorder {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

/// Records everything from now on.
pub(crate) fn record() {
    LazyLock::force(&RECORDING);
}

/// Notes a text that must never be logged.
pub(crate) fn keep_secret(text: &str) {
    record();
    let mut secrets = SECRETS.lock().unwrap_or_else(PoisonError::into_inner);
    secrets.push(text.to_owned());
}

/// All lines so far.
pub(crate) fn text() -> String {
    let log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    String::from_utf8_lossy(&log).into_owned()
}

/// The number of lines that have a text.
pub(crate) fn count(wanted: &str) -> usize {
    text().lines().filter(|line| line.contains(wanted)).count()
}

/// Fails when a secret stands in the log. Of a token a part is enough: it would tell who has which.
pub(crate) fn assert_no_secret() {
    let log = text();
    assert!(!log.is_empty(), "nothing is recorded");
    let secrets = SECRETS.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(!secrets.is_empty());
    for secret in secrets.iter() {
        let part = &secret[secret.len().saturating_sub(24)..];
        let line = log.lines().find(|line| line.contains(part));
        assert!(line.is_none(), "a secret is logged: {line:?}");
    }
}
