//! Carries messages from one store to another: none is lost, none is doubled, wherever it is cut off.
//!
//! ```text
//! 0  recover: delete from every old segment what is in `through`, and move that on as in 5
//! 1  claim some messages of the old segment              they are invisible there
//! 2  post them to `through`, transferred once more       a queue beside the new segment that nobody reads
//! 3  see that all of them are there                      else: keep the old segment, stop, and say so
//! 4  delete them from the old segment
//! 5  move them on from `through` to the new segment,     in one step of that store, as dead letters are moved; or, in a
//!    transferred once more                               store that leases: post there, then delete here
//! ```
//!
//! | cut off | what there is of a message that was transferred `n` times before | what follows |
//! |---|---|---|
//! | before 2 | old: `n`, held until the claim ends | it is carried later; nothing newer is carried before, as far as the old store can list |
//! | in 2, or before 4 | old: `n`, held or (when the claim has ended) free, but not read; `through`: `n + 1` | 0 ends it; what did not come to `through` is carried later, as `n + 1` again, which is the same post |
//! | in 4, or before 5 | `through`: `n + 1`, and of some the old one | 0 ends it |
//! | in 5, in a store that leases | `through`: `n + 1`; new: `n + 2` | 5 again: `n + 2` is the same post, also when a reader has taken it by then |
//!
//! So a message is never visible in two places, and never in none for good. Whatever a store that leases still knows of
//! an earlier stay of the message, that it was deleted above all, it knows of a smaller number of transfers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use isimud_contract::{
    Arrival, ClaimId, DeadLetter, Error, ErrorKind, Guard, Lease, Marker, Message, MessageId,
    MessageStore, QueueKey, Result, Selection, Stands,
};
use uuid::Uuid;

/// Messages that are carried at a time.
pub(crate) const BATCH: usize = 100;

/// How long the old store hides messages while they are carried.
const HOLD: Duration = Duration::from_secs(60);

/// A message whose delay ends sooner is left until it has ended. One that expires sooner may do so on the way.
const SOON: Duration = Duration::from_secs(10);

/// A queue in a store.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) store: Arc<dyn MessageStore>,
    pub(crate) key: QueueKey,
}

impl End {
    /// Whether it has no message at all, by the ledger and by the broker.
    pub(super) async fn is_empty(&self) -> Result<bool> {
        Ok(self.store.backlog(&self.key).await?.is_empty())
    }

    /// Whether it has messages that no claim holds.
    pub(super) async fn has_free(&self) -> Result<bool> {
        Ok(self.store.backlog(&self.key).await?.free > 0)
    }

    /// Some messages that no claim holds, delayed ones too, and where they end.
    async fn free(
        &self,
        after: Option<Marker>,
        limit: usize,
    ) -> Result<(Vec<Message>, Option<Marker>)> {
        let selection = Selection {
            after,
            limit,
            not_from: None,
            include_claimed: false,
            include_delayed: true,
        };
        let page = self.store.list(&self.key, selection).await?;
        Ok((page.messages, page.marker))
    }

    /// `Unavailable` while the claim of a carrier that died holds some of the oldest messages: newer ones must not be
    /// carried before them. What `to` cannot keep is held back by carriers that live, and is not waited for.
    async fn is_let_go(&self, to: &Self) -> Result<()> {
        if !self.store.capabilities().browse {
            return Ok(());
        }
        let mut after = None;
        loop {
            let selection = Selection {
                after,
                limit: BATCH,
                not_from: None,
                include_claimed: true,
                include_delayed: true,
            };
            let page = self.store.list(&self.key, selection).await?;
            let wanted = page.messages.iter().filter(|message| to.takes(message));
            let mut claims = wanted.filter_map(|message| message.claim);
            if claims.any(is_carriers) {
                return Err(held_by_an_earlier_attempt());
            }
            after = page.marker;
            // A carrier takes the oldest that are free.
            let all_held = page.messages.iter().all(|message| message.claim.is_some());
            if after.is_none() || !all_held {
                return Ok(());
            }
        }
    }

    async fn delete(&self, ids: &[MessageId], guard: Guard) -> Result<()> {
        self.store.delete(&self.key, ids, guard).await.map(drop)
    }

    /// Posts messages to a queue that nobody takes them from now, and sees that they have come. `Internal` where some have
    /// not, though the store says so: then nothing may be deleted where they came from. What is about to expire need not
    /// have come.
    pub(crate) async fn put(&self, messages: Vec<Message>) -> Result<()> {
        let lasting = messages.iter().filter(|message| message.left > SOON);
        let lasting: Vec<MessageId> = lasting.map(|message| message.id).collect();
        self.store.post(&self.key, messages).await?;
        if !self.store.capabilities().browse {
            return Ok(());
        }
        let there = self.store.get(&self.key, &lasting).await?.len();
        if there < lasting.len() {
            let sentence = "a store does not have all of the messages that it accepted; they stay where they were";
            return Err(Error::new(ErrorKind::Internal, sentence)
                .with("posted", lasting.len())
                .with("there", there));
        }
        Ok(())
    }

    /// Whether it can keep the message.
    fn takes(&self, message: &Message) -> bool {
        let able = self.store.capabilities();
        let size = message.size();
        able.largest_body.is_none_or(|most| size <= most)
            && able.longest_delay.is_none_or(|most| message.delay <= most)
    }
}

/// A way from one queue to another.
#[derive(Debug)]
pub(super) struct Carry {
    pub(super) from: End,
    /// In the same store as `to`.
    pub(super) through: End,
    pub(super) to: End,
    /// What comes without a number of arrival gets one above this.
    pub(super) after: u64,
}

/// A name for the claim of a carrier: one that no client's claim has, as those are numbered by the clock or at random.
fn carriers_claim() -> ClaimId {
    ClaimId(uuid::Builder::from_custom_bytes(*Uuid::now_v7().as_bytes()).into_uuid())
}

fn is_carriers(claim: ClaimId) -> bool {
    claim.0.get_version_num() == 8
}

/// Ends what an earlier attempt began, from whichever of the old segments. `Unavailable` while one of them still hides
/// messages for it.
pub(super) async fn recover(sources: &[End], through: &End, to: &End) -> Result<()> {
    if through.store.capabilities().browse {
        loop {
            let (begun, _) = through.free(None, BATCH).await?;
            if begun.is_empty() {
                break;
            }
            for from in sources {
                let deleted = from.delete(&ids(&begun), Guard::Free).await;
                deleted.map_err(held)?;
            }
            move_on(through, &to.key, Stands::InPlace).await?;
        }
    }
    move_on(through, &to.key, Stands::InPlace).await?;
    for from in sources {
        from.is_let_go(to).await?;
    }
    Ok(())
}

impl Carry {
    /// Carries up to `most` messages that can be claimed. Returns how many that were.
    pub(super) async fn batch(&self, most: usize) -> Result<usize> {
        let claim = carriers_claim();
        let lease = lease(claim, HOLD, None);
        let Some(claimed) = self.from.store.claim(&self.from.key, &lease, most).await? else {
            return Ok(0);
        };
        let since = Instant::now();
        // What the new store cannot keep stays hidden until the claim ends, and then comes back.
        let mut messages: Vec<Message> = claimed
            .messages
            .into_iter()
            .filter(|message| self.to.takes(message))
            .map(transferred)
            .collect();
        if messages.is_empty() {
            return Ok(0);
        }
        let carried = async {
            self.number(&mut messages).await?;
            self.hand_over(claim, later(messages, since)).await
        };
        let carried = carried.await;
        if carried.is_err() {
            // The next attempt need not wait for them. Should this fail, too, it does.
            let released = self.from.store.release_claim(&self.from.key, claim).await;
            drop(released);
        }
        carried
    }

    /// Takes claimed messages over to where they are wanted. Returns how many.
    async fn hand_over(&self, claim: ClaimId, messages: Vec<Message>) -> Result<usize> {
        let (ids, count) = (ids(&messages), messages.len());
        self.through.put(messages).await?;
        let deleted = self.from.delete(&ids, Guard::HeldBy(vec![claim])).await;
        if let Err(error) = deleted {
            if error.kind() != ErrorKind::Unavailable {
                // The claim has ended, and the messages are seen where they were.
                self.through.delete(&ids, Guard::Any).await?;
            }
            return Err(error);
        }
        move_on(&self.through, &self.to.key, Stands::InPlace).await?;
        Ok(count)
    }

    /// Numbers messages that have no number of arrival, as those of a store that cannot list have none: behind what was
    /// carried before.
    async fn number(&self, messages: &mut [Message]) -> Result<()> {
        let has_none = |message: &&mut Message| message.arrival.number().is_none();
        let can_list = self.to.store.capabilities().browse;
        if !can_list || !messages.iter_mut().any(|message| has_none(&message)) {
            return Ok(());
        }
        let mut last = self.to.store.stats(&self.to.key).await?.last_arrival;
        last = last.max(self.after);
        for message in messages.iter_mut().filter(has_none) {
            last += 1;
            message.arrival = Arrival::At(last);
        }
        Ok(())
    }

    /// Carries messages whose delay has not ended. Returns how many that were.
    ///
    /// They cannot be claimed, so they go straight to where they are wanted, where they are not visible either. Cut off
    /// between the two stores, and not recovered before the delay ends, such a message is there twice.
    pub(super) async fn delayed(&self) -> Result<usize> {
        if !self.from.store.capabilities().browse {
            return Ok(0);
        }
        let (mut carried, mut after) = (0, None);
        loop {
            let (found, marker) = self.from.free(after, BATCH).await?;
            let since = Instant::now();
            if found.is_empty() {
                return Ok(carried);
            }
            after = marker;
            let wanted = |message: &Message| message.delay > SOON && self.to.takes(message);
            let messages = found.into_iter().filter(wanted).map(transferred);
            let messages: Vec<Message> = messages.collect();
            if messages.is_empty() {
                continue;
            }
            let (ids, count) = (ids(&messages), messages.len());
            self.to.put(later(messages, since)).await?;
            self.from.delete(&ids, Guard::Free).await?;
            carried += count;
        }
    }
}

/// Messages that were read at that moment, as they are now.
fn later(messages: Vec<Message>, since: Instant) -> Vec<Message> {
    let span = since.elapsed();
    messages.into_iter().map(|it| it.later(span)).collect()
}

/// A message as it is posted to another queue.
fn transferred(message: Message) -> Message {
    Message {
        claim: None,
        transfers: message.transfers.saturating_add(1),
        ..message
    }
}

/// Moves everything that is in a queue to another one in the same store, in its order: each message in one step of the
/// store, as dead letters are moved.
pub(crate) async fn move_on(through: &End, to: &QueueKey, stands: Stands) -> Result<()> {
    let dead_letter = DeadLetter {
        queue: to.clone(),
        max_claims: 0,
        ttl: None,
        stands,
    };
    let mut before = u64::MAX;
    loop {
        let stats = through.store.stats(&through.key).await?;
        let left = stats.free + stats.claimed;
        if left == 0 {
            return Ok(());
        }
        if left >= before {
            let sentence = "messages on the move are held up between two stores";
            return Err(Error::new(ErrorKind::Unavailable, sentence));
        }
        before = left;
        let all = lease(
            ClaimId(Uuid::now_v7()),
            Duration::from_secs(1),
            Some(dead_letter.clone()),
        );
        let claimed = through.store.claim(&through.key, &all, BATCH).await?;
        if claimed.is_some() {
            let sentence = "a store kept messages that it was to move";
            return Err(Error::new(ErrorKind::Internal, sentence));
        }
    }
}

fn ids(messages: &[Message]) -> Vec<MessageId> {
    messages.iter().map(|message| message.id).collect()
}

fn lease(id: ClaimId, ttl: Duration, dead_letter: Option<DeadLetter>) -> Lease {
    Lease {
        id,
        ttl,
        grace: Duration::ZERO,
        dead_letter,
    }
}

/// The claim of a carrier that died has not ended.
fn held(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Claimed => held_by_an_earlier_attempt().caused_by(error),
        _ => error,
    }
}

fn held_by_an_earlier_attempt() -> Error {
    let sentence = "messages on the move are still held for an earlier attempt";
    Error::new(ErrorKind::Unavailable, sentence)
}
