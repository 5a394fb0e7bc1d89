//! Sending one entry of a line: again at once as its policy says, then aside, or given up.

use std::sync::Arc;
use std::time::Duration;

use isimud_contract::{ClientId, Message, MessageId, QueueKey, QueueName, Result, Subscription};
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use super::{FRESH, Step, Worker};
use crate::notify::begun::Begun;
use crate::notify::entry::{Entry, What};
use crate::notify::retry::RetryPolicy;
use crate::notify::{DEAD_LETTER_QUEUE, Outcome, switch};

impl Worker {
    /// Sends one notification. Where it may have ended the process before, what is sent is marked meanwhile.
    pub(super) async fn deliver_watched(
        &mut self,
        kept: MessageId,
        entry: &Entry,
        left: Duration,
    ) -> Result<Step> {
        let suspect = (self.suspects > 0).then_some(kept);
        let step = self.deliver(suspect, entry, left).await?;
        if let (Some(kept), Some(begun)) = (suspect, &mut self.begun) {
            begun
                .end(&self.lines.deliveries, &self.lines.running, kept)
                .await?;
            self.suspects -= 1;
        }
        Ok(step)
    }

    /// Marks an entry as begun. Returns false if it was begun too often.
    async fn begin(&mut self, suspect: MessageId) -> Result<bool> {
        let lines = Arc::clone(&self.lines);
        let mut begun = match self.begun.take() {
            Some(begun) => begun,
            None => Begun::read(&lines.deliveries, &self.line.begun).await?,
        };
        let begins = begun
            .begin(&lines.deliveries, &lines.running, suspect)
            .await;
        self.begun = Some(begun);
        begins
    }

    /// Sends one notification, and again at once as often as its policy says.
    async fn deliver(
        &mut self,
        mut suspect: Option<MessageId>,
        entry: &Entry,
        left: Duration,
    ) -> Result<Step> {
        let start = Instant::now();
        let mut failed = entry.failed;
        loop {
            let Some(subscription) = self.subscription().await? else {
                return Ok(Step::Stopped);
            };
            let deliveries = Arc::clone(self.deliveries());
            let left = left.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(self.finish(entry, "expired"));
            }
            let is_message = matches!(entry.what, What::Message { .. });
            let must_agree = deliveries.waits_for_consent(&subscription.subscriber);
            if is_message && must_agree && !subscription.confirmed {
                return Ok(self.finish(entry, "dropped"));
            }
            if is_message && switch::is_off(&subscription) {
                return self.bury(entry, &subscription, left, "switched_off").await;
            }
            let Some(slot) = deliveries
                .push
                .slots
                .take(
                    &self.line.source.project,
                    &subscription.subscriber,
                    self.is_ailing,
                )
                .await
            else {
                return Ok(Step::Stopped);
            };
            // Now, as it was not being sent while it waited. Once, as later attempts follow one that ended well.
            if let Some(suspect) = suspect.take()
                && !self.begin(suspect).await?
            {
                let why = "the service ended each time while it was sent";
                return self.give_up(entry, &subscription, why, left).await;
            }
            let house = &*deliveries.house;
            let attempt = deliveries
                .push
                .attempt(house, &subscription, entry, failed + 1);
            let outcome = deliveries.push.slots.run(slot, attempt).await;
            let (why, after) = match outcome {
                Outcome::Delivered => {
                    self.is_ailing = false;
                    if switch::is_noted(&subscription) {
                        deliveries.note_success(&subscription).await?;
                        self.known = None;
                    }
                    return Ok(self.finish(entry, "delivered"));
                }
                Outcome::Refused(why) => {
                    return self.give_up(entry, &subscription, &why, left).await;
                }
                Outcome::Failed { why, after } => (why, after),
            };
            failed += 1;
            self.is_ailing = true;
            let policy = self.policy(&subscription).await?;
            let wait = policy
                .wait(failed)
                .map(|wait| wait.max(after.unwrap_or_default()));
            let left = left.saturating_sub(start.elapsed());
            match wait {
                Some(wait) if wait < left => {
                    tracing::debug!(subscription = %self.line.id, notification = %entry.id, failed, why, "a notification is retried");
                    deliveries.tally.retried();
                    if !wait.is_zero() {
                        return Ok(Step::Aside(failed, wait));
                    }
                }
                _ => return self.give_up(entry, &subscription, &why, left).await,
            }
            if self.stops() {
                return Ok(Step::Aside(failed, Duration::ZERO));
            }
        }
    }

    fn finish(&self, entry: &Entry, how: &'static str) -> Step {
        tracing::trace!(subscription = %self.line.id, notification = %entry.id, how, "a notification is finished");
        self.deliveries().tally.finished(how);
        Step::Done
    }

    /// Gives a notification up: it goes to the dead-letter queue of the subscription, if there is one.
    async fn give_up(
        &self,
        entry: &Entry,
        subscription: &Subscription,
        why: &str,
        left: Duration,
    ) -> Result<Step> {
        tracing::info!(subscription = %self.line.id, queue = %self.line.source, notification = %entry.id, why, "a notification is given up");
        self.deliveries().note_failure(subscription, why).await?;
        self.bury(entry, subscription, left, "given_up").await
    }

    /// Puts a notification into the dead-letter queue of the subscription; without one it is finished in another way.
    async fn bury(
        &self,
        entry: &Entry,
        subscription: &Subscription,
        left: Duration,
        otherwise: &'static str,
    ) -> Result<Step> {
        let dead = subscription
            .options
            .get(DEAD_LETTER_QUEUE)
            .and_then(Value::as_str);
        let dead = dead.and_then(|name| QueueName::parse(name).ok());
        let (
            Some(name),
            What::Message {
                ttl, sealed, body, ..
            },
        ) = (dead, &entry.what)
        else {
            return Ok(self.finish(entry, otherwise));
        };
        let queue = QueueKey::new(self.line.source.project.clone(), name);
        let nobody = ClientId::Uuid(Uuid::nil());
        // A sealed body opens under the id that it was sealed with, and so under no other.
        let id = if *sealed {
            entry.id
        } else {
            MessageId(Uuid::new_v5(&self.line.id.0, entry.id.0.as_bytes()))
        };
        let message = Message {
            sealed: *sealed,
            ttl: *ttl,
            ..Message::new(id, nobody, (*ttl).max(left), body.clone())
        };
        self.deliveries().house.bury(&queue, message).await?;
        Ok(self.finish(entry, "dead_lettered"))
    }

    async fn policy(&self, subscription: &Subscription) -> Result<RetryPolicy> {
        let queue = self
            .deliveries()
            .house
            .retry_policy(&self.line.source)
            .await?;
        let own = subscription.options.get("_retry_policy");
        Ok(RetryPolicy::choose(own, queue.as_ref()))
    }

    /// The subscription as it was a moment ago at the latest; `None` when it has gone.
    pub(super) async fn subscription(&mut self) -> Result<Option<Arc<Subscription>>> {
        if let Some((read, known)) = &self.known
            && read.elapsed() < FRESH
        {
            return Ok(Some(Arc::clone(known)));
        }
        let found = self
            .deliveries()
            .management
            .find_subscription(&self.line.source, self.line.id)
            .await?;
        let found = found.map(Arc::new);
        self.known = found.clone().map(|found| (Instant::now(), found));
        Ok(found)
    }
}
