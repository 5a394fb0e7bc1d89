//! A lease broker and a ledger as a fixture of the conformance suite.

use std::fmt::{self, Debug};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use isimud_conformance::{Approximations, Fixture, Stores};
use isimud_contract::{Clock, Ledger, ManualClock, Result, Timestamp};
use isimud_lease::fake::FaultProfile;
use isimud_lease::{Journal, LeaseBroker, Leased};

/// A broker whose messages expire, and whose deliveries belong to a connection.
pub const CONNECTION_BOUND: FaultProfile = FaultProfile {
    expires_messages: true,
    connection_bound: true,
    ..FaultProfile::PLAIN
};

/// A broker that reorders messages and delivers some of them again.
pub const REORDERING: FaultProfile = FaultProfile {
    reorders: true,
    duplicates: 100,
    ..FaultProfile::PLAIN
};

/// What opens a broker or a ledger.
pub type Open<T> = Box<dyn Fn() -> Result<T> + Send + Sync>;

/// Opens a ledger at the first call, and gives the same to every other.
pub fn once(
    open: impl Fn() -> Result<Arc<dyn Ledger>> + Send + Sync + 'static,
) -> Open<Arc<dyn Ledger>> {
    let opened: OnceLock<Arc<dyn Ledger>> = OnceLock::new();
    Box::new(move || {
        if let Some(ledger) = opened.get() {
            return Ok(Arc::clone(ledger));
        }
        let ledger = open()?;
        Ok(Arc::clone(opened.get_or_init(|| ledger)))
    })
}

/// A broker and a ledger, which outlive the stores that are made of them.
pub struct LeasedFixture<B> {
    broker: Open<B>,
    ledger: Open<Arc<dyn Ledger>>,
    clock: Arc<ManualClock>,
    journal: Journal,
    /// What is told when time passes, beside the clock.
    pub on_advance: Box<dyn Fn(Duration) + Send + Sync>,
    /// What the broker is not held to.
    pub approximates: Approximations,
    /// How far the broker's clock may run by itself.
    pub drift: Duration,
}

impl<B> LeasedFixture<B> {
    /// Takes what opens the two, for each store that is made of them.
    pub fn new(
        broker: Open<B>,
        ledger: Open<Arc<dyn Ledger>>,
        clock: Arc<ManualClock>,
        journal: Journal,
    ) -> Self {
        Self {
            broker,
            ledger,
            clock,
            journal,
            on_advance: Box::new(|_| ()),
            approximates: Approximations::default(),
            drift: Duration::ZERO,
        }
    }
}

impl<B> Debug for LeasedFixture<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("LeasedFixture");
        fields
            .field("journal", &self.journal)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl<B: LeaseBroker> Fixture for LeasedFixture<B> {
    async fn open(&self) -> Result<Stores> {
        let ledger = (self.ledger)()?;
        ledger.ping().await?;
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let leased = Leased::new((self.broker)()?, ledger, clock, self.journal);
        Ok(Stores {
            messages: Arc::new(leased),
            management: None,
        })
    }

    async fn open_beside(&self) -> Result<Option<Stores>> {
        self.open().await.map(Some)
    }

    fn keeps(&self) -> bool {
        true
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn advance(&self, span: Duration) {
        self.clock.advance(span);
        (self.on_advance)(span);
    }

    fn approximates(&self) -> Approximations {
        self.approximates
    }

    fn drift(&self) -> Duration {
        self.drift
    }
}
