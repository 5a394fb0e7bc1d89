//! What is known of RabbitMQ's queues, and how ours are made.
//!
//! A question that is refused costs the channel on which it was asked, its number (`link`), and a line in RabbitMQ's log.
//! So questions have a connection of their own, on which no delivery is held (`questions`); and those that are put often are such as
//! RabbitMQ does not refuse: a queue of ours is declared as it is to be, whether or not it is there, and whether a
//! companion is there is seen by a message that has no life. What was refused all the same is remembered for a moment
//! (`refusals`).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use isimud_contract::{Error, ErrorKind, Resource, Result};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Queue};
use tokio::time::Instant;

use crate::coalescer::Coalescer;
use crate::companion::Companion;
use crate::config::{Config, QueueType};
use crate::error::{code, from_lapin};
use crate::expected::Expected;
use crate::name_locks::NameLocks;
use crate::names::Address;
use crate::probe::{self, Found};
use crate::publisher::{Outgoing, PublishOutcome, Publisher, Target};
use crate::questions::{Question, Questions, unless_missing};
use crate::reconnecting::ReconnectingConnection;
use crate::refusals::{Refusals, Refused};

/// For how long a queue that was seen is believed to be there.
const CACHE_TTL: Duration = Duration::from_secs(60);

/// How many queues are known, at the most.
const CACHE_CAPACITY: usize = 100_000;

/// How long a queue may be seen before it can be used.
pub(crate) const IN_THE_MAKING: Duration = Duration::from_millis(100);

/// Deliveries that a quorum queue of ours survives. Without a limit RabbitMQ up to 3.13 puts what is given back at the
/// tail, 4 drops it after 20; -1 makes 3.x drop it at once.
const DELIVERIES: i64 = 1_000_000;

/// A queue that was seen.
#[derive(Debug)]
pub(crate) struct Known {
    seen: Instant,
    /// Whether it is as this service makes queues: then it can be declared without being refused.
    ours: bool,
    /// The queue beside it.
    pub(crate) companion: Arc<Companion>,
    /// For how long it keeps a message, where it is somebody else's and RabbitMQ has said so.
    pub(crate) message_ttl: Option<Duration>,
    /// One more than the connections that had been lost when it was last asked for a message, or 0: then it can be asked on
    /// a channel that holds others.
    tried: AtomicUsize,
    /// Those who want messages of it.
    pub(crate) coalescer: Arc<Coalescer>,
    /// Copies of its messages that callers expect.
    pub(crate) expected: Arc<Expected>,
}

impl Known {
    /// Whether the queue has answered since so many connections were lost.
    pub(crate) fn is_tried(&self, losses: usize) -> bool {
        self.tried.load(Ordering::Relaxed) == losses + 1
    }

    /// Notes that the queue has been asked for messages, and has answered.
    pub(crate) fn has_answered(&self, losses: usize) {
        self.tried.store(losses + 1, Ordering::Relaxed);
    }

    /// Notes that the queue has confirmed a message. One of ours can then be asked for messages, too.
    pub(crate) fn has_confirmed(&self, losses: usize) {
        if self.ours {
            self.has_answered(losses);
        }
    }
}

/// Whether there is a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum There {
    No,
    /// One that is as this service makes them.
    Ours,
    /// One that is otherwise, or may be, and for how long it keeps a message, where it says so.
    AsFound(Option<Duration>),
}

/// What a queue is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    ToSend,
    ToReceive,
}

/// Asks about queues, makes and deletes them.
#[derive(Debug)]
pub(crate) struct Queues {
    link: Arc<ReconnectingConnection>,
    publisher: Arc<Publisher>,
    known: Mutex<HashMap<ShortString, Arc<Known>>>,
    refusals: Refusals,
    /// Exchanges, and when they were seen.
    exchanges: Mutex<HashMap<ShortString, Instant>>,
    refused_exchanges: Refusals,
    /// Queues of which it was said that they are not as they would be made here.
    said: Mutex<HashSet<ShortString>>,
    questions: Questions,
    /// One of these is held while a queue is asked for, made, purged or deleted.
    name_locks: NameLocks,
    queue_type: QueueType,
}

impl Queues {
    pub(crate) fn new(
        link: Arc<ReconnectingConnection>,
        publisher: Arc<Publisher>,
        config: &Config,
    ) -> Self {
        Self {
            questions: Questions::new(Arc::clone(&link)),
            link,
            publisher,
            known: Mutex::default(),
            refusals: Refusals::default(),
            exchanges: Mutex::default(),
            refused_exchanges: Refusals::default(),
            said: Mutex::default(),
            name_locks: NameLocks::default(),
            queue_type: config.queue_type,
        }
    }

    /// Proves that RabbitMQ answers.
    pub(crate) async fn ping(&self) -> Result<()> {
        let answer = self.questions.ask(Question::Nothing).await?;
        answer.map(drop).map_err(from_lapin)
    }

    /// The queue, if it is there.
    pub(crate) async fn find(&self, address: &Address) -> Result<Option<Arc<Known>>> {
        self.see(address, Wanted::ToReceive).await
    }

    /// The queue, made if it is not there. Adopted queues are never made.
    pub(crate) async fn make(&self, address: &Address) -> Result<Arc<Known>> {
        self.see_exchange(&address.exchange).await?;
        let seen = self.see(address, Wanted::ToSend).await?;
        seen.ok_or_else(|| missing(&address.queue))
    }

    /// Whether the queue can be sent to: it is there, or is made then. RabbitMQ is asked, even where the queue was seen a
    /// moment ago; what it has just refused it is not asked again. `NotFound` where the queue is missing and one of the
    /// deployment's own, which is never made.
    pub(crate) async fn check(&self, address: &Address) -> Result<()> {
        if !address.is_adopted {
            return Ok(());
        }
        self.see_exchange(&address.exchange).await?;
        if self.refusals.get(&address.queue) != Some(Refused::Missing) {
            let asked = async {
                let _turn = self.name_locks.take(&address.queue).await;
                let before = self.seen(address);
                self.is_there(address, Wanted::ToReceive, before.as_deref())
                    .await
            };
            if self.link.in_time(asked).await? != There::No {
                return Ok(());
            }
            self.forget(address);
            self.refusals.put(&address.queue, Refused::Missing);
        }
        Err(missing(&address.queue))
    }

    async fn see(&self, address: &Address, wanted: Wanted) -> Result<Option<Arc<Known>>> {
        if let Some(told) = self.told(address, wanted) {
            return told;
        }
        self.link
            .in_time(async {
                // Whoever comes while somebody else asks, or makes the queue, hears what he has found.
                let _turn = self.name_locks.take(&address.queue).await;
                if let Some(told) = self.told(address, wanted) {
                    return told;
                }
                self.look_and_note(address, wanted).await
            })
            .await
    }

    async fn look_and_note(&self, address: &Address, wanted: Wanted) -> Result<Option<Arc<Known>>> {
        let found = self.look(address, wanted).await;
        match &found {
            Ok(None) => self.refusals.put(&address.queue, Refused::Missing),
            Ok(Some(_)) => self.refusals.forget(&address.queue),
            Err(error) => self.refused(address, error),
        }
        found
    }

    /// What is known without asking.
    fn told(&self, address: &Address, wanted: Wanted) -> Option<Result<Option<Arc<Known>>>> {
        let known = self.seen(address);
        if let Some(known) = known.filter(|known| known.seen.elapsed() < CACHE_TTL) {
            return Some(Ok(Some(known)));
        }
        match self.refusals.get(&address.queue)? {
            // A queue of ours that is not there is made.
            Refused::Missing if wanted == Wanted::ToSend && !address.is_adopted => None,
            Refused::Missing => Some(Ok(None)),
            Refused::Unusable(kind, sentence) => {
                let error = Error::new(kind, sentence);
                Some(Err(error.with("queue", &address.queue)))
            }
        }
    }

    /// Sees to it that an exchange is there: publishing to one that is not costs the channel, which others share.
    async fn see_exchange(&self, name: &ShortString) -> Result<()> {
        let seen = self.exchanges().get(name).copied();
        if name.as_str().is_empty() || seen.is_some_and(|at| at.elapsed() < CACHE_TTL) {
            return Ok(());
        }
        if self.refused_exchanges.get(name).is_none() {
            let answer = self.questions.ask(Question::Exchange(name)).await?;
            if unless_missing(answer)?.is_some() {
                let mut exchanges = self.exchanges();
                if exchanges.len() >= CACHE_CAPACITY {
                    exchanges.clear();
                }
                exchanges.insert(name.clone(), Instant::now());
                return Ok(());
            }
            self.refused_exchanges.put(name, Refused::Missing);
        }
        let sentence = "RabbitMQ has no exchange of the name that the pool's options give";
        Err(Error::new(ErrorKind::Internal, sentence).with("exchange", name))
    }

    fn exchanges(&self) -> MutexGuard<'_, HashMap<ShortString, Instant>> {
        self.exchanges
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Believes nothing of a queue any more.
    pub(crate) fn forget(&self, address: &Address) {
        self.known().remove(&address.queue);
    }

    /// Notes what a queue was refused with. What will be refused again is not asked for a while.
    pub(crate) fn refused(&self, address: &Address, error: &Error) {
        if let Some(refused) = Refused::of(error) {
            self.refusals.put(&address.queue, refused);
        }
    }

    fn seen(&self, address: &Address) -> Option<Arc<Known>> {
        self.known().get(&address.queue).cloned()
    }

    async fn look(&self, address: &Address, wanted: Wanted) -> Result<Option<Arc<Known>>> {
        let before = self.seen(address);
        let there = self.is_there(address, wanted, before.as_deref()).await?;
        if there == There::No {
            self.forget(address);
            return Ok(None);
        }
        let now = Instant::now();
        let tried = before
            .as_ref()
            .map_or(0, |it| it.tried.load(Ordering::Relaxed));
        let message_ttl = match there {
            There::AsFound(message_ttl) => message_ttl,
            _ => None,
        };
        let companion = match before.as_ref().map(|it| &it.companion) {
            Some(companion) if companion.is_believed() => Arc::clone(companion),
            companion => Arc::new(
                self.look_for_companion(address, companion.map(|it| &**it))
                    .await?,
            ),
        };
        let known = Arc::new(Known {
            seen: now,
            ours: there == There::Ours,
            companion,
            message_ttl,
            tried: AtomicUsize::new(tried),
            coalescer: before
                .as_ref()
                .map_or_else(Arc::default, |it| Arc::clone(&it.coalescer)),
            expected: before.map_or_else(Arc::default, |it| Arc::clone(&it.expected)),
        });
        let mut all = self.known();
        if all.len() >= CACHE_CAPACITY {
            all.retain(|_, it| it.seen.elapsed() < CACHE_TTL);
            if all.len() >= CACHE_CAPACITY {
                all.clear();
            }
        }
        all.insert(address.queue.clone(), Arc::clone(&known));
        Ok(Some(known))
    }

    /// Asks whether a queue is there, in the way that is least likely to be refused; makes it where that is wanted.
    async fn is_there(
        &self,
        address: &Address,
        wanted: Wanted,
        before: Option<&Known>,
    ) -> Result<There> {
        let name = &address.queue;
        match (before, wanted) {
            (None, _) if address.is_adopted => self.probe(name).await,
            (None, Wanted::ToSend) => self.declare(name).await,
            (Some(known), Wanted::ToSend) if known.ours && !address.is_adopted => {
                self.declare(name).await
            }
            (before, wanted) => {
                if self.passive(name).await?.is_some() {
                    return Ok(match before {
                        Some(known) if known.ours => There::Ours,
                        _ => There::AsFound(before.and_then(|known| known.message_ttl)),
                    });
                }
                match wanted {
                    Wanted::ToSend if !address.is_adopted => self.declare(name).await,
                    _ => Ok(There::No),
                }
            }
        }
    }

    async fn look_for_companion(
        &self,
        address: &Address,
        before: Option<&Companion>,
    ) -> Result<Companion> {
        if address.is_adopted {
            self.declare(&address.companion).await?;
        }
        match self.is_companion_there(address).await {
            // The queue itself is as good as it was.
            Err(error) if error.kind() == ErrorKind::Unavailable => Ok(Companion::silent(before)),
            found => found.map(Companion::found),
        }
    }

    /// Whether the queue has a companion. It is told by a message for it, which RabbitMQ returns where there is none, and
    /// drops at once where there is one: it has no time to live, and no native consumer listens there.
    pub(crate) async fn is_companion_there(&self, address: &Address) -> Result<bool> {
        let question = Outgoing {
            properties: BasicProperties::default()
                .with_app_id("isimud".into())
                .with_expiration("0".into()),
            body: Bytes::new(),
        };
        let target = Target::queue(&address.companion);
        let outcome = self.publisher.publish(target, vec![question]).await?;
        Ok(outcome == PublishOutcome::Stored)
    }

    /// Makes the companion of a queue.
    pub(crate) async fn make_companion(&self, address: &Address, known: &Known) -> Result<()> {
        if !known.companion.is_there() {
            self.declare(&address.companion).await?;
            known.companion.was_made();
        }
        Ok(())
    }

    /// How many messages are ready in a queue and, where that is to be asked, in its companion; none where there is no queue.
    pub(crate) async fn ready(&self, address: &Address, with_companion: bool) -> Result<u64> {
        let Some(known) = self.find(address).await? else {
            return Ok(0);
        };
        let mut ready = 0;
        for (name, there) in [
            (&address.queue, true),
            (
                &address.companion,
                with_companion && known.companion.is_there(),
            ),
        ] {
            if there {
                match self.passive(name).await? {
                    Some(queue) => ready += u64::from(queue.message_count()),
                    None => self.forget(address),
                }
            }
        }
        Ok(ready)
    }

    /// Empties a queue and its companion, where they are there.
    pub(crate) async fn purge(&self, address: &Address) -> Result<()> {
        let Some(known) = self.find(address).await? else {
            return Ok(());
        };
        for (name, there) in [
            (&address.queue, true),
            (&address.companion, known.companion.is_there()),
        ] {
            if there {
                let _turn = self.name_locks.take(name).await;
                let answer = self.questions.ask(Question::Purge(name)).await?;
                if unless_missing(answer)?.is_none() {
                    self.forget(address);
                }
            }
        }
        Ok(())
    }

    /// Deletes a queue and its companion. RabbitMQ does not refuse that where there are none.
    pub(crate) async fn delete(&self, address: &Address) -> Result<()> {
        for name in [&address.queue, &address.companion] {
            let _turn = self.name_locks.take(name).await;
            let answer = self.questions.ask(Question::Delete(name)).await?;
            unless_missing(answer)?;
        }
        self.forget(address);
        Ok(())
    }

    async fn passive(&self, queue: &ShortString) -> Result<Option<Queue>> {
        let answer = self.questions.ask(Question::Passive(queue)).await?;
        Ok(unless_missing(answer)?.flatten())
    }

    /// Declares a queue of ours. One of that name that is there with other arguments is taken as it is.
    async fn declare(&self, queue: &ShortString) -> Result<There> {
        let arguments = arguments(self.queue_type);
        match self
            .questions
            .ask(Question::Declare(queue, &arguments))
            .await?
        {
            Ok(_) => Ok(There::Ours),
            Err(error) if code(&error) == Some(406) => {
                let there = self.probe(queue).await?;
                if there == There::No {
                    return Err(from_lapin(error));
                }
                self.say_once(queue);
                Ok(there)
            }
            Err(error) => Err(from_lapin(error)),
        }
    }

    fn say_once(&self, queue: &ShortString) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() < CACHE_CAPACITY && said.insert(queue.clone()) {
            tracing::warn!(%queue, "the RabbitMQ queue has other arguments than ours; it is used as it is");
        }
    }

    /// Whether a queue is there, and one that can be used.
    async fn probe(&self, queue: &ShortString) -> Result<There> {
        let mut arguments = FieldTable::default();
        arguments.insert(
            "x-queue-type".into(),
            AMQPValue::LongString(probe::QUESTION.into()),
        );
        for _ in 0..probe::ROUNDS {
            let question = Question::Declare(queue, &arguments);
            let Err(error) = self.questions.ask(question).await? else {
                // A broker that knows no types of queues.
                break;
            };
            match probe::read(&error) {
                Found::Usable => break,
                Found::Missing => return Ok(There::No),
                // Whoever may read or write a queue may ask whether it is there. Of which kind it is shows when the first
                // message is got, on a connection on which nothing is held.
                Found::Forbidden => match self.passive(queue).await? {
                    Some(_) => break,
                    None => return Ok(There::No),
                },
                Found::Argument(name, value) => {
                    arguments.insert(name.into(), value);
                }
                Found::Unusable(why) => {
                    return Err(Error::new(ErrorKind::Unsupported, why).with("queue", queue));
                }
                Found::Failed => return Err(from_lapin(error)),
            }
        }
        Ok(There::AsFound(probe::message_ttl(&arguments)))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<ShortString, Arc<Known>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn close(&self) {
        self.questions.close();
    }
}

/// The refusal to send to a queue that only its deployment makes.
fn missing(queue: &ShortString) -> Error {
    let sentence = format!(
        "RabbitMQ has no queue of the name {queue}, and this pool takes queues as they are; declare it there first"
    );
    Error::new(ErrorKind::NotFound(Resource::Queue), sentence)
}

fn arguments(queue_type: QueueType) -> FieldTable {
    let mut arguments = FieldTable::default();
    let mut put = |name: &'static str, value| {
        arguments.insert(name.into(), value);
    };
    match queue_type {
        QueueType::Classic => {
            put("x-queue-type", AMQPValue::LongString("classic".into()));
        }
        QueueType::Quorum => {
            put("x-queue-type", AMQPValue::LongString("quorum".into()));
            put("x-delivery-limit", AMQPValue::LongLongInt(DELIVERIES));
        }
    }
    arguments
}
