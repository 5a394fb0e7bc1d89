//! RabbitMQ as a broker that leases: [`AmqpBroker`] implements `LeaseBroker`, and the crate `isimud-lease` completes it
//! into a whole message store with a ledger beside it.
//!
//! ```text
//! broker     the contract, each method          config     URIs
//! names      which RabbitMQ queue a queue is    error      what RabbitMQ says, as kinds
//! message    a message in properties and back   native     messages of the existing deployment's own producers
//! headers    what is said beside a body, in RabbitMQ's terms
//! publisher  confirmed and routed               queues     what is known of queues, and how they are made
//! holder     getting, on channels that hold     probe      what kind of queue somebody else's is
//! coalescer  those who get at the same moment   control    settling what another server holds
//! channel    a channel: get, draw, settle       receipt    who holds it
//! held       what is held, and until when       connect    how a connection is made
//! reconnecting  a connection, made again   refusals   what RabbitMQ has refused of late
//! name_locks  one at a time, by queue      order      in which order deliveries go back
//! expected   copies on their way to callers
//! closing    why a channel was closed      deadline   how long a call may take in all
//! circuits   queues that do not answer
//! ```
//!
//! # What maps to what
//!
//! | the broker's contract | here |
//! |---|---|
//! | a queue | a durable queue of its own, quorum or classic; or one of the existing deployment's (`adopt`, `name`) |
//! | a message | the body bare, the rest in properties and headers (`message`) |
//! | send | `basic.publish`, mandatory and persistent; it returns when all are confirmed |
//! | receive | `basic.get`, all of a call on one channel; for many, a temporary consumer for their number (`coalescer`) |
//! | a hold | the delivery stays unacknowledged, and is given back (`basic.nack`) at the end of its lease |
//! | extend | the moment is put off, up to `hold_cap_s` after the delivery |
//! | ack, release | `basic.ack`, `basic.nack` on the channel that got it, or an order to the server that has it |
//! | a receipt | server, channel, delivery tag. Each life of a server has a new id, each channel a new number |
//! | ttl | `expiration`, which RabbitMQ enforces at the head of the queue; the ledger knows better |
//! | delay | none: the ledger has what is not due held, and held again |
//!
//! # Connections
//!
//! Four, for a server and pool, and RabbitMQ shows their names. *publishing*: a server that is short of memory
//! or disk space stops a whole connection. *holding*: what costs a channel or a connection must not be done where
//! deliveries are held. *trying*: the first `basic.get` of a queue, which for some kinds of queues costs the connection.
//! *asking*: declarations, of which one that is refused costs its channel; and the queue by which other servers reach
//! this one. One whose channel numbers are used up is replaced, and closed behind the last of its channels (`link`).
//!
//! # What is refused
//!
//! RabbitMQ closes a channel for each question that it refuses, writes a line into its log, and the client loses the
//! channel's number for good. So nothing here is refused in a loop. A queue of ours is made by one declaration, equal to
//! what is there; whether it has a companion is seen by a message without a life; a queue that is deleted need not be
//! there. What is left is a receive from a queue that nobody has seen, or of the existing deployment's own: that it is
//! not there is remembered for half a second, and for four where it stays so. A queue that another server or a native
//! makes is found when that is over.
//!
//! # What holds
//!
//! * **Confirmed is stored.** A post is acknowledged when the queue has it; a message that reaches no queue is an error,
//!   after the queue was made anew.
//! * **Nobody waits for RabbitMQ's patience.** RabbitMQ itself ends a hold with the connection that holds it, which it
//!   misses at once when a server is killed and after two heartbeats when the network falls silent. A hold that goes on
//!   is given back before RabbitMQ's `consumer_timeout` (half an hour) closes the channel.
//! * **A hint that comes late changes nothing.** A delivery is settled once, by whoever takes it out of `held`; what is
//!   not there any more is not settled. RabbitMQ would close the channel at a second time, and all on it would return.
//! * **Whoever goes away takes nothing with him.** Getting is a task of its own, and what it got for a caller who has
//!   gone is given back.
//! * **A call waits no longer than `timeout_ms`**, all its steps together. One that is not answered costs its channel; the
//!   next one opens another and so finds out whether the connection is alive. Nothing here repeats a call but a declaration
//!   that made RabbitMQ fail, the first `basic.get` of a queue, and messages whose channel was closed on account of another
//!   caller's.
//! * **A message that the node does not take** (its `max_message_size`) is refused for good, and what it takes remembered
//!   for as long as the connection lasts. Of several messages none is stored then.
//!
//! # A queue that does not answer
//!
//! A quorum queue without a leader answers nothing: its `basic.get` blocks the channel, and after half a minute RabbitMQ
//! ends the connection; some thirty messages that it does not confirm block the connection on which they came. When such a
//! queue has let one call wait in vain, while others on the connection were answered, it is left to itself (`circuits`):
//! calls are refused at once, and now and then one tries it, on a connection on which nothing is held. What was held beside
//! the first call is lost once, with its connection, and the ledger holds it back.
//!
//! RabbitMQ 3.10 makes such a queue when it is killed within a second after the queue was made: it has not written down
//! yet which of its logs the queue has, begins an empty one when it starts again, and never elects a leader for it. Any
//! client can bring that about. The queue stays so until somebody deletes it (`rabbitmqctl delete_queue`).
//!
//! # What a queue does with what comes back
//!
//! Observed with RabbitMQ 3.10; the queues that are made here are made so that it is the same in later versions.
//!
//! | | classic | quorum |
//! |---|---|---|
//! | released, or the hold has ended | at its old place | at the head, in the order of coming back |
//! | the server died | at its old place | at the head, in no order |
//! | given back very often | nothing happens | it is taken over before RabbitMQ drops it (`native`) |
//!
//! So on a quorum queue messages of one claim keep their order, and those of two claims come back in the order in which
//! the claims end; what comes back at the same moment, as when a server is stopped, is in its old order; a delayed message
//! that a claim has met stands at the head when it is due. Of many that end at the same moment the first thousand keep their
//! order. Ours are made with a limit of a million returns, which an operator's policy makes smaller. An adopted quorum queue
//! has the limit that it was given: RabbitMQ 4 gives 20; 3.x gives none, and puts what comes back at the tail.
//!
//! # What is approximate
//!
//! * **Counts** are of what is ready, a few milliseconds late on a quorum queue, and include what has ended behind
//!   something that has not. What other servers and natives hold is not told. With the journal statistics are the ledger's,
//!   and exact, but for adopted queues: of what natives post and take there the ledger does not hear.
//! * **A claim longer than `hold_cap_s`** is given back to the queue while it goes on. No other claim gets its messages,
//!   for the ledger knows; but a native consumer of the same queue may.
//! * **A message whose life a claim lengthens** (by its ttl and grace, beyond what the message has left) is copied, as
//!   `expiration` cannot be changed: should it come back, it stands at the end of its queue. A native consumer may get the
//!   copy while the claim goes on.
//! * **A release through another server** is waited for; one that comes while a server has lost its connection for
//!   orders comes to nothing, and the message is free when its hold ends.
//! * **A wall** of many thousand messages that nobody may have, delayed ones above all, takes several claims to pass:
//!   RabbitMQ sends some 10,000 a second.
//! * **A message of a native producer** goes to the end of its queue when it is given back, and lives in a second queue
//!   while it is held (`native`). Its `expiration` begins anew with that, and is not dead-lettered there. The same holds for
//!   one that came back so often that RabbitMQ may drop it.
//! * **With `native_ids=keep`** a message whose `message_id` was used before is taken for the message of that id, and is
//!   dropped if that was deleted.
//! * **A removed queue** that another server still believes to be there costs that one a channel at its next claim, with
//!   what it holds on it: it is delivered again, and the ledger holds it back.
//!
//! The conformance suite is told of three of these, and excuses nothing else: counts without the journal (`counts`), on
//! quorum queues the places of messages of several claims that end in another order (`places`), and walls (`walls`).
//!
//! # What is not possible
//!
//! * Streams, queues with a single active consumer, exclusive queues of others: refused with a sentence.
//! * Messages whose properties or headers' names are not UTF-8: the client (`lapin`) gives the connection up. Nobody
//!   should have such a message at the head of a queue.
//! * Priorities of one's own: those of native messages are left as they are, and a queue with priorities delivers by
//!   them.
//!
//! # Roads not taken
//!
//! * **A standing consumer** is two to fifteen times faster than gets, and hides from every other server what it was sent
//!   in advance; an idle server would hoard.
//! * **A queue for each claim**, with a ttl and a dead letter back: claims survive anything, but are 25 to 70 times
//!   slower, not atomic, and what ends goes to the tail.
//! * **Wait queues for delays**: messages of one such queue block each other, so it takes a queue for each delay.
//! * **Adopting a message by publishing it to its own queue**, with an id: a native consumer could get the copy while a
//!   claim holds the message, and behind a long queue it would come after everything else.
//! * **One channel for each message of a claim**: three times faster for a single claim on a quorum queue, no faster for
//!   many, and the order is lost.
#![warn(missing_docs)]

mod broker;
mod channel;
mod circuits;
mod closing;
mod coalescer;
mod companion;
mod config;
mod connect;
mod control;
mod deadline;
mod doubts;
mod error;
mod expected;
mod headers;
mod held;
mod holder;
mod message;
mod name_locks;
mod names;
mod native;
mod order;
mod probe;
mod publisher;
mod questions;
mod queues;
mod receipt;
mod reconnecting;
mod refusals;

pub use broker::AmqpBroker;
pub use config::{Config, OPTIONS};
