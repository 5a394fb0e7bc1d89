//! Tests that need a server which may not be there.

use std::fmt::Display;

use libtest_mimic::{Completion, Failed};

/// Whether a backend that is not there is a failure.
pub fn is_required() -> bool {
    std::env::var("REQUIRE_BACKENDS").is_ok_and(|value| value == "1")
}

/// What was started for a test; `None` where it is not there, and need not be. It panics where it must be.
pub fn started<T, E: Display>(what: &str, result: Result<T, E>) -> Option<T> {
    match result {
        Ok(started) => Some(started),
        Err(why) if is_required() => panic!("{what} is required: {why}"),
        Err(why) => {
            eprintln!("left out: {why}");
            None
        }
    }
}

/// Runs a trial of libtest-mimic on what was started for it; where that is not there, the trial is ignored or has failed.
pub fn run<T, F: Future<Output = ()>>(
    started: Result<T, String>,
    check: impl FnOnce(T) -> F,
) -> Result<Completion, Failed> {
    let started = match started {
        Ok(started) => started,
        Err(why) if is_required() => return Err(Failed::from(why)),
        Err(why) => return Ok(Completion::ignored_with(why)),
    };
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(check(started));
    Ok(Completion::Completed)
}
