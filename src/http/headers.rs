//! Headers and properties of messages as JSON: shown and taken only where a client asks for them, as clients build their
//! objects from whatever members there are.
//!
//! | a value | in JSON |
//! |---|---|
//! | null, truth, whole number (64 bits), number, text, list, table | the same |
//! | bytes | `{"$binary": "base64"}` |
//! | a moment, in whole seconds since 1970 | `{"$timestamp": 1700000000}` |
//! | a number that JSON does not have | `{"$float": "NaN"}`, `"Infinity"`, `"-Infinity"` |
//! | a table of one of these names alone | `{"$table": {"$binary": 1}}` |
//!
//! Properties are what brokers know by names of their own: texts, but for `priority` (0 to 255) and `timestamp` (seconds).

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use isimud_contract::{HeaderMap, HeaderValue, Headers, Message, Property};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::json;
use super::problem::Problem;

/// Headers that one message may have.
const MAX_HEADERS: usize = 64;

/// Bytes that the name of a header, and the text of a property, may have: what brokers take.
const MAX_NAME_BYTES: usize = 255;

/// What names of the service's own begin with.
const RESERVED: &str = "isimud";

const BINARY: &str = "$binary";
const TIMESTAMP: &str = "$timestamp";
const FLOAT: &str = "$float";
const TABLE: &str = "$table";

/// Reads the members `headers` and `properties` of a message that is posted.
pub(crate) fn read(
    headers: Option<&RawValue>,
    properties: Option<&RawValue>,
) -> Result<Option<Headers>, Problem> {
    if headers.is_none() && properties.is_none() {
        return Ok(None);
    }
    let mut map = HeaderMap::default();
    for (name, value) in object(headers, "headers")? {
        if name.is_empty() || name.len() > MAX_NAME_BYTES || is_reserved(&name) {
            return Err(Problem::body(format!(
                "The name of a header has 1 to {MAX_NAME_BYTES} bytes, and does not begin with \"{RESERVED}\"."
            )));
        }
        map.headers.insert(name, parsed(value, 0)?);
    }
    if map.headers.len() > MAX_HEADERS {
        let sentence = format!("A message may have at most {MAX_HEADERS} headers.");
        return Err(Problem::body(sentence));
    }
    for (name, value) in object(properties, "properties")? {
        let property = Property::parse(&name).filter(|it| *it != Property::UserId);
        let property = property.ok_or_else(|| {
            let known = Property::ALL.iter().filter(|it| **it != Property::UserId);
            let known: Vec<&str> = known.map(|it| it.name()).collect();
            Problem::body(format!(
                "The properties that a message may have are {}.",
                known.join(", ")
            ))
        })?;
        map.properties.insert(property, said(property, value)?);
    }
    Headers::of(&map).map_err(|_| beyond_bounds())
}

fn object(raw: Option<&RawValue>, name: &str) -> Result<Map<String, Value>, Problem> {
    let Some(raw) = raw else {
        return Ok(Map::new());
    };
    match json::parse(raw.get().as_bytes()) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(Problem::body(format!(
            "The value of the \"{name}\" field must be an object."
        ))),
    }
}

fn beyond_bounds() -> Problem {
    Problem::body(format!(
        "The headers of a message may have at most {} bytes, and be nested at most {} deep.",
        Headers::MOST_BYTES,
        Headers::MOST_NESTED
    ))
}

fn is_reserved(name: &str) -> bool {
    name.get(..RESERVED.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(RESERVED))
}

fn said(property: Property, value: Value) -> Result<HeaderValue, Problem> {
    let number = value.as_u64();
    match (property, value) {
        (Property::Priority, _) if number.is_some_and(|it| it <= 255) => {
            Ok(HeaderValue::Integer(number.unwrap_or(0) as i64))
        }
        (Property::Timestamp, _) if number.is_some_and(|it| i64::try_from(it).is_ok()) => {
            Ok(HeaderValue::Timestamp(number.unwrap_or(0)))
        }
        (Property::Priority, _) => Err(Problem::body("A priority is a number from 0 to 255.")),
        (Property::Timestamp, _) => {
            Err(Problem::body("A timestamp is in whole seconds since 1970."))
        }
        (_, Value::String(text)) if text.len() <= MAX_NAME_BYTES => Ok(HeaderValue::Text(text)),
        (property, _) => Err(Problem::body(format!(
            "The property {property} is a text of at most {MAX_NAME_BYTES} bytes."
        ))),
    }
}

fn parsed(value: Value, depth: usize) -> Result<HeaderValue, Problem> {
    if depth > Headers::MOST_NESTED {
        return Err(beyond_bounds());
    }
    Ok(match value {
        Value::Null => HeaderValue::Null,
        Value::Bool(truth) => HeaderValue::Bool(truth),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => HeaderValue::Integer(number),
            (None, Some(number)) => HeaderValue::Float(number),
            (None, None) => return Err(beyond_bounds()),
        },
        Value::String(text) => HeaderValue::Text(text),
        Value::Array(values) => {
            let values = values.into_iter().map(|value| parsed(value, depth + 1));
            HeaderValue::List(values.collect::<Result<_, _>>()?)
        }
        Value::Object(object) => match marked(&object) {
            Some((mark, value)) => unmarked(mark, value, depth)?,
            None => table(object, depth)?,
        },
    })
}

fn table(object: Map<String, Value>, depth: usize) -> Result<HeaderValue, Problem> {
    let mut table = BTreeMap::new();
    for (name, value) in object {
        if name.len() > MAX_NAME_BYTES {
            return Err(Problem::body(format!(
                "A name in a header has at most {MAX_NAME_BYTES} bytes."
            )));
        }
        table.insert(name, parsed(value, depth + 1)?);
    }
    Ok(HeaderValue::Table(table))
}

/// The mark of a value that JSON has no form for.
fn marked(object: &Map<String, Value>) -> Option<(&'static str, &Value)> {
    let (name, value) = object.iter().next().filter(|_| object.len() == 1)?;
    let mark = [BINARY, TIMESTAMP, FLOAT, TABLE]
        .into_iter()
        .find(|mark| mark == name)?;
    Some((mark, value))
}

fn unmarked(mark: &'static str, value: &Value, depth: usize) -> Result<HeaderValue, Problem> {
    let understood = match (mark, value) {
        (BINARY, Value::String(text)) => STANDARD
            .decode(text)
            .ok()
            .map(|bytes| HeaderValue::Binary(bytes.into())),
        (TIMESTAMP, value) => value.as_u64().map(HeaderValue::Timestamp),
        (FLOAT, Value::String(text)) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        }
        .map(HeaderValue::Float),
        (TABLE, Value::Object(object)) => Some(table(object.clone(), depth)?),
        _ => None,
    };
    understood.ok_or_else(|| {
        Problem::body(format!(
            "A header has a \"{mark}\" that cannot be understood."
        ))
    })
}

/// The members `headers` and `properties` of a message, for a document; both are there, also empty.
pub(crate) fn members(message: &Message) -> String {
    let map = message.headers.as_ref().map(Headers::read);
    let HeaderMap {
        properties,
        headers,
    } = map.unwrap_or_default();
    let headers: Map<String, Value> = headers
        .into_iter()
        .map(|(name, value)| (name, shown(value)))
        .collect();
    let properties: Map<String, Value> = properties
        .into_iter()
        .map(|(property, value)| match value {
            HeaderValue::Timestamp(seconds) => (property.name().to_owned(), seconds.into()),
            value => (property.name().to_owned(), shown(value)),
        })
        .collect();
    let text = |object: Map<String, Value>| {
        String::from_utf8(json::to_vec(&object)).unwrap_or_else(|_| "{}".to_owned())
    };
    format!(
        "\"headers\": {}, \"properties\": {}",
        text(headers),
        text(properties)
    )
}

fn shown(value: HeaderValue) -> Value {
    match value {
        HeaderValue::Null => Value::Null,
        HeaderValue::Bool(truth) => truth.into(),
        HeaderValue::Integer(number) => number.into(),
        HeaderValue::Float(number) if number.is_finite() => number.into(),
        HeaderValue::Float(number) => {
            let name = if number.is_nan() {
                "NaN"
            } else if number > 0.0 {
                "Infinity"
            } else {
                "-Infinity"
            };
            json!({FLOAT: name})
        }
        HeaderValue::Text(text) => text.into(),
        HeaderValue::Binary(bytes) => json!({BINARY: STANDARD.encode(bytes)}),
        HeaderValue::Timestamp(seconds) => json!({TIMESTAMP: seconds}),
        HeaderValue::List(values) => values.into_iter().map(shown).collect(),
        HeaderValue::Table(table) => {
            let object: Map<String, Value> = table
                .into_iter()
                .map(|(name, value)| (name, shown(value)))
                .collect();
            if marked(&object).is_some() {
                json!({TABLE: object})
            } else {
                object.into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use isimud_contract::{ClientId, MessageId};
    use uuid::Uuid;

    use super::*;

    fn raw(value: &Value) -> Box<RawValue> {
        RawValue::from_string(value.to_string()).expect("JSON")
    }

    fn read_of(headers: &Value, properties: &Value) -> Result<Option<Headers>, Problem> {
        read(Some(&raw(headers)), Some(&raw(properties)))
    }

    fn members_of(headers: Option<Headers>) -> Value {
        let message = Message {
            headers,
            ..Message::new(
                MessageId(Uuid::nil()),
                ClientId::Uuid(Uuid::nil()),
                Duration::from_secs(60),
                "1",
            )
        };
        serde_json::from_str(&format!("{{{}}}", members(&message))).expect("JSON")
    }

    #[test]
    fn headers_are_shown_as_posted() {
        let headers = json!({
            "task": "proj.add", "retries": 0, "eta": null, "yes": true, "share": 1.5, "whole": 2.0,
            "least": i64::MIN, "bytes": {"$binary": "AP8="}, "then": {"$timestamp": 1_700_000_000_u64},
            "none": {"$float": "NaN"}, "all": {"$float": "-Infinity"},
            "nested": {"a": [1, {"b": {"$binary": ""}}], "é": {}},
            "tricky": {"$table": {"$binary": "AP8="}}, "dollars": {"$binary": 1, "x": 2},
        });
        let properties = json!({"correlation_id": "c", "reply_to": "r", "type": "t", "priority": 7,
            "timestamp": 1_700_000_000_u64, "content_type": "a/b", "message_id": "m"});
        let kept = read_of(&headers, &properties)
            .expect("right")
            .expect("some");
        assert_eq!(
            members_of(Some(kept)),
            json!({"headers": headers, "properties": properties})
        );
        assert_eq!(members_of(None), json!({"headers": {}, "properties": {}}));
    }

    #[test]
    fn empty_headers_and_properties_are_ignored() {
        assert_eq!(read(None, None).expect("right"), None);
        assert_eq!(read_of(&json!({}), &json!({})).expect("right"), None);
    }

    #[test]
    fn invalid_headers_are_refused() {
        let many: Map<String, Value> = (0..65).map(|at| (at.to_string(), at.into())).collect();
        let deep = (0..18).fold(json!(1), |inner, _| json!([inner]));
        for headers in [
            json!([]),
            json!("x"),
            json!(1),
            json!({"": 1}),
            json!({"n".repeat(256): 1}),
            json!({"isimud-id": 1}),
            json!({"ISIMUD": 1}),
            json!({"a": {"n".repeat(256): 1}}),
            json!({"a": {"$binary": "?"}}),
            json!({"a": {"$binary": 1}}),
            json!({"a": {"$timestamp": -1}}),
            json!({"a": {"$float": "1"}}),
            json!({"a": {"$table": 1}}),
            json!({"a": "x".repeat(Headers::MOST_BYTES)}),
            json!({"a": deep}),
            many.into(),
        ] {
            assert!(read_of(&headers, &json!({})).is_err(), "{headers}");
        }
        for properties in [
            json!([]),
            json!({"colour": "red"}),
            json!({"user_id": "root"}),
            json!({"priority": 256}),
            json!({"priority": "1"}),
            json!({"timestamp": -1}),
            json!({"type": 1}),
            json!({"reply_to": "r".repeat(256)}),
        ] {
            assert!(read_of(&json!({}), &properties).is_err(), "{properties}");
        }
    }
}
