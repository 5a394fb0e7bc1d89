//! Headers of a message: what its producer said about it beside the body.

use std::collections::BTreeMap;
use std::fmt;

use bytes::{Buf, BufMut, Bytes};

use crate::{Error, Result};

/// The headers and properties of a message, in the form in which stores keep them.
///
/// Native clients see them as headers and properties (AMQP) or as attributes (SQS). Stores and carriers pass them on and
/// never look inside; who wants to know reads them with [`Headers::read`]. Two `Headers` are equal exactly when they say
/// the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Headers(Bytes);

/// Headers and properties by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderMap {
    /// What the broker's protocol has a place for. The names are a fixed set, apart from those of `headers`.
    pub properties: BTreeMap<Property, HeaderValue>,
    /// What the application named itself.
    pub headers: BTreeMap<String, HeaderValue>,
}

/// A value of a header, with the kinds that AMQP tells apart. Whole numbers of every width are one kind.
#[derive(Debug, Clone)]
pub enum HeaderValue {
    /// Nothing, under a name.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A floating-point number. It is compared bit by bit.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes, which may be no text.
    Binary(Bytes),
    /// Whole seconds since 1970.
    Timestamp(u64),
    /// Values in order.
    List(Vec<Self>),
    /// Values by name.
    Table(BTreeMap<String, Self>),
}

impl PartialEq for HeaderValue {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Integer(a), Self::Integer(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Binary(a), Self::Binary(b)) => a == b,
            (Self::Timestamp(a), Self::Timestamp(b)) => a == b,
            (Self::List(a), Self::List(b)) => a == b,
            (Self::Table(a), Self::Table(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for HeaderValue {}

macro_rules! properties {
    ($($(#[doc = $doc:literal])* $variant:ident $number:literal $name:literal;)*) => {
        /// A property that brokers know by a name of their own.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Property {
            $($(#[doc = $doc])* $variant = $number,)*
        }

        impl Property {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name, as AMQP writes it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

properties! {
    /// The media type of the body.
    ContentType 1 "content_type";
    /// How the body is encoded.
    ContentEncoding 2 "content_encoding";
    /// Which request the message answers.
    CorrelationId 3 "correlation_id";
    /// Where an answer is expected.
    ReplyTo 4 "reply_to";
    /// The kind of message.
    Type 5 "type";
    /// How urgent it is.
    Priority 6 "priority";
    /// The name that the producer gave the message, where that is not its id.
    MessageId 7 "message_id";
    /// The application that made it.
    AppId 8 "app_id";
    /// The user of the broker who made it.
    UserId 9 "user_id";
    /// When the producer says that it was made.
    Timestamp 10 "timestamp";
    /// The message group of an SQS FIFO queue.
    GroupId 11 "group_id";
    /// The deduplication id of an SQS FIFO queue.
    DeduplicationId 12 "deduplication_id";
}

impl Property {
    /// Reads what [`Property::name`] writes. `None` for any other name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|it| it.name() == name).copied()
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The version of the stored form: what its first byte says.
const VERSION: u8 = 1;

const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const INTEGER: u8 = 3;
const FLOAT: u8 = 4;
const TEXT: u8 = 5;
const BINARY: u8 = 6;
const TIMESTAMP: u8 = 7;
const LIST: u8 = 8;
const TABLE: u8 = 9;

impl Headers {
    /// The most bytes that the stored form may have.
    pub const MOST_BYTES: usize = 64 * 1024;
    /// How deep lists and tables may stand in each other.
    pub const MOST_NESTED: usize = 16;

    /// Writes headers down. `None` when there is none.
    ///
    /// `Invalid` when they are larger than [`Headers::MOST_BYTES`] or nested deeper than [`Headers::MOST_NESTED`].
    pub fn of(map: &HeaderMap) -> Result<Option<Self>> {
        if map.properties.is_empty() && map.headers.is_empty() {
            return Ok(None);
        }
        let mut out = vec![VERSION];
        put_length(&mut out, map.properties.len());
        for (property, value) in &map.properties {
            out.push(*property as u8);
            put_value(&mut out, value, 0)?;
        }
        put_table(&mut out, &map.headers, 0)?;
        if out.len() > Self::MOST_BYTES {
            return Err(Error::invalid("the headers of a message are too large"));
        }
        Ok(Some(Self(out.into())))
    }

    /// What they say.
    pub fn read(&self) -> HeaderMap {
        // Only bytes that can be read become `Headers`.
        read_map(&mut self.0.clone()).unwrap_or_default()
    }

    /// The stored form.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// Takes back what a store kept of [`Headers::as_bytes`]. `None` for bytes that do not come from there.
    pub fn from_bytes(bytes: Bytes) -> Option<Self> {
        if bytes.len() > Self::MOST_BYTES {
            return None;
        }
        let map = read_map(&mut bytes.clone())?;
        let canonical = Self::of(&map).ok()??;
        (canonical.0 == bytes).then_some(Self(bytes))
    }
}

fn put_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_table(out: &mut Vec<u8>, table: &BTreeMap<String, HeaderValue>, depth: usize) -> Result<()> {
    put_length(out, table.len());
    for (name, value) in table {
        put_bytes(out, name.as_bytes());
        put_value(out, value, depth)?;
    }
    Ok(())
}

fn put_value(out: &mut Vec<u8>, value: &HeaderValue, depth: usize) -> Result<()> {
    if depth > Headers::MOST_NESTED {
        return Err(Error::invalid(
            "the headers of a message are nested too deeply",
        ));
    }
    match value {
        HeaderValue::Null => out.push(NULL),
        HeaderValue::Bool(value) => out.push(if *value { TRUE } else { FALSE }),
        HeaderValue::Integer(number) => {
            out.push(INTEGER);
            out.put_i64(*number);
        }
        HeaderValue::Float(number) => {
            out.push(FLOAT);
            out.put_u64(number.to_bits());
        }
        HeaderValue::Text(text) => {
            out.push(TEXT);
            put_bytes(out, text.as_bytes());
        }
        HeaderValue::Binary(bytes) => {
            out.push(BINARY);
            put_bytes(out, bytes);
        }
        HeaderValue::Timestamp(seconds) => {
            out.push(TIMESTAMP);
            out.put_u64(*seconds);
        }
        HeaderValue::List(values) => {
            out.push(LIST);
            put_length(out, values.len());
            for value in values {
                put_value(out, value, depth + 1)?;
            }
        }
        HeaderValue::Table(table) => {
            out.push(TABLE);
            put_table(out, table, depth + 1)?;
        }
    }
    Ok(())
}

fn read_map(bytes: &mut Bytes) -> Option<HeaderMap> {
    if bytes.try_get_u8().ok()? != VERSION {
        return None;
    }
    let mut map = HeaderMap::default();
    for _ in 0..read_length(bytes)? {
        let number = bytes.try_get_u8().ok()?;
        let property = *Property::ALL.iter().find(|it| **it as u8 == number)?;
        map.properties.insert(property, read_value(bytes, 0)?);
    }
    map.headers = read_table(bytes, 0)?;
    bytes.is_empty().then_some(map)
}

fn read_length(bytes: &mut Bytes) -> Option<usize> {
    let (mut length, mut shift) = (0, 0);
    loop {
        let byte = bytes.try_get_u8().ok()?;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(length);
        }
        shift += 7;
        if shift > 21 {
            return None;
        }
    }
}

fn read_bytes(bytes: &mut Bytes) -> Option<Bytes> {
    let length = read_length(bytes)?;
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

fn read_text(bytes: &mut Bytes) -> Option<String> {
    String::from_utf8(read_bytes(bytes)?.into()).ok()
}

fn read_table(bytes: &mut Bytes, depth: usize) -> Option<BTreeMap<String, HeaderValue>> {
    let mut table = BTreeMap::new();
    for _ in 0..read_length(bytes)? {
        let name = read_text(bytes)?;
        table.insert(name, read_value(bytes, depth)?);
    }
    Some(table)
}

fn read_value(bytes: &mut Bytes, depth: usize) -> Option<HeaderValue> {
    if depth > Headers::MOST_NESTED {
        return None;
    }
    Some(match bytes.try_get_u8().ok()? {
        NULL => HeaderValue::Null,
        FALSE => HeaderValue::Bool(false),
        TRUE => HeaderValue::Bool(true),
        INTEGER => HeaderValue::Integer(bytes.try_get_i64().ok()?),
        FLOAT => HeaderValue::Float(f64::from_bits(bytes.try_get_u64().ok()?)),
        TEXT => HeaderValue::Text(read_text(bytes)?),
        BINARY => HeaderValue::Binary(read_bytes(bytes)?),
        TIMESTAMP => HeaderValue::Timestamp(bytes.try_get_u64().ok()?),
        LIST => {
            let mut values = Vec::new();
            for _ in 0..read_length(bytes)? {
                values.push(read_value(bytes, depth + 1)?);
            }
            HeaderValue::List(values)
        }
        TABLE => HeaderValue::Table(read_table(bytes, depth + 1)?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(&str, HeaderValue)]) -> BTreeMap<String, HeaderValue> {
        let entries = entries.iter().cloned();
        entries.map(|(name, value)| (name.into(), value)).collect()
    }

    fn everything() -> HeaderMap {
        let inner = table(&[
            ("ü", HeaderValue::Text("ä".repeat(200))),
            ("", HeaderValue::Null),
        ]);
        HeaderMap {
            properties: Property::ALL
                .iter()
                .map(|it| (*it, HeaderValue::Text(it.name().into())))
                .collect(),
            headers: table(&[
                ("no", HeaderValue::Bool(false)),
                ("yes", HeaderValue::Bool(true)),
                ("least", HeaderValue::Integer(i64::MIN)),
                ("nan", HeaderValue::Float(f64::NAN)),
                (
                    "bytes",
                    HeaderValue::Binary(Bytes::from_static(b"\x00\xff")),
                ),
                ("then", HeaderValue::Timestamp(u64::MAX)),
                ("table", HeaderValue::Table(inner.clone())),
                (
                    "list",
                    HeaderValue::List(vec![HeaderValue::Table(inner), HeaderValue::List(vec![])]),
                ),
            ]),
        }
    }

    #[test]
    fn headers_are_read_as_they_were_written() {
        let headers = Headers::of(&everything()).unwrap().expect("there are some");
        assert_eq!(headers.read(), everything());
        let kept = Headers::from_bytes(headers.as_bytes().clone());
        assert_eq!(kept, Some(headers));
        assert_eq!(Headers::of(&HeaderMap::default()).unwrap(), None);
    }

    #[test]
    fn properties_are_found_by_their_names() {
        for property in Property::ALL {
            assert_eq!(Property::parse(property.name()), Some(*property));
        }
        assert_eq!(Property::parse("colour"), None);
    }

    #[test]
    fn headers_are_bounded_in_size_and_depth() {
        let of = |value| {
            Headers::of(&HeaderMap {
                headers: table(&[("x", value)]),
                ..HeaderMap::default()
            })
        };
        let size = Headers::MOST_BYTES;
        assert!(of(HeaderValue::Text("x".repeat(size - 16))).is_ok());
        assert!(of(HeaderValue::Text("x".repeat(size))).is_err());
        let nested =
            |depth| (0..depth).fold(HeaderValue::Null, |inner, _| HeaderValue::List(vec![inner]));
        assert!(of(nested(Headers::MOST_NESTED)).is_ok());
        assert!(of(nested(Headers::MOST_NESTED + 1)).is_err());
    }

    #[test]
    fn broken_bytes_are_no_headers_and_no_panic() {
        let whole = Headers::of(&everything()).unwrap().unwrap().0;
        for length in 0..whole.len() {
            assert_eq!(Headers::from_bytes(whole.slice(..length)), None, "{length}");
        }
        for at in 0..whole.len() {
            for byte in [0, 1, 7, 9, 0x7f, 0x80, 0xff] {
                let mut broken = whole.to_vec();
                broken[at] = byte;
                if let Some(headers) = Headers::from_bytes(broken.into()) {
                    headers.read();
                }
            }
        }
    }
}
