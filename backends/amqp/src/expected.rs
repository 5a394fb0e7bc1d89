//! Copies that callers expect.
//!
//! A message that is taken over is got once more, from the companion of its queue, and several callers do that at the same
//! moment. Each gets what stands first there, whosever it is. If he kept it, he might meet a message that is older than
//! what he has received before: one that a slower caller has copied. So whoever gets a copy that another caller of this
//! server expects hands it over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use isimud_contract::{Delivery, MessageId};
use tokio::sync::Notify;

use crate::held::{Held, Tag};

/// What the callers of one queue expect. What has come for one of them is held for him.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    copies: Mutex<HashMap<MessageId, Option<(Tag, Delivery)>>>,
    came: Notify,
}

/// What one caller expects. When he goes, what came for him and was not taken goes back.
#[derive(Debug)]
pub(crate) struct Expecting {
    expected: Arc<Expected>,
    ids: Vec<MessageId>,
    held: Arc<Held>,
}

impl Drop for Expecting {
    fn drop(&mut self) {
        let mut copies = self.expected.copies();
        let came = self.ids.iter().filter_map(|id| copies.remove(id).flatten());
        let tags: Vec<Tag> = came.map(|(tag, _)| tag).collect();
        drop(copies);
        self.held.extend(&tags, self.held.now());
    }
}

impl Expected {
    /// Has copies with these ids handed over. One that somebody expects already stays his.
    pub(crate) fn expect(
        self: &Arc<Self>,
        ids: impl IntoIterator<Item = MessageId>,
        held: Arc<Held>,
    ) -> Expecting {
        let mut copies = self.copies();
        let mut ids: Vec<MessageId> = ids.into_iter().collect();
        ids.retain(|id| !copies.contains_key(id));
        copies.extend(ids.iter().map(|id| (*id, None)));
        Expecting {
            expected: Arc::clone(self),
            ids,
            held,
        }
    }

    /// Hands a copy over to the caller who expects it. It comes back where nobody does.
    pub(crate) fn hand_over(&self, tag: Tag, delivery: Delivery) -> Option<Delivery> {
        match self.copies().get_mut(&delivery.message.id) {
            Some(place @ None) => *place = Some((tag, delivery)),
            _ => return Some(delivery),
        }
        self.came.notify_waiters();
        None
    }

    fn copies(&self) -> MutexGuard<'_, HashMap<MessageId, Option<(Tag, Delivery)>>> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Expecting {
    /// Whether this caller expects it.
    pub(crate) fn has(&self, id: MessageId) -> bool {
        self.ids.contains(&id)
    }

    /// Takes what others have got for this caller.
    pub(crate) fn take(&self) -> Vec<(Tag, Delivery)> {
        let mut copies = self.expected.copies();
        let came = self.ids.iter().filter_map(|id| copies.get_mut(id)?.take());
        came.collect()
    }

    /// The next moment at which something comes for anybody.
    pub(crate) fn comes(&self) -> tokio::sync::futures::Notified<'_> {
        self.expected.came.notified()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use isimud_contract::{ClientId, Message, Receipt, Timestamp};
    use uuid::Uuid;

    use super::*;

    fn copy(number: u128) -> (Tag, Delivery) {
        let id = MessageId(Uuid::from_u128(number));
        let client = ClientId::Uuid(Uuid::nil());
        let minute = std::time::Duration::from_secs(60);
        let delivery = Delivery {
            message: Message::new(id, client, minute, "1"),
            posted: Timestamp(0),
            receipt: Receipt(Bytes::new()),
            awaits_record: false,
        };
        let tag = Tag {
            channel: 1,
            delivery: 1,
        };
        (tag, delivery)
    }

    #[test]
    fn a_copy_goes_to_the_caller_who_expects_it_for_as_long_as_he_is_there() {
        let expected = Arc::<Expected>::default();
        let held = Arc::new(Held::new(None));
        let [(tag, mine), (_, others)] = [1, 2].map(copy);
        let expecting = expected.expect([mine.message.id], Arc::clone(&held));
        assert!(expecting.has(mine.message.id) && !expecting.has(others.message.id));
        assert_eq!(expected.hand_over(tag, others.clone()), Some(others));
        assert_eq!(expected.hand_over(tag, mine.clone()), None);
        // A second one of that id is nobody's.
        assert_eq!(expected.hand_over(tag, mine.clone()), Some(mine.clone()));
        assert_eq!(expecting.take(), [(tag, mine.clone())]);
        assert!(expecting.take().is_empty());
        drop(expecting);
        assert_eq!(expected.hand_over(tag, mine.clone()), Some(mine));
    }
}
