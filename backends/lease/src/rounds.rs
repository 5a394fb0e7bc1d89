//! Claims and pops: rounds of one delivery and one judgement each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isimud_contract::{
    ClaimId, DeadLetter, Delivery, Error, ErrorKind, Message, PageRoom, Precondition, Purpose,
    QueueKey, Receipt, Result, Timestamp, UnknownIds, Verdict,
};

use crate::broker::LeaseBroker;
use crate::budget::Budget;
use crate::leased::{Journal, Leased};

/// Rounds of one call, at the most.
const MAX_ROUNDS: usize = 24;

/// How long a call may go on with rounds.
const ROUNDS_TIMEOUT: Duration = Duration::from_secs(1);

/// Messages that a round asks for, at the most.
const MAX_BATCH: usize = 1000;

/// What a round came to.
#[derive(Default)]
struct Round {
    granted: Vec<Message>,
    /// When that was judged; the messages are as they were then.
    judged: Option<Timestamp>,
    /// What the broker delivered.
    received: usize,
    /// There was more than could be granted.
    surplus: bool,
    /// There was more than one answer has room for.
    is_cut: bool,
}

/// Why there was no round.
enum Stop {
    /// A call failed.
    Round(Error),
    /// A call failed, and the whole claim was ended for it.
    Claim(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Round(error)
    }
}

/// What the broker is to be told after a round.
#[derive(Default)]
struct Settlements {
    settled: Vec<Receipt>,
    free: Vec<Receipt>,
    held: BTreeMap<Duration, Vec<Receipt>>,
}

impl<B: LeaseBroker> Leased<B> {
    /// Takes up to `limit` messages.
    ///
    /// As a rule that is one delivery and one judgement. Where messages come that nobody may have (deleted before
    /// anybody saw them, delayed, held by a claim whose server died) more rounds follow, wider ones, so that a prefix
    /// of them is passed once and then gone; a call gives up after a second, or some ten thousand of them, and the next
    /// one goes on there.
    pub(crate) async fn take(
        &self,
        queue: &QueueKey,
        purpose: Purpose<'_>,
        limit: usize,
        visibility: Duration,
    ) -> Result<Vec<Message>> {
        let (mut taken, mut as_of) = (Vec::new(), self.clock.now());
        let mut ask = limit.min(MAX_BATCH);
        let (begun, budget) = (Instant::now(), self.budget());
        for _ in 0..MAX_ROUNDS {
            let wanted = limit - taken.len();
            if wanted == 0 || begun.elapsed() > ROUNDS_TIMEOUT {
                break;
            }
            let purpose = match purpose {
                Purpose::Claim(lease) if !taken.is_empty() => Purpose::More(lease),
                purpose => purpose,
            };
            let room = PageRoom::beside(&taken);
            let round = self.round(queue, purpose, (wanted, ask, room), visibility, budget);
            let round = match round.await {
                Ok(round) => round,
                Err(Stop::Claim(error)) => return Err(error),
                Err(Stop::Round(error)) if taken.is_empty() => return Err(error),
                Err(Stop::Round(error)) => {
                    // What was granted before is the answer: fewer than asked for is right.
                    self.hints.failed(queue, &error);
                    break;
                }
            };
            let (met, granted) = (round.received, round.granted.len());
            if let Some(judged) = round.judged {
                taken = older(taken, judged.since(as_of));
                as_of = judged;
            }
            taken.extend(round.granted);
            // Where nothing of a page that was cut may be had, there may be something behind it.
            let only_unavailable = round.is_cut && granted == 0;
            if met == 0 || (round.surplus && !only_unavailable) || (met < ask && granted > 0) {
                break;
            }
            let has_unavailable = granted < met;
            let wide = if has_unavailable { 4 * ask } else { 0 };
            ask = (limit - taken.len()).max(wide).min(MAX_BATCH);
        }
        if taken.is_empty() && self.journal == Journal::On {
            self.look_for_missing(queue);
        }
        Ok(older(taken, self.clock.now().since(as_of)))
    }

    /// The ledger may know messages that the broker has no more. Nobody waits for this.
    fn look_for_missing(&self, queue: &QueueKey) {
        if self.broker.missing_after().is_none() {
            return;
        }
        let (missing, queue) = (Arc::clone(&self.missing), queue.clone());
        tokio::spawn(async move {
            if let Err(error) = missing.look(&queue).await {
                tracing::debug!(%error, %queue, "what native clients have taken is not looked for");
            }
        });
    }

    async fn round(
        &self,
        queue: &QueueKey,
        purpose: Purpose<'_>,
        (wanted, ask, mut room): (usize, usize, PageRoom),
        visibility: Duration,
        budget: Budget,
    ) -> Result<Round, Stop> {
        let mut got = budget
            .step(self.broker.receive(queue, ask, visibility))
            .await?;
        for delivery in &mut got {
            delivery.awaits_record &= self.has_journal();
        }
        if got.is_empty() {
            return Ok(Round::default());
        }
        let now = self.clock.now();
        let mut settlements = Settlements::default();
        // What is too much for one answer is nobody's.
        let fit = got.iter().take_while(|it| room.takes(&it.message)).count();
        let beyond = got.split_off(fit);
        let is_cut = !beyond.is_empty();
        settlements.free = beyond
            .into_iter()
            .map(|delivery| delivery.receipt)
            .collect();
        if got.is_empty() {
            self.settle(queue, settlements, budget).await;
            return Ok(Round {
                surplus: true,
                is_cut,
                ..Round::default()
            });
        }
        let judged = self.ledger.grant(queue, purpose, wanted, now, &got);
        let judged = budget.step(judged).await;
        let verdicts = match judged {
            Ok(verdicts) => verdicts,
            Err(error) => {
                // Never delivered without a grant. It may have been granted all the same; then it is held.
                let receipts = got.into_iter().map(|delivery| delivery.receipt);
                settlements.free.extend(receipts);
                self.settle(queue, settlements, budget).await;
                return Err(error.into());
            }
        };
        let received = got.len();
        let outcome = self.act(
            queue,
            purpose,
            (now, budget),
            got,
            verdicts,
            &mut settlements,
        );
        let granted = outcome.await;
        let surplus = !settlements.free.is_empty();
        self.settle(queue, settlements, budget).await;
        Ok(Round {
            is_cut,
            granted: granted?,
            judged: Some(now),
            received,
            surplus,
        })
    }

    /// Does what the verdicts demand, but for what the broker is only told.
    async fn act(
        &self,
        queue: &QueueKey,
        purpose: Purpose<'_>,
        (now, budget): (Timestamp, Budget),
        got: Vec<Delivery>,
        verdicts: Vec<Verdict>,
        settlements: &mut Settlements,
    ) -> Result<Vec<Message>, Stop> {
        let (mut granted, mut exceeded) = (Vec::with_capacity(got.len()), Vec::new());
        let (mut copies, mut copied) = (Vec::new(), Vec::new());
        for (delivery, mut verdict) in got.into_iter().zip(verdicts) {
            if verdict == Verdict::Gone {
                self.dropped.note(queue, &delivery, now);
            }
            let receipt = delivery.receipt;
            if let Verdict::Granted { message, .. } | Verdict::DeliveryLimitExceeded(message) =
                &mut verdict
                && !self.has_journal()
            {
                // A row that was made by a delivery says nothing of the order of the posts; the envelope may.
                message.arrival = delivery.message.arrival;
            }
            match verdict {
                Verdict::Granted { message, longer } => {
                    if matches!(purpose, Purpose::Pop) {
                        settlements.settled.push(receipt);
                    } else if longer && self.broker.expires_messages() {
                        copies.push(message.clone());
                        copied.push(receipt);
                    }
                    granted.push(message);
                }
                Verdict::DeliveryLimitExceeded(message) => exceeded.push((message, receipt)),
                Verdict::Free => settlements.free.push(receipt),
                Verdict::Held(span) => settlements.held.entry(span).or_default().push(receipt),
                Verdict::Gone => settlements.settled.push(receipt),
            }
        }
        let (Purpose::Claim(lease) | Purpose::More(lease)) = purpose else {
            return Ok(granted);
        };
        if let Err(error) = budget.step(self.copy(queue, now, copies)).await {
            // The old life would end inside the claim: better no claim. Should this fail too, it ends by itself.
            self.give_up_claim(queue, lease.id, budget).await;
            return Err(Stop::Claim(error));
        }
        settlements.settled.append(&mut copied);
        let Some(policy) = &lease.dead_letter else {
            return Ok(granted);
        };
        match budget
            .step(self.dead_letter(queue, policy, now, exceeded))
            .await
        {
            Ok(mut receipts) => {
                settlements.settled.append(&mut receipts);
                self.stuck.over(queue);
            }
            Err(error) if granted.is_empty() && error.kind() == ErrorKind::Unavailable => {
                return Err(error.into());
            }
            // They are held until this lease would end, and then over the limit again. What the queue's own messages
            // cannot help is no answer to who claims them.
            Err(error) => {
                if self.stuck.begins(queue) {
                    tracing::warn!(%queue, to = %policy.queue, %error,
                        "messages that were claimed too often cannot be moved to the dead-letter queue; they are held back");
                }
            }
        }
        Ok(granted)
    }

    /// Moves messages to the end of the dead-letter queue and returns the receipts to settle. Safe to be cut off
    /// anywhere: what was sent and not deleted is over the limit again later, and the two copies are one message by
    /// their id. They are as they were when they were judged.
    async fn dead_letter(
        &self,
        queue: &QueueKey,
        policy: &DeadLetter,
        judged: Timestamp,
        exceeded: Vec<(Message, Receipt)>,
    ) -> Result<Vec<Receipt>> {
        if exceeded.is_empty() {
            return Ok(Vec::new());
        }
        let (mut messages, mut receipts): (Vec<_>, Vec<_>) = exceeded.into_iter().unzip();
        let ids: Vec<_> = messages
            .iter()
            .map(|message: &Message| message.id)
            .collect();
        for message in &mut messages {
            message.claim = None;
            message.claim_count = 0;
            message.arrival = policy.stands.arrival(message.arrival);
            message.transfers = message.transfers.saturating_add(1);
            if let Some(ttl) = policy.ttl {
                (message.ttl, message.remaining_ttl) = (ttl, ttl);
            }
        }
        let (from, to) = (queue.clone(), policy.queue.clone());
        let hand_over = |store: Self| async move {
            store.dispatch(&to, judged, messages).await?;
            let ledger = &store.ledger;
            ledger
                .delete(&from, &ids, Precondition::None, UnknownIds::Ignore)
                .await
        };
        let (_, newer) = self.finish(hand_over).await?;
        receipts.extend(newer);
        receipts.dedup();
        Ok(receipts)
    }

    /// Ends a claim that is refused, and waits for it no longer than the call may take.
    async fn give_up_claim(&self, queue: &QueueKey, claim: ClaimId, budget: Budget) {
        let (ledger, broker) = (Arc::clone(&self.ledger), Arc::clone(&self.broker));
        let on = queue.clone();
        let work = async move {
            let receipts = ledger.release(&on, claim).await?;
            match receipts.is_empty() {
                true => Ok(()),
                false => broker.release(&on, &receipts).await,
            }
        };
        self.hints.free(queue, budget, work).await;
    }

    async fn settle(&self, queue: &QueueKey, settlements: Settlements, budget: Budget) {
        let Settlements {
            settled,
            free,
            held,
        } = settlements;
        if settled.is_empty() && free.is_empty() && held.is_empty() {
            return;
        }
        let (broker, on, frees) = (Arc::clone(&self.broker), queue.clone(), !free.is_empty());
        let work = async move {
            // Each is told, whatever becomes of the others.
            let mut told = Ok(());
            if !free.is_empty() {
                told = told.and(broker.release(&on, &free).await);
            }
            if !settled.is_empty() {
                told = told.and(broker.ack(&on, &settled).await);
            }
            for (span, receipts) in held {
                told = told.and(broker.extend(&on, &receipts, span).await);
            }
            told
        };
        if frees {
            self.hints.free(queue, budget, work).await;
        } else {
            self.hints.hint(queue, work).await;
        }
    }
}

/// Messages that were taken a while ago, as they are now.
fn older(taken: Vec<Message>, span: Duration) -> Vec<Message> {
    match span.is_zero() {
        true => taken,
        false => taken.into_iter().map(|it| it.later(span)).collect(),
    }
}
