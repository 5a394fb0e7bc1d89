//! Attempts that may have ended the process.
//!
//! What is in a queue when a server takes it over was perhaps being sent when the one before it died, and perhaps that
//! is why. So the first entries of such a queue are marked before they are sent, and the mark goes when the attempt is
//! over, however it is. An entry that is found with too many marks is given up. Queues that nobody died over write no
//! marks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use isimud_contract::{ClientId, Message, MessageId, Precondition, QueueKey, Result};
use uuid::Uuid;

use super::Deliveries;

/// How often an entry may be begun and never finished before it is given up.
pub(crate) const MAX_UNFINISHED_ATTEMPTS: usize = 2;
/// Marks that are read: more than there can be of a queue, as one entry is sent at a time.
const PAGE_SIZE: usize = 100;
/// The life of a mark: longer than any notification's.
const MARKER_TTL: Duration = Duration::from_hours(24 * 366);

/// The marks of a queue.
#[derive(Debug)]
pub(crate) struct AttemptMarkers {
    queue: QueueKey,
    /// Marks by entry, as they were found.
    found: HashMap<MessageId, Vec<MessageId>>,
}

/// The marks of the attempts that run now, so that a server that stops in good order takes them away.
pub(crate) type Running = Mutex<HashMap<MessageId, QueueKey>>;

impl AttemptMarkers {
    /// Reads the marks that were left.
    pub(crate) async fn read(deliveries: &Deliveries, queue: &QueueKey) -> Result<Self> {
        let page = deliveries.list(queue, None, PAGE_SIZE, true).await?;
        let mut found: HashMap<MessageId, Vec<MessageId>> = HashMap::new();
        for mark in page.messages {
            let text = std::str::from_utf8(&mark.body).unwrap_or("");
            if let Ok(entry) = text.trim_matches('"').parse::<Uuid>() {
                found.entry(MessageId(entry)).or_default().push(mark.id);
            }
        }
        Ok(Self {
            queue: queue.clone(),
            found,
        })
    }

    /// Notes that an entry is begun, unless it was too often.
    pub(crate) async fn begin(
        &mut self,
        deliveries: &Deliveries,
        running: &Running,
        entry: MessageId,
    ) -> Result<bool> {
        let marks = self.found.entry(entry).or_default();
        let own = {
            let running = running.lock().unwrap_or_else(PoisonError::into_inner);
            marks
                .iter()
                .find(|mark| running.contains_key(mark))
                .copied()
        };
        let mark = match own {
            // The store failed meanwhile, and not the service.
            Some(mark) => mark,
            None if marks.len() >= MAX_UNFINISHED_ATTEMPTS => return Ok(false),
            None => {
                let number = [u8::try_from(marks.len()).unwrap_or(u8::MAX)];
                let mark = MessageId(Uuid::new_v5(&entry.0, &number));
                marks.push(mark);
                running
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(mark, self.queue.clone());
                mark
            }
        };
        let text = format!("\"{}\"", entry.0);
        let nobody = ClientId::Uuid(Uuid::nil());
        let message = Message::new(mark, nobody, MARKER_TTL, text);
        deliveries.store().post(&self.queue, vec![message]).await?;
        Ok(true)
    }

    /// Takes the marks of an entry away: its attempt is over.
    pub(crate) async fn end(
        &mut self,
        deliveries: &Deliveries,
        running: &Running,
        entry: MessageId,
    ) -> Result<()> {
        let Some(marks) = self.found.remove(&entry).filter(|marks| !marks.is_empty()) else {
            return Ok(());
        };
        let store = deliveries.store();
        store
            .delete(&self.queue, &marks, Precondition::None)
            .await?;
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        for mark in marks {
            running.remove(&mark);
        }
        Ok(())
    }
}

/// Takes away the marks of attempts that were cut off on purpose.
pub(crate) async fn withdraw(deliveries: &Arc<Deliveries>, running: &Running) {
    let left = std::mem::take(&mut *running.lock().unwrap_or_else(PoisonError::into_inner));
    for (mark, queue) in left {
        let marks = [mark];
        let deleting = deliveries
            .store()
            .delete(&queue, &marks, Precondition::None);
        if let Err(error) = deleting.await {
            tracing::debug!(%error, %queue, "cannot delete the marker of an interrupted attempt; it counts as one that ended the process");
            return;
        }
    }
}
