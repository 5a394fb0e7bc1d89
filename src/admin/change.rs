//! Documents that ask for a change: JSON, said to be JSON, and nothing in the query.
//!
//! A browser sends no request with that media type for a page of another origin without asking first, and nobody answers
//! that question.

use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use super::Fault;

/// The largest document, in bytes.
const MAX_BODY_BYTES: usize = 64 << 10;

/// How long one may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A document that asks for a change.
#[derive(Debug)]
pub(super) struct Change<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Change<T> {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Response> {
        read(request).await.map(Self).map_err(Fault::into_response)
    }
}

async fn read<T: DeserializeOwned>(request: Request) -> Result<T, Fault> {
    let media = request.headers().get(CONTENT_TYPE);
    let media = media.and_then(|value| value.to_str().ok());
    let media = media.map(|text| text.split(';').next().unwrap_or_default().trim());
    if !media.is_some_and(|media| media.eq_ignore_ascii_case("application/json")) {
        return Err(Fault::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "A change is asked for by a document with 'Content-Type: application/json'.",
        ));
    }
    let invalid = |sentence: String| Fault::new(StatusCode::BAD_REQUEST, sentence);
    if request.uri().query().is_some_and(|query| !query.is_empty()) {
        return Err(invalid(
            "A change is asked for by the document alone: leave the query out.".to_owned(),
        ));
    }
    let reading = tokio::time::timeout(BODY_TIMEOUT, to_bytes(request.into_body(), MAX_BODY_BYTES));
    let body = reading.await.map_err(|_| {
        let sentence = "The document did not arrive in time.";
        Fault::new(StatusCode::REQUEST_TIMEOUT, sentence)
    })?;
    let body = body.map_err(|_| {
        let sentence =
            format!("The document has more than {MAX_BODY_BYTES} bytes, or was cut off.");
        Fault::new(StatusCode::PAYLOAD_TOO_LARGE, sentence)
    })?;
    serde_json::from_slice(&body)
        .map_err(|error| invalid(format!("The document is not what is asked for: {error}")))
}
