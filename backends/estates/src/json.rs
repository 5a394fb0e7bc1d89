//! Values as JSON text, in the form in which Zaqar shows them (spec: http.md 8: UTF-8, `", "` and `": "`).
//!
//! What JSON cannot say is replaced and remembered: NaN and the infinities by `null`, as JSON writers elsewhere have it
//! (Zaqar wrote them bare, and no strict reader took them: quirk Q-HTTP-3); bytes by their base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rmpv::Value;

/// JSON text that is being written.
#[derive(Debug, Default)]
pub(crate) struct Text {
    pub(crate) json: String,
    /// Something was replaced.
    pub(crate) altered: bool,
}

/// Reads MessagePack as JSON text. `None` when the bytes are something else.
pub(crate) fn from_msgpack(bytes: &[u8]) -> Option<Text> {
    let value = read(bytes)?;
    let mut text = Text::default();
    text.value(&value);
    Some(text)
}

/// Reads one MessagePack value and nothing behind it, nested no deeper than a thousand levels.
fn read(mut bytes: &[u8]) -> Option<Value> {
    // The one byte that begins nothing, which the decoder takes for nil.
    if bytes.first() == Some(&0xc1) {
        return None;
    }
    let value = rmpv::decode::read_value(&mut bytes).ok()?;
    bytes.is_empty().then_some(value)
}

/// Whether MessagePack is of bytes, and not of a text or of another value.
pub(crate) fn is_bytes(stored: &[u8]) -> bool {
    matches!(stored.first(), Some(0xc4..=0xc6))
}

/// The bytes that MessagePack is of.
pub(crate) fn bytes(stored: &[u8]) -> Option<Vec<u8>> {
    match read(stored)? {
        Value::Binary(bytes) => Some(bytes),
        _ => None,
    }
}

/// Writes a string with its quotes.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Writes bytes as a string of base64.
pub(crate) fn base64(bytes: &[u8]) -> String {
    quoted(&STANDARD.encode(bytes))
}

/// Writes a float; `None` for what JSON has no number for.
pub(crate) fn float(number: f64) -> Option<String> {
    number.is_finite().then(|| format!("{number:?}"))
}

impl Text {
    fn value(&mut self, value: &Value) {
        match value {
            Value::Nil => self.json.push_str("null"),
            Value::Boolean(truth) => self.json.push_str(if *truth { "true" } else { "false" }),
            Value::Integer(number) => self.json.push_str(&number.to_string()),
            Value::F32(number) => self.number(f64::from(*number)),
            Value::F64(number) => self.number(*number),
            Value::String(text) => match text.as_str() {
                Some(text) => self.json.push_str(&quoted(text)),
                None => {
                    self.altered = true;
                    let text = String::from_utf8_lossy(text.as_bytes());
                    self.json.push_str(&quoted(&text));
                }
            },
            Value::Binary(bytes) | Value::Ext(_, bytes) => {
                self.altered = true;
                self.json.push_str(&base64(bytes));
            }
            Value::Array(items) => {
                self.json.push('[');
                for (at, item) in items.iter().enumerate() {
                    self.json.push_str(if at == 0 { "" } else { ", " });
                    self.value(item);
                }
                self.json.push(']');
            }
            Value::Map(members) => {
                self.json.push('{');
                for (at, (key, value)) in members.iter().enumerate() {
                    self.json.push_str(if at == 0 { "" } else { ", " });
                    self.key(key);
                    self.json.push_str(": ");
                    self.value(value);
                }
                self.json.push('}');
            }
        }
    }

    fn number(&mut self, number: f64) {
        match float(number) {
            Some(text) => self.json.push_str(&text),
            None => {
                self.altered = true;
                self.json.push_str("null");
            }
        }
    }

    /// Writes a key. Zaqar's are strings; any other is its text.
    fn key(&mut self, key: &Value) {
        if key.as_str().is_some() {
            return self.value(key);
        }
        let mut inner = Self::default();
        inner.value(key);
        self.altered = true;
        self.json.push_str(&quoted(inner.json.trim_matches('"')));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &Value) -> (String, bool) {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, value).expect("it can be written");
        let text = from_msgpack(&bytes).expect("it can be read");
        (text.json, text.altered)
    }

    #[test]
    fn the_body_of_the_specification_is_read() {
        let bytes = [
            0x81, 0xa1, 0x6b, 0x96, 0xa1, 0x76, 0x01, 0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0, 0xc0,
            0xc3, 0xa2, 0xc3, 0xa9,
        ];
        let text = from_msgpack(&bytes).expect("MessagePack");
        assert_eq!(text.json, r#"{"k": ["v", 1, 1.5, null, true, "é"]}"#);
        assert!(!text.altered);
    }

    #[test]
    fn what_json_can_say_is_said() {
        for (value, json) in [
            (Value::Nil, "null"),
            (Value::from(u64::MAX), "18446744073709551615"),
            (Value::from(i64::MIN), "-9223372036854775808"),
            (Value::from(1.0), "1.0"),
            (Value::from(-0.0), "-0.0"),
            (Value::from(1e300), "1e300"),
            (Value::from("a\"\\\n\u{1}é🦀"), r#""a\"\\\n\u0001é🦀""#),
            (Value::Array(vec![]), "[]"),
            (Value::Map(vec![]), "{}"),
            (
                Value::Map(vec![(Value::from(""), Value::from(false))]),
                r#"{"": false}"#,
            ),
        ] {
            assert_eq!(shown(&value), (json.to_owned(), false));
        }
    }

    #[test]
    fn what_it_cannot_say_is_replaced_and_told() {
        for (value, json) in [
            (Value::from(f64::NAN), "null"),
            (Value::Array(vec![Value::from(f64::INFINITY)]), "[null]"),
            (Value::Binary(vec![0, 255]), r#""AP8=""#),
            (
                Value::Map(vec![(Value::from(7), Value::from(8))]),
                r#"{"7": 8}"#,
            ),
        ] {
            assert_eq!(shown(&value), (json.to_owned(), true));
        }
    }

    #[test]
    fn broken_bytes_are_no_value() {
        for bytes in [
            &b""[..],
            b"\xc1",
            b"\x01\x01",
            b"\x81\xa1k",
            b"\xdc\xff\xff",
            b"\xa5abc",
        ] {
            assert!(from_msgpack(bytes).is_none());
        }
        // Deeper than anything that Zaqar's JSON reader takes, and no overflow.
        assert!(from_msgpack(&[0x91; 100_000]).is_none());
    }
}
