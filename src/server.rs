//! Listening, and stopping without leaving a request unanswered.
//!
//! ```text
//! serving     connections are kept for further requests
//! finishing   from the signal to stop, for the idle grace at the most: every answer says that it is the last one of its
//!             connection (`Connection: close`); connections that wait to be accepted are served as well
//! closing     nobody can connect any more; connections that have no request end, those that have one when it is answered
//! ```
//!
//! A connection ends only when the socket has nothing more to read: a request that was sent before is answered.

mod connection;
mod head;
mod rest;

use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use connection::{Activity, Connection, Phase};
use rest::Lent;

use crate::admin::guard::Peer;

/// Answers requests of many connections.
pub(crate) trait Answer: Clone + Send + Sync + 'static {
    /// The same for the requests of one connection.
    fn for_peer(self, peer: IpAddr) -> Self;

    fn answer(
        self,
        request: Request<Lent>,
    ) -> impl Future<Output = axum::http::Response<Body>> + Send;
}

impl Answer for crate::http::Api {
    fn for_peer(self, peer: IpAddr) -> Self {
        Self::for_peer(self, peer)
    }

    fn answer(
        self,
        request: Request<Lent>,
    ) -> impl Future<Output = axum::http::Response<Body>> + Send {
        Self::answer(self, request)
    }
}

impl Answer for axum::Router {
    fn for_peer(self, peer: IpAddr) -> Self {
        self.layer(axum::Extension(Peer(peer)))
    }

    async fn answer(mut self, request: Request<Lent>) -> axum::http::Response<Body> {
        let Ok(response) = tower::Service::call(&mut self, request.map(Body::new)).await;
        response
    }
}

/// How patient a listener is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// The time that the head of a request may take.
    pub(crate) header: Duration,
    /// The time that connections have to send one more request once the server is told to stop.
    pub(crate) idle: Duration,
    /// The time that requests under way may take after that.
    pub(crate) shutdown: Duration,
}

/// Serves until `stop` is ready; then answers what is sent within the idle grace, takes no more connections and finishes
/// what runs.
pub(crate) async fn listen(
    listener: TcpListener,
    face: impl Answer,
    patience: Patience,
    stop: impl Future<Output = ()> + Send,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(patience.header);
    // Every connection has a receiver, so that the phase is closed when no connection is left.
    let (phase, _) = watch::channel(Phase::Serving);
    let serve = |stream, peer| {
        serve(
            stream,
            &http,
            face.clone().for_peer(peer),
            phase.subscribe(),
        )
    };

    accept_until(&listener, &serve, stop).await;
    phase.send_replace(Phase::Finishing);
    let finished = async {
        // Late is as good as closed: the grace is over.
        drop(tokio::time::timeout(patience.idle, phase.closed()).await);
    };
    accept_until(&listener, &serve, finished).await;
    accept_rest(listener, &serve);
    phase.send_replace(Phase::Closing);
    let closed = tokio::time::timeout(patience.shutdown, phase.closed()).await;
    if closed.is_err() {
        tracing::warn!("some requests were not finished in time");
    }
}

/// Serves connections until `end` is ready.
async fn accept_until(
    listener: &TcpListener,
    serve: &(impl Fn(TcpStream, IpAddr) + Sync),
    end: impl Future<Output = ()> + Send,
) {
    let mut end = pin!(end);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut end => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => serve(stream, peer.ip()),
            Err(error) => refuse(&error).await,
        }
    }
}

/// Connections that wait to be accepted, at the most: as many as tokio has the system keep.
const BACKLOG: usize = 1024;

/// Serves the connections that wait to be accepted, and lets go of the address.
fn accept_rest(listener: TcpListener, serve: &impl Fn(TcpStream, IpAddr)) {
    // By the system's own call: it knows of each, also of those that the runtime has not heard of yet.
    let accepted = listener.into_std().and_then(|listener| {
        for _ in 0..BACKLOG {
            let (stream, peer) = listener.accept()?;
            stream.set_nonblocking(true)?;
            serve(TcpStream::from_std(stream)?, peer.ip());
        }
        Ok(())
    });
    if let Err(error) = accepted
        && error.kind() != io::ErrorKind::WouldBlock
    {
        tracing::debug!(%error, "a connection could not be accepted any more");
    }
}

fn serve(
    stream: TcpStream,
    http: &http1::Builder,
    face: impl Answer,
    phase: watch::Receiver<Phase>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection is gone already");
    }
    let activity = Activity::default();
    let stream = Connection::new(stream, activity.clone(), phase.clone());
    let service = service_fn(move |request| {
        let refused = head::refuse(&request);
        let (request, rest) = rest::lend(request);
        let (activity, phase) = (activity.clone(), phase.clone());
        let busy = activity.begin();
        let face = face.clone();
        async move {
            let mut answer = match refused {
                Some(refused) => refused,
                None => {
                    let mut answer = face.answer(request).await;
                    rest.settle(&mut answer, &activity);
                    answer
                }
            };
            if *phase.borrow() != Phase::Serving {
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(CONNECTION, close);
            }
            Ok::<_, std::convert::Infallible>(answer.map(|body| busy.until_sent(body)))
        }
    });
    let connection = http.serve_connection(TokioIo::new(stream), service);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection ended early");
        }
    });
}

/// A connection that could not be accepted is the client's, or there are too many: then a pause gives others the time
/// to end.
async fn refuse(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    ) {
        tracing::error!(%error, "cannot accept connections");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream as Socket;

    use axum::Router;
    use axum::routing::get;
    use tokio::sync::oneshot;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";

    /// A listener with a page, and what stops it.
    async fn start(
        idle: Duration,
    ) -> (
        std::net::SocketAddr,
        oneshot::Sender<()>,
        impl Future<Output = ()> + Send,
    ) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let page = Router::new().route("/", get(|| async { "page" }));
        let patience = Patience {
            header: PATIENCE,
            idle,
            shutdown: PATIENCE,
        };
        let (stop, stopped) = oneshot::channel();
        let listening = listen(listener, page, patience, async { drop(stopped.await) });
        (address, stop, listening)
    }

    fn connect(address: std::net::SocketAddr) -> Socket {
        let socket = Socket::connect(address).expect("a connection");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        socket
    }

    /// Reads one answer in another thread, as this one serves.
    async fn answer(mut socket: Socket) -> (Socket, String) {
        let read = tokio::task::spawn_blocking(move || {
            let (mut text, mut bytes) = (String::new(), [0; 1024]);
            while !text.ends_with("page") {
                match socket.read(&mut bytes) {
                    Ok(0) => break,
                    Ok(read) => text.push_str(&String::from_utf8_lossy(&bytes[..read])),
                    Err(error) => return (socket, format!("{text}{error}")),
                }
            }
            (socket, text)
        });
        read.await.expect("it is read")
    }

    #[tokio::test]
    async fn a_request_that_was_sent_before_its_connection_closes_is_answered() {
        let (address, stop, listening) = start(Duration::ZERO).await;
        let listening = tokio::spawn(listening);
        let mut used = connect(address);
        used.write_all(REQUEST).expect("it is sent");
        let (mut used, first) = answer(used).await;
        assert!(!first.contains("connection: close"), "{first}");
        // Nobody is served between here and the stop: this thread does not wait.
        used.write_all(REQUEST).expect("it is sent");
        let mut fresh = connect(address);
        fresh.write_all(REQUEST).expect("it is sent");
        let idle = connect(address);
        stop.send(()).expect("it listens");
        for socket in [used, fresh] {
            let (_, text) = answer(socket).await;
            assert!(text.contains("connection: close"), "{text}");
            assert!(text.ends_with("page"), "{text}");
        }
        let (_, text) = answer(idle).await;
        assert_eq!(text, "");
        listening.await.expect("it ends");
    }

    #[tokio::test]
    async fn a_request_that_has_begun_is_waited_for_and_an_idle_connection_is_not() {
        let (address, stop, listening) = start(Duration::ZERO).await;
        let listening = tokio::spawn(listening);
        let (begun, rest) = REQUEST.split_at(10);
        let mut slow = connect(address);
        slow.write_all(begun).expect("it is sent");
        let idle = connect(address);
        stop.send(()).expect("it listens");
        let (_, text) = answer(idle).await;
        assert_eq!(text, "", "the idle connection is closed");
        assert!(!listening.is_finished());
        slow.write_all(rest).expect("it is sent");
        let (_, text) = answer(slow).await;
        assert!(text.ends_with("page"), "{text}");
        listening.await.expect("it ends");
    }

    #[tokio::test]
    async fn an_idle_connection_may_ask_once_more_within_the_grace() {
        let (address, stop, listening) = start(PATIENCE).await;
        let listening = tokio::spawn(listening);
        let mut used = connect(address);
        used.write_all(REQUEST).expect("it is sent");
        let (mut used, _) = answer(used).await;
        stop.send(()).expect("it listens");
        tokio::task::yield_now().await;
        used.write_all(REQUEST).expect("it is sent");
        let (_, text) = answer(used).await;
        assert!(text.contains("connection: close"), "{text}");
        assert!(text.ends_with("page"), "{text}");
        // Without a connection the rest of the grace is not waited for.
        listening.await.expect("it ends");
    }
}
