//! A connection that can be told to end: it does when nothing is asked on it.
//!
//! hyper closes a connection that is told to end while it waits for a request, whatever has arrived in its socket
//! meanwhile. So it is not told: what it reads from says that there is nothing more, once there is nothing more.
//!
//! An answer belongs to its client when the system has taken it in whole. What is on its way until then is held by
//! [`Held`], which is dropped by hyper when it has been sent, and when it cannot be sent any more: then the connection is
//! [gone](Activity::is_gone), as hyper lets go of it before its buffers, or could not write to it.
//!
//! A connection that goes on as something else than HTTP is busy for as long as that says ([`Occupation`]), and has its place
//! in the table until it is closed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use futures_util::task::AtomicWaker;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::min_rate::{Measured, MinRate};
use super::table::{Slot, Table};
use crate::http::OnTheWay;

/// Bytes that the system takes from hyper at once.
const SMALL: usize = 16 * 1024;

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
    /// It has to end when nothing is answered on it, whatever the others do.
    is_told_to_end: AtomicBool,
    /// It is closed, or cannot be written to.
    is_gone: AtomicBool,
    reader: AtomicWaker,
}

impl Activity {
    /// Part of a request is under way: its answer, or the rest of its body. It is over when what this returns is dropped.
    pub(super) fn begin(&self) -> Busy {
        self.0.parts.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// Whether a request is under way, or has begun to arrive.
    pub(super) fn is_busy(&self) -> bool {
        self.is_answering() || self.0.has_begun.load(Ordering::Relaxed)
    }

    /// Whether a request is under way, the head of which has arrived.
    pub(super) fn is_answering(&self) -> bool {
        self.0.parts.load(Ordering::Relaxed) > 0
    }

    /// Has the connection end, now or when the request that is under way is answered.
    pub(super) fn end(&self) {
        self.0.is_told_to_end.store(true, Ordering::Release);
        self.0.reader.wake();
    }

    pub(super) fn is_told_to_end(&self) -> bool {
        self.0.is_told_to_end.load(Ordering::Acquire)
    }

    /// Whether what has not been sent by now never will be.
    fn is_gone(&self) -> bool {
        self.0.is_gone.load(Ordering::Acquire)
    }

    /// Bytes of a request have come.
    pub(super) fn has_received(&self) {
        self.0.has_begun.store(true, Ordering::Relaxed);
    }

    fn go(&self) {
        self.0.is_gone.store(true, Ordering::Release);
    }
}

/// Says of a connection that it is used by something else than HTTP.
#[derive(Debug, Clone)]
pub(crate) struct Occupation(pub(super) Activity);

impl Occupation {
    /// Keeps the connection open, whatever the others do and while the server stops, until what this returns is dropped.
    pub(crate) fn begin(&self) -> Busy {
        self.0.begin()
    }
}

/// Part of a request that is under way, or what a connection is used for instead of HTTP.
#[derive(Debug)]
pub(crate) struct Busy(Activity);

impl Busy {
    /// The request is over when the body is handed over to be sent, or given up.
    pub(super) fn until_sent(self, body: Body, on_the_way: Option<OnTheWay>) -> Sending {
        Sending {
            body,
            on_the_way: on_the_way.map(|it| Hanging(Some(it), self.0.clone())),
            busy: Some(self),
        }
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

/// The body of an answer that is to be handed over.
#[derive(Debug)]
pub(super) struct Sending {
    body: Body,
    on_the_way: Option<Hanging>,
    busy: Option<Busy>,
}

/// The bytes of an answer that hyper has, and what hangs on them: until they are sent, the request is under way.
#[derive(Debug)]
struct Held {
    body: Bytes,
    _on_the_way: Option<Hanging>,
    _busy: Option<Busy>,
}

/// What hangs on an answer. Dropped before hyper has the bytes, it is as if it had had them and could not send them.
#[derive(Debug)]
struct Hanging(Option<OnTheWay>, Activity);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        if let Some(on_the_way) = self.0.take() {
            match self.1.is_gone() {
                true => on_the_way.lost(),
                false => on_the_way.sent(),
            }
        }
    }
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let Poll::Ready(Some(Ok(frame))) = polled else {
            return polled;
        };
        let body = match frame.into_data() {
            Ok(body) => body,
            Err(frame) => return Poll::Ready(Some(Ok(frame))),
        };
        // A document is one piece. A small one is in the system's hands as soon as it is in hyper's.
        let is_last = self.body.is_end_stream();
        if self.on_the_way.is_none() && (body.len() <= SMALL || !is_last) {
            return Poll::Ready(Some(Ok(Frame::data(body))));
        }
        let held = Held {
            body,
            _on_the_way: self.on_the_way.take(),
            _busy: self.busy.take_if(|_| is_last),
        };
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(held)))))
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
    measured: Measured,
    table: Arc<Table>,
    is_encrypted: bool,
    _slot: Slot,
}

impl Connection {
    pub(super) fn new(
        stream: TcpStream,
        activity: Activity,
        mut phase: watch::Receiver<Phase>,
        min_rate: MinRate,
        table: Arc<Table>,
        slot: Slot,
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
            measured: Measured::new(min_rate),
            table,
            is_encrypted: false,
            _slot: slot,
        }
    }

    /// The same for bytes that are encrypted: whoever decrypts them says when a request has begun.
    pub(super) fn encrypted(mut self) -> Self {
        self.is_encrypted = true;
        self
    }

    /// Notes what came of a try to write so many bytes.
    fn note(
        &mut self,
        context: &mut Context<'_>,
        offered: usize,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let failed = match &written {
            Poll::Ready(Ok(bytes)) => {
                self.measured.took(*bytes, offered);
                return written;
            }
            Poll::Ready(Err(_)) => written,
            Poll::Pending => match self.measured.check(context) {
                Ok(()) => return Poll::Pending,
                Err(error) => {
                    self.table.tell_slow();
                    Poll::Ready(Err(error))
                }
            },
        };
        self.activity.go();
        failed
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.activity.go();
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
            if into.filled().len() > before && !self.is_encrypted {
                self.activity.has_received();
            }
            return Poll::Ready(read);
        }
        self.activity.0.reader.register(context.waker());
        if self.activity.is_told_to_end() {
            return match self.activity.is_answering() || has_arrived(&self.stream) {
                true => Poll::Pending,
                false => Poll::Ready(Ok(())),
            };
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
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(context, bytes.len(), written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        let offered = slices.iter().map(|slice| slice.len()).sum();
        self.note(context, offered, written)
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
