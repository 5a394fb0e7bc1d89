//! A message as bytes.
//!
//! ```text
//! at  0  1  version, 1
//!     1  8  when it was posted: milliseconds since 1970, float, big-endian   (these two are the script's)
//!     9  8  ttl as posted, milliseconds, big-endian
//!    17  1  flags: 1 sealed, 2 with a checksum
//!    18  2  length of the client, then the client: `u` and 16 bytes, or `t` and text
//!       16  checksum, if there is one
//!           the body
//! ```
//!
//! What changes later stands elsewhere, so that a claim never writes a body again: the end of its life in `time`, and
//! in `mark` the ttl that is shown (float), the claims counted (4 bytes) and the claim's id.

use std::time::Duration;

use bytes::{Buf, Bytes};
use isimud_contract::{
    Checksum, ClaimId, ClientId, Error, Marker, Message, MessageId, Result, Timestamp,
};
use redis::Value;
use uuid::Uuid;

use crate::error::strange;

const VERSION: u8 = 1;
const SEALED: u8 = 1;
const CHECKED: u8 = 2;

/// Values that a script gives for each message.
pub(crate) const PARTS: usize = 6;

/// Milliseconds, small enough that a float counts them one by one even after they are added to the time of day.
pub(crate) fn millis(span: Duration) -> f64 {
    const MOST: u64 = 1 << 51;
    u64::try_from(span.as_millis()).unwrap_or(MOST).min(MOST) as f64
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
    let mut out = Vec::with_capacity(48 + message.body.len());
    out.extend_from_slice(&(millis(message.ttl) as u64).to_be_bytes());
    let sealed = if message.sealed { SEALED } else { 0 };
    let checked = if message.checksum.is_some() {
        CHECKED
    } else {
        0
    };
    out.push(sealed | checked);
    out.extend_from_slice(&client_bytes(&message.client)?);
    if let Some(Checksum(sum)) = message.checksum {
        out.extend_from_slice(&sum);
    }
    out.extend_from_slice(&message.body);
    Ok(out)
}

/// What the script makes of a post: `left`, `delay`, `age`, and how many claims were counted.
pub(crate) fn terms(message: &Message) -> [u8; 28] {
    let mut out = [0; 28];
    let spans = [message.left, message.delay, message.age];
    for (at, span) in spans.into_iter().enumerate() {
        out[at * 8..at * 8 + 8].copy_from_slice(&millis(span).to_be_bytes());
    }
    out[24..].copy_from_slice(&message.claim_count.to_be_bytes());
    out
}

/// Reads the start of a value: when its message was posted.
pub(crate) fn posted(value: &[u8]) -> Result<Timestamp> {
    let mut value = value;
    if value.try_get_u8().ok() != Some(VERSION) {
        return Err(strange());
    }
    let posted = value.try_get_f64().map_err(|_| strange())?;
    Ok(Timestamp(posted as i64))
}

/// A message of a script's answer, with its rank.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) rank: u64,
    pub(crate) message: Message,
}

impl Row {
    pub(crate) fn marker(&self) -> Marker {
        Marker::Arrival(self.rank)
    }

    /// Reads what a script gives for a message, in the order of `show` in common.lua.
    pub(crate) fn read(parts: [Value; PARTS], now: Timestamp) -> Result<Self> {
        let [id, rank, value, ends, mark, due] = parts;
        let mut value = Bytes::from(blob(value)?);
        let posted = posted(&value)?;
        value.advance(9);
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
        let mark = Mark::read(&blob(mark)?)?;
        Ok(Self {
            rank: u64::try_from(number(&rank)?).map_err(|_| strange())?,
            message: Message {
                id: MessageId(uuid(&blob(id)?)?),
                client,
                body: value,
                sealed: flags & SEALED != 0,
                checksum,
                ttl: Duration::from_millis(mark.ttl.unwrap_or(ttl)),
                age: now.since(posted),
                left: Timestamp(number(&ends)?).since(now),
                delay: Timestamp(number(&due)?).since(now),
                claim: mark.claim,
                claim_count: mark.count,
            },
        })
    }
}

fn take_client(value: &mut Bytes) -> Result<ClientId> {
    let length = usize::from(value.try_get_u16().map_err(|_| strange())?);
    if length == 0 || value.len() < length {
        return Err(strange());
    }
    let client = value.split_to(length);
    let bytes = &client[1..];
    match client[0] {
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
    pub(crate) count: u32,
    pub(crate) claim: Option<ClaimId>,
}

impl Mark {
    pub(crate) fn read(mut bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let ttl = bytes.try_get_f64().map_err(|_| strange())?;
        let count = bytes.try_get_u32().map_err(|_| strange())?;
        Ok(Self {
            ttl: (ttl > 0.0).then_some(ttl as u64),
            count,
            claim: match bytes.len() {
                0 | NAMELESS => None,
                _ => Some(ClaimId(uuid(bytes)?)),
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
    pub(crate) fn rows(&mut self, count: usize, now: Timestamp) -> Result<Vec<Row>> {
        (0..count).map(|_| self.row(now)).collect()
    }

    /// All messages that are left.
    pub(crate) fn all_rows(mut self, now: Timestamp) -> Result<Vec<Row>> {
        self.rows(self.left() / PARTS, now)
    }

    /// All messages that are left, without their ranks.
    pub(crate) fn messages(self, now: Timestamp) -> Result<Vec<Message>> {
        let rows = self.all_rows(now)?;
        Ok(rows.into_iter().map(|row| row.message).collect())
    }

    /// The next message.
    pub(crate) fn row(&mut self, now: Timestamp) -> Result<Row> {
        let mut parts = [const { Value::Nil }; PARTS];
        for part in &mut parts {
            *part = self.value()?;
        }
        Row::read(parts, now)
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

    fn read_again(message: &Message, now: Timestamp) -> Message {
        let mut value = vec![VERSION];
        let posted = now.before(message.age).0 as f64;
        value.extend_from_slice(&posted.to_be_bytes());
        value.extend_from_slice(&encode(message).unwrap());
        let text = |moment: Timestamp| Value::BulkString(moment.0.to_string().into_bytes());
        let parts = [
            Value::BulkString(message.id.0.as_bytes().to_vec()),
            Value::BulkString(b"7".to_vec()),
            Value::BulkString(value),
            text(now.after(message.left)),
            Value::BulkString(Vec::new()),
            Value::BulkString(b"0".to_vec()),
        ];
        Row::read(parts, now).unwrap().message
    }

    #[test]
    fn a_message_comes_back_as_it_was() {
        let hour = Duration::from_secs(3600);
        let id = MessageId(Uuid::from_u128(7));
        let now = Timestamp(1_767_225_600_123);
        let plain = Message::new(id, ClientId::Uuid(Uuid::from_u128(8)), hour, "{}");
        let rich = Message {
            client: ClientId::Text("ü".into()),
            sealed: true,
            checksum: Some(Checksum([9; 16])),
            age: Duration::from_millis(77),
            left: Duration::from_millis(11),
            ..plain.clone()
        };
        for message in [plain, rich] {
            assert_eq!(read_again(&message, now), message);
        }
    }

    #[test]
    fn a_broken_value_is_an_error_and_no_panic() {
        let nothing = [const { Value::Nil }; PARTS];
        assert!(Row::read(nothing, Timestamp(0)).is_err());
        for length in 0..30 {
            let mut parts = [const { Value::Nil }; PARTS];
            for part in &mut parts {
                *part = Value::BulkString(vec![1; length]);
            }
            assert!(Row::read(parts, Timestamp(0)).is_err());
        }
    }

    #[test]
    fn endless_spans_stay_countable() {
        assert_eq!(millis(Duration::MAX), (1u64 << 51) as f64);
        assert_eq!(millis(Duration::from_millis(1)), 1.0);
    }
}
