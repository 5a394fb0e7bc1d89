//! Moves, for operators.
//!
//! | request | what it does |
//! |---|---|
//! | `POST /moves/queue?project=P&queue=Q&to=POOL[&rate=N]` | has a queue move |
//! | `GET /moves/queue?project=P&queue=Q` | where its messages are, and why they are not carried on where that is so |
//! | `POST /moves/pool?pool=POOL[&to=POOL][&rate=N]` | has everything leave a pool |
//! | `GET /moves/pool?pool=POOL` | what is left in it |
//!
//! The store of the configuration is called `default`.

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use isimud_contract::{
    Error, ErrorKind, Home, Place, PoolName, ProjectId, QueueKey, QueueName, Result,
};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::catalogue::DEFAULT;
use crate::http::App;

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/moves/queue", get(place).post(move_queue))
        .route("/moves/pool", get(left).post(drain))
}

type Asked = (State<Arc<App>>, RawQuery);

async fn place((State(app), RawQuery(query)): Asked) -> Response {
    answer(
        async {
            let queue = queue(&query)?;
            let place = app.messaging.place(&queue).await?;
            let left = app.messaging.backlog(&queue).await?;
            let mut answer = json!({"place": shown(&place), "messages": left.free + left.claimed});
            if let Some(why) = app.messaging.stalled(&queue) {
                answer["stalled"] = why.into();
            }
            Ok(answer)
        }
        .await,
    )
}

async fn move_queue((State(app), RawQuery(query)): Asked) -> Response {
    answer(
        async {
            let to = home(&query, "to")?.ok_or_else(|| missing("to"))?;
            let rate = rate(&query)?;
            let place = app.messaging.move_queue(&queue(&query)?, &to, rate).await?;
            Ok(json!({"place": shown(&place)}))
        }
        .await,
    )
}

async fn left((State(app), RawQuery(query)): Asked) -> Response {
    answer(
        async {
            let pool = home(&query, "pool")?.ok_or_else(|| missing("pool"))?;
            let left = app.messaging.left_in(&pool).await?;
            Ok(json!({"queues": left.queues, "messages": left.messages}))
        }
        .await,
    )
}

async fn drain((State(app), RawQuery(query)): Asked) -> Response {
    answer(
        async {
            let pool = home(&query, "pool")?.ok_or_else(|| missing("pool"))?;
            let (to, rate) = (home(&query, "to")?, rate(&query)?);
            let queues = app.messaging.drain(&pool, to.as_ref(), rate).await?;
            Ok(json!({"queues": queues}))
        }
        .await,
    )
}

pub(super) fn answer(answer: Result<Value>) -> Response {
    let (status, document) = match answer {
        Ok(document) => (StatusCode::OK, document),
        Err(error) => {
            let status = match error.kind() {
                ErrorKind::NotFound(_) => StatusCode::NOT_FOUND,
                ErrorKind::Invalid | ErrorKind::Unsupported => StatusCode::BAD_REQUEST,
                ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (status, json!({"error": error.to_string()}))
        }
    };
    let text = format!("{document}\n");
    (status, [(CONTENT_TYPE, "application/json")], text).into_response()
}

fn shown(place: &Place) -> Vec<String> {
    let homes = place.segments().map(|segment| segment.home.to_string());
    homes.collect()
}

pub(super) fn value(query: &Option<String>, name: &str) -> Option<String> {
    let pairs = query.as_deref()?.split('&');
    let mut values = pairs.filter_map(|pair| pair.split_once('='));
    let (_, value) = values.find(|(key, _)| *key == name)?;
    Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
}

fn missing(name: &str) -> Error {
    Error::invalid(format!("The parameter '{name}' is missing."))
}

fn queue(query: &Option<String>) -> Result<QueueKey> {
    let text = |name| value(query, name).ok_or_else(|| missing(name));
    let project = ProjectId::parse(&text("project")?);
    // A topic is `~` and its name here.
    let name = QueueName::parse_stored(&text("queue")?);
    project
        .and_then(|project| Ok(QueueKey::new(project, name?)))
        .map_err(|_| Error::invalid("The project or the queue has no name that can be."))
}

fn home(query: &Option<String>, name: &str) -> Result<Option<Home>> {
    let Some(text) = value(query, name) else {
        return Ok(None);
    };
    if text == DEFAULT {
        return Ok(Some(Home::Default));
    }
    let pool = PoolName::parse(&text).map_err(|_| Error::invalid("That is no name of a pool."))?;
    Ok(Some(Home::Pool(pool)))
}

pub(super) fn rate(query: &Option<String>) -> Result<Option<u32>> {
    let invalid = |_| Error::invalid("The rate must be a number of messages a second.");
    let rate = value(query, "rate").map(|text| text.parse::<u32>().map_err(invalid));
    Ok(rate.transpose()?.filter(|rate| *rate > 0))
}
