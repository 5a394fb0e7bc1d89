//! Request bodies: read once, never beyond what the operation allows, never for longer than a body may take, and only where
//! there is room for what is still to come ([`super::budget`]).

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use isimud_contract::ProjectId;

use super::problem::Problem;
use super::{AppState, auth};

/// A body that has not been read yet.
#[derive(Debug)]
pub(crate) struct Payload {
    body: Body,
    declared: Declared,
    timeout: Duration,
    /// Whose it is; none where there is none.
    project: Option<HeaderValue>,
    app: AppState,
}

/// What the head of the request says of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Declared {
    Absent,
    Length(u64),
    Chunked,
}

impl Declared {
    fn read(headers: &HeaderMap) -> Self {
        let length = headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        match length {
            Some(length) => Self::Length(length),
            None if headers.contains_key(TRANSFER_ENCODING) => Self::Chunked,
            None => Self::Absent,
        }
    }
}

impl FromRequest<AppState> for Payload {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &AppState) -> Result<Self, Problem> {
        let declared = Declared::read(request.headers());
        if !matches!(declared, Declared::Absent | Declared::Length(0))
            && !is_plain(request.headers())
        {
            return Err(Problem::encoded_body());
        }
        let project = match declared {
            Declared::Absent => None,
            _ => auth::project_of(&request, &app.identity),
        };
        Ok(Self {
            body: request.into_body(),
            declared,
            timeout: app.body_timeout,
            project,
            app: Arc::clone(app),
        })
    }
}

/// Whether a body is sent as it is. One that has to be unpacked first is refused: nobody sends such bodies to this API,
/// and whoever unpacks them has to beware of a few bytes that become many.
fn is_plain(headers: &HeaderMap) -> bool {
    let mut codings = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii);
    codings.all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case(b"identity"))
}

impl Payload {
    /// Refuses a body whose head says already that it is too large.
    pub(crate) fn refuse_above(
        &self,
        most: usize,
        too_large: impl FnOnce() -> Problem,
    ) -> Result<(), Problem> {
        match self.declared {
            Declared::Length(length)
                if usize::try_from(length).is_ok_and(|length| length > most) =>
            {
                Err(too_large())
            }
            _ => Ok(()),
        }
    }

    /// Reads the body; `None` when there is none. A chunked body is a body (quirk Q-HTTP-1), and its size is checked
    /// while it arrives.
    pub(crate) async fn read(
        mut self,
        most: usize,
        too_large: impl Fn() -> Problem + Send + Sync,
    ) -> Result<Option<Bytes>, Problem> {
        self.refuse_above(most, &too_large)?;
        if self.declared == Declared::Absent {
            return Ok(None);
        }
        let read = async {
            let mut first = Bytes::new();
            let mut all = BytesMut::new();
            while let Some(frame) = self.body.frame().await {
                let frame = frame.map_err(|_| Problem::body("Request body could not be read."))?;
                let Ok(chunk) = frame.into_data() else {
                    continue;
                };
                if first.len() + all.len() + chunk.len() > most {
                    return Err(too_large());
                }
                // Most bodies arrive in one piece, which then needs no copy.
                if first.is_empty() && all.is_empty() {
                    first = chunk;
                    continue;
                }
                if all.is_empty() {
                    all.extend_from_slice(&std::mem::take(&mut first));
                }
                all.extend_from_slice(&chunk);
            }
            Ok(Some(if all.is_empty() { first } else { all.freeze() }))
        };
        let mut read = pin!(read);
        // A body that is here already, as most are, needs no timer.
        if let Poll::Ready(body) = poll_fn(|context| Poll::Ready(read.as_mut().poll(context))).await
        {
            return body;
        }
        // What is still to come has room from now on.
        let bytes = match self.declared {
            Declared::Length(length) => usize::try_from(length).unwrap_or(most),
            _ => most,
        };
        let Some(_spent) = self.app.bodies.take(&owner(self.project.as_ref())?, bytes) else {
            self.app.metrics.traffic().busy("bodies");
            let sentence = "Too many bodies of requests of this project are on their way.";
            return Err(Problem::busy(sentence));
        };
        let description = "The body of the request did not arrive in time.";
        tokio::time::timeout(self.timeout, read)
            .await
            .unwrap_or_else(|_| {
                let status = StatusCode::REQUEST_TIMEOUT;
                Err(Problem::new(status, "Request timeout", description))
            })
    }

    /// Reads a body that the operation needs.
    pub(crate) async fn required(
        self,
        most: usize,
        too_large: impl Fn() -> Problem + Send + Sync,
    ) -> Result<Bytes, Problem> {
        self.read(most, too_large)
            .await?
            .ok_or_else(|| Problem::body("Request body can not be empty"))
    }
}

/// Whose budget a body counts for.
fn owner(project: Option<&HeaderValue>) -> Result<ProjectId, Problem> {
    let named = project.and_then(|value| ProjectId::parse(&auth::latin1(value)).ok());
    // The gate has let none pass without.
    named.ok_or_else(Problem::no_such_path)
}

/// The refusal of a body whose operation has no sentence of its own.
pub(crate) fn too_large() -> Problem {
    Problem::body("Request body is too large.")
}
