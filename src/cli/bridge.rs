//! `isimud bridge`: asks a running service for a bridge, again and again for as long as it is wanted, and tells how it
//! goes. A service that is restarted meanwhile is waited for.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::client::{AdminEndpoint, RequestError, ask};
use super::{Failure, POLL_INTERVAL, ProgressLine};

/// Between two looks while a service does not answer.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Looks in a row that must find nothing left.
const EMPTY_POLLS: u32 = 2;

/// Have messages flow from one queue to another, until the first is empty.
#[derive(Debug, Args)]
pub(crate) struct Bridge {
    /// The queue that is emptied. The last `/` separates project and queue.
    #[arg(long, value_name = "PROJECT/QUEUE")]
    from: String,
    /// The queue that gets its messages; it is made when it does not exist.
    #[arg(long, value_name = "PROJECT/QUEUE")]
    to: String,
    /// Go on when the first queue is empty, until stopped.
    #[arg(long)]
    follow: bool,
    /// Messages a second, at most.
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// The queue for messages that the target refuses; without it the bridge ends at the first of them.
    #[arg(long, value_name = "PROJECT/QUEUE")]
    dead_letter: Option<String>,
    #[command(flatten)]
    endpoint: AdminEndpoint,
}

/// Adds up what servers tell, each of which begins at nothing.
#[derive(Default)]
struct Total {
    before: u64,
    last: u64,
}

impl Total {
    fn add(&mut self, told: &Value) -> u64 {
        let told = told.as_u64().unwrap_or_default();
        if told < self.last {
            self.before += self.last;
        }
        self.last = told;
        self.before + self.last
    }
}

pub(crate) async fn bridge(bridge: Bridge) -> Result<(), Failure> {
    let Bridge {
        from,
        to,
        follow,
        rate,
        dead_letter,
        endpoint,
    } = bridge;
    let asked = json!({"from": from, "to": to, "rate": rate, "dead_letter": dead_letter});
    let named = json!({"from": from, "to": to});
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let watched = watch(&endpoint, &asked, follow);
    let outcome = tokio::select! {
        outcome = watched => outcome,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    // A service that does not answer ends it by itself, when it is asked for no more.
    match ask(&endpoint, "DELETE", "/bridges", &named).await {
        Err(RequestError::Refused(why)) if outcome.is_ok() && !why.contains("is a rule") => {
            Err(why.into())
        }
        _ => Ok(outcome?),
    }
}

/// Asks and tells until nothing is left, or the bridge stops.
async fn watch(endpoint: &AdminEndpoint, asked: &Value, follow: bool) -> Result<(), String> {
    let (mut crossed, mut refused) = (Total::default(), Total::default());
    let (mut line, mut empty, mut is_first) = (ProgressLine::default(), 0, true);
    loop {
        let answer = match ask(endpoint, "POST", "/bridges", asked).await {
            Ok(answer) => answer,
            Err(RequestError::NoAnswer(why)) if is_first => return Err(why),
            Err(RequestError::NoAnswer(_) | RequestError::Busy(_)) => {
                line.show("the service does not answer; waiting for it");
                empty = 0;
                tokio::time::sleep(RETRY_DELAY).await;
                continue;
            }
            Err(RequestError::Refused(why)) => return Err(why),
        };
        is_first = false;
        let (crossed, refused) = (
            crossed.add(&answer["crossed"]),
            refused.add(&answer["dead_lettered"]),
        );
        line.show(&told(&answer, crossed, refused));
        if answer["state"] == "stopped" {
            line.end();
            return Err(answer["error"].as_str().unwrap_or("it stopped").into());
        }
        empty = if answer["done"] == true { empty + 1 } else { 0 };
        if !follow && empty >= EMPTY_POLLS {
            line.end();
            return Ok(());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn told(answer: &Value, crossed: u64, refused: u64) -> String {
    let mut text = format!("{crossed} messages transferred");
    if refused > 0 {
        text.push_str(&format!(", {refused} were refused"));
    }
    if let Some(waiting) = answer["waiting"].as_u64() {
        text.push_str(&format!(", {waiting} wait"));
    }
    match (answer["state"].as_str(), answer["error"].as_str()) {
        (_, Some(error)) => text.push_str(&format!("; held up: {error}")),
        (Some("elsewhere"), None) => text.push_str("; another server has it"),
        _ => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_told_before_its_restart_counts() {
        let mut total = Total::default();
        let told: Vec<u64> = [3, 5, 5, 0, 2, 7, 1]
            .map(|told| total.add(&json!(told)))
            .to_vec();
        assert_eq!(told, [3, 5, 5, 5, 7, 12, 13]);
    }
}
