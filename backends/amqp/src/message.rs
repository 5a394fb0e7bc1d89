//! A message in RabbitMQ's terms, and what comes from there as a message.
//!
//! | a message | in RabbitMQ |
//! |---|---|
//! | body | the body, bare: JSON text as posted |
//! | id | `message_id` |
//! | life that is left | `expiration`, in milliseconds |
//! | when it was posted | `timestamp`, in seconds, and the header `isimud-posted`, in milliseconds |
//! | | `content_type` is `application/json`, or `application/vnd.isimud.sealed` for an encrypted body |
//! | | `app_id` is `isimud`, `delivery_mode` is 2 (persistent) |
//! | client | header `isimud-client` |
//! | ttl, and what is left of it where that differs | headers `isimud-ttl` and `isimud-left`, in milliseconds |
//! | age, delay, claim count, where there is one | headers `isimud-age`, `isimud-delay`, `isimud-claims` |
//! | transfers, where there are some | header `isimud-transfers` |
//! | number of arrival, where it came with one | header `isimud-arrival` |
//! | headers and properties, where there are some | headers and properties (see [`crate::headers`]) |
//! | checksum, encryption, where there is one | headers `isimud-checksum`, `isimud-sealed` |

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use isimud_contract::{Arrival, Checksum, ClientId, Message, MessageId, Timestamp};
use isimud_lease::Envelope;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use uuid::Uuid;

use crate::headers::{self, Usual};
use crate::native;

/// The longest `expiration` that RabbitMQ takes, in milliseconds. A message that lives longer has none.
const LONGEST_EXPIRATION: u128 = 4_294_967_295;

const SEALED: &str = "application/vnd.isimud.sealed";

/// The application that the service's own messages name.
const APP: &str = "isimud";

/// The header that makes a message one of the service's own: when it was posted, in milliseconds.
const POSTED: &str = "isimud-posted";

/// A message that is posted: its properties, and the body that native consumers find.
pub(crate) fn written(envelope: &Envelope) -> (BasicProperties, Bytes) {
    let message = &envelope.message;
    let mut body = message.body.clone();
    let usual = usual(message.sealed, envelope.posted);
    let mut properties = BasicProperties::default()
        .with_message_id(message.id.to_string().into())
        .with_app_id(usual.app_id.into())
        .with_delivery_mode(2)
        .with_content_type(usual.content_type.into())
        .with_timestamp(usual.timestamp);
    let mut table = own_headers(envelope);
    if let Some(headers) = &message.headers {
        let map = headers.read();
        let native = match message.sealed {
            true => None,
            false => native::body(&map, &message.body),
        };
        properties = headers::put(map, native.is_some(), usual, properties, &mut table);
        body = native.unwrap_or(body);
    }
    let properties = properties.with_headers(table);
    let properties = match message.remaining_ttl.as_millis() {
        left if left <= LONGEST_EXPIRATION => properties.with_expiration(left.to_string().into()),
        _ => properties,
    };
    (properties, body)
}

/// What a message of the service says in properties, where its producer says nothing else.
fn usual(sealed: bool, posted: Timestamp) -> Usual<'static> {
    Usual {
        content_type: if sealed { SEALED } else { "application/json" },
        app_id: APP,
        timestamp: u64::try_from(posted.0 / 1000).unwrap_or(0),
    }
}

fn own_headers(envelope: &Envelope) -> FieldTable {
    let message = &envelope.message;
    let mut headers = FieldTable::default();
    let mut put = |name: &'static str, value| {
        headers.insert(name.into(), value);
    };
    let span =
        |span: Duration| AMQPValue::LongLongInt(span.as_millis().min(i64::MAX as u128) as i64);
    put(POSTED, AMQPValue::LongLongInt(envelope.posted.0));
    put("isimud-client", text(&message.client.to_string()));
    put("isimud-ttl", span(message.ttl));
    for (name, value, usual) in [
        ("isimud-left", message.remaining_ttl, message.ttl),
        ("isimud-age", message.age, Duration::ZERO),
        ("isimud-delay", message.delay, Duration::ZERO),
    ] {
        if value != usual {
            put(name, span(value));
        }
    }
    if message.claim_count > 0 {
        put(
            "isimud-claims",
            AMQPValue::LongLongInt(message.claim_count.into()),
        );
    }
    if message.transfers > 0 {
        put(
            "isimud-transfers",
            AMQPValue::LongLongInt(message.transfers.into()),
        );
    }
    if let Some(number) = message.arrival.number() {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        put("isimud-arrival", AMQPValue::LongLongInt(number));
    }
    if let Some(checksum) = &message.checksum {
        put("isimud-checksum", text(&checksum.to_string()));
    }
    if message.sealed {
        put("isimud-sealed", AMQPValue::Boolean(true));
    }
    headers
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text))
}

/// Whether a message was posted through Isimud, by whichever server, and comes as it was posted.
pub(crate) fn is_posted_by_us(properties: &BasicProperties) -> bool {
    let headers = Headers::of(properties);
    headers.number("isimud-posted").is_some() && !headers.0.contains_key("x-death")
}

fn arrival(headers: &Headers<'_>) -> Arrival {
    let number = headers.number("isimud-arrival");
    let number = number.and_then(|number| u64::try_from(number).ok());
    number.map_or_else(Arrival::default, Arrival::At)
}

/// How messages of native producers are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Natives {
    /// The life of one that says nothing of it.
    pub(crate) ttl: Duration,
    /// The longest life, where their queue has one.
    pub(crate) longest: Option<Duration>,
    /// Whether a `message_id` that is a UUID is the message's id.
    pub(crate) keep_ids: bool,
}

impl Natives {
    /// The same for a queue that keeps a message for so long.
    pub(crate) fn kept_for(self, longest: Option<Duration>) -> Self {
        Self { longest, ..self }
    }

    fn life(&self, properties: &BasicProperties) -> Duration {
        let life = native::life(properties).unwrap_or(self.ttl);
        self.longest.map_or(life, |longest| life.min(longest))
    }
}

/// Reads a message as it was delivered, with the moment that its spans are of. `None` when it has no id.
///
/// A message of ours tells its times itself, but not once RabbitMQ has dead-lettered it: it would be over as soon as it
/// comes, where it was dead-lettered because its life had ended. It is as good as new then, like one from elsewhere.
pub(crate) fn read(
    properties: &BasicProperties,
    body: &[u8],
    now: Timestamp,
    natives: Natives,
) -> Option<(Message, Timestamp)> {
    let headers = Headers::of(properties);
    let id = id(properties, &headers, natives)?;
    let client = headers.text("isimud-client").and_then(client);
    let sealed =
        headers.0.get("isimud-sealed") == Some(&&AMQPValue::Boolean(true)) && body.is_ascii();
    // What was posted here as JSON was checked there, and is given as it is.
    let body = if sealed || is_ours(properties) && native::is_json(properties, body) {
        Bytes::copy_from_slice(body)
    } else {
        native::as_json(properties, body)
    };
    let posted = headers.number(POSTED);
    let usual = posted.map(|posted| usual(sealed, Timestamp(posted)));
    let beside = headers::read(properties, id, usual);
    let new = |ttl| Message {
        sealed,
        checksum: headers.text("isimud-checksum").and_then(checksum),
        claim_count: headers.count("isimud-claims"),
        transfers: headers.count("isimud-transfers"),
        headers: beside,
        arrival: arrival(&headers),
        ..Message::new(
            id,
            client.clone().unwrap_or(ClientId::Uuid(Uuid::nil())),
            ttl,
            body,
        )
    };
    match (posted, headers.span("isimud-ttl")) {
        (Some(posted), Some(ttl)) if !headers.0.contains_key("x-death") => {
            let message = Message {
                remaining_ttl: headers.span("isimud-left").unwrap_or(ttl),
                age: headers.span("isimud-age").unwrap_or_default(),
                delay: headers.span("isimud-delay").unwrap_or_default(),
                ..new(ttl)
            };
            Some((message, Timestamp(posted)))
        }
        _ => {
            let message = Message {
                age: native::age(properties, now),
                ..new(natives.life(properties))
            };
            Some((message, now))
        }
    }
}

/// Whether a message was posted by Isimud.
pub(crate) fn is_ours(properties: &BasicProperties) -> bool {
    Headers::of(properties).number("isimud-posted").is_some()
}

/// The id that a message was given when it was posted here or adopted. One that a native producer gave it is one only
/// where that is relied upon.
fn id(properties: &BasicProperties, headers: &Headers<'_>, natives: Natives) -> Option<MessageId> {
    let given = properties.message_id().as_ref().map(ShortString::as_str);
    let is_ours = headers.number("isimud-posted").is_some();
    let given = given.filter(|_| is_ours || natives.keep_ids);
    let id = headers
        .text(native::ID)
        .or_else(|| given.map(str::to_owned));
    let id = Uuid::try_parse(&id?).ok()?;
    // These two are placeholders, and no names.
    (!id.is_nil() && !id.is_max()).then_some(MessageId(id))
}

fn client(text: String) -> Option<ClientId> {
    match Uuid::try_parse(&text) {
        Ok(id) => Some(ClientId::Uuid(id)),
        Err(_) if text.is_empty() => None,
        Err(_) => Some(ClientId::Text(text.into())),
    }
}

/// Reads what [`Checksum`] writes.
fn checksum(text: String) -> Option<Checksum> {
    let digits = text
        .strip_prefix("MD5:")
        .filter(|it| it.len() == 32 && it.is_ascii())?;
    let mut bytes = [0; 16];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(Checksum(bytes))
}

/// The headers of a message. Nobody promises what is in them.
struct Headers<'a>(BTreeMap<&'a str, &'a AMQPValue>);

impl<'a> Headers<'a> {
    fn of(properties: &'a BasicProperties) -> Self {
        let table = properties.headers().as_ref().map(FieldTable::inner);
        let all = table.into_iter().flatten();
        Self(all.map(|(name, value)| (name.as_str(), value)).collect())
    }

    fn text(&self, name: &str) -> Option<String> {
        match self.0.get(name)? {
            AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).ok(),
            AMQPValue::ShortString(text) => Some(text.to_string()),
            _ => None,
        }
    }

    fn number(&self, name: &str) -> Option<i64> {
        number(self.0.get(name)?)
    }

    /// A small number; 0 where there is none.
    fn count(&self, name: &str) -> u32 {
        let number = self.number(name).and_then(|it| u32::try_from(it).ok());
        number.unwrap_or(0)
    }

    fn span(&self, name: &str) -> Option<Duration> {
        let millis = u64::try_from(self.number(name)?).ok()?;
        Some(Duration::from_millis(millis))
    }
}

/// A whole number, of whatever width.
pub(crate) fn number(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::LongLongInt(number) => Some(*number),
        AMQPValue::LongInt(number) => Some((*number).into()),
        AMQPValue::LongUInt(number) => Some((*number).into()),
        AMQPValue::ShortInt(number) => Some((*number).into()),
        AMQPValue::ShortUInt(number) => Some((*number).into()),
        AMQPValue::ShortShortInt(number) => Some((*number).into()),
        AMQPValue::ShortShortUInt(number) => Some((*number).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use isimud_contract::{HeaderMap, HeaderValue, Headers as Kept, Property};

    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);
    const DAY: Duration = Duration::from_secs(86_400);
    const NEW_IDS: Natives = Natives {
        ttl: DAY,
        longest: None,
        keep_ids: false,
    };
    const KEPT: Natives = Natives {
        ttl: DAY,
        longest: None,
        keep_ids: true,
    };

    fn message(body: &'static str) -> Message {
        let client = ClientId::Uuid(Uuid::from_u128(7));
        Message::new(
            MessageId(Uuid::now_v7()),
            client,
            Duration::from_secs(60),
            body,
        )
    }

    fn there_and_back(message: Message) -> (BasicProperties, Message) {
        let envelope = Envelope {
            message,
            posted: NOW,
        };
        let (properties, body) = written(&envelope);
        let later = NOW.after(DAY);
        let read = read(&properties, &body, later, NEW_IDS).unwrap();
        assert_eq!(read.1, NOW);
        (properties, read.0)
    }

    fn some_headers() -> Option<Kept> {
        let value = HeaderValue::Text("red".into());
        Kept::of(&HeaderMap {
            headers: [("colour".to_owned(), value)].into(),
            ..HeaderMap::default()
        })
        .unwrap()
    }

    #[test]
    fn a_message_comes_back_as_it_was() {
        let plain = message(r#"{"a": 1}"#);
        let everything = Message {
            client: ClientId::Text("me".into()),
            sealed: true,
            checksum: Some(Checksum(*b"0123456789abcdef")),
            age: Duration::from_millis(5),
            remaining_ttl: Duration::from_secs(90),
            delay: Duration::from_millis(1500),
            claim_count: 3,
            transfers: 4,
            headers: some_headers(),
            ..message("sealed text")
        };
        for message in [plain, everything] {
            assert_eq!(there_and_back(message.clone()).1, message);
        }
    }

    fn typed(body: &'static str, content_type: &str, encoding: Option<&str>) -> Message {
        let text = |text: &str| HeaderValue::Text(text.into());
        let mut map = HeaderMap::default();
        map.properties
            .insert(Property::ContentType, text(content_type));
        if let Some(encoding) = encoding {
            map.properties
                .insert(Property::ContentEncoding, text(encoding));
        }
        Message {
            headers: Kept::of(&map).unwrap(),
            ..message(body)
        }
    }

    #[test]
    fn a_body_that_came_in_another_form_leaves_in_that_form() {
        for (message, body, content_type) in [
            (
                typed(r#""hello""#, "text/plain", None),
                &b"hello"[..],
                "text/plain",
            ),
            (
                typed(r#""hello""#, "application/json", None),
                b"\"hello\"",
                "application/json",
            ),
            (
                typed(r#"{"a": 1}"#, "application/json", Some("utf-8")),
                b"{\"a\": 1}",
                "application/json",
            ),
            (typed("12", "text/plain", None), b"12", "text/plain"),
            // As text it would be read as a number.
            (
                typed(r#""12""#, "text/plain", None),
                b"\"12\"",
                "text/plain",
            ),
            (
                typed(
                    r#"{"content_type":"image/png","base64":"/w=="}"#,
                    "image/png",
                    None,
                ),
                b"\xff",
                "image/png",
            ),
            // It would be read as something else: the type is not what natives see.
            (
                typed(r#"{"a": 1}"#, "application/json", Some("gzip")),
                b"{\"a\": 1}",
                "application/json",
            ),
        ] {
            let envelope = Envelope {
                message: message.clone(),
                posted: NOW,
            };
            let (properties, found) = written(&envelope);
            assert_eq!(found, body, "{message:?}");
            assert_eq!(properties.content_type(), &Some(content_type.into()));
            assert_eq!(there_and_back(message.clone()).1, message);
        }
        let sealed = Message {
            sealed: true,
            ..typed("sealed text", "text/plain", None)
        };
        let (properties, back) = there_and_back(sealed.clone());
        assert_eq!(properties.content_type(), &Some(SEALED.into()));
        assert_eq!(back, sealed);
    }

    #[test]
    fn natives_find_what_they_know() {
        let message = message("[]");
        let (properties, _) = there_and_back(message.clone());
        assert_eq!(
            properties.message_id(),
            &Some(message.id.to_string().into())
        );
        assert_eq!(properties.expiration(), &Some("60000".into()));
        assert_eq!(properties.timestamp(), &Some(1_800_000_000));
        assert_eq!(properties.content_type(), &Some("application/json".into()));
        assert_eq!(properties.delivery_mode(), &Some(2));
    }

    #[test]
    fn a_ttl_longer_than_rabbitmq_can_count_is_the_ledgers_alone() {
        let long = Duration::from_secs(5_000_000);
        let message = Message {
            ttl: long,
            remaining_ttl: long,
            ..message("1")
        };
        let (properties, read) = there_and_back(message);
        assert_eq!(properties.expiration(), &None);
        assert_eq!(read.remaining_ttl, long);
    }

    fn native(id: &str) -> BasicProperties {
        BasicProperties::default().with_message_id(id.into())
    }

    #[test]
    fn an_id_of_the_producer_is_the_id_where_that_is_relied_upon() {
        let id = Uuid::now_v7();
        assert_eq!(read(&native(&id.to_string()), b"{}", NOW, NEW_IDS), None);
        let (message, posted) = read(&native(&id.to_string()), b"{}", NOW, KEPT).unwrap();
        assert_eq!(
            (message.id, message.ttl, message.remaining_ttl),
            (MessageId(id), DAY, DAY)
        );
        assert_eq!(message.client, ClientId::Uuid(Uuid::nil()));
        assert_eq!(posted, NOW);
        for none in ["", "order-1", "00000000-0000-0000-0000-000000000000"] {
            assert_eq!(read(&native(none), b"{}", NOW, KEPT), None, "{none}");
        }
    }

    #[test]
    fn what_rabbitmq_has_dead_lettered_begins_anew() {
        let envelope = Envelope {
            message: message("{}"),
            posted: Timestamp(0),
        };
        let (properties, _) = written(&envelope);
        let mut headers = properties.headers().clone().unwrap();
        headers.insert("x-death".into(), AMQPValue::FieldArray(Vec::new().into()));
        let properties = properties.with_headers(headers).with_expiration("".into());
        let (message, posted) = read(&properties, b"{}", NOW, NEW_IDS).unwrap();
        assert_eq!(message.id, envelope.message.id);
        assert_eq!((message.remaining_ttl, posted), (DAY, NOW));
        assert_eq!(message.client, envelope.message.client);
    }

    #[test]
    fn headers_of_other_kinds_are_no_headers() {
        let envelope = Envelope {
            message: message("{}"),
            posted: NOW,
        };
        let (properties, _) = written(&envelope);
        let mut headers = properties.headers().clone().unwrap();
        headers.insert("isimud-ttl".into(), AMQPValue::LongLongInt(-1));
        headers.insert("isimud-checksum".into(), text("MD5:nothing"));
        headers.insert("isimud-client".into(), AMQPValue::Void);
        let (message, _) = read(&properties.with_headers(headers), b"{", NOW, NEW_IDS).unwrap();
        assert_eq!(message.checksum, None);
        assert_eq!(message.body, r#""{""#);
        assert_eq!(message.ttl, Duration::from_secs(60), "of the expiration");
    }
}
