//! Completes a broker that can only lease messages into a whole [`MessageStore`](isimud_contract::MessageStore).
//!
//! **The ledger decides, the broker delivers.**
#![warn(missing_docs)]

mod broker;
#[cfg(feature = "fake")]
pub mod fake;
mod hints;
mod leased;
mod rounds;

pub use broker::{Depth, Envelope, LeaseBroker};
pub use leased::{Journal, Leased};
