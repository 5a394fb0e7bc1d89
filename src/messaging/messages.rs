//! Messages: posting, reading, deleting, popping.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use isimud_contract::{
    Claim, ClaimId, ClientId, Error, ErrorKind, Headers, Lease, Message, MessageId, Precondition,
    QueueKey, Result, Selection,
};
use uuid::Uuid;

use super::quotas::Bounds;
use super::settings::Settings;
use super::{Messaging, checksum, seal};
use crate::catalogue::{Listed, Position, SegmentStore, SegmentedStore};

/// How long an encrypted message is held while it is popped. One that has less left shows this as its ttl.
const POP: Duration = Duration::from_secs(10);

/// Pages and claims in a row that may have nothing readable in them, before a call gives up.
const MOST_UNREADABLE: usize = 8;

/// What a post must keep to in one queue, known before its body is read.
#[derive(Debug, Clone)]
pub struct PostRules {
    /// The queue's settings; `None` when it does not exist yet.
    settings: Option<Arc<Settings>>,
    /// The largest request body, in bytes.
    pub max_size: usize,
    /// The queue's own cap, where it has one below the service's.
    pub queue_max_size: Option<usize>,
}

impl PostRules {
    /// Whether messages may name a delay of their own: only in a queue that delays (quirk Q-MSG-6).
    pub fn delays(&self) -> bool {
        self.settings
            .as_ref()
            .is_some_and(|settings| settings.delay.is_some())
    }
}

/// A message that a client wants to post.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Seconds to live.
    pub ttl: Option<i64>,
    /// Seconds before it can be claimed. Ignored where [`PostRules::delays`] is false.
    pub delay: Option<i64>,
    /// JSON text.
    pub body: Bytes,
    /// What is said beside the body, if anything.
    pub headers: Option<Headers>,
}

/// What a client wants to list.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Where to start; one that cannot be understood gives an empty page.
    pub marker: Option<String>,
    /// How many messages.
    pub limit: Option<i64>,
    /// Include the client's own messages.
    pub echo: bool,
    /// Include messages that are claimed now.
    pub include_claimed: bool,
    /// Include messages still in their delay. `None` when the client does not say.
    pub include_delayed: Option<bool>,
}

/// Which messages a delete names, and what it knows of their claims.
#[derive(Debug, Clone)]
pub enum Deletion {
    /// One message: a claimed one only with its claim.
    One(MessageId, Option<ClaimId>),
    /// Several, whoever holds them.
    Several(Vec<MessageId>),
    /// Several, all of them held by these claims.
    SeveralHeld(Vec<MessageId>, Vec<ClaimId>),
}

impl Messaging {
    /// What a post to this queue must keep to.
    pub async fn post_rules(&self, queue: &QueueKey) -> Result<PostRules> {
        let settings = self.settings(queue).await?;
        let service = self.limits().max_messages_post_size;
        let own = settings
            .as_ref()
            .and_then(|settings| settings.max_post_size)
            .filter(|size| *size < service);
        Ok(PostRules {
            settings,
            max_size: own.unwrap_or(service),
            queue_max_size: own,
        })
    }

    /// Posts messages, all or none, and creates the queue when it does not exist. Returns their ids, in order; they
    /// are stored as durably as the store is configured to.
    pub async fn post(
        &self,
        queue: &QueueKey,
        client: &ClientId,
        rules: PostRules,
        drafts: Vec<Draft>,
    ) -> Result<Vec<MessageId>> {
        let settings = rules.settings.clone().unwrap_or_default();
        let messages = drafts
            .into_iter()
            .map(|draft| self.mint(client, &settings, draft))
            .collect::<Result<Vec<_>>>()?;
        // Only now, after everything was found right (quirk Q-QUE-10), and even if it existed: the body may have taken
        // its time, and the queue been deleted, or begun to encrypt.
        if rules.settings.is_none() {
            self.check_queue_quota(queue).await?;
        }
        let (count, bounds) = (messages.len() as u64, self.bounds(queue));
        let admitted = self.check_message_quota(queue, &bounds, count).await?;
        let posted = self.post_checked(queue, &bounds, messages).await;
        if let Some(admitted) = admitted
            && is_not_stored(&posted)
        {
            admitted.forgive();
        }
        posted
    }

    async fn post_checked(
        &self,
        queue: &QueueKey,
        bounds: &Bounds,
        mut messages: Vec<Message>,
    ) -> Result<Vec<MessageId>> {
        let known = self.lookup_or_create(queue, None).await?;
        if known.settings.encrypt {
            for message in &mut messages {
                message.body = self.sealer.seal(message.id, &message.body)?;
                message.sealed = true;
            }
        }
        let ids: Vec<MessageId> = messages.iter().map(|message| message.id).collect();
        let most = bounds.of_queue(&known.settings);
        let checking = self.check_byte_quotas(queue, bounds, &known, &messages);
        let admitted = checking.await?;
        let stored = self.store_and_notify(queue, &known, messages, most).await;
        if is_not_stored(&stored) {
            admitted.forgive();
        }
        stored?;
        self.observer.posted(ids.len());
        Ok(ids)
    }

    /// Makes a message of a draft: defaults, bounds, checksum.
    fn mint(&self, client: &ClientId, settings: &Settings, draft: Draft) -> Result<Message> {
        let ttl = match (draft.ttl, settings.default_ttl) {
            (Some(secs), _) => self.limits().message_ttl(secs)?,
            (None, Some(default)) => default,
            (None, None) => Duration::from_secs(self.limits().default_message_ttl.unsigned_abs()),
        };
        let delay = match (settings.delay, draft.delay) {
            (None, _) => Duration::ZERO,
            (Some(default), None) => default,
            (Some(_), Some(secs)) => self.limits().message_delay(secs)?,
        };
        let id = MessageId(Uuid::now_v7());
        let mut message = Message {
            delay,
            headers: draft.headers,
            ..Message::new(id, client.clone(), ttl, draft.body)
        };
        if self.checksums {
            message.checksum = std::str::from_utf8(&message.body)
                .ok()
                .and_then(checksum::checksum);
        }
        Ok(message)
    }

    /// Lists messages.
    pub async fn list(
        &self,
        queue: &QueueKey,
        client: &ClientId,
        listing: Listing,
    ) -> Result<Listed> {
        let limit = self.limits().message_page(listing.limit)?;
        let position = match listing.marker.as_deref().map(Position::parse) {
            Some(None) => return Ok(Listed::default()),
            Some(marker) => marker,
            None => None,
        };
        let selection = Selection {
            after: None,
            limit,
            not_from: (!listing.echo).then(|| client.clone()),
            include_claimed: listing.include_claimed,
            include_delayed: listing.include_delayed.unwrap_or(false),
        };
        let route = self.route(queue).await?;
        let mut position = position;
        let mut pages = 0;
        let mut without_key = None;
        loop {
            let mut listed = route.list(queue, position, selection.clone()).await?;
            let unreadable = self.open_each(queue, &mut listed.messages);
            pages += 1;
            if !listed.messages.is_empty() {
                return Ok(listed);
            }
            let first = unreadable.into_iter().next();
            let is_unreadable = first.is_some();
            if let Some((_, error)) = first
                && error.kind() == ErrorKind::Unavailable
            {
                without_key = Some(error);
            }
            // Behind what cannot be read there may be something that can.
            if is_unreadable && pages < MOST_UNREADABLE && listed.next.is_some() {
                position = listed.next;
                continue;
            }
            return match without_key {
                Some(error) => Err(error),
                None => Ok(listed),
            };
        }
    }

    /// Whether a queue delays messages. In one that does not, delayed messages are listed without asking (quirk
    /// Q-MSG-7).
    pub async fn delays(&self, queue: &QueueKey) -> Result<bool> {
        Ok(self
            .settings(queue)
            .await?
            .is_some_and(|settings| settings.delay.is_some()))
    }

    /// Reads messages by id, in the order asked, without those that do not exist.
    pub async fn get(&self, queue: &QueueKey, ids: &[MessageId]) -> Result<Vec<Message>> {
        let mut messages = self.route(queue).await?.get(queue, ids).await?;
        let unreadable = self.open_each(queue, &mut messages);
        match unreadable.into_iter().next() {
            Some((_, error)) if messages.is_empty() => Err(error),
            _ => Ok(messages),
        }
    }

    /// Whether a queue exists.
    pub async fn queue_exists(&self, queue: &QueueKey) -> Result<bool> {
        Ok(self.settings(queue).await?.is_some())
    }

    /// Deletes messages; those that do not exist are deleted already.
    pub async fn delete(&self, queue: &QueueKey, deletion: Deletion) -> Result<()> {
        let (ids, precondition) = match deletion {
            Deletion::One(id, None) => (vec![id], Precondition::Unclaimed),
            Deletion::One(id, Some(claim)) => (vec![id], Precondition::ClaimedBy(vec![claim])),
            Deletion::Several(ids) => (ids, Precondition::None),
            Deletion::SeveralHeld(ids, claims) => (ids, Precondition::ClaimedBy(claims)),
        };
        let known = self.lookup(queue).await?;
        let route = match &known {
            Some(known) => Arc::clone(&known.route),
            None => self.catalogue.default_route(),
        };
        let deleted = route.delete(queue, &ids, precondition).await?;
        if let Some(known) = known {
            self.note_deleted(queue, &known.settings, deleted);
        }
        self.observer.deleted(deleted);
        Ok(())
    }

    /// Takes messages off the head of a queue.
    pub async fn pop(&self, queue: &QueueKey, count: i64) -> Result<Vec<Message>> {
        let limit = self.limits().pop_count(count)?;
        let known = self.lookup(queue).await?;
        let messages = match &known {
            Some(known) if known.settings.encrypt => {
                self.pop_sealed(queue, &known.route, limit).await?
            }
            _ => {
                let route = self.route(queue).await?;
                let mut messages = route.pop(queue, limit).await?;
                let unreadable = self.open_each(queue, &mut messages);
                let (mut back, mut errors): (Vec<Message>, Vec<_>) = unreadable.into_iter().unzip();
                if !back.is_empty() {
                    for message in &mut back {
                        message.transfers = message.transfers.saturating_add(1);
                    }
                    // They would be gone, and nobody would have read them.
                    route.post(queue, back, None).await?;
                }
                errors.retain(|error| error.kind() == ErrorKind::Unavailable);
                match errors.pop() {
                    Some(error) if messages.is_empty() => return Err(error),
                    _ => messages,
                }
            }
        };
        if let Some(known) = known {
            self.note_popped(queue, &known.settings, &messages);
        }
        self.observer.deleted(messages.len());
        Ok(messages)
    }

    /// Puts popped messages back where they stood, free, as nobody has received them. Each is the same message, one transfer
    /// later; whoever is told of posts has been told of it. It may be repeated. With a queue that is gone they are gone.
    pub async fn put_back(&self, queue: &QueueKey, mut messages: Vec<Message>) -> Result<()> {
        let Some(known) = self.lookup(queue).await? else {
            return Ok(());
        };
        for message in &mut messages {
            if message.sealed {
                message.body = self.sealer.seal(message.id, &message.body)?;
            }
            message.claim = None;
            message.transfers = message.transfers.saturating_add(1);
        }
        let (count, bytes) = (messages.len(), messages.iter().map(Message::size).sum());
        known.route.post(queue, messages, None).await?;
        self.note_put_back(queue, count, bytes);
        Ok(())
    }

    /// Pops what may be unreadable here: it is claimed first, and deleted when it was read. A store that has deleted a
    /// message may not take it back under its id, and under another it could not be decrypted.
    async fn pop_sealed(
        &self,
        queue: &QueueKey,
        route: &SegmentedStore,
        limit: usize,
    ) -> Result<Vec<Message>> {
        let mut popped = Vec::new();
        let mut segment_stores = route.readable().peekable();
        while let Some(segment_store) = segment_stores.next() {
            let lease = Lease {
                id: ClaimId(Uuid::now_v7()),
                ttl: POP,
                grace: Duration::ZERO,
                dead_letter: None,
            };
            let left = limit - popped.len();
            let claimed = self.claim_readable(queue, route, segment_store, lease, left);
            let Some(mut claim) = claimed.await? else {
                continue;
            };
            let ids: Vec<MessageId> = claim.messages.iter().map(|message| message.id).collect();
            let held = Precondition::ClaimedBy(vec![claim.id]);
            route.delete(queue, &ids, held).await?;
            for message in &mut claim.messages {
                message.claim = None;
            }
            popped.append(&mut claim.messages);
            // One page has a bound in bytes: what a newer segment has comes after all of this one.
            let is_over = popped.len() == limit || segment_stores.peek().is_none();
            if is_over || !route.is_drained(queue, segment_store).await {
                break;
            }
        }
        Ok(popped)
    }

    /// Refuses a number of ids that one call may not carry.
    pub fn check_ids(&self, count: usize, sentence: impl FnOnce(usize) -> String) -> Result<()> {
        let most = self.limits().max_messages_per_page;
        if (1..=most).contains(&count) {
            Ok(())
        } else {
            Err(Error::invalid(sentence(most)))
        }
    }

    /// Claims messages that can be read. Those that cannot stay hidden for as long as the claim would run, and go to the
    /// dead-letter queue, where there is one, if no key will ever open them. `Unavailable`, and nothing is hidden, when
    /// there are only messages for which a key is missing.
    pub(super) async fn claim_readable(
        &self,
        queue: &QueueKey,
        route: &SegmentedStore,
        segment_store: &SegmentStore,
        mut lease: Lease,
        limit: usize,
    ) -> Result<Option<Claim>> {
        let (mut hidden, mut failure) = (Vec::new(), None);
        for _ in 0..MOST_UNREADABLE {
            let Some(mut claim) = segment_store.claim(queue, &lease, limit).await? else {
                break;
            };
            for (message, error) in self.open_each(queue, &mut claim.messages) {
                if error.kind() == ErrorKind::Unavailable {
                    failure = Some(error);
                } else if let Some(policy) = &lease.dead_letter {
                    segment_store
                        .dead_letter(queue, claim.id, policy, message)
                        .await?;
                }
            }
            if !claim.messages.is_empty() {
                return Ok(Some(claim));
            }
            hidden.push(claim.id);
            lease.id = ClaimId(Uuid::now_v7());
        }
        let Some(failure) = failure else {
            return Ok(None);
        };
        for claim in hidden {
            // Nobody will hear of this claim.
            route.release_claim(queue, claim).await?;
        }
        Err(failure)
    }

    /// Decrypts what is encrypted, on every way out. What cannot be read is taken out, and comes back with the reason:
    /// `Unavailable` when a key is missing, with which it could be read, and `Internal` when no key will open it.
    pub(super) fn open_each(
        &self,
        queue: &QueueKey,
        messages: &mut Vec<Message>,
    ) -> Vec<(Message, Error)> {
        let mut unreadable = Vec::new();
        let mut at = 0;
        while at < messages.len() {
            match self.open_all(&mut messages[at..=at]) {
                Ok(()) => at += 1,
                Err(error) => unreadable.push((messages.remove(at), error)),
            }
        }
        if let Some((message, error)) = unreadable.first() {
            self.observer.unreadable(unreadable.len());
            if self.unreadable.is_first(queue) {
                tracing::warn!(%queue, id = %message.id, %error, "messages cannot be decrypted, and are passed over");
            }
        }
        unreadable
    }

    /// Decrypts what is encrypted, up to the first that cannot be. `Unavailable` when its key is missing: with that in the
    /// configuration it can be read.
    pub(super) fn open_all(&self, messages: &mut [Message]) -> Result<()> {
        for message in messages.iter_mut().filter(|message| message.sealed) {
            message.body = self
                .sealer
                .open(message.id, &message.body)
                .map_err(|error| {
                    let kind = match seal::is_key_missing(&error) {
                        true => ErrorKind::Unavailable,
                        false => ErrorKind::Internal,
                    };
                    Error::new(kind, "an encrypted message cannot be read").caused_by(error)
                })?;
        }
        Ok(())
    }
}

/// Whether a post has failed for certain: after `Unavailable` nobody knows.
fn is_not_stored<T>(posted: &Result<T>) -> bool {
    matches!(posted, Err(error) if error.kind() != ErrorKind::Unavailable)
}
