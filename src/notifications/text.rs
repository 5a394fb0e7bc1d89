//! What notifications say (spec: subscriptions.md 6.1 and 7).

use std::borrow::Cow;

use bytes::Bytes;
use isimud_contract::{Metadata, QueueKey, SubscriptionId, Timestamp};
use serde_json::{Map, Value, json};

use super::entry::{Entry, What};
use crate::dates;
use crate::signature::{Grant, Signer};

/// What stands in `post_data` where the notification is to be put, quotes included.
const PLACEHOLDER: &str = "\"$zaqar_message$\"";

/// The document of a message: its body as it was posted, or what is left of it in a queue that encrypts.
pub(crate) fn message(source: &QueueKey, ttl: u64, delay: Option<u64>, body: &str) -> String {
    let mut text = format!("{{\"ttl\": {ttl}, \"body\": {}", in_ascii(body));
    if let Some(delay) = delay {
        text.push_str(&format!(", \"delay\": {delay}"));
    }
    let name = source.name.shown();
    text.push_str(&format!(
        ", \"Message_Type\": \"Notification\", \"queue_name\": \"{name}\"}}"
    ));
    text
}

/// JSON with every other symbol escaped, as the reference writes it: mail needs plain ASCII. Outside of strings JSON
/// has nothing else.
fn in_ascii(json: &str) -> Cow<'_, str> {
    if json.is_ascii() {
        return Cow::Borrowed(json);
    }
    let mut text = String::with_capacity(json.len() * 2);
    for symbol in json.chars() {
        if symbol.is_ascii() {
            text.push(symbol);
            continue;
        }
        for unit in symbol.encode_utf16(&mut [0; 2]) {
            text.push_str(&format!("\\u{unit:04x}"));
        }
    }
    Cow::Owned(text)
}

/// The template of a subscription, if it has one.
pub(crate) fn frame(options: &Metadata) -> Option<&str> {
    let frame = options.get("post_data").and_then(Value::as_str);
    frame.filter(|frame| !frame.is_empty())
}

/// How many places for the notification a template has.
pub(crate) fn places(frame: &str) -> usize {
    frame.matches(PLACEHOLDER).count()
}

/// Bytes that a notification takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// As it is sent.
    pub(crate) sent: usize,
    /// While it is made, and sent.
    pub(crate) in_all: usize,
}

/// What stands around a body in a notification, at the most: the longest name of a queue and all numbers.
const ENVELOPE_BYTES: usize = 512;
/// What a question to a receiver has, at the most.
const CONFIRMATION_BYTES: usize = 4 << 10;

/// Bytes that a notification will take, at the most, told before it is made.
pub(crate) fn size(entry: &Entry, frame: Option<&str>) -> Size {
    let document = match &entry.what {
        What::Message { body, .. } => length_in_ascii(body).saturating_add(ENVELOPE_BYTES),
        What::Confirmation { .. } => CONFIRMATION_BYTES,
    };
    let Some(frame) = frame else {
        return Size {
            sent: document,
            in_all: document.saturating_add(entry_bytes(entry)),
        };
    };
    let sent = places(frame)
        .saturating_mul(document)
        .saturating_add(frame.len());
    Size {
        sent,
        in_all: sent.saturating_add(document),
    }
}

fn entry_bytes(entry: &Entry) -> usize {
    match &entry.what {
        What::Message { body, .. } => body.len(),
        What::Confirmation { .. } => 0,
    }
}

/// The length that [`in_ascii`] gives a text.
fn length_in_ascii(text: &[u8]) -> usize {
    let length = |byte: &u8| match byte {
        0..0x80 => 1,
        // The first byte of a symbol, and what it needs: one unit of UTF-16 or two.
        0xF0.. => 12,
        0xC0..0xF0 => 6,
        // The others of a symbol.
        _ => 0,
    };
    text.iter().map(length).sum()
}

/// A notification as it is sent over HTTP: by itself, or inside what the subscriber asks to be sent.
pub(crate) fn posted(frame: Option<&str>, notification: String) -> Bytes {
    match frame {
        Some(frame) => frame.replace(PLACEHOLDER, &notification).into(),
        None => notification.into(),
    }
}

/// What a receiver needs to say whether it agrees.
#[derive(Debug, Clone)]
pub(crate) struct ConfirmationRequest<'a> {
    pub(crate) source: &'a QueueKey,
    pub(crate) subscription: SubscriptionId,
    /// It gets nothing any more, and is told how to have that changed.
    pub(crate) leaving: bool,
    pub(crate) expires: Timestamp,
}

impl ConfirmationRequest<'_> {
    /// What a receiver has to put into the headers of its answer; `None` when there is no key to sign with, or the project
    /// is one for which nothing is signed.
    pub(crate) fn sign(&self, signer: &Signer) -> Option<(Grant, String)> {
        let collection = if self.source.name.is_topic() {
            "topics"
        } else {
            "queues"
        };
        let queue = self.source.name.shown();
        let grant = Grant {
            paths: vec![format!(
                "/v2/{collection}/{queue}/subscriptions/{}/confirm",
                self.subscription
            )],
            methods: vec!["PUT".to_owned()],
            project: self.source.project.to_string(),
            expires: self.expires,
        };
        let signature = signer.sign(&grant)?;
        Some((grant, signature))
    }

    fn sentence(&self) -> String {
        let queue = self.source.name.shown();
        if self.leaving {
            format!(
                "You have unsubscribed successfully to the queue: {queue}, you can resubscribe it by using confirmed=True."
            )
        } else {
            format!("You have chosen to subscribe to the queue: {queue}")
        }
    }

    /// The document of the question. `service` is where this service is, if the receiver is to be told.
    pub(crate) fn document(&self, grant: &Grant, signature: &str, service: &str) -> String {
        let mut document = Map::new();
        if !service.is_empty() {
            document.insert(
                "WSGISubscribeURL".into(),
                json!(confirm_url(service, grant)),
            );
        }
        let kind = if self.leaving {
            "UnsubscribeConfirmation"
        } else {
            "SubscriptionConfirmation"
        };
        for (key, value) in [
            ("Message_Type", json!(kind)),
            ("Message", json!(self.sentence())),
            ("URL-Signature", json!(signature)),
            ("URL-Methods", json!(grant.methods.join(","))),
            ("URL-Paths", json!(grant.paths.join(","))),
            ("X-Project-ID", json!(grant.project)),
            ("URL-Expires", json!(dates::zoneless(grant.expires))),
            ("SubscribeBody", json!({"confirmed": true})),
            ("UnsubscribeBody", json!({"confirmed": false})),
            ("queue_name", json!(self.source.name.shown())),
        ] {
            document.insert(key.to_owned(), value);
        }
        in_ascii(&spaced(&Value::Object(document))).into_owned()
    }

    /// The link of a mail: the operator's page, which has to make the request in the receiver's place. As in the
    /// reference nothing in it is encoded.
    pub(crate) fn link(&self, page: &str, grant: &Grant, signature: &str, service: &str) -> String {
        let url = if service.is_empty() {
            String::new()
        } else {
            confirm_url(service, grant)
        };
        format!(
            "{page}?Signature={signature}&Methods={}&Paths={}&Project={}&Expires={}&Url={url}&Queue={}",
            grant.methods.join(","),
            grant.paths.join(","),
            grant.project,
            dates::zoneless(grant.expires),
            self.source.name.shown()
        )
    }
}

/// Where a receiver sends its answer: the signed path on the service's host.
fn confirm_url(service: &str, grant: &Grant) -> String {
    let host = service.find("://").map_or(0, |at| at + 3);
    let end = service[host..]
        .find('/')
        .map_or(service.len(), |at| host + at);
    format!("{}{}", &service[..end], grant.paths.join(","))
}

/// JSON with the reference's separators.
fn spaced(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let members: Vec<String> = members
                .iter()
                .map(|(key, value)| format!("{}: {}", Value::from(key.as_str()), spaced(value)))
                .collect();
            format!("{{{}}}", members.join(", "))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(spaced).collect();
            format!("[{}]", items.join(", "))
        }
        scalar => scalar.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use isimud_contract::{ManualClock, ProjectId, QueueName};
    use uuid::Uuid;

    use super::*;

    fn source(name: &str) -> QueueKey {
        let project = ProjectId::parse("p1").expect("a project");
        QueueKey::new(project, QueueName::parse(name).expect("a name"))
    }

    #[test]
    fn a_notification_is_the_document_of_the_specification() {
        assert_eq!(
            message(&source("n1"), 100, None, r#"{"hello": "wörld", "n": 1}"#),
            r#"{"ttl": 100, "body": {"hello": "w\u00f6rld", "n": 1}, "Message_Type": "Notification", "queue_name": "n1"}"#
        );
        assert_eq!(
            message(&source("n1"), 60, Some(5), "\"\u{1F600}\""),
            r#"{"ttl": 60, "body": "\ud83d\ude00", "delay": 5, "Message_Type": "Notification", "queue_name": "n1"}"#
        );
        let topic = QueueName::of_topic(&source("t").name);
        let topic = QueueKey::new(source("t").project, topic);
        assert!(message(&topic, 60, None, "1").ends_with("\"queue_name\": \"t\"}"));
    }

    #[test]
    fn a_frame_takes_the_notification_wherever_it_is_quoted() {
        let template =
            r#"{"workflow": "wf", "input": {"m": "$zaqar_message$"}, "bare": $zaqar_message$}"#;
        let options = Map::from_iter([("post_data".to_owned(), json!(template))]);
        let text = message(&source("n3"), 100, None, r#"{"a": "quote\"d"}"#);
        assert_eq!(
            posted(frame(&options), text),
            concat!(
                r#"{"workflow": "wf", "input": {"m": {"ttl": 100, "body": {"a": "quote\"d"}, "#,
                r#""Message_Type": "Notification", "queue_name": "n3"}}, "bare": $zaqar_message$}"#
            )
        );
        assert_eq!(posted(frame(&Map::new()), "x".into()), "x");
        for text in ["", "plain", "w\u{f6}rld \u{20ac}", "\u{1F600}"] {
            assert_eq!(length_in_ascii(text.as_bytes()), in_ascii(text).len());
        }
    }

    #[test]
    fn a_question_is_the_document_of_the_specification() {
        let signer = Signer::new("k", Arc::new(ManualClock::default()));
        let (queue, id) = (source("sq"), Uuid::from_u128(1));
        let mut confirmation = ConfirmationRequest {
            source: &queue,
            subscription: SubscriptionId(id),
            leaving: false,
            expires: dates::parse("2026-11-23T04:41:24").expect("a date"),
        };
        let (grant, signature) = confirmation.sign(&signer).expect("a key");
        let path = format!("/v2/queues/sq/subscriptions/{id}/confirm");
        assert_eq!(
            confirmation.document(&grant, &signature, ""),
            format!(
                "{{\"Message_Type\": \"SubscriptionConfirmation\", \"Message\": \"You have chosen to subscribe to the \
                 queue: sq\", \"URL-Signature\": \"{signature}\", \"URL-Methods\": \"PUT\", \"URL-Paths\": \"{path}\", \
                 \"X-Project-ID\": \"p1\", \"URL-Expires\": \"2026-11-23T04:41:24\", \"SubscribeBody\": {{\"confirmed\": \
                 true}}, \"UnsubscribeBody\": {{\"confirmed\": false}}, \"queue_name\": \"sq\"}}"
            )
        );
        assert_eq!(
            confirmation.link(
                "http://page.example/x",
                &grant,
                "abc",
                "https://mq.example:8888/messaging"
            ),
            format!(
                "http://page.example/x?Signature=abc&Methods=PUT&Paths={path}&Project=p1&Expires=2026-11-23T04:41:24&\
                 Url=https://mq.example:8888{path}&Queue=sq"
            )
        );
        confirmation.leaving = true;
        let told = confirmation.document(&grant, &signature, "http://mq.example");
        assert!(told.starts_with(&format!(
            "{{\"WSGISubscribeURL\": \"http://mq.example{path}\", \"Message_Type\": \"Uns"
        )));
    }
}
