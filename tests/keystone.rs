//! Authentication against a real Keystone that the tests start, directly and through a proxy that can fail.
//!
//! Nothing is left out where Keystone is missing: the tests fail with the command that installs it. Every test ends with
//! the check that no secret is logged.

mod api;
mod decisions;
mod faults;
pub(crate) mod fixture;
mod http;
mod log;
mod outage;
mod proxy;
mod request;
mod tls;
mod trusts;
mod validity;
pub(crate) mod world;

use std::sync::LazyLock;

use crate::keystone::world::World;

/// The Keystone of all tests that do not stop it.
static WORLD: LazyLock<World> = LazyLock::new(World::start);
