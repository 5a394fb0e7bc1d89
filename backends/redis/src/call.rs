//! A script, and a call of it to be.

use isimud_contract::{MessageId, Timestamp};
use redis::{Cmd, ErrorKind, RedisError, Script, ServerErrorKind};

use crate::config::Time;
use crate::keys::Keys;

/// A script's text and its digest.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) text: &'static str,
    pub(crate) digest: String,
}

impl Source {
    pub(crate) fn new(text: &'static str) -> Self {
        Self {
            text,
            digest: Script::new(text).get_hash().to_owned(),
        }
    }
}

/// A call to be: a script and what it is about.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) source: &'static Source,
    pub(crate) command: Cmd,
}

impl Call {
    pub(crate) fn new<K: AsRef<str>>(source: &'static Source, keys: &[&[K]]) -> Self {
        let mut command = redis::cmd("EVALSHA");
        let count: usize = keys.iter().map(|keys| keys.len()).sum();
        command.arg(source.digest.as_str()).arg(count);
        for key in keys.iter().copied().flatten() {
            command.arg(key.as_ref());
        }
        Self { source, command }
    }

    /// Whether it failed because the server does not know the script.
    pub(crate) fn is_unknown(error: &RedisError) -> bool {
        error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
    }

    /// The same call with the script's text in the place of its digest, which also makes the server remember it.
    pub(crate) fn with_text(&self) -> Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(self.source.text);
        for argument in self.command.args_iter().skip(2) {
            if let redis::Arg::Simple(bytes) = argument {
                command.arg(bytes);
            }
        }
        command
    }

    /// A call about a queue, or about several, with the clock in front of the other arguments.
    pub(crate) fn on_queues<'a>(
        source: &'static Source,
        time: &Time,
        queues: impl Iterator<Item = &'a Keys> + Clone,
    ) -> Self {
        // Room for what most calls have besides.
        const ARGUMENTS: usize = 16;
        const BYTES: usize = 256;
        let (count, bytes) = queues.clone().fold((0, 0), |(count, bytes), keys| {
            (count + keys.count(), bytes + keys.bytes())
        });
        let mut command = Cmd::with_capacity(count + ARGUMENTS, bytes + BYTES);
        command
            .arg("EVALSHA")
            .arg(source.digest.as_str())
            .arg(count);
        for key in queues.flat_map(Keys::all) {
            command.arg(key);
        }
        Self { source, command }.clock(time)
    }

    pub(crate) fn clock(mut self, time: &Time) -> Self {
        use std::sync::atomic::Ordering;
        match time {
            Time::Server => self.command.arg(0),
            Time::Ahead(offset) => self.command.arg(offset.load(Ordering::SeqCst)),
            Time::Other(clock) => self.command.arg(format!("@{}", clock.now().0)),
        };
        self
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.command.arg(bytes);
        self
    }

    pub(crate) fn float(mut self, number: f64) -> Self {
        self.command.arg(number);
        self
    }

    /// A moment of this server's clock.
    pub(crate) fn moment(mut self, moment: Timestamp) -> Self {
        self.command.arg(moment.0);
        self
    }

    pub(crate) fn number(mut self, number: usize) -> Self {
        self.command.arg(number);
        self
    }

    pub(crate) fn ids(mut self, ids: &[MessageId]) -> Self {
        for id in ids {
            self.command.arg(id.0.as_bytes());
        }
        self
    }
}
