//! The embedded store: messages, claims and queues in one SQLite file, with nothing to set up.

mod claim;
mod config;
mod error;
mod lane;
mod management;
mod message;
mod schema;
mod session;
mod store;
mod stream;
mod sweep;

pub use config::Config;
pub use store::SqliteStore;
