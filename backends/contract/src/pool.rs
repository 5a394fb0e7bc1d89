//! Pools and flavors: what operators register.

use crate::{FlavorName, Metadata, PoolName, ProjectId};

/// A registered store (spec: pools-flavors.md 1).
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Its name.
    pub name: PoolName,
    /// Where it is and which driver serves it, with the passwords in it: an answer or a log masks them.
    pub uri: String,
    /// Its share of new queues; 0 takes none.
    pub weight: u32,
    /// The flavor that it belongs to.
    pub flavor: Option<FlavorName>,
    /// Options of the driver, added to those of the URI.
    pub options: Metadata,
}

/// A pool as a management store knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolRecord {
    /// The pool.
    pub pool: Pool,
    /// Changes with every update, and is new when a pool is registered again; what a conditional update compares.
    pub version: u64,
}

/// A named set of pools. Its members are the pools that name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flavor {
    /// Its name.
    pub name: FlavorName,
    /// The project that made it, and the only one that sees and uses it.
    pub project: ProjectId,
}

/// What happens to the members that a flavor has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MembershipChange {
    /// They stay (PUT).
    Add,
    /// They leave (PATCH).
    Replace,
}
