//! Documents that carry messages: a body goes to the client as the text it is, and is not parsed on the way.

use isimud_contract::{Claim, ClaimId, Message, MessageId};

/// A document in the making.
#[derive(Debug, Default)]
pub(super) struct Text(Vec<u8>);

impl Text {
    pub(super) fn new(start: &str) -> Self {
        Self(start.as_bytes().to_vec())
    }

    pub(super) fn add(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// A message; `claim` is what the action says of its claim.
    pub(super) fn message(&mut self, message: &Message, claim: Option<ClaimId>) -> &mut Self {
        let claim = claim.map_or("null".to_owned(), |claim| format!("\"{claim}\""));
        let (ttl, age) = (message.ttl.as_secs(), message.age.as_secs());
        self.add(&format!(
            "{{\"id\":\"{}\",\"claim_id\":{claim},\"ttl\":{ttl},\"age\":{age},\"body\":",
            message.id
        ));
        self.0.extend_from_slice(&message.body);
        self.add("}")
    }

    /// A list of messages.
    pub(super) fn messages(&mut self, messages: &[Message], claim: Option<ClaimId>) -> &mut Self {
        self.add("[");
        for (at, message) in messages.iter().enumerate() {
            if at > 0 {
                self.add(",");
            }
            self.message(message, claim);
        }
        self.add("]")
    }

    pub(super) fn end(&mut self) -> Vec<u8> {
        self.add("}");
        std::mem::take(&mut self.0)
    }
}

/// Messages that are listed or read: nothing is said of their claims.
pub(super) fn messages(messages: &[Message]) -> Vec<u8> {
    Text::new("{\"messages\":").messages(messages, None).end()
}

/// One message.
pub(super) fn message(message: &Message) -> Vec<u8> {
    Text::new("{\"messages\":").message(message, None).end()
}

/// The ids of messages that were posted.
pub(super) fn posted(ids: &[MessageId]) -> Vec<u8> {
    let ids: Vec<String> = ids.iter().map(|id| format!("\"{id}\"")).collect();
    Text::new("{\"message_ids\":[")
        .add(&ids.join(","))
        .add("]")
        .end()
}

/// A claim that was just made.
pub(super) fn claimed(claim: &Claim) -> Vec<u8> {
    let mut text = Text::new("{\"claim_id\":\"");
    text.add(&claim.id.to_string()).add("\",\"messages\":");
    text.messages(&claim.messages, Some(claim.id)).end()
}

/// A claim that was asked for.
pub(super) fn claim(claim: &Claim) -> Vec<u8> {
    let (age, ttl) = (claim.age.as_secs(), claim.ttl.as_secs());
    let mut text = Text::new(&format!("{{\"age\":{age},\"ttl\":{ttl},\"messages\":"));
    text.messages(&claim.messages, Some(claim.id)).end()
}
