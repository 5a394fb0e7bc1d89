//! Publishing: confirmed and routed, or an error.
//!
//! Callers share a few channels. What they publish goes out as it comes, and nobody waits for another's confirm: a queue
//! that has lost its majority holds nobody up but those who post to it. A channel for each caller would spare the
//! bookkeeping below, and halves the rate of many callers (see `benches/channels.rs`): RabbitMQ confirms what came on
//! one channel together.
//!
//! The bookkeeping is about messages that reach no queue. RabbitMQ returns such a message before it confirms it, but the
//! client hands it over with the next confirm of the channel, whose ever that is. So one task sees all confirms of a
//! channel in their order, and takes a returned message to be about everything on the way by the same exchange and
//! routing key.
//!
//! A message that RabbitMQ refuses by closing the channel, above all one that is larger than the node takes, costs the
//! others on it their confirms: they are published again on another channel, where by their ids they are the same
//! messages. What the node takes is remembered, so that it happens once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use isimud_contract::Result;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::circuits::{Call, Circuits, is_in_vain};
use crate::closing::{Closing, too_large};
use crate::error::{blocked, from_lapin, refused, strange, told, too_late};
use crate::reconnecting::{Live, ReconnectingConnection};

/// How many channels there are.
const MAX_CHANNELS: usize = 2;

/// How often a channel that is given up looks whether anybody still waits for its confirms.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How often messages are published because a channel was closed on account of somebody else's.
const MAX_ATTEMPTS: usize = 5;

/// A message of this size, in bytes, is taken by any node. Of several messages the largest is tried before they are
/// published, where it is larger than all that were taken before: they are stored all or not at all.
const SMALL: usize = 4096;

/// Where messages go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
}

impl Target {
    /// A queue, by the exchange that knows all of them.
    pub(crate) fn queue(name: &ShortString) -> Self {
        Self {
            exchange: ShortString::default(),
            routing_key: name.clone(),
        }
    }

    /// What it is known by; for a queue, its name.
    fn name(&self) -> ShortString {
        match self.exchange.as_str() {
            "" => self.routing_key.clone(),
            exchange => format!("{exchange}/{}", self.routing_key).into(),
        }
    }
}

/// A message to publish.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
}

/// What became of messages that were published together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PublishOutcome {
    /// The queue has all of them.
    Stored,
    /// At least one of them reached no queue.
    Unroutable,
}

/// Publishes, on a connection of its own: a server that is short of memory or disk space stops a whole connection.
#[derive(Debug)]
pub(crate) struct Publisher {
    link: ReconnectingConnection,
    channels: Mutex<Vec<Arc<PublishChannel>>>,
    /// Held by whoever opens a channel, so that concurrent callers open no more than are wanted.
    opening: tokio::sync::Mutex<()>,
    sizes: Mutex<Sizes>,
    circuits: Circuits,
}

/// What is known of the sizes of messages that the node takes, in bytes.
#[derive(Debug)]
struct Sizes {
    /// The number of the connection on which that was learned: the next may lead to another node, or to other settings.
    connection: usize,
    taken: usize,
    limit: Option<usize>,
}

impl Sizes {
    fn on(connection: usize) -> Self {
        Self {
            connection,
            taken: SMALL,
            limit: None,
        }
    }

    fn check(&self, size: usize) -> Result<()> {
        match self.limit {
            Some(limit) if size > limit => Err(too_large(size, limit)),
            _ => Ok(()),
        }
    }
}

/// A channel that confirms what it is given, and the way to it.
#[derive(Debug)]
struct PublishChannel {
    live: Arc<Live>,
    channel: Channel,
    requests: mpsc::UnboundedSender<Request>,
    gauge: Arc<Gauge>,
}

/// What is seen of a channel from outside.
#[derive(Debug, Default)]
struct Gauge {
    /// Requests that are not answered.
    waiting: AtomicUsize,
    /// Confirms that have come.
    confirms: AtomicU64,
}

/// Messages of one caller.
#[derive(Debug)]
struct Request {
    target: Target,
    messages: Vec<Outgoing>,
    /// Whether RabbitMQ is to say so where they reach no queue.
    mandatory: bool,
    answer: oneshot::Sender<Answer>,
}

/// The fate of messages, and the places among them of those that the queue refused: it has the others.
type Answer = Result<(PublishOutcome, Vec<usize>)>;

impl Publisher {
    pub(crate) fn new(link: ReconnectingConnection) -> Self {
        Self {
            circuits: Circuits::new(link.attempt_timeout()),
            link,
            channels: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            sizes: Mutex::new(Sizes::on(0)),
        }
    }

    /// Publishes in order and waits for all confirms. An error leaves open which of them arrived.
    pub(crate) async fn publish(
        &self,
        target: Target,
        messages: Vec<Outgoing>,
    ) -> Result<PublishOutcome> {
        match self.publish_some(target, messages).await? {
            (outcome, none) if none.is_empty() => Ok(outcome),
            _ => Err(refused()),
        }
    }

    /// The same for whoever can do with some of them stored: those that the queue refused are told by their places.
    pub(crate) async fn publish_some(&self, target: Target, messages: Vec<Outgoing>) -> Answer {
        let Some(size) = messages.iter().map(|message| message.body.len()).max() else {
            return Ok((PublishOutcome::Stored, Vec::new()));
        };
        let work = async {
            self.sizes().check(size)?;
            if messages.len() > 1 && size > self.sizes().taken {
                self.try_size(size).await?;
            }
            self.publish_on(target, messages, size, true).await
        };
        self.link.in_time(work).await
    }

    /// Publishes nothing of that size to nowhere.
    async fn try_size(&self, size: usize) -> Result<()> {
        let target = Target::queue(&"isimud~nowhere".into());
        let nothing = Outgoing {
            properties: BasicProperties::default().with_app_id("isimud".into()),
            body: vec![0; size].into(),
        };
        let tried = self.publish_on(target, vec![nothing], size, false).await;
        tried.map(drop)
    }

    /// Publishes on a channel, and on another one where that was closed on account of somebody else's message.
    async fn publish_on(
        &self,
        target: Target,
        messages: Vec<Outgoing>,
        size: usize,
        mandatory: bool,
    ) -> Answer {
        let name = target.name();
        let call = self.circuits.enter(&name, self.link.losses())?;
        let mut times = 1;
        loop {
            // What may wait for ever does not stand in the way of what others publish.
            let publish_channel = match call.is_trial() {
                true => self.open().await?,
                false => self.pick_channel().await?,
            };
            let request = (target.clone(), messages.clone());
            let health_check =
                HealthCheck::new(&publish_channel, &call, self.link.attempt_timeout());
            let published = publish_channel.publish(request, mandatory).await;
            health_check.over();
            let error = match published {
                Ok(outcome) => {
                    call.answered();
                    self.learn(&publish_channel, |sizes| {
                        sizes.taken = sizes.taken.max(size)
                    });
                    return Ok(outcome);
                }
                Err(error) => error,
            };
            if !publish_channel.was_closed_alone() {
                return Err(error);
            }
            let closing = Closing::of(&error);
            if let Closing::TooLarge { limit } = closing {
                self.learn(&publish_channel, |sizes| sizes.limit = Some(limit));
                let checked = self.sizes().check(size);
                if let Err(error) = checked {
                    call.answered();
                    return Err(error);
                }
            }
            if closing.is_about(&target) || times == MAX_ATTEMPTS {
                call.answered();
                return Err(error);
            }
            times += 1;
        }
    }

    fn learn(&self, publish_channel: &PublishChannel, what: impl FnOnce(&mut Sizes)) {
        let mut sizes = self.sizes();
        if sizes.connection == publish_channel.live.number {
            what(&mut sizes);
        }
    }

    fn sizes(&self) -> MutexGuard<'_, Sizes> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The channel on which the fewest wait, or a new one.
    async fn pick_channel(&self) -> Result<Arc<PublishChannel>> {
        if let Some(publish_channel) = self.best() {
            return publish_channel.unless_blocked();
        }
        let _turn = self.opening.lock().await;
        if let Some(publish_channel) = self.best() {
            return publish_channel.unless_blocked();
        }
        let publish_channel = self.open().await?;
        self.channels().push(Arc::clone(&publish_channel));
        Ok(publish_channel)
    }

    async fn open(&self) -> Result<Arc<PublishChannel>> {
        // On a connection that is blocked no channel would be opened, as on one that is dead.
        if self.link.live().await?.is_blocked() {
            return Err(blocked());
        }
        let (live, channel) = self.link.channel().await?;
        let confirm = channel.confirm_select(ConfirmSelectOptions::default());
        confirm.await.map_err(from_lapin)?;
        if self.sizes().connection != live.number {
            *self.sizes() = Sizes::on(live.number);
        }
        let (requests, incoming) = mpsc::unbounded_channel();
        let publish_channel = Arc::new(PublishChannel {
            gauge: Arc::default(),
            channel: channel.clone(),
            live,
            requests,
        });
        let driver = Driver::new(channel.clone(), Arc::clone(&publish_channel.gauge));
        let live = Arc::clone(&publish_channel.live);
        tokio::spawn(async move {
            driver.run(incoming).await;
            live.given_up(&channel);
        });
        Ok(publish_channel)
    }

    fn best(&self) -> Option<Arc<PublishChannel>> {
        let mut channels = self.channels();
        channels.retain(|publish_channel| {
            publish_channel.is_open()
                && !publish_channel.live.is_suspect()
                && !publish_channel.live.is_replaced()
        });
        let waiting = |publish_channel: &&Arc<PublishChannel>| {
            publish_channel.gauge.waiting.load(Ordering::Relaxed)
        };
        let best = channels.iter().min_by_key(waiting)?;
        let another =
            channels.len() < MAX_CHANNELS && waiting(&best) > 0 && !best.live.is_blocked();
        (!another).then(|| Arc::clone(best))
    }

    fn channels(&self) -> MutexGuard<'_, Vec<Arc<PublishChannel>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn close(&self) {
        self.channels().clear();
        self.link.close().await;
    }
}

impl PublishChannel {
    async fn publish(
        &self,
        (target, messages): (Target, Vec<Outgoing>),
        mandatory: bool,
    ) -> Answer {
        let (answer, answered) = oneshot::channel();
        let request = Request {
            target,
            messages,
            mandatory,
            answer,
        };
        // A task that has ended drops the answer with the request.
        self.requests.send(request).ok();
        answered.await.unwrap_or_else(|_| Err(too_late()))
    }

    /// Whether the server has closed the channel, and not the connection.
    fn was_closed_alone(&self) -> bool {
        self.live.is_open() && !self.channel.status().connected()
    }

    fn is_open(&self) -> bool {
        self.live.is_open() && self.channel.status().connected() && !self.requests.is_closed()
    }

    fn unless_blocked(self: Arc<Self>) -> Result<Arc<Self>> {
        if self.live.is_blocked() {
            Err(blocked())
        } else {
            Ok(self)
        }
    }
}

/// Casts doubt on the queue that has confirmed nothing while a caller waited in vain, and on the connection if nothing else
/// was confirmed meanwhile.
struct HealthCheck<'a> {
    publish_channel: &'a PublishChannel,
    call: &'a Call<'a>,
    begun: Instant,
    /// How long a call waits at least before it has waited in vain.
    attempt_timeout: Duration,
    confirms: u64,
    over: bool,
}

impl<'a> HealthCheck<'a> {
    fn new(
        publish_channel: &'a PublishChannel,
        call: &'a Call<'a>,
        attempt_timeout: Duration,
    ) -> Self {
        publish_channel
            .gauge
            .waiting
            .fetch_add(1, Ordering::Relaxed);
        Self {
            publish_channel,
            call,
            begun: Instant::now(),
            attempt_timeout,
            confirms: publish_channel.gauge.confirms.load(Ordering::Relaxed),
            over: false,
        }
    }

    fn over(mut self) {
        self.over = true;
    }
}

impl Drop for HealthCheck<'_> {
    fn drop(&mut self) {
        let gauge = &self.publish_channel.gauge;
        gauge.waiting.fetch_sub(1, Ordering::Relaxed);
        if self.over {
            return;
        }
        let others = gauge.confirms.load(Ordering::Relaxed) > self.confirms;
        if !others {
            self.publish_channel.live.mark_suspect();
        }
        // Also where nothing else was published meanwhile: a queue that does not answer blocks each new channel on which it
        // is published to.
        if is_in_vain(self.begun.elapsed(), self.attempt_timeout) {
            self.call.waited_in_vain(self.begun, others);
        }
    }
}

/// Sends what it is given on its channel, and hears all confirms.
struct Driver {
    channel: Channel,
    gauge: Arc<Gauge>,
    next: u64,
    waiting: HashMap<u64, Waiting>,
    /// Requests of which all confirms were heard, and that are not answered.
    heard: Vec<u64>,
}

/// A request that is not confirmed yet.
struct Waiting {
    target: Target,
    left: usize,
    outcome: Result<PublishOutcome>,
    refused: Vec<usize>,
    answer: oneshot::Sender<Answer>,
}

impl Driver {
    fn new(channel: Channel, gauge: Arc<Gauge>) -> Self {
        Self {
            channel,
            gauge,
            next: 0,
            waiting: HashMap::new(),
            heard: Vec::new(),
        }
    }

    /// Runs until nobody sends requests any more and all are answered.
    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        let mut flying = FuturesUnordered::new();
        let mut given_up = false;
        loop {
            tokio::select! {
                biased;
                Some((place, confirmed)) = flying.next() => {
                    self.hear(place, confirmed);
                    // A returned message can come with a confirm that is heard after its own: nobody is answered before
                    // all that have come are heard.
                    while let Some(Some((place, confirmed))) = flying.next().now_or_never() {
                        self.hear(place, confirmed);
                    }
                    self.answer();
                }
                request = requests.recv(), if !given_up => match request {
                    Some(request) => {
                        let options = BasicPublishOptions {
                            mandatory: request.mandatory,
                            immediate: false,
                        };
                        let (number, target, messages) = self.begin(request);
                        for (at, message) in messages.into_iter().enumerate() {
                            // Each is handed to the client when it is first polled, which is in this order.
                            let channel = (self.channel.clone(), options);
                            flying.push(send(channel, (number, at), target.clone(), message));
                        }
                    }
                    None => given_up = true,
                },
                () = tokio::time::sleep(POLL_INTERVAL), if given_up => {
                    self.waiting.retain(|_, waiting| !waiting.answer.is_closed());
                }
            }
            if given_up && self.waiting.is_empty() {
                return;
            }
        }
    }

    fn begin(&mut self, request: Request) -> (u64, Target, Vec<Outgoing>) {
        let number = self.next;
        self.next += 1;
        let waiting = Waiting {
            target: request.target.clone(),
            left: request.messages.len(),
            outcome: Ok(PublishOutcome::Stored),
            refused: Vec::new(),
            answer: request.answer,
        };
        self.waiting.insert(number, waiting);
        (number, request.target, request.messages)
    }

    /// Notes what became of the message at a place of a request.
    fn hear(&mut self, (number, at): (u64, usize), confirmed: lapin::Result<Confirmation>) {
        self.gauge.confirms.fetch_add(1, Ordering::Relaxed);
        let mut is_refused = false;
        let outcome = match confirmed {
            Ok(Confirmation::Ack(None)) => Ok(PublishOutcome::Stored),
            Ok(Confirmation::Ack(Some(returned))) => {
                self.returned(&Target {
                    exchange: returned.delivery.exchange,
                    routing_key: returned.delivery.routing_key,
                });
                Ok(PublishOutcome::Stored)
            }
            Ok(Confirmation::Nack(_)) => {
                is_refused = true;
                Ok(PublishOutcome::Stored)
            }
            Ok(Confirmation::NotRequested) => Err(strange()),
            Err(error) => Err(from_lapin(error)),
        };
        let Some(waiting) = self.waiting.get_mut(&number) else {
            return;
        };
        waiting.left -= 1;
        if is_refused {
            waiting.refused.push(at);
        }
        if let Err(error) = outcome {
            // What the server said is worth more than that the channel was closed afterwards.
            let before = waiting.outcome.as_ref().err();
            if before.is_none_or(|before| told(before).is_none()) {
                waiting.outcome = Err(error);
            }
        }
        if waiting.left == 0 {
            self.heard.push(number);
        }
    }

    /// Answers the requests of which all confirms were heard.
    fn answer(&mut self) {
        for number in self.heard.drain(..) {
            if let Some(done) = self.waiting.remove(&number) {
                // The caller may have gone.
                let Waiting {
                    outcome, refused, ..
                } = done;
                done.answer
                    .send(outcome.map(|outcome| (outcome, refused)))
                    .ok();
            }
        }
    }

    fn returned(&mut self, target: &Target) {
        for waiting in self.waiting.values_mut() {
            if waiting.target == *target && waiting.outcome.is_ok() {
                waiting.outcome = Ok(PublishOutcome::Unroutable);
            }
        }
    }
}

/// Publishes a message and waits until the server says what became of it.
async fn send(
    (channel, options): (Channel, BasicPublishOptions),
    place: (u64, usize),
    target: Target,
    message: Outgoing,
) -> ((u64, usize), lapin::Result<Confirmation>) {
    let Target {
        exchange,
        routing_key,
    } = target;
    let Outgoing { properties, body } = message;
    let sent = channel.basic_publish(exchange, routing_key, options, &body, properties);
    let confirmed = match sent.await {
        Ok(confirm) => confirm.await,
        Err(error) => Err(error),
    };
    (place, confirmed)
}
