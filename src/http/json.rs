//! JSON on its way out and in.
//!
//! Documents are written with the separators `", "` and `": "`, as the reference writes them (spec: http.md 6).

use std::io::{self, Write};

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use isimud_contract::{JsonFault, check_json};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};

use super::problem::Problem;

/// The media type of every document but one.
pub(crate) const MEDIA_TYPE: &str = "application/json";

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
        tracing::error!(%error, "cannot serialize a document");
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

/// Refuses what JSON allows and the API does not ([`check_json`]).
pub(crate) fn check(body: &[u8]) -> Result<(), Problem> {
    check_json(body).map_err(|fault| match fault {
        JsonFault::Unreadable => unparsable(),
        JsonFault::IntegerTooLarge => Problem::body("JSON contains integer that is too large."),
    })
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
    fn json_that_the_api_refuses_is_refused_with_its_sentence() {
        assert!(check(br#"{"a": 1.5e300}"#).is_ok());
        for (bad, sentence) in [
            (&b"[9223372036854775808]"[..], "integer that is too large"),
            (b"[1e400]", "could not be parsed"),
            (b"\xff", "could not be parsed"),
        ] {
            let problem = check(bad).expect_err("it is refused");
            assert!(format!("{problem:?}").contains(sentence), "{problem:?}");
        }
        assert!(parse(b"NaN").is_err());
        assert!(parse(b"\"text\"").is_err());
    }
}
