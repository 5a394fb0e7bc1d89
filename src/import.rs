//! `isimud import`: takes over what another service left, into the stores that the configuration names.
//!
//! ```text
//! flags      what the command line says          zaqar      a Zaqar's queues, messages, claims, subscriptions
//! target     where it all goes, or nowhere       elements   Redis lists, streams and jobs as one queue's messages
//! journal    how far an import has come          report     what was done, and what was left out
//! store_retry   retries calls of a store that does not answer    page_size   how much is read at once
//! left_out   the file of what was left out       progress   a bar on a terminal
//! lock       one import at a time fills a queue
//! ```
//!
//! An import can be repeated. Everything has the id that it had, or one that is made of what it is, and a store leaves
//! alone what it has already; so an import that was broken off is finished by starting it again. What that cannot know
//! is what was consumed here meanwhile: with a journal a later import goes on where the last one was, and without one it
//! would bring such messages back.
//!
//! **Every element of the source is accounted for**: it is new, or was there, or was consumed here, or had ended, or is
//! left out under its name with a reason. One that cannot be taken stops neither its neighbours nor the other queues.
//! What ends the whole are a source that stays away, a journal that cannot be written, and a signal; then the report
//! says how far the import came.
//!
//! The sources are only read (see `isimud-import-sources`). A dry run opens no store either; it goes by what the
//! configured one says of itself.

mod elements;
mod flags;
mod journal;
mod left_out;
mod lock;
mod page_size;
mod progress;
mod report;
mod store_retry;
mod target;
mod zaqar;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use isimud_contract::{Error, ErrorKind, Result};

pub use flags::Import;
pub use report::Report;

use self::flags::{From, Shared};
use self::journal::Journal;
use self::left_out::LeftOut;
use self::progress::Progress;
use self::target::Target;
use crate::clock::SteadyClock;
use crate::config::{Config, Flags};
use crate::messaging::limits::Limits;
use crate::{drivers, telemetry};

/// Told to an import that is to end: it stores what it has read, and reads no more.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Tells it.
    pub fn tell(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_told(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What an import did, and what ended it before its time.
#[derive(Debug)]
pub struct Outcome {
    /// What was done until then.
    pub report: Report,
    /// Why it is not complete; it may be started again.
    pub error: Option<Error>,
}

/// What an import works with.
struct Work {
    target: Target,
    journal: Journal,
    left_out: LeftOut,
    progress: Progress,
    limits: Limits,
    stop: Stop,
    /// Something ended the import: parts that are under way end where they are.
    ended: AtomicBool,
}

impl Work {
    fn is_over(&self) -> bool {
        self.stop.is_told() || self.ended.load(Ordering::Acquire)
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Remembers something that was not taken over.
    fn leave(
        &self,
        report: &mut Report,
        why: impl Into<String>,
        what: impl Into<String>,
    ) -> Result<()> {
        let (why, what) = (why.into(), what.into());
        self.left_out.note(&why, &what)?;
        report.leave(why, what);
        Ok(())
    }

    /// Remembers a message that was not taken over.
    fn leave_message(
        &self,
        report: &mut Report,
        why: impl Into<String>,
        what: impl Into<String>,
    ) -> Result<()> {
        report.messages_left += 1;
        self.leave(report, why, what)
    }
}

/// Imports what the flags say. An error for what ends it before it has begun.
pub async fn run(import: Import, stop: Stop) -> Result<Outcome> {
    let shared = import.shared();
    let config = configuration(shared)?;
    let place = drivers::shown(&config.store);
    let journal = match &shared.journal {
        Some(path) => Journal::open(path, &place, !shared.dry_run)?,
        None => Journal::none(),
    };
    let left_out = LeftOut::open(shared.left_out.as_deref())?;
    let work = Work {
        target: open(shared, &config, &stop).await?,
        journal,
        left_out,
        progress: Progress::new(),
        limits: config.limits.clone(),
        stop,
        ended: AtomicBool::new(false),
    };
    let mut report = Report::new(place, shared.dry_run);
    let done = match import.from {
        From::Zaqar(flags) => zaqar::run(&work, &flags, &config, &mut report).await,
        From::RedisList(flags) => elements::run_list(&work, &flags, &config, &mut report).await,
        From::RedisStream(flags) => elements::run_stream(&work, &flags, &config, &mut report).await,
    };
    work.progress.finish();
    let able = work.target.able();
    if !able.browse {
        report.note(
            "the store keeps no journal (its option 'journal' is off), and cannot tell new messages from those that it has",
            "what it had already counts as new, and is delivered once",
        );
    } else if able.deduplicates {
        report.note(
            "the store remembers what was consumed here, and does not deliver it again",
            "such messages of an earlier import count as new; with --journal they are told",
        );
    }
    let closed = work.target.close().await;
    let told = match work.stop.is_told() {
        true => Err(Error::new(
            ErrorKind::Unavailable,
            "the import was told to stop; started again, it goes on",
        )),
        false => Ok(()),
    };
    Ok(Outcome {
        report,
        error: done.and(told).and(closed).err(),
    })
}

/// The server's own configuration, with the stores that the flags name.
fn configuration(shared: &Shared) -> Result<Config> {
    let wrong = |error: crate::config::ConfigError| Error::invalid(error.to_string());
    let config = Config::load(&Flags {
        config: shared.config.clone(),
        store: shared.store.clone(),
        management: shared.store_management.clone(),
        ..Flags::default()
    })
    .map_err(wrong)?;
    for uri in std::iter::once(&config.store).chain(&config.management) {
        drivers::check(uri)?;
    }
    telemetry::start_logging(&config.log).map_err(wrong)?;
    Ok(config)
}

async fn open(shared: &Shared, config: &Config, stop: &Stop) -> Result<Target> {
    if shared.dry_run {
        return Ok(Target::nowhere(drivers::capabilities(&config.store)?));
    }
    let opened = crate::open_messaging(
        config,
        Arc::new(SteadyClock::default()),
        Err("nothing is asked of Keystone"),
    );
    let crate::Core {
        messaging,
        management,
        ..
    } = opened.map_err(|error| {
        let embedded = config.store.starts_with("sqlite:");
        if embedded && error.sentence().contains("in use") {
            let sentence = "the embedded store belongs to one process at a time: stop the server that uses it, import, \
                            and start the server again (a Redis store can be imported into while servers use it)";
            return Error::new(error.kind(), sentence).caused_by(error);
        }
        error
    })?;
    // Now, and not after everything was read.
    messaging.ping().await?;
    // An embedded one belongs to one process.
    let management_uri = config.management.as_ref().unwrap_or(&config.store);
    let locks = (!management_uri.starts_with("sqlite:")).then_some(management);
    Ok(Target::new(messaging, locks, stop.clone()))
}
