//! MessagePack as another spelling of JSON.
//!
//! A request in MessagePack is rewritten as JSON text once, and from there on takes the way of all requests; an answer is
//! written as JSON and rewritten at the end. So a body is kept as the JSON text that every other client expects, and there is
//! one reader of requests. The road not taken is a tree of values: a kilobyte of `nil` would become forty.

use rmp::Marker;
use rmp::decode::{RmpRead, read_marker};
use rmp::encode::{
    write_array_len, write_bool, write_f64, write_map_len, write_nil, write_sint, write_str,
    write_uint,
};
use serde::Deserialize;
use serde_json::Value;

/// How deep lists and maps may be nested.
const MAX_DEPTH: usize = 256;

/// It is no MessagePack, or has what JSON does not: bytes, extensions, keys that are no text, numbers that are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Rewrites a document as JSON text, of six times its bytes at the most.
pub(super) fn to_json(packed: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut reader = Reader {
        rest: packed,
        json: Vec::with_capacity(packed.len() + packed.len() / 4),
    };
    reader.value(0)?;
    match reader.rest.is_empty() {
        true => Ok(reader.json),
        false => Err(Malformed),
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    json: Vec<u8>,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<(), Malformed> {
        if depth > MAX_DEPTH {
            return Err(Malformed);
        }
        match read_marker(&mut self.rest).map_err(|_| Malformed)? {
            Marker::Null => self.plain("null"),
            Marker::True => self.plain("true"),
            Marker::False => self.plain("false"),
            Marker::FixPos(number) => self.unsigned(number.into()),
            Marker::FixNeg(number) => self.signed(number.into()),
            Marker::U8 => self.number(1, Self::unsigned),
            Marker::U16 => self.number(2, Self::unsigned),
            Marker::U32 => self.number(4, Self::unsigned),
            Marker::U64 => self.number(8, Self::unsigned),
            Marker::I8 => self.number(1, |to, bits| to.signed(sign_extended(bits, 1))),
            Marker::I16 => self.number(2, |to, bits| to.signed(sign_extended(bits, 2))),
            Marker::I32 => self.number(4, |to, bits| to.signed(sign_extended(bits, 4))),
            Marker::I64 => self.number(8, |to, bits| to.signed(sign_extended(bits, 8))),
            Marker::F32 => {
                let bits = u32::try_from(self.bits(4)?).map_err(|_| Malformed)?;
                self.float(f32::from_bits(bits).into())
            }
            Marker::F64 => {
                let bits = self.bits(8)?;
                self.float(f64::from_bits(bits))
            }
            marker @ (Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32) => {
                self.text(marker)
            }
            Marker::FixArray(length) => self.list(length.into(), depth),
            Marker::Array16 => self.list_of_bits(2, depth),
            Marker::Array32 => self.list_of_bits(4, depth),
            Marker::FixMap(length) => self.map(length.into(), depth),
            Marker::Map16 => self.map_of_bits(2, depth),
            Marker::Map32 => self.map_of_bits(4, depth),
            _ => Err(Malformed),
        }
    }

    fn plain(&mut self, text: &str) -> Result<(), Malformed> {
        self.json.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn unsigned(&mut self, number: u64) -> Result<(), Malformed> {
        self.plain(itoa::Buffer::new().format(number))
    }

    fn signed(&mut self, number: i64) -> Result<(), Malformed> {
        self.plain(itoa::Buffer::new().format(number))
    }

    fn float(&mut self, number: f64) -> Result<(), Malformed> {
        let number = serde_json::Number::from_f64(number).ok_or(Malformed)?;
        self.plain(&number.to_string())
    }

    /// So many bytes of a number, the highest first.
    fn bits(&mut self, bytes: usize) -> Result<u64, Malformed> {
        let mut whole = [0; 8];
        let part = &mut whole[8 - bytes..];
        self.rest.read_exact_buf(part).map_err(|_| Malformed)?;
        Ok(u64::from_be_bytes(whole))
    }

    fn number(
        &mut self,
        bytes: usize,
        write: impl FnOnce(&mut Self, u64) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let bits = self.bits(bytes)?;
        write(self, bits)
    }

    fn text(&mut self, marker: Marker) -> Result<(), Malformed> {
        let length = match marker {
            Marker::FixStr(length) => length.into(),
            Marker::Str8 => self.bits(1)?,
            Marker::Str16 => self.bits(2)?,
            Marker::Str32 => self.bits(4)?,
            _ => return Err(Malformed),
        };
        let length = usize::try_from(length).map_err(|_| Malformed)?;
        let (text, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        let text = std::str::from_utf8(text).map_err(|_| Malformed)?;
        serde_json::to_writer(&mut self.json, text).map_err(|_| Malformed)
    }

    fn list_of_bits(&mut self, bytes: usize, depth: usize) -> Result<(), Malformed> {
        let length = self.bits(bytes)?;
        self.list(length, depth)
    }

    /// Each item is a byte at least, so a length that lies ends with the bytes.
    fn list(&mut self, length: u64, depth: usize) -> Result<(), Malformed> {
        self.json.push(b'[');
        for at in 0..length {
            if at > 0 {
                self.json.push(b',');
            }
            self.value(depth + 1)?;
        }
        self.json.push(b']');
        Ok(())
    }

    fn map_of_bits(&mut self, bytes: usize, depth: usize) -> Result<(), Malformed> {
        let length = self.bits(bytes)?;
        self.map(length, depth)
    }

    fn map(&mut self, length: u64, depth: usize) -> Result<(), Malformed> {
        self.json.push(b'{');
        for at in 0..length {
            if at > 0 {
                self.json.push(b',');
            }
            let marker = read_marker(&mut self.rest).map_err(|_| Malformed)?;
            self.text(marker)?;
            self.json.push(b':');
            self.value(depth + 1)?;
        }
        self.json.push(b'}');
        Ok(())
    }
}

/// A number of so many bytes in two's complement.
fn sign_extended(bits: u64, bytes: u32) -> i64 {
    let unused = 64 - 8 * bytes;
    (bits << unused).cast_signed() >> unused
}

/// Rewrites JSON text. What is no JSON becomes nil.
pub(super) fn from_json(json: &[u8]) -> Vec<u8> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    // What is written here was checked on its way in, by a bound on its depth that is further than the parser's.
    reader.disable_recursion_limit();
    let value = Value::deserialize(&mut reader).unwrap_or_default();
    let mut packed = Vec::with_capacity(json.len());
    if write(&mut packed, &value).is_err() {
        // Writing to memory has no way to fail.
        tracing::error!("cannot write MessagePack");
    }
    packed
}

fn write(to: &mut Vec<u8>, value: &Value) -> Result<(), std::io::Error> {
    match value {
        Value::Null => write_nil(to)?,
        Value::Bool(truth) => write_bool(to, *truth)?,
        Value::Number(number) => {
            if let Some(number) = number.as_u64() {
                write_uint(to, number)?;
            } else if let Some(number) = number.as_i64() {
                write_sint(to, number)?;
            } else {
                write_f64(to, number.as_f64().unwrap_or_default())?;
            }
        }
        Value::String(text) => write_str(to, text)?,
        Value::Array(items) => {
            write_array_len(to, length(items.len()))?;
            items.iter().try_for_each(|item| write(to, item))?;
        }
        Value::Object(members) => {
            write_map_len(to, length(members.len()))?;
            for (key, value) in members {
                write_str(to, key)?;
                write(to, value)?;
            }
        }
    }
    Ok(())
}

fn length(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_json_can_say_is_the_same_there_and_back() {
        for json in [
            "null",
            "true",
            "[]",
            "{}",
            "[0,1,127,128,255,256,65535,65536,4294967296,18446744073709551615]",
            "[-1,-32,-33,-128,-129,-32768,-32769,-2147483649,-9223372036854775808]",
            "[0.5,-1.25]",
            r#"{"a":"é\"\\\n","b":[{"c":null}],"":""}"#,
        ] {
            let packed = from_json(json.as_bytes());
            let back = to_json(&packed).expect(json);
            assert_eq!(String::from_utf8_lossy(&back), json);
        }
        let long = format!("[\"{}\",\"{}\"]", "x".repeat(300), "y".repeat(70_000));
        let back = to_json(&from_json(long.as_bytes())).expect("it is long");
        assert_eq!(String::from_utf8_lossy(&back), long);
        let many = format!("[{}1]", "1,".repeat(70_000));
        assert_eq!(to_json(&from_json(many.as_bytes())), Ok(many.into_bytes()));
    }

    #[test]
    fn numbers_are_read_in_every_width() {
        for (packed, json) in [
            (&[0xcc, 0xff][..], "255"),
            (&[0xd0, 0xff], "-1"),
            (&[0xd1, 0xff, 0xfe], "-2"),
            (&[0xd2, 0xff, 0xff, 0xff, 0xfd], "-3"),
            (&[0xca, 0x3f, 0x00, 0x00, 0x00], "0.5"),
        ] {
            let text = to_json(packed).expect(json);
            assert_eq!(String::from_utf8_lossy(&text), json);
        }
    }

    #[test]
    fn what_json_cannot_say_is_refused() {
        let deep = [vec![0x91; MAX_DEPTH + 2], vec![0xc0]].concat();
        for packed in [
            &[][..],
            &[0xc1],
            &[0xc4, 1, 0],
            &[0xd4, 1, 0],
            &[0x81, 0x01, 0x01],
            &[0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0],
            &[0xa2, 0xff, 0xff],
            &[0xdd, 0xff, 0xff, 0xff, 0xff],
            &[0xdb, 0xff, 0xff, 0xff, 0xff, b'a'],
            &[0xc0, 0xc0],
            &deep,
        ] {
            assert_eq!(to_json(packed), Err(Malformed), "{packed:x?}");
        }
    }
}
