//! A message, how a listing is asked for, and what may be deleted.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::{ClaimId, ClientId, Headers, MessageId};

/// A message, as it is handed to a store and as the store gives it back.
///
/// Times are spans by the store's own clock (see the crate's docs), whole milliseconds. A message is live while
/// `remaining_ttl` is above zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its name.
    pub id: MessageId,
    /// Who posted it.
    pub client: ClientId,
    /// JSON text exactly as posted, or, when `sealed`, ASCII text that only the server can open.
    pub body: Bytes,
    /// The body is encrypted. A store keeps the mark with the body and never looks further.
    pub sealed: bool,
    /// The checksum of the body that was posted, where the service stores one.
    pub checksum: Option<Checksum>,
    /// The time to live that clients are shown: as posted, or as a claim extended it.
    pub ttl: Duration,
    /// How long ago it was posted. Claims do not touch it.
    pub age: Duration,
    /// How long it will still live. Not `ttl - age` once a claim has extended it.
    pub remaining_ttl: Duration,
    /// How long it still cannot be claimed, popped or (unless asked for) listed.
    pub delay: Duration,
    /// The live claim that holds it. Ignored on a post.
    pub claim: Option<ClaimId>,
    /// How many claims have delivered it, counted only where a dead-letter policy applies.
    pub claim_count: u32,
    /// How many times it has been transferred from one queue of a store to another, of this store or of another one: 0
    /// when it is first posted.
    ///
    /// Whoever takes a message from one place and posts it, under the same id, in another (a queue that moves to another
    /// pool, a bridge, a dead-letter queue) posts it with one more. The id says which message this is, the id and this
    /// number together which post: a transfer that is repeated posts the same number again and is the same post, and a
    /// message that comes back to a store where it was before comes with a higher number and is a new one. What a store
    /// knows of an earlier post (that it was deleted, say) says nothing about a later one.
    pub transfers: u32,
    /// What its producer said about it beside the body, if anything.
    pub headers: Option<Headers>,
    /// Where it stands in its queue.
    pub arrival: Arrival,
}

impl Message {
    /// A message that is being posted now, free at once.
    pub fn new(id: MessageId, client: ClientId, ttl: Duration, body: impl Into<Bytes>) -> Self {
        Self {
            id,
            client,
            body: body.into(),
            sealed: false,
            checksum: None,
            ttl,
            age: Duration::ZERO,
            remaining_ttl: ttl,
            delay: Duration::ZERO,
            claim: None,
            claim_count: 0,
            transfers: 0,
            headers: None,
            arrival: Arrival::default(),
        }
    }

    /// The same message after a while. One whose life has ended by then has none left.
    #[must_use]
    pub fn later(self, span: Duration) -> Self {
        Self {
            age: self.age.saturating_add(span),
            remaining_ttl: self.remaining_ttl.saturating_sub(span),
            delay: self.delay.saturating_sub(span),
            ..self
        }
    }

    /// What a store has to keep or carry of it beside small fields of fixed size, in bytes: the body and the headers,
    /// these as large as base64 makes them. It counts against [`Capabilities::largest_body`](crate::Capabilities).
    pub fn size(&self) -> u64 {
        let headers = self.headers.as_ref().map_or(0, |it| it.as_bytes().len());
        (self.body.len() + headers.div_ceil(3) * 4) as u64
    }
}

/// The place of a message in its queue's order of arrival: a number, which grows from message to message, and is the
/// queue's, not the store's. A message keeps it wherever its queue moves, and so does everybody who has recorded how
/// far he has read.
///
/// A store gives the number at the post: the number after the last one, or the present moment, in milliseconds since
/// 1970, where that is more. So numbers go on growing also where a store has forgotten how far it was (a queue that is
/// deleted and made anew, a server without its memory), and those that two stores give for one queue at the same time
/// are in the order of their moments. One thousand messages a second and more run ahead of the clock, and only there a
/// store has to remember.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It is posted at the end: the store gives it a number, and one above this one.
    After(u64),
    /// It has this number. A store that gets it so (from one that carries it) puts it there, before what has a higher
    /// number; where it cannot (the number is taken, it is from before a purge, or too far from the others to be kept) it
    /// stands at the end, under a number of its own.
    At(u64),
}

impl Default for Arrival {
    fn default() -> Self {
        Self::After(0)
    }
}

impl Arrival {
    /// The number, where it has one already.
    pub fn number(self) -> Option<u64> {
        match self {
            Self::After(_) => None,
            Self::At(number) => Some(number),
        }
    }

    /// The same, but above another number too where it has none yet.
    #[must_use]
    pub fn beyond(self, number: u64) -> Self {
        match self {
            Self::After(least) => Self::After(least.max(number)),
            Self::At(_) => self,
        }
    }
}

/// The MD5 of a body as Python would write it (spec: messages.md 9). A fingerprint for clients, not a protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksum(pub [u8; 16]);

impl fmt::Display for Checksum {
    /// Writes `MD5:` and 32 hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MD5:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a listing should contain, and where it starts. Expired messages are never listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Start after this position; at the oldest message when there is none.
    pub after: Option<Marker>,
    /// At most so many messages.
    pub limit: usize,
    /// Leave out the messages that this client posted.
    pub not_from: Option<ClientId>,
    /// Include messages that a live claim holds.
    pub include_claimed: bool,
    /// Include messages whose delay has not ended.
    pub include_delayed: bool,
}

/// A position in a queue's order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    /// A number of arrival (see [`Arrival`](crate::Arrival)). It stays a position when its message is gone, and when the
    /// queue moves; one from before a purge, or from an earlier queue of that name, stands before everything.
    Arrival(u64),
    /// The position of a message, for clients that page by id (openstacksdk does). Where that message is gone, the
    /// position of the nearest message that was minted before it.
    Message(MessageId),
}

impl Marker {
    /// Reads what a client sent back: a number, or a message id. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if text.bytes().all(|b| b.is_ascii_digit()) {
            text.parse().ok().map(Self::Arrival)
        } else {
            MessageId::parse(text).map(Self::Message)
        }
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arrival(number) => number.fmt(f),
            Self::Message(id) => id.fmt(f),
        }
    }
}

/// Bytes that the messages of one listing, claim or pop have together at the most, unless the first alone has more. Where
/// that is reached a call gives fewer messages than it could, and the next call goes on behind them.
pub const PAGE_BYTES: u64 = 8 << 20;

/// Counts the bytes of a page that is being filled.
#[derive(Debug, Clone, Copy, Default)]
pub struct PageRoom {
    used: u64,
}

impl PageRoom {
    /// What is left where some messages are taken already.
    pub fn beside(messages: &[Message]) -> Self {
        Self {
            used: messages.iter().map(Message::size).sum(),
        }
    }

    /// Whether a message still fits, which it then takes the room of. The first one always does.
    pub fn takes(&mut self, message: &Message) -> bool {
        let size = message.size();
        let fits = self.used == 0 || self.used + size <= PAGE_BYTES;
        if fits {
            self.used += size;
        }
        fits
    }
}

/// Part of a listing, in order of arrival.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The messages that passed the selection; fewer than its limit only when there are no more now, or when more would have
    /// too many bytes ([`PAGE_BYTES`]).
    pub messages: Vec<Message>,
    /// The position of the last of them; `None` when the page is empty.
    pub marker: Option<Marker>,
    /// There is more that passed the selection, for which the page had no room in bytes.
    pub is_cut: bool,
}

/// One step of a count of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ByteCount {
    /// What the messages that this step passed have together, in bytes.
    pub bytes: u64,
    /// The number of arrival behind which the next step goes on; `None` when this was the last one.
    pub next: Option<u64>,
}

/// Which messages a delete may remove. One message that does not fit refuses the whole call, and nothing is deleted.
/// Ids that name nothing are skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// Every message named, whoever holds it.
    None,
    /// Only messages that no live claim holds; otherwise `Claimed`.
    Unclaimed,
    /// Only messages that one of these claims holds. A free message is `NotClaimed`; a message that another claim
    /// holds is `Claimed`, or `NotFound(Claim)` when none of the claims listed is live in the queue.
    ClaimedBy(Vec<ClaimId>),
}
