//! What is known of RabbitMQ's queues, and how ours are made.
//!
//! A question that goes wrong costs the channel on which it was asked, so questions have a connection of their own, and
//! no delivery is held there.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isimud_contract::{Error, ErrorKind, Resource, Result};
use lapin::options::{
    BasicQosOptions, ExchangeDeclareOptions, QueueDeclareOptions, QueueDeleteOptions,
    QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind, Queue};
use tokio::time::Instant;

use crate::config::{Config, QueueType};
use crate::error::{code, from_lapin};
use crate::line::Line;
use crate::link::{Link, Live};
use crate::names::Address;
use crate::probe::{self, Found};

/// For how long a queue that was seen is believed to be there.
const BELIEVED: Duration = Duration::from_secs(60);

/// For how long it is believed that no other server has made a companion.
const COMPANION_BELIEVED: Duration = Duration::from_secs(3600);

/// How long a queue may be seen before it can be used.
pub(crate) const IN_THE_MAKING: Duration = Duration::from_millis(100);

/// Deliveries that a quorum queue of ours survives. Without a limit RabbitMQ up to 3.13 puts what is given back at the
/// tail, 4 drops it after 20; -1 makes 3.x drop it at once.
const DELIVERIES: i64 = 1_000_000;

/// A queue that was seen.
#[derive(Debug)]
pub(crate) struct Known {
    seen: Instant,
    companion_seen: Instant,
    /// Whether there is a companion beside it.
    companion: AtomicBool,
    /// Whether a message was got from it: then it can be asked on a channel that holds others.
    pub(crate) tried: AtomicBool,
    /// Those who want messages of it.
    pub(crate) line: Arc<Line>,
}

impl Known {
    pub(crate) fn has_companion(&self) -> bool {
        self.companion.load(Ordering::Relaxed)
    }
}

/// What is asked, or wanted.
#[derive(Debug, Clone, Copy)]
enum Question<'a> {
    Nothing,
    Exchange(&'a ShortString),
    Passive(&'a ShortString),
    Declare(&'a ShortString, &'a FieldTable),
    Purge(&'a ShortString),
    Delete(&'a ShortString),
}

impl Question<'_> {
    async fn put(self, channel: &Channel) -> lapin::Result<Option<Queue>> {
        let none = FieldTable::default();
        match self {
            Self::Nothing => {
                let options = BasicQosOptions::default();
                channel.basic_qos(0, options).await?;
            }
            Self::Exchange(name) => {
                let options = ExchangeDeclareOptions {
                    passive: true,
                    ..ExchangeDeclareOptions::default()
                };
                let kind = ExchangeKind::Direct;
                let asked = channel.exchange_declare(name.clone(), kind, options, none);
                asked.await?;
            }
            Self::Passive(queue) => {
                let options = QueueDeclareOptions::durable().passive();
                return channel
                    .queue_declare(queue.clone(), options, none)
                    .await
                    .map(Some);
            }
            Self::Declare(queue, arguments) => {
                let options = QueueDeclareOptions::durable();
                let made = channel.queue_declare(queue.clone(), options, arguments.clone());
                return made.await.map(Some);
            }
            Self::Purge(queue) => {
                let options = QueuePurgeOptions::default();
                channel.queue_purge(queue.clone(), options).await?;
            }
            Self::Delete(queue) => {
                let options = QueueDeleteOptions::default();
                channel.queue_delete(queue.clone(), options).await?;
            }
        }
        Ok(None)
    }
}

/// Asks about queues, makes and deletes them.
#[derive(Debug)]
pub(crate) struct Queues {
    link: Arc<Link>,
    known: Mutex<HashMap<ShortString, Arc<Known>>>,
    /// Exchanges, and when they were seen.
    exchanges: Mutex<HashMap<ShortString, Instant>>,
    idle: Mutex<Vec<(Arc<Live>, Channel)>>,
    /// One of these is held while a queue is made, purged or deleted.
    turns: Vec<tokio::sync::Mutex<()>>,
    queue_type: QueueType,
    adopt: bool,
}

impl Queues {
    pub(crate) fn new(link: Arc<Link>, config: &Config) -> Self {
        Self {
            link,
            known: Mutex::default(),
            exchanges: Mutex::default(),
            idle: Mutex::default(),
            turns: (0..64).map(|_| tokio::sync::Mutex::default()).collect(),
            queue_type: config.queue_type,
            adopt: config.adopt,
        }
    }

    /// Proves that RabbitMQ answers.
    pub(crate) async fn ping(&self) -> Result<()> {
        let answer = self.ask(Question::Nothing).await?;
        answer.map(drop).map_err(from_lapin)
    }

    /// The queue, if it is there.
    pub(crate) async fn find(&self, address: &Address) -> Result<Option<Arc<Known>>> {
        let known = self.known().get(&address.queue).cloned();
        match known {
            Some(known) if known.seen.elapsed() < BELIEVED => Ok(Some(known)),
            before => self.look(address, before).await,
        }
    }

    /// The queue, made if it is not there. Adopted queues are never made.
    pub(crate) async fn make(&self, address: &Address) -> Result<Arc<Known>> {
        self.see_exchange(&address.exchange).await?;
        if let Some(known) = self.find(address).await? {
            return Ok(known);
        }
        if self.adopt {
            return Err(Error::new(
                ErrorKind::NotFound(Resource::Queue),
                "RabbitMQ has no such queue, and this pool takes queues as they are",
            ));
        }
        self.declare(&address.queue).await?;
        let found = self.look(address, None).await?;
        let found = found.ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "the RabbitMQ queue is gone again")
        })?;
        found.tried.store(true, Ordering::Relaxed);
        Ok(found)
    }

    /// Sees to it that an exchange is there: publishing to one that is not costs the channel, which others share.
    async fn see_exchange(&self, name: &ShortString) -> Result<()> {
        let seen = self.exchanges().get(name).copied();
        if name.as_str().is_empty() || seen.is_some_and(|at| at.elapsed() < BELIEVED) {
            return Ok(());
        }
        let answer = self.ask(Question::Exchange(name)).await?;
        if unless_missing(answer)?.is_none() {
            let sentence = "RabbitMQ has no exchange of the name that the pool's options give";
            return Err(Error::new(ErrorKind::Internal, sentence).with("exchange", name));
        }
        self.exchanges().insert(name.clone(), Instant::now());
        Ok(())
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

    async fn look(
        &self,
        address: &Address,
        before: Option<Arc<Known>>,
    ) -> Result<Option<Arc<Known>>> {
        // One that is being made here is seen before it can be used.
        drop(self.turn(&address.queue).await);
        let there = match &before {
            None if self.adopt => self.probe(&address.queue).await?,
            _ => self.passive(&address.queue).await?.is_some(),
        };
        if !there {
            self.forget(address);
            return Ok(None);
        }
        let now = Instant::now();
        let tried = before
            .as_ref()
            .is_some_and(|it| it.tried.load(Ordering::Relaxed));
        let (companion, companion_seen) = match &before {
            Some(it) if it.companion_seen.elapsed() < COMPANION_BELIEVED => {
                (it.has_companion(), it.companion_seen)
            }
            _ if self.adopt => {
                self.declare(&address.companion).await?;
                (true, now)
            }
            _ => (self.passive(&address.companion).await?.is_some(), now),
        };
        let known = Arc::new(Known {
            seen: now,
            companion_seen,
            companion: AtomicBool::new(companion),
            tried: AtomicBool::new(tried),
            line: before.map_or_else(Arc::default, |it| Arc::clone(&it.line)),
        });
        self.known()
            .insert(address.queue.clone(), Arc::clone(&known));
        Ok(Some(known))
    }

    /// Makes the companion of a queue.
    pub(crate) async fn make_companion(&self, address: &Address, known: &Known) -> Result<()> {
        if !known.has_companion() {
            self.declare(&address.companion).await?;
            known.companion.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// How many messages are ready in a queue, none where there is no queue.
    pub(crate) async fn ready(&self, queue: &ShortString) -> Result<u64> {
        let found = self.passive(queue).await?;
        Ok(found.map_or(0, |it| it.message_count().into()))
    }

    pub(crate) async fn purge(&self, queue: &ShortString) -> Result<()> {
        let _turn = self.turn(queue).await;
        let answer = self.ask(Question::Purge(queue)).await?;
        unless_missing(answer).map(drop)
    }

    pub(crate) async fn delete(&self, queue: &ShortString) -> Result<()> {
        let _turn = self.turn(queue).await;
        let answer = self.ask(Question::Delete(queue)).await?;
        unless_missing(answer).map(drop)
    }

    async fn passive(&self, queue: &ShortString) -> Result<Option<Queue>> {
        let answer = self.ask(Question::Passive(queue)).await?;
        Ok(unless_missing(answer)?.flatten())
    }

    /// Declares a queue of ours. One of that name that is there with other arguments is taken as it is.
    async fn declare(&self, queue: &ShortString) -> Result<()> {
        let _turn = self.turn(queue).await;
        let arguments = arguments(self.queue_type);
        match self.ask(Question::Declare(queue, &arguments)).await? {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == Some(406) => {
                if self.probe(queue).await? {
                    tracing::warn!(%queue, "the RabbitMQ queue has other arguments than ours; it is used as it is");
                    return Ok(());
                }
                Err(from_lapin(error))
            }
            Err(error) => Err(from_lapin(error)),
        }
    }

    /// Whether a queue is there, and one that can be used.
    async fn probe(&self, queue: &ShortString) -> Result<bool> {
        let mut arguments = FieldTable::default();
        arguments.insert(
            "x-queue-type".into(),
            AMQPValue::LongString(probe::QUESTION.into()),
        );
        for _ in 0..probe::ROUNDS {
            let Err(error) = self.ask(Question::Declare(queue, &arguments)).await? else {
                // A broker that knows no types of queues.
                return Ok(true);
            };
            match probe::read(&error) {
                Found::Usable => return Ok(true),
                Found::Missing => return Ok(false),
                Found::Argument(name, value) => {
                    arguments.insert(name.into(), value);
                }
                Found::Unusable(why) => {
                    return Err(Error::new(ErrorKind::Unsupported, why).with("queue", queue));
                }
                Found::Failed => return Err(from_lapin(error)),
            }
        }
        Ok(true)
    }

    /// Asks, and once more where that made RabbitMQ fail: every question may be repeated. (Up to 3.10 it fails when a
    /// quorum queue is purged by one while it is being declared by another.)
    async fn ask(&self, question: Question<'_>) -> Result<lapin::Result<Option<Queue>>> {
        match self.ask_once(question).await {
            Ok(Err(error)) if code(&error) == Some(541) => {
                tokio::time::sleep(IN_THE_MAKING).await;
                self.ask_once(question).await
            }
            answer => answer,
        }
    }

    /// Asks on a channel of its own; one that survives is used again.
    async fn ask_once(&self, question: Question<'_>) -> Result<lapin::Result<Option<Queue>>> {
        let work = async {
            let (live, channel) = self.channel().await?;
            let answer = question.put(&channel).await;
            if answer.is_ok() {
                self.idle().push((live, channel));
            }
            Ok(answer)
        };
        let answer = self.link.in_time(work).await;
        if answer.is_err() {
            // Whatever was not answered in time, or not at all: the next question opens a channel, and so finds out.
            self.idle().clear();
        }
        answer
    }

    /// Waits until nobody else here changes the queue.
    async fn turn(&self, queue: &ShortString) -> tokio::sync::MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        queue.hash(&mut hasher);
        let at = hasher.finish() as usize % self.turns.len();
        self.turns[at].lock().await
    }

    async fn channel(&self) -> Result<(Arc<Live>, Channel)> {
        loop {
            let Some((live, channel)) = self.idle().pop() else {
                return self.link.channel().await;
            };
            if live.is_open() && channel.status().connected() {
                return Ok((live, channel));
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<ShortString, Arc<Known>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Arc<Live>, Channel)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn close(&self) {
        self.idle().clear();
    }
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

fn unless_missing<T>(answer: lapin::Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if code(&error) == Some(404) => Ok(None),
        Err(error) => Err(from_lapin(error)),
    }
}
