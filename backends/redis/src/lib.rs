//! The fast shared store: messages, claims, queues, subscriptions and pools in Redis, for any number of servers at once.
//!
//! ```text
//! store      the message contract, each method one call     management   the management contract
//! scripts    one Lua file an atomic step, one function each  value        a message as bytes, answers
//! keys       names of keys                                   sweep        what ends where nobody looks
//! reconnecting  the connection, made again when it breaks    connect      how one is made
//! watch      what other servers changed                      health       what the server keeps, and what it warns of
//! config     URIs                                            error        what Redis says, as kinds
//! node       who a server is, and what became of it          waiting      posts that wait for a disk or a replica
//! call       a call of a script to be                        queue        queue records
//! placement_index  which queues have messages in which store  pool         pools and flavors
//! subscription   of a queue                                  ledger       who holds what a broker delivers
//! ```
//!
//! # The layout
//!
//! A queue has up to eight keys, `PREFIX{PROJECT/QUEUE}LETTER`. What stands in braces makes all of them share a slot of
//! a cluster; the project is percent-escaped, so that no text in it reaches another's keys.
//!
//! | key | type | what is in it | bytes a message |
//! |---|---|---|---|
//! | `d` data | hash | id (16 bytes) -> the message as posted, in one packed value (`value`) | 390, with a body of 256 |
//! | `f` free | zset | ids of free messages, by rank | 130, in one of the three |
//! | `h` held | zset | ids of claimed messages, by rank | |
//! | `w` wait | zset | ids of delayed messages, by rank | |
//! | `t` time | zset | what ends by itself, by its moment: `x` id a life, `d` id a delay, `c` claim | 130, and 130 a delay or a claim |
//! | `m` mark | hash | id -> what changed since the post: ttl shown, end of life, claims counted, claim | none; 110 when claimed |
//! | `c` claim | hash | claim -> ttl, when it was renewed, the ids that it took | 16 while claimed, and 130 a claim |
//! | `r` rank | string | the last rank given | 70 a queue |
//!
//! A queue that somebody has subscribed to has four more, which end an hour after the last subscription does:
//!
//! | key | type | what is in it | bytes a subscription |
//! |---|---|---|---|
//! | `s` about | hash | id (16 bytes) -> when its life began, its ttl, whether it is confirmed, the subscriber, options | 130, and the texts |
//! | `u` whose | hash | subscriber -> id | 80, and the text |
//! | `i` order | zset | ids in order | 130 |
//! | `e` ends | zset | ids, by when they end | 130 |
//!
//! A queue in the ledger of a scope has keys `PREFIX{SCOPE/PROJECT/QUEUE}…`: for the messages that have a row and are
//! live, the same as a queue of messages but for the rank (`d f h w t m c`), and these:
//!
//! | key | type | what is in it | bytes |
//! |---|---|---|---|
//! | `e` meta | hash | the epoch, the last rank given, the last end of any row; it ends a day after that | 200 a queue |
//! | `k` terms | hash | id -> how long the broker was told to keep the message, when no copy can be alive any more, how often it was transferred, the newest receipt | 104 a row, and the receipt |
//! | `x` deleted | zset | ids of deleted messages, by when no copy can be alive any more | 130 a tombstone |
//! | `o` expired | zset | the same of messages that ended or were purged, whose ids may be posted again | 130 a tombstone |
//! | `l` old | hash | `terms` of messages that were purged when there were more than 500; it ends with the last copy | 104 a row |
//! | `n` moved | hash | id -> how often a message with a tombstone was transferred, where it was | 60 a tombstone of such a message |
//!
//! Beside the queues stand:
//!
//! | key | type | what is in it |
//! |---|---|---|
//! | `PREFIX{PROJECT}records` | hash | name of a queue or a topic -> version (8 bytes), the place and a line feed unless it is the default one, metadata as JSON |
//! | `PREFIX{PROJECT}names` | zset | the names in order: queues, then topics (`~`), then what the service keeps for itself (`~~`) |
//! | `PREFIX{:homes}index` | zset | `STORE/PROJECT/QUEUE` in order: which queues have messages in which store; more than is true, never less (`homes`) |
//! | `PREFIX{:homes}entered` | zset | entries that are to be compared with their records, by when they were made |
//! | `PREFIX{:pools}pools` | hash | pool -> version, flavor, weight, URI with its password, options |
//! | `PREFIX{:pools}names` | zset | the names in order |
//! | `PREFIX{:pools}flavors` | hash | flavor -> its project |
//! | `PREFIX{:pools}owners` | zset | `PROJECT/FLAVOR` in order |
//! | `PREFIXsweep:agenda` | zset | queues, by when they are swept next |
//! | `PREFIXsweep:lease` | string | which server sweeps |
//!
//! Changes are published on `PREFIXchanges` by the scripts that make them: the tag of a queue whose record or
//! subscriptions have changed, or the word `pools`.
//!
//! Measured with Redis 7.0 and bodies of 256 bytes: 650 bytes a free message, 815 a claimed one; 800 and 940 in a ledger;
//! 540 a subscription. A queue that is empty keeps its rank alone, and one that is removed keeps nothing, or that for a moment.
//!
//! # What maps to what
//!
//! | the contract | here |
//! |---|---|
//! | order, marker | the rank, which is the number of arrival: the one after the last, or the present millisecond if that is more. A queue that is removed while its ranks are ahead of the clock leaves the last one until the clock is there |
//! | a row of a ledger that awaits its record | a rank beyond all others, from 2^52 on, which no listing reaches, and `n` in `time` |
//! | a free message | a member of `free`: claims and pops take from its head, and never see the others |
//! | a claim | its ids move from `free` to `held` and back, at their old ranks; bodies are never written again |
//! | what ends by itself | the head of `time`: a script *settles* its queue before anything else |
//! | a listing with claimed and delayed ones | the three orders are walked in step, so that the common listing needs one of them alone |
//! | queues of a store | a range of one index, each entry compared with its record; in a cluster the two are on different nodes |
//! | a ledger's verdict | the rows of all deliveries are read by eight commands, judged in order, and written together |
//! | a ledger's purge | `terms` gets another name and the rest is unlinked; a second purge of many soon after makes room in steps of 500 first |
//! | pools and flavors | all under one hash tag: each change is one script |
//! | purge, remove | the keys are unlinked; the server frees them in the background. The rank stays after a purge |
//! | the clock | the server's, read inside the script (or the service's, with `clock=service`) |
//!
//! **Settling.** Where nothing has ended, it is one look at the head of `time`. Otherwise the script ends up to some
//! 500 lives, delays and claims, and where more are left it answers so and is called again, until the store's time-out.
//! So every answer is exact to the millisecond, no script holds the server up for long, no script but this step
//! compares with the clock, and what has ended is walked over once. Where so many messages of one queue end at once
//! that the time-out is too short to put them in order, its calls are `Unavailable` meanwhile, each having done a part;
//! a post goes on regardless.
//!
//! # What holds
//!
//! * **One script, one round trip** for each method, O(log n) for each message touched, whatever is claimed, delayed or
//!   expired. Scripts have their effects whole, also in the log and on replicas. Every key that they touch is in KEYS.
//! * **Posts are idempotent** by id: a repeated one leaves what is there.
//! * **One connection**, over which all callers' requests go out together, made again by the next caller if it breaks.
//!   A call waits no longer than `timeout_ms`. Nothing here repeats one, but in a cluster the client follows a moved
//!   slot, and sends what failed again, up to three times. Every script but that of `pop` may be repeated: a claim that
//!   is made already is answered with what it took.
//! * **What an acknowledged post survives** is for the server to say, and this service says it in its log when the store
//!   is opened, as it warns of any `maxmemory-policy` that deletes messages. A 201, like a 204 for a claim or a deletion,
//!   means:
//!
//!   | Redis keeps | a killed Redis process loses | a power cut loses |
//!   |---|---|---|
//!   | `appendonly yes`, `appendfsync always` | nothing | nothing |
//!   | `appendonly yes`, `appendfsync everysec` | nothing as a rule; up to two seconds when the disk is slower than the load, for then Redis answers before it writes | the last second or two |
//!   | the same, with `wait_aof=1` | no message; as above of claims and deletions | no message; as above |
//!   | `appendonly yes`, `appendfsync no` | nothing | what the kernel had not written, commonly half a minute |
//!   | snapshots alone | everything since the last | the same |
//!   | nothing | everything | everything |
//!
//!   The capability "durable" is shown with `appendonly yes`. Replicas follow a little later, so a failover may lose what
//!   they had not got; with `wait_replicas=N` a post is acknowledged when N of them have it. A post that waits in vain is
//!   `Unavailable` (and may be there all the same). Which server it was and whose data it goes on with (`run_id`,
//!   `master_replid2`) is looked at with each new connection, and in a cluster every few seconds: a restart or a takeover
//!   is logged, with what may be lost by it under the settings of the moment.
//! * **Posts that wait have a connection of their own**, which the waiting holds up, and one wait stands for all posts
//!   answered before it. So with a disk that is written once a second a post takes up to two, but a second has room for
//!   as many as ever, and other calls do not notice.
//!
//! # What is approximate
//!
//! * **Dead letters in a cluster.** On one server, or behind sentinels, the move is part of the claim's script. In a
//!   cluster no script reaches both queues: the claim puts the worn-out messages under a claim of their own for a
//!   minute, and the driver posts them into the target, then deletes them from the source. Until then they count as
//!   claimed in the source; if the server dies in between they come back there, and the next claim moves them. Nothing
//!   is lost. The target takes each id once, but a message that was consumed there in the meantime is there a second
//!   time.
//! * A marker that names a deleted message stands at the nearest older id, found by bisection: ids that are not in the
//!   order of arrival (minted in the same millisecond by two servers, or imported) may be passed over.
//! * A listing that leaves out the asker's own messages walks past them, and one that needs several steps is not one
//!   moment. A listing of queues is neither.
//! * A pop whose answer is lost has taken its messages, as everywhere.
//! * One claim or pop takes at most 10,000 messages.
//! * `wait_replicas` and `wait_aof` are about posts alone, and not for a cluster.
//! * If the server's clock is set back, a queue that is removed and made again in that span may take up old markers.
//!
//! # Roads not taken
//!
//! * **A further order of all messages**, for listings with claimed ones: 100 bytes a message, against a merge that
//!   only such a listing pays for.
//! * **Claim, ttl and counters in the packed value**: each claim and release would write every body again.
//! * **An expiry of Redis's own** (`EXPIRE`): it needs a key a message, cannot tell the other structures, and
//!   statistics would have to look at every message.
//! * **Streams**: an idle time belongs to the reader and not to the message, and a release loses the order.
//! * **Functions** (`FCALL`) in the place of scripts: no faster, Redis 7 only, and to be loaded on every node.
#![warn(missing_docs)]

mod call;
mod config;
mod connect;
mod deadline;
mod error;
mod health;
mod keys;
mod ledger;
mod management;
mod node;
mod placement_index;
mod pool;
mod queue;
mod reconnecting;
mod rights;
mod scripts;
mod store;
mod subscription;
mod sweep;
mod value;
mod waiting;
mod watch;

pub use config::{Config, OPTIONS};
pub use store::RedisStore;
