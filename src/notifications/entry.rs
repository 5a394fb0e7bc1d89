//! What is kept of a notification until it is delivered: a line of JSON that says what it is, and behind it the body as
//! it was posted, untouched. A body that is sealed stays sealed.

use std::borrow::Cow;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use isimud_contract::{
    ClientId, Error, ErrorKind, Message, MessageId, ProjectId, QueueKey, QueueName, Result,
    SubscriptionId, Timestamp,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A notification on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The queue, or the topic, that it is from.
    pub(crate) source: QueueKey,
    /// Names it to receivers, the same at every attempt: the message's id, or one of its own.
    pub(crate) id: MessageId,
    /// Attempts that have failed.
    pub(crate) failed: usize,
    /// The server that wrote it; it knows whether what it tells of has been stored.
    pub(crate) writer: Uuid,
    pub(crate) what: What,
}

/// What a notification tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// A message was posted.
    Message {
        ttl: Duration,
        /// Only where the queue delays.
        delay: Option<Duration>,
        sealed: bool,
        body: Bytes,
    },
    /// The receiver of one subscription is asked whether it agrees, or is told that it no longer gets anything.
    Confirmation {
        subscription: SubscriptionId,
        leaving: bool,
        /// When the signature ends with which it can answer.
        expires: Timestamp,
    },
}

#[derive(Serialize, Deserialize)]
struct Head<'a> {
    project: Cow<'a, str>,
    queue: Cow<'a, str>,
    id: Uuid,
    #[serde(default, skip_serializing_if = "is_zero")]
    failed: usize,
    writer: Uuid,
    #[serde(flatten)]
    kind: Kind,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Message {
        ttl_ms: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        delay_ms: Option<u64>,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        sealed: bool,
    },
    Consent {
        subscription: Uuid,
        leaving: bool,
        expires: i64,
    },
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Entry {
    /// The notification of a message that is being posted, sealed already if it is to be.
    pub(crate) fn of_message(source: &QueueKey, message: &Message, writer: Uuid) -> Self {
        Self {
            source: source.clone(),
            id: message.id,
            failed: 0,
            writer,
            what: What::Message {
                ttl: message.ttl,
                delay: (!message.delay.is_zero()).then_some(message.delay),
                sealed: message.sealed,
                body: message.body.clone(),
            },
        }
    }

    /// The text that is kept.
    pub(crate) fn encode(&self) -> Bytes {
        let (kind, body) = match &self.what {
            What::Message {
                ttl,
                delay,
                sealed,
                body,
            } => (
                Kind::Message {
                    ttl_ms: millis(*ttl),
                    delay_ms: delay.map(millis),
                    sealed: *sealed,
                },
                body.as_ref(),
            ),
            What::Confirmation {
                subscription,
                leaving,
                expires,
            } => (
                Kind::Consent {
                    subscription: subscription.0,
                    leaving: *leaving,
                    expires: expires.0,
                },
                &[][..],
            ),
        };
        let head = Head {
            project: self.source.project.as_str().into(),
            queue: self.source.name.as_str().into(),
            id: self.id.0,
            failed: self.failed,
            writer: self.writer,
            kind,
        };
        let mut text = BytesMut::with_capacity(body.len() + 256).writer();
        // A structure of our own with text keys: writing it to memory has no way to fail.
        serde_json::to_writer(&mut text, &head).unwrap_or_default();
        let mut text = text.into_inner();
        text.put_u8(b'\n');
        text.put_slice(body);
        text.freeze()
    }

    /// Reads what was kept. `Internal` when it is not what `encode` wrote.
    pub(crate) fn decode(text: &Bytes) -> Result<Self> {
        let broken = || {
            Error::new(
                ErrorKind::Internal,
                "a notification is kept in a form that is not known",
            )
        };
        let end = memchr::memchr(b'\n', text).ok_or_else(broken)?;
        let head = std::str::from_utf8(&text[..end]).map_err(|_| broken())?;
        let stored: Head<'_> =
            serde_json::from_str(head).map_err(|error| broken().caused_by(error))?;
        let name = |_| broken();
        let source = QueueKey::new(
            ProjectId::parse(&stored.project).map_err(name)?,
            QueueName::parse_stored(&stored.queue).map_err(name)?,
        );
        let what = match stored.kind {
            Kind::Message {
                ttl_ms,
                delay_ms,
                sealed,
            } => What::Message {
                ttl: Duration::from_millis(ttl_ms),
                delay: delay_ms.map(Duration::from_millis),
                sealed,
                body: text.slice(end + 1..),
            },
            Kind::Consent {
                subscription,
                leaving,
                expires,
            } => What::Confirmation {
                subscription: SubscriptionId(subscription),
                leaving,
                expires: Timestamp(expires),
            },
        };
        Ok(Self {
            source,
            id: MessageId(stored.id),
            failed: stored.failed,
            writer: stored.writer,
            what,
        })
    }

    /// The message that keeps it, under a name of the caller's choice.
    pub(crate) fn kept(&self, id: MessageId, ttl: Duration, delay: Duration) -> Message {
        Message {
            delay,
            ..Message::new(id, ClientId::Uuid(Uuid::nil()), ttl, self.encode())
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(what: What) -> Entry {
        let queue = QueueName::parse("q.1").expect("a name");
        Entry {
            source: QueueKey::new(
                ProjectId::parse("p \"ü\"").expect("a project"),
                QueueName::of_topic(&queue),
            ),
            id: MessageId(Uuid::from_u128(7)),
            failed: 3,
            writer: Uuid::from_u128(9),
            what,
        }
    }

    #[test]
    fn a_notification_is_read_as_it_was_written() {
        let message = |body: &'static str| {
            entry(What::Message {
                ttl: Duration::from_millis(60_001),
                delay: Some(Duration::from_secs(5)),
                sealed: true,
                body: body.into(),
            })
        };
        let consent = entry(What::Confirmation {
            subscription: SubscriptionId(Uuid::from_u128(1)),
            leaving: true,
            expires: Timestamp(-5),
        });
        for entry in [message("{\"a\":\n 1}"), message(""), consent] {
            assert_eq!(Entry::decode(&entry.encode()).expect("readable"), entry);
        }
    }

    #[test]
    fn a_body_is_kept_to_the_byte() {
        let body = "[1,\n  1.50, \"\u{1F600}\"]";
        let kept = entry(What::Message {
            ttl: Duration::from_secs(60),
            delay: None,
            sealed: false,
            body: body.into(),
        })
        .encode();
        assert!(kept.ends_with(body.as_bytes()));
        assert!(std::str::from_utf8(&kept).is_ok());
    }

    #[test]
    fn an_invalid_outbox_entry_is_not_decoded() {
        for bad in [
            "",
            "{}",
            "{}\n",
            "[]\n{}",
            "{\"project\":\"\",\"queue\":\"q\"}\n",
        ] {
            assert!(
                Entry::decode(&Bytes::from_static(bad.as_bytes())).is_err(),
                "{bad:?}"
            );
        }
    }
}
