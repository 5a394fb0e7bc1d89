//! Which JSON the API takes. The same check stands at every door: at the API's own, and where messages come in from
//! native clients of a broker and from imports.
//!
//! JSON allows more than clients can read back: integers beyond 64 bits, numbers beyond a double, escapes that are half
//! a character, nesting without end. One such body would spoil a whole page or claim for the parser of a client, with
//! good messages beside it.

use bytes::Bytes;
use serde::de::IgnoredAny;

/// Levels of nesting that a document may have: what Python clients can read back.
const DEEPEST: usize = 1000;

/// Levels of nesting that a document of the API has around a body.
const AROUND_A_BODY: usize = 3;

/// Why a text is not JSON that the API takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonFault {
    /// It is not UTF-8, nested too deeply, or has half a character or a number beyond a double in it.
    Unreadable,
    /// It has an integer beyond 64 bits in it.
    IntegerTooLarge,
}

/// Refuses what JSON allows and the API does not (see the module's docs). What is no JSON at all is left to the parser
/// to find.
///
/// One pass over the bytes that jumps from quote to quote inside strings; it allocates nothing.
pub fn check_json(document: &[u8]) -> Result<(), JsonFault> {
    check(document, DEEPEST)
}

/// The body of a message that somebody else has written: the same text where that is JSON that the API takes, and a
/// JSON string with the text in it where it is anything else.
pub fn body_of_text(text: &str) -> Bytes {
    let is_json = check(text.as_bytes(), DEEPEST - AROUND_A_BODY).is_ok()
        && serde_json::from_str::<IgnoredAny>(text).is_ok();
    if is_json {
        return Bytes::copy_from_slice(text.as_bytes());
    }
    serde_json::Value::from(text).to_string().into()
}

fn check(document: &[u8], deepest: usize) -> Result<(), JsonFault> {
    std::str::from_utf8(document).map_err(|_| JsonFault::Unreadable)?;
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(&byte) = document.get(at) {
        at = match byte {
            b'"' => skip_string(document, at + 1)?,
            b'[' | b'{' => {
                depth += 1;
                if depth > deepest {
                    return Err(JsonFault::Unreadable);
                }
                at + 1
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                at + 1
            }
            b'-' | b'0'..=b'9' => skip_number(document, at)?,
            _ => at + 1,
        };
    }
    Ok(())
}

/// Where a string ends whose inside begins at `at`.
fn skip_string(document: &[u8], mut at: usize) -> Result<usize, JsonFault> {
    loop {
        let rest = document.get(at..).ok_or(JsonFault::Unreadable)?;
        at += quote_or_escape(rest).ok_or(JsonFault::Unreadable)?;
        if document[at] == b'"' {
            return Ok(at + 1);
        }
        match unit(document, at) {
            Some(0xD800..=0xDBFF) => match unit(document, at + 6) {
                Some(0xDC00..=0xDFFF) => at += 12,
                _ => return Err(JsonFault::Unreadable),
            },
            Some(0xDC00..=0xDFFF) => return Err(JsonFault::Unreadable),
            _ => at += 2,
        }
    }
}

/// The first quote or backslash. Chunks without one are passed at once.
fn quote_or_escape(rest: &[u8]) -> Option<usize> {
    const CHUNK: usize = 32;
    let found = |byte: &u8| matches!(byte, b'"' | b'\\');
    let clean = |chunk: &&[u8]| !chunk.iter().fold(false, |any, byte| any | found(byte));
    let passed = CHUNK * rest.chunks_exact(CHUNK).take_while(clean).count();
    Some(passed + rest[passed..].iter().position(found)?)
}

/// The code unit of an escape `\uXXXX` at `at`.
fn unit(document: &[u8], at: usize) -> Option<u16> {
    let escape = document.get(at..at + 6)?;
    let digits = std::str::from_utf8(escape.strip_prefix(b"\\u")?).ok()?;
    u16::from_str_radix(digits, 16).ok()
}

/// Where a number ends that begins at `at`.
fn skip_number(document: &[u8], at: usize) -> Result<usize, JsonFault> {
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    let length = document[at..]
        .iter()
        .take_while(|byte| is_part(byte))
        .count();
    let number = &document[at..at + length];
    if length > 18 || number.iter().any(|byte| matches!(byte, b'e' | b'E')) {
        let text = std::str::from_utf8(number).map_err(|_| JsonFault::Unreadable)?;
        let is_integer = text
            .bytes()
            .all(|byte| byte == b'-' || byte.is_ascii_digit());
        if is_integer && text.parse::<i64>().is_err() {
            return Err(JsonFault::IntegerTooLarge);
        }
        if !is_integer && text.parse::<f64>().is_ok_and(f64::is_infinite) {
            return Err(JsonFault::Unreadable);
        }
    }
    Ok(at + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> String {
        "[".repeat(levels) + &"]".repeat(levels)
    }

    #[test]
    fn json_that_the_api_takes_passes() {
        let deep = nested(1000);
        let long = format!("\"{}\\\"{}\"", "x".repeat(100), "y".repeat(31));
        for good in [
            r#"{"a": 9223372036854775807, "b": -9223372036854775808, "c": 1.5e300}"#,
            r#""99999999999999999999 \" 1e999 \\""#,
            r#""\ud83d\ude00 \u00e9 \\ud800""#,
            deep.as_str(),
            long.as_str(),
        ] {
            assert_eq!(check_json(good.as_bytes()), Ok(()), "{good}");
        }
    }

    #[test]
    fn json_that_the_api_refuses_is_refused() {
        let deep = nested(1001);
        let far = format!("[\"{}\\ud800\"]", "x".repeat(100));
        for (bad, fault) in [
            ("9223372036854775808", JsonFault::IntegerTooLarge),
            ("[-9223372036854775809]", JsonFault::IntegerTooLarge),
            ("1e400", JsonFault::Unreadable),
            (r#"{"x": "\ud800"}"#, JsonFault::Unreadable),
            (r#""\ud800\u0041""#, JsonFault::Unreadable),
            (r#""\udc00""#, JsonFault::Unreadable),
            (deep.as_str(), JsonFault::Unreadable),
            (far.as_str(), JsonFault::Unreadable),
            ("\"no end", JsonFault::Unreadable),
        ] {
            assert_eq!(check_json(bad.as_bytes()), Err(fault), "{bad}");
        }
        assert_eq!(check_json(b"\"\xff\""), Err(JsonFault::Unreadable));
    }

    #[test]
    fn text_that_is_no_body_becomes_a_string() {
        let (deepest, deeper) = (nested(997), nested(998));
        for (text, is_body) in [
            (r#"{"a": [1, null]}"#, true),
            (deepest.as_str(), true),
            ("", false),
            ("hello", false),
            ("NaN", false),
            ("[1e400]", false),
            ("123456789012345678901234567890", false),
            (r#"["\ud800"]"#, false),
            (deeper.as_str(), false),
        ] {
            let body = body_of_text(text);
            let expected = match is_body {
                true => text.to_owned(),
                false => serde_json::to_string(text).expect("a string"),
            };
            assert_eq!(body, expected, "{text}");
        }
    }
}
