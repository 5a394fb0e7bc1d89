//! What a broker must be able to do, by the actions of SQS.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::config::Builder;
use aws_sdk_sqs::types::{
    Message as SqsMessage, MessageSystemAttributeName as System, QueueAttributeName as Attribute,
};
use futures_util::future::join_all;
use isimud_contract::{Capabilities, Clock, Delivery, QueueKey, Receipt, Result};
use isimud_lease::{Depth, Envelope, LeaseBroker};
use uuid::Uuid;

use crate::client::{Account, limits};
use crate::config::{Config, Removal};
use crate::envelope::{self, ATTRIBUTE, Letter, OVERHEAD, read_receipt};
use crate::error::{Fault, What};
use crate::polling::Turn;
use crate::purge::drain;
use crate::queue::Queue;
use crate::queues::Queues;

/// Messages of one receive, at the most (action `ReceiveMessage`).
const TEN: usize = 10;

/// Receives at once of one call that asks for many.
const ABREAST: usize = 8;

/// The longest that a message is hidden, counted from its receive (action `ChangeMessageVisibility`).
const LONGEST: Duration = Duration::from_secs(43_200);

/// A second less than SQS allows, as its clock is not ours.
const MARGIN: Duration = Duration::from_secs(1);

/// Messages in Amazon SQS, or in a server that speaks its protocol. See the crate's docs.
#[derive(Debug)]
pub struct SqsBroker {
    account: Arc<Account>,
    queues: Queues,
    clock: Arc<dyn Clock>,
}

impl SqsBroker {
    /// Prepares calls; nothing is sent before the first. The clock is this server's, which its messages are dated by.
    pub fn open(config: Config, clock: Arc<dyn Clock>) -> Result<Self> {
        let account = Account::new(config)?;
        Ok(Self {
            queues: Queues::new(Arc::clone(&account)),
            account,
            clock,
        })
    }

    /// Takes up to so many messages, all by one receive.
    async fn receive_ten(
        &self,
        queue: &Queue,
        max: usize,
        hold: Duration,
        wait: Duration,
    ) -> Result<Vec<Delivery>, Fault> {
        let messages = receive(&self.account, queue, max, seconds(hold).max(1), wait).await?;
        let now = self.clock.now();
        let read = |message| envelope::read(message, now, queue.native_ttl());
        Ok(messages.into_iter().filter_map(read).collect())
    }

    /// The first receive of a call, for which SQS may wait. Where nothing is there, one waits for all.
    async fn receive_first(
        &self,
        queue: &Queue,
        max: usize,
        hold: Duration,
    ) -> Result<Vec<Delivery>, Fault> {
        let wait = self.account.config.wait;
        if wait.is_zero() {
            return self.receive_ten(queue, max, hold, wait).await;
        }
        let Turn::Ask(_guard) = queue.polls.turn().await else {
            return Ok(Vec::new());
        };
        let got = self.receive_ten(queue, max, hold, wait).await?;
        queue.polls.told(got.is_empty());
        Ok(got)
    }

    /// Receives until there are enough, or an answer was not full: one more would most likely be empty, and is paid.
    async fn receive_all(
        &self,
        queue: &Queue,
        max: usize,
        hold: Duration,
    ) -> Result<Vec<Delivery>, Fault> {
        let mut got = self.receive_first(queue, max.min(TEN), hold).await?;
        // Of one group, nothing is delivered while some of it is held.
        let abreast = if self.account.config.order.is_fifo() {
            1
        } else {
            ABREAST
        };
        let mut full = got.len() >= TEN;
        while full && got.len() < max {
            let rest = max - got.len();
            let asks: Vec<usize> = (0..rest)
                .step_by(TEN)
                .map(|at| (rest - at).min(TEN))
                .take(abreast)
                .collect();
            let receives = asks
                .iter()
                .map(|ask| self.receive_ten(queue, *ask, hold, Duration::ZERO));
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

    /// Hides messages for so long from now on, or as long as SQS can.
    async fn hide(&self, queue: &QueueKey, receipts: &[Receipt], hold: Duration) -> Result<()> {
        let Some(found) = self.queues.find(queue).await? else {
            return Ok(());
        };
        let now = self.clock.now();
        let entries: Vec<_> = receipts
            .iter()
            .filter_map(read_receipt)
            .filter_map(|(received, handle)| {
                let left = (LONGEST - MARGIN).saturating_sub(now.since(received));
                let span = hold.min(left);
                // What SQS cannot hold any longer it delivers again; the ledger judges that.
                (hold.is_zero() || !span.is_zero()).then(|| (handle.to_owned(), seconds(span)))
            })
            .collect();
        found.hiding.put(entries).await
    }
}

/// Whole seconds, rounded up: what SQS counts in.
fn seconds(span: Duration) -> i32 {
    let seconds = span.min(LONGEST).as_millis().div_ceil(1000);
    i32::try_from(seconds).unwrap_or(i32::MAX)
}

/// Receives messages and hides them for so many seconds.
pub(crate) async fn receive(
    account: &Account,
    queue: &Queue,
    max: usize,
    hide: i32,
    wait: Duration,
) -> Result<Vec<SqsMessage>, Fault> {
    let client = account.client().await.map_err(Fault::other)?;
    let config = &account.config;
    let mut call = client
        .receive_message()
        .queue_url(&queue.site.url)
        .max_number_of_messages(i32::try_from(max.min(TEN)).unwrap_or(1))
        .visibility_timeout(hide)
        .wait_time_seconds(seconds(wait))
        .message_attribute_names(ATTRIBUTE)
        .message_system_attribute_names(System::SentTimestamp)
        .message_system_attribute_names(System::ApproximateReceiveCount)
        .message_system_attribute_names(System::ApproximateFirstReceiveTimestamp);
    if config.order.is_fifo() {
        // A repeated request gets the same messages, instead of waiting until the lost ones are free again.
        call = call.receive_request_attempt_id(Uuid::new_v4().to_string());
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

#[async_trait]
impl LeaseBroker for SqsBroker {
    fn capabilities(&self) -> Capabilities {
        let config = &self.account.config;
        let fifo = config.order.is_fifo();
        Capabilities {
            fifo,
            high_throughput: !fifo,
            browse: false,
            largest_body: Some((config.largest - OVERHEAD.min(config.largest / 2)) as u64),
            // A FIFO queue delays all of its messages or none (action `SendMessage`).
            longest_delay: Some(Duration::from_secs(if fifo { 0 } else { 900 })),
            longest_claim: None,
            ..Capabilities::FULL
        }
    }

    fn ends_lives(&self) -> bool {
        false
    }

    async fn ping(&self) -> Result<()> {
        let client = self.account.client().await?;
        let call = client
            .get_queue_url()
            .queue_name(self.account.config.naming.nobody());
        match call.send().await.map_err(|error| self.account.told(error)) {
            Err(fault) if fault.what != What::Missing => Err(fault.into()),
            _ => Ok(()),
        }
    }

    async fn send(&self, queue: &QueueKey, batch: Vec<Envelope>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let letters: Vec<_> = batch.into_iter().map(Letter::of).collect();
        let found = self.queues.get_or_make(queue).await?;
        letters.iter().try_for_each(|letter| found.check(letter))?;
        found.posting.put(letters).await
    }

    async fn receive(&self, queue: &QueueKey, max: usize, hold: Duration) -> Result<Vec<Delivery>> {
        let Some(found) = self.queues.find(queue).await? else {
            return Ok(Vec::new());
        };
        if max == 0 {
            return Ok(Vec::new());
        }
        match self.receive_all(&found, max, hold).await {
            Err(fault) if fault.what == What::Missing => {
                self.queues.forget(queue);
                Ok(Vec::new())
            }
            answer => Ok(answer?),
        }
    }

    async fn extend(&self, queue: &QueueKey, receipts: &[Receipt], hold: Duration) -> Result<()> {
        self.hide(queue, receipts, hold).await
    }

    async fn ack(&self, queue: &QueueKey, receipts: &[Receipt]) -> Result<()> {
        let Some(found) = self.queues.find(queue).await? else {
            return Ok(());
        };
        let handles = receipts.iter().filter_map(read_receipt);
        let handles: Vec<_> = handles.map(|(_, handle)| handle.to_owned()).collect();
        found.settling.put(handles).await
    }

    async fn release(&self, queue: &QueueKey, receipts: &[Receipt]) -> Result<()> {
        self.hide(queue, receipts, Duration::ZERO).await
    }

    async fn depth(&self, queue: &QueueKey) -> Result<Depth> {
        let Some(found) = self.queues.find(queue).await? else {
            return Ok(Depth::default());
        };
        let client = self.account.client().await?;
        let answer = client
            .get_queue_attributes()
            .queue_url(&found.site.url)
            .attribute_names(Attribute::ApproximateNumberOfMessages)
            .attribute_names(Attribute::ApproximateNumberOfMessagesDelayed)
            .attribute_names(Attribute::ApproximateNumberOfMessagesNotVisible)
            .send()
            .await
            .map_err(|error| self.account.told(error));
        let attributes = match answer {
            Ok(answer) => answer.attributes.unwrap_or_default(),
            Err(fault) if fault.what == What::Missing => {
                self.queues.forget(queue);
                return Ok(Depth::default());
            }
            Err(fault) => return Err(fault.into()),
        };
        let number = |attribute| -> u64 {
            let text = attributes.get(&attribute);
            text.and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        Ok(Depth {
            // The API counts delayed messages as free.
            ready: number(Attribute::ApproximateNumberOfMessages)
                + number(Attribute::ApproximateNumberOfMessagesDelayed),
            held: Some(number(Attribute::ApproximateNumberOfMessagesNotVisible)),
        })
    }

    async fn purge(&self, queue: &QueueKey) -> Result<()> {
        let Some(found) = self.queues.find(queue).await? else {
            return Ok(());
        };
        match drain(&self.account, &found).await {
            Err(fault) if fault.what == What::Missing => {
                self.queues.forget(queue);
                Ok(())
            }
            outcome => Ok(outcome?),
        }
    }

    async fn remove(&self, queue: &QueueKey) -> Result<()> {
        if self.account.config.removal == Removal::Keep {
            return self.purge(queue).await;
        }
        match self.queues.find(queue).await? {
            Some(found) => self.queues.delete(queue, &found).await,
            None => Ok(()),
        }
    }

    async fn close(&self) -> Result<()> {
        self.account.close();
        Ok(())
    }
}
