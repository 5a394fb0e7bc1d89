//! What the authenticator counts: plain atomic numbers, which the server exports under their names.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use hyper::{Method, StatusCode};

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
    /// Requests to create and to delete a trust.
    pub(super) trust_creations: Outcomes,
    pub(super) trust_deletions: Outcomes,
    /// 1 while Keystone makes decisions, 0 while it does not, -1 before it was asked.
    pub(super) up: Gauge,
}

/// Requests of one kind to Keystone, by what came of them.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    succeeded: AtomicU64,
    refused: AtomicU64,
    unavailable: AtomicU64,
}

impl Outcomes {
    fn named(&self) -> [(&'static str, &AtomicU64); 3] {
        [
            ("succeeded", &self.succeeded),
            ("refused", &self.refused),
            ("unavailable", &self.unavailable),
        ]
    }
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

    /// Counts what came of a request to create or to delete a trust, with the status of the answer, or `None` where there is
    /// no decision. Other requests are not counted. A trust that is to be deleted and is not there counts as deleted.
    pub(super) fn note_trust(&self, method: &Method, path: &str, status: Option<StatusCode>) {
        let is_one = path.rsplit_once("/OS-TRUST/trusts").map(|(_, id)| id);
        let outcomes = match (method, is_one) {
            (&Method::POST, Some("")) => &self.trust_creations,
            (&Method::DELETE, Some(id)) if id.len() > 1 => &self.trust_deletions,
            _ => return,
        };
        add(match status {
            None => &outcomes.unavailable,
            Some(StatusCode::NOT_FOUND) if method == Method::DELETE => &outcomes.succeeded,
            Some(status) if status.is_success() => &outcomes.succeeded,
            Some(status) if status.is_client_error() => &outcomes.refused,
            Some(_) => &outcomes.unavailable,
        });
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
        samples.extend(counted(
            "keystone_trust_creations",
            "Requests to Keystone that create a trust, by outcome",
            "outcome",
            &self.trust_creations.named(),
        ));
        samples.extend(counted(
            "keystone_trust_deletions",
            "Requests to Keystone that delete a trust, by outcome",
            "outcome",
            &self.trust_deletions.named(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_that_create_or_delete_a_trust_are_counted() {
        let metrics = Metrics::default();
        let (trusts, one) = ("/v3/OS-TRUST/trusts", "/identity/v3/OS-TRUST/trusts/8d6c");
        let status = |code| Some(StatusCode::from_u16(code).expect("a status"));
        for (method, path, status) in [
            (Method::POST, trusts, status(201)),
            (Method::POST, trusts, status(201)),
            (Method::POST, trusts, status(403)),
            (Method::POST, trusts, status(302)),
            (Method::POST, trusts, None),
            (Method::DELETE, one, status(204)),
            (Method::DELETE, one, status(404)),
            (Method::DELETE, one, status(401)),
            (Method::DELETE, one, None),
            (Method::GET, one, status(200)),
            (Method::GET, trusts, None),
            (Method::POST, one, status(404)),
            (Method::DELETE, trusts, status(404)),
            (Method::POST, "/v3/auth/tokens", status(201)),
        ] {
            metrics.note_trust(&method, path, status);
        }
        let counts = |outcomes: &Outcomes| {
            outcomes
                .named()
                .map(|(_, count)| count.load(Ordering::Relaxed))
        };
        assert_eq!(counts(&metrics.trust_creations), [2, 1, 2]);
        assert_eq!(counts(&metrics.trust_deletions), [2, 1, 1]);
    }
}
