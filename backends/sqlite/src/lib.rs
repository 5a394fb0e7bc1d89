//! The embedded store: messages, claims, queues, subscriptions and pools in one SQLite file, with nothing to set up.
//!
//! ```text
//! store, management   the contracts, each method one call on the right thread
//! worker_thread  a thread with a connection: calls in groups, one transaction and one disk flush a group
//! session    a connection with its counters, and the horizon: when something next ends by itself
//! queue_log  a queue's number, where its rows stand, its counters; purge; statistics
//! message    posting, reading, deleting    claim   claims and dead letters
//! ledger     the same for brokers that can only lease: who holds what
//! sweep      what ends by itself
//! queue      queue records      pool   pools and flavors      subscription
//! schema     opening, migrations      lock   which file it is, open once     config  error
//! inspect    what opening would find out            damage  messages that the disk has changed
//! upkeep     the writer's work for the file: the log (wal), space for others, a full disk (reserve)
//! ```
//!
//! # What maps to what
//!
//! | the contract | here |
//! |---|---|
//! | a queue's messages | a *queue log*: a number, and rows `number << 40 \| arrival` of the table `message` |
//! | order, marker | the number of arrival, which is the row number's arrival and the queue log's base: the table itself is the listing |
//! | a row of a ledger that awaits its record | an arrival beyond all others, and a row of `ledger_unnoted` |
//! | a free message | `hold = 0`; an index on `hold` finds the free ones of a queue log without passing the others |
//! | a claim | a row of `claim`; its messages have its number in `hold` |
//! | a delay | `hold = -1` until `due`; a row of `delay` finds it when the time has come |
//! | expiry | compared with the clock by every query; swept by ranges of `expires` |
//! | purge | a new queue log number for the queue, in which its numbers of arrival go on; the rows under the old one are swept in the background |
//! | queues of a store | rows of `segment`, written with the queue's record |
//! | a flavor's members | the rows of `pool` that name it |
//! | a subscription's end | compared with the clock by every query; swept by ranges of `expires` |
//! | statistics | counters in `stream`, written once a transaction, less what has ended and is not swept |
//!
//! # What holds
//!
//! * **One writer.** All changes go through one thread. Calls that arrive while a group is being committed form the
//!   next group, so many callers share one flush; a lone caller does not wait for company.
//! * **Readers do not wait for the writer** (write-ahead log), and see a state between two groups. In memory there is
//!   one connection, and the writer's thread reads too.
//! * **An answer comes after the commit.** With `synchronous=full` (the default) the log is on the disk then.
//! * **Sweeping is bounded** to some milliseconds between two groups. A claim or pop first frees what has ended, so
//!   that it is taken in its old place; after a burst of more than 50,000 messages that ended at once, later calls
//!   finish that, and until then what came back may be overtaken. What has expired in front of the free messages is
//!   walked past once, whenever it is swept.
//!
//! # What is approximate
//!
//! * A listing that leaves out the asker's own messages walks past them: its cost grows with how many of its own stand
//!   before the page. It holds up other readings, and in memory, where there is one thread, every call.
//! * A listing that is filtered by metadata walks past the queues that do not match.
//! * Numbers of arrival that are carried here must be within some thirty years of each other (at a thousand messages a
//!   second and less; a million times a million numbers): a message that comes with another stands at the end.
//! * A marker that names a deleted message stands where the nearest older id is; ids that were minted in the same
//!   millisecond by one server are in the order of minting, which concurrent posts may not be.
//!
//! # Roads not taken
//!
//! * An index on (queue, arrival) beside a plain row number: one more tree for every post to write, and every listing
//!   would look up each row. Savepoints around the calls of a group: two statements a call, against running a group
//!   again in the rare case that a call fails inside SQLite.
//! * Planner statistics: SQLite would compile statements again whenever bound values change; the plans are fixed by
//!   `INDEXED BY` and the stability guarantee instead (listing ten messages went from 32 to 10 microseconds).
#![warn(missing_docs)]

mod claim;
mod config;
mod damage;
mod error;
mod inspect;
mod ledger;
mod lock;
mod management;
mod message;
mod numbering;
mod pool;
mod queue;
mod queue_log;
mod reserve;
mod row;
mod schema;
mod session;
mod store;
mod subscription;
mod sweep;
mod upkeep;
mod wal;
mod worker_thread;

pub use config::{Config, OPTIONS};
pub use inspect::inspect;
pub use store::SqliteStore;
