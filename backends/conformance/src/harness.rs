//! What a driver's test gives the suite: fresh stores, and a hand on their clock.
//!
//! The suite opens a store itself, and opens it again on the same data where a trial is about what outlives a close.
//! So a driver's test describes the place where the data are, and not one store that is already open.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use isimud_contract::{Ledger, ManagementStore, MessageStore, Result, Timestamp};

/// One way of setting a backend up: a file, a single server, a cluster.
#[async_trait]
pub trait Harness: Debug + Send + Sync + 'static {
    /// Names the set-up in front of its trials.
    fn name(&self) -> &str;

    /// Prepares a place for one trial, empty and shared with no other trial. Calls overlap.
    ///
    /// Every trial has a runtime of its own, so nothing that lives on a runtime may be shared between fixtures.
    async fn start(&self) -> Result<Start>;
}

/// How the preparation of a trial went.
#[derive(Debug)]
pub enum Start {
    /// The place is ready.
    Ready(Box<dyn Fixture>),
    /// The backend is not up on this machine; the text says what was looked for. Such a trial is ignored, and fails
    /// where `REQUIRE_BACKENDS=1`.
    BackendDown(String),
}

/// A place for one trial's data. Dropping it clears the data away.
#[async_trait]
pub trait Fixture: Debug + Send + Sync + 'static {
    /// Opens the store on the place's data. Called a second time only where the place [keeps](Self::keeps) them, and
    /// after the first store was closed.
    async fn open(&self) -> Result<Stores>;

    /// Opens one more store on the place's data while the first is open, as another server would; `None` where a place
    /// has room for one alone, and then the trials about two are ignored.
    async fn open_beside(&self) -> Result<Option<Stores>> {
        Ok(None)
    }

    /// Opens the ledger of a scope on the place's data; `None` where the backend keeps none, and then its trials are
    /// ignored. Called several times, and all ledgers of one scope are one.
    async fn ledger(&self, _scope: &str) -> Result<Option<Arc<dyn Ledger>>> {
        Ok(None)
    }

    /// Whether the data outlive the store that was opened on them.
    fn keeps(&self) -> bool;

    /// What time it is in the store.
    fn now(&self) -> Timestamp;

    /// Moves the store's clock forward, also while the store is closed.
    async fn advance(&self, span: Duration);

    /// How far the store's clock may run by itself during one trial, less than half a minute. Zero, where it moves by
    /// [`advance`](Self::advance) alone; else the trials that tell one millisecond from the next are ignored.
    fn drift(&self) -> Duration {
        Duration::ZERO
    }

    /// What this set-up is not held to, beyond what its capabilities leave out. A driver's docs say why.
    fn approximates(&self) -> Approximations {
        Approximations::default()
    }
}

/// What a set-up may be wrong about.
#[derive(Debug, Clone, Copy, Default)]
pub struct Approximations {
    /// How many messages are free or held. Only where the capabilities leave `browse` out, for a count that another
    /// service makes a little later, or by a clock that a trial cannot move.
    pub counts: bool,
    /// The places of messages that come back from several claims, if those end in another order.
    pub redelivery_order: bool,
    /// Whether one call passes thousands of messages that stand in front and nobody may have. A few calls do.
    pub walls: bool,
}

/// An open store.
#[derive(Debug, Clone)]
pub struct Stores {
    /// Its messages and claims.
    pub messages: Arc<dyn MessageStore>,
    /// Its queues, if it keeps them too.
    pub management: Option<Arc<dyn ManagementStore>>,
}
