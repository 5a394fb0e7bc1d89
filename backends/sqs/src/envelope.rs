//! A message as SQS carries it: the body bare, and one message attribute, `isimud`, with everything else.
//!
//! The attribute is a JSON object, all of whose fields may be missing; a message without it is a *native* one, of a
//! producer that knows nothing of Isimud.
//!
//! | field | meaning | where it is missing |
//! |---|---|---|
//! | `id` | the message's id; it counts beside `posted_ms` only | SQS's own `MessageId`, a UUID too |
//! | `client` | who posted it | the nil UUID |
//! | `posted_ms` | when, in milliseconds since 1970 | `SentTimestamp` |
//! | `ttl_ms`, `left_ms` | the ttl that is shown, and how long it lived on from then, if that is another span | `native_ttl_s` of the pool, or the queue's retention |
//! | `age_ms` | how old it was then, where it came from elsewhere | 0 |
//! | `delay_ms` | how long it was delayed | 0 |
//! | `claims` | claims counted before | 0 |
//! | `transfers` | how many times it was transferred from one queue to another | 0 |
//! | `arrival` | its number of arrival, where it came with one | none |
//! | `headers`, `properties` | headers that are no attributes, and which attributes are properties (see [`crate::headers`]) | none |
//! | `md5` | the checksum that the service stores | none |
//! | `sealed` | the body is encrypted | no |
//! | `base64` | the body is a JSON string with the real one in base64 | no |
//!
//! **Bodies.** SQS takes the characters of XML 1.0. Text in JSON has no other ones but U+FFFE and U+FFFF; a body with
//! one of those goes as base64. A native body that is JSON that the API itself would take is passed on as it
//! is, and any other text as a JSON string.

use std::time::Duration;

use aws_sdk_sqs::types::{
    Message as SqsMessage, MessageAttributeValue, MessageSystemAttributeName,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use isimud_contract::{
    Arrival, Checksum, ClientId, Delivery, Headers, Message, MessageId, Property, Receipt,
    Timestamp, body_of_text,
};
use isimud_lease::Envelope;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::headers::{self, Attribute};

/// The name of the attribute. Attributes count in a message's size with name, type and value.
pub(crate) const ATTRIBUTE: &str = "isimud";

/// The type of the attribute.
const TYPE: &str = "String";

/// What the attribute may add to a body, whatever the message: a client id of 256 characters, each written as six.
pub(crate) const OVERHEAD: usize = 2048;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Stamp {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    posted_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_ms: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    age_ms: u64,
    #[serde(skip_serializing_if = "is_default")]
    delay_ms: u64,
    #[serde(skip_serializing_if = "is_default")]
    claims: u32,
    #[serde(skip_serializing_if = "is_default")]
    transfers: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    arrival: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    properties: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    md5: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    sealed: bool,
    #[serde(skip_serializing_if = "is_default")]
    base64: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A message ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BatchEntry {
    pub(crate) id: MessageId,
    /// How often it was transferred before.
    transfers: u32,
    pub(crate) client: ClientId,
    pub(crate) body: String,
    pub(crate) attribute: String,
    /// What its producer said beside the body, as far as SQS takes it.
    pub(crate) beside: Vec<Attribute>,
    /// Whole seconds, rounded up.
    pub(crate) delay: u64,
    /// How long it is to live.
    pub(crate) remaining_ttl: Duration,
}

impl BatchEntry {
    /// Writes a message for SQS.
    pub(crate) fn of(envelope: Envelope) -> Self {
        let Envelope { message, posted } = envelope;
        let (body, base64) = match String::from_utf8(message.body.into()) {
            Ok(text) if !text.is_empty() && text.chars().all(is_carried) => (text, false),
            Ok(text) => (quoted(text.as_bytes()), true),
            Err(error) => (quoted(error.as_bytes()), true),
        };
        let beside = message.headers.as_ref().map(headers::write);
        let beside = beside.unwrap_or_default();
        let stamp = Stamp {
            id: Some(message.id.to_string()),
            client: Some(message.client.to_string()),
            posted_ms: Some(posted.0),
            ttl_ms: Some(millis(message.ttl)),
            left_ms: (message.remaining_ttl != message.ttl).then(|| millis(message.remaining_ttl)),
            age_ms: millis(message.age),
            delay_ms: millis(message.delay),
            claims: message.claim_count,
            transfers: message.transfers,
            arrival: message.arrival.number(),
            headers: beside.rest.map(|it| STANDARD.encode(it.as_bytes())),
            properties: beside.properties,
            md5: message.checksum.map(|sum| sum.to_string()),
            sealed: message.sealed,
            base64,
        };
        // A struct of texts and numbers always can be written.
        let attribute = serde_json::to_string(&stamp).unwrap_or_default();
        Self {
            id: message.id,
            transfers: message.transfers,
            client: message.client,
            body,
            attribute: carried(attribute),
            beside: beside.attributes,
            delay: message.delay.as_millis().div_ceil(1000) as u64,
            remaining_ttl: message.remaining_ttl,
        }
    }

    /// What tells one post from another on a FIFO queue. A message that was here before and comes back within the five
    /// minutes for which SQS remembers is another post.
    pub(crate) fn deduplication_id(&self) -> String {
        match self.transfers {
            0 => self.id.to_string(),
            transfers => format!("{}.{transfers}", self.id),
        }
    }

    /// What counts against the limits, in bytes.
    pub(crate) fn weight(&self) -> usize {
        let beside: usize = self.beside.iter().map(Attribute::weight).sum();
        self.body.len() + ATTRIBUTE.len() + TYPE.len() + self.attribute.len() + beside
    }

    /// The attribute as the client library wants it. `None` never happens: all of it is there.
    pub(crate) fn attribute_value(&self) -> Option<MessageAttributeValue> {
        MessageAttributeValue::builder()
            .data_type(TYPE)
            .string_value(&self.attribute)
            .build()
            .ok()
    }
}

/// Whether SQS takes the character ("Valid unicode characters" of the action `SendMessage`).
pub(crate) fn is_carried(c: char) -> bool {
    match c {
        '\t' | '\n' | '\r' => true,
        c => c >= ' ' && !matches!(c, '\u{fffe}' | '\u{ffff}'),
    }
}

/// JSON text with what SQS does not take as escapes, which mean the same.
fn carried(json: String) -> String {
    if json.chars().all(is_carried) {
        return json;
    }
    json.replace('\u{fffe}', "\\ufffe")
        .replace('\u{ffff}', "\\uffff")
}

fn quoted(body: &[u8]) -> String {
    format!("\"{}\"", STANDARD.encode(body))
}

fn unquoted(body: &str) -> Option<Vec<u8>> {
    let text = body.strip_prefix('"')?.strip_suffix('"')?;
    STANDARD.decode(text).ok()
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Reads a message from SQS. `None` where the server left out what every answer has: a receipt.
///
/// An attribute that is not ours, or damaged, is as good as none: nothing that a producer can send stops a consumer.
pub(crate) fn read(message: SqsMessage, now: Timestamp, native_ttl: Duration) -> Option<Delivery> {
    let handle = message.receipt_handle?;
    let attribute = message.message_attributes.as_ref().and_then(|attributes| {
        let text = attributes.get(ATTRIBUTE)?.string_value.as_deref()?;
        serde_json::from_str(text).ok()
    });
    let stamp: Stamp = attribute.unwrap_or_default();
    let sent = message
        .attributes
        .as_ref()
        .and_then(|attributes| attributes.get(&MessageSystemAttributeName::SentTimestamp))
        .and_then(|text| text.parse().ok());
    let given = [
        (
            Property::GroupId,
            MessageSystemAttributeName::MessageGroupId,
        ),
        (
            Property::DeduplicationId,
            MessageSystemAttributeName::MessageDeduplicationId,
        ),
    ];
    let given: Vec<(Property, String)> = given
        .into_iter()
        .filter_map(|(property, name)| {
            let text = message.attributes.as_ref()?.get(&name)?;
            Some((property, text.clone()))
        })
        .collect();
    let posted = Timestamp(stamp.posted_ms.or(sent).unwrap_or(now.0));
    // An id that came without the moment of its post was chosen by a producer, and may be any other message's too.
    let id = stamp.id.as_deref().filter(|_| stamp.posted_ms.is_some());
    let id = id.and_then(MessageId::parse);
    let id = id.unwrap_or_else(|| native_id(message.message_id.as_deref().unwrap_or(&handle)));
    let ttl = stamp.ttl_ms.map_or(native_ttl, Duration::from_millis);
    let text = message.body.unwrap_or_default();
    let body = match stamp.base64.then(|| unquoted(&text)).flatten() {
        Some(bytes) => bytes.into(),
        // What was posted here was checked there, and is given as it is.
        None if stamp.sealed || stamp.posted_ms.is_some() => text.into(),
        None => body_of_text(&text),
    };
    let client = stamp
        .client
        .as_deref()
        .map_or(ClientId::Uuid(Uuid::nil()), client);
    let message = Message {
        sealed: stamp.sealed,
        checksum: stamp.md5.as_deref().and_then(checksum),
        remaining_ttl: stamp.left_ms.map_or(ttl, Duration::from_millis),
        age: Duration::from_millis(stamp.age_ms),
        delay: Duration::from_millis(stamp.delay_ms),
        claim_count: stamp.claims,
        transfers: stamp.transfers,
        arrival: stamp.arrival.map_or_else(Arrival::default, Arrival::At),
        headers: headers::read(
            message.message_attributes.as_ref(),
            &stamp.properties,
            if stamp.posted_ms.is_some() {
                &[]
            } else {
                &given
            },
            stamp.headers.and_then(stored_headers),
        ),
        ..Message::new(id, client, ttl, body)
    };
    Some(Delivery {
        message,
        posted,
        receipt: receipt(now, &handle),
        // Whatever else a producer writes, this one is ours.
        awaits_record: stamp.posted_ms.is_some(),
    })
}

/// An id that stays the same however often the message is delivered. SQS's own is a UUID; should a server use others,
/// a hash of it serves.
fn native_id(text: &str) -> MessageId {
    let id = Uuid::try_parse(text).unwrap_or_else(|_| {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&Sha256::digest(text)[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    });
    MessageId(id)
}

/// Reads a client's id. What is written like a UUID is one: the service normalises those that it takes.
fn client(text: &str) -> ClientId {
    match Uuid::try_parse(text) {
        Ok(id) if id.to_string() == text => ClientId::Uuid(id),
        _ => ClientId::Text(text.into()),
    }
}

/// Reads what was written of headers. Damaged ones are none.
fn stored_headers(text: String) -> Option<Headers> {
    Headers::from_bytes(STANDARD.decode(text).ok()?.into())
}

fn checksum(text: &str) -> Option<Checksum> {
    let digits = text.strip_prefix("MD5:")?;
    let number = u128::from_str_radix(digits, 16).ok()?;
    (digits.len() == 32).then(|| Checksum(number.to_be_bytes()))
}

/// What names a delivery: when it was received, which bounds how long SQS can hold it, and SQS's own handle.
fn receipt(now: Timestamp, handle: &str) -> Receipt {
    Receipt(format!("{}:{handle}", now.0).into())
}

/// Reads a receipt. `None` for one that is not ours.
pub(crate) fn read_receipt(receipt: &Receipt) -> Option<(Timestamp, &str)> {
    let text = std::str::from_utf8(&receipt.0).ok()?;
    let (received, handle) = text.split_once(':')?;
    Some((Timestamp(received.parse().ok()?), handle))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use isimud_contract::{HeaderMap, HeaderValue};

    use super::*;

    const NOW: Timestamp = Timestamp(1_767_225_600_000);
    const HOUR: Duration = Duration::from_secs(3600);

    fn delivered(body: &str, attribute: Option<&str>) -> Delivery {
        delivered_with(body, attribute, &[])
    }

    fn delivered_with(body: &str, attribute: Option<&str>, beside: &[Attribute]) -> Delivery {
        let value = |text: &str| {
            MessageAttributeValue::builder()
                .data_type(TYPE)
                .string_value(text)
        };
        let mut attributes = attribute
            .map(|text| HashMap::from([(ATTRIBUTE.to_owned(), value(text).build().unwrap())]));
        if let Some(attributes) = &mut attributes {
            let beside = beside.iter();
            attributes.extend(beside.map(|it| (it.name.clone(), it.value().unwrap())));
        }
        let message = SqsMessage::builder()
            .message_id("5fea7756-0ea4-451a-a703-a558b933e274")
            .receipt_handle("AQEB/+x:y==")
            .body(body)
            .attributes(
                MessageSystemAttributeName::SentTimestamp,
                (NOW.0 - 5).to_string(),
            )
            .set_message_attributes(attributes)
            .build();
        read(message, NOW, HOUR).expect("a delivery")
    }

    fn there_and_back(message: Message) -> BatchEntry {
        let envelope = Envelope {
            message: message.clone(),
            posted: NOW,
        };
        let batch_entry = BatchEntry::of(envelope);
        assert!(batch_entry.body.chars().all(is_carried), "{batch_entry:?}");
        assert!(
            batch_entry.attribute.chars().all(is_carried),
            "{batch_entry:?}"
        );
        assert!(batch_entry.weight() <= batch_entry.body.len() + OVERHEAD);
        let delivery = delivered_with(
            &batch_entry.body,
            Some(&batch_entry.attribute),
            &batch_entry.beside,
        );
        assert_eq!((delivery.message, delivery.posted), (message, NOW));
        batch_entry
    }

    fn some_headers() -> Option<Headers> {
        let value = HeaderValue::Text("red".into());
        Headers::of(&HeaderMap {
            headers: [("colour".to_owned(), value)].into(),
            ..HeaderMap::default()
        })
        .unwrap()
    }

    #[test]
    fn what_is_posted_is_what_is_delivered() {
        let id = MessageId(Uuid::now_v7());
        let plain = Message::new(id, ClientId::Uuid(Uuid::new_v4()), HOUR, r#"{"a": 1}"#);
        assert_eq!(there_and_back(plain.clone()).body, r#"{"a": 1}"#);
        let everything = Message {
            sealed: true,
            checksum: Some(Checksum([
                0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255,
            ])),
            ttl: Duration::from_secs(60),
            age: Duration::from_millis(1),
            remaining_ttl: Duration::from_millis(59_001),
            delay: Duration::from_millis(1500),
            claim_count: 3,
            transfers: 4,
            arrival: Arrival::At(1_767_225_600_000),
            headers: some_headers(),
            ..plain.clone()
        };
        assert_eq!(there_and_back(everything).delay, 2);
        let nobody = "\u{fffe}\"\\\u{1}ä".repeat(40);
        for client in [nobody.as_str(), "", "C8CBD19A842E47948E253D5E2DF00F2B"] {
            let client = ClientId::Text(client.into());
            there_and_back(Message {
                client,
                ..plain.clone()
            });
        }
    }

    #[test]
    fn bodies_beyond_the_characters_of_sqs_are_carried_all_the_same() {
        let post = |body: &[u8]| {
            let id = MessageId(Uuid::now_v7());
            there_and_back(Message::new(
                id,
                ClientId::Uuid(Uuid::nil()),
                HOUR,
                body.to_vec(),
            ))
            .body
        };
        for body in [
            "\t\r\n1",
            "\"\u{7f}\u{85}\u{d7ff}\u{e000}\u{fffd}\u{10000}\u{10ffff}\"",
            "\"\\u0000\"",
        ] {
            assert_eq!(post(body.as_bytes()), body);
        }
        for body in ["\"\u{fffe}\"", "\"\u{ffff}\"", "\"\0\"", ""] {
            assert_ne!(post(body.as_bytes()), body);
        }
        post(b"\"\xff\"");
    }

    #[test]
    fn native_bodies_are_json_or_become_it() {
        for (native, body) in [
            ("{\"a\":[1,null]}", "{\"a\":[1,null]}"),
            (" 1.5 ", " 1.5 "),
            ("hello", "\"hello\""),
            ("say \"hi\"\n", "\"say \\\"hi\\\"\\n\""),
            ("{'a': 1}", "\"{'a': 1}\""),
            ("1 2", "\"1 2\""),
            ("NaN", "\"NaN\""),
        ] {
            let delivery = delivered(native, None);
            assert_eq!(delivery.message.body, body, "{native}");
        }
    }

    #[test]
    fn json_that_clients_cannot_read_back_becomes_a_string() {
        let deep = "[".repeat(5000) + &"]".repeat(5000);
        for text in [
            deep.as_str(),
            "[1e400]",
            "18446744073709551616",
            r#"["\ud800"]"#,
        ] {
            let string = serde_json::to_string(text).unwrap();
            assert_eq!(delivered(text, None).message.body, string);
        }
    }

    #[test]
    fn an_id_that_a_producer_chose_is_no_identity() {
        let chosen = r#"{"id": "c8cbd19a-842e-4794-8e25-3d5e2df00f2b", "ttl_ms": 60000}"#;
        let native = delivered("1", Some(chosen));
        assert_eq!(native.message.id, delivered("1", None).message.id);
        assert_eq!(native.message.ttl, Duration::from_secs(60));
    }

    #[test]
    fn a_native_message_is_named_by_sqs() {
        let native = delivered("1", None);
        assert_eq!(
            native.message.id.to_string(),
            "5fea7756-0ea4-451a-a703-a558b933e274"
        );
        assert_eq!(native.message.client, ClientId::Uuid(Uuid::nil()));
        assert_eq!(
            (native.message.ttl, native.message.remaining_ttl),
            (HOUR, HOUR)
        );
        assert_eq!(native.posted, Timestamp(NOW.0 - 5));
        let with_ttl = delivered("1", Some(r#"{"ttl_ms": 60000, "colour": "red"}"#));
        assert_eq!(with_ttl.message.ttl, Duration::from_secs(60));
        assert_eq!(with_ttl.message.id, native.message.id);
        for damaged in [
            "",
            "{",
            "[]",
            "null",
            r#"{"id": 5}"#,
            r#"{"id": "x"}"#,
            r#"{"ttl_ms": -1}"#,
        ] {
            assert_eq!(delivered("1", Some(damaged)), native, "{damaged}");
        }
        assert_ne!(native_id("other-server-1"), native_id("other-server-2"));
    }

    #[test]
    fn a_receipt_tells_when_it_was_received() {
        let delivery = delivered("1", None);
        assert_eq!(read_receipt(&delivery.receipt), Some((NOW, "AQEB/+x:y==")));
        for foreign in ["", "x", "x:y", "AQEB"] {
            assert_eq!(read_receipt(&Receipt(foreign.into())), None);
        }
    }
}
