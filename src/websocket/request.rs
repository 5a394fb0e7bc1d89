//! A request: its parts, whether it has what its action needs, and how it is shown again in the answer (spec: websocket.md 1
//! and 2).

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::action::{Action, Kind, text};
use super::reply::Refusal;
use crate::http::fields::Fields;
use crate::http::json;

/// Headers that are a secret: they are not shown again.
const SECRETS: [&str; 3] = ["x-auth-token", "x-service-token", "x-storage-token"];

/// What an answer shows of a request that has not become one.
const NOTHING: &[u8] = br#"{"action":null,"body":{},"headers":{},"api":"v2"}"#;

/// A request that has what its action needs.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) action: &'static Action,
    pub(super) headers: Map<String, Value>,
    pub(super) body: Fields<'a>,
}

impl Request<'_> {
    /// A header that is a text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(Value::as_str)
    }

    /// A header that is a list of texts, joined as HTTP joins them.
    pub(super) fn list_header(&self, name: &str) -> String {
        match self.headers.get(name) {
            Some(Value::Array(items)) => {
                let texts: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                texts.join(",")
            }
            Some(Value::String(text)) => text.clone(),
            _ => String::new(),
        }
    }
}

/// What was read of a message: the request, or why it is none; and how it is shown again.
#[derive(Debug)]
pub(super) struct Read<'a> {
    pub(super) request: Result<Request<'a>, Refusal>,
    pub(super) echo: Vec<u8>,
}

impl Read<'static> {
    /// A message that cannot be decoded.
    pub(super) fn undecodable(sentence: String) -> Self {
        Self {
            request: Err(Refusal::new(StatusCode::BAD_REQUEST, sentence)),
            echo: NOTHING.to_vec(),
        }
    }
}

impl<'a> Read<'a> {
    /// Reads a document of JSON.
    pub(super) fn new(document: &'a [u8]) -> Self {
        let Some(members) = json::parse_as::<BTreeMap<String, &'a RawValue>>(document) else {
            let sentence = "Unexpected body type. Expected dict or dict like.".to_owned();
            return Read::undecodable(sentence);
        };
        let member = |name: &str| members.get(name).copied();
        let (action, headers, body) = (member("action"), member("headers"), member("body"));
        let known: Option<Map<String, Value>> =
            headers.and_then(|headers| json::parse_as(headers.get().as_bytes()));
        let name = action.and_then(text);
        let found = name.as_deref().and_then(Action::find);
        let echo = match found {
            // Nothing of who it is that proves itself.
            Some(action) if action.kind == Kind::Authenticate => {
                br#"{"action":"authenticate","body":{},"headers":{},"api":"v2"}"#.to_vec()
            }
            _ => echo(action, known.as_ref(), body),
        };
        let Some(found) = found else {
            let name = match (name, action) {
                (Some(name), _) => name,
                (None, Some(action)) if action.get() != "null" => action.get().to_owned(),
                _ => "None".to_owned(),
            };
            let sentence = format!("{name} is not a valid action");
            let request = Err(Refusal::new(StatusCode::BAD_REQUEST, sentence));
            return Self { request, echo };
        };
        let request = request(found, known, body)
            .ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "Schema validation failed."));
        Self { request, echo }
    }
}

/// Puts a request together, if it has what it needs.
fn request<'a>(
    action: &'static Action,
    headers: Option<Map<String, Value>>,
    body: Option<&'a RawValue>,
) -> Option<Request<'a>> {
    let headers = headers?;
    let required: [&str; 2] = match action.kind {
        Kind::Authenticate => ["X-Project-ID", "X-Auth-Token"],
        _ => ["Client-ID", "X-Project-ID"],
    };
    let known = [
        "Client-ID",
        "X-Project-ID",
        "X-Auth-Token",
        "URL-Signature",
        "URL-Expires",
    ];
    let is_text = |name: &&str| headers.get(*name).is_none_or(Value::is_string);
    if !required.iter().all(|name| headers.contains_key(*name)) || !known.iter().all(is_text) {
        return None;
    }
    let body = match body {
        None => Fields::from(BTreeMap::new()),
        Some(body) => {
            let members: BTreeMap<String, &RawValue> = json::parse_as(body.get().as_bytes())?;
            Fields::from(members)
        }
    };
    action.takes(&body).then_some(Request {
        action,
        headers,
        body,
    })
}

/// How a request is shown again, without its secrets.
fn echo(
    action: Option<&RawValue>,
    headers: Option<&Map<String, Value>>,
    body: Option<&RawValue>,
) -> Vec<u8> {
    let mut shown = headers.cloned().unwrap_or_default();
    shown.retain(|name, _| !SECRETS.contains(&name.to_ascii_lowercase().as_str()));
    let mut text = Vec::with_capacity(256 + body.map_or(0, |body| body.get().len()));
    for (member, value) in [
        ("{\"action\":", action.map_or("null", RawValue::get)),
        (",\"body\":", body.map_or("{}", RawValue::get)),
        (",\"headers\":", &Value::Object(shown).to_string()),
    ] {
        text.extend_from_slice(member.as_bytes());
        text.extend_from_slice(value.as_bytes());
    }
    text.extend_from_slice(b",\"api\":\"v2\"}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(document: &str) -> String {
        let refused = Read::new(document.as_bytes()).request;
        let reply = refused.expect_err("it is refused").into_reply();
        String::from_utf8(reply.body).expect("text")
    }

    #[test]
    fn what_is_no_request_is_refused_in_the_order_of_the_specification() {
        for (document, error) in [
            ("[]", "Unexpected body type. Expected dict or dict like."),
            ("1", "Unexpected body type. Expected dict or dict like."),
            ("{}", "None is not a valid action"),
            (r#"{"action": null}"#, "None is not a valid action"),
            (r#"{"action": "nope"}"#, "nope is not a valid action"),
            (r#"{"action": "queue_list"}"#, "Schema validation failed."),
            (
                r#"{"action": "queue_list", "headers": {"Client-ID": "c"}}"#,
                "Schema validation failed.",
            ),
            (
                r#"{"action": "queue_list", "headers": {"Client-ID": 1, "X-Project-ID": "p"}}"#,
                "Schema validation failed.",
            ),
            (
                r#"{"action": "queue_list", "headers": {"Client-ID": "c", "X-Project-ID": "p"}, "body": []}"#,
                "Schema validation failed.",
            ),
        ] {
            assert_eq!(error_of(document), format!("{{\"error\": \"{error}\"}}"));
        }
    }

    #[test]
    fn a_request_is_shown_again_without_its_secrets() {
        let document = r#"{"action": "nope", "headers": {"X-Auth-Token": "t", "x-service-token": "s", "A": 1}, "body": {"b": 2}}"#;
        let read = Read::new(document.as_bytes());
        assert_eq!(
            String::from_utf8(read.echo).expect("text"),
            r#"{"action":"nope","body":{"b": 2},"headers":{"A":1},"api":"v2"}"#
        );
        let document = r#"{"action": "authenticate", "headers": {"X-Auth-Token": "t"}}"#;
        let read = Read::new(document.as_bytes());
        assert!(
            !String::from_utf8(read.echo)
                .expect("text")
                .contains("\"t\"")
        );
    }
}
