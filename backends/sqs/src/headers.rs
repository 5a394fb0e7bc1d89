//! Headers and properties of a message as attributes of SQS, in both directions.
//!
//! | in the contract | in SQS |
//! |---|---|
//! | a header that is text, a whole number, a number of usual size, or bytes | an attribute `String`, `Number` or `Binary` of that name |
//! | a property that is text | the same; the attribute `isimud` lists which are properties |
//! | whatever SQS does not take, and what comes after the ninth | the field `headers` of the attribute `isimud`, in the contract's stored form and base64 |
//!
//! SQS takes ten attributes, of which `isimud` is one; names of letters, digits, `_`, `-` and `.`; and no empty values.
//! Properties come first, then headers by name. A type that the value does not tell (`Number.int`, or a `Number` of forty
//! digits, which is a text here) stands in the header `isimud-attribute-types`, and goes back with its attribute. The group of a message in a FIFO queue is the pool's
//! to choose.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_sqs::primitives::Blob;
use aws_sdk_sqs::types::MessageAttributeValue;
use bytes::Bytes;
use isimud_contract::{HeaderMap, HeaderValue, Headers, Property};

/// Attributes that a message may have beside the service's own.
const MAX_ATTRIBUTES: usize = 9;

/// The header with the labels of attributes' types.
const TYPES: &str = "isimud-attribute-types";

/// The header that names what a producer's message had and nobody can keep.
const LEFT_OUT: &str = "isimud-left-out";

/// An attribute ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attribute {
    pub(crate) name: String,
    kind: String,
    value: Data,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Data {
    Text(String),
    Bytes(Bytes),
}

impl Attribute {
    /// What it counts against the limits, in bytes.
    pub(crate) fn weight(&self) -> usize {
        let value = match &self.value {
            Data::Text(text) => text.len(),
            Data::Bytes(bytes) => bytes.len(),
        };
        self.name.len() + self.kind.len() + value
    }

    /// The attribute as the client library wants it. `None` never happens: all of it is there.
    pub(crate) fn value(&self) -> Option<MessageAttributeValue> {
        let value = MessageAttributeValue::builder().data_type(&self.kind);
        let value = match &self.value {
            Data::Text(text) => value.string_value(text),
            Data::Bytes(bytes) => value.binary_value(Blob::new(bytes.to_vec())),
        };
        value.build().ok()
    }
}

/// Headers in SQS's terms.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) attributes: Vec<Attribute>,
    /// Names of those attributes that are properties.
    pub(crate) properties: Vec<String>,
    /// What SQS does not take.
    pub(crate) rest: Option<Headers>,
}

/// Writes headers for SQS.
pub(crate) fn write(headers: &Headers) -> Written {
    let mut map = headers.read();
    let labels = match map.headers.remove(TYPES) {
        Some(HeaderValue::Table(labels)) => labels,
        Some(other) => [(TYPES.to_owned(), other)].into(),
        None => BTreeMap::new(),
    };
    let (mut written, mut rest) = (Written::default(), HeaderMap::default());
    let mut unused = labels.clone();
    for (property, value) in map.properties {
        let name = property.name();
        let is_free = !map.headers.contains_key(name) && written.attributes.len() < MAX_ATTRIBUTES;
        match attribute(name, &value, None).filter(|_| is_free && !is_told_to_sqs(property)) {
            Some(attribute) => {
                written.properties.push(name.to_owned());
                written.attributes.push(attribute);
            }
            None => {
                rest.properties.insert(property, value);
            }
        }
    }
    for (name, value) in map.headers {
        let is_free = written.attributes.len() < MAX_ATTRIBUTES;
        match attribute(&name, &value, labels.get(&name)).filter(|_| is_free) {
            Some(attribute) => {
                unused.remove(&name);
                written.attributes.push(attribute);
            }
            None => {
                rest.headers.insert(name, value);
            }
        }
    }
    if !unused.is_empty() {
        rest.headers
            .insert(TYPES.to_owned(), HeaderValue::Table(unused));
    }
    // Part of what was within the bounds is within them.
    written.rest = Headers::of(&rest).ok().flatten();
    written
}

/// Whether a property is one that SQS is told in a request, and not in an attribute.
fn is_told_to_sqs(property: Property) -> bool {
    matches!(property, Property::GroupId | Property::DeduplicationId)
}

/// A value as an attribute; `None` for one that SQS does not take, or under a name that it does not take.
fn attribute(name: &str, value: &HeaderValue, label: Option<&HeaderValue>) -> Option<Attribute> {
    let (kind, value) = match value {
        HeaderValue::Text(text)
            if !text.is_empty() && text.chars().all(crate::envelope::is_carried) =>
        {
            ("String", Data::Text(text.clone()))
        }
        HeaderValue::Integer(number) => ("Number", Data::Text(number.to_string())),
        HeaderValue::Float(number) if is_usual(*number) => {
            ("Number", Data::Text(format!("{number:?}")))
        }
        HeaderValue::Binary(bytes) if !bytes.is_empty() => ("Binary", Data::Bytes(bytes.clone())),
        _ => return None,
    };
    let is_number = |label: &str| match &value {
        Data::Text(text) => is_labelled(label, "Number") && text.parse::<f64>().is_ok(),
        Data::Bytes(_) => false,
    };
    let labelled = match label {
        Some(HeaderValue::Text(label)) if is_labelled(label, kind) || is_number(label) => {
            label.clone()
        }
        _ => kind.to_owned(),
    };
    is_name(name).then(|| Attribute {
        name: name.to_owned(),
        kind: labelled,
        value,
    })
}

/// Whether a number has few digits before and behind the point, whatever writes it.
fn is_usual(number: f64) -> bool {
    number == 0.0 && number.is_sign_positive() || (1e-5..1e15).contains(&number.abs())
}

/// Whether a label is that of a type of this kind.
fn is_labelled(label: &str, kind: &str) -> bool {
    let rest = label.strip_prefix(kind);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        && label.len() <= 256
        && label.chars().all(crate::envelope::is_carried)
}

/// Whether SQS takes the name ("Amazon SQS message attributes").
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let lower = name.to_ascii_lowercase();
    (1..=256).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with('.')
        && !name.ends_with('.')
        && !name.contains("..")
        && !["aws.", "amazon."]
            .iter()
            .any(|start| lower.starts_with(start))
        && !lower.starts_with("isimud")
}

/// Reads what a message says beside its body, if anything: its attributes but for our own, which of them are properties,
/// what SQS itself was told by a native producer, and what SQS did not take.
pub(crate) fn read(
    attributes: Option<&HashMap<String, MessageAttributeValue>>,
    properties: &[String],
    given: &[(Property, String)],
    rest: Option<Headers>,
) -> Option<Headers> {
    let mut map = rest.map(|rest| rest.read()).unwrap_or_default();
    for (property, text) in given {
        let text = HeaderValue::Text(text.clone());
        map.properties.insert(*property, text);
    }
    let mut labels = match map.headers.remove(TYPES) {
        Some(HeaderValue::Table(labels)) => labels,
        _ => BTreeMap::new(),
    };
    for (name, value) in attributes.into_iter().flatten() {
        if name.eq_ignore_ascii_case(crate::envelope::ATTRIBUTE) {
            continue;
        }
        let kind = value.data_type();
        let Some(said) = read_value(value) else {
            continue;
        };
        let is_odd = kind.starts_with("Number") && matches!(said, HeaderValue::Text(_));
        if kind.contains('.') || is_odd {
            labels.insert(name.clone(), HeaderValue::Text(kind.to_owned()));
        }
        match Property::parse(name).filter(|_| properties.contains(name)) {
            Some(property) => {
                map.properties.insert(property, said);
            }
            None => {
                map.headers.insert(name.clone(), said);
            }
        }
    }
    if !labels.is_empty() {
        map.headers
            .insert(TYPES.to_owned(), HeaderValue::Table(labels));
    }
    Headers::of(&map).unwrap_or_else(|_| within_bounds(map))
}

fn read_value(value: &MessageAttributeValue) -> Option<HeaderValue> {
    if let Some(bytes) = value.binary_value() {
        return Some(HeaderValue::Binary(Bytes::copy_from_slice(bytes.as_ref())));
    }
    let text = value.string_value()?;
    if !value.data_type().starts_with("Number") {
        return Some(HeaderValue::Text(text.to_owned()));
    }
    // A number that would be written otherwise stays as it is written.
    let whole = text.parse().ok().filter(|it: &i64| it.to_string() == text);
    let part = text
        .parse()
        .ok()
        .filter(|it: &f64| is_usual(*it) && format!("{it:?}") == text);
    Some(match (whole, part) {
        (Some(number), _) => HeaderValue::Integer(number),
        (None, Some(number)) => HeaderValue::Float(number),
        (None, None) => HeaderValue::Text(text.to_owned()),
    })
}

/// As much as the contract takes: what is small goes first.
fn within_bounds(mut map: HeaderMap) -> Option<Headers> {
    let size = |value: &HeaderValue| match value {
        HeaderValue::Text(text) => text.len(),
        HeaderValue::Binary(bytes) => bytes.len(),
        _ => 0,
    };
    let mut by_size: Vec<(usize, String)> = map
        .headers
        .iter()
        .map(|(name, value)| (size(value), name.clone()))
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

#[cfg(test)]
mod tests {
    use super::*;

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

    fn there_and_back(map: &HeaderMap) -> Written {
        let headers = Headers::of(map).expect("within bounds").expect("some");
        let written = write(&headers);
        assert!(written.attributes.len() <= MAX_ATTRIBUTES);
        let attributes: HashMap<String, MessageAttributeValue> = written
            .attributes
            .iter()
            .map(|it| (it.name.clone(), it.value().expect("complete")))
            .collect();
        let rest = written.rest.clone();
        let read = read(Some(&attributes), &written.properties, &[], rest);
        assert_eq!(read, Some(headers));
        written
    }

    fn names(written: &Written) -> Vec<&str> {
        written
            .attributes
            .iter()
            .map(|it| it.name.as_str())
            .collect()
    }

    #[test]
    fn what_sqs_takes_are_attributes() {
        let written = there_and_back(&map(
            &[
                (Property::CorrelationId, text("c")),
                (Property::ReplyTo, text("r")),
            ],
            &[
                ("task", text("proj.add")),
                ("retries", HeaderValue::Integer(-3)),
                ("share", HeaderValue::Float(2.0)),
                (
                    "bytes",
                    HeaderValue::Binary(Bytes::from_static(b"\x00\xff")),
                ),
            ],
        ));
        let expected = [
            "correlation_id",
            "reply_to",
            "bytes",
            "retries",
            "share",
            "task",
        ];
        assert_eq!(names(&written), expected);
        assert_eq!(written.properties, ["correlation_id", "reply_to"]);
        assert_eq!(written.rest, None);
        let kinds: Vec<&str> = written
            .attributes
            .iter()
            .map(|it| it.kind.as_str())
            .collect();
        assert_eq!(
            kinds,
            ["String", "String", "Binary", "Number", "Number", "String"]
        );
    }

    #[test]
    fn what_sqs_does_not_take_is_kept_beside() {
        let written = there_and_back(&map(
            &[
                (Property::Priority, HeaderValue::Integer(5)),
                (Property::GroupId, text("g")),
                (Property::Type, text("")),
                (Property::ReplyTo, text("the property")),
            ],
            &[
                ("reply_to", text("the header")),
                ("two words", text("x")),
                ("AWS.x", text("x")),
                ("a..b", text("x")),
                ("isimud", text("x")),
                ("none", HeaderValue::Null),
                ("yes", HeaderValue::Bool(true)),
                ("empty", text("")),
                ("odd", text("\u{1}")),
                ("huge", HeaderValue::Float(1e300)),
                ("nan", HeaderValue::Float(f64::NAN)),
                ("minus", HeaderValue::Float(-0.0)),
                ("list", HeaderValue::List(vec![text("x")])),
            ],
        ));
        assert_eq!(names(&written), ["priority", "reply_to"]);
        assert_eq!(written.properties, ["priority"]);
    }

    #[test]
    fn beyond_nine_attributes_the_others_are_kept_beside() {
        let many: Vec<(String, HeaderValue)> =
            (0..30).map(|at| (format!("h{at:02}"), text("x"))).collect();
        let many: Vec<(&str, HeaderValue)> = many
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone()))
            .collect();
        let written = there_and_back(&map(&[(Property::Type, text("t"))], &many));
        assert_eq!(written.attributes.len(), MAX_ATTRIBUTES);
        assert_eq!(names(&written)[..2], ["type", "h00"]);
    }

    #[test]
    fn what_natives_say_is_read_as_they_say_it() {
        let value = |kind: &str, text: &str| {
            MessageAttributeValue::builder()
                .data_type(kind)
                .string_value(text)
                .build()
                .expect("complete")
        };
        let attributes: HashMap<String, MessageAttributeValue> = [
            ("isimud", value("String", "{}")),
            ("whole", value("Number", "12")),
            ("part", value("Number", "1.5")),
            ("odd", value("Number", "1.50")),
            ("long", value("Number", "12345678901234567890123")),
            ("int", value("Number.int", "7")),
            ("reply_to", value("String", "a header")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let headers = read(Some(&attributes), &[], &[], None).expect("some");
        let labels = [("int", "Number.int"), ("long", "Number"), ("odd", "Number")]
            .map(|(name, kind)| (name.to_owned(), text(kind)))
            .into();
        let expected = map(
            &[],
            &[
                ("whole", HeaderValue::Integer(12)),
                ("part", HeaderValue::Float(1.5)),
                ("odd", text("1.50")),
                ("long", text("12345678901234567890123")),
                ("int", HeaderValue::Integer(7)),
                (TYPES, HeaderValue::Table(labels)),
                ("reply_to", text("a header")),
            ],
        );
        assert_eq!(headers.read(), expected);
        let back = there_and_back(&expected).attributes;
        let kind = |name: &str| {
            back.iter()
                .find(|it| it.name == name)
                .map(|it| it.kind.as_str())
        };
        assert_eq!(kind("int"), Some("Number.int"));
        assert_eq!(kind("odd"), Some("Number"));
        assert_eq!(read(None, &[], &[], None), None);
    }
}
