//! MessagePack as JSON text.
//!
//! It is read without recursion, because whoever fills a Redis may nest as he likes: what the API takes is nested up to
//! a thousand levels, and what is nested deeper becomes a string of its JSON. The text is at most a few times as long as
//! the MessagePack; so a key that is itself a list or a map, which JSON has no way to say, is not written as JSON within
//! JSON, which would be longer with every level, but as the base64 of its bytes.

use crate::json::{Text, base64, float, quoted};

/// Levels of nesting that are followed. Python's MessagePack has 1024.
const DEEPEST: usize = 1 << 16;

/// Reads MessagePack as JSON text. `None` when the bytes are something else, or there are more behind the value.
pub(crate) fn from_msgpack(stored: &[u8]) -> Option<Text> {
    let mut reader = Reader(stored);
    let mut text = Text::default();
    let mut open: Vec<Open> = Vec::new();
    loop {
        match reader.token()? {
            Token::Array(count @ 1..) => {
                open.push(Open::new(count, false));
                text.json.push('[');
                continue_below(&open)?;
                continue;
            }
            Token::Map(count @ 1..) => {
                open.push(Open::new(count, true));
                text.json.push('{');
                continue_below(&open)?;
                text.key(&mut reader)?;
                continue;
            }
            token => text.scalar(&token),
        }
        // A value has ended, and so may those around it.
        loop {
            let Some(around) = open.last_mut() else {
                return reader.0.is_empty().then_some(text);
            };
            around.left -= 1;
            if around.left > 0 {
                text.json.push_str(", ");
                if around.is_map {
                    text.key(&mut reader)?;
                }
                break;
            }
            text.json.push(if around.is_map { '}' } else { ']' });
            open.pop();
        }
    }
}

/// The bytes that MessagePack is of; `None` when it is a text or another value.
pub(crate) fn bytes(stored: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader(stored);
    match reader.token()? {
        Token::Bytes(bytes) if is_bytes(stored) && reader.0.is_empty() => Some(bytes),
        _ => None,
    }
}

/// Whether MessagePack is of bytes, and not of a text or of another value.
pub(crate) fn is_bytes(stored: &[u8]) -> bool {
    matches!(stored.first(), Some(0xc4..=0xc6))
}

fn continue_below(open: &[Open]) -> Option<()> {
    (open.len() <= DEEPEST).then_some(())
}

/// A list or a map that is being read.
#[derive(Debug)]
struct Open {
    /// Items or entries that are still to come, the one that is being read included.
    left: u32,
    is_map: bool,
}

impl Open {
    fn new(left: u32, is_map: bool) -> Self {
        Self { left, is_map }
    }
}

/// A value, or the head of a list or a map.
#[derive(Debug)]
enum Token<'a> {
    Nil,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(&'a [u8]),
    /// Bytes, or what an extension has.
    Bytes(&'a [u8]),
    Array(u32),
    Map(u32),
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn token(&mut self) -> Option<Token<'a>> {
        let [first] = self.array()?;
        Some(match first {
            0x00..=0x7f => Token::Unsigned(first.into()),
            0x80..=0x8f => Token::Map((first & 0x0f).into()),
            0x90..=0x9f => Token::Array((first & 0x0f).into()),
            0xa0..=0xbf => Token::Text(self.take((first & 0x1f).into())?),
            0xc0 => Token::Nil,
            // The one byte that begins nothing.
            0xc1 => return None,
            0xc2 => Token::Bool(false),
            0xc3 => Token::Bool(true),
            0xc4..=0xc6 => {
                let length = self.unsigned(1 << (first - 0xc4))?;
                Token::Bytes(self.take(length)?)
            }
            0xc7..=0xc9 => {
                let length = self.unsigned(1 << (first - 0xc7))?;
                Token::Bytes(self.extension(length)?)
            }
            0xca => Token::Float(f32::from_be_bytes(self.array()?).into()),
            0xcb => Token::Float(f64::from_be_bytes(self.array()?)),
            0xcc..=0xcf => Token::Unsigned(self.unsigned(1 << (first - 0xcc))?),
            0xd0 => Token::Signed(i8::from_be_bytes(self.array()?).into()),
            0xd1 => Token::Signed(i16::from_be_bytes(self.array()?).into()),
            0xd2 => Token::Signed(i32::from_be_bytes(self.array()?).into()),
            0xd3 => Token::Signed(i64::from_be_bytes(self.array()?)),
            0xd4..=0xd8 => Token::Bytes(self.extension(1 << (first - 0xd4))?),
            0xd9..=0xdb => {
                let length = self.unsigned(1 << (first - 0xd9))?;
                Token::Text(self.take(length)?)
            }
            0xdc | 0xdd => Token::Array(self.count(2 << (first - 0xdc))?),
            0xde | 0xdf => Token::Map(self.count(2 << (first - 0xde))?),
            0xe0..=0xff => Token::Signed(i8::from_be_bytes([first]).into()),
        })
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length.try_into().ok()?)?;
        self.0 = rest;
        Some(bytes)
    }

    /// A number of so many bytes.
    fn unsigned(&mut self, width: u64) -> Option<u64> {
        let bytes = self.take(width)?.iter();
        Some(bytes.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn count(&mut self, width: u64) -> Option<u32> {
        self.unsigned(width)?.try_into().ok()
    }

    /// What an extension has behind its type.
    fn extension(&mut self, length: u64) -> Option<&'a [u8]> {
        self.take(1)?;
        self.take(length)
    }

    /// Goes past a value with all that is in it.
    fn skip(&mut self) -> Option<()> {
        let mut left: u64 = 1;
        while left > 0 {
            left -= 1;
            // Each of them takes a byte, so it ends with the bytes at the latest.
            left += match self.token()? {
                Token::Array(count) => u64::from(count),
                Token::Map(count) => 2 * u64::from(count),
                _ => 0,
            };
        }
        Some(())
    }
}

impl Text {
    fn scalar(&mut self, token: &Token<'_>) {
        match token {
            Token::Nil => self.json.push_str("null"),
            Token::Bool(truth) => self.json.push_str(if *truth { "true" } else { "false" }),
            Token::Signed(number) => self.json.push_str(&number.to_string()),
            Token::Unsigned(number) => self.json.push_str(&number.to_string()),
            Token::Float(number) => match float(*number) {
                Some(text) => self.json.push_str(&text),
                None => {
                    self.altered = true;
                    self.json.push_str("null");
                }
            },
            Token::Text(text) => {
                let text = String::from_utf8_lossy(text);
                // It is owned where something was replaced.
                self.altered |= matches!(text, std::borrow::Cow::Owned(_));
                self.json.push_str(&quoted(&text));
            }
            Token::Bytes(bytes) => {
                self.altered = true;
                self.json.push_str(&base64(bytes));
            }
            Token::Array(_) => self.json.push_str("[]"),
            Token::Map(_) => self.json.push_str("{}"),
        }
    }

    /// Writes a key and what follows it. Zaqar's are strings; any other is its text.
    fn key(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        let from = reader.0;
        match reader.token()? {
            Token::Array(_) | Token::Map(_) => {
                reader.0 = from;
                reader.skip()?;
                let length = from.len() - reader.0.len();
                self.scalar(&Token::Bytes(&from[..length]));
            }
            token @ (Token::Text(_) | Token::Bytes(_)) => self.scalar(&token),
            token => {
                let mut inner = Self::default();
                inner.scalar(&token);
                self.altered = true;
                self.json.push_str(&quoted(&inner.json));
            }
        }
        self.json.push_str(": ");
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use rmpv::Value;

    use super::*;
    use crate::json::as_body;

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
        for byte in [0x91, 0x81] {
            assert!(from_msgpack(&[byte; 100_000]).is_none());
        }
    }

    #[test]
    fn values_of_every_width_are_read() {
        for value in [
            Value::from(-33),
            Value::from(i64::from(i16::MIN)),
            Value::from(i64::from(i32::MIN)),
            Value::from(200),
            Value::from(60_000),
            Value::from(4_000_000_000_u32),
            Value::F32(0.5),
            Value::from("x".repeat(31)),
            Value::from("x".repeat(255)),
            Value::from("x".repeat(65_535)),
            Value::from("x".repeat(65_536)),
            Value::Array(vec![Value::from(1); 70_000]),
            Value::Array(vec![Value::from("a"); 20]),
        ] {
            let (json, altered) = shown(&value);
            let read: serde_json::Value = serde_json::from_str(&json).expect("JSON");
            assert_eq!(read.to_string(), value.to_string().replace(", ", ","));
            assert!(!altered);
        }
        let map = |count: i64| Value::Map((0..count).map(|n| (n.into(), n.into())).collect());
        for count in [15, 16, 70_000] {
            let read: serde_json::Value =
                serde_json::from_str(&shown(&map(count)).0).expect("JSON");
            assert_eq!(
                read.as_object().map(serde_json::Map::len),
                usize::try_from(count).ok()
            );
        }
        for length in [1, 2, 4, 8, 16, 3, 300, 70_000] {
            let (json, altered) = shown(&Value::Ext(7, vec![0; length]));
            assert_eq!((json, altered), (base64(&vec![0; length]), true));
            let stored = shown(&Value::Binary(vec![0; length])).0;
            assert_eq!(stored, base64(&vec![0; length]));
        }
    }

    /// Lists in each other, so many of them, around nil.
    fn nested(levels: usize) -> Vec<u8> {
        [vec![0x91; levels], vec![0xc0]].concat()
    }

    #[test]
    fn what_is_nested_as_deep_as_the_api_takes_it_comes_as_it_is_and_deeper_as_text() {
        let json = |levels: usize| format!("{}null{}", "[".repeat(levels), "]".repeat(levels));
        for (levels, as_text) in [
            (511, false),
            (513, false),
            (997, false),
            (998, true),
            (10_000, true),
        ] {
            let text = from_msgpack(&nested(levels)).expect("MessagePack");
            let expected = if as_text {
                quoted(&json(levels))
            } else {
                json(levels)
            };
            assert_eq!(as_body(text.json), (expected, as_text), "{levels}");
        }
        assert!(from_msgpack(&nested(DEEPEST + 1)).is_none());
    }

    #[test]
    fn keys_that_are_no_texts_do_not_multiply() {
        // A map that is a map's key that is a map's key, and so on.
        let levels = 5_000;
        let stored = [vec![0x81; levels], vec![0x01; levels + 1]].concat();
        let text = from_msgpack(&stored).expect("MessagePack");
        assert!(text.altered);
        assert!(text.json.len() < 2 * stored.len(), "{}", text.json.len());
        let list = from_msgpack(&[0x81, 0x91, 0x05, 0xa1, b'v']).expect("MessagePack");
        assert_eq!(list.json, r#"{"kQU=": "v"}"#);
        let texts = from_msgpack(&[0x82, 0xa2, 0xff, b'"', 0x01, 0xc4, 0x01, 0x00, 0x02])
            .expect("MessagePack");
        assert_eq!(texts.json, "{\"\u{fffd}\\\"\": 1, \"AA==\": 2}");
    }
}
