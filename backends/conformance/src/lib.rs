//! What the message contract means, as trials that every backend must pass.
//!
//! The docs of `isimud-contract` promise; each trial here holds a store to one promise, named as a sentence. A driver is
//! finished when it passes. Its `tests/conformance.rs` (with `harness = false` in the manifest) describes how to set its
//! backend up, and hands that over:
//!
//! ```no_run
//! use std::process::ExitCode;
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use isimud_conformance::{Fixture, Harness, Start, Stores};
//! use isimud_contract::{Clock, ManualClock, MessageStore, Result, Timestamp};
//!
//! # async fn open_my_store(clock: Arc<ManualClock>) -> Result<Arc<dyn MessageStore>> { unimplemented!() }
//! #[derive(Debug)]
//! struct Memory;
//!
//! #[derive(Debug, Default)]
//! struct Place {
//!     clock: Arc<ManualClock>,
//! }
//!
//! #[async_trait::async_trait]
//! impl Harness for Memory {
//!     fn name(&self) -> &str {
//!         "memory"
//!     }
//!
//!     async fn start(&self) -> Result<Start> {
//!         Ok(Start::Ready(Box::new(Place::default())))
//!     }
//! }
//!
//! #[async_trait::async_trait]
//! impl Fixture for Place {
//!     async fn open(&self) -> Result<Stores> {
//!         Ok(Stores {
//!             messages: open_my_store(Arc::clone(&self.clock)).await?,
//!             management: None,
//!         })
//!     }
//!
//!     fn keeps(&self) -> bool {
//!         false
//!     }
//!
//!     fn now(&self) -> Timestamp {
//!         self.clock.now()
//!     }
//!
//!     async fn advance(&self, span: Duration) {
//!         self.clock.advance(span);
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     isimud_conformance::run(vec![Arc::new(Memory)])
//! }
//! ```
//!
//! The program takes the arguments of any Rust test: a part of a name runs the trials that have it, `--list` shows them.
//! A trial about something that the store's capabilities leave out is shown as ignored, and so is every trial of a
//! backend that is not up, unless `REQUIRE_BACKENDS=1` is in the environment: then it fails.
//!
//! ```text
//! harness     what a driver gives          promise     a promise and its trial
//! bench       a store, a queue, the time   outcome     how a trial stops early
//! steps       the vocabulary of trials
//!
//! posting     bodies      listing     paging      arrivals    reading     deleting    popping
//! claiming    leases      lifetimes   expiry      delay       dead_letters
//! isolation   purging     stats       cost        concurrency durability  refusals
//! importing_claims  (of imported claims)  sharing     (of data by two stores)
//! management  catalogue   placements  (of queues)
//! pools       (and flavors)           subscriptions
//! ledger      (of what a lease broker does not know: judging, noting, claims, deleting, purging, scopes)
//! ```
//!
//! No trial sleeps: time passes when a trial says so. A wrong answer panics in an assertion of the trial, and a call
//! that fails stops the trial at that line. To add a promise, write one function and put its name into the list at the
//! head of its file.
#![warn(missing_docs)]

mod arrivals;
mod bench;
mod harness;
mod outcome;
mod promise;
mod steps;

mod bodies;
mod bounds;
mod catalogue;
mod claiming;
mod concurrency;
mod cost;
mod dead_letters;
mod delay;
mod deleting;
mod durability;
mod expiry;
mod importing_claims;
mod isolation;
mod leases;
mod ledger;
mod lifetimes;
mod listing;
mod logs;
mod management;
mod paging;
mod placements;
mod pools;
mod popping;
mod posting;
mod purging;
mod reading;
mod refusals;
mod sharing;
mod sizes;
mod stats;
mod subscriptions;

use std::process::ExitCode;
use std::sync::Arc;

pub use harness::{Approximations, Fixture, Harness, Start, Stores};
pub use logs::show_logs;

/// Tries every promise on every set-up, as the arguments of the program say, and answers for the process.
pub fn run(harnesses: Vec<Arc<dyn Harness>>) -> ExitCode {
    show_logs();
    let arguments = libtest_mimic::Arguments::from_args();
    let must_be_up = std::env::var("REQUIRE_BACKENDS").is_ok_and(|value| value == "1");
    let trials = harnesses
        .iter()
        .flat_map(|harness| promises().map(|promise| promise.trial(harness, must_be_up)))
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The promises of every family. The slow ones come first, so that the others run beside them.
fn promises() -> impl Iterator<Item = promise::Promise> {
    [
        cost::PROMISES,
        concurrency::PROMISES,
        isolation::PROMISES,
        posting::PROMISES,
        bounds::PROMISES,
        sizes::PROMISES,
        bodies::PROMISES,
        listing::PROMISES,
        paging::PROMISES,
        arrivals::PROMISES,
        reading::PROMISES,
        deleting::PROMISES,
        popping::PROMISES,
        claiming::PROMISES,
        leases::PROMISES,
        importing_claims::PROMISES,
        lifetimes::PROMISES,
        expiry::PROMISES,
        delay::PROMISES,
        dead_letters::PROMISES,
        purging::PROMISES,
        stats::PROMISES,
        durability::PROMISES,
        management::PROMISES,
        placements::PROMISES,
        pools::PROMISES,
        subscriptions::PROMISES,
        catalogue::PROMISES,
        sharing::PROMISES,
        ledger::judging::PROMISES,
        ledger::recording::PROMISES,
        ledger::claims::PROMISES,
        ledger::deleting::PROMISES,
        ledger::purging::PROMISES,
        ledger::scopes::PROMISES,
        refusals::PROMISES,
    ]
    .into_iter()
    .flatten()
    .copied()
}
