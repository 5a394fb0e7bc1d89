//! `isimud import`: takes over what another service left, into the stores that the configuration names.
//!
//! ```text
//! flags      what the command line says          zaqar      a Zaqar's queues, messages, claims, subscriptions
//! target     where it all goes, or nowhere       elements   a Redis list or stream as one queue's messages
//! journal    how far an import has come          report     what was done, and what was left behind
//! progress   a bar on a terminal
//! ```
//!
//! An import can be repeated. Everything has the id that it had, or one that is made of what it is, and a store leaves
//! alone what it has already; so an import that was broken off is finished by starting it again. What that cannot know
//! is what was consumed here meanwhile: with a journal a later import goes on where the last one was, and without one it
//! would bring such messages back.
//!
//! The sources are only read (see `isimud-estates`). A dry run opens no store either.

mod elements;
mod flags;
mod journal;
mod progress;
mod report;
mod target;
mod zaqar;

use std::sync::Arc;

use isimud_contract::{Error, Result};

pub use flags::Import;
pub use report::Report;

use self::flags::{From, Shared};
use self::journal::Journal;
use self::progress::Progress;
use self::target::Target;
use crate::clock::SteadyClock;
use crate::config::{Config, Flags};
use crate::messaging::limits::Limits;
use crate::{drivers, telemetry};

/// Messages that are read, and looked up, at once.
const PAGE: usize = 250;

/// What an import works with.
struct Work {
    target: Target,
    journal: Journal,
    progress: Progress,
    limits: Limits,
}

/// Imports what the flags say, and returns what there is to tell. An error ends the import where it is; it may be
/// started again.
pub async fn run(import: Import) -> Result<Report> {
    let shared = import.shared();
    let config = configuration(shared)?;
    let place = drivers::shown(&config.store);
    let work = Work {
        target: open(shared, &config).await?,
        journal: match &shared.journal {
            Some(path) => Journal::open(path, &place, !shared.dry_run)?,
            None => Journal::none(),
        },
        progress: Progress::new(),
        limits: config.limits.clone(),
    };
    let mut report = Report::new(place, shared.dry_run);
    let done = match import.from {
        From::Zaqar(flags) => zaqar::run(&work, &flags, &config, &mut report).await,
        From::RedisList(flags) => elements::run_list(&work, &flags, &config, &mut report).await,
        From::RedisStream(flags) => elements::run_stream(&work, &flags, &config, &mut report).await,
    };
    work.progress.finish();
    work.target.close().await?;
    done.map(|()| report)
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

async fn open(shared: &Shared, config: &Config) -> Result<Target> {
    if shared.dry_run {
        return Ok(Target::nowhere());
    }
    let opened = crate::open_messaging(config, Arc::new(SteadyClock::default()));
    let crate::Rules { messaging, .. } = opened.map_err(|error| {
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
    Ok(Target::new(messaging))
}
