//! The Redis baseline: a handler that runs the driver's scripts through one shared connection, and does nothing else.
//!
//! Plain `axum::serve` and the client library's multiplexed connection, as anyone would write it. There is one queue,
//! whatever the path says; nothing is checked, no setting looked up, and of a body only what the generator puts there
//! is cut out, by its position. Answers have the form and about the size of the real ones. What a real server needs
//! beyond it is the cost of being a service on Redis.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::routing::{any, delete, get, post};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, Cmd, Script, Value};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::Result;
use crate::baseline::Reply;
use crate::zaqar::{event, messages};

macro_rules! script {
    ($file:literal) => {
        concat!(
            include_str!("../../backends/redis/src/scripts/common.lua"),
            "\n",
            include_str!(concat!("../../backends/redis/src/scripts/", $file))
        )
    };
}

/// The path that answers name.
const QUEUE: &str = "/v2/queues/load-0000000-0000";

/// What stands in a value before the body: version, moment, ttl, flags, client.
const HEAD: usize = 1 + 8 + 8 + 1 + 2 + 17;

/// How long messages and claims live here, in milliseconds.
const LIFE: f64 = 3_600_000.0;

/// Everything a handler needs, made once.
struct Scripted {
    wire: MultiplexedConnection,
    keys: [String; 8],
    post: Prepared,
    list: Prepared,
    get: Prepared,
    delete: Prepared,
    pop: Prepared,
    claim: Prepared,
    /// What a value begins with, but for what the script puts in front.
    head: Vec<u8>,
    /// A post's left, delay, age and claims.
    terms: Vec<u8>,
    /// Bytes of a post in front of the first body, of a body, and between two.
    before: usize,
    body: usize,
    between: usize,
}

/// A script's digest.
struct Prepared(String);

type Ready = State<Arc<Scripted>>;
type Answered = std::result::Result<Reply, StatusCode>;

/// Serves until it is killed, with the runtime that a server has by default.
pub(crate) fn serve(address: SocketAddr, redis: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let scripted = Arc::new(Scripted::prepare(redis).await?);
        let listener = TcpListener::bind(address).await?;
        axum::serve(listener, router(scripted)).await?;
        Ok(())
    })
}

fn router(scripted: Arc<Scripted>) -> Router {
    Router::new()
        .route(
            "/",
            get(async || Reply::new(StatusCode::MULTIPLE_CHOICES, "", "{}").or_500()),
        )
        .route("/v2/queues/{queue}", any(remove))
        .route(
            "/v2/queues/{queue}/messages",
            post(post_messages).get(list).delete(delete_messages),
        )
        .route(
            "/v2/queues/{queue}/messages/{message}",
            get(get_message).delete(delete_message),
        )
        .route("/v2/queues/{queue}/claims", post(claim))
        .route("/v2/queues/{queue}/claims/{claim}", delete(nothing))
        .with_state(scripted)
}

impl Scripted {
    async fn prepare(redis: &str) -> Result<Self> {
        let patience =
            AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(60)));
        let client = Client::open(redis)?;
        let mut wire = client
            .get_multiplexed_async_connection_with_config(&patience)
            .await?;
        let mut prepared = Vec::new();
        for text in [
            script!("post.lua"),
            script!("list.lua"),
            script!("get.lua"),
            script!("delete.lua"),
            script!("pop.lua"),
            script!("claim.lua"),
        ] {
            let script = Script::new(text);
            script.prepare_invoke().load_async(&mut wire).await?;
            prepared.push(Prepared(script.get_hash().to_owned()));
        }
        let [post, list, get, delete, pop, claim] =
            <[Prepared; 6]>::try_from(prepared).map_err(|_| "there are six scripts")?;
        let mut head = (LIFE as u64).to_be_bytes().to_vec();
        head.extend([0, 0, 17, b'u']);
        head.extend(Uuid::from_u128(7).as_bytes());
        let mut terms = LIFE.to_be_bytes().to_vec();
        terms.resize(28, 0);
        let (one, two, body) = (messages(1), messages(2), event().len());
        Ok(Self {
            wire,
            keys: ["d", "f", "h", "w", "t", "m", "c", "r"]
                .map(|key| format!("isimud:{{bench/load-0000000-0000}}{key}")),
            post,
            list,
            get,
            delete,
            pop,
            claim,
            head,
            terms,
            before: one.find(&event()).ok_or("a post has a body")?,
            body,
            between: two.len() - one.len() - body,
        })
    }

    fn call(&self, Prepared(digest): &Prepared) -> Cmd {
        let mut call = redis::cmd("EVALSHA");
        call.arg(digest).arg(self.keys.len()).arg(&self.keys).arg(0);
        call
    }

    /// The answer's values.
    async fn run(&self, call: &Cmd) -> std::result::Result<Vec<Value>, StatusCode> {
        match self.wire.clone().req_packed_command(call).await {
            Ok(Value::Array(values)) => Ok(values),
            Ok(Value::Int(_) | Value::Okay) => Ok(Vec::new()),
            _ => Err(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

async fn nothing() -> Answered {
    Reply::new(StatusCode::NO_CONTENT, "", "").or_500()
}

async fn remove(State(scripted): Ready) -> Answered {
    let mut call = redis::cmd("UNLINK");
    call.arg(&scripted.keys);
    scripted.run(&call).await?;
    nothing().await
}

async fn post_messages(State(scripted): Ready, body: Bytes) -> Answered {
    let mut call = scripted.call(&scripted.post);
    let (mut resources, mut ids) = (String::new(), String::new());
    let mut at = scripted.before;
    while at + scripted.body <= body.len() {
        let id = Uuid::now_v7();
        let value = [&scripted.head[..], &body[at..at + scripted.body]].concat();
        call.arg(id.as_bytes()).arg(&scripted.terms).arg(value);
        if !ids.is_empty() {
            resources.push_str(", ");
            ids.push(',');
        }
        write!(resources, r#""{QUEUE}/messages/{id}""#).or_500()?;
        write!(ids, "{id}").or_500()?;
        at += scripted.body + scripted.between;
    }
    scripted.run(&call).await?;
    let location = format!("{QUEUE}/messages?ids={ids}");
    let body = format!(r#"{{"resources": [{resources}]}}"#);
    Reply::new(StatusCode::CREATED, &location, &body).or_500()
}

async fn list(State(scripted): Ready, RawQuery(query): RawQuery, _: Bytes) -> Answered {
    let after = query
        .as_deref()
        .and_then(|query| query.rsplit_once("marker="));
    let after = after.map_or_else(String::new, |(_, rank)| format!("r{rank}"));
    let mut call = scripted.call(&scripted.list);
    call.arg(after).arg(10).arg(10).arg("").arg("d");
    let values = scripted.run(&call).await?;
    let mut page = written(values.get(4..).unwrap_or_default(), "")?;
    let marker = values.get(3).and_then(bytes).unwrap_or_default();
    let marker = String::from_utf8_lossy(marker);
    write!(
        page,
        r#", "links": [{{"rel": "next", "href": "{QUEUE}/messages?limit=10&echo=true&include_delayed=true&marker={marker}"}}]}}"#
    )
    .or_500()?;
    Reply::new(StatusCode::OK, "", &page).or_500()
}

async fn get_message(
    State(scripted): Ready,
    Path((_, id)): Path<(String, String)>,
    _: Bytes,
) -> Answered {
    let mut call = scripted.call(&scripted.get);
    call.arg(id.parse::<Uuid>().or_500()?.as_bytes());
    let values = scripted.run(&call).await?;
    let mut page = written(values.get(1..).unwrap_or_default(), "")?;
    page.push('}');
    Reply::new(StatusCode::OK, "", &page).or_500()
}

async fn delete_messages(State(scripted): Ready, RawQuery(query): RawQuery, _: Bytes) -> Answered {
    let query = query.unwrap_or_default();
    if let Some(count) = query.strip_prefix("pop=") {
        let mut call = scripted.call(&scripted.pop);
        call.arg(count);
        let values = scripted.run(&call).await?;
        let mut page = written(values.get(1..).unwrap_or_default(), "")?;
        page.push('}');
        return Reply::new(StatusCode::OK, "", &page).or_500();
    }
    let ids = query.strip_prefix("ids=").unwrap_or_default();
    let mut call = scripted.call(&scripted.delete);
    call.arg("any").arg(0);
    for id in ids.split(',') {
        call.arg(id.parse::<Uuid>().or_500()?.as_bytes());
    }
    scripted.run(&call).await?;
    nothing().await
}

async fn delete_message(
    State(scripted): Ready,
    Path((_, id)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    _: Bytes,
) -> Answered {
    let mut call = scripted.call(&scripted.delete);
    match query
        .as_deref()
        .and_then(|query| query.strip_prefix("claim_id="))
    {
        Some(claim) => {
            let claim: Uuid = claim.parse().or_500()?;
            call.arg("held").arg(1).arg(claim.as_bytes());
        }
        None => {
            call.arg("free").arg(0);
        }
    }
    call.arg(id.parse::<Uuid>().or_500()?.as_bytes());
    scripted.run(&call).await?;
    nothing().await
}

async fn claim(State(scripted): Ready, RawQuery(query): RawQuery, _: Bytes) -> Answered {
    let id = Uuid::new_v4();
    let query = query.unwrap_or_default();
    let limit = query.strip_prefix("limit=").unwrap_or("10");
    let mut call = scripted.call(&scripted.claim);
    // A twelfth of the life, as the generator asks for, so that no message has to live longer.
    let span = LIFE / 12.0;
    call.arg(id.as_bytes())
        .arg(span)
        .arg(span)
        .arg(limit)
        .arg("")
        .arg("");
    let values = scripted.run(&call).await?;
    let mut page = written(
        values.get(2..).unwrap_or_default(),
        &format!("?claim_id={id}"),
    )?;
    page.push('}');
    Reply::new(StatusCode::CREATED, &format!("{QUEUE}/claims/{id}"), &page).or_500()
}

/// A script's messages as a document, but for its last brace; `query` is what their addresses end in.
fn written(rows: &[Value], query: &str) -> std::result::Result<String, StatusCode> {
    let mut page = String::with_capacity(64 + rows.len() * 512);
    page.push_str(r#"{"messages": ["#);
    for (at, row) in rows.iter().enumerate() {
        // The length of the mark, the id, the mark, the value. Nothing is delayed here.
        let (mark, row) = bytes(row).and_then(<[u8]>::split_first).or_500()?;
        let (id, row) = row.split_at_checked(16).or_500()?;
        let id = Uuid::from_slice(id).or_500()?;
        let body = row.get(usize::from(*mark) + HEAD..).or_500()?;
        let body = std::str::from_utf8(body).or_500()?;
        let comma = if at == 0 { "" } else { ", " };
        write!(
            page,
            r#"{comma}{{"id": "{id}", "href": "{QUEUE}/messages/{id}{query}", "ttl": 3600, "age": 0, "body": {body}}}"#
        )
        .or_500()?;
    }
    page.push(']');
    Ok(page)
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

/// Whatever goes wrong here is a fault of the bench, and the generator shows the status.
trait Or500<T> {
    fn or_500(self) -> std::result::Result<T, StatusCode>;
}

impl<T, E> Or500<T> for std::result::Result<T, E> {
    fn or_500(self) -> std::result::Result<T, StatusCode> {
        self.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl<T> Or500<T> for Option<T> {
    fn or_500(self) -> std::result::Result<T, StatusCode> {
        self.ok_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}
