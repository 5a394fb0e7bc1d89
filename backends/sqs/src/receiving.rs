//! Receiving: rounds of ten, and what becomes of messages for which nobody waits any more.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sqs::config::Builder;
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName as System};
use futures_util::future::join_all;
use isimud_contract::{Clock, Delivery};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::client::{Account, limits};
use crate::envelope::{self, read_receipt};
use crate::error::{Fault, too_late};
use crate::polling::Turn;
use crate::queue::{Queue, seconds};

/// Messages of one receive, at the most (action `ReceiveMessage`).
const MAX_BATCH: usize = 10;

/// Receives at once of one call that asks for many.
const MAX_CONCURRENT: usize = 8;

/// One call that wants messages.
#[derive(Debug, Clone)]
pub(crate) struct Receiving {
    pub(crate) queue: Arc<Queue>,
    pub(crate) clock: Arc<dyn Clock>,
    /// For how long they are hidden.
    pub(crate) visibility: Duration,
}

impl Receiving {
    /// Takes up to `max` messages. Should the caller go away meanwhile, those that come are given back: they would be
    /// hidden for as long as a claim may last, and nobody would have them.
    pub(crate) async fn take(self, max: usize) -> Result<Vec<Delivery>, Fault> {
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            let got = self.receive_all(max).await;
            if let Err(Ok(nobodys)) = tell.send(got) {
                self.give_back(&nobodys).await;
            }
        });
        told.await.unwrap_or_else(|_| Err(Fault::other(too_late())))
    }

    async fn give_back(&self, got: &[Delivery]) {
        let handles = got
            .iter()
            .filter_map(|delivery| read_receipt(&delivery.receipt));
        let free = handles.map(|(_, handle)| (handle.to_owned(), 0));
        let free: Vec<_> = free.collect();
        if let Err(error) = self.queue.hiding.put(free).await {
            tracing::warn!(%error, name = self.queue.queue_info.name, "messages that nobody waits for stay hidden");
        }
    }

    /// Receives until there are enough, or an answer was not full: one more would most likely be empty, and is paid.
    async fn receive_all(&self, max: usize) -> Result<Vec<Delivery>, Fault> {
        let mut got = self.receive_first(max.min(MAX_BATCH)).await?;
        // Of one group, nothing is delivered while some of it is held.
        let fifo = self.account().config.order.is_fifo();
        let abreast = if fifo { 1 } else { MAX_CONCURRENT };
        let mut full = got.len() >= MAX_BATCH;
        while full && got.len() < max {
            let rest = max - got.len();
            let asks: Vec<usize> = (0..rest)
                .step_by(MAX_BATCH)
                .map(|at| (rest - at).min(MAX_BATCH))
                .take(abreast)
                .collect();
            let receives = asks
                .iter()
                .map(|ask| self.receive_ten(*ask, Duration::ZERO));
            for (ask, answer) in asks.iter().zip(join_all(receives).await) {
                match answer {
                    Ok(more) => {
                        full &= more.len() >= *ask;
                        got.extend(more);
                    }
                    // What came before is an answer, too.
                    Err(fault) => {
                        tracing::debug!(error = %fault.error, "a further receive failed");
                        full = false;
                    }
                }
            }
        }
        Ok(got)
    }

    /// The first receive of a call, for which SQS may wait. Where nothing is there, one waits for all.
    async fn receive_first(&self, max: usize) -> Result<Vec<Delivery>, Fault> {
        let wait = self.account().config.wait;
        if wait.is_zero() {
            return self.receive_ten(max, wait).await;
        }
        let Turn::Ask(_guard) = self.queue.polls.turn().await else {
            return Ok(Vec::new());
        };
        let got = self.receive_ten(max, wait).await?;
        self.queue.polls.told(got.is_empty());
        Ok(got)
    }

    async fn receive_ten(&self, max: usize, wait: Duration) -> Result<Vec<Delivery>, Fault> {
        let hide = seconds(self.visibility).max(1);
        let messages = receive(&self.queue, max, hide, wait).await?;
        let now = self.clock.now();
        let read = |message| envelope::read(message, now, self.queue.native_ttl());
        Ok(messages.into_iter().filter_map(read).collect())
    }

    fn account(&self) -> &Account {
        &self.queue.queue_info.account
    }
}

/// Receives up to ten messages and hides them for so many seconds.
pub(crate) async fn receive(
    queue: &Queue,
    max: usize,
    hide: i32,
    wait: Duration,
) -> Result<Vec<Message>, Fault> {
    let account = &queue.queue_info.account;
    let config = &account.config;
    let client = account.client().await.map_err(Fault::other)?;
    let mut call = client
        .receive_message()
        .queue_url(&queue.queue_info.url)
        .max_number_of_messages(i32::try_from(max.min(MAX_BATCH)).unwrap_or(1))
        .visibility_timeout(hide)
        .wait_time_seconds(seconds(wait))
        .message_attribute_names("All")
        .message_system_attribute_names(System::SentTimestamp)
        .message_system_attribute_names(System::ApproximateReceiveCount)
        .message_system_attribute_names(System::ApproximateFirstReceiveTimestamp);
    if config.order.is_fifo() {
        // A repeated request gets the same messages, instead of waiting until the lost ones are free again.
        call = call
            .receive_request_attempt_id(Uuid::new_v4().to_string())
            .message_system_attribute_names(System::MessageGroupId)
            .message_system_attribute_names(System::MessageDeduplicationId);
    }
    let answer = if wait.is_zero() {
        call.send().await
    } else {
        let patient = Builder::new().timeout_config(limits(config.timeout, wait));
        call.customize().config_override(patient).send().await
    };
    let answer = answer.map_err(|error| account.told(error))?;
    Ok(answer.messages.unwrap_or_default())
}
