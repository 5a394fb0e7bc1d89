//! Commands for operators: what is asked of a running service through its admin listener.

mod bridge;
mod client;
mod token;
pub(crate) mod zaqar_conf;

use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

pub(crate) use self::bridge::{Bridge, bridge};
use self::client::{AdminEndpoint, ask, look};
pub(crate) use self::token::{Token, token};

/// Between two looks at how far it has come.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

type Failure = Box<dyn std::error::Error>;

/// Where the service is, and how fast it may go.
#[derive(Debug, Args)]
pub(crate) struct AdminArgs {
    #[command(flatten)]
    endpoint: AdminEndpoint,
    /// Messages a second, at most, for each queue.
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Do not wait until it is done.
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Queues {
    /// Move a queue into another pool while it is in use.
    Move {
        /// The queue's project.
        #[arg(long)]
        project: String,
        /// The queue's name.
        #[arg(long)]
        queue: String,
        /// The pool; `default` is the store that needs no registration.
        #[arg(long, value_name = "POOL")]
        to: String,
        #[command(flatten)]
        admin_args: AdminArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Pools {
    /// Move everything out of a pool while it is in use. It takes no new queues from now on.
    Drain {
        /// The pool; `default` is the store that needs no registration.
        pool: String,
        /// Where its queues go [default: each to another pool of its flavor].
        #[arg(long, value_name = "POOL")]
        to: Option<String>,
        #[command(flatten)]
        admin_args: AdminArgs,
    },
}

pub(crate) async fn queues(action: Queues) -> Result<(), Failure> {
    let Queues::Move {
        project,
        queue,
        to,
        admin_args,
    } = action;
    let asked = json!({"project": project, "queue": queue, "to": to, "rate": admin_args.rate});
    ask(&admin_args.endpoint, "POST", "/moves/queue", &asked).await?;
    if admin_args.no_wait {
        return Ok(());
    }
    let named = [("project", project.as_str()), ("queue", &queue)];
    let mut line = ProgressLine::default();
    let arrived = loop {
        let answer = look(&admin_args.endpoint, "/moves/queue", &named).await?;
        let place: Vec<&str> = answer["place"]
            .as_array()
            .map(|place| place.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let count = answer["messages"].as_u64();
        let count = count.map_or_else(|| "an unknown number of".to_owned(), |it| it.to_string());
        let held_up = answer["stalled"].as_str();
        let held_up = held_up.map_or_else(String::new, |why| format!("; held up: {why}"));
        line.show(&format!(
            "{count} messages in {}{held_up}",
            place.join(", ")
        ));
        // Segments in one store are at their goal: readers empty them in order.
        if place.windows(2).all(|two| two[0] == two[1]) {
            break place.last().copied().unwrap_or_default().to_owned();
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    };
    line.end();
    if arrived == to {
        return Ok(());
    }
    Err(format!(
        "queue {project}/{queue} is in pool {arrived}, not in {to}: it was moved elsewhere or created anew meanwhile"
    )
    .into())
}

pub(crate) async fn pools(action: Pools) -> Result<(), Failure> {
    let Pools::Drain {
        pool,
        to,
        admin_args,
    } = action;
    let asked = json!({"pool": pool, "to": to, "rate": admin_args.rate});
    let began = ask(&admin_args.endpoint, "POST", "/moves/pool", &asked).await?;
    crate::output::line(format!("{} queues leave", began["queues"]))?;
    if admin_args.no_wait {
        return Ok(());
    }
    let mut line = ProgressLine::default();
    loop {
        let left = look(&admin_args.endpoint, "/moves/pool", &[("pool", &pool)]).await?;
        line.show(&format!(
            "{} queues and {} messages left",
            left["queues"], left["messages"]
        ));
        if left["queues"] == 0 {
            break;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    line.end();
    Ok(())
}

/// A line that tells how far it has come: written over on a terminal, else written when it changes.
#[derive(Default)]
struct ProgressLine {
    last: String,
}

impl ProgressLine {
    fn show(&mut self, text: &str) {
        let mut out = std::io::stdout();
        if out.is_terminal() {
            // Progress is no reason to end what goes on.
            drop(write!(out, "\r\x1b[K{text}").and_then(|()| out.flush()));
        } else if self.last != text {
            drop(crate::output::line(text));
        }
        text.clone_into(&mut self.last);
    }

    fn end(&self) {
        if std::io::stdout().is_terminal() && !self.last.is_empty() {
            drop(crate::output::line(""));
        }
    }
}
