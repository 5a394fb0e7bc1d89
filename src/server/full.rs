//! Turning away a connection for which there is no place.
//!
//! It is told so, in HTTP, before anything is read: a client takes that for the answer to its first request. What it has
//! sent is read for a moment, as the system would otherwise throw the answer away together with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::table::Full;

/// Connections that are turned away at once; any more are closed without a word.
const MAX_CONCURRENT: usize = 64;
/// For how long one of them is waited for.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How many connections are being turned away.
#[derive(Debug, Clone, Default)]
pub(super) struct TurnedAway(Arc<AtomicUsize>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place among those that are turned away.
struct Turn(TurnedAway);

/// Answers 503 to whatever is asked, and closes the connection.
pub(super) fn turn_away(mut stream: TcpStream, full: Full, count: &TurnedAway) {
    let before = count.0.fetch_add(1, Ordering::Relaxed);
    let turn = Turn(count.clone());
    if before >= MAX_CONCURRENT {
        return;
    }
    tokio::spawn(async move {
        let answer = answer(full);
        let telling = async {
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await?;
            let mut unread = [0; 4096];
            while stream.read(&mut unread).await? > 0 {}
            std::io::Result::Ok(())
        };
        if let Ok(Err(error)) = tokio::time::timeout(CLOSE_TIMEOUT, telling).await {
            tracing::debug!(%error, "a connection that was turned away ended early");
        }
        drop(turn);
    });
}

fn answer(full: Full) -> String {
    let sentence = match full {
        Full::All => "The service has as many connections as it may have.",
        Full::Address => "The service has as many connections from this address as it may have.",
    };
    let document = format!(
        r#"{{"title": "Service temporarily unavailable", "description": "{sentence} Please try again in a few seconds."}}"#
    );
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 2\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{document}",
        document.len()
    )
}
