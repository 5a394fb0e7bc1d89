//! Messages of which it is not known whether they will come again although there is a copy of them.
//!
//! A message without an id is replaced by a copy with one: the copy is confirmed, then the original is acknowledged. An
//! acknowledgement has no answer, and a connection may break before a confirm is heard. Then the original comes again, and
//! nothing in it says of which copy it is the original. Adopted under another id it would be processed twice. So its
//! fingerprint and the copy's id are kept until an answer on the same channel proves that RabbitMQ has read the
//! acknowledgement; what comes again meanwhile gets the same id, by which the ledger knows it. Nothing is thrown away here:
//! of a copy that was never stored the next one is the first.
//!
//! | what comes | its id |
//! |---|---|
//! | for the first time | a fresh one |
//! | again, equal to one message in doubt in its body and in everything beside it | that one's |
//! | again, equal to several in doubt, or to one that came in the same call | a fresh one: it may be another that was posted twice |
//!
//! A server that was killed leaves copies in companions, and perhaps their originals in the queues. Its successor takes the
//! copies that it finds in its first minute for such, but only those to which their producer gave a `message_id` or a
//! `correlation_id`: others may have an equal that natives gave back.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isimud_contract::MessageId;
use lapin::BasicProperties;
use lapin::types::{FieldTable, ShortString};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::publisher::Outgoing;

/// How long an original may take to come again: longer than RabbitMQ needs to find a connection dead, and no longer than it
/// must, as another that is equal in everything would be taken for it.
const REDELIVERY_WINDOW: Duration = Duration::from_secs(150);

/// Messages that are in doubt, at the most, of all queues. Beyond that one may come twice.
const CAPACITY: usize = 20_000;

/// Tells a message by its body and by everything beside it, but for what a copy has more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a copy, or of what would be published as one, of a message of this queue.
    pub(crate) fn of(queue: &ShortString, copy: &Outgoing) -> Self {
        let mut digest = Sha256::new();
        digest.update(format!("{queue:?}\0"));
        let headers = copy.properties.headers().clone().unwrap_or_default();
        for (name, value) in headers.inner() {
            if name.as_str() != crate::native::ID {
                digest.update(format!("{name:?}={value:?};"));
            }
        }
        let beside = copy.properties.clone().with_headers(FieldTable::default());
        digest.update(format!("{beside:?}\0"));
        digest.update(&copy.body);
        Self(digest.finalize().into())
    }
}

/// Whether the producer gave a message something to tell it by.
pub(crate) fn has_name(properties: &BasicProperties) -> bool {
    properties.message_id().is_some() || properties.correlation_id().is_some()
}

/// Messages that are in doubt.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    all: Mutex<HashMap<Fingerprint, Doubt>>,
}

#[derive(Debug, Clone, Copy)]
struct Doubt {
    until: Instant,
    /// The id of its copy; none where there are several that are equal.
    id: Option<MessageId>,
}

impl Doubts {
    /// Notes that messages may come again of which there are copies with these ids.
    pub(crate) fn note(&self, originals: &[(Fingerprint, MessageId)]) {
        let (mut all, now) = (self.all(), Instant::now());
        for (original, id) in originals {
            if all.len() >= CAPACITY {
                all.retain(|_, doubt| doubt.until > now);
            }
            let until = now + REDELIVERY_WINDOW;
            let known = all.get_mut(original).filter(|doubt| doubt.until > now);
            if let Some(known) = known {
                let id = known.id.filter(|known| known == id);
                *known = Doubt { until, id };
            } else if all.len() < CAPACITY {
                let id = Some(*id);
                all.insert(*original, Doubt { until, id });
            }
        }
    }

    /// Notes that these will not come again, or that there are no copies of them.
    pub(crate) fn settle(&self, originals: &[(Fingerprint, MessageId)]) {
        let mut all = self.all();
        for (original, id) in originals {
            if all.get(original).is_some_and(|it| it.id == Some(*id)) {
                all.remove(original);
            }
        }
    }

    /// The id of the copy that there is, or may be, of a message that comes again.
    pub(crate) fn id_of(&self, original: Fingerprint) -> Option<MessageId> {
        let all = self.all();
        let doubt = all.get(&original)?;
        doubt.id.filter(|_| doubt.until > Instant::now())
    }

    /// Whether nothing is in doubt, so that there is no need to look.
    pub(crate) fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Fingerprint, Doubt>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use lapin::types::AMQPValue;
    use uuid::Uuid;

    use super::*;
    use crate::holder::Got;
    use crate::native;

    fn got(properties: BasicProperties, body: &str) -> Got {
        Got {
            tag: crate::held::Tag {
                channel: 1,
                delivery: 1,
            },
            exchange: "e".into(),
            routing_key: "k".into(),
            is_again: false,
            properties,
            body: body.into(),
        }
    }

    fn of(properties: &BasicProperties, body: &str) -> Fingerprint {
        let got = got(properties.clone(), body);
        Fingerprint::of(
            &"q".into(),
            &native::copy(&got, MessageId(Uuid::now_v7()), None),
        )
    }

    #[test]
    fn an_original_and_its_copy_have_one_fingerprint_and_others_have_others() {
        let mut headers = FieldTable::default();
        headers.insert("x-delivery-count".into(), AMQPValue::LongLongInt(2));
        headers.insert("mine".into(), AMQPValue::LongInt(1));
        let named = BasicProperties::default()
            .with_message_id("1".into())
            .with_user_id("me".into())
            .with_headers(headers);
        let original = of(&named, "a");
        assert_eq!(original, of(&named, "a"), "whatever its id is");
        let copy = native::copy(&got(named.clone(), "a"), MessageId(Uuid::now_v7()), None);
        let back = got(copy.properties, "a");
        assert_eq!(
            Fingerprint::of(&"q".into(), &native::returned(back)),
            original
        );
        assert_ne!(of(&named, "b"), original);
        assert_ne!(
            of(&named.clone().with_message_id("2".into()), "a"),
            original
        );
        assert_ne!(
            of(&named.with_headers(FieldTable::default()), "a"),
            original
        );
    }

    fn id(number: u128) -> MessageId {
        MessageId(Uuid::from_u128(number))
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_is_in_doubt_until_its_acknowledgement_is_proved_or_for_some_time() {
        let doubts = Doubts::default();
        let [one, two] = ["1", "2"].map(|body| of(&BasicProperties::default(), body));
        doubts.note(&[(one, id(1)), (two, id(2))]);
        assert_eq!(doubts.id_of(one), Some(id(1)));
        // It was adopted once more, under the same id.
        doubts.note(&[(one, id(1))]);
        assert_eq!(doubts.id_of(one), Some(id(1)));
        doubts.settle(&[(one, id(1)), (two, id(7))]);
        assert_eq!(doubts.id_of(one), None);
        assert_eq!(doubts.id_of(two), Some(id(2)));
        tokio::time::advance(REDELIVERY_WINDOW).await;
        assert_eq!(doubts.id_of(two), None);
    }

    #[test]
    fn of_equals_none_is_told() {
        let doubts = Doubts::default();
        let one = of(&BasicProperties::default(), "tick");
        doubts.note(&[(one, id(1)), (one, id(2))]);
        assert_eq!(doubts.id_of(one), None);
        doubts.settle(&[(one, id(1))]);
        assert_eq!(doubts.id_of(one), None);
    }

    #[test]
    fn no_more_are_kept_than_there_is_room_for() {
        let doubts = Doubts::default();
        let numbered = |number: usize| of(&BasicProperties::default(), &number.to_string());
        for number in 0..=CAPACITY {
            doubts.note(&[(numbered(number), id(1))]);
        }
        assert_eq!(doubts.id_of(numbered(0)), Some(id(1)));
        assert_eq!(doubts.id_of(numbered(CAPACITY)), None);
    }
}
