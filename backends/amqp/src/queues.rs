//! What is known of RabbitMQ's queues, and how ours are made.
//!
//! A question that is refused costs the channel on which it was asked, its number (`link`), and a line in RabbitMQ's log.
//! So questions have a connection of their own, on which no delivery is held; and those that are put often are such as
//! RabbitMQ does not refuse: a queue of ours is declared as it is to be, whether or not it is there, and whether a
//! companion is there is seen by a message that has no life. What was refused all the same is remembered for a moment
//! (`refusals`).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use isimud_contract::{Error, ErrorKind, Resource, Result};
use lapin::options::{
    BasicQosOptions, ExchangeDeclareOptions, QueueDeclareOptions, QueueDeleteOptions,
    QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, ExchangeKind, Queue};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::config::{Config, QueueType};
use crate::error::{closed, code, from_lapin};
use crate::expected::Expected;
use crate::line::Line;
use crate::link::{Link, Live};
use crate::names::Address;
use crate::probe::{self, Found};
use crate::publisher::{Fate, Outgoing, Publisher, Target};
use crate::refusals::{Refusals, Refused};
use crate::turns::Turns;

/// For how long a queue that was seen is believed to be there.
const BELIEVED: Duration = Duration::from_secs(60);

/// For how long it is believed that no other server has made a companion.
const COMPANION_BELIEVED: Duration = Duration::from_secs(3600);

/// For how long a companion that does not answer is believed to be there.
const SILENT_COMPANION_BELIEVED: Duration = Duration::from_secs(10);

/// For how long a companion that does not answer is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(5);

/// RabbitMQ 3.10 writes down every half a second which quorum queues a node has. A younger one is dead after a crash, with
/// what it had confirmed.
const YOUNG: Duration = Duration::from_secs(2);

/// How many queues are known, at the most.
const CAPACITY: usize = 100_000;

/// How long a queue may be seen before it can be used.
pub(crate) const IN_THE_MAKING: Duration = Duration::from_millis(100);

/// Deliveries that a quorum queue of ours survives. Without a limit RabbitMQ up to 3.13 puts what is given back at the
/// tail, 4 drops it after 20; -1 makes 3.x drop it at once.
const DELIVERIES: i64 = 1_000_000;

/// How many questions may be under way at once, where the node allows so many channels. On a node that allows fewer than
/// twice as many it is half of those.
const QUESTIONS: usize = 64;

/// A queue that was seen.
#[derive(Debug)]
pub(crate) struct Known {
    seen: Instant,
    /// Until when it is believed that no other server makes a companion.
    companion_believed_until: Instant,
    /// When this server made the companion.
    companion_made: OnceLock<Instant>,
    /// Until when the companion is left alone, as it did not answer.
    companion_left_until: Mutex<Option<Instant>>,
    /// Whether it is as this service makes queues: then it can be declared without being refused.
    ours: bool,
    /// Whether there is a companion beside it.
    companion: AtomicBool,
    /// One more than the connections that had been lost when it was last asked for a message, or 0: then it can be asked on
    /// a channel that holds others.
    tried: AtomicUsize,
    /// Those who want messages of it.
    pub(crate) line: Arc<Line>,
    /// Copies of its messages that callers expect.
    pub(crate) expected: Arc<Expected>,
}

impl Known {
    pub(crate) fn has_companion(&self) -> bool {
        self.companion.load(Ordering::Relaxed)
    }

    /// Whether the companion was made so lately that a crash of RabbitMQ could leave it dead.
    pub(crate) fn has_young_companion(&self) -> bool {
        let made = self.companion_made.get();
        made.is_some_and(|made| made.elapsed() < YOUNG)
    }

    /// Whether there is a companion that answers, as far as is known.
    pub(crate) fn has_answering_companion(&self) -> bool {
        let until = *self.companion_left_until();
        self.has_companion() && until.is_none_or(|until| until <= Instant::now())
    }

    /// Notes that the companion does not answer. The queue itself goes on without it for a while.
    pub(crate) fn leave_companion(&self) {
        *self.companion_left_until() = Some(Instant::now() + LEFT_ALONE);
    }

    fn companion_left_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.companion_left_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

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
    /// One that is otherwise, or may be.
    AsFound,
}

/// What a queue is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    ToSend,
    ToReceive,
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
    publisher: Arc<Publisher>,
    known: Mutex<HashMap<ShortString, Arc<Known>>>,
    refusals: Refusals,
    /// Exchanges, and when they were seen.
    exchanges: Mutex<HashMap<ShortString, Instant>>,
    refused_exchanges: Refusals,
    /// Queues of which it was said that they are not as they would be made here.
    said: Mutex<HashSet<ShortString>>,
    idle: Mutex<Vec<(Arc<Live>, Channel)>>,
    room: Semaphore,
    /// One of these is held while a queue is asked for, made, purged or deleted.
    turns: Turns,
    queue_type: QueueType,
}

impl Queues {
    pub(crate) fn new(link: Arc<Link>, publisher: Arc<Publisher>, config: &Config) -> Self {
        Self {
            link,
            publisher,
            known: Mutex::default(),
            refusals: Refusals::default(),
            exchanges: Mutex::default(),
            refused_exchanges: Refusals::default(),
            said: Mutex::default(),
            idle: Mutex::default(),
            room: Semaphore::new(QUESTIONS),
            turns: Turns::default(),
            queue_type: config.queue_type,
        }
    }

    /// Proves that RabbitMQ answers.
    pub(crate) async fn ping(&self) -> Result<()> {
        let answer = self.ask(Question::Nothing).await?;
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
        seen.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound(Resource::Queue),
                "RabbitMQ has no such queue, and this pool takes queues as they are",
            )
        })
    }

    async fn see(&self, address: &Address, wanted: Wanted) -> Result<Option<Arc<Known>>> {
        if let Some(told) = self.told(address, wanted) {
            return told;
        }
        self.link
            .in_time(async {
                // Whoever comes while somebody else asks, or makes the queue, hears what he has found.
                let _turn = self.turns.take(&address.queue).await;
                if let Some(told) = self.told(address, wanted) {
                    return told;
                }
                let found = self.look(address, wanted).await;
                match &found {
                    Ok(None) => self.refusals.put(&address.queue, Refused::Missing),
                    Ok(Some(_)) => self.refusals.forget(&address.queue),
                    Err(error) => self.refused(address, error),
                }
                found
            })
            .await
    }

    /// What is known without asking.
    fn told(&self, address: &Address, wanted: Wanted) -> Option<Result<Option<Arc<Known>>>> {
        let known = self.seen(address);
        if let Some(known) = known.filter(|known| known.seen.elapsed() < BELIEVED) {
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
        if name.as_str().is_empty() || seen.is_some_and(|at| at.elapsed() < BELIEVED) {
            return Ok(());
        }
        if self.refused_exchanges.get(name).is_none() {
            let answer = self.ask(Question::Exchange(name)).await?;
            if unless_missing(answer)?.is_some() {
                let mut exchanges = self.exchanges();
                if exchanges.len() >= CAPACITY {
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
        let believed_until = now + COMPANION_BELIEVED;
        let mut left_until = before.as_ref().and_then(|it| *it.companion_left_until());
        let (companion, companion_believed_until) = match &before {
            Some(it) if now < it.companion_believed_until => {
                (it.has_companion(), it.companion_believed_until)
            }
            _ if address.is_adopted => {
                self.declare(&address.companion).await?;
                (true, believed_until)
            }
            _ => match self.is_companion_there(address).await {
                Ok(is_there) => (is_there, believed_until),
                // The queue itself is as good as it was. Only one that is there can be silent.
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    left_until = Some(Instant::now() + LEFT_ALONE);
                    (true, now + SILENT_COMPANION_BELIEVED)
                }
                Err(error) => return Err(error),
            },
        };
        let known = Arc::new(Known {
            seen: now,
            companion_believed_until,
            companion_made: OnceLock::new(),
            companion_left_until: Mutex::new(left_until),
            ours: there == There::Ours,
            companion: AtomicBool::new(companion),
            tried: AtomicUsize::new(tried),
            line: before
                .as_ref()
                .map_or_else(Arc::default, |it| Arc::clone(&it.line)),
            expected: before.map_or_else(Arc::default, |it| Arc::clone(&it.expected)),
        });
        let mut all = self.known();
        if all.len() >= CAPACITY {
            all.retain(|_, it| it.seen.elapsed() < BELIEVED);
            if all.len() >= CAPACITY {
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
            (None, _) if address.is_adopted => Ok(match self.probe(name).await? {
                true => There::AsFound,
                false => There::No,
            }),
            (None, Wanted::ToSend) => self.declare(name).await,
            (Some(known), Wanted::ToSend) if known.ours && !address.is_adopted => {
                self.declare(name).await
            }
            (before, wanted) => {
                if self.passive(name).await?.is_some() {
                    let ours = before.is_some_and(|known| known.ours);
                    return Ok(if ours { There::Ours } else { There::AsFound });
                }
                match wanted {
                    Wanted::ToSend if !address.is_adopted => self.declare(name).await,
                    _ => Ok(There::No),
                }
            }
        }
    }

    /// Whether the queue has a companion. It is told by a message for it, which RabbitMQ returns where there is none, and
    /// drops at once where there is one: it has no time to live, and no native consumer listens there.
    async fn is_companion_there(&self, address: &Address) -> Result<bool> {
        let question = Outgoing {
            properties: BasicProperties::default()
                .with_app_id("isimud".into())
                .with_expiration("0".into()),
            body: Bytes::new(),
        };
        let target = Target::queue(&address.companion);
        let fate = self.publisher.publish(target, vec![question]).await?;
        Ok(fate == Fate::Stored)
    }

    /// Makes the companion of a queue.
    pub(crate) async fn make_companion(&self, address: &Address, known: &Known) -> Result<()> {
        if !known.has_companion() {
            self.declare(&address.companion).await?;
            known.companion_made.get_or_init(Instant::now);
            known.companion.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// How many messages are ready in a queue and its companion, none where there is no queue.
    pub(crate) async fn ready(&self, address: &Address) -> Result<u64> {
        let Some(known) = self.find(address).await? else {
            return Ok(0);
        };
        let mut ready = 0;
        for (name, there) in [
            (&address.queue, true),
            (&address.companion, known.has_companion()),
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
            (&address.companion, known.has_companion()),
        ] {
            if there {
                let _turn = self.turns.take(name).await;
                let answer = self.ask(Question::Purge(name)).await?;
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
            let _turn = self.turns.take(name).await;
            let answer = self.ask(Question::Delete(name)).await?;
            unless_missing(answer)?;
        }
        self.forget(address);
        Ok(())
    }

    async fn passive(&self, queue: &ShortString) -> Result<Option<Queue>> {
        let answer = self.ask(Question::Passive(queue)).await?;
        Ok(unless_missing(answer)?.flatten())
    }

    /// Declares a queue of ours. One of that name that is there with other arguments is taken as it is.
    async fn declare(&self, queue: &ShortString) -> Result<There> {
        let arguments = arguments(self.queue_type);
        match self.ask(Question::Declare(queue, &arguments)).await? {
            Ok(_) => Ok(There::Ours),
            Err(error) if code(&error) == Some(406) => {
                if self.probe(queue).await? {
                    self.say_once(queue);
                    return Ok(There::AsFound);
                }
                Err(from_lapin(error))
            }
            Err(error) => Err(from_lapin(error)),
        }
    }

    fn say_once(&self, queue: &ShortString) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() < CAPACITY && said.insert(queue.clone()) {
            tracing::warn!(%queue, "the RabbitMQ queue has other arguments than ours; it is used as it is");
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
                // Whoever may read or write a queue may ask whether it is there. Of which kind it is shows when the first
                // message is got, on a connection on which nothing is held.
                Found::Forbidden => return Ok(self.passive(queue).await?.is_some()),
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
            let _room = self.room().await?;
            let (live, channel) = self.channel().await?;
            let answer = question.put(&channel).await;
            if answer.is_ok() {
                let mut idle = self.idle();
                idle.retain(|(live, _)| live.is_open() && !live.is_replaced());
                idle.push((live, channel));
            } else {
                live.given_up(&channel);
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

    /// Waits until there may be one more channel for questions.
    async fn room(&self) -> Result<SemaphorePermit<'_>> {
        let at_once = (self.link.channel_max() / 2).clamp(1, QUESTIONS);
        let share = QUESTIONS.div_ceil(at_once);
        let share = u32::try_from(share).unwrap_or(u32::MAX);
        self.room.acquire_many(share).await.map_err(|_| closed())
    }

    async fn channel(&self) -> Result<(Arc<Live>, Channel)> {
        loop {
            let Some((live, channel)) = self.idle().pop() else {
                return self.link.channel().await;
            };
            if live.is_open() && !live.is_replaced() && channel.status().connected() {
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
