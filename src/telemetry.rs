//! What operators see: metrics and logs.

mod fields;
mod sockets;
mod traffic;

use std::io::IsTerminal;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use isimud_contract::{Error, ErrorKind, Observer};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tracing_subscriber::{EnvFilter, reload};

pub use self::sockets::SocketMetrics;
pub use self::traffic::Traffic;
use crate::bridges::{self, Lag, Rule};
use crate::config::{ConfigError, Log, LogFormat};
use crate::keystone::{Authenticator, Sample, Value};
use crate::messaging::{MessageObserver, StoreHealth};
use crate::notifications::NotificationObserver;

/// Upper bounds of the latency histograms, in seconds.
const BUCKETS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    method: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabel {
    pool: Arc<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    pool: Arc<String>,
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    pool: Arc<String>,
    operation: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BridgeLabels {
    from: String,
    to: String,
}

impl BridgeLabels {
    fn of(rule: &Rule) -> Self {
        Self {
            from: rule.from.to_string(),
            to: rule.to.to_string(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BridgedLabels {
    from: String,
    to: String,
    outcome: &'static str,
}

/// Everything that is counted, for the Prometheus page of the admin listener.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    latency: Family<RouteLabel, Histogram, fn() -> Histogram>,
    operations: Family<OperationLabels, Counter>,
    operation_latency: Family<OperationLabel, Histogram, fn() -> Histogram>,
    posted: Counter,
    claimed: Counter,
    deleted: Counter,
    unreadable: Counter,
    notifications: Family<OutcomeLabel, Counter>,
    retries: Counter,
    up: Family<PoolLabel, Gauge<i64, AtomicI64>>,
    full: Family<PoolLabel, Gauge<i64, AtomicI64>>,
    damaged: Family<PoolLabel, Gauge<i64, AtomicI64>>,
    dropped: Family<PoolLabel, Gauge<i64, AtomicI64>>,
    moves_stalled: Gauge,
    bridges: BridgeMetrics,
    keystone: Arc<OnceLock<Arc<Authenticator>>>,
    traffic: Traffic,
    sockets: SocketMetrics,
}

/// What the authenticator counts, where there is one.
#[derive(Debug)]
struct KeystoneMetrics(Arc<OnceLock<Arc<Authenticator>>>);

impl Collector for KeystoneMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let samples = self
            .0
            .get()
            .map_or_else(Vec::new, |keystone| keystone.metrics());
        for family in samples.chunk_by(|one, next| one.name == next.name) {
            let first = &family[0];
            let kind = match first.value {
                Value::Counter(_) | Value::Seconds(_) => MetricType::Counter,
                Value::Gauge(_) => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(first.name, first.help, None, kind)?;
            for Sample { label, value, .. } in family {
                match label {
                    None => encode_value(&mut metric, *value)?,
                    Some(label) => {
                        let labels = [*label];
                        let labels = labels.as_slice();
                        encode_value(&mut metric.encode_family(&labels)?, *value)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn encode_value(metric: &mut MetricEncoder<'_>, value: Value) -> Result<(), std::fmt::Error> {
    match value {
        Value::Counter(count) => metric.encode_counter::<NoLabelSet, _, u64>(&count, None),
        Value::Seconds(secs) => metric.encode_counter::<NoLabelSet, _, u64>(&secs, None),
        Value::Gauge(number) => metric.encode_gauge(&number),
    }
}

/// What is counted of bridges.
#[derive(Debug, Clone, Default)]
struct BridgeMetrics {
    messages: Family<BridgedLabels, Counter>,
    waiting: Family<BridgeLabels, Gauge>,
    oldest: Family<BridgeLabels, Gauge<f64, AtomicU64>>,
    up: Family<BridgeLabels, Gauge>,
}

impl BridgeMetrics {
    fn register(&self, registry: &mut Registry) {
        let help = "Messages that bridges have taken out of their sources, by where they went";
        registry.register("bridge_messages", help, self.messages.clone());
        let help = "Messages in the source of a bridge that this server works on";
        registry.register("bridge_waiting_messages", help, self.waiting.clone());
        let help = "How old the oldest message is that a bridge has before it";
        registry.register_with_unit(
            "bridge_oldest_age",
            help,
            Unit::Seconds,
            self.oldest.clone(),
        );
        let help = "Whether messages can cross a bridge that this server works on";
        registry.register("bridge_up", help, self.up.clone());
    }

    fn count(&self, rule: &Rule, outcome: &'static str, count: usize) {
        let BridgeLabels { from, to } = BridgeLabels::of(rule);
        let labels = BridgedLabels { from, to, outcome };
        self.messages.get_or_create(&labels).inc_by(count as u64);
    }
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("isimud");
        let requests = Family::default();
        registry.register(
            "http_requests",
            "Requests by route, method and status",
            requests.clone(),
        );
        let latency: Family<RouteLabel, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(histogram);
        let help = "Time to answer a request, by route";
        registry.register_with_unit(
            "http_request_duration",
            help,
            Unit::Seconds,
            latency.clone(),
        );
        let operations = Family::default();
        registry.register(
            "store_operations",
            "Calls of a message store by outcome",
            operations.clone(),
        );
        let operation_latency: Family<OperationLabel, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(histogram);
        let help = "Time that a call of a message store took";
        registry.register_with_unit(
            "store_operation_duration",
            help,
            Unit::Seconds,
            operation_latency.clone(),
        );
        let (posted, claimed, deleted) =
            (Counter::default(), Counter::default(), Counter::default());
        registry.register("messages_posted", "Messages stored", posted.clone());
        registry.register(
            "messages_claimed",
            "Messages delivered to claims",
            claimed.clone(),
        );
        registry.register(
            "messages_deleted",
            "Messages deleted or popped",
            deleted.clone(),
        );
        let unreadable = Counter::default();
        registry.register(
            "messages_unreadable",
            "Messages passed over because they cannot be decrypted",
            unreadable.clone(),
        );
        let (notifications, retries) = (Family::default(), Counter::default());
        let help = "Notifications that are finished, by how";
        registry.register("notifications", help, notifications.clone());
        let help = "Attempts to notify that failed and are made again";
        registry.register("notification_retries", help, retries.clone());
        let up = Family::default();
        registry.register(
            "backend_up",
            "Whether a message store answered when it was last asked",
            up.clone(),
        );
        let (full, damaged) = (Family::default(), Family::default());
        let help =
            "Whether a message store has no room and refuses posts; deletes and claims go on";
        registry.register("store_full", help, full.clone());
        let help = "Messages that a store found damaged since it was opened, and left out";
        registry.register("store_damaged_messages", help, damaged.clone());
        let dropped = Family::default();
        let help = "Deliveries of a broker that were dropped since its store was opened: their messages had been deleted, purged or moved on before";
        registry.register("store_dropped_deliveries", help, dropped.clone());
        let moves_stalled = Gauge::default();
        let help = "Queues whose migration this server could not continue when it last tried";
        registry.register("moves_stalled", help, moves_stalled.clone());
        let bridges = BridgeMetrics::default();
        bridges.register(&mut registry);
        let keystone = Arc::default();
        registry.register_collector(Box::new(KeystoneMetrics(Arc::clone(&keystone))));
        let traffic = Traffic::default();
        traffic.register(&mut registry);
        let sockets = SocketMetrics::default();
        sockets.register(&mut registry);
        Self {
            registry,
            requests,
            latency,
            operations,
            operation_latency,
            posted,
            claimed,
            deleted,
            unreadable,
            notifications,
            retries,
            up,
            damaged,
            dropped,
            full,
            moves_stalled,
            bridges,
            keystone,
            traffic,
            sockets,
        }
    }
}

impl Metrics {
    /// What is counted of one route and method; `None` stands for all other methods.
    pub(crate) fn route(&self, route: &'static str, method: Option<&Method>) -> RouteMetrics {
        let method = method.map_or("other", method_name);
        RouteMetrics {
            route,
            method,
            requests: self.requests.clone(),
            latency: self.latency.get_or_create(&RouteLabel { route }).clone(),
            usual: Default::default(),
        }
    }

    /// What is counted of connections.
    pub(crate) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// What is counted of WebSockets.
    pub(crate) fn sockets(&self) -> &SocketMetrics {
        &self.sockets
    }

    /// Notes how the stores are; the others are no more.
    pub(crate) fn stores(&self, stores: &[StoreHealth]) {
        for family in [&self.up, &self.full, &self.damaged, &self.dropped] {
            family.clear();
        }
        for StoreHealth { name, condition } in stores {
            let set = |family: &Family<PoolLabel, Gauge<i64, AtomicI64>>, value| {
                let pool = Arc::new(name.clone());
                family.get_or_create(&PoolLabel { pool }).set(value);
            };
            set(&self.up, i64::from(condition.is_some()));
            if let Some(condition) = condition {
                set(&self.full, i64::from(condition.is_full));
                let damaged = i64::try_from(condition.damaged).unwrap_or(i64::MAX);
                set(&self.damaged, damaged);
                let dropped = i64::try_from(condition.dropped).unwrap_or(i64::MAX);
                set(&self.dropped, dropped);
            }
        }
    }

    /// Counts the calls of one store.
    pub(crate) fn pool(&self, name: &str) -> PoolMetrics {
        PoolMetrics {
            pool: Arc::new(name.to_owned()),
            operations: self.operations.clone(),
            latency: self.operation_latency.clone(),
        }
    }

    /// Shows what an authenticator counts, from now on. There is one, or none.
    pub(crate) fn show_keystone(&self, keystone: &Arc<Authenticator>) {
        // A second one is not made.
        drop(self.keystone.set(Arc::clone(keystone)));
    }

    /// The page that Prometheus reads.
    pub(crate) fn page(&self) -> String {
        let mut page = String::new();
        if let Err(error) = encode(&mut page, &self.registry) {
            tracing::error!(%error, "the metrics could not be written");
        }
        page
    }
}

/// Statuses whose counter a route keeps at hand.
const USUAL_STATUSES: [u16; 6] = [200, 201, 204, 400, 404, 503];

/// What is counted of one route and method.
#[derive(Debug)]
pub struct RouteMetrics {
    route: &'static str,
    method: &'static str,
    requests: Family<RequestLabels, Counter>,
    latency: Histogram,
    usual: [OnceLock<Counter>; USUAL_STATUSES.len()],
}

impl RouteMetrics {
    /// Counts a request.
    pub(crate) fn observe(&self, status: StatusCode, took: Duration) {
        self.latency.observe(took.as_secs_f64());
        let status = status.as_u16();
        match USUAL_STATUSES.iter().position(|usual| *usual == status) {
            Some(at) => self.usual[at].get_or_init(|| self.counter(status)).inc(),
            None => self.counter(status).inc(),
        };
    }

    fn counter(&self, status: u16) -> Counter {
        let labels = RequestLabels {
            route: self.route,
            method: self.method,
            status,
        };
        self.requests.get_or_create(&labels).clone()
    }
}

/// A label of bounded variety, whatever token a client sends as its method.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// What is counted of one store.
#[derive(Debug)]
pub struct PoolMetrics {
    pool: Arc<String>,
    operations: Family<OperationLabels, Counter>,
    latency: Family<OperationLabel, Histogram, fn() -> Histogram>,
}

impl Observer for PoolMetrics {
    fn admit(&self, _: &'static str) -> Result<(), Error> {
        Ok(())
    }

    fn observe(&self, operation: &'static str, took: Duration, error: Option<&Error>) {
        let outcome = match error.map(Error::kind) {
            None => "ok",
            Some(ErrorKind::Unavailable) => "unavailable",
            Some(ErrorKind::Internal) => "failed",
            Some(_) => "refused",
        };
        self.operations
            .get_or_create(&OperationLabels {
                pool: Arc::clone(&self.pool),
                operation,
                outcome,
            })
            .inc();
        self.latency
            .get_or_create(&OperationLabel {
                pool: Arc::clone(&self.pool),
                operation,
            })
            .observe(took.as_secs_f64());
    }
}

impl MessageObserver for Metrics {
    fn posted(&self, count: usize) {
        self.posted.inc_by(count as u64);
    }

    fn claimed(&self, count: usize) {
        self.claimed.inc_by(count as u64);
    }

    fn deleted(&self, count: usize) {
        self.deleted.inc_by(count as u64);
    }

    fn unreadable(&self, count: usize) {
        self.unreadable.inc_by(count as u64);
    }

    fn moves_stalled(&self, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.moves_stalled.set(count);
    }
}

impl NotificationObserver for Metrics {
    fn finished(&self, outcome: &'static str) {
        self.notifications
            .get_or_create(&OutcomeLabel { outcome })
            .inc();
    }

    fn retried(&self) {
        self.retries.inc();
    }
}

impl bridges::BridgeObserver for Metrics {
    fn transferred(&self, rule: &Rule, count: usize) {
        self.bridges.count(rule, "crossed", count);
    }

    fn dead_lettered(&self, rule: &Rule, count: usize) {
        self.bridges.count(rule, "dead_lettered", count);
    }

    fn lag(&self, rule: &Rule, lag: Lag) {
        let labels = BridgeLabels::of(rule);
        let waiting = i64::try_from(lag.waiting()).unwrap_or(i64::MAX);
        self.bridges.waiting.get_or_create(&labels).set(waiting);
        let oldest = lag.oldest.as_secs_f64();
        self.bridges.oldest.get_or_create(&labels).set(oldest);
    }

    fn up(&self, rule: &Rule, up: bool) {
        let labels = BridgeLabels::of(rule);
        self.bridges.up.get_or_create(&labels).set(i64::from(up));
    }

    fn left(&self, rule: &Rule) {
        let labels = BridgeLabels::of(rule);
        self.bridges.waiting.remove(&labels);
        self.bridges.oldest.remove(&labels);
        self.bridges.up.remove(&labels);
    }
}
/// A client library that logs every refusal of a broker as an error, and messages with their bodies. Whoever wants to
/// read that names it.
const QUIET: &str = "lapin=off";

/// What operators change is logged, whatever else is.
const ALWAYS: &str = "audit=info";

/// Which events are logged.
pub(crate) fn filter(log: &Log) -> Result<EnvFilter, ConfigError> {
    EnvFilter::try_new(format!("{QUIET},{},{ALWAYS}", log.level)).map_err(|error| {
        ConfigError::new(format!("log.level is invalid: '{}': {error}", log.level))
    })
}

/// Changes which events are logged.
pub struct LogLevel(Box<dyn Fn(EnvFilter) -> Result<(), ConfigError> + Send + Sync>);

impl LogLevel {
    /// Has the events of another configuration be logged from now on.
    pub fn set(&self, log: &Log) -> Result<(), ConfigError> {
        (self.0)(filter(log)?)
    }
}

/// Starts logging to standard error.
pub fn start_logging(log: &Log) -> Result<LogLevel, ConfigError> {
    let filter = filter(log)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let builder = builder.with_ansi(std::io::stderr().is_terminal());
    let wrong = |what: &str, error: &dyn std::fmt::Display| {
        ConfigError::new(format!("logging cannot be {what}: {error}"))
    };
    let changed = move |error: reload::Error| wrong("changed", &error);
    let (started, level) = match log.format {
        LogFormat::Text => {
            let builder = builder
                .with_target(false)
                .fmt_fields(fields::QuotedFields)
                .with_filter_reloading();
            let handle = builder.reload_handle();
            let level = LogLevel(Box::new(move |filter| {
                handle.reload(filter).map_err(changed)
            }));
            (builder.try_init(), level)
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            let level = LogLevel(Box::new(move |filter| {
                handle.reload(filter).map_err(changed)
            }));
            (builder.try_init(), level)
        }
    };
    started.map_err(|error| wrong("started", &error))?;
    Ok(level)
}

impl std::fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogLevel")
    }
}
