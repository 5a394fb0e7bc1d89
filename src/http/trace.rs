//! The edge: the first that sees a request and the last that sees its answer.
//!
//! It puts the path into its plain form and answers browsers' preflights; every other answer gets a request id, is
//! counted, and is logged, once.

use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{BoxError, Router};
use bytes::Bytes;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use tower::Service;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::auth::Keystone;
use super::base_path::BasePath;
use super::cors::Cors;
use super::json;
use super::problem::{Cause, Problem, Told};
use super::route::Untrusted;
use super::{App, AppState};
use crate::keystone::{Authenticator, Decision, Refusal, RequestParts};
use crate::telemetry::RouteMetrics;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-openstack-request-id");

/// What must be encoded in a path that is in plain form.
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}')
    .add(b'\\')
    .add(b'^')
    .add(b'|');

/// The whole HTTP face: a service for a connection, or for a test.
#[derive(Debug, Clone)]
pub struct Api {
    pub(crate) app: AppState,
    pub(crate) router: Router,
    /// Whether requests come from an address that may say who asks.
    pub(crate) is_trusted: bool,
    /// Whether they come from a proxy that is named.
    pub(crate) is_proxy: bool,
}

impl Api {
    /// Does what is to be done beside requests, for as long as it is polled.
    pub async fn work(&self) {
        self.app.messaging.work().await;
    }

    /// Waits until all that clients did not receive has been given back, but no longer than two seconds.
    pub async fn give_back(&self) {
        self.app.given_back.finish().await;
    }

    /// The same service, as a connection from this address sees it.
    #[must_use]
    pub fn for_peer(mut self, peer: IpAddr) -> Self {
        self.is_trusted = self.app.identity.trusts(Some(peer));
        self.is_proxy = self.is_trusted && !self.app.identity.proxies().is_empty();
        self
    }

    /// Whether a request is for the root of the API.
    pub(crate) fn is_root<B>(&self, request: &axum::http::Request<B>) -> bool {
        let (path, headers) = (request.uri().path(), request.headers());
        self.app.base_path.is_root(path, headers, self.is_proxy)
    }

    /// The names of the stores that have messages of a queue, oldest first. `NotFound` when there is no such queue.
    pub async fn store_ids_of(
        &self,
        queue: &isimud_contract::QueueKey,
    ) -> isimud_contract::Result<Vec<String>> {
        let place = self.app.messaging.placement(queue).await?;
        let homes = place.segments().map(|segment| segment.store_id.to_string());
        Ok(homes.collect())
    }

    /// Answers a request. Never fails.
    pub async fn answer<B>(mut self, request: axum::http::Request<B>) -> Response
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut request = request.map(Body::new);
        simplify_path(&mut request);
        self.app.base_path.apply(&mut request, self.is_proxy);
        let app = Arc::clone(&self.app);
        if !self.is_trusted || !app.identity.is_shown_secret(request.headers()) {
            request.extensions_mut().insert(Untrusted);
        }
        let Some(cors) = &app.cors else {
            return self.route(request).await;
        };
        let headers = request.headers().clone();
        if Cors::is_preflight(request.method(), &headers) {
            let mut response = Response::new(Body::empty());
            *response.headers_mut() = cors.preflight(&headers);
            return response;
        }
        let mut response = self.route(request).await;
        cors.mark(&headers, response.headers_mut());
        response
    }

    async fn route(&mut self, mut request: Request) -> Response {
        if let Some(keystone) = &self.app.keystone
            && let Err(refusal) = authenticate(keystone, &self.app.base_path, &mut request).await
        {
            return traced(&self.app, &self.app.refused, request, async |_| {
                refused(&refusal)
            })
            .await;
        }
        if is_standard(request.method()) {
            let asks_for_options = *request.method() == Method::OPTIONS;
            let Ok(mut response) = self.router.call(request).await;
            let (status, headers) = (response.status(), response.headers_mut());
            // What axum adds by itself: a length to an answer that has no body, and its own list of methods to the
            // answer that says nothing.
            if status == StatusCode::NO_CONTENT {
                headers.remove(CONTENT_LENGTH);
            } else if asks_for_options && !headers.contains_key(CONTENT_TYPE) {
                headers.remove(ALLOW);
            }
            return response;
        }
        traced(&self.app, &self.app.unmatched, request, async |_| {
            let description = "Invalid HTTP method";
            Problem::new(StatusCode::BAD_REQUEST, "Bad request", description).into_response()
        })
        .await
    }
}

impl Service<Request> for Api {
    type Response = Response;
    type Error = std::convert::Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let api = self.clone();
        Box::pin(async move { Ok(api.answer(request).await) })
    }
}

/// Brings a path into the form that routes are written in: percent-decoded as far as it can be, one slash in front
/// (spec: http.md 1). An encoded slash becomes a slash, and splits a segment.
fn simplify_path(request: &mut Request) {
    let uri = request.uri();
    let path = uri.path();
    if !path.contains('%') && !path.starts_with("//") {
        return;
    }
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let plain = format!(
        "/{}",
        utf8_percent_encode(decoded.trim_start_matches('/'), PATH)
    );
    let with_query = match uri.query() {
        Some(query) => format!("{plain}?{query}"),
        None => plain,
    };
    if let Ok(path_and_query) = PathAndQuery::try_from(with_query) {
        *request.uri_mut() = Uri::from(path_and_query);
    }
}

/// Asks Keystone who sends a request, and notes it there; or has the answer that the request gets.
///
/// Access rules are compared with the path behind the configured base path alone: what a request says of a prefix is not
/// what the rules of a credential were written for, and not every proxy takes it off.
async fn authenticate(
    keystone: &Authenticator,
    base_path: &BasePath,
    request: &mut Request,
) -> Result<(), Refusal> {
    let parts = RequestParts {
        method: request.method(),
        path: request.uri().path(),
        headers: request.headers(),
        base_path,
    };
    let known = match keystone.authenticate(parts).await {
        Decision::Authenticated(caller) | Decision::ProjectMissing(caller) => {
            Keystone::Caller(caller)
        }
        Decision::Signed => Keystone::Signed,
        Decision::Anonymous => Keystone::Anonymous,
        Decision::Refused(refusal) | Decision::Unavailable(refusal) => return Err(refusal),
    };
    request.extensions_mut().insert(known);
    Ok(())
}

fn refused(refusal: &Refusal) -> Response {
    let (name, value) = refusal.header.clone();
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(json::MEDIA_TYPE)),
        (name, value),
    ];
    let mut response = (refusal.status, headers, refusal.body).into_response();
    if refusal.status.is_server_error() {
        // Keystone's state is told once, and not with every request.
        response.extensions_mut().insert(Told);
    }
    response
}

/// Answers a request with a request id on the answer, counts it, and logs it: a line at debug for each, at warn for one
/// that failed or was slow. Of many that fail at once a few are logged (`log_limit`).
pub(crate) async fn traced(
    app: &App,
    metrics: &RouteMetrics,
    request: Request,
    answer: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    let start = Instant::now();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let mut response = answer(request).await;
    let id = RequestId::new();
    response.headers_mut().insert(REQUEST_ID, id.header());
    let (took, status) = (start.elapsed(), response.status());
    metrics.observe(status, took);
    let is_told = response.extensions().get::<Told>().is_some();
    let failed = status.is_server_error() && !is_told;
    let slow = took >= app.slow && !is_told;
    if !failed && !slow && !tracing::enabled!(tracing::Level::DEBUG) {
        return response;
    }
    let cause = response.extensions_mut().remove::<Cause>();
    let cause = cause
        .as_ref()
        .map(|cause| tracing::field::display(&cause.0));
    let (path, id, status) = (uri.path(), id.as_str(), status.as_u16());
    let ms = took.as_secs_f64() * 1000.0;
    if failed {
        match app.failures.admit() {
            Some(0) => tracing::warn!(%method, path, status, ms, id, cause, "request failed"),
            Some(more) => {
                tracing::warn!(%method, path, status, ms, id, cause, more, "request failed, as did more before it");
            }
            None => tracing::debug!(%method, path, status, ms, id, cause, "request failed"),
        }
    } else if slow && let Some(more) = app.failures.admit() {
        tracing::warn!(%method, path, status, ms, id, more, "request was slow");
    } else {
        tracing::debug!(%method, path, status, ms, id, cause, "request");
    }
    response
}

impl App {
    /// Logs an action of a socket, as [`traced`] logs requests.
    pub(crate) fn tell_of_action(
        &self,
        action: &'static str,
        status: StatusCode,
        took: std::time::Duration,
        cause: Option<String>,
    ) {
        let (status, ms) = (status.as_u16(), took.as_secs_f64() * 1000.0);
        let is_worth_a_line = status >= 500 && cause.is_some() || took >= self.slow;
        if is_worth_a_line && let Some(more) = self.failures.admit() {
            tracing::warn!(
                action,
                status,
                ms,
                cause,
                more,
                "an action over WebSocket failed or was slow"
            );
        } else {
            tracing::debug!(action, status, ms, cause, "action");
        }
    }
}

/// `req-` and a random UUID.
struct RequestId([u8; 4 + Hyphenated::LENGTH]);

impl RequestId {
    fn new() -> Self {
        let mut text = *b"req-                                    ";
        Uuid::new_v4().as_hyphenated().encode_lower(&mut text[4..]);
        Self(text)
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    fn header(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).unwrap_or(HeaderValue::from_static("req-"))
    }
}

/// The answer to a path that is no route's.
pub(crate) async fn unmatched(State(app): State<AppState>, request: Request) -> Response {
    traced(&app, &app.unmatched, request, async |_| {
        Problem::no_such_path().into_response()
    })
    .await
}

/// Whether a method token is one that HTTP defines.
fn is_standard(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::DELETE
            | Method::PATCH
            | Method::OPTIONS
            | Method::TRACE
            | Method::CONNECT
    )
}
