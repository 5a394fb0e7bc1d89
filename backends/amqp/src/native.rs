//! Messages of the existing deployment's own producers: any content type, often without an id.
//!
//! | the body | as JSON |
//! |---|---|
//! | JSON text that the API itself would take, whatever the content type is | the same text |
//! | other text: UTF-8, and no `content_encoding`, or one of `identity`, `utf-8` and `us-ascii` | a string |
//! | anything else | `{"content_type": …, "content_encoding": …, "base64": …}`, the first two where there are any |
//!
//! | what else it needs | is |
//! |---|---|
//! | id | a fresh one: the message is *adopted* (with `native_ids=keep`: `message_id`, where that is a UUID) |
//! | client | the nil UUID |
//! | ttl | `expiration`, else `native_ttl_s`; no more than the `x-message-ttl` of its queue, where RabbitMQ tells it (of a classic queue) |
//! | age | by `timestamp`, where that is plausible; nothing else goes by it |
//!
//! An id that a producer has chosen is no identity: jobs with a fixed id, replays and redrives bring the same one again
//! with another message, and RabbitMQ does not tell the two apart once it has taken one of them back. Taken for the id,
//! the second would be swallowed as a copy of the first.
//!
//! A message is adopted by a copy with an id in the header `isimud-id`, in the companion of its queue: the copy is
//! confirmed, the original is acknowledged, and the copy is got from there. So there is at any time one of them that a
//! native consumer or another server could get, a crash changes no id, and the order stays. A copy that is given back goes
//! to the end of the queue that it came from, for natives to see. A message of any origin that a quorum queue has taken
//! back so often that RabbitMQ may soon drop it is taken over in the same way, and keeps its id.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use isimud_contract::{HeaderMap, HeaderValue, MessageId, Property, Timestamp, body_of_text};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde::Deserialize;

use crate::holder::Got;
use crate::message::number;
use crate::publisher::Outgoing;

/// The header with the id that an adopted message was given.
pub(crate) const ID: &str = "isimud-id";

/// The header in which a quorum queue counts how often it has taken a message back.
const RETURNS: &str = "x-delivery-count";

/// A timestamp that is older is no timestamp.
const PLAUSIBLE: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Encodings whose text is the text, as their names are written in any case.
const PLAIN: [&str; 6] = ["", "identity", "utf-8", "utf8", "us-ascii", "ascii"];

/// What a body is as JSON text.
pub(crate) fn as_json(properties: &BasicProperties, body: &[u8]) -> Bytes {
    let encoding = properties.content_encoding().as_ref();
    let encoding = encoding
        .map(ShortString::as_str)
        .filter(|it| !PLAIN.iter().any(|plain| it.eq_ignore_ascii_case(plain)));
    match std::str::from_utf8(body) {
        Ok(text) if encoding.is_none() => body_of_text(text),
        _ => {
            let mut object = serde_json::Map::new();
            let content_type = properties.content_type().as_ref().map(ShortString::as_str);
            for (name, value) in [
                ("content_type", content_type),
                ("content_encoding", encoding),
            ] {
                if let Some(value) = value {
                    object.insert(name.into(), value.into());
                }
            }
            object.insert("base64".into(), STANDARD.encode(body).into());
            serde_json::Value::from(object).to_string().into()
        }
    }
}

/// Whether a body is a JSON text by its media type and by its grammar, whatever clients can read of it.
pub(crate) fn is_json(properties: &BasicProperties, body: &[u8]) -> bool {
    let media_type = properties.content_type().as_ref().map(ShortString::as_str);
    let mut json = serde_json::Deserializer::from_slice(body);
    json.disable_recursion_limit();
    media_type == Some("application/json")
        && properties.content_encoding().is_none()
        && <&serde_json::value::RawValue>::deserialize(&mut json).is_ok()
        && json.end().is_ok()
}

/// The bytes that natives find for a body of this media type and encoding: what [`as_json`] reads as exactly that body.
/// `None` where there are no such bytes; then natives find the body as it is, under the service's own media type.
pub(crate) fn body(beside: &HeaderMap, body: &Bytes) -> Option<Bytes> {
    let text = |property| match beside.properties.get(&property) {
        Some(HeaderValue::Text(text)) => Some(text.as_str()),
        _ => None,
    };
    let (content_type, encoding) = (text(Property::ContentType), text(Property::ContentEncoding));
    let mut properties = BasicProperties::default();
    if let Some(content_type) = content_type {
        properties = properties.with_content_type(ShortString::try_new(content_type).ok()?);
    }
    if let Some(encoding) = encoding {
        properties = properties.with_content_encoding(ShortString::try_new(encoding).ok()?);
    }
    let is_json = content_type.is_none_or(|it| it.to_ascii_lowercase().contains("json"));
    let unpacked = match body.first() {
        Some(b'"') if !is_json => serde_json::from_slice::<String>(body).ok().map(Bytes::from),
        Some(b'{') => packed(body),
        _ => None,
    };
    let candidates = [unpacked, Some(body.clone())];
    let mut candidates = candidates.into_iter().flatten();
    candidates.find(|candidate| as_json(&properties, candidate) == *body)
}

/// The bytes in a body that stands for bytes.
fn packed(body: &[u8]) -> Option<Bytes> {
    #[derive(serde::Deserialize)]
    struct Packed {
        base64: String,
    }
    let packed: Packed = serde_json::from_slice(body).ok()?;
    STANDARD.decode(packed.base64).ok().map(Bytes::from)
}

/// The life that a producer gave its message.
pub(crate) fn life(properties: &BasicProperties) -> Option<Duration> {
    let millis = properties.expiration().as_ref()?.as_str().parse().ok()?;
    Some(Duration::from_millis(millis))
}

/// How long ago a producer says it made its message.
pub(crate) fn age(properties: &BasicProperties, now: Timestamp) -> Duration {
    let seconds = properties.timestamp().and_then(|it| i64::try_from(it).ok());
    let made = seconds.and_then(|it| it.checked_mul(1000));
    let age = made.map(|it| now.since(Timestamp(it)));
    age.filter(|age| *age < PLAUSIBLE).unwrap_or_default()
}

/// How often a quorum queue has taken the message back.
pub(crate) fn returns(properties: &BasicProperties) -> u64 {
    let headers = properties.headers().as_ref();
    let count = headers.and_then(|headers| number(headers.inner().get(RETURNS)?));
    count.and_then(|it| u64::try_from(it).ok()).unwrap_or(0)
}

/// The copy of a message for the companion of its queue, under this id. It lives no longer than `left`, where that is
/// known, and its returns are counted anew.
pub(crate) fn copy(got: &Got, id: MessageId, left: Option<Duration>) -> Outgoing {
    let mut headers = without_misleading(got.properties.headers().clone().unwrap_or_default());
    let mut put = |name: &'static str, text: &str| {
        headers.insert(name.into(), AMQPValue::LongString(text.into()));
    };
    put(ID, &id.0.to_string());
    put("isimud-exchange", got.exchange.as_str());
    put("isimud-routing-key", got.routing_key.as_str());
    let mut properties = match got.properties.user_id() {
        Some(user) => {
            put("isimud-user-id", user.as_str());
            without_user(&got.properties)
        }
        None => got.properties.clone(),
    };
    if let (Some(left), Some(_)) = (left, properties.expiration()) {
        properties = properties.with_expiration(left.as_millis().to_string().into());
    }
    Outgoing {
        properties: properties.with_headers(headers),
        body: got.body.clone().into(),
    }
}

/// What is published when a copy is given back.
pub(crate) fn returned(got: Got) -> Outgoing {
    let headers = without_misleading(got.properties.headers().clone().unwrap_or_default());
    Outgoing {
        properties: got.properties.with_headers(headers),
        body: got.body.into(),
    }
}

/// Renames the headers by which RabbitMQ would send the copy to other queues too ("Sender-selected Distribution"), and
/// leaves out those in which a quorum queue counts.
fn without_misleading(headers: FieldTable) -> FieldTable {
    let kept = headers.inner().iter().filter_map(|(name, value)| {
        let name = match name.as_str() {
            "CC" => "isimud-cc".into(),
            "BCC" => "isimud-bcc".into(),
            RETURNS | "x-acquired-count" => return None,
            _ => name.clone(),
        };
        Some((name, value.clone()))
    });
    kept.collect::<BTreeMap<ShortString, AMQPValue>>().into()
}

/// The same properties but for the user, which RabbitMQ takes from that user alone ("Validated User-ID").
fn without_user(given: &BasicProperties) -> BasicProperties {
    let mut properties = BasicProperties::default();
    macro_rules! keep {
        ($($get:ident $with:ident,)+) => {$(
            if let Some(value) = given.$get().clone() {
                properties = properties.$with(value);
            }
        )+};
    }
    keep! {
        content_type with_content_type,
        content_encoding with_content_encoding,
        delivery_mode with_delivery_mode,
        priority with_priority,
        correlation_id with_correlation_id,
        reply_to with_reply_to,
        expiration with_expiration,
        message_id with_message_id,
        timestamp with_timestamp,
        kind with_type,
        app_id with_app_id,
        cluster_id with_cluster_id,
    }
    properties
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(content_type: &str) -> BasicProperties {
        BasicProperties::default().with_content_type(content_type.into())
    }

    #[test]
    fn every_body_is_json() {
        let none = BasicProperties::default();
        for (properties, body, json) in [
            (&none, &b"{\"a\": [1]}"[..], r#"{"a": [1]}"#),
            (&none, b"12", "12"),
            (&typed("text/plain"), b"hello \"you\"", r#""hello \"you\"""#),
            (&none, b"", r#""""#),
            (&none, b"{\"a\":", r#""{\"a\":""#),
            (&none, b"\xff\x00", r#"{"base64":"/wA="}"#),
            (
                &typed("image/png"),
                b"\xff",
                r#"{"content_type":"image/png","base64":"/w=="}"#,
            ),
            (
                &typed("application/json").with_content_encoding("gzip".into()),
                b"{}",
                r#"{"content_type":"application/json","content_encoding":"gzip","base64":"e30="}"#,
            ),
            (
                &none.clone().with_content_encoding("UTF-8".into()),
                b"{}",
                "{}",
            ),
        ] {
            assert_eq!(as_json(properties, body), json, "{body:?}");
        }
    }

    #[test]
    fn json_that_clients_cannot_read_back_becomes_a_string() {
        let none = BasicProperties::default();
        let deep = "[".repeat(5000) + &"]".repeat(5000);
        for text in [
            deep.as_str(),
            "[1e400]",
            "18446744073709551616",
            r#"["\ud800"]"#,
        ] {
            let string = serde_json::to_string(text).unwrap();
            assert_eq!(as_json(&none, text.as_bytes()), string);
        }
    }

    #[test]
    fn encodings_that_change_nothing_are_none() {
        for encoding in ["identity", "US-ASCII", "Utf-8", "ascii", ""] {
            let properties = BasicProperties::default().with_content_encoding(encoding.into());
            assert_eq!(
                as_json(&properties, b"{\"a\":1}"),
                r#"{"a":1}"#,
                "{encoding}"
            );
        }
    }

    #[test]
    fn implausible_times_are_no_times() {
        let now = Timestamp(1_800_000_000_000);
        let made = |at| age(&BasicProperties::default().with_timestamp(at), now);
        assert_eq!(made(1_799_999_990), Duration::from_secs(10));
        for at in [0, 1_800_000_001, 1_800_000_000_000, u64::MAX] {
            assert_eq!(made(at), Duration::ZERO, "{at}");
        }
    }

    #[test]
    fn a_copy_keeps_everything_but_what_would_lead_it_astray() {
        let mut headers = FieldTable::default();
        headers.insert("CC".into(), AMQPValue::FieldArray(Vec::new().into()));
        headers.insert("x-mine".into(), AMQPValue::LongInt(1));
        headers.insert(RETURNS.into(), AMQPValue::LongLongInt(7));
        let properties = typed("a/b")
            .with_priority(7)
            .with_message_id("order 1".into())
            .with_type("order".into())
            .with_user_id("them".into())
            .with_expiration("9000".into())
            .with_headers(headers);
        assert_eq!(returns(&properties), 7);
        let got = Got {
            tag: crate::held::Tag {
                channel: 1,
                delivery: 1,
            },
            exchange: "events".into(),
            routing_key: "orders.new".into(),
            is_again: false,
            properties,
            body: b"x".to_vec(),
        };
        let id = MessageId(uuid::Uuid::from_u128(5));
        let copy = copy(&got, id, Some(Duration::from_millis(1500)));
        let kept = &copy.properties;
        assert_eq!(kept.priority(), &Some(7));
        assert_eq!(kept.message_id(), &Some("order 1".into()));
        assert_eq!(kept.kind(), &Some("order".into()));
        assert_eq!(kept.content_type(), &Some("a/b".into()));
        assert_eq!(kept.user_id(), &None);
        assert_eq!(kept.expiration(), &Some("1500".into()));
        assert_eq!(returns(kept), 0);
        let headers = kept.headers().clone().unwrap();
        let names: Vec<&str> = headers.inner().keys().map(ShortString::as_str).collect();
        assert_eq!(
            names,
            [
                "isimud-cc",
                "isimud-exchange",
                "isimud-id",
                "isimud-routing-key",
                "isimud-user-id",
                "x-mine"
            ]
        );
    }
}
