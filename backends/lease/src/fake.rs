//! A broker in memory, for tests. It leases honestly, by a clock, and has the weaknesses that it is told to have.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use isimud_contract::{
    Capabilities, Clock, Delivery, Error, ErrorKind, QueueKey, Receipt, Result, Timestamp,
};

use crate::broker::{Depth, Envelope, LeaseBroker};

/// What kind of broker it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaultProfile {
    /// It drops a message once its ttl has passed, as AMQP's `expiration` does.
    pub expires_messages: bool,
    /// It keeps a delay by itself.
    pub delays: bool,
    /// Deliveries belong to the connection that took them, and come back when it closes. (Only it can settle them; what
    /// another is told about them it passes on.) Otherwise they come back in time alone.
    pub connection_bound: bool,
    /// It does nothing when it is given a hint.
    pub ignores_hints: bool,
    /// What comes back comes back anywhere, not in its old place.
    pub reorders: bool,
    /// How often, of a thousand messages, it keeps one more copy of what it is sent, or delivers what was settled.
    pub duplicates: u16,
    /// How often, of a thousand calls, it fails before it has done anything, or after it has done all of it or a part.
    pub failures: u16,
}

impl FaultProfile {
    /// Without weaknesses: leases and nothing else.
    pub const PLAIN: Self = Self {
        expires_messages: false,
        delays: true,
        connection_bound: false,
        ignores_hints: false,
        reorders: false,
        duplicates: 0,
        failures: 0,
    };
}

/// The broker's side: its queues, for any number of connections.
#[derive(Debug)]
pub struct FakeServer {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    connections: AtomicU64,
}

#[derive(Debug)]
struct State {
    faults: FaultProfile,
    random: fastrand::Rng,
    queues: HashMap<QueueKey, Queue>,
    /// The last number of anything: of a place, of a delivery.
    last: u64,
}

#[derive(Debug, Default)]
struct Queue {
    /// By their places.
    ready: BTreeMap<u64, Kept>,
    /// By the time at which they are due, and their places.
    delayed: BTreeMap<(Timestamp, u64), Kept>,
    /// By their deliveries' numbers.
    held: HashMap<u64, Held>,
    /// When deliveries come back, and their numbers. An entry may outlive its delivery, or be too early.
    ends: BTreeMap<(Timestamp, u64), ()>,
}

#[derive(Debug, Clone)]
struct Kept {
    envelope: Envelope,
    /// When its life ends, by the broker's clock.
    ends: Timestamp,
}

#[derive(Debug)]
struct Held {
    place: u64,
    until: Timestamp,
    connection: u64,
    kept: Kept,
}

impl FakeServer {
    /// A broker without queues. The seed decides which calls fail, and which messages are doubled.
    pub fn new(clock: Arc<dyn Clock>, faults: FaultProfile, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            clock,
            state: Mutex::new(State {
                faults,
                random: fastrand::Rng::with_seed(seed),
                queues: HashMap::new(),
                last: 0,
            }),
            connections: AtomicU64::new(0),
        })
    }

    /// A new connection.
    pub fn connect(self: &Arc<Self>) -> FakeBroker {
        FakeBroker {
            server: Arc::clone(self),
            number: self.connections.fetch_add(1, Ordering::Relaxed),
            closed: AtomicBool::new(false),
        }
    }

    /// Changes what kind of broker it is from now on.
    pub fn turn_into(&self, faults: FaultProfile) {
        self.state().faults = faults;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives back what a connection holds, where deliveries belong to connections.
    fn let_go(&self, connection: u64) {
        let mut state = self.state();
        if !state.faults.connection_bound {
            return;
        }
        let names: Vec<_> = state.queues.keys().cloned().collect();
        for name in names {
            let queue = state.queues.entry(name.clone()).or_default();
            let of_it = queue
                .held
                .iter()
                .filter(|(_, h)| h.connection == connection);
            let numbers: Vec<_> = of_it.map(|(number, _)| *number).collect();
            for number in numbers {
                state.give_back(&name, number);
            }
        }
    }
}

impl State {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn chance(&mut self, of_a_thousand: u16) -> bool {
        of_a_thousand > 0 && self.random.u16(..1000) < of_a_thousand
    }

    /// Lets time do its work on a queue: what is due or not settled in time becomes ready, what has ended goes.
    fn settle(&mut self, name: &QueueKey, now: Timestamp) {
        let queue = self.queues.entry(name.clone()).or_default();
        while let Some(entry) = queue.delayed.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let ((_, place), kept) = entry.remove_entry();
            make_ready(queue, place, kept);
        }
        let mut back = Vec::new();
        while let Some(entry) = queue.ends.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let ((_, number), ()) = entry.remove_entry();
            match queue.held.get(&number) {
                Some(held) if held.until <= now => back.push(number),
                _ => {}
            }
        }
        for number in back {
            self.give_back(name, number);
        }
        if self.faults.expires_messages {
            let queue = self.queues.entry(name.clone()).or_default();
            queue.ready.retain(|_, kept| kept.ends > now);
            queue.delayed.retain(|_, kept| kept.ends > now);
        }
    }

    /// Makes a held message ready again.
    fn give_back(&mut self, name: &QueueKey, number: u64) {
        let scrambled = self.faults.reorders.then(|| self.random.u64(..=self.last));
        let queue = self.queues.entry(name.clone()).or_default();
        if let Some(held) = queue.held.remove(&number) {
            make_ready(queue, scrambled.unwrap_or(held.place), held.kept);
        }
    }

    fn add(&mut self, name: &QueueKey, envelope: Envelope, now: Timestamp) {
        let place = self.next();
        let delay = envelope.message.delay;
        let waits = self.faults.delays && !delay.is_zero();
        let ends = now.after(envelope.message.remaining_ttl);
        let kept = Kept { envelope, ends };
        let queue = self.queues.entry(name.clone()).or_default();
        if waits {
            queue.delayed.insert((now.after(delay), place), kept);
        } else {
            make_ready(queue, place, kept);
        }
    }
}

/// Puts a message at a place, or behind what is there.
fn make_ready(queue: &mut Queue, mut place: u64, kept: Kept) {
    while queue.ready.contains_key(&place) {
        place += 1;
    }
    queue.ready.insert(place, kept);
}

/// A connection to a [`FakeServer`]. Dropping it is the death of a server: nothing is said to the broker, which finds
/// out by itself.
#[derive(Debug)]
pub struct FakeBroker {
    server: Arc<FakeServer>,
    number: u64,
    closed: AtomicBool,
}

impl Drop for FakeBroker {
    fn drop(&mut self) {
        self.server.let_go(self.number);
    }
}

/// What a call does in the end.
enum Fate {
    Succeeds,
    FailsBefore,
    FailsAfter,
}

fn failure() -> Error {
    Error::new(ErrorKind::Unavailable, "the broker does not answer")
}

impl FakeBroker {
    /// The state, brought up to date, and what will come of the call.
    fn enter(&self, queue: &QueueKey) -> Result<(MutexGuard<'_, State>, Timestamp, Fate)> {
        if self.closed.load(Ordering::Acquire) {
            return Err(failure());
        }
        let now = self.server.clock.now();
        let mut state = self.server.state();
        state.settle(queue, now);
        let failures = state.faults.failures;
        let fate = match (state.chance(failures), state.random.bool()) {
            (false, _) => Fate::Succeeds,
            (true, false) => Fate::FailsBefore,
            (true, true) => Fate::FailsAfter,
        };
        Ok((state, now, fate))
    }

    /// Does something to each delivery that this connection may speak of. What is not there any more is passed by.
    fn hint(
        &self,
        queue: &QueueKey,
        receipts: &[Receipt],
        mut act: impl FnMut(&mut State, u64, Timestamp),
    ) -> Result<()> {
        let (mut state, now, fate) = self.enter(queue)?;
        if state.faults.ignores_hints {
            return Ok(());
        }
        let part = match fate {
            Fate::FailsBefore => return Err(failure()),
            Fate::FailsAfter => state.random.usize(..=receipts.len()),
            Fate::Succeeds => receipts.len(),
        };
        for receipt in &receipts[..part] {
            let Ok(number) = receipt.0.as_ref().try_into().map(u64::from_be_bytes) else {
                continue;
            };
            let held = state.queues.get(queue).map(|queue| &queue.held);
            if held.is_some_and(|held| held.contains_key(&number)) {
                act(&mut state, number, now);
            }
        }
        match fate {
            Fate::Succeeds => Ok(()),
            _ => Err(failure()),
        }
    }
}

#[async_trait]
impl LeaseBroker for FakeBroker {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            fifo: !self.server.state().faults.reorders,
            durable: false,
            ..Capabilities::FULL
        }
    }

    fn expires_messages(&self) -> bool {
        self.server.state().faults.expires_messages
    }

    fn adopts(&self) -> bool {
        false
    }

    fn missing_after(&self) -> Option<Duration> {
        None
    }

    fn time_limit(&self) -> Duration {
        Duration::from_secs(2)
    }

    async fn ping(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(failure());
        }
        Ok(())
    }

    async fn can_send(&self, _: &QueueKey) -> Result<()> {
        Ok(())
    }

    async fn send(&self, queue: &QueueKey, batch: Vec<Envelope>) -> Result<()> {
        let (mut state, now, fate) = self.enter(queue)?;
        let part = match fate {
            Fate::FailsBefore => return Err(failure()),
            Fate::FailsAfter => state.random.usize(..=batch.len()),
            Fate::Succeeds => batch.len(),
        };
        for envelope in batch.into_iter().take(part) {
            let duplicates = state.faults.duplicates;
            if state.chance(duplicates) {
                state.add(queue, envelope.clone(), now);
            }
            state.add(queue, envelope, now);
        }
        match fate {
            Fate::Succeeds => Ok(()),
            _ => Err(failure()),
        }
    }

    async fn receive(
        &self,
        queue: &QueueKey,
        max: usize,
        visibility: Duration,
    ) -> Result<Vec<Delivery>> {
        let (mut state, now, fate) = self.enter(queue)?;
        if matches!(fate, Fate::FailsBefore) {
            return Err(failure());
        }
        let mut got = Vec::new();
        while got.len() < max {
            let number = state.next();
            let until = now.after(visibility);
            let Some(queue) = state.queues.get_mut(queue) else {
                break;
            };
            let Some((place, kept)) = queue.ready.pop_first() else {
                break;
            };
            got.push(Delivery {
                message: kept.envelope.message.clone(),
                posted: kept.envelope.posted,
                receipt: Receipt(number.to_be_bytes().to_vec().into()),
                awaits_record: true,
            });
            queue.ends.insert((until, number), ());
            let connection = self.number;
            let held = Held {
                place,
                until,
                connection,
                kept,
            };
            queue.held.insert(number, held);
        }
        match fate {
            Fate::Succeeds => Ok(got),
            _ => Err(failure()),
        }
    }

    async fn extend(
        &self,
        queue: &QueueKey,
        receipts: &[Receipt],
        visibility: Duration,
    ) -> Result<()> {
        self.hint(queue, receipts, |state, number, now| {
            let until = now.after(visibility);
            if let Some(queue) = state.queues.get_mut(queue)
                && let Some(held) = queue.held.get_mut(&number)
            {
                held.until = until;
                queue.ends.insert((until, number), ());
            }
        })
    }

    async fn ack(&self, queue: &QueueKey, receipts: &[Receipt]) -> Result<()> {
        self.hint(queue, receipts, |state, number, _| {
            let duplicates = state.faults.duplicates;
            if state.chance(duplicates) {
                state.give_back(queue, number);
            } else if let Some(queue) = state.queues.get_mut(queue) {
                queue.held.remove(&number);
            }
        })
    }

    async fn release(&self, queue: &QueueKey, receipts: &[Receipt]) -> Result<()> {
        self.hint(queue, receipts, |state, number, _| {
            state.give_back(queue, number);
        })
    }

    async fn depth(&self, queue: &QueueKey) -> Result<Depth> {
        let (state, _, fate) = self.enter(queue)?;
        if !matches!(fate, Fate::Succeeds) {
            return Err(failure());
        }
        let depth = state.queues.get(queue).map(|queue| Depth {
            ready: (queue.ready.len() + queue.delayed.len()) as u64,
            held: Some(queue.held.len() as u64),
            held_here: queue.held.len() as u64,
            silent: None,
        });
        Ok(depth.unwrap_or(Depth {
            held: Some(0),
            ..Depth::default()
        }))
    }

    async fn purge(&self, queue: &QueueKey) -> Result<()> {
        let (mut state, _, fate) = self.enter(queue)?;
        if matches!(fate, Fate::FailsBefore) {
            return Err(failure());
        }
        if let Some(queue) = state.queues.get_mut(queue) {
            queue.ready.clear();
            queue.delayed.clear();
        }
        match fate {
            Fate::Succeeds => Ok(()),
            _ => Err(failure()),
        }
    }

    async fn drop_queue(&self, queue: &QueueKey) -> Result<()> {
        self.purge(queue).await
    }

    async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        self.server.let_go(self.number);
        Ok(())
    }
}
