//! What other servers changed, told at once: so that a server may remember queue records and not ask for each message.
//!
//! Every change of a record is published by the script that makes it. A listener that has lost its connection knows
//! that it may have missed something, and says so when it is lost and when it is back. A connection that died without a
//! word is found out by asking now and then.

use std::time::Duration;

use futures_util::StreamExt;
use isimud_contract::{Change, Watcher};
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};

use crate::connect::Connector;
use crate::keys::parse_tag;
use crate::pool::POOLS;
use crate::rights::NOTHING;

/// How long a silent connection is trusted, and how long it may take to answer then.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// Between two attempts to listen.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Listens for ever.
pub(crate) async fn run(mut connector: Connector, channel: String, watcher: Watcher) {
    let mut was_refused = false;
    loop {
        if let Err(error) = listen(&mut connector, &channel, &watcher).await {
            let is_refused = error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm);
            if is_refused && !was_refused {
                tracing::error!(
                    %error,
                    channel,
                    "the Redis user may not subscribe to the changes of queues: those that other servers make are seen late"
                );
            }
            was_refused = is_refused;
            tracing::debug!(%error, "lost the subscription to changes in Redis; subscribing again");
        }
        watcher(Change::All);
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

/// Listens until the connection is lost.
async fn listen(connector: &mut Connector, channel: &str, watcher: &Watcher) -> RedisResult<()> {
    let connect_timeout = connector.connect_timeout();
    let listener = within(connect_timeout, connector.pubsub()).await?;
    let (mut ask, mut hear) = listener.split();
    within(connect_timeout, ask.subscribe(channel)).await?;
    // What was remembered so far may have changed before.
    watcher(Change::All);
    loop {
        match tokio::time::timeout(ANSWER_TIMEOUT, hear.next()).await {
            Ok(Some(change)) => {
                let tag = std::str::from_utf8(change.get_payload_bytes()).unwrap_or_default();
                tell(watcher, tag);
            }
            Ok(None) => return Ok(()),
            Err(_) => within(ANSWER_TIMEOUT, ask.ping::<redis::Value>())
                .await
                .map(drop)?,
        }
    }
}

/// Passes on what was published.
fn tell(watcher: &Watcher, text: &str) {
    match parse_tag(text) {
        Some(queue) => watcher(Change::Queue(&queue)),
        None if text == POOLS => watcher(Change::Pools),
        None if text == NOTHING => {}
        None => watcher(Change::All),
    }
}

async fn within<T>(
    connect_timeout: Duration,
    work: impl Future<Output = RedisResult<T>>,
) -> RedisResult<T> {
    tokio::time::timeout(connect_timeout, work)
        .await
        .unwrap_or_else(|_| Err(RedisError::from((ErrorKind::Io, "no answer in time"))))
}
