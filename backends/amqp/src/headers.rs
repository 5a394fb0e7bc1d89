//! Headers and properties of a message in RabbitMQ's terms, in both directions.
//!
//! | in the contract | in RabbitMQ |
//! |---|---|
//! | `content_type`, `content_encoding`, `correlation_id`, `reply_to`, `type`, `app_id`, `priority`, `timestamp` | the property of that name |
//! | headers: null, truth, whole number, number, text, bytes, time, list, table | `V`, `t`, `l`, `d`, `S`, `x`, `T`, `A`, `F` |
//! | whatever RabbitMQ cannot carry, or would act upon | the header `isimud-headers`, in the contract's stored form |
//!
//! RabbitMQ acts upon `CC` and `BCC` (it sends copies to any queue that they name, also to another tenant's), upon
//! `user_id` (it closes the channel of who publishes for another user), `x-death` (it ends circles by it) and `x-delay`.
//! `message_id` is the message's own id; another one that a producer gave it goes into `isimud-headers`, too.
//!
//! Read back, whole numbers of every width are one kind, and a decimal number is a text. What RabbitMQ itself counts in
//! headers (`x-delivery-count`, `x-acquired-count`) is no part of the message. `delivery_mode` and `expiration` are the
//! service's to set; `cluster_id`, which AMQP has given up, is not kept.

use std::collections::BTreeMap;

use bytes::Bytes;
use isimud_contract::{HeaderMap, HeaderValue, Headers, MessageId, Property};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, ByteArray, FieldArray, FieldTable, LongString, ShortString};

/// The header with what has no place of its own.
pub(crate) const OTHER_HEADERS: &str = "isimud-headers";

/// What the names of the service's own headers begin with.
const OWN: &str = "isimud-";

/// The most bytes that headers and properties may have in AMQP's form: they stand in one frame, of 128 KiB by default.
const FRAME: usize = 96 * 1024;

/// The longest short string, in bytes.
const SHORT: usize = 255;

/// The header that names what a producer's message had and nobody can keep.
const LEFT_OUT: &str = "isimud-left-out";

/// What the properties of the service's own messages are, where nothing else is said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usual<'a> {
    pub(crate) content_type: &'a str,
    pub(crate) app_id: &'a str,
    pub(crate) timestamp: u64,
}

impl Usual<'_> {
    fn is(&self, property: Property, value: &HeaderValue) -> bool {
        match (property, value) {
            (Property::ContentType, HeaderValue::Text(text)) => self.content_type == text,
            (Property::AppId, HeaderValue::Text(text)) => self.app_id == text,
            (Property::Timestamp, HeaderValue::Timestamp(seconds)) => self.timestamp == *seconds,
            _ => false,
        }
    }
}

/// Puts headers into properties and a table of headers, as native consumers know them. Media type and encoding are put
/// there only where they say what the body is (`is_typed`). What is `usual` anyway is written down beside as well: read
/// back, it would look as if nobody had said it.
pub(crate) fn put(
    map: HeaderMap,
    is_typed: bool,
    usual: Usual<'_>,
    mut properties: BasicProperties,
    table: &mut FieldTable,
) -> BasicProperties {
    let mut rest = HeaderMap::default();
    if weight_of(&map) > FRAME {
        rest = map;
    } else {
        for (property, value) in map.properties {
            let is_hidden = usual.is(property, &value)
                || !is_typed
                    && matches!(property, Property::ContentType | Property::ContentEncoding);
            match with(&properties, property, &value).filter(|_| !is_hidden) {
                Some(said) => properties = said,
                None => {
                    rest.properties.insert(property, value);
                }
            }
        }
        for (name, value) in map.headers {
            match native(&value).filter(|_| is_carried(&name)) {
                Some(native) => {
                    table.insert(name.as_str().into(), native);
                }
                None => {
                    rest.headers.insert(name, value);
                }
            }
        }
    }
    // Part of what was within the bounds is within them.
    if let Ok(Some(rest)) = Headers::of(&rest) {
        let bytes = AMQPValue::ByteArray(rest.as_bytes().to_vec().into());
        table.insert(OTHER_HEADERS.into(), bytes);
    }
    properties
}

/// The properties with one more; `None` for one that RabbitMQ has no place for, or would act upon.
fn with(
    properties: &BasicProperties,
    property: Property,
    value: &HeaderValue,
) -> Option<BasicProperties> {
    let given = properties.clone();
    match (property, value) {
        (Property::Priority, HeaderValue::Integer(number)) => {
            Some(given.with_priority(u8::try_from(*number).ok()?))
        }
        (Property::Timestamp, HeaderValue::Timestamp(seconds)) => {
            Some(given.with_timestamp(*seconds))
        }
        (property, HeaderValue::Text(text)) if text.len() <= SHORT => {
            let text: ShortString = text.as_str().into();
            match property {
                Property::ContentType => Some(given.with_content_type(text)),
                Property::ContentEncoding => Some(given.with_content_encoding(text)),
                Property::CorrelationId => Some(given.with_correlation_id(text)),
                Property::ReplyTo => Some(given.with_reply_to(text)),
                Property::Type => Some(given.with_type(text)),
                Property::AppId => Some(given.with_app_id(text)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Whether a header can go under its own name.
fn is_carried(name: &str) -> bool {
    let acted_upon = matches!(name, "CC" | "BCC" | "x-delay")
        || is_counted(name)
        || ["x-death", "x-first-death-", "x-last-death-"]
            .iter()
            .any(|start| name.starts_with(start));
    !name.is_empty() && name.len() <= SHORT && !name.starts_with(OWN) && !acted_upon
}

/// Whether a header is RabbitMQ's own count, another one with each delivery.
fn is_counted(name: &str) -> bool {
    matches!(name, "x-delivery-count" | "x-acquired-count")
}

/// A value in AMQP's terms; `None` for one that AMQP does not have.
fn native(value: &HeaderValue) -> Option<AMQPValue> {
    Some(match value {
        HeaderValue::Null => AMQPValue::Void,
        HeaderValue::Bool(truth) => AMQPValue::Boolean(*truth),
        // The narrow kind where it fits: some clients (pika) read the wide one as unsigned.
        HeaderValue::Integer(number) => match i32::try_from(*number) {
            Ok(number) => AMQPValue::LongInt(number),
            Err(_) => AMQPValue::LongLongInt(*number),
        },
        HeaderValue::Float(number) => AMQPValue::Double(*number),
        HeaderValue::Text(text) => AMQPValue::LongString(LongString::from(text.as_str())),
        HeaderValue::Binary(bytes) => AMQPValue::ByteArray(ByteArray::from(bytes.to_vec())),
        HeaderValue::Timestamp(seconds) => AMQPValue::Timestamp(*seconds),
        HeaderValue::List(values) => {
            let values: Option<Vec<AMQPValue>> = values.iter().map(native).collect();
            AMQPValue::FieldArray(FieldArray::from(values?))
        }
        HeaderValue::Table(table) => {
            let mut fields = BTreeMap::new();
            for (name, value) in table.iter() {
                if name.len() > SHORT {
                    return None;
                }
                fields.insert(ShortString::from(name.as_str()), native(value)?);
            }
            AMQPValue::FieldTable(FieldTable::from(fields))
        }
    })
}

/// At most how many bytes AMQP takes for headers and properties.
fn weight_of(map: &HeaderMap) -> usize {
    let properties = map.properties.values().map(weight);
    let headers = map.headers.iter();
    properties.sum::<usize>()
        + headers
            .map(|(name, value)| field(name, value))
            .sum::<usize>()
}

fn field(name: &str, value: &HeaderValue) -> usize {
    1 + name.len() + weight(value)
}

fn weight(value: &HeaderValue) -> usize {
    1 + match value {
        HeaderValue::Null => 0,
        HeaderValue::Bool(_) => 1,
        HeaderValue::Integer(_) | HeaderValue::Float(_) | HeaderValue::Timestamp(_) => 8,
        HeaderValue::Text(text) => 4 + text.len(),
        HeaderValue::Binary(bytes) => 4 + bytes.len(),
        HeaderValue::List(values) => 4 + values.iter().map(weight).sum::<usize>(),
        HeaderValue::Table(table) => {
            let fields = table.iter().map(|(name, value)| field(name, value));
            4 + fields.sum::<usize>()
        }
    }
}

/// Reads what a message says beside its body, if anything. `id` is the message's own; `usual` is what a message of the
/// service has anyway, and none for one of a native producer.
///
/// What is beyond the bounds of the contract is left out by its names, which the header `isimud-left-out` then lists.
pub(crate) fn read(
    properties: &BasicProperties,
    id: MessageId,
    usual: Option<Usual<'_>>,
) -> Option<Headers> {
    let mut map = HeaderMap::default();
    let mut kept = HeaderMap::default();
    for (name, value) in properties.headers().iter().flat_map(|it| it.inner()) {
        let name = name.as_str();
        match name {
            OTHER_HEADERS => kept = stored(value).map(|it| it.read()).unwrap_or_default(),
            "isimud-user-id" => {
                map.properties.insert(Property::UserId, read_value(value));
            }
            "isimud-cc" | "isimud-bcc" => {
                let name = name[OWN.len()..].to_ascii_uppercase();
                map.headers.insert(name, read_value(value));
            }
            _ if name.starts_with(OWN) || is_counted(name) => {}
            _ => {
                map.headers.insert(name.to_owned(), read_value(value));
            }
        }
    }
    let is_usual =
        |property, value: &HeaderValue| usual.is_some_and(|usual| usual.is(property, value));
    let message_id = properties.message_id();
    let own = id.to_string();
    let foreign_id = message_id
        .as_ref()
        .filter(|it| !it.as_str().eq_ignore_ascii_case(&own));
    for (property, text) in [
        (Property::ContentType, properties.content_type().as_ref()),
        (
            Property::ContentEncoding,
            properties.content_encoding().as_ref(),
        ),
        (
            Property::CorrelationId,
            properties.correlation_id().as_ref(),
        ),
        (Property::ReplyTo, properties.reply_to().as_ref()),
        (Property::Type, properties.kind().as_ref()),
        (Property::AppId, properties.app_id().as_ref()),
        (Property::UserId, properties.user_id().as_ref()),
        (Property::MessageId, foreign_id),
    ] {
        let text = text.map(|it| HeaderValue::Text(it.to_string()));
        if let Some(text) = text.filter(|it| !is_usual(property, it)) {
            map.properties.insert(property, text);
        }
    }
    if let Some(priority) = *properties.priority() {
        let priority = HeaderValue::Integer(priority.into());
        map.properties.insert(Property::Priority, priority);
    }
    let seconds = properties.timestamp().map(HeaderValue::Timestamp);
    if let Some(seconds) = seconds.filter(|it| !is_usual(Property::Timestamp, it)) {
        map.properties.insert(Property::Timestamp, seconds);
    }
    // What stands in the open may be newer: RabbitMQ has written it, or a native who sent the message on.
    for (property, value) in kept.properties {
        map.properties.entry(property).or_insert(value);
    }
    for (name, value) in kept.headers {
        map.headers.entry(name).or_insert(value);
    }
    Headers::of(&map).unwrap_or_else(|_| within_bounds(map))
}

fn stored(value: &AMQPValue) -> Option<Headers> {
    let bytes = match value {
        AMQPValue::ByteArray(bytes) => Bytes::copy_from_slice(bytes.as_slice()),
        AMQPValue::LongString(text) => Bytes::copy_from_slice(text.as_bytes()),
        _ => return None,
    };
    Headers::from_bytes(bytes)
}

/// As much as the contract takes: what is small goes first.
fn within_bounds(mut map: HeaderMap) -> Option<Headers> {
    let mut by_size: Vec<(usize, String)> = map
        .headers
        .iter()
        .map(|(name, value)| (field(name, value), name.clone()))
        .collect();
    by_size.sort_unstable();
    let mut left_out = Vec::new();
    while let Some((_, name)) = by_size.pop() {
        map.headers.remove(&name);
        left_out.push(HeaderValue::Text(name));
        map.headers
            .insert(LEFT_OUT.into(), HeaderValue::List(left_out.clone()));
        if let Ok(headers) = Headers::of(&map) {
            return headers;
        }
    }
    None
}

fn read_value(value: &AMQPValue) -> HeaderValue {
    match value {
        AMQPValue::Boolean(truth) => HeaderValue::Bool(*truth),
        AMQPValue::ShortShortInt(number) => HeaderValue::Integer((*number).into()),
        AMQPValue::ShortShortUInt(number) => HeaderValue::Integer((*number).into()),
        AMQPValue::ShortInt(number) => HeaderValue::Integer((*number).into()),
        AMQPValue::ShortUInt(number) => HeaderValue::Integer((*number).into()),
        AMQPValue::LongInt(number) => HeaderValue::Integer((*number).into()),
        AMQPValue::LongUInt(number) => HeaderValue::Integer((*number).into()),
        AMQPValue::LongLongInt(number) => HeaderValue::Integer(*number),
        AMQPValue::Float(number) => HeaderValue::Float((*number).into()),
        AMQPValue::Double(number) => HeaderValue::Float(*number),
        AMQPValue::DecimalValue(number) => {
            HeaderValue::Text(decimal(number.value.into(), number.scale))
        }
        AMQPValue::ShortString(text) => HeaderValue::Text(text.to_string()),
        AMQPValue::LongString(text) => match std::str::from_utf8(text.as_bytes()) {
            Ok(text) => HeaderValue::Text(text.to_owned()),
            Err(_) => HeaderValue::Binary(Bytes::copy_from_slice(text.as_bytes())),
        },
        AMQPValue::FieldArray(values) => {
            HeaderValue::List(values.as_slice().iter().map(read_value).collect())
        }
        AMQPValue::Timestamp(seconds) => HeaderValue::Timestamp(*seconds),
        AMQPValue::FieldTable(table) => {
            let fields = table.inner().iter();
            let fields = fields.map(|(name, value)| (name.to_string(), read_value(value)));
            HeaderValue::Table(fields.collect())
        }
        AMQPValue::ByteArray(bytes) => {
            HeaderValue::Binary(Bytes::copy_from_slice(bytes.as_slice()))
        }
        AMQPValue::Void => HeaderValue::Null,
    }
}

/// A whole number with a point before its last `scale` digits.
fn decimal(value: i64, scale: u8) -> String {
    let scale = usize::from(scale);
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    let sign = if value < 0 { "-" } else { "" };
    match part {
        "" => format!("{sign}{whole}"),
        part => format!("{sign}{whole}.{part}"),
    }
}

#[cfg(test)]
mod tests {
    use isimud_contract::Timestamp;
    use uuid::Uuid;

    use super::*;

    const ID: MessageId = MessageId(Uuid::from_u128(7));

    const USUAL: Usual<'static> = Usual {
        content_type: "application/json",
        app_id: "isimud",
        timestamp: 1_800_000_000,
    };

    fn text(text: &str) -> HeaderValue {
        HeaderValue::Text(text.into())
    }

    fn map(properties: &[(Property, HeaderValue)], headers: &[(&str, HeaderValue)]) -> HeaderMap {
        let headers = headers.iter().cloned();
        HeaderMap {
            properties: properties.iter().cloned().collect(),
            headers: headers.map(|(name, value)| (name.into(), value)).collect(),
        }
    }

    /// The properties of a message of the service that says this.
    fn written(map: &HeaderMap) -> BasicProperties {
        let usual = BasicProperties::default()
            .with_content_type(USUAL.content_type.into())
            .with_app_id(USUAL.app_id.into())
            .with_timestamp(USUAL.timestamp)
            .with_message_id(ID.to_string().into());
        let mut table = FieldTable::default();
        table.insert(
            "isimud-posted".into(),
            AMQPValue::LongLongInt(Timestamp(1).0),
        );
        let properties = put(map.clone(), true, USUAL, usual, &mut table);
        properties.with_headers(table)
    }

    fn there_and_back(map: &HeaderMap) -> BasicProperties {
        let properties = written(map);
        let read = read(&properties, ID, Some(USUAL)).map(|it| it.read());
        assert_eq!(read.as_ref(), Some(map));
        properties
    }

    fn names(properties: &BasicProperties) -> Vec<&str> {
        let table = properties.headers().as_ref().expect("headers");
        table.inner().keys().map(ShortString::as_str).collect()
    }

    #[test]
    fn every_kind_of_value_goes_there_and_back() {
        let nested = HeaderValue::Table(
            [
                (
                    "list".to_owned(),
                    HeaderValue::List(vec![HeaderValue::Integer(1), HeaderValue::Null]),
                ),
                (
                    "bytes".to_owned(),
                    HeaderValue::Binary(Bytes::from_static(b"\x00\xff")),
                ),
            ]
            .into(),
        );
        let map = map(
            &[
                (Property::ContentType, text("application/x-yaml")),
                (Property::ContentEncoding, text("utf-8")),
                (Property::CorrelationId, text("c")),
                (Property::ReplyTo, text("r")),
                (Property::Type, text("t")),
                (Property::AppId, text("shop")),
                (Property::Priority, HeaderValue::Integer(9)),
                (Property::Timestamp, HeaderValue::Timestamp(5)),
            ],
            &[
                ("task", text("proj.add")),
                ("no", HeaderValue::Bool(false)),
                ("least", HeaderValue::Integer(i64::MIN)),
                ("share", HeaderValue::Float(1.5)),
                ("bytes", HeaderValue::Binary(Bytes::from_static(b"\xff"))),
                ("then", HeaderValue::Timestamp(1)),
                ("none", HeaderValue::Null),
                ("nested", nested),
            ],
        );
        let properties = there_and_back(&map);
        assert_eq!(properties.correlation_id(), &Some("c".into()));
        assert_eq!(properties.priority(), &Some(9));
        assert!(names(&properties).contains(&"task"));
        assert!(!names(&properties).contains(&OTHER_HEADERS));
    }

    #[test]
    fn what_rabbitmq_would_act_upon_is_kept_out_of_its_sight() {
        let others = HeaderValue::List(vec![text("another-tenants-queue")]);
        let long = "n".repeat(256);
        let map = map(
            &[
                (Property::UserId, text("root")),
                (Property::MessageId, text("order 1")),
                (Property::Priority, HeaderValue::Integer(1000)),
                (Property::GroupId, text("g")),
            ],
            &[
                ("CC", others.clone()),
                ("BCC", others.clone()),
                ("x-death", others),
                ("x-delay", HeaderValue::Integer(5)),
                ("x-mine", text("seen")),
                (&long, text("seen")),
                ("", text("seen")),
                (
                    "nested",
                    HeaderValue::Table([(long.clone(), text("seen"))].into()),
                ),
            ],
        );
        let properties = there_and_back(&map);
        assert_eq!(
            names(&properties),
            [OTHER_HEADERS, "isimud-posted", "x-mine"]
        );
        assert_eq!(properties.user_id(), &None);
        assert_eq!(properties.priority(), &None);
        assert_eq!(properties.message_id(), &Some(ID.to_string().into()));
    }

    #[test]
    fn what_is_usual_and_was_said_is_said_when_it_is_read() {
        there_and_back(&map(
            &[
                (Property::ContentType, text(USUAL.content_type)),
                (Property::AppId, text(USUAL.app_id)),
                (Property::Timestamp, HeaderValue::Timestamp(USUAL.timestamp)),
            ],
            &[],
        ));
    }

    #[test]
    fn headers_that_do_not_fit_a_frame_are_kept_in_the_shorter_form() {
        let empty = vec![HeaderValue::List(Vec::new()); 30_000];
        let properties = there_and_back(&map(&[], &[("many", HeaderValue::List(empty))]));
        assert_eq!(names(&properties), [OTHER_HEADERS, "isimud-posted"]);
    }

    #[test]
    fn what_a_native_says_is_read_whatever_it_is() {
        let mut table = FieldTable::default();
        for (name, value) in [
            ("short", AMQPValue::ShortInt(-1)),
            ("float", AMQPValue::Float(0.5)),
            (
                "latin",
                AMQPValue::LongString(LongString::from(&b"\xe9"[..])),
            ),
            ("x-delivery-count", AMQPValue::LongLongInt(3)),
            ("isimud-cc", AMQPValue::LongString("a".into())),
            ("isimud-exchange", AMQPValue::LongString("e".into())),
            (OTHER_HEADERS, AMQPValue::LongString("nonsense".into())),
        ] {
            table.insert(name.into(), value);
        }
        let properties = BasicProperties::default()
            .with_message_id("order 1".into())
            .with_content_type("application/json".into())
            .with_headers(table);
        let read = read(&properties, ID, None).expect("some").read();
        let expected = map(
            &[
                (Property::ContentType, text("application/json")),
                (Property::MessageId, text("order 1")),
            ],
            &[
                ("short", HeaderValue::Integer(-1)),
                ("float", HeaderValue::Float(0.5)),
                ("latin", HeaderValue::Binary(Bytes::from_static(b"\xe9"))),
                ("CC", text("a")),
            ],
        );
        assert_eq!(read, expected);
        assert_eq!(super::read(&BasicProperties::default(), ID, None), None);
    }

    #[test]
    fn what_no_store_can_keep_is_named() {
        let deep = (0..20).fold(AMQPValue::Void, |inner, _| {
            AMQPValue::FieldArray(FieldArray::from(vec![inner]))
        });
        let mut table = FieldTable::default();
        table.insert("deep".into(), deep);
        table.insert(
            "large".into(),
            AMQPValue::LongString("x".repeat(90_000).as_str().into()),
        );
        table.insert("small".into(), AMQPValue::LongInt(1));
        let properties = BasicProperties::default().with_headers(table);
        let read = read(&properties, ID, None).expect("some").read();
        let left_out = HeaderValue::List(vec![text("large"), text("deep")]);
        let expected = map(
            &[],
            &[("small", HeaderValue::Integer(1)), (LEFT_OUT, left_out)],
        );
        assert_eq!(read, expected);
    }

    #[test]
    fn decimals_are_texts() {
        for (value, scale, text) in [(125, 2, "1.25"), (-5, 3, "-0.005"), (7, 0, "7")] {
            assert_eq!(decimal(value, scale), text);
        }
    }
}
