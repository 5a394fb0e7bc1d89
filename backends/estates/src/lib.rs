//! What other services left behind in their stores, read for an import and never written to.
//!
//! ```text
//! zaqar    a Zaqar on Redis: queues, messages, claims, subscriptions     sql      its queues, where SQL keeps them
//! list     a Redis list that served as a queue        stream   a Redis stream     element  a value as a body
//! json     MessagePack and others, as JSON text       cipher   Zaqar's encrypted bodies   pickle   what is in them
//! source   a Redis that is only asked                 address  where it is        reply    what it answers
//! found    the records that come out
//! ```
//!
//! An estate is read in pages, so that an import's memory does not grow with it: all that is held at once are the names
//! of its queues. What comes out are the contract's own types, with the times as spans from the moment of reading, and
//! for everything that cannot be taken a sentence that says why. Nothing here knows where the records go.
//!
//! **Read only.** [`source`] has a list of commands, none of which writes, and no way of sending another.
#![warn(missing_docs)]

mod address;
mod cipher;
mod element;
mod found;
mod json;
mod list;
mod pickle;
mod reply;
mod source;
mod sql;
mod stream;
mod zaqar;

pub use address::Address;
pub use element::{ElementPage, FoundElement, Unwrap};
pub use found::{
    Cursor, FoundMessage, FoundPage, FoundQueue, FoundSubscription, Left, Refusal, Survey,
};
pub use list::{List, Oldest};
pub use sql::SqlManagement;
pub use stream::{Stream, StreamSelection};
pub use zaqar::{Names, Record, Zaqar, survey};
