//! Documents that carry messages, written by hand: a body goes from the store to the client as the bytes it is, and is
//! not parsed on the way.
//!
//! The structures describe these documents for the API's description; a test holds the two together. A message has
//! exactly these keys in this order, because clients build their objects from whatever keys there are; more only where a
//! client asks for them.

use isimud_contract::{Claim, ClaimId, Message, MessageId, QueueKey, QueueName};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::caller::collection_of;
use super::headers;

/// A message.
#[derive(Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct MessageDocument {
    id: String,
    /// Its path; with `?claim_id=` while a claim holds it.
    href: String,
    /// Seconds to live, as posted or as a claim extended it.
    ttl: u64,
    /// Seconds since it was posted.
    age: u64,
    /// As posted.
    #[schema(value_type = Value)]
    body: serde_json::Value,
    /// Where the service stores one.
    checksum: Option<String>,
    /// What its producer said beside the body, by names of its own; where `headers=true` asks for it.
    #[schema(value_type = Option<Object>)]
    headers: Option<serde_json::Value>,
    /// The same by names that brokers know: `content_type`, `correlation_id`, `reply_to`, `type`, `priority` and more.
    #[schema(value_type = Option<Object>)]
    properties: Option<serde_json::Value>,
}

/// A page of messages.
#[derive(Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct MessageListPage {
    messages: Vec<MessageDocument>,
    /// The link to the next page; empty when this page is.
    links: Vec<NextLink>,
}

/// The link to the next page.
#[derive(Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct NextLink {
    rel: String,
    href: String,
}

/// Messages.
#[derive(Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct MessageList {
    messages: Vec<MessageDocument>,
}

/// A message that was popped.
#[derive(Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct PoppedMessage {
    id: String,
    age: u64,
    ttl: u64,
    #[schema(value_type = Value)]
    body: serde_json::Value,
    /// Names nothing: a popped message is gone.
    claim_id: String,
    claim_count: u32,
    checksum: Option<String>,
    /// Where `headers=true` asks for it.
    #[schema(value_type = Option<Object>)]
    headers: Option<serde_json::Value>,
    /// Where `headers=true` asks for it.
    #[schema(value_type = Option<Object>)]
    properties: Option<serde_json::Value>,
}

/// Messages that were popped.
#[derive(Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct PoppedList {
    messages: Vec<PoppedMessage>,
}

/// A claim.
#[derive(Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct ClaimDocument {
    /// Seconds since it was made or last renewed.
    age: u64,
    /// Seconds that it runs from then.
    ttl: u64,
    /// What it still holds.
    messages: Vec<MessageDocument>,
    href: String,
}

/// Whether documents tell what producers said beside bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Beside {
    /// As clients of the reference know documents.
    #[default]
    Untold,
    /// With the members `headers` and `properties`.
    Told,
}

/// A document in the making.
struct Text(Vec<u8>);

impl Text {
    fn with_room_for(messages: &[Message]) -> Self {
        Self(Vec::with_capacity(
            64 + messages
                .iter()
                .map(|message| message.body.len() + 256)
                .sum::<usize>(),
        ))
    }

    fn add(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn id(&mut self, id: Uuid) -> &mut Self {
        let mut text = Uuid::encode_buffer();
        self.add(id.as_hyphenated().encode_lower(&mut text))
    }

    fn number(&mut self, number: u64) -> &mut Self {
        self.add(itoa::Buffer::new().format(number))
    }

    /// A text that needs no escapes: paths and names of our own.
    fn quoted(&mut self, text: &str) -> &mut Self {
        self.add("\"").add(text).add("\"")
    }

    fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) -> &mut Self {
        self.add("[");
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                self.add(", ");
            }
            each(self, item);
        }
        self.add("]")
    }

    fn message(&mut self, queue: &QueueName, message: &Message, beside: Beside) {
        self.add("{\"id\": \"").id(message.id.0);
        self.add("\", \"href\": \"")
            .add(collection_of(queue))
            .add(queue.shown())
            .add("/messages/")
            .id(message.id.0);
        if let Some(claim) = message.claim {
            self.add("?claim_id=").id(claim.0);
        }
        self.add("\", \"ttl\": ").number(message.ttl.as_secs());
        self.add(", \"age\": ").number(message.age.as_secs());
        self.add(", \"body\": ").bytes(&message.body);
        self.checksum(message).beside(message, beside).add("}");
    }

    fn beside(&mut self, message: &Message, beside: Beside) -> &mut Self {
        match beside {
            Beside::Untold => self,
            Beside::Told => self.add(", ").add(&headers::members(message)),
        }
    }

    fn checksum(&mut self, message: &Message) -> &mut Self {
        if let Some(checksum) = message.checksum {
            self.add(", \"checksum\": ").quoted(&checksum.to_string());
        }
        self
    }
}

/// One message.
pub(crate) fn message(queue: &QueueKey, message: &Message, beside: Beside) -> Vec<u8> {
    let mut text = Text::with_room_for(std::slice::from_ref(message));
    text.message(&queue.name, message, beside);
    text.0
}

/// Messages without links.
pub(crate) fn messages(queue: &QueueKey, messages: &[Message], beside: Beside) -> Vec<u8> {
    let mut text = Text::with_room_for(messages);
    text.add("{\"messages\": ")
        .list(messages, |text, message| {
            text.message(&queue.name, message, beside);
        })
        .add("}");
    text.0
}

/// A page of messages, with the link to the next one.
pub(crate) fn page(
    queue: &QueueKey,
    messages: &[Message],
    beside: Beside,
    next: Option<&str>,
) -> Vec<u8> {
    let mut text = Text::with_room_for(messages);
    text.add("{\"messages\": ").list(messages, |text, message| {
        text.message(&queue.name, message, beside);
    });
    text.add(", \"links\": ");
    text.list(next.as_slice(), |text, href| {
        text.add("{\"rel\": \"next\", \"href\": ")
            .quoted(href)
            .add("}");
    });
    text.add("}");
    text.0
}

/// Messages that were popped, in the form that only pop has.
pub(crate) fn popped(claim: ClaimId, messages: &[Message], beside: Beside) -> Vec<u8> {
    let mut text = Text::with_room_for(messages);
    text.add("{\"messages\": ").list(messages, |text, message| {
        text.add("{\"id\": \"").id(message.id.0);
        text.add("\", \"age\": ").number(message.age.as_secs());
        text.add(", \"ttl\": ").number(message.ttl.as_secs());
        text.add(", \"body\": ").bytes(&message.body);
        text.add(", \"claim_id\": \"").id(claim.0);
        text.add("\", \"claim_count\": ")
            .number(u64::from(message.claim_count));
        text.checksum(message).beside(message, beside).add("}");
    });
    text.add("}");
    text.0
}

/// A claim that was asked for.
pub(crate) fn claim(queue: &QueueKey, claim: &Claim, beside: Beside) -> Vec<u8> {
    let mut text = Text::with_room_for(&claim.messages);
    text.add("{\"age\": ")
        .number(claim.age.as_secs())
        .add(", \"ttl\": ")
        .number(claim.ttl.as_secs());
    text.add(", \"messages\": ")
        .list(&claim.messages, |text, message| {
            text.message(&queue.name, message, beside);
        });
    text.add(", \"href\": \"/v2/queues/")
        .add(queue.name.as_str())
        .add("/claims/")
        .id(claim.id.0)
        .add("\"}");
    text.0
}

/// The answer to a post.
pub(crate) fn posted(collection: &str, ids: &[MessageId]) -> Vec<u8> {
    let mut text = Text(Vec::with_capacity(32 + ids.len() * (collection.len() + 42)));
    text.add("{\"resources\": ").list(ids, |text, id| {
        text.add("\"").add(collection).add("/").id(id.0).add("\"");
    });
    text.add("}");
    text.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use isimud_contract::{Checksum, ClientId, ProjectId};
    use serde::de::DeserializeOwned;

    use super::*;

    fn queue() -> QueueKey {
        QueueKey::new(
            ProjectId::parse("p").expect("a project"),
            QueueName::parse("q.1").expect("a name"),
        )
    }

    fn full_message() -> Message {
        let client = ClientId::Uuid(Uuid::nil());
        let body = r#"{"b":  [1.50, "é"]}"#;
        Message {
            claim: Some(ClaimId(Uuid::from_u128(2))),
            checksum: Some(Checksum([171; 16])),
            age: Duration::from_millis(61_999),
            ..Message::new(
                MessageId(Uuid::from_u128(1)),
                client,
                Duration::from_secs(300),
                body,
            )
        }
    }

    /// That a document is JSON and has exactly the keys of its description.
    fn described<T: DeserializeOwned>(document: &[u8]) {
        if let Err(error) = serde_json::from_slice::<T>(document) {
            panic!("{error} in {}", String::from_utf8_lossy(document));
        }
    }

    #[test]
    fn a_message_has_its_keys_in_order_and_its_body_as_posted() {
        let text = message(&queue(), &full_message(), Beside::Untold);
        let text = String::from_utf8(text).expect("text");
        assert_eq!(
            text,
            "{\"id\": \"00000000-0000-0000-0000-000000000001\", \"href\": \
             \"/v2/queues/q.1/messages/00000000-0000-0000-0000-000000000001?claim_id=00000000-0000-0000-0000-000000000002\", \
             \"ttl\": 300, \"age\": 61, \"body\": {\"b\":  [1.50, \"é\"]}, \"checksum\": \
             \"MD5:abababababababababababababababab\"}"
        );
    }

    #[test]
    fn documents_are_what_their_descriptions_say() {
        let (queue, several) = (queue(), [full_message(), full_message()]);
        let plain = Message {
            claim: None,
            checksum: None,
            ..full_message()
        };
        for beside in [Beside::Untold, Beside::Told] {
            described::<MessageDocument>(&message(&queue, &plain, beside));
            described::<MessageList>(&messages(&queue, &several, beside));
            let next = Some("/v2/x?marker=1");
            described::<MessageListPage>(&page(&queue, &several, beside, next));
            described::<MessageListPage>(&page(&queue, &[], beside, None));
            described::<PoppedList>(&popped(ClaimId(Uuid::nil()), &several, beside));
        }
        let held = Claim {
            id: ClaimId(Uuid::nil()),
            ttl: Duration::from_secs(60),
            age: Duration::ZERO,
            messages: several.to_vec(),
        };
        described::<ClaimDocument>(&claim(&queue, &held, Beside::Untold));
        described::<ClaimDocument>(&claim(&queue, &held, Beside::Told));
    }
}
