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

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use isimud_contract::Result;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::{mpsc, oneshot};

use crate::error::{blocked, from_lapin, refused, strange, too_late};
use crate::link::{Link, Live};

/// How many channels there are.
const LANES: usize = 2;

/// How often a channel that is given up looks whether anybody still waits for its confirms.
const LOOK: Duration = Duration::from_secs(1);

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
}

/// A message to publish.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
}

/// What became of messages that were published together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The queue has all of them.
    Stored,
    /// At least one of them reached no queue.
    Unroutable,
}

/// Publishes, on a connection of its own: a server that is short of memory or disk space stops a whole connection.
#[derive(Debug)]
pub(crate) struct Publisher {
    link: Link,
    lanes: Mutex<Vec<Arc<Lane>>>,
    /// Held by whoever opens a channel, so that a crowd opens no more than are wanted.
    opening: tokio::sync::Mutex<()>,
}

/// A channel that confirms what it is given, and the way to it.
#[derive(Debug)]
struct Lane {
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
    answer: oneshot::Sender<Answer>,
}

/// The fate of messages, and the places among them of those that the queue refused: it has the others.
type Answer = Result<(Fate, Vec<usize>)>;

impl Publisher {
    pub(crate) fn new(link: Link) -> Self {
        Self {
            link,
            lanes: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
        }
    }

    /// Publishes in order and waits for all confirms. An error leaves open which of them arrived.
    pub(crate) async fn publish(&self, target: Target, messages: Vec<Outgoing>) -> Result<Fate> {
        match self.publish_some(target, messages).await? {
            (fate, none) if none.is_empty() => Ok(fate),
            _ => Err(refused()),
        }
    }

    /// The same for whoever can do with some of them stored: those that the queue refused are told by their places.
    pub(crate) async fn publish_some(&self, target: Target, messages: Vec<Outgoing>) -> Answer {
        if messages.is_empty() {
            return Ok((Fate::Stored, Vec::new()));
        }
        let work = async {
            let lane = self.lane().await?;
            let doubt = Doubt::new(&lane);
            let (answer, answered) = oneshot::channel();
            let request = Request {
                target,
                messages,
                answer,
            };
            // A task that has ended drops the answer with the request.
            lane.requests.send(request).ok();
            let fate = answered.await.unwrap_or_else(|_| Err(too_late()));
            doubt.over();
            fate
        };
        self.link.in_time(work).await
    }

    /// The channel on which the fewest wait, or a new one.
    async fn lane(&self) -> Result<Arc<Lane>> {
        if let Some(lane) = self.best() {
            return lane.unless_blocked();
        }
        let _turn = self.opening.lock().await;
        if let Some(lane) = self.best() {
            return lane.unless_blocked();
        }
        // On a connection that is blocked no channel would be opened, as on one that is dead.
        if self.link.live().await?.is_blocked() {
            return Err(blocked());
        }
        let (live, channel) = self.link.channel().await?;
        let confirm = channel.confirm_select(ConfirmSelectOptions::default());
        confirm.await.map_err(from_lapin)?;
        let (requests, incoming) = mpsc::unbounded_channel();
        let lane = Arc::new(Lane {
            gauge: Arc::default(),
            channel: channel.clone(),
            live,
            requests,
        });
        let driver = Driver::new(channel, Arc::clone(&lane.gauge));
        tokio::spawn(driver.run(incoming));
        self.lanes().push(Arc::clone(&lane));
        Ok(lane)
    }

    fn best(&self) -> Option<Arc<Lane>> {
        let mut lanes = self.lanes();
        lanes.retain(|lane| lane.is_open() && !lane.live.is_doubted());
        let waiting = |lane: &&Arc<Lane>| lane.gauge.waiting.load(Ordering::Relaxed);
        let best = lanes.iter().min_by_key(waiting)?;
        let another = lanes.len() < LANES && waiting(&best) > 0 && !best.live.is_blocked();
        (!another).then(|| Arc::clone(best))
    }

    fn lanes(&self) -> MutexGuard<'_, Vec<Arc<Lane>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn close(&self) {
        self.lanes().clear();
        self.link.close().await;
    }
}

impl Lane {
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

/// Casts doubt on a connection that has confirmed nothing while a caller waited in vain.
struct Doubt<'a> {
    lane: &'a Lane,
    confirms: u64,
    over: bool,
}

impl<'a> Doubt<'a> {
    fn new(lane: &'a Lane) -> Self {
        lane.gauge.waiting.fetch_add(1, Ordering::Relaxed);
        Self {
            lane,
            confirms: lane.gauge.confirms.load(Ordering::Relaxed),
            over: false,
        }
    }

    fn over(mut self) {
        self.over = true;
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        let gauge = &self.lane.gauge;
        gauge.waiting.fetch_sub(1, Ordering::Relaxed);
        if !self.over && gauge.confirms.load(Ordering::Relaxed) == self.confirms {
            self.lane.live.doubt();
        }
    }
}

/// Sends what it is given on its channel, and hears all confirms.
struct Driver {
    channel: Channel,
    gauge: Arc<Gauge>,
    next: u64,
    waiting: HashMap<u64, Waiting>,
}

/// A request that is not confirmed yet.
struct Waiting {
    target: Target,
    left: usize,
    fate: Result<Fate>,
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
        }
    }

    /// Runs until nobody sends requests any more and all are answered.
    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        let mut flying = FuturesUnordered::new();
        let mut given_up = false;
        loop {
            tokio::select! {
                biased;
                Some((place, confirmed)) = flying.next() => self.hear(place, confirmed),
                request = requests.recv(), if !given_up => match request {
                    Some(request) => {
                        let (number, target, messages) = self.begin(request);
                        for (at, message) in messages.into_iter().enumerate() {
                            // Each is handed to the client when it is first polled, which is in this order.
                            let (channel, target) = (self.channel.clone(), target.clone());
                            flying.push(send(channel, (number, at), target, message));
                        }
                    }
                    None => given_up = true,
                },
                () = tokio::time::sleep(LOOK), if given_up => {
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
            fate: Ok(Fate::Stored),
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
        let fate = match confirmed {
            Ok(Confirmation::Ack(None)) => Ok(Fate::Stored),
            Ok(Confirmation::Ack(Some(returned))) => {
                self.returned(&Target {
                    exchange: returned.delivery.exchange,
                    routing_key: returned.delivery.routing_key,
                });
                Ok(Fate::Stored)
            }
            Ok(Confirmation::Nack(_)) => {
                is_refused = true;
                Ok(Fate::Stored)
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
        if fate.is_err() {
            waiting.fate = fate;
        }
        if waiting.left == 0
            && let Some(done) = self.waiting.remove(&number)
        {
            // Whoever asked may have gone.
            let Waiting { fate, refused, .. } = done;
            done.answer.send(fate.map(|fate| (fate, refused))).ok();
        }
    }

    fn returned(&mut self, target: &Target) {
        for waiting in self.waiting.values_mut() {
            if waiting.target == *target && waiting.fate.is_ok() {
                waiting.fate = Ok(Fate::Unroutable);
            }
        }
    }
}

/// Publishes a message and waits until the server says what became of it.
async fn send(
    channel: Channel,
    place: (u64, usize),
    target: Target,
    message: Outgoing,
) -> ((u64, usize), lapin::Result<Confirmation>) {
    let options = BasicPublishOptions {
        mandatory: true,
        immediate: false,
    };
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
