//! What tests of several crates share. It is a dependency of tests alone, and knows no driver.
//!
//! ```text
//! redis, rabbitmq, sqs   private servers, each in a folder and on ports of its own, which end with the test program
//! proxy                  a network that fails when it is told to; sqs::proxy the same for single requests
//! certificates           certificates and keys of the test's own authorities
//! faults                 a message store whose calls fail when they are told to
//! leased                 a lease broker and a ledger as a fixture of the conformance suite
//! trial                  tests that need a server, and tests with a harness of their own
//! python                 interpreters with the packages that tests need
//! ```
//!
//! A server that is not installed makes its tests ignored or left out, or failures with `REQUIRE_BACKENDS=1`; that is
//! decided in [`trial`] alone.
#![warn(missing_docs)]

pub mod certificates;
pub mod faults;
pub mod leased;
mod ports;
mod process;
pub mod proxy;
mod python;
pub mod rabbitmq;
pub mod redis;
pub mod sqs;
pub mod trial;

use std::path::{Path, PathBuf};

pub use python::python;
pub use trial::{is_required, started};

/// A file of the repository, named from its root.
pub fn file(path: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join(path)
}
