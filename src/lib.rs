//! Isimud: one Zaqar API in front of any broker.
//!
//! ```text
//! main  ->  config      flags, environment, files: what was written, then what was meant
//!           drivers     from a URI's scheme to the driver that opens it
//!           serve       puts the service together and runs it
//!
//! a request:  server -> http -> messaging -> catalogue -> a store (backends/…)
//!             sockets   translates  decides    finds      keeps
//! a post also:                      messaging -> notifications   tells subscribers, in its own time
//! a socket:   server -> websocket -> http's checks and parsers, and messaging
//!
//! migration   moves queues from store to store
//! bridges     has messages flow from one queue to another, with the help of messaging
//! import      takes over what another service left (read by backends/import-sources), with the help of messaging
//! signature   pre-signed access    dates   how the API writes and reads them    clock   what time it is
//! pem         certificates and keys in files
//! admin       metrics, liveness, readiness, and what operators change    telemetry   what is counted and logged
//! spell       and told once
//! ```
//!
//! Who may import whom is checked by `tests/direction.rs`.

pub mod admin;
pub mod bridges;
pub mod catalogue;
pub mod clock;
pub mod config;
mod dates;
pub mod drivers;
pub mod http;
#[cfg(feature = "import")]
pub mod import;
pub mod keystone;
pub mod live;
pub mod messaging;
mod migration;
pub mod notifications;
pub mod pem;
mod rate_limiter;
mod server;
pub mod signature;
mod spell;
pub mod telemetry;
pub mod websocket;

pub use crate::server::{Tls, TlsError, TlsFiles, TlsVersion};

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use isimud_contract::{
    Clock, Error, Instrumented, ManagementStore, MessageStore, Observer, Result,
};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin::Guard;
use crate::bridges::Bridges;
use crate::catalogue::Catalogue;
use crate::config::Config;
use crate::config::declared::Declared;
use crate::drivers::{Backend, Context, ForPools};
use crate::http::budget::Budget;
use crate::http::{Api, App};
use crate::keystone::{Authenticator, Trusts};
use crate::live::Live;
use crate::messaging::{MessageObserver, Messaging, Parts, Subscribers};
use crate::notifications::{
    AddressPolicy, Deliveries, DeliveryContext, Mailboxes, NotificationObserver, Outbox,
    Requirements,
};
use crate::server::{Acceptor, ConnectionLimits, MinRate, Reserve, Timeouts, listen};
use crate::signature::Signer;
use crate::telemetry::{Metrics, Traffic};
use crate::websocket::{ApiWithSockets, SocketListener, WebSockets};

/// The service, ready to run.
#[derive(Debug)]
pub struct Service {
    /// Answers requests.
    pub api: Api,
    /// The WebSockets; none where no listener takes them.
    pub sockets: Option<Arc<WebSockets>>,
    /// Sends notifications; none where they are off.
    pub deliveries: Option<Arc<Deliveries>>,
    /// Has messages flow from queue to queue.
    pub bridges: Arc<Bridges>,
    /// Who may ask the admin listener.
    pub guard: Arc<Guard>,
    /// The certificate of the API's listener, where it has one.
    pub tls: Option<Arc<Tls>>,
    /// The same of the admin listener.
    pub admin_tls: Option<Arc<Tls>>,
}

/// Opens the stores and puts the service on top of them.
pub fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<Service> {
    let (keystone, trusts) = open_keystone(config, &clock)?;
    let Core {
        messaging,
        metrics,
        management,
        outbox,
        mailboxes,
        signer,
    } = open_messaging(config, Arc::clone(&clock), trusts.clone())?;
    let guard = Arc::new(Guard::new(config.admin.clone(), Arc::clone(&clock)));
    let messaging = Arc::new(messaging);
    let delivery_context: Arc<dyn DeliveryContext> = Arc::clone(&messaging) as _;
    let observer: Arc<dyn NotificationObserver> = Arc::clone(&metrics) as _;
    let bridges = Arc::new(Bridges::new(
        Arc::clone(&messaging),
        Arc::clone(&management),
        Arc::clone(&metrics) as _,
        config.bridges.clone(),
    ));
    let deliveries = outbox.map(|outbox| {
        let parts = notifications::Parts {
            outbox,
            management,
            settings: config.notifications.clone(),
            signer: signer.clone(),
            trust_tokens: trusts.ok().map(|trusts| trusts as _),
            clock,
            observer,
            largest_message: config.limits.max_messages_post_size,
        };
        Deliveries::new(parts, delivery_context).map(Arc::new)
    });
    let deliveries = deliveries.transpose()?;
    if let Some(keystone) = &keystone {
        metrics.show_keystone(keystone);
    }
    let traffic = metrics.traffic().clone();
    let budget = |of, bytes, gauge| Arc::new(Budget::new(of, bytes, gauge));
    let limits = &config.limits;
    let api = http::api(App {
        messaging,
        bodies: budget(
            "posts",
            limits.max_request_bytes_under_way,
            traffic.request_bytes,
        ),
        answers: budget(
            "answers",
            limits.max_answer_bytes_under_way,
            traffic.answer_bytes,
        ),
        reads: http::Reads::new(limits.max_answer_bytes_under_way),
        given_back: http::GivenBack::default(),
        signer,
        policy: Live::new(Arc::clone(&config.policy)),
        client_ids: config.client_ids.clone(),
        identity: config.identity.clone(),
        admin_api: config.admin_api,
        keystone,
        refused: metrics.route("unauthenticated", None),
        base_path: config.base_path.clone(),
        cors: config.cors.clone(),
        delete_with_claim_ids: config.delete_with_claim_ids,
        body_timeout: config.body_timeout,
        slow: Duration::from_millis(config.log.slow_ms),
        failures: http::LogLimit::default(),
        unmatched: metrics.route("unmatched", None),
        metrics,
    });
    let sockets = mailboxes.map(|mailboxes| {
        let (app, settings) = (Arc::clone(&api.app), config.websocket.clone());
        WebSockets::new(app, settings, mailboxes)
    });
    Ok(Service {
        api,
        sockets,
        deliveries,
        bridges,
        guard,
        tls: open_tls(config.tls.as_ref())?,
        admin_tls: open_tls(config.admin_tls.as_ref())?,
    })
}

/// What tells whose tokens requests have, and what creates the trusts of subscriptions; or why there are none.
type Opened = (
    Option<Arc<Authenticator>>,
    Result<Arc<Trusts>, &'static str>,
);

/// Prepares to ask Keystone, where the configuration names one.
fn open_keystone(config: &Config, clock: &Arc<dyn Clock>) -> Result<Opened> {
    let Some(settings) = &config.keystone else {
        return Ok((None, Err(AUTHENTICATION_IS_OFF)));
    };
    let authenticator = Authenticator::new(settings, Arc::clone(clock)).map_err(Error::invalid)?;
    let trusts = match &config.trustee {
        None => Err("the service has no trustee"),
        Some(trustee) => {
            let (trustee, clock) = (trustee.clone(), Arc::clone(clock));
            Ok(Arc::new(Trusts::new(
                &authenticator,
                settings,
                trustee,
                clock,
            )))
        }
    };
    Ok((Some(Arc::new(authenticator)), trusts))
}

/// Why there are no trusts.
const AUTHENTICATION_IS_OFF: &str = "authentication is off";

fn open_tls(files: Option<&TlsFiles>) -> Result<Option<Arc<Tls>>> {
    let opened = files.map(|files| Tls::open(files.clone()).map(Arc::new));
    opened
        .transpose()
        .map_err(|error| Error::invalid(error.to_string()))
}

/// Changes what can be changed while a service runs.
#[derive(Debug, Clone)]
pub struct Reloader {
    app: Arc<App>,
    guard: Arc<Guard>,
    tls: Option<Arc<Tls>>,
    admin_tls: Option<Arc<Tls>>,
}

impl Reloader {
    /// Has policies, limits, quotas, certificates and the tokens of operators be those of another configuration, from the next
    /// request on. Logs a warning of a listener whose TLS is new or gone: it stays as it was opened.
    pub fn reload(&self, config: &Config) {
        self.app.policy.set(Arc::clone(&config.policy));
        self.app.messaging.set_limits(config.limits.clone());
        self.app.messaging.set_quotas(config.quotas.clone());
        self.guard.set(config.admin.clone());
        for (section, tls, files) in [
            ("server", &self.tls, &config.tls),
            ("admin", &self.admin_tls, &config.admin_tls),
        ] {
            match (tls, files) {
                (Some(tls), Some(files)) => tls.reload(files.clone()),
                (None, None) => {}
                (None, Some(_)) => tracing::warn!(
                    "{section}.tls_cert_file is new: the listener speaks TLS after a restart only"
                ),
                (Some(_), None) => tracing::warn!(
                    "{section}.tls_cert_file is gone: the listener speaks plain HTTP after a restart only"
                ),
            }
        }
    }
}

impl Service {
    /// What changes this service while it runs.
    pub fn reloader(&self) -> Reloader {
        Reloader {
            app: Arc::clone(&self.api.app),
            guard: Arc::clone(&self.guard),
            tls: self.tls.clone(),
            admin_tls: self.admin_tls.clone(),
        }
    }
}

/// What stands on top of the stores, and what it shares with what runs beside it.
struct Core {
    messaging: Messaging,
    metrics: Arc<Metrics>,
    management: Arc<dyn ManagementStore>,
    outbox: Option<Arc<Outbox>>,
    mailboxes: Option<Arc<Mailboxes>>,
    signer: Signer,
}

/// Opens the stores and puts the rules on top of them.
fn open_messaging(
    config: &Config,
    clock: Arc<dyn Clock>,
    trusts: Result<Arc<Trusts>, &'static str>,
) -> Result<Core> {
    let (store, other) = stores(config, &clock)?;
    let backend = other.as_ref().unwrap_or(&store);
    let ledgers = backend.ledgers.clone();
    let management = backend.management.clone().ok_or_else(|| {
        let uri = drivers::shown(config.management.as_ref().unwrap_or(&config.store));
        Error::invalid(format!(
            "queues cannot be kept in '{uri}'; name a management store"
        ))
    })?;
    let metrics = Arc::new(Metrics::default());
    let settings = &config.notifications;
    let internal = internal(&store, other.as_ref(), &metrics);
    let outbox = settings
        .enabled
        .then(|| Arc::new(Outbox::new(Arc::clone(&internal))));
    let has_sockets = config.websocket.upgrade || config.websocket_listen.is_some();
    let mailboxes = has_sockets.then(|| Arc::new(Mailboxes::new(Arc::clone(&internal))));
    let signer = Signer::new(&config.signing_key.0, Arc::clone(&clock));
    let addresses = AddressPolicy::new(&settings.allowed_networks).map_err(|text| {
        Error::invalid(format!(
            "'{text}' is not a network in CIDR notation, such as 10.0.0.0/8"
        ))
    })?;
    let counting = Arc::clone(&metrics);
    let catalogue = Catalogue::new(catalogue::Parts {
        management: Arc::clone(&management),
        default: (config.store.clone(), store.name, store.messages),
        default_takes_queues: config.default_store_takes_queues,
        opener: Arc::new(ForPools {
            clock,
            ledgers,
            folder: folder_of_pools(config),
        }),
        counted: Arc::new(move |pool| Arc::new(counting.pool(pool))),
        random: Arc::new(|below| fastrand::u64(..below)),
    });
    let observer: Arc<dyn MessageObserver> = Arc::clone(&metrics) as _;
    let messaging = Messaging::new(Parts {
        catalogue,
        management: Arc::clone(&management),
        jobs: internal,
        limits: config.limits.clone(),
        quotas: config.quotas.clone(),
        checksums: config.checksums,
        encryption_keys: config.encryption_keys.clone(),
        observer,
        outbox: outbox.clone(),
        mailboxes: mailboxes.clone(),
        subscribers: Subscribers {
            types: settings.subscriber_types.clone(),
            addresses,
            requirements: Requirements::new(settings),
            trusts,
        },
        signer: signer.clone(),
    })?;
    Ok(Core {
        messaging,
        metrics,
        management,
        outbox,
        mailboxes,
        signer,
    })
}

/// Where pools that are registered over the API may have their files: where the operator says, or beside the first of the
/// configured stores that is a file itself. Nowhere when it is empty.
fn folder_of_pools(config: &Config) -> PathBuf {
    if !config.sqlite_folder.as_os_str().is_empty() {
        return config.sqlite_folder.clone();
    }
    let stores = std::iter::once(&config.store).chain(&config.management);
    let mut files = stores.filter_map(|uri| drivers::file(uri));
    files.next().map_or_else(PathBuf::new, |file| {
        // A bare name has an empty parent.
        Path::new(".").join(file.parent().unwrap_or(Path::new("")))
    })
}

/// Where the messages are that the service keeps for itself, notifications that wait and jobs: in the store of the
/// configuration, if that is one that could keep queues as well; beside the queues, if it is a broker, whose queues are
/// not ours.
fn internal(
    store: &Backend,
    management: Option<&Backend>,
    metrics: &Metrics,
) -> Arc<dyn MessageStore> {
    let backend = match management {
        Some(management) if store.management.is_none() => management,
        _ => store,
    };
    let observer: Arc<dyn Observer> = Arc::new(metrics.pool(catalogue::DEFAULT));
    Arc::new(Instrumented::new(
        backend.name,
        Arc::clone(&backend.messages),
        observer,
    ))
}

/// How long to wait before declared pools are tried again.
const DECLARE_RETRY_DELAY: Duration = Duration::from_secs(1);

/// The store of the configuration, and the management store where that is another one. It is opened first: a broker that
/// can only lease has its ledger there.
fn stores(config: &Config, clock: &Arc<dyn Clock>) -> Result<(Backend, Option<Backend>)> {
    let context = Context::new(Arc::clone(clock), None);
    let Some(uri) = &config.management else {
        return Ok((drivers::open(&config.store, &context)?, None));
    };
    let management = drivers::open(uri, &context)?;
    let context = Context::new(Arc::clone(clock), management.ledgers.clone());
    Ok((drivers::open(&config.store, &context)?, Some(management)))
}

/// Where a service is reached.
#[derive(Debug)]
pub struct Listeners {
    /// The API.
    pub api: TcpListener,
    /// What operators see and change, if anywhere.
    pub admin: Option<TcpListener>,
    /// WebSockets alone, if anywhere.
    pub websocket: Option<TcpListener>,
}

/// Serves the API and WebSockets, and the admin page where there is a listener for it, and sends notifications, until `stop`
/// says so; then finishes what runs, and closes the stores.
pub async fn serve(
    config: &Config,
    Service {
        api,
        sockets,
        deliveries,
        bridges,
        guard,
        tls,
        admin_tls,
    }: Service,
    Listeners {
        api: listener,
        admin,
        websocket,
    }: Listeners,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let app = Arc::clone(&api.app);
    declare(&app, &config.declared).await;
    let timeouts = Timeouts {
        header: config.header_timeout,
        min_rate: MinRate {
            within: config.answer_timeout,
            least: config.answer_timeout.as_secs() * config.min_answer_rate,
        },
        idle: config.idle_grace,
        shutdown: config.shutdown_grace,
    };
    let own = std::iter::once(&listener).chain(&admin).chain(&websocket);
    let own = own
        .filter_map(|listener| listener.local_addr().ok())
        .collect();
    let traffic = app.metrics.traffic();
    let descriptors = descriptors();
    let spare = |most: usize| most.min(descriptors / 16);
    let limits = connection_limits(config, descriptors, 3 * spare(RESERVED_DESCRIPTORS));
    // Wrong credentials are told at the start, and not by the first client.
    let checking = app.keystone.clone();
    tokio::spawn(async move {
        if let Some(keystone) = checking {
            // It tells by itself.
            drop(keystone.check().await);
        }
    });
    let watching = [tls.clone(), admin_tls.clone()].into_iter().flatten();
    let mut watching: JoinSet<()> = watching
        .map(|tls| async move { tls.watch().await })
        .collect();
    let acceptor = |listener, tls| {
        let reserve = Reserve::ForOthers(spare(RESERVED_DESCRIPTORS));
        Acceptor::new(listener, limits.clone(), reserve, tls, traffic.clone())
    };
    let websocket = websocket.zip(sockets.clone()).map(|(listener, sockets)| {
        let acceptor = acceptor(listener, tls.clone());
        let front_end = SocketListener::new(sockets);
        tokio::spawn(listen(acceptor, front_end, timeouts, told(stop.clone())))
    });
    let acceptor = acceptor(listener, tls);
    let admin = admin.map(|listener| {
        let address = listener.local_addr().ok();
        let reserve = Reserve::ForItself(spare(RESERVED_DESCRIPTORS));
        let acceptor = Acceptor::new(
            listener,
            ADMIN_CONNECTION_LIMITS,
            reserve,
            admin_tls,
            Traffic::default(),
        );
        let router = admin::router(Arc::clone(&app), Arc::clone(&bridges), &guard, address);
        tokio::spawn(listen(acceptor, router, timeouts, told(stop.clone())))
    });
    let working = api.clone();
    let worker = tokio::spawn(async move { working.work().await });
    let bridges = tokio::spawn(bridges.run(stop.clone()));
    let (end_deliveries, ended) = watch::channel(false);
    let deliveries = deliveries.map(|deliveries| {
        deliveries.never_to(own);
        tokio::spawn(deliveries.run(ended))
    });
    let (end_sockets, sockets_end) = watch::channel(false);
    let serving_sockets = sockets.clone().map(|sockets| {
        let (closing, stop) = (Arc::clone(&sockets), stop.clone());
        tokio::spawn(async move {
            told(stop).await;
            closing.close();
        });
        tokio::spawn(sockets.run(sockets_end))
    });
    let front_end = ApiWithSockets {
        api,
        sockets: sockets.filter(|_| config.websocket.upgrade),
    };
    listen(acceptor, front_end, timeouts, told(stop)).await;
    if let Some(websocket) = websocket {
        drop(websocket.await);
    }
    end_sockets.send_replace(true);
    if let Some(serving_sockets) = serving_sockets {
        drop(serving_sockets.await);
    }
    drop(bridges.await);
    worker.abort();
    watching.abort_all();
    end_deliveries.send_replace(true);
    if let Some(deliveries) = deliveries {
        drop(deliveries.await);
    }
    if let Some(admin) = admin {
        drop(admin.await);
    }
    guard.take_back();
    app.given_back.finish().await;
    app.messaging.close().await
}

/// Connections of the listener for operators: for people and a few programs.
const ADMIN_CONNECTION_LIMITS: ConnectionLimits = ConnectionLimits {
    most: 128,
    most_per_address: 0,
    shared: Vec::new(),
};

/// Descriptors that each listener keeps for the time when there are no others.
const RESERVED_DESCRIPTORS: usize = 16;

/// Descriptors that are left to files, stores and notifications, where there are many; half of them otherwise.
const OTHER_DESCRIPTORS: usize = 1024;

/// How many connections the API may have: what the configuration says, or what the system's bound on descriptors leaves.
fn connection_limits(config: &Config, descriptors: usize, spare: usize) -> ConnectionLimits {
    let left = descriptors - OTHER_DESCRIPTORS.min(descriptors / 2) - spare;
    let most = config.limits.max_connections;
    if left < most {
        tracing::info!(
            descriptors,
            connections = left,
            "the system gives too few descriptors for limits.max_connections"
        );
    }
    ConnectionLimits {
        most: most.min(left).max(1),
        most_per_address: config.limits.max_connections_per_address,
        shared: config.identity.proxies().to_vec(),
    }
}

/// How many descriptors the process may have: as many as it may ask for.
fn descriptors() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let bound = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: bound.maximum,
        maximum: bound.maximum,
    };
    let bound = setrlimit(Resource::Nofile, all).map_or(bound, |()| all);
    let count = bound.current.map(usize::try_from);
    count.map_or(usize::MAX, |count| count.unwrap_or(usize::MAX))
}

/// Registers the pools and flavors that a file declares: now, or as soon as the management store answers.
async fn declare(app: &Arc<App>, declared: &Declared) {
    if declared.pools.is_empty() && declared.flavors.is_empty() {
        return;
    }
    let attempt = async |app: &App, declared: &Declared| {
        let declaring = app.messaging.declare(&declared.pools, &declared.flavors);
        declaring.await.inspect_err(|error| {
            tracing::warn!(%error, "cannot register the declared pools yet, retrying");
        })
    };
    if attempt(app, declared).await.is_ok() {
        return;
    }
    let (app, declared) = (Arc::downgrade(app), declared.clone());
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(DECLARE_RETRY_DELAY).await;
            match app.upgrade() {
                Some(app) if attempt(&app, &declared).await.is_err() => {}
                _ => return,
            }
        }
    });
}

async fn told(mut stop: watch::Receiver<bool>) {
    // An error means that nobody can say stop any more, which is a reason to stop.
    drop(stop.wait_for(|stop| *stop).await);
}
