//! Moves, for operators.
//!
//! | request | what it does | needs |
//! |---|---|---|
//! | `POST /moves/queue {"project", "queue", "to", "rate"?}` | has a queue move | operator |
//! | `GET /moves/queue?project=P&queue=Q` | where its messages are, and why they are not carried on where that is so | viewer |
//! | `POST /moves/pool {"pool", "to"?, "rate"?}` | has everything leave a pool | admin, of every project |
//! | `GET /moves/pool?pool=POOL` | what is left in it | viewer, of every project |
//!
//! The store of the configuration is called `default`.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use isimud_contract::{
    Error, Placement, PoolName, ProjectId, QueueKey, QueueName, Result, StoreId,
};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::json;

use super::change::Change;
use super::guard::Operator;
use super::tokens::Role;
use super::{answer, audit};
use crate::catalogue::DEFAULT;
use crate::http::App;

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/moves/queue", get(place).post(move_queue))
        .route("/moves/pool", get(left).post(drain))
}

type Asked = (State<Arc<App>>, Extension<Operator>, RawQuery);
type Told<T> = (State<Arc<App>>, Extension<Operator>, Change<T>);

/// A queue that is to be elsewhere.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Move {
    project: String,
    queue: String,
    to: String,
    /// Messages a second, at the most; 0 for as fast as the stores are.
    rate: Option<u32>,
}

/// A pool that is to be empty.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Drain {
    pool: String,
    to: Option<String>,
    /// As for one queue, for each.
    rate: Option<u32>,
}

async fn place((State(app), Extension(operator), RawQuery(query)): Asked) -> Response {
    answer(
        async {
            operator.needs(Role::Viewer)?;
            let queue = key(&wanted(&query, "project")?, &wanted(&query, "queue")?)?;
            operator.needs_project(&queue.project)?;
            let place = app.messaging.placement(&queue).await?;
            let stalled = app.messaging.stalled(&queue);
            let left = match app.messaging.backlog(&queue).await {
                // What stops a move may keep its messages from being counted, too.
                Err(_) if stalled.is_some() => None,
                left => Some(left?),
            };
            let count = left.map(|left| left.free + left.claimed);
            let mut answer = json!({"place": shown(&place), "messages": count});
            if let Some(why) = stalled {
                answer["stalled"] = why.into();
            }
            Ok(answer)
        }
        .await,
    )
}

async fn move_queue(told: Told<Move>) -> Response {
    audit::to_its_end(begin_move(told)).await
}

async fn begin_move((State(app), Extension(operator), Change(asked)): Told<Move>) -> Response {
    let done = async {
        operator.needs(Role::Operator)?;
        let queue = key(&asked.project, &asked.queue)?;
        operator.needs_project(&queue.project)?;
        let (to, rate) = (store_id(&asked.to)?, rate_limit(asked.rate));
        let place = app.messaging.move_queue(&queue, &to, rate).await?;
        Ok(json!({"place": shown(&place)}))
    }
    .await;
    let Move {
        project, queue, to, ..
    } = &asked;
    let subject = format!("queue {project}/{queue} to {to}");
    audit::tell(&operator, "move a queue", &subject, &done);
    answer(done)
}

async fn left((State(app), Extension(operator), RawQuery(query)): Asked) -> Response {
    answer(
        async {
            operator.needs(Role::Viewer)?;
            operator.needs_all_projects()?;
            let pool = store_id(&wanted(&query, "pool")?)?;
            let left = app.messaging.remaining_in(&pool).await?;
            Ok(json!({"queues": left.queues, "messages": left.messages}))
        }
        .await,
    )
}

async fn drain(told: Told<Drain>) -> Response {
    audit::to_its_end(begin_drain(told)).await
}

async fn begin_drain((State(app), Extension(operator), Change(asked)): Told<Drain>) -> Response {
    let done = async {
        operator.needs(Role::Admin)?;
        operator.needs_all_projects()?;
        let pool = store_id(&asked.pool)?;
        let to = asked.to.as_deref().map(store_id).transpose()?;
        let rate = rate_limit(asked.rate);
        let queues = app.messaging.drain(&pool, to.as_ref(), rate).await?;
        Ok(json!({"queues": queues}))
    }
    .await;
    let mut subject = format!("pool {}", asked.pool);
    if let Some(to) = &asked.to {
        subject.push_str(&format!(" to {to}"));
    }
    audit::tell(&operator, "drain a pool", &subject, &done);
    answer(done)
}

fn shown(place: &Placement) -> Vec<String> {
    let homes = place.segments().map(|segment| segment.store_id.to_string());
    homes.collect()
}

/// The value of a parameter that must be there.
fn wanted(query: &Option<String>, name: &str) -> Result<String> {
    let pairs = query.as_deref().unwrap_or_default().split('&');
    let mut values = pairs.filter_map(|pair| pair.split_once('='));
    let value = values.find(|(key, _)| *key == name);
    let (_, value) =
        value.ok_or_else(|| Error::invalid(format!("The parameter '{name}' is missing.")))?;
    Ok(percent_decode_str(value).decode_utf8_lossy().into_owned())
}

fn key(project: &str, queue: &str) -> Result<QueueKey> {
    // A topic is `~` and its name here.
    let name = QueueName::parse_stored(queue);
    ProjectId::parse(project)
        .and_then(|project| Ok(QueueKey::new(project, name?)))
        .map_err(|_| Error::invalid("The project or the queue has no name that can be."))
}

fn store_id(text: &str) -> Result<StoreId> {
    if text == DEFAULT {
        return Ok(StoreId::Default);
    }
    let pool = PoolName::parse(text).map_err(|_| Error::invalid("That is no name of a pool."))?;
    Ok(StoreId::Pool(pool))
}

fn rate_limit(rate: Option<u32>) -> Option<u32> {
    rate.filter(|rate| *rate > 0)
}
