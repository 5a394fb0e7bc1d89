//! Questions that are put to RabbitMQ, each on a channel of its own: one that is refused costs its channel.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isimud_contract::Result;
use lapin::options::{
    BasicQosOptions, ExchangeDeclareOptions, QueueDeclareOptions, QueueDeleteOptions,
    QueuePurgeOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, ExchangeKind, Queue};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::{closed, code, from_lapin};
use crate::reconnecting::{Live, ReconnectingConnection};

/// How many questions may be under way at once, where the node allows so many channels. On a node that allows fewer than
/// twice as many it is half of those.
const MAX_CONCURRENT: usize = 64;

/// How long a question rests that made RabbitMQ fail.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// What is asked, or wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Question<'a> {
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

/// Puts questions.
#[derive(Debug)]
pub(crate) struct Questions {
    link: Arc<ReconnectingConnection>,
    idle: Mutex<Vec<(Arc<Live>, Channel)>>,
    room: Semaphore,
}

impl Questions {
    pub(crate) fn new(link: Arc<ReconnectingConnection>) -> Self {
        Self {
            link,
            idle: Mutex::default(),
            room: Semaphore::new(MAX_CONCURRENT),
        }
    }

    /// Asks, and once more where that made RabbitMQ fail: every question may be repeated. (Up to 3.10 it fails when a
    /// quorum queue is purged by one while it is being declared by another.)
    pub(crate) async fn ask(&self, question: Question<'_>) -> Result<lapin::Result<Option<Queue>>> {
        match self.ask_once(question).await {
            Ok(Err(error)) if code(&error) == Some(541) => {
                tokio::time::sleep(RETRY_DELAY).await;
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
        let at_once = (self.link.channel_max() / 2).clamp(1, MAX_CONCURRENT);
        let share = MAX_CONCURRENT.div_ceil(at_once);
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

    fn idle(&self) -> MutexGuard<'_, Vec<(Arc<Live>, Channel)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn close(&self) {
        self.idle().clear();
    }
}

/// What was answered, or nothing where RabbitMQ has no such queue or exchange.
pub(crate) fn unless_missing<T>(answer: lapin::Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if code(&error) == Some(404) => Ok(None),
        Err(error) => Err(from_lapin(error)),
    }
}
