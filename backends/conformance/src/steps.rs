//! The words that trials are written in: each is one call to the store, with the usual answer to what it leaves open.
//!
//! A word that the store does not promise to understand stops the trial, which is then shown as ignored. So no trial
//! declares what it needs, and no declaration can be wrong; the price is that a trial may do half of its work before it
//! stops.

use std::time::Duration;

use isimud_contract::{
    Claim, ClaimId, ClientId, DeadLetter, ErrorKind, HeaderMap, HeaderValue, Headers, Lease,
    Marker, Message, MessageId, Page, Precondition, Property, Selection, Stands, Stats,
};
use uuid::Uuid;

use crate::bench::{Bench, HOUR, MINUTE, minutes, needs};
use crate::outcome::{Abort, Step};

/// Headers of two kinds, one of them nested.
pub(crate) fn some_headers() -> Option<Headers> {
    let colours = ["red", "grün"].map(|it| HeaderValue::Text(it.into()));
    let map = HeaderMap {
        properties: [(Property::CorrelationId, HeaderValue::Text("7".into()))].into(),
        headers: [("colours".to_owned(), HeaderValue::List(colours.into()))].into(),
    };
    Headers::of(&map).expect("small headers are valid")
}

/// A client that is told apart from others by its last digit.
pub(crate) fn client(number: u128) -> ClientId {
    ClientId::Uuid(Uuid::from_u128(
        0x1000_0000_0000_4000_8000_0000_0000_0000 + number,
    ))
}

/// The ids of messages, in their order.
pub(crate) fn ids(messages: &[Message]) -> Vec<MessageId> {
    messages.iter().map(|message| message.id).collect()
}

/// Ids without their order.
pub(crate) fn sorted(mut ids: Vec<MessageId>) -> Vec<MessageId> {
    ids.sort_unstable();
    ids
}

/// Messages.
impl Bench {
    /// A message that lives for an hour and is free at once.
    pub(crate) fn message(&self) -> Message {
        let id = self.mint();
        Message::new(MessageId(id), client(1), HOUR, format!("\"{id}\""))
    }

    /// A message that lives so long.
    pub(crate) fn living(&self, ttl: Duration) -> Message {
        Message {
            ttl,
            remaining_ttl: ttl,
            ..self.message()
        }
    }

    /// A message that is due so much later.
    pub(crate) fn delayed(&self, delay: Duration) -> Message {
        Message {
            delay,
            ..self.message()
        }
    }

    pub(crate) fn messages(&self, count: usize) -> Vec<Message> {
        (0..count).map(|_| self.message()).collect()
    }

    /// Posts so many plain messages at once and returns their ids.
    pub(crate) async fn post(&self, count: usize) -> Step<Vec<MessageId>> {
        self.post_all(self.messages(count)).await
    }

    /// Posts plain messages at once, as many as the caller has names for.
    pub(crate) async fn posted<const N: usize>(&self) -> Step<[MessageId; N]> {
        let messages: [Message; N] = std::array::from_fn(|_| self.message());
        let ids = messages.each_ref().map(|message| message.id);
        self.post_all(messages.into()).await?;
        Ok(ids)
    }

    /// Posts one message.
    pub(crate) async fn post_one(&self, message: Message) -> Step<MessageId> {
        let id = message.id;
        self.post_all(vec![message]).await?;
        Ok(id)
    }

    /// Posts these messages at once.
    pub(crate) async fn post_all(&self, messages: Vec<Message>) -> Step<Vec<MessageId>> {
        let store = self.capabilities();
        for message in &messages {
            let size = message.body.len() as u64;
            let fits = store.largest_body.is_none_or(|largest| size <= largest);
            needs(fits, "such large bodies")?;
            let holds = store
                .longest_delay
                .is_none_or(|longest| message.delay <= longest);
            needs(holds, "such long delays")?;
        }
        let ids = ids(&messages);
        self.store().post(&self.queue, messages).await?;
        Ok(ids)
    }

    /// What a plain listing shows: the first hundred free messages.
    pub(crate) async fn listed(&self) -> Step<Vec<MessageId>> {
        Ok(ids(&self.page(first(100)).await?.messages))
    }

    pub(crate) async fn page(&self, selection: Selection) -> Step<Page> {
        needs(self.capabilities().browse, "listings")?;
        Ok(self.store().list(&self.queue, selection).await?)
    }

    /// The ids of everything that the selection lets through, page by page.
    pub(crate) async fn pages(&self, mut selection: Selection) -> Step<Vec<MessageId>> {
        const FAR_TOO_MANY: usize = 10_000;
        let mut all = Vec::new();
        for _ in 0..FAR_TOO_MANY {
            let page = self.page(selection.clone()).await?;
            if page.messages.is_empty() {
                return Ok(all);
            }
            all.extend(ids(&page.messages));
            selection.after = page.marker;
        }
        Err(Abort::Unexpected("a listing that does not end".into()))
    }

    /// The ids of every live message, held and delayed ones too.
    pub(crate) async fn all(&self) -> Step<Vec<MessageId>> {
        self.pages(everything()).await
    }

    pub(crate) async fn get(&self, ids: &[MessageId]) -> Step<Vec<Message>> {
        needs(self.capabilities().browse, "reading by id")?;
        Ok(self.store().get(&self.queue, ids).await?)
    }

    /// The one message of that id, which must be there.
    pub(crate) async fn get_one(&self, id: MessageId) -> Step<Message> {
        let found = self.get(&[id]).await?.pop();
        found.ok_or_else(|| Abort::Unexpected(format!("there is no message {id}")))
    }

    pub(crate) async fn delete(
        &self,
        ids: &[MessageId],
        precondition: Precondition,
    ) -> Step<usize> {
        let browse = self.capabilities().browse;
        match self.store().delete(&self.queue, ids, precondition).await {
            Err(error) if error.kind() == ErrorKind::Unsupported && !browse => Err(
                Abort::Unsupported("to delete by id what nobody has claimed"),
            ),
            answer => Ok(answer?),
        }
    }

    /// Deletes messages that one claim holds.
    pub(crate) async fn settle(&self, ids: &[MessageId], claim: ClaimId) -> Step<usize> {
        self.delete(ids, Precondition::ClaimedBy(vec![claim])).await
    }

    pub(crate) async fn pop(&self, limit: usize) -> Step<Vec<MessageId>> {
        Ok(ids(&self.store().pop(&self.queue, limit).await?))
    }
}

/// A plain listing from the oldest message on.
pub(crate) fn first(limit: usize) -> Selection {
    Selection {
        after: None,
        limit,
        not_from: None,
        include_claimed: false,
        include_delayed: false,
    }
}

/// A plain listing of what follows a marker.
pub(crate) fn after(marker: impl Into<Option<Marker>>) -> Selection {
    Selection {
        after: marker.into(),
        ..first(100)
    }
}

/// A listing that leaves nothing out.
pub(crate) fn everything() -> Selection {
    Selection {
        include_claimed: true,
        include_delayed: true,
        ..first(1000)
    }
}

/// Claims.
impl Bench {
    /// A claim to be: five minutes, and a minute of grace.
    pub(crate) fn lease(&self) -> Lease {
        Lease {
            id: ClaimId(self.mint()),
            ttl: minutes(5),
            grace: MINUTE,
            dead_letter: None,
        }
    }

    /// A claim to be, on a queue whose messages move to another one after so many claims.
    pub(crate) fn strict_lease(&self, max_claims: u32, target: &Self) -> Lease {
        Lease {
            dead_letter: Some(DeadLetter {
                queue: target.queue.clone(),
                max_claims,
                ttl: None,
                stands: Stands::Last(0),
            }),
            ..self.lease()
        }
    }

    pub(crate) async fn claim(&self, limit: usize) -> Step<Option<Claim>> {
        self.claim_on(&self.lease(), limit).await
    }

    pub(crate) async fn claim_on(&self, lease: &Lease, limit: usize) -> Step<Option<Claim>> {
        self.can_hold(lease)?;
        Ok(self.store().claim(&self.queue, lease, limit).await?)
    }

    /// A claim that must deliver something.
    pub(crate) async fn take(&self, limit: usize) -> Step<Claim> {
        self.take_on(&self.lease(), limit).await
    }

    /// The same for a message behind a wall of others, which may take some calls.
    pub(crate) async fn take_behind(&self, limit: usize) -> Step<Claim> {
        let calls = if self.approximates().walls { 100 } else { 1 };
        for _ in 1..calls {
            if let Some(claim) = self.claim(limit).await? {
                return Ok(claim);
            }
        }
        self.take(limit).await
    }

    /// The same for a pop.
    pub(crate) async fn pop_behind(&self, limit: usize) -> Step<Vec<MessageId>> {
        let calls = if self.approximates().walls { 100 } else { 1 };
        for _ in 1..calls {
            let popped = self.pop(limit).await?;
            if !popped.is_empty() {
                return Ok(popped);
            }
        }
        self.pop(limit).await
    }

    pub(crate) async fn take_on(&self, lease: &Lease, limit: usize) -> Step<Claim> {
        let claim = self.claim_on(lease, limit).await?;
        claim.ok_or_else(|| Abort::Unexpected("a claim that delivers nothing".into()))
    }

    pub(crate) async fn find(&self, claim: ClaimId) -> Step<Claim> {
        needs(self.capabilities().claims, "claims")?;
        Ok(self.store().find_claim(&self.queue, claim).await?)
    }

    pub(crate) async fn renew(&self, lease: &Lease) -> Step<()> {
        self.can_hold(lease)?;
        Ok(self.store().renew_claim(&self.queue, lease).await?)
    }

    pub(crate) async fn release(&self, claim: ClaimId) -> Step<()> {
        needs(self.capabilities().claims, "claims")?;
        Ok(self.store().release_claim(&self.queue, claim).await?)
    }

    pub(crate) async fn undo(&self, claim: ClaimId, counted: bool) -> Step<()> {
        needs(self.capabilities().claims, "claims")?;
        let undo = self.store().undo_claim(&self.queue, claim, counted);
        Ok(undo.await?)
    }

    fn can_hold(&self, lease: &Lease) -> Step<()> {
        let store = self.capabilities();
        needs(store.claims, "claims")?;
        let holds = store
            .longest_claim
            .is_none_or(|longest| lease.ttl <= longest);
        needs(holds, "such long claims")
    }
}

/// Counts as a store tells them. Where it is not held to them they are equal to any.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) free: u64,
    pub(crate) claimed: u64,
    about: bool,
}

impl PartialEq<(u64, u64)> for Counts {
    fn eq(&self, expected: &(u64, u64)) -> bool {
        self.about || (self.free, self.claimed) == *expected
    }
}

impl PartialEq for Counts {
    fn eq(&self, other: &Self) -> bool {
        *self == (other.free, other.claimed)
    }
}

/// Queues as a whole.
impl Bench {
    pub(crate) async fn stats(&self) -> Step<Stats> {
        Ok(self.store().stats(&self.queue).await?)
    }

    /// Goes on only where the statistics are exact, and name the first and the last message.
    pub(crate) fn exact(&self) -> Step<()> {
        needs(self.capabilities().browse, "exact statistics")
    }

    /// Goes on only where counts are right.
    pub(crate) fn counted(&self) -> Step<()> {
        let about = !self.capabilities().browse && self.approximates().counts;
        needs(!about, "right counts")
    }

    /// How many messages are free, and how many are held.
    pub(crate) async fn counts(&self) -> Step<Counts> {
        let stats = self.stats().await?;
        Ok(Counts {
            free: stats.free,
            claimed: stats.claimed,
            about: self.counted().is_err(),
        })
    }

    pub(crate) async fn purge(&self) -> Step<()> {
        Ok(self.store().purge(&self.queue).await?)
    }

    pub(crate) async fn drop_queue(&self) -> Step<()> {
        Ok(self.store().drop_queue(&self.queue).await?)
    }
}
