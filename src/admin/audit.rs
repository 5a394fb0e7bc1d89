//! Who changed what: a line of the log for every change that an operator asks for, with what came of it.
//!
//! Its target is `audit`, which is logged whatever `log.level` says.

use super::Fault;
use super::guard::Operator;

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
