//! RabbitMQ as a broker that leases.
#![warn(missing_docs)]

mod broker;
mod channel;
mod config;
mod connect;
mod control;
mod error;
mod held;
mod holder;
mod link;
mod message;
mod names;
mod native;
mod probe;
mod publisher;
mod queues;
mod receipt;

pub use broker::AmqpBroker;
pub use config::Config;
