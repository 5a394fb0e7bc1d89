//! The rules that hold for any transport and any store: limits, defaults, lazy queues, dead-letter policy, encryption.
//!
//! A transport translates requests into calls of [`Messaging`] and its answers into documents; a store keeps what it
//! is given. Everything in between is decided here, once.
//!
//! What a queue's metadata mean is remembered (`cache`), so that a request costs one call of a store. A change of the
//! metadata takes effect at once through this server, and within a moment through others.

mod census;
mod checksum;
mod claims;
mod counting;
mod declare;
mod flavors;
mod health;
mod import;
pub mod limits;
mod messages;
mod migration;
mod notifications;
mod patch;
mod placement;
mod pools;
mod queue_cache;
mod queues;
pub mod quotas;
mod seal;
mod settings;
mod subscriptions;
mod transfer;
mod trusts;

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use isimud_contract::{Change, ManagementStore, MessageStore, QueueKey, Result};
use tokio::runtime::Handle;

pub use crate::catalogue::{Check, DEFAULT};
pub use claims::Terms;
pub use flavors::FlavorView;
pub use health::{Health, StoreHealth};
pub use import::{MessageImport, QueueImport, metadata_fault};
pub use messages::{Deletion, Draft, Listing, PostRules};
pub use migration::Remaining;
pub use pools::PoolDraft;
pub(crate) use settings::is_falsy;
pub use subscriptions::{Asked, Subscribed, Subscribers};
pub(crate) use transfer::Target;
pub(crate) use trusts::show_trust;

use self::limits::Limits;
use self::queue_cache::QueueCache;
use self::quotas::{Estimates, Quotas, Rates};
use self::seal::Sealer;
use crate::catalogue::Catalogue;
use crate::live::Live;
use crate::migration::Migrator;

/// Attempts of an update that finds a queue changed by somebody else.
const ATTEMPTS: usize = 10;
use crate::notifications::{Mailboxes, Outbox};
use crate::signature::Signer;

/// The pass phrase that the configuration comes with, as the reference's does.
pub const PUBLIC_KEY: &str = "AES256";

/// Counts messages.
pub trait MessageObserver: fmt::Debug + Send + Sync + 'static {
    /// So many messages were stored.
    fn posted(&self, count: usize);
    /// So many messages were delivered to a claim.
    fn claimed(&self, count: usize);
    /// So many messages were deleted or popped.
    fn deleted(&self, count: usize);
    /// So many messages were passed over because they cannot be decrypted.
    fn unreadable(&self, count: usize);

    /// So many migrating queues cannot be carried on by this server now.
    fn moves_stalled(&self, count: usize);
}

/// Queues of which the log has told something that would be told again and again.
#[derive(Debug, Default)]
struct LoggedQueues(Mutex<HashSet<QueueKey>>);

impl LoggedQueues {
    /// Queues that are cached, at the most; beyond it all are forgotten.
    const CAPACITY: usize = 10_000;

    /// Whether it has not been told of this queue.
    fn is_first(&self, queue: &QueueKey) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= Self::CAPACITY {
            told.clear();
        }
        told.insert(queue.clone())
    }
}

/// Refuses pass phrases that cannot be used: none, a blank one, the same one twice.
pub fn check_keys(texts: &[String]) -> Result<()> {
    Sealer::new(texts).map(drop)
}

/// What [`Messaging`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// Where messages are.
    pub catalogue: Catalogue,
    /// Where queues are.
    pub management: Arc<dyn ManagementStore>,
    /// Keeps what is to be done about queues: messages of the service's own, which never go to a broker of a
    /// deployment.
    pub jobs: Arc<dyn MessageStore>,
    /// What clients may ask for.
    pub limits: Limits,
    /// What projects may use.
    pub quotas: Quotas,
    /// Store and show checksums of bodies.
    pub checksums: bool,
    /// Pass phrases for encrypted queues: the first seals, all open.
    pub encryption_keys: Vec<String>,
    /// Counts messages.
    pub observer: Arc<dyn MessageObserver>,
    /// Takes what is to be notified; none where notifications are off.
    pub outbox: Option<Arc<Outbox>>,
    /// Takes what is pushed to sockets; none where there are none.
    pub mailboxes: Option<Arc<Mailboxes>>,
    /// What subscribers may be.
    pub subscribers: Subscribers,
    /// Signs questions to receivers, and tells the time.
    pub signer: Signer,
}

/// The service, apart from its transport.
pub struct Messaging {
    catalogue: Arc<Catalogue>,
    management: Arc<dyn ManagementStore>,
    limits: Live<Limits>,
    quotas: Live<Quotas>,
    rates: Rates,
    estimates: Estimates,
    checksums: bool,
    sealer: Sealer,
    /// Encryption would use the key that everybody knows.
    key_is_public: bool,
    observer: Arc<dyn MessageObserver>,
    /// Queues with messages that cannot be decrypted, of which the log has told.
    unreadable: LoggedQueues,
    cache: Arc<QueueCache>,
    migrator: Arc<Migrator>,
    outbox: Option<Arc<Outbox>>,
    mailboxes: Option<Arc<Mailboxes>>,
    subscribers: Subscribers,
    signer: Signer,
}

impl fmt::Debug for Messaging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messaging")
            .field("catalogue", &self.catalogue)
            .finish_non_exhaustive()
    }
}

impl Messaging {
    /// Puts the service together. `Invalid` when there is no encryption key.
    pub fn new(parts: Parts) -> Result<Self> {
        let (catalogue, cache) = (Arc::new(parts.catalogue), Arc::new(QueueCache::default()));
        // The management store outlives neither: it must not hold on to what holds on to it.
        let told = (Arc::downgrade(&catalogue), Arc::clone(&cache));
        parts
            .management
            .watch(Arc::new(move |change| forget(&told.0, &told.1, change)))?;
        let told = Arc::clone(&cache);
        let migrator = Migrator::new(
            Arc::clone(&catalogue),
            Arc::clone(&parts.management),
            parts.jobs,
            Arc::clone(&parts.observer),
            Arc::new(move |queue| told.forget(Change::Queue(queue))),
        )?;
        Ok(Self {
            migrator: Arc::new(migrator),
            catalogue,
            management: parts.management,
            limits: Live::new(parts.limits),
            quotas: Live::new(parts.quotas),
            rates: Rates::default(),
            estimates: Estimates::default(),
            checksums: parts.checksums,
            key_is_public: parts
                .encryption_keys
                .first()
                .is_some_and(|key| key == PUBLIC_KEY),
            sealer: Sealer::new(&parts.encryption_keys)?,
            observer: parts.observer,
            unreadable: LoggedQueues::default(),
            cache,
            outbox: parts.outbox,
            mailboxes: parts.mailboxes,
            subscribers: parts.subscribers,
            signer: parts.signer,
        })
    }

    /// What clients may ask for.
    pub fn limits(&self) -> Arc<Limits> {
        self.limits.get()
    }

    /// Changes what clients may ask for, from the next request on.
    pub fn set_limits(&self, limits: Limits) {
        self.limits.set(limits);
    }

    /// Does what is to be done beside requests, for as long as it is polled: migrating queues are carried.
    pub async fn work(&self) {
        Arc::clone(&self.migrator).run().await;
    }

    /// Proves that the stores answer.
    pub async fn ping(&self) -> Result<()> {
        self.catalogue.ping().await
    }

    /// Finishes what was begun and lets the stores go.
    pub async fn close(&self) -> Result<()> {
        self.catalogue.close().await
    }
}

/// Forgets what has changed. The stores of pools that are gone are let go without waiting for somebody to ask for them.
fn forget(catalogue: &Weak<Catalogue>, cache: &QueueCache, change: Change<'_>) {
    let Some(catalogue) = catalogue.upgrade() else {
        return;
    };
    if matches!(change, Change::Queue(_)) {
        return cache.forget(change);
    }
    // In this order: a route that is resolved from now on must not lead to what has been before.
    catalogue.forget();
    cache.forget(change);
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(async move {
            if let Err(error) = catalogue.refresh().await {
                tracing::debug!(%error, "cannot read the pools");
            }
        });
    }
}
