//! Messages of the estate's own producers: any content type, often without an id.
//!
//! | the body | as JSON |
//! |---|---|
//! | JSON text, whatever the content type is | the same text |
//! | other text (UTF-8, and no `content_encoding` but `utf-8`) | a string |
//! | anything else | `{"content_type": …, "content_encoding": …, "base64": …}`, the first two where there are any |
//!
//! | what else it needs | is |
//! |---|---|
//! | id | `message_id`, where that is a UUID; else the message is *adopted* |
//! | client | the nil UUID |
//! | ttl | `expiration`, else `native_ttl_s` |
//! | age | by `timestamp`, where that is plausible; nothing else goes by it |
//!
//! A message without an id is adopted by a copy with one in the header `isimud-id`, in the companion of its queue: the
//! copy is confirmed, the original is acknowledged, and the copy is got from there. So there is at any time one of them
//! that a native consumer or another server could get, a crash changes no id, and the order stays. A copy that is given
//! back goes to the end of the queue that it came from, for natives to see.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use isimud_contract::Timestamp;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde_json::json;
use uuid::Uuid;

use crate::holder::Got;
use crate::publisher::Outgoing;

/// The header with the id that an adopted message was given.
pub(crate) const ID: &str = "isimud-id";

/// A timestamp that is older is no timestamp.
const PLAUSIBLE: Duration = Duration::from_secs(10 * 365 * 86_400);

/// What a body is as JSON text.
pub(crate) fn as_json(properties: &BasicProperties, body: &[u8]) -> Bytes {
    let encoding = properties.content_encoding().as_ref();
    let encoding = encoding.map(ShortString::as_str).filter(|it| {
        !(it.is_empty() || it.eq_ignore_ascii_case("utf-8") || it.eq_ignore_ascii_case("utf8"))
    });
    match std::str::from_utf8(body) {
        Ok(text) if encoding.is_none() => {
            if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
                Bytes::copy_from_slice(body)
            } else {
                json!(text).to_string().into()
            }
        }
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

/// The copy with an id of a message that has none, for the companion of its queue.
pub(crate) fn copy(got: &Got) -> Outgoing {
    let headers = got.properties.headers().clone().unwrap_or_default();
    let mut headers = without_copies(headers);
    let mut put = |name: &'static str, text: &str| {
        headers.insert(name.into(), AMQPValue::LongString(text.into()));
    };
    put(ID, &Uuid::now_v7().to_string());
    put("isimud-exchange", got.exchange.as_str());
    put("isimud-routing-key", got.routing_key.as_str());
    let properties = match got.properties.user_id() {
        Some(user) => {
            put("isimud-user-id", user.as_str());
            without_user(&got.properties)
        }
        None => got.properties.clone(),
    };
    Outgoing {
        properties: properties.with_headers(headers),
        body: got.body.clone().into(),
    }
}

/// Renames the headers by which RabbitMQ would send the copy to other queues too ("Sender-selected Distribution").
fn without_copies(headers: FieldTable) -> FieldTable {
    let renamed = headers.inner().iter().map(|(name, value)| {
        let name = match name.as_str() {
            "CC" => "isimud-cc".into(),
            "BCC" => "isimud-bcc".into(),
            _ => name.clone(),
        };
        (name, value.clone())
    });
    renamed.collect::<BTreeMap<ShortString, AMQPValue>>().into()
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
    fn deep_json_is_json() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert_eq!(as_json(&BasicProperties::default(), deep.as_bytes()), deep);
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
        let properties = typed("a/b")
            .with_priority(7)
            .with_message_id("order 1".into())
            .with_type("order".into())
            .with_user_id("them".into())
            .with_headers(headers);
        let got = Got {
            tag: crate::held::Tag {
                channel: 1,
                delivery: 1,
            },
            exchange: "events".into(),
            routing_key: "orders.new".into(),
            properties,
            body: b"x".to_vec(),
        };
        let copy = copy(&got);
        let kept = &copy.properties;
        assert_eq!(kept.priority(), &Some(7));
        assert_eq!(kept.message_id(), &Some("order 1".into()));
        assert_eq!(kept.kind(), &Some("order".into()));
        assert_eq!(kept.content_type(), &Some("a/b".into()));
        assert_eq!(kept.user_id(), &None);
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
