//! A message as bytes.
//!
//! ```text
//! at  0  1  version, 3
//!     1  8  when it was posted: milliseconds since 1970, float, big-endian
//!     9  8  its number of arrival, float, big-endian                         (these three are the script's)
//!    17  4  how many times it was transferred, big-endian
//!    21  8  ttl as posted, milliseconds, big-endian
//!    29  1  flags: 1 sealed, 2 with a checksum, 4 with headers
//!    30  2  length of the client, then the client: `u` and 16 bytes, or `t` and text
//!       16  checksum, if there is one
//!        4  length of the headers, big-endian, then the headers, if there are any
//!           the body
//! ```
//!
//! What changes later stands elsewhere, so that a claim never writes a body again: in `mark` the ttl that is shown and
//! the end of its life (floats, 0: as posted), the claims counted (4 bytes) and the claim's id. The end is also in `time`.
//!
//! A script gives a message as one text, since the client takes its time over each: a byte with the length of the mark,
//! and 128 for a delayed one; the id; when a delayed one is due (float); the mark; the value.

use std::time::Duration;

use bytes::{Buf, Bytes};
use isimud_contract::{
    Arrival, Checksum, ClaimId, ClientId, Error, Headers, Message, MessageId, Result, Timestamp,
};
use redis::Value;
use uuid::Uuid;

use crate::error::strange;

const VERSION: u8 = 3;

/// Numbers from here on are of messages that have none yet (see `common.lua`).
const UNNUMBERED: f64 = (1_u64 << 52) as f64;

const SEALED: u8 = 1;
const CHECKED: u8 = 2;
const HEADED: u8 = 4;

/// Added to the length of the mark of a delayed message.
const DELAYED: u8 = 128;

/// Milliseconds, small enough that a float counts them one by one even after they are added to the time of day.
pub(crate) fn millis(span: Duration) -> f64 {
    const MAX_MILLIS: u64 = 1 << 51;
    u64::try_from(span.as_millis())
        .unwrap_or(MAX_MILLIS)
        .min(MAX_MILLIS) as f64
}

/// The client as it stands in a value.
pub(crate) fn client_bytes(client: &ClientId) -> Result<Vec<u8>> {
    let (kind, bytes): (u8, &[u8]) = match client {
        ClientId::Uuid(id) => (b'u', id.as_bytes()),
        ClientId::Text(text) => (b't', text.as_bytes()),
    };
    let length = u16::try_from(bytes.len() + 1)
        .map_err(|_| Error::invalid("the client id is longer than 65,534 bytes"))?;
    let mut out = Vec::with_capacity(bytes.len() + 3);
    out.extend_from_slice(&length.to_be_bytes());
    out.push(kind);
    out.extend_from_slice(bytes);
    Ok(out)
}

/// A message's value, without what the script puts in front.
pub(crate) fn encode(message: &Message) -> Result<Vec<u8>> {
    let headers = message.headers.as_ref().map(Headers::as_bytes);
    let size = message.body.len() + headers.map_or(0, Bytes::len);
    let mut out = Vec::with_capacity(56 + size);
    out.extend_from_slice(&message.transfers.to_be_bytes());
    out.extend_from_slice(&(millis(message.ttl) as u64).to_be_bytes());
    let sealed = if message.sealed { SEALED } else { 0 };
    let checked = if message.checksum.is_some() {
        CHECKED
    } else {
        0
    };
    let headed = if headers.is_some() { HEADED } else { 0 };
    out.push(sealed | checked | headed);
    out.extend_from_slice(&client_bytes(&message.client)?);
    if let Some(Checksum(sum)) = message.checksum {
        out.extend_from_slice(&sum);
    }
    if let Some(headers) = headers {
        // Their size is bounded, far below 4 GiB.
        out.extend_from_slice(&(headers.len() as u32).to_be_bytes());
        out.extend_from_slice(headers);
    }
    out.extend_from_slice(&message.body);
    Ok(out)
}

/// What the script makes of a post: `left`, `delay`, `age`, how many claims were counted, and where it stands (its number,
/// or what that is to be above, as a negative number).
pub(crate) fn terms(message: &Message) -> [u8; 36] {
    let mut out = [0; 36];
    let spans = [message.remaining_ttl, message.delay, message.age];
    for (at, span) in spans.into_iter().enumerate() {
        out[at * 8..at * 8 + 8].copy_from_slice(&millis(span).to_be_bytes());
    }
    out[24..28].copy_from_slice(&message.claim_count.to_be_bytes());
    let arrival = match message.arrival {
        Arrival::At(number) => number as f64,
        Arrival::After(number) => -(number as f64),
    };
    out[28..].copy_from_slice(&arrival.to_be_bytes());
    out
}

/// Bytes of the version and of when a message was posted.
const POSTED: usize = 9;

/// Reads the start of a value: when its message was posted.
pub(crate) fn posted(value: &[u8]) -> Result<Timestamp> {
    let mut value = value;
    if value.try_get_u8().ok() != Some(VERSION) {
        return Err(strange());
    }
    let posted = value.try_get_f64().map_err(|_| strange())?;
    Ok(Timestamp(posted as i64))
}

/// A message of a script's answer.
fn read(text: Vec<u8>, now: Timestamp) -> Result<Message> {
    let mut text = Bytes::from(text);
    let head = text.try_get_u8().map_err(|_| strange())?;
    let id = MessageId(take_uuid(&mut text)?);
    let delay = if head & DELAYED == 0 {
        Duration::ZERO
    } else {
        Timestamp(text.try_get_f64().map_err(|_| strange())? as i64).since(now)
    };
    let mark = Mark::read(take(&mut text, usize::from(head & !DELAYED))?)?;
    let message = put_together(id, text, mark, now)?;
    Ok(Message { delay, ..message })
}

/// A message that is not delayed, from its value and what has changed since.
pub(crate) fn put_together(
    id: MessageId,
    mut value: Bytes,
    mark: Mark,
    now: Timestamp,
) -> Result<Message> {
    let posted = posted(&value)?;
    value.advance(POSTED);
    let number = value.try_get_f64().map_err(|_| strange())?;
    let transfers = value.try_get_u32().map_err(|_| strange())?;
    let ttl = value.try_get_u64().map_err(|_| strange())?;
    let flags = value.try_get_u8().map_err(|_| strange())?;
    let client = take_client(&mut value)?;
    let checksum = if flags & CHECKED == 0 {
        None
    } else {
        let mut sum = [0; 16];
        value.try_copy_to_slice(&mut sum).map_err(|_| strange())?;
        Some(Checksum(sum))
    };
    let headers = if flags & HEADED == 0 {
        None
    } else {
        let length = value.try_get_u32().map_err(|_| strange())?;
        let bytes = take(&mut value, length as usize)?;
        Some(Headers::from_bytes(bytes).ok_or_else(strange)?)
    };
    let as_posted = || posted.after(Duration::from_millis(ttl));
    Ok(Message {
        id,
        client,
        body: value,
        sealed: flags & SEALED != 0,
        checksum,
        ttl: Duration::from_millis(mark.ttl.unwrap_or(ttl)),
        age: now.since(posted),
        remaining_ttl: mark.ends.unwrap_or_else(as_posted).since(now),
        delay: Duration::ZERO,
        claim: mark.claim,
        claim_count: mark.count,
        transfers,
        headers,
        arrival: if number < UNNUMBERED {
            Arrival::At(number as u64)
        } else {
            Arrival::default()
        },
    })
}

fn take(text: &mut Bytes, length: usize) -> Result<Bytes> {
    if text.len() < length {
        return Err(strange());
    }
    Ok(text.split_to(length))
}

fn take_uuid(text: &mut Bytes) -> Result<Uuid> {
    uuid(&take(text, 16)?)
}

fn take_client(value: &mut Bytes) -> Result<ClientId> {
    let length = usize::from(value.try_get_u16().map_err(|_| strange())?);
    let client = take(value, length)?;
    let (kind, bytes) = client.split_first().ok_or_else(strange)?;
    match kind {
        b'u' => uuid(bytes).map(ClientId::Uuid),
        _ => std::str::from_utf8(bytes)
            .map(|text| ClientId::Text(text.into()))
            .map_err(|_| strange()),
    }
}

/// Bytes of a claim that nobody can name.
pub(crate) const NAMELESS: usize = 17;

/// What has changed since the post.
#[derive(Debug, Default)]
pub(crate) struct Mark {
    pub(crate) ttl: Option<u64>,
    pub(crate) ends: Option<Timestamp>,
    pub(crate) count: u32,
    pub(crate) claim: Option<ClaimId>,
}

impl Mark {
    pub(crate) fn read(mut bytes: Bytes) -> Result<Self> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let ttl = bytes.try_get_f64().map_err(|_| strange())?;
        let ends = bytes.try_get_f64().map_err(|_| strange())?;
        let count = bytes.try_get_u32().map_err(|_| strange())?;
        Ok(Self {
            ttl: (ttl > 0.0).then_some(ttl as u64),
            ends: (ends > 0.0).then_some(Timestamp(ends as i64)),
            count,
            claim: match bytes.len() {
                0 | NAMELESS => None,
                _ => Some(ClaimId(uuid(&bytes)?)),
            },
        })
    }
}

/// A script's answer, read from the front.
#[derive(Debug)]
pub(crate) struct Answer(std::vec::IntoIter<Value>);

impl Answer {
    pub(crate) fn new(value: Value) -> Result<Self> {
        match value {
            Value::Array(values) => Ok(Self(values.into_iter())),
            _ => Err(strange()),
        }
    }

    pub(crate) fn left(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn value(&mut self) -> Result<Value> {
        self.0.next().ok_or_else(strange)
    }

    pub(crate) fn number(&mut self) -> Result<i64> {
        number(&self.value()?)
    }

    pub(crate) fn count(&mut self) -> Result<usize> {
        usize::try_from(self.number()?).map_err(|_| strange())
    }

    pub(crate) fn moment(&mut self) -> Result<Timestamp> {
        self.number().map(Timestamp)
    }

    pub(crate) fn blob(&mut self) -> Result<Vec<u8>> {
        blob(self.value()?)
    }

    pub(crate) fn text(&mut self) -> Result<String> {
        String::from_utf8(self.blob()?).map_err(|error| strange().caused_by(error))
    }

    pub(crate) fn id(&mut self) -> Result<Uuid> {
        uuid(&self.blob()?)
    }

    /// The next so many messages.
    pub(crate) fn some(&mut self, count: usize, now: Timestamp) -> Result<Vec<Message>> {
        if count > self.left() {
            return Err(strange());
        }
        let texts = self.0.by_ref().take(count);
        texts.map(|text| read(blob(text)?, now)).collect()
    }

    /// All messages that are left.
    pub(crate) fn messages(mut self, now: Timestamp) -> Result<Vec<Message>> {
        self.some(self.left(), now)
    }
}

fn blob(value: Value) -> Result<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        _ => Err(strange()),
    }
}

/// A whole number, as an integer or in the spelling of a score.
pub(crate) fn number(value: &Value) -> Result<i64> {
    match value {
        Value::Int(number) => Ok(*number),
        Value::BulkString(text) => std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(strange),
        _ => Err(strange()),
    }
}

fn uuid(bytes: &[u8]) -> Result<Uuid> {
    Uuid::from_slice(bytes).map_err(|_| strange())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a script gives for a message that was just posted.
    fn shown(message: &Message) -> Vec<u8> {
        let delayed = message.delay > Duration::ZERO;
        let head = if delayed { DELAYED } else { 0 };
        let mut text = vec![head];
        text.extend_from_slice(message.id.0.as_bytes());
        if delayed {
            let due = NOW.after(message.delay).0 as f64;
            text.extend_from_slice(&due.to_be_bytes());
        }
        text.push(VERSION);
        let posted = NOW.before(message.age).0 as f64;
        text.extend_from_slice(&posted.to_be_bytes());
        let number = message.arrival.number().unwrap() as f64;
        text.extend_from_slice(&number.to_be_bytes());
        text.extend_from_slice(&encode(message).unwrap());
        text
    }

    fn mark(message: &Message) -> Vec<u8> {
        let mut mark = millis(message.ttl).to_be_bytes().to_vec();
        let ends = NOW.after(message.remaining_ttl).0 as f64;
        mark.extend_from_slice(&ends.to_be_bytes());
        mark.extend_from_slice(&message.claim_count.to_be_bytes());
        mark.extend_from_slice(message.claim.unwrap().0.as_bytes());
        mark
    }

    const NOW: Timestamp = Timestamp(1_767_225_600_123);

    fn examples() -> [Message; 2] {
        let hour = Duration::from_secs(3600);
        let id = MessageId(Uuid::from_u128(7));
        let client = ClientId::Uuid(Uuid::from_u128(8));
        let plain = Message {
            arrival: Arrival::At(1_767_225_600_001),
            ..Message::new(id, client, hour, "{}")
        };
        let rich = Message {
            client: ClientId::Text("ü".into()),
            sealed: true,
            checksum: Some(Checksum([9; 16])),
            age: Duration::from_millis(77),
            remaining_ttl: hour - Duration::from_millis(77),
            delay: Duration::from_millis(5),
            ..plain.clone()
        };
        [plain, rich]
    }

    #[test]
    fn a_message_comes_back_as_it_was() {
        for message in examples() {
            assert_eq!(read(shown(&message), NOW).unwrap(), message);
        }
    }

    #[test]
    fn what_changed_since_the_post_stands_in_the_mark() {
        for message in examples() {
            let mut text = shown(&message);
            let changed = Message {
                ttl: Duration::from_secs(9_000),
                remaining_ttl: Duration::from_secs(8_000),
                claim: Some(ClaimId(Uuid::from_u128(9))),
                claim_count: 3,
                ..message
            };
            let mark = mark(&changed);
            let at = if text[0] == 0 { 17 } else { 25 };
            text[0] += mark.len() as u8;
            text.splice(at..at, mark);
            assert_eq!(read(text, NOW).unwrap(), changed);
        }
    }

    #[test]
    fn a_broken_text_is_an_error_and_no_panic() {
        for message in examples() {
            let whole = shown(&message);
            let body = whole.len() - message.body.len();
            for length in 0..body {
                assert!(read(whole[..length].to_vec(), NOW).is_err());
            }
        }
        for length in 0..100 {
            for byte in [0, 1, 20, 36, 127, 128, 164, 255] {
                assert!(read(vec![byte; length], NOW).is_err());
            }
        }
    }

    #[test]
    fn endless_spans_stay_countable() {
        assert_eq!(millis(Duration::MAX), (1u64 << 51) as f64);
        assert_eq!(millis(Duration::from_millis(1)), 1.0);
    }
}
