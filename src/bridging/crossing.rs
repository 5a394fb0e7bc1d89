//! A batch from end to end, and what to do about one that was cut off. See the module's table.

use std::sync::Arc;
use std::time::Duration;

use isimud_contract::{ClaimId, Error, ErrorKind, Guard, Lease, Message, MessageId, Selection};
use uuid::Uuid;

use super::Rule;
use super::seat::{Begun, Halt, Seat};
use crate::messaging::{Landing, Messaging};
use crate::moving::{BATCH, End, move_on};

/// How long the source hides messages while they cross.
const HOLD: Duration = Duration::from_secs(30);

/// What a batch came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// Messages that are in the target now.
    pub(super) crossed: usize,
    /// Messages that are in the dead-letter queue now.
    pub(super) dead_lettered: usize,
    /// How old the oldest of them was.
    pub(super) oldest: Duration,
}

impl Batch {
    /// All that have left the source.
    pub(super) fn count(&self) -> usize {
        self.crossed + self.dead_lettered
    }
}

/// Takes batches across, for as long as it has the seat.
#[derive(Debug)]
pub(super) struct Crossing<'a> {
    pub(super) messaging: &'a Messaging,
    pub(super) rule: &'a Rule,
    pub(super) seat: &'a Seat,
    /// A claim that is noted in the seat's record and was not made, there being nothing to claim.
    unused: Option<ClaimId>,
}

/// What became of messages that were posted.
#[derive(Default)]
struct Posted {
    taken: Vec<MessageId>,
    refused: Vec<(Message, Error)>,
}

impl<'a> Crossing<'a> {
    pub(super) fn new(messaging: &'a Messaging, rule: &'a Rule, seat: &'a Seat) -> Self {
        Self {
            messaging,
            rule,
            seat,
            unused: None,
        }
    }

    /// Ends what was cut off, whoever had begun it, and begins anew.
    pub(super) async fn recover(&mut self) -> Result<(), Halt> {
        self.unused = None;
        let begun = self.seat.begun().await?;
        let stage = self.stage(&begun).await?;
        if let Some(stage) = &stage {
            self.finish(stage, &begun).await?;
        }
        if let Some(claim) = begun.claim {
            let released = self.messaging.release_claim(&self.rule.from, claim);
            released.await?;
        }
        if let Some(stage) = &stage {
            // What arrived before the claim ended may have been deleted as held by it.
            self.finish(stage, &begun).await?;
        }
        self.seat.begin_anew().await?;
        if let Some(stage) = stage
            && let Err(error) = stage.store.remove(&stage.key).await
        {
            tracing::debug!(%error, "an empty stage is left");
        }
        Ok(())
    }

    /// The stage that has been in use; `None` where there cannot be one.
    async fn stage(&self, begun: &Begun) -> Result<Option<End>, Error> {
        let Some(store) = self.messaging.store_of(&begun.home).await? else {
            return Ok(None);
        };
        let able = store.capabilities();
        Ok((!able.remembers).then(|| End {
            store,
            key: begun.stage.clone(),
        }))
    }

    /// Brings what is in the stage to the target, once it has left the source.
    async fn finish(&self, stage: &End, begun: &Begun) -> Result<(), Halt> {
        loop {
            let everything = Selection {
                after: None,
                limit: BATCH,
                not_from: None,
                include_claimed: true,
                include_delayed: true,
            };
            let mut found = stage.store.list(&stage.key, everything).await?.messages;
            if found.is_empty() {
                return Ok(());
            }
            let kept = self.leave_source(&ids(&found), begun.claim).await?;
            let (left, back): (Vec<Message>, Vec<Message>) = found
                .drain(..)
                .partition(|message| kept.contains(&message.id));
            if !back.is_empty() {
                let back = ids(&back);
                stage.store.delete(&stage.key, &back, Guard::Any).await?;
            }
            let landing = self.messaging.landing(&self.rule.to).await?;
            if *landing.home() == begun.home {
                self.pass_on(stage, &landing, &left).await?;
            } else if !left.is_empty() {
                let ids = ids(&left);
                self.messaging.land(&landing, left).await?;
                stage.store.delete(&stage.key, &ids, Guard::Any).await?;
            }
        }
    }

    /// Deletes from the source what is in the stage. Returns which messages are not in the source any more: those that
    /// somebody else has claimed there meanwhile stay.
    async fn leave_source(
        &self,
        ids: &[MessageId],
        claim: Option<ClaimId>,
    ) -> Result<Vec<MessageId>, Error> {
        let from = &self.rule.from;
        if let Some(claim) = claim {
            let guard = Guard::HeldBy(vec![claim]);
            match self.messaging.cross_off(from, ids, guard).await {
                Ok(_) => return Ok(ids.to_vec()),
                Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
                // The claim has ended for some of them.
                Err(_) => {}
            }
        }
        let mut left = Vec::new();
        for id in ids {
            match self.messaging.cross_off(from, &[*id], Guard::Free).await {
                Ok(_) => left.push(*id),
                Err(error) if error.kind() == ErrorKind::Claimed => {}
                // A broker that cannot look for it, and a ledger that has no row of it: it has ended.
                Err(error) if error.kind() == ErrorKind::Unsupported => left.push(*id),
                Err(error) => return Err(error),
            }
        }
        Ok(left)
    }

    /// Takes a batch of up to `most` messages across.
    pub(super) async fn batch(&mut self, most: usize) -> Result<Batch, Halt> {
        if !self.is_called_for().await? {
            return Ok(Batch::default());
        }
        let landing = self.messaging.landing(&self.rule.to).await?;
        let begun = self.seat.begun().await?;
        let claim = match self.unused {
            Some(claim) if begun.home == *landing.home() => claim,
            _ => {
                let claim = ClaimId(Uuid::now_v7());
                self.seat.begin(claim, landing.home()).await?;
                self.unused = Some(claim);
                claim
            }
        };
        let (from, lease) = (&self.rule.from, lease(claim));
        let taken = self.messaging.take(from, &lease, most).await?;
        if taken.is_empty() {
            return Ok(Batch::default());
        }
        self.unused = None;
        // A claim that came late holds what nobody else knows of.
        self.seat.confirm_if_late().await?;
        let stage = (!landing.remembers()).then(|| End {
            store: Arc::clone(landing.store()),
            key: begun.stage,
        });
        self.bring(&landing, stage, claim, taken).await
    }

    /// Whether there is something to do. A target that does not exist is not made before there is: its owner may want
    /// it in another pool.
    async fn is_called_for(&self) -> Result<bool, Error> {
        if self.messaging.queue_exists(&self.rule.to).await? {
            return Ok(true);
        }
        Ok(self.messaging.backlog(&self.rule.from).await?.free > 0)
    }

    async fn bring(
        &self,
        landing: &Landing,
        stage: Option<End>,
        claim: ClaimId,
        mut messages: Vec<Message>,
    ) -> Result<Batch, Halt> {
        let oldest = messages.iter().map(|message| message.age).max();
        self.messaging.fit(landing, &mut messages)?;
        let told = stage.as_ref().map(|_| messages.clone());
        let post = self.post(landing, stage.as_ref(), messages);
        let Posted { taken, refused } = self.holding(claim, post).await?;
        let mut gone = taken.clone();
        let mut stopped = None;
        let dead_lettered = match &self.rule.dead_letter {
            Some(_) => {
                gone.extend(refused.iter().map(|(message, _)| message.id));
                self.dead_letter(refused).await?
            }
            None => {
                stopped = refused.into_iter().next();
                0
            }
        };
        let guard = Guard::HeldBy(vec![claim]);
        let deleted = self.messaging.cross_off(&self.rule.from, &gone, guard);
        if deleted.await? != gone.len() {
            // Others have deleted some, some have ended; or another server has the seat, and has done all this.
            self.seat.confirm().await?;
        }
        if let (Some(stage), Some(mut told)) = (&stage, told) {
            told.retain(|message| taken.contains(&message.id));
            self.pass_on(stage, landing, &told).await?;
        }
        if let Some((message, error)) = stopped {
            self.messaging.release_claim(&self.rule.from, claim).await?;
            return Err(Halt::Refused(error.with("message", message.id)));
        }
        Ok(Batch {
            crossed: taken.len(),
            dead_lettered,
            oldest: oldest.unwrap_or_default(),
        })
    }

    /// Does something, and keeps the claim meanwhile: a target may be slow.
    async fn holding<T>(&self, claim: ClaimId, what: impl Future<Output = T>) -> T {
        tokio::pin!(what);
        loop {
            tokio::select! {
                biased;
                done = &mut what => return done,
                () = tokio::time::sleep(HOLD / 3) => {
                    // Without the claim the messages cannot be deleted, and come again.
                    if let Err(error) = self.messaging.keep(&self.rule.from, &lease(claim)).await {
                        tracing::debug!(%error, "the claim of a bridge may end before its messages have crossed");
                    }
                }
            }
        }
    }

    /// Posts messages to the stage, or to the target. Without a dead-letter queue nothing behind the first that is
    /// refused is posted.
    async fn post(
        &self,
        landing: &Landing,
        stage: Option<&End>,
        messages: Vec<Message>,
    ) -> Result<Posted, Error> {
        let post = async |messages: Vec<Message>| match stage {
            // Nothing leaves the source before it is there for certain.
            Some(stage) => stage.put(messages).await,
            None => self.messaging.land(landing, messages).await,
        };
        let mut posted = Posted::default();
        if messages.iter().all(|message| landing.takes(message)) {
            match post(messages.clone()).await {
                Ok(()) => {
                    posted.taken = ids(&messages);
                    return Ok(posted);
                }
                Err(error) if !is_final(&error) => return Err(error),
                // One of them, and only the target knows which.
                Err(_) => {}
            }
        }
        for message in messages {
            let outcome = match landing.takes(&message) {
                true => post(vec![message.clone()]).await,
                false => Err(too_large(&message)),
            };
            match outcome {
                Ok(()) => posted.taken.push(message.id),
                Err(error) if !is_final(&error) => return Err(error),
                Err(error) => {
                    posted.refused.push((message, error));
                    if self.rule.dead_letter.is_none() {
                        break;
                    }
                }
            }
        }
        Ok(posted)
    }

    /// Puts what the target refuses into the dead-letter queue. Returns how many messages that were.
    async fn dead_letter(&self, refused: Vec<(Message, Error)>) -> Result<usize, Halt> {
        let Some(queue) = self
            .rule
            .dead_letter
            .as_ref()
            .filter(|_| !refused.is_empty())
        else {
            return Ok(0);
        };
        let landing = self.messaging.landing(queue).await?;
        let mut messages = Vec::new();
        for (message, error) in refused {
            tracing::warn!(%error, id = %message.id, from = %self.rule.from, to = %self.rule.to, %queue,
                "a message goes to the dead-letter queue of its bridge");
            messages.push(message);
        }
        self.messaging.fit(&landing, &mut messages)?;
        let count = messages.len();
        match self.messaging.land(&landing, messages).await {
            Err(error) if is_final(&error) => Err(Halt::Refused(error)),
            landed => Ok(landed.map(|()| count)?),
        }
    }

    async fn pass_on(
        &self,
        stage: &End,
        landing: &Landing,
        messages: &[Message],
    ) -> Result<(), Error> {
        if messages.is_empty() {
            return Ok(());
        }
        let appear = move_on(stage, landing.key(), landing.stands());
        self.messaging.land_by(landing, messages, appear).await
    }
}

fn lease(claim: ClaimId) -> Lease {
    Lease {
        id: claim,
        ttl: HOLD,
        grace: Duration::ZERO,
        dead_letter: None,
    }
}

/// Whether trying again would not help.
fn is_final(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unsupported)
}

fn too_large(message: &Message) -> Error {
    let sentence = "the body is too large for the target of the bridge";
    Error::new(ErrorKind::Unsupported, sentence).with("bytes", message.body.len())
}

fn ids(messages: &[Message]) -> Vec<MessageId> {
    messages.iter().map(|message| message.id).collect()
}
