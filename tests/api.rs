//! The whole API in process: requests go in as they come off a connection, answers are looked at as they go out.
//!
//! There is no sleep in here, and the clock stands until a test moves it. The store is in memory, or on a Redis server of
//! the program's own: `API_STORE=redis cargo test --test system api::`.

mod abandoned;
mod claims;
mod dead_letters;
mod encryption;
mod flavors;
mod health;
mod http;
mod messages;
mod policies;
mod pools;
mod queues;
mod quotas;
mod share;
mod store;
mod subscriptions;
mod support;
mod topics;
mod unavailable;
