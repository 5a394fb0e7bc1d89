//! Who changed what: a line of the log for every change that an operator asks for, with what came of it.
//!
//! Its target is `audit`, which is logged whatever `log.level` says.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::Fault;
use super::guard::Operator;

/// Makes a change and writes its line, also when whoever asked for it has hung up.
pub(super) async fn to_its_end(
    change: impl Future<Output = Response> + Send + 'static,
) -> Response {
    tokio::spawn(change).await.unwrap_or_else(|_| {
        Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "The change broke off.").into_response()
    })
}

/// Writes the line of a change that was tried.
pub(super) fn tell<T>(
    operator: &Operator,
    action: &'static str,
    subject: &str,
    outcome: &Result<T, Fault>,
) {
    let (who, role) = (operator.name.as_str(), operator.role.name());
    let peer = operator.peer.map(tracing::field::display);
    let why = outcome.as_ref().err().map(|fault| fault.sentence.as_str());
    let outcome = match outcome {
        Ok(_) => "done",
        Err(fault) if fault.status.is_client_error() => "refused",
        Err(_) => "failed",
    };
    tracing::info!(
        target: "audit",
        who,
        role,
        peer,
        action,
        subject,
        outcome,
        why,
        "an operator asked for a change"
    );
}
