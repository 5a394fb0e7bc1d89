//! From a queue to its place in SQS: found, made where it is ours to make, and remembered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_sqs::types::QueueAttributeName as Attribute;
use isimud_contract::{Error, ErrorKind, QueueKey, Resource, Result};
use quick_cache::sync::Cache;

use crate::client::Account;
use crate::config::{LARGEST, Order, Removal};
use crate::error::{Fault, What, resting, strange};
use crate::names::{SqsName, tags};
use crate::queue::{Queue, QueueInfo};

/// Queues that are remembered. One more costs two requests when it is used again.
const CACHE_CAPACITY: usize = 10_000;

/// The longest that SQS keeps messages; queues of our own do, as each message has its own life.
const RETENTION: Duration = crate::config::LONGEST_TTL;

/// How long a name rests after its queue was deleted (action `CreateQueue`). Messages sent to what is left of the old
/// queue may be lost in that time (action `DeleteQueue`), so nothing is sent.
const NAME_REUSE_DELAY: Duration = Duration::from_secs(60);

/// The queues of a pool.
#[derive(Debug)]
pub(crate) struct Queues {
    account: Arc<Account>,
    known: Cache<QueueKey, Arc<Queue>>,
    /// When this server deleted a queue.
    deleted: Mutex<HashMap<QueueKey, Instant>>,
}

impl Queues {
    pub(crate) fn new(account: Arc<Account>) -> Self {
        Self {
            account,
            known: Cache::new(CACHE_CAPACITY),
            deleted: Mutex::default(),
        }
    }

    /// The queue, if it is there.
    pub(crate) async fn find(&self, key: &QueueKey) -> Result<Option<Arc<Queue>>> {
        if let Some(queue) = self.known.get(key) {
            return Ok(Some(queue));
        }
        if self.rests(key) {
            return Ok(None);
        }
        let name = self.name(key)?;
        match find(&self.account, &name.text).await {
            Ok(url) => self.learn(key, name, url).await,
            Err(fault) if fault.what == What::Missing => Ok(None),
            Err(fault) => Err(fault.into()),
        }
    }

    /// The queue, made if it is not there. `NotFound` where queues are adopted alone.
    pub(crate) async fn get_or_make(&self, key: &QueueKey) -> Result<Arc<Queue>> {
        if let Some(queue) = self.known.get(key) {
            return Ok(queue);
        }
        if self.rests(key) {
            return Err(resting());
        }
        let name = self.name(key)?;
        let url = match find(&self.account, &name.text).await {
            Err(fault) if fault.what == What::Missing && self.makes(key) => {
                make(&self.account, &name.text, &tags_of(key, &name)).await
            }
            found => found,
        };
        let learnt = self.learn(key, name, url?).await?;
        learnt.ok_or_else(|| strange("a queue that was made"))
    }

    /// Whether the queue can be sent to: it is there, or is made then. SQS is asked, whatever was known before. `NotFound`
    /// where it is missing and adopted queues alone are sent to.
    pub(crate) async fn check(&self, key: &QueueKey) -> Result<()> {
        if self.makes(key) {
            return Ok(());
        }
        let name = self.name(key)?.text;
        match find(&self.account, &name).await {
            Err(fault) if fault.what == What::Missing => {
                self.forget(key);
                let sentence = format!(
                    "SQS has no queue of the name {name}, and this pool takes queues as they are; make it there first"
                );
                let kind = ErrorKind::NotFound(Resource::Queue);
                Err(Error::new(kind, sentence).caused_by(fault.error))
            }
            found => Ok(found.map(drop)?),
        }
    }

    /// Forgets a queue that turned out not to be there.
    pub(crate) fn forget(&self, key: &QueueKey) {
        self.known.remove(key);
    }

    /// Deletes a queue. Its name rests then.
    pub(crate) async fn delete(&self, key: &QueueKey, queue: &Queue) -> Result<()> {
        self.forget(key);
        let client = self.account.client().await?;
        let call = client.delete_queue().queue_url(&queue.queue_info.url);
        match call.send().await.map_err(|error| self.account.told(error)) {
            Err(fault) if fault.what != What::Missing => return Err(fault.into()),
            _ => {}
        }
        let mut deleted = self.deleted.lock().unwrap_or_else(PoisonError::into_inner);
        deleted.retain(|_, at| at.elapsed() < NAME_REUSE_DELAY);
        deleted.insert(key.clone(), Instant::now());
        Ok(())
    }

    /// Whether a queue is made where it is missing. Where a deployment's queues are adopted, the parts of one that moves
    /// are the service's own all the same.
    fn makes(&self, key: &QueueKey) -> bool {
        self.account.config.create || key.name.has_generation()
    }

    fn rests(&self, key: &QueueKey) -> bool {
        self.account.config.removal == Removal::Delete && {
            let deleted = self.deleted.lock().unwrap_or_else(PoisonError::into_inner);
            deleted
                .get(key)
                .is_some_and(|at| at.elapsed() < NAME_REUSE_DELAY)
        }
    }

    fn name(&self, key: &QueueKey) -> Result<SqsName> {
        let config = &self.account.config;
        config.naming.name(key, config.order.is_fifo())
    }

    /// Reads what must be known of a queue, and remembers it.
    async fn learn(
        &self,
        key: &QueueKey,
        name: SqsName,
        url: String,
    ) -> Result<Option<Arc<Queue>>> {
        let client = self.account.client().await?;
        let answer = client
            .get_queue_attributes()
            .queue_url(&url)
            .attribute_names(Attribute::MaximumMessageSize)
            .attribute_names(Attribute::MessageRetentionPeriod)
            .attribute_names(Attribute::RedrivePolicy)
            .send()
            .await
            .map_err(|error| self.account.told(error));
        let attributes = match answer {
            Ok(answer) => answer.attributes.unwrap_or_default(),
            // Made a moment ago: SQS asks for a second's patience then.
            Err(fault) if fault.what == What::Missing => HashMap::new(),
            Err(fault) => return Err(fault.into()),
        };
        let number = |attribute| -> Option<u64> { attributes.get(&attribute)?.parse().ok() };
        let largest = number(Attribute::MaximumMessageSize).and_then(|n| usize::try_from(n).ok());
        if let Some(policy) = attributes.get(&Attribute::RedrivePolicy) {
            tracing::warn!(
                queue = %key, name = name.text, policy,
                "SQS moves messages of this queue away by a count of its own, which every delivery adds to"
            );
        }
        let queue = Queue::new(QueueInfo {
            account: Arc::clone(&self.account),
            url,
            largest: largest.unwrap_or(LARGEST).min(self.account.config.largest),
            retention: number(Attribute::MessageRetentionPeriod)
                .map_or(RETENTION, Duration::from_secs),
            is_made_here: self.makes(key),
            tags: tags_of(key, &name),
            name: name.text,
        });
        // Two that learn at once must not have a line each: order is kept within one.
        let kept = self
            .known
            .get_or_insert_with(key, || Ok::<_, isimud_contract::Error>(queue));
        kept.map(Some)
    }
}

fn tags_of(key: &QueueKey, name: &SqsName) -> Vec<(&'static str, String)> {
    if name.hashed {
        tags(key).into()
    } else {
        Vec::new()
    }
}

async fn find(account: &Account, name: &str) -> Result<String, Fault> {
    let client = account.client().await.map_err(Fault::other)?;
    let answer = client
        .get_queue_url()
        .queue_name(name)
        .set_queue_owner_aws_account_id(account.config.owner.clone())
        .send()
        .await
        .map_err(|error| account.told(error))?;
    let missing = || Fault::other(strange("the address of a queue"));
    answer.queue_url.ok_or_else(missing)
}

/// Makes a queue. One that is there with other attributes is as good.
pub(crate) async fn make(
    account: &Account,
    name: &str,
    tags: &[(&'static str, String)],
) -> Result<String, Fault> {
    let config = &account.config;
    let client = account.client().await.map_err(Fault::other)?;
    let mut call = client
        .create_queue()
        .queue_name(name)
        .attributes(
            Attribute::MessageRetentionPeriod,
            RETENTION.as_secs().to_string(),
        )
        .attributes(Attribute::MaximumMessageSize, config.largest.to_string());
    if config.order.is_fifo() {
        call = call.attributes(Attribute::FifoQueue, "true");
    }
    if config.order == Order::Client {
        // Groups then do not share one rate ("High throughput for FIFO queues").
        call = call
            .attributes(Attribute::DeduplicationScope, "messageGroup")
            .attributes(Attribute::FifoThroughputLimit, "perMessageGroupId");
    }
    for (key, value) in tags {
        call = call.tags(*key, value);
    }
    match call.send().await.map_err(|error| account.told(error)) {
        Ok(answer) => {
            let missing = || Fault::other(strange("the address of a queue"));
            answer.queue_url.ok_or_else(missing)
        }
        Err(fault) if fault.what == What::Taken => find(account, name).await,
        Err(fault) => Err(fault),
    }
}
