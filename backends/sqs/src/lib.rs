//! Messages in Amazon SQS, or in anything that speaks its protocol: a broker that leases, for a ledger to complete.
//!
//! ```text
//! broker     what a broker must be able to do        queues    from a queue to its place in SQS, made or found
//! envelope   a message as SQS carries it             names     what a queue is called there
//! headers    what is said beside a body, as attributes
//! batching   concurrent calls that share requests    queue     one queue: what is known of it, its lines of entries
//! round      requests whose entries fail singly      actions   sending, deleting, hiding: ten entries a request
//! receiving  rounds of ten                           polling   one wait for everybody
//! purge      emptying a queue, and no more           client    the client, and its credentials
//! config     URIs                                    error     what SQS says, as kinds
//! ```
//!
//! # What maps to what
//!
//! | the contract | here |
//! |---|---|
//! | a queue | a queue of SQS, made by the first post, with a retention of 14 days; or one that is there already |
//! | a body | the message body, bare |
//! | headers and properties | message attributes, as far as SQS takes them (`headers`) |
//! | everything else of a message | one message attribute, `isimud` |
//! | `send` | `SendMessageBatch`: up to ten messages or 1 MiB a request, shared by whoever posts at the time |
//! | `receive` | `ReceiveMessage` of ten with the hold as `VisibilityTimeout`, again while answers are full |
//! | `extend`, `release` | `ChangeMessageVisibilityBatch`, with zero for a release |
//! | `ack` | `DeleteMessageBatch` |
//! | `depth` | the queue's approximate numbers; delayed messages count as ready |
//! | `purge` | receives and deletes, because `PurgeQueue` takes what is sent in the minute after it |
//! | `remove` | a purge, or with `remove=delete` `DeleteQueue` |
//! | a delay | `DelaySeconds`, or the ledger's with `delays=held` |
//! | order | none, or with `fifo=true` a message group a queue or a client, deduplicated by message id and number of transfers |
//!
//! **Approximate.** Counts, which SQS has right about a minute after the traffic stops. Spans, which SQS counts in
//! seconds: they are rounded up, so a message may be free up to a second later than its claim ended. Order on a
//! standard queue. A receive may find nothing though there are messages, as SQS asks a few of its servers, unless
//! `wait_s` is one or more.
//!
//! **Not possible.** A post of several requests is not one step: natives may see a part of it, and an error leaves open
//! what was accepted. (With the journal the API shows it whole.) SQS holds a message for twelve hours counted from its
//! receive; a claim that is renewed beyond that is kept by the ledger, and SQS delivers the message again in vain, for
//! which its natives must be prepared. A FIFO queue delays no single message, and what is behind a claimed message of a
//! group is not delivered, so with one group a queue there is one claim at a time, of ten messages at most; without the
//! journal, a purge does not reach it either.
//!
//! # What holds
//!
//! * **Every entry's outcome is read.** An entry of a batch that failed by no fault of its own is sent again, alone, until
//!   there is no time left; one that is refused for good is an error. On a FIFO queue nothing is sent again that would
//!   come after what was sent after it: that post is `Unavailable`.
//! * **Nothing is sent that SQS would refuse**: sizes, lives and characters are checked or encoded before.
//! * **A repeated send is one message**, by SQS for five minutes on FIFO queues, and everywhere by the ledger, as
//!   messages carry their ids.
//! * **Retries are the client's**, up to four attempts of a request; only single entries of an answered batch are
//!   repeated here. Both end with `timeout_ms`, and the answer is `Unavailable` then.
//! * **Hints about what is gone** (a deleted message or queue, an old receipt) succeed.
//!
//! | SQS says | the answer |
//! |---|---|
//! | throttling, `OverLimit`, 5xx, nothing | repeated, then `Unavailable` |
//! | expired or unknown credentials | `Unavailable`; the client is made anew for the next call, and reads profiles and tokens again |
//! | access denied, a KMS key that cannot be used | `Internal`, and the log says what |
//! | no such queue | made anew by a post if queues are ours to make, else `NotFound`; empty for everybody else |
//! | the name was deleted less than 60 seconds ago | `Unavailable`. The server that deleted it does not even ask, because SQS may take messages for what is left of the old queue, and lose them |
//! | the queue exists with other attributes | it is used as it is |
//! | a purge is under way | does not happen: `PurgeQueue` is not used |
//!
//! # Native messages
//!
//! Whoever reads the queue with an SDK or a Lambda gets the body as it was posted, and may look into the attribute.
//! Whoever sends to it needs to know nothing of Isimud: such a message has SQS's `MessageId` for an id (a UUID as well),
//! the nil client, and the life that `native_ttl_s` says or its queue gives it. A body that is JSON is passed on as it is,
//! if the API itself would take it, and any other text as a JSON string. A producer that wants another life adds the attribute `isimud` with
//! `{"ttl_ms": 60000}`. Who copies that attribute from one message to another makes it the same message.
//!
//! | field of `isimud` | meaning | where it is missing |
//! |---|---|---|
//! | `id`, `client` | the message's id, and who posted it; an id without `posted_ms` is none | `MessageId`, the nil UUID |
//! | `posted_ms` | when, in milliseconds since 1970 | `SentTimestamp` |
//! | `ttl_ms`, `left_ms` | the ttl that is shown, and the life from then on if that is another | as above |
//! | `age_ms`, `delay_ms`, `claims` | its age, its delay and its claims so far, then | 0 |
//! | `md5`, `sealed` | the checksum that the service keeps; the body is encrypted | none, no |
//! | `base64` | the body is a JSON string with the real one in base64, because of U+FFFE or U+FFFF | no |
//!
//! A message that a native consumer deletes is gone for the API too, but nobody tells the ledger: with the journal it stays
//! listed until SQS has had nothing at all for twice `counts_lag_s`, or until its life ends. Statistics of queues that are
//! not made here count what SQS has, where that is more than the ledger knows; it is right about a minute later. The
//! same for a message that SQS itself moves away, by a redrive policy: such a policy is somebody's wish, and stays in force.
//!
//! # What a test server cannot show
//!
//! The trials run against moto, which differs from SQS where it is said below. These promises rest on the documents
//! of AWS alone.
//!
//! | the promise | rests on |
//! |---|---|
//! | bodies have no characters that SQS refuses (moto takes all) | API Reference, `SendMessage`: "A message can include only XML, JSON, and unformatted text", with the characters |
//! | a purge keeps what comes after it, at the price of requests (moto's `PurgeQueue` is immediate) | API Reference, `PurgeQueue`: "The message deletion process takes up to 60 seconds" |
//! | a purge ends when SQS has nothing, not when one of its servers has (moto has one) | Developer Guide, "Amazon SQS short and long polling" |
//! | a name is not used again for a minute (moto forgets it at once) | API Reference, `CreateQueue` and `DeleteQueue`: "you must wait at least 60 seconds" |
//! | a queue is there a second after it was made; a post waits for it (moto: at once) | API Reference, `CreateQueue`: "you must wait at least one second after the queue is created" |
//! | extensions end twelve hours after the receive (moto counts from the post) | API Reference, `ChangeMessageVisibility`: "the maximum is 12 hours from the time you receive" |
//! | an old receipt settles nothing, or settles the message: both are right (moto: the message) | API Reference, `DeleteMessage`: the handle "associated with a specific instance of receiving a message" |
//! | a FIFO receive whose answer was lost gets the same messages when it is repeated (moto: nothing, until they are visible) | API Reference, `ReceiveMessage`: `ReceiveRequestAttemptId` |
//! | sends repeated within five minutes are one message (moto: the same) | Developer Guide, "Exactly-once processing in Amazon SQS" |
//! | a batch of a FIFO queue keeps its order (moto: the same) | Developer Guide, "FIFO queue delivery logic" |
//! | 120,000 messages in flight, then `Unavailable` (moto has no limit) | Developer Guide, "Amazon SQS message quotas"; API Reference, `ReceiveMessage`: `OverLimit` |
//! | tags have characters that AWS takes (moto takes all) | Developer Guide, "Amazon SQS cost allocation tags" |
//! | message and batch of up to 1 MiB | Developer Guide, "Amazon SQS message quotas" |
//!
//! # Roads not taken
//!
//! * **`PurgeQueue`**: free, quick, and it takes messages that were acknowledged after it was called.
//! * **Deleting queues as a matter of course**: another server may go on posting to what is left of one, for a minute,
//!   and lose it all. An empty queue costs nothing.
//! * **A dead-letter queue of SQS's own**: it counts deliveries, of which many are not claims. The ledger counts claims;
//!   a queue that has such a policy already is used, and a warning in the log says what that means.
//! * **One attribute for each field**: ten are allowed, natives have their own, and each costs its name and its type.
#![warn(missing_docs)]

mod actions;
mod batching;
mod broker;
mod client;
mod config;
mod envelope;
mod error;
mod headers;
mod names;
mod polling;
mod purge;
mod queue;
mod queues;
mod receiving;
mod round;

pub use broker::SqsBroker;
pub use config::{Config, OPTIONS};
