//! Claims (spec: claims.md), a file a topic.

mod create;
mod end;
mod extend;
mod refused;
mod renew;
mod show;

use crate::api::messages::CLAIMS;

/// What no claim's terms may be, and the sentence that says so.
const TTL: &str =
    "The TTL for a claim may not exceed 43200 seconds, and must be at least 60 seconds long.";
const GRACE: &str =
    "The grace for a claim may not exceed 43200 seconds, and must be at least 60 seconds long.";

/// The path of a claim of the queue.
fn path(claim: &str) -> String {
    format!("{CLAIMS}/{claim}")
}

/// What is said of a claim that does not exist.
fn no_such_claim(claim: &str) -> String {
    format!("Claim {claim} does not exist in queue fizbat for project 480924")
}
