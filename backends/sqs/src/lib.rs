//! Messages in Amazon SQS.
#![warn(missing_docs)]

mod actions;
mod batching;
mod broker;
mod client;
mod config;
mod envelope;
mod error;
mod names;
mod polling;
mod purge;
mod queue;
mod queues;
mod round;

pub use broker::SqsBroker;
pub use config::Config;
