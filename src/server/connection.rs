//! A connection that can be told to end: it does when nothing is asked on it.
//!
//! hyper closes a connection that is told to end while it waits for a request, whatever has arrived in its socket
//! meanwhile. So it is not told: what it reads from says that there is nothing more, once there is nothing more.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// How far the server is on its way to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It serves.
    Serving,
    /// Each answer is the last one of its connection.
    Finishing,
    /// Connections without a request end.
    Closing,
}

/// Whether something is asked on a connection: from the first byte of a request to the last one of its answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Activity(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// Parts of requests that are under way.
    parts: AtomicUsize,
    /// Bytes have come since the last of them was over: the next request has begun.
    has_begun: AtomicBool,
}

impl Activity {
    /// Part of a request is under way: its answer, or the rest of its body. It is over when what this returns is dropped.
    pub(super) fn begin(&self) -> Busy {
        self.0.parts.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }

    fn is_busy(&self) -> bool {
        self.0.parts.load(Ordering::Relaxed) > 0 || self.0.has_begun.load(Ordering::Relaxed)
    }
}

/// Part of a request that is under way.
#[derive(Debug)]
pub(super) struct Busy(Activity);

impl Busy {
    /// The request is over when the body is sent, or given up.
    pub(super) fn until_sent(self, body: Body) -> Sending {
        Sending { body, _busy: self }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let state = &self.0.0;
        // What has come until now belongs to the request that is over.
        if state.parts.fetch_sub(1, Ordering::Relaxed) == 1 {
            state.has_begun.store(false, Ordering::Relaxed);
        }
    }
}

/// The body of an answer on its way.
#[derive(Debug)]
pub(super) struct Sending {
    body: Body,
    _busy: Busy,
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A client's connection. Reading comes to an end when the server closes and nothing is asked.
pub(super) struct Connection {
    stream: TcpStream,
    activity: Activity,
    closing: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_closing: bool,
}

impl Connection {
    pub(super) fn new(
        stream: TcpStream,
        activity: Activity,
        mut phase: watch::Receiver<Phase>,
    ) -> Self {
        let closing = Box::pin(async move {
            // An error means that the listener is gone, which is as good as being told.
            drop(phase.wait_for(|phase| *phase == Phase::Closing).await);
        });
        Self {
            stream,
            activity,
            closing,
            is_closing: false,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(context, into) {
            if into.filled().len() > before {
                self.activity.0.has_begun.store(true, Ordering::Relaxed);
            }
            return Poll::Ready(read);
        }
        if !self.is_closing {
            ready!(self.closing.as_mut().poll(context));
            self.is_closing = true;
        }
        // What has arrived may not be known to the runtime yet: then it will say so.
        match self.activity.is_busy() || has_arrived(&self.stream) {
            true => Poll::Pending,
            false => Poll::Ready(Ok(())),
        }
    }
}

/// Whether the system has bytes of the client that nobody has read.
fn has_arrived(stream: &TcpStream) -> bool {
    rustix::io::ioctl_fionread(stream).is_ok_and(|bytes| bytes > 0)
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
