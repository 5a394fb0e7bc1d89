//! Taking messages over: those that came without an id, and those that RabbitMQ may soon drop.
//!
//! The copy of a message is confirmed in the companion of its queue before the original is acknowledged, and then got
//! from there in the original's place: what one call receives is in the order of the queue, whatever became of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use isimud_contract::{Delivery, Error, ErrorKind, MessageId, Result};
use tokio::time::Instant;
use uuid::Uuid;

use super::Inner;
use crate::companion::unanswered;
use crate::doubts::{self, Fingerprint};
use crate::error::{refused, stalled};
use crate::expected::Expecting;
use crate::held::{Holding, Tag};
use crate::holder::Got;
use crate::message;
use crate::names::Address;
use crate::native;
use crate::publisher::{PublishOutcome, Target};
use crate::queues::Known;
use crate::receipt;

/// The returns from which a copy in a companion is copied again. It is given back there only with the connection that
/// holds it.
const COMPANION_RETURNS: u64 = 3;

/// For how long after its start a server takes copies that it finds for those of one that has died just before.
const SUCCESSION: Duration = Duration::from_secs(60);

/// How long a caller waits for copies that others have got for him.
const COPIES_TIME: Duration = Duration::from_millis(500);

/// What one call has got, in the order in which it came.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// All that this call has come to hold; some of it may be settled.
    tags: Vec<Tag>,
    ready: Vec<(usize, Delivery)>,
    exhausted: Vec<Original>,
}

/// A message that is to be replaced by a copy.
#[derive(Debug)]
struct Original {
    place: usize,
    got: Got,
    id: MessageId,
    /// How long the copy is to live, where that is known.
    left: Option<Duration>,
    /// It as it is, where it has an id.
    delivery: Option<Delivery>,
}

impl Batch {
    pub(super) fn len(&self) -> usize {
        self.tags.len()
    }

    pub(super) fn tags(&self) -> &[Tag] {
        &self.tags
    }

    /// Everything that can be delivered, in order.
    pub(super) fn into_deliveries(mut self) -> Vec<Delivery> {
        self.ready.sort_by_key(|(place, _)| *place);
        self.ready.into_iter().map(|(_, it)| it).collect()
    }
}

impl Inner {
    /// Adds what was got from a queue, or from its companion. What another caller expects from there is handed over.
    pub(super) fn add(
        &self,
        batch: &mut Batch,
        address: &Address,
        known: &Known,
        from_companion: bool,
        got: Got,
    ) {
        let mut read = self.read(known, &got);
        if from_companion
            && let Some(delivery) = &read
            && self.may_have_an_original(&got)
        {
            let copy = native::returned(got.clone());
            let original = Fingerprint::of(&address.queue, &copy);
            self.doubts.note(&[(original, delivery.message.id)]);
        }
        if from_companion && let Some(delivery) = read.take() {
            let tag = got.tag;
            read = known.expected.hand_over(tag, delivery);
            if read.is_none() {
                return self.goes_back_to(address, got);
            }
        }
        let place = batch.tags.len();
        batch.tags.push(got.tag);
        let most = self.take_over_at.map(|at| match from_companion {
            true => at.max(COMPANION_RETURNS),
            false => at,
        });
        let is_exhausted = most.is_some_and(|most| native::returns(&got.properties) >= most);
        match read {
            Some(delivery) if !is_exhausted => {
                if from_companion {
                    self.goes_back_to(address, got);
                }
                batch.ready.push((place, delivery));
            }
            delivery => batch.exhausted.push(Original {
                place,
                id: delivery
                    .as_ref()
                    .map_or_else(|| self.id_for(address, &got, batch), |it| it.message.id),
                left: delivery
                    .as_ref()
                    .filter(|_| message::is_ours(&got.properties))
                    .map(|it| {
                        it.posted
                            .after(it.message.remaining_ttl)
                            .since(self.clock.now())
                    }),
                delivery,
                got,
            }),
        }
    }

    /// Waits for a companion, for a part of the time that a call has: the queue itself needs the rest. One that does not
    /// answer is left alone for a while.
    pub(super) async fn unless_silent<T>(
        &self,
        known: &Known,
        asked: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let asked = tokio::time::timeout(self.timeout / 4, asked).await;
        let answer = asked.unwrap_or_else(|_| Err(stalled()));
        if matches!(&answer, Err(error) if error.kind() == ErrorKind::Unavailable) {
            known.companion.leave();
        }
        answer
    }

    /// A sentence about the companion of a queue while it does not answer: RabbitMQ says of one that is dead that it is
    /// empty.
    pub(super) async fn silent_part(&self, address: &Address) -> Result<Option<String>> {
        let Some(known) = self.queues.find(address).await? else {
            return Ok(None);
        };
        if !known.companion.is_in_doubt() {
            return Ok(None);
        }
        if !known.companion.is_silent() {
            let asked = self.queues.is_companion_there(address);
            match self.unless_silent(&known, asked).await {
                Ok(true) => {
                    known.companion.has_answered();
                    return Ok(None);
                }
                Ok(false) => {
                    self.queues.forget(address);
                    return Ok(None);
                }
                Err(error) if error.kind() != ErrorKind::Unavailable => return Err(error),
                Err(_) => {}
            }
        }
        Ok(Some(unanswered(address.companion.as_str())))
    }

    /// Whether a copy may be one that a server has made whose last acknowledgements were lost with it.
    fn may_have_an_original(&self, got: &Got) -> bool {
        self.opened.elapsed() < SUCCESSION
            && !message::is_ours(&got.properties)
            && doubts::has_name(&got.properties)
    }

    /// The id under which a message without one is adopted: that of a copy that there may be of it already. Of two in one
    /// call that are equal the second is another.
    fn id_for(&self, address: &Address, got: &Got, batch: &Batch) -> MessageId {
        let copy = (got.is_again && !self.doubts.is_empty())
            .then(|| self.doubts.id_of(fingerprint(address, got)))
            .flatten()
            .filter(|id| batch.exhausted.iter().all(|other| other.id != *id));
        copy.unwrap_or_else(|| MessageId(Uuid::now_v7()))
    }

    fn read(&self, known: &Known, got: &Got) -> Option<Delivery> {
        let now = self.clock.now();
        let natives = self.natives.kept_for(known.message_ttl);
        let (message, posted) = message::read(&got.properties, &got.body, now, natives)?;
        Some(Delivery {
            message,
            posted,
            receipt: receipt::write(self.server, got.tag),
            awaits_record: message::is_posted_by_us(&got.properties),
        })
    }

    /// Has a copy that is given back go to the end of the queue, for native consumers to find. What was posted here to a
    /// queue of our own keeps its order: it stays in the companion, from which everything is received first.
    fn goes_back_to(&self, address: &Address, got: Got) {
        let keeps_order = !address.is_adopted && message::is_ours(&got.properties);
        let queue = match keeps_order {
            true => &address.companion,
            false => &address.queue,
        };
        let (tag, target) = (got.tag, Target::queue(queue));
        self.holder.held.instead(tag, target, native::returned(got));
    }

    /// Replaces what must not stay as it is by copies in the companion. The originals of copies that the companion
    /// refuses, as one that is full does, or one in the making, are delivered as they are where they have an id, and go
    /// back where they have none. An error when nothing can be delivered at all.
    pub(super) async fn take_over(
        self: &Arc<Self>,
        address: &Address,
        known: &Known,
        batch: &mut Batch,
        visibility: Duration,
    ) -> Result<()> {
        let mut exhausted = std::mem::take(&mut batch.exhausted);
        if exhausted.is_empty() {
            return Ok(());
        }
        let is_silent = known.companion.is_silent();
        let made = match is_silent {
            true => Err(stalled().with("queue", &address.companion)),
            false => self.queues.make_companion(address, known).await,
        };
        if is_silent || (made.is_ok() && known.companion.is_young()) {
            exhausted = self.deliver_what_can_wait(batch, exhausted);
            if exhausted.is_empty() {
                return Ok(());
            }
        }
        let held = Arc::clone(&self.holder.held);
        let expecting = known
            .expected
            .expect(exhausted.iter().map(|it| it.id), held);
        let in_doubt: Vec<_> = exhausted
            .iter()
            .map(|it| {
                let is_nameless = it.delivery.is_none();
                is_nameless.then(|| (fingerprint(address, &it.got), it.id))
            })
            .collect();
        let copied = async {
            made?;
            self.doubts.note(&flat(&in_doubt));
            let target = Target::queue(&address.companion);
            let copies = exhausted
                .iter()
                .map(|it| native::copy(&it.got, it.id, it.left));
            let copies = self.publisher.publish_some(target, copies.collect());
            match self.unless_silent(known, copies).await? {
                (PublishOutcome::Stored, refused) => Ok(refused),
                (PublishOutcome::Unroutable, _) => Err(Error::new(
                    ErrorKind::Unavailable,
                    "the companion of the RabbitMQ queue is gone",
                )),
            }
        };
        let (refused_at, mut failure) = match copied.await {
            Ok(places) => {
                // Of what was refused there is no copy.
                let refused_ones = places.iter().filter_map(|at| in_doubt[*at]);
                self.doubts.settle(&refused_ones.collect::<Vec<_>>());
                let failure = (!places.is_empty()).then(refused);
                (places, failure)
            }
            Err(error) => {
                if known.companion.answers() {
                    self.queues.forget(address);
                }
                ((0..exhausted.len()).collect(), Some(error))
            }
        };
        let (mut copies, mut originals, mut nameless) = (HashMap::new(), Vec::new(), Vec::new());
        for (at, original) in exhausted.into_iter().enumerate() {
            let tag = original.got.tag;
            if !refused_at.contains(&at) {
                copies.insert(original.id, original.place);
                originals.push(tag);
            } else if let Some(delivery) = original.delivery {
                batch.ready.push((original.place, delivery));
            } else {
                nameless.push(tag);
            }
        }
        let held = &self.holder.held;
        self.holder.give_back(held.take(&nameless)).await?;
        if !copies.is_empty() {
            self.replace(held.take(&originals), flat(&in_doubt)).await?;
            match self
                .get_copies(address, known, &expecting, &copies, visibility)
                .await
            {
                Ok(got) => {
                    let copies = got.iter().filter_map(|(_, it)| receipt::read(&it.receipt));
                    batch.tags.extend(copies.map(|(_, tag)| tag));
                    batch.ready.extend(got);
                }
                // They are in the companion, for the next call.
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if batch.ready.is_empty() => Err(error),
            _ => Ok(()),
        }
    }

    /// Acknowledges originals that there are copies of. Those without an id are in doubt until RabbitMQ has read that.
    async fn replace(
        self: &Arc<Self>,
        originals: Vec<(Tag, Holding)>,
        in_doubt: Vec<(Fingerprint, MessageId)>,
    ) -> Result<()> {
        let mut channels: Vec<_> = originals
            .iter()
            .map(|(_, it)| Arc::clone(&it.channel))
            .collect();
        channels.sort_unstable_by_key(|it| it.number);
        channels.dedup_by_key(|it| it.number);
        self.holder.ack(originals).await?;
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            let read = join_all(channels.iter().map(|it| it.has_been_read())).await;
            if read.iter().all(|is_read| *is_read) {
                inner.doubts.settle(&in_doubt);
            }
        });
        Ok(())
    }

    /// Delivers as they are what RabbitMQ takes back a few times more, as a companion that has just been made may not
    /// outlive a crash. Returns the others.
    fn deliver_what_can_wait(&self, batch: &mut Batch, exhausted: Vec<Original>) -> Vec<Original> {
        let urgent = self.take_over_at.unwrap_or_default().saturating_add(1);
        let mut others = Vec::new();
        for mut original in exhausted {
            let can_wait = native::returns(&original.got.properties) <= urgent;
            match original.delivery.take_if(|_| can_wait) {
                Some(delivery) => batch.ready.push((original.place, delivery)),
                None => others.push(original),
            }
        }
        others
    }

    /// Gets copies, each in the place of its original. One that nobody on this server expects stands where it came.
    async fn get_copies(
        &self,
        address: &Address,
        known: &Known,
        expecting: &Expecting,
        places: &HashMap<MessageId, usize>,
        visibility: Duration,
    ) -> Result<Vec<(usize, Delivery)>> {
        let holder = &self.holder;
        let until = Instant::now() + COPIES_TIME.min(self.timeout / 2);
        let mut copies = Vec::with_capacity(places.len());
        let mut last = 0;
        let mut place = |delivery: &Delivery| {
            last = *places.get(&delivery.message.id).unwrap_or(&last);
            last
        };
        loop {
            let comes = expecting.comes();
            for (tag, delivery) in expecting.take() {
                holder.held.extend(&[tag], holder.held.now() + visibility);
                copies.push((place(&delivery), delivery));
            }
            let missing = places.len().saturating_sub(copies.len());
            if missing == 0 {
                return Ok(copies);
            }
            let got = match holder
                .get(&address.companion, missing, visibility, false)
                .await
            {
                Err(error) if copies.is_empty() => return Err(error),
                Err(_) => return Ok(copies),
                Ok(got) => got,
            };
            if got.is_empty() {
                // Others have got them, and are about to hand them over; or another server has them.
                let came = tokio::time::timeout_at(until, comes).await;
                if came.is_err() {
                    return Ok(copies);
                }
            }
            for got in got {
                let tag = got.tag;
                match self.read(known, &got) {
                    Some(delivery) => {
                        self.goes_back_to(address, got);
                        let kept = match expecting.has(delivery.message.id) {
                            true => Some(delivery),
                            false => known.expected.hand_over(tag, delivery),
                        };
                        if let Some(delivery) = kept {
                            copies.push((place(&delivery), delivery));
                        }
                    }
                    None => self.end_hold(tag),
                }
            }
        }
    }

    fn end_hold(&self, tag: Tag) {
        let held = &self.holder.held;
        held.extend(&[tag], held.now());
    }
}

fn fingerprint(address: &Address, got: &Got) -> Fingerprint {
    let copy = native::copy(got, MessageId(Uuid::nil()), None);
    Fingerprint::of(&address.queue, &copy)
}

fn flat<T: Copy>(some: &[Option<T>]) -> Vec<T> {
    some.iter().flatten().copied().collect()
}
