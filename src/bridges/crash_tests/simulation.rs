//! Two stores, and servers that die, or stand still, at any of their calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use isimud_contract::{
    Capabilities, ClaimId, ClientId, Clock, Error, ErrorKind, Instrumented, Kind, Lease,
    ManagementStore, ManualClock, Message, MessageId, MessageStore, Metadata, Observer, Placement,
    Pool, PoolName, Precondition, ProjectId, QueueKey, QueueRecord, QueueSelection, Queues, Result,
    StoreId, Watcher,
};
use isimud_lease::fake::{FakeServer, FaultProfile};
use isimud_lease::{Journal, Leased};
use isimud_testing::faults::{Faults, FaultyStore};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::bridges::Rule;
use crate::bridges::leader_lease::{BridgeError, LEASE_TTL, LeaderLease};
use crate::bridges::transfer::Transfer;
use crate::catalogue::{self, Catalogue, Opener, Shared};
use crate::config::{Config, Flags};
use crate::drivers::{self, Context};
use crate::messaging::{Messaging, Parts, Subscribers};
use crate::notifications::{AddressPolicy, Requirements};
use crate::signature::Signer;
use crate::telemetry::Metrics;

/// What happens to a server at one of its calls, which are counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Never,
    /// It dies before the call.
    Before(usize),
    /// It dies when the call is done.
    After(usize),
    /// The call takes effect late, when others have done everything.
    Late(usize),
}

/// Where all calls of a server go through.
#[derive(Debug)]
pub(super) struct FaultInjector {
    fault: Fault,
    calls: AtomicUsize,
    pub(super) stands: Notify,
    pub(super) goes_on: Notify,
}

impl FaultInjector {
    pub(super) fn new(fault: Fault) -> Arc<Self> {
        Arc::new(Self {
            fault,
            calls: AtomicUsize::new(0),
            stands: Notify::new(),
            goes_on: Notify::new(),
        })
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    async fn pass<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let dead = || Err(Error::new(ErrorKind::Unavailable, "the server is dead"));
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        match self.fault {
            Fault::Before(at) if number >= at => dead(),
            Fault::After(at) if number > at => dead(),
            Fault::After(at) if number == at => {
                drop(call.await);
                dead()
            }
            Fault::Late(at) if number == at => {
                self.stands.notify_one();
                self.goes_on.notified().await;
                call.await
            }
            _ => call.await,
        }
    }
}

/// A body that the target refuses when it is given it.
pub(super) const POISON: &str = "\"poison\"";

/// What happens to the calls of a server to one of its stores.
#[derive(Debug)]
struct StoreFaults {
    injector: Arc<FaultInjector>,
    largest: Option<u64>,
    /// It says that it has stored all that it is given, and has not stored the last.
    forgets: bool,
}

impl Faults for StoreFaults {
    async fn around<T: Send>(&self, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.injector.pass(call).await
    }

    fn capabilities(&self, real: Capabilities) -> Capabilities {
        Capabilities {
            largest_body: self.largest,
            ..real
        }
    }

    fn posted(&self, mut messages: Vec<Message>) -> Result<Vec<Message>> {
        if self.forgets {
            messages.pop();
        }
        if self.largest.is_some() && messages.iter().any(|one| &*one.body == POISON.as_bytes()) {
            return Err(Error::invalid("this one kills"));
        }
        Ok(messages)
    }
}

/// Queues whose records a server reads and writes behind a gate.
#[derive(Debug)]
struct FaultyQueues(Arc<dyn ManagementStore>, Arc<FaultInjector>);

#[async_trait]
impl Queues for FaultyQueues {
    async fn create_queue(
        &self,
        queue: &QueueKey,
        metadata: &Metadata,
        placement: &Placement,
    ) -> Result<bool> {
        let call = self.0.create_queue(queue, metadata, placement);
        self.1.pass(call).await
    }
    async fn find_queue(&self, queue: &QueueKey) -> Result<Option<QueueRecord>> {
        self.1.pass(self.0.find_queue(queue)).await
    }
    async fn update_queue(
        &self,
        queue: &QueueKey,
        metadata: &Metadata,
        placement: &Placement,
        version: u64,
    ) -> Result<Option<u64>> {
        let call = self.0.update_queue(queue, metadata, placement, version);
        self.1.pass(call).await
    }
    async fn delete_queue(&self, queue: &QueueKey) -> Result<Option<QueueRecord>> {
        self.0.delete_queue(queue).await
    }
    async fn list_queues(
        &self,
        project: &ProjectId,
        selection: &QueueSelection,
    ) -> Result<Vec<QueueRecord>> {
        self.0.list_queues(project, selection).await
    }
    async fn count_queues(&self, project: &ProjectId, kind: Kind) -> Result<u64> {
        self.0.count_queues(project, kind).await
    }
    async fn queues_in(
        &self,
        store_id: &StoreId,
        after: Option<&QueueKey>,
        limit: usize,
    ) -> Result<Vec<QueueKey>> {
        self.0.queues_in(store_id, after, limit).await
    }
    fn watch(&self, watcher: Watcher) -> Result<()> {
        self.0.watch(watcher)
    }
}

/// Opens the one pool that there is.
#[derive(Debug)]
struct OnePool(Arc<dyn MessageStore>);

impl Opener for OnePool {
    fn check(&self, _: &str, _: &Metadata) -> Result<()> {
        Ok(())
    }
    fn admit(&self, _: &str, _: &Metadata) -> Result<()> {
        Ok(())
    }
    fn open(
        &self,
        _: &str,
        _: &str,
        _: &Metadata,
    ) -> Result<(&'static str, Arc<dyn MessageStore>)> {
        Ok(("other", Arc::clone(&self.0)))
    }
    fn shared(&self, _: (&str, &Metadata), _: (&str, &Metadata)) -> Result<Shared> {
        Ok(Shared::Nothing)
    }
    fn is_exclusive(&self, _: &str) -> bool {
        false
    }
}

/// What a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoreKind {
    /// It keeps everything itself.
    Whole,
    /// A broker that can only lease, with a ledger and its journal.
    Journaled,
    /// The same without the journal.
    Leased,
}

/// The source is in the store of the configuration, the target in a pool.
pub(super) struct Simulation {
    pub(super) clock: Arc<ManualClock>,
    management: Arc<dyn ManagementStore>,
    pub(super) source: Arc<dyn MessageStore>,
    pub(super) target: Arc<dyn MessageStore>,
    pub(super) rule: Rule,
    /// The largest body that the target takes; with one, it refuses poison, too.
    pub(super) largest: Option<u64>,
    /// Whether the target throws away some of what it says that it has stored.
    pub(super) forgets: bool,
}

impl Simulation {
    pub(super) async fn new(source: StoreKind, target: StoreKind) -> Self {
        let clock = Arc::new(ManualClock::default());
        let context = Context::new(Arc::clone(&clock) as _, None);
        let open = || drivers::open("sqlite::memory:", &context).expect("a store");
        let opened = open();
        let ledgers = opened.ledgers.expect("it keeps ledgers");
        let store = |kind, scope: &str| -> Arc<dyn MessageStore> {
            let journal = match kind {
                StoreKind::Whole => return open().messages,
                StoreKind::Journaled => Journal::On,
                StoreKind::Leased => Journal::Off,
            };
            let time: Arc<dyn Clock> = Arc::clone(&clock) as _;
            let broker = FakeServer::new(Arc::clone(&time), FaultProfile::PLAIN, 7).connect();
            let ledger = ledgers.of(scope).expect("a ledger");
            Arc::new(Leased::new(broker, ledger, time, journal))
        };
        let simulation = Self {
            source: store(source, "source"),
            target: store(target, "target"),
            management: opened.management.expect("it keeps queues"),
            rule: Rule::parse("p/a", "p/b", None, None).expect("a rule"),
            largest: None,
            forgets: false,
            clock,
        };
        let name = PoolName::parse("other").expect("a name");
        let pool = Pool {
            name: name.clone(),
            uri: "other:".into(),
            weight: 0,
            flavor: None,
            options: Metadata::new(),
        };
        let management = &simulation.management;
        management.save_pool(&pool, None).await.expect("a pool");
        for (queue, store_id) in [
            (&simulation.rule.from, StoreId::Default),
            (&simulation.rule.to, StoreId::Pool(name)),
        ] {
            let (metadata, placement) = (Metadata::new(), Placement::at(store_id));
            let made = management.create_queue(queue, &metadata, &placement);
            assert!(made.await.expect("a queue"));
        }
        simulation
    }

    /// Makes a queue in the store of the source.
    pub(super) async fn make(&self, queue: &QueueKey, metadata: Metadata) {
        let placement = Placement::default();
        let made = self.management.create_queue(queue, &metadata, &placement);
        assert!(made.await.expect("a queue"));
    }

    pub(super) async fn post(&self, bodies: impl IntoIterator<Item = String>) {
        let life = Duration::from_secs(3_600);
        for body in bodies {
            let id = MessageId(Uuid::now_v7());
            let message = Message::new(id, ClientId::Uuid(Uuid::nil()), life, body.into_bytes());
            let posted = self.source.post(&self.rule.from, vec![message]);
            posted.await.expect("a post");
        }
    }

    /// What a consumer of a queue gets, and has done with.
    pub(super) async fn consume(store: &Arc<dyn MessageStore>, queue: &QueueKey) -> Vec<String> {
        let mut bodies = Vec::new();
        loop {
            let lease = Lease {
                id: ClaimId(Uuid::now_v7()),
                ttl: Duration::from_secs(60),
                grace: Duration::ZERO,
                dead_letter: None,
            };
            let Some(claim) = store.claim(queue, &lease, 20).await.expect("a claim") else {
                return bodies;
            };
            let ids: Vec<MessageId> = claim.messages.iter().map(|message| message.id).collect();
            let precondition = Precondition::ClaimedBy(vec![claim.id]);
            store
                .delete(queue, &ids, precondition)
                .await
                .expect("a delete");
            let text = |message: Message| String::from_utf8(message.body.to_vec()).expect("text");
            bodies.extend(claim.messages.into_iter().map(text));
        }
    }

    /// A server.
    pub(super) fn server(&self, faults: &Arc<FaultInjector>) -> Server {
        self.server_of(faults, &self.rule)
    }

    /// A server that works on the bridge which brings everything back.
    pub(super) fn server_back(&self, faults: &Arc<FaultInjector>) -> Server {
        let back = Rule::parse("p/b", "p/a", None, None).expect("a rule");
        self.server_of(faults, &back)
    }

    fn server_of(&self, faults: &Arc<FaultInjector>, rule: &Rule) -> Server {
        let gated = |inner: &Arc<dyn MessageStore>, (largest, forgets)| -> Arc<dyn MessageStore> {
            Arc::new(FaultyStore {
                inner: Arc::clone(inner),
                faults: Arc::new(StoreFaults {
                    injector: Arc::clone(faults),
                    largest,
                    forgets,
                }),
            })
        };
        let config = Config::load(&Flags::default()).expect("the defaults");
        let metrics = Arc::new(Metrics::default());
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as _;
        let counting = Arc::clone(&metrics);
        let source = gated(&self.source, (None, false));
        let observer: Arc<dyn Observer> = Arc::new(metrics.pool("default"));
        let catalogue = Catalogue::new(catalogue::Parts {
            management: Arc::clone(&self.management),
            default: (
                "sqlite::memory:".into(),
                "source",
                Arc::new(Instrumented::new("source", source, observer)),
            ),
            default_takes_queues: true,
            opener: Arc::new(OnePool(gated(&self.target, (self.largest, self.forgets)))),
            counted: Arc::new(move |pool| Arc::new(counting.pool(pool))),
            random: Arc::new(|below| fastrand::u64(..below)),
        });
        let messaging = Messaging::new(Parts {
            quotas: crate::messaging::quotas::Quotas::default(),
            catalogue,
            management: Arc::clone(&self.management),
            jobs: Arc::clone(&self.source),
            limits: config.limits,
            checksums: false,
            encryption_keys: config.encryption_keys,
            observer: metrics,
            outbox: None,
            mailboxes: None,
            subscribers: Subscribers {
                types: Vec::new(),
                addresses: AddressPolicy::new(&[]).expect("no networks"),
                requirements: Requirements::default(),
                trusts: Err("authentication is off"),
            },
            signer: Signer::new("", clock),
        });
        let records = FaultyQueues(Arc::clone(&self.management), Arc::clone(faults));
        Server {
            messaging: messaging.expect("a service"),
            leader: LeaderLease::new(Arc::new(records), rule),
            rule: rule.clone(),
        }
    }
}

/// A server that works on the bridge.
pub(super) struct Server {
    pub(super) messaging: Messaging,
    leader: LeaderLease,
    rule: Rule,
}

/// Messages in a batch.
const BATCH: usize = 3;

impl Server {
    /// Takes the leader lease, from whoever has it, and crosses until the source is empty.
    pub(super) async fn run(&self) -> Result<(), BridgeError> {
        if !self.leader.acquire().await? {
            tokio::time::pause();
            tokio::time::advance(LEASE_TTL).await;
            tokio::time::resume();
            if !self.leader.acquire().await? {
                return Err(BridgeError::LeaseLost);
            }
        }
        let mut transfer = Transfer::new(&self.messaging, &self.rule, &self.leader);
        transfer.recover().await?;
        while transfer.transfer_batch(BATCH).await?.count() > 0 {}
        Ok(())
    }
}
