//! The whole API in process: requests go in as they come off a connection, answers are looked at as they go out.
//!
//! There is no socket and no sleep in here; the store is in memory and the clock stands until a test moves it.

mod claims;
mod dead_letters;
mod encryption;
mod http;
mod messages;
mod policies;
mod queues;
mod support;
mod unavailable;
