//! What is said to a request: its status, its document, and the envelope around both (spec: websocket.md 1).

use axum::body::Body;
use axum::http::{Response, StatusCode};
use http_body_util::BodyExt;
use isimud_contract::{Error, ErrorKind};
use serde::Serialize;

use crate::http::problem::Problem;
use crate::http::{OnTheWay, json};

/// The answer to a request.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    /// JSON.
    pub(super) body: Vec<u8>,
    /// After how many seconds to try again, where that is known.
    pub(super) retry_after: Option<u64>,
    pub(super) on_the_way: Option<OnTheWay>,
}

impl Reply {
    /// A document.
    pub(super) fn new(status: StatusCode, body: Vec<u8>) -> Self {
        Self {
            status,
            body,
            retry_after: None,
            on_the_way: None,
        }
    }

    /// The same for a document that is written here.
    pub(super) fn of(status: StatusCode, document: &impl Serialize) -> Self {
        Self::new(status, json::to_vec(document))
    }

    /// An answer of the REST API, with what hangs on it.
    pub(super) async fn of_response(response: Response<Body>) -> Self {
        let (mut parts, body) = response.into_parts();
        let on_the_way = parts.extensions.remove::<OnTheWay>();
        // It is in memory: there is nothing to wait for, and no way to fail.
        let body = body.collect().await.map(|body| body.to_bytes());
        Self {
            on_the_way,
            ..Self::new(parts.status, body.unwrap_or_default().into())
        }
    }

    /// The whole message: the request is shown again, in `echo`.
    pub(super) fn in_envelope(&self, echo: &[u8]) -> Vec<u8> {
        let mut text = Vec::with_capacity(echo.len() + self.body.len() + 96);
        text.extend_from_slice(b"{\"request\":");
        text.extend_from_slice(echo);
        text.extend_from_slice(b",\"body\":");
        text.extend_from_slice(&self.body);
        let status = self.status.as_u16();
        text.extend_from_slice(format!(",\"headers\":{{\"status\":{status}").as_bytes());
        if let Some(secs) = self.retry_after {
            text.extend_from_slice(format!(",\"Retry-After\":{secs}").as_bytes());
        }
        text.extend_from_slice(b"}}");
        text
    }
}

/// A request that is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    /// None where the request came to no action.
    exception: Option<String>,
    error: Option<String>,
    retry_after: Option<u64>,
    /// What the operator should know of it.
    pub(super) cause: Option<String>,
}

#[derive(Serialize)]
struct Plain<'a> {
    error: &'a str,
}

#[derive(Serialize)]
struct OfAction<'a> {
    exception: &'a str,
    error: Option<&'a str>,
}

/// What an unexpected failure is called.
const UNEXPECTED: &str = "Unexpected error.";

impl Refusal {
    /// One that comes before any action.
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            exception: None,
            error: Some(error.into()),
            retry_after: None,
            cause: None,
        }
    }

    /// The client is not known.
    pub(super) fn not_authenticated() -> Self {
        Self::new(StatusCode::FORBIDDEN, "Not authentified.")
    }

    /// The client is known, and asks for another project.
    pub(super) fn other_project() -> Self {
        Self::new(StatusCode::FORBIDDEN, "Not authenticated.")
    }

    /// One of an action.
    pub(super) fn of_action(
        status: StatusCode,
        exception: impl Into<String>,
        error: Option<String>,
    ) -> Self {
        Self {
            status,
            exception: Some(exception.into()),
            error,
            retry_after: None,
            cause: None,
        }
    }

    /// An error of the service; `failure` says what could not be done, where trying again may help.
    pub(super) fn of_error(error: Error, failure: String) -> Self {
        let is_unavailable = error.kind() == ErrorKind::Unavailable;
        let refusal = Self::from(Problem::from_error(error, ""));
        match is_unavailable {
            true => Self {
                error: Some(failure),
                ..refusal
            },
            false => refusal,
        }
    }

    pub(super) fn after(self, secs: u64) -> Self {
        Self {
            retry_after: Some(secs),
            ..self
        }
    }

    /// The same with what is wrong in the words of the API, beside those of the exception.
    pub(super) fn because(self, error: impl Into<String>) -> Self {
        Self {
            error: Some(error.into()),
            ..self
        }
    }

    pub(super) fn into_reply(self) -> Reply {
        let error = self.error.as_deref();
        let body = match &self.exception {
            None => json::to_vec(&Plain {
                error: error.unwrap_or_default(),
            }),
            Some(exception) => json::to_vec(&OfAction { exception, error }),
        };
        Reply {
            retry_after: self.retry_after,
            ..Reply::new(self.status, body)
        }
    }
}

impl From<Problem> for Refusal {
    /// The same sentence as over HTTP.
    fn from(problem: Problem) -> Self {
        let status = problem.status();
        let cause = problem.cause().map(ToString::to_string);
        let sentence = problem.description().trim_start();
        // A field that cannot be read is introduced so by the reference.
        let exception = match problem.title() {
            "Invalid request body" => format!("Bad request. {sentence}"),
            _ => sentence.to_owned(),
        };
        let error = match status {
            StatusCode::INTERNAL_SERVER_ERROR => Some(UNEXPECTED.to_owned()),
            StatusCode::SERVICE_UNAVAILABLE => Some(UNAVAILABLE.to_owned()),
            _ => None,
        };
        Self {
            status,
            exception: Some(exception),
            error,
            retry_after: None,
            cause: cause.filter(|_| status.is_server_error() && !problem.is_told()),
        }
    }
}

const UNAVAILABLE: &str = "The service is busy, or one of its stores does not answer.";
