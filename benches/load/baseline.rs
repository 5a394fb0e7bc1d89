//! The baseline: a server with the API's paths and sizes that does nothing.
//!
//! Plain `axum::serve`, as anyone would write it: it routes, reads the whole body, and sends a prepared answer of the
//! size of the real one, headers included. It parses nothing and keeps nothing, so what a real server needs beyond it
//! is the cost of the messages. Which answer fits is told by the route and by what is cheapest to look at: the length
//! of a post, the text of a query. A change to the real answers wants the same change here; the tables' last column
//! shows whether the sizes still agree.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::header::{CONTENT_TYPE, HeaderName, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, post};
use tokio::net::TcpListener;

use crate::Result;
use crate::zaqar::{BATCH, Queue, event, messages};

/// An id as long as the real ones; of messages, claims and requests.
const ID: &str = "01939f5c-6d1e-7a43-9b5c-0242ac120002";

/// A page's marker as long as those of the embedded store.
const MARKER: &str = "1099511627776";

const REQUEST_ID: HeaderName = HeaderName::from_static("x-openstack-request-id");

/// A prepared answer. Handing it out copies no bytes but those of the socket.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: StatusCode,
    request_id: HeaderValue,
    location: Option<HeaderValue>,
    body: Bytes,
}

impl Reply {
    pub(crate) fn new(status: StatusCode, location: &str, body: &str) -> Result<Self> {
        let location = (!location.is_empty()).then(|| location.parse());
        Ok(Self {
            status,
            request_id: format!("req-{ID}").parse()?,
            location: location.transpose()?,
            body: Bytes::from(body.to_owned()),
        })
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response =
            (self.status, [(REQUEST_ID, self.request_id)], self.body).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::NO_CONTENT {
            headers.remove(CONTENT_TYPE);
        } else {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(location) = self.location {
            headers.insert(LOCATION, location);
        }
        response
    }
}

/// Every answer of the baseline, made once.
#[derive(Debug)]
struct Replies {
    versions: Reply,
    /// By the length of the request's body.
    posted: BTreeMap<usize, Reply>,
    /// By the query.
    claimed: BTreeMap<&'static str, Reply>,
    page: Reply,
    message: Reply,
    popped: Reply,
    nothing: Reply,
}

impl Replies {
    fn prepare() -> Result<Self> {
        let queue = Queue::fresh();
        let path = queue.path();
        let free = message(path, "");
        let page_of_ten = [free.as_str(); 10].join(", ");
        let query = "limit=10&echo=true&include_delayed=true";
        let next =
            format!(r#"{{"rel": "next", "href": "{path}/messages?{query}&marker={MARKER}"}}"#);
        let page = format!(r#"{{"messages": [{page_of_ten}], "links": [{next}]}}"#);
        let popped = format!(
            r#"{{"messages": [{{"id": "{ID}", "age": 0, "ttl": 3600, "body": {}, "claim_id": "{ID}", "claim_count": 0}}]}}"#,
            event()
        );
        Ok(Self {
            versions: Reply::new(StatusCode::MULTIPLE_CHOICES, "", "{}")?,
            posted: BTreeMap::from([posted(path, 1)?, posted(path, 10)?, posted(path, BATCH)?]),
            claimed: BTreeMap::from([
                ("limit=1", claimed(path, 1)?),
                ("limit=10", claimed(path, 10)?),
            ]),
            page: Reply::new(StatusCode::OK, "", &page)?,
            message: Reply::new(StatusCode::OK, "", &free)?,
            popped: Reply::new(StatusCode::OK, "", &popped)?,
            nothing: Reply::new(StatusCode::NO_CONTENT, "", "")?,
        })
    }
}

/// A message as listed; `query` is what its address ends in.
fn message(path: &str, query: &str) -> String {
    format!(
        r#"{{"id": "{ID}", "href": "{path}/messages/{ID}{query}", "ttl": 3600, "age": 0, "body": {}}}"#,
        event()
    )
}

fn posted(path: &str, count: usize) -> Result<(usize, Reply)> {
    let location = format!("{path}/messages?ids={}", vec![ID; count].join(","));
    let resource = format!(r#""{path}/messages/{ID}""#);
    let body = format!(r#"{{"resources": [{}]}}"#, vec![resource; count].join(", "));
    let reply = Reply::new(StatusCode::CREATED, &location, &body)?;
    Ok((messages(count).len(), reply))
}

fn claimed(path: &str, count: usize) -> Result<Reply> {
    let message = message(path, &format!("?claim_id={ID}"));
    let body = format!(r#"{{"messages": [{}]}}"#, vec![message; count].join(", "));
    Reply::new(StatusCode::CREATED, &format!("{path}/claims/{ID}"), &body)
}

/// Serves until it is killed, with the runtime that a server has by default.
pub(crate) fn serve(address: SocketAddr) -> Result<()> {
    let replies = Arc::new(Replies::prepare()?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        axum::serve(listener, router(replies)).await?;
        Ok(())
    })
}

/// The real service's paths, so that finding a route costs the same.
fn router(replies: Arc<Replies>) -> Router {
    Router::new()
        .route(
            "/",
            get(async |State(replies): Replying| replies.versions.clone()),
        )
        .route("/v2/", any(nothing))
        .route("/v2/ping", any(nothing))
        .route("/v2/health", any(nothing))
        .route("/v2/queues", any(nothing))
        .route("/v2/queues/{queue}", any(nothing))
        .route("/v2/queues/{queue}/stats", any(nothing))
        .route("/v2/queues/{queue}/purge", any(nothing))
        .route("/v2/queues/{queue}/share", any(nothing))
        .route(
            "/v2/queues/{queue}/messages",
            post(post_messages).get(list).delete(delete_messages),
        )
        .route(
            "/v2/queues/{queue}/messages/{message}",
            get(get_message).delete(nothing),
        )
        .route("/v2/queues/{queue}/claims", post(claim))
        .route("/v2/queues/{queue}/claims/{claim}", delete(nothing))
        .route("/v2/queues/{queue}/subscriptions", any(nothing))
        .route(
            "/v2/queues/{queue}/subscriptions/{subscription}",
            any(nothing),
        )
        .with_state(replies)
}

type Replying = State<Arc<Replies>>;

/// Nothing is prepared for a request that the generator never sends.
type Known = std::result::Result<Reply, StatusCode>;

async fn nothing(State(replies): Replying, _: Bytes) -> Reply {
    replies.nothing.clone()
}

async fn post_messages(State(replies): Replying, body: Bytes) -> Known {
    let reply = replies.posted.get(&body.len());
    reply.cloned().ok_or(StatusCode::NOT_IMPLEMENTED)
}

async fn list(State(replies): Replying, _: Bytes) -> Reply {
    replies.page.clone()
}

async fn get_message(State(replies): Replying, _: Bytes) -> Reply {
    replies.message.clone()
}

async fn delete_messages(State(replies): Replying, RawQuery(query): RawQuery, _: Bytes) -> Reply {
    match query {
        Some(query) if query.starts_with("pop=") => replies.popped.clone(),
        _ => replies.nothing.clone(),
    }
}

async fn claim(State(replies): Replying, RawQuery(query): RawQuery, _: Bytes) -> Known {
    let reply = replies.claimed.get(query.as_deref().unwrap_or_default());
    reply.cloned().ok_or(StatusCode::NOT_IMPLEMENTED)
}
