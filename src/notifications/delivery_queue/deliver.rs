//! Sending one entry of a queue: again at once as its policy says, then with a back-off, or given up.

use std::sync::Arc;
use std::time::Duration;

use isimud_contract::{ClientId, Message, MessageId, QueueKey, QueueName, Result, Subscription};
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use super::{DeliveryWorker, SUBSCRIPTION_CACHE_TTL, Step};
use crate::notifications::attempt_markers::AttemptMarkers;
use crate::notifications::entry::{Entry, What};
use crate::notifications::retry::RetryPolicy;
use crate::notifications::{DEAD_LETTER_QUEUE, Outcome, switch};

impl DeliveryWorker {
    /// Sends one notification. Where it may have ended the process before, what is sent is marked meanwhile.
    pub(super) async fn deliver_watched(
        &mut self,
        kept: MessageId,
        entry: &Entry,
        left: Duration,
    ) -> Result<Step> {
        let suspect = (self.suspects > 0).then_some(kept);
        let step = self.deliver(suspect, entry, left).await?;
        if let (Some(kept), Some(markers)) = (suspect, &mut self.markers) {
            markers
                .end(&self.queues.deliveries, &self.queues.running, kept)
                .await?;
            self.suspects -= 1;
        }
        Ok(step)
    }

    /// Marks an entry as begun. Returns false if it was begun too often.
    async fn begin(&mut self, suspect: MessageId) -> Result<bool> {
        let queues = Arc::clone(&self.queues);
        let mut markers = match self.markers.take() {
            Some(markers) => markers,
            None => AttemptMarkers::read(&queues.deliveries, &self.queue.markers).await?,
        };
        let begins = markers
            .begin(&queues.deliveries, &queues.running, suspect)
            .await;
        self.markers = Some(markers);
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
            let must_agree = deliveries.awaits_confirmation(&subscription.subscriber);
            if is_message && must_agree && !subscription.confirmed {
                return Ok(self.finish(entry, "dropped"));
            }
            if is_message && switch::is_off(&subscription) {
                return self
                    .dead_letter(entry, &subscription, left, "switched_off")
                    .await;
            }
            let Some(slot) = deliveries
                .sender
                .limits
                .take(
                    &self.queue.source.project,
                    &subscription.subscriber,
                    self.is_failing,
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
            let context = &*deliveries.context;
            let attempt = deliveries
                .sender
                .attempt(context, &subscription, entry, failed + 1);
            let outcome = deliveries.sender.limits.run(slot, attempt).await;
            let (why, after) = match outcome {
                Outcome::Delivered => {
                    self.is_failing = false;
                    if switch::is_noted(&subscription) {
                        deliveries.note_success(&subscription).await?;
                        self.cached = None;
                    }
                    return Ok(self.finish(entry, "delivered"));
                }
                Outcome::Refused(why) => {
                    return self.give_up(entry, &subscription, &why, left).await;
                }
                Outcome::Failed { why, after } => (why, after),
            };
            failed += 1;
            self.is_failing = true;
            let policy = self.policy(&subscription).await?;
            let wait = policy
                .wait(failed)
                .map(|wait| wait.max(after.unwrap_or_default()));
            let left = left.saturating_sub(start.elapsed());
            match wait {
                Some(wait) if wait < left => {
                    tracing::debug!(subscription = %self.queue.id, notification = %entry.id, failed, why, "a notification is retried");
                    deliveries.observer.retried();
                    if !wait.is_zero() {
                        return Ok(Step::Retry(failed, wait));
                    }
                }
                _ => return self.give_up(entry, &subscription, &why, left).await,
            }
            if self.stops() {
                return Ok(Step::Retry(failed, Duration::ZERO));
            }
        }
    }

    fn finish(&self, entry: &Entry, how: &'static str) -> Step {
        tracing::trace!(subscription = %self.queue.id, notification = %entry.id, how, "a notification is finished");
        self.deliveries().observer.finished(how);
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
        tracing::info!(subscription = %self.queue.id, queue = %self.queue.source, notification = %entry.id, why, "a notification is given up");
        self.deliveries().note_failure(subscription, why).await?;
        self.dead_letter(entry, subscription, left, "given_up")
            .await
    }

    /// Puts a notification into the dead-letter queue of the subscription; without one it is finished in another way.
    async fn dead_letter(
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
        let queue = QueueKey::new(self.queue.source.project.clone(), name);
        let nobody = ClientId::Uuid(Uuid::nil());
        // A sealed body opens under the id that it was sealed with, and so under no other.
        let id = if *sealed {
            entry.id
        } else {
            MessageId(Uuid::new_v5(&self.queue.id.0, entry.id.0.as_bytes()))
        };
        let message = Message {
            sealed: *sealed,
            ttl: *ttl,
            ..Message::new(id, nobody, (*ttl).max(left), body.clone())
        };
        self.deliveries()
            .context
            .dead_letter(&queue, message)
            .await?;
        Ok(self.finish(entry, "dead_lettered"))
    }

    async fn policy(&self, subscription: &Subscription) -> Result<RetryPolicy> {
        let queue = self
            .deliveries()
            .context
            .retry_policy(&self.queue.source)
            .await?;
        let own = subscription.options.get("_retry_policy");
        Ok(RetryPolicy::choose(own, queue.as_ref()))
    }

    /// The subscription as it was a moment ago at the latest; `None` when it has gone.
    pub(super) async fn subscription(&mut self) -> Result<Option<Arc<Subscription>>> {
        if let Some((read, cached)) = &self.cached
            && read.elapsed() < SUBSCRIPTION_CACHE_TTL
        {
            return Ok(Some(Arc::clone(cached)));
        }
        let found = self
            .deliveries()
            .management
            .find_subscription(&self.queue.source, self.queue.id)
            .await?;
        let found = found.map(Arc::new);
        self.cached = found.clone().map(|found| (Instant::now(), found));
        Ok(found)
    }
}
