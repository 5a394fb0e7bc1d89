//! What a broker must be able to do, by the actions of SQS.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::types::QueueAttributeName as Attribute;
use isimud_contract::{Capabilities, Clock, Delivery, QueueKey, Receipt, Result};
use isimud_lease::{Depth, Envelope, LeaseBroker};

use crate::client::Account;
use crate::config::{Config, Removal};
use crate::envelope::{BatchEntry, read_receipt};
use crate::error::What;
use crate::purge::drain;
use crate::queue::{LONGEST_HOLD, seconds};
use crate::queues::Queues;
use crate::receiving::Receiving;

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

    /// Hides messages for so long from now on, or as long as SQS can.
    async fn hide(
        &self,
        queue: &QueueKey,
        receipts: &[Receipt],
        visibility: Duration,
    ) -> Result<()> {
        let Some(found) = self.queues.find(queue).await? else {
            return Ok(());
        };
        let now = self.clock.now();
        let entries: Vec<_> = receipts
            .iter()
            .filter_map(read_receipt)
            .filter_map(|(received, handle)| {
                let left = (LONGEST_HOLD - MARGIN).saturating_sub(now.since(received));
                let span = visibility.min(left);
                // What SQS cannot hold any longer it delivers again; the ledger judges that.
                (visibility.is_zero() || !span.is_zero())
                    .then(|| (handle.to_owned(), seconds(span)))
            })
            .collect();
        found.hiding.put(entries).await
    }
}

#[async_trait]
impl LeaseBroker for SqsBroker {
    fn capabilities(&self) -> Capabilities {
        self.account.config.capabilities()
    }

    fn expires_messages(&self) -> bool {
        false
    }

    fn adopts(&self) -> bool {
        !self.account.config.create
    }

    fn missing_after(&self) -> Option<Duration> {
        Some(2 * self.account.config.counts_lag)
    }

    fn time_limit(&self) -> Duration {
        self.account.config.timeout + self.account.config.wait
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

    async fn can_send(&self, queue: &QueueKey) -> Result<()> {
        self.queues.check(queue).await
    }

    async fn send(&self, queue: &QueueKey, batch: Vec<Envelope>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let batch_entries: Vec<_> = batch.into_iter().map(BatchEntry::of).collect();
        let found = self.queues.get_or_make(queue).await?;
        batch_entries
            .iter()
            .try_for_each(|batch_entry| found.check(batch_entry))?;
        found.posting.put(batch_entries).await
    }

    async fn receive(
        &self,
        queue: &QueueKey,
        max: usize,
        visibility: Duration,
    ) -> Result<Vec<Delivery>> {
        let Some(found) = self.queues.find(queue).await? else {
            return Ok(Vec::new());
        };
        if max == 0 {
            return Ok(Vec::new());
        }
        let receiving = Receiving {
            queue: found,
            clock: Arc::clone(&self.clock),
            visibility,
        };
        match receiving.take(max).await {
            Err(fault) if fault.what == What::Missing => {
                self.queues.forget(queue);
                Ok(Vec::new())
            }
            answer => Ok(answer?),
        }
    }

    async fn extend(
        &self,
        queue: &QueueKey,
        receipts: &[Receipt],
        visibility: Duration,
    ) -> Result<()> {
        self.hide(queue, receipts, visibility).await
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
            .queue_url(&found.queue_info.url)
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
            held_here: number(Attribute::ApproximateNumberOfMessagesNotVisible),
            silent: None,
        })
    }

    async fn purge(&self, queue: &QueueKey) -> Result<()> {
        let Some(found) = self.queues.find(queue).await? else {
            return Ok(());
        };
        match drain(&found).await {
            Err(fault) if fault.what == What::Missing => {
                self.queues.forget(queue);
                Ok(())
            }
            outcome => Ok(outcome?),
        }
    }

    async fn drop_queue(&self, queue: &QueueKey) -> Result<()> {
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
