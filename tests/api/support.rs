//! The words that the tests of the API are written in: an [`App`] to speak to, and the [`Answer`] that it gives.
//!
//! ```ignore
//! let app = App::new();
//! let answer = app.put("/v2/queues/fizbat", json!({"team": "billing"})).await;
//! answer.assert_status(201);
//! app.without("Client-ID").get("/v2/queues").await.assert_refused(400, "Missing header value", "…");
//! ```

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use axum::response::Response;
use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use isimud::config::{Config, Flags};
use isimud::http::Api;
use isimud_contract::{ManualClock, ProjectId, QueueKey, QueueName};
use serde_json::Value;

use crate::api::store;

/// The client that asks unless a test says otherwise.
pub(crate) const CLIENT: &str = "3381af92-2b9e-11e3-b191-71861300734c";
/// Another client, where messages must not be one's own.
pub(crate) const OTHER_CLIENT: &str = "a6fc4e0a-6d7c-4ed1-9d3b-5a6f0d2f8b11";
/// The project that it asks for.
pub(crate) const PROJECT: &str = "480924";
/// The media type of changes to queues.
pub(crate) const PATCH_MEDIA: &str = "application/openstack-messaging-v2.0-json-patch";

/// The service, and the headers that each request to it carries. A clone speaks to the same service.
#[derive(Debug, Clone)]
pub(crate) struct App {
    api: Api,
    clock: Arc<ManualClock>,
    headers: HeaderMap,
}

impl App {
    /// A service with the default configuration and an empty store.
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// The same with some keys set by an operator's file (TOML).
    pub(crate) fn with(file: &str) -> Self {
        Self::open(&store::fresh(), file)
    }

    /// A service over any store. Its time is 2026-01-01 00:00:00 UTC.
    pub(crate) fn open(store: &str, file: &str) -> Self {
        isimud_conformance::show_logs();
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("isimud.toml");
        std::fs::write(&path, file).expect("the operator's file");
        let flags = Flags {
            store: Some(store.to_owned()),
            management: store::beside(store),
            config: Some(path),
            ..Flags::default()
        };
        let config = Config::load(&flags).expect("a right configuration");
        let clock = Arc::new(ManualClock::default());
        let service = isimud::open(&config, Arc::clone(&clock) as _).expect("the service opens");
        let app = Self {
            api: service.api,
            clock,
            headers: HeaderMap::new(),
        };
        app.header("Client-ID", CLIENT)
            .header("X-Project-Id", PROJECT)
    }

    /// Begins what the service does beside requests.
    pub(crate) fn work(&self) {
        let api = self.api.clone();
        tokio::spawn(async move { api.work().await });
    }

    /// Waits until all that clients did not receive has been given back.
    pub(crate) async fn give_back(&self) {
        self.api.give_back().await;
    }

    /// Lets so many seconds pass.
    pub(crate) fn advance(&self, secs: u64) {
        let span = Duration::from_secs(secs);
        self.clock.advance(span);
        store::advance(span);
    }

    /// The same service with a header set on each request, instead of any of this name.
    pub(crate) fn header(&self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let mut app = self.clone();
        let name = HeaderName::try_from(name).expect("a header name");
        let value = HeaderValue::from_bytes(value.as_ref()).expect("a header value");
        app.headers.insert(name, value);
        app
    }

    /// The same service without a header.
    pub(crate) fn without(&self, name: &str) -> Self {
        let mut app = self.clone();
        app.headers.remove(name);
        app
    }

    /// The same service as a connection from this address sees it.
    pub(crate) fn connected_from(&self, peer: std::net::IpAddr) -> Self {
        let mut app = self.clone();
        app.api = app.api.for_peer(peer);
        app
    }

    /// The same service as an operator sees it.
    pub(crate) fn admin(&self) -> Self {
        self.header("X-Roles", "admin")
    }

    /// Registers a pool without a flavor, empty and the only one of its place. Returns its URI.
    pub(crate) async fn pool(&self, name: &str, weight: u32) -> String {
        let uri = store::fresh();
        let body = serde_json::json!({"uri": uri, "weight": weight});
        let path = format!("/v2/pools/{name}");
        self.admin().put(&path, body).await.assert_status(201);
        uri
    }

    /// Makes a flavor of pools, or adds them to it.
    pub(crate) async fn flavor(&self, name: &str, pools: &[&str]) {
        let (path, body) = (
            format!("/v2/flavors/{name}"),
            serde_json::json!({"pool_list": pools}),
        );
        self.admin().put(&path, body).await.assert_status(201);
    }

    /// Where what is posted to a queue goes: the name of its pool, or `default`. A queue that does not exist is made.
    pub(crate) async fn home_of(&self, queue: &str) -> String {
        let id = self.post_bodies(queue, [Value::from("where?")]).await;
        let path = format!("/v2/queues/{queue}/messages/{}", id[0]);
        self.delete(&path).await.assert_status(204);
        let homes = self.store_ids_of(queue).await;
        homes.last().cloned().expect("a queue has a home")
    }

    /// The pools that have messages of a queue, oldest first.
    pub(crate) async fn store_ids_of(&self, queue: &str) -> Vec<String> {
        let project = self.headers.get("X-Project-Id").expect("a project");
        let project = project.to_str().expect("a project's name");
        let key = QueueKey::new(
            ProjectId::parse(project).expect("a project's name"),
            QueueName::parse(queue).expect("a queue's name"),
        );
        let homes = self.api.store_ids_of(&key).await;
        homes.expect("the queue is there")
    }

    /// The same service as another client of the project sees it.
    pub(crate) fn client(&self, id: &str) -> Self {
        self.header("Client-ID", id)
    }

    /// The same service as another project sees it.
    pub(crate) fn project(&self, id: &str) -> Self {
        self.header("X-Project-Id", id)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, ()).await
    }

    pub(crate) async fn head(&self, path: &str) -> Answer {
        self.send("HEAD", path, ()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, ()).await
    }

    pub(crate) async fn put(&self, path: &str, body: impl Into<Payload>) -> Answer {
        self.send("PUT", path, body).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Payload>) -> Answer {
        self.send("POST", path, body).await
    }

    /// Changes a claim, a subscription, or a queue: then with the media type that it takes, unless another one is set.
    pub(crate) async fn patch(&self, path: &str, body: impl Into<Payload>) -> Answer {
        let is_plain = path.contains("/claims") || path.contains("/subscriptions");
        if is_plain || self.headers.contains_key("content-type") {
            return self.send("PATCH", path, body).await;
        }
        let app = self.header("Content-Type", PATCH_MEDIA);
        app.send("PATCH", path, body).await
    }

    /// Sends any request.
    pub(crate) async fn send(&self, method: &str, path: &str, body: impl Into<Payload>) -> Answer {
        Answer::read(self.respond(method, path, body).await).await
    }

    /// The same, for an answer that its client does not take.
    pub(crate) async fn respond(
        &self,
        method: &str,
        path: &str,
        body: impl Into<Payload>,
    ) -> Response {
        let payload = body.into();
        let mut request = Request::new(payload.pieces);
        *request.method_mut() = Method::from_bytes(method.as_bytes()).expect("a method token");
        *request.uri_mut() = Uri::try_from(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        *request.headers_mut() = self.headers.clone();
        if let Some((name, value)) = payload.framing {
            request.headers_mut().entry(name).or_insert(value);
        }
        self.api.clone().answer(request).await
    }

    /// Posts messages, each given as its body, and returns their ids. They live for an hour.
    pub(crate) async fn post_bodies(
        &self,
        queue: &str,
        bodies: impl IntoIterator<Item = Value>,
    ) -> Vec<String> {
        let messages: Vec<Value> = bodies
            .into_iter()
            .map(|body| serde_json::json!({"ttl": 3600, "body": body}))
            .collect();
        let path = format!("/v2/queues/{queue}/messages");
        let answer = self
            .post(&path, serde_json::json!({"messages": messages}))
            .await;
        answer.assert_status(201);
        let document = answer.json();
        let resources = document["resources"].as_array().expect("resources");
        let id = |href: &Value| href.as_str()?.rsplit('/').next().map(str::to_owned);
        resources.iter().filter_map(id).collect()
    }
}

/// The body of a request: `()` for none, JSON, text, bytes, or pieces that arrive one after the other.
#[derive(Debug)]
pub(crate) struct Payload {
    pieces: Pieces,
    framing: Option<(HeaderName, HeaderValue)>,
}

impl Payload {
    fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self {
            framing: Some((
                HeaderName::from_static("content-length"),
                HeaderValue::from(bytes.len()),
            )),
            pieces: Pieces::new([bytes]),
        }
    }

    /// A chunked body.
    pub(crate) fn chunked(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        Self {
            framing: Some((
                HeaderName::from_static("transfer-encoding"),
                HeaderValue::from_static("chunked"),
            )),
            pieces: Pieces::new(pieces),
        }
    }

    /// Lets the head of the request say nothing of the body.
    pub(crate) fn unannounced(mut self) -> Self {
        self.framing = None;
        self
    }

    /// Counts the pieces that have been taken so far.
    pub(crate) fn taken(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.pieces.taken)
    }
}

impl From<()> for Payload {
    fn from((): ()) -> Self {
        Self {
            pieces: Pieces::new([]),
            framing: None,
        }
    }
}

impl From<Value> for Payload {
    fn from(document: Value) -> Self {
        Self::whole(document.to_string())
    }
}

impl From<&Value> for Payload {
    fn from(document: &Value) -> Self {
        Self::whole(document.to_string())
    }
}

impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        Self::whole(text.to_owned())
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        Self::whole(text)
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::whole(bytes)
    }
}

/// A body in pieces, each of which is here when it is asked for.
#[derive(Debug)]
pub(crate) struct Pieces {
    pieces: VecDeque<Bytes>,
    taken: Arc<AtomicUsize>,
}

impl Pieces {
    fn new(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        Self {
            pieces: pieces.into_iter().collect(),
            taken: Arc::default(),
        }
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.pop_front();
        self.taken.fetch_add(piece.iter().len(), Ordering::SeqCst);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// What a connection would say in `Content-Length`.
    pub(crate) length: Option<u64>,
    body: Bytes,
}

impl Answer {
    async fn read(response: axum::response::Response) -> Self {
        let (head, body) = response.into_parts();
        let length = http_body::Body::size_hint(&body).exact();
        let body = body.collect().await.expect("the body of an answer");
        Self {
            status: head.status.as_u16(),
            headers: head.headers,
            length,
            body: body.to_bytes(),
        }
    }

    /// The value of a header, if there is one.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let value = self.headers.get(name)?;
        Some(value.to_str().expect("a header of plain text"))
    }

    /// The body as it is.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of UTF-8")
    }

    /// The body read as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {:?}", self.status, self.text()))
    }

    /// The only status that is right.
    #[track_caller]
    pub(crate) fn assert_status(&self, status: u16) {
        assert_eq!(self.status, status, "{}", self.text());
    }

    /// The status and the whole text of the body.
    #[track_caller]
    pub(crate) fn assert_is(&self, status: u16, text: &str) {
        assert_eq!((self.status, self.text()), (status, text));
    }

    /// A refusal with its whole document, headers included.
    #[track_caller]
    pub(crate) fn assert_refused(&self, status: u16, title: &str, description: &str) {
        let (title, description) = (Value::from(title), Value::from(description));
        self.assert_is(
            status,
            &format!("{{\"title\": {title}, \"description\": {description}}}"),
        );
        assert_eq!(self.header("content-type"), Some("application/json"));
    }

    /// The references to next pages.
    #[track_caller]
    pub(crate) fn next(&self) -> Option<String> {
        let document = self.json();
        let links = document["links"].as_array().expect("links");
        assert!(links.len() <= 1, "more than one link: {links:?}");
        let link = links.first()?;
        assert_eq!(link["rel"], "next");
        link["href"].as_str().map(str::to_owned)
    }
}
