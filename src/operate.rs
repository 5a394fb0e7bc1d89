//! What an operator asks a running service for, through its admin listener.

mod bridge;

use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::net::TcpStream;

pub(crate) use self::bridge::{Bridge, bridge};

/// Between two looks at how far it has come.
const LOOK: Duration = Duration::from_secs(1);

/// How long an answer may take: a pool of many queues is sent away in one request.
const PATIENCE: Duration = Duration::from_secs(600);

type Failure = Box<dyn std::error::Error>;

/// Where the service is, and how fast it may go.
#[derive(Debug, Args)]
pub(crate) struct Way {
    /// The admin listener of the service (what --admin-listen says there).
    #[arg(long, value_name = "ADDR")]
    admin: String,
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
        way: Way,
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
        way: Way,
    },
}

pub(crate) async fn queues(action: Queues) -> Result<(), Failure> {
    let Queues::Move {
        project,
        queue,
        to,
        way,
    } = action;
    let named = [("project", Some(project)), ("queue", Some(queue))];
    let mut asked = named.to_vec();
    asked.push(("to", Some(to)));
    asked.push(("rate", way.rate.map(|rate| rate.to_string())));
    ask(&way.admin, Method::POST, "/moves/queue", &asked).await?;
    if way.no_wait {
        return Ok(());
    }
    let mut line = Line::default();
    loop {
        let answer = ask(&way.admin, Method::GET, "/moves/queue", &named).await?;
        let place: Vec<&str> = answer["place"]
            .as_array()
            .map(|place| place.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        line.show(&format!(
            "{} messages in {}",
            answer["messages"],
            place.join(", ")
        ));
        // Segments in one store are at their goal: readers empty them in order.
        if place.windows(2).all(|two| two[0] == two[1]) {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    line.end();
    Ok(())
}

pub(crate) async fn pools(action: Pools) -> Result<(), Failure> {
    let Pools::Drain { pool, to, way } = action;
    let named = [("pool", Some(pool))];
    let mut asked = named.to_vec();
    asked.push(("to", to));
    asked.push(("rate", way.rate.map(|rate| rate.to_string())));
    let began = ask(&way.admin, Method::POST, "/moves/pool", &asked).await?;
    crate::output::line(format!("{} queues leave", began["queues"]))?;
    if way.no_wait {
        return Ok(());
    }
    let mut line = Line::default();
    loop {
        let left = ask(&way.admin, Method::GET, "/moves/pool", &named).await?;
        line.show(&format!(
            "{} queues and {} messages left",
            left["queues"], left["messages"]
        ));
        if left["queues"] == 0 {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    line.end();
    Ok(())
}

/// A line that tells how far it has come: written over on a terminal, else written when it changes.
#[derive(Default)]
struct Line {
    last: String,
}

impl Line {
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

/// Why there is no answer that would help.
enum Trouble {
    /// Nobody answers.
    Silent(String),
    /// The service cannot do it now.
    Busy(String),
    /// The service will not do it.
    Refused(String),
}

async fn ask(
    admin: &str,
    method: Method,
    path: &str,
    values: &[(&str, Option<String>)],
) -> Result<Value, Failure> {
    let asked = ask_once(admin, method, path, values).await;
    asked.map_err(|trouble| match trouble {
        Trouble::Silent(why) | Trouble::Busy(why) | Trouble::Refused(why) => why.into(),
    })
}

async fn ask_once(
    admin: &str,
    method: Method,
    path: &str,
    values: &[(&str, Option<String>)],
) -> Result<Value, Trouble> {
    let mut target = path.to_owned();
    for (name, value) in values {
        if let Some(value) = value {
            target.push(if target.contains('?') { '&' } else { '?' });
            let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
            target.push_str(&format!("{name}={value}"));
        }
    }
    let silent = |why: String| Trouble::Silent(why);
    let answered = tokio::time::timeout(PATIENCE, send(admin, method, &target)).await;
    let (status, document) = answered
        .map_err(|_| silent("the service does not answer".into()))?
        .map_err(|error| silent(error.to_string()))?;
    if status.is_success() {
        return Ok(document);
    }
    let why = document["error"]
        .as_str()
        .unwrap_or("the service refused it")
        .to_owned();
    Err(match status {
        StatusCode::SERVICE_UNAVAILABLE => Trouble::Busy(why),
        _ => Trouble::Refused(why),
    })
}

async fn send(admin: &str, method: Method, target: &str) -> Result<(StatusCode, Value), Failure> {
    let stream = TcpStream::connect(admin)
        .await
        .map_err(|error| format!("no admin listener answers at {admin}: {error}"))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header("host", admin)
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok((status, serde_json::from_slice(&body)?))
}
