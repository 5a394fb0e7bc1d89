//! What is counted of connections, and of bytes that are on their way over them.

use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UnreceivedLabels {
    operation: &'static str,
    outcome: &'static str,
}

/// What is counted of the connections of the API, and of what is under way on them.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    /// Connections that are open.
    pub(crate) connections: Gauge,
    /// Bytes of request bodies that have not arrived in whole.
    pub(crate) request_bytes: Gauge<i64, AtomicI64>,
    /// Bytes of large answers that the system has not taken in whole.
    pub(crate) answer_bytes: Gauge<i64, AtomicI64>,
    refused: Family<ReasonLabel, Counter>,
    closed: Family<ReasonLabel, Counter>,
    busy: Family<ReasonLabel, Counter>,
    unreceived: Family<UnreceivedLabels, Counter>,
}

impl Traffic {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Connections of the API that are open";
        registry.register("connections", help, self.connections.clone());
        let help = "Bytes of request bodies of which a part has not arrived yet";
        registry.register("request_bytes_under_way", help, self.request_bytes.clone());
        let help = "Bytes of large answers that their clients have not taken yet";
        registry.register("answer_bytes_under_way", help, self.answer_bytes.clone());
        let help = "Connections that were answered 503 and closed at once, by reason";
        registry.register("connections_refused", help, self.refused.clone());
        let help = "Connections that were closed before their clients did, by reason";
        registry.register("connections_closed", help, self.closed.clone());
        let help = "Requests that were answered 503 because too many bytes were under way, by kind";
        registry.register("requests_refused", help, self.busy.clone());
        let help = "Claims and pops whose clients were gone before the answer was sent, by what became of the messages";
        registry.register("unreceived", help, self.unreceived.clone());
    }

    /// A connection was refused.
    pub(crate) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// A connection was closed.
    pub(crate) fn closed(&self, reason: &'static str) {
        self.closed.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// A request was refused.
    pub(crate) fn busy(&self, reason: &'static str) {
        self.busy.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// A claim or a pop was not received.
    pub(crate) fn unreceived(&self, operation: &'static str, outcome: &'static str) {
        let labels = UnreceivedLabels { operation, outcome };
        self.unreceived.get_or_create(&labels).inc();
    }
}
