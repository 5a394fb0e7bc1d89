//! What is counted of WebSockets.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::histogram;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabels {
    action: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// Counters and gauges of the sockets of this server.
#[derive(Debug, Clone)]
pub struct SocketMetrics {
    /// Sockets that are open.
    pub(crate) open: Gauge,
    /// Subscriptions of sockets that are open.
    pub(crate) subscriptions: Gauge,
    answers: Family<AnswerLabels, Counter>,
    duration: Histogram,
    refused: Family<ReasonLabel, Counter>,
    closed: Family<ReasonLabel, Counter>,
    pushed: Family<OutcomeLabel, Counter>,
}

impl Default for SocketMetrics {
    fn default() -> Self {
        Self {
            open: Gauge::default(),
            subscriptions: Gauge::default(),
            answers: Family::default(),
            duration: histogram(),
            refused: Family::default(),
            closed: Family::default(),
            pushed: Family::default(),
        }
    }
}

impl SocketMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "WebSockets that are open";
        registry.register("websockets", help, self.open.clone());
        let help = "Subscriptions of the WebSockets that are open";
        registry.register("websocket_subscriptions", help, self.subscriptions.clone());
        let help = "Requests over WebSockets by action and status";
        registry.register("websocket_requests", help, self.answers.clone());
        let help = "Time to answer a request over a WebSocket";
        let duration = self.duration.clone();
        registry.register_with_unit("websocket_request_duration", help, Unit::Seconds, duration);
        let help = "Handshakes of WebSockets that were refused, by reason";
        registry.register("websocket_handshakes_refused", help, self.refused.clone());
        let help = "WebSockets that the server closed, by reason";
        registry.register("websockets_closed", help, self.closed.clone());
        let help = "Messages for subscriptions of WebSockets, by what became of them";
        registry.register("websocket_pushes", help, self.pushed.clone());
    }

    /// A request was answered.
    pub(crate) fn answered(&self, action: &'static str, status: u16, took: Duration) {
        let labels = AnswerLabels { action, status };
        self.answers.get_or_create(&labels).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// A handshake was refused.
    pub(crate) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// The server closed a socket.
    pub(crate) fn closed(&self, reason: &'static str) {
        self.closed.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// So many messages for subscribers were handed over, or dropped.
    pub(crate) fn pushed(&self, outcome: &'static str, count: usize) {
        let counter = self.pushed.get_or_create(&OutcomeLabel { outcome });
        counter.inc_by(count as u64);
    }
}
