//! Completes a broker that can only lease messages into a whole [`MessageStore`](isimud_contract::MessageStore).
//!
//! **The ledger decides, the broker delivers.** A broker such as RabbitMQ or SQS hands a message out for a while, and
//! takes it back when nobody settles it. It cannot list, look up, or delete by id; its holds have limits of their own;
//! it delivers twice now and then. A [`Ledger`](isimud_contract::Ledger) keeps one row a message for what the broker
//! cannot know: who holds it, until when, whether it is gone. Every delivery is judged by its row before anybody sees it.
//!
//! ```text
//! broker    LeaseBroker: what a driver implements      leased   Leased: both as one store
//! rounds    claims and pops: deliver, judge, act       hints    what a broker is told after the decision
//! missing   rows whose messages native clients have taken
//! begun     what is finished also when its caller has gone
//! budget    the time that all steps of a call have together
//! dropped   deliveries that nobody was told of
//! fake      a broker in memory, for tests (feature `fake`)
//! ```
//!
//! # Three rules
//!
//! 1. **The ledger first, the broker after.** Only sending and receiving come before a write of the ledger.
//! 2. **After the ledger's write the request has succeeded.** What the broker is told then is a *hint*. One that fails
//!    is logged and never returned: the message comes again, and its row is still right. A broker that is deaf to every
//!    hint loses nothing; it only delivers in vain.
//! 3. **A broker's hold ends by itself.** A server that dies holding messages needs no successor to free them.
//!
//! From these follows what a crash can do, whatever it cuts off: deliver again what the ledger then holds back, send a
//! copy that its id makes one with the first, or leave a claim that nobody was told of, which ends in time.
//!
//! # What a call does
//!
//! | call | in this order |
//! |---|---|
//! | post | `send`; with the journal, `record` |
//! | claim, pop | `receive`, `grant`; copies and dead letters, if any; hints |
//! | delete | `delete`; hint `ack` |
//! | renew | `renew`; copies, if any; hint `extend` |
//! | release | `release`; hint `release` |
//! | purge | `purge` of the ledger, of the broker, and of the ledger again (below) |
//! | list, get, find_claim, import_claim | the ledger alone |
//!
//! The **journal** writes a message's row when it is posted, and not when it is first delivered. It costs a write a post
//! and buys everything that needs to know of messages that nobody has claimed: listing, reading and deleting by id,
//! exact statistics, taking over claims. Without it those calls are refused, in a sentence that names the option.
//!
//! A message is recorded after it was sent: one that is recorded first, and then not sent, would be listed until it
//! ends. A purge in between would leave the same phantom, so a record is made for an [`Epoch`](isimud_contract::Epoch);
//! when that is over, the message is sent again. For the same reason a purge comes to the ledger twice: before the
//! broker's, so that a failure in the middle leaves no message half purged, and after it, for what was recorded
//! meanwhile. No clocks are compared: a row is from before a purge by its number of arrival.
//!
//! The record also decides the order of listings. A delivery may be judged before its message is recorded; the row that
//! it gets is in no listing until the record numbers it, together with its batch, or until ten seconds have passed.
//!
//! **Messages that come back.** What a row says, above all that its message was deleted, it says of one post of an id, and
//! tells it by how often the message had been [transferred](isimud_contract::Message::transfers). The envelope carries
//! that number. So a queue may leave the broker's store and come back, be brought back by a bridge, or get its dead
//! letters back, while late copies of the earlier post stay what they are:
//!
//! | what comes | what becomes of it |
//! |---|---|
//! | the same post again: a transfer or a post that is repeated, a copy, a message of a broker that was restored from a backup | what its row says; deleted stays deleted |
//! | a later post: transferred more often than the row says | a new message; the row of the earlier one is replaced |
//! | an earlier post: transferred less often | settled, and nobody is told of it |
//! | an import that is repeated (never transferred) | as a post that is repeated: what was consumed here, or has left, does not come again for as long as it would have lived |
//!
//! **Copies.** A claim may lengthen a life (grace). A broker that expires messages by itself is sent a copy that lives
//! longer, before the claim is answered; when that fails, the claim is ended and refused. **Dead letters** are sent to
//! their queue under the same id, then deleted here, then settled: cut off anywhere, they are sent once more, and are
//! one.
//!
//! **Whoever goes away leaves nothing half done.** A post, copies, dead letters and a purge are finished once they were
//! begun, by tasks of their own: otherwise what was sent and not recorded would be delivered and never listed.
//!
//! **Hints are waited for**, up to 100 ms, by tasks of their own: so what was released is free when the caller has its
//! answer, hints about one message keep their order, and a caller that goes away takes none with it. The price is the
//! latency of one round trip to the broker for a delete; not waiting would free callers earlier, and let a late
//! `extend` hide what a release has just freed. A broker that hangs costs a caller those 100 ms; 4096 hints may be under
//! way, and more are left out. A close waits for them for five seconds.
//!
//! **Native clients.** Where a broker's queues are those of an existing deployment, its native clients post messages that
//! have no row, and take messages that have one. So statistics of such a queue begin with the broker's count, and a
//! decision that would lose what it overlooks (a move, a bridge, an end) asks for the `backlog`, which is the larger of
//! the two counts. A row that is free while the broker has nothing left, twice and some time apart, is forgotten; a
//! message that then comes back all the same is judged by its envelope.
//!
//! **What nobody is told of** although its life had not ended (deleted before anybody met it, a copy, an earlier post) is
//! counted in the store's condition; the first of a spell is logged. An id is proof that it is the same message: this service
//! gave it, or the pool's options say that producers use none twice.
//!
//! **Unavailable prefix.** The head of the broker queue may hold deleted, delayed or claimed messages. A call skips
//! them in batches that grow to a thousand messages, for one second at most; each is settled or put off then, and met
//! no more.
//!
//! # What is approximate
//!
//! * With native clients: statistics count a message that is deleted by id before anybody has claimed it until a claim
//!   has passed it, and one whose server has died while it was claimed until it is met again. What natives have taken
//!   stays listed until the broker is empty, or until it ends.
//! * Without the journal: statistics are the broker's count less what the ledger knows, and count copies and what was
//!   purged while it was held. A purge misses what a server was just receiving, or held when it died before a grant. An
//!   id without a row counts as never claimed, also when its message has ended.
//! * The age and the end of a message that has no row are those of its envelope, by the clock of the server that took
//!   it. That a deleted message stays deleted does not depend on clocks: rows outlive every copy they were told of.
//! * A copy goes to the end of the broker's queue; so does what a broker does not put back in its old place.
//! * A server that dies between a grant that lengthens a life and the copy leaves the broker the old life.
//! * Without the journal a message has no number of arrival, unless it was carried here with one, which its envelope keeps.
//! * A message whose `record` failed is refused to its poster and yet delivered. Posting it again makes it one.
//!
//! # Roads not taken
//!
//! * *Recording before sending* saves nothing, and lists what was never sent. *Dating a purge* makes a message's fate
//!   depend on whose clock dated it. *Receipts that decide* (settle, then delete the row) lose the claim with the
//!   connection.
//! * *Asking the broker for no more than is wanted* met such a prefix one message at a time: a claim of one message
//!   behind a thousand deleted ones came back empty a thousand times. So a round may take too many, and gives back the
//!   rest.
//! * *Rounds that renew the claim* (each grant beginning it anew): a claim that ended between two rounds would have been
//!   answered with messages that were free again. The second grant joins the claim or gets nothing.
#![warn(missing_docs)]

mod begun;
mod broker;
mod budget;
mod dropped;
#[cfg(feature = "fake")]
pub mod fake;
mod hints;
mod leased;
mod missing;
mod room;
mod rounds;

pub use broker::{Depth, Envelope, LeaseBroker};
pub use leased::{Journal, Leased};
