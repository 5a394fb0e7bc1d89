//! What is to be sent over a socket and has not been yet: bounded in messages and in bytes.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;

use crate::http::OnTheWay;

/// Bytes that are handed over at once, unless one message has more.
const BATCH_BYTES: usize = 256 << 10;

/// A message, and what hangs on it until the system has taken it. Dropped before, it is as if it could not be sent.
#[derive(Debug)]
pub(super) struct Frame {
    message: Message,
    on_the_way: Option<OnTheWay>,
}

impl Frame {
    pub(super) fn new(message: Message, on_the_way: Option<OnTheWay>) -> Self {
        Self {
            message,
            on_the_way,
        }
    }

    pub(super) fn message(&self) -> Message {
        self.message.clone()
    }

    pub(super) fn bytes(&self) -> usize {
        self.message.len()
    }

    /// The system has taken it.
    pub(super) fn sent(mut self) {
        if let Some(on_the_way) = self.on_the_way.take() {
            on_the_way.sent();
        }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        if let Some(on_the_way) = self.on_the_way.take() {
            on_the_way.lost();
        }
    }
}

/// The messages of one socket that it has not taken yet, in order.
#[derive(Debug)]
pub(super) struct Outgoing {
    most: usize,
    most_bytes: usize,
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Frame>,
    bytes: usize,
    /// Something was dropped for want of room: from then on nothing is taken.
    is_overfull: bool,
}

/// Its socket takes what it is sent too slowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overfull;

impl Outgoing {
    pub(super) fn new(most: usize, most_bytes: usize) -> Self {
        Self {
            most,
            most_bytes,
            queue: Mutex::default(),
            wake: Notify::new(),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what nobody asked for. A single message is taken whatever its size. Where there is no room it is dropped, and
    /// whoever sends hears that the socket is to be closed.
    pub(super) fn push(&self, frame: Frame) -> Result<(), Overfull> {
        let mut queue = self.queue();
        let bytes = queue.bytes + frame.bytes();
        let is_full = queue.frames.len() >= self.most || bytes > self.most_bytes;
        if queue.is_overfull || is_full && !queue.frames.is_empty() {
            queue.is_overfull = true;
            drop(queue);
            self.wake.notify_one();
            return Err(Overfull);
        }
        Self::add(&mut queue, frame);
        drop(queue);
        self.wake.notify_one();
        Ok(())
    }

    /// Adds an answer. There is one at a time: the next request is looked at when it is sent.
    pub(super) fn answer(&self, frame: Frame) {
        Self::add(&mut self.queue(), frame);
        self.wake.notify_one();
    }

    fn add(queue: &mut Queue, frame: Frame) {
        queue.bytes += frame.bytes();
        queue.frames.push_back(frame);
    }

    /// Waits until there is something to send. May be dropped at any time.
    pub(super) async fn ready(&self) {
        loop {
            let woken = self.wake.notified();
            {
                let queue = self.queue();
                if !queue.frames.is_empty() || queue.is_overfull {
                    return;
                }
            }
            woken.await;
        }
    }

    /// Whether there is nothing to send.
    pub(super) fn is_empty(&self) -> bool {
        self.queue().frames.is_empty()
    }

    /// Takes what comes next: as much as is sent at once.
    pub(super) fn take(&self) -> Result<Vec<Frame>, Overfull> {
        let mut queue = self.queue();
        if queue.is_overfull {
            return Err(Overfull);
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(frame) = queue.frames.pop_front() {
            queue.bytes -= frame.bytes();
            bytes += frame.bytes();
            batch.push(frame);
            let next = queue.frames.front().map_or(0, Frame::bytes);
            if bytes + next > BATCH_BYTES {
                break;
            }
        }
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: usize) -> Frame {
        Frame::new(Message::Binary(vec![0; bytes].into()), None)
    }

    #[tokio::test]
    async fn what_a_socket_does_not_take_is_bounded_in_messages_and_in_bytes() {
        for (most, bytes, each, fits) in [(3, 1000, 10, 3), (100, 30, 10, 3), (100, 5, 10, 1)] {
            let outgoing = Outgoing::new(most, bytes);
            for _ in 0..fits {
                assert_eq!(outgoing.push(frame(each)), Ok(()));
            }
            assert_eq!(outgoing.push(frame(each)), Err(Overfull));
            outgoing.ready().await;
            assert!(outgoing.take().is_err(), "its socket is to be closed");
        }
    }

    #[tokio::test]
    async fn messages_are_taken_in_order_and_in_batches() {
        let outgoing = Outgoing::new(100, 10 << 20);
        for bytes in [1, BATCH_BYTES, 2, 3] {
            outgoing.push(frame(bytes)).expect("room");
        }
        let mut taken = Vec::new();
        while !outgoing.is_empty() {
            outgoing.ready().await;
            let batch = outgoing.take().expect("it is not overfull");
            taken.push(batch.iter().map(Frame::bytes).collect::<Vec<_>>());
        }
        assert_eq!(taken, [vec![1], vec![BATCH_BYTES], vec![2, 3]]);
    }
}
