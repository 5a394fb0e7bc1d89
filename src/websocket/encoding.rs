//! The two kinds of messages: JSON text, and MessagePack in binary. Inside of the service both are JSON text.

use bytes::Bytes;
use isimud_contract::check_json;
use serde_json::error::Category;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::msgpack;

/// How a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// A text message of JSON.
    Text,
    /// A binary message of MessagePack.
    Binary,
}

impl Encoding {
    /// The document of a message as JSON text that the API takes, or the sentence of what is wrong with it.
    pub(super) fn decode(self, message: Bytes) -> Result<Bytes, String> {
        match self {
            Self::Text => match fault_of(&message) {
                None => Ok(message),
                Some(fault) => Err(format!(
                    "Can't decode text (JSON) request. JSONDecodeError: {fault}"
                )),
            },
            Self::Binary => {
                let json = msgpack::to_json(&message).ok().map(Bytes::from);
                json.filter(|json| check_json(json).is_ok()).ok_or_else(|| {
                    "Can't decode binary (MessagePack) request. FormatError: ".to_owned()
                })
            }
        }
    }

    /// The message of a document, which is JSON of our own making.
    pub(super) fn encode(self, json: &[u8]) -> Message {
        match self {
            Self::Text => {
                let text = Bytes::from(as_the_reference(json));
                // It is ASCII by now.
                Message::Text(Utf8Bytes::try_from(text).unwrap_or_default())
            }
            Self::Binary => Message::Binary(msgpack::from_json(json).into()),
        }
    }
}

/// What is wrong with a text, in the words of the reference's parser where it is the usual mistake.
fn fault_of(text: &Bytes) -> Option<String> {
    let error = serde_json::from_slice::<serde::de::IgnoredAny>(text).err();
    let (sentence, line, column) = match error {
        Some(error) => {
            let first = text.trim_ascii_start().first();
            let begins_a_value =
                first.is_some_and(|byte| b"{[\"-tf".contains(byte) || byte.is_ascii_digit());
            let sentence = match error.classify() {
                _ if !begins_a_value => return Some(expecting_value(text)),
                Category::Eof => "Unterminated document",
                _ => "Invalid document",
            };
            (sentence, error.line().max(1), error.column().max(1))
        }
        None if check_json(text).is_err() => ("Invalid document", 1, 1),
        None => return None,
    };
    let before = text.split_inclusive(|byte| *byte == b'\n').take(line - 1);
    let at = before.map(<[u8]>::len).sum::<usize>() + column - 1;
    Some(format!(
        "{sentence}: line {line} column {column} (char {at})"
    ))
}

/// There is no value where the text begins.
fn expecting_value(text: &[u8]) -> String {
    let at = text.len() - text.trim_ascii_start().len();
    let before = &text[..at];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let start = before
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let column = at - start + 1;
    format!("Expecting value: line {line} column {column} (char {at})")
}

/// JSON as the reference writes it: a blank behind each comma and colon, none elsewhere, and every symbol beyond ASCII escaped.
fn as_the_reference(json: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(json);
    let mut out = Vec::with_capacity(text.len() + text.len() / 8);
    let (mut in_string, mut is_escaped) = (false, false);
    for symbol in text.chars() {
        if !symbol.is_ascii() {
            for unit in symbol.encode_utf16(&mut [0; 2]) {
                out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
            }
            continue;
        }
        let byte = symbol as u8;
        if in_string {
            out.push(byte);
            in_string = is_escaped || byte != b'"';
            is_escaped = byte == b'\\' && !is_escaped;
            continue;
        }
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => continue,
            b',' | b':' => out.extend_from_slice(&[byte, b' ']),
            _ => out.push(byte),
        }
        in_string = byte == b'"';
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_written_as_the_reference_writes_it() {
        for (json, written) in [
            (
                r#"{"a":[1,2],"b":{"c":"é"}}"#,
                r#"{"a": [1, 2], "b": {"c": "\u00e9"}}"#,
            ),
            ("{ \"a\"\t:\n1 }", r#"{"a": 1}"#),
            (
                r#"{"a,\":b":"\\","c":"x : y"}"#,
                r#"{"a,\":b": "\\", "c": "x : y"}"#,
            ),
            ("\"\u{1F600}\"", r#""\ud83d\ude00""#),
        ] {
            let text = as_the_reference(json.as_bytes());
            assert_eq!(String::from_utf8_lossy(&text), written);
        }
    }

    #[test]
    fn what_is_no_json_is_refused_with_the_sentence_of_the_reference() {
        let decode =
            |text: &'static str| Encoding::Text.decode(Bytes::from_static(text.as_bytes()));
        for text in ["nope", ""] {
            let refused = decode(text).expect_err("it is no JSON");
            let sentence = "Can't decode text (JSON) request. JSONDecodeError: Expecting value: line 1 column 1 (char 0)";
            assert_eq!(refused, sentence);
        }
        for text in ["{\"a\":\n x}", "[18446744073709551616]", "{} {}", "[1"] {
            assert!(decode(text).is_err(), "{text}");
        }
        assert!(decode("{\"a\": [1]}").is_ok());
        let refused = Encoding::Binary.decode(Bytes::from_static(&[0xc1]));
        assert_eq!(
            refused.expect_err("it is no MessagePack"),
            "Can't decode binary (MessagePack) request. FormatError: "
        );
    }
}
