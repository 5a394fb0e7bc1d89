//! What is left of a request's body when its answer is there.
//!
//! A request can be refused by its head alone. Its body may be under way then, for many clients send the two apart; and
//! a connection with a body that nobody reads must be closed, which a client that sends its next request meanwhile takes
//! for a failure. So what is left is read and forgotten behind the answer, if it is little and comes soon; else the answer
//! says that the connection ends.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::header::{CONNECTION, EXPECT};
use axum::http::{HeaderValue, Request, Response, StatusCode};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::connection::Activity;

/// How many bytes are read for nobody.
const MAX_DRAINED_BYTES: u64 = 1 << 20;

/// For how long they are waited for.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A body that is given back when it was not read to its end.
#[derive(Debug)]
pub(crate) struct TrackedBody {
    body: Option<Incoming>,
    back: Option<Arc<Mutex<Option<Incoming>>>>,
}

/// Where it is given back to.
#[derive(Debug)]
pub(super) struct UnreadBody {
    back: Option<Arc<Mutex<Option<Incoming>>>>,
    /// The client sends its body when it is told to, and it never was.
    is_held_back: bool,
}

/// Lends the body of a request to whoever answers it.
pub(super) fn track(request: Request<Incoming>) -> (Request<TrackedBody>, UnreadBody) {
    let back = (!request.body().is_end_stream()).then(Arc::default);
    let unread = UnreadBody {
        back: back.clone(),
        is_held_back: request.headers().contains_key(EXPECT),
    };
    let tracked = |body| TrackedBody {
        body: Some(body),
        back,
    };
    (request.map(tracked), unread)
}

impl UnreadBody {
    /// Reads what is left behind the answer, or has the answer say that it ends the connection.
    pub(super) fn drain<B>(self, response: &mut Response<B>, activity: &Activity) {
        let Some(back) = self.back else { return };
        let left = back.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(body) = left else { return };
        let was_waited_for = response.status() == StatusCode::REQUEST_TIMEOUT;
        if self.is_held_back || was_waited_for || body.size_hint().lower() > MAX_DRAINED_BYTES {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        } else {
            let busy = activity.begin();
            tokio::spawn(async move {
                // What does not come in time ends the connection.
                drop(tokio::time::timeout(DRAIN_TIMEOUT, read_out(body)).await);
                drop(busy);
            });
        }
    }
}

/// Reads a body for nobody. When it is dropped before its end, the connection is closed.
async fn read_out(mut body: Incoming) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, |data| data.len() as u64);
        if read > MAX_DRAINED_BYTES {
            return;
        }
    }
}

impl Body for TrackedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let none = || SizeHint::with_exact(0);
        self.body.as_ref().map_or_else(none, Incoming::size_hint)
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        let left = self.body.take().filter(|body| !body.is_end_stream());
        if let Some(back) = &self.back {
            *back.lock().unwrap_or_else(PoisonError::into_inner) = left;
        }
    }
}
