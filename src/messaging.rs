//! The rules that hold for any transport and any store: limits, defaults, lazy queues, dead-letter policy, encryption.
//!
//! A transport translates requests into calls of [`Messaging`] and its answers into documents; a store keeps what it
//! is given. Everything in between is decided here, once.
//!
//! What a queue's metadata mean is remembered (`known`), so that a request costs one call of a store. A change of the
//! metadata takes effect at once through this server, and within a moment through others.

mod adopt;
mod checksum;
mod claims;
mod known;
pub mod limits;
mod messages;
mod patch;
mod queues;
mod seal;
mod settings;

use std::fmt;
use std::sync::Arc;

use isimud_contract::{ManagementStore, MessageStore, Result};

pub use adopt::{Adopted, metadata_fault};
pub use claims::Terms;
pub use messages::{Deletion, Draft, Listing, PostRules};

use self::known::Known;
use self::limits::Limits;
use self::seal::Sealer;

/// The pass phrase that the configuration comes with, as the reference's does.
const PUBLIC_KEY: &str = "AES256";

/// Hears how many messages went through.
pub trait Flow: fmt::Debug + Send + Sync + 'static {
    /// So many messages were stored.
    fn posted(&self, count: usize);
    /// So many messages were delivered to a claim.
    fn claimed(&self, count: usize);
    /// So many messages were deleted or popped.
    fn deleted(&self, count: usize);
}

/// Refuses pass phrases that cannot be used: none, a blank one, the same one twice.
pub fn check_keys(texts: &[String]) -> Result<()> {
    Sealer::new(texts).map(drop)
}

/// What [`Messaging`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// Where messages are.
    pub store: Arc<dyn MessageStore>,
    /// Where queues are.
    pub management: Arc<dyn ManagementStore>,
    /// What clients may ask for.
    pub limits: Limits,
    /// Store and show checksums of bodies.
    pub checksums: bool,
    /// Pass phrases for encrypted queues: the first seals, all open.
    pub encryption_keys: Vec<String>,
    /// Hears what went through.
    pub flow: Arc<dyn Flow>,
}

/// The service, apart from its transport.
pub struct Messaging {
    store: Arc<dyn MessageStore>,
    management: Arc<dyn ManagementStore>,
    limits: Limits,
    checksums: bool,
    sealer: Sealer,
    /// Encryption would use the key that everybody knows.
    key_is_public: bool,
    flow: Arc<dyn Flow>,
    known: Arc<Known>,
}

impl fmt::Debug for Messaging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messaging")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl Messaging {
    /// Puts the service together. `Invalid` when there is no encryption key.
    pub fn new(parts: Parts) -> Result<Self> {
        let known = Arc::new(Known::default());
        let told = Arc::clone(&known);
        parts
            .management
            .watch(Arc::new(move |change| told.forget(change)))?;
        Ok(Self {
            store: parts.store,
            management: parts.management,
            limits: parts.limits,
            checksums: parts.checksums,
            key_is_public: parts
                .encryption_keys
                .first()
                .is_some_and(|key| key == PUBLIC_KEY),
            sealer: Sealer::new(&parts.encryption_keys)?,
            flow: parts.flow,
            known,
        })
    }

    /// What clients may ask for.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Proves that the stores answer.
    pub async fn ping(&self) -> Result<()> {
        self.store.ping().await
    }

    /// Finishes what was begun and lets the stores go.
    pub async fn close(&self) -> Result<()> {
        self.store.close().await
    }
}
