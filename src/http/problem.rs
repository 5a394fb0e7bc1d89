//! Errors as documents: the only table from kinds to statuses (spec: http.md 7).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_TYPE, RETRY_AFTER, VARY};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use isimud_contract::{Error, ErrorKind, REASON, Resource};
use serde::Serialize;
use utoipa::ToSchema;

use super::json;

/// The document of every error.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorDocument {
    /// What kind of error it is.
    title: Cow<'static, str>,
    /// What is wrong with this request.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<Cow<'static, str>>,
}

/// An error on its way to a client, with what the operator should know of it.
#[derive(Debug)]
pub(crate) struct Problem(Box<Inner>);

#[derive(Debug)]
struct Inner {
    status: StatusCode,
    document: ErrorDocument,
    header: Option<(HeaderName, HeaderValue)>,
    cause: Option<Error>,
    is_told: bool,
}

/// What the trace finds in a response that failed: the text for the operator.
#[derive(Debug, Clone)]
pub(crate) struct Cause(pub(crate) Arc<Error>);

type Text = Cow<'static, str>;

/// The mark of a response that failed for a reason that the log tells by itself, once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told;

/// When a client should try again after a 503, in seconds.
const RETRY_AFTER_SECS: &str = "2";

impl Problem {
    pub(crate) fn new(
        status: StatusCode,
        title: impl Into<Text>,
        description: impl Into<Text>,
    ) -> Self {
        let document = ErrorDocument {
            title: title.into(),
            description: Some(description.into()),
        };
        Self::with_document(status, document)
    }

    fn with_document(status: StatusCode, document: ErrorDocument) -> Self {
        Self(Box::new(Inner {
            status,
            document,
            header: None,
            cause: None,
            is_told: false,
        }))
    }

    fn without_description(status: StatusCode, title: &'static str) -> Self {
        let document = ErrorDocument {
            title: title.into(),
            description: None,
        };
        Self::with_document(status, document)
    }

    fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.header = Some((name, value));
        self
    }

    /// A value out of range, or parameters that do not go together.
    pub(crate) fn request(description: impl Into<Text>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Invalid API request", description)
    }

    /// A body that is missing, cannot be parsed, or is of a wrong type.
    pub(crate) fn body(description: impl Into<Text>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Invalid request body", description)
    }

    /// A body that is JSON, but an array where an object belongs, or the like.
    pub(crate) fn unsupported_document() -> Self {
        Self::body("Document type not supported.")
    }

    /// A body that has to be unpacked before it can be read (`Content-Encoding`).
    pub(crate) fn encoded_body() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Unsupported content encoding",
            "Request bodies are taken without a Content-Encoding only.",
        )
        .with_header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
    }

    /// A query parameter that is no integer or boolean.
    pub(crate) fn parameter(description: impl Into<Text>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Invalid parameter", description)
    }

    /// Something that does not exist.
    pub(crate) fn not_found(description: impl Into<Text>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not found", description)
    }

    /// A path that does not exist.
    pub(crate) fn no_such_path() -> Self {
        Self::without_description(StatusCode::NOT_FOUND, "404 Not Found")
    }

    /// A method that the path does not have.
    pub(crate) fn no_such_method(allow: &HeaderValue) -> Self {
        Self::without_description(StatusCode::METHOD_NOT_ALLOWED, "405 Method Not Allowed")
            .with_header(ALLOW, allow.clone())
    }

    /// The caller may not do this.
    pub(crate) fn not_authorized() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "Not authorized",
            "You are not authorized to complete this action.",
        )
    }

    /// The request says who asks, and comes from nobody who is believed that.
    pub(crate) fn untrusted() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "Not authorized",
            "This service takes requests from its proxies only.",
        )
    }

    /// A project asks more often than it may.
    pub(crate) fn too_soon(wait: Duration) -> Self {
        let secs = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let title = "Too many requests";
        let description =
            "This project has sent more requests than it may. Please wait before the next one.";
        Self::new(StatusCode::TOO_MANY_REQUESTS, title, description)
            .with_header(RETRY_AFTER, HeaderValue::from(secs.max(1)))
    }

    /// What is right now, and cannot be done now.
    fn unavailable(failure: &str) -> Self {
        let description = format!("{failure} Please try again in a few seconds.");
        let title = "Service temporarily unavailable";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, title, description)
            .with_header(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECS))
    }

    /// There is too much under way. The log has told.
    pub(crate) fn busy(failure: &str) -> Self {
        let mut problem = Self::unavailable(failure);
        problem.0.is_told = true;
        problem
    }

    /// The status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        self.0.status
    }

    /// What kind of error it is.
    pub(crate) fn title(&self) -> &str {
        &self.0.document.title
    }

    /// What is wrong with the request; the kind of the error where nothing more is said.
    pub(crate) fn description(&self) -> &str {
        let document = &self.0.document;
        document.description.as_deref().unwrap_or(&document.title)
    }

    /// What the operator should know of it.
    pub(crate) fn cause(&self) -> Option<&Error> {
        self.0.cause.as_ref()
    }

    /// Whether the log tells the reason by itself.
    pub(crate) fn is_told(&self) -> bool {
        self.0.is_told
    }

    /// With what the operator should know of it.
    pub(crate) fn because(mut self, cause: Error) -> Self {
        self.0.cause = Some(cause);
        self
    }

    /// The answer to an error of the service. `failure` says what could not be done, for 503 (spec: http.md 7).
    pub(crate) fn from_error(error: Error, failure: &'static str) -> Self {
        let sentence = || error.sentence().to_owned();
        let mut problem = match error.kind() {
            ErrorKind::Invalid => Self::request(sentence()),
            // No pool takes the queue. That is how pools are set up, and trying again does not change it.
            ErrorKind::NotFound(Resource::MetadataKey | Resource::Pool) => {
                Self::new(StatusCode::CONFLICT, "Resource conflict", sentence())
            }
            ErrorKind::NotFound(_) => Self::not_found(sentence()),
            ErrorKind::AlreadyExists(_) | ErrorKind::InUse(Resource::Subscription) => {
                Self::new(StatusCode::CONFLICT, "Resource conflict", sentence())
            }
            ErrorKind::Full => Self::new(StatusCode::FORBIDDEN, "Quota exceeded", sentence()),
            ErrorKind::Claimed | ErrorKind::NotClaimed | ErrorKind::InUse(_) => {
                Self::new(StatusCode::FORBIDDEN, "Unable to delete", sentence())
            }
            ErrorKind::Unsupported => {
                Self::new(StatusCode::NOT_IMPLEMENTED, "Not supported", sentence())
            }
            ErrorKind::Forbidden => Self::new(StatusCode::FORBIDDEN, "Not authorized", sentence()),
            ErrorKind::Unavailable => match error.about(REASON) {
                Some(reason) => Self::unavailable(&format!("{failure} {reason}")),
                None => Self::unavailable(failure),
            },
            ErrorKind::Internal => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "Internal server error",
                "The service could not complete the request.",
            ),
        };
        problem.0.cause = Some(error);
        problem
    }
}

/// What a handler makes of the service's errors.
pub(crate) trait OrProblem<T> {
    /// Answers with the general table; `failure` is the sentence of a 503.
    fn or_problem(self, failure: &'static str) -> Result<T, Problem>;

    /// The same, but something that is missing is described by `description`.
    fn or_missing(
        self,
        failure: &'static str,
        description: impl FnOnce() -> String,
    ) -> Result<T, Problem>;
}

impl<T> OrProblem<T> for Result<T, Error> {
    fn or_problem(self, failure: &'static str) -> Result<T, Problem> {
        self.map_err(|error| Problem::from_error(error, failure))
    }

    fn or_missing(
        self,
        failure: &'static str,
        description: impl FnOnce() -> String,
    ) -> Result<T, Problem> {
        self.map_err(|error| match error.kind() {
            ErrorKind::NotFound(Resource::MetadataKey | Resource::Flavor | Resource::Pool) => {
                Problem::from_error(error, failure)
            }
            ErrorKind::NotFound(_) => Problem::not_found(description()),
            _ => Problem::from_error(error, failure),
        })
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Inner {
            status,
            document,
            header,
            cause,
            is_told,
        } = *self.0;
        let mut response = Response::new(Body::from(json::to_vec(&document)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(json::MEDIA_TYPE));
        headers.insert(VARY, HeaderValue::from_static("Accept"));
        headers.extend(header);
        if is_told {
            response.extensions_mut().insert(Told);
        }
        if let Some(cause) = cause {
            response.extensions_mut().insert(Cause(Arc::new(cause)));
        }
        response
    }
}
