//! What the authenticator counts: plain atomic numbers, which the server exports under their names.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Counters and gauges of one authenticator. All may be read and written from any thread.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// Requests, by what became of them.
    pub(super) authenticated: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) unavailable: AtomicU64,
    /// Tokens, by where the answer came from.
    pub(super) fresh_hits: AtomicU64,
    pub(super) negative_hits: AtomicU64,
    pub(super) stale_hits: AtomicU64,
    pub(super) shared: AtomicU64,
    /// Validations, by Keystone's answer.
    pub(super) valid: AtomicU64,
    pub(super) invalid: AtomicU64,
    pub(super) undecided: AtomicU64,
    pub(super) validation_micros: AtomicU64,
    /// The service's own token.
    pub(super) renewals: AtomicU64,
    pub(super) failed_renewals: AtomicU64,
    pub(super) breaker_openings: AtomicU64,
    /// 1 while Keystone makes decisions, 0 while it does not, -1 before it was asked.
    pub(super) up: Gauge,
}

/// A number that goes up and down.
#[derive(Debug)]
pub(super) struct Gauge(AtomicI64);

impl Default for Gauge {
    fn default() -> Self {
        Self(AtomicI64::new(-1))
    }
}

impl Gauge {
    pub(super) fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// The value of one metric, as it is exported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A number that only grows.
    Counter(u64),
    /// A duration in seconds that only grows.
    Seconds(f64),
    /// A number that goes up and down.
    Gauge(i64),
}

/// One metric with its labels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// The name, without the service's prefix.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// The label that tells samples of one name apart.
    pub label: Option<(&'static str, &'static str)>,
    /// The number.
    pub value: Value,
}

pub(super) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Metrics {
    /// Counts how long a validation took.
    pub(super) fn took(&self, span: Duration) {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        self.validation_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Returns all counters and gauges. Samples of one name stand beside each other.
    pub(super) fn samples(&self) -> Vec<Sample> {
        let counted = |name, help, label: &'static str, counters: &[(&'static str, &AtomicU64)]| {
            let sample = |(value, counter): &(&'static str, &AtomicU64)| Sample {
                name,
                help,
                label: (!label.is_empty()).then_some((label, *value)),
                value: Value::Counter(counter.load(Ordering::Relaxed)),
            };
            counters.iter().map(sample).collect::<Vec<_>>()
        };
        let micros = self.validation_micros.load(Ordering::Relaxed);
        let mut samples = counted(
            "keystone_requests",
            "Requests with Keystone authentication, by what became of them",
            "outcome",
            &[
                ("authenticated", &self.authenticated),
                ("refused", &self.refused),
                ("unavailable", &self.unavailable),
            ],
        );
        samples.extend(counted(
            "keystone_cache_answers",
            "Tokens for which Keystone was not asked anew, by where the answer came from",
            "source",
            &[
                ("fresh", &self.fresh_hits),
                ("negative", &self.negative_hits),
                ("stale", &self.stale_hits),
                ("shared", &self.shared),
            ],
        ));
        samples.extend(counted(
            "keystone_validations",
            "Validations of tokens by Keystone, by its answer",
            "outcome",
            &[
                ("valid", &self.valid),
                ("invalid", &self.invalid),
                ("undecided", &self.undecided),
            ],
        ));
        samples.push(Sample {
            name: "keystone_validation_seconds",
            help: "Time that validations of tokens by Keystone took in all",
            label: None,
            value: Value::Seconds(Duration::from_micros(micros).as_secs_f64()),
        });
        samples.extend(counted(
            "keystone_service_token_renewals",
            "Attempts to get a token for the service itself, by outcome",
            "outcome",
            &[
                ("succeeded", &self.renewals),
                ("failed", &self.failed_renewals),
            ],
        ));
        samples.extend(counted(
            "keystone_breaker_openings",
            "How often the circuit breaker in front of Keystone has opened",
            "",
            &[("", &self.breaker_openings)],
        ));
        samples.push(Sample {
            name: "keystone_up",
            help: "Whether Keystone decides about tokens: 1, 0, or -1 before it was asked",
            label: None,
            value: Value::Gauge(self.up.0.load(Ordering::Relaxed)),
        });
        samples
    }
}
