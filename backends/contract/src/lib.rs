//! What a backend of Isimud must be.
//!
//! The server knows two contracts and nothing else about storage: [`MessageStore`] for messages and claims, and
//! [`ManagementStore`] for what describes them (queues, subscriptions, pools, flavors). A driver crate implements them
//! for one product; the crate `isimud-conformance` holds the trials that say what each promise means. A broker that can
//! only lease messages becomes a `MessageStore` in the crate `isimud-lease`, which keeps what the broker cannot know in
//! a [`Ledger`].
//!
//! ```text
//! ids        what names things: project, queue, message, claim, client
//! message    a message, how a listing is asked for, what may be deleted     headers  what a producer says beside the body
//! claim      a lease on messages, and where over-claimed ones go
//! queue      metadata, listings of queues, statistics
//! placement  in which stores a queue's messages are
//! pool       pools and flavors      subscription  who is told of messages
//! store      MessageStore           management  ManagementStore: Queues, Pools, Subscriptions
//! ledger     Ledger: who holds a message of a broker that can only lease
//! capabilities   what a store can do, asked before it is used; what it has noticed of itself
//! error      one error for every backend: what the caller can do about it
//! json       which JSON can be a body
//! clock      the only place that reads the time
//! instrumented   the one wrapper: span, timing, error context
//! ```
//!
//! Three decisions shape the types.
//!
//! * **Times inside a message are spans, not dates.** A message has an age, a remaining life and a remaining delay.
//!   Only the store knows what time it is, so a message can move between stores whose clocks differ.
//! * **An id names, it does not rank.** The server mints ids, so that a post repeated after a lost answer is the same
//!   post; the store numbers arrivals, and only that number is an order.
//! * **Bodies are opaque.** Nothing below HTTP parses a body; it is JSON text on the way in and the same bytes on the
//!   way out. Where somebody else has written one, it is checked once, on its way in ([`body_of_text`]).
#![warn(missing_docs)]

mod capabilities;
mod claim;
mod clock;
mod error;
mod glob;
mod headers;
mod ids;
mod instrumented;
mod json;
mod ledger;
mod management;
mod message;
mod placement;
mod pool;
mod queue;
mod store;
mod subscription;

pub use capabilities::{Capabilities, Condition};
pub use claim::{Claim, DeadLetter, ImportedClaim, Lease, Stands};
pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use error::{Error, ErrorKind, REASON, Resource, Result};
pub use glob::globs_meet;
pub use headers::{HeaderMap, HeaderValue, Headers, Property};
pub use ids::{
    ClaimId, ClientId, FlavorName, InvalidName, MessageId, PoolName, ProjectId, QueueKey,
    QueueName, SubscriptionId,
};
pub use instrumented::{Instrumented, Observer};
pub use json::{JsonFault, body_of_text, check_json};
pub use ledger::{Delivery, Epoch, Ledger, Purpose, Receipt, Renewed, UnknownIds, Verdict};
pub use management::{Change, ManagementStore, Pools, Queues, Subscriptions, Watcher};
pub use message::{
    Arrival, ByteCount, Checksum, Marker, Message, PAGE_BYTES, Page, PageRoom, Precondition,
    Selection,
};
pub use placement::{GAP, LeftSegment, Placement, Segment, StoreId};
pub use pool::{Flavor, MembershipChange, Pool, PoolRecord};
pub use queue::{
    Backlog, Filter, FilterValue, Kind, Metadata, QueueRecord, QueueSelection, Stats, StatsMessage,
    read_metadata,
};
pub use store::MessageStore;
pub use subscription::{Subscription, SubscriptionChange};
