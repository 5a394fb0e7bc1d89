//! Emptying a queue, without taking what comes after.
//!
//! SQS has an action for that, `PurgeQueue`, and it is not used: it works for up to a minute and takes messages that are
//! sent meanwhile, also those sent after it was called. Instead messages are received and deleted, ten at a time, and
//! what turns out to be newer than the purge is given back. "Newer" is by the clock of SQS alone: its `SentTimestamp`
//! against the moment of the first receive, which SQS tells with any message that nobody had received before.
//!
//! It costs two requests for ten messages, and ends with a receive that finds nothing though SQS has asked all of its
//! servers (a wait of a second makes it do so).

use std::time::Duration;

use aws_sdk_sqs::types::{Message, MessageSystemAttributeName as System};
use futures_util::future::try_join_all;
use isimud_contract::{Error, ErrorKind};
use tokio::time::Instant;

use crate::error::Fault;
use crate::queue::Queue;
use crate::receiving::receive;

/// How long messages are hidden that are about to be deleted, or to be given back, in seconds.
const HIDE_SECS: i32 = 60;

/// How long one call goes on.
const PURGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Receives at once, once it is known that there is much to delete.
const MAX_CONCURRENT: usize = 8;

/// Rounds with nothing but what is newer, after which there is nothing else: while posts go on, none is empty.
const MAX_NEWER_ROUNDS: usize = 3;

/// Deletes what was sent before now. `Unavailable` where there is too much for one call; another goes on there.
pub(crate) async fn drain(queue: &Queue) -> Result<(), Fault> {
    let until = Instant::now() + PURGE_TIMEOUT;
    let mut newer = Vec::new();
    let outcome = delete_older(queue, until, &mut newer).await;
    let given_back = queue
        .hiding
        .put(newer.into_iter().map(|handle| (handle, 0)));
    if let Err(error) = given_back.await {
        tracing::warn!(%error, name = queue.queue_info.name, "messages newer than a purge stay hidden for a minute");
    }
    outcome
}

async fn delete_older(queue: &Queue, until: Instant, newer: &mut Vec<String>) -> Result<(), Fault> {
    let mut begun = None;
    let (mut abreast, mut only_newer) = (1, 0);
    loop {
        let wait = Duration::from_secs(1);
        let receives = (0..abreast).map(|_| receive(queue, 10, HIDE_SECS, wait));
        let got: Vec<Message> = try_join_all(receives)
            .await?
            .into_iter()
            .flatten()
            .collect();
        let begun = *begun.get_or_insert_with(|| first_receive(&got));
        let (empty, many) = (got.is_empty(), got.len() >= 10);
        let mut older = Vec::new();
        for message in got {
            let is_newer = sent(&message).is_some_and(|sent| sent > begun);
            let Some(handle) = message.receipt_handle else {
                continue;
            };
            if is_newer {
                newer.push(handle);
            } else {
                older.push(handle);
            }
        }
        only_newer = if older.is_empty() { only_newer + 1 } else { 0 };
        if empty || only_newer == MAX_NEWER_ROUNDS {
            return Ok(());
        }
        queue.settling.put(older).await.map_err(Fault::other)?;
        if Instant::now() > until {
            let sentence =
                "there is more in the queue than one purge deletes from SQS; another one goes on";
            return Err(Fault::other(Error::new(ErrorKind::Unavailable, sentence)));
        }
        abreast = if many { MAX_CONCURRENT } else { 1 };
    }
}

fn number(message: &Message, attribute: &System) -> Option<i64> {
    message.attributes.as_ref()?.get(attribute)?.parse().ok()
}

fn sent(message: &Message) -> Option<i64> {
    number(message, &System::SentTimestamp)
}

/// When these messages were received, by SQS's clock: what it says of those that nobody had received before, or else
/// when the youngest of them was sent.
fn first_receive(got: &[Message]) -> i64 {
    let first = |message: &Message| {
        let count = number(message, &System::ApproximateReceiveCount)?;
        let at = number(message, &System::ApproximateFirstReceiveTimestamp)?;
        (count == 1).then_some(at)
    };
    let at = got.iter().filter_map(first).min();
    at.or_else(|| got.iter().filter_map(sent).max())
        .unwrap_or(i64::MAX)
}
