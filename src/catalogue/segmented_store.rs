//! The open stores of a queue's segments, as one store.
//!
//! Nearly every queue has one segment, and a call goes straight to its store. A queue that migrates has several
//! (see [`Place`](isimud_contract::Place)), and then:
//!
//! * posts go to the last; claims, pops and listings begin with the first, and go no further while the queue is carried
//!   (see [`carried`]);
//! * what is asked by id is asked of each, in the order in which messages move: one that moves meanwhile is put into
//!   the newer one before it leaves the older, so it is met at least once;
//! * a claim is in one of them, and has messages of that one only;
//! * a listing shows the messages of all of them in the order of their numbers of arrival, which are the queue's. While
//!   the queue is carried it goes no further than what has come into the first: what comes next is on its way;
//! * what is posted gets a number beyond those of the segments before (see [`Segment::after`]);
//! * one call is atomic in each segment, and not over all of them.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use isimud_contract::{
    Backlog, ByteCount, Claim, ClaimId, DeadLetter, Error, ErrorKind, ImportedClaim, Lease, Marker,
    Message, MessageId, MessageStore, Page, PageRoom, Precondition, QueueKey, Resource, Result,
    Segment, Selection, Stands, Stats, StatsMessage, StoreId,
};

use super::position::Position;

/// The open stores of a queue's segments. It is cached with the queue, and holds its stores open while it is.
#[derive(Debug)]
pub(crate) struct SegmentedStore {
    first: SegmentStore,
    rest: Vec<SegmentStore>,
    /// While the queue is carried: how many segments behind the first are carried into it.
    carried: usize,
    /// While the queue is carried: what is on its way to the first.
    staging: Option<SegmentStore>,
}

/// How many segments behind the first are being carried into it: those up to the one that it is beside. Nobody reads
/// any other than the first then, as what is in them is newer than what may still come into it. 0 when nothing is carried.
pub(crate) fn carried<'a>(segments: impl IntoIterator<Item = &'a Segment>) -> usize {
    let mut segments = segments.into_iter();
    let Some(side) = segments.next().filter(|first| first.is_side()) else {
        return 0;
    };
    let mut others = segments;
    let owner = others.position(|segment| !segment.is_side() && segment.side() == *side);
    owner.unwrap_or(0)
}

/// Where messages are that are carried to a segment, until they have left their old store for certain. It is in no
/// place, so nobody reads it.
pub(crate) fn staging(side: &Segment) -> Segment {
    Segment {
        store_id: side.store_id.clone(),
        generation: side.generation | 1 << 30,
        after: side.after,
    }
}

/// A segment and its store.
#[derive(Debug, Clone)]
pub(crate) struct SegmentStore {
    pub(crate) segment: Segment,
    store: Arc<dyn MessageStore>,
}

impl SegmentStore {
    pub(super) fn new(segment: Segment, store: Arc<dyn MessageStore>) -> Self {
        Self { segment, store }
    }

    /// What the segment is called in its store.
    fn key<'a>(&self, queue: &'a QueueKey) -> Cow<'a, QueueKey> {
        match self.segment.generation {
            0 => Cow::Borrowed(queue),
            _ => Cow::Owned(self.segment.key(queue)),
        }
    }

    /// Claims messages of this segment.
    pub(crate) async fn claim(
        &self,
        queue: &QueueKey,
        lease: &Lease,
        limit: usize,
    ) -> Result<Option<Claim>> {
        self.store.claim(&self.key(queue), lease, limit).await
    }

    /// Sends a message that a claim holds to the dead-letter queue, as the store would. Cut off in between, it is sent
    /// once more.
    pub(crate) async fn dead_letter(
        &self,
        queue: &QueueKey,
        claim: ClaimId,
        policy: &DeadLetter,
        message: Message,
    ) -> Result<()> {
        let (id, ttl) = (message.id, policy.ttl);
        let dead = Message {
            claim: None,
            claim_count: 0,
            ttl: ttl.unwrap_or(message.ttl),
            remaining_ttl: ttl.unwrap_or(message.remaining_ttl),
            ..message
        };
        self.store.post(&policy.queue, vec![dead]).await?;
        let precondition = Precondition::ClaimedBy(vec![claim]);
        self.store
            .delete(&self.key(queue), &[id], precondition)
            .await?;
        Ok(())
    }

    /// Makes one step of a count of this segment's bytes.
    pub(crate) fn count_bytes(
        &self,
        queue: &QueueKey,
        after: Option<u64>,
    ) -> impl Future<Output = Result<ByteCount>> + Send + use<> {
        let (store, key) = (Arc::clone(&self.store), self.segment.key(queue));
        async move { store.count_bytes(&key, after).await }
    }

    /// Whether the segment's store knows all its messages.
    pub(crate) fn browses(&self) -> bool {
        self.store.capabilities().browse
    }

    /// The segment's store.
    pub(crate) fn store(&self) -> &Arc<dyn MessageStore> {
        &self.store
    }

    async fn page(&self, queue: &QueueKey, selection: Selection) -> Result<Page> {
        self.store.list(&self.key(queue), selection).await
    }
}

/// Part of a listing.
#[derive(Debug, Default)]
pub struct Listed {
    /// The messages, in order.
    pub messages: Vec<Message>,
    /// Where the next page begins; `None` when this one is empty.
    pub next: Option<Position>,
}

impl Listed {
    /// The first so many of messages that several stores have, in order, and no more bytes than one page may have. It goes
    /// no further than the first page of a store that had no room for more: what is behind that comes later. It does not end
    /// between two messages that have one number, as those have that two stores number at the same time: the next page would
    /// begin behind both.
    fn merged(pages: Vec<Page>, limit: usize) -> Self {
        let cut = pages.iter().filter(|page| page.is_cut);
        let end = cut
            .filter_map(|page| number_of(page.messages.last()?))
            .min();
        let mut messages: Vec<Message> = pages.into_iter().flat_map(|it| it.messages).collect();
        messages.sort_by_key(number_of);
        let mut seen = HashSet::new();
        messages.retain(|message| seen.insert(message.id));
        messages.retain(|message| end.is_none_or(|end| number_of(message) <= Some(end)));
        let mut room = PageRoom::default();
        let fitting = messages.iter().take_while(|it| room.takes(it)).count();
        let limit = limit.min(fitting);
        if let Some(next) = messages.get(limit).and_then(number_of) {
            let is_whole = |end: &usize| messages[end - 1].arrival.number() != Some(next);
            let end = (1..=limit).rev().find(is_whole);
            let same = |message: &Message| number_of(message) == Some(next);
            let end = end.unwrap_or_else(|| messages.iter().take_while(|m| same(m)).count());
            messages.truncate(end);
        }
        Self {
            next: messages.last().and_then(number_of).map(Position::Behind),
            messages,
        }
    }
}

fn number_of(message: &Message) -> Option<u64> {
    message.arrival.number()
}

impl SegmentedStore {
    /// To one segment.
    pub(super) fn to(segment_store: SegmentStore) -> Self {
        Self {
            first: segment_store,
            rest: Vec::new(),
            carried: 0,
            staging: None,
        }
    }

    /// Along the segments of a place, oldest first. `None` when there are none.
    pub(super) fn along(segment_stores: impl IntoIterator<Item = SegmentStore>) -> Option<Self> {
        let mut segment_stores = segment_stores.into_iter();
        let first = segment_stores.next()?;
        let rest: Vec<SegmentStore> = segment_stores.collect();
        let segments = std::iter::once(&first).chain(&rest);
        let carried = carried(segments.map(|segment_store| &segment_store.segment));
        let staging = || SegmentStore::new(staging(&first.segment), Arc::clone(&first.store));
        Some(Self {
            staging: (carried > 0).then(staging),
            first,
            rest,
            carried,
        })
    }

    /// The segments that may be read now, oldest first.
    pub(crate) fn readable(&self) -> impl Iterator<Item = &SegmentStore> {
        let count = match self.staging {
            Some(_) => 1,
            None => 1 + self.rest.len(),
        };
        self.segment_stores().take(count)
    }

    /// The segments in the order in which messages move through them, without the last.
    fn older(&self) -> Vec<&SegmentStore> {
        let mut older: Vec<&SegmentStore> = self.segment_stores().take(self.rest.len()).collect();
        if let Some(staging) = &self.staging {
            // What is carried passes through the staging segment to the first one, and has not come to the others.
            older[..=self.carried].rotate_left(1);
            older.insert(self.carried, staging);
        }
        older
    }

    /// All of them, in the order in which messages move.
    pub(crate) fn everywhere(&self) -> impl Iterator<Item = &SegmentStore> {
        self.older().into_iter().chain(std::iter::once(self.last()))
    }

    /// The segments, oldest first.
    pub(crate) fn segment_stores(&self) -> impl DoubleEndedIterator<Item = &SegmentStore> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// The segment that takes posts.
    pub(crate) fn newest(&self) -> &SegmentStore {
        self.last()
    }

    fn last(&self) -> &SegmentStore {
        self.rest.last().unwrap_or(&self.first)
    }

    /// Where dead letters from a store go, and where they stand there: in the newest of this queue's segments in that
    /// store.
    pub(crate) fn key_in(
        &self,
        store_id: &StoreId,
        queue: &QueueKey,
    ) -> Option<(QueueKey, Stands)> {
        let mut segment_stores = self.segment_stores().rev();
        let segment = &segment_stores
            .find(|segment_store| segment_store.segment.store_id == *store_id)?
            .segment;
        Some((segment.key(queue), Stands::Last(segment.after)))
    }

    /// Posts to the newest segment, if the queue has no more than `most` messages then. Where the newest store cannot count
    /// there is no bound; while the queue moves, what the other segments have is asked for first.
    pub(crate) async fn post(
        &self,
        queue: &QueueKey,
        mut messages: Vec<Message>,
        most: Option<u64>,
    ) -> Result<()> {
        let segment_store = self.last();
        for message in &mut messages {
            message.arrival = message.arrival.beyond(segment_store.segment.after);
        }
        let key = segment_store.key(queue);
        let Some(most) = most.filter(|_| segment_store.store.capabilities().browse) else {
            return segment_store.store.post(&key, messages).await;
        };
        let mut elsewhere = 0;
        for other in self.older() {
            let stats = other.store.stats(&other.key(queue)).await?;
            elsewhere += stats.free + stats.claimed;
        }
        let room = most.saturating_sub(elsewhere);
        let posted = segment_store.store.post_within(&key, messages, room).await;
        posted.map_err(|error| match error.kind() {
            ErrorKind::Full if elsewhere > 0 => Error::full(most),
            _ => error,
        })
    }

    /// Reads messages by id, in the order asked.
    pub(crate) async fn get(&self, queue: &QueueKey, ids: &[MessageId]) -> Result<Vec<Message>> {
        if self.rest.is_empty() {
            return self.first.store.get(&self.first.key(queue), ids).await;
        }
        let mut found: HashMap<MessageId, Message> = HashMap::new();
        let mut missing = ids.to_vec();
        for segment_store in self.everywhere() {
            let got = segment_store
                .store
                .get(&segment_store.key(queue), &missing)
                .await?;
            found.extend(got.into_iter().map(|message| (message.id, message)));
            missing.retain(|id| !found.contains_key(id));
            if missing.is_empty() {
                break;
            }
        }
        Ok(ids.iter().filter_map(|id| found.get(id).cloned()).collect())
    }

    /// Lists messages behind a position.
    pub(crate) async fn list(
        &self,
        queue: &QueueKey,
        position: Option<Position>,
        mut selection: Selection,
    ) -> Result<Listed> {
        selection.after = match position {
            None => None,
            Some(Position::Behind(number)) => Some(Marker::Arrival(number)),
            Some(Position::Message(id)) => Some(self.marker_of(queue, id).await?),
        };
        if self.rest.is_empty() {
            let page = self.first.page(queue, selection).await?;
            return Ok(Listed {
                messages: page.messages,
                next: page.marker.map(Position::from),
            });
        }
        let mut pages = Vec::new();
        // What stays in the others while their messages are carried into the first is held there, or was when its
        // neighbours went. Asked before the first: whatever moves meanwhile is seen twice rather than not at all.
        for segment_store in self.segment_stores().skip(1).take(self.carried) {
            pages.push(segment_store.page(queue, selection.clone()).await?);
        }
        let (limit, mut newest) = (selection.limit, None);
        for segment_store in self.readable() {
            let page = segment_store.page(queue, selection.clone()).await?;
            newest = newest.max(page.messages.last().and_then(number_of));
            pages.push(page);
        }
        if self.staging.is_some() {
            for page in &mut pages {
                page.messages.retain(|message| number_of(message) <= newest);
            }
        }
        Ok(Listed::merged(pages, limit))
    }

    /// Where a listing starts that goes on behind a message. Each store finds its own place for one that is gone: behind
    /// what was minted before it.
    async fn marker_of(&self, queue: &QueueKey, id: MessageId) -> Result<Marker> {
        if !self.rest.is_empty() {
            for segment_store in self.everywhere() {
                let found = segment_store
                    .store
                    .get(&segment_store.key(queue), &[id])
                    .await?;
                if let Some(number) = found.first().and_then(number_of) {
                    return Ok(Marker::Arrival(number));
                }
            }
        }
        Ok(Marker::Message(id))
    }

    /// Deletes messages. A refusal by one segment comes after what an older one has deleted.
    pub(crate) async fn delete(
        &self,
        queue: &QueueKey,
        ids: &[MessageId],
        precondition: Precondition,
    ) -> Result<usize> {
        let mut deleted = 0;
        for segment_store in self.older() {
            let store = &segment_store.store;
            deleted += store
                .delete(&segment_store.key(queue), ids, precondition.clone())
                .await?;
        }
        let last = self.last();
        Ok(deleted
            + last
                .store
                .delete(&last.key(queue), ids, precondition)
                .await?)
    }

    /// Takes messages off the head. What an older segment gave is answered even if a newer one cannot answer: it is
    /// gone from there. A store may give fewer than it has (a FIFO queue of SQS, ten at a time): then nothing newer is
    /// taken.
    pub(crate) async fn pop(&self, queue: &QueueKey, limit: usize) -> Result<Vec<Message>> {
        let mut popped = Vec::new();
        let mut segment_stores = self.readable().peekable();
        while let Some(segment_store) = segment_stores.next() {
            let wanted = limit - popped.len();
            let more = match segment_store
                .store
                .pop(&segment_store.key(queue), wanted)
                .await
            {
                Ok(more) => more,
                Err(error) if popped.is_empty() => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, %queue, "pop returned a part of the queue: an older segment answered, this one did not");
                    break;
                }
            };
            let (some, all) = (!more.is_empty(), more.len() >= wanted);
            popped.extend(more);
            if all
                || segment_stores.peek().is_none()
                || (some && !self.is_drained(queue, segment_store).await)
            {
                break;
            }
        }
        Ok(popped)
    }

    /// Whether a segment has nothing left that could be taken. Where it does not say, it may have.
    pub(crate) async fn is_drained(&self, queue: &QueueKey, segment_store: &SegmentStore) -> bool {
        let stats = segment_store.store.stats(&segment_store.key(queue)).await;
        stats.is_ok_and(|stats| stats.free == 0)
    }

    pub(crate) async fn find_claim(&self, queue: &QueueKey, claim: ClaimId) -> Result<Claim> {
        for segment_store in self.older() {
            match segment_store
                .store
                .find_claim(&segment_store.key(queue), claim)
                .await
            {
                Err(error) if error.kind() == ErrorKind::NotFound(Resource::Claim) => {}
                answer => return answer,
            }
        }
        let last = self.last();
        last.store.find_claim(&last.key(queue), claim).await
    }

    pub(crate) async fn renew_claim(&self, queue: &QueueKey, lease: &Lease) -> Result<()> {
        for segment_store in self.older() {
            match segment_store
                .store
                .renew_claim(&segment_store.key(queue), lease)
                .await
            {
                Err(error) if error.kind() == ErrorKind::NotFound(Resource::Claim) => {}
                answer => return answer,
            }
        }
        let last = self.last();
        last.store.renew_claim(&last.key(queue), lease).await
    }

    pub(crate) async fn release_claim(&self, queue: &QueueKey, claim: ClaimId) -> Result<()> {
        for segment_store in self.segment_stores() {
            segment_store
                .store
                .release_claim(&segment_store.key(queue), claim)
                .await?;
        }
        Ok(())
    }

    /// Ends a claim of which nobody has heard.
    pub(crate) async fn undo_claim(
        &self,
        queue: &QueueKey,
        claim: ClaimId,
        counted: bool,
    ) -> Result<()> {
        for segment_store in self.segment_stores() {
            let store = &segment_store.store;
            store
                .undo_claim(&segment_store.key(queue), claim, counted)
                .await?;
        }
        Ok(())
    }

    /// Puts messages of the last segment, where they were posted to, under a claim that was made elsewhere.
    pub(crate) async fn import_claim(
        &self,
        queue: &QueueKey,
        claim: ImportedClaim,
        ids: &[MessageId],
    ) -> Result<usize> {
        let segment_store = self.last();
        segment_store
            .store
            .import_claim(&segment_store.key(queue), claim, ids)
            .await
    }

    /// Counts the messages of all segments, and those that are on their way between two.
    pub(crate) async fn stats(&self, queue: &QueueKey) -> Result<Stats> {
        // Asked before the segments: what moves meanwhile is counted twice rather than not at all.
        let under_way = self.under_way(queue).await?;
        let mut stats = self.first.store.stats(&self.first.key(queue)).await?;
        stats.free += under_way;
        for segment_store in &self.rest {
            let more = segment_store.store.stats(&segment_store.key(queue)).await?;
            stats.free += more.free;
            stats.claimed += more.claimed;
            stats.last_arrival = stats.last_arrival.max(more.last_arrival);
            let edge = |one: Option<StatsMessage>, other: Option<StatsMessage>, oldest: bool| match (
                one, other,
            ) {
                (Some(one), Some(other)) if (one.age >= other.age) == oldest => Some(one),
                (one, other) => other.or(one),
            };
            stats.oldest = edge(stats.oldest, more.oldest, true);
            stats.newest = edge(stats.newest, more.newest, false);
        }
        Ok(stats)
    }

    /// How many messages have left their old segment and not come to the first. They are free: nobody can have claimed
    /// them. There are no more of them than a carrier takes at a time.
    async fn under_way(&self, queue: &QueueKey) -> Result<u64> {
        let Some(staging) = &self.staging else {
            return Ok(0);
        };
        let key = staging.key(queue);
        if !staging.store.capabilities().browse {
            return Ok(staging.store.stats(&key).await?.free);
        }
        let everything = Selection {
            after: None,
            limit: usize::from(u8::MAX),
            not_from: None,
            include_claimed: true,
            include_delayed: true,
        };
        let page = staging.store.list(&key, everything).await?;
        let mut between: Vec<MessageId> = page.messages.iter().map(|it| it.id).collect();
        // What is in a segment still, or already, is counted there.
        for segment_store in self.segment_stores().take(1 + self.carried) {
            if between.is_empty() {
                break;
            }
            if segment_store.store.capabilities().browse {
                let found = segment_store
                    .store
                    .get(&segment_store.key(queue), &between)
                    .await?;
                between.retain(|id| found.iter().all(|message| message.id != *id));
            }
        }
        Ok(between.len() as u64)
    }

    /// Counts what is left in all segments and between them. What is in two of them is counted twice.
    pub(crate) async fn backlog(&self, queue: &QueueKey) -> Result<Backlog> {
        let mut backlog = Backlog::default();
        for segment_store in self.everywhere() {
            backlog += segment_store
                .store
                .backlog(&segment_store.key(queue))
                .await?;
        }
        Ok(backlog)
    }

    pub(crate) async fn purge(&self, queue: &QueueKey) -> Result<()> {
        for segment_store in self.everywhere() {
            segment_store.store.purge(&segment_store.key(queue)).await?;
        }
        Ok(())
    }

    /// Forgets the queue in every store.
    pub(crate) async fn remove(&self, queue: &QueueKey) -> Result<()> {
        for segment_store in self.everywhere() {
            segment_store
                .store
                .drop_queue(&segment_store.key(queue))
                .await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use isimud_contract::{Arrival, ClientId};
    use uuid::Uuid;

    use super::*;

    fn message(id: u128, number: u64) -> Message {
        let ttl = Duration::from_secs(60);
        Message {
            arrival: Arrival::At(number),
            ..Message::new(
                MessageId(Uuid::from_u128(id)),
                ClientId::Uuid(Uuid::nil()),
                ttl,
                "1",
            )
        }
    }

    fn listed(numbers: &[(u128, u64)], limit: usize) -> Vec<u128> {
        let messages = numbers.iter().map(|(id, number)| message(*id, *number));
        let page = Page {
            messages: messages.collect(),
            ..Page::default()
        };
        let listed = Listed::merged(vec![page], limit);
        let next = listed.messages.last().and_then(number_of);
        assert_eq!(listed.next, next.map(Position::Behind));
        let ids = listed.messages.iter();
        ids.map(|message| message.id.0.as_u128()).collect()
    }

    #[test]
    fn pages_of_several_stores_become_one_in_order() {
        let found = [(1, 10), (2, 20), (3, 5), (4, 15), (1, 10)];
        assert_eq!(listed(&found, 10), [3, 1, 4, 2]);
        assert_eq!(listed(&found, 2), [3, 1]);
        assert_eq!(listed(&[], 2), [0; 0]);
    }

    #[test]
    fn a_page_ends_where_a_store_had_no_room_for_more() {
        let page = |numbers: &[u64], is_cut| Page {
            messages: numbers
                .iter()
                .map(|it| message((*it).into(), *it))
                .collect(),
            is_cut,
            ..Page::default()
        };
        // Behind 2 the older store has more, which the next page begins with.
        let pages = vec![page(&[1, 2], true), page(&[10, 11], false)];
        let listed = Listed::merged(pages, 20);
        let numbers: Vec<_> = listed.messages.iter().map(number_of).collect();
        assert_eq!(numbers, [Some(1), Some(2)]);
        assert_eq!(listed.next, Some(Position::Behind(2)));
    }

    #[test]
    fn a_page_of_several_stores_has_the_bytes_of_one() {
        let large = |id: u64| Message {
            body: vec![b'1'; 3 << 20].into(),
            ..message(id.into(), id)
        };
        let page = |ids: [u64; 2]| Page {
            messages: ids.map(large).into(),
            ..Page::default()
        };
        let listed = Listed::merged(vec![page([1, 3]), page([2, 4])], 20);
        assert_eq!(listed.next, Some(Position::Behind(2)));
    }

    #[test]
    fn a_page_does_not_end_between_two_messages_of_one_number() {
        let found = [(1, 10), (2, 20), (3, 20), (4, 30)];
        assert_eq!(listed(&found, 2), [1]);
        assert_eq!(listed(&found, 3), [1, 2, 3]);
        assert_eq!(listed(&found[1..], 1), [2, 3], "or it would be empty");
    }
}
