//! The edge: the first that sees a request and the last that sees its answer.
//!
//! It puts the path into its plain form, answers browsers' preflights, gives every answer a request id, counts it, and
//! logs it, once.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONTENT_LENGTH;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{BoxError, Router};
use bytes::Bytes;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use tower::Service;
use uuid::Uuid;

use super::AppState;
use super::cors::Cors;
use super::problem::{Cause, Problem};

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

/// The template of the path that matched, left in the response by the gate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matched(pub(crate) &'static str);

/// The whole HTTP face: a service for a connection, or for a test.
#[derive(Debug, Clone)]
pub struct Api {
    pub(crate) app: AppState,
    pub(crate) router: Router,
}

impl Api {
    /// Answers a request. Never fails.
    pub async fn answer<B>(mut self, request: axum::http::Request<B>) -> Response
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let start = Instant::now();
        let mut request = request.map(Body::new);
        simplify_path(&mut request);
        let method = request.method().clone();
        let cors = self
            .app
            .cors
            .as_ref()
            .map(|cors| (cors, request.headers().clone()));
        if let Some((cors, headers)) = &cors
            && Cors::is_preflight(&method, headers)
        {
            let mut response = Response::new(Body::empty());
            *response.headers_mut() = cors.preflight(headers);
            response
                .headers_mut()
                .insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            return response;
        }
        let uri = request.uri().clone();
        let mut response = if is_standard(&method) {
            let Ok(response) = self.router.call(request).await;
            response
        } else {
            Problem::new(
                StatusCode::BAD_REQUEST,
                "Bad request",
                "Invalid HTTP method",
            )
            .into_response()
        };
        let id = format!("req-{}", Uuid::new_v4());
        if let Ok(value) = HeaderValue::try_from(&id) {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        if let Some((cors, headers)) = &cors {
            cors.mark(headers, response.headers_mut());
        }
        finish(
            &self.app,
            &Finished {
                method: &method,
                uri: &uri,
                id: &id,
                took: start.elapsed(),
            },
            &mut response,
        );
        response
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

struct Finished<'a> {
    method: &'a Method,
    uri: &'a Uri,
    id: &'a str,
    took: Duration,
}

/// Counts and logs an answer: a line at debug for each, at warn for one that failed or was slow.
fn finish(app: &AppState, request: &Finished<'_>, response: &mut Response) {
    let route = response
        .extensions_mut()
        .remove::<Matched>()
        .map_or("unmatched", |matched| matched.0);
    let cause = response.extensions_mut().remove::<Cause>();
    let status = response.status();
    app.metrics
        .request(route, request.method, status, request.took);
    let failed = status.is_server_error();
    let slow = request.took >= app.slow;
    if !failed && !slow && !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    let (method, path, id, status) = (
        request.method,
        request.uri.path(),
        request.id,
        status.as_u16(),
    );
    let ms = request.took.as_secs_f64() * 1000.0;
    let cause = cause.map(|cause: Cause| Arc::clone(&cause.0));
    let cause = cause.as_ref().map(tracing::field::display);
    if failed {
        tracing::warn!(%method, path, status, ms, id, cause, "request failed");
    } else if slow {
        tracing::warn!(%method, path, status, ms, id, "request was slow");
    } else {
        tracing::debug!(%method, path, status, ms, id, cause, "request");
    }
}

/// The answer to a path that is no route's.
pub(crate) async fn unmatched() -> Problem {
    Problem::no_such_path()
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
