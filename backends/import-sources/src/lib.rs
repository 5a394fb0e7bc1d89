//! What other services left behind in their stores, read for an import and never written to.
//!
//! ```text
//! zaqar    a Zaqar on Redis: queues, messages, claims, subscriptions     sql      its queues, where SQL keeps them
//! list     a Redis list that served as a queue        stream   a Redis stream     element  a value as a body
//! held     what Celery's workers hold                 bull     BullMQ's jobs
//! msgpack  Zaqar's values, as JSON text               cipher   Zaqar's encrypted bodies   pickle   what is in them
//! json     how JSON text is written, and what the API takes of it
//! source   a Redis that is only asked                 address  where it is        reply    what it answers
//! found    the records that come out
//! ```
//!
//! A source is read in pages, so that an import's memory does not grow with it: all that is held at once are the names
//! of its queues (of a list, a digest for each different element; of what Celery's workers hold, one for each). What
//! comes out are the contract's own types, with the times as spans from the moment of reading, and for everything that
//! cannot be taken a sentence that says why. Nothing here knows where the records go.
//!
//! **Read only.** The module `source` has a list of commands, none of which writes, and no way of sending another.
//!
//! # What becomes of what
//!
//! Of a Zaqar (spec: redis-layout.md):
//!
//! | there | here |
//! |---|---|
//! | a member of `P.queues_set`, a row of `Queues` | a queue, with the metadata of `P.Q` or of its row |
//! | `P.Q.messages` that no management store lists | a queue without metadata: dead letters, mostly |
//! | its members in the order of their scores | the order of arrival |
//! | message: key, `u`, `t`, `c.c` | id, client, ttl, claim count, as they are |
//! | `cr`, `e`, `d` | age, remaining life and remaining delay; `e` counts, not the life of the key |
//! | `b`, MessagePack | JSON text; NaN and infinities become `null`, bytes inside become base64, and both are told |
//! | JSON that the API refuses in posts (numbers beyond 64 bits, deep nesting) | a string of that JSON |
//! | `b`, bytes | an encrypted body: decrypted, and what was pickled is read as data, never run |
//! | `cs` | the checksum; that of an encrypted body is of the ciphertext, and left out |
//! | `c`, while `c.e` is in the future | a claim with the ttl and the end of its own record, or the end `c.e` |
//! | a claim without messages, an id without a message, what has ended | nothing |
//! | `P.Q.subscriptions` | subscriptions; those from before confirmation count as confirmed |
//! | pools, flavors, the catalogue | their names: where messages are kept is decided anew |
//!
//! Keys that two projects share (`a` with `b.c`, `a.b` with `c`) give both queues and neither the messages.
//!
//! Of a list and of a stream:
//!
//! | there | here |
//! |---|---|
//! | an element that is JSON which the API takes in posts | the body, character for character |
//! | any other text | a string |
//! | bytes that are no text | `{"base64": "…"}` |
//! | an entry of a stream | an object of its fields, each a string; or the one field's value, like an element |
//! | a field that is there twice | an array |
//! | an entry's id | the age |
//! | kombu's lists of other priorities | after the list, from the most urgent on |
//! | the number of a BullMQ job | the job (see the module `bull`) |
//! | the id | UUID 8 of the place, the key, and the element with the number of equal ones that are older, or the entry |
//!
//! The place is what [`Address`] shows: a later import that names the same Redis in another way makes new ids.
#![warn(missing_docs)]

mod address;
mod bull;
mod cipher;
mod element;
mod found;
mod held;
mod json;
mod list;
mod msgpack;
mod pickle;
mod reply;
mod source;
mod sql;
mod stream;
mod zaqar;

pub use address::Address;
pub use bull::Jobs;
pub use element::{ElementPage, Elements, FoundElement, Unwrap};
pub use found::{
    Cursor, FoundMessage, FoundPage, FoundQueue, FoundSubscription, Left, Refusal, Survey,
};
pub use held::Held;
pub use list::{List, Lists, Oldest};
pub use sql::SqlManagement;
pub use stream::{Stream, StreamSelection};
pub use zaqar::{Names, Record, Zaqar, survey};

/// The answer to a key that is not there.
pub fn missing(key: &str) -> isimud_contract::Error {
    isimud_contract::Error::invalid(
        "there is no such key (to Redis, an empty list is the same as none)",
    )
    .with("key", key.as_bytes().escape_ascii())
}
