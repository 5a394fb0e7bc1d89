//! A value of a list or a stream as a message's body, and the id that it gets.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use isimud_contract::{MessageId, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Builder;

use crate::found::Refusal;
use crate::json::{base64, is_body, quoted};

/// What is taken out of its wrapping on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unwrap {
    /// Nothing: an element is taken as it is.
    #[default]
    Nothing,
    /// A Celery (kombu) message keeps its headers and properties, and its base64 body is decoded in its place.
    Celery,
    /// The elements are the numbers of BullMQ's jobs: each is read from its own key, with its name, data and options.
    BullMq,
}

/// What is read part by part: a list, a stream, the jobs of a queue.
pub trait Elements {
    /// Where it is, without passwords.
    fn shown(&self) -> String;

    /// How many elements there seemed to be at first.
    fn count(&self) -> u64;

    /// Reads the next up to `limit` elements.
    fn next(&mut self, limit: usize) -> impl Future<Output = Result<ElementPage>> + Send;

    /// Whether nobody seems to have added or taken elements while it was read.
    fn is_unchanged(&self) -> impl Future<Output = Result<bool>> + Send;
}

/// A part of a list or a stream, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ElementPage {
    /// What is in it.
    pub elements: Vec<FoundElement>,
    /// What was read and cannot be taken.
    pub refused: Vec<Refusal>,
    /// Entries that their group has acknowledged, and others that stand for nothing.
    pub acknowledged: u64,
    /// Where a later import goes on.
    pub reached: String,
    /// There was no more when this was read.
    pub is_last: bool,
}

/// An element of a list, or an entry of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundElement {
    /// What it is, as an operator would look for it.
    pub name: String,
    /// The id of the message that it becomes: the same one for the same element, whenever it is read.
    pub id: MessageId,
    /// JSON text.
    pub body: String,
    /// How long ago it was added, where that is known.
    pub age: Duration,
    /// How long it is to be kept back, where it is delayed.
    pub delay: Duration,
}

/// An id made of where an element is and what it is (UUID version 8).
pub(crate) fn id(parts: &[&[u8]]) -> MessageId {
    let mut hash = Sha256::new_with_prefix("isimud import 1");
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    MessageId(Builder::from_custom_bytes(bytes).into_uuid())
}

/// An element as JSON text: JSON that the API takes as it is, other text as a string, other bytes as `{"base64": "..."}`.
pub(crate) fn body(bytes: Vec<u8>, unwrap: Unwrap) -> String {
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return format!("{{\"base64\": {}}}", base64(error.as_bytes())),
    };
    if !is_body(&text) {
        return quoted(&text);
    }
    match unwrap {
        Unwrap::Nothing | Unwrap::BullMq => None,
        Unwrap::Celery => celery(&text),
    }
    .unwrap_or(text)
}

/// A kombu message with its body decoded; `None` for anything else.
fn celery(text: &str) -> Option<String> {
    let mut message: Value = serde_json::from_str(text).ok()?;
    let properties = message.get_mut("properties")?.as_object_mut()?;
    if properties.get("body_encoding")? != "base64" {
        return None;
    }
    properties.shift_remove("body_encoding");
    let body = message.get_mut("body")?;
    let inner = STANDARD.decode(body.as_str()?).ok()?;
    *body = match String::from_utf8(inner) {
        // As everywhere: what the API does not take as JSON is a string.
        Ok(text) if is_body(&text) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        Ok(text) => Value::String(text),
        // Of another serializer than JSON: it stays what it was.
        Err(_) => return None,
    };
    Some(message.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_depends_on_every_part_and_on_nothing_else() {
        let one = id(&[b"ab", b"c"]);
        assert_eq!(one, id(&[b"ab", b"c"]));
        assert_ne!(one, id(&[b"a", b"bc"]));
        assert_ne!(one, id(&[b"ab", b"c", b""]));
        assert_eq!(one.0.get_version_num(), 8);
    }

    #[test]
    fn json_is_taken_as_it_is_and_the_rest_is_wrapped() {
        for (element, expected) in [
            (
                &br#"{"class":"Job", "args":[1.10,9223372036854775807]}"#[..],
                r#"{"class":"Job", "args":[1.10,9223372036854775807]}"#,
            ),
            (b"18446744073709551616", r#""18446744073709551616""#),
            (b"[1e400]", r#""[1e400]""#),
            (br#""\ud800""#, r#""\"\\ud800\"""#),
            (b"a\0b", "\"a\\u0000b\""),
            (b" 7 ", " 7 "),
            (b"null", "null"),
            (b"plain text", r#""plain text""#),
            (b"", r#""""#),
            (b"{\"half\":", r#""{\"half\":""#),
            ("é\"".as_bytes(), r#""é\"""#),
            (b"\x80\x04N.", r#"{"base64": "gAROLg=="}"#),
        ] {
            assert_eq!(body(element.to_vec(), Unwrap::Nothing), expected);
        }
    }

    #[test]
    fn a_celery_message_keeps_everything_but_its_wrapping() {
        let body_text = STANDARD.encode(r#"[[1,2],{},{"chain":null}]"#);
        let element = format!(
            r#"{{"body":"{body_text}","headers":{{"task":"add"}},"properties":{{"body_encoding":"base64","priority":0}}}}"#
        );
        assert_eq!(
            body(element.clone().into_bytes(), Unwrap::Celery),
            r#"{"body":[[1,2],{},{"chain":null}],"headers":{"task":"add"},"properties":{"priority":0}}"#
        );
        assert_eq!(body(element.clone().into_bytes(), Unwrap::Nothing), element);
        let poison = STANDARD.encode("[1e400]");
        let poisoned =
            format!(r#"{{"body":"{poison}","properties":{{"body_encoding":"base64"}}}}"#);
        assert_eq!(
            body(poisoned.into_bytes(), Unwrap::Celery),
            r#"{"body":"[1e400]","properties":{}}"#
        );
        for other in [
            r#"{"class":"Job"}"#,
            r#"{"properties":{"body_encoding":"base64"},"body":"gASVAA=="}"#,
        ] {
            assert_eq!(body(other.into(), Unwrap::Celery), other);
        }
    }
}
