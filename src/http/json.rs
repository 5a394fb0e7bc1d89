//! JSON on its way out and in.
//!
//! Documents are written with the separators `", "` and `": "`, as the reference writes them (spec: http.md 6).

use std::io::{self, Write};

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};

use super::problem::Problem;

/// The media type of every document but one.
pub(crate) const MEDIA_TYPE: &str = "application/json";

/// Levels of nesting that a body may have: what Python clients can read back.
const DEEPEST: usize = 1000;

/// Puts a space behind every comma and colon.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

/// Writes a document.
pub(crate) fn to_vec(document: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    if let Err(error) = document.serialize(&mut Serializer::with_formatter(&mut out, Spaced)) {
        // Documents are structures of our own with text keys; writing them to memory has no way to fail.
        tracing::error!(%error, "a document could not be written");
    }
    out
}

/// A document with a status.
pub(crate) fn answer(status: StatusCode, document: &impl Serialize) -> Response {
    text(status, to_vec(document))
}

/// A document of something new, and where that is.
pub(crate) fn created(location: &str, document: Vec<u8>) -> Response {
    let mut response = text(StatusCode::CREATED, document);
    // Paths of our own are header values.
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// A document that is written already.
pub(crate) fn text(status: StatusCode, document: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(document));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    response
}

fn unparsable() -> Problem {
    Problem::body("Request body could not be parsed.")
}

/// Reads a body whose top level must be an object or an array (spec: http.md 4.2).
pub(crate) fn parse(body: &[u8]) -> Result<Value, Problem> {
    check(body)?;
    let mut reader = serde_json::Deserializer::from_slice(body);
    // The check has a limit of its own, which is further than the parser's.
    reader.disable_recursion_limit();
    match Value::deserialize(&mut reader) {
        Ok(value @ (Value::Object(_) | Value::Array(_))) if reader.end().is_ok() => Ok(value),
        _ => Err(unparsable()),
    }
}

/// Reads a body into its own type; `None` when it is JSON, but of another type.
pub(crate) fn parse_as<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Option<T> {
    serde_json::from_slice(body).ok()
}

/// Refuses what JSON allows and the API does not: integers beyond 64 bits, numbers beyond a double, escapes that are
/// half a character, deep nesting, and what is not UTF-8. What is no JSON at all is left to the parser to find.
///
/// One pass over the bytes that jumps from quote to quote inside strings; it allocates nothing.
pub(crate) fn check(body: &[u8]) -> Result<(), Problem> {
    std::str::from_utf8(body).map_err(|_| unparsable())?;
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(&byte) = body.get(at) {
        at = match byte {
            b'"' => skip_string(body, at + 1)?,
            b'[' | b'{' => {
                depth += 1;
                if depth > DEEPEST {
                    return Err(unparsable());
                }
                at + 1
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                at + 1
            }
            b'-' | b'0'..=b'9' => skip_number(body, at)?,
            _ => at + 1,
        };
    }
    Ok(())
}

/// Where a string ends whose inside begins at `at`.
fn skip_string(body: &[u8], mut at: usize) -> Result<usize, Problem> {
    loop {
        let rest = body.get(at..).ok_or_else(unparsable)?;
        let found = memchr::memchr2(b'"', b'\\', rest).ok_or_else(unparsable)?;
        at += found;
        if body[at] == b'"' {
            return Ok(at + 1);
        }
        match unit(body, at) {
            Some(0xD800..=0xDBFF) => match unit(body, at + 6) {
                Some(0xDC00..=0xDFFF) => at += 12,
                _ => return Err(unparsable()),
            },
            Some(0xDC00..=0xDFFF) => return Err(unparsable()),
            _ => at += 2,
        }
    }
}

/// The code unit of an escape `\uXXXX` at `at`.
fn unit(body: &[u8], at: usize) -> Option<u16> {
    let escape = body.get(at..at + 6)?;
    let digits = std::str::from_utf8(escape.strip_prefix(b"\\u")?).ok()?;
    u16::from_str_radix(digits, 16).ok()
}

/// Where a number ends that begins at `at`.
fn skip_number(body: &[u8], at: usize) -> Result<usize, Problem> {
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    let length = body[at..].iter().take_while(|byte| is_part(byte)).count();
    if length > 18
        || body[at..at + length]
            .iter()
            .any(|byte| matches!(byte, b'e' | b'E'))
    {
        let text = std::str::from_utf8(&body[at..at + length]).map_err(|_| unparsable())?;
        let is_integer = text
            .bytes()
            .all(|byte| byte == b'-' || byte.is_ascii_digit());
        if is_integer && text.parse::<i64>().is_err() {
            return Err(Problem::body("JSON contains integer that is too large."));
        }
        if !is_integer && text.parse::<f64>().is_ok_and(f64::is_infinite) {
            return Err(unparsable());
        }
    }
    Ok(at + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_spaces_where_the_reference_has_them() {
        let document = serde_json::json!({"a": [1, 2], "b": {"c": "é"}});
        assert_eq!(
            String::from_utf8_lossy(&to_vec(&document)),
            r#"{"a": [1, 2], "b": {"c": "é"}}"#
        );
    }

    #[test]
    fn what_the_api_allows_passes() {
        let deep = format!("{}{}", "[".repeat(900), "]".repeat(900));
        for good in [
            r#"{"a": 9223372036854775807, "b": -9223372036854775808, "c": 1.5e300}"#,
            r#""99999999999999999999 \" 1e999 \\""#,
            r#""\ud83d\ude00 \u00e9 \\ud800""#,
            deep.as_str(),
        ] {
            assert!(check(good.as_bytes()).is_ok(), "{good}");
        }
    }

    #[test]
    fn what_the_api_refuses_is_refused() {
        let deep = "[".repeat(1001);
        for bad in [
            "9223372036854775808",
            "[-9223372036854775809]",
            "1e400",
            r#"{"x": "\ud800"}"#,
            r#""\ud800\u0041""#,
            r#""\udc00""#,
            deep.as_str(),
        ] {
            assert!(check(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse(b"NaN").is_err());
        assert!(parse(b"\"text\"").is_err());
    }
}
