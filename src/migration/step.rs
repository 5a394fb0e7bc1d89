//! Moves messages from one store to another: none is lost, none is duplicated, wherever it is cut off.
//!
//! ```text
//! 0  recover: delete from every old segment what is in `staging`, and move that on as in 5
//! 1  claim some messages of the old segment              they are invisible there
//! 2  post them to `staging`, transferred once more       a queue beside the new segment that nobody reads
//! 3  see that all of them are there                      else: keep the old segment, stop, and say so
//! 4  delete them from the old segment
//! 5  move them on from `staging` to the new segment,     in one step of that store, as dead letters are moved; or, in a
//!    transferred once more                               store that leases: post there, then delete here
//! ```
//!
//! | cut off | what there is of a message that was transferred `n` times before | what follows |
//! |---|---|---|
//! | before 2 | old: `n`, held until the claim ends | it is carried later; nothing newer is carried before, as far as the old store can list |
//! | in 2, or before 4 | old: `n`, held or (when the claim has ended) free, but not read; `staging`: `n + 1` | 0 ends it; what did not come to `staging` is carried later, as `n + 1` again, which is the same post |
//! | in 4, or before 5 | `staging`: `n + 1`, and of some the old one | 0 ends it |
//! | in 5, in a store that leases | `staging`: `n + 1`; new: `n + 2` | 5 again: `n + 2` is the same post, also when a reader has taken it by then |
//! | given up in 2, and carried out later by a broker that is slow | old: `n`, free; `staging`: `n + 1`, which was never noted | 5 drops it, whenever it comes: what was not seen to be there (3) is no post; the next attempt is `n + 2` |
//!
//! So a message is never visible in two places, and never in none for good. Whatever a store that leases still knows of
//! an earlier stay of the message, that it was deleted above all, it knows of a smaller number of transfers.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isimud_contract::{
    Arrival, ClaimId, DeadLetter, Error, ErrorKind, Lease, Marker, Message, MessageId,
    MessageStore, Precondition, QueueKey, Result, Selection, Stands,
};
use uuid::Uuid;

/// Messages that are carried at a time.
pub(crate) const BATCH: usize = 100;

/// How long the old store hides messages while they are carried.
const CLAIM_TTL: Duration = Duration::from_secs(60);

/// How often a message is posted as a later transfer, each time by twice as many more, until the store takes it for one.
const MAX_ATTEMPTS: u32 = 16;

/// How long a store that leases hides messages while they are moved on within it.
const REPOST_CLAIM_TTL: Duration = Duration::from_secs(10);

/// A message whose delay ends sooner is left until it has ended. One that expires sooner may do so on the way.
const EXPIRY_MARGIN: Duration = Duration::from_secs(10);

/// A queue in a store.
#[derive(Debug, Clone)]
pub(crate) struct QueueRef {
    pub(crate) store: Arc<dyn MessageStore>,
    pub(crate) key: QueueKey,
}

impl QueueRef {
    /// Whether it has no message at all, by the ledger and by the broker.
    pub(super) async fn is_empty(&self) -> Result<bool> {
        Ok(self.store.backlog(&self.key).await?.is_empty())
    }

    /// Whether it has messages that no claim holds. Where a part of a queue does not answer, what the rest has can be
    /// carried meanwhile.
    pub(super) async fn has_free(&self) -> Result<bool> {
        match self.store.backlog(&self.key).await {
            Ok(backlog) => Ok(backlog.free > 0),
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                let stats = self.store.stats(&self.key).await?;
                match stats.free {
                    0 => Err(error),
                    _ => Ok(true),
                }
            }
            Err(error) => Err(error),
        }
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

    /// `Unavailable` while the claim of a migrator that died holds some of the oldest messages: newer ones must not be
    /// carried before them. What `to` cannot keep is held back by migrators that live, and is not waited for.
    async fn check_released(&self, to: &Self) -> Result<()> {
        if !self.store.capabilities().browse {
            return Ok(());
        }
        let mut after = None;
        loop {
            let page = self.store.list(&self.key, everything(after, BATCH)).await?;
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

    /// `Unavailable` where it has messages, although none of them could be claimed.
    async fn check_empty(&self) -> Result<()> {
        let is_empty = match self.store.capabilities().browse {
            // By the ledger: of what only the broker has the old segment has the original.
            true => {
                let page = self.store.list(&self.key, everything(None, 1)).await?;
                page.messages.is_empty()
            }
            false => {
                let stats = self.store.stats(&self.key).await?;
                stats.free + stats.claimed == 0
            }
        };
        match is_empty {
            true => Ok(()),
            false => Err(held_up()),
        }
    }

    async fn delete(&self, ids: &[MessageId], precondition: Precondition) -> Result<()> {
        self.store
            .delete(&self.key, ids, precondition)
            .await
            .map(drop)
    }

    /// Posts messages to a queue that nobody takes them from now, and sees that they have come. `Internal` where some have
    /// not, though the store says so: then nothing may be deleted where they came from. What is about to expire need not
    /// have come.
    pub(crate) async fn post_and_verify(&self, messages: Vec<Message>) -> Result<()> {
        let posted = messages.len();
        self.store.post(&self.key, messages.clone()).await?;
        if !self.store.capabilities().browse {
            return Ok(());
        }
        let missing = self.missing_from(messages).await?.len();
        if missing > 0 {
            let sentence = "a store does not have all of the messages that it accepted; they stay where they were";
            return Err(Error::new(ErrorKind::Internal, sentence)
                .with("posted", posted)
                .with("missing", missing));
        }
        Ok(())
    }

    /// Those of some messages that it does not have, but for what is about to expire.
    async fn missing_from(&self, mut messages: Vec<Message>) -> Result<Vec<Message>> {
        messages.retain(|message| message.remaining_ttl > EXPIRY_MARGIN);
        let found = self.store.get(&self.key, &ids(&messages)).await?;
        let found: HashSet<MessageId> = found.iter().map(|message| message.id).collect();
        messages.retain(|message| !found.contains(&message.id));
        Ok(messages)
    }

    /// All messages, by the ledger in a store that leases.
    async fn all(&self) -> Result<Vec<MessageId>> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = self.store.list(&self.key, everything(after, BATCH)).await?;
            all.extend(ids(&page.messages));
            after = page.marker;
            if page.messages.is_empty() || after.is_none() {
                return Ok(all);
            }
        }
    }

    /// Whether it can keep the message.
    fn takes(&self, message: &Message) -> bool {
        let able = self.store.capabilities();
        let size = message.size();
        able.largest_body.is_none_or(|most| size <= most)
            && able.longest_delay.is_none_or(|most| message.delay <= most)
    }
}

/// One step of a migration: from one segment of a queue to another.
#[derive(Debug)]
pub(super) struct MigrationStep {
    pub(super) from: QueueRef,
    /// All of the old segments, `from` too.
    pub(super) sources: Vec<QueueRef>,
    /// In the same store as `to`.
    pub(super) staging: QueueRef,
    pub(super) to: QueueRef,
    /// What comes without a number of arrival gets one above this.
    pub(super) after: u64,
    pub(super) fence: Option<Fence>,
}

/// A name for the claim of a migrator: one that no client's claim has, as those are numbered by the clock or at random.
fn carriers_claim() -> ClaimId {
    ClaimId(uuid::Builder::from_custom_bytes(*Uuid::now_v7().as_bytes()).into_uuid())
}

fn is_carriers(claim: ClaimId) -> bool {
    claim.0.get_version_num() == 8
}

/// Ends what an earlier attempt began, from whichever of the old segments. `Unavailable` while one of them still hides
/// messages for it.
pub(super) async fn recover(
    sources: &[QueueRef],
    staging: &QueueRef,
    to: &QueueRef,
    fence: Option<&Fence>,
) -> Result<()> {
    let able = staging.store.capabilities();
    match (able.deduplicates, able.browse) {
        (false, _) => loop {
            let (begun, _) = staging.free(None, BATCH).await?;
            delete_from_sources(sources, &ids(&begun)).await?;
            move_within_store(staging, &to.key, Stands::InPlace).await?;
            if begun.is_empty() {
                break;
            }
        },
        (true, true) => {
            let begun = staging.all().await?;
            delete_from_sources(sources, &begun).await?;
            repost(staging, to, What::Posted(&begun), fence).await?;
        }
        (true, false) => repost(staging, to, What::All(sources), fence).await?,
    }
    for from in sources {
        from.check_released(to).await?;
    }
    Ok(())
}

/// Deletes from every old segment what is in `staging`. `Unavailable` while one of them hides messages for an earlier
/// attempt.
async fn delete_from_sources(sources: &[QueueRef], ids: &[MessageId]) -> Result<()> {
    for from in sources {
        match from.delete(ids, Precondition::Unclaimed).await {
            // A store that knows nothing of some: those it does not have any more.
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                for id in ids {
                    match from.delete(&[*id], Precondition::Unclaimed).await {
                        Err(error) if error.kind() == ErrorKind::Unsupported => {}
                        deleted => deleted.map_err(held)?,
                    }
                }
            }
            deleted => deleted.map_err(held)?,
        }
    }
    Ok(())
}

/// What is moved on of that which a store that leases delivers.
#[derive(Clone, Copy)]
pub(super) enum What<'a> {
    /// The posts that were seen to be there. Others come from a broker that is slow, which carries out what was given up
    /// long ago: they are dropped, as the old segment has the message, or had it until somebody took it.
    Posted(&'a [MessageId]),
    /// Everything, as without a journal nobody knows what was posted; it is deleted from these segments first.
    All(&'a [QueueRef]),
}

/// Moves on what is in `staging`, of a store that leases.
pub(super) async fn repost(
    staging: &QueueRef,
    to: &QueueRef,
    what: What<'_>,
    fence: Option<&Fence>,
) -> Result<()> {
    let (posted, sources) = match what {
        What::Posted(ids) => (Some(ids.iter().copied().collect::<HashSet<_>>()), &[][..]),
        What::All(sources) => (None, sources),
    };
    let counts = |id: &MessageId| posted.as_ref().is_none_or(|posted| posted.contains(id));
    loop {
        let claim = carriers_claim();
        let lease = lease(claim, REPOST_CLAIM_TTL, None);
        let Some(claimed) = staging.store.claim(&staging.key, &lease, BATCH).await? else {
            return staging.check_empty().await;
        };
        let since = Instant::now();
        let ids = ids(&claimed.messages);
        let (posts, late): (Vec<Message>, Vec<Message>) = claimed
            .messages
            .into_iter()
            .partition(|message| counts(&message.id));
        if !late.is_empty() {
            tracing::info!(queue = %to.key, count = late.len(), "queue migration: dropping messages that the broker stored after their send had timed out");
        }
        let passed = async {
            if !late.is_empty() {
                // What another carrier has posted meanwhile is not late.
                still_carries(fence).await?;
                staging
                    .delete(&self::ids(&late), Precondition::None)
                    .await?;
            }
            delete_from_sources(sources, &ids).await?;
            let posts = posts.into_iter().map(|message| Message {
                claim_count: 0,
                ..transferred(message)
            });
            let posts = aged(posts.collect(), since);
            to.store.post(&to.key, posts).await?;
            staging.delete(&ids, Precondition::None).await
        };
        if let Err(error) = passed.await {
            // The next attempt need not wait for them. Should this fail, too, it does.
            drop(staging.store.release_claim(&staging.key, claim).await);
            return Err(error);
        }
    }
}

/// What a migrator asks that is about to delete: whether it is still the one that carries.
#[derive(Debug, Clone)]
pub(super) struct Fence {
    pub(super) jobs: Arc<dyn MessageStore>,
    pub(super) queue: QueueKey,
    pub(super) lease: Lease,
}

impl Fence {
    /// Begins the migrator's turn anew. `NotFound(Claim)` where another has it.
    pub(super) async fn check(&self) -> Result<()> {
        self.jobs.renew_claim(&self.queue, &self.lease).await
    }
}

async fn still_carries(fence: Option<&Fence>) -> Result<()> {
    match fence {
        Some(fence) => fence.check().await,
        None => Ok(()),
    }
}

impl MigrationStep {
    /// Carries up to `most` messages that can be claimed. Returns how many that were.
    pub(super) async fn batch(&self, most: usize) -> Result<usize> {
        let claim = carriers_claim();
        let lease = lease(claim, CLAIM_TTL, None);
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
            self.hand_over(claim, aged(messages, since)).await
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
        self.post_to_staging(messages).await?;
        // Another carrier may have dropped what came too late for it.
        still_carries(self.fence.as_ref()).await?;
        let deleted = self
            .from
            .delete(&ids, Precondition::ClaimedBy(vec![claim]))
            .await;
        if let Err(error) = deleted {
            if error.kind() != ErrorKind::Unavailable {
                self.take_back(ids.clone()).await?;
            }
            return Err(error);
        }
        let (staging, able) = (&self.staging, self.staging.store.capabilities());
        let fence = self.fence.as_ref();
        match (able.deduplicates, able.browse) {
            (true, true) => repost(staging, &self.to, What::Posted(&ids), fence).await?,
            (true, false) => repost(staging, &self.to, What::All(&self.sources), fence).await?,
            (false, _) => move_within_store(staging, &self.to.key, Stands::InPlace).await?,
        }
        Ok(count)
    }

    /// Posts messages to `staging`, and sees that they have come. What a store that remembers knows as dropped is
    /// posted as a later transfer: the old segment has it, so it has not been moved on.
    async fn post_to_staging(&self, messages: Vec<Message>) -> Result<()> {
        let (staging, able) = (&self.staging, self.staging.store.capabilities());
        if !able.browse || !able.deduplicates {
            return staging.post_and_verify(messages).await;
        }
        staging.store.post(&staging.key, messages.clone()).await?;
        let mut missing = staging.missing_from(messages).await?;
        for attempt in 0..MAX_ATTEMPTS {
            if missing.is_empty() {
                return Ok(());
            }
            for message in &mut missing {
                message.transfers = message.transfers.saturating_add(1 << attempt);
            }
            staging.store.post(&staging.key, missing.clone()).await?;
            missing = staging.missing_from(missing).await?;
        }
        staging.post_and_verify(missing).await
    }

    /// The claim has ended: what is still where it was is there twice until the next attempt ends it. What is not, was
    /// deleted or purged meanwhile, and must not come back.
    ///
    /// A store that remembers knows what was taken back as deleted, and would not take it again: where the old store cannot
    /// say what it has, it stays there.
    async fn take_back(&self, ids: Vec<MessageId>) -> Result<()> {
        let can_say = self.from.store.capabilities().browse;
        if !can_say && self.staging.store.capabilities().deduplicates {
            return Ok(());
        }
        let mut gone = ids;
        if can_say {
            let kept = self.from.store.get(&self.from.key, &gone).await?;
            gone.retain(|id| kept.iter().all(|message| message.id != *id));
        }
        self.staging.delete(&gone, Precondition::None).await
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
            let wanted =
                |message: &Message| message.delay > EXPIRY_MARGIN && self.to.takes(message);
            let messages = found.into_iter().filter(wanted).map(transferred);
            let messages: Vec<Message> = messages.collect();
            if messages.is_empty() {
                continue;
            }
            let (ids, count) = (ids(&messages), messages.len());
            self.to.post_and_verify(aged(messages, since)).await?;
            self.from.delete(&ids, Precondition::Unclaimed).await?;
            carried += count;
        }
    }
}

/// Messages that were read at that moment, as they are now.
fn aged(messages: Vec<Message>, since: Instant) -> Vec<Message> {
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
/// store, as dead letters are moved. For a store that keeps its messages itself.
pub(crate) async fn move_within_store(
    staging: &QueueRef,
    to: &QueueKey,
    stands: Stands,
) -> Result<()> {
    let dead_letter = DeadLetter {
        queue: to.clone(),
        max_claims: 0,
        ttl: None,
        stands,
    };
    let mut before = u64::MAX;
    loop {
        let stats = staging.store.stats(&staging.key).await?;
        let left = stats.free + stats.claimed;
        if left == 0 {
            return Ok(());
        }
        if left >= before {
            return Err(held_up());
        }
        before = left;
        let all = lease(
            ClaimId(Uuid::now_v7()),
            Duration::from_secs(1),
            Some(dead_letter.clone()),
        );
        let claimed = staging.store.claim(&staging.key, &all, BATCH).await?;
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

fn held_up() -> Error {
    let sentence = "migrating messages are stuck in the staging queue";
    Error::new(ErrorKind::Unavailable, sentence)
}

fn everything(after: Option<Marker>, limit: usize) -> Selection {
    Selection {
        after,
        limit,
        not_from: None,
        include_claimed: true,
        include_delayed: true,
    }
}

/// The claim of a migrator that died has not ended.
fn held(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Claimed => held_by_an_earlier_attempt().caused_by(error),
        _ => error,
    }
}

fn held_by_an_earlier_attempt() -> Error {
    let sentence = "migrating messages are still claimed by an earlier attempt";
    Error::new(ErrorKind::Unavailable, sentence)
}
